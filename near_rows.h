/* Rows that recall chooses from, brought near: where they lie in memory of the host, or in types
 * that attention reads slowly, what a call needs of them is copied into the backend's own memory,
 * in the window's type.
 *
 *     cca_near_rows *near;
 *     cca_near_rows_new(&near, backend, &shape, &err);
 *     rows = cca_near_rows_layer(near, &far, &raw, pos, end, &next, n_next); // of many queries
 *     cca_near_rows_chosen(near, layer, &span, &choice, &far, pos, 0, n);    // of a few
 *     cca_near_rows_free(near);
 *
 * Of a layer all rows are copied, once a chunk; the next layer's come from the host beside the
 * operations in between. Of single queries what they chose stays near until the next one has
 * chosen, for which only other groups are copied. */
#ifndef CCA_NEAR_ROWS_H
#define CCA_NEAR_ROWS_H

#include "backend/backend.h"

typedef struct cca_near_rows cca_near_rows;

typedef struct cca_near_shape {
    cca_rows rows;            /* of a layer, far: types and sizes; base 0 */
    cca_dtype k_type, v_type; /* of the window */
    bool on_host;             /* in memory of cca_backend_alloc_host */
    int64_t n_layers;
    int64_t most, group_size; /* groups that a query chooses at most */
} cca_near_shape;

/* Tiles whose groups are gathered at a time. */
enum { CCA_NEAR_TILES = 8 };

/* Whether rows are worth bringing: they lie on the host, or in a type that attention of 16-bit rows
 * does not read. */
bool cca_near_rows_help(const cca_near_shape *shape);
/* Bytes that are allocated; false where that does not exist. */
bool cca_near_rows_bytes(size_t *out, const cca_near_shape *shape);
/* Failures of the backend's memory are its own (cca_backend_sync). */
cca_status cca_near_rows_new(cca_near_rows **out, cca_backend *backend, const cca_near_shape *shape,
                             cca_error *err);
/* NULL is allowed. */
void cca_near_rows_free(cca_near_rows *near);

/* All rows of a layer at positions 0 … end - 1, until the next call. far has those before pos, raw
 * has those from there on, which go to far, too. next: rows that the next call will be for, of
 * which it will want those of positions 0 … n_next - 1 from far; NULL: nobody knows. */
cca_rows cca_near_rows_layer(cca_near_rows *near, const cca_rows *far, const cca_rows *raw,
                             int64_t pos, int64_t end, const cca_rows *next, int64_t n_next);
/* Groups of a layer from one on are, or may be, others than before. */
void cca_near_rows_changed(cca_near_rows *near, int64_t layer, int64_t group);
/* Rows of far are read or changed otherwise than by cca_near_rows_layer from now on: after all
 * copies of its calls, and what was begun for the next one is of no use. */
void cca_near_rows_forget(cca_near_rows *near);

/* Copies what n_tiles ≤ CCA_NEAR_TILES tiles of one query, the first at pos, have chosen of far,
 * from tile `first` of a choice on; of a single one what the layer's last single one did not
 * choose. span and choice become those of the copies: each query sees all that it chose, of one
 * query no more groups than there are. */
void cca_near_rows_chosen(cca_near_rows *near, int64_t layer, cca_span *span, cca_choice *choice,
                          const cca_rows *far, int64_t pos, int64_t first, int64_t n_tiles);

#endif
