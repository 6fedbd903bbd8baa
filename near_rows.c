#include "near_rows.h"

#include <stdlib.h>

/* k and v of so many rows, without gaps. */
typedef struct buffer_bytes {
    size_t k, v;
} buffer_bytes;

/* Of a layer's kept groups: which table is the present one, and below which group they are good. */
typedef struct layer_state {
    int now;
    int64_t n_known;
} layer_state;

struct cca_near_rows {
    cca_backend *backend;
    cca_near_shape shape;
    bool converts;     /* to the window's types */
    cca_rows here;     /* rows that are read */
    cca_rows landing;  /* rows as they come from the host; k NULL where they do not */
    const void *comes; /* keys of the rows that were begun to be brought there; NULL: none */
    int64_t n_come;
    bool under_way; /* copies between the two may be */
    cca_rows gathered;
    int32_t *groups; /* [CCA_NEAR_TILES][heads][most], the numbers of gathered groups */
    cca_rows kept; /* [layers] times such rows, of single queries; k NULL: they are gathered, too */
    int32_t *tables; /* [layers][2][groups, places][heads][most] of them, now and next in turn */
    layer_state *layers;
};

/* Of rows in other types, those of a window in 16 bits can be read faster there. */
static bool converts(const cca_near_shape *s) {
    bool half = s->k_type == CCA_BF16 || s->k_type == CCA_F16;
    bool alike = s->rows.k_type == s->k_type && s->rows.v_type == s->v_type;
    return half && s->v_type == s->k_type && !alike;
}

bool cca_near_rows_help(const cca_near_shape *shape) {
    return shape->on_host || converts(shape);
}

/* Rows as they are near. */
static cca_rows near_rows(const cca_near_shape *s, int64_t capacity) {
    cca_rows rows = s->rows;
    rows.k = rows.v = NULL;
    rows.capacity = capacity;
    if (!converts(s)) return rows;
    rows.k_type = s->k_type;
    rows.v_type = s->v_type;
    return rows;
}

static int64_t gathered_rows(const cca_near_shape *s) {
    return CCA_NEAR_TILES * s->most * s->group_size;
}

static int64_t list_length(const cca_near_shape *s) {
    return CCA_NEAR_TILES * s->rows.heads * s->most;
}

static bool keeps(const cca_near_shape *s) {
    return s->most <= CCA_MOST_KEPT;
}

/* Numbers of a layer's two tables. */
static int64_t table_length(const cca_near_shape *s) {
    return 2 * 2 * s->rows.heads * s->most;
}

/* All layers' kept rows, as if they were one's. */
static cca_rows kept_rows(const cca_near_shape *s) {
    cca_rows rows = near_rows(s, s->most * s->group_size);
    if (keeps(s)) rows.heads *= s->n_layers;
    return rows;
}

static bool measure(buffer_bytes *out, const cca_rows *rows) {
    int64_t n = rows->heads * rows->capacity;
    return cca_matrix_bytes(&out->k, rows->k_type, n, rows->head_dim) &&
           cca_matrix_bytes(&out->v, rows->v_type, n, rows->head_dim);
}

bool cca_near_rows_bytes(size_t *out, const cca_near_shape *shape) {
    cca_rows here = near_rows(shape, shape->rows.capacity);
    cca_rows gathered = near_rows(shape, gathered_rows(shape));
    cca_rows kept = kept_rows(shape);
    const cca_rows *all[] = {&here, &gathered, keeps(shape) ? &kept : NULL,
                             shape->on_host ? &shape->rows : NULL};
    int64_t numbers = list_length(shape);
    if (keeps(shape)) numbers += shape->n_layers * table_length(shape);
    *out = (size_t)numbers * sizeof(int32_t);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        buffer_bytes bytes;
        if (!all[i]) continue;
        if (!measure(&bytes, all[i]) || !cca_add(out, *out, bytes.k) ||
            !cca_add(out, *out, bytes.v)) {
            return false;
        }
    }
    return true;
}

