/* Products of one row of x, as in decode, at the rate of the memory: weights flow through shared
 * memory, where the copy engine of Hopper puts them, several pieces of a row ahead of the warp that
 * uses them. Each warp walks over its rows of one product after the other. One warp of the block
 * does nothing but begin copies, each of its lanes for another warp: the engine takes no more than
 * it can carry, and whoever computes must not stand in line there.
 *
 * Before a product's rows a block makes what all rows need: x, perhaps normalised, in shared
 * memory; for quantised weights in 8 bits with a scale for each 32 values, the same integers as on
 * the CPU.
 *
 *     typedef type_set<CCA_BF16> set;                      // types of all products
 *     stream_ring<set> ring = ring_of<set>(warp, memory, barriers, n_stages);
 *     stream_feed(weights, n_products, ring, lane);        // the warp that copies
 *     float4 norm[KEPT];                                   // the others:
 *     stream_read_norm(norm, step);
 *     ...                                                  // until x is there
 *     stream_multiply(&ring, step, norm, x_memory); */
#ifndef CCA_CUDA_TOKEN_STREAM_CUH
#define CCA_CUDA_TOKEN_STREAM_CUH

#include "backend/cuda/bulk_copy.cuh"
#include "backend/cuda/token_steps.cuh"

#include <initializer_list>

enum {
    WARPS = TOKEN_WARPS,
    THREADS = WARPS * CUDA_WARP,       /* that compute */
    ALL_THREADS = THREADS + CUDA_WARP, /* with the warp that copies */
    MOST_STAGES = 12,                  /* pieces of a row that a warp has under way */
    KEPT = 8,                          /* pieces of four values that a thread keeps of a row of x */
    TOGETHER = 4,                      /* of them, put into shared memory at the same time */
    PAUSE = 50,                        /* ns, between looks for stages to fill */
};

/* x in shared memory, as 16 bytes of weights want it. Where these are 8 values: f32, the first and
 * the last four of each eight apart, so that a lane's reads meet no bank conflicts; 32 values: the
 * halves of each 32 apart. */
struct x_form {
    float *low, *high;      /* 4 values: low alone */
    int8_t *q_low, *q_high; /* 16 values: q_low alone */
    float2 *scale;          /* of a block: its scale, and that times -8 times the sum of its q */
};

/* ---- shared memory ------------------------------------------------------------------- */

/* Bytes of values in a stage, and of the scales that go with them. A copy takes the copying warp
 * some 100 cycles, of weights with blocks two. */
template <cca_dtype type> static __host__ __device__ constexpr int piece_bytes() {
    return traits<type>::STAGE;
}

template <cca_dtype type> static __host__ __device__ constexpr bool has_blocks() {
    return traits<type>::BLOCK > 1;
}

template <cca_dtype type> static __host__ __device__ constexpr int scale_bytes() {
    return traits<type>::STAGE / traits<type>::BYTES * traits<type>::SCALE_BYTES;
}

/* Bytes of x in its form. */
template <cca_dtype type> static __host__ __device__ constexpr int x_bytes(int cols) {
    return has_blocks<type>() ? cols + cols / CCA_QUANT_BLOCK * (int)sizeof(float2) : cols * 4;
}

/* Columns whose values and scales are whole vectors of 16 bytes, and so are eight f32 of x. */
template <cca_dtype type> static __host__ __device__ constexpr int vector_cols() {
    if constexpr (has_blocks<type>()) {
        return traits<type>::BLOCK * 16 / traits<type>::SCALE_BYTES;
    } else {
        return 8;
    }
}

static constexpr int largest(std::initializer_list<int> all) {
    int most = 0;
    for (int x : all) most = x > most ? x : most;
    return most;
}

/* Of a set of types, of which all have blocks where it is more than one: the most that one wants.
 */
template <typename SET> struct set_sizes;
template <cca_dtype... TYPES> struct set_sizes<type_set<TYPES...>> {
    static constexpr int STAGE = largest({piece_bytes<TYPES>() + scale_bytes<TYPES>()...});
    static constexpr int VECTOR = largest({vector_cols<TYPES>()...});
    static constexpr bool BLOCKS = (... && has_blocks<TYPES>());
    static_assert(BLOCKS || sizeof...(TYPES) == 1, "x has one size");
};

