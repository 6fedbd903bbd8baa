# Tables of what `apart` and `speed` measured, a row a run.
#
#     awk -f markdown.awk -f distances.awk LINES
#
# LINES have, separated by tabs: run, test, length, text, and the columns of the result. Of each length a table of perplexities,
# in brackets the difference to the base's with its standard error, per cent, and the divergence in thousandths of a
# nat; then one of times.

BEGIN { FS = "\t" }
!($1 in known) { known[$1]; run[++runs] = $1 }
$2 == "apart" && !(($3, $4) in has) { has[$3, $4]; text[$3, ++texts[$3]] = $4 }
$2 == "apart" && !($3 in length_known) { length_known[$3]; lengths[++n_lengths] = $3 }
$2 == "apart" {
    apart[$1, $3, $4] = sprintf("%.2f (%+.2f ± %.2f), %.1f", $6, 100 * ($7 - 1), 100 * $8, 1000 * $9)
}
$2 == "speed" && !($3 in speed_known) { speed_known[$3]; speeds[++n_speeds] = $3 }
$2 == "speed" { speed[$1, $3] = sprintf("%.3g s, %.3g ms, %.1f MB", $5, 1000 * $6, $7 / 1e6) }

END {
    for (l = 1; l <= n_lengths; l++) {
        n = lengths[l]
        for (i = 1; i <= texts[n]; i++) cells[i] = text[n, i]
        head(thousands(n) " tokens", cells, texts[n])
        for (r = 1; r <= runs; r++) {
            for (i = 1; i <= texts[n]; i++) cells[i] = apart[run[r], n, text[n, i]]
            row(run[r], cells, texts[n])
        }
        print ""
    }
    if (!n_speeds) exit
    for (i = 1; i <= n_speeds; i++) cells[i] = thousands(speeds[i]) " tokens"
    head("prefill, a token behind it, cache", cells, n_speeds)
    for (r = 1; r <= runs; r++) {
        for (i = 1; i <= n_speeds; i++) cells[i] = speed[run[r], speeds[i]]
        row(run[r], cells, n_speeds)
    }
}
