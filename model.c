#include "model_parts.h"

#include "cca_spread.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- binding ------------------------------------------------------------------------ */

/* Says how to get a file that runs, ready for a shell: MODEL.gguf becomes MODEL-q8_0.gguf. */
static cca_status refuse_type(const char *path, const cca_gguf_tensor *t, cca_error *err) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_./-+,@%=:";
    enum { LONGEST_PATH = 300 };
    if (!cca_dtype_converts(t->type, t->n_dims == 1)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s has type %s, which is not supported",
                        path, t->name, cca_gguf_type_name(t->type));
    }
    bool fits = strlen(path) <= LONGEST_PATH && !strchr(path, '\'');
    const char *in = fits ? path : "IN.gguf";
    size_t stem = strlen(in);
    const char *quote = strspn(in, plain) < stem ? "'" : "";
    if (stem > 5 && strcmp(in + stem - 5, ".gguf") == 0) stem -= 5;
    return cca_fail(err, CCA_BAD_MODEL,
                    "%s: tensor %s has type %s, which does not run here; convert the file: "
                    "cca export %s%s%s --type q8_0 -o %s%.*s-q8_0.gguf%s",
                    path, t->name, cca_gguf_type_name(t->type), quote, in, quote, quote, (int)stem,
                    in, quote);
}

/* Where RoPE turns the first r dims of a head in pairs k, k + r/2, the rows are laid out anew so
 * that these are k, k + head_dim/2, and the others lie in between: q · k is the same, and kernels
 * know whole heads only. NULL without memory. */
static const void *move_rows(cca_model *m, cca_dtype type, cca_shape shape, const char *data,
                             cca_error *err) {
    const int64_t hd = m->config.head_dim, r = m->config.rope_dims, rest = (hd - r) / 2;
    size_t row = 0, all = 0;
    cca_dtype_row_bytes(&row, type, shape.vector ? 1 : shape.cols);
    char *moved = cca_mul(&all, row, (size_t)shape.rows) ? malloc(all) : NULL;
    void **list = realloc(m->moved, (size_t)(m->n_moved + 1) * sizeof *list);
    if (list) m->moved = list;
    if (!moved || !list) {
        free(moved);
        (void)cca_fail(err, CCA_NO_MEMORY, "no memory for weights in the order of RoPE");
        return NULL;
    }
    m->moved[m->n_moved++] = moved;
    for (int64_t i = 0; i < shape.rows; i++) {
        int64_t d = i % hd, half = d / (r / 2), to = d;
        if (d < r && half == 1) to = hd / 2 + d - r / 2;
        if (d >= r) to = d - r < rest ? r / 2 + d - r : hd / 2 + r / 2 + d - r - rest;
        memcpy(moved + (size_t)(i - d + to) * row, data + (size_t)i * row, row);
    }
    return moved;
}

/* Binds the tensor of a role if the model has one; vectors must be f32. */
static cca_status bind(cca_model *m, cca_matrix *out, cca_role role, int64_t layer,
                       cca_error *err) {
    if (!cca_tensor_needed(role, &m->config)) return CCA_OK;
    cca_tensor_place place;
    cca_status status = cca_tensor_find(&place, m->file, role, layer, &m->config, err);
    if (status) return status;
    const cca_gguf_tensor *t = place.tensor;
    cca_shape shape = cca_tensor_shape(role, &m->config);
    int64_t rows = shape.vector ? 1 : shape.rows, cols = shape.vector ? shape.rows : shape.cols;
    m->known[t - cca_gguf_tensor_at(m->file, 0)] = true;
    if (!cca_dtype_runs(t->type) || (shape.vector && t->type != CCA_F32)) {
        return refuse_type(cca_gguf_name(m->file), t, err);
    }
    const void *data = place.data;
    if (cca_tensors[role].rotates && !m->config.arch->interleaved && m->config.rope_dims) {
        data = move_rows(m, (cca_dtype)t->type, shape, data, err);
        if (!data) return CCA_NO_MEMORY;
    }
    cca_matrix_load(m->backend, out, (cca_dtype)t->type, rows, cols, data);
    m->weight_bytes += cca_matrix_kept_bytes(m->backend, out);
    m->n_params += (uint64_t)(rows * cols);
    return CCA_OK;
}

