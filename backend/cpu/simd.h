/* The vector variants' one source: included by a file per instruction set, which defines
 * CCA_SIMD_WIDTH (floats in a vector) and CCA_SIMD_TOKENS and is compiled with that set's flags.
 * CCA_SIMD_KERNELS(name) then initialises its table but for the products; CCA_SIMD_PRODUCTS are
 * those in f32, and in bytes (byte_dot.h) of few rows with weights of kquants.h; a set with faster
 * ones has its own in place of them. Vectors are the compiler's own vector types, so nothing here
 * names an instruction.
 *
 * Products of many tokens keep a tile of outputs in registers: two vectors of weight rows times
 * TOKENS rows of x, which are broadcast value by value. So no sum runs across lanes. */
#include "backend/cpu/kernels.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

enum {
    WIDTH = CCA_SIMD_WIDTH,
    PAIR = 2 * WIDTH, /* weight rows that a tile of outputs spans */
    PACK_DEPTH = 128, /* values unpacked at a time, but for blocks that are larger: */
    MOST_DEPTH = 256,
    TOKENS = CCA_SIMD_TOKENS,
};

typedef float vec __attribute__((vector_size(WIDTH * 4)));
typedef int32_t ivec __attribute__((vector_size(WIDTH * 4)));
typedef float vec_unaligned __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *p) {
    return *(const vec_unaligned *)p;
}

INLINE void store(float *p, vec v) {
    *(vec_unaligned *)p = v;
}

INLINE vec splat(float x) {
    return x - (vec){0};
}

#if CCA_SIMD_WIDTH == 4
#define ZIP_LOW  0, 4, 1, 5
#define ZIP_HIGH 2, 6, 3, 7
#elif CCA_SIMD_WIDTH == 8
#define ZIP_LOW  0, 8, 1, 9, 2, 10, 3, 11
#define ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define ZIP_LOW  0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif

/* a0 b0 a1 b1 …: the lower and the upper half. */
INLINE vec zip_low(vec a, vec b) {
    return __builtin_shufflevector(a, b, ZIP_LOW);
}

INLINE vec zip_high(vec a, vec b) {
    return __builtin_shufflevector(a, b, ZIP_HIGH);
}

INLINE float sum_lanes(vec v) {
    float lanes[WIDTH];
    store(lanes, v);
    for (int half = WIDTH / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    }
    return lanes[0];
}

INLINE float max_lanes(vec v) {
    float largest = v[0];
    for (int i = 1; i < WIDTH; i++) largest = v[i] > largest ? v[i] : largest;
    return largest;
}

INLINE vec vec_select(ivec mask, vec yes, vec no) {
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

/* e^x to about one unit in the last place: x = n ln 2 + r with |r| ≤ ln 2 / 2, a Taylor
 * polynomial in r, and n put into the exponent. Below -87 the result is 0, above 88
 * infinity. Adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits. */
INLINE vec vec_exp(vec x) {
    const vec magic = splat(0x1.8p23f);
    ivec underflow = x<splat(-87.0f), overflow = x> splat(88.0f);
    vec shifted = x * splat(0x1.715476p0f) + magic;
    vec n = shifted - magic;
    vec r = x - n * splat(0x1.62e4p-1f);
    r = r - n * splat(0x1.7f7d1cp-20f);
    vec p = splat(1.0f / 5040);
    p = p * r + splat(1.0f / 720);
    p = p * r + splat(1.0f / 120);
    p = p * r + splat(1.0f / 24);
    p = p * r + splat(1.0f / 6);
    p = p * r + splat(0.5f);
    p = p * r + splat(1.0f);
    p = p * r + splat(1.0f);
    ivec exponent = (((ivec)shifted - (ivec)magic) + 127) << 23;
    vec result = vec_select(overflow, splat(INFINITY), p * (vec)exponent);
    return vec_select(underflow, splat(0), result);
}

static void decode(float *out, cca_dtype type, const void *in, int64_t n) {
    cca_row_decode(out, type, in, n);
}

static void encode(void *out, cca_dtype type, const float *in, int64_t n) {
    cca_row_encode(out, type, in, n);
}

static int64_t pack_depth(cca_dtype type) {
    return cca_max(PACK_DEPTH, cca_dtype_block(type));
}

/* out[j] = a · b[j] for four rows. */
INLINE void dot_four(float *out, const float *a, const float *b, int64_t ldb, int64_t n) {
    vec sum[4] = {0};
    int64_t k = 0;
    for (; k + WIDTH <= n; k += WIDTH) {
        vec x = load(a + k);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) sum[j] += x * load(b + j * ldb + k);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        out[j] = sum_lanes(sum[j]);
        for (int64_t t = k; t < n; t++) out[j] += a[t] * b[j * ldb + t];
    }
}

