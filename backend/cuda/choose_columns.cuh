/* What the forms of a choice on tensor cores share (choose_tiles.cu, choose_sm90.cu): levels of
 * columns, the rows' softmaxes, and the columns' weights.
 *
 * One block takes a pair (choose.cuh) from the bounds to the chosen groups. Where there are many
 * groups, blocks of them are weighed first, as on the CPU (backend/keys.h). A row's score of a
 * column is q⁺ · high + q⁻ · low: one product of twice the width, q⁺ q⁻ in 16 bits in registers,
 * high and low in shared memory. The softmax of a row ends with its last column, and then all rows'
 * weights are wanted for each column: so exponentials are kept, relative to the largest score so
 * far, in f16, as many as there is room for; others are computed again, which depends on nothing
 * but the GPU.
 *
 *     tiles of 64 columns          kept: [rows][columns] f16
 *     +------+-----+  copies       +----+----+----+----
 *     | high | low |  ----> score  | t0 | t1 | t2 | …      × factor[tile][part][row]
 *     +------+-----+  product,  -> +----+----+----+----    summed up over rows: weights
 *                     softmax      largest[tile][part][row]  -> the columns of largest weight
 *
 * Teams of warps take turns with the tiles. Turns are joined in an order of their own, however many
 * blocks of a cluster have them, so that softmaxes are the same. More blocks keep more tiles; but
 * where blocks share a pair, rows are few, and what is kept are the scores themselves: a weight has
 * the same bits whether its score was kept or computed again. */
#ifndef CCA_CUDA_CHOOSE_COLUMNS_CUH
#define CCA_CUDA_CHOOSE_COLUMNS_CUH

#include "backend/cuda/choose.cuh"
#include "backend/cuda/cluster.cuh"

#include <type_traits>

enum {
    TILE = 64,        /* columns */
    MOST_ROWS = 64,   /* of a pair */
    PADDING = 8,      /* values behind a row of what is kept, against bank conflicts */
    MOST_KEPT = 17,   /* tiles: what the second level takes by default */
    MOST_SHARING = 8, /* blocks of a cluster */
};

/* A call; what a block's shared memory has room for: tiles that are kept, and blocks that are
 * looked into; and the blocks of a cluster. */
struct tiles_args {
    choice_call call;
    int n_kept, n_blocks, n_sharing;
};

/* ---- levels -------------------------------------------------------------------------- */

/* What is weighed first: all groups, or blocks. */
static __device__ __forceinline__ choice_level first_level(const choice_call &c,
                                                           const choice_pair &p) {
    int64_t end = p.first + p.n_groups;
    return choice_has_levels(c, end) ? level_of_blocks(p.first, end) : level_of_all(p.first, end);
}

/* Then the groups of n chosen blocks, and those behind the last block. */
static __device__ __forceinline__ choice_level second_level(const choice_pair &p,
                                                            const int32_t *blocks, int n) {
    return level_of_listed(p.first, p.first + p.n_groups, blocks, n);
}

/* ---- shapes -------------------------------------------------------------------------- */

/* Warps of a team each have 16 rows, and a part of each tile's columns. With few rows q⁺ q⁻ come in
 * two terms, which together are as good as f32, and scores are kept, in f32. */
template <int HD_, bool IS_BF16_, int STRIPS_, int PARTS_, int TURNS_, int STAGES_>
struct choice_shape {
    enum {
        HD = HD_,
        STRIPS = STRIPS_, /* of 16 rows */
        ROWS = STRIPS * 16,
        PARTS = PARTS_,
        TEAM = STRIPS * PARTS * CUDA_WARP, /* threads */
        WIDTH = TILE / PARTS,              /* columns of a part */
        N_TILES = WIDTH / 8,
        STEPS = 2 * HD / 16,
        COLUMN_BYTES = 2 * HD * 2,
        STAGES = STAGES_,
        STAGE_BYTES = TILE * COLUMN_BYTES,
        TURNS = TURNS_,
        TERMS = STRIPS == 1 ? 2 : 1, /* of a query's value */
    };
    static constexpr bool IS_BF16 = IS_BF16_, FEW = STRIPS_ == 1;
    typedef typename std::conditional<FEW, float, __half>::type kept_type;

