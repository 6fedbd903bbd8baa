#!/usr/bin/env bash
# cca ppl: modes, bounds, files, and what must be equal whatever the way there.
set -u
. tests/cli/lib.sh

value() { # key of the last --json record
    sed -n 's/.*"'"$1"'": \([-0-9.e+]*\).*/\1/p' "$work/out"
}

close() { # name, a, b, relative tolerance
    check "$1" awk -v a="$2" -v b="$3" -v t="$4" \
        'BEGIN { d = a - b; if (d < 0) d = -d; exit !(a > 0 && d <= t * b) }'
}

make_random 32,2,4,2,64,128 -c 4096 || { fail 'export --random'; exit; }
f32=(-m "$random" -ctk f32 -ctv f32)
awk 'BEGIN { for (i = 0; i < 1000; i++) { x = (x * 1103515245 + 12345) % 2147483648; print x % 128 } }' \
    >"$work/ids"

expect 0 'ids' ppl "${f32[@]}" --ids "$work/ids" --attn full --json --nll-out "$work/nll" \
    --logits-out "$work/logits"
full=$(value nats_per_token)
check 'all but the first are scored' test "$(value scored)" = 999
check 'a line a scored token' test "$(wc -l <"$work/nll")" = 999
check 'a row of logits a token' test "$(stat -c %s "$work/logits")" = $((1000 * 128 * 4))
close 'the lines add up' "$(awk '{ s += $3 } END { print s / NR }' "$work/nll")" "$full" 1e-6

expect 0 'one group a token' ppl "${f32[@]}" --ids "$work/ids" -g 1 -w 16 --json
close 'is full attention' "$(value nats_per_token)" "$full" 1e-6
expect 0 'a window as long as the text' ppl "${f32[@]}" --ids "$work/ids" -g 8 -w 1000 --json
close 'is full attention, too' "$(value nats_per_token)" "$full" 1e-6
stdout_has 'and is reported' '"inside_window": true'
expect 0 'core tokens' ppl "${f32[@]}" --ids "$work/ids" --attn cca -g 4 -w 64 --json
cca=$(value nats_per_token)
check 'are something else' awk -v a="$cca" -v b="$full" 'BEGIN { exit a == b }'
expect 0 'another chunk size' ppl "${f32[@]}" --ids "$work/ids" --attn cca -g 4 -w 64 -ub 37 --json
close 'gives the same' "$(value nats_per_token)" "$cca" 1e-6
expect 0 'one thread' ppl "${f32[@]}" --ids "$work/ids" --attn cca -g 4 -w 64 -t 1 --json
check 'gives the same bits' test "$(value nats_per_token)" = "$cca"

expect 0 'one stride window for all' ppl "${f32[@]}" --ids "$work/ids" --attn full --mode stride -c 2000 --json
close 'is mode full' "$(value nats_per_token)" "$full" 1e-6
expect 0 'mode stride' ppl "${f32[@]}" --ids "$work/ids" --mode stride -c 100 --stride 30 --json
check 'scores each token once' test "$(value scored)" = 999
expect 0 'mode chunk' ppl "${f32[@]}" --ids "$work/ids" --mode chunk -c 100 --score-from 60 --json
check 'scores from there' test "$(value scored)" = 400
expect 0 'mode llama.cpp' ppl "${f32[@]}" --ids "$work/ids" --mode llama.cpp -c 200
stdout_has 'prints the estimates' '^\[1\][0-9.]+,\[2\][0-9.]+,\[3\][0-9.]+,\[4\][0-9.]+,\[5\][0-9.]+,$'
stdout_has 'prints the final one' '^Final estimate: PPL = [0-9.]+ \+/- [0-9.]+$'
stdout_has 'scores the second half' '^scored +495 tokens'
stdout_has 'signs it' '^signature +mode=llama.cpp W=200 bos=none attn=recall g=16 s=1024 sinks=16 recall=2048 tile=[0-9]+ cores=no'

