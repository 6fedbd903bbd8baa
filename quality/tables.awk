# Makes the tables of docs/QUALITY.md from measurements.
#
#     awk -v table=lengths -f markdown.awk -f tables.awk MEASUREMENTS
#
# Tables: lengths, bands (with -v length_=8192), facts, depths (for heatmap.awk), ablation, models.
# MEASUREMENTS is what tables.sh collects, separated by tabs: label of the model, attention, test,
# length, item; then for
#     ppl      window, first position of the band, one behind its last, tokens, nats
#     facts    depth, 1 or 0, the right answer, the given one
#     speed    tokens, seconds, where, processor time
#     cache    (attention g:s or full; as item the model's own g:s) bytes of keys and values at 131,072 tokens
#     model    its attention in the place of `attention`, fingerprint, the label to compare with
#
# Perplexities of two runs are compared on the same windows: the mean over windows of the difference in
# nats a token, with its standard error over the windows, told as per cent of perplexity.

BEGIN {
    FS = "\t"
    split("cca full mean max window sinks:4", kinds, " ")
    title["cca"] = "CCA"
    title["full"] = "full attention"
    title["mean"] = "mean pooling"
    title["max"] = "max pooling"
    title["window"] = "window only"
    title["sinks:4"] = "window and 4 sinks"
}

{ run = $1 SUBSEP $2 }
$3 == "ppl" {
    key = run SUBSEP $4
    window = $5 " " $6
    if (!((key, window) in known)) {
        known[key, window]
        windows[key, ++n_windows[key]] = window
    }
    tokens[key, window, $7] = $9
    nats[key, window, $7] = $10
}
$3 == "facts" {
    set = $5
    sub(/-.*/, "", set)
    asked[run, $4, set]++
    right[run, $4, set] += $7
    asked[run, $4, $5]++
    right[run, $4, $5] += $7
    asked_at[run, $4, set, $6]++
    right_at[run, $4, set, $6] += $7
}
$3 == "speed" {
    place[run, $4, $5] = $8
    spent[run, $4, $5] = $9
}
$3 == "cache" {
    cache[$2] = $6
    setting[++settings] = $2
    own_setting = $5
}
$3 == "model" {
    model[++models] = $1
    own[$1] = $2
    against[$1] = $7
}

# Sums tokens and nats of a window over the bands from position a to b; 0 if it was not measured.
function add_up(key, window, a, b,    from) {
    sum_tokens = sum_nats = 0
    for (from = 0; from < b; from = from ? 2 * from : 256)
        if (from >= a && (key, window, from) in tokens) {
            sum_tokens += tokens[key, window, from]
            sum_nats += nats[key, window, from]
        }
    return sum_tokens
}

# Perplexity of a run between two positions; "" if there is none.
function perplexity(key, a, b,    i, all_tokens, all_nats) {
    for (i = 1; i <= n_windows[key]; i++) {
        add_up(key, windows[key, i], a, b)
        all_tokens += sum_tokens
        all_nats += sum_nats
    }
    return all_tokens ? sprintf("%.2f", exp(all_nats / all_tokens)) : ""
}

# "+1.2 ± 0.3 %": perplexity of one run against another's between two positions.
function compare(key, other, a, b,    i, window, d, n, sum, squares, mean, error) {
    for (i = 1; i <= n_windows[key]; i++) {
        window = windows[key, i]
        if (!((other, window) in known) || !add_up(key, window, a, b)) continue
        d = sum_nats / sum_tokens
        add_up(other, window, a, b)
        d -= sum_nats / sum_tokens
        n++
        sum += d
        squares += d * d
    }
    common = n + 0
    if (!n) return ""
    mean = sum / n
    error = n > 1 ? sqrt((squares / n - mean * mean > 0 ? squares / n - mean * mean : 0) / (n - 1)) : 0
    return sprintf("%+.1f", 100 * (exp(mean) - 1)) (n > 1 ? sprintf(" ± %.1f", 100 * exp(mean) * error) : "") " %"
}

# A cell: perplexity and, where there is another run to compare with, the difference. Where that run has
# more windows, the difference alone, since perplexities of different windows do not compare.
function cell(key, other, a, b,    text, difference) {
    text = perplexity(key, a, b)
    if (text == "") return ""
    if (key == other) return text
    difference = compare(key, other, a, b)
    if (difference == "") return text
    if (common < n_windows[other]) return difference ", " common " of " n_windows[other] " windows"
    return text " (" difference ")"
}

# Windows of 8,192 tokens serve for 2,048, too: their first positions.
function length_cell(run_, other, length_) {
    if (length_ == 2048) return cell(run_ SUBSEP 8192, other SUBSEP 8192, 0, 2048)
    return cell(run_ SUBSEP length_, other SUBSEP length_, 0, length_)
}

function head_of_lengths(first, list, n,    i) {
    for (i = 1; i <= n; i++) names[i] = thousands(list[i]) " tokens"
    head(first, names, n)
}

