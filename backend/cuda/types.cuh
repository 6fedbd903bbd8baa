/* What kernels know of the types of weights and caches: one specialisation of traits a type.
 *
 *     uint4 bits = ((const uint4 *)w.q)[i];                  // 16 bytes of a row of weights
 *     sum = traits<CCA_BF16>::dot(bits, x, sum);             // x: two float4
 *     float y = cuda_weight_at(w, i);                        // of a type not known before
 *     auto kernel = cuda_with_traits(type, [](auto t) { return gemv<decltype(t)::TYPE>; });
 *     y = cache_types::with(type, [=](auto t) { return decltype(t)::value(rows, i); });
 *
 * Weights of types with blocks are laid out anew on the device, so that everything can be read in
 * aligned pieces: q holds the values of all blocks, one behind the other, then come the scales.
 * Rows of a cache lie as in dtype.h. */
#ifndef CCA_CUDA_TYPES_CUH
#define CCA_CUDA_TYPES_CUH

#include "backend/cuda/device.cuh"

struct cuda_weights {
    const void *q, *scale;
    cca_dtype type;
    int64_t rows, cols;
};

/* A block of 32 values of x that was quantised: x = d * q. */
struct cuda_x_scale {
    float d;
    int sum; /* of q */
};

/* Each has:
 *     BLOCK, BYTES, SCALE_BYTES
 *                     values that share scales on the device (1: there are none), their bytes, and
 *                     those of the scales
 *     VALUES          in 16 bytes
 *     EXACT           products of many rows are in f32; else in bf16 or less
 *     IS_OPERAND      those products take weights as they lie
 *     UNROLL, STAGE   pieces of 16 bytes of a row that a lane has under way; bytes of a stage of
 *                     token_stream.cuh, of which a copy takes some 100 cycles to begin
 *     weight(w, i)    value i of a matrix, counted row by row
 * without blocks:
 *     dot(w, x, sum)  16 bytes of weights times as many values of x, added to sum
 *     two, round_two  of 16 bits: two values as floats, and back
 * with blocks:
 *     scales          of a block
 *     PIECES, lay_out the pieces in which a block of the file goes where it lies on the device
 *     one             a value
 *     decode          VALUES values of 16 bytes
 *     dot(w, x)       16 bytes of weights times as many bytes of x: integers
 *     scaled          what that is worth; x: as cuda_x_scale, or {d, -8 * d * sum}
 * and, of a cache:
 *     value(rows, i)  value i
 *     put             the values of a warp's lanes as values i …, rounded as cca_dtype_encode does
 *                     it; lanes from n_lanes on have none, which types with blocks do not know
 * A cache has q4_0 in rows behind the window alone, and none of the types with minima or large
 * blocks. */
template <cca_dtype type> struct traits;

/* ---- f32, f16, bf16 -------------------------------------------------------------------- */

static __device__ __forceinline__ float cuda_dot4(float4 a, float4 b, float sum) {
    return sum + (a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w);
}

template <> struct traits<CCA_F32> {
    static constexpr cca_dtype TYPE = CCA_F32;
    static constexpr bool EXACT = true, IS_OPERAND = true;
    enum { BLOCK = 1, BYTES = 4, SCALE_BYTES = 0, VALUES = 4, UNROLL = 4, STAGE = 2048 };

    static __device__ __forceinline__ float weight(const cuda_weights &w, int64_t i) {
        return ((const float *)w.q)[i];
    }

    static __device__ __forceinline__ float dot(uint4 w, const float4 *x, float sum) {
        float4 v = make_float4(__uint_as_float(w.x), __uint_as_float(w.y), __uint_as_float(w.z),
                               __uint_as_float(w.w));
        return cuda_dot4(v, x[0], sum);
    }

    static __device__ __forceinline__ float value(const void *rows, int64_t i) {
        return ((const float *)rows)[i];
    }

    static __device__ __forceinline__ void put(void *rows, int64_t i, float x, int lane,
                                               int n_lanes) {
        if (lane < n_lanes) ((float *)rows)[i + lane] = x;
    }
};

