/* Vectors of sixteen floats; products with bf16 weights by dot products of bf16 pairs, with q8_0
 * and q4_0 weights by dot products of bytes (VNNI). For these x is rounded: to bf16, or to 8 bits
 * with a scale for each 32 values. Needs AVX-512 F, BW, DQ, VL, VNNI and BF16 (Zen 4, Sapphire
 * Rapids and later). */
#define CCA_SIMD_WIDTH  16
#define CCA_SIMD_TOKENS 12
#include "kernels/simd.h"

#include <immintrin.h>

enum {
    BLOCK = CCA_QUANT_BLOCK,
    WORDS = BLOCK / 4, /* 32-bit words of a block of bytes */
    BYTE_TOKENS = 6,   /* rows of x in a tile of byte products */
};

/* ---- bf16 ---------------------------------------------------------------------------- */

/* x and weights as pairs of bf16, each pair a 32-bit word; an odd last value is paired with 0. */
static size_t bf16_x_bytes(int64_t n) {
    return (size_t)(n + 1) / 2 * sizeof(uint32_t);
}

static void bf16_x_convert(void *out, const float *x, int64_t n) {
    uint16_t *to = out;
    for (int64_t i = 0; i < n; i++) to[i] = cca_f32_to_bf16(x[i]);
    if (n % 2 != 0) to[n] = 0;
}

/* Words are moved as if they were floats: the panel is that of f32 with half as many columns. */
static void bf16_pack(float *panel, const char *w, size_t w_stride, int64_t n_w, int64_t n) {
    float rows[WIDTH][PACK_DEPTH];
    int64_t n_words = (n + 1) / 2;
    for (int64_t r = 0; r < n_w; r += WIDTH) {
        float *to = panel + r / PAIR * PAIR * n_words + r % PAIR;
        for (int64_t k = 0, some; k < n_words; k += some) {
            some = cca_min(PACK_DEPTH, n_words - k);
            size_t bytes = (size_t)(cca_min(n, 2 * (k + some)) - 2 * k) * sizeof(uint16_t);
            for (int64_t i = 0; i < WIDTH; i++) {
                const char *from = w + (size_t)cca_min(r + i, n_w - 1) * w_stride;
                rows[i][some - 1] = 0;
                memcpy(rows[i], from + (size_t)k * sizeof(uint32_t), bytes);
            }
            pack_columns(to + k * PAIR, rows, some);
        }
    }
}

INLINE __m512i word_of(const void *x, int64_t at) {
    int32_t word;
    memcpy(&word, (const char *)x + (size_t)at * sizeof word, sizeof word);
    return _mm512_set1_epi32(word);
}

/* out += the sums of two vectors of weight rows, of which n_w are written. */
INLINE void add_columns(float *out, __m512 low, __m512 high, int64_t n_w) {
    __mmask32 mask = n_w >= PAIR ? ~0u : (1u << n_w) - 1;
    __mmask16 first = (__mmask16)mask, second = (__mmask16)(mask >> WIDTH);
    __m512 a = _mm512_maskz_loadu_ps(first, out), b = _mm512_maskz_loadu_ps(second, out + WIDTH);
    _mm512_mask_storeu_ps(out, first, _mm512_add_ps(a, low));
    _mm512_mask_storeu_ps(out + WIDTH, second, _mm512_add_ps(b, high));
}

