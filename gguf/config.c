/* Reads the model's configuration from the keys of its file. */
#include "gguf/config.h"

#include "backend/dtype.h"
#include "cca_rule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* More than any real model has, small enough that products of two never overflow. */
enum { MAX_DIM = 1 << 20, MAX_VOCAB = 1 << 24, MAX_HEAD_DIM = 4096 };
enum { MAX_CONTEXT = INT32_MAX };

/* The file, what stands in front of its keys, and the first failure. */
typedef struct reader {
    const cca_gguf *file;
    const char *prefix;
    cca_error *err;
    cca_status status;
} reader;

static bool string_is(cca_gguf_string s, const char *text) {
    return s.size == strlen(text) && memcmp(s.bytes, text, s.size) == 0;
}

static void note(reader *r, cca_status status) {
    if (!r->status) r->status = status;
}

/* A whole number in 1 … max; 0, too, where the fallback is 0: some writers say "none" so. Does
 * nothing after a failure. */
static int64_t whole(reader *r, const char *key, const uint64_t *fallback, int64_t max) {
    char full[128];
    uint64_t value = 0;
    if (r->status) return 0;
    snprintf(full, sizeof full, "%s.%s", r->prefix, key);
    note(r, cca_gguf_u64(&value, r->file, full, fallback, r->err));
    bool none = value == 0 && fallback && *fallback == 0;
    if (!r->status && !none && (value == 0 || value > (uint64_t)max)) {
        note(r, cca_fail(r->err, CCA_BAD_MODEL, "%s: key %s: %llu is outside 1 … %lld",
                         cca_gguf_name(r->file), full, (unsigned long long)value, (long long)max));
    }
    return (int64_t)value;
}

/* A whole number that may be given as a list, too, one for each layer: those must be equal. */
static int64_t of_layers(reader *r, const char *key, const uint64_t *fallback, int64_t max,
                         int64_t n_layers) {
    char full[128];
    cca_gguf_array list;
    if (r->status) return 0;
    snprintf(full, sizeof full, "%s.%s", r->prefix, key);
    if (cca_gguf_arr(&list, r->file, full, true, NULL)) return whole(r, key, fallback, max);
    if (list.strings || list.n != (uint64_t)n_layers) {
        note(r, cca_fail(r->err, CCA_BAD_MODEL, "%s: key %s is no list of %lld numbers",
                         cca_gguf_name(r->file), full, (long long)n_layers));
        return 0;
    }
    double first = cca_gguf_array_number(&list, 0);
    for (uint64_t i = 1; i < list.n; i++) {
        double other = cca_gguf_array_number(&list, i);
        if (other == first) continue;
        note(r, cca_fail(r->err, CCA_BAD_MODEL,
                         "%s: key %s: layers that differ are not supported: %g and %g",
                         cca_gguf_name(r->file), full, first, other));
        return 0;
    }
    if (first >= 1 && first <= (double)max && first == floor(first)) return (int64_t)first;
    note(r, cca_fail(r->err, CCA_BAD_MODEL, "%s: key %s: %g is outside 1 … %lld",
                     cca_gguf_name(r->file), full, first, (long long)max));
    return 0;
}

static double real(reader *r, const char *key, const float *fallback) {
    char full[128];
    float value = 0;
    if (r->status) return 0;
    snprintf(full, sizeof full, "%s.%s", r->prefix, key);
    note(r, cca_gguf_f32(&value, r->file, full, fallback, r->err));
    if (!r->status && !isfinite(value)) {
        note(r, cca_fail(r->err, CCA_BAD_MODEL, "%s: key %s is not a finite number",
                         cca_gguf_name(r->file), full));
    }
    return value;
}

static void refuse(reader *r, const char *what) {
    if (r->status) return;
    note(r, cca_fail(r->err, CCA_BAD_MODEL, "%s: %s", cca_gguf_name(r->file), what));
}

/* Whether the file has the tensor of a role, in its first layer where each has one. */
static bool has(const cca_gguf *file, cca_role role, const cca_arch *arch) {
    char name[CCA_TENSOR_NAME];
    cca_tensor_name(name, role, 0, arch);
    return cca_gguf_find(file, name) != NULL;
}

