/* Pooling, and attention in its plain form: one warp a query and head, in fp32, any shape and any
 * types. What is faster for some shapes lies in files of its own; this is what they are compared
 * with. */
#include "backend/cuda/types.cuh"

enum {
    THREADS = 128,
    WARPS = THREADS / CUDA_WARP,
    MOST_PARTS = 8, /* head_dim / 32 at most */
    FEW = 8,        /* queries that are split over keys */
};

/* A softmax-weighted sum as it grows: scores of any size, one after the other. Each lane has
 * values lane, lane + 32, … of the sums. */
template <int PARTS, int SUMS> struct running {
    float largest = -INFINITY, total = 0;
    float sum[SUMS][PARTS] = {};

    /* How what is summed so far has to shrink for a new score; the score's own weight. */
    __device__ __forceinline__ float add(float score, float *shrink) {
        float now = fmaxf(largest, score);
        *shrink = expf(largest - now);
        float weight = expf(score - now);
        total = total * *shrink + weight;
        largest = now;
        return weight;
    }
};

/* Where a row of a head starts, counted in values. */
static __device__ __forceinline__ int64_t row_start(const cca_rows &rows, int64_t head,
                                                    int64_t row) {
    return (head * rows.capacity + row) * rows.head_dim;
}

/* A lane's values of a row. */
template <int PARTS>
static __device__ __forceinline__ void read_row(float *out, const void *rows, cca_dtype type,
                                                int64_t start, int64_t hd) {
    int lane = (int)(threadIdx.x % CUDA_WARP);
#pragma unroll
    for (int j = 0; j < PARTS; j++) {
        int d = j * CUDA_WARP + lane;
        out[j] = d < hd ? cuda_row_value(rows, type, start + d) : 0;
    }
}

template <int PARTS> static __device__ __forceinline__ float dot(const float *a, const float *b) {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < PARTS; j++) sum += a[j] * b[j];
    return cuda_warp_sum(sum);
}

/* ---- pooling ------------------------------------------------------------------------- */

template <int PARTS>
static __device__ void put_core(const cca_rows &cores, int64_t start, float *const sums,
                                bool is_key) {
    void *rows = is_key ? cores.k : cores.v;
    cca_dtype type = is_key ? cores.k_type : cores.v_type;
#pragma unroll
    for (int j = 0; j < PARTS; j++) {
        int64_t left = cores.head_dim - j * CUDA_WARP;
        if (left > 0) {
            cuda_put(rows, type, start + j * CUDA_WARP, sums[j],
                     (int)(left < CUDA_WARP ? left : CUDA_WARP));
        }
    }
}

/* One warp a group and head. */
template <int PARTS>
static __global__ void pool(cca_groups groups, const float *q, int64_t pos, int64_t first,
                            int64_t count) {
    cuda_begin();
    const cca_rows &raw = groups.raw, &cores = groups.cores;
    int64_t warp = cuda_index() / CUDA_WARP, n_heads = cores.heads;
    if (warp >= count * n_heads) return;
    int64_t head = warp % n_heads, group = first + warp / n_heads;
    int64_t hd = cores.head_dim, g = groups.size, last = group * g + g - 1;
    int64_t kv_head = head / (n_heads / raw.heads);
    float query[PARTS], k[PARTS], v[PARTS], scale = rsqrtf((float)hd);
    running<PARTS, 2> core;
    read_row<PARTS>(query, q, CCA_F32, ((last - pos) * n_heads + head) * hd, hd);
    for (int64_t i = 0; i < g; i++) {
        int64_t start = row_start(raw, kv_head, cca_rows_at(&raw, group * g + i));
        read_row<PARTS>(k, raw.k, raw.k_type, start, hd);
        read_row<PARTS>(v, raw.v, raw.v_type, start, hd);
        float shrink, score = groups.pooling == CCA_POOL_QUERY ? dot<PARTS>(query, k) * scale : 0;
        float weight = core.add(score, &shrink);
#pragma unroll
        for (int j = 0; j < PARTS; j++) {
            bool largest = groups.pooling == CCA_POOL_MAX && i > 0;
            core.sum[0][j] =
                largest ? fmaxf(core.sum[0][j], k[j]) : core.sum[0][j] * shrink + weight * k[j];
            core.sum[1][j] =
                largest ? fmaxf(core.sum[1][j], v[j]) : core.sum[1][j] * shrink + weight * v[j];
        }
    }
    float share = groups.pooling == CCA_POOL_MAX ? 1 : 1 / core.total;
    int64_t to = row_start(cores, head, group);
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < PARTS; j++) core.sum[i][j] *= share;
        put_core<PARTS>(cores, to, core.sum[i], i == 0);
    }
}

