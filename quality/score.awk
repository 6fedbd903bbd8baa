# Scores answers to the questions of a task.
#
#     cat *.tsv | awk -f record.awk -f score.awk - answers.jsonl
#
# The first has a line a question, as ask() of text.awk writes it, answers.jsonl what `cca ask --jsonl` wrote.
# A line a question: number of the document, which its file is named after, score, expected texts, what was given. The score is the
# share of the expected texts that stand in the answer, in letters of either case. Of choices the likeliest by its
# bytes is given, so that short ones have no advantage; it scores 1 if it is the right one.

function likeliest(    rest, part, best, text) {
    rest = substr($0, index($0, "\"choices\": ["))
    while (match(rest, /"text": "([^"\\]|\\.)*", "logprob": [^,]*, "logprob_per_byte": [-+.e0-9]+/)) {
        split(substr(rest, RSTART, RLENGTH), part, "\"logprob_per_byte\": ")
        if (text == "" || part[2] + 0 > best) {
            best = part[2] + 0
            text = part[1]
        }
        rest = substr(rest, RSTART + RLENGTH)
    }
    sub(/^"text": "/, "", text)
    sub(/", "logprob": .*/, "", text)
    return text
}

function document(    path) {
    path = field("document")
    sub(/.*\//, "", path)
    return path + 0
}

NR == FNR {
    split($0, part, "\t")
    expected[NR] = part[3]
    chosen[NR] = part[4] != ""
    questions = NR
    next
}
/"event": "answer"/ {
    given = chosen[++n] ? likeliest() : answer()
    count = split(expected[n], text, "|")
    score = 0
    for (i = 1; i <= count; i++)
        score += chosen[n] ? given == text[i] : index(tolower(given), tolower(text[i])) > 0
    printf "%d\t%.4f\t%s\t%s\n", document(), score / count, expected[n], given
}
END { if (n != questions) exit 1 }
