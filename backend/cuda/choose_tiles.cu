/* Which groups a tile of queries recalls, on tensor cores: bounds in 16 bits with head_dim 64 or
 * 128, up to 64 rows. One block a pair (choose.cuh), from the bounds to the chosen groups. Where
 * there are many groups, blocks of them are weighed first, as on the CPU (backend/keys.h).
 *
 * A row's score of a column is q⁺ · high + q⁻ · low: one product of twice the width, q⁺ q⁻ in 16
 * bits in registers, high and low side by side in shared memory. The softmax of a row ends with its
 * last column, and then all rows' weights are wanted for each column: so exponentials are kept,
 * relative to the largest score so far, in f16, as many as there is room for; others are computed
 * again, which depends on nothing but the GPU.
 *
 * Where rows are few, as in decode, q⁺ q⁻ come in two terms, which together are as good as f32,
 * exponentials are kept in f32, and blocks of a cluster, as many as the GPU has room for, take
 * turns with the tiles. Their softmaxes are joined as those of TURNS blocks, however many there
 * are, so that the result is the same.
 *
 *     64 columns, in two stages        kept: [rows][columns] f16
 *     +------+-----+  cp.async         +----+----+----+----
 *     | high | low |  ------->  score  | t0 | t1 | t2 | …      × factor[tile][part][row]
 *     +------+-----+  product,  -----> +----+----+----+----    summed up over rows: weights
 *                     softmax          largest[tile][part][row]  -> the columns of largest weight
 */
#include "backend/cuda/choose.cuh"
#include "backend/cuda/cluster.cuh"
#include "backend/cuda/mma.cuh"

#include <type_traits>

enum {
    TILE = 64,         /* columns */
    MOST_ROWS = 64,    /* of a pair */
    PADDING = 8,       /* values behind a row of what is kept, against bank conflicts */
    STATIC = 12 << 10, /* shared memory that is not dynamic */
    MOST_KEPT = 17,    /* tiles: what the second level takes by default */
    MOST_SHARING = 8,  /* blocks of a cluster */
};

/* A call; what a block's shared memory has room for: tiles that are kept, and blocks that are
 * looked into; and the blocks of a cluster. */
struct tiles_args {
    choice_call call;
    int n_kept, n_blocks, n_sharing;
};

/* Columns of a level: rows first … of `rows`, or of the blocks in a list, each with CCA_BLOCK, and
 * from `behind` on. */
struct choice_level {
    const cca_rows *rows;
    const int32_t *listed; /* NULL: none */
    int n_listed, first, behind, n;
    int unit; /* groups that a column stands for */
};

static __device__ __forceinline__ int column_id(const choice_level &l, int i) {
    if (!l.listed) return l.first + i;
    if (i >= l.n_listed) return l.behind + i - l.n_listed;
    return l.listed[i / CCA_BLOCK] * CCA_BLOCK + i % CCA_BLOCK;
}

