#!/usr/bin/env bash
# Prints the measurements of a level, a line of measure.sh's arguments each, the most telling first.
#
#     quality/plan.sh quick|full MODEL [LABEL[/AGAINST]=FILE:ATTENTION …]
#
# `quick` is what `make quality` measures, `full` what is beyond it. Further models are measured with
# the attention that is theirs, and compared with the label AGAINST [main]. OUT/models keeps what the
# labels mean, for tables.sh.
set -euo pipefail
export LC_ALL=C
level=$1 main=$2
shift 2
OUT=${OUT:-build/quality} CCA=${CCA:-./cca}
BOOKS_DIR=${BOOKS_DIR:-$OUT/books}

fingerprint() {
    "$CCA" info "$1" --json | sed 's/.*"fingerprint": "\([0-9a-f]\{8\}\).*/\1/'
}

# Windows of a length that each book has, but at most so many.
[ -f "$OUT/tokens" ] || {
    for book in "$BOOKS_DIR"/*.txt; do
        echo "$(basename "$book" .txt) $("$CCA" tokenize -m "$main" -f "$book" --count)"
    done >"$OUT/tokens.part" && mv "$OUT/tokens.part" "$OUT/tokens"
}

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
    for a in cca:2:256 cca:4:256 cca:8:256 cca:32:256 cca:64:256 cca:16:64 cca:16:128 cca:16:512 cca:16:1024; do
        ppl "$main" $a 8192 1
        facts "$main" $a 32768 known 1 1 5
    done
}

full() {
    for l in 131072 65536 32768; do
        facts "$main" cca $l known 1 2 5
        facts "$main" full $l known 1 1 5
        facts "$main" window $l known 1 1 5
    done
    ppl "$main" cca 131072 1
    for a in full window mean max sinks:4; do ppl "$main" $a 32768 2; done
    for a in window mean max sinks:4 full; do ppl "$main" $a 131072 1; done
    facts "$main" cca 32768 new 1 2 5
    facts "$main" cca 131072 new 1 1 5
    facts "$main" full 32768 known 2 4 5
    facts "$main" window 32768 known 2 4 5
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
    attention=${file##*:} file=${file%:*}
    if [ ! -f "$file" ]; then
        echo "$label: $file is not there; the tables leave it out" >&2
        continue
    fi
    printf '%s\t%s\t%s\t%s\n' "$label" "$(fingerprint "$file")" "$attention" "$against" >>"$OUT/models"
    other "$file" "$attention"
done
