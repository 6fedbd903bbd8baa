/* The model file: GGUF, versions 2 and 3, little-endian.
 *
 *     cca_gguf *file;
 *     cca_error err;
 *     if (cca_gguf_open(&file, "model.gguf", &err) != CCA_OK) puts(err.text);
 *     uint32_t n_layers;
 *     cca_gguf_u32(&n_layers, file, "llama.block_count", NULL, &err);
 *     const cca_gguf_tensor *t = cca_gguf_find(file, "token_embd.weight");
 *     cca_gguf_close(file);
 *
 * Parsing is apart from opening so that it can be fuzzed: it trusts no length, count,
 * offset or type of the file. Every failure names the file and the key, tensor or offset,
 * and is CCA_BAD_MODEL (CCA_NO_MEMORY where memory ran out). */
#ifndef CCA_GGUF_H
#define CCA_GGUF_H

#include "base/base.h"

typedef struct cca_gguf cca_gguf;

/* The types of metadata values, with the format's numbers. */
typedef enum cca_gguf_type {
    CCA_GGUF_U8 = 0,
    CCA_GGUF_I8 = 1,
    CCA_GGUF_U16 = 2,
    CCA_GGUF_I16 = 3,
    CCA_GGUF_U32 = 4,
    CCA_GGUF_I32 = 5,
    CCA_GGUF_F32 = 6,
    CCA_GGUF_BOOL = 7,
    CCA_GGUF_STRING = 8,
    CCA_GGUF_ARRAY = 9,
    CCA_GGUF_U64 = 10,
    CCA_GGUF_I64 = 11,
    CCA_GGUF_F64 = 12,
} cca_gguf_type;

/* Bytes of a number or bool; 0 for strings and arrays. */
size_t cca_gguf_value_bytes(cca_gguf_type type);

enum { CCA_GGUF_MAX_DIMS = 4 };

/* A tensor; dims[0] is the contiguous one, so a matrix out × in has dims {in, out}. */
typedef struct cca_gguf_tensor {
    const char *name;                /* NUL-terminated, no NUL inside */
    uint32_t n_dims;                 /* 1 … 4 */
    int64_t dims[CCA_GGUF_MAX_DIMS]; /* each ≥ 1; 1 beyond n_dims */
    uint32_t type;                   /* the file's number, perhaps one that does not run */
    uint64_t offset;                 /* from the start of the file */
    uint64_t bytes;   /* from type and dims; lies inside the file, overlaps no other tensor */
    const void *data; /* borrowed from the file's memory */
} cca_gguf_tensor;

/* Bytes that are not NUL-terminated and may hold NUL; borrowed from the file's memory. */
typedef struct cca_gguf_string {
    const char *bytes;
    size_t size;
} cca_gguf_string;

/* An array of numbers, bools or strings (arrays of arrays are refused). */
typedef struct cca_gguf_array {
    cca_gguf_type type;
    uint64_t n;
    const void *data;               /* numbers: unaligned little-endian values; strings: internal */
    const cca_gguf_string *strings; /* n strings where type is CCA_GGUF_STRING, else NULL */
} cca_gguf_array;

/* Parses size bytes at data, which must stay there as long as *out lives; name is for
 * messages and is copied. On failure *out is NULL. */
cca_status cca_gguf_parse(cca_gguf **out, const void *data, size_t size, const char *name,
                          cca_error *err);

/* Maps the file read-only and parses it. A file in several parts is opened by the name of its
 * first, NAME-00001-of-0000N.gguf, and has the tensors of all. */
cca_status cca_gguf_open(cca_gguf **out, const char *path, cca_error *err);

/* Opens a patch, and puts its tensors and keys in the place of the file's, which then is no longer
 * what its own checksums and fingerprint say. A patch tells in cca.patch.tensors and
 * cca.patch.crc32 (names, and zlib's crc32 of their bytes) all tensors of the file that it is for,
 * and perhaps in cca.patch.base what that is called; its architecture is the same, and its tensors
 * have the shapes of the file's, in any type. CCA_BAD_MODEL for a file with other weights, which
 * may then have a part of the patch and is to be closed. */
cca_status cca_gguf_patch(cca_gguf *file, const char *path, cca_error *err);

/* Frees and unmaps; NULL is allowed. */
void cca_gguf_close(cca_gguf *file);

/* Whether it is one part of several of which the others were not opened. */
bool cca_gguf_is_part(const cca_gguf *file);

