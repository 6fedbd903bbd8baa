#!/usr/bin/env bash
# One measurement of a model, kept so that it is made once.
#
#     quality/measure.sh ppl   MODEL ATTENTION LENGTH BOOK WINDOWS
#     quality/measure.sh facts MODEL ATTENTION LENGTH SET NUMBER PER
#     quality/measure.sh task  MODEL ATTENTION LENGTH TASK BLOCK QUESTIONS [TOKENIZER]
#     quality/measure.sh apart MODEL ATTENTION LENGTH TEXT TOKENS BASE
#     quality/measure.sh speed MODEL ATTENTION LENGTH decode TOKENS
#
# ATTENTION is cca, recall, full, mean, max, window or sinks:N; cca:G:S:SINKS and recall:TOKENS:TILE:ROWS tell
# other values than the model's, one that is left empty the model's own: cca:::0 is the paper's form.
# `ppl` measures the first WINDOWS windows of LENGTH tokens of a book, `facts` asks about one document
# of LENGTH tokens with PER facts at each depth, `task` QUESTIONS or a few more of a task about documents that
# nearly fill LENGTH tokens of the model TOKENIZER [MODEL], other ones in each block (documents.sh), `apart` how far TOKENS of a text in windows of LENGTH
# are from those of the model BASE with full attention, `speed` takes the time of a prefill of LENGTH tokens and of TOKENS behind
# it. TEXT is books (the begin of each), code, docs or french. The result is OUT/FINGERPRINT/ATTENTION/…, with the
# columns that bands.awk, answers.awk, score.awk and apart.awk tell; where it is there already nothing is done.
#
# Environment: OUT [build/quality], CCA [./cca], THREADS [0: all], DEVICE [cpu],
# BOOKS_DIR [OUT/books].
set -euo pipefail
. "$(dirname "$0")/lib.sh"

test=$1 model=$2 attention=$3 length=$4 what=$5
result=$OUT/$(fingerprint "$model")/$attention/$test-$length/$what
[ "$test" = ppl ] || result=$result-$6
[ -f "$result" ] && exit 0
mkdir -p "$(dirname "$result")"

run=(-m "$(realpath "$model")" -t "${THREADS:-0}" --device "${DEVICE:-cpu}" -q)
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

# Planted facts come from the first book alone, as in all tables so far.
facts_document() { # bytes
    local books=("$BOOKS_DIR"/*.txt)
    awk -v bytes="$1" -v seed=$((length + number)) -v set="$what" -v per="$per" -v out="$scratch/doc" \
        -f "$here/text.awk" -f "$here/document.awk" "$here/facts.txt" RS= "${books[0]}"
}

# Documents leave room for a question and its answer.
facts() { # number, facts a depth
    local number=$1 per=$2 spent
    fit $((length - 64)) facts_document "$scratch/doc" "$model" $((length * 7 / 2))
    processor_time >"$scratch/before"
    cut -f3 "$scratch/doc.tsv" | tr '\n' '\0' |
        xargs -0 "$CCA" ask "${run[@]}" --chat-template plain -f "$scratch/doc.txt" -n 16 --no-kv --jsonl --sources 0 -- \
            >"$scratch/answers"
    processor_time >"$scratch/after"
    spent=$(paste "$scratch/before" "$scratch/after" | awk '{ print $2 - $1 }')
    awk -v where="$(nproc)/${THREADS:-0}" -v spent="$spent" -f "$here/record.awk" -f "$here/answers.awk" \
        "$scratch/doc.tsv" "$scratch/answers" >"$scratch/result"
}

# All questions of the block in one run, whose documents' paths are relative to OUT.
task() { # block, questions, model
    local program folder
    program=$(realpath "$(command -v "$CCA")")
    folder=$("$here/documents.sh" "$3" "$length" "$what" "$1" "$2")
    (cd "$OUT" && exec "$program" ask "${run[@]}" -Q "$folder/questions.jsonl" --no-kv --jsonl --sources 0) \
        >"$scratch/answers"
    cat "$OUT/$folder"/*.tsv | awk -f "$here/record.awk" -f "$here/score.awk" - "$scratch/answers" >"$scratch/result"
}

# A text of a domain; the project's own as it is today.
text() {
    case $what in
    books) for book in "$BOOKS_DIR"/*.txt; do head -c 40000 "$book"; done ;;
    code) cat "$here"/../*.c "$here"/../backend/*.c "$here"/../cli/*.c ;;
    docs) cat "$here"/../README.md "$here"/../docs/*.md ;;
    french) cat "$here/texts/genese.txt" ;;
    *) echo "$0: unknown text $what" >&2 && return 2 ;;
    esac
}

apart() { # tokens, base
    text | iconv -c -f utf-8 -t utf-8 >"$scratch/text"
    "$CCA" ppl "${run[@]}" -f "$scratch/text" --mode chunk -c "$length" --tokens "$1" --base "$2:full" --json >"$scratch/report"
    awk -f "$here/record.awk" -f "$here/apart.awk" "$scratch/report" >"$scratch/result"
}

speed() { # tokens
    "$CCA" bench "${run[@]}" -p 0 -n "$1" -d "$length" -r 3 --no-peaks --format csv >"$scratch/report"
    awk -F, '$2 == "walk" { prefill = $3 / $6 } $2 == "decode" { token = 1 / $6; bytes = $9 }
        END { printf "%.6g\t%.6g\t%d\n", prefill, token, bytes }' "$scratch/report" >"$scratch/result"
}

case $test in
ppl) perplexity "$6" ;;
apart) apart "$6" "$7" ;;
speed) speed "$6" ;;
facts) facts "$6" "$7" ;;
task) task "$6" "$7" "${8:-$model}" ;;
esac
mv "$scratch/result" "$result.part$$"
mv "$result.part$$" "$result"
echo "$(($(date +%s) - start)) s  $*" >&2