static cca_status bind_layer(cca_model *m, int64_t index, cca_error *err) {
    cca_status status = CCA_OK;
    for (cca_role r = CCA_FIRST_OF_LAYER; !status && r < CCA_N_ROLES; r++) {
        status = bind(m, &m->layers[index].w[r], r, index, err);
    }
    return status;
}

/* Divisors of frequencies go into these. */
static cca_status bind_rope(cca_model *m, cca_error *err) {
    cca_status status = cca_ropes_make(&m->ropes, &m->config, m->file, err);
    for (cca_role r = CCA_ROPE_DIVISORS; !status && r < CCA_FIRST_OF_LAYER; r++) {
        if (!cca_tensor_needed(r, &m->config)) continue;
        const cca_gguf_tensor *t = cca_gguf_find(m->file, cca_tensors[r].name);
        m->known[t - cca_gguf_tensor_at(m->file, 0)] = true;
    }
    return status;
}

/* A tensor that nobody reads would silently change the answers. */
static cca_status refuse_unknown(const cca_model *m, cca_error *err) {
    for (uint64_t i = 0; i < cca_gguf_n_tensors(m->file); i++) {
        if (m->known[i]) continue;
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s is unknown to this architecture",
                        cca_gguf_name(m->file), cca_gguf_tensor_at(m->file, i)->name);
    }
    return CCA_OK;
}

/* ---- scales ------------------------------------------------------------------------- */

/* Where a layer's sums are multiplied by r before they are added, x/r is kept in place of x, to
 * which they are added as they are: norms give the same with eps/r², and only the embedding is
 * scaled by another factor. Logits are divided by theirs in the norm before them. */
static cca_status scale_stream(cca_model *m, cca_error *err) {
    const cca_scales *s = &m->config.scales;
    const double residual = s->residual != 0 ? s->residual : 1;
    m->embedding_scale = (float)((s->embedding != 0 ? s->embedding : 1) / residual);
    m->stream_eps = (float)((double)m->config.norm_eps / (residual * residual));
    if (s->logits == 0 || s->logits == 1) return CCA_OK;
    const int64_t n = m->config.dim;
    const float *from = cca_gguf_find(m->file, cca_tensors[CCA_OUTPUT_NORM].name)->data;
    float *scaled = malloc((size_t)n * sizeof *scaled);
    if (!scaled) return cca_fail(err, CCA_NO_MEMORY, "no memory for the last norm");
    memcpy(scaled, from, (size_t)n * sizeof *scaled);
    for (int64_t i = 0; i < n; i++) scaled[i] = (float)((double)scaled[i] / s->logits);
    cca_matrix_free(m->backend, &m->output_norm);
    cca_matrix_alloc(m->backend, &m->output_norm, CCA_F32, 1, n);
    if (m->output_norm.data) {
        cca_backend_upload(m->backend, m->output_norm.data, scaled, (size_t)n * sizeof *scaled);
    }
    free(scaled);
    return CCA_OK;
}

/* ---- the model ---------------------------------------------------------------------- */

static cca_status bind_all(cca_model *m, cca_error *err) {
    m->layers = calloc((size_t)m->config.n_layers, sizeof *m->layers);
    m->known = calloc(cca_gguf_n_tensors(m->file), sizeof *m->known);
    if (!m->layers || !m->known) return cca_fail(err, CCA_NO_MEMORY, "no memory for the layers");
    cca_status status = bind(m, &m->embedding, CCA_EMBEDDING, 0, err);
    for (int64_t l = 0; !status && l < m->config.n_layers; l++) status = bind_layer(m, l, err);
    if (!status) status = bind(m, &m->output_norm, CCA_OUTPUT_NORM, 0, err);
    if (!status) status = bind(m, &m->output, CCA_OUTPUT, 0, err);
    if (!status) status = bind_rope(m, err);
    if (!status) status = scale_stream(m, err);
    if (!status) status = refuse_unknown(m, err);
    if (!status) status = cca_backend_sync(m->backend, err);
    return status;
}

cca_status cca_model_open(cca_model **out, const cca_gguf *file, cca_backend *backend,
                          cca_error *err) {
    *out = NULL;
    cca_config config;
    cca_status status = cca_config_read(&config, file, err);
    if (status) return status;
    /* Checked before memory is taken for layers that the file only claims to have. */
    if ((uint64_t)config.n_layers > cca_gguf_n_tensors(file)) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: block_count is %lld, but the file has %llu tensors",
                        cca_gguf_name(file), (long long)config.n_layers,
                        (unsigned long long)cca_gguf_n_tensors(file));
    }
    cca_model *m = calloc(1, sizeof *m);
    if (!m) return cca_fail(err, CCA_NO_MEMORY, "no memory for the model");
    m->file = file;
    m->backend = backend;
    m->config = config;
    status = bind_all(m, err);
    free(m->known);
    m->known = NULL;
    if (status) {
        cca_model_close(m);
        return status;
    }
    *out = m;
    return CCA_OK;
}

