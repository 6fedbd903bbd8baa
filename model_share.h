/* The forward pass of a prompt that ranks share: of one layer after the other all of a rank's
 * tokens, in chunks.
 *
 *     cca_share_call call = {.ids = ids, .n = n, .pos = pos, .together = pos + n};
 *     cca_model_forward_shared(state, comm, &call, &n_own, &err);   // all ranks
 *     cca_model_logits(state, cca_state_rows(state) - 1, 1, logits, &err);     // rank 0
 *
 * Rank 0's state is an ordinary one, and as if it had evaluated all tokens itself. Those of other
 * ranks have one layer (cca_state_options.one_layer) and keep nothing, unless ranks keep a state
 * together (cca_state_spread). Each rank has the whole model. */
#ifndef CCA_MODEL_SHARE_H
#define CCA_MODEL_SHARE_H

#include "cca_share.h"
#include "cca_spread.h"
#include "model.h"
#include "model_stream.h"

typedef struct cca_share_call {
    const int32_t *ids;    /* [n], all of them on each rank; borrowed */
    int64_t n, pos;        /* at positions pos …, behind what rank 0's state has */
    int64_t together;      /* tokens from this position on choose each for itself */
    const cca_mass *watch; /* sums of the last token, of rank 0; NULL: nobody watches */
    /* What a rank's tokens are in the end, those from left_from on, in memory of the state's
     * backend that the caller frees (cca_stream_free); the state has no last tokens then. NULL:
     * what lies behind the last token alone is wanted, on all ranks. */
    cca_stream *left;
    int64_t left_from;
    const cca_state *also; /* cuts are such that this state could follow them, too; or NULL */
    /* After each layer, on each rank; may be NULL. A failure ends the call on all ranks. */
    cca_status (*on_layer)(void *user, int64_t n_done, cca_error *err);
    void *user;
} cca_share_call;

/* How n tokens behind pos are cut for so many ranks, and for another state, too, unless that is
 * NULL; false where they are too few. */
bool cca_state_slices(cca_slices *out, const cca_state *state, const cca_state *also, int n_ranks,
                      int64_t pos, int64_t n);
/* What ranks take to share n tokens behind none. */
typedef struct cca_state_share {
    cca_share_size layer; /* in each layer; its memory serves all */
    size_t most_bytes;    /* of memory that a rank takes beside its state */
} cca_state_share;

cca_status cca_state_share_measure(cca_state_share *out, const cca_config *config,
                                   const cca_state_options *options, int n_ranks, int64_t n,
                                   cca_error *err);

/* Bytes of n tokens that ranks keep together (cca_spread.h), beside their states. */
cca_spread_size cca_state_spread_measure(const cca_config *config, const cca_state_options *options,
                                         int n_ranks, int64_t n);

/* Cuts are those of calls of cca_model_forward at absolute multiples of the chunk size and at
 * `together`, and the ends of slices; of long texts these are such multiples, too, and logits have
 * the bits of one process then. Where a rank fails, all others fail with its status and no message.
 * CCA_USAGE, CCA_NO_FIT as cca_share_new; CCA_NO_MEMORY; CCA_INTERRUPTED; CCA_RUNTIME. The cache of
 * rank 0 is undefined then, but for its copies. *n_own: tokens of this rank. */
cca_status cca_model_forward_shared(cca_state *state, cca_comm *comm, const cca_share_call *call,
                                    int64_t *n_own, cca_error *err);
/* Rows of the last forward that cca_model_logits has. */
int64_t cca_state_rows(const cca_state *state);

#endif
