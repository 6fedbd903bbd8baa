/* UTF-8: characters of texts that may be damaged or cut anywhere.
 *
 *     uint32_t code;
 *     for (size_t at = 0, length; at < size; at += length) {
 *         if (cca_utf8_next(&code, &length, text + at, size - at) != CCA_UTF8_WHOLE) ...
 *     }
 *
 * Valid is what Unicode's table 3-7 lists: neither overlong forms nor surrogates nor anything
 * above U+10FFFF. NUL is a character like any other. */
#ifndef CCA_UTF8_H
#define CCA_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CCA_UTF8_REPLACEMENT = 0xfffd };

typedef enum cca_utf8_kind {
    CCA_UTF8_WHOLE,   /* one character */
    CCA_UTF8_INVALID, /* bytes that no character begins with */
    CCA_UTF8_CUT,     /* a character that the end of the text cuts off */
} cca_utf8_kind;

/* Looks at the first character of size ≥ 1 bytes: its code point, and how many bytes it has. Where
 * it is not whole, code is U+FFFD and length the longest part that one such character stands for.
 * code may be NULL. */
cca_utf8_kind cca_utf8_next(uint32_t *code, size_t *length, const char *text, size_t size);

/* Bytes of the whole characters that text starts with. */
size_t cca_utf8_valid(const char *text, size_t size);

/* Bytes at the end of text that may be the start of a character yet to come: 0 … 3. */
size_t cca_utf8_unfinished(const char *text, size_t size);

/* Whether a byte goes on with a character that a byte before it began. */
static inline bool cca_utf8_continues(char byte) {
    return ((unsigned char)byte & 0xc0) == 0x80;
}

/* Makes text of a stranger fit for a terminal: control characters, those that turn the direction
 * of writing among them, become \x1b or \u202e, what is no UTF-8 U+FFFD. With lines true \n and \t
 * stay. out has room for 4 * size + 1 bytes; returns how many were written, without the NUL. */
size_t cca_utf8_printable(char *out, const char *text, size_t size, bool lines);

/* Writes a code point, returns its number of bytes: 1 … 4. */
size_t cca_utf8_put(char out[4], uint32_t code);

#endif
