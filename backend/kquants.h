/* Blocks of few bits a value, as llama.cpp has them: its older types and iq4_nl with 32 values a
 * block, K-quants and iq4_xs with 256. What the bits of a type mean is said once, by the function
 * that takes a block apart:
 *
 *     cca_apart a;
 *     cca_apart_q4_k(&a, 0, (const cca_q4_k *)tensor->data);
 *     float x = a.scale[i / 16] * (float)a.q[i] - a.min[i / 16];        // value i
 *     cca_decode_q4_k(row, tensor->data, 4096);                        // a row of them
 *
 * A scale is the product of an f16 number and a small integer. Scales and values have so few bits
 * that a scale times a value is exact in a float: what comes out has the same bits with fused
 * multiply-add and without, and those of llama.cpp.
 *
 * Functions are inline, so that each kernel variant compiles them with its own instructions, and a
 * GPU those that it takes blocks apart with. Blocks are aligned to two bytes, n is a multiple of
 * the block. */
#ifndef CCA_KQUANTS_H
#define CCA_KQUANTS_H

#include "backend/half.h"

#include <stdbool.h>
#include <string.h>
#ifdef __SSSE3__
#include <tmmintrin.h>
#endif

enum {
    CCA_SMALL_BLOCK = 32,
    CCA_LARGE_BLOCK = 256,
    CCA_SCALED = 16, /* values that share a scale, at least */
};

/* A large block's values, or those of several small ones side by side; min is 0 where the type has
 * none. */
typedef struct cca_apart {
    int8_t q[CCA_LARGE_BLOCK];
    float scale[CCA_LARGE_BLOCK / CCA_SCALED], min[CCA_LARGE_BLOCK / CCA_SCALED];
} cca_apart;

/* ---- blocks of 32: half a byte a value, the first 16 in the low halves ---------------- */

typedef struct cca_q4_1 {
    uint16_t d, min;
    uint8_t q[CCA_SMALL_BLOCK / 2];
} cca_q4_1;

typedef struct cca_q5_0 {
    uint16_t d;
    uint8_t high[CCA_SMALL_BLOCK / 8]; /* the fifth bit of value i: bit i of these 32 */
    uint8_t q[CCA_SMALL_BLOCK / 2];
} cca_q5_0;

typedef struct cca_q5_1 {
    uint16_t d, min;
    uint8_t high[CCA_SMALL_BLOCK / 8];
    uint8_t q[CCA_SMALL_BLOCK / 2];
} cca_q5_1;

typedef struct cca_iq4_nl {
    uint16_t d;
    uint8_t q[CCA_SMALL_BLOCK / 2];
} cca_iq4_nl;

/* A small block is put where its value 0 becomes value `at`. */
CCA_HALF void cca_scale_small(cca_apart *out, int at, float d, float min) {
    for (int s = at / CCA_SCALED; s < (at + CCA_SMALL_BLOCK) / CCA_SCALED; s++) {
        out->scale[s] = d;
        out->min[s] = min;
    }
}

/* n bytes' low halves, then their high ones. */
CCA_HALF void cca_halves(int8_t *__restrict__ out, const uint8_t *__restrict__ in, int n) {
    for (int k = 0; k < n; k++) {
        out[k] = (int8_t)(in[k] & 15);
        out[n + k] = (int8_t)(in[k] >> 4);
    }
}

/* The same of 16 bytes, as two words. */
CCA_HALF void cca_halves_of_16(int8_t *out, const uint8_t *in) {
    const uint64_t low = UINT64_C(0x0f0f0f0f0f0f0f0f);
    uint64_t both[2];
    memcpy(both, in, sizeof both);
    const uint64_t halves[4] = {both[0] & low, both[1] & low, both[0] >> 4 & low,
                                both[1] >> 4 & low};
    memcpy(out, halves, sizeof halves);
}

/* Adds 16 to each of 32 values whose bit is set, eight at a time: a byte of the mask keeps its own
 * bit of eight copies, and becomes 128 or more where that is there. */
CCA_HALF void cca_fifth_bits(int8_t *q, const uint8_t *high) {
    const uint64_t ones = UINT64_C(0x0101010101010101), own = UINT64_C(0x8040201008040201);
    for (int i = 0; i < CCA_SMALL_BLOCK / 8; i++) {
        uint64_t eight, set = ((high[i] * ones & own) + 127 * ones) >> 3 & 16 * ones;
        memcpy(&eight, q + 8 * i, sizeof eight);
        eight |= set;
        memcpy(q + 8 * i, &eight, sizeof eight);
    }
}

