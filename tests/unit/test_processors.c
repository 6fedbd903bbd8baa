/* How many threads are worth having, by control groups as Linux has them in /proc and /sys. */
#include "base/processors.h"
#include "base/workers.h"
#include "tests/unit/fake_system.h"
#include "tests/unit/test.h"

#include <sched.h>

/* This process may use n processors, or as many as there are. */
static int allow(cpu_set_t *before, int n) {
    cpu_set_t some;
    CPU_ZERO(&some);
    assert_int_equal(sched_getaffinity(0, sizeof *before, before), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&some) < n; cpu++) {
        if (CPU_ISSET(cpu, before)) CPU_SET(cpu, &some);
    }
    assert_int_equal(sched_setaffinity(0, sizeof some, &some), 0);
    return CPU_COUNT(&some);
}

static void affinity(void **state) {
    (void)state;
    cpu_set_t before;
    for (int n = 1; n <= 2; n++) {
        int have = allow(&before, n);
        assert_int_equal(cca_processors("/nowhere"), have);
        assert_int_equal(cca_physical_cores("/nowhere"),
                         have); /* nothing says which are one core */
        assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    }
}

/* Two hardware threads of one core. */
static void cores(void **state) {
    (void)state;
    cpu_set_t before;
    fake_system f = fake_make("0::/\n");
    char path[96];
    int have = allow(&before, 2);
    for (int cpu = 0; cpu < 64; cpu++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 cpu);
        fake_put(&f, path, "0-63\n");
    }
    assert_int_equal(cca_processors(f.root), have);
    assert_int_equal(cca_physical_cores(f.root), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    fake_done(&f);
}

static void expect(const fake_system *f, int n) {
    int have = cca_processors("/nowhere");
    assert_int_equal(cca_processors(f->root), n < have ? n : have);
}

/* Whole processors of a quota, at least one; a parent's holds, too. */
static void version_2(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int n;
    } all[] = {{"max 100000\n", CCA_MOST_THREADS},
               {"100000 100000\n", 1},
               {"150000 100000\n", 1},
               {"200000 100000\n", 2},
               {"1000 100000\n", 1},
               {"50000 10000\n", 5},
               {"nonsense\n", CCA_MOST_THREADS},
               {"5 0\n", CCA_MOST_THREADS}};
    fake_system f = fake_make("0::/user/me\n");
    expect(&f, CCA_MOST_THREADS);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        fake_put(&f, "/sys/fs/cgroup/user/me/cpu.max", all[i].text);
        expect(&f, all[i].n);
    }
    fake_put(&f, "/sys/fs/cgroup/user/cpu.max", "100000 100000\n");
    expect(&f, 1);
    fake_done(&f);
}

static void version_1(void **state) {
    (void)state;
    fake_system f = fake_make("9:memory:/job\n8:cpu,cpuacct:/job\n");
    fake_put(&f, "/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "-1\n");
    fake_put(&f, "/sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n");
    expect(&f, CCA_MOST_THREADS);
    fake_put(&f, "/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "100000\n");
    expect(&f, 1);
    fake_done(&f);
}

/* In a container the group's path may be one of outside: the mount has the quota. */
static void path_of_outside(void **state) {
    (void)state;
    fake_system f = fake_make("0::/outside/here\n");
    fake_put(&f, "/sys/fs/cgroup/cpu.max", "100000 100000\n");
    expect(&f, 1);
    fake_done(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(affinity),  cmocka_unit_test(cores),           cmocka_unit_test(version_2),
        cmocka_unit_test(version_1), cmocka_unit_test(path_of_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
