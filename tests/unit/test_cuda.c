/* Each operation of the CUDA backend against the CPU's, on fresh random values and poisoned
 * outputs. What is exact is compared with the plain kernels, whose sums are in double; what rounds
 * to 16 bits, with the CPU's fastest ones. Distances are ‖a - b‖ / ‖b‖. All of it twice, the second
 * time with the forms for Hopper, of which products of one row are also tried with copies in turn.
 * Skipped where there is no device. */
#include "backend/cpu/cpu.h"
#include "backend/cuda/forms.h"
#include "cca.h"
#include "tests/unit/test.h"

static cca_backend *gpu, *plain, *cpu; /* of the group */
static cca_cuda_forms forms;
static bool fp8;
static uint64_t seed = 1;

static const cca_dtype types[] = {CCA_F32, CCA_F16, CCA_BF16, CCA_Q8_0, CCA_Q4_0};

static int open_backends(void **state) {
    (void)state;
    cca_error err;
    cca_backend_options options = {0}, on_gpu = {.fp8 = fp8};
    if (cca_backend_cuda_with(&gpu, 0, &on_gpu, &forms, &err) != CCA_OK) {
        printf("SKIP cuda: %s\n", err.text);
        return 0;
    }
    const cca_kernels *kernels = cca_kernels_find("plain");
    if (cca_backend_cpu_with(&plain, &options, kernels, &err) != CCA_OK) return -1;
    return cca_backend_cpu(&cpu, &options, &err) == CCA_OK ? 0 : -1;
}

static int close_backends(void **state) {
    (void)state;
    cca_backend_close(gpu);
    cca_backend_close(plain);
    cca_backend_close(cpu);
    gpu = plain = cpu = NULL;
    return 0;
}

static void *memory(size_t bytes) {
    void *p = malloc(bytes + 1);
    assert_non_null(p);
    memset(p, 0xff, bytes); /* NaN as floats */
    return p;
}

static float *floats(int64_t n) {
    return memory((size_t)n * sizeof(float));
}

static float *random_floats(int64_t n, float size) {
    float *x = floats(n);
    test_fill(x, n, &seed, size);
    return x;
}

static void check_sync(void) {
    cca_error err;
    if (cca_backend_sync(gpu, &err) != CCA_OK) fail_msg("%s", err.text);
}

/* The same activations in host memory and on the device. */
typedef struct pair {
    cca_matrix host, device;
} pair;

static pair pair_of(float *x, int64_t rows, int64_t cols) {
    pair p = {.host = {.data = x, .type = CCA_F32, .rows = rows, .cols = cols}};
    cca_matrix_alloc(gpu, &p.device, CCA_F32, rows, cols);
    cca_backend_upload(gpu, p.device.data, x, (size_t)(rows * cols) * sizeof *x);
    return p;
}

static pair random_pair(int64_t rows, int64_t cols, float size) {
    return pair_of(random_floats(rows * cols, size), rows, cols);
}

/* An output that nobody has written yet. */
static pair poisoned(int64_t rows, int64_t cols) {
    return pair_of(floats(rows * cols), rows, cols);
}

static pair random_weights(cca_dtype type, int64_t rows, int64_t cols, float size) {
    size_t bytes = 0;
    assert_true(cca_matrix_bytes(&bytes, type, rows, cols));
    float *x = random_floats(rows * cols, size);
    void *w = memory(bytes);
    cca_dtype_encode(w, type, x, rows * cols);
    free(x);
    pair p = {.host = {.data = w, .type = type, .rows = rows, .cols = cols}};
    cca_matrix_load(gpu, &p.device, type, rows, cols, w);
    return p;
}

static void free_pair(pair *p) {
    cca_matrix_free(gpu, &p->device);
    free(p->host.data);
}

/* What the device has, in host memory. */
static float *fetch(const pair *p) {
    float *x = floats(p->host.rows * p->host.cols);
    cca_matrix_download(gpu, x, &p->device, p->host.rows);
    check_sync();
    return x;
}

static void compare(const pair *p, double bound, const char *what) {
    float *got = fetch(p);
    test_below(cca_distance(got, p->host.data, p->host.rows * p->host.cols), bound, what);
    free(got);
}

/* ---- rows and values ----------------------------------------------------------------- */

static void embedding(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t widths[] = {96, 4352};
    for (int t = 0; t < 10; t++) {
        int64_t width = widths[t / 5];
        pair table = random_weights(types[t % 5], 50, width, 2), out = poisoned(7, width);
        int32_t ids[] = {49, 0, 7, 7, 31, 1, 48};
        cca_embed(plain, &out.host, &table.host, ids, 7);
        cca_embed(gpu, &out.device, &table.device, ids, 7);
        compare(&out, 1e-9, cca_dtype_name(types[t % 5]));
        free_pair(&table), free_pair(&out);
    }
}

static void norms_and_gates(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t widths[] = {1, 33, 288, 4096};
    for (int i = 0; i < 4; i++) {
        pair x = random_pair(5, widths[i], 3), w = random_pair(1, widths[i], 2);
        pair out = poisoned(3, widths[i]), up = random_pair(5, widths[i], 40);
        cca_rmsnorm(plain, &out.host, &x.host, 2, &w.host, 1e-5f, 3);
        cca_rmsnorm(gpu, &out.device, &x.device, 2, &w.device, 1e-5f, 3);
        compare(&out, 1e-6, "rmsnorm");
        cca_swiglu(plain, &up.host, &x.host, 5);
        cca_swiglu(gpu, &up.device, &x.device, 5);
        compare(&up, 1e-6, "swiglu");
        free_pair(&x), free_pair(&w), free_pair(&out), free_pair(&up);
    }
}

