/* Guesses the tokens that come next from the text so far: where its last tokens have stood before,
 * what stood behind them there (prompt lookup).
 *
 *     cca_lookup *l;
 *     cca_lookup_new(&l, 7, &err);                             // guesses 7 tokens at most
 *     for (...) cca_lookup_push(l, prompt[i], &err);           // the text: prompt, then answer
 *     int64_t n = cca_lookup_guess(l, ids + 1, 7);             // of what follows ids[0], the last
 *     cca_session_draft(&logits, session, ids, 1 + n, &err);   // are they right?
 *     cca_lookup_report(l, n, n_right);                        // so that it guesses more, or less
 *     cca_lookup_free(l);
 *
 * A token costs a few steps, whatever the length of the text: positions whose last tokens hash to
 * the same number form a chain, the latest first, as in LZ77 compressors, and a guess looks at the
 * first ones of a chain alone. A text of n tokens takes 12 to 24 n bytes. */
#ifndef CCA_LOOKUP_H
#define CCA_LOOKUP_H

#include "base/base.h"

typedef struct cca_lookup cca_lookup;

/* most ≥ 1: tokens of a guess. CCA_NO_MEMORY. */
cca_status cca_lookup_new(cca_lookup **out, int64_t most, cca_error *err);
/* NULL is allowed. */
void cca_lookup_free(cca_lookup *lookup);

/* Bytes that a text of so many tokens takes at most. */
size_t cca_lookup_bytes(int64_t n_tokens);

/* Forgets the text, and how guesses went. */
void cca_lookup_clear(cca_lookup *lookup);
/* The text goes on with a token. CCA_NO_MEMORY, also beyond 2^31 - 1 tokens. */
cca_status cca_lookup_push(cca_lookup *lookup, int32_t id, cca_error *err);

/* What may follow the text, into out: at most n tokens; returns how many. 0 where the last tokens
 * have not stood before, and for a while after guesses that were wrong. */
int64_t cca_lookup_guess(cca_lookup *lookup, int32_t *out, int64_t n);
/* Of the last guess n_guessed tokens were tried, and the first n_right were what came next. */
void cca_lookup_report(cca_lookup *lookup, int64_t n_guessed, int64_t n_right);

#endif
