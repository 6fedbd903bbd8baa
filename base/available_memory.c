#include "base/available_memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LONGEST_PATH = 1024 };

/* The number behind key at a line's start, or a file's first number where key is NULL. A word in
 * its place ("max") is no number. */
static bool read_number(uint64_t *out, const char *path, const char *key) {
    char line[256];
    size_t skip = key ? strlen(key) : 0;
    bool found = false;
    FILE *file = fopen(path, "re");
    if (!file) return false;
    while (!found && fgets(line, sizeof line, file)) {
        bool is_line = !key || strncmp(line, key, skip) == 0;
        found = is_line && sscanf(line + skip, " %" SCNu64, out) == 1;
        if (!key) break;
    }
    fclose(file);
    return found;
}

/* The files of a control group. */
typedef struct group_files {
    const char *limit, *used, *inactive, *active;
} group_files;

static const group_files version_1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                      "total_inactive_file ", "total_active_file "};
static const group_files version_2 = {"memory.max", "memory.current", "inactive_file ",
                                      "active_file "};

/* What a group may still take; its cached files can go. */
static uint64_t group_room(const char *folder, const group_files *files) {
    char path[LONGEST_PATH + 64];
    uint64_t limit, used, cached, inactive = 0, active = 0;
    snprintf(path, sizeof path, "%s/%s", folder, files->limit);
    if (!read_number(&limit, path, NULL)) return UINT64_MAX;
    snprintf(path, sizeof path, "%s/%s", folder, files->used);
    if (!read_number(&used, path, NULL)) return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    (void)read_number(&inactive, path, files->inactive);
    (void)read_number(&active, path, files->active);
    cached = inactive + active;
    used -= cached < used ? cached : used;
    return limit > used ? limit - used : 0;
}

/* The least room of a group and those above it. In a container the path may be one of outside; then
 * only the mount's own folder is there. */
static uint64_t groups_room(const char *root, const char *mount, const char *group,
                            const group_files *files) {
    char folder[LONGEST_PATH];
    uint64_t least = UINT64_MAX;
    size_t base = (size_t)snprintf(folder, sizeof folder, "%s%s", root, mount);
    size_t size = base + strlen(group);
    if (size >= sizeof folder) return least;
    memcpy(folder + base, group, size - base + 1);
    for (;;) {
        uint64_t room = group_room(folder, files);
        if (room < least) least = room;
        if (strlen(folder) <= base) return least;
        *strrchr(folder, '/') = '\0';
    }
}

/* Whether a comma-separated list has "memory". */
static bool has_memory(const char *list) {
    for (const char *at = list;; at++) {
        size_t size = strcspn(at, ",");
        if (size == 6 && memcmp(at, "memory", size) == 0) return true;
        at += size;
        if (!*at) return false;
    }
}

/* A line is "number:controllers:path"; version 2 names no controllers. */
static uint64_t control_room(const char *root) {
    char path[LONGEST_PATH], line[LONGEST_PATH];
    uint64_t least = UINT64_MAX;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    if (!file) return least;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        if (!group) continue;
        *group++ = '\0';
        uint64_t room = UINT64_MAX;
        if (list[1] == '\0') room = groups_room(root, "/sys/fs/cgroup", group, &version_2);
        if (has_memory(list + 1)) {
            room = groups_room(root, "/sys/fs/cgroup/memory", group, &version_1);
        }
        if (room < least) least = room;
    }
    fclose(file);
    return least;
}

uint64_t cca_memory_available(const char *root) {
    char path[LONGEST_PATH];
    uint64_t kilobytes, available = UINT64_MAX, room = control_room(root);
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (read_number(&kilobytes, path, "MemAvailable:")) available = kilobytes * 1024;
    return room < available ? room : available;
}

uint64_t cca_memory_resident(void) {
    uint64_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file) return 0;
    if (fscanf(file, "%*u %" SCNu64, &pages) != 1) pages = 0;
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}
