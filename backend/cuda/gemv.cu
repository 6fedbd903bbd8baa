/* Products of one row of x, or a few: each warp reads whole rows of weights once, in pieces of 16
 * bytes, as they are stored. Activations for quantised weights are quantised, too: 8 bits with a
 * scale for each 32 values, the same integers as on the CPU. */
#include "backend/cuda/types.cuh"

enum {
    MOST = 3, /* products in a launch */
    THREADS = 128,
    ROWS = 2, /* of weights a warp reads side by side: more loads under way */
    ROWS_A_BLOCK = THREADS / CUDA_WARP * ROWS,
};

struct gemv_product {
    cuda_weights w;
    const float *bias;
    float *out;
    bool accumulate;
};

struct gemv_args {
    gemv_product products[MOST];
    int n_products;
    int64_t cols;
    const float *x;        /* (n, cols) */
    const int8_t *q;       /* the same, quantised */
    const cuda_x_scale *d; /* (n, cols / 32) */
};

/* Weights are read once: past the first cache, which holds x. */
static __device__ __forceinline__ uint4 stream16(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

/* Adds a lane's part of rows row … row + ROWS - 1 of w, times row y of x: 16 bytes at a time. */
template <typename T>
static __device__ __forceinline__ void
dot_rows(float *sums, const gemv_args &a, const cuda_weights &w, const int64_t *rows, int64_t y) {
    int64_t lane = threadIdx.x % CUDA_WARP, n = a.cols / T::VALUES;
    if constexpr (T::BLOCK == 1) {
        enum { FOURS = T::VALUES / 4 };
        const float4 *x = (const float4 *)(a.x + y * a.cols);
#pragma unroll T::UNROLL
        for (int64_t i = lane; i < n; i += CUDA_WARP) {
            float4 v[FOURS];
#pragma unroll
            for (int k = 0; k < FOURS; k++) v[k] = x[i * FOURS + k];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                sums[r] = T::dot(stream16((const uint4 *)w.q + rows[r] * n + i), v, sums[r]);
            }
        }
    } else {
        enum { WORDS = T::VALUES / 16, SHARE = T::BLOCK / T::VALUES };
        const uint4 *q = (const uint4 *)(a.q + y * a.cols);
        const cuda_x_scale *d = a.d + y * (a.cols / CCA_QUANT_BLOCK);
        int64_t blocks = a.cols / T::BLOCK;
#pragma unroll T::UNROLL
        for (int64_t i = lane; i < n; i += CUDA_WARP) {
            uint4 v[WORDS];
#pragma unroll
            for (int k = 0; k < WORDS; k++) v[k] = q[i * WORDS + k];
            cuda_x_scale dx = d[i * T::VALUES / CCA_QUANT_BLOCK];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                int dot = T::dot(stream16((const uint4 *)w.q + rows[r] * n + i), v);
                const typename T::scales *scale = (const typename T::scales *)w.scale;
                sums[r] += T::scaled(scale[rows[r] * blocks + i / SHARE], dot, dx);
            }
        }
    }
}

/* The product that a block works on, and its first row there. */
static __device__ __forceinline__ int find_product(const gemv_args &a, int64_t *row) {
    int64_t block = blockIdx.x;
    int i = 0;
    for (; i < a.n_products - 1; i++) {
        int64_t blocks = (a.products[i].w.rows + ROWS_A_BLOCK - 1) / ROWS_A_BLOCK;
        if (block < blocks) break;
        block -= blocks;
    }
    *row = block * ROWS_A_BLOCK;
    return i;
}

static __device__ __forceinline__ void put_row(const gemv_product &p, int64_t y, int64_t row,
                                               float sum) {
    float *out = p.out + y * p.w.rows + row;
    if (p.bias) sum += p.bias[row];
    *out = p.accumulate ? *out + sum : sum;
}

/* Brings the first 4 KB of each row near, while the kernel before this one still runs. */
template <typename T>
static __device__ __forceinline__ void prefetch_rows(const cuda_weights &w, const int64_t *rows) {
    int64_t width = cuda_value_bytes<T>(w.cols);
    int64_t at = threadIdx.x % CUDA_WARP * 128;
#pragma unroll
    for (int r = 0; r < ROWS && at < width; r++) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)w.q + rows[r] * width + at));
    }
}