/* ---- products ------------------------------------------------------------------------ */

static size_t f32_x_bytes(cca_dtype type, int64_t n) {
    (void)type;
    (void)n;
    return 0;
}

/* A panel holds PAIR rows side by side, value by value: [CCA_PANEL / PAIR][n][PAIR]. */
static size_t f32_panel_bytes(cca_dtype type, int64_t n) {
    (void)type;
    return (size_t)(CCA_PANEL * n) * sizeof(float);
}

/* Interleaving the first and the second half of the vectors, log2(WIDTH) times, transposes. */
INLINE void transpose(vec *v) {
    for (int step = 1; step < WIDTH; step *= 2) {
        vec t[WIDTH];
#pragma GCC unroll 8
        for (int i = 0; i < WIDTH / 2; i++) {
            t[2 * i] = zip_low(v[i], v[i + WIDTH / 2]);
            t[2 * i + 1] = zip_high(v[i], v[i + WIDTH / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++) v[i] = t[i];
    }
}

/* WIDTH rows of n ≤ MOST_DEPTH values into columns of a panel. */
static void pack_columns(float *panel, const float (*rows)[MOST_DEPTH], int64_t n) {
    int64_t k = 0;
    for (; k + WIDTH <= n; k += WIDTH) {
        vec v[WIDTH];
#pragma GCC unroll 16
        for (int r = 0; r < WIDTH; r++) v[r] = load(rows[r] + k);
        transpose(v);
#pragma GCC unroll 16
        for (int r = 0; r < WIDTH; r++) store(panel + (k + r) * PAIR, v[r]);
    }
    for (; k < n; k++) {
        for (int r = 0; r < WIDTH; r++) panel[k * PAIR + r] = rows[r][k];
    }
}

static void f32_pack(void *panel, cca_dtype type, const void *w, size_t w_stride, int64_t n_w,
                     int64_t n) {
    float rows[WIDTH][MOST_DEPTH];
    const int64_t depth = pack_depth(type);
    for (int64_t r = 0; r < n_w; r += WIDTH) {
        float *to = (float *)panel + r / PAIR * PAIR * n + r % PAIR;
        for (int64_t k = 0, some; k < n; k += some) {
            size_t skip = 0;
            some = cca_min(depth, n - k);
            cca_dtype_row_bytes(&skip, type, k);
            for (int64_t i = 0; i < WIDTH; i++) {
                int64_t row = cca_min(r + i, n_w - 1); /* beyond the last: any numbers will do */
                decode(rows[i], type, (const char *)w + (size_t)row * w_stride + skip, some);
            }
            pack_columns(to + k * PAIR, rows, some);
        }
    }
}

INLINE const float *x_row(const void *x, size_t x_stride, int64_t i) {
    return (const float *)((const char *)x + (size_t)i * x_stride);
}

/* n_x ≤ TOKENS rows of x, a constant after inlining, times PAIR rows of weights, of which n_w
 * are written. */
INLINE void multiply_tile(float *out, int64_t ld_out, const void *x, size_t x_stride, const int n_x,
                          const float *panel, int64_t n_w, int64_t n, bool add) {
    vec sum[TOKENS][2] = {0};
    for (int64_t k = 0; k < n; k++) {
        vec low = load(panel + k * PAIR), high = load(panel + k * PAIR + WIDTH);
#pragma GCC unroll 16
        for (int i = 0; i < n_x; i++) {
            vec value = splat(x_row(x, x_stride, i)[k]);
            sum[i][0] += value * low;
            sum[i][1] += value * high;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < n_x; i++) {
        float *row = out + i * ld_out;
        if (n_w >= PAIR) {
            store(row, add ? load(row) + sum[i][0] : sum[i][0]);
            store(row + WIDTH, add ? load(row + WIDTH) + sum[i][1] : sum[i][1]);
            continue;
        }
        float values[PAIR];
        store(values, sum[i][0]);
        store(values + WIDTH, sum[i][1]);
        for (int64_t j = 0; j < n_w; j++) row[j] = add ? row[j] + values[j] : values[j];
    }
}

static void f32_multiply(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                         cca_dtype type, const void *panel, int64_t n_w, int64_t n, bool add) {
    (void)type;
    for (int64_t j = 0; j < n_w; j += PAIR) {
        const float *columns = (const float *)panel + j * n;
        int64_t i = 0, some = n_w - j;
        for (; i + TOKENS <= n_x; i += TOKENS) {
            multiply_tile(out + i * ld_out + j, ld_out, x_row(x, x_stride, i), x_stride, TOKENS,
                          columns, some, n, add);
        }
        for (; i + 2 <= n_x; i += 2) {
            multiply_tile(out + i * ld_out + j, ld_out, x_row(x, x_stride, i), x_stride, 2, columns,
                          some, n, add);
        }
        for (; i < n_x; i++) {
            multiply_tile(out + i * ld_out + j, ld_out, x_row(x, x_stride, i), x_stride, 1, columns,
                          some, n, add);
        }
    }
}

/* Up to four rows of weights as floats: where they lie, if that is what they are. */
INLINE const float *unpack_rows(float (*rows)[MOST_DEPTH], int64_t *ld, cca_dtype type,
                                const char *w, size_t w_stride, int64_t n_w, int64_t n) {
    *ld = MOST_DEPTH;
    if (type == CCA_F32 && n_w == 4) {
        *ld = (int64_t)(w_stride / sizeof(float));
        return (const float *)w;
    }
    for (int64_t r = 0; r < 4; r++) {
        decode(rows[r], type, w + (size_t)cca_min(r, n_w - 1) * w_stride, n);
    }
    return rows[0];
}

static void f32_dot(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                    cca_dtype type, const void *w, size_t w_stride, int64_t n_w, int64_t n) {
    float rows[4][MOST_DEPTH];
    const int64_t depth = pack_depth(type);
    for (int64_t j = 0, n_j; j < n_w; j += n_j) {
        const char *from = (const char *)w + (size_t)j * w_stride;
        n_j = cca_min(4, n_w - j);
        for (int64_t k = 0, some; k < n; k += some) {
            size_t skip = 0;
            int64_t ld;
            some = cca_min(depth, n - k);
            cca_dtype_row_bytes(&skip, type, k);
            const float *b = unpack_rows(rows, &ld, type, from + skip, w_stride, n_j, some);
            for (int64_t i = 0; i < n_x; i++) {
                float sum[4];
                dot_four(sum, x_row(x, x_stride, i) + k, b, ld, some);
                for (int64_t r = 0; r < n_j; r++) out[i * ld_out + j + r] += sum[r];
            }
        }
    }
}

static const cca_products *f32_products(cca_dtype type) {
    static const cca_products all = {
        f32_x_bytes, NULL, f32_panel_bytes, f32_pack, f32_multiply, f32_dot, CCA_PEAK_F32, false,
    };
    (void)type;
    return &all;
}

#if CCA_SIMD_WIDTH < 16
#include "backend/cpu/byte_dot.h"

static inline const cca_products *f32_few(cca_dtype type) {
    const cca_products *bytes = byte_dot_products(type);
    return bytes ? bytes : f32_products(type);
}
#endif

/* ---- norms --------------------------------------------------------------------------- */

/* Squares of numbers above 1e19 are larger than any float, their root is not. */
static float scale_of_large(const float *x, float eps, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return (float)(1 / sqrt(sum / (double)n + (double)eps));
}

static void rmsnorm(float *out, const float *x, const float *weight, float eps, int64_t n) {
    vec squares = {0};
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) squares += load(x + i) * load(x + i);
    float sum = sum_lanes(squares);
    for (; i < n; i++) sum += x[i] * x[i];
    float scale = 1 / sqrtf(sum / (float)n + eps);
    if (isinf(sum)) scale = scale_of_large(x, eps, n);
    for (i = 0; i < n; i++) out[i] = x[i] * scale * weight[i];
}

INLINE vec swiglu_of(vec gate, vec up) {
    return gate / (splat(1) + vec_exp(-gate)) * up;
}

static void swiglu(float *gate, const float *up, int64_t n) {
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(gate + i, swiglu_of(load(gate + i), load(up + i)));
    if (i == n) return;
    float g[WIDTH] = {0}, u[WIDTH] = {0};
    size_t bytes = (size_t)(n - i) * sizeof *g;
    memcpy(g, gate + i, bytes);
    memcpy(u, up + i, bytes);
    store(g, swiglu_of(load(g), load(u)));
    memcpy(gate + i, g, bytes);
}

/* out[i] += sum over k of p[i * ldp + k] * v[k * ldv …]: n_i ≤ 4 rows, two vectors wide. */
INLINE void weigh_block(float *out, int64_t ld_out, const float *p, int64_t ldp, const int n_i,
                        const float *v, int64_t ldv, int64_t n_k, const int n_v) {
    vec sum[4][2];
#pragma GCC unroll 4
    for (int i = 0; i < n_i; i++) {
#pragma GCC unroll 2
        for (int c = 0; c < n_v; c++) sum[i][c] = load(out + i * ld_out + c * WIDTH);
    }
    for (int64_t k = 0; k < n_k; k++) {
        vec row[2];
#pragma GCC unroll 2
        for (int c = 0; c < n_v; c++) row[c] = load(v + k * ldv + c * WIDTH);
#pragma GCC unroll 4
        for (int i = 0; i < n_i; i++) {
            vec weight = splat(p[i * ldp + k]);
#pragma GCC unroll 2
            for (int c = 0; c < n_v; c++) sum[i][c] += weight * row[c];
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n_i; i++) {
#pragma GCC unroll 2
        for (int c = 0; c < n_v; c++) store(out + i * ld_out + c * WIDTH, sum[i][c]);
    }
}

INLINE void weigh_rows(float *out, const float *p, int64_t ldp, const int n_i, const float *v,
                       int64_t width, int64_t n_k) {
    int64_t c = 0;
    for (; c + 2 * WIDTH <= width; c += 2 * WIDTH) {
        weigh_block(out + c, width, p, ldp, n_i, v + c, width, n_k, 2);
    }
    for (; c < width; c += WIDTH) weigh_block(out + c, width, p, ldp, n_i, v + c, width, n_k, 1);
}

/* The online softmax's state of one call's queries, in scratch memory: all of a head's queries side
 * by side. width is head_dim, rounded up; the columns beyond it stay 0. */
typedef struct attend_tile {
    const cca_attend_args *args;
    int64_t head, n_heads, row, n; /* heads × queries */
    int64_t head_dim, width;
    float *scores;  /* [CCA_TILE_Q][CCA_TILE_K] */
    float *q;       /* [CCA_TILE_Q][width], scaled */
    float *out;     /* [CCA_TILE_Q][width], not yet divided by total */
    float *panel;   /* keys, packed */
    float *v;       /* [CCA_TILE_K][width] */
    float *largest; /* [CCA_TILE_Q] */
    float *total;   /* [CCA_TILE_Q] */
    char *keys;     /* [CCA_TILE_K] rows that do not lie in a row */
} attend_tile;

static void tile_begin(attend_tile *t, const cca_attend_args *args, int64_t head, int64_t n_heads,
                       int64_t row, int64_t n, float *scratch) {
    int64_t hd = args->spans->at[0].rows.head_dim, width = (hd + 15) / 16 * 16;
    float *scores = scratch, *q = scores + CCA_TILE_Q * CCA_TILE_K;
    float *out = q + CCA_TILE_Q * width, *k = out + CCA_TILE_Q * width;
    float *v = k + CCA_TILE_K * width, *largest = v + CCA_TILE_K * width;
    *t = (attend_tile){args,
                       head,
                       n_heads,
                       row,
                       n,
                       hd,
                       width,
                       scores,
                       q,
                       out,
                       k,
                       v,
                       largest,
                       largest + CCA_TILE_Q,
                       (char *)(largest + 2 * CCA_TILE_Q)};
    int64_t n_rows = n_heads * n;
    memset(q, 0, (size_t)(v + CCA_TILE_K * width - q) * sizeof *q);
    float scale = 1 / sqrtf((float)hd);
    for (int64_t i = 0; i < n_rows; i++) {
        const float *in = args->q + ((row + i % n) * args->n_heads + head + i / n) * hd;
        for (int64_t d = 0; d < hd; d++) q[i * width + d] = in[d] * scale;
        t->largest[i] = -INFINITY;
        t->total[i] = 0;
    }
}

/* Scores of n_k keys become weights relative to each row's largest score so far, and what was
 * summed up before is brought to the same scale. A row that has seen no key yet keeps -inf and
 * weighs nothing. */
static void tile_softmax(attend_tile *t, int64_t first, int64_t n_rows, int64_t n_k) {
    for (int64_t i = first; i < first + n_rows; i++) {
        float *s = t->scores + i * CCA_TILE_K, *out = t->out + i * t->width;
        for (int64_t k = n_k; k < (n_k + WIDTH - 1) / WIDTH * WIDTH; k++) s[k] = -INFINITY;
        vec m = splat(t->largest[i]);
        for (int64_t k = 0; k < n_k; k += WIDTH) m = vec_select(load(s + k) > m, load(s + k), m);
        float largest = max_lanes(m);
        if (largest == -INFINITY) {
            for (int64_t k = 0; k < n_k; k++) {
                if (isnan(s[k])) t->total[i] = NAN; /* which is larger than nothing */
            }
            memset(s, 0, (size_t)n_k * sizeof *s);
            continue;
        }
        vec sum = {0};
        for (int64_t k = 0; k < n_k; k += WIDTH) {
            vec p = vec_exp(load(s + k) - splat(largest));
            store(s + k, p);
            sum += p;
        }
        if (largest > t->largest[i]) {
            float shrink = expf(t->largest[i] - largest);
            t->total[i] *= shrink;
            for (int64_t d = 0; d < t->width; d++) out[d] *= shrink;
            t->largest[i] = largest;
        }
        t->total[i] += sum_lanes(sum);
    }
}

/* Keys of a tile where they lie in a row, or copied there. */
static const char *tile_keys(const attend_tile *t, const cca_rows *rows, const cca_key_tile *keys,
                             int64_t head, size_t row_bytes) {
    if (keys->in_a_row) return cca_key_at(keys, rows, head, 0);
    for (int64_t k = 0; k < keys->n; k++) {
        memcpy(t->keys + (size_t)k * row_bytes, cca_key_at(keys, rows, head, k), row_bytes);
    }
    return t->keys;
}

/* What one row does not see of a tile weighs nothing. */
static void tile_mask(float *scores, const cca_key_tile *keys, int64_t begin, int64_t end) {
    for (int64_t k = 0; k < keys->n; k++) {
        int64_t c = cca_key_column(keys, k);
        if (c < begin || c >= end || !(keys->takes_part >> k & 1)) scores[k] = -INFINITY;
    }
}

/* Takes a tile of keys for rows first … first + n_rows - 1: scores, mask (where see is given: from
 * see[i][0] up to see[i][1], by column), softmax, weighted values. */
static void tile_add(attend_tile *t, const cca_rows *rows, const cca_key_tile *keys, int64_t first,
                     int64_t n_rows, const int64_t (*see)[2]) {
    int64_t head = (t->head + first / t->n) / (t->args->n_heads / rows->heads), n_k = keys->n;
    for (int64_t k = 0; k < n_k; k++) {
        decode(t->v + k * t->width, rows->v_type, cca_value_at(keys, rows, head, k), t->head_dim);
    }
    size_t row_bytes = 0, q_stride = (size_t)t->width * sizeof(float);
    cca_dtype_row_bytes(&row_bytes, rows->k_type, t->head_dim);
    const char *k_rows = tile_keys(t, rows, keys, head, row_bytes);
    for (int64_t k = 0; k < n_k; k += CCA_PANEL) {
        int64_t some = cca_min(CCA_PANEL, n_k - k);
        f32_pack(t->panel, rows->k_type, k_rows + (size_t)k * row_bytes, row_bytes, some,
                 t->head_dim);
        f32_multiply(t->scores + first * CCA_TILE_K + k, CCA_TILE_K, t->q + first * t->width,
                     q_stride, n_rows, rows->k_type, t->panel, some, t->head_dim, false);
    }
    for (int64_t i = first; see && i < first + n_rows; i++) {
        tile_mask(t->scores + i * CCA_TILE_K, keys, see[i][0], see[i][1]);
    }
    tile_softmax(t, first, n_rows, n_k);
    int64_t i = first;
    for (; i + 4 <= first + n_rows; i += 4) {
        weigh_rows(t->out + i * t->width, t->scores + i * CCA_TILE_K, CCA_TILE_K, 4, t->v, t->width,
                   n_k);
    }
    for (; i < first + n_rows; i++) {
        weigh_rows(t->out + i * t->width, t->scores + i * CCA_TILE_K, CCA_TILE_K, 1, t->v, t->width,
                   n_k);
    }
}

/* Rows of queries that read the same head of a span's rows take its keys together. */
static void attend_span(attend_tile *t, const cca_span *span) {
    int64_t pos = t->args->pos + t->row, n_rows = t->n_heads * t->n;
    int64_t see[CCA_TILE_Q][2] = {{0}};
    int64_t together = span->rows.heads == t->args->n_heads ? t->n : n_rows;
    int64_t kv_head = t->head / (t->args->n_heads / t->args->spans->at[0].rows.heads);
    for (int64_t i = 0; i < n_rows; i++) {
        see[i][0] = cca_edge_at(&span->seen.begin, pos + i % t->n);
        see[i][1] = cca_edge_at(&span->seen.end, pos + i % t->n);
    }
    cca_key_walk w = cca_walk_begin(t->args, span, kv_head, t->row, t->n);
    while (cca_walk_next(&w)) {
        bool masked = ~w.keys.takes_part || cca_walk_masked(&w);
        for (int64_t i = 0; i < n_rows; i += together) {
            tile_add(t, &span->rows, &w.keys, i, together, masked ? see : NULL);
        }
    }
}

static void f32_attend(const cca_attend_args *args, int64_t head, int64_t n_heads, int64_t row,
                       int64_t n, float *scratch) {
    attend_tile t;
    tile_begin(&t, args, head, n_heads, row, n, scratch);
    for (int i = 0; i < args->spans->n; i++) attend_span(&t, &args->spans->at[i]);
    for (int64_t i = 0; i < n_heads * n; i++) {
        float *out = args->out + ((row + i % n) * args->n_heads + head + i / n) * t.head_dim;
        float inverse =
            cca_attend_finish(args, row + i % n, head + i / n, t.largest[i], t.total[i]);
        for (int64_t d = 0; d < t.head_dim; d++) out[d] = t.out[i * t.width + d] * inverse;
    }
}

/* A vector's worth of x, or what is left of it and -inf. */
INLINE vec load_some(const float *x, int64_t n) {
    if (n >= WIDTH) return load(x);
    float all[WIDTH];
    for (int64_t i = 0; i < WIDTH; i++) all[i] = i < n ? x[i] : -INFINITY;
    return load(all);
}

/* e to the scores less the largest, over their sum: equal scores get equal weights, wherever they
 * stand. */
static void add_softmax(float *total, float *scores, int64_t n) {
    const int64_t whole = n / WIDTH * WIDTH, rest = n - whole;
    vec m = load_some(scores + whole, rest), sum = {0};
    for (int64_t i = 0; i < whole; i += WIDTH) {
        vec s = load(scores + i);
        m = vec_select(s > m, s, m);
    }
    const vec largest = splat(max_lanes(m));
    for (int64_t i = 0; i < whole; i += WIDTH) {
        vec p = vec_exp(load(scores + i) - largest);
        sum += p;
        store(scores + i, p);
    }
    float last[WIDTH];
    store(last, vec_exp(load_some(scores + whole, rest) - largest));
    memcpy(scores + whole, last, (size_t)rest * sizeof *last);
    const float share = 1 / sum_lanes(sum + load(last));
    for (int64_t i = 0; i < n; i++) total[i] += scores[i] * share;
}

/* Weights of a group's members, which sum to 1. */
static void pool_weights(float *w, const cca_pool_args *args, int64_t kv_head, int64_t head,
                         int64_t group) {
    const cca_rows *raw = &args->groups->raw;
    int64_t hd = raw->head_dim, g = args->groups->size, last = group * g + g - 1;
    if (args->groups->pooling != CCA_POOL_QUERY) {
        for (int64_t i = 0; i < g; i++) w[i] = 1 / (float)g;
        return;
    }
    const float *q = args->q + ((last - args->pos) * args->n_heads + head) * hd;
    float scale = 1 / sqrtf((float)hd), largest = -INFINITY, total = 0;
    for (int64_t i = 0; i < g; i++) {
        int64_t row = cca_rows_at(raw, group * g + i);
        w[i] = 0;
        f32_dot(&w[i], 1, q, 0, 1, raw->k_type, cca_row_at(raw->k, raw->k_type, raw, kv_head, row),
                0, 1, hd);
        w[i] *= scale;
        largest = w[i] > largest ? w[i] : largest;
    }
    for (int64_t i = 0; i < g; i++) total += w[i] = expf(w[i] - largest);
    for (int64_t i = 0; i < g; i++) w[i] /= total;
}

static void pool_rows(void *out, cca_dtype out_type, const float *w, const void *rows,
                      cca_dtype type, const cca_pool_args *args, int64_t kv_head, int64_t group,
                      float *row) {
    const cca_rows *raw = &args->groups->raw;
    int64_t hd = raw->head_dim, g = args->groups->size;
    bool max = args->groups->pooling == CCA_POOL_MAX;
    float *sum = row + hd;
    for (int64_t d = 0; d < hd; d++) sum[d] = max ? -INFINITY : 0;
    for (int64_t i = 0; i < g; i++) {
        int64_t at = cca_rows_at(raw, group * g + i);
        decode(row, type, cca_row_at(rows, type, raw, kv_head, at), hd);
        if (max) {
            for (int64_t d = 0; d < hd; d++) {
                sum[d] = row[d] > sum[d] || isnan(row[d]) ? row[d] : sum[d];
            }
        } else {
            for (int64_t d = 0; d < hd; d++) sum[d] += w[i] * row[d];
        }
    }
    encode(out, out_type, sum, hd);
}

static void pool(const cca_pool_args *args, int64_t head, int64_t group, float *scratch) {
    const cca_rows *raw = &args->groups->raw, *cores = &args->groups->cores;
    int64_t kv_head = head / (args->n_heads / raw->heads);
    float *w = scratch, *row = scratch + args->groups->size;
    pool_weights(w, args, kv_head, head, group);
    pool_rows((void *)cca_row_at(cores->k, cores->k_type, cores, head, group), cores->k_type, w,
              raw->k, raw->k_type, args, kv_head, group, row);
    pool_rows((void *)cca_row_at(cores->v, cores->v_type, cores, head, group), cores->v_type, w,
              raw->v, raw->v_type, args, kv_head, group, row);
}

/* Enough sums beside each other that none waits for itself. */
enum { SPIN_SUMS = 12 };

static double f32_spin(float *sink, cca_peak kind, int64_t turns) {
    vec sum[SPIN_SUMS], a = splat(0.5f), b = splat(0.25f);
    if (kind != CCA_PEAK_F32) return 0;
#pragma GCC unroll 12
    for (int i = 0; i < SPIN_SUMS; i++) sum[i] = splat((float)i);
    for (int64_t t = 0; t < turns; t++) {
#pragma GCC unroll 12
        for (int i = 0; i < SPIN_SUMS; i++) sum[i] = sum[i] * a + b;
    }
#pragma GCC unroll 12
    for (int i = 0; i < SPIN_SUMS; i++) store(sink + i * WIDTH, sum[i]);
    return 2.0 * WIDTH * SPIN_SUMS * (double)turns;
}

#define CCA_SIMD_KERNELS(variant)                                                                  \
    .name = (variant), .decode = decode, .encode = encode, .rmsnorm = rmsnorm, .swiglu = swiglu,   \
    .pool = pool, .add_softmax = add_softmax

#define CCA_SIMD_PRODUCTS                                                                          \
    .products = f32_products, .few = f32_few, .attend = f32_attend, .spin = f32_spin
