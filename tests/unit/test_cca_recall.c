/* Sinks and recall through the cache: against the definition, in any cut, and what must not change
 * a bit of them. */
#include "tests/unit/attention_oracle.h"

static void sinks_and_recall_are_those_of_the_definition(void **state) {
    (void)state;
    sequence seq = random_sequence(11);
    static const setup all[] = {
        {.g = 4, .s = 16, .sinks = 4},
        {.g = 4, .s = 16, .sinks = 8, .no_cores = true},
        {.g = 16, .s = 64, .sinks = 16},
        {.g = 5, .s = 20, .sinks = 5, .recall = 15},
        {.g = 4, .s = 16, .sinks = 4, .recall = 20, .tile = 16},
        {.g = 4, .s = 16, .sinks = 8, .recall = 20, .tile = 32, .no_cores = true},
        {.g = 1, .s = 16, .recall = 30, .tile = 8, .no_cores = true},
        {.g = 16, .s = 32, .recall = 32, .tile = 64},
        {.g = 4, .s = 160, .sinks = 4, .recall = 16, .tile = 16}, /* all in the window */
        {.g = 1, .s = 16, .recall = 8, .tile = 8, .no_cores = true, .levels_from = 40},
        {.g = 2, .s = 8, .sinks = 4, .recall = 6, .tile = 16, .levels_from = 20},
    };
    static const int cuts[][2] = {{1, 0}, {7, 0}, {64, 0}, {150, 0}, {31, 93}, {150, 149}};
    for (size_t c = 0; c < sizeof all / sizeof *all; c++) {
        for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
            static float want[N], got[N];
            setup t = all[c];
            t.chunk = cuts[i][0], t.prefill = cuts[i][1];
            attend_by_definition(want, &seq, &t);
            memset(got, 0xff, sizeof got);
            attend_by_cache(got, &seq, &t);
            char what[64];
            snprintf(what, sizeof what, "setup %d, chunk %d, prefill %d", (int)c, t.chunk,
                     t.prefill);
            test_below(cca_distance(got, want, N), 1e-6, what);
        }
    }
}

static void budgets_of_nothing_and_everything(void **state) {
    (void)state;
    sequence seq = random_sequence(12);
    static float cca[N], full[N], got[N];
    static const cca_dtype types[] = {CCA_F32, CCA_BF16};
    for (int i = 0; i < 2; i++) {
        setup t = {.g = 4, .s = 16, .chunk = 33, .type = types[i], .prefill = 120};
        setup whole = {.attn = CCA_ATTN_FULL, .g = 1, .s = 1, .chunk = 64, .type = types[i]};
        attend_by_cache(cca, &seq, &t);
        t.tile = 16;
        attend_by_cache(got, &seq, &t);
        assert_memory_equal(got, cca, sizeof cca);
        attend_by_cache(full, &seq, &whole);
        for (int sinks = 0; sinks <= 8; sinks += 4) {
            t.recall = 160, t.sinks = sinks, t.no_cores = sinks == 4;
            attend_by_cache(got, &seq, &t);
            test_below(cca_distance(got, full, N), i == 0 ? 1e-5 : 4e-3, "budget of everything");
        }
        t.recall = 20, t.sinks = 4, t.no_cores = false;
        attend_by_cache(got, &seq, &t);
        assert_true(cca_distance(got, full, N) > 1e-2 && cca_distance(got, cca, N) > 1e-2);
    }
}

/* Tiles are cut where calls are: at multiples of the tile nothing changes. */
static void chunks_and_threads_do_not_change_what_is_recalled(void **state) {
    (void)state;
    sequence seq = random_sequence(13);
    static const cca_dtype types[] = {CCA_F32, CCA_F16, CCA_BF16, CCA_Q8_0};
    static const int chunks[] = {16, 32, 48, 160};
    for (int i = 0; i < 4; i++) {
        for (int no_cores = 0; no_cores < 2; no_cores++) {
            static float one[N], many[N];
            setup t = {.g = 4,
                       .s = 16,
                       .sinks = 4,
                       .recall = 20,
                       .tile = 16,
                       .chunk = 150,
                       .type = types[i]};
            t.no_cores = no_cores;
            if (i == 1) t.g = 1, t.recall = 8, t.levels_from = 40;
            attend_by_cache(one, &seq, &t);
            for (int c = 0; c < 4; c++) {
                for (t.n_threads = 1; t.n_threads <= 3; t.n_threads++) {
                    t.chunk = chunks[c];
                    attend_by_cache(many, &seq, &t);
                    assert_memory_equal(one, many, sizeof one);
                }
            }
        }
    }
}

