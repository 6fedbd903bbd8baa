/* What a model is made of: architectures, sizes, and the tensors of a layer and beside the layers.
 * The only list of them: model, export and forecast walk it.
 *
 *     cca_config c = {.arch = &cca_archs[CCA_ARCH_LLAMA], .dim = 288, .n_layers = 6, …};
 *     for (cca_role r = CCA_FIRST_OF_LAYER; r < CCA_N_ROLES; r++) {
 *         char name[CCA_TENSOR_NAME];
 *         cca_tensor_name(name, r, 5, c.arch);             // "blk.5.attn_q.weight"
 *         cca_shape shape = cca_tensor_shape(r, &c);
 *         if (cca_tensor_needed(r, &c)) bind(name, shape.rows, shape.cols);
 *     }
 *
 * An architecture is a row of cca_archs, with one or more of Hugging Face's families; a tensor is a
 * role here and a row of cca_tensors. */
#ifndef CCA_LAYER_H
#define CCA_LAYER_H

#include "base/base.h"

/* ---- architectures ------------------------------------------------------------------- */

/* An architecture as GGUF names it. */
typedef struct cca_arch {
    const char *name;     /* general.architecture, also in front of its keys */
    bool interleaved;     /* RoPE turns the pairs 2k, 2k+1 of a head, else k, k+hd/2 */
    bool plain_elsewhere; /* llama.cpp has no llama3 scaling or head_dim of its own for it */
    bool fuses_gate_up;   /* its files have gate and up in one tensor */
    bool norms_turned;    /* heads are normed when RoPE has turned them, else before */
    bool norms_whole;     /* all heads of q, or k, are normed as one */
    bool norms_behind;    /* what attention and feed-forward give is normed before it is added */
    bool none_before;     /* and what goes into them is not */
    bool squares;         /* up alone, with relu², in place of silu(gate) · up */
    bool has_scales;      /* see cca_scales */
    int no_rope_step;     /* each such layer has no RoPE; 0: all have */
    int full_step; /* where layers have windows of their own, each such has none; 0: all have */
    bool turns_in_windows; /* then only layers with windows have RoPE */
    bool plain_in_windows; /* RoPE is scaled in layers without windows alone */
} cca_arch;

typedef enum cca_arch_id {
    CCA_ARCH_LLAMA,
    CCA_ARCH_QWEN2,
    CCA_ARCH_QWEN3,
    CCA_ARCH_SMOLLM3,
    CCA_ARCH_GRANITE,
    CCA_ARCH_ERNIE4_5,
    CCA_ARCH_SEED_OSS,
    CCA_ARCH_HUNYUAN_DENSE,
    CCA_ARCH_ARCEE,
    CCA_ARCH_OLMO2,
    CCA_ARCH_EXAONE4,
    CCA_ARCH_PHI3,
    CCA_ARCH_GLM4,
    CCA_ARCH_MISTRAL3,
    CCA_N_ARCHS,
} cca_arch_id;

extern const cca_arch cca_archs[CCA_N_ARCHS];

typedef enum cca_bias { CCA_NO_BIAS, CCA_BIAS, CCA_BIAS_IF_SAID } cca_bias;

/* A model_type of Hugging Face's config.json, and the architecture whose model file it becomes. */
typedef struct cca_family {
    const char *model_type;
    cca_arch_id arch;
    cca_bias bias;       /* of q, k and v; if attention_bias says so */
    bool windowed;       /* trained with a sliding window where config.json has one */
    bool has_head_norms; /* of q and k */
    bool queries_grow;   /* with their position, where config.json says so */
    bool turns_part;     /* RoPE may turn the first dims of a head alone */
    bool paired;         /* RoPE turns pairs 2k, 2k+1 there, too; else always k, k+hd/2 */
    double theta;        /* of RoPE where config.json does not say; 0: 10000 */
} cca_family;

/* The family of a model_type; NULL where it is not known. */
const cca_family *cca_family_of(const char *model_type);
/* What a model_type or architecture that is not here would need: "gelu", "a mixture of experts";
 * NULL where nothing is known of it. */