static void make(cca_backend *b, cca_rows *rows) {
    buffer_bytes bytes = {0};
    measure(&bytes, rows);
    rows->k = cca_backend_alloc(b, bytes.k);
    rows->v = cca_backend_alloc(b, bytes.v);
}

/* Gathered groups lie one behind the other. */
static void number_groups(cca_near_rows *n, int32_t *list) {
    const cca_near_shape *s = &n->shape;
    int64_t per_tile = s->rows.heads * s->most;
    for (int64_t i = 0; i < list_length(s); i++) {
        list[i] = (int32_t)(i / per_tile * s->most + i % s->most);
    }
    cca_backend_upload(n->backend, n->groups, list, (size_t)list_length(s) * sizeof *list);
}

/* Nothing is there. */
static void make_kept(cca_near_rows *n) {
    const cca_near_shape *s = &n->shape;
    size_t length = (size_t)(s->n_layers * table_length(s)), bytes = length * sizeof(int32_t);
    int32_t *nothing = malloc(bytes + 1);
    n->layers = calloc((size_t)s->n_layers, sizeof *n->layers);
    if (!nothing || !n->layers) {
        cca_backend_fail(n->backend, CCA_NO_MEMORY, "no memory for the cache");
    }
    n->kept = kept_rows(s);
    make(n->backend, &n->kept);
    n->tables = cca_backend_alloc(n->backend, bytes);
    for (size_t i = 0; nothing && i < length; i++) nothing[i] = CCA_NO_GROUP;
    if (n->tables) cca_backend_upload(n->backend, n->tables, nothing, bytes);
    free(nothing);
}

static void make_list(cca_near_rows *n) {
    size_t bytes = (size_t)list_length(&n->shape) * sizeof(int32_t);
    int32_t *numbers = malloc(bytes + 1);
    if (!numbers) cca_backend_fail(n->backend, CCA_NO_MEMORY, "no memory for the cache");
    n->groups = cca_backend_alloc(n->backend, bytes);
    if (numbers && n->groups) number_groups(n, numbers);
    free(numbers);
}

cca_status cca_near_rows_new(cca_near_rows **out, cca_backend *backend, const cca_near_shape *shape,
                             cca_error *err) {
    cca_near_rows *n = calloc(1, sizeof *n);
    *out = n;
    if (!n) return cca_fail(err, CCA_NO_MEMORY, "no memory for the cache");
    n->backend = backend;
    n->shape = *shape;
    n->converts = converts(shape);
    n->here = near_rows(shape, shape->rows.capacity);
    n->gathered = near_rows(shape, gathered_rows(shape));
    make(backend, &n->here);
    make(backend, &n->gathered);
    if (shape->on_host) {
        n->landing = shape->rows;
        make(backend, &n->landing);
    }
    make_list(n);
    if (keeps(shape)) make_kept(n);
    return CCA_OK;
}

void cca_near_rows_free(cca_near_rows *near) {
    if (!near) return;
    cca_rows *all[] = {&near->here, &near->gathered, &near->landing, &near->kept};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        cca_backend_release(near->backend, all[i]->k);
        cca_backend_release(near->backend, all[i]->v);
    }
    cca_backend_release(near->backend, near->groups);
    cca_backend_release(near->backend, near->tables);
    free(near->layers);
    free(near);
}

/* Rows before pos are those that come, and what more of them there is by now. */
static void land(cca_near_rows *n, const cca_rows *far, int64_t pos) {
    int64_t there = n->comes == far->k ? cca_min(n->n_come, pos) : 0;
    cca_rows_bring(n->backend, &n->landing, far, there, pos - there);
    cca_rows_brought(n->backend);
    n->comes = NULL;
    n->under_way = true; /* what is sent next */
}

