#include "model.h"

#include "backend/kquants.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct layer_weights {
    cca_matrix attn_norm, q, k, v, o, ffn_norm, gate, up, down;
    cca_matrix q_bias, k_bias, v_bias;
} layer_weights;

struct cca_model {
    const cca_gguf *file;
    cca_backend *backend;
    cca_config config;
    cca_matrix embedding, output_norm, output;
    layer_weights *layers;
    double *inv_freq; /* [head_dim / 2] */
    float rope_scale;
    uint64_t weight_bytes, n_params, n_bound;
};

/* Logits are made for this many rows at a time. */
enum { LOGIT_ROWS = 32 };

struct cca_state {
    const cca_model *model;
    cca_backend *backend;
    cca_cache *cache;
    cca_rope rope;
    int64_t n_rows; /* rows of x that hold the last forward's tokens */
    void *buffers;  /* memory of the matrices */
    cca_matrix x, h, q, k, v, attended, gate, up, angles, logits;
};

/* ---- binding ------------------------------------------------------------------------ */

/* What export reads: everything that runs, and more types of matrices. */
static bool is_convertible(const cca_gguf_tensor *t) {
    bool known = cca_dtype_known(t->type);
    if (t->n_dims == 1) return known && cca_dtype_block((cca_dtype)t->type) == 1;
    return known || cca_kquant_known(t->type);
}

/* Says how to get a file that runs, ready for a shell: MODEL.gguf becomes MODEL-q8_0.gguf. */
static cca_status refuse_type(const char *path, const cca_gguf_tensor *t, cca_error *err) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_./-+,@%=:";
    enum { LONGEST_PATH = 300 };
    if (!is_convertible(t)) {
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

/* Binds one tensor of (rows, cols) values; rows = 0 is a vector, which must be f32. */
static cca_status bind(cca_model *m, cca_matrix *out, const char *name, int64_t rows, int64_t cols,
                       cca_error *err) {
    const char *path = cca_gguf_name(m->file);
    const cca_gguf_tensor *t = cca_gguf_find(m->file, name);
    if (!t) return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s is missing", path, name);
    bool fits = rows == 0 ? t->n_dims == 1 && t->dims[0] == cols
                          : t->n_dims == 2 && t->dims[0] == cols && t->dims[1] == rows;
    if (!fits) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: tensor %s has shape [%" PRId64 ", %" PRId64 "]%s, not [%" PRId64
                        ", %" PRId64 "]",
                        path, name, t->dims[0], t->dims[1], t->n_dims > 2 ? " and more" : "", cols,
                        cca_max(rows, 1));
    }
    if (!cca_dtype_known(t->type) || (rows == 0 && t->type != CCA_F32)) {
        return refuse_type(path, t, err);
    }
    cca_matrix_load(m->backend, out, (cca_dtype)t->type, cca_max(rows, 1), cols, t->data);
    m->weight_bytes += t->bytes;
    m->n_params += (uint64_t)(cca_max(rows, 1) * cols);
    m->n_bound++;
    return CCA_OK;
}

static cca_status bind_layer(cca_model *m, int64_t index, cca_error *err) {
    const cca_config *c = &m->config;
    layer_weights *l = &m->layers[index];
    int64_t q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
    const struct {
        cca_matrix *out;
        const char *name;
        int64_t rows, cols;
    } list[] = {
        {&l->attn_norm, "attn_norm.weight", 0, c->dim},
        {&l->q, "attn_q.weight", q_dim, c->dim},
        {&l->k, "attn_k.weight", kv_dim, c->dim},
        {&l->v, "attn_v.weight", kv_dim, c->dim},
        {&l->o, "attn_output.weight", c->dim, q_dim},
        {&l->ffn_norm, "ffn_norm.weight", 0, c->dim},
        {&l->gate, "ffn_gate.weight", c->hidden_dim, c->dim},
        {&l->up, "ffn_up.weight", c->hidden_dim, c->dim},
        {&l->down, "ffn_down.weight", c->dim, c->hidden_dim},
        {&l->q_bias, "attn_q.bias", 0, q_dim},
        {&l->k_bias, "attn_k.bias", 0, kv_dim},
        {&l->v_bias, "attn_v.bias", 0, kv_dim},
    };
    int n = (int)(sizeof list / sizeof *list) - (c->has_bias ? 0 : 3);
    for (int i = 0; i < n; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%" PRId64 ".%s", index, list[i].name);
        cca_status status = bind(m, list[i].out, name, list[i].rows, list[i].cols, err);
        if (status != CCA_OK) return status;
    }
    return CCA_OK;
}

