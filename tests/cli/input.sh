#!/usr/bin/env bash
# Input: UTF-8, NUL, gzip, files that cannot be read.
set -u
. tests/cli/lib.sh
make_stories

printf 'fine\nbad \xff here' >"$work/bad"
expect 6 'invalid UTF-8' generate -m "$stories" -f "$work/bad" -n 1
stderr_has 'names file, offset and line' "bad: invalid UTF-8 .* byte offset 9, line 2"
stdout_empty 'and writes nothing'
printf 'abc\xed\xa0\x80' >"$work/surrogate"
expect 6 'a surrogate' tokenize -m "$stories" -f "$work/surrogate"
stderr_has 'at its offset' 'byte offset 3, line 1'
printf 'abc\xc0\xaf' >"$work/overlong"
expect 6 'an overlong form' tokenize -m "$stories" -f "$work/overlong"
printf 'abc\xe2\x82' >"$work/short"
expect 6 'a character that the end cuts' tokenize -m "$stories" -f "$work/short"
expect 0 '--invalid-utf8 replace' tokenize -m "$stories" -f "$work/bad" --invalid-utf8 replace --check
expect 0 '--invalid-utf8 bytes' tokenize -m "$stories" -f "$work/bad" --invalid-utf8 bytes --check
expect 0 'a bad byte is one byte token' tokenize -m "$stories" -f "$work/bad" --invalid-utf8 bytes --pieces
stdout_has 'at its offset' '^258	9	<0xFF>$'
stdout_has 'and the text behind it at its own' '^[0-9]+	10	'

printf 'a\0b\0' >"$work/nul"
expect 0 'NUL bytes' tokenize -m "$stories" -f "$work/nul" --check
stdout_has 'are all there' 'same 4 bytes'
printf '</s> <s> <0x41>' >"$work/controls"
expect 0 'control tokens in a document' tokenize -m "$stories" -f "$work/controls" --no-bos
check 'stay plain text' bash -c '! grep -qwE "1|2" "$0"' "$work/out"

printf 'some text' | gzip >"$work/text.gz"
expect 0 'gzip' tokenize -m "$stories" -f "$work/text.gz"
cp "$work/out" "$work/ids"
expect 0 'plain' tokenize -m "$stories" -p 'some text'
check 'the same ids' cmp "$work/out" "$work/ids"
head -c 20 "$work/text.gz" >"$work/cut.gz"
expect 1 'truncated gzip' tokenize -m "$stories" -f "$work/cut.gz"
stderr_has 'names file and offset' 'cut\.gz: truncated gzip data at byte 20'
expect 1 'a missing file' tokenize -m "$stories" -f "$work/none"
stderr_has 'names it' 'none: cannot open'
expect 1 'a directory' tokenize -m "$stories" -f "$work"
expect 2 'standard input twice' tokenize -m "$stories" -f - -f -

expect 0 'encoding' tokenize -m "$stories" -p 'Once upon a time'
ids=$(cat "$work/out")
[ -z "$story" ] || stdout_is 'begins with BOS' '1 403 407 261 378'
expect 0 'decoding' tokenize -m "$stories" --decode -p "$ids"
stdout_is 'gives the text' 'Once upon a time'
expect 2 'an id outside the vocabulary' tokenize -m "$stories" --decode -p '1 99999'
expect 0 'the count' tokenize -m "$stories" --count -p 'Once upon a time'
stdout_is 'has BOS in it' "$(wc -w <<<"$ids")"
expect 0 'tokens as JSON' tokenize -m "$stories" --json -p 'Once upon a time'
stdout_is 'are a record' "{\"schema\": \"cca.tokenize.1\", \"count\": $(wc -w <<<"$ids"), \"ids\": [${ids// /, }]}"