/* With tile 1 no query depends on a later token, and chunks are as good as one token at a time.
 * With larger tiles none depends on what lies behind its tile. */
static void recall_is_causal(void **state) {
    (void)state;
    enum { SAME = 77 };
    sequence seq = random_sequence(14), other = random_sequence(15);
    memcpy(other.q, seq.q, sizeof *seq.q * SAME * HEADS * HD);
    memcpy(other.k, seq.k, sizeof *seq.k * SAME * KV_HEADS * HD);
    memcpy(other.v, seq.v, sizeof *seq.v * SAME * KV_HEADS * HD);
    static float all[N], changed[N], decoded[N];
    for (int no_cores = 0; no_cores < 2; no_cores++) {
        for (int tile = 1; tile <= 32; tile *= 8) {
            setup t = {.g = 4, .s = 16, .sinks = 4, .recall = 20, .tile = tile, .chunk = 150};
            t.no_cores = no_cores;
            attend_by_cache(all, &seq, &t);
            attend_by_cache(changed, &other, &t);
            size_t same = (size_t)(SAME / tile * tile) * HEADS * HD;
            assert_memory_equal(all, changed, same * sizeof *all);
            if (tile > 1) continue;
            t.prefill = 1;
            attend_by_cache(decoded, &seq, &t);
            test_below(cca_distance(decoded, all, N), 1e-5, "decode");
        }
    }
}

/* The last queries of a prompt choose each for itself, as they do one at a time. */
static void queries_choose_alone(void **state) {
    (void)state;
    enum { ALONE = 64, REST = LENGTH - ALONE };
    sequence seq = random_sequence(16);
    static float got[N], want[N];
    setup t = {
        .g = 4, .s = 16, .sinks = 4, .recall = 20, .tile = 16, .chunk = 128, .prefill = REST};
    attend_by_definition(want, &seq, &t);
    opened o = open_cache(&t);
    attend_call(&o, got, &seq, 0, REST);
    cca_cache_choose_alone(o.cache, true);
    attend_call(&o, got, &seq, REST, ALONE);
    test_below(cca_distance(got, want, N), 1e-6, "alone");
    cca_cache_choose_alone(o.cache, false); /* and again in tiles */
    attend_call(&o, got, &seq, REST, ALONE);
    t.prefill = 0, t.chunk = REST;
    attend_by_definition(want, &seq, &t);
    test_below(cca_distance(got, want, N), 1e-6, "together");
    close_cache(&o);
}

/* ---- states that are kept ---------------------------------------------------------------- */

static const setup kept[] = {
    {.g = 4, .s = 16, .chunk = 23, .prefill = 120},
    {.g = 4, .s = 16, .sinks = 8, .chunk = 23, .prefill = 120},
    {.g = 4, .s = 16, .sinks = 8, .no_cores = true, .chunk = 23, .prefill = 120},
    {.attn = CCA_ATTN_SINKS, .g = 4, .s = 16, .sinks = 6, .chunk = 23, .prefill = 120},
    {.attn = CCA_ATTN_FULL, .g = 1, .s = 1, .chunk = 23, .prefill = 120},
    {.g = 4, .s = 16, .sinks = 4, .recall = 20, .tile = 16, .chunk = 32, .prefill = 120},
    {.g = 5, .s = 20, .recall = 20, .tile = 8, .no_cores = true, .chunk = 32, .prefill = 120},
    {.g = 4, .s = 16, .sinks = 4, .recall = 20, .chunk = 23, .type = CCA_Q8_0, .prefill = 120},
    {.g = 1, .s = 16, .recall = 8, .tile = 8, .chunk = 32, .levels_from = 40, .prefill = 120},
};

