#include "gguf/gguf.h"

#include "backend/dtype.h"
#include "base/file_kind.h"
#include "gguf/gguf_file.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Least bytes that a key (name of one byte, type, value of one byte) and a tensor (name of one
 * byte, one dimension) take in a file: a count that promises more is refused unread. */
enum { MIN_KEY_BYTES = 8 + 1 + 4 + 1, MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8 };
enum { DEFAULT_ALIGNMENT = 32, MIN_ALIGNMENT = 8, MAX_ALIGNMENT = 1 << 30 };

const char *cca_gguf_type_name(uint32_t type) {
    static _Thread_local char text[24];
    const cca_dtype_facts *facts = cca_dtype_find(type);
    if (facts) return facts->name;
    snprintf(text, sizeof text, "type %u", type);
    return text;
}

/* Walks the file once from its start. The first failure sticks: from then on everything that
 * is taken is zero, so that callers look at status only where it matters. */
typedef struct reader {
    cca_gguf *file;
    size_t at;
    const char *kind; /* what is being read, for messages: "header", "key", "tensor" */
    uint64_t index;
    const char *name; /* of the key or tensor, once it is known */
    cca_status status;
    cca_error *err;
} reader;

__attribute__((format(printf, 2, 3))) static void fail(reader *r, const char *format, ...) {
    if (r->status) return;
    char what[512], text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (r->name) {
        snprintf(what, sizeof what, "%s '%s'", r->kind, r->name);
    } else if (strcmp(r->kind, "header") == 0) {
        snprintf(what, sizeof what, "header");
    } else {
        snprintf(what, sizeof what, "%s number %llu", r->kind, (unsigned long long)r->index);
    }
    r->status = cca_fail(r->err, CCA_BAD_MODEL, "%s: %s: %s", r->file->name, what, text);
}

static void fail_memory(reader *r, size_t bytes) {
    if (r->status) return;
    r->status =
        cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory for %zu bytes", r->file->name, bytes);
}

static size_t bytes_left(const reader *r) {
    return r->file->size - r->at;
}

/* The next n bytes, or NULL. */
static const uint8_t *take(reader *r, size_t n) {
    if (r->status) return NULL;
    if (n > bytes_left(r)) {
        fail(r, "truncated: %zu bytes at offset %zu, but the file ends at %zu", n, r->at,
             r->file->size);
        return NULL;
    }
    const uint8_t *bytes = r->file->data + r->at;
    r->at += n;
    return bytes;
}

static uint32_t take_u32(reader *r) {
    uint32_t value = 0;
    const uint8_t *bytes = take(r, sizeof value);
    if (bytes) memcpy(&value, bytes, sizeof value);
    return value;
}

static uint64_t take_u64(reader *r) {
    uint64_t value = 0;
    const uint8_t *bytes = take(r, sizeof value);
    if (bytes) memcpy(&value, bytes, sizeof value);
    return value;
}

static cca_gguf_string take_string(reader *r) {
    uint64_t size = take_u64(r);
    const uint8_t *bytes = take(r, size);
    return (cca_gguf_string){.bytes = (const char *)bytes, .size = bytes ? size : 0};
}

/* A name becomes a C string and part of messages: no NUL, no control characters. */
static char *take_name(reader *r) {
    size_t at = r->at;
    cca_gguf_string s = take_string(r);
    if (r->status) return NULL;
    if (s.size == 0) fail(r, "empty name at offset %zu", at);
    for (size_t i = 0; i < s.size; i++) {
        if (iscntrl((unsigned char)s.bytes[i])) {
            fail(r, "control character in name, offset %zu", at);
        }
    }
    if (r->status || !s.bytes) return NULL;
    char *name = malloc(s.size + 1);
    if (!name) {
        fail_memory(r, s.size + 1);
        return NULL;
    }
    memcpy(name, s.bytes, s.size);
    name[s.size] = '\0';
    return name;
}

/* Memory for a table of n things, each of which takes at least min_file_bytes in the file. */
static void *new_table(reader *r, uint64_t n, const char *what, size_t each,
                       size_t min_file_bytes) {
    size_t bytes;
    if (r->status || n == 0) return NULL;
    if (n > bytes_left(r) / min_file_bytes || !cca_mul(&bytes, n, each)) {
        fail(r, "%llu %s cannot fit into the %zu bytes after offset %zu", (unsigned long long)n,
             what, bytes_left(r), r->at);
        return NULL;
    }
    void *table = calloc(n, each);
    if (!table) fail_memory(r, bytes);
    return table;
}

