#include "engine_parts.h"

#include "attention_options.h"
#include "backend/backend.h"
#include "backend/cpu/cpu.h"
#include "base/available_memory.h"
#include "base/processors.h"
#include "check/forecast.h"
#include "check/work.h"
#include "model_share.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- engine ------------------------------------------------------------------------- */

static bool is_cpu(const cca_engine *e) {
    return strcmp(cca_backend_name(e->backend), "cpu") == 0;
}

/* The type that holds most bytes of the weights. */
static const char *main_type(const cca_gguf *file) {
    const cca_gguf_tensor *largest = NULL;
    for (uint64_t i = 0; i < cca_gguf_n_tensors(file); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(file, i);
        bool inner = cca_tensor_of_layer(t->name);
        if (inner && (!largest || t->bytes > largest->bytes)) largest = t;
    }
    return largest ? cca_dtype_name((cca_dtype)largest->type) : "f32";
}

static char *copy_bytes(const char *bytes, size_t size) {
    char *copy = malloc(size + 1);
    if (!copy) return NULL;
    memcpy(copy, bytes, size);
    copy[size] = '\0';
    return copy;
}

static int64_t n_windowed(const cca_config *c) {
    int64_t n = 0;
    for (int64_t l = 0; l < c->n_layers; l++) n += cca_layer_window(c, l) > 0;
    return n;
}

static cca_status gather_facts(cca_engine *e, const char *path, cca_error *err) {
    const cca_config *c = cca_model_config(e->model);
    cca_gguf_string name, unnamed = {"", 0};
    cca_status status = cca_gguf_str(&name, e->file, "general.name", &unnamed, err);
    if (status) return status;
    e->path = copy_bytes(path, strlen(path));
    e->name = copy_bytes(name.bytes, name.size);
    if (!e->path || !e->name) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory", path);
    cca_config_describe_rope(e->rope, sizeof e->rope, c, 0);
    e->facts = (cca_engine_facts){
        .path = e->path,
        .arch = c->arch->name,
        .name = e->name,
        .device = cca_backend_name(e->backend),
        .kernels = is_cpu(e) && e->how.kernels ? e->how.kernels : cca_kernels_best()->name,
        .dim = c->dim,
        .hidden_dim = c->hidden_dim,
        .n_layers = c->n_layers,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .vocab_size = c->vocab_size,
        .seq_len = c->seq_len,
        .trained_length = c->trained_length,
        .group_size = c->group_size ? c->group_size : CCA_DEFAULT_GROUP,
        .window_size = c->window_size ? c->window_size : CCA_DEFAULT_WINDOW,
        .cca_keys = c->group_size && c->window_size,
        .sinks = c->says_sinks ? c->n_sinks : CCA_AUTO,
        .recall = c->says_recall ? c->recall : CCA_AUTO,
        .tuned = c->tuned,
        .tied = c->tied,
        .own_window = c->own_window,
        .n_windowed = n_windowed(c),
        .rope = e->rope,
        .weight_type = main_type(e->file),
        .n_params = cca_model_n_params(e->model),
        .weight_bytes = cca_model_weight_bytes(e->model),
        .file_bytes = cca_gguf_size(e->file),
        .n_threads = e->how.n_threads,
    };
    return CCA_OK;
}

/* A tokenizer with more tokens than the model has rows would index past the embedding. */
static cca_status check_vocabulary(const cca_engine *e, cca_error *err) {
    if (!e->tokenizer) return CCA_OK;
    int64_t tokens = cca_tokenizer_info(e->tokenizer)->vocab_size;
    int64_t rows = cca_model_config(e->model)->vocab_size;
    if (tokens <= rows) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL,
                    "%s: the tokenizer has %lld tokens, tensor token_embd.weight %lld rows",
                    cca_gguf_name(e->file), (long long)tokens, (long long)rows);
}

