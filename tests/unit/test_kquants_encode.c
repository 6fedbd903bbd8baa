/* Encoders of few bits: errors within bounds, no worse than rounding between the extremes, and what
 * cannot be encoded. */
#include "backend/dtype.h"
#include "backend/kquants_encode.h"
#include "test.h"

#include <float.h>

enum { N = 64 * CCA_LARGE_BLOCK };

static const struct {
    cca_dtype type;
    float limit;
    /* Root mean square error over the values' own, of normal and of exponential values; what
     * llama.cpp's encoders leave is 0.043, 0.038, 0.072, 0.036, 0.018 and 0.053, 0.044, 0.084,
     * 0.043, 0.022. */
    double normal, exponential;
} all[] = {
    {CCA_Q5_0, CCA_Q5_0_LIMIT, 0.0415, 0.0525}, {CCA_Q5_1, CCA_Q5_1_LIMIT, 0.0348, 0.0410},
    {CCA_Q4_K, CCA_K_LIMIT, 0.0715, 0.0842},    {CCA_Q5_K, CCA_K_LIMIT, 0.0352, 0.0416},
    {CCA_Q6_K, CCA_Q6_K_LIMIT, 0.0177, 0.0216},
};

enum { N_TYPES = sizeof all / sizeof *all };

static double uniform(uint64_t *seed) {
    return (double)cca_random_uniform(seed) / 2 + 0.5 + 1e-9;
}

static float draw(uint64_t *seed, bool normal) {
    double u = uniform(seed), v = uniform(seed);
    return (float)(normal ? sqrt(-2 * log(u)) * cos(6.283185307 * v) : log(u) * (v < 0.5 ? -1 : 1));
}

static double error_of(cca_dtype type, const float *x, int n) {
    static float y[N];
    static char blocks[2 * N];
    double error = 0, size = 0;
    cca_dtype_encode(blocks, type, x, n);
    cca_dtype_decode(y, type, blocks, n);
    for (int i = 0; i < n; i++) {
        error += ((double)y[i] - x[i]) * ((double)y[i] - x[i]);
        size += (double)x[i] * x[i];
    }
    return sqrt(error / fmax(size, 1e-300));
}

static void errors_are_within_bounds(void **state) {
    static float x[N];
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        static const float sizes[] = {1, 0.02F, 1000};
        for (int s = 0; s < 3; s++) {
            uint64_t seed = 1;
            for (int i = 0; i < N; i++) x[i] = sizes[s] * draw(&seed, true);
            test_below(error_of(all[t].type, x, N), all[t].normal, "normal values");
            for (int i = 0; i < N; i++) x[i] = sizes[s] * draw(&seed, false);
            test_below(error_of(all[t].type, x, N), all[t].exponential, "exponential values");
        }
    }
}

/* Values that a type has, at each place of a block and with each scale, come back. */
static void what_fits_comes_back(void **state) {
    static float x[N];
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        uint64_t seed = 7;
        int top = all[t].type == CCA_Q6_K ? 63 : all[t].type == CCA_Q4_K ? 15 : 31;
        bool is_signed = all[t].type == CCA_Q6_K || all[t].type == CCA_Q5_0;
        for (int i = 0; i < N; i++) {
            int sub = is_signed ? 16 : 32, scale = i / sub % 8 == 0 ? 63 : 8 + i / sub * 5 % 50;
            int q = i % sub == 0 ? 0 : i % sub == 1 ? top : (int)(uniform(&seed) * top);
            if (all[t].type == CCA_Q5_0 || all[t].type == CCA_Q5_1) scale = 1 + i / 32 % 7;
            x[i] = 0.25F * (float)scale * (float)(is_signed ? q - top / 2 - 1 : q);
        }
        test_below(error_of(all[t].type, x, N), t < 2 ? 1e-6 : 0.012, "values that fit");
    }
}

static void few_values(void **state) {
    static float x[CCA_LARGE_BLOCK];
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        for (int kind = 0; kind < 4; kind++) { /* none, all alike (either sign), a single one */
            for (int i = 0; i < CCA_LARGE_BLOCK; i++) {
                x[i] = kind == 1 ? 0.37F : kind == 2 ? -0.37F : kind == 3 && i == 77 ? -5.0F : 0;
            }
            test_below(error_of(all[t].type, x, CCA_LARGE_BLOCK), 0.002, "few values");
        }
    }
}

static void limits(void **state) {
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY, FLT_MAX};
    for (int t = 0; t < N_TYPES; t++) {
        cca_dtype type = all[t].type;
        int64_t block = cca_dtype_block(type);
        for (int i = 0; i < 5; i++) {
            float x[2 * CCA_LARGE_BLOCK] = {0}, y[2 * CCA_LARGE_BLOCK];
            char blocks[4 * CCA_LARGE_BLOCK];
            x[block + 3] = i < 4 ? odd[i] : all[t].limit;
            x[1] = 0.999F * all[t].limit;
            cca_dtype_encode(blocks, type, x, 2 * block);
            cca_dtype_decode(y, type, blocks, 2 * block);
            for (int k = 0; k < block; k++) {
                assert_true(isfinite(y[k]) && !isfinite(y[block + k]));
            }
            test_below(fabs((double)y[1] / (double)x[1] - 1), 0.01, "the largest value");
        }
        assert_true(cca_dtype_find(type)->limit == all[t].limit);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_within_bounds),
        cmocka_unit_test(what_fits_comes_back),
        cmocka_unit_test(few_values),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
