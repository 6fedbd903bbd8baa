/* A token of decode in one kernel. Between two products of one row there are microseconds in which
 * nothing is read, were each a kernel of its own: more than quantised weights take to be read. So
 * operations on one row are collected as steps, until somebody wants their results or something
 * that is no step comes up, and one kernel carries them out. It has a block a multiprocessor; all
 * blocks wait for each other behind each step, and meanwhile the weights of the next products are
 * on their way (cuda_stream.cuh).
 *
 * The same steps give the same bits: what is added up, and in which order, does not depend on time.
 */
#include "cuda_stream.cuh"

#include <stdlib.h>

enum {
    NEAR = 6,               /* steps that travel with the launch */
    AHEAD = 4,              /* keys a lane reads before it uses the first */
    LEAST_KEYS = 32,        /* of a warp */
    LEAST_STAGES = 2,       /* of a warp's ring */
    MOST_PRODUCTS = 512,    /* steps of products in a launch */
    SHARED = 227 << 10,     /* the most of a block */
    FIXED_SHARED = 4 << 10, /* barriers, sums, a step */
};

struct cuda_steps {
    token_step *list;
    int n, room, n_products;
    cca_dtype type;         /* of the products */
    int cols;               /* of the widest */
    unsigned arrived;       /* what `count` has come to */
    cuda_buffer far, count; /* steps; arrivals at the ends of steps */
};

struct token_args {
    token_step near[NEAR];
    const token_step *far;                /* all of them, where they are more */
    int n, n_products, n_stages, x_bytes; /* x_bytes: room for x, and for parts of attention */
    unsigned *count, arrived;             /* arrived: the count at the start */
};

/* ---- waiting for all blocks ---------------------------------------------------------- */

/* The block has done a step. */
static __device__ __forceinline__ void arrive(const token_args &a) {
    __syncthreads();
    if (threadIdx.x > 0) return;
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(a.count) : "memory");
}

/* Until all blocks have done n steps. */
static __device__ __forceinline__ void wait_for(const token_args &a, int n) {
    if (threadIdx.x == 0) {
        unsigned goal = a.arrived + (unsigned)n * gridDim.x, count;
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                         : "=r"(count)
                         : "l"(a.count)
                         : "memory");
        } while ((int)(count - goal) < 0);
    }
    __syncthreads();
}

/* ---- attention ----------------------------------------------------------------------- */

/* Parts lie as HD sums, the largest score, the total. A lane has sums lane, lane + 32, … */
template <int HD> struct joined {
    enum { WIDTH = HD + 2, OWN = HD / CUDA_WARP };
    float largest = -INFINITY, total = 0, sum[OWN] = {};
};

/* Joins n parts: in shared memory, or in global memory and written by other blocks. */
template <int HD, bool global>
static __device__ __forceinline__ joined<HD> join_parts(const float *parts, int n) {
    enum { WIDTH = joined<HD>::WIDTH, OWN = joined<HD>::OWN };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    auto read = [](const float *from) { return global ? __ldcg(from) : *from; };
    joined<HD> all;
    for (int i = lane; i < n; i += CUDA_WARP) {
        all.largest = fmaxf(all.largest, read(parts + i * WIDTH + HD));
    }
    all.largest = cuda_warp_max(all.largest);
    if (all.largest == -INFINITY) return all;
#pragma unroll 4
    for (int i = 0; i < n; i++) {
        const float *from = parts + i * WIDTH;
        float weight = exp2f(read(from + HD) - all.largest);
        all.total += weight * read(from + HD + 1);
#pragma unroll
        for (int j = 0; j < OWN; j++) all.sum[j] += weight * read(from + j * CUDA_WARP + lane);
    }
    return all;
}

/* True in the warp that is the last of n to come here; it sees what the others wrote before. */
static __device__ __forceinline__ bool is_last(unsigned *count, int n) {
    unsigned before = 0;
    __threadfence();
    __syncwarp();
    if (threadIdx.x % CUDA_WARP == 0) before = atomicAdd(count, 1);
    before = __shfl_sync(~0u, before, 0);
    __threadfence();
    return before == (unsigned)n - 1;
}

