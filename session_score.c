/* Texts that are scored, by ranks or by one: what their tokens cost, and how far that is from a
 * base. Ranks split a long text, and have one each of the others; each scores the tokens whose
 * streams it has, behind the forward pass. */
#include "session_ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a text that a rank has for itself, or that all split. */
typedef struct text_size {
    int64_t n, first;
} text_size;

/* What follows an order that compares. */
typedef struct base_order {
    char weights[CCA_GGUF_FINGERPRINT + 1], path[4096];
    cca_state_options options;
} base_order;

/* Texts that are scored together, one behind the other, and on rank 0 who wants to know. */
typedef struct score_round {
    cca_comm *comm; /* NULL: there are no others */
    cca_state *own, *base;
    int n_threads;
    bool split, shows;
    int64_t n_texts, n; /* n: tokens of all */
    text_size *sizes;   /* [n_texts] */
    int32_t *ids;       /* [n] */
    cca_gap *gaps;      /* [n] */
    cca_stream_part *parts;
    int64_t n_parts;
    cca_session *session;
    const cca_score_options *options;
    int64_t text, done; /* texts and positions before them */
    int side;           /* 0: the base is under way */
} score_round;

/* ---- memory -------------------------------------------------------------------------- */

static int n_ranks_of(const score_round *r) {
    return r->comm ? cca_comm_n_ranks(r->comm) : 1;
}

/* Makes room for it; free_round is due in any case. */
static cca_status make_round(score_round *r, cca_error *err) {
    const size_t n_parts = (size_t)r->n_texts + (size_t)CCA_WAVES * (size_t)n_ranks_of(r);
    r->sizes = calloc((size_t)r->n_texts + 1, sizeof *r->sizes);
    r->ids = calloc((size_t)r->n + 1, sizeof *r->ids);
    r->gaps = calloc((size_t)r->n + 1, sizeof *r->gaps);
    r->parts = calloc(n_parts, sizeof *r->parts);
    if (r->sizes && r->ids && r->gaps && r->parts) return CCA_OK;
    return cca_fail(err, CCA_NO_MEMORY, "no memory for texts of %lld tokens", (long long)r->n);
}

static void free_round(score_round *r) {
    free(r->sizes);
    free(r->ids);
    free(r->gaps);
    free(r->parts);
}

/* ---- all ranks ----------------------------------------------------------------------- */

static cca_status agree(const score_round *r, cca_status own, cca_error *err) {
    return r->comm ? cca_comm_agree(r->comm, own, err) : own;
}

/* Where a text begins in ids and gaps. */
static int64_t begin_of(const score_round *r, int64_t text) {
    int64_t at = 0;
    for (int64_t i = 0; i < text; i++) at += r->sizes[i].n;
    return at;
}

/* The text that this rank has tokens of; false where there is none. */
static bool own_text(int64_t *text, const score_round *r) {
    const int64_t rank = r->comm ? cca_comm_rank(r->comm) : 0;
    *text = r->split ? 0 : rank;
    return *text < r->n_texts;
}

/* Who has which tokens, in the order of texts; the states are there. */
static void lay_parts(score_round *r) {
    cca_slices slices;
    const int n_ranks = n_ranks_of(r);
    r->n_parts = 0;
    for (int64_t i = 0; i < r->n_texts && !r->split; i++) {
        r->parts[r->n_parts++] = (cca_stream_part){(int)i, {0, r->sizes[i].n}, i};
    }
    if (!r->split || !cca_state_slices(&slices, r->own, r->base, n_ranks, 0, r->n)) return;
    for (int i = 0; i < cca_slice_count(&slices); i++) {
        r->parts[r->n_parts++] =
            (cca_stream_part){cca_slice_owner(&slices, i), cca_slice_at(&slices, i), 0};
    }
}