/* d q - min; the file has the minimum's negative. */
static inline void cca_apart_q4_1(cca_apart *__restrict__ out, int at,
                                  const cca_q4_1 *__restrict__ in) {
    /* cppcheck-suppress ctuuninitvar ; only its place is taken */
    int8_t *q = out->q + at;
    cca_halves_of_16(q, in->q);
    cca_scale_small(out, at, cca_f16_to_f32(in->d), -cca_f16_to_f32(in->min));
}

/* d (q - 16) */
static inline void cca_apart_q5_0(cca_apart *__restrict__ out, int at,
                                  const cca_q5_0 *__restrict__ in) {
    /* cppcheck-suppress ctuuninitvar ; only its place is taken */
    int8_t *q = out->q + at;
    cca_halves_of_16(q, in->q);
    cca_fifth_bits(q, in->high);
    for (int k = 0; k < CCA_SMALL_BLOCK; k++) q[k] = (int8_t)(q[k] - 16);
    cca_scale_small(out, at, cca_f16_to_f32(in->d), 0);
}

/* d q - min; the file has the minimum's negative. */
CCA_HALF void cca_apart_q5_1(cca_apart *__restrict__ out, int at, const cca_q5_1 *__restrict__ in) {
    /* cppcheck-suppress ctuuninitvar ; only its place is taken */
    int8_t *q = out->q + at;
    cca_halves_of_16(q, in->q);
    cca_fifth_bits(q, in->high);
    cca_scale_small(out, at, cca_f16_to_f32(in->d), -cca_f16_to_f32(in->min));
}

/* In place of n times four bits, n a multiple of 16, the values that they stand for in iq4_nl and
 * iq4_xs. */
static inline void cca_iq4_values(int8_t *q, int n) {
    static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
#ifdef __SSSE3__
    const __m128i table = _mm_loadu_si128((const __m128i *)values);
    for (int k = 0; k < n; k += 16) {
        __m128i *at = (__m128i *)(q + k);
        _mm_storeu_si128(at, _mm_shuffle_epi8(table, _mm_loadu_si128(at)));
    }
#else
    for (int k = 0; k < n; k++) q[k] = values[q[k]];
#endif
}

/* d value(q) */
static inline void cca_apart_iq4_nl(cca_apart *__restrict__ out, int at,
                                    const cca_iq4_nl *__restrict__ in) {
    /* cppcheck-suppress ctuuninitvar ; only its place is taken */
    int8_t *q = out->q + at;
    cca_halves_of_16(q, in->q);
    cca_iq4_values(q, CCA_SMALL_BLOCK);
    cca_scale_small(out, at, cca_f16_to_f32(in->d), 0);
}

/* ---- blocks of 256 ------------------------------------------------------------------- */

typedef struct cca_q2_k {
    uint8_t scales[CCA_LARGE_BLOCK / 16]; /* of 16 values: the low half; the high: the minimum */
    uint8_t q[CCA_LARGE_BLOCK / 4];
    uint16_t d, min;
} cca_q2_k;

typedef struct cca_q3_k {
    uint8_t high[CCA_LARGE_BLOCK / 8]; /* the third bit of value i: bit i / 32 of byte i % 32 */
    uint8_t q[CCA_LARGE_BLOCK / 4];    /* the lower two */
    uint8_t scales[12];
    uint16_t d;
} cca_q3_k;

typedef struct cca_q4_k {
    uint16_t d, min;
    uint8_t scales[12];
    uint8_t q[CCA_LARGE_BLOCK / 2];
} cca_q4_k;

typedef struct cca_q5_k {
    uint16_t d, min;
    uint8_t scales[12];
    uint8_t high[CCA_LARGE_BLOCK / 8]; /* the fifth bit of value i: bit i / 32 of byte i % 32 */
    uint8_t q[CCA_LARGE_BLOCK / 2];
} cca_q5_k;

typedef struct cca_q6_k {
    uint8_t q[CCA_LARGE_BLOCK / 2];    /* the lower four bits */
    uint8_t high[CCA_LARGE_BLOCK / 4]; /* the upper two */
    int8_t scales[CCA_LARGE_BLOCK / 16];
    uint16_t d;
} cca_q6_k;

typedef struct cca_iq4_xs {
    uint16_t d;
    uint8_t scales_high[2], scales_low[CCA_LARGE_BLOCK / 64];
    uint8_t q[CCA_LARGE_BLOCK / 2];
} cca_iq4_xs;

