#!/usr/bin/env bash
# Where the questions of ask come from, what follows what, and what of an answer is checked: -Q, -i,
# --follow-up, --quotes, --max-answer; documents that grow.
set -u
. tests/cli/lib.sh

model=$work/model.gguf
"$CCA" export models/cca-*.gguf -q --chat-template plain -o "$model"
fact='The code of the old lighthouse is 48213.'
question='What is the code of the old lighthouse?'
head -c 3000 docs/MODEL.md | iconv -c -f UTF-8 -t UTF-8 >"$work/begin"
tail -c 3000 docs/MODEL.md | iconv -c -t ASCII >"$work/end"
{ iconv -c -t ASCII "$work/begin"; printf '\n%s\n\n' "$fact"; cat "$work/end"; } >"$work/text"
ask=(ask -m "$model" -f "$work/text")
at=$(grep -ob "$fact" "$work/text" | cut -d: -f1)

field() { # name, number of the answer: numbers of --json or --jsonl
    grep -oE "\"$1\": -?[0-9]+" "$work/out" | sed -n "$2s/.*: //p"
}

# Questions as JSON lines.
cat >"$work/q.jsonl" <<END
"$question"

{"id": 7, "question": "$question", "max_answer": 2}
{"question": "$question", "id": "b", "stop": "13"}
{"question": "$question", "stop": ["x", "8"], "id": 1.5}
END
expect 0 'questions of a file' "${ask[@]}" -Q "$work/q.jsonl" "$question"
stdout_is 'come behind those of the arguments' '48213
48213
4
482
4'
expect 0 'with records' "${ask[@]}" -Q "$work/q.jsonl" --jsonl
check 'a line each and the end' test "$(wc -l <"$work/out")" = 5
check 'which carry their ids' test "$(grep -oE '"id": ("[^"]*"|[0-9.]+)' "$work/out" | tr '\n' ' ')" = \
    '"id": 7 "id": "b" "id": 1.5 '
stdout_has 'and why they ended' '"text": "4", "stop_reason": "length".*"id": 7'
expect 0 'two files' "${ask[@]}" -Q "$work/q.jsonl" -Q "$work/q.jsonl" --json
check 'in one record' test "$(grep -o '"id": 7' "$work/out" | wc -l)" = 2
gzip -c "$work/q.jsonl" >"$work/q.gz"
expect 0 'a compressed file' "${ask[@]}" -Q "$work/q.gz"
stdout_has 'is read' '^482$'

printf '%s\n' '{"question": "Who\u0000 is it?", "stop": "\u0000x"}' >"$work/nul.jsonl"
expect 0 'NUL in a question' "${ask[@]}" -Q "$work/nul.jsonl" --jsonl
stdout_has 'is a character like any other' '"question": "Who\\u0000 is it\?", "text": "[^"]'

bad_line() { # exit code, name, line, message
    printf '"One?"\n%s\n' "$3" >"$work/bad.jsonl"
    rm -rf "$work/cache"
    expect "$1" "$2" "${ask[@]}" -Q "$work/bad.jsonl"
    stderr_has 'is named' "bad\.jsonl, line 2$4"
    stdout_empty 'before anything is answered'
    check 'or read' test ! -e "$work/cache"
}
bad_line 2 'no JSON' '{"question": "Who?"' ': no JSON: .*\(byte [0-9]+ of the line\)'
bad_line 2 'a number' '3' ': a text that is not empty or an object expected'
bad_line 2 'no question' '{"id": 3}' ', field "question": a text'
bad_line 2 'an empty question' '{"question": ""}' ', field "question": a text'
bad_line 2 'an unknown field' '{"question": "Who?", "stops": "x"}' ': unknown field "stops"; there are'
bad_line 2 'an id that is none' '{"question": "Who?", "id": [1]}' ', field "id": a text or a number'
bad_line 2 'a bound that is none' '{"question": "Who?", "max_answer": -2}' ', field "max_answer": a whole number'
bad_line 2 'a stop text that is empty' '{"question": "Who?", "stop": ["a", ""]}' ', field "stop": a text'
bad_line 2 'a field twice' '{"question": "Who?", "question": "When?"}' ': no JSON: duplicate object key'
bad_line 6 'a line that is no UTF-8' $'"\xff"' ': invalid UTF-8 at byte 1 of the line'
expect 1 'no such file' "${ask[@]}" -Q "$work/none"
stderr_has 'is named' "none: cannot open"
printf '\n' >"$work/empty"
expect 2 'a file without questions' "${ask[@]}" -Q "$work/empty"
expect 2 'documents and questions from standard input' ask -m "$model" -Q - <"$work/q.jsonl"
stderr_has 'is refused' 'standard input has the questions'
expect 2 'two kinds of questions from there' "${ask[@]}" -Q - -i </dev/null

