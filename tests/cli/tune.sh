#!/usr/bin/env bash
# cca tune: what it measures is what the other commands say; the choice, the model file, resuming.
set -u
. tests/cli/lib.sh

ship=$(echo models/cca-*.gguf)
model=$work/model.gguf
cp "$ship" "$model"
head -c 12000 examples/paradise-lost.txt >"$work/text"
few=(-m "$model" -f "$work/text" -t 1)
told=("${few[@]}" -g 4,16 -w 16,64,100 --tokens 1500 -c 512 --length 1200 --facts 6 --progress none)
small=("${told[@]}" -q)

column() { # name, g, s: of the last table in csv
    awk -F, -v name="$1" -v g="$2" -v s="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) at = i }
        $2 == g && $3 == s { print $at }' "$work/out"
}
value() { # key of the last --json record
    sed -n 's/.*"'"$1"'": \([-0-9.e+]*\).*/\1/p' "$work/json"
}
close() { # name, a, b
    check "$1" awk -v a="$2" -v b="$3" 'BEGIN { d = a / b - 1; exit !(a > 0 && d < 1e-5 && d > -1e-5) }'
}

# ---- values ----

expect 0 'a sweep' tune "${small[@]}" --format csv --svg "$work/t.svg" --cache-at 5000 --state "$work/state" \
    --max-ppl-increase 2
stderr_empty 'quiet'
cp "$work/out" "$work/table"
check 'a row a point' test "$(cut -d, -f1-6 "$work/out" | tr '\n' ' ')" = \
    'attn,g,s,sinks,recall,cores full,0,0,0,0,0 cca,4,16,4,0,1 cca,4,64,4,0,1 cca,4,100,4,0,1 cca,16,16,16,0,1 cca,16,64,16,0,1 cca,16,256,16,0,1 '
for point in '4 64' '16 256'; do
    read -r g s <<<"$point"
    "$CCA" ppl "${few[@]}" -q --mode chunk -c 512 --tokens 1500 -g "$g" -w "$s" --json >"$work/json"
    close "perplexity of g $g, s $s is that of ppl" "$(column perplexity "$g" "$s")" "$(value perplexity)"
    close 'with its standard error' "$(column standard_error "$g" "$s")" "$(value standard_error)"
    "$CCA" generate -m "$model" -t 1 -p x -c 5000 -g "$g" -w "$s" --dry-run --json >"$work/json"
    check 'cache and memory are those of a run' test "$(column cache_bytes "$g" "$s") $(column memory_bytes "$g" "$s")" = \
        "$(($(value cores) + $(value window))) $(($(value total) - $(value program)))"
done
"$CCA" ppl "${few[@]}" -q --mode chunk -c 512 --tokens 1500 --attn full --json >"$work/json"
close 'perplexity of full attention' "$(column perplexity 0 0)" "$(value perplexity)"
check 'facts are found' awk -v n="$(column right 16 256)" 'BEGIN { exit !(n >= 5 && n <= 6) }'
check 'of as many as asked for' test "$(column facts 16 64)" = 6
check 'speeds are told' awk -F, 'NR > 1 && !($14 > 0 && $15 > 0 && $16 > 32 / $15) { bad = 1 } END { exit bad }' "$work/out"
check 'increases are over the lowest' awk -F, 'NR == 1 { next } $1 == "cca" { p[NR] = $7; i[NR] = $9; if (!low || $7 < low) low = $7 }
    END { for (r in p) { d = i[r] - 100 * (p[r] / low - 1); if (d > 1e-3 || d < -1e-3) exit 1 } exit !low }' "$work/out"
check 'the smallest cache within the limit is chosen' awk -F, 'NR > 2 && $9 <= 2 && (!least || $12 < least) { least = $12 }
    NR > 1 && $18 { n++; chosen = $12 } END { exit !(n == 1 && chosen == least) }' "$work/out"
check 'and is in the Pareto set, full attention is not' awk -F, 'NR > 1 && $18 && $17 { good = 1 } $1 == "full" && ($17 || $18) { exit 1 }
    END { exit !good }' "$work/out"
check 'a picture' grep -q '</svg>' "$work/t.svg"
check 'of two panels, with a curve a window' test "$(grep -c 'stroke-width' "$work/t.svg")" = 10

