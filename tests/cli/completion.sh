#!/usr/bin/env bash
# The scripts that complete commands and options; bash's is run here, the others where they are.
set -u
. tests/cli/lib.sh

expect 0 'a script for bash' completion bash
cp "$work/out" "$work/bash"

completes() { # name, wanted words, words of the line; the last is what is completed
    local name=$1 wanted=$2 found
    shift 2
    found=$(bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cca; echo "${COMPREPLY[*]}"' \
        "$work/bash" "$@")
    if [ "$found" = "$wanted" ]; then pass "$name"; else fail "$name" "$found"; fi
}

completes 'commands' 'export' cca ex
completes 'options' '--checkpoint-every --chat-template' cca ask --ch
completes 'only those of the command' '--check' cca tokenize --ch
completes 'the values of an option' 'stride' cca ppl --mode st
completes 'by its short name, too' 'bf16' cca generate -ctk b
completes 'no options where a value is due' '' cca generate -m -
completes 'no options as values of others' '' cca generate -p x model
expect 2 'no shell' completion
expect 2 'an unknown one' completion tcsh
stderr_has 'names those there are' 'bash, zsh or fish'

for shell in zsh fish; do
    expect 0 "a script for $shell" completion $shell -o "$work/$shell"
    for command in generate ask session; do
        check "$shell: $command" grep -q "$command" "$work/$shell"
    done
    if command -v $shell >/dev/null; then
        check "$shell reads it" $shell -n "$work/$shell"
    else
        skip "$shell reads it" "no $shell here"
    fi
done
