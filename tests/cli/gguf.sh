#!/usr/bin/env bash
# GGUF files of mixed types: they run, export keeps their bits, and converts what does not run.
set -u
. tests/cli/lib.sh

# A path that a shell would cut into two.
tiny="$work/a model.gguf"
cp tests/golden/kquants/tiny.gguf "$tiny"
printf '1 2 3 4 5 6 7 8 9' >"$work/ids"

# Many tokens are multiplied in f32 where nothing is rounded, so nothing but the numbers that weights stand for matters.
expect 0 'a mixture of types runs as it is' ppl -m "$tiny" --ids "$work/ids" --nll-out "$work/nll" -q
expect 0 'without a type all are kept' export "$tiny" -q -o "$work/kept.gguf"
ppl_of() { "$CCA" ppl -m "$1" --ids "$work/ids" --nll-out "$work/other" -q >/dev/null; }
check 'and give the same bits' eval 'ppl_of "$work/kept.gguf" && cmp "$work/nll" "$work/other"'
expect 0 'in f32' export "$tiny" -q --type f32 -o "$work/f32.gguf"
ppl_of "$work/f32.gguf"
while read -r number _ wanted <&3 && read -r _ _ got <&4; do
    is_about "number $number: the same" "$got" "$wanted" 3e-3
done 3<"$work/nll" 4<"$work/other"

# A norm in 16 bits: its type is changed in place, behind name, number of dimensions and dimension.
at=$(grep -abo 'output_norm.weight' "$tiny" | head -1 | cut -d: -f1)
printf '\001' | dd of="$tiny" bs=1 seek=$((at + 18 + 4 + 8)) conv=notrunc 2>/dev/null
expect 3 'a norm in 16 bits' ppl -m "$tiny" --ids "$work/ids"
stderr_has 'names tensor and type' 'tensor output_norm.weight has type F16'
command=$(sed -n "s/.*convert the file: cca \(.*\)/\1/p" "$work/err")
check 'gives a command' test "$command" = "export '$tiny' --type q8_0 -o '$work/a model-q8_0.gguf'"
check 'that works as it is' bash -c "'$CCA' $command -q"
expect 0 'the result has norms in f32' info "$work/a model-q8_0.gguf" --json
stdout_has 'and nothing of the others' '"types": {"Q8_0": {[^}]*}, "F32": {[^}]*}}'
expect 0 'without a type' export "$tiny" -q -g 4 -w 16 -o "$work/b.gguf"
expect 0 'norms become f32' info "$work/b.gguf" --json
stdout_has 'g and s are in the file' '"group_size": 4, "window_size": 16'
stdout_has 'the name is kept' '"name": "tiny"'
expect 0 'another type' export "$tiny" -q --type f32 -o "$work/c.gguf"
expect 0 'checksums are made anew' info "$work/c.gguf" --check
expect 2 'input and output are one' export "$work/c.gguf" -o "$work/c.gguf"
head -c 20000 "$tiny" >"$work/cut.gguf"
expect 3 'a truncated file' export "$work/cut.gguf" -o "$work/d.gguf"
stderr_has 'says so' 'cut.gguf.*truncated'
check 'and leaves nothing' test ! -e "$work/d.gguf"
