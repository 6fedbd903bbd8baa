/* What gguf_parse.c (parsing), gguf_split.c (files in parts), gguf_patch.c (patches) and
 * gguf_values.c (looking up) share; nobody else needs it. */
#ifndef CCA_GGUF_FILE_H
#define CCA_GGUF_FILE_H

#include "base/mapping.h"
#include "gguf/gguf.h"

/* A key and its value: one of number, string, array is there, as type says. */
typedef struct cca_gguf_key {
    char *name;
    const uint8_t *bytes; /* all of it, n_bytes, name and type included */
    size_t n_bytes;
    cca_gguf_type type;
    const uint8_t *number; /* unaligned little-endian bytes */
    cca_gguf_string string;
    cca_gguf_array array;
} cca_gguf_key;

/* A name and where it stands in the table of keys or tensors. */
typedef struct cca_gguf_entry {
    const char *name;
    uint64_t index;
} cca_gguf_entry;

struct cca_gguf {
    const uint8_t *data;
    size_t size;
    char *name;
    cca_mapping mapping; /* data, where the file was opened by its path */
    size_t keys_end, entries_end, data_start, alignment;
    uint64_t n_keys, n_tensors;
    cca_gguf_key *keys;
    cca_gguf_tensor *tensors;
    cca_gguf_entry *key_index, *tensor_index; /* sorted by name */
    cca_gguf **parts; /* the other parts of a file that is in several, and patches; their tensors
                         are among these */
    uint64_t n_parts;
};

/* The order of entries by name, for qsort. */
int cca_gguf_compare_entries(const void *a, const void *b);
/* By name, in logarithmic time; NULL if there is none. */
const cca_gguf_key *cca_gguf_find_key(const cca_gguf *file, const char *name);
/* Maps and parses one file, whatever it is a part of. */
cca_status cca_gguf_open_one(cca_gguf **out, const char *path, cca_error *err);
/* Opens the other parts of a file that says there are some, and takes their tensors. */
cca_status cca_gguf_join(cca_gguf *first, cca_error *err);
/* The checksum (zlib's crc32) of each tensor's bytes, in file order, on all cores. */
cca_status cca_gguf_crcs(uint32_t *out, const cca_gguf *file, cca_error *err);

#endif
