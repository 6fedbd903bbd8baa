#!/usr/bin/env bash
# cca ask, and chat templates of generate: documents read once, one answer a line, templates named.
set -u
. tests/cli/lib.sh

gzip -dc tests/golden/tokenizer/llama-like.model.gz >"$work/small.model"
gzip -dc tests/golden/chat/chat.model.gz >"$work/chat.model"
make_random 32,2,4,2,64,640 --tokenizer "$work/small.model" -c 4096
"$CCA" export --random 32,2,4,2,64,560 --seed 2 --tokenizer "$work/chat.model" -c 4096 -q \
    -o "$work/chat.gguf" 2>/dev/null
make_stories

seq 1 60 >"$work/a"
echo 'The end of the report.' | gzip >"$work/b.gz"
documents=(-f "$work/a" -f "$work/b.gz")
questions=('Who signed it?' 'What is the budget?' 'When?')

# Numbers of the statistics line of question $1: prompt, reused, prefilled.
counts() {
    sed -nE "s/^question $1: prompt ([0-9]+) tokens \(([0-9]+) reused, ([0-9]+) prefilled\).*/\1 \2 \3/p" \
        "$work/err"
}

three_questions() { # name, model, further options
    local name=$1 model=$2 prompt reused prefilled i first
    shift 2
    rm -rf "$work/cache"
    expect 0 "$name: three questions" ask -m "$model" --chat-template plain "${documents[@]}" -n 12 "$@" \
        "${questions[@]}"
    check "$name: three lines" test "$(wc -l <"$work/out")" = 3
    cp "$work/out" "$work/three"
    cp "$work/err" "$work/three.err"
    read -r prompt reused prefilled <<<"$(counts 1)"
    check "$name: the first question reads all" test "$reused" = 0 -a "$prefilled" = "$prompt"
    first=$prompt
    for i in 2 3; do
        read -r prompt reused prefilled <<<"$(counts $i)"
        check "$name: question $i reads only its own tokens" \
            test "$reused" -gt 60 -a $((reused + prefilled)) = "$prompt" -a "$prefilled" -lt 60 \
            -a "$reused" -lt "$first"
    done
    for i in 0 1 2; do
        cca ask -m "$model" --chat-template plain "${documents[@]}" -n 12 "$@" "${questions[$i]}"
        check "$name: question $((i + 1)) alone has the same answer" \
            cmp "$work/out" <(sed -n "$((i + 1))p" "$work/three")
        cca ask -m "$model" --chat-template plain "${documents[@]}" -n 12 "$@" --no-kv "${questions[$i]}"
        check "$name: and without a session" cmp "$work/out" <(sed -n "$((i + 1))p" "$work/three")
    done
}

three_questions random "$random" -g 4 -w 32
three_questions 'a small chunk' "$random" -g 4 -w 32 -ub 7
three_questions 'full attention' "$random" --attn full
three_questions stories "$stories" --attn full
three_questions 'stories, groups' "$stories" -g 4 -w 32

ask=(ask -m "$random" --chat-template plain "${documents[@]}" -n 4)
expect 0 'standard input is a document' ask -m "$random" --chat-template plain -n 4 -q 'Who?' <"$work/a"
stderr_empty 'quiet is quiet'
expect 0 '--no-kv' "${ask[@]}" --no-kv Who
expect 0 'a file' "${ask[@]}" -o "$work/answers" One Two
stdout_empty 'takes the answers'
check 'all of them' test "$(wc -l <"$work/answers")" = 2
expect 0 'a record' "${ask[@]}" --json One Two
check 'is one line' test "$(wc -l <"$work/out")" = 1
stdout_has 'with the answers' '"schema": "cca.ask.1".*"answers": \[\{"question": "One", "text": '
stdout_has 'and what was reused' '"reused": [1-9][0-9]*, "prefilled": [1-9]'
expect 0 'events' "${ask[@]}" --jsonl One Two
check 'are one a question and the end' test "$(wc -l <"$work/out")" = 3
stdout_has 'the end' '"schema": "cca.ask.1".*"event": "end"'
expect 0 'a dry run' "${ask[@]}" --dry-run --attn cca -g 4 -w 32 -c 4096 -n 2000 One Two
stdout_has 'counts the mark' '^mark +[1-9][0-9]* bytes'
expect 0 'a dry run for one question' "${ask[@]}" --dry-run --attn cca -g 4 -w 32 -n 2000 One
stdout_has 'which needs none' '^mark +0 bytes'

