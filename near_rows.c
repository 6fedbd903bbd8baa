#include "near_rows.h"

#include <stdlib.h>

/* k and v of so many rows, without gaps. */
typedef struct buffer_bytes {
    size_t k, v;
} buffer_bytes;

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

static bool measure(buffer_bytes *out, const cca_rows *rows) {
    int64_t n = rows->heads * rows->capacity;
    return cca_matrix_bytes(&out->k, rows->k_type, n, rows->head_dim) &&
           cca_matrix_bytes(&out->v, rows->v_type, n, rows->head_dim);
}

bool cca_near_rows_bytes(size_t *out, const cca_near_shape *shape) {
    cca_rows here = near_rows(shape, shape->rows.capacity);
    cca_rows gathered = near_rows(shape, gathered_rows(shape));
    const cca_rows *all[] = {&here, &gathered, &shape->rows};
    *out = (size_t)list_length(shape) * sizeof(int32_t);
    for (int i = 0; i < (shape->on_host ? 3 : 2); i++) {
        buffer_bytes bytes;
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

cca_status cca_near_rows_new(cca_near_rows **out, cca_backend *backend, const cca_near_shape *shape,
                             cca_error *err) {
    size_t list = (size_t)list_length(shape) * sizeof(int32_t);
    cca_near_rows *n = calloc(1, sizeof *n);
    int32_t *numbers = malloc(list + 1);
    *out = n;
    if (!n || !numbers) {
        free(numbers);
        return cca_fail(err, CCA_NO_MEMORY, "no memory for the cache");
    }
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
    n->groups = cca_backend_alloc(backend, list);
    if (n->groups) number_groups(n, numbers);
    free(numbers);
    return CCA_OK;
}

void cca_near_rows_free(cca_near_rows *near) {
    if (!near) return;
    cca_rows *all[] = {&near->here, &near->gathered, &near->landing};
    for (int i = 0; i < 3; i++) {
        cca_backend_release(near->backend, all[i]->k);
        cca_backend_release(near->backend, all[i]->v);
    }
    cca_backend_release(near->backend, near->groups);
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

void cca_near_rows_chosen(cca_near_rows *n, cca_span *span, cca_choice *choice, const cca_rows *far,
                          int64_t pos, int64_t first, int64_t n_tiles) {
    static const int64_t ANYWHERE = INT64_MAX / 4;
    int64_t own = cca_min(cca_range_count(&span->seen, pos), choice->most * choice->group_size);
    cca_choice some = *choice;
    some.groups += first * some.heads * some.most;
    some.counts += first * some.heads;
    cca_rows_gather(n->backend, &n->gathered, far, &some, n_tiles);
    span->rows = n->gathered;
    span->seen =
        (cca_range){{0, 1, 0, 0}, {-ANYWHERE, 1, 1, n_tiles == 1 ? own : n->gathered.capacity}};
    choice->groups = n->groups;
    choice->counts = some.counts;
}