    /* Factors and bytes of what is kept of a tile; keys of columns: by themselves, or in its place.
     */
    enum {
        FACTORS = FEW ? 0 : PARTS * ROWS,
        KEPT_BYTES = ROWS * TILE * (int)sizeof(kept_type) + FACTORS * 4,
        KEYS = FEW ? 8192 : 0,
        KEYS_A_TILE = ROWS * TILE * (int)sizeof(kept_type) / 4,
    };
    static constexpr size_t bytes(int n_kept, int n_blocks) {
        return STAGES * (size_t)STAGE_BYTES + (size_t)n_kept * KEPT_BYTES +
               ROWS * PADDING * sizeof(kept_type) + KEYS * 4 + (size_t)n_blocks * 4;
    }
    static constexpr int64_t most_columns(int n_kept) {
        return FEW ? (int64_t)KEYS : (int64_t)n_kept * KEYS_A_TILE;
    }
};

template <typename S> using row_terms = uint32_t[S::TERMS][S::STEPS][4];

/* A block's memory, and its place in the cluster. */
template <typename S> struct choice_memory {
    char *stages;                /* [STAGES][STAGE_BYTES] */
    typename S::kept_type *kept; /* [ROWS][stride] */
    float *largest;              /* [n_kept][PARTS][ROWS], of exponentials; then factors */
    uint32_t *keys;  /* of columns; where rows are many, in the place of what was kept */
    int32_t *blocks; /* [n_blocks] */
    int stride, n_kept, rank, n_sharing;

    __device__ choice_memory(char *memory, const tiles_args &a) {
        n_kept = a.n_kept;
        stride = n_kept * TILE + PADDING;
        stages = memory;
        kept = (typename S::kept_type *)(stages + S::STAGES * S::STAGE_BYTES);
        largest = (float *)(kept + S::ROWS * stride);
        keys = (uint32_t *)(largest + n_kept * S::FACTORS);
        blocks = (int32_t *)(keys + S::KEYS);
        if (!S::FEW) keys = (uint32_t *)kept;
        rank = (int)blockIdx.x;
        n_sharing = a.n_sharing;
    }

    /* Gives a column's key to all blocks of the cluster. */
    __device__ __forceinline__ void put_key(int column, uint32_t key) const {
        if (!S::FEW) keys[column] = key;
        for (int i = 0; S::FEW && i < n_sharing; i++) cluster_put(keys + column, i, key);
    }

    /* For all threads that compute, and what they have put. */
    __device__ __forceinline__ void wait() const {
        if (S::FEW && n_sharing > 1) {
            cluster_wait();
        } else {
            choose_wait();
        }
    }
};

/* What a block's threads know of the rows, in shared memory. */
template <typename S> struct choice_rows {
    int seen[S::ROWS];                      /* columns that each row sees */
    float largest[S::ROWS], share[S::ROWS]; /* share: 1 / sum */
    /* Of each turn's tiles, by warps: each row's largest, and sum. */
    uint32_t parts[S::TURNS][S::PARTS * S::STRIPS][2][16];
    int tiles[MOST_KEPT]; /* that are kept */
};

/* A warp's place in its team. */
template <typename S> struct warp_place {
    int team, strip, part;

    __device__ __forceinline__ warp_place() {
        /* From the first lane, so that the compiler knows that a warp is of one mind. */
        int warp = __shfl_sync(~0u, (int)threadIdx.x / CUDA_WARP, 0);
        team = warp / (S::STRIPS * S::PARTS);
        strip = warp % S::STRIPS;
        part = warp / S::STRIPS % S::PARTS;
    }
};

/* ---- queries ------------------------------------------------------------------------- */

/* A warp's fragments of q⁺ and, behind it, q⁻; scores come in units of log 2. */
template <typename S>
static __device__ __forceinline__ void read_rows(row_terms<S> &a, const choice_call &c,
                                                 const choice_pair &p, int strip) {
    int lane = (int)threadIdx.x % CUDA_WARP;
    const float unit = cuda_score_unit<S::HD>(), *from[2];
#pragma unroll
    for (int side = 0; side < 2; side++) {
        int row = strip * 16 + side * 8 + lane / 4;
        from[side] = query_of(c, p, row < p.n_rows ? row : 0) + lane % 4 * 2;
    }
#pragma unroll
    for (int step = 0; step < S::STEPS / 2; step++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 v = *(const float2 *)(from[i % 2] + step * 16 + i / 2 * 8);
            float up[2], under[2];
            part_by_sign(up, under, v.x * unit, v.y * unit);
#pragma unroll
            for (int term = 0; term < S::TERMS; term++) {
                a[term][step][i] = take_term<S::IS_BF16>(up);
                a[term][step + S::STEPS / 2][i] = take_term<S::IS_BF16>(under);
            }
        }
    }
}

/* ---- softmaxes ----------------------------------------------------------------------- */

/* A thread's two rows as their softmaxes grow; sum: of the thread's columns. */
struct row_softmax {
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
};

