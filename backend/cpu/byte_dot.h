/* Part of simd.h: dot products of few rows of x with weights of kquants.h, in bytes. A row's
 * weights are taken apart 256 at a time (cca_apart) and meet x, rounded to whole numbers up to
 * 32512 with a scale for each 32 values, so that f32 would hardly be better. Such a number is 255
 * high + low, two bytes of at most 127:
 *
 *     sum over s of  w.scale[s] x.scale[s] (255 w.q · x.high + w.q · x.low)
 *                    - w.min[s] x.scale[s] (sum of 255 x.high + x.low)
 *
 * with s for each 16 values. */

enum { BYTE_DOT_BASE = 255, BYTE_DOT_MOST = 127 * BYTE_DOT_BASE + 127 };

typedef struct byte_dot_x {
    int8_t high[CCA_LARGE_BLOCK], low[CCA_LARGE_BLOCK];
    float scale[CCA_LARGE_BLOCK / CCA_SCALED], sum[CCA_LARGE_BLOCK / CCA_SCALED];
} byte_dot_x;

static size_t byte_dot_x_bytes(cca_dtype type, int64_t n) {
    (void)type;
    return (size_t)((n + CCA_LARGE_BLOCK - 1) / CCA_LARGE_BLOCK) * sizeof(byte_dot_x);
}

/* To whole numbers, to nearest. Where multiply-add is fused adding is no way to round a product. */
INLINE ivec round_lanes(vec v) {
#if defined(__AVX2__) && CCA_SIMD_WIDTH == 8
    return (ivec)_mm256_cvtps_epi32((__m256)v);
#else
    const vec magic = splat(0x1.8p23f);
    return (ivec)(v + magic) - (ivec)magic;
#endif
}

/* 32 values, the first of `at`. */
static void byte_dot_round(byte_dot_x *out, int at, const float *x) {
    enum { N = CCA_QUANT_BLOCK };
    float largest = 0;
    bool odd = false;
    int32_t q[N] = {0};
    for (int k = 0; k < N; k++) {
        largest = fabsf(x[k]) > largest ? fabsf(x[k]) : largest;
        odd |= !(fabsf(x[k]) < INFINITY);
    }
    if (odd) largest = NAN; /* whole numbers have no NaN, so the scale is one */
    const vec inverse = splat(largest > 0 ? BYTE_DOT_MOST / largest : 0);
    for (int k = 0; k < N && !odd; k += WIDTH) {
        ivec some = round_lanes(load(x + k) * inverse);
        memcpy(q + k, &some, sizeof some);
    }
    for (int k = 0; k < N; k++) { /* the division is of positive numbers, so it rounds down */
        int32_t high = (q[k] + 127 + 128 * BYTE_DOT_BASE) / BYTE_DOT_BASE - 128;
        out->high[at + k] = (int8_t)high;
        out->low[at + k] = (int8_t)(q[k] - BYTE_DOT_BASE * high);
    }
    for (int s = 0; s < N / CCA_SCALED; s++) {
        int32_t sum = 0;
        for (int k = 0; k < CCA_SCALED; k++) sum += q[s * CCA_SCALED + k];
        out->scale[at / CCA_SCALED + s] = largest / BYTE_DOT_MOST;
        out->sum[at / CCA_SCALED + s] = largest / BYTE_DOT_MOST * (float)sum;
    }
}

/* Behind the last value all is 0. */
static void byte_dot_x_convert(void *out, cca_dtype type, const float *x, int64_t n) {
    byte_dot_x *to = (byte_dot_x *)out;
    (void)type;
    for (int64_t i = 0; i < n; i += CCA_LARGE_BLOCK, to++) {
        if (n - i < CCA_LARGE_BLOCK) memset(to, 0, sizeof *to);
        for (int k = 0; k < cca_min(CCA_LARGE_BLOCK, n - i); k += CCA_QUANT_BLOCK) {
            byte_dot_round(to, k, x + i + k);
        }
    }
}

/* Products of signed bytes of at most 127, of which those of w are not negative unless `negative`:
 * lane i has those of the four values from 4 i on, summed. */
#if defined(__AVX2__) && CCA_SIMD_WIDTH == 8
INLINE __m256i dot_of_pairs(__m256i w, __m256i size, const int8_t *x, const bool negative) {
    __m256i b = _mm256_loadu_si256((const __m256i *)x);
    return _mm256_maddubs_epi16(size, negative ? _mm256_sign_epi8(b, w) : b);
}

