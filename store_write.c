/* What is written into a session file. */
#include "store_parts.h"

#include "base/again.h"
#include "base/file_lock.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* Forgets what was not committed. */
static void roll_back(cca_store *s) {
    while (s->n_segments > s->n_committed) {
        const segment *seg = &s->segments[--s->n_segments];
        if (seg->h.kind == CCA_STORE_TOKENS) s->n_tokens = seg->h.first;
        s->end = seg->at;
    }
    s->done = 0;
    (void)!cca_resize_again(s->file.fd, (off_t)s->end);
}

void cca_store_cancel(cca_store *store) {
    roll_back(store);
}

static cca_status failed(cca_store *s, cca_status status) {
    roll_back(s);
    return status;
}

/* Whether what was begun has all its bytes. */
static bool is_whole(const cca_store *s) {
    return s->n_segments == s->n_committed || s->done == s->segments[s->n_segments - 1].h.bytes;
}

cca_status cca_store_begin(cca_store *store, cca_store_kind kind, int64_t first, int64_t n,
                           uint64_t bytes, cca_error *err) {
    segment_header h = {SEGMENT_MAGIC, kind, first, n, bytes, 0, 0};
    if (!is_whole(store) || !cca_store_makes_sense(store, &h)) {
        return failed(store,
                      cca_fail(err, CCA_RUNTIME, "%s: segment out of order", store->file.path));
    }
    cca_status status = kind == CCA_STORE_TOKENS ? cca_store_grow_tokens(store, &h, err) : CCA_OK;
    if (!status) status = cca_store_push(store, &h, store->end, err);
    if (status) return failed(store, status);
    if (kind == CCA_STORE_TOKENS) store->n_tokens += n;
    store->end = cca_store_align(store->end + ALIGN + bytes);
    store->done = 0;
    return CCA_OK;
}

cca_status cca_store_write(cca_store *store, const void *data, size_t bytes, cca_error *err) {
    const size_t n = store->n_segments;
    if (n == store->n_committed) return cca_store_no_segment(store, n, err);
    segment *seg = &store->segments[n - 1];
    if (bytes > seg->h.bytes - store->done) {
        return failed(store,
                      cca_fail(err, CCA_RUNTIME, "%s: a segment is too long", store->file.path));
    }
    cca_status status =
        cca_whole_write(&store->file, seg->at + ALIGN + store->done, data, bytes, err);
    if (status) return failed(store, status);
    if (seg->h.kind == CCA_STORE_TOKENS) {
        memcpy((char *)(store->tokens + seg->h.first) + store->done, data, bytes);
    }
    seg->h.crc = cca_store_crc(seg->h.crc, data, bytes);
    store->done += bytes;
    return CCA_OK;
}

static cca_status write_header(cca_store *s, segment *seg, cca_error *err) {
    char place[ALIGN] = {0};
    seg->h.header_crc = cca_store_header_crc(&seg->h);
    memcpy(place, &seg->h, sizeof seg->h);
    return cca_whole_write(&s->file, seg->at, place, sizeof place, err);
}

/* The first header, without which a reader stops, comes when all others are on the disk. */
static cca_status write_headers(cca_store *s, cca_error *err) {
    size_t first = s->n_committed;
    cca_status status =
        cca_resize_again(s->file.fd, (off_t)s->end) ? cca_store_bad_output(s, "grow", err) : CCA_OK;
    for (size_t i = first + 1; i < s->n_segments && !status; i++) {
        status = write_header(s, &s->segments[i], err);
    }
    if (!status) status = cca_store_sync(s, err);
    if (!status && first < s->n_segments) status = write_header(s, &s->segments[first], err);
    return status ? status : cca_store_sync(s, err);
}

cca_status cca_store_commit(cca_store *store, cca_error *err) {
    cca_status status = CCA_OK;
    if (!is_whole(store)) {
        status = cca_fail(err, CCA_RUNTIME, "%s: a segment is too short", store->file.path);
    }
    if (!status) status = write_headers(store, err);
    if (status) {
        (void)failed(store, status);
        (void)cca_store_sync(store, NULL); /* as cut_tail does: headers may be there */
        return status;
    }
    if (store->file.temporary && !store->held) status = cca_whole_commit(&store->file, err);
    if (status) return failed(store, status);
    store->n_committed = store->n_segments;
    store->file_bytes = store->end;
    return CCA_OK;
}

bool cca_store_hold(cca_store *store, bool held) {
    store->held = held && store->file.temporary;
    return store->held;
}

static cca_status copy_segment(cca_store *s, cca_store *from, size_t index, char *buffer,
                               size_t size, cca_error *err) {
    cca_store_segment seg = cca_store_segment_at(from, index);
    cca_status status = cca_store_read_begin(from, index, err);
    if (!status) status = cca_store_begin(s, seg.kind, seg.first, seg.n, seg.bytes, err);
    for (uint64_t done = 0; done < seg.bytes && !status;) {
        size_t some = seg.bytes - done < size ? (size_t)(seg.bytes - done) : size;
        status = cca_store_read(from, buffer, some, err);
        if (!status) status = cca_store_write(s, buffer, some, err);
        done += some;
    }
    return status;
}

cca_status cca_store_copy(cca_store *store, cca_store *from, size_t point, cca_error *err) {
    enum { SIZE = 1 << 20 };
    size_t n = cca_store_point_at(from, point).n_segments;
    if (n == 0) return failed(store, cca_store_no_point(from, point, err));
    char *buffer = malloc(SIZE);
    if (!buffer) return failed(store, cca_store_no_memory(store, err));
    cca_status status = CCA_OK;
    for (size_t i = 0; i < n && !status; i++) {
        if (from->segments[i].h.kind != CCA_STORE_DROPPED) {
            status = copy_segment(store, from, i, buffer, SIZE, err);
        }
    }
    free(buffer);
    return status ? failed(store, status) : CCA_OK;
}

cca_status cca_store_cut(cca_store *store, size_t n_segments, cca_error *err) {
    roll_back(store);
    if (n_segments >= store->n_segments) return CCA_OK;
    if (store->lent) {
        return cca_fail(err, CCA_RUNTIME, "%s: its rows are being read", store->file.path);
    }
    if (cca_lock(store->file.fd, F_WRLCK, LOCK_READERS) == CCA_LOCK_BUSY) {
        return cca_fail(err, CCA_RUNTIME, "%s: another process is reading this session",
                        store->file.path);
    }
    store->n_committed = n_segments;
    roll_back(store);
    store->file_bytes = store->end;
    cca_status status = cca_store_sync(store, err);
    cca_store_unlock_readers(store);
    return status;
}

/* The header is on the disk before its bytes are gone, else a crash would leave damage. */
cca_status cca_store_drop(cca_store *store, size_t point, cca_error *err) {
    size_t index = cca_store_window_of(store, point);
    if (index >= store->n_segments) return cca_store_no_point(store, point, err);
    segment *seg = &store->segments[index];
    if (cca_lock(store->file.fd, F_WRLCK, LOCK_READERS) == CCA_LOCK_BUSY) return CCA_OK;
    seg->h.kind = CCA_STORE_DROPPED;
    cca_status status = write_header(store, seg, err);
    if (!status) status = cca_store_sync(store, err);
    /* A file system that cannot do this keeps the space; that is no failure. */
    if (!status) {
        (void)!cca_reserve_again(store->file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                 (off_t)(seg->at + ALIGN), (off_t)seg->h.bytes);
    }
    cca_store_unlock_readers(store);
    return status;
}
