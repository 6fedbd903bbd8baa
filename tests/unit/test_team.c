/* A team's members: how many, and where OpenMP's environment places them. OpenMP reads it when a
 * program starts, so this one starts itself with a number of members and compares what that tells.
 */
#include "base/processors.h"
#include "base/team.h"
#include "tests/unit/test.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

enum { SIZE = 3, MOST_TEXT = 512 };

typedef struct roll {
    atomic_int calls[SIZE];
    cpu_set_t cpus[SIZE];
    bool takes_int[SIZE]; /* SIGINT is not blocked */
} roll;

static void sign(void *context, int member) {
    roll *r = context;
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    r->takes_int[member] = !sigismember(&blocked, SIGINT);
    sched_getaffinity(0, sizeof r->cpus[member], &r->cpus[member]);
    atomic_fetch_add(&r->calls[member], 1);
}

static int report(int n) {
    roll r = {0};
    cpu_set_t cpus;
    cca_team_cpus(&cpus);
    cca_team *t = cca_team_start(n, sign, &r);
    int size = cca_team_size(t);
    sign(&r, 0);
    cca_team_join(t);
    printf("most %d, processors %d of %d, members", cca_team_most(), cca_processors("/nowhere"),
           CPU_COUNT(&cpus));
    for (int i = 0; i < size; i++) {
        int first = 0;
        while (first < CPU_SETSIZE - 1 && !CPU_ISSET(first, &r.cpus[i])) first++;
        printf(" %d+%d", first, CPU_COUNT(&r.cpus[i]) - 1);
    }
    printf("\n");
    return 0;
}

/* What this program reports of n members with more in its environment. */
static void report_with(char out[MOST_TEXT], int n_members, const char *environment) {
    char path[256], command[2 * MOST_TEXT];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    assert_true(n > 0);
    path[n] = '\0';
    snprintf(command, sizeof command, "env %s '%s' %d", environment, path, n_members);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_non_null(fgets(out, MOST_TEXT, f));
    assert_int_equal(pclose(f), 0);
}

static void members_are_called_once(void **state) {
    (void)state;
    for (int n = 1; n <= SIZE; n++) {
        roll r = {0};
        cca_team *t = cca_team_start(n, sign, &r);
        assert_non_null(t);
        assert_int_equal(cca_team_size(t), n);
        cca_team_join(t);
        assert_int_equal(atomic_load(&r.calls[0]), 0);
        for (int i = 1; i < SIZE; i++) {
            assert_int_equal(atomic_load(&r.calls[i]), i < n);
            assert_false(r.takes_int[i]);
        }
    }
    roll caller = {0};
    sign(&caller, 0);
    assert_true(caller.takes_int[0]);
    cca_team_join(NULL);
}

static void numbers(void **state) {
    (void)state;
    if (cca_team_most() == 0) skip();
    char text[MOST_TEXT], expected[MOST_TEXT];
    int have = cca_processors("/nowhere");
    report_with(text, 1, "OMP_NUM_THREADS=1");
    assert_non_null(strstr(text, "most 1, processors 1 of "));
    report_with(text, 1, "OMP_NUM_THREADS=70000");
    snprintf(expected, sizeof expected, "most 70000, processors %d of ", have);
    assert_non_null(strstr(text, expected));
    report_with(text, SIZE, "OMP_NUM_THREADS=8 OMP_THREAD_LIMIT=2");
    snprintf(expected, sizeof expected, "most 2, processors %d of ", have < 2 ? have : 2);
    assert_non_null(strstr(text, expected));
    int size = 0;
    for (const char *at = text; (at = strchr(at, '+')) != NULL; at++) size++;
    assert_int_equal(size, 2);
}

/* The caller has the first of two places, its helper the other one. */
static void placement(void **state) {
    (void)state;
    cpu_set_t cpus;
    int cpu[2], n = 0;
    cca_team_cpus(&cpus);
    for (int i = 0; i < CPU_SETSIZE && n < 2; i++) {
        if (CPU_ISSET(i, &cpus)) cpu[n++] = i;
    }
    if (cca_team_most() == 0 || n < 2) skip();
    char text[MOST_TEXT], expected[MOST_TEXT], environment[MOST_TEXT];
    for (int turn = 0; turn < 2; turn++) {
        int first = cpu[turn], other = cpu[1 - turn];
        snprintf(environment, sizeof environment, "OMP_PROC_BIND=close OMP_PLACES='{%d},{%d}'",
                 first, other);
        report_with(text, 2, environment);
        snprintf(expected, sizeof expected, "processors 2 of 2, members %d+0 %d+0\n", first, other);
        assert_non_null(strstr(text, expected));
    }
    snprintf(environment, sizeof environment, "OMP_PLACES='{%d}'", cpu[1]);
    report_with(text, 2, environment);
    assert_non_null(strstr(text, "processors 1 of 1, "));
}

int main(int argc, char **argv) {
    if (argc > 1) return report(atoi(argv[1]));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_called_once),
        cmocka_unit_test(numbers),
        cmocka_unit_test(placement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
