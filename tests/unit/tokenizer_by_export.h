/* Tokenizers of golden files.
 *
 *     cca_tokenizer *tok = test_tokenizer_by_export("tests/golden/chat/llama3.json"); */
#ifndef CCA_TEST_TOKENIZER_BY_EXPORT_H
#define CCA_TEST_TOKENIZER_BY_EXPORT_H

#include "export/model_file.h"
#include "test.h"
#include "tokenizer_golden.h"

#include <unistd.h>

/* Of a SentencePiece model, perhaps gzipped. */
static inline cca_tokenizer *open_spm(const char *path) {
    bytes model = read_needed(path);
    cca_tokenizer *tok;
    cca_error err;
    if (cca_tokenizer_from_sentencepiece(&tok, model.p, model.size, "chat.model", &err) != CCA_OK) {
        fail_msg("%s", err.text);
    }
    free(model.p);
    return tok;
}

/* Of a tokenizer.json of 640 tokens: through the model file that export makes of it. */
static inline cca_tokenizer *test_tokenizer_by_export(const char *json) {
    char path[] = "/tmp/cca-test-tokenizer-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && close(fd) == 0);
    const cca_random_shape shape = {.dim = 32,
                                    .n_layers = 1,
                                    .n_heads = 2,
                                    .n_kv_heads = 2,
                                    .hidden_dim = 32,
                                    .vocab_size = 640};
    const cca_export_options o = {.random = &shape, .output = path, .tokenizer = json};
    cca_gguf *file = NULL;
    cca_tokenizer *tok = NULL;
    cca_error err = {.text = ""};
    if (cca_export(&o, &err) || cca_gguf_open(&file, path, &err) ||
        cca_tokenizer_open(&tok, file, &err)) {
        fail_msg("%s", err.text);
    }
    cca_gguf_close(file);
    assert_int_equal(unlink(path), 0);
    return tok;
}

static inline void write_whole(const char *path, const void *data, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_true(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

/* Of a SentencePiece model in a folder whose configuration is given. */
static inline cca_tokenizer *open_spm_in_folder(const char *model, const char *config) {
    char folder[] = "/tmp/cca-test-tokenizer-XXXXXX", original[64], beside[64];
    assert_non_null(mkdtemp(folder));
    snprintf(original, sizeof original, "%s/tokenizer.model", folder);
    snprintf(beside, sizeof beside, "%s/tokenizer_config.json", folder);
    bytes read = read_needed(model);
    write_whole(original, read.p, read.size);
    write_whole(beside, config, strlen(config));
    free(read.p);
    cca_tokenizer *tok = test_tokenizer_by_export(original);
    assert_true(unlink(original) == 0 && unlink(beside) == 0 && rmdir(folder) == 0);
    return tok;
}

#endif
