# Compares runs on tasks: a table with a row for each task and length, a column for each run.
#
#     awk -v least=30 -f markdown.awk -f compare.awk SCORES
#
# SCORES has a line a question, separated by tabs: run, task, length, document, score from 0 to 1. The first
# run is what the others are compared with, on the same questions: per cent, in brackets the mean
# difference with its standard error. Questions about one document depend on each other, so the error is
# that of the documents' sums. The last rows are the means over all rows where the first run has `least` per cent or
# more, and the share of the first run's mean that a run has, with its error (of a ratio, to first order).

BEGIN { FS = "\t" }
{
    sub(/^choices-.*/, "choices", $2)
    row_ = $2 SUBSEP $3
    paper = row_ SUBSEP $4
    if (!($1 in run_known)) { run_known[$1]; run[++runs] = $1 }
    if (!(row_ in row_known)) { row_known[row_]; rows[++n_rows] = row_ }
    if (!(paper in paper_known)) { paper_known[paper]; papers[row_, ++n_papers[row_]] = paper }
    asked[$1, paper]++
    sum[$1, paper] += $5
}

# Over the documents of a row that both runs were asked about: questions, means, and the standard error of
# the mean of (score - ratio · the first run's score).
function pair(name, row_, ratio,    i, paper, documents, rest, squares) {
    questions = mean = first_mean = error = 0
    for (i = 1; i <= n_papers[row_]; i++) {
        paper = papers[row_, i]
        if (!asked[name, paper] || asked[run[1], paper] != asked[name, paper]) continue
        documents++
        questions += asked[name, paper]
        mean += sum[name, paper]
        first_mean += sum[run[1], paper]
    }
    if (!questions) return 0
    mean /= questions
    first_mean /= questions
    for (i = 1; i <= n_papers[row_]; i++) {
        paper = papers[row_, i]
        if (!asked[name, paper] || asked[run[1], paper] != asked[name, paper]) continue
        rest = sum[name, paper] - ratio * sum[run[1], paper] - asked[name, paper] * (mean - ratio * first_mean)
        squares += rest * rest
    }
    if (documents > 1) error = sqrt(squares * documents / (documents - 1)) / questions
    return questions
}

# The same as means over the rows that count.
function pair_all(name, ratio,    i, all, means, firsts, squares) {
    counted = 0
    for (i = 1; i <= n_rows; i++) {
        if (!counts[rows[i]] || !pair(name, rows[i], ratio)) continue
        counted++
        all += questions
        means += mean
        firsts += first_mean
        squares += error * error
    }
    if (!counted) return 0
    questions = all
    mean = means / counted
    first_mean = firsts / counted
    error = sqrt(squares) / counted
    return questions
}

function cell_of(name, any) {
    if (!any) return ""
    if (name == run[1]) return sprintf("%.1f", 100 * mean)
    return sprintf("%.1f (%+.1f ± %.1f)", 100 * mean, 100 * (mean - first_mean), 100 * error)
}

END {
    names[1] = "tokens"
    names[2] = "questions"
    for (k = 1; k <= runs; k++) names[k + 2] = run[k]
    head("score in %", names, runs + 2)
    for (i = 1; i <= n_rows; i++) {
        split(rows[i], part, SUBSEP)
        cells[1] = thousands(part[2])
        for (k = 1; k <= runs; k++) {
            any = pair(run[k], rows[i], 1)
            if (k == 1) { cells[2] = any; counts[rows[i]] = 100 * mean >= least }
            cells[k + 2] = cell_of(run[k], any)
        }
        row(part[1], cells, runs + 2)
    }
    cells[1] = ""
    for (k = 1; k <= runs; k++) {
        any = pair_all(run[k], 1)
        if (k == 1) cells[2] = any + 0
        cells[k + 2] = cell_of(run[k], any)
        shares[k + 2] = ""
        if (k == 1 || !any || !first_mean) continue
        ratio = mean / first_mean
        pair_all(run[k], ratio)
        shares[k + 2] = sprintf("%.1f ± %.1f %%", 100 * ratio, 100 * error / first_mean)
    }
    row("mean where " run[1] " has " least " or more", cells, runs + 2)
    row("share of " run[1], shares, runs + 2)
}
