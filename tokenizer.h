/* Text to token ids and back.
 *
 *     cca_tokenizer *tok;
 *     cca_tokenizer_open(&tok, file, &err);               // NULL where the file has none
 *     cca_tokens tokens = {0};
 *     const cca_tokenizer_facts *info = cca_tokenizer_info(tok);
 *     if (info->add_bos) cca_tokens_push(&tokens, info->bos, 0);
 *     cca_tokenizer_encode(&tokens, tok, text, size, CCA_ENCODE_START, &err);
 *     ...
 *     cca_tokens_free(&tokens);
 *     cca_tokenizer_close(tok);
 *
 * A tokenizer is immutable after opening and may be shared by threads. */
#ifndef CCA_TOKENIZER_H
#define CCA_TOKENIZER_H

#include "base/base.h"
#include "gguf/gguf.h"
#include "text/tokens.h"

typedef struct cca_tokenizer cca_tokenizer;

typedef struct cca_tokenizer_facts {
    const char *kind; /* "sentencepiece", or "bpe": BPE of bytes, or of characters */
    int32_t vocab_size;
    int32_t bos, eos, unk, pad; /* -1 where there is none */
    bool add_bos;               /* a text starts with bos */
    bool dummy_prefix;          /* texts get a space in front: cca_tokenizer_leads tells which */
} cca_tokenizer_facts;

typedef enum cca_encode_flags {
    CCA_ENCODE_START = 1,   /* the first text, perhaps behind BOS: gets the dummy prefix, if any */
    CCA_ENCODE_SPECIAL = 2, /* control tokens written out in the text become those tokens */
    CCA_ENCODE_SPACE = 4,   /* as if a space stood before the text; offsets do not count it */
} cca_encode_flags;

/* Reads the tokenizer of a model file, of which nothing is kept: the original SentencePiece
 * bytes where the file has them (cca.tokenizer.sentencepiece), else one rebuilt from the lists
 * tokenizer.ggml.tokens, scores and token_type (kind "llama"). Without types tokens are normal, but
 * those that keys name, and bytes; tokens with well-known names like <|im_end|> are control tokens
 * whatever their type. Tokens that the file lists behind
 * those of the original are part of the vocabulary, too; its ids of special tokens win. Kind "gpt2"
 * is BPE (bpe.h) from tokens, token_type, merges and pre, or cca.tokenizer.steps. *out is NULL and
 * the status CCA_OK where the file says it has none (no_vocab) or has no such keys; CCA_BAD_MODEL
 * names the key. */
cca_status cca_tokenizer_open(cca_tokenizer **out, const cca_gguf *file, cca_error *err);

/* From the bytes of a SentencePiece model, which are not kept; name is for messages. */
cca_status cca_tokenizer_from_sentencepiece(cca_tokenizer **out, const void *model, size_t size,
                                            const char *name, cca_error *err);

void cca_tokenizer_close(cca_tokenizer *tok);

/* Whether a text gets a space in front that is no part of it, were it encoded behind the tokens of
 * before, with the same flags. */
bool cca_tokenizer_leads(const cca_tokenizer *tok, const cca_tokens *before, const char *text,
                         size_t size, unsigned flags);

const cca_tokenizer_facts *cca_tokenizer_info(const cca_tokenizer *tok);

/* Appends the ids of size bytes of valid UTF-8 (NUL allowed) to *out; offsets count from the
 * start of text and never go back: a token's is that of its first byte, and of several byte
 * tokens for one character each has its own. flags: any of cca_encode_flags. Adds no BOS.
 * Control tokens written out in the text stay plain text without CCA_ENCODE_SPECIAL; with it the
 * longest one at a place counts, and BOS at the very start leaves START to what follows; where it
 * is *out's last token already, with START, it is that one. User-defined tokens are found in any
 * text. On failure *out is as before.
 *
 * BPE gives the ids of Hugging Face's tokenizers; START means something to it only where a prefix
 * is for the start of the whole text. Of SentencePiece the ids are those of its library on the
 * whole text. A BPE model still gets long texts in pieces, cut where that cannot change the ids, so
 * that time is linear and memory bounded; texts without such a place (one letter a million times),
 * and unigram models, take some 200 bytes a byte. CCA_BAD_MODEL, CCA_NO_MEMORY, CCA_NO_FIT (256 MB
 * without a place). */
cca_status cca_tokenizer_encode(cca_tokens *out, const cca_tokenizer *tok, const char *text,
                                size_t size, unsigned flags, cca_error *err);

/* The bytes that a token stands for: a byte token gives its byte, a control token nothing, the
 * unknown token " \u2047 " or what the model has for it (both their names with special true), a
 * piece its text with plain spaces. Valid as long as tok. Ids out of range and padding give
 * nothing. */
const char *cca_tokenizer_bytes(size_t *size, const cca_tokenizer *tok, int32_t id, bool special);

/* The piece as it stands in the vocabulary (for listings); NUL-terminated. */
const char *cca_tokenizer_piece(const cca_tokenizer *tok, int32_t id);

bool cca_tokenizer_is_control(const cca_tokenizer *tok, int32_t id);

/* The token of a single byte, -1 where the vocabulary has none. */
int32_t cca_tokenizer_byte_token(const cca_tokenizer *tok, uint8_t byte);

/* Whether generation ends at id: eos, the ends of a turn and a message (eot, eom), what
 * cca.end_token_ids lists, and tokens with well-known names like <|im_end|>. */
bool cca_tokenizer_is_end(const cca_tokenizer *tok, int32_t id);

#endif
