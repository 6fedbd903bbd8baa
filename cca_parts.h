/* What the files of the cache share: its arrays, and where the rows of one lie. */
#ifndef CCA_CCA_PARTS_H
#define CCA_CCA_PARTS_H

#include "cca.h"
#include "disk_rows.h"
#include "near_rows.h"

/* The arrays of rows in a cache. */
typedef enum array_kind {
    ARRAY_RAW,     /* a ring, or all positions */
    ARRAY_ROWS,    /* of whole groups, beside a ring, where their types are others */
    ARRAY_SINKS,   /* beside a ring */
    ARRAY_CORES,   /* by group, for each query head */
    ARRAY_BOUNDS,  /* by group: largest keys as keys, smallest ones as values */
    ARRAY_BLOCKS,  /* by block of groups: bounds of their bounds */
    ARRAY_SCRATCH, /* window and chunk side by side; one layer */
    ARRAY_MARK,    /* a copy of the ring */
    N_ARRAYS
} array_kind;

typedef struct row_array {
    void *k, *v;
    cca_dtype k_type, v_type;
    int64_t layers, heads, rows;
} row_array;

struct cca_cache {
    cca_backend *backend;
    cca_cache_shape shape;
    cca_policy policy;
    bool all_rows; /* raw rows are append-only */
    row_array arrays[N_ARRAYS];
    array_kind on_disk; /* the array whose rows lie there; N_ARRAYS: none */
    cca_disk_rows *disk;
    array_kind on_host;        /* the array that lies there; N_ARRAYS: none */
    cca_near_rows *near;       /* NULL: rows are read where they lie */
    struct cca_spread *spread; /* NULL: it is one rank's */
    cca_choice choice;         /* most 0: nothing is recalled */
    int64_t n_choosing;        /* tiles that choice has room for */
    bool alone, draft;
    cca_mass watched; /* sums NULL: nobody watches */
    int64_t n_watched;
};

/* The arrays of a cache, without their memory. */
void cca_cache_count(cca_cache *c, const cca_cache_shape *shape, const cca_policy *policy);
/* Bytes of layers × heads × rows keys (or values). */
bool cca_cache_rows_bytes(size_t *out, const cca_cache *c, cca_dtype type, int64_t layers,
                          int64_t heads, int64_t rows);
bool cca_cache_has(const cca_cache *c, array_kind kind);
/* The rows of one layer in an array [layers][heads][rows][head_dim]; base: position of row 0. An
 * array of a single layer is all layers' in turn. */
cca_rows cca_cache_rows(const cca_cache *c, array_kind kind, int64_t layer, int64_t base);
/* Makes the bounds of the blocks that groups first … first + n - 1 complete. */
void cca_cache_bound_blocks(cca_cache *c, int64_t layer, int64_t first, int64_t n);

/* The steps of cca_cache_attend, whose arguments these are. Raw rows with room for the call's
 * positions behind the window's: in their place, or, where that has no room for them, side by side,
 * from where the window is put back behind the call. */
bool cca_cache_lay(cca_cache *c, cca_rows *raw, int64_t layer, int64_t pos, int64_t n);
void cca_cache_slide(cca_cache *c, int64_t layer, const cca_rows *raw, int64_t pos, int64_t n);
/* Stores keys and values in them. */
void cca_cache_store(cca_cache *c, cca_rows *raw, cca_matrix *q, cca_matrix *k, const cca_matrix *v,
                     const cca_turn *turn, int64_t pos, int64_t n);
/* What becomes of the groups that n new raw rows complete, and of new sinks. Rows in types of their
 * own are made at once; until their group leaves the window nobody reads them: these are *rows
 * then, as they are read. */
void cca_cache_take(cca_cache *c, cca_rows *rows, int64_t layer, const cca_rows *raw,
                    const cca_matrix *q, int64_t pos, int64_t n);
/* Attends: raw has the rows of the queries and of their windows, rows those that are recalled. */
void cca_cache_look(cca_cache *c, int64_t layer, cca_matrix *out, const cca_rows *raw,
                    const cca_rows *rows, const cca_matrix *q, int64_t own_window, int64_t pos,
                    int64_t n);

/* Raw rows that are read as they lie, before those of a call, and at the start. */
int64_t cca_cache_near(const cca_cache *c);
int64_t cca_cache_first(const cca_cache *c);

#endif
