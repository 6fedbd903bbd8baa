/* The Pareto set, the choice under limits, planted facts, the state file, scales of pictures. */
#include "cli/svg.h"
#include "cli/tune/tune.h"

#include "tests/unit/test.h"

#include <unistd.h>

/* g, s, perplexity, right of 20, cache, prefill, decode */
static tune_point point(int64_t g, int64_t s, double perplexity, int64_t right, uint64_t cache,
                        double prefill, double decode) {
    return (tune_point){.group_size = g,
                        .window_size = s,
                        .measured = true,
                        .perplexity = perplexity,
                        .n_facts = 20,
                        .n_right = right,
                        .cache_bytes = cache,
                        .memory_bytes = cache + 1000,
                        .prefill_tps = prefill,
                        .decode_tps = decode,
                        .seconds = 9000 / prefill + 10};
}

enum { N_POINTS = 7 };

static void make_points(tune_point out[N_POINTS]) {
    const tune_point points[N_POINTS] = {
        point(0, 0, 9.0, 20, 9000, 10, 1),       /* full attention: best, and out of the choice */
        point(4, 64, 10.0, 20, 400, 100, 10),    /* the lowest perplexity of all CCA */
        point(8, 64, 10.1, 20, 200, 200, 20),    /* a per cent more, half the cache */
        point(8, 256, 10.2, 20, 210, 190, 19.5), /* beaten by 8, 64 */
        point(16, 64, 10.3, 15, 100, 400, 40),
        point(16, 256, 10.5, 15, 100, 415, 39), /* beaten: speeds within 5 % */
        point(64, 64, 12.0, 3, 25, 399, 41),
    };
    memcpy(out, points, sizeof points);
}

static void test_pareto(void **state) {
    const bool wanted[N_POINTS] = {false, true, true, false, true, false, true};
    tune_point points[N_POINTS];
    (void)state;
    make_points(points);
    tune_mark_pareto(points, N_POINTS);
    for (int i = 0; i < N_POINTS; i++) assert_int_equal(points[i].pareto, wanted[i]);

    points[5].decode_tps = 45; /* now it is the fastest at decode: beaten no more */
    tune_mark_pareto(points, N_POINTS);
    assert_true(points[5].pareto);
    points[5].measured = false;
    tune_mark_pareto(points, N_POINTS);
    assert_false(points[5].pareto);

    tune_point twins[] = {point(4, 8, 5, 20, 10, 1, 1), point(4, 16, 5, 20, 10, 1, 1)};
    tune_mark_pareto(twins, 2); /* equal points do not beat each other */
    assert_true(twins[0].pareto && twins[1].pareto);
    twins[1].n_right = 19;
    tune_mark_pareto(twins, 2);
    assert_true(twins[0].pareto && !twins[1].pareto);
}

static void expect_choice(tune_limits l, int64_t g, int64_t s) {
    tune_point points[N_POINTS];
    make_points(points);
    const tune_point *choice = tune_choose(points, N_POINTS, &l);
    assert_true(tune_has_limits(&l));
    assert_non_null(choice);
    assert_int_equal(choice->group_size, g);
    assert_int_equal(choice->window_size, s);
    int n_chosen = 0;
    for (int i = 0; i < N_POINTS; i++) n_chosen += points[i].chosen;
    assert_true(choice->chosen && n_chosen == 1);
}

static void expect_none(tune_limits l) {
    tune_point points[N_POINTS];
    make_points(points);
    assert_null(tune_choose(points, N_POINTS, &l));
}

