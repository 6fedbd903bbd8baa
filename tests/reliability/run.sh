#!/usr/bin/env bash
# All promises of docs/RELIABILITY.md, one after the other: a line each, "ok NAME: what it told (SECONDS s)", FAIL or
# skip, its log in build/reliability/NAME.log; the last line is "N promises kept, N broken, N skipped".
# The exit status is 1 where one is broken. What has passed for these sources is not run again; so an
# interrupted run goes on. SHORT=1 takes a few minutes instead of two hours. Arguments name
# some of them. FUZZ_SECONDS for each fuzz target (300).
set -u
cd "$(dirname "$0")/../.."
export CCA=${CCA:-./cca} MAKEFLAGS=""
logs=${LOGS:-build/reliability}
[ "${SHORT:-0}" = 0 ] && long=1 passed=passed || { long= passed=passed-short; }
[ -n "$long" ] && unset SHORT || export SHORT=1
mkdir -p "$logs"

built=$(cat "build/from-${CCA##*/}" 2>/dev/null || echo build/release)
make=(make --no-print-directory -j"$(nproc)" BUILD="$built" BIN="${CCA#./}")
# What is to be there before a test runs, and then the test.
build() { # targets and variables
    "${make[@]}" "$@" >"$log.build" 2>&1 || { tail -20 "$log.build"; echo 'FAIL build'; return 1; }
}
sanitized=-fno-sanitize-recover=all
tsan=(BUILD=build/tsan BIN=build/tsan/cca OPT='-O1 -g' EXTRA=-fsanitize=thread MPI=)
tsan_tests=(workers team engine store again near_rows disk_rows store_cache device_faults)
run_kills() { tests/reliability/kills.sh; }
run_load() { tests/reliability/load.sh; }
run_memory() { tests/reliability/memory.sh; }
run_hostile() { bash tests/reliability/hostile.sh; }
run_devices() { build "$built/tests/reliability/devices" && bash tests/reliability/devices.sh "$built/tests/reliability/devices"; }
run_crash() { build "$built/tests/crash/crash" && tests/crash/run.sh "$built/tests/crash/crash"; }
run_old() { bash tests/cli/old_files.sh; }
run_threads() {
    echo 'int main(void) { return 0; }' | ${CC:-gcc} -fsanitize=thread -xc -o "$logs/tsan" - 2>/dev/null ||
        { echo 'skip threads: no ThreadSanitizer'; return; }
    build "${tsan[@]}" build/tsan/cca "${tsan_tests[@]/#/build/tsan/tests/test_}" && tests/reliability/threads.sh build/tsan
}
run_calls() { sweep eio enospc eintr short; }
run_allocations() { sweep memory; }
sweep() { # kinds
    build BUILD=build/sweep OPT='-O1 -g' EXTRA="-fsanitize=address,undefined $sanitized" build/sweep/tests/alloc/sweep &&
        tests/alloc/run.sh build/sweep/tests/alloc/sweep "$@"
}
run_fuzz() {
    command -v clang++ >/dev/null || { echo 'skip fuzz: no clang'; return; }
    build fuzz-programs && FUZZ_SECONDS=${FUZZ_SECONDS:-300} tests/fuzz/run.sh $(find build/fuzz -maxdepth 1 -name 'fuzz_*' -executable | sort)
}
all=(hostile old kills load memory devices crash threads calls allocations fuzz)
# Those that need a build of their own, or the sanitizers, are not for minutes.
[ -n "$long" ] || all=(hostile old kills load memory devices crash)

# Of what a promise is told: the last line, or how many checks there were.
summary() {
    local checks
    checks=$(grep -cE '^(ok|FAIL|skip) ' "$log")
    if [ "$checks" -gt 0 ]; then
        echo "$(grep -c '^ok ' "$log") checks, $(grep -c '^FAIL ' "$log") wrong$(tail -1 "$log" | grep -vE '^(ok|FAIL|skip) ' | sed 's/^/; /')"
    else
        echo "$(grep -c . "$log") lines; $(tail -1 "$log")"
    fi
}
state=$({ find . \( -name build -o -name .git \) -prune -o -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.sh' -o -name Makefile \) -print0 |
    sort -z | xargs -0 cat; "$CCA" --version; } | cksum | tr ' ' -)

kept=0 broken=0 skipped=0
[ $# -gt 0 ] || set -- "${all[@]}"
for name; do
    log=$logs/$name.log
    if [ "$(cat "$logs/$name.$passed" 2>/dev/null)" = "$state" ]; then
        echo "ok $name: $(summary) (before)"
        kept=$((kept + 1))
        continue
    fi
    begin=$SECONDS
    ("run_$name") >"$log" 2>&1 </dev/null
    status=$?
    took="($((SECONDS - begin)) s)"
    if [ $status != 0 ]; then
        broken=$((broken + 1))
        echo "FAIL $name: $(summary) $took, see $log"
        grep -A5 '^FAIL ' "$log" | head -30
    elif ! grep -qv '^skip ' "$log"; then
        skipped=$((skipped + 1))
        echo "skip $name: $(sed 's/^skip [^:]*: //' "$log" | head -1)"
    else
        kept=$((kept + 1))
        echo "$state" >"$logs/$name.$passed"
        echo "ok $name: $(summary) $took"
    fi
done
echo "$kept promises kept, $broken broken, $skipped skipped"
[ $broken = 0 ]
