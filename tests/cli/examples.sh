#!/usr/bin/env bash
# Every example of README.md, docs/CLI.md, man/cca.1 and "cca -h" is run: it must end with exit 0.
# Names of files are those of stand-ins, and long runs are shortened, by the tables below.
set -u
. tests/cli/lib.sh
command -v jq >/dev/null || { skip "examples" "no jq here"; exit; }

model=$(ls "$PWD"/models/cca-*.gguf | head -1)
golden=$PWD/tests/golden
data=$PWD/$data
mkdir "$work/bin" "$work/home"
ln -s "$(realpath "$CCA")" "$work/bin/cca"
export PATH=$work/bin:$PATH HOME=$work/home CCA_MODEL=$model

# Lines that are no examples, and why.
reason() {
    case $1 in
    *COMMAND* | *'['*) echo 'shows the usage' ;;
    *stories15M.bin*) [ -f "$data/stories260K.bin" ] || echo 'no weights of llama2.c' ;;
    esac
}

# What is shortened: the same options with smaller numbers.
shorten() {
    sed -e 's/-d 0,8192,32768/-d 0,64,600/' -e 's/-n 200\b/-n 20/' \
        -e 's/-g 2,4,8,16,32,64/-g 8,16/; s/-w 64,128,256,512,1024/-w 64,128/; s/--min-facts 95/--min-facts 1/' \
        -e 's/^cca tune /&--facts 2 -g 8 -w 64 /'
}

# The template of TinyLlama-1.1B-Chat's family, in a folder's tokenizer_config.json.
add_template() { # folder
    local at=$1/tokenizer_config.json template
    template="{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\\n' + m['content'] + eos_token }}{% else %}{{ '<|assistant|>\\n' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    jq --arg t "$template" '.chat_template = $t' "$at" >"$at.new" && mv "$at.new" "$at"
}

# An example's files: whatever it names.
stand_in() { # name
    case $1 in
    *.txt) printf 'The report was signed by Ada. It costs 20 pounds.\n%.0s' {1..30} >"$1" ;;
    *.txt.gz) printf 'The annex was signed by Charles.\n%.0s' {1..30} | gzip >"$1" ;;
    set.jsonl) printf '{"question": "Who signed it?", "document": "report.txt"}\n' >"$1" && stand_in report.txt ;;
    *.jsonl) printf '{"question": "Who signed it?"}\n{"question": "What does it cost?"}\n' >"$1" ;;
    *Q4_K_M.gguf | base.gguf) cp "$golden/kquants/tiny.gguf" "$1" ;;
    tuned.gguf) cp "$golden/patch/tiny.gguf" "$1" ;;
    *.gguf) cp "$model" "$1" ;;
    *-1.1B-Chat) cp -r "$golden/models/hf-text-llama2" "$1" && add_template "$1" ;;
    stories15M.bin) cp "$data/stories260K.bin" "$1" ;;
    tokenizer.bin) cp "$data/tok512.bin" "$1" ;;
    esac 2>/dev/null
}

# The folders that a redirection needs, and FILE: a stored session.
run_example() { # line
    local line=$1 word target
    for word in $line; do
        word=${word//[\'\"]/}
        [ -e "$word" ] || stand_in "$word"
    done
    target=$(grep -oE '>[^ ]+' <<<"$line" | tail -1)
    [ -z "$target" ] || eval "mkdir -p \"\$(dirname ${target#>})\""
    line=${line//FILE/$(ls "$XDG_CACHE_HOME"/cca/* 2>/dev/null | head -1)}
    timeout 300 bash -c "$line" </dev/null >"$work/out" 2>"$work/err"
}

examples() { # source
    case $1 in
    *.md) sed -n 's/^    \(cca .*\)/\1/p' "$1" ;;
    *.1) sed -n '/^\.nf/,/^\.fi/s/^cca /&/p' "$1" | sed 's/\\-/-/g; s/\\(aq/'\''/g; s/\\e/\\/g' ;;
    *) "$CCA" -h | sed -n 's/^  \(cca .* -.*\)/\1/p' ;;
    esac
}

for source in README.md docs/CLI.md man/cca.1 overview; do
    mapfile -t lines < <(examples "$source")
    check "$source has examples" test "${#lines[@]}" -gt 1
    # Sessions to list and show, whatever was run before.
    "$CCA" ask -p 'Ada signed it.' 'Who?' >"$work/out" 2>&1
    mkdir "$work/$(basename $source).d"
    pushd "$work/$(basename $source).d" >/dev/null || exit 1
    for line in "${lines[@]}"; do
        why=$(reason "$line")
        if [ -n "$why" ]; then
            case $why in shows*) ;; *) skip "$source: $line" "$why" ;; esac
        elif run_example "$(shorten <<<"$line")"; then
            pass "$source: $line"
        else
            fail "$source: $line" "exit status $?: $(tail -3 "$work/err")"
        fi
    done
    popd >/dev/null || exit 1
done