static void rope(void **state) {
    (void)state;
    if (!gpu) skip();
    double inv_freq[32];
    for (int k = 0; k < 32; k++) inv_freq[k] = pow(10000, -k / 32.0);
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        cca_rope turn = {inv_freq, 32, 1.25f, interleaved};
        pair angles = poisoned(6, 64), x = random_pair(6, 3 * 64, 2);
        cca_angles(plain, &angles.host, &turn, 1000003, 6);
        cca_angles(gpu, &angles.device, &turn, 1000003, 6);
        compare(&angles, 1e-7, "angles");
        cca_rotate(plain, &x.host, &angles.host, &turn, 6);
        cca_rotate(gpu, &x.device, &angles.device, &turn, 6);
        compare(&x, 1e-6, "rotate");
        free_pair(&angles), free_pair(&x);
    }
}

/* ---- products ------------------------------------------------------------------------ */

/* x as the form for few rows and quantised weights has it: 8 bits, a scale for each 32 values. */
static void round_to_bytes(float *x, int64_t n) {
    for (; n > 0; n -= 32, x += 32) {
        float largest = 0;
        for (int i = 0; i < 32; i++) largest = fmaxf(largest, fabsf(x[i]));
        for (int i = 0; i < 32; i++) x[i] = largest / 127 * nearbyintf(x[i] * (127 / largest));
    }
}

static void round_to_bf16(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = cca_bf16_to_f32(cca_f32_to_bf16(x[i]));
}

/* Weights of any type as bf16 holds them, in f32. */
static void round_weights(cca_matrix *w) {
    float *x = floats(w->rows * w->cols);
    cca_dtype_decode(x, w->type, w->data, w->rows * w->cols);
    round_to_bf16(x, w->rows * w->cols);
    free(w->data);
    w->data = x;
    w->type = CCA_F32;
}

/* Two products of one x, the second with a bias and added to what is there. Up to 4 rows of x run
 * on the weights as they are; more run in bf16 but for f32 weights. */
static void check_product(cca_dtype type, int64_t n, int64_t rows, int64_t cols) {
    char what[96];
    snprintf(what, sizeof what, "%s, %d rows of x, weights (%d, %d)", cca_dtype_name(type), (int)n,
             (int)rows, (int)cols);
    bool few = n <= 4, quantised = cca_dtype_block(type) > 1;
    float *data = random_floats(n * cols, 1);
    if (few && quantised) round_to_bytes(data, n * cols);
    pair x = pair_of(data, n, cols), w[2], out[2] = {poisoned(n, rows), random_pair(n, 5, 1)};
    pair bias = random_pair(1, 5, 1);
    w[0] = random_weights(type, rows, cols, 1);
    w[1] = random_weights(type, 5, cols, 1);
    cca_product on_gpu[] = {{&out[0].device, &w[0].device, NULL, false},
                            {&out[1].device, &w[1].device, &bias.device, true}};
    cca_product on_cpu[] = {{&out[0].host, &w[0].host, NULL, false},
                            {&out[1].host, &w[1].host, &bias.host, true}};
    float *start = memory((size_t)n * 5 * sizeof *start);
    memcpy(start, out[1].host.data, (size_t)n * 5 * sizeof *start);
    cca_matmul(gpu, on_gpu, 2, &x.device, n);
    cca_matmul(plain, on_cpu, 2, &x.host, n);
    bool exact = few || type == CCA_F32;
    for (int i = 0; i < 2; i++) compare(&out[i], exact ? 1e-5 : 4e-3, what);
    if (!exact) {
        round_to_bf16(data, n * cols);
        memcpy(out[1].host.data, start, (size_t)n * 5 * sizeof *start);
        for (int i = 0; i < 2; i++) round_weights(&w[i].host);
        cca_matmul(plain, on_cpu, 2, &x.host, n);
        for (int i = 0; i < 2; i++) compare(&out[i], 1e-5, what);
    }
    free(start), free_pair(&x), free_pair(&bias);
    for (int i = 0; i < 2; i++) free_pair(&w[i]), free_pair(&out[i]);
}

static void products(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t shapes[][3] = {
        {1, 1, 32},    {1, 300, 4096}, {2, 33, 96},    {4, 130, 352},  {5, 7, 64},
        {15, 64, 288}, {64, 100, 96},  {127, 33, 160}, {129, 260, 64}, {1000, 48, 352}};
    for (int t = 0; t < 5; t++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            check_product(types[t], shapes[i][0], shapes[i][1], shapes[i][2]);
        }
        if (cca_dtype_block(types[t]) > 1) continue;
        check_product(types[t], 1, 9, 33); /* rows at odd places */
        check_product(types[t], 6, 9, 33);
        check_product(types[t], 3, 12, 1);
    }
}

