/* The integers of CCA-Attention: which keys a position sees. A leaf; gcc and nvcc compile it.
 *
 *     cca_rule r = {.group_size = 16, .window_size = 1024, .far = CCA_FAR_CORES};
 *     int64_t far = cca_rule_far(&r, pos);        // keys 0 … far-1 of the far rows
 *     int64_t raw = cca_rule_raw_begin(&r, pos);  // and raw tokens raw … pos
 *
 * Positions are 0-based here, so position pos is the definition's i = pos + 1. Groups are
 * counted from 0: group t holds positions t*g … t*g + g-1. */
#ifndef CCA_RULE_H
#define CCA_RULE_H

#include <stdint.h>

#ifdef __CUDACC__
#define CCA_RULE static inline __host__ __device__
#else
#define CCA_RULE static inline
#endif

/* Where neither the model file nor an option says: the paper's. */
enum { CCA_DEFAULT_GROUP = 16, CCA_DEFAULT_WINDOW = 1024 };

/* What stands for the tokens before the raw range. */
typedef enum cca_far {
    CCA_FAR_CORES, /* a core token a group (steps 1 to 3 of the definition) */
    CCA_FAR_NONE,  /* nothing: window only */
    CCA_FAR_SINKS, /* the first n_sinks raw tokens */
} cca_far;

typedef struct cca_rule {
    int64_t group_size;  /* g ≥ 1 */
    int64_t window_size; /* s ≥ g, a multiple of g; INT64_MAX/2 and more: full attention */
    cca_far far;
    int64_t n_sinks;
} cca_rule;

/* j(i) = max(0, floor((i - s) / g)): groups that are no longer seen token by token. */
CCA_RULE int64_t cca_rule_groups(const cca_rule *r, int64_t pos) {
    int64_t behind = pos + 1 - r->window_size;
    return behind < 0 ? 0 : behind / r->group_size;
}

/* First raw position that pos sees; it sees all from there to itself. */
CCA_RULE int64_t cca_rule_raw_begin(const cca_rule *r, int64_t pos) {
    return cca_rule_groups(r, pos) * r->group_size;
}

/* Number of far rows that pos sees. */
CCA_RULE int64_t cca_rule_far(const cca_rule *r, int64_t pos) {
    if (r->far == CCA_FAR_NONE) return 0;
    int64_t groups = cca_rule_groups(r, pos);
    if (r->far == CCA_FAR_CORES) return groups;
    int64_t hidden = groups * r->group_size;
    return hidden < r->n_sinks ? hidden : r->n_sinks;
}

/* Raw rows a ring must hold so that no position misses one: s + g - 1 are seen. */
CCA_RULE int64_t cca_rule_ring(const cca_rule *r) {
    return r->window_size + r->group_size;
}

/* Groups whose last position lies in [pos, pos + n) are *first … *first + count - 1. */
CCA_RULE int64_t cca_rule_completed(const cca_rule *r, int64_t pos, int64_t n, int64_t *first) {
    *first = pos / r->group_size;
    return (pos + n) / r->group_size - *first;
}

/* The keys of a tile of queries first … last: raw columns [raw_begin, raw_end) and far
 * columns [0, far_end). A tile of columns [c, c + n) needs a mask if some query of the
 * tile does not see all of it. */
typedef struct cca_tile {
    int64_t first, last;
    int64_t raw_begin, raw_end;
    int64_t far_end;
} cca_tile;

CCA_RULE cca_tile cca_rule_tile(const cca_rule *r, int64_t first, int64_t last) {
    cca_tile t;
    t.first = first;
    t.last = last;
    t.raw_begin = cca_rule_raw_begin(r, first);
    t.raw_end = last + 1;
    t.far_end = cca_rule_far(r, last);
    return t;
}

CCA_RULE int cca_rule_raw_masked(const cca_rule *r, const cca_tile *t, int64_t c, int64_t n) {
    return c < cca_rule_raw_begin(r, t->last) || c + n - 1 > t->first;
}

CCA_RULE int cca_rule_far_masked(const cca_rule *r, const cca_tile *t, int64_t c, int64_t n) {
    return c + n > cca_rule_far(r, t->first);
}

#endif
