#!/usr/bin/env bash
# Questions that name their document: one run about many of them says what a run about each says.
set -u
. tests/cli/lib.sh

model=$work/model.gguf
"$CCA" export models/cca-*.gguf -q --chat-template plain -o "$model"
question='What is the code of the old lighthouse?'
for i in 1 2 3; do
    fact="The code of the old lighthouse is 4821$i."
    tail -c +$((i * 3000)) docs/MODEL.md | head -c $((1500 + i * 1000)) | iconv -c -t ASCII >"$work/part"
    { head -c 1000 "$work/part"; printf '\n%s\n\n' "$fact"; tail -c +1001 "$work/part"; } >"$work/d$i"
done
gzip <"$work/d3" >"$work/d3.gz"

line() { # document as JSON, question, further fields
    printf '{"question": "%s", "document": %s%s}\n' "$2" "$1" "${3:+, $3}"
}
{
    line "\"$work/d1\"" "$question" '"id": 1'
    line "\"$work/d1\"" 'Which tensors are there?'
    line "\"$work/d2\"" "$question" '"id": 2'
    line "[\"$work/d3.gz\"]" "$question"
    line "\"$work/d3.gz\"" 'Name a number.' '"choices": ["48213", "48211", "seven"]'
    line "[\"$work/d1\", \"$work/d2\"]" "$question" '"max_answer": 3'
    line "\"$work/d1\"" "$question"
} >"$work/q"

# Records without times, documents, and what hangs on which question came first.
plain() {
    sed -E 's/, "timing": \{[^}]*\}//; s/, "document": ("[^"]*"|\[[^]]*\])//; /"event": "end"/d'
}
alone() { # documents as options, lines of q
    local options=() i
    for i in $1; do options+=(-f "$work/$i"); done
    sed -n "$2" "$work/q" | sed -E 's/"document": ("[^"]*"|\[[^]]*\])/"max_answer": 8/; s/("max_answer": )8, "max_answer": /\1/' >"$work/own"
    cca ask -m "$model" -n 8 --no-kv --jsonl --quotes "${options[@]}" -Q "$work/own" "${more[@]}"
    plain <"$work/out" >>"$work/alone"
}
same_as_alone() { # name, further options
    local name=$1
    more=("${@:2}")
    expect 0 "$name: many documents" ask -m "$model" -n 8 --no-kv --jsonl --quotes -Q "$work/q" "${more[@]}"
    cp "$work/out" "$work/many"
    plain <"$work/many" >"$work/plain"
    : >"$work/alone"
    alone d1 1,2p; alone d2 3p; alone d3.gz 4,5p; alone 'd1 d2' 6p; alone d1 7p
    check "$name: say what runs about each say" cmp "$work/plain" "$work/alone"
}
same_as_alone cca
check 'the document of each' test "$(grep -oE '"text": "4821.", "stop_reason": "(end|stop)' "$work/many" | tr -dc '0-9\n' | tr '\n' ' ')" = \
    '48211 48212 48213 48211 '
check 'whose places are its own' test "$(grep -oE '"sources": \[\{"file": "[^"]*' "$work/many" | sed 's/.*\///' | tr '\n' ' ')" = \
    'd1 d1 d2 d3.gz d3.gz d1 d1 '
check 'and stands in the record as it was named' test "$(grep -oE '"document": ("[^"]*"|\[[^]]*\])' "$work/many" | sed "s|$work/||g" | tr '\n' ' ')" = \
    '"document": "d1" "document": "d1" "document": "d2" "document": ["d3.gz"] "document": "d3.gz" "document": ["d1", "d2"] "document": "d1" '
check 'documents are read once for questions that follow each other' test \
    "$(grep -oE '"reused": [0-9]+' "$work/many" | sed -E 's/.* [1-9][0-9]*$/+/; s/.* 0$/0/' | tr '\n' ' ')" = '0 + 0 0 + 0 0 '
stderr_has 'and counted' '^1 document, '
cca ask -m "$model" -n 8 --no-kv --json -Q "$work/q"
stderr_has 'each time' '^6 documents, [0-9]+ tokens, read once'
check 'in tokens, too' test "$(sed -nE 's/.*"document_tokens": ([0-9]+).*/\1/p' "$work/out")" = \
    "$(sed -nE 's/^6 documents, ([0-9]+) .*/\1/p' "$work/err")"
stdout_has 'a single record has them all' '"answers": \[\{.*"document": ".*/d1".*"document": ".*/d2".*\]'
same_as_alone recall --attn recall --recall 256
same_as_alone full --attn full --sources 2
same_as_alone 'follow-up' --follow-up

