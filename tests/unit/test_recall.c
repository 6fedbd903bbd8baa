/* Sinks and recall against the float64 reference of tests/golden/recall, all in f32. Bounds are the
 * largest difference over the spread of a run's logits:
 *     the reference 1e-4, full attention 1e-5, decode in place of prefill 1e-5. */
#include "engine.h"
#include "export/model_file.h"
#include "model.h"
#include "tests/unit/export_and_open.h"

#include <unistd.h>

static const char FOLDER[] = "tests/golden/recall";
static const char *const NAMES[] = {
    "mha-tile1",       "mha-everything", "mha-odd-groups", "mha-wide",    "gqa2-odd-groups",
    "gqa2-wide",       "gqa2-tile64",    "gqa2-nothing",   "gqa3-single", "gqa3-default-tile",
    "gqa3-cores-only", "gqa8-no-sinks",  "gqa8-tile1",     "gqa8-tile64",
};
enum { N_MODELS = sizeof NAMES / sizeof *NAMES, CTX = 512 }; /* CTX: all lengths in one chunk */

/* ---- golden files -------------------------------------------------------------------- */

/* What recall.bin holds; see tests/golden/recall/make.py. */
typedef struct golden {
    char *bytes;
    const char *name;
    int32_t g, s, sinks, recall, tile, cores;
    int32_t length, clear, n_rows, n_choices;
    const int32_t *tokens, *rows, *choices;
    const float *logits;
} golden;

static golden read_golden(const char *name) {
    enum { MOST = 1 << 18, VOCAB = 40 };
    golden m = {.bytes = malloc(MOST), .name = name};
    assert_non_null(m.bytes);
    char path[128];
    snprintf(path, sizeof path, "%s/%s/recall.bin", FOLDER, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(m.bytes, 1, MOST, file);
    fclose(file);
    assert_true(size > 0 && size < MOST);
    const int32_t *at = (const int32_t *)m.bytes;
    m.g = *at++, m.s = *at++, m.sinks = *at++, m.recall = *at++, m.tile = *at++, m.cores = *at++;
    m.length = *at++, m.tokens = at, at += m.length;
    m.clear = *at++;
    m.n_rows = *at++, m.rows = at, at += m.n_rows;
    m.logits = (const float *)at, at += m.n_rows * VOCAB;
    m.n_choices = *at++, m.choices = at;
    for (int i = 0; i < m.n_choices; i++) at += 2 + at[1];
    assert_int_equal((const char *)at - m.bytes, size);
    return m;
}

/* ---- running ------------------------------------------------------------------------- */

static cca_session_options options_of(const golden *m) {
    cca_session_options o = cca_session_defaults();
    o.ctx_size = o.chunk_size = CTX;
    o.attn = "recall";
    o.group_size = m->g, o.window_size = m->s;
    o.sinks = m->sinks, o.recall = m->recall, o.recall_tile = m->tile;
    o.cores = m->cores ? CCA_CORES_YES : CCA_CORES_NO;
    o.k_type = o.v_type = "f32";
    return o;
}

static cca_session_options full_options(void) {
    cca_session_options o = cca_session_defaults();
    o.ctx_size = o.chunk_size = CTX, o.attn = "full";
    o.k_type = o.v_type = "f32";
    return o;
}

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

/* All logits (n, vocab) of tokens in calls of so many; to be freed. */
static float *run(cca_engine *engine, const cca_session_options *o, const int32_t *tokens,
                  int64_t n, int64_t call) {
    int64_t vocab = cca_engine_info(engine)->vocab_size;
    float *out = malloc((size_t)(n * vocab) * sizeof *out);
    assert_non_null(out);
    collector c = {out, vocab};
    cca_eval_options eval = {.on_chunk = collect, .user = &c};
    cca_error err;
    cca_session *session;
    if (cca_session_new(&session, engine, o, &err) != CCA_OK) fail_msg("%s", err.text);
    for (int64_t i = 0; i < n; i += call) {
        int64_t some = cca_min(call, n - i);
        if (cca_session_eval(session, tokens + i, some, &eval, &err) != CCA_OK) {
            fail_msg("%s", err.text);
        }
    }
    cca_session_free(session);
    return out;
}

/* A golden model and its engine. */
typedef struct subject {
    golden m;
    cca_engine *engine;
    cca_session_options options;
    int64_t vocab;
} subject;

static subject open_subject(const char *name, int n_threads) {
    subject x = {.m = read_golden(name),
                 .engine = test_export_and_open(FOLDER, name, CCA_F32, n_threads)};
    x.options = options_of(&x.m);
    x.vocab = cca_engine_info(x.engine)->vocab_size;
    return x;
}

static void close_subject(subject *x) {
    cca_engine_close(x->engine);
    free(x->m.bytes);
}

static float *run_whole(const subject *x, const cca_session_options *o) {
    return run(x->engine, o, x->m.tokens, x->m.length, x->m.length);
}

static size_t logit_bytes(const subject *x, int64_t n) {
    return (size_t)(n * x->vocab) * sizeof(float);
}

/* ---- the reference ------------------------------------------------------------------- */

static void logits_equal_the_reference(void **state) {
    (void)state;
    int n_compared = 0; /* to their end */
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2);
        const golden *m = &x.m;
        float *logits = run_whole(&x, &x.options);
        int64_t n = 0;
        for (; n < m->n_rows && m->rows[n] < m->clear; n++) {
            memmove(logits + n * x.vocab, logits + m->rows[n] * x.vocab, logit_bytes(&x, 1));
        }
        test_below(cca_spread_difference(logits, m->logits, n * x.vocab), 1e-4, m->name);
        n_compared += n == m->n_rows;
        free(logits);
        close_subject(&x);
    }
    assert_true(n_compared >= 10);
}

