/* Tokens that were added to a vocabulary.
 *
 *     cca_added token;
 *     if (cca_added_read(&token, &reader, entry, 32000)) cca_vocab_add(&vocab, &reader, &token);
 *     cca_vocab_add_beside(&vocab, &err);     // and those that other files of its folder list */
#ifndef CCA_VOCAB_ADDED_H
#define CCA_VOCAB_ADDED_H

#include "export/json.h"
#include "export/vocab.h"

typedef struct cca_added {
    const char *text; /* lives as long as the vocabulary */
    int64_t id;
    bool special;  /* a control token, else found in any text */
    uint8_t flags; /* CCA_ADDED_… */
} cca_added;

/* An entry {"content", "special", "normalized", …}; false where it is refused, by the field's name.
 */
bool cca_added_read(cca_added *out, cca_json_reader *r, const json_t *token, int64_t id);

/* Makes it a token of the vocabulary, which grows where it must: ids between have no text then. One
 * with the id and another text is refused. */
void cca_vocab_add(cca_vocab *vocab, cca_json_reader *r, const cca_added *token);

/* For a tokenizer.model or tokenizer.json: adds what tokenizer.json, tokenizer_config.json
 * (added_tokens_decoder) and added_tokens.json in the same folder list besides. */
cca_status cca_vocab_add_beside(cca_vocab *vocab, cca_error *err);

#endif
