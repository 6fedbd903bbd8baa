/* Reading a vocabulary, of three formats told apart by their first bytes: SentencePiece models, the
 * .bin files of llama2.c, and the tokenizer.json of Hugging Face with byte-level BPE or
 * SentencePiece's.
 *
 *     cca_vocab vocab;
 *     cca_status status = cca_vocab_open(&vocab, "tokenizer.model", &err);
 *     ...
 *     cca_vocab_close(&vocab); */
#ifndef CCA_VOCAB_READ_H
#define CCA_VOCAB_READ_H

#include "export/vocab.h"

/* CCA_BAD_MODEL for what is missing or broken. Close it even then. */
cca_status cca_vocab_open(cca_vocab *out, const char *path, cca_error *err);

/* The formats, for cca_vocab_open: vocab->file is there. */
cca_status cca_vocab_read_sentencepiece(cca_vocab *vocab, cca_error *err);
cca_status cca_vocab_read_llama2c(cca_vocab *vocab, cca_error *err);
cca_status cca_vocab_read_json(cca_vocab *vocab, cca_error *err);

#endif
