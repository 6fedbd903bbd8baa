/* Attention of many queries on Hopper's tensor cores (wgmma) with keys and values brought by its
 * copy engine (TMA); sm_90a only, bf16 and f16 caches with head_dim 64 or 128.
 *
 * A block takes 128 queries of one head: two warpgroups do 64 each, a third one only copies, tiles
 * of 128 keys and as many values, two of each under way. Where groups were chosen, a block takes
 * the 64 rows that chose together, with tiles of 64 keys, three under way, and two blocks share a
 * multiprocessor. Queries and weights are left operands in registers. The scores of a tile are
 * computed while the weights of the tile before meet their values (Shah et al., arXiv:2407.08608).
 */
#include "backend/cuda/attend_tile.cuh"
#include "backend/cuda/tensor_map.cuh"
#include "backend/cuda/wgmma.cuh"

enum {
    GROUP = 128, /* threads of a warpgroup */
    PANEL = TENSOR_PANEL,
};

/* A kernel's form: warpgroups that compute, keys of a tile, tiles under way, blocks that share a
 * multiprocessor, and registers of threads that copy and that compute. */
template <int HD_, bool IS_BF16_, int CONSUMERS_, int BN_, int STAGES_, int BLOCKS_, int COPY_,
          int COMPUTE_>
struct form {
    enum {
        HD = HD_,
        CONSUMERS = CONSUMERS_,
        BM = CONSUMERS * 64,
        BN = BN_,
        STAGES = STAGES_,
        BLOCKS = BLOCKS_,
        COPY_REGISTERS = COPY_,
        COMPUTE_REGISTERS = COMPUTE_,
        THREADS = (CONSUMERS + 1) * GROUP,
        N_TILES = BN / 8,
        PANELS = HD / PANEL,
        PANEL_BYTES = BN * PANEL * 2,
        TILE_BYTES = BN * HD * 2, /* of keys, or values */
    };
    static constexpr bool IS_BF16 = IS_BF16_;
    typedef tile_plan<CONSUMERS_ * 64> plan;

    /* Behind the tiles in dynamic shared memory. full: the copy has come; empty: all have read it.
     */
    struct control {
        uint64_t k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
        plan p;
    };
};

template <int HD, bool is_bf16> using form_alone = form<HD, is_bf16, 2, 128, 2, 1, 24, 240>;
template <int HD, bool is_bf16> using form_shared = form<HD, is_bf16, 1, 64, 3, 2, 40, 208>;

/* Keys and values of each span. */
struct tile_maps {
    CUtensorMap k[CCA_MOST_SPANS], v[CCA_MOST_SPANS];
};

/* ---- copies -------------------------------------------------------------------------- */

/* A lane's part of a tile: a panel's rows from `row` on, to where they belong; or nothing. */
struct tile_part {
    bool is_mine;
    int panel, row, offset;
};

/* Rows of a tile come as one box a panel, or as one a chosen group. */
template <typename F>
static __device__ __forceinline__ tile_part find_part(const typename F::plan &p, int t) {
    int lane = (int)threadIdx.x % CUDA_WARP, column, span = tile_column<F::BN>(&p, t, &column);
    int rows = span == p.listed ? p.group : (int)F::BN, first = lane / F::PANELS * rows;
    int last = p.n_columns[span] - 1; /* where groups end, the last one comes again */
    tile_part part;
    part.is_mine = first < F::BN;
    part.panel = lane % F::PANELS;
    part.row = 0;
    part.offset = part.panel * F::PANEL_BYTES + first * PANEL * 2;
    if (!part.is_mine) return part;
    column += first;
    if (span == p.listed && column > last) column = last / rows * rows;
    part.row = (int)tile_row_of(&p, span, column);
    return part;
}

/* Copies a tile; all lanes of a warp. */
template <typename F>
static __device__ __forceinline__ void copy_rows(char *to, const CUtensorMap *map,
                                                 const tile_part &part, uint64_t *full) {
    if (threadIdx.x % CUDA_WARP == 0) cuda_barrier_expect(full, F::TILE_BYTES);
    __syncwarp();
    if (!part.is_mine) return;
    tensor_copy(to + part.offset, map, part.panel, part.row, full);
}

