#!/usr/bin/env bash
# kill -9 at random moments of commands that read, write, store and evict, beside two readers and a
# writer of the same folders. Behind each: what was told before is the beginning of what an
# undisturbed run tells, session files are whole, the same command gives the bytes of an undisturbed
# run, and nothing is left. One line a command, one at the end; the exit status is 1 where something
# was wrong. ROUNDS moments (1000; SHORT=1: 20) that hit a running command, drawn with SEED.
set -u
cd "$(dirname "$0")/../.."
. tests/cli/lib.sh
[ "${SHORT:-0}" = 0 ] && rounds=${ROUNDS:-1000} || rounds=${ROUNDS:-20}
RANDOM=${SEED:-26}

# ---- what is killed ----

gzip -dc tests/golden/tokenizer/blanks.model.gz >"$work/tokenizer.model"
model=$work/model.gguf
"$CCA" export --random 64,2,4,2,128,640 --seed 1 -q --tokenizer "$work/tokenizer.model" -g 4 -w 64 -o "$model" || exit 2
book=examples/paradise-lost.txt
head -c 4000 $book >"$work/text"
seq 1 400 | head -c 1500 | tr '\n' ' ' >"$work/numbers" && tr ' ' '\n' <"$work/numbers" | head -300 >"$work/ids"
for i in 0 1 2 3 4 5; do tail -c +$((20000 * i + 1)) $book | head -c $((2000 + 300 * i)) >"$work/document$i"; done
printf '%s\n' 'Who?' 'When?' "/save $work/d/saved.ccas" /undo 'Why was it?' /regen "/save $work/d/saved.ccas" >"$work/typed"
printf 'Who was number %d?\n' 1 2 3 4 5 6 >"$work/turns"

d=$work/d # the folder of a round
run=(-m "$model" -t 1 -q --temp 0 -s 1)
stored=("${run[@]}" --checkpoint-every 128 -ub 64 --session "$d/s.ccas")
generate=(generate -f "$work/text" --beyond-trained -n 24 -o "$d/answer")
ask=(ask "${run[@]}" --beyond-trained --chat-template plain --checkpoint-every 256 --kv-limit 600K -n 6)
of_cca=(--attn cca)
of_recall=(--attn recall --recall 64)

# Runs one, its standard output in $d/told; with a moment (seconds) it is killed then.
moment=
start() {
    local pid
    [ -n "$moment" ] || { "$CCA" "$@" >"$d/told" 2>"$work/err"; return; }
    "$CCA" "$@" <&0 >"$d/told" 2>"$work/err" &
    pid=$!
    sleep "$moment"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
}
do_prefill() { start "${generate[@]}" "${run[@]}" "${of_recall[@]}"; }
do_decode() { start generate -p 'A text' "${stored[@]}" --beyond-trained -n 700 --ignore-eos; }
do_cca() { start "${generate[@]}" "${stored[@]}" "${of_cca[@]}"; }
do_recall() { start "${generate[@]}" "${stored[@]}" "${of_recall[@]}"; }
do_rows() { start "${generate[@]}" "${stored[@]}" "${of_recall[@]}" --rows disk; }
do_chat() { start chat "${run[@]}" -n 20 --chat-template plain --beyond-trained -f "$work/document1" <"$work/typed"; }
do_turns() { start chat "${run[@]}" -n 20 --chat-template plain --session "$d/c.ccas" < <(tail -n "+$((${turns_done:-0} + 1))" "$work/turns"); }
do_ask() { start "${ask[@]}" "${of_cca[@]}" -f "$work/document$which" 'Who?' 'When?'; }
do_ask_recall() { start "${ask[@]}" "${of_recall[@]}" -f "$work/document$which" -f "$work/document0" 'Who?'; }
do_ppl() { start ppl -m "$model" -t 1 -q --beyond-trained -f "$work/text" --nll-out "$d/nll" --logits-out "$d/logits" -o "$d/report"; }
do_tune() {
    start tune -m "$model" -t 1 -q -f "$work/ids" -g 4,8 -w 16,32 -c 64 --tokens 200 --no-facts --no-full \
        --state "$d/state.json" --svg "$d/t.svg" --format json -o "$d/table"
}
do_export() { start export --random 64,2,4,2,128,640 --seed 7 -q -t 1 --tokenizer "$work/tokenizer.model" -o "$d/m.gguf"; }
kinds=(prefill decode cca recall rows chat turns ask ask_recall ppl tune export)

