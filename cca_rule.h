/* The integers of CCA-Attention: which keys a position sees. A leaf; gcc and nvcc compile it.
 *
 *     cca_rule r = {.group_size = 16, .window_size = 1024, .n_sinks = 16, .cores = true};
 *     cca_range raw = cca_rule_window(&r), cores = cca_rule_groups(&r);
 *     int64_t first = cca_edge_at(&raw.begin, pos);   // raw tokens first … pos
 *     int64_t t = cca_edge_at(&cores.begin, pos);     // and cores t … n - 1
 *     int64_t n = cca_edge_at(&cores.end, pos);
 *
 * Positions are 0-based here, so position pos is the definition's i = pos + 1. Groups are
 * counted from 0: group t holds positions t*g … t*g + g-1. */
#ifndef CCA_RULE_H
#define CCA_RULE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define CCA_RULE static inline __host__ __device__
#else
#define CCA_RULE static inline
#endif

/* Where neither the model file nor an option says: the paper's. */
enum { CCA_DEFAULT_GROUP = 16, CCA_DEFAULT_WINDOW = 1024 };

/* Tokens at the end of a prompt that choose each for itself what they recall, as generated ones do.
 */
enum { CCA_ALONE = 64 };

typedef struct cca_rule {
    int64_t group_size;  /* g ≥ 1 */
    int64_t window_size; /* s ≥ g, a multiple of g; INT64_MAX/2 and more: full attention */
    int64_t n_sinks;     /* first tokens that stay raw for everybody; with cores a multiple of g */
    bool cores;          /* groups behind the window and the sinks are seen as cores */
} cca_rule;

/* ---- what a position sees of some keys ------------------------------------------------- */

/* One end of what positions see: max(0, floor((pos + 1 - lag) / period)) · step, at most `most`.
 * It never falls as pos grows. */
typedef struct cca_edge {
    int64_t lag, period, step, most;
} cca_edge;

/* Columns begin … end - 1 of keys that are counted in a way of their own: raw tokens by position,
 * cores by group. */
typedef struct cca_range {
    cca_edge begin, end;
} cca_range;

CCA_RULE int64_t cca_edge_at(const cca_edge *e, int64_t pos) {
    int64_t past = pos + 1 - e->lag;
    int64_t at = past > 0 ? past / e->period * e->step : 0;
    return at < e->most ? at : e->most;
}

/* Columns that pos sees. */
CCA_RULE int64_t cca_range_count(const cca_range *r, int64_t pos) {
    return cca_edge_at(&r->end, pos) - cca_edge_at(&r->begin, pos);
}

/* What a tile of queries first … last goes through: columns begin … end - 1, of which all its
 * queries see free_begin … free_end - 1. */
typedef struct cca_tile {
    int64_t begin, end, free_begin, free_end;
} cca_tile;

CCA_RULE cca_tile cca_range_tile(const cca_range *r, int64_t first, int64_t last) {
    cca_tile t;
    t.begin = cca_edge_at(&r->begin, first);
    t.end = cca_edge_at(&r->end, last);
    t.free_begin = cca_edge_at(&r->begin, last);
    t.free_end = cca_edge_at(&r->end, first);
    return t;
}

/* Whether some query of the tile does not see all of columns c … c + n - 1. */
CCA_RULE int cca_tile_masked(const cca_tile *t, int64_t c, int64_t n) {
    return c < t->free_begin || c + n > t->free_end;
}

/* ---- the rule -------------------------------------------------------------------------- */

/* Raw tokens, by position: from j(i) · g to the query itself, j(i) = max(0, floor((i - s) / g)). */
CCA_RULE cca_range cca_rule_window(const cca_rule *r) {
    cca_edge begin = {r->window_size, r->group_size, r->group_size, INT64_MAX};
    cca_edge end = {0, 1, 1, INT64_MAX};
    cca_range range = {begin, end};
    return range;
}

/* Sinks, by position, as far as they lie before the window. */
CCA_RULE cca_range cca_rule_sinks(const cca_rule *r) {
    cca_edge begin = {0, 1, 0, 0};
    cca_edge end = {r->window_size, r->group_size, r->group_size, r->n_sinks};
    cca_range range = {begin, end};
    return range;
}

/* Groups between sinks and window, by number: those that are cores, or can be recalled. */
CCA_RULE cca_range cca_rule_groups(const cca_rule *r) {
    cca_edge begin = {r->window_size, r->group_size, 1, r->n_sinks / r->group_size};
    cca_edge end = {r->window_size, r->group_size, 1, INT64_MAX};
    cca_range range = {begin, end};
    return range;
}

/* Their raw tokens, by position. */
CCA_RULE cca_range cca_rule_recallable(const cca_rule *r) {
    cca_range range = cca_rule_groups(r);
    range.begin.step = range.end.step = r->group_size;
    range.begin.most = r->n_sinks;
    return range;
}

/* Raw rows a ring must hold so that no position misses one: s + g - 1 are seen. */
CCA_RULE int64_t cca_rule_ring(const cca_rule *r) {
    return r->window_size + r->group_size;
}

/* Groups whose last position lies in [pos, pos + n) are *first … *first + count - 1. */
CCA_RULE int64_t cca_groups_completed(int64_t group_size, int64_t pos, int64_t n, int64_t *first) {
    *first = pos / group_size;
    return (pos + n) / group_size - *first;
}

#endif
