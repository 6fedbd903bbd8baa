/* Drafts against decode, all in f32: of tokens tried together, some right and the others taken
 * back, the right ones have the logits of decode, and what follows has them, too. Bounds are the
 * largest difference over the spread of a run's logits: 1e-5, as of decode in place of prefill;
 * 1e-3 where rows are rounded to f16, which sums in another order can turn. */
#include "tests/unit/recall_models.h"

enum { BEGIN = 5 }; /* tokens that are a prompt */

static cca_session *open_session(const subject *x, const cca_session_options *o) {
    cca_error err;
    cca_session *s;
    if (cca_session_new(&s, x->engine, o, &err) != CCA_OK) fail_msg("%s", err.text);
    return s;
}

static void eval(cca_session *s, const int32_t *ids, int64_t n) {
    cca_error err;
    if (cca_session_eval(s, ids, n, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
}

/* Tries n tokens from `at` on, the first n_right of them those of the text, and keeps these. Their
 * logits go to out. */
static void draft(cca_session *s, const subject *x, int64_t at, int64_t n, int64_t n_right,
                  float *out) {
    int32_t ids[1 + CCA_MOST_DRAFT];
    const float *logits;
    cca_error err;
    for (int64_t i = 0; i < n; i++) {
        int32_t right = x->m.tokens[cca_min(at + i, x->m.length - 1)];
        ids[i] = i < n_right ? right : (int32_t)((right + 1 + i) % x->vocab);
    }
    if (cca_session_draft(&logits, s, ids, n, &err) != CCA_OK) fail_msg("%s", err.text);
    assert_int_equal(cca_session_pos(s), at + n);
    memcpy(out, logits, logit_bytes(x, n_right));
    if (cca_session_accept(s, n_right, &err) != CCA_OK) fail_msg("%s", err.text);
    assert_int_equal(cca_session_pos(s), at + n_right);
    assert_memory_equal(cca_session_logits(s, &err), logits + (n_right - 1) * x->vocab,
                        logit_bytes(x, 1));
}

/* Evaluates tokens from the session's position to the end: a token, or a draft, of any length and
 * as right as random says; out (length, vocab). */
static void finish_in_drafts(cca_session *s, const subject *x, int64_t most, uint64_t *random,
                             float *out) {
    cca_error err;
    for (int64_t pos = cca_session_pos(s), n_right; pos < x->m.length; pos += n_right) {
        int64_t n = 1 + (int64_t)(cca_random_next(random) % (uint64_t)(1 + most));
        n_right = cca_min(1 + (int64_t)(cca_random_next(random) % (uint64_t)n), x->m.length - pos);
        float *logits = out + pos * x->vocab;
        if (n > 1) {
            n = cca_min(n, CTX - pos);
            draft(s, x, pos, n, n_right, logits);
        } else {
            eval(s, x->m.tokens + pos, 1);
            memcpy(logits, cca_session_logits(s, &err), logit_bytes(x, 1));
        }
    }
}

static float *run_in_drafts(const subject *x, cca_session_options o, int64_t most, uint64_t seed) {
    float *out = calloc(1, logit_bytes(x, x->m.length));
    assert_non_null(out);
    o.draft = most;
    cca_session *s = open_session(x, &o);
    eval(s, x->m.tokens, BEGIN);
    finish_in_drafts(s, x, most, &seed, out);
    cca_session_free(s);
    return out;
}

/* Of logits behind the prompt. */
static double distance(const subject *x, const float *a, const float *b) {
    int64_t skip = BEGIN * x->vocab;
    return cca_spread_difference(a + skip, b + skip, x->m.length * x->vocab - skip);
}

/* In drafts of any length, with the rows that an attention keeps, there are the logits of decode.
 */
static void check_drafts(const subject *x, const cca_session_options *o, const char *what,
                         double bound) {
    static const int64_t most[] = {1, 3, 7, 19, CCA_MOST_DRAFT};
    float *want = run(x->engine, o, x->m.tokens, x->m.length, 1);
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s, %s, drafts of %lld", x->m.name, what, (long long)most[i]);
        float *got = run_in_drafts(x, *o, most[i], 7 + i);
        test_below(distance(x, got, want), bound, name);
        free(got);
    }
    free(want);
}

static void drafts_equal_decode(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cpu");
        cca_session_options o = full_options();
        check_drafts(&x, &o, "full", 1e-5);
        check_drafts(&x, &x.options, "recall", 1e-5);
        o = x.options;
        o.attn = "cca", o.recall = o.recall_tile = CCA_AUTO;
        o.cores = CCA_CORES_AUTO;
        check_drafts(&x, &o, "cca", 1e-5);
        close_subject(&x);
    }
}

static void drafts_equal_decode_with_rows_apart(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cpu");
        cca_session_options o = x.options;
        o.row_type = "f16";
        if (x.m.recall > 0) check_drafts(&x, &o, "rows in f16", 1e-3);
        close_subject(&x);
    }
}

static void drafts_equal_decode_with_rows_on_disk(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i += 3) {
        subject x = open_subject(NAMES[i], 2, "cpu");
        cca_session_options o = x.options;
        o.rows_folder = "/tmp";
        if (x.m.recall > 0) check_drafts(&x, &o, "rows on disk", 1e-5);
        o.row_type = "f16";
        if (x.m.recall > 0) check_drafts(&x, &o, "rows in f16 on disk", 1e-3);
        close_subject(&x);
    }
}