/* What both 16-bit types share; T: the type of one value. */
template <typename T> struct half_traits {
    enum { BLOCK = 1, BYTES = 2, SCALE_BYTES = 0, VALUES = 8, UNROLL = 4, STAGE = 2048 };

    static __device__ __forceinline__ float weight(const cuda_weights &w, int64_t i) {
        return value(w.q, i);
    }

    static __device__ __forceinline__ float value(const void *rows, int64_t i) {
        return (float)((const T *)rows)[i];
    }

    static __device__ __forceinline__ void put(void *rows, int64_t i, float x, int lane,
                                               int n_lanes) {
        if (lane < n_lanes) ((T *)rows)[i + lane] = T(x);
    }
};

template <> struct traits<CCA_F16> : half_traits<__half> {
    static constexpr cca_dtype TYPE = CCA_F16;
    static constexpr bool EXACT = false, IS_OPERAND = false;

    static __device__ __forceinline__ float2 two(uint32_t pair) {
        __half2 h;
        memcpy(&h, &pair, sizeof h);
        return __half22float2(h);
    }

    static __device__ __forceinline__ uint32_t round_two(float x, float y) {
        uint32_t pair;
        __half2 h = __floats2half2_rn(x, y);
        memcpy(&pair, &h, sizeof pair);
        return pair;
    }

    static __device__ __forceinline__ float dot(uint4 w, const float4 *x, float sum);
};

template <> struct traits<CCA_BF16> : half_traits<__nv_bfloat16> {
    static constexpr cca_dtype TYPE = CCA_BF16;
    static constexpr bool EXACT = false, IS_OPERAND = true;

    static __device__ __forceinline__ float2 two(uint32_t pair) {
        return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & ~0xffffu));
    }

    static __device__ __forceinline__ uint32_t round_two(float x, float y) {
        uint32_t pair;
        __nv_bfloat162 h = __floats2bfloat162_rn(x, y);
        memcpy(&pair, &h, sizeof pair);
        return pair;
    }

    static __device__ __forceinline__ float dot(uint4 w, const float4 *x, float sum);
};

/* The one of them. */
template <bool is_bf16> using cuda_half = traits<is_bf16 ? CCA_BF16 : CCA_F16>;

template <bool is_bf16>
static __device__ __forceinline__ uint32_t cuda_round_two(float x, float y) {
    return cuda_half<is_bf16>::round_two(x, y);
}

template <bool is_bf16> static __device__ __forceinline__ float2 cuda_two(uint32_t pair) {
    return cuda_half<is_bf16>::two(pair);
}

/* Eight values of 16 bytes as floats, and back, rounded. */
template <bool is_bf16>
static __device__ __forceinline__ void cuda_eight(float out[8], uint4 bits) {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 both = cuda_two<is_bf16>(words[i]);
        out[2 * i] = both.x;
        out[2 * i + 1] = both.y;
    }
}

template <bool is_bf16> static __device__ __forceinline__ uint4 cuda_round_eight(const float *x) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) words[i] = cuda_half<is_bf16>::round_two(x[2 * i], x[2 * i + 1]);
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/* Four values as floats. */
template <bool is_bf16> static __device__ __forceinline__ float4 cuda_four(uint32_t a, uint32_t b) {
    float2 p = cuda_two<is_bf16>(a), q = cuda_two<is_bf16>(b);
    return make_float4(p.x, p.y, q.x, q.y);
}

template <bool is_bf16>
static __device__ __forceinline__ float cuda_dot_halves(uint4 w, const float4 *x, float sum) {
    sum = cuda_dot4(cuda_four<is_bf16>(w.x, w.y), x[0], sum);
    return cuda_dot4(cuda_four<is_bf16>(w.z, w.w), x[1], sum);
}

__device__ __forceinline__ float traits<CCA_F16>::dot(uint4 w, const float4 *x, float sum) {
    return cuda_dot_halves<false>(w, x, sum);
}

__device__ __forceinline__ float traits<CCA_BF16>::dot(uint4 w, const float4 *x, float sum) {
    return cuda_dot_halves<true>(w, x, sum);
}

