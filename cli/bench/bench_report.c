#include "cli/bench/bench.h"

#include <math.h>
#include <string.h>

/* Where a variant has no such instruction it computes in f32. */
static double peak_or_f32(const cca_peaks *p, double peak) {
    return peak > 0 ? peak : p->f32;
}

static double peak_of_cache(const bench_report *r) {
    const char *types[] = {r->context->k_type, r->context->v_type};
    for (int i = 0; i < 2; i++) {
        if (types[i][0] == 'f') return r->peaks.f32;
    }
    return peak_or_f32(&r->peaks, r->peaks.bf16);
}

static double share_of(const bench_report *r, const bench_row *row) {
    const cca_work *w = &row->work;
    if (row->test == BENCH_DECODE) {
        return (double)row->n * (w->weight_bytes + w->cache_bytes) / r->peaks.read / row->seconds;
    }
    return (w->products / cca_peaks_of_products(&r->peaks, r->facts->weight_type) +
            w->attention / peak_of_cache(r)) /
           row->seconds;
}

void bench_shares(bench_report *r) {
    for (size_t i = 0; i < r->n && r->has_peaks; i++) {
        double faster = fmax(share_of(r, &r->rows[i]), 1);
        if (r->rows[i].test == BENCH_DECODE) {
            r->peaks.read *= faster;
        } else {
            r->peaks.f32 *= faster;
            r->peaks.bf16 *= faster;
            r->peaks.bytes *= faster;
        }
    }
    for (size_t i = 0; i < r->n && r->has_peaks; i++) {
        r->rows[i].share = share_of(r, &r->rows[i]);
    }
}

const char *bench_test_name(bench_test test) {
    static const char *const names[] = {"prefill", "decode", "walk"};
    return names[test];
}

static void print_peaks(output *out, const bench_report *r) {
    const cca_peaks *p = &r->peaks;
    if (!r->has_peaks) return;
    output_printf(out, "\nPeaks on %d thread%s: f32 %.0f GFLOP/s", r->facts->n_threads,
                  term_plural(r->facts->n_threads), p->f32 / 1e9);
    if (p->bf16 > 0) output_printf(out, ", bf16 %.0f GFLOP/s", p->bf16 / 1e9);
    if (p->bytes > 0) output_printf(out, ", bytes %.0f GOP/s", p->bytes / 1e9);
    output_printf(out, ", reading %.1f GB/s.\n", p->read / 1e9);
}

static void print_md(output *out, const bench_report *r) {
    const cca_engine_facts *f = r->facts;
    bool several = r->n > 0 && strcmp(r->rows[0].kernels, r->rows[r->n - 1].kernels) != 0;
    output_printf(
        out,
        "%s: %.1f M parameters, %s, %s (%s), %d thread%s, g %lld, s %lld, cache %s/%s, %s time\n\n",
        *f->name ? f->name : f->path, (double)f->n_params / 1e6, f->weight_type, f->device,
        several ? "several kernels" : f->kernels, f->n_threads, term_plural(f->n_threads),
        (long long)r->group_size, (long long)r->window_size, r->context->k_type, r->context->v_type,
        r->clock);
    output_printf(out, several ? "| kernels " : "");
    output_printf(out,
                  "| attn | test | n | depth | tok/s | mean ± sd | cache MB | GFLOP/s | GB/s "
                  "| of peak |\n%s|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
                  several ? "|---" : "");
    for (size_t i = 0; i < r->n; i++) {
        const bench_row *row = &r->rows[i];
        if (several) output_printf(out, "| %s ", row->kernels);
        output_printf(out, "| %s | %s | %lld | %lld | %.1f | %.1f ± %.1f | %.2f | %.1f | ",
                      row->attn, bench_test_name(row->test), (long long)row->n,
                      (long long)row->depth, row->tok_s.median, row->tok_s.mean, row->tok_s.sd,
                      (double)row->kv_bytes / 1e6, row->operations / 1e9);
        if (row->bytes > 0) output_printf(out, "%.1f", row->bytes / 1e9);
        output_printf(out, " | ");
        if (row->share > 0) output_printf(out, "%.0f %%", 100 * row->share);
        output_printf(out, " |\n");
    }
    print_peaks(out, r);
}

