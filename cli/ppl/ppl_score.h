/* Sums over scored tokens. */
#ifndef CCA_CLI_PPL_SCORE_H
#define CCA_CLI_PPL_SCORE_H

#include "likelihood.h"

/* Positions 0 – 1K, 1K – 2K, 2K – 4K … 64K – 128K, and beyond. */
enum { PPL_N_BANDS = 9 };

typedef struct ppl_sums {
    int64_t n;
    double nats, squares;
} ppl_sums;

typedef struct ppl_stats {
    ppl_sums all, bands[PPL_N_BANDS];
    uint64_t bytes; /* that the scored tokens stand for */
} ppl_stats;

/* What a base costs, and how far from it: kl, and nats less the base's, token by token. */
typedef struct ppl_gap_sums {
    ppl_sums base, more, kl;
    int64_t same_top;
} ppl_gap_sums;

/* A scored token's, for quantiles. */
typedef struct ppl_divergence {
    float kl;
    int band;
} ppl_divergence;

typedef struct ppl_gaps {
    ppl_gap_sums all, bands[PPL_N_BANDS];
    ppl_divergence *each; /* [all.kl.n]; the owner's, with room for all scored tokens */
} ppl_gaps;

/* Adds a token at a position of its window. */
void ppl_gaps_add(ppl_gaps *gaps, int64_t pos, const cca_gap *gap);

/* The smallest divergence that so large a share of the tokens of a band, or of all, does not
 * exceed, once they are sorted; 0 without tokens. */
enum { PPL_ALL_BANDS = -1 };
void ppl_gaps_sort(ppl_gaps *gaps);
double ppl_gaps_quantile(const ppl_gaps *gaps, int band, double share);

/* Adds a token at a position of its window. */
void ppl_stats_add(ppl_stats *stats, int64_t pos, double nats, uint64_t bytes);

/* Positions of a band: from *from to *to - 1; *to is INT64_MAX for the last. */
void ppl_band_range(int band, int64_t *from, int64_t *to);

/* Mean, exp(mean), and the standard error of exp(mean); 0 where n gives none. */
double ppl_mean(const ppl_sums *sums);
double ppl_perplexity(const ppl_sums *sums);
double ppl_standard_error(const ppl_sums *sums);
double ppl_bits_per_byte(const ppl_stats *stats);

#endif
