#!/usr/bin/env bash
# Measures all of a level that is not measured yet; see plan.sh for the arguments.
#
#     quality/run.sh quick models/cca-books-15m.gguf
#     LIMIT=600 JOBS=4 THREADS=2 LONG=6 quality/run.sh full model.gguf twin=twin.gguf:full
#
# Environment: BOOKS, the archive of held-out books [../shared/data/books-valid.tar.xz]; JOBS at a time
# [1] with THREADS each [0: all]; LONG, threads for full attention on 65,536 tokens and more, which
# then goes beside the other jobs [0: it does not]; LIMIT, seconds after which to stop [0: none]. What
# was finished is kept, so another run goes on from there. Speeds are those of a run with one job.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
unpack_books
mkdir -p "$OUT"
"$here/plan.sh" "$@" >"$OUT/jobs" || exit 1
long='^[a-z]* [^ ]* full (65536|131072) '

if [ "${LONG:-0}" -gt 0 ]; then
    grep -E "$long" "$OUT/jobs" | THREADS=$LONG lane 1 &
    grep -vE "$long" "$OUT/jobs" | lane "${JOBS:-1}"
    status=$?
    wait $! || status=$?
else
    lane "${JOBS:-1}" <"$OUT/jobs"
    status=$?
fi
[ $status -eq 124 ] && echo "stopped after $LIMIT seconds; what was measured is kept" >&2
exit $status
