/* Which groups a tile of queries recalls, and the bounds that tell, for any shape and any types; as
 * backend/cpu/choose.c does it, in f32: q · k is at most the sum of q⁺ · high and q⁻ · low, where
 * q⁺ and q⁻ are the positive and the negative part of q.
 *
 * A pair is a tile of queries and a head of keys; its rows are the queries of all heads that share
 * the keys. Some pairs at a time, four kernels one behind the other:
 *
 *     score     [rows][groups] of each pair: products of its rows with the bounds
 *     measure   what each row's softmax needs: the largest score, the sum, how many it sees
 *     weigh     the softmaxes' sum over the rows, in place of the first row's scores
 *     pick      the groups of largest weight
 *
 * Each sum goes through its terms in an order of its own, which neither the chunk nor the other
 * pairs have a say in. */
#include "backend/cuda/types.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / CUDA_WARP,
    SIDE = 16,    /* threads of a block of `score` along its rows, and along its columns */
    COLUMNS = 64, /* of such a block */
    WIDE = COLUMNS / SIDE,
    DEPTH = SIDE, /* dimensions at a time */
    BYTES = 256,  /* different ones; as many as threads */
};

/* Memory for the scores of pairs: so much, or what one pair takes. */
static const size_t MOST_ROOM = 128 << 20;

/* ---- bounds -------------------------------------------------------------------------- */

/* A float that is no larger (smaller) and can be written in bf16. */
static __device__ float bf16_outwards(float x, bool up) {
    float rounded = __bfloat162float(__float2bfloat16_rn(x));
    if (isnan(x) || (up ? rounded >= x : rounded <= x)) return rounded;
    uint32_t bits = __float_as_uint(rounded), step = 1 << 16;
    bool away = up == (rounded >= 0); /* from zero */
    if (rounded == 0) return __uint_as_float(up ? step : step | 1u << 31);
    return __uint_as_float(away ? bits + step : bits - step);
}

/* One warp a group and head. */
static __global__ void bound(cca_groups groups, int64_t first, int64_t count) {
    cuda_begin();
    const cca_rows &raw = groups.raw, &bounds = groups.cores;
    int64_t warp = cuda_index() / CUDA_WARP, hd = raw.head_dim;
    if (warp >= count * raw.heads) return;
    int64_t head = warp % raw.heads, group = first + warp / raw.heads;
    int lane = (int)(threadIdx.x % CUDA_WARP);
    int64_t to = (head * bounds.capacity + group) * hd;
    for (int64_t d = 0; d < hd; d += CUDA_WARP) {
        int n_lanes = (int)(hd - d < CUDA_WARP ? hd - d : CUDA_WARP);
        float high = 0, low = 0;
        for (int64_t i = 0; i < groups.size && lane < n_lanes; i++) {
            int64_t row = head * raw.capacity + cca_rows_at(&raw, group * groups.size + i);
            float x = cuda_row_value(raw.k, raw.k_type, row * hd + d + lane);
            bool only = i == 0 || isnan(x); /* what is no number has no bounds */
            high = only || x > high ? x : high;
            if (groups.of_bounds) x = cuda_row_value(raw.v, raw.v_type, row * hd + d + lane);
            only = i == 0 || isnan(x);
            low = only || x < low ? x : low;
        }
        if (bounds.k_type != raw.k_type) {
            high = bf16_outwards(high, true);
            low = bf16_outwards(low, false);
        }
        cuda_put(bounds.k, bounds.k_type, to + d, high, n_lanes);
        cuda_put(bounds.v, bounds.v_type, to + d, low, n_lanes);
    }
}

void cuda_bound(cca_backend *base, const cca_groups *groups, int64_t pos, int64_t n) {
    int64_t first, count = cca_groups_completed(groups->size, pos, n, &first);
    cuda_launch(cuda_of(base), "bounds", bound, cuda_blocks(count * groups->raw.heads, WARPS),
                THREADS, 0, *groups, first, count);
}

/* ---- pairs --------------------------------------------------------------------------- */

/* Of a row's softmax. */
struct row_sum {
    float largest, share; /* share: 1 / sum */
    int n;                /* groups that the row sees */
};

/* A call, and the pairs of a launch. */
struct choosing {
    cca_choice out;
    cca_rows bounds;
    cca_range seen;
    const float *q;
    int64_t n_heads, pos, n;
    int64_t first;         /* pair */
    int n_rows, n_columns; /* that each pair has room for */
    float *scores;         /* [pairs][n_rows][n_columns] */
    row_sum *sums;         /* [pairs][n_rows] */
};

struct pair {
    int64_t head;         /* of keys */
    int64_t row, n;       /* the call's first row, and the number of queries */
    int64_t first;        /* group */
    int n_groups, n_rows; /* groups: that some query sees */
    float *scores;
    row_sum *sums;
    bool all; /* are recalled, whatever they weigh */
};

