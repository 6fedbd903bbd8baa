# Makes a document with needles in a haystack, and its questions.
#
#     awk -v task=single-2 -v bytes=7000 -v seed=1 -v out=doc -f text.awk -f tasks/needles.awk facts.txt RS= books/*.txt
#
# A needle is a line that gives a value to a key; the haystack is one remark repeated, books, or other
# needles. The table has for each task: haystack, keys and values of each (with other needles as the haystack
# all lines are alike), questions about the document, keys that a question asks for, key, value.

BEGIN {
    setting["single-1"] = "noise 1 1 1 1 name number"
    setting["single-2"] = "books 1 1 1 1 name number"
    setting["single-3"] = "books 1 1 1 1 name uuid"
    setting["multikey-1"] = "books 4 1 4 1 name number"
    setting["multikey-2"] = "needles 0 1 10 1 name number"
    setting["multikey-3"] = "needles 0 1 10 1 uuid uuid"
    setting["multivalue"] = "books 1 4 1 1 name number"
    setting["multiquery"] = "books 4 1 1 4 name number"
}

function digits(form,    i, text) {
    for (i = 1; i <= length(form); i++)
        text = text (substr(form, i, 1) == "x" ? substr("0123456789abcdef", 1 + below(16), 1) : substr(form, i, 1))
    return text
}

function value(what,    text) {
    if (what == "number") return 1000000 + below(9000000)
    if (what == "uuid") return digits("xxxxxxxx-xxxx-4xxx-axxx-xxxxxxxxxxxx")
    text = "the " pick(below(2) ? "adjective" : "colour") " "
    return text pick(below(3) ? (below(2) ? "building" : "object") : "word")
}

function fresh(what,    text) {
    do text = value(what)
    while (text in taken)
    taken[text]
    return text
}

function needle(i,    text) {
    text = fresh(s["value"])
    right[i] = right[i] (right[i] == "" ? "" : "|") text
    return (s["values"] > 1 ? "One" : "The") " registry number of " key[i] " is " text "."
}

function haystack(    i, text) {
    if (s["haystack"] == "books") take_text()
    while (s["haystack"] == "noise" && end[n] < bytes)
        take("Mornings are cool. Roads are long. Bread is warm. One more step. Then back to the gate.")
    while (s["haystack"] == "needles" && end[n] < bytes) {
        key[++keys] = fresh(s["key"])
        take(needle(keys))
    }
}

# The question for the values of `count` keys from the first on; right answers are put into expected.
function question(first, count,    i, text) {
    for (i = first; i < first + count; i++) {
        text = text (i == first ? "" : " ") "What is the registry number of " key[i] "?"
        expected = expected (i == first ? "" : "|") right[i]
    }
    if (s["values"] > 1) return "List all registry numbers of " key[first] "."
    if (count > 1) return "Answer " count " questions: " text
    return text " Begin your answer with: The registry number of " key[first] " is"
}

END {
    fields = split("haystack keys values questions together key value", field, " ")
    split(setting[task], list, " ")
    for (i = 1; i <= fields; i++) s[field[i]] = list[i]
    start(s["haystack"] == "books" ? "\n\n" : "\n")
    haystack()
    for (i = 1; i <= s["keys"]; i++) {
        key[++keys] = fresh(s["key"])
        for (j = 1; j <= s["values"]; j++) plant(nearest_end(end[n] * fresh_depth() / 40), needle(keys))
    }
    write_text()
    answers = s["values"] * s["together"]
    for (i = 0; i < s["questions"]; i++) {
        expected = ""
        text = question(1 + int(keys * (s["haystack"] == "needles" ? i + below(1000) / 1000 : i) / s["questions"]), s["together"])
        ask((s["key"] == "uuid" ? 48 : 16) + answers * (s["value"] == "uuid" ? 64 : 24), text, expected)
    }
}
