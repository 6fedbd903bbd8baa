#!/usr/bin/env bash
# cca bench: rows, counts, cache bytes and reports; never times.
set -u
. tests/cli/lib.sh

make_random 32,2,4,2,64,128 -c 4096 || { fail 'export --random'; exit; }
few=(-m "$random" -t 1 -r 2 -g 4 -w 16 --no-peaks -q)

expect 0 'rows' bench "${few[@]}" -p 24,8 -n 3 -d 40,0 --attn cca,full --sinks 0 --format csv --svg "$work/b.svg"
stderr_empty 'quiet'
check 'each test at each depth' test "$(cut -d, -f1-5 "$work/out" | tr '\n' ' ')" = \
    "attn,test,n,depth,repetitions $(for a in cca full; do
        echo $a,prefill,8,0,2 $a,prefill,24,0,2 $a,decode,3,0,2 $a,walk,40,0,1 \
            $a,prefill,8,40,2 $a,prefill,24,40,2 $a,decode,3,40,2
    done | tr '\n' ' ')"

# Full: 2 layers * 2 heads * 8 values * 2 bytes * 2 (keys and values) = 128 bytes a token. CCA: cores
# of 2 layers * 4 heads * 32 bytes = 256 bytes for each 4 tokens, and a ring of 20 tokens.
kv() { # attn, test, n, depth
    awk -F, -v a="$1" -v t="$2" -v n="$3" -v d="$4" '$1 == a && $2 == t && $3 == n && $4 == d { print $9 }' "$work/out"
}
check 'cache of full attention' test "$(kv full prefill 24 40) $(kv full decode 3 0)" = "$((64 * 128)) $((3 * 128))"
check 'cache of cores and window' test "$(kv cca prefill 24 40) $(kv cca walk 40 0)" = \
    "$((16 * 256 + 20 * 128)) $((10 * 256 + 20 * 128))"
check 'what is measured at a depth is taken back' test "$(kv full decode 3 40) $(kv full walk 40 0)" = \
    "$((43 * 128)) $((40 * 128))"

# A token's products: 2 layers * 32 * (2 * (4 + 2) * 8 + 3 * 64) multiply-adds, logits 32 * 128; its
# attention at position 0: 2 layers * 4 heads * 8 values * 4 operations.
check 'operations by the definition' awk -F, '
    $1 == "full" && $2 == "decode" && $4 == 0 {
        want = 3 * 2 * (2 * 32 * (96 + 192) + 32 * 128) + 2 * 4 * 8 * 4 * (1 + 2 + 3)
        ratio = $10 * 3 / $6 / want; good = ratio > 0.9999 && ratio < 1.0001
    } END { exit !good }' "$work/out"
check 'a picture' grep -q '</svg>' "$work/b.svg"
check 'with a curve a test and attention' test "$(grep -c 'stroke-width' "$work/b.svg")" = 6

expect 0 'variants of the kernels' bench "${few[@]}" -p 8 -n 2 --attn full --kernels generic,plain --format csv
check 'one after the other' test "$(awk -F, 'NR > 1 { print $2 "," $NF }' "$work/out" | tr '\n' ' ')" = \
    'prefill,generic decode,generic prefill,plain decode,plain '
expect 0 'in a table' bench "${few[@]}" -p 8 -n 2 --attn full --kernels generic,plain
stdout_has 'with a column more' '^\| plain \| full \| decode \| 2 '
expect 2 'no such kernels' bench "${few[@]}" -p 8 --kernels sse9
stderr_has 'are named' "kernels 'sse9': this machine has none, up to "
expect 2 'on another device' bench "${few[@]}" -p 8 --kernels generic --device cuda

expect 0 'json' bench "${few[@]}" -p 0 -n 2 --format json -o "$work/b.json"
if command -v python3 >/dev/null; then check 'parses' python3 -c '
import json, sys
r = json.load(open(sys.argv[1]))
assert r["schema"] == "cca.bench.1" and r["peaks"] is None and r["window_size"] == 16
assert [(x["test"], x["n"], x["share"]) for x in r["rows"]] == [("decode", 2, None)]
assert all(x["tok_s"] > 0 and x["bytes_s"] > 0 for x in r["rows"])' "$work/b.json"; fi
expect 0 'one walk to all depths' bench "${few[@]}" -p 0 -n 2 -d 80,0,40,40 -r 3 --attn full --format csv
check 'of which each is told once' test "$(awk -F, '$2 == "walk" { print $3 "," $5 "," $9 }' "$work/out" | tr '\n' ' ')" = \
    "40,1,$((40 * 128)) 80,1,$((80 * 128)) "

# Of a decode the share is that of the rate of reading; with weights and cache of f32 that of a prefill
# is operations over the f32 peak.
expect 0 'shares' bench -m "$random" -t 1 -r 1 -p 64 -n 2 -ctk f32 -ctv f32 --format json
cp "$work/out" "$work/b.json"
if command -v python3 >/dev/null; then check 'are what the rates are of the peaks' python3 -c '
import json, sys
r = json.load(open(sys.argv[1]))
assert r["peaks"]["f32"] > 0 and r["peaks"]["read"] > 0
for x in r["rows"]:
    want = x["bytes_s"] / r["peaks"]["read"] if x["test"] == "decode" else x["operations_s"] / r["peaks"]["f32"]
    assert x["test"] == "walk" or abs(x["share"] / want - 1) < 1e-6, x' "$work/b.json"; fi
# Weights that the caches hold, and the time of several processors, with a yardstick that fits.
for clock in wall cpu; do
    expect 0 "shares by the $clock clock" bench -m "$random" -t 2 -r 3 -p 8,256 -n 16 -d 0,64 --clock $clock --format csv
    check 'are above 0 and at most 1' awk -F, '
        NR > 1 { n++; bad += !($12 > 0 && $12 <= 1) } END { exit n != 7 || bad }' "$work/out"
done
expect 0 'peaks' bench -m "$random" -t 2 -r 1 -p 4 -n 1 --attn full
stdout_has 'are told' '^Peaks on 2 threads: f32 [0-9]+ GFLOP/s'
stdout_has 'and shares of them' '\| decode \| 1 \| 0 \|.* % \|$'

expect 2 'no number' bench "${few[@]}" -p 8,x
expect 2 'no attention' bench "${few[@]}" --attn ,
expect 2 'an unknown attention' bench "${few[@]}" --attn cca,fast
expect 5 'more than the limit' bench "${few[@]}" --mem-limit 1K
expect 7 'a report that cannot be written' bench "${few[@]}" -p 4 -n 0 -o "$work/none/b.md"
