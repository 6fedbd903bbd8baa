/* RoPE as config.json of a Hugging Face folder describes it: rope_theta, rope_scaling,
 * rope_parameters. A field that nothing here reads is refused: left out, it would change what the
 * model computes. */
#include "export/hf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    source->divisors[CCA_ROPE_DIVISORS] = divisors;
    c->rope_kind = CCA_ROPE_FACTORS;
    return CCA_OK;
}

/* attention_factor multiplies cosines and sines, mscale and mscale_all_dim say the same; GGUF's
 * attn_factor is what is left of it beside 1 + 0.1 ln(factor), which every reader of GGUF
 * multiplies in by itself. */
static void read_yarn(cca_source *source, cca_json_reader *r, const json_t *rope, double factor,
                      double original) {
    cca_config *c = &source->config;
    if (!cca_json_bool(r, rope, "truncate", true)) {
        cca_json_refuse(r, "truncate: false of yarn is not supported");
    }
    const double usual = 0.1 * log(factor) + 1;
    const bool both = cca_json_field(rope, "mscale") && cca_json_field(rope, "mscale_all_dim");
    double whole = usual;
    if (both) {
        whole = (0.1 * cca_json_real(r, rope, "mscale", 1) * log(factor) + 1) /
                (0.1 * cca_json_real(r, rope, "mscale_all_dim", 1) * log(factor) + 1);
    }
    if (!(c->rope_theta > 1)) cca_json_refuse(r, "rope_theta of yarn must be more than 1");
    c->rope_kind = CCA_ROPE_YARN;
    c->rope_factor = factor;
    c->rope_original = original;
    c->rope_attn_factor = cca_json_real(r, rope, "attention_factor", whole) / usual;
    c->yarn_beta_fast = cca_json_real(r, rope, "beta_fast", 32);
    c->yarn_beta_slow = cca_json_real(r, rope, "beta_slow", 1);
    const json_t *beta = cca_json_field(rope, "llama_4_scaling_beta");
    if (beta && !source->family->queries_grow) {
        cca_json_refuse(r, "llama_4_scaling_beta is not supported for this model_type");
    } else if (beta && json_number_value(beta) != 0) {
        c->query_beta = cca_json_real(r, rope, "llama_4_scaling_beta", 0);
    }
}

/* A list of divisors of frequencies. */
static void read_divisors(cca_source *source, cca_json_reader *r, const json_t *rope, cca_role role,
                          const char *key) {
    const json_t *list = json_object_get(rope, key);
    const size_t n = (size_t)cca_rope_dims(&source->config) / 2;
    if (r->status) return;
    if (json_array_size(list) != n) {
        cca_json_refuse(r, "%s of RoPE is no list of %lld numbers", key, (long long)n);
        return;
    }
    float *divisors = source->divisors[role] = calloc(n, sizeof *divisors);
    if (!divisors) {
        r->status = cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory", r->path);
        return;
    }
    for (size_t k = 0; k < n; k++) {
        divisors[k] = (float)json_number_value(json_array_get(list, k));
        if (!(divisors[k] > 0) || isinf(divisors[k])) {
            cca_json_refuse(r, "%s of RoPE: value %lld is no positive number", key, (long long)k);
        }
    }
}

/* Frequencies are divided by short_factor in contexts of up to the original length, by long_factor
 * in longer ones; cosines and sines are multiplied by attention_factor in both. */
