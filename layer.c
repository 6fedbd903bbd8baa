#include "layer.h"

#include <stdio.h>
#include <string.h>

const cca_arch cca_archs[CCA_N_ARCHS] = {
    [CCA_ARCH_LLAMA] = {.name = "llama", .interleaved = true},
    [CCA_ARCH_QWEN2] = {.name = "qwen2", .plain_elsewhere = true},
    [CCA_ARCH_QWEN3] = {.name = "qwen3"},
    [CCA_ARCH_SMOLLM3] = {.name = "smollm3", .interleaved = true, .no_rope_step = 4},
    [CCA_ARCH_GRANITE] = {.name = "granite", .interleaved = true, .has_scales = true},
    [CCA_ARCH_ERNIE4_5] = {.name = "ernie4_5", .interleaved = true},
    [CCA_ARCH_SEED_OSS] = {.name = "seed_oss"},
    [CCA_ARCH_HUNYUAN_DENSE] = {.name = "hunyuan-dense", .norms_turned = true},
    [CCA_ARCH_ARCEE] = {.name = "arcee", .interleaved = true, .squares = true},
    [CCA_ARCH_OLMO2] = {.name = "olmo2",
                        .norms_whole = true,
                        .norms_behind = true,
                        .none_before = true,
                        .full_step = 4,
                        .plain_in_windows = true},
    [CCA_ARCH_EXAONE4] = {.name = "exaone4",
                          .norms_behind = true,
                          .none_before = true,
                          .full_step = 4,
                          .turns_in_windows = true},
    [CCA_ARCH_PHI3] = {.name = "phi3", .fuses_gate_up = true},
    [CCA_ARCH_GLM4] = {.name = "glm4",
                       .interleaved = true,
                       .fuses_gate_up = true,
                       .norms_behind = true},
    [CCA_ARCH_MISTRAL3] = {.name = "mistral3", .interleaved = true},
};

