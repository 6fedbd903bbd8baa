#include "model_stream.h"

#include "model_parts.h"

#include <stdlib.h>

/* Rows of a stream. */
static cca_matrix rows_of(const cca_matrix *x, int64_t row, int64_t n) {
    return (cca_matrix){
        .data = (float *)x->data + row * x->cols, .type = x->type, .rows = n, .cols = x->cols};
}

/* The row of a position that it has. */
static int64_t row_at(const cca_stream *s, int64_t pos) {
    int64_t row = 0;
    for (int wave = 0; wave < CCA_WAVES; wave++) {
        const cca_slice *at = &s->at[wave];
        if (pos >= at->begin && pos < at->end) return row + pos - at->begin;
        row += at->end - at->begin;
    }
    return row;
}

cca_status cca_stream_alone(cca_stream *out, cca_state *state, const int32_t *ids, int64_t n,
                            cca_error *err) {
    cca_state s = *state;
    cca_cache_draft(s.cache, false);
    cca_cache_choose_alone(s.cache, false);
    cca_cache_watch(s.cache, NULL, 1);
    *out = (cca_stream){.state = state, .at = {{0, n}, {n, n}}};
    cca_matrix_alloc(s.backend, &out->x, CCA_F32, n, s.a.x.cols);
    cca_status status = cca_backend_sync(s.backend, err);
    for (int64_t at = 0, some; at < n && !status; at += some) {
        some = cca_min(n - at, state->a.x.rows);
        s.a.x = rows_of(&out->x, at, some);
        status = cca_model_forward(&s, ids + at, some, at, err);
    }
    return status;
}

void cca_stream_free(cca_stream *s) {
    if (s->state) cca_matrix_free(s->state->backend, &s->x);
    *s = (cca_stream){0};
}

/* ---- scores -------------------------------------------------------------------------- */

/* Tokens whose logits are there. */
typedef struct tile {
    const float *logits, *base; /* base: NULL without one */
    int64_t vocab;
    const int32_t *next;
    cca_gap *gaps;
} tile;

static void score_row(void *context, int64_t row, int thread) {
    const tile *t = context;
    const float *logits = t->logits + row * t->vocab;
    (void)thread;
    if (t->base) {
        t->gaps[row] = cca_compare(logits, t->base + row * t->vocab, t->vocab, t->next[row]);
    } else {
        t->gaps[row] = (cca_gap){.nats = cca_nats(logits, t->vocab, t->next[row])};
    }
}

/* Positions begin … end - 1, of one slice, in tiles; room: for two of them. */
static cca_status score_slice(const cca_stream *own, const cca_stream *base,
                              const cca_stream_score *job, int64_t begin, int64_t end, float *room,
                              cca_error *err) {
    const int64_t vocab = own->state->model->config.vocab_size;
    float *of_base = base ? room + CCA_LOGIT_ROWS * vocab : NULL;
    cca_status status = CCA_OK;
    for (int64_t pos = begin, n; pos < end && !status; pos += n) {
        n = cca_min(end - pos, CCA_LOGIT_ROWS - pos % CCA_LOGIT_ROWS);
        status = cca_model_stream_logits(own->state, &own->x, row_at(own, pos), n, room, err);
        if (!status && base) {
            status =
                cca_model_stream_logits(base->state, &base->x, row_at(base, pos), n, of_base, err);
        }
        tile t = {room, of_base, vocab, job->ids + pos + 1, job->gaps + pos};
        if (!status) cca_workers_run(job->workers, n, score_row, &t);
    }
    return status;
}

cca_status cca_stream_compare(const cca_stream *own, const cca_stream *base,
                              const cca_stream_score *job, cca_error *err) {
    const size_t vocab = (size_t)own->state->model->config.vocab_size;
    float *room = malloc((base ? 2 : 1) * CCA_LOGIT_ROWS * vocab * sizeof *room);
    if (!room) return cca_fail(err, CCA_NO_MEMORY, "no memory for logits");
    cca_status status = CCA_OK;
    for (int wave = 0; wave < CCA_WAVES && !status; wave++) {
        int64_t begin = cca_max(own->at[wave].begin, job->first);
        int64_t end = cca_min(own->at[wave].end, job->n - 1);
        status = score_slice(own, base, job, begin, end, room, err);
    }
    free(room);
    return status;
}

