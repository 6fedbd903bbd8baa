/* The decoders of the types that only export reads, against blocks of random bits that the
 * Python package gguf has decoded. */
#include "backend/dtype.h"
#include "base/mapping.h"
#include "test.h"

enum { N_TYPES = 8, MAX_VALUES = 1024 };

/* As gguf does, but a difference of two products may be rounded once less: then the error is
 * relative to the products, which are at most a few times the largest value. */
static void expect_close(const float *got, const float *wanted, int64_t n, cca_dtype type) {
    float largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmaxf(largest, fabsf(wanted[i]));
    assert_true(largest > 0);
    for (int64_t i = 0; i < n; i++) {
        if (fabsf(got[i] - wanted[i]) <= 1e-6f * largest) continue;
        fail_msg("%s, value %lld: %.9g, not %.9g", cca_dtype_name(type), (long long)i,
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
        assert_true(cca_dtype_converts(head[0], false) && head[1] == MAX_VALUES);
        assert_true(cca_dtype_row_bytes(&bytes, (cca_dtype)head[0], MAX_VALUES));
        assert_true(bytes <= sizeof blocks && at + bytes + sizeof wanted <= file.size);
        memcpy(blocks, file.data + at, bytes);
        memcpy(wanted, file.data + at + bytes, sizeof wanted);
        at += bytes + sizeof wanted;
        cca_dtype_decode(got, (cca_dtype)head[0], blocks, MAX_VALUES);
        expect_close(got, wanted, MAX_VALUES, (cca_dtype)head[0]);
    }
    assert_int_equal(at, file.size);
    cca_mapping_close(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
