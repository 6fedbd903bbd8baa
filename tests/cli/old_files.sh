#!/usr/bin/env bash
# Files of versions that were (tests/golden/old): read, with the answers that their own program gave,
# or refused by name.
set -u
. tests/cli/lib.sh

old=tests/golden/old
model=$work/model.gguf
gzip -dc $old/model.gguf.gz >"$model"
expect 0 'the model is whole' info "$model" --check
expect 0 'and can be made again' export --random 16,2,2,1,32,300 --seed 3 --type f32 -g 4 -w 8 -q \
    --tokenizer tests/fuzz/seeds/vocab/llama2c -o "$work/again.gguf"
for part in 'tensors' 'keys'; do
    "$CCA" info "$model" --$part | grep -v '^file ' >"$work/old" && "$CCA" info "$work/again.gguf" --$part | grep -v '^file ' >"$work/new"
    check "with the same $part" cmp "$work/old" "$work/new"
done

run=(-m "$model" -t 1 -n 12 --temp 0 -ctk f32 -ctv f32 -ub 8 --checkpoint-every 16)
text='The sea was calm, and nobody came.'
session=$work/session.ccas
n=0
for file in "$old"/*/*.ccas.gz; do
    name=$(basename "$file" .ccas.gz)
    what=$(basename "$(dirname "$file")")/$name
    gzip -dc "$file" >"$session"
    expect 0 "$what is whole" session verify "$session"
    case $what in
    0.1.0-last/recall) # on its way: it had recalled, and said nothing of that
        expect 3 "$what is refused" generate "${run[@]}" -p "$text And then" --session "$session"
        stderr_has 'by its name' 'session\.ccas: the rows of its checkpoint at 36 do not fit'
        n=$((n + 1))
        continue
        ;;
    */chat) expect 0 "$what goes on" chat "${run[@]}" --chat-template plain --session "$session" <<<'Who?' ;;
    *)
        attn=() # as it was made
        [ "$name" = full ] && attn=(--attn full)
        [ "$name" = rows ] && attn=(-ctr f16)
        expect 0 "$what goes on" generate "${run[@]}" --ignore-eos "${attn[@]}" -p "$text And then" --session "$session"
        stderr_has "$what has its tokens" 'session.ccas: [0-9]+ of [0-9]+ tokens are there'
        ;;
    esac
    check "$what: the same answer" cmp "$work/out" "$(dirname "$file")/$name.answer"
    expect 0 "$what is whole still" session verify "$session"
    n=$((n + 1))
done
check 'all of them' test "$n" = 11

# Versions that are not there yet are refused by their number.
gzip -dc $old/0.2.0-rows/cca.ccas.gz >"$session"
printf '\2' | dd of="$session" bs=1 seek=7 conv=notrunc status=none
cp "$session" "$work/kept"
expect 3 'a session of a later format' generate "${run[@]}" -p "$text" --session "$session"
stderr_has 'is refused by its number' 'session\.ccas: a session file of version 2, not 1'
check 'and stays as it is' cmp "$session" "$work/kept"
for version in 1 4; do
    cp "$model" "$work/other.gguf"
    printf "\\$version" | dd of="$work/other.gguf" bs=1 seek=4 conv=notrunc status=none
    expect 3 "GGUF of version $version" generate -m "$work/other.gguf" -p x
    stderr_has 'is refused by its number' "other\.gguf.*version $version"
done
