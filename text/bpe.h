/* BPE: byte-level, as in Llama 3, Qwen2 and SmolLM, or of characters, with bytes for those that are
 * not in the vocabulary.
 *
 *     cca_bpe_vocab vocab = {.tokens = tokens, .n_tokens = n, .merges = merges, ...};
 *     cca_bpe *bpe;
 *     cca_bpe_new(&bpe, &vocab, "model.gguf", &err);
 *     cca_bpe_encode(&ids, bpe, &(cca_bpe_text){.bytes = text, .size = size}, &err);
 *     cca_bpe_free(bpe);
 *
 * A text is normalised and cut into words as the model wants it (bpe_text.h), and the bytes or
 * characters of each word are merged, best pair first. Ids are those of Hugging Face's
 * tokenizers. A cca_bpe is immutable and may be shared by threads. */
#ifndef CCA_BPE_H
#define CCA_BPE_H

#include "base/base.h"
#include "gguf/gguf.h"
#include "text/added_tokens.h"
#include "text/tokens.h"

/* What cca_bpe_new reads; nothing of it is needed afterwards. */
typedef struct cca_bpe_vocab {
    const cca_gguf_string *tokens; /* [n_tokens], in GPT-2's alphabet: one character a byte */
    bool plain;        /* tokens are plain text instead, and those of bytes <0x00> … <0xFF> */
    const bool *apart; /* [n_tokens], NULL: none. Control, user-defined and unused tokens: plain
                        * text, never the outcome of a merge */
    size_t n_tokens;   /* an empty one stands in no text */
    const cca_gguf_string *merges; /* [n_merges], "left right", the best first */
    size_t n_merges;
    cca_gguf_string pre;          /* llama-bpe, qwen2, smollm …: a way with texts that is known */
    const cca_gguf_string *steps; /* [n_steps], another one; NULL: the one that pre names */
    size_t n_steps;
    bool whole_words; /* with steps: a word that is a token is taken as it is */
    int32_t unk;      /* stands for a byte that has no token; -1: such a text is an error */
} cca_bpe_vocab;

typedef struct cca_bpe cca_bpe;

/* name stands in front of the messages. CCA_BAD_MODEL names pre, a step, or the token or merge that
 * is repeated, outside the alphabet or missing in the vocabulary. On failure *out is NULL. */
cca_status cca_bpe_new(cca_bpe **out, const cca_bpe_vocab *vocab, const char *name, cca_error *err);

/* NULL is allowed. */
void cca_bpe_free(cca_bpe *bpe);

typedef struct cca_bpe_text {
    const char *bytes; /* UTF-8, NUL allowed */
    size_t size;
    uint64_t base;                 /* that offsets count from */
    bool inside;                   /* it is not the start of the whole text */
    const cca_added_search *added; /* tokens to look for in the normalised text; NULL: none */
} cca_bpe_text;

/* Appends the ids of a text to *out. Offsets are those of a token's first byte in text; what
 * normalisation changed, a letter with its marks, has the offset of its first byte. A text that is
 * not UTF-8, or has a byte without token: CCA_BAD_TEXT with the offset; one that grows too much:
 * CCA_NO_FIT. Time is n log n for a word of n bytes; memory, apart from *out, at most 32 bytes for
 * each byte of the longest word, and some 50 for each place that normalisation changes. On failure
 * *out is as before. */
cca_status cca_bpe_encode(cca_tokens *out, const cca_bpe *bpe, const cca_bpe_text *text,
                          cca_error *err);

/* What a text becomes before added tokens are looked for; *out is to be freed, or NULL where it
 * stays as it is. */
cca_status cca_bpe_normalize(char **out, size_t *out_size, const cca_bpe *bpe, const char *text,
                             size_t size, cca_error *err);

/* Whether a token's text is in GPT-2's alphabet. */
bool cca_bpe_is_word(cca_gguf_string text);

/* The bytes that a token stands for, of a token apart its text; valid as long as bpe. Not
 * NUL-terminated. Ids out of range give nothing. */
const char *cca_bpe_bytes(size_t *size, const cca_bpe *bpe, int32_t id);

/* The token of a single byte, -1 where the vocabulary has none. */
int32_t cca_bpe_byte_token(const cca_bpe *bpe, uint8_t byte);

#endif
