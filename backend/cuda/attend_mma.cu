/* Attention of many queries on tensor cores (mma.sync m16n8k16, sm_80 and newer), for bf16 and f16
 * caches with head_dim 64 or 128.
 *
 * A block takes BM queries of one head, each of its four warps 32 of them, so that a fragment of
 * keys or values serves two products. It walks over tiles of BN keys, one span behind the other,
 * with a running softmax (Milakov and Gimelshein, arXiv:1805.02867; Dao,
 * arXiv:2307.08691). Keys and values come through cp.async into two buffers each; rows are
 * swizzled in pieces of 16 bytes so that ldmatrix meets no bank conflicts. */
#include "backend/cuda/attend_tile.cuh"
#include "backend/cuda/mma.cuh"

enum {
    BM = 128, /* queries of a block */
    BN = 64,  /* keys of a tile */
    WARPS = 4,
    THREADS = WARPS * CUDA_WARP,
    M_TILES = BM / WARPS / 16, /* of a warp */
    N_TILES = BN / 8,
};

using plan = tile_plan<BM>;

/* ---- tiles --------------------------------------------------------------------------- */

/* Where piece (16 bytes) of a row of HD values lies in a swizzled tile. */
template <int HD> static __device__ __forceinline__ uint32_t piece_at(int row, int piece) {
    return (uint32_t)(row * HD * 2 + ((piece ^ (row & 7)) << 4));
}

/* Starts copying keys or values of tile t. The rows of a walk do not wrap. */
template <int HD>
static __device__ __forceinline__ void copy_tile(uint32_t to, const tile_args &a, const plan *p,
                                                 int t, bool is_key) {
    enum { STEP = THREADS / (HD / 8) }; /* rows; a multiple of 8, as the swizzle wants */
    int column, span = tile_column<BN>(p, t, &column);
    const cca_rows &rows = a.spans.at[span].rows;
    int n = p->n_columns[span], row = (int)threadIdx.x / (HD / 8);
    int piece = (int)threadIdx.x % (HD / 8);
    const uint16_t *from = (const uint16_t *)(is_key ? rows.k : rows.v) + piece * 8;
    to += piece_at<HD>(row, piece);
    column += row;
#pragma unroll
    for (int i = 0; i < BN / STEP; i++, column += STEP) {
        bool there = column < n;
        int64_t at = tile_row_of(p, span, there ? column : n - 1);
        mma_copy16(to + (uint32_t)(i * STEP * HD * 2), from + at * HD, there);
    }
}

/* Queries of a block, rounded; those behind the last are the last one again. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void read_queries(char *to, const tile_args &a,
                                                    const tile_rows &rows) {
#pragma unroll 4
    for (int i = 0; i < BM * HD / 4 / THREADS; i++) {
        int at = i * THREADS + (int)threadIdx.x, r = at / (HD / 4), part = at % (HD / 4);
        float4 v = *(const float4 *)(a.q + tile_row_at(a, rows, r, HD) + part * 4);
        uint2 bits =
            make_uint2(cuda_round_two<is_bf16>(v.x, v.y), cuda_round_two<is_bf16>(v.z, v.w));
        *(uint2 *)(to + piece_at<HD>(r, part / 2) + part % 2 * 8) = bits;
    }
}

/* ---- the kernel ---------------------------------------------------------------------- */

/* A lane holds rows lane / 4 and lane / 4 + 8 of each m-tile; of the columns of each n-tile,
 * lane % 4 * 2 and the next. */
template <int HD> struct walk {
    float out[M_TILES][HD / 8][4] = {};
    float largest[M_TILES][2], total[M_TILES][2] = {};
};

/* Where a lane reads a matrix fragment of a tile. Since rows come in eights, the piece's part of
 * the address is an exclusive or: steps along a row are one, too. */
template <int HD>
static __device__ __forceinline__ uint32_t fragment_at(uint32_t tile, int row, int piece) {
    return tile + piece_at<HD>(row, piece);
}

/* scores = queries · keysᵀ of one tile. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void score(float s[M_TILES][N_TILES][4], uint32_t q, uint32_t k) {
    int lane = (int)(threadIdx.x % CUDA_WARP), warp = (int)(threadIdx.x / CUDA_WARP);
    q = fragment_at<HD>(q, warp * M_TILES * 16 + lane % 16, lane / 16);
    k = fragment_at<HD>(k, lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int step = 0; step < HD / 16; step++) {
        uint32_t a[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            mma_load(a[m], (q ^ (uint32_t)(step * 32)) + (uint32_t)(m * 16 * HD * 2));
        }
#pragma unroll
        for (int n = 0; n < N_TILES; n += 2) {
            uint32_t b[4];
            mma_load(b, (k ^ (uint32_t)(step * 32)) + (uint32_t)(n * 8 * HD * 2));
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                mma_multiply<is_bf16>(s[m][n], a[m], b[0], b[1]);
                mma_multiply<is_bf16>(s[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* Removes what queries do not see of a tile. */
static __device__ __forceinline__ void mask_scores(float s[M_TILES][N_TILES][4], const plan *p,
                                                   int span, int column) {
    int lane = (int)(threadIdx.x % CUDA_WARP), warp = (int)(threadIdx.x / CUDA_WARP);
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int side = 0; side < 2; side++) {
            int row = (warp * M_TILES + m) * 16 + side * 8 + lane / 4;
            tile_mask<N_TILES>(s[m], side, p, row, span, column);
        }
    }
}

