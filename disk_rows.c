#include "disk_rows.h"

#include "base/file_memory.h"
#include "base/mapping.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    STEP = 1024,      /* positions whose space is taken together */
    MOST_VIEWS = 256, /* files that are open */
    LATELY = 1024     /* calls of cca_disk_rows_want */
};

typedef struct view {
    cca_store_view of;
    int64_t begin; /* the first position read there */
} view;

struct cca_disk_rows {
    cca_backend *backend;
    cca_file_memory memory; /* keys of all layers, then values */
    cca_rows shape;         /* of a layer */
    int64_t n_layers;
    size_t k_row, v_row, v_begin; /* bytes of a row; where values begin */
    int64_t from, at;             /* where rows went on last, and do now; at -1: somewhere else */
    int64_t taken;                /* positions up to here have space */
    int64_t given;                /* and of those that pieces have, it was given back up to here */
    cca_rows *pieces;             /* [n_pieces][n_layers] */
    int64_t n_pieces, capacity, lent;
    view views[MOST_VIEWS];
    int n_views;
    bool *wanted; /* [capacity], of groups: no more than positions */
    long waits;   /* for a disk, when it was looked at last */
    int asks;     /* calls that still ask */
};

/* ---- the file without a name ----------------------------------------------------------- */

/* Bytes of keys, from whose end on values lie, and of all. */
static bool count_bytes(size_t *out, size_t *values, const cca_rows *r, int64_t n_layers) {
    enum { ALIGN = 4096 };
    size_t n;
    return cca_mul(&n, (size_t)n_layers, (size_t)r->heads) && cca_mul(&n, n, (size_t)r->capacity) &&
           cca_dtype_row_bytes(values, r->k_type, r->head_dim) &&
           cca_dtype_row_bytes(out, r->v_type, r->head_dim) && cca_mul(values, *values, n) &&
           cca_mul(out, *out, n) && cca_add(values, *values, ALIGN - 1) &&
           cca_add(out, *out, *values &= ~(size_t)(ALIGN - 1));
}

bool cca_disk_rows_bytes(size_t *out, const cca_rows *layer, int64_t n_layers) {
    size_t values;
    return count_bytes(out, &values, layer, n_layers);
}

cca_status cca_disk_rows_new(cca_disk_rows **out, cca_backend *backend, const char *folder,
                             const cca_rows *layer, int64_t n_layers, cca_error *err) {
    size_t bytes, values;
    *out = NULL;
    if (!count_bytes(&bytes, &values, layer, n_layers) || bytes > INT64_MAX) {
        return cca_fail(err, CCA_NO_MEMORY, "rows of %lld positions are larger than any disk",
                        (long long)layer->capacity);
    }
    cca_disk_rows *d = calloc(1, sizeof *d);
    if (!d) return cca_fail(err, CCA_NO_MEMORY, "no memory for rows on disk");
    d->backend = backend;
    d->shape = *layer;
    d->n_layers = n_layers;
    d->v_begin = values;
    cca_dtype_row_bytes(&d->k_row, layer->k_type, layer->head_dim);
    cca_dtype_row_bytes(&d->v_row, layer->v_type, layer->head_dim);
    d->wanted = calloc((size_t)layer->capacity, sizeof *d->wanted);
    cca_status status = d->wanted ? cca_file_memory_open(&d->memory, folder, bytes, err)
                                  : cca_fail(err, CCA_NO_MEMORY, "no memory for rows on disk");
    if (status) {
        cca_disk_rows_free(d);
        return status;
    }
    *out = d;
    return CCA_OK;
}

void cca_disk_rows_free(cca_disk_rows *d) {
    if (!d) return;
    cca_disk_rows_recall(d);
    cca_file_memory_close(&d->memory);
    free(d->pieces);
    free(d->wanted);
    free(d);
}

cca_rows cca_disk_rows_layer(const cca_disk_rows *d, int64_t layer) {
    size_t first = (size_t)(layer * d->shape.heads * d->shape.capacity);
    cca_rows rows = d->shape;
    rows.k = d->memory.data + first * d->k_row;
    rows.v = d->memory.data + d->v_begin + first * d->v_row;
    return rows;
}

/* Calls with the bytes of positions begin … end - 1, head by head, until one fails. */
typedef cca_status (*bytes_fn)(cca_file_memory *m, size_t at, size_t n, cca_error *err);

