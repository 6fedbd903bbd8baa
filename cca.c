#include "cca_parts.h"

#include "base/available_memory.h"
#include "cca_spread.h"

#include <stdlib.h>
#include <string.h>

/* Beyond any position, yet safe to add to. */
static const int64_t ENDLESS = INT64_MAX / 4;

/* ---- the policy ---------------------------------------------------------------------- */

static cca_status check_recall(const cca_policy_options *o, cca_error *err) {
    if (o->n_sinks < 0 || o->n_sinks % o->group_size != 0) {
        return cca_fail(err, CCA_USAGE, "sinks: %lld is no multiple of the group size (%lld)",
                        (long long)o->n_sinks, (long long)o->group_size);
    }
    if (o->recall < 0 || o->recall % o->group_size != 0) {
        return cca_fail(err, CCA_USAGE, "recall: %lld is no multiple of the group size (%lld)",
                        (long long)o->recall, (long long)o->group_size);
    }
    if (o->tile < 0 || (o->tile & (o->tile - 1)) != 0) {
        return cca_fail(err, CCA_USAGE,
                        "tiles of %lld queries: their number must be a power of two",
                        (long long)o->tile);
    }
    return CCA_OK;
}

static cca_status check_options(const cca_policy_options *o, cca_error *err) {
    if (o->group_size < 1 || o->window_size < o->group_size || o->window_size > ENDLESS) {
        return cca_fail(err, CCA_USAGE,
                        "group size %lld and window %lld: both must be at least 1, and the window "
                        "at least the group size",
                        (long long)o->group_size, (long long)o->window_size);
    }
    if (o->window_size % o->group_size != 0) {
        return cca_fail(err, CCA_USAGE, "the window (%lld) is no multiple of the group size (%lld)",
                        (long long)o->window_size, (long long)o->group_size);
    }
    if (o->attn == CCA_ATTN_SINKS && o->n_sinks < 1) {
        return cca_fail(err, CCA_USAGE, "attention sinks: their number must be at least 1");
    }
    return o->attn == CCA_ATTN_CCA ? check_recall(o, err) : CCA_OK;
}

cca_status cca_policy_make(cca_policy *out, const cca_policy_options *o, cca_error *err) {
    cca_status status = check_options(o, err);
    if (status) return status;
    bool cca = o->attn == CCA_ATTN_CCA;
    *out = (cca_policy){.attn = o->attn, .tile = 1, .levels_from = CCA_LEVELS_FROM};
    out->rule = (cca_rule){o->group_size, o->window_size, 0, true};
    out->pooling = o->attn == CCA_ATTN_MEAN  ? CCA_POOL_MEAN
                   : o->attn == CCA_ATTN_MAX ? CCA_POOL_MAX
                                             : CCA_POOL_QUERY;
    if (o->attn == CCA_ATTN_FULL) out->rule = (cca_rule){1, ENDLESS, 0, false};
    if (o->attn == CCA_ATTN_WINDOW || o->attn == CCA_ATTN_SINKS) out->rule.cores = false;
    if (cca || o->attn == CCA_ATTN_SINKS) out->rule.n_sinks = o->n_sinks;
    if (!cca) return CCA_OK;
    out->rule.cores = !o->no_cores;
    out->recall = o->recall;
    if (o->recall > 0) out->tile = cca_max(o->tile, 1);
    return CCA_OK;
}

int64_t cca_policy_tile(int64_t n_heads, int64_t n_kv_heads) {
    enum { ROWS = 64 };
    int64_t tile = 1;
    while (2 * tile * (n_heads / n_kv_heads) <= ROWS) tile *= 2;
    return tile;
}

/* ---- sizes --------------------------------------------------------------------------- */

/* Bounds of quantised keys are rounded outwards to bf16. */
static cca_dtype bounds_type(cca_dtype keys) {
    return cca_dtype_block(keys) > 1 ? CCA_BF16 : keys;
}

static void count_choices(cca_cache *c, int64_t n_groups) {
    const cca_policy *p = &c->policy;
    int64_t tiles = c->shape.chunk_size / p->tile + 2;
    c->n_choosing = cca_max(tiles, cca_min(c->shape.chunk_size, CCA_ALONE));
    c->choice = (cca_choice){.heads = c->shape.n_kv_heads,
                             .most = cca_min(p->recall / p->rule.group_size, n_groups),
                             .tile = p->tile,
                             .group_size = p->rule.group_size,
                             .levels_from = p->levels_from};
}

