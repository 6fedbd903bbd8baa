/* The operations on the CPU: work is cut into pieces whose results do not depend on the number
 * of threads, and each piece is a kernel call. */
#include "backend/cpu/cpu.h"

#include "backend/cpu/kernels.h"
#include "base/processors.h"
#include "base/stop_flag.h"
#include "base/workers.h"

#include <stdatomic.h>
#include <stdlib.h>

enum {
    DEPTH = CCA_CPU_DEPTH,
    TOKENS = 96, /* tokens taken at a time: they stay in the L2 cache, too */
    ALIGNMENT = CCA_CPU_ALIGNMENT,
    FEW = 6,              /* tokens below which packing weights into a panel does not pay */
    PIECE_WORK = 1 << 13, /* least operations worth handing to another thread */
};

typedef struct cpu_backend {
    cca_backend base;
    const cca_kernels *kernels;
    cca_workers *workers;
    char *scratch; /* n_threads times scratch_bytes */
    size_t scratch_bytes;
    void *x; /* activations in the form that products want */
    size_t x_bytes;
    atomic_bool skipped; /* a piece of an operation, since the stop flag was set */
} cpu_backend;

static cpu_backend *cpu_of(cca_backend *b) {
    return (cpu_backend *)b;
}

/* Whether a piece is to be left out. The flag may be gone when the operation is over, and no other
 * may follow that would see it. */
static bool stopped(cpu_backend *b) {
    if (!cca_stop_asked(b->base.stop)) return false;
    atomic_store(&b->skipped, true);
    return true;
}

/* Runs the pieces of an operation; one that lacks some is a failure. */
static void run_pieces(cpu_backend *b, int64_t n_pieces, cca_piece_fn fn, void *context) {
    cca_workers_run(b->workers, n_pieces, fn, context);
    if (!atomic_load(&b->skipped)) return;
    atomic_store(&b->skipped, false);
    cca_backend_fail(&b->base, CCA_INTERRUPTED, "interrupted");
}

/* Memory that is promised may not be there, and more than is free may be had. */
static size_t cpu_room(cca_backend *b) {
    (void)b;
    return SIZE_MAX;
}

static size_t cpu_beside(cca_backend *b, const cca_layer_sizes *sizes) {
    return cca_cpu_kept(cpu_of(b)->kernels, cca_workers_count(cpu_of(b)->workers), sizes);
}

/* calloc leaves large blocks unmapped until they are touched, so a cache costs memory as it
 * fills. The original address is kept in front of the aligned one. */
static void *cpu_alloc(cca_backend *b, size_t bytes) {
    size_t padded;
    char *raw = cca_add(&padded, bytes, 2 * ALIGNMENT) ? calloc(1, padded) : NULL;
    if (!raw) {
        cca_backend_fail(b, CCA_NO_MEMORY, "no memory for %zu bytes", bytes);
        return NULL;
    }
    char *aligned = raw + ALIGNMENT + (ALIGNMENT - (uintptr_t)raw % ALIGNMENT) % ALIGNMENT;
    memcpy(aligned - sizeof raw, &raw, sizeof raw);
    return aligned;
}

static void cpu_release(cca_backend *b, void *data) {
    (void)b;
    char *raw;
    memcpy(&raw, (char *)data - sizeof raw, sizeof raw);
    free(raw);
}

static void cpu_destroy(cca_backend *b) {
    cca_backend_release(b, cpu_of(b)->scratch);
    cca_backend_release(b, cpu_of(b)->x);
    cca_workers_free(cpu_of(b)->workers);
    free(b);
}

/* Memory that grows at a new shape only, so that decode allocates nothing. */
static bool grow(cpu_backend *b, void *memory, size_t *size, size_t bytes) {
    void **at = memory;
    if (bytes <= *size) return true;
    cca_backend_release(&b->base, *at);
    *size = 0;
    *at = cca_backend_alloc(&b->base, bytes);
    if (*at) *size = bytes;
    return *at != NULL;
}