/* Where attention sees everything, drafts do. */
static void drafts_that_see_all_are_full_attention(void **state) {
    (void)state;
    subject x = open_subject("mha-wide", 2, "cpu");
    cca_session_options full = full_options(), one = x.options, wide = x.options, all = x.options;
    one.group_size = one.sinks = 1, one.window_size = 8, one.recall = 32;
    wide.window_size = CTX;
    all.recall = CTX;
    const cca_session_options *same[] = {&one, &wide, &all};
    float *want = run_whole(&x, &full);
    for (int i = 0; i < 3; i++) {
        float *got = run_in_drafts(&x, *same[i], 7, 3);
        test_below(distance(&x, got, want), 1e-5, "full attention");
        free(got);
    }
    free(want);
    close_subject(&x);
}

/* The ring keeps what a snapshot of any position of a draft has, and a mark. */
static void states_behind_drafts_are_kept(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cpu");
        cca_session_options o = x.options;
        cca_error err;
        uint64_t random = 5;
        o.attn = "cca", o.recall = o.recall_tile = CCA_AUTO, o.cores = CCA_CORES_AUTO;
        o.draft = 7;
        o.mark = true;
        float *first = calloc(1, logit_bytes(&x, x.m.length)), *out = malloc(logit_bytes(&x, 8));
        float *again = calloc(1, logit_bytes(&x, x.m.length));
        assert_true(first && again && out);
        for (int64_t n_right = 1; n_right <= 8; n_right++) {
            cca_session *s = open_session(&x, &o);
            cca_snapshot *kept;
            int64_t pos = x.m.length / 2 + n_right;
            eval(s, x.m.tokens, pos);
            draft(s, &x, pos, 8, n_right, out);
            assert_int_equal(cca_session_snapshot(&kept, s, &err), CCA_OK);
            assert_int_equal(cca_session_mark(s, &err), CCA_OK);
            uint64_t here = random;
            finish_in_drafts(s, &x, 7, &random, first);
            assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
            random = here;
            finish_in_drafts(s, &x, 7, &random, again);
            assert_memory_equal(first, again, logit_bytes(&x, x.m.length));
            assert_int_equal(cca_session_restore(s, kept, &err), CCA_OK);
            random = here;
            finish_in_drafts(s, &x, 7, &random, again);
            assert_memory_equal(first, again, logit_bytes(&x, x.m.length));
            cca_snapshot_free(kept);
            cca_session_free(s);
        }
        free(first), free(again), free(out);
        close_subject(&x);
    }
}

/* What a session that is watched adds up is the same in drafts as in decode. */
static void watched_drafts_add_what_is_kept(void **state) {
    (void)state;
    subject x = open_subject("gqa2-wide", 2, "cpu");
    cca_session_options o = x.options;
    o.draft = 7;
    cca_session *s[2] = {open_session(&x, &o), open_session(&x, &o)};
    cca_error err;
    uint64_t random = 11;
    float *out = malloc(logit_bytes(&x, x.m.length));
    assert_non_null(out);
    for (int i = 0; i < 2; i++) {
        eval(s[i], x.m.tokens, BEGIN);
        assert_int_equal(cca_session_watch(s[i], NULL, 0, &err), CCA_OK);
    }
    for (int64_t pos = BEGIN; pos < x.m.length; pos++) eval(s[0], x.m.tokens + pos, 1);
    finish_in_drafts(s[1], &x, 7, &random, out);
    cca_attention want = cca_session_attention(s[0]), got = cca_session_attention(s[1]);
    assert_int_equal(want.n_tokens, x.m.length - BEGIN);
    assert_int_equal(got.n_tokens, want.n_tokens);
    int64_t n = want.n_layers * want.n_heads * want.n_slots;
    test_below(cca_spread_difference(got.sums, want.sums, n), 1e-5, "attention watched");
    free(out);
    cca_session_free(s[0]), cca_session_free(s[1]);
    close_subject(&x);
}

static void drafts_that_cannot_be_are_refused(void **state) {
    (void)state;
    subject x = open_subject("mha-tile1", 1, "cpu");
    cca_session_options o = x.options;
    cca_error err;
    const float *logits;
    cca_session *s = open_session(&x, &o);
    assert_int_equal(cca_session_draft(&logits, s, x.m.tokens, 1, &err), CCA_USAGE);
    assert_non_null(strstr(err.text, "draft"));
    cca_session_free(s);
    o.draft = 3;
    o.ctx_size = 6;
    s = open_session(&x, &o);
    assert_int_equal(cca_session_accept(s, 1, &err), CCA_USAGE);
    assert_int_equal(cca_session_draft(&logits, s, x.m.tokens, 0, &err), CCA_USAGE);
    assert_int_equal(cca_session_draft(&logits, s, x.m.tokens, 5, &err), CCA_USAGE);
    assert_int_equal(cca_session_draft(&logits, s, x.m.tokens, 4, &err), CCA_OK);
    assert_int_equal(cca_session_accept(s, 0, &err), CCA_USAGE);
    assert_int_equal(cca_session_accept(s, 5, &err), CCA_USAGE);
    assert_int_equal(cca_session_accept(s, 4, &err), CCA_OK);
    assert_int_equal(cca_session_accept(s, 1, &err), CCA_USAGE);
    assert_int_equal(cca_session_draft(&logits, s, x.m.tokens, 3, &err), CCA_NO_FIT);
    assert_null(logits);
    assert_int_equal(cca_session_pos(s), 4);
    cca_session_free(s);
    o.draft = CCA_MOST_DRAFT + 1;
    assert_int_equal(cca_session_new(&s, x.engine, &o, &err), CCA_USAGE);
    close_subject(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_equal_decode),
        cmocka_unit_test(drafts_equal_decode_with_rows_apart),
        cmocka_unit_test(drafts_equal_decode_with_rows_on_disk),
        cmocka_unit_test(drafts_that_see_all_are_full_attention),
        cmocka_unit_test(states_behind_drafts_are_kept),
        cmocka_unit_test(watched_drafts_add_what_is_kept),
        cmocka_unit_test(drafts_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
