/* States that ranks keep together, against one process: logits behind prompts, shared ones and
 * short ones, and behind tokens that follow. The largest difference over their spread is below 1e-5
 * in f32, and with one rank there is none. */
#include "tests/mpi/subject.h"

#include <math.h>

static const trial APPENDED = {"long, then short", "cca", 4, 16, 4, .calls = {3001, 90},
                               .same_bits = true};
static const trial KEPT = {"kept", "cca", 4, 16, 4, .calls = {3001}, .same_bits = true};
static const trial FULL = {"kept, full", "full", 0, 0, -1, .calls = {700}};

/* share_from: tokens from which on a call is shared; 0: another's session, which is alone. */
static cca_session *new_session(const subject *x, const trial *t, int64_t share_from) {
    cca_session_options o = options_of(t);
    cca_session *session;
    cca_error err;
    o.stored = false, o.mark = true, o.draft = 7;
    if (share_from > 0) o.comm = x->comm, o.spread = true, o.share_from = share_from;
    if (cca_session_new(&session, x->engine, &o, &err)) fail_msg("%s: %s", t->what, err.text);
    assert_true(cca_session_is_spread(session) ==
                (share_from > 0 && cca_comm_n_ranks(x->comm) > 1));
    return session;
}

static void check_close(const subject *x, const float *got, const float *want, int64_t n,
                        const char *what) {
    test_below(cca_spread_difference(got, want, n), cca_comm_n_ranks(x->comm) == 1 ? 1e-30 : 1e-5,
               what);
}

/* Ranks that share what they can, and ranks that share nothing but what they keep. */
static void compare(const subject *x, const trial *t) {
    int n, n_spread;
    char what[128];
    cca_session *alone = new_session(x, t, 0);
    float *want = run_trial(x, t, alone, &n);
    cca_session_free(alone);
    for (int64_t from = 1; from <= 100; from += 99) {
        cca_session *spread = new_session(x, t, from);
        float *got = run_trial(x, t, spread, &n_spread);
        snprintf(what, sizeof what, "%s: %s, shared from %lld", x->name, t->what, (long long)from);
        assert_int_equal(n, n_spread);
        check_close(x, got, want, n * x->vocab, what);
        cca_session_free(spread);
        free(got);
    }
    free(want);
}

static void all_trials(const subject *x) {
    for (int i = 0; i < N_TRIALS; i++) compare(x, &TRIALS[i]);
    compare(x, &APPENDED);
}

static void heads_of_their_own(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", all_trials);
}

static void heads_that_share(void **state) {
    run_ranks(*state, "tests/golden/recall", "gqa3-default-tile", all_trials);
}

/* Layers with windows of their own, queries that are turned before, and by other angles. */
static void some_trials(const subject *x) {
    static const trial some[] = {
        {"cca", "cca", 4, 16, 4, .calls = {300, 99}},
        {"full", "full", 0, 0, -1, .calls = {300, 99}},
    };
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) compare(x, &some[i]);
}

static void layers_of_all_kinds(void **state) {
    static const char *const names[] = {"hf-hunyuan", "hf-olmo3", "hf-ministral3",
                                        "hf-exaone4-windows", "hf-phi3-partial"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        run_ranks(*state, "tests/golden/models", names[i], some_trials);
    }
}

/* ---- what else a session does -------------------------------------------------------- */

enum { N_KINDS = 2, STEPS = 12 };

/* What a session's last token is followed by. */
static void note(const subject *x, cca_session *s, float *out, int *n) {
    cca_error err;
    const float *logits = cca_session_logits(s, &err);
    assert_non_null(logits);
    assert_true(*n < STEPS);
    memcpy(out + (*n)++ * x->vocab, logits, (size_t)x->vocab * sizeof *logits);
}

static void eval(const subject *x, cca_session *s, int64_t at, int64_t n) {
    cca_error err;
    if (cca_session_eval(s, x->ids + at, n, NULL, &err)) fail_msg("%s", err.text);
}

