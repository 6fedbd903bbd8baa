/* Pooling, and attention in its plain form: in fp32, any shape and any types, of all keys or of
 * those that recall has chosen. One warp a query and head; where there are few, a block. What is
 * faster for some shapes lies in files of its own; this is what they are compared with. */
#include "backend/cuda/types.cuh"

enum {
    THREADS = 128, /* of a block that pools */
    WARPS = THREADS / CUDA_WARP,
    MOST_PARTS = 8,   /* head_dim / 32 at most */
    FEW = 8,          /* queries that are split over keys */
    ATTEND_WARPS = 8, /* of a block that attends, each for a query and head; */
    SPLIT_WARPS = 16, /* for one of them together */
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
            core.sum[0][j] = largest ? cuda_larger(core.sum[0][j], k[j])
                                     : core.sum[0][j] * shrink + weight * k[j];
            core.sum[1][j] = largest ? cuda_larger(core.sum[1][j], v[j])
                                     : core.sum[1][j] * shrink + weight * v[j];
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
    cuda_launch(b, "pool", kernel, cuda_blocks(count * groups->cores.heads, WARPS), THREADS, 0,
                *groups, (const float *)q->data, pos, first, count);
}

/* ---- attention ----------------------------------------------------------------------- */

/* What a warp does of a query and head: each `step`-th key, counted over all that the query sees.
 * skip: how many keys others have before its next one. */
template <int PARTS> struct attending {
    running<PARTS, 1> sums;
    float query[PARTS], scale;
    int64_t head; /* of queries */
    int64_t skip, step;
};

/* Columns begin … end - 1 of some rows. */
template <int PARTS>
static __device__ void attend_range(attending<PARTS> &a, const cca_rows &rows, int64_t head,
                                    int64_t begin, int64_t end) {
    float k[PARTS], v[PARTS];
    int64_t i = begin + a.skip, row = cca_rows_at(&rows, i);
    for (; i < end; i += a.step, row += a.step) {
        if (row >= rows.capacity) row %= rows.capacity;
        int64_t start = row_start(rows, head, row);
        read_row<PARTS>(k, rows.k, rows.k_type, start, rows.head_dim);
        read_row<PARTS>(v, rows.v, rows.v_type, start, rows.head_dim);
        float shrink, weight = a.sums.add(dot<PARTS>(a.query, k) * a.scale, &shrink);
#pragma unroll
        for (int j = 0; j < PARTS; j++) {
            a.sums.sum[0][j] = a.sums.sum[0][j] * shrink + weight * v[j];
        }
    }
    a.skip = i - end;
}

/* What a call's row sees of a span. Its tile may have chosen groups that only later queries see. */
template <int PARTS>
static __device__ void attend_span(attending<PARTS> &a, const cca_spans &spans,
                                   const cca_span &span, int64_t n_heads, int64_t pos,
                                   int64_t row) {
    int64_t begin = cca_edge_at(&span.seen.begin, pos + row);
    int64_t end = cca_edge_at(&span.seen.end, pos + row), n_chosen = 0;
    if (begin >= end) return;
    int64_t head = a.head / (n_heads / span.rows.heads);
    const cca_choice &choice = spans.choice;
    const int32_t *chosen = NULL;
    if (span.pick != CCA_PICK_ALL) {
        chosen = cca_chosen(&choice, pos, row, a.head / (n_heads / choice.heads), &n_chosen);
    }
    bool is_chosen = span.pick == CCA_PICK_CHOSEN, more = true;
    int64_t g = is_chosen ? choice.group_size : 1;
    for (int64_t i = 0; more; i++) { /* chosen groups, or what lies before and between them */
        more = i < n_chosen && chosen[i] * g < end;
        int64_t next = more ? chosen[i] * g : end;
        int64_t from = is_chosen ? next : begin, to = is_chosen && more ? next + g : next;
        attend_range<PARTS>(a, span.rows, head, from, to);
        begin = next + 1;
    }
}

/* Joins what the warps of a block have; the first one has the whole then. */
template <int PARTS> static __device__ void join_warps(running<PARTS, 1> &r) {
    enum { WIDTH = PARTS * CUDA_WARP };
    __shared__ float sums[SPLIT_WARPS][WIDTH], largest[SPLIT_WARPS], total[SPLIT_WARPS];
    int lane = (int)(threadIdx.x % CUDA_WARP), warp = (int)(threadIdx.x / CUDA_WARP);
#pragma unroll
    for (int j = 0; j < PARTS; j++) sums[warp][j * CUDA_WARP + lane] = r.sum[0][j];
    if (lane == 0) {
        largest[warp] = r.largest;
        total[warp] = r.total;
    }
    __syncthreads();
    if (warp > 0) return;
    for (int i = 1; i < SPLIT_WARPS; i++) {
        if (total[i] == 0) continue; /* had no key; one whose keys are no numbers has NaN */
        float now = fmaxf(r.largest, largest[i]);
        float shrink = expf(r.largest - now), weight = expf(largest[i] - now);
        r.largest = now;
        r.total = r.total * shrink + total[i] * weight;
#pragma unroll
        for (int j = 0; j < PARTS; j++) {
            r.sum[0][j] = r.sum[0][j] * shrink + sums[i][j * CUDA_WARP + lane] * weight;
        }
    }
}