/* On the host: f(set) of the set that a type is in. Types that a model mixes within its layers
 * share a kernel: a launch ends where the set changes. The others have one of their own, in which
 * nothing is chosen. */
template <typename F> static auto with_set(cca_dtype type, F f) {
    typedef type_set<CCA_Q4_1, CCA_Q5_1, CCA_Q6_K> mixed;
    return cuda_with_traits(type, [=](auto t) {
        constexpr cca_dtype own = decltype(t)::TYPE;
        if constexpr (mixed::has(own)) {
            return f(mixed());
        } else {
            return f(type_set<own>());
        }
    });
}

template <typename SET> static __device__ __forceinline__ x_form place_x(char *at, int cols) {
    x_form x = {};
    if (set_sizes<SET>::BLOCKS) {
        x.scale = (float2 *)at;
        x.q_low = (int8_t *)(x.scale + cols / CCA_QUANT_BLOCK);
        x.q_high = x.q_low + cols / 2;
    } else {
        x.low = (float *)at;
        x.high = x.low + cols / 2;
    }
    return x;
}

/* Waits for the block's warps that compute. */
static __device__ __forceinline__ void sync_workers() {
    asm volatile("bar.sync 1, %0;" ::"n"((int)THREADS) : "memory");
}

/* ---- a warp's rows ------------------------------------------------------------------- */

/* One of a warp's rows: of which of a step's products, and which unit of all that is. */
struct stream_row {
    int product, row, unit;
};

/* A block's warp among all: counted across blocks, so that blocks differ by a row at most. */
static __device__ __forceinline__ int among_all(int warp) {
    return warp * (int)gridDim.x + (int)blockIdx.x;
}

/* From one unit of a warp to its next. */
static __device__ __forceinline__ int unit_step() {
    return (int)gridDim.x * WARPS;
}

static __device__ __forceinline__ stream_row find_row(const token_weights &w, int unit) {
    stream_row r = {0, unit, unit};
    if (w.gated || unit >= w.n_units) return r;
    while (r.row >= w.rows[r.product]) r.row -= w.rows[r.product++];
    return r;
}

/* The warp's next row; it has none where unit >= n_units. */
static __device__ __forceinline__ void next_row(stream_row *r, const token_weights &w) {
    int rows = w.rows[r->product], n_units = w.n_units; /* read at the same time */
    bool gated = w.gated, second = gated && r->product == 0;
    if (!second) {
        r->unit += unit_step();
        r->row += unit_step();
    }
    if (gated) {
        r->product = second;
        return;
    }
    while (r->row >= rows && r->unit < n_units) {
        r->row -= rows;
        rows = w.rows[++r->product];
    }
}

/* Bytes of a row's values, and of its scales. */
template <cca_dtype type> static __host__ __device__ constexpr int row_bytes(int cols) {
    return (int)cuda_value_bytes<traits<type>>(cols);
}

template <cca_dtype type> static __host__ __device__ constexpr int row_scale_bytes(int cols) {
    return cols / traits<type>::BLOCK * traits<type>::SCALE_BYTES;
}

/* ---- copies ahead -------------------------------------------------------------------- */

/* A warp's ring of stages, each with a barrier for its being full and one for its being empty, and
 * a place in it with the parity of that stage's phase. */
template <typename SET> struct stream_ring {
    char *memory;
    uint64_t *full, *empty;
    int n_stages, at, phase;
};

template <typename SET>
static __device__ __forceinline__ stream_ring<SET>
ring_of(int warp, char *memory, uint64_t (*barriers)[2][MOST_STAGES], int n_stages) {
    char *own = memory + warp * n_stages * set_sizes<SET>::STAGE;
    return stream_ring<SET>{own, barriers[warp][0], barriers[warp][1], n_stages, 0, 0};
}

template <typename SET>
static __device__ __forceinline__ char *stage_of(const stream_ring<SET> *r) {
    return r->memory + r->at * set_sizes<SET>::STAGE;
}

template <typename SET> static __device__ __forceinline__ void next_stage(stream_ring<SET> *r) {
    if (++r->at < r->n_stages) return;
    r->at = 0;
    r->phase ^= 1;
}

