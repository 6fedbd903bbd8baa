# Compares answers with the facts of a document.
#
#     awk -v where=2/0 -v spent=9.8 -f record.awk -f answers.awk doc.tsv answers.jsonl
#
# doc.tsv is document.awk's, answers.jsonl what `cca ask --jsonl` wrote about its questions. Prints a
# line with the tokens that the first question prefilled, with the document's, the seconds that took,
# `where` (cores and threads) and the processor time `spent` on everything; then a line a fact: depth, 1 if the answer is right to the letter and else 0, answer, what was given.

NR == FNR {
    split($0, part, "\t")
    depth[NR] = part[1]
    right[NR] = part[4]
    next
}
/"event": "answer"/ {
    given = answer()
    if (++n == 1) print field("prefilled") "\t" field("prefill_s") "\t" where "\t" spent
    printf "%d\t%d\t%s\t%s\n", depth[n], given == right[n], right[n], given
}
