/* The visibility rule, exhaustively on small numbers, against the definition's own words. */
#include "cca_rule.h"
#include "tests/unit/test.h"

/* floor((i - s) / g) for any sign, by counting. */
static int64_t groups_by_definition(int64_t g, int64_t s, int64_t i) {
    int64_t j = 0;
    while ((j + 1) * g <= i - s) j++;
    return j;
}

static void every_position_is_seen_once(void **state) {
    (void)state;
    for (int64_t g = 1; g <= 9; g++) {
        for (int64_t s = g; s <= 5 * g; s += g) {
            cca_rule r = {g, s, CCA_FAR_CORES, 0};
            for (int64_t pos = 0; pos < 12 * g + s; pos++) {
                int64_t i = pos + 1, j = groups_by_definition(g, s, i);
                assert_int_equal(cca_rule_groups(&r, pos), j);
                assert_int_equal(cca_rule_far(&r, pos), j);
                assert_int_equal(cca_rule_raw_begin(&r, pos), j * g);
                int64_t raw = pos + 1 - cca_rule_raw_begin(&r, pos);
                assert_int_equal(j * g + raw, i); /* nothing twice, nothing missing */
                assert_true(raw <= s + g - 1 && raw < cca_rule_ring(&r));
                assert_true(i < s ? raw == i : raw >= s);
            }
        }
    }
}

static void group_size_one_and_wide_windows_see_everything(void **state) {
    (void)state;
    cca_rule one = {1, 4, CCA_FAR_CORES, 0}, wide = {4, 64, CCA_FAR_CORES, 0};
    cca_rule full = {1, INT64_MAX / 4, CCA_FAR_NONE, 0};
    for (int64_t pos = 0; pos < 64; pos++) {
        assert_int_equal(cca_rule_far(&one, pos) + pos + 1 - cca_rule_raw_begin(&one, pos),
                         pos + 1);
        assert_int_equal(cca_rule_raw_begin(&wide, pos), 0);
        assert_int_equal(cca_rule_far(&wide, pos), 0);
        assert_int_equal(cca_rule_raw_begin(&full, pos), 0);
    }
}

static void window_and_sinks(void **state) {
    (void)state;
    cca_rule window = {4, 8, CCA_FAR_NONE, 0}, sinks = {4, 8, CCA_FAR_SINKS, 6};
    for (int64_t pos = 0; pos < 100; pos++) {
        int64_t begin = 4 * groups_by_definition(4, 8, pos + 1);
        assert_int_equal(cca_rule_far(&window, pos), 0);
        assert_int_equal(cca_rule_raw_begin(&window, pos), begin);
        assert_int_equal(cca_rule_far(&sinks, pos), begin < 6 ? begin : 6);
    }
}

static void each_group_completes_once(void **state) {
    (void)state;
    for (int64_t g = 1; g <= 7; g++) {
        cca_rule r = {g, g, CCA_FAR_CORES, 0};
        for (int64_t n = 1; n <= 20; n++) {
            int64_t expected = 0;
            for (int64_t pos = 0; pos < 100; pos += n) {
                int64_t first, count = cca_rule_completed(&r, pos, n, &first);
                if (count > 0) assert_int_equal(first, expected);
                expected += count;
                assert_int_equal(expected, (pos + n) / g);
            }
        }
    }
}

/* A tile's ranges hold all keys of its queries, and a tile said to need no mask needs none. */
static void tiles_cover_their_queries(void **state) {
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        for (int64_t g = 1; g <= 5; g += 2) {
            cca_rule r = {g, 3 * g, (cca_far)kind, 7};
            for (int64_t first = 0; first < 40; first++) {
                for (int64_t n = 1; n <= 9; n++) {
                    cca_tile t = cca_rule_tile(&r, first, first + n - 1);
                    for (int64_t pos = first; pos < first + n; pos++) {
                        int64_t begin = cca_rule_raw_begin(&r, pos), far = cca_rule_far(&r, pos);
                        assert_true(t.raw_begin <= begin && t.raw_end >= pos + 1 &&
                                    t.far_end >= far);
                        for (int64_t c = t.raw_begin; c + 3 <= t.raw_end; c++) {
                            if (cca_rule_raw_masked(&r, &t, c, 3)) continue;
                            assert_true(c >= begin && c + 3 <= pos + 1);
                        }
                        for (int64_t c = 0; c + 2 <= t.far_end; c++) {
                            if (!cca_rule_far_masked(&r, &t, c, 2)) assert_true(c + 2 <= far);
                        }
                    }
                    int64_t seen_by_all = cca_rule_raw_begin(&r, t.last);
                    if (seen_by_all <= first) {
                        assert_false(
                            cca_rule_raw_masked(&r, &t, seen_by_all, first + 1 - seen_by_all));
                    }
                }
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_position_is_seen_once),
        cmocka_unit_test(group_size_one_and_wide_windows_see_everything),
        cmocka_unit_test(window_and_sinks),
        cmocka_unit_test(each_group_completes_once),
        cmocka_unit_test(tiles_cover_their_queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