/* Norms leave their output in the form that a product wants; what changes it later counts. */
static void products_of_norms(void **state) {
    (void)state;
    if (!gpu) skip();
    double inv_freq[32];
    for (int k = 0; k < 32; k++) inv_freq[k] = pow(10000, -k / 32.0);
    cca_rope turn = {inv_freq, 32, 1, true};
    for (int later = 0; later < 2; later++) {
        pair x = random_pair(20, 128, 3), norm = random_pair(1, 128, 2), h = poisoned(20, 128);
        pair w = random_weights(CCA_BF16, 48, 128, 1), out = poisoned(20, 48);
        pair angles = poisoned(20, 64);
        cca_backend *both[] = {plain, gpu};
        for (int i = 0; i < 2; i++) {
            cca_matrix *to = i ? &h.device : &h.host, *y = i ? &out.device : &out.host;
            cca_matrix *a = i ? &angles.device : &angles.host;
            cca_product p = {y, i ? &w.device : &w.host, NULL, false};
            cca_angles(both[i], a, &turn, 7, 20);
            cca_rmsnorm(both[i], to, i ? &x.device : &x.host, 0, i ? &norm.device : &norm.host,
                        1e-5f, 20);
            if (later) cca_rotate(both[i], to, a, &turn, 20);
            cca_matmul(both[i], &p, 1, to, 20);
        }
        compare(&out, 4e-3, later ? "rotated norm" : "norm");
        free_pair(&x), free_pair(&norm), free_pair(&h), free_pair(&w), free_pair(&out);
        free_pair(&angles);
    }
}

/* ---- what a layer consists of ---------------------------------------------------------- */

/* Bound of a product whose operands were rounded to 8-bit floats, x to 8 bits, to bf16, or nothing.
 */
static double product_bound(cca_dtype type, int64_t n) {
    if (type == CCA_F32) return 1e-5;
    if (n > 4) return fp8 ? 4e-2 : 4e-3;
    return cca_dtype_block(type) > 1 ? 8e-3 : 1e-5;
}

/* Norms and the products of them, two of them with a bias, of widths that fill pieces of rows or do
 * not. */
static void products_behind_norms(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t counts[] = {1, 3, 20}, widths[] = {96, 768, 4352};
    for (int i = 0; i < 45; i++) {
        cca_dtype type = types[i % 5];
        int64_t n = counts[i / 5 % 3], cols = widths[i / 15];
        char what[64];
        snprintf(what, sizeof what, "%s, %d rows, %d wide", cca_dtype_name(type), (int)n,
                 (int)cols);
        pair x = random_pair(n + 2, cols, 3), norm = random_pair(1, cols, 2), h = poisoned(n, cols);
        pair w[3], out[3], bias = random_pair(1, 48, 9);
        cca_product on_cpu[3], on_gpu[3];
        static const int64_t rows[] = {48, 2064, 48};
        for (int p = 0; p < 3; p++) {
            w[p] = random_weights(type, rows[p], cols, 1);
            out[p] = poisoned(n, rows[p]);
            on_cpu[p] = (cca_product){&out[p].host, &w[p].host, p == 1 ? NULL : &bias.host, false};
            on_gpu[p] =
                (cca_product){&out[p].device, &w[p].device, p == 1 ? NULL : &bias.device, false};
        }
        cca_norm_matmul(plain, on_cpu, 3, &h.host, &x.host, 2, &norm.host, 1e-5f, n);
        cca_norm_matmul(gpu, on_gpu, 3, &h.device, &x.device, 2, &norm.device, 1e-5f, n);
        for (int p = 0; p < 3; p++) {
            compare(&out[p], product_bound(type, n), what);
            free_pair(&w[p]), free_pair(&out[p]);
        }
        free_pair(&x), free_pair(&norm), free_pair(&h), free_pair(&bias);
    }
}

static void feeding_forward(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t counts[] = {1, 3, 20},
                         shapes[][2] = {{96, 160}, {512, 1280}, {2304, 4352}};
    for (int i = 0; i < 45; i++) {
        cca_dtype type = types[i % 5];
        int64_t n = counts[i / 5 % 3], dim = shapes[i / 15][0], hidden = shapes[i / 15][1];
        char what[64];
        snprintf(what, sizeof what, "%s, %d rows, %d to %d", cca_dtype_name(type), (int)n, (int)dim,
                 (int)hidden);
        float size = 1 / sqrtf((float)dim);
        pair x = random_pair(n, dim, 0.1f), norm = random_pair(1, dim, 2), h = poisoned(n, dim);
        pair gate = random_weights(type, hidden, dim, size), gated = poisoned(n, hidden);
        pair up = random_weights(type, hidden, dim, size), upped = poisoned(n, hidden);
        pair down = random_weights(type, dim, hidden, 1);
        cca_ffn host = {&norm.host, &gate.host, &up.host,    &down.host,
                        1e-5f,      &h.host,    &gated.host, &upped.host};
        cca_ffn device = {&norm.device, &gate.device, &up.device,    &down.device,
                          1e-5f,        &h.device,    &gated.device, &upped.device};
        cca_feed_forward(plain, &x.host, &host, n);
        cca_feed_forward(gpu, &x.device, &device, n);
        compare(&x, 2 * product_bound(type, n), what);
        free_pair(&x), free_pair(&norm), free_pair(&h), free_pair(&gate), free_pair(&up);
        free_pair(&down), free_pair(&gated), free_pair(&upped);
    }
}

/* ---- the cache ----------------------------------------------------------------------- */

/* Random rows of a cache in host memory, and a copy on the device. */
typedef struct row_pair {
    cca_rows host, device;
} row_pair;

static void *copy_rows(const void *host, size_t bytes) {
    void *device = cca_backend_alloc(gpu, bytes);
    cca_backend_upload(gpu, device, host, bytes);
    return device;
}

static size_t bytes_of(cca_dtype type, const cca_rows *r) {
    size_t bytes = 0;
    assert_true(cca_dtype_row_bytes(&bytes, type, r->heads * r->capacity * r->head_dim));
    return bytes;
}