# Standard input is answered as it comes.
"${CCA}" "${ask[@]}" -q >/dev/null 2>&1 x
mkfifo "$work/in"
"$CCA" "${ask[@]}" -q -Q - --jsonl <"$work/in" >"$work/out" 2>"$work/err" &
pid=$!
exec 3>"$work/in"
printf '{"question": "%s", "id": 1}\n' "$question" >&3
for _ in $(seq 200); do
    grep -q '"id": 1' "$work/out" && break
    sleep 0.05
done
stdout_has 'an answer before the next question' '"text": "48213".*"id": 1'
printf '{"question": "%s", "id": 2}\n{"id": 3}\n' "$question" >&3
exec 3>&-
wait $pid
check 'a bad line ends it with exit 2' test $? = 2
stdout_has 'behind the answers before it' '"text": "48213".*"id": 2'
stderr_has 'and is named' 'standard input, line 3, field "question"'
printf '%s\n\n  \r\n%s' "$question" "$question" >"$work/lines"
expect 0 'lines of standard input' "${ask[@]}" -i <"$work/lines"
stdout_is 'are questions, empty ones are none' '48213
48213'
check 'without control characters' test -z "$(tr -d '\n' <"$work/err" | tr -dc '\000-\037')"
printf 'Who?\n\xff\n' >"$work/lines"
expect 6 'a line that is no UTF-8' "${ask[@]}" -i <"$work/lines"
printf '%05000d\n' 0 >"$work/lines"
expect 4 'a question that does not fit' "${ask[@]}" -i -c 3000 <"$work/lines"
stderr_has 'with the numbers' 'question 1: with it the prompt has [0-9]+ tokens; there is room for [0-9]+'
if command -v script >/dev/null; then
    : >"$work/out"
    at_prompt() { # the n-th: until it is there, for a minute at most
        for _ in {1..600}; do
            [ "$(grep -o '> ' "$work/out" | wc -l)" -ge "$1" ] && return
            sleep 0.1
        done
    }
    {
        at_prompt 1; printf '%s\n' "$question"
        at_prompt 2; printf '%05000d\n' 0
        at_prompt 3; printf '%s\n' "$question"
        at_prompt 4; printf '\004'
    } | script -qec "'$CCA' ask -m '$model' -f '$work/text' -i -c 3000 --color off --progress none --sources 0" /dev/null >"$work/out"
    check 'a terminal: exit 0' test "${PIPESTATUS[1]}" = 0
    check 'has a prompt for each question, and one for its end' test "$(grep -o '> ' "$work/out" | wc -l)" -ge 4
    check 'and the answers' test "$(grep -o '48213' "$work/out" | wc -l)" = 2
    stdout_has 'and goes on behind a question that does not fit' 'question 2: with it the prompt has'
    : >"$work/out"
    { at_prompt 1; printf '\003'; sleep 1; } | script -qec "'$CCA' ask -m '$model' -f '$work/text' -i" /dev/null >"$work/out"
    check 'Ctrl-C at the prompt: exit 130' test "${PIPESTATUS[1]}" = 130
else
    skip 'a prompt loop' 'no script(1)'
fi

