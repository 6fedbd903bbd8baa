/* What attention reads and writes: rows of keys and values, and who sees which. A leaf that
 * operations, kernels and the cache share.
 *
 *     cca_spans spans = {.n = 2, .at = {{window, cca_rule_window(&rule), 1},
 *                                       {cores, cca_rule_groups(&rule), rule.group_size}}};
 *     int64_t row = cca_rows_at(&spans.at[0].rows, pos);        // row of a position
 *     const char *k = (char *)rows.k + (head * rows.capacity + row) * row_bytes; */
#ifndef CCA_KEYS_H
#define CCA_KEYS_H

#include "backend/dtype.h"
#include "cca_rule.h"

/* How positions turn into angles: angle = pos * inv_freq[k], cos and sin times scale. */
typedef struct cca_rope {
    const double *inv_freq; /* head_dim / 2 values in host memory; 0: the pair does not turn */
    int64_t half;           /* head_dim / 2 */
    float scale;            /* of pairs that turn */
    bool interleaved;       /* pairs (2k, 2k+1); else (k, k + head_dim/2) */
    float still;            /* scale of pairs that do not */
} cca_rope;

/* Rows of keys and values of one layer: [heads][capacity][head_dim], position p in row
 * (p - base) mod capacity. */
typedef struct cca_rows {
    void *k, *v;
    cca_dtype k_type, v_type;
    int64_t heads, capacity, head_dim;
    int64_t base;
} cca_rows;

/* Groups that tiles of queries have chosen, for each head of keys: all queries of a tile read the
 * raw tokens of the same groups. Tiles lie at multiples of `tile` positions; the first is that of
 * the call's first position. In the backend's memory. */
typedef struct cca_choice {
    int32_t *groups;     /* [tiles][heads][most], ascending */
    int32_t *counts;     /* [tiles][heads] of them that there are */
    int64_t heads, most; /* of keys; groups that a tile can have */
    int64_t tile;        /* positions */
    int64_t group_size;
    int64_t levels_from; /* groups from which on blocks are weighed first, see below */
} cca_choice;

/* Groups lie in blocks, which have bounds of their groups' bounds. A tile that sees
 * choice.levels_from groups weighs the whole blocks first, and then the groups of the best, so many
 * that there are CCA_LEVELS_SPARE times as many groups as it can have, and those behind. What that
 * loses from CCA_LEVELS_FROM groups on is in docs/QUALITY.md. */
enum { CCA_BLOCK = 16, CCA_LEVELS_FROM = 2048, CCA_LEVELS_SPARE = 8 };

CCA_RULE int64_t cca_blocks_looked_into(int64_t most_groups) {
    int64_t n = (CCA_LEVELS_SPARE * most_groups + CCA_BLOCK - 1) / CCA_BLOCK;
    return n < 2 ? 2 : n; /* the first may have a single group behind the sinks */
}

/* The groups that one query after the other has chosen of a layer, copied: from one to the next
 * only those come that were not there. In the backend's memory. */
typedef struct cca_kept {
    cca_rows rows;            /* room for choice.most groups of each head */
    int32_t *groups, *places; /* [heads][most] what is there, ascending, behind it CCA_NO_GROUP;
                                 and in which place */
    int32_t *next_groups, *next_places; /* the same behind the query; places stand in its order */
} cca_kept;

enum { CCA_NO_GROUP = INT32_MAX, CCA_MOST_KEPT = 1024 };

/* Rows of one layer that lie elsewhere, as rows of files do: those of positions 0 … end - 1, in
 * pieces one behind the other, each with its first position as base. In host memory. */
typedef struct cca_pieces {
    const cca_rows *at;
    int64_t n, step; /* piece i is at[i * step] */
    int64_t end;
} cca_pieces;

/* Which columns of a span take part: all that are seen; those of chosen groups; those of groups
 * that are not chosen (a column stands for a group there). */
typedef enum cca_pick { CCA_PICK_ALL, CCA_PICK_CHOSEN, CCA_PICK_OTHERS } cca_pick;

/* Keys of one kind, and which of them each query sees: column c lies in row cca_rows_at(&rows, c).
 * Query heads share the rows' heads evenly. */
