/* Threads: every piece once, never two pieces with the same thread number at a time, any counts, in
 * any number of pools at a time. */
#include "base/workers.h"
#include "tests/unit/test.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* A job's own function and context, whoever takes a piece, and whatever the job before was. */
typedef struct sum {
    _Atomic int64_t of_pieces;
    int64_t factor;
} sum;

static void add(void *context, int64_t piece, int thread) {
    sum *s = context;
    (void)thread;
    atomic_fetch_add(&s->of_pieces, s->factor * (piece + 1));
}

static void subtract(void *context, int64_t piece, int thread) {
    sum *s = context;
    (void)thread;
    atomic_fetch_sub(&s->of_pieces, s->factor * (piece + 1));
}

static void run_jobs(cca_workers *w, int n_jobs) {
    for (int job = 0; job < n_jobs; job++) {
        int64_t n = 2 + job % 40, factor = job % 2 ? -1 - job : 1 + job;
        sum s = {.factor = job + 1}; /* a place of its own on this stack */
        cca_workers_run(w, n, job % 2 ? subtract : add, &s);
        assert_int_equal(s.of_pieces, factor * n * (n + 1) / 2);
    }
}

static void jobs_do_not_mix(void **state) {
    (void)state;
    cca_workers *w = cca_workers_new(4);
    assert_non_null(w);
    run_jobs(w, 5000);
    cca_workers_free(w);
}

/* Whoever has piece 0 waits until the other thread has done all others, those of both shares. */
typedef struct meeting {
    atomic_int n_done;
    atomic_int begun[2]; /* pieces, by thread */
    int late;            /* written at a piece's end */
} meeting;

static void wait_in_first(void *context, int64_t piece, int thread) {
    meeting *m = context;
    (void)thread;
    while (piece == 0 && atomic_load(&m->n_done) < 9) sched_yield();
    atomic_fetch_add(&m->n_done, 1);
}

static void either_thread_takes_what_the_other_leaves(void **state) {
    (void)state;
    cca_workers *w = cca_workers_new(2);
    assert_non_null(w);
    for (int round = 0; round < 20; round++) {
        meeting m = {0};
        cca_workers_run(w, 10, wait_in_first, &m);
        assert_int_equal(m.n_done, 10);
    }
    cca_workers_free(w);
}

/* Each thread begins a piece, then the helper works on when the caller is through. */
static void let_helper_be_late(void *context, int64_t piece, int thread) {
    meeting *m = context;
    (void)piece;
    atomic_fetch_add(&m->begun[thread], 1);
    while (atomic_load(&m->begun[1 - thread]) == 0) sched_yield();
    if (thread == 0) atomic_fetch_add(&m->n_done, 1);
    while (atomic_load(&m->n_done) == 0) sched_yield();
    for (volatile int turn = 0; thread == 1 && turn < 100000; turn++) continue;
    if (thread == 1) m->late++;
}

static void a_run_ends_with_its_last_piece(void **state) {
    (void)state;
    cca_workers *w = cca_workers_new(2);
    assert_non_null(w);
    for (int round = 0; round < 20; round++) {
        meeting m = {0};
        cca_workers_run(w, 2, let_helper_be_late, &m);
        assert_int_equal(m.late, 1);
    }
    cca_workers_free(w);
}

static void *run_pool(void *failed) {
    sum s = {.factor = 1};
    cca_workers *w = cca_workers_new(3);
    for (int job = 0; w && job < 2000; job++) cca_workers_run(w, 20, add, &s);
    if (!w || s.of_pieces != 2000 * 210) atomic_store((atomic_bool *)failed, true);
    cca_workers_free(w);
    return NULL;
}

static void two_pools_at_a_time(void **state) {
    (void)state;
    atomic_bool failed = false;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_pool, &failed), 0);
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    assert_false(atomic_load(&failed));
}

static void run_inner(void *context, int64_t piece, int thread) {
    (void)piece;
    (void)thread;
    run_pool(context);
}

static void a_pool_within_a_piece(void **state) {
    (void)state;
    atomic_bool failed = false;
    cca_workers *w = cca_workers_new(2);
    assert_non_null(w);
    cca_workers_run(w, 4, run_inner, &failed);
    cca_workers_free(w);
    assert_false(atomic_load(&failed));
}

/* A child has none of the helpers, and can have some of its own. */
static void after_fork(void **state) {
    (void)state;
    atomic_bool failed = false;
    cca_workers *w = cca_workers_new(3);
    assert_non_null(w);
    run_jobs(w, 100);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sum s = {.factor = 1};
        for (int job = 0; job < 50; job++) cca_workers_run(w, 20, add, &s);
        cca_workers_free(w);
        run_pool(&failed);
        if (s.of_pieces == 50 * 210 && !failed) raise(SIGKILL); /* leaks belong to no thread here */
        _exit(1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    run_jobs(w, 100);
    cca_workers_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_runs_once),
        cmocka_unit_test(helpers_sleep_and_wake),
        cmocka_unit_test(jobs_do_not_mix),
        cmocka_unit_test(either_thread_takes_what_the_other_leaves),
        cmocka_unit_test(a_run_ends_with_its_last_piece),
        cmocka_unit_test(two_pools_at_a_time),
        cmocka_unit_test(a_pool_within_a_piece),
        cmocka_unit_test(after_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