/* --- keys ---------------------------------------------------------------------------- */

static void take_array(reader *r, cca_gguf_array *out) {
    uint32_t type = take_u32(r);
    uint64_t n = take_u64(r);
    if (r->status) return;
    if (type == CCA_GGUF_ARRAY) {
        fail(r, "array of arrays, offset %zu", r->at);
    } else if (type > CCA_GGUF_F64) {
        fail(r, "array of unknown type %u, offset %zu", type, r->at);
    }
    out->type = (cca_gguf_type)type;
    if (type == CCA_GGUF_STRING) {
        cca_gguf_string *strings = new_table(r, n, "strings", sizeof *strings, sizeof(uint64_t));
        out->strings = strings;
        out->data = strings;
        for (uint64_t i = 0; i < n && !r->status; i++) strings[i] = take_string(r);
    } else if (!r->status) {
        size_t bytes;
        if (!cca_mul(&bytes, n, cca_gguf_value_bytes(out->type))) bytes = SIZE_MAX;
        out->data = take(r, bytes);
    }
    if (!r->status) out->n = n;
}

static void take_key(reader *r, cca_gguf_key *key) {
    key->name = take_name(r);
    r->name = key->name;
    uint32_t type = take_u32(r);
    if (r->status) return;
    key->type = (cca_gguf_type)type;
    if (type > CCA_GGUF_F64) {
        fail(r, "unknown type %u, offset %zu", type, r->at);
    } else if (type == CCA_GGUF_STRING) {
        key->string = take_string(r);
    } else if (type == CCA_GGUF_ARRAY) {
        take_array(r, &key->array);
    } else {
        key->number = take(r, cca_gguf_value_bytes(key->type));
        if (type == CCA_GGUF_BOOL && key->number && *key->number > 1) {
            fail(r, "bool of value %u, offset %zu", *key->number, r->at - 1);
        }
    }
}

int cca_gguf_compare_entries(const void *a, const void *b) {
    return strcmp(((const cca_gguf_entry *)a)->name, ((const cca_gguf_entry *)b)->name);
}

/* Sorts the n entries, whose names are filled in; two of the same name are an error. */
static void sort_index(reader *r, cca_gguf_entry *index, uint64_t n) {
    if (n > 0) qsort(index, n, sizeof *index, cca_gguf_compare_entries);
    for (uint64_t i = 1; i < n; i++) {
        if (strcmp(index[i - 1].name, index[i].name) == 0) {
            r->name = index[i].name;
            fail(r, "appears twice");
            return;
        }
    }
}

static void take_keys(reader *r, uint64_t n) {
    cca_gguf *file = r->file;
    file->keys = new_table(r, n, "keys", sizeof *file->keys, MIN_KEY_BYTES);
    file->key_index = new_table(r, n, "keys", sizeof *file->key_index, MIN_KEY_BYTES);
    if (r->status) return;
    r->kind = "key";
    file->n_keys = n;
    for (uint64_t i = 0; i < n && !r->status; i++) {
        r->index = i;
        r->name = NULL;
        file->keys[i].bytes = file->data + r->at;
        take_key(r, &file->keys[i]);
        file->keys[i].n_bytes = (size_t)(file->data + r->at - file->keys[i].bytes);
        file->key_index[i] = (cca_gguf_entry){file->keys[i].name, i};
    }
    if (!r->status) sort_index(r, file->key_index, n);
}

/* --- tensors ------------------------------------------------------------------------- */

/* Number of bytes from dims and type. */
static void measure_tensor(reader *r, cca_gguf_tensor *t) {
    const cca_dtype_facts *facts = cca_dtype_find(t->type);
    size_t values = 1, bytes = 0;
    for (int i = 0; i < CCA_GGUF_MAX_DIMS; i++) {
        if (!cca_mul(&values, values, (size_t)t->dims[i])) values = SIZE_MAX;
    }
    if (!facts) {
        fail(r, "unknown type %u", t->type);
    } else if (values > INT64_MAX ||
               !cca_mul(&bytes, values / (size_t)facts->block, facts->block_bytes)) {
        fail(r, "its dimensions overflow");
    } else if (t->dims[0] % facts->block != 0) {
        fail(r, "rows of %lld values are no multiple of a %s block's %lld", (long long)t->dims[0],
             facts->name, (long long)facts->block);
    }
    t->bytes = bytes;
}

