/* A template cut into tokens: text as it stands, and the words of its tags.
 *
 *     jinja_lexer lexer = {.text = text, .size = size, .region = &region};
 *     if (!jinja_lex(&lexer)) ... lexer.line, lexer.error ...
 *     ... lexer.tokens[0 … lexer.n - 1], the last of which is JINJA_END ...
 *
 * White space around tags is already gone where the template, or trim_blocks and lstrip_blocks,
 * have it so; comments are gone, raw blocks are text. */
#ifndef CCA_JINJA_LEX_H
#define CCA_JINJA_LEX_H

#include "jinja/region.h"

#include <stdint.h>

typedef enum jinja_token_kind {
    JINJA_END,
    JINJA_DATA,
    JINJA_BLOCK_BEGIN, /* {% */
    JINJA_BLOCK_END,
    JINJA_PRINT_BEGIN, /* {{ */
    JINJA_PRINT_END,
    JINJA_NAME,
    JINJA_STRING, /* its escapes resolved */
    JINJA_INTEGER,
    JINJA_REAL,
    JINJA_OPERATOR,
} jinja_token_kind;

typedef struct jinja_token {
    jinja_token_kind kind;
    int line;
    const char *text; /* not of numbers */
    size_t size;
    union {
        int64_t integer;
        double real;
    };
} jinja_token;

typedef struct jinja_lexer {
    const char *text;
    size_t size;
    jinja_region *region;
    jinja_token *tokens;
    size_t n, capacity;
    int line;          /* under way, or of the failure */
    const char *error; /* NULL: no memory */
    /* of the work */
    size_t at;
    char brackets[100]; /* open ones, by what closes them */
    size_t n_brackets;
    bool starts_line;
} jinja_lexer;

/* text and region outlive the tokens. */
bool jinja_lex(jinja_lexer *l);

#endif