/* A device that has no room for the weights is not begun to be filled. */
static cca_status check_weights(const cca_engine *e, cca_error *err) {
    uint64_t bytes = 0;
    if (is_cpu(e) || e->borrower) return CCA_OK;
    for (uint64_t i = 0; i < cca_gguf_n_tensors(e->file); i++) {
        bytes += cca_gguf_tensor_at(e->file, i)->bytes;
    }
    uint64_t room = cca_backend_room(e->backend);
    if (bytes <= room) return CCA_OK;
    return cca_fail(err, CCA_NO_MEMORY, "%s: the weights take %llu bytes; the device has %llu free",
                    cca_gguf_name(e->file), (unsigned long long)bytes, (unsigned long long)room);
}

static cca_status open_parts(cca_engine *e, const char *path, const cca_engine_options *options,
                             cca_error *err) {
    const cca_kernels *kernels = options->kernels ? cca_kernels_find(options->kernels) : NULL;
    e->how = (cca_backend_options){.n_threads = options->n_threads ? options->n_threads
                                                                   : cca_physical_cores(""),
                                   .kernels = options->kernels,
                                   .fp8 = options->fp8};
    cca_backend_options borrower = {.n_threads = 1};
    cca_status status = cca_backend_open(&e->backend, e->device, &e->how, err);
    e->how.kernels = kernels ? kernels->name : NULL; /* the option is borrowed */
    if (!status) status = cca_gguf_open(&e->file, path, err);
    if (!status && options->plan_only && !is_cpu(e)) {
        status = cca_backend_cpu(&e->borrower, &borrower, err);
    }
    if (!status) status = check_weights(e, err);
    cca_backend *holder = e->borrower ? e->borrower : e->backend;
    if (!status) status = cca_model_open(&e->model, e->file, holder, err);
    if (!status) status = cca_tokenizer_open(&e->tokenizer, e->file, err);
    if (!status) status = check_vocabulary(e, err);
    if (!status) status = gather_facts(e, path, err);
    return status;
}

cca_status cca_engine_open(cca_engine **out, const char *path, const cca_engine_options *options,
                           cca_error *err) {
    static const cca_engine_options defaults = {0};
    if (!options) options = &defaults;
    *out = NULL;
    cca_engine *e = calloc(1, sizeof *e);
    if (!e) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory", path);
    const char *device = options->device ? options->device : "auto";
    e->device = copy_bytes(device, strlen(device));
    cca_status status = e->device ? open_parts(e, path, options, err)
                                  : cca_fail(err, CCA_NO_MEMORY, "%s: no memory", path);
    if (status) {
        cca_engine_close(e);
        return status;
    }
    *out = e;
    return CCA_OK;
}

void cca_engine_close(cca_engine *engine) {
    if (!engine) return;
    cca_tokenizer_close(engine->tokenizer);
    cca_model_close(engine->model);
    cca_gguf_close(engine->file);
    cca_backend_close(engine->backend);
    cca_backend_close(engine->borrower);
    free(engine->path);
    free(engine->name);
    free(engine->device);
    free(engine);
}

const cca_engine_facts *cca_engine_info(const cca_engine *engine) {
    return &engine->facts;
}

const cca_tokenizer *cca_engine_tokenizer(const cca_engine *engine) {
    return engine->tokenizer;
}

const cca_gguf *cca_engine_file(const cca_engine *engine) {
    return engine->file;
}

/* ---- session options ---------------------------------------------------------------- */

/* n rounded up to a multiple. */
static int64_t rounded_up(int64_t n, int64_t of) {
    return (n + of - 1) / of * of;
}

static cca_status check_most_draft(int64_t n, cca_error *err) {
    if (n >= 0 && n <= CCA_MOST_DRAFT) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "drafts of %lld tokens: 0 to %d", (long long)n, CCA_MOST_DRAFT);
}