/* What is copied next for a warp: `left` bytes of a row of a product; product n: nothing. */
struct stream_source {
    const token_weights *weights; /* of n products, in shared memory */
    int n, warp;                  /* among all */
    int product, left;
    cca_dtype type; /* of the product */
    stream_row row;
    const char *values, *scales;
};

/* From a product's first row of the warp, or those of later products where it has none. */
template <typename SET> static __device__ __forceinline__ void open_row(stream_source *s) {
    while (s->row.unit >= s->weights[s->product].n_units) {
        if (++s->product == s->n) return;
        s->row = find_row(s->weights[s->product], s->warp);
    }
    const token_weights &w = s->weights[s->product];
    int cols = w.cols;
    s->type = (cca_dtype)w.type;
    s->left = SET::with(s->type, [=](auto t) { return row_bytes<decltype(t)::TYPE>(cols); });
    int scales =
        SET::with(s->type, [=](auto t) { return row_scale_bytes<decltype(t)::TYPE>(cols); });
    s->values = w.values[s->row.product] + (int64_t)s->row.row * s->left;
    s->scales = w.scales[s->row.product] + (int64_t)s->row.row * scales;
}

/* Starts the copy of a piece. Lanes may be at products of different types: only numbers are chosen
 * by type, so that the copies are begun by all at once. */
template <typename SET>
static __device__ __forceinline__ void fetch(stream_source *s, stream_ring<SET> *r) {
    int most = SET::with(s->type, [](auto t) { return piece_bytes<decltype(t)::TYPE>(); });
    int bytes = s->left < most ? s->left : most;
    int scales = SET::with(s->type, [=](auto t) {
        constexpr cca_dtype type = decltype(t)::TYPE;
        return bytes * scale_bytes<type>() / piece_bytes<type>();
    });
    char *to = stage_of(r);
    cuda_barrier_expect(r->full + r->at, bytes + scales);
    cuda_bulk_copy(to, s->values, bytes, r->full + r->at);
    if (set_sizes<SET>::BLOCKS) cuda_bulk_copy(to + most, s->scales, scales, r->full + r->at);
    next_stage(r);
    s->values += bytes;
    s->scales += scales;
    s->left -= bytes;
    if (s->left > 0) return;
    next_row(&s->row, s->weights[s->product]);
    open_row<SET>(s);
}

/* Copies all weights of n products; carried out by one warp, each lane of which feeds a warp of the
 * block, if there is one of that number, and has its ring. Lanes with an empty stage begin their
 * copies together or, which is slower, in turn. */
template <typename SET>
static __device__ __forceinline__ void stream_feed(const token_weights *weights, int n,
                                                   stream_ring<SET> ring, int warp, bool together) {
    stream_source s = {};
    s.weights = weights;
    s.n = n;
    s.warp = among_all(warp);
    if (n == 0) return;
    if (warp < WARPS) {
        s.row = find_row(weights[0], s.warp);
        open_row<SET>(&s);
    } else {
        s.product = n;
    }
    ring.phase = 1; /* a stage that was never full is empty */
    while (__any_sync(~0u, s.product < n)) {
        bool room = s.product < n && cuda_barrier_test(ring.empty + ring.at, ring.phase);
        unsigned lanes = __ballot_sync(~0u, room);
        if (lanes == 0) __nanosleep(PAUSE);
        if (together) {
            if (room) fetch(&s, &ring);
            continue;
        }
        for (; lanes != 0; lanes &= lanes - 1) {
            if ((int)(threadIdx.x % CUDA_WARP) == __ffs((int)lanes) - 1) fetch(&s, &ring);
        }
    }
}

/* ---- sums ---------------------------------------------------------------------------- */

/* A lane's 16 bytes of weights, the at-th of the row, times x. scales: of the piece; k: which 16
 * bytes of it. */
