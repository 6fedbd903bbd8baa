/* Matrices and the operations on them, on one device.
 *
 *     cca_backend *b;
 *     cca_backend_cpu(&b, &(cca_backend_options){.n_threads = 2}, &err);
 *     cca_matrix x, w, y;
 *     cca_matrix_alloc(b, &x, CCA_F32, n, dim);                        // activations
 *     cca_matrix_load(b, &w, CCA_Q8_0, rows, dim, file_bytes);         // weights, borrowed
 *     cca_matrix_alloc(b, &y, CCA_F32, n, rows);
 *     cca_product p = {.out = &y, .weight = &w};
 *     cca_matmul(b, &p, 1, &x, n);                                     // y = x · wᵀ
 *     if (cca_backend_sync(b, &err) != CCA_OK) ...
 *     cca_matrix_free(b, &x);
 *
 * Operations return nothing. The first failure (memory, device, a set stop flag, shapes that
 * do not fit) sticks, all further operations do nothing, and cca_backend_sync reports it.
 * Matrices are row-major; activations are (tokens, width) in f32. An operation on n tokens
 * uses the first n rows. A backend knows no model and no command line. One backend serves
 * one thread at a time; several backends may share the weights that one of them loaded. */
#ifndef CCA_BACKEND_H
#define CCA_BACKEND_H

#include "backend/dtype.h"
#include "backend/keys.h"
#include "base/base.h"

#include <signal.h>

typedef struct cca_backend cca_backend;

typedef struct cca_backend_options {
    int n_threads;       /* 0: one a physical core */
    const char *kernels; /* of the CPU: "plain", "generic", "avx2", "avx512"; NULL: the
                            fastest that the machine runs. CCA_USAGE for others */
    const volatile sig_atomic_t *stop; /* may be NULL; non-zero stops the work soon */
    bool fp8; /* products of many rows in 8-bit floats: faster, less exact; CCA_RUNTIME where the
                 device has none */
} cca_backend_options;

/* rows × cols values of a type, in the backend's memory. */
typedef struct cca_matrix {
    void *data;
    cca_dtype type;
    int64_t rows, cols;
    bool owned; /* false: the data belongs to somebody else (a mapped file) */
} cca_matrix;

/* How a chunk's rows are rotated: angles as cca_angles makes them, and what they were made from. */
typedef struct cca_turn {
    const cca_matrix *angles;
    const cca_rope *rope;
} cca_turn;

/* out = x · weightᵀ + bias, or added to what out holds. weight is (out->cols, x->cols). */
typedef struct cca_product {
    cca_matrix *out;
    const cca_matrix *weight;
    const cca_matrix *bias; /* f32 (1, out->cols), or NULL */
    bool accumulate;
} cca_product;

/* The feed-forward part of a layer: its weights, and room for what it computes on the way. Without
 * norm x goes in as it is; without gate there is relu² of up; behind norms what is added. */
typedef struct cca_ffn {
    const cca_matrix *norm, *gate, *up, *down, *behind; /* norm, gate and behind may be NULL */
    float eps;
    cca_matrix *h, *gated, *upped; /* (n, dim), (n, hidden_dim) twice; undefined afterwards */
} cca_ffn;

/* The layers of a model, by whose sizes a backend reckons what it keeps beside their operands. */
typedef struct cca_layer_sizes {
    int64_t n_tokens;        /* most of a chunk */
    int64_t dim, hidden_dim; /* dim: of the stream or of all heads, whichever is wider */
    cca_dtype type;          /* of most weights */
    int64_t n_groups;        /* that are chosen from, by tiles and by single queries, or 0 */
    cca_choice choice;       /* without its memory */
    int64_t n_heads, head_dim;
    cca_dtype k_type; /* of the cache */
} cca_layer_sizes;

/* The table of operations; see the wrappers below for what each does. The wrappers have
 * checked all shapes before. The last three may be NULL, or do nothing and say false where operands
 * do not suit them: they are then composed of the others. */
