/* The decoders of the types that only export reads, against blocks of random bits that the
 * Python package gguf has decoded. */
#include "backend/kquants.h"

#include "base/mapping.h"
#include "gguf/gguf.h"
#include "test.h"

enum { N_TYPES = 8, MAX_VALUES = 1024 };

/* As gguf does, but a difference of two products may be rounded once less: then the error is
 * relative to the products, which are at most a few times the largest value. */
static void expect_close(const float *got, const float *wanted, int64_t n, uint32_t type) {
    float largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmaxf(largest, fabsf(wanted[i]));
    assert_true(largest > 0);
    for (int64_t i = 0; i < n; i++) {
        if (fabsf(got[i] - wanted[i]) <= 1e-6f * largest) continue;
        fail_msg("%s, value %lld: %.9g, not %.9g", cca_gguf_type_name(type), (long long)i,
                 (double)got[i], (double)wanted[i]);
    }
}

static void golden_blocks(void **state) {
    (void)state;
    cca_mapping file;
    cca_error err;
    static float got[MAX_VALUES], wanted[MAX_VALUES];
    static _Alignas(2) uint8_t blocks[2 * MAX_VALUES];
    assert_int_equal(cca_mapping_open(&file, "tests/golden/kquants/blocks.bin", &err), CCA_OK);
    size_t at = 0;
    for (int i = 0; i < N_TYPES; i++) {
        uint32_t head[2];
        size_t bytes;
        memcpy(head, file.data + at, sizeof head);
        at += sizeof head;
        assert_true(cca_kquant_known(head[0]) && head[1] == MAX_VALUES);
        assert_true(cca_kquant_row_bytes(&bytes, head[0], MAX_VALUES));
        assert_true(bytes <= sizeof blocks && at + bytes + sizeof wanted <= file.size);
        memcpy(blocks, file.data + at, bytes);
        memcpy(wanted, file.data + at + bytes, sizeof wanted);
        at += bytes + sizeof wanted;
        cca_kquant_decode(got, head[0], blocks, MAX_VALUES);
        expect_close(got, wanted, MAX_VALUES, head[0]);
    }
    assert_int_equal(at, file.size);
    cca_mapping_close(&file);
}

static void sizes(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        int64_t block;
        size_t bytes;
    } known[N_TYPES] = {
        {3, 32, 20},    {6, 32, 22},    {7, 32, 24},    {10, 256, 84},
        {11, 256, 110}, {12, 256, 144}, {13, 256, 176}, {14, 256, 210},
    };
    uint32_t n_known = 0;
    size_t bytes;
    for (uint32_t type = 0; type < 64; type++) n_known += cca_kquant_known(type);
    assert_int_equal(n_known, N_TYPES);
    for (int i = 0; i < N_TYPES; i++) {
        assert_int_equal(cca_kquant_block(known[i].type), known[i].block);
        assert_true(cca_kquant_row_bytes(&bytes, known[i].type, 3 * known[i].block));
        assert_int_equal(bytes, 3 * known[i].bytes);
        assert_false(cca_kquant_row_bytes(&bytes, known[i].type, known[i].block + 16));
        assert_false(cca_kquant_row_bytes(&bytes, known[i].type, -known[i].block));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_blocks),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