template <cca_dtype type>
static __device__ __forceinline__ float dot16(uint4 w, const char *scales, const x_form &x, int at,
                                              int k, float sum) {
    typedef traits<type> T;
    if constexpr (T::VALUES == 4) {
        return T::dot(w, (const float4 *)x.low + at, sum);
    } else if constexpr (!has_blocks<type>()) {
        const float4 v[2] = {((const float4 *)x.low)[at], ((const float4 *)x.high)[at]};
        return T::dot(w, v, sum);
    } else {
        enum { SHARE = T::BLOCK / T::VALUES };
        uint4 v[T::VALUES / 16] = {((const uint4 *)x.q_low)[at]};
        if (T::VALUES == 32) v[T::VALUES / 16 - 1] = ((const uint4 *)x.q_high)[at];
        typename T::scales scale = ((const typename T::scales *)scales)[k / SHARE];
        return sum + T::scaled(scale, T::dot(w, v), x.scale[at * T::VALUES / CCA_QUANT_BLOCK]);
    }
}

/* A lane's share of a piece of n16 times 16 bytes, the first of which is the at-th of the row. */
template <cca_dtype type>
static __device__ __forceinline__ float dot_piece(const char *stage, const x_form &x, int at,
                                                  int n16, float sum) {
    enum { N = piece_bytes<type>() / 16 };
    const char *scale = stage + piece_bytes<type>();
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
    for (int k = 0; k < KEPT; k++) sum = cuda_dot4(v[k], v[k], sum);
    sum = cuda_warp_sum(sum);
    if (threadIdx.x % CUDA_WARP == 0) sums[threadIdx.x / CUDA_WARP] = sum;
    sync_workers();
    sum = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += sums[i];
    float square = sum / (float)a.weights.cols + a.eps, scale = rsqrtf(square);
    scale *= 1.5f - 0.5f * square * scale * scale; /* to the last bit or the next */
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        v[k] = make_float4(v[k].x * scale * w[k].x, v[k].y * scale * w[k].y,
                           v[k].z * scale * w[k].z, v[k].w * scale * w[k].w);
    }
}

/* a / b to the last bit, as long as nothing over- or underflows. about: 1 / b, roughly. */
static __device__ __forceinline__ float divide(float a, float b, float about) {
    float quotient = a * about;
    return fmaf(fmaf(-quotient, b, a), about, quotient);
}

/* Rounded to an integer of eight bits, which are the lowest of the result. */
static __device__ __forceinline__ uint32_t round_byte(float x) {
    return __float_as_uint(__fadd_rn(x, 12582912.0f)); /* 1.5 * 2^23: the last bit is worth 1 */
}

/* Four values, i being their place counted in fours, if that is below n; eight lanes have a block
 * of 32. per: weights in 16 bytes. */
