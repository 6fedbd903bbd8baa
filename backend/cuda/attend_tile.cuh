/* What the two forms of attention on tensor cores share: what a block of queries walks over, and
 * the softmax on accumulator fragments.
 *
 *     __shared__ tile_plan<128> plan;
 *     tile_make_plan<64>(&plan, args, first_query, head, threadIdx.x, blockDim.x);
 *     __syncthreads();
 *     for (int t = 0; t < plan.n_tiles[0] + plan.n_tiles[1]; t++) ...
 *
 * Running softmax: Milakov and Gimelshein, arXiv:1805.02867. Accumulators of a 16 × 8 product lie
 * as mma and wgmma leave them: a lane has columns lane % 4 * 2 and the next, of rows lane / 4
 * (side 0) and lane / 4 + 8 (side 1). */
#ifndef CCA_CUDA_TILE_CUH
#define CCA_CUDA_TILE_CUH

#include "backend/cuda/device.cuh"

struct tile_args {
    cca_keys keys;
    const float *q;
    float *out;
    __nv_bfloat16 *twin; /* of out, or NULL */
    int64_t n_heads, pos, n;
};

/* What a block of BM queries walks over, in shared memory, since its registers are all taken.
 * Columns count from the first raw key that the block sees, or from far row 0. Tiles within
 * [free_begin, free_end) need no mask. Queries behind the last are the last one again. */
template <int BM> struct tile_plan {
    int n_tiles[2], n_columns[2], free_begin[2], free_end[2]; /* raw, far */
    int64_t first_row[2];                                     /* of all rows of all heads */
    int begin[BM], end[BM], far[BM];                          /* what each query sees */
};

/* For tiles of BN keys. The first n_threads threads work together; the caller synchronises. */
template <int BN, int BM>
static __device__ void tile_make_plan(tile_plan<BM> *p, const tile_args &a, int64_t first,
                                      int64_t head, int thread, int n_threads) {
    const cca_rule *rule = &a.keys.rule;
    int64_t last = (first + BM < a.n ? first + BM : a.n) - 1;
    cca_tile t = cca_rule_tile(rule, a.pos + first, a.pos + last);
    for (int i = thread; i < BM; i += n_threads) {
        int64_t pos = a.pos + (first + i < last ? first + i : last);
        p->begin[i] = (int)(cca_rule_raw_begin(rule, pos) - t.raw_begin);
        p->end[i] = (int)(pos + 1 - t.raw_begin);
        p->far[i] = (int)cca_rule_far(rule, pos);
    }
    if (thread != 0) return;
    p->n_columns[0] = (int)(t.raw_end - t.raw_begin);
    p->n_columns[1] = (int)t.far_end;
    p->free_begin[0] = (int)(cca_rule_raw_begin(rule, t.last) - t.raw_begin);
    p->free_begin[1] = 0;
    p->free_end[0] = (int)(t.first + 1 - t.raw_begin);
    p->free_end[1] = (int)cca_rule_far(rule, t.first);
    for (int i = 0; i < 2; i++) {
        const cca_rows &rows = i == 0 ? a.keys.raw : a.keys.far;
        p->n_tiles[i] = (p->n_columns[i] + BN - 1) / BN;
        if (p->n_tiles[i] == 0) continue;
        int64_t row = i == 0 ? cca_rows_at(&rows, t.raw_begin) : 0;
        p->first_row[i] = head / (a.n_heads / rows.heads) * rows.capacity + row;
    }
}

/* Whether tile t is one of far rows, and its first column. */
template <int BN, int BM>
static __device__ __forceinline__ int tile_column(const tile_plan<BM> *p, int t, int *column) {
    int far = t >= p->n_tiles[0];
    *column = (far ? t - p->n_tiles[0] : t) * BN;
    return far;
}

template <int BN, int BM>
static __device__ __forceinline__ bool tile_masked(const tile_plan<BM> *p, int far, int column) {
    return column < p->free_begin[far] || column + BN > p->free_end[far];
}

/* Removes what the query of a row does not see of N_TILES · 8 columns from column on. */
template <int N_TILES, int BM>
static __device__ __forceinline__ void
tile_mask(float s[N_TILES][4], int side, const tile_plan<BM> *p, int row, int far, int column) {
    int begin = far ? 0 : p->begin[row], end = far ? p->far[row] : p->end[row];
    column += (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int c = column + n * 8 + i;
            if (c < begin || c >= end) s[n][side * 2 + i] = -INFINITY;
        }
    }
}