/* Parts of a row that a lane holds, rounded up to a power of two; 0 where a row is too long. */
static int parts_of(cuda_backend *b, int64_t hd) {
    for (int parts = 1; parts <= MOST_PARTS; parts *= 2) {
        if (hd <= parts * CUDA_WARP) return parts;
    }
    cca_backend_fail(&b->base, CCA_RUNTIME, "cuda:%d: head_dim %lld is over %d, which is the most",
                     b->device, (long long)hd, MOST_PARTS * CUDA_WARP);
    return 0;
}

void cuda_pool(cca_backend *base, const cca_groups *groups, const cca_matrix *q, int64_t pos,
               int64_t n) {
    cuda_backend *b = cuda_of(base);
    int64_t first, count = cca_groups_completed(groups->size, pos, n, &first);
    if (cuda_pool_halves(b, groups, q, pos, first, count)) return;
    auto kernel = pool<1>;
    switch (parts_of(b, groups->cores.head_dim)) {
    case 0: return;
    case 2: kernel = pool<2>; break;
    case 4: kernel = pool<4>; break;
    case 8: kernel = pool<8>; break;
    }
    cuda_launch(b, "pool", kernel, cuda_blocks(count * groups->cores.heads, WARPS), THREADS, 0, *groups,
                (const float *)q->data, pos, first, count);
}

/* ---- attention ----------------------------------------------------------------------- */

/* Columns begin … end - 1 of some rows. */
template <int PARTS>
static __device__ void attend_range(running<PARTS, 1> &r, const cca_rows &rows, const float *query,
                                    float scale, int64_t head, int64_t begin, int64_t end) {
    float k[PARTS], v[PARTS];
    for (int64_t i = begin; i < end; i++) {
        int64_t start = row_start(rows, head, cca_rows_at(&rows, i));
        read_row<PARTS>(k, rows.k, rows.k_type, start, rows.head_dim);
        read_row<PARTS>(v, rows.v, rows.v_type, start, rows.head_dim);
        float shrink, weight = r.add(dot<PARTS>(query, k) * scale, &shrink);
#pragma unroll
        for (int j = 0; j < PARTS; j++) r.sum[0][j] = r.sum[0][j] * shrink + weight * v[j];
    }
}

template <int PARTS>
static __global__ void attend(float *out, cca_spans spans, const float *q, int64_t n_heads,
                              int64_t pos, int64_t n) {
    cuda_begin();
    int64_t warp = cuda_index() / CUDA_WARP;
    if (warp >= n * n_heads) return;
    int64_t head = warp % n_heads, i = pos + warp / n_heads, hd = spans.at[0].rows.head_dim;
    float query[PARTS], scale = rsqrtf((float)hd);
    running<PARTS, 1> r;
    read_row<PARTS>(query, q, CCA_F32, warp * hd, hd);
    for (int s = 0; s < spans.n; s++) {
        const cca_span &span = spans.at[s];
        int64_t begin = cca_edge_at(&span.seen.begin, i), end = cca_edge_at(&span.seen.end, i);
        if (begin >= end) continue;
        attend_range<PARTS>(r, span.rows, query, scale, head / (n_heads / span.rows.heads), begin,
                            end);
    }
#pragma unroll
    for (int j = 0; j < PARTS; j++) {
        int64_t d = j * CUDA_WARP + threadIdx.x % CUDA_WARP;
        if (d < hd) out[warp * hd + d] = r.sum[0][j] / r.total;
    }
}

void cuda_attend_plain(cuda_backend *b, cca_matrix *out, const cca_spans *spans,
                       const cca_matrix *q, int64_t pos, int64_t n) {
    int64_t hd = spans->at[0].rows.head_dim, n_heads = q->cols / hd;
    auto kernel = attend<1>;
    switch (parts_of(b, hd)) {
    case 0: return;
    case 2: kernel = attend<2>; break;
    case 4: kernel = attend<4>; break;
    case 8: kernel = attend<8>; break;
    }
    cuda_launch(b, "attention", kernel, cuda_blocks(n * n_heads, WARPS), THREADS, 0,
                (float *)out->data, *spans, (const float *)q->data, n_heads, pos, n);
}

void cuda_attend(cca_backend *base, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                 int64_t pos, int64_t n) {
    cuda_backend *b = cuda_of(base);
    if (n <= FEW && cuda_attend_few(b, out, spans, q, pos, n)) return;
    if (cuda_attend_sm90(b, out, spans, q, pos, n)) return;
    if (cuda_attend_mma(b, out, spans, q, pos, n)) return;
    cuda_attend_plain(b, out, spans, q, pos, n);
}
