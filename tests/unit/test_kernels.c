/* Each kernel variant that this machine can run against the plain one. Bounds are relative
 * distances ‖a - b‖ / ‖b‖; float arithmetic itself leaves about 1e-7. */
#include "backend/cpu/kernels.h"
#include "check/peaks.h"
#include "tests/unit/test.h"

static const cca_kernels *const plain = &cca_kernels_plain;

/* 64-byte aligned floats, poisoned. */
static float *floats(int64_t n) {
    float *x = aligned_alloc(64, ((size_t)n * sizeof *x + 64) / 64 * 64);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) x[i] = NAN;
    return x;
}

static float *random_floats(int64_t n, uint64_t *seed, float size) {
    float *x = floats(n);
    test_fill(x, n, seed, size);
    return x;
}

/* The types that run. */
static const cca_dtype types[] = {CCA_F32,  CCA_F16,  CCA_BF16, CCA_Q8_0,   CCA_Q4_0,
                                  CCA_Q4_1, CCA_Q5_0, CCA_Q5_1, CCA_Q2_K,   CCA_Q3_K,
                                  CCA_Q4_K, CCA_Q5_K, CCA_Q6_K, CCA_IQ4_NL, CCA_IQ4_XS};
enum { N_TYPES = sizeof types / sizeof *types };

/* Weights of a type, and x in the form that a variant wants for it. */
typedef struct product_case {
    cca_dtype type;
    int64_t n_x, n_w, n;
    float *x;
    char *w;
    size_t w_stride;
} product_case;

static product_case make_product(cca_dtype type, int64_t n_x, int64_t n_w, int64_t n,
                                 uint64_t *seed) {
    product_case c = {type, n_x, n_w, n, random_floats(n_x * n, seed, 1), NULL, 0};
    assert_true(cca_dtype_row_bytes(&c.w_stride, type, n));
    c.w = malloc(c.w_stride * (size_t)n_w + 1);
    assert_non_null(c.w);
    cca_dtype_fill(c.w, type, n_w * n, seed);
    return c;
}

static const cca_products *products_of(const cca_kernels *k, cca_dtype type, bool packed) {
    return packed ? k->products(type) : k->few(type);
}

/* Adds rows first … first + n_x - 1 of the product to out (n_x, ld). */
static void run_product(float *out, int64_t ld, const cca_kernels *kernels, const product_case *c,
                        int64_t first, int64_t n_x, bool packed) {
    const cca_products *k = products_of(kernels, c->type, packed);
    size_t stride = k->x_bytes(c->type, c->n);
    const char *x = (const char *)c->x;
    char *form = NULL;
    if (stride > 0) {
        form = aligned_alloc(64, (stride * (size_t)c->n_x + 63) / 64 * 64);
        assert_non_null(form);
        for (int64_t i = 0; i < c->n_x; i++) {
            k->x_convert(form + stride * (size_t)i, c->type, c->x + i * c->n, c->n);
        }
        x = form;
    } else {
        stride = (size_t)c->n * sizeof(float);
    }
    x += stride * (size_t)first;
    if (packed) {
        void *panel = aligned_alloc(64, (k->panel_bytes(c->type, c->n) + 64) / 64 * 64);
        assert_non_null(panel);
        k->pack(panel, c->type, c->w, c->w_stride, c->n_w, c->n);
        k->multiply(out, ld, x, stride, n_x, c->type, panel, c->n_w, c->n, true);
        free(panel);
    } else {
        k->dot(out, ld, x, stride, n_x, c->type, c->w, c->w_stride, c->n_w, c->n);
    }
    free(form);
}

/* Largest whole number of the form of x; 0 for bf16. */
static float largest_of_form(const cca_kernels *k, cca_dtype type, bool packed) {
    const bool vnni = k == &cca_kernels_avx512 || k == &cca_kernels_amx;
    if (products_of(k, type, packed)->peak == CCA_PEAK_BF16) return 0;
    return vnni || type == CCA_Q8_0 || type == CCA_Q4_0 ? 127 : 32512;
}

/* What panels of AVX-512 round: the largest byte of a type's blocks and the one that stands for 0,
 * where these have minima or other scales for each 16 values. */
typedef struct rounded_type {
    cca_dtype type;
    int most, zero;
} rounded_type;

static const rounded_type *rounded(cca_dtype type) {
    static const rounded_type all[] = {{CCA_Q4_1, 15, 0}, {CCA_Q5_1, 31, 0}, {CCA_Q2_K, 3, 0},
                                       {CCA_Q3_K, 7, 4},  {CCA_Q4_K, 15, 0}, {CCA_Q5_K, 31, 0},
                                       {CCA_Q6_K, 63, 32}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i].type == type) return &all[i];
    }
    return NULL;
}

