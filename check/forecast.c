#include "check/forecast.h"

#include "base/clock.h"
#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    LEAST_ROWS = 64, /* of a matrix that is timed in part */
    MOST_SAMPLES = 64,
    LEAST_SAMPLES = 5,
    MOST_COPIES = 512,
    MOST_POINTS = 3,
    DEVICE_STEPS = 16,  /* in a sample, where they are short */
    DISTINCT_ROWS = 64, /* of random values: how much power a device draws depends on them */
    QUERY_TILE = 128,   /* queries that go through the keys together */
};

static const double WARM_SECONDS = 0.2;    /* until the system has given threads their processors */
static const double SAMPLE_SECONDS = 0.06; /* of each measurement */
static const double DEVICE_SECONDS = 0.2;  /* the same: its clocks go down under load */
static const double SHORT_SECONDS = 0.005; /* a step of a device, beside which the wait counts */
static const size_t LAYER_BYTES = 24 << 20;  /* of a layer's matrices on a CPU; a device has all */
static const size_t WEIGHT_BYTES = 96 << 20; /* beyond what processors keep in caches */
static const size_t HEADS_BYTES = 8 << 20; /* of keys and values that are timed, where there are */
static const size_t LINK_BYTES = 64 << 20; /* that come over a device's link */
static const size_t CACHE_BYTES = 32 << 20, DEVICE_CACHE_BYTES = 256 << 20; /* of keys and values */

/* What attention of one layer takes for a number of keys seen. */
typedef struct point {
    double keys, seconds;
} point;

typedef struct curve {
    point points[MOST_POINTS];
    int n;
} curve;

struct cca_forecaster {
    cca_backend *backend;
    const cca_config *config;
    int n_threads; /* of a CPU, else 0 */
    int64_t chunk_size;
    double *inv_freq;
    cca_rope rope;
    cca_matrix shapes[CCA_N_ROLES]; /* of a layer's weights that are timed, without data */
    int n_norms;                    /* of a layer */
    double layer_bytes, head_bytes; /* of a layer's products, and of the output's */
    double chunk_s;                 /* of a chunk, all layers, without attention */
    double token_s;                 /* of one token, with its logits */
    double head_s;                  /* of the logits alone */
    cca_rule rule;
    int64_t recall;        /* tokens */
    curve prefill, decode; /* a chunk's attention, a token's; of one layer */
    double position_s; /* that a position's rows of one layer come from the host; 0: they do not */
    bool warm;         /* threads and clocks have begun to run */
    cca_status status; /* the first failure of what was timed */
    cca_error error;
};

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Some steps of some work, and the wait for them: operations of a device overlap. */
static cca_status take_sample(cca_forecaster *s, void (*step)(void *work, int i), void *work,
                              int first, int n_steps, double *took) {
    double begin = cca_seconds();
    for (int i = 0; i < n_steps; i++) step(work, first + i);
    if (!s->status) s->status = cca_backend_sync(s->backend, &s->error);
    *took = cca_seconds() - begin;
    return s->status;
}

/* What counts of n samples: on a CPU the lower quartile, since another process may hold it up; on a
 * device the median of the later half, when its clocks have settled. */
static double typical(const cca_forecaster *s, double *samples, int n) {
    int from = s->n_threads ? 0 : n / 2;
    qsort(samples + from, (size_t)(n - from), sizeof *samples, compare);
    return samples[from + (n - from) / (s->n_threads ? 4 : 2)];
}

/* Seconds of step 0, 1, … of some work; the first samples warm up. 0 after a failure, which
 * sticks. */