function table_lengths(    i, j, n, k, list, cells) {
    n = split("2048 8192 32768 131072", list, " ")
    head_of_lengths("perplexity", list, n)
    for (k = 1; k in kinds; k++) {
        for (j = 1; j <= n; j++) cells[j] = length_cell("main" SUBSEP kinds[k], "main" SUBSEP "cca", list[j])
        row(title[kinds[k]], cells, n)
    }
}

function table_bands(    k, n, from, to, names, cells) {
    for (k = 1; k in kinds; k++)
        if (n_windows["main", kinds[k], length_]) {
            names[++n] = title[kinds[k]]
            column[n] = "main" SUBSEP kinds[k] SUBSEP length_
        }
    head("positions", names, n)
    for (from = 0; from < length_; from = to) {
        to = from ? 2 * from : 256
        cells[1] = perplexity(column[1], from, to)
        for (k = 2; k <= n; k++) cells[k] = compare(column[k], column[1], from, to)
        row(thousands(from) " – " thousands(to - 1), cells, n)
    }
}

function share(key, set) {
    if (!asked[key, set]) return ""
    return sprintf("%.1f %% of %d", 100 * right[key, set] / asked[key, set], asked[key, set])
}

function table_facts(    j, k, n, list, cells, set, any) {
    n = split("2048 8192 32768 65536 131072", list, " ")
    head_of_lengths("answers that are right to the letter", list, n)
    for (set = 1; set <= 2; set++)
        for (k = 1; k in kinds; k++) {
            any = 0
            for (j = 1; j <= n; j++) {
                cells[j] = share("main" SUBSEP kinds[k] SUBSEP list[j], set == 1 ? "known" : "new")
                if (cells[j] != "") any = 1
            }
            if (any) row(title[kinds[k]] (set == 1 ? "" : ", new wordings"), cells, n)
        }
}

# Attention, length, depth, right, asked: for the heat map.
function table_depths(    j, k, n, list, depth, key) {
    n = split("2048 8192 32768 65536 131072", list, " ")
    for (k = 1; k in kinds; k++)
        for (j = 1; j <= n; j++)
            for (depth = 0; depth <= 100; depth += 10) {
                key = "main" SUBSEP kinds[k] SUBSEP list[j] SUBSEP "known" SUBSEP depth
                if (key in asked_at)
                    print title[kinds[k]] "\t" list[j] "\t" depth "\t" right_at[key] + 0 "\t" asked_at[key]
            }
}

function bytes(n) {
    return n ? sprintf("%.1f MB", n / 1e6) : ""
}

function table_ablation(    i, n, set, own_one, names, part, key, base, where, time, cells) {
    base = "main" SUBSEP "cca"
    where = place[base, 32768, "known-1"]
    n = split("perplexity at 8,192|facts at 32,768|processor time at 32,768|cache at 131,072", names, "|")
    head("g, s", names, n)
    for (i = 1; i <= settings; i++) {
        set = setting[i]
        own_one = set == own_setting
        key = "main" SUBSEP (set == "full" ? "full" : own_one ? "cca" : "cca:" set)
        cells[1] = own_one ? "0" : compare(key SUBSEP 8192, base SUBSEP 8192, 0, 8192)
        cells[2] = share(key SUBSEP 32768, "known-1")
        time = spent[key, 32768, "known-1"]
        cells[3] = ""
        if (time && place[key, 32768, "known-1"] == where)
            cells[3] = sprintf("%.2f", time / spent[base, 32768, "known-1"]) (own_one ? sprintf(" (%.1f s)", time) : "")
        cells[4] = bytes(cache[set])
        split(set, part, ":")
        row(set == "full" ? "full attention" : part[1] ", " part[2], cells, 4)
    }
}

function table_models(    i, j, n, list, cells, label, run_, other) {
    n = split("2048 8192 32768 131072", list, " ")
    head_of_lengths("perplexity", list, n)
    for (i = 1; i <= models; i++) {
        label = model[i]
        run_ = label SUBSEP own[label]
        other = against[label] SUBSEP own[against[label]]
        for (j = 1; j <= n; j++) cells[j] = length_cell(run_, other, list[j])
        row(label ", " title[own[label]] (run_ == other ? "" : ", against " against[label]), cells, n)
    }
    print ""
    n = split("2048 8192 32768 131072", list, " ")
    head_of_lengths("facts", list, n)
    for (i = 1; i <= models; i++) {
        label = model[i]
        for (j = 1; j <= n; j++) cells[j] = share(label SUBSEP own[label] SUBSEP list[j], "known")
        row(label ", " title[own[label]], cells, n)
    }
}

END {
    if (table == "lengths") table_lengths()
    else if (table == "bands") table_bands()
    else if (table == "facts") table_facts()
    else if (table == "depths") table_depths()
    else if (table == "ablation") table_ablation()
    else if (table == "models") table_models()
    else exit 2
}
