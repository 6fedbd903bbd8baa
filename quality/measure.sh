#!/usr/bin/env bash
# One measurement of a model, kept so that it is made once.
#
#     quality/measure.sh ppl   MODEL ATTENTION LENGTH BOOK WINDOWS
#     quality/measure.sh facts MODEL ATTENTION LENGTH SET NUMBER PER
#
# ATTENTION is cca, recall, full, mean, max, window or sinks:N; cca:G:S:SINKS and recall:TOKENS:TILE:ROWS tell
# other values than the model's, one that is left empty the model's own: cca:::0 is the paper's form.
# `ppl` measures the first WINDOWS windows of LENGTH tokens of a book, `facts` asks about one document
# of LENGTH tokens with PER facts at each depth. The result is OUT/FINGERPRINT/ATTENTION/…, with the
# columns that bands.awk and answers.awk tell; where it is there already nothing is done.
#
# Environment: OUT [build/quality], CCA [./cca], THREADS [0: all], DEVICE [cpu],
# BOOKS_DIR [OUT/books].
set -euo pipefail
export LC_ALL=C
here=$(dirname "$0")
OUT=${OUT:-build/quality} CCA=${CCA:-./cca}
BOOKS_DIR=${BOOKS_DIR:-$OUT/books}

test=$1 model=$2 attention=$3 length=$4 what=$5
fingerprint=$("$CCA" info "$model" --json | sed 's/.*"fingerprint": "\([0-9a-f]\{8\}\).*/\1/')
result=$OUT/$fingerprint/$attention/$test-$length/$what
[ "$test" = facts ] && result=$result-$6
[ -f "$result" ] && exit 0
mkdir -p "$(dirname "$result")"

run=(-m "$model" -t "${THREADS:-0}" --device "${DEVICE:-cpu}" -q)
case $attention in
cca*)
    IFS=: read -r kind g s z <<<"$attention"
    run+=(--attn cca ${g:+-g "$g"} ${s:+-w "$s"} ${z:+--sinks "$z"})
    ;;
recall*)
    IFS=: read -r kind budget tile rows <<<"$attention"
    run+=(--attn recall ${budget:+--recall "$budget"} ${tile:+--recall-tile "$tile"} ${rows:+-ctr "$rows"})
    ;;
*) run+=(--attn "$attention") ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
start=$(date +%s)

perplexity() { # windows
    "$CCA" ppl "${run[@]}" -f "$BOOKS_DIR/$what.txt" --mode chunk -c "$length" \
        --tokens $(($1 * (length - 1))) --nll-out "$scratch/nll" >"$scratch/report"
    awk -v window="$length" -f "$here/bands.awk" "$scratch/nll" >"$scratch/result"
}

# Processor time of all commands so far, in seconds: other than the time by the clock it hardly depends
# on what else the machine does.
processor_time() {
    times >"$scratch/times"
    awk -F'[ms ]' 'NR == 2 { print $1 * 60 + $2 }' "$scratch/times"
}

# Makes a document of so many bytes and counts its tokens.
make_document() { # number, facts a depth, bytes
    awk -v bytes="$3" -v seed=$((length + $1)) -v set="$what" -v per="$2" -v out="$scratch/doc" \
        -f "$here/document.awk" "$here/facts.txt" RS= "$BOOKS_DIR"/*.txt
    tokens=$("$CCA" tokenize -m "$model" -f "$scratch/doc.txt" --count)
}

# Documents leave room for a question and its answer. Their bytes are adjusted until they nearly fill
# it; where no sentence ends at the right place, the longest that fits is taken.
facts() { # number, facts a depth
    local room=$((length - 64)) bytes=$((length * 7 / 2)) best=0 best_bytes=0 tokens spent i
    for i in 1 2 3 4 5 6 7 8 9 10; do
        make_document "$1" "$2" $bytes
        [ "$tokens" -le $room ] && [ "$tokens" -gt $best ] && best=$tokens best_bytes=$bytes
        [ "$tokens" -le $room ] && [ "$tokens" -ge $((room - 64 - room / 200)) ] && break
        bytes=$((bytes + (room - 32 - room / 400 - tokens) * bytes / tokens))
    done
    [ $best -gt 0 ] || { echo "$0: no document of $length tokens" >&2; exit 1; }
    [ $bytes -eq $best_bytes ] || make_document "$1" "$2" $best_bytes
    processor_time >"$scratch/before"
    cut -f3 "$scratch/doc.tsv" | tr '\n' '\0' |
        xargs -0 "$CCA" ask "${run[@]}" --chat-template plain -f "$scratch/doc.txt" -n 16 --no-kv --jsonl --sources 0 -- \
            >"$scratch/answers"
    processor_time >"$scratch/after"
    spent=$(paste "$scratch/before" "$scratch/after" | awk '{ print $2 - $1 }')
    awk -v where="$(nproc)/${THREADS:-0}" -v spent="$spent" -f "$here/answers.awk" "$scratch/doc.tsv" "$scratch/answers" >"$scratch/result"
}

case $test in
ppl) perplexity "$6" ;;
facts) facts "$6" "$7" ;;
esac
mv "$scratch/result" "$result.part$$"
mv "$result.part$$" "$result"
echo "$(($(date +%s) - start)) s  $*" >&2