/* Scratch memory of each thread. */
static bool reserve(cpu_backend *b, size_t bytes) {
    size_t each = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t n = (size_t)cca_workers_count(b->workers), size = b->scratch_bytes * n;
    if (each <= b->scratch_bytes) return true;
    b->scratch_bytes = 0;
    if (!grow(b, &b->scratch, &size, each * n)) return false;
    b->scratch_bytes = each;
    return true;
}

static void *scratch_of(const cpu_backend *b, int thread) {
    return b->scratch + (size_t)thread * b->scratch_bytes;
}

static void *cpu_load(cca_backend *b, const cca_matrix *shape, const void *host, size_t bytes,
                      bool *owned) {
    (void)b;
    (void)shape;
    (void)bytes;
    *owned = false;
    return (void *)host;
}

static void cpu_upload(cca_backend *b, void *out, const void *host, size_t bytes) {
    (void)b;
    memcpy(out, host, bytes);
}

static void cpu_download(cca_backend *b, void *host, const void *data, size_t bytes) {
    (void)b;
    memcpy(host, data, bytes);
}

static cca_status cpu_sync(cca_backend *b, cca_error *err) {
    (void)b;
    (void)err;
    return CCA_OK;
}

static float *row_of(const cca_matrix *m, int64_t row) {
    return (float *)m->data + row * m->cols;
}

static const char *weight_at(const cca_matrix *w, int64_t row, int64_t col) {
    size_t row_bytes = 0, col_bytes = 0;
    cca_dtype_row_bytes(&row_bytes, w->type, w->cols);
    cca_dtype_row_bytes(&col_bytes, w->type, col);
    return (const char *)w->data + (size_t)row * row_bytes + col_bytes;
}

/* ---- operations on each row ---------------------------------------------------------- */

/* The operands of an operation that treats each row (a token, a head) alike; each uses some. */
typedef struct row_work {
    cpu_backend *b;
    void (*row)(const struct row_work *j, int64_t i);
    int64_t n, rows_a_piece;
    cca_matrix *out;
    const cca_matrix *x, *y;
    const int32_t *ids;
    const cca_rope *rope;
    cca_rows *rows;
    const cca_rows *from;
    int64_t pos, first;
    float eps, scale;
    char *form;
    size_t stride;
    const cca_products *products;
} row_work;

static void run_piece(void *context, int64_t piece, int thread) {
    const row_work *j = context;
    int64_t first = piece * j->rows_a_piece;
    (void)thread;
    for (int64_t i = first; i < cca_min(first + j->rows_a_piece, j->n); i++) j->row(j, i);
}

/* Calls j.row for rows 0 … n - 1, each of which takes about work operations. */
static void run_rows(cca_backend *b, row_work j, int64_t n, int64_t work) {
    j.b = cpu_of(b);
    j.n = n;
    j.rows_a_piece = PIECE_WORK / cca_max(work, 1) + 1;
    int64_t n_pieces = (n + j.rows_a_piece - 1) / j.rows_a_piece;
    run_pieces(j.b, n_pieces, run_piece, &j);
}

static void embed_row(const row_work *j, int64_t i) {
    float *out = row_of(j->out, i);
    j->b->kernels->decode(out, j->x->type, weight_at(j->x, j->ids[i], 0), j->x->cols);
    for (int64_t k = 0; j->scale != 1 && k < j->x->cols; k++) out[k] *= j->scale;
}

static void cpu_embed(cca_backend *b, cca_matrix *out, const cca_matrix *table, const int32_t *ids,
                      float scale, int64_t n) {
    row_work j = {.row = embed_row, .out = out, .x = table, .ids = ids, .scale = scale};
    run_rows(b, j, n, out->cols);
}

static void rmsnorm_row(const row_work *j, int64_t i) {
    j->b->kernels->rmsnorm(row_of(j->out, i), row_of(j->x, j->first + i), j->y->data, j->eps,
                           j->x->cols);
}