void cca_model_close(cca_model *model) {
    if (!model) return;
    for (int64_t l = 0; model->layers && l < model->config.n_layers; l++) {
        for (cca_role r = CCA_FIRST_OF_LAYER; r < CCA_N_ROLES; r++) {
            cca_matrix_free(model->backend, &model->layers[l].w[r]);
        }
    }
    cca_matrix_free(model->backend, &model->embedding);
    cca_matrix_free(model->backend, &model->output_norm);
    cca_matrix_free(model->backend, &model->output);
    for (int64_t i = 0; i < model->n_moved; i++) free(model->moved[i]);
    free(model->moved);
    free(model->layers);
    cca_ropes_free(&model->ropes);
    free(model);
}

const cca_config *cca_model_config(const cca_model *model) {
    return &model->config;
}

uint64_t cca_model_weight_bytes(const cca_model *model) {
    return model->weight_bytes;
}

uint64_t cca_model_n_params(const cca_model *model) {
    return model->n_params;
}

/* ---- a state ------------------------------------------------------------------------ */

/* Where a buffer lies. Attention and the feed-forward part are never at work together, so theirs
 * lie in the same memory. */
typedef enum buffer_place { PLACE_OWN, PLACE_ATTENTION, PLACE_FFN, N_PLACES } buffer_place;

/* The activations of a chunk: every buffer's width, so that measuring and allocating agree. */
typedef struct buffer_shape {
    cca_matrix *matrix;
    int64_t rows, cols;
    buffer_place place;
    size_t at; /* bytes before it in its place */
} buffer_shape;

enum { N_BUFFERS = 11, BUFFER_ALIGNMENT = 256 };

/* Whether some layers, or queries, are turned by other angles than the rest. */
static bool has_others(const cca_config *c) {
    return (c->arch->plain_in_windows && c->own_window > 0) || c->query_beta != 0;
}

/* Lists the buffers and lays them out; bytes[] of each place. False where no memory is large
 * enough. */
static bool list_buffers(buffer_shape *list, size_t *bytes, cca_state *s, const cca_config *c,
                         int64_t chunk_size) {
    int64_t q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
    int64_t n_norm = cca_max(chunk_size, CCA_LOGIT_ROWS), n_other = has_others(c) ? chunk_size : 0;
    const buffer_shape all[N_BUFFERS] = {
        {&s->a.x, chunk_size, c->dim, PLACE_OWN, 0},
        {&s->a.h, n_norm, c->dim, PLACE_OWN, 0},
        {&s->a.q, chunk_size, q_dim, PLACE_ATTENTION, 0},
        {&s->a.k, chunk_size, kv_dim, PLACE_ATTENTION, 0},
        {&s->a.v, chunk_size, kv_dim, PLACE_ATTENTION, 0},
        {&s->a.attended, chunk_size, q_dim, PLACE_ATTENTION, 0},
        {&s->a.gate, chunk_size, c->hidden_dim, PLACE_FFN, 0},
        {&s->a.up, chunk_size, c->hidden_dim, PLACE_FFN, 0},
        {&s->angles, chunk_size, c->head_dim, PLACE_OWN, 0},
        {&s->other_angles, n_other, c->head_dim, PLACE_OWN, 0},
        {&s->logits, CCA_LOGIT_ROWS, c->vocab_size, PLACE_OWN, 0},
    };
    memcpy(list, all, sizeof all);
    memset(bytes, 0, N_PLACES * sizeof *bytes);
    for (int i = 0; i < N_BUFFERS; i++) {
        size_t *place = &bytes[list[i].place], size;
        list[i].at = *place;
        if (!cca_matrix_bytes(&size, CCA_F32, list[i].rows, list[i].cols) ||
            !cca_add(&size, size, BUFFER_ALIGNMENT - 1) ||
            !cca_add(place, *place, size / BUFFER_ALIGNMENT * BUFFER_ALIGNMENT)) {
            return false;
        }
    }
    return true;
}

