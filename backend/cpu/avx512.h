/* The one source of the variants with AVX-512, included by avx512.c and amx.c: all but their
 * tables. Vectors of sixteen floats; products with bf16 weights by dot products of bf16 pairs, with
 * weights in blocks by dot products of bytes (VNNI). For these x is rounded: to bf16, or to 8 bits
 * with a scale for each 32 values. Needs AVX-512 F, BW, DQ, VL, VNNI and BF16 (Zen 4, Sapphire
 * Rapids and later). */
#define CCA_SIMD_WIDTH  16
#define CCA_SIMD_TOKENS 12
#include "backend/cpu/simd.h"

#include <immintrin.h>
#include <stddef.h>

enum {
    BLOCK = CCA_QUANT_BLOCK,
    WORDS = BLOCK / 4, /* 32-bit words of a block of bytes */
    BYTE_TOKENS = 6,   /* rows of x in a tile of byte products */
    AHEAD = 8192,      /* bytes from where weights are read once to where they are prefetched */
};

/* The sums over the lanes of each of WIDTH vectors. */
INLINE vec sum_each(vec *v) {
#pragma GCC unroll 4
    for (int half = WIDTH / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < half; i++) {
            v[i] = zip_low(v[i], v[i + half]) + zip_high(v[i], v[i + half]);
        }
    }
    return v[0];
}

/* ---- bf16 ---------------------------------------------------------------------------- */

/* x and weights as pairs of bf16, each pair a 32-bit word; an odd last value is paired with 0. */
static size_t bf16_x_bytes(cca_dtype type, int64_t n) {
    (void)type;
    return (size_t)(n + 1) / 2 * sizeof(uint32_t);
}

static void bf16_x_convert(void *out, cca_dtype type, const float *x, int64_t n) {
    uint16_t *to = out;
    (void)type;
    for (int64_t i = 0; i < n; i++) to[i] = cca_f32_to_bf16(x[i]);
    if (n % 2 != 0) to[n] = 0;
}

INLINE __mmask32 first_of(int64_t n) {
    return n >= 32 ? ~0u : (1u << n) - 1;
}

/* Words are moved as if they were floats: the panel is that of f32 with half as many columns. */
static void bf16_pack(void *panel, cca_dtype type, const void *w, size_t w_stride, int64_t n_w,
                      int64_t n) {
    int64_t n_words = (n + 1) / 2;
    (void)type;
    for (int64_t row = 0; row < n_w; row += WIDTH) {
        float *to = (float *)panel + row / PAIR * PAIR * n_words + row % PAIR;
        for (int64_t k = 0; k < n_words; k += WIDTH) {
            vec v[WIDTH];
            __mmask32 mask = first_of(n - 2 * k);
#pragma GCC unroll 16
            for (int r = 0; r < WIDTH; r++) {
                const char *from = (const char *)w + (size_t)cca_min(row + r, n_w - 1) * w_stride;
                v[r] = (vec)_mm512_maskz_loadu_epi16(mask, from + (size_t)k * sizeof(float));
            }
            transpose(v);
            for (int r = 0; r < cca_min(WIDTH, n_words - k); r++) store(to + (k + r) * PAIR, v[r]);
        }
    }
}

INLINE __m512i word_of(const void *x, int64_t at) {
    int32_t word;
    memcpy(&word, (const char *)x + (size_t)at * sizeof word, sizeof word);
    return _mm512_set1_epi32(word);
}

/* Rows of outputs, which lie far apart, are fetched while their sums are made. */
INLINE void prefetch_columns(const float *out, int64_t ld_out, const int n_x) {
#pragma GCC unroll 12
    for (int i = 0; i < n_x; i++) {
        _mm_prefetch((const char *)(out + i * ld_out), _MM_HINT_T0);
        _mm_prefetch((const char *)(out + i * ld_out + PAIR - 1), _MM_HINT_T0);
    }
}

/* A cache line of each row of x behind the n_x that are being multiplied. */
INLINE void prefetch_rows(const char *x, size_t x_stride, const int n_x) {
#pragma GCC unroll 12
    for (int i = 0; i < n_x; i++) {
        _mm_prefetch(x + (size_t)(n_x + i) * x_stride, _MM_HINT_T0);
    }
}

