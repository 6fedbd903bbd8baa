/* What an engine is opened with holds for its sessions. */
#include "tests/unit/last_logits.h"

enum { N = 40, VOCABULARY = 4096 };

static float *logits_with(const char *kernels) {
    return test_last_logits("models/cca-books-15m.gguf", kernels, cca_session_defaults(), N);
}

/* Variants add in other orders, so that their last bits differ. */
static void kernels_are_those_asked_for(void **state) {
    (void)state;
    float *generic = logits_with("generic"), *plain = logits_with("plain");
    float *again = logits_with("plain");
    assert_memory_equal(plain, again, VOCABULARY * sizeof *plain);
    assert_memory_not_equal(plain, generic, VOCABULARY * sizeof *plain);
    test_below(cca_distance(generic, plain, VOCABULARY), 1e-3, "generic kernels, a cache in bf16");
    free(generic), free(plain), free(again);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kernels_are_those_asked_for)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
