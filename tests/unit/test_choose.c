/* What recall is made of on the CPU: the walk over keys, bounds, softmaxes that are added up, and
 * the choice of groups, each against its definition in double. */
#include "backend/cpu/kernels.h"
#include "tests/unit/choices.h"

/* ---- the walk ------------------------------------------------------------------------ */

/* Each column that a walk goes through, in order; takes: whether it takes part. */
typedef struct visit {
    int64_t column, row;
    bool takes;
} visit;

enum { MOST_VISITS = 4096 };

static int walk(visit *out, const cca_spans *spans, int i, int64_t pos, int64_t row, int64_t n) {
    cca_attend_args args = {.spans = spans, .n_heads = 1, .pos = pos};
    cca_key_walk w = cca_walk_begin(&args, &spans->at[i], 0, row, n);
    int count = 0;
    while (cca_walk_next(&w)) {
        assert_in_range(w.keys.n, 1, CCA_TILE_K);
        for (int64_t k = 0; k < w.keys.n; k++) {
            assert_true(count < MOST_VISITS);
            out[count++] = (visit){cca_key_column(&w.keys, k), cca_key_row(&w.keys, k),
                                   w.keys.takes_part >> k & 1};
        }
    }
    return count;
}

static cca_rows rows_of(int64_t capacity, int64_t base) {
    return (cca_rows){
        .k_type = CCA_F32, .v_type = CCA_F32, .heads = 1, .capacity = capacity, .base = base};
}

static void walks_go_through_all_chosen_and_others(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 5, 16, 100};
    static const int32_t wishes[][5] = {{0, 1, 2, 3, 4}, {2, 3, 7, 8, 11}, {0, 5, 6, 9, 10}};
    static visit got[MOST_VISITS];
    for (int s = 0; s < 4; s++) {
        for (int wish = 0; wish < 3; wish++) {
            for (int n_chosen = 0; n_chosen <= 5; n_chosen++) {
                int64_t g = sizes[s];
                cca_rule rule = {g, 2 * g, 2 * g, true};
                int64_t pos = 14 * g + g / 2 - 1; /* groups 2 … 11 are not in the window */
                int32_t chosen[5], counts[] = {n_chosen};
                for (int i = 0; i < 5; i++) chosen[i] = wishes[wish][i] + 2; /* sinks apart */
                if (n_chosen > 0 && chosen[n_chosen - 1] >= 12) continue;
                cca_rows raw = rows_of(20 * g, 0), cores = rows_of(20, 0);
                cca_spans spans = {.n = 2,
                                   .at = {{raw, cca_rule_recallable(&rule), 1, CCA_PICK_CHOSEN},
                                          {cores, cca_rule_groups(&rule), g, CCA_PICK_OTHERS}},
                                   .choice = {chosen, counts, 1, 5, 64 * g, g}};
                int count = walk(got, &spans, 0, pos, 0, 1);
                assert_int_equal(count, n_chosen * g);
                for (int i = 0; i < count; i++) {
                    assert_int_equal(got[i].column, chosen[i / g] * g + i % g);
                    assert_int_equal(got[i].row, got[i].column);
                    assert_true(got[i].takes);
                }
                count = walk(got, &spans, 1, pos, 0, 1);
                assert_int_equal(count, 10);
                for (int i = 0; i < count; i++) {
                    bool found = false;
                    for (int k = 0; k < n_chosen; k++) found = found || chosen[k] == i + 2;
                    assert_int_equal(got[i].column, i + 2);
                    assert_int_equal(got[i].takes, !found);
                }
            }
        }
    }
}

/* Chosen groups far apart, more than a tile of keys between them and within a tile. */
static void many_groups_are_left_out(void **state) {
    (void)state;
    static visit got[MOST_VISITS];
    uint64_t seed = 1;
    cca_rule rule = {1, 1, 0, true};
    for (int turn = 0; turn < 50; turn++) {
        int32_t chosen[1000], n = 0;
        bool is_chosen[1000] = {0};
        for (int t = 0; t < 1000; t++) {
            if (fabsf(cca_random_uniform(&seed)) < 0.02 * turn) {
                chosen[n++] = t, is_chosen[t] = true;
            }
        }
        cca_spans spans = {.n = 1,
                           .at = {{rows_of(1001, 0), cca_rule_groups(&rule), 1, CCA_PICK_OTHERS}},
                           .choice = {chosen, &n, 1, 1000, 1, 1}};
        assert_int_equal(walk(got, &spans, 0, 1000, 0, 1), 1000);
        for (int i = 0; i < 1000; i++) assert_int_equal(got[i].takes, !is_chosen[i]);
        spans.at[0].pick = CCA_PICK_CHOSEN;
        assert_int_equal(walk(got, &spans, 0, 1000, 0, 1), n);
        for (int i = 0; i < n; i++) assert_int_equal(got[i].column, chosen[i]);
    }
}