static void cpu_rmsnorm(cca_backend *b, cca_matrix *out, const cca_matrix *x, int64_t x_row,
                        const cca_matrix *weight, float eps, int64_t n) {
    row_work j = {.row = rmsnorm_row, .out = out, .x = x, .y = weight, .first = x_row, .eps = eps};
    run_rows(b, j, n, x->cols);
}

static void angles_row(const row_work *j, int64_t i) {
    const cca_rope *rope = j->rope;
    float *row = row_of(j->out, i);
    for (int64_t k = 0; k < rope->half; k++) {
        const double angle = (double)(j->pos + i) * rope->inv_freq[k];
        const double scale = rope->inv_freq[k] == 0 ? rope->still : rope->scale;
        row[2 * k] = (float)(cos(angle) * scale);
        row[2 * k + 1] = (float)(sin(angle) * scale);
    }
}

static void cpu_angles(cca_backend *b, cca_matrix *out, const cca_rope *rope, int64_t pos,
                       int64_t n) {
    row_work j = {.row = angles_row, .out = out, .rope = rope, .pos = pos};
    run_rows(b, j, n, rope->half * 64);
}

static void rotate_row(const row_work *j, int64_t i) {
    int64_t half = j->rope->half;
    cca_rotate_row(row_of(j->out, i), row_of(j->x, i), j->out->cols / (2 * half), half,
                   j->rope->interleaved);
}

static void cpu_rotate(cca_backend *b, cca_matrix *x, const cca_matrix *angles,
                       const cca_rope *rope, int64_t n) {
    row_work j = {.row = rotate_row, .out = x, .x = angles, .rope = rope};
    run_rows(b, j, n, x->cols);
}

static void swiglu_row(const row_work *j, int64_t i) {
    j->b->kernels->swiglu(row_of(j->out, i), row_of(j->x, i), j->x->cols);
}

static void relu_squared_row(const row_work *j, int64_t i) {
    float *x = row_of(j->out, i);
    for (int64_t k = 0; k < j->out->cols; k++) x[k] = x[k] > 0 ? x[k] * x[k] : x[k] * 0;
}

static void cpu_relu_squared(cca_backend *b, cca_matrix *x, int64_t n) {
    run_rows(b, (row_work){.row = relu_squared_row, .out = x}, n, x->cols);
}

static void accumulate_row(const row_work *j, int64_t i) {
    float *x = row_of(j->out, i);
    const float *y = row_of(j->x, i);
    for (int64_t k = 0; k < j->out->cols; k++) x[k] += y[k];
}

static void cpu_accumulate(cca_backend *b, cca_matrix *x, const cca_matrix *y, int64_t n) {
    run_rows(b, (row_work){.row = accumulate_row, .out = x, .x = y}, n, x->cols);
}

static void cpu_swiglu(cca_backend *b, cca_matrix *gate, const cca_matrix *up, int64_t n) {
    run_rows(b, (row_work){.row = swiglu_row, .out = gate, .x = up}, n, up->cols * 4);
}

static void store_row(const row_work *j, int64_t i) {
    const cca_rows *r = j->rows;
    int64_t row = cca_rows_at(r, j->pos + i), hd = r->head_dim;
    for (int64_t h = 0; h < r->heads; h++) {
        void *k = (void *)cca_row_at(r->k, r->k_type, r, h, row);
        void *v = (void *)cca_row_at(r->v, r->v_type, r, h, row);
        j->b->kernels->encode(k, r->k_type, row_of(j->x, i) + h * hd, hd);
        j->b->kernels->encode(v, r->v_type, row_of(j->y, i) + h * hd, hd);
    }
}

static void cpu_store(cca_backend *b, cca_rows *rows, const cca_matrix *k, const cca_matrix *v,
                      int64_t pos, int64_t n) {
    row_work j = {.row = store_row, .rows = rows, .x = k, .y = v, .pos = pos};
    run_rows(b, j, n, k->cols * 2);
}