# The files whose bytes are those of an undisturbed run; numbers that are times aside.
same_files() { # folder
    local file
    for file in told answer nll logits report m.gguf; do
        [ ! -e "$1/$file" ] && [ ! -e "$d/$file" ] && continue
        case $kind/$file in
        turns/told) tail -n "+$((turns_done + 1))" "$1/told" | cmp -s - "$d/told" || return 1 ;;
        ppl/report) cmp -s <(grep -v ' s' "$1/report") <(grep -v ' s' "$d/report") || return 1 ;;
        *) cmp -s "$1/$file" "$d/$file" || return 1 ;;
        esac
    done
    [ "$kind" != tune ] || cmp -s <(points "$1/table") <(points "$d/table")
}
points() { jq '[.points[] | [.group_size, .window_size, .perplexity, .standard_error]]' "$1"; }
tokens_of() { "$CCA" session ls --json "$1" 2>/dev/null | jq '.sessions[0].tokens'; }

# ---- undisturbed runs ----

declare -A took # milliseconds
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
reference() { # kind, name
    local begin
    kind=$1
    rm -rf "$d" && mkdir "$d"
    begin=$(now_ms)
    XDG_CACHE_HOME=$work/apart "do_$kind" || { fail "$2: undisturbed" "$(cat "$work/err")"; exit 1; }
    took[$kind]=$(($(now_ms) - begin))
    cp -r "$d" "$work/wanted.$2"
}
for kind in "${kinds[@]}"; do
    case $kind in
    ask*) for which in 0 1 2 3 4 5; do reference "$kind" "$kind$which"; done ;;
    *) reference "$kind" "$kind" ;;
    esac
done
tokens_behind=(0) # each turn
for n in 1 2 3 4 5 6; do
    rm -rf "$d" && mkdir "$d"
    head -n $n "$work/turns" | "$CCA" chat "${run[@]}" -n 20 --chat-template plain --session "$d/c.ccas" >/dev/null
    tokens_behind[n]=$(tokens_of "$d/c.ccas")
done
# How many turns the file has; fails where it has the tokens of no turn's end.
count_turns() {
    local has=0
    [ -e "$d/c.ccas" ] && has=$(tokens_of "$d/c.ccas")
    for turns_done in 0 1 2 3 4 5 6; do [ "${tokens_behind[turns_done]}" = "$has" ] && return 0; done
    return 1
}

# ---- two readers and a writer beside ----

