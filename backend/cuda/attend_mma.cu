/* Attention of many queries on tensor cores (mma.sync m16n8k16, sm_80 and newer), for bf16 and f16
 * caches with head_dim 64 or 128. A block takes BM queries of one head, or the rows that chose
 * together, each of its four warps 32 of them. */
#include "backend/cuda/attend_mma.cuh"

enum {
    M_TILES = 2, /* of a warp */
    BM = mma_rows<M_TILES>,
};

template <int HD, bool is_bf16>
static __global__ void __launch_bounds__(MMA_THREADS, 2) attend(const tile_args a) {
    cuda_begin();
    extern __shared__ __align__(1024) char memory[];
    __shared__ tile_plan<BM> p;
    /* The last queries have most cores: they begin first. */
    tile_rows rows = tile_rows_of(a, gridDim.x - 1 - blockIdx.x, blockIdx.y, BM);
    tile_make_plan<MMA_BN>(&p, a, rows, (int)threadIdx.x, MMA_THREADS);
    __syncthreads();
    mma_begin<HD, is_bf16, M_TILES>(memory, a, &p);
    mma_walk<HD, M_TILES> w;
    auto nothing = [](float(*)[MMA_N_TILES][4], int) {};
    for (int t = 0, n_tiles = p.n_all; t < n_tiles; t++) {
        mma_step<HD, is_bf16>(w, memory, a, &p, t, nothing);
    }
    mma_write(w, a, rows);
}

template <int HD, bool is_bf16> static void launch(cuda_backend *b, const tile_args &a) {
    mma_launch(b, attend<HD, is_bf16>, tile_grid(a, BM), mma_bytes<HD, M_TILES>, a);
}

bool cuda_attend_mma(cuda_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                     int64_t pos, int64_t n, float *sums) {
    if (!tile_suits(spans, q, pos, n, BM)) return false;
    int64_t hd = spans->at[0].rows.head_dim;
    bool is_bf16 = spans->at[0].rows.k_type == CCA_BF16;
    tile_args a = tile_make_args(b, out, spans, q, pos, n);
    a.sums = sums;
    if (hd == 64) {
        is_bf16 ? launch<64, true>(b, a) : launch<64, false>(b, a);
    } else {
        is_bf16 ? launch<128, true>(b, a) : launch<128, false>(b, a);
    }
    if (a.twin) cuda_set_twin(b, out, n);
    return true;
}
