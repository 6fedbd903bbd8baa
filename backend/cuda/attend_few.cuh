/* Attention of one query and head over a part of its keys: what the kernels of attend_few.cu
 * and token.cu share. It is bound by memory: each row is read once, 16 bytes a lane, several
 * rows under way. For bf16 and f16 caches with head_dim 64 or 128; rows may be a ring.
 *
 *     key_runs keys = {{run_of(spans.at[0], n_heads, pos)}, 1, …};
 *     part p;
 *     attend_keys<128, true, 4>(p, keys, head, q, begin, end, group, n_groups);
 *     join_lanes<128>(p); */
#ifndef CCA_CUDA_ATTEND_FEW_CUH
#define CCA_CUDA_ATTEND_FEW_CUH

#include "backend/cuda/types.cuh"

/* A softmax-weighted sum of values; scores are in units of log 2. */
struct part {
    float largest = -INFINITY, total = 0, sum[8] = {};
};

/* Joins two parts whose scores were looked at apart; one that saw none has weight 0. */
static __device__ __forceinline__ void join(part &a, float largest, float total, const float *sum) {
    float now = fmaxf(a.largest, largest);
    if (now == -INFINITY && total == 0) return; /* a total may be NaN */
    float shrink = exp2f(a.largest - now), weight = exp2f(largest - now);
    a.largest = now;
    a.total = a.total * shrink + total * weight;
#pragma unroll
    for (int i = 0; i < 8; i++) a.sum[i] = a.sum[i] * shrink + sum[i] * weight;
}

/* What a query sees of a span: n rows of each head from `first` on, around the end of a ring; or
 * those of chosen groups, one behind the other; or those of which some are left out. */
struct key_run {
    const uint4 *k, *v;
    int first, n, capacity;
    int sharers; /* query heads that share a head of the rows */
    const int32_t
        *chosen;     /* groups of each head of the rows, `most` from one to the next; or NULL */
    int most, shift; /* shift: of a position to its group, whose size is a power of two */
    const int32_t *left_out; /* groups that are not seen, for one head; a row stands for a group */
    int n_left_out, begin;   /* begin: the group that `first` is the row of */
};

/* All that a query sees, one run behind the other. */
struct key_runs {
    key_run at[CCA_MOST_SPANS];
    int n, n_keys;
};

static __host__ __device__ __forceinline__ key_run run_of(const cca_span &span, int64_t n_heads,
                                                          int64_t pos) {
    const cca_rows &rows = span.rows;
    int n = (int)cca_range_count(&span.seen, pos);
    key_run r = {(const uint4 *)rows.k,
                 (const uint4 *)rows.v,
                 0,
                 n,
                 (int)rows.capacity,
                 1,
                 NULL,
                 0,
                 0,
                 NULL,
                 0,
                 0};
    if (n == 0) return r;
    r.first = (int)cca_rows_at(&rows, cca_edge_at(&span.seen.begin, pos));
    r.sharers = (int)(n_heads / rows.heads);
    return r;
}

/* Makes a run one of n_chosen groups, whose rows do not wrap. */
static __host__ __device__ __forceinline__ void list_run(key_run *r, const cca_span &span,
                                                         const cca_choice &c, const int32_t *chosen,
                                                         int64_t n_chosen, int64_t most) {
    r->first = -(int)span.rows.base;
    r->n = (int)(n_chosen * c.group_size);
    r->chosen = chosen;
    r->most = (int)most;
    for (r->shift = 0; 1 << r->shift < c.group_size;) r->shift++;
}

/* Leaves out n groups, ascending, all of them among those of the run, which begins with group
 * `begin`. */
static __host__ __device__ __forceinline__ void leave_out(key_run *r, const int32_t *chosen,
                                                          int64_t n, int64_t begin) {
    r->n -= (int)n;
    r->left_out = chosen;
    r->n_left_out = (int)n;
    r->begin = (int)begin;
}

