#!/usr/bin/env bash
# make cuda-check: compiles each CUDA file for each target and prints registers, shared memory and
# spilled bytes of each kernel. Fails where an attention kernel (cca_cuda.cu, attend_*.cu, choose.cu,
# pool.cu) spills, or where the compiler says that it serialised wgmma or ignored setmaxnreg. Needs nvcc, but
# no GPU.
set -u
cd "$(dirname "$0")/.."
[ -n "${NVCC:-}" ] || { echo "cuda-check: no nvcc found" >&2; exit 1; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bad=0

targets() { # of a file: wgmma lives in sm_90a code only
    case $1 in
    *_sm90.cu) echo "arch=compute_90a,code=sm_90a" ;;
    */token.cu) echo "arch=compute_90,code=[sm_90,compute_90]" ;;
    *) echo "$GENCODE" ;;
    esac
}

report() { # ptxas' log on standard input
    c++filt | awk -v file="$1" '
        /Compiling entry function/ { gsub("\047", ""); target = $NF; sub(/ for [^ ]*$/, ""); sub(/.*function /, ""); name = $0 }
        /spill stores/ { stack = $1; spill = $5 + $9 }
        /Used [0-9]+ registers/ {
            shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH) + 0 : 0
            sub(/\([^<>]*$/, "", name); sub(/^void /, "", name)
            for (i = 1; i <= NF; i++) if ($i == "Used") registers = $(i + 1)
            printf "%-18s %-9s %4d %7d %6d %6d  %s\n", file, target, registers, shared, stack, spill, name
            if (spill > 0 && file ~ /cca_cuda|\/attend_|\/choose|\/pool/) bad = 1
        }
        END { exit bad }'
}

printf '%-18s %-9s %4s %7s %6s %6s  %s\n' file target regs shared stack spills kernel
for file in *.cu backend/cuda/*.cu; do
    if [[ $file == */comm_nccl.cu && -z ${NCCL:-} ]]; then
        echo "skip $file: no nccl.h"
        continue
    fi
    flags=()
    for code in $(targets "$file"); do flags+=(-gencode "$code"); done
    # shellcheck disable=SC2086
    if ! "$NVCC" $FLAGS "${flags[@]}" -Xptxas -v -c -o "$out/object" "$file" >"$out/log" 2>&1; then
        cat "$out/log"
        bad=1
        continue
    fi
    report "$file" <"$out/log" || { echo "$file: an attention kernel spills registers"; bad=1; }
    if grep -iE 'serializ|C75[01][0-9]|ignored' "$out/log"; then
        echo "$file: the compiler serialised or ignored instructions"
        bad=1
    fi
done
exit "$bad"
