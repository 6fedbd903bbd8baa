/* What the tests of the CUDA backend share: backends, and operands that lie on both sides.
 *
 *     pair x = random_pair(5, 64, 1), out = poisoned(5, 64);
 *     cca_rmsnorm(plain, &out.host, &x.host, …);
 *     cca_rmsnorm(gpu, &out.device, &x.device, …);
 *     compare(&out, 1e-6, "rmsnorm");
 *     free_pair(&x), free_pair(&out);
 *
 * Distances are ‖a - b‖ / ‖b‖. What is exact is compared with the plain kernels, whose sums are in
 * double; what rounds to 16 bits, with the CPU's fastest ones. Where there is no device, gpu stays
 * NULL, and the tests skip. */
#ifndef CCA_TEST_CUDA_PAIRS_H
#define CCA_TEST_CUDA_PAIRS_H

#include "backend/cpu/cpu.h"
#include "backend/cuda/forms.h"
#include "tests/unit/test.h"

static cca_backend *gpu, *plain, *cpu; /* of the group */
static cca_cuda_forms forms;
static bool fp8;
static uint64_t seed = 1;

static const cca_dtype types[] = {CCA_F32, CCA_F16, CCA_BF16, CCA_Q8_0, CCA_Q4_0};
/* Types of weights alone. */
static const cca_dtype k_quants[] = {CCA_Q4_1, CCA_Q5_1, CCA_Q4_K,   CCA_Q5_K,
                                     CCA_Q6_K, CCA_Q5_0, CCA_IQ4_NL, CCA_IQ4_XS};
enum { N_K_QUANTS = sizeof k_quants / sizeof *k_quants };

