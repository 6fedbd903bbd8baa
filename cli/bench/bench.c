/* cca bench: prefill and decode at depths. */
#include "cli/bench/bench.h"
#include "base/clock.h"
#include "base/random.h"
#include "cli/ranks.h"
#include "cli/signals.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ATTN = 8, MOST_KERNELS = 4 };

typedef struct bench_options {
    model_options model;
    context_options context;
    ranks_options ranks;
    const char *prompts, *depths, *predicts, *format, *clock, *kernels, *output, *svg;
    int64_t repetitions;
    bool no_peaks;
    term_options term;
} bench_options;

#define OWN(field)     .at = offsetof(bench_options, field)
#define CONTEXT(field) .at = offsetof(bench_options, context.field)

static const arg_option own_args[] = {
    {"n-prompt", "p", .kind = ARG_TEXT, .value = "N,...", OWN(prompts), .initial = "512",
     .help = "tokens of the prefills to measure; 0: none"},
    {"n-gen", "n", .kind = ARG_TEXT, .value = "N,...", OWN(predicts), .initial = "32",
     .help = "tokens of the decodes to measure; 0: none"},
    {"depth", "d", .alias = "n-depth", .kind = ARG_TEXT, .value = "N,...", OWN(depths),
     .initial = "0", .help = "tokens that stand before them; one prefill walks all depths"},
    {"repetitions", "r", .kind = ARG_INT, .value = "N", OWN(repetitions), .initial = "5", .min = 1,
     .max = 1000, .help = "of each measurement"},
    {"attn", .kind = ARG_TEXT, .value = "KIND,...", CONTEXT(attn), .initial = "auto",
     .suggest = CLI_ATTN_NAMES,
     .help = "auto, cca, recall, full, mean, max, window, sinks:N; several one after the other"},
    {"kernels", .kind = ARG_TEXT, .value = "NAME,...", OWN(kernels), .initial = "auto",
     .suggest = "auto|generic|avx2|avx512|amx",
     .help =
         "of the CPU: auto (the fastest), plain, generic, avx2, avx512, amx; several in one run"},
    {"clock", .kind = ARG_CHOICE, .value = "WHICH", OWN(clock), .initial = "wall",
     .choices = MEASURE_CLOCKS,
     .help = "cpu: the process's time on all processors, for busy machines"},
    {"no-peaks", .kind = ARG_FLAG, OWN(no_peaks),
     .help = "do not measure the machine's peaks, so tell no shares of them"},
    {0},
};

static const arg_option setting_args[] = {
    {"group-size", "g", .kind = ARG_INT, .value = "N", CONTEXT(group_size), .initial = "0",
     .max = INT32_MAX, .help = "tokens a core token stands for; 0: the model's"},
    {"window", "w", .alias = "window-size", .kind = ARG_INT, .value = "N", CONTEXT(window_size),
     .initial = "0", .max = INT32_MAX,
     .help = "tokens seen one by one, a multiple of the group size; 0: the model's"},
    {"mem-limit", .kind = ARG_SIZE, .value = "SIZE", CONTEXT(mem_limit),
     .help = "refuse a run that takes more memory (512M, 8G)"},
    {0},
};

static const arg_option report_args[] = {
    {"format", .kind = ARG_CHOICE, .value = "FORMAT", OWN(format), .initial = "md",
     .choices = "md|csv|json", .help = "of the report"},
    {"output", "o", .kind = ARG_TEXT, .value = "FILE", OWN(output),
     .help = "write the report there, whole or not at all"},
    {"svg", .kind = ARG_TEXT, .value = "FILE", OWN(svg),
     .help = "draw tokens a second against depth there"},
    {0},
};

static const arg_group groups[] = {
    {"Measurements", own_args, 0},
    {"Model", model_args, offsetof(bench_options, model)},
    {"Settings", setting_args, 0},
    {"Sinks and recall", recall_args, offsetof(bench_options, context)},
    {"Cache", cache_args, offsetof(bench_options, context)},
    {"Ranks", ranks_args, offsetof(bench_options, ranks)},
    {"Answers of ranks", decode_args, offsetof(bench_options, ranks)},
    {"Report", report_args, 0},
    {"Messages", term_args, offsetof(bench_options, term)},
    {0},
};