INLINE ivec dot_of_fours(const int8_t *w, const int8_t *high, const int8_t *low,
                         const bool negative) {
    const __m256i a = _mm256_loadu_si256((const __m256i *)w);
    const __m256i size = negative ? _mm256_abs_epi8(a) : a;
    return (ivec)_mm256_add_epi32(
        _mm256_madd_epi16(dot_of_pairs(a, size, high, negative), _mm256_set1_epi16(BYTE_DOT_BASE)),
        _mm256_madd_epi16(dot_of_pairs(a, size, low, negative), _mm256_set1_epi16(1)));
}
#else
typedef int16_t pairs __attribute__((vector_size(WIDTH * 4)));

INLINE pairs load_pairs(const int8_t *x) {
    pairs v;
    memcpy(&v, x, sizeof v);
    return v;
}

/* Even and odd bytes: a product is at most 127², the sum of two fits 16 bits. */
INLINE ivec sum_fours(pairs a, pairs b) {
    pairs sums = (a << 8 >> 8) * (b << 8 >> 8) + (a >> 8) * (b >> 8);
    return ((ivec)sums << 16 >> 16) + ((ivec)sums >> 16);
}

INLINE ivec dot_of_fours(const int8_t *w, const int8_t *high, const int8_t *low,
                         const bool negative) {
    const pairs a = load_pairs(w);
    const ivec of_high = sum_fours(a, load_pairs(high));
    (void)negative;
    return (of_high << 8) - of_high + sum_fours(a, load_pairs(low)); /* 255 times the first */
}
#endif

/* Adds 256 products to two sums. Each lane's four values share a scale: a vector of scales becomes
 * four of them, with each scale in four lanes side by side. */
INLINE void byte_dot_add(vec *sum, const cca_apart *w, const byte_dot_x *x, const bool negative,
                         const bool minima) {
#pragma GCC unroll 4
    for (int s = 0; s < CCA_LARGE_BLOCK / CCA_SCALED; s += WIDTH) {
        const vec scale = load(w->scale + s) * load(x->scale + s);
        const vec low = zip_low(scale, scale), high = zip_high(scale, scale);
        const vec spread[4] = {zip_low(low, low), zip_high(low, low), zip_low(high, high),
                               zip_high(high, high)};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const int at = s * CCA_SCALED + i * 4 * WIDTH;
            ivec dot = dot_of_fours(w->q + at, x->high + at, x->low + at, negative);
            sum[i % 2] += __builtin_convertvector(dot, vec) * spread[i];
        }
        if (minima) sum[0] -= load(w->min + s) * load(x->sum + s);
    }
}

/* Takes the next values of a row apart, up to 256; n a constant after inlining. */
#define BYTE_DOT_LARGE(name)                                                                       \
    INLINE void name##_take(cca_apart *out, const void *w, int64_t block, int64_t n) {             \
        (void)n;                                                                                   \
        cca_apart_##name(out, 0, (const cca_##name *)w + block);                                   \
    }

#define BYTE_DOT_SMALL(name)                                                                       \
    INLINE void name##_take(cca_apart *out, const void *w, int64_t block, int64_t n) {             \
        const cca_##name *from =                                                                   \
            (const cca_##name *)w + block * (CCA_LARGE_BLOCK / CCA_SMALL_BLOCK);                   \
        int at = 0;                                                                                \
        for (; at < cca_min(CCA_LARGE_BLOCK, n); at += CCA_SMALL_BLOCK) {                          \
            cca_apart_##name(out, at, from++);                                                     \
        }                                                                                          \
        if (at == CCA_LARGE_BLOCK) return;                                                         \
        memset(out->q + at, 0, (size_t)(CCA_LARGE_BLOCK - at));                                    \
        for (; at < CCA_LARGE_BLOCK; at += CCA_SMALL_BLOCK) cca_scale_small(out, at, 0, 0);        \
    }

enum { BYTE_DOT_X = 4 }; /* rows of x that meet weights together */