/* Turns scores into weights and shrinks what was summed before. */
template <int HD>
static __device__ __forceinline__ void weigh(walk<HD> &w, float s[M_TILES][N_TILES][4]) {
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int side = 0; side < 2; side++) {
            float shrink = tile_weigh<N_TILES>(s[m], side, cuda_score_unit<HD>(),
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
template <int HD, bool is_bf16>
static __device__ __forceinline__ void add_values(walk<HD> &w, float s[M_TILES][N_TILES][4],
                                                  uint32_t v) {
    int lane = (int)(threadIdx.x % CUDA_WARP);
    v = fragment_at<HD>(v, lane / 8 % 2 * 8 + lane % 8, lane / 16);
#pragma unroll
    for (int step = 0; step < BN / 16; step++) {
        uint32_t a[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            tile_operand<is_bf16>(a[m], s[m][step * 2], s[m][step * 2 + 1]);
        }
#pragma unroll
        for (int d = 0; d < HD / 8; d += 2) {
            uint32_t b[4];
            mma_load_transposed(b, (v ^ (uint32_t)(d * 16)) + (uint32_t)(step * 16 * HD * 2));
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                mma_multiply<is_bf16>(w.out[m][d], a[m], b[0], b[1]);
                mma_multiply<is_bf16>(w.out[m][d + 1], a[m], b[2], b[3]);
            }
        }
    }
}

template <int HD>
static __device__ __forceinline__ void write_out(walk<HD> &w, const tile_args &a,
                                                 const tile_rows &rows) {
    int lane = (int)(threadIdx.x % CUDA_WARP), warp = (int)(threadIdx.x / CUDA_WARP);
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int side = 0; side < 2; side++) {
            float total = tile_row_sum(w.total[m][side]);
            int row = (warp * M_TILES + m) * 16 + side * 8 + lane / 4;
            if (row >= rows.n_rows) continue;
            tile_write<HD>(a, tile_row_at(a, rows, row, HD), w.out[m], side, total);
        }
    }
}

template <int HD, bool is_bf16>
static __global__ void __launch_bounds__(THREADS, 2) attend(const tile_args a) {
    cuda_begin();
    extern __shared__ __align__(1024) char memory[];
    enum { TILE = BN * HD * 2 };
    __shared__ plan p;
    uint32_t q = cuda_shared(memory), k = q + BM * HD * 2, v = k + 2 * TILE;
    /* The last queries have most cores: they begin first. */
    tile_rows rows = tile_rows_of(a, gridDim.x - 1 - blockIdx.x, blockIdx.y, BM);
    tile_make_plan<BN>(&p, a, rows, (int)threadIdx.x, THREADS);
    __syncthreads();
    copy_tile<HD>(k, a, &p, 0, true);
    mma_copy_commit();
    copy_tile<HD>(v, a, &p, 0, false);
    mma_copy_commit();
    read_queries<HD, is_bf16>(memory, a, rows);
    walk<HD> w;
#pragma unroll
    for (int m = 0; m < M_TILES; m++) w.largest[m][0] = w.largest[m][1] = -INFINITY;
    int n_tiles = p.n_all;

    for (int t = 0; t < n_tiles; t++) {
        uint32_t here = (uint32_t)(t % 2 * TILE), there = TILE - here;
        float s[M_TILES][N_TILES][4] = {};
        mma_copy_wait<1>();
        __syncthreads();
        if (t + 1 < n_tiles) copy_tile<HD>(k + there, a, &p, t + 1, true);
        mma_copy_commit();
        score<HD, is_bf16>(s, q, k + here);
        int column, span = tile_column<BN>(&p, t, &column);
        if (tile_masked<BN>(&p, span, column)) mask_scores(s, &p, span, column);
        weigh<HD>(w, s);
        mma_copy_wait<1>();
        __syncthreads();
        if (t + 1 < n_tiles) copy_tile<HD>(v + there, a, &p, t + 1, false);
        mma_copy_commit();
        add_values<HD, is_bf16>(w, s, v + here);
    }
    write_out<HD>(w, a, rows);
}

/* A block's shared memory is more than a kernel gets unasked. */
template <int HD, bool is_bf16> static void launch(cuda_backend *b, const tile_args &a) {
    size_t shared = (size_t)(BM + 4 * BN) * HD * 2;
    cuda_check(b, cudaSetDevice(b->device), "attention");
    cuda_check(b,
               cudaFuncSetAttribute(attend<HD, is_bf16>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
               "attention");
    cuda_launch(b, "attention", attend<HD, is_bf16>, tile_grid(a, BM), THREADS, shared, a);
}

bool cuda_attend_mma(cuda_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                     int64_t pos, int64_t n) {
    if (!tile_suits(spans, q, pos, n, BM)) return false;
    int64_t hd = spans->at[0].rows.head_dim;
    bool is_bf16 = spans->at[0].rows.k_type == CCA_BF16;
    tile_args a = tile_make_args(b, out, spans, q, pos, n);
    if (hd == 64) {
        is_bf16 ? launch<64, true>(b, a) : launch<64, false>(b, a);
    } else {
        is_bf16 ? launch<128, true>(b, a) : launch<128, false>(b, a);
    }
    if (a.twin) cuda_set_twin(b, out, n);
    return true;
}