static double time_of(cca_forecaster *s, void (*step)(void *work, int i), void *work) {
    double samples[MOST_SAMPLES], total = 0, took;
    double enough = s->n_threads ? SAMPLE_SECONDS : DEVICE_SECONDS;
    for (double begin = cca_seconds(); !s->warm; s->warm = cca_seconds() - begin > WARM_SECONDS) {
        if (take_sample(s, step, work, 0, 1, &took)) return 0;
    }
    for (int twice = 0; twice < 2; twice++) {
        if (take_sample(s, step, work, twice, 1, &took)) return 0;
    }
    int n = 0, n_steps = s->n_threads || took > SHORT_SECONDS ? 1 : DEVICE_STEPS;
    while (n < LEAST_SAMPLES || (n < MOST_SAMPLES && total < enough)) {
        if (take_sample(s, step, work, 2 + n * n_steps, n_steps, &samples[n])) return 0;
        total += samples[n++];
    }
    return typical(s, samples, n) / n_steps;
}

/* The failure of what was timed, or of what else the backend was to do. */
static cca_status outcome(cca_forecaster *s, cca_error *err) {
    if (s->status) return cca_fail(err, s->status, "%s", s->error.text);
    return cca_backend_sync(s->backend, err);
}

static void fail_memory(cca_backend *b) {
    cca_backend_fail(b, CCA_NO_MEMORY, "no memory to measure the speed with");
}

/* rows ≥ 1 of random values of a type, the same ones over and over; the caller frees them. NULL
 * makes the backend fail. */
static void *random_rows(cca_backend *b, cca_dtype type, int64_t rows, int64_t cols) {
    size_t row_bytes = 0, bytes = 0;
    uint64_t state = 1;
    bool exists = cca_matrix_bytes(&bytes, type, rows, cols);
    cca_dtype_row_bytes(&row_bytes, type, cols);
    char *out = exists ? malloc(bytes + 1) : NULL;
    if (!out) {
        fail_memory(b);
        return NULL;
    }
    for (int64_t r = 0; r < cca_min(rows, DISTINCT_ROWS); r++) {
        cca_dtype_fill(out + (size_t)r * row_bytes, type, cols, &state);
    }
    size_t block = DISTINCT_ROWS * row_bytes;
    for (size_t at = block; at < bytes; at += block) {
        memcpy(out + at, out, bytes - at < block ? bytes - at : block);
    }
    return out;
}

/* A matrix of activations with random values. */
static void random_matrix(cca_backend *b, cca_matrix *out, int64_t rows, int64_t cols) {
    cca_matrix_alloc(b, out, CCA_F32, rows, cols);
    float *values = random_rows(b, CCA_F32, rows, cols);
    if (values) {
        cca_backend_upload(b, out->data, values, (size_t)rows * (size_t)cols * sizeof *values);
    }
    free(values);
}

/* ---- the shapes ------------------------------------------------------------------------ */

/* Types are those of the layer in the middle: the first and the last ones may be finer. On a CPU
 * the products are timed, of a device's layer all. */
static cca_status read_shapes(cca_forecaster *s, const cca_gguf *file, cca_error *err) {
    const cca_config *c = s->config;
    char name[CCA_TENSOR_NAME];
    for (cca_role r = CCA_FIRST_OF_LAYER; r < CCA_N_ROLES; r++) {
        if (!cca_tensor_needed(r, c)) continue;
        cca_shape shape = cca_tensor_shape(r, c);
        s->n_norms += cca_tensors[r].is_norm;
        if (shape.vector && s->n_threads == 0) {
            s->shapes[r] = (cca_matrix){.rows = 1, .cols = shape.rows};
        }
        if (shape.vector) continue;
        cca_tensor_place place; /* perhaps some rows of a larger tensor */
        cca_status status = cca_tensor_find(&place, file, r, c->n_layers / 2, c, err);
        if (status) return status;
        const cca_dtype type = (cca_dtype)place.tensor->type;
        size_t bytes = 0;
        if (!cca_dtype_runs(place.tensor->type) ||
            !cca_matrix_bytes(&bytes, type, shape.rows, shape.cols)) {
            return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s does not run", cca_gguf_name(file),
                            place.tensor->name);
        }
        s->shapes[r] = (cca_matrix){NULL, type, shape.rows, shape.cols, false};
        s->layer_bytes += (double)bytes;
    }
    cca_tensor_name(name, c->tied ? CCA_EMBEDDING : CCA_OUTPUT, 0, c->arch);
    const cca_gguf_tensor *head = cca_gguf_find(file, name);
    if (head) s->head_bytes = (double)head->bytes;
    return CCA_OK;
}