/* All buffers are cut from one piece of memory. */
static bool total_bytes(size_t *out, const size_t *bytes) {
    size_t shared = bytes[PLACE_FFN];
    if (bytes[PLACE_ATTENTION] > shared) shared = bytes[PLACE_ATTENTION];
    return cca_add(out, bytes[PLACE_OWN], shared);
}

cca_cache_shape cca_state_cache_shape(const cca_config *c, const cca_state_options *o) {
    return (cca_cache_shape){.n_layers = o->one_layer ? 1 : c->n_layers,
                             .n_heads = c->n_heads,
                             .n_kv_heads = c->n_kv_heads,
                             .head_dim = c->head_dim,
                             .ctx_size = o->ctx_size,
                             .chunk_size = o->chunk_size,
                             .k_type = o->k_type,
                             .v_type = o->v_type,
                             .rows_apart = o->rows_apart,
                             .row_k_type = o->row_k_type,
                             .row_v_type = o->row_v_type,
                             .rows_on_host = o->rows_on_host,
                             .rows_near = o->rows_near,
                             .draft = o->draft,
                             .mark = o->mark,
                             .spread = o->spread,
                             .stored = o->stored,
                             .rows_folder = o->rows_folder,
                             .most_resident = o->most_resident};
}

cca_status cca_state_measure(cca_state_size *out, const cca_config *config,
                             const cca_state_options *options, cca_error *err) {
    cca_state unused;
    buffer_shape list[N_BUFFERS];
    size_t bytes[N_PLACES];
    cca_cache_shape shape = cca_state_cache_shape(config, options);
    if (options->ctx_size < 1 || options->chunk_size < 1) {
        return cca_fail(err, CCA_USAGE,
                        "context size %lld and chunk size %lld: both must be at least 1",
                        (long long)options->ctx_size, (long long)options->chunk_size);
    }
    if (!list_buffers(list, bytes, &unused, config, options->chunk_size) ||
        !total_bytes(&out->activations, bytes)) {
        return cca_fail(err, CCA_NO_MEMORY, "chunks of %lld tokens are larger than any memory",
                        (long long)options->chunk_size);
    }
    return cca_cache_measure(&out->cache, &shape, &options->policy, err);
}

cca_status cca_state_new(cca_state **out, const cca_model *model, cca_backend *backend,
                         const cca_state_options *options, cca_error *err) {
    *out = NULL;
    cca_state_size size = {0};
    cca_status status = cca_state_measure(&size, &model->config, options, err);
    if (status) return status;
    cca_state *s = calloc(1, sizeof *s);
    if (!s) return cca_fail(err, CCA_NO_MEMORY, "no memory for a session");
    s->model = model;
    s->backend = backend;
    s->rope = cca_ropes_of(&model->ropes, options->ctx_size);
    s->turns_otherwise = cca_ropes_in_windows(&s->other_rope, &model->ropes);
    buffer_shape list[N_BUFFERS];
    size_t bytes[N_PLACES];
    list_buffers(list, bytes, s, &model->config, options->chunk_size);
    s->buffers = cca_backend_alloc(backend, size.activations);
    for (int i = 0; s->buffers && i < N_BUFFERS; i++) {
        size_t at = list[i].at + (list[i].place == PLACE_OWN ? 0 : bytes[PLACE_OWN]);
        *list[i].matrix = (cca_matrix){.data = (char *)s->buffers + at,
                                       .type = CCA_F32,
                                       .rows = list[i].rows,
                                       .cols = list[i].cols};
    }
    s->ids = calloc((size_t)options->chunk_size, sizeof *s->ids);
    cca_cache_shape shape = cca_state_cache_shape(&model->config, options);
    status = cca_backend_sync(backend, err);
    if (!status && !s->ids) status = cca_fail(err, CCA_NO_MEMORY, "no memory for a session");
    if (!status) {
        status = cca_cache_new(&s->cache, backend, &shape, &options->policy, err);
    }
    if (status) {
        cca_state_free(s);
        return status;
    }
    *out = s;
    return CCA_OK;
}

void cca_state_free(cca_state *state) {
    if (!state) return;
    cca_backend_release(state->backend, state->buffers);
    cca_cache_free(state->cache);
    free(state->ids);
    free(state);
}

cca_cache *cca_state_cache(const cca_state *state) {
    return state->cache;
}

