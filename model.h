/* The transformer: weights, and the one forward pass.
 *
 *     cca_model *model;
 *     cca_model_open(&model, file, backend, &err);       // binds and checks the weights
 *     cca_state *state;
 *     cca_state_new(&state, model, backend, &state_options, &err);
 *     cca_model_forward(state, ids, n, pos, &err);       // n = 1 is decode
 *     cca_model_logits(state, n - 1, 1, logits, &err);
 *
 * The model is immutable and borrows the file's memory; a state is one timeline. */
#ifndef CCA_MODEL_H
#define CCA_MODEL_H

#include "backend/backend.h"
#include "backend/comm.h"
#include "cca.h"
#include "gguf/config.h"

typedef struct cca_model cca_model;

/* Reads the configuration, binds each tensor, checks types and shapes; refuses what is missing
 * or unknown by name (CCA_BAD_MODEL). file and backend must outlive the model. */
cca_status cca_model_open(cca_model **out, const cca_gguf *file, cca_backend *backend,
                          cca_error *err);
void cca_model_close(cca_model *model);
const cca_config *cca_model_config(const cca_model *model);
/* Bytes of the weights, and number of parameters. */
uint64_t cca_model_weight_bytes(const cca_model *model);
uint64_t cca_model_n_params(const cca_model *model);

typedef struct cca_state_options {
    int64_t ctx_size, chunk_size;
    cca_policy policy;
    cca_dtype k_type, v_type;
    bool rows_apart; /* see cca_cache_shape */
    cca_dtype row_k_type, row_v_type;
    bool rows_on_host, rows_near;
    int64_t draft;
    bool mark, stored; /* see cca_cache_shape */
    const char *rows_folder;
    size_t most_resident;
    bool one_layer; /* of a rank that takes part in prompts and keeps nothing (model_share.h) */
    bool spread;    /* ranks keep the cache together: see cca_state_spread */
} cca_state_options;

/* Bytes of a state: the cache's, and the activations of a chunk. */
typedef struct cca_state_size {
    cca_cache_size cache;
    size_t activations;
} cca_state_size;

cca_status cca_state_measure(cca_state_size *out, const cca_config *config,
                             const cca_state_options *options, cca_error *err);

typedef struct cca_state cca_state;

cca_status cca_state_new(cca_state **out, const cca_model *model, cca_backend *backend,
                         const cca_state_options *options, cca_error *err);
void cca_state_free(cca_state *state);
cca_cache *cca_state_cache(const cca_state *state);
/* Has the ranks keep the cache of an empty state together (cca_spread.h), as its options say; all
 * call it, and run the same tokens in cca_model_forward from then on. */
cca_status cca_state_spread(cca_state *state, cca_comm *comm, cca_error *err);
/* Keeps the state behind n_tokens tokens, and goes back to it; see cca_cache_mark. */
cca_status cca_state_mark(cca_state *state, int64_t n_tokens, cca_error *err);
cca_status cca_state_rewind(cca_state *state, int64_t n_tokens, cca_error *err);

/* Runs n ≤ chunk_size tokens at positions pos …; their final hidden states stay in the state
 * until the next call. */
cca_status cca_model_forward(cca_state *state, const int32_t *ids, int64_t n, int64_t pos,
                             cca_error *err);

/* The weights of a layer, by role; data is NULL where the model has none. */
typedef struct cca_layer {
    cca_matrix w[CCA_N_ROLES];
} cca_layer;

/* What a layer computes on: the stream x, and room for what it makes of it. */
typedef struct cca_activations {
    cca_matrix x, h, q, k, v, attended, gate, up;
} cca_activations;

/* A layer of n rows but for rotation and attention, which lie between the two: q, k, v of x; then x
 * of x and attended. Forecasts time them. */
void cca_layer_begin(cca_backend *b, const cca_layer *layer, cca_activations *a, float eps,
                     int64_t n);
void cca_layer_end(cca_backend *b, const cca_layer *layer, cca_activations *a, float eps,
                   int64_t n);

/* Logits (n, vocab_size) of rows row … row + n - 1 of the last forward, into host memory; made
 * in tiles of a few rows. Where one is no finite number, CCA_BAD_MODEL names the first tensor with
 * such a weight, else CCA_RUNTIME the layer where they begin; the state can only be rewound to the
 * start then. */
cca_status cca_model_logits(cca_state *state, int64_t row, int64_t n, float *out, cca_error *err);

/* The same of a stream [tokens][dim] that other forwards have left in the state's backend
 * (model_stream.h); CCA_RUNTIME alone where they are no finite numbers. */
cca_status cca_model_stream_logits(cca_state *state, const cca_matrix *x, int64_t row, int64_t n,
                                   float *out, cca_error *err);
/* Rows of a tile of logits. */
enum { CCA_LOGIT_ROWS = 32 };

#endif
