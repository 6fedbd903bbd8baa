#include "cli/ppl/ppl_score.h"

#include <math.h>
#include <stdlib.h>

static int band_of(int64_t pos) {
    int band = 0;
    for (pos >>= 10; pos > 0 && band < PPL_N_BANDS - 1; pos >>= 1) band++;
    return band;
}

void ppl_band_range(int band, int64_t *from, int64_t *to) {
    *from = band == 0 ? 0 : (int64_t)512 << band;
    *to = band == PPL_N_BANDS - 1 ? INT64_MAX : (int64_t)1024 << band;
}

static void add(ppl_sums *sums, double nats) {
    sums->n++;
    sums->nats += nats;
    sums->squares += nats * nats;
}

void ppl_stats_add(ppl_stats *stats, int64_t pos, double nats, uint64_t bytes) {
    add(&stats->all, nats);
    add(&stats->bands[band_of(pos)], nats);
    stats->bytes += bytes;
}

static void add_gap(ppl_gap_sums *sums, const cca_gap *gap) {
    add(&sums->base, gap->base_nats);
    add(&sums->more, gap->nats - gap->base_nats);
    add(&sums->kl, gap->kl);
    sums->same_top += gap->same_top;
}

void ppl_gaps_add(ppl_gaps *gaps, int64_t pos, const cca_gap *gap) {
    int band = band_of(pos);
    gaps->each[gaps->all.kl.n] = (ppl_divergence){.kl = (float)gap->kl, .band = band};
    add_gap(&gaps->all, gap);
    add_gap(&gaps->bands[band], gap);
}

static int by_size(const void *a, const void *b) {
    float x = ((const ppl_divergence *)a)->kl, y = ((const ppl_divergence *)b)->kl;
    return (x > y) - (x < y);
}

void ppl_gaps_sort(ppl_gaps *gaps) {
    if (gaps->all.kl.n > 0) qsort(gaps->each, (size_t)gaps->all.kl.n, sizeof *gaps->each, by_size);
}

double ppl_gaps_quantile(const ppl_gaps *gaps, int band, double share) {
    bool all = band == PPL_ALL_BANDS;
    int64_t n = all ? gaps->all.kl.n : gaps->bands[band].kl.n;
    int64_t left = cca_max((int64_t)ceil(share * (double)n), 1);
    for (int64_t i = 0; i < gaps->all.kl.n; i++) {
        left -= all || gaps->each[i].band == band;
        if (left == 0) return (double)gaps->each[i].kl;
    }
    return 0;
}

double ppl_mean(const ppl_sums *sums) {
    return sums->n > 0 ? sums->nats / (double)sums->n : 0;
}

double ppl_perplexity(const ppl_sums *sums) {
    return exp(ppl_mean(sums));
}

/* The error of the mean, carried through exp by its derivative. */
double ppl_standard_error(const ppl_sums *sums) {
    if (sums->n < 2) return 0;
    double mean = ppl_mean(sums);
    double variance = sums->squares / (double)sums->n - mean * mean;
    if (variance <= 0) return 0;
    return ppl_perplexity(sums) * sqrt(variance / (double)(sums->n - 1));
}

double ppl_bits_per_byte(const ppl_stats *stats) {
    return stats->bytes > 0 ? stats->all.nats / log(2) / (double)stats->bytes : 0;
}
