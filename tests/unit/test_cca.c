/* The cache and its attention against the definition, computed in double on whole sequences: any
 * cut into chunks, any number of threads, each kind of attention. */
#include "backend/cpu/mass.h"
#include "tests/unit/attention_oracle.h"

/* Watches the last token of each call from position 90 on, in slots that are cut. on_host: as by a
 * device that has no operation of its own. */
static int watch_cut(float *sums, int *queries, int n_slots, const int64_t *cuts, int64_t n_cuts,
                     const sequence *seq, const setup *t, bool on_host) {
    static float out[N];
    int n_queries = 0;
    opened o = open_cache(t);
    cca_ops ops = *o.b->ops;
    if (on_host) ops.mass = cca_mass_on_host;
    o.b->ops = &ops;
    cca_mass mass = {sums, n_slots, cca_cache_unit(&o.policy), cuts, n_cuts};
    for (int pos = 0, n; pos < LENGTH; pos += n) {
        n = call_at(t, pos);
        bool watched = pos + n > 90;
        cca_cache_watch(o.cache, watched ? &mass : NULL, 1);
        attend_call(&o, out, seq, pos, n);
        if (watched) queries[n_queries++] = pos + n - 1;
    }
    close_cache(&o);
    return n_queries;
}

static int watch_by_cache(float *sums, int *queries, int n_slots, const sequence *seq,
                          const setup *t, bool on_host) {
    return watch_cut(sums, queries, n_slots, NULL, 0, seq, t, on_host);
}

static void every_cut_equals_the_definition(void **state) {
    (void)state;
    sequence seq = random_sequence(1);
    static const int shapes[][2] = {{1, 1}, {1, 16}, {4, 4}, {4, 16}, {5, 20}, {16, 64}, {16, 160}};
    static const cca_attn kinds[] = {CCA_ATTN_CCA, CCA_ATTN_FULL,   CCA_ATTN_MEAN,
                                     CCA_ATTN_MAX, CCA_ATTN_WINDOW, CCA_ATTN_SINKS};
    for (size_t a = 0; a < sizeof kinds / sizeof *kinds; a++) {
        for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
            static float want[N], got[N];
            setup t = {.attn = kinds[a],
                       .g = shapes[c][0],
                       .s = shapes[c][1],
                       .sinks = kinds[a] == CCA_ATTN_SINKS ? 6 : 0};
            attend_by_definition(want, &seq, &t);
            static const int cuts[][2] = {{1, 0}, {7, 0}, {64, 0}, {150, 0}, {31, 93}, {150, 149}};
            for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
                t.chunk = cuts[i][0], t.prefill = cuts[i][1];
                memset(got, 0xff, sizeof got);
                attend_by_cache(got, &seq, &t);
                char what[64];
                snprintf(what, sizeof what, "kind %d, g %d, s %d, chunk %d, prefill %d", t.attn,
                         t.g, t.s, t.chunk, t.prefill);
                test_below(cca_distance(got, want, N), 1e-6, what);
            }
        }
    }
}

static void attention_watched_is_that_of_the_definition(void **state) {
    (void)state;
    enum { SLOTS = LENGTH }; /* enough for any unit */
    sequence seq = random_sequence(5);
    static const struct {
        setup t;
        int unit;
    } all[] = {
        {{.g = 4, .s = 16, .chunk = 64}, 4},
        {{.g = 5, .s = 20, .chunk = 7}, 5},
        {{.g = 16, .s = 160, .chunk = 31}, 16}, /* all raw */
        {{.attn = CCA_ATTN_FULL, .g = 1, .s = 1, .chunk = 64}, 16},
        {{.attn = CCA_ATTN_WINDOW, .g = 4, .s = 16, .chunk = 64}, 16},
        {{.attn = CCA_ATTN_SINKS, .g = 4, .s = 16, .sinks = 6, .chunk = 64}, 16},
        {{.g = 4, .s = 16, .sinks = 8, .chunk = 7}, 4},
        {{.g = 4, .s = 16, .sinks = 4, .recall = 20, .tile = 8, .chunk = 29}, 4},
        {{.g = 5, .s = 20, .recall = 20, .tile = 16, .no_cores = true, .chunk = 64}, 16},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        setup t = all[i].t;
        t.prefill = 100;
        for (int on_host = 0; on_host < 2; on_host++) {
            static float got[2 * HEADS * SLOTS], want[HEADS * SLOTS];
            static double sums[HEADS * SLOTS];
            int queries[LENGTH];
            memset(got, 0, sizeof got);
            int n = watch_by_cache(got, queries, SLOTS, &seq, &t, on_host);
            assert_true(n > 50); /* the chunk that ends the prefill, and each token behind */
            mass_by_definition(sums, SLOTS, all[i].unit, &seq, &t, queries, n);
            for (int h = 0; h < HEADS; h++) {
                double total = 0;
                for (int k = 0; k < SLOTS; k++) total += got[h * SLOTS + k];
                test_below(fabs(total - n), 1e-4, "probabilities add up to 1");
            }
            for (int k = 0; k < HEADS * SLOTS; k++) want[k] = (float)sums[k];
            test_below(cca_distance(got, want, HEADS * SLOTS), 1e-6, "attention watched");
            assert_memory_equal(got, got + HEADS * SLOTS,
                                sizeof want); /* the layers have their own */
        }
    }
}