/* How many groups are left out before the i-th that is not. */
static __device__ __forceinline__ int left_out_before(const key_run &r, int i) {
    int low = 0, high = r.n_left_out;
    while (low < high) {
        int middle = (low + high) / 2;
        bool is_before = r.left_out[middle] - r.begin - middle <= i;
        low = is_before ? middle + 1 : low;
        high = is_before ? high : middle;
    }
    return low;
}

/* Reads keys and values i, i + step, … of a run; what lies behind the end is read from its first
 * row and never used. */
template <int HD, int AHEAD, bool MAY_LEAVE_OUT>
static __device__ __forceinline__ void read_keys(uint4 *k, uint4 *v, const key_run &r, int head,
                                                 int i, int step, int end) {
    int piece = (int)(threadIdx.x % (HD / 8));
    const int32_t *chosen = r.chosen + (int64_t)head * r.most;
#pragma unroll
    for (int u = 0; u < AHEAD; u++, i += step) {
        int row = i < end ? i : 0;
        if (r.chosen) row += (__ldcg(chosen + (row >> r.shift)) - (row >> r.shift)) << r.shift;
        if (MAY_LEAVE_OUT) row += left_out_before(r, row);
        row += r.first;
        if (row >= r.capacity) row -= r.capacity;
        int64_t at = ((int64_t)head * r.capacity + row) * (HD / 8) + piece;
        k[u] = __ldcg(r.k + at);
        v[u] = __ldcg(r.v + at);
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
    if (i >= end) return; /* all lanes of a key; scores may be NaN */
    float base = now == -INFINITY ? 0 : now, shrink = exp2f(p.largest - base);
    p.largest = now;
    p.total *= shrink;
#pragma unroll
    for (int d = 0; d < 8; d++) p.sum[d] *= shrink;
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
        float weight = exp2f(score[u] - base);
        cuda_eight<is_bf16>(x, v[u]);
        p.total += weight;
#pragma unroll
        for (int d = 0; d < 8; d++) p.sum[d] += weight * x[d];
    }
}

/* One group of HD / 8 lanes adds keys begin, begin + step, … below end of a run; the next AHEAD
 * ones are under way while some are added. */
template <int HD, bool is_bf16, int AHEAD, bool MAY_LEAVE_OUT>
static __device__ __forceinline__ void attend_run(part &p, const key_run &r, int head,
                                                  const float *q, int begin, int step, int end) {
    uint4 k[2][AHEAD], v[2][AHEAD];
    head /= r.sharers;
    int rounds = (end - begin + AHEAD * step - 1) / (AHEAD * step);
    rounds = __reduce_max_sync(~0u, rounds); /* shuffles need all lanes */
    read_keys<HD, AHEAD, MAY_LEAVE_OUT>(k[0], v[0], r, head, begin, step, end);
    for (int round = 0, i = begin; round < rounds; round += 2) {
#pragma unroll
        for (int half = 0; half < 2; half++, i += AHEAD * step) {
            read_keys<HD, AHEAD, MAY_LEAVE_OUT>(k[1 - half], v[1 - half], r, head, i + AHEAD * step,
                                                step, end);
            add_keys<HD, is_bf16, AHEAD>(p, q, k[half], v[half], i, step, end);
        }
    }
}

/* Keys begin … end - 1 of all, among `step` groups of lanes that work side by side; begin and end
 * are the same for all lanes of a warp. MAY_LEAVE_OUT: some run may leave groups out. */
template <int HD, bool is_bf16, int AHEAD, bool MAY_LEAVE_OUT = false>
static __device__ __forceinline__ void attend_keys(part &p, const key_runs &keys, int head,
                                                   const float *q, int begin, int end, int group,
                                                   int step) {
#pragma unroll 1
    for (int i = 0; i < keys.n; i++) {
        const key_run &r = keys.at[i];
        int from = begin > 0 ? begin : 0, to = end < r.n ? end : r.n;
        if (from < to) {
            attend_run<HD, is_bf16, AHEAD, MAY_LEAVE_OUT>(p, r, head, q, from + group, step, to);
        }
        begin -= r.n;
        end -= r.n;
    }
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
