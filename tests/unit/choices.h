/* The choice of groups by its definition, in double, and random bounds and queries for it.
 *
 *     choice_case c = {CCA_F32, 2, 4, 64, rule, pos, n, tile, most};
 *     choice_data d = make_choice(&c, &seed);
 *     ...                                        // cca_choose with d.bounds, d.q into d.out
 *     check_slot(&c, &d, row, n, head, 1e-4);    // a tile's rows, a head of keys
 *     free_choice(&d); */
#ifndef CCA_TEST_CHOICES_H
#define CCA_TEST_CHOICES_H

#include "backend/keys.h"
#include "tests/unit/test.h"

static inline void *room(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 64) / 64 * 64);
    assert_non_null(p);
    memset(p, 0xff, (bytes + 64) / 64 * 64);
    return p;
}

static inline float *some_floats(int64_t n, uint64_t *seed, float size) {
    float *x = room((size_t)n * sizeof *x);
    test_fill(x, n, seed, size);
    return x;
}

typedef struct choice_case {
    cca_dtype type;
    int64_t heads, sharers, head_dim; /* of keys; query heads that share one */
    cca_rule rule;
    int64_t pos, n, tile, most;
} choice_case;

typedef struct choice_data {
    cca_rows bounds, blocks;
    float *q, *high, *low;         /* bounds as they are read */
    float *block_high, *block_low; /* and those of whole blocks */
    cca_choice out;
} choice_data;

static inline int64_t count_tiles(const choice_case *c) {
    return (c->pos + c->n - 1) / c->tile - c->pos / c->tile + 1;
}

/* Bounds of the bounds of each block of groups, in the same type: they are exact. */
static inline void add_blocks(choice_data *d, const choice_case *c, int64_t n_groups) {
    int64_t n_blocks = n_groups / CCA_BLOCK, hd = c->head_dim, n = c->heads * n_blocks * hd;
    float *high = some_floats(n, &(uint64_t){1}, 1), *low = some_floats(n, &(uint64_t){1}, 1);
    for (int64_t i = 0; i < n; i++) {
        int64_t head = i / hd / n_blocks, group = i / hd % n_blocks * CCA_BLOCK;
        high[i] = -INFINITY, low[i] = INFINITY;
        for (int64_t t = group; t < group + CCA_BLOCK; t++) {
            int64_t at = (head * n_groups + t) * hd + i % hd;
            high[i] = fmaxf(high[i], d->high[at]), low[i] = fminf(low[i], d->low[at]);
        }
    }
    d->block_high = high, d->block_low = low;
    d->blocks = (cca_rows){
        room(4 * (size_t)n), room(4 * (size_t)n), c->type, c->type, c->heads, n_blocks, hd, 0};
    cca_dtype_encode(d->blocks.k, c->type, high, n);
    cca_dtype_encode(d->blocks.v, c->type, low, n);
}

static inline choice_data make_choice(const choice_case *c, uint64_t *seed) {
    choice_data d;
    int64_t n_groups = (c->pos + c->n) / c->rule.group_size;
    int64_t n = c->heads * n_groups * c->head_dim, slots = count_tiles(c) * c->heads;
    char *memory[2];
    float *sides[2];
    for (int i = 0; i < 2; i++) {
        sides[i] = some_floats(n, seed, 1), memory[i] = room(4 * (size_t)n);
    }
    for (int64_t i = 0; i < n; i++) {
        float a = sides[0][i], b = sides[1][i];
        sides[0][i] = fmaxf(a, b), sides[1][i] = fminf(a, b);
    }
    for (int i = 0; i < 2; i++) {
        cca_dtype_encode(memory[i], c->type, sides[i], n);
        cca_dtype_decode(sides[i], c->type, memory[i], n);
    }
    d.high = sides[0], d.low = sides[1];
    add_blocks(&d, c, n_groups);
    d.bounds =
        (cca_rows){memory[0], memory[1], c->type, c->type, c->heads, n_groups, c->head_dim, 0};
    d.q = some_floats(c->n * c->heads * c->sharers * c->head_dim, seed, 2);
    d.out = (cca_choice){room((size_t)(slots * c->most) * sizeof(int32_t)),
                         room((size_t)slots * sizeof(int32_t)),
                         c->heads,
                         c->most,
                         c->tile,
                         c->rule.group_size,
                         CCA_LEVELS_FROM};
    return d;
}

static inline void free_choice(choice_data *d) {
    free(d->bounds.k), free(d->bounds.v), free(d->q), free(d->high), free(d->low);
    free(d->blocks.k), free(d->blocks.v), free(d->block_high), free(d->block_low);
    free(d->out.groups), free(d->out.counts);
}

enum { MOST_COLUMNS = 4096 };

/* What is weighed: columns begin … end - 1, but those that are left out; each stands for unit
 * groups. */
typedef struct weighing {
    const float *high, *low; /* [heads][capacity][head_dim] */
    int64_t capacity, unit, begin, end;
    const bool *among; /* NULL: all */
} weighing;