/* Rows that are seen raw count in their own part of a slot, to the token. */
static void raw_rows_are_watched_to_the_token(void **state) {
    (void)state;
    enum { UNIT = 16, SLOTS = LENGTH / UNIT + 5 };
    static const int64_t cuts[] = {1, 21, 23, 149},
                         begins[SLOTS + 1] = {0,  1,  16,  21,  23,  32,  48, 64,
                                              80, 96, 112, 128, 144, 149, 160};
    static const setup all[] = {
        {.attn = CCA_ATTN_CCA,
         .g = 4,
         .s = 16,
         .sinks = 4,
         .recall = 40,
         .tile = 1,
         .no_cores = true,
         .chunk = 31,
         .prefill = 90},
        {.attn = CCA_ATTN_FULL, .g = 1, .s = 1, .chunk = 64, .prefill = 100},
    };
    sequence seq = random_sequence(4);
    for (int i = 0; i < 4; i++) { /* each on the host, too */
        static float got[2 * HEADS * SLOTS], want[HEADS * SLOTS];
        static double by_token[HEADS * LENGTH];
        int queries[LENGTH];
        const setup *t = &all[i / 2];
        memset(got, 0, sizeof got);
        memset(want, 0, sizeof want);
        int n = watch_cut(got, queries, SLOTS, cuts, 4, &seq, t, i % 2);
        mass_by_definition(by_token, LENGTH, 1, &seq, t, queries, n);
        for (int h = 0; h < HEADS; h++) {
            for (int slot = 0; slot < SLOTS; slot++) {
                double sum = 0;
                for (int64_t pos = begins[slot]; pos < begins[slot + 1] && pos < LENGTH; pos++) {
                    sum += by_token[h * LENGTH + pos];
                }
                want[h * SLOTS + slot] = (float)sum;
            }
        }
        test_below(cca_distance(got, want, HEADS * SLOTS), 1e-6, "cut slots");
    }
}

/* A core stands for all tokens of its group alike. */
static void cores_are_shared_out(void **state) {
    (void)state;
    enum { G = 4, SLOTS = LENGTH / G + 1 };
    static const int64_t cuts[] = {9, 14, 15};
    static float whole[2 * HEADS * SLOTS], cut[2 * HEADS * (SLOTS + 3)];
    int queries[LENGTH];
    sequence seq = random_sequence(5);
    setup t = {.attn = CCA_ATTN_CCA, .g = G, .s = 16, .chunk = 31, .prefill = 90};
    watch_by_cache(whole, queries, SLOTS, &seq, &t, false);
    watch_cut(cut, queries, SLOTS + 3, cuts, 3, &seq, &t, false);
    for (int h = 0; h < HEADS; h++) {
        const float *w = whole + h * SLOTS, *c = cut + h * (SLOTS + 3);
        const float want[] = {w[0],     w[1],     w[2] / 4, w[2] * 3 / 4,
                              w[3] / 2, w[3] / 4, w[3] / 4, w[4]};
        test_below(cca_distance(c, want, 8), 1e-6, "parts of cores");
        assert_memory_equal(c + 7, w + 4, sizeof *w * (SLOTS - 4));
    }
}

