/* Sessions in files: what is evaluated from a stored state has the bits of an uninterrupted run,
 * and a state of other settings is refused by name. */
#include "base/stop_flag.h"
#include "engine.h"

#include "test.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

static const char MODEL[] = "models/cca-books-15m.gguf";
/* At the end queries see cores of groups that were complete, but behind the window, at SECOND. Of
 * those that can be recalled some are. */
enum { FIRST = 301, SECOND = 700, END = 1000, CTX = 1024, RECALL = 96 };

/* Behind a plus: the type of rows behind the window. */
static const char *const attns[] = {"cca",     "full",   "mean",        "window",
                                    "sinks:5", "recall", "recall+q8_0", "recall+q8_0/q4_0"};
enum { ATTNS = sizeof attns / sizeof *attns };

static cca_engine *engine;
static char path[] = "/tmp/cca-test-saved-XXXXXX";
static int32_t ids[CTX];
static cca_error err;

static volatile sig_atomic_t stop;

static cca_session *open_session(const char *attn, const char *type, int64_t group) {
    cca_session_options o = cca_session_defaults();
    cca_session *s;
    o.ctx_size = CTX;
    o.attn = attn;
    if (!strncmp(attn, "recall", 6)) {
        o.attn = "recall";
        o.recall = RECALL;
        o.row_type = attn[6] ? attn + 7 : NULL;
    }
    o.k_type = o.v_type = type;
    o.group_size = group;
    o.chunk_size = 64;
    o.stored = o.mark = true;
    o.stop = &stop;
    if (cca_session_new(&s, engine, &o, &err) != CCA_OK) fail_msg("%s", err.text);
    return s;
}

