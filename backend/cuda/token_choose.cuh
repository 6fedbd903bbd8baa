/* Which groups one query recalls, as a step of a token: some blocks take a head of keys, with up to
 * eight query heads that share it. All of them make scores; the first one has them handed over, and
 * does by itself what else choose_columns.cuh describes.
 *
 *     16 columns a warp at a time         scores [rows][columns], in shared memory
 *     bounds as they lie, into registers  softmax: a warp a row
 *     mma.sync 16 × 8                     keys: a thread a column; the largest
 *
 * A product adds up dims in the order in which lanes read them, 16 bytes at a time: which order
 * that is does not matter as long as queries have the same. They come in two terms, which together
 * are as good as f32. */
#ifndef CCA_CUDA_TOKEN_CHOOSE_CUH
#define CCA_CUDA_TOKEN_CHOOSE_CUH

#include "backend/cuda/choose.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/sealed.cuh"
#include "backend/cuda/token_stream.cuh"

enum {
    CHOICE_ROWS = 8,     /* most query heads that share keys */
    CHOICE_COLUMNS = 16, /* of a warp at a time */
    CHOICE_TERMS = 2,
};

/* A block's memory, and its part in a head's choice. */
struct choice_room {
    uint4 *queries;   /* [terms][positive, negative][dims in 32s][lanes], as products want them */
    float *scores;    /* [rows][n_columns] */
    uint32_t *keys;   /* of columns, in the place of the first row's scores */
    int32_t *blocks;  /* that are looked into */
    int stride;       /* of rows */
    uint64_t *handed; /* scores from block to block, as `scores` lies: of groups, then of blocks */
    uint64_t *list;   /* the number of blocks, and these */
    int rank;         /* among the head's blocks */
    unsigned seal;
};

static __host__ __device__ __forceinline__ int64_t choice_query_bytes(int64_t head_dim) {
    return CHOICE_TERMS * 2 * (head_dim / 32) * CUDA_WARP * (int64_t)sizeof(uint4);
}

/* ---- scores -------------------------------------------------------------------------- */

/* A warp's share of the head's queries, into memory: a lane's are eight dims of a row. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void read_choice_queries(const choice_room &m,
                                                           const choose_step &s, int head) {
    enum { CHUNKS = HD / 32 };
    int lane = (int)(threadIdx.x % CUDA_WARP), row = lane / 4;
    const float unit = 1.4426950408889634f / sqrtf((float)HD);
    for (int i = (int)(threadIdx.x / CUDA_WARP); i < CHUNKS; i += WARPS) {
        __align__(16) float x[8] = {};
        if (row < s.sharers) {
            read_eight(x, s.q + (head * s.sharers + row) * HD + i * 32 + lane % 4 * 8);
        }
        uint32_t words[CHOICE_TERMS][2][4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float up[2], under[2];
            part_by_sign(up, under, x[2 * k] * unit, x[2 * k + 1] * unit);
#pragma unroll
            for (int term = 0; term < CHOICE_TERMS; term++) {
                words[term][0][k] = take_term<is_bf16>(up);
                words[term][1][k] = take_term<is_bf16>(under);
            }
        }
#pragma unroll
        for (int term = 0; term < CHOICE_TERMS; term++) {
#pragma unroll
            for (int side = 0; side < 2; side++) {
                const uint32_t *w = words[term][side];
                m.queries[((term * 2 + side) * CHUNKS + i) * CUDA_WARP + lane] =
                    make_uint4(w[0], w[1], w[2], w[3]);
            }
        }
    }
}

/* Scores of the columns from `first` on, in two eights. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void score_columns(const choice_room &m, const choose_step &s,
                                                     const choice_level &l, int head, int first) {
    enum { CHUNKS = HD / 32, EIGHTS = CHOICE_COLUMNS / 8 };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    const choice_bounds &b = s.bounds[l.of_blocks];
    uint4 w[EIGHTS][2][CHUNKS];
#pragma unroll
    for (int e = 0; e < EIGHTS; e++) {
        int column = first + e * 8 + lane / 4; /* behind the last one comes it again */
        int64_t row = (int64_t)head * b.capacity + column_id(l, column < l.n ? column : l.n - 1);
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            int64_t at = row * (HD / 8) + i * 4 + lane % 4;
            w[e][0][i] = __ldcg(b.high + at);
            w[e][1][i] = __ldcg(b.low + at);
        }
    }
    float sums[EIGHTS][2][4] = {};