/* Warps of a block: each has 16 rows, and a part of each tile's columns. */
template <int HD_, bool IS_BF16_, int STRIPS_> struct choice_shape {
    enum {
        HD = HD_,
        IS_BF16 = IS_BF16_,
        STRIPS = STRIPS_, /* of 16 rows */
        ROWS = STRIPS * 16,
        PARTS = CHOOSE_WARPS / STRIPS,
        WIDTH = TILE / PARTS, /* columns of a part */
        N_TILES = WIDTH / 8,
        STEPS = 2 * HD / 16,
        COLUMN_BYTES = 2 * HD * 2,
        STAGE_BYTES = TILE * COLUMN_BYTES,
        PIECES = COLUMN_BYTES / 16,
        FEW = STRIPS == 1,
        STAGES = FEW ? 3 : 2,
        TERMS = FEW ? 2 : 1, /* of a query's value */
        TURNS = FEW ? MOST_SHARING : 1,
    };
    typedef typename std::conditional<FEW, float, __half>::type kept_type;

    /* Bytes of what is kept of a tile; keys of columns: by themselves, or in its place. */
    enum {
        KEPT_BYTES = ROWS * TILE * (int)sizeof(kept_type) + PARTS * ROWS * 4,
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
    char *stages;                /* [STAGES][TILE][COLUMN_BYTES], swizzled in pieces of 16 bytes */
    typename S::kept_type *kept; /* [ROWS][stride] */
    float *largest;              /* [n_kept][PARTS][ROWS]; then factors */
    uint32_t *keys;  /* of columns; where rows are many, in the place of what was kept */
    int32_t *blocks; /* [n_blocks] */
    int stride, n_kept, rank, n_sharing;

    __device__ choice_memory(char *memory, const tiles_args &a) {
        n_kept = a.n_kept;
        stride = n_kept * TILE + PADDING;
        stages = memory;
        kept = (typename S::kept_type *)(stages + S::STAGES * S::STAGE_BYTES);
        largest = (float *)(kept + S::ROWS * stride);
        keys = (uint32_t *)(largest + n_kept * S::PARTS * S::ROWS);
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
};

/* The tiles of a level that a block takes: those of its turns, one turn after the other. */
template <typename S> struct tile_walk {
    int tile, turn, n_tiles, n_sharing;

    __device__ __forceinline__ tile_walk(const choice_memory<S> &m, int n) {
        tile = turn = m.rank;
        n_tiles = n;
        n_sharing = m.n_sharing;
    }

    __device__ __forceinline__ bool there() const {
        return tile < n_tiles;
    }

    /* Whether the tile is the turn's last. */
    __device__ __forceinline__ bool ends_turn() const {
        return tile + S::TURNS >= n_tiles;
    }

    __device__ __forceinline__ void next() {
        tile += S::TURNS;
        if (tile < n_tiles) return;
        turn += n_sharing;
        tile = turn < S::TURNS ? turn : n_tiles;
    }
};

/* What a block's threads know of the rows, in shared memory. */
struct choice_rows {
    int seen[MOST_ROWS];                        /* columns that each row sees */
    float largest[MOST_ROWS], share[MOST_ROWS]; /* share: 1 / sum */
    /* Of each turn's tiles, by warps: each row's largest, and sum. */
    uint32_t parts[MOST_SHARING][CHOOSE_WARPS][2][16];
    int tiles[MOST_KEPT]; /* that are kept */
};

/* ---- queries ------------------------------------------------------------------------- */

template <bool is_bf16> static __device__ __forceinline__ uint32_t two_halves(float x, float y) {
    uint32_t bits;
    if (is_bf16) {
        __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
        memcpy(&bits, &pair, sizeof bits);
    } else {
        __half2 pair = __floats2half2_rn(x, y);
        memcpy(&bits, &pair, sizeof bits);
    }
    return bits;
}

/* What is left of a value that was rounded. */
template <bool is_bf16> static __device__ __forceinline__ float rest_of(float x) {
    return x -
           (is_bf16 ? __bfloat162float(__float2bfloat16_rn(x)) : __half2float(__float2half_rn(x)));
}

/* A warp's fragments of q⁺ and, behind it, q⁻; scores come in units of log 2. */
template <typename S>
static __device__ __forceinline__ void read_rows(row_terms<S> &a, const choice_call &c,
                                                 const choice_pair &p, int strip) {
    int lane = (int)threadIdx.x % CUDA_WARP;
    const float unit = 1.4426950408889634f / sqrtf((float)S::HD), *from[2];
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
            v.x *= unit, v.y *= unit;
            bool up[2] = {v.x > 0, v.y > 0};
#pragma unroll
            for (int term = 0; term < S::TERMS; term++) {
                uint32_t *to = &a[term][step][i], *below = &a[term][step + S::STEPS / 2][i];
                *to = two_halves<S::IS_BF16>(up[0] ? v.x : 0, up[1] ? v.y : 0);
                *below = two_halves<S::IS_BF16>(up[0] ? 0 : v.x, up[1] ? 0 : v.y);
                v = make_float2(rest_of<S::IS_BF16>(v.x), rest_of<S::IS_BF16>(v.y));
            }
        }
    }
}