/* ---- products -------------------------------------------------------------------------- */

/* Copies of a layer's weights, each with a share of the rows. */
typedef struct layer_copies {
    cca_forecaster *s;
    int64_t n_tokens;
    int n;
    double bytes; /* of a copy */
    cca_layer *layers;
    void *host[CCA_N_ROLES];
    cca_matrix in[CCA_N_INPUTS], out[CCA_N_ROLES];
} layer_copies;

/* A share of the rows of a weight, which may be absent. */
static cca_matrix part_of(const cca_matrix *whole, double share) {
    cca_matrix part = *whole;
    int64_t rows = (int64_t)(share * (double)whole->rows) / LEAST_ROWS * LEAST_ROWS;
    if (share < 1) part.rows = cca_min(whole->rows, cca_max(rows, LEAST_ROWS));
    return part;
}

static void free_copies(layer_copies *l) {
    cca_backend *b = l->s->backend;
    for (cca_role r = CCA_FIRST_OF_LAYER; r < CCA_N_ROLES; r++) {
        for (int i = 0; l->layers && i < l->n; i++) cca_matrix_free(b, &l->layers[i].w[r]);
        cca_matrix_free(b, &l->out[r]);
        free(l->host[r]);
    }
    for (int i = 0; i < CCA_N_INPUTS; i++) cca_matrix_free(b, &l->in[i]);
    free(l->layers);
}

/* A weight in each copy, what it is multiplied with, and room for the product. On a CPU a copy is a
 * place in one block of host memory. */
static void copy_weight(layer_copies *l, cca_role role, const cca_matrix *shape) {
    cca_backend *b = l->s->backend;
    size_t bytes = 0;
    cca_matrix_bytes(&bytes, shape->type, shape->rows, shape->cols);
    char *host = random_rows(b, shape->type, shape->rows * l->n, shape->cols);
    l->host[role] = host;
    for (int i = 0; host && i < l->n; i++) {
        cca_matrix_load(b, &l->layers[i].w[role], shape->type, shape->rows, shape->cols,
                        host + (size_t)i * bytes);
    }
    cca_input input = cca_tensors[role].input;
    if (input == CCA_INPUT_NONE) return;
    if (!l->in[input].rows) random_matrix(b, &l->in[input], l->s->chunk_size, shape->cols);
    cca_matrix_alloc(b, &l->out[role], CCA_F32, l->s->chunk_size, shape->rows);
}

/* As many copies as the model has layers, at most total bytes. */
static void make_copies(layer_copies *l, cca_forecaster *s, double share, double total) {
    cca_matrix shapes[CCA_N_ROLES];
    *l = (layer_copies){.s = s};
    for (cca_role r = CCA_FIRST_OF_LAYER; r < CCA_N_ROLES; r++) {
        size_t bytes = 0;
        shapes[r] = part_of(&s->shapes[r], share);
        cca_matrix_bytes(&bytes, shapes[r].type, shapes[r].rows, shapes[r].cols);
        l->bytes += (double)bytes;
    }
    double n = cca_max(1, (int64_t)(total / l->bytes)), most = (double)s->config->n_layers;
    if (share < 1) most *= s->layer_bytes / l->bytes;
    l->n = (int)cca_min((int64_t)(n < most ? n : most), MOST_COPIES);
    l->layers = calloc((size_t)l->n, sizeof *l->layers);
    if (!l->layers) fail_memory(s->backend);
    for (cca_role r = CCA_FIRST_OF_LAYER; l->layers && r < CCA_N_ROLES; r++) {
        if (shapes[r].rows) copy_weight(l, r, &shapes[r]);
    }
}

