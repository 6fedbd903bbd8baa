/* The tensors of one or many safetensors files, by name.
 *
 *     cca_safetensors *set;
 *     cca_safetensors_new(&set, &err);
 *     cca_safetensors_add(set, "model-00001-of-00002.safetensors", &err);
 *     cca_safetensors_add(set, "model-00002-of-00002.safetensors", &err);
 *     cca_safetensors_sort(set, &err);
 *     cca_safetensor *t = cca_safetensors_find(set, "model.norm.weight");
 *     cca_safetensors_free(set);
 *
 * A file is 8 bytes of header length, the header (JSON: name → dtype, shape, data_offsets), and
 * data that the tensors cover without overlaps or gaps; each of this is checked. */
#ifndef CCA_SAFETENSORS_H
#define CCA_SAFETENSORS_H

#include "base/base.h"

typedef struct cca_safetensors cca_safetensors;

enum { CCA_SAFETENSORS_MAX_DIMS = 8 };

typedef struct cca_safetensor {
    const char *name;
    const char *file;  /* path of the file that holds it */
    const char *dtype; /* as written: "BF16" */
    int n_dims;
    int64_t dims[CCA_SAFETENSORS_MAX_DIMS]; /* the last one is contiguous */
    const uint8_t *data;                    /* any alignment; mapped */
    size_t bytes;
    bool used; /* for the caller; false at first */
} cca_safetensor;

cca_status cca_safetensors_new(cca_safetensors **out, cca_error *err);
void cca_safetensors_free(cca_safetensors *set);

/* Maps a file and adds its tensors. CCA_BAD_MODEL names file and tensor. */
cca_status cca_safetensors_add(cca_safetensors *set, const char *path, cca_error *err);

/* After the last file: makes find work; a name that is there twice is an error. */
cca_status cca_safetensors_sort(cca_safetensors *set, cca_error *err);

/* NULL if there is none. */
cca_safetensor *cca_safetensors_find(cca_safetensors *set, const char *name);
/* The same, also under the name that was kept of a tensor with several, as __metadata__ notes it
 * ("model.embed_tokens.weight": "lm_head.weight"). */
cca_safetensor *cca_safetensors_find_shared(cca_safetensors *set, const char *name);

int64_t cca_safetensors_n(const cca_safetensors *set);
cca_safetensor *cca_safetensors_at(cca_safetensors *set, int64_t index);

#endif