# Each question goes on from the answer before.
rm -rf "$work/cache"
expect 0 'follow-up' "${ask[@]}" --follow-up --jsonl "$question" "$question" 'Who?'
check 'reads the documents once' test "$(field prefilled 2)" -lt 40 -a "$(field prefilled 3)" -lt 40
check 'reuses question and answer' test "$(field reused 2)" = $(($(field prompt 1) + $(field generated 1) - 1))
texts() { sed -nE 's/.*"text": "(.*)", "stop_reason".*/\1/p' "$work/out"; }
texts >"$work/first"
first=$(sed -n 1p "$work/first")
{ cat "$work/text"; printf '\n\nQuestion: %s\nAnswer: %s' "$question" "$first"; } >"$work/told"
cca ask -m "$model" -f "$work/told" --jsonl "$question"
check 'as if both were part of the document' test "$(texts)" = "$(sed -n 2p "$work/first")"
expect 0 'a stop text inside a token' "${ask[@]}" --follow-up --jsonl --stop 821 "$question" "$question"
check 'cuts the answer' test "$(texts | head -1)" = 4
check 'whose rest is not part of the conversation' test "$(field reused 2)" = "$(field document_tokens 1)" -a \
    "$(field prompt 2)" -gt "$(field prompt 1)"
for template in llama2 llama3 mistral chatml zephyr; do
    case $template in
    llama3 | chatml) continue ;; # this model has not their tokens
    esac
    expect 0 "follow-up with $template" "${ask[@]}" --chat-template $template -n 6 --follow-up --jsonl a b c
    check 'reuses the answers' test "$(field reused 3)" = $(($(field prompt 2) + $(field generated 2) - 1))
done

# Bounds, and the same bytes again.
expect 0 '--max-answer' "${ask[@]}" --jsonl --max-answer 3 "$question"
stdout_has 'bounds the answer' '"stop_reason": "length".*"generated": 3'
expect 0 'a temperature' "${ask[@]}" -n 12 --temp 2 --seed 5 'Who?' 'What?'
cp "$work/out" "$work/warm"
cca "${ask[@]}" -n 12 --temp 2 --seed 5 'Who?' 'What?'
check 'with a seed gives the same' cmp "$work/out" "$work/warm"
cca "${ask[@]}" -n 12 --temp 2 --seed 6 'Who?' 'What?'
check 'with another does not' test "$(cat "$work/out")" != "$(cat "$work/warm")"
cca "${ask[@]}" -n 12 'Who?' 'What?'
cp "$work/out" "$work/cold"
cca "${ask[@]}" -n 12 --seed 6 --no-kv 'Who?' 'What?'
check 'without a temperature seeds make no difference' cmp "$work/out" "$work/cold"

# Quotations of whatever the model says, against grep.
for _ in 1 2 3 4 5 6 7 8; do
    printf 'He said: "I will go."  And she said: "No, you will\n not."\n'
done >"$work/said"
tr -s ' \n' ' ' <"$work/said" >"$work/folded"
found=0 missing=0 wrong=0
for seed in 1 2 3 4 5 6; do
    cca ask -m "$model" --chat-template mistral -f "$work/said" --no-kv -n 80 --temp 1 --seed $seed --quotes \
        --jsonl 'What did he say? "'
    while IFS= read -r told; do
        text=$(sed -E 's/^quote "(.*)": [^"]*$/\1/' <<<"$told" | tr -s ' ')
        case $told in
        *'": not found in the documents')
            missing=$((missing + 1))
            grep -qF -- "$text" "$work/folded" && wrong=$((wrong + 1)) ;;
        *)
            found=$((found + 1))
            read -r begin end <<<"$(sed -E 's/.*, bytes ([0-9]+)-([0-9]+)$/\1 \2/' <<<"$told")"
            [ "$(tail -c +$((begin + 1)) "$work/said" | head -c $((end - begin)) | tr -s ' \n' ' ')" = "$text" ] ||
                wrong=$((wrong + 1)) ;;
        esac
    done < <(grep '^quote "' "$work/err")
    check "seed $seed: the record has the quotes, too" \
        test "$(grep -o '"found": ' "$work/out" | wc -l)" = "$(grep -c '^quote "' "$work/err")"
done
check '--quotes finds some, and some not' test $found -gt 0 -a $missing -gt 0
check 'where they are' test $wrong = 0
expect 0 'without --quotes' "${ask[@]}" -n 4 --json 'Who?'
check 'nothing is looked up' test "$(grep -c quotes "$work/out")" = 0

