/* Attention of one query as a step of a token. A warp takes some of the keys of a head of keys,
 * for up to eight query heads that share them, in tiles of 16 keys on tensor cores:
 *
 *     scores[16 rows][8 keys]   += q, in two terms of eight heads · 16 dims of K   (twice a tile)
 *     weights, in two terms      = exp2(scores - largest)
 *     sums[16 dims][8 heads]    += Vᵀ, 16 dims of 16 keys · weights
 *
 * Keys and values come from memory straight into the registers that products want them in: which
 * dim is which does not matter as long as queries, or outputs, have the same order. Two terms of 16
 * bits are together as good as f32. The warps of a block join their parts in shared memory, and the
 * blocks of a head theirs in sealed values. */
#ifndef CCA_CUDA_TOKEN_ATTEND_CUH
#define CCA_CUDA_TOKEN_ATTEND_CUH

#include "backend/cuda/choose.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/sealed.cuh"
#include "backend/cuda/token_stream.cuh"

enum {
    ATTEND_HEADS = 8, /* of queries, that a warp takes together at most */
    ATTEND_KEYS = 16, /* in a tile */
    ATTEND_TERMS = 2,
    ATTEND_UNITS = 2, /* most that a block works for: each has splits for all warps of one */
};

/* The heads of queries that unit i of attention has. */
struct attend_unit {
    int first, n;
};

static __device__ __forceinline__ attend_unit unit_of(const attend_step &s, int i) {
    int eights = (s.together + ATTEND_HEADS - 1) / ATTEND_HEADS;
    int before = i % eights * ATTEND_HEADS, rest = s.together - before;
    return attend_unit{i / eights * s.together + before, rest < ATTEND_HEADS ? rest : ATTEND_HEADS};
}

/* Shared memory of a block: queries of each unit that its warps work for; parts of each warp. */
static __host__ __device__ __forceinline__ int attend_query_vectors(int head_dim) {
    return ATTEND_TERMS * (head_dim / 32) * CUDA_WARP;
}

static inline int64_t attend_memory(int head_dim, int together) {
    int heads = together < ATTEND_HEADS ? together : ATTEND_HEADS;
    return ATTEND_UNITS * attend_query_vectors(head_dim) * (int64_t)sizeof(uint4) +
           WARPS * heads * (head_dim + 2) * (int64_t)sizeof(float);
}

/* ---- queries and the own key --------------------------------------------------------- */

/* Those of the units from `first` on, by all warps: [units][terms][dims in 32s][lanes], a lane's
 * eight dims of a head. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void read_attend_queries(uint4 *out, const attend_step &s,
                                                           int first, int n_units) {
    enum { CHUNKS = HD / 32 };
    int lane = (int)(threadIdx.x % CUDA_WARP), row = lane / 4;
    for (int i = (int)(threadIdx.x / CUDA_WARP); i < n_units * CHUNKS; i += WARPS) {
        attend_unit unit = unit_of(s, first + i / CHUNKS);
        int chunk = i % CHUNKS, piece = chunk * 4 + lane % 4;
        __align__(16) float x[8] = {};
        if (row < unit.n) {
            const float *q = s.q + (unit.first + row) * HD;
            if (s.turns) {
                rotate_eight<HD>(x, q, s.turn.angles, piece, s.turn.interleaved);
            } else {
                read_eight(x, q + piece * 8);
            }
        }
#pragma unroll
        for (int d = 0; d < 8; d++) x[d] *= cuda_score_unit<HD>();
#pragma unroll
        for (int term = 0; term < ATTEND_TERMS; term++) {
            out[((i / CHUNKS * ATTEND_TERMS + term) * CHUNKS + chunk) * CUDA_WARP + lane] =
                make_uint4(take_term<is_bf16>(x), take_term<is_bf16>(x + 2),
                           take_term<is_bf16>(x + 4), take_term<is_bf16>(x + 6));
        }
    }
}

/* Stores the key and value of the query's own position, by a warp that reads them afterwards. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void store_own(const attend_step &s, int head) {
    enum { LANES = HD / 8 };
    const turn_args &a = s.turn;
    int of_keys = head / s.keys.at[0].sharers;
    int piece = (int)(threadIdx.x % CUDA_WARP);
    if (piece < LANES) {
        int64_t at = (of_keys * a.rows.capacity + s.own_row) * LANES + piece;
        __align__(16) float x[8];
        rotate_eight<HD>(x, a.k + of_keys * HD, a.angles, piece, a.interleaved);
        ((uint4 *)a.rows.k)[at] = cuda_round_eight<is_bf16>(x);
        read_eight(x, a.v + of_keys * HD + piece * 8);
        ((uint4 *)a.rows.v)[at] = cuda_round_eight<is_bf16>(x);
    }
    __syncwarp();
}

/* ---- tiles of keys ------------------------------------------------------------------- */

