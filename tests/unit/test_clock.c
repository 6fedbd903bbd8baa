/* The clocks: one goes on while the process sleeps, the other does not. */
#include "base/clock.h"
#include "tests/unit/test.h"

#include <unistd.h>

static void sleep_takes_seconds(void **state) {
    (void)state;
    double begin = cca_seconds(), begin_cpu = cca_cpu_seconds();
    usleep(50000);
    double took = cca_seconds() - begin, took_cpu = cca_cpu_seconds() - begin_cpu;
    assert_true(took >= 0.05 && took < 30);
    assert_true(took_cpu >= 0 && took_cpu < 0.04);
}

static void work_takes_both(void **state) {
    (void)state;
    double begin = cca_seconds(), begin_cpu = cca_cpu_seconds(), before = begin;
    while (cca_cpu_seconds() - begin_cpu < 0.02) {
        double now = cca_seconds();
        assert_true(now >= before);
        before = now;
    }
    assert_true(cca_seconds() - begin >= 0.019);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sleep_takes_seconds),
        cmocka_unit_test(work_takes_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