/* The products of one input are made together, as in the forward pass. */
static void multiply_layer(void *work, int i) {
    layer_copies *l = work;
    const cca_matrix *w = l->layers[i % l->n].w;
    for (cca_input input = CCA_INPUT_STREAM; input < CCA_N_INPUTS; input++) {
        cca_product products[CCA_N_ROLES];
        int n = 0;
        for (cca_role r = CCA_FIRST_OF_LAYER; r < CCA_N_ROLES; r++) {
            if (cca_tensors[r].input != input || !w[r].rows) continue;
            products[n++] = (cca_product){
                .out = &l->out[r], .weight = &w[r], .accumulate = cca_tensors[r].adds};
        }
        cca_matmul(l->s->backend, products, n, &l->in[input], l->n_tokens);
    }
}

/* A layer of a device, in the operations of the forward pass, which the device may do as one: all
 * but rotation and attention. */
static void whole_layer(void *work, int i) {
    layer_copies *l = work;
    const cca_layer *layer = &l->layers[i % l->n];
    cca_backend *b = l->s->backend;
    cca_activations a = {.x = l->in[CCA_INPUT_STREAM],
                         .h = l->out[CCA_ATTN_OUT],
                         .q = l->out[CCA_ATTN_Q],
                         .k = l->out[CCA_ATTN_K],
                         .v = l->out[CCA_ATTN_V],
                         .attended = l->in[CCA_INPUT_ATTENDED],
                         .gate = l->out[CCA_FFN_GATE],
                         .up = l->out[CCA_FFN_UP]};
    cca_layer_begin(b, layer, &a, l->s->config->norm_eps, l->n_tokens);
    cca_layer_end(b, layer, &a, l->s->config->norm_eps, l->n_tokens);
}

/* Seconds of a copy's products of a chunk, and of one token. */
static cca_status time_copies(cca_forecaster *s, double share, double *chunk, double *token,
                              double *bytes, cca_error *err) {
    layer_copies l;
    void (*step)(void *, int) = s->n_threads ? multiply_layer : whole_layer;
    make_copies(&l, s, share, (double)WEIGHT_BYTES);
    cca_status status = cca_backend_sync(s->backend, err);
    if (!status) {
        l.n_tokens = 1;
        *token = time_of(s, step, &l);
        l.n_tokens = s->chunk_size;
        *chunk = time_of(s, step, &l);
        *bytes = l.bytes;
        status = outcome(s, err);
    }
    free_copies(&l);
    return status;
}

/* What does not grow with the rows (the inputs' conversion, the calls) is told apart by timing few
 * rows and more. */
static cca_status time_products(cca_forecaster *s, double *chunk, double *token, cca_error *err) {
    double share = 1, bytes, few_bytes, few_chunk, few_token;
    if (s->n_threads > 0 && s->layer_bytes > (double)LAYER_BYTES) {
        share = (double)LAYER_BYTES / s->layer_bytes;
    }
    cca_status status = time_copies(s, share, chunk, token, &bytes, err);
    if (status || share == 1) return status;
    status = time_copies(s, share / 4, &few_chunk, &few_token, &few_bytes, err);
    if (status || bytes <= few_bytes) return status;
    double more = (s->layer_bytes - bytes) / (bytes - few_bytes);
    *chunk += more * (*chunk - few_chunk);
    *token += more * (*token - few_token);
    return status;
}

/* ---- the other operations --------------------------------------------------------------- */

typedef struct rest_work {
    cca_forecaster *s;
    int64_t n_tokens;
    cca_matrix x, h, norm, q, k, gate, up, angles;
} rest_work;

