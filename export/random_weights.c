/* Random weights for benchmarks and tests: each value is a function of seed, tensor, row and
 * column alone, so neither threads nor the order of reading change anything. */
#include "base/random.h"
#include "export/source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Long enough for every benchmark: nothing is trained, so there is no length to protect. */
enum { RANDOM_SEQ_LEN = 131072 };

/* The sum of two 16-bit numbers has a triangular distribution; mean 0 and deviation 1. */
static float triangle(uint32_t bits) {
    const float deviation = 26754.7f; /* 65536 / sqrt(6) */
    return ((float)((bits & 0xffff) + (bits >> 16)) - 65535.0f) / deviation;
}

/* A number of the tensor's own, which new roles leave as it is. */
static uint64_t number_of(const cca_source_tensor *t) {
    enum { STEP = 16, FIRST = 4 }; /* of a layer */
    uint64_t role = t->role;
    if (t->role >= CCA_FIRST_OF_LAYER) role = role - CCA_FIRST_OF_LAYER + FIRST;
    return (role / STEP << 32) + (uint64_t)t->layer * STEP + role % STEP;
}

/* Norms are close to 1, embeddings have deviation 1, and a matrix keeps the deviation of what
 * it is multiplied with: so scores and logits have deviations near 1, too. */
static void random_row(float *out, const cca_source *source, const cca_source_tensor *t,
                       int64_t row) {
    if (cca_tensor_of_rope(t->name)) {
        cca_source_read_row(out, source, t, row);
        return;
    }
    uint64_t of_tensor = cca_random_at(cca_random_at(source->seed, 1), number_of(t));
    uint64_t start = cca_random_at(of_tensor, (uint64_t)row);
    float mean = t->vector ? 1 : 0;
    float deviation = t->vector                  ? 0.05f
                      : t->role == CCA_EMBEDDING ? 1.0f
                                                 : 1 / sqrtf((float)t->cols);
    for (int64_t i = 0; i < t->cols; i += 2) {
        uint64_t bits = cca_random_at(start, (uint64_t)(i / 2 + 1));
        out[i] = mean + deviation * triangle((uint32_t)bits);
        if (i + 1 < t->cols) out[i + 1] = mean + deviation * triangle((uint32_t)(bits >> 32));
    }
}

cca_status cca_source_open_random(cca_source *out, const cca_random_shape *shape, cca_error *err) {
    if (shape->n_heads < 1 || shape->dim % shape->n_heads != 0) {
        return cca_fail(err, CCA_USAGE, "random model: dim %lld is no multiple of %lld heads",
                        (long long)shape->dim, (long long)shape->n_heads);
    }
    out->config = (cca_config){
        .arch = &cca_archs[CCA_ARCH_LLAMA],
        .dim = shape->dim,
        .hidden_dim = shape->hidden_dim,
        .n_layers = shape->n_layers,
        .n_heads = shape->n_heads,
        .n_kv_heads = shape->n_kv_heads,
        .head_dim = shape->dim / shape->n_heads,
        .vocab_size = shape->vocab_size,
        .seq_len = RANDOM_SEQ_LEN,
        .norm_eps = 1e-5f,
        .rope_theta = 10000,
        .rope_factor = 1,
    };
    out->text = (cca_source_text){.bos = -1, .eos = -1, .add_bos = true};
    out->seed = shape->seed;
    out->read_row = random_row;
    char name[64];
    snprintf(name, sizeof name, "random weights, seed %llu", (unsigned long long)shape->seed);
    out->name = strdup(name);
    if (!out->name) return cca_fail(err, CCA_NO_MEMORY, "random model: no memory");
    cca_status status = cca_source_layout(out, "random model", err);
    for (int64_t i = 0; i < out->n_tensors; i++) {
        if (!out->tensors[i].vector) out->tensors[i].type = CCA_F16;
    }
    return status == CCA_BAD_MODEL ? CCA_USAGE : status;
}
