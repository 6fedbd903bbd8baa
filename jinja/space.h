/* White space as Python knows it: what strip() removes, split() splits at and \s matches. */
#ifndef CCA_JINJA_SPACE_H
#define CCA_JINJA_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool jinja_is_space(uint32_t code);
/* Whether a line ends there: what splitlines() splits at. */
bool jinja_is_line_end(uint32_t code);

/* Bytes of white space that a text begins with. */
size_t jinja_space_at_start(const char *text, size_t size);
/* The text's size without the white space that it ends with. */
size_t jinja_without_space_at_end(const char *text, size_t size);

/* Bytes of the first character of a text that has some; 1 for what no character begins with. */
size_t jinja_char_length(const char *text, size_t size);
/* The same, with its code point. */
size_t jinja_next_char(uint32_t *code, const char *text, size_t size);
/* Where the character before `at` begins; at > 0. */
size_t jinja_char_before(const char *text, size_t at);

#endif
