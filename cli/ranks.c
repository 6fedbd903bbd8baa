#include "cli/ranks.h"

#include "cli/signals.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

const arg_option ranks_args[] = {
    {"ranks", .kind = ARG_CHOICE, .value = "HOW", .at = offsetof(ranks_options, kind),
     .initial = "auto", .choices = "auto|mpi|nccl|none",
     .help =
         "processes that share the prefill of long prompts: those that mpirun has started "
         "(mpi), whose GPUs send to each other (nccl); auto: mpi where it has; none: each is by "
         "itself"},
    {0},
};

const arg_option decode_args[] = {
    {"decode", .kind = ARG_CHOICE, .value = "HOW", .at = offsetof(ranks_options, decode),
     .initial = "auto", .choices = "auto|gather|share",
     .help =
         "who keeps what a prompt leaves and attends to it in answers: rank 0 (gather), or each "
         "rank its part (share); auto: rank 0 where it has room"},
    {0},
};

/* Open MPI's mpirun says how many it has started; other starters have to be named. */
static bool started_by_mpirun(void) {
    const char *n = getenv("OMPI_COMM_WORLD_SIZE");
    return n && atoi(n) > 1;
}

/* Of a machine's ranks each has the GPU of its number, where the device is just cuda, or auto. */
static const char *device_of(char *room, size_t size, const model_options *model,
                             const cca_comm *comm) {
    const char *device = model->device;
    bool is_auto = strcmp(device, "auto") == 0 && !model->kernels;
    if (!is_auto && strcmp(device, "cuda") != 0) return device;
    snprintf(room, size, "%s:%d", device, cca_comm_local_rank(comm));
    return room;
}

/* Another rank than the first: a failure that rank 0 cannot hear of ends all. */
static cca_status serve(cli_ranks *ranks, const model_options *model, term *t, cca_error *err) {
    cca_engine *engine = NULL;
    char device[32];
    model_options own = *model;
    ranks->served = true;
    own.device = device_of(device, sizeof device, model, ranks->comm);
    cca_status status = cli_engine_open(&engine, &own, t, err);
    if (!status) status = cca_engine_serve(engine, ranks->comm, signals_stop(), err);
    cca_engine_close(engine);
    if (status) cca_comm_give_up(ranks->comm, status);
    return status;
}

cca_status cli_ranks_open(cli_ranks *out, const ranks_options *options, const model_options *model,
                          term *t, cca_error *err) {
    *out = (cli_ranks){0};
    bool is_auto = strcmp(options->kind, "auto") == 0;
    if (strcmp(options->kind, "none") == 0 || (is_auto && !started_by_mpirun())) return CCA_OK;
    cca_comm_options o = {.kind = is_auto ? "mpi" : options->kind, .stop = signals_stop()};
    cca_status status = cca_comm_open(&out->comm, &o, err);
    if (status) return status;
    if (cca_comm_rank(out->comm) > 0) return serve(out, model, t, err);
    term_detail(t, "%d ranks share long prompts", cca_comm_n_ranks(out->comm));
    return CCA_OK;
}

void cli_ranks_close(cli_ranks *ranks, const char *command, cca_status status,
                     const cca_error *err) {
    cca_error lost = {.text = ""};
    cca_comm *comm = ranks->comm;
    if (!comm) return;
    if (!ranks->served && cca_comm_sound(comm)) (void)cca_engine_dismiss(comm, &lost);
    if (!cca_comm_sound(comm)) { /* closing does not return */
        const char *text = status ? err->text : lost.text;
        bool stopped = *signals_stop() != 0;
        if (ranks->served && !stopped) {
            fprintf(stderr, "cca %s: rank %d: %s\n", command, cca_comm_rank(comm), text);
        } else if (!ranks->served) {
            fprintf(stderr, "cca %s: %s\n", command, text);
        }
        fflush(NULL);
    }
    cca_comm_close(comm);
    ranks->comm = NULL;
}

/* Why a run's cache cannot be spread; NULL: it can. */
static const char *reason_against(const context_options *context, const cca_engine *engine) {
    if (strcmp(cca_engine_info(engine)->device, "cpu") != 0) return "is for ranks on CPUs";
    if (cli_attention(context, engine).recall > 0) return "is for attention that recalls nothing";
    return NULL;
}

/* Whether there is memory for a run with its cache on rank 0, or spread. */
static bool fits(const context_options *context, bool spread, const cca_engine *engine,
                 int64_t ctx_size, unsigned flags) {
    context_options c = *context;
    cli_plan plan;
    cca_error ignored;
    c.spread = spread;
    return !cli_plan_make(&plan, engine, &c, ctx_size, flags, &ignored) &&
           cli_plan_fits(&plan, engine, &c);
}

cca_status cli_ranks_decode(context_options *context, const ranks_options *options,
                            const cca_engine *engine, int64_t ctx_size, unsigned flags, term *t,
                            cca_error *err) {
    const int n_ranks = context->comm ? cca_comm_n_ranks(context->comm) : 1;
    const char *against = reason_against(context, engine), *how = options->decode;
    context->spread = false;
    if (n_ranks == 1 || strcmp(how, "gather") == 0) return CCA_OK;
    if (strcmp(how, "share") == 0) {
        if (against) return cca_fail(err, CCA_USAGE, "--decode share %s", against);
        context->spread = true;
    } else if (!against) {
        context->spread = !fits(context, false, engine, ctx_size, flags) &&
                          fits(context, true, engine, ctx_size, flags);
    }
    if (context->spread) term_detail(t, "%d ranks keep what prompts leave together", n_ranks);
    return CCA_OK;
}

json_t *cli_ranks_json(const cca_session *session) {
    json_t *list = json_array();
    int n = 0;
    const cca_rank_count *counts = session ? cca_session_ranks(session, &n) : NULL;
    for (int i = 0; i < n; i++) {
        json_array_append_new(list, json_pack("{s:i, s:I, s:I, s:o, s:s}", "rank", i, "prefilled",
                                              (json_int_t)counts[i].prefilled, "sent_bytes",
                                              (json_int_t)counts[i].sent_bytes, "waited_s",
                                              output_real(true, counts[i].waited_s), "decode",
                                              cca_session_is_spread(session) ? "share" : "gather"));
    }
    return list;
}

void cli_ranks_tell(const cca_session *session, term *t) {
    int n;
    char sent[TERM_SIZE_TEXT];
    const cca_rank_count *counts = cca_session_ranks(session, &n);
    uint64_t bytes = 0;
    int64_t prefilled = 0;
    double longest = 0;
    for (int i = 0; i < n; i++) {
        bytes += counts[i].sent_bytes;
        prefilled += counts[i].prefilled;
        if (counts[i].waited_s > longest) longest = counts[i].waited_s;
    }
    if (n < 2 || prefilled == 0) return;
    term_note(t, "%d ranks shared %lld tokens%s; sent %s, waited at most %.3g s", n,
              (long long)prefilled, cca_session_is_spread(session) ? " and decode" : "",
              term_size(sent, bytes), longest);
}
