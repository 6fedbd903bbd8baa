/* Products of one row of x, as in decode, at the rate of the memory: weights flow through shared
 * memory, where the copy engine of Hopper puts them, several pieces of a row ahead of the warp that
 * uses them. Each warp walks over its rows of one product after the other and begins to copy those
 * of the next product as soon as it has used its last of this one.
 *
 * Before a product's rows a block makes what all rows need: x, perhaps normalised, in shared
 * memory; for quantised weights in 8 bits with a scale for each 32 values, the same integers as on
 * the CPU.
 *
 *     weight_stream<CCA_BF16> s;
 *     stream_open(&s, weights, n_products, memory, barriers, n_stages);  // begins to copy
 *     float4 norm[KEPT];
 *     stream_read_norm(norm, step);
 *     ...                                                     // until x is there
 *     stream_multiply(&s, step, norm, x_memory); */
#ifndef CCA_CUDA_STREAM_CUH
#define CCA_CUDA_STREAM_CUH

#include "cuda_copy.cuh"
#include "cuda_token.cuh"

enum {
    WARPS = TOKEN_WARPS,
    THREADS = WARPS * CUDA_WARP,
    MOST_STAGES = 12, /* pieces of a row that a warp has under way */
    KEPT = 9,         /* pieces of four values that a thread keeps of a row of x */
    TOGETHER = 3,     /* of them, put into shared memory at the same time */
    PIECE = 2048,     /* bytes of values in a stage */
    MOST_SCALE = 256, /* bytes of scales that go with them */
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

/* Item i of a warp: a row of one of a step's products. */
struct stream_row {
    int product, row;
};

/* A block's warp among all: counted across blocks, so that blocks differ by a row at most. */
static __device__ __forceinline__ int among_all(int warp) {
    return warp * (int)gridDim.x + (int)blockIdx.x;
}

/* warp: among all. */
static __device__ __forceinline__ stream_row find_row(const token_weights &w, int warp, int item) {
    int step = (int)gridDim.x * WARPS;
    if (w.gated) return stream_row{item % 2, warp + item / 2 * step};
    stream_row r = {0, warp + item * step};
    while (r.row >= w.rows[r.product]) r.row -= w.rows[r.product++];
    return r;
}

static __device__ __forceinline__ int count_items(const token_weights &w, int warp) {
    int step = (int)gridDim.x * WARPS;
    int units = warp < w.n_units ? (w.n_units - warp - 1) / step + 1 : 0;
    return w.gated ? 2 * units : units;
}

/* Bytes of a row's values. */
template <cca_dtype type> static __host__ __device__ constexpr int row_bytes(int cols) {
    return type == CCA_F32    ? cols * 4
           : type == CCA_Q8_0 ? cols
           : type == CCA_Q4_0 ? cols / 2
                              : cols * 2;
}

/* ---- copies ahead -------------------------------------------------------------------- */

/* A stage of a warp's ring, and the parity of its barrier's phase. */
struct stream_stage {
    int at, phase;
};

static __device__ __forceinline__ void next_stage(stream_stage *s, int n_stages) {
    if (++s->at < n_stages) return;
    s->at = 0;
    s->phase ^= 1;
}

/* A warp's ring; its first lane starts the copies. */
template <cca_dtype type> struct weight_stream {
    const token_weights *weights; /* of n products, in shared memory */
    char *memory;
    uint64_t *full; /* a barrier for each stage */
    int n, n_stages;
    stream_stage here, ahead;
    /* What is copied next: `left` bytes of the row of an item of a product; product n: nothing. */
    int product, item, n_items, left;
    const char *values, *scales;
};

template <cca_dtype type> static __device__ __forceinline__ void open_row(weight_stream<type> *s) {
    int warp = among_all((int)threadIdx.x / CUDA_WARP);
    while (s->item == s->n_items) {
        if (++s->product == s->n) return;
        s->item = 0;
        s->n_items = count_items(s->weights[s->product], warp);
    }
    const token_weights &w = s->weights[s->product];
    stream_row r = find_row(w, warp, s->item);
    s->left = row_bytes<type>(w.cols);
    s->values = w.values[r.product] + (int64_t)r.row * s->left;
    s->scales = w.scales[r.product] + (int64_t)r.row * (w.cols / CCA_QUANT_BLOCK) * 2;
}

/* Starts the copy of a piece. */
template <cca_dtype type> static __device__ __forceinline__ void fetch(weight_stream<type> *s) {
    int bytes = s->left < PIECE ? s->left : PIECE, scales = bytes * scale_bytes<type>() / PIECE;
    char *to = s->memory + s->ahead.at * stage_bytes<type>();
    uint64_t *full = s->full + s->ahead.at;
    cuda_barrier_expect(full, bytes + scales);
    cuda_bulk_copy(to, s->values, bytes, full);
    if (is_quantised<type>()) cuda_bulk_copy(to + PIECE, s->scales, scales, full);
    next_stage(&s->ahead, s->n_stages);
    s->values += bytes;
    s->scales += scales;
    s->left -= bytes;
    if (s->left > 0) return;
    s->item++;
    open_row(s);
}

/* weights: in shared memory; memory, barriers: of the block, for all warps. */
template <cca_dtype type>
static __device__ __forceinline__ void
stream_open(weight_stream<type> *s, const token_weights *weights, int n, char *memory,
            uint64_t (*barriers)[MOST_STAGES], int n_stages) {
    int warp = (int)(threadIdx.x / CUDA_WARP);
    *s = weight_stream<type>{};
    s->weights = weights;
    s->n = n;
    s->product = -1;
    s->memory = memory + warp * n_stages * stage_bytes<type>();
    s->full = barriers[warp];
    s->n_stages = n_stages;
    if (threadIdx.x % CUDA_WARP != 0 || n == 0) return;
    for (int i = 0; i < n_stages; i++) cuda_barrier_init(s->full + i, 1);
    cuda_barriers_ready();
    open_row(s);
    for (int i = 0; i < n_stages && s->product < n; i++) fetch(s);
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

/* A lane's share of a piece of n16 times 16 bytes, the first of which is the at-th of the row. */
template <cca_dtype type>
static __device__ __forceinline__ float dot_piece(const char *stage, const x_form &x, int at,
                                                  int n16, float sum) {
    enum { N = PIECE / 16 };
    const __half *scale = (const __half *)(stage + PIECE);
    int lane = (int)(threadIdx.x % CUDA_WARP);
    if (n16 == N) { /* without conditions between, so that all are under way together */
        float sums[N / CUDA_WARP];
#pragma unroll
        for (int k = 0; k < N / CUDA_WARP; k++) {
            int i = k * CUDA_WARP + lane;
            sums[k] = dot16<type>(((const uint4 *)stage)[i], scale, x, at + i, i, 0);
        }
#pragma unroll
        for (int k = 0; k < N / CUDA_WARP; k++) sum += sums[k];
        return sum;
    }
    for (int i = lane; i < n16; i += CUDA_WARP) {
        sum = dot16<type>(((const uint4 *)stage)[i], scale, x, at + i, i, sum);
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
        v[k] = from && i < n ? __ldcg((const float4 *)from + i) : make_float4(0, 0, 0, 0);
    }
}

static __device__ __forceinline__ void stream_read_norm(float4 norm[KEPT], const product_step &a) {
    read_pieces(norm, a.norm, 0, a.weights.cols / 4);
}

/* v times its norm's weights w, over the root mean square of all threads' v. */
static __device__ __forceinline__ void normalise(float4 v[KEPT], const float4 w[KEPT],
                                                 const product_step &a) {
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
    float scale = 1 / sqrtf(sum / (float)a.weights.cols + a.eps);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        v[k] = make_float4(v[k].x * scale * w[k].x, v[k].y * scale * w[k].y,
                           v[k].z * scale * w[k].z, v[k].w * scale * w[k].w);
    }
}

/* Four values, i being their place counted in fours, if that is below n; eight lanes have a block
 * of 32. */
template <cca_dtype type>
static __device__ __forceinline__ void put_x(const x_form &x, int i, int n, float4 v) {
    if (type == CCA_F32) {
        if (i < n) ((float4 *)x.low)[i] = v;
    } else if (!is_quantised<type>()) {
        if (i < n) ((float4 *)(i % 2 ? x.high : x.low))[i / 2] = v;
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
        if (i >= n) return;
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
static __device__ __forceinline__ void make_x(const x_form &x, const product_step &a,
                                              const float4 weights[KEPT]) {
    int n = a.weights.cols / 4;
    for (int first = 0; first < n; first += ROUND) {
        float4 v[KEPT];
        read_pieces(v, a.x, first, n);
        if (a.norm) normalise(v, weights, a);
#pragma unroll
        for (int k = 0; k < KEPT; k += TOGETHER) {
            int i = first + k * THREADS + (int)threadIdx.x;
            if (first + k * THREADS >= n) continue; /* all threads */
#pragma unroll
            for (int j = 0; j < TOGETHER; j++) put_x<type>(x, i + j * THREADS, n, v[k + j]);
        }
    }
    __syncthreads();
}

/* ---- products ------------------------------------------------------------------------ */

/* The warp's next row times x, as the copies of its pieces come; starts copies ahead. */
template <cca_dtype type>
static __device__ __forceinline__ float multiply_row(weight_stream<type> *s, const x_form &x,
                                                     int cols) {
    int n16 = row_bytes<type>(cols) / 16;
    float sum = 0;
    for (int at = 0; at < n16; at += PIECE / 16) {
        int left = n16 - at;
        cuda_barrier_wait(s->full + s->here.at, s->here.phase);
        sum = dot_piece<type>(s->memory + s->here.at * stage_bytes<type>(), x, at,
                              left < PIECE / 16 ? left : PIECE / 16, sum);
        __syncwarp();
        if (threadIdx.x % CUDA_WARP == 0 && s->product < s->n) fetch(s);
        next_stage(&s->here, s->n_stages);
    }
    return cuda_warp_sum(sum);
}

/* What the sums of a warp's items first, first + 1, … are added to, one a lane: all at once, and
 * before they are needed. */
static __device__ __forceinline__ float read_starts(const product_step &a, int warp, int first,
                                                    int n_items) {
    int item = first + (int)(threadIdx.x % CUDA_WARP);
    if (a.weights.gated || item >= n_items) return 0;
    stream_row r = find_row(a.weights, warp, item);
    const token_output &o = a.outputs[r.product];
    return (o.bias ? o.bias[r.row] : 0) + (o.accumulate ? __ldcg(o.out + r.row) : 0);
}

/* A step's products; norm: weights of the norm, read before; memory: room for x. */
template <cca_dtype type>
static __device__ __forceinline__ void stream_multiply(weight_stream<type> *s,
                                                       const product_step &a,
                                                       const float4 norm[KEPT], char *memory) {
    int lane = (int)(threadIdx.x % CUDA_WARP), warp = among_all((int)threadIdx.x / CUDA_WARP);
    int n_items = count_items(a.weights, warp), cols = a.weights.cols;
    bool gated = a.weights.gated;
    float gate = 0, starts = read_starts(a, warp, 0, n_items);
    x_form x = place_x<type>(memory, cols);
    make_x<type>(x, a, norm);
    for (int item = 0; item < n_items; item++) {
        stream_row r = find_row(a.weights, warp, item);
        if (item > 0 && item % CUDA_WARP == 0) starts = read_starts(a, warp, item, n_items);
        float sum = multiply_row(s, x, cols) + __shfl_sync(~0u, starts, item % CUDA_WARP);
        if (gated && r.product == 0) {
            gate = sum;
        } else if (lane == 0) {
            a.outputs[gated ? 0 : r.product].out[r.row] = gated ? cuda_gated(gate, sum) : sum;
        }
    }
}

#endif
