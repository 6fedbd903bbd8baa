#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: correctness of the CUDA backend, then its speed.
#
#     tests/gpu.sh                      # everything, with the programs that make builds
#     tests/gpu.sh check model          # some sections
#     BIN=folder tests/gpu.sh ops       # with cca, test_cuda…, bench_cuda from a folder
#     DEVICE=cpu tests/gpu.sh commands  # tries out what the sections commands and plan do
#
# check     operations, caches, rows and small models against the CPU, and faults (tests/unit/test_cuda*.c, …)
# model     logits and greedy text against the CPU backend, chunk sizes, recall, the same bits twice
# sanitize  compute-sanitizer's tools over a short run
# ops       times of single operations
# bench     models of 7B and 8B random weights: prefill and decode at depth, CCA and full attention
# commands  selftest, stored sessions, an interrupted prefill, sources, chat, tune
# plan      its forecasts of memory and prefill time against runs, for a 7B model of random weights
# ranks     a prompt that two GPUs share, over NCCL and by way of the host, against one: tests, text, a
#           killed rank; then first tokens, bytes and efficiency of 7B and 8B random weights
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
    make -s -j"$(nproc)" cca build/release/tests/{test_cuda,test_cuda_attention,test_cuda_others,test_cuda_faults,test_cuda_model,test_near_rows,bench_cuda} || exit 1
    BIN=build/release/tests
    ln -sf "$PWD/cca" "$BIN/cca"
fi
cca=$BIN/cca
device=${DEVICE:-cuda}
ship=models/cca-books-15m.gguf

check() {
    try 'each operation' "$BIN/test_cuda"
    try 'each operation on caches' "$BIN/test_cuda_attention"
    try 'recall beside cores' "$BIN/test_cuda_others"
    try 'layers, caches and models' "$BIN/test_cuda_model"
    try 'rows that are brought near' "$BIN/test_near_rows"
    try 'faults' "$BIN/test_cuda_faults"
}

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
    local chunk types
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
    for types in bf16 q8_0/q4_0; do
        local recall=(-m $ship --attn recall --recall 64 -ctr $types)
        logits "$work/cpu" "${recall[@]}" --device cpu
        for chunk in 16 64 300; do
            logits "$work/gpu" "${recall[@]}" --device cuda -ub "$chunk"
            compare "logits with recall, rows in $types, in chunks of $chunk" "$work/cpu" "$work/gpu" 2e-2
        done
        logits "$work/again" "${recall[@]}" --device cuda -ub 300
        try 'logits with recall twice' cmp "$work/gpu" "$work/again"
        logits "$work/gpu" "${recall[@]}" --device cuda -ub 300 --fp8
        compare "logits with recall, rows in $types, and --fp8" "$work/cpu" "$work/gpu" 2e-1
        for chunk in 16 64 300; do
            logits "$work/gpu" "${recall[@]}" --device cuda -ub "$chunk" --rows host
            compare "logits with recall, rows in $types of the host, in chunks of $chunk" "$work/cpu" "$work/gpu" 2e-2
        done
    done
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

# 2000 tokens of two layers, a window and cores or recall, this by the fast kernels (recall), beside
# cores (others), by the plain ones (plain), and with rows in the host's memory (host), many rows and
# one. racecheck takes a copy that several lanes begin for one of a single lane: for it they begin in
# turn.
sanitize() {
    local tool type attn small=$work/small
    "$cca" export --random 512,2,4,2,1024,1000 --type q8_0 -o "$small-q8_0" -q
    "$cca" export --random 512,2,8,4,1024,1000 --type bf16 -o "$small-bf16" -q
    try 'nothing is left behind where memory is not there' \
        compute-sanitizer --leak-check full --error-exitcode 9 "$BIN/test_cuda_faults" allocations
    for tool in ${TOOLS:-memcheck racecheck initcheck synccheck}; do
        for type in q8_0 bf16; do
            for attn in cca recall others plain host; do
                [[ "$tool $attn" != racecheck\ @(plain|host) ]] || continue
                local kind=recall
                [ $attn != cca ] || kind=cca
                local run=("$cca" bench -m "$small-$type" --device cuda --attn $kind -g 16 -w 64
                    -ub 1000 -p 0 -n 20 -d 2000 -r 1 -q)
                [ $attn = cca ] || run+=(--recall 256)
                [ $attn != host ] || run+=(--rows host -ctr q8_0)
                [ $attn != others ] || run+=(--cores)
                [ $attn != plain ] || run+=(--cores -ctk f32 -ctv f32 -ctr q8_0/q4_0)
                [ "$tool" != racecheck ] || run=("$BIN/bench_cuda" in-turn "$small-$type" $attn)
                try "compute-sanitizer $tool, $type, $attn" sanitized "$tool" "${run[@]}"
            done
        done
    done
}

