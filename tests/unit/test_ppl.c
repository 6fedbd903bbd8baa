/* Windows of a text, and sums over scored tokens. */
#include "cli/ppl/ppl_score.h"
#include "cli/ppl/ppl_windows.h"

#include "tests/unit/test.h"

#include <math.h>

static void expect_window(const ppl_layout *layout, int64_t index, int64_t begin, int64_t end,
                          int64_t score, bool bos) {
    ppl_window w = {0};
    assert_true(ppl_window_at(&w, layout, index));
    assert_int_equal(w.begin, begin);
    assert_int_equal(w.end, end);
    assert_int_equal(w.score, score);
    assert_int_equal(w.bos, bos);
}

static void expect_end(const ppl_layout *layout, int64_t index) {
    ppl_window w;
    assert_false(ppl_window_at(&w, layout, index));
}

static void test_full(void **state) {
    ppl_layout l = {.mode = PPL_FULL, .bos = PPL_BOS_EVERY, .n_tokens = 100};
    (void)state;
    expect_window(&l, 0, 0, 100, 0, true);
    expect_end(&l, 1);
    l.bos = PPL_BOS_NONE; /* the first token has none before it */
    expect_window(&l, 0, 0, 100, 1, false);
    l.n_tokens = 1;
    assert_int_equal(ppl_layout_totals(&l).scored, 0);
}

static void test_stride(void **state) {
    ppl_layout l = {
        .mode = PPL_STRIDE, .n_tokens = 25, .window = 10, .stride = 4, .bos = PPL_BOS_NONE};
    (void)state;
    expect_window(&l, 0, 0, 10, 1, false);
    expect_window(&l, 1, 4, 14, 10, false);
    expect_window(&l, 3, 12, 22, 18, false);
    expect_window(&l, 4, 16, 25, 22, false); /* partial */
    expect_end(&l, 5);
    l.bos = PPL_BOS_EVERY; /* it takes one of the 10 positions */
    expect_window(&l, 0, 0, 9, 0, true);
    expect_window(&l, 1, 4, 13, 9, true);
    l.bos = PPL_BOS_FIRST;
    expect_window(&l, 0, 0, 9, 0, true);
    expect_window(&l, 1, 4, 14, 9, false);
}

static void test_chunk(void **state) {
    ppl_layout l = {
        .mode = PPL_CHUNK, .n_tokens = 25, .window = 10, .score_from = 4, .bos = PPL_BOS_NONE};
    (void)state;
    expect_window(&l, 0, 0, 10, 4, false);
    expect_window(&l, 1, 10, 20, 14, false);
    expect_window(&l, 2, 20, 25, 24, false);
    expect_end(&l, 3);
    l.bos = PPL_BOS_EVERY; /* position 4 is text token 3 */
    expect_window(&l, 0, 0, 9, 3, true);
    expect_window(&l, 1, 9, 18, 12, true);
    l.bos = PPL_BOS_FIRST;
    expect_window(&l, 0, 0, 9, 3, true);
    expect_window(&l, 1, 9, 19, 13, false);
    expect_window(&l, 2, 19, 25, 23, false);
}

/* 255 of 512: positions 257 … 511, as llama-perplexity does. */
static void test_llamacpp(void **state) {
    ppl_layout l = {.mode = PPL_LLAMACPP, .n_tokens = 1500, .window = 512, .bos = PPL_BOS_NONE};
    (void)state;
    expect_window(&l, 0, 0, 512, 257, false);
    expect_window(&l, 1, 512, 1024, 512 + 257, false);
    expect_end(&l, 2);
    ppl_totals t = ppl_layout_totals(&l);
    assert_int_equal(t.scored, 2 * 255);
    assert_int_equal(t.positions, 1024);
    assert_int_equal(t.n_windows, 2);
}

