#include "export/model_file.h"

#include "base/file_kind.h"
#include "base/processors.h"
#include "base/workers.h"
#include "cca.h"
#include "chat.h"
#include "export/convert.h"
#include "export/vocab_read.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* --- the source ---------------------------------------------------------------------- */

static cca_status check_options(const cca_export_options *o, cca_error *err) {
    if (!o->output) return cca_fail(err, CCA_USAGE, "export needs the name of an output file");
    if (!o->input == !o->random) {
        return cca_fail(err, CCA_USAGE, "export needs either an input or --random");
    }
    if (o->group_size < 0 || o->window_size < 0 || o->ctx_size < 0 || o->n_threads < 0) {
        return cca_fail(err, CCA_USAGE, "a size below zero makes no sense");
    }
    if (o->group_size > INT32_MAX || o->window_size > INT32_MAX || o->ctx_size > INT32_MAX) {
        return cca_fail(err, CCA_USAGE, "a size above %d makes no sense", INT32_MAX);
    }
    if (o->n_threads > CCA_MOST_THREADS) {
        return cca_fail(err, CCA_USAGE, "threads: %d is outside 0 … %d", o->n_threads,
                        CCA_MOST_THREADS);
    }
    const cca_dtype_facts *type = cca_dtype_find(o->type);
    if (o->has_type && (!type || !type->runs || !type->encode)) {
        return cca_fail(err, CCA_USAGE, "tensors of type %s cannot be made",
                        cca_dtype_name(o->type));
    }
    cca_chat chat;
    if (o->chat_template && !cca_chat_parse(&chat, o->chat_template)) {
        return cca_fail(err, CCA_USAGE, "chat template '%s' is none of %s", o->chat_template,
                        cca_chat_names);
    }
    return CCA_OK;
}

static bool ends_with(const char *text, const char *end) {
    size_t size = strlen(text), n = strlen(end);
    return size >= n && strcmp(text + size - n, end) == 0;
}

static cca_status open_file(cca_source *out, const char *path, const char *patch, cca_error *err) {
    cca_mapping file;
    cca_status status = cca_mapping_open(&file, path, err);
    if (status) return status;
    bool is_gguf = file.size >= 4 && memcmp(file.data, "GGUF", 4) == 0;
    const cca_file_kind *kind = cca_file_kind_of(file.data, file.size);
    cca_mapping_close(&file);
    if (is_gguf) return cca_source_open_gguf(out, path, patch, err);
    if (ends_with(path, ".safetensors")) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: give the folder that holds it and its config.json",
                        path);
    }
    if (kind) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: is %s; export reads folders with safetensors, GGUF files and those of "
                        "llama2.c",
                        path, kind->name);
    }
    return cca_source_open_llama2c(out, path, err);
}

static cca_status open_source(cca_source *out, const cca_export_options *o, cca_error *err) {
    struct stat st;
    if (o->random) return cca_source_open_random(out, o->random, err);
    if (stat(o->input, &st) == 0 && S_ISDIR(st.st_mode)) {
        return cca_source_open_folder(out, o->input, o, err);
    }
    return open_file(out, o->input, o->patch, err);
}

static bool are_same(const char *a, const char *b) {
    struct stat x, y;
    return a && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

/* The output may be none of the files that are being read. */
static cca_status check_same_file(const cca_export_options *o, cca_error *err) {
    if (!are_same(o->input, o->output) && !are_same(o->patch, o->output)) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "%s: is both input and output", o->output);
}

/* Group and window sizes: options go before what the source says, and where one of the two is
 * known the other gets its default, so that they are checked together. */
static cca_status settle_groups(cca_config *c, const cca_export_options *o, cca_error *err) {
    cca_policy policy;
    cca_error inner;
    bool from_options = o->group_size || o->window_size;
    if (o->group_size) c->group_size = o->group_size;
    if (o->window_size) c->window_size = o->window_size;
    if (!c->group_size && !c->window_size) return CCA_OK;
    if (!c->group_size) c->group_size = CCA_DEFAULT_GROUP;
    if (!c->window_size) c->window_size = CCA_DEFAULT_WINDOW;
    cca_policy_options sizes = {
        .attn = CCA_ATTN_CCA, .group_size = c->group_size, .window_size = c->window_size};
    cca_status status = cca_policy_make(&policy, &sizes, &inner);
    if (!status) return CCA_OK;
    if (from_options) return cca_fail(err, CCA_USAGE, "%s", inner.text);
    return cca_fail(err, CCA_BAD_MODEL, "%s: cca: %s", o->input, inner.text);
}

