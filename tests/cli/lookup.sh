#!/usr/bin/env bash
# --lookup: tokens guessed from the text so far. The same text with and without, wherever the lead is
# clear; what is told of guesses; what is refused.
set -u
. tests/cli/lib.sh
make_stories
model=models/cca-books-15m.gguf
exact=(-m "$stories" -ctk f32 -ctv f32 --temp 0 -q)
"$CCA" export $model --type f32 -o "$work/f32.gguf" -q
whole=(-m "$work/f32.gguf" -ctk f32 -ctv f32) # the same sums for one token and for several

number() { # a key of the last record's first tokens
    sed -nE "s/.*\"$1\": ([0-9]+).*/\1/p" "$work/out" | head -1
}

# What the last record says but for what guesses change: shares to four digits.
answers() {
    text_of | sed -E 's/(\.[0-9]{4})[0-9]+/\1/g'
}

# The same with and without guesses.
same() { # name, command and options
    local name=$1
    shift
    expect 0 "$name: no guesses" "$@" --json --lookup 0
    answers >"$work/none"
    check "$name: none are told" test "$(number drafted)" = 0 -a "$(number accepted)" = 0
    for n in 1 7 20; do
        cca "$@" --json --lookup $n
        check "$name: $n guesses make the same text" diff "$work/none" <(answers)
    done
}

# A text that the model goes on with as it began.
verse='The rain fell on the roof of the old mill. The rain fell on the'
for attn in cca recall full; do
    same "a refrain, $attn" generate -m $model -p "$verse" -n 80 --temp 0 --attn $attn -w 64
done
head -c 12000 examples/paradise-lost.txt >"$work/book"
same 'a book' generate "${whole[@]}" -f "$work/book" -n 60 --temp 0
same 'answers' ask "${whole[@]}" -f "$work/book" --no-kv -n 40 'Who is it about?' 'What is the first line?'
same 'penalties' generate "${exact[@]}" -p 'Once upon a time' -n 100 --repeat-penalty 1.1
same 'one seed' generate "${exact[@]}" -p 'Once upon a time' -n 120 --temp 0.7 --seed 5
same 'small chunks' generate "${exact[@]}" -p 'Once upon a time' -n 60 -ub 2
same 'the length of the context' generate "${exact[@]}" -p 'Lily said. Lily said. Lily' -c 40
same 'no end token' generate "${exact[@]}" -p 'Lily said. Lily said. Lily' -n 60 --ignore-eos

expect 0 'guesses are made unless they are not wanted' generate -m $model -p "$verse" -n 80 --temp 0 --json
check 'some of them right' test "$(number accepted)" -gt 0 -a "$(number accepted)" -le "$(number drafted)"
check 'and each saves a pass' test $(($(number passes) + $(number accepted))) = 79
stderr_has 'the last line tells of it' "generated 80 tokens, .* \([0-9.]+ tokens a pass: $(number accepted) of $(number drafted) guesses right\)"
expect 0 'auto' ask -m $model -p "$verse" --no-kv -n 40 --lookup auto --json 'Go on: the rain fell on the'
check 'is asked with, too' test "$(number passes)" -gt 0
stderr_has 'and told' '^question 1: .*generated [0-9]+ token'

# An answer that ends in the middle of what was guessed is what it is without.
cca generate -m $model -p "$verse" -n 80 --temp 0 --lookup 0
stop=$(cut -c 40-45 <"$work/out" | head -1)
same 'a stop text' generate -m $model -p "$verse" -n 80 --temp 0 --stop "$stop"
same 'one token' generate -m $model -p "$verse" -n 1 --temp 0
same 'two tokens' generate -m $model -p "$verse" -n 2 --temp 0

# What a conversation keeps is what was accepted.
printf 'Say it again: %s\nAnd again.\n' "$verse" >"$work/turns"
talk() { cca chat -m $model --temp 0 -n 40 -q "$@"; }
talk --lookup 0 <"$work/turns"
cp "$work/out" "$work/none"
talk --lookup 7 <"$work/turns"
check 'a conversation is the same' cmp "$work/none" "$work/out"
head -1 "$work/turns" >"$work/first"
tail -1 "$work/turns" >"$work/second"
talk --lookup 7 --session "$work/kept" <"$work/first"
cp "$work/out" "$work/both"
talk --lookup 7 --session "$work/kept" <"$work/second"
cat "$work/out" >>"$work/both"
check 'and goes on from its file' cmp "$work/none" "$work/both"
expect 0 'which is whole' session verify "$work/kept"
talk --lookup 0 --session "$work/kept" </dev/null
check 'also without guesses' test "$code" = 0

for bad in -2 64 x 1.5 ''; do
    expect 2 "--lookup '$bad'" generate -m $model -p x --lookup "$bad"
    stderr_has 'names the option' '--lookup'
done
expect 2 'of ask' ask -m $model -p x --lookup 64 y
expect 2 'of chat' chat -m $model --lookup 64
expect 2 'ppl guesses nothing' ppl -m $model -p x --lookup 3
expect 2 'a name of llama.cpp' generate -m $model -p x --draft-max 8
stderr_has 'tells this one' '--lookup N'