#pragma unroll
    for (int side = 0; side < 2; side++) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            const uint4 *q = m.queries + (side * CHUNKS + i) * CUDA_WARP + lane;
            const uint4 x = q[0], rest = q[2 * CHUNKS * CUDA_WARP];
            const uint32_t low[4] = {x.x, rest.x, x.y, rest.y};
            const uint32_t high[4] = {x.z, rest.z, x.w, rest.w};
#pragma unroll
            for (int e = 0; e < EIGHTS; e++) {
                const uint4 v = w[e][side][i];
                mma_multiply<is_bf16>(sums[e][0], low, v.x, v.y);
                mma_multiply<is_bf16>(sums[e][1], high, v.z, v.w);
            }
        }
    }
    if (lane / 4 >= s.sharers) return;
    int at = lane / 4 * m.stride + first + lane % 4 * 2;
    uint64_t *to = m.handed + (l.of_blocks ? s.sharers * m.stride : 0) + at;
#pragma unroll
    for (int e = 0; e < EIGHTS; e++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float *a = sums[e][0] + i, *c = sums[e][1] + i;
            float score = a[0] + a[2] + (c[0] + c[2]);
            if (m.rank == 0) {
                m.scores[at + e * 8 + i] = score;
            } else {
                sealed_put(to + e * 8 + i, score, m.seal);
            }
        }
    }
}

/* A level's scores: those of a block's columns, each some sixteens; the first block has the whole
 * afterwards. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void score_level(const choice_room &m, const choose_step &s,
                                                   const choice_level &l, int head) {
    enum { EACH = 4, SOME = CHOICE_COLUMNS };
    int warp = (int)(threadIdx.x / CUDA_WARP);
    for (int i = (warp * s.sharing + m.rank) * SOME; i < l.n; i += WARPS * s.sharing * SOME) {
        score_columns<HD, is_bf16>(m, s, l, head, i);
    }
    if (m.rank > 0) return;
    const uint64_t *from = m.handed + (l.of_blocks ? s.sharers * m.stride : 0);
    int n = (l.n + SOME - 1) / SOME * SOME, all = n * s.sharers;
    for (int first = (int)threadIdx.x; first < all; first += EACH * THREADS) {
        float x[EACH];
        for (bool there = false; !there;) {
            there = true;
#pragma unroll
            for (int k = 0; k < EACH; k++) {
                int i = first + k * THREADS, at = i / n * m.stride + i % n;
                bool own = i >= all || i % n / SOME % s.sharing == 0;
                if (!own) there = sealed_get(&x[k], from + at, m.seal) && there;
            }
        }
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            int i = first + k * THREADS, at = i / n * m.stride + i % n;
            if (i < all && i % n / SOME % s.sharing != 0) m.scores[at] = x[k];
        }
    }
}

/* The first block's list of blocks goes to the others; gives their number. */
static __device__ __forceinline__ int hand_list(const choice_room &m, int n) {
    int i = (int)threadIdx.x;
    float value = __int_as_float(n);
    if (m.rank == 0) {
        if (i == 0) sealed_put(m.list, value, m.seal);
        for (; i < n; i += THREADS) sealed_put(m.list + 1 + i, __int_as_float(m.blocks[i]), m.seal);
        return n;
    }
    while (!sealed_get(&value, m.list, m.seal)) continue;
    n = __float_as_int(value);
    for (; i < n; i += THREADS) {
        while (!sealed_get(&value, m.list + 1 + i, m.seal)) continue;
        m.blocks[i] = __float_as_int(value);
    }
    sync_workers();
    return n;
}

/* ---- weights ------------------------------------------------------------------------- */

/* What warps have of rows' softmaxes: warp i of row i % rows, some warps a row. */
struct row_parts {
    float largest[WARPS], sum[WARPS];
    float2 row[CHOICE_ROWS]; /* joined: the largest score, and 1 / sum */
};

/* One warp: joins what a row's warps have. */
static __device__ __forceinline__ void join_row(row_parts &parts, int row, int n_rows) {
    int lane = (int)(threadIdx.x % CUDA_WARP);
    bool mine = lane < WARPS && lane % n_rows == row;
    float own = mine ? parts.largest[lane] : -INFINITY, largest = cuda_warp_max(own);
    float sum = cuda_warp_sum(mine ? parts.sum[lane] * weight_of(own, largest) : 0);
    if (lane == 0) parts.row[row] = make_float2(largest, 1 / sum);
}

