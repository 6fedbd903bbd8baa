/* Hugging Face folders. An input is their files, one after the other, each but the last followed
 * by a line "%%", in the order of `names`. An empty one is left out. */
#include "fuzz.h"

#include "export/source.h"

#include <stdlib.h>

static const char *const names[] = {"config.json",           "generation_config.json",
                                    "tokenizer_config.json", "model.safetensors.index.json",
                                    "chat_template.jinja",   "model.safetensors"};

void fuzz_one(const uint8_t *data, size_t size) {
    const cca_export_options options = {0};
    cca_error err;
    cca_source source = {0};
    const char *folder = fuzz_folder(names, sizeof names / sizeof *names, data, size);
    if (cca_source_open_folder(&source, folder, &options, &err) == CCA_OK) {
        for (int64_t i = 0; i < source.n_tensors; i++) {
            const cca_source_tensor *t = &source.tensors[i];
            float *row = malloc((size_t)t->cols * sizeof *row);
            if (row) source.read_row(row, &source, t, t->rows - 1);
            free(row);
        }
    }
    cca_source_close(&source);
}
