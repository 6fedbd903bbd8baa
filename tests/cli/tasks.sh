#!/usr/bin/env bash
# The tasks of quality/: their documents and questions, scores, and the table that compares runs.
set -u
. tests/cli/lib.sh
export LC_ALL=C

# Two books of 200 paragraphs, each of 1 to 5 sentences that tell where they stand.
export BOOKS_DIR=$work/books OUT=$work/quality
mkdir "$BOOKS_DIR"
for book in one two; do
    awk -v book=$book 'BEGIN {
        for (i = 1; i <= 200; i++) {
            for (j = 1; j <= 1 + i * 7 % 5; j++) printf "%sThis is sentence %d of paragraph %d in book %s.", (j > 1 ? " " : ""), j, i, book
            print "\n"
        }
    }' >"$BOOKS_DIR/$book.txt"
done
makers='single-1 single-2 single-3 multikey-1 multikey-2 multikey-3 multivalue multiquery variables common_words frequent_words'
for task in $makers; do quality/task.sh $task 1 2048 6000 "$work/$task"; done
quality/task.sh common_words 1 4096 12000 "$work/long"

check 'documents and questions never vary' test "$(for task in $makers; do
    cat "$work/$task.txt" "$work/$task.tsv"
done | cksum)" = '3134780954 71447'
quality/task.sh multikey-1 2 2048 6000 "$work/other"
check 'another number another document' test "$(cmp -s "$work/other.txt" "$work/multikey-1.txt"; echo $?)" = 1
check 'about as long as asked for' test "$(for task in $makers; do wc -c <"$work/$task.txt"; done |
    awk '$1 > 5300 && $1 < 6600' | wc -l)" = 11
for awk in gawk mawk original-awk 'busybox awk'; do
    command -v ${awk%% *} >/dev/null && echo "$awk"
done | while read -r awk; do
    mkdir "$work/bin"
    printf '#!/bin/sh\nexec %s "$@"\n' "$(command -v ${awk%% *})${awk#"${awk%% *}"}" >"$work/bin/awk"
    chmod +x "$work/bin/awk"
    check "the same with $awk" test "$(for task in multikey-3 variables common_words frequent_words; do
        PATH=$work/bin:$PATH quality/task.sh $task 1 2048 6000 "$work/same" && cat "$work/same.txt" "$work/same.tsv"
    done | cksum)" = "$(for task in multikey-3 variables common_words frequent_words; do
        cat "$work/$task.txt" "$work/$task.tsv"
    done | cksum)"
    rm -r "$work/bin"
done

# What a document says of the keys: lines that give one a value, and the questions' expected texts.
is() { # task, needles, keys, questions, values expected of each question
    check "$1: needles, keys, questions, and each expected value once" test "$(awk -F'\t' '
        NR == FNR && match($0, /^(The|One) registry number of .* is /) {
            needles++
            name = substr($0, 1, RLENGTH)
            if (!(name in known)) { known[name]; keys++ }
            place[substr($0, RLENGTH + 1)]++
        }
        NR == FNR { next }
        { questions++; values = split($3, part, "|"); for (i = 1; i <= values; i++) if (place[part[i] "."] != 1) bad = 1 }
        END { print (bad ? "bad" : needles " " keys " " questions " " values) }' "$work/$1.txt" "$work/$1.tsv")" = "$2 $3 $4 $5"
}
for task in single-1 single-2 single-3; do is $task 1 1 1 1; done
is multikey-1 4 4 4 1
is multivalue 4 1 1 4
is multiquery 4 4 1 4
lines=$(wc -l <"$work/multikey-2.txt")
is multikey-2 "$lines" "$lines" 10 1
lines=$(wc -l <"$work/multikey-3.txt")
is multikey-3 "$lines" "$lines" 10 1
check 'single-1: all else is the remark' test "$(grep -v '^The registry' "$work/single-1.txt" | sort -u | wc -l)" = 1
check 'single-2: all else is one run of a book' awk -v RS= '
    /^The registry/ { next }
    { split($0, word_, " "); at = word_[6] + 0; if (last && at != last + 1) exit 1; last = at }' "$work/single-2.txt"
