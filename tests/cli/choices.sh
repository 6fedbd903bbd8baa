#!/usr/bin/env bash
# ask --choices: texts scored as answers, against cca ppl; and how likely an answer that was written is.
set -u
. tests/cli/lib.sh

model=$work/model.gguf
"$CCA" export models/cca-*.gguf -q --type f32 --chat-template plain -o "$model"
fact='The code of the old lighthouse is 48213.'
question='What is the code of the old lighthouse?'
{ head -c 2500 docs/MODEL.md | iconv -c -t ASCII; printf '\n%s\n\n' "$fact"; tail -c 2500 docs/MODEL.md | iconv -c -t ASCII; } >"$work/text"
exact=(-m "$model" -ctk f32 -ctv f32) # weights, too, since sums of one token and of many are compared
short=(ask "${exact[@]}" -p "$fact" --no-kv --sources 0)
ask=(ask "${exact[@]}" -f "$work/text" --no-kv --sources 0)

scores() { # of the last record: text, tokens, logprob, logprob_per_byte, probability, parted by tabs
    sed 's/"timing": {[^}]*}//g' "$work/out" | grep -oE '\{"text": "[^"]*", "logprob": [^}]*\}' |
        sed -E 's/^\{"text": "(.*)", "logprob": (.*), "logprob_per_byte": (.*), "tokens": (.*), "probability": (.*)\}$/\1\t\4\t\2\t\3\t\5/'
}

answer() { # a key of the last record's answers, one a line
    sed -E 's/"choices": \[[^]]*\], //g; s/"tokens": \{[^}]*\}, //g' "$work/out" | grep -oE "\"$1\": (\"[^\"]*\"|[-0-9.e+]+)" |
        sed -E 's/^[^:]*: "?//; s/"$//'
}

near() { # name, a, b, relative tolerance
    check "$1" awk -v a="$2" -v b="$3" -v t="$4" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(a + 0 < 0 && d <= -t * b) }'
}

# A score is what ppl has for these tokens behind the same prompt.
expect 0 'choices' "${short[@]}" --choices '48213, 48, the lighthouse\, of course' --jsonl "$question"
scores >"$work/scores"
check 'have a score each' test "$(cut -f1 "$work/scores" | tr '\n' '|')" = '48213|48|the lighthouse, of course|'
prompt=$(sed -nE 's/.*"tokens": \{"prompt": ([0-9]+).*/\1/p' "$work/out")
check 'shares are those of the likelihoods' awk -F '\t' '{ l[NR] = $3; p[NR] = $5; sum += exp($3) }
    END { for (i in l) { d = p[i] - exp(l[i]) / sum; if (d * d > 1e-16) exit 1 } }' "$work/scores"
best=$(sort -t $'\t' -k 3,3gr "$work/scores" | head -1)
check 'the answer is the likeliest' test "$(answer text | tail -1)" = "${best%%$'\t'*}"
check 'with its likelihood' test "$(answer logprob)" = "$(cut -f3 <<<"$best")"
near 'and its probability' "-$(answer probability)" "$(cut -f3 <<<"$best" | awk '{ printf "%.12g", -exp($1) }')" 1e-9
stdout_has 'chosen, not written' '"stop_reason": "choice", "tokens": \{"prompt": [0-9]+, .*"generated": 0,'
check 'a sum of likelihoods, not a mean' awk -F '\t' '$1 == "48" { a = $3 } $1 == "48213" { b = $3 } END { exit !(b < a) }' "$work/scores"
while IFS=$'\t' read -r text tokens logprob per_byte _; do
    cca ppl "${exact[@]}" -p "$fact"$'\n\n'"Question: $question"$'\n'"Answer: $text" --nll-out "$work/nll"
    check "$text: as many tokens as ppl scores" test $((prompt + tokens)) = $((1 + $(wc -l <"$work/nll")))
    near 'with the same log likelihood' "$logprob" "$(tail -n "$tokens" "$work/nll" | awk '{ s -= $3 } END { printf "%.9f", s }')" 2e-5
    near 'and so many bytes' "$per_byte" "$(awk -v l="$logprob" -v n=${#text} 'BEGIN { printf "%.12g", l / n }')" 2e-8
done <"$work/scores"