/* out = or += the sums of two vectors of weight rows, of which n_w are written. */
INLINE void put_columns(float *out, __m512 low, __m512 high, int64_t n_w, bool add) {
    __mmask32 mask = n_w >= PAIR ? ~0u : (1u << n_w) - 1;
    __mmask16 first = (__mmask16)mask, second = (__mmask16)(mask >> WIDTH);
    if (add) {
        low = _mm512_add_ps(low, _mm512_maskz_loadu_ps(first, out));
        high = _mm512_add_ps(high, _mm512_maskz_loadu_ps(second, out + WIDTH));
    }
    _mm512_mask_storeu_ps(out, first, low);
    _mm512_mask_storeu_ps(out + WIDTH, second, high);
}

INLINE void bf16_tile(float *out, int64_t ld_out, const char *x, size_t x_stride, const int n_x,
                      const float *panel, int64_t n_w, int64_t n_words, bool add) {
    __m512 sum[TOKENS][2];
    prefetch_columns(out, ld_out, n_x);
#pragma GCC unroll 12
    for (int i = 0; i < n_x; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    for (int64_t k = 0; k < n_words; k++) {
        if (k % WIDTH == 0) prefetch_rows(x + (size_t)k * sizeof(float), x_stride, n_x);
        __m512bh low = (__m512bh)_mm512_loadu_ps(panel + k * PAIR);
        __m512bh high = (__m512bh)_mm512_loadu_ps(panel + k * PAIR + WIDTH);
#pragma GCC unroll 12
        for (int i = 0; i < n_x; i++) {
            __m512bh pair = (__m512bh)word_of(x + (size_t)i * x_stride, k);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], pair, low);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], pair, high);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < n_x; i++) put_columns(out + i * ld_out, sum[i][0], sum[i][1], n_w, add);
}

static void bf16_multiply(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                          cca_dtype type, const void *panel, int64_t n_w, int64_t n, bool add) {
    const char *rows = x;
    int64_t i = 0, n_words = (n + 1) / 2;
    (void)type;
    for (; i + TOKENS <= n_x; i += TOKENS) {
        bf16_tile(out + i * ld_out, ld_out, rows + (size_t)i * x_stride, x_stride, TOKENS, panel,
                  n_w, n_words, add);
    }
    for (; i + 4 <= n_x; i += 4) {
        bf16_tile(out + i * ld_out, ld_out, rows + (size_t)i * x_stride, x_stride, 4, panel, n_w,
                  n_words, add);
    }
    for (; i < n_x; i++) {
        bf16_tile(out + i * ld_out, ld_out, rows + (size_t)i * x_stride, x_stride, 1, panel, n_w,
                  n_words, add);
    }
}

INLINE __m512 bf16_dot_row(const char *x, const char *w, int64_t n) {
    __m512 sum[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) sum[i] = _mm512_setzero_ps();
    for (; n >= 128; n -= 128, x += 256, w += 256) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            _mm_prefetch(w + 64 * i + AHEAD, _MM_HINT_T0);
            sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)_mm512_loadu_si512(x + 64 * i),
                                      (__m512bh)_mm512_loadu_si512(w + 64 * i));
        }
    }
    for (; n > 0; n -= 32, x += 64, w += 64) {
        sum[0] = _mm512_dpbf16_ps(sum[0], (__m512bh)_mm512_maskz_loadu_epi16(first_of(n), x),
                                  (__m512bh)_mm512_maskz_loadu_epi16(first_of(n), w));
    }
    return _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
}

/* ---- bytes --------------------------------------------------------------------------- */

/* Eight blocks of x: scale * q each. Blocks come in pairs whose words alternate, so that one
 * vector holds both; behind an odd last block all is 0. The product instruction wants one side
 * unsigned, so an offset is added to the weights' bytes (byte_offset); sums start from what that
 * adds too much. */
enum { X_PAIRS = 4 };

typedef struct byte_x {
    int32_t words[X_PAIRS][WORDS][2];
    float scale[X_PAIRS][2];
    int32_t start[X_PAIRS][2]; /* minus the offset times the sum of q */
} byte_x;

static size_t byte_x_bytes(cca_dtype type, int64_t n) {
    (void)type;
    return (size_t)((n / BLOCK + 2 * X_PAIRS - 1) / (2 * X_PAIRS)) * sizeof(byte_x);
}