typedef struct cca_ops {
    const char *name;   /* "cpu", "cuda" */
    int64_t chunk_size; /* tokens at a time that suit the device in prefill */
    void (*destroy)(cca_backend *b);
    size_t (*room)(cca_backend *b);
    size_t (*beside)(cca_backend *b, const cca_layer_sizes *sizes); /* may be NULL: nothing */
    void *(*alloc)(cca_backend *b, size_t bytes);
    void (*release)(cca_backend *b, void *data);
    /* Memory of the host that operations read and write where it lies; all NULL where the backend's
     * own memory is such, and operations are done when they return. */
    void *(*alloc_host)(cca_backend *b, size_t bytes);
    void (*release_host)(cca_backend *b, void *data);
    void (*bring)(cca_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos, int64_t n);
    void (*brought)(cca_backend *b);
    void (*send)(cca_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos, int64_t n);
    /* The type that weights of a type are kept in; may be NULL: their own. */
    cca_dtype (*keeps)(cca_dtype type);
    /* Bytes of weights as they are kept; may be NULL: as in the file. */
    size_t (*kept_bytes)(const cca_matrix *m);
    /* May lay the values out in another way than the file; only operations read them. */
    void *(*load)(cca_backend *b, const cca_matrix *shape, const void *host, size_t bytes,
                  bool *owned);
    void (*upload)(cca_backend *b, void *out, const void *host, size_t bytes);
    void (*download)(cca_backend *b, void *host, const void *data, size_t bytes);
    cca_status (*sync)(cca_backend *b, cca_error *err);
    void (*embed)(cca_backend *b, cca_matrix *out, const cca_matrix *table, const int32_t *ids,
                  float scale, int64_t n);
    void (*rmsnorm)(cca_backend *b, cca_matrix *out, const cca_matrix *x, int64_t x_row,
                    const cca_matrix *weight, float eps, int64_t n);
    void (*matmul)(cca_backend *b, const cca_product *products, int n_products, const cca_matrix *x,
                   int64_t n);
    void (*angles)(cca_backend *b, cca_matrix *out, const cca_rope *rope, int64_t pos, int64_t n);
    void (*rotate)(cca_backend *b, cca_matrix *x, const cca_matrix *angles, const cca_rope *rope,
                   int64_t n);
    void (*swiglu)(cca_backend *b, cca_matrix *gate, const cca_matrix *up, int64_t n);
    void (*relu_squared)(cca_backend *b, cca_matrix *x, int64_t n);
    void (*accumulate)(cca_backend *b, cca_matrix *x, const cca_matrix *y, int64_t n);
    void (*store)(cca_backend *b, cca_rows *rows, const cca_matrix *k, const cca_matrix *v,
                  int64_t pos, int64_t n);
    void (*move)(cca_backend *b, cca_rows *out, const cca_rows *in, int64_t pos, int64_t n);
    void (*pool)(cca_backend *b, const cca_groups *groups, const cca_matrix *q, int64_t pos,
                 int64_t n);
    void (*bound)(cca_backend *b, const cca_groups *groups, int64_t pos, int64_t n);
    void (*choose)(cca_backend *b, const cca_choice *out, const cca_rows *bounds,
                   const cca_rows *blocks, const cca_range *groups, const cca_matrix *q,
                   int64_t pos, int64_t n);
    void (*gather)(cca_backend *b, const cca_rows *out, const cca_rows *in,
                   const cca_choice *choice, int64_t n_tiles);
    void (*renew)(cca_backend *b, const cca_kept *kept, const cca_rows *in,
                  const cca_choice *choice, int64_t n_known);
    void (*attend)(cca_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                   int64_t pos, int64_t n);
    /* May be NULL: the device has none, and says so. */
    void (*attend_some)(cca_backend *b, cca_matrix *out, cca_matrix *sums, const cca_spans *spans,
                        const cca_matrix *q, int64_t pos, int64_t n);
    void (*mass)(cca_backend *b, const cca_mass *mass, const cca_spans *spans, const cca_matrix *q,
                 int64_t row, int64_t pos);
    bool (*norm_matmul)(cca_backend *b, const cca_product *products, int n_products, cca_matrix *h,
                        const cca_matrix *x, int64_t x_row, const cca_matrix *weight, float eps,
                        int64_t n);
    /* Of Llama's form alone: with norm and gate, without a norm behind. */
    bool (*feed_forward)(cca_backend *b, cca_matrix *x, const cca_ffn *f, int64_t n);
    bool (*rotate_store)(cca_backend *b, cca_rows *rows, cca_matrix *q, cca_matrix *k,
                         const cca_matrix *v, const cca_turn *turn, int64_t pos, int64_t n);
} cca_ops;

