/* The session file: tokens, rows and windows of one timeline, in segments that are only appended.
 *
 *     cca_store *store;
 *     cca_store_create(&store, "book.ccas", "model=…\ngroup_size=16\n", &err);
 *     cca_store_begin(store, CCA_STORE_TOKENS, 0, 8192, 8192 * 4, &err);
 *     cca_store_write(store, ids, 8192 * 4, &err);          // in as many pieces as wanted
 *     ... a CCA_STORE_ROWS segment, a CCA_STORE_WINDOW segment ...
 *     cca_store_commit(store, &err);                        // now the checkpoint exists
 *     cca_store_close(store);
 *
 *     cca_store_open(&store, "book.ccas", false, &err);
 *     cca_store_point point = cca_store_point_at(store, cca_store_n_points(store) - 1);
 *     for (size_t i = 0; i < point.n_segments; i++) ...     // cca_store_read_begin, _read
 *
 * A window closes a checkpoint: together with all tokens and rows before it in the file it is the
 * state at one position. The bytes of a segment are synced before its header is written, so a
 * header that is there vouches for its bytes: what an interruption leaves is no segment and is cut
 * off by the next writer. A checksum (zlib's crc32) that differs is damage, and so is a header that
 * is missing in front of others. A new file gets its name with its first commit; until then a file
 * of that name stays what it was. Numbers are little-endian. One writer at a time, also of a file
 * that has no name yet; any number of readers beside it. */
#ifndef CCA_STORE_H
#define CCA_STORE_H

#include "base/base.h"

typedef struct cca_store cca_store;

typedef enum cca_store_kind {
    CCA_STORE_DROPPED, /* a window that is no longer there */
    CCA_STORE_TOKENS,  /* int32 ids of positions first … first + n - 1 */
    CCA_STORE_ROWS,    /* append-only rows first … first + n - 1 of all layers */
    CCA_STORE_WINDOW,  /* the other rows at position first + n, n of them */
    CCA_STORE_NOTE,    /* bytes that the program has a meaning for; first and n are, too */
} cca_store_kind;

/* A checkpoint. */
typedef struct cca_store_point {
    int64_t pos; /* tokens before it */
    size_t
        n_segments; /* those it is made of are among the first n_segments; the last is its window */
    uint64_t bytes; /* of the file up to there */
} cca_store_point;

typedef struct cca_store_segment {
    cca_store_kind kind;
    int64_t first, n;
    uint64_t bytes;
} cca_store_segment;

/* Opens a file, for reading alone or to append. CCA_BAD_MODEL where it is missing, no session file
 * or damaged; CCA_RUNTIME where another process writes it; CCA_BAD_OUTPUT where it cannot be
 * written; CCA_NO_MEMORY. */
cca_status cca_store_open(cca_store **out, const char *path, bool writable, cca_error *err);

/* A new file with lines "name=value\n" that say what its states belong to; one of that name is
 * replaced by the first commit. Behind symbolic links it is their target that is made or replaced.
 * CCA_RUNTIME where another process writes or makes it. */
cca_status cca_store_create(cca_store **out, const char *path, const char *facts, cca_error *err);
/* The same in place of a file that is open for writing: nobody else can write it in between, also
 * when old is closed. */
cca_status cca_store_replace(cca_store **out, const cca_store *old, const char *facts,
                             cca_error *err);
/* Removes a session file, which may be damaged. CCA_RUNTIME where another process writes it;
 * CCA_BAD_MODEL for what is no session file, CCA_BAD_OUTPUT. */
cca_status cca_store_remove(const char *path, cca_error *err);

/* What was not committed is gone. NULL is allowed. */
void cca_store_close(cca_store *store);

const char *cca_store_path(const cca_store *store);
const char *cca_store_facts(const cca_store *store);
/* All ids of the file, and their number. */
const int32_t *cca_store_tokens(const cca_store *store, int64_t *n);
/* Bytes of the file, and of an unfinished tail that an interruption left. */
uint64_t cca_store_bytes(const cca_store *store);
uint64_t cca_store_torn_bytes(const cca_store *store);

/* Checkpoints, by position, without those that were dropped. */
size_t cca_store_n_points(const cca_store *store);
/* All zero where there is no such checkpoint. */
cca_store_point cca_store_point_at(const cca_store *store, size_t index);

size_t cca_store_n_segments(const cca_store *store);
/* All zero where there is no such segment. */
cca_store_segment cca_store_segment_at(const cca_store *store, size_t index);

/* Reads the bytes of a segment in order. The read that takes the last of them compares the
 * checksum: CCA_BAD_MODEL names segment and offset. */
cca_status cca_store_read_begin(cca_store *store, size_t index, cca_error *err);
cca_status cca_store_read(cca_store *store, void *data, size_t bytes, cca_error *err);

/* Begins a segment of so many bytes behind the last one. After a failure (CCA_BAD_OUTPUT: a full
 * disk) everything since the last commit is dropped and the file is as it was then. */
cca_status cca_store_begin(cca_store *store, cca_store_kind kind, int64_t first, int64_t n,
                           uint64_t bytes, cca_error *err);
cca_status cca_store_write(cca_store *store, const void *data, size_t bytes, cca_error *err);
cca_status cca_store_commit(cca_store *store, cca_error *err);
/* While a new file is held, commits give it no name: what they made appears at once, with the first
 * commit behind. False for a file that has its name, and is not held. */
bool cca_store_hold(cca_store *store, bool held);
/* Drops everything since the last commit. */
void cca_store_cancel(cca_store *store);

/* Copies what a checkpoint of another file is made of; not yet committed. Windows of earlier
 * checkpoints come along. CCA_USAGE where there is no such checkpoint. */
cca_status cca_store_copy(cca_store *store, cca_store *from, size_t point, cca_error *err);

/* From now on the file's rows may be read where they lie: nobody takes any of them away
 * (cca_store_cut) while it is open or has a view. */
void cca_store_lend(cca_store *store);

/* What a lent file had committed when its view was made, mapped; it stays when the file is closed,
 * replaced or removed, and keeps no writer out. */
typedef struct cca_store_view {
    const uint8_t *data;
    size_t size;
    int fd;
} cca_store_view;

/* CCA_USAGE for a file that is not lent, CCA_NO_MEMORY, CCA_RUNTIME where it cannot be mapped. */
cca_status cca_store_view_open(cca_store_view *out, const cca_store *store, cca_error *err);
void cca_store_view_close(cca_store_view *view);
/* The bytes of a segment that was committed when the view of this file was made; their checksum is
 * compared by those who read them. */
const void *cca_store_view_at(const cca_store_view *view, const cca_store *store, size_t index);

/* Drops all segments behind the first n_segments, which end with a window; CCA_RUNTIME while
 * somebody reads the file, or this store is lent: it then stays as it is. */
cca_status cca_store_cut(cca_store *store, size_t n_segments, cca_error *err);

/* Gives the space of a checkpoint's window back; nothing happens while somebody reads the file.
 * CCA_USAGE where there is no such checkpoint. */
cca_status cca_store_drop(cca_store *store, size_t point, cca_error *err);

#endif