cca_status cca_session_resolve(cca_state_options *out, const cca_engine *engine,
                               const cca_session_options *o, cca_error *err) {
    cca_cache_types types;
    cca_status status = check_most_draft(o->draft, err);
    if (!status) status = cca_cache_types_parse(&types, o, err);
    if (!status) {
        status = cca_attention_resolve(&out->policy, cca_model_config(engine->model), o, err);
    }
    if (status) return status;
    out->one_layer = false;
    out->spread = o->spread && o->comm && cca_comm_n_ranks(o->comm) > 1;
    out->k_type = types.k;
    out->v_type = types.v;
    out->row_k_type = types.row_k;
    out->row_v_type = types.row_v;
    out->rows_apart = types.row_k != types.k || types.row_v != types.v || o->rows_on_host;
    out->rows_on_host = o->rows_on_host && !is_cpu(engine) && out->policy.recall > 0;
    out->rows_near = !is_cpu(engine);
    out->ctx_size = o->ctx_size;
    out->draft = o->draft;
    out->mark = o->mark;
    out->stored = o->stored;
    out->rows_folder = o->rows_folder;
    out->most_resident = (size_t)o->most_resident;
    int64_t chunk_size = o->chunk_size ? o->chunk_size : cca_backend_chunk_size(engine->backend);
    int64_t tile = out->policy.tile; /* which chunks do not cut */
    chunk_size = cca_max(chunk_size / tile * tile, tile);
    out->chunk_size = cca_min(chunk_size, rounded_up(cca_max(o->ctx_size, 1), tile));
    if (out->rows_folder && o->rows_on_host) {
        return cca_fail(err, CCA_USAGE, "rows lie on disk or in memory of the host, not in both");
    }
    if (out->rows_folder && !is_cpu(engine)) {
        return cca_fail(err, CCA_USAGE,
                        "device %s has rows in memory of its own: on disk they are the CPU's",
                        cca_backend_name(engine->backend));
    }
    return CCA_OK;
}

cca_status cca_session_attention_settings(cca_attention_settings *out, const cca_engine *engine,
                                          const cca_session_options *options, cca_error *err) {
    cca_policy p;
    cca_status status = cca_attention_resolve(&p, cca_model_config(engine->model), options, err);
    if (status) return status;
    bool full = p.attn == CCA_ATTN_FULL;
    *out = (cca_attention_settings){.attn = cca_attention_name(&p),
                                    .group_size = full ? 0 : p.rule.group_size,
                                    .window_size = full ? 0 : p.rule.window_size,
                                    .sinks = p.rule.n_sinks,
                                    .recall = p.recall,
                                    .recall_tile = p.tile,
                                    .cores = p.rule.cores};
    return CCA_OK;
}

/* What the session's backend will keep for itself; recalls: groups have bounds. */
static size_t beside(const cca_engine *e, const cca_state_options *o, bool recalls) {
    const cca_config *c = cca_model_config(e->model);
    const cca_policy *p = &o->policy;
    cca_layer_sizes sizes = {.n_tokens = o->chunk_size,
                             .dim = cca_max(c->dim, c->n_heads * c->head_dim),
                             .hidden_dim = c->hidden_dim,
                             .n_heads = c->n_heads,
                             .head_dim = c->head_dim,
                             .k_type = o->k_type};
    if (recalls) {
        int64_t g = p->rule.group_size;
        sizes.n_groups = o->ctx_size / g;
        sizes.choice = (cca_choice){.heads = c->n_kv_heads,
                                    .most = p->recall / g,
                                    .tile = p->tile,
                                    .group_size = g,
                                    .levels_from = p->levels_from};
    }
    cca_dtype_parse(&sizes.type, e->facts.weight_type);
    return cca_backend_beside(e->backend, &sizes);
}

/* Of the last token, and of those of a draft, in the host's memory: counted where that is the
 * device's. */
static size_t logits_bytes(const cca_engine *e, const cca_state_options *o) {
    const int64_t n_rows = o->draft > 0 ? 2 + o->draft : 1;
    return is_cpu(e) ? (size_t)(n_rows * e->facts.vocab_size) * sizeof(float) : 0;
}

