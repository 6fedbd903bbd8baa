#!/usr/bin/env bash
# cca generate with a small trained model: text, streams, lengths, records.
set -u
. tests/cli/lib.sh
make_stories
exact=(-m "$stories" --attn full -ctk f32 -ctv f32 --temp 0)

is_json() { # name, command that writes JSON lines to standard output is done
    if command -v python3 >/dev/null; then
        check "$1" python3 -c 'import json, sys
for line in open(sys.argv[1], encoding="utf-8"): json.loads(line)' "$work/out"
    else
        skip "$1" 'no python3'
    fi
}

# A text that was made greedily from nothing: is the one that stories260K gives, or begins as the
# model's own does.
is_begin() { # name, what stories260K gives, text
    if [ -n "$story" ]; then
        check "$1" test "$3" = "$2"
    else
        check "$1" test -n "$3" -a "${made#"$3"}" != "$made"
    fi
}

text_of() { # the first record's text
    printf %b "$(sed -nE '1s/.*"text": "(([^"\\]|\\.)*)".*/\1/p' "$work/out" | sed 's/\\"/"/g')"
}

expect 0 'an empty prompt' generate "${exact[@]}" -n 256 -p ''
[ -z "$story" ] || stdout_is 'continues as llama2.c does' "$story"
made=$(cat "$work/out")
stderr_has 'the last line' 'prompt 1 token \(0 reused\).*generated 256 tokens.*first token after.*peak memory'
check 'no control characters off a terminal' bash -c '! grep -q "[[:cntrl:]]" "$0"' "$work/err"

expect 0 'quiet' generate "${exact[@]}" -n 4 -p 'Once upon' -q
check 'the prompt is not repeated' bash -c '! grep -q "Once upon" "$0"' "$work/out"
[ -z "$story" ] || stdout_is 'but continued' ' a time, there'
stderr_empty 'nothing on standard error'

echo 'Once upon' | cca generate -m "$stories" -f - -n 8 --seed 1
check 'text from standard input' test "$code" = 0
cp "$work/out" "$work/first"
echo 'Once upon' | cca generate -m "$stories" -n 8 --seed 1
check 'standard input without -f' cmp "$work/first" "$work/out"
printf 'Once ' >"$work/a"
printf 'upon\n' | gzip >"$work/b.gz"
expect 0 'pieces, one of them gzip' generate -m "$stories" -f "$work/a" -f "$work/b.gz" -n 8 --seed 1
check 'are joined byte for byte' cmp "$work/first" "$work/out"
expect 0 'an escape' generate -m "$stories" -p 'Once ' -e -p 'upon\n' -n 8 --seed 1
check 'is resolved with -e' cmp "$work/first" "$work/out"
expect 0 'the same seed' generate -m "$stories" -f "$work/a" -f "$work/b.gz" -n 8 --seed 1 -t 1
check 'gives the same text with one thread' cmp "$work/first" "$work/out"

stop=${made:16:7} # of stories260K: ", there"
expect 0 'a stop text over tokens' generate "${exact[@]}" -p '' --stop 'zzz' --stop "$stop"
stdout_is 'is withheld' "${made%%"$stop"*}"
expect 0 'a stop text with an escape' generate "${exact[@]}" -n 256 -p '' -e --stop '\n'
stdout_is 'ends at the line' "${made%%$'\n'*}"
expect 2 'an empty stop text' generate "${exact[@]}" -p '' --stop ''

expect 0 'a file' generate "${exact[@]}" -p '' -n 8 -o "$work/answer"
stdout_empty 'takes the answer'
is_begin 'which is there' 'Once upon a time, there was a' "$(cat "$work/answer")"
expect 7 'a file that cannot be' generate "${exact[@]}" -p '' -n 8 -o "$work/none/answer"
check 'a full device' bash -c '"$0" generate -m "$1" -p "" -n 8 -q >/dev/full 2>/dev/null; test $? = 7' \
    "$CCA" "$stories"

expect 0 'a record' generate "${exact[@]}" -p '' -n 8 --json
is_json 'is JSON'
is_begin 'has the text' 'Once upon a time, there was a' "$(text_of)"
stdout_has 'has the reason' '"stop_reason": "length"'
stdout_has 'has the counts' '"prompt": 1, "reused": 0, "prefilled": 1, "generated": 8'
expect 0 'lone bytes in a record' generate -m "$stories" -n 40 --temp 5 --top-k 0 --top-p 1 --min-p 0 -p '' \
    --seed 3 --json
is_json 'are JSON, too'
expect 0 'events' generate "${exact[@]}" -p '' -n 3 --jsonl
is_json 'are JSON lines'
check 'one a piece and the end' test "$(wc -l <"$work/out")" = 4
check 'the first is a piece' grep -qE -m1 '^\{"event": "text", "text": "[^ ]+"\}$' "$work/out"
is_begin 'the first of the text' 'Once' "$(text_of)"
stdout_has 'the end' '"event": "end"'

printf 'once %.0s' $(seq 600) >"$work/long"
expect 4 'a prompt beyond the trained length' generate -m "$stories" -f "$work/long"
stderr_has 'gives both numbers' 'has [0-9]{3,} tokens, the model was trained for 512'
stdout_empty 'and no text'
expect 0 'unless that is lifted' generate -m "$stories" -f "$work/long" --beyond-trained -n 2
for part in head middle tail; do
    expect 0 "--truncate $part" generate -m "$stories" -f "$work/long" --truncate "$part" -n 2
    stderr_has "--truncate $part says what" "warning: --truncate $part: of [0-9]+ prompt tokens, [0-9]+ were cut"
done
expect 4 'a prompt beyond -c' generate -m "$stories" -p 'Once upon a time' -c 3
stderr_has 'names the option' 'ctx-size allows 3'
expect 0 'an answer that reaches the length' generate "${exact[@]}" -p '' -c 6
stderr_has 'says so' 'reached the length of 6 tokens'
is_begin 'and ends there' 'Once upon a time,' "$(cat "$work/out")"
expect 0 'an answer beyond the trained length' generate "${exact[@]}" -p '' --beyond-trained -c 600 \
    --ignore-eos --json
stdout_has 'ends at -c' '"stop_reason": "context".*"generated": 599'
expect 0 'an answer without a bound' generate "${exact[@]}" -p '' --beyond-trained --ignore-eos --json
stdout_has 'is as long as the trained length' '"generated": 512'
expect 0 'nothing to generate' generate -m "$stories" -p 'Once upon' -n 0
stdout_empty 'writes nothing'

# In one place with the statistics, the answer ends its line; alone it is what it was.
cca generate -m "$stories" -p 'Once upon' -n 3 --temp 0 -q
"$CCA" generate -m "$stories" -p 'Once upon' -n 3 --temp 0 >"$work/both" 2>&1
check 'statistics begin a line' test "$(head -1 "$work/both")" = "$(cat "$work/out")"
check 'and are one' test "$(sed 1d "$work/both" | cut -c1-7)" = 'prompt '
"$CCA" generate -m "$stories" -p 'Once upon' -n 3 --temp 0 -q >"$work/both" 2>&1
check 'without them nothing is added' cmp "$work/both" "$work/out"
"$CCA" generate -m "$stories" -p 'Once upon' -n 3 --temp 0 >"$work/alone" 2>"$work/err"
check 'nor to standard output alone' cmp "$work/alone" "$work/out"
check 'nor to standard error alone' test "$(head -c 7 "$work/err")" = 'prompt '
cca generate -m "$stories" -p 'Once upon' -n 1 --temp 0
stderr_has 'one is one' 'generated 1 token,'

mkdir "$work/folder"
expect 3 'a folder for a model' generate -m "$work/folder" -p x
stderr_has 'names export' 'folder: is a folder, no model file; "cca export FOLDER -o FILE.gguf" makes one'
expect 3 'a folder for info' info -m "$work/folder"
stderr_has 'names it, too' 'cca export FOLDER'
: >"$work/folder/model.safetensors"
expect 3 'weights alone' tokenize -m "$work/folder/model.safetensors" -p x
stderr_has 'name it, too' 'is a file of weights, no model file; "cca export FOLDER'

"$CCA" export tests/golden/models/hf-text-llama2 -q -o "$work/untuned.gguf" # which nobody tuned, wherever the tests run
expect 0 'untuned weights behind the window' generate -m "$work/untuned.gguf" -f "$work/long" --beyond-trained -n 1 -g 4 -w 64 --json
stdout_has 'recall' '"kind": "recall"'
check 'without a warning' bash -c '! grep -q warning "$0"' "$work/err"
expect 0 'full attention' generate -m "$stories" -f "$work/long" --beyond-trained -n 1 --attn full
check 'gives none' bash -c '! grep -q warning "$0"' "$work/err"
expect 2 's no multiple of g' generate -m "$stories" -p x -g 7 -w 32
expect 2 'an unknown attention' generate -m "$stories" -p x --attn cca2
expect 2 'an unknown device' generate -m "$stories" -p x --device tpu

expect 0 'a dry run' generate -m "$stories" -p 'Once upon' --dry-run -n 8
stdout_has 'prints the memory' '^total +[0-9]+ bytes'
expect 5 'a memory limit' generate -m "$stories" -p 'Once upon' --mem-limit 100K -n 8
stderr_has 'gives both numbers' 'take .* bytes\), --mem-limit allows'
stdout_empty 'before any text'

# A system that refuses threads: fewer do the work, and say the same.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    chmod 711 "$work"
    install -m 755 "$CCA" "$work/few"
    install -m 644 "$stories" "$work/few.gguf"
    few=(generate -m "$work/few.gguf" --attn full --temp 0 -p 'Once upon' -n 8 -q)
    expect 0 'one thread' "${few[@]}" -t 1
    mv "$work/out" "$work/one"
    (cd / && setpriv --reuid=65534 --regid=65534 --clear-groups bash -c 'ulimit -u 6 && exec "$@"' few \
        "$work/few" "${few[@]}" -t 16 >"$work/out" 2>"$work/err")
    check 'few threads' test $? = 0
    check 'give the same text' cmp -s "$work/out" "$work/one"
else
    skip 'a system that refuses threads' 'only root can start a process that has a limit of its own'
fi
