#!/usr/bin/env bash
# Rows on disk: the text of rows in memory, also after kill -9; less memory; no space, no file.
set -u
. tests/cli/lib.sh

model=$work/model.gguf
"$CCA" export models/cca-*.gguf -q --chat-template plain -w 128 -o "$model"
head -c 5000 docs/CLI.md | iconv -c -f UTF-8 -t UTF-8 >"$work/text" # some 2,300 tokens
recall=(--attn recall --recall 256)
generate=(generate -m "$model" -f "$work/text" -n 8 --temp 0 "${recall[@]}")
no_leftovers() { check "$1: nothing is left in the folder" test -z "$(ls -A "$work/cache/cca")"; }

wrong() { # options, what the message says
    # shellcheck disable=SC2086
    expect 2 "$1" generate -m "$model" -p Hello -n 1 $1
    stderr_has 'is told' "$2"
}
wrong '--attn full --rows disk' '[-]-rows disk: attention full recalls nothing'
wrong '--attn cca --rows disk' '[-]-rows disk: attention cca recalls nothing'
wrong '--attn window --rows disk' '[-]-rows disk: attention window recalls nothing'
wrong '--attn recall --rows tape' '[-]-rows'
wrong '--attn full --rows host' '[-]-rows host: attention full recalls nothing'
XDG_CACHE_HOME='' HOME='' wrong '--attn recall --rows disk' 'neither XDG_CACHE_HOME nor HOME'
XDG_CACHE_HOME=/dev/null expect 7 'no folder' generate -m "$model" -p Hello -n 1 --attn recall --rows disk
stderr_has 'is named' '/dev/null/cca: cannot make this folder'
expect 0 'a tuned model has no rows to keep' generate -m "$model" -p Hello -n 1 --rows disk

# The same text.
for type in bf16 q8_0/bf16; do
    expect 0 "rows in memory, $type" "${generate[@]}" -ctr $type --rows memory
    cp "$work/out" "$work/want"
    for threads in 1 2 3; do
        expect 0 "on disk, $threads threads" "${generate[@]}" -ctr $type --rows disk -t $threads
        check 'the same text' cmp "$work/out" "$work/want"
    done
    no_leftovers "$type"
    for order in 'memory disk disk' 'disk disk memory'; do # who makes the file, who goes on with it
        rm -f "$work/s.ccas"
        for rows in $order; do
            expect 0 "a session, $order" "${generate[@]}" -ctr $type --rows "$rows" \
                --session "$work/s.ccas" --checkpoint-every 512
            check 'the same text' cmp "$work/out" "$work/want"
        done
    done
    expect 0 'the file is sound' session verify "$work/s.ccas"
done
# In the host's memory: the CPU's own, laid out as beside a device.
for type in bf16 q8_0/bf16; do
    rm -f "$work/s.ccas"
    expect 0 "rows in memory, $type" "${generate[@]}" -ctr $type --rows memory
    cp "$work/out" "$work/want"
    others='host host'
    [ $type = bf16 ] || others='host memory disk host'
    for rows in $others; do
        expect 0 "of the host, $type, $rows" "${generate[@]}" -ctr $type --rows "$rows" --session "$work/s.ccas" \
            --checkpoint-every 512
        check 'the same text' cmp "$work/out" "$work/want"
    done
    [ $type = bf16 ] || continue
    expect 3 'laid out otherwise' "${generate[@]}" --rows memory --session "$work/s.ccas"
    stderr_has 'is told' "cache_type_r=bf16/bf16, this run has cache_type_r=the window's"
done
expect 0 'what it takes' generate -m "$model" -f "$work/text" -n 8 "${recall[@]}" --rows host --dry-run --json
check 'is memory' test "$(jq '.memory | .rows > 0 and .host == 0' "$work/out")" = true

nll() { # where rows lie
    "$CCA" ppl -m "$model" -f "$work/text" "${recall[@]}" --rows "$1" -q --nll-out "$work/nll.$1" >/dev/null
}
nll memory && nll disk
check 'ppl: the same values' cmp "$work/nll.memory" "$work/nll.disk"
questions='What is an option?
What is exit 7?
'
answers() { # where rows lie, on further runs from a stored state
    "$CCA" ask -m "$model" -f "$work/text" "${recall[@]}" -n 6 --rows "$1" -i <<<"$questions" 2>/dev/null
}
answers memory >"$work/want"
check 'ask: there are answers' test -s "$work/want"
for run in 'from a stored state' 'again'; do
    answers disk >"$work/got"
    check "ask: the same answers, $run" cmp "$work/got" "$work/want"
