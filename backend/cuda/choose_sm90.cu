/* Which groups a tile of many queries recalls, on Hopper's tensor cores (wgmma; sm_90a only), with
 * bounds brought by its copy engine (TMA): choose_columns.cuh, for 17 to 64 rows.
 *
 * Two warpgroups take turns with the tiles of columns, so that one's softmax goes on beside the
 * other's product; a further warp only copies, high and low bounds of a tile one behind the other,
 * four such halves under way. Columns come in sixteens: that is a block's groups. */
#include "backend/cuda/choose_columns.cuh"
#include "backend/cuda/tensor_map.cuh"
#include "backend/cuda/wgmma.cuh"

enum {
    THREADS = CHOOSE_THREADS + CUDA_WARP,
    TEAMS = 2,
    HALVES = 2 * TEAMS, /* of tiles, under way */
    PANEL_BYTES = TILE * TENSOR_PANEL * 2,
    STATIC = 10 << 10, /* shared memory that is not dynamic */
};

static_assert(CCA_BLOCK == 16, "columns of a copy");

template <int HD, bool is_bf16> using two_teams = choice_shape<HD, is_bf16, 4, 1, TEAMS, 2>;

/* Of all groups, and of blocks. */
struct bound_maps {
    CUtensorMap high[2], low[2];
};

/* full: the copy has come; empty: its team has used it. */
struct choice_ring {
    uint64_t full[HALVES], empty[HALVES];
    int n_picked; /* blocks */
};

/* The copying warp waits for the list of blocks, that the others have picked. */
static __device__ __forceinline__ void tell_list() {
    asm volatile("bar.arrive 2, %0;" ::"n"((int)THREADS) : "memory");
}

static __device__ __forceinline__ void wait_for_list() {
    asm volatile("bar.sync 2, %0;" ::"n"((int)THREADS) : "memory");
}

/* ---- copies -------------------------------------------------------------------------- */

/* Copies one half of a tile's bounds; all lanes of a warp, each some columns of a panel. Columns
 * behind the last are those before it again. */
template <typename S>
static __device__ __forceinline__ void copy_half(char *to, const CUtensorMap *map,
                                                 const choice_level &l, int64_t first_row, int tile,
                                                 uint64_t *full) {
    enum { PANELS = S::HD / TENSOR_PANEL, COLUMNS = CCA_BLOCK };
    int lane = (int)threadIdx.x % CUDA_WARP, panel = lane % PANELS, some = lane / PANELS;
    if (lane == 0) cuda_barrier_expect(full, TILE * S::HD * 2);
    __syncwarp();
    if (some >= TILE / COLUMNS) return;
    int column = tile * TILE + some * COLUMNS;
    if (column >= l.n) column = (l.n - 1) / COLUMNS * COLUMNS;
    tensor_copy(to + panel * PANEL_BYTES + some * COLUMNS * TENSOR_PANEL * 2, map, panel,
                (int)(first_row + column_id(l, column)), full);
}

/* Copies a level's tiles, and then again those that are not kept. *n: halves that were begun. */
template <typename S>
static __device__ __forceinline__ void copy_level(const choice_memory<S> &m, choice_ring &ring,
                                                  const bound_maps &maps, const choice_level &l,
                                                  int64_t first_row, int *n) {
    int n_tiles = (l.n + TILE - 1) / TILE, n_kept = n_tiles < m.n_kept ? n_tiles : m.n_kept;
    for (int i = 0; i < 2 * n_tiles - n_kept; i++) {
        int tile = i < n_tiles ? i : i - n_tiles + n_kept;
        for (int half = 0; half < 2; half++, ++*n) {
            int place = *n % HALVES, round = *n / HALVES;
            const CUtensorMap *map = (half == 0 ? maps.high : maps.low) + l.of_blocks;
            if (round > 0) cuda_barrier_wait(&ring.empty[place], (round + 1) % 2);
            copy_half<S>(m.stages + place * (S::STAGE_BYTES / 2), map, l, first_row, tile,
                         &ring.full[place]);
        }
    }
}

template <typename S>
static __device__ __forceinline__ void produce(const choice_memory<S> &m, choice_ring &ring,
                                               const bound_maps &maps, const choice_call &c,
                                               const choice_pair &p) {
    choice_level l = first_level(c, p);
    int n = 0;
    copy_level(m, ring, maps, l, p.head * (l.of_blocks ? c.blocks : c.bounds).capacity, &n);
    if (!l.of_blocks) return;
    wait_for_list();
    l = second_level(p, m.blocks, ring.n_picked);
    copy_level(m, ring, maps, l, p.head * c.bounds.capacity, &n);
}

/* ---- weights ------------------------------------------------------------------------- */

