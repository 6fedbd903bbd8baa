/* Attention of many queries on Hopper's tensor cores (wgmma) with keys and values brought by its
 * copy engine (TMA); sm_90a only, bf16 and f16 caches with head_dim 64 or 128.
 *
 * A block takes 128 queries of one head: two warpgroups do 64 each, a third one only copies, tiles
 * of 128 keys and as many values, two of each under way. Queries and weights are left operands in
 * registers. The scores of a tile are computed while the weights of the tile before meet their
 * values (Shah et al., arXiv:2407.08608). */
#include "backend/cuda/attend_tile.cuh"
#include "backend/cuda/bulk_copy.cuh"

#include <cudaTypedefs.h>

enum {
    BM = 128,
    BN = 128,
    GROUP = 128,   /* threads of a warpgroup */
    CONSUMERS = 2, /* warpgroups */
    THREADS = (CONSUMERS + 1) * GROUP,
    STAGES = 2,
    N_TILES = BN / 8,
    PANEL = 64, /* values of a row that are swizzled together: 128 bytes */
    PANEL_BYTES = BN * PANEL * 2,
};

using plan = tile_plan<BM>;

/* Keys and values of each span. */
struct tile_maps {
    CUtensorMap k[CCA_MOST_SPANS], v[CCA_MOST_SPANS];
};

/* Behind the tiles in dynamic shared memory. full: the copy has come; empty: all have read it. */
struct control {
    uint64_t k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    plan p;
};

/* ---- copies -------------------------------------------------------------------------- */

/* Copies BN rows from row on, in panels of 64 values. */
template <int HD>
static __device__ __forceinline__ void copy_rows(char *to, const CUtensorMap *map, int row,
                                                 uint64_t *full) {
    cuda_barrier_expect(full, BN * HD * 2);
#pragma unroll
    for (int i = 0; i < HD / PANEL; i++) {
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                     "[%0], [%1, {%2, %3}], [%4];" ::"r"(cuda_shared(to + i * PANEL_BYTES)),
                     "l"(map), "r"(i * PANEL), "r"(row), "r"(cuda_shared(full))
                     : "memory");
    }
}

/* ---- products ------------------------------------------------------------------------ */

/* A right operand in shared memory, rows of 128 bytes swizzled in groups of eight. stride: bytes
 * from one panel to the next, where the operand spans several across. */
static __device__ __forceinline__ uint64_t operand(uint32_t address, uint32_t stride) {
    const uint64_t eight_rows = 1024, swizzle_128 = 1ull << 62;
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(stride >> 4) << 16 |
           (eight_rows >> 4) << 32 | swizzle_128;
}

static __device__ __forceinline__ void product_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void product_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int PENDING> static __device__ __forceinline__ void product_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Keeps the compiler from moving accumulators over a wait. */
template <int N> static __device__ __forceinline__ void settle(float d[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) asm volatile("" : "+f"(d[n][i])::"memory");
    }
}

#define D4(i)  "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define D16(i) D4(i), D4(i + 1), D4(i + 2), D4(i + 3)
#define R32                                                                                        \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"       \
    "%24,%25,%26,%27,%28,%29,%30,%31"
#define R64                                                                                        \
    R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,"    \
        "%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define A4 "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])

/* d (64 × 128) = a · b, or is added to; transposed: b's rows lie along the sum. */
#define PRODUCT_128(type)                                                                          \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %69, 0;\n"                                         \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" R64 "}, "       \
                 "{%64, %65, %66, %67}, %68, p, 1, 1, %70;}"                                       \
                 : D16(0), D16(4), D16(8), D16(12)                                                 \
                 : A4, "l"(b), "r"(add), "n"(TRANSPOSED))

/* The same, 64 × 64. */
#define PRODUCT_64(type)                                                                           \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %37, 0;\n"                                         \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" R32 "}, "        \
                 "{%32, %33, %34, %35}, %36, p, 1, 1, %38;}"                                       \
                 : D16(0), D16(4)                                                                  \
                 : A4, "l"(b), "r"(add), "n"(TRANSPOSED))

