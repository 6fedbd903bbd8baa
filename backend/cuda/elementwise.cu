/* The operations that treat rows or values alike, and conversions of weights: all bound by
 * memory, one thread a value or one warp a row. */
#include "backend/cuda/types.cuh"

#include <stdlib.h>

enum { THREADS = 256 };

/* ---- conversions --------------------------------------------------------------------- */

/* Threads take four values each where the number allows it. */
static __global__ void to_bf16(__nv_bfloat16 *out, const float *x, int64_t n) {
    cuda_begin();
    int64_t i = cuda_index() * 4;
    if (i + 4 <= n) {
        cuda_put_twin(out, i, *(const float4 *)(x + i));
    } else {
        for (; i < n; i++) out[i] = __float2bfloat16_rn(x[i]);
    }
}

void cuda_to_bf16(cuda_backend *b, void *out, const float *x, int64_t n) {
    cuda_launch(b, "bf16", to_bf16, cuda_blocks(n, THREADS * 4), THREADS, 0, (__nv_bfloat16 *)out,
                x, n);
}

static __global__ void weights_to_bf16(__nv_bfloat162 *out, cuda_weights w, int64_t n_pairs) {
    cuda_begin();
    int64_t i = cuda_index();
    if (i >= n_pairs) return;
    out[i] = __floats2bfloat162_rn(cuda_weight_at(w, 2 * i), cuda_weight_at(w, 2 * i + 1));
}

static __global__ void last_to_bf16(__nv_bfloat16 *out, cuda_weights w, int64_t i) {
    cuda_begin();
    out[i] = __float2bfloat16_rn(cuda_weight_at(w, i));
}

/* 16 bytes of blocks a thread. */
template <cca_dtype type>
static __global__ void blocks_to_bf16(uint4 *out, cuda_weights w, int64_t n) {
    typedef traits<type> T;
    cuda_begin();
    int64_t i = cuda_index();
    if (i >= n) return;
    float v[T::VALUES];
    const typename T::scales *scale = (const typename T::scales *)w.scale;
    T::decode(v, ((const uint4 *)w.q)[i], scale[i / (T::BLOCK / T::VALUES)]);
    enum { EIGHTS = T::VALUES / 8 };
#pragma unroll
    for (int k = 0; k < EIGHTS; k++) out[i * EIGHTS + k] = cuda_round_eight<true>(v + 8 * k);
}

void cuda_weights_to_bf16(cuda_backend *b, void *out, const cca_matrix *m) {
    cuda_weights w = cuda_weights_of(m);
    int64_t n = m->rows * m->cols;
    if (cuda_has_blocks(m->type)) {
        cuda_with_traits(m->type, [=](auto t) {
            typedef decltype(t) T;
            if constexpr (T::BLOCK > 1) {
                cuda_launch(b, "weights", blocks_to_bf16<T::TYPE>,
                            cuda_blocks(n / T::VALUES, THREADS), THREADS, 0, (uint4 *)out, w,
                            n / T::VALUES);
            }
        });
    } else {
        cuda_launch(b, "weights", weights_to_bf16, cuda_blocks(n / 2, THREADS), THREADS, 0,
                    (__nv_bfloat162 *)out, w, n / 2);
        if (n % 2) {
            cuda_launch(b, "weights", last_to_bf16, 1, 1, 0, (__nv_bfloat16 *)out, w, n - 1);
        }
    }
}

template <cca_dtype type>
static __global__ void repack(void *q, void *scale, const void *file, int64_t n_blocks) {
    typedef traits<type> T;
    cuda_begin();
    int64_t i = cuda_index(), block = i / T::PIECES;
    if (block < n_blocks) T::lay_out(q, scale, file, block, (int)(i % T::PIECES));
}

