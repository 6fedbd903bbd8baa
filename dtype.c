#include "dtype.h"

#include <math.h>
#include <strings.h>

typedef struct type_facts {
    cca_dtype type;
    const char *name;
    int64_t block;
    size_t block_bytes;
} type_facts;

static const type_facts facts[] = {
    {CCA_F32, "f32", 1, 4},
    {CCA_F16, "f16", 1, 2},
    {CCA_BF16, "bf16", 1, 2},
    {CCA_Q8_0, "q8_0", CCA_QUANT_BLOCK, sizeof(cca_q8_0)},
    {CCA_Q4_0, "q4_0", CCA_QUANT_BLOCK, sizeof(cca_q4_0)},
};

enum { N_TYPES = sizeof facts / sizeof *facts };

static const type_facts *find_type(cca_dtype type) {
    for (int i = 0; i < N_TYPES; i++) {
        if (facts[i].type == type) return &facts[i];
    }
    return &facts[0];
}

bool cca_dtype_known(uint32_t id) {
    return find_type((cca_dtype)id)->type == (cca_dtype)id;
}

const char *cca_dtype_name(cca_dtype type) {
    return find_type(type)->name;
}

bool cca_dtype_parse(cca_dtype *out, const char *name) {
    for (int i = 0; i < N_TYPES; i++) {
        if (strcasecmp(facts[i].name, name) == 0) {
            *out = facts[i].type;
            return true;
        }
    }
    return false;
}

int64_t cca_dtype_block(cca_dtype type) {
    return find_type(type)->block;
}

size_t cca_dtype_block_bytes(cca_dtype type) {
    return find_type(type)->block_bytes;
}

bool cca_dtype_row_bytes(size_t *out, cca_dtype type, int64_t n) {
    const type_facts *t = find_type(type);
    if (n < 0 || n % t->block != 0) return false;
    return cca_mul(out, (size_t)(n / t->block), t->block_bytes);
}

static void decode_q8_0(float *out, const cca_q8_0 *in, int64_t n_blocks) {
    for (int64_t b = 0; b < n_blocks; b++) {
        float d = cca_f16_to_f32(in[b].scale);
        for (int k = 0; k < CCA_QUANT_BLOCK; k++) {
            out[b * CCA_QUANT_BLOCK + k] = d * (float)in[b].q[k];
        }
    }
}

static void decode_q4_0(float *out, const cca_q4_0 *in, int64_t n_blocks) {
    for (int64_t b = 0; b < n_blocks; b++) {
        float d = cca_f16_to_f32(in[b].scale);
        float *row = out + b * CCA_QUANT_BLOCK;
        for (int k = 0; k < CCA_QUANT_BLOCK / 2; k++) {
            row[k] = d * (float)((in[b].q[k] & 15) - 8);
            row[k + CCA_QUANT_BLOCK / 2] = d * (float)((in[b].q[k] >> 4) - 8);
        }
    }
}

void cca_dtype_decode(float *out, cca_dtype type, const void *in, int64_t n) {
    const uint16_t *half = in;
    switch (type) {
    case CCA_F32:
        memcpy(out, in, (size_t)n * sizeof *out);
        break;
    case CCA_F16:
        for (int64_t i = 0; i < n; i++) out[i] = cca_f16_to_f32(half[i]);
        break;
    case CCA_BF16:
        for (int64_t i = 0; i < n; i++) out[i] = cca_bf16_to_f32(half[i]);
        break;
    case CCA_Q8_0:
        decode_q8_0(out, in, n / CCA_QUANT_BLOCK);
        break;
    case CCA_Q4_0:
        decode_q4_0(out, in, n / CCA_QUANT_BLOCK);
        break;
    }
}

/* The scale is the largest magnitude over 127; what it leaves over is rounded to nearest. */
static void encode_q8_0(cca_q8_0 *out, const float *in, int64_t n_blocks) {
    for (int64_t b = 0; b < n_blocks; b++, in += CCA_QUANT_BLOCK) {
        float largest = 0;
        for (int k = 0; k < CCA_QUANT_BLOCK; k++) largest = fmaxf(largest, fabsf(in[k]));
        float d = largest / 127;
        float inverse = d > 0 ? 1 / d : 0;
        out[b].scale = cca_f32_to_f16(d);
        for (int k = 0; k < CCA_QUANT_BLOCK; k++) out[b].q[k] = (int8_t)roundf(in[k] * inverse);
    }
}

static uint8_t nibble(float x) {
    int q = (int)(x + 8.5f);
    return (uint8_t)(q > 15 ? 15 : q);
}

/* The value of largest magnitude becomes q = 0, that is -8 d: the side with one step more. */
static void encode_q4_0(cca_q4_0 *out, const float *in, int64_t n_blocks) {
    for (int64_t b = 0; b < n_blocks; b++, in += CCA_QUANT_BLOCK) {
        float extreme = 0;
        for (int k = 0; k < CCA_QUANT_BLOCK; k++) {
            if (fabsf(in[k]) > fabsf(extreme)) extreme = in[k];
        }
        float d = extreme / -8;
        float inverse = d != 0 ? 1 / d : 0;
        out[b].scale = cca_f32_to_f16(d);
        for (int k = 0; k < CCA_QUANT_BLOCK / 2; k++) {
            uint8_t low = nibble(in[k] * inverse);
            uint8_t high = nibble(in[k + CCA_QUANT_BLOCK / 2] * inverse);
            out[b].q[k] = (uint8_t)(low | high << 4);
        }
    }
}

void cca_dtype_encode(void *out, cca_dtype type, const float *in, int64_t n) {
    uint16_t *half = out;
    switch (type) {
    case CCA_F32:
        memcpy(out, in, (size_t)n * sizeof *in);
        break;
    case CCA_F16:
        for (int64_t i = 0; i < n; i++) half[i] = cca_f32_to_f16(in[i]);
        break;
    case CCA_BF16:
        for (int64_t i = 0; i < n; i++) half[i] = cca_f32_to_bf16(in[i]);
        break;
    case CCA_Q8_0:
        encode_q8_0(out, in, n / CCA_QUANT_BLOCK);
        break;
    case CCA_Q4_0:
        encode_q4_0(out, in, n / CCA_QUANT_BLOCK);
        break;
    }
}
