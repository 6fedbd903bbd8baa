/* Products of one row of x on Hopper, as in decode, at the rate of the memory: weights flow through
 * shared memory, where the copy engine puts them, several pieces of a row ahead of the warp that
 * uses them. One block a multiprocessor, with room for the next kernel's: that one's first copies
 * run while this one ends, so that the memory is never idle between two products.
 *
 * Before its first row a block makes what all rows need: x, perhaps normalised, in shared memory;
 * for quantised weights in 8 bits with a scale for each 32 values, the same integers as on the CPU.
 */
#include "cuda_copy.cuh"

enum {
    MOST = 3, /* products in a launch */
    WARPS = 8,
    THREADS = WARPS * CUDA_WARP,
    MOST_STAGES = 8, /* pieces of a row that a warp has under way */
    LEAST_STAGES = 2,
    KEPT = 8,               /* pieces of four values that a thread keeps of a row of x */
    PIECE = 2048,           /* bytes of values in a stage */
    MOST_SCALE = 256,       /* bytes of scales that go with them */
    SHARED = 227 << 10,     /* of a multiprocessor, and the most of a block */
    FIXED_SHARED = 2 << 10, /* barriers and sums, and what the system keeps */
};

struct stream_product {
    cuda_weights w;
    const float *bias;
    float *out;
    bool accumulate;
};

struct stream_args {
    stream_product products[MOST];
    int n_products;
    bool gated;        /* two products, and out of the first is silu(first) * second */
    int cols, n_units; /* rows of all products; pairs of rows where gated */
    int stages;
    const float *x, *norm; /* norm: weights of the norm, or NULL */
    float eps;
};

/* x in shared memory. 16-bit weights: f32, the first and the last four of each eight values apart,
 * so that a lane's reads meet no bank conflicts. 4-bit weights: the halves of each block apart. */
struct x_form {
    float *low, *high;      /* f32 weights: low alone */
    int8_t *q_low, *q_high; /* 8-bit weights: q_low alone */
    float2 *scale;          /* of a block: its scale, and that times -8 times the sum of its q */
};

/* ---- shared memory ------------------------------------------------------------------- */

/* Bytes of scales that go with a piece. */
template <cca_dtype type> static __host__ __device__ constexpr int scale_bytes() {
    return type == CCA_Q8_0 ? PIECE / CCA_QUANT_BLOCK * 2 : type == CCA_Q4_0 ? MOST_SCALE : 0;
}

template <cca_dtype type> static __host__ __device__ constexpr bool is_quantised() {
    return type == CCA_Q8_0 || type == CCA_Q4_0;
}

/* Bytes of x in its form. */
template <cca_dtype type> static __host__ __device__ constexpr int x_bytes(int cols) {
    return is_quantised<type>() ? cols + cols / CCA_QUANT_BLOCK * (int)sizeof(float2) : cols * 4;
}

template <cca_dtype type> static __host__ __device__ constexpr int stage_bytes() {
    return PIECE + scale_bytes<type>();
}

template <cca_dtype type> static __device__ __forceinline__ x_form place_x(char *at, int cols) {
    x_form x = {};
    if (is_quantised<type>()) {
        x.scale = (float2 *)at;
        x.q_low = (int8_t *)(x.scale + cols / CCA_QUANT_BLOCK);
        x.q_high = x.q_low + cols / 2;
    } else {
        x.low = (float *)at;
        x.high = x.low + cols / 2;
    }
    return x;
}

/* ---- a warp's rows ------------------------------------------------------------------- */

/* Item i of a warp: a row of one of the products. */
struct stream_row {
    int product, row;
};

static __device__ __forceinline__ stream_row find_row(const stream_args &a, int item) {
    int warp = (int)(blockIdx.x * WARPS + threadIdx.x / CUDA_WARP);
    int step = (int)gridDim.x * WARPS;
    if (a.gated) return stream_row{item % 2, warp + item / 2 * step};
    stream_row r = {0, warp + item * step};
    while (r.row >= (int)a.products[r.product].w.rows) {
        r.row -= (int)a.products[r.product].w.rows;
        r.product++;
    }
    return r;
}

