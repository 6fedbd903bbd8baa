/* Attention of one query as a step of a token: keys split over warps, whose parts are joined in a
 * block, and then by a head's first block, in a fixed order. Where it turns, it rotates the query
 * and the own key, and stores this. Nothing of a part that saw no key counts; NaN does.
 *
 *     attend(step, seal, (float *)memory);                   // of all blocks, by all their workers
 */
#ifndef CCA_CUDA_TOKEN_ATTEND_CUH
#define CCA_CUDA_TOKEN_ATTEND_CUH

#include "backend/cuda/choose.cuh"
#include "backend/cuda/sealed.cuh"
#include "backend/cuda/token_stream.cuh"

enum { ATTEND_AHEAD = 3 }; /* keys a lane reads before it uses the first */

/* Parts lie as HD sums, the largest score, the total. A lane has sums lane, lane + 32, … */
template <int HD> struct joined {
    enum { WIDTH = HD + 2, OWN = HD / CUDA_WARP };
    float largest = -INFINITY, total = 0, sum[OWN] = {};
};

/* Joins n parts in shared memory. */
template <int HD>
static __device__ __forceinline__ joined<HD> join_parts(const float *parts, int n) {
    enum { WIDTH = joined<HD>::WIDTH, OWN = joined<HD>::OWN };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    joined<HD> all;
    for (int i = lane; i < n; i += CUDA_WARP) {
        all.largest = fmaxf(all.largest, parts[i * WIDTH + HD]);
    }
    all.largest = cuda_warp_max(all.largest);
#pragma unroll 4
    for (int i = 0; i < n; i++) {
        const float *from = parts + i * WIDTH;
        float weight = weight_of(from[HD], all.largest);
        all.total += weight * from[HD + 1];
#pragma unroll
        for (int j = 0; j < OWN; j++) all.sum[j] += weight * from[j * CUDA_WARP + lane];
    }
    return all;
}

