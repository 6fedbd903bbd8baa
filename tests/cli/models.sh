#!/usr/bin/env bash
# Model files that are missing, damaged, or without a tokenizer: exit 3 and a message.
set -u
. tests/cli/lib.sh

expect 3 'a missing file' generate -m "$work/none.gguf" -p x
stderr_has 'names it' 'none\.gguf'
expect 3 'a directory' generate -m "$work" -p x
: >"$work/empty.gguf"
expect 3 'an empty file' generate -m "$work/empty.gguf" -p x
head -c 100000 /dev/urandom >"$work/noise.gguf"
expect 3 'random bytes' generate -m "$work/noise.gguf" -p x
expect 3 'random bytes, info' info "$work/noise.gguf"
stdout_empty 'nothing on standard output'

mkdir "$work/other"
printf '{"model_type": "gemma2"}' >"$work/other/config.json"
expect 3 'a folder of another model type' export "$work/other" -o "$work/never.gguf"
stderr_has 'says what is missing' "config.json: model_type 'gemma2' is not supported: it needs gelu"

make_random 32,2,4,2,64,128 || { fail 'export --random'; exit; }
pass 'export --random'
size=$(stat -c %s "$random")
ok=1
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    head -c $((size * i / 13)) "$random" >"$work/cut.gguf"
    cca info "$work/cut.gguf"
    [ "$code" = 3 ] && grep -q 'cut\.gguf' "$work/err" || ok=0
done
check 'truncated files' test "$ok" = 1

expect 3 'no tokenizer: generate' generate -m "$random" -p x
stderr_has 'says so' 'has no tokenizer'
expect 3 'no tokenizer: ppl of a text' ppl -m "$random" -p x
expect 3 'no tokenizer: tokenize' tokenize -m "$random" -p x
seq 1 100 >"$work/ids"
expect 0 'no tokenizer: ppl of ids' ppl -m "$random" --ids "$work/ids"

expect 0 'the model from CCA_MODEL' ppl --ids "$work/ids" -m "$random" --json
signature=$(grep -o '"signature": "[^"]*"' "$work/out")
CCA_MODEL=$random expect 0 'CCA_MODEL' ppl --ids "$work/ids" --json
stdout_has 'gives the same numbers' "$(printf '%s' "$signature" | sed 's/[][\.*^$]/\\&/g')"

expect 0 'checksums hold' info "$random" --check
stdout_has 'and are reported' 'checksums +ok'
cp "$random" "$work/bad.gguf"
printf 'X' | dd of="$work/bad.gguf" bs=1 seek=$((size - 5)) conv=notrunc status=none
expect 8 'a changed byte' info "$work/bad.gguf" --check
stderr_has 'names the tensor' 'bad\.gguf.*(weight|output|blk)'
expect 0 'info alone reads no weights' info "$work/bad.gguf" --json