static void read_arch(cca_config *c, reader *r) {
    cca_gguf_string arch = {0};
    note(r, cca_gguf_str(&arch, r->file, "general.architecture", NULL, r->err));
    if (r->status) return;
    for (int i = 0; i < CCA_N_ARCHS; i++) {
        if (string_is(arch, cca_archs[i].name)) c->arch = &cca_archs[i];
    }
    if (c->arch) {
        r->prefix = c->arch->name;
        return;
    }
    int shown = arch.size > 64 ? 64 : (int)arch.size;
    char names[CCA_NAMES], name[65];
    cca_arch_names(names);
    snprintf(name, sizeof name, "%.*s", shown, arch.bytes);
    const char *missing = cca_missing_for(name);
    note(r, cca_fail(r->err, CCA_BAD_MODEL,
                     "%s: key general.architecture: '%s' is not supported%s%s (%s are)",
                     cca_gguf_name(r->file), name, missing ? ": it needs " : "",
                     missing ? missing : "", names));
}

static void read_sizes(cca_config *c, reader *r) {
    c->dim = whole(r, "embedding_length", NULL, MAX_DIM);
    int64_t n_layers = c->n_layers = whole(r, "block_count", NULL, CCA_MAX_LAYERS);
    int64_t max_hidden = 4 * (int64_t)MAX_DIM;
    c->hidden_dim = of_layers(r, "feed_forward_length", NULL, max_hidden, n_layers);
    c->n_heads = of_layers(r, "attention.head_count", NULL, MAX_DIM, n_layers);
    uint64_t heads = (uint64_t)c->n_heads;
    c->n_kv_heads = of_layers(r, "attention.head_count_kv", &heads, MAX_DIM, n_layers);
    c->seq_len = whole(r, "context_length", NULL, MAX_CONTEXT);
    c->norm_eps = (float)real(r, "attention.layer_norm_rms_epsilon", NULL);
    if (r->status || c->n_heads == 0) return;

    uint64_t head_dim = (uint64_t)(c->dim / c->n_heads);
    c->head_dim = whole(r, "attention.key_length", &head_dim, MAX_HEAD_DIM);
    head_dim = (uint64_t)c->head_dim;
    if (whole(r, "attention.value_length", &head_dim, MAX_HEAD_DIM) != c->head_dim) {
        refuse(r, "attention.key_length and attention.value_length differ");
    }
    int64_t turned = whole(r, "rope.dimension_count", &head_dim, MAX_HEAD_DIM);
    c->rope_dims = turned < c->head_dim ? turned : 0;
    if (r->status) return;
    if (c->n_heads % c->n_kv_heads != 0) {
        refuse(r, "attention.head_count is no multiple of attention.head_count_kv");
    }
    if (c->head_dim < 2 || c->head_dim % 2 != 0) refuse(r, "the width of a head must be even");
    if (turned > c->head_dim || turned % 2 != 0) {
        refuse(r, "rope.dimension_count: must be even and no more than the width of a head");
    }
    if (c->norm_eps < 0) refuse(r, "attention.layer_norm_rms_epsilon is negative");
    uint64_t none = 0;
    if (whole(r, "expert_count", &none, MAX_DIM) != 0) {
        refuse(r, "expert_count: mixtures of experts are not supported");
    }
}

static bool has_key(const reader *r, const char *key) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", r->prefix, key);
    return cca_gguf_has(r->file, full);
}

static void read_yarn(cca_config *c, reader *r) {
    float fast = 32, slow = 1, one = 1;
    const double usual = 1 + 0.1 * log(c->rope_factor);
    c->rope_kind = CCA_ROPE_YARN;
    c->yarn_beta_fast = real(r, "rope.scaling.yarn_beta_fast", &fast);
    c->yarn_beta_slow = real(r, "rope.scaling.yarn_beta_slow", &slow);
    c->rope_attn_factor = real(r, "rope.scaling.attn_factor", &one);
    /* By other writers: all of it, or how it grows in place of 0.1 ln factor beside its inverse. */
    if (has_key(r, "rope.scaling.yarn_attn_factor")) {
        c->rope_attn_factor *= real(r, "rope.scaling.yarn_attn_factor", &one) / usual;
    } else if (has_key(r, "rope.scaling.yarn_log_multiplier")) {
        const double multiplier = real(r, "rope.scaling.yarn_log_multiplier", &one);
        c->rope_attn_factor /= 1 + 0.1 * multiplier * log(c->rope_factor);
    }
    if (real(r, "rope.scaling.yarn_ext_factor", &one) != 1) {
        refuse(r, "rope.scaling.yarn_ext_factor: only 1 is supported");
    }
    if (!r->status && c->rope_theta <= 1) {
        refuse(r, "rope.freq_base: yarn needs more than 1, by whose logarithm it divides");
    }
    if (c->yarn_beta_fast <= 0 || c->yarn_beta_slow <= 0) {
        refuse(r, "rope.scaling.yarn_beta_fast and yarn_beta_slow must be positive");
    }
    if (!(c->rope_attn_factor > 0) || isinf(c->rope_attn_factor)) {
        refuse(r, "rope.scaling: yarn's factor of cosines and sines must be positive");
    }
    if (c->rope_original == 0) refuse(r, "rope.scaling.original_context_length: yarn needs it");
}

