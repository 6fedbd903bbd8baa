#include "store_parts.h"

#include "base/again.h"
#include "base/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { MAX_FACTS = 1 << 16 };

static const char file_magic[8] = {'C', 'C', 'A', 'S', 'E', 'S', 'S', 1};

typedef struct file_header {
    char magic[8];
    uint32_t facts_bytes, facts_crc;
} file_header;

static cca_status damaged(const cca_store *s, uint64_t at, const char *what, cca_error *err) {
    return cca_fail(err, CCA_BAD_MODEL, "%s: damaged at byte %llu: %s", s->file.path,
                    (unsigned long long)at, what);
}

cca_status cca_store_no_memory(const cca_store *s, cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its index", s->file.path);
}

cca_status cca_store_bad_output(const cca_store *s, const char *what, cca_error *err) {
    return cca_fail(err, CCA_BAD_OUTPUT, "%s: cannot %s: %s", s->file.path, what, strerror(errno));
}

cca_status cca_store_sync(const cca_store *s, cca_error *err) {
    return cca_sync_data_again(s->file.fd) == 0 ? CCA_OK : cca_store_bad_output(s, "sync", err);
}

/* ---- bytes ---------------------------------------------------------------------------- */

static cca_status read_at(const cca_store *s, uint64_t at, void *data, size_t bytes,
                          cca_error *err) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(s->file.fd, (char *)data + done, bytes - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            return cca_fail(err, CCA_BAD_MODEL, "%s: cannot read: %s", s->file.path,
                            strerror(errno));
        }
        if (n == 0) return damaged(s, at + done, "the file ends here", err);
        done += (size_t)n;
    }
    return CCA_OK;
}

uint32_t cca_store_crc(uint32_t crc, const void *data, size_t bytes) {
    return (uint32_t)crc32_z(crc, data, bytes);
}

uint32_t cca_store_header_crc(const segment_header *h) {
    return cca_store_crc(0, h, offsetof(segment_header, header_crc));
}

/* ---- the index ------------------------------------------------------------------------ */

cca_status cca_store_push(cca_store *s, const segment_header *h, uint64_t at, cca_error *err) {
    if (s->n_segments == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 64;
        segment *grown = realloc(s->segments, capacity * sizeof *grown);
        if (!grown) return cca_store_no_memory(s, err);
        s->segments = grown;
        s->capacity = capacity;
    }
    s->segments[s->n_segments++] = (segment){*h, at};
    return CCA_OK;
}

cca_status cca_store_grow_tokens(cca_store *s, const segment_header *h, cca_error *err) {
    int32_t *grown = realloc(s->tokens, (size_t)(s->n_tokens + h->n) * sizeof *grown);
    if (!grown) return cca_store_no_memory(s, err);
    s->tokens = grown;
    return CCA_OK;
}

bool cca_store_makes_sense(const cca_store *s, const segment_header *h) {
    if (h->kind > CCA_STORE_NOTE || h->first < 0 || h->n < 0) return false;
    if (h->first > INT64_MAX / 8 || h->n > INT64_MAX / 8) return false;
    if (h->kind == CCA_STORE_WINDOW && h->first + h->n > s->n_tokens) return false;
    if (h->kind != CCA_STORE_TOKENS) return true;
    return h->first == s->n_tokens && h->n > 0 && h->bytes == (uint64_t)h->n * sizeof *s->tokens;
}

static cca_status read_tokens(cca_store *s, const segment *seg, cca_error *err) {
    cca_status status = cca_store_grow_tokens(s, &seg->h, err);
    size_t bytes = (size_t)seg->h.bytes;
    int32_t *to = s->tokens + s->n_tokens;
    if (!status) status = read_at(s, seg->at + ALIGN, to, bytes, err);
    if (!status && cca_store_crc(0, to, bytes) != seg->h.crc) {
        return damaged(s, seg->at, "the checksum of its tokens differs", err);
    }
    if (!status) s->n_tokens += seg->h.n;
    return status;
}

static bool all_zero(const void *data, size_t bytes) {
    const char *c = data;
    return bytes == 0 || (c[0] == 0 && memcmp(c, c + 1, bytes - 1) == 0);
}

/* The first header behind `at`; false where there is none. Tokens that are lost are no reason to
 * overlook it. */