ops() {
    try 'operations' "$BIN/bench_cuda"
    try 'operations in the forms for Hopper' "$BIN/bench_cuda" hopper
}

# Rows of `cca bench` as the table at the end wants them: the time of a prefill, of a token.
rows() { # what was measured
    tee >(cat >&2) | awk -F'|' -v what="$1" '
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
    peak measure 7B bf16 $seven -n 64 -d "$depth" --attn cca,recall
    measure '7B, --fp8,' bf16 $seven -n 0 -d "$depth" --attn cca,recall --fp8
    measure 7B bf16 $seven -n 32 -d "${FULL_DEPTH:-0,32768,131072}" -r 2 --attn full
    peak measure 7B bf16 $seven -n 16 -d 1048576 -r 1 --attn cca
    measure 7B q8_0 $seven -n 64 -d "$depth" --attn cca
    measure 7B q4_0 $seven -n 64 -d "$depth" --attn cca
    measure 7B q4_k_m $seven -n 64 -d 0 --attn cca
    measure 8B bf16 $eight -n 64 -d "$depth" --attn cca,recall
    measure '8B, rows of the host,' bf16 $eight -n 64 -d 131072 --attn recall --rows host
    peak measure '8B, rows of the host in q8_0,' bf16 $eight -n 16 -d 1048576 -r 1 --attn recall -ctr q8_0 \
        --rows host -ub 16384
    measure '8B, --fp8,' bf16 $eight -n 0 -d "$depth" --attn recall --fp8
    measure 8B q8_0 $eight -n 64 -d "$depth" --attn cca,recall
    measure 8B q4_0 $eight -n 64 -d "$depth" --attn cca,recall
    rm -f "$work"/model*
    say 'table'
    cat "$work/table"
}

# ---- commands ------------------------------------------------------------------------------

poem=examples/paradise-lost.txt # 37,009 tokens, one line of which tells the code
question='What is the secret code of the old lighthouse?'

has() { # extended regular expression, file
    grep -qE -- "$1" "$2" || { echo "no '$1' in:" && head -n 5 "$2" && false; }
}

selftest() { # with the CPU against the GPU among its checks
    "$cca" selftest -m $ship --device "$device" >"$work/out" && tail -n 1 "$work/out" || return 1
    [ "$device" = cpu ] || { grep 'against a GPU' "$work/out" && has '^ok .*against a GPU' "$work/out"; }
}

# Asks about the poem; the record is in $work/out, messages in $work/err, and in a file the answer with
# the bits of what it attended to.
ask() { # file, folder of sessions, device, options
    local file=$1 folder=$2 on=$3
    shift 3
    XDG_CACHE_HOME=$folder "$cca" ask -m $ship --device "$on" -f $poem --json --sources --progress none \
        "$@" "$question" >"$work/out" 2>"$work/err" || { tail -n 3 "$work/err" && return 1; }
    grep -oE '"(text|share)": ("[^"]*"|[-0-9.e]+)' "$work/out" >"$file"
}

reuses() { # the arguments of ask: as it should, and says so
    ask "$@" && has 'session .*: 37009 of 37009 tokens are there' "$work/err" &&
        has '"prompt": 37034, "reused": 37009, "prefilled": 25,' "$work/out"
}

sources() { # options: the passage with the code comes first, and others far behind
    ask "$work/sources" "$work/none" "$device" --no-kv "$@" && sed 's/.*"sources": //; s/}.*//' "$work/out" &&
        has '"sources": \[\{"file": "examples/paradise-lost.txt", "line": 1294, .*"share": 0\.[5-9]' "$work/out"
}

