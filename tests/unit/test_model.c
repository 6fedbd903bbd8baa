/* Whole models against logits computed elsewhere: the folders of tests/golden/models, exported and
 * run. Bounds are the largest difference over the spread of a run's logits:
 *     f32 weights and cache 5e-6, bf16 1e-2, f16 2e-3, other chunks or g = 1 (f32) 2e-6. */
#include "engine.h"
#include "export/model_file.h"
#include "tests/unit/export_and_open.h"

#include <dirent.h>
#include <unistd.h>

static const char FOLDER[] = "tests/golden/models";
enum { MOST_MODELS = 128 };

/* ---- golden files -------------------------------------------------------------------- */

typedef struct golden_run {
    int32_t g, s, length, n_rows;
    const int32_t *rows;
    const float *logits;
} golden_run;

typedef struct golden {
    char *bytes;
    int32_t n_tokens, n_runs;
    const int32_t *tokens;
    golden_run runs[8];
} golden;

static golden read_golden(const char *name, int64_t vocab) {
    golden g = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/%s/logits.bin", FOLDER, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    g.bytes = malloc(1 << 22);
    assert_non_null(g.bytes);
    size_t size = fread(g.bytes, 1, 1 << 22, file);
    fclose(file);
    const int32_t *at = (const int32_t *)g.bytes;
    g.n_tokens = *at++;
    g.tokens = at;
    at += g.n_tokens;
    g.n_runs = *at++;
    assert_in_range(g.n_runs, 1, 8);
    for (int i = 0; i < g.n_runs; i++) {
        golden_run *r = &g.runs[i];
        r->g = at[0], r->s = at[1], r->length = at[2], r->n_rows = at[3];
        r->rows = at + 4;
        r->logits = (const float *)(r->rows + r->n_rows);
        at = (const int32_t *)(r->logits + r->n_rows * vocab);
    }
    assert_int_equal((const char *)at - g.bytes, size);
    return g;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the model folders, sorted; at least 21. */
static int list_models(char **names, int most) {
    DIR *dir = opendir(FOLDER);
    assert_non_null(dir);
    int n = 0;
    for (struct dirent *d; (d = readdir(dir)) && n < most;) {
        if (strncmp(d->d_name, "oracle-", 7) != 0 && strncmp(d->d_name, "hf-", 3) != 0) continue;
        names[n] = strdup(d->d_name);
        assert_non_null(names[n++]);
    }
    closedir(dir);
    assert_true(n >= 21);
    qsort(names, (size_t)n, sizeof *names, compare_names);
    return n;
}

/* ---- running ------------------------------------------------------------------------- */

/* Logits of all positions end up in out. */
typedef struct collector {
    float *out;
    int64_t vocab;
} collector;

static cca_status collect(void *user, cca_session *session, int64_t pos, int64_t n,
                          cca_error *err) {
    collector *c = user;
    return cca_session_chunk_logits(session, 0, n, c->out + pos * c->vocab, err);
}

typedef struct run_options {
    int64_t g, s; /* 0, 0: full */
    const char *type;
    int64_t chunk;
    int64_t prefill; /* tokens in chunks, the rest one by one; 0: all in chunks */
} run_options;

static cca_session *new_session(cca_engine *engine, const run_options *r, int64_t length) {
    cca_session_options o = cca_session_defaults();
    cca_session *session;
    cca_error err;
    o.ctx_size = length;
    o.attn = r->g ? "cca" : "full";
    o.sinks = r->g ? 0 : CCA_AUTO;
    o.group_size = r->g;
    o.window_size = r->s;
    o.k_type = o.v_type = r->type;
    o.chunk_size = r->chunk;
    if (cca_session_new(&session, engine, &o, &err) != CCA_OK) fail_msg("%s", err.text);
    return session;
}

/* All logits (length, vocab); to be freed. */
static float *run(cca_engine *engine, const int32_t *tokens, int64_t length, const run_options *r) {
    int64_t vocab = cca_engine_info(engine)->vocab_size;
    float *out = malloc((size_t)(length * vocab) * sizeof *out);
    assert_non_null(out);
    memset(out, 0xff, (size_t)(length * vocab) * sizeof *out);
    collector c = {out, vocab};
    cca_eval_options eval = {.on_chunk = collect, .user = &c};
    cca_error err;
    cca_session *session = new_session(engine, r, length);
    int64_t prefill = r->prefill ? r->prefill : length;
    if (cca_session_eval(session, tokens, prefill, &eval, &err) != CCA_OK) fail_msg("%s", err.text);
    for (int64_t i = prefill; i < length; i++) {
        if (cca_session_eval(session, tokens + i, 1, &eval, &err) != CCA_OK) {
            fail_msg("%s", err.text);
        }
    }
    const float *last = cca_session_logits(session, &err);
    test_below(cca_spread_difference(last, out + (length - 1) * vocab, vocab), 2e-6,
               "the last token's logits");
    cca_session_free(session);
    return out;
}

/* Closes the engine. */
static void compare_with_golden(cca_engine *engine, const char *name, const char *cache,
                                double bound) {
    int64_t vocab = cca_engine_info(engine)->vocab_size;
    golden g = read_golden(name, vocab);
    for (int i = 0; i < g.n_runs; i++) {
        const golden_run *r = &g.runs[i];
        run_options o = {r->g, r->s, cache, 64, 0};
        float *logits = run(engine, g.tokens, r->length, &o);
        float *rows = malloc((size_t)(r->n_rows * vocab) * sizeof *rows);
        assert_non_null(rows);
        for (int k = 0; k < r->n_rows; k++) {
            memcpy(rows + k * vocab, logits + r->rows[k] * vocab, (size_t)vocab * sizeof *rows);
        }
        char what[128];
        snprintf(what, sizeof what, "%s, g %d, s %d, cache %s", name, r->g, r->s, cache);
        test_below(cca_spread_difference(rows, r->logits, r->n_rows * vocab), bound, what);
        free(rows), free(logits);
    }
    free(g.bytes);
    cca_engine_close(engine);
}

static void for_each_model(cca_dtype type, const char *cache, double bound) {
    char *names[MOST_MODELS] = {0};
    int n = list_models(names, MOST_MODELS);
    for (int i = 0; i < n; i++) {
        cca_engine *engine = test_export_and_open(FOLDER, names[i], type, 2);
        compare_with_golden(engine, names[i], cache, bound);
        free(names[i]);
    }
}

static void f32_equals_the_oracle(void **state) {
    (void)state;
    for_each_model(CCA_F32, "f32", 5e-6);
}

static void bf16_is_near_the_oracle(void **state) {
    (void)state;
    for_each_model(CCA_BF16, "bf16", 1e-2);
}

static void f16_is_near_the_oracle(void **state) {
    (void)state;
    for_each_model(CCA_F16, "f16", 2e-3);
}

/* Made of folders by llama.cpp's convert_hf_to_gguf.py: other keys and tensors than export writes.
 */
static void converted_files_equal_the_oracle(void **state) {
    (void)state;
    static const char *const names[] = {"ministral3", "olmo3", "phi3-longrope-partial"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128], folder[64];
        cca_engine *engine;
        cca_error err;
        snprintf(path, sizeof path, "%s/converted/%s.gguf", FOLDER, names[i]);
        snprintf(folder, sizeof folder, "hf-%s", names[i]);
        cca_engine_options eo = {.device = "cpu", .n_threads = 2};
        if (cca_engine_open(&engine, path, &eo, &err) != CCA_OK) fail_msg("%s", err.text);
        compare_with_golden(engine, folder, "f32", 5e-6);
    }
}

