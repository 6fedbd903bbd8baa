/* How far a vector is from the one that it should be; infinite where a value is no number.
 *
 *     if (cca_distance(got, want, n) > 1e-6) …       // relative: ‖got - want‖ / ‖want‖
 *     if (cca_spread_difference(got, want, n) > 1e-4) …
 */
#ifndef CCA_DIFFERENCE_H
#define CCA_DIFFERENCE_H

#include <math.h>
#include <stdint.h>

/* ‖a - b‖ / ‖b‖ over n values. */
static inline double cca_distance(const float *a, const float *b, int64_t n) {
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i])) return INFINITY;
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(difference / fmax(size, 1e-300));
}

/* Largest |a - b| of n values over the spread (largest minus smallest) of b. */
static inline double cca_spread_difference(const float *a, const float *b, int64_t n) {
    double low = INFINITY, high = -INFINITY, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i])) return INFINITY;
        low = fmin(low, b[i]);
        high = fmax(high, b[i]);
        worst = fmax(worst, fabs((double)a[i] - b[i]));
    }
    return worst / fmax(high - low, 1e-300);
}

#endif
