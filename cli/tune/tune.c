/* cca tune: sweeps group size, window, recall and cores, and chooses under limits. */
#include "cli/tune/tune.h"
#include "cli/signals.h"
#include "export/gguf_edit.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct tune_options {
    model_options model;
    input_options input;
    tune_settings settings;
    term_options term;
    tune_lists lists;
    const char *state, *format, *output, *svg, *ppl_increase, *against, *max_time;
    double min_tps, min_facts;
    bool no_full, no_state, no_facts, write;
} tune_options;

#define OWN(field)     .at = offsetof(tune_options, field)
#define SETTING(field) .at = offsetof(tune_options, settings.field)

static const arg_option sweep_args[] = {
    {"group-size", "g", .kind = ARG_TEXT, .value = "N,...", OWN(lists.groups),
     .help = "group sizes to try; without any list 2 to 64 for weights that were trained with "
             "CCA-Attention, as -w 64 to 1024"},
    {"window", "w", .alias = "window-size", .kind = ARG_TEXT, .value = "N,...", OWN(lists.windows),
     .help = "windows to try, with each group size that divides them"},
    {"recall", .kind = ARG_TEXT, .value = "N,...", OWN(lists.recalls),
     .help = "tokens to recall, 0: none; without any list 0 to 4096 for other weights"},
    {"cores", .kind = ARG_CHOICE, .value = "WHICH", OWN(lists.cores), .choices = "yes|no|both",
     .help = "whether what is not recalled is seen as cores; without any list both for other "
             "weights"},
    {"cross", .kind = ARG_FLAG, OWN(lists.cross),
     .help = "of each list only the points that are the model's own in all else"},
    {"no-full", .kind = ARG_FLAG, OWN(no_full), .help = "leave out full attention"},
    {"state", .kind = ARG_TEXT, .value = "FILE", OWN(state),
     .help = "keep finished points there and go on from those it has; else in the cache folder"},
    {"no-state", .kind = ARG_FLAG, OWN(no_state), .help = "keep and use no state"},
    {0},
};

static const arg_option measure_args[] = {
    {"ctx-size", "c", .kind = ARG_INT, .value = "N", SETTING(context.ctx_size), .initial = "0",
     .max = INT32_MAX,
     .help = "positions of perplexity's windows; 0: 8192, or as many as there are"},
    {"tokens", .kind = ARG_INT, .value = "N", SETTING(n_tokens), .initial = "32768",
     .max = INT32_MAX, .help = "perplexity of the first N tokens; 0: of all"},
    {"length", .kind = ARG_INT, .value = "N", SETTING(length), .initial = "0", .max = INT32_MAX / 4,
     .help = "tokens of the document that speed and facts are measured on; 0: 32768, or as many as "
             "there are"},
    {"facts", .kind = ARG_INT, .value = "N", SETTING(n_facts), .initial = "20", .min = 1,
     .max = TUNE_MOST_FACTS, .help = "facts to plant into the document and to ask for"},
    {"no-facts", .kind = ARG_FLAG, OWN(no_facts), .help = "plant none"},
    {"cache-at", .kind = ARG_INT, .value = "N", SETTING(cache_at), .initial = "0",
     .max = INT32_MAX / 4, .help = "tell cache and memory of N tokens; 0: of the document"},
    {"sinks", .kind = ARG_INT, .value = "N|auto", SETTING(context.sinks), .initial = "auto",
     .word = "auto", .max = INT32_MAX,
     .help = "first tokens that every query sees raw; auto: the model's, else one group"},
    {"cache-type-r", "ctr", .kind = ARG_TEXT, .value = "TYPE", SETTING(context.row_type),
     .suggest = "q8_0|q4_0|q8_0/q4_0", .help = "type of rows behind the window, for recall"},
    {"clock", .kind = ARG_CHOICE, .value = "WHICH", SETTING(clock), .initial = "wall",
     .choices = MEASURE_CLOCKS,
     .help = "cpu: the process's time on all processors, for busy machines"},
    {"beyond-trained", .kind = ARG_FLAG, SETTING(context.beyond_trained),
     .help = "lift the limit of the trained length"},
    {0},
};

