/* The inner loops of the CPU backend: one list of functions, one variant an instruction set.
 *
 *     const cca_products *k = cca_kernels_best()->products(CCA_F32);
 *     k->pack(panel, CCA_F32, w, dim * sizeof(float), n_rows, dim);
 *     k->multiply(out, ld, x, dim * sizeof(float), n_tokens, CCA_F32, panel, n_rows, dim, false);
 *
 * "plain" is the oracle of the others: scalar loops that follow the definitions, with sums in
 * double. "generic" and the named instruction sets are one source (simd.h) compiled for vectors
 * of different width. All are free of threads and allocations; scratch memory comes from the
 * caller. What multiply and dot give for a row of x does not depend on the rows beside it. */
#ifndef CCA_KERNELS_H
#define CCA_KERNELS_H

#include "backend/keys.h"

enum {
    CCA_PANEL = 32,   /* most rows of weights in a panel */
    CCA_TILE_Q = 128, /* most queries, of all heads together, in one call of attend */
    CCA_TILE_K = 64,  /* keys looked at together */
};

/* Attention of queries at positions pos + row …: q and out hold one row a position,
 * n_heads * head_dim wide. Where a span picks groups, all rows of a call of attend are of one tile.
 */
typedef struct cca_attend_args {
    const cca_spans *spans;
    const float *q;
    float *out;
    int64_t n_heads;
    int64_t pos;
    float *sums; /* NULL, or [row][n_heads][2]: largest score, sum of exponentials (backend.h) */
} cca_attend_args;

/* What a head's values are multiplied by in the end, whose exponentials were relative to the
 * largest score. Of keys that are not all there may be none. */
static inline float cca_attend_finish(const cca_attend_args *args, int64_t row, int64_t head,
                                      float largest, float total) {
    if (!args->sums) return 1 / total;
    float *sums = args->sums + 2 * (row * args->n_heads + head);
    sums[0] = total == 0 ? -INFINITY : largest;
    sums[1] = total;
    return total == 0 ? 0 : 1 / total;
}

/* Pooling of groups; q as above, row 0 at position pos (unused unless pooling is
 * CCA_POOL_QUERY). */
typedef struct cca_pool_args {
    const cca_groups *groups;
    const float *q;
    int64_t n_heads;
    int64_t pos;
} cca_pool_args;

/* Kinds of arithmetic instructions: f32 multiply-add, dot products of bf16 pairs, of bytes. */
typedef enum cca_peak { CCA_PEAK_F32, CCA_PEAK_BF16, CCA_PEAK_BYTES } cca_peak;

enum { CCA_SPIN_SINK = 16 * 16 }; /* floats */

/* Products: out[i * ld_out + j] += x[i] · w[j] over n values, for n_x rows of x and n_w rows of
 * weights of a type; multiply without add writes in place of adding.
 *
 * x is given in the form that suits the type: x_bytes is the size of n values in it, x_convert
 * makes it; where x is taken as it is, x_bytes is 0 and x_convert NULL. x_stride is the distance of
 * its rows in bytes. n is a multiple of the type's block, or, in pieces of a longer row, of 32.
 *
 * For many rows of x the weights are packed first: up to CCA_PANEL rows, w_stride bytes apart,
 * into panel_bytes bytes at a 64-byte boundary. For few there is dot. */
typedef struct cca_products {
    size_t (*x_bytes)(cca_dtype type, int64_t n);
    void (*x_convert)(void *out, cca_dtype type, const float *x, int64_t n);
    size_t (*panel_bytes)(cca_dtype type, int64_t n);
    void (*pack)(void *panel, cca_dtype type, const void *w, size_t w_stride, int64_t n_w,
                 int64_t n);
    void (*multiply)(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                     cca_dtype type, const void *panel, int64_t n_w, int64_t n, bool add);
    void (*dot)(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                cca_dtype type, const void *w, size_t w_stride, int64_t n_w, int64_t n);
    cca_peak peak; /* the instructions that they are made of */
    bool rounds;   /* weights in panels, to 8 bits or bf16: products may be off by 1 % */
} cca_products;