cca_status cca_session_measure(cca_session_size *out, const cca_engine *engine,
                               const cca_session_options *options, cca_error *err) {
    cca_state_options o;
    cca_state_size size;
    const cca_config *config = cca_model_config(engine->model);
    cca_status status = cca_session_resolve(&o, engine, options, err);
    if (!status) status = cca_state_measure(&size, config, &o, err);
    if (status) return status;
    *out = (cca_session_size){.n_ranks = 1};
    out->cores = size.cache.cores;
    out->bounds = size.cache.bounds;
    out->window = size.cache.window;
    out->rows = size.cache.rows;
    out->disk = size.cache.disk;
    out->host = size.cache.host;
    out->mark = size.cache.mark;
    const size_t kept = beside(engine, &o, out->bounds > 0) + logits_bytes(engine, &o);
    out->activations = size.cache.scratch + size.activations + kept;
    if (options->comm) status = cca_session_measure_ranks(out, engine, &o, options, kept, err);
    if (status) return status;
    if (!cca_add(&out->total, out->cores, out->window) ||
        !cca_add(&out->total, out->total, out->rows) ||
        !cca_add(&out->total, out->total, out->bounds) ||
        !cca_add(&out->total, out->total, out->mark) ||
        !cca_add(&out->total, out->total, out->activations)) {
        return cca_fail(err, CCA_NO_MEMORY,
                        "a session for %lld positions is larger than any memory",
                        (long long)o.ctx_size);
    }
    return CCA_OK;
}

uint64_t cca_engine_room(const cca_engine *engine) {
    uint64_t weights = engine->facts.weight_bytes;
    uint64_t room = is_cpu(engine) ? cca_memory_available("") : cca_backend_room(engine->backend);
    if (!is_cpu(engine) && !engine->borrower) return room;
    return room - (weights < room ? weights : room);
}

void cca_engine_close_backend(cca_engine *e, cca_backend *b) {
    if (b && b->lost) e->backend->lost = true;
    cca_backend_close(b);
}

cca_status cca_engine_forecast(cca_forecast *out, cca_engine *engine,
                               const cca_session_options *options, int n, int64_t n_tokens,
                               cca_error *err) {
    cca_backend_options backend = engine->how;
    const cca_config *config = cca_model_config(engine->model);
    cca_backend *b = NULL;
    cca_forecaster *forecast = NULL;
    cca_state_options o;
    backend.stop = options[0].stop;
    cca_status status = cca_session_resolve(&o, engine, &options[0], err);
    if (!status) status = cca_backend_open(&b, engine->device, &backend, err);
    if (!status) {
        status = cca_forecast_new(&forecast, b, is_cpu(engine) ? backend.n_threads : 0,
                                  engine->file, config, o.chunk_size, err);
    }
    for (int i = 0; i < n && !status; i++) {
        status = cca_session_resolve(&o, engine, &options[i], err);
        if (!status) status = cca_forecast_attention(forecast, &o, n_tokens, err);
        if (status) break;
        out[i].prefill_s = cca_forecast_prefill(forecast, n_tokens);
        out[i].token_s = cca_forecast_decode(forecast, n_tokens);
    }
    cca_forecast_free(forecast);
    cca_engine_close_backend(engine, b);
    return status;
}

/* ---- session ------------------------------------------------------------------------ */

/* Refuses what the device has no room for before anything is allocated. */
static cca_status check_room(cca_session *s, const cca_session_options *options, cca_error *err) {
    cca_session_size size;
    cca_status status = cca_session_measure(&size, s->engine, options, err);
    if (status) return status;
    uint64_t room = cca_engine_room(s->engine), of_host = cca_memory_available("");
    if (size.host > of_host) {
        return cca_fail(
            err, CCA_NO_MEMORY,
            "rows of %lld positions take %llu bytes of the host's memory; %llu are free",
            (long long)s->options.ctx_size, (unsigned long long)size.host,
            (unsigned long long)of_host);
    }
    if (size.total <= room && size.others > room - size.total) {
        return cca_fail(
            err, CCA_NO_MEMORY,
            "a session for %lld positions takes %llu bytes, and the other ranks of this "
            "machine take %llu; beside the weights %llu are free",
            (long long)s->options.ctx_size, (unsigned long long)size.total,
            (unsigned long long)size.others, (unsigned long long)room);
    }
    if (size.total <= room && options->comm) {
        return cca_session_check_ranks(&size, options->comm, s->engine->facts.weight_bytes, err);
    }
    if (size.total <= room) return CCA_OK;
    return cca_fail(
        err, CCA_NO_MEMORY,
        "a session for %lld positions takes %llu bytes; beside the weights %llu are free",
        (long long)s->options.ctx_size, (unsigned long long)size.total, (unsigned long long)room);
}

