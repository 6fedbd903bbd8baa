/* Writes a GGUF file: keys and tensors are announced first, then the tensors' bytes come in
 * any pieces, then the file takes its name.
 *
 *     cca_gguf_writer *w;
 *     cca_gguf_writer_new(&w, "model.gguf", &err);
 *     cca_gguf_put_u32(w, "llama.block_count", 32);
 *     cca_gguf_put_tensor(w, "token_embd.weight", 2, (int64_t[]){4096, 32000}, CCA_F16, bytes);
 *     cca_gguf_writer_begin(w, &err);                      // the temporary file appears
 *     cca_gguf_writer_write(w, 0, at, data, n, &err);      // bytes of tensor 0
 *     cca_gguf_writer_finish(w, crcs, &err);               // checksums, header, sync
 *     ... read cca_gguf_writer_temporary(w) and check it ...
 *     cca_gguf_writer_commit(w, &err);                     // rename
 *     cca_gguf_writer_free(w);                             // without commit: nothing remains
 *
 * Failures to write are CCA_BAD_OUTPUT and name the file. The put functions return nothing:
 * a lack of memory in one of them is reported by begin. */
#ifndef CCA_GGUF_WRITE_H
#define CCA_GGUF_WRITE_H

#include "backend/dtype.h"
#include "gguf/gguf.h"

typedef struct cca_gguf_writer cca_gguf_writer;

/* Checks that path may be written to: it does not exist or is a regular file. A symbolic link
 * is followed, so that the file it names is replaced. */
cca_status cca_gguf_writer_new(cca_gguf_writer **out, const char *path, cca_error *err);

/* Keys must be different from each other; values are copied. */
void cca_gguf_put_u32(cca_gguf_writer *w, const char *key, uint32_t value);
void cca_gguf_put_f32(cca_gguf_writer *w, const char *key, float value);
void cca_gguf_put_bool(cca_gguf_writer *w, const char *key, bool value);
void cca_gguf_put_text(cca_gguf_writer *w, const char *key, const char *value);
/* A number or bool of the given type, little-endian. */
void cca_gguf_put_number(cca_gguf_writer *w, const char *key, cca_gguf_type type,
                         const void *value);
/* n numbers of the given type, little-endian, side by side. */
void cca_gguf_put_numbers(cca_gguf_writer *w, const char *key, cca_gguf_type type, uint64_t n,
                          const void *values);
void cca_gguf_put_strings(cca_gguf_writer *w, const char *key, uint64_t n,
                          const cca_gguf_string *values);
/* The keys of another file, as they are, but those that have been put before and those that
 * wanted does not want. */
void cca_gguf_put_others(cca_gguf_writer *w, const cca_gguf *file,
                         bool (*wanted)(const void *context, const char *key), const void *context);
void cca_gguf_put_tensor(cca_gguf_writer *w, const char *name, int n_dims, const int64_t *dims,
                         cca_dtype type, uint64_t bytes);

/* Adds the keys cca.crc32 and cca.fingerprint, opens the temporary file and takes its space. */
cca_status cca_gguf_writer_begin(cca_gguf_writer *w, cca_error *err);

/* n bytes of the tensor of that index (in the order of put_tensor), at bytes after its start. */
cca_status cca_gguf_writer_write(cca_gguf_writer *w, uint64_t index, uint64_t at, const void *data,
                                 size_t n, cca_error *err);

/* Writes the header with the tensors' checksums (zlib's crc32, one a tensor) and syncs. The
 * fingerprint is a hash of the keys that are not general.*, tokenizer.* or cca.*, and of all
 * names, shapes, types and checksums: equal where the models compute the same. */
cca_status cca_gguf_writer_finish(cca_gguf_writer *w, const uint32_t *crcs, cca_error *err);

const char *cca_gguf_writer_temporary(const cca_gguf_writer *w);

cca_status cca_gguf_writer_commit(cca_gguf_writer *w, cca_error *err);

/* Removes the temporary file unless it was committed; NULL is allowed. */
void cca_gguf_writer_free(cca_gguf_writer *w);

#endif
