/* What the unit tests share: cmocka, random vectors, distances of vectors. */
#ifndef CCA_TEST_H
#define CCA_TEST_H

#include "base/random.h"
#include "check/difference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline void test_fill(float *x, int64_t n, uint64_t *state, float size) {
    for (int64_t i = 0; i < n; i++) x[i] = size * cca_random_uniform(state);
}

static inline void test_below(double value, double bound, const char *what) {
    if (value < bound) return;
    fail_msg("%s: %.3g is not below %.3g", what, value, bound);
}

#endif
