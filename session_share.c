/* Sessions whose prompts ranks share, or also what these leave: what rank 0 tells the others, and
 * what they do then; see session_ranks.h. */
#include "session_ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How a rank has fared. */
typedef struct outcome {
    int64_t status;
    cca_rank_count count;
    char text[sizeof((cca_error *)0)->text]; /* "": another rank has failed, if any */
} outcome;

/* ---- all ranks ----------------------------------------------------------------------- */

cca_status cca_ranks_settle(cca_comm *comm, cca_rank_count *counts, int64_t prefilled,
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
    int64_t own = 0;
    cca_status status = cca_comm_agree(comm, ready, err);
    if (!status) status = cca_model_forward_shared(state, comm, call, &own, err);
    return cca_ranks_settle(comm, counts, own, status, err);
}

/* The same of tokens that each rank runs for itself, over what it keeps of the state. */
static cca_status forward_all(cca_comm *comm, cca_state *state, const int32_t *ids, int64_t n,
                              int64_t pos, cca_status ready, cca_rank_count *counts,
                              cca_error *err) {
    cca_status status = cca_comm_agree(comm, ready, err);
    if (!status) status = cca_model_forward(state, ids, n, pos, err);
    return cca_ranks_settle(comm, counts, 0, status, err);
}

/* ---- rank 0 -------------------------------------------------------------------------- */

bool cca_session_shares(const cca_session *s, int64_t n, const cca_eval_options *o) {
    cca_slices slices;
    if (!s->comm || o->on_chunk || n < s->share_from) return false;
    return cca_state_slices(&slices, s->state, NULL, cca_comm_n_ranks(s->comm), s->pos, n);
}

void cca_order_sign(order *what, const cca_session *s) {
    what->bytes = sizeof *what;
    what->options = s->options;
    memcpy(what->weights, s->weights, sizeof what->weights);
    snprintf(what->device, sizeof what->device, "%s", s->engine->facts.device);
}

/* Tells the others what to do, and with which tokens. */
static cca_status tell_order(const cca_session *s, order *what, const int32_t *ids,
                             cca_error *err) {
    what->pos = s->pos;
    cca_order_sign(what, s);
    cca_status status = cca_comm_broadcast(s->comm, what, sizeof *what, err);
    if (status) return status;
    return cca_comm_broadcast(s->comm, (void *)ids, (size_t)what->n * sizeof *ids, err);
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
    *what = (order){.kind = ORDER_EVAL, .n = n, .together = together};
    cca_share_call call = {.ids = ids,
                           .n = n,
                           .pos = s->pos,
                           .together = together,
                           .watch = s->watch.on ? &s->watch.mass : NULL,
                           .on_layer = o->on_progress ? tell_progress : NULL,
                           .user = &told};
    cca_session_begin_call(s);
    cca_cache_draft(cca_state_cache(s->state), false);
    cca_status status = tell_order(s, what, ids, err);
    free(what);
    if (!status) status = follow(s->comm, s->state, &call, CCA_OK, s->ranks, err);
    s->torn = status;
    if (status) return status;
    s->watch.n += s->watch.on;
    s->pos += n;
    s->last_row = cca_state_rows(s->state) - 1;
    return CCA_OK;
}

cca_status cca_session_forward(cca_session *s, const int32_t *ids, int64_t n, cca_error *err) {
    if (!s->options.spread) return cca_model_forward(s->state, ids, n, s->pos, err);
    order *what = calloc(1, sizeof *what);
    if (!what) return cca_fail(err, CCA_NO_MEMORY, "no memory for other ranks' orders");
    *what = (order){.kind = ORDER_FORWARD, .n = n};
    cca_status status = tell_order(s, what, ids, err);
    free(what);
    if (status) return status;
    return forward_all(s->comm, s->state, ids, n, s->pos, CCA_OK, s->ranks, err);
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

/* Bytes of a state, and of what it takes to share. */
static cca_status state_bytes(uint64_t *out, const cca_config *config, const cca_state_options *o,
                              uint64_t beside, cca_error *err) {
    cca_state_size size;
    cca_status status = cca_state_measure(&size, config, o, err);
    if (status) return status;
    const cca_cache_size *c = &size.cache;
    const size_t parts[] = {c->cores,   c->bounds, c->rows,         c->window,
                            c->scratch, c->mark,   size.activations};
    *out = beside;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) *out += parts[i];
    return CCA_OK;
}