typedef struct cca_kernels {
    const char *name;

    /* n values of a type to float and back. */
    void (*decode)(float *out, cca_dtype type, const void *in, int64_t n);
    void (*encode)(void *out, cca_dtype type, const float *in, int64_t n);

    /* How products with weights of a type are made with many rows of x, of which dot may be
     * missing, and with few, of which only dot and the form of x may be used. */
    const cca_products *(*products)(cca_dtype type);
    const cca_products *(*few)(cca_dtype type);

    /* out = x / sqrt(mean(x²) + eps) * weight. */
    void (*rmsnorm)(float *out, const float *x, const float *weight, float eps, int64_t n);

    /* gate = gate / (1 + exp(-gate)) * up. */
    void (*swiglu)(float *gate, const float *up, int64_t n);

    /* Rows row … row + n - 1 of heads head … head + n_heads - 1, which share a key/value head;
     * n_heads * n ≤ CCA_TILE_Q. scratch: 64-byte aligned, cca_attend_scratch(head_dim) floats. */
    void (*attend)(const cca_attend_args *args, int64_t head, int64_t n_heads, int64_t row,
                   int64_t n, float *scratch);

    /* Adds to total the softmax of n scores, which are lost. */
    void (*add_softmax)(float *total, float *scores, int64_t n);

    /* The core of one group for one head. scratch: cca_pool_scratch(group_size, head_dim). */
    void (*pool)(const cca_pool_args *args, int64_t head, int64_t group, float *scratch);

    /* Turns of a loop of one kind of instruction over registers, whose results go to sink
     * [CCA_SPIN_SINK]. Gives the number of operations; 0 where there is no such instruction. */
    double (*spin)(float *sink, cca_peak kind, int64_t turns);
} cca_kernels;

/* Adds to the sums of a head what the softmax of attention gives each key that the query in one row
 * sees. scratch: 64-byte aligned, cca_mass_scratch floats for its position. */
void cca_mass_add(const cca_mass *mass, const cca_kernels *k, const cca_attend_args *args,
                  int64_t row, int64_t head, float *scratch);

/* A tile of queries at positions pos + row … pos + row + n - 1 and the heads that share a head of
 * keys. */
typedef struct cca_choose_args {
    const cca_choice *out;
    const cca_rows *bounds, *blocks; /* NULL: each group is weighed */
    const cca_range *groups;
    const float *q; /* one row a position from pos on, n_heads * head_dim wide */
    int64_t n_heads, pos, row, n;
} cca_choose_args;

/* Chooses groups for one head of keys. scratch: 64-byte aligned, cca_choose_bytes(…). */
void cca_choose_tile(const cca_kernels *k, const cca_choose_args *args, int64_t kv_head,
                     void *scratch);
size_t cca_choose_bytes(const cca_kernels *k, const cca_choose_args *args);
/* Bounds of one group for one head of raw rows; scratch: 3 * head_dim floats. */
void cca_bound_group(const cca_kernels *k, const cca_groups *groups, int64_t head, int64_t group,
                     float *scratch);

/* Floats of scratch memory. */
static inline int64_t cca_attend_scratch(int64_t head_dim) {
    int64_t width = (head_dim + 31) / 32 * 32;
    return CCA_TILE_Q * (CCA_TILE_K + 2 * width + 2) + 3 * CCA_TILE_K * width + 64;
}

static inline int64_t cca_pool_scratch(int64_t group_size, int64_t head_dim) {
    return group_size + 3 * head_dim + 64;
}

static inline int64_t cca_mass_query(int64_t head_dim) { /* in any form */
    return 2 * ((head_dim + 31) / 32 * 32) + 64;
}

static inline int64_t cca_mass_scratch(const cca_spans *spans, int64_t pos) {
    return cca_mass_query(spans->at[0].rows.head_dim) + cca_spans_count(spans, pos);
}

/* Rotates n_heads heads of a row in place; angles: cos and sin of each pair. Not worth a
 * variant of its own. */