static void take_apart(cca_apart *out, cca_dtype type, const void *block) {
    switch (type) {
    case CCA_Q4_1: cca_apart_q4_1(out, 0, block); break;
    case CCA_Q5_1: cca_apart_q5_1(out, 0, block); break;
    case CCA_Q2_K: cca_apart_q2_k(out, 0, block); break;
    case CCA_Q3_K: cca_apart_q3_k(out, 0, block); break;
    case CCA_Q4_K: cca_apart_q4_k(out, 0, block); break;
    case CCA_Q5_K: cca_apart_q5_k(out, 0, block); break;
    default: cca_apart_q6_k(out, 0, block);
    }
}

/* 32 values with the scales of each 16, rounded to 127ths of the largest that these allow. Halves
 * are common, so that each step is made as the kernel makes it. */
static void round_bytes(float *out, const rounded_type *t, const int8_t *q, const float *scale,
                        const float *min) {
    float largest = 0, zero[2];
    for (int s = 0; s < 2; s++) {
        zero[s] = t->zero > 0 ? scale[s] * (float)t->zero : min[s];
        largest = fmaxf(largest, fabsf(zero[s]));
        largest = fmaxf(largest, fabsf(fmaf((float)t->most, scale[s], -zero[s])));
    }
    const float inverse = largest > 0 ? 127 / largest : 0;
    for (int k = 0; k < 32; k++) {
        const float start = fmaf(-zero[k / 16], inverse, 128), by = scale[k / 16] * inverse;
        out[k] = largest / 127 * (nearbyintf(fmaf((float)(q[k] + t->zero), by, start)) - 128);
    }
}

/* A row of weights as a variant's panels hold it. */
static void round_row(float *out, const cca_kernels *k, cca_dtype type, const char *w, int64_t n) {
    const rounded_type *t = rounded(type);
    cca_dtype_decode(out, type, w, n);
    if (k->products(type)->peak == CCA_PEAK_BF16) {
        for (int64_t i = 0; i < n; i++) out[i] = cca_bf16_to_f32(cca_f32_to_bf16(out[i]));
    } else if (t) {
        const int64_t block = cca_dtype_block(type);
        size_t bytes = 0;
        cca_dtype_row_bytes(&bytes, type, block);
        for (int64_t b = 0; b < n; b += block, w += bytes) {
            cca_apart a;
            take_apart(&a, type, w);
            for (int64_t i = 0; i < block; i += 32) {
                round_bytes(out + b + i, t, a.q + i, a.scale + i / 16, a.min + i / 16);
            }
        }
    }
}

/* The product with weights as panels hold them. */
static void run_rounded(float *out, int64_t ld, const cca_kernels *k, const product_case *c) {
    product_case r = *c;
    float *w = floats(c->n_w * c->n);
    for (int64_t j = 0; j < c->n_w; j++) {
        round_row(w + j * c->n, k, c->type, c->w + (size_t)j * c->w_stride, c->n);
    }
    r.type = CCA_F32, r.w = (char *)w, r.w_stride = (size_t)c->n * sizeof *w;
    run_product(out, ld, plain, &r, 0, c->n_x, true);
    free(w);
}

/* Rounds x to what a variant's form of it holds, by the forms' descriptions: bf16, or whole numbers
 * with a scale for each 32 values, up to 127 or, with weights of kquants.h and without AVX-512,
 * 32512. */
static void round_x(const cca_kernels *k, const product_case *c, bool packed) {
    int64_t n = c->n_x * c->n;
    if (!products_of(k, c->type, packed)->x_convert) return;
    const float most = largest_of_form(k, c->type, packed);
    for (int64_t i = 0; most == 0 && i < n; i++) {
        c->x[i] = cca_bf16_to_f32(cca_f32_to_bf16(c->x[i]));
    }
    for (int64_t b = 0; most > 0 && b < n; b += 32) {
        float largest = 0;
        for (int64_t i = b; i < b + 32; i++) largest = fmaxf(largest, fabsf(c->x[i]));
        for (int64_t i = b; i < b + 32; i++) {
            c->x[i] = largest / most * nearbyintf(c->x[i] * (most / largest));
        }
    }
}

/* Adds to what is there, and to nothing beside it. Rounds the case's x. */
static void expect_product(const cca_kernels *k, const product_case *c, bool packed,
                           uint64_t *seed) {
    int64_t ld = c->n_w + 3;
    float *want = random_floats(c->n_x * ld, seed, 1), *got = floats(c->n_x * ld);
    char what[40];
    memcpy(got, want, (size_t)(c->n_x * ld) * sizeof *want);
    round_x(k, c, packed);
    if (packed && products_of(k, c->type, packed)->rounds) {
        run_rounded(want, ld, k, c);
    } else {
        run_product(want, ld, plain, c, 0, c->n_x, true);
    }
    run_product(got, ld, k, c, 0, c->n_x, packed);
    snprintf(what, sizeof what, "%s, %s", k->name, cca_dtype_name(c->type));
    test_below(cca_distance(got, want, c->n_x * ld), 2e-6, what);
    free(want), free(got);
}

