/* Threads: every piece once, never two pieces with the same thread number at a time, any counts. */
#include "base/workers.h"
#include "tests/unit/test.h"

#include <stdatomic.h>
#include <stdbool.h>

enum { MOST_PIECES = 300, MOST_THREADS = 9 };

typedef struct tally {
    atomic_int calls[MOST_PIECES];
    atomic_int busy[MOST_THREADS];
    atomic_bool clash;
    int plain[MOST_PIECES]; /* written without atomics: the run's end must make it visible */
} tally;

static void count(void *context, int64_t piece, int thread) {
    tally *t = context;
    if (atomic_fetch_add(&t->busy[thread], 1) != 0) atomic_store(&t->clash, true);
    atomic_fetch_add(&t->calls[piece], 1);
    t->plain[piece]++;
    atomic_fetch_sub(&t->busy[thread], 1);
}

static void every_piece_runs_once(void **state) {
    (void)state;
    static tally t;
    for (int n_threads = 1; n_threads <= MOST_THREADS; n_threads += 2) {
        cca_workers *w = cca_workers_new(n_threads);
        assert_non_null(w);
        assert_int_equal(cca_workers_count(w), n_threads);
        memset(&t, 0, sizeof t);
        int expected[MOST_PIECES] = {0};
        for (int round = 0; round < 400; round++) {
            int n = round * 7 % MOST_PIECES;
            cca_workers_run(w, n, count, &t);
            for (int i = 0; i < n; i++) expected[i]++;
            assert_memory_equal(t.plain, expected, sizeof expected);
        }
        for (int i = 0; i < MOST_PIECES; i++) {
            assert_int_equal(atomic_load(&t.calls[i]), expected[i]);
        }
        assert_false(atomic_load(&t.clash));
        cca_workers_free(w);
    }
}

static void helpers_sleep_and_wake(void **state) {
    (void)state;
    static tally t;
    cca_workers *w = cca_workers_new(3);
    assert_non_null(w);
    for (int round = 1; round <= 5; round++) {
        struct timespec pause = {0, 5000000}; /* far longer than helpers spin */
        nanosleep(&pause, NULL);
        cca_workers_run(w, 50, count, &t);
        assert_int_equal(t.plain[49], round);
    }
    cca_workers_free(w);
    cca_workers_free(cca_workers_new(4)); /* never ran */
    cca_workers_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_runs_once),
        cmocka_unit_test(helpers_sleep_and_wake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