expect 0 'without a record' "${short[@]}" --choices '48213,the lighthouse\, of course' "$question" "$question"
stdout_is 'the texts alone' '48213
48213'
stderr_has 'with what it took' '^question 1: prompt [0-9]+ tokens .*; 2 choices with [0-9]+ tokens in .*; the answer has [0-9.]+ % of their probability'
expect 0 'another order' "${short[@]}" --choices 'the lighthouse\, of course,48213' "$question"
stdout_is 'chooses alike' 48213
expect 0 'one choice' "${short[@]}" --choices 'nonsense' --json "$question"
check 'has all of the probability' test "$(scores | cut -f5 | cut -c1-3)" = 1.0
expect 0 'temperature and penalties' "${short[@]}" --choices '48213,48,the lighthouse\, of course' --jsonl \
    --temp 2 --seed 3 --top-k 1 --repeat-penalty 1.5 -n 1 --stop 4 "$question"
check 'have no part in it' test "$(scores)" = "$(cat "$work/scores")"

# A text that was written has the likelihood that it has as a choice, in any attention.
for attn in cca recall full; do
    long=("${ask[@]}" --attn "$attn" -w 256)
    [ $attn != full ] || long=("${ask[@]}" --attn full)
    [ $attn != recall ] || long+=(--recall 64)
    expect 0 "$attn: an answer" "${long[@]}" --jsonl --lookup 0 "$question"
    text=$(answer text) logprob=$(answer logprob)
    near 'has a probability' "-$(answer probability)" "$(awk -v l="$logprob" 'BEGIN { printf "%.12g", -exp(l) }')" 1e-9
    for n in 4 8; do
        cca "${long[@]}" --jsonl --lookup $n "$question"
        near "and with $n guesses the same" "$(answer logprob)" "$logprob" 1e-3
    done
    expect 0 'as a choice' "${long[@]}" --jsonl --choices "11111,$text,the keeper of the lighthouse" "$question" "$question"
    near 'it has that, too' "$(scores | grep "^$text" | head -1 | cut -f3)" "$logprob" 1e-3
    check 'and is chosen' test "$(answer text | tail -2 | tr '\n' ' ')" = "$text $text "
    check 'again, with the same numbers' test "$(scores | head -3)" = "$(scores | tail -3)"
done
cca "${ask[@]}" --jsonl --stop 13 "$question"
cut=$(answer logprob)
check 'what a stop text cuts off has no part' test "$(answer text)" = 482
cca "${ask[@]}" --jsonl --choices "482" "$question"
near 'but what stands before it' "$cut" "$(answer logprob)" 1e-3
who='Who was the keeper, and what did he do?'
cca "${short[@]}" --json --temp 1.5 --min-p 0 --top-k 0 --top-p 1 --seed 2 -n 6 "$who"
text=$(answer text) logprob=$(answer logprob)
cca "${short[@]}" --json "$who"
check 'a hot sampler writes something else' test "$text" != "$(answer text)"
cca "${short[@]}" --jsonl --choices "${text//,/\\,}" "$who"
near 'whose probability is the model'\''s own' "$logprob" "$(answer logprob)" 1e-3
verse='The rain fell on the roof of the old mill. The rain fell on the'
cca ask -m "$model" --chat-template mistral -p "$verse" --no-kv -n 40 --lookup 0 --json 'Go on: the rain fell on the'
logprob=$(answer logprob)
for n in 4 8; do
    cca ask -m "$model" --chat-template mistral -p "$verse" --no-kv -n 40 --lookup $n --json 'Go on: the rain fell on the'
    check "$n guesses of which some are right" grep -q '"accepted": [1-9]' "$work/out"
    near 'have the probability that they have one by one' "$(answer logprob)" "$logprob" 1e-4
done
cca "${ask[@]}" "$question"
cp "$work/out" "$work/plain"
cca "${ask[@]}" --json "$question"
check 'an answer is the same with a record' test "$(answer text)" = "$(cat "$work/plain")"

# The questions of a file have their own.
printf '%s\n' "{\"question\": \"$question\", \"choices\": [\"11111\", \"48213, or so\", \"48213\"]}" "\"$question\"" \
    "{\"question\": \"$question\", \"choices\": [\"no\"], \"max_answer\": 1, \"stop\": \"n\"}" >"$work/q.jsonl"
expect 0 'choices of a file' "${short[@]}" -Q "$work/q.jsonl"
stdout_is 'are those of their question' '48213
48213
no'
expect 0 'and of all others' "${short[@]}" -Q "$work/q.jsonl" --choices 'yes,maybe' --jsonl "$question"
check 'those of the option' test "$(scores | cut -f1 | tr '\n' '|')" = 'yes|maybe|11111|48213, or so|48213|yes|maybe|no|'
expect 0 'of standard input' "${short[@]}" -Q - <"$work/q.jsonl"
stdout_is 'too' '48213
48213
no'
printf '%s\n' "$question" >"$work/lines"
expect 0 'typed questions' "${short[@]}" -i --choices '11111,48213' <"$work/lines"
stdout_is 'have the option'\''s' 48213