static cca_status make_session(cca_session *s, const cca_session_options *options, cca_error *err) {
    cca_engine *e = s->engine;
    cca_backend_options backend = e->how;
    backend.stop = options->stop;
    cca_status status = cca_session_resolve(&s->options, e, options, err);
    if (!status && e->borrower) {
        status = cca_fail(err, CCA_USAGE, "%s was opened for planning only", e->path);
    }
    if (!status) status = cca_backend_open(&s->backend, e->device, &backend, err);
    if (!status) status = check_room(s, options, err);
    if (!status) {
        status = cca_state_new(&s->state, e->model, s->backend, &s->options, err);
    }
    if (!status && s->options.spread) status = cca_state_spread(s->state, options->comm, err);
    s->options.rows_folder = NULL; /* borrowed so far */
    if (status) return status;
    const size_t vocab = (size_t)e->facts.vocab_size, draft = (size_t)s->options.draft;
    s->logits = calloc(vocab, sizeof *s->logits);
    s->comm = options->comm;
    if (s->comm) {
        const int64_t n_ranks = cca_comm_n_ranks(s->comm);
        s->ranks = calloc((size_t)n_ranks, sizeof *s->ranks);
        cca_gguf_look(s->weights, e->file);
        s->share_from = cca_session_share_from(&s->options, options);
    }
    if (draft > 0) s->of_draft = calloc(vocab * (1 + draft), sizeof *s->of_draft);
    const bool made = s->logits && (draft == 0 || s->of_draft) && (!s->comm || s->ranks);
    return made ? CCA_OK : cca_fail(err, CCA_NO_MEMORY, "no memory for the logits");
}

cca_status cca_session_new(cca_session **out, cca_engine *engine,
                           const cca_session_options *options, cca_error *err) {
    *out = NULL;
    cca_session *s = calloc(1, sizeof *s);
    if (!s) return cca_fail(err, CCA_NO_MEMORY, "no memory for a session");
    s->engine = engine;
    s->last_row = s->marked = -1;
    cca_status status = make_session(s, options, err);
    if (status) {
        cca_session_free(s);
        return status;
    }
    *out = s;
    return CCA_OK;
}

void cca_session_free(cca_session *session) {
    if (!session) return;
    cca_state_free(session->state);
    cca_engine_close_backend(session->engine, session->backend);
    free(session->ranks);
    free(session->logits);
    free(session->of_draft);
    cca_watch_free(&session->watch);
    free(session);
}

cca_status cca_session_check_input(const cca_session *s, const int32_t *ids, int64_t n,
                                   cca_error *err) {
    if (n < 0 || n > s->options.ctx_size - s->pos) {
        return cca_fail(err, CCA_NO_FIT,
                        "%lld tokens behind position %lld do not fit the context of %lld",
                        (long long)n, (long long)s->pos, (long long)s->options.ctx_size);
    }
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= s->engine->facts.vocab_size) {
            return cca_fail(err, CCA_USAGE, "token %lld has id %d, outside the vocabulary of %lld",
                            (long long)i, ids[i], (long long)s->engine->facts.vocab_size);
        }
    }
    return CCA_OK;
}

cca_status cca_session_check_sound(const cca_session *s, cca_error *err) {
    if (!s->torn) return CCA_OK;
    return cca_fail(err, CCA_RUNTIME,
                    "the session was interrupted in the middle of a chunk: reset it, or go back to "
                    "its mark, a snapshot or a stored state");
}

