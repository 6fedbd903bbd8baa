/* Which groups a tile of queries recalls, and the bounds that tell. One source for all variants, on
 * top of their products and softmax.
 *
 * q · k is at most the sum of q⁺ · high and q⁻ · low, where q⁺ and q⁻ are the positive and the
 * negative part of q: for few queries two products with the bounds' rows as weights, for many one
 * of q⁺ q⁻ with high and low side by side, so that sums are written once.
 *
 * Where there are many groups, blocks of them are weighed first, by bounds of their bounds; then
 * the groups of the best blocks, and those behind the last whole block. */
#include "backend/cpu/kernels.h"

#include <math.h>
#include <string.h>

enum {
    FEW = 6,       /* rows below which packing bounds into a panel does not pay */
    ALIGNMENT = 64 /* of each part of the scratch memory */
};

/* ---- bounds -------------------------------------------------------------------------- */

/* A float that is no larger (smaller) and can be written in bf16. */
static float bf16_outwards(float x, bool up) {
    float rounded = cca_bf16_to_f32(cca_f32_to_bf16(x));
    if (up ? rounded >= x : rounded <= x) return rounded;
    uint16_t h = cca_f32_to_bf16(rounded);
    bool away = up == (rounded >= 0); /* from zero */
    if (rounded == 0) return cca_bf16_to_f32(up ? 0x0001 : 0x8001);
    return cca_bf16_to_f32((uint16_t)(away ? h + 1 : h - 1));
}

void cca_bound_group(const cca_kernels *k, const cca_groups *groups, int64_t head, int64_t group,
                     float *scratch) {
    const cca_rows *raw = &groups->raw, *bounds = &groups->cores;
    int64_t hd = raw->head_dim;
    float *row = scratch, *high = row + hd, *low = high + hd;
    for (int64_t i = 0; i < groups->size; i++) {
        int64_t at = cca_rows_at(raw, group * groups->size + i);
        k->decode(row, raw->k_type, cca_row_at(raw->k, raw->k_type, raw, head, at), hd);
        for (int64_t d = 0; d < hd; d++) {
            bool first = i == 0 || isnan(row[d]); /* what is no number has no bounds */
            high[d] = first || row[d] > high[d] ? row[d] : high[d];
            if (!groups->of_bounds) low[d] = first || row[d] < low[d] ? row[d] : low[d];
        }
        if (!groups->of_bounds) continue;
        k->decode(row, raw->v_type, cca_row_at(raw->v, raw->v_type, raw, head, at), hd);
        for (int64_t d = 0; d < hd; d++) {
            bool first = i == 0 || isnan(row[d]);
            low[d] = first || row[d] < low[d] ? row[d] : low[d];
        }
    }
    for (int64_t d = 0; bounds->k_type != raw->k_type && d < hd; d++) {
        high[d] = bf16_outwards(high[d], true);
        low[d] = bf16_outwards(low[d], false);
    }
    k->encode((void *)cca_row_at(bounds->k, bounds->k_type, bounds, head, group), bounds->k_type,
              high, hd);
    k->encode((void *)cca_row_at(bounds->v, bounds->v_type, bounds, head, group), bounds->v_type,
              low, hd);
}

/* ---- scratch memory ------------------------------------------------------------------ */

/* Where the parts of a tile's scratch memory begin, and its bytes. */
typedef struct parts {
    size_t x[2], part, both, panel, ids, blocks, total, scores, bytes;
} parts;

/* What a tile needs. x: its rows' positive and negative parts in the form that suits, in one row
 * or, where there are few, each by itself. */
typedef struct choosing {
    const cca_products *k; /* with bounds as weights */
    const cca_choose_args *args;
    int64_t head_dim, sharers, n_rows; /* rows: heads × queries */
    int64_t first, end;                /* groups that some query sees */
    int64_t n_blocks, most_blocks;     /* whole ones, and those that are looked into; 0: all */
    int64_t n_x, width;                /* forms of a row, and values in each */
    size_t x_stride, bound_bytes;      /* of a group's row */
    char *x[2];
    float *part; /* [2][head_dim]: the parts of one row, before they are converted */
    char *both;  /* [CCA_PANEL][2][bound_bytes]: high and low bounds side by side */
    void *panel;
    int32_t *ids;    /* of the columns: groups, ascending */
    int32_t *blocks; /* as ids, of the first level */
    float *scores;   /* [n_rows][columns] */
    float *total;    /* [columns] */
} choosing;