/* ---- blocks ---------------------------------------------------------------------------- */

/* Values of blocks as signed bytes. */
struct cuda_bytes {
    enum { VALUES = 16 };

    static __device__ __forceinline__ int at(const void *q, int64_t i) {
        return ((const int8_t *)q)[i];
    }

    static __device__ __forceinline__ void spread(int q[VALUES], uint4 bits) {
        const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
        for (int k = 0; k < 16; k++) q[k] = (int8_t)(words[k / 4] >> (8 * (k % 4)));
    }

    static __device__ __forceinline__ int dot(uint4 w, const uint4 *x) {
        int sum = __dp4a((int)w.x, (int)x[0].x, 0);
        sum = __dp4a((int)w.y, (int)x[0].y, sum);
        sum = __dp4a((int)w.z, (int)x[0].z, sum);
        return __dp4a((int)w.w, (int)x[0].w, sum);
    }
};

/* As four bits from 0 on: of each 32 values the first 16 in the low halves of 16 bytes. */
struct cuda_nibbles {
    enum { VALUES = 32 };

    static __device__ __forceinline__ int at(const void *q, int64_t i) {
        int k = (int)(i % VALUES);
        uint8_t both = ((const uint8_t *)q)[i / VALUES * 16 + k % 16];
        return k < 16 ? both & 15 : both >> 4;
    }

    static __device__ __forceinline__ void spread(int q[VALUES], uint4 bits) {
        const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
        for (int k = 0; k < 16; k++) {
            uint32_t both = words[k / 4] >> (8 * (k % 4));
            q[k] = (int)(both & 15);
            q[k + 16] = (int)(both >> 4 & 15);
        }
    }

    /* sum + products of four unsigned and four signed bytes. */
    static __device__ __forceinline__ int dot_unsigned(uint32_t a, uint32_t b, int sum) {
        int out;
        asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
        return out;
    }

    /* Products of the 16 low nibbles with x[0], and of the high ones, which are taken where they
     * stand, 16 times as much, with x[1]. */
    static __device__ __forceinline__ int dot(uint4 w, const uint4 *x) {
        const uint32_t words[4] = {w.x, w.y, w.z, w.w};
        const uint32_t low[4] = {x[0].x, x[0].y, x[0].z, x[0].w};
        const uint32_t high[4] = {x[1].x, x[1].y, x[1].z, x[1].w};
        int of_low = 0, of_high = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            of_low = dot_unsigned(words[i] & 0x0f0f0f0f, low[i], of_low);
            of_high = dot_unsigned(words[i] & 0xf0f0f0f0, high[i], of_high);
        }
        return of_low + (of_high >> 4);
    }
};

/* Blocks of N values as Q has them, with scales of type S; one(scales, q) is in the
 * specialisation. */
template <cca_dtype type, int N, typename Q, typename S> struct block_traits : Q {
    static constexpr cca_dtype TYPE = type;
    static constexpr bool EXACT = false, IS_OPERAND = false;
    typedef S scales;
    enum { BLOCK = N, BYTES = N * 16 / Q::VALUES, SCALE_BYTES = sizeof(S) };

    static __device__ __forceinline__ float weight(const cuda_weights &w, int64_t i) {
        return traits<type>::one(((const S *)w.scale)[i / N], Q::at(w.q, i));
    }

    static __device__ __forceinline__ void decode(float v[Q::VALUES], uint4 bits, S scales) {
        int q[Q::VALUES];
        Q::spread(q, bits);
#pragma unroll
        for (int k = 0; k < Q::VALUES; k++) v[k] = traits<type>::one(scales, q[k]);
    }

    /* The scale of a block of 32 whose values a warp has, and what they are multiplied with: NaN,
     * which as an integer is 0, where one of them is no finite number. */
    static __device__ __forceinline__ uint16_t put_scale(float x, float d, float *inverse) {
        bool finite = __all_sync(~0u, isfinite(x));
        *inverse = !finite ? NAN : d != 0 ? 1 / d : 0;
        return finite ? __half_as_ushort(__float2half_rn(d)) : (uint16_t)CCA_HALF_NAN;
    }
};

