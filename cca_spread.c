#include "cca_spread.h"

#include "cca_parts.h"
#include "cca_share.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SOME_MORE = 512, /* positions that room is made for at once */
    ROWS = 64,       /* queries that are told of together */
};

/* Room for columns of all layers; NULL: another rank's. */
typedef struct memory {
    void *k, *v;
    int64_t room; /* columns */
} memory;

struct cca_spread {
    cca_cache *cache;
    cca_comm *comm;
    int rank, n_ranks;
    int64_t n_layers;
    array_kind kind; /* of columns; N_ARRAYS: nothing grows */
    int64_t unit;    /* positions of a column */
    cca_holding *held;
    memory *memory; /* of each of them */
    int n_held, room_held, n_before;
    /* Of a stretch of queries: */
    cca_matrix out, sums;
    float *host_out, *host_sums;
    float *parts; /* [n_ranks][queries][heads][head_dim + 2] */
    float *own;   /* this rank's of them */
    size_t *bytes;
};

/* ---- what ranks have ----------------------------------------------------------------- */

static array_kind column_kind(const cca_cache *c) {
    return c->all_rows ? ARRAY_RAW : cca_cache_has(c, ARRAY_CORES) ? ARRAY_CORES : N_ARRAYS;
}

static int64_t unit_of(const cca_cache *c) {
    return c->all_rows ? 1 : c->policy.rule.group_size;
}

/* Positions in whole columns. */
static cca_slice whole(const cca_spread *s, int64_t begin, int64_t end) {
    return (cca_slice){begin / s->unit * s->unit, end / s->unit * s->unit};
}

static cca_slice columns_of(const cca_spread *s, int i) {
    return (cca_slice){s->held[i].at.begin / s->unit, s->held[i].at.end / s->unit};
}

/* What one layer has in a holding of this rank's. */
static cca_rows kept_rows(const cca_spread *s, int i, int64_t layer) {
    const row_array *a = &s->cache->arrays[s->kind];
    const memory *m = &s->memory[cca_max(i, 0)]; /* the backend has failed where there is none */
    size_t k = 0, v = 0;
    cca_cache_rows_bytes(&k, s->cache, a->k_type, layer, a->heads, m->room);
    cca_cache_rows_bytes(&v, s->cache, a->v_type, layer, a->heads, m->room);
    return (cca_rows){.k = (char *)m->k + k,
                      .v = (char *)m->v + v,
                      .k_type = a->k_type,
                      .v_type = a->v_type,
                      .heads = a->heads,
                      .capacity = m->room,
                      .head_dim = s->cache->shape.head_dim,
                      .base = columns_of(s, i).begin};
}

static bool is_own(const cca_spread *s, int i) {
    return s->held[i].rank == s->rank;
}

static bool make_lists(cca_spread *s) {
    if (s->held && s->n_held < s->room_held) return true;
    size_t room = s->room_held ? 2 * (size_t)s->room_held : 16;
    cca_holding *held = realloc(s->held, room * sizeof *held);
    if (held) s->held = held;
    memory *at = realloc(s->memory, room * sizeof *at);
    if (at) s->memory = at;
    if (held && at) s->room_held = (int)room;
    return held && at;
}

/* A rank has columns from now on, and room for some. */
static void hold(cca_spread *s, int rank, cca_slice at, int64_t room) {
    cca_backend *b = s->cache->backend;
    const row_array *a = &s->cache->arrays[s->kind];
    memory own = {.room = room};
    size_t k, v;
    if (!make_lists(s)) {
        cca_backend_fail(b, CCA_NO_MEMORY, "no memory for lists of columns");
        return;
    }
    if (rank == s->rank &&
        cca_cache_rows_bytes(&k, s->cache, a->k_type, s->n_layers, a->heads, room) &&
        cca_cache_rows_bytes(&v, s->cache, a->v_type, s->n_layers, a->heads, room)) {
        own.k = cca_backend_alloc(b, k);
        own.v = cca_backend_alloc(b, v);
    }
    s->held[s->n_held] = (cca_holding){rank, at};
    s->memory[s->n_held++] = own;
}

static void drop(cca_spread *s) {
    const memory *m = &s->memory[--s->n_held];
    cca_backend_release(s->cache->backend, m->k);
    cca_backend_release(s->cache->backend, m->v);
}

