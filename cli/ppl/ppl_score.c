#include "cli/ppl/ppl_score.h"

#include <math.h>

/* Differences to the largest logit are exact enough in float; their sum is not. */
double ppl_nats(const float *logits, int64_t vocab_size, int32_t id) {
    float top = logits[0];
    for (int64_t i = 1; i < vocab_size; i++) top = logits[i] > top ? logits[i] : top;
    double sum = (double)expf(logits[0] - top);
    for (int64_t i = 1; i < vocab_size; i++) sum += (double)expf(logits[i] - top);
    return log(sum) - ((double)logits[id] - (double)top);
}

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