/* Whatever the numbers: no token twice, and none left out but the first without a BOS. */
static void test_stride_scores_each_token_once(void **state) {
    int seen[64];
    (void)state;
    for (int bos = PPL_BOS_EVERY; bos <= PPL_BOS_NONE; bos++) {
        for (int64_t n = 1; n <= 60; n++) {
            for (int64_t window = 2; window <= 20; window++) {
                ppl_layout l = {
                    .mode = PPL_STRIDE, .bos = (ppl_bos)bos, .n_tokens = n, .window = window};
                for (l.stride = 1; l.stride <= ppl_largest_stride(&l); l.stride++) {
                    ppl_window w;
                    memset(seen, 0, sizeof seen);
                    for (int64_t i = 0; ppl_window_at(&w, &l, i); i++) {
                        assert_true(ppl_window_size(&w) <= window);
                        for (int64_t t = w.score; t < w.end; t++) seen[t]++;
                    }
                    for (int64_t t = 0; t < n; t++) {
                        assert_int_equal(seen[t], t > 0 || bos != PPL_BOS_NONE);
                    }
                }
            }
        }
    }
}

static void test_nats(void **state) {
    const float even[4] = {3, 3, 3, 3}, far[3] = {1000, 0, -1000};
    (void)state;
    assert_true(fabs(cca_nats(even, 4, 2) - log(4)) < 1e-12);
    assert_true(fabs(cca_nats(far, 3, 0)) < 1e-12);
    assert_true(fabs(cca_nats(far, 3, 2) - 2000) < 1e-9);
}

static void test_sums(void **state) {
    ppl_stats s = {0};
    int64_t from, to;
    (void)state;
    assert_true(ppl_standard_error(&s.all) == 0);
    ppl_stats_add(&s, 1023, 1, 2);
    ppl_stats_add(&s, 1024, 2, 3);
    ppl_stats_add(&s, 70000, 3, 4);
    ppl_stats_add(&s, 200000, 2, 1);
    assert_true(fabs(ppl_mean(&s.all) - 2) < 1e-12);
    assert_true(fabs(ppl_perplexity(&s.all) - exp(2)) < 1e-9);
    /* variance 0.5, error of the mean sqrt(0.5 / 3) */
    assert_true(fabs(ppl_standard_error(&s.all) - exp(2) * sqrt(0.5 / 3)) < 1e-9);
    assert_true(fabs(ppl_bits_per_byte(&s) - 8 / log(2) / 10) < 1e-12);
    assert_int_equal(s.bands[0].n, 1);
    assert_int_equal(s.bands[1].n, 1);
    assert_int_equal(s.bands[7].n, 1);
    assert_int_equal(s.bands[8].n, 1);
    for (int band = 1; band < PPL_N_BANDS; band++) {
        int64_t before;
        ppl_band_range(band - 1, &from, &before);
        ppl_band_range(band, &from, &to);
        assert_int_equal(from, before);
        ppl_stats at = {0};
        ppl_stats_add(&at, from, 1, 0);
        ppl_stats_add(&at, from - 1, 1, 0);
        assert_int_equal(at.bands[band].n, 1);
        assert_int_equal(at.bands[band - 1].n, 1);
    }
}

/* By hand: p = (1/2, 1/4, 1/4) in the base, (1/4, 1/2, 1/4) here. */
static void test_compare(void **state) {
    (void)state;
    const float half = logf(0.5F), quarter = logf(0.25F);
    const float base[] = {half + 3, quarter + 3, quarter + 3}, own[] = {quarter, half, quarter};
    cca_gap gap = cca_compare(own, base, 3, 1);
    assert_float_equal(gap.nats, log(2), 1e-6);
    assert_float_equal(gap.base_nats, log(4), 1e-6);
    assert_float_equal(gap.kl, log(2) / 4, 1e-6);
    assert_false(gap.same_top);
    gap = cca_compare(own, own, 3, 0);
    assert_true(gap.kl == 0 && gap.same_top);
}

/* A vocabulary as large as real ones, at distances from those of other chunks to those of other
 * models, against the definition in long double. */