/* A lane's share of a tile, and what there is of the next one. */
template <int HD> struct key_tile {
    uint4 k[2][HD / 32]; /* of keys lane / 4 and eight on, vectors lane % 4 + 0, 4, … */
    uint4 v[4][HD / 64]; /* of keys lane % 4 * 2 + 0, 1, 8, 9, vectors lane / 4 + 0, 8 */
};

/* Of eight heads: sums lie as products leave them; largest and total are of head lane / 4, the
 * total of a lane's keys alone. */
template <int HD> struct attend_sums {
    float largest = -INFINITY, total = 0, sum[HD / 16][4] = {};
};

/* Where key `from` + lane % 16 of a run lies; the last one's place behind the end. */
static __device__ __forceinline__ int key_row(const key_run &r, int of_keys, int from, int end) {
    int i = from + (int)(threadIdx.x % ATTEND_KEYS), row = i < end ? i : end - 1;
    if (r.chosen) {
        int32_t group = __ldcg(r.chosen + (int64_t)of_keys * r.most + (row >> r.shift));
        row += (group - (row >> r.shift)) << r.shift;
    }
    row += r.first;
    return row >= r.capacity ? row - r.capacity : row;
}

template <int HD>
static __device__ __forceinline__ void read_tile_keys(key_tile<HD> &t, const uint4 *head, int row) {
    int lane = (int)(threadIdx.x % CUDA_WARP);
#pragma unroll
    for (int e = 0; e < 2; e++) {
        int64_t own = __shfl_sync(~0u, row, e * 8 + lane / 4);
#pragma unroll
        for (int i = 0; i < HD / 32; i++)
            t.k[e][i] = __ldcg(head + own * (HD / 8) + i * 4 + lane % 4);
    }
}

template <int HD>
static __device__ __forceinline__ void read_tile_values(key_tile<HD> &t, const uint4 *head,
                                                        int row) {
    int lane = (int)(threadIdx.x % CUDA_WARP);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int64_t own = __shfl_sync(~0u, row, lane % 4 * 2 + j % 2 + j / 2 * 8);
#pragma unroll
        for (int i = 0; i < HD / 64; i++)
            t.v[j][i] = __ldcg(head + own * (HD / 8) + i * 8 + lane / 4);
    }
}

