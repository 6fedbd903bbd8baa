#!/usr/bin/env bash
# What commands make of a device that fails, has no memory, is lost, returns what is no number, or
# does not come back, at each of its calls in turn (tests/reliability/devices.c, the program in $1).
# One line a sweep; the exit status is 1 where something was found. With SHORT=1 each 7th call.
set -u
cd "$(dirname "$0")/../.."
devices=$1
step=${SHORT:+7}
work=$(mktemp -d)
out=$(mktemp -d -p /dev/shm 2>/dev/null) || out=$(mktemp -d) # of what is synced, nothing is lost
trap 'rm -rf "$work" "$out"' EXIT
export XDG_CACHE_HOME=$work/cache
unset CCA_MODEL

gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
printf 'A text of several words, 123, and of some more of them.\n' >"$work/text"
seq 1 60 >"$work/ids"
model=$work/model.gguf
CCA=${CCA:-./cca}
"$CCA" export --random 32,2,4,2,64,640 --seed 1 -q --tokenizer "$work/tokenizer.model" -o "$model" || exit 1

bad=0
sweep() { # options of the sweep, --, command
    local options=()
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    for fault in fails memory lost nan waits hangs; do
        "$devices" -s "${step:-1}" "${options[@]}" $fault "$out" "$@" <"${input:-/dev/null}" || bad=1
    done
}
run=(-t 1 -q --temp 0 --lookup 0 -n 3 -g 4 -w 8 -ub 8)
stored=("${run[@]}" --session "$out/s.ccas" --checkpoint-every 8)
sweep -- generate -m "$model" -f "$work/text" "${stored[@]}" --attn cca
sweep -- generate -m "$model" -f "$work/text" "${stored[@]}" --attn recall --recall 8
sweep -- generate -m "$model" -f "$work/text" "${stored[@]}" --attn recall --recall 8 --rows disk
sweep -- generate -m "$model" -f "$work/text" "${stored[@]}" --attn window
# States that are there, of a part of the text, are read and gone on from.
head -c 30 "$work/text" >"$work/part"
for how in '--attn cca' '--attn recall --recall 8 --recall-tile 1' \
    '--attn recall --recall 8 --recall-tile 1 --rows disk'; do
    read -ra attn <<<"$how"
    rm -f "$work/s.ccas"
    "$CCA" generate -m "$model" -f "$work/part" "${run[@]}" "${attn[@]}" --session "$work/s.ccas" --checkpoint-every 8 \
        >"$work/answer" || exit 1
    sweep -c "$work/s.ccas" -- generate -m "$model" -f "$work/text" "${stored[@]}" "${attn[@]}"
done
sweep -- ask -m "$model" -f "$work/text" 'Who?' 'When?' --chat-template plain --quotes "${stored[@]}"
sweep -- ppl -m "$model" --ids "$work/ids" -t 1 -q -g 4 -w 8 -ub 8 --base full
sweep -n -- bench -m "$model" -t 1 -q -p 16 -n 2 -d 0,16 -g 4 -w 8 -r 1 --no-peaks
sweep -- generate -m "$model" -f "$work/text" -f "$work/text" -t 1 -q --temp 0 --lookup 8 -n 6 --attn full
printf '%s\n' 'Who?' /regen /undo 'When?' >"$work/chat"
input=$work/chat sweep -- chat -m "$model" --chat-template plain "${run[@]}"
input=$work/chat sweep -e -- chat -m "$model" -f "$work/text" --chat-template plain "${stored[@]}"
sweep -n -s $((${step:-1} * 5)) -- tune -m "$model" -f "$work/ids" -g 4 -w 8 -c 16 --tokens 40 --length 60 --no-facts -t 1 -q \
    --no-full --no-state
exit $bad