/* ---- bounds -------------------------------------------------------------------------- */

/* Begins to copy a tile's bounds; columns behind the last are the last one again. */
template <typename S>
static __device__ __forceinline__ void copy_bounds(char *stage, const choice_level &l, int64_t head,
                                                   int tile) {
    enum { EACH = TILE * S::PIECES / CHOOSE_THREADS, STEP = CHOOSE_THREADS / S::PIECES };
    int piece = (int)threadIdx.x % S::PIECES, column = (int)threadIdx.x / S::PIECES;
    bool high = piece < S::PIECES / 2;
    const char *from = (const char *)(high ? l.rows->k : l.rows->v);
    from += (head * l.rows->capacity * S::PIECES / 2 + piece % (S::PIECES / 2)) * 16;
#pragma unroll
    for (int i = 0; i < EACH; i++, column += STEP) {
        int at = tile * TILE + column;
        int64_t id = column_id(l, at < l.n ? at : l.n - 1);
        uint32_t to = cuda_shared(stage + column * S::COLUMN_BYTES + ((piece ^ (column & 7)) << 4));
        mma_copy16(to, from + id * S::COLUMN_BYTES / 2, true);
    }
}

/* Scores of a warp's rows with its part of a tile's columns. */
template <typename S>
static __device__ __forceinline__ void score(float s[S::N_TILES][4], const row_terms<S> &a,
                                             const char *stage, int part) {
    int lane = (int)threadIdx.x % CUDA_WARP;
    /* Matrices of a load: two steps of eight columns, or one of sixteen. */
    constexpr bool wide = S::N_TILES > 1;
    int column = part * S::WIDTH + (wide ? lane / 16 * 8 : 0) + lane % 8;
    int piece = wide ? lane / 8 % 2 : lane / 8;
    uint32_t at = cuda_shared(stage + column * S::COLUMN_BYTES);
    int turn = column & 7;
#pragma unroll
    for (int n = 0; n < S::N_TILES; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] = 0;
    }
    if constexpr (wide) {
#pragma unroll
        for (int step = 0; step < S::STEPS; step++) {
            uint32_t place = at + (uint32_t)(((step * 2 + piece) ^ turn) << 4);
#pragma unroll
            for (int n = 0; n < S::N_TILES; n += 2) {
                uint32_t b[4];
                mma_load(b, place + (uint32_t)(n * 8 * S::COLUMN_BYTES));
#pragma unroll
                for (int term = 0; term < S::TERMS; term++) {
                    mma_multiply<S::IS_BF16>(s[n], a[term][step], b[0], b[1]);
                    mma_multiply<S::IS_BF16>(s[n + 1], a[term][step], b[2], b[3]);
                }
            }
        }
    } else {
        float other[4] = {};
#pragma unroll
        for (int step = 0; step < S::STEPS; step += 2) {
            uint32_t b[4];
            mma_load(b, at + (uint32_t)(((step * 2 + piece) ^ turn) << 4));
#pragma unroll
            for (int term = 0; term < S::TERMS; term++) {
                mma_multiply<S::IS_BF16>(s[0], a[term][step], b[0], b[1]);
                mma_multiply<S::IS_BF16>(other, a[term][step + 1], b[2], b[3]);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) s[0][i] += other[i];
    }
}

/* ---- softmaxes ----------------------------------------------------------------------- */

/* A thread's two rows as their softmaxes grow; sum: of the thread's columns. */
struct row_softmax {
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
};

/* -inf, and what a row does not see, weighs nothing, even where it sees nothing at all. */
static __device__ __forceinline__ float weight_of(float score, float largest) {
    return exp2f(score - (largest == -INFINITY ? 0 : largest));
}