/* The most columns that a tile has, which is this one or one before it. */
static size_t most_columns(const choosing *c) {
    if (c->most_blocks == 0) return (size_t)(c->end - c->first);
    int64_t below = c->args->out->levels_from - 1, looked_into = (c->most_blocks + 1) * CCA_BLOCK;
    return (size_t)cca_max(cca_max(below, looked_into), c->n_blocks);
}

static choosing sizes_of(const cca_kernels *k, const cca_choose_args *args) {
    const cca_rows *bounds = args->bounds;
    int64_t last = args->pos + args->row + args->n - 1;
    choosing c = {.args = args, .head_dim = bounds->head_dim};
    c.sharers = args->n_heads / bounds->heads;
    c.n_rows = c.sharers * args->n;
    const bool few = c.n_rows < FEW;
    c.k = few ? k->few(bounds->k_type) : k->products(bounds->k_type);
    c.n_x = few ? 2 : 1;
    c.width = 2 / c.n_x * c.head_dim;
    c.first = cca_edge_at(&args->groups->begin, last);
    c.end = cca_edge_at(&args->groups->end, last);
    int64_t wanted = cca_blocks_looked_into(args->out->most);
    if (args->blocks && c.end >= args->out->levels_from && wanted < c.end / CCA_BLOCK) {
        c.n_blocks = c.end / CCA_BLOCK;
        c.most_blocks = wanted;
    }
    size_t form = c.k->x_bytes(bounds->k_type, c.width);
    c.x_stride = form ? form : (size_t)c.width * sizeof(float);
    cca_dtype_row_bytes(&c.bound_bytes, bounds->k_type, c.head_dim);
    return c;
}

static size_t take(parts *p, size_t bytes) {
    size_t begin = p->bytes;
    p->bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return begin;
}

static parts lay_out(const choosing *c) {
    size_t rows = (size_t)c->n_rows, columns = most_columns(c);
    parts p = {0};
    for (int64_t i = 0; i < c->n_x; i++) p.x[i] = take(&p, rows * c->x_stride);
    p.part = take(&p, 2 * (size_t)c->head_dim * sizeof(float));
    if (c->n_x == 1) {
        p.both = take(&p, CCA_PANEL * 2 * c->bound_bytes);
        p.panel = take(&p, c->k->panel_bytes(c->args->bounds->k_type, c->width));
    }
    p.ids = take(&p, columns * sizeof(int32_t));
    p.blocks = take(&p, (size_t)c->most_blocks * sizeof(int32_t));
    p.total = take(&p, columns * sizeof(float));
    p.scores = take(&p, rows * columns * sizeof(float));
    return p;
}

size_t cca_choose_bytes(const cca_kernels *k, const cca_choose_args *args) {
    choosing c = sizes_of(k, args);
    return lay_out(&c).bytes;
}

static choosing begin_choosing(const cca_kernels *k, const cca_choose_args *args, char *scratch) {
    choosing c = sizes_of(k, args);
    parts p = lay_out(&c);
    for (int i = 0; i < 2; i++) c.x[i] = scratch + p.x[i];
    c.part = (float *)(void *)(scratch + p.part);
    c.both = scratch + p.both;
    c.panel = scratch + p.panel;
    c.ids = (int32_t *)(void *)(scratch + p.ids);
    c.blocks = (int32_t *)(void *)(scratch + p.blocks);
    c.total = (float *)(void *)(scratch + p.total);
    c.scores = (float *)(void *)(scratch + p.scores);
    return c;
}

/* ---- scores -------------------------------------------------------------------------- */

