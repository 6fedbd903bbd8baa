/* The memory of a run: planned, checked against what there is, printed. */
#include "base/available_memory.h"

#include "cli/cli.h"
#include "cli/signals.h"
#include "cli/stored_prefill.h"
#include "lookup.h"

#include <stdlib.h>
#include <string.h>

cca_session_options cli_session_options(const context_options *context, int64_t ctx_size,
                                        unsigned flags) {
    cca_session_options o = cca_session_defaults();
    o.ctx_size = ctx_size;
    o.attn = context->attn;
    o.group_size = context->group_size;
    o.window_size = context->window_size;
    o.sinks = context->sinks;
    o.recall = context->recall;
    o.recall_tile = context->recall_tile;
    o.cores = context->cores ? CCA_CORES_YES : context->no_cores ? CCA_CORES_NO : CCA_CORES_AUTO;
    o.k_type = context->k_type;
    o.v_type = context->v_type;
    o.row_type = context->row_type;
    o.rows_folder = cli_rows_on_disk(context) ? "" : NULL; /* cli_session_new knows it */
    o.rows_on_host = cli_rows_on_host(context);
    o.most_resident = context->mem_limit;
    o.chunk_size = context->chunk_size;
    o.draft = context->draft;
    o.mark = flags & CLI_MARK;
    o.stored = flags & CLI_STORED;
    o.stop = signals_stop();
    o.comm = context->comm;
    o.n_texts = context->n_texts;
    o.spread = context->spread;
    return o;
}

cca_status cli_session_new(cca_session **out, cca_engine *engine, const context_options *context,
                           int64_t ctx_size, unsigned flags, cca_error *err) {
    cca_session_options options = cli_session_options(context, ctx_size, flags);
    char *folder = NULL;
    *out = NULL;
    cca_status status = options.rows_folder ? stored_make_folder(&folder, err) : CCA_OK;
    options.rows_folder = folder;
    if (!status) status = cca_session_new(out, engine, &options, err);
    free(folder);
    return status;
}

/* Of one copy, which was measured, to all. */
static void plan_copies(cli_plan *plan, unsigned flags) {
    enum { MOST = 64 };
    int64_t one = (int64_t)plan->session.mark, n = 1 + (flags & CLI_MARK ? 1 : 0);
    if (flags & CLI_COPIES) {
        n = one > 0 ? cca_max(2, cca_min(MOST, CLI_COPIES_BYTES / one)) : MOST;
        plan->n_copies = n;
    }
    plan->session.mark *= (uint64_t)n;
    plan->session.total += plan->session.mark - (uint64_t)one;
}

static bool is_cpu(const cca_engine *engine) {
    return strcmp(cca_engine_info(engine)->device, "cpu") == 0; /* others have their own memory */
}

/* What answers are guessed from lies beside the session. */
static void plan_lookup(cli_plan *plan) {
    const size_t bytes = cca_lookup_bytes(plan->ctx_size);
    plan->session.activations += bytes;
    plan->session.total += bytes;
}

static cca_status plan_beside(cli_plan *out, uint64_t program, const cca_engine *engine,
                              const context_options *context, int64_t ctx_size, unsigned flags,
                              cca_error *err) {
    cca_session_options options = cli_session_options(context, ctx_size, flags);
    *out = (cli_plan){
        .ctx_size = ctx_size, .weights = cca_engine_info(engine)->weight_bytes, .program = program};
    const bool copied = flags & (CLI_COPIES | CLI_COPY);
    if (copied) options.mark = true;
    cca_status status = cca_session_measure(&out->session, engine, &options, err);
    if (!status && copied) plan_copies(out, flags);
    if (!status && context->draft > 0 && is_cpu(engine)) plan_lookup(out);
    uint64_t beside = out->weights + out->program;
    if (!status && __builtin_add_overflow(beside, out->session.total, &out->total)) {
        return cca_fail(err, CCA_NO_MEMORY, "%lld positions take more than any memory",
                        (long long)ctx_size);
    }
    return status;
}

cca_status cli_plan_make(cli_plan *out, const cca_engine *engine, const context_options *context,
                         int64_t ctx_size, unsigned flags, cca_error *err) {
    cca_status status = cli_check_attention(context, engine, err);
    if (status) return status;
    uint64_t program = is_cpu(engine) ? cca_memory_resident() : 0;
    return plan_beside(out, program, engine, context, ctx_size, flags, err);
}

/* Bytes that a longer run has more of: not what a chunk takes, or the window. */
static double grown(uint64_t before, uint64_t after, int64_t positions) {
    return ((double)after - (double)before) / (double)positions;
}

