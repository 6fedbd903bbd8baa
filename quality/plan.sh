#!/usr/bin/env bash
# Prints the measurements of a level, a line of measure.sh's arguments each, the most telling first.
#
#     quality/plan.sh quick|full MODEL [LABEL[/AGAINST]=FILE:ATTENTION …]
#
# `quick` is what `make quality` measures, `full` what is beyond it. Further models are measured with
# the attention that is theirs, and compared with the label AGAINST [main]. OUT/models keeps what the
# labels mean and OUT/settings what the ablation compares, for tables.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
level=$1 main=$2
shift 2

# Windows of a length that each book has, but at most so many.
[ -f "$OUT/tokens" ] || {
    for book in "$BOOKS_DIR"/*.txt; do
        echo "$(basename "$book" .txt) $("$CCA" tokenize -m "$main" -f "$book" --count)"
    done >"$OUT/tokens.part" && mv "$OUT/tokens.part" "$OUT/tokens"
}

# The model's own group size and window, G:S, and those that the ablation compares with it.
own=$("$CCA" info "$main" --json | sed 's/.*"group_size": \([0-9]*\).*"window_size": \([0-9]*\).*/\1:\2/')
{
    for g in 2 4 8 16 32 64; do echo "$g:${own#*:}"; done
    for s in 64 128 256 512 1024 2048; do [ "$s" = "${own#*:}" ] || echo "${own%:*}:$s"; done
} >"$OUT/settings"

ppl() { # model, attention, length, most windows a book
    awk -v model="$1" -v attention="$2" -v length_="$3" -v most="$4" '{
        n = int(($2 - 1) / (length_ - 1))
        if (n > most) n = most
        if (n > 0) print "ppl", model, attention, length_, $1, n
    }' "$OUT/tokens"
}

facts() { # model, attention, length, set, first document, last document, facts a depth
    for i in $(seq "$5" "$6"); do echo facts "$1" "$2" "$3" "$4" "$i" "$7"; done
}

quick() {
    for a in cca full window; do
        facts "$main" $a 2048 known 1 20 1
        facts "$main" $a 8192 known 1 20 1
    done
    for a in cca full mean max window sinks:4; do ppl "$main" $a 8192 4; done
    facts "$main" cca 32768 known 1 4 5
    facts "$main" full 32768 known 1 1 5
    ppl "$main" cca 32768 2
    facts "$main" cca 2048 new 1 10 1
    facts "$main" cca 8192 new 1 10 1
    for a in $(grep -vxF "$own" "$OUT/settings"); do
        ppl "$main" cca:$a 8192 1
        facts "$main" cca:$a 32768 known 1 1 5
    done
    facts "$main" cca 32768 new 1 2 5
    for a in window sinks:4 mean max; do ppl "$main" $a 32768 2; done
}

full() {
    for l in 131072 65536; do facts "$main" cca $l known 1 2 5; done
    ppl "$main" cca 131072 1
    for l in 131072 65536; do facts "$main" full $l known 1 1 5; done
    ppl "$main" full 32768 2
    for a in window sinks:4 mean max full; do ppl "$main" $a 131072 1; done
    facts "$main" cca 65536 new 1 1 5
    facts "$main" cca 131072 new 1 1 5
    for l in 131072 65536 32768; do facts "$main" window $l known 1 1 5; done
    facts "$main" full 32768 known 2 4 5
    facts "$main" window 32768 known 2 4 5
    for l in 131072 65536; do facts "$main" full $l known 2 2 5; done
}

other() { # model, attention
    case $level in
    quick)
        ppl "$1" "$2" 8192 4
        facts "$1" "$2" 8192 known 1 20 1
        ;;
    full)
        ppl "$1" "$2" 32768 1
        facts "$1" "$2" 32768 known 1 2 5
        ppl "$1" "$2" 131072 1
        facts "$1" "$2" 131072 known 1 1 5
        ;;
    esac
}

printf 'main\t%s\tcca\tmain\n' "$(fingerprint "$main")" >"$OUT/models"
$level
for arg; do
    label=${arg%%=*} file=${arg#*=}
    against=main
    [ "$label" != "${label#*/}" ] && against=${label#*/} label=${label%%/*}
    attention=${file#*:} file=${file%%:*}
    if [ ! -f "$file" ]; then
        echo "$label: $file is not there; the tables leave it out" >&2
        continue
    fi
    printf '%s\t%s\t%s\t%s\n' "$label" "$(fingerprint "$file")" "$attention" "$against" >>"$OUT/models"
    other "$file" "$attention"
done
