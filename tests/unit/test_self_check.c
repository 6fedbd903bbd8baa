/* The selftest passes with the kernels that are there, and names a fault that is planted in one. */
#include "check/kernel_check.h"
#include "tests/unit/test.h"

typedef struct seen {
    int n, n_failed;
    char failed[512]; /* names of what failed, each in brackets */
} seen;

static void note(void *user, const cca_check *check) {
    seen *s = user;
    s->n++;
    assert_true(check->bound >= 0 && check->skipped == NULL);
    assert_int_equal(check->passed, check->difference <= check->bound);
    if (check->passed) return;
    s->n_failed++;
    size_t used = strlen(s->failed);
    snprintf(s->failed + used, sizeof s->failed - used, "[%s]", strchr(check->name, ' ') + 1);
}

static void all_variants_pass(void **state) {
    (void)state;
    for (int i = 0; cca_kernels_at(i); i++) {
        seen s = {0};
        cca_error err;
        assert_int_equal(cca_kernels_check(cca_kernels_at(i), note, &s, &err), CCA_OK);
        assert_int_equal(s.n_failed, 0);
        assert_true(s.n > 23);
    }
}

/* ---- faults: each is the real function with one thing wrong ------------------------------ */

enum { HEAD_VALUES = 256 }; /* more than the checks convert at a time */

static const cca_kernels *real(void) {
    return cca_kernels_best();
}

/* A key that is out of sight is looked at. */
static void attend_one_too_many(const cca_attend_args *args, int64_t head, int64_t n_heads,
                                int64_t row, int64_t n, float *scratch) {
    cca_spans spans = *args->spans;
    cca_attend_args wrong = *args;
    for (int i = 0; i < spans.n; i++) {
        cca_range *range = &spans.at[i].seen;
        range->begin.lag += range->begin.lag > 0 ? range->begin.period : 0;
        range->end.lag += range->end.lag > 0 ? range->end.period : 0;
    }
    wrong.spans = &spans;
    real()->attend(&wrong, head, n_heads, row, n, scratch);
}

/* Recalled groups are seen as cores, too. */
static void attend_chosen_twice(const cca_attend_args *args, int64_t head, int64_t n_heads,
                                int64_t row, int64_t n, float *scratch) {
    cca_spans spans = *args->spans;
    cca_attend_args wrong = *args;
    for (int i = 0; i < spans.n; i++) {
        if (spans.at[i].pick == CCA_PICK_OTHERS) spans.at[i].pick = CCA_PICK_ALL;
    }
    wrong.spans = &spans;
    real()->attend(&wrong, head, n_heads, row, n, scratch);
}

/* A query's weights go to the groups beside the right ones. */
/* The largest score of one part, cores', is told to be another. */
static void attend_other_sums(const cca_attend_args *args, int64_t head, int64_t n_heads,
                              int64_t row, int64_t n, float *scratch) {
    real()->attend(args, head, n_heads, row, n, scratch);
    if (!args->sums || args->spans->at[0].stride == 1) return;
    for (int64_t i = 0; i < n; i++) args->sums[2 * ((row + i) * args->n_heads + head)] += 0.2f;
}

static void add_softmax_beside(float *total, float *scores, int64_t n) {
    real()->add_softmax(total, scores + 1, n - 1);
}

static void attend_no_number(const cca_attend_args *args, int64_t head, int64_t n_heads,
                             int64_t row, int64_t n, float *scratch) {
    real()->attend(args, head, n_heads, row, n, scratch);
    args->out[0] = NAN;
}

static void multiply_one_row(float *out, int64_t ld_out, const void *x, size_t x_stride,
                             int64_t n_x, cca_dtype type, const void *panel, int64_t n_w, int64_t n,
                             bool add) {
    real()->products(type)->multiply(out, ld_out, x, x_stride, n_x, type, panel, n_w, n, add);
    out[(n_x - 1) * ld_out + n_w - 1] *= 1.001f;
}

/* Of a type whose weights no variant rounds. */
static const cca_products *f32_multiply_one_row(cca_dtype type) {
    static cca_products wrong;
    wrong = *real()->products(type);
    if (type == CCA_F32) wrong.multiply = multiply_one_row;
    return &wrong;
}

static void dot_without_last(float *out, int64_t ld_out, const void *x, size_t x_stride,
                             int64_t n_x, cca_dtype type, const void *w, size_t w_stride,
                             int64_t n_w, int64_t n) {
    real()->few(type)->dot(out, ld_out, x, x_stride, n_x, type, w, w_stride, n_w - 1, n);
}

