/* Prompts that ranks share, against one process: logits behind the prompt, and behind tokens that
 * follow it, in f32. With one rank they have the same bits, with several where texts are long
 * enough to be cut where chunks end; else the largest difference over their spread is below 1e-5,
 * as it is of several GPUs. */
#include "tests/mpi/subject.h"

#include <math.h>

static const trial TRIALS[] = {
    {"cca", "cca", 4, 16, 4, .calls = {300}},
    {"no sinks", "cca", 4, 16, 0, .calls = {301}},
    {"many sinks", "cca", 4, 16, 64, .calls = {303}},
    {"odd group", "cca", 5, 15, 5, .calls = {299}},
    {"wide window", "cca", 16, 128, 16, .calls = {397}},
    {"groups of one", "cca", 1, 8, 1, .calls = {157}},
    {"slices of a group", "cca", 4, 64, 4, .calls = {33}},
    {"too few tokens", "cca", 4, 16, 4, .calls = {7, 2, 1}},
    {"all in the window", "cca", 4, 1024, 4, .calls = {200}},
    {"appended", "cca", 4, 16, 4, .calls = {100, 150, 1, 77}},
    {"appended in the window", "cca", 16, 128, 16, .calls = {61, 62, 63, 64}},
    {"long", "cca", 4, 16, 4, .calls = {3001}, .same_bits = true},
    {"long, appended", "cca", 16, 64, 16, .calls = {2049, 2100}, .same_bits = true},
    {"full", "full", 0, 0, -1, .calls = {300, 99}},
    {"full, long", "full", 0, 0, -1, .calls = {2500}, .same_bits = true},
    {"window", "window", 4, 16, -1, .calls = {300}},
    {"sinks:9", "sinks:9", 4, 16, -1, .calls = {300, 99}},
    {"mean", "mean", 4, 16, -1, .calls = {300}},
    {"max", "max", 4, 16, -1, .calls = {300}},
    {"recall", "recall", 4, 16, 4, 32, 8, CCA_CORES_NO, .calls = {300}},
    {"recall, cores", "recall", 5, 15, 10, 20, 8, CCA_CORES_YES, .calls = {301}},
    {"recall, tile 1", "recall", 4, 16, 4, 32, 1, CCA_CORES_YES, .calls = {250, 99}},
    {"recall, end", "recall", 4, 16, 4, 32, 64, CCA_CORES_NO, .calls = {400}, .ends_prompt = true},
    {"recall, apart", "recall", 4, 16, 4, 32, 8, CCA_CORES_YES, .calls = {300, 99},
     .row_type = "bf16"},
    {"recall, long", "recall", 4, 16, 4, 64, 8, CCA_CORES_NO, .calls = {3001}, .same_bits = true},
    {"recall, levels", "recall", 1, 16, 4, 64, 16, CCA_CORES_NO, .calls = {2900, 2110},
     .same_bits = true, .ends_prompt = true},
};
enum { N_TRIALS = sizeof TRIALS / sizeof *TRIALS };

static cca_session *new_session(const subject *x, const trial *t, bool shared) {
    cca_session_options o = options_of(t);
    cca_session *session;
    cca_error err;
    if (shared) o.comm = x->comm, o.share_from = 1;
    if (cca_session_new(&session, x->engine, &o, &err)) fail_msg("%s: %s", t->what, err.text);
    return session;
}

/* Everybody has done a share of what is long enough. */
static void check_counts(const subject *x, const trial *t, const cca_session *session) {
    int n;
    int64_t all = 0, most = 0;
    const cca_rank_count *counts = cca_session_ranks(session, &n);
    assert_int_equal(n, cca_comm_n_ranks(x->comm));
    for (int i = 0; i < n; i++) all += counts[i].prefilled;
    for (int i = 0; i < MOST_CALLS; i++) most += t->calls[i];
    assert_in_range(all, 0, most + DECODED);
    if (most < 2000) return;
    for (int i = 0; i < n; i++) {
        assert_in_range(counts[i].prefilled, most / n * 8 / 10, most / n * 12 / 10);
        if (n > 1) assert_true(counts[i].sent_bytes > 0);
    }
}