static __device__ __forceinline__ int count_items(const stream_args &a) {
    int warp = (int)(blockIdx.x * WARPS + threadIdx.x / CUDA_WARP);
    int step = (int)gridDim.x * WARPS;
    int units = warp < a.n_units ? (a.n_units - warp - 1) / step + 1 : 0;
    return a.gated ? 2 * units : units;
}

/* Bytes of a row's values. */
template <cca_dtype type> static __host__ __device__ constexpr int64_t row_bytes(int64_t cols) {
    return type == CCA_F32    ? cols * 4
           : type == CCA_Q8_0 ? cols
           : type == CCA_Q4_0 ? cols / 2
                              : cols * 2;
}

/* Where a warp is in its list of pieces, and the stage that the piece is in. */
struct place {
    int item, piece, stage, phase;
};

static __device__ __forceinline__ void advance(place *p, int n_pieces, int n_stages) {
    if (++p->piece == n_pieces) {
        p->piece = 0;
        p->item++;
    }
    if (++p->stage == n_stages) {
        p->stage = 0;
        p->phase ^= 1;
    }
}

/* Starts the copy of a piece. */
template <cca_dtype type>
static __device__ __forceinline__ void fetch(const stream_args &a, const place &p, char *stages,
                                             uint64_t *full) {
    stream_row r = find_row(a, p.item);
    const cuda_weights &w = a.products[r.product].w;
    int64_t width = row_bytes<type>(a.cols);
    int at = p.piece * PIECE, left = (int)width - at, bytes = left < PIECE ? left : PIECE;
    int scales = bytes * scale_bytes<type>() / PIECE;
    char *to = stages + p.stage * stage_bytes<type>();
    cuda_barrier_expect(full + p.stage, bytes + scales);
    cuda_bulk_copy(to, (const char *)w.q + r.row * width + at, bytes, full + p.stage);
    if (is_quantised<type>()) {
        const char *from = (const char *)w.scale + (int64_t)r.row * (a.cols / CCA_QUANT_BLOCK) * 2;
        cuda_bulk_copy(to + PIECE, from + p.piece * scale_bytes<type>(), scales, full + p.stage);
    }
}

/* ---- sums ---------------------------------------------------------------------------- */

static __device__ __forceinline__ float dot4(float4 a, float4 b, float sum) {
    return sum + (a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w);
}

/* Four bf16 or f16 values as floats. */
template <bool is_bf16> static __device__ __forceinline__ float4 four(uint32_t a, uint32_t b) {
    float2 p = cuda_two<is_bf16>(a), q = cuda_two<is_bf16>(b);
    return make_float4(p.x, p.y, q.x, q.y);
}

/* A lane's 16 bytes of weights, the at-th of the row, times x. scale: of the piece; k: which 16
 * bytes of it. */
template <cca_dtype type>
static __device__ __forceinline__ float dot16(uint4 w, const __half *scale, const x_form &x, int at,
                                              int k, float sum) {
    if (type == CCA_F32) {
        float4 v = make_float4(__uint_as_float(w.x), __uint_as_float(w.y), __uint_as_float(w.z),
                               __uint_as_float(w.w));
        return dot4(v, ((const float4 *)x.low)[at], sum);
    }
    if (type == CCA_BF16 || type == CCA_F16) {
        const bool is_bf16 = type == CCA_BF16;
        sum = dot4(four<is_bf16>(w.x, w.y), ((const float4 *)x.low)[at], sum);
        return dot4(four<is_bf16>(w.z, w.w), ((const float4 *)x.high)[at], sum);
    }
    if (type == CCA_Q8_0) {
        int dot = cuda_dot_bytes(w, ((const uint4 *)x.q_low)[at], 0);
        return sum + __half2float(scale[k / 2]) * x.scale[at / 2].x * (float)dot;
    }
    int dot = cuda_dot_bytes(cuda_low_nibbles(w), ((const uint4 *)x.q_low)[at], 0);
    dot = cuda_dot_bytes(cuda_high_nibbles(w), ((const uint4 *)x.q_high)[at], dot);
    float2 d = x.scale[at];
    return sum + __half2float(scale[k]) * (d.x * (float)dot + d.y);
}