static void warn_llama_cpp(const cca_config *c, const cca_export_options *o) {
    if (!c->arch->plain_elsewhere) return;
    if (c->rope_kind == CCA_ROPE_FACTORS || c->head_dim * c->n_heads != c->dim) {
        cca_export_warn(o, "llama.cpp will refuse this model: for %s it knows no %s", c->arch->name,
                        c->rope_kind == CCA_ROPE_FACTORS ? "llama3 RoPE scaling"
                                                         : "head_dim of its own");
    }
}

/* --- the keys ------------------------------------------------------------------------ */

/* The type of the first matrix of a layer stands for all. */
static cca_dtype main_type(const cca_source *source, const cca_target *targets,
                           const cca_export_options *o) {
    for (int64_t i = 0; i < source->n_tensors && !o->has_type; i++) {
        if (source->tensors[i].role == CCA_ATTN_Q) return targets[i].type;
    }
    return o->type;
}

/* What the source says it is mostly of, where its types are kept: of a mixture that is more than a
 * type's number. */
static uint32_t file_type(const cca_source *source, cca_dtype type, const cca_export_options *o) {
    uint32_t own = cca_dtype_find(type)->file_type, kept = own;
    if (o->mixture) return cca_mixture_file_type(o->mixture);
    if (!o->has_type && source->keys &&
        cca_gguf_u32(&kept, source->keys, "general.file_type", &own, NULL) != CCA_OK) {
        kept = own;
    }
    return kept;
}

static void put_general(cca_gguf_writer *w, const cca_source *source, cca_dtype type,
                        const cca_export_options *o) {
    cca_gguf_put_text(w, "general.architecture", source->config.arch->name);
    cca_gguf_put_text(w, "general.name", source->name);
    cca_gguf_put_u32(w, "general.file_type", file_type(source, type, o));
    if (cca_dtype_block(type) > 1) cca_gguf_put_u32(w, "general.quantization_version", 2);
}

/* A key with the architecture's name in front. */
typedef struct key {
    char text[80];
} key;

static key arch_key(const cca_config *c, const char *name) {
    key k;
    snprintf(k.text, sizeof k.text, "%s.%s", c->arch->name, name);
    return k;
}

static void put_u32(cca_gguf_writer *w, const cca_config *c, const char *name, int64_t value) {
    cca_gguf_put_u32(w, arch_key(c, name).text, (uint32_t)value);
}

static void put_f32(cca_gguf_writer *w, const cca_config *c, const char *name, double value) {
    cca_gguf_put_f32(w, arch_key(c, name).text, (float)value);
}

static void put_sizes(cca_gguf_writer *w, const cca_config *c) {
    put_u32(w, c, "vocab_size", c->vocab_size);
    put_u32(w, c, "context_length", c->seq_len);
    put_u32(w, c, "embedding_length", c->dim);
    put_u32(w, c, "block_count", c->n_layers);
    put_u32(w, c, "feed_forward_length", c->hidden_dim);
    put_u32(w, c, "attention.head_count", c->n_heads);
    put_u32(w, c, "attention.head_count_kv", c->n_kv_heads);
    put_u32(w, c, "attention.key_length", c->head_dim);
    put_u32(w, c, "attention.value_length", c->head_dim);
    put_u32(w, c, "rope.dimension_count", cca_rope_dims(c));
    put_f32(w, c, "attention.layer_norm_rms_epsilon", (double)c->norm_eps);
}

static void put_own_window(cca_gguf_writer *w, const cca_config *c) {
    if (c->own_window == 0) return;
    put_u32(w, c, "attention.sliding_window", c->own_window);
    if (c->own_full_step > 0 || c->arch->full_step > 0) {
        put_u32(w, c, "attention.sliding_window_pattern", c->own_full_step);
    }
}

