/* Random numbers that are the same everywhere: splitmix64.
 *
 *     uint64_t state = seed;
 *     uint64_t bits = cca_random_next(&state);      // a stream
 *     uint64_t same = cca_random_at(seed, 1);       // the same value, without what is before it
 *
 * Models of random weights and samplers' seeds rest on these bits: they never change. Nothing here
 * is a secret. */
#ifndef CCA_RANDOM_H
#define CCA_RANDOM_H

#include "base/hash.h"

#include <stdint.h>

static const uint64_t cca_random_step = UINT64_C(0x9e3779b97f4a7c15);

/* Value i of the stream that seed begins, counted from 1; any i, modulo 2^64. */
static inline uint64_t cca_random_at(uint64_t seed, uint64_t i) {
    return cca_hash_number(seed + i * cca_random_step);
}

/* The next 64 bits of a stream, whose state may begin as any number. */
static inline uint64_t cca_random_next(uint64_t *state) {
    *state += cca_random_step;
    return cca_random_at(*state, 0);
}

/* The next number, uniform in [-1, 1). */
static inline float cca_random_uniform(uint64_t *state) {
    return (float)((double)(cca_random_next(state) >> 11) * 0x1p-52 - 1);
}

#endif
