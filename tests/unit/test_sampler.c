/* The sampler against exact values, and against a slow reference that sorts everything. */
#include "sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_VOCAB = 500 };

/* No limits, no penalty, temperature 1. */
static cca_sampler_options plain(void) {
    return (cca_sampler_options){
        .temperature = 1, .top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64};
}

static cca_sampler *make(cca_sampler_options options, int32_t vocab_size) {
    cca_sampler *s;
    cca_error err = {.text = ""};
    if (cca_sampler_new(&s, &options, vocab_size, &err) != CCA_OK) fail_msg("%s", err.text);
    return s;
}

static int32_t greedy_of(const float *logits, int32_t n, const int32_t *banned, size_t n_banned) {
    cca_sampler_options o = plain();
    o.temperature = 0;
    cca_sampler *s = make(o, n);
    int32_t id = cca_sampler_next(s, logits, banned, n_banned);
    cca_sampler_free(s);
    return id;
}

static void test_defaults(void **state) {
    (void)state;
    cca_sampler_options o = cca_sampler_defaults();
    assert_true(o.temperature == 0.8f && o.top_k == 40 && o.top_p == 0.95f && o.min_p == 0.05f);
    assert_true(o.repeat_penalty == 1 && o.repeat_last_n == 64 && o.seed == 0);
}

static void test_greedy(void **state) {
    (void)state;
    assert_int_equal(greedy_of((float[]){1, 3, 2, 3}, 4, NULL, 0), 1);
    assert_int_equal(greedy_of((float[]){-5, -4, -4}, 3, NULL, 0), 1);
    assert_int_equal(greedy_of((float[]){0}, 1, NULL, 0), 0);
    assert_int_equal(greedy_of((float[]){1, INFINITY, INFINITY}, 3, NULL, 0), 1);
}

/* What the log of a probability is taken from, also where exp alone would overflow. */
static void test_log_sum_exp(void **state) {
    (void)state;
    assert_float_equal(cca_log_sum_exp((float[]){3, 3, 3, 3}, 4), 3 + log(4), 1e-12);
    assert_float_equal(cca_log_sum_exp((float[]){logf(1), logf(2), logf(5)}, 3), log(8), 1e-6);
    assert_float_equal(cca_log_sum_exp((float[]){1000, 0, -1000}, 3), 1000, 1e-12);
    assert_float_equal(cca_log_sum_exp((float[]){-7}, 1), -7, 1e-12);
    float row[MAX_VOCAB];
    double sum = 0;
    for (int i = 0; i < MAX_VOCAB; i++) row[i] = (float)(i % 37) / 3;
    for (int i = 0; i < MAX_VOCAB; i++) {
        sum += exp((double)row[i] - cca_log_sum_exp(row, MAX_VOCAB));
    }
    assert_float_equal(sum, 1, 1e-6);
}

static void test_not_a_number(void **state) {
    (void)state;
    float nan = strtof("nan", NULL);
    assert_int_equal(greedy_of((float[]){nan, 1, nan, 2}, 4, NULL, 0), 3);
    assert_int_equal(greedy_of((float[]){nan, nan}, 2, NULL, 0), 0);
    assert_int_equal(greedy_of((float[]){nan, -INFINITY, -1e30f}, 3, NULL, 0), 2);
    cca_sampler *s = make(cca_sampler_defaults(), 4);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(cca_sampler_next(s, (float[]){nan, 1, nan, -INFINITY}, NULL, 0), 1);
    }
    for (int i = 0; i < 1000; i++) {
        int32_t id = cca_sampler_next(s, (float[]){1, INFINITY, INFINITY, nan}, NULL, 0);
        assert_true(id == 1 || id == 2);
    }
    for (int i = 0; i < 1000; i++) {
        int32_t id = cca_sampler_next(s, (float[]){nan, nan, nan, nan}, NULL, 0);
        assert_in_range(id, 0, 3);
    }
    cca_sampler_free(s);
    s = make(plain(), 3); /* nothing limits: what has no weight is still never drawn */
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(cca_sampler_next(s, (float[]){nan, 0, -INFINITY}, NULL, 0), 1);
    }
    cca_sampler_free(s);
}