/* 32 columns of a panel: scales, and unsigned byte quadruples of PAIR rows side by side. */
typedef struct byte_panel {
    float scale[PAIR];
    int32_t words[WORDS][PAIR];
} byte_panel;

static size_t byte_panel_bytes(cca_dtype type, int64_t n) {
    (void)type;
    return (size_t)(n / BLOCK) * sizeof(byte_panel);
}

INLINE int32_t byte_offset(cca_dtype type) {
    return type == CCA_Q4_0 ? 8 : 128;
}

/* Whether a vector has a value that is infinite or no number: the comparison is "not less, or not
 * to be compared". */
INLINE bool has_odd(__m512 v) {
    return _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(INFINITY), _CMP_NLT_UQ) != 0;
}

/* A block's bytes, their scale and their sum; bytes have no NaN, so there the scale is one. */
INLINE __m256i byte_round(float *scale, int32_t *sum, const float *x) {
    __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + WIDTH);
    if (has_odd(low) || has_odd(high)) {
        *scale = NAN;
        *sum = 0;
        return _mm256_setzero_si256();
    }
    float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
    __m512 inverse = _mm512_set1_ps(largest > 0 ? 127 / largest : 0);
    __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
    __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    *scale = largest / 127;
    *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
    return _mm256_set_m128i(_mm512_cvtepi32_epi8(b), _mm512_cvtepi32_epi8(a));
}

static void byte_x_convert(void *out, cca_dtype type, const float *x, int64_t n) {
    const __m512i alternate =
        _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int64_t b = 0; b < n / BLOCK; b += 2) {
        byte_x *to = (byte_x *)out + b / (2 * X_PAIRS);
        int64_t pair = b / 2 % X_PAIRS;
        __m256i q[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int h = 0; h < 2; h++) {
            int32_t sum = 0;
            to->scale[pair][h] = 0;
            if (b + h < n / BLOCK) {
                q[h] = byte_round(&to->scale[pair][h], &sum, x + (b + h) * BLOCK);
            }
            to->start[pair][h] = -byte_offset(type) * sum;
        }
        _mm512_storeu_si512(to->words[pair],
                            _mm512_permutex2var_epi32(_mm512_castsi256_si512(q[0]), alternate,
                                                      _mm512_castsi256_si512(q[1])));
    }
}

/* The 32 bytes of a block of weights plus the offset, and their scale, an f16. */
INLINE __m256i byte_load(uint16_t *scale, cca_dtype type, const char *w, int64_t block) {
    if (type == CCA_Q8_0) {
        const cca_q8_0 *in = (const cca_q8_0 *)w + block;
        *scale = in->scale;
        return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)in->q),
                                _mm256_set1_epi8((char)128));
    }
    const cca_q4_0 *in = (const cca_q4_0 *)w + block;
    *scale = in->scale;
    __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)in->q));
    both = _mm256_srlv_epi64(both, _mm256_set_epi64x(4, 4, 0, 0));
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

