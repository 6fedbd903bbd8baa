#!/usr/bin/env bash
# Runs fuzz targets (the arguments: the programs, of one build or of several), FUZZ_JOBS processes at
# a time (2), each for FUZZ_SECONDS (60). Where there are more jobs than programs each program runs
# several times, with seeds of its own; all processes of a target share what they find. Inputs
# start from tests/fuzz/seeds and tests/fuzz/corpus and are kept in build/fuzz/corpus or FUZZ_CORPUS.
# What is found lies in the same folder's findings, and the process goes on behind it.
#
# A line a target: executions, executions a second of one process, features reached, findings. Those
# of all runs are added up in build/fuzz/executions. The last line is "N executions, M findings".
# No compiler is needed where the programs are there.
set -u
cd "$(dirname "$0")/../.." || exit
seconds=${FUZZ_SECONDS:-60} jobs=${FUZZ_JOBS:-2}
corpus=${FUZZ_CORPUS:-build/fuzz/corpus}
# Freed memory that is kept to see late uses of it: less than usual, which fills 256 MB with what a long text takes.
export ASAN_OPTIONS=quarantine_size_mb=64
tally=build/fuzz/executions
copies=$(((jobs + $# - 1) / $#))
mkdir -p "$corpus/findings" build/fuzz
rm -rf "$corpus/logs" && mkdir -p "$corpus/logs"

# An input that decompresses may become a thousand times as large before it is counted.
max_len() { # target
    case $1 in
    input | template) echo 16384 ;;
    args | blocks | bpe | sentencepiece | session) echo 8192 ;;
    *) echo 65536 ;;
    esac
}

# Of the numbers behind a word in logs.
sum() { # log..., word
    cat "${@:1:$#-1}" | sed -n "s/^${!#} *\([0-9]*\).*/\1/p" | awk '{ n += $1 } END { print n + 0 }'
}

# Behind a finding it goes on, five times at most.
fuzz() { # program, number of the process
    local target=${1##*/fuzz_} end=$((SECONDS + seconds)) tries=0
    local log=$corpus/logs/$target.$2 known=() on=()
    # A processor of its own: readers that would share their work among threads do it alone.
    taskset -c $(($2 % $(nproc))) true 2>/dev/null && on=(taskset -c $(($2 % $(nproc))))
    for folder in "tests/fuzz/seeds/$target" "tests/fuzz/corpus/$target"; do
        [ -d "$folder" ] && known+=("$folder")
    done
    mkdir -p "$corpus/$target"
    while [ $SECONDS -lt $end ] && [ $tries -lt 5 ]; do
        "${on[@]}" "$1" -max_total_time=$((end - SECONDS)) -max_len="$(max_len "$target")" -timeout=10 \
            -rss_limit_mb=2048 -malloc_limit_mb=256 -print_final_stats=1 -seed=$((RANDOM * 32768 + RANDOM + 1)) \
            -artifact_prefix="$corpus/findings/$target-" \
            "$corpus/$target" "${known[@]}" >>"$log" 2>&1 && break
        tries=$((tries + 1))
        echo 'run.sh: a finding' >>"$log"
    done
    echo "$target $(sum "$log" stat::number_of_executed_units:)" >>"$tally"
}

number=0
for ((copy = 0; copy < copies; copy++)); do
    for program in "$@"; do
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
        number=$((number + 1))
        fuzz "$program" $number &
    done
done
wait

all=0 findings=0
printf '%-14s %12s %10s %9s %9s\n' target executions a_second features findings
for target in $(printf '%s\n' "${@##*/fuzz_}" | sort -u); do
    logs=("$corpus/logs/$target".*)
    executions=$(sum "${logs[@]}" stat::number_of_executed_units:)
    took=$((${#logs[@]} * seconds))
    features=$(cat "${logs[@]}" | grep -ao ' ft: [0-9]*' | awk '$2 > n { n = $2 } END { print n + 0 }')
    bad=$(cat "${logs[@]}" | grep -c '^run.sh: a finding')
    printf '%-14s %12s %10s %9s %9s\n' "$target" "$executions" $((executions / took)) "$features" "$bad"
    all=$((all + executions)) findings=$((findings + bad))
done
awk '{ n[$1] += $2; all += $2 } END { for (t in n) print t, n[t]; print all >"/dev/stderr" }' "$tally" \
    2>"$tally.all" | sort >"$tally.new" && mv "$tally.new" "$tally"
echo "in all runs here: $(cat "$tally.all")"
[ $findings -eq 0 ] || echo "see $corpus/findings and $corpus/logs"
echo "$all executions, $findings findings"
[ $findings -eq 0 ]