static void read_longrope(cca_config *c, reader *r) {
    const float one = 1;
    c->rope_kind = CCA_ROPE_LONGROPE;
    c->rope_attn_factor = real(r, "rope.scaling.attn_factor", &one);
    if (!(c->rope_attn_factor > 0)) refuse(r, "rope.scaling.attn_factor must be positive");
    if (c->rope_factor != 1) refuse(r, "rope.scaling.factor: longrope has none");
    if (c->rope_original == 0) {
        refuse(r, "rope.scaling.original_context_length: longrope needs it");
    }
}

/* What would turn RoPE in a way that is not known. */
static void refuse_other_rope(reader *r) {
    static const char *const known[] = {"freq_base",
                                        "freq_base_swa",
                                        "dimension_count",
                                        "scale_linear",
                                        "scaling.type",
                                        "scaling.factor",
                                        "scaling.original_context_length",
                                        "scaling.finetuned",
                                        "scaling.attn_factor",
                                        "scaling.yarn_beta_fast",
                                        "scaling.yarn_beta_slow",
                                        "scaling.yarn_ext_factor",
                                        "scaling.yarn_attn_factor",
                                        "scaling.yarn_log_multiplier"};
    char start[64];
    size_t size = (size_t)snprintf(start, sizeof start, "%s.rope.", r->prefix);
    for (uint64_t i = 0; i < cca_gguf_n_keys(r->file) && !r->status; i++) {
        const char *key = cca_gguf_key_at(r->file, i, NULL);
        bool is_known = strncmp(key, start, size) != 0;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
            is_known |= strcmp(key + (is_known ? 0 : size), known[k]) == 0;
        }
        if (is_known) continue;
        note(r, cca_fail(r->err, CCA_BAD_MODEL, "%s: key %s is not supported",
                         cca_gguf_name(r->file), key));
    }
}

static void read_rope(cca_config *c, reader *r) {
    float theta = 10000, one = 1;
    uint64_t none = 0;
    c->rope_theta = real(r, "rope.freq_base", &theta);
    const float same = (float)c->rope_theta;
    if (real(r, "rope.freq_base_swa", &same) != c->rope_theta) {
        refuse(r, "rope.freq_base_swa: another base than rope.freq_base is not supported");
    }
    float older = (float)real(r, "rope.scale_linear", &one); /* spelling of linear scaling */
    c->rope_factor = real(r, "rope.scaling.factor", &older);
    if (c->rope_factor == 0) c->rope_factor = 1; /* how some writers say that there is none */
    c->rope_original = (double)whole(r, "rope.scaling.original_context_length", &none, MAX_CONTEXT);
    c->rope_kind = c->rope_factor == 1 ? CCA_ROPE_PLAIN : CCA_ROPE_LINEAR;

    char key[64];
    cca_gguf_string kind = {0}, nothing = {"", 0};
    if (r->status) return;
    snprintf(key, sizeof key, "%s.rope.scaling.type", r->prefix);
    note(r, cca_gguf_str(&kind, r->file, key, &nothing, r->err));
    if (r->status) return;
    /* Phi3's files have the tensors and name no type. */
    const bool has_factors = has(r->file, CCA_ROPE_LONG_DIVISORS, c->arch);
    if (string_is(kind, "none")) {
        c->rope_kind = CCA_ROPE_PLAIN;
        c->rope_factor = 1;
    } else if (string_is(kind, "yarn")) {
        read_yarn(c, r);
    } else if (string_is(kind, "longrope") || (kind.size == 0 && has_factors)) {
        read_longrope(c, r);
    } else if (kind.size > 0 && !string_is(kind, "linear")) {
        int shown = kind.size > 64 ? 64 : (int)kind.size;
        note(r, cca_fail(r->err, CCA_BAD_MODEL, "%s: key %s: '%.*s' is not supported",
                         cca_gguf_name(r->file), key, shown, kind.bytes));
    }
    const bool scales = c->rope_kind == CCA_ROPE_YARN || c->rope_kind == CCA_ROPE_LONGROPE;
    if (!scales && real(r, "rope.scaling.attn_factor", &one) != 1) {
        refuse(r, "rope.scaling.attn_factor: neither yarn nor longrope");
    }
    if (has(r->file, CCA_ROPE_DIVISORS, c->arch)) {
        if (c->rope_kind != CCA_ROPE_PLAIN) {
            refuse(r, "divisors of RoPE (llama3) beside another RoPE scaling");
        }
        c->rope_kind = CCA_ROPE_FACTORS;
    }
    if (c->rope_theta <= 0) refuse(r, "rope.freq_base must be positive");
    if (c->rope_factor <= 0) refuse(r, "rope.scaling.factor must be positive");
    if (r->status) return;
    double extended = c->rope_factor * c->rope_original;
    c->trained_length = c->seq_len;
    if (c->rope_kind != CCA_ROPE_PLAIN && extended < 0x1p53) {
        c->trained_length = cca_max(c->seq_len, (int64_t)extended);
    }
}