static void products(void **state) {
    (void)state;
    uint64_t seed = 1;
    static const int64_t shapes[][3] = {{1, 1, 32},    {1, 32, 64},   {5, 7, 96},   {6, 16, 32},
                                        {13, 31, 160}, {24, 32, 512}, {67, 9, 32},  {11, 12, 33},
                                        {3, 5, 1},     {12, 17, 172}, {7, 32, 300}, {2, 17, 288},
                                        {1, 20, 736},  {5, 32, 544},  {4, 31, 256}, {9, 5, 1792}};
    for (int i = 1; cca_kernels_at(i); i++) {
        for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
            for (int t = 0; t < N_TYPES; t++) {
                if (shapes[c][2] % cca_dtype_block(types[t]) != 0) continue;
                product_case p =
                    make_product(types[t], shapes[c][0], shapes[c][1], shapes[c][2], &seed);
                for (int packed = 1; packed >= 0; packed--) {
                    expect_product(cca_kernels_at(i), &p, packed, &seed);
                }
                free(p.x), free(p.w);
            }
        }
    }
}

/* A token's products have the same bits alone, among others, and at any place among them. */
static void products_do_not_depend_on_their_company(void **state) {
    (void)state;
    enum { N_X = 29, N_W = 30, N = 512 };
    uint64_t seed = 2;
    for (int i = 0; cca_kernels_at(i); i++) {
        for (int t = 0; t < N_TYPES; t++) {
            product_case p = make_product(types[t], N_X, N_W, N, &seed);
            for (int packed = 0; packed < 2; packed++) {
                float together[N_X * N_W] = {0};
                run_product(together, N_W, cca_kernels_at(i), &p, 0, N_X, packed);
                for (int r = 0; r < N_X; r++) {
                    float alone[N_W] = {0};
                    run_product(alone, N_W, cca_kernels_at(i), &p, r, 1, packed);
                    assert_memory_equal(alone, together + (size_t)r * N_W, sizeof alone);
                }
            }
            free(p.x), free(p.w);
        }
    }
}

/* Whether a value is odd where one of weights or of x is, and nowhere else. */
static void odd_values_stay_odd(void **state) {
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    enum { N_X = 9, N_W = 33, N = 96, ROW = 3, COLUMN = 41 };
    uint64_t seed = 7;
    for (int i = 0; cca_kernels_at(i); i++) {
        for (int c = 0; c < 5 * 3 * 4; c++) {
            bool packed = c % 2, of_x = c / 2 % 2;
            cca_dtype type = types[c / 12];
            product_case p = make_product(type, N_X, packed ? 32 : N_W, N, &seed);
            if (of_x) {
                p.x[ROW * N + COLUMN] = odd[c / 4 % 3];
            } else {
                float *w = random_floats(N, &seed, 1);
                w[COLUMN] = odd[c / 4 % 3];
                cca_kernels_at(i)->encode(p.w + p.w_stride * ROW, type, w, N);
                free(w);
            }
            float out[N_X * N_W] = {0};
            run_product(out, p.n_w, cca_kernels_at(i), &p, 0, N_X, packed);
            for (int64_t r = 0; r < N_X; r++) {
                for (int64_t j = 0; j < p.n_w; j++) {
                    bool is_odd = !isfinite(out[r * p.n_w + j]);
                    if (is_odd != (of_x ? r == ROW : j == ROW)) {
                        fail_msg("%s, %s, %s: row %lld, column %lld", cca_kernels_at(i)->name,
                                 cca_dtype_name(type), of_x ? "x" : "weights", (long long)r,
                                 (long long)j);
                    }
                }
            }
            free(p.x), free(p.w);
        }
    }
}

/* A NaN in what is converted, normed, or gated, and sums of squares beyond floats. */
static void rows_of_odd_values(void **state) {
    (void)state;
    enum { N = 96, AT = 50 };
    uint64_t seed = 8;
    float *x = random_floats(N, &seed, 1), *w = random_floats(N, &seed, 1), out[N], want[N];
    for (int i = 0; cca_kernels_at(i); i++) {
        const cca_kernels *k = cca_kernels_at(i);
        for (int t = 0; t < 5; t++) {
            char bytes[N * 4];
            x[AT] = NAN;
            k->encode(bytes, types[t], x, N);
            k->decode(out, types[t], bytes, N);
            assert_true(isnan(out[AT]));
            for (int j = 0; j < N; j++) assert_true(isfinite(out[j]) || j / 32 == AT / 32);
        }
        k->rmsnorm(out, x, w, 1e-5f, N);
        for (int j = 0; j < N; j++) assert_true(isnan(out[j]));
        memcpy(out, x, sizeof out);
        k->swiglu(out, w, N);
        for (int j = 0; j < N; j++) assert_true(isnan(out[j]) == (j == AT));
        x[AT] = 0.5f;
        float large[N];
        for (int j = 0; j < N; j++) large[j] = x[j] * 1e30f;
        k->rmsnorm(out, large, w, 1e-5f, N);
        plain->rmsnorm(want, large, w, 1e-5f, N);
        test_below(cca_distance(out, want, N), 1e-6, "norm of large values");
        assert_true(fabsf(want[AT]) > 0.01f);
        float total[40] = {0}, scores[40];
        for (int j = 0; j < 40; j++) scores[j] = j == 17 ? NAN : (float)j;
        k->add_softmax(total, scores, 40);
        for (int j = 0; j < 40; j++) assert_true(isnan(total[j]));
    }
    free(x), free(w);
}

