/* What the two forms of a choice share: the pairs, each a tile of queries and a head of keys, and
 * the selection of what weighs most.
 *
 *     pair p = pair_at(call, i);
 *     keys[column] = weight_key(weight);                   // in shared or global memory
 *     int n = pick_largest(out, keys, n_columns, most, [&](int column) { return …; }); */
#ifndef CCA_CUDA_CHOOSE_CUH
#define CCA_CUDA_CHOOSE_CUH

#include "backend/cuda/types.cuh"

enum {
    CHOOSE_THREADS = 256,
    CHOOSE_WARPS = CHOOSE_THREADS / CUDA_WARP,
};

/* All threads that choose; there may be others, which only copy. */
static __device__ __forceinline__ void choose_wait() {
    asm volatile("bar.sync 1, %0;" ::"n"((int)CHOOSE_THREADS) : "memory");
}

/* ---- pairs --------------------------------------------------------------------------- */

/* What is asked for. */
struct choice_call {
    cca_choice out;
    cca_rows bounds, blocks; /* blocks.capacity 0: all groups are weighed */
    cca_range seen;
    const float *q;
    int64_t n_heads, pos, n;
};

/* A tile of queries and a head of keys; its rows are the queries of all heads that share the keys,
 * head by head. */
struct choice_pair {
    int64_t at;           /* among the choices */
    int64_t head;         /* of keys */
    int64_t row, n;       /* the call's first row, and the number of queries */
    int64_t first;        /* group */
    int n_groups, n_rows; /* groups: that some query sees */
    bool all;             /* are recalled, whatever they weigh */
};

static __device__ __forceinline__ choice_pair pair_at(const choice_call &c, int64_t tile,
                                                      int64_t head) {
    int64_t begin, end, size = c.out.tile;
    choice_pair p;
    p.at = tile * c.out.heads + head;
    p.head = head;
    tile += c.pos / size;
    begin = tile * size > c.pos ? tile * size : c.pos;
    end = (tile + 1) * size < c.pos + c.n ? (tile + 1) * size : c.pos + c.n;
    p.row = begin - c.pos;
    p.n = end - begin;
    p.first = cca_edge_at(&c.seen.begin, end - 1);
    p.n_groups = (int)(cca_edge_at(&c.seen.end, end - 1) - p.first);
    p.n_rows = (int)(c.n_heads / c.out.heads * p.n);
    p.all = p.n_groups <= c.out.most;
    return p;
}

/* The query of a pair's row. */
static __device__ __forceinline__ const float *query_of(const choice_call &c, const choice_pair &p,
                                                        int row) {
    int64_t head = p.head * (c.n_heads / c.out.heads) + row / (int)p.n;
    return c.q + ((p.row + row % (int)p.n) * c.n_heads + head) * c.bounds.head_dim;
}

/* The groups before this one are seen by a pair's row. */
static __device__ __forceinline__ int64_t end_of(const choice_call &c, const choice_pair &p,
                                                 int row) {
    return cca_edge_at(&c.seen.end, c.pos + p.row + row % (int)p.n);
}

static inline int64_t choice_tiles(const choice_call &c) {
    return (c.pos + c.n - 1) / c.out.tile - c.pos / c.out.tile + 1;
}

/* ---- selection ----------------------------------------------------------------------- */

/* Keys are ordered as weights, which are not negative; 0: not to be chosen. */
static __device__ __forceinline__ uint32_t weight_key(float weight) {
    return (__float_as_uint(weight) & 0x7fffffff) + 1;
}

/* How many of n keys are at least each of three values; a block. `parts` is one of two that take
 * turns. */
static __device__ __forceinline__ void count_from(int counts[3], int (*parts)[3],
                                                  const uint32_t *keys, int n, uint32_t first,
                                                  uint32_t step) {
    int own[3] = {};
    for (int i = (int)threadIdx.x; i < n; i += CHOOSE_THREADS) {
#pragma unroll
        for (int k = 0; k < 3; k++) own[k] += keys[i] >= first + (uint32_t)k * step;
    }
#pragma unroll
    for (int k = 0; k < 3; k++) own[k] = cuda_warp_count(own[k]);
    if (threadIdx.x % CUDA_WARP == 0) {
#pragma unroll
        for (int k = 0; k < 3; k++) parts[threadIdx.x / CUDA_WARP][k] = own[k];
    }
    choose_wait();
#pragma unroll
    for (int k = 0; k < 3; k++) {
        counts[k] = 0;
#pragma unroll
        for (int i = 0; i < CHOOSE_WARPS; i++) counts[k] += parts[i][k];
    }
}