const char *cca_missing_for(const char *name);
/* All names, for messages: "llama, qwen2 and qwen3". */
enum { CCA_NAMES = 256 };
void cca_arch_names(char out[CCA_NAMES]);
void cca_family_names(char out[CCA_NAMES]);

/* ---- sizes --------------------------------------------------------------------------- */

enum { CCA_MAX_LAYERS = 4096 }; /* more than any model has */

typedef enum cca_rope_kind {
    CCA_ROPE_PLAIN,
    CCA_ROPE_LINEAR,
    CCA_ROPE_FACTORS, /* llama3: a tensor of divisors */
    CCA_ROPE_YARN,
    CCA_ROPE_LONGROPE, /* two tensors of divisors, for contexts up to rope_original and longer ones
                        */
} cca_rope_kind;

/* Factors of Granite and the like: of the embedding, of what a layer adds to the stream, of q · k
 * in place of 1/sqrt(head_dim); logits are divided by theirs. 0: there is none. */
typedef struct cca_scales {
    double embedding, residual, attention, logits;
} cca_scales;

/* All that is known of a model but its weights. */
typedef struct cca_config {
    const cca_arch *arch;
    int64_t dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim, vocab_size;
    int64_t seq_len;        /* context_length */
    int64_t trained_length; /* max(context_length, RoPE factor × original context length) */
    float norm_eps;
    bool tied;
    bool has_bias;       /* q, k and v */
    bool has_head_norms; /* q and k */
    cca_scales scales;
    cca_rope_kind rope_kind;
    int64_t own_window; /* last tokens that layers see, as they were trained; 0: all */
    int own_full_step;  /* each such layer sees all; 0: none does */
    int64_t rope_dims;  /* of a head, the first; 0: all */
    double rope_theta, rope_factor;
    double rope_original; /* original context length, 0 if not given */
    double
        rope_attn_factor; /* yarn: of cosines and sines, times 1 + 0.1 ln rope_factor; longrope */
    double yarn_beta_fast, yarn_beta_slow;
    double query_beta; /* queries grow by 1 + query_beta ln(1 + floor(pos / rope_original)) */
    int64_t group_size, window_size; /* 0: the file does not say */
    int64_t n_sinks, recall;         /* tokens, where it says */
    bool cores;                      /* what is not recalled is seen as cores, where it says */
    bool says_sinks, says_recall, says_cores;
    bool tuned;
} cca_config;

/* ---- tensors ------------------------------------------------------------------------- */

/* Those from CCA_FIRST_OF_LAYER on exist once a layer. Random weights depend on the order of these:
 * a new one comes last. */
typedef enum cca_role {
    CCA_EMBEDDING,
    CCA_OUTPUT_NORM,
    CCA_OUTPUT,
    CCA_ROPE_DIVISORS,
    CCA_ROPE_SHORT_DIVISORS,
    CCA_ROPE_LONG_DIVISORS,
    CCA_FIRST_OF_LAYER,
    CCA_ATTN_NORM = CCA_FIRST_OF_LAYER,
    CCA_ATTN_Q,
    CCA_ATTN_K,
    CCA_ATTN_V,
    CCA_ATTN_Q_BIAS,
    CCA_ATTN_K_BIAS,
    CCA_ATTN_V_BIAS,
    CCA_ATTN_OUT,
    CCA_FFN_NORM,
    CCA_FFN_GATE,
    CCA_FFN_UP,
    CCA_FFN_DOWN,
    CCA_ATTN_Q_NORM,
    CCA_ATTN_K_NORM,
    CCA_ATTN_NORM_BEHIND,
    CCA_FFN_NORM_BEHIND,
    CCA_N_ROLES,
} cca_role;

/* What the products of a layer take; those of one input are made together. */
typedef enum cca_input {
    CCA_INPUT_NONE,     /* no product of a layer */
    CCA_INPUT_STREAM,   /* the norm of x */
    CCA_INPUT_ATTENDED, /* what attention gives */
    CCA_INPUT_BETWEEN,  /* the norm of x behind attention */
    CCA_INPUT_GATED,    /* silu(gate) · up */
    CCA_N_INPUTS,
} cca_input;