/* Two bits a value: 128 values share 32 bytes, the first 32 of them the lowest bits. */
CCA_HALF void cca_quarters(int8_t *__restrict__ out, const uint8_t *__restrict__ in) {
    for (int part = 0; part < 2; part++, out += 128, in += 32) {
        for (int k = 0; k < 32; k++) {
            out[k] = (int8_t)(in[k] & 3);
            out[32 + k] = (int8_t)(in[k] >> 2 & 3);
            out[64 + k] = (int8_t)(in[k] >> 4 & 3);
            out[96 + k] = (int8_t)(in[k] >> 6);
        }
    }
}

/* Adds a number to each of 256 values whose bit is set: bit i / 32 of byte i % 32. */
static inline void cca_add_where(int8_t *__restrict__ q, const uint8_t *__restrict__ bits,
                                 int8_t number) {
    for (int part = 0; part < 8; part++, q += 32) {
        uint8_t bit = (uint8_t)(1 << part);
        for (int k = 0; k < 32; k++) q[k] = (int8_t)(q[k] + (bits[k] & bit ? number : 0));
    }
}

static inline void cca_add_to_all(int8_t *q, int8_t number) {
    for (int k = 0; k < CCA_LARGE_BLOCK; k++) q[k] = (int8_t)(q[k] + number);
}

/* d scale q - min minimum */
static inline void cca_apart_q2_k(cca_apart *__restrict__ out, int at,
                                  const cca_q2_k *__restrict__ in) {
    (void)at; /* 0 */
    float d = cca_f16_to_f32(in->d), min = cca_f16_to_f32(in->min);
    cca_quarters(out->q, in->q);
    for (int s = 0; s < CCA_LARGE_BLOCK / 16; s++) {
        out->scale[s] = d * (float)(in->scales[s] & 15);
        out->min[s] = min * (float)(in->scales[s] >> 4);
    }
}

/* d scale (q - 4). Sixteen scales of six bits, less 32: the lower four of scale s in bytes 0 … 7
 * (s % 8, low halves first), the upper two in bytes 8 … 11 (s % 4, lowest pair first). */
static inline void cca_apart_q3_k(cca_apart *__restrict__ out, int at,
                                  const cca_q3_k *__restrict__ in) {
    (void)at; /* 0 */
    float d = cca_f16_to_f32(in->d);
    cca_quarters(out->q, in->q);
    cca_add_where(out->q, in->high, 4);
    cca_add_to_all(out->q, -4);
    for (int s = 0; s < CCA_LARGE_BLOCK / 16; s++) {
        int low = in->scales[s % 8] >> (s / 8 * 4) & 15;
        int high = in->scales[8 + s % 4] >> (s / 4 * 2) & 3;
        out->scale[s] = d * (float)((low | high << 4) - 32);
        out->min[s] = 0;
    }
}

/* Eight scales and eight minima of six bits. The first four of each are the lower bits of bytes
 * 0 … 3 and 4 … 7; the last four have their lower bits in the halves of bytes 8 … 11 and their
 * upper two on top of the first ones. */
static inline void cca_scale_eight(cca_apart *__restrict__ out, uint16_t d, uint16_t min,
                                   const uint8_t *__restrict__ scales) {
    float of_scales = cca_f16_to_f32(d), of_minima = cca_f16_to_f32(min);
    for (int s = 0; s < 4; s++) {
        int low = scales[s], high = scales[s + 4], last = scales[s + 8];
        float first_scale = of_scales * (float)(low & 63),
              first_min = of_minima * (float)(high & 63);
        float scale = of_scales * (float)((last & 15) | low >> 6 << 4);
        float minimum = of_minima * (float)(last >> 4 | high >> 6 << 4);
        out->scale[2 * s] = out->scale[2 * s + 1] = first_scale;
        out->min[2 * s] = out->min[2 * s + 1] = first_min;
        out->scale[2 * s + 8] = out->scale[2 * s + 9] = scale;
        out->min[2 * s + 8] = out->min[2 * s + 9] = minimum;
    }
}

static inline void cca_halves_by_64(int8_t *__restrict__ out, const uint8_t *__restrict__ in) {
    for (int part = 0; part < CCA_LARGE_BLOCK / 64; part++) {
        cca_halves(out + 64 * part, in + 32 * part, 32);
    }
}