/* A factor by which something is multiplied; 0 where the file has none. */
static double factor(reader *r, const char *key, bool may_be_negative) {
    const float none = 0;
    double value = real(r, key, &none);
    if (!r->status && value < 0 && !may_be_negative) {
        note(r, cca_fail(r->err, CCA_BAD_MODEL, "%s: key %s.%s: %g is negative",
                         cca_gguf_name(r->file), r->prefix, key, value));
    }
    return value;
}

/* Keys by which a model of a known architecture would compute something else. */
static void refuse_others(const cca_config *c, reader *r) {
    static const char *const all[] = {"attn_logit_softcapping", "final_logit_softcapping",
                                      "attention.clamp_kqv",    "attention.max_alibi_bias",
                                      "embedding_scale",        "residual_scale",
                                      "attention.scale",        "logit_scale"};
    enum { N_SCALES = 4 };
    const size_t n = sizeof all / sizeof *all - (c->arch->has_scales ? N_SCALES : 0);
    for (size_t i = 0; i < n && !r->status; i++) {
        const float none = 0;
        if (real(r, all[i], &none) == 0 || r->status) continue;
        note(r,
             cca_fail(r->err, CCA_BAD_MODEL, "%s: key %s.%s is not supported for this architecture",
                      cca_gguf_name(r->file), r->prefix, all[i]));
    }
}

static void read_scales(cca_config *c, reader *r) {
    const bool yes = true;
    bool turns = true;
    char key[64];
    if (!c->arch->has_scales) return;
    c->scales.embedding = factor(r, "embedding_scale", true);
    c->scales.residual = factor(r, "residual_scale", false);
    c->scales.attention = factor(r, "attention.scale", false);
    c->scales.logits = factor(r, "logit_scale", true);
    if (r->status) return;
    snprintf(key, sizeof key, "%s.rope.scaling.finetuned", r->prefix);
    note(r, cca_gguf_bool(&turns, r->file, key, &yes, r->err));
    if (!r->status && !turns) {
        refuse(r, "rope.scaling.finetuned: models without RoPE are not supported");
    }
}

/* Queries that grow with their position. */
static void read_query_beta(cca_config *c, reader *r) {
    const float none = 0;
    c->query_beta = real(r, "attention.temperature_scale", &none);
    if (r->status || c->query_beta == 0) return;
    if (c->query_beta < 0) refuse(r, "attention.temperature_scale is negative");
    if (c->rope_original == 0) {
        refuse(r, "attention.temperature_scale: needs rope.scaling.original_context_length");
    }
}

