/* Locks on single bytes of files, between processes, for as long as a file is open.
 *
 *     if (cca_lock(fd, F_WRLCK, 0) == CCA_LOCK_BUSY) ...      // somebody else has it
 *     if (!cca_still_named(fd, path)) ...                     // it was replaced in the meantime
 *
 * What is locked is the open file, not the process: two opens of one file keep each other out. */
#ifndef CCA_FILE_LOCK_H
#define CCA_FILE_LOCK_H

#include <fcntl.h>
#include <stdbool.h>

typedef enum cca_lock_result {
    CCA_LOCK_DONE,
    CCA_LOCK_BUSY,    /* somebody else holds a lock that is in the way */
    CCA_LOCK_UNKNOWN, /* a file system without locks has nobody to keep out, or nobody to tell */
} cca_lock_result;

/* F_WRLCK, F_RDLCK or F_UNLCK of a byte, at once. */
cca_lock_result cca_lock(int fd, short type, off_t byte);

/* Whether path, behind symbolic links, is still the file that fd has open. */
bool cca_still_named(int fd, const char *path);

#endif