static const cca_family families[] = {
    {"llama", .arch = CCA_ARCH_LLAMA},
    {"mistral", CCA_ARCH_LLAMA, .windowed = true},
    {"ministral", CCA_ARCH_LLAMA, .windowed = true},
    {"ministral3", CCA_ARCH_MISTRAL3, .windowed = true, .queries_grow = true},
    {"qwen2", CCA_ARCH_QWEN2, .bias = CCA_BIAS},
    {"qwen3", CCA_ARCH_QWEN3, .has_head_norms = true},
    {"smollm3", CCA_ARCH_SMOLLM3, .theta = 2e6},
    {"granite", .arch = CCA_ARCH_GRANITE},
    {"ernie4_5", CCA_ARCH_ERNIE4_5, .paired = true, .theta = 5e5},
    {"helium", CCA_ARCH_LLAMA, .paired = true, .theta = 1e5},
    {"seed_oss", CCA_ARCH_SEED_OSS, .bias = CCA_BIAS_IF_SAID},
    {"hunyuan_v1_dense", CCA_ARCH_HUNYUAN_DENSE, .has_head_norms = true},
    {"arcee", .arch = CCA_ARCH_ARCEE},
    {"olmo2", CCA_ARCH_OLMO2, .has_head_norms = true},
    {"olmo3", CCA_ARCH_OLMO2, .has_head_norms = true, .windowed = true, .theta = 5e5},
    {"exaone4", CCA_ARCH_EXAONE4, .has_head_norms = true, .windowed = true},
    {"phi3", CCA_ARCH_PHI3, .windowed = true, .turns_part = true},
    {"glm4", CCA_ARCH_GLM4, .bias = CCA_BIAS_IF_SAID, .turns_part = true, .paired = true},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

/* Names that differ from those of cca_tensors, by architecture and by family. */
static const struct {
    cca_arch_id arch;
    cca_role role;
    const char *name;
} other_names[] = {{CCA_ARCH_SEED_OSS, CCA_FFN_NORM, "post_attention_norm.weight"}};

static const struct {
    const char *model_type;
    cca_role role;
    const char *name;
} other_hf_names[] = {
    {"hunyuan_v1_dense", CCA_ATTN_Q_NORM, "self_attn.query_layernorm.weight"},
    {"hunyuan_v1_dense", CCA_ATTN_K_NORM, "self_attn.key_layernorm.weight"},
    {"glm4", CCA_ATTN_NORM_BEHIND, "post_self_attn_layernorm.weight"},
    {"glm4", CCA_FFN_NORM_BEHIND, "post_mlp_layernorm.weight"},
};

static const char layer_prefix[] = "blk.";

const cca_tensor cca_tensors[CCA_N_ROLES] = {
    [CCA_EMBEDDING] = {"token_embd.weight", "embed_tokens.weight", CCA_VOCAB, CCA_DIM,
                       .need = CCA_ALWAYS},
    [CCA_OUTPUT_NORM] = {"output_norm.weight", "norm.weight", CCA_DIM, CCA_ONE, .need = CCA_ALWAYS},
    [CCA_OUTPUT] = {"output.weight", "lm_head.weight", CCA_VOCAB, CCA_DIM, .need = CCA_IF_UNTIED},
    [CCA_ROPE_DIVISORS] = {"rope_freqs.weight", NULL, CCA_ROPE_PAIRS, CCA_ONE,
                           .need = CCA_IF_DIVISORS},
    [CCA_ROPE_SHORT_DIVISORS] = {"rope_factors_short.weight", NULL, CCA_ROPE_PAIRS, CCA_ONE,
                                 .need = CCA_IF_LONGROPE},
    [CCA_ROPE_LONG_DIVISORS] = {"rope_factors_long.weight", NULL, CCA_ROPE_PAIRS, CCA_ONE,
                                .need = CCA_IF_LONGROPE},

    [CCA_ATTN_NORM] = {"attn_norm.weight", "input_layernorm.weight", CCA_DIM, CCA_ONE,
                       .need = CCA_IF_NORMS_BEFORE, .is_norm = true},
    [CCA_ATTN_Q] = {"attn_q.weight", "self_attn.q_proj.weight", CCA_Q_DIM, CCA_DIM,
                    .input = CCA_INPUT_STREAM, .rotates = true},
    [CCA_ATTN_K] = {"attn_k.weight", "self_attn.k_proj.weight", CCA_KV_DIM, CCA_DIM,
                    .input = CCA_INPUT_STREAM, .rotates = true},
    [CCA_ATTN_V] = {"attn_v.weight", "self_attn.v_proj.weight", CCA_KV_DIM, CCA_DIM,
                    .input = CCA_INPUT_STREAM},
    [CCA_ATTN_Q_BIAS] = {"attn_q.bias", "self_attn.q_proj.bias", CCA_Q_DIM, CCA_ONE,
                         .need = CCA_IF_BIAS, .rotates = true},
    [CCA_ATTN_K_BIAS] = {"attn_k.bias", "self_attn.k_proj.bias", CCA_KV_DIM, CCA_ONE,
                         .need = CCA_IF_BIAS, .rotates = true},
    [CCA_ATTN_V_BIAS] = {"attn_v.bias", "self_attn.v_proj.bias", CCA_KV_DIM, CCA_ONE,
                         .need = CCA_IF_BIAS},
    [CCA_ATTN_OUT] = {"attn_output.weight", "self_attn.o_proj.weight", CCA_DIM, CCA_Q_DIM,
                      .input = CCA_INPUT_ATTENDED, .adds = true},
    [CCA_FFN_NORM] = {"ffn_norm.weight", "post_attention_layernorm.weight", CCA_DIM, CCA_ONE,
                      .need = CCA_IF_NORMS_BEFORE, .is_norm = true},
    [CCA_FFN_GATE] = {"ffn_gate.weight", "mlp.gate_proj.weight", CCA_HIDDEN_DIM, CCA_DIM,
                      .need = CCA_IF_GATED, .input = CCA_INPUT_BETWEEN},
    [CCA_FFN_UP] = {"ffn_up.weight", "mlp.up_proj.weight", CCA_HIDDEN_DIM, CCA_DIM,
                    .input = CCA_INPUT_BETWEEN},
    [CCA_FFN_DOWN] = {"ffn_down.weight", "mlp.down_proj.weight", CCA_DIM, CCA_HIDDEN_DIM,
                      .input = CCA_INPUT_GATED, .adds = true},
    [CCA_ATTN_Q_NORM] = {"attn_q_norm.weight", "self_attn.q_norm.weight", CCA_Q_NORM, CCA_ONE,
                         .need = CCA_IF_HEAD_NORMS, .rotates = true},
    [CCA_ATTN_K_NORM] = {"attn_k_norm.weight", "self_attn.k_norm.weight", CCA_K_NORM, CCA_ONE,
                         .need = CCA_IF_HEAD_NORMS, .rotates = true},
    [CCA_ATTN_NORM_BEHIND] = {"post_attention_norm.weight", "post_attention_layernorm.weight",
                              CCA_DIM, CCA_ONE, .need = CCA_IF_NORMS_BEHIND, .is_norm = true},
    [CCA_FFN_NORM_BEHIND] = {"post_ffw_norm.weight", "post_feedforward_layernorm.weight", CCA_DIM,
                             CCA_ONE, .need = CCA_IF_NORMS_BEHIND, .is_norm = true},
};

bool cca_tensor_needed(cca_role role, const cca_config *c) {
    switch (cca_tensors[role].need) {
    case CCA_ALWAYS: break;
    case CCA_IF_BIAS: return c->has_bias;
    case CCA_IF_HEAD_NORMS: return c->has_head_norms;
    case CCA_IF_NORMS_BEFORE: return !c->arch->none_before;
    case CCA_IF_NORMS_BEHIND: return c->arch->norms_behind;
    case CCA_IF_GATED: return !c->arch->squares;
    case CCA_IF_UNTIED: return !c->tied;
    case CCA_IF_DIVISORS: return c->rope_kind == CCA_ROPE_FACTORS;
    case CCA_IF_LONGROPE: return c->rope_kind == CCA_ROPE_LONGROPE;
    }
    return true;
}

static int64_t size_of(cca_extent extent, const cca_config *c) {
    switch (extent) {
    case CCA_ONE: break;
    case CCA_DIM: return c->dim;
    case CCA_HIDDEN_DIM: return c->hidden_dim;
    case CCA_Q_DIM: return c->n_heads * c->head_dim;
    case CCA_KV_DIM: return c->n_kv_heads * c->head_dim;
    case CCA_Q_NORM: return c->arch->norms_whole ? c->n_heads * c->head_dim : c->head_dim;
    case CCA_K_NORM: return c->arch->norms_whole ? c->n_kv_heads * c->head_dim : c->head_dim;
    case CCA_ROPE_PAIRS: return cca_rope_dims(c) / 2;
    case CCA_VOCAB: return c->vocab_size;
    }
    return 1;
}

cca_shape cca_tensor_shape(cca_role role, const cca_config *c) {
    const cca_tensor *t = &cca_tensors[role];
    return (cca_shape){size_of(t->rows, c), size_of(t->cols, c), t->cols == CCA_ONE};
}

const cca_family *cca_family_of(const char *model_type) {
    for (int i = 0; i < N_FAMILIES; i++) {
        if (strcmp(families[i].model_type, model_type) == 0) return &families[i];
    }
    return NULL;
}

/* What others would need, by both of their names where these differ in more than - and _. */
static const struct {
    const char *name, *missing;
} others[] = {
    {"gemma", "gelu and a scaled embedding"},
    {"gemma2", "gelu and capped scores and logits"},
    {"gemma3", "gelu and RoPE of two bases"},
    {"gemma3_text", "gelu and RoPE of two bases"},
    {"gemma3n", "inputs of each layer"},
    {"gemma4", "gelu and layers that share keys"},
    {"cohere", "layer norms and layers whose two parts run side by side"},
    {"command-r", "layer norms and layers whose two parts run side by side"},
    {"cohere2", "layer norms and layers whose two parts run side by side"},
    {"mixtral", "a mixture of experts"},
    {"deepseek_v2", "latent attention and a mixture of experts"},
    {"deepseek_v3", "latent attention and a mixture of experts"},
    {"deepseek2", "latent attention and a mixture of experts"},
    {"gpt_oss", "attention sinks of their own and a mixture of experts"},
    {"qwen3_next", "linear attention and a mixture of experts"},
    {"llama4", "a mixture of experts"},
    {"llama4_text", "a mixture of experts"},
    {"dbrx", "a mixture of experts"},
    {"gpt2", "layer norms and learned positions"},
    {"gpt_neox", "layer norms"},
    {"gptj", "layer norms"},
    {"falcon", "layer norms"},
    {"phi", "layer norms"},
    {"phi2", "layer norms"},
    {"stablelm", "layer norms"},
    {"starcoder2", "layer norms"},
    {"nemotron", "layer norms"},
    {"olmo", "layer norms"},
    {"mpt", "layer norms and ALiBi"},
    {"bloom", "layer norms and ALiBi"},
    {"bert", "attention that looks ahead"},
    {"modernbert", "attention that looks ahead"},
    {"modern-bert", "attention that looks ahead"},
    {"t5", "attention that looks ahead"},
    {"mamba", "a state in place of attention"},
    {"mamba2", "a state in place of attention"},
    {"rwkv6", "a state in place of attention"},
    {"falcon_h1", "a state beside attention"},
    {"lfm2", "convolutions in place of attention"},
    {"minicpm", "other factors than Granite's"},
    {"exaone", "other names of weights and settings"},
    {"qwen2_vl", "RoPE of several positions a token"},
    {"qwen2_5_vl", "RoPE of several positions a token"},
};

/* Whether they are equal but for - and _. */
static bool is_spelling_of(const char *a, const char *b) {
    for (;; a++, b++) {
        a += strspn(a, "-_");
        b += strspn(b, "-_");
        if (*a != *b) return false;
        if (*a == '\0') return true;
    }
}

const char *cca_missing_for(const char *name) {
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (is_spelling_of(name, others[i].name)) return others[i].missing;
    }
    return strstr(name, "moe") ? "a mixture of experts" : NULL;
}

