/* What the forms of a choice share: the pairs, each a tile of queries and a head of keys, and
 * the selection of what weighs most.
 *
 *     choice_pair p = pair_at(call, tile, head);
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
    asm volatile("bar.sync 3, %0;" ::"n"((int)CHOOSE_THREADS) : "memory");
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
    choice_pair p;
    p.at = tile * c.out.heads + head;
    p.head = head;
    p.row = cca_choice_row(&p.n, &c.out, c.pos, c.n, tile);
    int64_t last = c.pos + p.row + p.n - 1;
    p.first = cca_edge_at(&c.seen.begin, last);
    p.n_groups = (int)(cca_edge_at(&c.seen.end, last) - p.first);
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
    return cca_choice_tiles(&c.out, c.pos, c.n);
}

/* ---- levels -------------------------------------------------------------------------- */

/* Columns of a level: rows first … of the bounds or of the blocks' bounds; or of the blocks in a
 * list, each with CCA_BLOCK, and from `behind` on. */
struct choice_level {
    bool of_blocks;
    const int32_t *listed; /* NULL: none */
    int n_listed, first, behind, n;
    int unit; /* groups that a column stands for */
};

static __device__ __forceinline__ int column_id(const choice_level &l, int i) {
    if (!l.listed) return l.first + i;
    if (i >= l.n_listed) return l.behind + i - l.n_listed;
    return l.listed[i / CCA_BLOCK] * CCA_BLOCK + i % CCA_BLOCK;
}

/* Whether blocks are weighed first where groups before `end` are seen. */
static __host__ __device__ __forceinline__ bool choice_has_levels(const choice_call &c,
                                                                  int64_t end) {
    return c.blocks.capacity > 0 && end >= c.out.levels_from &&
           cca_blocks_looked_into(c.out.most) < end / CCA_BLOCK;
}

/* Of groups first … end - 1: all, the whole blocks, or those of n listed blocks and behind the last
 * whole one. */
static __device__ __forceinline__ choice_level level_of_all(int64_t first, int64_t end) {
    return choice_level{false, NULL, 0, (int)first, 0, (int)(end - first), 1};
}

static __device__ __forceinline__ choice_level level_of_blocks(int64_t first, int64_t end) {
    first /= CCA_BLOCK;
    return choice_level{true, NULL, 0, (int)first, 0, (int)(end / CCA_BLOCK - first), CCA_BLOCK};
}

static __device__ __forceinline__ choice_level level_of_listed(int64_t first, int64_t end,
                                                               const int32_t *blocks, int n) {
    int64_t behind = end / CCA_BLOCK * CCA_BLOCK;
    n *= CCA_BLOCK;
    return choice_level{false, blocks, n, (int)first, (int)behind, n + (int)(end - behind), 1};
}

/* The most columns of any level of a query that sees groups before `end`, or of one before it. */
static inline int64_t choice_columns(const choice_call &c, int64_t end) {
    int64_t candidates = (cca_blocks_looked_into(c.out.most) + 1) * CCA_BLOCK;
    if (!choice_has_levels(c, end)) return end;
    return cca_min(end, cca_max(cca_max(c.out.levels_from, candidates), end / CCA_BLOCK));
}

/* ---- queries ------------------------------------------------------------------------- */

/* Two values' positive and negative parts. */
static __device__ __forceinline__ void part_by_sign(float up[2], float under[2], float x, float y) {
    up[0] = x > 0 ? x : 0;
    up[1] = y > 0 ? y : 0;
    under[0] = x > 0 ? 0 : x;
    under[1] = y > 0 ? 0 : y;
}

/* Two values in 16 bits; x becomes what is left of them. */
template <bool is_bf16> static __device__ __forceinline__ uint32_t take_term(float x[2]) {
    uint32_t bits = cuda_round_two<is_bf16>(x[0], x[1]);
    float2 rounded = cuda_two<is_bf16>(bits);
    x[0] -= rounded.x;
    x[1] -= rounded.y;
    return bits;
}

/* ---- softmaxes ----------------------------------------------------------------------- */

/* Scores are in units of log 2. -inf weighs nothing, even beside -inf. */
static __device__ __forceinline__ float weight_of(float score, float largest) {
    float x = score - (largest == -INFINITY ? 0 : largest), y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* ---- selection ----------------------------------------------------------------------- */

/* Keys are ordered as weights, which are not negative; 0: not to be chosen. */
static __device__ __forceinline__ uint32_t weight_key(float weight) {
    return (__float_as_uint(weight) & 0x7fffffff) + 1;
}

/* The largest byte such that `most` or more of what was counted have it or a larger one; each warp
 * by itself. *most becomes how many of those with this byte belong to the largest; *n: how many
 * have it. */
static __device__ __forceinline__ int find_byte(const int *counts, int *most, int *n) {
    enum { EACH = 256 / CUDA_WARP };
    int lane = (int)threadIdx.x % CUDA_WARP, first = 255 - lane * EACH, own = 0, each[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) own += each[i] = counts[first - i];
    int up_to = own;
#pragma unroll
    for (int step = 1; step < CUDA_WARP; step *= 2) {
        int other = __shfl_up_sync(~0u, up_to, step);
        if (lane >= step) up_to += other;
    }
    int left = *most - (up_to - own), byte = first; /* of this lane's bytes and smaller ones */
    bool mine = left > 0 && left <= own, found = false;
    int count = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        bool here = !found && each[i] >= left;
        byte = here ? first - i : byte;
        count = here ? each[i] : count;
        found = found || here;
        left -= found ? 0 : each[i];
    }
    int from = __ffs((int)__ballot_sync(~0u, mine)) - 1;
    *most = __shfl_sync(~0u, left, from);
    *n = __shfl_sync(~0u, count, from);
    return __shfl_sync(~0u, byte, from);
}

