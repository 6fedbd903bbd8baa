/* The reports of cca tune. */
#include "cli/tune/tune.h"

#include <stdio.h>
#include <string.h>

static const char *attn_of(const tune_point *p) {
    if (tune_is_full(p)) return "full";
    return p->recall > 0 ? "recall" : "cca";
}

static const char *marks(const tune_point *p) {
    if (p->over_limit) return "over --mem-limit";
    if (p->chosen) return p->pareto ? "Pareto, **chosen**" : "**chosen**";
    return p->pareto ? "Pareto" : "";
}

static void md_measured(output *out, const tune_report *r, const tune_point *p) {
    output_printf(out, "%.4f | ", p->perplexity);
    if (r->reference) output_printf(out, "%+.2f %%", tune_increase(p, r->reference));
    output_printf(out, " | ");
    if (p->n_facts > 0) {
        output_printf(out, "%lld of %lld", (long long)p->n_right, (long long)p->n_facts);
    }
    output_printf(out, " | %.3f | %.1f | %.2f | %.4g | ", (double)p->cache_bytes / 1e6,
                  p->prefill_tps, p->decode_tps, p->seconds);
}

static void md_row(output *out, const tune_report *r, const tune_point *p) {
    if (tune_is_full(p)) {
        output_printf(out, "| full | | | | ");
    } else {
        output_printf(out, "| %lld | %lld | %lld | %s | ", (long long)p->group_size,
                      (long long)p->window_size, (long long)p->recall, p->cores ? "yes" : "no");
    }
    if (p->measured) {
        md_measured(out, r, p);
    } else {
        output_printf(out, " | | | %.3f | | | | ", (double)p->cache_bytes / 1e6);
    }
    output_printf(out, "%s |\n", marks(p));
}

void tune_report_md(output *out, const tune_report *r) {
    const cca_engine_facts *f = r->facts;
    const tune_task *t = r->task;
    const context_options *c = &t->settings->context;
    output_printf(
        out,
        "%s: %.1f M parameters, %s, %s (%s), %d thread%s\n\nPerplexity: %lld tokens in windows of "
        "%lld; increase over %s.\n",
        *f->name ? f->name : f->path, (double)f->n_params / 1e6, f->weight_type, f->device,
        f->kernels, f->n_threads, term_plural(f->n_threads), (long long)t->layout.n_tokens,
        (long long)t->layout.window, r->limits->against_full ? "full attention" : "the best");
    if (t->n_facts > 0) {
        output_printf(out, "Facts: %d in a document of %lld tokens.\n", t->n_facts,
                      (long long)t->n_document);
    }
    output_printf(
        out,
        "Speeds (%s time): prefill of %lld tokens, decode of %d behind them; seconds of both.\n"
        "Cache: at %lld tokens, %s/%s%s%s.\n\n",
        t->settings->clock, (long long)t->n_document, TUNE_DECODED, (long long)r->cache_at,
        c->k_type, c->v_type, c->row_type ? ", rows behind the window " : "",
        c->row_type ? c->row_type : "");
    output_printf(out,
                  "| g | s | recall | cores | perplexity | increase | facts | cache MB | prefill "
                  "tok/s | decode tok/s | seconds | "
                  "|\n|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|---|\n");
    for (size_t i = 0; i < r->n; i++) md_row(out, r, &r->points[i]);
    if (r->choice) {
        char name[TUNE_NAME];
        tune_point_name(name, r->choice);
        output_printf(out, "\nchosen          %s\n", name);
    }
    output_printf(out, "%ssignature       %s\n", r->choice ? "" : "\n", t->signature);
}

void tune_report_csv(output *out, const tune_report *r) {
    output_printf(out,
                  "attn,g,s,sinks,recall,cores,perplexity,standard_error,increase,right,facts,"
                  "cache_bytes,memory_bytes,prefill_tok_s,decode_tok_s,seconds,pareto,chosen\n");
    for (size_t i = 0; i < r->n; i++) {
        const tune_point *p = &r->points[i];
        output_printf(out, "%s,%lld,%lld,%lld,%lld,%d,", attn_of(p), (long long)p->group_size,
                      (long long)p->window_size, (long long)p->sinks, (long long)p->recall,
                      p->cores);
        if (p->measured) {
            output_printf(out, "%.9g,%.6g,", p->perplexity, p->standard_error);
        } else {
            output_printf(out, ",,");
        }
        if (p->measured && r->reference) output_printf(out, "%.6g", tune_increase(p, r->reference));
        output_printf(out, ",%lld,%lld,%llu,%llu,", (long long)p->n_right, (long long)p->n_facts,
                      (unsigned long long)p->cache_bytes, (unsigned long long)p->memory_bytes);
        if (p->measured) {
            output_printf(out, "%.6g,%.6g,%.6g", p->prefill_tps, p->decode_tps, p->seconds);
        } else {
            output_printf(out, ",,");
        }
        output_printf(out, ",%d,%d\n", p->pareto, p->chosen);
    }
}

