#!/usr/bin/env bash
# The scripts in quality/: documents with planted facts, sums by position, answers, tables, heat map.
set -u
. tests/cli/lib.sh
export LC_ALL=C

# A book of 400 paragraphs, each of 1 to 5 sentences that tell where they stand.
awk 'BEGIN {
    for (i = 1; i <= 400; i++) {
        for (j = 1; j <= 1 + i * 7 % 5; j++) printf "%sThis is the sentence %d of paragraph %d.", (j > 1 ? " " : ""), j, i
        print "\n"
    }
}' >"$work/book.txt"
document() { # name, seed, set, facts a depth
    awk -v bytes=20000 -v seed="$2" -v set="$3" -v per="$4" -v out="$work/$1" -f quality/text.awk \
        -f quality/document.awk quality/facts.txt RS= "$work/book.txt"
}
document a 1 known 1 && document b 1 known 1 && document c 2 known 1 && document d 3 new 5
check 'the same seed gives the same document' cmp "$work/a.txt" "$work/b.txt"
check 'another seed another one' test "$(cmp -s "$work/a.txt" "$work/c.txt"; echo $?)" = 1
check 'about as long as asked for' awk -v n="$(wc -c <"$work/a.txt")" 'BEGIN { exit !(n > 19900 && n < 21000) }'
check 'a fact at each depth' test "$(cut -f1 "$work/a.tsv" | tr '\n' ' ')" = '0 10 20 30 40 50 60 70 80 90 100 '
check 'depths within 1.5 %' awk -F'\t' '{ d = $1 - $2; if (d < -1.5 || d > 1.5) exit 1 }' "$work/a.tsv"
check 'five facts at each depth' test "$(cut -f1 "$work/d.tsv" | sort -n | uniq -c | awk '{ print $1 }' | uniq)" = 5
check 'all questions differ' test -z "$(cut -f3 "$work/d.tsv" | sort | uniq -d)"
check 'each right answer stands in the text' awk -F'\t' '
    NR == FNR { right[FNR] = $4; n = FNR; next }
    { for (i = 1; i <= n; i++) if (index($0, right[i])) found[i] = 1 }
    END { for (i = 1; i <= n; i++) if (!(i in found)) exit 1 }' "$work/d.tsv" "$work/d.txt"
check 'known documents never vary' test "$(cat "$work/a.txt" "$work/a.tsv" | cksum)" = '3535388812 21173'

# A wording stands in train/facts.txt, where [a|b] is one of both; ~ there means held out.
check 'known wordings are trained, new ones held out' awk '
    function expand(text,    i, n, part, before, after) {
        if (!match(text, /\[[^\]]*\]/)) { there[text] = held; return }
        before = substr(text, 1, RSTART - 1)
        after = substr(text, RSTART + RLENGTH)
        n = split(substr(text, RSTART + 1, RLENGTH - 2), part, "|")
        for (i = 1; i <= n; i++) expand(before part[i] after)
    }
    function add(text) {
        held = kind_held || text ~ /^~/
        sub(/^~/, "", text)
        expand(text)
    }
    NR == FNR && /^~~/ { kind_held = 1; next }
    NR == FNR && /^$/ { kind_held = 0 }
    NR == FNR && !/^#/ {
        if (sub(/^[a-z_]+: /, "")) { n = split($0, asked, / \| /); for (i = 1; i <= n; i++) add(asked[i]) }
        else add($0)
        next
    }
    /^(known|new) / {
        split($0, part, / \| /)
        for (i = 2; i <= 3; i++)
            if (!(part[i] in there) || there[part[i]] != (part[1] == "new")) { print part[i]; bad = 1 }
    }
    END { exit bad }' train/facts.txt quality/facts.txt

# Two windows of 512 and a rest; each token costs its position.
awk 'BEGIN { for (w = 0; w < 2; w++) for (i = 1; i < 512; i++) print 0, 0, i + w; print 0, 0, 9 }' >"$work/nll"
check 'sums by position' test "$(awk -v window=512 -f quality/bands.awk "$work/nll" | tr '\t\n' ' ;')" = \
    '0 0 256 255 32640.0000;0 256 512 256 98176.0000;1 0 256 255 32895.0000;1 256 512 256 98432.0000;'

printf '0\t0.0\tWho?\tAnn "A" Lee\n50\t49.0\tWhat?\t48213\n' >"$work/doc.tsv"
cat >"$work/answers" <<'END'
{"question": "Who?", "text": " Ann \"A\" Lee", "stop_reason": "stop", "tokens": {"prompt": 9, "prefilled": 2014, "generated": 1}, "timing": {"load_s": 0.1, "prefill_s": 0.5}, "event": "answer"}
{"question": "What?", "text": "48214", "stop_reason": "stop", "tokens": {"prompt": 9, "prefilled": 14, "generated": 1}, "timing": {"load_s": 0.1, "prefill_s": 0.1}, "event": "answer"}
{"schema": "cca.ask.1", "event": "end"}
END
check 'answers' test "$(awk -v where=2/0 -v spent=1.5 -f quality/record.awk -f quality/answers.awk "$work/doc.tsv" "$work/answers" | tr '\t\n' ',;')" = \
    '2014,0.5,2/0,1.5;0,1,Ann "A" Lee,Ann "A" Lee;50,0,48213,48214;'