typedef struct cca_span {
    cca_rows rows;
    cca_range seen;
    int64_t stride; /* positions that a column stands for: 1, or a core's group */
    cca_pick pick;
} cca_span;

enum { CCA_MOST_SPANS = 4 };

/* All that attention reads: one softmax goes over the spans, in this order. Their rows have one
 * head_dim and the same types; the first span ends with the query's own position. */
typedef struct cca_spans {
    cca_span at[CCA_MOST_SPANS];
    int n;
    cca_choice choice; /* where some span picks by it */
    cca_pieces pieces; /* of the rows that are chosen; end 0: none lie elsewhere */
} cca_spans;

typedef enum cca_pooling { CCA_POOL_QUERY, CCA_POOL_MEAN, CCA_POOL_MAX } cca_pooling;

/* Groups of raw rows, by position, and the cores that they are pooled into, by group: one for each
 * query head. */
typedef struct cca_groups {
    cca_rows raw, cores;
    int64_t size;
    cca_pooling pooling;
    bool of_bounds; /* for bounds: raw rows are bounds themselves */
} cca_groups;

/* Sums of attention, in host memory: [heads][n_slots]. Slots stand for positions i * unit …
 * i * unit + unit - 1, and where cuts, ascending and no multiples of unit, lie in these, for the
 * parts; each cut makes one more. Each part gets its share of the positions of a group's core. */
typedef struct cca_mass {
    float *sums;
    int64_t n_slots, unit;
    const int64_t *cuts;
    int64_t n_cuts;
} cca_mass;

/* The row of a position, and the number of rows from there to where a ring wraps. */
CCA_RULE int64_t cca_rows_at(const cca_rows *rows, int64_t pos) {
    return (pos - rows->base) % rows->capacity;
}

CCA_RULE int64_t cca_rows_run(const cca_rows *rows, int64_t pos) {
    return rows->capacity - cca_rows_at(rows, pos);
}

/* The rows that hold a position: a piece, or those that all others are in. */
CCA_RULE const cca_rows *cca_piece_of(const cca_pieces *p, const cca_rows *others, int64_t pos) {
    int64_t low = 0, high = p->n; /* the piece is at[low] … at[high - 1] */
    if (pos >= p->end) return others;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (p->at[middle * p->step].base <= pos) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &p->at[low * p->step];
}

/* Tiles that n queries from pos on lie in, and in which of them a row of this call does. */
CCA_RULE int64_t cca_choice_tiles(const cca_choice *c, int64_t pos, int64_t n) {
    return (pos + n - 1) / c->tile - pos / c->tile + 1;
}

CCA_RULE int64_t cca_choice_tile(const cca_choice *c, int64_t pos, int64_t row) {
    return (pos + row) / c->tile - pos / c->tile;
}

/* The first row that a call, n queries from pos on, has in the tile-th of its tiles; *n_rows: how
 * many it has there. */
CCA_RULE int64_t cca_choice_row(int64_t *n_rows, const cca_choice *c, int64_t pos, int64_t n,
                                int64_t tile) {
    int64_t begin = (pos / c->tile + tile) * c->tile - pos, end = begin + c->tile;
    begin = begin > 0 ? begin : 0;
    *n_rows = (end < n ? end : n) - begin;
    return begin;
}

/* The groups that the tile of a call's row has chosen; the call begins at pos. */
CCA_RULE const int32_t *cca_chosen(const cca_choice *c, int64_t pos, int64_t row, int64_t head,
                                   int64_t *n) {
    int64_t at = cca_choice_tile(c, pos, row) * c->heads + head;
    *n = c->counts[at];
    return c->groups + at * c->most;
}

/* How many of n chosen groups, ascending, begin before a position. */
CCA_RULE int64_t cca_chosen_before(const int32_t *chosen, int64_t n, int64_t group_size,
                                   int64_t end) {
    while (n > 0 && chosen[n - 1] * group_size >= end) n--;
    return n;
}

/* Keys that a position sees at most. */
CCA_RULE int64_t cca_spans_count(const cca_spans *spans, int64_t pos) {
    int64_t n = 0;
    for (int i = 0; i < spans->n; i++) n += cca_range_count(&spans->at[i].seen, pos);
    return n;
}

#endif
