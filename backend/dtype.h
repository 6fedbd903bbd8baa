/* The table of number types: those of weights and caches, and the others that a GGUF file may name.
 * Nobody else knows a type by its name: whether it runs, has blocks or an encoder, may be a cache
 * is asked here.
 *
 *     const cca_dtype_facts *t = cca_dtype_find(tensor->type);
 *     if (!t || !t->runs) ...
 *     size_t bytes;
 *     if (!cca_dtype_row_bytes(&bytes, CCA_Q8_0, 4096)) ...   // 4096 / 32 * 34
 *     cca_dtype_encode(row, CCA_Q8_0, x, 4096);
 *     cca_dtype_decode(y, CCA_Q8_0, row, 4096);
 *
 * Q8_0: 32 values share an f16 scale d, value = d * q, q in -127 … 127.
 * Q4_0: 32 values share an f16 scale d, value = d * (q - 8), q in 0 … 15; byte k of a
 * block holds value k in its low half and value k + 16 in its high half.
 * The bits of the other types with blocks are described in kquants.h.
 * The conversions here are the plain ones that kernels are compared with. */
#ifndef CCA_DTYPE_H
#define CCA_DTYPE_H

#include "backend/half.h"
#include "backend/kquants.h"
#include "base/base.h"

#include <math.h>
#include <string.h>

/* With GGUF's numbers. */
typedef enum cca_dtype {
    CCA_F32 = 0,
    CCA_F16 = 1,
    CCA_Q4_0 = 2,
    CCA_Q4_1 = 3,
    CCA_Q5_0 = 6,
    CCA_Q5_1 = 7,
    CCA_Q8_0 = 8,
    CCA_Q2_K = 10,
    CCA_Q3_K = 11,
    CCA_Q4_K = 12,
    CCA_Q5_K = 13,
    CCA_Q6_K = 14,
    CCA_IQ4_NL = 20,
    CCA_IQ4_XS = 23,
    CCA_BF16 = 30,
} cca_dtype;

enum { CCA_QUANT_BLOCK = 32 };

typedef struct cca_q8_0 {
    uint16_t scale;
    int8_t q[CCA_QUANT_BLOCK];
} cca_q8_0;

typedef struct cca_q4_0 {
    uint16_t scale;
    uint8_t q[CCA_QUANT_BLOCK / 2];
} cca_q4_0;

/* A row of the table. */
typedef struct cca_dtype_facts {
    uint32_t id;      /* a cca_dtype, or another number of the format */
    const char *name; /* as the format spells it: "Q8_0" */
    int64_t block;    /* values that share their scales; 1: a value stands alone */
    size_t block_bytes;
    const char *lower; /* as options and messages do, of a type that runs: "q8_0" */
    /* n values to float, n floats to values; n is a multiple of the block. decode: NULL where a
     * type is known by its size alone; encode: NULL where nothing here makes it. */
    void (*decode)(float *out, const void *in, int64_t n);
    void (*encode)(void *out, const float *in, int64_t n);
    bool runs;          /* kernels multiply with weights of it, as they are */
    bool caches;        /* kernels keep keys and values in it */
    bool is_sought;     /* encode seeks scales: for weights, too slow for a cache */
    float limit;        /* of a type that runs: the least magnitude that it, or the scale of its
                           block, rounds to infinity; infinity itself without encode */
    cca_dtype in_place; /* of one that runs: what takes its place in rows that its blocks do not
                           fit, at last one without blocks */
    cca_dtype alike;    /* of one with to_alike: what its blocks become with the same values q; */
    void (*to_alike)(void *out, const void *in, int64_t n); /* n values of them (kquants_encode.h);
                           NULL where there is none */
    uint32_t file_type; /* of a type that runs: llama.cpp's number for "mostly of this type" */
    size_t halves[2];   /* of one that runs, without encode or is_sought: where a block's f16
                           numbers are, twice the same where it is one */
} cca_dtype_facts;

/* Row i of the table, those that run first; NULL behind the last. */
const cca_dtype_facts *cca_dtype_at(int i);

/* By GGUF's number; NULL if there is none. */
const cca_dtype_facts *cca_dtype_find(uint32_t id);

/* Whether weights of it run as they are; whether export reads tensors of it: vectors (of one
 * dimension) only without blocks. False for a number that is none. */
