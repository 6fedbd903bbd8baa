/* What memory is available, from files as Linux has them in /proc and /sys. */
#include "base/available_memory.h"
#include "tests/unit/fake_system.h"
#include "tests/unit/test.h"

static fake_system make(const char *cgroup) {
    fake_system f = fake_make(cgroup);
    fake_put(&f, "/proc/meminfo",
             "MemTotal:  8000 kB\nMemFree:  10 kB\nMemAvailable:    4000 kB\n");
    return f;
}

static void machine_alone(void **state) {
    (void)state;
    fake_system f = make("0::/\n");
    assert_int_equal(cca_memory_available(f.root), 4000 * 1024);
    fake_put(&f, "/sys/fs/cgroup/memory.max", "max\n");
    fake_put(&f, "/sys/fs/cgroup/memory.current", "100\n");
    assert_int_equal(cca_memory_available(f.root), 4000 * 1024);
    assert_true(cca_memory_available("/nowhere") == UINT64_MAX);
    fake_done(&f);
}

/* A group's limit less what it uses, but for cached files; a parent's limit holds, too. */
static void version_2(void **state) {
    (void)state;
    fake_system f = make("0::/user/me\n");
    fake_put(&f, "/sys/fs/cgroup/user/me/memory.max", "1000000\n");
    fake_put(&f, "/sys/fs/cgroup/user/me/memory.current", "700000\n");
    assert_int_equal(cca_memory_available(f.root), 300000);
    fake_put(&f, "/sys/fs/cgroup/user/me/memory.stat",
             "anon 5\nactive_file 20000\ninactive_file 30000\n");
    assert_int_equal(cca_memory_available(f.root), 350000);
    fake_put(&f, "/sys/fs/cgroup/user/memory.max", "900000\n");
    fake_put(&f, "/sys/fs/cgroup/user/memory.current", "800000\n");
    assert_int_equal(cca_memory_available(f.root), 100000);
    fake_put(&f, "/sys/fs/cgroup/user/memory.current", "950000\n");
    assert_int_equal(cca_memory_available(f.root), 0);
    fake_done(&f);
}

static void version_1(void **state) {
    (void)state;
    fake_system f = make("9:name=systemd:/\n8:cpu,memory:/job\n7:memoryless:/\n");
    fake_put(&f, "/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "500000\n");
    fake_put(&f, "/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "450000\n");
    fake_put(&f, "/sys/fs/cgroup/memory/job/memory.stat",
             "inactive_file 1\ntotal_inactive_file 1000\ntotal_active_file 2000\n");
    fake_put(&f, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    fake_put(&f, "/sys/fs/cgroup/memory/memory.usage_in_bytes", "600000\n");
    assert_int_equal(cca_memory_available(f.root), 53000);
    fake_done(&f);
}

/* In a container the group's path may be one of outside: the mount has the limit. */
static void path_of_outside(void **state) {
    (void)state;
    fake_system f = make("0::/outside/here\n");
    fake_put(&f, "/sys/fs/cgroup/memory.max", "200000\n");
    fake_put(&f, "/sys/fs/cgroup/memory.current", "50000\n");
    assert_int_equal(cca_memory_available(f.root), 150000);
    fake_done(&f);
}

/* Memory that is touched is resident. */
static void resident(void **state) {
    (void)state;
    enum { BYTES = 64 << 20 };
    uint64_t before = cca_memory_resident();
    char *block = malloc(BYTES);
    assert_non_null(block);
    memset(block, 1, BYTES);
    uint64_t more = cca_memory_resident() - before;
    assert_true(before > 0 && more > BYTES / 10 * 9 && more < BYTES / 10 * 13);
    free(block);
}

/* Small sizes always, others as long as an eighth of what is available is left. */
static void what_can_be_had(void **state) {
    (void)state;
    enum { SMALL = 1 << 20 };
    uint64_t available = cca_memory_available("");
    assert_true(cca_memory_has(SMALL));
    assert_true(cca_memory_has(SMALL + 1) == (available / 8 * 7 > SMALL));
    assert_true(cca_memory_has((size_t)(available / 2)));
    assert_false(cca_memory_has((size_t)(available / 20 * 19)));
    assert_false(cca_memory_has(SIZE_MAX));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machine_alone), cmocka_unit_test(version_2),
        cmocka_unit_test(version_1),     cmocka_unit_test(path_of_outside),
        cmocka_unit_test(resident),      cmocka_unit_test(what_can_be_had),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
