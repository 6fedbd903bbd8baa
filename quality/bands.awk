# Reduces the lines of `cca ppl --mode chunk -c WINDOW --nll-out` to sums by position.
#
#     awk -v window=8192 -f bands.awk NLL
#
# prints a line a window and band: window's number from 0, the band's first position and the one
# behind its last, tokens, nats. Bands are 1 … 255, 256 … 511, 512 … 1023, 1024 … 2047 and so on; the
# BOS at position 0 is not scored. A last window that is not full is left out.

{
    position = (NR - 1) % (window - 1) + 1
    if (position == 1) {
        piece = NR == 1 ? 0 : piece + 1
        from = 0
        to = 256
    } else if (position == to) {
        from = to
        to *= 2
    }
    if (!((piece, from) in tokens)) tokens[piece, from] = nats[piece, from] = 0
    tokens[piece, from]++
    nats[piece, from] += $3
}

END {
    for (i = 0; i < int(NR / (window - 1)); i++)
        for (from = 0; from < window; from = from ? 2 * from : 256)
            printf "%d\t%d\t%d\t%d\t%.4f\n", i, from, from ? 2 * from : 256, tokens[i, from], nats[i, from]
}