/* Keys or values of a cca_rows. */
typedef struct one_side {
    const void *data;
    cca_dtype type;
    const cca_rows *rows;
} one_side;

static void *side_at(const one_side *s, int64_t head, int64_t pos) {
    return (void *)cca_row_at(s->data, s->type, s->rows, head, cca_rows_at(s->rows, pos));
}

static void copy_rows(const one_side *out, const one_side *in, int64_t pos, int64_t n,
                      int64_t head) {
    size_t width = 0;
    cca_dtype_row_bytes(&width, out->type, out->rows->head_dim);
    for (int64_t end = pos + n, run; pos < end; pos += run) {
        run =
            cca_min(cca_min(end - pos, cca_rows_run(out->rows, pos)), cca_rows_run(in->rows, pos));
        memcpy(side_at(out, head, pos), side_at(in, head, pos), (size_t)run * width);
    }
}

/* In pieces of a block, so that rows of any width need no memory. */
static void convert_rows(const cca_kernels *k, const one_side *out, const one_side *in, int64_t pos,
                         int64_t n, int64_t head) {
    float x[CCA_QUANT_BLOCK];
    int64_t hd = out->rows->head_dim;
    for (int64_t i = 0, some; i < n; i++) {
        char *to = side_at(out, head, pos + i);
        const char *from = side_at(in, head, pos + i);
        for (int64_t d = 0; d < hd; d += some) {
            size_t to_bytes = 0, from_bytes = 0;
            some = cca_min(hd - d, CCA_QUANT_BLOCK);
            cca_dtype_row_bytes(&to_bytes, out->type, some);
            cca_dtype_row_bytes(&from_bytes, in->type, some);
            k->decode(x, in->type, from, some);
            k->encode(to, out->type, x, some);
            to += to_bytes;
            from += from_bytes;
        }
    }
}

static void move_side(const row_work *j, one_side out, one_side in, int64_t head) {
    if (out.type == in.type) {
        copy_rows(&out, &in, j->pos, j->first, head);
    } else {
        convert_rows(j->b->kernels, &out, &in, j->pos, j->first, head);
    }
}

static void move_head(const row_work *j, int64_t h) {
    const cca_rows *out = j->rows, *in = j->from;
    move_side(j, (one_side){out->k, out->k_type, out}, (one_side){in->k, in->k_type, in}, h);
    move_side(j, (one_side){out->v, out->v_type, out}, (one_side){in->v, in->v_type, in}, h);
}

static void cpu_move(cca_backend *b, cca_rows *out, const cca_rows *in, int64_t pos, int64_t n) {
    row_work j = {.row = move_head, .rows = out, .from = in, .pos = pos, .first = n};
    run_rows(b, j, out->heads, n * out->head_dim);
}

/* ---- products ------------------------------------------------------------------------ *
 *
 * A panel is CCA_PANEL rows of one weight. The panels of all products of a call are one list of
 * pieces, which threads take from; a piece belongs to one product, and nobody else writes its
 * columns of the output:
 *
 *     Wq            Wk      Wv         products of the same x
 *     [0][1][2][3]  [4][5]  [6][7]     pieces, in the order of the list
 *
 * Within a piece, DEPTH columns of the panel are packed at a time, stay in the L2 cache, and meet
 * TOKENS rows of x after another:
 *
 *                  DEPTH columns               panel, packed
 *     x (tokens)  +-------+-------+---      +-------+-------+---
 *      TOKENS     |   i   |       |      ·  |   c   | c + 1 |    CCA_PANEL rows of W
 *      TOKENS     | i + 1 |       |         +-------+-------+---
 *
 *     for c: pack panel c; for i: out[i] += x[i, c] · panel[c]ᵀ
 *
 * With fewer tokens than FEW nothing is packed: rows of W are read once, where they lie. */

/* How n rows of x are multiplied with weights of a type. */
static const cca_products *products_of(const cpu_backend *b, cca_dtype type, int64_t n) {
    return n < FEW ? b->kernels->few(type) : b->kernels->products(type);
}

