/* What a model says of a token: how likely it was, and how far from what another one says.
 *
 *     double nats = cca_nats(logits, vocab_size, id);
 *     cca_gap gap = cca_compare(logits, logits_of_base, vocab_size, id); */
#ifndef CCA_LIKELIHOOD_H
#define CCA_LIKELIHOOD_H

#include "base/base.h"

/* How a distribution over the next token differs from a base's. kl: the Kullback-Leibler divergence
 * sum p_base (log p_base - log p), in nats. same_top: the most likely token is the same. Without a
 * base all but nats is 0. */
typedef struct cca_gap {
    double nats, base_nats, kl;
    bool same_top;
} cca_gap;

/* Negative log likelihood of id under logits [vocab_size], in nats. */
double cca_nats(const float *logits, int64_t vocab_size, int32_t id);
/* The same of two logits [vocab_size], and what lies between them. */
cca_gap cca_compare(const float *logits, const float *base, int64_t vocab_size, int32_t id);

#endif
