#include "export/source.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cca_status check_config(const cca_config *c, const char *name, cca_error *err) {
    const struct {
        const char *what;
        int64_t value, max;
    } sizes[] = {
        {"dim", c->dim, INT32_MAX},
        {"hidden_dim", c->hidden_dim, INT32_MAX},
        {"n_layers", c->n_layers, CCA_MAX_LAYERS},
        {"n_heads", c->n_heads, INT32_MAX},
        {"n_kv_heads", c->n_kv_heads, INT32_MAX},
        {"head_dim", c->head_dim, INT32_MAX},
        {"vocab_size", c->vocab_size, INT32_MAX},
        {"seq_len", c->seq_len, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i].value >= 1 && sizes[i].value <= sizes[i].max) continue;
        return cca_fail(err, CCA_BAD_MODEL, "%s: %s %lld is not in 1 … %lld", name, sizes[i].what,
                        (long long)sizes[i].value, (long long)sizes[i].max);
    }
    if (c->n_heads % c->n_kv_heads != 0) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: n_heads %lld is no multiple of n_kv_heads %lld",
                        name, (long long)c->n_heads, (long long)c->n_kv_heads);
    }
    if (c->head_dim % 2 != 0) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: head_dim %lld is odd", name,
                        (long long)c->head_dim);
    }
    return CCA_OK;
}

static void add_tensor(cca_source *source, cca_role role, int64_t layer) {
    if (!cca_tensor_needed(role, &source->config)) return;
    cca_source_tensor *t = &source->tensors[source->n_tensors++];
    cca_shape shape = cca_tensor_shape(role, &source->config);
    *t = (cca_source_tensor){.role = role,
                             .layer = layer,
                             .rows = shape.rows,
                             .cols = shape.cols,
                             .vector = shape.vector,
                             .type = CCA_F32};
    cca_tensor_name(t->name, role, layer, source->config.arch);
    if (role < CCA_FIRST_OF_LAYER) t->data = (const uint8_t *)source->divisors[role];
}

cca_status cca_source_layout(cca_source *source, const char *name, cca_error *err) {
    const cca_config *c = &source->config;
    cca_status status = check_config(c, name, err);
    if (status) return status;
    source->tensors = calloc((size_t)(c->n_layers + 1) * CCA_N_ROLES, sizeof *source->tensors);
    if (!source->tensors) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to list it", name);
    for (cca_role role = CCA_ROPE_DIVISORS; role < CCA_FIRST_OF_LAYER; role++) {
        add_tensor(source, role, 0);
    }
    add_tensor(source, CCA_EMBEDDING, 0);
    for (int64_t layer = 0; layer < c->n_layers; layer++) {
        for (cca_role role = CCA_FIRST_OF_LAYER; role < CCA_N_ROLES; role++) {
            add_tensor(source, role, layer);
        }
    }
    add_tensor(source, CCA_OUTPUT_NORM, 0);
    add_tensor(source, CCA_OUTPUT, 0);
    for (int64_t i = 0; i < source->n_tensors; i++) {
        size_t bytes;
        const cca_source_tensor *t = &source->tensors[i];
        if (!cca_source_tensor_bytes(&bytes, t) || bytes > INT64_MAX / CCA_QUANT_BLOCK) {
            return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s' would be %lld × %lld: too large",
                            name, t->name, (long long)t->rows, (long long)t->cols);
        }
    }
    if (!source->read_row) source->read_row = cca_source_read_row;
    return CCA_OK;
}

bool cca_source_row_bytes(size_t *out, const cca_source_tensor *t) {
    return cca_dtype_row_bytes(out, t->type, t->cols);
}

bool cca_source_tensor_bytes(size_t *out, const cca_source_tensor *t) {
    size_t row;
    return cca_source_row_bytes(&row, t) && cca_mul(out, row, (size_t)t->rows);
}

/* Where the output's row stands in the source. */
static int64_t source_row(const cca_source_tensor *t, int64_t row) {
    if (t->paired_heads == 0) return row;
    int64_t head_dim = t->rows / t->paired_heads;
    int64_t head = row / head_dim, in_head = row % head_dim;
    return head * head_dim + in_head % 2 * (head_dim / 2) + in_head / 2;
}

const uint8_t *cca_source_row(const cca_source_tensor *t, int64_t row) {
    size_t bytes = 0;
    if (!t->data) return NULL;
    (void)cca_source_row_bytes(&bytes, t); /* checked at layout */
    return t->data + (size_t)source_row(t, row) * bytes;
}

void cca_source_read_row(float *out, const cca_source *source, const cca_source_tensor *t,
                         int64_t row) {
    enum { STEP = 256 }; /* values, a multiple of every block */
    _Alignas(float) uint8_t aligned[STEP * sizeof(float)];
    size_t step_bytes = 0, rest_bytes = 0;
    (void)source;
    (void)cca_dtype_row_bytes(&step_bytes, t->type, STEP);
    const uint8_t *bytes = cca_source_row(t, row);
    int64_t col = 0;
    for (; col + STEP <= t->cols; col += STEP, bytes += step_bytes) {
        memcpy(aligned, bytes, step_bytes);
        cca_dtype_decode(out + col, t->type, aligned, STEP);
    }
    if (!cca_dtype_row_bytes(&rest_bytes, t->type, t->cols - col)) return;
    memcpy(aligned, bytes, rest_bytes);
    cca_dtype_decode(out + col, t->type, aligned, t->cols - col);
}

void cca_source_close(cca_source *source) {
    if (source->close) source->close(source->owner);
    free(source->name);
    for (int role = 0; role < CCA_FIRST_OF_LAYER; role++) free(source->divisors[role]);
    free(source->text.tokenizer);
    free(source->text.chat_template);
    free(source->text.bos_token);
    free(source->text.eos_token);
    free(source->text.pad_token);
    free(source->text.ends);
    free(source->tensors);
    *source = (cca_source){0};
}

void cca_export_warn(const cca_export_options *options, const char *format, ...) {
    char text[1024];
    if (!options->on_warning) return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    options->on_warning(options->user, text);
}

char *cca_export_base_name(const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/') start--;
    char *name = strndup(path + start, end - start);
    char *dot = name ? strrchr(name, '.') : NULL;
    bool is_ending = dot && (strcmp(dot, ".bin") == 0 || strcmp(dot, ".gguf") == 0);
    if (is_ending && dot != name) *dot = '\0';
    return name;
}
