#!/usr/bin/env bash
# GGUF files as input of export: types that do not run, and the way to one that does.
set -u
. tests/cli/lib.sh

# A path that a shell would cut into two.
tiny="$work/a model.gguf"
cp tests/golden/kquants/tiny.gguf "$tiny"
printf '1 2 3 4 5 6 7 8 9' >"$work/ids"

expect 3 'a type that only export reads' ppl -m "$tiny" --ids "$work/ids"
stderr_has 'names tensor and type' 'tensor token_embd.weight has type Q5_1'
command=$(sed -n "s/.*convert the file: cca \(.*\)/\1/p" "$work/err")
check 'gives a command' test "$command" = "export '$tiny' --type q8_0 -o '$work/a model-q8_0.gguf'"
check 'that works as it is' bash -c "'$CCA' $command -q"
expect 0 'the result runs' ppl -m "$work/a model-q8_0.gguf" --ids "$work/ids" -q
expect 0 'without a type' export "$tiny" -q -g 4 -w 16 -o "$work/b.gguf"
expect 0 'what does not run becomes q8_0' info "$work/b.gguf" --json
stdout_has 'g and s are in the file' '"group_size": 4, "window_size": 16'
stdout_has 'the name is kept' '"name": "tiny"'
expect 0 'another type' export "$tiny" -q --type f32 -o "$work/c.gguf"
expect 0 'checksums are made anew' info "$work/c.gguf" --check
expect 2 'input and output are one' export "$work/c.gguf" -o "$work/c.gguf"
head -c 20000 "$tiny" >"$work/cut.gguf"
expect 3 'a truncated file' export "$work/cut.gguf" -o "$work/d.gguf"
stderr_has 'says so' 'cut.gguf.*truncated'
check 'and leaves nothing' test ! -e "$work/d.gguf"