static void test_banned(void **state) {
    (void)state;
    float logits[] = {1, 4, 3, 2};
    assert_int_equal(greedy_of(logits, 4, (int32_t[]){1}, 1), 2);
    assert_int_equal(greedy_of(logits, 4, (int32_t[]){2, 1, 1, -7, 99}, 5), 3);
    assert_int_equal(greedy_of(logits, 4, (int32_t[]){0, 1, 2, 3}, 4), -1);
    cca_sampler *s = make(plain(), 4);
    for (int i = 0; i < 2000; i++) {
        assert_int_not_equal(cca_sampler_next(s, logits, (int32_t[]){1}, 1), 1);
    }
    int seen = 0;
    for (int i = 0; i < 2000; i++) seen += cca_sampler_next(s, logits, NULL, 0) == 1;
    assert_true(seen > 0); /* a ban holds for one call */
    cca_sampler_free(s);
}

/* The ids that may be drawn, straight from the definitions: sort, cut, cut, cut. */
static const float *sort_key;

static int by_logit(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sort_key[x] != sort_key[y]) return sort_key[x] > sort_key[y] ? -1 : 1;
    return x < y ? -1 : x > y;
}

static size_t reference_kept(int32_t *ids, const float *logits, int32_t n,
                             const cca_sampler_options *o) {
    for (int32_t i = 0; i < n; i++) ids[i] = i;
    sort_key = logits;
    qsort(ids, (size_t)n, sizeof *ids, by_logit);
    size_t kept = o->top_k > 0 && o->top_k < n ? (size_t)o->top_k : (size_t)n;
    double total = 0, sum = 0, top = (double)logits[ids[0]];
    for (size_t i = 0; i < kept; i++) total += exp((double)logits[ids[i]] - top);
    if (o->top_p < 1) {
        for (size_t i = 0; i < kept; i++) {
            sum += exp((double)logits[ids[i]] - top) / total;
            if (sum >= (double)o->top_p) kept = i + 1;
        }
    }
    while (kept > 1 && exp((double)logits[ids[kept - 1]] - top) < (double)o->min_p) kept--;
    return kept;
}

/* Draws at a temperature that makes the kept ids nearly equal, until each must have come. */
static void check_kept(const float *logits, int32_t n, int32_t top_k, float top_p, float min_p) {
    cca_sampler_options o = plain();
    o.temperature = 1000;
    o.top_k = top_k;
    o.top_p = top_p;
    o.min_p = min_p;
    o.seed = 7;
    int32_t ids[MAX_VOCAB], seen[MAX_VOCAB] = {0};
    assert_in_range(n, 1, MAX_VOCAB);
    size_t kept = reference_kept(ids, logits, n, &o), distinct = 0;
    cca_sampler *s = make(o, n);
    for (size_t i = 0; i < kept * 30; i++) {
        int32_t id = cca_sampler_next(s, logits, NULL, 0);
        assert_in_range(id, 0, n - 1);
        distinct += seen[id]++ == 0;
    }
    assert_int_equal(distinct, kept);
    for (size_t i = 0; i < kept; i++) assert_true(seen[ids[i]] > 0);
    cca_sampler_free(s);
}

static void test_kept_sets(void **state) {
    (void)state;
    enum { N = MAX_VOCAB };
    float logits[N];
    uint32_t x = 12345;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < N; i++) {
            x = x * 1664525u + 1013904223u;
            logits[i] = (float)(x >> 8) / (float)(1 << 24) * 12 - 6;
            if (round % 2) logits[i] = (float)(int)(logits[i] * 2) / 2; /* many equal ones */
        }
        check_kept(logits, N, 0, 1, 0);
        check_kept(logits, N, 1, 1, 0);
        check_kept(logits, N, 40, 1, 0);
        check_kept(logits, N, N + 3, 1, 0);
        check_kept(logits, N, 0, 0.9f, 0);
        check_kept(logits, N, 0, 0.001f, 0);
        check_kept(logits, N, 0, 1, 0.05f);
        check_kept(logits, N, 0, 1, 1);
        check_kept(logits, N, 40, 0.95f, 0);
        check_kept(logits, N, 40, 0.7f, 0.05f);
        check_kept(logits, N, 0, 0.99f, 0.3f);
        check_kept(logits, N, 100, 1, 0.2f);
    }
}