void cuda_repack(cuda_backend *b, void *out, const void *file, const cca_matrix *shape) {
    cca_matrix m = *shape;
    m.data = out;
    cuda_weights w = cuda_weights_of(&m);
    int64_t n = m.rows * m.cols / cca_dtype_block(m.type);
    cuda_with_traits(m.type, [=](auto t) {
        typedef decltype(t) T;
        if constexpr (T::BLOCK > 1) {
            cuda_launch(b, "load", repack<T::TYPE>, cuda_blocks(n * T::PIECES, THREADS), THREADS, 0,
                        out, (void *)w.scale, file, n);
        }
    });
}

/* ---- embedding, norm, gate ----------------------------------------------------------- */

/* A few ids travel with the launch: a copy would take as long as the rest. */
struct few_ids {
    int32_t id[8];
};

/* ids: NULL for those in `few`. */
static __global__ void embed(float *out, cuda_weights table, const int32_t *ids, few_ids few,
                             float scale) {
    cuda_begin();
    int64_t id = ids ? ids[blockIdx.x] : few.id[blockIdx.x];
    int64_t from = id * table.cols, to = blockIdx.x * table.cols;
    for (int64_t k = threadIdx.x; k < table.cols; k += blockDim.x) {
        out[to + k] = cuda_weight_at(table, from + k) * scale;
    }
}

void cuda_embed(cca_backend *base, cca_matrix *out, const cca_matrix *table, const int32_t *ids,
                float scale, int64_t n) {
    cuda_backend *b = cuda_of(base);
    size_t bytes = (size_t)n * sizeof *ids;
    few_ids few = {};
    int32_t *device_ids = NULL;
    if (bytes <= sizeof few) {
        memcpy(&few, ids, bytes);
    } else {
        device_ids = (int32_t *)cuda_grow(b, &b->ids, bytes);
        if (!device_ids) return;
        cuda_push(b, device_ids, ids, bytes);
    }
    cuda_launch(b, "embed", embed, cuda_blocks(n, 1), THREADS, 0, (float *)out->data,
                cuda_weights_of(table), (const int32_t *)device_ids, few, scale);
}

enum {
    NORM_THREADS = 512,
    NORM_KEPT = 4, /* pieces of four values that a thread keeps of a row: 8192 values in all */
};

/* The sum of x over a block of NORM_THREADS threads, for all of them. */
static __device__ float block_sum(float x) {
    __shared__ float sums[NORM_THREADS / CUDA_WARP];
    x = cuda_warp_sum(x);
    if (threadIdx.x % CUDA_WARP == 0) sums[threadIdx.x / CUDA_WARP] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (int i = 0; i < NORM_THREADS / CUDA_WARP; i++) x += sums[i];
    return x;
}

static __device__ float norm_scale(float sum, float eps, int64_t cols) {
    return 1 / sqrtf(block_sum(sum) / (float)cols + eps);
}

/* One block a row. */
static __global__ void rmsnorm(float *out, const float *x, const float *weight, float eps,
                               int64_t cols) {
    cuda_begin();
    const float *row = x + blockIdx.x * cols;
    float sum = 0;
    for (int64_t k = threadIdx.x; k < cols; k += NORM_THREADS) sum += row[k] * row[k];
    float scale = norm_scale(sum, eps, cols);
    for (int64_t k = threadIdx.x; k < cols; k += NORM_THREADS) {
        out[blockIdx.x * cols + k] = row[k] * scale * weight[k];
    }
}

/* The same for rows that fit the registers of a block, in pieces of 16 bytes. */
static __global__ void __launch_bounds__(NORM_THREADS)
    rmsnorm_kept(float4 *out, __nv_bfloat16 *twin, const float4 *x, const float4 *weight, float eps,
                 int pieces) {
    cuda_begin();
    const float4 *row = x + (int64_t)blockIdx.x * pieces;
    float4 kept[NORM_KEPT];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < NORM_KEPT; i++) {
        int at = i * NORM_THREADS + (int)threadIdx.x;
        kept[i] = at < pieces ? row[at] : make_float4(0, 0, 0, 0);
        sum += kept[i].x * kept[i].x + kept[i].y * kept[i].y + kept[i].z * kept[i].z +
               kept[i].w * kept[i].w;
    }
    float scale = norm_scale(sum, eps, (int64_t)pieces * 4);
