/* Sessions whose prompts ranks share, or also what these leave: what rank 0 tells the others, and
 * what they do then.
 *
 * Rank 0 broadcasts an order, and the ids of the tokens. All say whether they can follow it, run
 * the one forward pass, of a prompt that they share or each of a text of its own, and tell each
 * other how it went. */
#include "engine_parts.h"

#include "model_share.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum order_kind { ORDER_EVAL = 1, ORDER_FORWARD, ORDER_SCORE, ORDER_END } order_kind;

typedef struct order {
    uint64_t bytes; /* of this struct: programs of another kind are told apart by it */
    order_kind kind;
    char weights[CCA_GGUF_FINGERPRINT + 1]; /* of rank 0's model */
    char device[16];                        /* the kind that it computes on */
    cca_state_options options;              /* of its session */
    int64_t n, pos, together;
    bool scores; /* tokens from nats_from on */
    int64_t nats_from;
    int64_t n_texts; /* of ORDER_SCORE, n tokens in all: one of each of the first ranks */
} order;

/* Of a text that a rank has for itself. */
typedef struct text_size {
    int64_t n, nats_from;
} text_size;

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
    int64_t own = 0;
    cca_status status = cca_comm_agree(comm, ready, err);
    if (!status) status = cca_model_forward_shared(state, comm, call, &own, err);
    return settle(comm, counts, own, status, err);
}

/* The same of tokens that each rank runs for itself, over what it keeps of the state. */
static cca_status forward_all(cca_comm *comm, cca_state *state, const int32_t *ids, int64_t n,
                              int64_t pos, cca_status ready, cca_rank_count *counts,
                              cca_error *err) {
    cca_status status = cca_comm_agree(comm, ready, err);
    if (!status) status = cca_model_forward(state, ids, n, pos, err);
    return settle(comm, counts, 0, status, err);
}

/* ---- texts that ranks have for themselves -------------------------------------------- */

/* What the tokens of a text cost, in a state that has nothing before it. */
static cca_status score_alone(cca_state *state, const cca_state_options *o, int64_t vocab,
                              const cca_scored_text *t, cca_error *err) {
    cca_cache *cache = cca_state_cache(state);
    float *room = malloc(CCA_LOGIT_ROWS * (size_t)vocab * sizeof *room);
    cca_status status = CCA_OK;
    if (!room) return cca_fail(err, CCA_NO_MEMORY, "no memory for logits");
    cca_cache_draft(cache, false);
    cca_cache_choose_alone(cache, false);
    cca_cache_watch(cache, NULL, 1);
    for (int64_t at = 0, some; at < t->n && !status; at += some) {
        some = cca_min(t->n - at, o->chunk_size);
        status = cca_model_forward(state, t->ids + at, some, at, err);
        int64_t first = cca_max(at, t->nats_from), n = cca_min(at + some, t->n - 1) - first;
        if (status || n <= 0) continue;
        status =
            cca_model_nats(state, first - at, n, t->ids + first + 1, t->nats + first, room, err);
    }
    free(room);
    return status;
}

/* A round: the texts of the first ranks, one behind the other, and what they cost. */
typedef struct score_round {
    cca_comm *comm;
    const cca_state_options *options;
    int64_t vocab;
    int64_t n_texts, n; /* n: tokens of all */
    text_size *sizes;   /* [n_texts] */
    int32_t *ids;       /* [n] */
    double *nats;       /* [n] */
    size_t *bytes;      /* [ranks] of nats */
} score_round;

/* Makes room for it; free_round is due in any case. */
static cca_status make_round(score_round *r, cca_error *err) {
    r->sizes = calloc((size_t)r->n_texts + 1, sizeof *r->sizes);
    r->ids = calloc((size_t)r->n + 1, sizeof *r->ids);
    r->nats = calloc((size_t)r->n + 1, sizeof *r->nats);
    r->bytes = calloc((size_t)cca_comm_n_ranks(r->comm), sizeof *r->bytes);
    if (r->sizes && r->ids && r->nats && r->bytes) return CCA_OK;
    return cca_fail(err, CCA_NO_MEMORY, "no memory for texts of %lld tokens", (long long)r->n);
}

static void free_round(score_round *r) {
    free(r->sizes);
    free(r->ids);
    free(r->nats);
    free(r->bytes);
}

