#include "model_share.h"

#include "model_parts.h"

#include <stdlib.h>
#include <string.h>

/* What is kept of a rank's tokens between layers, and what they all need. */
typedef struct pass {
    cca_state *s;
    cca_comm *comm;
    const cca_share_call *call;
    cca_share *share;
    cca_slice slices[CCA_WAVES];
    cca_matrix x, q, angles, other_angles; /* of the first slice's tokens, then the second's */
} pass;

/* Tokens of a slice that go through a layer together. */
typedef struct piece {
    int wave;
    int64_t pos, n;
    int64_t row; /* of what is kept */
} piece;

/* ---- pieces -------------------------------------------------------------------------- */

/* The piece of a wave that begins at a position; false behind its slice. */
static bool piece_at(piece *out, const pass *p, int wave, int64_t pos) {
    const cca_slice *s = &p->slices[wave];
    const int64_t chunk = p->s->a.x.rows;
    int64_t end = cca_min(s->end, (pos / chunk + 1) * chunk);
    if (pos < p->call->together) end = cca_min(end, p->call->together);
    *out = (piece){wave, pos, end - pos, pos - s->begin};
    if (wave > 0) out->row += p->slices[0].end - p->slices[0].begin;
    return pos < s->end;
}

static bool is_last(const pass *p, const piece *c) {
    return c->pos + c->n == p->call->pos + p->call->n;
}

/* Rows of what is kept. */
static cca_matrix rows_of(const cca_matrix *m, const piece *c) {
    cca_matrix rows = *m;
    rows.data = (float *)m->data + c->row * m->cols;
    rows.rows = c->n;
    rows.owned = false;
    return rows;
}

/* The state as a piece sees it. That of the last one stays in the state's own stream, for logits.
 */
static cca_state state_of(const pass *p, const piece *c) {
    cca_state s = *p->s;
    if (!is_last(p, c) || p->call->left) s.a.x = rows_of(&p->x, c);
    s.a.q = rows_of(&p->q, c);
    s.angles = rows_of(&p->angles, c);
    if (p->other_angles.rows > 0) s.other_angles = rows_of(&p->other_angles, c);
    s.pos = c->pos;
    memcpy(s.ids, p->call->ids + (c->pos - p->call->pos), (size_t)c->n * sizeof *s.ids);
    return s;
}

/* ---- the forward pass --------------------------------------------------------------- */

/* Keys and values of a piece, and its queries. */
static void begin_piece(pass *p, int64_t l, const piece *c) {
    cca_state s = state_of(p, c);
    cca_turn room;
    cca_layer_begin(s.backend, &s.model->layers[l], &s.a, s.model->stream_eps, c->n);
    const cca_turn *turn = cca_state_turn(&room, &s, l, c->n);
    cca_share_take(p->share, l, c->wave, &s.a.q, &s.a.k, &s.a.v, turn, c->pos, c->n);
    cca_share_progress(p->share);
}

/* What it attends to, and the rest. */
static void end_piece(pass *p, int64_t l, const piece *c) {
    cca_state s = state_of(p, c);
    cca_cache_choose_alone(s.cache, c->pos >= p->call->together);
    cca_cache_watch(s.cache, is_last(p, c) ? p->call->watch : NULL, 1);
    cca_share_look(p->share, l, c->wave, &s.a.attended, &s.a.q,
                   cca_layer_window(&s.model->config, l), c->pos, c->n);
    cca_layer_end(s.backend, &s.model->layers[l], &s.a, s.model->stream_eps, c->n);
    cca_share_progress(p->share);
}

/* Behind the last layer nobody wants more than the last piece, and what is to be left. */
static bool is_wanted(const pass *p, int64_t l, const piece *c) {
    const cca_share_call *call = p->call;
    const bool left = call->left && c->pos + c->n - call->pos > call->left_from;
    return l + 1 < p->s->model->config.n_layers || is_last(p, c) || left;
}

static cca_status forward_layer(pass *p, int64_t l, cca_error *err) {
    cca_status status = CCA_OK;
    piece c;
    cca_share_begin(p->share, l);
    for (int wave = 0; wave < CCA_WAVES && !status; wave++) {
        int64_t pos = p->slices[wave].begin;
        for (; piece_at(&c, p, wave, pos); pos += c.n) begin_piece(p, l, &c);
        status = cca_share_send(p->share, l, wave, err);
    }
    for (int wave = 0; wave < CCA_WAVES && !status; wave++) {
        int64_t pos = p->slices[wave].begin;
        status = cca_share_receive(p->share, l, wave, err);
        for (; !status && piece_at(&c, p, wave, pos); pos += c.n) {
            if (is_wanted(p, l, &c)) end_piece(p, l, &c);
        }
    }
    cca_share_end(p->share, l);
    return status;
}

