# Fields of a record of `cca ask --jsonl`: the line in $0.

function field(name,    text) {
    if (!match($0, "\"" name "\": ")) return ""
    text = substr($0, RSTART + RLENGTH)
    sub(/[,}].*/, "", text)
    return text
}

# The text of an answer; "stop_reason" stands behind it.
function answer(    text) {
    text = $0
    sub(/.*", "text": "/, "", text)
    sub(/", "stop_reason": .*/, "", text)
    gsub(/\\"/, "\"", text)
    gsub(/\t|\\[nt]/, " ", text)
    gsub(/^ +| +$/, "", text)
    return text
}