#pragma unroll
    for (int i = 0; i < NORM_KEPT; i++) {
        int at = i * NORM_THREADS + (int)threadIdx.x;
        if (at >= pieces) break;
        float4 w = weight[at], v = kept[i];
        int64_t to = (int64_t)blockIdx.x * pieces + at;
        v = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
        if (out) out[to] = v;
        if (twin) cuda_put_twin(twin, to * 4, v);
    }
}

/* Whether rows of x fit rmsnorm_kept. */
static bool norm_keeps(int64_t cols) {
    return cols % 4 == 0 && cols <= 4 * NORM_KEPT * NORM_THREADS;
}

void *cuda_rmsnorm16(cuda_backend *b, const cca_matrix *x, int64_t x_row, const cca_matrix *weight,
                     float eps, int64_t n) {
    const float *from = (const float *)x->data + x_row * x->cols;
    if (!norm_keeps(x->cols)) return NULL;
    void *out = cuda_grow(b, &b->x, (size_t)(n * x->cols) * sizeof(__nv_bfloat16));
    if (!out) return NULL;
    cuda_launch(b, "rmsnorm", rmsnorm_kept, cuda_blocks(n, 1), NORM_THREADS, 0, (float4 *)NULL,
                (__nv_bfloat16 *)out, (const float4 *)from, (const float4 *)weight->data, eps,
                (int)(x->cols / 4));
    return out;
}

void cuda_rmsnorm(cca_backend *base, cca_matrix *out, const cca_matrix *x, int64_t x_row,
                  const cca_matrix *weight, float eps, int64_t n) {
    cuda_backend *b = cuda_of(base);
    int64_t cols = x->cols;
    const float *from = (const float *)x->data + x_row * cols;
    const cuda_norm norm = {(const float *)weight->data, eps};
    if (from == out->data && cuda_token_norm(b, (float *)out->data, n, cols, &norm)) return;
    if (norm_keeps(cols)) {
        __nv_bfloat16 *twin = cuda_twin(b, out, n);
        cuda_launch(b, "rmsnorm", rmsnorm_kept, cuda_blocks(n, 1), NORM_THREADS, 0,
                    (float4 *)out->data, twin, (const float4 *)from, (const float4 *)weight->data,
                    eps, (int)(cols / 4));
        if (twin) cuda_set_twin(b, out, n);
    } else {
        cuda_launch(b, "rmsnorm", rmsnorm, cuda_blocks(n, 1), NORM_THREADS, 0, (float *)out->data,
                    from, (const float *)weight->data, eps, cols);
    }
}

/* Threads take four values each where the number allows it. */
static __global__ void swiglu(float *gate, __nv_bfloat16 *twin, const float *up, int64_t n) {
    cuda_begin();
    int64_t i = cuda_index() * 4;
    if (i + 4 <= n) {
        float4 g = *(float4 *)(gate + i), u = *(const float4 *)(up + i);
        g = make_float4(cuda_gated(g.x, u.x), cuda_gated(g.y, u.y), cuda_gated(g.z, u.z),
                        cuda_gated(g.w, u.w));
        *(float4 *)(gate + i) = g;
        if (twin) cuda_put_twin(twin, i, g);
    } else {
        for (; i < n; i++) gate[i] = cuda_gated(gate[i], up[i]);
    }
}

void cuda_swiglu(cca_backend *base, cca_matrix *gate, const cca_matrix *up, int64_t n) {
    cuda_backend *b = cuda_of(base);
    int64_t values = n * up->cols;
    __nv_bfloat16 *twin = cuda_twin(b, gate, n);
    cuda_launch(b, "swiglu", swiglu, cuda_blocks(values, THREADS * 4), THREADS, 0,
                (float *)gate->data, twin, (const float *)up->data, values);
    if (twin) cuda_set_twin(b, gate, n);
}