/* The products of one row of weights with n_x ≤ BYTE_DOT_X rows of x. */
#define BYTE_DOT(name, negative, minima)                                                           \
    INLINE void name##_dot_row(float *out, int64_t ld_out, const char *x, size_t x_stride,         \
                               int64_t n_x, const void *w, int64_t n) {                            \
        vec sum[BYTE_DOT_X][2] = {0};                                                              \
        for (int64_t b = 0; b * CCA_LARGE_BLOCK < n; b++) {                                        \
            cca_apart apart;                                                                       \
            name##_take(&apart, w, b, n - b * CCA_LARGE_BLOCK);                                    \
            for (int64_t i = 0; i < n_x; i++) {                                                    \
                byte_dot_add(sum[i], &apart, (const byte_dot_x *)(x + (size_t)i * x_stride) + b,   \
                             negative, minima);                                                    \
            }                                                                                      \
        }                                                                                          \
        for (int64_t i = 0; i < n_x; i++) out[i * ld_out] += sum_lanes(sum[i][0] + sum[i][1]);     \
    }                                                                                              \
                                                                                                   \
    static void name##_dot(float *out, int64_t ld_out, const void *x, size_t x_stride,             \
                           int64_t n_x, cca_dtype type, const void *w, size_t w_stride,            \
                           int64_t n_w, int64_t n) {                                               \
        (void)type;                                                                                \
        for (int64_t j = 0; j < n_w; j++) {                                                        \
            const char *row = (const char *)w + (size_t)j * w_stride;                              \
            for (int64_t i = 0; i < n_x; i += BYTE_DOT_X) {                                        \
                const char *from = (const char *)x + (size_t)i * x_stride;                         \
                const int64_t some = cca_min(BYTE_DOT_X, n_x - i);                                 \
                if (some == 1) {                                                                   \
                    name##_dot_row(out + i * ld_out + j, ld_out, from, x_stride, 1, row, n);       \
                } else {                                                                           \
                    name##_dot_row(out + i * ld_out + j, ld_out, from, x_stride, some, row, n);    \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

BYTE_DOT_SMALL(q4_1)
BYTE_DOT_SMALL(q5_0)
BYTE_DOT_SMALL(q5_1)
BYTE_DOT_SMALL(iq4_nl)
BYTE_DOT_LARGE(q2_k)
BYTE_DOT_LARGE(q3_k)
BYTE_DOT_LARGE(q4_k)
BYTE_DOT_LARGE(q5_k)
BYTE_DOT_LARGE(q6_k)
BYTE_DOT_LARGE(iq4_xs)

BYTE_DOT(q4_1, false, true)
BYTE_DOT(q5_0, true, false)
BYTE_DOT(q5_1, false, true)
BYTE_DOT(iq4_nl, true, false)
BYTE_DOT(q2_k, false, true)
BYTE_DOT(q3_k, true, false)
BYTE_DOT(q4_k, false, true)
BYTE_DOT(q5_k, false, true)
BYTE_DOT(q6_k, true, false)
BYTE_DOT(iq4_xs, true, false)

#define BYTE_DOT_PRODUCTS(name)                                                                    \
    {                                                                                              \
        .x_bytes = byte_dot_x_bytes, .x_convert = byte_dot_x_convert, .dot = name##_dot,           \
        .peak = CCA_PEAK_BYTES                                                                     \
    }

/* Products of few rows with weights of a type; NULL where there are no others than of many. */
static const cca_products *byte_dot_products(cca_dtype type) {
    static const cca_products q4_1 = BYTE_DOT_PRODUCTS(q4_1), q5_0 = BYTE_DOT_PRODUCTS(q5_0),
                              q5_1 = BYTE_DOT_PRODUCTS(q5_1), iq4_nl = BYTE_DOT_PRODUCTS(iq4_nl),
                              q2_k = BYTE_DOT_PRODUCTS(q2_k), q3_k = BYTE_DOT_PRODUCTS(q3_k),
                              q4_k = BYTE_DOT_PRODUCTS(q4_k), q5_k = BYTE_DOT_PRODUCTS(q5_k),
                              q6_k = BYTE_DOT_PRODUCTS(q6_k), iq4_xs = BYTE_DOT_PRODUCTS(iq4_xs);
    switch (type) {
    case CCA_Q4_1: return &q4_1;
    case CCA_Q5_0: return &q5_0;
    case CCA_Q5_1: return &q5_1;
    case CCA_Q2_K: return &q2_k;
    case CCA_Q3_K: return &q3_k;
    case CCA_Q4_K: return &q4_k;
    case CCA_Q5_K: return &q5_k;
    case CCA_Q6_K: return &q6_k;
    case CCA_IQ4_NL: return &iq4_nl;
    case CCA_IQ4_XS: return &iq4_xs;
    default: return NULL;
    }
}
