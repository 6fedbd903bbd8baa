/* The random numbers are those of splitmix64, in a stream and one by one. */
#include "base/random.h"
#include "tests/unit/test.h"

static void gives_the_known_values(void **state) {
    (void)state;
    static const uint64_t known[] = {
        UINT64_C(6457827717110365317),  UINT64_C(3203168211198807973),
        UINT64_C(9817491932198370423),  UINT64_C(4593380528125082431),
        UINT64_C(16408922859458223821),
    };
    uint64_t stream = 1234567;
    for (uint64_t i = 0; i < sizeof known / sizeof *known; i++) {
        assert_int_equal(cca_random_at(1234567, i + 1), known[i]);
        assert_int_equal(cca_random_next(&stream), known[i]);
    }
}

static void uniform_fills_its_range(void **state) {
    (void)state;
    enum { N = 100000 };
    uint64_t stream = 1;
    double sum = 0, squares = 0, lowest = 1, highest = -1;
    for (int i = 0; i < N; i++) {
        double x = (double)cca_random_uniform(&stream);
        assert_true(x >= -1 && x < 1);
        sum += x;
        squares += x * x;
        lowest = fmin(lowest, x);
        highest = fmax(highest, x);
    }
    assert_true(lowest < -0.999 && highest > 0.999);
    assert_true(fabs(sum / N) < 0.01);
    assert_true(fabs(squares / N - 1.0 / 3) < 0.01);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_known_values),
        cmocka_unit_test(uniform_fills_its_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
