/* The walk over tiles of keys on tensor cores (mma.sync m16n8k16, sm_80 and newer), for bf16 and
 * f16 rows with head_dim 64 or 128: what the kernels of attend_mma.cu and attend_others.cu share.
 *
 *     mma_walk<64, 2> w;                                    // warps take 2 · 16 rows each
 *     mma_begin<64, true, 2>(memory, a, &plan);             // the first tile is on its way
 *     for (int t = 0; t < plan.n_all; t++)
 *         mma_step<64, true>(w, memory, a, &plan, t, nothing);
 *     mma_write(w, a, plan.rows);
 *
 * A fragment of keys or values serves M products of a warp. A block walks over tiles of MMA_BN
 * keys, one span behind the other, with a running softmax (Milakov and Gimelshein,
 * arXiv:1805.02867; Dao, arXiv:2307.08691). Keys and values come through cp.async into two buffers
 * each; rows are swizzled in pieces of 16 bytes so that ldmatrix meets no bank conflicts. */
#ifndef CCA_CUDA_ATTEND_MMA_CUH
#define CCA_CUDA_ATTEND_MMA_CUH

#include "backend/cuda/attend_tile.cuh"
#include "backend/cuda/mma.cuh"

enum {
    MMA_BN = 64, /* keys of a tile */
    MMA_WARPS = 4,
    MMA_THREADS = MMA_WARPS * CUDA_WARP,
    MMA_N_TILES = MMA_BN / 8,
};

/* Rows of a block, and its dynamic shared memory: queries, and two tiles of keys and of values. */
template <int M> constexpr int mma_rows = MMA_WARPS *M * 16;
template <int HD, int M> constexpr int mma_bytes = (mma_rows<M> + 4 * MMA_BN) * HD * 2;

/* A lane holds rows lane / 4 and lane / 4 + 8 of each m-tile; of the columns of each n-tile,
 * lane % 4 * 2 and the next. */
template <int HD, int M> struct mma_walk {
    float out[M][HD / 8][4] = {};
    float largest[M][2], total[M][2] = {};

    __device__ __forceinline__ mma_walk() {
#pragma unroll
        for (int m = 0; m < M; m++) largest[m][0] = largest[m][1] = -INFINITY;
    }
};

/* A lane's row of a block. */
template <int M> static __device__ __forceinline__ int mma_row(int m, int side) {
    int lane = (int)(threadIdx.x % CUDA_WARP), warp = (int)(threadIdx.x / CUDA_WARP);
    return (warp * M + m) * 16 + side * 8 + lane / 4;
}

/* ---- tiles --------------------------------------------------------------------------- */

/* Where piece (16 bytes) of a row of HD values lies in a swizzled tile. */
template <int HD> static __device__ __forceinline__ uint32_t mma_piece_at(int row, int piece) {
    return (uint32_t)(row * HD * 2 + ((piece ^ (row & 7)) << 4));
}

/* Starts copying keys or values of tile t. The rows of a walk do not wrap. */
template <int HD, int BM>
static __device__ __forceinline__ void mma_copy_tile(uint32_t to, const tile_args &a,
                                                     const tile_plan<BM> *p, int t, bool is_key) {
    enum { STEP = MMA_THREADS / (HD / 8) }; /* rows; a multiple of 8, as the swizzle wants */
    int column, span = tile_column<MMA_BN>(p, t, &column);
    const cca_rows &rows = a.spans.at[span].rows;
    int n = p->n_columns[span], row = (int)threadIdx.x / (HD / 8);
    int piece = (int)threadIdx.x % (HD / 8);
    const uint16_t *from = (const uint16_t *)(is_key ? rows.k : rows.v) + piece * 8;
    to += mma_piece_at<HD>(row, piece);
    column += row;
#pragma unroll
    for (int i = 0; i < MMA_BN / STEP; i++, column += STEP) {
        bool there = column < n;
        int64_t at = tile_row_of(p, span, there ? column : n - 1);
        mma_copy16(to + (uint32_t)(i * STEP * HD * 2), from + at * HD, there);
    }
}

