# Questions of a task as the JSON lines that `cca ask -Q` reads.
#
#     awk -f questions.awk doc.tsv
#
# doc.tsv has a line a question, as ask() of text.awk writes it.

function json(text,    i, c, quoted) {
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        quoted = quoted (c == "\"" || c == "\\" ? "\\" : "") c
    }
    return "\"" quoted "\""
}

BEGIN { FS = "\t" }
{
    list = ""
    count = split($4, choice, "|")
    for (i = 1; i <= count; i++) list = list (i > 1 ? ", " : "") json(choice[i])
    print "{\"question\": " json($2) (count ? ", \"choices\": [" list "]" : ", \"max_answer\": " $1) "}"
}