/* What a block has of a head: parts in shared memory, of `first` among n blocks with this head. The
 * last block to finish puts the blocks' parts together, in their order. */
template <int HD>
static __device__ __forceinline__ void join_head(const split_args &a, int head, const float *parts,
                                                 int n_parts, int block, int n_blocks) {
    enum { WIDTH = joined<HD>::WIDTH, OWN = joined<HD>::OWN };
    int lane = (int)(threadIdx.x % CUDA_WARP);
    joined<HD> all = join_parts<HD, false>(parts, n_parts);
    if (n_blocks > 1) {
        float *to = a.partial + (int64_t)head * a.splits * WIDTH;
        float *mine = to + block * WIDTH;
#pragma unroll
        for (int j = 0; j < OWN; j++) mine[j * CUDA_WARP + lane] = all.sum[j];
        if (lane == 0) {
            mine[HD] = all.largest;
            mine[HD + 1] = all.total;
        }
        if (!is_last(a.count + head, n_blocks)) return;
        if (lane == 0) a.count[head] = 0;
        all = join_parts<HD, true>(to, n_blocks);
    }
#pragma unroll
    for (int j = 0; j < OWN; j++) a.out[head * HD + j * CUDA_WARP + lane] = all.sum[j] / all.total;
}

/* A warp's part of the keys of its head, into shared memory. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void attend_part(const split_args &a, int head, int split,
                                                   float *to) {
    enum { LANES = HD / 8, GROUPS = CUDA_WARP / LANES };
    key_list l = list_keys(a, head, a.pos);
    int each = (l.n_keys + a.splits - 1) / a.splits, begin = split * each;
    int end = begin + each < l.n_keys ? begin + each : l.n_keys;
    int lane = (int)(threadIdx.x % CUDA_WARP), piece = lane % LANES;
    float q[8];
    *(float4 *)q = __ldcg((const float4 *)(a.q + head * HD + piece * 8));
    *(float4 *)(q + 4) = __ldcg((const float4 *)(a.q + head * HD + piece * 8 + 4));
#pragma unroll
    for (int d = 0; d < 8; d++) q[d] *= score_unit<HD>();
    part p = attend_keys<HD, is_bf16, AHEAD>(a, l, q, begin + lane / LANES, GROUPS, end);
    join_lanes<HD>(p);
    if (lane < LANES) {
#pragma unroll
        for (int d = 0; d < 8; d++) to[lane * 8 + d] = p.sum[d];
    }
    if (lane == 0) {
        to[HD] = p.largest;
        to[HD + 1] = p.total;
    }
}

/* Each warp has one of the splits of a head's keys; warps of a block come one behind the other, so
 * that a block has one head, or a few. */
template <int HD, bool is_bf16>
static __device__ __forceinline__ void attend_all(const split_args &a, float *parts) {
    enum { WIDTH = joined<HD>::WIDTH };
    int warp = (int)(threadIdx.x / CUDA_WARP), first = (int)blockIdx.x * WARPS;
    int head = (first + warp) / a.splits, split = (first + warp) % a.splits;
    if (head < a.n_heads) attend_part<HD, is_bf16>(a, head, split, parts + warp * WIDTH);
    __syncthreads();
    if (head >= a.n_heads || (warp > 0 && split > 0)) return;
    int n = a.splits - split < WARPS - warp ? a.splits - split : WARPS - warp;
    int first_block = head * a.splits / WARPS, last_block = ((head + 1) * a.splits - 1) / WARPS;
    join_head<HD>(a, head, parts + warp * WIDTH, n, (int)blockIdx.x - first_block,
                  last_block - first_block + 1);
}

static __device__ __forceinline__ void attend_step(const split_args &a, float *parts) {
    bool is_bf16 = a.keys.raw.k_type == CCA_BF16;
    if (a.keys.raw.head_dim == 64) {
        is_bf16 ? attend_all<64, true>(a, parts) : attend_all<64, false>(a, parts);
    } else {
        is_bf16 ? attend_all<128, true>(a, parts) : attend_all<128, false>(a, parts);
    }
}

