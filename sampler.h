/* Chooses the next token from logits.
 *
 *     cca_sampler_options o = cca_sampler_defaults();
 *     o.temperature = 0;                                   // greedy
 *     cca_sampler *s;
 *     cca_sampler_new(&s, &o, vocab_size, &err);
 *     cca_sampler_accept(s, prompt[i]);                    // the penalties' history
 *     int32_t next = cca_sampler_next(s, logits, NULL, 0); // NULL: none is banned
 *     cca_sampler_accept(s, next);
 *     double log_p = logits[next] - cca_log_sum_exp(logits, vocab_size); // before all of that
 *     cca_sampler_free(s);
 *
 * Order: repetition penalty, then top-k, top-p and min-p on the untempered distribution,
 * then temperature; one draw. Temperature 0 takes the largest logit (the lowest id among
 * equals). The same seed, options and logits give the same ids on any machine. */
#ifndef CCA_SAMPLER_H
#define CCA_SAMPLER_H

#include "base/base.h"

typedef struct cca_sampler cca_sampler;

typedef struct cca_sampler_options {
    float temperature;     /* ≥ 0; 0 is greedy */
    int32_t top_k;         /* ≤ 0: off */
    float top_p;           /* (0, 1]; 1: off */
    float min_p;           /* [0, 1]; 0: off */
    float repeat_penalty;  /* > 0; 1: off */
    int32_t repeat_last_n; /* tokens looked back at; 0: off; -1: all */
    uint64_t seed;
} cca_sampler_options;

/* temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalty over 64 tokens, seed 0. */
cca_sampler_options cca_sampler_defaults(void);

/* CCA_USAGE names the option that is out of range. */
cca_status cca_sampler_new(cca_sampler **out, const cca_sampler_options *options,
                           int32_t vocab_size, cca_error *err);
void cca_sampler_free(cca_sampler *sampler);

/* Tells the penalties that a token is now part of the text; ids out of range are ignored. */
void cca_sampler_accept(cca_sampler *sampler, int32_t id);

/* The next id of logits[vocab_size], which stay as they are; a NaN counts as -infinity. banned
 * lists n_banned ids that are never taken (may be NULL). -1 if it bans all. A penalised logit
 * is divided by the penalty if it is above 0, else multiplied. Allocates nothing. */
int32_t cca_sampler_next(cca_sampler *sampler, const float *logits, const int32_t *banned,
                         size_t n_banned);

/* log sum exp(logits[i]), n ≥ 1 finite ones: what is to be taken from a logit for the natural log
 * of the model's own probability of its token. */
double cca_log_sum_exp(const float *logits, int64_t n);

#endif
