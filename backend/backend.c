#include "backend/backend.h"

#include "base/stop_flag.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cca_backend_fail(cca_backend *b, cca_status status, const char *format, ...) {
    if (b->status) return;
    va_list args;
    va_start(args, format);
    vsnprintf(b->error.text, sizeof b->error.text, format, args);
    va_end(args);
    b->status = status;
}

void cca_backend_close(cca_backend *b) {
    if (b) b->ops->destroy(b);
}

const char *cca_backend_name(const cca_backend *b) {
    return b->ops->name;
}

int64_t cca_backend_chunk_size(const cca_backend *b) {
    return b->ops->chunk_size;
}

cca_status cca_backend_sync(cca_backend *b, cca_error *err) {
    cca_error device_error;
    cca_status status = b->ops->sync(b, &device_error);
    if (status) cca_backend_fail(b, status, "%s", device_error.text);
    return cca_backend_report(b, err);
}

cca_status cca_backend_report(cca_backend *b, cca_error *err) {
    if (!b->status) return CCA_OK;
    cca_status status = cca_fail(err, b->status, "%s", b->error.text);
    if (status == CCA_INTERRUPTED) b->status = CCA_OK;
    return status;
}

/* Whether an operation may run: nothing failed before, nobody asked to stop, shapes fit. */
static bool ready(cca_backend *b, const char *operation, bool shapes_fit) {
    if (b->status) return false;
    if (cca_stop_asked(b->stop)) {
        cca_backend_fail(b, CCA_INTERRUPTED, "interrupted");
    } else if (!shapes_fit) {
        cca_backend_fail(b, CCA_RUNTIME, "%s: the shapes of its operands do not fit", operation);
    }
    return !b->status;
}

bool cca_matrix_bytes(size_t *out, cca_dtype type, int64_t rows, int64_t cols) {
    size_t row_bytes;
    return rows >= 0 && cca_dtype_row_bytes(&row_bytes, type, cols) &&
           cca_mul(out, row_bytes, (size_t)rows);
}

size_t cca_backend_room(cca_backend *b) {
    return b->ops->room(b);
}

static cca_dtype kept_type(const cca_backend *b, cca_dtype type) {
    return b->ops->keeps ? b->ops->keeps(type) : type;
}

size_t cca_backend_beside(cca_backend *b, const cca_layer_sizes *sizes) {
    cca_layer_sizes kept = *sizes;
    kept.type = kept_type(b, sizes->type);
    return b->ops->beside ? b->ops->beside(b, &kept) : 0;
}

void *cca_backend_alloc(cca_backend *b, size_t bytes) {
    return !b->status ? b->ops->alloc(b, bytes) : NULL;
}

void cca_backend_release(cca_backend *b, void *data) {
    if (data) b->ops->release(b, data);
}

bool cca_backend_on_host(const cca_backend *b) {
    return !b->ops->alloc_host;
}

void *cca_backend_alloc_host(cca_backend *b, size_t bytes) {
    if (!b->ops->alloc_host) return cca_backend_alloc(b, bytes);
    return !b->status ? b->ops->alloc_host(b, bytes) : NULL;
}

void cca_backend_release_host(cca_backend *b, void *data) {
    if (!b->ops->release_host) {
        cca_backend_release(b, data);
    } else if (data) {
        b->ops->release_host(b, data);
    }
}

void cca_backend_upload(cca_backend *b, void *out, const void *host, size_t bytes) {
    if (ready(b, "upload", true)) b->ops->upload(b, out, host, bytes);
}

void cca_backend_download(cca_backend *b, void *host, const void *data, size_t bytes) {
    if (ready(b, "download", true)) b->ops->download(b, host, data, bytes);
}

void cca_matrix_alloc(cca_backend *b, cca_matrix *out, cca_dtype type, int64_t rows, int64_t cols) {
    size_t bytes = 0;
    *out = (cca_matrix){.type = type, .rows = rows, .cols = cols, .owned = true};
    if (!cca_matrix_bytes(&bytes, type, rows, cols)) {
        cca_backend_fail(b, CCA_NO_MEMORY, "no matrix of %lld × %lld %s values can exist",
                         (long long)rows, (long long)cols, cca_dtype_name(type));
        return;
    }
    out->data = cca_backend_alloc(b, bytes);
}