/* ---- the kernel ---------------------------------------------------------------------- */

static __device__ __forceinline__ void turn_step(const turn_args &a) {
    int i = (int)(blockIdx.x * THREADS + threadIdx.x), n = turn_octets(a);
    for (; i < n; i += (int)gridDim.x * THREADS) turn_octet(a, 0, i);
}

/* The weights of all products, where the warps that copy ahead find them quickly. */
static __device__ __forceinline__ void list_weights(token_weights *out, const token_step *steps,
                                                    int n) {
    for (int i = (int)threadIdx.x; i < n; i += THREADS) {
        if (steps[i].kind == TOKEN_PRODUCT) out[steps[i].product.number] = steps[i].product.weights;
    }
}

template <cca_dtype type>
static __global__ void __launch_bounds__(THREADS, 1) token(const __grid_constant__ token_args a) {
    enum { WORDS = sizeof(token_step) / sizeof(int) };
    static_assert(sizeof(token_step) % sizeof(int) == 0 && WORDS <= THREADS, "a thread a word");
    extern __shared__ __align__(128) char memory[];
    __shared__ uint64_t barriers[WARPS][MOST_STAGES];
    __shared__ token_step both[2];
    const token_step *steps = a.far ? a.far : a.near;
    char *x = memory + WARPS * a.n_stages * stage_bytes<type>();
    token_weights *weights = (token_weights *)(x + a.x_bytes);
    bool copies = threadIdx.x < WORDS;
    int word = copies ? ((const int *)steps)[threadIdx.x] : 0;
    list_weights(weights, steps, a.n);
    __syncthreads();
    weight_stream<type> stream;
    stream_open(&stream, weights, a.n_products, memory, barriers, a.n_stages);
    for (int i = 0; i < a.n; i++) {
        token_step &step = both[i % 2];
        if (copies) ((int *)&step)[threadIdx.x] = word;
        __syncthreads();
        float4 norm[KEPT];
        if (step.kind == TOKEN_PRODUCT) stream_read_norm(norm, step.product);
        if (i == 0) {
            cuda_begin();
        } else {
            wait_for(a, i);
        }
        if (copies && i + 1 < a.n) word = ((const int *)(steps + i + 1))[threadIdx.x];
        switch (step.kind) {
        case TOKEN_PRODUCT: stream_multiply(&stream, step.product, norm, x); break;
        case TOKEN_TURN: turn_step(step.turn); break;
        case TOKEN_ATTEND: attend_step(step.attend, (float *)x); break;
        }
        if (i + 1 < a.n) arrive(a);
    }
}

/* ---- launching ----------------------------------------------------------------------- */

typedef void (*token_kernel)(token_args);

static token_kernel kernel_of(cca_dtype type) {
    switch (type) {
    case CCA_F32: return token<CCA_F32>;
    case CCA_F16: return token<CCA_F16>;
    case CCA_Q8_0: return token<CCA_Q8_0>;
    case CCA_Q4_0: return token<CCA_Q4_0>;
    case CCA_BF16: break;
    }
    return token<CCA_BF16>;
}

/* Whether a block can have the shared memory, and blocks wait for each other. */
static bool has_room(cuda_backend *b) {
    int shared = 0, cooperative = 0;
    cuda_check(b,
               cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, b->device),
               "device");
    cuda_check(b, cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, b->device),
               "device");
    return shared >= SHARED && cooperative != 0;
}

void cuda_token_prepare(cuda_backend *b) {
    static const cca_dtype types[] = {CCA_F32, CCA_F16, CCA_BF16, CCA_Q8_0, CCA_Q4_0};
    if (!b->forms.stream || b->base.status != CCA_OK) return;
    b->forms.stream = has_room(b);
    if (!b->forms.stream) return;
    for (cca_dtype type : types) {
        cuda_check(b,
                   cudaFuncSetAttribute(kernel_of(type),
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        SHARED - FIXED_SHARED),
                   "token");
    }
    b->steps = (cuda_steps *)calloc(1, sizeof *b->steps);
    if (!b->steps) {
        cca_backend_fail(&b->base, CCA_NO_MEMORY, "no memory for the CUDA backend");
        return;
    }
    cuda_grow(b, &b->steps->count, sizeof(unsigned));
}

