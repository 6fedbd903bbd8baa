/* Attention of a few queries, as in decode: the keys of one query and head are split over several
 * blocks, whose parts the last of them to finish puts together in a fixed order, so that the same
 * call gives the same bits. */
#include "backend/cuda/attend_few.cuh"

enum {
    WARPS = 4,
    THREADS = WARPS * CUDA_WARP,
    AHEAD = 4,       /* keys a lane reads before it uses the first */
    LEAST_KEYS = 64, /* of a block */
    MOST_SPLITS = 64,
    BLOCKS_A_SM = 4, /* aimed at */
};

struct few_args {
    cca_spans spans;
    const float *q;
    float *out;
    float *partial;  /* [n][n_heads][splits][head_dim + 2]: sums, largest score, total */
    unsigned *count; /* [n][n_heads] finished parts; 0 again at the end */
    int64_t n_heads, pos;
    int splits; /* of the keys of a query and head */
};

/* Joins the parts of a block's lane groups; the first warp's first group has the whole then. */
template <int HD> static __device__ __forceinline__ void join_block(part &p) {
    enum { LANES = HD / 8, WIDTH = HD + 2 };
    __shared__ float shared[WARPS][WIDTH];
    int lane = (int)(threadIdx.x % CUDA_WARP), warp = (int)(threadIdx.x / CUDA_WARP);
    join_lanes<HD>(p);
    if (lane < LANES) {
#pragma unroll
        for (int d = 0; d < 8; d++) shared[warp][lane * 8 + d] = p.sum[d];
        shared[warp][HD] = p.largest;
        shared[warp][HD + 1] = p.total;
    }
    __syncthreads();
    if (threadIdx.x >= LANES) return;
    for (int w = 1; w < WARPS; w++) {
        join(p, shared[w][HD], shared[w][HD + 1], &shared[w][lane * 8]);
    }
}

/* True in the block that is the last of its query and head to come here. */
static __device__ bool is_last(unsigned *count) {
    __shared__ unsigned before;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) before = atomicAdd(count, 1);
    __syncthreads();
    __threadfence();
    return before == gridDim.x - 1;
}

/* What a query and head see of a span. A tile may have chosen groups that only later ones see. */
static __device__ __forceinline__ key_run find_run(const few_args &a, int i, int64_t head,
                                                   int64_t pos) {
    const cca_span &span = a.spans.at[i];
    const cca_choice &c = a.spans.choice;
    key_run r = run_of(span, a.n_heads, pos);
    if (span.pick == CCA_PICK_ALL || r.n == 0) return r;
    int64_t n, end = cca_edge_at(&span.seen.end, pos), at = head / (a.n_heads / c.heads);
    const int32_t *chosen = cca_chosen(&c, a.pos, pos - a.pos, at, &n);
    if (span.pick == CCA_PICK_CHOSEN) {
        list_run(&r, span, c, chosen, cca_chosen_before(chosen, n, c.group_size, end), 0);
    } else {
        int64_t begin = cca_edge_at(&span.seen.begin, pos);
        leave_out(&r, chosen, cca_chosen_before(chosen, n, 1, end), begin);
    }
    return r;
}

/* Grid: splits, heads, queries. */
template <int HD, bool is_bf16, bool MAY_LEAVE_OUT>
static __global__ void __launch_bounds__(THREADS) attend(const __grid_constant__ few_args a) {
    cuda_begin();
    enum { LANES = HD / 8, WIDTH = HD + 2, GROUPS = THREADS / LANES };
    __shared__ key_runs keys;
    int64_t head = blockIdx.y, pos = a.pos + blockIdx.z, row = blockIdx.z * a.n_heads + head;
    if ((int)threadIdx.x < a.spans.n)
        keys.at[threadIdx.x] = find_run(a, (int)threadIdx.x, head, pos);
    if (threadIdx.x == 0) keys.n = a.spans.n;
    __syncthreads();
    int splits = a.splits, n_keys = 0;
    for (int i = 0; i < a.spans.n; i++) n_keys += keys.at[i].n;
    int each = (n_keys + splits - 1) / splits;
    int begin = (int)blockIdx.x * each, end = begin + each < n_keys ? begin + each : n_keys;
    int group = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    float q[8], unit = cuda_score_unit<HD>();
#pragma unroll
    for (int d = 0; d < 8; d++) q[d] = a.q[row * HD + lane * 8 + d] * unit;
    part p;
    attend_keys<HD, is_bf16, AHEAD, MAY_LEAVE_OUT>(p, keys, (int)head, q, begin, end, group,
                                                   GROUPS);
    join_block<HD>(p);
    float *mine = a.partial + (row * splits + blockIdx.x) * WIDTH;
    if (threadIdx.x < LANES) {
#pragma unroll
        for (int d = 0; d < 8; d++) mine[lane * 8 + d] = p.sum[d];
        mine[HD] = p.largest;
        mine[HD + 1] = p.total;
    }
    if (!is_last(a.count + row)) return;
    if (threadIdx.x == 0) a.count[row] = 0;
    if (threadIdx.x >= LANES) return;
    part all;
    for (int i = 0; i < splits; i++) {
        const float *from = a.partial + (row * splits + i) * WIDTH;
        float sum[8];
#pragma unroll
        for (int d = 0; d < 8; d++) sum[d] = __ldcg(from + lane * 8 + d);
        join(all, __ldcg(from + HD), __ldcg(from + HD + 1), sum);
    }
#pragma unroll
    for (int d = 0; d < 8; d++) a.out[row * HD + lane * 8 + d] = all.sum[d] / all.total;
}

