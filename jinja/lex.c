#include "jinja/lex.h"

#include "base/utf8.h"
#include "jinja/space.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool fail(jinja_lexer *l, const char *error) {
    l->error = error;
    return false;
}

static jinja_token *push(jinja_lexer *l, jinja_token_kind kind, const char *text, size_t size) {
    jinja_token *grown = jinja_grow(l->region, l->tokens, l->n, &l->capacity, sizeof *grown);
    if (!grown) return NULL;
    l->tokens = grown;
    l->tokens[l->n] = (jinja_token){.kind = kind, .line = l->line, .text = text, .size = size};
    return &l->tokens[l->n++];
}

static void move_to(jinja_lexer *l, size_t to) {
    for (; l->at < to; l->at++) l->line += l->text[l->at] == '\n';
}

static bool is_at(const jinja_lexer *l, size_t at, const char *word) {
    size_t n = strlen(word);
    return l->size - at >= n && memcmp(l->text + at, word, n) == 0;
}

/* ---- text between tags ----------------------------------------------------------------- */

static bool is_sign(char c) {
    return c == '-' || c == '+';
}

/* The end of the text from l->at to a tag at `to`, which the tag's sign and lstrip_blocks shorten.
 */
static size_t data_end(const jinja_lexer *l, size_t to, char sign, bool is_block) {
    const char *data = l->text + l->at;
    size_t size = to - l->at;
    if (sign == '-') return l->at + jinja_without_space_at_end(data, size);
    if (sign == '+' || !is_block) return to;
    const char *newline = memrchr(data, '\n', size);
    size_t line = newline ? (size_t)(newline - data) + 1 : 0;
    if (line == 0 && !l->starts_line) return to;
    bool blank = line + jinja_space_at_start(data + line, size - line) == size;
    return blank ? l->at + line : to;
}

/* The text from l->at up to a tag, whose sign stands behind its two characters. */
static bool take_data(jinja_lexer *l, size_t to, bool is_block) {
    char sign = to + 2 < l->size && is_sign(l->text[to + 2]) ? l->text[to + 2] : 0;
    size_t end = data_end(l, to, sign, is_block);
    if (end > l->at && !push(l, JINJA_DATA, l->text + l->at, end - l->at)) return false;
    move_to(l, to);
    return true;
}

/* Behind the closing of a tag, which ends at `at`: "-" takes white space along, else one line break
 * goes behind blocks. */
static size_t behind_closing(const jinja_lexer *l, size_t at, char sign, bool is_block) {
    if (sign == '-') return at + jinja_space_at_start(l->text + at, l->size - at);
    return at + (sign != '+' && is_block && at < l->size && l->text[at] == '\n');
}

/* Moves behind what was taken, and notes whether a line begins there. */
static void move_behind(jinja_lexer *l, size_t to) {
    move_to(l, to);
    l->starts_line = to > 0 && l->text[to - 1] == '\n';
}

static size_t find(const jinja_lexer *l, size_t from, const char *word) {
    const char *at = memmem(l->text + from, l->size - from, word, strlen(word));
    return at ? (size_t)(at - l->text) : l->size;
}

static bool take_comment(jinja_lexer *l) {
    size_t begin = l->at + 2;
    begin += begin < l->size && is_sign(l->text[begin]);
    size_t end = find(l, begin, "#}");
    if (end == l->size) return fail(l, "the comment does not end");
    char sign = end > begin && is_sign(l->text[end - 1]) ? l->text[end - 1] : 0;
    move_behind(l, behind_closing(l, end + 2, sign, true));
    return true;
}

/* Whether "{%", a sign, white space, a word, white space, a sign and "%}" stand at `at`; *sign is
 * the second one. */
static bool is_lone_word(const jinja_lexer *l, size_t at, const char *word, size_t *end,
                         char *sign) {
    if (!is_at(l, at, "{%")) return false;
    at += 2;
    if (at < l->size && is_sign(l->text[at])) at++;
    at += jinja_space_at_start(l->text + at, l->size - at);
    if (!is_at(l, at, word)) return false;
    at += strlen(word);
    at += jinja_space_at_start(l->text + at, l->size - at);
    *sign = at < l->size && is_sign(l->text[at]) ? l->text[at] : 0;
    at += *sign != 0;
    *end = at + 2;
    return is_at(l, at, "%}");
}

/* A block whose text is taken as it stands; l->at is behind its opening tag. */
static bool take_raw(jinja_lexer *l) {
    size_t end = 0;
    char sign;
    for (size_t at = l->at; (at = find(l, at, "{%")) < l->size; at++) {
        if (!is_lone_word(l, at, "endraw", &end, &sign)) continue;
        if (!take_data(l, at, true)) return false;
        move_behind(l, behind_closing(l, end, sign, true));
        return true;
    }
    return fail(l, "the raw block does not end");
}

