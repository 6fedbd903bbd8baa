#!/usr/bin/env bash
# Runs fuzz targets (the arguments: the programs), two at a time, each for FUZZ_SECONDS. Inputs
# start from tests/fuzz/seeds and are kept in build/fuzz/corpus or FUZZ_CORPUS. What is found lies
# in the same folder's findings; the table at the end says how much was tried.
set -u
cd "$(dirname "$0")/../.."
seconds=${FUZZ_SECONDS:-60}
corpus=${FUZZ_CORPUS:-build/fuzz/corpus}
mkdir -p "$corpus/logs" "$corpus/findings"

# An input that decompresses may become a thousand times as large before it is counted.
max_len() { # target
    case $1 in
    input) echo 16384 ;;
    args | bpe | sentencepiece | session) echo 8192 ;;
    *) echo 65536 ;;
    esac
}

fuzz() { # program
    local target=${1##*/fuzz_}
    mkdir -p "$corpus/$target"
    "$1" -max_total_time="$seconds" -max_len="$(max_len "$target")" -timeout=10 \
        -rss_limit_mb=1024 -malloc_limit_mb=256 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="$corpus/findings/$target-" \
        "$corpus/$target" "tests/fuzz/seeds/$target" >"$corpus/logs/$target" 2>&1
    echo $? >"$corpus/logs/$target.status"
}

for program in "$@"; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    fuzz "$program" &
done
wait

findings=0
printf '%-16s %12s %9s %9s %9s\n' target executions seconds coverage findings
for program in "$@"; do
    target=${program##*/fuzz_}
    log=$corpus/logs/$target
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    took=$(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "$log")
    covered=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
    bad=0
    if [ "$(cat "$log.status")" -ne 0 ]; then
        bad=1 findings=$((findings + 1))
    fi
    printf '%-16s %12s %9s %9s %9s\n' "$target" "${executions:--}" "${took:--}" "${covered#cov: }" "$bad"
done
[ "$findings" -eq 0 ] || { echo "see $corpus/findings and $corpus/logs"; exit 1; }