static void rest_of_layer(void *work, int i) {
    rest_work *r = work;
    cca_backend *b = r->s->backend;
    (void)i;
    for (int norm = 0; norm < r->s->n_norms; norm++) {
        cca_rmsnorm(b, &r->h, &r->x, 0, &r->norm, 1e-5f, r->n_tokens);
    }
    cca_rotate(b, &r->q, &r->angles, &r->s->rope, r->n_tokens);
    cca_rotate(b, &r->k, &r->angles, &r->s->rope, r->n_tokens);
    cca_swiglu(b, &r->gate, &r->up, r->n_tokens);
}

static void rest_of_chunk(void *work, int i) {
    rest_work *r = work;
    cca_backend *b = r->s->backend;
    cca_angles(b, &r->angles, &r->s->rope, i, r->n_tokens);
    cca_rmsnorm(b, &r->h, &r->x, 0, &r->norm, 1e-5f, r->n_tokens); /* as long as the embedding */
}

static void time_rest(rest_work *r, double *layer, double *chunk, int64_t n) {
    r->n_tokens = n;
    *chunk = time_of(r->s, rest_of_chunk, r);
    *layer = r->s->n_threads ? time_of(r->s, rest_of_layer, r) : 0;
}

/* Adds what norms, rotation, activation and embedding take to a chunk's and a token's seconds; of a
 * device only the last, since its layers are timed whole. */
static cca_status add_rest(cca_forecaster *s, cca_error *err) {
    const cca_config *c = s->config;
    cca_backend *b = s->backend;
    int64_t n = s->chunk_size;
    double layer, chunk, layers = (double)c->n_layers;
    rest_work r = {.s = s};
    cca_matrix *const matrices[] = {&r.x, &r.h, &r.norm, &r.q, &r.k, &r.gate, &r.up, &r.angles};
    const int64_t cols[] = {c->dim,
                            c->dim,
                            c->dim,
                            s->shapes[CCA_ATTN_Q].rows,
                            s->shapes[CCA_ATTN_K].rows,
                            c->hidden_dim,
                            c->hidden_dim,
                            c->head_dim};
    enum { N_MATRICES = sizeof matrices / sizeof *matrices };
    for (int i = 0; i < N_MATRICES; i++) {
        random_matrix(b, matrices[i], matrices[i] == &r.norm ? 1 : n, cols[i]);
    }
    cca_status status = cca_backend_sync(b, err);
    if (!status) {
        time_rest(&r, &layer, &chunk, n);
        s->chunk_s += layers * layer + chunk;
        time_rest(&r, &layer, &chunk, 1);
        s->token_s += layers * layer + chunk;
        status = outcome(s, err);
    }
    for (int i = 0; i < N_MATRICES; i++) cca_matrix_free(b, matrices[i]);
    return status;
}

static cca_status make_rope(cca_forecaster *s, cca_error *err) {
    int64_t half = s->config->head_dim / 2;
    s->inv_freq = calloc((size_t)half + 1, sizeof(double));
    if (!s->inv_freq) return cca_fail(err, CCA_NO_MEMORY, "no memory to measure the speed with");
    for (int64_t i = 0; i < half; i++) s->inv_freq[i] = 1 / (double)(i + 1);
    s->rope = (cca_rope){s->inv_freq, half, 1, s->config->arch->interleaved, 1};
    return CCA_OK;
}

cca_status cca_forecast_new(cca_forecaster **out, cca_backend *backend, int n_threads,
                            const cca_gguf *file, const cca_config *config, int64_t chunk_size,
                            cca_error *err) {
    double chunk = 0, token = 0, layers = (double)config->n_layers;
    *out = NULL;
    cca_forecaster *s = calloc(1, sizeof *s);
    if (!s) return cca_fail(err, CCA_NO_MEMORY, "no memory to measure the speed with");
    s->backend = backend;
    s->config = config;
    s->n_threads = n_threads;
    s->chunk_size = chunk_size;
    cca_status status = read_shapes(s, file, err);
    if (!status) status = make_rope(s, err);
    if (!status) status = time_products(s, &chunk, &token, err);
    if (!status) {
        s->chunk_s = layers * chunk;
        s->head_s = s->head_bytes / s->layer_bytes * token;
        s->token_s = layers * token + s->head_s;
        status = add_rest(s, err);
    }
    if (status) {
        cca_forecast_free(s);
        return status;
    }
    *out = s;
    return CCA_OK;
}

