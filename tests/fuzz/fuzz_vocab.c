/* Vocabularies on their way into a model file, in each format that export reads, and the files
 * beside them: an input is their bytes in the order of `names`, with lines "%%" between them. What
 * is behind all of them is the vocabulary; else the first one is. */
#include "fuzz.h"

#include "export/vocab_read.h"

#include <stdio.h>
#include <unistd.h>

static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "added_tokens.json",
                                    "special_tokens_map.json", "tokenizer.model"};
enum { N_FILES = sizeof names / sizeof *names };

static volatile int sink;

void fuzz_one(const uint8_t *data, size_t size) {
    char path[128];
    cca_error err;
    cca_vocab vocab;
    const char *folder = fuzz_folder(names, N_FILES, data, size);
    snprintf(path, sizeof path, "%s/%s", folder, names[N_FILES - 1]);
    if (access(path, F_OK) != 0) snprintf(path, sizeof path, "%s/%s", folder, names[0]);
    cca_status status = cca_vocab_open(&vocab, path, &err);
    if (!status) status = cca_vocab_pad(&vocab, vocab.n + 3, &err);
    for (int64_t i = 0; !status && i < vocab.n; i++) {
        if (vocab.pieces[i].size > 0) {
            sink = (unsigned char)vocab.pieces[i].bytes[vocab.pieces[i].size - 1];
        }
    }
    cca_vocab_close(&vocab);
}