/* One warp a query and head, those that read the same keys side by side; or one block (split). */
template <int PARTS>
static __global__ void __launch_bounds__(SPLIT_WARPS *CUDA_WARP, 1)
    attend(float *out, const __grid_constant__ cca_spans spans, const float *q, int64_t n_heads,
           int64_t pos, int64_t n, bool split) {
    cuda_begin();
    int64_t at = split ? blockIdx.x : cuda_index() / CUDA_WARP;
    if (at >= n * n_heads) return;
    int warp = split ? (int)(threadIdx.x / CUDA_WARP) : 0;
    int64_t sharers = n_heads / spans.at[0].rows.heads, row = at / sharers % n;
    attending<PARTS> a;
    a.head = at / sharers / n * sharers + at % sharers;
    a.skip = warp;
    a.step = split ? SPLIT_WARPS : 1;
    int64_t hd = spans.at[0].rows.head_dim, start = (row * n_heads + a.head) * hd;
    a.scale = rsqrtf((float)hd);
    read_row<PARTS>(a.query, q, CCA_F32, start, hd);
    for (int s = 0; s < spans.n; s++) attend_span(a, spans, spans.at[s], n_heads, pos, row);
    if (split) join_warps(a.sums);
    if (warp > 0) return;
#pragma unroll
    for (int j = 0; j < PARTS; j++) {
        int64_t d = j * CUDA_WARP + threadIdx.x % CUDA_WARP;
        if (d < hd) out[start + d] = a.sums.sum[0][j] / a.sums.total;
    }
}

void cuda_attend_plain(cuda_backend *b, cca_matrix *out, const cca_spans *spans,
                       const cca_matrix *q, int64_t pos, int64_t n) {
    int64_t hd = spans->at[0].rows.head_dim, n_heads = q->cols / hd;
    bool split = n <= FEW;
    auto kernel = attend<1>;
    switch (parts_of(b, hd)) {
    case 0: return;
    case 2: kernel = attend<2>; break;
    case 4: kernel = attend<4>; break;
    case 8: kernel = attend<8>; break;
    }
    unsigned blocks = cuda_blocks(n * n_heads, split ? 1 : ATTEND_WARPS);
    cuda_launch(b, "attention", kernel, blocks, (split ? SPLIT_WARPS : ATTEND_WARPS) * CUDA_WARP, 0,
                (float *)out->data, *spans, (const float *)q->data, n_heads, pos, n, split);
}

/* Rows of queries that go over the same keys, at most: those that chose together, or all. */
static int64_t rows_together(const cca_spans *spans, int64_t n_heads, int64_t n) {
    for (int i = 0; i < spans->n; i++) {
        const cca_choice *c = &spans->choice;
        if (spans->at[i].pick != CCA_PICK_ALL) return n_heads / c->heads * cca_min(n, c->tile);
    }
    return n;
}

/* Whether rows that are seen go on at the start of a ring, as those of a draft may. */
static bool wraps(const cca_spans *spans, int64_t pos, int64_t n) {
    for (int i = 0; i < spans->n; i++) {
        const cca_span *span = &spans->at[i];
        cca_tile t = cca_range_tile(&span->seen, pos, pos + n - 1);
        if (t.end > t.begin && cca_rows_run(&span->rows, t.begin) < t.end - t.begin) return true;
    }
    return false;
}

/* Spans of groups that were not chosen, or those of anything else. */
static cca_spans spans_that(const cca_spans *spans, bool are_others) {
    cca_spans some = *spans;
    some.n = 0;
    for (int i = 0; i < spans->n; i++) {
        const cca_span *span = &spans->at[i];
        if ((span->pick == CCA_PICK_OTHERS) == are_others) some.at[some.n++] = *span;
    }
    return some;
}

/* On tensor cores, in two passes where groups that were not chosen are seen as cores; false where
 * nothing was done. */
static bool attend_in_tiles(cuda_backend *b, cca_matrix *out, const cca_spans *spans,
                            const cca_matrix *q, int64_t pos, int64_t n) {
    cca_spans first = spans_that(spans, false), others = spans_that(spans, true);
    int64_t n_heads = q->cols / spans->at[0].rows.head_dim;
    float *sums = NULL;
    if (others.n > 0) {
        if (!cuda_others_suit(&others, q, pos, n)) return false;
        sums = (float *)cuda_grow(b, &b->sums, (size_t)(n * n_heads) * sizeof *sums);
    }
    if (!cuda_attend_sm90(b, out, &first, q, pos, n, sums) &&
        !cuda_attend_mma(b, out, &first, q, pos, n, sums)) {
        return false;
    }
    if (others.n > 0) cuda_attend_others(b, out, &others, q, pos, n, sums);
    return true;
}

void cuda_attend(cca_backend *base, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                 int64_t pos, int64_t n) {
    cuda_backend *b = cuda_of(base);
    int64_t n_heads = q->cols / spans->at[0].rows.head_dim;
    bool few = n <= FEW || rows_together(spans, n_heads, n) <= FEW;
    bool in_tiles = !wraps(spans, pos, n);
    if ((few || !in_tiles) && cuda_attend_few(b, out, spans, q, pos, n)) return;
    if (in_tiles && attend_in_tiles(b, out, spans, q, pos, n)) return;
    cuda_attend_plain(b, out, spans, q, pos, n);
}
