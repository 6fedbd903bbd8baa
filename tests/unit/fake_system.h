/* Files of /proc and /sys under a folder of their own.
 *
 *     fake_system f = fake_make("0::/user/me\n");       // /proc/self/cgroup
 *     fake_put(&f, "/sys/fs/cgroup/memory.max", "max\n");
 *     ... cca_memory_available(f.root) ...
 *     fake_done(&f); */
#ifndef CCA_TEST_FAKE_SYSTEM_H
#define CCA_TEST_FAKE_SYSTEM_H

#include "tests/unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

typedef struct fake_system {
    char root[64];
} fake_system;

/* Writes a file, and the folders that it stands in. */
static inline void fake_put(const fake_system *f, const char *path, const char *text) {
    char full[512];
    snprintf(full, sizeof full, "%s%s", f->root, path);
    for (char *at = full + strlen(f->root) + 1; (at = strchr(at, '/')); *at++ = '/') {
        *at = '\0';
        mkdir(full, 0700);
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static inline fake_system fake_make(const char *cgroup) {
    fake_system f = {"/tmp/cca-system-XXXXXX"};
    assert_non_null(mkdtemp(f.root));
    fake_put(&f, "/proc/self/cgroup", cgroup);
    return f;
}

static inline void fake_done(const fake_system *f) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", f->root);
    assert_int_equal(system(command), 0);
}

#endif
