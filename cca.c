#include "cca.h"

#include <stdlib.h>

struct cca_cache {
    cca_backend *backend;
    cca_cache_shape shape;
    cca_policy policy;
    bool append_only;            /* the window holds the whole context */
    int64_t n_kept;              /* cores or sinks a layer can hold */
    int64_t n_window, n_scratch; /* raw rows */
    int64_t n_mark;              /* raw rows that a mark keeps */
    cca_mass watched;            /* sums NULL: nobody watches */
    void *kept_k, *kept_v, *window_k, *window_v, *scratch_k, *scratch_v, *mark_k, *mark_v;
};

/* Beyond any position, yet safe to add to. */
static const int64_t ENDLESS = INT64_MAX / 4;

cca_status cca_policy_make(cca_policy *out, cca_attn attn, int64_t group_size, int64_t window_size,
                           int64_t n_sinks, cca_error *err) {
    if (group_size < 1 || window_size < group_size || window_size > ENDLESS) {
        return cca_fail(err, CCA_USAGE,
                        "group size %lld and window %lld: both must be at least 1, and the window "
                        "at least the group size",
                        (long long)group_size, (long long)window_size);
    }
    if (window_size % group_size != 0) {
        return cca_fail(err, CCA_USAGE, "the window (%lld) is no multiple of the group size (%lld)",
                        (long long)window_size, (long long)group_size);
    }
    if (attn == CCA_ATTN_SINKS && n_sinks < 1) {
        return cca_fail(err, CCA_USAGE, "attention sinks: their number must be at least 1");
    }
    *out = (cca_policy){.attn = attn};
    out->rule = (cca_rule){group_size, window_size, CCA_BEHIND_CORES, 0};
    out->pooling = attn == CCA_ATTN_MEAN  ? CCA_POOL_MEAN
                   : attn == CCA_ATTN_MAX ? CCA_POOL_MAX
                                          : CCA_POOL_QUERY;
    if (attn == CCA_ATTN_FULL) out->rule = (cca_rule){1, ENDLESS, CCA_BEHIND_NONE, 0};
    if (attn == CCA_ATTN_WINDOW) out->rule.behind = CCA_BEHIND_NONE;
    if (attn == CCA_ATTN_SINKS) {
        out->rule.behind = CCA_BEHIND_SINKS;
        out->rule.n_sinks = n_sinks;
    }
    return CCA_OK;
}

/* Row counts of a cache. */
static void count_rows(cca_cache *c, const cca_cache_shape *shape, const cca_policy *policy) {
    const cca_rule *rule = &policy->rule;
    c->shape = *shape;
    c->policy = *policy;
    c->append_only = rule->window_size >= (shape->stored ? ENDLESS : shape->ctx_size);
    c->n_kept = 0;
    if (!c->append_only && rule->behind == CCA_BEHIND_CORES) {
        c->n_kept = shape->ctx_size / rule->group_size;
    }
    if (!c->append_only && rule->behind == CCA_BEHIND_SINKS) {
        c->n_kept = cca_min(rule->n_sinks, shape->ctx_size);
    }
    c->n_window = c->append_only ? shape->ctx_size : cca_rule_ring(rule);
    c->n_scratch = c->append_only ? 0 : c->n_window + shape->chunk_size;
    c->n_mark = c->append_only || !shape->mark ? 0 : c->n_window;
}

static int64_t kept_heads(const cca_cache *c) {
    return c->policy.rule.behind == CCA_BEHIND_CORES ? c->shape.n_heads : c->shape.n_kv_heads;
}

/* Bytes of n_layers × heads × rows keys (or values). */
static bool rows_bytes(size_t *out, const cca_cache *c, cca_dtype type, int64_t n_layers,
                       int64_t heads, int64_t rows) {
    return cca_dtype_row_bytes(out, type, c->shape.head_dim) && cca_mul(out, *out, (size_t)rows) &&
           cca_mul(out, *out, (size_t)heads) && cca_mul(out, *out, (size_t)n_layers);
}