/* Rows of the ring, which groups do not cross the end of. A draft writes over the oldest ones, and
 * may be taken back. */
static int64_t ring_rows(const cca_cache_shape *s, const cca_rule *rule) {
    int64_t g = rule->group_size;
    return cca_rule_ring(rule) + (s->draft + g - 1) / g * g;
}

void cca_cache_count(cca_cache *c, const cca_cache_shape *s, const cca_policy *policy) {
    const cca_rule *rule = &policy->rule;
    *c = (cca_cache){.shape = *s, .policy = *policy};
    bool whole = rule->window_size >= (s->stored ? ENDLESS : s->ctx_size); /* all in the window */
    bool recalls = policy->recall > 0 && !whole;
    bool apart = recalls && (s->rows_apart || s->rows_on_host);
    c->all_rows = whole || (recalls && !apart);
    int64_t n_groups = s->ctx_size / rule->group_size;
    int64_t raw = c->all_rows ? s->ctx_size : ring_rows(s, rule);
    int64_t counts[N_ARRAYS] = {
        [ARRAY_RAW] = raw,
        [ARRAY_ROWS] = apart ? n_groups * rule->group_size : 0,
        [ARRAY_SINKS] = c->all_rows ? 0 : cca_min(rule->n_sinks, s->ctx_size),
        [ARRAY_CORES] = !whole && rule->cores ? n_groups : 0,
        [ARRAY_BOUNDS] = recalls ? n_groups : 0,
        [ARRAY_BLOCKS] = recalls && n_groups >= policy->levels_from ? n_groups / CCA_BLOCK : 0,
        [ARRAY_SCRATCH] = c->all_rows ? 0 : raw + s->chunk_size,
        [ARRAY_MARK] = c->all_rows || !s->mark ? 0 : cca_rule_ring(rule),
    };
    const int grows = c->all_rows ? ARRAY_RAW : ARRAY_CORES;
    for (int i = 0; i < N_ARRAYS; i++) {
        c->arrays[i] =
            (row_array){.k_type = s->k_type,
                        .v_type = s->v_type,
                        .layers = i == ARRAY_SCRATCH || (s->spread && i == grows) ? 1 : s->n_layers,
                        .heads = i == ARRAY_CORES ? s->n_heads : s->n_kv_heads,
                        .rows = counts[i]};
    }
    c->on_disk = !recalls || !s->rows_folder ? N_ARRAYS : apart ? ARRAY_ROWS : ARRAY_RAW;
    c->on_host = recalls && s->rows_on_host ? ARRAY_ROWS : N_ARRAYS;
    c->arrays[ARRAY_ROWS].k_type = s->row_k_type;
    c->arrays[ARRAY_ROWS].v_type = s->row_v_type;
    for (int i = ARRAY_BOUNDS; i <= ARRAY_BLOCKS; i++) {
        c->arrays[i].k_type = c->arrays[i].v_type = bounds_type(s->k_type);
    }
    if (recalls) count_choices(c, n_groups);
}

/* Bytes of layers × heads × rows keys (or values). */
bool cca_cache_rows_bytes(size_t *out, const cca_cache *c, cca_dtype type, int64_t layers,
                          int64_t heads, int64_t rows) {
    return cca_dtype_row_bytes(out, type, c->shape.head_dim) && cca_mul(out, *out, (size_t)rows) &&
           cca_mul(out, *out, (size_t)heads) && cca_mul(out, *out, (size_t)layers);
}

static bool array_bytes(size_t *out, const cca_cache *c, array_kind kind) {
    const row_array *a = &c->arrays[kind];
    size_t k, v;
    return cca_cache_rows_bytes(&k, c, a->k_type, a->layers, a->heads, a->rows) &&
           cca_cache_rows_bytes(&v, c, a->v_type, a->layers, a->heads, a->rows) &&
           cca_add(out, k, v);
}

/* Bytes of what tiles choose: groups, then their numbers. */
static bool choice_bytes(size_t *out, size_t *groups, const cca_cache *c) {
    size_t tiles = (size_t)(c->n_choosing * c->choice.heads);
    return cca_mul(groups, tiles, (size_t)c->choice.most * sizeof(int32_t)) &&
           cca_add(out, *groups, tiles * sizeof(int32_t));
}

