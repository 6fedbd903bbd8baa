/* What an engine is opened with holds for its sessions. */
#include "tests/unit/last_logits.h"

#include <malloc.h>

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

/* Bytes that malloc has given and not got back. */
static int64_t in_use(void) {
    struct mallinfo2 info = mallinfo2();
    return (int64_t)(info.uordblks + info.hblkhd);
}

/* What a session has in the end is what was measured, with scratch memory and operands. */
static void what_sessions_take_is_measured(void **state) {
    (void)state;
    enum { LENGTH = 3000, SMALL = 16 << 10, STACKS = 256 << 10 /* not malloc's */ };
    static const struct {
        const char *attn, *kernels;
        int64_t recall, threads, chunk_size, group_size;
    } cases[] = {
        {"cca", NULL, 0, 2, 0, 0},           {"recall", NULL, 256, 2, 0, 0},
        {"recall", NULL, 256, 4, 0, 2},      {"full", NULL, 0, 1, 0, 0},
        {"recall", "generic", 256, 2, 0, 2}, {"recall", "plain", 64, 2, 0, 0},
        {"recall", NULL, 256, 2, 16, 0},     {"cca", "plain", 0, 2, 1, 0},
    };
    int32_t ids[LENGTH];
    for (int i = 0; i < LENGTH; i++) ids[i] = 3 + i * 7 % 1000;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cca_engine *engine;
        cca_session *s;
        cca_session_size size;
        cca_error err = {.text = ""};
        cca_engine_options how = {.n_threads = (int)cases[i].threads, .kernels = cases[i].kernels};
        cca_session_options o = cca_session_defaults();
        const char *model = "models/cca-books-15m.gguf";
        if (cca_engine_open(&engine, model, &how, &err)) fail_msg("%s", err.text);
        o.ctx_size = cases[i].chunk_size == 1 ? 600 : LENGTH; /* a token at a time takes long */
        o.attn = cases[i].attn, o.recall = cases[i].recall, o.chunk_size = cases[i].chunk_size;
        o.group_size = cases[i].group_size; /* small: many to choose from */
        if (cca_session_measure(&size, engine, &o, &err)) fail_msg("%s", err.text);
        const int64_t before = in_use();
        if (cca_session_new(&s, engine, &o, &err)) fail_msg("%s", err.text);
        if (cca_session_eval(s, ids, o.ctx_size - 1, NULL, &err)) fail_msg("%s", err.text);
        if (cca_session_eval(s, ids, 1, NULL, &err)) fail_msg("%s", err.text);
        const int64_t taken = in_use() - before, measured = (int64_t)size.total;
        cca_session_free(s);
        cca_engine_close(engine);
        if (before == 0) skip(); /* a sanitizer's malloc tells nothing */
        print_message("%s, %s: %lld taken, %lld measured\n", cases[i].attn,
                      cases[i].kernels ? cases[i].kernels : "the best", (long long)taken,
                      (long long)measured);
        assert_in_range(measured + SMALL, taken, taken + taken / 8 + STACKS);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_are_those_asked_for),
        cmocka_unit_test(ranks_of_a_machine_are_counted_together),
        cmocka_unit_test(what_sessions_take_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