/* Scores of head lane / 4 with keys lane % 4 * 2 + 0, 1, 8, 9. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void score_tile(float score[4], const key_tile<HD> &t,
                                                  const uint4 *queries) {
    enum { CHUNKS = HD / 32 };
    float sums[2][2][4] = {};
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const uint4 *q = queries + i * CUDA_WARP + threadIdx.x % CUDA_WARP;
        const uint4 x = q[0], rest = q[CHUNKS * CUDA_WARP];
        const uint32_t low[4] = {x.x, rest.x, x.y, rest.y};
        const uint32_t high[4] = {x.z, rest.z, x.w, rest.w};
#pragma unroll
        for (int e = 0; e < 2; e++) {
            mma_multiply<is_bf16>(sums[e][0], low, t.k[e][i].x, t.k[e][i].y);
            mma_multiply<is_bf16>(sums[e][1], high, t.k[e][i].z, t.k[e][i].w);
        }
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float *a = sums[j / 2][0] + j % 2, *b = sums[j / 2][1] + j % 2;
        score[j] = a[0] + a[2] + (b[0] + b[2]);
    }
}

/* Makes weights of scores, and shrinks the sums to the largest score there is now. */
template <int HD>
static __device__ __forceinline__ void weigh_tile(attend_sums<HD> &s, float score[4]) {
    float now = fmaxf(fmaxf(score[0], score[1]), fmaxf(score[2], score[3]));
    now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
    now = fmaxf(s.largest, fmaxf(now, __shfl_xor_sync(~0u, now, 2)));
    float base = now == -INFINITY ? 0 : now, shrink = exp2f(s.largest - base), sum = 0;
    s.largest = now;
#pragma unroll
    for (int j = 0; j < 4; j++) sum += score[j] = exp2f(score[j] - base);
    s.total = s.total * shrink + sum;
    if (!__any_sync(~0u, shrink != 1)) return;
    int head = (int)(threadIdx.x % 4) * 2; /* of sums, and the one behind */
    float first = __shfl_sync(~0u, shrink, head * 4),
          second = __shfl_sync(~0u, shrink, head * 4 + 4);
#pragma unroll
    for (int i = 0; i < HD / 16; i++) {
        s.sum[i][0] *= first;
        s.sum[i][1] *= second;
        s.sum[i][2] *= first;
        s.sum[i][3] *= second;
    }
}

static __device__ __forceinline__ uint32_t word_of(uint4 v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Adds values times weights. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void add_tile(attend_sums<HD> &s, const key_tile<HD> &t,
                                                float weight[4]) {
    uint32_t w[ATTEND_TERMS][2];
#pragma unroll
    for (int term = 0; term < ATTEND_TERMS; term++) {
        w[term][0] = take_term<is_bf16>(weight);
        w[term][1] = take_term<is_bf16>(weight + 2);
    }
#pragma unroll
    for (int i = 0; i < HD / 16; i++) {
        uint32_t v[4];
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] = word_of(t.v[j][i / 4], i % 4);
        const uint32_t a[4] = {__byte_perm(v[0], v[1], 0x5410), __byte_perm(v[0], v[1], 0x7632),
                               __byte_perm(v[2], v[3], 0x5410), __byte_perm(v[2], v[3], 0x7632)};
#pragma unroll
        for (int term = 0; term < ATTEND_TERMS; term++) {
            mma_multiply<is_bf16>(s.sum[i], a, w[term][0], w[term][1]);
        }
    }
}

/* Adds keys begin … end - 1 of a run. The next tile's keys are under way while values are added,
 * and its values while scores are. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void attend_run(attend_sums<HD> &s, const key_run &r, int of_keys,
                                                  const uint4 *queries, int begin, int end) {
    const uint4 *k = r.k + (int64_t)of_keys * r.capacity * (HD / 8);
    const uint4 *v = r.v + (int64_t)of_keys * r.capacity * (HD / 8);
    int row = key_row(r, of_keys, begin, end), first = (int)(threadIdx.x % 4) * 2;
    key_tile<HD> t;
    read_tile_keys<HD>(t, k, row);
    read_tile_values<HD>(t, v, row);
    for (int i = begin; i < end; i += ATTEND_KEYS) {
        bool more = i + ATTEND_KEYS < end;
        float score[4];
        row = key_row(r, of_keys, i + ATTEND_KEYS, end);
        score_tile<HD, is_bf16>(score, t, queries);
        if (more) read_tile_keys<HD>(t, k, row);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (i + first + j % 2 + j / 2 * 8 >= end) score[j] = -INFINITY;
        }
        weigh_tile<HD>(s, score);
        add_tile<HD, is_bf16>(s, t, score);
        if (more) read_tile_values<HD>(t, v, row);
    }
}

/* ---- parts --------------------------------------------------------------------------- */

