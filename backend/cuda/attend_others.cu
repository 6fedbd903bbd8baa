/* Attention beside recall to the cores of groups that were not chosen, for many queries on tensor
 * cores (mma.sync m16n8k16, sm_80 and newer); bf16 and f16 cores with head_dim 64 or 128.
 *
 * Cores differ between the heads that share a head of keys, so that blocks of rows that chose
 * together, as they read raw rows, would find no use in most of the products. So attention goes in
 * two passes: what was chosen, window and sinks first, then this one, whose blocks take BM queries
 * of one head and whatever tiles they lie in. It goes on from the first pass's outputs, which are
 * its sums already divided, and log2 of what they were divided by: to a running softmax these are
 * one key with that score. What each tile of queries has chosen is left out by
 * bits, one a column, made a step ahead. */
#include "backend/cuda/attend_mma.cuh"

enum {
    M_TILES = 1, /* of a warp: few registers, many blocks */
    BM = mma_rows<M_TILES>,
    LOWER = 10, /* the score that weights are relative to is so much lower at first, in units of
                   log 2: beside all that is before, a core's may be too small for f16 */
};

static_assert(MMA_BN == 64, "a step's bits of a tile are 64");

using walk_plan = tile_plan<BM>;

/* The chosen groups of the tiles of queries that a block's rows lie in, BM at most. */
struct left_out {
    uint64_t bits[2][BM];  /* by step % 2 and tile: which of the step's columns */
    int n[BM], next[BM];   /* of a tile's chosen groups: how many, the first of a later step */
    const int32_t *chosen; /* those of the first tile, */
    int64_t stride;        /* from there to those of the next, */
    int64_t first_column;  /* and the group that the block's columns are counted from */
    int n_tiles;
};

/* ---- what is left out ------------------------------------------------------------------ */

/* The caller synchronises. */
static __device__ void begin_left_out(left_out *l, const tile_args &a, const tile_rows &rows) {
    const cca_choice &c = a.spans.choice;
    int64_t first = cca_choice_tile(&c, a.pos, rows.first);
    int64_t last = cca_choice_tile(&c, a.pos, rows.first + rows.n - 1);
    int64_t head = rows.head / (a.n_heads / c.heads), at = first * c.heads + head;
    int n_tiles = (int)(last - first) + 1;
    for (int i = (int)threadIdx.x; i < n_tiles; i += MMA_THREADS) {
        l->n[i] = c.counts[at + i * c.heads];
        l->next[i] = 0;
    }
    if (threadIdx.x != 0) return;
    l->chosen = c.groups + at * c.most;
    l->stride = c.heads * c.most;
    l->first_column = cca_edge_at(&a.spans.at[0].seen.begin, a.pos + rows.first);
    l->n_tiles = n_tiles;
}

/* Which of MMA_BN columns, from group `first` on, are among n chosen groups from *next on, which
 * goes on to the first behind them. All lanes of a warp. */
static __device__ __forceinline__ uint64_t chosen_bits(const int32_t *chosen, int n, int *next,
                                                       int64_t first) {
    int lane = (int)(threadIdx.x % CUDA_WARP), at = *next, passed = CUDA_WARP;
    uint32_t low = 0, high = 0;
    for (; passed == CUDA_WARP; at += passed) {
        int64_t column = at + lane < n ? chosen[at + lane] - first : MMA_BN;
        bool in_low = column >= 0 && column < 32, in_high = column >= 32 && column < MMA_BN;
        low |= __reduce_or_sync(~0u, in_low ? 1u << column : 0);
        high |= __reduce_or_sync(~0u, in_high ? 1u << (column - 32) : 0);
        passed = __popc(__ballot_sync(~0u, column < MMA_BN));
    }
    __syncwarp();
    if (lane == 0) *next = at;
    return (uint64_t)high << 32 | low;
}

/* Bits of a step; each warp has tiles of its own. */
static __device__ __forceinline__ void find_left_out(left_out *l, int step) {
    int lane = (int)(threadIdx.x % CUDA_WARP), warp = (int)(threadIdx.x / CUDA_WARP);
    int64_t first = l->first_column + (int64_t)step * MMA_BN;
    for (int i = warp; i < l->n_tiles; i += MMA_WARPS) {
        uint64_t bits = chosen_bits(l->chosen + i * l->stride, l->n[i], &l->next[i], first);
        if (lane == 0) l->bits[step % 2][i] = bits;
    }
}

