#include "base/hash.h"
#include "base/processors.h"
#include "base/workers.h"
#include "gguf/gguf_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const char *const type_names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};

size_t cca_gguf_value_bytes(cca_gguf_type type) {
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[type];
}

const char *cca_gguf_name(const cca_gguf *file) {
    return file->name;
}

uint64_t cca_gguf_size(const cca_gguf *file) {
    uint64_t size = file->size;
    for (uint64_t i = 0; i < file->n_parts; i++) size += file->parts[i]->size;
    return size;
}

static int compare_name(const void *name, const void *entry) {
    return strcmp(name, ((const cca_gguf_entry *)entry)->name);
}

static const cca_gguf_entry *find(const cca_gguf_entry *index, uint64_t n, const char *name) {
    return n == 0 ? NULL : bsearch(name, index, n, sizeof *index, compare_name);
}

uint64_t cca_gguf_n_tensors(const cca_gguf *file) {
    return file->n_tensors;
}

const cca_gguf_tensor *cca_gguf_tensor_at(const cca_gguf *file, uint64_t index) {
    return index < file->n_tensors ? &file->tensors[index] : NULL;
}

const cca_gguf_tensor *cca_gguf_find(const cca_gguf *file, const char *name) {
    const cca_gguf_entry *entry = find(file->tensor_index, file->n_tensors, name);
    return entry ? &file->tensors[entry->index] : NULL;
}

uint64_t cca_gguf_n_keys(const cca_gguf *file) {
    return file->n_keys;
}

const char *cca_gguf_key_at(const cca_gguf *file, uint64_t index, cca_gguf_type *type) {
    if (index >= file->n_keys) return NULL;
    if (type) *type = file->keys[index].type;
    return file->keys[index].name;
}

const void *cca_gguf_number_at(const cca_gguf *file, uint64_t index) {
    return index < file->n_keys ? file->keys[index].number : NULL;
}

const cca_gguf_key *cca_gguf_find_key(const cca_gguf *file, const char *name) {
    const cca_gguf_entry *entry = find(file->key_index, file->n_keys, name);
    return entry ? &file->keys[entry->index] : NULL;
}

bool cca_gguf_has(const cca_gguf *file, const char *key) {
    return cca_gguf_find_key(file, key) != NULL;
}

static cca_status missing(const cca_gguf *file, const char *key, cca_error *err) {
    return cca_fail(err, CCA_BAD_MODEL, "%s: key '%s' is missing", file->name, key);
}

static cca_status wrong_type(const cca_gguf *file, const cca_gguf_key *key, const char *wanted,
                             cca_error *err) {
    return cca_fail(err, CCA_BAD_MODEL, "%s: key '%s' is of type %s, not %s", file->name, key->name,
                    type_names[key->type], wanted);
}

/* A number of any type. Integers come exact in integer, with negative set where they are below
 * zero; what is not an integer comes in real alone. */
typedef struct number {
    uint64_t integer;
    double real;
    bool negative;
} number;

static number signed_number(int64_t value) {
    return (number){(uint64_t)value, (double)value, value < 0};
}

static number unsigned_number(uint64_t value) {
    return (number){value, (double)value, false};
}

static number read_number(cca_gguf_type type, const uint8_t *bytes) {
    uint64_t raw = 0;
    float f;
    double d;
    memcpy(&raw, bytes, cca_gguf_value_bytes(type));
    switch (type) {
    case CCA_GGUF_I8: return signed_number((int8_t)raw);
    case CCA_GGUF_I16: return signed_number((int16_t)raw);
    case CCA_GGUF_I32: return signed_number((int32_t)raw);
    case CCA_GGUF_I64: return signed_number((int64_t)raw);
    case CCA_GGUF_F32: memcpy(&f, bytes, sizeof f); return (number){.real = (double)f};
    case CCA_GGUF_F64: memcpy(&d, bytes, sizeof d); return (number){.real = d};
    default: return unsigned_number(raw);
    }
}

static bool is_integer(cca_gguf_type type) {
    switch (type) {
    case CCA_GGUF_F32:
    case CCA_GGUF_F64:
    case CCA_GGUF_BOOL:
    case CCA_GGUF_STRING:
    case CCA_GGUF_ARRAY: return false;
    default: return true;
    }
}