typedef struct bench_run {
    const bench_options *o;
    term term;
    cca_engine *engines[MOST_KERNELS], *engine; /* one a variant of the kernels; under way */
    int n_engines;
    size_list prompts, depths, predicts;
    char *attn_text; /* the names below, cut apart */
    const char *attns[MOST_ATTN];
    int n_attns;
    cca_session *session; /* of the attention under way */
    const char *attn;
    int32_t *ids;    /* as many as the longest run has positions */
    double *seconds; /* [repetitions] */
    int64_t done;    /* tokens evaluated, for the progress */
    int64_t from;    /* where the evaluation under way began */
    cli_ranks ranks;
    bench_report report;
} bench_run;

/* ---- lists --------------------------------------------------------------------------- */

static cca_status parse_attns(bench_run *r, cca_error *err) {
    char *rest = NULL;
    r->attn_text = strdup(r->o->context.attn);
    if (!r->attn_text) return cca_fail(err, CCA_NO_MEMORY, "no memory");
    for (char *name = strtok_r(r->attn_text, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        if (r->n_attns == MOST_ATTN) {
            return cca_fail(err, CCA_USAGE, "--attn %s: at most %d kinds", r->o->context.attn,
                            MOST_ATTN);
        }
        r->attns[r->n_attns++] = name;
    }
    if (r->n_attns > 0) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "--attn: a kind of attention expected");
}

static int64_t n_positions(const bench_run *r) {
    return cca_max(size_list_largest(&r->depths) +
                       cca_max(size_list_largest(&r->prompts), size_list_largest(&r->predicts)),
                   1);
}

/* ---- measuring ------------------------------------------------------------------------ */

static double seconds_of(const bench_run *r) {
    return measure_seconds(measure_clock_of(r->o->clock));
}

static cca_status add_row(bench_run *r, bench_test test, int64_t n, int64_t depth, double *seconds,
                          int64_t n_seconds, cca_error *err) {
    bench_report *report = &r->report;
    if (report->n == report->capacity) {
        size_t capacity = 2 * report->capacity + 16;
        bench_row *rows = realloc(report->rows, capacity * sizeof *rows);
        if (!rows) return cca_fail(err, CCA_NO_MEMORY, "no memory for the report");
        report->rows = rows;
        report->capacity = capacity;
    }
    cca_work work = cca_session_work(r->session, depth, n, test == BENCH_DECODE ? n : 1);
    bench_row row = {.test = test, .n = n, .depth = depth, .attn = r->attn, .work = work};
    row.kernels = cca_engine_info(r->engine)->kernels;
    row.tok_s = measure_stats_of(seconds, n_seconds, n);
    row.kv_bytes = cca_session_cache_bytes(r->session);
    row.seconds = (double)n / row.tok_s.median;
    row.operations = (work.products + work.attention) / row.seconds;
    if (test == BENCH_DECODE) {
        row.bytes = (double)n * (work.weight_bytes + work.cache_bytes) / row.seconds;
    }
    report->rows[report->n++] = row;
    return CCA_OK;
}

static void show_progress(void *user, cca_session *session, int64_t pos) {
    bench_run *r = user;
    term_progress(&r->term, r->done + pos - r->from, cca_session_cache_bytes(session));
}

/* Evaluates n tokens, together or one by one, and makes the last one's logits (each one's in a
 * decode, as generating does). */
static cca_status evaluate(bench_run *r, int64_t n, bool one_by_one, cca_error *err) {
    cca_eval_options options = {.on_progress = show_progress, .user = r};
    r->from = cca_session_pos(r->session);
    cca_status status = measure_eval(r->session, r->ids + r->from, n, one_by_one, &options, err);
    r->done += n;
    return status;
}

/* One row: as many times as asked for, each from the mark at this depth. */
static cca_status measure(bench_run *r, bench_test test, int64_t n, int64_t depth, cca_error *err) {
    cca_status status = CCA_OK;
    if (n == 0) return CCA_OK;
    for (int64_t i = 0; !status && i < r->o->repetitions; i++) {
        status = cca_session_rewind(r->session, err);
        if (status) break;
        double begin = seconds_of(r);
        status = evaluate(r, n, test == BENCH_DECODE, err);
        r->seconds[i] = seconds_of(r) - begin;
    }
    if (!status) status = add_row(r, test, n, depth, r->seconds, r->o->repetitions, err);
    return status;
}

