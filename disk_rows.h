/* Rows of all layers on disk: in a file without a name, and, once a session file has them, there.
 *
 *     cca_rows layer = {NULL, NULL, CCA_BF16, CCA_BF16, n_kv_heads, ctx_size, head_dim, 0};
 *     cca_disk_rows *d;
 *     cca_disk_rows_new(&d, backend, folder, &layer, n_layers, &err);
 *     cca_disk_rows_go(d, pos, pos + n, near, first);     // before positions pos … are written
 *     cca_rows rows = cca_disk_rows_layer(d, layer);      // written there, and read
 *     cca_pieces pieces = cca_disk_rows_pieces(d, layer); // but where pieces have them
 *     cca_disk_rows_free(d);
 *
 * Both files are mapped, so that rows that are read often stay in the system's page cache and
 * others are read when they are needed; how much stays is the system's choice, within the limits of
 * the control group. Pages of the file without a name are written by the system as it likes; those
 * of a session file are written before they are read here (store.h). The CPU's memory alone can be
 * mapped: the backend must be one of host memory. */
#ifndef CCA_DISK_ROWS_H
#define CCA_DISK_ROWS_H

#include "backend/backend.h"
#include "store.h"

typedef struct cca_disk_rows cca_disk_rows;

/* Bytes on disk of such rows; false where that does not exist. */
bool cca_disk_rows_bytes(size_t *out, const cca_rows *layer, int64_t n_layers);

/* layer: types and sizes of one layer's rows, base 0. CCA_BAD_OUTPUT names the folder. */
cca_status cca_disk_rows_new(cca_disk_rows **out, cca_backend *backend, const char *folder,
                             const cca_rows *layer, int64_t n_layers, cca_error *err);
/* NULL is allowed. */
void cca_disk_rows_free(cca_disk_rows *d);

/* Goes on at pos, up to end: takes the space for the rows from there on, and what pieces have
 * behind pos is forgotten. Of what they have before it `near` rows, and the first ones, come into
 * the rows of cca_disk_rows_layer, too. What fails is the backend's failure, CCA_BAD_OUTPUT. */
void cca_disk_rows_go(cca_disk_rows *d, int64_t pos, int64_t end, int64_t near, int64_t first);

cca_rows cca_disk_rows_layer(const cca_disk_rows *d, int64_t layer);
cca_pieces cca_disk_rows_pieces(const cca_disk_rows *d, int64_t layer);
/* Positions that pieces have: 0 … n - 1. */
int64_t cca_disk_rows_lent(const cca_disk_rows *d);

/* Asks the system for the rows that n_tiles tiles have chosen, all at once, before they are read
 * one by one: where this process has had to wait for a disk lately. */
void cca_disk_rows_want(cca_disk_rows *d, int64_t layer, const cca_choice *choice, int64_t n_tiles);

/* Copies rows from wherever they lie to host memory, [heads][n][head_dim]. */
void cca_disk_rows_get(const cca_disk_rows *d, int64_t layer, int64_t pos, int64_t n, void *k,
                       void *v);

/* Takes over a view of a session file, of which pieces follow; false where there are too many. */
bool cca_disk_rows_view(cca_disk_rows *d, const cca_store_view *view);
/* Positions first … first + n - 1 are read in the last view from now on: keys, then values, of each
 * layer at data, layer_bytes further on those of the next. False, and nothing happens, where they
 * do not follow the last piece, or cannot be read where they lie. */
bool cca_disk_rows_lend(cca_disk_rows *d, int64_t first, int64_t n, const void *data,
                        size_t layer_bytes);
/* Gives the space of rows that pieces have back, but for the last `near` and the first ones. */
void cca_disk_rows_give(cca_disk_rows *d, int64_t near, int64_t first);
/* All pieces are forgotten. */
void cca_disk_rows_recall(cca_disk_rows *d);

/* Takes the mapped pages out of the process, for which they count; they can still be read. */
void cca_disk_rows_forget(const cca_disk_rows *d);

#endif