/* Whether bind_layer looked for this tensor of a layer in 0 … n_layers - 1. */
static bool is_layer_tensor(const cca_config *c, const char *name) {
    static const char *const known[] = {
        "attn_norm.weight",   "attn_q.weight",   "attn_k.weight",   "attn_v.weight",
        "attn_output.weight", "ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight",
        "ffn_down.weight",    "attn_q.bias",     "attn_k.bias",     "attn_v.bias",
    };
    int64_t layer;
    int at = 0;
    if (sscanf(name, "blk.%" SCNd64 ".%n", &layer, &at) != 1 || at == 0) return false;
    if (layer < 0 || layer >= c->n_layers) return false;
    int n = (int)(sizeof known / sizeof *known) - (c->has_bias ? 0 : 3);
    for (int i = 0; i < n; i++) {
        if (strcmp(name + at, known[i]) == 0) return true;
    }
    return false;
}

/* A tensor that nobody reads would silently change the answers. */
static cca_status refuse_unknown(const cca_model *m, cca_error *err) {
    uint64_t n = cca_gguf_n_tensors(m->file);
    for (uint64_t i = 0; n != m->n_bound && i < n; i++) {
        const char *name = cca_gguf_tensor_at(m->file, i)->name;
        bool known = strcmp(name, "token_embd.weight") == 0 ||
                     strcmp(name, "output_norm.weight") == 0 ||
                     strcmp(name, "output.weight") == 0 || strcmp(name, "rope_freqs.weight") == 0 ||
                     is_layer_tensor(&m->config, name);
        if (!known) {
            return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s is unknown to this architecture",
                            cca_gguf_name(m->file), name);
        }
    }
    return CCA_OK;
}

/* ---- RoPE --------------------------------------------------------------------------- */

/* Dimension pair that turns `rotations` times over the original context (YaRN, eq. 18 there). */
static double yarn_dim(const cca_config *c, double rotations) {
    return (double)c->head_dim * log(c->rope_original / (rotations * 2 * M_PI)) /
           (2 * log(c->rope_theta));
}

static void scale_yarn(cca_model *m) {
    const cca_config *c = &m->config;
    double low = fmax(floor(yarn_dim(c, c->yarn_beta_fast)), 0);
    double high = fmin(ceil(yarn_dim(c, c->yarn_beta_slow)), (double)c->head_dim - 1);
    for (int64_t k = 0; k < c->head_dim / 2; k++) {
        double ramp = fmin(fmax(((double)k - low) / fmax(high - low, 0.001), 0), 1);
        m->inv_freq[k] *= ramp / c->rope_factor + (1 - ramp);
    }
    m->rope_scale = (float)(c->yarn_attn_factor * (1 + 0.1 * log(c->rope_factor)));
}

static cca_status make_rope(cca_model *m, cca_error *err) {
    const cca_config *c = &m->config;
    int64_t half = c->head_dim / 2;
    m->rope_scale = 1;
    m->inv_freq = malloc((size_t)half * sizeof *m->inv_freq);
    if (!m->inv_freq) return cca_fail(err, CCA_NO_MEMORY, "no memory for the RoPE frequencies");
    for (int64_t k = 0; k < half; k++) {
        m->inv_freq[k] = pow(c->rope_theta, -(double)k / (double)half);
        if (c->rope_kind == CCA_ROPE_LINEAR) m->inv_freq[k] /= c->rope_factor;
    }
    if (c->rope_kind == CCA_ROPE_YARN) scale_yarn(m);
    if (c->rope_kind != CCA_ROPE_FACTORS) return CCA_OK;

    const cca_gguf_tensor *t = cca_gguf_find(m->file, "rope_freqs.weight");
    if (t->type != CCA_F32 || t->n_dims != 1 || t->dims[0] != half) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: tensor rope_freqs.weight must hold %lld f32 values",
                        cca_gguf_name(m->file), (long long)half);
    }
    for (int64_t k = 0; k < half; k++) {
        float divisor;
        memcpy(&divisor, (const char *)t->data + (size_t)k * sizeof divisor, sizeof divisor);
        if (!(divisor > 0) || !isfinite(divisor)) {
            return cca_fail(err, CCA_BAD_MODEL,
                            "%s: tensor rope_freqs.weight: value %lld is not positive",
                            cca_gguf_name(m->file), (long long)k);
        }
        m->inv_freq[k] /= divisor;
    }
    m->n_bound++;
    return CCA_OK;
}

