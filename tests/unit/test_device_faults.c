/* What the engine makes of a device that fails, returns what is no number, or does not come back:
 * at each call in turn, of a run that opens a model, reads some tokens, stores their state, and
 * reads more. The first failure is told and stays, everything can be given back, no logits are made
 * of numbers that are none, and what was stored is good: a run without a fault goes on from there
 * to the bits of one that nobody disturbed. */
#include "tests/unit/faulty_device.h"
#include "tests/unit/recall_models.h"

#include <pthread.h>
#include <signal.h>

static const char MODEL[] = "gqa2-wide";
static char path[] = "/tmp/cca-test-device-faults-XXXXXX"; /* of the stored state */
static faulty device;
static volatile sig_atomic_t stop;
static float *usual; /* the logits that nobody disturbed */

/* ---- a run ----------------------------------------------------------------------------- */

/* One token's logits, as far as there are some. */
static cca_status take_logits(float *out, cca_session *s, int64_t vocab, cca_error *err) {
    const float *logits = cca_session_logits(s, err);
    if (!logits) return err->status;
    memcpy(out, logits, (size_t)vocab * sizeof *out);
    return CCA_OK;
}

/* Reads what is behind the stored state, or all of it: half of the tokens, a checkpoint, all but
 * one of the rest, and that one. */
static cca_status read_tokens(float *out, stored *s, const subject *x, cca_error *err) {
    const int64_t half = x->m.length / 2, last = x->m.length - 1;
    cca_status status = CCA_OK;
    if (cca_session_pos(s->session) == 0) status = extend_stored(s, x, half, NULL, err);
    if (!status) {
        status = cca_session_eval(s->session, x->m.tokens + half, last - half, NULL, err);
    }
    if (!status) status = cca_session_eval(s->session, x->m.tokens + last, 1, NULL, err);
    return status ? status : take_logits(out, s->session, x->vocab, err);
}

static cca_status open_state(stored *s, const subject *x, cca_error *err) {
    cca_session_options o = x->options;
    o.stored = true;
    o.stop = &stop;
    o.chunk_size = 32;
    *s = (stored){0};
    cca_status status = cca_session_new(&s->session, x->engine, &o, err);
    if (status) return status;
    if (access(path, F_OK) == 0) {
        status = cca_store_open(&s->store, path, true, err);
        return status ? status : cca_session_load(s->session, s->store, 0, err);
    }
    char *facts = cca_session_facts(s->session);
    assert_non_null(facts);
    status = cca_store_create(&s->store, path, facts, err);
    free(facts);
    return status;
}

/* All of it with the n-th call doing harm. The engine's own calls come before. */
static cca_status run_with(float *out, const subject *x, fault_kind fault, long n, cca_error *err) {
    stored s;
    cca_error again;
    memset(&device, 0, sizeof device);
    device.fault = fault, device.at = n;
    cca_stop_set(&stop, 0);
    cca_status status = open_state(&s, x, err);
    if (!status) status = read_tokens(out, &s, x, err);
    bool sticks = status == CCA_RUNTIME && s.session && fault != FAULT_NAN;
    if (sticks) { /* the device's failure, whatever is tried */
        cca_session_reset(s.session);
        assert_int_equal(cca_session_eval(s.session, x->m.tokens, 1, NULL, &again), status);
        assert_string_equal(again.text, err->text);
    }
    if (status == CCA_INTERRUPTED && s.session) { /* which ends with being told */
        cca_stop_set(&stop, 0);
        cca_session_reset(s.session);
        assert_int_equal(cca_session_eval(s.session, x->m.tokens, 1, NULL, &again), CCA_OK);
    }
    close_stored(&s);
    return status;
}

/* ---- each call ------------------------------------------------------------------------- */

static const struct {
    fault_kind kind;
    cca_status status;
    const char *says;
} faults[] = {
    {FAULT_FAILS, CCA_RUNTIME, "the device of tests"},
    {FAULT_NO_MEMORY, CCA_NO_MEMORY, "no memory"},
    {FAULT_LOST, CCA_RUNTIME, "the device of tests"},
    {FAULT_NAN, CCA_RUNTIME, "no finite number"},
    {FAULT_WAITS, CCA_INTERRUPTED, "interrupted"},
    {FAULT_HANGS, CCA_RUNTIME, "has not answered"},
};