/* Memory of both ways to decode, and what a token takes where ranks keep their parts: an order, its
 * ids, an agreement, a gathering a layer and one in the end. */
static cca_status forecast_decode(cca_share_forecast *out, const cca_engine *engine,
                                  const cca_state_options *of, int n_ranks, int64_t n_tokens,
                                  cca_error *err) {
    const cca_config *c = cca_model_config(engine->model);
    cca_state_options o = *of;
    cca_status status = state_bytes(&out->gathered, c, &o, out->most_memory, err);
    o.one_layer = n_ranks > 1;
    o.mark = of->mark && n_ranks == 1;
    if (!status && n_ranks > 1) {
        status = state_bytes(&out->gathered_others, c, &o, out->most_memory, err);
    }
    o = *of;
    if (status || o.policy.recall > 0) return status;
    const cca_spread_size kept = cca_state_spread_measure(c, &o, n_ranks, n_tokens);
    const uint64_t part = (uint64_t)(c->n_heads * (c->head_dim + 2)) * sizeof(float);
    out->token_bytes = (uint64_t)(c->n_layers * (n_ranks - 1)) * part;
    out->token_waits = (c->n_layers + 5) * steps_of(n_ranks);
    o.spread = n_ranks > 1;
    status = state_bytes(&out->spread_first, c, &o, out->most_memory + kept.first, err);
    o.one_layer = n_ranks > 1;
    o.mark = false;
    if (status || n_ranks == 1) return status;
    return state_bytes(&out->spread_others, c, &o, out->most_memory + kept.others, err);
}

/* ---- memory -------------------------------------------------------------------------- */

int64_t cca_session_share_from(const cca_state_options *o, const cca_session_options *options) {
    if (options->share_from) return options->share_from;
    return 2 * cca_comm_n_ranks(options->comm) * o->chunk_size;
}

/* What rank 0 keeps of a prompt that fills the context, where each rank keeps its part. */
static void add_columns(cca_session_size *out, uint64_t bytes) {
    uint64_t *of = out->cores > 0 ? &out->cores : &out->window;
    if (!cca_add(of, *of, bytes)) *of = SIZE_MAX;
}

/* What a rank takes beside its state: to share a prompt, or for the stream of a text of its own.
 * *split: prompts that fill the context are shared. */
static cca_status share_bytes(size_t *out, bool *split, const cca_config *config,
                              const cca_state_options *o, const cca_session_options *options,
                              cca_error *err) {
    cca_state_share share;
    *out = 0;
    *split = o->ctx_size >= cca_session_share_from(o, options);
    cca_status status = cca_state_share_measure(&share, config, o, cca_comm_n_ranks(options->comm),
                                                o->ctx_size, err);
    if (!status) *out = share.most_bytes;
    if (status == CCA_NO_FIT) *split = false;
    if (!*split && options->n_texts > 0 &&
        !cca_matrix_bytes(out, CCA_F32, o->ctx_size, config->dim)) {
        return cca_fail(err, CCA_NO_MEMORY, "%lld tokens are larger than any memory",
                        (long long)o->ctx_size);
    }
    return status == CCA_NO_FIT ? CCA_OK : status;
}

/* Other ranks with rank 0's machine, of the first n. */
static int64_t n_beside(const cca_comm *comm, int64_t n) {
    int64_t found = 0;
    for (int r = 1; r < n; r++) {
        found += cca_comm_seat_of(comm, r).machine == cca_comm_seat_of(comm, 0).machine;
    }
    return found;
}

