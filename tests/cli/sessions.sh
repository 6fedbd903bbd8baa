#!/usr/bin/env bash
# Stored sessions: what is reused, what an interruption leaves, what is refused.
set -u
. tests/cli/lib.sh

model=$work/model.gguf
"$CCA" export models/cca-*.gguf -q --chat-template plain -o "$model"
cp docs/CLI.md "$work/book" # some 8,000 tokens
fact='The code of the old lighthouse is 48213.'
{ head -c 9000 "$work/book"; printf '\n%s\n\n' "$fact"; tail -c +9001 "$work/book"; } >"$work/text"
head -c 5000 "$work/text" >"$work/other"
question='What is the code of the old lighthouse?'
ask=(ask -m "$model" -f "$work/text" --checkpoint-every 512)
tokens=$("$CCA" tokenize -m "$model" -f "$work/text" --count)

# A named session.
s=$work/s.ccas
generate=(generate -m "$model" -f "$work/other" -n 8 --temp 0 --json)
expect 0 'a named session' "${generate[@]}" --session "$s"
tokens_are 'is new' 0 '[1-9]*'
text_of >"$work/first"
cp "$s" "$work/kept"
expect 0 'is taken up' "${generate[@]}" --session "$s"
tokens_are 'up to the last end of a chunk' '[1-9]*' '[1-9]*'
reused=$(sed -nE 's/.*"reused": ([0-9]+), .*/\1/p' "$work/out")
check 'which no cut is made for' test $((reused % 512)) = 0 -a "$reused" -gt 0
text_of >"$work/second"
check 'with the same text' cmp "$work/first" "$work/second"
check 'and is as before' cmp "$s" "$work/kept"
for every in 100 512; do # a rhythm that makes no seams
    rm -f "$work/rhythm.ccas"
    cca "${generate[@]}" --session "$work/rhythm.ccas" --checkpoint-every $every
    text_of >"$work/second"
    check "checkpoints every $every tokens: the same text" cmp "$work/first" "$work/second"
done
expect 0 'without a session' "${generate[@]}"
text_of >"$work/second"
check 'the same text, too' cmp "$work/first" "$work/second"
for attn in full 'recall --recall 512'; do
    # shellcheck disable=SC2206
    other=("${generate[@]}" --attn $attn)
    rm -f "$work/attn.ccas"
    cca "${other[@]}"
    text_of >"$work/first.attn"
    for when in new 'taken up'; do
        expect 0 "$attn: a session, $when" "${other[@]}" --session "$work/attn.ccas"
        text_of >"$work/second"
        check 'has the text of none' cmp "$work/first.attn" "$work/second"
    done
    tokens_are 'and is of use' '[1-9]*' '[1-9]*'
done
same() { check "$1: the file is as before" cmp "$s" "$work/kept"; }
expect 3 'another g' "${generate[@]}" --session "$s" -g 32
stderr_has 'is named' 'made with group_size=16, this run has group_size=32'
same 'another g'
expect 3 'another cache type' "${generate[@]}" --session "$s" -ctk f32
stderr_has 'is named' 'cache_type_k=bf16, this run has cache_type_k=f32'
"$CCA" export models/cca-*.gguf -q --type q4_0 -o "$work/q4.gguf"
expect 3 'another model' generate -m "$work/q4.gguf" -p Hello -n 1 --session "$s"
stderr_has 'is named' 'made with model=[0-9a-f]{16}, this run has model=[0-9a-f]{16}'
same 'another model'
expect 3 'a file of another kind' "${generate[@]}" --session "$model"
stderr_has 'is named' 'is no session file'
expect 7 'a folder that is not there' "${generate[@]}" --session "$work/none/s.ccas"

size=$(stat -c %s "$s")
flip() { # offset
    local byte
    byte=$(od -An -tu1 -j "$1" -N 1 "$work/kept")
    cp "$work/kept" "$s"
    printf "\\x$(printf %x $((byte ^ 4)))" | dd of="$s" bs=1 seek="$1" conv=notrunc status=none
}
for at in 3 40 $((size / 3)) $((size / 2)); do
    flip $at
    cp "$s" "$work/flipped"
    expect 3 "a flipped bit at $at" "${generate[@]}" --session "$s"
    stderr_has "is told" 'damaged|checksum|is no session file'
    check 'and the file left alone' cmp "$s" "$work/flipped"
done
head -c $((size - 100)) "$work/kept" >"$s"
expect 0 'a torn file' "${generate[@]}" --session "$s"
stderr_has 'is cut' 'an interrupted run left [0-9]+ bytes, which are dropped'
text_of >"$work/second"
check 'with the same text' cmp "$work/first" "$work/second"

cp "$work/kept" "$s"
more=(generate -m "$model" -f "$work/text" -n 1 --temp 0)
(ulimit -f $((size / 1024 + 60)) && exec "$CCA" "${more[@]}" --session "$s" 2>"$work/err")
check 'a full disk is exit 7' test $? = 7
stderr_has 'and named' 's\.ccas: cannot (write|grow)'
same 'a full disk'
if [ "$(id -u)" != 0 ]; then
    mkdir "$work/closed" && cp "$work/kept" "$work/closed/s.ccas" && chmod 555 "$work/closed"
    expect 7 'a read-only folder' "${more[@]}" --session "$work/closed/new.ccas"
    chmod 755 "$work/closed"
fi

