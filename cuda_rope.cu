/* Rotary position embedding: angles, rotation, and both with the storing of keys and values. */
#include "cuda.cuh"

#include <stdlib.h>

enum { THREADS = 256 };

static __global__ void angles(float2 *out, const double *inv_freq, float scale, int64_t pos,
                              int64_t half, int64_t n) {
    cuda_begin();
    int64_t i = cuda_index();
    if (i >= n) return;
    double sine, cosine;
    sincos((double)(pos + i / half) * inv_freq[i % half], &sine, &cosine);
    out[i] = make_float2((float)(cosine * scale), (float)(sine * scale));
}

/* The frequencies in the device's memory: one model's are the same in each call. */
static const double *push_frequencies(cuda_backend *b, const cca_rope *rope) {
    size_t bytes = (size_t)rope->half * sizeof *rope->inv_freq;
    if (b->freq_bytes == bytes && memcmp(b->freq_host, rope->inv_freq, bytes) == 0) {
        return (const double *)b->freq.data;
    }
    double *copy = (double *)realloc(b->freq_host, bytes);
    if (!copy) {
        cca_backend_fail(&b->base, CCA_NO_MEMORY, "no memory for the RoPE frequencies");
        return NULL;
    }
    b->freq_host = copy;
    b->freq_bytes = 0;
    void *freq = cuda_grow(b, &b->freq, bytes);
    if (!freq) return NULL;
    memcpy(b->freq_host, rope->inv_freq, bytes);
    cuda_push(b, freq, rope->inv_freq, bytes);
    b->freq_bytes = bytes;
    return (const double *)freq;
}

void cuda_angles(cca_backend *base, cca_matrix *out, const cca_rope *rope, int64_t pos, int64_t n) {
    cuda_backend *b = cuda_of(base);
    const double *freq = push_frequencies(b, rope);
    if (!freq) return;
    cuda_launch(b, "angles", angles, cuda_blocks(n * rope->half, THREADS), THREADS, 0,
                (float2 *)out->data, freq, rope->scale, pos, rope->half, n * rope->half);
}

/* Grid: rows, blocks of a row's pairs; one thread a pair. */
static __global__ void rotate(float *x, const float2 *turn, int pairs, int half_dim,
                              bool interleaved) {
    cuda_begin();
    int pair = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (pair >= pairs) return;
    int head = pair / half_dim, k = pair - head * half_dim;
    float *a = x + (int64_t)blockIdx.x * 2 * pairs + head * 2 * half_dim;
    a += interleaved ? 2 * k : k;
    float *b = a + (interleaved ? 1 : half_dim);
    float2 t = turn[(int64_t)blockIdx.x * half_dim + k];
    float first = *a, second = *b;
    *a = first * t.x - second * t.y;
    *b = second * t.x + first * t.y;
}

void cuda_rotate(cca_backend *b, cca_matrix *x, const cca_matrix *turn, const cca_rope *rope,
                 int64_t n) {
    int64_t pairs = x->cols / 2;
    cuda_launch(cuda_of(b), "rotate", rotate, dim3((unsigned)n, cuda_blocks(pairs, THREADS)),
                THREADS, 0, (float *)x->data, (const float2 *)turn->data, (int)pairs,
                (int)rope->half, rope->interleaved);
}

/* ---- rotation and storing in one ------------------------------------------------------- */

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
static __device__ __forceinline__ uint2 halves(float4 v, bool is_bf16) {
    uint2 bits;
    if (is_bf16) {
        __nv_bfloat162 p[2] = {__floats2bfloat162_rn(v.x, v.y), __floats2bfloat162_rn(v.z, v.w)};
        memcpy(&bits, p, sizeof bits);
    } else {
        __half2 p[2] = {__floats2half2_rn(v.x, v.y), __floats2half2_rn(v.z, v.w)};
        memcpy(&bits, p, sizeof bits);
    }
    return bits;
}

struct turn_args {
    cca_rows rows;
    float *q;
    const float *k, *v;
    const float2 *angles;
    int64_t pos;
    int n_heads, kv_heads;
};

/* Grid: tokens, blocks of a token's octets: those of its queries, keys, values. */
template <bool interleaved>
static __global__ void rotate_store(const __grid_constant__ turn_args a) {
    cuda_begin();
    int hd = (int)a.rows.head_dim, of_head = hd / 8;
    int i = (int)(blockIdx.y * blockDim.x + threadIdx.x), head = i / of_head, part = i % of_head;
    if (head >= a.n_heads + 2 * a.kv_heads) return;
    bool is_query = head < a.n_heads, is_value = head >= a.n_heads + a.kv_heads;
    int d = is_value || interleaved ? part * 8 : part * 4,
        up = is_value || interleaved ? 4 : hd / 2;
    int own = is_query ? head : (head - a.n_heads) % a.kv_heads;
    const float *from = is_query ? a.q : is_value ? a.v : a.k;
    int64_t at = ((int64_t)blockIdx.x * (is_query ? a.n_heads : a.kv_heads) + own) * hd + d;
    octet x = {*(const float4 *)(from + at), *(const float4 *)(from + at + up)};
    if (!is_value) {
        const float2 *turn = a.angles + (int64_t)blockIdx.x * (hd / 2) + part * 4;
        x = rotate_octet<interleaved>(x, (const float4 *)turn);
    }
    if (is_query) {
        *(float4 *)(a.q + at) = x.low;
        *(float4 *)(a.q + at + up) = x.high;
        return;
    }
    int64_t row = (int64_t)own * a.rows.capacity + cca_rows_at(&a.rows, a.pos + blockIdx.x);
    uint16_t *to = (uint16_t *)(is_value ? a.rows.v : a.rows.k) + row * hd + d;
    bool is_bf16 = (is_value ? a.rows.v_type : a.rows.k_type) == CCA_BF16;
    *(uint2 *)to = halves(x.low, is_bf16);
    *(uint2 *)(to + up) = halves(x.high, is_bf16);
}

bool cuda_rotate_store(cca_backend *base, cca_rows *rows, cca_matrix *q, cca_matrix *k,
                       const cca_matrix *v, const cca_turn *turn, int64_t pos, int64_t n) {
    cuda_backend *b = cuda_of(base);
    int64_t hd = rows->head_dim, n_heads = q->cols / hd;
    bool halved = (rows->k_type == CCA_BF16 || rows->k_type == CCA_F16) &&
                  (rows->v_type == CCA_BF16 || rows->v_type == CCA_F16);
    if (!b->forms.fused || !halved || hd % 8 != 0) return false;
    turn_args a = {*rows,
                   (float *)q->data,
                   (const float *)k->data,
                   (const float *)v->data,
                   (const float2 *)turn->angles->data,
                   pos,
                   (int)n_heads,
                   (int)rows->heads};
    int64_t octets = (n_heads + 2 * rows->heads) * (hd / 8);
    cuda_launch(b, "rotate", turn->rope->interleaved ? rotate_store<true> : rotate_store<false>,
                dim3((unsigned)n, cuda_blocks(octets, THREADS)), THREADS, 0, a);
    return true;
}
