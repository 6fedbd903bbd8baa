# Makes a document in which a value is handed from variable to variable, and the question who has it.
#
#     awk -v bytes=7000 -v seed=1 -v out=doc -f text.awk -f tasks/variables.awk RS= books/*.txt
#
# One chain of four hops, in this order, each a paragraph of its own between those of books.

function fresh_name(    i, name) {
    do for (i = name = ""; length(name) < 5; ) name = name substr("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 1 + below(26), 1)
    while (name in taken)
    taken[name]
    return name
}

END {
    hops = 4
    start("\n\n")
    take_text()
    given = 10000 + below(90000)
    for (i = 0; i <= hops; i++) fresh_depth()
    for (d = 0; d <= 40; d++)
        if (d in deep) {
            name = fresh_name()
            plant(nearest_end(end[n] * d / 40), "VAR " name " = " (last == "" ? given : "VAR " last) ".")
            expected = expected (last == "" ? "" : "|") name
            last = name
        }
    write_text()
    ask(64, "List all " hops + 1 " variables that have the value " given ".", expected)
}
