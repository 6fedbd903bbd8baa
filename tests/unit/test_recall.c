/* Sinks and recall against the float64 reference of tests/golden/recall, all in f32. Bounds are the
 * largest difference over the spread of a run's logits:
 *     the reference 1e-4, full attention 1e-5, decode in place of prefill 1e-5. */
#include "tests/unit/recall_models.h"

/* ---- the reference ------------------------------------------------------------------- */

static void logits_equal_the_reference(void **state) {
    (void)state;
    int n_compared = 0; /* to their end */
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cpu");
        float *logits = run_whole(&x, &x.options);
        bool whole;
        test_below(distance_to_reference(&x, logits, &whole), 1e-4, x.m.name);
        n_compared += whole;
        free(logits);
        close_subject(&x);
    }
    assert_true(n_compared >= 10);
}

static void choices_equal_the_reference(void **state) {
    (void)state;
    int n = 0;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cpu");
        if (x.m.recall > 0) n += check_choices(&x, "cpu");
        close_subject(&x);
    }
    assert_true(n >= 1300);
}

/* Of groups that weigh the same the earlier are chosen, but a heavier one behind them is not lost.
 */
static void of_equal_groups_the_earlier_are_chosen(void **state) {
    (void)state;
    enum { HD = 16, GROUPS = 12, MOST = 4, HEAVY = 9, POS = GROUPS - 1 };
    cca_backend *b;
    cca_error err;
    assert_int_equal(cca_backend_cpu(&b, &(cca_backend_options){.n_threads = 1}, &err), CCA_OK);
    size_t bytes = GROUPS * HD * sizeof(float);
    cca_rows bounds = {.k = cca_backend_alloc(b, bytes), .v = cca_backend_alloc(b, bytes)};
    bounds.k_type = bounds.v_type = CCA_F32;
    bounds.heads = 1, bounds.capacity = GROUPS, bounds.head_dim = HD;
    cca_choice out = {.groups = cca_backend_alloc(b, MOST * sizeof(int32_t)),
                      .counts = cca_backend_alloc(b, sizeof(int32_t)),
                      .heads = 1,
                      .most = MOST,
                      .tile = 1,
                      .group_size = 1};
    cca_rule rule = {.group_size = 1, .window_size = 1, .n_sinks = 1};
    cca_range groups = cca_rule_groups(&rule);
    cca_matrix q;
    cca_matrix_alloc(b, &q, CCA_F32, 1, HD);
    float ones[HD];
    for (int d = 0; d < HD; d++) ones[d] = 1;
    cca_backend_upload(b, q.data, ones, sizeof ones);
    cca_backend_upload(b, (float *)bounds.k + HEAVY * HD, ones, sizeof ones);
    cca_choose(b, &out, &bounds, NULL, &groups, &q, POS, 1);
    assert_int_equal(cca_backend_sync(b, &err), CCA_OK);
    static const int32_t want[MOST] = {1, 2, 3, HEAVY};
    assert_int_equal(out.counts[0], MOST);
    assert_memory_equal(out.groups, want, sizeof want);
    cca_backend_release(b, bounds.k), cca_backend_release(b, bounds.v);
    cca_backend_release(b, out.groups), cca_backend_release(b, out.counts);
    cca_matrix_free(b, &q);
    cca_backend_close(b);
}

/* ---- full attention ------------------------------------------------------------------ */

static void recall_of_everything_equals_full(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cpu");
        cca_session_options full = full_options();
        x.options.recall = (x.m.length / x.m.g + 1) * x.m.g;
        float *want = run_whole(&x, &full), *got = run_whole(&x, &x.options);
        test_below(cca_spread_difference(got, want, x.m.length * x.vocab), 1e-5, x.m.name);
        free(want), free(got);
        close_subject(&x);
    }
}

