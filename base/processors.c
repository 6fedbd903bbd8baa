#include "base/processors.h"

#include "base/base.h"
#include "base/control_group.h"
#include "base/team.h"
#include "base/workers.h"

#include <sched.h>
#include <stdio.h>

/* Lowers *least to a group's share of time, in whole processors. */
static void look_at_group(void *least, const char *folder, int version) {
    char path[CCA_GROUP_PATH + 64];
    uint64_t quota[2]; /* microseconds of each period, and that */
    snprintf(path, sizeof path, "%s/%s", folder, version == 2 ? "cpu.max" : "cpu.cfs_quota_us");
    int n = cca_read_numbers(quota, 2, path, NULL);
    if (n == 1 && version == 1) {
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
        n += cca_read_numbers(&quota[1], 1, path, NULL);
    }
    if (n < 2 || quota[1] == 0) return;
    uint64_t whole = quota[0] / quota[1];
    if (whole < *(uint64_t *)least) *(uint64_t *)least = whole;
}

static int within_bounds(const char *root, int n) {
    int told = cca_team_most();
    uint64_t least = (uint64_t)cca_min(told ? told : CCA_MOST_THREADS, CCA_MOST_THREADS);
    cca_control_groups(root, "cpu", look_at_group, &least);
    return (int)cca_max(1, cca_min(n, (int64_t)least));
}

/* The first of a core's hardware threads, from sysfs; the CPU itself where that is unknown. */
static int first_sibling(const char *root, int cpu) {
    char path[CCA_GROUP_PATH];
    uint64_t first;
    snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
             root, cpu);
    bool known = cca_read_numbers(&first, 1, path, NULL) == 1 && first < CPU_SETSIZE;
    return known ? (int)first : cpu;
}

int cca_processors(const char *root) {
    cpu_set_t allowed;
    cca_team_cpus(&allowed);
    return within_bounds(root, CPU_COUNT(&allowed));
}

int cca_physical_cores(const char *root) {
    cpu_set_t allowed, cores;
    CPU_ZERO(&cores);
    cca_team_cpus(&allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed)) CPU_SET(first_sibling(root, cpu), &cores);
    }
    return within_bounds(root, CPU_COUNT(&cores));
}
