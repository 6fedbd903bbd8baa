/* What the forms of attention on tensor cores share: what a block of queries walks over, and
 * the softmax on accumulator fragments.
 *
 *     __shared__ tile_plan<128> plan;
 *     tile_make_plan<64>(&plan, args, tile_rows_of(args, block, head, 128), threadIdx.x,
 * blockDim.x);
 *     __syncthreads();
 *     for (int t = 0; t < plan.n_all; t++) ...
 *
 * Running softmax: Milakov and Gimelshein, arXiv:1805.02867. Accumulators of a 16 × 8 product lie
 * as mma and wgmma leave them: a lane has columns lane % 4 * 2 and the next, of rows lane / 4
 * (side 0) and lane / 4 + 8 (side 1). */
#ifndef CCA_CUDA_ATTEND_TILE_CUH
#define CCA_CUDA_ATTEND_TILE_CUH

#include "backend/cuda/types.cuh"

struct tile_args {
    cca_spans spans;
    const float *q;
    float *out;
    __nv_bfloat16 *twin; /* of out, or NULL */
    float *sums;         /* [n][n_heads] log2 of what softmaxes were divided by, scores in units of
                            log 2, where others go on from it; or NULL */
    int64_t n_heads, pos, n;
    bool shares; /* a block takes a tile of queries and a head of keys that have chosen together,
                    with all heads that read these keys */
};

/* A block's rows: row r is query first + r % n of head head + r / n. Rows behind the last are the
 * last one again. */
struct tile_rows {
    int64_t first, head;
    int n, n_rows;
};

/* Those of a block: the block-th BM queries of a head, or a tile's rows. */
static __device__ __forceinline__ tile_rows tile_rows_of(const tile_args &a, int64_t block,
                                                         int64_t head, int BM) {
    tile_rows r;
    if (a.shares) {
        int sharers = (int)(a.n_heads / a.spans.choice.heads);
        int64_t n;
        r.first = cca_choice_row(&n, &a.spans.choice, a.pos, a.n, block);
        r.head = head * sharers;
        r.n = (int)n;
        r.n_rows = r.n * sharers;
    } else {
        r.first = block * BM;
        r.head = head;
        r.n_rows = r.n = (int)(r.first + BM < a.n ? BM : a.n - r.first);
    }
    return r;
}

/* Where a row's values begin in queries and outputs. */
static __device__ __forceinline__ int64_t tile_row_at(const tile_args &a, const tile_rows &r,
                                                      int row, int head_dim) {
    int i = row < r.n_rows ? row : r.n_rows - 1, head = i / r.n;
    return ((r.first + i - head * r.n) * a.n_heads + r.head + head) * head_dim;
}

/* What a block of BM rows walks over, in shared memory, since its registers are all taken: the
 * tiles of one span behind those of the other. A span's columns count from the first that the block
 * sees; those of chosen groups lie one behind the other. Tiles within [free_begin, free_end) need
 * no mask. */
template <int BM> struct tile_plan {
    tile_rows rows;
    int n_tiles[CCA_MOST_SPANS], n_columns[CCA_MOST_SPANS]; /* 0 behind the last span */
    int free_begin[CCA_MOST_SPANS], free_end[CCA_MOST_SPANS];
    int64_t first_row[CCA_MOST_SPANS];                      /* of all rows of all heads */
    int begin[CCA_MOST_SPANS][BM], end[CCA_MOST_SPANS][BM]; /* what each query sees */
    int n_all;                                              /* tiles */
    const int32_t *chosen; /* groups, of `group` tokens, of the span that is `listed`; or -1 */
    int listed, group;
};