check 'each question names the key whose value it expects' awk -F'\t' '
    NR == FNR && match($0, / of .* is /) { value[substr($0, RSTART + 4, RLENGTH - 8)] = substr($0, RSTART + RLENGTH) }
    NR != FNR && match($2, / of [^?]*\?/) && value[substr($2, RSTART + 4, RLENGTH - 5)] != $3 "." { exit 1 }' \
    "$work/multikey-2.txt" "$work/multikey-2.tsv"
check 'variables: a chain from the value on, in the order of the text' test "$(awk -F'[ .]' '
    /^VAR / { n++; if (n > 1 && $5 != last) exit 1; last = $2; list = list (n > 1 ? "|" : "") last }
    END { print list }' "$work/variables.txt")" = "$(cut -f3 "$work/variables.tsv")"
check 'and its value is in the question' grep -q "have the value $(sed -n 's/^VAR [A-Z]* = \([0-9]*\)\.$/\1/p' "$work/variables.txt")\." \
    "$work/variables.tsv"

counts() { # list: how often its words occur, each frequency with its number of words
    tr ' ' '\n' <"$1" | grep -v '^[0-9]*\.$' | sort | uniq -c | awk '{ print $1 }' | sort -rn | uniq -c | awk '{ printf "%s%d x %d", (NR > 1 ? ", " : ""), $2, $1 }'
}
check 'common words: ten six times, others once' test "$(counts "$work/common_words.txt" | sed 's/x [0-9]*$/x/')" = '6 x 10, 1 x'
check 'in longer lists 30 and three times' test "$(counts "$work/long.txt" | sed 's/x [0-9]*$/x/')" = '30 x 10, 3 x'
often() { # file, number of words, what to leave out: the most frequent, in the alphabet's order
    tr ' ' '\n' <"$1" | grep -v "$3" | sort | uniq -c | sort -rnk1,1 | head -"$2" | awk '{ print $2 }' | sort | paste -sd'|'
}
expected() { cut -f3 "$1" | tr '|' '\n' | sort | paste -sd'|'; }
check 'these ten are expected' test "$(often "$work/long.txt" 10 '^[0-9]*\.$')" = "$(expected "$work/long.tsv")"
check 'the three most frequent words are expected' test "$(often "$work/frequent_words.txt" 3 '^\.')" = "$(expected "$work/frequent_words.tsv")"
check 'and occur as a zeta distribution has it' test "$(tr ' ' '\n' <"$work/frequent_words.txt" | sort | uniq -c |
    awk '{ print $1 }' | sort -rn | head -4 | tr '\n' ' ')" = '701 175 77 43 '
check 'no word is a part of another, so that none counts for it' awk '
    /^common: / { for (i = 2; i <= NF; i++) word_[n++] = $i }
    END { for (i = 0; i < n; i++) for (j = 0; j < n; j++) if (i != j && index(word_[i], word_[j])) { print word_[i]; exit 1 } }' quality/words.txt
check 'enough of them for 32,768 tokens' test "$(grep '^common: ' quality/words.txt | wc -w)" -gt 1600
expect_few=$(quality/task.sh common_words 1 4096 1000000 "$work/few" 2>&1)
check 'else an error' test "$?:$expect_few" = '1:common_words.awk: too few words for 1000000 bytes'
quality/task.sh single-9 1 2048 6000 "$work/none" 2>/dev/null
check 'an unknown task: exit 2' test $? = 2