/* Equal numbers, where slices are cut as chunks are. Kernels of GPUs may add in another order where
 * rows lie in other places, as they do with several ranks. */
static void check_same(const subject *x, const float *got, const float *want, int64_t n,
                       const char *what) {
    bool on_cpu = strcmp(ranks_device(x->comm), "cpu") == 0;
    if (!on_cpu && cca_comm_n_ranks(x->comm) > 1) {
        test_below(cca_spread_difference(got, want, n), 1e-5, what);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        if (got[i] == want[i]) continue;
        fail_msg("%s: value %lld is %a, not %a", what, (long long)i, (double)got[i],
                 (double)want[i]);
    }
}

/* The same of what tokens cost. */
static void check_costs(const subject *x, const double *got, const double *want, int64_t n) {
    bool exact = strcmp(ranks_device(x->comm), "cpu") == 0 || cca_comm_n_ranks(x->comm) == 1;
    for (int64_t i = 0; i < n; i++) {
        double gap = fabs(got[i] - want[i]);
        if (!(gap <= (exact ? 0 : 1e-4))) {
            fail_msg("token %lld costs %g, not %g", (long long)i, got[i], want[i]);
        }
    }
}

static void compare(const subject *x, const trial *t) {
    int n, n_shared;
    char what[128];
    cca_session *alone = new_session(x, t, false), *shared = new_session(x, t, true);
    float *want = run_trial(x, t, alone, &n), *got = run_trial(x, t, shared, &n_shared);
    snprintf(what, sizeof what, "%s: %s", x->name, t->what);
    assert_int_equal(n, n_shared);
    if (t->same_bits || cca_comm_n_ranks(x->comm) == 1) {
        check_same(x, got, want, n * x->vocab, what);
    }
    test_below(cca_spread_difference(got, want, n * x->vocab), 1e-5, what);
    check_counts(x, t, shared);
    free(want), free(got);
    cca_session_free(alone), cca_session_free(shared);
}

/* ---- logits -------------------------------------------------------------------------- */

static void all_trials(const subject *x) {
    for (int i = 0; i < N_TRIALS; i++) compare(x, &TRIALS[i]);
}

static void heads_of_their_own(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", all_trials);
}

static void heads_that_share(void **state) {
    run_ranks(*state, "tests/golden/recall", "gqa3-default-tile", all_trials);
}

static void heads_that_all_share(void **state) {
    run_ranks(*state, "tests/golden/recall", "gqa8-tile64", all_trials);
}

/* Biases, norms of heads, turned before and behind; layers with windows and angles of their own;
 * queries that grow; norms behind; parts of heads that turn. */
static void some_trials(const subject *x) {
    static const trial some[] = {
        {"cca", "cca", 4, 16, 4, .calls = {300, 99}},
        {"full", "full", 0, 0, -1, .calls = {300, 99}},
        {"full, long", "full", 0, 0, -1, .calls = {2500}, .same_bits = true},
        {"recall, long", "recall", 4, 16, 4, 64, 8, CCA_CORES_NO, .calls = {3001},
         .same_bits = true},
    };
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) compare(x, &some[i]);
}

static void layers_of_all_kinds(void **state) {
    static const char *const names[] = {"hf-qwen2",   "hf-qwen3",           "hf-hunyuan",
                                        "hf-olmo3",   "hf-ministral3",      "hf-granite",
                                        "hf-smollm3", "hf-exaone4-windows", "hf-phi3-partial"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        run_ranks(*state, "tests/golden/models", names[i], some_trials);
    }
}

/* ---- what else a session does -------------------------------------------------------- */

static const trial KEPT = {"kept",          "recall",         4, 16, 4, 64, 8, CCA_CORES_YES,
                           .calls = {3001}, .same_bits = true};

/* A state that ranks have made is stored, read by a session without them, and the other way round:
 * what follows has the bits that it has in one process. */