static bool both_bytes(size_t *out, const cca_cache *c, int64_t n_layers, int64_t heads,
                       int64_t rows) {
    size_t k, v;
    return rows_bytes(&k, c, c->shape.k_type, n_layers, heads, rows) &&
           rows_bytes(&v, c, c->shape.v_type, n_layers, heads, rows) && cca_add(out, k, v);
}

static cca_status measure(cca_cache_size *out, const cca_cache *c, cca_error *err) {
    const cca_cache_shape *s = &c->shape;
    cca_dtype types[] = {s->k_type, s->v_type};
    for (int i = 0; i < 2; i++) {
        if (s->head_dim % cca_dtype_block(types[i]) == 0) continue;
        return cca_fail(
            err, CCA_USAGE, "a cache of type %s needs a head_dim divisible by %lld, not %lld",
            cca_dtype_name(types[i]), (long long)cca_dtype_block(types[i]), (long long)s->head_dim);
    }
    if (!both_bytes(&out->cores, c, s->n_layers, kept_heads(c), c->n_kept) ||
        !both_bytes(&out->window, c, s->n_layers, s->n_kv_heads, c->n_window) ||
        !both_bytes(&out->scratch, c, 1, s->n_kv_heads, c->n_scratch) ||
        !both_bytes(&out->mark, c, s->n_layers, s->n_kv_heads, c->n_mark)) {
        return cca_fail(err, CCA_NO_MEMORY, "a cache for %lld positions is larger than any memory",
                        (long long)s->ctx_size);
    }
    return CCA_OK;
}

cca_status cca_cache_measure(cca_cache_size *out, const cca_cache_shape *shape,
                             const cca_policy *policy, cca_error *err) {
    cca_cache c;
    count_rows(&c, shape, policy);
    return measure(out, &c, err);
}

static void *alloc_rows(const cca_cache *c, cca_dtype type, int64_t n_layers, int64_t heads,
                        int64_t rows) {
    size_t bytes = 0;
    rows_bytes(&bytes, c, type, n_layers, heads, rows);
    return cca_backend_alloc(c->backend, bytes);
}

cca_status cca_cache_new(cca_cache **out, cca_backend *backend, const cca_cache_shape *shape,
                         const cca_policy *policy, cca_error *err) {
    *out = NULL;
    cca_cache_size size;
    cca_status status = cca_cache_measure(&size, shape, policy, err);
    if (status) return status;
    cca_cache *c = calloc(1, sizeof *c);
    if (!c) return cca_fail(err, CCA_NO_MEMORY, "no memory for the cache");
    c->backend = backend;
    count_rows(c, shape, policy);
    int64_t layers = shape->n_layers, kv_heads = shape->n_kv_heads;
    c->kept_k = alloc_rows(c, shape->k_type, layers, kept_heads(c), c->n_kept);
    c->kept_v = alloc_rows(c, shape->v_type, layers, kept_heads(c), c->n_kept);
    c->window_k = alloc_rows(c, shape->k_type, layers, kv_heads, c->n_window);
    c->window_v = alloc_rows(c, shape->v_type, layers, kv_heads, c->n_window);
    c->scratch_k = alloc_rows(c, shape->k_type, 1, kv_heads, c->n_scratch);
    c->scratch_v = alloc_rows(c, shape->v_type, 1, kv_heads, c->n_scratch);
    c->mark_k = alloc_rows(c, shape->k_type, layers, kv_heads, c->n_mark);
    c->mark_v = alloc_rows(c, shape->v_type, layers, kv_heads, c->n_mark);
    status = cca_backend_sync(backend, err);
    if (status) {
        cca_cache_free(c);
        return status;
    }
    *out = c;
    return CCA_OK;
}

void cca_cache_free(cca_cache *cache) {
    if (!cache) return;
    void *all[] = {cache->kept_k,    cache->kept_v,    cache->window_k, cache->window_v,
                   cache->scratch_k, cache->scratch_v, cache->mark_k,   cache->mark_v};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        cca_backend_release(cache->backend, all[i]);
    }
    free(cache);
}

