/* Rows of a cache in memory of the host: pinned, so that kernels read and write it through the link
 * where it lies, and the copy engines beside them; and groups that are gathered out of it.
 *
 * Whole layers go by the copy engines, on a stream of their own:
 *
 *     stream   … store L | attention L ……… | products ……… | store L + 1 | attention L + 1 …
 *     link               | rows of L + 1 ………………………… |             | rows of L + 2 …
 *
 * Both wait for the other's events alone, never the host. */
#include "backend/cuda/types.cuh"

enum {
    THREADS = 128,
    WARPS = THREADS / CUDA_WARP,
    MOST_STAGED = 24 << 10, /* bytes of some rows of a group in shared memory */
};

/* ---- memory -------------------------------------------------------------------------- */

void *cuda_alloc_host(cca_backend *base, size_t bytes) {
    cuda_backend *b = cuda_of(base);
    void *data = NULL;
    if (!cuda_check(b, cudaSetDevice(b->device), "device")) return NULL;
    cudaError_t error =
        cudaHostAlloc(&data, bytes ? bytes : 1, cudaHostAllocPortable | cudaHostAllocMapped);
    if (error == cudaSuccess) return data; /* one address for both, as all devices of 8.0 have it */
    cudaGetLastError();
    cca_backend_fail(base, CCA_NO_MEMORY,
                     "cuda:%d: no memory of the host for %zu bytes that stay in place: %s",
                     b->device, bytes, cudaGetErrorString(error));
    return NULL;
}

/* Waits for what still uses it. */
void cuda_release_host(cca_backend *base, void *data) {
    cuda_backend *b = cuda_of(base);
    cuda_token_run(b);
    cudaSetDevice(b->device);
    cudaStreamSynchronize(b->stream);
    if (b->link) cudaStreamSynchronize(b->link);
    cudaFreeHost(data);
}

void cuda_link_free(cuda_backend *b) {
    if (b->link) cudaStreamSynchronize(b->link);
    if (b->here) cudaEventDestroy(b->here);
    if (b->brought) cudaEventDestroy(b->brought);
    if (b->link) cudaStreamDestroy(b->link);
    b->link = NULL;
    b->here = b->brought = NULL;
}

/* ---- whole rows ---------------------------------------------------------------------- */

/* What is collected runs, and the device is this thread's. */
static bool begin(cuda_backend *b) {
    b->twin_of = NULL;
    cuda_token_run(b);
    return !b->base.status && cuda_check(b, cudaSetDevice(b->device), "copy");
}

static void copy_side(cuda_backend *b, void *out, const void *in, cca_dtype type,
                      const cca_rows *to, const cca_rows *from, int64_t pos, int64_t n,
                      cudaMemcpyKind kind, cudaStream_t stream) {
    size_t row = 0;
    cca_dtype_row_bytes(&row, type, to->head_dim);
    for (int64_t head = 0; head < to->heads && !b->base.status; head++) {
        char *there = (char *)out + (size_t)(head * to->capacity + cca_rows_at(to, pos)) * row;
        const char *here =
            (const char *)in + (size_t)(head * from->capacity + cca_rows_at(from, pos)) * row;
        cuda_check(b, cudaMemcpyAsync(there, here, (size_t)n * row, kind, stream), "copy of rows");
    }
}

static bool open_link(cuda_backend *b) {
    enum { FLAGS = cudaEventDisableTiming };
    if (b->link) return true;
    cuda_check(b, cudaEventCreateWithFlags(&b->here, FLAGS), "event");
    cuda_check(b, cudaEventCreateWithFlags(&b->brought, FLAGS), "event");
    cuda_check(b, cudaStreamCreateWithFlags(&b->link, cudaStreamNonBlocking), "stream");
    return !b->base.status;
}

void cuda_bring(cca_backend *base, const cca_rows *out, const cca_rows *in, int64_t pos,
                int64_t n) {
    cuda_backend *b = cuda_of(base);
    if (!begin(b) || !open_link(b)) return;
    cuda_check(b, cudaEventRecord(b->here, b->stream), "copy of rows");
    cuda_check(b, cudaStreamWaitEvent(b->link, b->here, 0), "copy of rows");
    copy_side(b, out->k, in->k, in->k_type, out, in, pos, n, cudaMemcpyHostToDevice, b->link);
    copy_side(b, out->v, in->v, in->v_type, out, in, pos, n, cudaMemcpyHostToDevice, b->link);
    cuda_check(b, cudaEventRecord(b->brought, b->link), "copy of rows");
}

void cuda_brought(cca_backend *base) {
    cuda_backend *b = cuda_of(base);
    if (!b->link || !begin(b)) return;
    cuda_check(b, cudaStreamWaitEvent(b->stream, b->brought, 0), "copy of rows");
}

