#!/usr/bin/env bash
# Interrupts, status lines, closed pipes.
set -u
. tests/cli/lib.sh
make_stories
yes 'Once upon a time there was a long text.' | head -c 4000000 >"$work/long"

# Asks for status lines until one comes; false when the process is gone. The process must have
# blocked SIGUSR1 (bit 9) first, or it would die of it.
asked_for_status() { # pattern, file, process
    grep -q "$1" "$2" && return 0
    grep -q '^SigBlk:.*[2367abef]..$' "/proc/$3/status" && kill -USR1 "$3"
    return 1
}
wait_for_status() {
    wait_until "$3" asked_for_status "$@"
}

for signal in INT TERM; do
    [ "$signal" = INT ] && wanted=130 to=- || wanted=143 to=$work/unfinished
    "$CCA" generate -m "$stories" --beyond-trained -f "$work/long" -n 1 -o "$to" --progress bar \
        >"$work/out" 2>"$work/err" &
    pid=$!
    check "SIGUSR1 prints a status line ($signal)" wait_for_status '^prefill [0-9]*/[0-9]* tokens' "$work/err" "$pid"
    kill -"$signal" "$pid"
    wait "$pid"
    code=$?
    check "SIG$signal in prefill is exit $wanted" test "$code" = "$wanted"
    stderr_has "SIG$signal says how far it came" 'interrupted in prefill, after [0-9]+ of [0-9]+ tokens'
    stdout_empty "SIG$signal leaves no text"
    check "SIG$signal leaves no file" test -z "$(find "$work" -name 'unfinished*')"
    check "no control characters off a terminal ($signal)" \
        bash -c '! grep -q "[[:cntrl:]]" "$0"' "$work/err"
done

# The second one leaves at once, and a closed terminal does, too: nothing half-written remains.
ends() { # name, wanted status, signals
    local name=$1 wanted=$2
    shift 2
    # A shell that was started with SIGQUIT ignored, as in the background, would pass that on.
    env --default-signal=QUIT "$CCA" generate -m "$stories" --beyond-trained -f "$work/long" -n 1 -o "$work/ended" 2>"$work/err" &
    pid=$!
    wait_until "$pid" has_temporary
    check "$name: a file is under way" has_temporary
    kill -STOP "$pid" # so that several arrive together
    for signal in "$@"; do kill -"$signal" "$pid"; done
    kill -CONT "$pid"
    wait "$pid" 2>/dev/null
    code=$?
    check "$name: exit $wanted" grep -qxE "$wanted" <<<"$code"
    check "$name: nothing is left" test -z "$(find "$work" -name 'ended*')"
}
has_temporary() {
    test -n "$(find "$work" -name 'ended.*.tmp')"
}
ends "SIGTERM and SIGINT" "130|143" TERM INT # which comes first is not told
ends 'SIGHUP' 129 HUP
ends 'SIGQUIT' 131 QUIT
rm -f core

# A mapped model that another process makes shorter.
"$CCA" export --random 256,4,4,4,512,4000 --seed 1 --type q8_0 -q -o "$work/shrinks.gguf" 2>/dev/null
for threads in 1 2; do
    cp "$work/shrinks.gguf" "$work/a model.gguf"
    "$CCA" bench -m "$work/a model.gguf" -p 512 -n 64 -r 1000 --no-peaks -t "$threads" \
        >"$work/out" 2>"$work/err" &
    pid=$!
    sleep 1
    truncate -s 100000 "$work/a model.gguf"
    wait "$pid" 2>/dev/null
    code=$?
    check "a model that shrinks is exit 3 ($threads threads)" test "$code" = 3
    stderr_has "and is named ($threads threads)" '^cca: .*a model.gguf: cannot be read any more'
    check "once ($threads threads)" test "$(grep -c 'any more' "$work/err")" = 1
done

"$CCA" generate -m "$stories" -n -1 --beyond-trained -c 200000 --ignore-eos -p '' --temp 0 \
    -o "$work/answer" 2>"$work/err" &
pid=$!
has_begun() { # some of it stands in the file beside
    test -n "$(find "$work" -name 'answer.*' -size +0)"
}
wait_until "$pid" has_begun
kill -INT "$pid"
wait "$pid"
code=$?
check 'an interrupt in generation is exit 130' test "$code" = 130
check 'and keeps the text' grep -q "^${story::4}" "$work/answer"

"$CCA" ppl -m "$stories" --beyond-trained -f "$work/long" --nll-out "$work/nll" --base full \
    >"$work/out" 2>"$work/err" &
pid=$!
check 'ppl has a status line' wait_for_status '^ppl [0-9]*/[0-9]* tokens' "$work/err" "$pid"
kill -INT "$pid"
wait "$pid"
code=$?
check 'an interrupt of ppl is exit 130' test "$code" = 130
check 'and leaves no file' test ! -e "$work/nll"
stderr_has 'but tells how far it came' \
    'interrupted after [0-9]+ of [0-9]+ scored tokens; perplexity so far [0-9.]+, KL divergence [-0-9.e]+ nats'

"$CCA" generate -m "$stories" -n -1 --beyond-trained -c 200000 --ignore-eos -p '' -q 2>"$work/err" |
    head -c 1 >/dev/null
code=${PIPESTATUS[0]}
check 'a closed pipe is exit 141' test "$code" = 141
stderr_empty 'without a message'
"$CCA" tokenize -m "$stories" -f "$work/long" 2>"$work/err" | head -c 1 >/dev/null
code=${PIPESTATUS[0]}
check 'of tokenize, too' test "$code" = 141
