# What the makers of documents share: random numbers, words, and a text in which statements are planted.
#
#     awk -v bytes=30000 -v seed=1 -v out=doc -f text.awk -f MAKER.awk facts.txt RS= books/*.txt
#
# Reads the lists of words in facts.txt, words.txt and the paragraphs of the books. A maker calls start(), takes
# pieces of text (take, take_text) until there are about `bytes` of them, plants statements at their ends,
# and write_text() writes OUT.txt. The same arguments give the same bytes with any awk (under LC_ALL=C).

# Park and Miller's generator; its products are exact in a double.
function below(n) {
    state = state * 48271 % 2147483647
    return int(state / 2147483647 * n)
}

# `ending` stands behind each piece and statement.
function start(ending,    i) {
    state = (seed * 7919 + 12345) % 2147483647
    for (i = 0; i < 10; i++) below(1)
    gap = ending
    n = end[0] = written = 0
}

function pick(name) {
    return word[name, below(words[name])]
}

function take(text) {
    piece[++n] = text
    end[n] = end[n - 1] + length(text) + length(gap)
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
        take(text)
        if (room < length(paragraph[i])) return
    }
}

# The piece whose end is nearest to so many bytes; 0 is the beginning of the text.
function nearest_end(bytes_before,    i) {
    for (i = 0; i < n && end[i + 1] <= bytes_before; i++);
    return i < n && end[i + 1] - bytes_before < bytes_before - end[i] ? i + 1 : i
}

# A depth in fortieths of the text that nothing else has.
function fresh_depth(    d) {
    do d = below(41)
    while (d in deep)
    deep[d]
    return d
}

# A permutation of a[0] … a[size - 1].
function shuffle(a, size,    i, j, other) {
    for (i = size - 1; i > 0; i--) {
        j = below(i + 1)
        other = a[i]
        a[i] = a[j]
        a[j] = other
    }
}

function plant(at, text) {
    statement[at, ++planted[at]] = text
}

function put(text) {
    printf "%s%s", text, gap >(out ".txt")
    written += length(text) + length(gap)
}

# Statement i behind piece `at` has the bytes statement_begin[at, i] … statement_end[at, i] - 1.
function write_text(    at, i) {
    for (at = 0; at <= n; at++) {
        if (at > 0) put(piece[at])
        for (i = 1; i <= planted[at]; i++) {
            statement_begin[at, i] = written
            put(statement[at, i])
            statement_end[at, i] = written - length(gap)
        }
    }
    close(out ".txt")
}

# A question about the text in OUT.tsv: most tokens of its answer, question, the texts that the answer
# is to have, and choices if it is to be one of them, both parted by |.
function ask(most, question, expected, choices) {
    printf "%d\t%s\t%s%s\n", most, question, expected, (choices == "" ? "" : "\t" choices) >(out ".tsv")
}

BEGIN { paragraphs = 0 }
RS == "" { paragraph[paragraphs++] = $0; next }
/^[a-z]+: / {
    name = substr($0, 1, index($0, ":") - 1)
    entries = split(substr($0, length(name) + 3), list, /[|]/ ? "|" : " ")
    for (i = 1; i <= entries; i++) word[name, words[name]++] = list[i]
}
