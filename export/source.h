/* What export reads from, whatever its format: a configuration, the tensors of the model file
 * that is to be written, and a function that gives their rows as floats.
 *
 *     cca_source source = {0};
 *     cca_source_open_llama2c(&source, "stories15M.bin", &err);
 *     for (int64_t i = 0; i < source.n_tensors; i++)
 *         source.read_row(row, &source, &source.tensors[i], 0);
 *     cca_source_close(&source);
 *
 * A reader of a format fills in config, calls cca_source_layout, which makes the list of
 * tensors that such a model has, and says for each where its values are. */
#ifndef CCA_SOURCE_H
#define CCA_SOURCE_H

#include "backend/dtype.h"
#include "base/mapping.h"
#include "export/options.h"
#include "gguf/gguf.h"
#include "layer.h"

/* A tensor as it will be written: its rows are in the output's order. */
typedef struct cca_source_tensor {
    char name[CCA_TENSOR_NAME]; /* in the model file */
    cca_role role;
    int64_t layer;
    bool vector;          /* n values: held as n rows of one, written with one dimension */
    int64_t rows, cols;   /* out × in */
    cca_dtype type;       /* of data: any that can be decoded */
    const uint8_t *data;  /* rows side by side, of any alignment; NULL: read_row makes them up */
    bool mapped;          /* data lies in a mapped file */
    int64_t paired_heads; /* > 0: the rows of so many heads are half-split in the source and
                             leave it in pairs: 2k, 2k+1 from k, k + head_dim/2 */
} cca_source_tensor;

/* What the source says about text. Ids are -1 where it says nothing. */
typedef struct cca_source_text {
    char *tokenizer;                         /* path of a tokenizer that export reads, or NULL */
    char *chat_template;                     /* Jinja, or NULL */
    const char *chat_name;                   /* one of chat.h's names, or NULL */
    char *bos_token, *eos_token, *pad_token; /* by their texts, or NULL; bos goes before its id */
    int32_t bos, eos;
    int32_t *ends; /* all tokens that end a text, where there are several */
    int64_t n_ends;
    bool says_add_bos; /* else the tokenizer decides */
    bool add_bos;
    bool is_carried; /* the tokenizer is among source->keys */
} cca_source_text;

typedef struct cca_source cca_source;

struct cca_source {
    char *name; /* for general.name */
    cca_config config;
    const cca_family *family;            /* of a Hugging Face folder, else NULL */
    float *divisors[CCA_FIRST_OF_LAYER]; /* of RoPE, by their role, where the model has them */
    bool nested; /* config.json describes the text in text_config, and other parts beside it */
    cca_source_text text;
    cca_source_tensor *tensors;
    int64_t n_tensors;
    uint64_t seed; /* of random weights */
    /* Row of t as t->cols floats; any number of threads may call it. */
    void (*read_row)(float *out, const cca_source *source, const cca_source_tensor *t, int64_t row);
    const cca_gguf *keys; /* a file whose other keys the output gets as well, or NULL */
    void *owner;          /* what the reader keeps open, and how it is closed */
    void (*close)(void *owner);
};

/* Each expects *out to be zeroed, and it is to be closed even after a failure. */
cca_status cca_source_open_folder(cca_source *out, const char *path,
                                  const cca_export_options *options, cca_error *err);
cca_status cca_source_open_llama2c(cca_source *out, const char *path, cca_error *err);
/* patch: a file that takes the place of some of it, or NULL. */
cca_status cca_source_open_gguf(cca_source *out, const char *path, const char *patch,
                                cca_error *err);
cca_status cca_source_open_random(cca_source *out, const cca_random_shape *shape, cca_error *err);
void cca_source_close(cca_source *source);

/* Checks the sizes in source->config (name is for messages) and makes the list of tensors, with
 * everything but data and type; the reader is cca_source_read_row where it has none yet. */
cca_status cca_source_layout(cca_source *source, const char *name, cca_error *err);

/* Number of bytes of a row and of the whole tensor in the source; false on overflow, and where a
 * row is no multiple of its type's blocks. */
bool cca_source_row_bytes(size_t *out, const cca_source_tensor *t);
bool cca_source_tensor_bytes(size_t *out, const cca_source_tensor *t);

/* The bytes of a row; NULL where the source has floats only. */
const uint8_t *cca_source_row(const cca_source_tensor *t, int64_t row);

/* Reads rows of any type that cca_dtype decodes from t->data. */
void cca_source_read_row(float *out, const cca_source *source, const cca_source_tensor *t,
                         int64_t row);

/* Hands a line to the user's on_warning, if there is one. */
void cca_export_warn(const cca_export_options *options, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A copy of the last part of a path, without its ending if there is one; NULL without memory. */
char *cca_export_base_name(const char *path);

#endif