/* Bytes of n values of x in the form that products with a type want. */
static size_t x_size(const cca_products *k, cca_dtype type, int64_t n) {
    size_t bytes = k->x_bytes(type, n);
    return bytes ? bytes : (size_t)n * sizeof(float);
}

/* Rows of x in the form that a weight's type wants. */
typedef struct cpu_x {
    const char *rows;
    size_t stride; /* bytes from row to row */
    int64_t n;     /* tokens */
} cpu_x;

/* The product of weight rows row … row + n_rows - 1 with all tokens, added where `add`. */
static void multiply_piece(const cpu_backend *b, const cca_product *p, cpu_x x, int64_t row,
                           int64_t n_rows, bool add, void *panel) {
    const cca_matrix *w = p->weight;
    const cca_products *k = products_of(b, w->type, x.n);
    float *out = (float *)p->out->data + row;
    int64_t ld = p->out->cols;
    size_t stride = 0;
    cca_dtype_row_bytes(&stride, w->type, w->cols);
    if (x.n < FEW) {
        k->dot(out, ld, x.rows, x.stride, x.n, w->type, weight_at(w, row, 0), stride, n_rows,
               w->cols);
        return;
    }
    for (int64_t c = 0; c < w->cols; c += DEPTH) {
        int64_t depth = cca_min(DEPTH, w->cols - c);
        size_t skip = x_size(k, w->type, c);
        k->pack(panel, w->type, weight_at(w, row, c), stride, n_rows, depth);
        for (int64_t i = 0; i < x.n; i += TOKENS) {
            k->multiply(out + i * ld, ld, x.rows + (size_t)i * x.stride + skip, x.stride,
                        cca_min(TOKENS, x.n - i), w->type, panel, n_rows, depth, add || c > 0);
        }
    }
}

/* What a product starts from: nothing, a bias, or what the output holds. */
static void begin_piece(const cca_product *p, int64_t n, int64_t row, int64_t n_rows) {
    for (int64_t i = 0; i < n; i++) {
        float *out = row_of(p->out, i) + row;
        if (!p->accumulate) memset(out, 0, (size_t)n_rows * sizeof *out);
        const float *bias = p->bias ? (const float *)p->bias->data + row : NULL;
        for (int64_t r = 0; bias && r < n_rows; r++) out[r] += bias[r];
    }
}

static int64_t panels_of(const cca_product *p) {
    return (p->weight->rows + CCA_PANEL - 1) / CCA_PANEL;
}

/* Products whose weights have one type, so that one form of x serves all. */
typedef struct product_job {
    cpu_backend *b;
    const cca_product *products;
    cpu_x x;
} product_job;

/* The pieces of all products form one list. */
static void run_product_piece(void *context, int64_t piece, int thread) {
    const product_job *j = context;
    const cca_product *p = j->products;
    if (stopped(j->b)) return;
    for (; piece >= panels_of(p); p++) piece -= panels_of(p);
    int64_t row = piece * CCA_PANEL, n_rows = cca_min(CCA_PANEL, p->weight->rows - row);
    bool add = p->accumulate || p->bias || j->x.n < FEW;
    if (add) begin_piece(p, j->x.n, row, n_rows);
    multiply_piece(j->b, p, j->x, row, n_rows, add, scratch_of(j->b, thread));
}

/* Rows a multiple of 4096 bytes apart would share their places in the caches. */
static size_t apart(size_t stride) {
    return stride % 1024 == 0 ? stride + ALIGNMENT : stride;
}

static void convert_row(const row_work *j, int64_t i) {
    char *out = j->form + (size_t)i * j->stride;
    j->products->x_convert(out, j->y->type, row_of(j->x, i), j->x->cols);
}

