/* Sessions whose prompts ranks share: what rank 0 tells the others, and what they do then.
 *
 * Rank 0 broadcasts an order, and the ids of the tokens. All say whether they can follow it, run
 * the one forward pass, and tell each other how it went. */
#include "engine_parts.h"

#include "model_share.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum order_kind { ORDER_EVAL = 1, ORDER_END } order_kind;

typedef struct order {
    uint64_t bytes; /* of this struct: programs of another kind are told apart by it */
    order_kind kind;
    char weights[CCA_GGUF_FINGERPRINT + 1]; /* of rank 0's model */
    cca_state_options options;              /* of its session */
    int64_t n, pos, together;
    bool scores; /* tokens from nats_from on */
    int64_t nats_from;
} order;

/* How a rank has fared. */
typedef struct outcome {
    int64_t status;
    cca_rank_count count;
    char text[sizeof((cca_error *)0)->text]; /* "": another rank has failed, if any */
} outcome;

/* ---- all ranks ----------------------------------------------------------------------- */

/* One rank's failure is all ranks'; err has its message, if it is another's. */
static cca_status settle(cca_comm *comm, cca_rank_count *counts, int64_t prefilled,
                         cca_status status, cca_error *err) {
    int n = cca_comm_n_ranks(comm), own = cca_comm_rank(comm);
    cca_comm_count count = cca_comm_counted(comm);
    outcome *all = calloc((size_t)n, sizeof *all);
    size_t *bytes = calloc((size_t)n, sizeof *bytes);
    cca_error lost = {.text = "no memory for what they say"};
    cca_status settled = all && bytes ? CCA_OK : CCA_NO_MEMORY;
    if (all && bytes) {
        all[own].status = (int64_t)status;
        all[own].count = (cca_rank_count){prefilled, count.sent_bytes, count.waited_s};
        if (status) snprintf(all[own].text, sizeof all->text, "%s", err->text);
        for (int i = 0; i < n; i++) bytes[i] = sizeof *all;
        settled = cca_comm_gather(comm, all, bytes, &lost);
    }
    for (int i = 0; i < n && !settled; i++) {
        if (counts) counts[i].prefilled += all[i].count.prefilled;
        if (counts) counts[i].sent_bytes = all[i].count.sent_bytes;
        if (counts) counts[i].waited_s = all[i].count.waited_s;
        if (all[i].status == 0 || all[i].text[0] == '\0' || (status && err->text[0])) continue;
        status = cca_fail(err, (cca_status)all[i].status, "rank %d: %s", i, all[i].text);
    }
    if (settled) cca_comm_give_up(comm, settled);
    if (settled && !status) status = cca_fail(err, settled, "ranks: %s", lost.text);
    free(all);
    free(bytes);
    return status;
}

/* The part of an order that all ranks have in common. */
static cca_status follow(cca_comm *comm, cca_state *state, const cca_share_call *call,
                         cca_status ready, cca_rank_count *counts, cca_error *err) {
    int64_t worst = ready, own = 0;
    cca_error lost;
    cca_status status = cca_comm_largest(comm, &worst, 1, ready ? &lost : err);
    if (!status && worst == 0) status = cca_model_forward_shared(state, comm, call, &own, err);
    if (!status && worst != 0) {
        status = ready ? ready : cca_fail(err, (cca_status)worst, "%s", "");
    }
    return settle(comm, counts, own, status, err);
}

/* ---- rank 0 -------------------------------------------------------------------------- */

bool cca_session_shares(const cca_session *s, int64_t n, const cca_eval_options *o) {
    if (!s->comm || o->on_chunk || n < s->share_from) return false;
    return cca_state_shares(s->state, cca_comm_n_ranks(s->comm), s->pos, n);
}

/* Who is told how far an evaluation is. */
typedef struct progress {
    cca_session *session;
    const cca_eval_options *options;
    int64_t n;
} progress;