/* Row i's query, of head and position, apart by sign and scaled. */
static void split_rows(const choosing *c, int64_t kv_head) {
    const cca_choose_args *a = c->args;
    const cca_dtype type = a->bounds->k_type;
    const bool convert = c->k->x_bytes(type, c->width) > 0;
    const float scale = 1 / sqrtf((float)c->head_dim);
    float *positive = c->part, *negative = c->part + c->head_dim;
    for (int64_t i = 0; i < c->n_rows; i++) {
        int64_t head = kv_head * c->sharers + i / a->n;
        const float *q = a->q + ((a->row + i % a->n) * a->n_heads + head) * c->head_dim;
        for (int64_t d = 0; d < c->head_dim; d++) positive[d] = q[d] > 0 ? q[d] * scale : 0;
        for (int64_t d = 0; d < c->head_dim; d++) negative[d] = q[d] > 0 ? 0 : q[d] * scale;
        for (int64_t x = 0; x < c->n_x; x++) {
            char *to = c->x[x] + (size_t)i * c->x_stride;
            const float *from = c->part + x * c->head_dim;
            if (convert) {
                c->k->x_convert(to, type, from, c->width);
            } else {
                memcpy(to, from, (size_t)c->width * sizeof *from);
            }
        }
    }
}

/* Columns of one level: n rows of bounds. */
typedef struct level {
    const cca_rows *bounds;
    const int32_t *ids; /* of the rows, ascending */
    int64_t n;
    int64_t unit; /* groups that a row stands for */
} level;

/* How many columns from i on lie one behind the other. */
static int64_t run_from(const level *l, int64_t i) {
    int64_t n = 1;
    while (n < CCA_PANEL && i + n < l->n && l->ids[i + n] == l->ids[i] + n) n++;
    return n;
}

static const char *bound_at(const level *l, bool high, int64_t kv_head, int64_t i) {
    const cca_rows *b = l->bounds;
    return high ? cca_row_at(b->k, b->k_type, b, kv_head, l->ids[i])
                : cca_row_at(b->v, b->v_type, b, kv_head, l->ids[i]);
}

static void score_few(const choosing *c, const level *l, int64_t kv_head) {
    memset(c->scores, 0, (size_t)(c->n_rows * l->n) * sizeof *c->scores);
    for (int64_t i = 0, n; i < l->n; i += n) {
        n = run_from(l, i);
        for (int x = 0; x < 2; x++) {
            c->k->dot(c->scores + i, l->n, c->x[x], c->x_stride, c->n_rows, l->bounds->k_type,
                      bound_at(l, x == 0, kv_head, i), c->bound_bytes, n, c->head_dim);
        }
    }
}

static void score_many(const choosing *c, const level *l, int64_t kv_head) {
    const cca_dtype type = l->bounds->k_type;
    const size_t bytes = c->bound_bytes;
    for (int64_t from = 0; from < l->n; from += CCA_PANEL) {
        const int64_t n = cca_min(CCA_PANEL, l->n - from);
        for (int64_t i = 0; i < n; i++) {
            char *to = c->both + 2 * bytes * (size_t)i;
            memcpy(to, bound_at(l, true, kv_head, from + i), bytes);
            memcpy(to + bytes, bound_at(l, false, kv_head, from + i), bytes);
        }
        c->k->pack(c->panel, type, c->both, 2 * bytes, n, c->width);
        c->k->multiply(c->scores + from, l->n, c->x[0], c->x_stride, c->n_rows, type, c->panel, n,
                       c->width, false);
    }
}

/* How many of the columns a row sees: those that begin before its end. */
static int64_t seen_by(const choosing *c, const level *l, int64_t row) {
    const cca_choose_args *a = c->args;
    int64_t end = cca_edge_at(&a->groups->end, a->pos + a->row + row % a->n), n = l->n;
    while (n > 0 && l->ids[n - 1] * l->unit >= end) n--;
    return n;
}