template <cca_dtype type>
static __device__ __forceinline__ float dot_piece(const char *stage, const x_form &x, int piece,
                                                  int n16, float sum) {
    const __half *scale = (const __half *)(stage + PIECE);
    int lane = (int)(threadIdx.x % CUDA_WARP);
#pragma unroll
    for (int k = 0; k < PIECE / 16; k += CUDA_WARP) {
        if (k + lane < n16) {
            uint4 w = ((const uint4 *)stage)[k + lane];
            sum = dot16<type>(w, scale, x, piece * (PIECE / 16) + k + lane, k + lane, sum);
        }
    }
    return sum;
}

/* ---- x ------------------------------------------------------------------------------- */

/* Rows of x in rounds of this many pieces; those of a norm have one round. */
enum { ROUND = KEPT * THREADS };

static __device__ __forceinline__ void read_pieces(float4 v[KEPT], const float *from, int first,
                                                   int n) {
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = first + k * THREADS + (int)threadIdx.x;
        v[k] = from && i < n ? ((const float4 *)from)[i] : make_float4(0, 0, 0, 0);
    }
}

/* v times its norm's weights w, over the root mean square of all threads' v. */
static __device__ __forceinline__ void normalise(float4 v[KEPT], const float4 w[KEPT],
                                                 const stream_args &a) {
    __shared__ float sums[WARPS];
    float sum = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) sum = dot4(v[k], v[k], sum);
    sum = cuda_warp_sum(sum);
    if (threadIdx.x % CUDA_WARP == 0) sums[threadIdx.x / CUDA_WARP] = sum;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += sums[i];
    float scale = 1 / sqrtf(sum / (float)a.cols + a.eps);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        v[k] = make_float4(v[k].x * scale * w[k].x, v[k].y * scale * w[k].y,
                           v[k].z * scale * w[k].z, v[k].w * scale * w[k].w);
    }
}

/* Four values, i being their place counted in fours; eight lanes have a block of 32. */
template <cca_dtype type>
static __device__ __forceinline__ void put_x(const x_form &x, int i, float4 v) {
    if (type == CCA_F32) {
        ((float4 *)x.low)[i] = v;
    } else if (!is_quantised<type>()) {
        ((float4 *)(i % 2 ? x.high : x.low))[i / 2] = v;
    } else {
        float largest = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
#pragma unroll
        for (int step = 4; step > 0; step /= 2) {
            largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
        }
        float by = largest > 0 ? 127 / largest : 0, d = largest / 127;
        char4 q = make_char4(
            (signed char)__float2int_rn(v.x * by), (signed char)__float2int_rn(v.y * by),
            (signed char)__float2int_rn(v.z * by), (signed char)__float2int_rn(v.w * by));
        int sum = q.x + q.y + q.z + q.w;
#pragma unroll
        for (int step = 4; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        int block = i / 8, part = i % 8;
        if (type == CCA_Q8_0) {
            ((char4 *)x.q_low)[i] = q;
        } else {
            ((char4 *)(part < 4 ? x.q_low : x.q_high))[block * 4 + part % 4] = q;
        }
        if (part == 0) x.scale[block] = make_float2(d, -8 * d * (float)sum);
    }
}

/* weights: of the norm, read before. */
template <cca_dtype type>
static __device__ __forceinline__ void make_x(const x_form &x, const stream_args &a,
                                              const float4 weights[KEPT]) {
    int n = a.cols / 4;
    for (int first = 0; first < n; first += ROUND) {
        float4 v[KEPT];
        read_pieces(v, a.x, first, n);
        if (a.norm) normalise(v, weights, a);
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            int i = first + k * THREADS + (int)threadIdx.x;
            if (i < n) put_x<type>(x, i, v[k]); /* whole warps, where values are quantised */
        }
    }
    __syncthreads();
}