/* ---- inside tags ----------------------------------------------------------------------- */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_name_char(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

static int digit_value(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return 99;
}

/* The end of digits, among which single underscores may stand. */
static size_t digits_end(const jinja_lexer *l, size_t at, int base) {
    while (at < l->size) {
        size_t next = at + (l->text[at] == '_');
        if (next >= l->size || digit_value(l->text[next]) >= base) break;
        at = next + 1;
    }
    return at;
}

/* The end of a number with a fraction or an exponent; its start where there is neither. */
static size_t real_end(const jinja_lexer *l, size_t begin) {
    size_t at = digits_end(l, begin, 10), end = begin;
    if (begin > 0 && l->text[begin - 1] == '.') return begin;
    if (at + 1 < l->size && l->text[at] == '.' && is_digit(l->text[at + 1])) {
        end = at = digits_end(l, at + 1, 10);
    }
    if (at < l->size && (l->text[at] | 0x20) == 'e') {
        at++;
        at += at < l->size && is_sign(l->text[at]);
        if (at < l->size && is_digit(l->text[at])) end = digits_end(l, at, 10);
    }
    return end;
}

static bool take_real(jinja_lexer *l, size_t end) {
    char digits[400];
    size_t n = 0;
    for (size_t at = l->at; at < end && n + 1 < sizeof digits; at++) {
        if (l->text[at] != '_') digits[n++] = l->text[at];
    }
    digits[n] = 0;
    if (n + 1 == sizeof digits) return fail(l, "a number is too long");
    jinja_token *token = push(l, JINJA_REAL, NULL, 0);
    if (!token) return false;
    token->real = strtod(digits, NULL);
    move_to(l, end);
    return true;
}

static bool take_integer(jinja_lexer *l) {
    int base = 10;
    size_t at = l->at;
    char kind = at + 1 < l->size && l->text[at] == '0' ? (char)(l->text[at + 1] | 0x20) : 0;
    if (kind == 'x') base = 16;
    if (kind == 'o') base = 8;
    if (kind == 'b') base = 2;
    if (base != 10) at += 2;
    size_t end = digits_end(l, at, base);
    if (base != 10 && end == at) return fail(l, "a number has no digits");
    int64_t value = 0;
    for (; at < end; at++) {
        if (l->text[at] == '_') continue;
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, digit_value(l->text[at]), &value)) {
            return fail(l, "a number is too large");
        }
    }
    jinja_token *token = push(l, JINJA_INTEGER, NULL, 0);
    if (!token) return false;
    token->integer = value;
    move_to(l, end);
    return true;
}

/* Reads `n` hexadecimal digits, or up to three octal ones (n = 0), as a character. */
static bool take_code(char **out, const char **at, const char *end, int n) {
    uint32_t code = 0;
    int taken = 0, base = n ? 16 : 8, most = n ? n : 3;
    for (; taken < most && *at < end && digit_value(**at) < base; taken++) {
        code = code * (uint32_t)base + (uint32_t)digit_value(*(*at)++);
    }
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    if ((n && taken < n) || surrogate || code > 0x10ffff) return false;
    char bytes[4];
    size_t size = cca_utf8_put(bytes, code);
    memcpy(*out, bytes, size);
    *out += size;
    return true;
}

/* One escape, behind its backslash. What means nothing stays as it stands. */
static bool take_escape(char **out, const char **at, const char *end) {
    static const char names[] = "abfnrtv\\'\"", values[] = "\a\b\f\n\r\t\v\\'\"";
    char c = **at;
    const char *name = c ? strchr(names, c) : NULL;
    if (c >= '0' && c <= '7') return take_code(out, at, end, 0);
    ++*at;
    if (c == '\n') return true;
    if (c == 'x') return take_code(out, at, end, 2);
    if (c == 'u') return take_code(out, at, end, 4);
    if (c == 'U') return take_code(out, at, end, 8);
    if (c == 'N') return false;
    if (!name) *(*out)++ = '\\';
    *(*out)++ = name ? values[name - names] : c;
    return true;
}

static bool take_string(jinja_lexer *l) {
    char quote = l->text[l->at];
    size_t end = l->at + 1;
    while (end < l->size && l->text[end] != quote) end += l->text[end] == '\\' ? 2 : 1;
    if (end >= l->size) return fail(l, "a string does not end");
    const char *at = l->text + l->at + 1, *stop = l->text + end;
    /* No escape is shorter than what it stands for: the shortest, \377, becomes two bytes. */
    char *text = jinja_take(l->region, (size_t)(stop - at) + 1), *out = text;
    if (!text) return false;
    while (at < stop) {
        if (*at != '\\') {
            *out++ = *at++;
        } else if (at++, !take_escape(&out, &at, stop)) {
            return fail(l, "a string has an escape that is no character");
        }
    }
    if (!push(l, JINJA_STRING, text, (size_t)(out - text))) return false;
    move_to(l, end + 1);
    return true;
}

