/* Builds what a power cut can leave at each moment of a log, and compares it with what was promised
 * by then.
 *
 *     explorer e = {.folder = "disk", .n_random = 64, .all_below = 8, .name = "export"};
 *     explore(&e, &start, &log);          // start: what the folder had before
 *     ... e.n_wrong ...
 *     explorer_free(&e);
 *
 * At each operation: nothing of what is pending, all of it, the last operation torn behind each of
 * its pieces, each of these lost alone; all sets where there are few pieces, else random ones. */
#ifndef CCA_CRASH_EXPLORE_H
#define CCA_CRASH_EXPLORE_H

#include "tests/crash/disk.h"
#include "tests/crash/reader.h"

typedef struct explorer explorer;
struct explorer {
    const char *name, *folder;
    int n_random;     /* sets an operation */
    size_t all_below; /* pieces, of which all sets are tried */
    uint64_t seed;
    /* Called with each every-th state, which stands in the folder, unless NULL: false, with why,
     * where the program does not go on from it. */
    bool (*go_on)(explorer *e, const disk_state *s, char why[1024]);
    long every;
    long n_ops, n_states, n_distinct, n_refused, n_gone_on, n_inner, n_wrong;
    uint64_t *seen;
    size_t n_seen, seen_capacity;
};

void explore(explorer *e, const disk_state *start, const record_log *log);
void explorer_free(explorer *e);

/* Makes the folder what the state says, and notes the inodes that files got. */
void place(const char *folder, disk_state *s);

#endif