/* For tiles of BN keys. The first n_threads threads work together; the caller synchronises. */
template <int BN, int BM>
static __device__ void tile_make_plan(tile_plan<BM> *p, const tile_args &a, const tile_rows &r,
                                      int thread, int n_threads) {
    int64_t from = a.pos + r.first, last = from + r.n - 1;
    int n_all = 0, listed = -1, group = 1;
    for (int s = 0; s < CCA_MOST_SPANS; s++) {
        const cca_span &span = a.spans.at[s];
        bool there = s < a.spans.n, is_list = there && span.pick == CCA_PICK_CHOSEN;
        int64_t head = there ? r.head / (a.n_heads / span.rows.heads) : 0, n_chosen = 0;
        const int32_t *chosen = NULL;
        cca_tile t = {};
        if (is_list) {
            listed = s;
            group = (int)a.spans.choice.group_size;
            chosen = cca_chosen(&a.spans.choice, a.pos, r.first, head, &n_chosen);
            t.end = n_chosen * group;
            t.free_end =
                cca_chosen_before(chosen, n_chosen, group, cca_edge_at(&span.seen.end, from)) *
                group;
        } else if (there) {
            t = cca_range_tile(&span.seen, from, last);
        }
        for (int i = thread; there && i < BM; i += n_threads) {
            int64_t pos = from + (i < r.n_rows ? i : r.n_rows - 1) % r.n;
            int64_t begin = cca_edge_at(&span.seen.begin, pos) - t.begin;
            int64_t end = cca_edge_at(&span.seen.end, pos) - t.begin;
            if (is_list) begin = 0;
            if (is_list) end = cca_chosen_before(chosen, n_chosen, group, end) * group;
            p->begin[s][i] = (int)begin;
            p->end[s][i] = (int)end;
        }
        if (thread != 0) continue;
        p->n_columns[s] = (int)(t.end - t.begin);
        p->n_tiles[s] = (p->n_columns[s] + BN - 1) / BN;
        p->free_begin[s] = (int)(t.free_begin - t.begin);
        p->free_end[s] = (int)(t.free_end - t.begin);
        n_all += p->n_tiles[s];
        if (p->n_tiles[s] == 0) continue;
        int64_t row = is_list ? -span.rows.base : cca_rows_at(&span.rows, t.begin);
        p->first_row[s] = head * span.rows.capacity + row;
        if (is_list) p->chosen = chosen;
    }
    if (thread != 0) return;
    p->rows = r;
    p->n_all = n_all;
    p->listed = listed;
    p->group = group;
}

/* The span of tile t, and the tile's first column. */
template <int BN, int BM>
static __device__ __forceinline__ int tile_column(const tile_plan<BM> *p, int t, int *column) {
    int span = 0;
#pragma unroll
    for (int i = 0; i < CCA_MOST_SPANS - 1; i++) {
        if (span < i || t < p->n_tiles[i]) continue;
        t -= p->n_tiles[i];
        span++;
    }
    *column = t * BN;
    return span;
}

/* The row, among all rows of all heads, of a column of a span. */
template <int BM>
static __device__ __forceinline__ int64_t tile_row_of(const tile_plan<BM> *p, int span,
                                                      int column) {
    int g = p->group;
    if (span == p->listed) column = p->chosen[column / g] * g + column % g;
    return p->first_row[span] + column;
}

template <int BN, int BM>
static __device__ __forceinline__ bool tile_masked(const tile_plan<BM> *p, int span, int column) {
    return column < p->free_begin[span] || column + BN > p->free_end[span];
}

/* Removes what the query of a row does not see of N_TILES · 8 columns from column on. */
template <int N_TILES, int BM>
static __device__ __forceinline__ void
tile_mask(float s[N_TILES][4], int side, const tile_plan<BM> *p, int row, int span, int column) {
    int begin = p->begin[span][row], end = p->end[span][row];
    column += (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int c = column + n * 8 + i;
            if (c < begin || c >= end) s[n][side * 2 + i] = -INFINITY;
        }
    }
}

static __device__ __forceinline__ float tile_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Turns a row's scores into weights. total is a lane's own; the result is what was summed before
 * has to be multiplied with. unit: cuda_score_unit. */
template <int N_TILES>
static __device__ __forceinline__ float tile_weigh(float s[N_TILES][4], int side, float unit,
                                                   float *largest, float *total) {
    float now = *largest;
#pragma unroll
    for (int n = 0; n < N_TILES; n++) now = fmaxf(now, fmaxf(s[n][side * 2], s[n][side * 2 + 1]));
    now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
    now = fmaxf(now, __shfl_xor_sync(~0u, now, 2));
    /* A row that has seen no key yet keeps weights of 0, not of exp(-inf + inf). */
    float base = now == -INFINITY ? 0 : now * unit;
    float shrink = tile_exp2(*largest * unit - base), sum = 0;
    *largest = now;
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
#pragma unroll
        for (int i = side * 2; i < side * 2 + 2; i++) {
            s[n][i] = tile_exp2(s[n][i] * unit - base);
            sum += s[n][i];
        }
    }
    *total = *total * shrink + sum;
    return shrink;
}

