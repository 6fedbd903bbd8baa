/* Each decoder walks the values of its blocks in order and says where the bits of value i stand.
 *
 * Blocks of 32: half a byte a value, values 0 … 15 in the low halves, 16 … 31 in the high ones.
 * Blocks of 256 (K): sub-blocks of 16 or 32 values have small integer scales of their own,
 * which f16 numbers of the block multiply. */
#include "backend/kquants.h"

#include "backend/half.h"

enum { SMALL = 32, LARGE = 256 };

/* ---- blocks of 32 ------------------------------------------------------------------- */

typedef struct block_q4_1 {
    uint16_t d, m;
    uint8_t q[SMALL / 2];
} block_q4_1;

typedef struct block_q5_0 {
    uint16_t d;
    uint8_t high[SMALL / 8]; /* the fifth bit of value i: bit i of these 32 */
    uint8_t q[SMALL / 2];
} block_q5_0;

typedef struct block_q5_1 {
    uint16_t d, m;
    uint8_t high[SMALL / 8];
    uint8_t q[SMALL / 2];
} block_q5_1;

static int low_four(const uint8_t *q, int i) {
    return i < SMALL / 2 ? q[i] & 15 : q[i - SMALL / 2] >> 4;
}

static int fifth_bit(const uint8_t *high, int i) {
    return (high[i / 8] >> (i % 8) & 1) << 4;
}

/* d q + m */
void cca_decode_q4_1(float *out, const void *in, int64_t n) {
    const block_q4_1 *b = in;
    for (; n > 0; n -= SMALL, out += SMALL, b++) {
        float d = cca_f16_to_f32(b->d), m = cca_f16_to_f32(b->m);
        for (int i = 0; i < SMALL; i++) out[i] = d * (float)low_four(b->q, i) + m;
    }
}

/* d (q - 16) */
void cca_decode_q5_0(float *out, const void *in, int64_t n) {
    const block_q5_0 *b = in;
    for (; n > 0; n -= SMALL, out += SMALL, b++) {
        float d = cca_f16_to_f32(b->d);
        for (int i = 0; i < SMALL; i++) {
            out[i] = d * (float)((low_four(b->q, i) | fifth_bit(b->high, i)) - 16);
        }
    }
}

/* d q + m */
void cca_decode_q5_1(float *out, const void *in, int64_t n) {
    const block_q5_1 *b = in;
    for (; n > 0; n -= SMALL, out += SMALL, b++) {
        float d = cca_f16_to_f32(b->d), m = cca_f16_to_f32(b->m);
        for (int i = 0; i < SMALL; i++) {
            out[i] = d * (float)(low_four(b->q, i) | fifth_bit(b->high, i)) + m;
        }
    }
}

/* ---- blocks of 256 ------------------------------------------------------------------ */

typedef struct block_q2_k {
    uint8_t scales[LARGE / 16]; /* of 16 values: scale in the low half, minimum in the high */
    uint8_t q[LARGE / 4];
    uint16_t d, min;
} block_q2_k;

typedef struct block_q3_k {
    uint8_t high[LARGE / 8]; /* the third bit of value i: bit i / 32 of byte i % 32 */
    uint8_t q[LARGE / 4];    /* the lower two */
    uint8_t scales[12];
    uint16_t d;
} block_q3_k;

typedef struct block_q4_k {
    uint16_t d, min;
    uint8_t scales[12];
    uint8_t q[LARGE / 2];
} block_q4_k;

typedef struct block_q5_k {
    uint16_t d, min;
    uint8_t scales[12];
    uint8_t high[LARGE / 8]; /* the fifth bit of value i: bit i / 32 of byte i % 32 */
    uint8_t q[LARGE / 2];
} block_q5_k;

typedef struct block_q6_k {
    uint8_t q[LARGE / 2];    /* the lower four bits */
    uint8_t high[LARGE / 4]; /* the upper two */
    int8_t scales[LARGE / 16];
    uint16_t d;
} block_q6_k;

/* Two bits: 128 values share 32 bytes, value i of them has its bits at 2 (i / 32) of byte
 * i % 32. */
