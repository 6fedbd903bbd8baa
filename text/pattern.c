/* Oniguruma's expressions, rewritten for PCRE2, whose Unicode may be older. */
#include "text/pattern.h"

#include "base/available_memory.h"
#include "base/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>

/* ---- classes of characters ---- */

/* What Unicode 15 and 16 added to the general categories. The three that lost a character then, or
 * that are no text (Mn, Mc, C…), are refused as they are. */
static const struct category {
    char name[3];
    const char *added;
} categories[] = {
    {"Lu", "\\x{1c89}\\x{a7cb}\\x{a7cc}\\x{a7da}\\x{a7dc}\\x{10d50}-\\x{10d65}"},
    {"Ll", "\\x{1c8a}\\x{a7cd}\\x{a7db}\\x{10d70}-\\x{10d85}\\x{1df25}-\\x{1df2a}"},
    {"Lt", ""},
    {"Lm", "\\x{10d4e}\\x{10d6f}\\x{16d40}-\\x{16d42}\\x{16d6b}\\x{16d6c}\\x{1e030}-\\x{1e06d}"
           "\\x{1e4eb}"},
    {"Lo", "\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d4d}\\x{10d4f}\\x{10ec2}-\\x{10ec4}\\x{1123f}"
           "\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}"
           "\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}"
           "\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}"
           "\\x{16100}-\\x{1611d}\\x{16d43}-\\x{16d6a}\\x{18cff}\\x{1b132}\\x{1b155}"
           "\\x{1e4d0}-\\x{1e4ea}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}"
           "\\x{31350}-\\x{323af}"},
    {"M", "\\x{897}\\x{cf3}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}"
          "\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113d0}"
          "\\x{113d2}\\x{113e1}\\x{113e2}\\x{11f00}\\x{11f01}\\x{11f03}\\x{11f34}-\\x{11f3a}"
          "\\x{11f3e}-\\x{11f42}\\x{11f5a}\\x{13440}\\x{13447}-\\x{13455}\\x{1611e}-\\x{1612f}"
          "\\x{1e08f}\\x{1e4ec}-\\x{1e4ef}\\x{1e5ee}\\x{1e5ef}"},
    {"Nd", "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"
           "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1e4f0}-\\x{1e4f9}"
           "\\x{1e5f1}-\\x{1e5fa}"},
    {"Nl", ""},
    {"No", "\\x{1d2c0}-\\x{1d2d3}"},
    {"Pc", ""},
    {"Pd", "\\x{10d6e}"},
    {"Ps", ""},
    {"Pe", ""},
    {"Pi", ""},
    {"Pf", ""},
    {"Po", "\\x{1b4e}\\x{1b4f}\\x{1b7f}\\x{113d4}\\x{113d5}\\x{113d7}\\x{113d8}"
           "\\x{11b00}-\\x{11b09}\\x{11be1}\\x{11f43}-\\x{11f4f}\\x{16d6d}-\\x{16d6f}\\x{1e5ff}"},
    {"Sm", "\\x{10d8e}\\x{10d8f}"},
    {"Sc", ""},
    {"Sk", ""},
    {"So", "\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}\\x{31e4}\\x{31e5}\\x{31ef}\\x{1cc00}-\\x{1ccef}"
           "\\x{1cd00}-\\x{1ceb3}\\x{1f6dc}\\x{1f774}-\\x{1f776}\\x{1f77b}-\\x{1f77f}\\x{1f7d9}"
           "\\x{1f8b2}-\\x{1f8bb}\\x{1f8c0}\\x{1f8c1}\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}"
           "\\x{1fa8f}\\x{1faad}-\\x{1faaf}\\x{1fabb}-\\x{1fabf}\\x{1fac6}\\x{1face}\\x{1facf}"
           "\\x{1fada}-\\x{1fadc}\\x{1fadf}\\x{1fae8}\\x{1fae9}\\x{1faf7}\\x{1faf8}"
           "\\x{1fbcb}-\\x{1fbef}"},
    {"Zs", ""},
    {"Zl", ""},
    {"Zp", ""},
};

/* PCRE2's own \s has U+180E in it, which is no white space any more. */
#define SPACE                                                                                      \
    "\\x{9}-\\x{d} \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"          \
    "\\x{205f}\\x{3000}"
/* Letters, marks, digits and connectors are words' to both, these to Oniguruma alone. */
#define MORE_WORD                                                                                  \
    "\\p{Nl}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"          \
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