bool cca_dtype_runs(uint32_t id);
bool cca_dtype_converts(uint32_t id, bool vector);

/* Its name in lower case; never NULL. */
const char *cca_dtype_name(cca_dtype type);

/* Finds a type that runs by its name, lower or upper case; false if there is none. */
bool cca_dtype_parse(cca_dtype *out, const char *name);

/* Number of values in a block, 1 for a type without blocks. */
int64_t cca_dtype_block(cca_dtype type);

/* Bytes of a row of n values; false if n < 0, no multiple of the block, or too large. */
bool cca_dtype_row_bytes(size_t *out, cca_dtype type, int64_t n);

/* n values to float, n floats to values (rounded to nearest, ties to even for f16 and
 * bf16), of a type that can be decoded or encoded. n is a multiple of the block. */
void cca_dtype_decode(float *out, cca_dtype type, const void *in, int64_t n);
void cca_dtype_encode(void *out, cca_dtype type, const float *in, int64_t n);

/* n values of a type that can be decoded as values of another: with the same q in blocks of the
 * type that is alike, else through floats and cca_dtype_encode. n is a multiple of both blocks. */
void cca_dtype_convert(void *out, cca_dtype to, const void *in, cca_dtype from, int64_t n);

/* Whether none of n values of a type that can be decoded is infinite or no number. */
bool cca_dtype_all_finite(cca_dtype type, const void *in, int64_t n);

/* n random values of a type that runs, of magnitudes up to about 1, to try kernels with. n is a
 * multiple of the block; state: of base/random.h. */
void cca_dtype_fill(void *out, cca_dtype type, int64_t n, uint64_t *state);

/* The rows of the types that run, inline so that each kernel variant compiles them with its own
 * instructions; elsewhere call cca_dtype_decode and cca_dtype_encode. */

static inline void cca_decode_f32(float *out, const void *in, int64_t n) {
    memcpy(out, in, (size_t)n * sizeof *out);
}

static inline void cca_decode_f16(float *out, const void *in, int64_t n) {
    const uint16_t *h = (const uint16_t *)in;
    for (int64_t i = 0; i < n; i++) out[i] = cca_f16_to_f32(h[i]);
}

static inline void cca_decode_bf16(float *out, const void *in, int64_t n) {
    const uint16_t *h = (const uint16_t *)in;
    for (int64_t i = 0; i < n; i++) out[i] = cca_bf16_to_f32(h[i]);
}

static inline void cca_decode_q8_0(float *out, const void *in, int64_t n) {
    const cca_q8_0 *block = (const cca_q8_0 *)in;
    for (int64_t b = 0; b < n / CCA_QUANT_BLOCK; b++) {
        float d = cca_f16_to_f32(block[b].scale);
        for (int k = 0; k < CCA_QUANT_BLOCK; k++) {
            out[b * CCA_QUANT_BLOCK + k] = d * (float)block[b].q[k];
        }
    }
}

static inline void cca_decode_q4_0(float *out, const void *in, int64_t n) {
    const cca_q4_0 *block = (const cca_q4_0 *)in;
    for (int64_t b = 0; b < n / CCA_QUANT_BLOCK; b++) {
        float d = cca_f16_to_f32(block[b].scale);
        float *row = out + b * CCA_QUANT_BLOCK;
        for (int k = 0; k < CCA_QUANT_BLOCK / 2; k++) {
            row[k] = d * (float)((block[b].q[k] & 15) - 8);
            row[k + CCA_QUANT_BLOCK / 2] = d * (float)((block[b].q[k] >> 4) - 8);
        }
    }
}

static inline void cca_row_decode(float *out, cca_dtype type, const void *in, int64_t n) {
    switch (type) {
    case CCA_F32: cca_decode_f32(out, in, n); break;
    case CCA_F16: cca_decode_f16(out, in, n); break;
    case CCA_BF16: cca_decode_bf16(out, in, n); break;
    case CCA_Q8_0: cca_decode_q8_0(out, in, n); break;
    case CCA_Q4_0: cca_decode_q4_0(out, in, n); break;
    case CCA_Q4_1: cca_decode_q4_1(out, in, n); break;
    case CCA_Q5_0: cca_decode_q5_0(out, in, n); break;
    case CCA_Q5_1: cca_decode_q5_1(out, in, n); break;
    case CCA_Q2_K: cca_decode_q2_k(out, in, n); break;
    case CCA_Q3_K: cca_decode_q3_k(out, in, n); break;
    case CCA_Q4_K: cca_decode_q4_k(out, in, n); break;
    case CCA_Q5_K: cca_decode_q5_k(out, in, n); break;
    case CCA_Q6_K: cca_decode_q6_k(out, in, n); break;
    case CCA_IQ4_NL: cca_decode_iq4_nl(out, in, n); break;
    case CCA_IQ4_XS: cca_decode_iq4_xs(out, in, n); break;
    default: cca_dtype_decode(out, type, in, n);
    }
}

