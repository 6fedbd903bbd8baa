#include "cli/text_buffer.h"

#include "base/available_memory.h"
#include "base/utf8.h"

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
    if (!cca_memory_has(capacity - b->capacity)) return false;
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

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

const char *text_trimmed(size_t *size, const text_buffer *b) {
    size_t from = 0, end = b->size;
    while (from < end && is_space(b->bytes[from])) from++;
    while (end > from && is_space(b->bytes[end - 1])) end--;
    *size = end - from;
    return b->bytes ? b->bytes + from : "";
}

bool utf8_append_clean(text_buffer *out, const char *text, size_t size) {
    while (size > 0) {
        size_t valid = cca_utf8_valid(text, size);
        if (!text_append(out, text, valid)) return false;
        text += valid;
        size -= valid;
        if (size == 0) break;
        size_t bad;
        cca_utf8_next(NULL, &bad, text, size);
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
