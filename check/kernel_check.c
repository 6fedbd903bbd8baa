#include "check/kernel_check.h"

#include "base/random.h"
#include "check/difference.h"

#include <stdio.h>
#include <stdlib.h>

static const cca_kernels *const plain = &cca_kernels_plain;

/* Relative distances. Float arithmetic in another order leaves about 1e-7; a variant may round
 * queries and weights of attention to bf16 where the cache is no finer, by up to 2^-9 each. */
static const double EXACT = 1e-6, ATTENTION = 5e-6, ROUNDED = 1e-2;

static const size_t ROOM = 16 << 20; /* bytes for the operands of one check */

typedef struct tester {
    const cca_kernels *kernels;
    cca_check_fn on_check;
    void *user;
    bool failed;
    char *room; /* of the check under way */
    size_t used;
    uint64_t state; /* of the generator */
} tester;

static void *take(tester *t, size_t bytes) {
    void *at = t->room + t->used;
    t->used += (bytes + 63) / 64 * 64;
    memset(at, 0xff, bytes); /* no numbers */
    return at;
}

static float *take_floats(tester *t, int64_t n) {
    return take(t, (size_t)n * sizeof(float));
}

/* Uniform in [-1, 1). */
static float *take_random(tester *t, int64_t n) {
    float *x = take_floats(t, n);
    for (int64_t i = 0; i < n; i++) x[i] = cca_random_uniform(&t->state);
    return x;
}

/* Random values of a type. */
static void *take_values(tester *t, cca_dtype type, int64_t n) {
    void *values = take(t, (size_t)n * sizeof(float));
    cca_dtype_fill(values, type, n, &t->state);
    return values;
}

static void tell(tester *t, const char *what, double difference, double bound) {
    char name[96];
    snprintf(name, sizeof name, "%s: %s", t->kernels->name, what);
    cca_check c = {.name = name, .difference = difference, .bound = bound};
    c.passed = difference <= bound;
    t->failed |= !c.passed;
    t->on_check(t->user, &c);
    t->used = 0;
}

/* ---- products --------------------------------------------------------------------------- */

enum { N_X = 13, N_W = 31, N_COLS = 160, LD = N_W + 2 };

/* Inputs that each variant's form of them holds exactly: multiples of 1/64 up to 127/64, which the
 * first of each 32 values has. */
static float *take_exact(tester *t, int64_t n) {
    float *x = take_random(t, n);
    for (int64_t i = 0; i < n; i++) x[i] = i % 32 == 0 ? 127.0f / 64 : roundf(127 * x[i]) / 64;
    return x;
}

static void multiply(tester *t, float *out, const cca_kernels *kernels, cca_dtype type,
                     const float *x, const void *w, int64_t cols, bool packed) {
    const cca_products *k = packed ? kernels->products(type) : kernels->few(type);
    size_t stride = k->x_bytes(type, cols), w_stride = 0;
    const void *form = x;
    cca_dtype_row_bytes(&w_stride, type, cols);
    if (stride > 0) {
        char *rows = take(t, N_X * stride);
        for (int64_t i = 0; i < N_X; i++) {
            k->x_convert(rows + (size_t)i * stride, type, x + i * cols, cols);
        }
        form = rows;
    } else {
        stride = (size_t)cols * sizeof *x;
    }
    for (int64_t i = 0; i < N_X * LD; i++) out[i] = 1; /* products are added */
    if (!packed) {
        k->dot(out, LD, form, stride, N_X, type, w, w_stride, N_W, cols);
        return;
    }
    void *panel = take(t, k->panel_bytes(type, cols));
    k->pack(panel, type, w, w_stride, N_W, cols);
    k->multiply(out, LD, form, stride, N_X, type, panel, N_W, cols, true);
}

/* The next type from row *i of the table on that runs. */
static const cca_dtype_facts *next_type(int *i) {
    const cca_dtype_facts *facts = cca_dtype_at(*i);
    while (facts && !facts->runs) facts = cca_dtype_at(++*i);
    ++*i;
    return facts;
}

