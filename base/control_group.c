#include "base/control_group.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int numbers_of(uint64_t *out, int most, const char *text) {
    int n = 0;
    for (char *end; n < most; n++, text = end) {
        text += strspn(text, " \t");
        if (*text < '0' || *text > '9') break; /* -1 says that there is no limit */
        errno = 0;
        out[n] = strtoull(text, &end, 10);
        if (errno != 0) break;
    }
    return n;
}

int cca_read_numbers(uint64_t *out, int most, const char *path, const char *key) {
    char line[256];
    size_t skip = key ? strlen(key) : 0;
    int n = 0;
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    while (n == 0 && fgets(line, sizeof line, file)) {
        if (!key || strncmp(line, key, skip) == 0) n = numbers_of(out, most, line + skip);
        if (!key) break;
    }
    fclose(file);
    return n;
}

/* Whether a comma-separated list has a word. */
static bool has_word(const char *list, const char *word) {
    for (const char *at = list;; at++) {
        size_t size = strcspn(at, ",");
        if (size == strlen(word) && memcmp(at, word, size) == 0) return true;
        at += size;
        if (!*at) return false;
    }
}

/* A group and those above it, up to the mount. */
static void walk_up(const char *base, const char *group, int version, cca_group_fn fn, void *user) {
    char folder[CCA_GROUP_PATH];
    size_t n_base = strlen(base), size = n_base + strlen(group);
    if (size >= sizeof folder) return;
    memcpy(folder, base, n_base);
    memcpy(folder + n_base, group, size - n_base + 1);
    for (;;) {
        fn(user, folder, version);
        if (strlen(folder) <= n_base) return;
        *strrchr(folder, '/') = '\0';
    }
}

/* A line of /proc/self/cgroup is "number:controllers:path"; version 2 names no controllers. */
void cca_control_groups(const char *root, const char *controller, cca_group_fn fn, void *user) {
    char path[CCA_GROUP_PATH], line[CCA_GROUP_PATH], base[CCA_GROUP_PATH];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
        if (!group) continue;
        *group++ = '\0';
        int version = list[1] == '\0' ? 2 : 1;
        if (version == 1 && !has_word(list + 1, controller)) continue;
        bool apart = version == 1; /* each controller has a tree of its own */
        snprintf(base, sizeof base, "%s/sys/fs/cgroup%s%s", root, apart ? "/" : "",
                 apart ? controller : "");
        walk_up(base, group, version, fn, user);
    }
    fclose(file);
}
