/* The models of tests/golden/recall, whose logits and choices a float64 reference has told.
 *
 *     subject x = open_subject(NAMES[i], 2, "cpu");
 *     float *logits = run_whole(&x, &x.options);
 *     test_below(distance_to_reference(&x, logits, &whole), 1e-4, x.m.name);
 *     free(logits), close_subject(&x); */
#ifndef CCA_TEST_RECALL_MODELS_H
#define CCA_TEST_RECALL_MODELS_H

#include "engine.h"
#include "model.h"
#include "tests/unit/export_and_open.h"

static const char RECALL_MODELS[] = "tests/golden/recall";
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

static inline golden read_golden(const char *name) {
    enum { MOST = 1 << 18, VOCAB = 40 };
    golden m = {.bytes = malloc(MOST), .name = name};
    assert_non_null(m.bytes);
    char path[128];
    snprintf(path, sizeof path, "%s/%s/recall.bin", RECALL_MODELS, name);
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

static inline cca_session_options options_of(const golden *m) {
    cca_session_options o = cca_session_defaults();
    o.ctx_size = o.chunk_size = CTX;
    o.attn = "recall";
    o.group_size = m->g, o.window_size = m->s;
    o.sinks = m->sinks, o.recall = m->recall, o.recall_tile = m->tile;
    o.cores = m->cores ? CCA_CORES_YES : CCA_CORES_NO;
    o.k_type = o.v_type = "f32";
    return o;
}

static inline cca_session_options full_options(void) {
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

static inline cca_status collect(void *user, cca_session *session, int64_t pos, int64_t n,
                                 cca_error *err) {
    collector *c = user;
    return cca_session_chunk_logits(session, 0, n, c->out + pos * c->vocab, err);
}

/* All logits (n, vocab) of tokens in calls of so many; to be freed. */
static inline float *run(cca_engine *engine, const cca_session_options *o, const int32_t *tokens,
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

static inline subject open_subject(const char *name, int n_threads, const char *device) {
    subject x = {.m = read_golden(name),
                 .engine =
                     test_export_and_open_on(device, RECALL_MODELS, name, CCA_F32, n_threads)};
    x.options = options_of(&x.m);
    x.vocab = cca_engine_info(x.engine)->vocab_size;
    return x;
}

static inline void close_subject(subject *x) {
    cca_engine_close(x->engine);
    free(x->m.bytes);
}

static inline float *run_whole(const subject *x, const cca_session_options *o) {
    return run(x->engine, o, x->m.tokens, x->m.length, x->m.length);
}

static inline size_t logit_bytes(const subject *x, int64_t n) {
    return (size_t)(n * x->vocab) * sizeof(float);
}

/* ---- sessions in files --------------------------------------------------------------- */

typedef struct stored {
    cca_session *session;
    cca_store *store;
} stored;

/* A session of an engine that goes on from the file's last checkpoint, or from nothing. */
static inline stored open_stored(cca_engine *engine, const subject *x, const char *path) {
    cca_session_options o = x->options;
    cca_error err;
    stored s;
    o.stored = true;
    if (cca_session_new(&s.session, engine, &o, &err) != CCA_OK) fail_msg("%s", err.text);
    if (cca_store_open(&s.store, path, true, &err) == CCA_OK) {
        size_t last = cca_store_n_points(s.store) - 1;
        if (cca_session_load(s.session, s.store, last, &err) != CCA_OK) fail_msg("%s", err.text);
        return s;
    }
    char *facts = cca_session_facts(s.session);
    assert_int_equal(cca_store_create(&s.store, path, facts, &err), CCA_OK);
    free(facts);
    return s;
}

static inline void close_stored(stored *s) {
    cca_store_close(s->store);
    cca_session_free(s->session);
}

/* Evaluates tokens up to `end`, and makes a checkpoint there. */
static inline cca_status extend_stored(stored *s, const subject *x, int64_t end, collector *c,
                                       cca_error *err) {
    cca_eval_options eval = {.on_chunk = collect, .user = c};
    int64_t pos = cca_session_pos(s->session);
    cca_status status =
        cca_session_eval(s->session, x->m.tokens + pos, end - pos, c ? &eval : NULL, err);
    if (!status) status = cca_session_save(s->session, s->store, x->m.tokens, err);
    return status;
}

/* All of it. */
static inline void eval_stored(cca_engine *engine, const subject *x, const char *path, int64_t end,
                               collector *c) {
    cca_error err;
    stored s = open_stored(engine, x, path);
    if (extend_stored(&s, x, end, c, &err) != CCA_OK) fail_msg("%s", err.text);
    close_stored(&s);
}

/* ---- the reference ------------------------------------------------------------------- */

/* The largest difference from the reference's logits over their spread, of the rows before the
 * first choice that rounding can turn; *whole: that are all. logits: of all positions, changed. */
static inline double distance_to_reference(const subject *x, float *logits, bool *whole) {
    const golden *m = &x->m;
    int64_t n = 0;
    for (; n < m->n_rows && m->rows[n] < m->clear; n++) {
        memmove(logits + n * x->vocab, logits + m->rows[n] * x->vocab, logit_bytes(x, 1));
    }
    *whole = n == m->n_rows;
    return cca_spread_difference(logits, m->logits, n * x->vocab);
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

static inline watcher open_watcher(const subject *x, const char *device) {
    const golden *m = &x->m;
    watcher w = {0};
    cca_error err;
    cca_backend_options options = {.n_threads = 2};
    assert_int_equal(cca_backend_open(&w.backend, device, &options, &err), CCA_OK);
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
    cca_cache_watch(cca_state_cache(w.state), &w.mass, 1);
    return w;
}

static inline void close_watcher(watcher *w) {
    free(w->mass.sums);
    cca_state_free(w->state);
    cca_model_close(w->model);
    cca_backend_close(w->backend);
}

/* sums: of a head of layer 0. */
static inline void check_choice(const golden *m, const float *sums, int64_t last,
                                const int32_t *groups, int32_t n_groups) {
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
static inline int check_choices(const subject *x, const char *device) {
    enum { SMALL = 100000 };
    const golden *m = &x->m;
    watcher w = open_watcher(x, device);
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

#endif