/* One layer of an array, without its memory. */
static cca_rows shape_of(const cca_cache *c, const row_array *a, int64_t base) {
    return (cca_rows){.k_type = a->k_type,
                      .v_type = a->v_type,
                      .heads = a->heads,
                      .capacity = a->rows,
                      .head_dim = c->shape.head_dim,
                      .base = base};
}

/* False where rows are read where they lie. */
static bool near_shape(cca_near_shape *out, const cca_cache *c) {
    *out = (cca_near_shape){.rows = shape_of(c, &c->arrays[ARRAY_ROWS], 0),
                            .k_type = c->shape.k_type,
                            .v_type = c->shape.v_type,
                            .on_host = c->on_host == ARRAY_ROWS,
                            .n_layers = c->shape.n_layers,
                            .most = c->choice.most,
                            .group_size = c->policy.rule.group_size};
    return c->shape.rows_near && out->rows.capacity > 0 && cca_near_rows_help(out);
}

static cca_status measure(cca_cache_size *out, const cca_cache *c, cca_error *err) {
    const cca_cache_shape *s = &c->shape;
    cca_near_shape near;
    cca_dtype types[] = {s->k_type, s->v_type, s->row_k_type, s->row_v_type};
    for (int i = 0; i < (c->arrays[ARRAY_ROWS].rows ? 4 : 2); i++) {
        if (s->head_dim % cca_dtype_block(types[i]) == 0) continue;
        return cca_fail(err, CCA_USAGE,
                        "a cache of type %s needs a head_dim divisible by %d, not %lld",
                        cca_dtype_name(types[i]), CCA_QUANT_BLOCK, (long long)s->head_dim);
    }
    size_t sinks, blocks, groups, choice, brought = 0;
    if (!array_bytes(&out->cores, c, ARRAY_CORES) || !array_bytes(&out->bounds, c, ARRAY_BOUNDS) ||
        !array_bytes(&blocks, c, ARRAY_BLOCKS) || !cca_add(&out->bounds, out->bounds, blocks) ||
        !array_bytes(&out->window, c, ARRAY_RAW) || !array_bytes(&out->rows, c, ARRAY_ROWS) ||
        !array_bytes(&sinks, c, ARRAY_SINKS) || !array_bytes(&out->scratch, c, ARRAY_SCRATCH) ||
        !array_bytes(&out->mark, c, ARRAY_MARK) || !choice_bytes(&choice, &groups, c) ||
        !cca_add(&out->window, out->window, sinks) ||
        !cca_add(&out->scratch, out->scratch, choice) ||
        (near_shape(&near, c) && !cca_near_rows_bytes(&brought, &near)) ||
        !cca_add(&out->scratch, out->scratch, brought)) {
        return cca_fail(err, CCA_NO_MEMORY, "a cache for %lld positions is larger than any memory",
                        (long long)s->ctx_size);
    }
    if (c->all_rows && c->policy.recall > 0) {
        out->rows = out->window;
        out->window = 0;
    }
    out->disk = out->host = 0;
    if (c->on_disk == N_ARRAYS && c->on_host == N_ARRAYS) return CCA_OK;
    *(c->on_host == N_ARRAYS ? &out->disk : &out->host) = out->rows;
    out->rows = 0;
    return CCA_OK;
}

cca_status cca_cache_measure(cca_cache_size *out, const cca_cache_shape *shape,
                             const cca_policy *policy, cca_error *err) {
    cca_cache c;
    cca_cache_count(&c, shape, policy);
    return measure(out, &c, err);
}

/* ---- a cache ------------------------------------------------------------------------- */

static cca_status open_disk(cca_cache *c, cca_error *err) {
    if (c->on_disk == N_ARRAYS) return CCA_OK;
    cca_rows layer = shape_of(c, &c->arrays[c->on_disk], 0);
    return cca_disk_rows_new(&c->disk, c->backend, c->shape.rows_folder, &layer, c->shape.n_layers,
                             err);
}

static cca_status open_near(cca_cache *c, cca_error *err) {
    cca_near_shape shape;
    if (!near_shape(&shape, c)) return CCA_OK;
    cca_status status = cca_near_rows_new(&c->near, c->backend, &shape, err);
    return status ? status : cca_backend_sync(c->backend, err);
}