static const arg_option limit_args[] = {
    {"max-ppl-increase", .kind = ARG_TEXT, .value = "PCT", OWN(ppl_increase),
     .help = "at most PCT % above the lowest perplexity; of those the smallest cache"},
    {"against", .kind = ARG_CHOICE, .value = "WHAT", OWN(against), .initial = "best",
     .choices = "best|full", .help = "what perplexities are compared with"},
    {"mem-limit", .kind = ARG_SIZE, .value = "SIZE", SETTING(context.mem_limit),
     .help = "at most SIZE for weights, cache and activations; what takes more is not measured"},
    {"max-time", .kind = ARG_TEXT, .value = "TIME", OWN(max_time),
     .help = "at most so many seconds for the document and 32 tokens behind it, or PCT% of full "
             "attention's"},
    {"min-tps", .kind = ARG_REAL, .value = "X", OWN(min_tps), .initial = "0", .max = 1e9,
     .help = "at least X tokens a second of decode"},
    {"min-facts", .kind = ARG_REAL, .value = "PCT", OWN(min_facts), .initial = "0", .max = 100,
     .help = "at least PCT % of the facts"},
    {"write", .kind = ARG_FLAG, OWN(write), .help = "put the choice into the model file"},
    {0},
};

static const arg_option report_args[] = {
    {"format", .kind = ARG_CHOICE, .value = "FORMAT", OWN(format), .initial = "md",
     .choices = "md|csv|json", .help = "of the table"},
    {"output", "o", .kind = ARG_TEXT, .value = "FILE", OWN(output),
     .help = "write the table there, whole or not at all"},
    {"svg", .kind = ARG_TEXT, .value = "FILE", OWN(svg),
     .help = "draw perplexity and facts against cache there; against time, where recall differs"},
    {0},
};

static const arg_group groups[] = {
    {"Text", input_args, offsetof(tune_options, input)},
    {"Sweep", sweep_args, 0},
    {"Measurements", measure_args, 0},
    {"Limits for a choice", limit_args, 0},
    {"Report", report_args, 0},
    {"Model", model_args, offsetof(tune_options, model)},
    {"Chat", chat_args, offsetof(tune_options, settings.chat)},
    {"Cache", cache_args, offsetof(tune_options, settings.context)},
    {"Messages", term_args, offsetof(tune_options, term)},
    {0},
};

typedef struct tune_run {
    const tune_options *o;
    tune_settings settings;
    tune_limits limits;
    term term;
    cca_engine *engine;
    tune_task task;
    tune_state state;
    tune_point *points;
    size_t n, n_reused, n_over;
    tune_point *choice;
} tune_run;

/* ---- the points ------------------------------------------------------------------------ */

/* The option that compares with full attention; NULL where none does. */
static const char *needs_full(const tune_run *r) {
    if (r->limits.against_full) return "--against full";
    return r->limits.max_share > 0 ? "--max-time in per cent" : NULL;
}

/* What a query sees raw, at most. */
static int64_t reach(const tune_point *p) {
    return p->window_size + p->recall;
}

static void warn_of_short_windows(tune_run *r) {
    int64_t window = r->task.layout.window, least = INT64_MAX;
    for (size_t i = 0; i < r->n; i++) {
        const tune_point *p = &r->points[i];
        if (!tune_is_full(p) && reach(p) >= window) least = cca_min(least, reach(p));
    }
    if (least < INT64_MAX) {
        term_warn(&r->term,
                  "perplexity's windows of %lld positions are not longer than s and recall of %lld "
                  "together: it is full attention's there and says nothing about CCA",
                  (long long)window, (long long)least);
    }
}

/* Cache and memory of all points, and what earlier runs have measured. */
static cca_status plan_points(tune_run *r, cca_error *err) {
    cca_status status = CCA_OK;
    for (size_t i = 0; i < r->n && !status; i++) {
        tune_point *p = &r->points[i];
        status = tune_plan(p, &r->task, r->engine, err);
        p->over_limit = r->limits.memory > 0 && p->memory_bytes > r->limits.memory;
        if (p->over_limit && tune_is_full(p) && needs_full(r)) {
            return cca_fail(err, CCA_NO_MEMORY,
                            "%s: full attention takes %llu bytes, more than --mem-limit",
                            needs_full(r), (unsigned long long)p->memory_bytes);
        }
        if (p->over_limit) {
            r->n_over++;
        } else {
            r->n_reused += tune_state_find(&r->state, p);
        }
    }
    if (status) return status;
    if (r->n_over > 0) {
        term_note(&r->term, "%zu of %zu points take more memory than --mem-limit", r->n_over, r->n);
    }
    if (r->n_reused > 0) {
        term_note(&r->term, "state %s: %zu of %zu points are there", r->state.path, r->n_reused,
                  r->n);
    }
    return CCA_OK;
}

/* ---- measuring ------------------------------------------------------------------------- */

static void tell_point(term *t, const tune_point *p, size_t nth, size_t n) {
    char name[TUNE_NAME], facts[64] = "";
    tune_point_name(name, p);
    if (p->n_facts > 0) {
        snprintf(facts, sizeof facts, "%lld of %lld facts, ", (long long)p->n_right,
                 (long long)p->n_facts);
    }
    term_note(t, "%zu of %zu: %s: perplexity %.4f, %sprefill %.4g tok/s, decode %.4g tok/s", nth, n,
              name, p->perplexity, facts, p->prefill_tps, p->decode_tps);
}

