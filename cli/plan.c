/* cca plan: memory and time of a run, before anything is loaded. */
#include "base/clock.h"
#include "cli/cli.h"
#include "cli/decode.h"
#include "cli/input.h"
#include "cli/plan_ranks.h"

#include <stddef.h>
#include <string.h>

typedef struct plan_options {
    model_options model;
    input_options input;
    context_options context;
    output_options output;
    term_options term;
    int64_t n_predict, n_ranks, per_host;
    const char *link;
} plan_options;

static const arg_option own_args[] = {
    {"predict", "n", .alias = "n-predict", .kind = ARG_INT, .value = "N",
     .at = offsetof(plan_options, n_predict), .initial = "0", .max = INT32_MAX,
     .help = "tokens of an answer to have room for behind the text"},
    {"ranks", .kind = ARG_INT, .value = "N", .at = offsetof(plan_options, n_ranks), .initial = "0",
     .max = 4096, .help = "tell what it is to share the prefill between N machines like this one"},
    {"per-host", .kind = ARG_INT, .value = "N", .at = offsetof(plan_options, per_host),
     .initial = "1", .min = 1, .max = 4096, .help = "ranks that share the memory of one machine"},
    {"link", .kind = ARG_TEXT, .value = "RATE,TIME", .at = offsetof(plan_options, link),
     .initial = "10GB/s,10us", .help = "between two of them: 50GB/s,5us or 1Gbit/s,1ms"},
    {0},
};

static const arg_group groups[] = {
    {"Text", input_args, offsetof(plan_options, input)},
    {"Plan", own_args, 0},
    {"Model", model_args, offsetof(plan_options, model)},
    {"Context", context_args, offsetof(plan_options, context)},
    {"Sinks and recall", recall_args, offsetof(plan_options, context)},
    {"Output", output_args, offsetof(plan_options, output)},
    {"Messages", term_args, offsetof(plan_options, term)},
    {0},
};

/* Where rows that are recalled can lie, and what that takes. */
typedef struct tier {
    const char *rows;
    cli_plan plan;
    uint64_t total; /* beside what its column has, too */
    cli_token_cost token;
    bool fits;
} tier;

enum { MOST_TIERS = 2 };

/* One kind of attention. */
typedef struct column {
    context_options context;
    cli_plan plan;
    cli_token_cost token;
    uint64_t most;
    bool fits;
    tier tiers[MOST_TIERS];
    int n_tiers;     /* 0: it recalls nothing */
    int64_t largest; /* positions that fit; 0: not even one */
    cca_forecast forecast;
    plan_ranks ranks;
} column;

enum { MOST_COLUMNS = 4 };

typedef struct planning {
    const plan_options *o;
    term term;
    cca_engine *engine;
    int64_t n_prompt, n_positions;
    column columns[MOST_COLUMNS]; /* what --attn says, then what it does not */
    int n;
    plan_link link;
    double measured_s; /* what measuring the speed took; 0: not measured */
} planning;

/* ---- the plan ------------------------------------------------------------------------- */

/* Tokens of the text, or without one as many as -c says, else the trained length. */
static cca_status count_positions(planning *p, cca_error *err) {
    const plan_options *o = p->o;
    cca_tokens tokens = {0};
    input_text text = {0};
    const cca_tokenizer *tok;
    p->n_prompt =
        o->context.ctx_size ? o->context.ctx_size : cca_engine_info(p->engine)->trained_length;
    p->n_positions = p->n_prompt;
    if (o->input.pieces.n == 0) return CCA_OK;
    cca_status status = cli_tokenizer(&tok, p->engine, err);
    if (!status) status = input_read(&text, &o->input, &p->term, err);
    unsigned flags = CCA_ENCODE_START | (o->input.special ? CCA_ENCODE_SPECIAL : 0);
    if (!status) status = input_bos(&tokens, tok, err);
    if (!status) status = input_encode(&tokens, tok, &text, flags, err);
    p->n_prompt = cca_max((int64_t)tokens.n, 1);
    p->n_positions =
        cca_min(p->n_prompt + o->n_predict, cli_position_limit(&o->context, p->engine));
    if (!status) status = cli_check_length("the text", p->n_prompt, &o->context, p->engine, err);
    cca_tokens_free(&tokens);
    input_free(&text);
    return status;
}

