#!/usr/bin/env bash
# How often the sources that `cca ask --sources` tells are the facts that were asked for.
#
#     quality/sources.sh models/cca-books-15m.gguf known 2048 20
#
# Makes NUMBER documents of about LENGTH tokens, each with a fact of the set (known, new) at eleven depths,
# asks for each, and prints a line: set, length, documents, facts, and of them in per cent: answers right to
# the letter, first source in the fact, one of the first three, and the same two without the facts that
# begin in the first group, which attracts attention by itself. A source is right where it overlaps the fact's
# statement.
#
# Environment: BOOKS_DIR, folder of held-out books [build/quality/books, made by quality/run.sh]; CCA
# [./cca]; THREADS [0: all].
set -euo pipefail
export LC_ALL=C
here=$(dirname "$0")
CCA=${CCA:-./cca} BOOKS_DIR=${BOOKS_DIR:-build/quality/books}
model=$1 set=$2 length=$3 number=$4
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

books=("$BOOKS_DIR"/*.txt) # facts are planted in the first, as measure.sh does
for i in $(seq "$number"); do
    awk -v bytes=$((length * 33 / 10)) -v seed=$((length + i)) -v set="$set" -v per=1 -v out="$scratch/doc" \
        -f "$here/text.awk" -f "$here/document.awk" "$here/facts.txt" RS= "${books[0]}"
    cut -f3 "$scratch/doc.tsv" | tr '\n' '\0' |
        xargs -0 "$CCA" ask -m "$model" -t "${THREADS:-0}" --device cpu -q --chat-template plain -f "$scratch/doc.txt" \
            -n 16 --no-kv --jsonl --sources 3 -- >"$scratch/answers"
    awk -f "$here/record.awk" -f "$here/sources.awk" "$scratch/doc.tsv" "$scratch/answers" >>"$scratch/hits"
done
awk -v name="$set $length $number" '
    { n++; right += $1; first += $2; three += $3 }
    !$4 { rest++; rest_first += $2; rest_three += $3 }
    END { printf "%s %d %.1f %.1f %.1f %.1f %.1f\n", name, n, 100 * right / n, 100 * first / n, 100 * three / n,
        100 * rest_first / rest, 100 * rest_three / rest }' "$scratch/hits"
