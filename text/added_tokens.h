/* Tokens that were added to a vocabulary, and are found in a text before the rest of it is encoded.
 *
 *     cca_added_sort(&list);
 *     cca_added_search search = {.list = &list, .asked = true};
 *     cca_found found;
 *     for (size_t from = 0; cca_added_find(&found, &search, text, size, from); from = found.end)
 * ...
 *
 * Of those that begin at one place the longest counts, as in Hugging Face's tokenizers. */
#ifndef CCA_ADDED_TOKENS_H
#define CCA_ADDED_TOKENS_H

#include "base/base.h"

enum {
    CCA_ADDED_CONTROL = 1,     /* only where control tokens count */
    CCA_ADDED_NORMALIZED = 2,  /* looked for in the normalised text, else in the text as it is */
    CCA_ADDED_LSTRIP = 4,      /* takes white space before it along */
    CCA_ADDED_RSTRIP = 8,      /* and behind it */
    CCA_ADDED_SINGLE_WORD = 16 /* not within a word */
};

/* The keys of a model file that list the tokens of a flag. */
typedef struct cca_added_key {
    const char *name;
    uint8_t flag;
} cca_added_key;

enum { CCA_N_ADDED_KEYS = 4 };
extern const cca_added_key cca_added_keys[CCA_N_ADDED_KEYS];

typedef struct cca_added_token {
    const char *text;
    size_t size; /* not 0 */
    int32_t id;
    unsigned flags;
} cca_added_token;

typedef struct cca_added_list {
    cca_added_token *tokens; /* by first byte, the longest first */
    size_t n;
    size_t first[257];   /* of each first byte */
    unsigned n_sorts[4]; /* tokens by CCA_ADDED_CONTROL and _NORMALIZED */
} cca_added_list;

/* Brings tokens and n into order, and counts. */
void cca_added_sort(cca_added_list *list);

typedef struct cca_added_search {
    const cca_added_list *list;
    bool asked;      /* control tokens count */
    bool normalized; /* the text is a normalised one */
    bool led;        /* as if a space stood in front of the text, for tokens that begin with it */
    bool parts_led;  /* and of what follows a token that does not */
} cca_added_search;

/* What was found, with what it takes along. A token that begins in what the one before took along
 * is found all the same: then begin is not behind the end of that one. */
typedef struct cca_found {
    size_t begin, end;
    size_t next; /* where the search goes on */
    int32_t id;
    bool spaced; /* it begins with a space … */
    bool led;    /* … which the text does not have */
} cca_found;

/* The next one, behind *found, which starts as zeroes; false where there is none. The text is
 * UTF-8, or white space and words are not told. */
bool cca_added_find(cca_found *found, const cca_added_search *search, const char *text,
                    size_t size);

#endif