static bool is_cpu(const planning *p) {
    return strcmp(cca_engine_info(p->engine)->device, "cpu") == 0;
}

static cca_status fill_tiers(planning *p, column *c, cca_error *err) {
    static const char *const of_cpu[MOST_TIERS] = {"memory", "disk"};
    static const char *const of_device[MOST_TIERS] = {"memory", "host"};
    const char *const *names = is_cpu(p) ? of_cpu : of_device;
    cca_status status = CCA_OK;
    if (cli_attention(&c->context, p->engine).recall == 0) return CCA_OK;
    uint64_t beside = c->plan.total - c->plan.session.total;
    for (int i = 0; i < MOST_TIERS && !status; i++) {
        tier *t = &c->tiers[c->n_tiers++];
        context_options context = c->context;
        context.rows = t->rows = names[i];
        status = cli_plan_make(&t->plan, p->engine, &context, p->n_positions, 0, err);
        if (!status) status = cli_token_cost_of(&t->token, p->engine, &context, err);
        t->total = beside + t->plan.session.total;
        t->fits = t->total <= c->most && cli_plan_host_fits(&t->plan);
    }
    return status;
}

static cca_status fill_column(planning *p, column *c, cca_error *err) {
    enum { MOST_POSITIONS = INT32_MAX };
    cca_status status = cli_plan_make(&c->plan, p->engine, &c->context, p->n_positions, 0, err);
    if (!status) status = cli_token_cost_of(&c->token, p->engine, &c->context, err);
    if (status) return status;
    c->most = cli_plan_most(&c->plan, p->engine, &c->context);
    c->fits = c->plan.total <= c->most && cli_plan_host_fits(&c->plan);
    status = fill_tiers(p, c, err);
    if (status) return status;
    c->largest = cli_plan_largest(&c->plan, p->engine, &c->context, 0, MOST_POSITIONS, 0);
    return CCA_OK;
}

static cca_status fill_columns(planning *p, cca_error *err) {
    static const char *const others[] = {"cca", "recall", "full"};
    const context_options *context = &p->o->context;
    cca_status status = CCA_OK;
    p->columns[p->n++].context = *context;
    const char *first = cli_attention(context, p->engine).attn;
    bool alone = strcmp(first, "full") == 0;
    for (size_t i = 0; i < sizeof others / sizeof *others && !alone; i++) {
        if (strcmp(first, others[i]) == 0) continue;
        p->columns[p->n++].context = cli_with_attn(context, others[i]);
    }
    for (int i = 0; i < p->n && !status; i++) {
        p->columns[i].context.draft = decoder_draft(NULL, p->engine);
        status = fill_column(p, &p->columns[i], err);
    }
    return status;
}

/* Memory is planned before this: measuring takes some itself. */
static cca_status forecast(planning *p, cca_error *err) {
    cca_session_options options[MOST_COLUMNS];
    cca_forecast forecasts[MOST_COLUMNS];
    if (p->o->context.dry_run) return CCA_OK;
    double begin = cca_seconds();
    for (int i = 0; i < p->n; i++) {
        options[i] = cli_session_options(&p->columns[i].context, p->n_positions, 0);
    }
    cca_status status = cca_engine_forecast(forecasts, p->engine, options, p->n, p->n_prompt, err);
    if (status == CCA_NO_MEMORY && !is_cpu(p)) { /* others fill the device */
        term_warn(&p->term, "no times: %s", err->text);
        return CCA_OK;
    }
    if (status) return status;
    for (int i = 0; i < p->n; i++) p->columns[i].forecast = forecasts[i];
    p->measured_s = cca_seconds() - begin;
    return CCA_OK;
}

