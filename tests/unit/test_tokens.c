/* The growing list of ids. */
#include "tests/unit/test.h"
#include "text/tokens.h"

static void keeps_what_is_pushed(void **state) {
    (void)state;
    enum { N = 1000 };
    cca_tokens tokens = {0};
    for (int i = 0; i < N; i++) assert_true(cca_tokens_push(&tokens, -i, (uint64_t)i << 33));
    assert_int_equal(tokens.n, N);
    assert_true(tokens.capacity >= N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(tokens.ids[i], -i);
        assert_int_equal(tokens.offsets[i], (uint64_t)i << 33);
    }
    cca_tokens_free(&tokens);
    assert_int_equal(tokens.n, 0);
    assert_true(cca_tokens_push(&tokens, 7, 1));
    assert_int_equal(tokens.ids[0], 7);
    cca_tokens_free(&tokens);
    cca_tokens_free(&tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(keeps_what_is_pushed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
