# Questions of a task as the JSON lines that `cca ask -Q` reads.
#
#     awk -v document=1001.txt -f questions.awk 1001.tsv
#
# The table has a line a question, as ask() of text.awk writes it; all are asked about the document.

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
    print "{\"question\": " json($2) ", \"document\": " json(document) (count ? ", \"choices\": [" list "]" : ", \"max_answer\": " $1) "}"
}