/* Rows of a type in that of `as`; the caller frees them. NULL makes the backend fail. */
static void *convert_rows(cca_backend *b, const cca_matrix *as, cca_dtype type, const void *host) {
    size_t bytes = 0;
    bool exists = cca_matrix_bytes(&bytes, as->type, as->rows, as->cols);
    void *out = exists ? malloc(bytes + 1) : NULL;
    if (out) {
        cca_dtype_convert(out, as->type, host, type, as->rows * as->cols);
    } else {
        cca_backend_fail(b, CCA_NO_MEMORY, "no memory to convert %s weights to %s",
                         cca_dtype_name(type), cca_dtype_name(as->type));
    }
    return out;
}

void cca_matrix_load(cca_backend *b, cca_matrix *out, cca_dtype type, int64_t rows, int64_t cols,
                     const void *host) {
    size_t bytes = 0;
    *out = (cca_matrix){.type = kept_type(b, type), .rows = rows, .cols = cols};
    bool fits = cca_matrix_bytes(&bytes, type, rows, cols) &&
                cca_matrix_bytes(&bytes, out->type, rows, cols);
    if (!ready(b, "load", fits)) return;
    void *converted = out->type != type ? convert_rows(b, out, type, host) : NULL;
    if (!b->status) {
        const void *from = converted ? converted : host;
        out->data = b->ops->load(b, out, from, bytes, &out->owned);
    }
    free(converted);
}

size_t cca_matrix_kept_bytes(const cca_backend *b, const cca_matrix *m) {
    size_t bytes = 0;
    if (b->ops->kept_bytes) return b->ops->kept_bytes(m);
    cca_matrix_bytes(&bytes, m->type, m->rows, m->cols);
    return bytes;
}

void cca_matrix_free(cca_backend *b, cca_matrix *m) {
    if (m->owned) cca_backend_release(b, m->data);
    m->data = NULL;
}

/* Activations of n tokens, width values each. */
static bool holds(const cca_matrix *m, int64_t n, int64_t width) {
    return m->type == CCA_F32 && n >= 0 && m->rows >= n && m->cols == width;
}

void cca_matrix_download(cca_backend *b, float *host, const cca_matrix *m, int64_t n) {
    if (ready(b, "download", holds(m, n, m->cols))) {
        b->ops->download(b, host, m->data, (size_t)n * (size_t)m->cols * sizeof *host);
    }
}

void cca_embed(cca_backend *b, cca_matrix *out, const cca_matrix *table, const int32_t *ids,
               float scale, int64_t n) {
    bool fit = holds(out, n, table->cols);
    for (int64_t i = 0; fit && i < n; i++) fit = ids[i] >= 0 && ids[i] < table->rows;
    if (ready(b, "embed", fit)) b->ops->embed(b, out, table, ids, scale, n);
}

static bool norm_fits(const cca_matrix *out, const cca_matrix *x, int64_t x_row,
                      const cca_matrix *weight, int64_t n) {
    return holds(out, n, x->cols) && x_row >= 0 && holds(x, x_row + n, x->cols) &&
           holds(weight, 1, x->cols);
}

void cca_rmsnorm(cca_backend *b, cca_matrix *out, const cca_matrix *x, int64_t x_row,
                 const cca_matrix *weight, float eps, int64_t n) {
    if (ready(b, "rmsnorm", norm_fits(out, x, x_row, weight, n))) {
        b->ops->rmsnorm(b, out, x, x_row, weight, eps, n);
    }
}

static bool products_fit(const cca_product *products, int n_products, const cca_matrix *x,
                         int64_t n) {
    bool fit = holds(x, n, x->cols);
    for (int i = 0; fit && i < n_products; i++) {
        const cca_product *p = &products[i];
        fit = holds(p->out, n, p->weight->rows) && p->weight->cols == x->cols &&
              (!p->bias || holds(p->bias, 1, p->out->cols));
    }
    return fit;
}

void cca_matmul(cca_backend *b, const cca_product *products, int n_products, const cca_matrix *x,
                int64_t n) {
    if (ready(b, "matmul", products_fit(products, n_products, x, n))) {
        b->ops->matmul(b, products, n_products, x, n);
    }
}

void cca_angles(cca_backend *b, cca_matrix *out, const cca_rope *rope, int64_t pos, int64_t n) {
    if (ready(b, "angles", holds(out, n, 2 * rope->half) && pos >= 0)) {
        b->ops->angles(b, out, rope, pos, n);
    }
}