cca_status cli_token_cost_of(cli_token_cost *out, const cca_engine *engine,
                             const context_options *context, cca_error *err) {
    enum { LONG = 1 << 20 }; /* more than windows */
    cca_session_size size[2];
    cca_status status = CCA_OK;
    for (int i = 0; i < 2 && !status; i++) {
        cca_session_options options = cli_session_options(context, (i + 1) * LONG, 0);
        status = cca_session_measure(&size[i], engine, &options, err);
    }
    if (status) return status;
    *out = (cli_token_cost){.memory = grown(size[0].total, size[1].total, LONG),
                            .disk = grown(size[0].disk, size[1].disk, LONG),
                            .host = grown(size[0].host, size[1].host, LONG)};
    return CCA_OK;
}

uint64_t cli_plan_most(const cli_plan *plan, const cca_engine *engine,
                       const context_options *context) {
    uint64_t most;
    if (context->mem_limit > 0) return context->mem_limit;
    bool is_sum =
        !__builtin_add_overflow(cca_engine_room(engine), plan->weights + plan->program, &most);
    return is_sum ? most : UINT64_MAX;
}

bool cli_plan_host_fits(const cli_plan *plan) {
    return plan->session.host <= cca_memory_available("");
}

bool cli_plan_fits(const cli_plan *plan, const cca_engine *engine, const context_options *context) {
    const uint64_t most = cli_plan_most(plan, engine, context);
    const uint64_t other = plan->weights + plan->program + plan->session.other;
    const uint64_t others = context->mem_limit > 0 ? 0 : plan->session.others;
    return plan->total <= most && others <= most - plan->total &&
           (plan->session.other == 0 || other <= most);
}

/* What ranks take together, or one of them; rank 0 itself has room. */
static cca_status refuse_ranks(const cli_plan *plan, uint64_t most, const context_options *context,
                               cca_error *err) {
    char total[TERM_SIZE_TEXT], other[TERM_SIZE_TEXT], room[TERM_SIZE_TEXT];
    const cca_session_size *s = &plan->session;
    if (context->mem_limit > 0) {
        return cca_fail(
            err, CCA_NO_MEMORY,
            "%lld positions take %s (%llu bytes) of each rank but the first, beside the "
            "weights; --mem-limit allows %s (%llu bytes)",
            (long long)plan->ctx_size, term_size(other, s->other), (unsigned long long)s->other,
            term_size(room, most), (unsigned long long)most);
    }
    return cca_fail(
        err, CCA_NO_MEMORY,
        "%lld positions take %s (%llu bytes) of rank 0 and %s (%llu bytes) of the other "
        "%llu ranks on this machine, which has %s (%llu bytes); fewer ranks, -c and -n "
        "take less; --mem-limit SIZE is another bound, of each rank",
        (long long)plan->ctx_size, term_size(total, plan->total), (unsigned long long)plan->total,
        term_size(other, s->others), (unsigned long long)s->others,
        (unsigned long long)(s->others / s->other), term_size(room, most),
        (unsigned long long)most);
}

static cca_status check_host(const cli_plan *plan, cca_error *err) {
    char rows[TERM_SIZE_TEXT], room[TERM_SIZE_TEXT];
    if (cli_plan_host_fits(plan)) return CCA_OK;
    return cca_fail(err, CCA_NO_MEMORY,
                    "the rows of %lld positions take %s (%llu bytes) of the host's memory, which "
                    "has %s; -c and -n bound them, -ctr makes them smaller",
                    (long long)plan->ctx_size, term_size(rows, plan->session.host),
                    (unsigned long long)plan->session.host,
                    term_size(room, cca_memory_available("")));
}

cca_status cli_plan_check(const cli_plan *plan, const cca_engine *engine,
                          const context_options *context, cca_error *err) {
    char total[TERM_SIZE_TEXT], weights[TERM_SIZE_TEXT], room[TERM_SIZE_TEXT];
    uint64_t most = cli_plan_most(plan, engine, context);
    if (cli_plan_fits(plan, engine, context)) {
        cca_status status = check_host(plan, err);
        if (status || !context->comm) return status;
        return cca_session_check_ranks(&plan->session, context->comm, plan->weights, err);
    }
    if (plan->total <= most) return refuse_ranks(plan, most, context, err);
    return cca_fail(
        err, CCA_NO_MEMORY,
        "%lld positions take %s (%llu bytes), %s %s (%llu bytes); the weights are %s "
        "of it, -c and -n bound the rest%s",
        (long long)plan->ctx_size, term_size(total, plan->total), (unsigned long long)plan->total,
        context->mem_limit ? "--mem-limit allows" : "the machine has", term_size(room, most),
        (unsigned long long)most, term_size(weights, plan->weights),
        context->mem_limit ? "" : "; --mem-limit SIZE takes another bound");
}