/* Sizes and ids become everybody's. */
static cca_status spread_round(score_round *r, cca_error *err) {
    size_t sizes = (size_t)r->n_texts * sizeof *r->sizes, ids = (size_t)r->n * sizeof *r->ids;
    cca_status status = cca_comm_broadcast(r->comm, r->sizes, sizes, err);
    if (!status) status = cca_comm_broadcast(r->comm, r->ids, ids, err);
    for (int64_t i = 0; i < r->n_texts; i++) r->bytes[i] = (size_t)r->sizes[i].n * sizeof *r->nats;
    return status;
}

/* This rank's text; false where it has none. */
static bool own_text(cca_scored_text *out, const score_round *r) {
    int64_t rank = cca_comm_rank(r->comm), at = 0;
    if (rank >= r->n_texts) return false;
    for (int64_t i = 0; i < rank; i++) at += r->sizes[i].n;
    *out = (cca_scored_text){r->ids + at, r->sizes[rank].n, r->nats + at, r->sizes[rank].nats_from};
    return true;
}

/* The part of such an order that all ranks have in common; ready: how this one is. */
static cca_status follow_round(score_round *r, cca_state *state, cca_status ready,
                               cca_rank_count *counts, cca_error *err) {
    cca_scored_text own = {0};
    const bool works = own_text(&own, r);
    cca_status status = cca_comm_agree(r->comm, ready, err);
    if (!status) {
        if (works) status = score_alone(state, r->options, r->vocab, &own, err);
        status = cca_comm_agree(r->comm, status, err);
    }
    if (!status) status = cca_comm_gather(r->comm, r->nats, r->bytes, err);
    return settle(r->comm, counts, works && !status ? own.n : 0, status, err);
}

/* ---- rank 0 -------------------------------------------------------------------------- */

bool cca_session_shares(const cca_session *s, int64_t n, const cca_eval_options *o) {
    if (!s->comm || o->on_chunk || n < s->share_from) return false;
    return cca_state_shares(s->state, cca_comm_n_ranks(s->comm), s->pos, n);
}

/* What others must have in common with rank 0. */
static void tell_model(order *what, const cca_session *s) {
    memcpy(what->weights, s->weights, sizeof what->weights);
    snprintf(what->device, sizeof what->device, "%s", s->engine->facts.device);
}