cca_status cca_state_spread(cca_state *state, cca_comm *comm, cca_error *err) {
    state->spread = true;
    return cca_cache_spread(state->cache, comm, state->model->config.n_layers, err);
}

cca_status cca_state_mark(cca_state *state, int64_t n_tokens, cca_error *err) {
    return cca_cache_mark(state->cache, n_tokens, err);
}

cca_status cca_state_rewind(cca_state *state, int64_t n_tokens, cca_error *err) {
    state->n_rows = 0;
    return cca_cache_rewind(state->cache, n_tokens, err);
}

/* ---- the forward pass --------------------------------------------------------------- */

/* A weight that some models have not. */
static const cca_matrix *given(const cca_matrix *weight) {
    return weight->data ? weight : NULL;
}

/* Each piece of a row as wide as the weight is normed by itself: each head. */
static void norm_heads(cca_backend *b, cca_matrix *x, const cca_matrix *weight, float eps,
                       int64_t n) {
    if (!weight->data) return;
    const int64_t n_heads = x->cols / weight->cols;
    cca_matrix heads = *x;
    heads.rows = x->rows * n_heads;
    heads.cols = weight->cols;
    cca_rmsnorm(b, &heads, &heads, 0, weight, eps, n * n_heads);
}

void cca_layer_begin(cca_backend *b, const cca_layer *layer, cca_activations *a, float eps,
                     int64_t n) {
    const cca_matrix *w = layer->w;
    const cca_product qkv[] = {
        {.out = &a->q, .weight = &w[CCA_ATTN_Q], .bias = given(&w[CCA_ATTN_Q_BIAS])},
        {.out = &a->k, .weight = &w[CCA_ATTN_K], .bias = given(&w[CCA_ATTN_K_BIAS])},
        {.out = &a->v, .weight = &w[CCA_ATTN_V], .bias = given(&w[CCA_ATTN_V_BIAS])},
    };
    if (w[CCA_ATTN_NORM].data) {
        cca_norm_matmul(b, qkv, 3, &a->h, &a->x, 0, &w[CCA_ATTN_NORM], eps, n);
    } else {
        cca_matmul(b, qkv, 3, &a->x, n);
    }
}

void cca_layer_end(cca_backend *b, const cca_layer *layer, cca_activations *a, float eps,
                   int64_t n) {
    const cca_matrix *w = layer->w;
    const cca_matrix *behind = given(&w[CCA_ATTN_NORM_BEHIND]);
    const cca_product o = {
        .out = behind ? &a->h : &a->x, .weight = &w[CCA_ATTN_OUT], .accumulate = !behind};
    const cca_ffn ffn = {.norm = given(&w[CCA_FFN_NORM]),
                         .gate = given(&w[CCA_FFN_GATE]),
                         .up = &w[CCA_FFN_UP],
                         .down = &w[CCA_FFN_DOWN],
                         .behind = given(&w[CCA_FFN_NORM_BEHIND]),
                         .eps = eps,
                         .h = &a->h,
                         .gated = &a->gate,
                         .upped = &a->up};
    cca_matmul(b, &o, 1, &a->attended, n);
    if (behind) cca_add_normed(b, &a->x, &a->h, behind, eps, n);
    cca_feed_forward(b, &a->x, &ffn, n);
}

/* Where queries grow with their position, theirs are made longer; as long as none has grown, they
 * are those of keys. */
static bool queries_grow(const cca_state *s, int64_t n) {
    const cca_config *c = &s->model->config;
    return c->query_beta != 0 && (double)(s->pos + n) > c->rope_original;
}

static void make_query_angles(cca_state *s, int64_t n) {
    const cca_config *c = &s->model->config;
    const int64_t step = (int64_t)c->rope_original;
    for (int64_t i = 0, some; i < n; i += some) {
        const int64_t pos = s->pos + i, n_steps = pos / step;
        cca_rope rope = s->rope;
        cca_matrix rows = s->other_angles;
        some = cca_min(n - i, (n_steps + 1) * step - pos);
        const double growth = 1 + c->query_beta * log1p((double)n_steps);
        rope.scale = (float)((double)rope.scale * growth);
        rope.still = (float)((double)rope.still * growth);
        rows.data = (float *)rows.data + i * rows.cols;
        rows.rows = some;
        cca_angles(s->backend, &rows, &rope, pos, some);
    }
}