/* x in the form for a type of weights, in memory that is kept for the next time. */
static bool convert_x(cpu_backend *b, cpu_x *out, const cca_matrix *x, const cca_matrix *weight,
                      int64_t n) {
    const cca_products *k = products_of(b, weight->type, n);
    size_t stride = k->x_bytes(weight->type, x->cols);
    *out = (cpu_x){x->data, (size_t)x->cols * sizeof(float), n};
    if (stride == 0) return true;
    stride = apart(stride);
    if (!grow(b, &b->x, &b->x_bytes, (size_t)n * stride)) return false;
    *out = (cpu_x){b->x, stride, n};
    row_work j = {.row = convert_row, .x = x, .y = weight, .form = b->x, .stride = stride};
    j.products = k;
    run_rows(&b->base, j, n, x->cols);
    return true;
}

static void cpu_matmul(cca_backend *b, const cca_product *products, int n_products,
                       const cca_matrix *x, int64_t n) {
    cpu_backend *cpu = cpu_of(b);
    for (int first = 0, next; first < n_products; first = next) {
        cca_dtype type = products[first].weight->type;
        product_job j = {.b = cpu, .products = products + first};
        int64_t total = 0;
        for (next = first; next < n_products && products[next].weight->type == type; next++) {
            total += panels_of(&products[next]);
        }
        if (!reserve(cpu, cpu->kernels->products(type)->panel_bytes(type, DEPTH))) return;
        if (!convert_x(cpu, &j.x, x, products[first].weight, n)) return;
        run_pieces(cpu, total, run_product_piece, &j);
    }
}

/* ---- attention ----------------------------------------------------------------------- */

typedef struct pool_job {
    cpu_backend *b;
    cca_pool_args args;
    int64_t first; /* group */
} pool_job;

static void run_pool_piece(void *context, int64_t piece, int thread) {
    const pool_job *j = context;
    int64_t head = piece % j->args.n_heads, group = j->first + piece / j->args.n_heads;
    j->b->kernels->pool(&j->args, head, group, scratch_of(j->b, thread));
}

static void cpu_pool(cca_backend *b, const cca_groups *groups, const cca_matrix *q, int64_t pos,
                     int64_t n) {
    cpu_backend *cpu = cpu_of(b);
    int64_t n_heads = groups->cores.heads, hd = groups->cores.head_dim;
    pool_job j = {cpu, {groups, q->data, n_heads, pos}, 0};
    int64_t count = cca_groups_completed(groups->size, pos, n, &j.first);
    size_t scratch = (size_t)cca_pool_scratch(groups->size, hd) * sizeof(float);
    if (reserve(cpu, scratch)) run_pieces(cpu, count * n_heads, run_pool_piece, &j);
}

typedef struct bound_job {
    cpu_backend *b;
    const cca_groups *groups;
    int64_t first;
} bound_job;

static void run_bound_piece(void *context, int64_t piece, int thread) {
    const bound_job *j = context;
    int64_t heads = j->groups->raw.heads;
    cca_bound_group(j->b->kernels, j->groups, piece % heads, j->first + piece / heads,
                    scratch_of(j->b, thread));
}

static void cpu_bound(cca_backend *b, const cca_groups *groups, int64_t pos, int64_t n) {
    bound_job j = {cpu_of(b), groups, 0};
    int64_t count = cca_groups_completed(groups->size, pos, n, &j.first);
    if (!reserve(j.b, (size_t)(3 * groups->raw.head_dim) * sizeof(float))) return;
    run_pieces(j.b, count * groups->raw.heads, run_bound_piece, &j);
}

/* Queries of a tile of a call's rows: n of them from row on. */
typedef struct tile_rows {
    int64_t row, n;
} tile_rows;

/* The i-th stretch of `each` positions, at multiples of it, that rows 0 … n - 1 at pos … lie in. */
static tile_rows stretch_of(int64_t pos, int64_t n, int64_t each, int64_t i) {
    int64_t begin = cca_max(pos, (pos / each + i) * each);
    int64_t end = cca_min(pos + n, (pos / each + i + 1) * each);
    return (tile_rows){begin - pos, end - begin};
}

