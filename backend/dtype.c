#include "backend/dtype.h"

#include "backend/kquants_encode.h"
#include "base/random.h"

#include <stddef.h>
#include <strings.h>

/* Types that are known by their sizes alone. */
#define OTHER(id, name, block, bytes)                                                              \
    { id, name, block, bytes, .runs = false }
/* Types that have another with the same q. */
#define ALIKE(to, small, name) .alike = (to), .to_alike = cca_##small##_of_##name
/* Types that run and that nothing here makes; `second` is the block's other f16 number, or d. */
#define KEPT(id, name, block, second, number, ...)                                                 \
    {                                                                                              \
        CCA_##id, #id, block, sizeof(cca_##name), #name,                                           \
            .decode = cca_decode_##name, .runs = true, .limit = INFINITY, .file_type = (number),   \
            .in_place = CCA_F16,                                                                   \
            .halves = {offsetof(cca_##name, d), offsetof(cca_##name, second)}, __VA_ARGS__         \
    }
/* Types that are made, with scales that are sought. */
#define SOUGHT(id, name, block, second, number, most, other, ...)                                  \
    {                                                                                              \
        CCA_##id, #id, block, sizeof(cca_##name), #name,                                           \
            .decode = cca_decode_##name, .encode = cca_encode_##name, .runs = true,                \
            .is_sought = true, .limit = (most), .file_type = (number), .in_place = (other),        \
            .halves = {offsetof(cca_##name, d), offsetof(cca_##name, second)}, __VA_ARGS__         \
    }
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
     .caches = true, .limit = HALF_LIMIT * 127, .in_place = CCA_F16, .file_type = 7},
    {CCA_Q4_0, "Q4_0", CCA_QUANT_BLOCK, sizeof(cca_q4_0), "q4_0", CODEC(q4_0), .runs = true,
     .limit = HALF_LIMIT * 8, .in_place = CCA_F16, .file_type = 2},

    SOUGHT(Q5_0, q5_0, CCA_SMALL_BLOCK, d, 8, CCA_Q5_0_LIMIT, CCA_F16,
           ALIKE(CCA_Q8_0, q8_0, q5_0)),
    SOUGHT(Q5_1, q5_1, CCA_SMALL_BLOCK, min, 9, CCA_Q5_1_LIMIT, CCA_F16, ),
    SOUGHT(Q4_K, q4_k, CCA_LARGE_BLOCK, min, 14, CCA_K_LIMIT, CCA_Q5_0,
           ALIKE(CCA_Q4_1, q4_1, q4_k)),
    SOUGHT(Q5_K, q5_k, CCA_LARGE_BLOCK, min, 16, CCA_K_LIMIT, CCA_Q5_1,
           ALIKE(CCA_Q5_1, q5_1, q5_k)),
    SOUGHT(Q6_K, q6_k, CCA_LARGE_BLOCK, d, 18, CCA_Q6_K_LIMIT, CCA_Q8_0, ),

    KEPT(Q4_1, q4_1, CCA_SMALL_BLOCK, min, 3, ),
    KEPT(Q2_K, q2_k, CCA_LARGE_BLOCK, min, 10, ),
    KEPT(Q3_K, q3_k, CCA_LARGE_BLOCK, d, 12, ),
    KEPT(IQ4_NL, iq4_nl, CCA_SMALL_BLOCK, d, 25, ALIKE(CCA_Q8_0, q8_0, iq4_nl)),
    KEPT(IQ4_XS, iq4_xs, CCA_LARGE_BLOCK, d, 30, ALIKE(CCA_Q8_0, q8_0, iq4_xs)),

    OTHER(9, "Q8_1", 32, 36),      OTHER(15, "Q8_K", 256, 292),    OTHER(16, "IQ2_XXS", 256, 66),
    OTHER(17, "IQ2_XS", 256, 74),  OTHER(18, "IQ3_XXS", 256, 98),  OTHER(19, "IQ1_S", 256, 50),
    OTHER(21, "IQ3_S", 256, 110),  OTHER(22, "IQ2_S", 256, 82),    OTHER(24, "I8", 1, 1),
    OTHER(25, "I16", 1, 2),        OTHER(26, "I32", 1, 4),         OTHER(27, "I64", 1, 8),
    OTHER(28, "F64", 1, 8),        OTHER(29, "IQ1_M", 256, 56),    OTHER(34, "TQ1_0", 256, 54),
    OTHER(35, "TQ2_0", 256, 66),   OTHER(39, "MXFP4", 32, 17),     OTHER(40, "NVFP4", 64, 36),
    OTHER(41, "Q1_0", 128, 18),
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

enum { SOME = 256 }; /* values at a time; every block has fewer or as many */

void cca_dtype_convert(void *out, cca_dtype to, const void *in, cca_dtype from, int64_t n) {
    const cca_dtype_facts *target = cca_dtype_find(to), *source = cca_dtype_find(from);
    const uint8_t *read = in;
    uint8_t *at = out;
    if (source->to_alike && source->alike == to) {
        source->to_alike(out, in, n);
        return;
    }
    for (int64_t i = 0, some; i < n; i += some) {
        float x[SOME];
        some = cca_min(SOME, n - i);
        source->decode(x, read, some);
        target->encode(at, x, some);
        read += (size_t)(some / source->block) * source->block_bytes;
        at += (size_t)(some / target->block) * target->block_bytes;
    }
}

/* Whether none of n numbers of 16 bits has all bits of an exponent: the largest has not. */
static bool halves_finite(const uint8_t *in, int64_t n, int16_t exponent) {
    int16_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        int16_t bits;
        memcpy(&bits, in + 2 * (size_t)i, sizeof bits);
        bits &= exponent;
        most = bits > most ? bits : most;
    }
    return most < exponent;
}

/* The same of the scales that n blocks begin with. */
static bool scales_finite(const uint8_t *in, size_t block_bytes, int64_t n, int16_t exponent) {
    bool finite = true;
    for (int64_t i = 0; i < n; i++) {
        finite &= halves_finite(in + (size_t)i * block_bytes, 1, exponent);
    }
    return finite;
}

bool cca_dtype_all_finite(cca_dtype type, const void *in, int64_t n) {
    enum { OF_F16 = 0x7c00, OF_BF16 = 0x7f80 };
    const cca_dtype_facts *t = cca_dtype_find(type);
    const uint8_t *read = in;
    if (type == CCA_F16) return halves_finite(in, n, OF_F16);
    if (type == CCA_BF16) return halves_finite(in, n, OF_BF16);
    if (type == CCA_Q8_0 || type == CCA_Q4_0) {
        return scales_finite(in, t->block_bytes, n / t->block, OF_F16);
    }
    for (int64_t i = 0, some; i < n; i += some) {
        float x[SOME];
        some = cca_min(SOME, n - i);
        t->decode(x, read, some);
        if (!cca_all_finite(x, some)) return false;
        read += (size_t)(some / t->block) * t->block_bytes;
    }
    return true;
}

/* Random bits, brought to magnitudes up to 1 by the block's f16 numbers. */
static void fill_block(uint8_t *out, const cca_dtype_facts *t, uint64_t *state) {
    float x[SOME], largest = 0;
    const uint16_t one = cca_f32_to_f16(1);
    for (size_t i = 0; i < t->block_bytes; i++) out[i] = (uint8_t)(cca_random_next(state) >> 32);
    for (int i = 0; i < 2; i++) memcpy(out + t->halves[i], &one, sizeof one);
    t->decode(x, out, t->block);
    for (int64_t i = 0; i < t->block; i++) largest = fmaxf(largest, fabsf(x[i]));
    const uint16_t scale = cca_f32_to_f16(1 / fmaxf(largest, 1));
    for (int i = 0; i < 2; i++) memcpy(out + t->halves[i], &scale, sizeof scale);
}

void cca_dtype_fill(void *out, cca_dtype type, int64_t n, uint64_t *state) {
    const cca_dtype_facts *t = cca_dtype_find(type);
    uint8_t *to = out;
    for (int64_t i = 0, some; i < n; i += some, to += (size_t)(some / t->block) * t->block_bytes) {
        float x[SOME];
        bool encodes = t->encode && !t->is_sought;
        some = encodes ? cca_min(SOME, n - i) : t->block;
        if (!encodes) {
            fill_block(to, t, state);
            continue;
        }
        for (int64_t k = 0; k < some; k++) x[k] = cca_random_uniform(state);
        t->encode(to, x, some);
    }
}
