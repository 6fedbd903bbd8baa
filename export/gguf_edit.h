/* Changes what a model file says about CCA-Attention, and nothing else of it.
 *
 *     if (cca_gguf_check_writable("model.gguf", &err)) ...          // before long work
 *     if (cca_gguf_set_sizes("model.gguf", 16, 256, &err)) ...
 *
 * The fingerprint of a file that names one and the checksums stay right: neither covers these
 * keys. */
#ifndef CCA_GGUF_EDIT_H
#define CCA_GGUF_EDIT_H

#include "base/base.h"

/* CCA_BAD_OUTPUT where the file may not be written: its permissions (nobody's write permission is
 * read-only even to root), a read-only file system, no regular file. Changes nothing. */
cca_status cca_gguf_check_writable(const char *path, cca_error *err);

/* Sets the keys cca.group_size and cca.window_size. Where both are there and lie in one sector of
 * 512 bytes, which disks write whole, they are written in place; else the file is written anew
 * beside itself, with its permissions, and takes its name when it is complete: so it has both
 * numbers or neither whatever happens. CCA_USAGE unless 1 ≤ group_size and window_size is a
 * multiple of it, CCA_BAD_MODEL for a file that is none or whose keys have a type that cannot hold
 * the numbers, CCA_BAD_OUTPUT with the file as it was, CCA_NO_MEMORY. */
cca_status cca_gguf_set_sizes(const char *path, int64_t group_size, int64_t window_size,
                              cca_error *err);

#endif
