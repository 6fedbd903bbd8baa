#!/usr/bin/env bash
# cca selftest: a line a check, the record, and exit 3 where a model gives no numbers.
set -u
. tests/cli/lib.sh
command -v jq >/dev/null || { skip "cca selftest" "no jq here"; exit; }

make_random 64,2,4,2,96,120 --type bf16 || { fail 'export --random'; exit; }
expect 0 'a selftest' selftest -m "$random" -t 2
stderr_empty 'is quiet on standard error'
stdout_has 'no numbers' '^ok +generic: values that are no numbers stay so +the same bits$'
stdout_has 'kernels' '^ok +generic: which keys are seen +[0-9.e-]+, at most 5e-06$'
variants=$(sed -nE 's/^(ok|failed) +([a-z0-9]+): .*/\2/p' "$work/out" | grep -v model | sort -u)
check 'generic and the machine.s own' grep -q generic <<<"$variants"
if grep -q avx2 /proc/cpuinfo; then check 'AVX2' grep -q avx2 <<<"$variants"; fi
for variant in $variants; do
    for what in 'products with q8_0 weights' 'products with q4_k weights' 'cores and window, bf16 cache' \
        'recall, bf16 cache' 'which groups are recalled'; do
        stdout_has "$variant: $what" "^ok +$variant: $what "
    done
done
stdout_has 'the definition' '^ok +model, [a-z0-9]+: g = 1 against full attention '
stdout_has 'threads' '^ok +model, [a-z0-9]+: 3 threads against one +the same bits$'
stdout_has 'variants' '^ok +model, generic: against plain '
stdout_has 'the other device' '^(ok|skipped) +model: CPU against a GPU '
check 'the last line counts them' test "$(tail -1 "$work/out")" = \
    "$(grep -c '^ok ' "$work/out") passed, 0 failed, $(grep -c '^skipped ' "$work/out") skipped"

expect 0 'a record' selftest -m "$random" --device cpu --json
check 'counts the checks' test "$(jq '(.checks | length) == .passed + .skipped and .failed == 0' "$work/out")" = true
check 'has the differences' test "$(jq '[.checks[] | select(.status == "ok") | .difference <= .bound] | all' "$work/out")" = true
check 'says what was skipped' test "$(jq -r '.checks[] | select(.status == "skipped") | .skipped' "$work/out" | tail -1)" = '--device cpu'

# No-numbers in place of the last tensor's values.
size=$(stat -c %s "$random")
cp "$random" "$work/bad.gguf"
head -c 64 /dev/zero | tr '\0' '\377' | dd of="$work/bad.gguf" bs=1 seek=$((size - 64)) conv=notrunc status=none
expect 3 'a model that gives no numbers' selftest -m "$work/bad.gguf"
stderr_has 'is named, and the tensor' 'bad.gguf: tensor output.weight, row [0-9]+: a weight is no finite number'
expect 3 'the same as a record' selftest -m "$work/bad.gguf" --json

expect 3 'no model' selftest -m "$work/none.gguf"
expect 2 'an unknown device' selftest -m "$random" --device tpu
stdout_empty 'before any check'
expect 2 '8-bit floats' selftest -m "$random" --fp8
expect 2 'too many threads' selftest -m "$random" -t 4000