/* A warp's parts of n heads into memory: HD sums, the largest score, the total. */
template <int HD>
static __device__ __forceinline__ void put_parts(float *to, attend_sums<HD> &s, int n) {
    enum { WIDTH = HD + 2 };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    s.total += __shfl_xor_sync(~0u, s.total, 1);
    s.total += __shfl_xor_sync(~0u, s.total, 2);
    if (lane % 4 == 0 && lane / 4 < n) {
        to[lane / 4 * WIDTH + HD] = s.largest;
        to[lane / 4 * WIDTH + HD + 1] = s.total;
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int head = lane % 4 * 2 + j;
        if (head >= n) continue;
#pragma unroll
        for (int i = 0; i < HD / 16; i++) { /* two dims of vector lane / 4 + 8 × (i / 4) */
            int dim = (i / 4 * 8 + lane / 4) * 8 + i % 4 * 2;
            *(float2 *)(to + head * WIDTH + dim) = make_float2(s.sum[i][j], s.sum[i][j + 2]);
        }
    }
}

/* A lane's slice of a head: sums lane, lane + 32, … of half a head. */
template <int HD> struct slice {
    enum { WIDTH = HD + 2, N = 2, OWN = HD / N / CUDA_WARP };
    float largest, total, sum[OWN];
};

/* Joins n parts in shared memory, `stride` values from one to the next. */
template <int HD>
static __device__ __forceinline__ slice<HD> join_parts(const float *parts, int n, int stride,
                                                       int first) {
    enum { OWN = slice<HD>::OWN };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    const float *own = parts + (lane < n ? lane : 0) * stride + HD;
    float largest = lane < n ? own[0] : -INFINITY;
    slice<HD> all = {cuda_warp_max(largest), 0, {}};
    float weight = lane < n ? weight_of(largest, all.largest) : 0;
    all.total = cuda_warp_sum(weight * own[1]);
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
        float of_part = __shfl_sync(~0u, weight, i);
        if (i >= n) continue;
#pragma unroll
        for (int j = 0; j < OWN; j++) {
            all.sum[j] += of_part * parts[i * stride + first + j * CUDA_WARP + lane];
        }
    }
    return all;
}

/* Joins n parts, each of a block, as they come; some at a time. */
template <int HD>
static __device__ __forceinline__ slice<HD> join_sealed(const uint64_t *parts, int n, int first,
                                                        unsigned seal) {
    enum { WIDTH = slice<HD>::WIDTH, OWN = slice<HD>::OWN, BATCH = 6 };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    slice<HD> all = {-INFINITY, 0, {}};
    for (int some = 0; some < n; some += BATCH) {
        float x[BATCH][OWN + 2];
        for (bool there = false; !there;) {
            there = true;
#pragma unroll
            for (int i = 0; i < BATCH * (OWN + 2); i++) {
                int part = i / (OWN + 2), j = i % (OWN + 2);
                int row = some + part < n ? some + part : n - 1;
                int at = row * WIDTH + (j < OWN ? first + j * CUDA_WARP + lane : HD + j - OWN);
                there = sealed_get(&x[part][j], parts + at, seal) && there;
            }
        }
#pragma unroll
        for (int part = 0; part < BATCH; part++) {
            if (some + part >= n) continue;
            float now = fmaxf(all.largest, x[part][OWN]);
            float shrink = weight_of(all.largest, now), weight = weight_of(x[part][OWN], now);
            all.largest = now;
            all.total = all.total * shrink + weight * x[part][OWN + 1];
#pragma unroll
            for (int j = 0; j < OWN; j++) {
                all.sum[j] = all.sum[j] * shrink + weight * x[part][j];
            }
        }
    }
    return all;
}

/* What a block has of a head from dim `first` on: parts in shared memory; it is `block` among n
 * with this head. The first of them puts the blocks' parts together, in their order. */
template <int HD>
static __device__ __forceinline__ void join_slice(const attend_step &s, unsigned seal, int head,
                                                  int first, const float *parts, int n_parts,
                                                  int stride, int block, int n_blocks) {
    enum { WIDTH = slice<HD>::WIDTH, OWN = slice<HD>::OWN };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    slice<HD> all = join_parts<HD>(parts, n_parts, stride, first);
    if (n_blocks > 1) {
        uint64_t *to = s.parts + (int64_t)head * s.splits * WIDTH, *mine = to + block * WIDTH;
#pragma unroll
        for (int j = 0; j < OWN; j++) {
            sealed_put(mine + first + j * CUDA_WARP + lane, all.sum[j], seal);
        }
        if (lane == 0 && first == 0) {
            sealed_put(mine + HD, all.largest, seal);
            sealed_put(mine + HD + 1, all.total, seal);
        }
        if (block > 0) return;
        all = join_sealed<HD>(to, n_blocks, first, seal);
    }
    float *out = s.out + head * HD + first + lane;
#pragma unroll
    for (int j = 0; j < OWN; j++) out[j * CUDA_WARP] = all.sum[j] / all.total;
}

