/* Bytes that grow, UTF-8, escapes.
 *
 *     text_buffer b = {0};
 *     text_append(&b, "abc", 3);          // false without memory
 *     text_free(&b); */
#ifndef CCA_CLI_TEXT_H
#define CCA_CLI_TEXT_H

#include "base/base.h"

/* Not NUL-terminated; NUL is a byte like any other. */
typedef struct text_buffer {
    char *bytes;
    size_t size, capacity;
} text_buffer;

/* Room for more bytes behind size; false without memory. */
bool text_reserve(text_buffer *b, size_t more);
bool text_append(text_buffer *b, const char *bytes, size_t size);
/* Drops the first size bytes. */
void text_drop(text_buffer *b, size_t size);
void text_free(text_buffer *b);

typedef enum utf8_kind {
    UTF8_WHOLE,   /* one character */
    UTF8_INVALID, /* bytes that no character begins with */
    UTF8_CUT,     /* a character that the end of the text cuts off */
} utf8_kind;

/* Looks at the first character of size ≥ 1 bytes: how many bytes it has, or, where it is
 * invalid, the longest part that one replacement character stands for (Unicode 3.9, table 3-7:
 * neither overlong forms nor surrogates nor anything above U+10FFFF). */
utf8_kind utf8_next(size_t *length, const char *text, size_t size);

/* Bytes of the whole characters that text starts with. */
size_t utf8_valid(const char *text, size_t size);

/* Bytes at the end of text that may be the start of a character yet to come: 0 … 3. */
size_t utf8_unfinished(const char *text, size_t size);

/* Appends text with U+FFFD for what is not UTF-8; false without memory. */
bool utf8_append_clean(text_buffer *out, const char *text, size_t size);

/* Appends text with \n \r \t \0 \\ \" \' and \xHH resolved, other escapes as they are; false
 * without memory. */
bool text_append_unescaped(text_buffer *out, const char *text, size_t size);

#endif