template <cca_dtype type> static __global__ void __launch_bounds__(THREADS) gemv(gemv_args a) {
    int64_t row, rows[ROWS], y = blockIdx.y;
    const gemv_product &p = a.products[find_product(a, &row)];
    row += threadIdx.x / CUDA_WARP * ROWS;
#pragma unroll
    for (int r = 0; r < ROWS; r++) rows[r] = row + r < p.w.rows ? row + r : p.w.rows - 1;
    prefetch_rows<traits<type>>(p.w, rows);
    cuda_begin();
    if (row >= p.w.rows) return;
    float sums[ROWS] = {};
    dot_rows<traits<type>>(sums, a, p.w, rows, y);
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] = cuda_warp_sum(sums[r]);
    if (threadIdx.x % CUDA_WARP != 0) return;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (row + r < p.w.rows) put_row(p, y, row + r, sums[r]);
    }
}

/* Rows that are no multiple of 16 bytes: value by value, one warp a row. */
static __global__ void __launch_bounds__(THREADS) gemv_any(gemv_args a) {
    cuda_begin();
    int64_t row, y = blockIdx.y;
    const gemv_product &p = a.products[find_product(a, &row)];
    row += threadIdx.x / CUDA_WARP * ROWS;
    for (int r = 0; r < ROWS && row < p.w.rows; r++, row++) {
        float sum = 0;
        for (int64_t c = threadIdx.x % CUDA_WARP; c < a.cols; c += CUDA_WARP) {
            sum += a.x[y * a.cols + c] * cuda_weight_at(p.w, row * a.cols + c);
        }
        sum = cuda_warp_sum(sum);
        if (threadIdx.x % CUDA_WARP == 0) put_row(p, y, row, sum);
    }
}

/* One warp a block of 32 values. One that is no finite number takes its block with it. */
static __global__ void quantise(int8_t *q, cuda_x_scale *d, const float *x, int64_t n_blocks) {
    cuda_begin();
    int64_t block = cuda_index() / CUDA_WARP;
    if (block >= n_blocks) return;
    int64_t i = block * CCA_QUANT_BLOCK + threadIdx.x % CUDA_WARP;
    bool finite = __all_sync(~0u, isfinite(x[i]));
    float largest = cuda_warp_max(fabsf(x[i]));
    int value = finite && largest > 0 ? __float2int_rn(x[i] * (127 / largest)) : 0;
    int sum = __reduce_add_sync(~0u, value);
    q[i] = (int8_t)value;
    if (threadIdx.x % CUDA_WARP > 0) return;
    d[block] = cuda_x_scale{finite ? largest / 127 : NAN, sum};
}

/* Makes the quantised form of x in the backend's buffer. */
static bool quantise_x(cuda_backend *b, gemv_args *a, int64_t n) {
    int64_t n_blocks = n * (a->cols / CCA_QUANT_BLOCK);
    size_t q_bytes = (size_t)n_blocks * CCA_QUANT_BLOCK;
    char *form = (char *)cuda_grow(b, &b->x, q_bytes + (size_t)n_blocks * sizeof(cuda_x_scale));
    if (!form) return false;
    a->q = (const int8_t *)form;
    a->d = (const cuda_x_scale *)(form + q_bytes);
    cuda_launch(b, "product", quantise, cuda_blocks(n_blocks * CUDA_WARP, 256), 256, 0,
                (int8_t *)form, (cuda_x_scale *)(form + q_bytes), a->x, n_blocks);
    return true;
}

static void launch_gemv(cuda_backend *b, const gemv_args &a, cca_dtype type, int64_t n) {
    int64_t blocks = 0;
    for (int i = 0; i < a.n_products; i++) {
        blocks += cuda_blocks(a.products[i].w.rows, ROWS_A_BLOCK);
    }
    auto kernel = cuda_with_traits(type, [&](auto t) {
        typedef decltype(t) T;
        return a.cols % T::VALUES == 0 ? gemv<T::TYPE> : gemv_any;
    });
    cuda_launch(b, "product", kernel, dim3((unsigned)blocks, (unsigned)n), THREADS, 0, a);
}

void cuda_gemv(cuda_backend *b, const cca_product *products, int n_products, const cca_matrix *x,
               int64_t n) {
    cca_dtype type = products[0].weight->type;
    gemv_args a = {};
    a.cols = x->cols;
    a.x = (const float *)x->data;
    if (cuda_has_blocks(type) && !quantise_x(b, &a, n)) return;
    for (int done = 0; done < n_products; done += a.n_products) {
        a.n_products = n_products - done < MOST ? n_products - done : MOST;
        for (int i = 0; i < a.n_products; i++) {
            const cca_product *p = &products[done + i];
            a.products[i] = gemv_product{cuda_weights_of(p->weight),
                                         p->bias ? (const float *)p->bias->data : NULL,
                                         (float *)p->out->data, p->accumulate};
        }
        launch_gemv(b, a, type, n);
    }
}
