/* Attention of a few queries, as in decode: the keys of one query and head are split over several
 * blocks, whose parts the last of them to finish puts together in a fixed order, so that the same
 * call gives the same bits. For bf16 and f16 caches with head_dim 64 or 128; raw rows may be a
 * ring. It is bound by memory: each row is read once, 16 bytes a lane, several rows under way. */
#include "cuda.cuh"

enum {
    WARPS = 4,
    THREADS = WARPS * CUDA_WARP,
    AHEAD = 4,       /* keys a lane reads before it uses the first */
    LEAST_KEYS = 64, /* of a block */
    MOST_SPLITS = 64,
    BLOCKS_A_SM = 4, /* aimed at */
};

struct split_args {
    cca_keys keys;
    const float *q;
    float *out;
    float *partial;  /* [n][n_heads][splits][head_dim + 2]: sums, largest score, total */
    unsigned *count; /* [n][n_heads] finished blocks; 0 again at the end */
    int64_t n_heads, pos;
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

static __device__ key_list list_keys(const split_args &a, int64_t head, int64_t pos) {
    const cca_rows &raw = a.keys.raw, &far = a.keys.far;
    key_list l;
    int64_t begin = cca_rule_raw_begin(&a.keys.rule, pos);
    int64_t n_far = cca_rule_far(&a.keys.rule, pos);
    l.raw_row = head / (a.n_heads / raw.heads) * raw.capacity;
    l.far_row = n_far > 0 ? head / (a.n_heads / far.heads) * far.capacity : 0;
    l.n_raw = (int)(pos + 1 - begin);
    l.n_keys = l.n_raw + (int)n_far;
    l.first_raw = (int)cca_rows_at(&raw, begin);
    l.capacity = (int)raw.capacity;
    return l;
}

/* Reads keys and values i, i + step, … of the list; what lies behind the end is read from key 0
 * and never used. */
template <int HD>
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
        k[u] = __ldg((const uint4 *)rows.k + at * (HD / 8) + piece);
        v[u] = __ldg((const uint4 *)rows.v + at * (HD / 8) + piece);
    }
}

/* Adds AHEAD keys i, i + step, …; those from end on count nothing. */
template <int HD, bool is_bf16>
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

/* One group of HD / 8 lanes goes over keys begin, begin + step, … below end; the next ones are
 * under way while some are added. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ part attend_keys(const split_args &a, const key_list &l,
                                                   const float *q, int begin, int step, int end) {
    part p;
    uint4 k[2][AHEAD], v[2][AHEAD];
    int rounds = (end - begin + AHEAD * step - 1) / (AHEAD * step);
    rounds = __reduce_max_sync(~0u, rounds); /* shuffles need all lanes */
    read_keys<HD>(k[0], v[0], a, l, begin, step, end);
    for (int round = 0, i = begin; round < rounds; round += 2) {
#pragma unroll
        for (int half = 0; half < 2; half++, i += AHEAD * step) {
            read_keys<HD>(k[1 - half], v[1 - half], a, l, i + AHEAD * step, step, end);
            add_keys<HD, is_bf16>(p, q, k[half], v[half], i, step, end);
        }
    }
    return p;
}

/* Joins the parts of a block's lane groups; the first warp's first group has the whole then. */
template <int HD> static __device__ __forceinline__ void join_block(part &p) {
    enum { LANES = HD / 8, WIDTH = HD + 2 };
    __shared__ float shared[WARPS][WIDTH];
    int lane = (int)(threadIdx.x % CUDA_WARP), warp = (int)(threadIdx.x / CUDA_WARP);
#pragma unroll
    for (int step = LANES; step < CUDA_WARP; step *= 2) {
        float sum[8], largest = __shfl_xor_sync(~0u, p.largest, step);
        float total = __shfl_xor_sync(~0u, p.total, step);
#pragma unroll
        for (int d = 0; d < 8; d++) sum[d] = __shfl_xor_sync(~0u, p.sum[d], step);
        join(p, largest, total, sum);
    }
    if (lane < LANES) {
#pragma unroll
        for (int d = 0; d < 8; d++) shared[warp][lane * 8 + d] = p.sum[d];
        shared[warp][HD] = p.largest;
        shared[warp][HD + 1] = p.total;
    }
    __syncthreads();
    if (threadIdx.x >= LANES) return;
    for (int w = 1; w < WARPS; w++) {
        join(p, shared[w][HD], shared[w][HD + 1], &shared[w][lane * 8]);
    }
}

