/* States of a cache in a session file.
 *
 *     cca_store_cache_append(store, cache, ids, pos, &err);   // a checkpoint at pos
 *     cca_store_cache_load(cache, store, point, &err);        // and back, perhaps elsewhere
 *
 * A checkpoint has the ids and the kept rows since the one before it, and all rows of the window:
 * kept rows are never written twice. Where rows lie on disk (cca_cache_shape.rows_folder) and the
 * file is lent (cca_store_lend), the cache reads them there from then on, appended or loaded. */
#ifndef CCA_STORE_CACHE_H
#define CCA_STORE_CACHE_H

#include "cca.h"
#include "store.h"

/* Appends what the file does not have yet of the state behind the pos tokens ids, which begin with
 * the file's own, and commits. CCA_BAD_OUTPUT, CCA_RUNTIME where a number of the state is none, or
 * the device's failure: the file is as before. */
cca_status cca_store_cache_append(cca_store *store, cca_cache *cache, const int32_t *ids,
                                  int64_t pos, cca_error *err);

/* Makes the cache's state that of a checkpoint, which must be of a cache with the same settings.
 * CCA_BAD_MODEL where the file is damaged, of another shape, or has a number that is none; the
 * state is undefined then. */
cca_status cca_store_cache_load(cca_cache *cache, cca_store *store, size_t point, cca_error *err);

/* The rows of the window behind pos tokens, all layers, in host memory: what storing more tokens
 * loses of a state. Put back, they make the state at pos again while the kept rows before it are
 * still those of the same tokens. */
size_t cca_store_cache_window_bytes(const cca_cache *cache, int64_t pos);
cca_status cca_store_cache_window_get(void *out, const cca_cache *cache, int64_t pos,
                                      cca_error *err);
cca_status cca_store_cache_window_put(cca_cache *cache, const void *in, int64_t pos,
                                      cca_error *err);

#endif