static void print_csv(output *out, const bench_report *r) {
    output_printf(out, "attn,test,n,depth,repetitions,tok_s,mean,sd,kv_bytes,operations_s,bytes_s,"
                       "share,kernels\n");
    for (size_t i = 0; i < r->n; i++) {
        const bench_row *row = &r->rows[i];
        output_printf(out, "%s,%s,%lld,%lld,%lld,%.6g,%.6g,%.6g,%llu,%.6g,%.6g,%.4f,%s\n",
                      row->attn, bench_test_name(row->test), (long long)row->n,
                      (long long)row->depth, (long long)row->tok_s.n, row->tok_s.median,
                      row->tok_s.mean, row->tok_s.sd, (unsigned long long)row->kv_bytes,
                      row->operations, row->bytes, row->share, row->kernels);
    }
}

static json_t *positive_or_null(double value) {
    return output_real(value > 0, value);
}

static json_t *json_rows(const bench_report *r) {
    json_t *rows = json_array();
    for (size_t i = 0; i < r->n; i++) {
        const bench_row *row = &r->rows[i];
        json_array_append_new(
            rows, json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:I, s:o, s:o, s:o}",
                            "kernels", row->kernels, "attn", row->attn, "test",
                            bench_test_name(row->test), "n", (json_int_t)row->n, "depth",
                            (json_int_t)row->depth, "repetitions", (json_int_t)row->tok_s.n,
                            "tok_s", output_real(true, row->tok_s.median), "mean",
                            output_real(true, row->tok_s.mean), "sd",
                            output_real(true, row->tok_s.sd), "kv_bytes", (json_int_t)row->kv_bytes,
                            "operations_s", output_real(true, row->operations), "bytes_s",
                            positive_or_null(row->bytes), "share", positive_or_null(row->share)));
    }
    return rows;
}

static json_t *json_peaks(const bench_report *r) {
    const cca_peaks *p = &r->peaks;
    if (!r->has_peaks) return json_null();
    return json_pack("{s:o, s:o, s:o, s:o}", "f32", positive_or_null(p->f32), "bf16",
                     positive_or_null(p->bf16), "bytes", positive_or_null(p->bytes), "read",
                     positive_or_null(p->read));
}

static void print_json(output *out, const bench_report *r) {
    const cca_engine_facts *f = r->facts;
    json_t *model =
        json_pack("{s:o, s:I, s:s, s:I}", "file", output_string(f->path, strlen(f->path)),
                  "parameters", (json_int_t)f->n_params, "weight_type", f->weight_type,
                  "weight_bytes", (json_int_t)f->weight_bytes);
    output_json(out,
                json_pack("{s:s, s:o, s:s, s:s, s:i, s:s, s:I, s:I, s:s, s:s, s:o, s:o, s:o}",
                          "schema", "cca.bench.1", "model", model, "device", f->device, "kernels",
                          f->kernels, "threads", f->n_threads, "clock", r->clock, "group_size",
                          (json_int_t)r->group_size, "window_size", (json_int_t)r->window_size,
                          "cache_type_k", r->context->k_type, "cache_type_v", r->context->v_type,
                          "peaks", json_peaks(r), "rows", json_rows(r), "ranks",
                          r->ranks ? json_incref(r->ranks) : json_array()));
}

void bench_report_print(output *out, const bench_report *r, bench_format format) {
    switch (format) {
    case BENCH_MD: print_md(out, r); break;
    case BENCH_CSV: print_csv(out, r); break;
    case BENCH_JSON: print_json(out, r); break;
    }
}
