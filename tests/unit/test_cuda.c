/* The operations of the CUDA backend but those on caches (test_cuda_attention.c) against the CPU's,
 * on fresh random values and poisoned outputs. All of it twice, the second time with the forms for
 * Hopper, of which products of one row are also tried with copies in turn. Skipped where there is
 * no device. */
#include "tests/unit/cuda_pairs.h"

/* ---- rows and values ----------------------------------------------------------------- */

static void check_embedding(cca_dtype type, int64_t width) {
    pair table = random_weights(type, 50, width, 2), out = poisoned(7, width);
    int32_t ids[] = {49, 0, 7, 7, 31, 1, 48};
    cca_embed(plain, &out.host, &table.host, ids, 2.5f, 7);
    cca_embed(gpu, &out.device, &table.device, ids, 2.5f, 7);
    compare(&out, 1e-9, cca_dtype_name(type));
    free_pair(&table), free_pair(&out);
}

static void embedding(void **state) {
    (void)state;
    if (!gpu) skip();
    for (int t = 0; t < 5; t++) {
        check_embedding(types[t], 96);
        check_embedding(types[t], 4352);
    }
    for (int t = 0; t < N_K_QUANTS; t++) {
        check_embedding(k_quants[t], 256);
        check_embedding(k_quants[t], 4352);
    }
}