/* Eight values a thread. */
static __global__ void swiglu16(uint4 *gate, const uint4 *up, int64_t n) {
    cuda_begin();
    int64_t i = cuda_index();
    if (i >= n) return;
    uint4 g = gate[i], u = up[i];
    uint32_t *words[2] = {&g.x, &u.x};
#pragma unroll
    for (int k = 0; k < 4; k++) {
        float2 a = cuda_two<true>(words[0][k]), c = cuda_two<true>(words[1][k]);
        __nv_bfloat162 pair = __floats2bfloat162_rn(cuda_gated(a.x, c.x), cuda_gated(a.y, c.y));
        memcpy(&words[0][k], &pair, sizeof pair);
    }
    gate[i] = g;
}

void cuda_swiglu16(cuda_backend *b, void *gate, const void *up, int64_t n_values) {
    cuda_launch(b, "swiglu", swiglu16, cuda_blocks(n_values / 8, THREADS), THREADS, 0,
                (uint4 *)gate, (const uint4 *)up, n_values / 8);
}

/* ---- rows of a cache ----------------------------------------------------------------- */

/* Grid: tokens, blocks of a token's pieces; one warp a piece: 32 values of a head's key and value.
 */
static __global__ void store(cca_rows rows, const float *k, const float *v, int64_t pos) {
    cuda_begin();
    int hd = (int)rows.head_dim, pieces = (hd + CUDA_WARP - 1) / CUDA_WARP;
    int piece = (int)((blockIdx.y * blockDim.x + threadIdx.x) / CUDA_WARP);
    int head = piece / pieces, d = (piece - head * pieces) * CUDA_WARP;
    int lane = (int)(threadIdx.x % CUDA_WARP), n_lanes = hd - d < CUDA_WARP ? hd - d : CUDA_WARP;
    if (head >= rows.heads) return;
    int64_t from = (blockIdx.x * rows.heads + head) * hd + d + lane;
    int64_t to = (head * rows.capacity + cca_rows_at(&rows, pos + blockIdx.x)) * hd + d;
    cuda_put(rows.k, rows.k_type, to, lane < n_lanes ? k[from] : 0, n_lanes);
    cuda_put(rows.v, rows.v_type, to, lane < n_lanes ? v[from] : 0, n_lanes);
}

void cuda_store(cca_backend *b, cca_rows *rows, const cca_matrix *k, const cca_matrix *v,
                int64_t pos, int64_t n) {
    int64_t pieces = rows->heads * ((rows->head_dim + CUDA_WARP - 1) / CUDA_WARP);
    cuda_launch(cuda_of(b), "store", store,
                dim3((unsigned)n, cuda_blocks(pieces, THREADS / CUDA_WARP)), THREADS, 0, *rows,
                (const float *)k->data, (const float *)v->data, pos);
}

/* Rows of the same width lie at different places: one warp a row, in pieces of any size. */
template <typename T>
static __global__ void move_rows(T *out, const T *in, cca_rows to, cca_rows from, int64_t width,
                                 int64_t pos, int64_t n) {
    cuda_begin();
    int64_t warp = cuda_index() / CUDA_WARP;
    if (warp >= n * to.heads) return;
    int64_t head = warp / n, p = pos + warp % n;
    out += (head * to.capacity + cca_rows_at(&to, p)) * width;
    in += (head * from.capacity + cca_rows_at(&from, p)) * width;
    for (int64_t i = threadIdx.x % CUDA_WARP; i < width; i += CUDA_WARP) out[i] = in[i];
}

template <typename T>
static void move_some(cuda_backend *b, void *out, const void *in, const cca_rows *to,
                      const cca_rows *from, size_t width, int64_t pos, int64_t n) {
    cuda_launch(b, "move", move_rows<T>, cuda_blocks(n * to->heads * CUDA_WARP, THREADS), THREADS,
                0, (T *)out, (const T *)in, *to, *from, (int64_t)(width / sizeof(T)), pos, n);
}

