#include "backend/dtype.h"

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

void cca_dtype_decode(float *out, cca_dtype type, const void *in, int64_t n) {
    cca_row_decode(out, type, in, n);
}

void cca_dtype_encode(void *out, cca_dtype type, const float *in, int64_t n) {
    cca_row_encode(out, type, in, n);
}