/* What lies at positions from pos on has never been. */
static void cut(cca_spread *s, int64_t pos) {
    const int64_t end = pos / s->unit * s->unit;
    while (s->n_held > 0 && s->held[s->n_held - 1].at.begin >= end) drop(s);
    if (s->n_held == 0) return;
    cca_slice *last = &s->held[s->n_held - 1].at;
    last->end = cca_min(last->end, end);
}

cca_status cca_spread_share(cca_spread *s, const cca_slices *slices, cca_error *err) {
    cut(s, slices->begin);
    s->n_before = s->n_held;
    for (int i = 0; i < cca_slice_count(slices) && s->kind != N_ARRAYS; i++) {
        cca_slice slice = cca_slice_at(slices, i), at = whole(s, slice.begin, slice.end);
        if (at.begin == at.end) continue;
        hold(s, cca_slice_owner(slices, i), at, (at.end - at.begin) / s->unit);
    }
    return cca_backend_sync(s->cache->backend, err);
}

const cca_holding *cca_spread_before(const cca_spread *s, int *n) {
    *n = s->n_before;
    return s->held;
}

/* The last holding has the columns that a call completes, on rank 0. */
static void make_more(cca_spread *s, int64_t pos, int64_t n) {
    const cca_slice at = whole(s, pos, pos + n);
    const int64_t more = (at.end - at.begin) / s->unit;
    if (more == 0 || s->kind == N_ARRAYS) return;
    cca_holding *last = s->n_held > 0 ? &s->held[s->n_held - 1] : NULL;
    if (last && last->rank == 0 &&
        (at.end - last->at.begin) / s->unit <= s->memory[s->n_held - 1].room) {
        last->at.end = at.end;
    } else {
        hold(s, 0, at, cca_max(more, SOME_MORE / s->unit));
    }
}

void cca_spread_lay(cca_spread *s, int64_t layer) {
    for (int i = 0; i < s->n_before; i++) {
        if (!is_own(s, i)) continue;
        cca_slice at = columns_of(s, i);
        cca_rows to = cca_cache_rows(s->cache, s->kind, layer, 0), from = kept_rows(s, i, layer);
        cca_rows_move(s->cache->backend, &to, &from, at.begin, at.end - at.begin);
    }
}

void cca_spread_keep(cca_spread *s, int64_t layer) {
    for (int i = s->n_before; i < s->n_held; i++) {
        if (!is_own(s, i)) continue;
        cca_slice at = columns_of(s, i);
        cca_rows to = kept_rows(s, i, layer), from = cca_cache_rows(s->cache, s->kind, layer, 0);
        cca_rows_move(s->cache->backend, &to, &from, at.begin, at.end - at.begin);
    }
}

/* ---- attention ----------------------------------------------------------------------- */

/* A call: tokens in a layer. */
typedef struct call {
    int64_t layer, own_window, pos, n;
    const cca_matrix *q;
    cca_rows raw; /* of rank 0: what its queries see one by one */
} call;

static cca_matrix some_of(const cca_matrix *m, int64_t first, int64_t n) {
    return (cca_matrix){
        .data = (float *)m->data + first * m->cols, .type = m->type, .rows = n, .cols = m->cols};
}

static int64_t heads_of(const cca_spread *s) {
    return s->out.cols / s->cache->shape.head_dim;
}

/* Floats of a part of n queries. */
static int64_t part_size(const cca_spread *s, int64_t n) {
    return n * heads_of(s) * (s->cache->shape.head_dim + 2);
}

/* One head's attention over some keys, then its largest score and its sum: adds that over others.
 */
static void add_head(float *to, const float *out, float largest, float total, int64_t head_dim) {
    float *sums = to + head_dim;
    if (total == 0) return;
    if (sums[1] == 0) {
        memcpy(to, out, (size_t)head_dim * sizeof *to);
        sums[0] = largest;
        sums[1] = total;
        return;
    }
    const float most = fmaxf(sums[0], largest);
    const double own = sums[1] * exp((double)sums[0] - most);
    const double more = total * exp((double)largest - most), all = own + more;
    const float a = (float)(own / all), b = (float)(more / all);
    for (int64_t d = 0; d < head_dim; d++) to[d] = a * to[d] + b * out[d];
    sums[0] = most;
    sums[1] = (float)all;
}

/* Attends to some keys with rows first … first + n - 1 of the call's queries, as if the first of
 * them stood at pos, and adds that to this rank's part, which begins with row `begin`. */