# Sessions of the one device on the other: taken as they are; what is computed from them differs by
# rounding, so that only the answer must be the same.
across() { # from, to, options
    local from=$1 to=$2 folder=$work/from-$1
    shift 2
    ask "$work/one" "$folder" "$from" "$@" && reuses "$work/other" "$folder" "$to" "$@" &&
        has '"text": "48213"' "$work/other"
}

slowly() { # device, folder of sessions, options: the poem twice, in so small chunks that it can be interrupted
    local on=$1 folder=$2
    shift 2
    XDG_CACHE_HOME=$folder exec "$cca" ask -m $ship --device "$on" -f $poem -f $poem -ub 16 --checkpoint-every 4096 \
        --json --sources --progress none "$@" "$question"
}

interrupted() { # a prefill goes on from its last checkpoint, and to the same bits
    local folder=$work/interrupted status
    (slowly "$device" "$folder" --no-kv) 2>"$work/err" | grep -oE '"(text|share)": [^,]*' >"$work/whole"
    slowly "$device" "$folder" >"$work/out" 2>"$work/err" &
    local pid=$!
    until [ -n "$(find "$folder" -name '*.ccas' -size +4M 2>/dev/null)" ] || ! kill -0 $pid 2>/dev/null; do
        sleep 0.02
    done
    kill -INT $pid
    wait $pid
    status=$?
    [ $status = 130 ] && [ ! -s "$work/out" ] || { echo "exit status $status" && return 1; }
    grep 'interrupted in prefill' "$work/err" || return 1
    (slowly "$device" "$folder") 2>"$work/err" >"$work/out"
    has '"reused": [1-9]' "$work/out" && grep -oE '"(text|share)": [^,]*' "$work/out" >"$work/resumed" &&
        cmp "$work/whole" "$work/resumed"
}

talk() { # file, lines
    local file=$1
    shift
    printf '%s\n' "/read $work/document" "$@" |
        "$cca" chat -m $ship --device "$device" --temp 0 -n 24 -q >"$file" && has . "$file"
}

chat() {
    head -c 8000 $poem >"$work/document"
    talk "$work/talk" 'Who is it?' 'And where is he?' && [ "$(wc -l <"$work/talk")" = 2 ] &&
        talk "$work/undone" 'Who is it?' 'Something else?' /undo 'And where is he?' "/save $work/talk.ccas" &&
        talk "$work/loaded" "/load $work/talk.ccas" /undo 'And where is he?' &&
        tail -n 1 "$work/talk" | cmp - <(tail -n 1 "$work/undone") &&
        tail -n 1 "$work/talk" | cmp - "$work/loaded"
}

sweep() { # device: perplexity and facts of three settings
    "$cca" tune -m $ship --device "$1" -f "$work/document" -g 4,16 -w 64 --tokens 1500 -c 512 --length 1200 \
        --facts 4 --no-full --no-state --format csv -q | tee "$work/tune-$1" && [ "$(wc -l <"$work/tune-$1")" = 4 ]
}

tune() { # perplexities within 1 % of the CPU's
    head -c 8000 $poem >"$work/document"
    sweep cpu && sweep "$device" && awk -F, 'FNR == 1 { next } FNR == NR { cpu[FNR] = $7; next }
        { d = $7 / cpu[FNR] - 1; if (d > 0.01 || d < -0.01 || !($14 > 0 && $15 > 0)) exit 1; n++ }
        END { exit n != 3 }' "$work/tune-cpu" "$work/tune-$device"
}

commands() {
    local other=cpu kept=$work/kept
    [ "$device" = cpu ] || other=$device
    try 'selftest' selftest
    try 'sources' sources
    try 'sources with recall' sources --attn recall
    try 'a question without a session' ask "$work/fresh" "$kept" "$device" --no-kv
    try 'the first one with a session' ask "$work/first" "$kept" "$device"
    try 'has the same bits' cmp "$work/fresh" "$work/first"
    try 'the second one reads the question alone' reuses "$work/second" "$kept" "$device"
    try 'to the same bits' cmp "$work/fresh" "$work/second"
    try 'the session is whole' env XDG_CACHE_HOME="$kept" "$cca" session verify --all
    try "a session of the CPU with $other" across cpu "$other"
    try "a session of $other with the CPU" across "$other" cpu
    try "a session with recall of the CPU with $other" across cpu "$other" --attn recall
    try "a session with recall, its rows in other types, of $other with the CPU" \
        across "$other" cpu --attn recall -ctr q8_0/q4_0
    try "a session with recall, its rows in the host's memory, of $other with the CPU" \
        across "$other" cpu --attn recall --rows host
    try 'and the other way round' across cpu "$other" --attn recall --rows host
    try 'an interrupted prefill goes on' interrupted
    try 'chat: two turns, /undo, /save, /load' chat
    try 'tune' tune
}

