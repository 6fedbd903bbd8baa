/* config.json of a Hugging Face folder: sizes, RoPE, special tokens; and all that would make a
 * model compute something else than this program does, which is refused by its name. */
#include "chat.h"
#include "export/hf.h"

#include <stdlib.h>
#include <string.h>

static bool is_true(const json_t *config, const char *key) {
    return json_is_true(json_object_get(config, key));
}

/* Where a model reads images, too, config.json nests what there is of text. */
static const json_t *text_part(cca_source *source, cca_json_reader *r, const json_t *config) {
    const char *type = cca_json_string(r, config, "model_type", NULL);
    if (!type || strcmp(type, "mistral3") != 0) return config;
    const json_t *text = cca_json_object(r, config, "text_config");
    source->nested = text != NULL;
    if (!text) cca_json_refuse(r, "text_config is missing");
    return text ? text : config;
}

static void read_arch(cca_source *source, cca_json_reader *r, const json_t *config) {
    const char *type = cca_json_string(r, config, "model_type", NULL);
    const cca_family *family = type ? cca_family_of(type) : NULL;
    if (!type) {
        cca_json_refuse(r, "model_type is missing");
    } else if (!family) {
        char names[CCA_NAMES];
        cca_family_names(names);
        const char *missing = cca_missing_for(type);
        cca_json_refuse(r, "model_type '%s' is not supported%s%s (%s are)", type,
                        missing ? ": it needs " : "", missing ? missing : "", names);
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

/* --- the rest ------------------------------------------------------------------------ */

/* "LLLG", or 4: each so many-th layer has no window. 0: all have; -1: something else. */
static int64_t pattern_of(const json_t *config, int64_t usual) {
    const json_t *pattern = cca_json_field(config, "sliding_window_pattern");
    const char *text = json_string_value(pattern);
    if (!pattern) return usual;
    if (!text) return json_is_integer(pattern) ? json_integer_value(pattern) : -1;
    const size_t n_windows = strspn(text, "L");
    return strcmp(text + n_windows, "G") == 0 ? (int64_t)n_windows + 1 : -1;
}

/* Whether a layer has a window: by layer_types, else as its architecture has them, else all have
 * from max_window_layers on. -1: something else. */
static int has_window(const cca_arch *arch, const json_t *config, int64_t layer) {
    const json_t *types = cca_json_field(config, "layer_types");
    const json_t *first = cca_json_field(config, "max_window_layers");
    if (!types && arch->full_step > 0) {
        const int64_t step = pattern_of(config, arch->full_step);
        return step < 0 ? -1 : step == 0 || (layer + 1) % step != 0;
    }
    if (!types) return layer >= json_integer_value(first);
    const char *type = json_string_value(json_array_get(types, (size_t)layer));
    if (type && strcmp(type, "sliding_attention") == 0) return 1;
    return type && strcmp(type, "full_attention") == 0 ? 0 : -1;
}

static int64_t step_of(const cca_config *c, const json_t *config) {
    bool windowed[CCA_MAX_LAYERS];
    if (c->n_layers > CCA_MAX_LAYERS) return -1; /* which is refused elsewhere */
    for (int64_t l = 0; l < c->n_layers; l++) windowed[l] = has_window(c->arch, config, l) == 1;
    return cca_full_step(windowed, c->n_layers);
}

/* Whether layers with windows are turned in another way than those without. */
static bool turns_otherwise(const cca_config *c) {
    return c->arch->turns_in_windows ||
           (c->arch->plain_in_windows && c->rope_kind != CCA_ROPE_PLAIN);
}

static void read_own_window(cca_source *source, cca_json_reader *r, const json_t *config,
                            const cca_export_options *options) {
    cca_config *c = &source->config;
    const json_t *types = cca_json_field(config, "layer_types");
    if (r->status) return;
    for (int64_t l = 0; types && l < c->n_layers; l++) {
        if (has_window(c->arch, config, l) >= 0) continue;
        const char *type = json_string_value(json_array_get(types, (size_t)l));
        cca_json_refuse(r, "layer_types: '%s' is not supported", type ? type : "?");
        return;
    }
    const json_t *window = cca_json_field(config, "sliding_window");
    const bool slides = source->family->windowed || is_true(config, "use_sliding_window") || types;
    const int64_t step = step_of(c, config);
    const bool rope_differs = slides && step != 1 && turns_otherwise(c);
    if (rope_differs && !window && c->arch->plain_in_windows) {
        cca_json_refuse(r, "sliding_window is missing");
    }
    if (!window || !slides || step == 1 || json_integer_value(window) < 0) return;
    const int64_t n = cca_json_whole(r, config, "sliding_window", INT32_MAX);
    if (rope_differs && step < 0) cca_json_refuse(r, "layer_types: not each n-th layer sees all");
    if (r->status || (n >= c->seq_len && !rope_differs)) return;
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

/* Sizes and settings of a model of text. */
static void read_model(cca_source *source, cca_json_reader *r, const json_t *config,
                       const cca_export_options *options) {
    cca_config *c = &source->config;
    read_arch(source, r, config);
    refuse_others(source->family, r, config);
    read_sizes(c, r, config);
    if (!r->status) cca_hf_read_rope(source, r, config);
    read_own_window(source, r, config, options);
    read_scales(c, r, config);
    check_turning_layers(c, r, config);
    if (source->family && source->family->arch == CCA_ARCH_PHI3 && !c->rope_dims &&
        !c->own_window) {
        c->arch = &cca_archs[CCA_ARCH_LLAMA]; /* nothing is left that llama has not */
    }
}

/* Whether output and embedding are one, and tokens that begin and end a text; what is read last
 * counts. */
static void read_ties_and_ids(cca_source *source, int *tie, cca_json_reader *r,
                              const json_t *config) {
    if (cca_json_field(config, "tie_word_embeddings")) {
        *tie = cca_json_bool(r, config, "tie_word_embeddings", false);
    }
    const json_t *bos = cca_json_field(config, "bos_token_id");
    if (json_is_integer(bos) && json_integer_value(bos) >= 0 &&
        json_integer_value(bos) < source->config.vocab_size) {
        source->text.bos = (int32_t)json_integer_value(bos);
    }
    cca_hf_add_ends(&source->text, r, config);
}

cca_status cca_hf_read_config(cca_source *source, int *tie, const json_t *config, const char *path,
                              const cca_export_options *options, cca_error *err) {
    cca_json_reader r = {.path = path, .err = err};
    const json_t *text = text_part(source, &r, config);
    *tie = -1;
    read_model(source, &r, text, options);
    const char *quantised = "quantization_config";
    if (cca_json_field(config, quantised) || cca_json_field(text, quantised)) {
        cca_json_refuse(&r, "%s: weights that are quantised already", quantised);
    }
    read_cca(source, &r, config);
    if (text != config) read_ties_and_ids(source, tie, &r, text);
    read_ties_and_ids(source, tie, &r, config);
    return r.status;
}