/* An integer in 0 … max. */
static cca_status get_unsigned(uint64_t *out, const cca_gguf *file, const cca_gguf_key *key,
                               uint64_t max, cca_error *err) {
    if (!is_integer(key->type)) return wrong_type(file, key, "an integer", err);
    number n = read_number(key->type, key->number);
    if (n.negative || n.integer > max) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: key '%s' is out of range: %s%llu", file->name,
                        key->name, n.negative ? "-" : "",
                        (unsigned long long)(n.negative ? 0 - n.integer : n.integer));
    }
    *out = n.integer;
    return CCA_OK;
}

cca_status cca_gguf_u64(uint64_t *out, const cca_gguf *file, const char *key,
                        const uint64_t *fallback, cca_error *err) {
    const cca_gguf_key *k = cca_gguf_find_key(file, key);
    if (k) return get_unsigned(out, file, k, UINT64_MAX, err);
    if (!fallback) return missing(file, key, err);
    *out = *fallback;
    return CCA_OK;
}

cca_status cca_gguf_u32(uint32_t *out, const cca_gguf *file, const char *key,
                        const uint32_t *fallback, cca_error *err) {
    const cca_gguf_key *k = cca_gguf_find_key(file, key);
    uint64_t wide = fallback ? *fallback : 0;
    if (!k && !fallback) return missing(file, key, err);
    cca_status status = k ? get_unsigned(&wide, file, k, UINT32_MAX, err) : CCA_OK;
    if (!status) *out = (uint32_t)wide;
    return status;
}

cca_status cca_gguf_token(int32_t *out, const cca_gguf *file, const char *key, cca_error *err) {
    const cca_gguf_key *k = cca_gguf_find_key(file, key);
    uint64_t id = UINT32_MAX;
    cca_status status = CCA_OK;
    bool none = !k;
    if (k && is_integer(k->type)) {
        number n = read_number(k->type, k->number);
        none = (n.negative && n.integer == UINT64_MAX) || n.integer == UINT32_MAX;
    }
    if (!none) status = get_unsigned(&id, file, k, INT32_MAX, err);
    if (!status) *out = none ? -1 : (int32_t)id;
    return status;
}

cca_status cca_gguf_f32(float *out, const cca_gguf *file, const char *key, const float *fallback,
                        cca_error *err) {
    const cca_gguf_key *k = cca_gguf_find_key(file, key);
    if (!k) {
        if (!fallback) return missing(file, key, err);
        *out = *fallback;
        return CCA_OK;
    }
    if (k->type != CCA_GGUF_F32 && k->type != CCA_GGUF_F64 && !is_integer(k->type)) {
        return wrong_type(file, k, "f32", err);
    }
    float value = (float)read_number(k->type, k->number).real;
    if (!isfinite(value)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: key '%s' is out of range: %g", file->name, key,
                        (double)value);
    }
    *out = value;
    return CCA_OK;
}

cca_status cca_gguf_bool(bool *out, const cca_gguf *file, const char *key, const bool *fallback,
                         cca_error *err) {
    const cca_gguf_key *k = cca_gguf_find_key(file, key);
    if (!k) {
        if (!fallback) return missing(file, key, err);
        *out = *fallback;
        return CCA_OK;
    }
    uint64_t value = 0;
    if (k->type != CCA_GGUF_BOOL && !is_integer(k->type)) {
        return wrong_type(file, k, "bool", err);
    }
    cca_status status = k->type == CCA_GGUF_BOOL ? CCA_OK : get_unsigned(&value, file, k, 1, err);
    if (!status) *out = k->type == CCA_GGUF_BOOL ? *k->number != 0 : value != 0;
    return status;
}

cca_status cca_gguf_str(cca_gguf_string *out, const cca_gguf *file, const char *key,
                        const cca_gguf_string *fallback, cca_error *err) {
    const cca_gguf_key *k = cca_gguf_find_key(file, key);
    if (!k) {
        if (!fallback) return missing(file, key, err);
        *out = *fallback;
        return CCA_OK;
    }
    if (k->type != CCA_GGUF_STRING) return wrong_type(file, k, "string", err);
    *out = k->string;
    return CCA_OK;
}