expect 0 'the same again' tune "${small[@]}" --format csv --cache-at 5000 --state "$work/state" --max-ppl-increase 2
check 'is the same table to the byte' cmp "$work/out" "$work/table"
expect 0 'not quiet' tune "${told[@]}" --state "$work/state"
stderr_has 'it says what is reused' "state $work/state: 7 of 7 points are there"
stderr_has 'and what is left out' 'g 16, s 100: left out, s is no multiple of g'
stdout_has 'the table has the shape of Markdown' '^\| 16 \| 256 \| 0 \| yes \| [0-9.]+ \| [-+0-9.]+ % \| [56] of 6 \| '
stdout_has 'with a signature' '^signature +model=[0-9a-f]{16} text=[0-9a-f]{16} W=512 tokens=1500 .* facts=6 template=plain'
expect 0 'json' tune "${small[@]}" --state "$work/state" --format json -o "$work/t.json"
stdout_empty 'into a file'
if command -v python3 >/dev/null; then check 'parses' python3 -c '
import json, sys
r = json.load(open(sys.argv[1]))
assert r["schema"] == "cca.tune.1" and r["choice"] is None and r["limits"]["ppl_increase"] is None
assert r["settings"]["window"] == 512 and r["settings"]["facts"] == 6 and len(r["points"]) == 7
assert r["points"][0]["group_size"] is None and r["points"][0]["attn"] == "full"
assert all(p["reused"] and p["prefill_tok_s"] > 0 for p in r["points"])' "$work/t.json"; fi

# The paper's ablation is the row and the column through the model's own sizes.
expect 0 'a cross' tune "${small[@]}" --cross --no-full --no-facts --format csv --no-state
check 'its points' test "$(cut -d, -f2-3 "$work/out" | tr '\n' ' ')" = 'g,s 4,256 16,16 16,64 16,256 '
check 'without facts' test "$(column facts 16 64)" = 0
expect 0 'a memory limit' tune "${small[@]}" --state "$work/state" --format csv --mem-limit "$(column memory_bytes 16 64)"
check 'leaves out what takes more' test -z "$(column perplexity 4 16)$(column prefill_tok_s 16 256)"
check 'and chooses the best of the others' test "$(column chosen 16 64)$(column chosen 16 16)" = 10

# ---- the model file ----

sizes() {
    "$CCA" info "$1" --json | sed -n 's/.*"group_size": \([0-9a-z]*\), "window_size": \([0-9a-z]*\).*/\1 \2/p'
}
attention() {
    "$CCA" info "$1" --json | sed -n 's/.*"sinks": \([0-9a-z]*\), "recall": \([0-9a-z]*\), "cores": \([0-9a-z]*\).*/\1 \2 \3/p'
}
fingerprint() {
    "$CCA" info "$1" --json | sed -n 's/.*"fingerprint": "\([0-9a-f]*\)".*/\1/p'
}
expect 0 'writing the choice' tune "${small[@]}" --state "$work/state" --max-ppl-increase 100
check 'changes nothing unless it is asked for' cmp "$model" "$ship"
expect 0 'writing the choice' tune "${small[@]}" --state "$work/state" --max-ppl-increase 100 --write --format csv
check 'puts it into the file' test "$(sizes "$model")" = '16 16'
check 'with all that it is' test "$(attention "$model")" = '16 0 true'
expect 0 'its checksums hold' info "$model" --check
check 'and the fingerprint is the same' test "$(fingerprint "$model")" = "$(fingerprint "$ship")"
check 'so the points are still those of the model' grep -q "model=$(fingerprint "$model")" "$work/state"
chmod 444 "$model"
expect 7 'a file that is read-only' tune "${small[@]}" --state "$work/state" --max-ppl-increase 100 --write
stderr_has 'is named before anything is measured' 'model.gguf: .*(read-only|Permission denied)'
chmod 644 "$model"
cp "$ship" "$model"

gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
make_random 32,2,4,2,64,640 -c 4096 --tokenizer "$work/tokenizer.model" || fail 'export --random'
cp "$random" "$work/old.gguf"
tiny=(-m "$random" -f "$work/text" -t 1 -q --tokens 300 --length 300 -g 2)
expect 2 'a model without a template' tune "${tiny[@]}" -w 32
stderr_has 'names the way out' 'chat-template NAME.*--no-facts'
check 'a model without the keys' test "$(sizes "$random")" = 'null null'
expect 0 'gets them' tune "${tiny[@]}" -w 32 --no-state --no-facts --min-tps 0.001 --write --mem-limit 1G --format csv
chosen=$(awk -F, 'NR > 1 && $18 { print $2, $3 }' "$work/out")
all=$(awk -F, 'NR > 1 && $18 { print $4, $5, $6 ? "true" : "false" }' "$work/out")
check 'with the choice' test "$(sizes "$random") $(attention "$random")" = "$chosen $all"
expect 0 'and its checksums hold' info "$random" --check
for file in old random; do
    [ $file = old ] && path=$work/old.gguf || path=$random
    "$CCA" info "$path" --json --keys --tensors | tr '{}' '\n\n' | sed 's/, "offset": [0-9]*//' |
        grep -v '"file"' | sed -E 's/"cca.(group_size|window_size|sinks|recall|cores)": [0-9a-z]*, //g;
            s/"(group_size|window_size|sinks|recall|cores)": [0-9a-z]*, //g;
            s/, "cca.(group_size|window_size|sinks|recall|cores)": [0-9a-z]*//g; s/"bytes": [0-9]*, "name"/"name"/' >"$work/$file.info"
done
check 'and everything else is as it was' cmp "$work/old.info" "$work/random.info"
check 'nothing is left beside it' test -z "$(ls "$work" | grep tmp)"

# ---- recall and cores ----

points() { # of the last table in csv
    cut -d, -f1-6 "$work/out" | tail -n +2 | tr '\n' ' '
}
cp "$work/old.gguf" "$random"
expect 0 'weights that nobody tuned' tune "${tiny[@]:0:9}" --no-state --no-facts --format csv
check 'are tried with recall' test "$(points)" = "full,0,0,0,0,0 cca,16,1024,16,0,1 $(
    for recall in 1024 2048 4096; do for cores in 1 0; do echo "recall,16,1024,16,$recall,$cores"; done; done | tr '\n' ' ')"
stderr_empty 'quietly'
recall=("${tiny[@]:0:9}" -g 2,4 -w 16 --recall 16,20 --cores both --no-facts --state "$work/recall")
expect 0 'lists of all' tune "${recall[@]}" --format csv --svg "$work/r.svg" --max-ppl-increase 1000
check 'are points each with each, beside the own one' test "$(points)" = "full,0,0,0,0,0 $(
    for g in 2 4; do for recall in 16 20; do for cores in 1 0; do echo "recall,$g,16,$g,$recall,$cores"; done; done; done | tr '\n' ' ')recall,16,1024,16,2048,0 "
for point in '2 16 20 1 --cores' '4 16 16 0 --no-cores'; do
    read -r g s n cores option <<<"$point"
    row() { awk -F, -v name="$1" -v g="$g" -v n="$n" -v c="$cores" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) at = i }
        $2 == g && $5 == n && $6 == c { print $at }' "$work/out"; }
    "$CCA" ppl -m "$random" -f "$work/text" -t 1 -q --mode chunk --tokens 300 -g "$g" -w "$s" --attn recall --recall "$n" "$option" --json >"$work/json"
    close "perplexity of recall $n, g $g is that of ppl" "$(row perplexity)" "$(value perplexity)"
    "$CCA" generate -m "$random" -t 1 -p x -c "$("$CCA" tune "${recall[@]}" --format json | sed -n 's/.*"cache_at": \([0-9]*\).*/\1/p')" -g "$g" -w "$s" \
        --attn recall --recall "$n" "$option" --dry-run --json >"$work/json"
    check 'cache and memory are those of a run' test "$(row cache_bytes) $(row memory_bytes)" = \
        "$(($(value cores) + $(value bounds) + $(value rows) + $(value window))) $(($(value total) - $(value program)))"