/* Questions behind what was read, each from the mark; one of them is long enough to be shared. */
static void ask(const subject *x, cca_session *s, float *out, int *n) {
    static const int64_t questions[] = {40, 3, 611, 1, 64};
    cca_error err;
    eval(x, s, 0, 700);
    assert_int_equal(cca_session_mark(s, &err), CCA_OK);
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        if (i > 0) assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
        eval(x, s, 1000, questions[i]);
        eval(x, s, 2000, 1), eval(x, s, 2001, 1);
        note(x, s, out, n);
    }
}

/* Copies, to which it comes back in another order, and a reset. */
static void go_back(const subject *x, cca_session *s, float *out, int *n) {
    cca_error err;
    cca_snapshot *early, *late;
    eval(x, s, 0, 500);
    assert_int_equal(cca_session_snapshot(&early, s, &err), CCA_OK);
    eval(x, s, 500, 33);
    assert_int_equal(cca_session_snapshot(&late, s, &err), CCA_OK);
    eval(x, s, 600, 21);
    assert_int_equal(cca_session_restore(s, late, &err), CCA_OK);
    eval(x, s, 533, 2), note(x, s, out, n);
    assert_int_equal(cca_session_restore(s, early, &err), CCA_OK);
    eval(x, s, 900, 5), note(x, s, out, n);
    cca_session_reset(s);
    eval(x, s, 77, 290), note(x, s, out, n);
    cca_snapshot_free(early), cca_snapshot_free(late);
}

/* Guesses of which some are taken back. */
static void draft(const subject *x, cca_session *s, float *out, int *n) {
    cca_error err;
    const float *logits;
    eval(x, s, 0, 400);
    for (int i = 1; i <= 8; i += 3) {
        assert_int_equal(cca_session_draft(&logits, s, x->ids + 400 * i, 8, &err), CCA_OK);
        memcpy(out + *n * x->vocab, logits, (size_t)x->vocab * sizeof *logits);
        assert_int_equal(cca_session_accept(s, i, &err), CCA_OK);
        ++*n;
        note(x, s, out, n);
        eval(x, s, 3000 + i, 1);
        note(x, s, out, n);
    }
}

static void same_steps(const subject *x, const char *what,
                       void (*steps)(const subject *x, cca_session *s, float *out, int *n)) {
    static const trial *const kinds[N_KINDS] = {&KEPT, &FULL};
    for (int kind = 0; kind < N_KINDS; kind++) {
        float *out[2];
        int n[2] = {0};
        for (int spread = 0; spread < 2; spread++) {
            out[spread] = calloc((size_t)(STEPS * x->vocab), sizeof *out[spread]);
            assert_non_null(out[spread]);
            cca_session *s = new_session(x, kinds[kind], spread * 200);
            steps(x, s, out[spread], &n[spread]);
            cca_session_free(s);
        }
        assert_true(n[0] == n[1] && n[0] > 2);
        check_close(x, out[1], out[0], n[0] * x->vocab, what);
        free(out[0]), free(out[1]);
    }
}

static void all_steps(const subject *x) {
    same_steps(x, "questions from a mark", ask);
    same_steps(x, "copies", go_back);
    same_steps(x, "drafts", draft);
}

static void marks_copies_and_drafts(void **state) {
    run_ranks(*state, "tests/golden/recall", "gqa3-default-tile", all_steps);
}

/* What tokens cost, of a short text and of one that is shared. */
static void score(const subject *x) {
    enum { N = 900 };
    static cca_gap gaps[2][2][N];
    for (int spread = 0; spread < 2; spread++) {
        cca_error err;
        cca_session *s = new_session(x, &KEPT, spread * 500);
        const cca_scored_text texts[] = {{x->ids, N, gaps[spread][0], 0},
                                         {x->ids + 99, 300, gaps[spread][1], 0}};
        assert_int_equal(cca_session_score(s, texts, 2, NULL, &err), CCA_OK);
        cca_session_free(s);
    }
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < (t ? 299 : N - 1); i++) {
            const double one = gaps[0][t][i].nats, all = gaps[1][t][i].nats;
            assert_true(one > 0 && fabs(one - all) < 1e-4);
        }
    }
}

static void texts_are_scored(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", score);
}

/* What all ranks have sent so far. */
static uint64_t sent_bytes(const cca_session *s) {
    int n;
    uint64_t all = 0;
    const cca_rank_count *counts = cca_session_ranks(s, &n);
    for (int r = 0; r < n; r++) all += counts[r].sent_bytes;
    return all;
}