static void alloc_array(cca_cache *c, array_kind kind) {
    void *(*alloc)(cca_backend *, size_t) =
        kind == c->on_host ? cca_backend_alloc_host : cca_backend_alloc;
    row_array *a = &c->arrays[kind];
    size_t k = 0, v = 0;
    cca_cache_rows_bytes(&k, c, a->k_type, a->layers, a->heads, a->rows);
    cca_cache_rows_bytes(&v, c, a->v_type, a->layers, a->heads, a->rows);
    a->k = alloc(c->backend, k);
    a->v = alloc(c->backend, v);
}

cca_status cca_cache_new(cca_cache **out, cca_backend *backend, const cca_cache_shape *shape,
                         const cca_policy *policy, cca_error *err) {
    *out = NULL;
    cca_cache_size size;
    cca_status status = cca_cache_measure(&size, shape, policy, err);
    if (status) return status;
    cca_cache *c = calloc(1, sizeof *c);
    if (!c) return cca_fail(err, CCA_NO_MEMORY, "no memory for the cache");
    cca_cache_count(c, shape, policy);
    c->backend = backend;
    for (array_kind i = 0; i < N_ARRAYS; i++) {
        if (i != c->on_disk) alloc_array(c, i);
    }
    if (c->choice.most > 0) {
        size_t bytes = 0, groups = 0;
        choice_bytes(&bytes, &groups, c);
        c->choice.groups = cca_backend_alloc(backend, bytes);
        c->choice.counts = (int32_t *)((char *)c->choice.groups + groups);
    }
    status = cca_backend_sync(backend, err);
    if (!status) status = open_disk(c, err);
    if (!status) status = open_near(c, err);
    c->shape.rows_folder = NULL;
    if (status) {
        cca_cache_free(c);
        return status;
    }
    *out = c;
    return CCA_OK;
}

void cca_cache_free(cca_cache *cache) {
    if (!cache) return;
    cca_spread_free(cache->spread);
    cca_near_rows_free(cache->near);
    for (array_kind i = 0; i < N_ARRAYS; i++) {
        void (*release)(cca_backend *, void *) =
            i == cache->on_host ? cca_backend_release_host : cca_backend_release;
        release(cache->backend, cache->arrays[i].k);
        release(cache->backend, cache->arrays[i].v);
    }
    cca_backend_release(cache->backend, cache->choice.groups);
    cca_disk_rows_free(cache->disk);
    free(cache);
}

cca_rows cca_cache_rows(const cca_cache *c, array_kind kind, int64_t layer, int64_t base) {
    const row_array *a = &c->arrays[kind];
    size_t k_bytes = 0, v_bytes = 0;
    if (kind == c->on_disk) return cca_disk_rows_layer(c->disk, layer);
    cca_rows rows = shape_of(c, a, base);
    if (a->layers == 1) layer = 0;
    cca_cache_rows_bytes(&k_bytes, c, a->k_type, layer, a->heads, a->rows);
    cca_cache_rows_bytes(&v_bytes, c, a->v_type, layer, a->heads, a->rows);
    rows.k = (char *)a->k + k_bytes;
    rows.v = (char *)a->v + v_bytes;
    return rows;
}

bool cca_cache_has(const cca_cache *c, array_kind kind) {
    return c->arrays[kind].rows > 0;
}

/* ---- attention ----------------------------------------------------------------------- */

/* Bounds of the blocks that groups first … first + n - 1 complete. */
void cca_cache_bound_blocks(cca_cache *c, int64_t layer, int64_t first, int64_t n) {
    if (!cca_cache_has(c, ARRAY_BLOCKS)) return;
    cca_groups blocks = {.raw = cca_cache_rows(c, ARRAY_BOUNDS, layer, 0),
                         .cores = cca_cache_rows(c, ARRAY_BLOCKS, layer, 0),
                         .size = CCA_BLOCK,
                         .of_bounds = true};
    cca_bound(c->backend, &blocks, first, n);
}

/* Whether each query of a call chooses for itself. */
static bool chooses_alone(const cca_cache *c, int64_t n) {
    return n == 1 || c->choice.tile == 1 || ((c->alone || c->draft) && n <= c->n_choosing);
}

/* What of rows that are not near is read by n queries at pos. */
typedef enum near_way {
    NEAR_NOTHING, /* what is chosen, where it lies */
    NEAR_CHOSEN,  /* copies of it */
    NEAR_LAYER    /* a copy of all rows, which is less than what all queries choose */
} near_way;

