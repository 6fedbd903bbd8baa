#include "check/self_check.h"

#include "backend/cpu/cpu.h"
#include "base/random.h"
#include "cca.h"
#include "check/difference.h"
#include "check/kernel_check.h"
#include "gguf/gguf.h"
#include "model.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    N_TOKENS = 160,    /* of a run; with g = 4 and s = 32 most are seen through cores */
    N_SHORT = 64,      /* with the plain kernels, which are slow */
    EVERY = 8,         /* tokens between two whose logits are compared */
    MOST_PARAMS = 200, /* millions, of a model that the plain kernels run */
};

/* Largest difference over the spread of the logits. Where a variant's products take their inputs as
 * bf16 or as bytes, a difference in the last bit can be rounded to one in the last that is kept. */
static const double EXACT_MODEL = 5e-6, ROUNDED_MODEL = 5e-2;

typedef struct checker {
    const cca_selftest_options *o;
    cca_check_fn on_check;
    void *user;
    cca_gguf *file;
    cca_config config;
    bool failed;
    int64_t n_rows; /* of logits in a whole run */
    int32_t ids[N_TOKENS];
    float *want, *got; /* [n_rows][vocab_size] */
} checker;

/* How the model is run. */
typedef struct manner {
    const cca_kernels *kernels; /* NULL: the fastest of the device */
    const char *device;         /* where kernels is NULL; NULL: "cpu" */
    cca_attn attn;
    int64_t group_size, window_size, chunk_size;
    int64_t n_sinks, recall, tile;
    int n_threads;
    int64_t n_tokens;
    cca_dtype cache;
} manner;

static const manner usual = {.attn = CCA_ATTN_CCA,
                             .group_size = 4,
                             .window_size = 32,
                             .chunk_size = N_TOKENS,
                             .n_tokens = N_TOKENS,
                             .cache = CCA_F32};

/* Whether a device was named. */
static bool is_asked(const cca_selftest_options *o) {
    return o->device && strcmp(o->device, "auto") != 0;
}

/* ---- running ---------------------------------------------------------------------------- */

static cca_status run_state(checker *c, cca_state *s, const manner *m, float *logits,
                            cca_error *err) {
    cca_status status = CCA_OK;
    for (int64_t pos = 0, n; pos < m->n_tokens && !status; pos += n) {
        n = cca_min(m->chunk_size - pos % m->chunk_size, m->n_tokens - pos);
        status = cca_model_forward(s, c->ids + pos, n, pos, err);
        for (int64_t i = 0; i < n && !status; i++) {
            if ((pos + i) % EVERY != EVERY - 1) continue;
            status = cca_model_logits(s, i, 1, logits, err);
            logits += c->config.vocab_size;
        }
    }
    return status;
}

static cca_status open_backend(cca_backend **out, const checker *c, const manner *m,
                               cca_error *err) {
    cca_backend_options o = {.n_threads = m->n_threads ? m->n_threads : c->o->n_threads,
                             .stop = c->o->stop};
    if (m->kernels) return cca_backend_cpu_with(out, &o, m->kernels, err);
    return cca_backend_open(out, m->device ? m->device : "cpu", &o, err);
}

static cca_status run_on(checker *c, cca_backend *b, const manner *m, float *logits,
                         cca_error *err) {
    cca_model *model = NULL;
    cca_state *state = NULL;
    cca_state_options o = {.ctx_size = m->n_tokens,
                           .chunk_size = m->chunk_size,
                           .k_type = m->cache,
                           .v_type = m->cache};
    cca_policy_options policy = {.attn = m->attn,
                                 .group_size = m->group_size,
                                 .window_size = m->window_size,
                                 .n_sinks = m->n_sinks,
                                 .recall = m->recall,
                                 .tile = m->tile};
    cca_status status = cca_policy_make(&o.policy, &policy, err);
    if (!status) status = cca_model_open(&model, c->file, b, err);
    if (!status) status = cca_state_new(&state, model, b, &o, err);
    if (!status) status = run_state(c, state, m, logits, err);
    cca_state_free(state);
    cca_model_close(model);
    return status;
}

static cca_status run(checker *c, const manner *m, float *logits, cca_error *err) {
    cca_backend *b;
    cca_status status = open_backend(&b, c, m, err);
    if (status) return status;
    status = run_on(c, b, m, logits, err);
    cca_backend_close(b);
    return status;
}

/* ---- comparing -------------------------------------------------------------------------- */

static void tell(checker *c, const char *name, double difference, double bound) {
    cca_check check = {.name = name, .difference = difference, .bound = bound};
    check.passed = difference <= bound;
    c->failed |= !check.passed;
    c->on_check(c->user, &check);
}

static void tell_skipped(checker *c, const char *name, const char *why) {
    c->on_check(c->user, &(cca_check){.name = name, .passed = true, .skipped = why});
}