static int64_t count_stretches(int64_t pos, int64_t n, int64_t each) {
    return (pos + n - 1) / each - pos / each + 1;
}

typedef struct choose_job {
    cpu_backend *b;
    cca_choose_args args;
    int64_t n; /* queries */
} choose_job;

static void run_choose_piece(void *context, int64_t piece, int thread) {
    const choose_job *j = context;
    cca_choose_args args = j->args;
    int64_t heads = args.bounds->heads;
    if (stopped(j->b)) return;
    tile_rows rows = stretch_of(args.pos, j->n, args.out->tile, piece / heads);
    args.row = rows.row;
    args.n = rows.n;
    cca_choose_tile(j->b->kernels, &args, piece % heads, scratch_of(j->b, thread));
}

static void cpu_choose(cca_backend *b, const cca_choice *out, const cca_rows *bounds,
                       const cca_rows *blocks, const cca_range *groups, const cca_matrix *q,
                       int64_t pos, int64_t n) {
    int64_t n_heads = q->cols / bounds->head_dim, tiles = count_stretches(pos, n, out->tile);
    choose_job j = {cpu_of(b), {out, bounds, blocks, groups, q->data, n_heads, pos, 0, 0}, n};
    cca_choose_args largest = j.args; /* the last tile sees most; another may have more rows */
    largest.n = cca_min(n, out->tile);
    largest.row = n - largest.n;
    if (!reserve(j.b, cca_choose_bytes(j.b->kernels, &largest))) return;
    run_pieces(j.b, tiles * bounds->heads, run_choose_piece, &j);
}

/* A piece: heads that share keys and values, and a stretch of rows of each. Where rows choose, a
 * stretch lies in one tile. */
typedef struct attend_job {
    cpu_backend *b;
    cca_attend_args args;
    int64_t n; /* queries */
    int64_t n_heads, n_rows;
    bool by_position; /* stretches lie at multiples of n_rows positions */
} attend_job;

static void run_attend_piece(void *context, int64_t piece, int thread) {
    const attend_job *j = context;
    int64_t n_pieces = j->args.n_heads / j->n_heads, head = piece % n_pieces * j->n_heads;
    tile_rows rows =
        stretch_of(j->by_position ? j->args.pos : 0, j->n, j->n_rows, piece / n_pieces);
    if (stopped(j->b)) return;
    j->b->kernels->attend(&j->args, head, j->n_heads, rows.row, rows.n, scratch_of(j->b, thread));
}

/* The largest power of two that is not larger than n ≥ 1. */
static int64_t power_below(int64_t n) {
    int64_t power = 1;
    while (2 * power <= n) power *= 2;
    return power;
}

/* One token's heads read the same keys together, so that memory is read once for them all; so do
 * the heads of a tile of queries that have chosen together. */
static void attend_to(cca_backend *b, cca_matrix *out, float *sums, const cca_spans *spans,
                      const cca_matrix *q, int64_t pos, int64_t n) {
    cpu_backend *cpu = cpu_of(b);
    const cca_rows *rows = &spans->at[0].rows;
    int64_t hd = rows->head_dim, n_heads = q->cols / hd, sharers = n_heads / rows->heads;
    attend_job j = {cpu, {spans, q->data, out->data, n_heads, pos, sums}, n, 1, CCA_TILE_Q, false};
    j.by_position = spans->choice.most > 0;
    if ((n == 1 || j.by_position) && sharers <= CCA_TILE_Q) j.n_heads = sharers;
    if (j.by_position) {
        j.n_rows = cca_min(spans->choice.tile, power_below(CCA_TILE_Q / j.n_heads));
    }
    int64_t stretches = count_stretches(j.by_position ? pos : 0, n, j.n_rows);
    if (!reserve(cpu, (size_t)cca_attend_scratch(hd) * sizeof(float))) return;
    run_pieces(cpu, n_heads / j.n_heads * stretches, run_attend_piece, &j);
}

