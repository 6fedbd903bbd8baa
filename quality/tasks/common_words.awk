# Makes a numbered list in which ten words occur more often than all others, and the question for them.
#
#     awk -v tokens=4096 -v bytes=12000 -v seed=1 -v out=doc -f text.awk -f tasks/common_words.awk words.txt
#
# The ten occur 30 times and the others three times; in lists for fewer than 4,096 tokens 6 times and once.

END {
    often = tokens < 4096 ? 6 : 30
    seldom = tokens < 4096 ? 1 : 3
    start("\n")
    for (i = 0; i < words["common"]; i++) choice[i] = word["common", i]
    shuffle(choice, words["common"])
    entries = 0
    for (i = 0; room < bytes && i < words["common"]; i++)
        for (j = i < 10 ? often : seldom; j > 0; j--) {
            entry[entries++] = choice[i]
            room += length(entries ". " choice[i] " ")
        }
    if (room < bytes) {
        print "common_words.awk: too few words for " bytes " bytes" >"/dev/stderr"
        exit 1
    }
    shuffle(entry, entries)
    for (i = 0; i < entries; i++) text = text (i ? " " : "") (i + 1) ". " entry[i]
    take(text)
    write_text()
    for (i = 0; i < 10; i++) expected = expected (i ? "|" : "") choice[i]
    ask(96, "Which ten words occur most often in the list?", expected)
}
