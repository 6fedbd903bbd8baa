/* The visibility rule, exhaustively on small numbers, against the definition's own words. */
#include "cca_rule.h"
#include "tests/unit/test.h"

/* floor((i - s) / g) for any sign, by counting. */
static int64_t groups_by_definition(int64_t g, int64_t s, int64_t i) {
    int64_t j = 0;
    while ((j + 1) * g <= i - s) j++;
    return j;
}

/* What a position sees, told apart by what the rule makes of it. */
typedef struct sight {
    int64_t raw_begin, raw_end, sinks, group_begin, group_end, token_begin, token_end;
} sight;

static sight sight_of(const cca_rule *r, int64_t pos) {
    cca_range window = cca_rule_window(r), sinks = cca_rule_sinks(r), groups = cca_rule_groups(r);
    cca_range tokens = cca_rule_recallable(r);
    assert_int_equal(cca_edge_at(&sinks.begin, pos), 0);
    return (sight){cca_edge_at(&window.begin, pos), cca_edge_at(&window.end, pos),
                   cca_edge_at(&sinks.end, pos),    cca_edge_at(&groups.begin, pos),
                   cca_edge_at(&groups.end, pos),   cca_edge_at(&tokens.begin, pos),
                   cca_edge_at(&tokens.end, pos)};
}

static void every_position_is_seen_once(void **state) {
    (void)state;
    for (int64_t g = 1; g <= 9; g++) {
        for (int64_t s = g; s <= 5 * g; s += g) {
            cca_rule r = {g, s, 0, true};
            for (int64_t pos = 0; pos < 12 * g + s; pos++) {
                int64_t i = pos + 1, j = groups_by_definition(g, s, i);
                sight see = sight_of(&r, pos);
                assert_int_equal(see.sinks, 0);
                assert_int_equal(see.group_begin, 0);
                assert_int_equal(see.group_end, j);
                assert_int_equal(see.raw_begin, j * g); /* nothing twice, nothing missing */
                assert_int_equal(see.raw_end, i);
                int64_t raw = see.raw_end - see.raw_begin;
                assert_true(raw <= s + g - 1 && raw < cca_rule_ring(&r));
                assert_true(i < s ? raw == i : raw >= s);
            }
        }
    }
}

/* Counts how often each position is seen as a sink, raw in the window, and in a group that is a
 * core or can be recalled, whose tokens are its columns. */
static void count_sight(const cca_rule *r, int64_t pos) {
    enum { MOST = 100 };
    int seen[MOST] = {0};
    int64_t g = r->group_size;
    sight see = sight_of(r, pos);
    for (int64_t i = 0; i < see.sinks; i++) seen[i]++;
    for (int64_t i = see.raw_begin; i < see.raw_end; i++) seen[i]++;
    for (int64_t t = see.group_begin; t < see.group_end; t++) {
        for (int64_t i = t * g; i < t * g + g; i++) seen[i]++;
    }
    for (int64_t i = 0; i < MOST; i++) assert_int_equal(seen[i], i <= pos);
    assert_int_equal(see.token_begin, see.group_begin * g);
    assert_int_equal(see.token_end, see.group_end * g);
    assert_int_equal(see.sinks, see.token_begin); /* they end where groups begin */
}

static void sinks_groups_and_window_part_the_past(void **state) {
    (void)state;
    for (int64_t g = 1; g <= 5; g++) {
        for (int64_t s = g; s <= 3 * g; s += g) {
            for (int n_sinks = 0; n_sinks <= 2; n_sinks++) {
                for (int cores = 0; cores < 2; cores++) {
                    cca_rule r = {g, s, n_sinks * g, cores};
                    for (int64_t pos = 0; pos < 10 * g + s; pos++) count_sight(&r, pos);
                }
            }
        }
    }
}

static void group_size_one_and_wide_windows_see_everything(void **state) {
    (void)state;
    cca_rule one = {1, 4, 0, true}, wide = {4, 64, 4, true};
    cca_rule full = {1, INT64_MAX / 4, 0, false};
    for (int64_t pos = 0; pos < 64; pos++) {
        sight narrow = sight_of(&one, pos);
        assert_int_equal(narrow.group_end, narrow.raw_begin);
        assert_int_equal(sight_of(&wide, pos).raw_begin, 0);
        assert_int_equal(sight_of(&wide, pos).group_end, 0);
        assert_int_equal(sight_of(&wide, pos).sinks, 0);
        assert_int_equal(sight_of(&full, pos).raw_begin, 0);
        assert_int_equal(sight_of(&full, pos).raw_end, pos + 1);
    }
}

/* Sinks without cores need not fill groups. */
static void window_and_sinks(void **state) {
    (void)state;
    cca_rule window = {4, 8, 0, false}, sinks = {4, 8, 6, false};
    for (int64_t pos = 0; pos < 100; pos++) {
        int64_t begin = 4 * groups_by_definition(4, 8, pos + 1);
        assert_int_equal(sight_of(&window, pos).sinks, 0);
        assert_int_equal(sight_of(&window, pos).raw_begin, begin);
        assert_int_equal(sight_of(&sinks, pos).sinks, begin < 6 ? begin : 6);
    }
}

static void each_group_completes_once(void **state) {
    (void)state;
    for (int64_t g = 1; g <= 7; g++) {
        for (int64_t n = 1; n <= 20; n++) {
            int64_t expected = 0;
            for (int64_t pos = 0; pos < 100; pos += n) {
                int64_t first, count = cca_groups_completed(g, pos, n, &first);
                if (count > 0) assert_int_equal(first, expected);
                expected += count;
                assert_int_equal(expected, (pos + n) / g);
            }
        }
    }
}

/* A tile holds all that its queries see, and what is said to need no mask needs none. */
static void check_tile(const cca_range *r, int64_t first, int64_t last) {
    cca_tile t = cca_range_tile(r, first, last);
    for (int64_t pos = first; pos <= last; pos++) {
        int64_t begin = cca_edge_at(&r->begin, pos), end = cca_edge_at(&r->end, pos);
        assert_int_equal(cca_range_count(r, pos), end - begin);
        assert_true(begin >= t.begin && end <= t.end);
        for (int64_t c = t.begin; c + 3 <= t.end; c++) {
            if (!cca_tile_masked(&t, c, 3)) assert_true(c >= begin && c + 3 <= end);
        }
    }
    if (t.free_begin < t.free_end) {
        assert_false(cca_tile_masked(&t, t.free_begin, t.free_end - t.free_begin));
    }
}

static void tiles_cover_their_queries(void **state) {
    (void)state;
    for (int64_t n_sinks = 0; n_sinks <= 2; n_sinks++) {
        for (int64_t g = 1; g <= 5; g += 2) {
            cca_rule r = {g, 3 * g, n_sinks * g, true};
            const cca_range ranges[] = {cca_rule_window(&r), cca_rule_sinks(&r),
                                        cca_rule_groups(&r), cca_rule_recallable(&r)};
            for (int64_t first = 0; first < 40; first++) {
                for (int64_t n = 1; n <= 9; n++) {
                    for (int i = 0; i < 4; i++) check_tile(&ranges[i], first, first + n - 1);
                }
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_position_is_seen_once),
        cmocka_unit_test(sinks_groups_and_window_part_the_past),
        cmocka_unit_test(group_size_one_and_wide_windows_see_everything),
        cmocka_unit_test(window_and_sinks),
        cmocka_unit_test(each_group_completes_once),
        cmocka_unit_test(tiles_cover_their_queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
