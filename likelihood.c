#include "likelihood.h"

#include "sampler.h"

#include <math.h>

static int64_t top_of(const float *logits, int64_t n) {
    int64_t top = 0;
    for (int64_t i = 1; i < n; i++) top = logits[i] > logits[top] ? i : top;
    return top;
}

double cca_nats(const float *logits, int64_t vocab_size, int32_t id) {
    return cca_log_sum_exp(logits, vocab_size) - (double)logits[id];
}

cca_gap cca_compare(const float *logits, const float *base, int64_t vocab_size, int32_t id) {
    double own_sum = cca_log_sum_exp(logits, vocab_size);
    double base_sum = cca_log_sum_exp(base, vocab_size), kl = 0;
    for (int64_t i = 0; i < vocab_size; i++) {
        double p = exp((double)base[i] - base_sum);
        kl += p * ((double)base[i] - base_sum - ((double)logits[i] - own_sum));
    }
    return (cca_gap){.nats = own_sum - (double)logits[id],
                     .base_nats = base_sum - (double)base[id],
                     .kl = kl,
                     .same_top = top_of(logits, vocab_size) == top_of(base, vocab_size)};
}
