/* What the CUDA files share: the backend's struct, launches, what warps do. Types: types.cuh.
 *
 *     static __global__ void double_it(float *x, int64_t n) {
 *         cuda_begin();
 *         int64_t i = cuda_index();
 *         if (i < n) x[i] *= 2;
 *     }
 *     cuda_launch(b, "double", double_it, cuda_blocks(n, 256), 256, 0, x, n);
 *
 * Everything of a backend runs on its own stream, in the order of the calls; nothing is global,
 * so each GPU can have backends of its own. Host functions return nothing: the first failure
 * sticks in the backend (see backend.h). */
#ifndef CCA_CUDA_DEVICE_CUH
#define CCA_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <library_types.h>

#include <csignal>
#include <cstdint>
#include <math.h>
#include <string.h>

extern "C" {
#include "backend/cuda/forms.h"
}

enum {
    CUDA_WARP = 32,
    CUDA_FEW = 4,              /* rows of x up to which products read weights as they are */
    CUDA_MOST_BLOCKS = 65535,  /* of a grid, along y and z */
    CUDA_WORKSPACE = 32 << 20, /* of cuBLASLt: what NVIDIA recommends for Hopper */
};

/* Memory on the device that grows at a new shape only. */
struct cuda_buffer {
    void *data;
    size_t bytes;
};

struct cuda_pinned; /* host_rows.cu */
struct cuda_blas;   /* blas.cu */
struct cuda_steps;  /* token.cu */
struct turn_args;   /* rope.cuh */
struct choice_call; /* choose.cuh */

struct cuda_backend {
    cca_backend base;
    int device, n_sm, capability; /* 90: compute capability 9.0 */
    cca_cuda_forms forms;         /* those that this GPU can do */
    cudaStream_t stream;
    cuda_blas *blas;
    cuda_steps *steps;     /* of a token, not yet carried out; NULL without forms.stream */
    cuda_buffer pinned;    /* in host memory: what goes back to the host */
    cuda_buffer ids, freq; /* what comes from the host with a call */
    double *freq_host;     /* what freq holds */
    size_t freq_bytes;
    bool fp8;            /* products of many rows in bytes */
    cuda_buffer x8, w8;  /* operands in bytes */
    cuda_buffer x, w;    /* operands of a product in the form it wants */
    const void *twin_of; /* whose first twin_n values x holds as bf16, until the next launch */
    int64_t twin_n;
    cuda_buffer partial, count; /* of attention that is split over keys */
    cuda_buffer sums;           /* of softmaxes that another kernel goes on with */
    cuda_buffer scores;         /* of groups that are chosen from */
    cuda_pinned *host;          /* memory of the host that stays in place */
    cudaStream_t link; /* of copies that come beside the operations; NULL before the first */
    cudaEvent_t here, brought; /* in the one stream, which the other waits for */
};

static inline cuda_backend *cuda_of(cca_backend *b) {
    return (cuda_backend *)b;
}

/* An operand of a product of many rows: rows of f32, bf16, or 8-bit floats, these with a scale for
 * each row. data is NULL after a failure. */
struct cuda_operand {
    const void *data;
    cudaDataType_t type;
    const float *scale;
};

/* Records a failure of the runtime in what the backend was doing; true if there is none. */
bool cuda_check(cuda_backend *b, cudaError_t error, const char *what);
/* Room for bytes in a buffer (its contents are lost); NULL after a failure. */
void *cuda_grow(cuda_backend *b, cuda_buffer *buffer, size_t bytes);

/* Whether memory can be given back, which nothing uses any more then. The runtime waits by itself
 * for what other streams do. */
bool cuda_settle(cuda_backend *b);

/* Whether the next allocation is the one that is to fail. */
static inline bool cuda_fails(cuda_backend *b) {
    return b->forms.failing > 0 && --b->forms.failing == 0;
}

/* Copies from host memory, which may change after the call. */
void cuda_push(cuda_backend *b, void *out, const void *host, size_t bytes);

/* ---- products (blas.cu, gemv.cu, elementwise.cu) ----------------------------------- */

/* cuBLASLt, looked for when a backend is made; NULL after a failure. */
cuda_blas *cuda_blas_new(cuda_backend *b);
void cuda_blas_free(cuda_blas *blas);
/* One product, out f32 or (out16) bf16; w (rows, cols), x (n, cols), of one type, out (n, rows).
 * False where the library has no algorithm for the shape: nothing is done then. */