# ---- plan ----------------------------------------------------------------------------------

# Value N of a key in a record.
value() { # key, N, file
    grep -oE "\"$1\": [-0-9.e+]+" "$3" | sed -n "$2s/.*: //p"
}

used() { # bytes of the GPU's memory in use now, or with a file of MiB numbers at most
    if [ $# = 0 ]; then nvidia-smi -i 0 --query-gpu=memory.used --format=csv,noheader,nounits; else cat "$1"; fi |
        sort -n | tail -n 1 | awk '{ printf "%.0f\n", $1 * 1048576 }'
}

# Runs a bench of one prefill; its record is in $work/bench. grown=BYTES: what it took of the GPU.
watched() { # model, attention, tokens, repetitions
    local before poll=
    if [ "$device" != cpu ]; then
        before=$(used)
        (while sleep 0.2; do nvidia-smi -i 0 --query-gpu=memory.used --format=csv,noheader,nounits; done) \
            >"$work/memory" &
        poll=$!
    fi
    timeout "$limit" "$cca" bench -m "$1" --device "$device" --attn "$2" -p "$3" -n 0 -d 0 -r "$4" --no-peaks \
        --format json -q >"$work/bench"
    local status=$?
    grown=0
    [ -z "$poll" ] || { kill $poll && wait $poll; grown=$(($(used "$work/memory") - before)); } 2>/dev/null
    return $status
}

# What plan says of the device's memory: all but the program's own. bench keeps a copy of the window,
# too, which recall and full attention have no use for.
planned() { # N of the record's plans: of cca, recall, full
    local total program window
    total=$(value total "$1" "$work/plan")
    program=$(value program "$1" "$work/plan")
    window=$([ "$1" = 1 ] && value window 1 "$work/plan")
    echo $((total - program + ${window:-0}))
}

# A line of the table: forecast, measured, their ratio, FAIL beyond the bounds.
line() { # name, unit, forecast, measured, share, constant
    printf '%s %s %s %s %s %s\n' "$@" | awk '{
        gap = $4 > $3 ? $4 - $3 : $3 - $4
        verdict = gap <= $5 * $4 + $6 ? "" : "FAIL"
        printf "%-24s %-8s %12.4g %12.4g %8.3f %s\n", $1, $2, $3, $4, ($4 > 0 ? $3 / $4 : 0), verdict
        exit verdict != "" }'
}

# One kind of attention at one length.
forecast() { # name, model, attention, tokens, repetitions, N of the record's plans
    local model=$2 attn=$3 tokens=$4 fits time status=0
    fits=$(grep -oE '"fits": [a-z]+' "$work/plan" | sed -n "$6s/.*: //p")
    [ "$fits" = true ] || { echo "$1,$attn,$tokens does not fit" >>"$work/table" && return 0; }
    watched "$model" "$attn" "$tokens" "$5" || return 1
    time=$(awk -v rate="$(value tok_s 1 "$work/bench")" -v n="$tokens" 'BEGIN { print n / rate }')
    [ "$device" = cpu ] ||
        line "$1,$attn,$tokens" bytes "$(planned "$6")" $((grown - context)) 0.03 16777216 >>"$work/table" || status=1
    line "$1,$attn,$tokens" s "$(value prefill_s "$6" "$work/plan")" "$time" 0.15 0 >>"$work/table" || status=1
    return $status
}

