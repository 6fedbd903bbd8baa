# Compares the sources of answers with where the facts stand.
#
#     awk -f record.awk -f sources.awk doc.tsv answers.jsonl
#
# doc.tsv is document.awk's, answers.jsonl what `cca ask --sources 3 --jsonl` wrote about its questions.
# A line a fact: 1 or 0 for the right answer, the first source, one of the first three, and for a fact that
# begins within the first 40 bytes, which the first group has.

NR == FNR {
    split($0, part, "\t")
    right[NR] = part[4]
    begin[NR] = part[5]
    end[NR] = part[6]
    next
}
/"event": "answer"/ {
    n++
    rest = substr($0, index($0, "\"sources\": ["))
    first = three = 0
    for (i = 1; match(rest, /"begin": [0-9]+, "end": [0-9]+/); i++) {
        split(substr(rest, RSTART, RLENGTH), part, /[ ,]+/)
        rest = substr(rest, RSTART + RLENGTH)
        if (part[2] + 0 >= end[n] + 0 || part[4] + 0 <= begin[n] + 0) continue
        three = 1
        if (i == 1) first = 1
    }
    print (answer() == right[n]) + 0, first, three, (begin[n] < 40) + 0
}
