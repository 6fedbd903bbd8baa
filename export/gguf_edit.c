#include "export/gguf_edit.h"

#include "base/again.h"
#include "base/whole_file.h"
#include "gguf/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_PLACES = 5, SECTOR = 512, N_KEYS_AT = 16 };

/* One of the keys: where its value stands in the file, or 0 where it is not there. */
typedef struct place {
    const char *key;
    uint64_t value, found;
    cca_gguf_type type; /* of a key that is added */
    size_t at, bytes;
} place;

static cca_status bad_output(const char *path, const char *what, cca_error *err) {
    return cca_fail(err, CCA_BAD_OUTPUT, "%s: cannot %s: %s", path, what, strerror(errno));
}

cca_status cca_gguf_check_writable(const char *path, cca_error *err) {
    int fd = cca_open_again(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0) return bad_output(path, "open it for writing", err);
    close(fd);
    return cca_whole_check(path, err);
}

/* The largest number of an integer type; 0 for other types. */
static uint64_t largest_of(cca_gguf_type type) {
    switch (type) {
    case CCA_GGUF_U8: return UINT8_MAX;
    case CCA_GGUF_I8: return INT8_MAX;
    case CCA_GGUF_U16: return UINT16_MAX;
    case CCA_GGUF_I16: return INT16_MAX;
    case CCA_GGUF_U32: return UINT32_MAX;
    case CCA_GGUF_I32: return INT32_MAX;
    case CCA_GGUF_U64:
    case CCA_GGUF_I64: return INT64_MAX;
    case CCA_GGUF_BOOL: return 1;
    default: return 0;
    }
}

static cca_status find_place(place *p, const cca_gguf *file, cca_error *err) {
    const uint8_t *bytes = cca_gguf_layout_of(file).bytes;
    for (uint64_t i = 0; i < cca_gguf_n_keys(file); i++) {
        cca_gguf_type type;
        if (strcmp(cca_gguf_key_at(file, i, &type), p->key) != 0) continue;
        if (largest_of(type) == 0 || largest_of(type) < p->value) {
            return cca_fail(err, CCA_BAD_MODEL, "%s: key '%s' has a type that cannot hold %llu",
                            cca_gguf_name(file), p->key, (unsigned long long)p->value);
        }
        p->at = (size_t)((const uint8_t *)cca_gguf_number_at(file, i) - bytes);
        p->bytes = cca_gguf_value_bytes(type);
        memcpy(&p->found, bytes + p->at, p->bytes);
    }
    return CCA_OK;
}

static bool changes(const place *p) {
    return p->at == 0 || p->found != p->value;
}

/* Whether all that changes can be written at once; *sector is where. */
static bool in_one_sector(size_t *sector, const place p[N_PLACES]) {
    size_t first = SIZE_MAX, last = 0;
    for (int i = 0; i < N_PLACES; i++) {
        if (p[i].at == 0) return false;
        if (!changes(&p[i])) continue;
        first = p[i].at < first ? p[i].at : first;
        last = p[i].at + p[i].bytes - 1 > last ? p[i].at + p[i].bytes - 1 : last;
    }
    *sector = last / SECTOR;
    return first > last || first / SECTOR == *sector;
}

/* ---- in place ---- */