# Sessions are those of each document.
rm -rf "$work/cache"
expect 0 'kept states' ask -m "$model" -n 8 --jsonl --sources 0 -Q "$work/q"
plain <"$work/out" | sed -E 's/"reused": [0-9]+, "prefilled": [0-9]+//' >"$work/first"
expect 0 'and the same again' ask -m "$model" -n 8 --jsonl --sources 0 -Q "$work/q"
plain <"$work/out" | sed -E 's/"reused": [0-9]+, "prefilled": [0-9]+//' >"$work/second"
check 'with the same answers' cmp "$work/first" "$work/second"
check 'of which no document is read' test -z "$(grep -oE '"reused": 0,' "$work/out")"
expect 0 'and by a run about one' ask -m "$model" -n 8 --json --sources 0 -f "$work/d2" "$question"
stdout_has 'nor there' '"reused": [1-9][0-9]*, "prefilled": [1-9][0-9],'
expect 2 'a session file for several' ask -m "$model" -n 8 --session "$work/s.ccas" -Q "$work/q"
stderr_has 'is refused' 'q, line 3, field "document": another one than before; --session keeps'
sed -n 1,2p "$work/q" >"$work/one"
expect 0 'for one' ask -m "$model" -n 8 --session "$work/s.ccas" -Q "$work/one"
check 'is written' test -s "$work/s.ccas"

# The context is as large as the largest needs, and no larger.
size_of() { # questions
    cca ask -m "$model" -n 8 --attn full --dry-run --json -Q "$1"
    sed -nE 's/.*"positions": ([0-9]+).*/\1/p' "$work/out" | head -1
}
sed -n 6p "$work/q" >"$work/large"
expect 0 'a plan' ask -m "$model" --attn full --dry-run -Q "$work/q"
check 'is that of the largest' test "$(size_of "$work/q")" = "$(size_of "$work/large")"
limit=$(size_of "$work/large") # with 3 tokens of an answer
check 'and more than others' test "$(size_of "$work/one")" -lt "$limit"

refused() { # exit code, name, message, lines of the file …
    printf '%s\n' "${@:4}" >"$work/bad"
    rm -rf "$work/cache"
    expect "$1" "$2" ask -m "$model" -Q "$work/bad" "${with[@]}"
    stderr_has 'is named' "$3"
    stdout_empty 'before anything is answered'
    check 'or kept' test ! -e "$work/cache"
}
with=()
d1=$(line "\"$work/d1\"" Who)
refused 2 'a question without a document' 'bad, line 2: field "document" is missing: .* as .*bad, line 1, does' "$d1" '"Who?"'
refused 2 'no path' 'bad, line 2, field "document": a path other than -' "$d1" "$(line 3 Who)"
refused 2 'none at all' 'bad, line 1, field "document": a path' "$(line '[]' Who)"
refused 2 'an empty one among several' 'bad, line 1, field "document": a path' "$(line "[\"$work/d1\", \"\"]" Who)"
refused 2 'a NUL' 'bad, line 1, field "document": a path' "$(line '"a\u0000b"' Who)"
refused 2 'standard input' 'bad, line 1, field "document": a path other than -' "$(line '"-"' Who)"
refused 1 'no such document' "bad, line 2: $work/none: cannot open" "$d1" "$(line "\"$work/none\"" Who)"
printf 'a\xff' >"$work/odd"
refused 6 'a document that is no UTF-8' "bad, line 2: $work/odd: " "$d1" "$(line "\"$work/odd\"" Who)"
printf ' \n' >"$work/blank"
refused 4 'an empty document' "bad, line 2: $work/blank has nothing but white space" "$d1" "$(line "\"$work/blank\"" Who)"
with=(-c "$((limit - 4))")
refused 4 'a document that is too long' 'bad, line 2: the prompt \(documents and longest question\) has [0-9]+ tokens, --ctx-size allows' \
    "$d1" "$(cat "$work/large")" "$d1"
with=(-f "$work/d1")
refused 2 'further documents' 'bad, line 1, field "document": beside it there is no -f and no -p' "$d1"
with=('When?')
refused 2 'a question of the arguments' 'bad, line 1, field "document": question 1, an argument, has none' "$d1"
with=(-i)
refused 2 'questions of standard input' 'bad, line 1, field "document": questions of standard input have none' "$d1"
echo "$d1" >"$work/in"
expect 2 'a document in a line of standard input' ask -m "$model" -f "$work/d1" -Q - <"$work/in"
stderr_has 'is refused' 'standard input, line 1, field "document": only questions of a file have it'