/* Queries of a block, rounded; those behind the last are the last one again. */
template <int HD, bool is_bf16, int M>
static __device__ __forceinline__ void mma_read_queries(char *to, const tile_args &a,
                                                        const tile_rows &rows) {
#pragma unroll 4
    for (int i = 0; i < mma_rows<M> * HD / 4 / MMA_THREADS; i++) {
        int at = i * MMA_THREADS + (int)threadIdx.x, r = at / (HD / 4), part = at % (HD / 4);
        float4 v = *(const float4 *)(a.q + tile_row_at(a, rows, r, HD) + part * 4);
        uint2 bits =
            make_uint2(cuda_round_two<is_bf16>(v.x, v.y), cuda_round_two<is_bf16>(v.z, v.w));
        *(uint2 *)(to + mma_piece_at<HD>(r, part / 2) + part % 2 * 8) = bits;
    }
}

/* ---- a step of the walk ---------------------------------------------------------------- */

/* Where a lane reads a matrix fragment of a tile. Since rows come in eights, the piece's part of
 * the address is an exclusive or: steps along a row are one, too. */
template <int HD>
static __device__ __forceinline__ uint32_t mma_fragment_at(uint32_t tile, int row, int piece) {
    return tile + mma_piece_at<HD>(row, piece);
}

/* scores = queries · keysᵀ of one tile. */
template <int HD, bool is_bf16, int M>
static __device__ __forceinline__ void mma_score(float s[M][MMA_N_TILES][4], uint32_t q,
                                                 uint32_t k) {
    int lane = (int)(threadIdx.x % CUDA_WARP), warp = (int)(threadIdx.x / CUDA_WARP);
    q = mma_fragment_at<HD>(q, warp * M * 16 + lane % 16, lane / 16);
    k = mma_fragment_at<HD>(k, lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int step = 0; step < HD / 16; step++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma_load(a[m], (q ^ (uint32_t)(step * 32)) + (uint32_t)(m * 16 * HD * 2));
        }
#pragma unroll
        for (int n = 0; n < MMA_N_TILES; n += 2) {
            uint32_t b[4];
            mma_load(b, (k ^ (uint32_t)(step * 32)) + (uint32_t)(n * 8 * HD * 2));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_multiply<is_bf16>(s[m][n], a[m], b[0], b[1]);
                mma_multiply<is_bf16>(s[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* Removes what queries do not see of a tile. */
template <int M, int BM>
static __device__ __forceinline__ void mma_mask(float s[M][MMA_N_TILES][4], const tile_plan<BM> *p,
                                                int span, int column) {
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int side = 0; side < 2; side++) {
            tile_mask<MMA_N_TILES>(s[m], side, p, mma_row<M>(m, side), span, column);
        }
    }
}

/* Turns scores into weights and shrinks what was summed before. */
template <int HD, int M>
static __device__ __forceinline__ void mma_weigh(mma_walk<HD, M> &w, float s[M][MMA_N_TILES][4]) {
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int side = 0; side < 2; side++) {
            float shrink = tile_weigh<MMA_N_TILES>(s[m], side, cuda_score_unit<HD>(),
                                                   &w.largest[m][side], &w.total[m][side]);
#pragma unroll
            for (int d = 0; d < HD / 8; d++) {
                w.out[m][d][side * 2] *= shrink;
                w.out[m][d][side * 2 + 1] *= shrink;
            }
        }
    }
}