/* What ranks would do, from the time of one process. */
static cca_status fill_ranks(planning *p, cca_error *err) {
    cca_status status = CCA_OK;
    if (p->o->n_ranks == 0) return CCA_OK;
    for (int i = 0; i < p->n && !status; i++) {
        column *c = &p->columns[i];
        cca_session_options options = cli_session_options(&c->context, p->n_positions, 0);
        const uint64_t beside = c->plan.weights + c->plan.program;
        const plan_machine each = {c->forecast.prefill_s, c->forecast.token_s,
                                   c->most > beside ? c->most - beside : 0, p->o->per_host};
        status = plan_ranks_fill(&c->ranks, p->engine, &options, p->o->n_ranks, p->n_prompt, &each,
                                 &p->link, err);
    }
    if (status || p->columns[0].ranks.n > 0) return status;
    term_warn(&p->term, "%lld tokens are too few for %lld ranks", (long long)p->n_prompt,
              (long long)p->o->n_ranks);
    return CCA_OK;
}

/* ---- text ----------------------------------------------------------------------------- */

enum { LABEL = 18, CELL = 20, CELL_TEXT = 64 };

static void print_row(output *out, const planning *p, const char *label,
                      void (*cell)(char text[CELL_TEXT], const planning *p, const column *c)) {
    output_printf(out, "%-*s", LABEL, label);
    for (int i = 0; i < p->n; i++) {
        char text[CELL_TEXT];
        cell(text, p, &p->columns[i]);
        output_printf(out, "%*s", CELL, text);
    }
    output_printf(out, "\n");
}

static void attention_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    cca_attention_settings a = cli_attention(&c->context, p->engine);
    const char *name = cli_has_sinks(c->context.attn) ? a.attn : c->context.attn;
    if (a.recall > 0) {
        snprintf(text, CELL_TEXT, "%s %lld/%lld/%lld", name, (long long)a.group_size,
                 (long long)a.window_size, (long long)a.recall);
    } else if (a.group_size > 0) {
        snprintf(text, CELL_TEXT, "%s %lld/%lld", name, (long long)a.group_size,
                 (long long)a.window_size);
    } else {
        snprintf(text, CELL_TEXT, "%s", name);
    }
}

static void size_cell(char text[CELL_TEXT], uint64_t bytes) {
    char size[TERM_SIZE_TEXT];
    snprintf(text, CELL_TEXT, "%s", term_size(size, bytes));
}

#define SIZE_CELL(name, field)                                                                     \
    static void name(char text[CELL_TEXT], const planning *p, const column *c) {                   \
        (void)p;                                                                                   \
        size_cell(text, c->plan.field);                                                            \
    }
SIZE_CELL(weights_cell, weights)
SIZE_CELL(cores_cell, session.cores)
SIZE_CELL(bounds_cell, session.bounds)
SIZE_CELL(rows_cell, session.rows)
SIZE_CELL(window_cell, session.window)
SIZE_CELL(activations_cell, session.activations)
SIZE_CELL(program_cell, program)
SIZE_CELL(total_cell, total)
SIZE_CELL(disk_cell, session.disk)
SIZE_CELL(host_cell, session.host)

static void fits_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    (void)p;
    snprintf(text, CELL_TEXT, "%s", c->fits ? "yes" : "no");
}

static void largest_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    (void)p;
    snprintf(text, CELL_TEXT, "%lld", (long long)c->largest);
}

static void cost_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    (void)p;
    size_cell(text, (uint64_t)c->token.memory);
}

static void time_cell(char text[CELL_TEXT], double s) {
    if (s < 120) {
        snprintf(text, CELL_TEXT, "%.3g s", s);
    } else if (s < 7200) {
        snprintf(text, CELL_TEXT, "%.3g min", s / 60);
    } else {
        snprintf(text, CELL_TEXT, "%.3g h", s / 3600);
    }
}

static void prefill_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    (void)p;
    time_cell(text, c->forecast.prefill_s);
}

static void prefill_speed_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    snprintf(text, CELL_TEXT, "%.4g tok/s", term_per_second(p->n_prompt, c->forecast.prefill_s));
}

static void token_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    (void)p;
    snprintf(text, CELL_TEXT, "%.3g ms", 1e3 * c->forecast.token_s);
}