/* A ring's end parts a tile of keys, and a call's row finds its own tile's choice. */
static void walks_wrap_around_rings(void **state) {
    (void)state;
    static visit got[MOST_VISITS];
    cca_rule rule = {4, 64, 0, true};
    cca_spans spans = {.n = 1, .at = {{rows_of(68, 0), cca_rule_window(&rule), 1, CCA_PICK_ALL}}};
    for (int64_t pos = 0; pos < 300; pos++) {
        cca_range seen = cca_rule_window(&rule);
        int count = walk(got, &spans, 0, pos, 0, 1);
        assert_int_equal(count, cca_range_count(&seen, pos));
        for (int i = 0; i < count; i++) {
            assert_int_equal(got[i].column, cca_edge_at(&seen.begin, pos) + i);
            assert_int_equal(got[i].row, got[i].column % 68);
        }
    }
    int32_t groups[][2] = {{0, 3}, {1, 9}, {5, 0}}, counts[] = {2, 2, 1};
    cca_spans tiles = {.n = 1,
                       .at = {{rows_of(400, 0), cca_rule_recallable(&rule), 1, CCA_PICK_CHOSEN}},
                       .choice = {groups[0], counts, 1, 2, 8, 4}};
    static const int64_t rows[] = {0, 4, 5, 12, 13}; /* at 195 …: tiles begin at 192, 200, 208 */
    static const int tile_of[] = {0, 0, 1, 1, 2};
    for (int r = 0; r < 5; r++) {
        int count = walk(got, &tiles, 0, 195, rows[r], 1), t = tile_of[r];
        assert_int_equal(count, counts[t] * 4);
        for (int i = 0; i < count; i++) {
            assert_int_equal(got[i].column, groups[t][i / 4] * 4 + i % 4);
        }
    }
}

/* Chosen groups that only later queries of the tile see are none of an earlier one's keys. */
static void walks_end_where_queries_see_no_more(void **state) {
    (void)state;
    static visit got[MOST_VISITS];
    cca_rule rule = {4, 8, 4, true};
    int32_t chosen[] = {1, 2, 3, 5}, counts[] = {4}; /* of a tile at 16 … 31 */
    cca_spans spans = {.n = 1,
                       .at = {{rows_of(64, 0), cca_rule_recallable(&rule), 1, CCA_PICK_CHOSEN}},
                       .choice = {chosen, counts, 1, 4, 16, 4}};
    cca_range seen = cca_rule_groups(&rule);
    for (int64_t row = 0; row < 16; row++) {
        int wanted = 0, end = (int)cca_edge_at(&seen.end, 16 + row);
        while (wanted < 4 && chosen[wanted] < end) wanted++;
        assert_int_equal(walk(got, &spans, 0, 16, row, 1), wanted * 4);
    }
}

/* ---- softmaxes ----------------------------------------------------------------------- */

static void softmaxes_are_added_up(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int i = 0; cca_kernels_at(i); i++) {
        for (int n = 1; n < 150; n += n < 40 ? 1 : 13) {
            float total[150] = {0}, want[150];
            double sums[150] = {0}, all = 0;
            for (int turn = 0; turn < 5; turn++) {
                float *x = some_floats(n, &seed, turn == 4 ? 200 : 3);
                double largest = -INFINITY, sum = 0;
                for (int k = 0; k < n; k++) largest = fmax(largest, x[k]);
                for (int k = 0; k < n; k++) sum += exp(x[k] - largest);
                for (int k = 0; k < n; k++) sums[k] += exp(x[k] - largest) / sum;
                cca_kernels_at(i)->add_softmax(total, x, n);
                free(x);
            }
            for (int k = 0; k < n; k++) want[k] = (float)sums[k], all += total[k];
            test_below(cca_distance(total, want, n), 1e-6, cca_kernels_at(i)->name);
            test_below(fabs(all - 5), 1e-5, "softmaxes add up to 1");
            for (int k = n; k < 150; k++) assert_true(total[k] == 0);
        }
    }
}