/* ---- the consumers' work ------------------------------------------------------------- */

template <typename F> struct walk {
    float out[F::HD / 8][4] = {};
    float largest[2] = {-INFINITY, -INFINITY}, total[2] = {}, shrink[2];
    uint32_t q[F::HD / 16][4];   /* queries */
    uint32_t w[F::BN / 16][4];   /* weights of the tile before */
    float s[F::N_TILES][4] = {}; /* scores of this tile */
};

/* A lane's fragments of the 16 rows from row on. */
template <typename F>
static __device__ __forceinline__ void read_queries(walk<F> &w, const tile_args &a,
                                                    const tile_rows &rows, int row) {
    int lane = (int)threadIdx.x % CUDA_WARP;
    const float *from[2];
#pragma unroll
    for (int side = 0; side < 2; side++) {
        from[side] = a.q + tile_row_at(a, rows, row + side * 8 + lane / 4, F::HD) + lane % 4 * 2;
    }
#pragma unroll
    for (int step = 0; step < F::HD / 16; step++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 v = *(const float2 *)(from[i % 2] + step * 16 + i / 2 * 8);
            w.q[step][i] = cuda_round_two<F::IS_BF16>(v.x, v.y);
        }
    }
}

/* Begins s = queries · keysᵀ. */
template <typename F> static __device__ __forceinline__ void score(walk<F> &w, uint32_t k) {
#pragma unroll
    for (int step = 0; step < F::HD / 16; step++) {
        uint32_t at = k + (uint32_t)(step / 4 * F::PANEL_BYTES + step % 4 * 32);
        wgmma_multiply<F::N_TILES, F::IS_BF16, 0>(w.s, w.q[step], wgmma_operand(at, 16), step > 0);
    }
    wgmma_commit();
}

/* Begins out += weights · values. */
template <typename F> static __device__ __forceinline__ void add_values(walk<F> &w, uint32_t v) {
#pragma unroll
    for (int step = 0; step < F::BN / 16; step++) {
        uint64_t b = wgmma_operand(v + (uint32_t)(step * 16 * PANEL * 2), F::PANEL_BYTES);
        wgmma_multiply<F::HD / 8, F::IS_BF16, 1>(w.out, w.w[step], b, 1);
    }
    wgmma_commit();
}

/* Scores to weights, still in s. row: the lane's first in the block. */
template <typename F>
static __device__ __forceinline__ void weigh(walk<F> &w, const typename F::plan *p, int t,
                                             int row) {
    int column, span = tile_column<F::BN>(p, t, &column);
    bool masked = tile_masked<F::BN>(p, span, column);
#pragma unroll
    for (int side = 0; side < 2; side++) {
        if (masked) tile_mask<F::N_TILES>(w.s, side, p, row + side * 8, span, column);
        w.shrink[side] = tile_weigh<F::N_TILES>(w.s, side, cuda_score_unit<F::HD>(),
                                                &w.largest[side], &w.total[side]);
    }
}

template <typename F> static __device__ __forceinline__ void pack_weights(walk<F> &w) {
#pragma unroll
    for (int step = 0; step < F::BN / 16; step++) {
        tile_operand<F::IS_BF16>(w.w[step], w.s[step * 2], w.s[step * 2 + 1]);
    }
}

template <typename F> static __device__ __forceinline__ void shrink_out(walk<F> &w) {
#pragma unroll
    for (int d = 0; d < F::HD / 8; d++) {
#pragma unroll
        for (int i = 0; i < 4; i++) w.out[d][i] *= w.shrink[i / 2];
    }
}

template <typename F>
static __device__ __forceinline__ void write_out(walk<F> &w, const tile_args &a,
                                                 const tile_rows &rows, int row) {
    int lane = (int)threadIdx.x % CUDA_WARP;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        float total = tile_row_sum(w.total[side]);
        int r = row + side * 8 + lane / 4;
        if (r < rows.n_rows) {
            tile_write<F::HD>(a, tile_row_at(a, rows, r, F::HD), w.out, side, w.largest[side],
                              total);
        }
    }
}