static bool turns(const cca_matrix *x, const cca_matrix *angles, const cca_rope *rope, int64_t n) {
    return holds(angles, n, 2 * rope->half) && holds(x, n, x->cols) &&
           x->cols % (2 * rope->half) == 0;
}

void cca_rotate(cca_backend *b, cca_matrix *x, const cca_matrix *angles, const cca_rope *rope,
                int64_t n) {
    if (ready(b, "rotate", turns(x, angles, rope, n))) b->ops->rotate(b, x, angles, rope, n);
}

void cca_swiglu(cca_backend *b, cca_matrix *gate, const cca_matrix *up, int64_t n) {
    bool fit = holds(gate, n, up->cols) && holds(up, n, up->cols);
    if (ready(b, "swiglu", fit)) b->ops->swiglu(b, gate, up, n);
}

void cca_relu_squared(cca_backend *b, cca_matrix *x, int64_t n) {
    if (ready(b, "relu squared", holds(x, n, x->cols))) b->ops->relu_squared(b, x, n);
}

void cca_accumulate(cca_backend *b, cca_matrix *x, const cca_matrix *y, int64_t n) {
    bool fit = holds(x, n, y->cols) && holds(y, n, x->cols);
    if (ready(b, "accumulate", fit)) b->ops->accumulate(b, x, y, n);
}

void cca_norm_matmul(cca_backend *b, const cca_product *products, int n_products, cca_matrix *h,
                     const cca_matrix *x, int64_t x_row, const cca_matrix *weight, float eps,
                     int64_t n) {
    bool fit = norm_fits(h, x, x_row, weight, n) && products_fit(products, n_products, h, n);
    if (!ready(b, "norm and product", fit)) return;
    bool (*fused)(cca_backend *, const cca_product *, int, cca_matrix *, const cca_matrix *,
                  int64_t, const cca_matrix *, float, int64_t) = b->ops->norm_matmul;
    if (fused && fused(b, products, n_products, h, x, x_row, weight, eps, n)) return;
    cca_rmsnorm(b, h, x, x_row, weight, eps, n);
    cca_matmul(b, products, n_products, h, n);
}

/* Whether a weight takes rows like x to rows like out. */
static bool leads(const cca_matrix *weight, const cca_matrix *x, const cca_matrix *out) {
    return weight->cols == x->cols && weight->rows == out->cols;
}

static bool ffn_fits(const cca_matrix *x, const cca_ffn *f, int64_t n) {
    bool norms = f->norm ? norm_fits(f->h, x, 0, f->norm, n) : holds(f->h, n, x->cols);
    return norms && holds(f->gated, n, f->upped->cols) && holds(f->upped, n, f->gated->cols) &&
           (!f->gate || leads(f->gate, f->h, f->gated)) && leads(f->up, f->h, f->upped) &&
           leads(f->down, f->gated, x);
}

void cca_feed_forward(cca_backend *b, cca_matrix *x, const cca_ffn *f, int64_t n) {
    const bool plain = f->norm && f->gate && !f->behind;
    if (!ready(b, "feed forward", ffn_fits(x, f, n))) return;
    if (plain && b->ops->feed_forward && b->ops->feed_forward(b, x, f, n)) return;
    const cca_product up_gate[] = {{.out = f->upped, .weight = f->up},
                                   {.out = f->gated, .weight = f->gate}};
    const cca_product down = {
        .out = f->behind ? f->h : x, .weight = f->down, .accumulate = !f->behind};
    const int n_products = f->gate ? 2 : 1;
    if (f->norm) {
        cca_norm_matmul(b, up_gate, n_products, f->h, x, 0, f->norm, f->eps, n);
    } else {
        cca_matmul(b, up_gate, n_products, x, n);
    }
    if (f->gate) {
        cca_swiglu(b, f->gated, f->upped, n);
    } else {
        cca_relu_squared(b, f->upped, n);
    }
    cca_matmul(b, &down, 1, f->gate ? f->gated : f->upped, n);
    if (f->behind) cca_add_normed(b, x, f->h, f->behind, f->eps, n);
}

void cca_add_normed(cca_backend *b, cca_matrix *x, cca_matrix *h, const cca_matrix *weight,
                    float eps, int64_t n) {
    cca_rmsnorm(b, h, h, 0, weight, eps, n);
    cca_accumulate(b, x, h, n);
}