#define RANKS_CELL(name, field)                                                                    \
    static void name(char text[CELL_TEXT], const planning *p, const column *c) {                   \
        (void)p;                                                                                   \
        if (c->ranks.share.field > 0) {                                                            \
            size_cell(text, c->ranks.share.field);                                                 \
        } else {                                                                                   \
            text[0] = '\0';                                                                        \
        }                                                                                          \
    }
RANKS_CELL(ranks_memory_cell, most_memory)
RANKS_CELL(ranks_bytes_cell, most_bytes)
RANKS_CELL(ranks_ring_cell, ring_bytes)
RANKS_CELL(ranks_gathered_cell, gathered)
RANKS_CELL(ranks_layer_cell, gathered_others)
RANKS_CELL(ranks_first_cell, spread_first)
RANKS_CELL(ranks_others_cell, spread_others)

static void ranks_decode_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    (void)p;
    snprintf(text, CELL_TEXT, "%s", c->ranks.decode ? c->ranks.decode : "neither fits");
}

static void ranks_exchange_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    (void)p;
    text[0] = '\0';
    if (c->ranks.exchange_s > 0) snprintf(text, CELL_TEXT, "%.3g ms", 1e3 * c->ranks.exchange_s);
}

static void ranks_token_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    (void)p;
    text[0] = '\0';
    if (c->ranks.token_s > 0) snprintf(text, CELL_TEXT, "%.3g ms", 1e3 * c->ranks.token_s);
}

static void ranks_transfer_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    (void)p;
    time_cell(text, c->ranks.transfer_s);
}

static void ranks_prefill_cell(char text[CELL_TEXT], const planning *p, const column *c) {
    (void)p;
    time_cell(text, c->ranks.prefill_s);
}

/* What sharing takes of the rank that has most of each. */
static void print_ranks(output *out, const planning *p) {
    if (p->columns[0].ranks.n == 0) return;
    output_printf(out, "\n%-*s%lld, link %s\n", LABEL, "ranks", (long long)p->o->n_ranks,
                  p->o->link);
    print_row(out, p, "more memory", ranks_memory_cell);
    print_row(out, p, "bytes of a rank", ranks_bytes_cell);
    print_row(out, p, "ring attention", ranks_ring_cell);
    print_row(out, p, "transfer", ranks_transfer_cell);
    if (p->measured_s > 0) print_row(out, p, "prefill on all", ranks_prefill_cell);
    print_row(out, p, "--decode auto", ranks_decode_cell);
    print_row(out, p, "gather: rank 0", ranks_gathered_cell);
    print_row(out, p, "others", ranks_layer_cell);
    print_row(out, p, "share: rank 0", ranks_first_cell);
    print_row(out, p, "others", ranks_others_cell);
    print_row(out, p, "token's exchange", ranks_exchange_cell);
    if (p->measured_s > 0) print_row(out, p, "a token at most", ranks_token_cell);
}

/* What a token costs where, of the first kind that recalls. */
static void print_tiers(output *out, const planning *p) {
    int i = 0;
    while (i < p->n && p->columns[i].n_tiers == 0) i++;
    if (i == p->n) return;
    char name[CELL_TEXT];
    const column *c = &p->columns[i];
    attention_cell(name, p, c);
    output_printf(out, "\n%-*s%*s%*s%*s%*s\n", LABEL, name, CELL, "total", CELL, "fits", CELL,
                  "a token in memory", CELL, is_cpu(p) ? "on disk" : "of the host");
    for (const tier *t = c->tiers; t < c->tiers + c->n_tiers; t++) {
        char total[TERM_SIZE_TEXT], memory[TERM_SIZE_TEXT], other[TERM_SIZE_TEXT];
        output_printf(out, "--rows %-*s%*s%*s%*s%*s\n", LABEL - 7, t->rows, CELL,
                      term_size(total, t->total), CELL, t->fits ? "yes" : "no", CELL,
                      term_size(memory, (uint64_t)t->token.memory), CELL,
                      term_size(other, (uint64_t)(t->token.disk + t->token.host)));
    }
}