static void check_products_of(tester *t, cca_dtype type, bool packed) {
    char what[64];
    const bool rounds = packed && t->kernels->products(type)->rounds;
    const int64_t cols = cca_max(N_COLS, cca_dtype_block(type));
    float *x = take_exact(t, N_X * cols);
    void *w = take_values(t, type, N_W * cols);
    float *want = take_floats(t, N_X * LD), *got = take_floats(t, N_X * LD);
    multiply(t, want, plain, type, x, w, cols, true);
    multiply(t, got, t->kernels, type, x, w, cols, packed);
    snprintf(what, sizeof what, "products with %s weights%s", cca_dtype_name(type),
             packed ? "" : ", few tokens");
    tell(t, what, cca_distance(got, want, N_X * LD), rounds ? ROUNDED : EXACT);
}

static void check_products(tester *t) {
    const cca_dtype_facts *facts;
    for (int i = 0; (facts = next_type(&i));) {
        check_products_of(t, (cca_dtype)facts->id, true);
        check_products_of(t, (cca_dtype)facts->id, false);
    }
}

/* ---- rows ------------------------------------------------------------------------------- */

static void check_rows(tester *t) {
    enum { N = 199 };
    float *x = take_random(t, N), *w = take_random(t, N);
    float *want = take_floats(t, N), *got = take_floats(t, N);
    plain->rmsnorm(want, x, w, 1e-5f, N);
    t->kernels->rmsnorm(got, x, w, 1e-5f, N);
    tell(t, "norm", cca_distance(got, want, N), EXACT);

    x = take_random(t, N), w = take_random(t, N), got = take_floats(t, N);
    for (int i = 0; i < N; i++) x[i] *= 20;
    memcpy(got, x, N * sizeof *x);
    plain->swiglu(x, w, N);
    t->kernels->swiglu(got, w, N);
    tell(t, "activation", cca_distance(got, x, N), EXACT);
}

/* Values that come out with other bits. */
static void check_conversions(tester *t) {
    int64_t differ = 0;
    const cca_dtype_facts *facts;
    for (int i = 0; (facts = next_type(&i));) {
        cca_dtype type = (cca_dtype)facts->id;
        int64_t n = cca_max(96, facts->block);
        float *x = take_random(t, n), *y = take_floats(t, n), *z = take_floats(t, n);
        uint8_t *a = take_values(t, type, n), *b = take(t, (size_t)n * sizeof *x);
        if (facts->encode) {
            size_t bytes = 0;
            cca_dtype_row_bytes(&bytes, type, n);
            plain->encode(a, type, x, n);
            t->kernels->encode(b, type, x, n);
            for (size_t k = 0; k < bytes; k++) differ += a[k] != b[k];
        }
        plain->decode(y, type, a, n);
        t->kernels->decode(z, type, a, n);
        for (int k = 0; k < n; k++) differ += cca_bits_of_float(y[k]) != cca_bits_of_float(z[k]);
    }
    tell(t, "conversions of all types", (double)differ, 0);
}

/* ---- attention -------------------------------------------------------------------------- */

enum { HEAD_DIM = 64, N_HEADS = 4, N_KV_HEADS = 2, MOST_QUERIES = 150 };

typedef struct attention_case {
    const char *what;
    cca_rule rule;
    cca_dtype k_type, v_type;
    int64_t pos, n;
    bool level; /* queries of 0: all keys weigh the same, which rounding leaves exact */
    double bound;
} attention_case;

static cca_rows take_rows(tester *t, const attention_case *c, int64_t heads, int64_t rows) {
    int64_t n = heads * rows * HEAD_DIM;
    return (cca_rows){.k = take_values(t, c->k_type, n),
                      .v = take_values(t, c->v_type, n),
                      .k_type = c->k_type,
                      .v_type = c->v_type,
                      .heads = heads,
                      .capacity = rows,
                      .head_dim = HEAD_DIM};
}

static cca_spans take_spans(tester *t, const attention_case *c) {
    int64_t total = c->pos + c->n, g = c->rule.group_size;
    bool cores = c->rule.cores;
    cca_rows raw = take_rows(t, c, N_KV_HEADS, total);
    cca_rows behind = cores ? take_rows(t, c, N_HEADS, total / g + 1)
                            : take_rows(t, c, N_KV_HEADS, c->rule.n_sinks + 1);
    return (cca_spans){.n = 2,
                       .at = {{raw, cca_rule_window(&c->rule), 1, CCA_PICK_ALL},
                              {behind, cores ? cca_rule_groups(&c->rule) : cca_rule_sinks(&c->rule),
                               cores ? g : 1, CCA_PICK_ALL}}};
}