/* Runs the model in a manner and compares with what the usual one gave. */
static cca_status compare(checker *c, const char *name, const manner *m, double bound,
                          cca_error *err) {
    int64_t n = m->n_tokens / EVERY * c->config.vocab_size;
    cca_status status = run(c, m, c->got, err);
    if (status) return status;
    double difference = cca_spread_difference(c->got, c->want, n);
    if (bound == 0 && difference == 0) {
        difference = memcmp(c->got, c->want, (size_t)n * sizeof(float)) != 0;
    }
    tell(c, name, difference, bound);
    return CCA_OK;
}

/* ---- the checks ------------------------------------------------------------------------- */

/* Whether products of the model's matrices take their inputs rounded. */
static bool rounds(const checker *c, const cca_kernels *k) {
    for (uint64_t i = 0; i < cca_gguf_n_tensors(c->file); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(c->file, i);
        if (t->n_dims != 2 || !cca_dtype_runs(t->type)) continue;
        if (k->products((cca_dtype)t->type)->x_convert) return true;
        if (k->few((cca_dtype)t->type)->x_convert) return true;
    }
    return false;
}

static double bound_of(const checker *c, const cca_kernels *k) {
    return rounds(c, k) ? ROUNDED_MODEL : EXACT_MODEL;
}

/* With groups of one a core token is the token itself, and what is recalled is seen as it is. */
static cca_status check_definition(checker *c, const cca_kernels *k, cca_error *err) {
    char name[64];
    manner m = usual;
    m.kernels = k;
    m.attn = CCA_ATTN_FULL;
    cca_status status = run(c, &m, c->want, err);
    m.attn = CCA_ATTN_CCA;
    m.group_size = 1;
    m.window_size = 16;
    snprintf(name, sizeof name, "model, %s: g = 1 against full attention", k->name);
    if (!status) status = compare(c, name, &m, bound_of(c, k), err);
    m.group_size = m.n_sinks = 4;
    m.recall = N_TOKENS;
    m.tile = 16;
    snprintf(name, sizeof name, "model, %s: recall of all against full", k->name);
    return status ? status : compare(c, name, &m, bound_of(c, k), err);
}

/* Where each query chooses for itself, it does not matter which come together. */
static cca_status check_recall(checker *c, const cca_kernels *k, cca_error *err) {
    char name[64];
    manner m = usual;
    m.kernels = k;
    m.n_sinks = 4;
    m.recall = 32;
    m.tile = 1;
    cca_status status = run(c, &m, c->want, err);
    m.chunk_size = 1;
    snprintf(name, sizeof name, "model, %s: recall token by token", k->name);
    return status ? status : compare(c, name, &m, bound_of(c, k), err);
}

static cca_status check_chunks(checker *c, const cca_kernels *k, cca_error *err) {
    static const int64_t sizes[] = {64, 7, 1};
    manner m = usual;
    m.kernels = k;
    cca_status status = run(c, &m, c->want, err);
    for (int i = 0; i < 3 && !status; i++) {
        char name[64];
        snprintf(name, sizeof name, "model, %s: chunks of %lld against %d", k->name,
                 (long long)sizes[i], N_TOKENS);
        m.chunk_size = sizes[i];
        status = compare(c, name, &m, bound_of(c, k), err);
    }
    return status;
}

static cca_status check_threads(checker *c, cca_error *err) {
    manner m = usual;
    m.n_threads = 1;
    cca_status status = run(c, &m, c->want, err);
    for (m.n_threads = 2; m.n_threads <= 3 && !status; m.n_threads++) {
        char name[64];
        snprintf(name, sizeof name, "model, %s: %d threads against one", cca_kernels_best()->name,
                 m.n_threads);
        status = compare(c, name, &m, 0, err);
    }
    return status;
}

/* The fastest variant, and the fastest of those that take inputs as they are: there the bound is
 * close. */
static cca_status check_manners(checker *c, cca_error *err) {
    const cca_kernels *best = cca_kernels_best(), *exact = best;
    for (int i = 0; cca_kernels_at(i); i++) {
        if (!rounds(c, cca_kernels_at(i))) exact = cca_kernels_at(i);
    }
    cca_status status = CCA_OK;
    for (const cca_kernels *k = exact; k && !status; k = k == best ? NULL : best) {
        status = check_definition(c, k, err);
        if (!status) status = check_chunks(c, k, err);
        if (!status) status = check_recall(c, k, err);
    }
    return status ? status : check_threads(c, err);
}

static cca_status check_variants(checker *c, uint64_t n_params, cca_error *err) {
    manner m = usual;
    char name[64];
    m.n_tokens = N_SHORT;
    m.kernels = &cca_kernels_plain;
    bool is_large = n_params > (uint64_t)MOST_PARAMS * 1000000;
    cca_status status = is_large ? CCA_OK : run(c, &m, c->want, err);
    for (int i = 0; cca_kernels_at(i) && !status; i++) {
        if (cca_kernels_at(i) == &cca_kernels_plain) continue;
        m.kernels = cca_kernels_at(i);
        snprintf(name, sizeof name, "model, %s: against plain", m.kernels->name);
        if (is_large) {
            tell_skipped(c, name, "the model is large, the plain kernels are slow");
        } else {
            status = compare(c, name, &m, bound_of(c, m.kernels), err);
        }
    }
    return status;
}