static int two_bits(const uint8_t *q, int i) {
    return q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

/* Four bits: `span` values share span / 2 bytes, the first half of them the low halves. */
static int four_bits(const uint8_t *q, int i, int span) {
    int half = span / 2, byte = q[i / span * half + i % half];
    return i % span < half ? byte & 15 : byte >> 4;
}

static int one_bit(const uint8_t *high, int i) {
    return high[i % 32] >> (i / 32) & 1;
}

/* d scale q - min minimum */
void cca_decode_q2_k(float *out, const void *in, int64_t n) {
    const block_q2_k *b = in;
    for (; n > 0; n -= LARGE, out += LARGE, b++) {
        float d = cca_f16_to_f32(b->d), min = cca_f16_to_f32(b->min);
        for (int i = 0; i < LARGE; i++) {
            float scale = d * (float)(b->scales[i / 16] & 15);
            float minimum = min * (float)(b->scales[i / 16] >> 4);
            out[i] = scale * (float)two_bits(b->q, i) - minimum;
        }
    }
}

/* Sixteen scales of six bits, less 32: the lower four of scale s in bytes 0 … 7 (s % 8, low
 * halves first), the upper two in bytes 8 … 11 (s % 4, lowest pair first). */
static int q3_k_scale(const uint8_t *scales, int s) {
    int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
    int high = scales[8 + s % 4] >> (s / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

/* d scale (q - 4) */
void cca_decode_q3_k(float *out, const void *in, int64_t n) {
    const block_q3_k *b = in;
    for (; n > 0; n -= LARGE, out += LARGE, b++) {
        float d = cca_f16_to_f32(b->d);
        for (int i = 0; i < LARGE; i++) {
            int q = two_bits(b->q, i) | one_bit(b->high, i) << 2;
            out[i] = d * (float)q3_k_scale(b->scales, i / 16) * (float)(q - 4);
        }
    }
}

/* Eight scales and eight minima of six bits. The first four of each are the lower bits of bytes
 * 0 … 3 and 4 … 7; the last four have their lower bits in the halves of bytes 8 … 11 and their
 * upper two on top of the first ones. */
static void q4_k_scale(int *scale, int *minimum, const uint8_t *scales, int s) {
    if (s < 4) {
        *scale = scales[s] & 63;
        *minimum = scales[s + 4] & 63;
    } else {
        *scale = (scales[s + 4] & 15) | scales[s - 4] >> 6 << 4;
        *minimum = scales[s + 4] >> 4 | scales[s] >> 6 << 4;
    }
}

/* d scale q - min minimum, with the fifth bits of q in high, where there are any. */
static void decode_scaled(float *out, float d, float min, const uint8_t *scales, const uint8_t *q,
                          const uint8_t *high) {
    for (int s = 0; s < LARGE / 32; s++) {
        int scale, minimum;
        q4_k_scale(&scale, &minimum, scales, s);
        for (int i = s * 32; i < (s + 1) * 32; i++) {
            int value = four_bits(q, i, 64) | (high ? one_bit(high, i) << 4 : 0);
            out[i] = d * (float)scale * (float)value - min * (float)minimum;
        }
    }
}

void cca_decode_q4_k(float *out, const void *in, int64_t n) {
    const block_q4_k *b = in;
    for (; n > 0; n -= LARGE, out += LARGE, b++) {
        decode_scaled(out, cca_f16_to_f32(b->d), cca_f16_to_f32(b->min), b->scales, b->q, NULL);
    }
}

void cca_decode_q5_k(float *out, const void *in, int64_t n) {
    const block_q5_k *b = in;
    for (; n > 0; n -= LARGE, out += LARGE, b++) {
        decode_scaled(out, cca_f16_to_f32(b->d), cca_f16_to_f32(b->min), b->scales, b->q, b->high);
    }
}

/* d scale (q - 32) */
void cca_decode_q6_k(float *out, const void *in, int64_t n) {
    const block_q6_k *b = in;
    for (; n > 0; n -= LARGE, out += LARGE, b++) {
        float d = cca_f16_to_f32(b->d);
        for (int i = 0; i < LARGE; i++) {
            int q = four_bits(b->q, i, 128) | two_bits(b->high, i) << 4;
            const int8_t *scale = &b->scales[i / 16];
            out[i] = d * (float)*scale * (float)(q - 32);
        }
    }
}
