# Draws planted facts as heat maps, a panel a kind of attention: lengths from left to right, depths
# from top to bottom.
#
#     awk -f heatmap.awk DEPTHS >facts.svg
#
# DEPTHS: attention, length, depth, right answers, questions; separated by tabs, as from tables.awk.

BEGIN { FS = "\t" }
!($1 in column) { column[$1] = panels; panel[panels++] = $1 }
!($2 in place) { place[$2] = lengths; length_of[lengths++] = $2 }
{
    right[$1, $2, $3] = $4
    asked[$1, $2, $3] = $5
}

# From sand over green to a deep blue.
function colour(share,    t) {
    t = share < 0.5 ? share * 2 : share * 2 - 1
    if (share < 0.5) return sprintf("#%02x%02x%02x", 245 - t * 118, 237 - t * 41, 214 - t * 29)
    return sprintf("#%02x%02x%02x", 127 - t * 98, 196 - t * 118, 185 - t * 49)
}

function text(x, y, anchor, style, content) {
    printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", x, y, anchor, style, content
}

function draw_panel(p, left, top,    i, depth, x, y, key, share, name) {
    name = panel[p]
    text(left + lengths * wide / 2, top - 14, "middle", " class=\"title\"", name)
    for (i = 0; i < lengths; i++) {
        x = left + i * wide
        text(x + wide / 2, top + 11 * high + 18, "middle", "", length_of[i] / 1024 "K")
        for (depth = 0; depth <= 100; depth += 10) {
            y = top + depth / 10 * high
            key = name SUBSEP length_of[i] SUBSEP depth
            if (!(key in asked)) {
                printf "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" class=\"none\"/>\n", x + 1, y + 1, wide - 2, high - 2
                continue
            }
            share = right[key] / asked[key]
            printf "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"3\" fill=\"%s\">", \
                x + 1, y + 1, wide - 2, high - 2, colour(share)
            printf "<title>%s, %d tokens, depth %d %%: %d of %d</title></rect>\n", \
                name, length_of[i], depth, right[key], asked[key]
            text(x + wide / 2, y + high / 2 + 4, "middle", \
                " class=\"cell\" fill=\"" (share > 0.6 ? "#fff" : "#333") "\"", sprintf("%.0f", 100 * share))
        }
    }
}

END {
    wide = 46
    high = 24
    top = 76
    margin = 62
    gap = 26
    width = margin + panels * (lengths * wide + gap)
    height = top + 11 * high + 58
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\"", width, height, width, height
    print " font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#333\">"
    print "<style>.title { font-size: 14px; font-weight: bold } .cell { font-size: 11px }" \
        " .none { fill: none; stroke: #ddd; stroke-dasharray: 2 2 }</style>"
    printf "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", width, height
    text(margin, 26, "start", " class=\"title\" font-size=\"16\"", "Planted facts: answers that are right to the letter, in per cent")
    for (depth = 0; depth <= 100; depth += 10)
        text(margin - 8, top + depth / 10 * high + high / 2 + 4, "end", "", depth " %")
    printf "<text transform=\"translate(14 %d) rotate(-90)\" text-anchor=\"middle\">depth of the fact</text>\n", top + 5.5 * high
    for (p = 0; p < panels; p++) draw_panel(p, margin + p * (lengths * wide + gap), top)
    text(margin + (width - margin) / 2, height - 12, "middle", "", "length of the document in tokens")
    print "</svg>"
}
