#!/usr/bin/env bash
# Makes one document of a task, with its questions: OUT.txt and OUT.tsv, as text.awk tells.
#
#     quality/task.sh TASK NUMBER LENGTH BYTES OUT
#
# TASK is single-1 … single-3, multikey-1 … multikey-3, multivalue, multiquery, variables, common_words,
# frequent_words or choices-SET, a file of questions/, as docs/QUALITY.md tells; documents of another NUMBER or
# LENGTH (in tokens, which BYTES are about) have other texts. Environment: BOOKS_DIR [build/quality/books], TEXTS_DIR, where
# README.md, docs/ and examples/ are [the folder above this script's].
set -euo pipefail
. "$(dirname "$0")/lib.sh"
TEXTS_DIR=${TEXTS_DIR:-$here/..}
task=$1 number=$2 length=$3 bytes=$4 out=$5
# Seeds that follow each other would draw values that do; checksums do not.
seed=$(echo "$task $number $length" | cksum | cut -d' ' -f1)
make() { # maker, files
    awk -v task="$task" -v tokens="$length" -v seed="$seed" -v bytes="$bytes" -v out="$out" \
        -f "$here/text.awk" -f "$here/tasks/$1.awk" "${@:2}"
}

choices() { # question set
    local source books=() book
    source=$(sed -n 's/^source: //p' "$1")
    case $source in books/*) source=$BOOKS_DIR/${source#books/} ;; *) source=$TEXTS_DIR/$source ;; esac
    for book in "$BOOKS_DIR"/*.txt; do
        [ "$book" = "$source" ] || books+=("$book")
    done
    make choices "$1" "$source" RS= "${books[@]}"
}

case $task in
single-[123] | multikey-[123] | multivalue | multiquery) make needles "$here/facts.txt" RS= "$BOOKS_DIR"/*.txt ;;
frequent_words) make "$task" ;;
variables) make variables RS= "$BOOKS_DIR"/*.txt ;;
common_words) make "$task" "$here/words.txt" ;;
choices-*) choices "$here/questions/${task#choices-}.txt" ;;
*)
    echo "$0: unknown task $task" >&2
    exit 2
    ;;
esac
