#include "export/gguf_write.h"

#include "base/hash.h"
#include "base/whole_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GGUF_VERSION = 3, ALIGNMENT = 32, FINGERPRINT_DIGITS = 16 };

/* A growing piece of memory; once an allocation has failed it stays as it is. */
typedef struct buffer {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
} buffer;

struct cca_gguf_writer {
    cca_whole_file file;
    uint64_t n_keys, n_tensors;
    buffer keys, infos;
    buffer names;                    /* of the keys, each with its NUL */
    buffer offsets;                  /* uint64_t a tensor, from the start of the data */
    uint64_t data_start, data_bytes; /* data_start is known from begin on */
    size_t crcs_at, fingerprint_at;  /* places in keys that finish fills in */
    uint64_t hash;                   /* of the keys that make the model what it is */
};

static void append(buffer *b, const void *data, size_t n) {
    size_t needed;
    if (b->failed || n == 0) return;
    if (!cca_add(&needed, b->size, n)) {
        b->failed = true;
        return;
    }
    if (!b->data || needed > b->capacity) {
        size_t capacity = needed < SIZE_MAX / 2 ? needed * 2 : needed;
        uint8_t *grown = realloc(b->data, capacity);
        if (!grown) {
            b->failed = true;
            return;
        }
        b->data = grown;
        b->capacity = capacity;
    }
    memcpy(b->data + b->size, data, n);
    b->size = needed;
}

static void append_u32(buffer *b, uint32_t value) {
    append(b, &value, sizeof value);
}

static void append_u64(buffer *b, uint64_t value) {
    append(b, &value, sizeof value);
}

static void append_string(buffer *b, const char *bytes, size_t size) {
    append_u64(b, size);
    append(b, bytes, size);
}

