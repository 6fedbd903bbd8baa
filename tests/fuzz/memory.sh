#!/usr/bin/env bash
# Measures what each input of seeds, corpus and of the grown corpora (build/fuzz/corpus or FUZZ_CORPUS)
# takes of memory; the arguments are the programs, one a target. See tests/fuzz/memory.c.
set -u
cd "$(dirname "$0")/../.."
corpus=${FUZZ_CORPUS:-build/fuzz/corpus}
export LC_ALL=C.UTF-8
bad=0
printf '%-14s %7s %8s %7s  %s\n' target inputs peak_mb share 'input of the highest share of its limit'
for program in "$@"; do
    target=${program##*/memory_}
    printf '%-14s ' "$target"
    find "tests/fuzz/seeds/$target" "tests/fuzz/corpus/$target" "$corpus/$target" -type f 2>/dev/null | "$program" || bad=1
done
exit $bad