/* The columns' weights, summed over the rows. */
static void weigh(const choosing *c, const cca_kernels *k, const level *l, int64_t kv_head) {
    if (c->n_x == 2) {
        score_few(c, l, kv_head);
    } else {
        score_many(c, l, kv_head);
    }
    memset(c->total, 0, (size_t)l->n * sizeof *c->total);
    for (int64_t i = 0; i < c->n_rows; i++) {
        int64_t n = seen_by(c, l, i);
        if (n > 0) k->add_softmax(c->total, c->scores + i * l->n, n);
    }
}

/* ---- selection ----------------------------------------------------------------------- */

/* Floats that are not negative are ordered as their bits. */
static uint32_t bits_at(const float *x, int64_t i) {
    return cca_bits_of_float(x[i]) & 0x7fffffff;
}

/* The bits of the most-th largest of n values, n > most: found byte by byte. *ties: how many of
 * those that are equal to it belong to the largest. */
static uint32_t threshold(const float *x, int64_t n, int64_t most, int64_t *ties) {
    uint32_t prefix = 0, known = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        int64_t counts[256] = {0}, byte = 255;
        for (int64_t i = 0; i < n; i++) {
            uint32_t bits = bits_at(x, i);
            if ((bits & known) == prefix) counts[bits >> shift & 255]++;
        }
        for (; byte > 0 && counts[byte] < most; byte--) most -= counts[byte];
        prefix |= (uint32_t)byte << shift;
        known |= (uint32_t)255 << shift;
    }
    *ties = most;
    return prefix;
}

/* The ids of the columns of largest weight, of equal ones the earlier, at most so many; returns
 * their number. out may be ids. */
static int64_t select_largest(int32_t *out, const int32_t *ids, const float *total, int64_t n,
                              int64_t most) {
    int64_t n_out = 0, ties = n;
    uint32_t least = n > most ? threshold(total, n, most, &ties) : 0;
    for (int64_t i = 0; i < n && n_out < most; i++) {
        uint32_t bits = bits_at(total, i);
        if (bits < least || (bits == least && ties-- <= 0)) continue;
        out[n_out++] = ids[i];
    }
    return n_out;
}

static int64_t put_range(int32_t *ids, int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++) *ids++ = (int32_t)i;
    return cca_max(end - first, 0);
}

/* The groups that are weighed, into ids; returns their number. */
static int64_t find_candidates(const choosing *c, const cca_kernels *k, int64_t kv_head) {
    if (c->most_blocks == 0) return put_range(c->ids, c->first, c->end);
    level blocks = {c->args->blocks, c->ids, 0, CCA_BLOCK};
    blocks.n = put_range(c->ids, c->first / CCA_BLOCK, c->n_blocks);
    weigh(c, k, &blocks, kv_head);
    int64_t n = 0, n_best = select_largest(c->blocks, c->ids, c->total, blocks.n, c->most_blocks);
    for (int64_t i = 0; i < n_best; i++) {
        int64_t begin = (int64_t)c->blocks[i] * CCA_BLOCK;
        n += put_range(c->ids + n, cca_max(begin, c->first), begin + CCA_BLOCK);
    }
    return n + put_range(c->ids + n, c->n_blocks * CCA_BLOCK, c->end);
}

void cca_choose_tile(const cca_kernels *k, const cca_choose_args *args, int64_t kv_head,
                     void *scratch) {
    choosing c = begin_choosing(k, args, scratch);
    const cca_choice *out = args->out;
    int64_t tile = cca_choice_tile(out, args->pos, args->row);
    int64_t at = tile * out->heads + kv_head, n = c.end - c.first;
    int32_t *groups = out->groups + at * out->most;
    if (n <= out->most) { /* whatever they weigh */
        out->counts[at] = (int32_t)put_range(groups, c.first, c.end);
        return;
    }
    split_rows(&c, kv_head);
    level candidates = {args->bounds, c.ids, find_candidates(&c, k, kv_head), 1};
    weigh(&c, k, &candidates, kv_head);
    out->counts[at] = (int32_t)select_largest(groups, c.ids, c.total, candidates.n, out->most);
}