/* Full attention has none of what the others are told by. */
static json_t *unless_full(const tune_point *p, json_t *value) {
    if (!tune_is_full(p)) return value;
    json_decref(value);
    return json_null();
}

static json_t *json_attention(const tune_point *p) {
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "attn", attn_of(p), "group_size",
                     output_size(p->group_size), "window_size", output_size(p->window_size),
                     "sinks", unless_full(p, json_integer(p->sinks)), "recall",
                     unless_full(p, json_integer(p->recall)), "cores",
                     unless_full(p, json_boolean(p->cores)));
}

static json_t *json_point(const tune_report *r, const tune_point *p) {
    bool m = p->measured;
    json_t *point = json_attention(p);
    json_t *rest = json_pack(
        "{s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:b, s:b, s:b, s:b}", "perplexity",
        output_real(m, p->perplexity), "standard_error", output_real(m, p->standard_error),
        "increase",
        output_real(m && r->reference, m && r->reference ? tune_increase(p, r->reference) : 0),
        "right", (json_int_t)p->n_right, "facts", (json_int_t)p->n_facts, "cache_bytes",
        (json_int_t)p->cache_bytes, "memory_bytes", (json_int_t)p->memory_bytes, "prefill_tok_s",
        output_real(m, p->prefill_tps), "decode_tok_s", output_real(m, p->decode_tps), "seconds",
        output_real(m, p->seconds), "reused", (int)p->reused, "over_limit", (int)p->over_limit,
        "pareto", (int)p->pareto, "chosen", (int)p->chosen);
    if (json_object_update(point, rest) != 0) {
        json_decref(point);
        point = NULL;
    }
    json_decref(rest);
    return point;
}

static json_t *json_limits(const tune_limits *l) {
    return json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "ppl_increase",
                     output_real(l->has_ppl_increase, l->ppl_increase), "against",
                     l->against_full ? "full" : "best", "memory_bytes",
                     output_size((int64_t)l->memory), "max_seconds",
                     output_real(l->max_seconds > 0, l->max_seconds), "max_share",
                     output_real(l->max_share > 0, l->max_share), "min_tok_s",
                     output_real(l->min_tps > 0, l->min_tps), "min_facts",
                     output_real(l->min_facts > 0, l->min_facts));
}

void tune_report_json(output *out, const tune_report *r, json_t *warnings) {
    const cca_engine_facts *f = r->facts;
    const tune_task *t = r->task;
    json_t *points = json_array();
    for (size_t i = 0; i < r->n; i++) json_array_append_new(points, json_point(r, &r->points[i]));
    json_t *settings = json_pack(
        "{s:I, s:I, s:I, s:I, s:i, s:I, s:s, s:s, s:s, s:o}", "tokens",
        (json_int_t)t->layout.n_tokens, "window", (json_int_t)t->layout.window, "document",
        (json_int_t)t->n_document, "cache_at", (json_int_t)r->cache_at, "facts", t->n_facts,
        "decoded", (json_int_t)TUNE_DECODED, "clock", t->settings->clock, "cache_type_k",
        t->settings->context.k_type, "cache_type_v", t->settings->context.v_type, "cache_type_r",
        t->settings->context.row_type ? json_string(t->settings->context.row_type) : json_null());
    output_json(out,
                json_pack("{s:s, s:o, s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:s, s:O}", "schema",
                          "cca.tune.1", "file", output_string(f->path, strlen(f->path)), "device",
                          f->device, "kernels", f->kernels, "threads", f->n_threads, "settings",
                          settings, "limits", json_limits(r->limits), "points", points, "choice",
                          r->choice ? json_attention(r->choice) : json_null(), "signature",
                          t->signature, "warnings", warnings));
}
