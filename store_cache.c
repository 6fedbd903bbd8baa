#include "store_cache.h"

#include <stdlib.h>

/* Kept rows that the first n segments of a file hold. */
static int64_t kept_rows(const cca_store *store, size_t n) {
    int64_t rows = 0;
    for (size_t i = 0; i < n; i++) {
        cca_store_segment s = cca_store_segment_at(store, i);
        if (s.kind == CCA_STORE_ROWS) rows = s.first + s.n;
    }
    return rows;
}

/* Lets the cache read rows where segments begin … end - 1 of the file have them, as far as it can:
 * where it does not read those before them there, they may be others, made in other calls. */
static void lend_rows(cca_cache *cache, const cca_store *store, size_t begin, size_t end) {
    cca_store_view view;
    if (kept_rows(store, end) <= cca_cache_lent(cache)) return;
    if (cca_store_view_open(&view, store, NULL)) return;
    if (!cca_cache_view(cache, &view)) {
        cca_store_view_close(&view);
        return;
    }
    for (size_t i = begin; i < end; i++) {
        cca_store_segment s = cca_store_segment_at(store, i);
        if (s.kind != CCA_STORE_ROWS || s.first != cca_cache_lent(cache)) continue;
        (void)cca_cache_lend(cache, s.first, s.n, cca_store_view_at(&view, store, i));
    }
}

/* Memory for the rows of one layer. */
static cca_status layer_buffer(char **out, size_t bytes, cca_error *err) {
    *out = malloc(bytes ? bytes : 1);
    return *out ? CCA_OK
                : cca_fail(err, CCA_NO_MEMORY, "no memory for %zu bytes of a stored state", bytes);
}

static cca_status append_rows(cca_store *store, const cca_cache *cache, cca_part part,
                              int64_t first, int64_t n, cca_error *err) {
    int64_t layers = cca_cache_n_layers(cache);
    size_t bytes = cca_cache_part_bytes(cache, part, first, n);
    char *buffer;
    cca_status status = layer_buffer(&buffer, bytes, err);
    if (status) return status;
    status = cca_store_begin(store, part == CCA_PART_KEPT ? CCA_STORE_ROWS : CCA_STORE_WINDOW,
                             first, n, bytes * (size_t)layers, err);
    for (int64_t layer = 0; layer < layers && !status; layer++) {
        cca_cache_get(cache, part, layer, first, n, buffer);
        status = cca_cache_sync(cache, err);
        if (!status && !cca_cache_all_finite(cache, part, first, n, buffer)) {
            status = cca_fail(err, CCA_RUNTIME,
                              "%s: not stored: rows of layer %lld hold what is no finite number",
                              cca_store_path(store), (long long)layer);
        }
        if (!status) status = cca_store_write(store, buffer, bytes, err);
    }
    free(buffer);
    return status;
}

cca_status cca_store_cache_append(cca_store *store, cca_cache *cache, const int32_t *ids,
                                  int64_t pos, cca_error *err) {
    size_t before = cca_store_n_segments(store);
    int64_t n_ids, first = kept_rows(store, before);
    int64_t kept = cca_cache_part_rows(cache, CCA_PART_KEPT, pos);
    int64_t window = cca_cache_part_rows(cache, CCA_PART_WINDOW, pos);
    cca_store_tokens(store, &n_ids);
    cca_status status = CCA_OK;
    if (pos > n_ids) {
        size_t bytes = (size_t)(pos - n_ids) * sizeof *ids;
        status = cca_store_begin(store, CCA_STORE_TOKENS, n_ids, pos - n_ids, bytes, err);
        if (!status) status = cca_store_write(store, ids + n_ids, bytes, err);
    }
    if (!status && kept > first) {
        status = append_rows(store, cache, CCA_PART_KEPT, first, kept - first, err);
    }
    if (!status) status = append_rows(store, cache, CCA_PART_WINDOW, pos - window, window, err);
    if (status) {
        cca_store_cancel(store);
        return status;
    }
    status = cca_store_commit(store, err);
    if (!status) lend_rows(cache, store, before, cca_store_n_segments(store));
    return status;
}

