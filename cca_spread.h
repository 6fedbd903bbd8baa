/* A cache that ranks keep together: each has what its own slices of the text have left, and
 * attention is put together from what each rank's part gives.
 *
 *     shape.spread = true;                                     // of each rank's cache
 *     cca_cache_spread(cache, comm, n_layers, &err);
 *     cca_cache_attend(cache, layer, …);                       // on all ranks, with the same
 * tokens
 *
 * What grows with the text are columns: cores, or raw rows where all of them are kept. A prompt
 * that ranks share leaves each its own slices' (cca_share.h), shorter calls leave theirs on rank 0,
 * which also has the window and the sinks. The caches themselves have columns of a single layer, in
 * which prompts are read.
 *
 * All ranks compute each token, so that what they tell each other of a layer is the attention of
 * each head over the rank's own keys, its largest score and its sum: head_dim + 2 numbers in f32.
 * They are put together in the order of ranks, on each of them, and so all have the same bits. */
#ifndef CCA_CCA_SPREAD_H
#define CCA_CCA_SPREAD_H

#include "backend/comm.h"
#include "cca.h"
#include "share_plan.h"

typedef struct cca_spread cca_spread;

/* Makes an empty cache (cca_cache_shape.spread) one that the ranks keep together, of so many
 * layers; all of them call it. comm must outlive the cache. CCA_USAGE where the device has no
 * operation for it, and for attention that recalls; CCA_NO_MEMORY. */
cca_status cca_cache_spread(cca_cache *cache, cca_comm *comm, int64_t n_layers, cca_error *err);

/* Bytes that a rank keeps at most of n tokens that ranks share, beside its cache: rank 0, which has
 * the next ones, too, and the others. SIZE_MAX where that is more than any memory. */
typedef struct cca_spread_size {
    size_t first, others;
} cca_spread_size;

cca_spread_size cca_spread_measure(const cca_cache_shape *shape, const cca_policy *policy,
                                   int n_ranks, int64_t n_layers, int64_t n);

/* ---- for the cache and for prompts that are shared ----------------------------------- */

void cca_spread_free(cca_spread *s);
/* What lies at positions from pos on has never been; then makes room for what these slices leave.
 * CCA_NO_MEMORY. */
cca_status cca_spread_share(cca_spread *s, const cca_slices *slices, cca_error *err);
/* What lies before these slices. */
const cca_holding *cca_spread_before(const cca_spread *s, int *n);
/* This rank's own columns of a layer that lie before them, into the cache; and theirs out of it. */
void cca_spread_lay(cca_spread *s, int64_t layer);
void cca_spread_keep(cca_spread *s, int64_t layer);
/* cca_cache_attend; what a call has before it is the state at its position. Where other ranks are
 * not reached the backend fails, but as long as they are this one answers, whatever has failed. */
void cca_spread_attend(cca_spread *s, int64_t layer, cca_matrix *out, cca_matrix *q, cca_matrix *k,
                       const cca_matrix *v, const cca_turn *turn, int64_t own_window, int64_t pos,
                       int64_t n);

#endif