forecasts() { # name, model, kinds of attention
    local tokens attn times plan repetitions=5
    for tokens in ${LENGTHS:-32768 131072}; do
        try "plan of $1, $tokens tokens" "$cca" plan -m "$2" --device "$device" --attn cca -c "$tokens" --json -q -o "$work/plan"
        sed -i 's/"tiers": \[[^]]*\]/"tiers": null/g' "$work/plan" # which have totals of their own
        grep -oE '"measured_s": [0-9.]+' "$work/plan"
        for attn in $3; do
            times=$repetitions
            [ "$attn$tokens" = full131072 ] && times=1 # 10 s each
            plan=$(case $attn in cca) echo 1 ;; recall) echo 2 ;; full) echo 3 ;; esac)
            try "$1, $attn, $tokens tokens" forecast "$1" "$2" "$attn" "$tokens" $times "$plan"
        done
        repetitions=3
    done
}

# What every process has of the GPU: the growth by a small model, without what plan says of that.
idle() {
    context=0
    [ "$device" = cpu ] && return 0
    "$cca" plan -m $ship --device "$device" -c 8192 --dry-run --json -q -o "$work/plan" &&
        watched $ship cca 8192 200 && context=$((grown - $(planned 1))) &&
        echo "a process takes $((context >> 20)) MiB beside what plan tells"
}

plan() {
    local type context grown
    printf '%-24s %-8s %12s %12s %8s\n' run unit forecast measured ratio >"$work/table"
    try 'memory of a process' idle
    for type in bf16 q8_0; do
        try "$type of random weights" "$cca" export --random "${SHAPE:-$seven}" --type $type -o "$work/model" -q
        forecasts $type "$work/model" "$([ $type = bf16 ] && echo cca recall full || echo cca)"
        rm -f "$work/model"
    done
    say 'table'
    cat "$work/table"
}

# ---- ranks ---------------------------------------------------------------------------------

# As cca, with so many ranks, each with a GPU; alone without any. kind: nccl, mpi or none.
ranked() { # kind, ranks, arguments
    local kind=$1 n=$2 root=()
    shift 2
    [ "$kind" != none ] || { timeout "$limit" "$cca" "$@" --device cuda; return; }
    [ "$(id -u)" -ne 0 ] || root=(--allow-run-as-root)
    timeout "$limit" mpirun "${root[@]}" --bind-to none -n "$n" "$cca" "$@" --device cuda --ranks "$kind"
}

continued() { # file, kind, ranks, options: what follows the poem, which ranks share if there are several
    local file=$1 kind=$2 n=$3
    shift 3
    ranked "$kind" "$n" generate -m $ship -f $poem -n 48 --temp 0 --json --progress none -ub 2048 "$@" \
        >"$work/out" 2>"$work/err" || { tail -n 3 "$work/err" && return 1; }
    grep -oE '"text": "[^"]*"' "$work/out" >"$file" && [ -s "$file" ] || return 1
    [ "$n" = 1 ] || has '"rank": 1, "prefilled": [1-9][0-9]*, "sent_bytes": [1-9]' "$work/out"
}

killed() { # one of two ranks: both end soon, and what is stored is whole
    local folder=$work/killed begin
    (XDG_CACHE_HOME=$folder ranked nccl 2 ask -m $ship -f $poem -f $poem -f $poem --checkpoint-every 16384 \
        --progress none "$question" >"$work/out" 2>"$work/err") &
    local pid=$!
    until [ -n "$(find "$folder" -name '*.ccas' -size +4M 2>/dev/null)" ] || ! kill -0 $pid 2>/dev/null; do
        sleep 0.02
    done
    kill -KILL "$(pgrep -f "$cca ask -m $ship -f $poem -f $poem" | tail -n 1)"
    begin=$SECONDS
    wait $pid
    [ $? != 0 ] && [ $((SECONDS - begin)) -le 10 ] && XDG_CACHE_HOME=$folder "$cca" session verify --all
}

