#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

/* Bytes that follow a lead byte, and the range of the first of them; -1 for a byte that leads
 * nothing. */
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

cca_utf8_kind cca_utf8_next(uint32_t *code, size_t *length, const char *text, size_t size) {
    static const uint8_t own_bits[] = {0x7f, 0x1f, 0x0f, 0x07};
    const uint8_t *s = (const uint8_t *)text;
    uint8_t low, high;
    int more = lead(s[0], &low, &high);
    *length = 1;
    if (code) *code = CCA_UTF8_REPLACEMENT;
    if (more < 0) return CCA_UTF8_INVALID;
    uint32_t c = s[0] & own_bits[more];
    for (int i = 0; i < more; i++) {
        if (*length == size) return CCA_UTF8_CUT;
        if (s[*length] < low || s[*length] > high) return CCA_UTF8_INVALID;
        c = c << 6 | (s[*length] & 0x3f);
        low = 0x80;
        high = 0xbf;
        ++*length;
    }
    if (code) *code = c;
    return CCA_UTF8_WHOLE;
}

size_t cca_utf8_valid(const char *text, size_t size) {
    size_t at = 0, length = 1;
    for (; at < size; at += length) {
        if ((uint8_t)text[at] < 0x80) {
            length = 1;
        } else if (cca_utf8_next(NULL, &length, text + at, size - at) != CCA_UTF8_WHOLE) {
            break;
        }
    }
    return at;
}

size_t cca_utf8_unfinished(const char *text, size_t size) {
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        const char *last = text + size - back;
        size_t length;
        if (cca_utf8_continues(*last)) continue;
        return cca_utf8_next(NULL, &length, last, back) == CCA_UTF8_CUT ? back : 0;
    }
    return 0;
}

/* Of C0, C1, and those that mark, turn or isolate a direction of writing. */
static bool is_control(uint32_t c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || (c >= 0x200e && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

size_t cca_utf8_printable(char *out, const char *text, size_t size, bool lines) {
    size_t n = 0;
    for (size_t at = 0, length; at < size; at += length) {
        uint32_t c;
        cca_utf8_kind kind = cca_utf8_next(&c, &length, text + at, size - at);
        bool stays = lines && (c == '\n' || c == '\t');
        if (is_control(c) && !stays) {
            n += (size_t)sprintf(out + n, c < 0x100 ? "\\x%02x" : "\\u%04x", (unsigned)c);
        } else if (kind == CCA_UTF8_WHOLE) {
            memcpy(out + n, text + at, length);
            n += length;
        } else {
            n += cca_utf8_put(out + n, c);
        }
    }
    out[n] = '\0';
    return n;
}

size_t cca_utf8_put(char out[4], uint32_t code) {
    static const uint8_t leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(leads[n] | code);
    return n;
}