static void read_own_window(cca_config *c, reader *r) {
    char key[80];
    const uint64_t none = 0, usual = (uint64_t)c->arch->full_step;
    cca_gguf_array list;
    c->own_window = whole(r, "attention.sliding_window", &none, INT32_MAX);
    if (r->status || c->own_window == 0) return;
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", r->prefix);
    if (cca_gguf_arr(&list, r->file, key, true, NULL) != CCA_OK) {
        uint64_t step = 0;
        note(r, cca_gguf_u64(&step, r->file, key, &usual, r->err));
        c->own_full_step = step > CCA_MAX_LAYERS ? 0 : (int)step;
        return;
    }
    bool windowed[CCA_MAX_LAYERS];
    const bool fits = !list.strings && list.n == (uint64_t)c->n_layers;
    for (uint64_t l = 0; fits && l < list.n; l++) {
        windowed[l] = cca_gguf_array_number(&list, l) != 0;
    }
    int64_t step = fits ? cca_full_step(windowed, c->n_layers) : -1;
    if (step < 0) refuse(r, "attention.sliding_window_pattern: not each n-th layer sees all");
    c->own_full_step = (int)cca_max(step, 0);
}

/* A number of tokens; 0 is one, too. Returns whether it is there. */
static bool read_tokens(int64_t *out, reader *r, const char *key) {
    uint64_t value = 0;
    if (r->status || !cca_gguf_has(r->file, key)) return false;
    note(r, cca_gguf_u64(&value, r->file, key, NULL, r->err));
    if (!r->status && value > INT32_MAX) {
        note(r, cca_fail(r->err, CCA_BAD_MODEL, "%s: key %s: %llu is outside 0 … %d",
                         cca_gguf_name(r->file), key, (unsigned long long)value, INT32_MAX));
    }
    *out = (int64_t)value;
    return true;
}

/* The keys that are CCA's own; all optional. */
static void read_cca(cca_config *c, reader *r) {
    const bool no = false;
    const uint64_t none = 0;
    const char *name = r->prefix;
    r->prefix = "cca";
    c->group_size = whole(r, "group_size", &none, INT32_MAX);
    c->window_size = whole(r, "window_size", &none, INT32_MAX);
    r->prefix = name;
    if (!r->status) note(r, cca_gguf_bool(&c->tuned, r->file, "cca.tuned", &no, r->err));
    if (r->status) return;
    int64_t g = c->group_size ? c->group_size : CCA_DEFAULT_GROUP;
    int64_t s = c->window_size ? c->window_size : CCA_DEFAULT_WINDOW;
    if (s % g != 0) {
        note(r, cca_fail(r->err, CCA_BAD_MODEL,
                         "%s: key cca.window_size: %lld is no multiple of the group size %lld",
                         cca_gguf_name(r->file), (long long)s, (long long)g));
    }
    c->says_sinks = read_tokens(&c->n_sinks, r, "cca.sinks");
    c->says_recall = read_tokens(&c->recall, r, "cca.recall");
    c->says_cores = cca_gguf_has(r->file, "cca.cores");
    if (!r->status) note(r, cca_gguf_bool(&c->cores, r->file, "cca.cores", &no, r->err));
}

/* What is no model of this kind by itself, though all else may look like one. */
static void check_kind(reader *r) {
    char key[64];
    bool yes = true, causal = true;
    if (cca_gguf_has(r->file, "cca.patch.tensors")) {
        note(r,
             cca_fail(r->err, CCA_BAD_MODEL,
                      "%s: is a patch, no model; \"cca export BASE --patch %s -o FILE.gguf\" makes "
                      "one of the file that it is for",
                      cca_gguf_name(r->file), cca_gguf_name(r->file)));
    }
    if (cca_gguf_is_part(r->file)) refuse(r, "split.count: is one part of several");
    if (r->status) return;
    snprintf(key, sizeof key, "%s.attention.causal", r->prefix);
    note(r, cca_gguf_bool(&causal, r->file, key, &yes, r->err));
    if (!r->status && !causal) {
        refuse(r, "attention.causal: models that look ahead are not supported");
    }
}

