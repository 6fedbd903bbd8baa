#!/usr/bin/env bash
# Output that cannot be written, for each command: exit 7 (141 where the reader has gone), a
# message, and nothing left behind.
set -u
. tests/cli/lib.sh

gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
make_random 32,2,4,2,64,640 --tokenizer "$work/tokenizer.model"
printf 'A text of several words, and more of them.' >"$work/text"

"$CCA" generate -m "$random" -f "$work/text" -n 1 -q --session "$work/s.ccas" >"$work/out"
commands=(
    "generate -m $random -f $work/text -n 4 --temp 0"
    "generate -m $random -f $work/text -n 4 --temp 0 --json"
    "generate -m $random -f $work/text --dry-run"
    "ask -m $random --chat-template plain -f $work/text -n 4 Who Why"
    "ask -m $random --chat-template plain -f $work/text -n 4 --jsonl Who"
    "ask -m $random -f $work/text --chat-template plain -n 4 Who?"
    "ask -m $random -f $work/text --chat-template plain -n 4 Who? --json"
    "ppl -m $random -f $work/text"
    "ppl -m $random -f $work/text --json"
    "info $random"
    "info $random --json"
    "info $random --keys --tensors"
    "tokenize -m $random -f $work/text"
    "tokenize -m $random -f $work/text --json"
    "tokenize -m $random -p words --count"
    "info $random --check"
    "bench -m $random -p 4 -n 0 -r 1 -t 1 --no-peaks -q"
    "session show $work/s.ccas"
    "session verify $work/s.ccas --json"
    "completion bash"
    "help generate"
    "version"
)
for command in "${commands[@]}"; do
    read -ra args <<<"$command"
    name="${args[0]} ${args[*]: -1}"
    "$CCA" "${args[@]}" >/dev/full 2>"$work/err"
    code=$?
    check "$name: a full device is exit 7" test $code = 7
    stderr_has "$name: and says so" 'standard output: cannot write'
    "$CCA" "${args[@]}" >&- 2>"$work/err"
    code=$?
    check "$name: a closed standard output is exit 7" test $code = 7
    exec 3> >(:)
    wait $! # for the reader to have gone
    "$CCA" "${args[@]}" >&3 2>"$work/err"
    code=$?
    exec 3>&-
    check "$name: a reader that has gone is exit 141" test $code = 141
    check "$name: without a message" bash -c '! grep -q "cannot write" "$0"' "$work/err"
done

files=(
    "generate -m $random -f $work/text -n 2 -o"
    "generate -m $random -f $work/text -n 2 --json -o"
    "ask -m $random --chat-template plain -f $work/text -n 2 Who -o"
    "ask -m $random -f $work/text --chat-template plain -n 4 Who? -o"
    "ppl -m $random -f $work/text -o"
    "ppl -m $random -f $work/text --nll-out"
    "ppl -m $random -f $work/text --logits-out"
    "info $random -o"
    "tokenize -m $random -f $work/text -o"
    "bench -m $random -p 4 -n 0 -r 1 -t 1 --no-peaks -q -o"
    "bench -m $random -p 4 -n 0 -r 1 -t 1 --no-peaks -q --svg"
    "session show $work/s.ccas -o"
    "completion bash -o"
    "export --random 32,1,4,2,64,96 -o"
)
mkdir "$work/closed"
chmod 555 "$work/closed"
chmod 755 "$work"
as_user=()
[ "$(id -u)" -eq 0 ] && as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
may_run=1
"${as_user[@]}" "$CCA" version >/dev/null 2>&1 || may_run=0
for command in "${files[@]}"; do
    read -ra args <<<"$command"
    name="${args[0]} ${args[*]: -1}"
    expect 7 "$name: a folder that is not there" "${args[@]}" "$work/none/file"
    stderr_has "$name: the file is named" 'none/file'
    if [ "${args[0]}" != export ]; then
        expect 7 "$name: a full device" "${args[@]}" /dev/full
    fi
    if [ $may_run = 0 ]; then
        skip "$name: a folder without permission" 'root may write anywhere, and no other user can run it'
        continue
    fi
    "${as_user[@]}" "$CCA" "${args[@]}" "$work/closed/file" >/dev/null 2>"$work/err"
    code=$?
    check "$name: a folder without permission is exit 7" test $code = 7
    stderr_has "$name: it is named" 'closed/file'
done
check 'nothing is left behind' test -z "$(ls -A "$work/closed")"

# What is replaced keeps its permissions; what may not be written is not replaced.
umask 022
answer=(-m "$random" -f "$work/text" -n 2 -q)
expect 0 'a new file' generate "${answer[@]}" -o "$work/new"
check 'follows the umask' test "$(stat -c %a "$work/new")" = 644
for mode in 600 640 664 755; do
    for command in "generate ${answer[*]} -o" "info $random -o" "ppl -m $random -f $work/text -q --nll-out" \
        "export --random 32,1,4,2,64,96 -q -o"; do
        read -ra args <<<"$command"
        echo old >"$work/kept"
        chmod $mode "$work/kept"
        expect 0 "${args[0]} over a file of mode $mode" "${args[@]}" "$work/kept"
        check "${args[0]} keeps mode $mode" test "$(stat -c %a "$work/kept")" = $mode
        check "${args[0]} replaced it" test "$(head -c 3 "$work/kept")" != old
    done
done
echo old >"$work/kept"
chmod 444 "$work/kept"
for command in "generate ${answer[*]} -o" "info $random -o" "export --random 32,1,4,2,64,96 -q -o"; do
    read -ra args <<<"$command"
    expect 7 "${args[0]} over a read-only file" "${args[@]}" "$work/kept"
    stderr_has "${args[0]}: it is named" 'kept: '
    check "${args[0]}: it is as it was" test "$(cat "$work/kept")" = old
done
check 'nothing lies beside them' test -z "$(find "$work" -name '*.tmp')"