static void test_choice(void **state) {
    (void)state;
    assert_false(tune_has_limits(&(tune_limits){.against_full = true}));
    /* A limit of perplexity takes the smallest cache within it, the limit included. */
    expect_choice((tune_limits){.has_ppl_increase = true, .ppl_increase = 0}, 4, 64);
    expect_choice((tune_limits){.has_ppl_increase = true, .ppl_increase = 1.01}, 8, 64);
    expect_choice((tune_limits){.has_ppl_increase = true, .ppl_increase = 3.01}, 16, 64);
    expect_choice((tune_limits){.has_ppl_increase = true, .ppl_increase = 5.01}, 16, 64);
    expect_choice((tune_limits){.has_ppl_increase = true, .ppl_increase = 100}, 64, 64);
    expect_choice((tune_limits){.has_ppl_increase = true, .ppl_increase = 100, .min_facts = 75}, 16,
                  64);
    expect_choice((tune_limits){.has_ppl_increase = true, .ppl_increase = 100, .min_facts = 76}, 8,
                  64);
    /* Against full attention the same points are further away. */
    expect_choice((tune_limits){.has_ppl_increase = true, .ppl_increase = 12, .against_full = true},
                  4, 64);
    expect_none((tune_limits){.has_ppl_increase = true, .ppl_increase = 11, .against_full = true});
    /* A time: of the document and what is decoded behind it; or of full attention's, 910 seconds.
     */
    expect_choice((tune_limits){.max_seconds = 100}, 4, 64);
    expect_choice((tune_limits){.max_seconds = 99}, 8, 64);
    expect_choice((tune_limits){.max_share = 0.061}, 8, 64);
    expect_choice((tune_limits){.max_share = 0.06}, 16, 64);
    expect_none((tune_limits){.max_share = 0.02});
    expect_none((tune_limits){.max_seconds = 20});
    tune_point no_full = point(4, 8, 5, 20, 10, 1, 1);
    assert_null(tune_choose(&no_full, 1, &(tune_limits){.max_share = 100}));
    /* The others take the lowest perplexity. */
    expect_choice((tune_limits){.memory = 1200}, 8, 64);
    expect_choice((tune_limits){.memory = 1199}, 16, 64);
    expect_choice((tune_limits){.min_tps = 19.9}, 8, 64);
    expect_choice((tune_limits){.min_tps = 40.5}, 64, 64);
    expect_choice((tune_limits){.min_facts = 50}, 4, 64);
    expect_none((tune_limits){.min_tps = 42});
    expect_none((tune_limits){.memory = 1199, .min_facts = 90});

    tune_point twins[] = {point(4, 16, 5, 20, 10, 1, 1), point(4, 8, 5, 20, 9, 1, 1)};
    assert_int_equal(tune_choose(twins, 2, &(tune_limits){.min_tps = 1})->window_size, 8);
    twins[0].perplexity = 4.99, twins[0].cache_bytes = 9;
    tune_limits l = {.has_ppl_increase = true, .ppl_increase = 1};
    assert_int_equal(tune_choose(twins, 2, &l)->window_size, 16);
    assert_int_equal(tune_reference(twins, 2, false)->window_size, 16);
    assert_null(tune_reference(twins, 2, true));

    /* Of equal caches the faster one, and of equal times the better. */
    tune_point recalls[] = {point(16, 64, 5, 20, 10, 100, 1), point(16, 64, 4.98, 20, 10, 96, 1),
                            point(16, 64, 4.97, 20, 10, 80, 1)};
    assert_ptr_equal(tune_choose(recalls, 3, &l), &recalls[1]);
    assert_ptr_equal(tune_choose(recalls, 3, &(tune_limits){.min_tps = 1}), &recalls[2]);
}

/* ---- facts ---- */

/* A point whose perplexity is no number: neither the measure of others nor chosen. */
static void test_not_a_number(void **state) {
    (void)state;
    const double odd[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        tune_point points[] = {point(4, 8, odd[i], 20, 10, 100, 100), point(4, 16, 5, 20, 20, 1, 1),
                               point(4, 32, 6, 20, 15, 1, 1)};
        tune_limits l = {.has_ppl_increase = true, .ppl_increase = 10};
        assert_ptr_equal(tune_reference(points, 3, false), &points[1]);
        assert_ptr_equal(tune_choose(points, 3, &l), &points[1]);
        l = (tune_limits){.min_tps = 0.5};
        assert_ptr_equal(tune_choose(points, 3, &l), &points[1]);
        tune_mark_pareto(points, 3);
        assert_true(!points[0].pareto && points[1].pareto && points[2].pareto);
    }
}

static void test_facts(void **state) {
    static tune_fact facts[TUNE_MOST_FACTS], again[TUNE_MOST_FACTS];
    (void)state;
    tune_make_facts(facts, TUNE_MOST_FACTS);
    tune_make_facts(again, 3);
    assert_memory_equal(facts, again, 3 * sizeof *facts);
    assert_string_equal(facts[0].statement, "The secret code of the hollow chapel is 48213.");
    assert_string_equal(facts[0].question, "What is the secret code of the hollow chapel?");
    for (int i = 0; i < TUNE_MOST_FACTS; i++) {
        assert_int_equal(strlen(facts[i].code), 5);
        assert_non_null(strstr(facts[i].statement, facts[i].code));
        assert_null(strstr(facts[i].question, facts[i].code));
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(facts[i].code, facts[k].code);
            assert_string_not_equal(facts[i].question, facts[k].question);
        }
    }
}