static void cpu_attend(cca_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                       int64_t pos, int64_t n) {
    attend_to(b, out, NULL, spans, q, pos, n);
}

static void cpu_attend_some(cca_backend *b, cca_matrix *out, cca_matrix *sums,
                            const cca_spans *spans, const cca_matrix *q, int64_t pos, int64_t n) {
    attend_to(b, out, sums->data, spans, q, pos, n);
}

typedef struct mass_job {
    cpu_backend *b;
    const cca_mass *mass;
    cca_attend_args args;
    int64_t row;
} mass_job;

static void run_mass_piece(void *context, int64_t piece, int thread) {
    const mass_job *j = context;
    cca_mass_add(j->mass, j->b->kernels, &j->args, j->row, piece, scratch_of(j->b, thread));
}

static void cpu_mass(cca_backend *b, const cca_mass *mass, const cca_spans *spans,
                     const cca_matrix *q, int64_t row, int64_t pos) {
    cpu_backend *cpu = cpu_of(b);
    int64_t n_heads = q->cols / spans->at[0].rows.head_dim;
    mass_job j = {cpu, mass, {spans, q->data, NULL, n_heads, pos, NULL}, row};
    if (!reserve(cpu, (size_t)cca_mass_scratch(spans, pos + row) * sizeof(float))) return;
    run_pieces(cpu, n_heads, run_mass_piece, &j);
}

static const cca_ops cpu_ops = {
    .name = "cpu",
    .chunk_size = 512,
    .destroy = cpu_destroy,
    .room = cpu_room,
    .beside = cpu_beside,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .load = cpu_load,
    .upload = cpu_upload,
    .download = cpu_download,
    .sync = cpu_sync,
    .embed = cpu_embed,
    .rmsnorm = cpu_rmsnorm,
    .matmul = cpu_matmul,
    .angles = cpu_angles,
    .rotate = cpu_rotate,
    .swiglu = cpu_swiglu,
    .relu_squared = cpu_relu_squared,
    .accumulate = cpu_accumulate,
    .store = cpu_store,
    .move = cpu_move,
    .pool = cpu_pool,
    .bound = cpu_bound,
    .choose = cpu_choose,
    .gather = cca_cpu_gather,
    .renew = cca_cpu_renew,
    .attend = cpu_attend,
    .attend_some = cpu_attend_some,
    .mass = cpu_mass,
};

cca_status cca_backend_cpu_with(cca_backend **out, const cca_backend_options *options,
                                const cca_kernels *kernels, cca_error *err) {
    *out = NULL;
    if (options->n_threads < 0 || options->n_threads > CCA_MOST_THREADS) {
        return cca_fail(err, CCA_USAGE, "threads: %d is outside 0 … %d", options->n_threads,
                        CCA_MOST_THREADS);
    }
    if (options->fp8) {
        return cca_fail(err, CCA_RUNTIME, "the CPU has no products in 8-bit floats");
    }
    cpu_backend *b = calloc(1, sizeof *b);
    if (!b) return cca_fail(err, CCA_NO_MEMORY, "no memory for the CPU backend");
    b->base.ops = &cpu_ops;
    b->base.stop = options->stop;
    b->kernels = kernels;
    b->workers = cca_workers_new(options->n_threads ? options->n_threads : cca_physical_cores(""));
    if (!b->workers) {
        free(b);
        return cca_fail(err, CCA_NO_MEMORY, "no memory for the CPU backend's threads");
    }
    *out = &b->base;
    return CCA_OK;
}

cca_status cca_backend_cpu(cca_backend **out, const cca_backend_options *options, cca_error *err) {
    const char *name = options->kernels;
    const cca_kernels *kernels = name ? cca_kernels_find(name) : cca_kernels_best();
    *out = NULL;
    if (kernels) return cca_backend_cpu_with(out, options, kernels, err);
    return cca_fail(err, CCA_USAGE, "kernels '%s': this machine has none, up to %s", name,
                    cca_kernels_best()->name);
}