/* WIDTH rows of two blocks: words side by side. */
INLINE void byte_pack_blocks(byte_panel *panel, cca_dtype type, const char *const *rows, int64_t b,
                             int64_t second, int64_t at) {
    vec v[WIDTH];
    uint16_t scales[2][WIDTH];
#pragma GCC unroll 16
    for (int r = 0; r < WIDTH; r++) {
        __m256i low = byte_load(&scales[0][r], type, rows[at + r], b);
        __m256i high = byte_load(&scales[1][r], type, rows[at + r], second);
        v[r] = (vec)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    transpose(v);
    for (int64_t i = 0; i <= second - b; i++) {
        __m256i halves = _mm256_loadu_si256((const __m256i *)scales[i]);
        _mm512_storeu_ps(panel[b + i].scale + at, _mm512_cvtph_ps(halves));
        for (int k = 0; k < WORDS; k++) {
            store((float *)panel[b + i].words[k] + at, v[i * WORDS + k]);
        }
    }
}

INLINE void byte_pack(byte_panel *panel, cca_dtype type, const char *w, size_t w_stride,
                      int64_t n_w, int64_t n) {
    const char *rows[PAIR];
    for (int64_t r = 0; r < PAIR; r++) rows[r] = w + (size_t)cca_min(r, n_w - 1) * w_stride;
    for (int64_t b = 0; b < n / BLOCK; b += 2) {
        for (int64_t at = 0; at < PAIR; at += WIDTH) {
            byte_pack_blocks(panel, type, rows, b, cca_min(b + 1, n / BLOCK - 1), at);
        }
    }
}

INLINE void byte_tile(float *out, int64_t ld_out, const char *x, size_t x_stride, const int n_x,
                      const byte_panel *panel, int64_t n_w, int64_t n_blocks, bool add) {
    __m512 sum[BYTE_TOKENS][2];
    prefetch_columns(out, ld_out, n_x);
#pragma GCC unroll 6
    for (int i = 0; i < n_x; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_blocks; b++, panel++) {
        __m512i part[BYTE_TOKENS][2];
        const char *at = x + (size_t)(b / (2 * X_PAIRS)) * sizeof(byte_x);
        const int64_t pair = b / 2 % X_PAIRS, h = b % 2;
        prefetch_rows(at + (h ? offsetof(byte_x, scale) : (size_t)pair * 64), x_stride, n_x);
#pragma GCC unroll 6
        for (int i = 0; i < n_x; i++) {
            const byte_x *values = (const byte_x *)(at + (size_t)i * x_stride);
            part[i][0] = part[i][1] = _mm512_set1_epi32(values->start[pair][h]);
        }
#pragma GCC unroll 8
        for (int k = 0; k < WORDS; k++) {
            const __m512i low = _mm512_loadu_si512(panel->words[k]);
            const __m512i high = _mm512_loadu_si512(panel->words[k] + WIDTH);
#pragma GCC unroll 6
            for (int i = 0; i < n_x; i++) {
                const byte_x *values = (const byte_x *)(at + (size_t)i * x_stride);
                const __m512i word = _mm512_set1_epi32(values->words[pair][k][h]);
                part[i][0] = _mm512_dpbusd_epi32(part[i][0], low, word);
                part[i][1] = _mm512_dpbusd_epi32(part[i][1], high, word);
            }
        }
        const __m512 scale_low = _mm512_loadu_ps(panel->scale);
        const __m512 scale_high = _mm512_loadu_ps(panel->scale + WIDTH);
#pragma GCC unroll 6
        for (int i = 0; i < n_x; i++) {
            const byte_x *values = (const byte_x *)(at + (size_t)i * x_stride);
            const __m512 scale = _mm512_set1_ps(values->scale[pair][h]);
            sum[i][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[i][0]),
                                        _mm512_mul_ps(scale, scale_low), sum[i][0]);
            sum[i][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[i][1]),
                                        _mm512_mul_ps(scale, scale_high), sum[i][1]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < n_x; i++) put_columns(out + i * ld_out, sum[i][0], sum[i][1], n_w, add);
}

static void byte_multiply(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                          cca_dtype type, const void *panel, int64_t n_w, int64_t n, bool add) {
    const char *rows = x;
    int64_t i = 0;
    (void)type;
    for (; i + BYTE_TOKENS <= n_x; i += BYTE_TOKENS) {
        byte_tile(out + i * ld_out, ld_out, rows + (size_t)i * x_stride, x_stride, BYTE_TOKENS,
                  panel, n_w, n / BLOCK, add);
    }
    for (; i < n_x; i++) {
        byte_tile(out + i * ld_out, ld_out, rows + (size_t)i * x_stride, x_stride, 1, panel, n_w,
                  n / BLOCK, add);
    }
}

/* Two blocks of weights: the first 64 bytes (q8_0) or 32 (q4_0), and the four behind them. */
typedef struct byte_pair {
    __m512i low, high;
} byte_pair;

/* The second block is not there unless `both`: then it is 0. */
INLINE byte_pair byte_read(cca_dtype type, const char *w, const bool both) {
    const __m512i high = both ? word_of(w, type == CCA_Q8_0 ? 16 : 8) : _mm512_setzero_si512();
    const __mmask64 block = (UINT64_C(1) << sizeof(cca_q8_0)) - 1;
    if (type == CCA_Q8_0) {
        return (byte_pair){both ? _mm512_loadu_si512(w) : _mm512_maskz_loadu_epi8(block, w), high};
    }
    const __m256i low = both ? _mm256_loadu_si256((const __m256i *)w)
                             : _mm256_maskz_loadu_epi16((1u << sizeof(cca_q4_0) / 2) - 1, w);
    return (byte_pair){_mm512_zextsi256_si512(low), high};
}

/* Their bytes plus the offset. Lanes alternate between the blocks, as x's do. */
INLINE __m512i byte_values(cca_dtype type, byte_pair w) {
    if (type == CCA_Q8_0) {
        const __m512i order =
            _mm512_set_epi16(33, 32, 16, 15, 31, 30, 14, 13, 29, 28, 12, 11, 27, 26, 10, 9, 25, 24,
                             8, 7, 23, 22, 6, 5, 21, 20, 4, 3, 19, 18, 2, 1);
        return _mm512_xor_si512(_mm512_permutex2var_epi16(w.low, order, w.high),
                                _mm512_set1_epi8((char)128));
    }
    const __m512i order = _mm512_set_epi16(33, 32, 8, 7, 15, 14, 6, 5, 13, 12, 4, 3, 11, 10, 2, 1,
                                           33, 32, 8, 7, 15, 14, 6, 5, 13, 12, 4, 3, 11, 10, 2, 1);
    const __m512i halves = _mm512_set_epi64(4, 4, 4, 4, 0, 0, 0, 0);
    return _mm512_and_si512(
        _mm512_srlv_epi64(_mm512_permutex2var_epi16(w.low, order, w.high), halves),
        _mm512_set1_epi8(15));
}

/* sum += the blocks' products with x. */
INLINE __m512 byte_dot_pair(__m512 sum, const byte_x *x, int64_t pair, cca_dtype type,
                            byte_pair w) {
    const __m512i second = _mm512_set1_epi32(type == CCA_Q8_0 ? 17 << 16 : 9 << 16);
    const __m256i halves = _mm512_castsi512_si256(_mm512_permutexvar_epi16(second, w.low));
    double scales;
    memcpy(&scales, x->scale[pair], sizeof scales);
    const __m512 scale =
        _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_castpd_ps(_mm512_set1_pd(scales)));
    const __m512i start = _mm512_zextsi128_si512(_mm_loadl_epi64((const __m128i *)x->start[pair]));
    const __m512i part =
        _mm512_dpbusd_epi32(start, byte_values(type, w), _mm512_loadu_si512(x->words[pair]));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(part), scale, sum);
}

