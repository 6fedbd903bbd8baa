#include "cli/ppl/ppl_report.h"
#include "cli/ranks.h"

#include <stdio.h>

enum { SIGNATURE_TEXT = 1536, BASE_TEXT = 512 };

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

/* Kind, g, s, sinks, recall and cores in force; the same words of a base. */
enum { ATTENTION_TEXT = 384 };
static const char *attention_words(char out[ATTENTION_TEXT], const context_options *c,
                                   const cca_engine *engine) {
    cca_attention_settings a = cli_attention(c, engine);
    char sizes[80] = "", rows[48] = "", recall[CLI_RECALL_TEXT];
    if (a.window_size > 0) {
        snprintf(sizes, sizeof sizes, " g=%lld s=%lld", (long long)a.group_size,
                 (long long)a.window_size);
    }
    cli_describe_recall(recall, &a, " ", "=");
    if (c->row_type && a.recall > 0) snprintf(rows, sizeof rows, " rows=%s", c->row_type);
    snprintf(out, ATTENTION_TEXT, "%s%s%s kv=%s/%s%s", cli_has_sinks(c->attn) ? a.attn : c->attn,
             sizes, recall, c->k_type, c->v_type, rows);
    return out;
}

/* " base=full kv=bf16/bf16", with the model behind it where it is another. */
static const char *base_words(char out[BASE_TEXT], const ppl_base *base) {
    char words[ATTENTION_TEXT], model[CCA_GGUF_FINGERPRINT + 1];
    out[0] = '\0';
    if (!base) return out;
    int n =
        snprintf(out, BASE_TEXT, " base=%s", attention_words(words, &base->context, base->engine));
    if (!base->model) return out;
    cca_gguf_fingerprint(model, cca_engine_file(base->engine));
    snprintf(out + n, (size_t)(BASE_TEXT - n), " model=%s", model);
    return out;
}

/* What a number must be quoted with to mean something. */
static const char *signature(char out[SIGNATURE_TEXT], const ppl_report *r) {
    const ppl_layout *l = &r->layout;
    char scored[48] = "", words[ATTENTION_TEXT], base[BASE_TEXT];
    if (l->mode == PPL_STRIDE) snprintf(scored, sizeof scored, " S=%lld", (long long)l->stride);
    if (l->mode == PPL_CHUNK) snprintf(scored, sizeof scored, " F=%lld", (long long)l->score_from);
    snprintf(out, SIGNATURE_TEXT,
             "mode=%s W=%lld%s bos=%s attn=%s tokenizer=%016llx text=%016llx%s", mode_name(r),
             (long long)l->window, scored, bos_name(r),
             attention_words(words, r->context, r->engine), (unsigned long long)r->tokenizer_hash,
             (unsigned long long)r->text_hash, base_words(base, r->base));
    return out;
}

static void band_name(char name[64], int band) {
    int64_t from, to;
    ppl_band_range(band, &from, &to);
    if (to == INT64_MAX) {
        snprintf(name, 64, "%lldK-", (long long)(from / 1024));
    } else {
        snprintf(name, 64, "%lld%s-%lldK", (long long)(from / 1024), from ? "K" : "",
                 (long long)(to / 1024));
    }
}

static double share_of(int64_t part, const ppl_sums *all) {
    return all->n > 0 ? (double)part / (double)all->n : 0;
}

static void print_bands(output *out, const ppl_report *r) {
    output_printf(out, "\n%-12s %10s %12s %12s", "position", "tokens", "nats/token", "perplexity");
    output_printf(out, r->base ? " %12s %10s %10s %10s %10s %9s\n" : "\n", "base", "ratio", "KL",
                  "99 %", "99.9 %", "same top");
    for (int i = 0; i < PPL_N_BANDS; i++) {
        const ppl_sums *band = &r->stats.bands[i];
        char name[64];
        if (band->n == 0) continue;
        band_name(name, i);
        output_printf(out, "%-12s %10lld %12.5f %12.4f", name, (long long)band->n, ppl_mean(band),
                      ppl_perplexity(band));
        if (r->base) {
            const ppl_gap_sums *gap = &r->gaps->bands[i];
            output_printf(
                out, " %12.4f %10.5f %10.3g %10.3g %10.3g %7.2f %%", ppl_perplexity(&gap->base),
                ppl_perplexity(&gap->more), ppl_mean(&gap->kl), ppl_gaps_quantile(r->gaps, i, 0.99),
                ppl_gaps_quantile(r->gaps, i, 0.999), 100 * share_of(gap->same_top, &gap->kl));
        }
        output_printf(out, "\n");
    }
}

