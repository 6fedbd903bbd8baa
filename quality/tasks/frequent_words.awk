# Makes a text of made-up words that occur as often as a zeta distribution has it, and the question for
# the three that occur most often.
#
#     awk -v bytes=7000 -v seed=1 -v out=doc -f text.awk -f tasks/frequent_words.awk
#
# Of N words the one of rank k occurs N / (k² zeta(2)) times; rank 1 are dots, which are not asked for.

function fresh_word(    word_) {
    do for (word_ = ""; length(word_) < 6; ) word_ = word_ substr("abcdefghijklmnopqrstuvwxyz", 1 + below(26), 1)
    while (word_ in taken)
    taken[word_]
    return word_
}

BEGIN { exit }
END {
    start("\n")
    all = bytes / 5.2
    for (k = 1; (times = int(all / (k * k) / 1.6449340668482264)) > 0; k++) {
        rank[k] = k == 1 ? "..." : fresh_word()
        while (times-- > 0) entry[entries++] = rank[k]
    }
    shuffle(entry, entries)
    for (i = 0; i < entries; i++) text = text (i ? " " : "") entry[i]
    take(text)
    write_text()
    ask(48, "List the three words that occur most often in the text. The dots are no words.", rank[2] "|" rank[3] "|" rank[4])
}