template <int N, bool is_bf16, int TRANSPOSED>
static __device__ __forceinline__ void multiply(float d[N][4], const uint32_t a[4], uint64_t b,
                                                int add) {
    if constexpr (N == 16 && is_bf16) PRODUCT_128("bf16");
    if constexpr (N == 16 && !is_bf16) PRODUCT_128("f16");
    if constexpr (N == 8 && is_bf16) PRODUCT_64("bf16");
    if constexpr (N == 8 && !is_bf16) PRODUCT_64("f16");
}

/* ---- the consumers' work ------------------------------------------------------------- */

template <int HD> struct walk {
    float out[HD / 8][4] = {};
    float largest[2] = {-INFINITY, -INFINITY}, total[2] = {}, shrink[2];
    uint32_t q[HD / 16][4];   /* queries */
    uint32_t w[BN / 16][4];   /* weights of the tile before */
    float s[N_TILES][4] = {}; /* scores of this tile */
};

/* A lane's fragments of 64 queries, from row on. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void read_queries(walk<HD> &w, const tile_args &a, int64_t row,
                                                    int64_t head) {
    int lane = (int)threadIdx.x % CUDA_WARP;
    const float *from[2];
#pragma unroll
    for (int side = 0; side < 2; side++) {
        int64_t r = row + side * 8 + lane / 4;
        from[side] = a.q + ((r < a.n ? r : a.n - 1) * a.n_heads + head) * HD + lane % 4 * 2;
    }
#pragma unroll
    for (int step = 0; step < HD / 16; step++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 v = *(const float2 *)(from[i % 2] + step * 16 + i / 2 * 8);
            w.q[step][i] = tile_pack<is_bf16>(v.x, v.y);
        }
    }
}

/* Begins s = queries · keysᵀ. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void score(walk<HD> &w, uint32_t k) {
#pragma unroll
    for (int step = 0; step < HD / 16; step++) {
        uint32_t at = k + (uint32_t)(step / 4 * PANEL_BYTES + step % 4 * 32);
        multiply<N_TILES, is_bf16, 0>(w.s, w.q[step], operand(at, 16), step > 0);
    }
    product_commit();
}

/* Begins out += weights · values. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void add_values(walk<HD> &w, uint32_t v) {
#pragma unroll
    for (int step = 0; step < BN / 16; step++) {
        uint64_t b = operand(v + (uint32_t)(step * 16 * PANEL * 2), PANEL_BYTES);
        multiply<HD / 8, is_bf16, 1>(w.out, w.w[step], b, 1);
    }
    product_commit();
}

/* Scores to weights, still in s. row: of the lane's first query in the block. */
template <int HD>
static __device__ __forceinline__ void weigh(walk<HD> &w, const plan *p, int t, int row) {
    int column, span = tile_column<BN>(p, t, &column);
    bool masked = tile_masked<BN>(p, span, column);
#pragma unroll
    for (int side = 0; side < 2; side++) {
        if (masked) tile_mask<N_TILES>(w.s, side, p, row + side * 8, span, column);
        w.shrink[side] =
            tile_weigh<N_TILES>(w.s, side, tile_unit<HD>(), &w.largest[side], &w.total[side]);
    }
}

template <int HD, bool is_bf16> static __device__ __forceinline__ void pack_weights(walk<HD> &w) {
#pragma unroll
    for (int step = 0; step < BN / 16; step++) {
        tile_operand<is_bf16>(w.w[step], w.s[step * 2], w.s[step * 2 + 1]);
    }
}

template <int HD> static __device__ __forceinline__ void shrink_out(walk<HD> &w) {
#pragma unroll
    for (int d = 0; d < HD / 8; d++) {
#pragma unroll
        for (int i = 0; i < 4; i++) w.out[d][i] *= w.shrink[i / 2];
    }
}

