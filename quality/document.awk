# Makes a document with planted facts from books.
#
#     awk -f text.awk -f document.awk -v bytes=30000 -v seed=1 -v set=known -v per=1 -v out=doc facts.txt RS= books.txt
#
# writes doc.txt, about `bytes` long: paragraphs of the books from a random one on, and at each depth
# of 0, 10, … 100 % `per` facts of the set, each a paragraph of its own at the nearest paragraph end.
# doc.tsv gets a line a fact, in the order of the text: depth, where it begins in per cent of the
# text, question, answer, and the bytes begin … end - 1 where its statement stands.

function value(slot) {
    if (slot == "code") return 10000 + below(90000)
    if (slot == "year") return 1500 + below(500)
    if (slot == "number") return 13 + below(980)
    if (slot == "price") return 20 + below(900) " pounds"
    if (slot == "person" || slot == "other") return pick("first") " " pick("last")
    if (slot == "place") return "the " pick("adjective") " " pick("building")
    if (slot == "thing") return "the " pick("adjective") " " pick("object")
    return pick(slot)
}

# What questions ask with occurs in one fact of a document only.
function fresh_value(slot,    text) {
    do text = value(slot)
    while (slot ~ /^(code|person|other|place|thing|word)$/ && text in taken)
    taken[text]
    return text
}

# Fills the {slots} of a template; chosen keeps their values for the fact's other template.
function fill(template, chosen,    slot, name, text) {
    while (match(template, /\{[A-Za-z ]+\}/)) {
        slot = substr(template, RSTART + 1, RLENGTH - 2)
        name = slot
        sub(/^The /, "", name)
        if (!(name in chosen)) chosen[name] = fresh_value(name)
        text = chosen[name]
        if (name != slot) text = toupper(substr(text, 1, 1)) substr(text, 2)
        template = substr(template, 1, RSTART - 1) text substr(template, RSTART + RLENGTH)
    }
    return template
}

# The next kind of fact: all come before one comes again.
function next_kind(    i, kind) {
    if (left == 0) for (; left < kinds; left++) order[left] = left
    i = below(left)
    kind = order[i]
    order[i] = order[--left]
    return kind
}

# Facts are planted at paragraph ends; those of one depth stand 1 % of the text apart.
function plant_fact(depth, nth,    at, part, chosen) {
    split(kind_of[next_kind()], part, / \| /)
    split("", chosen)
    at = nearest_end(end[n] * (depth + nth - (per - 1) / 2) / 100)
    plant(at, fill(part[1], chosen))
    about[at, planted[at]] = fill(part[2], chosen) "\t" chosen[part[3]]
    depth_of[at, planted[at]] = depth
}

BEGIN { kinds = left = 0 }
RS != "" && $1 == set { sub(/^[a-z]+ \| /, ""); kind_of[kinds++] = $0 }

END {
    start("\n\n")
    take_text()
    for (depth = 0; depth <= 100; depth += 10) for (i = 0; i < per; i++) plant_fact(depth, i)
    write_text()
    for (at = 0; at <= n; at++)
        for (i = 1; i <= planted[at]; i++)
            printf "%d\t%.1f\t%s\t%d\t%d\n", depth_of[at, i], 100 * statement_begin[at, i] / written,
                about[at, i], statement_begin[at, i], statement_end[at, i] >(out ".tsv")
}