/* Where calls begin; one within the sinks. */
static const int marks[] = {3, 46, 96, 121, 137};

/* One call after the other as far as end, of which one ends at a mark. */
static void attend_part(opened *o, float *out, const sequence *seq, const setup *t, int pos,
                        int end) {
    for (int n; pos < end; pos += n) {
        n = min_of(call_at(t, pos), end - pos);
        attend_call(o, out, seq, pos, n);
    }
}

static void rewinding_gives_the_same_bits(void **state) {
    (void)state;
    sequence seq = random_sequence(17), other = random_sequence(18);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        for (size_t m = 0; m < sizeof marks / sizeof *marks; m++) {
            static float want[N], got[N];
            cca_error err;
            opened o = open_cache(&kept[i]);
            attend_part(&o, want, &seq, &kept[i], 0, marks[m]);
            assert_int_equal(cca_cache_mark(o.cache, marks[m], &err), CCA_OK);
            attend_rest(&o, want, &seq, &kept[i], marks[m]);
            for (int again = 0; again < 2; again++) {
                assert_int_equal(cca_cache_rewind(o.cache, marks[m], &err), CCA_OK);
                attend_part(&o, got, &other, &kept[i], marks[m], 140);
                assert_int_equal(cca_cache_rewind(o.cache, marks[m], &err), CCA_OK);
                attend_rest(&o, got, &seq, &kept[i], marks[m]);
                size_t from = (size_t)marks[m] * HEADS * HD;
                assert_memory_equal(got + from, want + from, sizeof want - from * sizeof *want);
            }
            close_cache(&o);
        }
    }
}

/* Copies one part of a state, kept rows in pieces as a state that grows stores them. */
static void copy_part(opened *to, const opened *from, cca_part part, int n_tokens) {
    int64_t n = cca_cache_part_rows(from->cache, part, n_tokens);
    int64_t first = part == CCA_PART_WINDOW ? n_tokens - n : 0, end = first + n;
    int64_t most = part == CCA_PART_WINDOW ? n : 11;
    for (int64_t some; first < end; first += some) {
        some = cca_min(most, end - first);
        size_t bytes = cca_cache_part_bytes(from->cache, part, first, some);
        char *rows = malloc(bytes + 1);
        assert_non_null(rows);
        rows[bytes] = 77;
        for (int layer = 0; layer < LAYERS; layer++) {
            cca_cache_get(from->cache, part, layer, first, some, rows);
            cca_cache_put(to->cache, part, layer, first, some, rows);
        }
        assert_int_equal(rows[bytes], 77);
        free(rows);
    }
}

static void stored_states_go_on_with_the_same_bits(void **state) {
    (void)state;
    sequence seq = random_sequence(19), other = random_sequence(20);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        for (size_t m = 0; m < sizeof marks / sizeof *marks; m++) {
            static float want[N], got[N];
            opened one = open_cache(&kept[i]), two = open_cache(&kept[i]);
            attend_part(&one, want, &seq, &kept[i], 0, marks[m]);
            attend_rest(&two, got, &other, &kept[i], 0); /* something else */
            for (int part = CCA_PART_KEPT; part <= CCA_PART_WINDOW; part++) {
                copy_part(&two, &one, (cca_part)part, marks[m]);
            }
            attend_rest(&one, want, &seq, &kept[i], marks[m]);
            attend_rest(&two, got, &seq, &kept[i], marks[m]);
            size_t from = (size_t)marks[m] * HEADS * HD;
            assert_memory_equal(got + from, want + from, sizeof want - from * sizeof *want);
            close_cache(&one), close_cache(&two);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sinks_and_recall_are_those_of_the_definition),
        cmocka_unit_test(budgets_of_nothing_and_everything),
        cmocka_unit_test(chunks_and_threads_do_not_change_what_is_recalled),
        cmocka_unit_test(recall_is_causal),
        cmocka_unit_test(queries_choose_alone),
        cmocka_unit_test(rewinding_gives_the_same_bits),
        cmocka_unit_test(stored_states_go_on_with_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