static void attend_some(cca_spread *s, const call *c, const cca_spans *spans, int64_t begin,
                        int64_t first, int64_t n, int64_t pos) {
    cca_backend *b = s->cache->backend;
    const int64_t hd = s->cache->shape.head_dim, heads = heads_of(s), each = hd + 2;
    const cca_matrix q = some_of(c->q, first, n);
    float *to = s->own + (first - begin) * heads * each;
    cca_attend_some(b, &s->out, &s->sums, spans, &q, pos, n);
    cca_matrix_download(b, s->host_out, &s->out, n);
    cca_matrix_download(b, s->host_sums, &s->sums, n);
    for (int64_t i = 0; i < n * heads; i++) {
        const float *sums = s->host_sums + 2 * i;
        add_head(to + i * each, s->host_out + i * hd, sums[0], sums[1], hd);
    }
}

/* The last columns of all, as rows of a text that begins with the call. */
static cca_rows own_rows(const cca_spread *s, int64_t layer, int64_t pos) {
    cca_rows rows = kept_rows(s, s->n_held - 1, layer);
    rows.base -= pos;
    return rows;
}

/* Rank 0: keys and values of a call, which its queries see one by one. */
static void store_call(cca_spread *s, call *c, bool *apart, cca_matrix *q, cca_matrix *k,
                       const cca_matrix *v, const cca_turn *turn) {
    cca_cache *cache = s->cache;
    cca_rows unused;
    int64_t pos = cache->all_rows ? 0 : c->pos;
    if (cache->all_rows) {
        c->raw = own_rows(s, c->layer, c->pos);
    } else {
        *apart = cca_cache_lay(cache, &c->raw, c->layer, c->pos, c->n);
    }
    cca_cache_store(cache, &c->raw, q, k, v, turn, pos, c->n);
    if (!cache->all_rows) cca_cache_take(cache, &unused, c->layer, &c->raw, q, c->pos, c->n);
}

/* Groups that it completes are cores of this rank's. */
static void keep_cores(const cca_spread *s, const call *c) {
    int64_t first, n = cca_groups_completed(s->unit, c->pos, c->n, &first);
    if (s->kind != ARRAY_CORES || n == 0) return;
    cca_rows to = kept_rows(s, s->n_held - 1, c->layer);
    cca_rows from = cca_cache_rows(s->cache, ARRAY_CORES, c->layer, 0);
    cca_rows_move(s->cache->backend, &to, &from, first, n);
}

/* Rank 0: the window and the sinks; or the call's own rows, where all are kept. */
static void look_near(cca_spread *s, const call *c, int64_t first, int64_t n) {
    const cca_cache *cache = s->cache;
    const cca_rule *rule = &cache->policy.rule, own = {1, c->own_window, 0, false};
    cca_spans spans = {.n = 1, .at = {{c->raw, cca_rule_window(rule), 1, CCA_PICK_ALL}}};
    if (c->own_window > 0) spans.at[0].seen = cca_rule_window(&own);
    if (cca_cache_has(cache, ARRAY_SINKS)) {
        cca_rows sinks = cca_cache_rows(cache, ARRAY_SINKS, c->layer, 0);
        spans.at[spans.n++] = (cca_span){sinks, cca_rule_sinks(rule), 1, CCA_PICK_ALL};
    }
    attend_some(s, c, &spans, first, first, n, (cache->all_rows ? 0 : c->pos) + first);
}

/* Columns, of all ranks, that a position of the call sees behind what it sees one by one. */
static cca_slice seen_far(const cca_spread *s, const call *c, int64_t pos) {
    const cca_range groups = cca_rule_groups(&s->cache->policy.rule);
    if (s->kind == ARRAY_CORES) {
        return (cca_slice){cca_edge_at(&groups.begin, pos), cca_edge_at(&groups.end, pos)};
    }
    return (cca_slice){c->own_window > 0 ? cca_max(pos + 1 - c->own_window, 0) : 0, c->pos};
}

/* The part of them that lies where this rank has columns. */
static cca_slice seen_own(const cca_spread *s, const call *c, int64_t pos) {
    cca_slice seen = seen_far(s, c, pos);
    int64_t begin = INT64_MAX, end = 0;
    for (int i = 0; i < s->n_held; i++) {
        if (!is_own(s, i)) continue;
        begin = cca_min(begin, columns_of(s, i).begin);
        end = columns_of(s, i).end;
    }
    seen.begin = cca_max(seen.begin, begin);
    seen.end = cca_max(cca_min(seen.end, end), seen.begin);
    return seen;
}

