#!/usr/bin/env bash
# Prints the tables of docs/QUALITY.md from what was measured, and draws the heat map.
#
#     quality/tables.sh MODEL [docs/facts.svg]
#
# Each stands between <!-- its name --> and <!-- end -->, where fill.awk puts it into the document.
# Environment: OUT [build/quality], CCA [./cca].
set -euo pipefail
export LC_ALL=C
here=$(dirname "$0")
OUT=${OUT:-build/quality} CCA=${CCA:-./cca}
model=$1
[ -f "$OUT/models" ] || { echo "Nothing is measured yet."; exit 0; }

# All measurements of the models in OUT/models, in the columns that tables.awk tells.
collect() {
    local label fingerprint attention against own setting g s
    while IFS=$'\t' read -r label fingerprint attention against; do
        printf '%s\t%s\tmodel\t\t\t%s\t%s\n' "$label" "$attention" "$fingerprint" "$against"
        [ -d "$OUT/$fingerprint" ] || continue
        (cd "$OUT/$fingerprint" && find . -type f ! -name '*.part*' | sort -V | xargs -r awk -v label="$label" '
            FNR == 1 { split(FILENAME, part, "/"); split(part[3], test, "-") }
            { kind = test[1] == "facts" && FNR == 1 ? "speed" : test[1] }
            { print label "\t" part[2] "\t" kind "\t" test[2] "\t" part[4] "\t" $0 }')
    done <"$OUT/models"
    own=$("$CCA" info "$model" --json | sed 's/.*"group_size": \([0-9]*\).*"window_size": \([0-9]*\).*/\1:\2/')
    for setting in $(cat "$OUT/settings") full; do
        IFS=: read -r g s <<<"$setting"
        if [ "$setting" = full ]; then set -- --attn full; else set -- -g "$g" -w "$s"; fi
        printf 'main\t%s\tcache\t131072\t%s\t' "$setting" "$own"
        "$CCA" generate -m "$model" "$@" -c 131072 -p x --dry-run --json |
            tr ',{' '\n\n' | awk '/"(cores|bounds|rows|window)":/ { sum += $2 } END { print sum }'
    done
}

collect >"$OUT/measurements"
table() { # name, heading
    printf '<!-- %s -->\n\n**%s**\n\n' "$1${3:+ $3}" "$2"
    awk -v table="$1" -v length_="${3:-0}" -f "$here/markdown.awk" -f "$here/tables.awk" "$OUT/measurements"
    printf '\n<!-- end -->\n'
}
table lengths 'Perplexity by length'
for l in 8192 32768 131072; do
    grep -q "ppl	$l	" "$OUT/measurements" && table bands "By position, $l tokens" $l
done
table facts 'Planted facts'
table ablation 'Group size and window'
[ "$(wc -l <"$OUT/models")" -gt 1 ] && table models 'Other models'
if [ $# -gt 1 ]; then
    awk -v table=depths -f "$here/markdown.awk" -f "$here/tables.awk" "$OUT/measurements" | awk -f "$here/heatmap.awk" >"$2.part"
    mv "$2.part" "$2"
fi