static void print_gaps(output *out, const ppl_report *r) {
    const ppl_gap_sums *all = &r->gaps->all;
    char recall[CLI_RECALL_TEXT];
    cca_attention_settings a = cli_attention(&r->base->context, r->base->engine);
    cli_describe_recall(recall, &a, ", ", " ");
    output_printf(out, "base            attention %s%s%s%s\n", a.attn, recall,
                  r->base->model ? " of " : "", r->base->model ? r->base->model : "");
    output_printf(out, "its perplexity  %.4f, ratio %.5f +/- %.5f\n", ppl_perplexity(&all->base),
                  ppl_perplexity(&all->more), ppl_standard_error(&all->more));
    output_printf(out, "KL divergence   %.4g nats; 99 %% of tokens up to %.3g, 99.9 %% to %.3g\n",
                  ppl_mean(&all->kl), ppl_gaps_quantile(r->gaps, PPL_ALL_BANDS, 0.99),
                  ppl_gaps_quantile(r->gaps, PPL_ALL_BANDS, 0.999));
    output_printf(out, "same top token  %.3f %%\n", 100 * share_of(all->same_top, &all->kl));
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
    output_printf(out, "scored          %lld token%s, %llu byte%s\n", (long long)all->n,
                  term_plural(all->n), (unsigned long long)r->stats.bytes,
                  term_plural((int64_t)r->stats.bytes));
    if (inside_window(r)) {
        output_printf(
            out,
            "window          %lld positions, not more than s = %lld: this is full attention\n      "
            "          and says nothing about CCA\n",
            (long long)r->totals.largest,
            (long long)cli_attention(r->context, r->engine).window_size);
    }
    if (r->base) print_gaps(out, r);
    print_bands(out, r);
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
                              json_pack("{s:I, s:o, s:I, s:o, s:o}", "from", (json_int_t)from, "to",
                                        end, "tokens", (json_int_t)band->n, "nats_per_token",
                                        output_real(true, ppl_mean(band)), "perplexity",
                                        output_real(true, ppl_perplexity(band))));
    }
    return bands;
}

/* The keys that all tokens and those of a band have. */
static json_t *json_gap(const ppl_report *r, int band) {
    const ppl_gap_sums *gap = band == PPL_ALL_BANDS ? &r->gaps->all : &r->gaps->bands[band];
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "perplexity",
                     output_real(true, ppl_perplexity(&gap->base)), "ratio",
                     output_real(true, ppl_perplexity(&gap->more)), "ratio_error",
                     output_real(true, ppl_standard_error(&gap->more)), "kl",
                     output_real(true, ppl_mean(&gap->kl)), "kl_99",
                     output_real(true, ppl_gaps_quantile(r->gaps, band, 0.99)), "kl_999",
                     output_real(true, ppl_gaps_quantile(r->gaps, band, 0.999)), "same_top",
                     output_real(true, share_of(gap->same_top, &gap->kl)));
}

static json_t *json_base(const ppl_report *r) {
    if (!r->base) return json_null();
    json_t *positions = json_array(), *base = json_gap(r, PPL_ALL_BANDS);
    for (int i = 0; i < PPL_N_BANDS; i++) {
        int64_t from, to;
        if (r->gaps->bands[i].kl.n == 0) continue;
        json_t *band = json_gap(r, i);
        ppl_band_range(i, &from, &to);
        json_object_set_new(band, "from", json_integer(from));
        json_object_set_new(band, "to", to == INT64_MAX ? json_null() : json_integer(to));
        json_array_append_new(positions, band);
    }
    const context_options *context = &r->base->context;
    json_object_set_new(base, "model", r->base->model ? json_string(r->base->model) : json_null());
    json_object_set_new(base, "attention", cli_attention_json(context, r->base->engine));
    json_object_set_new(base, "positions", positions);
    return base;
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
    json_t *timing = json_pack("{s:o, s:o}", "load_s", output_real(true, r->load_s), "eval_s",
                               output_real(true, r->eval_s));
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:O}",
                     "schema", "cca.ppl.1", "perplexity", output_real(true, ppl_perplexity(all)),
                     "standard_error", output_real(true, ppl_standard_error(all)), "nats_per_token",
                     output_real(true, ppl_mean(all)), "bits_per_byte", bits, "tokens", tokens,
                     "settings", json_settings(r), "positions", json_bands(&r->stats), "base",
                     json_base(r), "signature", signature(quoted, r), "timing", timing, "memory",
                     cli_plan_json(&r->plan), "ranks", cli_ranks_json(r->session), "warnings",
                     warnings);
}
