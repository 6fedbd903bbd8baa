/* Bytes that grow; escapes resolved, damaged UTF-8 made clean.
 *
 *     text_buffer b = {0};
 *     text_append(&b, "abc", 3);          // false without memory
 *     text_free(&b); */
#ifndef CCA_CLI_TEXT_BUFFER_H
#define CCA_CLI_TEXT_BUFFER_H

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
/* Without the white space before and behind it: size bytes, borrowed. */
const char *text_trimmed(size_t *size, const text_buffer *b);

/* Appends text with U+FFFD for what is not UTF-8; false without memory. */
bool utf8_append_clean(text_buffer *out, const char *text, size_t size);

/* Appends text with \n \r \t \0 \\ \" \' and \xHH resolved, other escapes as they are; false
 * without memory. */
bool text_append_unescaped(text_buffer *out, const char *text, size_t size);

#endif
