#include "layer.h"

#include <stdio.h>
#include <string.h>

const cca_arch cca_archs[CCA_N_ARCHS] = {
    [CCA_ARCH_LLAMA] = {.name = "llama",
                        .model_type = "llama",
                        .windowed_type = "mistral",
                        .interleaved = true},
    [CCA_ARCH_QWEN2] = {.name = "qwen2",
                        .model_type = "qwen2",
                        .has_bias = true,
                        .plain_elsewhere = true},
    [CCA_ARCH_QWEN3] = {.name = "qwen3", .model_type = "qwen3", .has_head_norms = true},
};
const char cca_arch_names[] = "llama, qwen2 and qwen3";
const char cca_model_types[] = "llama, mistral, qwen2 and qwen3";

static const char layer_prefix[] = "blk.";

const cca_tensor cca_tensors[CCA_N_ROLES] = {
    [CCA_EMBEDDING] = {"token_embd.weight", "embed_tokens.weight", CCA_VOCAB, CCA_DIM,
                       .need = CCA_ALWAYS},
    [CCA_OUTPUT_NORM] = {"output_norm.weight", "norm.weight", CCA_DIM, CCA_ONE, .need = CCA_ALWAYS},
    [CCA_OUTPUT] = {"output.weight", "lm_head.weight", CCA_VOCAB, CCA_DIM, .need = CCA_IF_UNTIED},
    [CCA_ROPE_DIVISORS] = {"rope_freqs.weight", NULL, CCA_HALF_HEAD, CCA_ONE,
                           .need = CCA_IF_DIVISORS},

    [CCA_ATTN_NORM] = {"attn_norm.weight", "input_layernorm.weight", CCA_DIM, CCA_ONE,
                       .is_norm = true},
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
                      .is_norm = true},
    [CCA_FFN_GATE] = {"ffn_gate.weight", "mlp.gate_proj.weight", CCA_HIDDEN_DIM, CCA_DIM,
                      .input = CCA_INPUT_BETWEEN},
    [CCA_FFN_UP] = {"ffn_up.weight", "mlp.up_proj.weight", CCA_HIDDEN_DIM, CCA_DIM,
                    .input = CCA_INPUT_BETWEEN},
    [CCA_FFN_DOWN] = {"ffn_down.weight", "mlp.down_proj.weight", CCA_DIM, CCA_HIDDEN_DIM,
                      .input = CCA_INPUT_GATED, .adds = true},
    [CCA_ATTN_Q_NORM] = {"attn_q_norm.weight", "self_attn.q_norm.weight", CCA_HEAD_DIM, CCA_ONE,
                         .need = CCA_IF_HEAD_NORMS, .rotates = true},
    [CCA_ATTN_K_NORM] = {"attn_k_norm.weight", "self_attn.k_norm.weight", CCA_HEAD_DIM, CCA_ONE,
                         .need = CCA_IF_HEAD_NORMS, .rotates = true},
};

bool cca_tensor_needed(cca_role role, const cca_config *c) {
    switch (cca_tensors[role].need) {
    case CCA_ALWAYS: break;
    case CCA_IF_BIAS: return c->has_bias;
    case CCA_IF_HEAD_NORMS: return c->has_head_norms;
    case CCA_IF_UNTIED: return !c->tied;
    case CCA_IF_DIVISORS: return c->rope_kind == CCA_ROPE_FACTORS;
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
    case CCA_HEAD_DIM: return c->head_dim;
    case CCA_HALF_HEAD: return c->head_dim / 2;
    case CCA_VOCAB: return c->vocab_size;
    }
    return 1;
}

cca_shape cca_tensor_shape(cca_role role, const cca_config *c) {
    const cca_tensor *t = &cca_tensors[role];
    return (cca_shape){size_of(t->rows, c), size_of(t->cols, c), t->cols == CCA_ONE};
}

void cca_tensor_name(char out[CCA_TENSOR_NAME], cca_role role, int64_t layer) {
    const char *name = cca_tensors[role].name;
    if (role < CCA_FIRST_OF_LAYER) {
        snprintf(out, CCA_TENSOR_NAME, "%s", name);
    } else {
        snprintf(out, CCA_TENSOR_NAME, "%s%lld.%s", layer_prefix, (long long)layer, name);
    }
}

bool cca_tensor_of_layer(const char *name) {
    return strncmp(name, layer_prefix, strlen(layer_prefix)) == 0;
}
