#!/usr/bin/env bash
# cca chat without a terminal: messages are lines, answers all there is on standard output.
set -u
. tests/cli/lib.sh

shipped=$(ls models/cca-*.gguf)
gzip -dc tests/golden/chat/chat.model.gz >"$work/chat.model"
"$CCA" export --random 32,2,4,2,64,560 --seed 2 --tokenizer "$work/chat.model" -c 4096 -q \
    -o "$work/chat.gguf" 2>/dev/null
head -c 8000 examples/paradise-lost.txt >"$work/document"
head -c 800 examples/paradise-lost.txt >"$work/small"
# The model that ships has g 16 and s 256: the document is longer than its window.
chat=(chat -m "$shipped" --temp 0 -n 24)

say() { # lines; standard output is kept
    printf '%s\n' "$@"
}

expect 0 'two messages' "${chat[@]}" -q < <(say 'Who is it?' 'And where is he?')
check 'two lines' test "$(wc -l <"$work/out")" = 2
stderr_empty 'and nothing else'
cp "$work/out" "$work/two"
expect 0 'no message' "${chat[@]}" </dev/null
stdout_empty 'no answer'
expect 0 'empty lines' "${chat[@]}" -q < <(say '' 'Who is it?' '  ' '' 'And where is he?')
check 'are none' cmp "$work/out" "$work/two"
printf 'Who is it?\nAnd where is he?' >"$work/in"
expect 0 'a last line without a newline' "${chat[@]}" -q <"$work/in"
check 'is one, too' cmp "$work/out" "$work/two"
cca "${chat[@]}" < <(say "/read $work/document" 'Who is it?' /stats /help /quit)
check 'no control characters anywhere' \
    bash -c '! grep -q "[[:cntrl:]]" "$0" && ! grep -q "[[:cntrl:]]" "$1"' "$work/out" "$work/err"
check 'no prompt' bash -c '! grep -q ">>>" "$0" "$1"' "$work/out" "$work/err"
check 'no history' test ! -e "$work/state"

