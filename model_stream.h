/* What the last layer has left of a text's tokens, which logits are made of: to be scored behind
 * the forward pass, perhaps beside another model's, where the tokens are.
 *
 *     cca_stream own, base;                                       // both zeroed
 *     cca_stream_alone(&own, state, ids, n, &err);                // or cca_share_call.left
 *     cca_stream_alone(&base, other, ids, n, &err);
 *     cca_stream_compare(&own, &base, &job, &err);
 *     cca_stream_free(&own), cca_stream_free(&base); */
#ifndef CCA_MODEL_STREAM_H
#define CCA_MODEL_STREAM_H

#include "base/workers.h"
#include "likelihood.h"
#include "model.h"
#include "share_plan.h"

typedef struct cca_stream {
    cca_state *state;        /* borrowed: of its model, with room for logits. NULL: nothing */
    cca_matrix x;            /* [tokens][dim], in its backend's memory */
    cca_slice at[CCA_WAVES]; /* these tokens' positions, one slice behind the other */
} cca_stream;

/* Runs a text of n tokens, from position 0 on, in a state that is nobody else's at the time; in
 * chunks, as it would be evaluated. As cca_model_forward; free is due in any case. */
cca_status cca_stream_alone(cca_stream *out, cca_state *state, const int32_t *ids, int64_t n,
                            cca_error *err);
void cca_stream_free(cca_stream *stream);

/* A text's tokens from one on, which are followed by another. */
typedef struct cca_stream_score {
    const int32_t *ids; /* [n] */
    int64_t n, first;
    cca_gap *gaps; /* [n]: of ids[i + 1] behind ids[i], for i from first to n - 2 */
    cca_workers *workers;
} cca_stream_score;

/* Scores the tokens that a stream has; base: the same tokens' of another model, or NULL.
 * CCA_NO_MEMORY; CCA_RUNTIME where logits are no finite numbers. */
cca_status cca_stream_compare(const cca_stream *own, const cca_stream *base,
                              const cca_stream_score *job, cca_error *err);

/* Tokens of a text that a rank's stream has. */
typedef struct cca_stream_part {
    int rank;
    cca_slice at;
    int64_t text; /* whose */
} cca_stream_part;

/* What cca_stream_show calls: state has the tokens pos … of a text as if they had been evaluated
 * last. */
typedef cca_status (*cca_stream_fn)(void *user, int64_t text, int64_t pos, int64_t n,
                                    cca_error *err);

/* On rank 0 calls fn for all tokens of n_parts parts, in pieces that end where chunks do; the other
 * ranks send theirs. state is rank 0's, which has no last tokens afterwards, and on others like it,
 * or NULL where they have nothing. own: what this rank has. All call it, with the same parts; comm
 * NULL: there are no others. A failure of fn is told when all has been sent. */
cca_status cca_stream_show(const cca_stream *own, cca_state *state, cca_comm *comm,
                           const cca_stream_part *parts, int64_t n_parts, cca_stream_fn fn,
                           void *user, cca_error *err);

#endif