void cuda_send(cca_backend *base, const cca_rows *out, const cca_rows *in, int64_t pos, int64_t n) {
    cuda_backend *b = cuda_of(base);
    if (!begin(b)) return;
    copy_side(b, out->k, in->k, in->k_type, out, in, pos, n, cudaMemcpyDeviceToHost, b->stream);
    copy_side(b, out->v, in->v, in->v_type, out, in, pos, n, cudaMemcpyDeviceToHost, b->stream);
}

/* ---- chosen groups ------------------------------------------------------------------- */

/* Keys, or values, of chosen groups. */
struct gathering {
    void *out;
    const void *in;
    cca_dtype out_type, in_type;
    int64_t n; /* values of a part */
    int bytes; /* of it, as it lies */
};

/* Groups are copied in `parts` each, of which a head has so many. */
struct gather_args {
    gathering k, v;
    const int32_t *groups, *counts;
    int heads, most, parts;
    int64_t out_parts, in_parts;
};

/* All threads of a block copy a part; T: pieces in which it is read, several of them before the
 * first is used, so that the link has much under way. */
template <typename T>
static __device__ void gather_part(const gathering &g, char *staged, int64_t to, int64_t from) {
    enum { AHEAD = 4 };
    const T *in = (const T *)((const char *)g.in + from * g.bytes);
    int n = g.bytes / (int)sizeof(T), thread = (int)threadIdx.x;
    for (int i = thread; i < n; i += AHEAD * THREADS) {
        T pieces[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            int at = i + u * THREADS;
            if (at < n) pieces[u] = __ldcg(in + at);
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            int at = i + u * THREADS;
            if (at < n) ((T *)staged)[at] = pieces[u];
        }
    }
    __syncthreads();
    int lane = thread % CUDA_WARP;
    for (int64_t i = thread / CUDA_WARP * CUDA_WARP; i < g.n; i += THREADS) {
        int n_lanes = (int)(g.n - i < CUDA_WARP ? g.n - i : CUDA_WARP);
        float x = lane < n_lanes ? cuda_row_value(staged, g.in_type, i + lane) : 0;
        cuda_put(g.out, g.out_type, to * g.n + i, x, n_lanes);
    }
}

/* Grid: parts of groups, tiles and heads; keys and values. */
template <typename T>
static __global__ void __launch_bounds__(THREADS) gather(const __grid_constant__ gather_args a) {
    cuda_begin();
    extern __shared__ __align__(16) char staged[];
    int at = (int)blockIdx.x / a.parts, part = (int)blockIdx.x % a.parts;
    int pair = (int)blockIdx.y, head = pair % a.heads, tile = pair / a.heads;
    if (at >= a.counts[pair]) return;
    int64_t group = a.groups[(int64_t)pair * a.most + at];
    int64_t to = head * a.out_parts + ((int64_t)tile * a.most + at) * a.parts + part;
    int64_t from = head * a.in_parts + group * a.parts + part;
    gather_part<T>(blockIdx.z == 0 ? a.k : a.v, staged, to, from);
}

/* Bytes of n rows of a type. */
static int rows_bytes(cca_dtype type, int64_t n, int64_t head_dim) {
    size_t row = 0;
    cca_dtype_row_bytes(&row, type, head_dim);
    return (int)((int64_t)row * n);
}

/* Rows of a part: as many of a group as fit. */
static int64_t rows_of_part(const cca_rows *in, int64_t group_size) {
    int64_t n = group_size;
    while (n > 1 && (group_size % n != 0 ||
                     cca_max(rows_bytes(in->k_type, n, in->head_dim),
                             rows_bytes(in->v_type, n, in->head_dim)) > MOST_STAGED)) {
        n--;
    }
    return n;
}

void cuda_gather(cca_backend *base, const cca_rows *out, const cca_rows *in, const cca_choice *c,
                 int64_t n_tiles) {
    cuda_backend *b = cuda_of(base);
    int64_t hd = in->head_dim, n = rows_of_part(in, c->group_size), parts = c->group_size / n;
    int k = rows_bytes(in->k_type, n, hd), v = rows_bytes(in->v_type, n, hd);
    gather_args a = {{out->k, in->k, out->k_type, in->k_type, n * hd, k},
                     {out->v, in->v, out->v_type, in->v_type, n * hd, v},
                     c->groups,
                     c->counts,
                     (int)in->heads,
                     (int)c->most,
                     (int)parts,
                     out->capacity / n,
                     in->capacity / n};
    size_t staged = (size_t)cca_max(k, v);
    bool wide = k % sizeof(uint4) == 0 && v % sizeof(uint4) == 0;
    dim3 grid((unsigned)(c->most * parts), (unsigned)(n_tiles * in->heads), 2);
    if (wide) {
        cuda_launch(b, "gather", gather<uint4>, grid, THREADS, staged, a);
    } else {
        cuda_launch(b, "gather", gather<uint16_t>, grid, THREADS, staged, a);
    }
}
