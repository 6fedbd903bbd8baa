/* config.json of a Hugging Face folder: sizes, RoPE, special tokens; and all that would make a
 * model compute something else than this program does, which is refused by its name. */
#include "chat.h"
#include "export/hf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_true(const json_t *config, const char *key) {
    return json_is_true(json_object_get(config, key));
}

static void read_arch(cca_source *source, cca_json_reader *r, const json_t *config) {
    const char *type = cca_json_string(r, config, "model_type", NULL);
    const cca_family *family = type ? cca_family_of(type) : NULL;
    if (!type) {
        cca_json_refuse(r, "model_type is missing");
    } else if (!family) {
        char names[CCA_NAMES];
        cca_family_names(names);
        cca_json_refuse(r, "model_type '%s' is not supported (%s are)", type, names);
    }
    if (!family) return;
    cca_config *c = &source->config;
    bool said = family->bias == CCA_BIAS_IF_SAID && is_true(config, "attention_bias");
    source->family = family;
    c->arch = &cca_archs[family->arch];
    c->has_bias = said || family->bias == CCA_BIAS;
    c->has_head_norms = family->has_head_norms;
}

static void read_sizes(cca_config *c, cca_json_reader *r, const json_t *config) {
    c->dim = cca_json_whole(r, config, "hidden_size", 0);
    c->hidden_dim = cca_json_whole(r, config, "intermediate_size", 0);
    c->n_layers = cca_json_whole(r, config, "num_hidden_layers", 0);
    c->n_heads = cca_json_whole(r, config, "num_attention_heads", 0);
    c->n_kv_heads = cca_json_whole(r, config, "num_key_value_heads", c->n_heads);
    c->vocab_size = cca_json_whole(r, config, "vocab_size", 0);
    c->seq_len = cca_json_whole(r, config, "max_position_embeddings", 0);
    c->norm_eps = (float)cca_json_real(r, config, "rms_norm_eps", 1e-6);
    if (r->status) return;
    if (!cca_json_field(config, "head_dim") && c->dim % c->n_heads != 0) {
        cca_json_refuse(r, "hidden_size is no multiple of num_attention_heads, and no head_dim");
    }
    c->head_dim = cca_json_whole(r, config, "head_dim", cca_max(c->dim / c->n_heads, 1));
}

/* Settings under which the weights mean something else than they do here. */
static void refuse_others(const cca_family *family, cca_json_reader *r, const json_t *config) {
    static const char *const experts[] = {"num_local_experts", "num_experts", "n_routed_experts"};
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++) {
        if (json_number_value(json_object_get(config, experts[i])) > 0) {
            cca_json_refuse(r, "%s: mixtures of experts are not supported", experts[i]);
        }
    }
    const char *act = cca_json_string(r, config, "hidden_act", "silu");
    const bool squares = family && cca_archs[family->arch].squares;
    if (act && strcmp(act, squares ? "relu2" : "silu") != 0) {
        cca_json_refuse(r, "hidden_act '%s' is not supported", act);
    }
    static const char *const biases[] = {"mlp_bias", "attention_out_bias", "use_bias"};
    for (size_t i = 0; i < sizeof biases / sizeof *biases; i++) {
        if (is_true(config, biases[i])) cca_json_refuse(r, "%s is not supported", biases[i]);
    }
    if (family && family->bias == CCA_NO_BIAS && is_true(config, "attention_bias")) {
        cca_json_refuse(r, "attention_bias is not supported for this model_type");
    }
    if (cca_json_field(config, "quantization_config")) {
        cca_json_refuse(r, "quantization_config: weights that are quantised already");
    }
}

/* Factors of Granite; other models must not have them. */
static void read_scales(cca_config *c, cca_json_reader *r, const json_t *config) {
    const struct {
        const char *key;
        double *value;
    } all[] = {{"embedding_multiplier", &c->scales.embedding},
               {"residual_multiplier", &c->scales.residual},
               {"attention_multiplier", &c->scales.attention},
               {"logits_scaling", &c->scales.logits}};
    for (size_t i = 0; i < sizeof all / sizeof *all && !r->status; i++) {
        if (!cca_json_field(config, all[i].key)) continue;
        const double value = cca_json_real(r, config, all[i].key, 1);
        if (!r->status && !(value > 0)) cca_json_refuse(r, "%s must be positive", all[i].key);
        if (value != 1 && !c->arch->has_scales) {
            cca_json_refuse(r, "%s is not supported for this model_type", all[i].key);
        }
        if (c->arch->has_scales) *all[i].value = value;
    }
}