/* From one depth to the next, measuring at each; what is measured is taken back. */
static cca_status walk(bench_run *r, cca_error *err) {
    double walked = 0;
    cca_status status = CCA_OK;
    for (int i = 0; !status && i < r->depths.n; i++) {
        int64_t depth = r->depths.sizes[i], from = cca_session_pos(r->session);
        double begin = seconds_of(r);
        if (depth > from) status = evaluate(r, depth - from, false, err);
        walked += seconds_of(r) - begin;
        if (!status && depth > from) {
            status = add_row(r, BENCH_WALK, depth, 0, (double[]){walked}, 1, err);
        }
        if (!status) status = cca_session_mark(r->session, err);
        for (int k = 0; !status && k < r->prompts.n; k++) {
            status = measure(r, BENCH_PREFILL, r->prompts.sizes[k], depth, err);
        }
        for (int k = 0; !status && k < r->predicts.n; k++) {
            status = measure(r, BENCH_DECODE, r->predicts.sizes[k], depth, err);
        }
        if (!status) status = cca_session_rewind(r->session, err);
    }
    return status;
}

/* Touches weights, scratch memory and threads before anything is timed. */
static cca_status warm_up(bench_run *r, cca_error *err) {
    cca_status status = evaluate(r, cca_min(n_positions(r), 32), false, err);
    cca_session_reset(r->session);
    return status;
}

static cca_status bench_attn(bench_run *r, cca_error *err) {
    cli_plan plan;
    context_options context = cli_with_attn(&r->o->context, r->attn);
    context.comm = r->ranks.comm;
    output_options target = {0};
    cca_status status = cli_ranks_decode(&context, &r->o->ranks, r->engine, n_positions(r),
                                         CLI_MARK, &r->term, err);
    if (!status) {
        status = cli_session_open(&r->session, &plan, r->engine, &context, &target, n_positions(r),
                                  CLI_MARK, err);
    }
    if (!status) status = warm_up(r, err);
    if (!status) status = walk(r, err);
    if (!status) {
        json_decref(r->report.ranks);
        r->report.ranks = cli_ranks_json(r->session);
    }
    cca_session_free(r->session);
    r->session = NULL;
    return status;
}

/* ---- the run -------------------------------------------------------------------------- */

/* An engine for each variant of the kernels. */
static cca_status open_engines(bench_run *r, cca_error *err) {
    char *rest = NULL, *names = strdup(r->o->kernels);
    cca_status status = names ? CCA_OK : cca_fail(err, CCA_NO_MEMORY, "no memory");
    char *name = names ? strtok_r(names, ",", &rest) : NULL;
    for (; !status && name; name = strtok_r(NULL, ",", &rest)) {
        model_options model = r->o->model;
        model.kernels = strcmp(name, "auto") == 0 ? NULL : name;
        if (r->n_engines == MOST_KERNELS) {
            status =
                cca_fail(err, CCA_USAGE, "--kernels %s: at most %d", r->o->kernels, MOST_KERNELS);
        }
        if (status) break;
        status = cli_engine_open(&r->engines[r->n_engines], &model, &r->term, err);
        if (!status) r->n_engines++;
    }
    free(names);
    if (!status && r->n_engines == 0) {
        status = cca_fail(err, CCA_USAGE, "--kernels: a variant expected");
    }
    r->engine = r->engines[0];
    return status;
}

