# Tables in Markdown: a row with its name and n cells, and a head with its rule.

function row(name, cells, n,    i, text) {
    text = "| " name " |"
    for (i = 1; i <= n; i++) text = text (cells[i] == "" ? "" : " " cells[i]) " |"
    print text
}

function head(first, names, n,    i, rule) {
    row(first, names, n)
    rule = "|---|"
    for (i = 1; i <= n; i++) rule = rule "--:|"
    print rule
}

function thousands(n) {
    return n < 1000 ? n "" : sprintf("%d,%03d", int(n / 1000), n % 1000)
}