/* One row of weights times one of x. */
INLINE __m512 byte_dot_row(const byte_x *x, cca_dtype type, const char *w, int64_t n_blocks) {
    const size_t size = 2 * (type == CCA_Q8_0 ? sizeof(cca_q8_0) : sizeof(cca_q4_0));
    __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (; n_blocks >= 2 * X_PAIRS; n_blocks -= 2 * X_PAIRS, x++) {
#pragma GCC unroll 4
        for (int k = 0; k < X_PAIRS; k++, w += size) {
            _mm_prefetch(w + AHEAD, _MM_HINT_T0);
            sum[k % 2] = byte_dot_pair(sum[k % 2], x, k, type, byte_read(type, w, true));
        }
    }
    for (int k = 0; n_blocks > 0; k++, n_blocks -= 2, w += size) {
        byte_pair some = n_blocks > 1 ? byte_read(type, w, true) : byte_read(type, w, false);
        sum[0] = byte_dot_pair(sum[0], x, k, type, some);
    }
    return _mm512_add_ps(sum[0], sum[1]);
}

#include "backend/cpu/avx512_kquants.h"

#include "backend/cpu/avx512_attend.h"

/* ---- few tokens ---------------------------------------------------------------------- */

INLINE __m512 dot_row(cca_dtype type, const char *x, const char *w, int64_t n) {
    if (type == CCA_BF16) return bf16_dot_row(x, w, n);
    if (type == CCA_Q8_0 || type == CCA_Q4_0) {
        return byte_dot_row((const byte_x *)x, type, w, n / BLOCK);
    }
    return large_dot_row((const large_x *)x, type, w, n);
}

/* One row of weights after the other, as they lie in the file: memory likes one stream best. Sums
 * over the lanes are made for WIDTH rows together. */
