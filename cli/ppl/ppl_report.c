#include "cli/ppl/ppl_report.h"

#include <stdio.h>

enum { SIGNATURE_TEXT = 512 };

static const char *mode_name(const ppl_report *r) {
    static const char *const names[] = {"full", "stride", "chunk", "llama.cpp"};
    return names[r->layout.mode];
}

static const char *bos_name(const ppl_report *r) {
    static const char *const names[] = {"every", "first", "none"};
    return r->replaced_bos ? "replaced" : names[r->layout.bos];
}

/* No query is further from the text's start than s: the definition has no cores there. */
static bool inside_window(const ppl_report *r) {
    return r->totals.largest <= cli_attention(r->context, r->engine).window_size;
}

/* What a number must be quoted with to mean something. */
static const char *signature(char out[SIGNATURE_TEXT], const ppl_report *r) {
    const ppl_layout *l = &r->layout;
    const context_options *c = r->context;
    cca_attention_settings a = cli_attention(c, r->engine);
    char scored[48] = "", sizes[80] = "", recall[CLI_RECALL_TEXT];
    if (l->mode == PPL_STRIDE) snprintf(scored, sizeof scored, " S=%lld", (long long)l->stride);
    if (l->mode == PPL_CHUNK) snprintf(scored, sizeof scored, " F=%lld", (long long)l->score_from);
    if (a.window_size > 0) {
        snprintf(sizes, sizeof sizes, " g=%lld s=%lld", (long long)a.group_size,
                 (long long)a.window_size);
    }
    cli_describe_recall(recall, &a, " ", "=");
    snprintf(out, SIGNATURE_TEXT,
             "mode=%s W=%lld%s bos=%s attn=%s%s%s kv=%s/%s tokenizer=%016llx text=%016llx",
             mode_name(r), (long long)l->window, scored, bos_name(r),
             cli_has_sinks(c->attn) ? a.attn : c->attn, sizes, recall, c->k_type, c->v_type,
             (unsigned long long)r->tokenizer_hash, (unsigned long long)r->text_hash);
    return out;
}

static void print_bands(output *out, const ppl_stats *stats) {
    output_printf(out, "\n%-12s %10s %12s %12s\n", "position", "tokens", "nats/token",
                  "perplexity");
    for (int i = 0; i < PPL_N_BANDS; i++) {
        const ppl_sums *band = &stats->bands[i];
        int64_t from, to;
        char name[64];
        if (band->n == 0) continue;
        ppl_band_range(i, &from, &to);
        if (to == INT64_MAX) {
            snprintf(name, sizeof name, "%lldK-", (long long)(from / 1024));
        } else {
            snprintf(name, sizeof name, "%lld%s-%lldK", (long long)(from / 1024), from ? "K" : "",
                     (long long)(to / 1024));
        }
        output_printf(out, "%-12s %10lld %12.5f %12.4f\n", name, (long long)band->n, ppl_mean(band),
                      ppl_perplexity(band));
    }
}

void ppl_report_print(output *out, const ppl_report *r) {
    char quoted[SIGNATURE_TEXT];
    const ppl_sums *all = &r->stats.all;
    double ppl = ppl_perplexity(all), error = ppl_standard_error(all);
    if (r->layout.mode == PPL_LLAMACPP) {
        output_printf(out, "\nFinal estimate: PPL = %.4f +/- %.5f\n\n", ppl, error);
    }
    output_printf(out, "perplexity      %.4f +/- %.5f\n", ppl, error);
    output_printf(out, "nats per token  %.5f\n", ppl_mean(all));
    if (r->stats.bytes > 0) {
        output_printf(out, "bits per byte   %.5f\n", ppl_bits_per_byte(&r->stats));
    }
    output_printf(out, "scored          %lld tokens, %llu bytes\n", (long long)all->n,
                  (unsigned long long)r->stats.bytes);
    if (inside_window(r)) {
        output_printf(
            out,
            "window          %lld positions, not more than s = %lld: this is full attention\n      "
            "          and says nothing about CCA\n",
            (long long)r->totals.largest,
            (long long)cli_attention(r->context, r->engine).window_size);
    }
    print_bands(out, &r->stats);
    output_printf(out, "\nsignature       %s\n", signature(quoted, r));
}

static json_t *json_bands(const ppl_stats *stats) {
    json_t *bands = json_array();
    for (int i = 0; i < PPL_N_BANDS; i++) {
        const ppl_sums *band = &stats->bands[i];
        int64_t from, to;
        if (band->n == 0) continue;
        ppl_band_range(i, &from, &to);
        json_t *end = to == INT64_MAX ? json_null() : json_integer(to);
        json_array_append_new(bands,
                              json_pack("{s:I, s:o, s:I, s:f, s:f}", "from", (json_int_t)from, "to",
                                        end, "tokens", (json_int_t)band->n, "nats_per_token",
                                        ppl_mean(band), "perplexity", ppl_perplexity(band)));
    }
    return bands;
}

static json_t *json_settings(const ppl_report *r) {
    const ppl_layout *l = &r->layout;
    json_t *stride = l->mode == PPL_STRIDE ? json_integer(l->stride) : json_null();
    json_t *from = l->mode == PPL_CHUNK ? json_integer(l->score_from) : json_null();
    return json_pack("{s:s, s:I, s:o, s:o, s:s, s:o, s:b}", "mode", mode_name(r), "window",
                     (json_int_t)l->window, "stride", stride, "score_from", from, "bos",
                     bos_name(r), "attention", cli_attention_json(r->context, r->engine),
                     "inside_window", (int)inside_window(r));
}

json_t *ppl_report_json(const ppl_report *r, json_t *warnings) {
    char quoted[SIGNATURE_TEXT];
    const ppl_sums *all = &r->stats.all;
    json_t *bits = output_real(r->stats.bytes > 0, ppl_bits_per_byte(&r->stats));
    json_t *tokens = json_pack("{s:I, s:I, s:I}", "text", (json_int_t)r->layout.n_tokens, "scored",
                               (json_int_t)all->n, "bytes", (json_int_t)r->stats.bytes);
    json_t *timing = json_pack("{s:f, s:f}", "load_s", r->load_s, "eval_s", r->eval_s);
    return json_pack("{s:s, s:f, s:f, s:f, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:O}", "schema",
                     "cca.ppl.1", "perplexity", ppl_perplexity(all), "standard_error",
                     ppl_standard_error(all), "nats_per_token", ppl_mean(all), "bits_per_byte",
                     bits, "tokens", tokens, "settings", json_settings(r), "positions",
                     json_bands(&r->stats), "signature", signature(quoted, r), "timing", timing,
                     "memory", cli_plan_json(&r->plan), "warnings", warnings);
}