INLINE void bf16_tile(float *out, int64_t ld_out, const char *x, size_t x_stride, const int n_x,
                      const float *panel, int64_t n_w, int64_t n_words) {
    __m512 sum[TOKENS][2];
#pragma GCC unroll 12
    for (int i = 0; i < n_x; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    for (int64_t k = 0; k < n_words; k++) {
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
    for (int i = 0; i < n_x; i++) add_columns(out + i * ld_out, sum[i][0], sum[i][1], n_w);
}

static void bf16_multiply(float *out, int64_t ld_out, const char *x, size_t x_stride, int64_t n_x,
                          const float *panel, int64_t n_w, int64_t n) {
    int64_t i = 0, n_words = (n + 1) / 2;
    for (; i + TOKENS <= n_x; i += TOKENS) {
        bf16_tile(out + i * ld_out, ld_out, x + (size_t)i * x_stride, x_stride, TOKENS, panel, n_w,
                  n_words);
    }
    for (; i < n_x; i++) {
        bf16_tile(out + i * ld_out, ld_out, x + (size_t)i * x_stride, x_stride, 1, panel, n_w,
                  n_words);
    }
}

INLINE __m512bh bf16_load(const void *p, int64_t n) {
    __mmask32 mask = n >= 32 ? ~0u : (1u << n) - 1;
    return (__m512bh)_mm512_maskz_loadu_epi16(mask, p);
}

static void bf16_dot(float *out, int64_t ld_out, const char *x, size_t x_stride, int64_t n_x,
                     const char *w, size_t w_stride, int64_t n_w, int64_t n) {
    for (int64_t j = 0; j < n_w; j++) {
        const uint16_t *row = (const uint16_t *)(w + (size_t)j * w_stride);
        for (int64_t i = 0; i < n_x; i++) {
            const uint16_t *values = (const uint16_t *)(x + (size_t)i * x_stride);
            __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
            for (int64_t k = 0; k < n; k += 64) {
                sum[0] = _mm512_dpbf16_ps(sum[0], bf16_load(values + k, n - k),
                                          bf16_load(row + k, n - k));
                if (k + 32 >= n) break;
                sum[1] = _mm512_dpbf16_ps(sum[1], bf16_load(values + k + 32, n - k - 32),
                                          bf16_load(row + k + 32, n - k - 32));
            }
            out[i * ld_out + j] += _mm512_reduce_add_ps(_mm512_add_ps(sum[0], sum[1]));
        }
    }
}

/* ---- bytes --------------------------------------------------------------------------- */

/* 32 values of x: scale * (q - 128). The product instruction wants one side unsigned; the 128
 * is taken out again with the sum of the weights. */
typedef struct byte_x {
    float scale;
    uint8_t q[BLOCK];
} byte_x;

/* 32 columns of a panel: byte quadruples of PAIR rows side by side, scales, and -128 times the sum
 * of each row's bytes, which sums start from. */
typedef struct byte_panel {
    float scale[PAIR];
    int32_t start[PAIR];
    int32_t words[WORDS][PAIR];
} byte_panel;

static void byte_x_convert(byte_x *out, const float *x, int64_t n) {
    for (int64_t b = 0; b < n / BLOCK; b++, x += BLOCK) {
        float largest = 0;
        for (int k = 0; k < BLOCK; k++) largest = fmaxf(largest, fabsf(x[k]));
        float inverse = largest > 0 ? 127 / largest : 0;
        out[b].scale = largest / 127;
        for (int k = 0; k < BLOCK; k++) {
            out[b].q[k] = (uint8_t)(128 + (int)nearbyintf(x[k] * inverse));
        }
    }
}

/* The 32 signed bytes and the scale of a block of weights. */
INLINE __m256i byte_load(float *scale, cca_dtype type, const char *w, int64_t block) {
    if (type == CCA_Q8_0) {
        const cca_q8_0 *in = (const cca_q8_0 *)w + block;
        *scale = cca_f16_to_f32(in->scale);
        return _mm256_loadu_si256((const __m256i *)in->q);
    }
    const cca_q4_0 *in = (const cca_q4_0 *)w + block;
    *scale = cca_f16_to_f32(in->scale);
    __m128i both = _mm_loadu_si128((const __m128i *)in->q), mask = _mm_set1_epi8(15);
    __m128i low = _mm_and_si128(both, mask);
    __m128i high = _mm_and_si128(_mm_srli_epi16(both, 4), mask);
    return _mm256_sub_epi8(_mm256_set_m128i(high, low), _mm256_set1_epi8(8));
}

INLINE int32_t sum_of_words(__m256i v) {
    __m128i x = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
}

static void byte_pack(byte_panel *panel, cca_dtype type, const char *w, size_t w_stride,
                      int64_t n_w, int64_t n) {
    const __m256i half = _mm256_set1_epi8((char)128);
    for (int64_t b = 0; b < n / BLOCK; b++, panel++) {
        for (int64_t r = 0; r < PAIR; r++) {
            int32_t words[WORDS];
            const char *row = w + (size_t)cca_min(r, n_w - 1) * w_stride;
            __m256i q = byte_load(&panel->scale[r], type, row, b);
            panel->start[r] = -sum_of_words(_mm256_dpbusd_epi32(_mm256_setzero_si256(), half, q));
            _mm256_storeu_si256((__m256i *)words, q);
            for (int k = 0; k < WORDS; k++) panel->words[k][r] = words[k];
        }
    }
}

INLINE void byte_tile(float *out, int64_t ld_out, const char *x, size_t x_stride, const int n_x,
                      const byte_panel *panel, int64_t n_w, int64_t n_blocks) {
    __m512 sum[BYTE_TOKENS][2];
#pragma GCC unroll 6
    for (int i = 0; i < n_x; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    for (int64_t b = 0; b < n_blocks; b++, panel++) {
        __m512i part[BYTE_TOKENS][2];
        const __m512i start_low = _mm512_loadu_si512(panel->start);
        const __m512i start_high = _mm512_loadu_si512(panel->start + WIDTH);
#pragma GCC unroll 6
        for (int i = 0; i < n_x; i++) part[i][0] = start_low, part[i][1] = start_high;
#pragma GCC unroll 8
        for (int k = 0; k < WORDS; k++) {
            const __m512i low = _mm512_loadu_si512(panel->words[k]);
            const __m512i high = _mm512_loadu_si512(panel->words[k] + WIDTH);
#pragma GCC unroll 6
            for (int i = 0; i < n_x; i++) {
                const byte_x *values = (const byte_x *)(x + (size_t)i * x_stride) + b;
                const __m512i word = word_of(values->q, k);
                part[i][0] = _mm512_dpbusd_epi32(part[i][0], word, low);
                part[i][1] = _mm512_dpbusd_epi32(part[i][1], word, high);
            }
        }
        const __m512 scale_low = _mm512_loadu_ps(panel->scale);
        const __m512 scale_high = _mm512_loadu_ps(panel->scale + WIDTH);
#pragma GCC unroll 6
        for (int i = 0; i < n_x; i++) {
            const byte_x *values = (const byte_x *)(x + (size_t)i * x_stride) + b;
            const __m512 scale = _mm512_set1_ps(values->scale);
            sum[i][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[i][0]),
                                        _mm512_mul_ps(scale, scale_low), sum[i][0]);
            sum[i][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[i][1]),
                                        _mm512_mul_ps(scale, scale_high), sum[i][1]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < n_x; i++) add_columns(out + i * ld_out, sum[i][0], sum[i][1], n_w);
}

static void byte_multiply(float *out, int64_t ld_out, const char *x, size_t x_stride, int64_t n_x,
                          const byte_panel *panel, int64_t n_w, int64_t n) {
    int64_t i = 0;
    for (; i + BYTE_TOKENS <= n_x; i += BYTE_TOKENS) {
        byte_tile(out + i * ld_out, ld_out, x + (size_t)i * x_stride, x_stride, BYTE_TOKENS, panel,
                  n_w, n / BLOCK);
    }
    for (; i < n_x; i++) {
        byte_tile(out + i * ld_out, ld_out, x + (size_t)i * x_stride, x_stride, 1, panel, n_w,
                  n / BLOCK);
    }
}

/* One row of weights after the other, as they lie in the file. */
static void byte_dot(float *out, int64_t ld_out, const char *x, size_t x_stride, int64_t n_x,
                     cca_dtype type, const char *w, size_t w_stride, int64_t n_w, int64_t n) {
    const __m256i half = _mm256_set1_epi8((char)128), zero = _mm256_setzero_si256();
    for (int64_t j = 0; j < n_w; j++) {
        const char *row = w + (size_t)j * w_stride;
        for (int64_t i = 0; i < n_x; i++) {
            const byte_x *values = (const byte_x *)(x + (size_t)i * x_stride);
            __m256 sum = _mm256_setzero_ps();
            for (int64_t b = 0; b < n / BLOCK; b++) {
                float scale;
                __m256i q = byte_load(&scale, type, row, b);
                __m256i word = _mm256_loadu_si256((const __m256i *)values[b].q);
                __m256i part = _mm256_sub_epi32(_mm256_dpbusd_epi32(zero, word, q),
                                                _mm256_dpbusd_epi32(zero, half, q));
                sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(part),
                                      _mm256_set1_ps(scale * values[b].scale), sum);
            }
            float lanes[8], total = 0;
            _mm256_storeu_ps(lanes, sum);
            for (int k = 0; k < 8; k++) total += lanes[k];
            out[i * ld_out + j] += total;
        }
    }
}

#include "kernels/avx512_attend.h"

static void attend(const cca_attend_args *args, int64_t head, int64_t n_heads, int64_t row,
                   int64_t n, float *scratch) {
    if (bf16_attends(&args->keys->raw)) {
        bf16_attention(args, head, n_heads, row, n, scratch);
    } else {
        f32_attend(args, head, n_heads, row, n, scratch);
    }
}

/* ---- by type ------------------------------------------------------------------------- */

static size_t x_bytes(cca_dtype type, int64_t n) {
    if (type == CCA_BF16) return bf16_x_bytes(n);
    if (type == CCA_Q8_0 || type == CCA_Q4_0) return (size_t)(n / BLOCK) * sizeof(byte_x);
    return f32_x_bytes(type, n);
}

static void x_convert(void *out, cca_dtype type, const float *x, int64_t n) {
    if (type == CCA_BF16) {
        bf16_x_convert(out, x, n);
    } else {
        byte_x_convert(out, x, n);
    }
}

static size_t panel_bytes(cca_dtype type, int64_t n) {
    if (type == CCA_Q8_0 || type == CCA_Q4_0) return (size_t)(n / BLOCK) * sizeof(byte_panel);
    return f32_panel_bytes(type, n);
}

static void pack(void *panel, cca_dtype type, const void *w, size_t w_stride, int64_t n_w,
                 int64_t n) {
    if (type == CCA_BF16) {
        bf16_pack(panel, w, w_stride, n_w, n);
    } else if (type == CCA_Q8_0 || type == CCA_Q4_0) {
        byte_pack(panel, type, w, w_stride, n_w, n);
    } else {
        f32_pack(panel, type, w, w_stride, n_w, n);
    }
}

static void multiply(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                     cca_dtype type, const void *panel, int64_t n_w, int64_t n) {
    if (type == CCA_BF16) {
        bf16_multiply(out, ld_out, x, x_stride, n_x, panel, n_w, n);
    } else if (type == CCA_Q8_0 || type == CCA_Q4_0) {
        byte_multiply(out, ld_out, x, x_stride, n_x, panel, n_w, n);
    } else {
        f32_multiply(out, ld_out, x, x_stride, n_x, type, panel, n_w, n);
    }
}

static void dot(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                cca_dtype type, const void *w, size_t w_stride, int64_t n_w, int64_t n) {
    if (type == CCA_BF16) {
        bf16_dot(out, ld_out, x, x_stride, n_x, w, w_stride, n_w, n);
    } else if (type == CCA_Q8_0 || type == CCA_Q4_0) {
        byte_dot(out, ld_out, x, x_stride, n_x, type, w, w_stride, n_w, n);
    } else {
        f32_dot(out, ld_out, x, x_stride, n_x, type, w, w_stride, n_w, n);
    }
}

static double spin(float *sink, cca_peak kind, int64_t turns) {
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

const cca_kernels cca_kernels_avx512 = {
    CCA_SIMD_KERNELS("avx512"),
    .x_bytes = x_bytes,
    .x_convert = x_convert,
    .panel_bytes = panel_bytes,
    .pack = pack,
    .multiply = multiply,
    .dot = dot,
    .attend = attend,
    .spin = spin,
};