static inline void cca_rotate_row(float *x, const float *angles, int64_t n_heads, int64_t half,
                                  bool interleaved) {
    int64_t step = interleaved ? 2 : 1;
    int64_t other = interleaved ? 1 : half;
    for (int64_t h = 0; h < n_heads; h++, x += 2 * half) {
        for (int64_t k = 0; k < half; k++) {
            float cos = angles[2 * k], sin = angles[2 * k + 1];
            float a = x[k * step], b = x[k * step + other];
            x[k * step] = a * cos - b * sin;
            x[k * step + other] = b * cos + a * sin;
        }
    }
}

/* Where a head's row of keys or values starts. */
static inline const void *cca_row_at(const void *rows, cca_dtype type, const cca_rows *shape,
                                     int64_t head, int64_t row) {
    size_t width = 0;
    cca_dtype_row_bytes(&width, type, shape->head_dim);
    return (const char *)rows + (size_t)(head * shape->capacity + row) * width;
}

/* Keys that are looked at together: n of them, in ascending columns. In a row, those of column and
 * row first_column, first_row and on of the span's rows; else as the arrays say. */
typedef struct cca_key_tile {
    int64_t n, first_column, first_row;
    bool in_a_row;
    uint64_t takes_part; /* a bit a key */
    int64_t column[CCA_TILE_K], row[CCA_TILE_K];
    const cca_rows *from[CCA_TILE_K]; /* rows that a key is one of */
} cca_key_tile;

/* The walk of a call's rows row … row + n - 1 and a head of keys over the columns of a span:
 *
 *     cca_key_walk w = cca_walk_begin(args, span, kv_head, row, n);
 *     while (cca_walk_next(&w)) ...                        // w.keys */
typedef struct cca_key_walk {
    const cca_span *span;
    const cca_pieces *pieces;
    cca_tile tile;         /* what the queries see of the span */
    const int32_t *chosen; /* by their tile: */
    int64_t n_chosen, group_size;
    int64_t at, next; /* column, or key of chosen groups; chosen group to be left out */
    cca_key_tile keys;
} cca_key_walk;

cca_key_walk cca_walk_begin(const cca_attend_args *args, const cca_span *span, int64_t kv_head,
                            int64_t row, int64_t n);
bool cca_walk_next(cca_key_walk *w);

static inline int64_t cca_key_column(const cca_key_tile *t, int64_t k) {
    return t->in_a_row ? t->first_column + k : t->column[k];
}

static inline int64_t cca_key_row(const cca_key_tile *t, int64_t k) {
    return t->in_a_row ? t->first_row + k : t->row[k];
}

/* Where a head's key of a tile starts, and its value; rows are the span's. */
static inline const void *cca_key_at(const cca_key_tile *t, const cca_rows *rows, int64_t head,
                                     int64_t k) {
    const cca_rows *from = t->in_a_row ? rows : t->from[k];
    return cca_row_at(from->k, from->k_type, from, head, cca_key_row(t, k));
}

static inline const void *cca_value_at(const cca_key_tile *t, const cca_rows *rows, int64_t head,
                                       int64_t k) {
    const cca_rows *from = t->in_a_row ? rows : t->from[k];
    return cca_row_at(from->v, from->v_type, from, head, cca_key_row(t, k));
}

/* Whether some query of the walk does not see all of the tile. */
static inline bool cca_walk_masked(const cca_key_walk *w) {
    int64_t first = cca_key_column(&w->keys, 0), last = cca_key_column(&w->keys, w->keys.n - 1);
    return first < w->tile.free_begin || last >= w->tile.free_end;
}

/* The fastest variant this machine can run; a variant by its name (NULL if there is none or
 * the machine cannot run it); and by index, NULL behind the last. */
const cca_kernels *cca_kernels_best(void);
const cca_kernels *cca_kernels_find(const char *name);
const cca_kernels *cca_kernels_at(int index);
/* The names of all that this build has, in the same order; NULL behind the last. */
const char *cca_kernels_name(int index);

extern const cca_kernels cca_kernels_plain;
extern const cca_kernels cca_kernels_generic;
extern const cca_kernels cca_kernels_avx2;
extern const cca_kernels cca_kernels_avx512;
extern const cca_kernels cca_kernels_amx;

#endif
