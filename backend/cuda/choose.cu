/* Bounds, and which groups a tile of queries recalls by them, for any shape and any types; as
 * backend/cpu/choose.c does it, in f32: q · k is at most the sum of q⁺ · high and q⁻ · low, where
 * q⁺ and q⁻ are the positive and the negative part of q. All groups are weighed, however many there
 * are. Some pairs at a time (choose.cuh), four kernels one behind the other:
 *
 *     score     [rows][groups] of each pair: products of its rows with the bounds
 *     measure   what each row's softmax needs: the largest score, the sum, how many it sees
 *     weigh     the softmaxes' sum over the rows, in place of the first row's scores
 *     pick      the groups of largest weight
 *
 * Each sum goes through its terms in an order of its own, which neither the chunk nor the other
 * pairs have a say in. */
#include "backend/cuda/choose.cuh"

enum {
    SIDE = 16,    /* threads of a block of `score` along its rows, and along its columns */
    COLUMNS = 64, /* of such a block */
    WIDE = COLUMNS / SIDE,
    DEPTH = SIDE, /* dimensions at a time */
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
    cuda_launch(cuda_of(base), "bounds", bound,
                cuda_blocks(count * groups->raw.heads, CHOOSE_WARPS), CHOOSE_THREADS, 0, *groups,
                first, count);
}

/* ---- pairs --------------------------------------------------------------------------- */

/* Of a row's softmax. */
struct row_sum {
    float largest, share; /* share: 1 / sum */
    int n;                /* groups that the row sees */
};

/* A call, and the pairs of a launch. */
struct choosing {
    choice_call call;
    int64_t first;         /* pair */
    int n_rows, n_columns; /* that each pair has room for */
    float *scores;         /* [pairs][n_rows][n_columns] */
    row_sum *sums;         /* [pairs][n_rows] */
};

static __device__ choice_pair pair_of(const choosing &c, unsigned i) {
    int64_t at = c.first + i;
    return pair_at(c.call, at / c.call.out.heads, at % c.call.out.heads);
}

static __device__ float *scores_of(const choosing &c, unsigned i, int row) {
    return c.scores + ((int64_t)i * c.n_rows + row) * c.n_columns;
}

static __device__ row_sum *sum_of(const choosing &c, unsigned i, int row) {
    return c.sums + (int64_t)i * c.n_rows + row;
}

/* ---- scores -------------------------------------------------------------------------- */

/* Grid: columns, rows, pairs. A block has SIDE · HIGH rows; a thread HIGH · WIDE sums. */
template <int HIGH>
static __global__ void __launch_bounds__(CHOOSE_THREADS) score(const __grid_constant__ choosing c) {
    cuda_begin();
    __shared__ float x[2][DEPTH][SIDE * HIGH + 1], w[2][DEPTH][COLUMNS + 1];
    const cca_rows &rows = c.call.bounds;
    choice_pair p = pair_of(c, blockIdx.z);
    int row = (int)blockIdx.y * SIDE * HIGH, column = (int)blockIdx.x * COLUMNS;
    if (p.all || row >= p.n_rows || column >= p.n_groups) return;
    int across = (int)threadIdx.x % SIDE, down = (int)threadIdx.x / SIDE;
    int64_t hd = rows.head_dim, bounds = p.head * rows.capacity + p.first + column;
    const float *q[HIGH], scale = 1 / sqrtf((float)hd);
#pragma unroll
    for (int i = 0; i < HIGH; i++) {
        int r = row + i * SIDE + down;
        q[i] = r < p.n_rows ? query_of(c.call, p, r) : NULL;
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
            w[0][across][at] = there ? cuda_row_value(rows.k, rows.k_type, from) : 0;
            w[1][across][at] = there ? cuda_row_value(rows.v, rows.v_type, from) : 0;
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
                scores_of(c, blockIdx.z, r)[at] = sum[i][j];
            }
        }
    }
}

/* ---- softmaxes ----------------------------------------------------------------------- */

/* Joins what each warp of a block has, in their order. */
template <typename F> static __device__ float join_warps(float x, F join) {
    __shared__ float parts[CHOOSE_WARPS];
    __syncthreads(); /* nobody reads them from the time before */
    if (threadIdx.x % CUDA_WARP == 0) parts[threadIdx.x / CUDA_WARP] = x;
    __syncthreads();
    float all = parts[0];
    for (int i = 1; i < CHOOSE_WARPS; i++) all = join(all, parts[i]);
    return all;
}

/* Grid: rows, pairs. */
static __global__ void __launch_bounds__(CHOOSE_THREADS)
    measure(const __grid_constant__ choosing c) {
    cuda_begin();
    choice_pair p = pair_of(c, blockIdx.y);
    int row = (int)blockIdx.x;
    if (p.all || row >= p.n_rows) return;
    int64_t sees = end_of(c.call, p, row) - p.first;
    int n = sees > 0 ? (int)sees : 0; /* no more than the tile's last query */
    const float *scores = scores_of(c, blockIdx.y, row);
    float largest = -INFINITY, total = 0;
    for (int i = (int)threadIdx.x; i < n; i += CHOOSE_THREADS) largest = fmaxf(largest, scores[i]);
    largest = join_warps(cuda_warp_max(largest), [](float a, float b) { return fmaxf(a, b); });
    for (int i = (int)threadIdx.x; i < n; i += CHOOSE_THREADS) total += expf(scores[i] - largest);
    total = join_warps(cuda_warp_sum(total), [](float a, float b) { return a + b; });
    if (threadIdx.x == 0) *sum_of(c, blockIdx.y, row) = row_sum{largest, 1 / total, n};
}

