#include "cli/text_buffer.h"

#include <stdlib.h>
#include <string.h>

bool text_reserve(text_buffer *b, size_t more) {
    size_t needed;
    if (!cca_add(&needed, b->size, more)) return false;
    if (needed <= b->capacity) return true;
    size_t capacity = b->capacity ? b->capacity : 256;
    while (capacity < needed) {
        if (!cca_mul(&capacity, capacity, 2)) return false;
    }
    char *bytes = realloc(b->bytes, capacity);
    if (!bytes) return false;
    b->bytes = bytes;
    b->capacity = capacity;
    return true;
}

bool text_append(text_buffer *b, const char *bytes, size_t size) {
    if (size == 0) return true;
    if (!text_reserve(b, size)) return false;
    memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
    return true;
}

void text_drop(text_buffer *b, size_t size) {
    if (size == 0) return;
    b->size -= size;
    memmove(b->bytes, b->bytes + size, b->size);
}

void text_free(text_buffer *b) {
    free(b->bytes);
    *b = (text_buffer){0};
}

/* Continuation bytes that follow a lead byte, and the range of the first of them; -1 for a byte
 * that leads nothing. */
static int lead(uint8_t byte, uint8_t *low, uint8_t *high) {
    *low = 0x80;
    *high = 0xbf;
    if (byte < 0x80) return 0;
    if (byte < 0xc2 || byte > 0xf4) return -1;
    if (byte == 0xe0) *low = 0xa0;
    if (byte == 0xed) *high = 0x9f;
    if (byte == 0xf0) *low = 0x90;
    if (byte == 0xf4) *high = 0x8f;
    return byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
}

utf8_kind utf8_next(size_t *length, const char *text, size_t size) {
    const uint8_t *s = (const uint8_t *)text;
    uint8_t low, high;
    int more = lead(s[0], &low, &high);
    *length = 1;
    if (more < 0) return UTF8_INVALID;
    for (int i = 0; i < more; i++) {
        if (*length == size) return UTF8_CUT;
        if (s[*length] < low || s[*length] > high) return UTF8_INVALID;
        low = 0x80;
        high = 0xbf;
        ++*length;
    }
    return UTF8_WHOLE;
}

size_t utf8_valid(const char *text, size_t size) {
    size_t at = 0;
    size_t length;
    while (at < size && utf8_next(&length, text + at, size - at) == UTF8_WHOLE) at += length;
    return at;
}

size_t utf8_unfinished(const char *text, size_t size) {
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        size_t length;
        uint8_t byte = (uint8_t)text[size - back];
        if (byte < 0x80) return 0;
        if (byte >= 0xc0)
            return utf8_next(&length, text + size - back, back) == UTF8_CUT ? back : 0;
    }
    return 0;
}

bool utf8_append_clean(text_buffer *out, const char *text, size_t size) {
    while (size > 0) {
        size_t valid = utf8_valid(text, size);
        if (!text_append(out, text, valid)) return false;
        text += valid;
        size -= valid;
        if (size == 0) break;
        size_t bad;
        utf8_next(&bad, text, size);
        if (!text_append(out, "\xef\xbf\xbd", 3)) return false;
        text += bad;
        size -= bad;
    }
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool text_append_unescaped(text_buffer *out, const char *text, size_t size) {
    static const char from[] = "nrt0\\\"'";
    static const char to[] = "\n\r\t\0\\\"'";
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (c == '\\' && i + 1 < size) {
            const char *found = memchr(from, text[i + 1], sizeof from - 1);
            if (found) {
                c = to[found - from];
                i++;
            } else if (text[i + 1] == 'x' && i + 3 < size && hex_digit(text[i + 2]) >= 0 &&
                       hex_digit(text[i + 3]) >= 0) {
                c = (char)(hex_digit(text[i + 2]) * 16 + hex_digit(text[i + 3]));
                i += 3;
            }
        }
        if (!text_append(out, &c, 1)) return false;
    }
    return true;
}