/* Keys above the result, and *ties of those that equal it, are the `most` largest of n, n > most; a
 * block finds it byte by byte, as far as it takes. */
static __device__ __forceinline__ uint32_t threshold(const uint32_t *keys, int n, int most,
                                                     int *ties) {
    enum { TURNS = 3 }; /* counts that are made, that may still be read, and that become 0 */
    static_assert((int)CHOOSE_THREADS == 256, "a thread a byte");
    __shared__ int counts[TURNS][256];
    uint32_t prefix = 0, known = 0;
    counts[0][threadIdx.x] = 0;
    choose_wait();
    for (int shift = 24, turn = 0; shift >= 0; shift -= 8, turn = (turn + 1) % TURNS) {
        counts[(turn + 1) % TURNS][threadIdx.x] = 0;
#pragma unroll 4
        for (int i = (int)threadIdx.x; i < n; i += CHOOSE_THREADS) {
            uint32_t key = keys[i];
            if ((key & known) == prefix) atomicAdd(&counts[turn][key >> shift & 255], 1);
        }
        choose_wait();
        int with;
        prefix |= (uint32_t)find_byte(counts[turn], &most, &with) << shift;
        known |= 255u << shift;
        if (with > most) continue;
        *ties = 0; /* all that begin so */
        return prefix - 1;
    }
    *ties = most;
    return prefix;
}

/* How many of its 32 keys are larger than `least`, and equal; and how many of them lie before the
 * lane's. */
struct key_counts {
    int larger, equal;
};

static __device__ __forceinline__ key_counts count_keys(uint32_t key, uint32_t least,
                                                        key_counts *before) {
    unsigned below = (1u << threadIdx.x % CUDA_WARP) - 1;
    unsigned larger = __ballot_sync(~0u, key > least), equal = __ballot_sync(~0u, key == least);
    *before = key_counts{__popc(larger & below), __popc(equal & below)};
    return key_counts{__popc(larger), __popc(equal)};
}

/* What id gives for the `most` columns of largest key, of equal ones the earlier, in their order;
 * each warp has a run of columns. Gives how many there are: fewer where keys are 0. */
template <typename F>
static __device__ __forceinline__ int pick_largest(int32_t *out, const uint32_t *keys, int n,
                                                   int most, F id) {
    __shared__ key_counts parts[CHOOSE_WARPS];
    int ties = n, lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP;
    uint32_t least = n > most ? threshold(keys, n, most, &ties) : 0;
    if (least == 0) { /* all that may be chosen */
        least = 1;
        ties = n;
    }
    int each = (n + CHOOSE_THREADS - 1) / CHOOSE_THREADS * CUDA_WARP;
    int begin = warp * each, end = begin + each < n ? begin + each : n;
    key_counts at = {}, before, some;
    for (int i = begin; i < end; i += CUDA_WARP) {
        some = count_keys(i + lane < end ? keys[i + lane] : 0, least, &before);
        at.larger += some.larger;
        at.equal += some.equal;
    }
    if (lane == 0) parts[warp] = at;
    choose_wait();
    key_counts all = at = key_counts{};
#pragma unroll
    for (int i = 0; i < CHOOSE_WARPS; i++) {
        all.larger += parts[i].larger;
        all.equal += parts[i].equal;
        at.larger += i < warp ? parts[i].larger : 0;
        at.equal += i < warp ? parts[i].equal : 0;
    }
    for (int i = begin; i < end; i += CUDA_WARP) {
        uint32_t key = i + lane < end ? keys[i + lane] : 0;
        some = count_keys(key, least, &before);
        int larger = at.larger + before.larger, equal = at.equal + before.equal;
        bool taken = key > least || (key == least && equal < ties);
        if (taken) out[larger + (equal < ties ? equal : ties)] = id(i + lane);
        at.larger += some.larger;
        at.equal += some.equal;
    }
    choose_wait(); /* parts are free again */
    return all.larger + (all.equal < ties ? all.equal : ties);
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
/* Whether it does all calls like this one, without memory, that see groups before `end`: also those
 * of parts of tiles, and of queries that choose each for itself. */
bool chooses_in_tiles(cuda_backend *b, const choice_call &c, int64_t end);
bool choose_sm90(cuda_backend *b, const choice_call &c, int most_shared);

#endif
