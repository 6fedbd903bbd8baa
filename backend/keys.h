/* What attention reads and writes: rows of keys and values, and who sees which. A leaf that
 * operations, kernels and the cache share.
 *
 *     cca_keys keys = {.raw = window, .far = cores, .rule = rule};
 *     int64_t row = cca_rows_at(&keys.raw, pos);               // row of a position
 *     const char *k = (char *)keys.raw.k + (head * keys.raw.capacity + row) * row_bytes; */
#ifndef CCA_KEYS_H
#define CCA_KEYS_H

#include "backend/dtype.h"
#include "cca_rule.h"

/* How positions turn into angles: angle = pos * inv_freq[k], cos and sin times scale. */
typedef struct cca_rope {
    const double *inv_freq; /* head_dim / 2 values in host memory */
    int64_t half;           /* head_dim / 2 */
    float scale;
    bool interleaved; /* pairs (2k, 2k+1); else (k, k + head_dim/2) */
} cca_rope;

/* Rows of keys and values of one layer: [heads][capacity][head_dim], position p in row
 * (p - base) mod capacity. */
typedef struct cca_rows {
    void *k, *v;
    cca_dtype k_type, v_type;
    int64_t heads, capacity, head_dim;
    int64_t base;
} cca_rows;

/* What attention reads: raw rows by position, far rows 0, 1, … (cores: heads = query heads,
 * sinks: heads = key/value heads), and who sees what. */
typedef struct cca_keys {
    cca_rows raw, far;
    cca_rule rule;
} cca_keys;

typedef enum cca_pooling { CCA_POOL_QUERY, CCA_POOL_MEAN, CCA_POOL_MAX } cca_pooling;

/* Sums of attention, in host memory: [heads][n_slots], where slot i stands for positions i * unit …
 * i * unit + unit - 1. A group lies in one slot. */
typedef struct cca_mass {
    float *sums;
    int64_t n_slots, unit;
} cca_mass;

/* The row of a position, and the number of rows from there to where a ring wraps. */
CCA_RULE int64_t cca_rows_at(const cca_rows *rows, int64_t pos) {
    return (pos - rows->base) % rows->capacity;
}

CCA_RULE int64_t cca_rows_run(const cca_rows *rows, int64_t pos) {
    return rows->capacity - cca_rows_at(rows, pos);
}

#endif