static void put_scales(cca_gguf_writer *w, const cca_config *c) {
    const cca_scales *s = &c->scales;
    if (s->embedding != 0) put_f32(w, c, "embedding_scale", s->embedding);
    if (s->residual != 0) put_f32(w, c, "residual_scale", s->residual);
    if (s->attention != 0) put_f32(w, c, "attention.scale", s->attention);
    if (s->logits != 0) put_f32(w, c, "logit_scale", s->logits);
}

static void put_rope(cca_gguf_writer *w, const cca_config *c) {
    put_f32(w, c, "rope.freq_base", c->rope_theta);
    const bool yarn = c->rope_kind == CCA_ROPE_YARN, longrope = c->rope_kind == CCA_ROPE_LONGROPE;
    if (c->rope_kind != CCA_ROPE_LINEAR && !yarn && !longrope) return;
    const char *type = yarn ? "yarn" : longrope ? "longrope" : "linear";
    cca_gguf_put_text(w, arch_key(c, "rope.scaling.type").text, type);
    if (!longrope) put_f32(w, c, "rope.scaling.factor", c->rope_factor);
    if (!yarn && !longrope) return;
    put_u32(w, c, "rope.scaling.original_context_length", (int64_t)c->rope_original);
    put_f32(w, c, "rope.scaling.attn_factor", c->rope_attn_factor);
    if (!yarn) return;
    put_f32(w, c, "rope.scaling.yarn_beta_fast", c->yarn_beta_fast);
    put_f32(w, c, "rope.scaling.yarn_beta_slow", c->yarn_beta_slow);
    if (c->query_beta != 0) put_f32(w, c, "attention.temperature_scale", c->query_beta);
}

static void put_cca(cca_gguf_writer *w, const cca_source *source, const cca_export_options *o) {
    const cca_config *c = &source->config;
    const char *chat = o->chat_template ? o->chat_template : source->text.chat_name;
    if (c->group_size) cca_gguf_put_u32(w, "cca.group_size", (uint32_t)c->group_size);
    if (c->window_size) cca_gguf_put_u32(w, "cca.window_size", (uint32_t)c->window_size);
    if (c->says_sinks) cca_gguf_put_u32(w, "cca.sinks", (uint32_t)c->n_sinks);
    if (c->says_recall) cca_gguf_put_u32(w, "cca.recall", (uint32_t)c->recall);
    if (c->says_cores) cca_gguf_put_bool(w, "cca.cores", c->cores);
    if (c->tuned) cca_gguf_put_bool(w, "cca.tuned", true);
    if (chat) cca_gguf_put_text(w, "cca.chat_template", chat);
}

static cca_status put_vocab(cca_gguf_writer *w, const cca_source *source,
                            const cca_export_options *o, const char *path, cca_error *err) {
    cca_vocab vocab;
    int64_t n = source->config.vocab_size;
    cca_status status = cca_vocab_open(&vocab, path, err);
    if (!status && !vocab.is_bpe) {
        cca_export_warn(o, "%s: is no BPE model; other programs may read it wrongly", path);
    }
    if (!status && vocab.n < n) {
        cca_export_warn(o, "%s: has %lld pieces; the model's other %lld tokens have no text", path,
                        (long long)vocab.n, (long long)(n - vocab.n));
    }
    if (!status && vocab.n > n && n >= vocab.n_own) {
        cca_export_warn(o, "%s: of its tokens %lld were added that the model does not have", path,
                        (long long)(vocab.n - n));
    }
    if (!status) status = cca_vocab_pad(&vocab, n, err);
    if (!status) status = cca_vocab_put(w, &vocab, &source->text, err);
    cca_vocab_close(&vocab);
    return status;
}

static cca_status put_text(cca_gguf_writer *w, const cca_source *source,
                           const cca_export_options *o, cca_error *err) {
    const char *path = o->tokenizer ? o->tokenizer : source->text.tokenizer;
    if (source->text.chat_template) {
        cca_gguf_put_text(w, "tokenizer.chat_template", source->text.chat_template);
    }
    if (path) return put_vocab(w, source, o, path, err);
    if (source->text.is_carried) return CCA_OK;
    cca_gguf_put_text(w, "tokenizer.ggml.model", "no_vocab");
    cca_export_warn(o, "no tokenizer: commands that need text will refuse this model");
    return CCA_OK;
}