done
check 'time is that of document and decode' awk -F, -v n="$(sed -n 's/.*document=\([0-9]*\).*/\1/p' "$work/recall")" '
    NR > 1 { d = $16 / (n / $14 + 32 / $15) - 1; if (d > 1e-3 || d < -1e-3) exit 1 }' "$work/out"
check 'a picture against time' grep -q '>time of [0-9]* tokens read<' "$work/r.svg"
check 'with recall beside points' test "$(grep -c '>20</text>' "$work/r.svg")" -ge 4
cp "$work/out" "$work/table"
expect 0 'the same again' tune "${recall[@]}" --format csv --max-ppl-increase 1000
check 'is the same table' cmp "$work/out" "$work/table"
expect 0 'the lines through the own point' tune "${recall[@]}" --cross --no-full --format csv -g 4,16 -w 64 --recall 16
check 'and these only' test "$(points)" = 'recall,4,1024,4,2048,0 recall,16,64,16,2048,0 recall,16,1024,16,16,0 recall,16,1024,16,2048,1 recall,16,1024,16,2048,0 '
expect 0 'writing the choice' tune "${recall[@]}" --format csv --max-ppl-increase 1000 --write
check 'puts recall and cores into the file, too' test "$(sizes "$random") $(attention "$random")" = \
    "$(awk -F, 'NR > 1 && $18 { print $2, $3, $4, $5, $6 ? "true" : "false" }' "$work/out")"
"$CCA" ppl -m "$random" -f "$work/text" -t 1 -q --mode chunk --tokens 300 --json >"$work/json"
close 'which other commands then take' "$(awk -F, 'NR > 1 && $18 { print $7 }' "$work/out")" "$(value perplexity)"
cp "$work/old.gguf" "$random"
expect 0 'sinks are not tried' tune "${recall[@]}" --no-state --sinks 2 --format csv
stderr_empty 'quietly'
check 'but taken, by groups that fit' test "$(cut -d, -f2,4 "$work/out" | sort -u | tr '\n' ' ')" = '0,0 2,2 g,sinks '
expect 0 'rows of another type' tune "${recall[@]}" --no-state -ctr f32 --format json
stdout_has 'are told' '"cache_type_r": "f32"'
expect 3 'a state without them' tune "${recall[@]}" -ctr f32
stderr_has 'is of others' 'measured with rows=window, this run has rows=f32'
sed -i 's/cca.tune.state.2/cca.tune.state.1/' "$work/recall"
expect 3 'a state of another kind' tune "${recall[@]}"
stderr_has 'is told by its name' "recall: a state of kind cca.tune.state.1, this program's are cca.tune.state.2"

# ---- resuming ----

anew=("${few[@]}" -g 4,8,16,32 -w 32,64 --tokens 2500 --length 2000 --facts 4 --progress none)
long=("${anew[@]}" -c 1024 --state "$work/resumed")
finished() {
    grep -c group_size "$work/resumed" 2>/dev/null
}
stop_with() { # signal: when two points more are there
    local before
    before=$(($(finished) + 0))
    "$CCA" tune "${long[@]}" >"$work/out" 2>"$work/err" &
    until [ $(($(finished) + 0)) -ge $((before + 2)) ] || ! kill -0 $! 2>/dev/null; do sleep 0.05; done
    kill "-$1" $! 2>/dev/null
    wait $! 2>/dev/null
    code=$?
}
no_speeds() {
    cut -d, -f1-13 "$1"
}
expect 0 'an uninterrupted run' tune "${anew[@]}" -c 1024 --no-state --format csv
cp "$work/out" "$work/whole"
stop_with KILL
check 'kill -9' test "$code" = 137
kept=$(finished)
check 'leaves the finished points' test "$kept" -ge 2 -a "$kept" -lt 10
cp "$work/resumed" "$work/first"
stop_with INT
check 'an interrupt is exit 130' test "$code" = 130
stdout_empty 'writes no table'
stderr_has 'says what is kept' "interrupted; [0-9]+ of 10 points are kept in $work/resumed"
expect 0 'the same command goes on' tune "${long[@]}" --format csv
stderr_has 'and says what it reuses' 'state .*: [0-9]+ of 10 points are there'
check 'the table is that of an uninterrupted run' test "$(no_speeds "$work/out")" = "$(no_speeds "$work/whole")"
check 'with the speeds that were kept' awk -F, -v state="$(tr -d ' \n' <"$work/first")" '
    NR > 1 && match(state, "\"group_size\":" $2 ",\"window_size\":" $3 ",\"sinks\":" $4 ",[^}]*\"prefill_tok_s\":[0-9.]*") {
        kept = substr(state, RSTART, RLENGTH); sub(/.*:/, "", kept); n++
        if (kept / $14 > 1.0001 || kept / $14 < 0.9999) exit 1
    } END { exit n < 2 }' "$work/out"