static __device__ pair pair_at(const choosing &c, unsigned i) {
    int64_t at = c.first + i, tile = c.pos / c.out.tile + at / c.out.heads, begin, end;
    pair p;
    p.head = at % c.out.heads;
    begin = tile * c.out.tile > c.pos ? tile * c.out.tile : c.pos;
    end = (tile + 1) * c.out.tile < c.pos + c.n ? (tile + 1) * c.out.tile : c.pos + c.n;
    p.row = begin - c.pos;
    p.n = end - begin;
    p.first = cca_edge_at(&c.seen.begin, end - 1);
    p.n_groups = (int)(cca_edge_at(&c.seen.end, end - 1) - p.first);
    p.n_rows = (int)(c.n_heads / c.out.heads * p.n);
    p.scores = c.scores + (int64_t)i * c.n_rows * c.n_columns;
    p.sums = c.sums + (int64_t)i * c.n_rows;
    p.all = p.n_groups <= c.out.most;
    return p;
}

/* ---- scores -------------------------------------------------------------------------- */

/* The query of a pair's row. */
static __device__ const float *query_of(const choosing &c, const pair &p, int row) {
    int64_t head = p.head * (c.n_heads / c.out.heads) + row / p.n;
    return c.q + ((p.row + row % p.n) * c.n_heads + head) * c.bounds.head_dim;
}