static void print_text(output *out, const planning *p) {
    const cca_engine_facts *f = cca_engine_info(p->engine);
    const column *first = &p->columns[0];
    char size[TERM_SIZE_TEXT];
    output_printf(out, "%-*s%s, %llu parameters, %s\n", LABEL, "model", f->path,
                  (unsigned long long)f->n_params, f->weight_type);
    output_printf(out, "%-*s%lld, of which prefill %lld (trained length %lld)\n", LABEL,
                  "positions", (long long)p->n_positions, (long long)p->n_prompt,
                  (long long)f->trained_length);
    output_printf(out, "%-*s%s (%s), %d thread%s\n", LABEL, "device", f->device, f->kernels,
                  f->n_threads, term_plural(f->n_threads));
    output_printf(out, "%-*s%s%s\n\n", LABEL, "memory", term_size(size, first->most),
                  first->context.mem_limit ? " by --mem-limit" : " available");
    print_row(out, p, "attention", attention_cell);
    print_row(out, p, "weights", weights_cell);
    print_row(out, p, "cores", cores_cell);
    print_row(out, p, "bounds", bounds_cell);
    print_row(out, p, "rows", rows_cell);
    print_row(out, p, "window", window_cell);
    print_row(out, p, "activations", activations_cell);
    print_row(out, p, "program", program_cell);
    print_row(out, p, "total", total_cell);
    print_row(out, p, is_cpu(p) ? "on disk" : "of the host", is_cpu(p) ? disk_cell : host_cell);
    print_row(out, p, "fits", fits_cell);
    print_row(out, p, "largest context", largest_cell);
    print_row(out, p, "a token", cost_cell);
    print_tiers(out, p);
    if (p->measured_s > 0) {
        output_printf(out, "\n");
        print_row(out, p, "prefill", prefill_cell);
        print_row(out, p, "", prefill_speed_cell);
        print_row(out, p, "token behind it", token_cell);
    }
    print_ranks(out, p);
    if (p->measured_s == 0) return;
    output_printf(out, "\nTimes are from speeds measured on this machine just now, in %.2g s.\n",
                  p->measured_s);
}

/* ---- JSON ----------------------------------------------------------------------------- */

static json_t *tiers_json(const column *c) {
    json_t *tiers = c->n_tiers > 0 ? json_array() : json_null();
    for (const tier *t = c->tiers; t < c->tiers + c->n_tiers; t++) {
        output_add(&tiers, json_pack("{s:s, s:I, s:I, s:I, s:b, s:{s:f, s:f, s:f}}", "rows",
                                     t->rows, "total", (json_int_t)t->total, "disk",
                                     (json_int_t)t->plan.session.disk, "host",
                                     (json_int_t)t->plan.session.host, "fits", (int)t->fits,
                                     "token", "memory", t->token.memory, "disk", t->token.disk,
                                     "host", t->token.host));
    }
    return tiers;
}

static json_t *column_json(const planning *p, const column *c) {
    json_t *timing = json_null();
    if (p->measured_s > 0) {
        timing = json_pack("{s:o, s:o}", "prefill_s", output_real(true, c->forecast.prefill_s),
                           "token_s", output_real(true, c->forecast.token_s));
    }
    return json_pack("{s:o, s:o, s:I, s:b, s:I, s:o, s:o, s:o}", "attention",
                     cli_attention_json(&c->context, p->engine), "memory", cli_plan_json(&c->plan),
                     "allowed", c->most > INT64_MAX ? INT64_MAX : (json_int_t)c->most, "fits",
                     (int)c->fits, "largest_context", (json_int_t)c->largest, "tiers",
                     tiers_json(c), "timing", timing, "ranks", plan_ranks_json(&c->ranks));
}