cp "$work/out" "$work/table"
expect 0 'once more' tune "${long[@]}" --format csv
check 'is the same table to the byte' cmp "$work/out" "$work/table"
expect 3 'a state of other settings' tune "${anew[@]}" -c 1000 --state "$work/resumed"
stderr_has 'names the first difference' 'resumed: measured with W=1024, this run has W=1000'
echo '{}' >"$work/bad"
expect 3 'a file that is no state' tune "${small[@]}" --state "$work/bad"
expect 7 'a state that cannot be written' tune "${tiny[@]}" --no-facts -w 16 --state "$work/none/state"
check 'a state of its own is in the cache folder' bash -c '"$0" tune "${@:2}" --no-facts >"$1" &&
    ls "$XDG_CACHE_HOME"/cca/tune-????????????????.json' "$CCA" "$work/out" "${tiny[@]}" -w 16

# ---- what makes no sense ----

expect 8 'limits that nothing meets' tune "${small[@]}" --state "$work/state" --min-tps 1e9
stderr_has 'are told' 'none of 7 points meets the limits'
stdout_has 'behind the table' '^\| full \|'
expect 2 'writing without a limit' tune "${small[@]}" --write
stderr_has 'names the limits' 'max-ppl-increase.*mem-limit.*max-time.*min-tps.*min-facts'
expect 2 'full attention left out and wanted for its time' tune "${small[@]}" --max-time 50% --no-full
stderr_has 'is told' 'max-time in per cent: --no-full leaves full attention out'
for bad in x % -1 0 3s; do expect 2 "no time: $bad" tune "${small[@]}" --max-time "$bad"; done
expect 2 'rows of a type, and no recall' tune "${small[@]}" -ctr q8_0
stderr_has 'that has any' 'cache-type-r q8_0: no point recalls'
expect 8 'a time that nothing meets' tune "${small[@]}" --state "$work/state" --max-time 0.0001
expect 0 'a share that all meet' tune "${small[@]}" --state "$work/state" --max-time 100000% --format csv
expect 2 'full attention left out and wanted' tune "${small[@]}" --against full --no-full
expect 2 'facts left out and wanted' tune "${small[@]}" --no-facts --min-facts 3
expect 2 'no number' tune "${small[@]}" --max-ppl-increase x
expect 2 'no list' tune "${small[@]}" -g 4,x
expect 2 'groups of none' tune "${small[@]}" -g 0
expect 5 'full attention over the limit and wanted' tune "${small[@]}" --state "$work/state" --against full --mem-limit 1K
expect 4 'a text that is too short' tune -m "$model" -p 'A few words.' -q
expect 4 'a document longer than the text' tune "${few[@]}" -q --length 100000
stderr_has 'has both numbers' 'makes a document of [0-9]+ tokens, --length wants 100000'
expect 4 'too many facts for the document' tune "${few[@]}" -q --length 200 --facts 30
expect 4 'windows beyond the trained length' tune -m "$random" -f "$work/text" -c 5000 --no-facts -q
"$CCA" export "$random" -c 100 -q -o "$work/short.gguf"
expect 4 'a trained length without room for facts' tune -m "$work/short.gguf" -f "$work/text" --chat-template plain -q
expect 7 'a table that cannot be written' tune "${small[@]}" --state "$work/state" -o "$work/none/t"
cp "$work/t.json" "$work/kept"
expect 7 'a picture that cannot be written' tune "${small[@]}" --state "$work/state" -o "$work/t.json" --svg "$work/none/t.svg"
check 'leaves the table that was there' cmp "$work/t.json" "$work/kept"