/* The sum of a value over the four lanes that share a row. */
static __device__ __forceinline__ float tile_row_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* Two n-tiles of weights as the left operand of a product over 16 keys. */
template <bool is_bf16>
static __device__ __forceinline__ void tile_operand(uint32_t a[4], const float low[4],
                                                    const float high[4]) {
    a[0] = cuda_round_two<is_bf16>(low[0], low[1]);
    a[1] = cuda_round_two<is_bf16>(low[2], low[3]);
    a[2] = cuda_round_two<is_bf16>(high[0], high[1]);
    a[3] = cuda_round_two<is_bf16>(high[2], high[3]);
}

/* Writes a row's part of the output, where at begins: columns lane % 4 * 2 and the next of each
 * eight. */
template <int HD>
static __device__ __forceinline__ void tile_write(const tile_args &a, int64_t at,
                                                  const float out[HD / 8][4], int side,
                                                  float largest, float total) {
    if (a.sums && threadIdx.x % 4 == 0) {
        a.sums[at / HD] = largest * cuda_score_unit<HD>() + log2f(total);
    }
    at += threadIdx.x % 4 * 2;
#pragma unroll
    for (int d = 0; d < HD / 8; d++) {
        float2 v = make_float2(out[d][side * 2] / total, out[d][side * 2 + 1] / total);
        *(float2 *)(a.out + at + d * 8) = v;
        if (a.twin) *(__nv_bfloat162 *)(a.twin + at + d * 8) = __floats2bfloat162_rn(v.x, v.y);
    }
}

/* Whether some span is of chosen groups: blocks take the tiles of queries that chose together. */
static inline bool tile_shares(const cca_spans *spans) {
    bool shares = false;
    for (int i = 0; i < spans->n; i++) shares = shares || spans->at[i].pick == CCA_PICK_CHOSEN;
    return shares;
}

/* Arguments of a call; the twin stays NULL where nobody wants it. */
static inline tile_args tile_make_args(cuda_backend *b, cca_matrix *out, const cca_spans *spans,
                                       const cca_matrix *q, int64_t pos, int64_t n) {
    int64_t n_heads = q->cols / spans->at[0].rows.head_dim;
    return tile_args{*spans,
                     (const float *)q->data,
                     (float *)out->data,
                     cuda_twin(b, out, n),
                     NULL,
                     n_heads,
                     pos,
                     n,
                     tile_shares(spans)};
}

/* Blocks of BM rows: along x queries, along y heads. */
static inline dim3 tile_grid(const tile_args &a, int BM) {
    const cca_choice &c = a.spans.choice;
    if (!a.shares) return dim3(cuda_blocks(a.n, BM), (unsigned)a.n_heads);
    return dim3((unsigned)cca_choice_tiles(&c, a.pos, a.n), (unsigned)c.heads);
}

/* Whether rows are bf16 or f16, all of one type, of a width that suits, what the queries see of
 * each span lies in one piece, and blocks of BM rows can have the queries that chose together. */
static inline bool tile_suits(const cca_spans *spans, const cca_matrix *q, int64_t pos, int64_t n,
                              int64_t BM) {
    const cca_rows *like = &spans->at[0].rows;
    bool shares = tile_shares(spans), suits = like->head_dim == 64 || like->head_dim == 128;
    if (shares) {
        int64_t n_rows = q->cols / like->head_dim / spans->choice.heads * spans->choice.tile;
        suits = suits && n_rows <= BM;
    }
    for (int i = 0; suits && i < spans->n; i++) {
        const cca_span *span = &spans->at[i];
        const cca_rows *rows = &span->rows;
        cca_tile t = cca_range_tile(&span->seen, pos, pos + n - 1);
        suits = rows->k_type == like->k_type && rows->v_type == like->k_type &&
                cuda_is_half(like->k_type) && (!shares || rows->heads == spans->choice.heads) &&
                (t.end <= t.begin || cca_rows_run(rows, t.begin) >= t.end - t.begin);
    }
    return suits;
}

#endif