# A session that has answered and waits for another question keeps nobody out.
mkfifo "$work/questions"
exec 3<>"$work/questions"
echo "$question" >&3
"$CCA" "${ask[@]}" --session "$s" -i <&3 >"$work/answer" 2>/dev/null &
pid=$!
check 'a question was answered' wait_until $pid grep -q . "$work/answer"
expect 0 'another process writes meanwhile' "${generate[@]}" --session "$s"
kill -9 $pid
wait $pid 2>/dev/null
exec 3>&-

# Of two that make one file the second is refused; what kill -9 leaves is in nobody's way.
made=$work/made.ccas
"$CCA" "${more[@]}" --session "$made" --checkpoint-every 1000000 >/dev/null 2>&1 &
pid=$!
check 'a file is being made' wait_until $pid test -e "$made.0.tmp"
kill -STOP $pid
expect 1 'two creators at once' "${generate[@]}" --session "$made"
stderr_has 'and says why' 'made.ccas: another process is writing this session'
kill -9 $pid
wait $pid 2>/dev/null
check 'what it leaves' test -e "$made.0.tmp" -a ! -e "$made"
expect 0 'is no obstacle' "${generate[@]}" --session "$made"
check 'and goes' test -e "$made" -a ! -e "$made.0.tmp"

# A link stays one, whether or not there is something behind it.
mkdir "$work/behind"
ln -s behind/new.ccas "$work/link.ccas"
for prompt in 'Once upon a time' 'In the beginning'; do
    expect 0 'a session behind a link' generate -m "$model" -p "$prompt" -n 1 --session "$work/link.ccas"
    check 'is written there' test -L "$work/link.ccas" -a -f "$work/behind/new.ccas"
done

# While one process reads documents others go on from what it has stored.
rm -rf "$work/cache"
"$CCA" "${ask[@]}" "$question" >/dev/null 2>&1 &
pid=$!
there() { find "$work/cache" -name '*.ccas' | grep -q .; }
check 'a first checkpoint' wait_until $pid there
kill -STOP $pid
expect 0 'another process with the same documents' "${ask[@]}" --json "$question"
tokens_are 'does not begin anew' '[1-9]*' '[1-9]*'
kill -9 $pid
wait $pid 2>/dev/null

# Names are no patterns; what killed processes left is removed.
strange="$work/a[1]*"
mkdir -p "$strange/cca"
: >"$strange/cca/00000000-00000000.ccas.0.tmp"
cca_home=$XDG_CACHE_HOME
export XDG_CACHE_HOME=$strange
cca ask -m "$model" -f "$work/other" -n 1 'What is it about?'
check 'a leftover is removed' test ! -e "$strange/cca/00000000-00000000.ccas.0.tmp"
expect 0 'a folder with brackets in its name' session ls
check 'is listed' test "$(wc -l <"$work/out")" = 1
export XDG_CACHE_HOME=$cca_home

# cca session
rm -rf "$work/cache"
cp "$work/kept" "$s"
expect 0 'no sessions' session
stdout_empty 'are no lines'
cca ask -m "$model" -f "$work/other" -n 4 'What is it about?'
expect 0 'a list' session ls
stdout_has 'has the model and the documents' "  ${model##*/}: $work/other  $work/cache/cca/"
stdout_has 'has the tokens' '^ +[0-9]+ tokens .* MB .*/cache/cca/[0-9a-f]{8}-[0-9a-f]{8}\.ccas$'
expect 0 'a named file' session show "$s"
stdout_has 'is of a model' '^  model +[0-9a-f]{16}$'
stdout_has 'with settings' '^  group_size +16$'
stdout_has 'and checkpoints' '^  checkpoints +[0-9]+ [0-9]+$'
expect 0 'a record' session ls "$s" --json
stdout_has 'names the model and the documents' "\"model_file\": \"[^\"]*${model##*/}\", \"documents\": \[\"[^]]+\"\], \"tokens\""
stdout_has 'has them' '"checkpoints": \[[0-9]+, [0-9]+\], "facts": \{"model": "[0-9a-f]{16}"'
expect 0 'sound files' session verify "$s"
stdout_is 'are told' "ok $s"
expect 0 'all of the cache' session verify --all
flip $((size - 400))
expect 8 'a damaged file' session verify "$s"
stderr_has 'is told' 'damaged at byte [0-9]+'
expect 8 'no session file' session verify "$model"
expect 3 'no file' session verify "$work/none"
expect 3 'the first failure' session verify "$work/none" "$s" "$model"
flip 100
expect 0 'a damaged file' session rm "$s"
check 'can be removed' test ! -e "$s"
cp "$work/kept" "$s"
XDG_CACHE_HOME='' HOME='' expect 2 'no folder' session ls
stderr_has 'is told' 'neither XDG_CACHE_HOME nor HOME'
XDG_CACHE_HOME=/dev/null expect 0 'a folder that cannot be made' ask -m "$model" -p Text -n 1 Who
stderr_has 'is a warning' '^warning: /dev/null/cca: cannot make .*; this run keeps no session$'
expect 2 'rm without a name' session rm
expect 2 'an unknown action' session drop "$s"
expect 3 'rm of a file of another kind' session rm "$model"
check 'leaves it' test -f "$model"
expect 0 'rm' session rm "$s"
check 'removes' test ! -e "$s"
expect 0 'rm --all' session rm --all
check 'removes all' test -z "$(ls "$work/cache/cca")"