static cca_status load_rows(cca_cache *cache, cca_store *store, size_t index, cca_part part,
                            cca_error *err) {
    cca_store_segment s = cca_store_segment_at(store, index);
    int64_t layers = cca_cache_n_layers(cache);
    size_t bytes = cca_cache_part_bytes(cache, part, s.first, s.n);
    char *buffer;
    if (s.bytes / (uint64_t)layers != bytes || s.bytes % (uint64_t)layers != 0) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: segment %zu has %llu bytes for %lld layers of %zu",
                        cca_store_path(store), index, (unsigned long long)s.bytes,
                        (long long)layers, bytes);
    }
    cca_status status = layer_buffer(&buffer, bytes, err);
    if (!status) status = cca_store_read_begin(store, index, err);
    for (int64_t layer = 0; layer < layers && !status; layer++) {
        status = cca_store_read(store, buffer, bytes, err);
        if (!status && !cca_cache_all_finite(cache, part, s.first, s.n, buffer)) {
            status = cca_fail(err, CCA_BAD_MODEL,
                              "%s: segment %zu: rows of layer %lld hold what is no finite number",
                              cca_store_path(store), index, (long long)layer);
        }
        if (status) break;
        cca_cache_put(cache, part, layer, s.first, s.n, buffer);
        status = cca_cache_sync(cache, err);
    }
    free(buffer);
    return status;
}

/* Kept rows follow each other without gaps, and there are as many as the position has. */
static bool rows_fit(const cca_cache *cache, const cca_store *store, cca_store_point point) {
    int64_t rows = 0;
    for (size_t i = 0; i < point.n_segments; i++) {
        cca_store_segment s = cca_store_segment_at(store, i);
        if (s.kind != CCA_STORE_ROWS) continue;
        if (s.first != rows) return false;
        rows += s.n;
    }
    cca_store_segment window = cca_store_segment_at(store, point.n_segments - 1);
    return rows == cca_cache_part_rows(cache, CCA_PART_KEPT, point.pos) &&
           window.n == cca_cache_part_rows(cache, CCA_PART_WINDOW, point.pos);
}

cca_status cca_store_cache_load(cca_cache *cache, cca_store *store, size_t point, cca_error *err) {
    cca_store_point p = cca_store_point_at(store, point);
    if (p.n_segments == 0 || !rows_fit(cache, store, p)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: the rows of its checkpoint at %lld do not fit",
                        cca_store_path(store), (long long)p.pos);
    }
    cca_status status = CCA_OK;
    cca_cache_empty(cache);
    lend_rows(cache, store, 0, p.n_segments);
    for (size_t i = 0; i + 1 < p.n_segments && !status; i++) {
        if (cca_store_segment_at(store, i).kind == CCA_STORE_ROWS) {
            status = load_rows(cache, store, i, CCA_PART_KEPT, err);
        }
    }
    return status ? status : load_rows(cache, store, p.n_segments - 1, CCA_PART_WINDOW, err);
}

/* ---- windows in memory ------------------------------------------------------------------ */

static size_t window_layer_bytes(const cca_cache *cache, int64_t pos) {
    int64_t n = cca_cache_part_rows(cache, CCA_PART_WINDOW, pos);
    return cca_cache_part_bytes(cache, CCA_PART_WINDOW, pos - n, n);
}

size_t cca_store_cache_window_bytes(const cca_cache *cache, int64_t pos) {
    return window_layer_bytes(cache, pos) * (size_t)cca_cache_n_layers(cache);
}

cca_status cca_store_cache_window_get(void *out, const cca_cache *cache, int64_t pos,
                                      cca_error *err) {
    int64_t n = cca_cache_part_rows(cache, CCA_PART_WINDOW, pos);
    size_t bytes = window_layer_bytes(cache, pos);
    for (int64_t layer = 0; layer < cca_cache_n_layers(cache) && n > 0; layer++) {
        cca_cache_get(cache, CCA_PART_WINDOW, layer, pos - n, n,
                      (char *)out + (size_t)layer * bytes);
    }
    return cca_cache_sync(cache, err);
}

cca_status cca_store_cache_window_put(cca_cache *cache, const void *in, int64_t pos,
                                      cca_error *err) {
    int64_t n = cca_cache_part_rows(cache, CCA_PART_WINDOW, pos);
    size_t bytes = window_layer_bytes(cache, pos);
    for (int64_t layer = 0; layer < cca_cache_n_layers(cache) && n > 0; layer++) {
        cca_cache_put(cache, CCA_PART_WINDOW, layer, pos - n, n,
                      (const char *)in + (size_t)layer * bytes);
    }
    return cca_cache_sync(cache, err);
}