static bool note_bracket(jinja_lexer *l, char c) {
    static const char opening[] = "([{", closing[] = ")]}";
    const char *open = strchr(opening, c);
    if (open) {
        if (l->n_brackets == sizeof l->brackets) return fail(l, "too many brackets are open");
        l->brackets[l->n_brackets++] = closing[open - opening];
    } else if (strchr(closing, c)) {
        if (l->n_brackets == 0) return fail(l, "a bracket closes that was not opened");
        if (l->brackets[--l->n_brackets] != c) return fail(l, "brackets do not match");
    }
    return true;
}

static bool take_operator(jinja_lexer *l) {
    static const char *const pairs[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t n = 1;
    char c = l->text[l->at];
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (is_at(l, l->at, pairs[i])) n = 2;
    }
    if (n == 1 && (!c || !strchr("+-/*%~[](){}<>=.:|,;", c))) {
        return fail(l, "a character that begins no word of the language");
    }
    if (n == 1 && !note_bracket(l, c)) return false;
    if (!push(l, JINJA_OPERATOR, l->text + l->at, n)) return false;
    move_to(l, l->at + n);
    return true;
}

static bool take_word(jinja_lexer *l) {
    char c = l->text[l->at];
    size_t end;
    if (is_digit(c)) {
        end = real_end(l, l->at);
        return end > l->at ? take_real(l, end) : take_integer(l);
    }
    if (is_name_char(c)) {
        for (end = l->at; end < l->size && is_name_char(l->text[end]); end++) continue;
        if (!push(l, JINJA_NAME, l->text + l->at, end - l->at)) return false;
        move_to(l, end);
        return true;
    }
    return c == '\'' || c == '"' ? take_string(l) : take_operator(l);
}

/* Whether the tag ends at l->at; moves behind it. */
static bool take_closing(jinja_lexer *l, bool is_block, bool *closed) {
    size_t at = l->at;
    char sign = is_sign(l->text[at]) ? l->text[at] : 0;
    at += sign != 0;
    bool may_sign = sign != '+' || is_block;
    *closed = l->n_brackets == 0 && may_sign && is_at(l, at, is_block ? "%}" : "}}");
    if (!*closed) return true;
    if (!push(l, is_block ? JINJA_BLOCK_END : JINJA_PRINT_END, l->text + at, 2)) return false;
    move_behind(l, behind_closing(l, at + 2, sign, is_block));
    return true;
}

/* A tag from its opening to its closing. */
static bool take_tag(jinja_lexer *l, bool is_block) {
    bool closed = false;
    int begin = l->line;
    if (!push(l, is_block ? JINJA_BLOCK_BEGIN : JINJA_PRINT_BEGIN, l->text + l->at, 2)) {
        return false;
    }
    move_to(l, l->at + 2);
    if (l->at < l->size && is_sign(l->text[l->at])) move_to(l, l->at + 1);
    l->n_brackets = 0;
    while (!closed) {
        move_to(l, l->at + jinja_space_at_start(l->text + l->at, l->size - l->at));
        if (l->at >= l->size) {
            l->line = begin;
            return fail(l, "the tag does not end");
        }
        if (!take_closing(l, is_block, &closed)) return false;
        if (!closed && !take_word(l)) return false;
    }
    return true;
}

/* ---- all of it ------------------------------------------------------------------------- */

/* Line breaks become \n, and the last one goes. */
static bool normalize(jinja_lexer *l) {
    char *text = jinja_take(l->region, l->size + 1);
    size_t n = 0;
    if (!text) return false;
    for (size_t i = 0; i < l->size; i++) {
        bool carriage = l->text[i] == '\r';
        if (carriage && i + 1 < l->size && l->text[i + 1] == '\n') continue;
        text[n++] = carriage ? '\n' : l->text[i];
    }
    if (n > 0 && text[n - 1] == '\n') n--;
    l->text = text;
    l->size = n;
    return true;
}

/* The first tag from l->at on. */
static size_t find_tag(const jinja_lexer *l) {
    size_t at = l->at;
    while ((at = find(l, at, "{")) < l->size) {
        char next = at + 1 < l->size ? l->text[at + 1] : 0;
        if (next == '%' || next == '{' || next == '#') break;
        at++;
    }
    return at;
}

static bool take_next(jinja_lexer *l, size_t tag) {
    size_t end;
    char sign, kind = l->text[tag + 1];
    if (!take_data(l, tag, kind != '{')) return false;
    if (kind == '#') return take_comment(l);
    if (!is_lone_word(l, tag, "raw", &end, &sign) || sign == '+') return take_tag(l, kind == '%');
    move_behind(l, behind_closing(l, end, sign, false));
    return take_raw(l);
}

bool jinja_lex(jinja_lexer *l) {
    l->line = 1;
    l->starts_line = true;
    if (!normalize(l)) return false;
    while (l->at < l->size) {
        size_t tag = find_tag(l);
        if (tag == l->size) {
            if (!push(l, JINJA_DATA, l->text + l->at, l->size - l->at)) return false;
            break;
        }
        if (!take_next(l, tag)) return false;
    }
    return push(l, JINJA_END, NULL, 0) != NULL;
}