template <int HD>
static __device__ __forceinline__ void write_out(walk<HD> &w, const tile_args &a, int64_t row,
                                                 int64_t head) {
    int lane = (int)threadIdx.x % CUDA_WARP;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        float total = tile_row_sum(w.total[side]);
        int64_t r = row + side * 8 + lane / 4;
        if (r < a.n) tile_write<HD>(a, r, head, w.out, side, total);
    }
}

template <int HD, bool is_bf16>
static __device__ __forceinline__ void consume(const tile_args &a, control *c, uint32_t k,
                                               uint32_t v, int64_t first, int64_t head) {
    enum { TILE = BN * HD * 2 };
    int lane = (int)threadIdx.x % CUDA_WARP;
    int row = ((int)threadIdx.x / CUDA_WARP - GROUP / CUDA_WARP) * 16; /* of this warp */
    int n_tiles = c->p.n_all;
    walk<HD> w;
    read_queries<HD, is_bf16>(w, a, first + row, head);
    cuda_barrier_wait(&c->k_full[0], 0);
    product_begin();
    score<HD, is_bf16>(w, k);
    product_wait<0>();
    settle<N_TILES>(w.s);
    if (lane == 0) cuda_barrier_arrive(&c->k_empty[0]);
    weigh<HD>(w, &c->p, 0, row + lane / 4);
    pack_weights<HD, is_bf16>(w);
    for (int t = 1; t < n_tiles; t++) {
        int stage = t % STAGES, before = (t - 1) % STAGES;
        cuda_barrier_wait(&c->k_full[stage], t / STAGES % 2);
        cuda_barrier_wait(&c->v_full[before], (t - 1) / STAGES % 2);
        settle<N_TILES>(w.s);
        settle<HD / 8>(w.out);
        product_begin();
        score<HD, is_bf16>(w, k + (uint32_t)(stage * TILE));
        add_values<HD, is_bf16>(w, v + (uint32_t)(before * TILE));
        product_wait<1>();
        settle<N_TILES>(w.s);
        if (lane == 0) cuda_barrier_arrive(&c->k_empty[stage]);
        weigh<HD>(w, &c->p, t, row + lane / 4);
        product_wait<0>();
        settle<HD / 8>(w.out);
        if (lane == 0) cuda_barrier_arrive(&c->v_empty[before]);
        shrink_out<HD>(w);
        pack_weights<HD, is_bf16>(w);
    }
    int last = (n_tiles - 1) % STAGES;
    cuda_barrier_wait(&c->v_full[last], (n_tiles - 1) / STAGES % 2);
    settle<HD / 8>(w.out);
    product_begin();
    add_values<HD, is_bf16>(w, v + (uint32_t)(last * TILE));
    product_wait<0>();
    settle<HD / 8>(w.out);
    write_out<HD>(w, a, first + row, head);
}

/* One thread starts all copies. */
template <int HD>
static __device__ __forceinline__ void produce(const tile_maps &maps, control *c, char *k,
                                               char *v) {
    enum { TILE = BN * HD * 2 };
    int n_tiles = c->p.n_all;
    for (int t = 0; t < n_tiles; t++) {
        int stage = t % STAGES, phase = (t / STAGES + 1) % 2;
        int column, span = tile_column<BN>(&c->p, t, &column);
        int row = (int)(c->p.first_row[span] + column);
        if (t >= STAGES) cuda_barrier_wait(&c->k_empty[stage], phase);
        copy_rows<HD>(k + stage * TILE, &maps.k[span], row, &c->k_full[stage]);
        if (t >= STAGES) cuda_barrier_wait(&c->v_empty[stage], phase);
        copy_rows<HD>(v + stage * TILE, &maps.v[span], row, &c->v_full[stage]);
    }
}