/* With exact keys in one chunk, and as most runs do: with bf16 keys many tokens at a time, and one
 * by one; with recall in tiles and one by one. */
static cca_status compare_device(checker *c, const char *device, cca_error *err) {
    static const struct {
        const char *name;
        cca_dtype cache;
        int64_t chunk_size, recall, tile;
    } checks[] = {{"model: CPU against a GPU", CCA_F32, N_TOKENS, 0, 1},
                  {"model: CPU against a GPU, bf16 keys", CCA_BF16, N_TOKENS, 0, 1},
                  {"model: CPU against a GPU, tokens one by one", CCA_BF16, 1, 0, 1},
                  {"model: CPU against a GPU, recall", CCA_BF16, N_TOKENS, 32, 8},
                  {"model: CPU against a GPU, recall token by token", CCA_BF16, 1, 32, 1}};
    cca_status status = CCA_OK;
    for (size_t i = 0; i < sizeof checks / sizeof *checks && !status; i++) {
        manner m = usual;
        m.cache = checks[i].cache;
        m.chunk_size = checks[i].chunk_size;
        m.recall = checks[i].recall, m.tile = checks[i].tile;
        m.n_sinks = m.recall > 0 ? m.group_size : 0;
        status = run(c, &m, c->want, err);
        m.device = device;
        if (!status) status = compare(c, checks[i].name, &m, ROUNDED_MODEL, err);
    }
    return status;
}

/* A GPU that is not asked for need not be there. */
static cca_status check_device(checker *c, cca_error *err) {
    static const char name[] = "model: CPU against a GPU";
    cca_backend *b;
    cca_error why;
    manner m = usual;
    m.device = is_asked(c->o) ? c->o->device : "cuda";
    if (strcmp(m.device, "cpu") == 0) {
        tell_skipped(c, name, "--device cpu");
        return CCA_OK;
    }
    if (open_backend(&b, c, &m, &why)) {
        tell_skipped(c, name, why.text);
        return CCA_OK;
    }
    cca_backend_close(b);
    return compare_device(c, m.device, err);
}

static cca_status open_model(checker *c, cca_error *err) {
    cca_status status = cca_gguf_open(&c->file, c->o->model, err);
    if (!status) status = cca_config_read(&c->config, c->file, err);
    if (status) return status;
    size_t n = N_TOKENS / EVERY;
    c->want = calloc(n, (size_t)c->config.vocab_size * sizeof *c->want);
    c->got = calloc(n, (size_t)c->config.vocab_size * sizeof *c->got);
    uint64_t state = 1;
    for (int i = 0; i < N_TOKENS; i++) {
        c->ids[i] = (int32_t)(cca_random_next(&state) % (uint64_t)c->config.vocab_size);
    }
    return c->want && c->got ? CCA_OK : cca_fail(err, CCA_NO_MEMORY, "no memory for the logits");
}

static cca_status check_model(checker *c, cca_error *err) {
    cca_status status = open_model(c, err);
    uint64_t n_params = 0;
    if (!status) {
        for (uint64_t i = 0; i < cca_gguf_n_tensors(c->file); i++) {
            const cca_gguf_tensor *t = cca_gguf_tensor_at(c->file, i);
            n_params += (uint64_t)(t->dims[0] * t->dims[1]);
        }
        status = check_manners(c, err);
    }
    if (!status) status = check_variants(c, n_params, err);
    if (!status) status = check_device(c, err);
    free(c->want);
    free(c->got);
    cca_gguf_close(c->file);
    return status;
}

/* Each variant against the plain one; those that the machine cannot run are told. */
static cca_status check_kernels(checker *c, cca_error *err) {
    cca_status status = CCA_OK;
    for (int i = 0; cca_kernels_name(i) && !status; i++) {
        const cca_kernels *k = cca_kernels_find(cca_kernels_name(i));
        char name[64];
        if (k == &cca_kernels_plain) continue;
        snprintf(name, sizeof name, "%s: all of its kernels", cca_kernels_name(i));
        status = k ? cca_kernels_check(k, c->on_check, c->user, err) : CCA_OK;
        if (!k) tell_skipped(c, name, "this processor has no such instructions");
        c->failed |= status == CCA_CHECK_FAILED;
        if (status == CCA_CHECK_FAILED) status = CCA_OK;
    }
    return status;
}

cca_status cca_selftest(const cca_selftest_options *options, cca_check_fn on_check, void *user,
                        cca_error *err) {
    checker c = {.o = options, .on_check = on_check, .user = user};
    cca_backend *b = NULL;
    cca_backend_options o = {.n_threads = options->n_threads};
    cca_status status = cca_backend_open(&b, is_asked(options) ? options->device : "cpu", &o, err);
    cca_backend_close(b);
    if (!status) status = check_kernels(&c, err);
    if (!status && options->model) status = check_model(&c, err);
    if (status || !c.failed) return status;
    return cca_fail(err, CCA_CHECK_FAILED,
                    "checks failed: answers of this build on this machine "
                    "may be wrong");
}