static void norms_and_swiglu(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int i = 1; cca_kernels_at(i); i++) {
        for (int64_t n = 1; n < 200; n += 13) {
            float *x = random_floats(n, &seed, 3), *w = random_floats(n, &seed, 2);
            float *want = floats(n), *got = floats(n);
            plain->rmsnorm(want, x, w, 1e-5f, n);
            cca_kernels_at(i)->rmsnorm(got, x, w, 1e-5f, n);
            test_below(cca_distance(got, want, n), 1e-6, "rmsnorm");
            memcpy(want, x, (size_t)n * sizeof *x);
            memcpy(got, x, (size_t)n * sizeof *x);
            plain->swiglu(want, w, n);
            cca_kernels_at(i)->swiglu(got, w, n);
            test_below(cca_distance(got, want, n), 1e-6, "swiglu");
            free(x), free(w), free(want), free(got);
        }
        float wild[] = {-1e30f, -200, -88, -87.5f, 0, 88, 200, 1e30f}, ones[8], want[8];
        for (int k = 0; k < 8; k++) ones[k] = 1;
        memcpy(want, wild, sizeof wild);
        plain->swiglu(want, ones, 8);
        cca_kernels_at(i)->swiglu(wild, ones, 8);
        for (int k = 0; k < 8; k++) {
            assert_true(isfinite(wild[k]) &&
                        fabsf(wild[k] - want[k]) <= 1e-6f * fabsf(want[k]) + 1e-30f);
        }
    }
}

static void conversions(void **state) {
    (void)state;
    enum { N = 512 };
    uint64_t seed = 4;
    float *x = random_floats(N, &seed, 5), y[N], z[N];
    for (int i = 1; cca_kernels_at(i); i++) {
        for (int t = 0; t < N_TYPES; t++) {
            char a[N * 4] = {0}, b[N * 4] = {0};
            if (cca_dtype_find(types[t])->encode) {
                plain->encode(a, types[t], x, N);
                cca_kernels_at(i)->encode(b, types[t], x, N);
                assert_memory_equal(a, b, sizeof a);
            } else {
                cca_dtype_fill(a, types[t], N, &seed);
            }
            plain->decode(y, types[t], a, N);
            cca_kernels_at(i)->decode(z, types[t], a, N);
            assert_memory_equal(y, z, sizeof y);
        }
    }
    free(x);
}

/* A cache filled at random: attention and pooling read the same rows in both variants. */
typedef struct attention_case {
    int64_t head_dim, n_heads, n_kv_heads;
    cca_rule rule;
    int64_t pos, n; /* queries */
    bool ring;      /* raw rows in a ring of s + g rows, else append-only */
    cca_dtype k_type, v_type;
    int64_t tile, most; /* queries that choose together, groups that they have; 0: no recall */
} attention_case;

