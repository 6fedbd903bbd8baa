# What `cca ppl --base FILE:full --json` says, of its record: tokens scored, perplexity, its ratio to the base's with
# the standard error, the mean divergence, that of 99 % of the tokens, and the share with the same likeliest token.

{
    scored = field("scored")
    perplexity = field("perplexity")
    sub(/.*"base": \{/, "")
    printf "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", scored, perplexity, field("ratio"), field("ratio_error"), field("kl"),
        field("kl_99"), field("same_top")
}