/* Grid: columns, rows, pairs. A block has SIDE · HIGH rows; a thread HIGH · WIDE sums. */
template <int HIGH>
static __global__ void __launch_bounds__(THREADS) score(const __grid_constant__ choosing c) {
    cuda_begin();
    __shared__ float x[2][DEPTH][SIDE * HIGH + 1], w[2][DEPTH][COLUMNS + 1];
    pair p = pair_at(c, blockIdx.z);
    int row = (int)blockIdx.y * SIDE * HIGH, column = (int)blockIdx.x * COLUMNS;
    if (p.all || row >= p.n_rows || column >= p.n_groups) return;
    int across = (int)threadIdx.x % SIDE, down = (int)threadIdx.x / SIDE;
    int64_t hd = c.bounds.head_dim, bounds = p.head * c.bounds.capacity + p.first + column;
    const float *q[HIGH], scale = 1 / sqrtf((float)hd);
#pragma unroll
    for (int i = 0; i < HIGH; i++) {
        int r = row + i * SIDE + down;
        q[i] = r < p.n_rows ? query_of(c, p, r) : NULL;
    }
    float sum[HIGH][WIDE] = {};
    for (int64_t first = 0; first < hd; first += DEPTH) {
        int64_t d = first + across;
#pragma unroll
        for (int i = 0; i < HIGH; i++) {
            float value = q[i] && d < hd ? q[i][d] * scale : 0;
            x[0][across][i * SIDE + down] = value > 0 ? value : 0;
            x[1][across][i * SIDE + down] = value > 0 ? 0 : value;
        }
#pragma unroll
        for (int i = 0; i < WIDE; i++) {
            int at = i * SIDE + down;
            bool there = column + at < p.n_groups && d < hd;
            int64_t from = (bounds + at) * hd + d;
            w[0][across][at] = there ? cuda_row_value(c.bounds.k, c.bounds.k_type, from) : 0;
            w[1][across][at] = there ? cuda_row_value(c.bounds.v, c.bounds.v_type, from) : 0;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
#pragma unroll
            for (int i = 0; i < HIGH; i++) {
                float up = x[0][k][i * SIDE + down], under = x[1][k][i * SIDE + down];
#pragma unroll
                for (int j = 0; j < WIDE; j++) {
                    sum[i][j] += up * w[0][k][j * SIDE + across];
                    sum[i][j] += under * w[1][k][j * SIDE + across];
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < HIGH; i++) {
        int r = row + i * SIDE + down;
#pragma unroll
        for (int j = 0; j < WIDE; j++) {
            int at = column + j * SIDE + across;
            if (r < p.n_rows && at < p.n_groups) {
                p.scores[(int64_t)r * c.n_columns + at] = sum[i][j];
            }
        }
    }
}

/* ---- softmaxes ----------------------------------------------------------------------- */

/* Joins what each warp of a block has, in their order. */
template <typename F> static __device__ float join_warps(float x, F join) {
    __shared__ float parts[WARPS];
    __syncthreads(); /* nobody reads them from the time before */
    if (threadIdx.x % CUDA_WARP == 0) parts[threadIdx.x / CUDA_WARP] = x;
    __syncthreads();
    float all = parts[0];
    for (int i = 1; i < WARPS; i++) all = join(all, parts[i]);
    return all;
}

/* Grid: rows, pairs. */
static __global__ void __launch_bounds__(THREADS) measure(const __grid_constant__ choosing c) {
    cuda_begin();
    pair p = pair_at(c, blockIdx.y);
    int row = (int)blockIdx.x;
    if (p.all || row >= p.n_rows) return;
    int64_t sees = cca_edge_at(&c.seen.end, c.pos + p.row + row % p.n) - p.first;
    int n = sees > 0 ? (int)sees : 0; /* no more than the tile's last query */
    const float *scores = p.scores + (int64_t)row * c.n_columns;
    float largest = -INFINITY, total = 0;
    for (int i = (int)threadIdx.x; i < n; i += THREADS) largest = fmaxf(largest, scores[i]);
    largest = join_warps(cuda_warp_max(largest), [](float a, float b) { return fmaxf(a, b); });
    for (int i = (int)threadIdx.x; i < n; i += THREADS) total += expf(scores[i] - largest);
    total = join_warps(cuda_warp_sum(total), [](float a, float b) { return a + b; });
    if (threadIdx.x == 0) p.sums[row] = row_sum{largest, 1 / total, n};
}

/* Grid: blocks of columns, pairs; one thread a column. */
static __global__ void __launch_bounds__(THREADS) weigh(const __grid_constant__ choosing c) {
    cuda_begin();
    pair p = pair_at(c, blockIdx.y);
    int column = (int)cuda_index();
    if (p.all || column >= p.n_groups) return;
    float total = 0;
    for (int row = 0; row < p.n_rows; row++) {
        row_sum s = p.sums[row];
        if (column >= s.n) continue;
        total += expf(p.scores[(int64_t)row * c.n_columns + column] - s.largest) * s.share;
    }
    p.scores[column] = total;
}

/* ---- selection ----------------------------------------------------------------------- */

/* Floats that are not negative are ordered as their bits. */
static __device__ __forceinline__ uint32_t bits_at(const float *x, int i) {
    return __float_as_uint(x[i]) & 0x7fffffff;
}

/* One warp: the largest byte such that `most` or more of what was counted have it or a larger one.
 * *most becomes how many of those with this byte belong to the largest. */
static __device__ int find_byte(const int *counts, int *most) {
    enum { EACH = BYTES / CUDA_WARP };
    int lane = (int)threadIdx.x, byte = BYTES - 1 - lane * EACH, own = 0;
    for (int i = 0; i < EACH; i++) own += counts[byte - i];
    int up_to = own;
#pragma unroll
    for (int step = 1; step < CUDA_WARP; step *= 2) {
        int other = __shfl_up_sync(~0u, up_to, step);
        if (lane >= step) up_to += other;
    }
    int left = *most - (up_to - own); /* of this lane's bytes and smaller ones */
    bool mine = left > 0 && left <= own;
    for (; mine && counts[byte] < left; byte--) left -= counts[byte];
    int from = __ffs((int)__ballot_sync(~0u, mine)) - 1;
    *most = __shfl_sync(~0u, left, from);
    return __shfl_sync(~0u, byte, from);
}

/* The bits of the most-th largest of n values, n > most, found byte by byte by a block. *ties: how
 * many of those that are equal to it belong to the largest. */
static __device__ uint32_t threshold(const float *x, int n, int most, int *ties) {
    __shared__ int counts[BYTES], found, left;
    uint32_t prefix = 0, known = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        counts[threadIdx.x] = 0;
        __syncthreads();
        for (int i = (int)threadIdx.x; i < n; i += THREADS) {
            uint32_t bits = bits_at(x, i);
            if ((bits & known) == prefix) atomicAdd(&counts[bits >> shift & 255], 1);
        }
        __syncthreads();
        if (threadIdx.x < CUDA_WARP) {
            int byte = find_byte(counts, &most);
            if (threadIdx.x == 0) {
                found = byte;
                left = most;
            }
        }
        __syncthreads();
        most = left;
        prefix |= (uint32_t)found << shift;
        known |= 255u << shift;
    }
    *ties = most;
    return prefix;
}

/* The sum of what the threads before have. */
static __device__ uint64_t sum_before(uint64_t x) {
    __shared__ uint64_t parts[WARPS];
    int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP;
    uint64_t up_to = x;
#pragma unroll
    for (int step = 1; step < CUDA_WARP; step *= 2) {
        uint64_t other = __shfl_up_sync(~0u, up_to, step);
        if (lane >= step) up_to += other;
    }
    if (lane == CUDA_WARP - 1) parts[warp] = up_to;
    __syncthreads();
    uint64_t before = up_to - x;
    for (int i = 0; i < warp; i++) before += parts[i];
    return before;
}

/* Groups of the `most` largest weights, ascending: each thread has a run of them. */
static __device__ void pick_largest(int32_t *out, const float *weights, int n, int most,
                                    int32_t first) {
    int ties, each = (n + THREADS - 1) / THREADS;
    uint32_t least = threshold(weights, n, most, &ties);
    int begin = (int)threadIdx.x * each, end = begin + each < n ? begin + each : n;
    uint64_t counted = 0; /* larger ones, and those that are equal, in 32 bits each */
    for (int i = begin; i < end; i++) {
        uint32_t bits = bits_at(weights, i);
        counted += (uint64_t)(bits > least) << 32 | (uint64_t)(bits == least);
    }
    uint64_t before = sum_before(counted);
    int larger = (int)(before >> 32), equal = (int)(before & 0xffffffff);
    for (int i = begin; i < end; i++) {
        uint32_t bits = bits_at(weights, i);
        bool taken = bits > least || (bits == least && equal < ties);
        if (taken) out[larger + (equal < ties ? equal : ties)] = first + i;
        larger += bits > least;
        equal += bits == least;
    }
}

/* Grid: pairs. */
static __global__ void __launch_bounds__(THREADS) pick(const __grid_constant__ choosing c) {
    cuda_begin();
    pair p = pair_at(c, blockIdx.x);
    int64_t at = c.first + blockIdx.x;
    int32_t *groups = c.out.groups + at * c.out.most;
    int most = (int)c.out.most, n = p.all ? p.n_groups : most;
    if (threadIdx.x == 0) c.out.counts[at] = n;
    if (p.all) {
        for (int i = (int)threadIdx.x; i < n; i += THREADS) groups[i] = (int32_t)(p.first + i);
    } else {
        pick_largest(groups, p.scores, p.n_groups, most, (int32_t)p.first);
    }
}

/* ---- launching ----------------------------------------------------------------------- */

static size_t pair_bytes(int64_t n_rows, int64_t n_columns) {
    return (size_t)n_rows * ((size_t)n_columns * sizeof(float) + sizeof(row_sum));
}

size_t cuda_choose_room(int64_t n_pairs, int64_t n_rows, int64_t n_groups) {
    size_t pair = pair_bytes(n_rows, n_groups), fit = pair > 0 ? MOST_ROOM / pair : 0;
    size_t most = fit > 1 ? fit : 1;
    return pair * ((size_t)n_pairs < most ? (size_t)n_pairs : most);
}

static void choose_pairs(cuda_backend *b, const choosing &c, unsigned n_pairs, bool all) {
    unsigned rows = (unsigned)c.n_rows, columns = cuda_blocks(c.n_columns, COLUMNS);
    if (!all) {
        if (c.n_rows <= SIDE) {
            cuda_launch(b, "score", score<1>, dim3(columns, 1, n_pairs), THREADS, 0, c);
        } else {
            cuda_launch(b, "score", score<4>, dim3(columns, cuda_blocks(rows, 4 * SIDE), n_pairs),
                        THREADS, 0, c);
        }
        cuda_launch(b, "measure", measure, dim3(rows, n_pairs), THREADS, 0, c);
        cuda_launch(b, "weigh", weigh, dim3(cuda_blocks(c.n_columns, THREADS), n_pairs), THREADS, 0,
                    c);
    }
    cuda_launch(b, "pick", pick, n_pairs, THREADS, 0, c);
}

void cuda_choose(cca_backend *base, const cca_choice *out, const cca_rows *bounds,
                 const cca_rows * /* blocks: all are weighed */, const cca_range *groups,
                 const cca_matrix *q, int64_t pos, int64_t n) {
    enum { MOST_PAIRS = 65535 }; /* of a grid */
    cuda_backend *b = cuda_of(base);
    int64_t n_heads = q->cols / bounds->head_dim, last = pos + n - 1;
    int64_t n_pairs = (last / out->tile - pos / out->tile + 1) * out->heads;
    int64_t n_rows = n_heads / out->heads * cca_min(n, out->tile);
    int64_t n_columns = cca_range_count(groups, last);
    bool all = n_columns <= out->most; /* the last query sees most */
    size_t room = all ? 0 : cuda_choose_room(n_pairs, n_rows, bounds->capacity);
    char *memory = (char *)cuda_grow(b, &b->scores, room);
    choosing c = {*out, *bounds, *groups,     (const float *)q->data, n_heads,         pos,
                  n,    0,       (int)n_rows, (int)n_columns,         (float *)memory, NULL};
    int64_t some = n_pairs;
    if (!all) some = cca_min((int64_t)(room / pair_bytes(n_rows, n_columns)), n_pairs);
    some = cca_min(some, MOST_PAIRS);
    c.sums = (row_sum *)(memory + (size_t)(some * n_rows * n_columns) * sizeof(float));
    for (; c.first < n_pairs; c.first += some) {
        choose_pairs(b, c, (unsigned)cca_min(some, n_pairs - c.first), all);
    }
}