static const attention_case cases[] = {
    {16, 1, 1, {1, 1, 0, true}, 0, 1, false, CCA_F32, CCA_F32, 0, 0},
    {16, 2, 1, {4, 8, 0, true}, 3, 40, false, CCA_F32, CCA_F32, 0, 0},
    {20, 3, 3, {5, 20, 0, true}, 96, 32, false, CCA_F16, CCA_BF16, 0, 0},
    {64, 8, 2, {16, 64, 0, true}, 5000, 32, false, CCA_BF16, CCA_BF16, 0, 0},
    {64, 4, 1, {16, 64, 0, true}, 1234, 1, true, CCA_BF16, CCA_F32, 0, 0},
    {128, 2, 2, {32, 128, 0, true}, 158, 17, false, CCA_F16, CCA_F16, 0, 0},
    {32, 4, 2, {4, 16, 0, false}, 200, 31, false, CCA_F32, CCA_F32, 0, 0},
    {32, 4, 2, {4, 16, 6, false}, 200, 1, true, CCA_F32, CCA_F32, 0, 0},
    {32, 4, 2, {1, INT64_MAX / 4, 0, false}, 0, 32, false, CCA_F32, CCA_F32, 0, 0},
    {64, 4, 1, {16, 64, 0, true}, 1234, 1, true, CCA_BF16, CCA_BF16, 0, 0},
    {128, 4, 2, {4, 16, 6, false}, 200, 9, false, CCA_BF16, CCA_Q8_0, 0, 0},
    {96, 2, 2, {8, 32, 0, true}, 700, 128, false, CCA_Q8_0, CCA_BF16, 0, 0},
    {36, 4, 2, {3, 9, 0, true}, 0, 131, false, CCA_BF16, CCA_BF16, 0, 0},
    {256, 1, 1, {2, 200, 0, true}, 300, 7, false, CCA_BF16, CCA_BF16, 0, 0},
    {256, 1, 1, {2, 200, 0, true}, 300, 1, true, CCA_BF16, CCA_BF16, 0, 0},
    {36, 4, 2, {3, 9, 0, true}, 210, 1, true, CCA_BF16, CCA_BF16, 0, 0},
    {96, 2, 1, {8, 32, 0, true}, 701, 3, false, CCA_Q8_0, CCA_Q8_0, 0, 0},
    {64, 8, 1, {16, 64, 5, false}, 900, 1, true, CCA_Q8_0, CCA_BF16, 0, 0},
    {160, 1, 1, {16, 64, 0, true}, 1000, 9, false, CCA_BF16, CCA_BF16, 0, 0},
    /* sinks and cores, and groups that are recalled */
    {64, 4, 2, {16, 64, 16, true}, 70, 60, false, CCA_F32, CCA_F32, 0, 0},
    {64, 4, 2, {16, 64, 32, true}, 1234, 1, true, CCA_BF16, CCA_BF16, 0, 0},
    {32, 4, 2, {4, 16, 4, true}, 100, 70, false, CCA_F32, CCA_F32, 16, 7},
    {32, 8, 1, {1, 8, 0, true}, 300, 40, false, CCA_F16, CCA_F16, 8, 50},
    {64, 8, 2, {16, 64, 16, false}, 2000, 33, false, CCA_BF16, CCA_BF16, 16, 9},
    {64, 8, 2, {16, 64, 16, true}, 2000, 70, false, CCA_BF16, CCA_BF16, 16, 9},
    {128, 2, 2, {16, 64, 16, true}, 900, 64, false, CCA_F16, CCA_F16, 64, 20},
    {96, 3, 1, {8, 32, 8, true}, 701, 1, false, CCA_Q8_0, CCA_BF16, 16, 5},
    {96, 3, 1, {8, 32, 16, false}, 701, 37, false, CCA_Q8_0, CCA_Q8_0, 16, 5},
    {64, 4, 2, {100, 100, 0, true}, 1500, 20, false, CCA_BF16, CCA_BF16, 1, 3},
    {36, 4, 2, {3, 9, 3, true}, 30, 90, false, CCA_BF16, CCA_BF16, 32, 4},
};

typedef struct attention_data {
    cca_spans spans;
    float *q;
    void *memory[8];
} attention_data;

static void *random_rows(cca_dtype type, int64_t n, uint64_t *seed) {
    float *x = random_floats(n, seed, 2);
    void *rows = malloc((size_t)n * 4);
    assert_non_null(rows);
    cca_dtype_encode(rows, type, x, n);
    free(x);
    return rows;
}

static cca_rows rows_of_types(attention_data *d, int at, cca_dtype k_type, cca_dtype v_type,
                              int64_t heads, int64_t capacity, int64_t head_dim, uint64_t *seed) {
    int64_t n = heads * capacity * head_dim;
    d->memory[at] = random_rows(k_type, n, seed);
    d->memory[at + 1] = random_rows(v_type, n, seed);
    return (cca_rows){d->memory[at], d->memory[at + 1], k_type,   v_type,
                      heads,         capacity,          head_dim, 0};
}

static cca_rows make_rows(attention_data *d, int at, const attention_case *c, int64_t heads,
                          int64_t capacity, uint64_t *seed) {
    return rows_of_types(d, at, c->k_type, c->v_type, heads, capacity, c->head_dim, seed);
}

/* Rows of a call that may be worked on together: of one tile where tiles choose. */
static int64_t rows_together(const attention_case *c, int64_t row) {
    int64_t n = cca_min(CCA_TILE_Q, c->n - row);
    return c->most > 0 ? cca_min(n, c->tile - (c->pos + row) % c->tile) : n;
}

/* Each group that the last query of a tile sees is chosen or not, by chance. */
static cca_choice random_choice(const attention_case *c, uint64_t *seed) {
    int64_t tiles = (c->pos + c->n - 1) / c->tile - c->pos / c->tile + 1, at = 0;
    cca_choice out = {
        .heads = c->n_kv_heads, .most = c->most, .tile = c->tile, .group_size = c->rule.group_size};
    out.groups = calloc((size_t)(tiles * out.heads * out.most), sizeof *out.groups);
    out.counts = calloc((size_t)(tiles * out.heads), sizeof *out.counts);
    assert_true(out.groups && out.counts);
    cca_range seen = cca_rule_groups(&c->rule);
    for (int64_t row = 0, n; row < c->n; row += n) {
        n = rows_together(c, row);
        int64_t begin = cca_edge_at(&seen.begin, c->pos + row + n - 1);
        int64_t end = cca_edge_at(&seen.end, c->pos + row + n - 1);
        for (int64_t h = 0; h < out.heads; h++, at++) {
            double share = 1.5 * (double)out.most / (double)cca_max(end - begin, 1);
            for (int64_t t = begin; t < end && out.counts[at] < out.most; t++) {
                if (fabsf(cca_random_uniform(seed)) >= share) continue;
                out.groups[at * out.most + out.counts[at]++] = (int32_t)t;
            }
        }
    }
    return out;
}