/* A thread's row of a strip. */
static __device__ __forceinline__ int row_of(int strip, int side) {
    return strip * 16 + side * 8 + (int)threadIdx.x % CUDA_WARP / 4;
}

/* Removes what rows do not see of the scores with the columns from `first` on: those before skip,
 * which nobody may choose, and those behind a row's last. */
template <typename S>
static __device__ __forceinline__ void
mask_scores(float s[S::N_TILES][4], const choice_rows<S> &rows, int strip, int first, int skip) {
#pragma unroll
    for (int side = 0; side < 2; side++) {
        int seen = rows.seen[row_of(strip, side)], column = first + (int)threadIdx.x % 4 * 2;
        if (first >= skip && first + S::WIDTH <= seen) continue;
#pragma unroll
        for (int n = 0; n < S::N_TILES; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int c = column + n * 8 + i;
                if (c < skip || c >= seen) s[n][side * 2 + i] = -INFINITY;
            }
        }
    }
}

/* Takes a tile's scores in; they become exponentials relative to the largest score so far. */
template <typename S>
static __device__ __forceinline__ void take_scores(row_softmax &r, float s[S::N_TILES][4]) {
#pragma unroll
    for (int side = 0; side < 2; side++) {
        float now = r.largest[side], sum = 0;
#pragma unroll
        for (int n = 0; n < S::N_TILES; n++) {
            now = fmaxf(now, fmaxf(s[n][side * 2], s[n][side * 2 + 1]));
        }
        now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
        now = fmaxf(now, __shfl_xor_sync(~0u, now, 2));
#pragma unroll
        for (int n = 0; n < S::N_TILES; n++) {
#pragma unroll
            for (int i = side * 2; i < side * 2 + 2; i++) {
                s[n][i] = weight_of(s[n][i], now);
                sum += s[n][i];
            }
        }
        r.sum[side] = r.sum[side] * weight_of(r.largest[side], now) + sum;
        r.largest[side] = now;
    }
}

static __device__ __forceinline__ void put_two(__half *to, float x, float y) {
    *(__half2 *)to = __floats2half2_rn(x, y);
}

static __device__ __forceinline__ void put_two(float *to, float x, float y) {
    *(float2 *)to = make_float2(x, y);
}

static __device__ __forceinline__ float2 get_two(const __half *from) {
    return __half22float2(*(const __half2 *)from);
}

static __device__ __forceinline__ float2 get_two(const float *from) {
    return *(const float2 *)from;
}

/* Keeps a tile's scores, or its exponentials and what they are relative to, in a place. */
template <typename S>
static __device__ __forceinline__ void keep(const choice_memory<S> &m, const float s[S::N_TILES][4],
                                            const row_softmax &r, int place, int strip, int part) {
    int lane = (int)threadIdx.x % CUDA_WARP;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        int row = row_of(strip, side);
        auto *to = m.kept + row * m.stride + place * TILE + part * S::WIDTH + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < S::N_TILES; n++) {
            put_two(to + n * 8, s[n][side * 2], s[n][side * 2 + 1]);
        }
        if (!S::FEW && lane % 4 == 0)
            m.largest[(place * S::PARTS + part) * S::ROWS + row] = r.largest[side];
    }
}

/* Tells all blocks what a warp has of its rows at the end of a turn. */
template <typename S>
static __device__ __forceinline__ void put_rows(const choice_memory<S> &m, choice_rows<S> &rows,
                                                const row_softmax &r, const warp_place<S> &at,
                                                int turn) {
    int lane = (int)threadIdx.x % CUDA_WARP;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        float sum = r.sum[side];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (lane % 4 != 0) continue;
        uint32_t(*to)[16] = rows.parts[turn][at.part * S::STRIPS + at.strip];
        int row = side * 8 + lane / 4;
        for (int i = 0; i < m.n_sharing; i++) {
            cluster_put(&to[0][row], i, __float_as_uint(r.largest[side]));
            cluster_put(&to[1][row], i, __float_as_uint(sum));
        }
    }
}

/* Joins what all warps of all turns have of the rows, when all have told it. Some threads share a
 * row. */
