/* Headers of safetensors files. */
#include "fuzz.h"

#include "export/safetensors.h"

static volatile int sink;

void fuzz_one(const uint8_t *data, size_t size) {
    cca_error err;
    cca_safetensors *set;
    if (cca_safetensors_new(&set, &err) != CCA_OK) return;
    cca_status status = cca_safetensors_add(set, fuzz_file(data, size), &err);
    if (!status) status = cca_safetensors_sort(set, &err);
    for (int64_t i = 0; !status && i < cca_safetensors_n(set); i++) {
        const cca_safetensor *t = cca_safetensors_at(set, i);
        fuzz_check(cca_safetensors_find(set, t->name) == t, "a tensor that is not found");
        if (t->bytes > 0) sink = t->data[0] + t->data[t->bytes - 1];
    }
    cca_safetensors_free(set);
}