static bool next_header(segment_header *out, uint64_t *at, const cca_store *s, char *buffer,
                        size_t size) {
    for (uint64_t from = *at; from + ALIGN <= s->file_bytes; from += size) {
        size_t n = (size_t)cca_min((int64_t)size, (int64_t)(s->file_bytes - from)) / ALIGN * ALIGN;
        if (read_at(s, from, buffer, n, NULL)) return false;
        for (size_t i = 0; i < n; i += ALIGN) {
            memcpy(out, buffer + i, sizeof *out);
            const bool is_one = out->magic == SEGMENT_MAGIC;
            if (!is_one || out->header_crc != cca_store_header_crc(out)) continue;
            *at = from + i;
            return true;
        }
    }
    return false;
}

/* Whether a segment is the last one of a checkpoint. */
static bool closes(const segment_header *h) {
    return h->kind == CCA_STORE_WINDOW || h->kind == CCA_STORE_DROPPED;
}

/* What lies behind a place without a header is a torn tail, as a commit that was interrupted leaves
 * it: bytes, and headers of one checkpoint, of which the first is missing. Where there is more,
 * something was there that is lost. */
static cca_status check_tail(const cca_store *s, cca_error *err) {
    enum { SIZE = 1 << 18 };
    segment_header h;
    char place[ALIGN];
    uint64_t at = s->end;
    bool closed = s->n_segments > 0 && !closes(&s->segments[s->n_segments - 1].h), more = false;
    cca_status status = read_at(s, at, place, sizeof place, err);
    if (status) return status;
    if (!all_zero(place, sizeof place)) return damaged(s, at, "a segment's header", err);
    char *buffer = malloc(SIZE);
    if (!buffer) return cca_store_no_memory(s, err);
    while (!more && next_header(&h, &at, s, buffer, SIZE)) {
        more = closed;
        closed |= closes(&h);
        if (h.bytes > s->file_bytes - at) break;
        at = cca_store_align(at + ALIGN + h.bytes);
    }
    free(buffer);
    return more ? damaged(s, s->end, "a segment's header is missing", err) : CCA_OK;
}

/* Segments up to the first place that holds none: the torn tail. */
static cca_status scan(cca_store *s, cca_error *err) {
    uint64_t size = s->file_bytes;
    while (s->end + ALIGN <= size) {
        segment_header h;
        cca_status status = read_at(s, s->end, &h, sizeof h, err);
        if (status) return status;
        if (h.magic != SEGMENT_MAGIC) return check_tail(s, err);
        if (h.header_crc != cca_store_header_crc(&h) || !cca_store_makes_sense(s, &h)) {
            return damaged(s, s->end, "a segment's header", err);
        }
        if (h.bytes > size - s->end - ALIGN) break;
        status = cca_store_push(s, &h, s->end, err);
        if (!status && h.kind == CCA_STORE_TOKENS) {
            status = read_tokens(s, &s->segments[s->n_segments - 1], err);
        }
        if (status) return status;
        s->end = cca_store_align(s->end + ALIGN + h.bytes);
    }
    return CCA_OK;
}

static cca_status read_header(cca_store *s, cca_error *err) {
    file_header h;
    if (s->file_bytes < sizeof h) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: too short for a session file", s->file.path);
    }
    cca_status status = read_at(s, 0, &h, sizeof h, err);
    if (status) return status;
    if (memcmp(h.magic, file_magic, sizeof file_magic - 1) != 0) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: is no session file", s->file.path);
    }
    if (h.magic[7] != file_magic[7]) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: a session file of version %d, not %d",
                        s->file.path, h.magic[7], file_magic[7]);
    }
    if (h.facts_bytes > MAX_FACTS || h.facts_bytes > s->file_bytes - sizeof h) {
        return damaged(s, 8, "the length of its description", err);
    }
    s->facts = calloc(1, h.facts_bytes + 1);
    if (!s->facts) return cca_store_no_memory(s, err);
    status = read_at(s, sizeof h, s->facts, h.facts_bytes, err);
    if (!status && cca_store_crc(0, s->facts, h.facts_bytes) != h.facts_crc) {
        return damaged(s, 12, "the checksum of its description differs", err);
    }
    s->end = cca_store_align(sizeof h + h.facts_bytes);
    return status;
}

/* ---- opening and closing -------------------------------------------------------------- */

static cca_store *new_store(const char *path, cca_error *err) {
    cca_store *s = calloc(1, sizeof *s);
    char *copy = strdup(path);
    if (!s || !copy) {
        free(s);
        free(copy);
        cca_fail(err, CCA_NO_MEMORY, "%s: no memory", path);
        return NULL;
    }
    s->file = (cca_whole_file){.path = copy, .fd = -1};
    s->replaced = -1;
    return s;
}