done
rm -rf "$work/cache"
answers disk >"$work/got"
check 'ask: the same answers of a state made on disk' cmp "$work/got" "$work/want"
chat() {
    printf 'Tell me of the sea.\nAnd of the land.\n/undo\nAnd of the sky.\n' |
        "$CCA" chat -m "$model" "${recall[@]}" --recall 16 -w 32 -n 24 --temp 0 --rows "$1" \
            --session "$work/chat.$1.ccas" 2>/dev/null
}
chat memory >"$work/want"
check 'chat: there are answers' test -s "$work/want"
chat disk >"$work/got"
check 'chat: the same answers' cmp "$work/got" "$work/want"
rm -rf "$work/cache"

# Less memory.
make_random 128,8,2,2,64,128
awk 'BEGIN { srand(1); for (i = 0; i < 12000; i++) print int(rand() * 128) }' >"$work/ids"
ppl=(ppl -m "$random" --ids "$work/ids" -c 12000 "${recall[@]}" -w 64 -ctk f32 -ctv f32 -q)
memory_of() { # name in the last record
    sed -nE "s/.*\"$1\": ([0-9]+).*/\1/p" "$work/out" | head -1
}
expect 0 'what a run takes' "${ppl[@]}" --dry-run --rows disk --json
rows=$(memory_of disk) total=$(memory_of total)
check 'rows are on disk' test "$rows" = $((12000 * 8 * 2 * 64 * 2 * 4))
check 'and count for nothing' test "$total" -lt $((rows / 2))
limit=$((total + rows / 4))
expect 5 'a quarter of the memory that rows take' "${ppl[@]}" --mem-limit $limit
expect 0 'on disk' "${ppl[@]}" --mem-limit $limit --rows disk --json
check 'the process stays within it' test "$(memory_of peak)" -le $limit
nats() { sed -nE 's/.*"nats_per_token": ([0-9.]+).*/\1/p' "$work/out"; }
nats >"$work/got"
check 'there is a value' test -s "$work/got"
expect 0 'in memory' "${ppl[@]}" --json
nats >"$work/want"
check 'it has the same value' cmp "$work/got" "$work/want"

# Memory that is the process's own, when a document has been read.
ask=(ask -m "$model" -f "$work/text" "${recall[@]}" --no-kv -n 4 -ctk f32 -ctv f32)
mkfifo "$work/questions"
own_memory() { # where rows lie; bytes
    "$CCA" "${ask[@]}" --rows "$1" -i <"$work/questions" >"$work/answer" 2>/dev/null &
    pid=$!
    exec 3>"$work/questions"
    echo 'What is it?' >&3
    wait_until $pid grep -q . "$work/answer"
    awk '/^RssAnon:/ { print $2 * 1024 }' "/proc/$pid/status"
    exec 3>&-
    wait $pid
    : >"$work/answer"
}
cca "${ask[@]}" --rows disk --dry-run --json 'What is it?'
rows=$(memory_of disk)
in_memory=$(own_memory memory) on_disk=$(own_memory disk)
check "rows of $rows bytes are not its own: $on_disk, else $in_memory" \
    test $((on_disk + rows * 3 / 4)) -lt "$in_memory"
no_leftovers 'a document'

# Under a control group's limit, which comes when the memory is there, but not yet used.
group=
make_group() { # version 1 or 2, of which the process's own group is the parent
    local own v1=/sys/fs/cgroup/memory v2=/sys/fs/cgroup
    [ -d /sys/fs/cgroup/unified ] && v2=/sys/fs/cgroup/unified
    own=$(sed -nE 's/^[0-9]+:memory:(.*)$/\1/p' /proc/self/cgroup)
    for parent in "$v1$own" "$v1" "$v2$(sed -n 's/^0:://p' /proc/self/cgroup)" "$v2"; do
        group=$parent/cca-test-$$
        mkdir "$group" 2>/dev/null || continue
        [ -f "$group/memory.limit_in_bytes" ] && bound=memory.limit_in_bytes && return 0
        [ -f "$group/memory.max" ] && bound=memory.max && return 0
        rmdir "$group"
    done
    return 1
}
grown() { # process, bytes of its data
    [ "$(awk '/^VmData:/ { print $2 * 1024 }' "/proc/$1/status")" -gt "$2" ]
}
under_group() { # where rows lie, bytes; the exit status in $code
    ( echo $BASHPID >"$group/cgroup.procs" && exec "$CCA" "${ppl[@]}" --rows "$1" >"$work/out" 2>"$work/err" ) &
    pid=$!
    [ "$1" = disk ] || wait_until $pid grown $pid $((12000 * 8 * 2 * 64 * 2 * 4))
    [ "$1" = memory ] || wait_until $pid grown $pid 12000000
    echo "$2" >"$group/$bound"
    echo 0 2>/dev/null >"$group/memory.swap.max"
    wait $pid 2>/dev/null
    code=$?
    echo $((1 << 40)) >"$group/$bound"
}
if make_group; then
    rows=$((12000 * 8 * 2 * 64 * 2 * 4))
    under_group disk $limit
    check 'a control group with a quarter: on disk' test $code = 0
    cp "$work/out" "$work/got"
    cca "${ppl[@]}"
    check 'the same value' cmp "$work/out" "$work/got"
    under_group memory $limit
    check 'in memory the run is killed' test $code = 137
    rmdir "$group"
