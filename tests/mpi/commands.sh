#!/usr/bin/env bash
# Commands whose ranks mpirun starts: the answers of one process, sessions that either reads, and how
# it all ends. MPIRUN is how to start ranks; see tests/mpi/run.sh.
set -u
. tests/cli/lib.sh

model=$work/model.gguf
"$CCA" export models/cca-*.gguf -q --chat-template plain -o "$model"
head -c 60000 examples/paradise-lost.txt >"$work/text" # some 19,000 tokens
question='What is the secret code of the old lighthouse?'

# As cca, with so many ranks.
ranks() { # number, arguments
    # shellcheck disable=SC2086
    $MPIRUN -n "$1" "$CCA" "${@:2}" -t 1 >"$work/out" 2>"$work/err"
    code=$?
}

same_text() { # name, file; what the last command wrote, but for what ranks tell
    text_of | sed 's/"ranks": \[[^]]*\], //' >"$work/again"
    check "$1" cmp "$2" "$work/again"
}

# Commands.
generate=(generate -m "$model" -f "$work/text" -n 8 --temp 0 --json)
ask=(ask -m "$model" -f "$work/text" --json --no-kv "$question")
for attn in cca 'recall --recall 1024' full; do
    # shellcheck disable=SC2206
    how=(--attn $attn)
    cca "${generate[@]}" "${how[@]}"
    text_of | sed 's/"ranks": \[\], //' >"$work/wanted"
    for n in 1 2 3; do
        ranks "$n" "${generate[@]}" "${how[@]}"
        check "generate, $attn, ranks: $n" test "$code" = 0
        same_text 'writes the text of one process' "$work/wanted"
    done
done
check 'each rank tells what it did' jq -e '[.ranks[] | .prefilled > 5000 and .sent_bytes > 0
    and .waited_s >= 0] | length == 3 and all' "$work/out"
cca "${ask[@]}"
text_of | sed 's/"ranks": \[\], //' >"$work/wanted"
ranks 2 "${ask[@]}"
same_text 'ask answers as in one process' "$work/wanted"
check 'and says what it was' jq -e '.answers[0].text == "48213"' "$work/out"
check 'rank 0 alone writes' test "$(wc -l <"$work/out")" = 1
stderr_has 'a last line tells of the ranks' '^2 ranks shared 1[0-9]{4} tokens; sent .* waited at most'
for mode in full 'stride -c 6000' 'chunk -c 900 --tokens 9000' 'llama.cpp -c 1000 --tokens 5000'; do
    # shellcheck disable=SC2206
    ppl=(ppl -m "$model" -f "$work/text" --mode $mode --json --nll-out)
    cca "${ppl[@]}" "$work/nll"
    jq 'del(.ranks, .timing, .memory)' "$work/out" >"$work/alone"
    ranks 3 "${ppl[@]}" "$work/nll3"
    jq 'del(.ranks, .timing, .memory)' "$work/out" >"$work/shared"
    check "ppl, $mode, is that of one process" cmp "$work/alone" "$work/shared"
    check 'and so is what each token costs' cmp "$work/nll" "$work/nll3"
done
check 'windows that are too short to be split are dealt' jq -e '[.ranks[].prefilled] == [2000, 2000, 1000]' "$work/out"
"$CCA" export "$model" -q --type q4_0 -o "$work/other.gguf"
for how in 'full --tokens 9000 --base full' 'chunk -c 900 --tokens 3000 --base full' \
    "full --tokens 9000 --base $work/other.gguf:recall" "llama.cpp -c 1000 --tokens 3000 --base $work/other.gguf"; do
    # shellcheck disable=SC2206
    ppl=(ppl -m "$model" -f "$work/text" --mode $how --json)
    cca "${ppl[@]}" --nll-out "$work/nll" --logits-out "$work/logits"
    jq 'del(.ranks, .timing, .memory)' "$work/out" >"$work/alone"
    ranks 3 "${ppl[@]}" --nll-out "$work/nll3" --logits-out "$work/logits3"
    jq 'del(.ranks, .timing, .memory)' "$work/out" >"$work/shared"
    check "ppl, $how, is as far from its base as in one process" cmp "$work/alone" "$work/shared"
    check 'by the same tokens' cmp "$work/nll" "$work/nll3"
    check 'and the same logits' cmp "$work/logits" "$work/logits3"
    check 'of which each rank has made some' jq -e '[.ranks[].prefilled > 0] | length == 3 and all' "$work/out"