/* Layer by layer what the last query of each tile attends to, group by group: it sees all that its
 * tile has chosen and, without cores, nothing else behind the window but the sinks. */
typedef struct watcher {
    cca_backend *backend;
    cca_model *model;
    cca_state *state;
    cca_mass mass;
    int64_t n_heads, n_sums;
} watcher;

static watcher open_watcher(const subject *x) {
    const golden *m = &x->m;
    watcher w = {0};
    cca_error err;
    assert_int_equal(cca_backend_cpu(&w.backend, &(cca_backend_options){.n_threads = 2}, &err),
                     CCA_OK);
    assert_int_equal(cca_model_open(&w.model, cca_engine_file(x->engine), w.backend, &err), CCA_OK);
    cca_state_options o = {.ctx_size = m->length, .chunk_size = m->tile};
    o.k_type = o.v_type = CCA_F32;
    cca_policy_options p = {.attn = CCA_ATTN_CCA, .group_size = m->g, .window_size = m->s};
    p.n_sinks = m->sinks, p.recall = m->recall, p.tile = m->tile, p.no_cores = true;
    assert_int_equal(cca_policy_make(&o.policy, &p, &err), CCA_OK);
    assert_int_equal(cca_state_new(&w.state, w.model, w.backend, &o, &err), CCA_OK);
    const cca_config *config = cca_model_config(w.model);
    w.n_heads = config->n_heads;
    w.mass = (cca_mass){.n_slots = m->length / m->g + 1, .unit = m->g};
    w.n_sums = config->n_layers * w.n_heads * w.mass.n_slots;
    w.mass.sums = calloc((size_t)w.n_sums, sizeof *w.mass.sums);
    assert_non_null(w.mass.sums);
    cca_cache_watch(cca_state_cache(w.state), &w.mass);
    return w;
}

static void close_watcher(watcher *w) {
    free(w->mass.sums);
    cca_state_free(w->state);
    cca_model_close(w->model);
    cca_backend_close(w->backend);
}

/* sums: of a head of layer 0. */
static void check_choice(const golden *m, const float *sums, int64_t last, const int32_t *groups,
                         int32_t n_groups) {
    int64_t end = last + 1 > m->s ? (last + 1 - m->s) / m->g : 0;
    int32_t next = 0;
    for (int64_t t = 0; t < m->sinks / m->g && t < end; t++) assert_true(sums[t] > 0);
    for (int64_t t = m->sinks / m->g; t < end; t++) {
        bool chosen = next < n_groups && groups[next] == t;
        next += chosen;
        if ((sums[t] > 0) == chosen) continue;
        fail_msg("%s: the tile that ends at %lld has group %lld %s", m->name, (long long)last,
                 (long long)t, chosen ? "not chosen" : "chosen");
    }
    assert_int_equal(next, n_groups);
}