/* ---- rewriting ---- */

typedef struct rewriter {
    const char *text; /* of the expression, and how far it is read */
    size_t size, at;
    char *out;
    size_t n, capacity;
    bool no_memory;
    const char *refused; /* what is not supported */
} rewriter;

static void put(rewriter *r, const char *bytes, size_t size) {
    if (r->n + size + 1 > r->capacity && !r->no_memory) {
        size_t capacity = 2 * (r->n + size) + 256;
        char *grown = cca_memory_has(capacity) ? realloc(r->out, capacity) : NULL;
        if (grown) {
            r->out = grown;
            r->capacity = capacity;
        }
        r->no_memory = !grown;
    }
    if (r->no_memory || !r->out) return;
    if (size > 0) memcpy(r->out + r->n, bytes, size);
    r->n += size;
}

static void put_text(rewriter *r, const char *text) {
    put(r, text, strlen(text));
}

static void refuse(rewriter *r, const char *what) {
    if (!r->refused) r->refused = what;
}

/* The byte n behind the place that is read, 0 behind the end. */
static char peek(const rewriter *r, size_t n) {
    return n < r->size - r->at ? r->text[r->at + n] : 0;
}

static bool put_category(rewriter *r, const char *name, size_t size) {
    bool known = false;
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++) {
        const struct category *c = &categories[i];
        if (strncmp(c->name, name, size) != 0) continue;
        if (!known) {
            put_text(r, "\\p{");
            put(r, name, size);
            put_text(r, "}");
        }
        put_text(r, c->added);
        known = true;
    }
    return known;
}

/* {NAME} behind \p or \P. */
static void put_property(rewriter *r) {
    const char *name = r->text + r->at + 1, *end = memchr(name, '}', r->size - r->at - 1);
    size_t size = end ? (size_t)(end - name) : 0;
    r->at += size + 2;
    if (size == 3 && memcmp(name, "Han", 3) == 0) {
        put_text(r, "\\p{sc:Han}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}");
    } else if (size == 0 || size > 2 || !put_category(r, name, size)) {
        refuse(r,
               "a property other than Han and general categories (of marks all, of controls none)");
    }
}

