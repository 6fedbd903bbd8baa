/* Attention of one query and head over a part of its keys: what the kernels of attend_few.cu
 * and token.cu share. It is bound by memory: each row is read once, 16 bytes a lane, several
 * rows under way. For bf16 and f16 caches with head_dim 64 or 128; raw rows may be a ring.
 *
 *     key_list l = list_keys(a.keys, pos);
 *     place_head(&l, a.keys, head, sharers(a.keys.raw, n_heads), sharers(a.keys.far, n_heads));
 *     part p;
 *     attend_keys<128, true, 4>(p, a, l, q, begin + group, n_groups, end);
 *     join_lanes<128>(p); */
#ifndef CCA_CUDA_SPLIT_CUH
#define CCA_CUDA_SPLIT_CUH

#include "backend/cuda/device.cuh"

struct split_args {
    cca_keys keys;
    const float *q;
    float *out;
    float *partial;  /* [n][n_heads][splits][head_dim + 2]: sums, largest score, total */
    unsigned *count; /* [n][n_heads] finished parts; 0 again at the end */
    int64_t n_heads, pos;
    int splits; /* of the keys of a query and head */
};

/* A softmax-weighted sum of values; scores are in units of log 2. */
struct part {
    float largest = -INFINITY, total = 0, sum[8] = {};
};

/* Joins two parts whose scores were looked at apart; one that saw none has weight 0. */
static __device__ __forceinline__ void join(part &a, float largest, float total, const float *sum) {
    float now = fmaxf(a.largest, largest);
    if (now == -INFINITY) return;
    float shrink = exp2f(a.largest - now), weight = exp2f(largest - now);
    a.largest = now;
    a.total = a.total * shrink + total * weight;
#pragma unroll
    for (int i = 0; i < 8; i++) a.sum[i] = a.sum[i] * shrink + sum[i] * weight;
}

/* The keys a query sees, as one list: raw rows from first_raw on, around the ring, then far ones.
 */
struct key_list {
    int64_t raw_row, far_row; /* row 0 of the head, counted over all heads */
    int n_raw, n_keys, first_raw, capacity;
};

/* That of the first head. */
static __host__ __device__ __forceinline__ key_list list_keys(const cca_keys &keys, int64_t pos) {
    int64_t begin = cca_rule_raw_begin(&keys.rule, pos);
    int64_t n_raw = pos + 1 - begin, n_far = cca_rule_far(&keys.rule, pos);
    int64_t first = cca_rows_at(&keys.raw, begin);
    return key_list{0, 0, (int)n_raw, (int)(n_raw + n_far), (int)first, (int)keys.raw.capacity};
}

/* How many of n query heads share a head of the rows; of rows that nobody sees, as if all. */
static __host__ __device__ __forceinline__ int sharers(const cca_rows &rows, int64_t n_heads) {
    return (int)(rows.heads > 0 ? n_heads / rows.heads : n_heads);
}

/* Turns the first head's list into that of a head. */
static __device__ __forceinline__ void place_head(key_list *l, const cca_keys &keys, int head,
                                                  int raw_sharers, int far_sharers) {
    l->raw_row = head / raw_sharers * keys.raw.capacity;
    l->far_row = head / far_sharers * keys.far.capacity;
}

/* Reads keys and values i, i + step, … of the list; what lies behind the end is read from key 0
 * and never used. */
template <int HD, int AHEAD>
static __device__ __forceinline__ void read_keys(uint4 *k, uint4 *v, const split_args &a,
                                                 const key_list &l, int i, int step, int end) {
    int piece = (int)(threadIdx.x % (HD / 8));
#pragma unroll
    for (int u = 0; u < AHEAD; u++, i += step) {
        int key = i < end ? i : 0, row = l.first_raw + key;
        if (row >= l.capacity) row -= l.capacity;
        bool raw = key < l.n_raw;
        const cca_rows &rows = raw ? a.keys.raw : a.keys.far;
        int64_t at = raw ? l.raw_row + row : l.far_row + (key - l.n_raw);
        k[u] = __ldcg((const uint4 *)rows.k + at * (HD / 8) + piece);
        v[u] = __ldcg((const uint4 *)rows.v + at * (HD / 8) + piece);
    }
}

/* Adds AHEAD keys i, i + step, …; those from end on count nothing. */
template <int HD, bool is_bf16, int AHEAD>
static __device__ __forceinline__ void add_keys(part &p, const float *q, const uint4 *k,
                                                const uint4 *v, int i, int step, int end) {
    float score[AHEAD], now = p.largest, x[8];
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
        cuda_eight<is_bf16>(x, k[u]);
        float sum = 0;
#pragma unroll
        for (int d = 0; d < 8; d++) sum += q[d] * x[d];
#pragma unroll
        for (int lane = HD / 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(~0u, sum, lane);
        score[u] = i + u * step < end ? sum : -INFINITY;
        now = fmaxf(now, score[u]);
    }
    if (now == -INFINITY) return;
    float shrink = exp2f(p.largest - now);
    p.largest = now;
    p.total *= shrink;
#pragma unroll
    for (int d = 0; d < 8; d++) p.sum[d] *= shrink;
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
        float weight = exp2f(score[u] - now);
        cuda_eight<is_bf16>(x, v[u]);
        p.total += weight;
#pragma unroll
        for (int d = 0; d < 8; d++) p.sum[d] += weight * x[d];
    }
}

/* One group of HD / 8 lanes adds keys begin, begin + step, … below end; the next AHEAD ones are
 * under way while some are added. */
template <int HD, bool is_bf16, int AHEAD>
static __device__ __forceinline__ void attend_keys(part &p, const split_args &a, const key_list &l,
                                                   const float *q, int begin, int step, int end) {
    uint4 k[2][AHEAD], v[2][AHEAD];
    int rounds = (end - begin + AHEAD * step - 1) / (AHEAD * step);
    rounds = __reduce_max_sync(~0u, rounds); /* shuffles need all lanes */
    read_keys<HD, AHEAD>(k[0], v[0], a, l, begin, step, end);
    for (int round = 0, i = begin; round < rounds; round += 2) {
#pragma unroll
        for (int half = 0; half < 2; half++, i += AHEAD * step) {
            read_keys<HD, AHEAD>(k[1 - half], v[1 - half], a, l, i + AHEAD * step, step, end);
            add_keys<HD, is_bf16, AHEAD>(p, q, k[half], v[half], i, step, end);
        }
    }
}

/* Turns a score into one in units of log 2. */
template <int HD> static __device__ __forceinline__ float score_unit() {
    return (HD == 64 ? 0.125f : 0.08838834764831845f) * 1.4426950408889634f;
}

/* Joins the parts of a warp's lane groups; each group has the whole then. */
template <int HD> static __device__ __forceinline__ void join_lanes(part &p) {
#pragma unroll
    for (int step = HD / 8; step < CUDA_WARP; step *= 2) {
        float sum[8], largest = __shfl_xor_sync(~0u, p.largest, step);
        float total = __shfl_xor_sync(~0u, p.total, step);
#pragma unroll
        for (int d = 0; d < 8; d++) sum[d] = __shfl_xor_sync(~0u, p.sum[d], step);
        join(p, largest, total, sum);
    }
}

#endif