/* Takes a tile's scores in; they become exponentials relative to the largest score so far. skip:
 * columns at the start that nobody may choose. */
template <typename S>
static __device__ __forceinline__ void take_scores(row_softmax &r, float s[S::N_TILES][4],
                                                   const choice_rows &rows, int strip, int column,
                                                   int skip) {
    int lane = (int)threadIdx.x % CUDA_WARP;
    column += lane % 4 * 2;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        int seen = rows.seen[strip * 16 + side * 8 + lane / 4];
        float now = r.largest[side], sum = 0;
#pragma unroll
        for (int n = 0; n < S::N_TILES; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int c = column + n * 8 + i;
                float &x = s[n][side * 2 + i];
                if (c < skip || c >= seen) x = -INFINITY;
                now = fmaxf(now, x);
            }
        }
        now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
        now = fmaxf(now, __shfl_xor_sync(~0u, now, 2));
#pragma unroll
        for (int n = 0; n < S::N_TILES; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float &x = s[n][side * 2 + i];
                x = weight_of(x, now);
                sum += x;
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

/* Keeps a tile's exponentials in a place, and what they are relative to. */
template <typename S>
static __device__ __forceinline__ void keep(const choice_memory<S> &m, const float s[S::N_TILES][4],
                                            const row_softmax &r, int place, int strip, int part) {
    int lane = (int)threadIdx.x % CUDA_WARP;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        int row = strip * 16 + side * 8 + lane / 4;
        auto *to = m.kept + row * m.stride + place * TILE + part * S::WIDTH + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < S::N_TILES; n++) {
            put_two(to + n * 8, s[n][side * 2], s[n][side * 2 + 1]);
        }
        if (lane % 4 == 0) m.largest[(place * S::PARTS + part) * S::ROWS + row] = r.largest[side];
    }
}