/* For use between [ and ]: a class that is written with a backslash and the letter. */
static void put_class(rewriter *r, char letter) {
    switch (letter) {
    case 's': put_text(r, SPACE); return;
    case 'd': (void)put_category(r, "Nd", 2); return;
    case 'w':
        (void)put_category(r, "L", 1);
        (void)put_category(r, "M", 1);
        (void)put_category(r, "Nd", 2);
        put_text(r, "\\p{Pc}" MORE_WORD);
        return;
    default: break;
    }
    if (peek(r, 0) == '{' && peek(r, 1) != '^') {
        put_property(r);
    } else {
        refuse(r, "a property without braces, or one that is not");
    }
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_letter(char c) {
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

static bool is_hex(char c) {
    return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

/* \xHH, \x{H…}, \uHHHH. */
static void put_number(rewriter *r, char letter) {
    size_t n = 0, most = letter == 'x' ? 2 : 4;
    bool braces = letter == 'x' && peek(r, 0) == '{';
    if (braces) {
        r->at++;
        most = 6;
    }
    while (n < most && is_hex(peek(r, n))) n++;
    if (n == 0 || (!braces && n < most) || (braces && peek(r, n) != '}')) {
        refuse(r, "a number of a character that is not \\xHH, \\x{H…} or \\uHHHH");
        return;
    }
    put_text(r, "\\x{");
    put(r, r->text + r->at, n);
    put_text(r, "}");
    r->at += n + braces;
}

/* What follows a backslash and means the same everywhere: a character. */
static void put_escaped(rewriter *r, char c) {
    if (c == 'x' || c == 'u') {
        put_number(r, c);
    } else if (c > 0 && !is_letter(c) && !is_digit(c)) {
        put(r, (char[]){'\\', c}, 2);
    } else if (c != 0 && strchr("nrtfvae", c)) {
        put_text(r, c == 'v' ? "\\x{b}" : (char[]){'\\', c, 0});
    } else {
        refuse(r, "an escape that is not known");
    }
}

static char take_escape(rewriter *r) {
    char c = peek(r, 1);
    r->at += c ? 2 : 1;
    return c;
}

static void put_escape(rewriter *r) {
    char c = take_escape(r);
    if (c != 0 && strchr("sdwpSDWP", c)) {
        put_text(r, c < 'a' ? "[^" : "[");
        put_class(r, (char)(c | 32));
        put_text(r, "]");
    } else if (c == 'b' || c == 'B') {
        put_text(r, "(?:(?<=["), put_class(r, 'w');
        put_text(r, c == 'b' ? "])(?![" : "])(?=["), put_class(r, 'w');
        put_text(r, "])|(?<!["), put_class(r, 'w');
        put_text(r, c == 'b' ? "])(?=[" : "])(?!["), put_class(r, 'w');
        put_text(r, "]))");
    } else if (c == 'A' || c == 'z') {
        put(r, (char[]){'\\', c}, 2);
    } else {
        put_escaped(r, c);
    }
}

static void put_escape_in_set(rewriter *r) {
    char c = take_escape(r);
    if (c != 0 && strchr("sdwp", c)) {
        put_class(r, c);
    } else if (c == 'S') {
        put_text(r, "\\S\\x{180e}");
    } else if (c != 0 && strchr("DWP", c)) {
        refuse(r, "\\D, \\W or \\P in a set");
    } else if (c == 'b') {
        put_text(r, "\\x{8}");
    } else {
        put_escaped(r, c);
    }
}

/* A set in brackets; one within another is part of it. */
static void put_set(rewriter *r) {
    int depth = 1;
    r->at++;
    put_text(r, "[");
    if (peek(r, 0) == '^') {
        put_text(r, "^");
        r->at++;
    }
    if (peek(r, 0) == ']') refuse(r, "a set that begins with ]");
    while (depth > 0 && !r->refused) {
        char c = peek(r, 0);
        if (r->at >= r->size) {
            refuse(r, "a set without end");
        } else if (c == '\\') {
            put_escape_in_set(r);
        } else if (c == '[' && (peek(r, 1) == '^' || peek(r, 1) == ':' || peek(r, 1) == ']')) {
            refuse(r, "[^…] or [:…:] in a set");
        } else if (c == '&' && peek(r, 1) == '&') {
            refuse(r, "&& in a set");
        } else if (c == '[' || c == ']') {
            depth += c == '[' ? 1 : -1;
            r->at++;
        } else {
            put(r, &c, 1);
            r->at++;
        }
    }
    put_text(r, "]");
}

static void put_group(rewriter *r) {
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"};
    size_t size = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t n = strlen(known[i]);
        if (n <= r->size - r->at && memcmp(r->text + r->at, known[i], n) == 0) size = n;
    }
    if (size == 0 && peek(r, 1) != '?' && peek(r, 1) != '*') size = 1;
    if (size == 0) {
        refuse(r, "a group that is not (…, (?:, (?=, (?!, (?<=, (?<!, (?>, (?i: or (?i)");
    }
    put(r, r->text + r->at, size);
    r->at += size;
}

/* {n}, {n,}, {n,m}; a brace that begins none of them is one. */
static void put_repeat(rewriter *r) {
    size_t n = 1, digits;
    while (is_digit(peek(r, n))) n++;
    digits = n - 1;
    if (peek(r, n) == ',') {
        n++;
        while (is_digit(peek(r, n))) n++;
    }
    bool repeats = peek(r, n) == '}' && n > 1;
    if (repeats && (digits == 0 || peek(r, n + 1) == '?' || peek(r, n + 1) == '+')) {
        refuse(r, "{,n}, {…}? or {…}+");
    }
    put_text(r, repeats ? "{" : "\\{");
    r->at++;
}

static void rewrite(rewriter *r) {
    while (r->at < r->size && !r->refused) {
        char c = peek(r, 0);
        switch (c) {
        case '\\': put_escape(r); break;
        case '[': put_set(r); break;
        case '(': put_group(r); break;
        case '{': put_repeat(r); break;
        default: put(r, &c, 1); r->at++;
        }
    }
}

/* ---- compiling ---- */

static cca_status compile(cca_pattern *out, const rewriter *r, const char *name, cca_error *err) {
    int error, size = r->size < 100 ? (int)r->size : 100;
    size_t offset;
    char text[128] = "";
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (context) (void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_code *code = NULL;
    error = PCRE2_ERROR_HEAP_FAILED;
    if (context) {
        code = pcre2_compile((PCRE2_SPTR)r->out, r->n,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &offset, context);
    }
    pcre2_compile_context_free(context);
    if (!code && error == PCRE2_ERROR_HEAP_FAILED) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for a pattern of %zu bytes", name, r->n);
    }
    if (!code) {
        pcre2_get_error_message(error, (PCRE2_UCHAR *)text, sizeof text);
        return cca_fail(err, CCA_BAD_MODEL, "%s: the pattern \"%.*s\": %s", name, size, r->text,
                        text);
    }
    /* Where there is no JIT, or no memory for it, PCRE2 interprets the pattern. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    out->code = code;
    return CCA_OK;
}

cca_status cca_pattern_open(cca_pattern *out, const char *text, size_t size, const char *name,
                            cca_error *err) {
    enum { LONGEST = 1 << 16 };
    rewriter r = {.text = text, .size = size};
    cca_status status;
    out->code = NULL;
    if (size > LONGEST || cca_utf8_valid(text, size) < size) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: a pattern of %zu bytes is too long, or no UTF-8",
                        name, size);
    }
    rewrite(&r);
    put(&r, "", 1);
    r.n -= !r.no_memory;
    if (r.no_memory) {
        status =
            cca_fail(err, CCA_NO_MEMORY, "%s: no memory for a pattern of %zu bytes", name, r.n);
    } else if (r.refused) {
        status =
            cca_fail(err, CCA_BAD_MODEL, "%s: the pattern \"%.*s\" has %s, which is not supported",
                     name, size < 100 ? (int)size : 100, text, r.refused);
    } else {
        status = compile(out, &r, name, err);
    }
    free(r.out);
    return status;
}

void cca_pattern_close(cca_pattern *pattern) {
    pcre2_code_free(pattern->code);
    pattern->code = NULL;
}

/* ---- matching ---- */

struct cca_matcher {
    const pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    pcre2_jit_stack *stack;
    const char *text;
    size_t size, at, last; /* last: end of the match before */
};

cca_matcher *cca_matcher_new(const cca_pattern *pattern) {
    cca_matcher *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->code = pattern->code;
    m->match = pcre2_match_data_create(1, NULL);
    m->limits = pcre2_match_context_create(NULL);
    m->stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)64 << 20, NULL);
    if (!m->match || !m->limits) {
        cca_matcher_free(m);
        return NULL;
    }
    /* Without JIT there may be none. */
    if (m->stack) pcre2_jit_stack_assign(m->limits, NULL, m->stack);
    return m;
}

void cca_matcher_free(cca_matcher *m) {
    if (!m) return;
    pcre2_match_data_free(m->match);
    pcre2_match_context_free(m->limits);
    pcre2_jit_stack_free(m->stack);
    free(m);
}

/* The patterns of models go back over white space only, once or twice; the limits are there so that
 * no other one can run away. */
void cca_matcher_start(cca_matcher *m, const char *text, size_t size) {
    size_t steps = size < UINT32_MAX / 8 - 100000 ? 8 * size + 100000 : UINT32_MAX;
    pcre2_set_match_limit(m->limits, (uint32_t)steps);
    pcre2_set_heap_limit(m->limits, 64 * 1024);
    m->text = text;
    m->size = size;
    m->at = 0;
    m->last = SIZE_MAX;
}

static cca_status match_failure(int code, size_t at, cca_error *err) {
    char text[128] = "";
    if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAPLIMIT) {
        return cca_fail(err, CCA_NO_MEMORY, "no memory for the pattern that cuts the text");
    }
    pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
    return cca_fail(err, CCA_RUNTIME, "the pattern that cuts the text fails at byte %zu: %s", at,
                    text);
}

cca_status cca_matcher_next(bool *found, cca_matcher *m, size_t *begin, size_t *end,
                            cca_error *err) {
    *found = false;
    while (m->at <= m->size) {
        int code = pcre2_match(m->code, (PCRE2_SPTR)m->text, m->size, m->at, PCRE2_NO_UTF_CHECK,
                               m->match, m->limits);
        if (code == PCRE2_ERROR_NOMATCH) break;
        if (code < 0) return match_failure(code, m->at, err);
        size_t *place = pcre2_get_ovector_pointer(m->match);
        if (place[0] < place[1] || place[1] != m->last) {
            *begin = place[0];
            *end = m->at = m->last = place[1];
            *found = true;
            return CCA_OK;
        }
        m->at = m->last + 1;
        while (m->at < m->size && cca_utf8_continues(m->text[m->at])) m->at++;
    }
    m->at = m->size + 1;
    return CCA_OK;
}