/* With keys rounded by the cache, and queries by its products. */
static void attention_over_rounded_keys_is_watched(void **state) {
    (void)state;
    enum { SLOTS = 10 };
    static const struct {
        cca_dtype type;
        double bound;
    } all[] = {{CCA_F16, 1e-4}, {CCA_BF16, 3e-3}, {CCA_Q8_0, 4e-3}};
    for (int i = 0; i < 3; i++) {
        sequence exact = random_sequence(6), rounded = exact;
        static uint16_t half[LENGTH * KV_HEADS * HD];
        cca_dtype_encode(half, all[i].type, rounded.k, LENGTH * KV_HEADS * HD);
        cca_dtype_decode(rounded.k, all[i].type, half, LENGTH * KV_HEADS * HD);
        float got[2 * HEADS * SLOTS] = {0}, want[HEADS * SLOTS];
        double sums[HEADS * SLOTS];
        int queries[LENGTH];
        setup t = {.attn = CCA_ATTN_FULL,
                   .g = 1,
                   .s = 1,
                   .chunk = 64,
                   .type = all[i].type,
                   .prefill = 100};
        int n = watch_by_cache(got, queries, SLOTS, &exact, &t, false);
        mass_by_definition(sums, SLOTS, 16, &rounded, &t, queries, n);
        for (int k = 0; k < HEADS * SLOTS; k++) want[k] = (float)sums[k];
        test_below(cca_distance(got, want, HEADS * SLOTS), all[i].bound, "rounded keys");
    }
}

static void group_size_one_is_full_attention(void **state) {
    (void)state;
    sequence seq = random_sequence(2);
    static float full[N], one[N], wide[N];
    attend_by_cache(full, &seq, &(setup){.attn = CCA_ATTN_FULL, .g = 1, .s = 1, .chunk = 64});
    attend_by_cache(one, &seq, &(setup){.g = 1, .s = 16, .chunk = 64});
    attend_by_cache(wide, &seq, &(setup){.g = 16, .s = 160, .chunk = 64});
    test_below(cca_distance(one, full, N), 1e-6, "g = 1");
    assert_memory_equal(wide, full, sizeof full); /* s ≥ length takes the same path */
}

/* The definition applied to rounded keys and values; what is left is the rounding of cores. */
static void caches_round_before_use(void **state) {
    (void)state;
    static const struct {
        cca_dtype type;
        double bound, no_cores; /* attention over bf16 may round queries and weights to bf16 */
    } types[] = {{CCA_BF16, 4e-3, 3e-3}, {CCA_F16, 3e-4, 1e-6}, {CCA_Q8_0, 9e-3, 4e-3}};
    for (int i = 0; i < 3; i++) {
        sequence exact = random_sequence(3), rounded = exact;
        uint16_t half[LENGTH * KV_HEADS * HD];
        float *parts[] = {rounded.k, rounded.v};
        for (int p = 0; p < 2; p++) {
            cca_dtype_encode(half, types[i].type, parts[p], LENGTH * KV_HEADS * HD);
            cca_dtype_decode(parts[p], types[i].type, half, LENGTH * KV_HEADS * HD);
        }
        static float want[N], got[N], cut[N], full[N];
        attend_by_definition(want, &rounded, &(setup){.g = 4, .s = 16});
        attend_by_cache(got, &exact, &(setup){.g = 4, .s = 16, .chunk = 64, .type = types[i].type});
        attend_by_cache(
            cut, &exact,
            &(setup){.g = 4, .s = 16, .chunk = 9, .type = types[i].type, .prefill = 70});
        test_below(cca_distance(got, want, N), types[i].bound, "rounded cache");
        test_below(cca_distance(cut, got, N), types[i].bound, "rounded cache, other cut");
        attend_by_definition(want, &rounded, &(setup){.attn = CCA_ATTN_FULL, .g = 1, .s = 1});
        attend_by_cache(
            full, &exact,
            &(setup){.attn = CCA_ATTN_FULL, .g = 1, .s = 1, .chunk = 64, .type = types[i].type});
        test_below(cca_distance(full, want, N), types[i].no_cores, "rounded cache, no cores");
    }
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    sequence seq = random_sequence(4);
    static const cca_dtype types[] = {CCA_F32, CCA_F16, CCA_BF16};
    for (int i = 0; i < 3; i++) {
        static float one[N], many[N];
        setup t = {.g = 4, .s = 16, .chunk = 40, .n_threads = 1, .type = types[i], .prefill = 100};
        attend_by_cache(one, &seq, &t);
        for (t.n_threads = 2; t.n_threads <= 5; t.n_threads++) {
            attend_by_cache(many, &seq, &t);
            assert_memory_equal(one, many, sizeof one);
        }
    }
}