void cca_session_begin_call(cca_session *s) {
    s->last_row = -1;
    s->n_draft = 0;
    s->known = NULL;
}

void cca_session_settle(cca_session *s, int64_t pos) {
    s->pos = pos;
    cca_session_begin_call(s);
    s->torn = false;
}

cca_status cca_session_eval(cca_session *s, const int32_t *ids, int64_t n,
                            const cca_eval_options *options, cca_error *err) {
    cca_eval_options o = options ? *options : (cca_eval_options){0};
    cca_status status = cca_session_check_sound(s, err);
    if (!status) status = cca_session_check_input(s, ids, n, err);
    int64_t chunk = s->options.chunk_size;
    bool ends = s->options.policy.tile > 1 && o.ends_prompt;
    int64_t alone = ends ? cca_max(CCA_ALONE - o.more, 0) : 0;
    int64_t together = cca_max(n - alone, 0); /* those that choose in tiles */
    if (!status && cca_session_shares(s, n, &o)) {
        return cca_session_eval_shared(s, ids, n, s->pos + together, &o, err);
    }
    for (int64_t done = 0, some; !status && done < n; done += some) {
        int64_t end = done < together ? together : n;
        some = cca_min(end - done, chunk - s->pos % chunk);
        bool watch = s->watch.on && done + some == n;
        cca_session_begin_call(s);
        cca_cache_draft(cca_state_cache(s->state), false);
        cca_cache_choose_alone(cca_state_cache(s->state), done >= together);
        cca_cache_watch(cca_state_cache(s->state), watch ? &s->watch.mass : NULL, 1);
        status = cca_session_forward(s, ids + done, some, err);
        s->torn = status;
        if (status) break;
        s->watch.n += watch;
        s->pos += some;
        s->last_row = some - 1;
        if (o.on_progress) o.on_progress(o.user, s, s->pos);
        if (o.on_chunk) status = o.on_chunk(o.user, s, s->pos - some, some, err);
    }
    return status;
}

/* ---- drafts --------------------------------------------------------------------------- */

static cca_status check_draft(const cca_session *s, int64_t n, cca_error *err) {
    int64_t most = s->options.draft ? cca_min(1 + s->options.draft, s->options.chunk_size) : 0;
    if (n >= 1 && n <= most) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "a draft of %lld tokens: this session takes 1 to %lld",
                    (long long)n, (long long)most);
}

cca_status cca_session_draft(const float **logits, cca_session *s, const int32_t *ids, int64_t n,
                             cca_error *err) {
    cca_cache *cache = cca_state_cache(s->state);
    cca_mass mass;
    *logits = NULL;
    cca_status status = cca_session_check_sound(s, err);
    if (!status) status = check_draft(s, n, err);
    if (!status) status = cca_session_check_input(s, ids, n, err);
    if (status) return status;
    if (s->watch.on) mass = cca_watch_draft(&s->watch, n);
    cca_session_begin_call(s);
    cca_cache_draft(cache, true);
    cca_cache_watch(cache, s->watch.on ? &mass : NULL, n);
    status = cca_session_forward(s, ids, n, err);
    if (!status) status = cca_model_logits(s->state, 0, n, s->of_draft, err);
    s->torn = status;
    if (status) return status;
    s->pos += n;
    s->last_row = n - 1;
    s->n_draft = n;
    s->known = s->of_draft + (n - 1) * s->engine->facts.vocab_size;
    *logits = s->of_draft;
    return CCA_OK;
}

cca_status cca_session_accept(cca_session *s, int64_t n, cca_error *err) {
    if (n < 1 || n > s->n_draft) {
        return cca_fail(err, CCA_USAGE, "%lld tokens of a draft of %lld", (long long)n,
                        (long long)s->n_draft);
    }
    if (s->watch.on) cca_watch_accept(&s->watch, n);
    s->pos -= s->n_draft - n;
    s->last_row = n - 1;
    s->n_draft = 0;
    s->known = s->of_draft + (n - 1) * s->engine->facts.vocab_size;
    return CCA_OK;
}