/* A core of one token is that token. */
static void groups_of_one_with_cores_equal_full(void **state) {
    (void)state;
    static const int64_t recalls[] = {0, 7, 50};
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cpu");
        cca_session_options full = full_options();
        x.options.group_size = 1, x.options.recall = recalls[i % 3];
        x.options.cores = CCA_CORES_YES;
        float *want = run_whole(&x, &full), *got = run_whole(&x, &x.options);
        test_below(cca_spread_difference(got, want, x.m.length * x.vocab), 1e-5, x.m.name);
        free(want), free(got);
        close_subject(&x);
    }
}

/* ---- cuts ---------------------------------------------------------------------------- */

/* A thread's number does not show, nor do chunks of whole blocks of rows where rows are
 * append-only: a ring's keys are read in other portions for other chunks, few rows are multiplied
 * in another order. */
static void check_cuts(const char *name, const float *want, int n_threads) {
    static const int64_t whole[] = {32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384};
    static const int64_t odd[] = {1, 3, 8, 24, 37, 100};
    enum { N_WHOLE = sizeof whole / sizeof *whole, N_ODD = sizeof odd / sizeof *odd };
    subject x = open_subject(name, n_threads, "cpu");
    int64_t n = x.m.length;
    float *once = run_whole(&x, &x.options);
    assert_memory_equal(once, want, logit_bytes(&x, n));
    free(once);
    for (int i = 0; i < N_WHOLE + N_ODD; i++) {
        x.options.chunk_size = i < N_WHOLE ? whole[i] : odd[i - N_WHOLE];
        float *got = run_whole(&x, &x.options);
        if (i < N_WHOLE && x.m.recall > 0) assert_memory_equal(got, want, logit_bytes(&x, n));
        test_below(cca_spread_difference(got, want, n * x.vocab), 1e-5, name);
        free(got);
    }
    close_subject(&x);
}

static void chunks_and_threads_do_not_change_a_bit(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 1, "cpu");
        float *want = run_whole(&x, &x.options);
        for (int n_threads = 1; n_threads <= 3; n_threads++) check_cuts(NAMES[i], want, n_threads);
        free(want);
        close_subject(&x);
    }
}

static void decode_equals_prefill_where_each_chooses_alone(void **state) {
    (void)state;
    int n = 0;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cpu");
        if (x.m.tile == 1) {
            float *want = run_whole(&x, &x.options);
            float *got = run(x.engine, &x.options, x.m.tokens, x.m.length, 1);
            test_below(cca_spread_difference(got, want, x.m.clear * x.vocab), 1e-5, x.m.name);
            free(want), free(got);
            n++;
        }
        close_subject(&x);
    }
    assert_int_equal(n, 3);
}

/* Nothing depends on what lies behind its tile. */
static void no_tile_sees_what_comes_later(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cpu");
        int32_t n = x.m.length, *tokens = malloc((size_t)n * sizeof *tokens);
        assert_non_null(tokens);
        float *want = run_whole(&x, &x.options);
        for (int part = 1; part < 6; part++) {
            int64_t from = n * part / 6 / x.m.tile * x.m.tile;
            for (int k = 0; k < n; k++) tokens[k] = k < from ? x.m.tokens[k] : (3 * k + part) % 40;
            float *got = run(x.engine, &x.options, tokens, n, n);
            assert_memory_equal(got, want, logit_bytes(&x, from));
            assert_memory_not_equal(got + from * x.vocab, want + from * x.vocab,
                                    logit_bytes(&x, n - from));
            free(got);
        }
        free(want), free(tokens);
        close_subject(&x);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_equal_the_reference),
        cmocka_unit_test(choices_equal_the_reference),
        cmocka_unit_test(of_equal_groups_the_earlier_are_chosen),
        cmocka_unit_test(recall_of_everything_equals_full),
        cmocka_unit_test(groups_of_one_with_cores_equal_full),
        cmocka_unit_test(chunks_and_threads_do_not_change_a_bit),
        cmocka_unit_test(decode_equals_prefill_where_each_chooses_alone),
        cmocka_unit_test(no_tile_sees_what_comes_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