/* Turns q by these angles, k by those of all. */
static void turn_both(cca_state *s, const cca_matrix *of_q, int64_t n) {
    cca_rotate(s->backend, &s->a.q, of_q, &s->rope, n);
    cca_rotate(s->backend, &s->a.k, &s->angles, &s->rope, n);
}

void cca_state_begin(cca_state *s, int64_t n) {
    const cca_model *m = s->model;
    cca_embed(s->backend, &s->a.x, &m->embedding, s->ids, m->embedding_scale, n);
    cca_angles(s->backend, &s->angles, &s->rope, s->pos, n);
    if (s->turns_otherwise) cca_angles(s->backend, &s->other_angles, &s->other_rope, s->pos, n);
    if (queries_grow(s, n)) make_query_angles(s, n);
}

const cca_turn *cca_state_turn(cca_turn *turn, cca_state *s, int64_t l, int64_t n) {
    const cca_config *c = &s->model->config;
    const cca_matrix *w = s->model->layers[l].w;
    const bool turns = cca_layer_turns(c, l), grow = queries_grow(s, n);
    const bool other = s->turns_otherwise && cca_layer_window(c, l) > 0;
    *turn = other ? (cca_turn){&s->other_angles, &s->other_rope} : (cca_turn){&s->angles, &s->rope};
    if (turns && c->arch->norms_turned) turn_both(s, &s->angles, n);
    norm_heads(s->backend, &s->a.q, &w[CCA_ATTN_Q_NORM], c->norm_eps, n);
    norm_heads(s->backend, &s->a.k, &w[CCA_ATTN_K_NORM], c->norm_eps, n);
    if (turns && grow) turn_both(s, &s->other_angles, n);
    return turns && !c->arch->norms_turned && !grow ? turn : NULL;
}

static void forward_layer(cca_state *s, int64_t l, int64_t n) {
    const cca_layer *layer = &s->model->layers[l];
    const float eps = s->model->stream_eps;
    cca_activations *a = &s->a;
    cca_layer_begin(s->backend, layer, a, eps, n);
    cca_turn room;
    const cca_turn *turn = cca_state_turn(&room, s, l, n);
    cca_cache_attend(s->cache, l, &a->attended, &a->q, &a->k, &a->v, turn,
                     cca_layer_window(&s->model->config, l), s->pos, n);
    cca_layer_end(s->backend, layer, a, eps, n);
}

static cca_status find_origin(cca_state *s, cca_error *err);

/* Keys and values of a row that are no finite numbers make its own stream such. Nobody may ask for
 * its logits, and who comes later may not see it, but would choose by it what is recalled. */
static cca_status check_rows(cca_state *s, int64_t n, cca_error *err) {
    const int64_t n_values = n * s->model->config.dim;
    if (!cca_backend_on_host(s->backend) || cca_all_finite(s->a.x.data, n_values)) return CCA_OK;
    return find_origin(s, err);
}

cca_status cca_model_forward(cca_state *s, const int32_t *ids, int64_t n, int64_t pos,
                             cca_error *err) {
    cca_backend *b = s->backend;
    s->n_rows = 0;
    s->pos = pos;
    if (n <= s->a.x.rows) memcpy(s->ids, ids, (size_t)n * sizeof *ids); /* else embed refuses */
    cca_state_begin(s, n);
    for (int64_t l = 0; l < s->model->config.n_layers; l++) forward_layer(s, l, n);
    /* One token is waited for when its logits are read: nothing stands still in between. */
    cca_status status = n == 1 ? cca_backend_report(b, err) : cca_backend_sync(b, err);
    if (status) return status;
    s->n_rows = n;
    return check_rows(s, n, err);
}

/* ---- numbers that are none ------------------------------------------------------------ */

/* CCA_BAD_MODEL names the first tensor of the file with such a value. */
static cca_status check_weights(const cca_gguf *file, cca_error *err) {
    enum { STEP = 256 }; /* values, a multiple of every block */
    for (uint64_t i = 0; i < cca_gguf_n_tensors(file); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(file, i);
        int64_t n = t->dims[0] * t->dims[1];
        for (int64_t at = 0, some; at < n; at += some) {
            size_t skip = 0;
            some = cca_min(STEP, n - at);
            cca_dtype_row_bytes(&skip, (cca_dtype)t->type, at);
            const char *at_data = (const char *)t->data + skip;
            if (cca_dtype_all_finite((cca_dtype)t->type, at_data, some)) continue;
            return cca_fail(err, CCA_BAD_MODEL,
                            "%s: tensor %s, row %lld: a weight is no finite number, and so are the "
                            "logits",
                            cca_gguf_name(file), t->name, (long long)(at / t->dims[0]));
        }
    }
    return CCA_OK;
}

