/* The cache as its stored states know it: parts, and the rows that they are made of. */
#include "cca_parts.h"

#include <stdlib.h>
#include <string.h>

/* Rows of one array that belong to a part. */
typedef struct slice {
    array_kind kind;
    int64_t first, n;
} slice;

enum { MOST_SLICES = 3 };

/* Kept rows of a part stand for groups. */
static bool keeps_groups(const cca_cache *c) {
    return !c->all_rows && (cca_cache_has(c, ARRAY_CORES) || cca_cache_has(c, ARRAY_ROWS));
}

/* What rows first … first + n - 1 of a part stand for. */
static int slices_of(slice *out, const cca_cache *c, cca_part part, int64_t first, int64_t n) {
    int64_t group, count = cca_groups_completed(c->policy.rule.group_size, first, n, &group);
    int64_t n_sinks = cca_min(first + n, c->arrays[ARRAY_SINKS].rows);
    int i = 0;
    if (part == CCA_PART_WINDOW) {
        out[i++] = (slice){ARRAY_RAW, first, n};
        if (keeps_groups(c)) out[i++] = (slice){ARRAY_SINKS, 0, n_sinks};
    } else if (keeps_groups(c)) {
        int64_t g = c->policy.rule.group_size;
        if (cca_cache_has(c, ARRAY_ROWS)) out[i++] = (slice){ARRAY_ROWS, first * g, n * g};
        if (cca_cache_has(c, ARRAY_BOUNDS)) out[i++] = (slice){ARRAY_BOUNDS, first, n};
        if (cca_cache_has(c, ARRAY_CORES)) out[i++] = (slice){ARRAY_CORES, first, n};
    } else if (c->all_rows) {
        out[i++] = (slice){ARRAY_RAW, first, n};
        if (cca_cache_has(c, ARRAY_BOUNDS)) out[i++] = (slice){ARRAY_BOUNDS, group, count};
        if (cca_cache_has(c, ARRAY_CORES)) out[i++] = (slice){ARRAY_CORES, group, count};
    } else {
        out[i++] = (slice){ARRAY_SINKS, first, n};
    }
    return i;
}

int64_t cca_cache_part_rows(const cca_cache *c, cca_part part, int64_t n_tokens) {
    if (part == CCA_PART_WINDOW) {
        return c->all_rows ? 0 : cca_min(n_tokens, cca_rule_ring(&c->policy.rule));
    }
    if (c->all_rows) return n_tokens;
    if (keeps_groups(c)) {
        int64_t g = c->policy.rule.group_size;
        return cca_min(c->shape.ctx_size / g, n_tokens / g);
    }
    return cca_min(c->arrays[ARRAY_SINKS].rows, n_tokens);
}

/* Bytes of a slice's keys in one layer, and of its values. */
static void slice_bytes(size_t *k, size_t *v, const cca_cache *c, const slice *s) {
    const row_array *a = &c->arrays[s->kind];
    *k = *v = 0;
    cca_cache_rows_bytes(k, c, a->k_type, 1, a->heads, s->n);
    cca_cache_rows_bytes(v, c, a->v_type, 1, a->heads, s->n);
}

size_t cca_cache_part_bytes(const cca_cache *cache, cca_part part, int64_t first, int64_t n) {
    slice slices[MOST_SLICES];
    int n_slices = slices_of(slices, cache, part, first, n);
    size_t bytes = 0;
    for (int i = 0; i < n_slices; i++) {
        size_t k, v;
        slice_bytes(&k, &v, cache, &slices[i]);
        bytes += k + v;
    }
    return bytes;
}

int64_t cca_cache_n_layers(const cca_cache *cache) {
    return cache->shape.n_layers;
}

void cca_cache_get(const cca_cache *cache, cca_part part, int64_t layer, int64_t first, int64_t n,
                   void *out) {
    slice slices[MOST_SLICES];
    int n_slices = slices_of(slices, cache, part, first, n);
    char *to = out;
    for (int i = 0; i < n_slices; i++) {
        size_t k, v;
        cca_rows rows = cca_cache_rows(cache, slices[i].kind, layer, 0);
        slice_bytes(&k, &v, cache, &slices[i]);
        if (slices[i].kind == cache->on_disk) {
            cca_disk_rows_get(cache->disk, layer, slices[i].first, slices[i].n, to, to + k);
        } else if (slices[i].kind == cache->on_host) {
            if (cache->near) cca_near_rows_forget(cache->near);
            cca_rows_get_host(cache->backend, to, to + k, &rows, slices[i].first, slices[i].n);
        } else {
            cca_rows_get(cache->backend, to, to + k, &rows, slices[i].first, slices[i].n);
        }
        to += k + v;
    }
}

