/* Which groups a tile of queries recalls, and the bounds that tell. One source for all variants, on
 * top of their products and softmax.
 *
 * q · k is at most the sum of q⁺ · high and q⁻ · low, where q⁺ and q⁻ are the positive and the
 * negative part of q: for few queries two products with the bounds' rows as weights, for many one
 * of q⁺ q⁻ with high and low side by side, so that sums are written once. */
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
    size_t x[2], part, both, panel, total, scores, bytes;
} parts;

/* What a tile needs. x: its rows' positive and negative parts in the form that suits, in one row
 * or, where there are few, each by itself. */
typedef struct choosing {
    const cca_products *k; /* with bounds as weights */
    const cca_choose_args *args;
    int64_t head_dim, sharers, n_rows; /* rows: heads × queries */
    int64_t first, n_groups;           /* that some query sees */
    int64_t n_x, width;                /* forms of a row, and values in each */
    size_t x_stride, bound_bytes;      /* of a group's row */
    char *x[2];
    float *part;   /* [2][head_dim]: the parts of one row, before they are converted */
    char *both;    /* [CCA_PANEL][2][bound_bytes]: high and low bounds side by side */
    float *scores; /* [n_rows][n_groups] */
    float *total;  /* [n_groups] */
    void *panel;
} choosing;

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
    c.n_groups = cca_edge_at(&args->groups->end, last) - c.first;
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
    size_t rows = (size_t)c->n_rows, groups = (size_t)c->n_groups;
    parts p = {0};
    for (int64_t i = 0; i < c->n_x; i++) p.x[i] = take(&p, rows * c->x_stride);
    p.part = take(&p, 2 * (size_t)c->head_dim * sizeof(float));
    if (c->n_x == 1) {
        p.both = take(&p, CCA_PANEL * 2 * c->bound_bytes);
        p.panel = take(&p, c->k->panel_bytes(c->args->bounds->k_type, c->width));
    }
    p.total = take(&p, groups * sizeof(float));
    p.scores = take(&p, rows * groups * sizeof(float));
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

/* Scores of n ≤ CCA_PANEL groups, whose bounds begin at high and low. */
static void score_few(const choosing *c, int64_t group, const char *high, const char *low,
                      int64_t n) {
    const char *sides[] = {high, low};
    for (int i = 0; i < 2; i++) {
        c->k->dot(c->scores + group, c->n_groups, c->x[i], c->x_stride, c->n_rows,
                  c->args->bounds->k_type, sides[i], c->bound_bytes, n, c->head_dim);
    }
}

static void score_many(const choosing *c, int64_t group, const char *high, const char *low,
                       int64_t n) {
    const cca_dtype type = c->args->bounds->k_type;
    const size_t bytes = c->bound_bytes;
    for (int64_t i = 0; i < n; i++) {
        char *to = c->both + 2 * bytes * (size_t)i;
        memcpy(to, high + bytes * (size_t)i, bytes);
        memcpy(to + bytes, low + bytes * (size_t)i, bytes);
    }
    c->k->pack(c->panel, type, c->both, 2 * bytes, n, c->width);
    c->k->multiply(c->scores + group, c->n_groups, c->x[0], c->x_stride, c->n_rows, type, c->panel,
                   n, c->width, false);
}

static void score(const choosing *c, int64_t kv_head) {
    const cca_rows *b = c->args->bounds;
    const bool few = c->n_x == 2;
    if (few) memset(c->scores, 0, (size_t)(c->n_rows * c->n_groups) * sizeof *c->scores);
    for (int64_t g = 0; g < c->n_groups; g += CCA_PANEL) {
        const int64_t n = cca_min(CCA_PANEL, c->n_groups - g);
        const char *high = cca_row_at(b->k, b->k_type, b, kv_head, c->first + g);
        const char *low = cca_row_at(b->v, b->v_type, b, kv_head, c->first + g);
        if (few) {
            score_few(c, g, high, low, n);
        } else {
            score_many(c, g, high, low, n);
        }
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

static void select_groups(const choosing *c, int64_t kv_head) {
    const cca_choose_args *a = c->args;
    const cca_choice *out = a->out;
    int64_t at = ((a->pos + a->row) / out->tile - a->pos / out->tile) * out->heads + kv_head;
    int32_t *groups = out->groups + at * out->most;
    int64_t n = 0, ties = c->n_groups;
    uint32_t least =
        c->n_groups > out->most ? threshold(c->total, c->n_groups, out->most, &ties) : 0;
    for (int64_t i = 0; i < c->n_groups && n < out->most; i++) {
        uint32_t bits = bits_at(c->total, i);
        if (bits < least || (bits == least && ties-- <= 0)) continue;
        groups[n++] = (int32_t)(c->first + i);
    }
    out->counts[at] = (int32_t)n;
}

void cca_choose_tile(const cca_kernels *k, const cca_choose_args *args, int64_t kv_head,
                     void *scratch) {
    choosing c = begin_choosing(k, args, scratch);
    memset(c.total, 0, (size_t)c.n_groups * sizeof *c.total);
    bool all = c.n_groups <= args->out->most; /* whatever they weigh */
    if (!all) {
        split_rows(&c, kv_head);
        score(&c, kv_head);
    }
    for (int64_t i = 0; !all && i < c.n_rows; i++) {
        int64_t end = cca_edge_at(&args->groups->end, args->pos + args->row + i % args->n);
        int64_t n = cca_min(end - c.first, c.n_groups);
        if (n > 0) k->add_softmax(c.total, c.scores + i * c.n_groups, n);
    }
    select_groups(&c, kv_head);
}