/* Which layers have RoPE must be as the architecture has it. */
static void check_turning_layers(const cca_config *c, cca_json_reader *r, const json_t *config) {
    const json_t *list = cca_json_field(config, "no_rope_layers");
    const json_t *interval = cca_json_field(config, "no_rope_layer_interval");
    if (r->status || (!list && !interval)) return;
    bool right = list ? json_array_size(list) == (size_t)c->n_layers
                      : json_integer_value(interval) == c->arch->no_rope_step;
    for (int64_t l = 0; right && list && l < c->n_layers; l++) {
        const json_t *turns = json_array_get(list, (size_t)l);
        right = json_is_integer(turns) && json_integer_value(turns) == cca_layer_turns(c, l);
    }
    if (!right) {
        cca_json_refuse(r, "no_rope_layers: other layers than each fourth are not supported");
    }
}

/* --- RoPE ---------------------------------------------------------------------------- */

/* Frequency k is divided by factor where its wave is longer than the old context over low, left
 * alone where it is shorter than the old context over high, and blended in between. */
static cca_status read_llama3(cca_source *source, cca_json_reader *r, const json_t *rope,
                              double factor, double original) {
    cca_config *c = &source->config;
    double low = cca_json_real(r, rope, "low_freq_factor", 0);
    double high = cca_json_real(r, rope, "high_freq_factor", 0);
    if (!r->status && low >= high) {
        cca_json_refuse(r, "low_freq_factor is not below high_freq_factor");
    }
    if (r->status) return r->status;
    int64_t half = c->head_dim / 2;
    float *divisors = calloc((size_t)half + 1, sizeof *divisors);
    if (!divisors) return cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory", r->path);
    for (int64_t k = 0; k < half; k++) {
        double wave = 2 * M_PI * pow(c->rope_theta, (double)k / (double)half);
        double smooth = (original / wave - low) / (high - low);
        double divisor = 1 / ((1 - smooth) / factor + smooth);
        if (wave > original / low) divisor = factor;
        if (wave < original / high) divisor = 1;
        divisors[k] = (float)divisor;
    }
    source->rope_divisors = divisors;
    c->rope_kind = CCA_ROPE_FACTORS;
    return CCA_OK;
}

/* attention_factor multiplies cosines and sines; GGUF's attn_factor is what is left of it
 * beside 1 + 0.1 ln(factor), which every reader of GGUF multiplies in by itself. */
static void read_yarn(cca_config *c, cca_json_reader *r, const json_t *rope, double factor,
                      double original) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)rope, key, value) {
        if (strncmp(key, "mscale", 6) == 0 && !json_is_null(value)) {
            cca_json_refuse(r, "%s of yarn is not supported", key);
        }
    }
    if (!cca_json_bool(r, rope, "truncate", true)) {
        cca_json_refuse(r, "truncate: false of yarn is not supported");
    }
    double usual = 0.1 * log(factor) + 1;
    if (!(c->rope_theta > 1)) cca_json_refuse(r, "rope_theta of yarn must be more than 1");
    c->rope_kind = CCA_ROPE_YARN;
    c->rope_factor = factor;
    c->rope_original = original;
    c->yarn_attn_factor = cca_json_real(r, rope, "attention_factor", usual) / usual;
    c->yarn_beta_fast = cca_json_real(r, rope, "beta_fast", 32);
    c->yarn_beta_slow = cca_json_real(r, rope, "beta_slow", 1);
}

/* The share of a head's dims that RoPE turns, the first ones. */
static void read_partial(cca_source *source, cca_json_reader *r, const json_t *config,
                         const json_t *rope) {
    cca_config *c = &source->config;
    double share = cca_json_real(r, config, "partial_rotary_factor", 1);
    share = cca_json_real(r, rope, "partial_rotary_factor", share);
    if (r->status || share == 1) return;
    if (!source->family->turns_part) {
        cca_json_refuse(r, "partial_rotary_factor is not supported for this model_type");
        return;
    }
    const int64_t dims = (int64_t)((double)c->head_dim * share);
    if (!(share > 0) || share > 1 || dims < 2 || dims % 2 != 0) {
        cca_json_refuse(r, "partial_rotary_factor %g leaves no even number of dims", share);
    } else {
        c->rope_dims = dims;
    }
}