/* ---- the model ---------------------------------------------------------------------- */

static cca_status bind_all(cca_model *m, cca_error *err) {
    const cca_config *c = &m->config;
    cca_status status = bind(m, &m->embedding, "token_embd.weight", c->vocab_size, c->dim, err);
    for (int64_t l = 0; status == CCA_OK && l < c->n_layers; l++) status = bind_layer(m, l, err);
    if (status == CCA_OK) status = bind(m, &m->output_norm, "output_norm.weight", 0, c->dim, err);
    if (status == CCA_OK && !c->tied) {
        status = bind(m, &m->output, "output.weight", c->vocab_size, c->dim, err);
    }
    if (status == CCA_OK) status = make_rope(m, err);
    if (status == CCA_OK) status = refuse_unknown(m, err);
    if (status == CCA_OK) status = cca_backend_sync(m->backend, err);
    return status;
}

cca_status cca_model_open(cca_model **out, const cca_gguf *file, cca_backend *backend,
                          cca_error *err) {
    *out = NULL;
    cca_config config;
    cca_status status = cca_config_read(&config, file, err);
    if (status != CCA_OK) return status;
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
    m->layers = calloc((size_t)config.n_layers, sizeof *m->layers);
    status =
        m->layers ? bind_all(m, err) : cca_fail(err, CCA_NO_MEMORY, "no memory for the layers");
    if (status != CCA_OK) {
        cca_model_close(m);
        return status;
    }
    *out = m;
    return CCA_OK;
}