# The passages that an answer attended to.
answers() { # the record, up to a document's own braces
    grep -o '"sources": \[.*' "$work/out"
}
expect 0 'sources' "${ask[@]}" "$question"
check 'are three with a model that was trained for it' test "$(grep -c '^source [123]: ' "$work/err")" = 3
stderr_has 'the first of which has the fact' \
    "^source 1: $work/text, lines? [0-9-]+, bytes [0-9]+-[0-9]+, [0-9]+ %: \".*48213"
read -r begin end <<<"$(sed -nE 's/^source 1: .*, bytes ([0-9]+)-([0-9]+), .*/\1 \2/p' "$work/err")"
check 'in these bytes' test "$begin" -lt $((at + ${#fact})) -a "$end" -gt "$at"
expect 0 'a number of them' "${ask[@]}" --sources 1 "$question" --jsonl
check 'is how many there are' test "$(answers | grep -o '"share": ' | wc -l)" = 1
text=$(answers | sed -E 's/.*"text": "(.*)"\}\].*/\1/')
read -r begin end <<<"$(answers | sed -E 's/.*"begin": ([0-9]+), "end": ([0-9]+).*/\1 \2/')"
check 'with the text of these bytes' test "$(printf '%b' "$text")" = "$(tail -c +$((begin + 1)) "$work/text" | head -c $((end - begin)))"
expect 0 'none' "${ask[@]}" --sources=0 "$question"
check 'where none are wanted' test "$(grep -c '^source' "$work/err")" = 0
expect 0 'an option without its number' "${ask[@]}" --attn full --sources "$question"
check 'is three, and the question stays one' test "$(grep -c '^source ' "$work/err")" = 3
cca "${ask[@]}" --attn full "$question"
check 'unless asked for, not with full attention' test "$(grep -c '^source ' "$work/err")" = 0
expect 0 'of several documents' ask -m "$model" -f "$work/begin" -f "$work/text" -f "$work/end" "$question"
stderr_has 'the right one' "^source 1: $work/text, "
read -r begin end <<<"$(sed -nE 's/^source 1: .*, bytes ([0-9]+)-([0-9]+), .*/\1 \2/p' "$work/err")"
check 'in its bytes' test "$begin" -lt $((at + ${#fact})) -a "$end" -gt "$at"
for place in first last; do # the document's first tokens, and its last ones
    if [ $place = first ]; then printf '%s\n' "$fact" | cat - "$work/end"; else cat "$work/end" && printf '\n%s' "$fact"; fi >"$work/edge"
    edge=$(grep -ob 48213 "$work/edge" | cut -d: -f1)
    for attn in cca recall full; do
        expect 0 "$attn: a fact in the $place tokens" ask -m "$model" -f "$work/edge" --attn $attn --sources 1 "$question"
        read -r begin end <<<"$(sed -nE 's/^source 1: .*, bytes ([0-9]+)-([0-9]+), .*/\1 \2/p' "$work/err")"
        check 'is the first source' test "$begin" -lt $((edge + 5)) -a "$end" -gt "$edge"
        [ $place = first ] || stderr_has 'and the place is told' '^the end of the documents has [5-9][0-9] % of the attention'
    done
done
expect 0 'a fact in the middle' "${ask[@]}" "$question"
check 'is at no end' test "$(grep -c 'of the documents has' "$work/err")" = 0
expect 0 'behind a system text' ask -m "$model" -sys "$(cat "$work/begin")" -f "$work/text" "$question"
stderr_has 'which is no source' "^source 1: $work/text, .*48213"
check 'at all' test "$(grep -c "^source [123]: $work/text" "$work/err")" = 3
expect 2 'a number that is none' "${ask[@]}" --sources=x "$question"

# What was surely not meant.
ask_code() { # exit status, name, arguments
    expect "$1" "$2" ask -m "$model" -n 2 "${@:3}"
}
ask_code 2 'a file as a question' -f "$work/text" "$work/begin" "$question"
stderr_has 'is named, with -f' "question 1, \"$work/begin\", is the name of a file; -f takes one file"
ask_code 2 'a folder as a question' -f "$work/text" "$question" "$work"
stderr_has 'is named, too' 'question 2, .* is the name of a folder'
ask_code 2 'an empty question' -f "$work/text" ''
ask_code 2 'one of white space' -f "$work/text" "$question" $' \n'
printf '" "\n' >"$work/blank.jsonl"
ask_code 2 'one of them in a file' -f "$work/text" -Q "$work/blank.jsonl"
printf '\xef\xbb\xbf"%s"\n' "$question" >"$work/marked.jsonl"
ask_code 0 'a byte order mark before questions' -f "$work/text" -Q "$work/marked.jsonl"
: >"$work/nothing" && printf '\xef\xbb\xbf \n' >"$work/white"
ask_code 4 'an empty document' -f "$work/nothing" "$question"
stderr_has 'is named' 'nothing is empty'
ask_code 4 'one of white space' -f "$work/white" "$question"
ask_code 4 'nothing on standard input' "$question" </dev/null
ask_code 0 'an empty one of two' -f "$work/nothing" -f "$work/text" "$question"
stderr_has 'is warned of' 'warning: .*nothing is empty'
stderr_has 'an answer that is cut is told' '^answer 1 is cut: it has reached the 2 tokens that -n'
expect 0 'one that ends' "${ask[@]}" "$question"
check 'is not' test "$(grep -c 'is cut' "$work/err")" = 0

# Borders between documents, and their names.
printf 'The code is 12' >"$work/one" && printf '34 and more.' >"$work/two"
tokens_with() { cca ask -m "$model" --jsonl -n 1 "$@" Who && field document_tokens 1; }
both=$(tokens_with -p "$(cat "$work/one" "$work/two")")
single=$(tokens_with -f "$work/one")
check 'an empty line between documents' test "$(tokens_with -f "$work/one" -f "$work/two" --names off)" -gt "$both"
check 'is the same for texts' test "$(tokens_with -p "$(cat "$work/one")" -p "$(cat "$work/two")")" = \
    "$(tokens_with -f "$work/one" -f "$work/two" --names off)"
check 'several files have names' test "$(tokens_with -f "$work/one" -f "$work/two")" -gt \
    "$(tokens_with -f "$work/one" -f "$work/two" --names off)"
check 'a single one has none' test "$(tokens_with -f "$work/one" --names off)" = "$single"
check 'unless it is wanted' test "$(tokens_with -f "$work/one" --names on)" -gt "$single"
mkdir "$work/folder" && cp "$work/two" "$work/folder/two" && cp "$work/one" "$work/folder/one"
check 'folders are no part of names' test "$(tokens_with -f "$work/folder/one" -f "$work/two")" = \
    "$(tokens_with -f "$work/one" -f "$work/two")"
check 'but of equal ones' test "$(tokens_with -f "$work/folder/two" -f "$work/two")" -gt \
    "$(tokens_with -f "$work/two" -f "$work/one")"

# A document in the middle that grows.
rm -rf "$work/cache"
cp "$work/begin" "$work/a" && cp "$work/text" "$work/b" && cp "$work/end" "$work/c"
three=(ask -m "$model" -f "$work/a" -f "$work/b" -f "$work/c" --jsonl -n 2 Who)
count() { "$CCA" tokenize -m "$model" -f "$1" --count --no-bos; }
cca "${three[@]}"
until_b=$(("$(count "$work/a")" + "$(count "$work/b")")) # and BOS, less a dummy prefix or so
printf 'One page more.\n' >>"$work/b"
behind=$(($(count "$work/c") + 60))
expect 0 'a document in the middle that has grown' "${three[@]}"
check 'costs its new part and what stands behind' test "$(field prefilled 1)" -lt $behind -a "$(field reused 1)" -gt $((until_b - 40))
cp "$work/out" "$work/grown"
cca "${three[@]}" --no-kv
check 'with the same answer' test "$(texts)" = "$(sed -nE 's/.*"text": "(.*)", "stop_reason".*/\1/p' "$work/grown")"
expect 0 'documents without the last' ask -m "$model" -f "$work/a" -f "$work/b" --jsonl -n 2 Who
check 'are there but for a few tokens' test "$(field prefilled 1)" -lt 30
check 'in the same file' test "$(find "$work/cache" -name '*.ccas' | wc -l)" -le 2