/* As the cache has them: the window, then sinks, chosen groups and cores where there are some. */
static attention_data make_data(const attention_case *c, uint64_t *seed) {
    attention_data d = {.spans = {.n = 1}};
    const cca_rule *rule = &c->rule;
    cca_span *at = d.spans.at;
    int64_t total = c->pos + c->n, capacity = c->ring ? cca_rule_ring(rule) : total;
    cca_rows raw = make_rows(&d, 0, c, c->n_kv_heads, capacity, seed);
    at[0] = (cca_span){raw, cca_rule_window(rule), 1, CCA_PICK_ALL};
    if (rule->n_sinks > 0) {
        cca_rows sinks = make_rows(&d, 2, c, c->n_kv_heads, rule->n_sinks, seed);
        at[d.spans.n++] = (cca_span){sinks, cca_rule_sinks(rule), 1, CCA_PICK_ALL};
    }
    if (c->most > 0) {
        d.spans.choice = random_choice(c, seed);
        at[d.spans.n++] = (cca_span){raw, cca_rule_recallable(rule), 1, CCA_PICK_CHOSEN};
    }
    if (rule->cores) {
        cca_rows cores = make_rows(&d, 4, c, c->n_heads, total / rule->group_size, seed);
        at[d.spans.n++] = (cca_span){cores, cca_rule_groups(rule), rule->group_size,
                                     c->most > 0 ? CCA_PICK_OTHERS : CCA_PICK_ALL};
    }
    d.q = random_floats(c->n * c->n_heads * c->head_dim, seed, 2);
    return d;
}

static void free_data(attention_data *d) {
    for (int i = 0; i < 8; i++) free(d->memory[i]);
    free(d->spans.choice.groups), free(d->spans.choice.counts);
    free(d->q);
}

/* heads: that are worked on together. */
static void run_attend(const cca_kernels *k, const attention_case *c, const attention_data *d,
                       int64_t heads, float *out) {
    cca_attend_args args = {&d->spans, d->q, out, c->n_heads, c->pos, NULL};
    float *scratch = floats(cca_attend_scratch(c->head_dim));
    for (int64_t h = 0; h < c->n_heads; h += heads) {
        for (int64_t row = 0, n; row < c->n; row += n) {
            n = rows_together(c, row);
            k->attend(&args, h, heads, row, n, scratch);
        }
    }
    free(scratch);
}

/* Whether attention over such a cache may round queries and weights to bf16. */
static bool may_round(const attention_data *d) {
    for (int i = 0; i < d->spans.n; i++) {
        const cca_rows *rows = &d->spans.at[i].rows;
        if (rows->k_type == CCA_F32 || rows->k_type == CCA_F16) return false;
        if (rows->v_type == CCA_F32 || rows->v_type == CCA_F16) return false;
    }
    return true;
}

/* Queries that are bf16 already when multiplied by log2(e) / sqrt(head_dim), so that only the
 * weights are left to be rounded: each by at most 2^-9 of itself. */
static void round_q(const attention_case *c, const attention_data *d) {
    float scale = (float)(M_LOG2E / sqrt((double)c->head_dim));
    for (int64_t i = 0; may_round(d) && i < c->n * c->n_heads * c->head_dim; i++) {
        d->q[i] = cca_bf16_to_f32(cca_f32_to_bf16(d->q[i] * scale)) / scale;
    }
}

/* Each variant against the plain one. */
static void expect_attention(const attention_case *c, attention_data *d, const char *of) {
    int64_t n = c->n * c->n_heads * c->head_dim;
    float *want = floats(n), *got = floats(n);
    round_q(c, d);
    run_attend(plain, c, d, 1, want);
    for (int i = 1; cca_kernels_at(i); i++) {
        char what[60];
        run_attend(cca_kernels_at(i), c, d, 1, got);
        snprintf(what, sizeof what, "%s, %s", cca_kernels_at(i)->name, of);
        test_below(cca_distance(got, want, n), may_round(d) ? 4e-3 : 2e-6, what);
    }
    free(want), free(got);
}

static void attention(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char of[20];
        attention_data d = make_data(&cases[c], &seed);
        snprintf(of, sizeof of, "case %zu", c);
        expect_attention(&cases[c], &d, of);
        free_data(&d);
    }
}

/* Recalled rows that lie apart, beside a window of other types. */
static void recalled_rows_of_other_types(void **state) {
    (void)state;
    uint64_t seed = 6;
    static const cca_dtype all[] = {CCA_F32, CCA_F16, CCA_BF16, CCA_Q8_0, CCA_Q4_0};
    for (int i = 0; i < 50; i++) {
        const cca_dtype k = all[i % 5], v = all[i / 5 % 5];
        const attention_case c = {64,
                                  4,
                                  2,
                                  {16, 64, 16, false},
                                  900,
                                  i < 25 ? 40 : 1,
                                  false,
                                  CCA_BF16,
                                  i % 2 ? CCA_BF16 : CCA_Q8_0,
                                  16,
                                  9};
        attention_data d = make_data(&c, &seed);
        for (int at = 0; at < d.spans.n; at++) {
            if (d.spans.at[at].pick != CCA_PICK_CHOSEN) continue;
            d.spans.at[at].rows = rows_of_types(&d, 6, k, v, 2, 1000, 64, &seed);
        }
        char of[40];
        snprintf(of, sizeof of, "rows in %s/%s", cca_dtype_name(k), cca_dtype_name(v));
        expect_attention(&c, &d, of);
        free_data(&d);
    }
}