static uint64_t align(uint64_t n) {
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* --- keys and tensors ---------------------------------------------------------------- */

/* Begins a key and returns where it starts; end_key hashes it if it belongs to the model. */
static size_t begin_key(cca_gguf_writer *w, const char *key, cca_gguf_type type) {
    size_t start = w->keys.size;
    append_string(&w->keys, key, strlen(key));
    append_u32(&w->keys, type);
    append(&w->names, key, strlen(key) + 1);
    w->n_keys++;
    return start;
}

static void end_key(cca_gguf_writer *w, const char *key, size_t start) {
    if (!cca_gguf_key_of_model(key) || w->keys.failed) return;
    w->hash = cca_hash_more(w->hash, w->keys.data + start, w->keys.size - start);
}

void cca_gguf_put_number(cca_gguf_writer *w, const char *key, cca_gguf_type type,
                         const void *value) {
    size_t start = begin_key(w, key, type);
    append(&w->keys, value, cca_gguf_value_bytes(type));
    end_key(w, key, start);
}

void cca_gguf_put_u32(cca_gguf_writer *w, const char *key, uint32_t value) {
    cca_gguf_put_number(w, key, CCA_GGUF_U32, &value);
}

void cca_gguf_put_f32(cca_gguf_writer *w, const char *key, float value) {
    cca_gguf_put_number(w, key, CCA_GGUF_F32, &value);
}

void cca_gguf_put_bool(cca_gguf_writer *w, const char *key, bool value) {
    cca_gguf_put_number(w, key, CCA_GGUF_BOOL, &(uint8_t){value});
}

static void put_string(cca_gguf_writer *w, const char *key, const char *bytes, size_t size) {
    size_t start = begin_key(w, key, CCA_GGUF_STRING);
    append_string(&w->keys, bytes, size);
    end_key(w, key, start);
}

void cca_gguf_put_text(cca_gguf_writer *w, const char *key, const char *value) {
    put_string(w, key, value, strlen(value));
}

static size_t begin_array(cca_gguf_writer *w, const char *key, cca_gguf_type type, uint64_t n) {
    size_t start = begin_key(w, key, CCA_GGUF_ARRAY);
    append_u32(&w->keys, type);
    append_u64(&w->keys, n);
    return start;
}

void cca_gguf_put_numbers(cca_gguf_writer *w, const char *key, cca_gguf_type type, uint64_t n,
                          const void *values) {
    size_t start = begin_array(w, key, type, n);
    append(&w->keys, values, n * cca_gguf_value_bytes(type));
    end_key(w, key, start);
}

void cca_gguf_put_strings(cca_gguf_writer *w, const char *key, uint64_t n,
                          const cca_gguf_string *values) {
    size_t start = begin_array(w, key, CCA_GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++) append_string(&w->keys, values[i].bytes, values[i].size);
    end_key(w, key, start);
}

/* Whether a key is among the first n bytes of the names. */
static bool has_name(const buffer *names, size_t n, const char *key) {
    for (size_t at = 0; at < n;) {
        const char *name = (const char *)names->data + at;
        if (strcmp(name, key) == 0) return true;
        at += strlen(name) + 1;
    }
    return false;
}

static void put_other(cca_gguf_writer *w, const cca_gguf *file, uint64_t index) {
    cca_gguf_type type;
    cca_gguf_string string;
    cca_gguf_array array;
    const char *key = cca_gguf_key_at(file, index, &type);
    if (type == CCA_GGUF_STRING) {
        (void)cca_gguf_str(&string, file, key, NULL, NULL); /* it is there, and of this type */
        put_string(w, key, string.bytes, string.size);
    } else if (type != CCA_GGUF_ARRAY) {
        cca_gguf_put_number(w, key, type, cca_gguf_number_at(file, index));
    } else {
        (void)cca_gguf_arr(&array, file, key, true, NULL);
        if (array.type == CCA_GGUF_STRING) {
            cca_gguf_put_strings(w, key, array.n, array.strings);
        } else {
            cca_gguf_put_numbers(w, key, array.type, array.n, array.data);
        }
    }
}

void cca_gguf_put_others(cca_gguf_writer *w, const cca_gguf *file,
                         bool (*wanted)(const void *context, const char *key),
                         const void *context) {
    size_t n_before = w->names.size; /* the file's keys differ from each other */
    for (uint64_t i = 0; i < cca_gguf_n_keys(file); i++) {
        const char *key = cca_gguf_key_at(file, i, NULL);
        if (wanted(context, key) && !has_name(&w->names, n_before, key)) put_other(w, file, i);
    }
}

void cca_gguf_put_tensor(cca_gguf_writer *w, const char *name, int n_dims, const int64_t *dims,
                         cca_dtype type, uint64_t bytes) {
    append_string(&w->infos, name, strlen(name));
    append_u32(&w->infos, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++) append_u64(&w->infos, (uint64_t)dims[i]);
    append_u32(&w->infos, type);
    append_u64(&w->infos, w->data_bytes);
    append_u64(&w->offsets, w->data_bytes);
    w->data_bytes += align(bytes);
    w->n_tensors++;
}

/* --- the file ------------------------------------------------------------------------ */

static cca_status no_memory(const cca_gguf_writer *w, cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for the keys of the file", w->file.path);
}

cca_status cca_gguf_writer_new(cca_gguf_writer **out, const char *path, cca_error *err) {
    *out = NULL;
    cca_gguf_writer *w = calloc(1, sizeof *w);
    if (!w) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to write it", path);
    w->hash = cca_hash("", 0);
    cca_status status = cca_whole_open(&w->file, path, err);
    if (!status) {
        *out = w;
    } else {
        cca_gguf_writer_free(w);
    }
    return status;
}

cca_status cca_gguf_writer_begin(cca_gguf_writer *w, cca_error *err) {
    static const char digits[FINGERPRINT_DIGITS + 1] = "0000000000000000";
    begin_array(w, "cca.crc32", CCA_GGUF_U32, w->n_tensors);
    w->crcs_at = w->keys.size;
    for (uint64_t i = 0; i < w->n_tensors; i++) append_u32(&w->keys, 0);
    cca_gguf_put_text(w, "cca.fingerprint", digits);
    w->fingerprint_at = w->keys.size - FINGERPRINT_DIGITS;
    if (w->keys.failed || w->names.failed || w->infos.failed || w->offsets.failed) {
        return no_memory(w, err);
    }

    w->data_start = align(4 + 4 + 8 + 8 + w->keys.size + w->infos.size);
    return cca_whole_begin(&w->file, w->data_start + w->data_bytes, err);
}

cca_status cca_gguf_writer_write(cca_gguf_writer *w, uint64_t index, uint64_t at, const void *data,
                                 size_t n, cca_error *err) {
    uint64_t offset;
    memcpy(&offset, w->offsets.data + index * sizeof offset, sizeof offset);
    return cca_whole_write(&w->file, w->data_start + offset + at, data, n, err);
}

cca_status cca_gguf_writer_finish(cca_gguf_writer *w, const uint32_t *crcs, cca_error *err) {
    char digits[FINGERPRINT_DIGITS + 1];
    buffer header = {0};
    size_t crc_bytes = w->n_tensors * sizeof *crcs;
    memcpy(w->keys.data + w->crcs_at, crcs, crc_bytes);
    uint64_t hash = cca_hash_more(w->hash, w->infos.data, w->infos.size);
    hash = cca_hash_more(hash, crcs, crc_bytes);
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)hash);
    memcpy(w->keys.data + w->fingerprint_at, digits, FINGERPRINT_DIGITS);

    append(&header, "GGUF", 4);
    append_u32(&header, GGUF_VERSION);
    append_u64(&header, w->n_tensors);
    append_u64(&header, w->n_keys);
    append(&header, w->keys.data, w->keys.size);
    append(&header, w->infos.data, w->infos.size);
    cca_status status = header.failed ? no_memory(w, err) : CCA_OK;
    if (!status) status = cca_whole_write(&w->file, 0, header.data, header.size, err);
    free(header.data);
    return !status ? cca_whole_sync(&w->file, err) : status;
}

const char *cca_gguf_writer_temporary(const cca_gguf_writer *w) {
    return w->file.temporary;
}

cca_status cca_gguf_writer_commit(cca_gguf_writer *w, cca_error *err) {
    return cca_whole_commit(&w->file, err);
}

void cca_gguf_writer_free(cca_gguf_writer *w) {
    if (!w) return;
    cca_whole_close(&w->file);
    free(w->keys.data);
    free(w->names.data);
    free(w->infos.data);
    free(w->offsets.data);
    free(w);
}
