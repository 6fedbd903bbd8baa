/* The logits behind some tokens that depend on nothing but their number.
 *
 *     cca_session_options so = cca_session_defaults();
 *     so.attn = "full";
 *     float *logits = test_last_logits(path, NULL, so, 24);          // free it */
#ifndef CCA_TEST_LAST_LOGITS_H
#define CCA_TEST_LAST_LOGITS_H

#include "engine.h"
#include "tests/unit/test.h"

/* kernels: of the CPU; NULL: the fastest. */
static inline float *test_last_logits(const char *path, const char *kernels, cca_session_options so,
                                      int64_t n_tokens) {
    const cca_engine_options eo = {.device = "cpu", .n_threads = 1, .kernels = kernels};
    cca_error err;
    cca_engine *engine;
    cca_session *session;
    if (cca_engine_open(&engine, path, &eo, &err) != CCA_OK) fail_msg("%s", err.text);
    const cca_engine_facts *facts = cca_engine_info(engine);
    if (kernels) assert_string_equal(facts->kernels, kernels);
    const size_t bytes = (size_t)facts->vocab_size * sizeof(float);
    int32_t *tokens = malloc((size_t)n_tokens * sizeof *tokens);
    float *out = malloc(bytes);
    assert_true(tokens && out);
    for (int64_t i = 0; i < n_tokens; i++) tokens[i] = (int32_t)(i * 7 % facts->vocab_size);
    so.ctx_size = n_tokens;
    if (cca_session_new(&session, engine, &so, &err) != CCA_OK) fail_msg("%s", err.text);
    if (cca_session_eval(session, tokens, n_tokens, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
    memcpy(out, cca_session_logits(session, &err), bytes);
    cca_session_free(session), cca_engine_close(engine);
    free(tokens);
    return out;
}

#endif