/* The rows of one layer in an array [n_layers][heads][capacity][head_dim]. */
static cca_rows layer_rows(const cca_cache *c, void *k, void *v, int64_t layer, int64_t heads,
                           int64_t capacity, int64_t base) {
    size_t k_bytes = 0, v_bytes = 0;
    rows_bytes(&k_bytes, c, c->shape.k_type, layer, heads, capacity);
    rows_bytes(&v_bytes, c, c->shape.v_type, layer, heads, capacity);
    return (cca_rows){.k = (char *)k + k_bytes,
                      .v = (char *)v + v_bytes,
                      .k_type = c->shape.k_type,
                      .v_type = c->shape.v_type,
                      .heads = heads,
                      .capacity = capacity,
                      .head_dim = c->shape.head_dim,
                      .base = base};
}

void cca_cache_attend(cca_cache *c, int64_t layer, cca_matrix *out, cca_matrix *q, cca_matrix *k,
                      const cca_matrix *v, const cca_turn *turn, int64_t pos, int64_t n) {
    cca_backend *b = c->backend;
    const cca_rule *rule = &c->policy.rule;
    int64_t kv_heads = c->shape.n_kv_heads;
    cca_rows window = layer_rows(c, c->window_k, c->window_v, layer, kv_heads, c->n_window, 0);
    cca_rows behind = layer_rows(c, c->kept_k, c->kept_v, layer, kept_heads(c), c->n_kept, 0);

    /* One token fits the ring. A chunk does not: window and chunk are laid side by side. */
    bool side_by_side = n > 1 && !c->append_only;
    int64_t kept = cca_min(pos, c->n_window);
    cca_rows raw = window;
    if (side_by_side) {
        raw = layer_rows(c, c->scratch_k, c->scratch_v, 0, kv_heads, c->n_scratch, pos - kept);
        cca_rows_move(b, &raw, &window, pos - kept, kept);
    }
    if (turn) {
        cca_rotate_store(b, &raw, q, k, v, turn, pos, n);
    } else {
        cca_rows_store(b, &raw, k, v, pos, n);
    }

    int64_t stride = 1;
    if (c->n_kept > 0 && rule->behind == CCA_BEHIND_CORES) {
        cca_groups groups = {raw, behind, rule->group_size, c->policy.pooling};
        cca_pool(b, &groups, q, pos, n);
        stride = rule->group_size;
    }
    if (c->n_kept > 0 && rule->behind == CCA_BEHIND_SINKS && pos < c->n_kept) {
        cca_rows_move(b, &behind, &raw, pos, cca_min(n, c->n_kept - pos));
    }
    cca_spans spans = {.n = 1, .at = {{raw, cca_rule_window(rule), 1}}};
    if (c->n_kept > 0) spans.at[spans.n++] = (cca_span){behind, cca_rule_behind(rule), stride};
    if (c->watched.sums) {
        cca_mass mass = c->watched;
        mass.sums += layer * c->shape.n_heads * mass.n_slots;
        cca_attend_mass(b, &mass, &spans, q, n - 1, pos + n - 1);
    }
    cca_attend(b, out, &spans, q, pos, n);

    if (side_by_side) {
        int64_t keep = cca_min(pos + n, c->n_window);
        int64_t from = cca_max(pos, pos + n - keep);
        cca_rows_move(b, &window, &raw, from, pos + n - from);
    }
}

void cca_cache_watch(cca_cache *cache, const cca_mass *mass) {
    cache->watched = mass ? *mass : (cca_mass){0};
}

int64_t cca_cache_unit(const cca_policy *policy) {
    return policy->rule.behind == CCA_BEHIND_CORES ? policy->rule.group_size : CCA_DEFAULT_GROUP;
}

