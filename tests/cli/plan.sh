#!/usr/bin/env bash
# cca plan: memory by the shapes, what fits, the same check before a run; never how long anything
# takes.
set -u
. tests/cli/lib.sh
command -v jq >/dev/null || { skip "cca plan" "no jq here"; exit; }

value() { # jq filter, of what the last cca wrote
    jq -r "$1" "$work/out"
}

# Full attention: 2 layers * 2 heads * 8 values * 2 bytes * 2 (keys and values) = 128 bytes a token. CCA:
# cores of 2 layers * 4 heads * 32 bytes = 256 bytes for each 4 tokens, and a ring of 20 tokens and four guesses. Recall:
# 128 bytes a token, the same for each group's bounds, a 16th of these for blocks of many groups, no
# cores, and, of the one thread, 66 numbers of 4 bytes for each block: scores of 2 * 32 queries that choose, a sum and an id.
make_random 32,2,4,2,64,128 -c 4096 || { fail 'export --random'; exit; }
few=(plan -m "$random" --attn cca --sinks 0 -g 4 -w 16 -t 1)
expect 0 'a plan' "${few[@]}" -c 1000 --json
check 'cores and window' test "$(value '.plans[0].memory | "\(.cores) \(.window)"')" = "$((250 * 256)) $((24 * 128))"
check 'recall beside it' test "$(value '.plans[1] | "\(.attention.kind) \(.memory.cores) \(.memory.bounds) \(.memory.rows) \(.memory.window)"')" = \
    "recall 0 $((250 * 128)) $((1000 * 128)) 0"
check 'and full attention' test "$(value '.plans[2] | "\(.attention.kind) \(.memory.cores) \(.memory.window)"')" = \
    "full 0 $((1000 * 128))"
check 'rows in both places' test "$(value '.plans[1].tiers[] | "\(.rows) \(.disk) \(.token.memory) \(.token.disk)"' | tr '\n' ' ')" = \
    "memory 0 166.125 0 disk $((1000 * 128)) 38.125 128 "
check 'of which one is taken' test "$(value '.plans[1] | .tiers[0].total == .memory.total and .tiers[1].total == .memory.total - .memory.rows')" = true
check 'others have none' test "$(value '[.plans[0].tiers, .plans[2].tiers] | join(" ")')" = ' '
expect 0 'rows on disk' "${few[@]}" -c 1000 --attn recall --rows disk --json --dry-run
check 'are in no total' test "$(value '.plans[0].memory | "\(.rows) \(.disk)"')" = "0 $((1000 * 128))"
check 'there neither' test "$(value '.plans[0] | .tiers[1].total == .memory.total')" = true
expect 0 'in words' "${few[@]}" -c 1000 --attn recall --rows disk --dry-run
stdout_has 'a token' '^a token +38 B +64 B +128 B$'
stdout_has 'in memory' '^--rows memory +[0-9.]+ MB +yes +166 B +0 B$'
stdout_has 'and on disk' '^--rows disk +[0-9.]+ MB +yes +38 B +128 B$'
expect 0 'a plan' "${few[@]}" -c 1000 --json
check 'the weights' test "$(value '.plans[0].memory.weights')" = "$(value .model.weight_bytes)"
check 'a total' test "$(value '.plans[] | .memory | .weights + .cores + .bounds + .rows + .window + .mark + .activations + .program == .total' | uniq)" = true
check 'both fit' test "$(value '[.fits] + [.plans[].fits] | join(" ")')" = ' true true true'
check 'speeds are measured' test "$(value '.measured_s > 0 and ([.plans[].timing | .prefill_s > 0 and .token_s > 0] | all)')" = true

threads() { # settings of the environment, options
    local settings=()
    while [[ ${1:-} == OMP_* ]]; do settings+=("$1"); shift; done
    env "${settings[@]}" "$CCA" plan -m "$random" -c 100 --dry-run --json "$@" | jq .threads
}
if ldd "$CCA" 2>/dev/null | grep -q 'gomp\|libomp'; then
    check 'threads of OMP_NUM_THREADS' test "$(threads OMP_NUM_THREADS=3)" = 3
    check 'not beyond what there can be' test "$(threads OMP_NUM_THREADS=5000)" = 1024
    check 'nor beyond OMP_THREAD_LIMIT' test "$(threads OMP_NUM_THREADS=3 OMP_THREAD_LIMIT=2)" = 2
    check 'which bounds those unasked for' test "$(threads OMP_THREAD_LIMIT=1)" = 1
    check '-t before it' test "$(threads OMP_NUM_THREADS=3 -t 2)" = 2
    one=$(taskset -pc $$ | sed 's/.*: \([0-9]*\).*/\1/')
    check 'one place' test "$(threads OMP_PLACES="{$one}")" = 1
    check 'binding leaves all' test "$(threads OMP_PROC_BIND=true)" = "$(threads)"