/* The name given at opening, for messages, and the size of the file (of all its parts) in bytes. */
const char *cca_gguf_name(const cca_gguf *file);
uint64_t cca_gguf_size(const cca_gguf *file);

uint64_t cca_gguf_n_tensors(const cca_gguf *file);
const cca_gguf_tensor *cca_gguf_tensor_at(const cca_gguf *file, uint64_t index);
/* By name, in logarithmic time; NULL if there is none. */
const cca_gguf_tensor *cca_gguf_find(const cca_gguf *file, const char *name);

/* "Q4_K" and so on for any type number of the format; "type 99" never fails (static or
 * thread-local text). */
const char *cca_gguf_type_name(uint32_t type);

uint64_t cca_gguf_n_keys(const cca_gguf *file);
const char *cca_gguf_key_at(const cca_gguf *file, uint64_t index, cca_gguf_type *type);
bool cca_gguf_has(const cca_gguf *file, const char *key);
/* The value of a number or bool as the file holds it: unaligned little-endian bytes, as many as
 * its type has; NULL for strings and arrays. */
const void *cca_gguf_number_at(const cca_gguf *file, uint64_t index);

/* Typed values. A missing key takes *fallback, or fails where fallback is NULL; a key of
 * the wrong type or out of range always fails. Integers may be stored in any integer type,
 * f32 also as f64 or as an integer, a bool as an integer that is 0 or 1. */
cca_status cca_gguf_u32(uint32_t *out, const cca_gguf *file, const char *key,
                        const uint32_t *fallback, cca_error *err);
cca_status cca_gguf_u64(uint64_t *out, const cca_gguf *file, const char *key,
                        const uint64_t *fallback, cca_error *err);
cca_status cca_gguf_f32(float *out, const cca_gguf *file, const char *key, const float *fallback,
                        cca_error *err);
cca_status cca_gguf_bool(bool *out, const cca_gguf *file, const char *key, const bool *fallback,
                         cca_error *err);
cca_status cca_gguf_str(cca_gguf_string *out, const cca_gguf *file, const char *key,
                        const cca_gguf_string *fallback, cca_error *err);
/* The id of a token: -1 where the key is missing or holds what writers put for "none", -1 or
 * 4294967295. */
cca_status cca_gguf_token(int32_t *out, const cca_gguf *file, const char *key, cca_error *err);
/* A missing key gives n = 0 where required is false. */
cca_status cca_gguf_arr(cca_gguf_array *out, const cca_gguf *file, const char *key, bool required,
                        cca_error *err);

/* Element i of an array of numbers or bools, converted; strings and i ≥ n give 0. */
double cca_gguf_array_number(const cca_gguf_array *array, uint64_t i);

/* Where the parts of a file lie: its keys end and the tensors' entries begin, those end, and,
 * behind padding, the tensors' data begins (perhaps behind the end of a file that has none). */
typedef struct cca_gguf_layout {
    const uint8_t *bytes; /* size of them, borrowed */
    size_t size, keys_end, entries_end, data_start, alignment;
} cca_gguf_layout;
cca_gguf_layout cca_gguf_layout_of(const cca_gguf *file);

/* Sixteen hexadecimal digits that are equal where two files compute the same: the key
 * cca.fingerprint, else a hash of the header and of the ends of each tensor. The key is a claim,
 * which tools copy that change the weights. */
enum { CCA_GGUF_FINGERPRINT = 16 };
void cca_gguf_fingerprint(char out[CCA_GGUF_FINGERPRINT + 1], const cca_gguf *file);
/* Sixteen digits of what the file holds, whatever it claims: the keys of the model, and of each
 * tensor name, type, shape and bytes. Of files above 32 MiB pieces of each tensor stand for all of
 * it, both ends among them; so this takes some milliseconds, and a change of few values may go
 * unseen. */
void cca_gguf_look(char out[CCA_GGUF_FINGERPRINT + 1], const cca_gguf *file);
/* Whether a key says how the model computes: not what it is called, its text, and what is CCA's
 * own. The key cca.fingerprint is cca_hash of all such keys as they stand, of the tensors' entries
 * and of their checksums. */
bool cca_gguf_key_of_model(const char *key);

/* Compares the bytes of each tensor with the key cca.crc32 (an array of u32, one a tensor in
 * file order), and what cca.fingerprint claims with what the file is. *checked is false where the
 * file has no checksums. CCA_BAD_MODEL names the first tensor that differs. Reads the whole file,
 * on all cores. */
cca_status cca_gguf_check_crc(bool *checked, const cca_gguf *file, cca_error *err);

#endif
