/* Pooling (step 2 of the definition) for bf16 and f16 caches with head_dim 64 or 128: one warp a
 * group and head, several keys side by side, eight values a lane, so that a group's rows are under
 * way together. cca_cuda.cu has the plain form. */
#include "backend/cuda/types.cuh"

enum {
    THREADS = 128,
    WARPS = THREADS / CUDA_WARP,
    AHEAD = 4, /* keys a lane reads before it uses the first */
};

struct pool_args {
    cca_groups groups;
    const float *q;
    int64_t pos, first, count;
};

/* Sums of keys and values under a softmax; scores in units of log 2. */
struct core {
    float largest = -INFINITY, total = 0, k[8] = {}, v[8] = {};
};

static __device__ __forceinline__ void add(core &c, float shrink, float weight, const float *k,
                                           const float *v) {
#pragma unroll
    for (int d = 0; d < 8; d++) {
        c.k[d] = c.k[d] * shrink + weight * k[d];
        c.v[d] = c.v[d] * shrink + weight * v[d];
    }
    c.total = c.total * shrink;
}

/* Adds keys that lane group `begin` of GROUPS has of the g keys behind row. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void gather(core &c, const pool_args &a, const float *q,
                                              int64_t head_row, int64_t pos, int begin, int g) {
    enum { LANES = HD / 8, GROUPS = CUDA_WARP / LANES };
    const cca_rows &raw = a.groups.raw;
    int piece = (int)threadIdx.x % LANES;
    for (int i = 0; i < g; i += GROUPS * AHEAD) { /* the same rounds for all lanes */
        uint4 k[AHEAD], v[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            int key = i + u * GROUPS + begin;
            int64_t row = head_row + cca_rows_at(&raw, pos + (key < g ? key : 0));
            k[u] = ((const uint4 *)raw.k)[row * LANES + piece];
            v[u] = ((const uint4 *)raw.v)[row * LANES + piece];
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            float keys[8], values[8], score = 0;
            cuda_eight<is_bf16>(keys, k[u]);
            cuda_eight<is_bf16>(values, v[u]);
#pragma unroll
            for (int d = 0; d < 8; d++) score += q[d] * keys[d];
#pragma unroll
            for (int step = LANES / 2; step > 0; step /= 2) {
                score += __shfl_xor_sync(~0u, score, step);
            }
            if (i + u * GROUPS + begin >= g) continue;
            if (a.groups.pooling == CCA_POOL_MEAN) score = 0;
            float now = fmaxf(c.largest, score), weight = exp2f(score - now);
            add(c, exp2f(c.largest - now), weight, keys, values);
            c.total += weight;
            c.largest = now;
        }
    }
}

/* Joins the sums of a warp's lane groups. */
template <int HD> static __device__ __forceinline__ void join(core &c) {
#pragma unroll
    for (int step = HD / 8; step < CUDA_WARP; step *= 2) {
        float largest = __shfl_xor_sync(~0u, c.largest, step), now = fmaxf(c.largest, largest);
        float total = __shfl_xor_sync(~0u, c.total, step), k[8], v[8];
#pragma unroll
        for (int d = 0; d < 8; d++) {
            k[d] = __shfl_xor_sync(~0u, c.k[d], step);
            v[d] = __shfl_xor_sync(~0u, c.v[d], step);
        }
        if (now == -INFINITY && total == 0) continue; /* had no key; NaN: they are no numbers */
        float weight = exp2f(largest - now);
        add(c, exp2f(c.largest - now), weight, k, v);
        c.total += weight * total;
        c.largest = now;
    }
}

template <int HD, bool is_bf16>
static __global__ void __launch_bounds__(THREADS) pool(const __grid_constant__ pool_args a) {
    cuda_begin();
    enum { LANES = HD / 8 };
    const cca_rows &raw = a.groups.raw, &cores = a.groups.cores;
    int64_t warp = cuda_index() / CUDA_WARP, n_heads = cores.heads;
    if (warp >= a.count * n_heads) return;
    int64_t head = warp % n_heads, group = a.first + warp / n_heads, g = a.groups.size;
    int64_t kv_head = head / (n_heads / raw.heads), last = group * g + g - 1;
    int lane = (int)threadIdx.x % CUDA_WARP, piece = lane % LANES;
    const float *from = a.q + ((last - a.pos) * n_heads + head) * HD + piece * 8;
    float q[8], unit = cuda_score_unit<HD>();
#pragma unroll
    for (int d = 0; d < 8; d++) q[d] = from[d] * unit;
    core c;
    gather<HD, is_bf16>(c, a, q, kv_head * raw.capacity, group * g, lane / LANES, (int)g);
    join<HD>(c);
    if (lane >= LANES) return;
    int64_t to = (head * cores.capacity + group) * LANES + piece;
    float share = 1 / c.total;
#pragma unroll
    for (int d = 0; d < 8; d++) {
        c.k[d] *= share;
        c.v[d] *= share;
    }
    ((uint4 *)cores.k)[to] = cuda_round_eight<is_bf16>(c.k);
    ((uint4 *)cores.v)[to] = cuda_round_eight<is_bf16>(c.v);
}

bool cuda_pool_halves(cuda_backend *b, const cca_groups *groups, const cca_matrix *q, int64_t pos,
                      int64_t first, int64_t count) {
    const cca_rows *raw = &groups->raw, *cores = &groups->cores;
    cca_dtype type = raw->k_type;
    bool suits = cuda_is_half(type) && raw->v_type == type && cores->k_type == type &&
                 cores->v_type == type && groups->pooling != CCA_POOL_MAX &&
                 (cores->head_dim == 64 || cores->head_dim == 128);
    if (!b->forms.fused || !suits) return false;
    pool_args a = {*groups, (const float *)q->data, pos, first, count};
    void (*kernel)(pool_args) = cores->head_dim == 64
                                    ? (type == CCA_BF16 ? pool<64, true> : pool<64, false>)
                                    : (type == CCA_BF16 ? pool<128, true> : pool<128, false>);
    cuda_launch(b, "pool", kernel, cuda_blocks(count * cores->heads, WARPS), THREADS, 0, a);
    return true;
}
