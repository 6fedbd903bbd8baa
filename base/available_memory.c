#include "base/available_memory.h"

#include "base/control_group.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

/* The files of a control group, by its version. */
static const struct group_files {
    const char *limit, *used, *inactive, *active;
} files_of[] = {
    [1] = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ",
           "total_active_file "},
    [2] = {"memory.max", "memory.current", "inactive_file ", "active_file "},
};

/* Lowers *least to what a group may still take; its cached files can go. */
static void look_at_group(void *least, const char *folder, int version) {
    const struct group_files *files = &files_of[version];
    char path[CCA_GROUP_PATH + 64];
    uint64_t limit, used, cached, inactive = 0, active = 0;
    snprintf(path, sizeof path, "%s/%s", folder, files->limit);
    if (!cca_read_numbers(&limit, 1, path, NULL)) return;
    snprintf(path, sizeof path, "%s/%s", folder, files->used);
    if (!cca_read_numbers(&used, 1, path, NULL)) return;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    (void)cca_read_numbers(&inactive, 1, path, files->inactive);
    (void)cca_read_numbers(&active, 1, path, files->active);
    cached = inactive + active;
    used -= cached < used ? cached : used;
    uint64_t room = limit > used ? limit - used : 0;
    if (room < *(uint64_t *)least) *(uint64_t *)least = room;
}

uint64_t cca_memory_available(const char *root) {
    char path[CCA_GROUP_PATH];
    uint64_t kilobytes, least = UINT64_MAX;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (cca_read_numbers(&kilobytes, 1, path, "MemAvailable:")) least = kilobytes * 1024;
    cca_control_groups(root, "memory", look_at_group, &least);
    return least;
}

bool cca_memory_has(size_t bytes) {
    enum { SMALL = 1 << 20, SPARE = 8 };
    if (bytes <= SMALL) return true;
    uint64_t available = cca_memory_available("");
    return bytes <= available - available / SPARE;
}

uint64_t cca_memory_resident(void) {
    uint64_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file) return 0;
    if (fscanf(file, "%*u %" SCNu64, &pages) != 1) pages = 0;
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}