/* A layer of a text that is split: on rank 0, of a base it is the first half of the work. */
static cca_status tell_layer(void *user, int64_t n_done, cca_error *err) {
    const score_round *r = user;
    const cca_score_options *o = r->options;
    const cca_session *of = r->side ? r->session : o->base;
    const int64_t half = r->n * n_done / of->engine->facts.n_layers;
    (void)err;
    if (!o->on_progress) return CCA_OK;
    o->on_progress(o->user, r->session, r->done + (r->base ? (half + r->side * r->n) / 2 : half));
    return CCA_OK;
}

/* Streams of the tokens that this rank has: of a text that is split or of its own. */
static cca_status forward(score_round *r, cca_stream *own, cca_stream *base, int64_t *n_own,
                          cca_error *err) {
    int64_t text, ignored;
    cca_status status = CCA_OK;
    if (r->split) {
        cca_share_call call = {.ids = r->ids, .n = r->n, .together = r->n, .user = r};
        call.on_layer = r->session ? tell_layer : NULL;
        call.left_from = r->sizes[0].first;
        call.left = base, call.also = r->own, r->side = 0;
        if (r->base) status = cca_model_forward_shared(r->base, r->comm, &call, &ignored, err);
        if (r->shows) call.left_from = 0;
        call.left = own, call.also = r->base, r->side = 1;
        if (!status) status = cca_model_forward_shared(r->own, r->comm, &call, n_own, err);
        return status;
    }
    if (own_text(&text, r)) {
        const int32_t *ids = r->ids + begin_of(r, text);
        *n_own = r->sizes[text].n;
        if (r->base) status = cca_stream_alone(base, r->base, ids, *n_own, err);
        if (!status) status = cca_stream_alone(own, r->own, ids, *n_own, err);
    }
    return agree(r, status, err);
}

static cca_status compare(const score_round *r, const cca_stream *own, const cca_stream *base,
                          cca_error *err) {
    int64_t text;
    cca_status status = CCA_OK;
    if (own_text(&text, r)) {
        const int64_t begin = begin_of(r, text);
        cca_stream_score job = {r->ids + begin, r->sizes[text].n, r->sizes[text].first,
                                r->gaps + begin, cca_workers_new(r->n_threads)};
        status = job.workers ? cca_stream_compare(own, r->base ? base : NULL, &job, err)
                             : cca_fail(err, CCA_NO_MEMORY, "no memory for threads");
        cca_workers_free(job.workers);
    }
    return agree(r, status, err);
}

/* Copies a rank's gaps between their places and one piece of memory; how many. */
static size_t pack_gaps(const score_round *r, cca_gap *packed, int rank, bool unpack) {
    size_t at = 0;
    for (int64_t i = 0; i < r->n_parts; i++) {
        const cca_stream_part *part = &r->parts[i];
        if (part->rank != rank) continue;
        cca_gap *gaps = r->gaps + begin_of(r, part->text) + part->at.begin;
        const size_t n = (size_t)(part->at.end - part->at.begin);
        memcpy(unpack ? gaps : packed + at, unpack ? packed + at : gaps, n * sizeof *gaps);
        at += n;
    }
    return at;
}

/* All ranks' gaps come together, by way of room for all and for their sizes. */
static cca_status exchange_gaps(const score_round *r, cca_gap *all, size_t *bytes, cca_error *err) {
    const int n_ranks = n_ranks_of(r);
    size_t at = 0;
    for (int rank = 0; rank < n_ranks; rank++) {
        size_t n = pack_gaps(r, all + at, rank, false);
        bytes[rank] = n * sizeof *all;
        at += n;
    }
    cca_status status = cca_comm_gather(r->comm, all, bytes, err);
    at = 0;
    for (int rank = 0; rank < n_ranks && !status; rank++) at += pack_gaps(r, all + at, rank, true);
    return status;
}