cca_rows cca_near_rows_layer(cca_near_rows *n, const cca_rows *far, const cca_rows *raw,
                             int64_t pos, int64_t end, const cca_rows *next, int64_t n_next) {
    cca_backend *b = n->backend;
    cca_rows to = n->shape.on_host ? n->landing : *far;
    if (n->shape.on_host) land(n, far, pos);
    if (end > pos) cca_rows_move(b, &to, raw, pos, end - pos);
    if (n->shape.on_host) cca_rows_send(b, far, &to, pos, end - pos);
    if (n->converts) {
        if (end > 0) cca_rows_move(b, &n->here, &to, 0, end);
    } else { /* the next rows come where the last ones were read */
        n->landing = n->here;
        n->here = to;
    }
    if (n->shape.on_host && next) {
        cca_rows_bring(b, &n->landing, next, 0, n_next);
        n->comes = next->k;
        n->n_come = n_next;
    }
    return n->here;
}

void cca_near_rows_forget(cca_near_rows *near) {
    if (near->under_way) cca_rows_brought(near->backend);
    near->under_way = false;
    near->comes = NULL;
}

void cca_near_rows_changed(cca_near_rows *near, int64_t layer, int64_t group) {
    if (!near->layers) return;
    layer_state *state = &near->layers[layer];
    state->n_known = cca_min(state->n_known, group);
}

/* A layer's kept groups, and which of its tables is which. */
static cca_kept kept_of(const cca_near_rows *n, int64_t layer) {
    const cca_near_shape *s = &n->shape;
    cca_kept kept = {.rows = n->kept};
    int32_t *tables = n->tables + layer * table_length(s);
    int64_t length = s->rows.heads * s->most, now = 2 * length * n->layers[layer].now;
    size_t k = 0, v = 0;
    kept.rows.heads = s->rows.heads;
    int64_t rows = layer * kept.rows.heads * kept.rows.capacity;
    cca_matrix_bytes(&k, kept.rows.k_type, rows, kept.rows.head_dim);
    cca_matrix_bytes(&v, kept.rows.v_type, rows, kept.rows.head_dim);
    kept.rows.k = (char *)n->kept.k + k;
    kept.rows.v = (char *)n->kept.v + v;
    kept.groups = tables + now;
    kept.places = kept.groups + length;
    kept.next_groups = tables + (2 * length - now);
    kept.next_places = kept.next_groups + length;
    return kept;
}

/* All columns of rows, or the first, whoever looks. */
static cca_range first_rows(int64_t n) {
    static const int64_t ANYWHERE = INT64_MAX / 4;
    return (cca_range){{0, 1, 0, 0}, {-ANYWHERE, 1, 1, n}};
}

/* A single query sees no more than there is behind its window. */
static void renew(cca_near_rows *n, int64_t layer, cca_span *span, cca_choice *choice,
                  const cca_rows *far, int64_t pos) {
    layer_state *state = &n->layers[layer];
    cca_kept kept = kept_of(n, layer);
    int64_t most = choice->most * choice->group_size, seen = cca_range_count(&span->seen, pos);
    cca_rows_renew(n->backend, &kept, far, choice, state->n_known);
    state->n_known = n->backend->status ? 0 : INT64_MAX; /* it may not have been carried out */
    state->now = 1 - state->now;
    span->rows = kept.rows;
    span->seen = first_rows(cca_min(seen, most));
    choice->groups = kept.next_places;
}

void cca_near_rows_chosen(cca_near_rows *n, int64_t layer, cca_span *span, cca_choice *choice,
                          const cca_rows *far, int64_t pos, int64_t first, int64_t n_tiles) {
    cca_choice some = *choice;
    some.groups += first * some.heads * some.most;
    some.counts += first * some.heads;
    choice->counts = some.counts;
    if (n_tiles == 1 && n->tables) {
        choice->groups = some.groups;
        renew(n, layer, span, choice, far, pos);
        return;
    }
    int64_t most = choice->most * choice->group_size, seen = cca_range_count(&span->seen, pos);
    cca_rows_gather(n->backend, &n->gathered, far, &some, n_tiles);
    span->rows = n->gathered;
    span->seen = first_rows(n_tiles == 1 ? cca_min(seen, most) : n->gathered.capacity);
    choice->groups = n->groups;
}
