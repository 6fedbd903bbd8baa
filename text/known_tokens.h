/* Well-known tokens. Many fine-tunes list them as user-defined or normal ones: they are control
 * tokens all the same, as llama.cpp has it, but those whose names are found in ordinary texts, too.
 *
 *     const cca_known_token *known = cca_known_token_find("<|im_end|>", 10);
 *     if (known && known->ends) ...                        // stop there */
#ifndef CCA_KNOWN_TOKENS_H
#define CCA_KNOWN_TOKENS_H

#include "base/base.h"

enum { CCA_N_KNOWN_TOKENS = 22 };

typedef struct cca_known_token {
    const char *name;
    bool ends;   /* a text, a turn or a message */
    bool always; /* a control token whatever type the file gives it */
    int number;  /* 0 … CCA_N_KNOWN_TOKENS - 1 */
} cca_known_token;

/* NULL for any other text. */
const cca_known_token *cca_known_token_find(const char *text, size_t size);

#endif
