# Scores answers to the questions of a task.
#
#     awk -v document=7 -f record.awk -f score.awk doc.tsv answers.jsonl
#
# doc.tsv has a line a question, as ask() of text.awk writes it, answers.jsonl what `cca ask --jsonl` wrote.
# A line a question: number of the document, score, expected texts, what was given. The score is the
# share of the expected texts that stand in the answer, in letters of either case; of choices 1 for the right one.

NR == FNR {
    split($0, part, "\t")
    expected[NR] = part[3]
    chosen[NR] = part[4] != ""
    questions = NR
    next
}
/"event": "answer"/ {
    given = answer()
    count = split(expected[++n], text, "|")
    score = 0
    for (i = 1; i <= count; i++)
        score += chosen[n] ? given == text[i] : index(tolower(given), tolower(text[i])) > 0
    printf "%d\t%.4f\t%s\t%s\n", document, score / count, expected[n], given
}
END { if (n != questions) exit 1 }
