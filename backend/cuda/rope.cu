/* Rotary position embedding: angles, rotation, and both with the storing of keys and values. */
#include "backend/cuda/rope.cuh"

#include <stdlib.h>

enum { THREADS = 256 };

static __global__ void angles(float2 *out, const double *inv_freq, float scale, float still,
                              int64_t pos, int64_t half, int64_t n) {
    cuda_begin();
    int64_t i = cuda_index();
    if (i >= n) return;
    const double freq = inv_freq[i % half], factor = freq == 0 ? still : scale;
    double sine, cosine;
    sincos((double)(pos + i / half) * freq, &sine, &cosine);
    out[i] = make_float2((float)(cosine * factor), (float)(sine * factor));
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
                (float2 *)out->data, freq, rope->scale, rope->still, pos, rope->half,
                n * rope->half);
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

/* Grid: tokens, blocks of a token's octets. */
static __global__ void rotate_store(const __grid_constant__ turn_args a) {
    cuda_begin();
    int i = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (i < turn_octets(a)) turn_octet(a, blockIdx.x, i);
}

bool cuda_rotate_store(cca_backend *base, cca_rows *rows, cca_matrix *q, cca_matrix *k,
                       const cca_matrix *v, const cca_turn *turn, int64_t pos, int64_t n) {
    cuda_backend *b = cuda_of(base);
    int64_t hd = rows->head_dim, n_heads = q->cols / hd;
    bool halved = cuda_is_half(rows->k_type) && cuda_is_half(rows->v_type);
    if (!b->forms.fused || !halved || hd % 8 != 0) return false;
    turn_args a = {*rows,
                   (float *)q->data,
                   (const float *)k->data,
                   (const float *)v->data,
                   (const float2 *)turn->angles->data,
                   pos,
                   (int)n_heads,
                   (int)rows->heads,
                   turn->rope->interleaved};
    if (n == 1 && cuda_token_turn(b, &a)) return true;
    cuda_launch(b, "rotate", rotate_store, dim3((unsigned)n, cuda_blocks(turn_octets(a), THREADS)),
                THREADS, 0, a);
    return true;
}