bool cuda_blas_product(cuda_backend *b, const cca_product *p, const cuda_operand *w,
                       const cuda_operand *x, bool out16, int64_t n);
/* The same with the product's weights, converted to the type of x. */
bool cuda_product(cuda_backend *b, const cca_product *p, const cuda_operand *x, bool out16,
                  int64_t n);
/* Products of few rows of x, on the weights as they are. All weights have one type. */
void cuda_gemv(cuda_backend *b, const cca_product *products, int n_products, const cca_matrix *x,
               int64_t n);
/* Whether a product of many rows runs in 8-bit floats (fp8.cu). */
bool cuda_bytes_suit(const cuda_backend *b, const cca_product *p);
/* Rows in 8-bit floats: of n bf16 rows, into a buffer; of silu(gate) * up, both bf16; of the norm
 * of n rows of x. */
cuda_operand cuda_bytes_of(cuda_backend *b, cuda_buffer *buffer, const void *x16, int64_t n,
                           int64_t cols);
cuda_operand cuda_bytes_of_gated(cuda_backend *b, const void *gate, const void *up, int64_t n,
                                 int64_t cols);
cuda_operand cuda_bytes_of_norm(cuda_backend *b, const cca_matrix *x, int64_t x_row,
                                const cca_matrix *weight, float eps, int64_t n);
/* Operations whose output is multiplied next write it a second time, as bf16: where to, or NULL
 * where products of n tokens will not want it; and after the launch, that it is there. */
__nv_bfloat16 *cuda_twin(cuda_backend *b, const cca_matrix *out, int64_t n);
void cuda_set_twin(cuda_backend *b, const cca_matrix *out, int64_t n);
/* n values as bf16. */
void cuda_to_bf16(cuda_backend *b, void *out, const float *x, int64_t n);
/* A matrix of weights as bf16. */
void cuda_weights_to_bf16(cuda_backend *b, void *out, const cca_matrix *w);
/* Lays weights with blocks out as types.cuh describes. */
void cuda_repack(cuda_backend *b, void *out, const void *file, const cca_matrix *shape);

/* ---- steps of a token, on Hopper and newer (token.cu) ---------------------------------- */

void cuda_token_prepare(cuda_backend *b); /* once, before the first */
void cuda_token_free(cuda_backend *b);
/* Carries out what has been collected. Whatever uses the stream otherwise, or frees memory, calls
 * it before. */
void cuda_token_run(cuda_backend *b);
/* To be called when the stream was waited for. */
void cuda_token_waited(cuda_backend *b);

/* What x is normalised with before a product. */
struct cuda_norm {
    const float *weight;
    float eps;
};
/* These collect an operation on one row; false where shapes, types or the GPU do not suit. Products
 * of x, or of its norm; gated: of two products, silu(first) * second goes to the first's output. */
bool cuda_token_products(cuda_backend *b, const cca_product *products, int n_products, bool gated,
                         const float *x, const cuda_norm *norm);
/* Rows of a token's x in place, where steps have been collected: its heads. */
bool cuda_token_norm(cuda_backend *b, float *x, int64_t rows, int64_t cols, const cuda_norm *norm);
bool cuda_token_turn(cuda_backend *b, const turn_args *a);
bool cuda_token_choose(cuda_backend *b, const choice_call *c);
bool cuda_token_attend(cuda_backend *b, cca_matrix *out, const cca_spans *spans,
                       const cca_matrix *q, int64_t pos);

/* ---- rows in host memory (host_rows.cu) ------------------------------------------------- */

void *cuda_alloc_host(cca_backend *b, size_t bytes);
void cuda_release_host(cca_backend *b, void *data);
void cuda_bring(cca_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos, int64_t n);
void cuda_brought(cca_backend *b);
void cuda_send(cca_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos, int64_t n);
void cuda_gather(cca_backend *b, const cca_rows *out, const cca_rows *in, const cca_choice *choice,
                 int64_t n_tiles);
void cuda_renew(cca_backend *b, const cca_kept *kept, const cca_rows *in, const cca_choice *choice,
                int64_t n_known);
/* Rows of a type with blocks as ones in 16 bits, keys or values; false where their places or types
 * do not suit. */