static cca_status gather_gaps(const score_round *r, cca_error *err) {
    if (!r->comm) return CCA_OK;
    cca_gap *all = calloc((size_t)r->n + 1, sizeof *all);
    size_t *bytes = calloc((size_t)n_ranks_of(r), sizeof *bytes);
    cca_status status = all && bytes ? CCA_OK : CCA_NO_MEMORY;
    if (status) cca_fail(err, status, "no memory for what %lld tokens cost", (long long)r->n);
    status = agree(r, status, err);
    if (!status && all && bytes) status = exchange_gaps(r, all, bytes, err);
    free(all);
    free(bytes);
    return status;
}

static cca_status tell_rows(void *user, int64_t text, int64_t pos, int64_t n, cca_error *err) {
    const score_round *r = user;
    return r->options->on_rows(r->options->user, r->session, r->text + text, pos, n, err);
}

/* The part of such an order that all ranks have in common; ready: how this one is. */
static cca_status follow_round(score_round *r, cca_status ready, cca_rank_count *counts,
                               cca_error *err) {
    cca_stream own = {0}, base = {0};
    int64_t n_own = 0;
    if (!ready) lay_parts(r);
    cca_status status = agree(r, ready, err);
    if (!status) status = forward(r, &own, &base, &n_own, err);
    if (!status) status = compare(r, &own, &base, err);
    if (!status) status = gather_gaps(r, err);
    if (!status && r->shows) {
        status = cca_stream_show(&own, r->own, r->comm, r->parts, r->n_parts, tell_rows, r, err);
        status = agree(r, status, err);
    }
    cca_stream_free(&own);
    cca_stream_free(&base);
    if (!r->comm) return status;
    return cca_ranks_settle(r->comm, counts, status ? 0 : n_own, status, err);
}

/* ---- rank 0 -------------------------------------------------------------------------- */

static cca_status tell_base(const cca_session *base, cca_comm *comm, cca_error *err) {
    base_order *what = calloc(1, sizeof *what);
    if (!what) return cca_fail(err, CCA_NO_MEMORY, "no memory for other ranks' orders");
    what->options = base->options;
    cca_gguf_look(what->weights, base->engine->file);
    snprintf(what->path, sizeof what->path, "%s", base->engine->path);
    cca_status status = cca_comm_broadcast(comm, what, sizeof *what, err);
    free(what);
    return status;
}

/* Sizes and ids become everybody's. */
static cca_status spread_round(const score_round *r, cca_error *err) {
    size_t sizes = (size_t)r->n_texts * sizeof *r->sizes, ids = (size_t)r->n * sizeof *r->ids;
    cca_status status = cca_comm_broadcast(r->comm, r->sizes, sizes, err);
    return status ? status : cca_comm_broadcast(r->comm, r->ids, ids, err);
}

/* Tells the others of a round. */
static cca_status order_round(const score_round *r, cca_error *err) {
    const cca_session *base = r->options->base;
    if (!r->comm) return CCA_OK;
    order *what = calloc(1, sizeof *what);
    if (!what) return cca_fail(err, CCA_NO_MEMORY, "no memory for other ranks' orders");
    *what = (order){.kind = ORDER_SCORE,
                    .n = r->n,
                    .n_texts = r->n_texts,
                    .split = r->split,
                    .shows = r->shows,
                    .compares = base != NULL};
    cca_order_sign(what, r->session);
    cca_status status = cca_comm_broadcast(r->comm, what, sizeof *what, err);
    free(what);
    if (!status && base) status = tell_base(base, r->comm, err);
    return status ? status : spread_round(r, err);
}

