#!/usr/bin/env bash
# cca export: options, and what it leaves behind.
set -u
. tests/cli/lib.sh

expect 0 'random weights' export --random 32,2,4,2,64,96 --seed 5 -g 8 -w 32 -c 777 -o "$work/a.gguf"
stdout_empty 'standard output stays empty'
stderr_has 'a warning about the tokenizer' 'warning: .*tokenizer'
expect 0 'the same seed' export --random 32,2,4,2,64,96 --seed 5 -g 8 -w 32 -c 777 -q -o "$work/b.gguf"
stderr_empty 'quiet'
check 'gives the same bytes' cmp "$work/a.gguf" "$work/b.gguf"
expect 0 'another seed' export --random 32,2,4,2,64,96 --seed 6 -g 8 -w 32 -c 777 -q -o "$work/b.gguf"
check 'does not' bash -c '! cmp -s "$0" "$1"' "$work/a.gguf" "$work/b.gguf"
expect 0 'info' info "$work/a.gguf" --json
stdout_has 'g and s' '"group_size": 8, "window_size": 32, "sinks": null, "recall": null, "cores": null, "tuned": false'
stdout_has 'trained length' '"trained_length": 777'
stdout_has 'no tokenizer' '"tokenizer": null'
stdout_has 'shape' '"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "vocab_size": 96'
for type in f32 f16 bf16 q8_0 q4_0; do
    expect 0 "type $type" export --random 32,2,4,2,64,96 --type "$type" -q -o "$work/t.gguf"
    expect 0 "type $type is in the file" info "$work/t.gguf" --check
    stdout_has "type $type is counted" "${type^^}: "
    expect 0 "type ${type^^}" export --random 32,2,4,2,64,96 --type "${type^^}" -q -o "$work/u.gguf"
    check 'is the same' cmp "$work/t.gguf" "$work/u.gguf"
    rm "$work/u.gguf"
done

for type in q4_k q5_k q6_k q4_k_m q5_k_m; do
    wide=(export --random 256,2,2,1,288,40 -s 3)
    expect 0 "type $type" "${wide[@]}" --type "$type" -o "$work/t.gguf" -t 1
    stderr_has 'rows that do not fit get another' '^warning: [0-9] tensors have rows that are no multiple of 256 and become q[58]_[01]$'
    expect 0 "type $type is in the file" info "$work/t.gguf" --check
    stdout_has 'beside others' "$(tr a-z A-Z <<<"${type%_m}"): .*Q[58]_[01]: |Q[58]_[01]: .*$(tr a-z A-Z <<<"${type%_m}"): |Q6_K: "
    expect 0 'upper case, two threads' "${wide[@]}" --type "${type^^}" -q -o "$work/u.gguf" -t 2
    check 'the same bytes' cmp "$work/t.gguf" "$work/u.gguf"
    expect 0 'exported without a type' export "$work/t.gguf" -q -o "$work/u.gguf"
    types() { "$CCA" info "$1" --json --tensors | tr '{' '\n' | grep -o '^"name": "[^"]*", "type": "[^"]*"'; }
    check 'keeps them' test "$(types "$work/t.gguf")" = "$(types "$work/u.gguf")"
    expect 0 'it runs' bench -m "$work/t.gguf" -p 8 -n 2 -r 1 --no-peaks -q
    rm "$work/u.gguf"
done
expect 2 'no such type' export --random 32,2,4,2,64,96 --type q3_k -o "$work/c.gguf"
stderr_has 'says which there are' 'type q3_k: none of f32.*q5_k_m'

expect 2 'no output' export --random 32,2,4,2,64,96
expect 2 'no input' export -o "$work/c.gguf"
expect 2 'both inputs' export "$work" --random 32,2,4,2,64,96 -o "$work/c.gguf"
expect 2 'a shape with a number missing' export --random 32,2,4,2,64 -o "$work/c.gguf"
expect 2 'a shape with a number too many' export --random 32,2,4,2,64,96,1 -o "$work/c.gguf"
expect 2 'a shape with a zero' export --random 32,2,0,2,64,96 -o "$work/c.gguf"
expect 2 's no multiple of g' export --random 32,2,4,2,64,96 -g 5 -w 32 -o "$work/c.gguf"
expect 3 'a missing source' export "$work/none" -o "$work/c.gguf"
stderr_has 'names it' "$work/none"
expect 7 'a folder that is not there' export --random 32,2,4,2,64,96 -o "$work/none/c.gguf"
check 'failures leave nothing' bash -c 'test "$(ls "$0")" = "$1"' "$work" "$(printf '%s\n' a.gguf b.gguf err out t.gguf)"

# A folder whose files an editor has touched, and one that was cloned without git-lfs.
cp -r tests/golden/models/hf-text-llama3 "$work/hf" && chmod -R u+w "$work/hf"
for lead in '\n' ' \r\n' '\357\273\277'; do
    for file in tokenizer.json config.json; do
        { printf "$lead"; cat "tests/golden/models/hf-text-llama3/$file"; } >"$work/hf/$file"
    done
    expect 0 'JSON behind white space or a byte order mark' export "$work/hf" -q -o "$work/c.gguf"
done
for file in tokenizer.json model.safetensors; do
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n' >"$work/hf/$file"
    expect 3 'a Git LFS pointer' export "$work/hf" -q -o "$work/c.gguf"
    stderr_has 'is told' "(safetensors|json): is a Git LFS pointer in place of the file; git lfs pull"
done