static void stored_sessions(const subject *x) {
    enum { N = 3001, MORE = 2100 };
    cca_error err;
    float *want = NULL;
    for (int way = 0; way < 3; way++) { /* nobody shares; the writer does, the reader does */
        char path[] = "/tmp/cca-test-ranks-XXXXXX";
        cca_store *store;
        assert_true(close(mkstemp(path)) == 0 && unlink(path) == 0);
        cca_session *writer = new_session(x, &KEPT, way == 1);
        char *facts = cca_session_facts(writer);
        assert_int_equal(cca_store_create(&store, path, facts, &err), CCA_OK);
        assert_int_equal(cca_session_eval(writer, x->ids, N, NULL, &err), CCA_OK);
        assert_int_equal(cca_session_save(writer, store, x->ids, &err), CCA_OK);
        cca_session_free(writer);
        cca_session *reader = new_session(x, &KEPT, way == 2);
        assert_int_equal(cca_session_load(reader, store, 0, &err), CCA_OK);
        assert_int_equal(cca_session_eval(reader, x->ids + N, MORE, NULL, &err), CCA_OK);
        const float *logits = cca_session_logits(reader, &err);
        assert_non_null(logits);
        size_t bytes = (size_t)x->vocab * sizeof *logits;
        if (way == 0) {
            want = malloc(bytes);
            assert_non_null(want);
            memcpy(want, logits, bytes);
        }
        check_same(x, logits, want, x->vocab, "logits of a stored state");
        cca_session_free(reader), cca_store_close(store), free(facts), unlink(path);
    }
    free(want);
}

static void ranks_and_one_read_what_the_other_wrote(void **state) {
    run_ranks(*state, "tests/golden/recall", "gqa3-default-tile", stored_sessions);
}

/* Sums of what the last token attends to. */
static void watched(const subject *x) {
    enum { N = 3001 };
    cca_error err;
    float *sums[2];
    size_t bytes = 0;
    for (int shared = 0; shared < 2; shared++) {
        cca_session *s = new_session(x, &KEPT, shared);
        assert_int_equal(cca_session_watch(s, NULL, 0, &err), CCA_OK);
        assert_int_equal(cca_session_eval(s, x->ids, N, NULL, &err), CCA_OK);
        cca_attention a = cca_session_attention(s);
        assert_int_equal(a.n_tokens, 1);
        bytes = (size_t)(a.n_layers * a.n_heads * a.n_slots) * sizeof *a.sums;
        sums[shared] = malloc(bytes);
        assert_non_null(sums[shared]);
        memcpy(sums[shared], a.sums, bytes);
        cca_session_free(s);
    }
    check_same(x, sums[0], sums[1], (int64_t)(bytes / sizeof(float)), "sums");
    free(sums[0]), free(sums[1]);
}

static void attention_is_watched_as_in_one_process(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", watched);
}

static volatile sig_atomic_t stop;

static void stop_soon(void *user, cca_session *session, int64_t pos) {
    int *left = user;
    assert_in_range(pos, 1, LONG);
    (void)session;
    if (--*left == 0) stop = 1;
}

/* An interrupted prompt ends on all ranks, and a session that was reset goes on with them. */
static void interrupted(const subject *x) {
    cca_error err;
    int left = 1, n;
    stop = 0;
    cca_session_options o = options_of(&KEPT);
    cca_session *s, *whole = new_session(x, &KEPT, false);
    o.comm = x->comm, o.share_from = 1, o.stop = &stop;
    assert_int_equal(cca_session_new(&s, x->engine, &o, &err), CCA_OK);
    cca_eval_options eval = {.on_progress = stop_soon, .user = &left};
    assert_int_equal(cca_session_eval(s, x->ids, 3001, &eval, &err), CCA_INTERRUPTED);
    assert_int_equal(cca_session_pos(s), 0);
    assert_int_equal(cca_session_eval(s, x->ids, 3001, NULL, &err), CCA_RUNTIME);
    stop = 0;
    cca_session_reset(s);
    float *got = run_trial(x, &KEPT, s, &n), *want = run_trial(x, &KEPT, whole, &n);
    check_same(x, got, want, n * x->vocab, "logits after an interruption");
    free(got), free(want);
    cca_session_free(s), cca_session_free(whole);
}

static void an_interruption_ends_all_and_loses_nobody(void **state) {
    run_ranks(*state, "tests/golden/recall", "gqa3-default-tile", interrupted);
}

/* What tokens cost, from one on, is what one process says; the last one's successor is not there.
 */