static cca_status each_head(cca_disk_rows *d, int64_t begin, int64_t end, bytes_fn fn,
                            cca_error *err) {
    cca_status status = CCA_OK;
    for (int64_t i = 0; i < d->n_layers * d->shape.heads && begin < end && !status; i++) {
        size_t row = (size_t)(i * d->shape.capacity + begin), n = (size_t)(end - begin);
        status = fn(&d->memory, row * d->k_row, n * d->k_row, err);
        if (!status) status = fn(&d->memory, d->v_begin + row * d->v_row, n * d->v_row, err);
    }
    return status;
}

static bool take(cca_disk_rows *d, int64_t begin, int64_t end) {
    cca_error why;
    cca_status status = each_head(d, begin, end, cca_file_memory_take, &why);
    if (status) cca_backend_fail(d->backend, status, "rows on disk: %s", why.text);
    return !status;
}

static cca_status give(cca_file_memory *m, size_t at, size_t n, cca_error *err) {
    (void)err;
    cca_file_memory_give(m, at, n);
    return CCA_OK;
}

/* ---- pieces ---------------------------------------------------------------------------- */

cca_pieces cca_disk_rows_pieces(const cca_disk_rows *d, int64_t layer) {
    if (d->lent == 0) return (cca_pieces){0};
    return (cca_pieces){d->pieces + layer, d->n_pieces, d->n_layers, d->lent};
}

int64_t cca_disk_rows_lent(const cca_disk_rows *d) {
    return d->lent;
}

/* Forgets what pieces have from pos on. */
static void cut(cca_disk_rows *d, int64_t pos) {
    d->lent = cca_min(d->lent, pos);
    while (d->n_pieces > 0 && d->pieces[(d->n_pieces - 1) * d->n_layers].base >= d->lent) {
        d->n_pieces--;
    }
    while (d->n_views > 0 && d->views[d->n_views - 1].begin >= d->lent) {
        cca_store_view_close(&d->views[--d->n_views].of);
    }
}

void cca_disk_rows_recall(cca_disk_rows *d) {
    cut(d, 0);
    d->at = -1;
}

/* Copies positions to out, which has room for them. */
static void copy(const cca_disk_rows *d, cca_rows *out, int64_t layer, int64_t pos, int64_t end) {
    cca_pieces pieces = cca_disk_rows_pieces(d, layer);
    cca_rows others = cca_disk_rows_layer(d, layer);
    for (int64_t next; pos < end; pos = next) {
        const cca_rows *from = cca_piece_of(&pieces, &others, pos);
        next =
            from == &others ? end : cca_min(cca_min(end, pieces.end), from->base + from->capacity);
        cca_rows_move(d->backend, out, from, pos, next - pos);
    }
}

void cca_disk_rows_get(const cca_disk_rows *d, int64_t layer, int64_t pos, int64_t n, void *k,
                       void *v) {
    cca_rows out = d->shape;
    out.k = k;
    out.v = v;
    out.capacity = n;
    out.base = pos;
    copy(d, &out, layer, pos, pos + n);
}

/* Rows that pieces have come into the file without a name. */
static bool bring(cca_disk_rows *d, int64_t begin, int64_t end) {
    if (begin >= end) return true;
    if (!take(d, begin, end)) return false;
    for (int64_t layer = 0; layer < d->n_layers; layer++) {
        cca_rows rows = cca_disk_rows_layer(d, layer);
        copy(d, &rows, layer, begin, end);
    }
    return true;
}

void cca_disk_rows_go(cca_disk_rows *d, int64_t pos, int64_t end, int64_t near, int64_t first) {
    /* A draft taken back: pieces have nothing behind it, and its rows have their space. */
    bool own = pos >= d->from && pos >= d->lent && pos <= d->at;
    if (!own) {
        int64_t lent = cca_min(d->lent, pos), back = cca_max(pos - near, 0);
        if (!bring(d, 0, cca_min(first, lent)) || !bring(d, back, lent)) return;
        cut(d, pos);
        d->given = cca_min(d->given, back);
        d->taken = cca_min(d->taken, pos);
    }
    d->from = pos;
    d->at = end;
    if (end <= d->taken) return;
    int64_t to = cca_min(d->shape.capacity, (end + STEP - 1) / STEP * STEP);
    if (take(d, cca_max(d->taken, pos), to)) d->taken = to;
}

bool cca_disk_rows_view(cca_disk_rows *d, const cca_store_view *of) {
    if (d->n_views == MOST_VIEWS) return false;
    d->views[d->n_views++] = (view){*of, d->lent};
    return true;
}