static cca_status forward_all(pass *p, cca_error *err) {
    cca_status status = CCA_OK;
    piece c;
    for (int wave = 0; wave < CCA_WAVES; wave++) {
        int64_t pos = p->slices[wave].begin;
        for (; piece_at(&c, p, wave, pos); pos += c.n) {
            cca_state s = state_of(p, &c);
            cca_state_begin(&s, c.n);
        }
    }
    for (int64_t l = 0; l < p->s->model->config.n_layers && !status; l++) {
        status = forward_layer(p, l, err);
        if (status) return status; /* others are not reached any more */
        status = cca_backend_report(p->s->backend, err);
        if (!status && p->call->on_layer) {
            status = p->call->on_layer(p->call->user, l + 1, err);
        }
        status = cca_comm_agree(p->comm, status, err);
    }
    return status;
}

/* ---- memory -------------------------------------------------------------------------- */

bool cca_state_slices(cca_slices *out, const cca_state *state, const cca_state *also, int n_ranks,
                      int64_t pos, int64_t n) {
    return cca_share_slices(out, state->cache, also ? also->cache : NULL, n_ranks, pos, n);
}

int64_t cca_state_rows(const cca_state *state) {
    return state->n_rows;
}

cca_status cca_state_share_measure(cca_state_share *out, const cca_config *config,
                                   const cca_state_options *options, int n_ranks, int64_t n,
                                   cca_error *err) {
    cca_cache_shape shape = cca_state_cache_shape(config, options);
    cca_status status =
        cca_share_measure(&out->layer, &shape, &options->policy, n_ranks, 0, n, err);
    if (status) return status;
    /* x, q and angles, as make_matrices allocates them. */
    const int64_t widths[] = {config->dim, config->n_heads * config->head_dim, config->head_dim};
    out->most_bytes = out->layer.most_bytes;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        size_t bytes;
        if (!cca_matrix_bytes(&bytes, CCA_F32, out->layer.most_tokens, widths[i]) ||
            !cca_add(&out->most_bytes, out->most_bytes, bytes)) {
            return cca_fail(err, CCA_NO_MEMORY, "%lld tokens are larger than any memory",
                            (long long)n);
        }
    }
    return CCA_OK;
}

cca_spread_size cca_state_spread_measure(const cca_config *config, const cca_state_options *options,
                                         int n_ranks, int64_t n) {
    const cca_cache_shape shape = cca_state_cache_shape(config, options);
    return cca_spread_measure(&shape, &options->policy, n_ranks, config->n_layers, n);
}

/* This rank's. */
static int64_t n_tokens(const pass *p) {
    int64_t n = 0;
    for (int wave = 0; wave < CCA_WAVES; wave++) n += p->slices[wave].end - p->slices[wave].begin;
    return n;
}

static void make_matrices(pass *p) {
    cca_backend *b = p->s->backend;
    const int64_t n = n_tokens(p);
    const bool other = p->s->other_angles.rows > 0;
    cca_matrix_alloc(b, &p->x, CCA_F32, n, p->s->a.x.cols);
    cca_matrix_alloc(b, &p->q, CCA_F32, n, p->s->a.q.cols);
    cca_matrix_alloc(b, &p->angles, CCA_F32, n, p->s->angles.cols);
    if (other) cca_matrix_alloc(b, &p->other_angles, CCA_F32, n, p->s->other_angles.cols);
}

static void free_pass(pass *p) {
    cca_matrix *all[] = {&p->x, &p->q, &p->angles, &p->other_angles};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        cca_matrix_free(p->s->backend, all[i]);
    }
    cca_share_free(p->share);
}

static cca_status make_pass(pass *p, cca_error *err) {
    const cca_share_call *call = p->call;
    const cca_cache *also = call->also ? call->also->cache : NULL;
    cca_status status =
        cca_share_new(&p->share, p->s->cache, also, p->comm, call->pos, call->n, err);
    if (status) return status;
    for (int wave = 0; wave < CCA_WAVES; wave++) p->slices[wave] = cca_share_slice(p->share, wave);
    make_matrices(p);
    return cca_backend_sync(p->s->backend, err);
}

/* Rank 0 has the last piece, and is behind the text. */
static void arrive(const pass *p) {
    piece c;
    for (int wave = 0; wave < CCA_WAVES; wave++) {
        int64_t pos = p->slices[wave].begin;
        for (; piece_at(&c, p, wave, pos); pos += c.n) {
            if (!is_last(p, &c)) continue;
            p->s->pos = c.pos;
            p->s->n_rows = c.n;
        }
    }
}

/* The stream of this rank's tokens is the caller's. */
static void leave(pass *p) {
    cca_stream *left = p->call->left;
    *left = (cca_stream){.state = p->s, .x = p->x};
    memcpy(left->at, p->slices, sizeof left->at);
    p->x = (cca_matrix){0};
}

cca_status cca_model_forward_shared(cca_state *state, cca_comm *comm, const cca_share_call *call,
                                    int64_t *n_own, cca_error *err) {
    pass p = {.s = state, .comm = comm, .call = call};
    state->n_rows = 0;
    cca_status status = cca_comm_agree(comm, make_pass(&p, err), err);
    if (!status) status = forward_all(&p, err);
    if (!status) status = cca_backend_sync(state->backend, err);
    if (!status && call->left) leave(&p);
    if (!status && !call->left) arrive(&p);
    *n_own = status ? 0 : n_tokens(&p);
    cca_cache_watch(state->cache, NULL, 1);
    free_pass(&p);
    return status;
}