/* Grid: blocks of columns, pairs; one thread a column. */
static __global__ void __launch_bounds__(CHOOSE_THREADS) weigh(const __grid_constant__ choosing c) {
    cuda_begin();
    choice_pair p = pair_of(c, blockIdx.y);
    int column = (int)cuda_index();
    if (p.all || column >= p.n_groups) return;
    float total = 0;
    for (int row = 0; row < p.n_rows; row++) {
        row_sum s = *sum_of(c, blockIdx.y, row);
        if (column >= s.n) continue;
        total += expf(scores_of(c, blockIdx.y, row)[column] - s.largest) * s.share;
    }
    ((uint32_t *)scores_of(c, blockIdx.y, 0))[column] = weight_key(total);
}

/* Grid: pairs. */
static __global__ void __launch_bounds__(CHOOSE_THREADS, 1)
    pick(const __grid_constant__ choosing c) {
    cuda_begin();
    choice_pair p = pair_of(c, blockIdx.x);
    if (p.all) {
        pick_all(c.call, p);
        return;
    }
    const cca_choice &out = c.call.out;
    const uint32_t *keys = (const uint32_t *)scores_of(c, blockIdx.x, 0);
    int n = pick_largest(out.groups + p.at * out.most, keys, p.n_groups, (int)out.most,
                         [&](int i) { return (int32_t)(p.first + i); });
    if (threadIdx.x == 0) out.counts[p.at] = n;
}

/* ---- launching ----------------------------------------------------------------------- */

static size_t pair_bytes(int64_t n_rows, int64_t n_columns) {
    return (size_t)n_rows * ((size_t)n_columns * sizeof(float) + sizeof(row_sum));
}

/* Bytes for the scores of some pairs, or of one. */
static size_t score_room(int64_t n_pairs, int64_t n_rows, int64_t n_groups) {
    size_t pair = pair_bytes(n_rows, n_groups), fit = pair > 0 ? MOST_ROOM / pair : 0;
    size_t most = fit > 1 ? fit : 1;
    return pair * ((size_t)n_pairs < most ? (size_t)n_pairs : most);
}

size_t cuda_choose_room(cuda_backend *b, const cca_layer_sizes *l) {
    const cca_choice *c = &l->choice;
    choice_call call = {*c, {}, {}, {}, NULL, l->n_heads, 0, l->n_tokens};
    /* Bounds of keys in blocks have 16 bits. */
    call.bounds.k_type = cuda_has_blocks(l->k_type) ? CCA_BF16 : l->k_type;
    call.bounds.v_type = call.bounds.k_type;
    call.bounds.head_dim = l->head_dim;
    call.blocks.capacity = l->n_groups >= c->levels_from ? l->n_groups / CCA_BLOCK : 0;
    if (chooses_in_tiles(b, call, l->n_groups)) return 0;
    return score_room(choice_tiles(call) * c->heads, l->n_heads / c->heads * c->tile, l->n_groups);
}

static void choose_pairs(cuda_backend *b, const choosing &c, unsigned n_pairs, bool all) {
    enum { THREADS = CHOOSE_THREADS };
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

static void choose_plain(cuda_backend *b, const choice_call &call) {
    const cca_choice &out = call.out;
    int64_t n_pairs = choice_tiles(call) * out.heads;
    int64_t n_rows = call.n_heads / out.heads * cca_min(call.n, out.tile);
    int64_t n_columns = cca_range_count(&call.seen, call.pos + call.n - 1);
    bool all = n_columns <= out.most; /* the last query sees most */
    size_t room = all ? 0 : score_room(n_pairs, n_rows, call.bounds.capacity);
    char *memory = (char *)cuda_grow(b, &b->scores, room);
    choosing c = {call, 0, (int)n_rows, (int)n_columns, (float *)memory, NULL};
    int64_t some = n_pairs;
    if (!all) some = cca_min((int64_t)(room / pair_bytes(n_rows, n_columns)), n_pairs);
    some = cca_min(some, CUDA_MOST_BLOCKS);
    c.sums = (row_sum *)(memory + (size_t)(some * n_rows * n_columns) * sizeof(float));
    for (; c.first < n_pairs; c.first += some) {
        choose_pairs(b, c, (unsigned)cca_min(some, n_pairs - c.first), all);
    }
}

void cuda_choose(cca_backend *base, const cca_choice *out, const cca_rows *bounds,
                 const cca_rows *blocks, const cca_range *groups, const cca_matrix *q, int64_t pos,
                 int64_t n) {
    cuda_backend *b = cuda_of(base);
    choice_call call = {*out,
                        *bounds,
                        blocks ? *blocks : cca_rows{},
                        *groups,
                        (const float *)q->data,
                        q->cols / bounds->head_dim,
                        pos,
                        n};
    if (n == 1 && cuda_token_choose(b, &call)) return;
    if (!choose_in_tiles(b, call)) choose_plain(b, call);
}
