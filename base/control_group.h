/* The control groups that this process is in, versions 1 and 2, and the numbers in their files.
 *
 *     static void look(void *user, const char *folder, int version) { ... }
 *
 *     cca_control_groups("", "memory", look, &least);     // its group, then those above
 *     uint64_t limit;
 *     if (cca_read_numbers(&limit, 1, "/sys/fs/cgroup/memory.max", NULL) == 1) ...
 *
 * Nothing here fails: what cannot be read is as if it were not there. root stands before /proc and
 * /sys: "" but in tests. */
#ifndef CCA_CONTROL_GROUP_H
#define CCA_CONTROL_GROUP_H

#include <stdint.h>

enum { CCA_GROUP_PATH = 1024 };

typedef void (*cca_group_fn)(void *user, const char *folder, int version);

/* Calls fn with the folder of each group that limits what a controller ("memory", "cpu") hands out,
 * version 1 or 2. In a container the path may be one of outside; then only the mount's own folder
 * has files. */
void cca_control_groups(const char *root, const char *controller, cca_group_fn fn, void *user);

/* Reads up to most numbers that follow key at a line's start, or that a file begins with where key
 * is NULL; returns how many there are. A word in a number's place ("max") ends them. */
int cca_read_numbers(uint64_t *out, int most, const char *path, const char *key);

#endif
