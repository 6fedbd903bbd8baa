/* A token of decode in one kernel. Between two products of one row there are microseconds in which
 * nothing is read, were each a kernel of its own: more than quantised weights take to be read. So
 * operations on one row are collected as steps, until somebody wants their results or something
 * that is no step comes up, and one kernel carries them out. It has a block a multiprocessor; all
 * blocks wait for each other behind each step, and meanwhile the weights of the next products are
 * on their way (token_stream.cuh). A few steps go ahead of the others, so that the GPU works while
 * the rest is collected.
 *
 *     a block        warps 0 … 10                        warp 11, lane i for warp i
 *                    (its rows of the step's products)   (copies W → warp i's ring of stages)
 *     step 1 q k v   norm(x) → shared; W·x, rows         fill, fill, fill …
 *       — all blocks wait —                              … the rings run full of step 3's W
 *     step 2 attend  rotate, store own k v; a warp has   …
 *                    one split of one head's keys;
 *                    block joins warps, head's first
 *                    block joins blocks (sealed)
 *       — all blocks wait —
 *     step 3 o       x += W·attended                     fill, fill …
 *       — all blocks wait —
 *     step 4 gate up, step 5 down, then the next layer's step 1; last of all the logits
 *
 * The same steps give the same bits: what is added up, and in which order, does not depend on time.
 */
#include "backend/cuda/token_attend.cuh"
#include "backend/cuda/token_choose.cuh"
#include "backend/cuda/token_stream.cuh"

#include <stdlib.h>

enum {
    CARRIED = 8,            /* steps that travel with the launch */
    FIRST = 6,              /* steps after which the device begins with a token, */
    MANY = 40,              /* where the one before had so many */
    MOST_PINNED = 1024,     /* steps in memory that the device reads itself */
    LEAST_KEYS = 32,        /* of a warp */
    LEAST_STAGES = 2,       /* of a warp's ring */
    MOST_PRODUCTS = 512,    /* steps of products in a launch */
    SHARED = 227 << 10,     /* the most of a block */
    FIXED_SHARED = 8 << 10, /* barriers, sums, steps */
    MOST_MEMORY = 44 << 10, /* that a step may want of a block, beside products' x */
    STEP_WORDS = sizeof(token_step) / sizeof(int),
};

static_assert(sizeof(token_step) % sizeof(int) == 0 && (int)STEP_WORDS <= (int)THREADS,
              "a thread a word");

struct cuda_steps {
    token_step *list;
    int n, room, n_products;
    int since, before;         /* since somebody waited, and in all the time before */
    cca_dtype type;            /* of the last product: one of the kernel's set */
    int cols;                  /* of the widest */
    int memory;                /* bytes that steps want of a block, beside the stages */
    unsigned arrived, done;    /* what `count` has come to; steps */
    cuda_buffer choice;        /* what blocks have of a head's columns */
    cuda_buffer parts;         /* what blocks have of heads */
    cuda_buffer listed, count; /* steps; arrivals at the ends of steps */
    token_step *pinned;        /* the steps that are copied, */
    int n_pinned;              /* so many since somebody waited */
};

struct token_args {
    token_step carried[CARRIED];
    const token_step *listed;             /* all of them, where they are more */
    int n, n_products, n_stages, x_bytes; /* x_bytes: room for x, and for parts of attention */
    unsigned *count, arrived;             /* arrived: the count at the start */
    unsigned seal;                        /* of the first step: its number since the beginning */
    bool together;                        /* how copies begin */
};

/* ---- waiting for all blocks ---------------------------------------------------------- */

/* The block has done a step. */
static __device__ __forceinline__ void arrive(const token_args &a) {
    sync_workers();
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
    sync_workers();
}

/* ---- the kernel ---------------------------------------------------------------------- */