static inline int open_backends(void **state) {
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

static inline int close_backends(void **state) {
    (void)state;
    cca_backend_close(gpu);
    cca_backend_close(plain);
    cca_backend_close(cpu);
    gpu = plain = cpu = NULL;
    return 0;
}

static inline void *memory(size_t bytes) {
    void *p = malloc(bytes + 1);
    assert_non_null(p);
    memset(p, 0xff, bytes); /* NaN as floats */
    return p;
}

static inline float *floats(int64_t n) {
    return memory((size_t)n * sizeof(float));
}

static inline float *random_floats(int64_t n, float size) {
    float *x = floats(n);
    test_fill(x, n, &seed, size);
    return x;
}

static inline void check_sync(void) {
    cca_error err;
    if (cca_backend_sync(gpu, &err) != CCA_OK) fail_msg("%s", err.text);
}

/* The same activations in host memory and on the device. */
typedef struct pair {
    cca_matrix host, device;
} pair;

static inline pair pair_of(float *x, int64_t rows, int64_t cols) {
    pair p = {.host = {.data = x, .type = CCA_F32, .rows = rows, .cols = cols}};
    cca_matrix_alloc(gpu, &p.device, CCA_F32, rows, cols);
    cca_backend_upload(gpu, p.device.data, x, (size_t)(rows * cols) * sizeof *x);
    return p;
}

static inline pair random_pair(int64_t rows, int64_t cols, float size) {
    return pair_of(random_floats(rows * cols, size), rows, cols);
}

/* An output that nobody has written yet. */
static inline pair poisoned(int64_t rows, int64_t cols) {
    return pair_of(floats(rows * cols), rows, cols);
}

/* What a type's minimum is multiplied with, so that its values are on both sides of 0: were they
 * all on one, products of rounded x would depend on how large their sum happens to be. */
static inline float minimum_of(cca_dtype type) {
    switch (type) {
    case CCA_Q2_K: return 1.5f;
    case CCA_Q4_K: return 7.5f;
    case CCA_Q5_K: return 15.5f;
    default: return -8;
    }
}

/* n values of a type whose scales are sought or that has no encoder: random bits, the f16 numbers
 * such that values are up to about `size`. */
static inline void random_blocks(uint8_t *out, cca_dtype type, int64_t n, float size) {
    const cca_dtype_facts *t = cca_dtype_find(type);
    bool has_min = t->halves[0] != t->halves[1];
    cca_dtype_fill(out, type, n, &seed);
    for (int64_t i = 0; i < n / t->block; i++, out += t->block_bytes) {
        for (int k = 0; k <= has_min; k++) {
            uint16_t half;
            memcpy(&half, out + t->halves[k], sizeof half);
            float by = k ? minimum_of(type) * size : size;
            half = cca_f32_to_f16(cca_f16_to_f32(half) * by);
            memcpy(out + t->halves[k], &half, sizeof half);
        }
    }
}

/* Weights as the GPU keeps them, in place of those in the file: scales rounded to f16. */
static inline void keep_as_gpu(cca_matrix *w) {
    int64_t n = w->rows * w->cols;
    void *kept;
    const cca_dtype_facts *t = cca_dtype_find(w->type);
    cca_dtype type = t->alike;
    if (t->to_alike) {
        size_t bytes = 0;
        assert_true(cca_dtype_row_bytes(&bytes, type, n));
        kept = memory(bytes);
        cca_dtype_convert(kept, type, w->data, w->type, n);
    } else if (w->type == CCA_Q6_K) {
        float *x = kept = floats(n);
        type = CCA_F32;
        for (int64_t i = 0; i < n / CCA_LARGE_BLOCK; i++) {
            cca_apart a;
            cca_apart_q6_k(&a, 0, (const cca_q6_k *)w->data + i);
            for (int k = 0; k < CCA_LARGE_BLOCK; k++) {
                float scale = cca_f16_to_f32(cca_f32_to_f16(a.scale[k / CCA_SCALED]));
                x[i * CCA_LARGE_BLOCK + k] = scale * (float)a.q[k];
            }
        }
    } else {
        return;
    }
    free(w->data);
    w->data = kept;
    w->type = type;
}

/* On the device a matrix of the type; in host memory the same numbers. */
static inline pair random_weights(cca_dtype type, int64_t rows, int64_t cols, float size) {
    const cca_dtype_facts *t = cca_dtype_find(type);
    size_t bytes = 0;
    assert_true(cca_matrix_bytes(&bytes, type, rows, cols));
    void *w = memory(bytes);
    if (!t->encode || t->is_sought) {
        random_blocks(w, type, rows * cols, size);
    } else {
        float *x = random_floats(rows * cols, size);
        cca_dtype_encode(w, type, x, rows * cols);
        free(x);
    }
    pair p = {.host = {.data = w, .type = type, .rows = rows, .cols = cols}};
    cca_matrix_load(gpu, &p.device, type, rows, cols, w);
    keep_as_gpu(&p.host);
    return p;
}

static inline void free_pair(pair *p) {
    cca_matrix_free(gpu, &p->device);
    free(p->host.data);
}

/* What the device has, in host memory. */
static inline float *fetch(const pair *p) {
    float *x = floats(p->host.rows * p->host.cols);
    cca_matrix_download(gpu, x, &p->device, p->host.rows);
    check_sync();
    return x;
}

static inline void compare(const pair *p, double bound, const char *what) {
    float *got = fetch(p);
    test_below(cca_distance(got, p->host.data, p->host.rows * p->host.cols), bound, what);
    free(got);
}

/* ---- the cache ----------------------------------------------------------------------- */

/* Random rows of a cache in host memory, and a copy on the device. */
typedef struct row_pair {
    cca_rows host, device;
} row_pair;

static inline void *copy_rows(const void *host, size_t bytes) {
    void *device = cca_backend_alloc(gpu, bytes);
    cca_backend_upload(gpu, device, host, bytes);
    return device;
}

static inline size_t bytes_of(cca_dtype type, const cca_rows *r) {
    size_t bytes = 0;
    assert_true(cca_dtype_row_bytes(&bytes, type, r->heads * r->capacity * r->head_dim));
    return bytes;
}

static inline void *random_values(cca_dtype type, const cca_rows *r) {
    int64_t n = r->heads * r->capacity * r->head_dim;
    float *x = random_floats(n, 2);
    void *rows = memory(bytes_of(type, r));
    cca_dtype_encode(rows, type, x, n);
    free(x);
    return rows;
}

static inline row_pair random_rows(cca_dtype k_type, cca_dtype v_type, int64_t heads,
                                   int64_t capacity, int64_t hd, int64_t base) {
    row_pair p = {.host = {NULL, NULL, k_type, v_type, heads, capacity, hd, base}};
    p.host.k = random_values(k_type, &p.host);
    p.host.v = random_values(v_type, &p.host);
    p.device = p.host;
    p.device.k = copy_rows(p.host.k, bytes_of(k_type, &p.host));
    p.device.v = copy_rows(p.host.v, bytes_of(v_type, &p.host));
    return p;
}

static inline void free_rows(row_pair *p) {
    cca_backend_release(gpu, p->device.k);
    cca_backend_release(gpu, p->device.v);
    free(p->host.k);
    free(p->host.v);
}

/* Keys or values on both sides: as bits, or as floats within a bound. */
static inline void compare_rows(const row_pair *p, bool keys, double bound, const char *what) {
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

/* As the cache has them: the window, then sinks and cores where the rule has some. */
static inline cca_spans spans_of(const cca_rule *rule, cca_rows raw, cca_rows sinks,
                                 cca_rows cores) {
    cca_spans s = {.n = 1, .at = {{raw, cca_rule_window(rule), 1, CCA_PICK_ALL}}};
    if (rule->n_sinks > 0) {
        s.at[s.n++] = (cca_span){sinks, cca_rule_sinks(rule), 1, CCA_PICK_ALL};
    }
    if (rule->cores) {
        s.at[s.n++] = (cca_span){cores, cca_rule_groups(rule), rule->group_size, CCA_PICK_ALL};
    }
    return s;
}

/* With recall: what is chosen is raw, and of the cores, where the rule has some, the others. */
static inline cca_spans recall_spans_of(const cca_rule *rule, cca_rows raw, cca_rows sinks,
                                        cca_rows rows, cca_rows cores) {
    cca_rule without = *rule;
    without.cores = false;
    cca_spans s = spans_of(&without, raw, sinks, cores);
    s.at[s.n++] = (cca_span){rows, cca_rule_recallable(rule), 1, CCA_PICK_CHOSEN};
    if (rule->cores) {
        s.at[s.n++] = (cca_span){cores, cca_rule_groups(rule), rule->group_size, CCA_PICK_OTHERS};
    }
    return s;
}

static inline int64_t raw_begin(const cca_rule *rule, int64_t pos) {
    cca_range seen = cca_rule_window(rule);
    return cca_edge_at(&seen.begin, pos);
}

static inline int64_t count_cores(const cca_rule *rule, int64_t pos) {
    cca_range seen = cca_rule_groups(rule);
    return cca_edge_at(&seen.end, pos);
}

#endif
