# Makes a document in which the passage of a question set stands among paragraphs of books.
#
#     awk -v bytes=7000 -v seed=1 -v out=doc -f text.awk -f tasks/choices.awk \
#         questions/youth.txt source.txt RS= books/*.txt
#
# A set has the lines `source: FILE`, `from: …` and `to: …`, with what the passage's first line and the one behind its last
# begin with, and then one line a question: question | right answer | three wrong ones | evidence, which is what
# the passage says for it, in the passage's words. The books are others than the source. Where `bytes` are too few the passage stands alone.

FNR == NR && /^(source|from|to): / { bound[substr($0, 1, index($0, ":") - 1)] = substr($0, index($0, ":") + 2); next }
FNR == NR && / \| / { question[questions++] = $0; next }
RS != "" && index($0, bound["from"]) == 1 && passage == "" { inside = 1 }
RS != "" && inside && index($0, bound["to"]) == 1 { inside = 0 }
RS != "" && inside { passage = passage $0 "\n" }

END {
    start("\n\n")
    sub(/\n+$/, "", passage)
    bytes -= length(passage)
    if (bytes > 0) take_text()
    plant(nearest_end(end[n] * below(101) / 100), passage)
    write_text()
    for (i = 0; i < questions; i++) {
        split(question[i], part, / \| /)
        at = below(4)
        choices = ""
        for (j = k = 0; j < 4; j++) choices = choices (j ? "|" : "") part[j == at ? 2 : 3 + k++]
        ask(16, part[1], part[2], choices)
    }
}