/* Queries of 0 weigh all visible keys alike, which rounding leaves exact: one key too many or too
 * few, or a value in the wrong place, would show. */
static void equal_weights(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int i = 1; cca_kernels_at(i); i++) {
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            attention_data d = make_data(&cases[c], &seed);
            int64_t n = cases[c].n * cases[c].n_heads * cases[c].head_dim;
            float *want = floats(n), *got = floats(n);
            memset(d.q, 0, (size_t)n * sizeof *d.q);
            run_attend(plain, &cases[c], &d, 1, want);
            run_attend(cca_kernels_at(i), &cases[c], &d, 1, got);
            bool rounds = cases[c].v_type == CCA_Q8_0; /* to bf16 */
            test_below(cca_distance(got, want, n), rounds ? 3e-3 : 5e-6, cca_kernels_at(i)->name);
            free(want), free(got), free_data(&d);
        }
    }
}

/* Heads that share their keys give the same bits together as one by one. */
/* Whether rows of several heads together fit a call and, AVX-512 taking up to eight rows in a way
 * of their own, go the way that those of one head go. */
static bool same_way(const attention_case *c, int64_t heads) {
    enum { FEW_ROWS = 8 };
    bool same = true;
    for (int64_t row = 0, n; row < c->n; row += n) {
        n = rows_together(c, row);
        same = same && n * heads <= CCA_TILE_Q && (n * heads <= FEW_ROWS) == (n <= FEW_ROWS);
    }
    return same;
}

static void heads_together(void **state) {
    (void)state;
    uint64_t seed = 8;
    for (int i = 0; cca_kernels_at(i); i++) {
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            attention_data d = make_data(&cases[c], &seed);
            int64_t n = cases[c].n * cases[c].n_heads * cases[c].head_dim;
            int64_t shared = cases[c].n_heads / cases[c].n_kv_heads;
            float *want = floats(n), *got = floats(n);
            run_attend(cca_kernels_at(i), &cases[c], &d, 1, want);
            if (same_way(&cases[c], shared)) {
                run_attend(cca_kernels_at(i), &cases[c], &d, shared, got);
                assert_memory_equal(got, want, (size_t)n * sizeof *got);
            }
            free(want), free(got), free_data(&d);
        }
    }
}

/* Chosen rows give the same bits where a part of them lies elsewhere, in pieces that end within
 * groups, and nothing but odd values stands in their place. */
enum { PIECES = 3 };

static cca_rows *chosen_rows(attention_data *d) {
    int i = 0;
    while (d->spans.at[i].pick != CCA_PICK_CHOSEN) i++;
    return &d->spans.at[i].rows;
}

static void free_pieces(attention_data *d, cca_rows pieces[PIECES]) {
    free(chosen_rows(d)->k), free(chosen_rows(d)->v);
    for (int i = 0; i < PIECES; i++) free(pieces[i].k), free(pieces[i].v);
}

static void to_pieces(attention_data *d, cca_rows pieces[PIECES], const attention_case *c) {
    cca_rows *raw = chosen_rows(d);
    size_t k = 0, v = 0;
    int64_t end = raw->capacity - raw->capacity / 5, begin = 0;
    cca_dtype_row_bytes(&k, raw->k_type, c->head_dim);
    cca_dtype_row_bytes(&v, raw->v_type, c->head_dim);
    char *all_k = raw->k, *all_v = raw->v;
    raw->k = malloc(k * (size_t)(raw->heads * raw->capacity));
    raw->v = malloc(v * (size_t)(raw->heads * raw->capacity));
    for (int i = 0; i < PIECES; i++) {
        int64_t n = i + 1 < PIECES ? end * (i + 1) / 5 - begin : end - begin;
        cca_rows *p = &pieces[i];
        *p = *raw;
        p->k = malloc(k * (size_t)(raw->heads * n));
        p->v = malloc(v * (size_t)(raw->heads * n));
        p->capacity = n;
        p->base = begin;
        for (int64_t h = 0; h < raw->heads; h++) {
            size_t from = (size_t)(h * raw->capacity + begin), to = (size_t)(h * n);
            memcpy((char *)p->k + to * k, all_k + from * k, k * (size_t)n);
            memcpy((char *)p->v + to * v, all_v + from * v, v * (size_t)n);
        }
        begin += n;
    }
    for (int64_t h = 0; h < raw->heads; h++) {
        size_t at = (size_t)(h * raw->capacity), n = (size_t)end;
        size_t rest = (size_t)(raw->capacity - end);
        memset((char *)raw->k + at * k, 0xff, n * k);
        memset((char *)raw->v + at * v, 0xff, n * v);
        memcpy((char *)raw->k + (at + n) * k, all_k + (at + n) * k, rest * k);
        memcpy((char *)raw->v + (at + n) * v, all_v + (at + n) * v, rest * v);
    }
    d->spans.pieces = (cca_pieces){pieces, PIECES, 1, end};
}