void cuda_token_free(cuda_backend *b) {
    if (!b->steps) return;
    cudaFree(b->steps->far.data);
    cudaFree(b->steps->count.data);
    free(b->steps->list);
    free(b->steps);
}

/* Stages, room for x, and the shared memory of a block in all; false where rows of a type do not
 * suit: they come in aligned pieces. A block takes more than half of a multiprocessor's shared
 * memory, so that no two share one while others have none. */
static bool plan_shared(token_args *a, size_t *bytes, cca_dtype type, int64_t cols) {
    bool quantised = type == CCA_Q8_0 || type == CCA_Q4_0;
    if (cols % (quantised ? 256 : 8) != 0 || cols > SHARED) return false;
    int x = x_bytes<CCA_F32>((int)cols), stage = PIECE;
    if (quantised) {
        x = x_bytes<CCA_Q8_0>((int)cols);
        stage += type == CCA_Q8_0 ? scale_bytes<CCA_Q8_0>() : scale_bytes<CCA_Q4_0>();
    }
    a->x_bytes = (int)cca_max(x, WARPS * joined<128>::WIDTH * (int)sizeof(float));
    int rest = a->x_bytes + a->n_products * (int)sizeof(token_weights);
    int room = SHARED - FIXED_SHARED - rest;
    if (room < WARPS * stage * LEAST_STAGES) return false;
    a->n_stages = (int)cca_min(MOST_STAGES, room / (WARPS * stage));
    *bytes = (size_t)cca_max(a->n_stages * WARPS * stage + rest, SHARED / 2);
    return true;
}

/* Several steps want all blocks at once; one alone may be put in place early, like other kernels.
 */