static inline void cca_encode_f32(void *out, const float *in, int64_t n) {
    memcpy(out, in, (size_t)n * sizeof *in);
}

static inline void cca_encode_f16(void *out, const float *in, int64_t n) {
    uint16_t *h = (uint16_t *)out;
    for (int64_t i = 0; i < n; i++) h[i] = cca_f32_to_f16(in[i]);
}

static inline void cca_encode_bf16(void *out, const float *in, int64_t n) {
    uint16_t *h = (uint16_t *)out;
    for (int64_t i = 0; i < n; i++) h[i] = cca_f32_to_bf16(in[i]);
}

/* A block with a value that is no finite number becomes one of such values: small integers cannot
 * tell which it was. */
enum { CCA_HALF_NAN = 0x7e00 };

/* The scale is the largest magnitude over 127; what it leaves over is rounded to nearest. */
static inline void cca_encode_q8_0(void *out, const float *in, int64_t n) {
    cca_q8_0 *block = (cca_q8_0 *)out;
    for (int64_t b = 0; b < n / CCA_QUANT_BLOCK; b++, in += CCA_QUANT_BLOCK) {
        if (!cca_all_finite(in, CCA_QUANT_BLOCK)) {
            memset(&block[b], 0, sizeof block[b]);
            block[b].scale = CCA_HALF_NAN;
            continue;
        }
        float largest = 0;
        for (int k = 0; k < CCA_QUANT_BLOCK; k++) largest = fmaxf(largest, fabsf(in[k]));
        float d = largest / 127;
        float inverse = d > 0 ? 1 / d : 0;
        block[b].scale = cca_f32_to_f16(d);
        for (int k = 0; k < CCA_QUANT_BLOCK; k++) block[b].q[k] = (int8_t)roundf(in[k] * inverse);
    }
}

static inline uint8_t cca_nibble(float x) {
    int q = (int)(x + 8.5f);
    return (uint8_t)(q > 15 ? 15 : q);
}

/* The value of largest magnitude becomes q = 0, that is -8 d: the side with one step more. */
static inline void cca_encode_q4_0(void *out, const float *in, int64_t n) {
    cca_q4_0 *block = (cca_q4_0 *)out;
    for (int64_t b = 0; b < n / CCA_QUANT_BLOCK; b++, in += CCA_QUANT_BLOCK) {
        if (!cca_all_finite(in, CCA_QUANT_BLOCK)) {
            memset(&block[b], 0, sizeof block[b]);
            block[b].scale = CCA_HALF_NAN;
            continue;
        }
        float extreme = 0;
        for (int k = 0; k < CCA_QUANT_BLOCK; k++) {
            if (fabsf(in[k]) > fabsf(extreme)) extreme = in[k];
        }
        float d = extreme / -8;
        float inverse = d != 0 ? 1 / d : 0;
        block[b].scale = cca_f32_to_f16(d);
        for (int k = 0; k < CCA_QUANT_BLOCK / 2; k++) {
            uint8_t low = cca_nibble(in[k] * inverse);
            uint8_t high = cca_nibble(in[k + CCA_QUANT_BLOCK / 2] * inverse);
            block[b].q[k] = (uint8_t)(low | high << 4);
        }
    }
}

static inline void cca_row_encode(void *out, cca_dtype type, const float *in, int64_t n) {
    switch (type) {
    case CCA_F32: cca_encode_f32(out, in, n); break;
    case CCA_F16: cca_encode_f16(out, in, n); break;
    case CCA_BF16: cca_encode_bf16(out, in, n); break;
    case CCA_Q8_0: cca_encode_q8_0(out, in, n); break;
    case CCA_Q4_0: cca_encode_q4_0(out, in, n); break;
    default: cca_dtype_encode(out, type, in, n);
    }
}

#endif