/* What the device has of blocks that it keeps in another form, against the file's values. */
static void rounding_of_scales(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { ROWS = 20, WIDTH = 1024 };
    for (int t = 0; t < N_K_QUANTS; t++) {
        pair out = poisoned(ROWS, WIDTH);
        cca_matrix table;
        size_t bytes = 0;
        int32_t ids[ROWS];
        for (int i = 0; i < ROWS; i++) ids[i] = i;
        assert_true(cca_matrix_bytes(&bytes, k_quants[t], ROWS, WIDTH));
        void *file = memory(bytes);
        random_blocks(file, k_quants[t], (int64_t)ROWS * WIDTH, 1);
        cca_matrix_load(gpu, &table, k_quants[t], ROWS, WIDTH, file);
        cca_dtype_decode(out.host.data, k_quants[t], file, (int64_t)ROWS * WIDTH);
        cca_embed(gpu, &out.device, &table, ids, 1, ROWS);
        compare(&out, 4e-4, cca_dtype_name(k_quants[t]));
        cca_matrix_free(gpu, &table);
        free(file), free_pair(&out);
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
    for (int k = 0; k < 32; k++) inv_freq[k] = k < 24 ? pow(10000, -k / 32.0) : 0;
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        cca_rope turn = {inv_freq, 32, 1.25f, interleaved, 0.75f};
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

/* Rows that the kernel of a whole token takes, and shorter ones. */
static void products_of_k_quants(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t shapes[][3] = {{1, 1, 256},   {1, 300, 4096}, {1, 2100, 768},
                                        {2, 33, 256},  {4, 130, 768},  {5, 7, 256},
                                        {15, 64, 512}, {64, 100, 256}, {129, 260, 1024}};
    for (int t = 0; t < N_K_QUANTS; t++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            check_product(k_quants[t], shapes[i][0], shapes[i][1], shapes[i][2]);
        }
        if (cca_dtype_block(k_quants[t]) > CCA_SMALL_BLOCK) continue;
        check_product(k_quants[t], 1, 40, 96);
        check_product(k_quants[t], 1, 40, 128);
        check_product(k_quants[t], 3, 33, 32);
        check_product(k_quants[t], 6, 9, 160);
    }
}

/* A value that is no finite number reaches all products of its row, and no others. */
static void products_of_no_numbers(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { COLS = 4096, ROWS = 80 };
    static const int64_t counts[] = {1, 3, 17};
    static const float values[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 5 * 3 * 3; i++) {
        int64_t n = counts[i / 5 % 3], row = n / 2;
        float *data = random_floats(n * COLS, 1);
        data[row * COLS + 100 + i] = values[i / 15];
        pair x = pair_of(data, n, COLS), out = poisoned(n, ROWS);
        pair w = random_weights(types[i % 5], ROWS, COLS, 1);
        cca_product p = {&out.device, &w.device, NULL, false};
        cca_matmul(gpu, &p, 1, &x.device, n);
        float *got = fetch(&out);
        for (int64_t k = 0; k < n * ROWS; k++) {
            assert_int_equal(isfinite(got[k]) != 0, k / ROWS != row);
        }
        free(got), free_pair(&x), free_pair(&out), free_pair(&w);
    }
}

/* Norms leave their output in the form that a product wants; what changes it later counts. */
static void products_of_norms(void **state) {
    (void)state;
    if (!gpu) skip();
    double inv_freq[32];
    for (int k = 0; k < 32; k++) inv_freq[k] = pow(10000, -k / 32.0);
    cca_rope turn = {inv_freq, 32, 1, true, 1};
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

/* Bound of a product whose operands were rounded to 8-bit floats, to bf16, or in the CPU's as well.
 * Of those in bytes a value now and then falls to the other side of a half. */
static double product_bound(cca_dtype type, int64_t n) {
    if (type == CCA_F32) return 1e-5;
    if (n > 4) return fp8 ? 4e-2 : 4e-3;
    return cca_dtype_block(type) > 1 ? 1e-3 : 1e-5;
}

/* A product on the CPU with weights that the device has in a type, its n rows of x rounded where
 * the device does so for few rows. */
static void multiply_rounded(const cca_product *p, cca_dtype type, const cca_matrix *x, int64_t n) {
    cca_matrix rounded = {floats(n * x->cols), CCA_F32, n, x->cols, false};
    memcpy(rounded.data, x->data, (size_t)(n * x->cols) * sizeof(float));
    if (n <= 4 && cca_dtype_block(type) > 1) round_to_bytes(rounded.data, n * x->cols);
    cca_matmul(plain, p, 1, &rounded, n);
    free(rounded.data);
}

/* Norms and the products of them, two of them with a bias, of widths that fill pieces of rows or do
 * not. */
static void check_behind_norm(const cca_dtype of[3], int64_t n, int64_t cols) {
    char what[64];
    snprintf(what, sizeof what, "%s %s %s, %d rows, %d wide", cca_dtype_name(of[0]),
             cca_dtype_name(of[1]), cca_dtype_name(of[2]), (int)n, (int)cols);
    pair x = random_pair(n + 2, cols, 3), norm = random_pair(1, cols, 2), h = poisoned(n, cols);
    pair w[3], out[3], bias = random_pair(1, 48, 9);
    cca_product on_cpu[3], on_gpu[3];
    static const int64_t rows[] = {48, 2064, 48};
    for (int p = 0; p < 3; p++) {
        w[p] = random_weights(of[p], rows[p], cols, 1);
        out[p] = poisoned(n, rows[p]);
        on_cpu[p] = (cca_product){&out[p].host, &w[p].host, p == 1 ? NULL : &bias.host, false};
        on_gpu[p] =
            (cca_product){&out[p].device, &w[p].device, p == 1 ? NULL : &bias.device, false};
    }
    cca_rmsnorm(plain, &h.host, &x.host, 2, &norm.host, 1e-5f, n);
    for (int p = 0; p < 3; p++) multiply_rounded(&on_cpu[p], of[p], &h.host, n);
    cca_norm_matmul(gpu, on_gpu, 3, &h.device, &x.device, 2, &norm.device, 1e-5f, n);
    for (int p = 0; p < 3; p++) {
        compare(&out[p], product_bound(of[p], n), what);
        free_pair(&w[p]), free_pair(&out[p]);
    }
    free_pair(&x), free_pair(&norm), free_pair(&h), free_pair(&bias);
}

static void products_behind_norms(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t counts[] = {1, 3, 20}, widths[] = {96, 768, 4352};
    static const cca_dtype mixed[][3] = {{CCA_Q4_K, CCA_Q4_K, CCA_Q6_K},
                                         {CCA_Q6_K, CCA_Q4_K, CCA_Q5_K},
                                         {CCA_Q5_1, CCA_Q6_K, CCA_Q4_1},
                                         {CCA_Q4_K, CCA_BF16, CCA_Q6_K}};
    for (int i = 0; i < 9; i++) {
        int64_t n = counts[i % 3], cols = widths[i / 3];
        for (int t = 0; t < 5; t++) {
            check_behind_norm((const cca_dtype[3]){types[t], types[t], types[t]}, n, cols);
        }
        if (cols % CCA_LARGE_BLOCK != 0) continue;
        for (int t = 0; t < 4; t++) check_behind_norm(mixed[t], n, cols);
    }
}

/* Two products of one row, whose rows of `cols` values are normed in place, as heads are. */
static void check_norms_of_heads(int64_t cols, const int64_t heads[2]) {
    pair x = random_pair(1, 288, 1), w[2], out[2], norm[2];
    cca_product on_cpu[2], on_gpu[2];
    for (int i = 0; i < 2; i++) {
        w[i] = random_weights(CCA_BF16, heads[i] * cols, 288, 1);
        norm[i] = random_pair(1, cols, 2);
        out[i] = poisoned(1, heads[i] * cols);
        on_cpu[i] = (cca_product){&out[i].host, &w[i].host, NULL, false};
        on_gpu[i] = (cca_product){&out[i].device, &w[i].device, NULL, false};
    }
    cca_matmul(plain, on_cpu, 2, &x.host, 1);
    cca_matmul(gpu, on_gpu, 2, &x.device, 1);
    for (int i = 0; i < 2; i++) {
        cca_matrix on[2] = {out[i].host, out[i].device};
        for (int k = 0; k < 2; k++) {
            on[k].rows = heads[i], on[k].cols = cols;
            cca_rmsnorm(k ? gpu : plain, &on[k], &on[k], 0, k ? &norm[i].device : &norm[i].host,
                        1e-5f, heads[i]);
        }
    }
    for (int i = 0; i < 2; i++) {
        compare(&out[i], 1e-5, "norms of heads");
        free_pair(&w[i]), free_pair(&out[i]), free_pair(&norm[i]);
    }
    free_pair(&x);
}

static void norms_of_heads(void **state) {
    (void)state;
    if (!gpu) skip();
    check_norms_of_heads(128, (const int64_t[]){32, 8});
    check_norms_of_heads(64, (const int64_t[]){300, 1});
    check_norms_of_heads(33, (const int64_t[]){4, 2});
    check_norms_of_heads(4352, (const int64_t[]){1, 1});
}

static void check_feed_forward(cca_dtype type, cca_dtype of_down, int64_t n, int64_t dim,
                               int64_t hidden) {
    char what[64];
    snprintf(what, sizeof what, "%s, %d rows, %d to %d", cca_dtype_name(type), (int)n, (int)dim,
             (int)hidden);
    /* A value before the gate that falls to the other side of a half takes some behind it along. */
    bool in_bytes = n <= 4 && cca_dtype_block(type) > 1;
    double bound = in_bytes ? 8e-3 : 2 * product_bound(type, n);
    float size = 1 / sqrtf((float)dim);
    pair x = random_pair(n, dim, 0.1f), norm = random_pair(1, dim, 2), h = poisoned(n, dim);
    pair gate = random_weights(type, hidden, dim, size), gated = poisoned(n, hidden);
    pair up = random_weights(type, hidden, dim, size), upped = poisoned(n, hidden);
    pair down = random_weights(of_down, dim, hidden, 1);
    cca_ffn device = {&norm.device, &gate.device, &up.device,    &down.device, NULL,
                      1e-5f,        &h.device,    &gated.device, &upped.device};
    cca_rmsnorm(plain, &h.host, &x.host, 0, &norm.host, 1e-5f, n);
    multiply_rounded(&(cca_product){&gated.host, &gate.host, NULL, false}, type, &h.host, n);
    multiply_rounded(&(cca_product){&upped.host, &up.host, NULL, false}, type, &h.host, n);
    cca_swiglu(plain, &gated.host, &upped.host, n);
    multiply_rounded(&(cca_product){&x.host, &down.host, NULL, true}, of_down, &gated.host, n);
    cca_feed_forward(gpu, &x.device, &device, n);
    compare(&x, bound, what);
    free_pair(&x), free_pair(&norm), free_pair(&h), free_pair(&gate), free_pair(&up);
    free_pair(&down), free_pair(&gated), free_pair(&upped);
}

static void feeding_forward(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t counts[] = {1, 3, 20},
                         shapes[][2] = {{96, 160}, {512, 1280}, {2304, 4352}};
    for (int i = 0; i < 9; i++) {
        int64_t n = counts[i % 3], dim = shapes[i / 3][0], hidden = shapes[i / 3][1];
        for (int t = 0; t < 5; t++) check_feed_forward(types[t], types[t], n, dim, hidden);
        if (dim % CCA_LARGE_BLOCK != 0) continue;
        check_feed_forward(CCA_Q4_K, CCA_Q6_K, n, dim, hidden);
        check_feed_forward(CCA_Q5_K, CCA_Q4_K, n, dim, hidden);
    }
}

/* ---- the cache ----------------------------------------------------------------------- */

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
        cmocka_unit_test(rounding_of_scales),
        cmocka_unit_test(norms_and_gates),
        cmocka_unit_test(rope),
        cmocka_unit_test(products),
        cmocka_unit_test(products_of_no_numbers),
        cmocka_unit_test(products_of_k_quants),
        cmocka_unit_test(products_of_norms),
        cmocka_unit_test(products_behind_norms),
        cmocka_unit_test(norms_of_heads),
        cmocka_unit_test(feeding_forward),
        cmocka_unit_test(failures_stick),
    };
    int failed = cmocka_run_group_tests(tests, open_backends, close_backends);
    forms = cca_cuda_all_forms();
    failed += cmocka_run_group_tests(tests, open_backends, close_backends);
    const struct CMUnitTest in_turn[] = {
        cmocka_unit_test(products_of_norms),
    };
    forms.together = false;
    failed += cmocka_run_group_tests(in_turn, open_backends, close_backends);
    forms.together = true;
    const struct CMUnitTest in_bytes[] = {
        cmocka_unit_test(products_of_no_numbers),
        cmocka_unit_test(products_behind_norms),
        cmocka_unit_test(feeding_forward),
    };
    fp8 = true;
    return failed + cmocka_run_group_tests(in_bytes, open_backends, close_backends);
}