/* Tells the others what to do, and with which tokens. */
static cca_status tell_order(const cca_session *s, order *what, const int32_t *ids,
                             cca_error *err) {
    what->bytes = sizeof *what;
    what->options = s->options;
    what->pos = s->pos;
    tell_model(what, s);
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
    *what = (order){.kind = ORDER_EVAL,
                    .n = n,
                    .together = together,
                    .scores = o->nats != NULL,
                    .nats_from = o->nats_from};
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

/* ---- texts, on rank 0 ---------------------------------------------------------------- */

/* Tells the others of a round. */
static cca_status order_round(const cca_session *s, score_round *r, cca_error *err) {
    order *what = calloc(1, sizeof *what);
    if (!what) return cca_fail(err, CCA_NO_MEMORY, "no memory for other ranks' orders");
    *what = (order){.bytes = sizeof *what,
                    .kind = ORDER_SCORE,
                    .options = s->options,
                    .n = r->n,
                    .n_texts = r->n_texts};
    tell_model(what, s);
    cca_status status = cca_comm_broadcast(s->comm, what, sizeof *what, err);
    free(what);
    return status ? status : spread_round(r, err);
}

/* Each of the first ranks has one of n texts. */
static cca_status score_dealt(cca_session *s, const cca_scored_text *const *texts, int64_t n,
                              cca_error *err) {
    score_round r = {.comm = s->comm,
                     .options = &s->options,
                     .vocab = s->engine->facts.vocab_size,
                     .n_texts = n};
    for (int64_t i = 0; i < n; i++) r.n += texts[i]->n;
    cca_status status = make_round(&r, err);
    for (int64_t i = 0, at = 0; i < n && !status; at += texts[i++]->n) {
        r.sizes[i] = (text_size){texts[i]->n, texts[i]->nats_from};
        memcpy(r.ids + at, texts[i]->ids, (size_t)texts[i]->n * sizeof *r.ids);
    }
    cca_session_reset(s);
    if (!status) status = order_round(s, &r, err);
    if (!status) status = follow_round(&r, s->state, CCA_OK, s->ranks, err);
    for (int64_t i = 0, at = 0; i < n && !status; at += texts[i++]->n) {
        const int64_t from = texts[i]->nats_from, some = cca_max(texts[i]->n - 1 - from, 0);
        memcpy(texts[i]->nats + from, r.nats + at + from, (size_t)some * sizeof *r.nats);
    }
    free_round(&r);
    return status;
}

/* Who is told how far texts are. */
typedef struct score_progress {
    void (*tell)(void *user, cca_session *session, int64_t n_done);
    void *user;
    int64_t before; /* positions of the texts that are done */
} score_progress;

static void tell_score(void *user, cca_session *session, int64_t pos) {
    const score_progress *p = user;
    if (p->tell) p->tell(p->user, session, p->before + pos);
}

/* All that is not dealt. */
static cca_status score_split(cca_session *s, const cca_scored_text *t, score_progress *told,
                              cca_error *err) {
    cca_eval_options o = {
        .nats = t->nats, .nats_from = t->nats_from, .on_progress = tell_score, .user = told};
    cca_session_reset(s);
    cca_status status = cca_session_eval(s, t->ids, t->n, &o, err);
    told->before += t->n;
    return status;
}

static cca_status score_rounds(cca_session *s, const cca_scored_text *const *texts, int64_t n,
                               score_progress *told, cca_error *err) {
    cca_status status = CCA_OK;
    for (int64_t i = 0, some; i < n && !status; i += some) {
        some = cca_min(n - i, cca_comm_n_ranks(s->comm));
        status = score_dealt(s, texts + i, some, err);
        for (int64_t k = 0; k < some; k++) told->before += texts[i + k]->n;
        if (!status) tell_score(told, s, 0);
    }
    return status;
}

cca_status cca_session_score(cca_session *s, const cca_scored_text *texts, int64_t n_texts,
                             void (*on_progress)(void *user, cca_session *session, int64_t n_done),
                             void *user, cca_error *err) {
    score_progress told = {on_progress, user, 0};
    const cca_eval_options plain = {0};
    cca_status status = CCA_OK;
    int64_t n_dealt = 0;
    const cca_scored_text **dealt = calloc((size_t)n_texts + 1, sizeof *dealt);
    if (!dealt) return cca_fail(err, CCA_NO_MEMORY, "no memory for texts");
    cca_session_reset(s);
    for (int64_t i = 0; i < n_texts && !status; i++) {
        status = cca_session_check_input(s, texts[i].ids, texts[i].n, err);
    }
    for (int64_t i = 0; i < n_texts && !status; i++) {
        const bool whole = s->comm && !s->options.spread;
        if (whole && !cca_session_shares(s, texts[i].n, &plain)) {
            dealt[n_dealt++] = &texts[i];
        } else {
            status = score_split(s, &texts[i], &told, err);
        }
        cca_session_reset(s);
    }
    if (!status) status = score_rounds(s, dealt, n_dealt, &told, err);
    cca_session_reset(s);
    free(dealt);
    return status;
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
    return forecast_decode(out, engine, &o, n_ranks, n_tokens, err);
}

/* ---- the other ranks ----------------------------------------------------------------- */

/* A state of a rank's, and the options that it was made for; NULL: none yet. */
typedef struct servant_state {
    cca_state *state;
    char made_for[sizeof(cca_state_options)];
} servant_state;

/* What a rank keeps from one order to the next. */
typedef struct servant {
    cca_engine *engine;
    cca_comm *comm;
    const volatile sig_atomic_t *stop;
    cca_backend *backend;
    servant_state part, whole; /* for a part of a prompt: one layer; for texts of its own */
    int64_t reached;           /* positions that the part has behind it */
    char weights[CCA_GGUF_FINGERPRINT + 1];
    order order;
    int32_t *ids;
    double *nats; /* of one evaluation; NULL: none are wanted */
} servant;

/* A state like rank 0's, which keeps nothing of prompts. */
static cca_status make_state(servant *v, servant_state *out, cca_error *err) {
    cca_backend_options backend = v->engine->how;
    cca_state_options o = v->order.options;
    const char *wanted = (const char *)&v->order.options;
    backend.stop = v->stop;
    o.one_layer = out == &v->part;
    o.mark = false;
    if (out->state && memcmp(out->made_for, wanted, sizeof out->made_for) == 0) return CCA_OK;
    cca_state_free(out->state);
    out->state = NULL;
    cca_status status = CCA_OK;
    if (!v->backend) status = cca_backend_open(&v->backend, v->engine->device, &backend, err);
    if (!status) status = cca_state_new(&out->state, v->engine->model, v->backend, &o, err);
    if (!status && o.spread) status = cca_state_spread(out->state, v->comm, err);
    if (out == &v->part) v->reached = 0;
    if (status) {
        cca_state_free(out->state);
        out->state = NULL;
    }
    memcpy(out->made_for, wanted, sizeof out->made_for);
    return status;
}

static cca_status check_model(const servant *v, cca_error *err) {
    const char *device = v->engine->facts.device;
    if (strcmp(device, v->order.device) != 0) {
        return cca_fail(err, CCA_USAGE, "computes on %s, rank 0 on %s: name the device", device,
                        v->order.device);
    }
    if (strcmp(v->weights, v->order.weights) == 0) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL, "%s: this model is not that of rank 0", v->engine->path);
}