/* One text that all split, or one of each of the first ranks. */
static cca_status score_round_of(score_round *r, const cca_scored_text *texts, cca_error *err) {
    cca_session *s = r->session;
    r->n = 0;
    for (int64_t i = 0; i < r->n_texts; i++) r->n += texts[i].n;
    cca_status status = make_round(r, err);
    for (int64_t i = 0, at = 0; i < r->n_texts && !status; at += texts[i++].n) {
        r->sizes[i] = (text_size){texts[i].n, texts[i].first};
        memcpy(r->ids + at, texts[i].ids, (size_t)texts[i].n * sizeof *r->ids);
    }
    if (!status) status = order_round(r, err);
    if (!status) status = follow_round(r, CCA_OK, s->ranks, err);
    for (int64_t i = 0, at = 0; i < r->n_texts && !status; at += texts[i++].n) {
        const int64_t from = texts[i].first, some = cca_max(texts[i].n - 1 - from, 0);
        memcpy(texts[i].gaps + from, r->gaps + at + from, (size_t)some * sizeof *r->gaps);
    }
    free_round(r);
    return status;
}

/* ---- ranks that keep a session together ---------------------------------------------- */

/* A text that they run in chunks, each of them all of it. */
static cca_status score_chunk(void *user, cca_session *s, int64_t pos, int64_t n, cca_error *err) {
    const cca_scored_text *t = user;
    const int64_t vocab = s->engine->facts.vocab_size;
    const int64_t end = cca_min(pos + n, t->n - 1);
    float *logits = malloc((size_t)vocab * sizeof *logits);
    cca_status status = logits ? CCA_OK : cca_fail(err, CCA_NO_MEMORY, "no memory for logits");
    for (int64_t at = cca_max(pos, t->first); at < end && !status && logits; at++) {
        status = cca_session_chunk_logits(s, at - pos, 1, logits, err);
        if (!status) t->gaps[at] = (cca_gap){.nats = cca_nats(logits, vocab, t->ids[at + 1])};
    }
    free(logits);
    return status;
}

static cca_status score_by_all(cca_session *s, const cca_scored_text *t, cca_error *err) {
    const cca_eval_options o = {.on_chunk = score_chunk, .user = (void *)t};
    return cca_session_eval(s, t->ids, t->n, &o, err);
}

/* ---- texts --------------------------------------------------------------------------- */

static cca_status check(const cca_session *s, const cca_scored_text *texts, int64_t n_texts,
                        const cca_score_options *o, cca_error *err) {
    cca_status status = CCA_OK;
    if (s->options.spread && (o->base || o->on_rows)) {
        return cca_fail(err, CCA_USAGE, "a session that ranks keep together has no base, no rows");
    }
    if (o->base && o->base->engine->facts.vocab_size != s->engine->facts.vocab_size) {
        return cca_fail(err, CCA_USAGE, "a base has the same vocabulary");
    }
    for (int64_t i = 0; i < n_texts && !status; i++) {
        status = cca_session_check_input(s, texts[i].ids, texts[i].n, err);
        if (!status && o->base) {
            status = cca_session_check_input(o->base, texts[i].ids, texts[i].n, err);
        }
    }
    return status;
}

/* Whether all ranks can split a text. */
static bool is_split(const cca_session *s, const cca_session *base, int64_t n) {
    cca_slices slices;
    if (!s->comm || n < s->share_from) return false;
    return cca_state_slices(&slices, s->state, base ? base->state : NULL, cca_comm_n_ranks(s->comm),
                            0, n);
}

static void reset(cca_session *s, const cca_score_options *o) {
    cca_session_reset(s);
    if (o->base) cca_session_reset(o->base);
}

/* Texts from one on that are scored together: 1, or as many as are dealt. */
static int64_t n_together(const cca_session *s, const cca_session *base,
                          const cca_scored_text *texts, int64_t n_texts) {
    const int64_t most = s->comm ? cca_comm_n_ranks(s->comm) : 1;
    int64_t n = 0;
    while (n < n_texts && n < most && !is_split(s, base, texts[n].n)) n++;
    return cca_max(n, 1);
}

