#include "jinja/space.h"

#include "base/utf8.h"

bool jinja_is_space(uint32_t code) {
    if (code < 0x80) return (code >= 9 && code <= 13) || (code >= 28 && code <= 32);
    return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) ||
           code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool jinja_is_line_end(uint32_t code) {
    return (code >= 10 && code <= 13) || (code >= 28 && code <= 30) || code == 0x85 ||
           code == 0x2028 || code == 0x2029;
}

size_t jinja_char_length(const char *text, size_t size) {
    return (unsigned char)*text < 0x80 ? 1 : jinja_next_char(NULL, text, size);
}

size_t jinja_next_char(uint32_t *code, const char *text, size_t size) {
    size_t length;
    return cca_utf8_next(code, &length, text, size) == CCA_UTF8_WHOLE ? length : 1;
}

size_t jinja_space_at_start(const char *text, size_t size) {
    uint32_t code;
    size_t at = 0, length;
    while (at < size) {
        (void)cca_utf8_next(&code, &length, text + at, size - at);
        if (!jinja_is_space(code)) break;
        at += length;
    }
    return at;
}

size_t jinja_char_before(const char *text, size_t at) {
    size_t begin = at - 1, length;
    for (int back = 0; back < 3 && begin > 0 && cca_utf8_continues(text[begin]); back++) begin--;
    cca_utf8_kind kind = cca_utf8_next(NULL, &length, text + begin, at - begin);
    return kind == CCA_UTF8_WHOLE && begin + length == at ? begin : at - 1;
}

size_t jinja_without_space_at_end(const char *text, size_t size) {
    uint32_t code;
    size_t length;
    while (size > 0) {
        size_t begin = jinja_char_before(text, size);
        (void)cca_utf8_next(&code, &length, text + begin, size - begin);
        if (!jinja_is_space(code)) break;
        size = begin;
    }
    return size;
}