static void *random_values(cca_dtype type, const cca_rows *r) {
    int64_t n = r->heads * r->capacity * r->head_dim;
    float *x = random_floats(n, 2);
    void *rows = memory(bytes_of(type, r));
    cca_dtype_encode(rows, type, x, n);
    free(x);
    return rows;
}

static row_pair random_rows(cca_dtype k_type, cca_dtype v_type, int64_t heads, int64_t capacity,
                            int64_t hd, int64_t base) {
    row_pair p = {.host = {NULL, NULL, k_type, v_type, heads, capacity, hd, base}};
    p.host.k = random_values(k_type, &p.host);
    p.host.v = random_values(v_type, &p.host);
    p.device = p.host;
    p.device.k = copy_rows(p.host.k, bytes_of(k_type, &p.host));
    p.device.v = copy_rows(p.host.v, bytes_of(v_type, &p.host));
    return p;
}

static void free_rows(row_pair *p) {
    cca_backend_release(gpu, p->device.k);
    cca_backend_release(gpu, p->device.v);
    free(p->host.k);
    free(p->host.v);
}

/* Keys or values on both sides: as bits, or as floats within a bound. */
static void compare_rows(const row_pair *p, bool keys, double bound, const char *what) {
    cca_dtype type = keys ? p->host.k_type : p->host.v_type;
    size_t bytes = bytes_of(type, &p->host);
    void *host = keys ? p->host.k : p->host.v, *got = memory(bytes);
    cca_backend_download(gpu, got, keys ? p->device.k : p->device.v, bytes);
    check_sync();
    if (bound > 0) {
        int64_t n = p->host.heads * p->host.capacity * p->host.head_dim;
        float *a = floats(n), *b = floats(n);
        cca_dtype_decode(a, type, got, n);
        cca_dtype_decode(b, type, host, n);
        test_below(cca_distance(a, b, n), bound, what);
        free(a), free(b);
    } else if (memcmp(got, host, bytes) != 0) {
        fail_msg("%s: other bits than on the CPU", what);
    }
    free(got);
}

static void storing_and_moving(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t dims[] = {20, 32, 64, 128};
    for (int t = 0; t < 4; t++) {
        for (int i = 0; i < 4; i++) {
            if (dims[i] % cca_dtype_block(types[t]) != 0) continue;
            cca_dtype v_type = types[(t + 1) % 3]; /* q8_0 keys beside values of another type */
            row_pair ring = random_rows(types[t], v_type, 3, 24, dims[i], 0);
            row_pair line = random_rows(types[t], v_type, 3, 60, dims[i], 80);
            pair k = random_pair(17, 3 * dims[i], 4), v = random_pair(17, 3 * dims[i], 4);
            cca_rows_store(cpu, &ring.host, &k.host, &v.host, 91, 17); /* wraps at 96 */
            cca_rows_store(gpu, &ring.device, &k.device, &v.device, 91, 17);
            cca_rows_move(cpu, &line.host, &ring.host, 85, 23);
            cca_rows_move(gpu, &line.device, &ring.device, 85, 23);
            for (int keys = 0; keys < 2; keys++) {
                compare_rows(&ring, keys, 0, "store");
                compare_rows(&line, keys, 0, "move");
            }
            free_rows(&ring), free_rows(&line), free_pair(&k), free_pair(&v);
        }
    }
}

/* Queries and keys are rotated on the way into the cache. */
static void rotating_and_storing(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t dims[] = {20, 64, 128}, counts[] = {1, 17};
    for (int i = 0; i < 48; i++) {
        int64_t hd = dims[i / 4 % 3], n = counts[i / 12 % 2];
        cca_dtype k_type = types[i % 3], v_type = types[(i + i / 24) % 3];
        double inv_freq[64];
        for (int k = 0; k < 64; k++) inv_freq[k] = pow(10000, -2.0 * k / (double)hd);
        cca_rope rope = {inv_freq, hd / 2, 1.25f, i / 2 % 2};
        pair angles = poisoned(n, hd), q = random_pair(n, 6 * hd, 2);
        pair k = random_pair(n, 3 * hd, 4), v = random_pair(n, 3 * hd, 4);
        row_pair ring = random_rows(k_type, v_type, 3, 24, hd, 0);
        cca_turn host = {&angles.host, &rope}, device = {&angles.device, &rope};
        cca_angles(plain, &angles.host, &rope, 91, n);
        cca_angles(gpu, &angles.device, &rope, 91, n);
        cca_rotate_store(plain, &ring.host, &q.host, &k.host, &v.host, &host, 91, n);
        cca_rotate_store(gpu, &ring.device, &q.device, &k.device, &v.device, &device, 91, n);
        compare(&q, 1e-6, "rotated queries");
        compare_rows(&ring, true, 1e-3, "rotated keys"); /* a rounding may go the other way */
        compare_rows(&ring, false, 0, "values");
        free_pair(&angles), free_pair(&q), free_pair(&k), free_pair(&v), free_rows(&ring);
    }
}