# Beside a base: what is told, against the dumped logits of both in double precision.
base=("${f32[@]}" --ids "$work/ids" --tokens 150 -g 4 -w 16)
cca ppl "${base[@]}" --attn full --logits-out "$work/full.logits" --json
base_ppl=$(value perplexity)
expect 0 'beside a base' ppl "${base[@]}" --attn recall --recall 8 --recall-tile 4 --base full --json \
    --logits-out "$work/own.logits"
values() { od -An -v -w512 -tf4 "$1"; } # 128 a row
paste -d ' ' <(values "$work/own.logits") <(values "$work/full.logits") <(tail -n +2 "$work/ids") | awk '
    NF == 257 && NR < 150 {
        for (side = 0; side < 2; side++) {
            top[side] = sum[side] = 0
            for (i = 1; i <= 128; i++) if (!top[side] || $(128 * side + i) > $(128 * side + top[side])) top[side] = i
            for (i = 1; i <= 128; i++) sum[side] += exp($(128 * side + i))
        }
        for (i = kl = 0; i++ < 128;) kl += exp($(128 + i)) / sum[1] * ($(128 + i) - log(sum[1]) - $i + log(sum[0]))
        mean += kl; all[++n] = kl; same += top[0] == top[1]
        more += log(sum[0]) - $($257 + 1) - log(sum[1]) + $(128 + $257 + 1)
    }
    END {
        for (i = 1; i <= n; i++) for (j = i; j > 1 && all[j] < all[j - 1]; j--) { x = all[j]; all[j] = all[j - 1]; all[j - 1] = x }
        print mean / n, exp(more / n), same / n, all[int(0.99 * n + 0.999999)], n
    }' OFMT=%.9g CONVFMT=%.9g >"$work/wanted"
read -r kl ratio same kl_99 n <"$work/wanted"
check 'all tokens are compared' test "$n" = 149
close 'the divergence' "$(value kl)" "$kl" 1e-5
close 'its quantile' "$(value kl_99)" "$kl_99" 1e-5
check 'by position, too' test "$(grep -o '"kl_99": [^,]*' "$work/out" | sort -u | wc -l)" = 1
check 'which is told' test "$(grep -o '"kl_99": [^,]*' "$work/out" | wc -l)" = 2
close 'equal top tokens' "$(value same_top)" "$same" 1e-9
close 'the ratio of perplexities' "$(value ratio)" "$ratio" 1e-7
stdout_has "the base's perplexity" "\"base\": \{\"perplexity\": ${base_ppl:0:8}"
expect 0 'recall of everything' ppl "${base[@]}" --attn recall --recall 400 --base full --json
check 'is the base' awk -v kl="$(value kl)" 'BEGIN { exit !(kl < 1e-9 && kl > -1e-9) }'
expect 0 'beside itself' ppl "${base[@]}" --attn cca --base cca
stdout_has 'nothing is between' '^KL divergence +0 nats; 99 % of tokens up to 0, 99.9 % to 0$'
stdout_has 'nor in the ratio' 'ratio 1\.00000 \+/- 0\.00000$'
stdout_has 'and it is named' '^base +attention cca, sinks 4$'
stdout_has 'in the signature' '^signature .* attn=cca g=4 s=16 sinks=4 kv=f32/f32 .* base=cca g=4 s=16 sinks=4 kv=f32/f32$'
expect 0 'beside another model' ppl "${base[@]}" --attn full --base "$random"
stdout_has 'of the same file' "^base +attention full of $random$"
stdout_has 'whose fingerprint is in the signature' \
    "^signature .* base=full kv=f32/f32 model=$("$CCA" info "$random" --json | sed -n 's/.*"fingerprint": "\([0-9a-f]*\)".*/\1/p')$"
