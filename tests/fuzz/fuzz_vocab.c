/* Vocabularies on their way into a model file, in each format that export reads. */
#include "fuzz.h"

#include "export/vocab_read.h"

static volatile int sink;

void fuzz_one(const uint8_t *data, size_t size) {
    cca_error err;
    cca_vocab vocab;
    cca_status status = cca_vocab_open(&vocab, fuzz_file(data, size), &err);
    if (!status) status = cca_vocab_pad(&vocab, vocab.n + 3, &err);
    for (int64_t i = 0; !status && i < vocab.n; i++) {
        if (vocab.pieces[i].size > 0) {
            sink = (unsigned char)vocab.pieces[i].bytes[vocab.pieces[i].size - 1];
        }
    }
    cca_vocab_close(&vocab);
}
