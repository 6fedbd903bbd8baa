/* What the keys of a model file say about the model.
 *
 *     cca_config config;
 *     if (cca_config_read(&config, file, &err) != CCA_OK) puts(err.text);
 *     printf("%lld layers\n", (long long)config.n_layers); */
#ifndef CCA_CONFIG_H
#define CCA_CONFIG_H

#include "gguf/gguf.h"
#include "layer.h"

/* Reads the configuration alone: needs the keys and the tensors' names, no data. */
cca_status cca_config_read(cca_config *out, const cca_gguf *file, cca_error *err);

/* Where the values of a tensor of a model lie, by themselves or among the rows of another. */
typedef struct cca_tensor_place {
    const cca_gguf_tensor *tensor; /* of the file */
    const void *data;              /* the first row */
} cca_tensor_place;

/* Finds a tensor that the model needs and checks its shape; CCA_BAD_MODEL where it is missing or
 * has another. */
cca_status cca_tensor_find(cca_tensor_place *out, const cca_gguf *file, cca_role role,
                           int64_t layer, const cca_config *config, cca_error *err);

/* RoPE in words: "theta 10000, linear scaling by 4"; of a context of so many positions, or of any
 * where ctx_size is 0. */
void cca_config_describe_rope(char *out, size_t size, const cca_config *config, int64_t ctx_size);

#endif