/* Hunyuan's: a larger base, once for all lengths (NTK-aware), though it may be called dynamic. */
static void read_alpha(cca_config *c, cca_json_reader *r, const json_t *rope, const char *type) {
    const double alpha = cca_json_real(r, rope, "alpha", 1), width = (double)c->head_dim;
    if (strcmp(type, "dynamic") != 0 && strcmp(type, "ntk_alpha") != 0) {
        cca_json_refuse(r, "alpha of RoPE scaling '%s' is not supported", type);
    } else if (!(alpha > 0) || width <= 2) {
        cca_json_refuse(r, "alpha of RoPE must be positive, and head_dim more than 2");
    } else {
        c->rope_theta *= pow(alpha, width / (width - 2));
    }
}

/* The base may stand beside the scaling, in it, or in both. */
static double read_theta(cca_json_reader *r, const json_t *config, const json_t *rope) {
    double outer = cca_json_real(r, config, "rope_theta", 10000);
    double inner = cca_json_real(r, rope, "rope_theta", outer);
    if (cca_json_field(config, "rope_theta") && inner != outer) {
        cca_json_refuse(r, "two values of rope_theta: %g and %g", outer, inner);
    }
    return inner;
}

/* The settings of one kind of layer where they are listed by it, which must be those of all;
 * else object itself. */
static const json_t *of_all_layers(cca_json_reader *r, const json_t *object, const char *field) {
    const char *key;
    json_t *value, *first = NULL;
    size_t n_nested = 0;
    json_object_foreach((json_t *)object, key, value) {
        if (!json_is_object(value)) continue;
        if (first && !json_equal(first, value)) {
            cca_json_refuse(r, "%s: layers that differ in it are not supported", field);
        }
        first = value;
        n_nested++;
    }
    if (n_nested > 0 && n_nested < json_object_size(object)) {
        cca_json_refuse(r, "%s: some of it is listed by kinds of layers, some is not", field);
    }
    return first ? first : object;
}

/* rope_scaling, or what took its place, rope_parameters. */
static const json_t *find_rope(cca_json_reader *r, const json_t *config) {
    static const char *const fields[] = {"rope_scaling", "rope_parameters"};
    const json_t *found = NULL;
    for (size_t i = 0; i < 2; i++) {
        const json_t *own = cca_json_object(r, config, fields[i]);
        if (json_object_size(own) == 0) continue;
        own = of_all_layers(r, own, fields[i]);
        if (found && !json_equal(found, own)) {
            cca_json_refuse(r, "rope_scaling and rope_parameters differ");
        }
        found = own;
    }
    return found;
}

static bool is_among(const char *name, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(name, names[i]) == 0) return true;
    }
    return false;
}

/* A field of RoPE that nothing here reads: left out, it would change what the model computes. */
static void refuse_other_rope(cca_json_reader *r, const json_t *config, const json_t *rope) {
    static const char *const outer[] = {
        "rope_scaling",          "rope_parameters",        "rope_theta",
        "partial_rotary_factor", "no_rope_layer_interval", "no_rope_layers"};
    static const char *const inner[] = {"type",
                                        "rope_type",
                                        "rope_theta",
                                        "partial_rotary_factor",
                                        "factor",
                                        "original_max_position_embeddings",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "attention_factor",
                                        "beta_fast",
                                        "beta_slow",
                                        "truncate",
                                        "mscale",
                                        "mscale_all_dim",
                                        "finetuned",
                                        "alpha"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value) {
        bool turns = strstr(key, "rope") || strstr(key, "rotary") || strstr(key, "theta");
        if (!turns || json_is_null(value) || json_is_false(value)) continue;
        if (!is_among(key, outer, sizeof outer / sizeof *outer)) {
            cca_json_refuse(r, "%s is not supported", key);
        }
    }
    json_object_foreach((json_t *)rope, key, value) {
        if (!json_is_null(value) && !is_among(key, inner, sizeof inner / sizeof *inner)) {
            cca_json_refuse(r, "%s of RoPE is not supported", key);
        }
    }
}