# Full attention costs 0.1 nats a token more in one window and 0.3 in the other: +0.2 ± 0.1 nats.
for i in 0 1; do
    printf 'main\tcca\tppl\t8192\tbook\t%d\t0\t256\t255\t%f\n' $i $((255 * (3 + i)))
    printf 'main\tfull\tppl\t8192\tbook\t%d\t0\t256\t255\t%f\n' $i "$(awk "BEGIN { print 255 * (3.1 + $i * 1.2) }")"
    printf 'main\tcca\tppl\t8192\tbook\t%d\t2048\t4096\t2048\t%f\n' $i 4096
    printf 'main\tcca\tfacts\t8192\tknown-1\t%d\t%d\tx\tx\n' $((i * 50)) $i
done >"$work/measured"
for run in cca:6 full:9 cca:8:256:4.5; do
    printf 'main\t%s\tspeed\t32768\tknown-1\t32000\t20\t2/0\t%s\n' "${run%:*}" "${run##*:}"
done >>"$work/measured"
for setting in 8:256 16:256 full; do # in the model's file: 16:256
    printf 'main\t%s\tcache\t131072\t16:256\t5000000\n' $setting
done >>"$work/measured"
table() { awk -v table="$1" -v length_="${2:-0}" -f quality/markdown.awk -f quality/tables.awk "$work/measured"; }
table lengths >"$work/out"
stdout_has 'perplexity at 2,048' '^\| CCA \| 33\.12 \|'
stdout_has 'and at 8,192' '^\| CCA \| 33\.12 \| 8\.72 \|'
stdout_has 'the paired difference' '^\| full attention \| 40\.45 \(\+22\.1 ± 12\.2 %\) \|'
table bands 8192 >"$work/out"
stdout_has 'by position' '^\| 0 – 255 \| 33\.12 \| \+22\.1 ± 12\.2 % \|$'
stdout_has 'where one run has nothing' '^\| 2,048 – 4,095 \| 7\.39 \| \|$'
table facts >"$work/out"
stdout_has 'planted facts' '^\| CCA \| \| 50\.0 % of 2 \|'
table ablation >"$work/out"
stdout_has 'processor time' '^\| 16, 256 \| 0 \| \| 1\.00 \(6\.0 s\) \| 5\.0 MB \|$'
stdout_has 'of other settings' '^\| 8, 256 \| \| \| 0\.75 \| 5\.0 MB \|$'
stdout_has 'and of full attention' '^\| full attention \| .* \| 1\.50 \| 5\.0 MB \|$'
check 'a heat map' test "$(table depths | awk -f quality/heatmap.awk | grep -c 'fill="#f5edd6"\|fill="#1d4e88"')" = 2

expect_skip=$(OUT="$work/quality" BOOKS="$work/none.tar.xz" quality/run.sh quick model.gguf)
check 'no books, no measurement' test "$?:${expect_skip%%:*}" = 0:SKIPPED
check 'make quality runs it, though a folder has that name' test "$(make -n quality | grep -c '^quality/run.sh quick')" = 1

# Distances: of a record, and their tables.
echo '{"perplexity": 21.5, "tokens": {"text": 9, "scored": 8, "bytes": 7}, "base": {"perplexity": 20.0, "ratio": 1.075, "ratio_error": 0.004, "kl": 0.0123, "kl_99": 0.2, "kl_999": 0.4, "same_top": 0.91}}' |
    awk -f quality/record.awk -f quality/apart.awk >"$work/apart"
check 'a record with a base' test "$(tr '\t' ' ' <"$work/apart")" = '8 21.5 1.075 0.004 0.0123 0.2 0.91'
{
    printf 'full\tapart\t2048\tcode\t8\t20.0\t1\t0\t0\t0\t1\n'
    printf 'mine\tapart\t2048\tcode\t%s\n' "$(cat "$work/apart")"
    printf 'mine\tspeed\t2048\tdecode\t1.234\t0.0056\t7800000\n'
} | awk -f quality/markdown.awk -f quality/distances.awk >"$work/table"
check 'distances in a table' grep -qxF '| mine | 21.50 (+7.50 ± 0.40), 12.3 |' "$work/table"
check 'under the length' grep -qxF '| 2,048 tokens | code |' "$work/table"
check 'times behind them' grep -qxF '| mine | 1.23 s, 5.6 ms, 7.8 MB |' "$work/table"
check 'and none where there are none' grep -qxF '| full | |' "$work/table"