/* d q */
template <cca_dtype type, int N> struct byte_traits : block_traits<type, N, cuda_bytes, __half> {
    static __device__ __forceinline__ float one(__half scale, int q) {
        return __half2float(scale) * (float)q;
    }

    static __device__ __forceinline__ float scaled(__half scale, int dot, cuda_x_scale x) {
        return __half2float(scale) * x.d * (float)dot;
    }

    static __device__ __forceinline__ float scaled(__half scale, int dot, float2 x) {
        return __half2float(scale) * x.x * (float)dot;
    }
};

/* d q + m, in blocks of 32; scales {d, m}. Each 16 bytes of a block take their share of the sum of
 * its x, which together they take whole. */
template <cca_dtype type, typename Q>
struct min_traits : block_traits<type, CCA_QUANT_BLOCK, Q, __half2> {
    static constexpr float PART = (float)Q::VALUES / CCA_QUANT_BLOCK;

    static __device__ __forceinline__ float one(__half2 scales, int q) {
        return __low2float(scales) * (float)q + __high2float(scales);
    }

    static __device__ __forceinline__ float scaled(__half2 scales, int dot, cuda_x_scale x) {
        return x.d *
               (__low2float(scales) * (float)dot + __high2float(scales) * PART * (float)x.sum);
    }

    static __device__ __forceinline__ float scaled(__half2 scales, int dot, float2 x) {
        return __low2float(scales) * (x.x * (float)dot) + __high2float(scales) * PART / -8 * x.y;
    }
};

/* A piece of a block of T whose file has the scales, then the values as they are here: two bytes,
 * since blocks of the file begin at even addresses only. */
template <typename T>
static __device__ __forceinline__ void cuda_lay_out_pairs(void *q, void *scale, const void *file,
                                                          int64_t block, int piece) {
    enum { OF_SCALES = T::SCALE_BYTES / 2 };
    const uint16_t *from = (const uint16_t *)file + block * (OF_SCALES + T::PIECES);
    ((uint16_t *)q)[block * T::PIECES + piece] = from[OF_SCALES + piece];
    if (piece < OF_SCALES) ((uint16_t *)scale)[block * OF_SCALES + piece] = from[piece];
}

/* The first n of the values that were taken apart go where values from `first` on lie, as bytes. */
static __device__ __forceinline__ void cuda_lay_out_bytes(void *q, int64_t first,
                                                          const cca_apart &a, int n) {
    for (int k = 0; k < n; k += 16) {
        uint4 bits;
        memcpy(&bits, a.q + k, sizeof bits);
        ((uint4 *)q)[(first + k) / 16] = bits;
    }
}

template <> struct traits<CCA_Q8_0> : byte_traits<CCA_Q8_0, CCA_QUANT_BLOCK> {
    enum { UNROLL = 4, STAGE = 4096, PIECES = BYTES / 2 };

    static __device__ __forceinline__ void lay_out(void *q, void *scale, const void *file,
                                                   int64_t block, int piece) {
        cuda_lay_out_pairs<traits>(q, scale, file, block, piece);
    }

    static __device__ __forceinline__ float value(const void *rows, int64_t i) {
        const cca_q8_0 *block = (const cca_q8_0 *)rows + i / CCA_QUANT_BLOCK;
        return __half2float(__ushort_as_half(block->scale)) * (float)block->q[i % CCA_QUANT_BLOCK];
    }

    static __device__ __forceinline__ void put(void *rows, int64_t i, float x, int lane, int) {
        cca_q8_0 *block = (cca_q8_0 *)rows + i / CCA_QUANT_BLOCK;
        float inverse, d = cuda_warp_max(fabsf(x)) / 127;
        uint16_t bits = put_scale(x, d, &inverse);
        block->q[lane] = (int8_t)(int)roundf(x * inverse);
        if (lane == 0) block->scale = bits;
    }
};

template <>
struct traits<CCA_Q4_0> : block_traits<CCA_Q4_0, CCA_QUANT_BLOCK, cuda_nibbles, __half> {
    enum { UNROLL = 2, STAGE = 2048, PIECES = BYTES / 2 };