void cca_forecast_free(cca_forecaster *forecast) {
    if (forecast) free(forecast->inv_freq);
    free(forecast);
}

/* ---- attention -------------------------------------------------------------------------- */

/* Of so many groups, those whose bounds are looked at, blocks included. A device's plain kernels
 * look at all. */
static double bounds_of(const cca_forecaster *s, int64_t groups) {
    int64_t blocks = cca_blocks_looked_into(s->recall / s->rule.group_size);
    bool in_levels = groups >= CCA_LEVELS_FROM && blocks < groups / CCA_BLOCK;
    return (double)(in_levels ? groups / CCA_BLOCK + blocks * CCA_BLOCK : groups);
}

/* Keys that one head's queries pos … pos + n - 1 go through, in tiles. Where groups are recalled,
 * they have bounds that are looked at, whether they are seen as cores or not. */
static double keys_of(const cca_forecaster *s, int64_t pos, int64_t n) {
    const cca_rule *rule = &s->rule;
    cca_range window = cca_rule_window(rule), sinks = cca_rule_sinks(rule);
    cca_range groups = cca_rule_groups(rule);
    double keys = 0;
    for (int64_t i = pos; i < pos + n; i += QUERY_TILE) {
        int64_t last = cca_min(i + QUERY_TILE, pos + n) - 1;
        cca_tile raw = cca_range_tile(&window, i, last), first = cca_range_tile(&sinks, i, last);
        cca_tile cores = cca_range_tile(&groups, i, last);
        keys += (double)(raw.end - raw.begin + first.end - first.begin);
        int64_t behind = cores.end - cores.begin;
        keys += rule->cores ? (double)behind : s->recall > 0 ? bounds_of(s, behind) : 0;
        keys += (double)cca_min(behind * rule->group_size, s->recall);
    }
    return keys;
}

typedef struct attend_work {
    cca_forecaster *s;
    cca_cache *cache;
    int64_t n_layers, pos, n;
    cca_matrix q, k, v, out, angles;
    cca_turn turn; /* of a device: rotation is timed with attention */
} attend_work;

static void attend(void *work, int i) {
    attend_work *a = work;
    const cca_turn *turn = a->s->n_threads ? NULL : &a->turn;
    cca_cache_attend(a->cache, i % a->n_layers, &a->out, &a->q, &a->k, &a->v, turn, 0, a->pos,
                     a->n);
}

/* Random rows everywhere, so that memory is read as in a run. */
static void *make_rows(void *user, cca_dtype type, int64_t rows, int64_t cols) {
    return random_rows(user, type, rows, cols);
}

/* The deepest run, up to n_tokens, of which a layer stays within so many bytes. On a CPU with some
 * of the heads: as many as there are threads, and so many that their keys do not stay in a core's
 * cache from one tile of queries to the next. Then as many layers as stay within twice the bytes,
 * since a token reads each of them but once. */