static cca_status prepare(bench_run *r, cca_error *err) {
    const bench_options *o = r->o;
    cca_status status = size_list_parse(&r->prompts, "n-prompt", o->prompts, err);
    if (!status) status = size_list_parse(&r->predicts, "n-gen", o->predicts, err);
    if (!status) status = size_list_parse(&r->depths, "depth", o->depths, err);
    if (!status) status = parse_attns(r, err);
    if (!status) status = open_engines(r, err);
    if (status) return status;
    int64_t n = n_positions(r), vocab_size = cca_engine_info(r->engine)->vocab_size;
    r->ids = malloc((size_t)n * sizeof *r->ids);
    r->seconds = malloc((size_t)o->repetitions * sizeof *r->seconds);
    if (!r->ids || !r->seconds) return cca_fail(err, CCA_NO_MEMORY, "no memory");
    uint64_t random = 1;
    for (int64_t i = 0; i < n; i++) {
        r->ids[i] = (int32_t)(cca_random_next(&random) % (uint64_t)vocab_size);
    }
    context_options context = cli_with_attn(&o->context, "cca");
    cca_attention_settings a = cli_attention(&context, r->engine);
    r->report = (bench_report){
        .facts = cca_engine_info(r->engine),
        .context = &o->context,
        .group_size = a.group_size,
        .window_size = a.window_size,
        .clock = o->clock,
    };
    return CCA_OK;
}

static int64_t total_tokens(const bench_run *r) {
    int64_t a_depth = 0;
    for (int i = 0; i < r->prompts.n; i++) a_depth += r->prompts.sizes[i];
    for (int i = 0; i < r->predicts.n; i++) a_depth += r->predicts.sizes[i];
    return r->n_engines * r->n_attns *
           (size_list_largest(&r->depths) + cca_min(n_positions(r), 32) +
            r->depths.n * r->o->repetitions * a_depth);
}

static cca_status write_svg(const bench_run *r, cca_error *err) {
    output out;
    cca_status status = output_open(&out, r->o->svg, err);
    if (!status) bench_report_svg(&out, &r->report);
    cca_status closed = output_close(&out, !status, err);
    return status ? status : closed;
}

/* Both files appear, or neither. */
static cca_status write_reports(const bench_run *r, cca_error *err) {
    output out;
    const char *format = r->o->format;
    bench_format f = strcmp(format, "md") == 0    ? BENCH_MD
                     : strcmp(format, "csv") == 0 ? BENCH_CSV
                                                  : BENCH_JSON;
    cca_status status = output_open(&out, r->o->output, err);
    if (!status) bench_report_print(&out, &r->report, f);
    if (!status) status = output_flush(&out, err);
    if (!status && r->o->svg) status = write_svg(r, err);
    cca_status closed = output_close(&out, !status, err);
    return status ? status : closed;
}

static cca_status bench(bench_run *r, cca_error *err) {
    cca_status status = prepare(r, err);
    if (status) return status;
    bench_report *report = &r->report;
    if (!r->o->no_peaks && strcmp(report->facts->device, "cpu") == 0) {
        bool cpu = measure_clock_of(r->o->clock) == MEASURE_CPU;
        status =
            cca_peaks_measure(&report->peaks, report->facts->n_threads, report->facts->weight_bytes,
                              cpu ? cca_cpu_seconds : cca_seconds, err);
        report->has_peaks = true;
    }
    term_start(&r->term, "bench", TERM_TOKENS, total_tokens(r));
    for (int i = 0; !status && i < r->n_engines * r->n_attns; i++) {
        r->engine = r->engines[i / r->n_attns];
        r->attn = r->attns[i % r->n_attns];
        status = bench_attn(r, err);
    }
    term_done(&r->term);
    bench_shares(report);
    return status ? status : write_reports(r, err);
}

static cca_status run(const void *options, cca_error *err) {
    bench_run r = {.o = options};
    term_open(&r.term, &r.o->term);
    cca_status status = cli_ranks_open(&r.ranks, &r.o->ranks, &r.o->model, &r.term, err);
    if (!status && !r.ranks.served) status = bench(&r, err);
    cli_ranks_close(&r.ranks, "bench", status, err);
    term_close(&r.term);
    for (int i = 0; i < r.n_engines; i++) cca_engine_close(r.engines[i]);
    json_decref(r.report.ranks);
    free(r.report.rows);
    free(r.seconds);
    free(r.ids);
    free(r.attn_text);
    return status;
}

const cli_command cli_bench = {
    .name = "bench",
    .summary = "prefill and decode speed at depth",
    .usage = "[options]",
    .notes = "Speeds are tokens a second. Tokens are random numbers, so no tokenizer is needed. A "
             "walk is all tokens from the first one to a depth, measured once while going there.",
    .groups = groups,
    .options_size = sizeof(bench_options),
    .run = run,
};
