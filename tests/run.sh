#!/usr/bin/env bash
# Runs unit test programs (the arguments), then each tests/cli/*.sh. Shows what fails; the last
# line is "N passed, N failed", with ", N skipped" where some were. CCA names the program that
# the CLI tests run.
set -u
cd "$(dirname "$0")/.."
export CCA=${CCA:-./cca} LC_ALL=C.UTF-8
unset CCA_MODEL NO_COLOR

limit=1800 # seconds a program may take before it counts as hanging
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

count() { # lines of the log that match
    grep -cE "$1" "$log"
}

# Adds one program's numbers. A program that ends badly without naming a failed test is one.
add() { # name, exit status, passed, failed, skipped
    local bad=$4
    [ "$2" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    passed=$((passed + $3)) failed=$((failed + bad)) skipped=$((skipped + $5))
    printf '%-28s %4d passed, %d failed, %d skipped\n' "$1" "$3" "$bad" "$5"
    if [ "$bad" -gt 0 ]; then
        sed 's/^/    /' "$log"
        echo "    exit status $2"
    else
        grep -E '^(SKIP|skip) ' "$log" | sed 's/^/    /'
    fi
}

# A test that cannot run says "SKIP name: why" and then either calls skip() or returns.
for program in "$@"; do
    timeout "$limit" "$program" >"$log" 2>&1
    status=$?
    said=$(count '^SKIP ')
    told=$(count '^\[  SKIPPED \] [^0-9]')
    skips=$((said > told ? said : told))
    ok=$(($(count '^\[       OK \]') - (said > told ? said - told : 0)))
    add "$(basename "$program")" "$status" "$ok" "$(count '^\[  FAILED  \] [^0-9]')" "$skips"
done

for script in tests/cli/*.sh; do
    [ "$script" = tests/cli/lib.sh ] && continue
    timeout "$limit" bash "$script" >"$log" 2>&1 </dev/null
    status=$?
    add "$(basename "$script")" "$status" "$(count '^ok ')" "$(count '^FAIL ')" "$(count '^skip ')"
done

if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ]
