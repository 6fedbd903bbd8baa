/* A folder as a disk has it: what is there for sure, and what was done since and may be there or
 * not, each piece for itself.
 *
 *     disk *d = disk_new(files, n);                 // all of that is there
 *     disk_do(d, &op);                              // writes come in pieces of 512 bytes
 *     for each set of disk_pending(d) pieces:
 *         disk_state s = disk_cut(d, mask);         // the power goes: these pieces, in their order
 *         ... s.files ...
 *         disk_state_free(&s);
 *     disk_free(d);
 *
 * What a sync does not cover may be lost or kept piece by piece, as if the disk had taken any of it
 * first: a sector of a write, a file's new length, a truncation, a hole, a name. A sector is whole,
 * a rename has both names or none of it, and bytes that were never written are zero. */
#ifndef CCA_CRASH_DISK_H
#define CCA_CRASH_DISK_H

#include "tests/crash/record.h"

typedef struct disk disk;

typedef struct disk_file {
    const char *name; /* borrowed from disk or log */
    uint64_t inode;
    uint8_t *data; /* NULL: a folder */
    size_t size;
} disk_file;

/* Files and folders in no order. */
typedef struct disk_state {
    disk_file *files;
    size_t n;
} disk_state;

/* Takes copies of what files have; their names are borrowed. */
disk *disk_new(const disk_file *files, size_t n);
void disk_do(disk *d, const op *o);
size_t disk_pending(const disk *d);
/* The first of the pieces that the last operation made. */
size_t disk_last(const disk *d);
/* mask [disk_pending]: which of the pieces are there; NULL: all. The caller frees it. */
disk_state disk_cut(const disk *d, const bool *mask);
uint64_t disk_hash(const disk_state *s);
const disk_file *disk_find(const disk_state *s, const char *name);
void disk_state_free(disk_state *s);
void disk_free(disk *d);

#endif