else
    skip 'a control group' 'none can be made here'
fi

# kill -9 at several moments: what is stored is sound, and the run goes on to the same text.
whole=("${generate[@]}" --rows disk --checkpoint-every 512)
for type in bf16 q8_0/bf16; do
    kill_here=$work/killed.ccas
    rm -f "$kill_here"
    expect 0 "a run in one, $type" "${whole[@]}" -ctr $type
    cp "$work/out" "$work/want"
    size=0
    bigger() { [ "$(stat -c %s "$kill_here" 2>/dev/null || echo 0)" -gt $size ]; }
    for moment in 1 2 3; do
        "$CCA" "${whole[@]}" -ctr $type --session "$kill_here" >/dev/null 2>&1 &
        pid=$!
        check "moment $moment: there is more of the file" wait_until $pid bigger
        kill -9 $pid
        wait $pid 2>/dev/null
        expect 0 'it is sound' session verify "$kill_here"
        size=$(stat -c %s "$kill_here")
    done
    expect 0 'the next run goes on' "${whole[@]}" -ctr $type --session "$kill_here"
    stderr_has 'with what is there' '[1-9][0-9]* of [0-9]+ tokens are there'
    check 'to the same text' cmp "$work/out" "$work/want"
    no_leftovers 'kill -9'
done

# No space.
(ulimit -f 1000 && exec "$CCA" "${generate[@]}" --rows disk >/dev/null 2>"$work/err")
check 'a file that may not be as large is exit 7' test $? = 7
stderr_has 'and the folder is named' 'cache/cca: cannot make a file of [0-9]+ bytes'
cp "$kill_here" "$work/kept.ccas"
small=(unshare -rm sh -c 'mount -t tmpfs -o size=1M none "$0" && exec "$@"' "$work/small")
mkdir "$work/small"
if "${small[@]}" true 2>/dev/null; then
    XDG_CACHE_HOME=$work/small "${small[@]}" "$CCA" "${whole[@]}" -ctr $type -f docs/CLI.md \
        --session "$kill_here" >/dev/null 2>"$work/err"
    check 'a full disk is exit 7' test $? = 7
    stderr_has 'and told' 'rows on disk: .*small/cca: cannot take the space of [0-9]+ bytes: No space left'
    expect 0 'the session is sound' session verify "$kill_here"
else
    skip 'a full disk' 'no file system can be mounted here'
fi

# A file that becomes shorter while it is read, and one that is damaged.
s=$work/shorter.ccas
cp "$work/kept.ccas" "$s"
ask=(ask -m "$model" -f "$work/text" "${recall[@]}" -n 4 --rows disk --session "$s" -i)
rm -f "$s"
"$CCA" "${ask[@]}" <"$work/questions" >"$work/answer" 2>"$work/err" &
pid=$!
exec 3>"$work/questions"
echo 'What is it?' >&3
check 'a question was answered' wait_until $pid grep -q . "$work/answer"
truncate -s 4096 "$s"
echo 'And what is it not?' >&3
exec 3>&-
wait $pid
check 'a file that becomes shorter is exit 3' test $? = 3
stderr_has 'and named' 'shorter.ccas: cannot be read any more: it became shorter, or its disk fails'
cp "$work/kept.ccas" "$s"
printf 'x' | dd of="$s" bs=1 seek=$(($(stat -c %s "$s") / 2)) conv=notrunc status=none
expect 3 'a damaged file' "${generate[@]}" --rows disk --session "$s" -ctr q8_0/bf16
stderr_has 'is told before it is used' 'damaged at byte [0-9]+: the checksum'
