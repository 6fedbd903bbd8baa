/* What the files of the session file share: it, and its index. store.c opens, reads and describes
 * it, store_write.c makes it longer and shorter. */
#ifndef CCA_STORE_PARTS_H
#define CCA_STORE_PARTS_H

#include "base/whole_file.h"
#include "store.h"

enum {
    ALIGN = 64,      /* of headers: none straddles a sector of a disk */
    LOCK_WRITER = 0, /* bytes of the file that stand for its two locks: of whole_file.h, */
    LOCK_READERS = 1,
    SEGMENT_MAGIC = 0x47455343, /* "CSEG" */
};

typedef struct segment_header {
    uint32_t magic, kind;
    int64_t first, n;
    uint64_t bytes;
    uint32_t crc;        /* of the bytes */
    uint32_t header_crc; /* of the members above */
} segment_header;

_Static_assert(sizeof(segment_header) <= ALIGN, "a header fits its place");

typedef struct segment {
    segment_header h;
    uint64_t at; /* of the header */
} segment;

struct cca_store {
    cca_whole_file file; /* of a new one the first commit gives it its name */
    int replaced;        /* the file that this replaces, locked; or -1 */
    bool lent;           /* and locked for reading */
    bool held;           /* it gets no name yet */
    char *facts;
    int32_t *tokens;
    int64_t n_tokens;
    segment *segments;
    size_t n_segments, n_committed, capacity;
    uint64_t end;        /* where the next segment begins */
    uint64_t file_bytes; /* as found */
    size_t reading;      /* segment under way, and what was read or written of it */
    uint64_t done;
    uint32_t crc;
};

static inline uint64_t cca_store_align(uint64_t n) {
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

uint32_t cca_store_crc(uint32_t crc, const void *data, size_t bytes);
uint32_t cca_store_header_crc(const segment_header *h);

/* ---- the index: CCA_NO_MEMORY ---- */

cca_status cca_store_push(cca_store *s, const segment_header *h, uint64_t at, cca_error *err);
/* Room for the ids of a segment behind those that are there. */
cca_status cca_store_grow_tokens(cca_store *s, const segment_header *h, cca_error *err);
/* Whether a header can stand behind what the index has. */
bool cca_store_makes_sense(const cca_store *s, const segment_header *h);
/* The segment of a checkpoint's window; behind all segments where there is no such checkpoint. */
size_t cca_store_window_of(const cca_store *s, size_t point);

/* ---- the file ---- */

cca_status cca_store_sync(const cca_store *s, cca_error *err);
/* A lock that was a reader's becomes one again. */
void cca_store_unlock_readers(const cca_store *s);

/* ---- failures: each gives its status ---- */

cca_status cca_store_no_memory(const cca_store *s, cca_error *err);
cca_status cca_store_bad_output(const cca_store *s, const char *what, cca_error *err); /* errno */
cca_status cca_store_no_segment(const cca_store *s, size_t index, cca_error *err);
cca_status cca_store_no_point(const cca_store *s, size_t index, cca_error *err);

#endif