/* True in the block that is the last of its query and head to come here. */
static __device__ bool is_last(unsigned *count) {
    __shared__ unsigned before;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) before = atomicAdd(count, 1);
    __syncthreads();
    __threadfence();
    return before == gridDim.x - 1;
}

/* Grid: splits, heads, queries. */
template <int HD, bool is_bf16>
static __global__ void __launch_bounds__(THREADS) attend(const split_args a) {
    cuda_begin();
    enum { LANES = HD / 8, WIDTH = HD + 2, GROUPS = THREADS / LANES };
    int64_t head = blockIdx.y, pos = a.pos + blockIdx.z, row = blockIdx.z * a.n_heads + head;
    key_list l = list_keys(a, head, pos);
    int splits = (int)gridDim.x, each = (l.n_keys + splits - 1) / splits;
    int begin = (int)blockIdx.x * each, end = begin + each < l.n_keys ? begin + each : l.n_keys;
    int group = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    float q[8], unit = (HD == 64 ? 0.125f : 0.08838834764831845f) * 1.4426950408889634f;
#pragma unroll
    for (int d = 0; d < 8; d++) q[d] = a.q[row * HD + lane * 8 + d] * unit;
    part p = attend_keys<HD, is_bf16>(a, l, q, begin + group, GROUPS, end);
    join_block<HD>(p);
    float *mine = a.partial + (row * splits + blockIdx.x) * WIDTH;
    if (threadIdx.x < LANES) {
#pragma unroll
        for (int d = 0; d < 8; d++) mine[lane * 8 + d] = p.sum[d];
        mine[HD] = p.largest;
        mine[HD + 1] = p.total;
    }
    if (!is_last(a.count + row)) return;
    if (threadIdx.x == 0) a.count[row] = 0;
    if (threadIdx.x >= LANES) return;
    part all;
    for (int i = 0; i < splits; i++) {
        const float *from = a.partial + (row * splits + i) * WIDTH;
        float sum[8];
#pragma unroll
        for (int d = 0; d < 8; d++) sum[d] = __ldcg(from + lane * 8 + d);
        join(all, __ldcg(from + HD), __ldcg(from + HD + 1), sum);
    }
#pragma unroll
    for (int d = 0; d < 8; d++) a.out[row * HD + lane * 8 + d] = all.sum[d] / all.total;
}

/* Blocks that share a query and head: enough to fill the GPU, each with some keys to do. */
static int64_t count_splits(const cuda_backend *b, int64_t n_keys, int64_t rows) {
    int64_t fill = b->n_sm * BLOCKS_A_SM / rows;
    int64_t most = (n_keys + LEAST_KEYS - 1) / LEAST_KEYS;
    return cca_max(1, cca_min(cca_min(fill, most), MOST_SPLITS));
}

bool cuda_attend_split(cuda_backend *b, cca_matrix *out, const cca_keys *keys, const cca_matrix *q,
                       int64_t pos, int64_t n) {
    const cca_rows *raw = &keys->raw;
    int64_t hd = raw->head_dim, n_heads = q->cols / hd, last = pos + n - 1;
    cca_dtype type = raw->k_type;
    int64_t n_keys =
        last + 1 - cca_rule_raw_begin(&keys->rule, last) + cca_rule_far(&keys->rule, last);
    bool fits = type == raw->v_type && (type == CCA_BF16 || type == CCA_F16) &&
                (hd == 64 || hd == 128) && n_keys <= INT32_MAX / 2 &&
                raw->capacity <= INT32_MAX / 2;
    if (!fits) return false;
    int64_t splits = count_splits(b, n_keys, n * n_heads);
    size_t partial = (size_t)(n * n_heads * splits * (hd + 2)) * sizeof(float);
    split_args a = {*keys, (const float *)q->data, (float *)out->data, NULL, NULL, n_heads, pos};
    a.partial = (float *)cuda_grow(b, &b->partial, partial);
    a.count = (unsigned *)cuda_grow(b, &b->count, (size_t)(n * n_heads) * sizeof *a.count);
    void (*kernel)(split_args) = type == CCA_BF16 ? hd == 64 ? attend<64, true> : attend<128, true>
                                 : hd == 64 ? attend<64, false>
                                                  : attend<128, false>;
    cuda_launch(b, "attention", kernel, dim3((unsigned)splits, (unsigned)n_heads, (unsigned)n),
                THREADS, 0, a);
    return true;
}