/* Somebody asks a device that does not come back to stop. */
static void *watch(void *unused) {
    while (!atomic_load(&device.stalled)) {
        usleep(200);
        pthread_testcancel();
    }
    cca_stop_set(&stop, 1);
    return unused;
}

static cca_status run_watched(float *out, const subject *x, fault_kind fault, long n,
                              cca_error *err) {
    pthread_t somebody;
    const bool stalls = fault == FAULT_WAITS || fault == FAULT_HANGS;
    device.stalled = 0;
    if (stalls) assert_int_equal(pthread_create(&somebody, NULL, watch, NULL), 0);
    cca_status status = run_with(out, x, fault, n, err);
    if (stalls) {
        pthread_cancel(somebody);
        pthread_join(somebody, NULL);
    }
    return status;
}

/* The run that goes on must come to the usual bits. */
static void check_goes_on(const subject *x, int fault, long n) {
    cca_error err;
    float *out = malloc(logit_bytes(x, 1));
    assert_non_null(out);
    if (run_with(out, x, FAULT_NONE, 0, &err)) fail_msg("%d, call %ld: %s", fault, n, err.text);
    assert_memory_equal(out, usual, logit_bytes(x, 1));
    free(out);
}

/* False where there are fewer calls. */
static bool check_call(const subject *x, int fault, long n) {
    cca_error err = {.text = ""};
    float *out = malloc(logit_bytes(x, 1));
    assert_non_null(out);
    unlink(path);
    cca_status status = run_watched(out, x, faults[fault].kind, n, &err);
    bool made = atomic_load(&device.n_calls) >= n;
    if (!status) {
        if (made && faults[fault].kind != FAULT_NAN) fail_msg("%d, call %ld: no harm", fault, n);
        /* Without bounds groups are chosen otherwise, whose keys and values are as they were. */
        bool bounds = strcmp(device.name, "bound") == 0;
        if (!bounds) assert_memory_equal(out, usual, logit_bytes(x, 1));
    } else if (status != faults[fault].status || !strstr(err.text, faults[fault].says)) {
        fail_msg("%d, call %ld (%s): status %d, %s", fault, n, device.name, (int)status, err.text);
    }
    free(out);
    check_goes_on(x, fault, n);
    return made;
}

static void each_call(void **state) {
    (void)state;
    enum { N_FAULTS = sizeof faults / sizeof *faults };
    cca_error err;
    subject x = open_subject(MODEL, 1, "tests");
    usual = malloc(logit_bytes(&x, 1));
    assert_non_null(usual);
    if (run_with(usual, &x, FAULT_NONE, 0, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < N_FAULTS; i++) {
        long n = 1;
        while (check_call(&x, i, n)) n++;
        assert_true(n > 100);
    }
    unlink(path);
    free(usual);
    close_subject(&x);
}

/* ---- the model ------------------------------------------------------------------------- */

/* A device that fails while weights are loaded: no engine, and its failure. */
static void weights_that_do_not_arrive(void **state) {
    (void)state;
    static const char model[] = "models/cca-books-15m.gguf";
    cca_engine *engine;
    cca_error err;
    for (long n = 1;; n++) {
        memset(&device, 0, sizeof device);
        device.fault = n % 2 ? FAULT_FAILS : FAULT_NO_MEMORY, device.at = n;
        cca_status status = cca_engine_open(&engine, model, NULL, &err);
        if (atomic_load(&device.n_calls) < n) {
            assert_int_equal(status, CCA_OK);
            assert_true(n > 20);
            cca_engine_close(engine);
            return;
        }
        assert_int_equal(status, n % 2 ? CCA_RUNTIME : CCA_NO_MEMORY);
        assert_null(engine);
        assert_non_null(strstr(err.text, "the device of tests"));
    }
}

static int begin(void **state) {
    (void)state;
    int file = mkstemp(path);
    faulty_device = &device;
    if (file < 0) return -1;
    close(file);
    return unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_call),
        cmocka_unit_test(weights_that_do_not_arrive),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