# Question sets. Those about books need the archive of held-out ones.
check 'ten sets of ten questions' test "$(grep -c ' | ' quality/questions/*.txt | awk -F: '{ n += $2 } $2 != 10 { bad = 1 } END { print NR, n, bad + 0 }')" = '10 100 0'
set_is_right() { # file of the set: evidence stands in the passage, choices differ, the passage in the document
    local task
    task=choices-$(basename "$1" .txt)
    quality/task.sh "$task" 1 2048 100 "$work/passage" && quality/task.sh "$task" 1 2048 9000 "$work/set" &&
        awk '
        FILENAME == ARGV[1] { passage = passage $0 " "; whole = whole $0 "\n"; next }
        FILENAME == ARGV[2] { text = text $0 "\n"; next }
        FNR == 1 { gsub(/ +/, " ", passage); sub(/\n+$/, "", whole); if (!index(text, whole)) { print "no passage"; bad = 1 } }
        FILENAME == ARGV[3] && / \| / {
            evidence = $0
            for (i = 0; i < 5; i++) sub(/^([^|]|[^ ]\|)*[^|] \| /, "", evidence)
            split($0, part, / \| /)
            if (!index(passage, evidence)) { print "not there: " evidence; bad = 1 }
            for (i = 2; i < 6; i++) for (j = 2; j < i; j++) if (part[i] == part[j]) { print part[1]; bad = 1 }
            right[++n] = part[2]
        }
        FILENAME == ARGV[4] {
            split($0, part, "\t")
            k = split(part[4], choice, "|")
            for (i = found = 0; i < k; i++) found += choice[i + 1] == right[FNR]
            if (part[3] != right[FNR] || k != 4 || found != 1) { print "choices: " part[2]; bad = 1 }
        }
        END { exit bad || n != 10 }' "$work/passage.txt" "$work/set.txt" "$1" "$work/set.tsv"
}
for set in quality/questions/*.txt; do
    source=$(sed -n 's/^source: //p' "$set")
    case $source in
    books/*)
        [ -f "$data/books-valid.tar.xz" ] || { skip "questions about $source" "no $data/books-valid.tar.xz"; continue; }
        tar -xf "$data/books-valid.tar.xz" -C "$BOOKS_DIR" "${source#books/}"
        ;;
    esac
    check "questions about $source: evidence, choices, passage" set_is_right "$set"
done

printf '9\tWho says "a\\b"?\tAnn|Bo\n9\tWhich?\tgreen\tred|green\n' >"$work/doc.tsv"
check 'questions as JSON' test "$(awk -v document=a/7.txt -f quality/questions.awk "$work/doc.tsv")" = \
    '{"question": "Who says \"a\\b\"?", "document": "a/7.txt", "max_answer": 9}
{"question": "Which?", "document": "a/7.txt", "choices": ["red", "green"]}'
cat >"$work/answers" <<'END'
{"question": "Who?", "text": " It is ANN,\nnot \"Bob\"", "stop_reason": "stop", "tokens": {"prompt": 9}, "document": "a/7.txt", "event": "answer"}
{"question": "Which?", "text": "red", "stop_reason": "choice", "choices": [{"text": "red", "logprob": -6, "logprob_per_byte": -2, "tokens": 1}, {"text": "green", "logprob": -7.5, "logprob_per_byte": -1.5, "tokens": 2}], "document": "a/12.txt", "event": "answer"}
{"schema": "cca.ask.1", "event": "end"}
END
score() { awk -f quality/record.awk -f quality/score.awk "$work/doc.tsv" "$work/answers"; }
scored() { score | tr '\t\n' ',;'; }
check 'scores, with the number of the document: all expected texts stand there' test "$(scored)" = '7,1.0000,Ann|Bo,It is ANN, not "Bob";12,1.0000,green,green;'
sed -i 's/not \\"Bob\\"/yes/; s/"logprob_per_byte": -1.5/"logprob_per_byte": -2.5/' "$work/answers"
check 'half of them; the likeliest choice by its bytes' test "$(scored)" = '7,0.5000,Ann|Bo,It is ANN, yes;12,0.0000,green,red;'
sed -i 2d "$work/answers"
score >"$work/out"
check 'an answer is missing: exit 1' test $? = 1

# Of four documents with a question each one is answered worse: -25 ± 25. The residuals of the ratio 2/3 are
# 1/3, -2/3, 0, 1/3, of a mean of 3/4. With two questions a document the sums count: -1 and 0.
compare() { # documents of the four questions, least
    for run in 'full 1 1 0 1' 'cca 1 0 0 1'; do
        awk -v documents="$1" -v run="$run" 'BEGIN {
            split(documents, document, " "); split(run, score, " ")
            for (i = 1; i <= 4; i++) print score[1] "\tsingle-1\t2048\t" document[i] "\t" score[i + 1]
            for (i = 1; i <= 4; i++) print score[1] "\tchoices-" (i % 2) "\t4096\t" i "\t" 0
        }'
    done | awk -v least="$2" -f quality/markdown.awk -f quality/compare.awk >"$work/out"
}
compare '1 2 3 4' 30
stdout_has 'paired differences' '^\| single-1 \| 2,048 \| 4 \| 75\.0 \| 50\.0 \(-25\.0 ± 25\.0\) \|$'
stdout_has 'sets are one row' '^\| choices \| 4,096 \| 4 \| 0\.0 \| 0\.0 \(\+0\.0 ± 0\.0\) \|$'
stdout_has 'the mean is over what the first run can' '^\| mean where full has 30 or more \| \| 4 \| 75\.0 \| 50\.0 \(-25\.0 ± 25\.0\) \|$'
stdout_has 'shares' '^\| share of full \| \| \| \| 66\.7 ± 31\.4 % \|$'
compare '1 2 3 4' 0
stdout_has 'or over all' '^\| mean where full has 0 or more \| \| 8 \| 37\.5 \| 25\.0 \(-12\.5 ± 12\.5\) \|$'
compare '1 1 1 2' 30
stdout_has 'errors are those of documents' '^\| single-1 \| 2,048 \| 4 \| 75\.0 \| 50\.0 \(-25\.0 ± 12\.5\) \|$'

export CCA THREADS=1
model=$(echo models/cca-*.gguf)
printf '#!/bin/sh\necho "$@" >>"%s"\n"%s" "$@" | tee -a "%s"\n' "$work/asked" "$(realpath "$CCA")" "$work/said" >"$work/heard"
chmod +x "$work/heard"
CCA=$work/heard check 'a measurement' quality/measure.sh task "$model" full 512 multikey-2 1 10
check 'whose prompts and longest answers, of 40 tokens, nearly fill the length' awk '
    match($0, /"prompt": [0-9]+/) { n++; size = substr($0, RSTART + 10, RLENGTH - 10) + 40; if (size > 512 || size < 400) exit 1 }
    END { if (n != 10) exit 1 }' "$work/said"
found=$(find "$OUT" -type f -name 'multikey-2-1')
check 'has a line a question' test "$(awk -F'\t' '$1 == 1001 && $2 ~ /^[01]\.0000$/ && $3 ~ /^[0-9]+$/' "$found" | wc -l)" = 10
touch -d '2000-01-01' "$found"
tasks() { LENGTHS=512 TASKS=multikey-2 QUESTIONS=10 quality/tasks.sh "$@" >"$work/out" 2>"$work/err"; }
tasks "full=$model:full" "short window=$model:window"
check 'which is not made again' test -z "$(find "$OUT" -type f -name 'multikey-2-1' -newermt 2001-01-01 -path '*/full/*')"
stdout_has 'the table has both runs' '^\| multikey-2 \| 512 \| 10 \| [0-9.]+ \| [0-9.]+ \('
tasks "full=$model:full" other=none.gguf:cca
check 'a model that is not there: exit 1' test $? = 1
stderr_has 'and its name' 'none\.gguf is not there'
# Documents alone, which are then moved, and asked about in one run for each kind of attention.
again() { LENGTHS=512 TASKS=single-2 QUESTIONS=20 CCA=$work/heard quality/tasks.sh "full=$model:full" "short=$model:window" >"$work/out" 2>"$work/err"; }
: >"$work/asked"
DOCUMENTS_ONLY=1 again
check 'documents alone: exit 0' test $? = 0
stdout_empty 'without a table'
folder=$(cd "$OUT" && echo documents/*/task-512/single-2-1)
check 'of a block' test "$(ls "$OUT/$folder"/*.txt | wc -l) $(cat "$OUT/$folder"/*.tsv | wc -l)" = '20 20'
check 'whose questions name them, in the folder' test "$(sed 's/.*"document": "\([^"]*\)".*/\1/' "$OUT/$folder/questions.jsonl")" = \
    "$(cd "$OUT" && ls "$folder"/*.txt)"
check 'nothing is asked' test "$(grep -c '^ask ' "$work/asked")" = 0
check 'or half made' test -z "$(find "$OUT/documents" -name '*.part' -o -name '*.lock')"
check 'two tries for each, or fewer' test "$(grep -c '^tokenize .* -f ' "$work/asked")" -le 40
cksum "$OUT/$folder"/* | cut -d' ' -f1 >"$work/sums"
mv "$OUT" "$work/moved" && OUT=$work/moved
: >"$work/asked"
again
check 'a run each answers them' test "$(grep -c '^ask ' "$work/asked")" = 2
check 'without making them again' test "$(grep -c '^tokenize' "$work/asked")" = 0
check 'and leaves them as they were' test "$(cksum "$OUT/$folder"/* | cut -d' ' -f1)" = "$(cat "$work/sums")"
check 'with scores in the order of the documents' test "$(cut -f1 "$OUT"/*/full/task-512/single-2-1 | tr '\n' ' ')" = \
    "$(seq -s' ' 1001 1020) "
stdout_has 'in one table' '^\| single-2 \| 512 \| 20 \| [0-9.]+ \| [0-9.]+ \('
rm -r "$OUT/${folder%/*}" "$OUT"/*/{full,window}/task-512/single-2-1
for run in full window; do quality/measure.sh task "$model" $run 512 single-2 1 20 2>/dev/null & done
wait
check 'two at once make them once, and the same' test "$(cksum "$OUT/$folder"/* | cut -d' ' -f1)" = "$(cat "$work/sums")"
check 'and both answer them' test "$(cat "$OUT"/*/{full,window}/task-512/single-2-1 | wc -l)" = 40