static void pooling(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t shapes[][4] = {
        {1, 1, 64, 3}, {8, 2, 64, 5}, {4, 4, 128, 16}, {2, 1, 20, 7}, {4, 1, 128, 32}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int64_t heads = shapes[i][0], kv = shapes[i][1], hd = shapes[i][2], g = shapes[i][3];
        for (int t = 0; t < 4; t++) {
            if (hd % cca_dtype_block(types[t]) != 0) continue;
            for (int p = CCA_POOL_QUERY; p <= CCA_POOL_MAX; p++) {
                int64_t pos = 3 * g - 1, n = 3 * g;
                row_pair raw = random_rows(types[t], types[t], kv, pos + n, hd, 0);
                row_pair far = random_rows(types[t], types[t], heads, 6, hd, 0);
                pair q = random_pair(n, heads * hd, 1);
                cca_groups host = {raw.host, far.host, g, (cca_pooling)p};
                cca_groups device = {raw.device, far.device, g, (cca_pooling)p};
                cca_pool(cpu, &host, &q.host, pos, n);
                cca_pool(gpu, &device, &q.device, pos, n);
                double bound = types[t] == CCA_F32 ? 1e-6 : 3e-3;
                compare_rows(&far, true, bound, "core keys");
                compare_rows(&far, false, bound, "core values");
                free_rows(&raw), free_rows(&far), free_pair(&q);
            }
        }
    }
}

/* ---- attention ----------------------------------------------------------------------- */

typedef struct attention_case {
    int64_t head_dim, n_heads, n_kv_heads;
    cca_rule rule;
    int64_t pos, n;
    bool ring;
    cca_dtype k_type, v_type;
} attention_case;

/* As the cache has them: the window, then sinks and cores where the rule has some. */
static cca_spans spans_of(const cca_rule *rule, cca_rows raw, cca_rows sinks, cca_rows cores) {
    cca_spans s = {.n = 1, .at = {{raw, cca_rule_window(rule), 1, CCA_PICK_ALL}}};
    if (rule->n_sinks > 0) {
        s.at[s.n++] = (cca_span){sinks, cca_rule_sinks(rule), 1, CCA_PICK_ALL};
    }
    if (rule->cores) {
        s.at[s.n++] = (cca_span){cores, cca_rule_groups(rule), rule->group_size, CCA_PICK_ALL};
    }
    return s;
}

static int64_t raw_begin(const cca_rule *rule, int64_t pos) {
    cca_range seen = cca_rule_window(rule);
    return cca_edge_at(&seen.begin, pos);
}

static int64_t count_cores(const cca_rule *rule, int64_t pos) {
    cca_range seen = cca_rule_groups(rule);
    return cca_edge_at(&seen.end, pos);
}

static void check_attention(const attention_case *c) {
    char what[160];
    snprintf(what, sizeof what,
             "hd %d, heads %d/%d, g %d, s %lld, %d sinks, cores %d, pos %d, n %d, ring %d, %s/%s",
             (int)c->head_dim, (int)c->n_heads, (int)c->n_kv_heads, (int)c->rule.group_size,
             (long long)c->rule.window_size, (int)c->rule.n_sinks, c->rule.cores, (int)c->pos,
             (int)c->n, c->ring, cca_dtype_name(c->k_type), cca_dtype_name(c->v_type));
    int64_t total = c->pos + c->n, hd = c->head_dim;
    int64_t begin = c->ring ? 0 : raw_begin(&c->rule, c->pos);
    int64_t capacity = c->ring ? cca_rule_ring(&c->rule) : total - begin;
    int64_t n_cores = cca_max(count_cores(&c->rule, total - 1), 1);
    int64_t n_sinks = cca_max(c->rule.n_sinks, 1);
    row_pair raw = random_rows(c->k_type, c->v_type, c->n_kv_heads, capacity, hd, begin);
    row_pair sinks = random_rows(c->k_type, c->v_type, c->n_kv_heads, n_sinks, hd, 0);
    row_pair cores = random_rows(c->k_type, c->v_type, c->n_heads, n_cores, hd, 0);
    pair q = random_pair(c->n, c->n_heads * hd, 2), out = poisoned(c->n, c->n_heads * hd);
    cca_spans host = spans_of(&c->rule, raw.host, sinks.host, cores.host);
    cca_spans device = spans_of(&c->rule, raw.device, sinks.device, cores.device);
    /* Tensor cores round queries and weights; a few queries are done in f32. */
    bool half = c->k_type == c->v_type && (c->k_type == CCA_BF16 || c->k_type == CCA_F16);
    bool rounded = half && c->n > 8;
    cca_attend(rounded ? cpu : plain, &out.host, &host, &q.host, c->pos, c->n);
    cca_attend(gpu, &out.device, &device, &q.device, c->pos, c->n);
    compare(&out, rounded ? 4e-3 : 1e-5, what);

    float *first = fetch(&out);
    pair again = poisoned(c->n, c->n_heads * hd);
    cca_attend(gpu, &again.device, &device, &q.device, c->pos, c->n);
    float *second = fetch(&again);
    if (memcmp(first, second, (size_t)(c->n * c->n_heads * hd) * sizeof *first) != 0) {
        fail_msg("%s: other bits the second time", what);
    }
    free(first), free(second), free_pair(&again);
    free_rows(&raw), free_rows(&sinks), free_rows(&cores), free_pair(&q), free_pair(&out);
}

static void attention_in_bf16(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t dims[] = {64, 128}, groups[] = {1, 5, 16, 32}, windows[] = {1, 4, 64};
    static const int64_t heads[][2] = {{1, 1}, {4, 4}, {8, 2}};
    static const int64_t counts[] = {1, 15, 64, 127, 129, 300};
    int k = 0;
    for (int d = 0; d < 2; d++) {
        for (int g = 0; g < 4; g++) {
            for (int w = 0; w < 3; w++) {
                int64_t s = groups[g] * windows[w];
                const int64_t starts[] = {0, 1, groups[g] - 1, s + 3, 5000};
                for (int p = 0; p < 5; p++, k++) {
                    attention_case c = {
                        dims[d],   heads[k % 3][0], heads[k % 3][1], {groups[g], s, 0, true},
                        starts[p], counts[k % 6],   false,           CCA_BF16,
                        CCA_BF16};
                    check_attention(&c);
                }
            }
        }
    }
}

