#!/usr/bin/env bash
# Documents whose state is kept: what is reused, grown or killed at work, with CCA and with recall.
set -u
. tests/cli/lib.sh

model=$work/model.gguf
"$CCA" export models/cca-*.gguf -q --chat-template plain -o "$model"
head -c 14000 docs/CLI.md | iconv -c -f UTF-8 -t UTF-8 >"$work/book" # some 4,000 tokens, whole characters
fact='The code of the old lighthouse is 48213.'
make_text() {
    { head -c 9000 "$work/book"; printf '\n%s\n\n' "$fact"; tail -c +9001 "$work/book"; } >"$work/text"
}
question='What is the code of the old lighthouse?'

has_kept() { # bytes
    test -n "$(find "$work/cache" -name '*.ccas' -size "+$1c")"
}

words_of() { # the last record without what hangs on the order of sums
    text_of | sed -E 's/"(logprob|probability)": [-0-9.e]+//g'
}

for attn in cca "recall --recall 512"; do
    make_text
    tokens=$("$CCA" tokenize -m "$model" -f "$work/text" --count)
    # shellcheck disable=SC2206
    ask=(ask -m "$model" -f "$work/text" --checkpoint-every 512 --attn $attn)
    expect 0 "$attn: a first question" "${ask[@]}" --json "$question"
    stdout_has 'is answered' '"text": "48213"'
    tokens_are 'reads everything' 0 '[1-9]*'
    text_of >"$work/first"
    expect 0 'the same in a new process' "${ask[@]}" --json "$question"
    tokens_are 'reads only the question' "$tokens" '[1-9][0-9]'
    stderr_has 'and says so' "^session .*/cca/[0-9a-f]{8}-[0-9a-f]{8}\.ccas: $tokens of [0-9]+ tokens are there"
    text_of >"$work/second"
    check 'with the same answer' cmp "$work/first" "$work/second"
    expect 0 'without a session' "${ask[@]}" --json --no-kv "$question"
    tokens_are 'everything is read again' 0 '[1-9]*'
    text_of >"$work/second"
    check 'with the same answer' cmp "$work/first" "$work/second"
    printf '\nA page more, in which nothing of importance is said.\n' >>"$work/text"
    expect 0 'a grown document' "${ask[@]}" --json "$question"
    tokens_are 'reads what has grown' "$tokens" '[3-9][0-9]'
    check 'in one file' test "$(find "$work/cache" -name '*.ccas' | wc -l)" = 1
    head -c 5000 "$work/text" >"$work/other"
    expect 0 'another document' ask -m "$model" -f "$work/other" -n 4 'What is it about?'
    check 'has a file of its own' test "$(find "$work/cache" -name '*.ccas' | wc -l)" = 2
    expect 0 'a limit of all files' ask -m "$model" -f "$work/other" -n 4 --kv-limit 1K 'What is it about?'
    check 'leaves the one in use' test "$(find "$work/cache" -name '*.ccas' | wc -l)" = 1
    rm -rf "$work/cache"

    # An end that differs is gone back behind.
    cca "${ask[@]}" "$question"
    end=$("$CCA" tokenize -m "$model" -f "$work/text" --count)
    sed -i 's/of importance is said/of importance was sung/' "$work/text"
    another=("${ask[@]}" --json --sources 0 "$question") # other seams: equal up to rounding
    expect 0 'a document with another end' "${another[@]}"
    reused=$(sed -nE 's/.*"reused": ([0-9]+), .*/\1/p' "$work/out" | head -1)
    check 'goes back by at most 16 tokens' test "$reused" -ge $((end - 16)) -a "$reused" -lt "$end"
    words_of >"$work/second"
    cca "${another[@]}" --no-kv
    words_of >"$work/first"
    check 'with the same answer' cmp "$work/first" "$work/second"
    rm -rf "$work/cache"

    # Killed at any moment, the next run goes on and comes to the same answer.
    "${CCA}" "${ask[@]}" --json --no-kv "$question" >"$work/out" 2>/dev/null
    text_of >"$work/first"
    for i in 0 1 2 3; do
        rm -rf "$work/cache"
        "$CCA" "${ask[@]}" --json "$question" >/dev/null 2>&1 &
        pid=$!
        if [ $i -eq 0 ]; then
            sleep 0.3 # before or amid the first checkpoint
        else
            wait_until $pid has_kept $((i * 2500000))
            sleep "0.0$((i * 7 % 10))"
        fi
        kill -9 $pid
        wait $pid 2>/dev/null
        code=$?
        [ $i -eq 1 ] && check 'killed at work' test $code = 137
        cca "${ask[@]}" --json "$question"
        text_of >"$work/second"
        check "killed, $i: the same answer" cmp "$work/first" "$work/second"
    done
    rm -rf "$work/cache"
    "$CCA" "${ask[@]}" "$question" >/dev/null 2>"$work/err" &
    pid=$!
    wait_until $pid has_kept 0
    kill -INT $pid 2>/dev/null
    wait $pid
    code=$?
    if [ $code -eq 130 ]; then
        stderr_has 'an interrupt says what is kept' 'interrupted in prefill of the documents, after [0-9]+ of [0-9]+ tokens; [1-9][0-9]* of them are kept in .*: the same command goes on from there'
        cca "${ask[@]}" --json "$question"
        tokens_are 'which the same command takes up' '[1-9]*' '[1-9]*'
        text_of >"$work/second"
        check 'with the same answer' cmp "$work/first" "$work/second"
    else
        skip 'an interrupt says what is kept' 'the answer was there before'
    fi
    rm -rf "$work/cache"
done