static bool rows_take(const cca_rows *rows, const cca_matrix *k, const cca_matrix *v, int64_t pos,
                      int64_t n) {
    int64_t width = rows->heads * rows->head_dim;
    return holds(k, n, width) && holds(v, n, width) && n <= rows->capacity && pos >= rows->base;
}

void cca_rows_store(cca_backend *b, cca_rows *rows, const cca_matrix *k, const cca_matrix *v,
                    int64_t pos, int64_t n) {
    if (ready(b, "store", rows_take(rows, k, v, pos, n))) b->ops->store(b, rows, k, v, pos, n);
}

void cca_rotate_store(cca_backend *b, cca_rows *rows, cca_matrix *q, cca_matrix *k,
                      const cca_matrix *v, const cca_turn *turn, int64_t pos, int64_t n) {
    bool fit = turns(q, turn->angles, turn->rope, n) && turns(k, turn->angles, turn->rope, n) &&
               2 * turn->rope->half == rows->head_dim && rows_take(rows, k, v, pos, n);
    if (!ready(b, "rotate and store", fit)) return;
    if (b->ops->rotate_store && b->ops->rotate_store(b, rows, q, k, v, turn, pos, n)) return;
    cca_rotate(b, q, turn->angles, turn->rope, n);
    cca_rotate(b, k, turn->angles, turn->rope, n);
    cca_rows_store(b, rows, k, v, pos, n);
}

void cca_rows_move(cca_backend *b, cca_rows *out, const cca_rows *in, int64_t pos, int64_t n) {
    bool fit = out->heads == in->heads && out->head_dim == in->head_dim && n <= out->capacity &&
               n <= in->capacity && pos >= out->base && pos >= in->base;
    if (ready(b, "move", fit)) b->ops->move(b, out, in, pos, n);
}

/* Room in the backend's memory for n rows like others, without gaps. */
static bool staging(cca_backend *b, cca_rows *out, size_t *k_bytes, size_t *v_bytes,
                    const cca_rows *like, int64_t pos, int64_t n) {
    int64_t rows = like->heads * n;
    *out = *like;
    out->capacity = n;
    out->base = pos;
    out->k = out->v = NULL;
    if (!cca_matrix_bytes(k_bytes, like->k_type, rows, like->head_dim) ||
        !cca_matrix_bytes(v_bytes, like->v_type, rows, like->head_dim)) {
        cca_backend_fail(b, CCA_NO_MEMORY, "copy: too many rows");
        return false;
    }
    out->k = cca_backend_alloc(b, *k_bytes);
    out->v = cca_backend_alloc(b, *v_bytes);
    return out->k && out->v;
}

void cca_rows_get(cca_backend *b, void *k, void *v, const cca_rows *rows, int64_t pos, int64_t n) {
    cca_rows copy;
    size_t k_bytes, v_bytes;
    if (n <= 0) return;
    if (staging(b, &copy, &k_bytes, &v_bytes, rows, pos, n)) {
        cca_rows_move(b, &copy, rows, pos, n);
        cca_backend_download(b, k, copy.k, k_bytes);
        cca_backend_download(b, v, copy.v, v_bytes);
    }
    cca_backend_release(b, copy.k);
    cca_backend_release(b, copy.v);
}

void cca_rows_put(cca_backend *b, cca_rows *rows, const void *k, const void *v, int64_t pos,
                  int64_t n) {
    cca_rows copy;
    size_t k_bytes, v_bytes;
    if (n <= 0) return;
    if (staging(b, &copy, &k_bytes, &v_bytes, rows, pos, n)) {
        cca_backend_upload(b, copy.k, k, k_bytes);
        cca_backend_upload(b, copy.v, v, v_bytes);
        cca_rows_move(b, rows, &copy, pos, n);
    }
    cca_backend_release(b, copy.k);
    cca_backend_release(b, copy.v);
}

/* Copies rows of each head between rows in host memory and memory without gaps. */
static void copy_heads(char *dense, char *rows, cca_dtype type, const cca_rows *of, int64_t pos,
                       int64_t n, bool to_rows) {
    size_t row = 0;
    cca_dtype_row_bytes(&row, type, of->head_dim);
    for (int64_t head = 0; head < of->heads; head++) {
        char *here = dense + (size_t)(head * n) * row;
        char *there = rows + (size_t)(head * of->capacity + cca_rows_at(of, pos)) * row;
        memcpy(to_rows ? there : here, to_rows ? here : there, (size_t)n * row);
    }
}