else
    skip 'threads of OMP_NUM_THREADS' 'a build without OpenMP'
fi
check 'the trained length' test "$(value .trained_length)" = 4096

# What a limit leaves beside weights and program, but for 2 MB, a token at a time; guesses take 12 bytes a token of a power
# of two.
expect 0 'a limit' "${few[@]}" -c 1000 --mem-limit 64M --json --dry-run
for i in 0 2; do
    got=$(value ".plans[$i].largest_context")
    want=$(value ".plans[$i] | .allowed - 2097152 - .memory.total + .memory.cores + .memory.window")
    want=$((want + 12 * 1024 - (i == 0 ? 12 << 20 : 12 << 19)))
    [ $i = 0 ] && want=$(((want - 3072) / 256 * 4 + 3)) || want=$((want / 128))
    check "the largest context, $i" test "$got" = "$want"
done
check 'no speeds on a dry run' test "$(value '.measured_s, .plans[0].timing, .plans[1].timing' | tr '\n' ' ')" = '0 null null '
expect 5 'more than the limit' "${few[@]}" -c 1000 --mem-limit 200K --json --dry-run
check 'is told in full' test "$(value '.plans[0] | "\(.fits) \(.largest_context)"')" = 'false 0'
stderr_has 'with the numbers' '1000 positions take .* \([0-9]+ bytes\), --mem-limit allows 205 kB \(204800 bytes\); the weights are'
expect 5 'more than the machine has' plan -m "$random" -c 2147483647 --attn full --dry-run
stderr_has 'and how much that is' 'take 301 GB .*the machine has '

make_stories
expect 5 'the same for a run' generate -m "$stories" -p x --attn full -n 2000000000 --beyond-trained
stderr_has 'before it begins' '2000000[0-9]+ positions take [0-9.]+ TB .*the machine has '
expect 5 'and for questions' ask -m "$stories" -p x --chat-template plain --attn full -n 2000000000 --beyond-trained Who
stderr_has 'before they are read' 'positions take [0-9.]+ TB .*the machine has '
expect 0 'a text' plan -m "$stories" -p 'Once upon a time' --dry-run -n 7 --json
n=$("$CCA" tokenize -m "$stories" -p 'Once upon a time' --count)
check 'its tokens and the answer' test "$(value '"\(.prefill) \(.positions)"')" = "$n $((n + 7))"
expect 4 'a text that is too long' plan -m "$stories" -p 'Once upon a time' -c 3
stderr_has 'with both numbers' 'the text has [0-9]+ tokens, --ctx-size allows 3'
expect 0 'text' plan -m "$stories" -c 64 --attn full
check 'has one column for full attention alone' test "$(grep -c '^attention  *full$' "$work/out")" = 1
stdout_has 'and times' '^prefill +[0-9.]+ s$'
stderr_empty 'and no warning'
expect 0 'beyond the trained length' plan -m "$stories" -c 1000 --dry-run
stderr_has 'a warning' 'warning: 1000 positions are more than the 512'
expect 2 'settings that cannot be' plan -m "$stories" -g 7 -w 16
expect 3 'no model' plan -m "$work/none.gguf"
expect 3 'text without a tokenizer' plan -m "$random" -p x

# q, k, v and gate, up in one tensor each: a layer's weights are read once a token.
converted=tests/golden/models/converted/phi3-longrope-partial.gguf
expect 0 'a plan of a file with fused tensors' plan -m "$converted" -t 1 --json
check 'has times' test "$(value '[.plans[].timing | .prefill_s > 0 and .token_s > 0] | all')" = true

# An answer without a bound ends where memory does.
ship=$(ls models/cca-*.gguf | head -1)
expect 0 'a dry run' generate -m "$ship" -p 'Once upon' --dry-run --json
total=$(value .memory.total)
expect 0 'an answer without a bound' generate -m "$ship" -p 'Once upon' --dry-run --json --mem-limit $((total - 50000000))
check 'ends where memory does' test "$(value '.positions < 131072')" = true
check 'and not before' test "$(value .memory.total)" -gt $((total - 53000000))

# Ranks. Full attention of 2,048 tokens on two: rank 0 has the first and the last quarter, and sends
# its 1,024 rows of 128 bytes to rank 1 but for the last quarter's, which are behind that; it gets 1,024.
# Ring attention sends all 1,024. CCA sends cores of 64 of each 4 tokens' bytes and windows of 20.
expect 0 'ranks' "${few[@]}" -c 2048 -ub 128 --ranks 2 --link 1KB/s,1ms --json --dry-run
check 'full attention sends what is seen behind' test \
    "$(value '.plans[2].ranks | "\(.n) \(.tokens) \(.sent_bytes) \(.most_bytes) \(.ring_bytes)"')" = \
    "2 1024 $(((512 + 1024) * 128)) $((1024 * 128)) $((1024 * 128))"