/* --- keys of another model file ------------------------------------------------------ */

static bool starts_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

/* Not what belongs to the other file's bytes, nor its tokenizer where there is a new one, nor
 * factors of yarn that have become part of attn_factor. */
static bool is_carried(const void *context, const char *name) {
    static const char *const of_the_file[] = {
        "general.alignment", "general.file_type",  "general.quantization_version",
        "cca.crc32",         "cca.fingerprint",    "split.no",
        "split.count",       "split.tensors.count"};
    const cca_export_options *o = context;
    if (ends_with(name, ".yarn_attn_factor") || ends_with(name, ".yarn_log_multiplier")) {
        return false;
    }
    for (size_t i = 0; i < sizeof of_the_file / sizeof *of_the_file; i++) {
        if (strcmp(name, of_the_file[i]) == 0) return false;
    }
    bool of_tokenizer = starts_with(name, "tokenizer.") || starts_with(name, "cca.tokenizer.") ||
                        strcmp(name, "cca.end_token_ids") == 0;
    return !o->tokenizer || !of_tokenizer || starts_with(name, "tokenizer.chat_template");
}

/* --- the whole ----------------------------------------------------------------------- */

static void put_tensors(cca_gguf_writer *w, const cca_source *source, const cca_target *targets) {
    for (int64_t i = 0; i < source->n_tensors; i++) {
        const cca_source_tensor *t = &source->tensors[i];
        const cca_target *target = &targets[i];
        const int64_t rows = (int64_t)(target->whole / target->row_bytes);
        const int64_t matrix[] = {t->cols, rows}, vector[] = {rows};
        if (target->before > 0) continue;
        cca_gguf_put_tensor(w, target->name, t->vector ? 1 : 2, t->vector ? vector : matrix,
                            target->type, target->whole);
    }
}

static cca_status write_file(cca_gguf_writer *w, const cca_source *source,
                             const cca_target *targets, const cca_export_options *o,
                             cca_error *err) {
    uint32_t *crcs = calloc((size_t)source->n_tensors, sizeof *crcs);
    if (!crcs) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its checksums", o->output);
    put_general(w, source, main_type(source, targets, o), o);
    put_sizes(w, &source->config);
    put_scales(w, &source->config);
    put_own_window(w, &source->config);
    put_rope(w, &source->config);
    put_cca(w, source, o);
    cca_status status = put_text(w, source, o, err);
    if (source->keys) cca_gguf_put_others(w, source->keys, is_carried, o);
    put_tensors(w, source, targets);
    if (!status) status = cca_gguf_writer_begin(w, err);
    if (!status) status = cca_convert(w, source, targets, crcs, o, err);
    if (!status) status = cca_gguf_writer_finish(w, crcs, err);
    if (!status) {
        status = cca_convert_check(cca_gguf_writer_temporary(w), source, targets, err);
    }
    if (!status) status = cca_gguf_writer_commit(w, err);
    free(crcs);
    return status;
}

static cca_status export_source(cca_source *source, const cca_export_options *o, cca_error *err) {
    cca_gguf_writer *w = NULL;
    cca_target *targets = NULL;
    if (o->ctx_size) source->config.seq_len = o->ctx_size;
    cca_status status = settle_groups(&source->config, o, err);
    if (!status) status = check_same_file(o, err);
    if (!status) status = cca_gguf_writer_new(&w, o->output, err);
    if (!status) status = cca_targets_new(&targets, source, o, err);
    if (!status) {
        warn_llama_cpp(&source->config, o);
        status = write_file(w, source, targets, o, err);
    }
    free(targets);
    cca_gguf_writer_free(w);
    return status;
}

cca_status cca_export(const cca_export_options *options, cca_error *err) {
    cca_source source = {0};
    cca_export_options o = *options;
    cca_status status = check_options(&o, err);
    if (status) return status;
    if (o.n_threads == 0) o.n_threads = cca_processors("");
    status = open_source(&source, &o, err);
    if (!status && o.patch && !source.keys) {
        status = cca_fail(err, CCA_USAGE, "%s: a patch goes with a GGUF file", o.patch);
    }
    if (!status) status = export_source(&source, &o, err);
    cca_source_close(&source);
    return status;
}