/* ---- bounds -------------------------------------------------------------------------- */

enum { HD = 64, HEADS = 2, GROUP = 5, GROUPS = 9, LENGTH = GROUP * GROUPS };

/* The last groups of a ring of three, or all. */
static void check_bounds(const cca_kernels *k, cca_dtype type, bool ring, uint64_t *seed) {
    int64_t capacity = ring ? 3 * GROUP : LENGTH, n = HEADS * capacity * HD;
    cca_dtype bounds_type = cca_dtype_block(type) > 1 ? CCA_BF16 : type;
    float *x = some_floats(n, seed, 2), *keys = some_floats(n, seed, 1);
    for (int64_t i = 0; i < n; i += 7) x[i] *= 1e-6f; /* some close to 0 */
    for (int64_t i = 0; i < n; i += 160) x[i] = i % 320 ? 0 : -0.0f;
    for (int64_t i = 0; i < n; i += 3) x[i] = -fabsf(x[i]);
    char *raw = room((size_t)n * 4), *high = room(HEADS * GROUPS * HD * 4);
    char *low = room(HEADS * GROUPS * HD * 4);
    cca_dtype_encode(raw, type, x, n);
    cca_dtype_decode(keys, type, raw, n);
    const cca_groups groups = {.raw = {raw, raw, type, type, HEADS, capacity, HD, 0},
                               .cores = {high, low, bounds_type, bounds_type, HEADS, GROUPS, HD, 0},
                               .size = GROUP};
    float scratch[3 * HD], up[HD], down[HD];
    size_t row_bytes = 0;
    assert_true(cca_dtype_row_bytes(&row_bytes, bounds_type, HD));
    for (int64_t h = 0; h < HEADS; h++) {
        for (int64_t t = ring ? GROUPS - 3 : 0; t < GROUPS; t++) {
            cca_bound_group(k, &groups, h, t, scratch);
            cca_dtype_decode(up, bounds_type, high + (size_t)(h * GROUPS + t) * row_bytes, HD);
            cca_dtype_decode(down, bounds_type, low + (size_t)(h * GROUPS + t) * row_bytes, HD);
            for (int64_t d = 0; d < HD; d++) {
                float most = -INFINITY, least = INFINITY;
                for (int64_t i = t * GROUP; i < (t + 1) * GROUP; i++) {
                    float key = keys[(h * capacity + i % capacity) * HD + d];
                    most = fmaxf(most, key), least = fminf(least, key);
                }
                if (bounds_type == type) {
                    assert_true(up[d] == most && down[d] == least);
                    continue;
                }
                assert_true(down[d] <= least && most <= up[d]);
                assert_true(up[d] - most <= fabsf(most) / 128 + 1e-37f);
                assert_true(least - down[d] <= fabsf(least) / 128 + 1e-37f);
            }
        }
    }
    free(x), free(keys), free(raw), free(high), free(low);
}

/* Bounds of bounds: the largest of the largest, the smallest of the smallest. */
static void blocks_hold_every_bound(void **state) {
    (void)state;
    enum { N = 2 * CCA_BLOCK };
    uint64_t seed = 7;
    float *high = some_floats(N * HD, &seed, 1), *low = some_floats(N * HD, &seed, 1);
    float up[2 * HD], down[2 * HD], scratch[3 * HD];
    const cca_groups groups = {.raw = {high, low, CCA_F32, CCA_F32, 1, N, HD, 0},
                               .cores = {up, down, CCA_F32, CCA_F32, 1, 2, HD, 0},
                               .size = CCA_BLOCK,
                               .of_bounds = true};
    for (int64_t t = 0; t < 2; t++) cca_bound_group(cca_kernels_at(0), &groups, 0, t, scratch);
    for (int64_t d = 0; d < 2 * HD; d++) {
        float most = -INFINITY, least = INFINITY;
        for (int64_t i = d / HD * CCA_BLOCK; i < (d / HD + 1) * CCA_BLOCK; i++) {
            most = fmaxf(most, high[i * HD + d % HD]), least = fminf(least, low[i * HD + d % HD]);
        }
        assert_true(up[d] == most && down[d] == least);
    }
    free(high), free(low);
}