expect 2 'no question' ask -m "$random" -f "$work/a"
expect 2 'no template' ask -m "$random" -f "$work/a" Who
stderr_has 'names the option' 'has no chat template; give --chat-template NAME: llama2, .* plain'
expect 2 'an unknown template' ask -m "$random" -f "$work/a" --chat-template alpaca Who
stderr_has 'lists those there are' 'llama2\|llama3\|mistral\|mistral-v3\|.*\|chatml\|zephyr\|plain'
expect 2 'a template without its tokens' ask -m "$random" -f "$work/a" --chat-template chatml Who
stderr_has 'names the token' 'vocabulary has no token <\|im_start\|>'
expect 2 'standard input twice' ask -m "$random" --chat-template plain -f - -f - Who </dev/null
expect 6 'a question that is no UTF-8' "${ask[@]}" $'\xff'
expect 4 'documents beyond the trained length' ask -m "$random" --chat-template plain -c 50 "${documents[@]}" Who
stderr_has 'give both numbers' 'the prompt \(documents and longest question\) has [0-9]+ tokens, --ctx-size allows 50'
expect 3 'no model' ask -m "$work/none.gguf" -f "$work/a" Who

for template in llama2 llama3 mistral chatml zephyr plain; do
    expect 0 "$template" ask -m "$work/chat.gguf" --chat-template "$template" -sys 'Be brief.' \
        "${documents[@]}" -n 4 "${questions[@]}"
    check "$template: three lines" test "$(wc -l <"$work/out")" = 3
    expect 0 "generate with $template" generate -m "$work/chat.gguf" --chat-template "$template" \
        -sys 'Be brief.' -p 'Hello' -n 4 --temp 0
done
expect 0 'a template for the file' export "$random" --chat-template plain -q -o "$work/named.gguf"
expect 0 'is taken without being named' ask -m "$work/named.gguf" "${documents[@]}" -n 12 "${questions[@]}"
cp "$work/out" "$work/named"
cca ask -m "$random" --chat-template plain "${documents[@]}" -n 12 "${questions[@]}"
check 'and makes the same answers' cmp "$work/out" "$work/named"
expect 0 'is carried over' export "$work/named.gguf" --type q4_0 -q -o "$work/again.gguf"
expect 0 'and stands among the keys' info "$work/again.gguf" --keys
stdout_has 'by its name' '^cca.chat_template +.*plain'
expect 2 'an unknown one' export "$random" --chat-template alpaca -q -o "$work/named.gguf"

expect 0 'generate with a template' generate -m "$work/chat.gguf" --chat-template chatml -p Hello -n 1 --json
stdout_has 'puts its tokens around the text' '"prompt": 12,' # BOS, and the 11 that the golden ids have
expect 0 'generate without' generate -m "$work/chat.gguf" -p Hello -n 1 --json
stdout_has 'does not' '"prompt": [45],'
expect 2 'a system text without a template' generate -m "$work/chat.gguf" -sys 'Be brief.' -p Hello -n 1
stderr_has 'needs one' 'chat-template NAME'
expect 0 'a long text in a template' generate -m "$work/chat.gguf" --chat-template chatml -f "$work/a" -c 60 \
    -n 10 --truncate middle --json
stdout_has 'is cut to fit' '"prompt": 50,'
