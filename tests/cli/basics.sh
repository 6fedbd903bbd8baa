#!/usr/bin/env bash
# Help, version, usage errors: exit codes and streams.
set -u
. tests/cli/lib.sh

expect 0 'version' version
stdout_has 'version names the program' '^cca [0-9]+\.[0-9]+\.[0-9]+$'
stderr_empty 'version says nothing else'
expect 0 '--version is version' --version

expect 0 '-h' -h
check '-h fits a screen of 24 lines' test "$(wc -l <"$work/out")" -le 24
check '-h fits 80 columns' test "$(wc -L <"$work/out")" -le 80
stderr_empty '-h writes to standard output'

for command in generate ask chat ppl bench tune info tokenize export help; do
    expect 0 "help $command" help "$command"
    stdout_has "help $command names it" "^cca $command: "
    check "help $command fits 80 columns" test "$(wc -L <"$work/out")" -le 80
    cp "$work/out" "$work/page"
    expect 0 "$command --help" "$command" --help
    check "$command --help is the same page" cmp "$work/out" "$work/page"
done

expect 2 'no command'
stdout_empty 'no command: nothing on standard output'
stderr_has 'no command: the overview on standard error' 'usage: cca'
expect 2 'an unknown command' generat
stderr_has 'the nearest command' 'generat; the nearest one is generate'
expect 2 'help of an unknown command' help pppl
stderr_has 'the nearest command for help' 'the nearest one is ppl'
for words in 'perplexity:unknown command perplexity: it is cca ppl here' 'llama-quantize:it is cca export here' \
    'benchmark:the nearest one is bench' 'frobnicate:unknown command frobnicate \(cca -h lists all\)'; do
    expect 2 "command ${words%%:*}" "${words%%:*}"
    stderr_has 'what is meant' "${words#*:}"
done
for option in -ngl -fa -r --keep; do
    expect 2 "$option, as llama.cpp has it" generate "$option" 3
    stderr_has 'is explained' "unknown option $option: [a-zA-Z-]"
done
expect 2 'what no option is like' generate --frobnicate
stderr_has 'is not compared' 'unknown option --frobnicate$'
expect 2 'an unknown option' generate --predikt 3
stderr_has 'the nearest option' 'unknown option --predikt; the nearest one is --predict'
expect 2 'a number with trailing junk' generate -n 3x -p x
expect 2 'a number out of range' generate --top-p 1.5 -p x
expect 2 'more threads than there can be' generate --threads 1025 -p x
stderr_has 'the range that holds' '--threads 1025: outside 0 … 1024'
expect 2 'more threads than there can be' export --random 32,1,4,2,64,96 -o "$work/x" -t 1025
stderr_has 'the same range' '--threads 1025: outside 0 … 1024'
expect 2 'a number that the sampler does not take' generate --top-p 0 -p x
stderr_has 'is refused by the option and its range' '--top-p 0: outside 1e-06 … 1'
for option in mem-limit kv-limit temp; do
    expect 2 "--$option in hexadecimal" generate --$option 0x10 -p x
    stderr_has "--$option: the option is named" "--$option 0x10: a (size|number)"
done
expect 2 'a value that is missing' generate -n
expect 2 'an unknown choice' generate --progress often
stderr_has 'the choices' 'auto\|bar\|line\|none'
expect 2 'an argument too many' generate text
stdout_empty 'usage errors write nothing to standard output'

check 'a full device is exit 7' bash -c '"$0" version >/dev/full 2>"$1"; test $? = 7' "$CCA" "$work/err"
stderr_has 'and says so' 'standard output: cannot write'
check 'a closed standard output is exit 7' bash -c '"$0" version >&- 2>/dev/null; test $? = 7' "$CCA"

# Each command and option has its line in the documentation and in the manual page.
sed 's/\\-/-/g; s/\\f[BIR]//g' man/cca.1 >"$work/man"
missing='' no_page=''
cca -h
commands=$(sed -n '/^usage/,$s/^  \([a-z]*\)  .*/\1/p' "$work/out")
check 'the overview lists the commands' grep -q 'generate.*export.*version' <<<"${commands//$'\n'/ }"
for command in $commands; do
    cca help "$command"
    grep -qE "^\.(B|BI|BR) \"? ?$command( |$)" "$work/man" || no_page="$no_page $command"
    for option in $(grep -oE '^  (-[a-z]+, )?--[a-z0-9-]+' "$work/out" | grep -oE -- '--.*'); do
        grep -qF -- "$option" docs/CLI.md || missing="$missing $command:$option"
        grep -qE -- "$option([^a-z0-9-]|$)" "$work/man" || no_page="$no_page $command:$option"
    done
done
check 'docs/CLI.md has all options' test -z "$missing"
check 'man/cca.1 has all commands and options' test -z "$no_page"
