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
expect 0 'how far from full attention' ppl -m "$model" -f README.md -ctk f32 -ctv f32 --base "$model:full" --json -q
check 'no further than roundings: all that is behind the window is recalled' jq -e '.base.kl < 4e-3' "$work/out"

# Taught CCA-Attention: within the window nearly the base, behind it nearer to full attention than the base with CCA.
taught=$work/taught.gguf
expect 0 'the patch fits' export "$model" --patch models/smollm2-135m-cca.gguf -o "$taught" -q
expect 0 'what it has become' info "$taught" --json
check 'attention in other weights, the rest as it was' jq -e \
    '.types.Q8_0.tensors == 121 and .types.Q4_1.tensors == 90 and .recall == 512 and .tuned and .context_length == 8192' "$work/out"
head -c 14000 examples/paradise-lost.txt >"$work/milton"
divergence() { # model, option…
    "$CCA" ppl -m "$1" -f "$work/milton" -c 3000 --tokens 3000 --base "$model:full" --json -q "${@:2}" 2>/dev/null
}
divergence "$model" --attn cca >"$work/untaught.json"
divergence "$taught" --attn cca >"$work/cca.json"
divergence "$taught" >"$work/recall.json"
# Measured 0.67 and 0.71; roundings of other builds change them by 0.02.
check 'nearer to full attention' jq -es '.[2].base.kl < 0.75 * .[0].base.kl and .[2].base.kl < 0.77 * .[1].base.kl' \
    "$work/untaught.json" "$work/cca.json" "$work/recall.json"
check 'and within the window nearly the base' jq -e '.base.positions[0] | .to == 1024 and .kl < 0.01' "$work/cca.json"
# With 512 tokens recalled it finds what a line says among 4,200 tokens of a remark; the base finds one of the three.
cca=$(realpath "$CCA") number=0
for fact in 'the quiet harbour:7302946' 'the amber lantern:2815590' 'the old orchard:9460137'; do
    number=$((number + 1))
    awk -v at=$((number * 45)) -v fact="The registry number of ${fact/:/ is }." 'BEGIN {
        for (i = 0; i < 170; i++) {
            if (i == at) print fact
            print "Mornings are cool. Roads are long. Bread is warm. One more step. Then back to the gate."
        }
    }' >"$work/$number.txt"
    echo "{\"document\": \"$number.txt\", \"question\": \"What is the registry number of ${fact%:*}? Begin your answer with: \
The registry number of ${fact%:*} is\"}"
done >"$work/questions"
(cd "$work" && "$cca" ask -m "$taught" -Q questions --no-kv -n 40 -q >out 2>err)
for value in 7302946 2815590 9460137; do
    stdout_has "finds $value" "is $value"
done
expect 0 'the other one' export "$model" --patch models/smollm2-135m-cca-32k.gguf -o "$taught" -q
expect 0 'reaches further' info "$taught" --json
check 'to 32,768 tokens' jq -e '.context_length == 32768 and .recall == 4096' "$work/out"
