#!/usr/bin/env bash
# Runs test programs (the arguments) over MPI, each with 1, 2, 3 and 4 ranks on this machine, then
# tests/mpi/commands.sh. Shows what fails; a test counts once for each rank. The last line is "N passed, N failed", or tells of
# skipped programs where there is no MPI. CCA names the program, beside which comm_mpi.so lies.
#
#     DEVICE=cuda tests/mpi/run.sh …             # a rank a GPU, as many as there are; over MPI
#     DEVICE=cuda RANKS=nccl tests/mpi/run.sh …  # and over NCCL
set -u
cd "$(dirname "$0")/../.."
export LC_ALL=C.UTF-8 OMP_NUM_THREADS=1
CCA=${CCA:-./cca}
CCA_MPI_FOLDER=$(cd "$(dirname "$CCA")" && pwd)
export CCA CCA_MPI_FOLDER

if ! command -v mpirun >/dev/null || [ ! -f "$CCA_MPI_FOLDER/comm_mpi.so" ]; then
    echo "skip: no mpirun, or a build without MPI (Debian: libopenmpi-dev, openmpi-bin)"
    echo "0 passed, 0 failed, $# skipped"
    exit 0
fi

# Ranks that have a GPU each; commands.sh is the CPU's.
counts='1 2 3 4'
export CCA_TEST_DEVICE=${DEVICE:-cpu} CCA_TEST_RANKS=${RANKS:-mpi}
if [ "$CCA_TEST_DEVICE" = cuda ]; then
    gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU')
    counts=$(seq "$((gpus < 4 ? gpus : 4))")
    if [ "$gpus" = 0 ]; then
        echo 'skip: no GPU'
        echo "0 passed, 0 failed, $# skipped"
        exit 0
    fi
fi

limit=300 # seconds a program may take before it counts as hanging
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Open MPI's mpirun: several ranks a processor, and none tied to one; others know no such options.
options=()
if mpirun --version 2>/dev/null | grep -q 'Open MPI'; then
    options=(--oversubscribe --bind-to none)
    [ "$(id -u)" -ne 0 ] || options+=(--allow-run-as-root)
fi

report() { # name, exit status, passed, failed
    local bad=$4
    [ "$2" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    passed=$((passed + $3)) failed=$((failed + bad))
    printf '%-22s %4d passed, %d failed\n' "$1" "$3" "$bad"
    [ "$bad" -eq 0 ] || { sed 's/^/    /' "$log"; echo "    exit status $2"; }
}

for program in "$@"; do
    for n in $counts; do
        timeout "$limit" mpirun "${options[@]}" -n "$n" "$program" >"$log" 2>&1 </dev/null
        report "$(basename "$program"), $n" $? "$(grep -c '^\[       OK \]' "$log")" \
            "$(grep -c '^\[  FAILED  \] [^0-9]' "$log")"
    done
done
if [ "$CCA_TEST_DEVICE" = cpu ]; then
    MPIRUN="mpirun ${options[*]}" timeout $((2 * limit)) bash tests/mpi/commands.sh >"$log" 2>&1 </dev/null
    report 'commands' $? "$(grep -c '^ok ' "$log")" "$(grep -c '^FAIL ' "$log")"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