static cca_status interrupted(const tune_run *r, size_t n_done, cca_error *err) {
    if (!r->state.path || n_done == 0) {
        return cca_fail(err, CCA_INTERRUPTED, "interrupted after %zu of %zu points", n_done,
                        r->n - r->n_over);
    }
    return cca_fail(err, CCA_INTERRUPTED,
                    "interrupted; %zu of %zu points are kept in %s: the same command goes on from "
                    "there",
                    n_done, r->n - r->n_over, r->state.path);
}

static cca_status measure_points(tune_run *r, cca_error *err) {
    size_t n = r->n - r->n_over, n_done = r->n_reused;
    int64_t each = r->task.positions;
    cca_status status = CCA_OK;
    term_start(&r->term, "tune", TERM_TOKENS, each * (int64_t)n);
    term_skip(&r->term, each * (int64_t)n_done);
    for (size_t i = 0; i < r->n && !status; i++) {
        tune_point *p = &r->points[i];
        if (p->over_limit || p->reused) continue;
        status = tune_measure(p, &r->task, r->engine, &r->term, each * (int64_t)n_done, err);
        if (!status) status = tune_state_add(&r->state, p, &r->term, err);
        if (!status) tell_point(&r->term, p, ++n_done, n);
    }
    term_done(&r->term);
    return status == CCA_INTERRUPTED ? interrupted(r, n_done, err) : status;
}

/* ---- reports and the model file -------------------------------------------------------- */

static cca_status write_svg(const tune_run *r, const tune_report *report, cca_error *err) {
    output out;
    cca_status status = output_open(&out, r->o->svg, err);
    if (!status) tune_report_svg(&out, report);
    cca_status closed = output_close(&out, !status, err);
    return status ? status : closed;
}

/* Both files appear, or neither. */
static cca_status write_reports(const tune_run *r, cca_error *err) {
    output out;
    int64_t at = r->settings.cache_at;
    tune_report report = {
        .facts = cca_engine_info(r->engine),
        .task = &r->task,
        .limits = &r->limits,
        .points = r->points,
        .n = r->n,
        .reference = tune_reference(r->points, r->n, r->limits.against_full),
        .choice = r->choice,
        .cache_at = at > 0 ? at : r->task.n_document,
    };
    cca_status status = output_open(&out, r->o->output, err);
    if (!status && r->o->format[0] == 'm') tune_report_md(&out, &report);
    if (!status && r->o->format[0] == 'c') tune_report_csv(&out, &report);
    if (!status && r->o->format[0] == 'j') tune_report_json(&out, &report, r->term.warnings);
    if (!status) status = output_flush(&out, err);
    if (!status && r->o->svg) status = write_svg(r, &report, err);
    cca_status closed = output_close(&out, !status, err);
    return status ? status : closed;
}

static cca_status write_choice(tune_run *r, cca_error *err) {
    const char *path = cca_engine_info(r->engine)->path;
    const tune_point *c = r->choice, *own = NULL;
    const cca_gguf_attention attention = {c->group_size, c->window_size, c->sinks, c->recall,
                                          c->cores};
    char chosen[TUNE_NAME], before[TUNE_NAME] = "what is no multiple of its g";
    for (size_t i = 0; i < r->n && !own; i++) own = r->points[i].own ? &r->points[i] : NULL;
    tune_point_name(chosen, c);
    if (own) tune_point_name(before, own);
    cca_status status = cca_gguf_set_attention(path, &attention, err);
    if (!status) {
        term_note(&r->term, "%s: %s, sinks %lld are written (before %s)", path, chosen,
                  (long long)c->sinks, before);
    }
    return status;
}

static void add_times(tune_run *r) {
    for (size_t i = 0; i < r->n; i++) {
        tune_point *p = &r->points[i];
        if (!p->measured) continue;
        p->seconds = (double)r->task.n_document / p->prefill_tps + TUNE_DECODED / p->decode_tps;
    }
}

static cca_status finish(tune_run *r, cca_error *err) {
    bool wanted = tune_has_limits(&r->limits);
    add_times(r);
    tune_mark_pareto(r->points, r->n);
    if (wanted) r->choice = tune_choose(r->points, r->n, &r->limits);
    cca_status status = write_reports(r, err);
    if (status || !wanted) return status;
    if (!r->choice) {
        return cca_fail(err, CCA_CHECK_FAILED, "none of %zu points meets the limits", r->n);
    }
    return r->o->write ? write_choice(r, err) : CCA_OK;
}

/* ---- the run --------------------------------------------------------------------------- */

