#!/usr/bin/env bash
# What a power cut can leave at each moment of commands that keep something (tests/crash/crash.c,
# the program in $1): all parts, or those named behind it. One line a part; the exit status is 1
# where something was wrong. SHORT=1 takes about a minute.
set -u
cd "$(dirname "$0")/../.."
crash=$(realpath "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache
unset CCA_MODEL
CCA=${CCA:-./cca}
brief=()
[ "${SHORT:-0}" = 0 ] || brief=(-s)
bad=0

gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
"$CCA" export --random 32,2,4,2,64,640 --seed 1 -q --tokenizer "$work/tokenizer.model" -g 4 -w 8 \
    -o "$work/model.gguf" || exit 2
model=$work/model.gguf disk=$work/disk
seq 1 40 >"$work/ids"
echo 'A text of several words, 123.' >"$work/text"
echo 'A text of several words, 123. And more of it, for a page or so.' >"$work/longer"
echo 'A text of several words that goes on in another way.' >"$work/other"

try() { # name, options and commands
    "$crash" "${brief[@]}" -n "$1" -d "$work" "${@:2}" || bad=1
    rm -rf "$disk"
}

run=(-m "$model" --chat-template plain -n 2 -t 1 -ub 8 --temp 0 -q)
cca=(--attn cca -g 4 -w 8)
recall=(--attn recall -g 4 -w 8 --recall 8 --recall-tile 1)

# Written, gone on with, replaced by one that parts ways.
sessions() { # options of attention
    local file=(--session "$disk/s.ccas" --checkpoint-every 8)
    commands=(-- ask "${run[@]}" "$@" "${file[@]}" -f "$work/text" 'Who?'
        -- ask "${run[@]}" "$@" "${file[@]}" -f "$work/text" 'Who?' 'When was it?'
        -- ask "${run[@]}" "$@" "${file[@]}" -f "$work/longer" 'Who?'
        -- ask "${run[@]}" "$@" "${file[@]}" -f "$work/other" 'Who?')
}

part_session-cca() {
    sessions "${cca[@]}"
    try session-cca -o -m "$model" -a cca "${commands[@]}"
}
part_session-recall() {
    sessions "${recall[@]}"
    try session-recall -o -m "$model" -a recall "${commands[@]}"
}
part_session-rows() {
    sessions "${recall[@]}" --rows disk
    try session-rows -o -m "$model" -a recall "${commands[@]}"
}
part_session-cache() { # in the cache folder, which is made and holds two at most
    local ask=(ask "${run[@]}" "${recall[@]}" --checkpoint-every 8 --kv-limit 40K)
    XDG_CACHE_HOME=$disk/cache try session-cache -o -m "$model" -a recall \
        -- "${ask[@]}" -f "$work/text" 'Who?' -- "${ask[@]}" -f "$work/other" 'Who?' \
        -- "${ask[@]}" -f "$work/longer" 'Who?'
}
part_chat() {
    printf '%s\n' 'Who?' 'When?' /undo 'Why was it?' /regen 'And then?' "/save $disk/saved.ccas" \
        'Again?' "/save $disk/saved.ccas" >"$work/typed"
    local chat=(chat "${run[@]}" -s 1 --session "$disk/c.ccas")
    try chat -m "$model" -a cca -- "${chat[@]}" "${cca[@]}" -f "$work/text" \
        -- "${chat[@]}" "${cca[@]}" <"$work/typed"
}
part_tune() {
    local tune=(tune -m "$model" -f "$work/ids" -g 4 -w 8,12 -c 16 --tokens 40 --no-facts -t 1 -q
        --state "$disk/state.json" --svg "$disk/t.svg" -o "$disk/t.md")
    try tune -- "${tune[@]}" -- "${tune[@]}"
}
part_ppl() { # keeps no state: its files are whole or not there
    local ppl=(ppl -m "$model" -t 1 -q --nll-out "$disk/nll" --logits-out "$disk/logits" -o "$disk/report")
    try ppl -- "${ppl[@]}" -f "$work/text" -- "${ppl[@]}" -f "$work/longer"
}
part_gguf-edit() { # in place, anew, and by tune
    "$CCA" export --random 32,1,2,2,32,64 --seed 2 -q -o "$work/bare.gguf" || exit 2
    try gguf-edit -i "$model" -i "$work/bare.gguf" -- attention "$disk/model.gguf" 8 16 8 0 \
        -- attention "$disk/bare.gguf" 4 8 4 8 -- attention "$disk/bare.gguf" 4 12 4 16 \
        -- tune -m "$disk/model.gguf" -f "$work/ids" -g 4 -w 8,12 -c 16 --tokens 40 --no-facts -t 1 -q \
        --no-state --max-ppl-increase 50 --write -o "$disk/t.md"
}
part_export() {
    local export=(export --random 32,1,2,2,32,640 -q -t 1 --tokenizer "$work/tokenizer.model" -o "$disk/m.gguf")
    try export -- "${export[@]}" --seed 1 -- "${export[@]}" --seed 2 --type q8_0 \
        -- export "$model" --type q4_k -t 1 -q -o "$disk/m.gguf"
}
part_output() { # answers of other commands in files
    try output -- generate -m "$model" -p hello -n 2 --temp 0 -t 1 --json -o "$disk/answer" -q \
        -- info "$model" --keys -o "$disk/answer" -- session ls -o "$disk/answer"
}

if [ $# = 0 ]; then
    set -- session-cca session-recall session-rows session-cache chat tune ppl gguf-edit export output
fi
for part; do "part_$part"; done
exit $bad
