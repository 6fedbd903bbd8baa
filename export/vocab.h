/* The vocabulary of a tokenizer file, on its way into a model file.
 *
 *     cca_vocab vocab;
 *     cca_vocab_open(&vocab, "tokenizer.model", &err);     // vocab_read.h
 *     cca_vocab_pad(&vocab, 32064, &err);
 *     cca_vocab_put(writer, &vocab, &source.text);
 *     cca_vocab_close(&vocab); */
#ifndef CCA_VOCAB_H
#define CCA_VOCAB_H

#include "base/mapping.h"
#include "export/gguf_write.h"
#include "export/json.h"
#include "export/source.h"

/* What becomes of added tokens that SentencePiece's kind looks for in normalised texts. */
typedef enum cca_escape {
    CCA_ESCAPE_NONE,
    CCA_ESCAPE_SPACES, /* ▁ for spaces */
    CCA_ESCAPE_PREFIX, /* and one in front of the text */
} cca_escape;

typedef struct cca_vocab {
    const char *path;        /* for messages; borrowed */
    const char *kind;        /* for tokenizer.ggml.model: "llama", or "gpt2" for byte-level BPE */
    const char *pre;         /* for tokenizer.ggml.pre */
    int64_t n, capacity;     /* pieces, and how many there is room for */
    cca_gguf_string *pieces; /* n each, and empty ones up to capacity */
    float *scores;
    int32_t *types;          /* cca_spm_type */
    uint8_t *flags;          /* CCA_ADDED_… of added tokens: how they are looked for */
    cca_gguf_string *merges; /* "left right", of byte-level BPE */
    int64_t n_merges;
    cca_gguf_string *steps; /* the way with texts (text/bpe_text.h) where pre does not name it */
    int64_t n_steps;
    bool ignore_merges;
    bool is_plain;              /* BPE of characters, with bytes for others */
    int32_t bos, eos, unk, pad; /* -1: none */
    bool add_bos;               /* where the source does not say */
    bool dummy_prefix, remove_extra_spaces;
    const char *prefix; /* for cca.tokenizer.prefix; NULL: not told */
    bool is_bpe;
    bool is_sentencepiece; /* the file itself goes into the model file */
    int64_t n_own;         /* pieces that were not added */
    cca_escape escape;
    cca_mapping file;
    json_t *json; /* what the pieces point to where it is not the file, and … */
    char *text;   /* … more of that */
    json_t *kept; /* and more: an array */
    char *padding;
} cca_vocab;

/* Room for n pieces, all of them empty. */
cca_status cca_vocab_alloc(cca_vocab *vocab, int64_t n, cca_error *err);
/* Makes it n pieces, the new ones without text; never fewer. */
cca_status cca_vocab_grow(cca_vocab *vocab, int64_t n, cca_error *err);
void cca_vocab_close(cca_vocab *vocab);

/* Adds unused pieces [PADn] until there are n, and in place of those without text. Where there are
 * more, added ones are dropped, whose ids the model does not have; CCA_BAD_MODEL for others. */
cca_status cca_vocab_pad(cca_vocab *vocab, int64_t n, cca_error *err);

/* The keys tokenizer.* and cca.tokenizer.sentencepiece. What text says about special tokens
 * goes before the vocabulary's own. CCA_BAD_MODEL for ids that do not exist. */
cca_status cca_vocab_put(cca_gguf_writer *w, const cca_vocab *vocab, const cca_source_text *text,
                         cca_error *err);

/* The id of a token by its text, -1 if there is none. */
int32_t cca_vocab_find(const cca_vocab *vocab, const char *text);

#endif