static cca_status make_nats(servant *v, cca_error *err) {
    v->nats = calloc((size_t)v->order.n, sizeof *v->nats);
    return v->nats ? CCA_OK : cca_fail(err, CCA_NO_MEMORY, "no memory for what tokens cost");
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
    cca_status status = check_model(v, err);
    if (!status) status = make_state(v, &v->part, err);
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
    status = forward_all(v->comm, v->part.state, v->ids, what->n, what->pos, status, NULL, &why);
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
    if (!status && what->scores) status = make_nats(v, &why);
    cca_share_call call = {.ids = v->ids,
                           .n = what->n,
                           .pos = what->pos,
                           .together = what->together,
                           .nats = v->nats,
                           .nats_from = what->nats_from};
    status = follow(v->comm, v->part.state, &call, status, NULL, &why);
    v->reached = what->pos + (status ? 0 : what->n);
    free(v->nats);
    v->nats = NULL;
    *err = why;
    return cca_comm_sound(v->comm) ? CCA_OK : status;
}

static cca_status serve_round(servant *v, score_round *r, cca_error *err) {
    cca_error why = {.text = ""};
    cca_status status = make_round(r, err);
    if (!status) status = spread_round(r, err);
    if (status) return status;
    status = check_model(v, &why);
    const bool works = cca_comm_rank(v->comm) < r->n_texts;
    if (!status && works) status = make_state(v, &v->whole, &why);
    status = follow_round(r, v->whole.state, status, NULL, &why);
    *err = why;
    return cca_comm_sound(v->comm) ? CCA_OK : status;
}

static cca_status serve_score(servant *v, cca_error *err) {
    score_round r = {.comm = v->comm,
                     .options = &v->order.options,
                     .vocab = v->engine->facts.vocab_size,
                     .n_texts = v->order.n_texts,
                     .n = v->order.n};
    cca_status status = serve_round(v, &r, err);
    free_round(&r);
    return status;
}

static cca_status hear(servant *v, cca_error *err) {
    cca_status status = cca_comm_listen(v->comm, &v->order, sizeof v->order, err);
    if (status || v->order.bytes == sizeof v->order) return status;
    return cca_fail(err, CCA_RUNTIME, "the program of rank 0 is another one");
}

cca_status cca_engine_serve(cca_engine *engine, cca_comm *comm, const volatile sig_atomic_t *stop,
                            cca_error *err) {
    servant v = {.engine = engine, .comm = comm, .stop = stop};
    cca_gguf_look(v.weights, engine->file);
    cca_status status = hear(&v, err);
    while (!status && v.order.kind != ORDER_END) {
        status = v.order.kind == ORDER_EVAL      ? serve_eval(&v, err)
                 : v.order.kind == ORDER_FORWARD ? serve_forward(&v, err)
                                                 : serve_score(&v, err);
        if (!status) status = hear(&v, err);
    }
    cca_state_free(v.part.state);
    cca_state_free(v.whole.state);
    cca_engine_close_backend(engine, v.backend);
    free(v.ids);
    return status;
}