# Messages of several lines.
cca "${chat[@]}" -q < <(say 'One' 'two.\' 'three?')
cp "$work/out" "$work/joined"
cca "${chat[@]}" -q < <(say 'One' '"""two.' 'three?"""')
check 'a backslash joins lines as a block does' cmp "$work/out" "$work/joined"
cca "${chat[@]}" -q < <(say 'One' '"""' 'two.' 'three?' '"""')
check 'wherever its marks stand' cmp "$work/out" "$work/joined"
expect 2 'a block without an end' "${chat[@]}" < <(say 'One' '"""two.')
stderr_has 'is told' 'ends inside a """ block'
check 'behind the answers before it' test "$(wc -l <"$work/out")" = 1
printf 'One\ntwo.\\' | "$CCA" "${chat[@]}" -q >"$work/out"
check 'a backslash at the very end' test "$(wc -l <"$work/out")" = 2

# Back and forth.
document="/read $work/document"
cca "${chat[@]}" -q < <(say "$document" 'Who is it?' 'And where is he?')
cp "$work/out" "$work/talk"
check 'answers about a document' test "$(wc -l <"$work/talk")" = 2
last() { # name: the last line is the second answer of the talk
    check "$1" test "$(tail -1 "$work/out")" = "$(tail -1 "$work/talk")"
}
cca "${chat[@]}" -q < <(say "$document" 'Who is it?' 'Something else?' /undo 'And where is he?')
last 'after /undo the same answer'
cca "${chat[@]}" -q < <(say "$document" 'Who is it?' 'A?' 'B?' /undo 'C?' '/undo 2' 'And where is he?')
last 'after several, too'
cca "${chat[@]}" -q < <(say "$document" 'Who is it?' 'And where is he?' /regen /regen)
last '/regen at temperature 0: the same answer'
cca "${chat[@]}" -q < <(say "$document" 'Who is it?' "$document" /undo 'And where is he?')
last 'a document is taken back'
cca "${chat[@]}" -q < <(say 'Hello.' /clear "$document" 'Who is it?' 'And where is he?')
last '/clear forgets'
expect 2 '/undo of nothing' "${chat[@]}" < <(say 'Hello.' /undo /undo)
stderr_has 'is told' 'no more turns'
expect 2 '/regen of nothing' "${chat[@]}" < <(say /regen)
cca chat -m "$work/chat.gguf" --chat-template llama2 -s 7 --temp 1.5 -n 12 -q < <(say A B /regen)
cp "$work/out" "$work/seeded"
check '/regen with a temperature: another answer' \
    test "$(sed -n 2p "$work/out" | cut -c-20)" != "$(tail -1 "$work/out" | cut -c-20)"
cca chat -m "$work/chat.gguf" --chat-template llama2 -s 7 --temp 1.5 -n 12 -q < <(say A B /regen)
check 'the same seed: the same chat' cmp "$work/out" "$work/seeded"
cca chat -m "$work/chat.gguf" --chat-template llama2 -s 8 -n 3 -q \
    < <(say '/set seed 7' '/set temp 1.5' '/set max-answer=12' A B /regen)
check 'and by /set' cmp "$work/out" "$work/seeded"
expect 0 'all settings' "${chat[@]}" < <(say /set)
stderr_has 'are shown' '^  temp +0 '
expect 2 'an unknown setting' "${chat[@]}" < <(say '/set tempo 3')
stderr_has 'names the nearest' 'nearest one is --temp'
expect 2 'a value out of range' "${chat[@]}" < <(say '/set top-p 0')
expect 2 'a setting without a value' "${chat[@]}" < <(say '/set temp')

# The system text.
cca "${chat[@]}" -q -sys 'He lives in Rome.' < <(say 'Who is it?' 'And where is he?')
cp "$work/out" "$work/system"
cca "${chat[@]}" -q < <(say '/system He lives in Rome.' 'Who is it?' 'And where is he?')
check '/system is -sys' cmp "$work/out" "$work/system"
expect 0 '/system' "${chat[@]}" -sys 'He lives in Rome.' < <(say /system)
stderr_has 'shows it' '^He lives in Rome\.$'

# Files.
s=$work/talk.ccas
expect 0 '/save' "${chat[@]}" < <(say "$document" 'Who is it?' "/save $s")
stderr_has 'tells what' 'talk\.ccas: 3 messages, [0-9]+ tokens'
expect 0 '/load' "${chat[@]}" < <(say 'Hello.' "/load $s" 'And where is he?')
last 'in another process: the same answer'
cca "${chat[@]}" -q < <(say "/load $s" /regen 'And where is he?')
check '/regen behind it' test "$(head -1 "$work/out")" = "$(head -1 "$work/talk")"
last 'and the answer after it'
cca "${chat[@]}" -q < <(say "/load $s" /undo 'Who is it?' 'And where is he?')
check '/undo behind it' cmp "$work/out" "$work/talk"
expect 0 'cca session shows it' session show "$s"
expect 3 'generate has no use for it' generate -m "$work/chat.gguf" -p x -n 1 --session "$s"
expect 3 'another model' chat -m "$work/chat.gguf" --chat-template plain < <(say "/load $s")
stderr_has 'is named' 'made with model='
expect 3 'another g' "${chat[@]}" -g 32 < <(say "/load $s")
expect 3 'another template' "${chat[@]}" --chat-template llama2 < <(say "/load $s")
stderr_has 'is named' 'made with --chat-template plain, this one has llama2'
expect 3 'a file that is not there' "${chat[@]}" < <(say "/load $work/none")
expect 3 'a file of another kind' "${chat[@]}" < <(say "/load $shipped")
expect 3 'which /save leaves alone' "${chat[@]}" < <(say 'Hello.' "/save $work/document")
check 'as it was' cmp "$work/document" <(head -c 8000 examples/paradise-lost.txt)
expect 7 'a folder that is not there' "${chat[@]}" < <(say 'Hello.' "/save $work/none/s")
cca ask -m "$shipped" -f "$work/document" --session "$work/asked" -n 4 'Who?'
expect 3 'a session of ask' "${chat[@]}" < <(say "/load $work/asked")
stderr_has 'holds none' 'holds no conversation'
size=$(stat -c %s "$s")
cp "$s" "$work/damaged"
printf 'x' | dd of="$work/damaged" bs=1 seek=$((size / 2)) conv=notrunc status=none
expect 3 'a damaged file' "${chat[@]}" < <(say "/load $work/damaged")
stderr_has 'is told' 'damaged at byte'

# NUL is a character like any other.
cca "${chat[@]}" -q < <(printf 'Who\0is it?\nAnd where is he?\n')
cp "$work/out" "$work/nul"
expect 0 'a NUL in a message' "${chat[@]}" < <(printf 'Who\0is it?\n/save %s\n' "$work/nul.ccas")
expect 0 'is saved and loaded' "${chat[@]}" -q < <(say "/load $work/nul.ccas" 'And where is he?')
check 'and the same answer follows' cmp "$work/out" <(tail -1 "$work/nul")
expect 2 'but not one in a command' "${chat[@]}" < <(printf '/system Be\0brief.\n')
stderr_has 'is told' '/system: there is a NUL in this command'

led=(chat -m "$work/chat.gguf" --chat-template llama2 --temp 0 -n 12 -q)
cca "${led[@]}" -sys 'Be brief.' < <(say "/read $work/small" Hello 'And you?')
cp "$work/out" "$work/system"
cca "${led[@]}" < <(say "/read $work/small" Hello "/save $work/led.ccas")
cca "${led[@]}" < <(say "/load $work/led.ccas" '/system Be brief.' /regen 'And you?')
check 'a loaded document can be written anew' cmp "$work/out" "$work/system"

live=$work/live.ccas
for message in "$document" 'Who is it?' 'And where is he?'; do
    cca "${chat[@]}" -q --session "$live" < <(say "$message")
done
last '--session goes on, process by process'
check 'and is for another one' "$CCA" session verify "$live"
cca "${chat[@]}" -q --session "$live" < <(say /undo)
cca "${chat[@]}" -q --session "$live" < <(say 'And where is he?')
last '/undo is kept'
expect 3 'other documents' "${chat[@]}" --session "$live" -p 'Another text.' < <(say Hello)
stderr_has 'are told' 'began with other documents'

# Documents from the start; what ask has stored serves, and the other way round.
rm -rf "$work/cache"
expect 0 'a document from the start' "${chat[@]}" -f "$work/document" < <(say 'Who is it?' 'And where is he?')
check 'as if it was read' cmp "$work/out" "$work/talk"
expect 0 'another time' "${chat[@]}" -f "$work/document" < <(say /clear 'Who is it?' 'And where is he?')
stderr_has 'needs no prefill' '^session .*: ([0-9]+) of [0-9]+ tokens are there'
check 'and /clear keeps it' cmp "$work/out" "$work/talk"
cca ask -m "$shipped" -f "$work/document" -n 4 'Who?'
stderr_has 'nor does ask' '^session .* tokens are there'
expect 0 'no stored session' "${chat[@]}" --no-kv -f "$work/document" < <(say 'Who is it?' 'And where is he?')
check 'the same answers' cmp "$work/out" "$work/talk"
expect 2 'standard input is no document' "${chat[@]}" -f - < <(say 'Who is it?')
expect 2 'nor for /read' "${chat[@]}" < <(say '/read -')
expect 1 'a document that is not there' "${chat[@]}" < <(say "/read $work/none")
gzip -c "$work/document" >"$work/document.gz"
cca "${chat[@]}" -q < <(say "/read $work/document.gz" 'Who is it?' 'And where is he?')
last 'gzip is read'

# What is wrong.
make_random
expect 3 'no tokenizer' chat -m "$random" < <(say Hello)
make_random 32,2,4,2,64,560 --tokenizer "$work/chat.model"
expect 2 'no template' chat -m "$random" < <(say Hello)
stderr_has 'names the option' 'has no chat template; give --chat-template NAME: llama2, .* plain'
expect 2 'an unknown command' "${chat[@]}" < <(say Hello /redo)
stderr_has 'names the nearest' 'unknown command /redo; the nearest one is /read'
check 'behind the answer before it' test "$(wc -l <"$work/out")" = 1
printf 'Good\nb\xffd\n' >"$work/in"
expect 6 'a message that is no UTF-8' "${chat[@]}" <"$work/in"
stderr_has 'is told' 'standard input: invalid UTF-8 \(byte 0xff\) at byte offset 6, line 2'
expect 4 'a document that does not fit' "${chat[@]}" -c 400 < <(say Hello "$document")
stderr_has 'is told' 'document has [0-9]+ tokens, and of the context of 400 the conversation leaves [0-9]+'
expect 4 'a beginning that does not fit' "${chat[@]}" -c 400 -f "$work/document" < <(say Hello)
stderr_has 'is told' 'has [0-9]+ tokens, --ctx-size allows 400'
small=(chat -m "$work/chat.gguf" --chat-template mistral -c 64 --temp 0)
expect 4 'a full context' "${small[@]}" < <(say A B C D E F G H)
stderr_has 'ends an answer' 'the answer ends where the context of 64 tokens does; /undo'
stderr_has 'and refuses the next message' 'of the context of 64 the conversation leaves'
stderr_has 'after a warning' "of the context's 64 tokens are left"
expect 0 'room after /clear' "${small[@]}" < <(say A /clear B /clear C)
expect 0 'a dry run' "${chat[@]}" --dry-run -c 5000 </dev/null
stdout_has 'has the states' '^mark +[1-9][0-9]* bytes'
expect 5 'more than the limit of memory' "${chat[@]}" --mem-limit 16M < <(say Hello)
"$CCA" "${chat[@]}" < <(say Hello) >/dev/full 2>"$work/err"
check 'a full device is exit 7' test $? = 7

for template in llama2 llama3 mistral chatml zephyr plain; do
    expect 0 "$template" chat -m "$work/chat.gguf" --chat-template "$template" -sys 'Be brief.' \
        --temp 0 -n 4 -v < <(say 'Hello' 'And you?')
    stderr_has "$template: the second message costs its own tokens" 'prompt [4-9][0-9] tokens \([1-3]?[0-9] prefilled'
done

mkfifo "$work/pipe"
"$CCA" chat -m "$work/chat.gguf" --chat-template llama2 <"$work/pipe" >"$work/out" 2>"$work/err" &
pid=$!
exec 3>"$work/pipe"
echo 'Hello' >&3
for _ in $(seq 100); do
    [ -s "$work/out" ] && break
    sleep 0.1
done
kill -INT $pid
wait $pid
check 'an interrupt is exit 130' test $? = 130
exec 3>&-