static void any_cut_gives_the_same_logits(void **state) {
    (void)state;
    static const char *const names[] = {"oracle-gqa3", "oracle-qwen2-yarn",
                                        "oracle-long", "hf-mistral3",
                                        "hf-olmo3",    "hf-phi3-longrope-partial"};
    static const run_options cuts[] = {
        {4, 16, "f32", 1, 0}, {4, 16, "f32", 7, 0},    {4, 16, "f32", 64, 0},
        {4, 16, "f32", 9, 9}, {4, 16, "f32", 512, 70}, {16, 64, "f32", 33, 100},
    };
    for (size_t m = 0; m < sizeof names / sizeof *names; m++) {
        cca_engine *engine = test_export_and_open(FOLDER, names[m], CCA_F32, 2);
        int64_t vocab = cca_engine_info(engine)->vocab_size;
        golden g = read_golden(names[m], vocab);
        const int64_t n = cca_min(g.n_tokens, 141);
        for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
            run_options one = {cuts[i].g, cuts[i].s, "f32", 512, 0};
            float *want = run(engine, g.tokens, n, &one), *got = run(engine, g.tokens, n, &cuts[i]);
            test_below(cca_spread_difference(got, want, n * vocab), 2e-6, names[m]);
            free(want), free(got);
        }
        free(g.bytes);
        cca_engine_close(engine);
    }
}