static void add_name(char out[CCA_NAMES], const char *name, int i, int n) {
    size_t at = strlen(out);
    snprintf(out + at, CCA_NAMES - at, "%s%s", i == 0 ? "" : i == n - 1 ? " and " : ", ", name);
}

void cca_arch_names(char out[CCA_NAMES]) {
    *out = '\0';
    for (int i = 0; i < CCA_N_ARCHS; i++) add_name(out, cca_archs[i].name, i, CCA_N_ARCHS);
}

void cca_family_names(char out[CCA_NAMES]) {
    *out = '\0';
    for (int i = 0; i < N_FAMILIES; i++) add_name(out, families[i].model_type, i, N_FAMILIES);
}

void cca_tensor_name(char out[CCA_TENSOR_NAME], cca_role role, int64_t layer,
                     const cca_arch *arch) {
    const char *name = cca_tensors[role].name;
    for (size_t i = 0; i < sizeof other_names / sizeof *other_names; i++) {
        bool other = other_names[i].role == role && &cca_archs[other_names[i].arch] == arch;
        if (other) name = other_names[i].name;
    }
    if (role < CCA_FIRST_OF_LAYER) {
        snprintf(out, CCA_TENSOR_NAME, "%s", name);
    } else {
        snprintf(out, CCA_TENSOR_NAME, "%s%lld.%s", layer_prefix, (long long)layer, name);
    }
}