    static __device__ __forceinline__ void lay_out(void *q, void *scale, const void *file,
                                                   int64_t block, int piece) {
        cuda_lay_out_pairs<traits>(q, scale, file, block, piece);
    }

    static __device__ __forceinline__ float one(__half scale, int q) {
        return __half2float(scale) * (float)(q - 8);
    }

    static __device__ __forceinline__ float scaled(__half scale, int dot, cuda_x_scale x) {
        return __half2float(scale) * x.d * (float)(dot - 8 * x.sum);
    }

    static __device__ __forceinline__ float scaled(__half scale, int dot, float2 x) {
        return __half2float(scale) * (x.x * (float)dot + x.y);
    }

    static __device__ __forceinline__ float value(const void *rows, int64_t i) {
        const cca_q4_0 *block = (const cca_q4_0 *)rows + i / CCA_QUANT_BLOCK;
        int k = (int)(i % CCA_QUANT_BLOCK), both = block->q[k % 16];
        return __half2float(__ushort_as_half(block->scale)) *
               (float)((k < 16 ? both & 15 : both >> 4) - 8);
    }

    static __device__ __forceinline__ void put(void *rows, int64_t i, float x, int lane, int) {
        cca_q4_0 *block = (cca_q4_0 *)rows + i / CCA_QUANT_BLOCK;
        unsigned extreme = __ballot_sync(~0u, fabsf(x) == cuda_warp_max(fabsf(x)));
        int from = extreme ? __ffs((int)extreme) - 1 : 0; /* the first of the largest */
        float inverse, d = __shfl_sync(~0u, x, from) / -8;
        uint16_t bits = put_scale(x, d, &inverse);
        int q = min((int)(x * inverse + 8.5f), 15);
        int high = __shfl_down_sync(~0u, q, 16);
        if (lane < 16) block->q[lane] = (uint8_t)(q | high << 4);
        if (lane == 0) block->scale = bits;
    }
};

/* Weights of q4_k, too (cca_dtype_convert). */
template <> struct traits<CCA_Q4_1> : min_traits<CCA_Q4_1, cuda_nibbles> {
    enum { UNROLL = 2, STAGE = 2048, PIECES = BYTES / 2 };

    static __device__ __forceinline__ void lay_out(void *q, void *scale, const void *file,
                                                   int64_t block, int piece) {
        cuda_lay_out_pairs<traits>(q, scale, file, block, piece);
    }
};

/* Weights of q5_k, too. Values have a byte: the fifth bits, were they apart, would be a third copy,
 * and have to be put in place by everybody who multiplies. */
template <> struct traits<CCA_Q5_1> : min_traits<CCA_Q5_1, cuda_bytes> {
    enum { UNROLL = 4, STAGE = 2048, PIECES = 1 };

    static __device__ __forceinline__ void lay_out(void *q, void *scale, const void *file,
                                                   int64_t block, int) {
        const cca_q5_1 *from = (const cca_q5_1 *)file + block;
        cca_apart a;
        cca_apart_q5_1(&a, 0, from);
        cuda_lay_out_bytes(q, block * BLOCK, a, BLOCK);
        ((ushort2 *)scale)[block] = make_ushort2(from->d, from->min);
    }
};

/* Values have a byte, and 16 of them a scale: the block's times their own, rounded to f16, by
 * 2^-11 at most. */
template <> struct traits<CCA_Q6_K> : byte_traits<CCA_Q6_K, CCA_SCALED> {
    enum { UNROLL = 4, STAGE = 2048, PIECES = 1 };

    static __device__ __forceinline__ void lay_out(void *q, void *scale, const void *file,
                                                   int64_t block, int) {
        enum { SCALES = CCA_LARGE_BLOCK / CCA_SCALED };
        cca_apart a;
        cca_apart_q6_k(&a, 0, (const cca_q6_k *)file + block);
        cuda_lay_out_bytes(q, block * CCA_LARGE_BLOCK, a, CCA_LARGE_BLOCK);
        for (int s = 0; s < SCALES; s++) {
            ((__half *)scale)[block * SCALES + s] = __float2half_rn(a.scale[s]);
        }
    }
};