# A line of the table: the first token of a text, the median, since the first one connects ranks; with
# ranks efficiency against one, and for each prompt what a rank sends in the mean and waits at most.
first_token() { # name, model, attention, tokens, ranks, repetitions, options
    local name=$1 model=$2 attn=$3 tokens=$4 n=$5 kind=none seconds ring
    [ "$n" = 1 ] || kind=nccl
    if ! ranked $kind "$n" bench -m "$model" --attn "$attn" -p "$tokens" -n 0 -d 0 -r "$6" --no-peaks \
        --format json -q "${@:7}" >"$work/bench" 2>"$work/err"; then
        printf '%-6s %-7s %8s %2s  %s\n' "$name" "$attn" "$tokens" "$n" "$(tail -n 1 "$work/err")" >>"$work/table"
        grep -qE 'bytes|memory' "$work/err" # what has no room is told, not failed
        return
    fi
    seconds=$(awk -v rate="$(value tok_s 1 "$work/bench")" -v n="$tokens" 'BEGIN { print n / rate }')
    [ "$n" != 1 ] || alone=$seconds
    ring=0
    [ "$n" = 1 ] || ring=$("$cca" plan -m "$model" --device cuda --attn "$attn" -c "$tokens" --ranks "$n" --dry-run --json -q |
        grep -oE '"ring_bytes": [0-9]+' | head -n 1 | sed 's/.* //')
    grep -oE '"(sent_bytes|waited_s)": [0-9.e+-]+' "$work/bench" | awk -v name="$name" -v attn="$attn" \
        -v tokens="$tokens" -v n="$n" -v s="$seconds" -v alone="${alone:-0}" -v ring="${ring:-0}" -v times="$6" '
        /sent/ { sent += $2 } /waited/ && $2 > waited { waited = $2 }
        END { printf "%-6s %-7s %8d %2d %9.3f %6.1f %% %9.3f %9.3f %8.3f\n", name, attn, tokens, n, s,
              100 * alone / s / n, sent / n / times / 1e9, ring / 1e9, waited / times }' >>"$work/table"
}

# Lines for one GPU and for several.
scaled() { # name, model, attention, tokens, repetitions, options
    local n alone=0
    for n in ${COUNTS:-1 2}; do
        try "$1, $3, $4 tokens, ranks: $n" first_token "$1" "$2" "$3" "$4" "$n" $((n == 1 && $4 > 200000 ? 1 : $5)) "${@:6}"
    done
}

ranks() {
    local kind name attn alone programs=${MPI_BIN:-build/release/mpi}
    local gpus
    gpus=$(nvidia-smi --list-gpus | grep -c '^GPU')
    if [ "$gpus" -lt 2 ] || ! command -v mpirun >/dev/null; then
        echo "skip: $gpus GPUs; two and mpirun are needed"
        return
    fi
    if [ ! -x "$programs/test_share" ]; then
        make -s -j"$(nproc)" comm_mpi.so build/release/mpi/test_{comm,device,share} || return
    fi
    for kind in nccl mpi; do
        try "tests, $kind" env CCA="$cca" DEVICE=cuda RANKS=$kind tests/mpi/run.sh "$programs"/test_{comm,device,share}
    done
    for attn in cca recall full; do
        try "$attn: one GPU" continued "$work/one" none 1 --attn $attn
        try "$attn: a world of one" continued "$work/world" nccl 1 --attn $attn
        try 'has the same text' cmp "$work/one" "$work/world"
        for kind in nccl mpi; do
            try "$attn: two GPUs, $kind" continued "$work/two" $kind 2 --attn $attn
            try 'have the same text' cmp "$work/one" "$work/two"
        done
    done
    try 'a killed rank ends both' killed
    printf '%-6s %-7s %8s %2s %9s %8s %9s %9s %8s\n' model attn tokens N s effic. 'sent, GB' 'ring, GB' waited >"$work/table"
    for name in ${MODELS:-8B 7B}; do
        try "$name of random weights" "$cca" export --random "$([ $name = 7B ] && echo $seven || echo $eight)" \
            --type bf16 -o "$work/model" -q
        for attn in cca recall; do
            scaled $name "$work/model" $attn 131072 3
            scaled "$name/8" "$work/model" $attn 131072 3 --fp8
        done
        alone=0
        try "$name, full, 131072 tokens" first_token $name "$work/model" full 131072 1 1
        scaled $name "$work/model" cca 1048576 2
        rm -f "$work/model"
    done
    say 'table'
    cat "$work/table"
}

torch() { try 'PyTorch' python3 train/bench_attention.py ${LENGTHS:-32768 131072}; }

[ "$device" = cpu ] || nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.total --format=csv
for section in ${*:-check model commands sanitize ops plan bench ranks torch}; do
    say "$section"
    "$section"
done
[ "${WORK:-}" ] || rm -rf "$work"
say "$failed failed"
[ "$failed" = 0 ]
