#!/usr/bin/env bash
# Measures tasks with several kinds of attention, and prints the table that compares them.
#
#     quality/tasks.sh full=model.gguf:full 'recall 512=model.gguf:recall:512' tuned=tuned.gguf:cca
#     LENGTHS=2048 QUESTIONS=20 JOBS=2 THREADS=1 quality/tasks.sh full=model.gguf:full CCA=model.gguf:cca
#
# Each argument is LABEL=FILE:ATTENTION, with the ATTENTION of measure.sh; the first is what the others are compared
# with, and its tokenizer measures the documents, which are the same for all. What was measured is kept in OUT, so
# another run goes on from there, and with LIMIT=1 shows what there is. DOCUMENTS_ONLY=1 makes the documents and asks
# nothing: OUT can then be moved to where the answers are to be made.
#
# Environment: LENGTHS in tokens [2048 4096 8192], TASKS [all], QUESTIONS of each task and length, rounded up to
# blocks of 20 [200]; LEAST, the per cent of the first that a row needs to count in the mean [30]; JOBS at a time [1]
# with THREADS each [0: all]; DEVICE [cpu]; LIMIT, seconds after which to stop measuring [0: none]; OUT
# [build/quality], CCA [./cca], BOOKS, the archive of held-out books [../shared/data/books-valid.tar.xz].
set -uo pipefail
. "$(dirname "$0")/lib.sh"
unpack_books
mkdir -p "$OUT"
needles='single-1 single-2 single-3 multikey-1 multikey-2 multikey-3 multivalue multiquery'
sets=$(cd "$here/questions" && for set in *.txt; do echo "choices-${set%.txt}"; done)
TASKS=${TASKS:-$needles variables common_words frequent_words $sets}
blocks=$(((${QUESTIONS:-200} + 19) / 20))

# Length, task, block and questions of it: a set of ten questions is asked about one document a block, and
# ten sets make as many questions of choices as there are of the other tasks.
blocks() {
    local length task block
    for length in ${LENGTHS:-2048 4096 8192}; do
        for block in $(seq $blocks); do
            for task in $TASKS; do
                case $task in
                choices-*) [ $block -gt $(((blocks + 4) / 5)) ] || echo "$length $task $block 10" ;;
                *) echo "$length $task $block 20" ;;
                esac
            done
        done
    done
}

# The scores of all that is measured, in compare.awk's columns: rows by length, then in the order of the tasks.
scores() {
    local label file attention task length block
    while IFS=$'\t' read -r label file attention; do
        file=$OUT/$(fingerprint "$file")/$attention
        for length in ${LENGTHS:-2048 4096 8192}; do
            for task in $TASKS; do
                for block in $(seq $blocks); do
                    [ -f "$file/task-$length/$task-$block" ] &&
                        awk -v OFS='\t' -v label="$label" -v task="$task" -v length_="$length" \
                            '{ split($0, part, "\t"); print label, task, length_, task "-" part[1], part[2] }' \
                            "$file/task-$length/$task-$block"
                done
            done
        done
    done
}

list=$(runs "$@") || exit 1
first=$(head -n 1 <<<"$list" | cut -f2)
if [ "${DOCUMENTS_ONLY:-0}" = 1 ]; then
    blocks | sed "s|^|$first |" | lane "${JOBS:-1}" documents.sh >/dev/null
    exit
fi
blocks | while read -r length task block questions; do
    while IFS=$'\t' read -r label file attention; do
        echo task "$file" "$attention" "$length" "$task" "$block" "$questions" "$first"
    done <<<"$list"
done >"$OUT/jobs"
lane "${JOBS:-1}" <"$OUT/jobs"
status=$?
[ $status -eq 124 ] && echo "stopped after $LIMIT seconds; what was measured is kept" >&2
scores <<<"$list" | awk -v least="${LEAST:-30}" -f "$here/markdown.awk" -f "$here/compare.awk"
exit $status