done
rm "$work"/logits*
ranks 2 ppl -m "$model" -f "$work/text" --tokens 3000 -c 900 --mode chunk --base "$work/none.gguf"
check 'a base that is not there ends all' test "$code" = 3
ranks 2 bench -m "$model" -p 4096 -n 2 -r 1 --no-peaks --format json
check 'bench shares its prefill' jq -e '[.ranks[].prefilled] == [2048, 2048]' "$work/out"
ranks 2 generate -m "$model" -p 'Short.' -n 4 --json
check 'a short prompt is not shared' jq -e '[.ranks[].prefilled] == [0, 0]' "$work/out"
cca "${generate[@]}"
text_of | sed 's/"ranks": \[\], //' >"$work/greedy"
ranks 2 "${generate[@]}" --ranks nccl
same_text 'on the CPU nobody asks for NCCL' "$work/greedy"
ranks 2 generate -m "$model" -p 'Each' -n 2 --json --ranks none
check 'without ranks each process is by itself' test "$(jq -c .ranks "$work/out" | tr -d '\n')" = '[][]'

# Answers over ranks that keep what a prompt leaves together: the sums are in another order, the texts are those
# of one process where tokens are not nearly as likely as others.
head -c 20000 examples/paradise-lost.txt >"$work/short" # some 6,500 tokens
short=(generate -m "$model" -f "$work/short" -n 8 --temp 0 --json)
for attn in cca full; do
    cca "${short[@]}" --attn $attn
    text_of | sed 's/"ranks": \[\], //' >"$work/of_one"
    for n in 2 4; do
        ranks "$n" "${short[@]}" --attn $attn --decode share
        check "generate --decode share, $attn, ranks: $n" test "$code" = 0
        same_text 'writes the text of one process' "$work/of_one"
        check 'and says who decodes' jq -e '[.ranks[] | .decode == "share" and .prefilled > 0] | all' "$work/out"
    done
done
stderr_has 'so does the last line' '^4 ranks shared [0-9]{4} tokens and decode; sent'
questions=("$question" 'Who is the hero?' "$question")
texts='[.answers[] | .text, .stop_reason]'
for how in '' --follow-up '--choices Adam,Eve,Satan'; do
    # shellcheck disable=SC2206
    ask=(ask -m "$model" -f "$work/text" --json --no-kv --sources 0 $how "${questions[@]}")
    cca "${ask[@]}"
    jq -c "$texts" "$work/out" >"$work/of_one"
    ranks 2 "${ask[@]}" --decode share
    jq -c "$texts" "$work/out" >"$work/again"
    check "ask --decode share $how answers as one process" cmp "$work/of_one" "$work/again"
done
ranks 2 bench -m "$model" -p 2048 -n 2 -r 1 --no-peaks --format json --decode share
check 'bench decodes so' jq -e '[.ranks[].decode] == ["share", "share"]' "$work/out"
for refused in '--attn recall' '--attn auto --recall 1024'; do
    # shellcheck disable=SC2086
    ranks 2 "${short[@]}" $refused --decode share
    check "--decode share $refused" test "$code" = 2
    stderr_has 'says why not' 'decode share is for attention that recalls nothing'
done
ranks 2 ask -m "$model" -f "$work/short" --sources 2 --decode share x
check '--decode share --sources' test "$code" = 2
stderr_has 'names the option' 'sources 2: with --decode gather alone'
ranks 2 "${short[@]}" --decode share --session "$work/none"
check 'a session is not stored' test "$code" = 0 -a ! -e "$work/none"
stderr_has 'and that is told' 'what ranks keep together is neither stored nor taken up'

