/* A file mapped read-only into memory.
 *
 *     cca_mapping m;
 *     if (cca_mapping_open(&m, "model.gguf", &err) != CCA_OK) ...
 *     ... m.data[0] … m.data[m.size - 1] ...
 *     cca_mapping_close(&m); */
#ifndef CCA_MAPPING_H
#define CCA_MAPPING_H

#include "base/base.h"

typedef struct cca_mapping {
    const uint8_t *data;
    size_t size;
} cca_mapping;

/* CCA_BAD_MODEL where there is no such file, or it is a folder, empty, not a regular file, or what
 * stands in place of another one, such as a Git LFS pointer; *out is zero then. */
cca_status cca_mapping_open(cca_mapping *out, const char *path, cca_error *err);

/* Zeroes *m; a zeroed one is allowed. */
void cca_mapping_close(cca_mapping *m);

/* The name of the file that is mapped at an address, by whomever, with '?' in place of control
 * characters; false where there is none. Reading a mapped file behind an end that has moved, or
 * where its disk fails, raises SIGBUS: a signal handler may ask which one that was. */
bool cca_mapping_file_at(char *out, size_t size, const void *address);

/* Tells the system that these bytes of a mapping are not needed soon, so that reading a large
 * file once does not fill the memory of the process. They can still be read. */
void cca_mapping_forget(const void *data, size_t bytes);
/* Tells it that these bytes will be read: it begins to, and does not wait. */
void cca_mapping_want(const void *data, size_t bytes);

#endif