INLINE void dot_rows(float *out, int64_t ld_out, const char *x, size_t x_stride, int64_t n_x,
                     cca_dtype type, const char *w, size_t w_stride, int64_t n_w, int64_t n) {
    for (int64_t j = 0; j < n_w; j += WIDTH, w += WIDTH * w_stride) {
        int64_t some = cca_min(WIDTH, n_w - j);
        for (int64_t i = 0; i < n_x; i++) {
            vec sum[WIDTH] = {0};
            for (int64_t r = 0; r < some; r++) {
                sum[r] = (vec)dot_row(type, x + (size_t)i * x_stride, w + (size_t)r * w_stride, n);
            }
            float *to = out + i * ld_out + j;
            __mmask16 mask = (__mmask16)first_of(some);
            _mm512_mask_storeu_ps(to, mask,
                                  _mm512_maskz_loadu_ps(mask, to) + (__m512)sum_each(sum));
        }
    }
}

/* ---- by type ------------------------------------------------------------------------- */

/* Kernels of one type of weights: from its constant on all of it is inlined. */
#define OF_TYPE(name, type)                                                                        \
    static void name##_dot(float *out, int64_t ld_out, const void *x, size_t x_stride,             \
                           int64_t n_x, cca_dtype own, const void *w, size_t w_stride,             \
                           int64_t n_w, int64_t n) {                                               \
        (void)own;                                                                                 \
        dot_rows(out, ld_out, x, x_stride, n_x, type, w, w_stride, n_w, n);                        \
    }

#define BYTES_OF_TYPE(name, type, packing)                                                         \
    OF_TYPE(name, type)                                                                            \
    static void name##_pack(void *panel, cca_dtype own, const void *w, size_t w_stride,            \
                            int64_t n_w, int64_t n) {                                              \
        (void)own;                                                                                 \
        packing(panel, type, w, w_stride, n_w, n);                                                 \
    }

OF_TYPE(bf16, CCA_BF16)
BYTES_OF_TYPE(q8_0, CCA_Q8_0, byte_pack)
BYTES_OF_TYPE(q4_0, CCA_Q4_0, byte_pack)
BYTES_OF_TYPE(q4_1, CCA_Q4_1, large_pack)
BYTES_OF_TYPE(q5_0, CCA_Q5_0, large_pack)
BYTES_OF_TYPE(q5_1, CCA_Q5_1, large_pack)
BYTES_OF_TYPE(iq4_nl, CCA_IQ4_NL, large_pack)
BYTES_OF_TYPE(q2_k, CCA_Q2_K, large_pack)
BYTES_OF_TYPE(q3_k, CCA_Q3_K, large_pack)
BYTES_OF_TYPE(q4_k, CCA_Q4_K, large_pack)
BYTES_OF_TYPE(q5_k, CCA_Q5_K, large_pack)
BYTES_OF_TYPE(q6_k, CCA_Q6_K, large_pack)
BYTES_OF_TYPE(iq4_xs, CCA_IQ4_XS, large_pack)

/* Products of a type's many and few rows of x, which differ in the form of x for some. */
typedef struct product_pair {
    cca_products many, few;
} product_pair;

#define MANY_BYTES(name, rounding)                                                                 \
    {                                                                                              \
        byte_x_bytes, byte_x_convert, byte_panel_bytes, name##_pack, byte_multiply, name##_dot,    \
            CCA_PEAK_BYTES, rounding                                                               \
    }
#define SMALL_BYTES(name)                                                                          \
    { MANY_BYTES(name, false), MANY_BYTES(name, false) }
#define LARGE_BYTES(name, type)                                                                    \
    {                                                                                              \
        MANY_BYTES(name, ZERO_BYTE(type) < 0), {                                                   \
            .x_bytes = large_x_bytes, .x_convert = large_x_convert, .dot = name##_dot,             \
            .peak = CCA_PEAK_BYTES                                                                 \
        }                                                                                          \
    }