static void bounds_hold_every_key(void **state) {
    (void)state;
    static const cca_dtype types[] = {CCA_F32, CCA_F16, CCA_BF16, CCA_Q8_0};
    uint64_t seed = 3;
    for (int i = 0; cca_kernels_at(i); i++) {
        for (int t = 0; t < 4; t++) {
            check_bounds(cca_kernels_at(i), types[t], false, &seed);
            check_bounds(cca_kernels_at(i), types[t], true, &seed);
        }
    }
}

/* ---- the choice ---------------------------------------------------------------------- */

/* What a variant's products leave of the queries is all that may move the choice. */
static void check_choice(const cca_kernels *k, const choice_case *c, const choice_data *d,
                         int *n_equal, int *n_all) {
    cca_range seen = cca_rule_groups(&c->rule);
    double tolerance = k->products(c->type)->x_bytes(c->type, c->head_dim) > 0 ? 0.1 : 1e-4;
    for (int64_t row = 0, n; row < c->n; row += n) {
        n = cca_min(c->n - row, c->tile - (c->pos + row) % c->tile);
        cca_choose_args args = {&d->out, &d->bounds, &d->blocks, &seen, d->q, c->heads * c->sharers,
                                c->pos,  row,        n};
        void *scratch = room(cca_choose_bytes(k, &args));
        for (int64_t h = 0; h < c->heads; h++) {
            cca_choose_tile(k, &args, h, scratch);
            *n_equal += check_slot(c, d, row, n, h, tolerance);
            *n_all += 1;
        }
        free(scratch);
    }
}

static void choices_are_those_of_the_definition(void **state) {
    (void)state;
    static const int64_t tiles[] = {1, 8, 16, 64}, sharers[] = {1, 2, 3, 8};
    static const cca_dtype types[] = {CCA_F32, CCA_BF16, CCA_F16};
    uint64_t seed = 4;
    for (int i = 0; cca_kernels_at(i); i++) {
        int n_equal = 0, n_all = 0;
        for (int t = 0; t < 4; t++) {
            for (int r = 0; r < 4; r++) {
                for (int p = 0; p < 3; p++) {
                    static const int64_t starts[] = {3, 70, 1001}; /* the call cuts tiles */
                    choice_case c = {types[(t + r + p) % 3],
                                     2,
                                     sharers[r],
                                     r % 2 ? 64 : 96,
                                     {p == 1 ? 3 : 4, 12, p == 1 ? 3 : 8, true},
                                     starts[p],
                                     tiles[t] == 1 ? 5 : 75,
                                     tiles[t],
                                     p == 2 ? 40 : 7};
                    choice_data d = make_choice(&c, &seed);
                    check_choice(cca_kernels_at(i), &c, &d, &n_equal, &n_all);
                    free_choice(&d);
                }
            }
        }
        print_message("%s: %d of %d choices are equal\n", cca_kernels_at(i)->name, n_equal, n_all);
        assert_true(n_equal >= 0.9 * n_all);
    }
}

/* Of thousands of groups, where blocks are weighed first: rows below and behind the limit, sinks in
 * the first block, ends within blocks and at their borders. */
static void many_are_chosen_in_levels(void **state) {
    (void)state;
    static const int64_t starts[] = {2 * CCA_LEVELS_FROM - 30, 5003, 4800, 6016};
    uint64_t seed = 6;
    for (int i = 0; cca_kernels_at(i); i++) {
        int n_equal = 0, n_all = 0;
        for (int s = 0; s < 4; s++) {
            for (int tile = 1; tile <= 16; tile *= 16) {
                choice_case c = {
                    s % 2 ? CCA_BF16 : CCA_F32, 2,    2,    64, {2, 8, 2 * s, true}, starts[s],
                    tile == 1 ? 3 : 40,         tile, 9 + s};
                choice_data d = make_choice(&c, &seed);
                check_choice(cca_kernels_at(i), &c, &d, &n_equal, &n_all);
                free_choice(&d);
            }
        }
        print_message("%s: %d of %d choices are equal\n", cca_kernels_at(i)->name, n_equal, n_all);
        assert_true(n_equal >= 0.9 * n_all);
    }
}

/* The heaviest block has a single group behind the sinks: there are as many as are wanted all the
 * same. */