/* The number of choices compared. */
static int check_choices(const subject *x) {
    enum { SMALL = 100000 };
    const golden *m = &x->m;
    watcher w = open_watcher(x);
    int64_t kv_heads = cca_model_config(w.model)->n_kv_heads;
    const int32_t *at = m->choices;
    cca_error err;
    int n = 0;
    for (int64_t pos = 0, some; pos < m->length; pos += some) {
        some = cca_min(m->tile, m->length - pos);
        memset(w.mass.sums, 0, (size_t)w.n_sums * sizeof *w.mass.sums);
        assert_int_equal(cca_model_forward(w.state, m->tokens + pos, some, pos, &err), CCA_OK);
        for (int64_t kv = 0; kv < kv_heads; kv++, at += 2 + at[1]) {
            float gap;
            memcpy(&gap, at, sizeof gap);
            if (gap * SMALL < 1) continue;
            int64_t sharers = w.n_heads / kv_heads;
            for (int64_t h = kv * sharers; h < (kv + 1) * sharers; h++) {
                const float *sums = w.mass.sums + h * w.mass.n_slots;
                check_choice(m, sums, pos + some - 1, at + 2, at[1]);
            }
            n++;
        }
    }
    close_watcher(&w);
    return n;
}

static void choices_equal_the_reference(void **state) {
    (void)state;
    int n = 0;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2);
        if (x.m.recall > 0) n += check_choices(&x);
        close_subject(&x);
    }
    assert_true(n >= 1300);
}

/* Of groups that weigh the same the earlier are chosen, but a heavier one behind them is not lost.
 */
static void of_equal_groups_the_earlier_are_chosen(void **state) {
    (void)state;
    enum { HD = 16, GROUPS = 12, MOST = 4, HEAVY = 9, POS = GROUPS - 1 };
    cca_backend *b;
    cca_error err;
    assert_int_equal(cca_backend_cpu(&b, &(cca_backend_options){.n_threads = 1}, &err), CCA_OK);
    size_t bytes = GROUPS * HD * sizeof(float);
    cca_rows bounds = {.k = cca_backend_alloc(b, bytes), .v = cca_backend_alloc(b, bytes)};
    bounds.k_type = bounds.v_type = CCA_F32;
    bounds.heads = 1, bounds.capacity = GROUPS, bounds.head_dim = HD;
    cca_choice out = {.groups = cca_backend_alloc(b, MOST * sizeof(int32_t)),
                      .counts = cca_backend_alloc(b, sizeof(int32_t)),
                      .heads = 1,
                      .most = MOST,
                      .tile = 1,
                      .group_size = 1};
    cca_rule rule = {.group_size = 1, .window_size = 1, .n_sinks = 1};
    cca_range groups = cca_rule_groups(&rule);
    cca_matrix q;
    cca_matrix_alloc(b, &q, CCA_F32, 1, HD);
    float ones[HD];
    for (int d = 0; d < HD; d++) ones[d] = 1;
    cca_backend_upload(b, q.data, ones, sizeof ones);
    cca_backend_upload(b, (float *)bounds.k + HEAVY * HD, ones, sizeof ones);
    cca_choose(b, &out, &bounds, &groups, &q, POS, 1);
    assert_int_equal(cca_backend_sync(b, &err), CCA_OK);
    static const int32_t want[MOST] = {1, 2, 3, HEAVY};
    assert_int_equal(out.counts[0], MOST);
    assert_memory_equal(out.groups, want, sizeof want);
    cca_backend_release(b, bounds.k), cca_backend_release(b, bounds.v);
    cca_backend_release(b, out.groups), cca_backend_release(b, out.counts);
    cca_matrix_free(b, &q);
    cca_backend_close(b);
}

/* ---- full attention ------------------------------------------------------------------ */

static void recall_of_everything_equals_full(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2);
        cca_session_options full = full_options();
        x.options.recall = (x.m.length / x.m.g + 1) * x.m.g;
        float *want = run_whole(&x, &full), *got = run_whole(&x, &x.options);
        test_below(cca_spread_difference(got, want, x.m.length * x.vocab), 1e-5, x.m.name);
        free(want), free(got);
        close_subject(&x);
    }
}