/* Blocks that share a query and head: enough to fill the GPU, each with some keys to do. */
static int64_t count_splits(const cuda_backend *b, int64_t n_keys, int64_t rows) {
    int64_t fill = b->n_sm * BLOCKS_A_SM / rows;
    int64_t most = (n_keys + LEAST_KEYS - 1) / LEAST_KEYS;
    return cca_max(1, cca_min(cca_min(fill, most), MOST_SPLITS));
}

/* Whether rows are all bf16 or all f16, of a width that suits, and those that groups are chosen
 * from do not wrap; groups of a power of two. *n_keys: what the last query sees at most. */
static bool suits(int64_t *n_keys, const cca_spans *spans, int64_t last) {
    const cca_rows *like = &spans->at[0].rows;
    bool fits = cuda_is_half(like->k_type) && (like->head_dim == 64 || like->head_dim == 128);
    *n_keys = 0;
    for (int i = 0; fits && i < spans->n; i++) {
        const cca_span *span = &spans->at[i];
        const cca_rows *rows = &span->rows;
        int64_t n = cca_range_count(&span->seen, last), end = cca_edge_at(&span->seen.end, last);
        if (span->pick == CCA_PICK_CHOSEN) {
            n = cca_min(n, spans->choice.most * spans->choice.group_size);
            int64_t g = spans->choice.group_size;
            fits = end - rows->base <= rows->capacity && (g & (g - 1)) == 0;
        }
        *n_keys += n;
        fits = fits && rows->capacity <= INT32_MAX / 2 && rows->k_type == like->k_type &&
               rows->v_type == like->k_type;
    }
    return fits && *n_keys <= INT32_MAX / 2;
}

using few_kernel = void (*)(few_args);

template <bool MAY_LEAVE_OUT> static few_kernel kernel_for(const cca_rows *like) {
    bool is_bf16 = like->k_type == CCA_BF16;
    if (like->head_dim == 64) {
        return is_bf16 ? attend<64, true, MAY_LEAVE_OUT> : attend<64, false, MAY_LEAVE_OUT>;
    }
    return is_bf16 ? attend<128, true, MAY_LEAVE_OUT> : attend<128, false, MAY_LEAVE_OUT>;
}

bool cuda_attend_few(cuda_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                     int64_t pos, int64_t n) {
    const cca_rows *like = &spans->at[0].rows;
    int64_t hd = like->head_dim, n_heads = q->cols / hd, n_keys;
    bool leaves_out = false;
    for (int i = 0; i < spans->n; i++) {
        leaves_out = leaves_out || spans->at[i].pick == CCA_PICK_OTHERS;
    }
    if (n > CUDA_MOST_BLOCKS || !suits(&n_keys, spans, pos + n - 1)) return false;
    if (n == 1 && !leaves_out && cuda_token_attend(b, out, spans, q, pos)) return true;
    int64_t splits = count_splits(b, n_keys, n * n_heads);
    size_t partial = (size_t)(n * n_heads * splits * (hd + 2)) * sizeof(float);
    few_args a = {*spans, (const float *)q->data, (float *)out->data, NULL, NULL, n_heads, pos, 0};
    a.splits = (int)splits;
    a.partial = (float *)cuda_grow(b, &b->partial, partial);
    a.count = (unsigned *)cuda_grow(b, &b->count, (size_t)(n * n_heads) * sizeof *a.count);
    few_kernel kernel = leaves_out ? kernel_for<true>(like) : kernel_for<false>(like);
    cuda_launch(b, "attention", kernel, dim3((unsigned)splits, (unsigned)n_heads, (unsigned)n),
                THREADS, 0, a);
    return true;
}