/* Rows from one on that lie in one tile of positions. */
static int64_t stretch_of(int64_t tile, const attention_case *c, int64_t row) {
    return cca_min(tile - (c->pos + row) % tile, c->n - row);
}

static void attend(tester *t, const cca_kernels *k, const attention_case *c, const cca_spans *spans,
                   const float *q, float *out, float *sums) {
    cca_attend_args args = {spans, q, out, N_HEADS, c->pos, sums};
    float *scratch = take_floats(t, cca_attend_scratch(HEAD_DIM));
    int64_t together = c->n == 1 ? N_HEADS / N_KV_HEADS : 1; /* as a token's heads are */
    for (int64_t h = 0; h < N_HEADS; h += together) {
        for (int64_t row = 0, n; row < c->n; row += n) {
            n = stretch_of(spans->choice.tile ? spans->choice.tile : CCA_TILE_Q, c, row);
            k->attend(&args, h, together, row, n, scratch);
        }
    }
}

/* Attends to one span after the other, and puts the parts together. */
static void attend_in_parts(tester *t, const cca_kernels *k, const attention_case *c,
                            const cca_spans *spans, const float *q, float *out) {
    const int64_t n = c->n * N_HEADS;
    float *part[2], *sums[2];
    for (int i = 0; i < 2; i++) {
        const cca_spans one = {.n = 1, .at = {spans->at[i]}};
        part[i] = take_floats(t, n * HEAD_DIM);
        sums[i] = take_floats(t, 2 * n);
        attend(t, k, c, &one, q, part[i], sums[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        const float *a = sums[0] + 2 * i, *b = sums[1] + 2 * i;
        const double m = fmaxf(a[0], b[0]), of_a = a[1] * exp(a[0] - m),
                     of_b = b[1] * exp(b[0] - m);
        for (int64_t d = i * HEAD_DIM; d < (i + 1) * HEAD_DIM; d++) {
            out[d] = (float)((part[0][d] * of_a + part[1][d] * of_b) / (of_a + of_b));
        }
    }
}

/* The kernels against the plain ones, which attend to all spans at once. */
static void compare_attention(tester *t, const attention_case *c, bool in_parts) {
    const int64_t n = c->n * N_HEADS * HEAD_DIM;
    const cca_spans spans = take_spans(t, c);
    float *q = take_random(t, n), *want = take_floats(t, n), *got = take_floats(t, n);
    for (int64_t k = 0; k < n; k++) q[k] *= c->level ? 0 : 2;
    attend(t, plain, c, &spans, q, want, NULL);
    if (in_parts) {
        attend_in_parts(t, t->kernels, c, &spans, q, got);
    } else {
        attend(t, t->kernels, c, &spans, q, got, NULL);
    }
    tell(t, c->what, cca_distance(got, want, n), c->bound);
}

static void check_attention(tester *t) {
    const cca_rule cores = {16, 64, 0, true}, sinks = {4, 16, 6, false},
                   full = {1, INT64_MAX / 4, 0, false};
    const attention_case cases[] = {
        {"full attention, f32 cache", full, CCA_F32, CCA_F32, 0, MOST_QUERIES, false, ATTENTION},
        {"cores and window, f32 cache", cores, CCA_F32, CCA_F32, 300, 40, false, ATTENTION},
        {"cores and window, f16 cache", cores, CCA_F16, CCA_F16, 300, 40, false, ATTENTION},
        {"cores and window, bf16 cache", cores, CCA_BF16, CCA_BF16, 300, 40, false, ROUNDED},
        {"cores and window, q8_0 cache", cores, CCA_Q8_0, CCA_Q8_0, 300, 40, false, ROUNDED},
        {"which keys are seen", cores, CCA_BF16, CCA_BF16, 300, MOST_QUERIES, true, ATTENTION},
        {"which keys are seen, one token", cores, CCA_BF16, CCA_BF16, 777, 1, true, ATTENTION},
        {"which keys are seen, sinks", sinks, CCA_F32, CCA_F32, 200, 9, true, ATTENTION},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        compare_attention(t, &cases[i], false);
}

/* Also where queries see nothing of a span, as the first ones do of cores. */
static void check_parts(tester *t) {
    const cca_rule cores = {16, 64, 0, true};
    const attention_case cases[] = {
        {"attention in parts, f32 cache", cores, CCA_F32, CCA_F32, 60, 40, false, ATTENTION},
        {"attention in parts, bf16 cache", cores, CCA_BF16, CCA_BF16, 60, 40, false, ROUNDED},
        {"attention in parts, one token", cores, CCA_BF16, CCA_BF16, 777, 1, false, ROUNDED},
        {"attention in parts, equal weights", cores, CCA_BF16, CCA_BF16, 60, 40, true, ATTENTION},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) compare_attention(t, &cases[i], true);
}

/* ---- recall ----------------------------------------------------------------------------- */

enum { CHOSEN = 6, CHOOSE_TILE = 16 };

/* Raw rows whose groups are told apart by more than rounding does: but in f32, where they are
 * random, all have the same keys, each group's longer by a part of its own. */
static cca_rows take_graded_rows(tester *t, const attention_case *c) {
    int64_t total = c->pos + c->n, g = c->rule.group_size, n_groups = total / g + 1;
    cca_rows raw = take_rows(t, c, N_KV_HEADS, total);
    float *pattern = take_random(t, g * HEAD_DIM), key[HEAD_DIM];
    if (c->k_type == CCA_F32) return raw;
    for (int64_t i = 0; i < N_KV_HEADS * total; i++) {
        int64_t pos = i % total, grade = pos / g * 5 % n_groups;
        for (int64_t d = 0; d < HEAD_DIM; d++) {
            key[d] = pattern[pos % g * HEAD_DIM + d] * (0.2f + 0.05f * (float)grade);
        }
        plain->encode((void *)cca_row_at(raw.k, raw.k_type, &raw, i / total, pos), raw.k_type, key,
                      HEAD_DIM);
    }
    return raw;
}

/* Bounds of all complete groups, as a variant makes them. */
static cca_rows take_bounds(tester *t, const cca_kernels *k, const attention_case *c,
                            const cca_rows *raw) {
    cca_dtype type = c->k_type == CCA_Q8_0 ? CCA_BF16 : c->k_type;
    const attention_case bounds = {.k_type = type, .v_type = type};
    cca_groups groups = {.raw = *raw, .size = c->rule.group_size};
    int64_t n = (c->pos + c->n) / groups.size;
    groups.cores = take_rows(t, &bounds, N_KV_HEADS, n);
    for (int64_t i = 0; i < N_KV_HEADS * n; i++) {
        cca_bound_group(k, &groups, i / n, i % n, take_floats(t, (int64_t)3 * HEAD_DIM));
    }
    return groups.cores;
}

static cca_choice take_choice(tester *t, const cca_kernels *k, const attention_case *c,
                              const cca_rows *bounds, const float *q) {
    const cca_range groups = cca_rule_groups(&c->rule);
    int64_t tiles = (c->pos + c->n - 1) / CHOOSE_TILE - c->pos / CHOOSE_TILE + 1;
    cca_choice out = {
        .heads = N_KV_HEADS, .most = CHOSEN, .tile = CHOOSE_TILE, .group_size = c->rule.group_size};
    out.groups = take(t, (size_t)(tiles * N_KV_HEADS * CHOSEN) * sizeof *out.groups);
    out.counts = take(t, (size_t)(tiles * N_KV_HEADS) * sizeof *out.counts);
    for (int64_t row = 0, n; row < c->n; row += n) {
        n = stretch_of(CHOOSE_TILE, c, row);
        const cca_choose_args args = {&out, bounds, NULL, &groups, q, N_HEADS, c->pos, row, n};
        void *scratch = take(t, cca_choose_bytes(k, &args));
        for (int64_t h = 0; h < N_KV_HEADS; h++) cca_choose_tile(k, &args, h, scratch);
    }
    return out;
}

/* Bytes that differ in what two variants have made. */
static int64_t differing_bounds(const cca_rows *a, const cca_rows *b) {
    size_t bytes = 0;
    int64_t differ = 0;
    cca_dtype_row_bytes(&bytes, a->k_type, a->heads * a->capacity * HEAD_DIM);
    for (size_t i = 0; i < bytes; i++) {
        differ += ((uint8_t *)a->k)[i] != ((uint8_t *)b->k)[i];
        differ += ((uint8_t *)a->v)[i] != ((uint8_t *)b->v)[i];
    }
    return differ;
}

static int64_t differing_groups(const cca_choice *a, const cca_choice *b, const attention_case *c) {
    int64_t differ = 0;
    for (int64_t row = 0; row < c->n; row += stretch_of(CHOOSE_TILE, c, row)) {
        for (int64_t h = 0; h < N_KV_HEADS; h++) {
            int64_t n, m;
            const int32_t *x = cca_chosen(a, c->pos, row, h, &n);
            const int32_t *y = cca_chosen(b, c->pos, row, h, &m);
            differ += n != m;
            for (int64_t i = 0; i < cca_min(n, m); i++) differ += x[i] != y[i];
        }
    }
    return differ;
}

/* With what the plain variant has chosen, window, recalled groups and the others' cores. */
static double recall_distance(tester *t, const attention_case *c, const cca_rows *raw,
                              const cca_choice *choice, const float *q) {
    int64_t n = c->n * N_HEADS * HEAD_DIM;
    const cca_rule *rule = &c->rule;
    cca_rows cores = take_rows(t, c, N_HEADS, (c->pos + c->n) / rule->group_size);
    cca_spans spans = {.n = 4,
                       .at = {{*raw, cca_rule_window(rule), 1, CCA_PICK_ALL},
                              {*raw, cca_rule_sinks(rule), 1, CCA_PICK_ALL},
                              {*raw, cca_rule_recallable(rule), 1, CCA_PICK_CHOSEN},
                              {cores, cca_rule_groups(rule), rule->group_size, CCA_PICK_OTHERS}},
                       .choice = *choice};
    float *want = take_floats(t, n), *got = take_floats(t, n);
    attend(t, plain, c, &spans, q, want, NULL);
    attend(t, t->kernels, c, &spans, q, got, NULL);
    return cca_distance(got, want, n);
}

static void check_recall(tester *t) {
    const cca_rule rule = {16, 64, 16, true};
    const attention_case cases[] = {
        {"recall, f32 cache", rule, CCA_F32, CCA_F32, 300, 40, false, ATTENTION},
        {"recall, f32 cache, one token", rule, CCA_F32, CCA_F32, 777, 1, false, ATTENTION},
        {"recall, f16 cache", rule, CCA_F16, CCA_F16, 300, 40, false, ATTENTION},
        {"recall, bf16 cache", rule, CCA_BF16, CCA_BF16, 300, 40, false, ROUNDED},
        {"recall, q8_0 cache", rule, CCA_Q8_0, CCA_Q8_0, 300, 40, false, ROUNDED},
        {"which keys are seen, recall", rule, CCA_BF16, CCA_BF16, 300, 40, true, ATTENTION},
    };
    int64_t bounds_differ = 0, groups_differ = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const attention_case *c = &cases[i];
        int64_t n = c->n * N_HEADS * HEAD_DIM;
        cca_rows raw = take_graded_rows(t, c);
        cca_rows bounds = take_bounds(t, plain, c, &raw), own = take_bounds(t, t->kernels, c, &raw);
        float *q = take_random(t, n);
        cca_choice want = take_choice(t, plain, c, &bounds, q);
        cca_choice got = take_choice(t, t->kernels, c, &bounds, q);
        bounds_differ += differing_bounds(&own, &bounds);
        groups_differ += differing_groups(&got, &want, c);
        for (int64_t k = 0; k < n && c->level; k++) q[k] = 0;
        tell(t, c->what, recall_distance(t, c, &raw, &want, q), c->bound);
    }
    tell(t, "bounds of groups", (double)bounds_differ, 0);
    tell(t, "which groups are recalled", (double)groups_differ, 0);
}

/* ---- pooling ---------------------------------------------------------------------------- */

/* Both variants pool the same groups, each into rows of its own. */
static void check_pooling(tester *t) {
    static const char *const names[] = {"cores", "cores, mean", "cores, maximum"};
    enum { GROUP = 5, FIRST = 10, N_GROUPS = 5, QUERIES = GROUP * N_GROUPS };
    const attention_case c = {.k_type = CCA_F32, .v_type = CCA_F32};
    for (int p = CCA_POOL_QUERY; p <= CCA_POOL_MAX; p++) {
        cca_groups one = {.size = GROUP, .pooling = (cca_pooling)p};
        one.raw = take_rows(t, &c, N_KV_HEADS, (FIRST + N_GROUPS) * GROUP);
        one.cores = take_rows(t, &c, N_HEADS, FIRST + N_GROUPS);
        cca_groups other = one;
        int64_t n = N_HEADS * one.cores.capacity * HEAD_DIM;
        float *q = take_random(t, (int64_t)QUERIES * N_HEADS * HEAD_DIM);
        float *scratch = take_floats(t, cca_pool_scratch(GROUP, HEAD_DIM));
        other.cores.k = take_floats(t, n);
        other.cores.v = take_floats(t, n);
        memcpy(other.cores.k, one.cores.k, (size_t)n * sizeof(float));
        memcpy(other.cores.v, one.cores.v, (size_t)n * sizeof(float));
        cca_pool_args want = {&one, q, N_HEADS, FIRST * GROUP}, got = want;
        got.groups = &other;
        for (int64_t j = 0; j < N_HEADS * N_GROUPS; j++) {
            plain->pool(&want, j % N_HEADS, FIRST + j / N_HEADS, scratch);
            t->kernels->pool(&got, j % N_HEADS, FIRST + j / N_HEADS, scratch);
        }
        double difference = cca_distance(other.cores.k, one.cores.k, n);
        tell(t, names[p], fmax(difference, cca_distance(other.cores.v, one.cores.v, n)), EXACT);
    }
}

/* ---- values that are no numbers --------------------------------------------------------- */

static const float odd_values[] = {NAN, INFINITY, -INFINITY};
enum { N_ODD = sizeof odd_values / sizeof *odd_values, ODD_ROW = 5, ODD_COLUMN = 70 };

/* How many of n values are finite and should not be, or the other way round. */
static int64_t count_wrong(const float *x, int64_t n, int64_t step, bool finite) {
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++) wrong += (bool)isfinite(x[i * step]) != finite;
    return wrong;
}

/* Rows of weights, of which one has an odd value: where a type's values cannot be made, an odd
 * scale. */
static void *take_odd_rows(tester *t, const cca_dtype_facts *facts, int64_t cols, float odd) {
    size_t stride = 0;
    cca_dtype_row_bytes(&stride, (cca_dtype)facts->id, cols);
    char *rows = take(t, N_W * stride), *of_odd = rows + ODD_ROW * stride;
    float *w = take_random(t, cols);
    const uint16_t half = cca_f32_to_f16(odd);
    cca_dtype_fill(rows, (cca_dtype)facts->id, N_W * cols, &t->state);
    w[ODD_COLUMN] = odd;
    if (facts->encode) {
        t->kernels->encode(of_odd, (cca_dtype)facts->id, w, cols);
    } else {
        char *block = of_odd + (size_t)(ODD_COLUMN / facts->block) * facts->block_bytes;
        memcpy(block + facts->halves[0], &half, sizeof half);
    }
    return rows;
}

/* One odd value in a row of x, then in a row of weights: what is made of that row is odd, too. */
static int64_t odd_products(tester *t, const cca_dtype_facts *facts, float odd) {
    int64_t wrong = 0, cols = cca_max(N_COLS, facts->block);
    cca_dtype type = (cca_dtype)facts->id;
    for (int i = 0; i < 4; i++) {
        bool packed = i % 2, of_x = i / 2;
        float *x = take_exact(t, N_X * cols), *out = take_floats(t, N_X * LD);
        void *rows = of_x ? take_values(t, type, N_W * cols) : take_odd_rows(t, facts, cols, odd);
        if (of_x) x[ODD_ROW * cols + ODD_COLUMN] = odd;
        multiply(t, out, t->kernels, type, x, rows, cols, packed);
        for (int64_t r = 0; r < (of_x ? N_X : N_W); r++) {
            const float *row = of_x ? out + r * LD : out + r;
            wrong += count_wrong(row, of_x ? N_W : N_X, of_x ? 1 : LD, r != ODD_ROW);
        }
        t->used = 0;
    }
    return wrong;
}

static int64_t odd_rows(tester *t, float odd) {
    float *x = take_random(t, N_COLS), *w = take_random(t, N_COLS), *out = take_floats(t, N_COLS);
    x[ODD_COLUMN] = odd;
    t->kernels->rmsnorm(out, x, w, 1e-5f, N_COLS);
    int64_t wrong = count_wrong(out + ODD_COLUMN, 1, 1, false);
    if (isnan(odd)) {
        wrong += count_wrong(out, N_COLS, 1, false);
        t->kernels->swiglu(x, w, N_COLS);
        wrong += count_wrong(x + ODD_COLUMN, 1, 1, false);
    }
    t->used = 0;
    return wrong;
}

/* An odd query, key or value: whoever has it or sees it gets nothing finite. */
static int64_t odd_attention(tester *t, cca_dtype type, float odd, int what) {
    const attention_case c = {
        .rule = {16, 64, 0, true}, .k_type = type, .v_type = type, .pos = 300, .n = 9};
    const int64_t row = c.n / 2, width = N_HEADS * HEAD_DIM, seen = c.pos;
    int64_t n = c.n * width, wrong = 0;
    size_t bytes = 0;
    cca_dtype_row_bytes(&bytes, type, HEAD_DIM);
    cca_spans spans = take_spans(t, &c);
    float *q = take_random(t, n), *out = take_floats(t, n), one[HEAD_DIM];
    for (int64_t d = 0; d < HEAD_DIM; d++) one[d] = odd;
    for (int64_t h = 0; h < N_HEADS && what == 0; h++) q[row * width + h * HEAD_DIM] = odd;
    for (int64_t h = 0; h < N_KV_HEADS && what > 0; h++) {
        cca_rows *raw = &spans.at[0].rows;
        char *rows = what == 1 ? raw->k : raw->v;
        t->kernels->encode(rows + (size_t)(h * raw->capacity + seen) * bytes, type, one, HEAD_DIM);
    }
    attend(t, t->kernels, &c, &spans, q, out, NULL);
    for (int64_t i = 0; i < c.n; i++) {
        bool is_odd = what == 0 ? i == row : true;
        wrong += count_wrong(out + i * width, width, 1, !is_odd);
    }
    t->used = 0;
    return wrong;
}

static int64_t odd_pooling(tester *t, cca_pooling pooling) {
    enum { GROUP = 5 };
    const attention_case c = {.k_type = CCA_F32, .v_type = CCA_F32};
    cca_groups groups = {.size = GROUP, .pooling = pooling};
    groups.raw = take_rows(t, &c, N_KV_HEADS, GROUP);
    groups.cores = take_rows(t, &c, N_HEADS, 1);
    float *q = take_random(t, (int64_t)GROUP * N_HEADS * HEAD_DIM), *k = groups.raw.k;
    k[2 * HEAD_DIM + 7] = NAN;
    cca_pool_args args = {&groups, q, N_HEADS, 0};
    t->kernels->pool(&args, 0, 0, take_floats(t, cca_pool_scratch(GROUP, HEAD_DIM)));
    t->used = 0;
    return count_wrong((float *)groups.cores.k + 7, 1, 1, false);
}

/* An error must not become a number on its way to the logits. */
static void check_odd(tester *t) {
    const cca_dtype_facts *facts;
    int64_t wrong = 0;
    for (int o = 0; o < N_ODD; o++) {
        for (int i = 0; (facts = next_type(&i));) wrong += odd_products(t, facts, odd_values[o]);
        wrong += odd_rows(t, odd_values[o]);
    }
    for (int what = 0; what < 3; what++) {
        wrong += odd_attention(t, CCA_F32, NAN, what) + odd_attention(t, CCA_F16, NAN, what);
        wrong += odd_attention(t, CCA_BF16, NAN, what) + odd_attention(t, CCA_Q8_0, NAN, what);
    }
    for (int p = CCA_POOL_QUERY; p <= CCA_POOL_MAX; p++) wrong += odd_pooling(t, (cca_pooling)p);
    tell(t, "values that are no numbers stay so", (double)wrong, 0);
}

cca_status cca_kernels_check(const cca_kernels *kernels, cca_check_fn on_check, void *user,
                             cca_error *err) {
    tester t = {.kernels = kernels, .on_check = on_check, .user = user, .state = 1};
    t.room = aligned_alloc(64, ROOM);
    if (!t.room) return cca_fail(err, CCA_NO_MEMORY, "no memory for the checks");
    check_products(&t);
    check_rows(&t);
    check_conversions(&t);
    check_attention(&t);
    check_parts(&t);
    check_recall(&t);
    check_pooling(&t);
    check_odd(&t);
    free(t.room);
    if (!t.failed) return CCA_OK;
    return cca_fail(err, CCA_CHECK_FAILED, "the %s kernels differ from the plain ones",
                    kernels->name);
}