bad() { # exit status, name, list, message
    expect "$1" "$2" "${short[@]}" --choices "$3" "$question"
    stderr_has 'is named' "$4"
    stdout_empty 'before anything is answered'
}
bad 2 'an empty list' '' '^cca ask: --choices: choice 1 is empty$'
bad 2 'an empty choice' 'A,,C' '^cca ask: --choices: choice 2 is empty$'
bad 2 'a choice twice' 'A,B, A' '^cca ask: --choices: choices 1 and 3 are the same, "A"$'
bad 6 'no UTF-8' $'A,\xff' '^cca ask: --choices: invalid UTF-8 at byte offset 2$'
bad_line() { # name, JSON, message
    printf '"One?"\n{"question": "Who?", "choices": %s}\n' "$2" >"$work/bad.jsonl"
    expect 2 "$1" "${short[@]}" -Q "$work/bad.jsonl"
    stderr_has 'is named' "bad\.jsonl, line 2, field \"choices\": $3"
    stdout_empty 'before anything is answered'
}
bad_line 'a text for choices' '"A"' 'an array of texts expected'
bad_line 'no choices' '[]' 'an array of texts expected'
bad_line 'a choice that is none' '["A", 1]' 'choice 2 is no text'
bad_line 'an empty one' '["", "A"]' 'choice 1 is empty'
bad_line 'one twice' '["A", "B", "B"]' 'choices 2 and 3 are the same, "B"'
long=$(printf 'word %.0s' $(seq 200))
expect 4 'a choice beyond the room' "${short[@]}" -c 100 --choices "A,$long" "$question"
stderr_has 'is told with the numbers' 'the prompt \(documents, longest question and choice\) has 2[0-9][0-9] tokens, --ctx-size allows 100'
printf '{"question": "Who?", "choices": ["A", "%s"]}\n' "$long" >"$work/long.jsonl"
expect 4 'one that nobody knew of' "${short[@]}" -c 100 -Q - <"$work/long.jsonl"
stderr_has 'is told, too' 'question 1: with it and its longest choice the prompt has 2[0-9][0-9] tokens; there is room for 100, '
expect 2 'choices are for questions' generate -m "$model" -p x --choices A

# A state that is kept, and one that goes on.
kept=(ask "${exact[@]}" -f "$work/text" --sources 0 --session "$work/s.ccas" --choices '11111,48213,the keeper' --jsonl)
cca "${kept[@]}" "$question" 'Who is the keeper?'
scores >"$work/first"
expect 0 'a session' "${kept[@]}" "$question" 'Who is the keeper?'
tokens_are 'has the documents' '[1-9]*' '[1-9][0-9]'
check 'and gives the same numbers' test "$(scores)" = "$(cat "$work/first")"
expect 0 'follow-up' "${ask[@]}" --follow-up --choices 'The keeper,48213' --jsonl 'Who lives there?' "$question"
scores | tail -2 >"$work/second"
first=$(answer text | head -1)
{ cat "$work/text"; printf '\n\nQuestion: Who lives there?\nAnswer: %s' "$first"; } >"$work/told"
cca ask "${exact[@]}" --no-kv --sources 0 -f "$work/told" --choices 'The keeper,48213' --jsonl "$question"
near 'the answer that was chosen is part of the conversation' "$(scores | head -1 | cut -f3)" "$(head -1 "$work/second" | cut -f3)" 1e-3
expect 0 'written answers behind chosen ones' "${ask[@]}" --follow-up -Q "$work/q.jsonl" --jsonl
check 'read the documents once' test "$(grep -oE '"prefilled": [0-9]+' "$work/out" | sed -n 's/.*: //; 2,$p' | sort -n | tail -1)" -lt 60

# Sources are what the question's end attended to; a dry run has the copy that choices begin at.
expect 0 'sources' ask -m "$model" -f "$work/text" --no-kv --sources 1 --choices '11111,48213' "$question"
stderr_has 'of a choice' "^source 1: $work/text, .*48213"
mark() { sed -nE 's/^mark +([0-9]+) bytes.*/\1/p' "$work/out"; }
dry=("${ask[@]}" --attn cca -g 16 -w 256 -c 4096 --dry-run)
cca "${dry[@]}" One Two
one=$(mark)
cca "${dry[@]}" --choices A,B One
check 'a dry run counts a copy' test "$(mark)" = "$one" -a "$one" -gt 0
cca "${dry[@]}" --choices A,B One Two
check 'beside the mark' test "$(mark)" = $((2 * one))