/* Sums of cores and rows want what was chosen by its place. */
static near_way way_near(const cca_cache *c, int64_t pos, int64_t n) {
    bool gathers = chooses_alone(c, n) && !cca_cache_has(c, ARRAY_CORES);
    int64_t chosen = n * c->choice.most * c->choice.group_size;
    if (!c->near) return NEAR_NOTHING;
    if (n == 1) return gathers ? NEAR_CHOSEN : NEAR_NOTHING;
    return gathers && chosen < pos + n ? NEAR_CHOSEN : NEAR_LAYER;
}

/* Rows of whole groups, and from where new ones are read in a call. The next layer's follow each
 * other, and where a whole chunk is done, the first one's again. */
static cca_rows take_rows(cca_cache *c, int64_t layer, const cca_rows *raw, int64_t pos,
                          int64_t n) {
    cca_rows rows = cca_cache_rows(c, ARRAY_ROWS, layer, 0), next;
    int64_t group, g = c->policy.rule.group_size, count = cca_groups_completed(g, pos, n, &group);
    int64_t begin = group * g, end = begin + count * g;
    bool last = layer + 1 == c->shape.n_layers, goes_on = !last || n == c->shape.chunk_size;
    if (c->near) cca_near_rows_changed(c->near, layer, group);
    if (way_near(c, pos, n) == NEAR_LAYER) {
        next = cca_cache_rows(c, ARRAY_ROWS, last ? 0 : layer + 1, 0);
        return cca_near_rows_layer(c->near, &rows, raw, begin, end, goes_on ? &next : NULL,
                                   last ? end : begin);
    }
    if (c->near) cca_near_rows_forget(c->near);
    if (count > 0) cca_rows_move(c->backend, &rows, raw, begin, count * g);
    return rows;
}

void cca_cache_take(cca_cache *c, cca_rows *rows, int64_t layer, const cca_rows *raw,
                    const cca_matrix *q, int64_t pos, int64_t n) {
    const cca_rule *rule = &c->policy.rule;
    if (cca_cache_has(c, ARRAY_CORES)) {
        cca_rows cores = cca_cache_rows(c, ARRAY_CORES, layer, 0);
        cca_groups groups = {*raw, cores, rule->group_size, c->policy.pooling, false};
        cca_pool(c->backend, &groups, q, pos, n);
    }
    if (cca_cache_has(c, ARRAY_BOUNDS)) {
        cca_rows bounds = cca_cache_rows(c, ARRAY_BOUNDS, layer, 0);
        cca_groups groups = {*raw, bounds, rule->group_size, c->policy.pooling, false};
        int64_t first, count = cca_groups_completed(rule->group_size, pos, n, &first);
        cca_bound(c->backend, &groups, pos, n);
        if (count > 0) cca_cache_bound_blocks(c, layer, first, count);
    }
    *rows = cca_cache_has(c, ARRAY_ROWS) ? take_rows(c, layer, raw, pos, n) : *raw;
    int64_t n_sinks = c->arrays[ARRAY_SINKS].rows;
    if (pos < n_sinks) {
        cca_rows sinks = cca_cache_rows(c, ARRAY_SINKS, layer, 0);
        cca_rows_move(c->backend, &sinks, raw, pos, cca_min(n, n_sinks - pos));
    }
}

/* What queries see: the window, the sinks, what is recalled of rows, and the other groups' cores.
 */
static cca_spans see(const cca_cache *c, int64_t layer, const cca_rows *raw, const cca_rows *rows,
                     int64_t n) {
    const cca_rule *rule = &c->policy.rule;
    bool recalls = cca_cache_has(c, ARRAY_BOUNDS);
    cca_spans spans = {.n = 1, .at = {{*raw, cca_rule_window(rule), 1, CCA_PICK_ALL}}};
    if (cca_cache_has(c, ARRAY_SINKS) || (recalls && rule->n_sinks > 0)) {
        cca_rows sinks =
            cca_cache_has(c, ARRAY_SINKS) ? cca_cache_rows(c, ARRAY_SINKS, layer, 0) : *raw;
        spans.at[spans.n++] = (cca_span){sinks, cca_rule_sinks(rule), 1, CCA_PICK_ALL};
    }
    if (recalls) {
        spans.at[spans.n++] = (cca_span){*rows, cca_rule_recallable(rule), 1, CCA_PICK_CHOSEN};
        spans.choice = c->choice;
        if (c->disk) spans.pieces = cca_disk_rows_pieces(c->disk, layer);
        if (chooses_alone(c, n)) spans.choice.tile = 1;
    }
    if (cca_cache_has(c, ARRAY_CORES)) {
        cca_rows cores = cca_cache_rows(c, ARRAY_CORES, layer, 0);
        spans.at[spans.n++] = (cca_span){cores, cca_rule_groups(rule), rule->group_size,
                                         recalls ? CCA_PICK_OTHERS : CCA_PICK_ALL};
    }
    return spans;
}