/* "12.5" seconds, or "40%" of full attention's. */
static bool read_time(tune_limits *l, const char *text) {
    char number[32];
    size_t size = strlen(text);
    bool share = size > 0 && text[size - 1] == '%';
    double value;
    snprintf(number, sizeof number, "%.*s", (int)cca_min((int64_t)size - share, 31), text);
    if (!args_real(&value, number) || value <= 0) return false;
    if (share) {
        l->max_share = value / 100;
    } else {
        l->max_seconds = value;
    }
    return true;
}

static cca_status check_options(tune_run *r, cca_error *err) {
    const tune_options *o = r->o;
    r->settings = o->settings;
    r->settings.fp8 = o->model.fp8;
    if (o->no_facts) r->settings.n_facts = 0;
    r->limits = (tune_limits){.against_full = strcmp(o->against, "full") == 0,
                              .memory = o->settings.context.mem_limit,
                              .min_tps = o->min_tps,
                              .min_facts = o->min_facts,
                              .has_ppl_increase = o->ppl_increase != NULL};
    if (o->ppl_increase && !(args_real(&r->limits.ppl_increase, o->ppl_increase))) {
        return cca_fail(err, CCA_USAGE, "--max-ppl-increase %s: a number of per cent expected",
                        o->ppl_increase);
    }
    if (o->max_time && !read_time(&r->limits, o->max_time)) {
        return cca_fail(err, CCA_USAGE,
                        "--max-time %s: a number of seconds expected, or PCT%% of full attention's",
                        o->max_time);
    }
    if (o->write && !tune_has_limits(&r->limits)) {
        return cca_fail(err, CCA_USAGE,
                        "--write needs a limit to choose by: --max-ppl-increase, --mem-limit, "
                        "--max-time, --min-tps or --min-facts");
    }
    if (needs_full(r) && o->no_full) {
        return cca_fail(err, CCA_USAGE, "%s: --no-full leaves full attention out", needs_full(r));
    }
    if (o->no_facts && o->min_facts > 0) {
        return cca_fail(err, CCA_USAGE, "--min-facts: --no-facts plants none");
    }
    return CCA_OK;
}

static cca_status make_task(tune_run *r, cca_error *err) {
    const cca_tokenizer *tok;
    input_text text = {0};
    cca_status status = cli_tokenizer(&tok, r->engine, err);
    if (!status) status = input_read(&text, &r->o->input, &r->term, err);
    if (!status) {
        status = tune_task_make(&r->task, r->engine, &text, r->o->input.special, &r->settings, err);
    }
    input_free(&text);
    return status;
}

static cca_status make_points(tune_run *r, cca_error *err) {
    tune_lists lists = r->o->lists;
    bool recalls = false;
    lists.full = !r->o->no_full;
    cca_status status =
        tune_make_points(&r->points, &r->n, &lists, &r->settings, r->engine, &r->term, err);
    for (size_t i = 0; i < r->n; i++) recalls = recalls || r->points[i].recall > 0;
    if (status || recalls || !r->settings.context.row_type) return status;
    return cca_fail(err, CCA_USAGE, "--cache-type-r %s: no point recalls",
                    r->settings.context.row_type);
}

static cca_status tune(tune_run *r, cca_error *err) {
    cca_status status = check_options(r, err);
    if (!status) status = cli_engine_open(&r->engine, &r->o->model, &r->term, err);
    if (!status && r->o->write) {
        status = cca_gguf_check_writable(cca_engine_info(r->engine)->path, err);
    }
    if (!status) status = make_points(r, err);
    if (!status) status = make_task(r, err);
    if (!status && !r->o->no_state) {
        status = tune_state_open(&r->state, r->o->state, r->task.signature, &r->term, err);
    }
    if (!status) status = plan_points(r, err);
    if (status) return status;
    warn_of_short_windows(r);
    status = measure_points(r, err);
    return status ? status : finish(r, err);
}

static cca_status run(const void *options, cca_error *err) {
    tune_run r = {.o = options};
    term_open(&r.term, &r.o->term);
    cca_status status = tune(&r, err);
    tune_state_close(&r.state);
    tune_task_free(&r.task);
    free(r.points);
    cca_engine_close(r.engine);
    term_close(&r.term);
    return status;
}

const cli_command cli_tune = {
    .name = "tune",
    .summary = "choose group size, window and recall under a budget",
    .usage = "-m MODEL -f FILE [options]",
    .notes =
        "Measures perplexity, planted facts, cache and speed for each group size, window, recall and "
        "choice of cores, marks those that no other one beats, and with limits chooses one: with "
        "--max-ppl-increase that with the smallest cache, else that with the lowest perplexity. "
        "Finished points are kept: the same command goes on behind an interruption.",
    .groups = groups,
    .options_size = sizeof(tune_options),
    .run = run,
};