# auto: rank 0 keeps all where it has room.
short+=(--attn full)
ranks 2 "${short[@]}" --dry-run
total=$(jq .memory.total "$work/out")
ranks 2 "${short[@]}" --dry-run --decode share
least=$(jq .memory.total "$work/out")
check 'less is needed together' test "$least" -lt $((total - 3000000))
limit=$(((total + least) / 2))
ranks 2 "${short[@]}"
check 'rank 0 keeps all' jq -e '.ranks[0].decode == "gather"' "$work/out"
text_of | sed 's/"ranks": \[[^]]*\], //' >"$work/of_one"
ranks 2 "${short[@]}" --mem-limit $limit
check 'or all keep it' jq -e '.ranks[0].decode == "share"' "$work/out"
same_text 'with the same text' "$work/of_one"
ranks 2 "${short[@]}" --mem-limit $limit --decode gather
check 'unless it is forbidden' test "$code" = 5

# Memory: ranks of a machine have one, and rank 0 counts what the others take of it; of what it cannot count
# a rank tells by itself, and all end.
long=(generate -m "$model" -p x -n 1000000 -c 100000000 --beyond-trained --attn full --dry-run --json)
ranks 4 "${long[@]}"
read -r total others <<<"$(jq -r '.memory | "\(.total) \(.others)"' "$work/out")"
check 'three others take more than half of what rank 0 does' test "$others" -gt $((total / 2))
ranks 2 "${long[@]}" # each has more of the text then
check 'a single one less' test "$(jq .memory.others "$work/out")" -lt "$others"
cca "${long[@]}"
check 'and nobody nothing' test "$(jq .memory.others "$work/out")" = 0
available=$(($(awk '/^MemAvailable/ {print $2}' /proc/meminfo) * 1024))
n=$((available / 10 * 8 / (total / 1000000)))
[ "$n" -lt 90000000 ] || n=90000000
ranks 4 "${long[@]}" -n $n
check 'what rank 0 has room for, but not all ranks, is refused' test "$code" = 5
stderr_has 'with the numbers' 'of rank 0 and .* of the other 3 ranks on this machine, which has'
ranks 4 "${long[@]}" -n $n --mem-limit 1000G
check 'unless somebody says how much each may take' test "$code" = 0
ranks 3 ppl -m "$model" -f "$work/text" --mode chunk -c 900 --dry-run --json
read -r total others <<<"$(jq -r '.memory | "\(.total - .weights - .program) \(.others)"' "$work/out")"
check 'who has a window of his own needs a session for it' test $((others / 2 - total)) -ge 0
ranks 3 ppl -m "$model" -f "$work/text" --mode full --dry-run --json
check 'who has a part of one does not' jq -e '.memory | .others / 2 < .total - .weights - .program' "$work/out"

# As ranks, but the second rank has so many KiB of memory.
starved() { # KiB, arguments
    # shellcheck disable=SC2086,SC2016
    timeout 20 $MPIRUN -n 1 "$CCA" "${@:2}" -t 1 : -n 1 bash -c 'ulimit -v '"$1"'; exec "$0" "$@"' "$CCA" "${@:2}" -t 1 \
        >"$work/out" 2>"$work/err" </dev/null
    code=$?
}
least=200000 most=4000000 # of what MPI starts with, and little more
while [ $((most - least)) -gt 8000 ]; do
    starved $(((least + most) / 2)) generate -m "$model" -p x -n 1
    if [ $code = 0 ]; then most=$(((least + most) / 2)); else least=$(((least + most) / 2)); fi
done
for run in "generate -m $model -f $work/text -n 1" \
    "ppl -m $model -f $work/text --tokens 6000 -c 2000 --mode chunk --base full -ub 2048"; do
    code=-1 refused=0
    for limit in $(seq "$most" 12000 $((most + 400000))); do
        begin=$SECONDS
        # shellcheck disable=SC2086
        starved "$limit" $run
        [ $code != 0 ] || break
        refused=$((refused + 1))
        [ $code = 5 ] && grep -q 'rank 1: .*\(no memory\|cannot map\)' "$work/err" && [ $((SECONDS - begin)) -le 10 ] ||
            { fail "${run%% *}: rank 1 has $limit KiB" "exit status $code: $(head -3 "$work/err")"; break; }
    done
    check "${run%% *}: a rank without memory ends all, by name, until it has enough" test $code = 0 -a $refused -gt 0