static json_t *record(const planning *p) {
    const cca_engine_facts *f = cca_engine_info(p->engine);
    json_t *plans = json_array();
    for (int i = 0; i < p->n; i++) json_array_append_new(plans, column_json(p, &p->columns[i]));
    json_t *model =
        json_pack("{s:o, s:I, s:s, s:I}", "file", output_string(f->path, strlen(f->path)),
                  "parameters", (json_int_t)f->n_params, "weight_type", f->weight_type,
                  "weight_bytes", (json_int_t)f->weight_bytes);
    return json_pack("{s:s, s:o, s:s, s:s, s:i, s:I, s:I, s:I, s:o, s:o, s:O}", "schema",
                     "cca.plan.1", "model", model, "device", f->device, "kernels", f->kernels,
                     "threads", f->n_threads, "trained_length", (json_int_t)f->trained_length,
                     "positions", (json_int_t)p->n_positions, "prefill", (json_int_t)p->n_prompt,
                     "measured_s", output_real(true, p->measured_s), "plans", plans, "warnings",
                     p->term.warnings);
}

/* ---- the run -------------------------------------------------------------------------- */

static cca_status report(planning *p, cca_error *err) {
    output out;
    cca_status status = output_open(&out, p->o->output.file, err);
    if (status) return status;
    if (p->o->output.json) {
        output_json(&out, record(p));
    } else {
        print_text(&out, p);
    }
    return output_close(&out, true, err);
}

/* Whether there is memory for the kind that was asked for, in one process, or on all ranks. */
static cca_status check_first(const planning *p, cca_error *err) {
    const column *c = &p->columns[0];
    const cca_share_forecast *share = &c->ranks.share;
    char first[TERM_SIZE_TEXT], others[TERM_SIZE_TEXT], room[TERM_SIZE_TEXT];
    if (c->ranks.decode && strcmp(c->ranks.decode, "share") == 0) return CCA_OK;
    cca_status status = cli_plan_check(&c->plan, p->engine, &c->context, err);
    if (status || c->ranks.n == 0 || c->ranks.decode) return status;
    return cca_fail(
        err, CCA_NO_MEMORY,
        "%lld ranks on one machine take %s (%llu bytes) of rank 0 and %s (%llu bytes) of "
        "each other, beside the weights; there is %s in all (%llu bytes)",
        (long long)cca_min(p->o->per_host, c->ranks.n), term_size(first, share->gathered),
        (unsigned long long)share->gathered, term_size(others, share->gathered_others),
        (unsigned long long)share->gathered_others, term_size(room, c->most),
        (unsigned long long)c->most);
}

static cca_status plan(planning *p, cca_error *err) {
    const plan_options *o = p->o;
    cca_status status = plan_link_parse(&p->link, o->link, err);
    if (!status) status = cli_engine_open_to_plan(&p->engine, &o->model, &p->term, err);
    if (!status) status = count_positions(p, err);
    if (status) return status;
    long long trained = cca_engine_info(p->engine)->trained_length;
    if (p->n_positions > trained) {
        term_warn(&p->term, "%lld positions are more than the %lld that the model was trained for",
                  (long long)p->n_positions, trained);
    }
    status = fill_columns(p, err);
    if (!status) status = forecast(p, err);
    if (!status) status = fill_ranks(p, err);
    if (!status) status = report(p, err);
    return status ? status : check_first(p, err);
}

static cca_status run(const void *options, cca_error *err) {
    planning p = {.o = options};
    term_open(&p.term, &p.o->term);
    cca_status status = plan(&p, err);
    term_close(&p.term);
    cca_engine_close(p.engine);
    return status;
}

const cli_command cli_plan_command = {
    .name = "plan",
    .summary = "memory and time of a run, before anything is loaded",
    .usage = "-m MODEL [-c N | -f FILE] [options]",
    .notes =
        "Reads the head of the model file and counts the tokens of the text, or takes -c N "
        "positions, else the trained length. Tells the memory that a run takes, whether it is "
        "there (exit 5 where it is not), the largest context that fits, and what prefill and the "
        "token behind it would take: the operations of a layer are timed for about a second. "
        "What --attn says stands beside CCA, recall and full attention, and what a token costs with rows "
        "in memory and on disk, or in the host's memory, below. --dry-run measures no speed.",
    .groups = groups,
    .options_size = sizeof(plan_options),
    .run = run,
};
