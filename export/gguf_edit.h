/* Changes what a model file says about CCA-Attention, and nothing else of it.
 *
 *     if (cca_gguf_check_writable("model.gguf", &err)) ...          // before long work
 *     cca_gguf_attention a = {.group_size = 16, .window_size = 256, .sinks = 16, .cores = true};
 *     if (cca_gguf_set_attention("model.gguf", &a, &err)) ...
 *
 * The fingerprint of a file that names one and the checksums stay right: neither covers these
 * keys. */
#ifndef CCA_GGUF_EDIT_H
#define CCA_GGUF_EDIT_H

#include "base/base.h"

/* CCA_BAD_OUTPUT where the file may not be written: its permissions (nobody's write permission is
 * read-only even to root), a read-only file system, no regular file. Changes nothing. */
cca_status cca_gguf_check_writable(const char *path, cca_error *err);

/* In tokens; recall 0: none. */
typedef struct cca_gguf_attention {
    int64_t group_size, window_size, sinks, recall;
    bool cores;
} cca_gguf_attention;

/* Sets the keys cca.group_size, window_size, sinks, recall and cores. Where none is missing and
 * those that change lie in one sector of 512 bytes, which disks write whole, they are written in
 * place; else the file is written anew beside itself, with its permissions, and takes its name when
 * it is complete: so it has all the numbers or none whatever happens. CCA_USAGE unless
 * 1 ≤ group_size and the others are multiples of it, CCA_BAD_MODEL for a file that is none or whose
 * keys have a type that cannot hold the numbers, CCA_BAD_OUTPUT with the file as it was,
 * CCA_NO_MEMORY. */
cca_status cca_gguf_set_attention(const char *path, const cca_gguf_attention *a, cca_error *err);

#endif
