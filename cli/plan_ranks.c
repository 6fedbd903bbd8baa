#include "cli/plan_ranks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A positive number with one of some units behind it; *end is behind these. */
static bool parse_with_unit(double *out, const char **end, const char *text,
                            const char *const *units, const double *sizes, size_t n) {
    char *at;
    double value = strtod(text, &at);
    if (at == text || !isfinite(value) || value <= 0) return false;
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(units[i]);
        if (strncmp(at, units[i], length) != 0) continue;
        *out = value * sizes[i];
        *end = at + length;
        return true;
    }
    return false;
}

cca_status plan_link_parse(plan_link *out, const char *text, cca_error *err) {
    static const char *const rates[] = {"KB/s", "MB/s", "GB/s", "Kbit/s", "Mbit/s", "Gbit/s"};
    static const double of_rates[] = {1e3, 1e6, 1e9, 1e3 / 8, 1e6 / 8, 1e9 / 8};
    static const char *const times[] = {"ns", "us", "ms"};
    static const double of_times[] = {1e-9, 1e-6, 1e-3};
    const char *at;
    if (parse_with_unit(&out->bytes_s, &at, text, rates, of_rates, 6) && *at == ',' &&
        parse_with_unit(&out->latency_s, &at, at + 1, times, of_times, 3) && *at == '\0') {
        return CCA_OK;
    }
    return cca_fail(err, CCA_USAGE,
                    "--link %s: a rate and a latency expected, as in 50GB/s,5us or 1Gbit/s,1ms",
                    text);
}

/* Whether a machine's room is enough for its ranks, of which one may be the first of all. */
static bool fits(const plan_machine *each, int64_t n, uint64_t first, uint64_t others) {
    const uint64_t beside = (uint64_t)cca_min(each->n_ranks, n) - 1;
    uint64_t all;
    if (__builtin_mul_overflow(others, beside, &all)) return false;
    if (__builtin_add_overflow(all, first > others ? first : others, &all)) return false;
    return all <= each->room;
}

/* Who decodes, and a token's time where all do: one process's, though each attends to a part alone,
 * and what they tell each other, which nothing is computed beside. */
static void decide(plan_ranks *r, const plan_machine *each, const plan_link *link) {
    const cca_share_forecast *s = &r->share;
    const uint64_t most = s->spread_first > s->spread_others ? s->spread_first : s->spread_others;
    if (fits(each, r->n, s->gathered, s->gathered_others)) {
        r->decode = "gather";
    } else if (most > 0 && fits(each, r->n, s->spread_first, s->spread_others)) {
        r->decode = "share";
    }
    if (most == 0) return;
    r->exchange_s =
        (double)s->token_bytes / link->bytes_s + (double)s->token_waits * link->latency_s;
    if (each->token_s > 0) r->token_s = each->token_s + r->exchange_s;
}

/* Messages are sent beside what is computed between the keys of a rank's first slice and the rest
 * of its second one: half of it. Of that and the messages the longer counts. Who waits for the last
 * of a layer's messages waits for its latency, and so for each step of an agreement. */
cca_status plan_ranks_fill(plan_ranks *out, const cca_engine *engine,
                           const cca_session_options *options, int64_t n_ranks, int64_t n_tokens,
                           const plan_machine *each, const plan_link *link, cca_error *err) {
    *out = (plan_ranks){0};
    cca_share_forecast *share = &out->share;
    cca_status status =
        cca_session_share_forecast(share, engine, options, (int)n_ranks, n_tokens, err);
    if (status == CCA_NO_FIT) return CCA_OK;
    if (status) return status;
    out->n = n_ranks;
    out->transfer_s = (double)share->most_bytes / link->bytes_s;
    decide(out, each, link);
    if (each->prefill_s <= 0) return CCA_OK;
    double computed = each->prefill_s * (double)share->most_tokens / (double)n_tokens;
    out->prefill_s = computed / 2 + fmax(computed / 2, out->transfer_s) +
                     (double)share->n_waits * link->latency_s;
    return CCA_OK;
}

static json_t *bytes_or_null(uint64_t bytes) {
    return bytes > 0 ? json_integer((json_int_t)bytes) : json_null();
}

static json_t *decode_json(const plan_ranks *r) {
    const cca_share_forecast *s = &r->share;
    return json_pack("{s:o, s:{s:o, s:o}, s:{s:o, s:o, s:o, s:o, s:o}}", "auto",
                     r->decode ? json_string(r->decode) : json_null(), "gather", "rank_0",
                     bytes_or_null(s->gathered), "others", bytes_or_null(s->gathered_others),
                     "share", "rank_0", bytes_or_null(s->spread_first), "others",
                     bytes_or_null(s->spread_others), "token_bytes", bytes_or_null(s->token_bytes),
                     "exchange_s", output_real(r->exchange_s > 0, r->exchange_s), "token_s",
                     output_real(r->token_s > 0, r->token_s));
}

json_t *plan_ranks_json(const plan_ranks *r) {
    if (r->n == 0) return json_null();
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "n", (json_int_t)r->n,
                     "tokens", (json_int_t)r->share.most_tokens, "memory",
                     (json_int_t)r->share.most_memory, "sent_bytes",
                     (json_int_t)r->share.sent_bytes, "most_bytes", (json_int_t)r->share.most_bytes,
                     "ring_bytes", (json_int_t)r->share.ring_bytes, "transfer_s",
                     output_real(true, r->transfer_s), "prefill_s",
                     output_real(r->prefill_s > 0, r->prefill_s), "decode", decode_json(r));
}