check 'a link says how long' test "$(value '.plans[2].ranks | "\(.transfer_s) \(.prefill_s)"')" = "131.072 null"
check 'cores and windows are less' test \
    "$(value '.plans[0].ranks | "\(.sent_bytes) \(.ring_bytes)"')" = "$((((512 + 1024) / 4) * 256 + 2 * 20 * 128)) $((1024 * 128))"
check 'rank 0 decodes' test "$(value '.plans[2].ranks.decode.auto')" = gather
check 'what recalls has no choice' test "$(value '.plans[1].ranks.decode.share | "\(.rank_0) \(.others)"')" = 'null null'
# A token that both decode: in 2 layers 4 heads of 8 numbers and 2, and 7 messages one behind the other.
check 'and how long what is told of a token takes' test \
    "$(value '.plans[2].ranks.decode.share | "\(.token_bytes) \(.exchange_s) \(.token_s)"')" = "320 0.327 null"
check 'which is none without a choice' test "$(value '.plans[1].ranks.decode.share.exchange_s')" = null
expect 0 'measured' "${few[@]}" -c 2048 -ub 128 --ranks 2 --link 1KB/s,1ms --json
check 'a token takes that, too' test "$(value '.plans[2] | .ranks.decode.share as $s
    | ($s.token_s - $s.exchange_s - .timing.token_s) | fabs < 1e-6 and $s.exchange_s == 0.327')" = true

# With as little memory as lets each rank keep its part, all decode, and that is no failure.
four=(plan -m "$random" --attn full -c 400000 -ub 128 -t 1 --ranks 4 --json --dry-run)
expect 0 'memory' "${four[@]}"
read -r beside gathered first others <<<"$(value '.plans[0] | "\(.memory.weights + .memory.program) \(.ranks.decode.gather.rank_0) \(.ranks.decode.share.rank_0) \(.ranks.decode.share.others)"')"
check 'is less where all keep a part' test "$first" -lt "$gathered" -a "$others" -le "$first"
expect 0 'less memory' "${four[@]}" --mem-limit $((beside + (first + gathered) / 2))
check 'has all decode' test "$(value '.plans[0].ranks.decode.auto')" = share
expect 5 'too little' "${four[@]}" --mem-limit $((beside + first / 2))
check 'has nobody decode' test "$(value '.plans[0].ranks.decode.auto')" = null
# Ranks of one machine have its memory in common: rank 0's, and three times what another takes.
expect 0 'ranks of one machine' "${four[@]}" --per-host 4
layer=$(value '.plans[0].ranks.decode.gather.others')
check 'take a layer each' test "$layer" -gt $((400000 * 128)) -a "$layer" -lt "$gathered"
expect 0 'room for all' "${four[@]}" --per-host 4 --mem-limit $((beside + gathered + 3 * layer + 1000000))
check 'has rank 0 decode' test "$(value '.plans[0].ranks.decode.auto')" = gather
expect 5 'room for three' "${four[@]}" --per-host 4 --mem-limit $((beside + gathered + 2 * layer))
stderr_has 'says what four take' "4 ranks on one machine take .*[(]$gathered bytes[)] of rank 0 and .*[(]$layer bytes[)] of"
expect 0 'on two machines' "${four[@]}" --per-host 2 --mem-limit $((beside + gathered + 2 * layer))
expect 0 'in words' "${few[@]}" -c 2048 -ub 128 --ranks 2 --dry-run
stdout_has 'what a rank sends' '^bytes of a rank +[0-9.]+ [kM]B'
stdout_has 'and ring attention' '^ring attention +131 kB +131 kB +131 kB$'
stdout_has 'who decodes' '^--decode auto +gather +gather +gather$'
stdout_has 'what is told of a token' "^token's exchange +[0-9.]+ ms +[0-9.]+ ms$"
stdout_has 'and what that takes' '^gather: rank 0 +[0-9.]+ [kM]B'
expect 0 'too many ranks' "${few[@]}" -c 64 --ranks 64 --dry-run
stderr_has 'are told' '64 tokens are too few for 64 ranks'
for link in 1GB/s 1GB,1us 1GB/s,1 -1GB/s,1us 1GB/s,1us, x; do
    expect 2 "--link $link" "${few[@]}" -c 64 --ranks 2 --link="$link"
done
