/* A model that ranks have in common, prompts, and their logits.
 *
 *     static void compare(const subject *x) { … run_trial(x, &trial, session, &n) … }
 *     run_ranks(comm, "tests/golden/recall", "mha-wide", compare); */
#ifndef CCA_TEST_SUBJECT_H
#define CCA_TEST_SUBJECT_H

#include "tests/mpi/ranks.h"
#include "tests/unit/export_and_open.h"

enum { MOST_CALLS = 4, DECODED = 3, LONG = 5100, SMALL = 32, LARGE = 128 };

/* A prompt, in one or more calls, and how it is attended to. */
typedef struct trial {
    const char *what, *attn;
    int64_t g, s, sinks;
    int64_t recall, tile; /* 0: the default */
    cca_cores cores;
    bool same_bits; /* for any number of ranks */
    bool ends_prompt;
    int64_t calls[MOST_CALLS]; /* tokens of each */
    const char *row_type;
} trial;

/* Prompts of all kinds of attention that recalls nothing. */
static const trial TRIALS[] = {
    {"cca", "cca", 4, 16, 4, .calls = {300}},
    {"no sinks", "cca", 4, 16, 0, .calls = {301}},
    {"many sinks", "cca", 4, 16, 64, .calls = {303}},
    {"odd group", "cca", 5, 15, 5, .calls = {299, 3, 8}},
    {"wide window", "cca", 16, 128, 16, .calls = {397}},
    {"groups of one", "cca", 1, 8, 1, .calls = {157, 30}},
    {"slices of a group", "cca", 4, 64, 4, .calls = {33}},
    {"too few tokens", "cca", 4, 16, 4, .calls = {7, 2, 1}},
    {"all in the window", "cca", 4, 1024, 4, .calls = {200}},
    {"appended", "cca", 4, 16, 4, .calls = {100, 150, 1, 77}},
    {"appended in the window", "cca", 16, 128, 16, .calls = {61, 62, 63, 64}},
    {"long", "cca", 4, 16, 4, .calls = {3001}, .same_bits = true},
    {"long, appended", "cca", 16, 64, 16, .calls = {2049, 2100}, .same_bits = true},
    {"full", "full", 0, 0, -1, .calls = {300, 99, 1}},
    {"full, long", "full", 0, 0, -1, .calls = {2500}, .same_bits = true},
    {"window", "window", 4, 16, -1, .calls = {300}},
    {"sinks:9", "sinks:9", 4, 16, -1, .calls = {300, 99}},
    {"mean", "mean", 4, 16, -1, .calls = {300}},
    {"max", "max", 4, 16, -1, .calls = {300}},
};
enum { N_TRIALS = sizeof TRIALS / sizeof *TRIALS };

/* A test's ranks, and what rank 0 compares. */
typedef struct subject {
    cca_comm *comm;
    cca_engine *engine;
    const char *name;
    int64_t vocab;
    int32_t ids[LONG + DECODED];
} subject;

static inline cca_session_options options_of(const trial *t) {
    cca_session_options o = cca_session_defaults();
    o.ctx_size = LONG + DECODED;
    o.attn = t->attn;
    o.group_size = t->g, o.window_size = t->s, o.chunk_size = t->same_bits ? SMALL : LARGE;
    o.sinks = t->sinks, o.cores = t->cores;
    if (t->recall) o.recall = t->recall, o.recall_tile = t->tile;
    o.k_type = o.v_type = "f32";
    o.row_type = t->row_type;
    o.stored = true;
    return o;
}

/* Logits [calls + DECODED][vocab]; to be freed. */
static inline float *run_trial(const subject *x, const trial *t, cca_session *session, int *n) {
    cca_error err;
    float *out = malloc((size_t)((MOST_CALLS + DECODED) * x->vocab) * sizeof *out);
    assert_non_null(out);
    *n = 0;
    for (int64_t i = 0, at = 0; i < MOST_CALLS + DECODED; i++) {
        int64_t some = i < MOST_CALLS ? t->calls[i] : 1;
        cca_eval_options o = {.ends_prompt = t->ends_prompt && i < MOST_CALLS};
        if (some == 0) continue;
        if (cca_session_eval(session, x->ids + at, some, &o, &err)) {
            fail_msg("%s: %s", t->what, err.text);
        }
        at += some;
        const float *logits = cca_session_logits(session, &err);
        assert_non_null(logits);
        memcpy(out + (*n)++ * x->vocab, logits, (size_t)x->vocab * sizeof *out);
    }
    return out;
}

static inline subject open_subject(cca_comm *comm, const char *folder, const char *name) {
    subject x = {.comm = comm};
    x.engine = test_export_and_open_on(ranks_device(comm), folder, name, CCA_F32, 1);
    uint64_t random = 25;
    x.name = name;
    x.vocab = cca_engine_info(x.engine)->vocab_size;
    for (int i = 0; i < LONG + DECODED; i++) {
        x.ids[i] = (int32_t)(cca_random_next(&random) % (uint64_t)x.vocab);
    }
    return x;
}

/* Rank 0 tests, the others serve. */
typedef void (*test_of_rank_0)(const subject *x);

static inline void run_ranks(cca_comm *comm, const char *folder, const char *name,
                             test_of_rank_0 test) {
    cca_error err;
    subject x = open_subject(comm, folder, name);
    if (cca_comm_rank(comm) > 0) {
        if (cca_engine_serve(x.engine, comm, NULL, &err)) fail_msg("%s", err.text);
    } else {
        test(&x);
        assert_int_equal(cca_engine_dismiss(comm, &err), CCA_OK);
    }
    cca_engine_close(x.engine);
}

#endif
