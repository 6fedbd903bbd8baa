/* What the unit tests share: cmocka, random vectors, a comparison of vectors. */
#ifndef CCA_TEST_H
#define CCA_TEST_H

#include "base/random.h"

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

/* ‖a - b‖ / ‖b‖; infinite where a value is no number. */
static inline double test_distance(const float *a, const float *b, int64_t n) {
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i])) return INFINITY;
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(difference / fmax(size, 1e-300));
}

/* Largest |a - b| over the spread (largest minus smallest) of b. */
static inline double test_spread(const float *a, const float *b, int64_t n) {
    double low = INFINITY, high = -INFINITY, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i])) return INFINITY;
        low = fmin(low, b[i]);
        high = fmax(high, b[i]);
        worst = fmax(worst, fabs((double)a[i] - b[i]));
    }
    return worst / fmax(high - low, 1e-300);
}

static inline void test_below(double value, double bound, const char *what) {
    if (value < bound) return;
    fail_msg("%s: %.3g is not below %.3g", what, value, bound);
}

#endif
