#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: correctness of the CUDA backend, then its speed.
#
#     tests/gpu.sh                      # everything, with the programs that make builds
#     tests/gpu.sh check model          # some sections
#     BIN=folder tests/gpu.sh ops       # with cca, test_cuda, bench_cuda from a folder
#
# check     each operation against the CPU (tests/unit/test_cuda.c)
# model     logits and greedy text against the CPU backend, chunk sizes, the same bits twice
# sanitize  compute-sanitizer's tools over a short run
# ops       times of single operations
# bench     models of 7B and 8B random weights: prefill and decode at depth, CCA and full attention
# torch     PyTorch's attention and the GPU's ceilings, with the python3 in PATH
set -u
cd "$(dirname "$0")/.."
work=${WORK:-$(mktemp -d)}
limit=${LIMIT:-300} # seconds of a section's longest step
failed=0
export LC_ALL=C.UTF-8

say() { printf '\n== %s\n' "$*"; }
try() { # name, command or function: tells how it went
    local name=$1 start=$SECONDS
    shift
    if if declare -F "$1" >/dev/null; then "$@"; else timeout "$limit" "$@"; fi; then
        echo "ok $name ($((SECONDS - start)) s)"
    else
        echo "FAIL $name: exit status $? ($((SECONDS - start)) s)"
        failed=$((failed + 1))
    fi
}

if [ -z "${BIN:-}" ]; then
    make -s -j"$(nproc)" cca build/release/tests/test_cuda build/release/tests/bench_cuda || exit 1
    BIN=build/release/tests
    ln -sf "$PWD/cca" "$BIN/cca"
fi
cca=$BIN/cca
ship=models/cca-books-15m.gguf

check() { try 'each operation' "$BIN/test_cuda"; }

vocabulary=4096 # of the model that ships

# Compares two files of logits (rows of the vocabulary): their distance, and whether the greedy
# token is the same wherever the first one's lead is more than twice the row's largest difference.
compare() { # name, file, file, bound
    try "$1" awk -v bound="$4" -v size=$vocabulary -v name="$1" '
        FNR == 1 { part++ }
        part == 1 { a[n++] = $1; next }
        {
            i = k++
            x = a[i]; gap = $1 - x; d += gap * gap; s += x * x
            if (gap < 0) gap = -gap
            if (i % size == 0) { worst = 0; first = second = top = -1e30 }
            if (gap > worst) worst = gap
            if (x > first) { second = first; first = x; best = i } else if (x > second) second = x
            if ($1 > top) { top = $1; mine = i }
            if (k % size == 0 && first - second > 2 * worst && best != mine) wrong++
        }
        END {
            r = s > 0 ? sqrt(d / s) : 1
            printf "%s: distance %.2e over %d logits, %d greedy tokens wrong\n", name, r, k, wrong
            exit !(k > 0 && k == n && r < bound && wrong == 0)
        }' <(od -An -v -w4 -tf4 "$2") <(od -An -v -w4 -tf4 "$3")
}

logits() { # file to write, cca options
    local out=$1
    shift
    "$cca" ppl -q -f docs/CLI.md --tokens 300 -w 64 --logits-out "$out" "$@" >/dev/null
}

greedy() { # device
    "$cca" generate -m $ship -p 'It was a dark night, and the captain' -n 200 --temp 0 -q --device "$1"
}

model() {
    local chunk
    greedy cpu >"$work/cpu.txt"
    greedy cuda >"$work/gpu.txt"
    greedy cuda >"$work/again.txt"
    cmp "$work/cpu.txt" "$work/gpu.txt" && echo 'greedy text is the same on CPU and GPU'
    try 'greedy text twice' cmp "$work/gpu.txt" "$work/again.txt"
    logits "$work/cpu" -m $ship --device cpu
    for chunk in 1 7 64 300; do
        logits "$work/gpu" -m $ship --device cuda -ub "$chunk"
        compare "logits in chunks of $chunk" "$work/cpu" "$work/gpu" 2e-2
    done
    logits "$work/again" -m $ship --device cuda -ub 300
    try 'logits twice' cmp "$work/gpu" "$work/again"
    logits "$work/gpu" -m $ship --device cuda -ub 300 --fp8
    compare 'logits with --fp8' "$work/cpu" "$work/gpu" 2e-1
}