/* Raw rows that are read as they lie, before those of a call, and at the start. */
int64_t cca_cache_near(const cca_cache *c) {
    return c->all_rows ? cca_rule_ring(&c->policy.rule) : 0;
}

int64_t cca_cache_first(const cca_cache *c) {
    return c->all_rows ? c->policy.rule.n_sinks : 0;
}

/* Rows on disk go on with n at pos: with the groups that these complete, where rows are apart. */
static void go_on_disk(cca_cache *c, int64_t pos, int64_t n) {
    int64_t unit = c->all_rows ? 1 : c->policy.rule.group_size;
    cca_disk_rows_go(c->disk, pos / unit * unit, (pos + n) / unit * unit, cca_cache_near(c),
                     cca_cache_first(c));
}

/* The process has no more in memory than it may where all rows of a layer up to end are read. */
static void bound_resident(const cca_cache *c, int64_t end) {
    const row_array *a = &c->arrays[c->on_disk];
    size_t k = 0, v = 0;
    if (c->shape.most_resident == 0) return;
    cca_cache_rows_bytes(&k, c, a->k_type, 1, a->heads, end);
    cca_cache_rows_bytes(&v, c, a->v_type, 1, a->heads, end);
    if (cca_memory_resident() + k + v > c->shape.most_resident) cca_disk_rows_forget(c->disk);
}

/* What the last tokens of a call attend to in a layer. */
static void add_masses(cca_cache *c, int64_t layer, const cca_spans *spans, const cca_matrix *q,
                       int64_t pos, int64_t n) {
    int64_t of_layer = c->shape.n_heads * c->watched.n_slots;
    for (int64_t i = 0; i < c->n_watched; i++) {
        cca_mass mass = c->watched;
        mass.sums += (i * c->shape.n_layers + layer) * of_layer;
        cca_attend_mass(c->backend, &mass, spans, q, n - c->n_watched + i, pos);
    }
}

/* Rows first … first + n - 1 of a matrix of activations. */
static cca_matrix some_of(const cca_matrix *m, int64_t first, int64_t n) {
    cca_matrix some = *m;
    some.data = (float *)m->data + first * m->cols;
    some.rows = n;
    some.owned = false;
    return some;
}

/* Attention where chosen rows are brought, a few queries at a time. */
static void attend_chosen(cca_cache *c, int64_t layer, cca_matrix *out, const cca_spans *all,
                          const cca_matrix *q, int64_t pos, int64_t n) {
    int of_rows = 0;
    while (all->at[of_rows].pick != CCA_PICK_CHOSEN) of_rows++;
    const cca_rows *rows = &all->at[of_rows].rows;
    for (int64_t i = 0, some; i < n; i += some) {
        some = cca_min(n - i, CCA_NEAR_TILES);
        cca_spans spans = *all;
        cca_matrix to = some_of(out, i, some), from = some_of(q, i, some);
        cca_near_rows_chosen(c->near, layer, &spans.at[of_rows], &spans.choice, rows, pos + i, i,
                             some);
        cca_attend(c->backend, &to, &spans, &from, pos + i, some);
    }
}

void cca_cache_look(cca_cache *c, int64_t layer, cca_matrix *out, const cca_rows *raw,
                    const cca_rows *rows, const cca_matrix *q, int64_t own_window, int64_t pos,
                    int64_t n) {
    cca_backend *b = c->backend;
    cca_spans spans = see(c, layer, raw, rows, n);
    if (own_window > 0 && c->policy.attn == CCA_ATTN_FULL) {
        spans.at[0].seen = cca_rule_window(&(cca_rule){1, own_window, 0, false});
    }
    if (cca_cache_has(c, ARRAY_BOUNDS)) {
        cca_rows bounds = cca_cache_rows(c, ARRAY_BOUNDS, layer, 0);
        cca_rows blocks = cca_cache_rows(c, ARRAY_BLOCKS, layer, 0);
        cca_range groups = cca_rule_groups(&c->policy.rule);
        cca_choose(b, &spans.choice, &bounds, cca_cache_has(c, ARRAY_BLOCKS) ? &blocks : NULL,
                   &groups, q, pos, n);
        if (c->disk) {
            cca_disk_rows_want(c->disk, layer, &spans.choice,
                               cca_choice_tiles(&spans.choice, pos, n));
        }
    }
    if (c->watched.sums) add_masses(c, layer, &spans, q, pos, n);
    if (way_near(c, pos, n) == NEAR_CHOSEN) {
        attend_chosen(c, layer, out, &spans, q, pos, n);
    } else {
        cca_attend(b, out, &spans, q, pos, n);
    }
}

