#!/usr/bin/env bash
# Many ask processes over ten documents in one cache folder whose limit holds a quarter of their states, JOBS of them at a
# time (4): 200 (ASKS; SHORT=1: 20). Each answer is that of a run alone without stored states, no state is lost or
# torn, what lies on the disk stays within the limit and what the running processes are writing, and each
# process within the memory that was planned. The exit status is 1 where something was wrong.
set -u
cd "$(dirname "$0")/../.."
. tests/cli/lib.sh
if [ "${SHORT:-0}" = 0 ]; then asks=${ASKS:-200} size=20000; else asks=${ASKS:-20} size=6000; fi
jobs=${JOBS:-4}
RANDOM=${SEED:-26}

models=(models/cca-*.gguf)
"$CCA" export "${models[0]}" -q --chat-template plain -o "$work/model.gguf" || exit 2
zcat -f examples/paradise-lost.txt docs/*.md >"$work/books"
for i in 0 1 2 3 4 5 6 7 8 9; do # none begins as another one does
    { echo "Document $((i * 7919)):" && tail -c +$((size * i + 1)) "$work/books" | head -c $((size + size / 20 * i)); } |
        "$CCA" tokenize -m "$work/model.gguf" -f - --invalid-utf8 replace |
        "$CCA" tokenize -m "$work/model.gguf" -f - --decode >"$work/document$i" 2>/dev/null
done
questions=('What is the secret code of the old lighthouse?' 'Who is it about?' 'Which command runs the tests?')
hows=('--attn cca' '--attn recall --recall 512' '--attn recall --recall 512 --rows disk')
ask() { # document, attention, options and questions
    # shellcheck disable=SC2086
    "$CCA" ask -m "$work/model.gguf" -t 1 -q --temp 0 -s 1 -n 8 --sources 0 --json --checkpoint-every 4096 \
        ${hows[$2]} -f "$work/document$1" "${@:3}"
}

# Alone, without states; then what the states of all of them take.
for i in 0 1 2 3 4 5 6 7 8 9; do
    for how in 0 1 2; do
        ask $i $how --no-kv "${questions[@]}" >"$work/record" || exit 1
        for q in 0 1 2; do jq -r ".answers[$q].text" "$work/record" >"$work/wanted.$i.$how.$q"; done
    done
done
on_disk() { find "$XDG_CACHE_HOME" -type f -printf '%b\n' 2>/dev/null | awk '{ n += $1 } END { print n * 512 }'; }
largest=0 all=0
for how in 0 1 1; do # rows on disk have no file more
    ask 9 $how "${questions[0]}" >/dev/null || exit 1
    one=$(on_disk)
    "$CCA" session rm --all
    all=$((all + 10 * one)) largest=$((one > largest ? one : largest))
done
limit=$((all / 4))
bound=$((limit + jobs * largest))

polls() { # the most that was on the disk, and the states as others see them
    local most=0 now n=0
    while [ ! -e "$work/stop" ]; do
        now=$(on_disk)
        most=$((now > most ? now : most)) n=$((n + 1))
        [ $((n % 10)) != 0 ] || "$CCA" session verify --all >"$work/verified" 2>&1 || cp "$work/verified" "$work/torn"
        sleep 0.05
    done
    echo "$n $most" >"$work/polled"
}
one_ask() { # number, document, attention, question
    ask "$2" "$3" --kv-limit $limit "${questions[$4]}" >"$work/record.$1" 2>"$work/said.$1" || echo "ask $1: exit $?" >>"$work/wrong"
    jq -r '.answers[0].text' "$work/record.$1" | cmp -s - "$work/wanted.$2.$3.$4" ||
        echo "ask $1: another answer to question $4 of document $2, ${hows[$3]}" >>"$work/wrong"
}

: >"$work/wrong"
polls &
poller=$!
begin=$SECONDS
for ((n = 0; n < asks; n++)); do
    while [ "$(jobs -rp | wc -l)" -gt "$jobs" ]; do wait -n; done # with the poller
    one_ask $n $((n < 10 ? n : RANDOM % 10)) $((RANDOM % 3)) $((RANDOM % 3)) &
done
while [ "$(jobs -rp | wc -l)" -gt 1 ]; do wait -n; done
took=$((SECONDS - begin))
: >"$work/stop"
wait $poller
read -r polls most <"$work/polled"

cat "$work"/record.* | jq -s '{
    n: length, reused: map(select(.answers[0].tokens.reused > 0)) | length,
    over: map(select(.memory.peak > (.memory.total + .memory.disk) * 1.1 + 8e6)) | length,
    peak: map(.memory.peak) | max, share: map(.memory.peak / (.memory.total + .memory.disk)) | max}' >"$work/sums"
sum() { jq ".$1" "$work/sums"; }
check "$asks answers of $jobs processes at a time are those of a run alone" test ! -s "$work/wrong" -a "$(sum n)" = "$asks"
head -20 "$work/wrong"
check "of which $(sum reused) went on from what was stored" test "$(sum reused)" -gt 0 -a "$(sum reused)" -lt "$asks"
check "states are whole at all times" test ! -e "$work/torn"
[ ! -e "$work/torn" ] || head -5 "$work/torn"
check 'and at the end' "$CCA" session verify --all
check "disk: at most $most bytes in $polls looks, limit $limit and $jobs files of up to $largest that are written" test "$most" -le "$bound"
check "at the end $(on_disk)" test "$(on_disk)" -le $limit
check 'nothing lies there that is not listed' diff <(find "$XDG_CACHE_HOME" -type f | sort) \
    <("$CCA" session ls --json | jq -r '.sessions[].file' | sort)
check "memory: at most $(sum peak) bytes, $(sum share) of what was planned" test "$(sum over)" = 0
cat "$work"/said.* | sed -E 's/[0-9a-f]{8}-[0-9a-f]{8}/FILE/; s/[0-9]+/N/g' | sed "s|$work||" | sort | uniq -c | head -5
echo "$asks asks in $took s, seed ${SEED:-26}"