bool cuda_spread(cuda_backend *b, void *out, cca_dtype out_type, const void *in, cca_dtype in_type,
                 const cca_rows *to, const cca_rows *from, int64_t pos, int64_t n);
/* To be called when the stream was waited for, before buffers go. */
void cuda_link_free(cuda_backend *b);

/* ---- the operations of the table that are kernels (elementwise.cu, rope.cu, layer_parts.cu,
 * choose.cu, cca_cuda.cu)
 * ------------------------------------------------------------------------------- */

void cuda_embed(cca_backend *b, cca_matrix *out, const cca_matrix *table, const int32_t *ids,
                float scale, int64_t n);
/* The norm of n rows of x as bf16 alone, in the backend's buffer; NULL where rows are too long. */
void *cuda_rmsnorm16(cuda_backend *b, const cca_matrix *x, int64_t x_row, const cca_matrix *weight,
                     float eps, int64_t n);
/* gate = silu(gate) * up, all bf16. */
void cuda_swiglu16(cuda_backend *b, void *gate, const void *up, int64_t n_values);
void cuda_rmsnorm(cca_backend *b, cca_matrix *out, const cca_matrix *x, int64_t x_row,
                  const cca_matrix *weight, float eps, int64_t n);
void cuda_angles(cca_backend *b, cca_matrix *out, const cca_rope *rope, int64_t pos, int64_t n);
void cuda_rotate(cca_backend *b, cca_matrix *x, const cca_matrix *angles, const cca_rope *rope,
                 int64_t n);
bool cuda_norm_matmul(cca_backend *b, const cca_product *products, int n_products, cca_matrix *h,
                      const cca_matrix *x, int64_t x_row, const cca_matrix *weight, float eps,
                      int64_t n);
bool cuda_feed_forward(cca_backend *b, cca_matrix *x, const cca_ffn *f, int64_t n);
bool cuda_rotate_store(cca_backend *b, cca_rows *rows, cca_matrix *q, cca_matrix *k,
                       const cca_matrix *v, const cca_turn *turn, int64_t pos, int64_t n);
void cuda_swiglu(cca_backend *b, cca_matrix *gate, const cca_matrix *up, int64_t n);
void cuda_relu_squared(cca_backend *b, cca_matrix *x, int64_t n);
void cuda_accumulate(cca_backend *b, cca_matrix *x, const cca_matrix *y, int64_t n);
void cuda_store(cca_backend *b, cca_rows *rows, const cca_matrix *k, const cca_matrix *v,
                int64_t pos, int64_t n);
void cuda_move(cca_backend *b, cca_rows *out, const cca_rows *in, int64_t pos, int64_t n);
void cuda_pool(cca_backend *b, const cca_groups *groups, const cca_matrix *q, int64_t pos,
               int64_t n);
void cuda_bound(cca_backend *b, const cca_groups *groups, int64_t pos, int64_t n);
void cuda_choose(cca_backend *b, const cca_choice *out, const cca_rows *bounds,
                 const cca_rows *blocks, const cca_range *groups, const cca_matrix *q, int64_t pos,
                 int64_t n);
/* Bytes that it keeps for scores in layers of such sizes. */
size_t cuda_choose_room(cuda_backend *b, const cca_layer_sizes *layer);
void cuda_attend(cca_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                 int64_t pos, int64_t n);

/* Pooling of the fast shapes (pool.cu); false where others do it. */
bool cuda_pool_halves(cuda_backend *b, const cca_groups *groups, const cca_matrix *q, int64_t pos,
                      int64_t first, int64_t count);

/* ---- forms of attention --------------------------------------------------------------------- */

/* Any shape, any types, and any choice of keys. */
void cuda_attend_plain(cuda_backend *b, cca_matrix *out, const cca_spans *spans,
                       const cca_matrix *q, int64_t pos, int64_t n);
/* These do nothing and say false where a shape or the GPU does not suit them (attend_sm90.cu and
 * attend_mma.cu, for many queries and spans of all keys or chosen ones; attend_few.cu, for few
 * queries). sums: room for log2 of what each query's and head's softmax was divided by,
 * [n][n_heads], for who goes on with it; or NULL. */
bool cuda_attend_sm90(cuda_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                      int64_t pos, int64_t n, float *sums);
bool cuda_attend_mma(cuda_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                     int64_t pos, int64_t n, float *sums);
bool cuda_attend_few(cuda_backend *b, cca_matrix *out, const cca_spans *spans, const cca_matrix *q,
                     int64_t pos, int64_t n);