/* Bytes that a process may grow by between two looks at it. */
enum { SLACK = 2 << 20 };

int64_t cli_plan_largest(const cli_plan *of, const cca_engine *engine,
                         const context_options *context, int64_t least, int64_t most,
                         unsigned flags) {
    cli_plan plan;
    cca_error ignored;
    uint64_t limit = cli_plan_most(of, engine, context);
    uint64_t of_host = cca_memory_available("");
    limit -= limit < SLACK ? limit : SLACK;
    while (least < most) {
        int64_t middle = least + (most - least + 1) / 2;
        cca_status status =
            plan_beside(&plan, of->program, engine, context, middle, flags, &ignored);
        const uint64_t others = context->mem_limit > 0 ? 0 : plan.session.others;
        if (!status && plan.total <= limit && others <= limit - plan.total &&
            plan.session.host <= of_host) {
            least = middle;
        } else {
            most = middle - 1;
        }
    }
    return least;
}

int64_t cli_affordable(const cca_engine *engine, const context_options *context, int64_t least,
                       int64_t most, unsigned flags) {
    cli_plan plan;
    cca_error ignored;
    if (cli_plan_make(&plan, engine, context, cca_max(least, 1), flags, &ignored)) return least;
    return cli_plan_largest(&plan, engine, context, least, most, flags);
}

json_t *cli_plan_json(const cli_plan *plan) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "weights",
                     (json_int_t)plan->weights, "cores", (json_int_t)plan->session.cores, "bounds",
                     (json_int_t)plan->session.bounds, "rows", (json_int_t)plan->session.rows,
                     "window", (json_int_t)plan->session.window, "mark",
                     (json_int_t)plan->session.mark, "activations",
                     (json_int_t)plan->session.activations, "program", (json_int_t)plan->program,
                     "total", (json_int_t)plan->total, "disk", (json_int_t)plan->session.disk,
                     "host", (json_int_t)plan->session.host, "others",
                     (json_int_t)plan->session.others, "peak", (json_int_t)term_peak_memory());
}

static void print_table(output *out, const cli_plan *plan) {
    const struct {
        const char *name;
        uint64_t bytes;
    } rows[] = {
        {"weights", plan->weights},
        {"cores", plan->session.cores},
        {"bounds", plan->session.bounds},
        {"rows", plan->session.rows},
        {"window", plan->session.window},
        {"mark", plan->session.mark},
        {"activations", plan->session.activations},
        {"program", plan->program},
        {"total", plan->total},
        {"on disk", plan->session.disk},
        {"of the host", plan->session.host},
        {"other ranks", plan->session.others},
    };
    output_printf(out, "%-12s %16lld\n", "positions", (long long)plan->ctx_size);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char size[TERM_SIZE_TEXT];
        output_printf(out, "%-12s %16llu bytes %9s\n", rows[i].name,
                      (unsigned long long)rows[i].bytes, term_size(size, rows[i].bytes));
    }
}

static cca_status print_plan(const cli_plan *plan, const output_options *options, cca_error *err) {
    output out;
    cca_status status = output_open(&out, options->file, err);
    if (status) return status;
    if (options->json) {
        output_json(&out, json_pack("{s:s, s:I, s:o}", "schema", "cca.memory.1", "positions",
                                    (json_int_t)plan->ctx_size, "memory", cli_plan_json(plan)));
    } else {
        print_table(&out, plan);
    }
    return output_close(&out, true, err);
}

cca_status cli_session_open(cca_session **out, cli_plan *plan, cca_engine *engine,
                            const context_options *context, const output_options *target,
                            int64_t ctx_size, unsigned flags, cca_error *err) {
    *out = NULL;
    cca_status status = cli_plan_make(plan, engine, context, ctx_size, flags, err);
    if (!status && context->dry_run) status = print_plan(plan, target, err);
    if (!status) status = cli_plan_check(plan, engine, context, err);
    if (status || context->dry_run) return status;
    status = cli_session_new(out, engine, context, ctx_size, flags, err);
    if (status != CCA_NO_MEMORY) return status;
    if (plan->session.host > 0) {
        return cca_fail(err, status,
                        "no memory for %lld positions, %llu bytes of the device and %llu of the "
                        "host that stay in place; -c and -n bound them",
                        (long long)ctx_size, (unsigned long long)plan->session.total,
                        (unsigned long long)plan->session.host);
    }
    return cca_fail(err, status, "no memory for %lld positions, %llu bytes; -c and -n bound them",
                    (long long)ctx_size, (unsigned long long)plan->session.total);
}