static void take_tensor(reader *r, cca_gguf_tensor *t) {
    t->name = take_name(r);
    r->name = t->name;
    t->n_dims = take_u32(r);
    if (!r->status && (t->n_dims < 1 || t->n_dims > CCA_GGUF_MAX_DIMS)) {
        fail(r, "%u dimensions", t->n_dims);
    }
    for (uint32_t i = 0; i < CCA_GGUF_MAX_DIMS && !r->status; i++) {
        uint64_t dim = i < t->n_dims ? take_u64(r) : 1;
        if (!r->status && (dim < 1 || dim > INT64_MAX)) {
            fail(r, "dimension %u is %llu", i, (unsigned long long)dim);
        }
        t->dims[i] = (int64_t)dim;
    }
    t->type = take_u32(r);
    t->offset = take_u64(r); /* counted from where the data begins, until place_tensors */
    if (!r->status) measure_tensor(r, t);
}

static void take_tensors(reader *r, uint64_t n) {
    cca_gguf *file = r->file;
    r->kind = "header";
    r->name = NULL;
    file->tensors = new_table(r, n, "tensors", sizeof *file->tensors, MIN_TENSOR_BYTES);
    file->tensor_index = new_table(r, n, "tensors", sizeof *file->tensor_index, MIN_TENSOR_BYTES);
    if (r->status) return;
    r->kind = "tensor";
    file->n_tensors = n;
    for (uint64_t i = 0; i < n && !r->status; i++) {
        r->index = i;
        r->name = NULL;
        take_tensor(r, &file->tensors[i]);
        file->tensor_index[i] = (cca_gguf_entry){file->tensors[i].name, i};
    }
    if (!r->status) sort_index(r, file->tensor_index, n);
}