cca_status cca_config_read(cca_config *out, const cca_gguf *file, cca_error *err) {
    cca_config c = {0};
    reader r = {.file = file, .err = err};
    read_arch(&c, &r);
    if (!r.status) check_kind(&r);
    if (!r.status) read_sizes(&c, &r);
    refuse_other_rope(&r);
    if (!r.status) read_rope(&c, &r);
    if (!r.status) refuse_others(&c, &r);
    if (!r.status) read_scales(&c, &r);
    if (!r.status) read_query_beta(&c, &r);
    if (!r.status) read_own_window(&c, &r);
    if (!r.status) read_cca(&c, &r);
    if (r.status) return r.status;

    const char *name = cca_tensors[CCA_EMBEDDING].name;
    const cca_gguf_tensor *embedding = cca_gguf_find(file, name);
    if (!embedding) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s is missing", cca_gguf_name(file), name);
    }
    c.vocab_size = embedding->n_dims == 2 ? embedding->dims[1] : 0;
    if (c.vocab_size < 1 || c.vocab_size > MAX_VOCAB) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s: its number of rows is outside 1 … %d",
                        cca_gguf_name(file), name, MAX_VOCAB);
    }
    c.tied = !has(file, CCA_OUTPUT, c.arch);
    c.has_bias = has(file, CCA_ATTN_Q_BIAS, c.arch);
    c.has_head_norms = has(file, CCA_ATTN_Q_NORM, c.arch);
    *out = c;
    return CCA_OK;
}

/* The tensor of which the role's is a part; NULL where it has one of its own. */
static const cca_fused *fused_of(const cca_gguf *file, cca_role role, int64_t layer,
                                 const cca_config *c) {
    char first[CCA_TENSOR_NAME];
    const cca_fused *fused = cca_fused_of(role);
    if (!fused || !cca_tensor_needed(fused->parts[0], c)) return NULL;
    cca_tensor_name(first, fused->parts[0], layer, c->arch);
    return cca_gguf_find(file, first) ? NULL : fused;
}

cca_status cca_tensor_find(cca_tensor_place *out, const cca_gguf *file, cca_role role,
                           int64_t layer, const cca_config *c, cca_error *err) {
    char name[CCA_TENSOR_NAME], own[CCA_TENSOR_NAME];
    const cca_fused *fused = fused_of(file, role, layer, c);
    const cca_shape shape = cca_tensor_shape(role, c);
    int64_t before = 0, rows = shape.vector ? 1 : shape.rows;
    const int64_t cols = shape.vector ? shape.rows : shape.cols;
    cca_tensor_name(own, role, layer, c->arch);
    memcpy(name, own, sizeof name);
    if (fused) {
        rows = cca_fused_rows(&before, fused, role, c);
        cca_fused_name(name, fused, layer);
    }
    const cca_gguf_tensor *t = cca_gguf_find(file, name);
    const char *path = cca_gguf_name(file);
    if (!t) return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s is missing", path, own);
    if (t->n_dims != (shape.vector ? 1 : 2) || t->dims[0] != cols || t->dims[1] != rows) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: tensor %s has shape [%lld, %lld]%s, not [%lld, %lld]", path, name,
                        (long long)t->dims[0], (long long)t->dims[1],
                        t->n_dims > 2 ? " and more" : "", (long long)cols, (long long)rows);
    }
    size_t skip = 0;
    if (before > 0 && !cca_dtype_row_bytes(&skip, (cca_dtype)t->type, before * cols)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor %s has type %s, which cannot be cut", path,
                        name, cca_gguf_type_name(t->type));
    }
    *out = (cca_tensor_place){t, (const char *)t->data + skip};
    return CCA_OK;
}

void cca_config_describe_rope(char *out, size_t size, const cca_config *c, int64_t ctx_size) {
    int n = snprintf(out, size, "theta %g", c->rope_theta);
    if (n < 0 || (size_t)n >= size) return;
    out += n;
    size -= (size_t)n;
    switch (c->rope_kind) {
    case CCA_ROPE_PLAIN: break;
    case CCA_ROPE_LINEAR: snprintf(out, size, ", linear scaling by %g", c->rope_factor); break;
    case CCA_ROPE_FACTORS: snprintf(out, size, ", a divisor for each frequency (llama3)"); break;
    case CCA_ROPE_YARN: {
        const bool windows = c->arch->plain_in_windows && c->own_window > 0;
        snprintf(out, size, ", yarn scaling by %g from %.0f positions%s", c->rope_factor,
                 c->rope_original,
                 windows              ? ", but in windows"
                 : c->query_beta != 0 ? ", where queries grow"
                                      : "");
        break;
    }
    case CCA_ROPE_LONGROPE:
        snprintf(out, size, ", longrope: %s factors for contexts %s %.0f positions",
                 ctx_size == 0                         ? "other"
                 : (double)ctx_size > c->rope_original ? "long"
                                                       : "short",
                 ctx_size > 0 && (double)ctx_size <= c->rope_original ? "up to" : "above",
                 c->rope_original);
        break;
    }
}