void cca_cache_store(cca_cache *c, cca_rows *raw, cca_matrix *q, cca_matrix *k, const cca_matrix *v,
                     const cca_turn *turn, int64_t pos, int64_t n) {
    if (turn) {
        cca_rotate_store(c->backend, raw, q, k, v, turn, pos, n);
    } else {
        cca_rows_store(c->backend, raw, k, v, pos, n);
    }
}

/* One token fits the ring, and so does a draft. A chunk does not: window and chunk are laid side by
 * side. */
bool cca_cache_lay(cca_cache *c, cca_rows *raw, int64_t layer, int64_t pos, int64_t n) {
    const cca_rows window = cca_cache_rows(c, ARRAY_RAW, layer, 0);
    const bool side_by_side = n > 1 && !c->draft && !c->all_rows;
    const int64_t kept = cca_min(pos, window.capacity);
    *raw = window;
    if (!side_by_side) return false;
    *raw = cca_cache_rows(c, ARRAY_SCRATCH, 0, pos - kept);
    cca_rows_move(c->backend, raw, &window, pos - kept, kept);
    return true;
}

void cca_cache_slide(cca_cache *c, int64_t layer, const cca_rows *raw, int64_t pos, int64_t n) {
    cca_rows window = cca_cache_rows(c, ARRAY_RAW, layer, 0);
    const int64_t keep = cca_min(pos + n, window.capacity), from = cca_max(pos, pos + n - keep);
    cca_rows_move(c->backend, &window, raw, from, pos + n - from);
}

void cca_cache_attend(cca_cache *c, int64_t layer, cca_matrix *out, cca_matrix *q, cca_matrix *k,
                      const cca_matrix *v, const cca_turn *turn, int64_t own_window, int64_t pos,
                      int64_t n) {
    cca_rows raw, rows;
    if (c->spread) {
        cca_spread_attend(c->spread, layer, out, q, k, v, turn, own_window, pos, n);
        return;
    }
    if (c->disk && layer == 0) go_on_disk(c, pos, n);
    if (c->disk) bound_resident(c, pos + n);
    const bool side_by_side = cca_cache_lay(c, &raw, layer, pos, n);
    cca_cache_store(c, &raw, q, k, v, turn, pos, n);
    cca_cache_take(c, &rows, layer, &raw, q, pos, n);
    cca_cache_look(c, layer, out, &raw, &rows, q, own_window, pos, n);
    if (side_by_side) cca_cache_slide(c, layer, &raw, pos, n);
}

void cca_cache_choose_alone(cca_cache *cache, bool alone) {
    cache->alone = alone;
}

void cca_cache_draft(cca_cache *cache, bool draft) {
    cache->draft = draft;
}

void cca_cache_watch(cca_cache *cache, const cca_mass *mass, int64_t n) {
    cache->watched = mass ? *mass : (cca_mass){0};
    cache->n_watched = n;
}

int64_t cca_cache_unit(const cca_policy *policy) {
    return policy->rule.cores ? policy->rule.group_size : CCA_DEFAULT_GROUP;
}

/* ---- marks --------------------------------------------------------------------------- */

/* Copies the ring's rows of n_tokens between window and mark, layer by layer. */
static cca_status copy_window(cca_cache *c, int64_t n_tokens, bool to_mark, cca_error *err) {
    if (!c->shape.mark) return cca_fail(err, CCA_USAGE, "this cache has no room for a mark");
    int64_t n = cca_min(n_tokens, c->arrays[ARRAY_MARK].rows);
    for (int64_t layer = 0; layer < c->shape.n_layers && n > 0; layer++) {
        cca_rows window = cca_cache_rows(c, ARRAY_RAW, layer, 0);
        cca_rows mark = cca_cache_rows(c, ARRAY_MARK, layer, 0);
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
