#!/usr/bin/env bash
# Makes the documents of a block of a task, unless they are there, and prints their folder.
#
#     quality/documents.sh MODEL LENGTH TASK BLOCK QUESTIONS
#
# The folder is OUT/documents/FINGERPRINT/task-LENGTH/TASK-BLOCK, told without OUT. It has NUMBER.txt, which with a
# question nearly fills LENGTH tokens of MODEL, and NUMBER.tsv, as task.sh makes them, until there are QUESTIONS or a few
# more of them, and questions.jsonl for `cca ask -Q` in OUT, so that OUT can be moved. Environment: as for task.sh; CCA.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
model=$1 length=$2 task=$3 block=$4 questions=$5
folder=documents/$(fingerprint "$model")/task-$length/$task-$block
echo "$folder"
[ -d "$OUT/$folder" ] && exit
mkdir -p "$OUT/${folder%/*}"
exec 9>"$OUT/$folder.lock" # other runs of the block wait for the one that makes them
flock 9
[ -d "$OUT/$folder" ] && exit
part=$OUT/$folder.part
rm -rf "$part" && mkdir "$part"

document() { # bytes
    "$here/task.sh" "$task" "$number" "$length" "$1" "$part/$number"
}

# The tokens of the longest question of a document, and of the longest answer.
longest() {
    local question
    question=$(awk -F'\t' 'length($2) > length(longest) { longest = $2 } END { print longest }' "$part/$number.tsv")
    echo $(($("$CCA" tokenize -m "$model" -p "$question" --count) + $(cut -f1 "$part/$number.tsv" | sort -n | tail -1)))
}

# They leave room for the template, a question and its answer, about as long as those of the first document. Each
# begins with the bytes that fitted the one before. A number is left out where the text of a book, a table perhaps, has
# no sentence that ends in the last quarter of the room; but not many of them, since a task may know no better.
number=$((block * 1000)) last=$((number + 3 * questions)) asked=0 room=0 bytes=$((length * 7 / 2))
while [ $asked -lt "$questions" ]; do
    number=$((number + 1))
    [ $room -gt 0 ] || { document $length && room=$((length - 64 - $(longest))); }
    fit $room document "$part/$number" "$model" $bytes
    [ $filled -ge $((room * 3 / 4)) ] || [ $number -gt $last ] || { rm "$part/$number".*; continue; }
    bytes=$fitted
    awk -v document="$folder/$number.txt" -f "$here/questions.awk" "$part/$number.tsv" >>"$part/questions.jsonl"
    asked=$(wc -l <"$part/questions.jsonl")
done
mv "$part" "$OUT/$folder"
rm "$OUT/$folder.lock"