template <typename SET>
static __device__ __forceinline__ void put_x(const x_form &x, int i, int n, float4 v, int per) {
    if (per == 4) {
        if (i < n) ((float4 *)x.low)[i] = v;
    } else if (!set_sizes<SET>::BLOCKS) {
        if (i < n) ((float4 *)(i % 2 ? x.high : x.low))[i / 2] = v;
    } else {
        float largest =
            cuda_larger(cuda_larger(fabsf(v.x), fabsf(v.y)), cuda_larger(fabsf(v.z), fabsf(v.w)));
#pragma unroll
        for (int step = 4; step > 0; step /= 2) {
            largest = cuda_larger(largest, __shfl_xor_sync(~0u, largest, step));
        }
        if (largest == INFINITY) largest = NAN; /* no finite number: it takes its block with it */
        bool tiny = largest < 1e-30f; /* as good as nothing, and no quotient of it would be right */
        float by = tiny ? 0 : divide(127, largest, __fdividef(1, largest));
        float d = tiny ? 0 : divide(largest, 127, 1 / 127.0f);
        uint32_t low = __byte_perm(round_byte(v.x * by), round_byte(v.y * by), 0x0040);
        uint32_t high = __byte_perm(round_byte(v.z * by), round_byte(v.w * by), 0x0040);
        uint32_t q = __byte_perm(low, high, 0x5410);
        int sum = __dp4a((int)q, 0x01010101, 0);
#pragma unroll
        for (int step = 4; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (i >= n) return;
        int block = i / 8, part = i % 8;
        if (per == 16) {
            ((uint32_t *)x.q_low)[i] = q;
        } else {
            ((uint32_t *)(part < 4 ? x.q_low : x.q_high))[block * 4 + part % 4] = q;
        }
        if (part == 0) x.scale[block] = make_float2(d, -8 * d * (float)sum);
    }
}

/* weights: of the norm, read before. */
template <typename SET>
static __device__ __forceinline__ void make_x(const x_form &x, const product_step &a,
                                              const float4 weights[KEPT]) {
    int n = a.weights.cols / 4;
    int per = SET::with((cca_dtype)a.weights.type, [](auto t) { return (int)decltype(t)::VALUES; });
    for (int first = 0; first < n; first += ROUND) {
        float4 v[KEPT];
        read_pieces(v, a.x, first, n);
        if (a.norm) normalise(v, weights, a);
#pragma unroll
        for (int k = 0; k < KEPT; k += TOGETHER) {
            int i = first + k * THREADS + (int)threadIdx.x;
            if (first + k * THREADS >= n) continue; /* all threads */
#pragma unroll
            for (int j = 0; j < TOGETHER; j++) put_x<SET>(x, i + j * THREADS, n, v[k + j], per);
        }
    }
    sync_workers();
}

/* ---- products ------------------------------------------------------------------------ */

/* The warp's next row times x, as the copies of its pieces come. */
template <cca_dtype type, typename SET>
static __device__ __forceinline__ float multiply_row(stream_ring<SET> *r, const x_form &x,
                                                     int cols) {
    enum { N = piece_bytes<type>() / 16 };
    int n16 = row_bytes<type>(cols) / 16;
    float sum = 0;
    for (int at = 0; at < n16; at += N) {
        int left = n16 - at;
        cuda_barrier_wait(r->full + r->at, r->phase);
        sum = dot_piece<type>(stage_of(r), x, at, left < N ? left : (int)N, sum);
        cuda_barrier_arrive(r->empty + r->at); /* each lane for what it has read */
        next_stage(r);
    }
    return cuda_warp_sum(sum);
}

/* Where one of a warp's sums goes, or NULL, and what is added to it before. */
struct stream_output {
    float *to;
    float start;
};

static __device__ __forceinline__ stream_output find_output(const product_step &a, int unit) {
    if (unit >= a.weights.n_units) return stream_output{NULL, 0};
    stream_row r = find_row(a.weights, unit);
    const token_output &o = a.outputs[r.product];
    float *to = o.out + r.row;
    return stream_output{to, (o.bias ? o.bias[r.row] : 0) + (o.accumulate ? __ldcg(to) : 0)};
}

/* The warp's rows of a step's products. Of their sums each lane keeps one of 32 and finishes it;
 * unit: the first of the warp; own: where this lane's first sum goes. */
template <cca_dtype type, typename SET>
static __device__ __forceinline__ void multiply_rows(stream_ring<SET> *ring, const product_step &a,
                                                     const x_form &x, int unit, stream_output own) {
    int lane = (int)(threadIdx.x % CUDA_WARP);
    int cols = a.weights.cols, n_units = a.weights.n_units;
    bool gated = a.weights.gated;
    while (unit < n_units) {
        float sum = 0, up = 0;
        for (int i = 0; i < CUDA_WARP && unit < n_units; i++, unit += unit_step()) {
            float first = multiply_row<type>(ring, x, cols);
            float second = gated ? multiply_row<type>(ring, x, cols) : 0;
            if (lane == i) {
                sum = first;
                up = second;
            }
        }
        if (own.to) *own.to = gated ? cuda_gated(sum, up) : sum + own.start;
        own = find_output(a, unit + lane * unit_step());
    }
}

/* A step's products; norm: weights of the norm, read before; memory: room for x. */
template <typename SET>
static __device__ __forceinline__ void stream_multiply(stream_ring<SET> *ring,
                                                       const product_step &a,
                                                       const float4 norm[KEPT], char *memory) {
    int lane = (int)(threadIdx.x % CUDA_WARP), unit = among_all((int)threadIdx.x / CUDA_WARP);
    stream_output own = find_output(a, unit + lane * unit_step());
    x_form x = place_x<SET>(memory, a.weights.cols);
    make_x<SET>(x, a, norm);
    SET::with((cca_dtype)a.weights.type,
              [&](auto t) { multiply_rows<decltype(t)::TYPE>(ring, a, x, unit, own); });
}

#endif
