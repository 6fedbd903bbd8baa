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
# bench     a 7B model of random weights: prefill and decode at depth, CCA and full attention
# torch     PyTorch's attention and the GPU's ceilings, with the python3 in PATH
set -u
cd "$(dirname "$0")/.."
work=${WORK:-$(mktemp -d)}
limit=${LIMIT:-300} # seconds of a section's longest step
failed=0
export LC_ALL=C.UTF-8

say() { printf '\n== %s\n' "$*"; }
try() { # name, command: tells how it went
    local name=$1 start=$SECONDS
    shift
    if timeout "$limit" "$@"; then
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
}

sanitize() {
    local tool
    for tool in memcheck racecheck initcheck synccheck; do
        try "compute-sanitizer $tool" compute-sanitizer --tool $tool --error-exitcode 9 \
            "$cca" bench -m $ship --device cuda -p 600 -n 8 -d 600 -r 1 -q
    done
}

ops() {
    try 'operations' "$BIN/bench_cuda"
    try 'operations in the forms for Hopper' "$BIN/bench_cuda" hopper
}

bench() {
    local type depth=${DEPTH:-0,32768,131072}
    for type in ${TYPES:-bf16 q8_0 q4_0}; do
        try "7B $type of random weights" "$cca" export --random 4096,32,32,32,11008,32000 \
            --type "$type" -o "$work/7b.gguf" -q
        try "7B $type, CCA" "$cca" bench -m "$work/7b.gguf" --device cuda -p 0 -n 64 -d "$depth" \
            -r 3 --attn cca -v --progress none
        [ "$type" != bf16 ] || try '7B bf16, full attention' "$cca" bench -m "$work/7b.gguf" \
            --device cuda -p 0 -n 32 -d "$depth" -r 2 --attn full --progress none
        rm -f "$work/7b.gguf"
    done
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
