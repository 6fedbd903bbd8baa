/* Texts under construction, and parts of texts: where provenance is kept.
 *
 *     jinja_builder b = {.run = run};
 *     jinja_put(&b, "<b>", 3);                        // the template's own
 *     jinja_put_part(&b, text, 0, text->size);        // with what is known of it
 *     jinja_value v;
 *     jinja_finish(&v, &b); */
#ifndef CCA_JINJA_TEXT_H
#define CCA_JINJA_TEXT_H

#include "jinja/value.h"

typedef struct jinja_builder {
    struct jinja_run *run;
    char *bytes;
    size_t size, capacity;
    cca_jinja_span *spans;
    size_t n_spans, spans_capacity;
} jinja_builder;

bool jinja_put(jinja_builder *b, const char *bytes, size_t size);
bool jinja_put_words(jinja_builder *b, const char *words); /* NUL-terminated */
/* Bytes from … to - 1 of a text. */
bool jinja_put_part(jinja_builder *b, const jinja_text *text, size_t from, size_t to);
bool jinja_put_text(jinja_builder *b, const jinja_text *text);
/* Bytes that stand for what is at `at` of a text: of its content, where that is of one. */
bool jinja_put_for(jinja_builder *b, const char *bytes, size_t size, const jinja_text *text,
                   size_t at);
bool jinja_finish(jinja_value *out, jinja_builder *b);

/* Bytes from … to - 1 as a text; nothing is copied but spans. */
bool jinja_part(jinja_value *out, struct jinja_run *r, const jinja_text *text, size_t from,
                size_t to);

/* Characters of a text; where character i begins (its size for i beyond them). */
size_t jinja_n_chars(const jinja_text *text);
size_t jinja_char_at(const jinja_text *text, size_t i);

/* The first place of a word from `from` on, and the last that ends by `to`; SIZE_MAX: none. */
size_t jinja_find(const jinja_text *text, size_t from, const jinja_text *word);
size_t jinja_find_last(const jinja_text *text, size_t to, const jinja_text *word);
bool jinja_is(const jinja_text *text, const char *word);

typedef enum jinja_case {
    JINJA_LOWER,
    JINJA_UPPER,
    JINJA_TITLE,
    JINJA_CAPITALIZE,
    JINJA_SWAP
} jinja_case;
bool jinja_recase(jinja_value *out, struct jinja_run *r, const jinja_text *text, jinja_case how);
/* Writes & < > ' " as HTML does. */
bool jinja_escape(jinja_value *out, struct jinja_run *r, const jinja_text *text);
/* Each of at most `most` (-1: all) places of old becomes new. */
bool jinja_replace(jinja_value *out, struct jinja_run *r, const jinja_text *text,
                   const jinja_text *old, const jinja_text *new, int64_t most);

#endif