static void a_block_may_have_one_group(void **state) {
    (void)state;
    enum { DIMS = 64, SINKS = CCA_BLOCK - 1, MOST = 2 };
    const int64_t n_groups = CCA_LEVELS_FROM + 2 * CCA_BLOCK;
    uint64_t seed = 7;
    for (int i = 0; cca_kernels_at(i); i++) {
        int n_equal = 0, n_all = 0;
        choice_case c = {CCA_F32,          1, 1, DIMS, {2, 8, 2 * SINKS, true},
                         2 * n_groups + 7, 1, 1, MOST};
        choice_data d = make_choice(&c, &seed);
        float *const all[] = {d.bounds.k, d.bounds.v, d.high, d.low};
        for (int k = 0; k < DIMS; k++) {
            for (int side = 0; side < 4; side++) all[side][SINKS * DIMS + k] = 3;
            ((float *)d.blocks.k)[k] = d.block_high[k] = 3;
            d.q[k] = 1;
        }
        check_choice(cca_kernels_at(i), &c, &d, &n_equal, &n_all);
        assert_int_equal(n_equal, n_all);
        assert_int_equal(d.out.groups[0], SINKS);
        free_choice(&d);
    }
}

/* Which tiles a call has, and which chosen groups a position sees the beginning of. */
static void tiles_of_a_call(void **state) {
    (void)state;
    static const int32_t chosen[] = {3, 7, 9};
    static const struct {
        int64_t end, n;
    } seen[] = {{12, 0}, {13, 1}, {28, 1}, {29, 2}, {36, 2}, {37, 3}, {1000, 3}};
    cca_choice c = {.tile = 16};
    assert_int_equal(cca_choice_tiles(&c, 30, 2), 1);
    assert_int_equal(cca_choice_tiles(&c, 30, 3), 2);
    assert_int_equal(cca_choice_tiles(&c, 30, 40), 4);
    assert_int_equal(cca_choice_tile(&c, 30, 1), 0);
    assert_int_equal(cca_choice_tile(&c, 30, 2), 1);
    assert_int_equal(cca_choice_tile(&c, 30, 39), 3);
    static const int64_t rows[][2] = {{0, 2}, {2, 16}, {18, 16}, {34, 6}};
    for (int64_t tile = 0; tile < 4; tile++) {
        int64_t n;
        assert_int_equal(cca_choice_row(&n, &c, 30, 40, tile), rows[tile][0]);
        assert_int_equal(n, rows[tile][1]);
    }
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) {
        assert_int_equal(cca_chosen_before(chosen, 3, 4, seen[i].end), seen[i].n);
    }
}

/* Groups whose weights are equal: the earlier wins. */
static void ties_go_to_the_earlier(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int i = 0; cca_kernels_at(i); i++) {
        for (int64_t tile = 1; tile <= 16; tile *= 16) {
            /* 64 groups, seen by all queries of the tile; group t + 32 is group t again. */
            choice_case c = {CCA_F32, 1, 2, 64, {32, 64, 0, true}, 66 * 32 - 1, tile, tile, 9};
            c.pos = (c.pos + tile) / tile * tile;
            choice_data d = make_choice(&c, &seed);
            for (int64_t k = 0; k < 32 * 64; k++) {
                d.high[32 * 64 + k] = d.high[k], d.low[32 * 64 + k] = d.low[k];
            }
            memcpy(d.bounds.k, d.high, 64 * 64 * sizeof(float));
            memcpy(d.bounds.v, d.low, 64 * 64 * sizeof(float));
            int n_equal = 0, n_all = 0;
            check_choice(cca_kernels_at(i), &c, &d, &n_equal, &n_all);
            assert_int_equal(n_equal, n_all);
            memset(d.q, 0, (size_t)(tile * 2 * 64) * sizeof(float)); /* all are equal */
            check_choice(cca_kernels_at(i), &c, &d, &n_equal, &n_all);
            for (int32_t k = 0; k < 9; k++) assert_int_equal(d.out.groups[k], k);
            free_choice(&d);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_go_through_all_chosen_and_others),
        cmocka_unit_test(many_groups_are_left_out),
        cmocka_unit_test(walks_wrap_around_rings),
        cmocka_unit_test(walks_end_where_queries_see_no_more),
        cmocka_unit_test(softmaxes_are_added_up),
        cmocka_unit_test(bounds_hold_every_key),
        cmocka_unit_test(blocks_hold_every_bound),
        cmocka_unit_test(choices_are_those_of_the_definition),
        cmocka_unit_test(many_are_chosen_in_levels),
        cmocka_unit_test(a_block_may_have_one_group),
        cmocka_unit_test(tiles_of_a_call),
        cmocka_unit_test(ties_go_to_the_earlier),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
