/* What the keys of a model file say about the model.
 *
 *     cca_config config;
 *     if (cca_config_read(&config, file, &err) != CCA_OK) puts(err.text);
 *     printf("%lld layers\n", (long long)config.n_layers); */
#ifndef CCA_CONFIG_H
#define CCA_CONFIG_H

#include "gguf/gguf.h"

typedef enum cca_arch { CCA_ARCH_LLAMA, CCA_ARCH_QWEN2 } cca_arch;

typedef enum cca_rope_kind {
    CCA_ROPE_PLAIN,
    CCA_ROPE_LINEAR,
    CCA_ROPE_FACTORS, /* llama3: a tensor of divisors */
    CCA_ROPE_YARN,
} cca_rope_kind;

/* What the keys of the model file say. */
typedef struct cca_config {
    cca_arch arch;
    int64_t dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim, vocab_size;
    int64_t seq_len;        /* context_length */
    int64_t trained_length; /* max(context_length, RoPE factor × original context length) */
    float norm_eps;
    bool tied;
    bool has_bias; /* q, k and v */
    cca_rope_kind rope_kind;
    double rope_theta, rope_factor;
    double rope_original; /* original context length, 0 if not given */
    double yarn_beta_fast, yarn_beta_slow, yarn_attn_factor;
    int64_t group_size, window_size; /* 0: the file does not say */
    bool tuned;
} cca_config;

/* Reads the configuration alone: needs the keys and the tensors' names, no data. */
cca_status cca_config_read(cca_config *out, const cca_gguf *file, cca_error *err);

/* RoPE in words: "theta 10000, linear scaling by 4". */
void cca_config_describe_rope(char *out, size_t size, const cca_config *config);

#endif