/* The token of the largest logit; of equal ones the first. */
static int32_t likeliest(const float *logits, int64_t vocab) {
    int32_t best = 0;
    for (int32_t i = 1; i < vocab; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

/* 50 tokens, each the likeliest behind those before it, equal those of transformers. */
static void compare_greedy(cca_engine *engine, const int32_t *ids, int32_t n_prompt, int32_t n_all,
                           const char *name) {
    const int64_t vocab = cca_engine_info(engine)->vocab_size;
    const run_options o = {0, 0, "f32", 64, 0};
    cca_session *session = new_session(engine, &o, n_all);
    cca_error err;
    assert_true(n_all - n_prompt == 50);
    if (cca_session_eval(session, ids, n_prompt, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
    for (int32_t i = n_prompt; i < n_all; i++) {
        const int32_t next = likeliest(cca_session_logits(session, &err), vocab);
        if (next != ids[i]) fail_msg("%s, token %d: %d, not %d", name, i - n_prompt, next, ids[i]);
        if (cca_session_eval(session, &next, 1, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
    }
    cca_session_free(session);
}

/* Every folder of transformers' has such tokens; a family that has none is missing. */
static void greedy_tokens_are_those_of_transformers(void **state) {
    (void)state;
    char *names[MOST_MODELS] = {0};
    const int n = list_models(names, MOST_MODELS);
    int n_compared = 0;
    for (int i = 0; i < n; i++) {
        int32_t numbers[512];
        char path[512];
        if (strncmp(names[i], "hf-", 3) != 0) continue;
        snprintf(path, sizeof path, "%s/%s/greedy.bin", FOLDER, names[i]);
        FILE *file = fopen(path, "rb");
        if (!file) fail_msg("%s is missing", path);
        const size_t read = fread(numbers, sizeof *numbers, 512, file);
        fclose(file);
        cca_engine *engine = test_export_and_open(FOLDER, names[i], CCA_F32, 2);
        const int32_t *at = numbers + 1;
        for (int32_t k = 0; k < numbers[0]; k++, at += 2 + at[1]) {
            compare_greedy(engine, at + 2, at[0], at[1], names[i]);
        }
        assert_int_equal(at - numbers, read);
        cca_engine_close(engine);
        n_compared++;
    }
    for (int i = 0; i < n; i++) free(names[i]);
    assert_true(n_compared >= 36);
}

/* Logits of the first 40 tokens in a context of so many positions, and its session's facts. */
static float *run_in_context(cca_engine *engine, const int32_t *tokens, int64_t ctx_size,
                             char **facts) {
    run_options r = {4, 16, "f32", 16, 0};
    cca_session *session = new_session(engine, &r, ctx_size);
    float *out = malloc(64 * sizeof *out);
    cca_error err;
    assert_non_null(out);
    if (cca_session_eval(session, tokens, 40, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
    memcpy(out, cca_session_logits(session, &err), 64 * sizeof *out);
    *facts = cca_session_facts(session);
    cca_session_free(session);
    return out;
}

/* Short factors up to the original length of 64, long ones for longer contexts, whatever is in
 * them. */
static void longrope_goes_by_the_context(void **state) {
    (void)state;
    static const int64_t sizes[] = {40, 64, 65, 500};
    static const char *const names[] = {"hf-phi3-longrope", "hf-phi3-longrope-partial"};
    for (int m = 0; m < 2; m++) {
        cca_engine *engine = test_export_and_open(FOLDER, names[m], CCA_F32, 2);
        golden g = read_golden(names[m], 64);
        float *logits[4];
        char *facts[4];
        for (int i = 0; i < 4; i++) {
            logits[i] = run_in_context(engine, g.tokens, sizes[i], &facts[i]);
        }
        assert_memory_equal(logits[0], logits[1], 64 * sizeof(float));
        assert_memory_equal(logits[2], logits[3], 64 * sizeof(float));
        assert_true(cca_spread_difference(logits[1], logits[2], 64) > 1e-2);
        assert_non_null(
            strstr(facts[1], "longrope: short factors for contexts up to 64 positions"));
        assert_non_null(strstr(facts[2], "longrope: long factors for contexts above 64 positions"));
        for (int i = 0; i < 4; i++) free(logits[i]), free(facts[i]);
        free(g.bytes);
        cca_engine_close(engine);
    }
}

static void group_size_one_equals_full(void **state) {
    (void)state;
    static const char *const names[] = {"oracle-gqa8", "oracle-qwen2", "hf-llama3-tied"};
    for (int m = 0; m < 3; m++) {
        cca_engine *engine = test_export_and_open(FOLDER, names[m], CCA_F32, 2);
        int64_t vocab = cca_engine_info(engine)->vocab_size;
        golden g = read_golden(names[m], vocab);
        float *full = run(engine, g.tokens, 100, &(run_options){0, 0, "f32", 64, 0});
        float *one = run(engine, g.tokens, 100, &(run_options){1, 16, "f32", 64, 80});
        test_below(cca_spread_difference(one, full, 100 * vocab), 2e-6, names[m]);
        free(full), free(one), free(g.bytes);
        cca_engine_close(engine);
    }
}

/* A random model with rows that every type can hold, large enough to be cut among threads. */
static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    static const cca_dtype types[] = {CCA_F32, CCA_F16, CCA_BF16, CCA_Q8_0, CCA_Q4_0};
    static const char *const caches[] = {"f32", "f16", "bf16", "bf16", "f32"};
    for (int t = 0; t < 5; t++) {
        char path[] = "/tmp/cca-test-threads-XXXXXX";
        int file = mkstemp(path);
        assert_true(file >= 0);
        close(file);
        cca_error err;
        cca_random_shape shape = {128, 2, 4, 2, 256, 300, 5};
        cca_export_options o = {
            .random = &shape, .output = path, .has_type = true, .type = types[t]};
        if (cca_export(&o, &err) != CCA_OK) fail_msg("%s", err.text);
        int32_t tokens[200];
        uint64_t seed = 6;
        for (int i = 0; i < 200; i++) tokens[i] = (int32_t)(cca_random_next(&seed) % 300);
        float *logits[3];
        for (int n = 1; n <= 3; n++) {
            cca_engine *engine;
            cca_engine_options eo = {.device = "cpu", .n_threads = n};
            if (cca_engine_open(&engine, path, &eo, &err) != CCA_OK) fail_msg("%s", err.text);
            logits[n - 1] = run(engine, tokens, 200, &(run_options){4, 32, caches[t], 64, 150});
            cca_engine_close(engine);
        }
        assert_memory_equal(logits[0], logits[1], 200 * 300 * sizeof(float));
        assert_memory_equal(logits[0], logits[2], 200 * 300 * sizeof(float));
        free(logits[0]), free(logits[1]), free(logits[2]);
        unlink(path);
    }
}

static void sessions_do_not_disturb_each_other(void **state) {
    (void)state;
    cca_engine *engine = test_export_and_open(FOLDER, "oracle-gqa3", CCA_F32, 2);
    golden g = read_golden("oracle-gqa3", 64);
    cca_error err;
    run_options o = {4, 16, "f32", 16, 0};
    cca_session *a = new_session(engine, &o, 100), *b = new_session(engine, &o, 100);
    cca_session *alone = new_session(engine, &o, 100);
    for (int i = 0; i < 100; i += 10) {
        assert_int_equal(cca_session_eval(a, g.tokens + i, 10, NULL, &err), CCA_OK);
        assert_int_equal(cca_session_eval(b, g.tokens + 41 - i % 40, 10, NULL, &err), CCA_OK);
    }
    for (int i = 0; i < 100; i += 10) {
        assert_int_equal(cca_session_eval(alone, g.tokens + i, 10, NULL, &err), CCA_OK);
    }
    assert_memory_equal(cca_session_logits(a, &err), cca_session_logits(alone, &err),
                        64 * sizeof(float));
    cca_session_reset(b); /* a session starts over as if it were new */
    for (int i = 0; i < 100; i += 10) {
        assert_int_equal(cca_session_eval(b, g.tokens + i, 10, NULL, &err), CCA_OK);
    }
    assert_memory_equal(cca_session_logits(b, &err), cca_session_logits(alone, &err),
                        64 * sizeof(float));
    cca_session_free(a), cca_session_free(b), cca_session_free(alone);
    free(g.bytes);
    cca_engine_close(engine);
}

/* A session that goes back to its mark gives the bits that it gave the first time, wherever the
 * mark lies and however far the session went on. */
static void a_rewound_session_repeats_itself(void **state) {
    (void)state;
    static const char *const attns[] = {"cca", "full", "mean", "window", "sinks:3", "recall"};
    static const char *const caches[] = {"f32", "bf16"};
    static const int64_t marks[] = {0, 5, 16, 37, 64, 90};
    cca_engine *engine = test_export_and_open(FOLDER, "oracle-gqa3", CCA_F32, 2);
    golden g = read_golden("oracle-gqa3", 64);
    cca_error err;
    for (int i = 0; i < 6 * 2 * 6; i++) {
        cca_session_options o = cca_session_defaults();
        o.ctx_size = 140, o.attn = attns[i % 6], o.k_type = o.v_type = caches[i / 6 % 2];
        o.group_size = 4, o.window_size = 16, o.chunk_size = 16, o.mark = true;
        if (i % 6 == 5) o.recall = 8, o.recall_tile = 4;
        int64_t mark = marks[i / 12], n = 50;
        cca_session *s, *fresh;
        float first[64], again[64];
        assert_int_equal(cca_session_new(&s, engine, &o, &err), CCA_OK);
        assert_int_equal(cca_session_new(&fresh, engine, &o, &err), CCA_OK);
        assert_int_equal(cca_session_rewind(s, &err), CCA_USAGE);
        assert_int_equal(cca_session_eval(s, g.tokens, mark, NULL, &err), CCA_OK);
        assert_int_equal(cca_session_mark(s, &err), CCA_OK);
        assert_int_equal(cca_session_eval(s, g.tokens + mark, n, NULL, &err), CCA_OK);
        memcpy(first, cca_session_logits(s, &err), sizeof first);
        for (int round = 1; round < 4; round++) { /* other tokens in between, one by one, too */
            assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
            assert_int_equal(cca_session_pos(s), mark);
            assert_null(cca_session_logits(s, &err));
            assert_int_equal(cca_session_eval(s, g.tokens + round, 7 * round, NULL, &err), CCA_OK);
            assert_int_equal(cca_session_eval(s, g.tokens, 1, NULL, &err), CCA_OK);
        }
        assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
        assert_int_equal(cca_session_eval(s, g.tokens + mark, n, NULL, &err), CCA_OK);
        memcpy(again, cca_session_logits(s, &err), sizeof again);
        assert_memory_equal(first, again, sizeof first);
        assert_int_equal(cca_session_eval(fresh, g.tokens, mark, NULL, &err), CCA_OK);
        assert_int_equal(cca_session_eval(fresh, g.tokens + mark, n, NULL, &err), CCA_OK);
        assert_memory_equal(first, cca_session_logits(fresh, &err), sizeof first);
        cca_session_free(s), cca_session_free(fresh);
    }
    free(g.bytes);
    cca_engine_close(engine);
}

/* Raises the flag behind the second chunk. */
static cca_status stop_later(void *user, cca_session *session, int64_t pos, int64_t n,
                             cca_error *err) {
    (void)session, (void)n, (void)err;
    *(volatile sig_atomic_t *)user = pos > 40;
    return CCA_OK;
}

static void a_mark_survives_an_interruption(void **state) {
    (void)state;
    cca_engine *engine = test_export_and_open(FOLDER, "oracle-gqa3", CCA_F32, 2);
    golden g = read_golden("oracle-gqa3", 64);
    volatile sig_atomic_t stop = 0;
    cca_session_options o = cca_session_defaults();
    cca_session_size with, without;
    cca_session *s;
    cca_error err;
    float first[64];
    o.ctx_size = 140, o.group_size = 4, o.window_size = 16, o.chunk_size = 16, o.stop = &stop;
    o.attn = "cca", o.sinks = 0;
    assert_int_equal(cca_session_measure(&without, engine, &o, &err), CCA_OK);
    assert_int_equal(cca_session_new(&s, engine, &o, &err), CCA_OK);
    assert_int_equal(cca_session_mark(s, &err), CCA_USAGE);
    cca_session_free(s);

    o.mark = true;
    assert_int_equal(cca_session_measure(&with, engine, &o, &err), CCA_OK);
    assert_int_equal(without.mark, 0);
    assert_int_equal(with.mark, with.window);
    assert_int_equal(with.total, without.total + with.mark);
    assert_int_equal(cca_session_new(&s, engine, &o, &err), CCA_OK);
    assert_int_equal(cca_session_eval(s, g.tokens, 30, NULL, &err), CCA_OK);
    assert_int_equal(cca_session_mark(s, &err), CCA_OK);
    assert_int_equal(cca_session_eval(s, g.tokens + 30, 70, NULL, &err), CCA_OK);
    memcpy(first, cca_session_logits(s, &err), sizeof first);
    assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
    cca_eval_options eval = {.on_chunk = stop_later, .user = (void *)&stop};
    assert_int_equal(cca_session_eval(s, g.tokens + 30, 70, &eval, &err), CCA_INTERRUPTED);
    assert_int_equal(cca_session_rewind(s, &err), CCA_INTERRUPTED);
    stop = 0;
    assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
    assert_int_equal(cca_session_eval(s, g.tokens + 30, 70, NULL, &err), CCA_OK);
    assert_memory_equal(first, cca_session_logits(s, &err), sizeof first);
    cca_session_reset(s);
    assert_int_equal(cca_session_rewind(s, &err), CCA_USAGE);
    cca_session_free(s);
    free(g.bytes);
    cca_engine_close(engine);
}

static void bad_input_is_refused(void **state) {
    (void)state;
    cca_engine *engine = test_export_and_open(FOLDER, "oracle-mha", CCA_F32, 2);
    cca_error err;
    run_options o = {4, 16, "f32", 16, 0};
    cca_session *s = new_session(engine, &o, 10);
    const int32_t ids[11] = {1, 2, 3, 64, -1};
    assert_null(cca_session_logits(s, &err));
    assert_int_equal(cca_session_eval(s, ids, 11, NULL, &err), CCA_NO_FIT);
    assert_int_equal(cca_session_eval(s, ids, 4, NULL, &err), CCA_USAGE);
    assert_non_null(strstr(err.text, "id 64"));
    assert_int_equal(cca_session_eval(s, ids + 4, 1, NULL, &err), CCA_USAGE);
    assert_int_equal(cca_session_pos(s), 0);
    assert_int_equal(cca_session_eval(s, ids, 3, NULL, &err), CCA_OK);
    assert_int_equal(cca_session_pos(s), 3);
    assert_int_equal(cca_session_eval(s, ids, 8, NULL, &err), CCA_NO_FIT);
    cca_session_free(s);

    static const struct {
        const char *attn, *type;
        int64_t g, s, ctx;
    } bad[] = {{"cca", "f32", 16, 100, 10},
               {"ful", "f32", 0, 0, 10},
               {"sinks:0", "f32", 0, 0, 10},
               {"cca", "q4_0", 0, 0, 10},
               {"cca", "f32", 0, 0, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cca_session_options so = cca_session_defaults();
        so.attn = bad[i].attn, so.k_type = bad[i].type, so.group_size = bad[i].g;
        so.window_size = bad[i].s, so.ctx_size = bad[i].ctx;
        assert_int_equal(cca_session_new(&s, engine, &so, &err), CCA_USAGE);
        assert_null(s);
    }
    volatile sig_atomic_t stop = 1;
    cca_session_options so = cca_session_defaults();
    so.ctx_size = 10, so.stop = &stop;
    assert_int_equal(cca_session_new(&s, engine, &so, &err), CCA_OK);
    assert_int_equal(cca_session_eval(s, ids, 3, NULL, &err), CCA_INTERRUPTED);
    assert_int_equal(cca_session_pos(s), 0);
    cca_session_free(s);
    cca_engine_close(engine);
}

/* A token alone is not waited for; what failed by then is told all the same, and its logits tell
 * the rest. */
static void one_token_reports_an_interruption(void **state) {
    (void)state;
    cca_engine *engine = test_export_and_open(FOLDER, "oracle-gqa3", CCA_F32, 2);
    cca_session *s;
    cca_error err;
    int32_t ids[2] = {1, 2};
    volatile sig_atomic_t stop = 0;
    cca_session_options so = cca_session_defaults();
    so.ctx_size = 10, so.stop = &stop;
    assert_int_equal(cca_session_new(&s, engine, &so, &err), CCA_OK);
    assert_int_equal(cca_session_eval(s, ids, 1, NULL, &err), CCA_OK);
    stop = 1;
    assert_null(cca_session_logits(s, &err));
    assert_string_equal(err.text, "interrupted");
    stop = 0;
    assert_non_null(cca_session_logits(s, &err));
    stop = 1;
    assert_int_equal(cca_session_eval(s, ids + 1, 1, NULL, &err), CCA_INTERRUPTED);
    assert_int_equal(cca_session_pos(s), 1);
    cca_session_free(s);
    cca_engine_close(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_equals_the_oracle),
        cmocka_unit_test(bf16_is_near_the_oracle),
        cmocka_unit_test(f16_is_near_the_oracle),
        cmocka_unit_test(converted_files_equal_the_oracle),
        cmocka_unit_test(any_cut_gives_the_same_logits),
        cmocka_unit_test(longrope_goes_by_the_context),
        cmocka_unit_test(greedy_tokens_are_those_of_transformers),
        cmocka_unit_test(group_size_one_equals_full),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(sessions_do_not_disturb_each_other),
        cmocka_unit_test(a_rewound_session_repeats_itself),
        cmocka_unit_test(a_mark_survives_an_interruption),
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(one_token_reports_an_interruption),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