/* Others have a layer where they share what rank 0 keeps, or is kept together; a whole session
 * where they have texts of their own. */
cca_status cca_session_measure_ranks(cca_session_size *out, const cca_engine *engine,
                                     const cca_state_options *of,
                                     const cca_session_options *options, size_t beside,
                                     cca_error *err) {
    const cca_config *config = cca_model_config(engine->model);
    const int64_t n_ranks = cca_comm_n_ranks(options->comm);
    cca_state_options o = *of;
    cca_spread_size kept = {0};
    size_t shared;
    bool split;
    cca_status status = share_bytes(&shared, &split, config, of, options, err);
    if (status) return status;
    out->activations += shared;
    if (of->spread) kept = cca_state_spread_measure(config, of, (int)n_ranks, of->ctx_size);
    if (of->spread) add_columns(out, kept.first);
    if (strcmp(engine->facts.device, "cpu") != 0) return CCA_OK; /* each has one of its own */
    o.mark = false;
    o.one_layer = split || of->spread;
    if (o.one_layer) out->n_ranks = n_ranks;
    if (!o.one_layer) out->n_ranks = cca_max(cca_min(options->n_texts, n_ranks), 1);
    if (out->n_ranks == 1) return CCA_OK;
    status = state_bytes(&out->other, config, &o, shared + kept.others + beside, err);
    const uint64_t n = (uint64_t)n_beside(options->comm, out->n_ranks);
    if (!status && __builtin_mul_overflow(out->other, n, &out->others)) out->others = UINT64_MAX;
    return status;
}

cca_status cca_session_check_ranks(const cca_session_size *size, const cca_comm *comm,
                                   uint64_t weights, cca_error *err) {
    const cca_comm_seat first = cca_comm_seat_of(comm, 0);
    for (int r = 1; r < size->n_ranks; r++) {
        const cca_comm_seat seat = cca_comm_seat_of(comm, r);
        uint64_t n = 0, all;
        for (int i = 1; i < size->n_ranks; i++) {
            n += cca_comm_seat_of(comm, i).machine == seat.machine;
        }
        bool fits = !__builtin_mul_overflow(size->other, n, &all) &&
                    !__builtin_add_overflow(all, weights, &all) && all <= seat.available;
        if (fits || seat.machine == first.machine) continue;
        return cca_fail(err, CCA_NO_MEMORY,
                        "rank %d: its machine has %llu bytes; each of its %llu ranks takes %llu, "
                        "beside %llu of weights",
                        r, (unsigned long long)seat.available, (unsigned long long)n,
                        (unsigned long long)size->other, (unsigned long long)weights);
    }
    return CCA_OK;
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
    const int64_t messages = n_ranks > 2 ? CCA_SENDINGS : CCA_WAVES;
    if (n_ranks > 1) out->n_waits = engine->facts.n_layers * (messages + 2 * steps_of(n_ranks));
    return forecast_decode(out, engine, &o, n_ranks, n_tokens, err);
}

/* ---- the other ranks ----------------------------------------------------------------- */

cca_status cca_servant_state(servant *v, servant_model *of, bool part,
                             const cca_state_options *wanted, cca_error *err) {
    servant_state *out = part ? &of->part : &of->whole;
    cca_backend_options backend = of->engine->how;
    cca_state_options o = *wanted;
    const char *bytes = (const char *)wanted;
    backend.stop = v->stop;
    o.one_layer = part;
    o.mark = false;
    if (out->state && memcmp(out->made_for, bytes, sizeof out->made_for) == 0) return CCA_OK;
    cca_state_free(out->state);
    out->state = NULL;
    cca_status status = CCA_OK;
    if (!of->backend) status = cca_backend_open(&of->backend, of->engine->device, &backend, err);
    if (!status) status = cca_state_new(&out->state, of->engine->model, of->backend, &o, err);
    if (!status && o.spread) status = cca_state_spread(out->state, v->comm, err);
    if (out == &v->own.part) v->reached = 0;
    if (status) {
        cca_state_free(out->state);
        out->state = NULL;
    }
    memcpy(out->made_for, bytes, sizeof out->made_for);
    return status;
}

