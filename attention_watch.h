/* Sums of what tokens attend to, for a session that is watched (engine.h):
 *
 *     cca_watch w = {0};
 *     cca_watch_begin(&w, &sizes, cuts, n_cuts, &err);
 *     cca_cache_watch(cache, &w.mass, 1);               // before a call whose last token counts
 *     w.n++;                                            // after it
 *     cca_mass draft = cca_watch_draft(&w, n);          // before a draft of n tokens
 *     cca_cache_watch(cache, &draft, n);
 *     cca_watch_accept(&w, n_accepted);                 // when it is known how many count
 *     cca_watch_free(&w); */
#ifndef CCA_ATTENTION_WATCH_H
#define CCA_ATTENTION_WATCH_H

#include "cca.h"

typedef struct cca_watch {
    cca_mass mass;          /* sums NULL: never watched */
    float *of_draft;        /* [n_draft][n_heads][n_slots]: of its tokens, each for itself */
    int64_t *cuts, *begins; /* of the slots */
    int64_t n_heads;        /* of all layers */
    int64_t n_draft;
    int64_t n; /* tokens in the sums */
    bool on;
} cca_watch;

typedef struct cca_watch_sizes {
    int64_t n_heads;  /* of all layers */
    int64_t ctx_size; /* positions */
    int64_t unit;     /* of slots: cca_cache_unit */
    int64_t n_draft;  /* most tokens of a draft; 0: there will be none */
} cca_watch_sizes;

/* Begins anew, from zero, with slots cut at n_cuts ascending positions. CCA_NO_MEMORY: there are no
 * sums then. */
cca_status cca_watch_begin(cca_watch *w, const cca_watch_sizes *sizes, const int64_t *cuts,
                           int64_t n_cuts, cca_error *err);
void cca_watch_free(cca_watch *w);

/* Zeroed sums for n tokens of a draft. */
cca_mass cca_watch_draft(cca_watch *w, int64_t n);
/* Adds those of the first n. */
void cca_watch_accept(cca_watch *w, int64_t n);

#endif
