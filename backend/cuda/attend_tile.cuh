/* What the two forms of attention on tensor cores share: what a block of queries walks over, and
 * the softmax on accumulator fragments.
 *
 *     __shared__ tile_plan<128> plan;
 *     tile_make_plan<64>(&plan, args, first_query, head, threadIdx.x, blockDim.x);
 *     __syncthreads();
 *     for (int t = 0; t < plan.n_all; t++) ...
 *
 * Running softmax: Milakov and Gimelshein, arXiv:1805.02867. Accumulators of a 16 × 8 product lie
 * as mma and wgmma leave them: a lane has columns lane % 4 * 2 and the next, of rows lane / 4
 * (side 0) and lane / 4 + 8 (side 1). */
#ifndef CCA_CUDA_ATTEND_TILE_CUH
#define CCA_CUDA_ATTEND_TILE_CUH

#include "backend/cuda/types.cuh"

struct tile_args {
    cca_spans spans;
    const float *q;
    float *out;
    __nv_bfloat16 *twin; /* of out, or NULL */
    int64_t n_heads, pos, n;
};

/* What a block of BM queries walks over, in shared memory, since its registers are all taken: the
 * tiles of one span behind those of the other. A span's columns count from the first that the block
 * sees. Tiles within [free_begin, free_end) need no mask. Queries behind the last are the last one
 * again. */
template <int BM> struct tile_plan {
    int n_tiles[CCA_MOST_SPANS], n_columns[CCA_MOST_SPANS]; /* 0 behind the last span */
    int free_begin[CCA_MOST_SPANS], free_end[CCA_MOST_SPANS];
    int64_t first_row[CCA_MOST_SPANS];                    /* of all rows of all heads */
    int begin[CCA_MOST_SPANS][BM], end[CCA_MOST_SPANS][BM]; /* what each query sees */
    int n_all;                                            /* tiles */
};

/* For tiles of BN keys. The first n_threads threads work together; the caller synchronises. */
template <int BN, int BM>
static __device__ void tile_make_plan(tile_plan<BM> *p, const tile_args &a, int64_t first,
                                      int64_t head, int thread, int n_threads) {
    int64_t last = (first + BM < a.n ? first + BM : a.n) - 1;
    int n_all = 0;
    for (int s = 0; s < CCA_MOST_SPANS; s++) {
        const cca_span &span = a.spans.at[s];
        bool there = s < a.spans.n;
        cca_tile t = {};
        if (there) t = cca_range_tile(&span.seen, a.pos + first, a.pos + last);
        for (int i = thread; there && i < BM; i += n_threads) {
            int64_t pos = a.pos + (first + i < last ? first + i : last);
            p->begin[s][i] = (int)(cca_edge_at(&span.seen.begin, pos) - t.begin);
            p->end[s][i] = (int)(cca_edge_at(&span.seen.end, pos) - t.begin);
        }
        if (thread != 0) continue;
        p->n_columns[s] = (int)(t.end - t.begin);
        p->n_tiles[s] = (p->n_columns[s] + BN - 1) / BN;
        p->free_begin[s] = (int)(t.free_begin - t.begin);
        p->free_end[s] = (int)(t.free_end - t.begin);
        n_all += p->n_tiles[s];
        if (p->n_tiles[s] == 0) continue;
        int64_t row = cca_rows_at(&span.rows, t.begin);
        p->first_row[s] = head / (a.n_heads / span.rows.heads) * span.rows.capacity + row;
    }
    if (thread == 0) p->n_all = n_all;
}

/* The span of tile t, and the tile's first column. */
template <int BN, int BM>
static __device__ __forceinline__ int tile_column(const tile_plan<BM> *p, int t, int *column) {
    int span = 0;
#pragma unroll
    for (int i = 0; i < CCA_MOST_SPANS - 1; i++) {
        if (span < i || t < p->n_tiles[i]) continue;
        t -= p->n_tiles[i];
        span++;
    }
    *column = t * BN;
    return span;
}

template <int BN, int BM>
static __device__ __forceinline__ bool tile_masked(const tile_plan<BM> *p, int span, int column) {
    return column < p->free_begin[span] || column + BN > p->free_end[span];
}

/* Removes what the query of a row does not see of N_TILES · 8 columns from column on. */
template <int N_TILES, int BM>
static __device__ __forceinline__ void
tile_mask(float s[N_TILES][4], int side, const tile_plan<BM> *p, int row, int span, int column) {
    int begin = p->begin[span][row], end = p->end[span][row];
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
static inline tile_args tile_make_args(cuda_backend *b, cca_matrix *out, const cca_spans *spans,
                                       const cca_matrix *q, int64_t pos, int64_t n) {
    int64_t n_heads = q->cols / spans->at[0].rows.head_dim;
    return tile_args{
        *spans, (const float *)q->data, (float *)out->data, cuda_twin(b, out, n), n_heads, pos, n};
}

/* Whether rows are bf16 or f16, of a width that suits, and what the queries see of each span lies
 * in one piece. */
static inline bool tile_suits(const cca_spans *spans, int64_t pos, int64_t n) {
    const cca_rows *like = &spans->at[0].rows;
    bool suits = like->k_type == like->v_type && cuda_is_half(like->k_type) &&
                 (like->head_dim == 64 || like->head_dim == 128);
    for (int i = 0; suits && i < spans->n; i++) {
        const cca_rows *rows = &spans->at[i].rows;
        cca_tile t = cca_range_tile(&spans->at[i].seen, pos, pos + n - 1);
        suits = t.end <= t.begin || cca_rows_run(rows, t.begin) >= t.end - t.begin;
    }
    return suits;
}

#endif
