/* The hash is FNV-1a; the known values are those of its authors. */
#include "base/hash.h"
#include "tests/unit/test.h"

static void gives_the_known_values(void **state) {
    (void)state;
    assert_int_equal(cca_hash("", 0), UINT64_C(0xcbf29ce484222325));
    assert_int_equal(cca_hash("a", 1), UINT64_C(0xaf63dc4c8601ec8c));
    assert_int_equal(cca_hash("foobar", 6), UINT64_C(0x85944171f73967e8));
    assert_int_equal(cca_hash("\0", 1), UINT64_C(0xaf63bd4c8601b7df));
    assert_int_equal(cca_hash("\xff", 1), UINT64_C(0xaf64724c8602eb6e));
}

static void goes_on(void **state) {
    (void)state;
    static const char word[] = "foobar";
    for (size_t i = 0; i <= 6; i++) {
        assert_int_equal(cca_hash_more(cca_hash(word, i), word + i, 6 - i),
                         UINT64_C(0x85944171f73967e8));
    }
}

static void numbers_spread(void **state) {
    (void)state;
    enum { N = 1 << 16 };
    static int slots[256];
    for (uint64_t i = 0; i < N; i++) slots[cca_hash_number(i << 32) & 255]++;
    for (int i = 0; i < 256; i++) assert_true(slots[i] > N / 256 / 2 && slots[i] < N / 256 * 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_known_values),
        cmocka_unit_test(goes_on),
        cmocka_unit_test(numbers_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
