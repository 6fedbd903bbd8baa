/* What happens to a text before byte-level BPE merges bytes (bpe.h). Texts are valid UTF-8. */
#ifndef CCA_BPE_TEXT_H
#define CCA_BPE_TEXT_H

#include "base/base.h"
#include "gguf/gguf.h"

/* ---- words: bpe_split.c ---- */

/* How the models named by tokenizer.ggml.pre treat a text. */
typedef struct cca_splitter {
    void *code;       /* the compiled pattern */
    bool nfc;         /* the text is brought to NFC first */
    bool whole_words; /* a word that is a token is not merged, but taken as it is */
} cca_splitter;

/* pre is the value of tokenizer.ggml.pre; an unknown one is CCA_BAD_MODEL. */
cca_status cca_splitter_open(cca_splitter *out, cca_gguf_string pre, const char *name,
                             cca_error *err);
void cca_splitter_close(cca_splitter *splitter);

/* Takes the word text[from … end). */
typedef cca_status cca_word_taker(void *context, size_t from, size_t end, cca_error *err);

/* Gives all words of a text to take, in order and without gaps; ends with take's first
 * failure. */
cca_status cca_splitter_run(const cca_splitter *splitter, const char *text, size_t size,
                            cca_word_taker *take, void *context, cca_error *err);

/* ---- normalisation: bpe_nfc.c ---- */

/* A text in NFC, and where it came from. */
typedef struct cca_nfc {
    char *text; /* NULL: the source is in NFC already, and that is all that is known */
    size_t size, capacity;
    struct cca_nfc_span *spans;
    size_t n_spans, spans_capacity;
} cca_nfc;

cca_status cca_nfc_make(cca_nfc *out, const char *source, size_t size, cca_error *err);
void cca_nfc_free(cca_nfc *nfc);

/* The offset in the source of the normalised text's byte at. *hint starts as 0 and makes calls
 * with growing at fast. */
size_t cca_nfc_offset(const cca_nfc *nfc, size_t at, size_t *hint);

#endif