/* "default" where there is no scaling. */
static const char *rope_type(cca_json_reader *r, const json_t *rope) {
    const char *type = cca_json_string(r, rope, "type", NULL);
    type = cca_json_string(r, rope, "rope_type", type);
    if (!type && cca_json_field(rope, "factor")) {
        cca_json_refuse(r, "RoPE scaling has a factor and no type");
    }
    return type ? type : "default";
}

static void read_rope(cca_source *source, cca_json_reader *r, const json_t *config) {
    cca_config *c = &source->config;
    const json_t *rope = find_rope(r, config);
    refuse_other_rope(r, config, rope);
    c->rope_factor = 1;
    c->rope_theta = read_theta(r, config, rope);
    read_partial(source, r, config, rope);
    const char *type = rope_type(r, rope);
    if (r->status || strcmp(type, "default") == 0) return;
    if (cca_json_field(rope, "alpha")) {
        read_alpha(c, r, rope, type);
        return;
    }

    bool linear = strcmp(type, "linear") == 0, yarn = strcmp(type, "yarn") == 0;
    if (!linear && !yarn && strcmp(type, "llama3") != 0) {
        cca_json_refuse(r, "RoPE scaling of type '%s' is not supported", type);
        return;
    }
    double factor = cca_json_real(r, rope, "factor", 0);
    if (!r->status && factor < 1) cca_json_refuse(r, "RoPE factor %g is below 1", factor);
    const char *key = "original_max_position_embeddings";
    double original = cca_json_real(r, rope, key, (double)c->seq_len);
    original = cca_json_real(r, config, key, original);
    if (r->status) return;
    if (linear) {
        c->rope_kind = CCA_ROPE_LINEAR;
        c->rope_factor = factor;
    } else if (yarn) {
        read_yarn(c, r, rope, factor, original);
    } else {
        r->status = read_llama3(source, r, rope, factor, original);
    }
}

/* --- the rest ------------------------------------------------------------------------ */

/* Whether a layer has a window: by layer_types, else all have from max_window_layers on. -1:
 * something else. */
static int has_window(const json_t *config, int64_t layer) {
    const json_t *types = cca_json_field(config, "layer_types");
    const json_t *first = cca_json_field(config, "max_window_layers");
    if (!types) return layer >= json_integer_value(first);
    const char *type = json_string_value(json_array_get(types, (size_t)layer));
    if (type && strcmp(type, "sliding_attention") == 0) return 1;
    return type && strcmp(type, "full_attention") == 0 ? 0 : -1;
}

static int64_t step_of(const json_t *config, int64_t n_layers) {
    bool windowed[CCA_MAX_LAYERS];
    if (n_layers > CCA_MAX_LAYERS) return -1; /* which is refused elsewhere */
    for (int64_t l = 0; l < n_layers; l++) windowed[l] = has_window(config, l) == 1;
    return cca_full_step(windowed, n_layers);
}

static void read_own_window(cca_source *source, cca_json_reader *r, const json_t *config,
                            const cca_export_options *options) {
    cca_config *c = &source->config;
    const json_t *types = cca_json_field(config, "layer_types");
    if (r->status) return;
    for (int64_t l = 0; types && l < c->n_layers; l++) {
        if (has_window(config, l) >= 0) continue;
        const char *type = json_string_value(json_array_get(types, (size_t)l));
        cca_json_refuse(r, "layer_types: '%s' is not supported", type ? type : "?");
        return;
    }
    const json_t *window = cca_json_field(config, "sliding_window");
    const bool slides = source->family->windowed || is_true(config, "use_sliding_window") || types;
    const int64_t step = step_of(config, c->n_layers);
    if (!window || !slides || step == 1 || json_integer_value(window) < 0) return;
    const int64_t n = cca_json_whole(r, config, "sliding_window", INT32_MAX);
    if (r->status || n >= c->seq_len) return;
    if (step >= 0) {
        c->own_window = n;
        c->own_full_step = (int)step;
        return;
    }
    cca_export_warn(
        options,
        "%s: the model was trained with a sliding_window of %lld tokens in some layers, "
        "which is not applied: texts longer than that may come out worse",
        r->path, (long long)n);
}