static void move_all(cuda_backend *b, void *out, const void *in, cca_dtype type, const cca_rows *to,
                     const cca_rows *from, int64_t pos, int64_t n) {
    size_t width = 0;
    cca_dtype_row_bytes(&width, type, to->head_dim);
    if (width % sizeof(uint4) == 0) {
        move_some<uint4>(b, out, in, to, from, width, pos, n);
    } else {
        move_some<uint16_t>(b, out, in, to, from, width, pos, n);
    }
}

/* Rows in another type: one warp a piece of 32 values. */
static __global__ void convert_rows(void *out, cca_dtype out_type, const void *in,
                                    cca_dtype in_type, cca_rows to, cca_rows from, int64_t pos,
                                    int64_t n) {
    cuda_begin();
    int64_t warp = cuda_index() / CUDA_WARP, hd = to.head_dim;
    int64_t pieces = (hd + CUDA_WARP - 1) / CUDA_WARP, row = warp / pieces;
    if (row >= n * to.heads) return;
    int64_t head = row / n, p = pos + row % n, d = warp % pieces * CUDA_WARP;
    int lane = (int)(threadIdx.x % CUDA_WARP);
    int n_lanes = (int)(hd - d < CUDA_WARP ? hd - d : CUDA_WARP);
    int64_t source = (head * from.capacity + cca_rows_at(&from, p)) * hd + d;
    int64_t target = (head * to.capacity + cca_rows_at(&to, p)) * hd + d;
    float x = lane < n_lanes ? cuda_row_value(in, in_type, source + lane) : 0;
    cuda_put(out, out_type, target, x, n_lanes);
}

static void move_side(cuda_backend *b, void *out, cca_dtype out_type, const void *in,
                      cca_dtype in_type, const cca_rows *to, const cca_rows *from, int64_t pos,
                      int64_t n) {
    if (out_type == in_type) {
        move_all(b, out, in, out_type, to, from, pos, n);
        return;
    }
    if (cuda_spread(b, out, out_type, in, in_type, to, from, pos, n)) return;
    int64_t pieces = n * to->heads * ((to->head_dim + CUDA_WARP - 1) / CUDA_WARP);
    cuda_launch(b, "convert", convert_rows, cuda_blocks(pieces, THREADS / CUDA_WARP), THREADS, 0,
                out, out_type, in, in_type, *to, *from, pos, n);
}

void cuda_move(cca_backend *b, cca_rows *out, const cca_rows *in, int64_t pos, int64_t n) {
    move_side(cuda_of(b), out->k, out->k_type, in->k, in->k_type, out, in, pos, n);
    move_side(cuda_of(b), out->v, out->v_type, in->v, in->v_type, out, in, pos, n);
}

/* ---- what few architectures need --------------------------------------------------------- */

static __global__ void relu_squared(float *x, int64_t n) {
    cuda_begin();
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = x[i] > 0 ? x[i] * x[i] : x[i] * 0; /* what is no number stays none */
}

static __global__ void accumulate(float *x, const float *y, int64_t n) {
    cuda_begin();
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += y[i];
}

void cuda_relu_squared(cca_backend *base, cca_matrix *x, int64_t n) {
    int64_t values = n * x->cols;
    cuda_launch(cuda_of(base), "relu squared", relu_squared, cuda_blocks(values, THREADS), THREADS,
                0, (float *)x->data, values);
}

void cuda_accumulate(cca_backend *base, cca_matrix *x, const cca_matrix *y, int64_t n) {
    int64_t values = n * x->cols;
    cuda_launch(cuda_of(base), "accumulate", accumulate, cuda_blocks(values, THREADS), THREADS, 0,
                (float *)x->data, (const float *)y->data, values);
}
