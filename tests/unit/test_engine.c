/* What an engine is opened with holds for its sessions. */
#include "engine.h"
#include "tests/unit/test.h"

enum { N = 40 };

static float *logits_with(const char *kernels, int64_t *vocab_size) {
    const cca_engine_options options = {.device = "cpu", .n_threads = 1, .kernels = kernels};
    cca_session_options sessions = cca_session_defaults();
    cca_engine *engine;
    cca_session *session;
    cca_error err;
    sessions.ctx_size = N;
    int32_t ids[N];
    for (int i = 0; i < N; i++) ids[i] = 3 + i * 37;
    assert_int_equal(cca_engine_open(&engine, "models/cca-books-15m.gguf", &options, &err), CCA_OK);
    assert_string_equal(cca_engine_info(engine)->kernels, kernels);
    if (cca_session_new(&session, engine, &sessions, &err)) fail_msg("%s", err.text);
    assert_int_equal(cca_session_eval(session, ids, N, NULL, &err), CCA_OK);
    *vocab_size = cca_engine_info(engine)->vocab_size;
    float *copy = malloc((size_t)*vocab_size * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, cca_session_logits(session, &err), (size_t)*vocab_size * sizeof *copy);
    cca_session_free(session);
    cca_engine_close(engine);
    return copy;
}

/* Variants add in other orders, so that their last bits differ. */
static void kernels_are_those_asked_for(void **state) {
    (void)state;
    int64_t n;
    float *generic = logits_with("generic", &n), *plain = logits_with("plain", &n);
    float *again = logits_with("plain", &n);
    assert_memory_equal(plain, again, (size_t)n * sizeof *plain);
    assert_memory_not_equal(plain, generic, (size_t)n * sizeof *plain);
    test_below(cca_distance(generic, plain, n), 1e-3, "generic kernels");
    free(generic), free(plain), free(again);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kernels_are_those_asked_for)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
