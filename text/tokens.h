/* A growing list of token ids, each with the offset of its first byte in the text it came from.
 *
 *     cca_tokens tokens = {0};
 *     if (!cca_tokens_push(&tokens, id, offset)) ...       // no memory
 *     ... tokens.ids[0 … tokens.n - 1], tokens.offsets ...
 *     cca_tokens_free(&tokens);                            // and it may be used again
 *
 * Every tokenizer appends to one. */
#ifndef CCA_TOKENS_H
#define CCA_TOKENS_H

#include "base/base.h"

typedef struct cca_tokens {
    int32_t *ids;
    uint64_t *offsets;
    size_t n, capacity;
} cca_tokens;

/* Appends one id; false without memory, then the list is as before. */
bool cca_tokens_push(cca_tokens *tokens, int32_t id, uint64_t offset);
void cca_tokens_free(cca_tokens *tokens);

#endif