static void score(const subject *x) {
    enum { N = 3001, FROM = 700 };
    static double nats[2][N];
    for (int shared = 0; shared < 2; shared++) {
        cca_error err;
        cca_session *s = new_session(x, &KEPT, shared);
        cca_eval_options o = {.nats = nats[shared], .nats_from = FROM};
        assert_int_equal(cca_session_eval(s, x->ids, N, &o, &err), CCA_OK);
        const float *logits = cca_session_logits(s, &err);
        assert_non_null(logits);
        cca_session_free(s);
    }
    for (int i = FROM; i < N - 1; i++) assert_true(nats[0][i] > 0);
    check_costs(x, nats[1] + FROM, nats[0] + FROM, N - 1 - FROM);
    assert_true(nats[0][N - 1] == 0 && nats[1][N - 1] == 0 && nats[0][FROM - 1] == 0);
}

static void ranks_score_their_tokens(void **state) {
    run_ranks(*state, "tests/golden/recall", "gqa3-default-tile", score);
}

static void count_done(void *user, cca_session *session, int64_t n_done) {
    int64_t *last = user;
    assert_non_null(session);
    assert_true(n_done >= *last);
    *last = n_done;
}

/* Texts by themselves, of which ranks split the long one and have one each of the others: what
 * their tokens cost has the bits of one process, and nothing else is touched. */
static void score_texts(const subject *x) {
    enum { N = 7, ROOM = 4096 };
    static const int64_t sizes[N] = {300, 3001, 257, 1, 2, 299, 33},
                         from[N] = {0, 7, 100, 0, 0, 298};
    static double nats[2][N][ROOM];
    for (int shared = 0; shared < 2; shared++) {
        cca_error err;
        cca_scored_text texts[N];
        cca_session_options o = options_of(&KEPT);
        cca_session *s;
        int64_t done = 0, all = 0;
        int n;
        if (shared) o.comm = x->comm, o.share_from = 2000;
        assert_int_equal(cca_session_new(&s, x->engine, &o, &err), CCA_OK);
        for (int i = 0; i < N; i++) {
            for (int k = 0; k < ROOM; k++) nats[shared][i][k] = -1;
            texts[i] = (cca_scored_text){x->ids + 40 * i, sizes[i], nats[shared][i], from[i]};
            all += sizes[i];
        }
        assert_int_equal(cca_session_score(s, texts, N, count_done, &done, &err), CCA_OK);
        assert_true(done == all && cca_session_pos(s) == 0);
        const cca_rank_count *counts = cca_session_ranks(s, &n);
        for (int r = 0; r < n; r++) all -= counts[r].prefilled;
        assert_true(!shared || all == 0);
        texts[2].n = LONG + DECODED + 1;
        assert_int_equal(cca_session_score(s, texts, N, NULL, NULL, &err), CCA_NO_FIT);
        cca_session_free(s);
    }
    for (int i = 0; i < N; i++) {
        for (int64_t k = 0; k < ROOM; k++) {
            bool costs = k >= from[i] && k < sizes[i] - 1;
            assert_true((nats[0][i][k] >= 0) == costs && (nats[1][i][k] >= 0) == costs);
        }
        check_costs(x, nats[1][i], nats[0][i], ROOM);
    }
}

static void texts_are_split_or_dealt(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", score_texts);
}

/* Bytes of all ranks that an eval of a session adds, which are cumulative. */
static uint64_t bytes_of_second(const subject *x, const trial *t, int64_t n) {
    uint64_t all[2] = {0};
    for (int i = 0; i < 2; i++) {
        cca_error err;
        int n_ranks;
        cca_session *s = new_session(x, t, true);
        assert_int_equal(cca_session_eval(s, x->ids, n, NULL, &err), CCA_OK);
        const cca_rank_count *counts = cca_session_ranks(s, &n_ranks);
        for (int r = 0; r < n_ranks; r++) all[i] += counts[r].sent_bytes;
        cca_session_free(s);
    }
    return all[1] - all[0];
}