/* Keys above the result, and *ties of those that equal it, are the `most` largest of n, n > most; a
 * block finds two bits at a time, as far as it takes. */
static __device__ uint32_t threshold(const uint32_t *keys, int n, int most, int *ties) {
    __shared__ int parts[2][CHOOSE_WARPS][3];
    uint32_t least = 0; /* so many or more are at least this */
    int above = 0;      /* that are at least the next candidate */
    for (int shift = 30; shift >= 0; shift -= 2) {
        int counts[3], at = -1;
        count_from(counts, parts[shift / 2 % 2], keys, n, least + (1u << shift), 1u << shift);
#pragma unroll
        for (int k = 0; k < 3; k++) at = counts[k] >= most ? k : at;
#pragma unroll
        for (int k = 0; k < 3; k++) above = k == at + 1 ? counts[k] : above;
        least += (uint32_t)(at + 1) << shift;
#pragma unroll
        for (int k = 0; k < 3; k++) {
            if (k != at || counts[k] != most) continue;
            *ties = 0;
            return least - 1;
        }
    }
    *ties = most - above;
    return least;
}

/* The sum of what the threads before have; *all: of all threads. */
static __device__ uint64_t sum_before(uint64_t x, uint64_t *all) {
    __shared__ uint64_t parts[CHOOSE_WARPS];
    int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP;
    uint64_t up_to = x;
#pragma unroll
    for (int step = 1; step < CUDA_WARP; step *= 2) {
        uint64_t other = __shfl_up_sync(~0u, up_to, step);
        if (lane >= step) up_to += other;
    }
    if (lane == CUDA_WARP - 1) parts[warp] = up_to;
    choose_wait();
    uint64_t before = up_to - x;
    *all = 0;
    for (int i = 0; i < CHOOSE_WARPS; i++) {
        if (i < warp) before += parts[i];
        *all += parts[i];
    }
    choose_wait();
    return before;
}

/* What id gives for the `most` columns of largest key, of equal ones the earlier, in their order;
 * each thread has a run of columns. Gives how many there are: fewer where keys are 0. */
template <typename F>
static __device__ int pick_largest(int32_t *out, const uint32_t *keys, int n, int most, F id) {
    int ties = n, each = (n + CHOOSE_THREADS - 1) / CHOOSE_THREADS;
    uint32_t least = n > most ? threshold(keys, n, most, &ties) : 0;
    int begin = (int)threadIdx.x * each, end = begin + each < n ? begin + each : n;
    if (least == 0) { /* all that may be chosen */
        least = 1;
        ties = n;
    }
    uint64_t counted = 0, all; /* larger ones, and those that are equal, in 32 bits each */
    for (int i = begin; i < end; i++) {
        counted += (uint64_t)(keys[i] > least) << 32 | (uint64_t)(keys[i] == least);
    }
    uint64_t before = sum_before(counted, &all);
    int larger = (int)(before >> 32), equal = (int)(before & 0xffffffff);
    for (int i = begin; i < end; i++) {
        bool taken = keys[i] > least || (keys[i] == least && equal < ties);
        if (taken) out[larger + (equal < ties ? equal : ties)] = id(i);
        larger += keys[i] > least;
        equal += keys[i] == least;
    }
    int n_larger = (int)(all >> 32), n_equal = (int)(all & 0xffffffff);
    return n_larger + (n_equal < ties ? n_equal : ties);
}

/* A pair whose groups are all recalled. */
static __device__ __forceinline__ void pick_all(const choice_call &c, const choice_pair &p) {
    int32_t *groups = c.out.groups + p.at * c.out.most;
    if (threadIdx.x == 0) c.out.counts[p.at] = p.n_groups;
    for (int i = (int)threadIdx.x; i < p.n_groups; i += CHOOSE_THREADS) {
        groups[i] = (int32_t)(p.first + i);
    }
}

/* The form on tensor cores, for bounds in 16 bits (choose_tiles.cu), and that for many rows on
 * Hopper (choose_sm90.cu), where a block can have so much shared memory; false where bounds or rows
 * do not suit them. */
bool choose_in_tiles(cuda_backend *b, const choice_call &c);
bool choose_sm90(cuda_backend *b, const choice_call &c, int most_shared);

#endif