static __device__ __forceinline__ float tile_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Turns a row's scores into weights. total is a lane's own; the result is what was summed before
 * has to be multiplied with. unit: scale · log2 e. */
template <int N_TILES>
static __device__ __forceinline__ float tile_weigh(float s[N_TILES][4], int side, float unit,
                                                   float *largest, float *total) {
    float now = *largest;
#pragma unroll
    for (int n = 0; n < N_TILES; n++) now = fmaxf(now, fmaxf(s[n][side * 2], s[n][side * 2 + 1]));
    now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
    now = fmaxf(now, __shfl_xor_sync(~0u, now, 2));
    /* A row that has seen no key yet keeps weights of 0, not of exp(-inf + inf). */
    float base = now == -INFINITY ? 0 : now * unit;
    float shrink = tile_exp2(*largest * unit - base), sum = 0;
    *largest = now;
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
#pragma unroll
        for (int i = side * 2; i < side * 2 + 2; i++) {
            s[n][i] = tile_exp2(s[n][i] * unit - base);
            sum += s[n][i];
        }
    }
    *total = *total * shrink + sum;
    return shrink;
}

/* The sum of a value over the four lanes that share a row. */
static __device__ __forceinline__ float tile_row_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

template <bool is_bf16>
static __device__ __forceinline__ uint32_t tile_pack(float low, float high) {
    uint32_t bits;
    if (is_bf16) {
        __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        memcpy(&bits, &pair, sizeof bits);
    } else {
        __half2 pair = __floats2half2_rn(low, high);
        memcpy(&bits, &pair, sizeof bits);
    }
    return bits;
}

/* Two n-tiles of weights as the left operand of a product over 16 keys. */
template <bool is_bf16>
static __device__ __forceinline__ void tile_operand(uint32_t a[4], const float low[4],
                                                    const float high[4]) {
    a[0] = tile_pack<is_bf16>(low[0], low[1]);
    a[1] = tile_pack<is_bf16>(low[2], low[3]);
    a[2] = tile_pack<is_bf16>(high[0], high[1]);
    a[3] = tile_pack<is_bf16>(high[2], high[3]);
}

/* Writes a row's part of the output: columns lane % 4 * 2 and the next of each eight. */
template <int HD>
static __device__ __forceinline__ void tile_write(const tile_args &a, int64_t row, int64_t head,
                                                  const float out[HD / 8][4], int side,
                                                  float total) {
    int64_t at = (row * a.n_heads + head) * HD + threadIdx.x % 4 * 2;
#pragma unroll
    for (int d = 0; d < HD / 8; d++) {
        float2 v = make_float2(out[d][side * 2] / total, out[d][side * 2 + 1] / total);
        *(float2 *)(a.out + at + d * 8) = v;
        if (a.twin) *(__nv_bfloat162 *)(a.twin + at + d * 8) = __floats2bfloat162_rn(v.x, v.y);
    }
}

/* 1/sqrt(HD) · log2 e. */
template <int HD> static __device__ __forceinline__ float tile_unit() {
    return (HD == 64 ? 0.125f : 0.08838834764831845f) * 1.4426950408889634f;
}

/* Arguments of a call; the twin stays NULL where nobody wants it. */
static inline tile_args tile_make_args(cuda_backend *b, cca_matrix *out, const cca_keys *keys,
                                       const cca_matrix *q, int64_t pos, int64_t n) {
    int64_t n_heads = q->cols / keys->raw.head_dim;
    return tile_args{
        *keys, (const float *)q->data, (float *)out->data, cuda_twin(b, out, n), n_heads, pos, n};
}

/* Whether raw rows are bf16 or f16, of a width that suits, and lie in one piece. */
static inline bool tile_suits(const cca_keys *keys, int64_t pos, int64_t n) {
    const cca_rows *raw = &keys->raw;
    int64_t begin = cca_rule_raw_begin(&keys->rule, pos);
    return raw->k_type == raw->v_type && (raw->k_type == CCA_BF16 || raw->k_type == CCA_F16) &&
           (raw->head_dim == 64 || raw->head_dim == 128) && begin >= raw->base &&
           cca_rows_run(raw, begin) >= pos + n - begin;
}

#endif