static void test_right(void **state) {
    const tune_fact fact = {.code = "48213"};
    const struct {
        const char *given;
        bool right;
    } all[] = {{"48213", true},
               {" The code is 48213.", true},
               {"148213 or 48213", true},
               {"482130", false},
               {"148213", false},
               {"4821", false},
               {"", false},
               {"48 213", false},
               {"48213", true}};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_int_equal(tune_is_right(&fact, all[i].given, strlen(all[i].given)), all[i].right);
    }
}

static void expect_planted(const char *text, size_t size, int n, const char *wanted) {
    tune_fact facts[4] = {{.statement = "F0."}, {.statement = "F1."}, {.statement = "F2."}};
    input_text in = {0}, out = {0};
    assert_true(text_append(&in.text, text, strlen(text)));
    assert_int_equal(tune_plant_facts(&out, &in, size, facts, n, NULL), CCA_OK);
    if (out.text.size != strlen(wanted) || memcmp(out.text.bytes, wanted, out.text.size) != 0) {
        fail_msg("%.*s", (int)out.text.size, out.text.bytes);
    }
    input_free(&in);
    input_free(&out);
}

static void test_planting(void **state) {
    (void)state;
    /* Half of the text is 8 bytes; the next paragraph begins at 12, before it a sentence at 10. */
    expect_planted("aaaa bb. c\n\nd. eee", 18, 1, "aaaa bb. c\n\nF0.\n\nd. eee");
    expect_planted("aaaa bbbb c.\td eee", 18, 1, "aaaa bbbb c.\tF0. d eee");
    expect_planted("aaaa bbbb cc\nd eee", 18, 1, "aaaa bbbb cc\nF0.\nd eee");
    expect_planted("aaaa bbbb cc d eee", 18, 1, "aaaa bbbb F0. cc d eee");
    expect_planted("\303\244\303\244\303\244", 6, 1, "\303\244\303\244 F0. \303\244");
    /* Only the first bytes; a fact for each third of them. */
    expect_planted("a b c d e f g h i j k l", 12, 3, "a F0. b c F1. d e F2. f ");
    expect_planted("a b", 3, 0, "a b");
}

/* Offsets of bytes that are no UTF-8 move with the text. */
static void test_planting_bad_bytes(void **state) {
    size_t bad[] = {1, 9, 11};
    tune_fact fact = {.statement = "F."};
    input_text in = {.bad = bad, .n_bad = 3}, out = {0};
    (void)state;
    assert_true(text_append(&in.text, "a\377 bb cc \376\375\374 dd", 15));
    in.text.bytes[9] = '\376', in.text.bytes[11] = '\374';
    assert_int_equal(tune_plant_facts(&out, &in, 11, &fact, 1, NULL), CCA_OK);
    assert_int_equal(out.n_bad, 2); /* the third lies behind the part that is taken */
    for (size_t i = 0; i < out.n_bad; i++) {
        assert_int_equal(out.text.bytes[out.bad[i]], in.text.bytes[bad[i]]);
    }
    text_free(&in.text);
    input_free(&out);
}

/* ---- the state ---- */

static void open_state(tune_state *s, const char *path, const char *signature, cca_status status) {
    term t = {.quiet = true};
    cca_error err;
    assert_int_equal(tune_state_open(s, path, signature, &t, &err), status);
    if (status == CCA_BAD_MODEL && strcmp(signature, "a=1 b=3 c=4") == 0) {
        assert_non_null(strstr(err.text, "measured with b=2, this run has b=3"));
    }
}

