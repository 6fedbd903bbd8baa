# Helpers of the CLI tests; sourced from the repository's root. Each check is one line: "ok name",
# "FAIL name" with what was found, or "skip name: why".
#
#     expect 2 'an unknown option' generate --no-such-option
#     stderr_has 'and the nearest one' 'nearest one'
#     check 'some condition' test -f "$work/file"

CCA=${CCA:-./cca}
unset CCA_MODEL NO_COLOR
work=$(mktemp -d)
export XDG_CACHE_HOME=$work/cache XDG_STATE_HOME=$work/state
any_failed=0
finish() {
    local status=$?
    rm -rf "$work"
    [ "$status" -eq 0 ] && exit "$any_failed"
}
trap finish EXIT

pass() {
    echo "ok $1"
}

fail() { # name, details
    any_failed=1
    echo "FAIL $1"
    [ $# -lt 2 ] || printf '%s\n' "$2" | head -20
}

skip() { # name, why
    echo "skip $1: $2"
}

check() { # name, command
    local name=$1 details
    shift
    if details=$("$@" 2>&1); then pass "$name"; else fail "$name" "$*: $details"; fi
}

# Runs cca; its streams are kept in $work/out and $work/err, its exit status in $code.
cca() {
    "$CCA" "$@" >"$work/out" 2>"$work/err"
    code=$?
}

expect() { # exit status, name, arguments of cca; standard input is passed on
    local wanted=$1 name=$2
    shift 2
    cca "$@"
    if [ "$code" -eq "$wanted" ]; then
        pass "$name"
    else
        fail "$name" "exit status $code, not $wanted: cca $*
$(head -5 "$work/err")"
    fi
}

# Waits for a command to succeed; fails where the process is gone before, or after two minutes.
wait_until() { # process, command
    local pid=$1
    shift
    for _ in $(seq 6000); do
        "$@" >/dev/null 2>&1 && return 0
        kill -0 "$pid" 2>/dev/null || return 1
        grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null && return 1
        sleep 0.02
    done
    return 1
}

# What the last cca wrote.
stdout_is() { # name, text (without the newlines at its end)
    if [ "$(cat "$work/out")" = "$2" ]; then pass "$1"; else fail "$1" "$(cat "$work/out")"; fi
}

stdout_has() { # name, extended regular expression
    if grep -qE -- "$2" "$work/out"; then pass "$1"; else fail "$1" "$(cat "$work/out")"; fi
}

stderr_has() {
    if grep -qE -- "$2" "$work/err"; then pass "$1"; else fail "$1" "$(cat "$work/err")"; fi
}

stdout_empty() {
    check "$1" test ! -s "$work/out"
}

stderr_empty() {
    check "$1" test ! -s "$work/err"
}

# stories=FILE: a small trained model with a tokenizer, trained for 512 positions. Where the weights
# of stories260K are there, story is the text that llama2.c makes of them; else story is empty, and the
# model that ships stands in.
data=../shared/data
make_stories() {
    stories=$work/stories.gguf story=
    if [ -f "$data/stories260K.bin" ]; then
        story=$(sed -n '/^> /s/^> //p' "$data/README.md")
        "$CCA" export "$data/stories260K.bin" --tokenizer "$data/tok512.bin" --type f32 -q -o "$stories"
    else
        skip 'values of stories260K' "no $data/stories260K.bin; the model that ships stands in"
        "$CCA" export models/cca-*.gguf -c 512 -q -o "$stories"
    fi
}

# random=FILE: a model of random weights without a tokenizer.
make_random() { # shape, further options
    random=$work/random.gguf
    "$CCA" export --random "${1:-32,2,4,2,64,128}" --seed 1 -q -o "$random" "${@:2}" 2>/dev/null
}

# Of the last --json record: what a stored state spared, and the answers without times and sizes.
tokens_are() { # name, reused, prefilled, each a shell pattern
    local found
    found=$(sed -nE 's/.*"reused": ([0-9]+), "prefilled": ([0-9]+).*/\1 \2/p' "$work/out" | head -1)
    case $found in $2\ $3) pass "$1" ;; *) fail "$1" "reused, prefilled: $found, not $2 $3" ;; esac
}

text_of() { # the answers of the last record
    sed 's/"timing": {[^}]*}//g; s/"tokens": {[^}]*}//g; s/"memory": {[^}]*}//; s/"seed": [0-9]*//' "$work/out"
}

# Whether products of many tokens round activations or weights to 16 bits or fewer here, so that equal sums in another
# order are equal up to that. Models and caches in f32 are exact everywhere.
rounds() { grep -qE 'avx512_?vnni|amx_' /proc/cpuinfo; }

# The same, up to what is rounded here: a relative difference.
is_about() { # name, number, number, difference
    if rounds; then
        check "$1" awk -v a="$2" -v b="$3" -v t="$4" 'BEGIN { d = a - b; exit !(a != "" && d * d <= t * t * b * b) }'
    else
        is "$1" "$2" "$3"
    fi
}
