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
completes 'options' '--choices --checkpoint-every --chat-template' cca ask --ch
completes 'only those of the command' '--check' cca tokenize --ch
completes 'the values of an option' 'stride' cca ppl --mode st
completes 'by its short name, too' 'bf16' cca generate -ctk b
completes 'no options where a value is due' '' cca ppl --stride -
completes 'values of the form --option=value' 'stride' cca ppl --mode = st
completes 'all of them, too' 'f32 f16 bf16 q8_0' cca generate --cache-type-k =
completes 'chat templates' 'llama2 llama3' cca ask --chat-template ll
completes 'kinds of attention' 'full' cca bench --attn f
completes 'devices' 'cuda cuda:0' cca tune --device cu
completes 'types of weights' 'q8_0 q4_0 q4_k q5_k q6_k q4_k_m q5_k_m' cca export --type q
completes 'formats' 'md csv json' cca tune --format ''
completes 'file names' 'models/cca-books-15m.gguf' cca generate -m models/c
completes 'file names behind =' 'models/README.md' cca ppl --file = models/R
completes 'files that are no options' 'models/README.md' cca info models/R
completes 'nothing where anything may stand' '' cca generate -p mod
completes 'nor where nothing may' '' cca generate mod
completes 'what a session command does' 'show' cca session s
completes 'and its files' 'models/README.md' cca session show models/R
completes 'shells' 'zsh' cca completion z
completes 'commands to explain' 'export' cca help ex
missing=
for command in $("$CCA" -h | sed -n '/^usage/,$s/^  \([a-z]*\)  .*/\1/p'); do
    for option in $("$CCA" help "$command" | grep -oE '^  (-[a-z]+, )?--[a-z0-9-]+' | grep -oE -- '-+[a-z0-9-]+'); do
        for script in bash; do grep -q -- "$command:.*) words=.*$option " "$work/$script" || missing="$missing $command:$option"; done
    done
done
check 'each option of each command is there' test -z "$missing"
expect 2 'no shell' completion
expect 2 'an unknown one' completion tcsh
stderr_has 'names those there are' 'bash, zsh or fish'

for shell in zsh fish; do
    expect 0 "a script for $shell" completion $shell -o "$work/$shell"
    for command in generate ask chat tune session; do
        check "$shell: $command" grep -q "$command" "$work/$shell"
    done
    if command -v $shell >/dev/null; then
        check "$shell reads it" $shell -n "$work/$shell"
    else
        skip "$shell reads it" "no $shell here"
    fi
done
if command -v fish >/dev/null; then
    in_fish() { # name, wanted words, line
        local found
        found=$(fish -c "source $work/fish; complete -C '$3'" 2>&1 | cut -f1 | tr '\n' ' ')
        if [ "$found" = "$2" ]; then pass "$1"; else fail "$1" "$found"; fi
    }
    in_fish 'fish: commands' 'export ' 'cca ex'
    in_fish 'fish: values' 'stride ' 'cca ppl --mode st'
    in_fish 'fish: by the short name' 'bf16 ' 'cca generate -ctk b'
    in_fish 'fish: templates' 'llama2 llama3 ' 'cca ask --chat-template ll'
    in_fish 'fish: what a session command does' 'show ' 'cca session sh'
    in_fish 'fish: file names' 'models/README.md ' 'cca info models/RE'
    in_fish 'fish: no file names where none belong' '' 'cca generate --seed mod'
fi
# zsh completes lines that are typed into a terminal; what it makes of them is written down.
if command -v zsh >/dev/null; then
    cat >"$work/type.zsh" <<'END'
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "autoload -Uz compinit; compinit -u -D; source $1; cca() { print -r -- \"\$*\" >>$2 }"
for line in "${@:3}"; do zpty -w shell "$line"$'\t'; done
zpty -w shell exit
while zpty -r shell shown 2>/dev/null; do :; done
END
    timeout 60 zsh "$work/type.zsh" "$work/zsh" "$work/typed" 'cca exp' 'cca ppl --mode st' 'cca generate -ctk b' \
        'cca help ex' 'cca session sho' 'cca info models/READ' 'cca export --type q4' >/dev/null 2>&1 </dev/null
    check 'zsh: commands, values, operands, files' test "$(tr '\n' '|' <"$work/typed")" = \
        'export|ppl --mode stride|generate -ctk bf16|help export|session show|info models/README.md|export --type q4_0|'
fi