/* The first of the last forward's rows of x with such a value; n_rows where there is none. */
static int64_t odd_row(cca_state *s, float *x, int64_t n_rows) {
    int64_t dim = s->model->config.dim, row = 0;
    cca_matrix_download(s->backend, x, &s->a.x, n_rows);
    while (row < n_rows && cca_all_finite(x + row * dim, dim)) row++;
    return row;
}

/* Makes the last forward again, layer by layer, and says where its numbers end. What the window
 * held is lost by that. */
static cca_status find_layer(cca_state *s, int64_t n, float *x, cca_error *err) {
    int64_t n_layers = s->model->config.n_layers, l = -1, row;
    cca_state_begin(s, n);
    while ((row = odd_row(s, x, n)) == n && ++l < n_layers) forward_layer(s, l, n);
    cca_status status = cca_backend_report(s->backend, err);
    if (status) return status;
    const char *name = cca_gguf_name(s->model->file);
    if (row == n) {
        return cca_fail(err, CCA_RUNTIME,
                        "%s: the logits are no finite numbers: they overflow behind the last layer",
                        name);
    }
    return cca_fail(
        err, CCA_RUNTIME,
        "%s: the logits are no finite numbers: they overflow in layer %lld of 0 … %lld, "
        "at position %lld",
        name, (long long)cca_max(l, 0), (long long)(n_layers - 1), (long long)(s->pos + row));
}

/* Why logits are no finite numbers: always a failure. */
static cca_status find_origin(cca_state *s, cca_error *err) {
    int64_t n = s->n_rows;
    s->n_rows = 0;
    cca_status status = check_weights(s->model->file, err);
    if (!status && s->spread) { /* the others would have to run it again, too */
        status = cca_fail(err, CCA_RUNTIME, "%s: the logits are no finite numbers",
                          cca_gguf_name(s->model->file));
    }
    if (status) return status;
    float *x = calloc((size_t)n, (size_t)s->model->config.dim * sizeof *x);
    status = x ? find_layer(s, n, x, err)
               : cca_fail(err, CCA_NO_MEMORY,
                          "%s: the logits are no finite numbers, and there is "
                          "no memory to find out why",
                          cca_gguf_name(s->model->file));
    free(x);
    return status;
}

/* Logits of rows that are there, in tiles. */
static cca_status make_logits(cca_state *s, int64_t row, int64_t n, float *out, cca_error *err) {
    const cca_model *m = s->model;
    if (row < 0 || n < 0 || row + n > s->n_rows) {
        return cca_fail(err, CCA_RUNTIME,
                        "logits of rows %lld … %lld: the last chunk has %lld rows", (long long)row,
                        (long long)(row + n - 1), (long long)s->n_rows);
    }
    for (int64_t end = row + n, some; row < end; row += some) {
        some = cca_min(CCA_LOGIT_ROWS, end - row);
        const cca_matrix *head = m->config.tied ? &m->embedding : &m->output;
        cca_norm_matmul(s->backend, &(cca_product){.out = &s->logits, .weight = head}, 1, &s->a.h,
                        &s->a.x, row, &m->output_norm, m->stream_eps, some);
        cca_matrix_download(s->backend, out, &s->logits, some);
        out += some * m->config.vocab_size;
    }
    return cca_backend_report(s->backend, err);
}

cca_status cca_model_logits(cca_state *s, int64_t row, int64_t n, float *out, cca_error *err) {
    cca_status status = make_logits(s, row, n, out, err);
    if (status || cca_all_finite(out, n * s->model->config.vocab_size)) return status;
    return find_origin(s, err);
}

cca_status cca_model_stream_logits(cca_state *state, const cca_matrix *x, int64_t row, int64_t n,
                                   float *out, cca_error *err) {
    cca_state s = *state;
    s.a.x = *x;
    s.n_rows = x->rows;
    cca_status status = make_logits(&s, row, n, out, err);
    if (status || cca_all_finite(out, n * s.model->config.vocab_size)) return status;
    return cca_fail(err, CCA_RUNTIME, "%s: the logits are no finite numbers",
                    cca_gguf_name(s.model->file));
}
