/* What the files of the forward pass share: a model, a state, and the steps between its products.
 */
#ifndef CCA_MODEL_PARTS_H
#define CCA_MODEL_PARTS_H

#include "model.h"
#include "rope.h"

struct cca_model {
    const cca_gguf *file;
    cca_backend *backend;
    cca_config config;
    cca_matrix embedding, output_norm, output;
    cca_layer *layers;
    cca_ropes ropes;
    float embedding_scale, stream_eps; /* see scale_stream */
    uint64_t weight_bytes, n_params;
    bool *known;  /* which tensors of the file, while they are bound */
    void **moved; /* weights whose rows lie in another order than in the file */
    int64_t n_moved;
};

struct cca_state {
    const cca_model *model;
    cca_backend *backend;
    cca_cache *cache;
    cca_rope rope, other_rope; /* other: of layers with windows, where it is another */
    bool turns_otherwise;      /* it is */
    bool spread;               /* other ranks run what this one does */
    int64_t n_rows;            /* rows of x that hold the last forward's tokens */
    int64_t pos;               /* of the first of them */
    int32_t *ids;              /* [chunk_size]: those tokens */
    void *buffers;             /* memory of the matrices */
    cca_activations a;
    cca_matrix angles, logits;
    cca_matrix other_angles; /* of layers with windows, or of queries that grow */
};

/* The cache of a state. */
cca_cache_shape cca_state_cache_shape(const cca_config *config, const cca_state_options *options);
/* x = embeddings of the n first of ids, and the angles of their positions. */
void cca_state_begin(cca_state *s, int64_t n);
/* Norms the heads of q and k, and turns them where attention is not to: they are normed turned, not
 * turned at all, or queries by angles of their own. What is left to turn by, else NULL. */
const cca_turn *cca_state_turn(cca_turn *turn, cca_state *s, int64_t layer, int64_t n);

#endif