template <typename S>
static __device__ __forceinline__ void join_rows(const choice_memory<S> &m, choice_rows<S> &rows,
                                                 int n_turns) {
    enum { SHARING = CHOOSE_THREADS / S::ROWS };
    m.wait();
    int row = (int)threadIdx.x / SHARING, first = (int)threadIdx.x % SHARING;
    int strip = row / 16, n = n_turns * S::PARTS;
    float largest = -INFINITY, sum = 0;
    for (int i = first; i < n; i += SHARING) {
        int warp = i % S::PARTS * S::STRIPS + strip;
        const uint32_t(*x)[16] = rows.parts[i / S::PARTS][warp];
        largest = fmaxf(largest, __uint_as_float(x[0][row % 16]));
    }
#pragma unroll
    for (int step = 1; step < SHARING; step *= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
    }
    for (int i = first; i < n; i += SHARING) {
        int warp = i % S::PARTS * S::STRIPS + strip;
        const uint32_t(*x)[16] = rows.parts[i / S::PARTS][warp];
        sum +=
            __uint_as_float(x[1][row % 16]) * weight_of(__uint_as_float(x[0][row % 16]), largest);
    }
#pragma unroll
    for (int step = 1; step < SHARING; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (first == 0) {
        rows.largest[row] = largest;
        rows.share[row] = sum > 0 || isnan(sum) ? 1 / sum : 0;
    }
    choose_wait();
}

/* ---- weights ------------------------------------------------------------------------- */

/* Adds what a score weighs in its row. */
template <typename S>
static __device__ __forceinline__ float add_weight(float sum, float score,
                                                   const choice_rows<S> &rows, int row) {
    return fmaf(weight_of(score, rows.largest[row]), rows.share[row], sum);
}

/* Makes factors of what exponentials are relative to. */
template <typename S>
static __device__ __forceinline__ void make_factors(const choice_memory<S> &m,
                                                    const choice_rows<S> &rows, int n_kept) {
    for (int i = (int)threadIdx.x; i < n_kept * S::FACTORS; i += CHOOSE_THREADS) {
        int row = i % S::ROWS;
        m.largest[i] = weight_of(m.largest[i], rows.largest[row]) * rows.share[row];
    }
    choose_wait();
}

/* The weights of two columns whose exponentials are kept, the first in place i. */
template <typename S>
static __device__ __forceinline__ float2 sum_exponentials(const choice_memory<S> &m, int i) {
    const float *factor = m.largest + i / S::WIDTH * S::ROWS;
    float2 sum = make_float2(0, 0);
#pragma unroll 8
    for (int row = 0; row < S::ROWS; row++) {
        float2 x = get_two(m.kept + i + row * m.stride);
        sum.x += x.x * factor[row];
        sum.y += x.y * factor[row];
    }
    return sum;
}

/* The same of scores, in the order in which weigh_again adds. */
template <typename S>
static __device__ __forceinline__ float2 sum_scores(const choice_memory<S> &m,
                                                    const choice_rows<S> &rows, int i) {
    float2 sums[8];
#pragma unroll
    for (int row = 0; row < 8; row++) {
        float2 x = get_two(m.kept + i + row * m.stride);
        float2 y = get_two(m.kept + i + (row + 8) * m.stride);
        sums[row].x = add_weight(add_weight(0, x.x, rows, row), y.x, rows, row + 8);
        sums[row].y = add_weight(add_weight(0, x.y, rows, row), y.y, rows, row + 8);
    }
#pragma unroll
    for (int step = 1; step < 8; step *= 2) {
#pragma unroll
        for (int row = 0; row < 8; row += 2 * step) {
            sums[row].x += sums[row + step].x;
            sums[row].y += sums[row + step].y;
        }
    }
    return sums[0];
}

/* Of the columns that are kept: each thread has two at a time. Keys take the place of what was
 * kept, when all threads have read it. */
template <typename S>
static __device__ __forceinline__ void
weigh_kept(const choice_memory<S> &m, const choice_rows<S> &rows, int n_kept, int n, int skip) {
    enum { STEP = 2 * CHOOSE_THREADS, EACH = (MOST_KEPT * TILE + STEP - 1) / STEP };
    int first = (int)threadIdx.x * 2;
    float2 sums[EACH];
    if constexpr (!S::FEW) make_factors(m, rows, n_kept);
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        int i = first + k * STEP;
        if (i >= n_kept * TILE) break;
        if constexpr (S::FEW) {
            sums[k] = sum_scores(m, rows, i);
        } else {
            sums[k] = sum_exponentials(m, i);
        }
    }
    choose_wait();
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        int i = first + k * STEP;
        if (i >= n_kept * TILE) break;
        int column = rows.tiles[i / TILE] * TILE + i % TILE;
        if (column < n) m.put_key(column, column < skip ? 0 : weight_key(sums[k].x));
        column++;
        if (column < n) m.put_key(column, column < skip ? 0 : weight_key(sums[k].y));
    }
}

