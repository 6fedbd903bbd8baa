/* How a model's RoPE turns: the frequencies that its keys and tensors ask for.
 *
 *     cca_ropes ropes = {0};
 *     cca_status status = cca_ropes_make(&ropes, &config, file, &err);
 *     cca_rope rope = cca_ropes_of(&ropes, ctx_size);       // for cca_angles
 *     cca_ropes_free(&ropes);
 *
 * MODEL.md has the equations. */
#ifndef CCA_ROPE_H
#define CCA_ROPE_H

#include "backend/backend.h"
#include "gguf/config.h"

/* Contexts of up to the original length and longer ones may have their own; so may layers with
 * windows of their own. */
typedef enum cca_rope_use {
    CCA_ROPE_USUAL,
    CCA_ROPE_LONG_CONTEXT,
    CCA_ROPE_IN_WINDOWS,
    CCA_N_ROPE_USES,
} cca_rope_use;

typedef struct cca_ropes {
    double *inv_freq[CCA_N_ROPE_USES]; /* [head_dim / 2]; NULL: that of CCA_ROPE_USUAL */
    float scale[CCA_N_ROPE_USES];      /* of cosines and sines */
    float still;                       /* of pairs that do not turn */
    bool interleaved;
    int64_t half;     /* head_dim / 2 */
    int64_t original; /* positions up to which a context is no long one */
} cca_ropes;

/* *out is zeroed before, and to be freed after a failure, too. CCA_BAD_MODEL where a tensor of the
 * file has another type or values that are not positive. */
cca_status cca_ropes_make(cca_ropes *out, const cca_config *config, const cca_gguf *file,
                          cca_error *err);
void cca_ropes_free(cca_ropes *ropes);

/* In a context of ctx_size positions: of all layers, or of those without windows. It borrows the
 * frequencies. */
cca_rope cca_ropes_of(const cca_ropes *ropes, int64_t ctx_size);
/* Of layers with windows of their own, where theirs is another; returns whether it is. */
bool cca_ropes_in_windows(cca_rope *out, const cca_ropes *ropes);

#endif
