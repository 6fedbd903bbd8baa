#!/usr/bin/env bash
# Weights that are others than they claim to be, and weights and logits that are no numbers.
set -u
. tests/cli/lib.sh

gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
make_random 32,2,4,2,64,640 --type f32 -c 4096 --tokenizer "$work/tokenizer.model"
words='A text of several words, and more of them, so that there is something to read and to go on from.'
changed=$work/changed.gguf

# Where a tensor's bytes begin, and how many there are.
place() { # tensor
    "$CCA" info "$random" --json --tensors | tr '{' '\n' |
        sed -n "s/^\"name\": \"$1\".*\"offset\": \([0-9]*\), \"bytes\": \([0-9]*\).*/\1 \2/p"
}
put() { # offset, times, bytes as printf has them: into the changed copy
    for ((i = 0; i < $2; i++)); do printf "$3"; done |
        dd of="$changed" bs=64K oflag=seek_bytes seek="$1" conv=notrunc status=none
}
fill() { # tensor, four bytes as printf has them: the changed copy has this value all over it
    local at n
    cp "$random" "$changed"
    read -r at n < <(place "$1")
    put "$at" $((n / 4)) "$2"
}
after() { # text: where the bytes behind its first place in the file stand
    echo $(($(LC_ALL=C grep -abo -m 1 -F "$1" "$changed" | head -1 | cut -d: -f1) + ${#1}))
}

# ---- other weights under the same key ----

use=(-p "$words" -n 2 --temp 0 -q --attn cca -ub 8) # cut where chunks are
expect 0 'a session' generate -m "$random" "${use[@]}" --session "$work/s.ccas"
expect 0 'its model goes on from it' generate -m "$random" "${use[@]}" --session "$work/s.ccas" --json
check 'with what is there' grep -qE '"reused": [1-9]' "$work/out"
mv "$random" "$work/moved.gguf"
expect 0 'so it does under another name' generate -m "$work/moved.gguf" "${use[@]}" --session "$work/s.ccas" --json
check 'with what is there' grep -qE '"reused": [1-9]' "$work/out"
mv "$work/moved.gguf" "$random"
for tensor in blk.1.ffn_down.weight token_embd.weight output_norm.weight; do
    cp "$random" "$changed"
    read -r at n < <(place "$tensor")
    put $((at + n / 2)) 1 '\x00\x00\x40\x3e' # one value in the middle
    expect 3 "one other value of $tensor" generate -m "$changed" "${use[@]}" --session "$work/s.ccas"
    stderr_has 'the difference is told' 'made with weights=[0-9a-f]{16}, this run has weights='
    expect 8 "info --check finds it in $tensor" info "$changed" --check
    stderr_has 'by its checksum' "'$tensor' is damaged"
done
cp "$random" "$changed"
put $(($(after layer_norm_rms_epsilon) + 4)) 1 '\x00\x00\x80\x3c'
expect 3 'another key of the model' generate -m "$changed" "${use[@]}" --session "$work/s.ccas"
expect 8 'is found by info --check' info "$changed" --check
stderr_has 'by the fingerprint' "not those that key 'cca.fingerprint' was made of"
expect 0 'the file itself is as it claims' info "$random" --check

# ---- no numbers ----

for value in '\x00\x00\xc0\x7f' '\x00\x00\x80\x7f'; do
    for tensor in output_norm.weight blk.1.attn_k.weight token_embd.weight; do
        fill $tensor "$value"
        for command in "generate -n 3 --temp 0" "generate -n 3 --json" "ppl" "ppl --json" "bench -n 2 -r 1 --no-peaks"; do
            read -ra args <<<"$command"
            text=(-p "$words")
            [ "${args[0]}" = bench ] && text=(-p 8)
            expect 3 "$command, $tensor" "${args[@]}" -m "$changed" "${text[@]}" -q
            stderr_has 'names the tensor' "changed.gguf: tensor $tensor, row 0: a weight is no finite number"
            [ "${args[0]}" = bench ] || stdout_empty 'and writes nothing'
        done
    done
done
fill blk.1.ffn_norm.weight '\xe6\xb1\x61\x7f' # 3e38
for command in "generate -n 3 --temp 0" "ppl --json"; do
    read -ra args <<<"$command"
    expect 1 "$command, weights that overflow" "${args[@]}" -m "$changed" -p "$words" -q
    stderr_has 'names the layer' 'they overflow in layer 1 of 0 … 1, at position 0$'
    stdout_empty 'and writes nothing'
done
fill output_norm.weight '\xe6\xb1\x61\x7f'
expect 1 'behind the last layer' generate -m "$changed" -p "$words" -q
stderr_has 'it is said' 'they overflow behind the last layer'
fill blk.0.attn_q.weight '\x00\x00\xc0\x7f'
expect 3 'weights that are no numbers' export "$changed" --type q8_0 -q -o "$work/x.gguf"
stderr_has 'are not exported' "tensor 'blk.0.attn_q.weight', row 0: a value is not finite"

# Of one token alone, which nobody recalls: keys that a cache of f16 cannot hold would spoil what its group's bounds choose.
cp "$random" "$changed"
read -r at n < <(place token_embd.weight)
put $((at + 449 * 32 * 4)) 32 '\x00\x00\x00\x00'
put $((at + 449 * 32 * 4)) 1 '\x00\x00\x80\x3f'
read -r at n < <(place blk.0.attn_k.weight)
put "$at" 1 '\x00\x1c\x8a\x46' # 17,678
check 'the token is in the text' grep -qw 449 <<<"$("$CCA" tokenize -m "$random" -p "$words")"
use=(-m "$changed" -p "$words" -n 3 --temp 0 -q --attn recall --no-cores -g 4 -w 8 --sinks 4 --recall 4)
expect 1 'keys beyond f16' generate "${use[@]}" -ctk f16 -ctv f16
stderr_has 'tells where' 'overflow in layer 0 of 0 … 1, at position'
stdout_empty 'and writes nothing'
expect 0 'which bf16 holds' generate "${use[@]}" -ctk bf16 -ctv bf16

# ---- yarn divides by the logarithm of theta ----

"$CCA" export tests/golden/models/hf-llama-yarn -q -o "$changed" 2>/dev/null
put $(($(after rope.freq_base) + 4)) 1 '\x00\x00\x80\x3f'
expect 3 'yarn with theta 1' ppl -m "$changed" -p x
stderr_has 'is refused by its key' 'rope.freq_base: yarn needs more than 1'

# ---- names of tensors are compared, not read ----

"$CCA" export --random 32,11,4,2,64,96 --seed 1 -q -o "$work/layers.gguf" 2>/dev/null
for name in blk.01 blk.+9; do
    sed "s/blk\.10\./$name./" "$work/layers.gguf" >"$changed"
    expect 3 "$name is no layer" bench -m "$changed" -p 4 -n 0 -r 1 --no-peaks
    stderr_has 'the one that it is not is missing' 'tensor blk.10.* is missing'
done