/* A size of the configuration; CCA_ONE makes a vector. */
typedef enum cca_extent {
    CCA_ONE,
    CCA_DIM,
    CCA_HIDDEN_DIM,
    CCA_Q_DIM,
    CCA_KV_DIM,
    CCA_Q_NORM, /* of a head, or of all */
    CCA_K_NORM,
    CCA_ROPE_PAIRS,
    CCA_VOCAB,
} cca_extent;

typedef enum cca_need {
    CCA_ALWAYS,
    CCA_IF_BIAS,
    CCA_IF_HEAD_NORMS,
    CCA_IF_NORMS_BEFORE,
    CCA_IF_NORMS_BEHIND,
    CCA_IF_GATED,
    CCA_IF_UNTIED,
    CCA_IF_DIVISORS,
    CCA_IF_LONGROPE,
} cca_need;

typedef struct cca_tensor {
    const char *name;      /* in GGUF, behind the layer's number */
    const char *hf_name;   /* in Hugging Face's folders, the same; NULL: not there */
    cca_extent rows, cols; /* out × in */
    cca_need need;
    cca_input input;
    bool is_norm; /* of a layer's stream */
    bool adds;    /* its product is added to x */
    bool rotates; /* its rows are those of heads that RoPE turns; of a norm, of one head */
} cca_tensor;

extern const cca_tensor cca_tensors[CCA_N_ROLES];

/* A vector is rows values, with cols 1. */
typedef struct cca_shape {
    int64_t rows, cols;
    bool vector;
} cca_shape;

bool cca_tensor_needed(cca_role role, const cca_config *config);
cca_shape cca_tensor_shape(cca_role role, const cca_config *config);

/* The name in a model file of an architecture; the layer counts for roles of layers only. */
enum { CCA_TENSOR_NAME = 48 };
void cca_tensor_name(char out[CCA_TENSOR_NAME], cca_role role, int64_t layer, const cca_arch *arch);
/* The name that a family gives a tensor, behind "layers.N." where it is one of a layer; NULL where
 * its folders have none. */
const char *cca_tensor_hf_name(cca_role role, const cca_family *family);
/* Some files keep the rows of several tensors in one, in which they follow each other: that of q, k
 * and v, that of gate and up. They do where the first of these has no tensor of its own. */
typedef struct cca_fused {
    const char *name, *hf_name;
    cca_role parts[3];
    int n_parts;
} cca_fused;
/* The one that a role may be a part of; NULL: none. */
const cca_fused *cca_fused_of(cca_role role);
/* The one of which the role is written as a part in files of an architecture; NULL: by itself. */
const cca_fused *cca_fused_written(cca_role role, const cca_arch *arch);
/* Rows before those of a role in it, and all of its rows. */
int64_t cca_fused_rows(int64_t *before, const cca_fused *fused, cca_role role,
                       const cca_config *config);
/* Its name in a model file. */
void cca_fused_name(char out[CCA_TENSOR_NAME], const cca_fused *fused, int64_t layer);

/* Of layers that say whether they have a window of their own: each so many-th has none, all others
 * have; 0: all have. -1 where it is not so. */
int64_t cca_full_step(const bool *windowed, int64_t n_layers);
/* Last tokens that a layer sees as it was trained; 0: all. */
int64_t cca_layer_window(const cca_config *config, int64_t layer);
/* Whether a tensor holds divisors of RoPE, which nothing is multiplied by. */
bool cca_tensor_of_rope(const char *name);
/* Dims of a head that RoPE turns. */
int64_t cca_rope_dims(const cca_config *config);
/* Whether RoPE turns q and k of a layer. */
bool cca_layer_turns(const cca_config *config, int64_t layer);
/* Whether a tensor of a model file is one of a layer. */
bool cca_tensor_of_layer(const char *name);

#endif