static void attention_of_other_kinds(void **state) {
    (void)state;
    if (!gpu) skip();
    static const attention_case cases[] = {
        {64, 4, 2, {16, 64, 0, true}, 700, 33, false, CCA_F32, CCA_F32},
        {128, 4, 1, {16, 64, 0, true}, 700, 33, false, CCA_F16, CCA_F16},
        {128, 2, 2, {16, 64, 0, true}, 700, 9, false, CCA_Q8_0, CCA_Q8_0},
        {20, 3, 3, {5, 20, 0, true}, 96, 32, false, CCA_F16, CCA_BF16},
        {256, 2, 1, {4, 16, 0, true}, 96, 5, false, CCA_BF16, CCA_F32},
        {128, 8, 2, {16, 64, 0, true}, 1234, 1, true, CCA_BF16, CCA_BF16},
        {64, 8, 8, {16, 1024, 0, true}, 40000, 1, true, CCA_BF16, CCA_BF16},
        {128, 4, 2, {4, 16, 0, false}, 200, 31, false, CCA_BF16, CCA_BF16},
        {64, 4, 2, {4, 16, 6, false}, 200, 1, true, CCA_BF16, CCA_BF16},
        {64, 4, 2, {4, 16, 6, false}, 200, 40, false, CCA_BF16, CCA_BF16},
        {128, 2, 2, {1, INT64_MAX / 4, 0, false}, 0, 1000, false, CCA_BF16, CCA_BF16},
        {128, 2, 2, {1, INT64_MAX / 4, 0, false}, 3000, 1, false, CCA_BF16, CCA_BF16},
        {128, 2, 1, {16, 1024, 0, true}, 20000, 1000, false, CCA_BF16, CCA_BF16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_attention(&cases[i]);
}

/* Sinks, cores and a window at once: where some queries see no core yet, and far behind; a ring for
 * one query. */
static void attention_with_sinks_and_cores(void **state) {
    (void)state;
    if (!gpu) skip();
    static const cca_dtype kinds[] = {CCA_BF16, CCA_F16, CCA_Q8_0};
    static const int64_t counts[] = {1, 9, 33, 300}, starts[] = {0, 63, 79, 95, 700, 5000};
    for (int t = 0; t < 3; t++) {
        for (int64_t n_sinks = 16; n_sinks <= 32; n_sinks += 16) {
            for (int n = 0; n < 4; n++) {
                for (int p = 0; p < 6; p++) {
                    attention_case c = {
                        p % 2 ? 128 : 64, 4,         p % 3 ? 2 : 4, {16, 64, n_sinks, true},
                        starts[p],        counts[n], false,         kinds[t],
                        kinds[t]};
                    check_attention(&c);
                    c.ring = true;
                    if (c.n == 1) check_attention(&c);
                }
            }
        }
    }
}

/* ---- a token through layers ------------------------------------------------------------ */

enum { WIDTH = 1024, HIDDEN = 2304, N_HEADS = 8, N_KV_HEADS = 4, HEAD_DIM = WIDTH / N_HEADS };

/* Weights of a layer and its cache, and what is computed on the way. */
typedef struct layer {
    pair attn_norm, ffn_norm, q, k, v, o, gate, up, down;
    row_pair raw, sinks, cores;
} layer;

typedef struct token_rows {
    pair x, h, q, k, v, attended, gated, upped, angles;
} token_rows;

static layer random_layer(cca_dtype type, const cca_rule *rule, int64_t pos) {
    float size = 1 / sqrtf(WIDTH);
    int64_t kv = N_KV_HEADS * HEAD_DIM;
    return (layer){
        .attn_norm = random_pair(1, WIDTH, 2),
        .ffn_norm = random_pair(1, WIDTH, 2),
        .q = random_weights(type, WIDTH, WIDTH, size),
        .k = random_weights(type, kv, WIDTH, size),
        .v = random_weights(type, kv, WIDTH, size),
        .o = random_weights(type, WIDTH, WIDTH, size),
        .gate = random_weights(type, HIDDEN, WIDTH, size),
        .up = random_weights(type, HIDDEN, WIDTH, size),
        .down = random_weights(type, WIDTH, HIDDEN, size),
        .raw = random_rows(CCA_BF16, CCA_BF16, N_KV_HEADS, cca_rule_ring(rule), HEAD_DIM, 0),
        .sinks =
            random_rows(CCA_BF16, CCA_BF16, N_KV_HEADS, cca_max(rule->n_sinks, 1), HEAD_DIM, 0),
        .cores = random_rows(CCA_BF16, CCA_BF16, N_HEADS, count_cores(rule, pos), HEAD_DIM, 0)};
}

static void free_layer(layer *l) {
    pair *all[] = {&l->attn_norm, &l->ffn_norm, &l->q,  &l->k,   &l->v,
                   &l->o,         &l->gate,     &l->up, &l->down};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free_pair(all[i]);
    free_rows(&l->raw), free_rows(&l->sinks), free_rows(&l->cores);
}

static cca_matrix *side(cca_backend *b, pair *p) {
    return b == gpu ? &p->device : &p->host;
}

/* A layer as model.c and cca.c do it. */
static void run_layer(cca_backend *b, layer *l, token_rows *t, const cca_rope *rope,
                      const cca_rule *rule, int64_t pos) {
    cca_product qkv[] = {{side(b, &t->q), side(b, &l->q), NULL, false},
                         {side(b, &t->k), side(b, &l->k), NULL, false},
                         {side(b, &t->v), side(b, &l->v), NULL, false}};
    cca_product o = {side(b, &t->x), side(b, &l->o), NULL, true};
    cca_turn turn = {side(b, &t->angles), rope};
    cca_rows raw = b == gpu ? l->raw.device : l->raw.host;
    cca_spans spans = spans_of(rule, raw, b == gpu ? l->sinks.device : l->sinks.host,
                               b == gpu ? l->cores.device : l->cores.host);
    cca_ffn f = {.norm = side(b, &l->ffn_norm),
                 .gate = side(b, &l->gate),
                 .up = side(b, &l->up),
                 .down = side(b, &l->down),
                 .eps = 1e-5f,
                 .h = side(b, &t->h),
                 .gated = side(b, &t->gated),
                 .upped = side(b, &t->upped)};
    cca_norm_matmul(b, qkv, 3, side(b, &t->h), side(b, &t->x), 0, side(b, &l->attn_norm), 1e-5f, 1);
    cca_rotate_store(b, &raw, side(b, &t->q), side(b, &t->k), side(b, &t->v), &turn, pos, 1);
    cca_attend(b, side(b, &t->attended), &spans, side(b, &t->q), pos, 1);
    cca_matmul(b, &o, 1, side(b, &t->attended), 1);
    cca_feed_forward(b, side(b, &t->x), &f, 1);
}

/* Three layers of different weights with nothing that waits between them, tokens one behind the
 * other: the steps of token.cu in one launch. */
static void tokens_through_layers(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { LAYERS = 3, POS = 3000, TOKENS = 3 };
    const cca_rule rules[] = {{16, 256, 0, true}, {16, 256, 32, true}};
    double inv_freq[HEAD_DIM / 2];
    for (int k = 0; k < HEAD_DIM / 2; k++) inv_freq[k] = pow(10000, -2.0 * k / HEAD_DIM);
    const cca_rope rope = {inv_freq, HEAD_DIM / 2, 1, true};
    for (int r = 0; r < 10; r++) {
        const cca_rule rule = rules[r / 5];
        const cca_dtype type = types[r % 5];
        layer layers[LAYERS];
        for (int l = 0; l < LAYERS; l++) layers[l] = random_layer(type, &rule, POS + TOKENS);
        token_rows t = {random_pair(1, WIDTH, 1),
                        poisoned(1, WIDTH),
                        poisoned(1, WIDTH),
                        poisoned(1, N_KV_HEADS * HEAD_DIM),
                        poisoned(1, N_KV_HEADS * HEAD_DIM),
                        poisoned(1, WIDTH),
                        poisoned(1, HIDDEN),
                        poisoned(1, HIDDEN),
                        poisoned(1, HEAD_DIM)};
        cca_backend *both[] = {plain, gpu};
        for (int pos = POS; pos < POS + TOKENS; pos++) {
            for (int b = 0; b < 2; b++) {
                cca_angles(both[b], side(both[b], &t.angles), &rope, pos, 1);
                for (int l = 0; l < LAYERS; l++) {
                    run_layer(both[b], &layers[l], &t, &rope, &rule, pos);
                }
            }
        }
        bool quantised = cca_dtype_block(type) > 1;
        compare(&t.attended, quantised ? 3e-2 : 1e-3, "attention of the last layer");
        compare(&t.x, quantised ? 3e-2 : 1e-3, cca_dtype_name(type));
        for (int l = 0; l < LAYERS; l++) free_layer(&layers[l]);
        pair *all[] = {&t.x, &t.h, &t.q, &t.k, &t.v, &t.attended, &t.gated, &t.upped, &t.angles};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) free_pair(all[k]);
    }
}

/* Token by token and in chunks, through the cache's rings, pooling on the way. */
static void the_cache_in_pieces(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { LENGTH = 500, HEADS = 4, KV = 2, HD = 64 };
    cca_cache_shape shape = {.n_layers = 1,
                             .n_heads = HEADS,
                             .n_kv_heads = KV,
                             .head_dim = HD,
                             .ctx_size = LENGTH,
                             .chunk_size = LENGTH,
                             .k_type = CCA_BF16,
                             .v_type = CCA_BF16};
    static const int64_t chunks[] = {LENGTH, 1, 7, 64, 130};
    pair q = random_pair(LENGTH, HEADS * HD, 2), k = random_pair(LENGTH, KV * HD, 2);
    pair v = random_pair(LENGTH, KV * HD, 2);
    static const struct {
        cca_attn attn;
        int64_t n_sinks;
    } kinds[] = {{CCA_ATTN_CCA, 0}, {CCA_ATTN_CCA, 8},  {CCA_ATTN_FULL, 0},   {CCA_ATTN_MEAN, 0},
                 {CCA_ATTN_MAX, 0}, {CCA_ATTN_CCA, 16}, {CCA_ATTN_WINDOW, 0}, {CCA_ATTN_SINKS, 5}};
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        const cca_policy_options options = {.attn = kinds[kind].attn,
                                            .group_size = 8,
                                            .window_size = 64,
                                            .n_sinks = kinds[kind].n_sinks};
        pair out = poisoned(LENGTH, HEADS * HD);
        for (int c = -1; c < 5; c++) { /* the CPU first */
            cca_error err;
            cca_policy policy;
            cca_cache *cache;
            cca_backend *b = c < 0 ? cpu : gpu;
            int64_t chunk = chunks[c < 0 ? 0 : c];
            assert_int_equal(cca_policy_make(&policy, &options, &err), CCA_OK);
            assert_int_equal(cca_cache_new(&cache, b, &shape, &policy, &err), CCA_OK);
            for (int64_t pos = 0, n; pos < LENGTH; pos += n) {
                n = cca_min(chunk, LENGTH - pos);
                cca_matrix part[4] = {c < 0 ? out.host : out.device, c < 0 ? q.host : q.device,
                                      c < 0 ? k.host : k.device, c < 0 ? v.host : v.device};
                for (int i = 0; i < 4; i++) {
                    part[i].data = (float *)part[i].data + pos * part[i].cols;
                    part[i].rows = n;
                }
                cca_cache_attend(cache, 0, &part[0], &part[1], &part[2], &part[3], NULL, pos, n);
            }
            char what[64];
            snprintf(what, sizeof what, "attention %d, %d sinks, chunks of %d", kinds[kind].attn,
                     (int)kinds[kind].n_sinks, (int)chunk);
            if (c >= 0) compare(&out, 4e-3, what);
            cca_cache_free(cache);
        }
        free_pair(&out);
    }
    free_pair(&q), free_pair(&k), free_pair(&v);
}

