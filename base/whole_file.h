/* A file that takes its name when it is whole: written beside its place, synced, renamed.
 *
 *     cca_whole_file f;
 *     cca_whole_open(&f, "model.gguf", &err);
 *     cca_whole_begin(&f, size, &err);               // the temporary file appears
 *     cca_whole_write(&f, at, data, n, &err);        // in any order
 *     cca_whole_sync(&f, &err);
 *     ... read f.temporary and check it ...
 *     cca_whole_commit(&f, &err);                    // rename
 *     cca_whole_close(&f);                           // without commit: nothing remains
 *
 * The temporary file is locked (its first byte, file_lock.h) for as long as it is open, and so is
 * the file that it becomes. One that nobody has locked is what a killed process left: the next
 * writer of the same file removes it.
 *
 * Failures to write are CCA_BAD_OUTPUT, name the file, and leave errno. */
#ifndef CCA_WHOLE_FILE_H
#define CCA_WHOLE_FILE_H

#include "base/base.h"

typedef struct cca_whole_file {
    char *path;      /* the file's place; owned */
    char *temporary; /* its name until commit, then NULL; owned */
    bool owner_only; /* of a new file: others may not even read it; to be set before begin */
    bool alone;      /* where somebody else is making this file begin is CCA_RUNTIME; the same */
    int fd;          /* for reading and writing until close; -1: not begun */
} cca_whole_file;

/* Whether there is a file that may not be replaced: one that is no regular file, or that this
 * process may not write (nobody's write permission is read-only even to root), though its folder
 * would allow it. Changes nothing. */
cca_status cca_whole_check(const char *path, cca_error *err);
/* Checks that, too. Symbolic links are followed, so that the file they name is
 * replaced, or made. Who wants
 * neither begins with {.path = a copy of the name, .fd = -1}. */
cca_status cca_whole_open(cca_whole_file *f, const char *path, cca_error *err);
/* Opens the temporary file and takes the space for size bytes, if they are known, at once, where
 * the file system can: a full disk shows now, not in an hour. It has the permissions of the file
 * that it will replace, and its owner and group where that is allowed. */
cca_status cca_whole_begin(cca_whole_file *f, uint64_t size, cca_error *err);
/* n bytes at an offset. */
cca_status cca_whole_write(cca_whole_file *f, uint64_t offset, const void *data, size_t n,
                           cca_error *err);
cca_status cca_whole_sync(cca_whole_file *f, cca_error *err);
/* Gives what was synced its name. The file stays open; after a failure it may be tried again. */
cca_status cca_whole_commit(cca_whole_file *f, cca_error *err);
/* Also of a file that is closed already, or zeroed. */
void cca_whole_close(cca_whole_file *f);

/* Makes a name that was given or taken away, of a file or a folder, last through a power cut. File
 * systems that cannot do this are no failure. */
void cca_whole_sync_name(const char *path);

/* Removes a temporary file, by its own name, that a killed process left; true where it is gone,
 * false while somebody is writing it. */
bool cca_whole_remove_leftover(const char *temporary);
/* Removes the temporary files of this process, for one that ends at once. May be called by a signal
 * handler. */
void cca_whole_abandon(void);

#endif