# A book that is for the most part one table has no end of a sentence where most documents would end.
mkdir "$work/tables"
{ head -n 40 "$BOOKS_DIR/one.txt"; for i in $(seq 2000); do printf '%d ' "$i"; [ $((i % 20)) = 0 ] && echo; done; echo; sed -n 41,400p "$BOOKS_DIR/one.txt"; } >"$work/tables/one.txt"
BOOKS_DIR=$work/tables OUT=$work/few check 'a table' quality/documents.sh "$model" 512 single-2 2 6
check 'is no reason for documents that fill a part of the room' awk 'END { exit !(FNR == 6) }' "$work/few"/documents/*/*/*/questions.jsonl
check 'their numbers are left out' test "$(for i in "$work/few"/documents/*/*/*/*.txt; do
    "$CCA" tokenize -m "$model" -f "$i" --count; done | awk '$1 < 290' | wc -l)" = 0

check 'a set of questions' quality/measure.sh task "$model" full 2048 choices-paradise 1 10
check 'is answered with choices' awk -F'\t' '
    NR == FNR { split($0, part, / \| /); for (i = 2; i < 6; i++) choice[part[i]]; next }
    $4 in choice && $2 == ($3 == $4) { n++ }
    END { exit n != 10 }' quality/questions/paradise.txt "$(find "$OUT" -type f -name 'choices-paradise-1')"