/* ---- the step ------------------------------------------------------------------------ */

/* A warp's split of the keys of a unit, into memory. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void attend_split(const attend_step &s, attend_unit unit,
                                                    const uint4 *queries, int split, float *to) {
    int begin = split * s.each, own = s.keys.at[0].n - 1;
    int end = begin + s.each < s.keys.n_keys ? begin + s.each : s.keys.n_keys;
    attend_sums<HD> sums;
    if (s.turns && begin <= own && own < end) store_own<HD, is_bf16>(s, unit.first);
#pragma unroll 1
    for (int i = 0; i < s.keys.n; i++) {
        const key_run &r = s.keys.at[i];
        int from = begin > 0 ? begin : 0, past = end < r.n ? end : r.n;
        if (from < past)
            attend_run<HD, is_bf16>(sums, r, unit.first / r.sharers, queries, from, past);
        begin -= r.n;
        end -= r.n;
    }
    put_parts<HD>(to, sums, unit.n);
}

/* Each warp has one of the splits of a unit's keys; warps of a block come one behind the other, so
 * that a block has one unit, or a few. They join its heads, in two slices each, in turn. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void attend_all(const attend_step &s, unsigned seal,
                                                  char *memory) {
    enum { WIDTH = HD + 2 };
    int warp = (int)(threadIdx.x / CUDA_WARP), first = (int)blockIdx.x * WARPS;
    int i = (first + warp) / s.splits, split = (first + warp) % s.splits;
    int first_unit = first / s.splits, last_unit = (first + WARPS - 1) / s.splits;
    if (last_unit >= s.n_units) last_unit = s.n_units - 1;
    int n_vectors = attend_query_vectors(HD);
    uint4 *queries = (uint4 *)memory;
    int width = (s.together < ATTEND_HEADS ? s.together : ATTEND_HEADS) * WIDTH; /* of a warp */
    float *parts = (float *)(queries + ATTEND_UNITS * n_vectors);
    read_attend_queries<HD, is_bf16>(queries, s, first_unit, last_unit - first_unit + 1);
    sync_workers();
    attend_unit unit = unit_of(s, i < s.n_units ? i : s.n_units - 1);
    if (i < s.n_units) {
        attend_split<HD, is_bf16>(s, unit, queries + (i - first_unit) * n_vectors, split,
                                  parts + warp * width);
    }
    sync_workers();
    if (i >= s.n_units) return;
    int before = warp < split ? warp : split; /* of this block's warps, with this unit */
    int n = s.splits - split < WARPS - warp ? s.splits - split : WARPS - warp;
    int first_block = i * s.splits / WARPS, last_block = ((i + 1) * s.splits - 1) / WARPS;
    const float *own = parts + (warp - before) * width;
    for (int h = before; h < unit.n * slice<HD>::N; h += n + before) {
        int head = h / slice<HD>::N, dim = h % slice<HD>::N * (HD / slice<HD>::N);
        join_slice<HD>(s, seal, unit.first + head, dim, own + head * WIDTH, n + before, width,
                       (int)blockIdx.x - first_block, last_block - first_block + 1);
    }
}

static __device__ __forceinline__ void attend(const attend_step &s, unsigned seal, char *memory) {
    if (s.head_dim == 64) {
        s.is_bf16 ? attend_all<64, true>(s, seal, memory) : attend_all<64, false>(s, seal, memory);
    } else {
        s.is_bf16 ? attend_all<128, true>(s, seal, memory)
                  : attend_all<128, false>(s, seal, memory);
    }
}

#endif