static int compare_offsets(const void *a, const void *b) {
    const cca_gguf_tensor *x = *(const cca_gguf_tensor *const *)a;
    const cca_gguf_tensor *y = *(const cca_gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static void check_overlaps(reader *r) {
    cca_gguf *file = r->file;
    const cca_gguf_tensor **sorted = calloc(file->n_tensors + 1, sizeof(void *));
    if (!sorted) {
        fail_memory(r, (file->n_tensors + 1) * sizeof(void *));
        return;
    }
    for (uint64_t i = 0; i < file->n_tensors; i++) sorted[i] = &file->tensors[i];
    qsort(sorted, file->n_tensors, sizeof(void *), compare_offsets);
    for (uint64_t i = 1; i < file->n_tensors && !r->status; i++) {
        if (sorted[i]->offset - sorted[i - 1]->offset >= sorted[i - 1]->bytes) continue;
        r->name = sorted[i]->name;
        fail(r, "overlaps tensor '%s' at offset %llu", sorted[i - 1]->name,
             (unsigned long long)sorted[i]->offset);
    }
    free(sorted);
}

/* Turns offsets into places in the file and checks that each tensor lies inside it. */
static void place_tensors(reader *r, size_t alignment) {
    cca_gguf *file = r->file;
    if (r->status) return;
    size_t start = r->at;
    if (start % alignment != 0) start += alignment - start % alignment;
    file->entries_end = r->at;
    file->data_start = start;
    file->alignment = alignment;
    for (uint64_t i = 0; i < file->n_tensors && !r->status; i++) {
        cca_gguf_tensor *t = &file->tensors[i];
        size_t offset, end;
        r->name = t->name;
        if (t->offset % alignment != 0) {
            fail(r, "offset %llu is no multiple of the alignment %zu",
                 (unsigned long long)t->offset, alignment);
        } else if (!cca_add(&offset, start, t->offset) || !cca_add(&end, offset, t->bytes) ||
                   end > file->size) {
            fail(
                r,
                "truncated: %llu bytes, %llu after the data's start at %zu, but the file ends at %zu",
                (unsigned long long)t->bytes, (unsigned long long)t->offset, start, file->size);
        } else {
            t->offset = offset;
            t->data = file->data + offset;
        }
    }
    if (!r->status) check_overlaps(r);
}

static void check_alignment(reader *r, uint32_t *out) {
    const uint32_t fallback = DEFAULT_ALIGNMENT;
    if (r->status) return;
    r->status = cca_gguf_u32(out, r->file, "general.alignment", &fallback, r->err);
    r->kind = "key";
    r->name = "general.alignment";
    if (*out < MIN_ALIGNMENT || *out > MAX_ALIGNMENT || (*out & (*out - 1)) != 0) {
        fail(r, "%u is no power of two from %d to %d", *out, MIN_ALIGNMENT, MAX_ALIGNMENT);
    }
}

/* --- the file ------------------------------------------------------------------------ */

static void take_header(reader *r, uint64_t *n_tensors, uint64_t *n_keys) {
    const uint8_t *magic = take(r, 4);
    if (magic && memcmp(magic, "GGUF", 4) != 0) {
        const cca_file_kind *kind = cca_file_kind_of(r->file->data, r->file->size);
        fail(r, "not a GGUF file%s%s", kind ? ", but " : "", kind ? kind->name : "");
    }
    uint32_t version = take_u32(r);
    if (!r->status && version != 2 && version != 3) {
        bool swapped = version != 0 && (version & 0xffff) == 0;
        fail(r,
             swapped ? "big-endian files are not supported (version %#x)"
                     : "version %u is not supported (2 and 3 are)",
             version);
    }
    *n_tensors = take_u64(r);
    *n_keys = take_u64(r);
}

static cca_status parse(cca_gguf *file, cca_error *err) {
    reader r = {.file = file, .kind = "header", .err = err};
    uint64_t n_tensors, n_keys;
    uint32_t alignment = DEFAULT_ALIGNMENT;
    take_header(&r, &n_tensors, &n_keys);
    take_keys(&r, n_keys);
    file->keys_end = r.at;
    check_alignment(&r, &alignment);
    take_tensors(&r, n_tensors);
    place_tensors(&r, alignment);
    return r.status;
}

cca_status cca_gguf_parse(cca_gguf **out, const void *data, size_t size, const char *name,
                          cca_error *err) {
    *out = NULL;
    cca_gguf *file = calloc(1, sizeof *file);
    char *copy = strdup(name);
    if (!file || !copy) {
        free(file);
        free(copy);
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to open it", name);
    }
    file->data = data;
    file->size = size;
    file->name = copy;
    cca_status status = parse(file, err);
    if (!status) {
        *out = file;
    } else {
        cca_gguf_close(file);
    }
    return status;
}

cca_status cca_gguf_open(cca_gguf **out, const char *path, cca_error *err) {
    cca_status status = cca_gguf_open_one(out, path, err);
    if (!status) status = cca_gguf_join(*out, err);
    if (!status) return CCA_OK;
    cca_gguf_close(*out);
    *out = NULL;
    return status;
}

cca_status cca_gguf_open_one(cca_gguf **out, const char *path, cca_error *err) {
    cca_mapping mapping;
    cca_gguf *file = NULL;
    cca_status status = cca_mapping_open(&mapping, path, err);
    if (!status) {
        status = cca_gguf_parse(&file, mapping.data, mapping.size, path, err);
        if (!file) cca_mapping_close(&mapping);
    }
    if (file) file->mapping = mapping;
    *out = file;
    return status;
}

void cca_gguf_close(cca_gguf *file) {
    if (!file) return;
    for (uint64_t i = 0; i < file->n_keys; i++) {
        free(file->keys[i].name);
        free((void *)file->keys[i].array.strings);
    }
    for (uint64_t i = 0; i < file->n_tensors; i++) free((void *)file->tensors[i].name);
    for (uint64_t i = 0; i < file->n_parts; i++) cca_gguf_close(file->parts[i]);
    free(file->parts);
    cca_mapping_close(&file->mapping);
    free(file->keys);
    free(file->key_index);
    free(file->tensors);
    free(file->tensor_index);
    free(file->name);
    free(file);
}