/* What is sent is what a forecast says, but for orders, ids and agreements. */
static void count_bytes(const subject *x) {
    static const trial some[] = {
        {"cca", "cca", 4, 16, 4, .calls = {3001}, .same_bits = true},
        {"full", "full", 0, 0, -1, .calls = {3001}, .same_bits = true},
        {"recall", "recall", 4, 16, 4, 64, 8, CCA_CORES_YES, .calls = {3001}, .same_bits = true},
    };
    int n_ranks = cca_comm_n_ranks(x->comm);
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        cca_error err;
        cca_share_forecast f;
        cca_session_options o = options_of(&some[i]);
        const int64_t n = some[i].calls[0];
        assert_int_equal(cca_session_share_forecast(&f, x->engine, &o, n_ranks, n, &err), CCA_OK);
        uint64_t sent = bytes_of_second(x, &some[i], n), ids = (uint64_t)(4 * n * (n_ranks - 1));
        uint64_t words = (uint64_t)(n_ranks * (n_ranks - 1)) * 2048;
        assert_in_range(sent, f.sent_bytes + ids, f.sent_bytes + ids + words);
        assert_true(f.most_bytes <= f.sent_bytes &&
                    f.most_bytes * (uint64_t)n_ranks >= f.sent_bytes);
        assert_in_range(f.most_tokens, n / n_ranks, n / n_ranks + 2 * SMALL);
    }
}

static void forecasts_count_the_bytes(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", count_bytes);
}

/* Who wants each chunk's logits has them, from rank 0 alone. */
static cca_status count_rows(void *user, cca_session *session, int64_t pos, int64_t n,
                             cca_error *err) {
    (void)session, (void)pos, (void)err;
    *(int64_t *)user += n;
    return CCA_OK;
}

static void chunks(const subject *x) {
    cca_error err;
    int64_t n_rows = 0;
    int n;
    cca_session *s = new_session(x, &KEPT, true);
    cca_eval_options o = {.on_chunk = count_rows, .user = &n_rows};
    assert_int_equal(cca_session_eval(s, x->ids, 3001, &o, &err), CCA_OK);
    assert_int_equal(n_rows, 3001);
    assert_int_equal(cca_session_ranks(s, &n)[0].prefilled, 0);
    cca_session_free(s);
}

static void chunks_are_seen_by_who_asks(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", chunks);
}

/* A rank with other weights says so, and nothing is evaluated. */
static void a_rank_of_another_model_is_told_apart(void **state) {
    cca_comm *comm = *state;
    cca_error err;
    bool first = cca_comm_rank(comm) == 0;
    subject x =
        open_subject(comm, "tests/golden/recall", first ? "gqa3-single" : "gqa3-cores-only");
    if (first && cca_comm_n_ranks(comm) > 1) {
        cca_session *s = new_session(&x, &KEPT, true);
        assert_int_equal(cca_session_eval(s, x.ids, 3001, NULL, &err), CCA_BAD_MODEL);
        if (!strstr(err.text, "rank 1: ") || !strstr(err.text, "not that of rank 0")) {
            fail_msg("%s", err.text);
        }
        cca_session_free(s);
    }
    if (first) assert_int_equal(cca_engine_dismiss(comm, &err), CCA_OK);
    if (!first) assert_int_equal(cca_engine_serve(x.engine, comm, NULL, &err), CCA_OK);
    cca_engine_close(x.engine);
}

int main(void) {
    cca_comm *comm = ranks_open();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(heads_of_their_own, comm),
        cmocka_unit_test_prestate(heads_that_share, comm),
        cmocka_unit_test_prestate(heads_that_all_share, comm),
        cmocka_unit_test_prestate(layers_of_all_kinds, comm),
        cmocka_unit_test_prestate(ranks_and_one_read_what_the_other_wrote, comm),
        cmocka_unit_test_prestate(attention_is_watched_as_in_one_process, comm),
        cmocka_unit_test_prestate(an_interruption_ends_all_and_loses_nobody, comm),
        cmocka_unit_test_prestate(ranks_score_their_tokens, comm),
        cmocka_unit_test_prestate(texts_are_split_or_dealt, comm),
        cmocka_unit_test_prestate(forecasts_count_the_bytes, comm),
        cmocka_unit_test_prestate(chunks_are_seen_by_who_asks, comm),
        cmocka_unit_test_prestate(a_rank_of_another_model_is_told_apart, comm),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cca_comm_close(comm);
    return failed;
}