/* A line for each type with products in bytes. */
static const product_pair *in_bytes(cca_dtype type) {
    static const product_pair q8_0 = SMALL_BYTES(q8_0), q4_0 = SMALL_BYTES(q4_0),
                              q4_1 = LARGE_BYTES(q4_1, CCA_Q4_1),
                              q5_0 = LARGE_BYTES(q5_0, CCA_Q5_0),
                              q5_1 = LARGE_BYTES(q5_1, CCA_Q5_1),
                              iq4_nl = LARGE_BYTES(iq4_nl, CCA_IQ4_NL),
                              q2_k = LARGE_BYTES(q2_k, CCA_Q2_K),
                              q3_k = LARGE_BYTES(q3_k, CCA_Q3_K),
                              q4_k = LARGE_BYTES(q4_k, CCA_Q4_K),
                              q5_k = LARGE_BYTES(q5_k, CCA_Q5_K),
                              q6_k = LARGE_BYTES(q6_k, CCA_Q6_K),
                              iq4_xs = LARGE_BYTES(iq4_xs, CCA_IQ4_XS);
    switch (type) {
    case CCA_Q8_0: return &q8_0;
    case CCA_Q4_0: return &q4_0;
    case CCA_Q4_1: return &q4_1;
    case CCA_Q5_0: return &q5_0;
    case CCA_Q5_1: return &q5_1;
    case CCA_IQ4_NL: return &iq4_nl;
    case CCA_Q2_K: return &q2_k;
    case CCA_Q3_K: return &q3_k;
    case CCA_Q4_K: return &q4_k;
    case CCA_Q5_K: return &q5_k;
    case CCA_Q6_K: return &q6_k;
    case CCA_IQ4_XS: return &iq4_xs;
    default: return NULL;
    }
}

static const cca_products *products(cca_dtype type) {
    static const cca_products bf16 = {bf16_x_bytes,  bf16_x_convert, f32_panel_bytes, bf16_pack,
                                      bf16_multiply, bf16_dot,       CCA_PEAK_BF16,   false};
    if (type == CCA_BF16) return &bf16;
    const product_pair *bytes = in_bytes(type);
    return bytes ? &bytes->many : f32_products(type);
}

static const cca_products *few(cca_dtype type) {
    const product_pair *bytes = in_bytes(type);
    return bytes ? &bytes->few : products(type);
}

/* Whether keys and values of a type are multiplied in bf16: those whose products are not in f32. */
static bool in_bf16(cca_dtype type) {
    return products(type)->peak != CCA_PEAK_F32;
}

/* Rows of one span may be of other types than those of the next. */
static bool all_in_bf16(const cca_spans *spans) {
    for (int i = 0; i < spans->n; i++) {
        const cca_rows *rows = &spans->at[i].rows;
        if (!in_bf16(rows->k_type) || !in_bf16(rows->v_type)) return false;
    }
    return true;
}

/* In bf16, packed tiles as a variant adds them, or in f32. */
static void attend_by(const cca_attend_args *args, int64_t head, int64_t n_heads, int64_t row,
                      int64_t n, float *scratch, add_packed_fn add_packed) {
    if (all_in_bf16(args->spans)) {
        bf16_attention(args, head, n_heads, row, n, scratch, add_packed);
    } else {
        f32_attend(args, head, n_heads, row, n, scratch);
    }
}

static double avx512_spin(float *sink, cca_peak kind, int64_t turns) {
    if (kind == CCA_PEAK_F32) return f32_spin(sink, kind, turns);
    __m512 sum[SPIN_SUMS];
    __m512i part[SPIN_SUMS];
    const __m512i ones = _mm512_set1_epi8(1);
#pragma GCC unroll 12
    for (int i = 0; i < SPIN_SUMS; i++) {
        part[i] = _mm512_set1_epi32(i);
        sum[i] = _mm512_set1_ps((float)i); /* each its own, lest the compiler merge them */
    }
    for (int64_t t = 0; t < turns; t++) {
#pragma GCC unroll 12
        for (int i = 0; i < SPIN_SUMS; i++) {
            if (kind == CCA_PEAK_BF16) {
                sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)ones, (__m512bh)ones);
            } else {
                part[i] = _mm512_dpbusd_epi32(part[i], ones, ones);
            }
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < SPIN_SUMS; i++) {
        store(sink + i * WIDTH, (vec)_mm512_add_ps(sum[i], _mm512_cvtepi32_ps(part[i])));
    }
    return (kind == CCA_PEAK_BF16 ? 4.0 : 8.0) * WIDTH * SPIN_SUMS * (double)turns;
}