/* Whether numbers that rows are made of can be read at an address. */
static bool aligned(const void *data, size_t row_bytes) {
    return (uintptr_t)data % (row_bytes % 4 == 0 ? 4 : 2) == 0;
}

/* Room for one more piece. */
static bool grow(cca_disk_rows *d) {
    if (d->n_pieces < d->capacity) return true;
    int64_t capacity = cca_max(2 * d->capacity, 16);
    cca_rows *grown = realloc(d->pieces, (size_t)(capacity * d->n_layers) * sizeof *grown);
    if (!grown) return false;
    d->pieces = grown;
    d->capacity = capacity;
    return true;
}

bool cca_disk_rows_lend(cca_disk_rows *d, int64_t first, int64_t n, const void *data,
                        size_t layer_bytes) {
    size_t k_bytes = (size_t)(d->shape.heads * n) * d->k_row;
    bool fits = d->n_views > 0 && first == d->lent && n > 0;
    const char *k = data;
    for (int64_t i = 0; i < d->n_layers && fits; i++) {
        const char *layer = k + (size_t)i * layer_bytes;
        fits = aligned(layer, d->k_row) && aligned(layer + k_bytes, d->v_row);
    }
    if (!fits || !grow(d)) return false;
    for (int64_t i = 0; i < d->n_layers; i++) {
        cca_rows *piece = &d->pieces[d->n_pieces * d->n_layers + i];
        *piece = d->shape;
        piece->k = (void *)(k + (size_t)i * layer_bytes); /* read only */
        piece->v = (char *)piece->k + k_bytes;
        piece->capacity = n;
        piece->base = first;
    }
    d->n_pieces++;
    d->lent = first + n;
    return true;
}

void cca_disk_rows_give(cca_disk_rows *d, int64_t near, int64_t first) {
    int64_t begin = cca_max(d->given, first), end = d->lent - near;
    if (begin >= end) return;
    (void)each_head(d, begin, end, give, NULL);
    d->given = end;
}

/* ---- asking ahead ---------------------------------------------------------------------- */

static bool waited_lately(cca_disk_rows *d) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0 && usage.ru_majflt != d->waits) {
        d->waits = usage.ru_majflt;
        d->asks = LATELY;
    }
    return d->asks > 0 && d->asks-- > 0;
}

/* Asks for n rows of a head, wherever they lie. */
static void ask(const cca_disk_rows *d, int64_t layer, int64_t head, int64_t pos, int64_t n) {
    cca_pieces pieces = cca_disk_rows_pieces(d, layer);
    cca_rows others = cca_disk_rows_layer(d, layer);
    for (int64_t end = pos + n, some; pos < end; pos += some) {
        const cca_rows *from = cca_piece_of(&pieces, &others, pos);
        size_t row = (size_t)(head * from->capacity + cca_rows_at(from, pos));
        some = cca_min(end - pos, cca_rows_run(from, pos));
        if (pos < pieces.end) some = cca_min(some, pieces.end - pos);
        cca_mapping_want((char *)from->k + row * d->k_row, (size_t)some * d->k_row);
        cca_mapping_want((char *)from->v + row * d->v_row, (size_t)some * d->v_row);
    }
}

void cca_disk_rows_want(cca_disk_rows *d, int64_t layer, const cca_choice *choice,
                        int64_t n_tiles) {
    int64_t g = choice->group_size, n_groups = d->shape.capacity / g;
    if (!waited_lately(d)) return;
    for (int64_t head = 0; head < choice->heads; head++) {
        memset(d->wanted, 0, (size_t)n_groups * sizeof *d->wanted);
        for (int64_t i = head; i < n_tiles * choice->heads; i += choice->heads) {
            const int32_t *groups = choice->groups + i * choice->most;
            for (int32_t k = 0; k < choice->counts[i]; k++) d->wanted[groups[k]] = true;
        }
        for (int64_t first = 0, next; first < n_groups; first = next + 1) {
            next = first;
            while (next < n_groups && d->wanted[next]) next++;
            if (next > first) ask(d, layer, head, first * g, (next - first) * g);
        }
    }
}

void cca_disk_rows_forget(const cca_disk_rows *d) {
    cca_mapping_forget(d->memory.data, d->memory.size);
    for (const view *v = d->views; v < d->views + d->n_views; v++) {
        cca_mapping_forget(v->of.data, v->of.size);
    }
}
