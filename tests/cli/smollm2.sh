#!/usr/bin/env bash
# A public model as its makers publish it, where make smollm2 has fetched it.
set -u
. tests/cli/lib.sh

model=models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -f "$model" ]; then
    skip 'SmolLM2-135M-Instruct' "$model is not there: make smollm2 fetches it"
    exit
fi

expect 0 'what it is' info "$model" --json
check 'in a mixture of types' jq -e '.types.Q4_1.tensors == 210 and .types.Q8_0.tensors == 1' "$work/out"
expect 0 'a text goes on' generate -m "$model" -q --temp 0 -n 6 -p 'The capital of France is'
stdout_has 'as everybody knows' '^ ?The capital of France is Paris|^ Paris'

questions=('Which command runs the tests?' 'In which language is the program written?')
ask=(ask -m "$model" -f README.md -n 16 -q --no-kv -ctk f32 -ctv f32)
expect 0 'questions about a page' "${ask[@]}" "${questions[@]}"
stdout_has 'the first is answered' 'make test'
stdout_has 'and the second' 'written in C\b'
cp "$work/out" "$work/recall"
expect 0 'with full attention' "${ask[@]}" --attn full "${questions[@]}"
check 'word for word the same: all that is behind the window is recalled' cmp "$work/recall" "$work/out"