/* Goes on over a span of groups that were not chosen (attend_others.cu), where that suits: out has
 * what the keys before gave, and sums is theirs. */
bool cuda_others_suit(const cca_spans *others, const cca_matrix *q, int64_t pos, int64_t n);
void cuda_attend_others(cuda_backend *b, cca_matrix *out, const cca_spans *others,
                        const cca_matrix *q, int64_t pos, int64_t n, const float *sums);

/* ---- launches ------------------------------------------------------------------------------ */

static inline unsigned cuda_blocks(int64_t n, int64_t in_a_block) {
    return (unsigned)((n + in_a_block - 1) / in_a_block);
}

/* With forms.early a kernel is put in place while the one before it still runs; it waits for that
 * one's results in cuda_begin. cluster: blocks along x that share their memory (cluster.cuh). */
template <typename... Parameters, typename... Arguments>
static void cuda_launch_clusters(cuda_backend *b, const char *what, void (*kernel)(Parameters...),
                                 dim3 grid, unsigned cluster, int threads, size_t shared,
                                 Arguments... arguments) {
    b->twin_of = NULL;
    cuda_token_run(b);
    if (b->base.status || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    /* The runtime's current device is a thread's; a backend may change threads between calls. */
    if (!cuda_check(b, cudaSetDevice(b->device), what)) return;
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = (unsigned)threads;
    config.dynamicSmemBytes = shared;
    config.stream = b->stream;
    config.attrs = attributes;
    if (b->forms.early) {
        cudaLaunchAttribute *early = &attributes[config.numAttrs++];
        early->id = cudaLaunchAttributeProgrammaticStreamSerialization;
        early->val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster > 1) {
        cudaLaunchAttribute *shape = &attributes[config.numAttrs++];
        shape->id = cudaLaunchAttributeClusterDimension;
        shape->val.clusterDim.x = cluster;
        shape->val.clusterDim.y = shape->val.clusterDim.z = 1;
    }
    cuda_check(b, cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), what);
}

template <typename... Parameters, typename... Arguments>
static void cuda_launch(cuda_backend *b, const char *what, void (*kernel)(Parameters...), dim3 grid,
                        int threads, size_t shared, Arguments... arguments) {
    cuda_launch_clusters(b, what, kernel, grid, 1, threads, shared, arguments...);
}

/* ---- on the device ------------------------------------------------------------------------- */

/* Each kernel calls it first: lets the next kernel be put in place, and waits for what the one
 * before has written. Only weights may be read earlier. */
static __device__ __forceinline__ void cuda_begin() {
#if __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();
    cudaGridDependencySynchronize();
#endif
}

static __device__ __forceinline__ int64_t cuda_index() {
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

/* The address of shared memory that instructions of PTX want. */
static __device__ __forceinline__ uint32_t cuda_shared(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* What q · k is multiplied with to be a score in units of log 2: log2(e) / sqrt(head_dim). */
template <int HD> static __device__ __forceinline__ float cuda_score_unit() {
    static_assert(HD == 64 || HD == 128, "no root at compile time");
    return (HD == 64 ? 0.125f : 0.08838834764831845f) * 1.4426950408889634f;
}

/* silu(gate) * up. */
static __device__ __forceinline__ float cuda_gated(float gate, float up) {
    return gate / (1 + expf(-gate)) * up;
}

/* Puts four values into a twin. */
static __device__ __forceinline__ void cuda_put_twin(__nv_bfloat16 *twin, int64_t i, float4 v) {
    __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(v.x, v.y), __floats2bfloat162_rn(v.z, v.w)};
    uint2 bits;
    memcpy(&bits, pairs, sizeof bits);
    *(uint2 *)(twin + i) = bits;
}

/* NaN where one of the two is. */
static __device__ __forceinline__ float cuda_larger(float a, float b) {
    float c;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
    return c;
}

static __device__ __forceinline__ float cuda_warp_sum(float x) {
#pragma unroll
    for (int step = CUDA_WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

static __device__ __forceinline__ int cuda_warp_count(int x) {
    return __reduce_add_sync(~0u, x);
}

static __device__ __forceinline__ float cuda_warp_max(float x) {
#pragma unroll
    for (int step = CUDA_WARP / 2; step > 0; step /= 2) {
        x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
    }
    return x;
}

#endif