/* Adds what one query of a head gives each column. */
static inline void weigh_columns(double *total, const weighing *w, const choice_case *c,
                                 const choice_data *d, int64_t row, int64_t head) {
    cca_range seen = cca_rule_groups(&c->rule);
    int64_t last = cca_edge_at(&seen.end, c->pos + row), hd = c->head_dim;
    int64_t end = cca_min(w->end, (last + w->unit - 1) / w->unit);
    const float *q = d->q + (row * c->heads * c->sharers + head) * hd;
    double score[MOST_COLUMNS] = {0}, sum = 0;
    assert_true(end <= MOST_COLUMNS);
    for (int64_t t = w->begin; t < end; t++) {
        int64_t at = (head / c->sharers * w->capacity + t) * hd;
        double most = 0;
        if (w->among && !w->among[t]) continue;
        for (int64_t i = 0; i < hd; i++) {
            most += fmax((double)q[i] * w->high[at + i], (double)q[i] * w->low[at + i]);
        }
        score[t] = exp(most / sqrt((double)hd));
        sum += score[t];
    }
    for (int64_t t = w->begin; t < end; t++) total[t] += score[t] / sum;
}

/* The groups that are chosen by definition, as flags; gives how far the last of them is from the
 * first that is left out, relatively. */
static inline double choose_by_definition(bool *chosen, const double *total, int64_t begin,
                                          int64_t end, int64_t most) {
    double least = INFINITY, left_out = -INFINITY;
    memset(chosen, 0, sizeof *chosen * MOST_COLUMNS);
    for (int64_t k = 0; k < most; k++) {
        int64_t best = -1;
        for (int64_t t = begin; t < end; t++) {
            if (!chosen[t] && (best < 0 || total[t] > total[best])) best = t;
        }
        if (best < 0) return 1;
        chosen[best] = true;
        least = total[best];
    }
    for (int64_t t = begin; t < end; t++) left_out = fmax(left_out, chosen[t] ? 0 : total[t]);
    return least == left_out ? 1 : (least - left_out) / fmax(least, 1e-300); /* ties are certain */
}

/* The tile's weights of the columns, and which of them are chosen; gives the gap. */
static inline double choose_columns(bool *chosen, double *total, const weighing *w,
                                    const choice_case *c, const choice_data *d, int64_t row,
                                    int64_t n, int64_t head, int64_t most) {
    memset(total, 0, sizeof *total * MOST_COLUMNS);
    for (int64_t i = 0; i < n * c->sharers; i++) {
        weigh_columns(total, w, c, d, row + i % n, head * c->sharers + i / n);
    }
    return choose_by_definition(chosen, total, w->begin, w->end, most);
}

/* Which groups of begin … end - 1 are weighed where blocks are first; gives the blocks' gap. */
static inline double find_by_definition(bool *among, const choice_case *c, const choice_data *d,
                                        int64_t row, int64_t n, int64_t head, int64_t begin,
                                        int64_t end) {
    static double total[MOST_COLUMNS];
    static bool blocks[MOST_COLUMNS];
    int64_t wanted = cca_blocks_looked_into(c->most), n_blocks = end / CCA_BLOCK;
    bool in_levels = end >= d->out.levels_from && wanted < n_blocks;
    weighing w = {d->block_high, d->block_low, d->blocks.capacity, CCA_BLOCK, begin / CCA_BLOCK,
                  n_blocks,      NULL};
    double gap = 1;
    if (in_levels) gap = choose_columns(blocks, total, &w, c, d, row, n, head, wanted);
    for (int64_t t = 0; t < MOST_COLUMNS; t++) {
        among[t] = t >= begin && t < end &&
                   (!in_levels || t / CCA_BLOCK >= n_blocks || blocks[t / CCA_BLOCK]);
    }
    return gap;
}

/* Whether the groups that rows row … row + n - 1 of a head of keys have chosen, a tile, are those
 * of the definition. They must be where gaps are clear. */
static inline bool check_slot(const choice_case *c, const choice_data *d, int64_t row, int64_t n,
                              int64_t head, double tolerance) {
    static double total[MOST_COLUMNS];
    static bool want[MOST_COLUMNS], got[MOST_COLUMNS], among[MOST_COLUMNS];
    cca_range seen = cca_rule_groups(&c->rule);
    int64_t slot = ((c->pos + row) / c->tile - c->pos / c->tile) * c->heads + head;
    int64_t begin = cca_edge_at(&seen.begin, c->pos + row + n - 1);
    int64_t end = cca_edge_at(&seen.end, c->pos + row + n - 1);
    double gap = find_by_definition(among, c, d, row, n, head, begin, end), least = INFINITY;
    bool clear = gap > tolerance;
    weighing w = {d->high, d->low, d->bounds.capacity, 1, begin, end, among};
    gap = choose_columns(want, total, &w, c, d, row, n, head, c->most);
    int32_t count = d->out.counts[slot];
    const int32_t *groups = d->out.groups + slot * c->most;
    memset(got, 0, sizeof got);
    assert_int_equal(count, end > begin ? cca_min(c->most, end - begin) : 0);
    for (int32_t i = 0; i < count; i++) {
        assert_true(groups[i] >= begin && groups[i] < end);
        assert_true(i == 0 || groups[i] > groups[i - 1]);
        assert_true(!clear || among[groups[i]]);
        got[groups[i]] = true;
        least = fmin(least, total[groups[i]]);
    }
    bool equal = memcmp(got, want, sizeof got) == 0;
    if (clear && gap > tolerance) assert_true(equal);
    for (int64_t t = begin; clear && t < end; t++) {
        if (!got[t]) assert_true(total[t] <= least * (1 + tolerance));
    }
    return equal;
}

#endif