/* Writes the sector, or what it had before where that fails half-way. */
static cca_status replace_sector(const char *path, const uint8_t *sector, const uint8_t *before,
                                 size_t start, size_t size, cca_error *err) {
    int fd = cca_open_again(path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return bad_output(path, "open it for writing", err);
    cca_whole_file f = {.path = (char *)path, .fd = fd}; /* borrowed, and closed here */
    cca_status status = cca_whole_write(&f, start, sector, size, err);
    if (!status) status = cca_whole_sync(&f, err);
    if (status && !cca_whole_write(&f, start, before, size, NULL)) (void)cca_whole_sync(&f, NULL);
    close(fd);
    return status;
}

/* The sector with what changes of it, in one write. */
static cca_status write_sector(const char *path, const cca_gguf *file, const place p[N_PLACES],
                               size_t index, cca_error *err) {
    cca_gguf_layout l = cca_gguf_layout_of(file);
    uint8_t sector[SECTOR], before[SECTOR]; /* the mapping changes with the file */
    size_t start = index * SECTOR, size = (size_t)cca_min(SECTOR, (int64_t)(l.size - start));
    memcpy(before, l.bytes + start, size);
    memcpy(sector, before, size);
    for (int i = 0; i < N_PLACES; i++) {
        if (changes(&p[i])) memcpy(sector + p[i].at - start, &p[i].value, p[i].bytes);
    }
    return replace_sector(path, sector, before, start, size, err);
}

/* ---- anew ---- */

/* Appends a key with its value. */
static size_t put_key(uint8_t *out, const place *p) {
    uint64_t length = strlen(p->key);
    uint32_t type = p->type;
    size_t bytes = cca_gguf_value_bytes(p->type);
    memcpy(out, &length, sizeof length);
    for (uint64_t i = 0; i < length; i++) out[8 + i] = (uint8_t)p->key[i];
    memcpy(out + 8 + length, &type, sizeof type);
    memcpy(out + 12 + length, &p->value, bytes);
    return 12 + length + bytes;
}

/* Everything before the tensors' data; the caller frees it. */
static uint8_t *new_header(size_t *size, const cca_gguf *file, const place p[N_PLACES]) {
    enum { MOST_ADDED = N_PLACES * 48 };
    cca_gguf_layout l = cca_gguf_layout_of(file);
    uint8_t *header = calloc(1, l.entries_end + MOST_ADDED + l.alignment);
    if (!header) return NULL;
    uint64_t n_keys = cca_gguf_n_keys(file);
    size_t n = l.keys_end;
    memcpy(header, l.bytes, n);
    for (int i = 0; i < N_PLACES; i++) {
        if (p[i].at > 0) {
            memcpy(header + p[i].at, &p[i].value, p[i].bytes);
        } else {
            n += put_key(header + n, &p[i]);
            n_keys++;
        }
    }
    memcpy(header + N_KEYS_AT, &n_keys, sizeof n_keys);
    memcpy(header + n, l.bytes + l.keys_end, l.entries_end - l.keys_end);
    n += l.entries_end - l.keys_end;
    *size = (n + l.alignment - 1) / l.alignment * l.alignment;
    return header;
}

/* Reads the new file: a parser sees it as it should be. */
static cca_status check_new(const char *path, const place p[N_PLACES], cca_error *err) {
    cca_gguf *file;
    cca_status status = cca_gguf_open(&file, path, err);
    for (int i = 0; i < N_PLACES && !status; i++) {
        place written = {.key = p[i].key, .value = p[i].value};
        status = find_place(&written, file, err);
        if (!status && changes(&written)) {
            status =
                cca_fail(err, CCA_BAD_OUTPUT, "%s: '%s' is not what was written", path, p[i].key);
        }
    }
    cca_gguf_close(file);
    return status;
}

static cca_status write_anew(const char *path, const cca_gguf *file, const place p[N_PLACES],
                             cca_error *err) {
    cca_gguf_layout l = cca_gguf_layout_of(file);
    size_t header_size = 0, data_size = l.size > l.data_start ? l.size - l.data_start : 0;
    cca_whole_file f;
    uint8_t *header = new_header(&header_size, file, p);
    if (!header) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its keys", path);
    cca_status status = cca_whole_open(&f, path, err);
    if (!status) status = cca_whole_begin(&f, header_size + data_size, err);
    if (!status) status = cca_whole_write(&f, 0, header, header_size, err);
    if (!status) {
        status = cca_whole_write(&f, header_size, l.bytes + l.size - data_size, data_size, err);
    }
    if (!status) status = cca_whole_sync(&f, err);
    if (!status) status = check_new(f.temporary, p, err);
    if (!status) status = cca_whole_commit(&f, err);
    cca_whole_close(&f);
    free(header);
    return status;
}

static cca_status check_attention(const cca_gguf_attention *a, cca_error *err) {
    const struct {
        const char *what;
        int64_t tokens, least;
    } all[] = {{"a window", a->window_size, a->group_size},
               {"sinks", a->sinks, 0},
               {"recall", a->recall, 0}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bool whole = a->group_size > 0 && all[i].tokens % a->group_size == 0;
        if (whole && all[i].tokens >= all[i].least && all[i].tokens <= INT32_MAX) continue;
        return cca_fail(err, CCA_USAGE, "%s of %lld tokens: no multiple of groups of %lld",
                        all[i].what, (long long)all[i].tokens, (long long)a->group_size);
    }
    return CCA_OK;
}

cca_status cca_gguf_set_attention(const char *path, const cca_gguf_attention *a, cca_error *err) {
    cca_gguf *file;
    size_t sector = 0;
    place p[N_PLACES] = {
        {.key = "cca.group_size", .value = (uint64_t)a->group_size, .type = CCA_GGUF_U32},
        {.key = "cca.window_size", .value = (uint64_t)a->window_size, .type = CCA_GGUF_U32},
        {.key = "cca.sinks", .value = (uint64_t)a->sinks, .type = CCA_GGUF_U32},
        {.key = "cca.recall", .value = (uint64_t)a->recall, .type = CCA_GGUF_U32},
        {.key = "cca.cores", .value = a->cores, .type = CCA_GGUF_BOOL}};
    cca_status status = check_attention(a, err);
    if (!status) status = cca_gguf_open(&file, path, err);
    if (status) return status;
    status = cca_gguf_check_writable(path, err);
    for (int i = 0; i < N_PLACES && !status; i++) status = find_place(&p[i], file, err);
    if (!status) {
        status = in_one_sector(&sector, p) ? write_sector(path, file, p, sector, err)
                                           : write_anew(path, file, p, err);
    }
    cca_gguf_close(file);
    return status;
}
