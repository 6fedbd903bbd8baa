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

extern "C" {
#include "base/processors.h"
#include "base/workers.h"
}

#include <stdlib.h>
#include <sys/mman.h>

enum {
    THREADS = 128,
    MOST_STAGED = 24 << 10, /* bytes of some rows of a group in shared memory */
};

/* ---- memory -------------------------------------------------------------------------- */

static const size_t LARGE_PAGE = 2 << 20;

/* A piece of it: pages of the process that were registered, or (mapped NULL) what the runtime has
 * given. */
struct cuda_pinned {
    cuda_pinned *next;
    void *data, *mapped;
    size_t mapped_bytes;
};

static void touch(void *context, int64_t page, int) {
    enum { PAGE = 4096 }; /* where the system has no large ones */
    volatile char *data = (volatile char *)context + (size_t)page * LARGE_PAGE;
    for (size_t at = 0; at < LARGE_PAGE; at += PAGE) data[at] = 0;
}

/* Pages are made by many threads, and are large where the system has such: the runtime's own
 * allocation makes them one by one, some seconds for 10 GB. */
static void *map_pages(cuda_pinned *p, size_t bytes) {
    enum { MOST_THREADS = 16 };
    size_t whole = (bytes + LARGE_PAGE) / LARGE_PAGE * LARGE_PAGE;
    p->mapped_bytes = whole + LARGE_PAGE;
    void *mapped = mmap(NULL, p->mapped_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return NULL;
    p->mapped = mapped;
    char *data = (char *)(((uintptr_t)mapped + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE);
    madvise(data, whole, MADV_HUGEPAGE);
    cca_workers *workers = cca_workers_new((int)cca_min(cca_physical_cores(""), MOST_THREADS));
    if (workers) cca_workers_run(workers, (int64_t)(whole / LARGE_PAGE), touch, data);
    cca_workers_free(workers);
    const unsigned flags = cudaHostRegisterPortable | cudaHostRegisterMapped;
    if (cudaHostRegister(data, whole, flags) == cudaSuccess) return data;
    cudaGetLastError();
    munmap(mapped, p->mapped_bytes);
    p->mapped = NULL;
    return NULL;
}

/* Whether registered pages have one address for both sides. */
static bool same_address(const cuda_backend *b) {
    int same = 0;
    cudaDeviceGetAttribute(&same, cudaDevAttrCanUseHostPointerForRegisteredMem, b->device);
    return same != 0;
}

void *cuda_alloc_host(cca_backend *base, size_t bytes) {
    cuda_backend *b = cuda_of(base);
    if (!cuda_check(b, cudaSetDevice(b->device), "device")) return NULL;
    cuda_pinned *p = (cuda_pinned *)calloc(1, sizeof *p);
    cudaError_t error = cudaErrorMemoryAllocation;
    bool fails = cuda_fails(b);
    if (p && !fails && bytes >= 16 * LARGE_PAGE && same_address(b)) p->data = map_pages(p, bytes);
    if (p && !fails && !p->data) {
        error =
            cudaHostAlloc(&p->data, bytes ? bytes : 1, cudaHostAllocPortable | cudaHostAllocMapped);
        cudaGetLastError();
        if (error != cudaSuccess) p->data = NULL;
    }
    if (p && p->data) {
        p->next = b->host;
        b->host = p;
        return p->data;
    }
    free(p);
    cca_backend_fail(base, CCA_NO_MEMORY,
                     "cuda:%d: no memory of the host for %zu bytes that stay in place: %s",
                     b->device, bytes, cudaGetErrorString(error));
    return NULL;
}

/* Waits for what still uses it. */
void cuda_release_host(cca_backend *base, void *data) {
    cuda_backend *b = cuda_of(base);
    cuda_pinned **at = &b->host, *p;
    if (!cuda_settle(b)) return;
    if (b->link) cudaStreamSynchronize(b->link);
    while (*at && (*at)->data != data) at = &(*at)->next;
    p = *at;
    if (!p) return;
    *at = p->next;
    if (p->mapped) {
        cudaHostUnregister(data);
        munmap(p->mapped, p->mapped_bytes);
    } else {
        cudaFreeHost(data);
    }
    free(p);
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
                      cudaMemcpyKind kind) {
    size_t row = 0;
    cca_dtype_row_bytes(&row, type, to->head_dim);
    for (int64_t head = 0; head < to->heads && !b->base.status; head++) {
        char *there = (char *)out + (size_t)(head * to->capacity + cca_rows_at(to, pos)) * row;
        const char *here =
            (const char *)in + (size_t)(head * from->capacity + cca_rows_at(from, pos)) * row;
        cuda_check(b, cudaMemcpyAsync(there, here, (size_t)n * row, kind, b->link), "copy of rows");
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

/* Copies over the link, behind all that the stream has to do so far. */
static void copy_rows(cuda_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos,
                      int64_t n, cudaMemcpyKind kind) {
    if (!begin(b) || !open_link(b)) return;
    cuda_check(b, cudaEventRecord(b->here, b->stream), "copy of rows");
    cuda_check(b, cudaStreamWaitEvent(b->link, b->here, 0), "copy of rows");
    copy_side(b, out->k, in->k, in->k_type, out, in, pos, n, kind);
    copy_side(b, out->v, in->v, in->v_type, out, in, pos, n, kind);
    cuda_check(b, cudaEventRecord(b->brought, b->link), "copy of rows");
}

void cuda_bring(cca_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos, int64_t n) {
    copy_rows(cuda_of(b), out, in, pos, n, cudaMemcpyHostToDevice);
}

void cuda_send(cca_backend *b, const cca_rows *out, const cca_rows *in, int64_t pos, int64_t n) {
    copy_rows(cuda_of(b), out, in, pos, n, cudaMemcpyDeviceToHost);
}

void cuda_brought(cca_backend *base) {
    cuda_backend *b = cuda_of(base);
    if (!b->link || !begin(b)) return;
    cuda_check(b, cudaStreamWaitEvent(b->stream, b->brought, 0), "copy of rows");
}

/* ---- parts of rows ------------------------------------------------------------------- */

/* Keys, or values, that lie side by side, and where they go: `n` values at a time. */
struct side {
    void *out;
    const void *in;
    cca_dtype out_type, in_type;
    int n, bytes; /* bytes: of n values as they lie */
};

/* All threads of a block read a part into shared memory; T: pieces in which it is read, several of
 * them before the first is used, so that the link has much under way. */
template <typename T> static __device__ void stage_part(const side &s, char *staged, int64_t from) {
    enum { AHEAD = 4 };
    const T *in = (const T *)((const char *)s.in + from * s.bytes);
    int n = s.bytes / (int)sizeof(T);
    for (int i = (int)threadIdx.x; i < n; i += AHEAD * THREADS) {
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
}

/* Eight values a thread, in 16 bits. */
template <bool is_bf16>
static __device__ void put_halves(const side &s, const char *staged, int64_t to) {
    uint4 *out = (uint4 *)((uint16_t *)s.out + to * s.n);
    cache_types::with(s.in_type, [&](auto t) {
        for (unsigned i = threadIdx.x; i < (unsigned)s.n / 8; i += THREADS) {
            float x[8];
#pragma unroll
            for (unsigned u = 0; u < 8; u++) x[u] = decltype(t)::value(staged, i * 8 + u);
            out[i] = cuda_round_eight<is_bf16>(x);
        }
    });
}

/* A part goes on from shared memory: as it is, or in another type. */
template <typename T>
static __device__ void put_part(const side &s, const char *staged, int64_t to) {
    if (s.in_type == s.out_type) {
        T *out = (T *)((char *)s.out + to * s.bytes);
        for (int i = (int)threadIdx.x; i < s.bytes / (int)sizeof(T); i += THREADS) {
            out[i] = ((const T *)staged)[i];
        }
    } else if (s.n % 8 == 0 && s.out_type == CCA_BF16) {
        put_halves<true>(s, staged, to);
    } else if (s.n % 8 == 0 && s.out_type == CCA_F16) {
        put_halves<false>(s, staged, to);
    } else {
        int lane = (int)threadIdx.x % CUDA_WARP;
        for (int i = (int)threadIdx.x - lane; i < s.n; i += THREADS) {
            int n_lanes = s.n - i < CUDA_WARP ? s.n - i : CUDA_WARP;
            float x = lane < n_lanes ? cuda_row_value(staged, s.in_type, i + lane) : 0;
            cuda_put(s.out, s.out_type, to * s.n + i, x, n_lanes);
        }
    }
}

/* Bytes of n rows of a type. */
static int rows_bytes(cca_dtype type, int64_t n, int64_t head_dim) {
    size_t row = 0;
    cca_dtype_row_bytes(&row, type, head_dim);
    return (int)((int64_t)row * n);
}

/* Rows of a part: as many as fit, of which `all` are a multiple. */
static int64_t rows_of_part(const cca_rows *in, int64_t all) {
    int64_t n = all;
    while (n > 1 &&
           (all % n != 0 || cca_max(rows_bytes(in->k_type, n, in->head_dim),
                                    rows_bytes(in->v_type, n, in->head_dim)) > MOST_STAGED)) {
        n--;
    }
    return n;
}

/* ---- chosen groups ------------------------------------------------------------------- */

/* Groups are copied in `parts` each, of which a head has so many. */
struct gather_args {
    side k, v;
    const int32_t *groups, *counts;
    int heads, most, parts;
    int64_t out_parts, in_parts;
};

/* Grid: parts of groups, tiles and heads; keys and values. */
template <typename T>
static __global__ void __launch_bounds__(THREADS) gather(const __grid_constant__ gather_args a) {
    cuda_begin();
    extern __shared__ __align__(16) char staged[];
    int at = (int)blockIdx.x / a.parts, part = (int)blockIdx.x % a.parts;
    int pair = (int)blockIdx.y, head = pair % a.heads, tile = pair / a.heads;
    if (at >= a.counts[pair]) return;
    const side &s = blockIdx.z == 0 ? a.k : a.v;
    int64_t group = a.groups[(int64_t)pair * a.most + at];
    int64_t to = head * a.out_parts + ((int64_t)tile * a.most + at) * a.parts + part;
    stage_part<T>(s, staged, head * a.in_parts + group * a.parts + part);
    put_part<T>(s, staged, to);
}

void cuda_gather(cca_backend *base, const cca_rows *out, const cca_rows *in, const cca_choice *c,
                 int64_t n_tiles) {
    cuda_backend *b = cuda_of(base);
    int64_t hd = in->head_dim, n = rows_of_part(in, c->group_size), parts = c->group_size / n;
    int k = rows_bytes(in->k_type, n, hd), v = rows_bytes(in->v_type, n, hd);
    gather_args a = {{out->k, in->k, out->k_type, in->k_type, (int)(n * hd), k},
                     {out->v, in->v, out->v_type, in->v_type, (int)(n * hd), v},
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

/* ---- kept groups ---------------------------------------------------------------------- */

struct renew_args {
    side k, v;
    cca_kept kept;
    const int32_t *chosen, *counts;
    int most, parts;
    int64_t in_parts, n_known;
};

/* Numbers of some items, in shared memory, ascending: those of n that are wanted. One warp. */
template <typename F> static __device__ void list_items(int16_t *out, int n, F wanted) {
    int lane = (int)threadIdx.x % CUDA_WARP, before = 0;
    for (int first = 0; first < n; first += CUDA_WARP) {
        int i = first + lane;
        unsigned all = __ballot_sync(~0u, i < n && wanted(i));
        if (all >> lane & 1) out[before + __popc(all & ((1u << lane) - 1))] = (int16_t)i;
        before += __popc(all);
    }
}

/* Where a group stands among n ascending ones; -1: nowhere. */
static __device__ int find_group(const int32_t *groups, int n, int32_t group) {
    int low = 0, high = n;
    while (low < high) {
        int middle = (low + high) / 2;
        if (groups[middle] < group) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < n && groups[low] == group ? low : -1;
}

/* Where each chosen group of a head will be; what is missing of them takes the places that are
 * free, both in their order. All blocks of a head find the same. */
struct renewal {
    int16_t place[CCA_MOST_KEPT];                        /* -1 at first where it is missing */
    int16_t missing[CCA_MOST_KEPT], free[CCA_MOST_KEPT]; /* chosen groups, places */
    bool taken[CCA_MOST_KEPT];
};

static __device__ void find_places(renewal &r, const renew_args &a, const int32_t *chosen, int n,
                                   int64_t at) {
    const int32_t *groups = a.kept.groups + at, *places = a.kept.places + at;
    for (int i = (int)threadIdx.x; i < a.most; i += THREADS) r.taken[i] = false;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n; i += THREADS) {
        int old = chosen[i] < a.n_known ? find_group(groups, a.most, chosen[i]) : -1;
        r.place[i] = (int16_t)(old >= 0 ? places[old] : -1);
        if (old >= 0) r.taken[places[old]] = true;
    }
    __syncthreads();
    if (threadIdx.x < CUDA_WARP) {
        list_items(r.missing, n, [&](int i) { return r.place[i] < 0; });
    } else if (threadIdx.x < 2 * CUDA_WARP) {
        list_items(r.free, a.most, [&](int i) { return !r.taken[i]; });
    }
    __syncthreads();
}

/* Grid: parts of groups, heads; keys and values. Blocks take missing groups in turn. */
template <typename T>
static __global__ void __launch_bounds__(THREADS) renew(const __grid_constant__ renew_args a) {
    cuda_begin();
    extern __shared__ __align__(16) char staged[];
    __shared__ renewal r;
    int turn = (int)blockIdx.x / a.parts, part = (int)blockIdx.x % a.parts;
    int head = (int)blockIdx.y, n = a.counts[head], n_missing = 0;
    int64_t at = (int64_t)head * a.most;
    const int32_t *chosen = a.chosen + at;
    const side &s = blockIdx.z == 0 ? a.k : a.v;
    find_places(r, a, chosen, n, at);
    for (int i = 0; i < n; i += THREADS) {
        int mine = i + (int)threadIdx.x;
        n_missing += __syncthreads_count(mine < n && r.place[mine] < 0);
    }
    if (turn < n_missing) {
        int64_t group = chosen[r.missing[turn]];
        stage_part<T>(s, staged, head * a.in_parts + group * a.parts + part);
        put_part<T>(s, staged, (at + r.free[turn]) * a.parts + part);
    }
    if (blockIdx.x != 0 || blockIdx.z != 0) return;
    for (int i = (int)threadIdx.x; i < n_missing; i += THREADS) r.place[r.missing[i]] = r.free[i];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < a.most; i += THREADS) {
        a.kept.next_groups[at + i] = i < n ? chosen[i] : (int32_t)CCA_NO_GROUP;
        a.kept.next_places[at + i] = i < n ? r.place[i] : 0;
    }
}

void cuda_renew(cca_backend *base, const cca_kept *kept, const cca_rows *in, const cca_choice *c,
                int64_t n_known) {
    const cca_rows *out = &kept->rows;
    int64_t hd = in->head_dim, n = rows_of_part(in, c->group_size), parts = c->group_size / n;
    int k = rows_bytes(in->k_type, n, hd), v = rows_bytes(in->v_type, n, hd);
    renew_args a = {{out->k, in->k, out->k_type, in->k_type, (int)(n * hd), k},
                    {out->v, in->v, out->v_type, in->v_type, (int)(n * hd), v},
                    *kept,
                    c->groups,
                    c->counts,
                    (int)c->most,
                    (int)parts,
                    in->capacity / n,
                    n_known};
    dim3 grid((unsigned)(c->most * parts), (unsigned)in->heads, 2);
    size_t staged = (size_t)cca_max(k, v);
    if (k % sizeof(uint4) == 0 && v % sizeof(uint4) == 0) {
        cuda_launch(cuda_of(base), "renew", renew<uint4>, grid, THREADS, staged, a);
    } else {
        cuda_launch(cuda_of(base), "renew", renew<uint16_t>, grid, THREADS, staged, a);
    }
}

/* ---- whole rows in another type ------------------------------------------------------- */

/* Grid: parts, heads. */
struct spread_args {
    side s;
    int64_t out_parts, in_parts, to, from; /* of a head; the first ones */
};

template <typename T>
static __global__ void __launch_bounds__(THREADS) spread(const __grid_constant__ spread_args a) {
    cuda_begin();
    extern __shared__ __align__(16) char staged[];
    int64_t head = blockIdx.y, part = blockIdx.x;
    stage_part<T>(a.s, staged, head * a.in_parts + a.from + part);
    put_part<T>(a.s, staged, head * a.out_parts + a.to + part);
}

/* Rows of a part, 16 at most, of which all numbers of rows are multiples, and which can be read 16
 * bytes at a time; 0: there are none. */
static int64_t rows_to_spread(cca_dtype type, int64_t head_dim, const int64_t *wholes, int n) {
    for (int64_t rows = 16; rows > 0; rows /= 2) {
        int bytes = rows_bytes(type, rows, head_dim);
        bool suits = bytes % sizeof(uint4) == 0 && bytes <= MOST_STAGED;
        for (int i = 0; i < n; i++) suits = suits && wholes[i] % rows == 0;
        if (suits) return rows;
    }
    return 0;
}

bool cuda_spread(cuda_backend *b, void *out, cca_dtype out_type, const void *in, cca_dtype in_type,
                 const cca_rows *to, const cca_rows *from, int64_t pos, int64_t n) {
    int64_t hd = from->head_dim, first = cca_rows_at(to, pos), source = cca_rows_at(from, pos);
    const int64_t wholes[] = {n, first, source, to->capacity, from->capacity};
    if (n == 0 || !cuda_is_half(out_type) || cca_dtype_block(in_type) == 1 ||
        first + n > to->capacity || source + n > from->capacity || to->heads > CUDA_MOST_BLOCKS) {
        return false;
    }
    int64_t rows = rows_to_spread(in_type, hd, wholes, 5);
    if (rows == 0) return false;
    int bytes = rows_bytes(in_type, rows, hd);
    spread_args a = {{out, in, out_type, in_type, (int)(rows * hd), bytes},
                     to->capacity / rows,
                     from->capacity / rows,
                     first / rows,
                     source / rows};
    dim3 grid((unsigned)(n / rows), (unsigned)to->heads);
    cuda_launch(b, "convert", spread<uint4>, grid, THREADS, (size_t)bytes, a);
    return true;
}
