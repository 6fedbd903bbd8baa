/* Which groups a tile of queries recalls, on tensor cores of compute capability 8.0 and newer:
 * bounds in 16 bits with head_dim 64 or 128, up to 64 rows (choose_columns.cuh). All warps of a
 * block take each tile of columns together; high and low come through cp.async, side by side.
 *
 * Where rows are few, as in decode, blocks of a cluster, as many as the GPU has room for, take
 * turns with the tiles. */
#include "backend/cuda/choose_columns.cuh"
#include "backend/cuda/mma.cuh"

enum { STATIC = 14 << 10 }; /* shared memory that is not dynamic */

template <int HD, bool is_bf16> using many_rows = choice_shape<HD, is_bf16, 4, 2, 1, 2>;
template <int HD, bool is_bf16> using few_rows = choice_shape<HD, is_bf16, 1, 8, MOST_SHARING, 3>;

/* ---- bounds -------------------------------------------------------------------------- */

/* Begins to copy a tile's bounds; columns behind the last are the last one again. */
template <typename S>
static __device__ __forceinline__ void copy_bounds(char *stage, const cca_rows &rows,
                                                   const choice_level &l, int64_t head, int tile) {
    enum {
        PIECES = S::COLUMN_BYTES / 16,
        EACH = TILE * PIECES / CHOOSE_THREADS,
        STEP = CHOOSE_THREADS / PIECES,
    };
    int piece = (int)threadIdx.x % PIECES, column = (int)threadIdx.x / PIECES;
    bool high = piece < PIECES / 2;
    const char *from = (const char *)(high ? rows.k : rows.v);
    from += (head * rows.capacity * PIECES / 2 + piece % (PIECES / 2)) * 16;
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

/* ---- weights ------------------------------------------------------------------------- */

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

/* Copies of tiles, one behind the other, some of them ahead. */
template <typename S> struct tile_copies {
    const cca_rows &rows;
    const choice_level &level;
    int64_t head;
    tile_walk<S> ahead;
    int n; /* begun */

    __device__ __forceinline__ void begin(const choice_memory<S> &m) {
        char *stage = m.stages + n++ % S::STAGES * S::STAGE_BYTES;
        if (ahead.there()) copy_bounds<S>(stage, rows, level, head, ahead.tile);
        if (ahead.there()) ahead.next();
        mma_copy_commit();
    }

    /* Before the first of them is used. */
    __device__ __forceinline__ void begin_first(const choice_memory<S> &m) {
#pragma unroll
        for (int i = 1; i < S::STAGES; i++) begin(m);
    }

    /* The next tile's place, when it has come; another copy begins. */
    __device__ __forceinline__ const char *next(const choice_memory<S> &m) {
        mma_copy_wait<S::STAGES - 2>();
        choose_wait(); /* all have it, and are done with the one before */
        const char *stage = m.stages + (n - S::STAGES + 1) % S::STAGES * S::STAGE_BYTES;
        begin(m);
        return stage;
    }
};

/* Puts the keys of a level's columns into memory: all rows' weights. Goes through all tiles, and
 * then again through those that are not kept. */
template <typename S>
static __device__ __forceinline__ void weigh(const choice_memory<S> &m, choice_rows<S> &rows,
                                             const row_terms<S> &a, const choice_call &c,
                                             const choice_pair &p, const choice_level &l) {
    const cca_rows &bounds = l.of_blocks ? c.blocks : c.bounds;
    const warp_place<S> own;
    int skip = find_seen<S>(rows, c, p, l), n_tiles = (l.n + TILE - 1) / TILE, n_kept = 0;
    tile_walk<S> at(m, n_tiles), rest = at;
    tile_copies<S> copies = {bounds, l, p.head, at, 0}, again = copies;
    row_softmax softmax;
    float s[S::N_TILES][4];
    copies.begin_first(m);
    for (; at.there(); at.next()) {
        score<S>(s, a, copies.next(m), own.part);
        bool kept = n_kept < m.n_kept;
        mask_scores<S>(s, rows, own.strip, at.tile * TILE + own.part * S::WIDTH, skip);
        if (S::FEW && kept) keep<S>(m, s, softmax, n_kept, own.strip, own.part);
        take_scores<S>(softmax, s);
        if (kept) {
            if (!S::FEW) keep<S>(m, s, softmax, n_kept, own.strip, own.part);
            if (threadIdx.x == 0) rows.tiles[n_kept] = at.tile;
            n_kept++;
            rest.next();
        }
        if (!at.ends_turn()) continue;
        put_rows<S>(m, rows, softmax, own, at.turn);
        softmax = row_softmax{};
    }
    mma_copy_wait<0>();
    join_rows<S>(m, rows, n_tiles < S::TURNS ? n_tiles : (int)S::TURNS);
    again.ahead = rest;
    if (rest.there()) again.begin_first(m);
    weigh_kept<S>(m, rows, n_kept, l.n, skip);
    for (; rest.there(); rest.next()) {
        score<S>(s, a, again.next(m), own.part);
        weigh_again<S>(m, s, rows, own, rest.tile * TILE, l.n, skip);
    }
    mma_copy_wait<0>();
    m.wait();
}

/* Grid: blocks that share a pair, tiles, heads of keys. */
template <typename S>
static __global__ void __launch_bounds__(CHOOSE_THREADS, 1)
    choose(const __grid_constant__ tiles_args args) {
    cuda_begin();
    extern __shared__ __align__(128) char memory[];
    __shared__ choice_rows<S> rows;
    const choice_call &c = args.call;
    choice_pair p = pair_at(c, blockIdx.y, blockIdx.z);
    if (p.all) {
        if (blockIdx.x == 0) pick_all(c, p);
        return;
    }
    choice_memory<S> m(memory, args);
    row_terms<S> a;
    read_rows<S>(a, c, p, warp_place<S>().strip);
    choice_level l = first_level(c, p);
    m.wait(); /* nobody may put anything into a block that has not begun */
    weigh(m, rows, a, c, p, l);
    if (l.of_blocks) {
        l = second_level(p, m.blocks, pick_blocks(m, c, l));
        weigh(m, rows, a, c, p, l);
    }
    if (m.rank == 0) put_choice(m, c, p, l);
}

/* ---- launching ----------------------------------------------------------------------- */

/* Blocks that share a pair where rows are few: so many that they find place beside each other. A
 * cluster lies in one part of the GPU, so that not all multiprocessors can be had. */
template <typename S> static int count_sharing(const cuda_backend *b, const choice_call &c) {
    int64_t pairs = choice_tiles(c) * c.out.heads, n = 1;
    int64_t most = S::FEW && b->capability >= 90 ? MOST_SHARING : 1;
    while (2 * n <= most && 2 * n * pairs <= b->n_sm * 3 / 4) n *= 2;
    return (int)n;
}

template <typename S> static bool launch(cuda_backend *b, const choice_call &c, int most_shared) {
    tiles_args a = {c, 0, 0, count_sharing<S>(b, c)};
    size_t shared;
    if (!plan_tiles<S>(&a, &shared, (size_t)most_shared - STATIC, choice_end(c))) {
        return false;
    }
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
    return n_rows <= 16 ? launch<few_rows<HD, is_bf16>>(b, c, most_shared)
                        : launch<many_rows<HD, is_bf16>>(b, c, most_shared);
}

static int64_t count_rows(const choice_call &c) {
    return c.n_heads / c.out.heads * cca_min(c.n, c.out.tile);
}

static bool suits(const cuda_backend *b, const choice_call &c) {
    const cca_rows *bounds = &c.bounds;
    return b->forms.fused && cuda_is_half(bounds->k_type) && bounds->k_type == bounds->v_type &&
           (bounds->head_dim == 64 || bounds->head_dim == 128) && count_rows(c) <= MOST_ROWS &&
           cca_max(choice_tiles(c), c.out.heads) <= CUDA_MOST_BLOCKS;
}

/* Shared memory that a block can have; 0 after a failure. */
static int find_shared(cuda_backend *b) {
    int shared = 0;
    if (!cuda_check(b, cudaSetDevice(b->device), "choice")) return 0;
    cuda_check(b,
               cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, b->device),
               "device");
    return shared;
}