static cca_status shape_for(cca_cache_shape *out, const cca_forecaster *s,
                            const cca_state_options *o, int64_t n_tokens, cca_error *err) {
    const cca_config *c = s->config;
    size_t most = s->n_threads ? CACHE_BYTES : DEVICE_CACHE_BYTES, layer;
    int64_t heads = s->n_threads ? cca_min(c->n_kv_heads, s->n_threads) : c->n_kv_heads;
    *out = (cca_cache_shape){.n_layers = 1,
                             .head_dim = c->head_dim,
                             .ctx_size = cca_max(n_tokens, 2 * s->chunk_size),
                             .chunk_size = s->chunk_size,
                             .k_type = o->k_type,
                             .v_type = o->v_type,
                             .rows_apart = o->rows_apart,
                             .row_k_type = o->row_k_type,
                             .row_v_type = o->row_v_type,
                             .rows_near = o->rows_near};
    for (;;) {
        cca_cache_size size;
        out->n_kv_heads = heads;
        out->n_heads = heads * (c->n_heads / c->n_kv_heads);
        cca_status status = cca_cache_measure(&size, out, &o->policy, err);
        if (status) return status;
        layer = size.cores + size.bounds + size.rows + size.window + 1;
        if (layer > most && out->ctx_size >= 8 * s->chunk_size) {
            out->ctx_size /= 2;
        } else if (layer < HEADS_BYTES && heads < c->n_kv_heads) {
            heads = cca_min(2 * heads, c->n_kv_heads);
        } else {
            break;
        }
    }
    int64_t layers = c->n_layers * (c->n_kv_heads / heads);
    out->n_layers = cca_max(cca_min(layers, 2 * (int64_t)(most / layer)), 1);
    return CCA_OK;
}

static void add_point(curve *c, double keys, double time) {
    if (c->n > 0 && keys <= c->points[c->n - 1].keys) return;
    c->points[c->n++] = (point){keys, time};
}

/* At the start, where the window, and what is recalled, have just filled (half way without one),
 * and at the end. */
static cca_status time_depths(attend_work *a, const cca_cache_shape *shape, cca_error *err) {
    cca_forecaster *s = a->s;
    int64_t last = shape->ctx_size - s->chunk_size;
    int64_t full = cca_rule_ring(&s->rule) + s->recall + s->chunk_size;
    const int64_t depths[MOST_POINTS] = {0, full < last ? full : last / 2, last};
    double heads = (double)s->config->n_kv_heads / (double)shape->n_kv_heads;
    int64_t rounds = (s->config->n_kv_heads + shape->n_kv_heads - 1) / shape->n_kv_heads;
    for (int i = 0; i < MOST_POINTS; i++) {
        a->pos = depths[i] / s->chunk_size * s->chunk_size;
        a->n = s->chunk_size;
        double chunk = time_of(s, attend, a);
        add_point(&s->prefill, keys_of(s, a->pos, a->n), heads * chunk);
        a->n = 1;
        double token = time_of(s, attend, a);
        add_point(&s->decode, keys_of(s, a->pos, a->n), (double)rounds * token);
    }
    return outcome(s, err);
}

typedef struct link_work {
    cca_backend *b;
    cca_rows here, there;
} link_work;

static void bring(void *work, int i) {
    link_work *l = work;
    (void)i;
    cca_rows_bring(l->b, &l->here, &l->there, 0, l->here.capacity);
    cca_rows_brought(l->b);
}

/* The link between the host's memory and the device, by so many of a layer's rows. */
static cca_status time_link(cca_forecaster *s, const cca_state_options *o, cca_error *err) {
    cca_backend *b = s->backend;
    int64_t heads = s->config->n_kv_heads, hd = s->config->head_dim;
    cca_rows rows = {NULL, NULL, o->row_k_type, o->row_v_type, heads, 1, hd, 0};
    size_t k = 0, v = 0;
    cca_dtype_row_bytes(&k, rows.k_type, hd);
    cca_dtype_row_bytes(&v, rows.v_type, hd);
    rows.capacity = cca_max((int64_t)(LINK_BYTES / (k + v)) / heads, 1);
    link_work l = {b, rows, rows};
    size_t n = (size_t)(heads * rows.capacity);
    l.here.k = cca_backend_alloc(b, n * k);
    l.here.v = cca_backend_alloc(b, n * v);
    l.there.k = cca_backend_alloc_host(b, n * k);
    l.there.v = cca_backend_alloc_host(b, n * v);
    cca_status status = cca_backend_sync(b, err);
    if (!status) {
        s->position_s = time_of(s, bring, &l) / (double)rows.capacity;
        status = outcome(s, err);
    }
    cca_backend_release(b, l.here.k);
    cca_backend_release(b, l.here.v);
    cca_backend_release_host(b, l.there.k);
    cca_backend_release_host(b, l.there.v);
    return status;
}