static const cca_products *bf16_dot_without_last(cca_dtype type) {
    static cca_products wrong;
    wrong = *real()->few(type);
    if (type == CCA_BF16) wrong.dot = dot_without_last;
    return &wrong;
}

static void norm_of_another_mean(float *out, const float *x, const float *weight, float eps,
                                 int64_t n) {
    real()->rmsnorm(out, x, weight, eps * 100, n);
}

static void swiglu_swapped(float *gate, const float *up, int64_t n) {
    real()->swiglu(gate, up, n);
    gate[n - 1] = -gate[n - 1];
}

static void encode_other_rounding(void *out, cca_dtype type, const float *in, int64_t n) {
    real()->encode(out, type, in, n);
    if (type == CCA_F16) *(uint8_t *)out ^= 1;
}

static void encode_numbers_only(void *out, cca_dtype type, const float *in, int64_t n) {
    float numbers[HEAD_VALUES];
    assert_true(n <= HEAD_VALUES);
    for (int64_t i = 0; i < n; i++) numbers[i] = isnan(in[i]) ? 0 : in[i];
    real()->encode(out, type, type == CCA_Q8_0 ? numbers : in, n);
}

static void pool_first_group(const cca_pool_args *args, int64_t head, int64_t group,
                             float *scratch) {
    real()->pool(args, head, group, scratch);
    const cca_rows *cores = &args->groups->cores;
    if (args->groups->pooling == CCA_POOL_MAX) {
        *(float *)cca_row_at(cores->v, cores->v_type, cores, head, group) += 1;
    }
}

#define ALL_RECALL                                                                                 \
    "[recall, f32 cache][recall, f32 cache, one token][recall, f16 cache][recall, bf16 cache]"     \
    "[recall, q8_0 cache][which keys are seen, recall]"

#define ALL_PARTS                                                                                  \
    "[attention in parts, f32 cache][attention in parts, bf16 cache]"                              \
    "[attention in parts, one token][attention in parts, equal weights]"

static void fails(const cca_kernels *broken, const char *names) {
    seen s = {0};
    cca_error err = {.text = ""};
    assert_int_equal(cca_kernels_check(broken, note, &s, &err), CCA_CHECK_FAILED);
    assert_string_equal(s.failed, names);
    assert_non_null(strstr(err.text, broken->name));
}

static void faults_are_named(void **state) {
    (void)state;
    cca_kernels k = *real();
    k.attend = attend_one_too_many;
    fails(&k, "[cores and window, f32 cache][cores and window, f16 cache]"
              "[cores and window, bf16 cache][cores and window, q8_0 cache][which keys are seen]"
              "[which keys are seen, one token][which keys are seen, sinks]" ALL_PARTS ALL_RECALL);
    k = *real(), k.attend = attend_chosen_twice;
    fails(&k, ALL_RECALL);
    k = *real(), k.attend = attend_other_sums;
    fails(&k, ALL_PARTS);
    k = *real(), k.add_softmax = add_softmax_beside;
    fails(&k, "[which groups are recalled]");
    k = *real(), k.products = f32_multiply_one_row;
    fails(&k, "[products with f32 weights]");
    k = *real(), k.few = bf16_dot_without_last;
    fails(&k, "[products with bf16 weights, few tokens][values that are no numbers stay so]");
    k = *real(), k.rmsnorm = norm_of_another_mean;
    fails(&k, "[norm]");
    k = *real(), k.swiglu = swiglu_swapped;
    fails(&k, "[activation]");
    k = *real(), k.encode = encode_other_rounding;
    fails(&k, "[conversions of all types][bounds of groups]");
    k = *real(), k.encode = encode_numbers_only;
    fails(&k, "[values that are no numbers stay so]");
    k = *real(), k.pool = pool_first_group;
    fails(&k, "[cores, maximum]");
}

static void no_number_fails(void **state) {
    (void)state;
    cca_kernels k = *real();
    seen s = {0};
    k.attend = attend_no_number;
    assert_int_equal(cca_kernels_check(&k, note, &s, NULL), CCA_CHECK_FAILED);
    assert_int_equal(s.n_failed, 19); /* all of attention, and none where a number belongs */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_variants_pass),
        cmocka_unit_test(faults_are_named),
        cmocka_unit_test(no_number_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
