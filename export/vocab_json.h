/* What the two halves of the reader of tokenizer.json share. */
#ifndef CCA_VOCAB_JSON_H
#define CCA_VOCAB_JSON_H

#include "export/json.h"
#include "export/vocab.h"

/* Sets kind, pre, steps and of SentencePiece's kind what happens to spaces, from the normalizer and
 * the pre_tokenizer. A part that is not known is refused with the name of the field. */
void cca_vocab_json_recognise(cca_vocab *vocab, cca_json_reader *r, bool byte_fallback);

/* Sets what happens to spaces as a tokenizer.json has it that stands beside an original model;
 * false where it has it otherwise than SentencePiece's kind knows, or is none. */
bool cca_vocab_json_prefix(cca_vocab *vocab, const json_t *tokenizer);

/* "Split" for {"type": "Split", …}; "" for anything else. */
const char *cca_vocab_json_type(const json_t *part);

#endif