/* ---- the kernel ---------------------------------------------------------------------- */

/* What a row's sum is added to. */
static __device__ __forceinline__ float start_of(const stream_product &p, int row) {
    return (p.bias ? p.bias[row] : 0) + (p.accumulate ? p.out[row] : 0);
}

/* One row of weights times x, as the copies of its pieces come; starts copies ahead. */
template <cca_dtype type>
static __device__ __forceinline__ float multiply_row(const stream_args &a, const x_form &x,
                                                     char *stages, uint64_t *full, place *here,
                                                     place *next, int n_items) {
    int width = (int)row_bytes<type>(a.cols), n_pieces = (width + PIECE - 1) / PIECE;
    float sum = 0;
    for (int piece = 0; piece < n_pieces; piece++) {
        int left = width - piece * PIECE;
        cuda_barrier_wait(full + here->stage, here->phase);
        sum = dot_piece<type>(stages + here->stage * stage_bytes<type>(), x, piece,
                              (left < PIECE ? left : PIECE) / 16, sum);
        __syncwarp();
        if (threadIdx.x % CUDA_WARP == 0 && next->item < n_items) {
            fetch<type>(a, *next, stages, full);
            advance(next, n_pieces, a.stages);
        }
        advance(here, n_pieces, a.stages);
    }
    return cuda_warp_sum(sum);
}

template <cca_dtype type>
static __global__ void __launch_bounds__(THREADS) stream(const __grid_constant__ stream_args a) {
    extern __shared__ __align__(128) char memory[];
    __shared__ uint64_t barriers[WARPS][MOST_STAGES];
    int warp = (int)(threadIdx.x / CUDA_WARP), lane = (int)(threadIdx.x % CUDA_WARP);
    char *stages = memory + warp * a.stages * stage_bytes<type>();
    uint64_t *full = barriers[warp];
    x_form x = place_x<type>(memory + WARPS * a.stages * stage_bytes<type>(), a.cols);
    int n_items = count_items(a);
    int n_pieces = ((int)row_bytes<type>(a.cols) + PIECE - 1) / PIECE;
    place next = {0, 0, 0, 0}, here = {0, 0, 0, 0};
    if (lane == 0) {
        for (int i = 0; i < a.stages; i++) cuda_barrier_init(full + i, 1);
        cuda_barriers_ready();
        for (int i = 0; i < a.stages && next.item < n_items; i++) {
            fetch<type>(a, next, stages, full);
            advance(&next, n_pieces, a.stages);
        }
    }
    float4 weights[KEPT];
    read_pieces(weights, a.norm, 0, a.cols / 4);
    cuda_begin();
    make_x<type>(x, a, weights);
    float gate = 0;
    for (int item = 0; item < n_items; item++) {
        stream_row r = find_row(a, item);
        const stream_product &p = a.products[r.product];
        float start = lane == 0 && !a.gated ? start_of(p, r.row) : 0;
        float sum = multiply_row<type>(a, x, stages, full, &here, &next, n_items);
        if (a.gated && r.product == 0) {
            gate = sum;
        } else if (lane == 0) {
            if (a.gated) {
                a.products[0].out[r.row] = cuda_gated(gate, sum);
            } else {
                p.out[r.row] = start + sum;
            }
        }
    }
}

/* ---- launching ----------------------------------------------------------------------- */

template <cca_dtype type> static void allow(cuda_backend *b) {
    cuda_check(b,
               cudaFuncSetAttribute(stream<type>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    SHARED - FIXED_SHARED),
               "product");
}

