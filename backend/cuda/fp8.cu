/* Products of many rows in 8-bit floats (e4m3), twice as fast as in bf16: each row of x and each
 * row of weights has a scale of its own, its largest value over 448. The library multiplies the
 * sums by both. Rows are read once: a block keeps its row in registers between finding the largest
 * value and rounding. */
#include "backend/cuda/types.cuh"

#include <cuda_fp8.h>

enum {
    THREADS = 256,
    KEPT = 8, /* pieces of eight values that a thread keeps of a row */
};

/* What is less is as good as nothing, and no quotient of it would be finite. */
static constexpr float TINY = 1e-30f;

/* The widest row. */
enum { MOST_COLS = THREADS * KEPT * 8 };

struct row_args {
    uint2 *out;
    float *scale; /* of each row */
    int pieces;   /* of a row */
};

/* The sum or the largest of x over a block, for all its threads. */
template <bool largest> static __device__ __forceinline__ float over_block(float x) {
    __shared__ float all[THREADS / CUDA_WARP];
    x = largest ? cuda_warp_max(x) : cuda_warp_sum(x);
    if (threadIdx.x % CUDA_WARP == 0) all[threadIdx.x / CUDA_WARP] = x;
    __syncthreads();
    x = all[0];
#pragma unroll
    for (int i = 1; i < THREADS / CUDA_WARP; i++) x = largest ? fmaxf(x, all[i]) : x + all[i];
    return x;
}

static __device__ __forceinline__ uint32_t four_bytes(const float *v, float by) {
    uint32_t low =
        __nv_cvt_float2_to_fp8x2(make_float2(v[0] * by, v[1] * by), __NV_SATFINITE, __NV_E4M3);
    uint32_t high =
        __nv_cvt_float2_to_fp8x2(make_float2(v[2] * by, v[3] * by), __NV_SATFINITE, __NV_E4M3);
    return low | high << 16;
}

/* Rounds a block's row; pieces behind its end are zeros. */
static __device__ __forceinline__ void put_row(const row_args &a, const float v[KEPT][8]) {
    float largest = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
#pragma unroll
        for (int i = 0; i < 8; i++) largest = fmaxf(largest, fabsf(v[k][i]));
    }
    largest = over_block<true>(largest);
    float by = largest > TINY ? 448 / largest : 0;
    if (threadIdx.x == 0) a.scale[blockIdx.x] = largest / 448;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int at = k * THREADS + (int)threadIdx.x;
        if (at >= a.pieces) break;
        a.out[(int64_t)blockIdx.x * a.pieces + at] =
            make_uint2(four_bytes(v[k], by), four_bytes(v[k] + 4, by));
    }
}

static __device__ __forceinline__ void clear(float v[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = 0;
}

/* bf16 rows. */
static __global__ void __launch_bounds__(THREADS) round_rows(const row_args a, const uint4 *x) {
    cuda_begin();
    float v[KEPT][8];
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int at = k * THREADS + (int)threadIdx.x;
        clear(v[k]);
        if (at < a.pieces) cuda_eight<true>(v[k], x[(int64_t)blockIdx.x * a.pieces + at]);
    }
    put_row(a, v);
}

/* silu(gate) * up, both bf16. */
static __global__ void __launch_bounds__(THREADS)
    round_gated(const row_args a, const uint4 *gate, const uint4 *up) {
    cuda_begin();
    float v[KEPT][8], u[8];
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int at = k * THREADS + (int)threadIdx.x;
        int64_t from = (int64_t)blockIdx.x * a.pieces + at;
        clear(v[k]);
        if (at >= a.pieces) continue;
        cuda_eight<true>(v[k], gate[from]);
        cuda_eight<true>(u, up[from]);
#pragma unroll
        for (int i = 0; i < 8; i++) v[k][i] = cuda_gated(v[k][i], u[i]);
    }
    put_row(a, v);
}

/* Eight f32 values. */
static __device__ __forceinline__ void read_eight(float v[8], const float4 *from) {
    float4 low = from[0], high = from[1];
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
}

/* The norm of f32 rows. */
static __global__ void __launch_bounds__(THREADS)
    round_norm(const row_args a, const float4 *x, const float4 *weight, float eps) {
    cuda_begin();
    float v[KEPT][8], w[8], sum = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int at = k * THREADS + (int)threadIdx.x;
        clear(v[k]);
        if (at < a.pieces) read_eight(v[k], x + ((int64_t)blockIdx.x * a.pieces + at) * 2);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += v[k][i] * v[k][i];
    }
    float scale = 1 / sqrtf(over_block<false>(sum) / (float)(a.pieces * 8) + eps);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int at = k * THREADS + (int)threadIdx.x;
        if (at >= a.pieces) continue;
        read_eight(w, weight + at * 2);
#pragma unroll
        for (int i = 0; i < 8; i++) v[k][i] *= scale * w[i];
    }
    __syncthreads(); /* the sums have been read */
    put_row(a, v);
}

bool cuda_bytes_suit(const cuda_backend *b, const cca_product *p) {
    const cca_matrix *w = p->weight;
    return b->fp8 && !p->bias && !cuda_is_exact(w->type) && w->cols % 16 == 0 &&
           w->rows % 16 == 0 && w->cols <= MOST_COLS;
}

/* Room for n rows and their scales in a buffer. */
static bool make_room(cuda_backend *b, cuda_buffer *buffer, row_args *a, int64_t n, int64_t cols) {
    size_t values = (size_t)(n * cols);
    char *data = (char *)cuda_grow(b, buffer, values + (size_t)n * sizeof *a->scale);
    *a = row_args{(uint2 *)data, (float *)(data + values), (int)(cols / 8)};
    return data != NULL;
}

cuda_operand cuda_bytes_of(cuda_backend *b, cuda_buffer *buffer, const void *x16, int64_t n,
                           int64_t cols) {
    row_args a;
    if (!make_room(b, buffer, &a, n, cols)) return cuda_operand{};
    cuda_launch(b, "rounding", round_rows, cuda_blocks(n, 1), THREADS, 0, a, (const uint4 *)x16);
    return cuda_operand{a.out, CUDA_R_8F_E4M3, a.scale};
}

cuda_operand cuda_bytes_of_gated(cuda_backend *b, const void *gate, const void *up, int64_t n,
                                 int64_t cols) {
    row_args a;
    if (!make_room(b, &b->x8, &a, n, cols)) return cuda_operand{};
    cuda_launch(b, "rounding", round_gated, cuda_blocks(n, 1), THREADS, 0, a, (const uint4 *)gate,
                (const uint4 *)up);
    return cuda_operand{a.out, CUDA_R_8F_E4M3, a.scale};
}

cuda_operand cuda_bytes_of_norm(cuda_backend *b, const cca_matrix *x, int64_t x_row,
                                const cca_matrix *weight, float eps, int64_t n) {
    row_args a;
    if (!make_room(b, &b->x8, &a, n, x->cols)) return cuda_operand{};
    cuda_launch(b, "rounding", round_norm, cuda_blocks(n, 1), THREADS, 0, a,
                (const float4 *)((const float *)x->data + x_row * x->cols),
                (const float4 *)weight->data, eps);
    return cuda_operand{a.out, CUDA_R_8F_E4M3, a.scale};
}
