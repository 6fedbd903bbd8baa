# Makes a document with planted facts from books.
#
#     awk -f document.awk -v bytes=30000 -v seed=1 -v set=known -v per=1 -v out=doc facts.txt RS= books.txt
#
# writes doc.txt, about `bytes` long: paragraphs of the books from a random one on, and at each depth
# of 0, 10, … 100 % `per` facts of the set, each a paragraph of its own at the nearest paragraph end.
# doc.tsv gets a line a fact, in the order of the text: depth, where it begins in per cent of the
# text, question, answer, and the bytes begin … end - 1 where its statement stands. The same arguments
# give the same files with any awk (under LC_ALL=C).

# Park and Miller's generator; its products are exact in a double.
function below(n) {
    state = state * 48271 % 2147483647
    return int(state / 2147483647 * n)
}

function pick(name) {
    return word[name, below(words[name])]
}

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

function nearest_end(bytes_before,    i) {
    for (i = 0; i < n && end[i + 1] <= bytes_before; i++);
    return i < n && end[i + 1] - bytes_before < bytes_before - end[i] ? i + 1 : i
}

# Facts are planted at paragraph ends; those of one depth stand 1 % of the text apart.
function plant(depth, nth,    at, part, chosen) {
    split(kind_of[next_kind()], part, / \| /)
    split("", chosen)
    at = nearest_end(end[n] * (depth + nth - (per - 1) / 2) / 100)
    facts[at]++
    statement[at, facts[at]] = fill(part[1], chosen)
    about[at, facts[at]] = fill(part[2], chosen) "\t" chosen[part[3]]
    depth_of[at, facts[at]] = depth
}

# Takes paragraphs from a random one on, the last one only as far as there is room for its sentences.
function take_text(    i, text, room) {
    for (i = below(paragraphs); end[n] < bytes; i = (i + 1) % paragraphs) {
        text = paragraph[i]
        room = bytes - end[n]
        if (length(text) > room) {
            text = substr(text, 1, room)
            if (!match(text, /.*[.!?]/)) return
            text = substr(text, 1, RLENGTH)
        }
        taken_text[++n] = text
        end[n] = end[n - 1] + length(text) + 2
        if (room < length(paragraph[i])) return
    }
}

BEGIN { n = kinds = left = paragraphs = written = 0 }
FNR == 1 { file++ }
file == 1 && $1 == set { sub(/^[a-z]+ \| /, ""); kind_of[kinds++] = $0 }
file == 1 && /^[a-z]+: / {
    name = substr($0, 1, index($0, ":") - 1)
    words[name] = split(substr($0, length(name) + 3), list, /[|]/ ? "|" : " ")
    for (i = 1; i <= words[name]; i++) word[name, i - 1] = list[i]
}
file == 2 { paragraph[paragraphs++] = $0 }

END {
    state = seed * 7919 + 12345
    for (i = 0; i < 10; i++) below(1)
    end[0] = 0
    take_text()
    for (depth = 0; depth <= 100; depth += 10) for (i = 0; i < per; i++) plant(depth, i)
    for (at = 0; at <= n; at++) {
        if (at > 0) put(taken_text[at])
        for (i = 1; i <= facts[at]; i++) {
            line[++lines] = depth_of[at, i] "\t" written "\t" about[at, i]
            put(statement[at, i])
            behind[lines] = written - 2
        }
    }
    for (i = 1; i <= lines; i++) {
        split(line[i], part, "\t")
        printf "%d\t%.1f\t%s\t%s\t%d\t%d\n", part[1], 100 * part[2] / written, part[3], part[4], part[2],
            behind[i] >(out ".tsv")
    }
}

function put(text) {
    printf "%s\n\n", text >(out ".txt")
    written += length(text) + 2
}