template <typename F>
static __device__ __forceinline__ void consume(const tile_args &a, typename F::control *c,
                                               uint32_t k, uint32_t v) {
    enum { TILE = F::TILE_BYTES, STAGES = F::STAGES };
    int lane = (int)threadIdx.x % CUDA_WARP;
    int row = ((int)threadIdx.x / CUDA_WARP - GROUP / CUDA_WARP) * 16; /* of this warp */
    int n_tiles = c->p.n_all;
    walk<F> w;
    read_queries(w, a, c->p.rows, row);
    cuda_barrier_wait(&c->k_full[0], 0);
    wgmma_begin();
    score(w, k);
    wgmma_wait<0>();
    wgmma_settle<F::N_TILES>(w.s);
    if (lane == 0) cuda_barrier_arrive(&c->k_empty[0]);
    weigh(w, &c->p, 0, row + lane / 4);
    pack_weights(w);
    for (int t = 1; t < n_tiles; t++) {
        int stage = t % STAGES, before = (t - 1) % STAGES;
        cuda_barrier_wait(&c->k_full[stage], t / STAGES % 2);
        cuda_barrier_wait(&c->v_full[before], (t - 1) / STAGES % 2);
        wgmma_settle<F::N_TILES>(w.s);
        wgmma_settle<F::HD / 8>(w.out);
        wgmma_begin();
        score(w, k + (uint32_t)(stage * TILE));
        add_values(w, v + (uint32_t)(before * TILE));
        wgmma_wait<1>();
        wgmma_settle<F::N_TILES>(w.s);
        if (lane == 0) cuda_barrier_arrive(&c->k_empty[stage]);
        weigh(w, &c->p, t, row + lane / 4);
        wgmma_wait<0>();
        wgmma_settle<F::HD / 8>(w.out);
        if (lane == 0) cuda_barrier_arrive(&c->v_empty[before]);
        shrink_out(w);
        pack_weights(w);
    }
    int last = (n_tiles - 1) % STAGES;
    cuda_barrier_wait(&c->v_full[last], (n_tiles - 1) / STAGES % 2);
    wgmma_settle<F::HD / 8>(w.out);
    wgmma_begin();
    add_values(w, v + (uint32_t)(last * TILE));
    wgmma_wait<0>();
    wgmma_settle<F::HD / 8>(w.out);
    write_out(w, a, c->p.rows, row);
}

/* One warp starts all copies. */
template <typename F>
static __device__ __forceinline__ void produce(const tile_maps &maps, typename F::control *c,
                                               char *k, char *v) {
    enum { TILE = F::TILE_BYTES, STAGES = F::STAGES };
    int n_tiles = c->p.n_all;
    for (int t = 0; t < n_tiles; t++) {
        int stage = t % STAGES, phase = (t / STAGES + 1) % 2;
        int column, span = tile_column<F::BN>(&c->p, t, &column);
        tile_part part = find_part<F>(c->p, t);
        if (t >= STAGES) cuda_barrier_wait(&c->k_empty[stage], phase);
        copy_rows<F>(k + stage * TILE, &maps.k[span], part, &c->k_full[stage]);
        if (t >= STAGES) cuda_barrier_wait(&c->v_empty[stage], phase);
        copy_rows<F>(v + stage * TILE, &maps.v[span], part, &c->v_full[stage]);
    }
}

