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

# What is no text is known by its first bytes.
foreign() { # name, printf's bytes, word of the advice
    printf "$2" >"$work/$1"
    expect 6 "$1" generate -m "$stories" -f "$work/$1" -n 1
    stderr_has 'gets its own advice' "$1: is .*$3"
    check 'and no other' test "$(grep -c invalid-utf8 "$work/err")" = 0
}
foreign paper.pdf '%%PDF-1.4\n1 0 obj\n' pdftotext
foreign letter.docx 'PK\003\004\024\000\006\000' 'docx.*pandoc'
foreign utf16.txt '\377\376T\000h\000' 'iconv -f UTF-16 '
foreign no-mark.txt 'T\000h\000e\000 \000m\000' 'iconv -f UTF-16LE'
foreign pointer.txt 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n' 'git lfs pull'
foreign picture '\211PNG\r\n\032\n' tesseract
gzip -c "$work/paper.pdf" >"$work/paper.gz"
expect 6 'in gzip, too' tokenize -m "$stories" -f "$work/paper.gz"
stderr_has 'with the same advice' pdftotext
expect 0 'read as it is where that is said' tokenize -m "$stories" -f "$work/utf16.txt" --invalid-utf8 bytes --check
printf '<!DOCTYPE html>\n<p>Hello' >"$work/page"
expect 0 'HTML' generate -m "$stories" -f "$work/page" -n 1
stderr_has 'is read with a warning' 'warning: .*page: is HTML; .*w3m'
expect 0 'the name of a file as a text' generate -m "$stories" -p "$work/page" -n 1
stderr_has 'is warned of' 'warning: -p takes the text itself, .* -f reads'
cp "$work/pointer.txt" "$work/pointer.gguf"
expect 3 'a pointer in place of a model' generate -m "$work/pointer.gguf" -p a -n 1
stderr_has 'says so' 'pointer.gguf: is a Git LFS pointer in place of the file; git lfs pull'
expect 3 'and to export' export "$work/pointer.gguf" -o "$work/x.gguf"
stderr_has 'says so' 'Git LFS pointer'
cp "$work/letter.docx" "$work/weights.pt"
expect 3 'a zip archive as a model' generate -m "$work/weights.pt" -p a -n 1
stderr_has 'is told' 'not a GGUF file, but a zip archive'
