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

/* Two ranks beside rank 0 on its machine, two on another one: each machine is full by itself. */
static void ranks_of_a_machine_are_counted_together(void **state) {
    enum { N_RANKS = 5, LONG_TEXT = 100000, WEIGHTS = 1000 };
    cca_comm_seat seats[N_RANKS] = {{0, 0}, {0, 0}, {2, 0}, {2, 0}, {0, 0}};
    cca_comm comm = {.n_ranks = N_RANKS, .seats = seats};
    cca_session_options o = cca_session_defaults();
    cca_session_size alone, all, texts;
    cca_engine *engine;
    cca_error err;
    (void)state;
    assert_int_equal(cca_engine_open(&engine, "models/cca-books-15m.gguf", NULL, &err), CCA_OK);
    o.ctx_size = LONG_TEXT;
    assert_int_equal(cca_session_measure(&alone, engine, &o, &err), CCA_OK);
    assert_true(alone.n_ranks == 1 && alone.other == 0 && alone.others == 0);
    o.comm = &comm;
    assert_int_equal(cca_session_measure(&all, engine, &o, &err), CCA_OK);
    assert_true(all.n_ranks == N_RANKS && all.other > 0 && all.others == 2 * all.other);
    assert_true(all.other < all.total && all.total > alone.total);
    seats[2].available = seats[3].available = WEIGHTS + 2 * all.other;
    assert_int_equal(cca_session_check_ranks(&all, &comm, WEIGHTS, &err), CCA_OK);
    assert_int_equal(cca_session_check_ranks(&all, &comm, WEIGHTS + 1, &err), CCA_NO_MEMORY);
    if (!strstr(err.text, "rank 2: its machine has")) fail_msg("%s", err.text);
    /* Short texts, of which three ranks have one each: a whole session, and one of them is away. */
    o.share_from = LONG_TEXT + 1, o.n_texts = 3;
    assert_int_equal(cca_session_measure(&texts, engine, &o, &err), CCA_OK);
    assert_true(texts.n_ranks == 3 && texts.others == texts.other && texts.other == texts.total);
    seats[2].available = WEIGHTS + texts.other;
    assert_int_equal(cca_session_check_ranks(&texts, &comm, WEIGHTS, &err), CCA_OK);
    o.n_texts = 0;
    assert_int_equal(cca_session_measure(&all, engine, &o, &err), CCA_OK);
    assert_true(all.n_ranks == 1 && all.others == 0);
    cca_engine_close(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_are_those_asked_for),
        cmocka_unit_test(ranks_of_a_machine_are_counted_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