/* out += weights · values; the scores' fragments are the product's. */
template <int HD, bool is_bf16, int M>
static __device__ __forceinline__ void mma_add_values(mma_walk<HD, M> &w,
                                                      float s[M][MMA_N_TILES][4], uint32_t v) {
    int lane = (int)(threadIdx.x % CUDA_WARP);
    v = mma_fragment_at<HD>(v, lane / 8 % 2 * 8 + lane % 8, lane / 16);
#pragma unroll
    for (int step = 0; step < MMA_BN / 16; step++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            tile_operand<is_bf16>(a[m], s[m][step * 2], s[m][step * 2 + 1]);
        }
#pragma unroll
        for (int d = 0; d < HD / 8; d += 2) {
            uint32_t b[4];
            mma_load_transposed(b, (v ^ (uint32_t)(d * 16)) + (uint32_t)(step * 16 * HD * 2));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_multiply<is_bf16>(w.out[m][d], a[m], b[0], b[1]);
                mma_multiply<is_bf16>(w.out[m][d + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* ---- the walk -------------------------------------------------------------------------- */

/* Where the tiles of keys begin in a block's memory; those of values lie behind them. */
template <int HD, int M> static __device__ __forceinline__ uint32_t mma_keys(const char *memory) {
    return cuda_shared(memory) + mma_rows<M> * HD * 2;
}

/* Starts copying the first tile, and reads the queries; a plan that has a tile. */
template <int HD, bool is_bf16, int M>
static __device__ __forceinline__ void mma_begin(char *memory, const tile_args &a,
                                                 const tile_plan<mma_rows<M>> *p) {
    uint32_t k = mma_keys<HD, M>(memory), v = k + 2 * MMA_BN * HD * 2;
    mma_copy_tile<HD>(k, a, p, 0, true);
    mma_copy_commit();
    mma_copy_tile<HD>(v, a, p, 0, false);
    mma_copy_commit();
    mma_read_queries<HD, is_bf16, M>(memory, a, p->rows);
}

/* Tile t. leave_out(s, t) may remove more of its scores than the plan's masks; what a block wrote
 * to shared memory in the step before is there for it. */
template <int HD, bool is_bf16, int M, typename L>
static __device__ __forceinline__ void mma_step(mma_walk<HD, M> &w, const char *memory,
                                                const tile_args &a, const tile_plan<mma_rows<M>> *p,
                                                int t, L leave_out) {
    enum { TILE = MMA_BN * HD * 2 };
    uint32_t k = mma_keys<HD, M>(memory), v = k + 2 * TILE;
    uint32_t here = (uint32_t)(t % 2 * TILE), there = TILE - here;
    float s[M][MMA_N_TILES][4] = {};
    mma_copy_wait<1>();
    __syncthreads();
    if (t + 1 < p->n_all) mma_copy_tile<HD>(k + there, a, p, t + 1, true);
    mma_copy_commit();
    mma_score<HD, is_bf16, M>(s, cuda_shared(memory), k + here);
    int column, span = tile_column<MMA_BN>(p, t, &column);
    if (tile_masked<MMA_BN>(p, span, column)) mma_mask<M>(s, p, span, column);
    leave_out(s, t);
    mma_weigh<HD, M>(w, s);
    mma_copy_wait<1>();
    __syncthreads();
    if (t + 1 < p->n_all) mma_copy_tile<HD>(v + there, a, p, t + 1, false);
    mma_copy_commit();
    mma_add_values<HD, is_bf16, M>(w, s, v + here);
}

template <int HD, int M>
static __device__ __forceinline__ void mma_write(mma_walk<HD, M> &w, const tile_args &a,
                                                 const tile_rows &rows) {
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int side = 0; side < 2; side++) {
            float total = tile_row_sum(w.total[m][side]);
            int row = mma_row<M>(m, side);
            if (row >= rows.n_rows) continue;
            tile_write<HD>(a, tile_row_at(a, rows, row, HD), w.out[m], side, w.largest[m][side],
                           total);
        }
    }
}

/* A block's shared memory is more than a kernel gets unasked. */
template <typename... Parameters, typename... Arguments>
static void mma_launch(cuda_backend *b, void (*kernel)(Parameters...), dim3 grid, int shared,
                       Arguments... arguments) {
    cuda_check(b, cudaSetDevice(b->device), "attention");
    cuda_check(b, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
               "attention");
    cuda_launch(b, "attention", kernel, grid, MMA_THREADS, (size_t)shared, arguments...);
}

#endif
