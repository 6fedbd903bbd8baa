#!/usr/bin/env bash
# Keeps of what fuzzing found in build/fuzz/corpus (or FUZZ_CORPUS) the fewest inputs that reach
# what tests/fuzz/seeds do not, the smallest first, in tests/fuzz/corpus: up to 20 KB a target. The
# arguments are the programs.
set -u
cd "$(dirname "$0")/../.." || exit
corpus=${FUZZ_CORPUS:-build/fuzz/corpus}
most=20000
for program in "$@"; do
    target=${program##*/fuzz_}
    kept=tests/fuzz/corpus/$target chosen=$(mktemp -d)
    cp "tests/fuzz/seeds/$target"/* "$chosen"
    mkdir -p "$corpus/$target" "$corpus/logs"
    cp -n "$kept"/* "$corpus/$target" 2>/dev/null
    "$program" -set_cover_merge=1 -use_counters=0 -rss_limit_mb=4096 "$chosen" "$corpus/$target" \
        >"$corpus/logs/$target.keep" 2>&1 || echo "$target: see $corpus/logs/$target.keep"
    for seed in "tests/fuzz/seeds/$target"/*; do rm -f "$chosen/${seed##*/}"; done
    rm -rf "$kept" && mkdir -p "$kept"
    total=0
    while read -r size name; do
        total=$((total + size))
        [ $total -le $most ] && cp "$chosen/$name" "$kept/${name:0:12}"
    done < <(find "$chosen" -type f -printf '%s %f\n' | sort -n)
    rm -rf "$chosen"
    echo "$target: $(find "$kept" -type f | wc -l) inputs, $(cat "$kept"/* | wc -c) of $total bytes"
done