static void launch(cuda_backend *b, const token_args *a, cca_dtype type, size_t shared) {
    cudaLaunchAttribute attribute = {};
    if (a->n > 1) {
        attribute.id = cudaLaunchAttributeCooperative;
        attribute.val.cooperative = 1;
    } else {
        attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute.val.programmaticStreamSerializationAllowed = b->forms.early;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = (unsigned)b->n_sm;
    config.blockDim = THREADS;
    config.dynamicSmemBytes = shared;
    config.stream = b->stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    cuda_check(b, cudaLaunchKernelEx(&config, kernel_of(type), *a), "token");
}

void cuda_token_run(cuda_backend *b) {
    cuda_steps *s = b->steps;
    if (!s || s->n == 0) return;
    size_t shared = 0, bytes = (size_t)s->n * sizeof *s->list;
    token_args a = {};
    a.n = s->n;
    a.n_products = s->n_products;
    plan_shared(&a, &shared, s->type, s->cols);
    s->n = s->n_products = s->cols = 0;
    if (b->base.status != CCA_OK || !cuda_check(b, cudaSetDevice(b->device), "token")) return;
    a.count = (unsigned *)s->count.data;
    a.arrived = s->arrived;
    s->arrived += (unsigned)(a.n - 1) * (unsigned)b->n_sm;
    if (a.n <= NEAR) {
        memcpy(a.near, s->list, bytes);
    } else {
        a.far = (const token_step *)cuda_grow(b, &s->far, bytes);
        if (a.far) cuda_push(b, s->far.data, s->list, bytes);
    }
    if (b->base.status == CCA_OK) launch(b, &a, s->type, shared);
}

/* ---- collecting ---------------------------------------------------------------------- */

/* Room for a further step; NULL after a failure. */
static token_step *add_step(cuda_backend *b, token_kind kind) {
    cuda_steps *s = b->steps;
    b->twin_of = NULL;
    if (b->base.status != CCA_OK) return NULL;
    if (s->n == s->room) {
        int room = s->room ? 2 * s->room : 64;
        token_step *list = (token_step *)realloc(s->list, (size_t)room * sizeof *list);
        if (!list) {
            cca_backend_fail(&b->base, CCA_NO_MEMORY, "no memory for the steps of a token");
            return NULL;
        }
        s->list = list;
        s->room = room;
    }
    token_step *step = &s->list[s->n++];
    memset((void *)step, 0, sizeof *step);
    step->kind = kind;
    return step;
}

/* A step of products of one type; all products of a launch have the same. */
static void add_products(cuda_backend *b, const cca_product *products, int n_products, bool gated,
                         const float *x, const cuda_norm *norm) {
    cuda_steps *s = b->steps;
    const cca_matrix *w = products[0].weight;
    if (s->n_products == MOST_PRODUCTS || (s->n_products > 0 && s->type != w->type)) {
        cuda_token_run(b);
    }
    token_step *step = add_step(b, TOKEN_PRODUCT);
    if (!step) return;
    s->type = w->type;
    s->cols = (int)cca_max(s->cols, w->cols);
    product_step *a = &step->product;
    a->number = s->n_products++;
    a->weights.gated = gated;
    a->weights.cols = (int)w->cols;
    a->x = x;
    if (norm) {
        a->norm = norm->weight;
        a->eps = norm->eps;
    }
    for (int i = 0; i < n_products; i++) {
        const cca_product *p = &products[i];
        cuda_weights split = cuda_weights_of(p->weight);
        a->weights.values[i] = (const char *)split.q;
        a->weights.scales[i] = (const char *)split.scale;
        a->weights.rows[i] = (int)split.rows;
        if (!gated || i == 0) a->weights.n_units += (int)split.rows;
        a->outputs[i] = token_output{p->bias ? (const float *)p->bias->data : NULL,
                                     (float *)p->out->data, p->accumulate};
    }
}

bool cuda_token_products(cuda_backend *b, const cca_product *products, int n_products, bool gated,
                         const float *x, const cuda_norm *norm) {
    enum { MOST_NORM = 4 * KEPT * THREADS };
    if (!b->steps || (norm && products[0].weight->cols > MOST_NORM)) return false;
    token_args a = {};
    size_t shared;
    a.n_products = MOST_PRODUCTS;
    for (int i = 0; i < n_products; i++) {
        const cca_matrix *w = products[i].weight;
        if (w->rows > INT32_MAX / 4 || !plan_shared(&a, &shared, w->type, w->cols)) return false;
        if (gated && w->type != products[0].weight->type) return false;
    }
    for (int first = 0, next; first < n_products; first = next) {
        cca_dtype type = products[first].weight->type;
        for (next = first + 1; next < n_products && next - first < TOKEN_MOST; next++) {
            if (products[next].weight->type != type) break;
        }
        add_products(b, products + first, next - first, gated, x, norm);
    }
    return true;
}

bool cuda_token_turn(cuda_backend *b, const turn_args *a) {
    if (!b->steps) return false;
    token_step *step = add_step(b, TOKEN_TURN);
    if (step) step->turn = *a;
    return true;
}

bool cuda_token_attend(cuda_backend *b, const split_args *a, int64_t n_keys) {
    int64_t warps = (int64_t)b->n_sm * WARPS, hd = a->keys.raw.head_dim;
    if (!b->steps || a->n_heads > warps) return false;
    int64_t most = (n_keys + LEAST_KEYS - 1) / LEAST_KEYS;
    int64_t splits = cca_max(1, cca_min(warps / a->n_heads, most));
    void *partial =
        cuda_grow(b, &b->partial, (size_t)(a->n_heads * splits * (hd + 2)) * sizeof(float));
    void *count = cuda_grow(b, &b->count, (size_t)a->n_heads * sizeof(unsigned));
    token_step *step = partial && count ? add_step(b, TOKEN_ATTEND) : NULL;
    if (!step) return true;
    step->attend = *a;
    step->attend.partial = (float *)partial;
    step->attend.count = (unsigned *)count;
    step->attend.splits = (int)splits;
    return true;
}