template <typename S> static bool fits(const choice_call &c, int shared, int64_t end) {
    tiles_args a = {c, 0, 0, 1};
    size_t bytes;
    return plan_tiles<S>(&a, &bytes, (size_t)shared - STATIC, end);
}

template <int HD> static bool fits_rows(const choice_call &c, int shared, int64_t end) {
    int64_t least = c.n_heads / c.out.heads, most = count_rows(c);
    return (least > 16 || fits<few_rows<HD, true>>(c, shared, end)) &&
           (most <= 16 || fits<many_rows<HD, true>>(c, shared, end));
}

bool chooses_in_tiles(cuda_backend *b, const choice_call &c, int64_t end) {
    int shared = suits(b, c) ? find_shared(b) : 0;
    if (shared == 0) return false;
    return c.bounds.head_dim == 64 ? fits_rows<64>(c, shared, end) : fits_rows<128>(c, shared, end);
}

bool choose_in_tiles(cuda_backend *b, const choice_call &c) {
    int64_t hd = c.bounds.head_dim, n_rows = count_rows(c);
    bool is_bf16 = c.bounds.k_type == CCA_BF16;
    if (!suits(b, c)) return false;
    int shared = find_shared(b);
    if (shared == 0) return true;
    if (n_rows > 16 && choose_sm90(b, c, shared)) return true;
    if (hd == 64) {
        return is_bf16 ? launch_rows<64, true>(b, c, n_rows, shared)
                       : launch_rows<64, false>(b, c, n_rows, shared);
    }
    return is_bf16 ? launch_rows<128, true>(b, c, n_rows, shared)
                   : launch_rows<128, false>(b, c, n_rows, shared);
}
