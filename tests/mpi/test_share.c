/* Prompts that ranks share, against one process: logits behind the prompt, and behind tokens that
 * follow it, in f32. With one rank they have the same bits, with several where texts are long
 * enough to be cut where chunks end; else the largest difference over their spread is below 1e-5,
 * as it is of several GPUs. */
#include "base/stop_flag.h"
#include "tests/mpi/subject.h"

#include <math.h>

static const trial RECALLS[] = {
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
enum { N_RECALLS = sizeof RECALLS / sizeof *RECALLS };

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

/* The same of what tokens cost, and of how far that is from a base. */
static void check_costs(const subject *x, const cca_gap *got, const cca_gap *want, int64_t n) {
    bool exact = strcmp(ranks_device(x->comm), "cpu") == 0 || cca_comm_n_ranks(x->comm) == 1;
    const double most = exact ? 0 : 1e-4;
    for (int64_t i = 0; i < n; i++) {
        if (fabs(got[i].nats - want[i].nats) <= most &&
            fabs(got[i].base_nats - want[i].base_nats) <= most &&
            fabs(got[i].kl - want[i].kl) <= most &&
            (!exact || got[i].same_top == want[i].same_top)) {
            continue;
        }
        fail_msg("token %lld costs %g, of the base %g, divergence %g; not %g, %g, %g", (long long)i,
                 got[i].nats, got[i].base_nats, got[i].kl, want[i].nats, want[i].base_nats,
                 want[i].kl);
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
    for (int i = 0; i < N_RECALLS; i++) compare(x, &RECALLS[i]);
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
    if (--*left == 0) cca_stop_set(&stop, 1);
}

/* An interrupted prompt ends on all ranks, and a session that was reset goes on with them. */
static void interrupted(const subject *x) {
    cca_error err;
    int left = 1, n;
    cca_stop_set(&stop, 0);
    cca_session_options o = options_of(&KEPT);
    cca_session *s, *whole = new_session(x, &KEPT, false);
    o.comm = x->comm, o.share_from = 1, o.stop = &stop;
    assert_int_equal(cca_session_new(&s, x->engine, &o, &err), CCA_OK);
    cca_eval_options eval = {.on_progress = stop_soon, .user = &left};
    assert_int_equal(cca_session_eval(s, x->ids, 3001, &eval, &err), CCA_INTERRUPTED);
    assert_int_equal(cca_session_pos(s), 0);
    assert_int_equal(cca_session_eval(s, x->ids, 3001, NULL, &err), CCA_RUNTIME);
    cca_stop_set(&stop, 0);
    cca_session_reset(s);
    float *got = run_trial(x, &KEPT, s, &n), *want = run_trial(x, &KEPT, whole, &n);
    check_same(x, got, want, n * x->vocab, "logits after an interruption");
    free(got), free(want);
    cca_session_free(s), cca_session_free(whole);
}

static void an_interruption_ends_all_and_loses_nobody(void **state) {
    run_ranks(*state, "tests/golden/recall", "gqa3-default-tile", interrupted);
}

static void count_done(void *user, cca_session *session, int64_t n_done) {
    int64_t *last = user;
    assert_non_null(session);
    assert_true(n_done >= *last);
    *last = n_done;
}

enum { N_TEXTS = 7, ROOM = 4096 };
static const int64_t SIZES[N_TEXTS] = {300, 257, 3001, 1, 2, 299, 33},
                     FIRST[N_TEXTS] = {0, 100, 7, 0, 0, 298};

static void scored_texts(const subject *x, cca_scored_text *texts, cca_gap (*gaps)[ROOM]) {
    for (int i = 0; i < N_TEXTS; i++) {
        for (int k = 0; k < ROOM; k++) gaps[i][k] = (cca_gap){.nats = -1};
        texts[i] = (cca_scored_text){x->ids + 40 * i, SIZES[i], gaps[i], FIRST[i]};
    }
}

static cca_session *scoring_session(const subject *x, const trial *t, bool shared) {
    cca_session_options o = options_of(t);
    cca_session *s;
    cca_error err;
    if (shared) o.comm = x->comm, o.share_from = 2000;
    if (cca_session_new(&s, x->engine, &o, &err)) fail_msg("%s", err.text);
    return s;
}

/* Everybody has had a part. */
static void check_prefilled(const cca_session *s) {
    int n;
    int64_t all = 0;
    const cca_rank_count *counts = cca_session_ranks(s, &n);
    for (int i = 0; i < N_TEXTS; i++) all += SIZES[i];
    for (int r = 0; r < n; r++) {
        assert_true(counts[r].prefilled > 0);
        all -= counts[r].prefilled;
    }
    assert_int_equal(all, 0);
}

/* Texts by themselves, of which ranks split the long one and have one each of the others: what
 * their tokens cost has the bits of one process, nothing else is touched, and so it is where the
 * same tokens' cost in another session is compared with. */
static void score_texts(const subject *x) {
    static const trial other = {"base", "cca", 5, 15, 5, .same_bits = true}; /* has other cuts */
    static cca_gap gaps[2][N_TEXTS][ROOM];
    for (int round = 0; round < 4; round++) {
        const bool shared = round % 2, compares = round / 2;
        cca_error err;
        cca_scored_text texts[N_TEXTS];
        int64_t done = 0, all = 0, apart = 0;
        cca_session *s = scoring_session(x, &KEPT, shared);
        cca_session *base = compares ? scoring_session(x, &other, shared) : NULL;
        cca_score_options o = {.base = base, .on_progress = count_done, .user = &done};
        scored_texts(x, texts, gaps[shared]);
        for (int i = 0; i < N_TEXTS; i++) all += SIZES[i];
        assert_int_equal(cca_session_score(s, texts, N_TEXTS, &o, &err), CCA_OK);
        assert_true(done == all && cca_session_pos(s) == 0);
        if (shared) check_prefilled(s);
        texts[2].n = LONG + DECODED + 1;
        assert_int_equal(cca_session_score(s, texts, N_TEXTS, NULL, &err), CCA_NO_FIT);
        cca_session_free(s), cca_session_free(base);
        for (int i = 0; i < N_TEXTS && shared; i++) {
            for (int64_t k = 0; k < ROOM; k++) {
                const bool costs = k >= FIRST[i] && k < SIZES[i] - 1;
                assert_true((gaps[0][i][k].nats >= 0) == costs);
                assert_true((gaps[0][i][k].base_nats > 0) == (costs && compares));
                apart += gaps[0][i][k].kl > 1e-6;
            }
            check_costs(x, gaps[1][i], gaps[0][i], ROOM);
        }
        assert_true((apart > 2000) == (shared && compares));
    }
}

static void texts_are_split_or_dealt(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", score_texts);
}

/* Logits of each text's tokens that rank 0 has been told of. */
typedef struct told {
    const subject *x;
    float *logits; /* [all tokens][vocab] */
    int64_t rows, text, pos;
    int64_t fails_at; /* rows; 0: never */
} told;

static cca_status note_rows(void *user, cca_session *session, int64_t text, int64_t pos, int64_t n,
                            cca_error *err) {
    told *t = user;
    if (text != t->text) t->pos = 0;
    assert_true(text >= t->text && pos == t->pos);
    t->text = text, t->pos = pos + n;
    cca_status status =
        cca_session_chunk_logits(session, 0, n, t->logits + t->rows * t->x->vocab, err);
    t->rows += n;
    if (t->fails_at > 0 && t->rows >= t->fails_at) {
        return cca_fail(err, CCA_BAD_OUTPUT, "the disk is full");
    }
    return status;
}

/* Rank 0 sees the logits of all tokens in their order, whoever has made them; where it wants no
 * more, nobody waits. */
static void show_texts(const subject *x) {
    static cca_gap gaps[N_TEXTS][ROOM];
    cca_scored_text texts[N_TEXTS];
    cca_error err;
    told seen[2];
    int64_t all = 0;
    for (int i = 0; i < N_TEXTS; i++) all += SIZES[i];
    for (int shared = 0; shared < 2; shared++) {
        seen[shared] = (told){.x = x};
        seen[shared].logits = calloc((size_t)(all * x->vocab), sizeof(float));
        assert_non_null(seen[shared].logits);
        cca_session *s = scoring_session(x, &KEPT, shared);
        cca_score_options o = {.on_rows = note_rows, .user = &seen[shared]};
        scored_texts(x, texts, gaps);
        if (cca_session_score(s, texts, N_TEXTS, &o, &err)) fail_msg("%s", err.text);
        assert_int_equal(seen[shared].rows, all);
        cca_session_free(s);
    }
    check_same(x, seen[1].logits, seen[0].logits, all * x->vocab, "rows");
    for (int64_t at = 1; at < 2 * all; at += 1500) {
        cca_session *s = scoring_session(x, &KEPT, true);
        told some = {.x = x, .logits = seen[1].logits, .fails_at = at};
        cca_score_options o = {.on_rows = note_rows, .user = &some};
        cca_status want = at <= all ? CCA_BAD_OUTPUT : CCA_OK;
        assert_int_equal(cca_session_score(s, texts, N_TEXTS, &o, &err), want);
        if (want) assert_string_equal(err.text, "the disk is full");
        cca_session_free(s);
    }
    free(seen[0].logits), free(seen[1].logits);
}

static void rank_0_sees_the_rows_of_all(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", show_texts);
}

/* What a base tells apart is told: another vocabulary, and sessions that ranks keep together. */
static void refuse_base(const subject *x) {
    static const trial cca = {"cca", "cca", 4, 16, 4, .same_bits = true};
    static cca_gap gaps[300];
    const cca_scored_text text = {x->ids, 300, gaps, 0};
    cca_error err;
    cca_session *s;
    cca_session_options o = options_of(&cca);
    cca_session *base = scoring_session(x, &KEPT, true);
    const cca_score_options compares = {.base = base};
    o.stored = false, o.comm = x->comm, o.spread = true;
    assert_int_equal(cca_session_new(&s, x->engine, &o, &err), CCA_OK);
    bool spread = cca_session_is_spread(s);
    assert_int_equal(cca_session_score(s, &text, 1, &compares, &err), spread ? CCA_USAGE : CCA_OK);
    cca_session_free(s), cca_session_free(base);
}

static void what_has_no_base_is_told(void **state) {
    run_ranks(*state, "tests/golden/recall", "mha-wide", refuse_base);
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
        cmocka_unit_test_prestate(texts_are_split_or_dealt, comm),
        cmocka_unit_test_prestate(rank_0_sees_the_rows_of_all, comm),
        cmocka_unit_test_prestate(what_has_no_base_is_told, comm),
        cmocka_unit_test_prestate(forecasts_count_the_bytes, comm),
        cmocka_unit_test_prestate(chunks_are_seen_by_who_asks, comm),
        cmocka_unit_test_prestate(a_rank_of_another_model_is_told_apart, comm),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cca_comm_close(comm);
    return failed;
}