/* Puts the keys of a level's columns into the first block's memory. Those before `skip` may not be
 * chosen. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void weigh_level(const choice_room &m, const choose_step &s,
                                                   const choice_level &l, int head) {
    __shared__ row_parts parts;
    int warp = (int)(threadIdx.x / CUDA_WARP), lane = (int)(threadIdx.x % CUDA_WARP), skip = 0;
    score_level<HD, is_bf16>(m, s, l, head);
    if (m.rank > 0) return;
    while (l.listed && skip < CCA_BLOCK && column_id(l, skip) < s.first) skip++;
    sync_workers();
    int row = warp % s.sharers, step = (WARPS - row + s.sharers - 1) / s.sharers * CUDA_WARP;
    int first = skip + warp / s.sharers * CUDA_WARP + lane;
    const float *x = m.scores + row * m.stride;
    float largest = -INFINITY, sum = 0;
#pragma unroll 4
    for (int i = first; i < l.n; i += step) largest = fmaxf(largest, x[i]);
    largest = cuda_warp_max(largest);
#pragma unroll 4
    for (int i = first; i < l.n; i += step) sum += weight_of(x[i], largest);
    sum = cuda_warp_sum(sum);
    if (lane == 0) {
        parts.largest[warp] = largest;
        parts.sum[warp] = sum;
    }
    sync_workers();
    if (warp < s.sharers) join_row(parts, warp, s.sharers);
    sync_workers();
    for (int i = (int)threadIdx.x; i < l.n; i += THREADS) {
        float weight = 0;
        for (int r = 0; r < s.sharers; r++) {
            float2 softmax = parts.row[r];
            weight += weight_of(m.scores[r * m.stride + i], softmax.x) * softmax.y;
        }
        m.keys[i] = i < skip ? 0 : weight_key(weight);
    }
    sync_workers();
}

/* ---- the step ------------------------------------------------------------------------ */

/* By the threads that pick; the others wait. Gives how many there are. */
template <typename F>
static __device__ __forceinline__ int pick_by_some(int32_t *out, const choice_room &m, int n,
                                                   int most, F id) {
    __shared__ int n_picked;
    if (threadIdx.x < CHOOSE_THREADS) {
        int picked = pick_largest(out, m.keys, n, most, id);
        if (threadIdx.x == 0) n_picked = picked;
    }
    sync_workers();
    return n_picked;
}

template <int HD, bool is_bf16>
static __device__ __forceinline__ void choose_all(const choose_step &s, unsigned seal,
                                                  char *memory) {
    int head = (int)blockIdx.x / s.sharing, rank = (int)blockIdx.x % s.sharing;
    int n = s.end - s.first, n_scores = s.sharers * s.n_columns;
    int32_t *out = s.groups + head * s.most;
    if (head >= s.heads || (n <= s.most && rank > 0)) return;
    if (n <= s.most) {
        for (int i = (int)threadIdx.x; i < n; i += THREADS) out[i] = s.first + i;
        if (threadIdx.x == 0) s.counts[head] = n;
        return;
    }
    uint64_t *parts = s.parts + head * choice_parts(s.sharers, s.n_columns, s.most_blocks);
    float *scores = (float *)(memory + choice_query_bytes(HD));
    choice_room m = {(uint4 *)memory,
                     scores,
                     (uint32_t *)scores,
                     (int32_t *)(scores + n_scores),
                     s.n_columns,
                     parts,
                     parts + 2 * n_scores,
                     rank,
                     seal};
    read_choice_queries<HD, is_bf16>(m, s, head);
    sync_workers();
    choice_level l = s.in_levels ? level_of_blocks(s.first, s.end) : level_of_all(s.first, s.end);
    weigh_level<HD, is_bf16>(m, s, l, head);
    if (s.in_levels) {
        int picked = 0;
        if (rank == 0) {
            picked = pick_by_some(m.blocks, m, l.n, s.most_blocks,
                                  [&](int i) { return (int32_t)(l.first + i); });
        }
        l = level_of_listed(s.first, s.end, m.blocks, hand_list(m, picked));
        weigh_level<HD, is_bf16>(m, s, l, head);
    }
    if (rank > 0) return;
    n = pick_by_some(out, m, l.n, s.most, [&](int i) { return (int32_t)column_id(l, i); });
    if (threadIdx.x == 0) s.counts[head] = n;
}

static __device__ __forceinline__ void choose(const choose_step &s, unsigned seal, char *memory) {
    if (s.head_dim == 64) {
        s.is_bf16 ? choose_all<64, true>(s, seal, memory) : choose_all<64, false>(s, seal, memory);
    } else {
        s.is_bf16 ? choose_all<128, true>(s, seal, memory)
                  : choose_all<128, false>(s, seal, memory);
    }
}

#endif