cca_status cca_session_score(cca_session *s, const cca_scored_text *texts, int64_t n_texts,
                             const cca_score_options *options, cca_error *err) {
    const cca_score_options none = {0}, *o = options ? options : &none;
    score_round r = {.comm = s->comm,
                     .own = s->state,
                     .base = o->base ? o->base->state : NULL,
                     .n_threads = s->engine->facts.n_threads,
                     .shows = o->on_rows != NULL,
                     .session = s,
                     .options = o};
    reset(s, o);
    cca_status status = check(s, texts, n_texts, o, err);
    for (int64_t i = 0; i < n_texts && !status; i += r.n_texts) {
        r.split = is_split(s, o->base, texts[i].n);
        r.text = i;
        r.n_texts = n_together(s, o->base, texts + i, n_texts - i);
        if (!r.split && s->options.spread) {
            r.n_texts = 1;
            status = score_by_all(s, &texts[i], err);
        } else {
            status = score_round_of(&r, texts + i, err);
        }
        for (int64_t k = 0; k < r.n_texts; k++) r.done += texts[i + k].n;
        reset(s, o);
        if (!status && o->on_progress) o->on_progress(o->user, s, r.done);
    }
    return status;
}

/* ---- the other ranks ----------------------------------------------------------------- */

/* The model that rank 0 compares with: this rank's own, or one that it opens. */
static cca_status open_base(servant *v, const base_order *what, cca_error *err) {
    servant_model *base = &v->base;
    cca_engine *own = v->own.engine;
    const cca_engine_options how = {own->device, own->how.n_threads, own->how.kernels, own->how.fp8,
                                    false};
    cca_status status = CCA_OK;
    if (base->engine && strcmp(base->weights, what->weights) == 0) return CCA_OK;
    if (base->engine) return cca_fail(err, CCA_RUNTIME, "rank 0 compares with two models");
    if (strcmp(v->own.weights, what->weights) == 0) {
        base->engine = own;
    } else {
        status = cca_engine_open(&base->engine, what->path, &how, err);
    }
    if (status) return status;
    cca_gguf_look(base->weights, base->engine->file);
    if (strcmp(base->weights, what->weights) == 0) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL, "%s: this model is not that of rank 0", what->path);
}

/* The states that an order wants. */
static cca_status make_states(servant *v, score_round *r, const base_order *base, cca_error *err) {
    cca_status status = cca_servant_check(v, err);
    if (!status) status = cca_servant_state(v, &v->own, r->split, &v->order.options, err);
    if (!status && base) status = open_base(v, base, err);
    if (!status && base) status = cca_servant_state(v, &v->base, r->split, &base->options, err);
    if (status) return status;
    r->own = r->split ? v->own.part.state : v->own.whole.state;
    if (base) r->base = r->split ? v->base.part.state : v->base.whole.state;
    return CCA_OK;
}

static cca_status serve_round(servant *v, score_round *r, base_order *base, cca_error *err) {
    cca_error why = {.text = ""};
    int64_t text;
    cca_status status = make_round(r, err);
    if (!status && base) status = cca_comm_broadcast(v->comm, base, sizeof *base, err);
    if (!status) status = spread_round(r, err);
    if (status) return status;
    if (own_text(&text, r)) status = make_states(v, r, base, &why);
    if (r->split) v->reached = 0;
    status = follow_round(r, status, NULL, &why);
    *err = why;
    return cca_comm_sound(v->comm) ? CCA_OK : status;
}

cca_status cca_servant_score(servant *v, cca_error *err) {
    score_round r = {.comm = v->comm,
                     .n_threads = v->own.engine->facts.n_threads,
                     .split = v->order.split,
                     .shows = v->order.shows,
                     .n_texts = v->order.n_texts,
                     .n = v->order.n};
    base_order *base = v->order.compares ? calloc(1, sizeof *base) : NULL;
    cca_status status = CCA_OK;
    if (v->order.compares && !base) {
        status = cca_fail(err, CCA_NO_MEMORY, "no memory for rank 0's orders");
    }
    if (!status) status = serve_round(v, &r, base, err);
    free_round(&r);
    free(base);
    return status;
}