/* Tells all blocks what a warp has of its rows at the end of a turn. */
template <typename S>
static __device__ __forceinline__ void put_rows(const choice_memory<S> &m, choice_rows &rows,
                                                const row_softmax &r, int turn) {
    int lane = (int)threadIdx.x % CUDA_WARP, warp = (int)threadIdx.x / CUDA_WARP;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        float sum = r.sum[side];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (lane % 4 != 0) continue;
        uint32_t(*to)[16] = rows.parts[turn][warp];
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
static __device__ __forceinline__ void join_rows(const choice_memory<S> &m, choice_rows &rows,
                                                 int n_turns) {
    enum { SHARING = CHOOSE_THREADS / S::ROWS };
    cluster_wait(m.n_sharing);
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
    __syncthreads();
}

/* ---- weights ------------------------------------------------------------------------- */

/* Of the columns that are kept: each thread has two at a time. Keys take the place of what was
 * kept, when all threads have read it. */
template <typename S>
static __device__ __forceinline__ void
weigh_kept(const choice_memory<S> &m, const choice_rows &rows, int n_kept, int n, int skip) {
    enum { STEP = 2 * CHOOSE_THREADS, EACH = (MOST_KEPT * TILE + STEP - 1) / STEP };
    int n_factors = n_kept * S::PARTS * S::ROWS, first = (int)threadIdx.x * 2;
    float2 sums[EACH];
    for (int i = (int)threadIdx.x; i < n_factors; i += CHOOSE_THREADS) {
        int row = i % S::ROWS;
        m.largest[i] = weight_of(m.largest[i], rows.largest[row]) * rows.share[row];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        int i = first + k * STEP;
        if (i >= n_kept * TILE) break;
        const float *factor = m.largest + i / S::WIDTH * S::ROWS;
        const auto *from = m.kept + i;
        float2 sum = make_float2(0, 0);
#pragma unroll 8
        for (int row = 0; row < S::ROWS; row++) {
            float2 x = get_two(from + row * m.stride);
            sum.x += x.x * factor[row];
            sum.y += x.y * factor[row];
        }
        sums[k] = sum;
    }
    __syncthreads();
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

/* Of a tile whose scores are computed again. */
template <typename S>
static __device__ __forceinline__ void
weigh_again(const choice_memory<S> &m, float s[S::N_TILES][4], const choice_rows &rows, int strip,
            int part, int first, int n, int skip) {
    __shared__ float sums[S::STRIPS][TILE];
    int lane = (int)threadIdx.x % CUDA_WARP, column = part * S::WIDTH + lane % 4 * 2;
#pragma unroll
    for (int t = 0; t < S::N_TILES; t++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = 0;
            int c = column + t * 8 + i;
#pragma unroll
            for (int side = 0; side < 2; side++) {
                int row = strip * 16 + side * 8 + lane / 4;
                bool sees = first + c >= skip && first + c < rows.seen[row];
                float score = sees ? s[t][side * 2 + i] : -INFINITY;
                sum += weight_of(score, rows.largest[row]) * rows.share[row];
            }
#pragma unroll
            for (int step = 4; step < CUDA_WARP; step *= 2) {
                sum += __shfl_xor_sync(~0u, sum, step);
            }
            if (lane < 4) sums[strip][c] = sum;
        }
    }
    __syncthreads();
    int c = (int)threadIdx.x;
    if (c < TILE && first + c < n) {
        float sum = 0;
        for (int i = 0; i < S::STRIPS; i++) sum += sums[i][c];
        m.put_key(first + c, first + c < skip ? 0 : weight_key(sum));
    }
}

/* How many columns each row sees, and how many at the start lie before the pair's first group. */
template <typename S>
static __device__ __forceinline__ int find_seen(choice_rows &rows, const choice_call &c,
                                                const choice_pair &p, const choice_level &l) {
    int row = (int)threadIdx.x, skip = 0;
    if (row < S::ROWS) {
        int64_t end = row < p.n_rows ? end_of(c, p, row) : 0;
        int n = row < p.n_rows ? l.n : 0;
        while (n > 0 && (int64_t)column_id(l, n - 1) * l.unit >= end) n--;
        rows.seen[row] = n;
    }
    while (l.listed && skip < CCA_BLOCK && column_id(l, skip) < p.first) skip++;
    __syncthreads();
    return skip;
}

/* Copies of tiles, one behind the other, some of them ahead. */
template <typename S> struct tile_copies {
    tile_walk<S> ahead;
    int n; /* begun */

    __device__ __forceinline__ void begin(const choice_memory<S> &m, const choice_level &l,
                                          int64_t head) {
        char *stage = m.stages + n++ % S::STAGES * S::STAGE_BYTES;
        if (ahead.there()) copy_bounds<S>(stage, l, head, ahead.tile);
        if (ahead.there()) ahead.next();
        mma_copy_commit();
    }

    /* Before the first of them is used. */
    __device__ __forceinline__ void begin_first(const choice_memory<S> &m, const choice_level &l,
                                                int64_t head) {
#pragma unroll
        for (int i = 1; i < S::STAGES; i++) begin(m, l, head);
    }

    /* The next tile's place, when it has come; another copy begins. */
    __device__ __forceinline__ const char *next(const choice_memory<S> &m, const choice_level &l,
                                                int64_t head) {
        mma_copy_wait<S::STAGES - 2>();
        __syncthreads(); /* all have it, and are done with the one before */
        const char *stage = m.stages + (n - S::STAGES + 1) % S::STAGES * S::STAGE_BYTES;
        begin(m, l, head);
        return stage;
    }
};

/* Puts the keys of a level's columns into memory: all rows' weights. Goes through all tiles, and
 * then again through those that are not kept. */
template <typename S>
static __device__ __forceinline__ void weigh(const choice_memory<S> &m, choice_rows &rows,
                                             const row_terms<S> &a, const choice_call &c,
                                             const choice_pair &p, const choice_level &l) {
    int strip = (int)threadIdx.x / CUDA_WARP % S::STRIPS;
    int part = (int)threadIdx.x / CUDA_WARP / S::STRIPS;
    int skip = find_seen<S>(rows, c, p, l), n_tiles = (l.n + TILE - 1) / TILE, n_kept = 0;
    tile_walk<S> at(m, n_tiles), rest = at;
    tile_copies<S> copies = {at, 0};
    row_softmax softmax;
    float s[S::N_TILES][4];
    copies.begin_first(m, l, p.head);
    for (; at.there(); at.next()) {
        score<S>(s, a, copies.next(m, l, p.head), part);
        take_scores<S>(softmax, s, rows, strip, at.tile * TILE + part * S::WIDTH, skip);
        if (n_kept < m.n_kept) {
            keep<S>(m, s, softmax, n_kept, strip, part);
            if (threadIdx.x == 0) rows.tiles[n_kept] = at.tile;
            n_kept++;
            rest.next();
        }
        if (!at.ends_turn()) continue;
        put_rows<S>(m, rows, softmax, at.turn);
        softmax = row_softmax{};
    }
    copies = {rest, 0};
    mma_copy_wait<0>();
    join_rows<S>(m, rows, n_tiles < S::TURNS ? n_tiles : (int)S::TURNS);
    if (rest.there()) copies.begin_first(m, l, p.head);
    weigh_kept<S>(m, rows, n_kept, l.n, skip);
    for (; rest.there(); rest.next()) {
        score<S>(s, a, copies.next(m, l, p.head), part);
        weigh_again<S>(m, s, rows, strip, part, rest.tile * TILE, l.n, skip);
    }
    mma_copy_wait<0>();
    cluster_wait(m.n_sharing);
}

/* ---- levels -------------------------------------------------------------------------- */

/* The columns that groups are chosen from: all, or those of the best blocks and behind them. */
template <typename S>
static __device__ __forceinline__ choice_level find_candidates(const choice_memory<S> &m,
                                                               choice_rows &rows,
                                                               const row_terms<S> &a,
                                                               const choice_call &c,
                                                               const choice_pair &p) {
    int first = (int)p.first, end = first + p.n_groups, n_blocks = end / CCA_BLOCK;
    int wanted = (int)cca_blocks_looked_into(c.out.most);
    choice_level all = {&c.bounds, NULL, 0, first, 0, p.n_groups, 1};
    bool in_levels = c.blocks.capacity > 0 && end >= c.out.levels_from && wanted < n_blocks;
    if (!in_levels) return all;
    int first_block = first / CCA_BLOCK;
    choice_level blocks = {&c.blocks, NULL, 0, first_block, 0, n_blocks - first_block, CCA_BLOCK};
    weigh(m, rows, a, c, p, blocks);
    int n = pick_largest(m.blocks, m.keys, blocks.n, wanted,
                         [&](int i) { return (int32_t)(first_block + i); });
    __syncthreads();
    int n_listed = n * CCA_BLOCK, behind = n_blocks * CCA_BLOCK;
    return choice_level{&c.bounds, m.blocks, n_listed, first, behind, n_listed + end - behind, 1};
}

/* Grid: blocks that share a pair, tiles, heads of keys. */
template <typename S>
static __global__ void __launch_bounds__(CHOOSE_THREADS, 1)
    choose(const __grid_constant__ tiles_args args) {
    cuda_begin();
    extern __shared__ __align__(128) char memory[];
    __shared__ choice_rows rows;
    const choice_call &c = args.call;
    choice_pair p = pair_at(c, blockIdx.y, blockIdx.z);
    if (p.all) {
        if (blockIdx.x == 0) pick_all(c, p);
        return;
    }
    choice_memory<S> m(memory, args);
    row_terms<S> a;
    read_rows<S>(a, c, p, (int)threadIdx.x / CUDA_WARP % S::STRIPS);
    choice_level l = find_candidates(m, rows, a, c, p);
    weigh(m, rows, a, c, p, l);
    if (m.rank > 0) return;
    int n = pick_largest(c.out.groups + p.at * c.out.most, m.keys, l.n, (int)c.out.most,
                         [&](int i) { return (int32_t)column_id(l, i); });
    if (threadIdx.x == 0) c.out.counts[p.at] = n;
}

/* ---- launching ----------------------------------------------------------------------- */

/* The most columns of any level of a tile of the call. */
static int64_t most_columns(const choice_call &c) {
    int64_t end = cca_edge_at(&c.seen.end, c.pos + c.n - 1), n_blocks = end / CCA_BLOCK;
    int64_t wanted = cca_blocks_looked_into(c.out.most), candidates = (wanted + 1) * CCA_BLOCK;
    if (c.blocks.capacity == 0 || end < c.out.levels_from) return end;
    return cca_min(end, cca_max(cca_max(c.out.levels_from, candidates), n_blocks));
}

/* Blocks that share a pair where rows are few: so many that they find place beside each other. */
template <typename S> static int count_sharing(const cuda_backend *b, const choice_call &c) {
    int64_t pairs = choice_tiles(c) * c.out.heads, n = 1;
    int64_t most = S::FEW && b->capability >= 90 ? MOST_SHARING : 1;
    while (2 * n <= most && 2 * n * pairs <= b->n_sm) n *= 2;
    return (int)n;
}

template <typename S> static bool launch(cuda_backend *b, const choice_call &c, int most_shared) {
    tiles_args a = {c, 0, (int)cca_blocks_looked_into(c.out.most), count_sharing<S>(b, c)};
    size_t room = (size_t)most_shared - STATIC, least = S::bytes(0, a.n_blocks);
    if (least > room) return false;
    a.n_kept = (int)cca_min((int64_t)((room - least) / S::KEPT_BYTES), MOST_KEPT);
    if (most_columns(c) > S::most_columns(a.n_kept)) return false;
    size_t shared = S::bytes(a.n_kept, a.n_blocks);
    cuda_check(
        b,
        cudaFuncSetAttribute(choose<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
        "choice");
    dim3 grid((unsigned)a.n_sharing, (unsigned)choice_tiles(c), (unsigned)c.out.heads);
    cuda_launch_clusters(b, "choice", choose<S>, grid, (unsigned)a.n_sharing, CHOOSE_THREADS,
                         shared, a);
    return true;
}

template <int HD, bool is_bf16>
static bool launch_rows(cuda_backend *b, const choice_call &c, int64_t n_rows, int most_shared) {
    return n_rows <= 16 ? launch<choice_shape<HD, is_bf16, 1>>(b, c, most_shared)
                        : launch<choice_shape<HD, is_bf16, 4>>(b, c, most_shared);
}

bool choose_in_tiles(cuda_backend *b, const choice_call &c) {
    int shared = 0;
    int64_t hd = c.bounds.head_dim, n_rows = c.n_heads / c.out.heads * cca_min(c.n, c.out.tile);
    bool is_bf16 = c.bounds.k_type == CCA_BF16;
    if (!b->forms.fused || !cuda_is_half(c.bounds.k_type) || c.bounds.k_type != c.bounds.v_type ||
        (hd != 64 && hd != 128) || n_rows > MOST_ROWS) {
        return false;
    }
    if (!cuda_check(
            b, cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, b->device),
            "device")) {
        return true;
    }
    if (hd == 64) {
        return is_bf16 ? launch_rows<64, true>(b, c, n_rows, shared)
                       : launch_rows<64, false>(b, c, n_rows, shared);
    }
    return is_bf16 ? launch_rows<128, true>(b, c, n_rows, shared)
                   : launch_rows<128, false>(b, c, n_rows, shared);
}