/* Joins n parts, each of a block, as they come; some at a time. */
template <int HD>
static __device__ __forceinline__ joined<HD> join_sealed(const uint64_t *parts, int n,
                                                         unsigned seal) {
    enum { WIDTH = joined<HD>::WIDTH, OWN = joined<HD>::OWN, BATCH = 3 };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    joined<HD> all;
    for (int first = 0; first < n; first += BATCH) {
        float x[BATCH][OWN + 2];
        for (bool there = false; !there;) {
            there = true;
#pragma unroll
            for (int i = 0; i < BATCH * (OWN + 2); i++) {
                int part = i / (OWN + 2), j = i % (OWN + 2);
                int row = first + part < n ? first + part : n - 1;
                int at = row * WIDTH + (j < OWN ? j * CUDA_WARP + lane : HD + j - OWN);
                there = sealed_get(&x[part][j], parts + at, seal) && there;
            }
        }
#pragma unroll
        for (int part = 0; part < BATCH; part++) {
            if (first + part >= n) continue;
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

/* What a block has of a head: parts in shared memory; it is `block` among n with this head. The
 * first of them puts the blocks' parts together, in their order. */
template <int HD>
static __device__ __forceinline__ void join_head(const attend_step &s, unsigned seal, int head,
                                                 const float *parts, int n_parts, int block,
                                                 int n_blocks) {
    enum { WIDTH = joined<HD>::WIDTH, OWN = joined<HD>::OWN };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    joined<HD> all = join_parts<HD>(parts, n_parts);
    if (n_blocks > 1) {
        uint64_t *to = s.parts + (int64_t)head * s.splits * WIDTH;
        uint64_t *mine = to + block * WIDTH;
#pragma unroll
        for (int j = 0; j < OWN; j++) sealed_put(mine + j * CUDA_WARP + lane, all.sum[j], seal);
        if (lane == 0) {
            sealed_put(mine + HD, all.largest, seal);
            sealed_put(mine + HD + 1, all.total, seal);
        }
        if (block > 0) return;
        all = join_sealed<HD>(to, n_blocks, seal);
    }
    float *out = s.out + head * HD + lane;
#pragma unroll
    for (int j = 0; j < OWN; j++) out[j * CUDA_WARP] = all.sum[j] / all.total;
}

/* Adds the key of the query's own position, which is not stored yet; the first of the heads that
 * share it stores it. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void add_own(part &p, const attend_step &s, int head,
                                               const float *q) {
    enum { LANES = HD / 8 };
    const turn_args &a = s.turn;
    int sharers = s.keys.at[0].sharers, own = head / sharers;
    int lane = (int)(threadIdx.x % CUDA_WARP), piece = lane % LANES;
    __align__(16) float x[8];
    rotate_eight<HD>(x, a.k + own * HD, a.angles, piece, a.interleaved);
    uint4 k = cuda_round_eight<is_bf16>(x);
    read_eight(x, a.v + own * HD + piece * 8);
    uint4 v = cuda_round_eight<is_bf16>(x);
    if (head % sharers == 0 && lane < LANES) {
        int64_t row = own * a.rows.capacity + s.own_row;
        ((uint4 *)a.rows.k)[row * LANES + piece] = k;
        ((uint4 *)a.rows.v)[row * LANES + piece] = v;
    }
    add_keys<HD, is_bf16, 1>(p, q, &k, &v, lane / LANES, 1, 1);
}

/* A warp's part of the keys of its head, into shared memory. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void attend_part(const attend_step &s, int head, int split,
                                                   float *to) {
    enum { LANES = HD / 8, GROUPS = CUDA_WARP / LANES };
    int lane = (int)(threadIdx.x % CUDA_WARP), piece = lane % LANES;
    __align__(16) float q[8];
    if (s.turns) {
        rotate_eight<HD>(q, s.q + head * HD, s.turn.angles, piece, s.turn.interleaved);
    } else {
        read_eight(q, s.q + head * HD + piece * 8);
    }
#pragma unroll
    for (int d = 0; d < 8; d++) q[d] *= cuda_score_unit<HD>();
    int begin = split * s.each,
        end = begin + s.each < s.keys.n_keys ? begin + s.each : s.keys.n_keys;
    part p;
    if (s.turns && split == s.splits - 1) add_own<HD, is_bf16>(p, s, head, q);
    attend_keys<HD, is_bf16, ATTEND_AHEAD>(p, s.keys, head, q, begin, end, lane / LANES, GROUPS);
    join_lanes<HD>(p);
    if (lane < LANES) {
#pragma unroll
        for (int d = 0; d < 8; d++) to[lane * 8 + d] = p.sum[d];
    }
    if (lane == 0) {
        to[HD] = p.largest;
        to[HD + 1] = p.total;
    }
}

/* Each warp has one of the splits of a head's keys; warps of a block come one behind the other, so
 * that a block has one head, or a few. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void attend_all(const attend_step &s, unsigned seal,
                                                  float *parts) {
    enum { WIDTH = joined<HD>::WIDTH };
    int warp = (int)(threadIdx.x / CUDA_WARP), first = (int)blockIdx.x * WARPS;
    int head = (first + warp) / s.splits, split = (first + warp) % s.splits;
    if (head < s.n_heads) attend_part<HD, is_bf16>(s, head, split, parts + warp * WIDTH);
    sync_workers();
    if (head >= s.n_heads || (warp > 0 && split > 0)) return;
    int n = s.splits - split < WARPS - warp ? s.splits - split : WARPS - warp;
    int first_block = head * s.splits / WARPS, last_block = ((head + 1) * s.splits - 1) / WARPS;
    join_head<HD>(s, seal, head, parts + warp * WIDTH, n, (int)blockIdx.x - first_block,
                  last_block - first_block + 1);
}

static __device__ __forceinline__ void attend(const attend_step &s, unsigned seal, float *parts) {
    if (s.head_dim == 64) {
        s.is_bf16 ? attend_all<64, true>(s, seal, parts) : attend_all<64, false>(s, seal, parts);
    } else {
        s.is_bf16 ? attend_all<128, true>(s, seal, parts) : attend_all<128, false>(s, seal, parts);
    }
}

#endif