void cuda_stream_prepare(cuda_backend *b) {
    if (!b->forms.stream) return;
    allow<CCA_F32>(b);
    allow<CCA_F16>(b);
    allow<CCA_BF16>(b);
    allow<CCA_Q8_0>(b);
    allow<CCA_Q4_0>(b);
}

/* How many stages a warp gets, and a block's shared memory; false where rows of a type do not suit:
 * they come in aligned pieces. A block takes more than half of a multiprocessor's shared memory, so
 * that no two share one while others have none. */
static bool plan_shared(int *stages, size_t *bytes, cca_dtype type, int64_t cols) {
    bool quantised = type == CCA_Q8_0 || type == CCA_Q4_0;
    if (cols % (quantised ? 256 : 8) != 0 || cols > SHARED) return false;
    int x = x_bytes<CCA_F32>((int)cols), stage = PIECE;
    if (quantised) {
        x = x_bytes<CCA_Q8_0>((int)cols);
        stage += type == CCA_Q8_0 ? scale_bytes<CCA_Q8_0>() : scale_bytes<CCA_Q4_0>();
    }
    int room = SHARED - FIXED_SHARED - x;
    if (room < WARPS * stage * LEAST_STAGES) return false;
    *stages = (int)cca_min(MOST_STAGES, room / (WARPS * stage));
    *bytes = (size_t)cca_max(*stages * WARPS * stage + x, SHARED / 2);
    return true;
}

/* Products of one type. */
static void launch_some(cuda_backend *b, const cca_product *products, int n_products, bool gated,
                        const float *x, const cuda_norm *norm) {
    const cca_matrix *w = products[0].weight;
    size_t shared = 0;
    stream_args a = {};
    if (!plan_shared(&a.stages, &shared, w->type, w->cols)) return;
    a.n_products = n_products;
    a.gated = gated;
    a.cols = (int)w->cols;
    a.x = x;
    if (norm) {
        a.norm = norm->weight;
        a.eps = norm->eps;
    }
    for (int i = 0; i < n_products; i++) {
        const cca_product *p = &products[i];
        a.products[i] = stream_product{cuda_weights_of(p->weight),
                                       p->bias ? (const float *)p->bias->data : NULL,
                                       (float *)p->out->data, p->accumulate};
        if (!gated || i == 0) a.n_units += (int)p->weight->rows;
    }
    void (*kernel)(stream_args) = stream<CCA_F32>;
    switch (w->type) {
    case CCA_F32: break;
    case CCA_F16: kernel = stream<CCA_F16>; break;
    case CCA_BF16: kernel = stream<CCA_BF16>; break;
    case CCA_Q8_0: kernel = stream<CCA_Q8_0>; break;
    case CCA_Q4_0: kernel = stream<CCA_Q4_0>; break;
    }
    cuda_launch(b, "product", kernel, (unsigned)b->n_sm, THREADS, shared, a);
}

bool cuda_stream(cuda_backend *b, const cca_product *products, int n_products, bool gated,
                 const float *x, const cuda_norm *norm) {
    if (!b->forms.stream || (norm && products[0].weight->cols > 4 * ROUND)) return false;
    int stages;
    size_t shared;
    for (int i = 0; i < n_products; i++) {
        const cca_matrix *w = products[i].weight;
        if (w->rows > INT32_MAX / 4 || !plan_shared(&stages, &shared, w->type, w->cols)) {
            return false;
        }
        if (gated && w->type != products[0].weight->type) return false;
    }
    for (int first = 0, next; first < n_products; first = next) {
        cca_dtype type = products[first].weight->type;
        for (next = first + 1; next < n_products && next - first < MOST; next++) {
            if (products[next].weight->type != type) break;
        }
        launch_some(b, products + first, next - first, gated, x, norm);
    }
    return true;
}