/* With g = 1 a core is its only token: CCA over 32,768 tokens is full attention. */
static void group_size_one_is_full_attention(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { LENGTH = 32768, N = 200, HD = 128 };
    row_pair all = random_rows(CCA_BF16, CCA_BF16, 1, LENGTH, HD, 0);
    pair q = random_pair(N, HD, 2), full = poisoned(N, HD), one = poisoned(N, HD);
    cca_rule endless = {1, INT64_MAX / 4, 0, false}, cut = {1, 1024, 0, true};
    cca_spans whole = spans_of(&endless, all.device, all.device, all.device);
    cca_spans parts = spans_of(&cut, all.device, all.device, all.device);
    cca_attend(gpu, &full.device, &whole, &q.device, LENGTH - N, N);
    cca_attend(gpu, &one.device, &parts, &q.device, LENGTH - N, N);
    float *want = fetch(&full), *got = fetch(&one);
    test_below(cca_distance(got, want, N * HD), 4e-3, "g = 1");
    free(want), free(got), free_rows(&all), free_pair(&q), free_pair(&full), free_pair(&one);
}

/* ---- failures ------------------------------------------------------------------------ */

static void failures_stick(void **state) {
    (void)state;
    if (!gpu) skip();
    cca_error err;
    cca_backend *b;
    volatile sig_atomic_t stop = 0;
    cca_backend_options options = {.stop = &stop};
    assert_int_equal(cca_backend_cuda(&b, 0, &options, &err), CCA_OK);
    assert_string_equal(cca_backend_name(b), "cuda");
    cca_matrix m, far;
    cca_matrix_alloc(b, &m, CCA_F32, 4, 4);
    stop = 1;
    cca_swiglu(b, &m, &m, 4);
    assert_int_equal(cca_backend_sync(b, &err), CCA_INTERRUPTED);
    stop = 0;
    assert_int_equal(cca_backend_sync(b, &err), CCA_OK);
    assert_in_range(cca_backend_room(b), 1 << 28, (size_t)1 << 42);
    cca_matrix_alloc(b, &far, CCA_F32, 1 << 24, 1 << 24);
    assert_null(far.data);
    assert_int_equal(cca_backend_sync(b, &err), CCA_NO_MEMORY);
    assert_non_null(strstr(err.text, "cuda:0: no memory for 1125899906842624 bytes"));
    cca_swiglu(b, &m, &m, 4);
    assert_int_equal(cca_backend_sync(b, &err), CCA_NO_MEMORY);
    cca_matrix_free(b, &m);
    cca_backend_close(b);
    assert_int_equal(cca_backend_cuda(&b, 1000, &options, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "there is no device cuda:1000"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedding),
        cmocka_unit_test(norms_and_gates),
        cmocka_unit_test(rope),
        cmocka_unit_test(products),
        cmocka_unit_test(products_of_norms),
        cmocka_unit_test(products_behind_norms),
        cmocka_unit_test(feeding_forward),
        cmocka_unit_test(storing_and_moving),
        cmocka_unit_test(rotating_and_storing),
        cmocka_unit_test(pooling),
        cmocka_unit_test(attention_in_bf16),
        cmocka_unit_test(attention_of_other_kinds),
        cmocka_unit_test(attention_with_sinks_and_cores),
        cmocka_unit_test(tokens_through_layers),
        cmocka_unit_test(the_cache_in_pieces),
        cmocka_unit_test(group_size_one_is_full_attention),
        cmocka_unit_test(failures_stick),
    };
    int failed = cmocka_run_group_tests(tests, open_backends, close_backends);
    forms = (cca_cuda_forms){true, true, true, true, true};
    failed += cmocka_run_group_tests(tests, open_backends, close_backends);
    const struct CMUnitTest in_turn[] = {
        cmocka_unit_test(products_of_norms),
        cmocka_unit_test(tokens_through_layers),
    };
    forms.together = false;
    failed += cmocka_run_group_tests(in_turn, open_backends, close_backends);
    forms.together = true;
    const struct CMUnitTest in_bytes[] = {
        cmocka_unit_test(products_behind_norms),
        cmocka_unit_test(feeding_forward),
    };
    fp8 = true;
    return failed + cmocka_run_group_tests(in_bytes, open_backends, close_backends);
}