static cca_status tell_progress(void *user, int64_t n_done, cca_error *err) {
    const progress *p = user;
    (void)err;
    int64_t n_layers = p->session->engine->facts.n_layers;
    p->options->on_progress(p->options->user, p->session,
                            p->session->pos + p->n * n_done / n_layers);
    return CCA_OK;
}

cca_status cca_session_eval_shared(cca_session *s, const int32_t *ids, int64_t n, int64_t together,
                                   const cca_eval_options *o, cca_error *err) {
    progress told = {s, o, n};
    order *what = calloc(1, sizeof *what);
    if (!what) return cca_fail(err, CCA_NO_MEMORY, "no memory for other ranks' orders");
    *what = (order){.bytes = sizeof *what,
                    .kind = ORDER_EVAL,
                    .options = s->options,
                    .n = n,
                    .pos = s->pos,
                    .together = together,
                    .scores = o->nats != NULL,
                    .nats_from = o->nats_from};
    cca_gguf_look(what->weights, s->engine->file);
    cca_share_call call = {.ids = ids,
                           .n = n,
                           .pos = s->pos,
                           .together = together,
                           .nats = o->nats,
                           .nats_from = o->nats_from,
                           .watch = s->watch.on ? &s->watch.mass : NULL,
                           .on_layer = o->on_progress ? tell_progress : NULL,
                           .user = &told};
    cca_session_begin_call(s);
    cca_cache_draft(cca_state_cache(s->state), false);
    cca_status status = cca_comm_broadcast(s->comm, what, sizeof *what, err);
    free(what);
    if (!status) {
        status = cca_comm_broadcast(s->comm, (void *)ids, (size_t)n * sizeof *ids, err);
    }
    if (!status) status = follow(s->comm, s->state, &call, CCA_OK, s->ranks, err);
    s->torn = status;
    if (status) return status;
    s->watch.n += s->watch.on;
    s->pos += n;
    s->last_row = cca_state_rows(s->state) - 1;
    return CCA_OK;
}

cca_status cca_engine_dismiss(cca_comm *comm, cca_error *err) {
    order *what = calloc(1, sizeof *what);
    if (!what) return cca_fail(err, CCA_NO_MEMORY, "no memory for other ranks' orders");
    what->bytes = sizeof *what;
    what->kind = ORDER_END;
    cca_status status = cca_comm_broadcast(comm, what, sizeof *what, err);
    free(what);
    return status;
}

const cca_rank_count *cca_session_ranks(const cca_session *session, int *n) {
    *n = session->comm ? cca_comm_n_ranks(session->comm) : 0;
    return session->ranks;
}

/* ---- forecasts ----------------------------------------------------------------------- */

/* Ranks agree by halves: so many steps. */
static int64_t steps_of(int n_ranks) {
    int64_t steps = 0;
    while ((int64_t)1 << steps < n_ranks) steps++;
    return steps;
}

cca_status cca_session_share_forecast(cca_share_forecast *out, const cca_engine *engine,
                                      const cca_session_options *options, int n_ranks,
                                      int64_t n_tokens, cca_error *err) {
    cca_state_options o;
    cca_state_share share;
    cca_status status = cca_session_resolve(&o, engine, options, err);
    if (!status) {
        status = cca_state_share_measure(&share, cca_model_config(engine->model), &o, n_ranks,
                                         n_tokens, err);
    }
    if (status) return status;
    const cca_share_size *layer = &share.layer;
    const uint64_t n_layers = (uint64_t)engine->facts.n_layers;
    uint64_t most = layer->most_sent_bytes > layer->most_received_bytes
                        ? layer->most_sent_bytes
                        : layer->most_received_bytes;
    *out = (cca_share_forecast){.most_tokens = layer->most_tokens,
                                .most_memory = share.most_bytes,
                                .sent_bytes = layer->sent_bytes * n_layers,
                                .most_bytes = most * n_layers,
                                .ring_bytes = layer->ring_bytes * n_layers};
    if (n_ranks > 1) out->n_waits = engine->facts.n_layers * (CCA_WAVES + 2 * steps_of(n_ranks));
    return CCA_OK;
}

