/* What may be asked of an export; model_file.h does it. */
#ifndef CCA_EXPORT_OPTIONS_H
#define CCA_EXPORT_OPTIONS_H

#include "backend/dtype.h"
#include "base/base.h"

#include <signal.h>

/* The shape of a model of random weights; the same seed gives the same bytes. */
typedef struct cca_random_shape {
    int64_t dim, n_layers, n_heads, n_kv_heads, hidden_dim, vocab_size;
    uint64_t seed;
} cca_random_shape;

/* A mixture of types (mixture.h). */
typedef struct cca_mixture cca_mixture;
uint32_t cca_mixture_file_type(const cca_mixture *mixture);

typedef struct cca_export_options {
    const char *input; /* folder with config.json, GGUF or llama2.c file; or NULL and … */
    const cca_random_shape *random; /* … a shape */
    const char *patch;              /* of the GGUF file, gguf.h; or NULL */
    const char *output;
    const char *tokenizer; /* SentencePiece model or llama2.c tokenizer; NULL: the input's own */
    const char *chat_template; /* one of chat.h's names; NULL: the input's, if anything */
    bool has_type;             /* false: matrices keep their type */
    cca_dtype type; /* of matrices, one that can be made; norms and biases are always f32 */
    const cca_mixture *mixture; /* of types beside it; or NULL */
    int64_t group_size;         /* 0: what the source says, if anything */
    int64_t window_size;
    int64_t ctx_size; /* trained length to write; 0: the source's (random: 131072) */
    int n_threads;    /* 0: one a processor */

    void *user; /* passed to the two below, each of which may be NULL */
    /* Bytes of tensors written so far and in the end; tensor is the one under way. */
    void (*on_progress)(void *user, uint64_t done, uint64_t total, const char *tensor);
    /* One line about something that the user should know and that is no failure. */
    void (*on_warning)(void *user, const char *text);
    const volatile sig_atomic_t *stop; /* may be NULL; non-zero: CCA_INTERRUPTED soon */
} cca_export_options;

#endif