template <typename F>
static __global__ void __launch_bounds__(F::THREADS, F::BLOCKS)
    attend(const __grid_constant__ tile_args a, const __grid_constant__ tile_maps maps) {
    cuda_begin();
    extern __shared__ __align__(1024) char memory[];
    char *k = memory, *v = memory + F::STAGES * F::TILE_BYTES;
    typename F::control *c = (typename F::control *)(v + F::STAGES * F::TILE_BYTES);
    tile_rows rows = tile_rows_of(a, gridDim.x - 1 - blockIdx.x, blockIdx.y, F::BM);
    tile_make_plan<F::BN>(&c->p, a, rows, (int)threadIdx.x, F::THREADS);
    if (threadIdx.x == 0) {
        for (int i = 0; i < F::STAGES; i++) {
            cuda_barrier_init(&c->k_full[i], 1);
            cuda_barrier_init(&c->v_full[i], 1);
            cuda_barrier_init(&c->k_empty[i], F::CONSUMERS * GROUP / CUDA_WARP);
            cuda_barrier_init(&c->v_empty[i], F::CONSUMERS * GROUP / CUDA_WARP);
        }
        cuda_barriers_ready();
    }
    __syncthreads();
    if (threadIdx.x < GROUP) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"((int)F::COPY_REGISTERS));
        if (threadIdx.x < CUDA_WARP) produce<F>(maps, c, k, v);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"((int)F::COMPUTE_REGISTERS));
        consume<F>(a, c, cuda_shared(k), cuda_shared(v));
    }
}

/* ---- launching ----------------------------------------------------------------------- */

/* Maps of the spans of which the last query sees something; nobody asks for the others. */
static bool make_maps(tile_maps *out, const cca_spans *spans, int64_t last, int64_t tile) {
    tensor_map_encoder encode = tensor_map_find_encoder();
    for (int i = 0; encode && i < spans->n; i++) {
        const cca_rows *rows = &spans->at[i].rows;
        bool is_list = spans->at[i].pick == CCA_PICK_CHOSEN;
        int64_t at_a_time = is_list ? spans->choice.group_size : tile;
        if (cca_edge_at(&spans->at[i].seen.end, last) == 0) continue;
        if (!tensor_map_make(encode, &out->k[i], rows->k, rows, at_a_time) ||
            !tensor_map_make(encode, &out->v[i], rows->v, rows, at_a_time)) {
            return false;
        }
    }
    return encode != NULL;
}

/* False where there is nothing to be done so. */
template <typename F>
static bool launch(cuda_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                   int64_t pos, int64_t n, float *sums) {
    tile_maps maps = {};
    if (!tile_suits(spans, q, pos, n, F::BM)) return false;
    if (!cuda_check(b, cudaSetDevice(b->device), "attention")) return true;
    if (!make_maps(&maps, spans, pos + n - 1, F::BN)) return false;
    size_t shared = (size_t)(2 * F::STAGES * F::TILE_BYTES) + sizeof(typename F::control);
    tile_args a = tile_make_args(b, out, spans, q, pos, n);
    a.sums = sums;
    cuda_check(
        b,
        cudaFuncSetAttribute(attend<F>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
        "attention");
    cuda_launch(b, "attention", attend<F>, tile_grid(a, F::BM), F::THREADS, shared, a, maps);
    if (a.twin) cuda_set_twin(b, out, n);
    return true;
}

template <template <int, bool> typename F>
static bool launch_type(cuda_backend *b, cca_matrix *out, const cca_spans *spans,
                        const cca_matrix *q, int64_t pos, int64_t n, float *sums) {
    bool is_bf16 = spans->at[0].rows.k_type == CCA_BF16;
    if (spans->at[0].rows.head_dim == 64) {
        return is_bf16 ? launch<F<64, true>>(b, out, spans, q, pos, n, sums)
                       : launch<F<64, false>>(b, out, spans, q, pos, n, sums);
    }
    return is_bf16 ? launch<F<128, true>>(b, out, spans, q, pos, n, sums)
                   : launch<F<128, false>>(b, out, spans, q, pos, n, sums);
}

/* Groups are copied whole, from where eight rows are swizzled together. */
bool cuda_attend_sm90(cuda_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                      int64_t pos, int64_t n, float *sums) {
    int64_t g = spans->choice.group_size;
    if (!b->forms.wgmma) return false;
    if (!tile_shares(spans)) return launch_type<form_alone>(b, out, spans, q, pos, n, sums);
    return g % 8 == 0 && 64 % g == 0 && launch_type<form_shared>(b, out, spans, q, pos, n, sums);
}