/* Removes a row's scores of columns whose bits are set. */
static __device__ __forceinline__ void leave_out(float s[MMA_N_TILES][4], int side, uint64_t bits) {
    if (bits == 0) return;
    bits >>= threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < MMA_N_TILES; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if (bits >> (n * 8 + i) & 1) s[n][side * 2 + i] = -INFINITY;
        }
    }
}

/* ---- the kernel ------------------------------------------------------------------------ */

/* What the first pass has left of a row, in place of what was summed so far. */
template <int HD>
static __device__ __forceinline__ void take_up(mma_walk<HD, 1> &w, int side, const tile_args &a,
                                               int64_t at, const float *sums) {
    int lane = (int)(threadIdx.x % CUDA_WARP);
    const float *out = a.out + at + lane % 4 * 2;
    w.largest[0][side] = (sums[at / HD] - LOWER) / cuda_score_unit<HD>();
    w.total[0][side] = lane % 4 == 0 ? 1 << LOWER : 0; /* lanes' totals are added up at the end */
#pragma unroll
    for (int d = 0; d < HD / 8; d++) {
        float2 v = *(const float2 *)(out + d * 8);
        w.out[0][d][side * 2] = v.x * (1 << LOWER);
        w.out[0][d][side * 2 + 1] = v.y * (1 << LOWER);
    }
}

template <int HD, bool is_bf16>
static __global__ void __launch_bounds__(MMA_THREADS, HD == 64 ? 4 : 2)
    attend(const tile_args a, const float *sums) {
    cuda_begin();
    extern __shared__ __align__(1024) char memory[];
    __shared__ walk_plan p;
    __shared__ left_out l;
    /* The last queries have most cores: they begin first. */
    tile_rows rows = tile_rows_of(a, gridDim.x - 1 - blockIdx.x, blockIdx.y, BM);
    tile_make_plan<MMA_BN>(&p, a, rows, (int)threadIdx.x, MMA_THREADS);
    begin_left_out(&l, a, rows);
    __syncthreads();
    int n_tiles = p.n_all, tile[2]; /* of the queries of the lane's rows */
    if (n_tiles == 0) return;       /* outputs stay as they are */
    mma_begin<HD, is_bf16, M_TILES>(memory, a, &p);
    find_left_out(&l, 0);
    mma_walk<HD, M_TILES> w;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        int row = mma_row<M_TILES>(0, side), seen = row < rows.n_rows ? row : rows.n_rows - 1;
        int64_t first = cca_choice_tile(&a.spans.choice, a.pos, rows.first);
        tile[side] = (int)(cca_choice_tile(&a.spans.choice, a.pos, rows.first + seen) - first);
        take_up<HD>(w, side, a, tile_row_at(a, rows, row, HD), sums);
    }
    for (int t = 0; t < n_tiles; t++) {
        mma_step<HD, is_bf16>(w, memory, a, &p, t, [&](float(*s)[MMA_N_TILES][4], int step) {
            leave_out(s[0], 0, l.bits[step % 2][tile[0]]);
            leave_out(s[0], 1, l.bits[step % 2][tile[1]]);
            if (step + 1 < n_tiles) find_left_out(&l, step + 1);
        });
    }
    mma_write(w, a, rows);
}

/* ---- launching ------------------------------------------------------------------------- */

template <int HD, bool is_bf16>
static void launch(cuda_backend *b, const tile_args &a, const float *sums) {
    mma_launch(b, attend<HD, is_bf16>, tile_grid(a, BM), mma_bytes<HD, M_TILES>, a, sums);
}

bool cuda_others_suit(const cca_spans *others, const cca_matrix *q, int64_t pos, int64_t n) {
    return others->n == 1 && tile_suits(others, q, pos, n, BM);
}

void cuda_attend_others(cuda_backend *b, cca_matrix *out, const cca_spans *others,
                        const cca_matrix *q, int64_t pos, int64_t n, const float *sums) {
    const cca_rows *rows = &others->at[0].rows;
    bool is_bf16 = rows->k_type == CCA_BF16;
    tile_args a = tile_make_args(b, out, others, q, pos, n);
    if (rows->head_dim == 64) {
        is_bf16 ? launch<64, true>(b, a, sums) : launch<64, false>(b, a, sums);
    } else {
        is_bf16 ? launch<128, true>(b, a, sums) : launch<128, false>(b, a, sums);
    }
    if (a.twin) cuda_set_twin(b, out, n);
}
