/* GGUF files as a source of export, quantised rows included. */
#include "fuzz.h"

#include "export/source.h"

#include <stdlib.h>

void fuzz_one(const uint8_t *data, size_t size) {
    cca_error err;
    cca_source source = {0};
    if (cca_source_open_gguf(&source, fuzz_file(data, size), NULL, &err) == CCA_OK) {
        for (int64_t i = 0; i < source.n_tensors; i++) {
            const cca_source_tensor *t = &source.tensors[i];
            float *row = malloc((size_t)t->cols * sizeof *row);
            if (row) source.read_row(row, &source, t, t->rows - 1);
            free(row);
        }
    }
    cca_source_close(&source);
}
