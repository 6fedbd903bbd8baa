/* The vocabulary of a tokenizer file, on its way into a model file.
 *
 *     cca_vocab vocab;
 *     cca_vocab_open(&vocab, "tokenizer.model", &err);
 *     cca_vocab_pad(&vocab, 32064, &err);
 *     cca_vocab_put(writer, &vocab, &source.text);
 *     cca_vocab_close(&vocab);
 *
 * Two formats are read, told apart by their first bytes: SentencePiece models and the .bin
 * files of llama2.c. */
#ifndef CCA_VOCAB_H
#define CCA_VOCAB_H

#include "export/gguf_write.h"
#include "export/source.h"
#include "mapping.h"
#include "spm.h"

typedef struct cca_vocab {
    const char *path; /* for messages; borrowed */
    int64_t n;
    cca_gguf_string *pieces; /* n each */
    float *scores;
    int32_t *types;             /* cca_spm_type */
    int32_t bos, eos, unk, pad; /* -1: none */
    bool dummy_prefix, remove_extra_spaces;
    bool is_bpe;
    bool is_sentencepiece; /* the file itself goes into the model file */
    cca_mapping file;
    char *text; /* what the pieces point to where it is not the file */
    char *padding;
} cca_vocab;

/* CCA_BAD_MODEL for what is missing or broken. Close it even then. */
cca_status cca_vocab_open(cca_vocab *out, const char *path, cca_error *err);
void cca_vocab_close(cca_vocab *vocab);

/* Adds unused pieces [PADn] until there are n; CCA_BAD_MODEL if there are more already. */
cca_status cca_vocab_pad(cca_vocab *vocab, int64_t n, cca_error *err);

/* The keys tokenizer.* and cca.tokenizer.sentencepiece. What text says about special tokens
 * goes before the vocabulary's own. CCA_BAD_MODEL for ids that do not exist. */
cca_status cca_vocab_put(cca_gguf_writer *w, const cca_vocab *vocab, const cca_source_text *text,
                         cca_error *err);

/* The two formats, for cca_vocab_open: vocab->file is there. */
cca_status cca_vocab_read_sentencepiece(cca_vocab *vocab, cca_error *err);
cca_status cca_vocab_read_llama2c(cca_vocab *vocab, cca_error *err);
cca_status cca_vocab_alloc(cca_vocab *vocab, int64_t n, cca_error *err);

#endif