cca_status cca_forecast_attention(cca_forecaster *s, const cca_state_options *o, int64_t n_tokens,
                                  cca_error *err) {
    cca_cache_shape shape;
    attend_work a = {.s = s};
    cca_backend *b = s->backend;
    s->rule = o->policy.rule;
    s->recall = o->policy.recall;
    s->prefill.n = s->decode.n = 0;
    s->position_s = 0;
    cca_status status = shape_for(&shape, s, o, n_tokens, err);
    if (!status && o->rows_on_host) status = time_link(s, o, err);
    if (!status) status = cca_cache_new(&a.cache, b, &shape, &o->policy, err);
    if (!status) {
        cca_cache_fill(a.cache, shape.ctx_size, make_rows, b);
        int64_t q_dim = shape.n_heads * shape.head_dim, kv_dim = shape.n_kv_heads * shape.head_dim;
        random_matrix(b, &a.q, s->chunk_size, q_dim);
        random_matrix(b, &a.k, s->chunk_size, kv_dim);
        random_matrix(b, &a.v, s->chunk_size, kv_dim);
        cca_matrix_alloc(b, &a.out, CCA_F32, s->chunk_size, q_dim);
        cca_matrix_alloc(b, &a.angles, CCA_F32, s->chunk_size, shape.head_dim);
        cca_angles(b, &a.angles, &s->rope, 0, s->chunk_size);
        status = cca_backend_sync(b, err);
    }
    a.turn = (cca_turn){&a.angles, &s->rope};
    a.n_layers = shape.n_layers;
    if (!status) status = time_depths(&a, &shape, err);
    cca_matrix *const all[] = {&a.q, &a.k, &a.v, &a.out, &a.angles};
    for (int i = 0; i < 5; i++) cca_matrix_free(b, all[i]);
    cca_cache_free(a.cache);
    return status;
}

/* ---- sums -------------------------------------------------------------------------------- */

/* Straight lines between the points and behind the last one. */
static double seconds_at(const curve *c, double keys) {
    if (c->n == 0) return 0;
    if (c->n == 1) return c->points[0].seconds * keys / c->points[0].keys;
    int i = 1;
    while (i + 1 < c->n && keys > c->points[i].keys) i++;
    const point *a = &c->points[i - 1], *b = &c->points[i];
    double slope = fmax((b->seconds - a->seconds) / (b->keys - a->keys), 0);
    return fmax(b->seconds + (keys - b->keys) * slope, 0);
}

/* Rows of the host come beside the operations: the longer of both counts. */
double cca_forecast_prefill(const cca_forecaster *s, int64_t n) {
    double layers = (double)s->config->n_layers, total = s->head_s;
    for (int64_t pos = 0, some; pos < n; pos += some) {
        some = cca_min(s->chunk_size, n - pos);
        double seconds = s->chunk_s * (double)some / (double)s->chunk_size;
        seconds += layers * seconds_at(&s->prefill, keys_of(s, pos, some));
        total += fmax(seconds, layers * (double)pos * s->position_s);
    }
    return total;
}

/* What is recalled comes before attention can begin, as if the token before had recalled nothing of
 * it. */
double cca_forecast_decode(const cca_forecaster *s, int64_t pos) {
    double layers = (double)s->config->n_layers;
    cca_range behind = cca_rule_recallable(&s->rule);
    int64_t recalled = cca_min(cca_range_count(&behind, pos), s->recall);
    double attention = seconds_at(&s->decode, keys_of(s, pos, 1));
    return s->token_s + layers * (attention + (double)recalled * s->position_s);
}