/* ---- rows on rank 0 ------------------------------------------------------------------ */

/* Who shows what to whom. */
typedef struct showing {
    const cca_stream *own;
    cca_state *state;
    cca_comm *comm;
    cca_stream_fn fn;
    void *user;
    float *room; /* [chunk_size][dim] */
} showing;

/* The state has rows of a stream as its last tokens. */
static cca_status show_rows(const showing *w, const cca_matrix *rows, int64_t text, int64_t pos,
                            cca_error *err) {
    cca_state *s = w->state;
    const cca_matrix before = s->a.x;
    s->a.x = *rows;
    s->pos = pos;
    s->n_rows = rows->rows;
    cca_status status = w->fn(w->user, text, pos, rows->rows, err);
    s->a.x = before;
    s->n_rows = 0;
    return status;
}

/* A piece of another rank's, on rank 0: comes in any case. */
static cca_status receive(const showing *w, int rank, cca_matrix *rows, cca_error *err) {
    cca_exchange *exchange;
    const cca_mail from = {rank, w->room, (size_t)(rows->rows * rows->cols) * sizeof *w->room};
    cca_status status = cca_comm_begin(&exchange, w->comm, NULL, 0, &from, 1, err);
    if (!status) status = cca_comm_finish(exchange, err);
    if (!status) cca_backend_upload(w->state->backend, rows->data, w->room, from.bytes);
    return status;
}

static cca_status send(const showing *w, const cca_matrix *rows, cca_error *err) {
    cca_exchange *exchange;
    const cca_mail to = {0, w->room, (size_t)(rows->rows * rows->cols) * sizeof *w->room};
    cca_matrix_download(w->state->backend, w->room, rows, rows->rows);
    cca_status status = cca_comm_begin(&exchange, w->comm, &to, 1, NULL, 0, err);
    return status ? status : cca_comm_finish(exchange, err);
}

/* *told: what fn has said so far. A failure here is one of messages. */
static cca_status show_piece(const showing *w, const cca_stream_part *part, int64_t pos, int64_t n,
                             cca_status *told, cca_error *err) {
    const int rank = w->comm ? cca_comm_rank(w->comm) : 0;
    cca_matrix rows = rows_of(&w->state->a.x, 0, n);
    cca_error lost;
    cca_status status = CCA_OK;
    if (part->rank == rank) rows = rows_of(&w->own->x, row_at(w->own, pos), n);
    if (part->rank == rank && rank > 0) return send(w, &rows, err);
    if (rank > 0) return CCA_OK;
    if (part->rank > 0) status = receive(w, part->rank, &rows, &lost);
    if (status) return *told ? status : cca_fail(err, status, "%s", lost.text);
    if (!*told) *told = show_rows(w, &rows, part->text, pos, err);
    return CCA_OK;
}

cca_status cca_stream_show(const cca_stream *own, cca_state *state, cca_comm *comm,
                           const cca_stream_part *parts, int64_t n_parts, cca_stream_fn fn,
                           void *user, cca_error *err) {
    const int64_t chunk = state ? state->a.x.rows : 1, dim = state ? state->a.x.cols : 1;
    showing w = {.own = own, .state = state, .comm = comm, .fn = fn, .user = user};
    cca_status status = CCA_OK, told = CCA_OK;
    if (!state) n_parts = 0;
    w.room = malloc((size_t)(chunk * dim) * sizeof *w.room);
    if (!w.room) status = cca_fail(err, CCA_NO_MEMORY, "no memory for rows of other ranks");
    if (comm) status = cca_comm_agree(comm, status, err);
    for (const cca_stream_part *part = parts; part < parts + n_parts && !status; part++) {
        for (int64_t pos = part->at.begin, n; pos < part->at.end && !status; pos += n) {
            n = cca_min(part->at.end, (pos / chunk + 1) * chunk) - pos;
            status = show_piece(&w, part, pos, n, &told, err);
        }
    }
    if (!comm || cca_comm_sound(comm)) free(w.room); /* else messages may still come in */
    return told ? told : status;                     // NOLINT: room that is not freed
}