/* d scale q - min minimum */
static inline void cca_apart_q4_k(cca_apart *__restrict__ out, int at,
                                  const cca_q4_k *__restrict__ in) {
    (void)at; /* 0 */
    cca_halves_by_64(out->q, in->q);
    cca_scale_eight(out, in->d, in->min, in->scales);
}

static inline void cca_apart_q5_k(cca_apart *__restrict__ out, int at,
                                  const cca_q5_k *__restrict__ in) {
    (void)at; /* 0 */
    cca_halves_by_64(out->q, in->q);
    cca_add_where(out->q, in->high, 16);
    cca_scale_eight(out, in->d, in->min, in->scales);
}

/* d scale (q - 32). Of each 128 values the lower four bits are 64 bytes, the first 64 values in the
 * low halves. */
CCA_HALF void cca_apart_q6_k(cca_apart *__restrict__ out, int at, const cca_q6_k *__restrict__ in) {
    (void)at; /* 0 */
    float d = cca_f16_to_f32(in->d);
    int8_t upper[CCA_LARGE_BLOCK];
    cca_quarters(upper, in->high);
    for (int part = 0; part < CCA_LARGE_BLOCK / 128; part++) {
        cca_halves(out->q + 128 * part, in->q + 64 * part, 64);
    }
    for (int k = 0; k < CCA_LARGE_BLOCK; k++) {
        out->q[k] = (int8_t)(out->q[k] + 16 * upper[k] - 32);
    }
    for (int s = 0; s < CCA_LARGE_BLOCK / 16; s++) {
        out->scale[s] = d * (float)in->scales[s];
        out->min[s] = 0;
    }
}

/* d scale value(q): eight scales of six bits, less 32, the lower four in one array of halves, the
 * upper two in the other. */
static inline void cca_apart_iq4_xs(cca_apart *__restrict__ out, int at,
                                    const cca_iq4_xs *__restrict__ in) {
    (void)at; /* 0 */
    float d = cca_f16_to_f32(in->d);
    for (int part = 0; part < CCA_LARGE_BLOCK / 32; part++) {
        cca_halves_of_16(out->q + 32 * part, in->q + 16 * part);
    }
    cca_iq4_values(out->q, CCA_LARGE_BLOCK);
    for (int s = 0; s < CCA_LARGE_BLOCK / 32; s++) {
        int low = in->scales_low[s / 2] >> (s % 2 * 4) & 15;
        int high = in->scales_high[s / 4] >> (s % 4 * 2) & 3;
        out->scale[2 * s] = out->scale[2 * s + 1] = d * (float)((low | high << 4) - 32);
        out->min[2 * s] = out->min[2 * s + 1] = 0;
    }
}

/* ---- rows ---------------------------------------------------------------------------- */

/* n values of a block, a constant after inlining as is whether there are minima. */
static inline void cca_together(float *out, const cca_apart *in, int n, bool minima) {
    for (int s = 0; s < n / CCA_SCALED; s++) {
        const int8_t *q = in->q + s * CCA_SCALED;
        float *to = out + s * CCA_SCALED, scale = in->scale[s], min = in->min[s];
        for (int k = 0; k < CCA_SCALED; k++) {
            float x = scale * (float)q[k];
            to[k] = minima ? x - min : x;
        }
    }
}

#define CCA_DECODER(name, block, minima)                                                           \
    static inline void cca_decode_##name(float *out, const void *in, int64_t n) {                  \
        const cca_##name *b = (const cca_##name *)in;                                              \
        for (int64_t i = 0; i < n / (block); i++) {                                                \
            cca_apart a;                                                                           \
            cca_apart_##name(&a, 0, &b[i]);                                                        \
            cca_together(out + i * (block), &a, block, minima);                                    \
        }                                                                                          \
    }

CCA_DECODER(q4_1, CCA_SMALL_BLOCK, true)
CCA_DECODER(q5_0, CCA_SMALL_BLOCK, false)
CCA_DECODER(q5_1, CCA_SMALL_BLOCK, true)
CCA_DECODER(iq4_nl, CCA_SMALL_BLOCK, false)
CCA_DECODER(q2_k, CCA_LARGE_BLOCK, true)
CCA_DECODER(q3_k, CCA_LARGE_BLOCK, false)
CCA_DECODER(q4_k, CCA_LARGE_BLOCK, true)
CCA_DECODER(q5_k, CCA_LARGE_BLOCK, true)
CCA_DECODER(q6_k, CCA_LARGE_BLOCK, false)
CCA_DECODER(iq4_xs, CCA_LARGE_BLOCK, false)

#endif