/* ---- the other ranks ----------------------------------------------------------------- */

/* What a rank keeps from one order to the next. */
typedef struct servant {
    cca_engine *engine;
    cca_comm *comm;
    const volatile sig_atomic_t *stop;
    cca_backend *backend;
    cca_state *state;                         /* NULL: none yet */
    char made_for[sizeof(cca_state_options)]; /* the bytes of an order's options */
    order order;
    int32_t *ids;
    double *nats; /* of one evaluation; NULL: none are wanted */
} servant;

/* A state like rank 0's, which keeps nothing. */
static cca_status make_state(servant *v, cca_error *err) {
    cca_backend_options backend = v->engine->how;
    cca_state_options o = v->order.options;
    const char *wanted = (const char *)&v->order.options;
    backend.stop = v->stop;
    o.one_layer = true;
    o.mark = false;
    if (v->state && memcmp(v->made_for, wanted, sizeof v->made_for) == 0) return CCA_OK;
    cca_state_free(v->state);
    v->state = NULL;
    cca_status status = CCA_OK;
    if (!v->backend) status = cca_backend_open(&v->backend, v->engine->device, &backend, err);
    if (!status) status = cca_state_new(&v->state, v->engine->model, v->backend, &o, err);
    memcpy(v->made_for, wanted, sizeof v->made_for);
    return status;
}

static cca_status check_model(const servant *v, cca_error *err) {
    char own[CCA_GGUF_FINGERPRINT + 1];
    cca_gguf_look(own, v->engine->file);
    if (strcmp(own, v->order.weights) == 0) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL, "%s: this model is not that of rank 0", v->engine->path);
}

static cca_status make_nats(servant *v, cca_error *err) {
    v->nats = calloc((size_t)v->order.n, sizeof *v->nats);
    return v->nats ? CCA_OK : cca_fail(err, CCA_NO_MEMORY, "no memory for what tokens cost");
}

static cca_status serve_eval(servant *v, cca_error *err) {
    const order *what = &v->order;
    size_t bytes = (size_t)what->n * sizeof *v->ids;
    int32_t *ids = realloc(v->ids, bytes);
    if (!ids) return cca_fail(err, CCA_NO_MEMORY, "no memory for %lld ids", (long long)what->n);
    v->ids = ids;
    cca_status status = cca_comm_broadcast(v->comm, ids, bytes, err);
    if (status) return status;
    cca_error why = {.text = ""};
    status = check_model(v, &why);
    if (!status) status = make_state(v, &why);
    if (!status && what->scores) status = make_nats(v, &why);
    cca_share_call call = {.ids = ids,
                           .n = what->n,
                           .pos = what->pos,
                           .together = what->together,
                           .nats = v->nats,
                           .nats_from = what->nats_from};
    status = follow(v->comm, v->state, &call, status, NULL, &why);
    free(v->nats);
    v->nats = NULL;
    *err = why;
    return cca_comm_sound(v->comm) ? CCA_OK : status;
}

static cca_status hear(servant *v, cca_error *err) {
    cca_status status = cca_comm_listen(v->comm, &v->order, sizeof v->order, err);
    if (status || v->order.bytes == sizeof v->order) return status;
    return cca_fail(err, CCA_RUNTIME, "the program of rank 0 is another one");
}

cca_status cca_engine_serve(cca_engine *engine, cca_comm *comm, const volatile sig_atomic_t *stop,
                            cca_error *err) {
    servant v = {.engine = engine, .comm = comm, .stop = stop};
    cca_status status = hear(&v, err);
    while (!status && v.order.kind == ORDER_EVAL) {
        status = serve_eval(&v, err);
        if (!status) status = hear(&v, err);
    }
    cca_state_free(v.state);
    cca_engine_close_backend(engine, v.backend);
    free(v.ids);
    return status;
}