static void test_state(void **state) {
    char path[] = "/tmp/test_tune_XXXXXX";
    term t = {.quiet = true};
    tune_state s;
    (void)state;
    close(mkstemp(path));
    unlink(path);
    tune_point p = point(8, 64, 1.0 / 3, 17, 5, 1e3 / 7, 3), q = point(8, 128, 2, 1, 5, 2, 3);
    p.sinks = 8, p.recall = 2048;
    p.n_scored = 99;
    p.standard_error = 0.1;
    open_state(&s, path, "a=1 b=2 c=4", CCA_OK);
    assert_false(tune_state_find(&s, &p));
    assert_int_equal(tune_state_add(&s, &p, &t, NULL), CCA_OK);
    assert_int_equal(tune_state_add(&s, &q, &t, NULL), CCA_OK);
    tune_state_close(&s);

    open_state(&s, path, "a=1 b=2 c=4", CCA_OK);
    const tune_point attention = {.group_size = 8, .window_size = 64, .sinks = 8, .recall = 2048};
    tune_point found = attention;
    assert_true(tune_state_find(&s, &found) && found.measured && found.reused);
    assert_true(found.perplexity == p.perplexity && found.prefill_tps == p.prefill_tps);
    assert_true(found.standard_error == 0.1 && found.decode_tps == 3);
    assert_int_equal(found.n_scored, 99);
    assert_int_equal(found.n_right, 17);
    assert_int_equal(found.n_facts, 20);
    for (int i = 0; i < 5; i++) { /* each of what makes a point tells points apart */
        tune_point none = attention;
        none.group_size += i == 0;
        none.window_size += i == 1;
        none.sinks += i == 2;
        none.recall += i == 3;
        none.cores = i == 4;
        assert_false(tune_state_find(&s, &none));
    }
    tune_state_close(&s);

    open_state(&s, path, "a=1 b=3 c=4", CCA_BAD_MODEL);
    tune_state_close(&s);
    FILE *file = fopen(path, "w");
    fputs("{\"schema\": \"cca.tune.state.2\"}", file);
    fclose(file);
    open_state(&s, path, "a=1", CCA_BAD_MODEL);
    tune_state_close(&s);
    file = fopen(path, "w");
    fputs("{\"schema\": \"cca.tune.state.1\", \"signature\": \"a=1\", \"points\": []}", file);
    fclose(file);
    cca_error err;
    assert_int_equal(tune_state_open(&s, path, "a=1", &t, &err), CCA_BAD_MODEL);
    assert_non_null(strstr(err.text, "a state of kind cca.tune.state.1, this program's are "));
    tune_state_close(&s);
    unlink(path);
}

/* ---- speeds ---- */

static void test_stats(void **state) {
    double three[] = {4, 1, 2}, two[] = {1, 4}, one[] = {2};
    (void)state;
    measure_stats s = measure_stats_of(three, 3, 8); /* 2, 8 and 4 tokens a second */
    assert_true(s.median == 4 && s.n == 3);
    test_below(fabs(s.mean - 14.0 / 3), 1e-12, "mean");
    test_below(fabs(s.sd - sqrt(28.0 / 3)), 1e-12, "standard deviation of the sample");
    assert_true(measure_stats_of(two, 2, 5).median == 2); /* of the time between the two */
    assert_true(measure_stats_of(one, 1, 5).sd == 0);
}

static void test_lists(void **state) {
    size_list l = {0};
    cca_error err;
    (void)state;
    assert_int_equal(size_list_parse(&l, "depth", "512,0,64", &err), CCA_OK);
    assert_int_equal(l.n, 3);
    assert_true(l.sizes[0] == 0 && l.sizes[1] == 64 && size_list_largest(&l) == 512);
    const char *const bad[] = {"", "1,", "x", "-1", "1;2", "99999999999", "1 "};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(size_list_parse(&(size_list){0}, "depth", bad[i], &err), CCA_USAGE);
    }
    assert_non_null(strstr(err.text, "--depth 1 :"));
}

/* ---- pictures ---- */

static void expect_round(double low, double high, double step, double to_low, double to_high) {
    svg_scale s = {.low = low, .high = high, .from = 0, .to = 1};
    double found = svg_round(&s, 7);
    if (fabs(found - step) > 1e-9 || fabs(s.low - to_low) > 1e-9 || fabs(s.high - to_high) > 1e-9) {
        fail_msg("step %g, %g … %g", found, s.low, s.high);
    }
}

static void test_scales(void **state) {
    (void)state;
    expect_round(51.3, 56.2, 1, 51, 57);
    expect_round(0, 100, 20, 0, 100);
    expect_round(10, 100, 20, 0, 100);
    expect_round(3, 17, 5, 0, 20);
    expect_round(5, 5, 0.0002, 5, 5.0002);
    svg_scale x = {.low = 20, .high = 900, .from = 0, .to = 100, .is_log = true};
    svg_round(&x, 0);
    assert_true(x.low == 10 && x.high == 1000);
    test_below(fabs(svg_place(&x, 100) - 50), 1e-9, "the middle of two powers of ten");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pareto),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_right),
        cmocka_unit_test(test_planting),
        cmocka_unit_test(test_planting_bad_bytes),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