/* The part that each backend's own struct begins with. */
struct cca_backend {
    const cca_ops *ops;
    const volatile sig_atomic_t *stop; /* may be NULL */
    cca_status status;                 /* the first failure */
    cca_error error;
    /* The device answers no more, so that nobody waits for it and its memory stays as it is. Others
     * that have memory there are to be told. */
    bool lost;
};

/* Records the first failure; later ones are ignored. */
void cca_backend_fail(cca_backend *b, cca_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Makes a backend; CCA_NO_MEMORY, CCA_USAGE (thread count) or CCA_RUNTIME (no device). A build
 * without CUDA has the second entry point, too: it fails and says so. */
cca_status cca_backend_cpu(cca_backend **out, const cca_backend_options *options, cca_error *err);
cca_status cca_backend_cuda(cca_backend **out, int device, const cca_backend_options *options,
                            cca_error *err);
/* "cpu", "cuda", "cuda:N", "auto" (the first CUDA device if there is one, else the CPU) or
 * "auto:N".
 */
cca_status cca_backend_open(cca_backend **out, const char *device,
                            const cca_backend_options *options, cca_error *err);
void cca_backend_close(cca_backend *b);
const char *cca_backend_name(const cca_backend *b);
/* Tokens of a prefill chunk where nobody says otherwise. */
int64_t cca_backend_chunk_size(const cca_backend *b);

/* Waits for all operations and reports the first failure. An interruption (CCA_INTERRUPTED)
 * is cleared by reporting it, everything else sticks. */
cca_status cca_backend_sync(cca_backend *b, cca_error *err);
/* The same without waiting: reports the first failure so far. */
cca_status cca_backend_report(cca_backend *b, cca_error *err);

/* A zeroed matrix of the backend's own; on failure data is NULL and the failure sticks. */
void cca_matrix_alloc(cca_backend *b, cca_matrix *out, cca_dtype type, int64_t rows, int64_t cols);
/* A matrix of weights from host memory, which must outlive it: borrowed where the device can
 * read it, else copied, in another type (out->type) where the device has no products with theirs.
 */
void cca_matrix_load(cca_backend *b, cca_matrix *out, cca_dtype type, int64_t rows, int64_t cols,
                     const void *host);
void cca_matrix_free(cca_backend *b, cca_matrix *m);
/* Bytes of rows × cols values; false where that does not exist. */
bool cca_matrix_bytes(size_t *out, cca_dtype type, int64_t rows, int64_t cols);
/* Bytes of a matrix of weights as the backend keeps them. */
size_t cca_matrix_kept_bytes(const cca_backend *b, const cca_matrix *m);
/* Copies the first n rows (f32) to host memory. Done when the call returns. */
void cca_matrix_download(cca_backend *b, float *host, const cca_matrix *m, int64_t n);

/* Whether the memory of operands is the host's, which can read it once operations are done. */
bool cca_backend_on_host(const cca_backend *b);

/* Bytes that can still be allocated; SIZE_MAX where nobody knows. */
size_t cca_backend_room(cca_backend *b);
/* Bytes that it will keep for itself where layers of such sizes are computed: copies of operands in
 * other types, room that a library wants. */
size_t cca_backend_beside(cca_backend *b, const cca_layer_sizes *sizes);
/* Zeroed memory of the backend's own for caches; NULL after a failure. */
void *cca_backend_alloc(cca_backend *b, size_t bytes);
void cca_backend_release(cca_backend *b, void *data);
/* The same in memory of the host, where that is not the backend's own: operations read and write
 * it where it lies, as far as the link to it lets them. It is not zeroed. CCA_NO_MEMORY names the
 * bytes. */
void *cca_backend_alloc_host(cca_backend *b, size_t bytes);
void cca_backend_release_host(cca_backend *b, void *data);
/* Copies between host memory and the backend's own. */
void cca_backend_upload(cca_backend *b, void *out, const void *host, size_t bytes);
void cca_backend_download(cca_backend *b, void *host, const void *data, size_t bytes);

/* out[i] = row ids[i] of table, as f32, times scale. Ids must lie inside the table. */
void cca_embed(cca_backend *b, cca_matrix *out, const cca_matrix *table, const int32_t *ids,
               float scale, int64_t n);
/* out[i] = x[x_row + i] / sqrt(mean(x²) + eps) * weight. */
void cca_rmsnorm(cca_backend *b, cca_matrix *out, const cca_matrix *x, int64_t x_row,
                 const cca_matrix *weight, float eps, int64_t n);
/* Several products of the same n rows of x. */
void cca_matmul(cca_backend *b, const cca_product *products, int n_products, const cca_matrix *x,
                int64_t n);
/* Products of the norm of n rows of x from x_row on (cca_rmsnorm, then cca_matmul); h is room for
 * it, (n, dim), undefined afterwards. */
void cca_norm_matmul(cca_backend *b, const cca_product *products, int n_products, cca_matrix *h,
                     const cca_matrix *x, int64_t x_row, const cca_matrix *weight, float eps,
                     int64_t n);
/* x += (silu(y · gateᵀ) * (y · upᵀ)) · downᵀ, y the norm of x, for the first n rows; other forms as
 * cca_ffn says. */
void cca_feed_forward(cca_backend *b, cca_matrix *x, const cca_ffn *f, int64_t n);
/* out[i] = cos, sin of positions pos + i: (n, head_dim), pairs side by side. */
void cca_angles(cca_backend *b, cca_matrix *out, const cca_rope *rope, int64_t pos, int64_t n);
/* Rotates each head of x in place by the angles of its row. */
void cca_rotate(cca_backend *b, cca_matrix *x, const cca_matrix *angles, const cca_rope *rope,
                int64_t n);
/* gate = silu(gate) * up. */
void cca_swiglu(cca_backend *b, cca_matrix *gate, const cca_matrix *up, int64_t n);
/* x = max(x, 0)². */
void cca_relu_squared(cca_backend *b, cca_matrix *x, int64_t n);
/* x += y. */
void cca_accumulate(cca_backend *b, cca_matrix *x, const cca_matrix *y, int64_t n);
/* x += the norm of h, which is lost. */
void cca_add_normed(cca_backend *b, cca_matrix *x, cca_matrix *h, const cca_matrix *weight,
                    float eps, int64_t n);
/* Rounds n rows of keys and values to the cache type and puts them in as positions pos …. */
void cca_rows_store(cca_backend *b, cca_rows *rows, const cca_matrix *k, const cca_matrix *v,
                    int64_t pos, int64_t n);
/* Rotates q in place, and stores k, rotated, and v as cca_rows_store does; k is undefined
 * afterwards. */
void cca_rotate_store(cca_backend *b, cca_rows *rows, cca_matrix *q, cca_matrix *k,
                      const cca_matrix *v, const cca_turn *turn, int64_t pos, int64_t n);
/* Copies positions pos … pos + n - 1 from one set of rows to another. */
void cca_rows_move(cca_backend *b, cca_rows *out, const cca_rows *in, int64_t pos, int64_t n);
/* Copies positions pos … pos + n - 1 to host memory and back: k and v are [heads][n][head_dim] in
 * the rows' types, without gaps. Done when the call returns. */
void cca_rows_get(cca_backend *b, void *k, void *v, const cca_rows *rows, int64_t pos, int64_t n);
void cca_rows_put(cca_backend *b, cca_rows *rows, const void *k, const void *v, int64_t pos,
                  int64_t n);
/* The same with rows that cca_backend_alloc_host has room for, without the backend's doing. */
void cca_rows_get_host(cca_backend *b, void *k, void *v, const cca_rows *rows, int64_t pos,
                       int64_t n);
void cca_rows_put_host(cca_backend *b, cca_rows *rows, const void *k, const void *v, int64_t pos,
                       int64_t n);
/* Begins to copy positions pos … pos + n - 1 of rows in such memory to rows of the same types in
 * the backend's own, in which no position wraps: after all operations so far, beside those that
 * follow, which leave both as they are until cca_rows_brought: what follows that comes after all
 * that was begun. */
void cca_rows_bring(cca_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos,
                    int64_t n);
void cca_rows_brought(cca_backend *b);
/* The other way round, in the same order with the copies that come. */
void cca_rows_send(cca_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos, int64_t n);
/* Copies the groups that the first n_tiles tiles have chosen, of rows of whole groups by position,
 * wherever they lie: group i of tile t to rows (t * most + i) * group_size … of each head, in out's
 * types. */
void cca_rows_gather(cca_backend *b, const cca_rows *out, const cca_rows *in,
                     const cca_choice *choice, int64_t n_tiles);
/* Makes the groups that one query has chosen, of rows of whole groups by position, those that are
 * kept: groups below n_known that are there stay where they are, others come in their places. */
void cca_rows_renew(cca_backend *b, const cca_kept *kept, const cca_rows *in,
                    const cca_choice *choice, int64_t n_known);
/* Cores of the groups whose last position lies in [pos, pos + n), from their raw rows and (for
 * CCA_POOL_QUERY) the rotated queries q of these positions. Paper, eq. 2; sums in f32, the core
 * rounded once. */
void cca_pool(cca_backend *b, const cca_groups *groups, const cca_matrix *q, int64_t pos,
              int64_t n);
/* Bounds of the same groups, in the place of cores, for each head of raw rows: the largest of a
 * group's keys, elementwise, as its key, the smallest as its value. Exact where their type is that
 * of the keys; else rounded outwards. */
void cca_bound(cca_backend *b, const cca_groups *groups, int64_t pos, int64_t n);
/* The groups that the tiles of rotated queries of positions pos … recall, of those that a range
 * says they see. A query's weight for a group is the softmax, over these, of the largest value that
 * q · k can have within the group's bounds, / sqrt(head_dim); a tile has the out->most groups of
 * largest weight, summed over its queries and the heads that share a head of keys; of equal ones
 * the earlier. */
void cca_choose(cca_backend *b, const cca_choice *out, const cca_rows *bounds,
                const cca_rows *blocks, const cca_range *groups, const cca_matrix *q, int64_t pos,
                int64_t n);
/* out = attention of the rotated queries of positions pos … over all spans in one softmax, scale
 * 1/sqrt(head_dim). Paper, eqs. 3 and 4. q is undefined afterwards: where cca_rotate_store comes
 * directly before, a backend may rotate on the way. */
void cca_attend(cca_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                int64_t pos, int64_t n);
/* The same over spans that are some of what queries see, to be combined with the same over others:
 * out as if there were no more, and sums (n, 2 * n_heads), of each head the largest score and the
 * sum of e to the scores less it; 0, -inf and 0 where a query sees none. Two parts of such are one
 * with largest m = max(m1, m2), total t = t1 e^(m1 - m) + t2 e^(m2 - m), and out = (out1 t1
 * e^(m1 - m) + out2 t2 e^(m2 - m)) / t. Nothing picks groups. CCA_USAGE where the device has no
 * such operation. */
void cca_attend_some(cca_backend *b, cca_matrix *out, cca_matrix *sums, const cca_spans *spans,
                     const cca_matrix *q, int64_t pos, int64_t n);
/* Whether it has. */
bool cca_backend_attends_some(const cca_backend *b);
/* Adds to the sums what that softmax gives each key that the query in one row of q, at position
 * pos + row, sees: 1 for each head. A column's positions must lie in one unit. Done when the call
 * returns. */
void cca_attend_mass(cca_backend *b, const cca_mass *mass, const cca_spans *spans,
                     const cca_matrix *q, int64_t row, int64_t pos);

#endif