cca_status cca_gguf_arr(cca_gguf_array *out, const cca_gguf *file, const char *key, bool required,
                        cca_error *err) {
    const cca_gguf_key *k = cca_gguf_find_key(file, key);
    *out = (cca_gguf_array){0};
    if (!k) return required ? missing(file, key, err) : CCA_OK;
    if (k->type != CCA_GGUF_ARRAY) return wrong_type(file, k, "array", err);
    *out = k->array;
    return CCA_OK;
}

double cca_gguf_array_number(const cca_gguf_array *array, uint64_t i) {
    if (array->type == CCA_GGUF_STRING || i >= array->n) return 0;
    const uint8_t *bytes = array->data;
    return read_number(array->type, bytes + i * cca_gguf_value_bytes(array->type)).real;
}

cca_gguf_layout cca_gguf_layout_of(const cca_gguf *file) {
    return (cca_gguf_layout){.bytes = file->data,
                             .size = file->size,
                             .keys_end = file->keys_end,
                             .entries_end = file->entries_end,
                             .data_start = file->data_start,
                             .alignment = file->alignment};
}

void cca_gguf_fingerprint(char out[CCA_GGUF_FINGERPRINT + 1], const cca_gguf *file) {
    enum { SAMPLE = 4096 };
    cca_gguf_string known = {"", 0}, none = known;
    uint64_t header = file->n_parts > 0 ? file->entries_end : file->size;
    uint32_t crc = 0;
    if (cca_gguf_str(&known, file, "cca.fingerprint", &none, NULL) == CCA_OK &&
        known.size == CCA_GGUF_FINGERPRINT) {
        memcpy(out, known.bytes, known.size);
        out[known.size] = '\0';
        return;
    }
    for (uint64_t i = 0; i < file->n_tensors; i++) {
        const cca_gguf_tensor *t = &file->tensors[i];
        size_t n = t->bytes < SAMPLE ? (size_t)t->bytes : SAMPLE;
        crc = (uint32_t)crc32_z(crc, t->data, n);
        crc = (uint32_t)crc32_z(crc, (const uint8_t *)t->data + t->bytes - n, n);
        header = t->offset < header ? t->offset : header;
    }
    snprintf(out, CCA_GGUF_FINGERPRINT + 1, "%08lx%08x", crc32_z(0, file->data, (size_t)header),
             crc);
}

bool cca_gguf_key_of_model(const char *key) {
    static const char *const others[] = {"general.", "tokenizer.", "cca."};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strncmp(key, others[i], strlen(others[i])) == 0) return false;
    }
    return true;
}

/* Whether the fingerprint that a file names is that of its keys, tensors and checksums. */
static bool is_as_claimed(const cca_gguf *file, const uint32_t *crcs) {
    cca_gguf_string known = {"", 0}, none = known;
    char digits[CCA_GGUF_FINGERPRINT + 1];
    uint64_t hash = cca_hash("", 0);
    if (cca_gguf_str(&known, file, "cca.fingerprint", &none, NULL) || known.size == 0) return true;
    for (uint64_t i = 0; i < file->n_keys; i++) {
        const cca_gguf_key *k = &file->keys[i];
        if (cca_gguf_key_of_model(k->name)) hash = cca_hash_more(hash, k->bytes, k->n_bytes);
    }
    hash = cca_hash_more(hash, file->data + file->keys_end, file->entries_end - file->keys_end);
    hash = cca_hash_more(hash, crcs, file->n_tensors * sizeof *crcs);
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)hash);
    return known.size == CCA_GGUF_FINGERPRINT && memcmp(known.bytes, digits, known.size) == 0;
}

/* The checksum of a tensor, or of pieces of it at equal distances from its start to its end. */
static uint32_t look_at_tensor(const cca_gguf_tensor *t, bool all) {
    enum { PIECE = 4096, N_PIECES = 16 };
    const uint8_t *bytes = t->data;
    uint32_t crc = 0;
    if (all || t->bytes <= (uint64_t)PIECE * N_PIECES) {
        return (uint32_t)crc32_z(0, bytes, (size_t)t->bytes);
    }
    for (uint64_t i = 0; i < N_PIECES; i++) {
        uint64_t at = (t->bytes - PIECE) / (N_PIECES - 1) * i;
        if (i == N_PIECES - 1) at = t->bytes - PIECE;
        crc = (uint32_t)crc32_z(crc, bytes + at, PIECE);
    }
    return crc;
}