static void rows_elsewhere(void **state) {
    (void)state;
    uint64_t seed = 9;
    for (int i = 0; cca_kernels_at(i); i++) {
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            if (cases[c].most == 0) continue;
            attention_data d = make_data(&cases[c], &seed);
            cca_rows pieces[PIECES];
            int64_t n = cases[c].n * cases[c].n_heads * cases[c].head_dim;
            float *want = floats(n), *got = floats(n);
            run_attend(cca_kernels_at(i), &cases[c], &d, 1, want);
            to_pieces(&d, pieces, &cases[c]);
            run_attend(cca_kernels_at(i), &cases[c], &d, 1, got);
            assert_memory_equal(got, want, (size_t)n * sizeof *got);
            free_pieces(&d, pieces);
            free(want), free(got), free_data(&d);
        }
    }
}

static void pooling(void **state) {
    (void)state;
    uint64_t seed = 6;
    const attention_case c = {40, 6, 2, {5, 20, 0, true}, 50, 25, false, CCA_F32, CCA_F32, 0, 0};
    for (int i = 1; cca_kernels_at(i); i++) {
        for (int p = CCA_POOL_QUERY; p <= CCA_POOL_MAX; p++) {
            attention_data d = make_data(&c, &seed);
            const cca_groups groups = {d.spans.at[0].rows, d.spans.at[1].rows, 5, (cca_pooling)p,
                                       false};
            const cca_rows *cores = &groups.cores;
            int64_t n = cores->heads * cores->capacity * c.head_dim;
            float *scratch = floats(cca_pool_scratch(5, 40)), *want_k = floats(n),
                  *want_v = floats(n);
            cca_pool_args args = {&groups, d.q, c.n_heads, c.pos};
            for (int64_t j = 0; j < 6 * 5; j++) plain->pool(&args, j % 6, 10 + j / 6, scratch);
            memcpy(want_k, cores->k, (size_t)n * 4);
            memcpy(want_v, cores->v, (size_t)n * 4);
            for (int64_t j = 0; j < 6 * 5; j++) {
                float *core = (float *)cores->k + (j % 6 * cores->capacity + 10 + j / 6) * 40;
                memset(core, 0xff, 40 * sizeof *core);
                cca_kernels_at(i)->pool(&args, j % 6, 10 + j / 6, scratch);
            }
            test_below(cca_distance(cores->k, want_k, n), 1e-6, "core keys");
            test_below(cca_distance(cores->v, want_v, n), 1e-6, "core values");
            free(scratch), free(want_k), free(want_v), free_data(&d);
        }
    }
}

static void variants_are_found(void **state) {
    (void)state;
    assert_ptr_equal(cca_kernels_find("plain"), plain);
    assert_ptr_equal(cca_kernels_find("generic"), &cca_kernels_generic);
    assert_null(cca_kernels_find("mmx"));
    assert_ptr_equal(cca_kernels_find(cca_kernels_best()->name), cca_kernels_best());
    for (int i = 1; cca_kernels_at(i); i++) print_message("tested: %s\n", cca_kernels_at(i)->name);
}

/* Only AVX-512 and AMX have more than one kind of instructions for products. */
static void products_have_peaks(void **state) {
    (void)state;
    const cca_peaks p = {.f32 = 1, .bf16 = 2, .bytes = 3};
    const bool tiles = cca_kernels_best() == &cca_kernels_amx;
    const bool more = tiles || cca_kernels_best() == &cca_kernels_avx512;
    assert_true(cca_peaks_of_products(&p, "f32") == 1 && cca_peaks_of_products(&p, "f16") == 1);
    assert_true(cca_peaks_of_products(&p, "bf16") == (more ? 2 : 1));
    assert_true(cca_peaks_of_products(&p, "q8_0") == (tiles ? 2 : more ? 3 : 1));
    assert_true(cca_peaks_of_products(&p, "q4_0") == (tiles ? 2 : more ? 3 : 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(products_do_not_depend_on_their_company),
        cmocka_unit_test(odd_values_stay_odd),
        cmocka_unit_test(rows_of_odd_values),
        cmocka_unit_test(norms_and_swiglu),
        cmocka_unit_test(conversions),
        cmocka_unit_test(attention),
        cmocka_unit_test(recalled_rows_of_other_types),
        cmocka_unit_test(equal_weights),
        cmocka_unit_test(heads_together),
        cmocka_unit_test(rows_elsewhere),
        cmocka_unit_test(pooling),
        cmocka_unit_test(variants_are_found),
        cmocka_unit_test(products_have_peaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