/* Llama-2-7B at 131,072 positions: 4.3 GB of cores and 0.55 GB of window; at most 3 % over
 * the definition's 4.9 GB. Nothing is allocated. */
static void memory_is_that_of_the_definition(void **state) {
    (void)state;
    cca_error err;
    cca_policy policy, full, recall;
    cca_cache_size size;
    cca_cache_shape llama2 = {.n_layers = 32,
                              .n_heads = 32,
                              .n_kv_heads = 32,
                              .head_dim = 128,
                              .ctx_size = 131072,
                              .chunk_size = 512,
                              .k_type = CCA_BF16,
                              .v_type = CCA_BF16},
                    llama3 = llama2;
    llama3.n_kv_heads = 8;
    const setup cca = {.g = 16, .s = 1024}, all = {.attn = CCA_ATTN_FULL, .g = 16, .s = 1024};
    const setup some = {.g = 16, .s = 1024, .sinks = 16, .recall = 2048, .tile = 16};
    assert_int_equal(make_policy(&policy, &cca, &err), CCA_OK);
    assert_int_equal(make_policy(&full, &all, &err), CCA_OK);
    assert_int_equal(make_policy(&recall, &some, &err), CCA_OK);
    assert_int_equal(cca_cache_measure(&size, &llama2, &policy, &err), CCA_OK);
    assert_int_equal(size.cores, 2LL * 32 * 32 * 128 * 8192 * 2);
    assert_int_equal(size.window, 2LL * 32 * 32 * 128 * 1040 * 2);
    assert_true((double)(size.cores + size.window + size.scratch) < 1.03 * 4.9e9);
    assert_int_equal(cca_cache_measure(&size, &llama3, &policy, &err), CCA_OK);
    assert_true((double)(size.cores + size.window) < 1.03 * 4.45e9);
    assert_int_equal(cca_cache_measure(&size, &llama2, &full, &err), CCA_OK);
    assert_int_equal(size.cores + size.window, 2LL * 32 * 32 * 128 * 131072 * 2);
    /* With recall: all rows, bounds of 1/8 of the keys and of their blocks, cores where they are
     * kept. */
    assert_int_equal(cca_cache_measure(&size, &llama3, &recall, &err), CCA_OK);
    assert_int_equal(size.rows, 2LL * 32 * 8 * 128 * 131072 * 2);
    assert_int_equal(size.window, 0);
    assert_int_equal(size.bounds, size.rows / 2 / 8 / 16 * 17);
    assert_int_equal(size.cores, 2LL * 32 * 32 * 128 * 8192 * 2);
    assert_int_equal(size.mark, 0);
    assert_true(size.scratch < 1 << 20); /* what tiles choose */
    recall.rule.cores = false;
    assert_int_equal(cca_cache_measure(&size, &llama3, &recall, &err), CCA_OK);
    assert_int_equal(size.cores, 0);
    llama3.k_type = llama3.v_type = CCA_Q8_0;
    assert_int_equal(cca_cache_measure(&size, &llama3, &recall, &err), CCA_OK);
    assert_int_equal(size.rows, 2LL * 32 * 8 * 131072 * (128 / 32 * 34));
    assert_int_equal(size.bounds, 2LL * 32 * 8 * (8192 + 512) * 128 * 2); /* bf16 */
    llama3.k_type = llama3.v_type = CCA_BF16; /* rows of other types beside the window */
    llama3.rows_apart = true;
    llama3.row_k_type = CCA_Q8_0;
    llama3.row_v_type = CCA_Q4_0;
    assert_int_equal(cca_cache_measure(&size, &llama3, &recall, &err), CCA_OK);
    assert_int_equal(size.rows, 32LL * 8 * 131072 * (128 / 32) * (34 + 18));
    assert_int_equal(size.window, 2LL * 32 * 8 * 128 * (1040 + 16) * 2);
    llama3.rows_apart = false;
    llama3.k_type = llama3.v_type = CCA_Q8_0;
    /* Sinks cost their rows. */
    policy.rule.n_sinks = 16;
    assert_int_equal(cca_cache_measure(&size, &llama2, &policy, &err), CCA_OK);
    assert_int_equal(size.window, 2LL * 32 * 32 * 128 * (1040 + 16) * 2);
    assert_int_equal(size.bounds, 0);
    llama2.ctx_size = INT64_MAX / 8;
    assert_int_equal(cca_cache_measure(&size, &llama2, &full, &err), CCA_NO_MEMORY);
}