/* ---- what a session is at ------------------------------------------------------------- */

int64_t cca_session_chunk_size(const cca_session *session) {
    return session->options.chunk_size;
}

int64_t cca_session_last_seam(const cca_session *session, int64_t n, bool ends_prompt) {
    int64_t chunk = session->options.chunk_size;
    if (ends_prompt && session->options.policy.tile > 1) return cca_max(n - CCA_ALONE, 0);
    return cca_max(n - 1, 0) / chunk * chunk;
}

int64_t cca_session_pos(const cca_session *session) {
    return session->pos;
}

bool cca_session_is_spread(const cca_session *session) {
    return session->options.spread;
}

uint64_t cca_session_cache_bytes(const cca_session *session) {
    return cca_cache_used(cca_state_cache(session->state), session->pos);
}

const float *cca_session_logits(cca_session *s, cca_error *err) {
    if (s->last_row < 0) {
        cca_fail(err, CCA_RUNTIME, "no token was evaluated yet");
        return NULL;
    }
    if (s->known) return s->known;
    cca_status status = cca_model_logits(s->state, s->last_row, 1, s->logits, err);
    return !status ? s->logits : NULL;
}

cca_status cca_session_chunk_logits(cca_session *session, int64_t row, int64_t n, float *out,
                                    cca_error *err) {
    return cca_model_logits(session->state, row, n, out, err);
}

cca_status cca_session_mark(cca_session *s, cca_error *err) {
    cca_status status = cca_session_check_sound(s, err);
    if (status) return status;
    s->marked = -1;
    status = cca_state_mark(s->state, s->pos, err);
    if (!status) s->marked = s->pos;
    return status;
}

cca_status cca_session_rewind(cca_session *s, cca_error *err) {
    if (s->marked < 0) return cca_fail(err, CCA_USAGE, "the session has no mark to rewind to");
    s->last_row = -1;
    s->torn = true;
    cca_status status = cca_state_rewind(s->state, s->marked, err);
    if (!status) cca_session_settle(s, s->marked);
    return status;
}

/* ---- attention watched ---------------------------------------------------------------- */

cca_status cca_session_watch(cca_session *s, const int64_t *cuts, int64_t n_cuts, cca_error *err) {
    const cca_config *c = cca_model_config(s->engine->model);
    if (s->options.spread) {
        return cca_fail(err, CCA_USAGE,
                        "attention over ranks that each keep a part is not watched");
    }
    cca_watch_sizes sizes = {.n_heads = c->n_layers * c->n_heads,
                             .ctx_size = s->options.ctx_size,
                             .unit = cca_cache_unit(&s->options.policy)};
    if (s->options.draft > 0) sizes.n_draft = 1 + s->options.draft;
    return cca_watch_begin(&s->watch, &sizes, cuts, n_cuts, err);
}

void cca_session_unwatch(cca_session *session) {
    session->watch.on = false;
}

cca_attention cca_session_attention(const cca_session *session) {
    const cca_config *c = cca_model_config(session->engine->model);
    const cca_watch *w = &session->watch;
    return (cca_attention){w->mass.sums, c->n_layers, c->n_heads, w->mass.n_slots,
                           w->mass.unit, w->n,        w->begins};
}

/* ---- the rest --------------------------------------------------------------------------- */

void cca_session_reset(cca_session *session) {
    cca_session_settle(session, 0);
    session->last_row = session->marked = -1;
}

cca_work cca_session_work(const cca_session *s, int64_t pos, int64_t n, int64_t n_logits) {
    const cca_config *c = cca_model_config(s->engine->model);
    cca_work_count count = cca_count_work(c, &s->options, pos, n, n_logits);
    cca_work w = {.products = count.products,
                  .attention = count.attention,
                  .weight_bytes = (double)s->engine->facts.weight_bytes,
                  .cache_bytes = count.cache_bytes};
    if (!c->tied) {
        w.weight_bytes -=
            (double)cca_gguf_find(s->engine->file, cca_tensors[CCA_EMBEDDING].name)->bytes;
    }
    return w;
}