done

# Sessions.
ask=(ask -m "$model" -f "$work/text" --json --checkpoint-every 4096 --session "$work/s" "$question")
ranks 2 "${ask[@]}"
check 'ranks keep a session' test "$code" = 0
same_text 'and answer as without one' "$work/wanted"
check 'which is whole' "$CCA" session verify "$work/s"
cca "${ask[@]}"
same_text 'one process goes on from there' "$work/wanted"
tokens_are 'and reads the question alone' '1[0-9]*' '[1-9]?'
rm "$work/s"
cca "${ask[@]}"
ranks 3 "${ask[@]}"
same_text 'ranks go on from what one process kept' "$work/wanted"
tokens_are 'and read the question alone' '1[0-9]*' '[1-9]?'

# Failures.
ranks 2 generate -m "$work/none.gguf" -p x
check 'without a model all end' test "$code" = 3
stderr_has 'with a message' 'none.gguf'
ranks 2 generate -m "$model" -f "$work/text" -c 512 -n 1
check 'what rank 0 refuses ends all' test "$code" = 4
stderr_has 'with its message' 'tokens, --ctx-size allows 512'
expect 2 'an unknown kind of ranks' generate -m "$model" -p x --ranks pvm

# One process of a run is killed, or told to end, at a random moment of its prefill: all end soon, what
# was kept is whole, and the same command goes on from there to the answer of an undisturbed run.
ask=(ask -m "$model" -f "$work/text" -f examples/paradise-lost.txt --json --checkpoint-every 4096 --session "$work/s"
    "$question")
rm -f "$work/s"
cca "${ask[@]}" -t 1
text_of | sed 's/"ranks": \[\], //' >"$work/wanted"
RANDOM=${SEED:-25}
for round in $(seq "${ROUNDS:-3}"); do
    signal=$([ $((round % 3)) = 2 ] && echo TERM || echo KILL)
    n=$((2 + round % 2))
    rm -f "$work/s"
    # shellcheck disable=SC2086
    $MPIRUN -n $n "$CCA" "${ask[@]}" -t 1 >"$work/out" 2>"$work/err" </dev/null &
    run=$!
    wait_until $run test -s "$work/s"
    sleep "$(printf 0.%03d $((RANDOM % 500)))"
    mapfile -t processes < <(pgrep -P "$run" -f "$work/s")
    check 'all ranks are at work' test ${#processes[@]} = $n
    kill -s $signal "${processes[RANDOM % n]}" 2>/dev/null
    begin=$SECONDS
    wait $run
    code=$?
    check "a rank that gets SIG$signal ends all ($code)" test "$code" != 0 -a $((SECONDS - begin)) -le 5
    check 'with a message' test -s "$work/err"
    check 'no process is left' test -z "$(pgrep -f "$work/s")"
    check 'the session is whole' "$CCA" session verify "$work/s"
    ranks $n "${ask[@]}"
    same_text 'the same command then answers as ever' "$work/wanted"
    tokens_are 'and goes on from a checkpoint' '[1-9]*' '[1-9]*'
done

# A rank that is killed while all decode.
has_begun() { test "$(wc -c <"$work/out")" -gt 20; }
for victim in 0 1; do
    # shellcheck disable=SC2086
    $MPIRUN -n 2 "$CCA" generate -m "$model" -f "$work/text" -n 20000 --ignore-eos --temp 0 -t 1 --decode share --lookup 0 \
        >"$work/out" 2>"$work/err" </dev/null &
    run=$!
    wait_until $run has_begun
    mapfile -t processes < <(pgrep -P "$run" -f "$model")
    check 'both ranks decode' test ${#processes[@]} = 2
    kill -s KILL "${processes[victim]}"
    begin=$SECONDS
    wait $run
    code=$?
    check "a process that is killed in an answer ends all ($code)" test "$code" != 0 -a $((SECONDS - begin)) -le 5
    check 'and none is left' test -z "$(pgrep -f "$model")"
done
