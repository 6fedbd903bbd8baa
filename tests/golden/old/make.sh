#!/usr/bin/env bash
# Makes the session files of a version, and what the same program said when it went on from them:
#
#     make.sh PROGRAM MODEL FOLDER NAME ...       # of: cca full recall rows chat
set -eu
program=$1 model=$2 folder=$3
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache XDG_STATE_HOME=$work/state
run=(-m "$model" -t 1 -q -n 12 --temp 0 -ctk f32 -ctv f32 -ub 8 --checkpoint-every 16)
text='The sea was calm, and nobody came.'
for name in "${@:4}"; do
    case $name in
    recall) how=(--attn recall --recall 8 --recall-tile 4 --cores) ;;
    rows) how=(--attn recall --recall 8 -ctr f16) ;;
    *) how=(--attn "$name") ;;
    esac
    if [ "$name" = chat ]; then
        "$program" chat "${run[@]}" --chat-template plain --session "$folder/chat.ccas" <<<'Is it?' >"$work/out"
        cp "$folder/chat.ccas" "$work/next.ccas"
        "$program" chat "${run[@]}" --chat-template plain --session "$work/next.ccas" <<<'Who?' >"$folder/chat.answer"
    else
        "$program" generate "${run[@]}" --ignore-eos "${how[@]}" -p "$text" --session "$folder/$name.ccas" >"$work/out"
        cp "$folder/$name.ccas" "$work/next.ccas"
        "$program" generate "${run[@]}" --ignore-eos "${how[@]}" -p "$text And then" --session "$work/next.ccas" \
            >"$folder/$name.answer"
    fi
done
gzip -9 -f "$folder"/*.ccas