/* x / sqrt(mean(x²) + eps) * weight, by a warp. */
static __device__ __forceinline__ void norm_row(float4 *x, const float4 *weight, float eps,
                                                int cols) {
    int lane = (int)threadIdx.x % CUDA_WARP;
    float sum = 0;
    for (int i = lane; i < cols / 4; i += CUDA_WARP) {
        float4 v = __ldcg(x + i);
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    float scale = 1 / sqrtf(cuda_warp_sum(sum) / (float)cols + eps);
    for (int i = lane; i < cols / 4; i += CUDA_WARP) {
        float4 v = __ldcg(x + i), w = weight[i];
        x[i] =
            make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
    }
}

/* A row a block first, then further warps: heads are few. */
static __device__ __forceinline__ void norm_rows(const norm_step &s) {
    int first = (int)(threadIdx.x / CUDA_WARP * gridDim.x + blockIdx.x);
    for (int k = 0; k < s.n; k++) {
        const normed_rows &m = s.of[k];
        for (int row = first; row < m.rows; row += (int)gridDim.x * WARPS) {
            norm_row((float4 *)(m.x + (int64_t)row * m.cols), (const float4 *)m.weight, m.eps,
                     m.cols);
        }
    }
}

static __device__ __forceinline__ void turn(const turn_args &a) {
    int i = (int)(blockIdx.x * THREADS + threadIdx.x), n = turn_octets(a);
    for (; i < n; i += (int)gridDim.x * THREADS) turn_octet(a, 0, i);
}

/* The weights of all products, where the warps that copy ahead find them quickly. */
static __device__ __forceinline__ void list_weights(token_weights *out, const token_step *steps,
                                                    int n) {
    for (int i = (int)threadIdx.x; i < n; i += ALL_THREADS) {
        if (steps[i].kind == TOKEN_PRODUCT) out[steps[i].product.number] = steps[i].product.weights;
    }
}

/* A thread's word of the description of step i. */
static __device__ __forceinline__ int read_word(const token_args &a, int i) {
    const token_step *steps = a.listed ? a.listed : a.carried;
    return i < a.n && threadIdx.x < STEP_WORDS ? ((const int *)(steps + i))[threadIdx.x] : 0;
}

static __device__ __forceinline__ void put_word(token_step *both, int i, int word) {
    if (threadIdx.x < STEP_WORDS) ((int *)(both + i % 2))[threadIdx.x] = word;
}

/* Until step i may begin. */
static __device__ __forceinline__ void begin(const token_args &a, int i) {
    if (i == 0) {
        cuda_begin();
    } else {
        wait_for(a, i);
    }
}

/* Carries out the steps. both: of descriptions, that of a step and of the next; the first one is
 * there. */
template <typename SET>
static __device__ __forceinline__ void work(const token_args &a, token_step *both,
                                            stream_ring<SET> ring, char *x) {
    for (int i = 0; i < a.n; i++) {
        const token_step &step = both[i % 2];
        int word;
        if (step.kind == TOKEN_PRODUCT) {
            float4 norm[KEPT];
            stream_read_norm(norm, step.product);
            if (i == 0 || !step.product.beside) begin(a, i);
            word = read_word(a, i + 1);
            stream_multiply(&ring, step.product, norm, x);
        } else {
            begin(a, i);
            word = read_word(a, i + 1);
            unsigned seal = a.seal + (unsigned)i;
            switch (step.kind) {
            case TOKEN_NORM: norm_rows(step.norm); break;
            case TOKEN_TURN: turn(step.turn); break;
            case TOKEN_CHOOSE: choose(step.choose, seal, x); break;
            default: attend(step.attend, seal, (float *)x);
            }
        }
        if (i + 1 == a.n) break;
        put_word(both, i + 1, word);
        arrive(a);
    }
}

template <typename SET>
static __global__ void __launch_bounds__(ALL_THREADS, 1)
    token(const __grid_constant__ token_args a) {
    extern __shared__ __align__(128) char memory[];
    __shared__ uint64_t barriers[WARPS][2][MOST_STAGES];
    __shared__ token_step both[2];
    char *x = memory + WARPS * a.n_stages * set_sizes<SET>::STAGE;
    token_weights *weights = (token_weights *)(x + a.x_bytes);
    for (int i = (int)threadIdx.x; i < WARPS * 2 * MOST_STAGES; i += ALL_THREADS) {
        bool full = i / MOST_STAGES % 2 == 0; /* hears of one copy; the others, of all readers */
        cuda_barrier_init(&barriers[0][0][0] + i, full ? 1 : CUDA_WARP);
    }
    cuda_barriers_ready();
    put_word(both, 0, read_word(a, 0));
    list_weights(weights, a.listed ? a.listed : a.carried, a.n);
    __syncthreads();
    int warp = (int)threadIdx.x / CUDA_WARP;
    int fed = warp < WARPS ? warp : (int)threadIdx.x % CUDA_WARP; /* by this lane */
    stream_ring<SET> ring = ring_of<SET>(fed < WARPS ? fed : 0, memory, barriers, a.n_stages);
    if (warp == WARPS) {
        stream_feed(weights, a.n_products, ring, fed, a.together);
    } else {
        work(a, both, ring, x);
    }
}

/* ---- launching ----------------------------------------------------------------------- */

typedef void (*token_kernel)(token_args);

static token_kernel kernel_of(cca_dtype type) {
    return with_set(type, [](auto set) -> token_kernel { return token<decltype(set)>; });
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
    if (!b->forms.stream || b->base.status) return;
    b->forms.stream = has_room(b);
    if (!b->forms.stream) return;
    for (int i = 0; cca_dtype_at(i); i++) {
        if (!cca_dtype_at(i)->runs) continue;
        cuda_check(b,
                   cudaFuncSetAttribute(kernel_of((cca_dtype)cca_dtype_at(i)->id),
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
    if (cudaMallocHost((void **)&b->steps->pinned, MOST_PINNED * sizeof(token_step)) !=
        cudaSuccess) {
        b->steps->pinned = NULL; /* slower */
        cudaGetLastError();
    }
}

void cuda_token_free(cuda_backend *b) {
    if (!b->steps) return;
    cudaFree(b->steps->listed.data);
    cudaFreeHost(b->steps->pinned);
    cudaFree(b->steps->count.data);
    cudaFree(b->steps->parts.data);
    cudaFree(b->steps->choice.data);
    free(b->steps->list);
    free(b->steps);
}

/* Stages, room for x, and the shared memory of a block in all; false where rows of a type do not
 * suit: they come in aligned pieces. A block takes more than half of a multiprocessor's shared
 * memory, so that no two share one while others have none. */
static bool plan_shared(token_args *a, size_t *bytes, cca_dtype type, int64_t cols,
                        int64_t memory) {
    struct sizes {
        int vector, stage;
    };
    if (cols > SHARED) return false;
    sizes s = with_set(type, [](auto set) {
        typedef set_sizes<decltype(set)> S;
        return sizes{S::VECTOR, S::STAGE};
    });
    int x = cuda_with_traits(type, [=](auto t) { return x_bytes<decltype(t)::TYPE>((int)cols); });
    if (cols % s.vector != 0) return false;
    memory = cca_max(memory, WARPS * joined<128>::WIDTH * (int64_t)sizeof(float));
    a->x_bytes = (int)cca_max(x, memory);
    int rest = a->x_bytes + a->n_products * (int)sizeof(token_weights);
    int room = SHARED - FIXED_SHARED - rest;
    if (room < WARPS * s.stage * LEAST_STAGES) return false;
    a->n_stages = (int)cca_min(MOST_STAGES, room / (WARPS * s.stage));
    *bytes = (size_t)cca_max(a->n_stages * WARPS * s.stage + rest, SHARED / 2);
    return true;
}

/* Several steps want all blocks at once, and so do attention and choice; another step alone may be
 * put in place early, like other kernels. */
static void launch(cuda_backend *b, const token_args *a, cca_dtype type, size_t shared) {
    cudaLaunchAttribute attribute = {};
    if (a->n > 1 || a->carried[0].kind == TOKEN_ATTEND || a->carried[0].kind == TOKEN_CHOOSE) {
        attribute.id = cudaLaunchAttributeCooperative;
        attribute.val.cooperative = 1;
    } else {
        attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute.val.programmaticStreamSerializationAllowed = b->forms.early;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = (unsigned)b->n_sm;
    config.blockDim = ALL_THREADS;
    config.dynamicSmemBytes = shared;
    config.stream = b->stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    cuda_check(b, cudaLaunchKernelEx(&config, kernel_of(type), *a), "token");
}

/* The list on the device. */
static const token_step *push_steps(cuda_backend *b, int n) {
    cuda_steps *s = b->steps;
    size_t bytes = (size_t)n * sizeof *s->list;
    void *device = cuda_grow(b, &s->listed, bytes);
    if (!device) return NULL;
    if (!s->pinned || n > MOST_PINNED - s->n_pinned) {
        cuda_push(b, device, s->list, bytes);
        return (const token_step *)device;
    }
    token_step *pinned = s->pinned + s->n_pinned;
    s->n_pinned += n; /* being read until somebody waits */
    memcpy((void *)pinned, s->list, bytes);
    cuda_check(b, cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, b->stream),
               "token");
    return (const token_step *)device;
}

void cuda_token_run(cuda_backend *b) {
    cuda_steps *s = b->steps;
    if (!s || s->n == 0) return;
    size_t shared = 0;
    token_args a = {};
    a.n = s->n;
    a.n_products = s->n_products;
    plan_shared(&a, &shared, s->type, s->cols, s->memory);
    s->n = s->n_products = s->cols = s->memory = 0;
    if (b->base.status || !cuda_check(b, cudaSetDevice(b->device), "token")) return;
    a.count = (unsigned *)s->count.data;
    a.arrived = s->arrived;
    a.seal = s->done + 1;
    a.together = b->forms.together;
    s->done += (unsigned)a.n;
    s->arrived += (unsigned)(a.n - 1) * (unsigned)b->n_sm;
    if (a.n <= CARRIED) {
        memcpy((void *)a.carried, s->list, (size_t)a.n * sizeof *s->list);
    } else {
        a.listed = push_steps(b, a.n);
    }
    if (!b->base.status) launch(b, &a, s->type, shared);
}

void cuda_token_waited(cuda_backend *b) {
    cuda_steps *s = b->steps;
    if (!s) return;
    s->n_pinned = 0;
    if (s->since > 0) s->before = s->since;
    s->since = 0;
}

/* ---- collecting ---------------------------------------------------------------------- */

/* Room for a further step; NULL after a failure. */
static token_step *add_step(cuda_backend *b, token_kind kind) {
    cuda_steps *s = b->steps;
    b->twin_of = NULL;
    if (s->since++ == FIRST && s->before >= MANY) cuda_token_run(b);
    if (b->base.status) return NULL;
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

/* A step of products of one type; all products of a launch are of one set. beside: of product_step.
 */
static void add_products(cuda_backend *b, const cca_product *products, int n_products, bool gated,
                         bool beside, const float *x, const cuda_norm *norm) {
    cuda_steps *s = b->steps;
    const cca_matrix *w = products[0].weight;
    if (s->n_products == MOST_PRODUCTS ||
        (s->n_products > 0 && kernel_of(s->type) != kernel_of(w->type))) {
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
    a->weights.type = (uint8_t)w->type;
    a->beside = beside;
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
        if (w->rows > INT32_MAX / 4 || !plan_shared(&a, &shared, w->type, w->cols, MOST_MEMORY)) {
            return false;
        }
        if (gated && w->type != products[0].weight->type) return false;
    }
    for (int first = 0, next; first < n_products; first = next) {
        cca_dtype type = products[first].weight->type;
        for (next = first + 1; next < n_products && next - first < TOKEN_MOST; next++) {
            if (products[next].weight->type != type) break;
        }
        add_products(b, products + first, next - first, gated, first > 0, x, norm);
    }
    return true;
}

/* Keys beside the queries of the step before. Where nothing is collected yet, this is no token's.
 */
bool cuda_token_norm(cuda_backend *b, float *x, int64_t rows, int64_t cols, const cuda_norm *norm) {
    enum { MOST = 1 << 16 };
    cuda_steps *s = b->steps;
    if (!s || s->n == 0 || cols % 4 != 0 || rows * cols > MOST) return false;
    token_step *step = &s->list[s->n - 1];
    bool beside = step->kind == TOKEN_NORM && step->norm.n == 1 && step->norm.of[0].x != x;
    if (!beside) step = add_step(b, TOKEN_NORM);
    if (!step) return true;
    step->norm.of[step->norm.n++] = normed_rows{x, norm->weight, (int)rows, (int)cols, norm->eps};
    return true;
}

bool cuda_token_turn(cuda_backend *b, const turn_args *a) {
    if (!b->steps) return false;
    token_step *step = add_step(b, TOKEN_TURN);
    if (step) step->turn = *a;
    return true;
}

/* Takes the rotation and storing of one query off the list, if they are its last step. */
static bool take_turn(cuda_steps *s, turn_args *out, const void *q, int64_t pos) {
    const token_step *last = s->n > 0 ? &s->list[s->n - 1] : NULL;
    if (!last || last->kind != TOKEN_TURN) return false;
    if (last->turn.q != q || last->turn.pos != pos) return false;
    *out = last->turn;
    s->n--;
    return true;
}

/* Bounds as a step knows them. */
static choice_bounds bounds_of(const cca_rows *rows) {
    return choice_bounds{(const uint4 *)rows->k, (const uint4 *)rows->v, rows->capacity};
}

bool cuda_token_choose(cuda_backend *b, const choice_call *c) {
    const cca_rows *bounds = &c->bounds;
    int64_t sharers = c->n_heads / bounds->heads, hd = bounds->head_dim;
    int64_t first = cca_edge_at(&c->seen.begin, c->pos), end = cca_edge_at(&c->seen.end, c->pos);
    int64_t most_blocks = cca_blocks_looked_into(c->out.most), sharing = b->n_sm / bounds->heads;
    if (sharing > MOST_SHARING) sharing = MOST_SHARING;
    if (sharing < 1) return false;
    int64_t each = CHOICE_COLUMNS * sharing,
            n_columns = (choice_columns(*c, end) + each - 1) / each * each;
    int64_t memory = choice_memory(hd, sharers, n_columns, sharing, most_blocks);
    if (!b->steps || !cuda_is_half(bounds->k_type) || bounds->k_type != bounds->v_type ||
        (hd != 64 && hd != 128) || sharers > CHOICE_ROWS || memory > MOST_MEMORY) {
        return false;
    }
    int64_t n_parts = 2 * bounds->heads * choice_parts((int)sharers, (int)n_columns, (int)sharing);
    void *parts = cuda_grow(b, &b->steps->choice, (size_t)n_parts * sizeof(uint64_t));
    turn_args turn = {};
    bool turns = take_turn(b->steps, &turn, c->q, c->pos);
    token_step *step = parts ? add_step(b, TOKEN_CHOOSE) : NULL;
    if (!step) return true;
    b->steps->memory = (int)cca_max(b->steps->memory, memory);
    step->choose = choose_step{{bounds_of(bounds), bounds_of(&c->blocks)},
                               turn,
                               c->q,
                               c->out.groups,
                               c->out.counts,
                               (int)bounds->heads,
                               (int)sharers,
                               (int)hd,
                               (int)first,
                               (int)end,
                               (int)c->out.most,
                               (int)most_blocks,
                               (int)n_columns,
                               (int)sharing,
                               (uint64_t *)parts,
                               choice_has_levels(*c, end),
                               turns,
                               bounds->k_type == CCA_BF16};
    return true;
}

/* What one query sees. It has chosen as many groups as it can, without anybody's looking: where
 * there are more than it can have, more than these are always weighed. */
static key_runs find_keys(const cca_spans *spans, int64_t n_heads, int64_t pos) {
    key_runs keys = {};
    for (; keys.n < spans->n; keys.n++) {
        const cca_span *span = &spans->at[keys.n];
        const cca_choice *c = &spans->choice;
        key_run *r = &keys.at[keys.n];
        *r = run_of(*span, n_heads, pos);
        if (span->pick == CCA_PICK_CHOSEN) {
            list_run(r, *span, *c, c->groups, cca_min(r->n / c->group_size, c->most), c->most);
        }
        keys.n_keys += r->n;
    }
    return keys;
}

/* The first span ends with the query's own key. */
bool cuda_token_attend(cuda_backend *b, cca_matrix *out, const cca_spans *spans,
                       const cca_matrix *q, int64_t pos) {
    const cca_rows *rows = &spans->at[0].rows;
    int64_t warps = (int64_t)b->n_sm * WARPS, hd = rows->head_dim, n_heads = q->cols / hd;
    if (!b->steps || n_heads > warps) return false;
    key_runs keys = find_keys(spans, n_heads, pos);
    int64_t most = (keys.n_keys + LEAST_KEYS - 1) / LEAST_KEYS;
    int64_t splits = cca_max(1, cca_min(warps / n_heads, most));
    size_t bytes = (size_t)(n_heads * splits * (hd + 2)) * sizeof(uint64_t);
    void *parts = cuda_grow(b, &b->steps->parts, bytes);
    turn_args turn = {};
    bool turns = take_turn(b->steps, &turn, q->data, pos);
    token_step *step = parts ? add_step(b, TOKEN_ATTEND) : NULL;
    if (!step) return true;
    keys.at[0].n -= turns;
    keys.n_keys -= turns;
    attend_step *s = &step->attend;
    s->keys = keys;
    s->turn = turn;
    s->turns = turns;
    s->q = (const float *)q->data;
    s->out = (float *)out->data;
    s->parts = (uint64_t *)parts;
    s->own_row = cca_rows_at(rows, pos);
    s->n_heads = (int)n_heads;
    s->head_dim = (int)hd;
    s->splits = (int)splits;
    s->each = (keys.n_keys + (int)splits - 1) / (int)splits;
    s->is_bf16 = rows->k_type == CCA_BF16;
    return true;
}