/* A number of tokens, which may be 0. Returns whether it is there. */
static bool read_tokens(int64_t *out, cca_json_reader *r, const json_t *cca, const char *key) {
    const json_t *value = cca_json_field(cca, key);
    if (!value) return false;
    bool none = json_is_integer(value) && json_integer_value(value) == 0;
    *out = none ? 0 : cca_json_whole(r, cca, key, 0);
    return true;
}

static void read_cca(cca_source *source, cca_json_reader *r, const json_t *config) {
    cca_config *c = &source->config;
    cca_chat chat;
    const json_t *cca = cca_json_object(r, config, "cca");
    if (!cca) return;
    if (cca_json_field(cca, "group_size")) c->group_size = cca_json_whole(r, cca, "group_size", 0);
    if (cca_json_field(cca, "window_size")) {
        c->window_size = cca_json_whole(r, cca, "window_size", 0);
    }
    c->says_sinks = read_tokens(&c->n_sinks, r, cca, "sinks");
    c->says_recall = read_tokens(&c->recall, r, cca, "recall");
    c->says_cores = cca_json_field(cca, "cores") != NULL;
    c->cores = cca_json_bool(r, cca, "cores", false);
    c->tuned = cca_json_bool(r, cca, "tuned", false);
    const char *name = cca_json_string(r, cca, "chat_template", NULL);
    if (!name) return;
    if (cca_chat_parse(&chat, name)) {
        source->text.chat_name = cca_chat_name(chat);
    } else {
        cca_json_refuse(r, "cca: chat_template '%s' is none of %s", name, cca_chat_names);
    }
}

static void add_end(cca_source_text *text, cca_json_reader *r, const json_t *value) {
    json_int_t id = json_integer_value(value);
    if (json_is_integer(value) && id == -1) return; /* "none" */
    if (!json_is_integer(value) || id < 0 || id > INT32_MAX) {
        cca_json_refuse(r, "eos_token_id holds something that is no token id");
    }
    if (r->status) return;
    for (int64_t i = 0; i < text->n_ends; i++) {
        if (text->ends[i] == id) return;
    }
    int32_t *grown = realloc(text->ends, (size_t)(text->n_ends + 1) * sizeof *grown);
    if (!grown) {
        r->status = cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory", r->path);
        return;
    }
    text->ends = grown;
    text->ends[text->n_ends++] = (int32_t)id;
    if (text->eos < 0) text->eos = (int32_t)id;
}

void cca_hf_add_ends(cca_source_text *text, cca_json_reader *r, const json_t *config) {
    const json_t *ids = cca_json_field(config, "eos_token_id");
    if (ids && !json_is_array(ids)) add_end(text, r, ids);
    for (size_t i = 0; i < json_array_size(ids); i++) add_end(text, r, json_array_get(ids, i));
}

cca_status cca_hf_read_config(cca_source *source, int *tie, const json_t *config, const char *path,
                              const cca_export_options *options, cca_error *err) {
    cca_config *c = &source->config;
    cca_json_reader r = {.path = path, .err = err};
    read_arch(source, &r, config);
    refuse_others(source->family, &r, config);
    read_sizes(c, &r, config);
    if (!r.status) read_rope(source, &r, config);
    read_own_window(source, &r, config, options);
    read_scales(c, &r, config);
    check_turning_layers(c, &r, config);
    if (source->family && source->family->arch == CCA_ARCH_PHI3 && !c->rope_dims &&
        !c->own_window) {
        c->arch = &cca_archs[CCA_ARCH_LLAMA]; /* nothing is left that llama has not */
    }
    read_cca(source, &r, config);
    *tie = -1;
    if (cca_json_field(config, "tie_word_embeddings")) {
        *tie = cca_json_bool(&r, config, "tie_word_embeddings", false);
    }
    const json_t *bos = cca_json_field(config, "bos_token_id");
    if (json_is_integer(bos) && json_integer_value(bos) >= 0 &&
        json_integer_value(bos) < c->vocab_size) {
        source->text.bos = (int32_t)json_integer_value(bos);
    }
    cca_hf_add_ends(&source->text, &r, config);
    return r.status;
}
