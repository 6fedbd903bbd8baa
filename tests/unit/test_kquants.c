/* The decoders of kquants.h in each kernel variant, bit by bit, against blocks of random bits that
 * the Python package gguf has decoded. */
#include "backend/cpu/kernels.h"
#include "base/mapping.h"
#include "test.h"

enum { N_TYPES = 10, MAX_VALUES = 1024 };

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
        for (int k = 0; cca_kernels_at(k); k++) {
            memset(got, 0xff, sizeof got);
            cca_kernels_at(k)->decode(got, (cca_dtype)head[0], blocks, MAX_VALUES);
            assert_memory_equal(got, wanted, sizeof wanted);
        }
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
