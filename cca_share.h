/* Attention of a prompt that ranks share: a layer's keys and values, as far as other ranks see
 * them.
 *
 *     cca_share *share;
 *     cca_share_new(&share, cache, NULL, comm, pos, n, &err);
 *     for (each layer) {
 *         cca_share_begin(share, layer);
 *         for (wave = 0; wave < CCA_WAVES; wave++) {
 *             for (each chunk) cca_share_take(share, layer, wave, &q, &k, &v, turn, pos, n);
 *             cca_share_send(share, layer, wave, &err);
 *         }
 *         for (wave = 0; wave < CCA_WAVES; wave++) {
 *             cca_share_receive(share, layer, wave, &err);
 *             for (each chunk) cca_share_look(share, layer, wave, &out, &q, window, pos, n);
 *         }
 *         cca_share_end(share, layer);
 *     }
 *     cca_share_free(share);
 *
 * Each rank has two slices of the text (share_plan.h). Of a layer it makes their keys and values,
 * cores and bounds, and sends what others see: the raw rows of a window to who has the next slice,
 * cores, bounds and sinks to all that stand behind. Attention then is that of one process, over the
 * same spans. What CCA-Attention sends is 1/g of keys and values of MHA, and halos of s + g rows.
 *
 * With recall, and full attention, all raw rows of a layer are gathered by those behind them.
 * Fetching what was chosen would send less only where few choose: each tile of queries chooses 128
 * groups anew for each head, and all tiles of a slice together soon read most of what lies before
 * it.
 *
 * A layer's keys and values of the whole text come together on rank 0, whose cache is an ordinary
 * one and holds the state behind the prompt in the end. The other ranks' caches have a single layer
 * that all use in turn, and keep nothing. Or each rank keeps what its slices have left
 * (cca_spread.h). */
#ifndef CCA_CCA_SHARE_H
#define CCA_CCA_SHARE_H

#include "backend/comm.h"
#include "cca.h"
#include "share_plan.h"

typedef struct cca_share cca_share;

/* Positions from which on a text of n tokens is cut for ranks, such that another cache could have
 * the same slices, unless that is NULL; false where it is too short. */
bool cca_share_slices(cca_slices *out, const cca_cache *cache, const cca_cache *also, int n_ranks,
                      int64_t pos, int64_t n);

/* Makes room for sharing the n tokens behind the pos stored ones in rank 0's cache; the others'
 * have a single layer. cache and comm must outlive it; also as above. CCA_USAGE where rows lie on
 * disk or are brought near; CCA_NO_FIT for texts that are too short; CCA_NO_MEMORY. */
cca_status cca_share_new(cca_share **out, cca_cache *cache, const cca_cache *also, cca_comm *comm,
                         int64_t pos, int64_t n, cca_error *err);
void cca_share_free(cca_share *share);

/* What sharing a prompt takes, in each layer alike. */
typedef struct cca_share_size {
    int64_t most_tokens; /* of a rank */
    size_t most_bytes;   /* of memory that a rank takes: rows of its slices, and messages */
    uint64_t sent_bytes; /* of all ranks together */
    uint64_t most_sent_bytes, most_received_bytes; /* of a rank */
    uint64_t ring_bytes; /* that ring attention has each rank send: its keys and values to all */
} cca_share_size;

/* That of n tokens behind pos others, in caches of a shape. CCA_NO_FIT as cca_share_new;
 * CCA_NO_MEMORY. */
cca_status cca_share_measure(cca_share_size *out, const cca_cache_shape *shape,
                             const cca_policy *policy, int n_ranks, int64_t pos, int64_t n,
                             cca_error *err);

/* The slices of all ranks, and this rank's of a wave. */
cca_slices cca_share_all(const cca_share *share);
cca_slice cca_share_slice(const cca_share *share, int wave);

/* Before anything of a layer. */
void cca_share_begin(cca_share *share, int64_t layer);
/* As in cca_cache_attend, of n tokens of a slice one behind the other: rotates q in place, stores k
 * and v, pools, bounds. k is undefined afterwards. */
void cca_share_take(cca_share *share, int64_t layer, int wave, cca_matrix *q, cca_matrix *k,
                    const cca_matrix *v, const cca_turn *turn, int64_t pos, int64_t n);
/* Sends what others see of a slice that was taken as a whole. */
cca_status cca_share_send(cca_share *share, int64_t layer, int wave, cca_error *err);
/* Messages that are under way go on. */
void cca_share_progress(cca_share *share);
/* Waits for what a slice sees of other ranks'. */
cca_status cca_share_receive(cca_share *share, int64_t layer, int wave, cca_error *err);
/* out = attention of rotated queries of a slice, which are undefined afterwards. */
void cca_share_look(cca_share *share, int64_t layer, int wave, cca_matrix *out, const cca_matrix *q,
                    int64_t own_window, int64_t pos, int64_t n);
/* Behind all of a layer: rank 0's cache has the window at the end of the text. */
void cca_share_end(cca_share *share, int64_t layer);

#endif
