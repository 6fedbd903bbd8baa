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