bool cca_cache_all_finite(const cca_cache *cache, cca_part part, int64_t first, int64_t n,
                          const void *in) {
    slice slices[MOST_SLICES];
    int n_slices = slices_of(slices, cache, part, first, n);
    const char *from = in;
    bool finite = true;
    for (int i = 0; i < n_slices && finite; i++) {
        size_t k, v;
        const row_array *a = &cache->arrays[slices[i].kind];
        int64_t n_values = a->heads * slices[i].n * cache->shape.head_dim;
        slice_bytes(&k, &v, cache, &slices[i]);
        finite = cca_dtype_all_finite(a->k_type, from, n_values) &&
                 cca_dtype_all_finite(a->v_type, from + k, n_values);
        from += k + v;
    }
    return finite;
}

/* Takes the space for a slice on disk; false for what is lent. */
static bool take_slice(cca_cache *c, int64_t layer, const slice *s) {
    if (s->kind != c->on_disk) return true;
    int64_t end = s->first + s->n;
    if (end <= cca_disk_rows_lent(c->disk)) return false;
    if (layer == 0) cca_disk_rows_go(c->disk, s->first, end, cca_cache_near(c), cca_cache_first(c));
    return true;
}

static void put_slice(cca_cache *c, int64_t layer, const slice *s, const void *k, const void *v) {
    cca_rows rows = cca_cache_rows(c, s->kind, layer, 0);
    if (c->near) cca_near_rows_forget(c->near);
    if (c->near) cca_near_rows_changed(c->near, layer, 0);
    if (s->kind == c->on_host) {
        cca_rows_put_host(c->backend, &rows, k, v, s->first, s->n);
    } else if (take_slice(c, layer, s)) {
        cca_rows_put(c->backend, &rows, k, v, s->first, s->n);
    }
    if (s->kind == ARRAY_BOUNDS) cca_cache_bound_blocks(c, layer, s->first, s->n);
}

void cca_cache_put(cca_cache *cache, cca_part part, int64_t layer, int64_t first, int64_t n,
                   const void *in) {
    slice slices[MOST_SLICES];
    int n_slices = slices_of(slices, cache, part, first, n);
    const char *from = in;
    for (int i = 0; i < n_slices; i++) {
        size_t k, v;
        slice_bytes(&k, &v, cache, &slices[i]);
        put_slice(cache, layer, &slices[i], from, from + k);
        from += k + v;
    }
}

static void fill_slice(cca_cache *c, const slice *s, cca_rows_fn make, void *user) {
    const row_array *a = &c->arrays[s->kind];
    void *k = make(user, a->k_type, cca_max(a->heads * s->n, 1), c->shape.head_dim);
    void *v = make(user, a->v_type, cca_max(a->heads * s->n, 1), c->shape.head_dim);
    for (int64_t layer = 0; k && v && layer < c->shape.n_layers; layer++) {
        put_slice(c, layer, s, k, v);
    }
    free(k);
    free(v);
}

void cca_cache_fill(cca_cache *cache, int64_t n_tokens, cca_rows_fn make, void *user) {
    for (int part = CCA_PART_KEPT; part <= CCA_PART_WINDOW; part++) {
        slice slices[MOST_SLICES];
        int64_t n = cca_cache_part_rows(cache, (cca_part)part, n_tokens);
        int64_t first = part == CCA_PART_WINDOW ? n_tokens - n : 0;
        int n_slices = slices_of(slices, cache, (cca_part)part, first, n);
        for (int i = 0; i < n_slices; i++) fill_slice(cache, &slices[i], make, user);
    }
}

bool cca_cache_view(cca_cache *cache, const cca_store_view *view) {
    return cache->disk && cca_disk_rows_view(cache->disk, view);
}

bool cca_cache_lend(cca_cache *cache, int64_t first, int64_t n, const void *data) {
    int64_t unit = cache->all_rows ? 1 : cache->policy.rule.group_size;
    size_t layer_bytes = cca_cache_part_bytes(cache, CCA_PART_KEPT, first, n);
    if (!cache->disk ||
        !cca_disk_rows_lend(cache->disk, first * unit, n * unit, data, layer_bytes)) {
        return false;
    }
    cca_disk_rows_give(cache->disk, cca_cache_near(cache), cca_cache_first(cache));
    return true;
}

int64_t cca_cache_lent(const cca_cache *cache) {
    int64_t unit = cache->all_rows ? 1 : cache->policy.rule.group_size;
    return cache->disk ? cca_disk_rows_lent(cache->disk) / unit : 0;
}

void cca_cache_empty(cca_cache *cache) {
    if (cache->disk) cca_disk_rows_recall(cache->disk);
}

cca_status cca_cache_sync(const cca_cache *cache, cca_error *err) {
    return cca_backend_sync(cache->backend, err);
}

size_t cca_cache_used(const cca_cache *cache, int64_t n_tokens) {
    int64_t kept = cca_cache_part_rows(cache, CCA_PART_KEPT, n_tokens);
    int64_t window = cca_cache_part_rows(cache, CCA_PART_WINDOW, n_tokens);
    size_t layer = cca_cache_part_bytes(cache, CCA_PART_KEPT, 0, kept);
    layer += cca_cache_part_bytes(cache, CCA_PART_WINDOW, n_tokens - window, window);
    return layer * (size_t)cache->shape.n_layers;
}