/* Scores of a team's rows with the tile whose first half is the n-th of all. */
template <typename S>
static __device__ __forceinline__ void score(float s[S::N_TILES][4], const row_terms<S> &a,
                                             const choice_memory<S> &m, choice_ring &ring, int n) {
    for (int i = n; i < n + 2; i++) cuda_barrier_wait(&ring.full[i % HALVES], i / HALVES % 2);
    wgmma_settle<S::N_TILES>(s);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < S::STEPS; step++) {
        int half = step / (S::STEPS / 2), i = step % (S::STEPS / 2);
        uint32_t at = cuda_shared(m.stages + (n + half) % HALVES * (S::STAGE_BYTES / 2));
        at += (uint32_t)(i / 4 * PANEL_BYTES + i % 4 * 32);
        wgmma_multiply<S::N_TILES, S::IS_BF16, 0>(s, a[0][step], wgmma_operand(at, 16), step > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_settle<S::N_TILES>(s);
    if (threadIdx.x % CUDA_WARP != 0) return;
    cuda_barrier_arrive(&ring.empty[n % HALVES]);
    cuda_barrier_arrive(&ring.empty[(n + 1) % HALVES]);
}

/* Puts the keys of a level's columns into memory: all rows' weights. n: halves before. */
template <typename S>
static __device__ __forceinline__ void
weigh(const choice_memory<S> &m, choice_rows<S> &rows, choice_ring &ring, const row_terms<S> &a,
      const choice_call &c, const choice_pair &p, const choice_level &l, int n) {
    const warp_place<S> own;
    int skip = find_seen<S>(rows, c, p, l), n_tiles = (l.n + TILE - 1) / TILE;
    int n_kept = n_tiles < m.n_kept ? n_tiles : m.n_kept;
    row_softmax softmax;
    float s[S::N_TILES][4] = {};
    for (int tile = own.team; tile < n_tiles; tile += TEAMS) {
        score(s, a, m, ring, n + 2 * tile);
        mask_scores<S>(s, rows, own.strip, tile * TILE, skip);
        take_scores<S>(softmax, s);
        if (tile >= n_kept) continue;
        keep<S>(m, s, softmax, tile, own.strip, 0);
        if (threadIdx.x % S::TEAM == 0) rows.tiles[tile] = tile;
    }
    put_rows(m, rows, softmax, own, own.team);
    join_rows(m, rows, n_tiles < TEAMS ? n_tiles : (int)TEAMS);
    weigh_kept(m, rows, n_kept, l.n, skip);
    n += 2 * n_tiles;
    for (int i = own.team; i < n_tiles - n_kept; i += TEAMS) {
        score(s, a, m, ring, n + 2 * i);
        weigh_again(m, s, rows, own, (n_kept + i) * TILE, l.n, skip);
    }
    choose_wait();
}

template <typename S>
static __device__ __forceinline__ void consume(const choice_memory<S> &m, choice_rows<S> &rows,
                                               choice_ring &ring, const choice_call &c,
                                               const choice_pair &p) {
    row_terms<S> a;
    read_rows<S>(a, c, p, warp_place<S>().strip);
    choice_level l = first_level(c, p);
    weigh(m, rows, ring, a, c, p, l, 0);
    if (l.of_blocks) {
        int n_tiles = (l.n + TILE - 1) / TILE, n_kept = n_tiles < m.n_kept ? n_tiles : m.n_kept;
        int n = pick_blocks(m, c, l);
        if (threadIdx.x == 0) ring.n_picked = n;
        tell_list();
        l = second_level(p, m.blocks, n);
        weigh(m, rows, ring, a, c, p, l, 2 * (2 * n_tiles - n_kept));
    }
    put_choice(m, c, p, l);
}

/* Grid: one, tiles, heads of keys. */
template <typename S>
static __global__ void __launch_bounds__(THREADS, 1)
    choose(const __grid_constant__ tiles_args args, const __grid_constant__ bound_maps maps) {
    cuda_begin();
    extern __shared__ __align__(1024) char memory[];
    __shared__ choice_rows<S> rows;
    __shared__ choice_ring ring;
    const choice_call &c = args.call;
    choice_pair p = pair_at(c, gridDim.y - 1 - blockIdx.y, blockIdx.z);
    if (p.all) {
        if (threadIdx.x < CHOOSE_THREADS) pick_all(c, p);
        return;
    }
    choice_memory<S> m(memory, args);
    if (threadIdx.x == 0) {
        for (int i = 0; i < HALVES; i++) {
            cuda_barrier_init(&ring.full[i], 1);
            cuda_barrier_init(&ring.empty[i], S::TEAM / CUDA_WARP);
        }
        cuda_barriers_ready();
    }
    __syncthreads();
    if (threadIdx.x < CHOOSE_THREADS) {
        consume(m, rows, ring, c, p);
    } else {
        produce(m, ring, maps, c, p);
    }
}

/* ---- launching ----------------------------------------------------------------------- */

static bool make_maps(bound_maps *out, const choice_call &c) {
    tensor_map_encoder encode = tensor_map_find_encoder();
    for (int i = 0; encode && i < 2; i++) {
        const cca_rows *rows = i == 0 ? &c.bounds : &c.blocks;
        if (rows->capacity == 0) continue;
        if (!tensor_map_make(encode, &out->high[i], rows->k, rows, CCA_BLOCK) ||
            !tensor_map_make(encode, &out->low[i], rows->v, rows, CCA_BLOCK)) {
            return false;
        }
    }
    return encode != NULL;
}

template <typename S> static bool launch(cuda_backend *b, const choice_call &c, int most_shared) {
    tiles_args a = {c, 0, 0, 1};
    bound_maps maps = {};
    size_t shared;
    if (!plan_tiles<S>(&a, &shared, (size_t)most_shared - STATIC, choice_end(c))) {
        return false;
    }
    if (!make_maps(&maps, c)) return false;
    cuda_check(
        b,
        cudaFuncSetAttribute(choose<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
        "choice");
    cuda_launch(b, "choice", choose<S>, dim3(1, (unsigned)choice_tiles(c), (unsigned)c.out.heads),
                THREADS, shared, a, maps);
    return true;
}

bool choose_sm90(cuda_backend *b, const choice_call &c, int most_shared) {
    bool is_bf16 = c.bounds.k_type == CCA_BF16;
    if (!b->forms.wgmma) return false;
    if (c.bounds.head_dim == 64) {
        return is_bf16 ? launch<two_teams<64, true>>(b, c, most_shared)
                       : launch<two_teams<64, false>>(b, c, most_shared);
    }
    return is_bf16 ? launch<two_teams<128, true>>(b, c, most_shared)
                   : launch<two_teams<128, false>>(b, c, most_shared);
}
