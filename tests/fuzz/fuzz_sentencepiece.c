/* SentencePiece: an input is a text, a line "%%", and the bytes of a model that encodes it. */
#include "fuzz.h"

#include "tokenizer.h"

#include <string.h>

static void encode(const cca_tokenizer *tok, const char *text, size_t size, unsigned flags) {
    cca_error err;
    cca_tokens tokens = {0};
    (void)cca_tokenizer_encode(&tokens, tok, text, size, flags, &err);
    for (size_t i = 0; i < tokens.n; i++) {
        fuzz_check(tokens.ids[i] >= 0 && tokens.ids[i] < cca_tokenizer_info(tok)->vocab_size,
                   "an id outside the vocabulary");
        fuzz_check(tokens.offsets[i] <= size, "an offset outside the text");
    }
    cca_tokens_free(&tokens);
}

/* Longer than what SentencePiece gets at once. */
static void encode_long(const cca_tokenizer *tok, const char *text, size_t size) {
    enum { LONG = 20000 };
    static char repeated[LONG];
    size_t n = 0;
    for (; n + size <= LONG; n += size) memcpy(repeated + n, text, size);
    encode(tok, repeated, n, 0);
}

void fuzz_one(const uint8_t *data, size_t size) {
    const uint8_t *text;
    size_t text_size, n;
    cca_error err;
    cca_tokenizer *tok;
    if (!fuzz_part(&text, &text_size, &data, &size)) return;
    if (cca_tokenizer_from_sentencepiece(&tok, data, size, "input", &err) != CCA_OK) return;
    text_size = fuzz_utf8(text, text_size);
    encode(tok, (const char *)text, text_size, CCA_ENCODE_START);
    encode(tok, (const char *)text, text_size, CCA_ENCODE_SPECIAL);
    if (text_size % 16 == 15) encode_long(tok, (const char *)text, text_size);
    for (int32_t id = -1; id <= cca_tokenizer_info(tok)->vocab_size; id++) {
        (void)cca_tokenizer_bytes(&n, tok, id, true);
        (void)cca_tokenizer_piece(tok, id);
    }
    cca_tokenizer_close(tok);
}