cca_status cca_servant_check(const servant *v, cca_error *err) {
    const cca_engine *engine = v->own.engine;
    if (strcmp(engine->facts.device, v->order.device) != 0) {
        return cca_fail(err, CCA_USAGE, "computes on %s, rank 0 on %s: name the device",
                        engine->facts.device, v->order.device);
    }
    if (strcmp(v->own.weights, v->order.weights) == 0) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL, "%s: this model is not that of rank 0", engine->path);
}

static cca_status hear_ids(servant *v, cca_error *err) {
    size_t bytes = (size_t)v->order.n * sizeof *v->ids;
    int32_t *ids = realloc(v->ids, bytes);
    if (!ids) return cca_fail(err, CCA_NO_MEMORY, "no memory for %lld ids", (long long)v->order.n);
    v->ids = ids;
    return cca_comm_broadcast(v->comm, ids, bytes, err);
}

/* A state for what an order says; what ranks keep together begins with the first tokens. */
static cca_status make_part(servant *v, cca_error *err) {
    cca_status status = cca_servant_check(v, err);
    if (!status) status = cca_servant_state(v, &v->own, true, &v->order.options, err);
    if (status || !v->order.options.spread || v->order.pos <= v->reached) return status;
    return cca_fail(err, CCA_RUNTIME, "knows %lld of %lld tokens: another session was between them",
                    (long long)v->reached, (long long)v->order.pos);
}

static cca_status serve_forward(servant *v, cca_error *err) {
    const order *what = &v->order;
    cca_error why = {.text = ""};
    cca_status status = hear_ids(v, err);
    if (status) return status;
    status = make_part(v, &why);
    status =
        forward_all(v->comm, v->own.part.state, v->ids, what->n, what->pos, status, NULL, &why);
    v->reached = what->pos + (status ? 0 : what->n);
    *err = why;
    return cca_comm_sound(v->comm) ? CCA_OK : status;
}

static cca_status serve_eval(servant *v, cca_error *err) {
    const order *what = &v->order;
    cca_error why = {.text = ""};
    cca_status status = hear_ids(v, err);
    if (status) return status;
    status = make_part(v, &why);
    cca_share_call call = {
        .ids = v->ids, .n = what->n, .pos = what->pos, .together = what->together};
    status = follow(v->comm, v->own.part.state, &call, status, NULL, &why);
    v->reached = what->pos + (status ? 0 : what->n);
    *err = why;
    return cca_comm_sound(v->comm) ? CCA_OK : status;
}

static cca_status hear(servant *v, cca_error *err) {
    cca_status status = cca_comm_listen(v->comm, &v->order, sizeof v->order, err);
    if (status || v->order.bytes == sizeof v->order) return status;
    return cca_fail(err, CCA_RUNTIME, "the program of rank 0 is another one");
}

static void drop_model(servant_model *m) {
    cca_state_free(m->part.state);
    cca_state_free(m->whole.state);
    if (m->engine) cca_engine_close_backend(m->engine, m->backend);
}

cca_status cca_engine_serve(cca_engine *engine, cca_comm *comm, const volatile sig_atomic_t *stop,
                            cca_error *err) {
    servant v = {.comm = comm, .stop = stop, .own.engine = engine};
    cca_gguf_look(v.own.weights, engine->file);
    cca_status status = hear(&v, err);
    while (!status && v.order.kind != ORDER_END) {
        status = v.order.kind == ORDER_EVAL      ? serve_eval(&v, err)
                 : v.order.kind == ORDER_FORWARD ? serve_forward(&v, err)
                                                 : cca_servant_score(&v, err);
        if (!status) status = hear(&v, err);
    }
    drop_model(&v.own);
    drop_model(&v.base);
    if (v.base.engine != engine) cca_engine_close(v.base.engine);
    free(v.ids);
    return status;
}
