#!/usr/bin/env bash
# Measures how far kinds of attention are from a model with full attention, and what they take; prints the tables.
#
#     quality/distances.sh full=model.gguf:full 'recall 2048=model.gguf:recall:2048' tuned=tuned.gguf:cca
#
# Arguments as tasks.sh has them; the first one's model with full attention is the base. What was measured is kept in
# OUT, so another run goes on from there, and with LIMIT=1 shows what there is.
#
# Environment: LENGTHS in tokens [2048 8192], TEXTS of measure.sh [books code docs french], TOKENS of each [32768],
# DECODE, tokens whose time is taken, 0: none [32]; JOBS, THREADS, DEVICE, LIMIT, OUT, CCA, BOOKS as in tasks.sh.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
unpack_books
mkdir -p "$OUT"
list=$(runs "$@") || exit 1
base=$(head -n 1 <<<"$list" | cut -f2)

# Test, length, text and number of each measurement.
measurements() {
    local length text
    for length in ${LENGTHS:-2048 8192}; do
        for text in ${TEXTS:-books code docs french}; do echo apart "$length" "$text" "${TOKENS:-32768}"; done
        [ "${DECODE:-32}" = 0 ] || echo speed "$length" decode "${DECODE:-32}"
    done
}

each() { # command: it gets label, file, attention, and the four of measurements
    local test length text n label file attention
    measurements | while read -r test length text n; do
        while IFS=$'\t' read -r label file attention; do
            "$1" "$label" "$file" "$attention" "$test" "$length" "$text" "$n"
        done <<<"$list"
    done
}

job() { echo "$4 $2 $3 $5 $6 $7 $base"; }

found() {
    local result
    result=$OUT/$(fingerprint "$2")/$3/$4-$5/$6-$7
    [ ! -f "$result" ] || printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$4" "$5" "$6" "$(cat "$result")"
}

each job >"$OUT/jobs"
lane "${JOBS:-1}" <"$OUT/jobs"
status=$?
[ $status -eq 124 ] && echo "stopped after $LIMIT seconds; what was measured is kept" >&2
each found | awk -f "$here/markdown.awk" -f "$here/distances.awk"
exit $status