/* Whether rows of the host can be copied: they do not wrap, and nobody is at them any more. */
static bool host_settled(cca_backend *b, const cca_rows *rows, int64_t pos, int64_t n) {
    cca_error err;
    bool fit = pos >= rows->base && cca_rows_run(rows, pos) >= n;
    if (n <= 0 || !ready(b, "copy", fit)) return false;
    cca_status status = b->ops->sync(b, &err);
    if (status) cca_backend_fail(b, status, "%s", err.text);
    return !status;
}

void cca_rows_get_host(cca_backend *b, void *k, void *v, const cca_rows *rows, int64_t pos,
                       int64_t n) {
    if (!host_settled(b, rows, pos, n)) return;
    copy_heads(k, rows->k, rows->k_type, rows, pos, n, false);
    copy_heads(v, rows->v, rows->v_type, rows, pos, n, false);
}

void cca_rows_put_host(cca_backend *b, cca_rows *rows, const void *k, const void *v, int64_t pos,
                       int64_t n) {
    if (!host_settled(b, rows, pos, n)) return;
    copy_heads((char *)k, rows->k, rows->k_type, rows, pos, n, true);
    copy_heads((char *)v, rows->v, rows->v_type, rows, pos, n, true);
}

/* Whether rows of the same types have these positions in one piece. */
static bool alike_at(const cca_rows *a, const cca_rows *b, int64_t pos, int64_t n) {
    return a->heads == b->heads && a->head_dim == b->head_dim && a->k_type == b->k_type &&
           a->v_type == b->v_type && n >= 0 && pos >= a->base && pos >= b->base &&
           (n == 0 || (cca_rows_run(a, pos) >= n && cca_rows_run(b, pos) >= n));
}

void cca_rows_bring(cca_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos,
                    int64_t n) {
    cca_rows to = *out;
    if (!ready(b, "bring", alike_at(out, in, pos, n)) || n == 0) return;
    if (b->ops->bring) {
        b->ops->bring(b, out, in, pos, n);
    } else {
        b->ops->move(b, &to, in, pos, n);
    }
}

void cca_rows_brought(cca_backend *b) {
    if (b->ops->brought && ready(b, "bring", true)) b->ops->brought(b);
}

void cca_rows_send(cca_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos,
                   int64_t n) {
    cca_rows to = *out;
    if (!ready(b, "send", alike_at(out, in, pos, n)) || n == 0) return;
    if (b->ops->send) {
        b->ops->send(b, out, in, pos, n);
    } else {
        b->ops->move(b, &to, in, pos, n);
    }
}

void cca_rows_gather(cca_backend *b, const cca_rows *out, const cca_rows *in,
                     const cca_choice *choice, int64_t n_tiles) {
    bool fit = out->heads == in->heads && out->head_dim == in->head_dim && in->base == 0 &&
               choice->heads == in->heads && in->capacity % choice->group_size == 0 &&
               out->capacity % choice->group_size == 0 &&
               n_tiles * choice->most * choice->group_size <= out->capacity;
    if (ready(b, "gather", fit) && n_tiles > 0) b->ops->gather(b, out, in, choice, n_tiles);
}

void cca_rows_renew(cca_backend *b, const cca_kept *kept, const cca_rows *in,
                    const cca_choice *choice, int64_t n_known) {
    const cca_rows *rows = &kept->rows;
    bool fit = rows->heads == in->heads && rows->head_dim == in->head_dim && in->base == 0 &&
               choice->heads == in->heads && in->capacity % choice->group_size == 0 &&
               rows->capacity == choice->most * choice->group_size && choice->most <= CCA_MOST_KEPT;
    if (ready(b, "renew", fit)) b->ops->renew(b, kept, in, choice, n_known);
}

void cca_pool(cca_backend *b, const cca_groups *groups, const cca_matrix *q, int64_t pos,
              int64_t n) {
    int64_t first, count = cca_groups_completed(groups->size, pos, n, &first);
    const cca_rows *raw = &groups->raw, *cores = &groups->cores;
    bool fit = holds(q, n, cores->heads * cores->head_dim) && raw->head_dim == cores->head_dim &&
               cores->heads % raw->heads == 0 && (count == 0 || first + count <= cores->capacity);
    if (ready(b, "pool", fit) && count > 0) b->ops->pool(b, groups, q, pos, n);
}