void cca_model_close(cca_model *model) {
    if (!model) return;
    for (int64_t l = 0; model->layers && l < model->config.n_layers; l++) {
        layer_weights *w = &model->layers[l];
        cca_matrix *all[] = {&w->attn_norm, &w->q,  &w->k,    &w->v,      &w->o,      &w->ffn_norm,
                             &w->gate,      &w->up, &w->down, &w->q_bias, &w->k_bias, &w->v_bias};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            cca_matrix_free(model->backend, all[i]);
    }
    cca_matrix_free(model->backend, &model->embedding);
    cca_matrix_free(model->backend, &model->output_norm);
    cca_matrix_free(model->backend, &model->output);
    free(model->layers);
    free(model->inv_freq);
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

enum { N_BUFFERS = 10, BUFFER_ALIGNMENT = 256 };

/* Lists the buffers and lays them out; bytes[] of each place. False where no memory is large
 * enough. */
static bool list_buffers(buffer_shape *list, size_t *bytes, cca_state *s, const cca_config *c,
                         int64_t chunk_size) {
    int64_t q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
    int64_t n_norm = cca_max(chunk_size, LOGIT_ROWS);
    const buffer_shape all[N_BUFFERS] = {
        {&s->x, chunk_size, c->dim, PLACE_OWN, 0},
        {&s->h, n_norm, c->dim, PLACE_OWN, 0},
        {&s->q, chunk_size, q_dim, PLACE_ATTENTION, 0},
        {&s->k, chunk_size, kv_dim, PLACE_ATTENTION, 0},
        {&s->v, chunk_size, kv_dim, PLACE_ATTENTION, 0},
        {&s->attended, chunk_size, q_dim, PLACE_ATTENTION, 0},
        {&s->gate, chunk_size, c->hidden_dim, PLACE_FFN, 0},
        {&s->up, chunk_size, c->hidden_dim, PLACE_FFN, 0},
        {&s->angles, chunk_size, c->head_dim, PLACE_OWN, 0},
        {&s->logits, LOGIT_ROWS, c->vocab_size, PLACE_OWN, 0},
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

static cca_cache_shape cache_shape(const cca_config *c, const cca_state_options *o) {
    return (cca_cache_shape){.n_layers = c->n_layers,
                             .n_heads = c->n_heads,
                             .n_kv_heads = c->n_kv_heads,
                             .head_dim = c->head_dim,
                             .ctx_size = o->ctx_size,
                             .chunk_size = o->chunk_size,
                             .k_type = o->k_type,
                             .v_type = o->v_type,
                             .mark = o->mark,
                             .stored = o->stored};
}

cca_status cca_state_measure(cca_state_size *out, const cca_config *config,
                             const cca_state_options *options, cca_error *err) {
    cca_state unused;
    buffer_shape list[N_BUFFERS];
    size_t bytes[N_PLACES];
    cca_cache_shape shape = cache_shape(config, options);
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
    if (status != CCA_OK) return status;
    cca_state *s = calloc(1, sizeof *s);
    if (!s) return cca_fail(err, CCA_NO_MEMORY, "no memory for a session");
    s->model = model;
    s->backend = backend;
    s->rope = (cca_rope){.inv_freq = model->inv_freq,
                         .half = model->config.head_dim / 2,
                         .scale = model->rope_scale,
                         .interleaved = model->config.arch == CCA_ARCH_LLAMA};
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
    cca_cache_shape shape = cache_shape(&model->config, options);
    status = cca_backend_sync(backend, err);
    if (status == CCA_OK) {
        status = cca_cache_new(&s->cache, backend, &shape, &options->policy, err);
    }
    if (status != CCA_OK) {
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
    free(state);
}

cca_cache *cca_state_cache(const cca_state *state) {
    return state->cache;
}

cca_status cca_state_mark(cca_state *state, int64_t n_tokens, cca_error *err) {
    return cca_cache_mark(state->cache, n_tokens, err);
}

cca_status cca_state_rewind(cca_state *state, int64_t n_tokens, cca_error *err) {
    state->n_rows = 0;
    return cca_cache_rewind(state->cache, n_tokens, err);
}

/* ---- the forward pass --------------------------------------------------------------- */

static void attention(cca_state *s, int64_t layer, int64_t n, int64_t pos) {
    const layer_weights *w = &s->model->layers[layer];
    bool bias = s->model->config.has_bias;
    cca_backend *b = s->backend;
    const cca_turn turn = {&s->angles, &s->rope};
    const cca_product qkv[] = {
        {.out = &s->q, .weight = &w->q, .bias = bias ? &w->q_bias : NULL},
        {.out = &s->k, .weight = &w->k, .bias = bias ? &w->k_bias : NULL},
        {.out = &s->v, .weight = &w->v, .bias = bias ? &w->v_bias : NULL},
    };
    cca_norm_matmul(b, qkv, 3, &s->h, &s->x, 0, &w->attn_norm, s->model->config.norm_eps, n);
    cca_cache_attend(s->cache, layer, &s->attended, &s->q, &s->k, &s->v, &turn, pos, n);
    cca_matmul(b, &(cca_product){.out = &s->x, .weight = &w->o, .accumulate = true}, 1,
               &s->attended, n);
}

static void feed_forward(cca_state *s, int64_t layer, int64_t n) {
    const layer_weights *w = &s->model->layers[layer];
    const cca_ffn ffn = {.norm = &w->ffn_norm,
                         .gate = &w->gate,
                         .up = &w->up,
                         .down = &w->down,
                         .eps = s->model->config.norm_eps,
                         .h = &s->h,
                         .gated = &s->gate,
                         .upped = &s->up};
    cca_feed_forward(s->backend, &s->x, &ffn, n);
}

cca_status cca_model_forward(cca_state *s, const int32_t *ids, int64_t n, int64_t pos,
                             cca_error *err) {
    const cca_model *m = s->model;
    s->n_rows = 0;
    cca_embed(s->backend, &s->x, &m->embedding, ids, n);
    cca_angles(s->backend, &s->angles, &s->rope, pos, n);
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        attention(s, l, n, pos);
        feed_forward(s, l, n);
    }
    /* One token is waited for when its logits are read: nothing stands still in between. */
    cca_status status =
        n == 1 ? cca_backend_report(s->backend, err) : cca_backend_sync(s->backend, err);
    if (status == CCA_OK) s->n_rows = n;
    return status;
}

cca_status cca_model_logits(cca_state *s, int64_t row, int64_t n, float *out, cca_error *err) {
    const cca_model *m = s->model;
    if (row < 0 || n < 0 || row + n > s->n_rows) {
        return cca_fail(err, CCA_RUNTIME,
                        "logits of rows %lld … %lld: the last chunk has %lld rows", (long long)row,
                        (long long)(row + n - 1), (long long)s->n_rows);
    }
    for (int64_t end = row + n, some; row < end; row += some) {
        some = cca_min(LOGIT_ROWS, end - row);
        const cca_matrix *head = m->config.tied ? &m->embedding : &m->output;
        cca_norm_matmul(s->backend, &(cca_product){.out = &s->logits, .weight = head}, 1, &s->h,
                        &s->x, row, &m->output_norm, m->config.norm_eps, some);
        cca_matrix_download(s->backend, out, &s->logits, some);
        out += some * m->config.vocab_size;
    }
    return cca_backend_report(s->backend, err);
}