/* A core of one token is that token. */
static void groups_of_one_with_cores_equal_full(void **state) {
    (void)state;
    static const int64_t recalls[] = {0, 7, 50};
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2);
        cca_session_options full = full_options();
        x.options.group_size = 1, x.options.recall = recalls[i % 3];
        x.options.cores = CCA_CORES_YES;
        float *want = run_whole(&x, &full), *got = run_whole(&x, &x.options);
        test_below(cca_spread_difference(got, want, x.m.length * x.vocab), 1e-5, x.m.name);
        free(want), free(got);
        close_subject(&x);
    }
}

/* ---- cuts ---------------------------------------------------------------------------- */

/* A thread's number does not show, nor do chunks of whole blocks of rows where rows are
 * append-only: a ring's keys are read in other portions for other chunks, few rows are multiplied
 * in another order. */
static void check_cuts(const char *name, const float *want, int n_threads) {
    static const int64_t whole[] = {32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384};
    static const int64_t odd[] = {1, 3, 8, 24, 37, 100};
    enum { N_WHOLE = sizeof whole / sizeof *whole, N_ODD = sizeof odd / sizeof *odd };
    subject x = open_subject(name, n_threads);
    int64_t n = x.m.length;
    float *once = run_whole(&x, &x.options);
    assert_memory_equal(once, want, logit_bytes(&x, n));
    free(once);
    for (int i = 0; i < N_WHOLE + N_ODD; i++) {
        x.options.chunk_size = i < N_WHOLE ? whole[i] : odd[i - N_WHOLE];
        float *got = run_whole(&x, &x.options);
        if (i < N_WHOLE && x.m.recall > 0) assert_memory_equal(got, want, logit_bytes(&x, n));
        test_below(cca_spread_difference(got, want, n * x.vocab), 1e-5, name);
        free(got);
    }
    close_subject(&x);
}

static void chunks_and_threads_do_not_change_a_bit(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 1);
        float *want = run_whole(&x, &x.options);
        for (int n_threads = 1; n_threads <= 3; n_threads++) check_cuts(NAMES[i], want, n_threads);
        free(want);
        close_subject(&x);
    }
}

static void decode_equals_prefill_where_each_chooses_alone(void **state) {
    (void)state;
    int n = 0;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2);
        if (x.m.tile == 1) {
            float *want = run_whole(&x, &x.options);
            float *got = run(x.engine, &x.options, x.m.tokens, x.m.length, 1);
            test_below(cca_spread_difference(got, want, x.m.clear * x.vocab), 1e-5, x.m.name);
            free(want), free(got);
            n++;
        }
        close_subject(&x);
    }
    assert_int_equal(n, 3);
}

/* Nothing depends on what lies behind its tile. */
static void no_tile_sees_what_comes_later(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2);
        int32_t n = x.m.length, *tokens = malloc((size_t)n * sizeof *tokens);
        assert_non_null(tokens);
        float *want = run_whole(&x, &x.options);
        for (int part = 1; part < 6; part++) {
            int64_t from = n * part / 6 / x.m.tile * x.m.tile;
            for (int k = 0; k < n; k++) tokens[k] = k < from ? x.m.tokens[k] : (3 * k + part) % 40;
            float *got = run(x.engine, &x.options, tokens, n, n);
            assert_memory_equal(got, want, logit_bytes(&x, from));
            assert_memory_not_equal(got + from * x.vocab, want + from * x.vocab,
                                    logit_bytes(&x, n - from));
            free(got);
        }
        free(want), free(tokens);
        close_subject(&x);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_equal_the_reference),
        cmocka_unit_test(choices_equal_the_reference),
        cmocka_unit_test(of_equal_groups_the_earlier_are_chosen),
        cmocka_unit_test(recall_of_everything_equals_full),
        cmocka_unit_test(groups_of_one_with_cores_equal_full),
        cmocka_unit_test(chunks_and_threads_do_not_change_a_bit),
        cmocka_unit_test(decode_equals_prefill_where_each_chooses_alone),
        cmocka_unit_test(no_tile_sees_what_comes_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