/* Copies the raw rows of n_tokens between window and mark, layer by layer. */
static cca_status copy_window(cca_cache *c, int64_t n_tokens, bool to_mark, cca_error *err) {
    if (!c->shape.mark) return cca_fail(err, CCA_USAGE, "this cache has no room for a mark");
    int64_t kv_heads = c->shape.n_kv_heads, n = cca_min(n_tokens, c->n_mark);
    for (int64_t layer = 0; layer < c->shape.n_layers && n > 0; layer++) {
        cca_rows window = layer_rows(c, c->window_k, c->window_v, layer, kv_heads, c->n_window, 0);
        cca_rows mark = layer_rows(c, c->mark_k, c->mark_v, layer, kv_heads, c->n_mark, 0);
        cca_rows_move(c->backend, to_mark ? &mark : &window, to_mark ? &window : &mark,
                      n_tokens - n, n);
    }
    return cca_backend_sync(c->backend, err);
}

cca_status cca_cache_mark(cca_cache *cache, int64_t n_tokens, cca_error *err) {
    return copy_window(cache, n_tokens, true, err);
}

cca_status cca_cache_rewind(cca_cache *cache, int64_t n_tokens, cca_error *err) {
    return copy_window(cache, n_tokens, false, err);
}

/* ---- stored states --------------------------------------------------------------------- */

int64_t cca_cache_part_rows(const cca_cache *cache, cca_part part, int64_t n_tokens) {
    const cca_rule *rule = &cache->policy.rule;
    if (part == CCA_PART_WINDOW) return cache->append_only ? 0 : cca_min(n_tokens, cache->n_window);
    if (cache->append_only) return n_tokens;
    return cca_min(cache->n_kept,
                   rule->behind == CCA_BEHIND_CORES ? n_tokens / rule->group_size : n_tokens);
}

/* The rows of a part in one layer. */
static cca_rows part_rows(const cca_cache *c, cca_part part, int64_t layer) {
    if (part == CCA_PART_WINDOW || c->append_only) {
        return layer_rows(c, c->window_k, c->window_v, layer, c->shape.n_kv_heads, c->n_window, 0);
    }
    return layer_rows(c, c->kept_k, c->kept_v, layer, kept_heads(c), c->n_kept, 0);
}

size_t cca_cache_part_bytes(const cca_cache *cache, cca_part part, int64_t n) {
    size_t bytes = 0;
    both_bytes(&bytes, cache, 1, part_rows(cache, part, 0).heads, n);
    return bytes;
}

int64_t cca_cache_n_layers(const cca_cache *cache) {
    return cache->shape.n_layers;
}

/* Where the values begin behind the keys. */
static size_t key_bytes(const cca_cache *c, const cca_rows *rows, int64_t n) {
    size_t bytes = 0;
    rows_bytes(&bytes, c, rows->k_type, 1, rows->heads, n);
    return bytes;
}

void cca_cache_get(const cca_cache *cache, cca_part part, int64_t layer, int64_t first, int64_t n,
                   void *out) {
    cca_rows rows = part_rows(cache, part, layer);
    cca_rows_get(cache->backend, out, (char *)out + key_bytes(cache, &rows, n), &rows, first, n);
}

void cca_cache_put(cca_cache *cache, cca_part part, int64_t layer, int64_t first, int64_t n,
                   const void *in) {
    cca_rows rows = part_rows(cache, part, layer);
    const char *values = (const char *)in + key_bytes(cache, &rows, n);
    cca_rows_put(cache->backend, &rows, in, values, first, n);
}

cca_status cca_cache_sync(const cca_cache *cache, cca_error *err) {
    return cca_backend_sync(cache->backend, err);
}

size_t cca_cache_used(const cca_cache *cache, int64_t n_tokens) {
    size_t layer = 0;
    for (int part = CCA_PART_KEPT; part <= CCA_PART_WINDOW; part++) {
        int64_t n = cca_cache_part_rows(cache, (cca_part)part, n_tokens);
        layer += cca_cache_part_bytes(cache, (cca_part)part, n);
    }
    return layer * (size_t)cache->shape.n_layers;
}
