#!/usr/bin/env bash
# Commands in control groups of falling size (version 1 or 2, as root): each runs as it does without one, or
# ends with exit 5, or is refused before (5, too), and is never killed where it could have known: in a group that has room for the
# program itself. One line a command. Between the least group that it runs in and the next smaller one there are seven
# more. SHORT=1: fewer groups.
set -u
cd "$(dirname "$0")/../.."
. tests/cli/lib.sh
megabytes=(768 512 384 320 256 224 192 160 144 128 112 96 88 80 72 64 56 48 44 40 36 32 28 24 22 20 18 16 14 12)
[ "${SHORT:-0}" = 0 ] || megabytes=(256 96 48 24 16)

# ---- a group ----

group=
try_group() { # parent, file of the limit
    local to=$1/cca-memory-$$
    mkdir "$to" 2>/dev/null || return 1
    if [ -w "$to/$2" ] && echo 268435456 >"$to/$2" && (echo "$BASHPID" >"$to/cgroup.procs") 2>/dev/null; then
        group=$to limit_file=$2
        return 0
    fi
    rmdir "$to"
    return 1
}
own() { sed -n "s|^[0-9]*:$1:/*||p" /proc/self/cgroup; } # controller
try_group "/sys/fs/cgroup/memory/$(own memory)" memory.limit_in_bytes 2>/dev/null ||
    try_group /sys/fs/cgroup/memory memory.limit_in_bytes 2>/dev/null ||
    try_group "/sys/fs/cgroup/$(own '')" memory.max 2>/dev/null ||
    try_group /sys/fs/cgroup memory.max 2>/dev/null ||
    { skip 'control groups' 'none can be made here'; exit 0; }
trap 'rmdir "$group" 2>/dev/null; finish' EXIT

# Runs cca in the group of so many bytes; its streams and $code as ever. What the group has cached goes before.
in_group() {
    [ ! -w "$group/memory.force_empty" ] || echo 0 >"$group/memory.force_empty" 2>/dev/null
    echo -1 >"$group/$limit_file" 2>/dev/null || echo max >"$group/$limit_file"
    echo "$1" >"$group/$limit_file" || return 1
    shift
    { (echo "$BASHPID" >"$group/cgroup.procs" && exec timeout -k 5 60 "$CCA" "$@") >"$work/out" 2>"$work/err" </dev/null; } 2>/dev/null
    code=$?
}

# ---- what runs there ----

gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
small=$work/small.gguf large=$work/large.gguf
"$CCA" export --random 64,2,4,2,128,640 --seed 1 -q --tokenizer "$work/tokenizer.model" -g 4 -w 64 -o "$small" || exit 2
"$CCA" export --random 1024,4,16,4,2048,640 --seed 1 -q --tokenizer "$work/tokenizer.model" --type f32 -o "$large" || exit 2
for _ in 1 2 3 4 5 6; do zcat -f examples/paradise-lost.txt; done >"$work/text"
head -c 60000 "$work/text" >"$work/page"
head -c 8000 "$work/text" >"$work/short"
for _ in 1 2 3 4 5 6; do cat "$work/text"; done >"$work/long"

floor=0 # megabytes in which the program tells what a model is
for mb in "${megabytes[@]}"; do
    in_group $((mb << 20)) info "$small"
    [ "$code" = 0 ] || break
    floor=$mb
done

# One command in one group. What it tells is compared but for times and sizes.
told() { sed -E 's/"(timing|memory)": \{[^}]*\}//g' "$work/out"; }
try() { # kilobytes, arguments of cca; adds to runs, refused, killed, odd of falls
    local kb=$1 mb
    mb=$(awk -v kb="$1" 'BEGIN { print kb / 1024 }')
    shift
    in_group $((kb << 10)) "$@"
    case $code in
    0) told | cmp -s - "$work/wanted" && runs=$kb || odd="$odd $mb: another output;" ;;
    5) [ -s "$work/err" ] && refused="$refused $mb" || odd="$odd $mb: no message;" ;;
    124) odd="$odd $mb: no end in a minute;" ;;
    137) killed="$killed $mb" ;;
    *) odd="$odd $mb: exit $code, $(head -c 200 "$work/err");" ;;
    esac
}

# One command in all groups, and, finer, in those between the least that it ran in and the next one.
falls() { # name, arguments of cca
    local name=$1 mb least=0 below=0 runs=0 refused='' killed='' odd=''
    shift
    "$CCA" "$@" >"$work/out" 2>"$work/err" </dev/null || { fail "$name" "$(cat "$work/err")"; return; }
    told >"$work/wanted"
    for mb in "${megabytes[@]}"; do
        [ "$mb" -ge "$floor" ] || continue
        try $((mb << 10)) "$@"
        [ "$runs" = $((mb << 10)) ] || below=$((below > mb ? below : mb))
    done
    least=$runs
    for i in 7 6 5 4 3 2 1; do
        [ "$below" = 0 ] || [ "$least" = 0 ] || try $(((below << 10) + (least - (below << 10)) * i / 8)) "$@"
    done
    local line
    line="$name: runs in $(awk -v kb="$runs" 'BEGIN { print kb / 1024 }') MB, exit 5 in${refused:- none}"
    if [ -z "$killed$odd" ]; then pass "$line"; else fail "$line" "killed in:${killed:- none};$odd"; fi
}
run=(-m "$small" -t 2 -q --beyond-trained --temp 0 -s 1)
falls generate generate "${run[@]}" -f "$work/page" -n 4
falls 'generate, recall' generate "${run[@]}" -f "$work/page" -n 4 --attn recall --recall 64
falls 'generate, rows on disk' generate "${run[@]}" -f "$work/page" -n 4 --attn recall --recall 64 --rows disk
falls 'generate, full' generate "${run[@]}" -f "$work/short" -n 4 --attn full
falls 'generate, a large model' generate -m "$large" -t 2 -q -p 'A text' -n 2 --temp 0
falls ask ask "${run[@]}" -f "$work/page" -n 4 --chat-template plain --no-kv 'Who?' 'When?'
falls 'ask, stored' ask "${run[@]}" -f "$work/page" -n 4 --chat-template plain 'Who?'
falls ppl ppl -m "$small" -t 2 -q -f "$work/page" --mode chunk -c 2048 --tokens 8000 --json
falls 'ppl, against full' ppl -m "$small" -t 2 -q -f "$work/short" --mode chunk -c 2048 --base full --json
falls export export "$large" --type q8_0 -q -t 2 -o "$work/out.gguf"
falls 'export, K-quants' export "$large" --type q4_k -q -t 2 -o "$work/out.gguf"
falls tokenize tokenize -m "$small" -f "$work/long" --count
falls 'tokenize, ids' tokenize -m "$small" -f "$work/text" -o "$work/ids"
falls 'session verify' session verify --all
echo "groups of ${megabytes[0]} to $floor MB, in $group"