/* Probabilities 1/2, 1/4, 1/8, 1/8: sums are exact, so are the edges. */
static void test_edges(void **state) {
    (void)state;
    float logits[4] = {0, logf(2), logf(4), 0};
    check_kept(logits, 4, 0, 0.49f, 0);
    check_kept(logits, 4, 0, 0.51f, 0);
    check_kept(logits, 4, 0, 0.76f, 0);
    check_kept(logits, 4, 3, 0.8f, 0);
    check_kept(logits, 4, 0, 1, 0.26f);
    check_kept(logits, 4, 0, 1, 0.24f);
    check_kept(logits, 4, 0, 1, 0.51f);
}

/* The penalised value equals another one, so that only the exact formula gives a tie, which
 * the lower id wins. */
static void test_penalty_formula(void **state) {
    (void)state;
    cca_sampler_options o = plain();
    o.temperature = 0;
    o.repeat_penalty = 1.5f;
    cca_sampler *s = make(o, 3);
    assert_int_equal(cca_sampler_next(s, (float[]){3, 2, 3}, NULL, 0), 0);
    cca_sampler_accept(s, 0);
    cca_sampler_accept(s, 0); /* counts once */
    assert_int_equal(cca_sampler_next(s, (float[]){3, 2, 1}, NULL, 0), 0);
    assert_int_equal(cca_sampler_next(s, (float[]){2.99f, 2, 1}, NULL, 0), 1);
    assert_int_equal(cca_sampler_next(s, (float[]){-2, -3, -9}, NULL, 0), 0);
    assert_int_equal(cca_sampler_next(s, (float[]){-2.01f, -3, -9}, NULL, 0), 1);
    assert_int_equal(cca_sampler_next(s, (float[]){0, 0, -9}, NULL, 0), 0);
    cca_sampler_accept(s, -1);
    cca_sampler_accept(s, 3);
    cca_sampler_free(s);
}

static void test_penalty_window(void **state) {
    (void)state;
    cca_sampler_options o = plain();
    o.temperature = 0;
    o.repeat_penalty = 2;
    float logits[4] = {1.9f, 1.8f, 1.7f, 1};
    o.repeat_last_n = 2;
    cca_sampler *s = make(o, 4);
    int32_t expected[] = {0, 1, 2, 0, 1, 2, 0}; /* an id comes back two later */
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int32_t id = cca_sampler_next(s, logits, NULL, 0);
        assert_int_equal(id, expected[i]);
        cca_sampler_accept(s, id);
    }
    cca_sampler_free(s);
    o.repeat_last_n = -1;
    s = make(o, 4);
    for (int i = 0; i < 3; i++) cca_sampler_accept(s, i);
    for (int i = 0; i < 1000; i++) cca_sampler_accept(s, 2);
    assert_int_equal(cca_sampler_next(s, logits, NULL, 0), 3);
    cca_sampler_free(s);
    o.repeat_last_n = 0;
    s = make(o, 4);
    cca_sampler_accept(s, 0);
    assert_int_equal(cca_sampler_next(s, logits, NULL, 0), 0);
    cca_sampler_free(s);
}

/* Frequencies of 100,000 draws stay within 4.5 standard deviations. */
static void check_frequencies(const cca_sampler_options *o, const float *logits,
                              const double *expected, int32_t n) {
    enum { DRAWS = 100000 };
    int seen[MAX_VOCAB] = {0};
    cca_sampler *s = make(*o, n);
    for (int i = 0; i < DRAWS; i++) seen[cca_sampler_next(s, logits, NULL, 0)]++;
    for (int32_t i = 0; i < n; i++) {
        double deviation = sqrt(DRAWS * expected[i] * (1 - expected[i]));
        assert_true(fabs(seen[i] - DRAWS * expected[i]) <= 4.5 * deviation);
    }
    cca_sampler_free(s);
}

static void test_distribution(void **state) {
    (void)state;
    double p[5] = {0.4, 0.3, 0.2, 0.06, 0.04};
    float logits[5];
    for (int i = 0; i < 5; i++) logits[i] = (float)log(p[i]) + 3;
    cca_sampler_options o = plain();
    o.seed = 1;
    check_frequencies(&o, logits, p, 5);
    double squares[5], sum = 0;
    for (int i = 0; i < 5; i++) sum += squares[i] = p[i] * p[i];
    for (int i = 0; i < 5; i++) squares[i] /= sum;
    o.temperature = 0.5f;
    check_frequencies(&o, logits, squares, 5);
    o.temperature = 1;
    o.top_k = 3; /* the cut is made before the temperature, and 0.9 of the mass is the new whole */
    check_frequencies(&o, logits, (double[]){4. / 9, 3. / 9, 2. / 9, 0, 0}, 5);
    o.top_k = 0;
    o.top_p = 0.65f;
    check_frequencies(&o, logits, (double[]){4. / 7, 3. / 7, 0, 0, 0}, 5);
    o.temperature = 5; /* does not widen what top-p keeps */
    double a = pow(4, 0.2), b = pow(3, 0.2);
    check_frequencies(&o, logits, (double[]){a / (a + b), b / (a + b), 0, 0, 0}, 5);
}