static void eval(cca_session *s, int64_t end) {
    int64_t pos = cca_session_pos(s);
    if (cca_session_eval(s, ids + pos, end - pos, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
}

static size_t logits_bytes(void) {
    return (size_t)cca_engine_info(engine)->vocab_size * sizeof(float);
}

/* A file with checkpoints at FIRST and SECOND, and the logits at END. */
static float *make_file(const char *attn, const char *type) {
    cca_session *s = open_session(attn, type, 0);
    cca_store *store;
    char *facts = cca_session_facts(s);
    assert_non_null(facts);
    assert_int_equal(cca_store_create(&store, path, facts, &err), CCA_OK);
    free(facts);
    eval(s, FIRST);
    assert_int_equal(cca_session_save(s, store, ids, &err), CCA_OK);
    assert_int_equal(cca_session_save(s, store, ids, &err), CCA_OK); /* once is enough */
    eval(s, SECOND);
    assert_int_equal(cca_session_save(s, store, ids, &err), CCA_OK);
    assert_int_equal(cca_store_n_points(store), 2);
    cca_store_close(store);
    eval(s, END);
    float *logits = malloc(logits_bytes());
    assert_non_null(logits);
    const float *own = cca_session_logits(s, &err);
    assert_non_null(own);
    memcpy(logits, own, logits_bytes());
    cca_session_free(s);
    return logits;
}

static void check_resumed(const char *attn, const char *type, const float *wanted) {
    static const int64_t positions[] = {FIRST, SECOND};
    cca_session *s = open_session(attn, type, 0);
    cca_store *store;
    int64_t n;
    assert_int_equal(cca_store_open(&store, path, false, &err), CCA_OK);
    assert_memory_equal(cca_store_tokens(store, &n), ids, SECOND * sizeof *ids);
    assert_int_equal(n, SECOND);
    for (size_t i = 2; i-- > 0;) { /* the later one first, so that old rows stand in the window */
        if (cca_session_load(s, store, i, &err) != CCA_OK) fail_msg("%s: %s", attn, err.text);
        assert_int_equal(cca_session_pos(s), positions[i]);
        assert_null(cca_session_logits(s, &err));
        if (i == 0) eval(s, SECOND);
        eval(s, END);
        const float *own = cca_session_logits(s, &err);
        assert_non_null(own);
        assert_memory_equal(own, wanted, logits_bytes());
    }
    cca_store_close(store);
    cca_session_free(s);
}

static void test_same_bits(void **state) {
    (void)state;
    static const char *const types[] = {"bf16", "f32", "f16"};
    for (size_t i = 0; i < ATTNS + 2; i++) {
        const char *attn = attns[i < ATTNS ? i : 0], *type = types[i < ATTNS ? 0 : i - ATTNS + 1];
        float *logits = make_file(attn, type);
        check_resumed(attn, type, logits);
        free(logits);
    }
}

/* Back to each of several snapshots, after other tokens: the bits of the first time. */
static void test_snapshots(void **state) {
    (void)state;
    for (size_t i = 0; i < ATTNS; i++) {
        cca_session *s = open_session(attns[i], "bf16", 0);
        cca_snapshot *first, *second;
        eval(s, FIRST);
        assert_int_equal(cca_session_snapshot(&first, s, &err), CCA_OK);
        eval(s, SECOND);
        assert_int_equal(cca_session_snapshot(&second, s, &err), CCA_OK);
        assert_int_equal(cca_snapshot_pos(second), SECOND);
        bool keeps_rows = !strcmp(attns[i], "full") || !strcmp(attns[i], "recall");
        assert_true((cca_snapshot_bytes(second) > 0) == !keeps_rows); /* else nothing is lost */
        eval(s, END);
        float *wanted = malloc(logits_bytes());
        assert_non_null(wanted);
        memcpy(wanted, cca_session_logits(s, &err), logits_bytes());
        for (int back = 0; back < 3; back++) { /* second, first, first */
            assert_int_equal(cca_session_restore(s, back == 0 ? second : first, &err), CCA_OK);
            assert_int_equal(cca_session_pos(s), back == 0 ? SECOND : FIRST);
            assert_null(cca_session_logits(s, &err));
            if (back == 1) { /* others in between */
                assert_int_equal(cca_session_eval(s, ids, END - FIRST, NULL, &err), CCA_OK);
                continue;
            }
            eval(s, SECOND);
            eval(s, END);
            assert_memory_equal(cca_session_logits(s, &err), wanted, logits_bytes());
        }
        free(wanted);
        cca_snapshot_free(first);
        cca_snapshot_free(second);
        cca_session_free(s);
    }
}

/* A mark outlives a snapshot taken behind it, and goes with one before it. */
static void test_mark_and_snapshot(void **state) {
    (void)state;
    for (size_t i = 0; i < ATTNS; i++) {
        cca_session *s = open_session(attns[i], "bf16", 0);
        cca_snapshot *before, *behind;
        eval(s, FIRST - 5);
        assert_int_equal(cca_session_snapshot(&before, s, &err), CCA_OK);
        eval(s, FIRST);
        assert_int_equal(cca_session_mark(s, &err), CCA_OK);
        eval(s, SECOND);
        float *wanted = malloc(logits_bytes());
        assert_non_null(wanted);
        memcpy(wanted, cca_session_logits(s, &err), logits_bytes());
        assert_int_equal(cca_session_snapshot(&behind, s, &err), CCA_OK);
        for (int back = 0; back < 2; back++) { /* others in between, longer than a window */
            assert_int_equal(cca_session_eval(s, ids, END - SECOND, NULL, &err), CCA_OK);
            assert_int_equal(cca_session_restore(s, behind, &err), CCA_OK);
        }
        assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
        assert_int_equal(cca_session_pos(s), FIRST);
        eval(s, SECOND);
        assert_memory_equal(cca_session_logits(s, &err), wanted, logits_bytes());
        assert_int_equal(cca_session_restore(s, before, &err), CCA_OK);
        assert_int_equal(cca_session_rewind(s, &err), CCA_USAGE);
        free(wanted);
        cca_snapshot_free(before);
        cca_snapshot_free(behind);
        cca_session_free(s);
    }
}

/* What an interruption left is no state to go on from, to keep or to mark. */
static void test_interrupted(void **state) {
    (void)state;
    float *wanted = make_file("cca", "bf16");
    cca_session *s = open_session("cca", "bf16", 0);
    cca_snapshot *first, *none;
    cca_store *store;
    eval(s, FIRST);
    assert_int_equal(cca_session_snapshot(&first, s, &err), CCA_OK);
    assert_int_equal(cca_session_mark(s, &err), CCA_OK);
    assert_int_equal(cca_store_open(&store, path, true, &err), CCA_OK);
    for (int back = 0; back < 4; back++) {
        cca_stop_set(&stop, 1);
        assert_int_equal(cca_session_eval(s, ids + FIRST, 10, NULL, &err), CCA_INTERRUPTED);
        cca_stop_set(&stop, 0);
        assert_int_equal(cca_session_eval(s, ids + FIRST, 10, NULL, &err), CCA_RUNTIME);
        assert_non_null(strstr(err.text, "interrupted"));
        assert_int_equal(cca_session_save(s, store, ids, &err), CCA_RUNTIME);
        assert_int_equal(cca_session_snapshot(&none, s, &err), CCA_RUNTIME);
        assert_null(none);
        assert_int_equal(cca_session_mark(s, &err), CCA_RUNTIME);
        assert_null(cca_session_logits(s, &err));
        if (back == 0) assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
        if (back == 1) assert_int_equal(cca_session_restore(s, first, &err), CCA_OK);
        if (back == 2) assert_int_equal(cca_session_load(s, store, 0, &err), CCA_OK);
        if (back == 3) cca_session_reset(s);
        if (back == 3) eval(s, FIRST);
        assert_int_equal(cca_session_pos(s), FIRST);
    }
    eval(s, SECOND);
    eval(s, END);
    assert_memory_equal(cca_session_logits(s, &err), wanted, logits_bytes());
    free(wanted);
    cca_snapshot_free(first);
    cca_store_close(store);
    cca_session_free(s);
}

static void ask_to_stop(int signal) {
    (void)signal;
    cca_stop_set(&stop, 1);
}

/* A stop at any moment is told, or came too late to change anything. */
static void test_interrupted_anywhere(void **state) {
    (void)state;
    cca_session *s = open_session("cca", "bf16", 0);
    float *wanted = malloc(logits_bytes());
    uint64_t random = 11;
    int told = 0;
    assert_non_null(wanted);
    signal(SIGALRM, ask_to_stop);
    for (int i = 0; i < 200; i++) {
        const struct itimerval at = {.it_value.tv_usec =
                                         1 + (suseconds_t)(cca_random_next(&random) % 4000)};
        cca_session_reset(s);
        if (i > 0) setitimer(ITIMER_REAL, &at, NULL);
        cca_status status = cca_session_eval(s, ids, 8, NULL, &err);
        setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
        cca_stop_set(&stop, 0);
        told += status == CCA_INTERRUPTED;
        if (status == CCA_INTERRUPTED) continue;
        assert_int_equal(status, CCA_OK);
        const float *own = cca_session_logits(s, &err);
        assert_non_null(own);
        if (i == 0) memcpy(wanted, own, logits_bytes());
        assert_memory_equal(own, wanted, logits_bytes());
    }
    signal(SIGALRM, SIG_DFL);
    assert_true(told > 0);
    free(wanted);
    cca_session_free(s);
}

/* Where a session says that calls may end, they give the bits of one. */
static void test_last_seam(void **state) {
    (void)state;
    const cca_eval_options ends = {.ends_prompt = true};
    for (size_t i = 0; i < ATTNS; i++) {
        bool recalls = !strncmp(attns[i], "recall", 6);
        cca_session *s = open_session(attns[i], "bf16", 0);
        int64_t cut = cca_session_last_seam(s, END, true);
        assert_int_equal(cca_session_chunk_size(s), 64);
        assert_int_equal(cut, recalls ? END - 64 : 960);
        assert_int_equal(cca_session_last_seam(s, 960, false), 896);
        assert_int_equal(cca_session_last_seam(s, 0, true), 0);
        float *wanted = malloc(logits_bytes());
        assert_non_null(wanted);
        assert_int_equal(cca_session_eval(s, ids, END, &ends, &err), CCA_OK);
        memcpy(wanted, cca_session_logits(s, &err), logits_bytes());
        cca_session_reset(s);
        cca_eval_options before = {.ends_prompt = true, .more = END - cut};
        assert_int_equal(cca_session_eval(s, ids, cut, &before, &err), CCA_OK);
        assert_int_equal(cca_session_eval(s, ids + cut, END - cut, &ends, &err), CCA_OK);
        assert_memory_equal(cca_session_logits(s, &err), wanted, logits_bytes());
        free(wanted);
        cca_session_free(s);
    }
}

/* A resumed session goes on with the file. */
static void test_goes_on(void **state) {
    (void)state;
    free(make_file("cca", "bf16"));
    cca_session *s = open_session("cca", "bf16", 0);
    cca_store *store;
    assert_int_equal(cca_store_open(&store, path, true, &err), CCA_OK);
    assert_int_equal(cca_session_load(s, store, 1, &err), CCA_OK);
    eval(s, END);
    assert_int_equal(cca_session_save(s, store, ids, &err), CCA_OK);
    assert_int_equal(cca_store_n_points(store), 3);
    assert_int_equal(cca_store_point_at(store, 2).pos, END);
    assert_int_equal(cca_session_load(s, store, 2, &err), CCA_OK);
    assert_int_equal(cca_session_pos(s), END);
    cca_store_close(store);
    cca_session_free(s);
}

static void test_refused(void **state) {
    (void)state;
    free(make_file("cca", "bf16"));
    static const struct {
        const char *attn, *type;
        int64_t group;
        const char *said;
    } others[] = {
        {"cca", "bf16", 32, "made with group_size=16, this run has group_size=32"},
        {"cca", "f32", 0, "made with cache_type_k=bf16, this run has cache_type_k=f32"},
        {"full", "bf16", 0, "made with attention=cca, this run has attention=full"},
        {"recall", "bf16", 0, "made with recall=0, this run has recall=96"},
        {"recall+q4_0", "bf16", 0, "made with recall=0, this run has recall=96"},
    };
    cca_store *store;
    assert_int_equal(cca_store_open(&store, path, false, &err), CCA_OK);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        cca_session *s = open_session(others[i].attn, others[i].type, others[i].group);
        assert_int_equal(cca_session_load(s, store, 0, &err), CCA_BAD_MODEL);
        if (!strstr(err.text, others[i].said)) fail_msg("%s", err.text);
        assert_int_equal(cca_session_pos(s), 0);
        cca_session_free(s);
    }
    cca_session_options o = cca_session_defaults();
    cca_session *s;
    o.ctx_size = CTX;
    assert_int_equal(cca_session_new(&s, engine, &o, &err), CCA_OK);
    assert_int_equal(cca_session_load(s, store, 0, &err), CCA_USAGE);
    cca_session_free(s);
    o.ctx_size = FIRST;
    o.stored = true;
    assert_int_equal(cca_session_new(&s, engine, &o, &err), CCA_OK);
    assert_int_equal(cca_session_load(s, store, 0, &err), CCA_OK);
    assert_int_equal(cca_session_load(s, store, 1, &err), CCA_NO_FIT);
    assert_int_equal(cca_session_load(s, store, 2, &err), CCA_USAGE);
    assert_non_null(strstr(err.text, "has no checkpoint 2"));
    cca_session_free(s);
    cca_store_close(store);
}

/* A flipped bit anywhere in rows or window is damage. */
static void check_damage(const char *attn) {
    free(make_file(attn, "bf16"));
    cca_store *store;
    assert_int_equal(cca_store_open(&store, path, false, &err), CCA_OK);
    long size = (long)cca_store_bytes(store);
    cca_store_close(store);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, size - 1000, SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, size - 1000, SEEK_SET), 0);
    assert_int_equal(fputc(c ^ 1, f), c ^ 1);
    fclose(f);
    cca_session *s = open_session(attn, "bf16", 0);
    assert_int_equal(cca_store_open(&store, path, false, &err), CCA_OK);
    assert_int_equal(cca_session_load(s, store, 0, &err), CCA_OK);
    assert_int_equal(cca_session_load(s, store, 1, &err), CCA_BAD_MODEL);
    assert_non_null(strstr(err.text, "checksum"));
    cca_store_close(store);
    cca_session_free(s);
}

static void test_damaged(void **state) {
    (void)state;
    check_damage("cca");
    check_damage("recall");
    check_damage("recall+q8_0");
}

static int begin(void **state) {
    (void)state;
    cca_engine_options o = {.device = "cpu", .n_threads = 2};
    int fd = mkstemp(path);
    uint64_t random = 7;
    if (fd < 0 || cca_engine_open(&engine, MODEL, &o, &err) != CCA_OK) return -1;
    close(fd);
    for (int i = 0; i < CTX; i++) ids[i] = (int32_t)(cca_random_next(&random) % 4000);
    return 0;
}

static int end(void **state) {
    (void)state;
    cca_engine_close(engine);
    return unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_mark_and_snapshot),
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_last_seam),
        cmocka_unit_test(test_interrupted_anywhere),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
