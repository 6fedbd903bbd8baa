#!/usr/bin/env bash
# The program's threads under ThreadSanitizer (the folder of that build in $1, build/tsan): unit tests of the teams, the engine,
# session files and devices that fail; then commands of several threads that are interrupted, asked how far they
# are, and read what another one is writing. Any report fails. SHORT=1 leaves out the unit tests that take long.
set -u
cd "$(dirname "$0")/../.."
build=${1:-build/tsan}
export CCA=$build/cca OMP_NUM_THREADS=2
. tests/cli/lib.sh
export TSAN_OPTIONS="exitcode=66 log_path=$work/report"
[ "${SHORT:-0}" = 0 ] && tests=(workers team engine store again near_rows disk_rows store_cache device_faults) ||
    tests=(workers team store again)

# Where memory is laid out in a way that ThreadSanitizer does not know, without randomness.
fixed=()
"$CCA" --version >/dev/null 2>&1 || fixed=(setarch "$(uname -m)" -R)
"${fixed[@]}" "$CCA" --version >/dev/null 2>"$work/err" || { skip 'ThreadSanitizer' "does not run here: $(head -1 "$work/err")"; exit 0; }
quiet() { # name
    local reports
    reports=$(grep -lE '(WARNING|ERROR|FATAL): ThreadSanitizer' "$work"/report.* 2>/dev/null)
    if [ -z "$reports" ]; then pass "$1: no report"; else fail "$1" "$(cat $reports)"; fi
    rm -f "$work"/report.*
}

for name in "${tests[@]}"; do
    timeout 900 "${fixed[@]}" "$build/tests/test_$name" >"$work/out" 2>&1
    code=$?
    # It knows no threads in a process that was forked from one with threads.
    failed=$(grep '^\[  FAILED  \] [^0-9]' "$work/out" | grep -v ' after_fork$')
    check "test_$name: exit $code" grep -q '^\[  PASSED  \]' "$work/out"
    [ -z "$failed" ] || fail "test_$name" "$failed"
    quiet "test_$name"
done

# ---- commands ----

gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
model=$work/model.gguf
"${fixed[@]}" "$CCA" export --random 64,2,4,2,128,640 --seed 1 -q --tokenizer "$work/tokenizer.model" -g 4 -w 64 -o "$model" || exit 2
head -c 20000 examples/paradise-lost.txt >"$work/text"
run=(-m "$model" -t 3 --temp 0 -s 1 --beyond-trained)
generate=("${fixed[@]}" "$CCA" generate "${run[@]}" -f "$work/text" -n 8)
for how in '--attn cca' '--attn recall --recall 64' '--attn recall --recall 64 --rows disk'; do
    # shellcheck disable=SC2086
    "${generate[@]}" $how --session "$work/s.ccas" --checkpoint-every 512 -ub 64 -q >"$work/wanted" 2>"$work/err" &
    pid=$!
    wait_until $pid test -e "$work/s.ccas"
    n=0
    while kill -0 $pid 2>/dev/null; do # readers beside the writer
        "${fixed[@]}" "$CCA" session verify "$work/s.ccas" >"$work/out" 2>&1 || fail "a reader, $how" "$(cat "$work/out")"
        n=$((n + 1))
    done
    wait $pid
    check "writes, $how: exit $?, $n readers" test -s "$work/wanted"
    # shellcheck disable=SC2086
    "${generate[@]}" $how --session "$work/s.ccas" -ub 64 -q >"$work/out" 2>"$work/err"
    check 'goes on to the same text' cmp "$work/out" "$work/wanted"
    rm "$work/s.ccas"
    quiet "$how"
done
for signal in USR1 INT TERM; do
    for moment in 0.3 0.7 1.5; do
        "${generate[@]}" --attn recall --recall 64 -n 2000 --ignore-eos >"$work/out" 2>"$work/err" &
        pid=$!
        sleep $moment
        kill -s "$signal" $pid 2>/dev/null
        [ "$signal" != USR1 ] || { sleep 0.3 && kill -INT $pid 2>/dev/null; }
        wait $pid
        code=$?
        check "SIG$signal after $moment s: exit $code" test "$code" != 66
        quiet "SIG$signal"
    done
done
