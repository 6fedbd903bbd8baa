#include "backend/dtype.h"

#include "backend/kquants.h"

#include <strings.h>

/* Types that are known by their sizes alone. */
#define OTHER(id, name, block, bytes)                                                              \
    { id, name, block, bytes, .runs = false }
#define CODEC(name) .decode = cca_decode_##name, .encode = cca_encode_##name

/* From here on an f16 is infinite. */
#define HALF_LIMIT 65520.0f

/* clang-format off */
static const cca_dtype_facts facts[] = {
    {CCA_F32, "F32", 1, 4, "f32", CODEC(f32), .runs = true, .caches = true,
     .limit = INFINITY, .file_type = 0},
    {CCA_F16, "F16", 1, 2, "f16", CODEC(f16), .runs = true, .caches = true,
     .limit = HALF_LIMIT, .file_type = 1},
    {CCA_BF16, "BF16", 1, 2, "bf16", CODEC(bf16), .runs = true, .caches = true,
     .limit = 0x1.ffp127f, .file_type = 32},
    {CCA_Q8_0, "Q8_0", CCA_QUANT_BLOCK, sizeof(cca_q8_0), "q8_0", CODEC(q8_0), .runs = true,
     .caches = true, .limit = HALF_LIMIT * 127, .file_type = 7},
    {CCA_Q4_0, "Q4_0", CCA_QUANT_BLOCK, sizeof(cca_q4_0), "q4_0", CODEC(q4_0), .runs = true,
     .limit = HALF_LIMIT * 8, .file_type = 2},

    {CCA_Q4_1, "Q4_1", 32, 20, .decode = cca_decode_q4_1},
    {CCA_Q5_0, "Q5_0", 32, 22, .decode = cca_decode_q5_0},
    {CCA_Q5_1, "Q5_1", 32, 24, .decode = cca_decode_q5_1},
    {CCA_Q2_K, "Q2_K", 256, 84, .decode = cca_decode_q2_k},
    {CCA_Q3_K, "Q3_K", 256, 110, .decode = cca_decode_q3_k},
    {CCA_Q4_K, "Q4_K", 256, 144, .decode = cca_decode_q4_k},
    {CCA_Q5_K, "Q5_K", 256, 176, .decode = cca_decode_q5_k},
    {CCA_Q6_K, "Q6_K", 256, 210, .decode = cca_decode_q6_k},

    OTHER(9, "Q8_1", 32, 36),      OTHER(15, "Q8_K", 256, 292),    OTHER(16, "IQ2_XXS", 256, 66),
    OTHER(17, "IQ2_XS", 256, 74),  OTHER(18, "IQ3_XXS", 256, 98),  OTHER(19, "IQ1_S", 256, 50),
    OTHER(20, "IQ4_NL", 32, 18),   OTHER(21, "IQ3_S", 256, 110),   OTHER(22, "IQ2_S", 256, 82),
    OTHER(23, "IQ4_XS", 256, 136), OTHER(24, "I8", 1, 1),          OTHER(25, "I16", 1, 2),
    OTHER(26, "I32", 1, 4),        OTHER(27, "I64", 1, 8),         OTHER(28, "F64", 1, 8),
    OTHER(29, "IQ1_M", 256, 56),   OTHER(34, "TQ1_0", 256, 54),    OTHER(35, "TQ2_0", 256, 66),
    OTHER(39, "MXFP4", 32, 17),    OTHER(40, "NVFP4", 64, 36),     OTHER(41, "Q1_0", 128, 18),
};
/* clang-format on */

enum { N_TYPES = sizeof facts / sizeof *facts };

const cca_dtype_facts *cca_dtype_at(int i) {
    return i < N_TYPES ? &facts[i] : NULL;
}

const cca_dtype_facts *cca_dtype_find(uint32_t id) {
    for (int i = 0; i < N_TYPES; i++) {
        if (facts[i].id == id) return &facts[i];
    }
    return NULL;
}

bool cca_dtype_runs(uint32_t id) {
    const cca_dtype_facts *t = cca_dtype_find(id);
    return t && t->runs;
}

bool cca_dtype_converts(uint32_t id, bool vector) {
    const cca_dtype_facts *t = cca_dtype_find(id);
    return t && t->decode && (!vector || t->block == 1);
}

const char *cca_dtype_name(cca_dtype type) {
    const cca_dtype_facts *t = cca_dtype_find(type);
    if (!t) return "unknown";
    return t->lower ? t->lower : t->name;
}

bool cca_dtype_parse(cca_dtype *out, const char *name) {
    for (int i = 0; i < N_TYPES; i++) {
        if (facts[i].runs && strcasecmp(facts[i].lower, name) == 0) {
            *out = (cca_dtype)facts[i].id;
            return true;
        }
    }
    return false;
}

int64_t cca_dtype_block(cca_dtype type) {
    return cca_dtype_find(type)->block;
}

bool cca_dtype_row_bytes(size_t *out, cca_dtype type, int64_t n) {
    const cca_dtype_facts *t = cca_dtype_find(type);
    if (!t || n < 0 || n % t->block != 0) return false;
    return cca_mul(out, (size_t)(n / t->block), t->block_bytes);
}

void cca_dtype_decode(float *out, cca_dtype type, const void *in, int64_t n) {
    cca_dtype_find(type)->decode(out, in, n);
}

void cca_dtype_encode(void *out, cca_dtype type, const float *in, int64_t n) {
    cca_dtype_find(type)->encode(out, in, n);
}