/* ---- types that are known at run time only --------------------------------------------- */

/* A set of types; the last stands for all that are not in it. */
template <cca_dtype FIRST, cca_dtype... REST> struct type_set {
    static __host__ __device__ constexpr bool has(cca_dtype type) {
        return type == FIRST || (... || (type == REST));
    }

    /* f(traits) of a type. */
#pragma nv_exec_check_disable
    template <typename F>
    static __host__ __device__ __forceinline__ auto with(cca_dtype type, F f) {
        if constexpr (sizeof...(REST) > 0) {
            if (type != FIRST) return type_set<REST...>::with(type, f);
        }
        return f(traits<FIRST>());
    }
};

typedef type_set<CCA_F16, CCA_BF16, CCA_Q8_0, CCA_Q4_0, CCA_F32> cache_types;
typedef type_set<CCA_F16, CCA_BF16, CCA_Q8_0, CCA_Q4_0, CCA_Q4_1, CCA_Q5_1, CCA_Q6_K, CCA_F32>
    weight_types;

#pragma nv_exec_check_disable
template <typename F>
static __host__ __device__ __forceinline__ auto cuda_with_traits(cca_dtype type, F f) {
    return weight_types::with(type, f);
}

/* Value i of a matrix, counted row by row; value i of a cache's rows. */
static __device__ __forceinline__ float cuda_weight_at(const cuda_weights &w, int64_t i) {
    return cuda_with_traits(w.type, [&](auto t) { return decltype(t)::weight(w, i); });
}

static __device__ __forceinline__ float cuda_row_value(const void *rows, cca_dtype type,
                                                       int64_t i) {
    return cache_types::with(type, [&](auto t) { return decltype(t)::value(rows, i); });
}

/* Puts the value of each lane into a cache as values i … i + 31; see traits. */
static __device__ __forceinline__ void cuda_put(void *rows, cca_dtype type, int64_t i, float x,
                                                int n_lanes) {
    int lane = (int)(threadIdx.x % CUDA_WARP);
    cache_types::with(type, [&](auto t) { decltype(t)::put(rows, i, x, lane, n_lanes); });
}

/* Bytes of the values of n weights of a row, without scales. */
template <typename T> static __host__ __device__ constexpr int64_t cuda_value_bytes(int64_t n) {
    return (int)T::BYTES >= (int)T::BLOCK ? n * (T::BYTES / T::BLOCK) : n / (T::BLOCK / T::BYTES);
}

/* ---- on the host ----------------------------------------------------------------------- */

static inline bool cuda_has_blocks(cca_dtype type) {
    return cuda_with_traits(type, [](auto t) { return decltype(t)::BLOCK > 1; });
}

static inline bool cuda_is_half(cca_dtype type) {
    return cuda_with_traits(
        type, [](auto t) { return decltype(t)::BLOCK == 1 && decltype(t)::BYTES == 2; });
}

static inline bool cuda_is_exact(cca_dtype type) {
    return cuda_with_traits(type, [](auto t) { return decltype(t)::EXACT; });
}

static inline bool cuda_is_operand(cca_dtype type) {
    return cuda_with_traits(type, [](auto t) { return decltype(t)::IS_OPERAND; });
}

/* Bytes of a matrix on the device. */
static inline size_t cuda_weight_bytes(const cca_matrix *m) {
    return cuda_with_traits(m->type, [=](auto t) {
        typedef decltype(t) T;
        int64_t n = m->rows * m->cols;
        return (size_t)(cuda_value_bytes<T>(n) + n / T::BLOCK * T::SCALE_BYTES);
    });
}

static inline cuda_weights cuda_weights_of(const cca_matrix *m) {
    int64_t bytes = cuda_with_traits(
        m->type, [=](auto t) { return cuda_value_bytes<decltype(t)>(m->rows * m->cols); });
    const char *scale = cuda_has_blocks(m->type) ? (const char *)m->data + bytes : NULL;
    return cuda_weights{m->data, scale, m->type, m->rows, m->cols};
}

#endif