static void policies_that_make_no_sense_are_refused(void **state) {
    (void)state;
    cca_error err;
    cca_policy p;
    static const struct {
        setup t;
        const char *text;
    } all[] = {
        {{.g = 16, .s = 1000}, "the window (1000) is no multiple of the group size (16)"},
        {{.g = 0, .s = 16}, "at least 1"},
        {{.g = 16, .s = 0}, "at least 1"},
        {{.attn = CCA_ATTN_SINKS, .g = 16, .s = 64}, "attention sinks"},
        {{.g = 16, .s = 64, .sinks = 6}, "sinks: 6 is no multiple of the group size (16)"},
        {{.g = 16, .s = 64, .sinks = -16}, "sinks: -16"},
        {{.g = 16, .s = 64, .recall = 8}, "recall: 8 is no multiple of the group size (16)"},
        {{.g = 16, .s = 64, .recall = -16}, "recall: -16"},
        {{.g = 16, .s = 64, .recall = 16, .tile = 12}, "power of two"},
        {{.g = 16, .s = 64, .recall = 16, .tile = -8}, "power of two"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_int_equal(make_policy(&p, &all[i].t, &err), CCA_USAGE);
        if (!strstr(err.text, all[i].text)) fail_msg("%s", err.text);
    }
    assert_int_equal(make_policy(&p, &(setup){.g = 4, .s = 8, .tile = 16}, &err), CCA_OK);
    assert_int_equal(p.tile, 1); /* nothing is chosen */
    static const int tiles[][3] = {{32, 32, 64}, {9, 3, 16}, {32, 8, 16}, {16, 2, 8}, {96, 1, 1}};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(cca_policy_tile(tiles[i][0], tiles[i][1]), tiles[i][2]);
    }
}

/* The first failure sticks, later operations do nothing, an interruption is reported once. */
static void failures_stick(void **state) {
    (void)state;
    cca_error err;
    cca_backend *b;
    volatile sig_atomic_t stop = 0;
    cca_backend_options options = {.n_threads = 1, .stop = &stop};
    assert_int_equal(cca_backend_cpu(&b, &options, &err), CCA_OK);
    float x[4] = {1, 2, 3, 4}, w[2] = {1, 1}, y[4] = {9, 9, 9, 9};
    cca_matrix in = borrow(x, 2, 2), weight = borrow(w, 1, 2), out = borrow(y, 2, 2);
    stop = 1;
    cca_rmsnorm(b, &out, &in, 0, &weight, 0, 2);
    assert_true(y[0] == 9);
    assert_int_equal(cca_backend_sync(b, &err), CCA_INTERRUPTED);
    stop = 0;
    assert_int_equal(cca_backend_sync(b, &err), CCA_OK);
    cca_rmsnorm(b, &out, &in, 1, &weight, 0, 2); /* row 2 does not exist */
    cca_rmsnorm(b, &out, &in, 0, &weight, 0, 2);
    assert_true(y[0] == 9);
    assert_int_equal(cca_backend_sync(b, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "rmsnorm"));
    cca_backend_close(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_equals_the_definition),
        cmocka_unit_test(attention_watched_is_that_of_the_definition),
        cmocka_unit_test(raw_rows_are_watched_to_the_token),
        cmocka_unit_test(cores_are_shared_out),
        cmocka_unit_test(attention_over_rounded_keys_is_watched),
        cmocka_unit_test(group_size_one_is_full_attention),
        cmocka_unit_test(caches_round_before_use),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(memory_is_that_of_the_definition),
        cmocka_unit_test(policies_that_make_no_sense_are_refused),
        cmocka_unit_test(failures_stick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
