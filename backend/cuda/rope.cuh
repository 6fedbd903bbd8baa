/* Rotation of queries and keys with the storing of keys and values, eight values a thread:
 * what the kernel of rope.cu and that of token.cu share.
 *
 *     turn_args a = {rows, q, k, v, angles, pos, n_heads, kv_heads, interleaved};
 *     if (i < turn_octets(a)) turn_octet(a, token, i);            // i: of the token's octets */
#ifndef CCA_CUDA_ROPE_CUH
#define CCA_CUDA_ROPE_CUH

#include "backend/cuda/types.cuh"

/* Eight values of a head: for queries and keys four pairs, of dims d … and, where pairs are not
 * interleaved, d + half …; for values, eight in a row. */
struct octet {
    float4 low, high;
};

static __device__ __forceinline__ float2 turned(float a, float b, float cosine, float sine) {
    return make_float2(a * cosine - b * sine, b * cosine + a * sine);
}

/* Rotates four pairs; the angles of the first. */
template <bool interleaved>
static __device__ __forceinline__ octet rotate_octet(octet x, const float4 *turn) {
    float4 first = turn[0], second = turn[1]; /* cos, sin, cos, sin */
    float4 a = x.low, b = x.high;
    if (interleaved) {
        float2 p = turned(a.x, a.y, first.x, first.y), q = turned(a.z, a.w, first.z, first.w);
        float2 r = turned(b.x, b.y, second.x, second.y), s = turned(b.z, b.w, second.z, second.w);
        return octet{make_float4(p.x, p.y, q.x, q.y), make_float4(r.x, r.y, s.x, s.y)};
    }
    float2 p = turned(a.x, b.x, first.x, first.y), q = turned(a.y, b.y, first.z, first.w);
    float2 r = turned(a.z, b.z, second.x, second.y), s = turned(a.w, b.w, second.z, second.w);
    return octet{make_float4(p.x, q.x, r.x, s.x), make_float4(p.y, q.y, r.y, s.y)};
}

/* Four values rounded to a 16-bit type. */
template <bool is_bf16> static __device__ __forceinline__ uint2 halves(float4 v) {
    return make_uint2(cuda_half<is_bf16>::round_two(v.x, v.y),
                      cuda_half<is_bf16>::round_two(v.z, v.w));
}

static __device__ __forceinline__ uint2 halves(float4 v, bool is_bf16) {
    return is_bf16 ? halves<true>(v) : halves<false>(v);
}

struct turn_args {
    cca_rows rows;
    float *q;
    const float *k, *v;
    const float2 *angles;
    int64_t pos;
    int n_heads, kv_heads;
    bool interleaved;
};

/* Octets of a token: those of its queries, keys and values. */
static __host__ __device__ __forceinline__ int turn_octets(const turn_args &a) {
    return (a.n_heads + 2 * a.kv_heads) * (int)(a.rows.head_dim / 8);
}

static __device__ __forceinline__ void read_eight(float x[8], const float *from) {
    *(float4 *)x = __ldcg((const float4 *)from);
    *(float4 *)(x + 4) = __ldcg((const float4 *)from + 1);
}

/* Eight values in a row of a head, the piece-th, rotated. */
template <int HD>
static __device__ __forceinline__ void
rotate_eight(float x[8], const float *head, const float2 *angles, int piece, bool interleaved) {
    enum { HALF = HD / 16 }; /* pieces of half a head */
    read_eight(x, head + piece * 8);
    if (interleaved) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 angle = angles[piece * 4 + i];
            *(float2 *)(x + 2 * i) = turned(x[2 * i], x[2 * i + 1], angle.x, angle.y);
        }
        return;
    }
    __align__(16) float y[8];
    float sign = piece < HALF ? 1 : -1;
    read_eight(y, head + (piece ^ HALF) * 8);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float2 angle = angles[piece % HALF * 8 + i];
        x[i] = turned(x[i], y[i], angle.x, sign * angle.y).x;
    }
}

static __device__ __forceinline__ void turn_octet(const turn_args &a, int64_t token, int i) {
    int hd = (int)a.rows.head_dim, of_head = hd / 8, head = i / of_head, part = i % of_head;
    bool is_query = head < a.n_heads, is_value = head >= a.n_heads + a.kv_heads;
    bool in_a_row = is_value || a.interleaved;
    int d = in_a_row ? part * 8 : part * 4, up = in_a_row ? 4 : hd / 2;
    int own = is_query ? head : (head - a.n_heads) % a.kv_heads;
    const float *from = is_query ? a.q : is_value ? a.v : a.k;
    int64_t at = (token * (is_query ? a.n_heads : a.kv_heads) + own) * hd + d;
    octet x = {*(const float4 *)(from + at), *(const float4 *)(from + at + up)};
    if (!is_value) {
        const float4 *turn = (const float4 *)(a.angles + token * (hd / 2) + part * 4);
        x = a.interleaved ? rotate_octet<true>(x, turn) : rotate_octet<false>(x, turn);
    }
    if (is_query) {
        *(float4 *)(a.q + at) = x.low;
        *(float4 *)(a.q + at + up) = x.high;
        return;
    }
    int64_t row = (int64_t)own * a.rows.capacity + cca_rows_at(&a.rows, a.pos + token);
    uint16_t *to = (uint16_t *)(is_value ? a.rows.v : a.rows.k) + row * hd + d;
    bool is_bf16 = (is_value ? a.rows.v_type : a.rows.k_type) == CCA_BF16;
    *(uint2 *)to = halves(x.low, is_bf16);
    *(uint2 *)(to + up) = halves(x.high, is_bf16);
}

#endif