static cca_status busy(const char *path, cca_error *err) {
    return cca_fail(err, CCA_RUNTIME, "%s: another process is writing this session", path);
}

/* Opens what path names for writing, and locks it: *out is -1, errno tells why, where that fails.
 * True where somebody else writes it. */
static bool open_locked(int *out, const char *path) {
    for (;;) { /* until it was not replaced or removed between the two */
        *out = cca_open_again(path, O_RDWR | O_CLOEXEC | O_NONBLOCK, 0);
        if (*out < 0) return false;
        bool held = cca_lock(*out, F_WRLCK, LOCK_WRITER) == CCA_LOCK_BUSY;
        if (!held && cca_still_named(*out, path)) return false;
        close(*out);
        *out = -1;
        if (held) return true;
    }
}

/* Writers keep readers out for moments only, when they take something away. */
static bool lock_for_reading(int fd) {
    enum { TRIES = 500, MICROSECONDS = 10000 };
    for (int i = 0; i < TRIES; i++) {
        if (cca_lock(fd, F_RDLCK, LOCK_READERS) != CCA_LOCK_BUSY) return true;
        usleep(MICROSECONDS);
    }
    return false;
}

static cca_status open_file(cca_store *s, bool writable, cca_error *err) {
    struct stat st;
    const char *path = s->file.path;
    /* O_NONBLOCK: a named pipe is refused, not waited for. */
    if (writable && open_locked(&s->file.fd, path)) return busy(path, err);
    if (!writable) s->file.fd = cca_open_again(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (s->file.fd < 0 && writable && (errno == EACCES || errno == EROFS)) {
        return cca_store_bad_output(s, "open for writing", err);
    }
    if (s->file.fd < 0 || fstat(s->file.fd, &st) != 0) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: cannot open: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: is not a regular file", path);
    }
    if (!writable && !lock_for_reading(s->file.fd)) return busy(path, err);
    /* The size counts once the lock is there. */
    if (fstat(s->file.fd, &st) != 0) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: cannot stat: %s", path, strerror(errno));
    }
    s->file_bytes = (uint64_t)st.st_size;
    return CCA_OK;
}

/* A reader may look between two writes of a commit, or at an unfinished tail that a writer cuts off
 * meanwhile. Damage that is told twice is there. */
static cca_status scan_beside_writer(cca_store *s, cca_error *err) {
    enum { TRIES = 100, MICROSECONDS = 10000 };
    const uint64_t begin = s->end;
    cca_error before = {0}, now = {0};
    struct stat st;
    cca_status status = scan(s, &now);
    for (int i = 1; status == CCA_BAD_MODEL && i < TRIES; i++) {
        if (strcmp(before.text, now.text) == 0) break;
        before = now;
        usleep(MICROSECONDS);
        if (fstat(s->file.fd, &st) != 0) break;
        s->n_segments = 0;
        s->n_tokens = 0;
        s->end = begin;
        s->file_bytes = (uint64_t)st.st_size;
        status = scan(s, &now);
    }
    if (status && err) *err = now;
    return status;
}

/* It is gone from the disk, too, before others take its place: else a power cut could leave headers
 * of both. */
static cca_status cut_tail(cca_store *s, cca_error *err) {
    if (s->file_bytes == s->end) return CCA_OK;
    if (cca_resize_again(s->file.fd, (off_t)s->end) != 0) {
        return cca_store_bad_output(s, "cut off an unfinished tail", err);
    }
    return cca_store_sync(s, err);
}

cca_status cca_store_open(cca_store **out, const char *path, bool writable, cca_error *err) {
    *out = NULL;
    cca_store *s = new_store(path, err);
    if (!s) return CCA_NO_MEMORY;
    cca_status status = open_file(s, writable, err);
    if (!status) status = read_header(s, err);
    if (!status) status = writable ? scan(s, err) : scan_beside_writer(s, err);
    s->n_committed = s->n_segments;
    if (!status && writable) status = cut_tail(s, err);
    if (status) {
        cca_store_close(s);
        return status;
    }
    *out = s;
    return CCA_OK;
}