template <int HD, bool is_bf16>
static __global__ void __launch_bounds__(THREADS, 1)
    attend(const tile_args a, const __grid_constant__ tile_maps maps) {
    cuda_begin();
    extern __shared__ __align__(1024) char memory[];
    char *k = memory, *v = memory + STAGES * BN * HD * 2;
    control *c = (control *)(memory + 2 * STAGES * BN * HD * 2);
    int64_t first = (int64_t)(gridDim.x - 1 - blockIdx.x) * BM, head = blockIdx.y;
    tile_make_plan<BN>(&c->p, a, first, head, (int)threadIdx.x, THREADS);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            cuda_barrier_init(&c->k_full[i], 1);
            cuda_barrier_init(&c->v_full[i], 1);
            cuda_barrier_init(&c->k_empty[i], CONSUMERS * GROUP / CUDA_WARP);
            cuda_barrier_init(&c->v_empty[i], CONSUMERS * GROUP / CUDA_WARP);
        }
        cuda_barriers_ready();
    }
    __syncthreads();
    if (threadIdx.x < GROUP) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0) produce<HD>(maps, c, k, v);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        consume<HD, is_bf16>(a, c, cuda_shared(k), cuda_shared(v), first, head);
    }
}

/* ---- launching ----------------------------------------------------------------------- */

/* The driver's function comes through the runtime, so that the program starts without a driver. */
static PFN_cuTensorMapEncodeTiled_v12000 find_encode() {
    void *found = NULL;
    cudaDriverEntryPointQueryResult result;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                         cudaEnableDefault, &result);
    bool good = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return good ? (PFN_cuTensorMapEncodeTiled_v12000)found : NULL;
}

/* All rows of all heads as one matrix. */
static bool make_map(PFN_cuTensorMapEncodeTiled_v12000 encode, CUtensorMap *out, void *data,
                     const cca_rows *rows) {
    cuuint64_t sizes[] = {(cuuint64_t)rows->head_dim, (cuuint64_t)(rows->heads * rows->capacity)};
    cuuint64_t strides[] = {(cuuint64_t)rows->head_dim * 2};
    cuuint32_t box[] = {PANEL, BN}, steps[] = {1, 1};
    CUtensorMapDataType type = rows->k_type == CCA_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                        : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    return encode(out, type, 2, data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                  CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* Maps of the spans of which the last query sees something; nobody asks for the others. */
static bool make_maps(tile_maps *out, const cca_spans *spans, int64_t last) {
    PFN_cuTensorMapEncodeTiled_v12000 encode = find_encode();
    for (int i = 0; encode && i < spans->n; i++) {
        const cca_rows *rows = &spans->at[i].rows;
        if (cca_edge_at(&spans->at[i].seen.end, last) == 0) continue;
        if (!make_map(encode, &out->k[i], rows->k, rows) ||
            !make_map(encode, &out->v[i], rows->v, rows)) {
            return false;
        }
    }
    return encode != NULL;
}

template <int HD, bool is_bf16>
static void launch(cuda_backend *b, const tile_args &a, const tile_maps &maps) {
    size_t shared = (size_t)(4 * BN * HD * 2) + sizeof(control);
    cuda_check(b,
               cudaFuncSetAttribute(attend<HD, is_bf16>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
               "attention");
    cuda_launch(b, "attention", attend<HD, is_bf16>,
                dim3(cuda_blocks(a.n, BM), (unsigned)a.n_heads), THREADS, shared, a, maps);
}

bool cuda_attend_sm90(cuda_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                      int64_t pos, int64_t n) {
    tile_maps maps = {};
    if (!b->forms.wgmma || !tile_suits(spans, pos, n)) return false;
    if (!cuda_check(b, cudaSetDevice(b->device), "attention")) return true;
    if (!make_maps(&maps, spans, pos + n - 1)) return false;
    int64_t hd = spans->at[0].rows.head_dim;
    bool is_bf16 = spans->at[0].rows.k_type == CCA_BF16;
    tile_args a = tile_make_args(b, out, spans, q, pos, n);
    if (hd == 64) {
        is_bf16 ? launch<64, true>(b, a, maps) : launch<64, false>(b, a, maps);
    } else {
        is_bf16 ? launch<128, true>(b, a, maps) : launch<128, false>(b, a, maps);
    }
    if (a.twin) cuda_set_twin(b, out, n);
    return true;
}