/* All threads of a team. */
template <typename S> static __device__ __forceinline__ void team_wait(const warp_place<S> &at) {
    enum { FIRST = 8 }; /* barrier */
    asm volatile("bar.sync %0, %1;" ::"r"(FIRST + at.team), "n"((int)S::TEAM) : "memory");
}

/* Of a team's tile, whose scores with the columns from `first` on are computed again. */
template <typename S>
static __device__ __forceinline__ void
weigh_again(const choice_memory<S> &m, float s[S::N_TILES][4], const choice_rows<S> &rows,
            const warp_place<S> &at, int first, int n, int skip) {
    __shared__ float all_sums[CHOOSE_THREADS / S::TEAM][S::STRIPS][TILE];
    float(*sums)[TILE] = all_sums[at.team];
    int lane = (int)threadIdx.x % CUDA_WARP, column = at.part * S::WIDTH;
    float total[S::N_TILES][2] = {};
    mask_scores<S>(s, rows, at.strip, first + column, skip);
#pragma unroll
    for (int side = 0; side < 2; side++) {
        int row = row_of(at.strip, side);
#pragma unroll
        for (int t = 0; t < S::N_TILES; t++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                total[t][i] = add_weight(total[t][i], s[t][side * 2 + i], rows, row);
            }
        }
    }
    team_wait(at); /* nobody reads the sums of the tile before */
#pragma unroll
    for (int t = 0; t < S::N_TILES; t++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = total[t][i];
#pragma unroll
            for (int step = 4; step < CUDA_WARP; step *= 2) {
                sum += __shfl_xor_sync(~0u, sum, step);
            }
            if (lane < 4) sums[at.strip][column + lane * 2 + t * 8 + i] = sum;
        }
    }
    team_wait(at);
    int c = (int)threadIdx.x % S::TEAM;
    if (c < TILE && first + c < n) {
        float sum = 0;
        for (int i = 0; i < S::STRIPS; i++) sum += sums[i][c];
        m.put_key(first + c, first + c < skip ? 0 : weight_key(sum));
    }
}

/* How many columns each row sees, and how many at the start lie before the pair's first group. */
template <typename S>
static __device__ __forceinline__ int find_seen(choice_rows<S> &rows, const choice_call &c,
                                                const choice_pair &p, const choice_level &l) {
    int row = (int)threadIdx.x, skip = 0;
    if (row < S::ROWS) {
        int64_t end = row < p.n_rows ? end_of(c, p, row) : 0;
        int n = row < p.n_rows ? l.n : 0;
        while (n > 0 && (int64_t)column_id(l, n - 1) * l.unit >= end) n--;
        rows.seen[row] = n;
    }
    while (l.listed && skip < CCA_BLOCK && column_id(l, skip) < p.first) skip++;
    choose_wait();
    return skip;
}

/* The groups of largest weight, of a level's columns, as the pair's choice. */
template <typename S>
static __device__ __forceinline__ void put_choice(const choice_memory<S> &m, const choice_call &c,
                                                  const choice_pair &p, const choice_level &l) {
    int n = pick_largest(c.out.groups + p.at * c.out.most, m.keys, l.n, (int)c.out.most,
                         [&](int i) { return (int32_t)column_id(l, i); });
    if (threadIdx.x == 0) c.out.counts[p.at] = n;
}

/* The best blocks of a level's, into memory; how many. */
template <typename S>
static __device__ __forceinline__ int pick_blocks(const choice_memory<S> &m, const choice_call &c,
                                                  const choice_level &l) {
    int n = pick_largest(m.blocks, m.keys, l.n, (int)cca_blocks_looked_into(c.out.most),
                         [&](int i) { return (int32_t)(l.first + i); });
    choose_wait();
    return n;
}

/* ---- launching ----------------------------------------------------------------------- */

/* How a block's dynamic memory is shared out, of which there is so much; false where a call that
 * sees groups before `end` has too many columns for it. */
template <typename S>
static bool plan_tiles(tiles_args *a, size_t *bytes, size_t room, int64_t end) {
    a->n_blocks = (int)cca_blocks_looked_into(a->call.out.most);
    size_t least = S::bytes(0, a->n_blocks);
    if (least > room) return false;
    a->n_kept = (int)cca_min((int64_t)((room - least) / S::KEPT_BYTES), MOST_KEPT);
    *bytes = S::bytes(a->n_kept, a->n_blocks);
    return choice_columns(a->call, end) <= S::most_columns(a->n_kept);
}

/* The end of the groups that a call sees. */
static inline int64_t choice_end(const choice_call &c) {
    return cca_edge_at(&c.seen.end, c.pos + c.n - 1);
}

#endif