/* Nobody may write the file that a new one will replace: its lock is held until close. */
static cca_status lock_replaced(cca_store *s, const cca_store *old, cca_error *err) {
    if (!old) return open_locked(&s->replaced, s->file.path) ? busy(s->file.path, err) : CCA_OK;
    s->replaced = fcntl(old->file.fd, F_DUPFD_CLOEXEC, 0); /* the lock belongs to both */
    return s->replaced >= 0 ? CCA_OK : cca_store_bad_output(s, "keep it locked", err);
}

/* The temporary file has one name for all that would make this one. */
static cca_status begin_file(cca_store *s, const char *path, const cca_store *old, cca_error *err) {
    char *given = s->file.path;
    cca_status status = cca_whole_open(&s->file, path, err);
    if (!s->file.path) {
        s->file.path = given;
        return status;
    }
    free(given);
    s->file.alone = true;
    if (!status) status = cca_whole_begin(&s->file, 0, err);
    if (status == CCA_RUNTIME) return busy(path, err);
    if (status == CCA_BAD_OUTPUT) return cca_store_bad_output(s, "create it", err);
    if (status) return status;
    return lock_replaced(s, old, err);
}

static cca_status create(cca_store **out, const char *path, const char *facts, const cca_store *old,
                         cca_error *err) {
    *out = NULL;
    size_t n = strlen(facts);
    if (n > MAX_FACTS) {
        return cca_fail(err, CCA_USAGE, "%s: a description of %zu bytes is too long", path, n);
    }
    cca_store *s = new_store(path, err);
    if (!s) return CCA_NO_MEMORY;
    file_header h = {.facts_bytes = (uint32_t)n, .facts_crc = cca_store_crc(0, facts, n)};
    memcpy(h.magic, file_magic, sizeof file_magic);
    s->facts = strdup(facts);
    cca_status status = s->facts ? begin_file(s, path, old, err) : cca_store_no_memory(s, err);
    if (!status) status = cca_whole_write(&s->file, 0, &h, sizeof h, err);
    if (!status) status = cca_whole_write(&s->file, sizeof h, facts, n, err);
    s->end = cca_store_align(sizeof h + n);
    if (status) {
        cca_store_close(s);
        return status;
    }
    *out = s;
    return CCA_OK;
}

cca_status cca_store_create(cca_store **out, const char *path, const char *facts, cca_error *err) {
    return create(out, path, facts, NULL, err);
}

cca_status cca_store_replace(cca_store **out, const cca_store *old, const char *facts,
                             cca_error *err) {
    return create(out, old->file.path, facts, old, err);
}

cca_status cca_store_remove(const char *path, cca_error *err) {
    int fd;
    char magic[sizeof file_magic];
    if (open_locked(&fd, path)) return busy(path, err);
    if (fd < 0) return cca_fail(err, CCA_BAD_MODEL, "%s: cannot open: %s", path, strerror(errno));
    const cca_store bytes = {.file = {.path = (char *)path, .fd = fd}}; /* borrowed */
    cca_status status = read_at(&bytes, 0, magic, sizeof magic, err);
    if (!status && memcmp(magic, file_magic, sizeof magic - 1) != 0) {
        status = cca_fail(err, CCA_BAD_MODEL, "%s: is no session file", path);
    } else if (!status && unlink(path) != 0) {
        status = cca_fail(err, CCA_BAD_OUTPUT, "%s: cannot remove: %s", path, strerror(errno));
    }
    close(fd);
    return status;
}

void cca_store_close(cca_store *s) {
    if (!s) return;
    if (s->lent) (void)cca_lock(s->file.fd, F_UNLCK, LOCK_WRITER); /* which views keep open */
    cca_whole_close(&s->file);
    if (s->replaced >= 0) close(s->replaced);
    free(s->facts);
    free(s->tokens);
    free(s->segments);
    free(s);
}

/* ---- facts ---------------------------------------------------------------------------- */

const char *cca_store_path(const cca_store *store) {
    return store->file.path;
}

const char *cca_store_facts(const cca_store *store) {
    return store->facts;
}

const int32_t *cca_store_tokens(const cca_store *store, int64_t *n) {
    *n = store->n_tokens;
    return store->tokens;
}

uint64_t cca_store_bytes(const cca_store *store) {
    return store->end;
}

uint64_t cca_store_torn_bytes(const cca_store *store) {
    return store->file_bytes > store->end ? store->file_bytes - store->end : 0;
}

static size_t next_window(const cca_store *s, size_t from) {
    while (from < s->n_segments && s->segments[from].h.kind != CCA_STORE_WINDOW) from++;
    return from;
}