# Runs a sanitizer's tool. Races inside cuBLASLt's own kernels (nvjet) are told and not counted: left
# out with --kernel-name-exclude, they make the tool itself fail.
sanitized() { # tool, command
    local tool=$1 status
    shift
    timeout "$limit" compute-sanitizer --tool "$tool" --error-exitcode 9 "$@" >"$work/sanitizer" 2>&1
    status=$?
    cat "$work/sanitizer"
    [ $status != 9 ] || [ "$tool" != racecheck ] || {
        grep -qE 'Internal Sanitizer Error|Race reported' "$work/sanitizer" &&
            ! grep -A 1 -E 'Internal Sanitizer Error|Race reported' "$work/sanitizer" |
                grep -vE '^--$|nvjet_' >/dev/null && status=0
    }
    return $status
}

# 2000 tokens of two layers, a window and cores, many rows and one.
sanitize() {
    local tool small=$work/small
    "$cca" export --random 512,2,4,2,1024,1000 --type q8_0 -o "$small-q8_0" -q
    "$cca" export --random 512,2,8,4,1024,1000 --type bf16 -o "$small-bf16" -q
    for tool in ${TOOLS:-memcheck racecheck initcheck synccheck}; do
        for type in q8_0 bf16; do
            try "compute-sanitizer $tool, $type" sanitized "$tool" "$cca" bench -m "$small-$type" \
                --device cuda -g 16 -w 64 -ub 1000 -p 0 -n 20 -d 2000 -r 1 -q
        done
    done
}

ops() {
    try 'operations' "$BIN/bench_cuda"
    try 'operations in the forms for Hopper' "$BIN/bench_cuda" hopper
}

# Rows of `cca bench` as the table at the end wants them: the time of a prefill, of a token.
rows() { # what was measured
    tee /dev/stderr | awk -F'|' -v what="$1" '
        { gsub(/ /, "") }
        $3 == "walk" { printf "%s, %s: prefill of %s tokens: %.3f s\n", what, $2, $4, $4 / $6 }
        $3 == "decode" { printf "%s, %s: a token behind %s: %.2f ms (cache %.2f GB)\n", what, $2, $5,
                         1000 / $6, $8 / 1000 }' >>"$work/table"
}

# The most memory of the GPU that anybody used while a command ran.
peak() { # command
    (while sleep 0.5; do nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits; done) \
        >"$work/memory" &
    local poll=$!
    "$@"
    kill $poll
    wait $poll 2>/dev/null
    echo "memory in use at most, with the driver's own: $(sort -n "$work/memory" | tail -n 1) MiB: $*" |
        tee -a "$work/table"
}

measure() { # name, type, shape, options of bench
    local name=$1 type=$2 shape=$3
    shift 3
    [ "$work/model-$type-$shape" -ef "$work/model" ] || {
        rm -f "$work"/model*
        try "$name $type of random weights" "$cca" export --random "$shape" --type "$type" \
            -o "$work/model-$type-$shape" -q
        ln -s "$work/model-$type-$shape" "$work/model"
    }
    timeout "$limit" "$cca" bench -m "$work/model" --device cuda -p 0 -r 3 --progress none "$@" |
        rows "$name $type"
}

seven=4096,32,32,32,11008,32000
eight=4096,32,32,8,14336,128256

bench() {
    local depth=${DEPTH:-0,32768,131072}
    : >"$work/table"
    peak measure 7B bf16 $seven -n 64 -d "$depth" --attn cca
    measure '7B, --fp8,' bf16 $seven -n 0 -d "$depth" --attn cca --fp8
    measure 7B bf16 $seven -n 32 -d "${FULL_DEPTH:-0,32768,131072}" -r 2 --attn full
    peak measure 7B bf16 $seven -n 16 -d 1048576 -r 1 --attn cca
    measure 7B q8_0 $seven -n 64 -d "$depth" --attn cca
    measure 7B q4_0 $seven -n 64 -d "$depth" --attn cca
    measure 8B bf16 $eight -n 64 -d "$depth" --attn cca
    rm -f "$work"/model*
    say 'table'
    cat "$work/table"
}

torch() { try 'PyTorch' python3 train/bench_attention.py ${LENGTHS:-32768 131072}; }

nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.total --format=csv
for section in ${*:-check model sanitize ops bench torch}; do
    say "$section"
    "$section"
done
[ "${WORK:-}" ] || rm -rf "$work"
say "$failed failed"
[ "$failed" = 0 ]