expect 0 'and with its own attention' ppl "${base[@]}" --attn cca --base "$random:full" --json
stdout_has 'is told' "\"base\": \{\"perplexity\": ${base_ppl:0:8}"
expect 0 'or another' ppl "${base[@]}" --attn cca --base "$random:sinks:4"
stdout_has 'is named' "^base +attention sinks of $random$"
expect 0 'before anything is read' ppl "${base[@]}" --base full --dry-run
stderr_has 'what the base takes is told' '^--base takes [0-9.]+ [kM]B beside$'
expect 3 'no such model' ppl "${base[@]}" --base nowhere.gguf
stderr_has 'is named' 'nowhere.gguf: cannot open'
"$CCA" export --random 32,2,4,2,64,256 --seed 1 -q -o "$work/wide.gguf" 2>/dev/null
expect 2 'another vocabulary' ppl "${base[@]}" --base "$work/wide.gguf"
stderr_has 'is told' 'its vocabulary has 256 tokens, the model.s 128'
expect 5 'a limit for both' ppl "${base[@]}" --base full --mem-limit 100K

expect 0 'the first tokens' ppl "${f32[@]}" --ids "$work/ids" --tokens 10
stderr_has 'are said to be cut' 'first 10 of 1000 tokens'
expect 4 'too little for llama.cpp' ppl "${f32[@]}" --ids "$work/ids" --mode llama.cpp
stderr_has 'says how much' 'has 1000 tokens.*two windows of 512'
expect 4 'one token' ppl "${f32[@]}" --ids "$work/ids" --tokens 1
for _ in 1 2 3 4 5; do cat "$work/ids"; done >"$work/long"
expect 4 'more than the trained length in mode full' ppl "${f32[@]}" --ids "$work/long" --mode full
stderr_has 'gives both numbers' 'has 5000 tokens, the model was trained for 4096'
expect 4 'a window beyond the trained length' ppl "${f32[@]}" --ids "$work/long" --mode chunk -c 5000
expect 0 'the default for a long text' ppl "${f32[@]}" --ids "$work/long" --json
stdout_has 'is mode stride' '"mode": "stride", "window": 4096, "stride": 2048'
expect 2 'a q8_0 cache' ppl -m "$random" --ids "$work/ids" -ctk q8_0
stderr_has 'needs a head of 32' 'q8_0 needs a head_dim divisible by 32, not 8'
expect 2 'a stride that leaves gaps' ppl "${f32[@]}" --ids "$work/ids" --mode stride -c 100 --stride 100
expect 2 'nothing to score' ppl "${f32[@]}" --ids "$work/ids" --mode chunk -c 100 --score-from 100
expect 2 'ids and text' ppl "${f32[@]}" --ids "$work/ids" -p x
echo '1 2 128' >"$work/bad"
expect 2 'an id outside the vocabulary' ppl "${f32[@]}" --ids "$work/bad"
echo '1 2 x' >"$work/bad"
expect 2 'no id' ppl "${f32[@]}" --ids "$work/bad"
stderr_has 'names its offset' 'byte offset 4'
expect 7 'a full device' ppl "${f32[@]}" --ids "$work/ids" --logits-out /dev/full

make_stories
f32=(-m "$stories" --attn full -ctk f32 -ctv f32 --json)
if [ -n "$story" ]; then
    printf '%s\n' "$story" >"$work/story"
    expect 0 'the model likes its own story' ppl "${f32[@]}" -f "$work/story"
    check 'perplexity below 2' awk -v p="$(value perplexity)" 'BEGIN { exit !(p > 1 && p < 2) }'
else
    head -12 README.md >"$work/story"
    expect 0 'a text' ppl "${f32[@]}" -f "$work/story"
fi
check 'each byte counts once' test "$(value bytes)" = "$(stat -c %s "$work/story")"
with_bos=$(value scored)
expect 0 'without BOS' ppl "${f32[@]}" -f "$work/story" --bos none
check 'the first token is not scored' test "$(value scored)" = $((with_bos - 1))
expect 0 'llama.cpp puts BOS in front' ppl "${f32[@]}" -f "$work/story" --mode llama.cpp -c 64
check 'of the text, too' test "$(value text)" = "$with_bos" # a newline less, BOS more
