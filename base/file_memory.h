/* Memory that lies in a file without a name: what is not used goes to the disk, and the end of the
 * process, however it comes, gives the space back.
 *
 *     cca_file_memory m;
 *     if (cca_file_memory_open(&m, "/var/cache/cca", bytes, &err) != CCA_OK) ...
 *     cca_file_memory_take(&m, at, n, &err);      // before m.data[at] … are written
 *     cca_file_memory_give(&m, at, n);            // they are needed no more
 *     cca_file_memory_close(&m);
 *
 * Failures are CCA_BAD_OUTPUT, or CCA_NO_MEMORY, and name the folder. */
#ifndef CCA_FILE_MEMORY_H
#define CCA_FILE_MEMORY_H

#include "base/base.h"

typedef struct cca_file_memory {
    uint8_t *data; /* zeros at first; read in no order, a page at a time */
    size_t size;
    int fd;
    char *folder;
} cca_file_memory;

/* Makes the file in a folder, which must be there; it takes no space yet. *out is zero after a
 * failure. */
cca_status cca_file_memory_open(cca_file_memory *out, const char *folder, size_t size,
                                cca_error *err);
/* Takes the space for bytes at … at + n - 1, so that writing them cannot fail; what they hold
 * stays. */
cca_status cca_file_memory_take(cca_file_memory *m, size_t at, size_t n, cca_error *err);
/* Gives the space of whole pages within these bytes back, where the file system can. */
void cca_file_memory_give(cca_file_memory *m, size_t at, size_t n);
/* A zeroed one is allowed. */
void cca_file_memory_close(cca_file_memory *m);

#endif