void cca_bound(cca_backend *b, const cca_groups *groups, int64_t pos, int64_t n) {
    int64_t first, count = cca_groups_completed(groups->size, pos, n, &first);
    const cca_rows *raw = &groups->raw, *bounds = &groups->cores;
    bool fit = bounds->heads == raw->heads && raw->head_dim == bounds->head_dim &&
               bounds->k_type == bounds->v_type && cca_dtype_block(bounds->k_type) == 1 &&
               (count == 0 || first + count <= bounds->capacity);
    if (ready(b, "bound", fit) && count > 0) b->ops->bound(b, groups, pos, n);
}

void cca_choose(cca_backend *b, const cca_choice *out, const cca_rows *bounds,
                const cca_rows *blocks, const cca_range *groups, const cca_matrix *q, int64_t pos,
                int64_t n) {
    bool fit = n > 0 && holds(q, n, q->cols) && q->cols % bounds->head_dim == 0 &&
               (q->cols / bounds->head_dim) % bounds->heads == 0 && out->heads == bounds->heads &&
               out->tile > 0 && cca_edge_at(&groups->end, pos + n - 1) <= bounds->capacity &&
               (!blocks || blocks->capacity >= bounds->capacity / CCA_BLOCK);
    if (ready(b, "choose", fit)) b->ops->choose(b, out, bounds, blocks, groups, q, pos, n);
}

/* Whether queries of positions first … last, width values each, can look at the spans. */
static bool spans_fit(const cca_spans *spans, int64_t width, int64_t first, int64_t last) {
    const cca_rows *like = &spans->at[0].rows;
    bool fit = spans->n >= 1 && spans->n <= CCA_MOST_SPANS;
    for (int i = 0; fit && i < spans->n; i++) {
        const cca_rows *rows = &spans->at[i].rows;
        cca_tile seen = cca_range_tile(&spans->at[i].seen, first, last);
        bool alike = rows->k_type == like->k_type && rows->v_type == like->v_type;
        fit = rows->head_dim == like->head_dim && (alike || spans->at[i].pick == CCA_PICK_CHOSEN) &&
              width % rows->head_dim == 0 &&
              (seen.end <= seen.begin ||
               (seen.begin >= rows->base && seen.end - seen.begin <= rows->capacity &&
                (width / rows->head_dim) % rows->heads == 0));
    }
    return fit;
}

void cca_attend(cca_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                int64_t pos, int64_t n) {
    bool fit = holds(out, n, q->cols) && holds(q, n, q->cols) &&
               (n == 0 || spans_fit(spans, q->cols, pos, pos + n - 1));
    if (ready(b, "attend", fit) && n > 0) b->ops->attend(b, out, spans, q, pos, n);
}

bool cca_backend_attends_some(const cca_backend *b) {
    return b->ops->attend_some != NULL;
}

void cca_attend_some(cca_backend *b, cca_matrix *out, cca_matrix *sums, const cca_spans *spans,
                     const cca_matrix *q, int64_t pos, int64_t n) {
    bool fit = holds(out, n, q->cols) && holds(q, n, q->cols) &&
               (n == 0 || spans_fit(spans, q->cols, pos, pos + n - 1));
    fit = fit && holds(sums, n, 2 * (q->cols / spans->at[0].rows.head_dim));
    for (int i = 0; fit && i < spans->n; i++) fit = spans->at[i].pick == CCA_PICK_ALL;
    if (!cca_backend_attends_some(b)) {
        cca_backend_fail(b, CCA_USAGE, "device %s attends to all keys or to none", b->ops->name);
    } else if (ready(b, "attend_some", fit) && n > 0) {
        b->ops->attend_some(b, out, sums, spans, q, pos, n);
    }
}

void cca_attend_mass(cca_backend *b, const cca_mass *mass, const cca_spans *spans,
                     const cca_matrix *q, int64_t row, int64_t pos) {
    int64_t own = pos + row;
    bool fit = row >= 0 && holds(q, row + 1, q->cols) && spans_fit(spans, q->cols, own, own) &&
               own / mass->unit + mass->n_cuts < mass->n_slots;
    for (int i = 0; fit && i < spans->n; i++) {
        bool seen = cca_range_count(&spans->at[i].seen, own) > 0;
        fit = !seen || mass->unit % spans->at[i].stride == 0;
    }
    if (ready(b, "attend_mass", fit)) b->ops->mass(b, mass, spans, q, row, pos);
}