/* The same columns for all queries. */
static cca_range all_of(cca_slice columns) {
    return (cca_range){{0, 1, columns.begin, columns.begin}, {0, 1, columns.end, columns.end}};
}

/* Queries first … first + n - 1, which all see the same columns, attend to this rank's. */
static void look_at_columns(cca_spread *s, const call *c, cca_slice seen, int64_t begin,
                            int64_t first, int64_t n) {
    cca_spans spans = {0};
    for (int i = 0; i < s->n_held; i++) {
        cca_slice at = columns_of(s, i);
        at.begin = cca_max(at.begin, seen.begin);
        at.end = cca_min(at.end, seen.end);
        if (!is_own(s, i) || at.begin >= at.end) continue;
        spans.at[spans.n++] =
            (cca_span){kept_rows(s, i, c->layer), all_of(at), s->unit, CCA_PICK_ALL};
        if (spans.n < CCA_MOST_SPANS) continue;
        attend_some(s, c, &spans, begin, first, n, c->pos + first);
        spans.n = 0;
    }
    if (spans.n > 0) attend_some(s, c, &spans, begin, first, n, c->pos + first);
}

static void look_far(cca_spread *s, const call *c, int64_t begin, int64_t n) {
    for (int64_t row = begin, end; row < begin + n; row = end) {
        cca_slice seen = seen_own(s, c, c->pos + row);
        for (end = row + 1; end < begin + n; end++) {
            cca_slice next = seen_own(s, c, c->pos + end);
            if (next.begin != seen.begin || next.end != seen.end) break;
        }
        if (seen.begin < seen.end) look_at_columns(s, c, seen, begin, row, end - row);
    }
}

/* All ranks' parts of n queries become the attention of each, in the order of ranks. */
static void put_together(cca_spread *s, cca_matrix *out, int64_t first, int64_t n) {
    cca_backend *b = s->cache->backend;
    const int64_t hd = s->cache->shape.head_dim, each = hd + 2, size = part_size(s, n);
    cca_error err;
    for (int i = 0; i < s->n_ranks; i++) s->bytes[i] = (size_t)size * sizeof *s->parts;
    if (!cca_comm_sound(s->comm)) return;
    cca_status status = cca_comm_gather(s->comm, s->parts, s->bytes, &err);
    if (status) cca_backend_fail(b, status, "%s", err.text);
    for (int64_t i = 0; i < size / each && !status; i++) {
        float *all = s->parts + i * each;
        for (int r = 1; r < s->n_ranks; r++) {
            const float *part = all + r * size;
            add_head(all, part, part[hd], part[hd + 1], hd);
        }
        memcpy(s->host_out + i * hd, all, (size_t)hd * sizeof *all);
    }
    const cca_matrix rows = some_of(out, first, n);
    cca_backend_upload(b, rows.data, s->host_out, (size_t)(n * rows.cols) * sizeof(float));
}

void cca_spread_attend(cca_spread *s, int64_t layer, cca_matrix *out, cca_matrix *q, cca_matrix *k,
                       const cca_matrix *v, const cca_turn *turn, int64_t own_window, int64_t pos,
                       int64_t n) {
    cca_cache *cache = s->cache;
    const bool first = s->rank == 0;
    call c = {.layer = layer, .pos = pos, .n = n, .q = q};
    bool apart = false;
    if (cache->policy.attn == CCA_ATTN_FULL) c.own_window = own_window;
    if (layer == 0) cut(s, pos);
    if (layer == 0) make_more(s, pos, n);
    if (first) store_call(s, &c, &apart, q, k, v, turn);
    if (first) keep_cores(s, &c);
    if (!first && turn) cca_rotate(cache->backend, q, turn->angles, turn->rope, n);
    for (int64_t row = 0, some; row < n; row += some) {
        some = cca_min(ROWS, n - row);
        s->own = s->parts + s->rank * part_size(s, some);
        memset(s->own, 0, (size_t)part_size(s, some) * sizeof *s->own);
        if (first) look_near(s, &c, row, some);
        look_far(s, &c, row, some);
        put_together(s, out, row, some);
    }
    if (apart) cca_cache_slide(cache, layer, &c.raw, pos, n);
}