/* Sums do not depend on the order, which tools change. */
void cca_gguf_look(char out[CCA_GGUF_FINGERPRINT + 1], const cca_gguf *file) {
    enum { MOST_WHOLE = 32 << 20 };
    uint64_t sum = 0;
    for (uint64_t i = 0; i < file->n_keys; i++) {
        const cca_gguf_key *k = &file->keys[i];
        if (cca_gguf_key_of_model(k->name)) sum += cca_hash_number(cca_hash(k->bytes, k->n_bytes));
    }
    for (uint64_t i = 0; i < file->n_tensors; i++) {
        const cca_gguf_tensor *t = &file->tensors[i];
        uint32_t crc = look_at_tensor(t, cca_gguf_size(file) <= MOST_WHOLE);
        uint64_t hash = cca_hash(t->name, strlen(t->name) + 1);
        hash = cca_hash_more(hash, &t->type, sizeof t->type);
        hash = cca_hash_more(hash, t->dims, sizeof t->dims);
        sum += cca_hash_number(cca_hash_more(hash, &crc, sizeof crc));
    }
    snprintf(out, CCA_GGUF_FINGERPRINT + 1, "%016llx", (unsigned long long)sum);
}

/* What the threads of cca_gguf_crcs share. */
typedef struct checksums {
    const cca_gguf *file;
    uint32_t *crcs; /* a tensor */
} checksums;

/* Piece by piece, so that a file does not fill the memory of the process. */
static void sum_tensor(void *context, int64_t index, int thread) {
    enum { PIECE_BYTES = 8 << 20 };
    checksums *c = context;
    const cca_gguf_tensor *t = &c->file->tensors[index];
    uint32_t crc = 0;
    (void)thread;
    for (uint64_t at = 0; at < t->bytes; at += PIECE_BYTES) {
        const uint8_t *bytes = (const uint8_t *)t->data + at;
        size_t n = t->bytes - at < PIECE_BYTES ? t->bytes - at : PIECE_BYTES;
        crc = (uint32_t)crc32_z(crc, bytes, n);
        if (c->file->mapping.data) cca_mapping_forget(bytes, n);
    }
    c->crcs[index] = crc;
}

cca_status cca_gguf_crcs(uint32_t *out, const cca_gguf *file, cca_error *err) {
    checksums c = {file, out};
    cca_workers *workers = cca_workers_new(cca_processors(""));
    if (!workers) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to check it", file->name);
    cca_workers_run(workers, (int64_t)file->n_tensors, sum_tensor, &c);
    cca_workers_free(workers);
    return CCA_OK;
}

/* The first tensor whose checksum differs, and then the fingerprint. */
static cca_status compare_crcs(const cca_gguf *file, const cca_gguf_array *wanted,
                               const uint32_t *crcs, cca_error *err) {
    for (uint64_t i = 0; i < file->n_tensors; i++) {
        if (crcs[i] == (uint32_t)cca_gguf_array_number(wanted, i)) continue;
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s' is damaged: its checksum differs",
                        file->name, file->tensors[i].name);
    }
    if (is_as_claimed(file, crcs)) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL,
                    "%s: its keys, tensors and checksums are not those that key "
                    "'cca.fingerprint' was made of",
                    file->name);
}

cca_status cca_gguf_check_crc(bool *checked, const cca_gguf *file, cca_error *err) {
    cca_gguf_array wanted;
    *checked = false;
    if (!cca_gguf_has(file, "cca.crc32")) return CCA_OK;
    cca_status status = cca_gguf_arr(&wanted, file, "cca.crc32", true, err);
    if (status) return status;
    if (wanted.type != CCA_GGUF_U32 || wanted.n != file->n_tensors) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: key 'cca.crc32' has %llu values of type %s for %llu tensors",
                        file->name, (unsigned long long)wanted.n, type_names[wanted.type],
                        (unsigned long long)file->n_tensors);
    }
    uint32_t *crcs = calloc(file->n_tensors + 1, sizeof *crcs);
    if (!crcs) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to check it", file->name);
    status = cca_gguf_crcs(crcs, file, err);
    if (!status) status = compare_crcs(file, &wanted, crcs, err);
    free(crcs);
    *checked = !status;
    return status;
}
