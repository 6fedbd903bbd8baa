/* Hugging Face folders. An input is their files, one after the other, each but the last followed
 * by a line "%%": config.json, generation_config.json, tokenizer_config.json, the index of the
 * weights, model.safetensors. An empty one is left out. */
#include "fuzz.h"

#include "export/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {"config.json", "generation_config.json",
                                    "tokenizer_config.json", "model.safetensors.index.json",
                                    "model.safetensors"};
enum { N_FILES = sizeof names / sizeof *names };

static char folder[64];

static void remove_folder(void) {
    char path[128];
    for (int i = 0; i < N_FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void make_folder(void) {
    snprintf(folder, sizeof folder, "%s/fuzz_hf_XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    fuzz_check(mkdtemp(folder), "no folder");
    atexit(remove_folder);
}

static void put(const char *name, const uint8_t *bytes, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
    if (size == 0) return;
    FILE *file = fopen(path, "wb");
    fuzz_check(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0, "no file");
}

/* The last file is all that is left: it is binary. */
static void put_all(const uint8_t *data, size_t size) {
    for (int i = 0; i < N_FILES; i++) {
        const uint8_t *part = data;
        size_t part_size = size;
        if (i < N_FILES - 1 && !fuzz_part(&part, &part_size, &data, &size)) part_size = 0;
        put(names[i], part, part_size);
    }
}

void fuzz_one(const uint8_t *data, size_t size) {
    const cca_export_options options = {0};
    cca_error err;
    cca_source source = {0};
    if (!folder[0]) make_folder();
    put_all(data, size);
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