/* ---- memory -------------------------------------------------------------------------- */

void cca_spread_free(cca_spread *s) {
    if (!s) return;
    while (s->n_held > 0) drop(s);
    cca_matrix_free(s->cache->backend, &s->out);
    cca_matrix_free(s->cache->backend, &s->sums);
    free(s->held);
    free(s->memory);
    free(s->host_out);
    free(s->host_sums);
    free(s->parts);
    free(s->bytes);
    free(s);
}

static bool make_room(cca_spread *s) {
    const cca_cache_shape *shape = &s->cache->shape;
    const int64_t width = shape->n_heads * shape->head_dim;
    cca_matrix_alloc(s->cache->backend, &s->out, CCA_F32, ROWS, width);
    cca_matrix_alloc(s->cache->backend, &s->sums, CCA_F32, ROWS, 2 * shape->n_heads);
    s->host_out = calloc((size_t)(ROWS * width), sizeof *s->host_out);
    s->host_sums = calloc((size_t)(ROWS * 2 * shape->n_heads), sizeof *s->host_sums);
    s->parts = calloc((size_t)(s->n_ranks * part_size(s, ROWS)), sizeof *s->parts);
    s->bytes = calloc((size_t)s->n_ranks, sizeof *s->bytes);
    return make_lists(s) && s->host_out && s->host_sums && s->parts && s->bytes;
}

cca_status cca_cache_spread(cca_cache *cache, cca_comm *comm, int64_t n_layers, cca_error *err) {
    if (!cca_backend_attends_some(cache->backend)) {
        return cca_fail(err, CCA_USAGE,
                        "device %s cannot attend to a part of the keys: a cache that is spread "
                        "over ranks is the CPU's",
                        cca_backend_name(cache->backend));
    }
    if (cache->policy.recall > 0) {
        return cca_fail(err, CCA_USAGE,
                        "a cache that is spread over ranks recalls nothing: what is recalled is "
                        "chosen from all bounds");
    }
    cca_spread *s = calloc(1, sizeof *s);
    if (!s) return cca_fail(err, CCA_NO_MEMORY, "no memory for a cache that is spread");
    *s = (cca_spread){.cache = cache,
                      .comm = comm,
                      .rank = cca_comm_rank(comm),
                      .n_ranks = cca_comm_n_ranks(comm),
                      .n_layers = n_layers,
                      .kind = column_kind(cache),
                      .unit = unit_of(cache)};
    cache->spread = s;
    if (!make_room(s)) return cca_fail(err, CCA_NO_MEMORY, "no memory for what ranks tell");
    return cca_backend_sync(cache->backend, err);
}

/* Bytes of so many positions in columns, of all layers. */
static size_t column_bytes(const cca_cache *c, int64_t n_layers, int64_t n) {
    const array_kind kind = column_kind(c);
    size_t k, v, all;
    if (kind == N_ARRAYS) return 0;
    const row_array *a = &c->arrays[kind];
    const int64_t columns = (n + unit_of(c) - 1) / unit_of(c);
    bool fits = cca_cache_rows_bytes(&k, c, a->k_type, n_layers, a->heads, columns) &&
                cca_cache_rows_bytes(&v, c, a->v_type, n_layers, a->heads, columns) &&
                cca_add(&all, k, v);
    return fits ? all : SIZE_MAX;
}

cca_spread_size cca_spread_measure(const cca_cache_shape *shape, const cca_policy *policy,
                                   int n_ranks, int64_t n_layers, int64_t n) {
    cca_cache c;
    cca_slices slices;
    int64_t first = n, most = 0;
    cca_cache_count(&c, shape, policy);
    if (cca_share_slices(&slices, &c, NULL, n_ranks, 0, n)) {
        for (int r = 0; r < n_ranks; r++) {
            int64_t own = 0;
            for (int wave = 0; wave < CCA_WAVES; wave++) {
                cca_slice at = cca_slice_at(&slices, cca_slice_of(&slices, r, wave));
                own += at.end - at.begin;
            }
            if (r == 0) first = own;
            if (r > 0) most = cca_max(most, own);
        }
    }
    return (cca_spread_size){column_bytes(&c, n_layers, first + SOME_MORE),
                             column_bytes(&c, n_layers, most)};
}