const char *cca_tensor_hf_name(cca_role role, const cca_family *family) {
    for (size_t i = 0; i < sizeof other_hf_names / sizeof *other_hf_names; i++) {
        if (other_hf_names[i].role != role) continue;
        if (strcmp(other_hf_names[i].model_type, family->model_type) == 0) {
            return other_hf_names[i].name;
        }
    }
    return cca_tensors[role].hf_name;
}

static const cca_fused fused[] = {
    {"attn_qkv.weight",
     "self_attn.qkv_proj.weight",
     {CCA_ATTN_Q, CCA_ATTN_K, CCA_ATTN_V},
     .n_parts = 3},
    {"ffn_up.weight", "mlp.gate_up_proj.weight", {CCA_FFN_GATE, CCA_FFN_UP}, .n_parts = 2},
};

const cca_fused *cca_fused_of(cca_role role) {
    for (size_t i = 0; i < sizeof fused / sizeof *fused; i++) {
        for (int k = 0; k < fused[i].n_parts; k++) {
            if (fused[i].parts[k] == role) return &fused[i];
        }
    }
    return NULL;
}

const cca_fused *cca_fused_written(cca_role role, const cca_arch *arch) {
    const cca_fused *f = arch->fuses_gate_up ? cca_fused_of(role) : NULL;
    return f && f->parts[0] == CCA_FFN_GATE ? f : NULL;
}

int64_t cca_fused_rows(int64_t *before, const cca_fused *f, cca_role role, const cca_config *c) {
    int64_t all = 0;
    for (int k = 0; k < f->n_parts; k++) {
        if (f->parts[k] == role) *before = all;
        all += cca_tensor_shape(f->parts[k], c).rows;
    }
    return all;
}

void cca_fused_name(char out[CCA_TENSOR_NAME], const cca_fused *f, int64_t layer) {
    snprintf(out, CCA_TENSOR_NAME, "%s%lld.%s", layer_prefix, (long long)layer, f->name);
}

int64_t cca_full_step(const bool *windowed, int64_t n_layers) {
    int64_t step = 0;
    for (int64_t l = 0; l < n_layers && step == 0; l++) {
        if (!windowed[l]) step = l + 1;
    }
    for (int64_t l = 0; l < n_layers; l++) {
        if (windowed[l] != (step == 0 || (l + 1) % step != 0)) return -1;
    }
    return step;
}

int64_t cca_layer_window(const cca_config *config, int64_t layer) {
    const int step = config->own_full_step;
    return step > 0 && (layer + 1) % step == 0 ? 0 : config->own_window;
}

int64_t cca_rope_dims(const cca_config *config) {
    return config->rope_dims ? config->rope_dims : config->head_dim;
}

bool cca_layer_turns(const cca_config *config, int64_t layer) {
    const cca_arch *arch = config->arch;
    if (arch->turns_in_windows && config->own_window > 0) {
        return cca_layer_window(config, layer) > 0;
    }
    return arch->no_rope_step == 0 || (layer + 1) % arch->no_rope_step != 0;
}

bool cca_tensor_of_rope(const char *name) {
    for (cca_role r = CCA_ROPE_DIVISORS; r < CCA_FIRST_OF_LAYER; r++) {
        if (strcmp(name, cca_tensors[r].name) == 0) return true;
    }
    return false;
}

bool cca_tensor_of_layer(const char *name) {
    return strncmp(name, layer_prefix, strlen(layer_prefix)) == 0;
}