/* xoshiro256** seeded with 42 by splitmix64, computed apart: the top byte of each value counts
 * from the last of 256 equal tokens. */
static void test_generator(void **state) {
    (void)state;
    int32_t expected[] = {234, 158, 81, 19, 2, 58, 71, 38, 61, 106, 81, 181, 50, 173, 73, 31};
    float logits[256] = {0};
    cca_sampler_options o = plain();
    o.seed = 42;
    cca_sampler *s = make(o, 256);
    for (size_t i = 0; i < 16; i++) {
        assert_int_equal(cca_sampler_next(s, logits, NULL, 0), expected[i]);
    }
    cca_sampler_free(s);
}

static void test_seeds(void **state) {
    (void)state;
    enum { N = 1000 };
    float logits[N], before[N];
    for (int i = 0; i < N; i++) logits[i] = (float)(i * 37 % 101) / 20;
    memcpy(before, logits, sizeof logits);
    cca_sampler_options o = cca_sampler_defaults();
    o.repeat_penalty = 1.1f;
    o.seed = UINT64_MAX;
    cca_sampler *a = make(o, N), *b = make(o, N);
    o.seed = 5;
    cca_sampler *c = make(o, N);
    int differ = 0;
    for (int i = 0; i < 200; i++) {
        int32_t x = cca_sampler_next(a, logits, NULL, 0);
        assert_int_equal(x, cca_sampler_next(b, logits, NULL, 0));
        differ += x != cca_sampler_next(c, logits, NULL, 0);
        cca_sampler_accept(a, x);
        cca_sampler_accept(b, x);
        cca_sampler_accept(c, x);
    }
    assert_true(differ > 100);
    assert_memory_equal(before, logits, sizeof logits);
    cca_sampler_free(a);
    cca_sampler_free(b);
    cca_sampler_free(c);
}

static void check_refused(cca_sampler_options o, int32_t vocab_size, const char *named) {
    cca_sampler *s = (cca_sampler *)&o;
    cca_error err = {.text = ""};
    assert_int_equal(cca_sampler_new(&s, &o, vocab_size, &err), CCA_USAGE);
    assert_null(s);
    if (!strstr(err.text, named)) fail_msg("\"%s\" does not name %s", err.text, named);
    assert_int_equal(cca_sampler_new(&s, &o, vocab_size, NULL), CCA_USAGE);
}

static void test_refusals(void **state) {
    (void)state;
    float nan = strtof("nan", NULL);
    float bad_temperature[] = {-0.1f, INFINITY, nan}, bad_top_p[] = {0, -1, 1.01f, nan};
    float bad_min_p[] = {-0.1f, 1.01f, nan}, bad_penalty[] = {0, -1, INFINITY, nan};
    cca_sampler_options o;
    for (size_t i = 0; i < 3; i++) {
        o = plain(), o.temperature = bad_temperature[i];
        check_refused(o, 10, "temperature");
        o = plain(), o.min_p = bad_min_p[i];
        check_refused(o, 10, "min-p");
    }
    for (size_t i = 0; i < 4; i++) {
        o = plain(), o.top_p = bad_top_p[i];
        check_refused(o, 10, "top-p");
        o = plain(), o.repeat_penalty = bad_penalty[i];
        check_refused(o, 10, "repeat penalty");
    }
    o = plain(), o.repeat_last_n = -2;
    check_refused(o, 10, "repeat-last-n");
    check_refused(plain(), 0, "vocabulary");
    cca_sampler_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),       cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_log_sum_exp),    cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_banned),         cmocka_unit_test(test_kept_sets),
        cmocka_unit_test(test_edges),          cmocka_unit_test(test_penalty_formula),
        cmocka_unit_test(test_penalty_window), cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_generator),      cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