size_t cca_store_n_points(const cca_store *store) {
    size_t n = 0;
    for (size_t i = next_window(store, 0); i < store->n_segments; i = next_window(store, i + 1)) {
        n++;
    }
    return n;
}

size_t cca_store_window_of(const cca_store *s, size_t point) {
    size_t i = next_window(s, 0);
    while (point-- > 0 && i < s->n_segments) i = next_window(s, i + 1);
    return i;
}

cca_store_point cca_store_point_at(const cca_store *store, size_t index) {
    size_t i = cca_store_window_of(store, index);
    if (i >= store->n_segments) return (cca_store_point){0};
    const segment *seg = &store->segments[i];
    return (cca_store_point){seg->h.first + seg->h.n, i + 1,
                             cca_store_align(seg->at + ALIGN + seg->h.bytes)};
}

size_t cca_store_n_segments(const cca_store *store) {
    return store->n_segments;
}

cca_store_segment cca_store_segment_at(const cca_store *store, size_t index) {
    if (index >= store->n_segments) return (cca_store_segment){0};
    const segment_header *h = &store->segments[index].h;
    return (cca_store_segment){(cca_store_kind)h->kind, h->first, h->n, h->bytes};
}

/* ---- reading -------------------------------------------------------------------------- */

cca_status cca_store_no_segment(const cca_store *s, size_t index, cca_error *err) {
    return cca_fail(err, CCA_RUNTIME, "%s: has no segment %zu", s->file.path, index);
}

cca_status cca_store_no_point(const cca_store *s, size_t index, cca_error *err) {
    return cca_fail(err, CCA_USAGE, "%s: has no checkpoint %zu", s->file.path, index);
}

cca_status cca_store_read_begin(cca_store *store, size_t index, cca_error *err) {
    if (index >= store->n_segments) return cca_store_no_segment(store, index, err);
    store->reading = index;
    store->done = 0;
    store->crc = 0;
    return CCA_OK;
}

cca_status cca_store_read(cca_store *store, void *data, size_t bytes, cca_error *err) {
    const size_t index = store->reading;
    if (index >= store->n_segments) return cca_store_no_segment(store, index, err);
    const segment *seg = &store->segments[index];
    if (bytes > seg->h.bytes - store->done) {
        return damaged(store, seg->at, "a segment is shorter than what it should hold", err);
    }
    cca_status status = read_at(store, seg->at + ALIGN + store->done, data, bytes, err);
    if (status) return status;
    store->crc = cca_store_crc(store->crc, data, bytes);
    store->done += bytes;
    if (store->done == seg->h.bytes && store->crc != seg->h.crc) {
        return damaged(store, seg->at, "the checksum of a segment differs", err);
    }
    return CCA_OK;
}

/* ---- views ----------------------------------------------------------------------------- */

void cca_store_unlock_readers(const cca_store *s) {
    (void)cca_lock(s->file.fd, s->lent ? F_RDLCK : F_UNLCK, LOCK_READERS);
}

void cca_store_lend(cca_store *store) {
    store->lent = true;
    cca_store_unlock_readers(store);
}

cca_status cca_store_view_open(cca_store_view *out, const cca_store *store, cca_error *err) {
    *out = (cca_store_view){.fd = -1};
    if (!store->lent || store->n_committed == 0) {
        return cca_fail(err, CCA_USAGE, "%s: has no rows to lend", store->file.path);
    }
    const segment *last = &store->segments[store->n_committed - 1];
    size_t size = (size_t)(last->at + ALIGN + last->h.bytes);
    int fd = fcntl(store->file.fd, F_DUPFD_CLOEXEC, 0); /* the lock belongs to both */
    void *data = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        cca_status status = errno == ENOMEM ? CCA_NO_MEMORY : CCA_RUNTIME;
        cca_fail(err, status, "%s: cannot map %zu bytes: %s", store->file.path, size,
                 strerror(errno));
        if (fd >= 0) close(fd);
        return status;
    }
    (void)madvise(data, size, MADV_RANDOM); /* as base/file_memory.c does */
    *out = (cca_store_view){data, size, fd};
    return CCA_OK;
}

void cca_store_view_close(cca_store_view *view) {
    if (!view->data) return;
    munmap((void *)view->data, view->size);
    close(view->fd);
    *view = (cca_store_view){.fd = -1};
}

const void *cca_store_view_at(const cca_store_view *view, const cca_store *store, size_t index) {
    return view->data + store->segments[index].at + ALIGN;
}