/* What a token sends is what a forecast says, but for orders, ids and agreements. */
static void count_bytes(const subject *x) {
    enum { TOKENS = 10 };
    const uint64_t n_ranks = (uint64_t)cca_comm_n_ranks(x->comm);
    cca_error err;
    cca_share_forecast f;
    cca_session_options o = options_of(&FULL);
    if (n_ranks == 1) return;
    assert_int_equal(cca_session_share_forecast(&f, x->engine, &o, (int)n_ranks, 700, &err),
                     CCA_OK);
    cca_session *s = new_session(x, &FULL, 1);
    eval(x, s, 0, 700);
    const uint64_t before = sent_bytes(s);
    for (int i = 0; i < TOKENS; i++) eval(x, s, 700 + i, 1);
    const uint64_t sent = sent_bytes(s) - before, told = TOKENS * n_ranks * f.token_bytes;
    assert_in_range(sent, told, told + TOKENS * n_ranks * (n_ranks - 1) * 2048);
    cca_session_free(s);
    /* Each keeps a part of all layers, and room for all of one. */
    enum { LONG_TEXT = 99000 };
    const cca_engine_facts *facts = cca_engine_info(x->engine);
    const int64_t row = 2 * facts->n_kv_heads * facts->head_dim * (int64_t)sizeof(float);
    const int64_t others = facts->n_layers * (LONG_TEXT - LONG_TEXT / (int64_t)n_ranks);
    o.ctx_size = LONG_TEXT;
    assert_int_equal(cca_session_share_forecast(&f, x->engine, &o, (int)n_ranks, LONG_TEXT, &err),
                     CCA_OK);
    const int64_t saved = (int64_t)(f.gathered - f.spread_first);
    assert_true(llabs(saved - row * (others - LONG_TEXT)) < row * 4000);
    assert_true(f.spread_others < f.spread_first + 4000 * (uint64_t)row);
}

static void forecasts_count_the_bytes(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", count_bytes);
}

/* ---- what it does not ---------------------------------------------------------------- */

static void refuse(const subject *x) {
    static const trial recall = {"recall", "recall", 4, 16, 4, 32, 8, CCA_CORES_NO, .calls = {300}};
    cca_error err;
    cca_session *s;
    cca_session_options o = options_of(&recall);
    o.comm = x->comm, o.spread = true;
    bool one = cca_comm_n_ranks(x->comm) == 1;
    assert_int_equal(cca_session_new(&s, x->engine, &o, &err), one ? CCA_OK : CCA_USAGE);
    if (!one && !strstr(err.text, "recalls nothing")) fail_msg("%s", err.text);
    cca_session_free(s);
    s = new_session(x, &KEPT, 1);
    assert_int_equal(cca_session_watch(s, NULL, 0, &err), one ? CCA_OK : CCA_USAGE);
    cca_session_free(s);
    if (one) return;
    /* Between two evaluations of one session another one was begun, with other options. */
    cca_session *other = new_session(x, &FULL, 1);
    s = new_session(x, &KEPT, 1);
    eval(x, s, 0, 300);
    eval(x, other, 0, 300);
    assert_int_equal(cca_session_eval(s, x->ids, 1, NULL, &err), CCA_RUNTIME);
    if (!strstr(err.text, "rank 1: knows 0 of 300 tokens")) fail_msg("%s", err.text);
    cca_session_reset(s);
    eval(x, s, 0, 300);
    cca_session_free(s), cca_session_free(other);
}

static void what_it_does_not_is_said(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", refuse);
}

int main(void) {
    cca_comm *comm = ranks_open();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(heads_of_their_own, comm),
        cmocka_unit_test_prestate(heads_that_share, comm),
        cmocka_unit_test_prestate(layers_of_all_kinds, comm),
        cmocka_unit_test_prestate(marks_copies_and_drafts, comm),
        cmocka_unit_test_prestate(texts_are_scored, comm),
        cmocka_unit_test_prestate(forecasts_count_the_bytes, comm),
        cmocka_unit_test_prestate(what_it_does_not_is_said, comm),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cca_comm_close(comm);
    return failed;
}