: >"$work/wrong"
wrong() { # what, details
    { echo "$1"; head -c 600 "${2:-/dev/null}"; } >>"$work/wrong"
}
beside() { # name, function that is called until the end
    local n=0
    while [ ! -e "$work/stop" ]; do
        "$2" $n
        n=$((n + 1))
        sleep 0.05
    done
    echo $n >"$work/did.$1"
}
lists() {
    local file
    "$CCA" session verify --all >"$work/lists" 2>&1 || wrong 'reader: verify --all' "$work/lists"
    "$CCA" session ls >"$work/lists" 2>&1 || wrong 'reader: ls' "$work/lists"
    for file in "$d"/*.ccas; do # rounds take them away
        "$CCA" session verify "$file" >"$work/lists" 2>&1 || [ ! -e "$file" ] || wrong "reader: verify $file" "$work/lists"
    done
}
answers() { # number, who, kind
    local which=$(($1 % 6)) how
    [ "$3" = ask ] && how=("${of_cca[@]}" -f "$work/document$which" 'Who?' 'When?') ||
        how=("${of_recall[@]}" -f "$work/document$which" -f "$work/document0" 'Who?')
    "$CCA" "${ask[@]}" "${how[@]}" >"$work/$2" 2>"$work/$2.err" || wrong "$2: $3 of document $which" "$work/$2.err"
    cmp -s "$work/$2" "$work/wanted.$3$which/told" || wrong "$2: another answer to $3 of document $which" "$work/$2"
}
asks() { answers $(($1 % 2)) reader ask; } # two documents, mostly from what is stored
writes() { answers "$1" writer "$([ $(($1 / 6 % 2)) = 0 ] && echo ask || echo ask_recall)"; }

rm -rf "$d" && mkdir "$d"
beside lists lists &
others=$!
beside asks asks &
others="$others $!"
beside writes writes &
others="$others $!"

# ---- the moments ----

leftovers() { # what the folder has beside the files of an undisturbed run
    comm -13 <(ls "$work/wanted.$name") <(ls "$d") | grep -v '^told$'
}
told_the_beginning() {
    [ ! -s "$work/before" ] || head -c "$(stat -c %s "$work/before")" "$work/wanted.$name/told" | cmp -s - "$work/before"
}
again() { # what was wrong, if something was
    local left begun=${turns_done:-0}
    told_the_beginning || echo 'another text before'
    for file in "$d"/*.ccas; do
        [ ! -e "$file" ] || "$CCA" session verify "$file" >/dev/null 2>"$work/err" || echo "session: $(cat "$work/err")"
    done
    "do_$kind" || echo "exit $?: $(head -c 300 "$work/err")"
    same_files "$work/wanted.$name" || echo "other bytes (turns: $begun)"
    left=$(leftovers)
    [ -z "$left" ] || echo "left: $left"
}
hits=0 tries=0
declare -A moments bad
begin=$SECONDS
while [ $hits -lt "$rounds" ] && [ $tries -lt $((3 * rounds + 100)) ]; do
    kind=${kinds[RANDOM % ${#kinds[@]}]} which=$((RANDOM % 6)) turns_done=0
    case $kind in ask*) name=$kind$which ;; *) name=$kind ;; esac
    rm -rf "$d" && mkdir "$d"
    ms=$((1 + took[$kind] * RANDOM / 32768))
    tries=$((tries + 1))
    moment=$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))
    "do_$kind" 2>/dev/null
    status=$?
    moment=
    if [ $status != 137 ]; then # it was done before
        [ $status = 0 ] || wrong "$name: exit $status of an undisturbed run" "$work/err"
        took[$kind]=$((ms > 2 ? ms : 2))
        continue
    fi
    hits=$((hits + 1)) moments[$kind]=$((${moments[$kind]:-0} + 1))
    took[$kind]=$((took[$kind] + took[$kind] / 50 + 1)) # others may be slower now
    mv "$d/told" "$work/before" 2>/dev/null || : >"$work/before" # killed before it had begun
    found=
    if [ "$kind" = turns ]; then
        count_turns || found="a session of no turn's end"
        [ "$(($(wc -l <"$work/before") - 1))" -le "$turns_done" ] || found="$turns_done turns are kept, more were told"
    fi
    found=$found$(again)
    if [ -n "$found" ]; then
        bad[$kind]=$((${bad[$kind]:-0} + 1))
        printf '%s\n' "$name after $ms ms: $found" >>"$work/wrong"
    fi
done

: >"$work/stop"
# shellcheck disable=SC2086
wait $others
for kind in "${kinds[@]}"; do
    line="$kind: ${moments[$kind]:-0} moments, ${bad[$kind]:-0} wrong"
    if [ "${bad[$kind]:-0}" = 0 ]; then pass "$line"; else fail "$line"; fi
done
check 'so many moments hit' test $hits = "$rounds"
check 'the cache is whole' "$CCA" session verify --all
"$CCA" session ls --json 2>/dev/null | jq -r '.sessions[].file' | sort >"$work/listed"
check 'and has nothing that is not listed' diff <(find "$XDG_CACHE_HOME" -type f | sort) "$work/listed"
count() { cat "$work/did.$1"; }
check "readers and the writer: $(count lists) listings, $(count asks) + $(count writes) answers" test ! -s "$work/wrong"
head -40 "$work/wrong"
echo "$hits moments ($tries tries) in $((SECONDS - begin)) s, seed ${SEED:-26}"