static void read_longrope(cca_source *source, cca_json_reader *r, const json_t *config,
                          const json_t *rope) {
    cca_config *c = &source->config;
    const char *key = "original_max_position_embeddings";
    const json_t *where = cca_json_field(config, key) ? config : rope;
    const double original = (double)cca_json_whole(r, where, key, 0);
    if (!r->status && original < 2) cca_json_refuse(r, "%s of longrope must be more than 1", key);
    if (r->status) return;
    const double factor = cca_json_real(r, rope, "factor", (double)c->seq_len / original);
    const double usual = factor > 1 ? sqrt(1 + log(factor) / log(original)) : 1;
    c->rope_kind = CCA_ROPE_LONGROPE;
    c->rope_original = original;
    c->rope_attn_factor = cca_json_real(r, rope, "attention_factor", usual);
    read_divisors(source, r, rope, CCA_ROPE_SHORT_DIVISORS, "short_factor");
    read_divisors(source, r, rope, CCA_ROPE_LONG_DIVISORS, "long_factor");
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
static double read_theta(const cca_family *family, cca_json_reader *r, const json_t *config,
                         const json_t *rope) {
    const double usual = family->theta != 0 ? family->theta : 10000;
    double outer = cca_json_real(r, config, "rope_theta", usual);
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

/* The settings of layers without windows; those with windows must have none but the base. A
 * rope_scaling that lists no kinds is that of the former alone. */
static const json_t *of_full_layers(cca_json_reader *r, const json_t *object, const char *field) {
    static const char full[] = "full_attention", sliding[] = "sliding_attention";
    const json_t *out = cca_json_object(r, object, full);
    const json_t *others = cca_json_object(r, object, sliding);
    const char *type = cca_json_string(r, others, "rope_type", "default");
    if (!out && !others) {
        if (strcmp(field, "rope_parameters") == 0) {
            cca_json_refuse(r, "%s: does not list %s and %s", field, full, sliding);
        }
        return object;
    }
    if (strcmp(cca_json_string(r, others, "type", type), "default") != 0) {
        cca_json_refuse(r, "%s: scaling for %s is not supported", field, sliding);
    }
    if (!json_equal(cca_json_field(others, "rope_theta"), cca_json_field(out, "rope_theta"))) {
        cca_json_refuse(r, "%s: layers that differ in rope_theta are not supported", field);
    }
    return out ? out : others;
}

/* rope_scaling, or what took its place, rope_parameters. */
static const json_t *find_rope(const cca_family *family, cca_json_reader *r, const json_t *config) {
    static const char *const fields[] = {"rope_scaling", "rope_parameters"};
    const json_t *found = NULL;
    const bool differs = family->windowed && cca_archs[family->arch].plain_in_windows;
    for (size_t i = 0; i < 2; i++) {
        const json_t *own = cca_json_object(r, config, fields[i]);
        if (json_object_size(own) == 0) continue;
        own = differs ? of_full_layers(r, own, fields[i]) : of_all_layers(r, own, fields[i]);
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
                                        "alpha",
                                        "short_factor",
                                        "long_factor",
                                        "max_position_embeddings",
                                        "llama_4_scaling_beta"};
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
    if (type && strcmp(type, "su") == 0) type = "longrope"; /* its former name */
    if (!type) type = "default";
    if (cca_json_field(rope, "llama_4_scaling_beta") && strcmp(type, "yarn") != 0) {
        cca_json_refuse(r, "llama_4_scaling_beta of RoPE scaling '%s' is not supported", type);
    }
    return type;
}

void cca_hf_read_rope(cca_source *source, cca_json_reader *r, const json_t *config) {
    cca_config *c = &source->config;
    const json_t *rope = find_rope(source->family, r, config);
    refuse_other_rope(r, config, rope);
    c->rope_factor = 1;
    c->rope_theta = read_theta(source->family, r, config, rope);
    read_partial(source, r, config, rope);
    const char *type = rope_type(r, rope);
    if (r->status || strcmp(type, "default") == 0) return;
    if (cca_json_field(rope, "alpha")) {
        read_alpha(c, r, rope, type);
        return;
    }

    const bool linear = strcmp(type, "linear") == 0, yarn = strcmp(type, "yarn") == 0;
    const bool llama3 = strcmp(type, "llama3") == 0, longrope = strcmp(type, "longrope") == 0;
    const bool is_phi3 = source->family->arch == CCA_ARCH_PHI3; /* whose yarn is none */
    if ((!linear && !yarn && !llama3 && !longrope) || (is_phi3 && !longrope)) {
        cca_json_refuse(r, "RoPE scaling of type '%s' is not supported%s", type,
                        is_phi3 ? " for this model_type" : "");
        return;
    }
    if (longrope) {
        read_longrope(source, r, config, rope);
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
        read_yarn(source, r, rope, factor, original);
    } else {
        r->status = read_llama3(source, r, rope, factor, original);
    }
}