static void test_compare_wide(void **state) {
    enum { N = 49152 };
    static const float distances[] = {1e-3F, 0.03F, 1, 4};
    (void)state;
    float *own = calloc(N, sizeof *own), *base = calloc(N, sizeof *base);
    assert_true(own && base);
    uint32_t seed = 1;
    for (size_t d = 0; d < sizeof distances / sizeof *distances; d++) {
        for (int i = 0; i < N; i++) {
            seed = seed * 1664525 + 1013904223;
            base[i] = (float)(seed >> 8) * 0x1p-24F * 16 - 5;
            seed = seed * 1664525 + 1013904223;
            own[i] = base[i] + ((float)(seed >> 8) * 0x1p-24F - 0.5F) * distances[d];
        }
        long double sums[2] = {0, 0}, kl = 0;
        for (int i = 0; i < N; i++) sums[0] += expl(own[i]), sums[1] += expl(base[i]);
        for (int i = 0; i < N; i++) {
            long double p = expl(base[i]) / sums[1];
            kl += p * ((long double)base[i] - logl(sums[1]) - own[i] + logl(sums[0]));
        }
        cca_gap gap = cca_compare(own, base, N, 77);
        test_below(fabs(gap.kl - (double)kl), 1e-9 + 1e-6 * (double)kl, "divergence");
        test_below(fabs(gap.nats - (double)(logl(sums[0]) - own[77])), 1e-6, "nats");
        test_below(fabs(gap.base_nats - (double)(logl(sums[1]) - base[77])), 1e-6, "base's nats");
    }
    free(own);
    free(base);
}

static void test_quantiles(void **state) {
    (void)state;
    ppl_divergence each[1000];
    ppl_gaps gaps = {.each = each};
    assert_true(ppl_gaps_quantile(&gaps, PPL_ALL_BANDS, 0.99) == 0);
    for (int i = 0; i < 1000; i++) { /* in another order; those below 0.1 at the start */
        int k = i * 7 % 1000;
        cca_gap gap = {.nats = 2, .base_nats = 1, .kl = k / 1000.0, .same_top = i < 250};
        ppl_gaps_add(&gaps, k < 100 ? 0 : 5000, &gap);
    }
    ppl_gaps_sort(&gaps);
    assert_float_equal(ppl_gaps_quantile(&gaps, PPL_ALL_BANDS, 0.99), 0.989, 1e-6);
    assert_float_equal(ppl_gaps_quantile(&gaps, PPL_ALL_BANDS, 0.999), 0.998, 1e-6);
    assert_float_equal(ppl_gaps_quantile(&gaps, PPL_ALL_BANDS, 0), 0, 0);
    assert_float_equal(ppl_gaps_quantile(&gaps, 0, 0.99), 0.098, 1e-6);
    assert_float_equal(ppl_gaps_quantile(&gaps, 0, 1), 0.099, 1e-6);
    assert_float_equal(ppl_gaps_quantile(&gaps, 3, 0.99), 0.990, 1e-6);
    assert_float_equal(ppl_gaps_quantile(&gaps, 3, 0.5), 0.549, 1e-6);
    assert_true(ppl_gaps_quantile(&gaps, 1, 0.99) == 0);
    assert_float_equal(ppl_mean(&gaps.all.kl), 0.4995, 1e-9);
    assert_float_equal(ppl_perplexity(&gaps.all.more), exp(1), 1e-12);
    assert_int_equal(gaps.all.same_top, 250);
    assert_int_equal(gaps.bands[0].kl.n, 100);
    assert_int_equal(gaps.bands[3].kl.n, 900);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare),   cmocka_unit_test(test_compare_wide),
        cmocka_unit_test(test_quantiles), cmocka_unit_test(test_full),
        cmocka_unit_test(test_stride),    cmocka_unit_test(test_chunk),
        cmocka_unit_test(test_llamacpp),  cmocka_unit_test(test_stride_scores_each_token_once),
        cmocka_unit_test(test_nats),      cmocka_unit_test(test_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
