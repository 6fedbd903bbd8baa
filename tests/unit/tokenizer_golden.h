/* What the tests of the tokenizer share: golden.txt, and comparison with the ids that make.py
 * wrote beside it. */
#ifndef TEST_TOKENIZER_GOLDEN_H
#define TEST_TOKENIZER_GOLDEN_H

#include "base/hash.h"
#include "base/utf8.h"
#include "text/spm.h"
#include "tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#define GOLDEN "tests/golden/tokenizer/"
#define SHARED "../shared/data/"

/* ---- files and texts ---- */

typedef struct bytes {
    char *p;
    size_t size;
} bytes;

/* A file, gzipped or not, with a NUL behind it; p is NULL where there is none. */
static inline bytes read_file(const char *path) {
    bytes out = {0};
    gzFile file = gzopen(path, "rb");
    if (!file) return out;
    for (int n = 1; n > 0;) {
        enum { STEP = 1 << 16 };
        out.p = realloc(out.p, out.size + STEP + 1);
        if (!out.p) abort();
        n = gzread(file, out.p + out.size, STEP);
        if (n > 0) out.size += (size_t)n;
    }
    gzclose(file);
    out.p[out.size] = 0;
    return out;
}

static inline bytes read_needed(const char *path) {
    bytes out = read_file(path);
    if (!out.p) fail_msg("cannot read %s", path);
    return out;
}

static inline bytes read_model_file(const char *name, const char *type) {
    char path[100];
    (void)snprintf(path, sizeof path, GOLDEN "%s.%s", name, type);
    return read_needed(path);
}

static inline bytes unescape(const char *line, size_t size) {
    static const char names[] = "nrt0s\\#", values[] = "\n\r\t\0 \\#";
    bytes out = {malloc(size + 1), 0};
    if (!out.p) abort();
    for (size_t i = 0; i < size; i++) {
        if (line[i] != '\\') {
            out.p[out.size++] = line[i];
        } else if (line[++i] == 'u') {
            char *end;
            out.size += cca_utf8_put(out.p + out.size, (uint32_t)strtoul(line + i + 2, &end, 16));
            i = (size_t)(end - line);
        } else {
            const char *name = strchr(names, line[i]);
            assert_true(name && *name);
            out.p[out.size++] = values[name - names];
        }
    }
    return out;
}

enum { MAX_TEXTS = 400 };
typedef struct golden {
    bytes texts[MAX_TEXTS];
    size_t n;
    bytes whole, large;
} golden;

static inline void append(bytes *out, const char *p, size_t size) {
    out->p = realloc(out->p, out->size + size + 1);
    if (!out->p) abort();
    if (size > 0) memcpy(out->p + out->size, p, size);
    out->size += size;
}

/* As in make.py. */
static inline void join_texts(golden *g) {
    static const char *const joins[] = {"\n", " ", "", "\n\n", "  "};
    for (size_t i = 0; i < g->n; i++) {
        if (i > 0) append(&g->whole, "\n", 1);
        append(&g->whole, g->texts[i].p, g->texts[i].size);
    }
    for (uint64_t x = 20240229; g->n > 0 && g->large.size < 300000;) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        const bytes *text = &g->texts[(x >> 33) % g->n];
        const char *join = joins[(x >> 20) % 5];
        append(&g->large, text->p, text->size);
        append(&g->large, join, strlen(join));
    }
}

static inline int read_golden(void **state) {
    static golden read;
    golden *g = &read;
    bytes file = read_file(GOLDEN "golden.txt");
    if (!file.p) return -1;
    for (char *line = file.p, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        if (!end || g->n == MAX_TEXTS) return -1;
        if (end > line && *line != '#') g->texts[g->n++] = unescape(line, (size_t)(end - line));
    }
    free(file.p);
    if (g->n == 0) return -1;
    join_texts(g);
    *state = g;
    return 0;
}

static inline int free_golden(void **state) {
    golden *g = *state;
    for (size_t i = 0; i < g->n; i++) free(g->texts[i].p);
    free(g->whole.p);
    free(g->large.p);
    return 0;
}

/* ---- comparing ---- */

static inline cca_tokenizer *open_model(bytes model) {
    cca_tokenizer *tok;
    cca_error err = {.text = ""};
    if (cca_tokenizer_from_sentencepiece(&tok, model.p, model.size, "test", &err) != CCA_OK) {
        fail_msg("%s", err.text);
    }
    return tok;
}

static inline cca_tokens encode(const cca_tokenizer *tok, const char *text, size_t size,
                                unsigned flags) {
    cca_tokens tokens = {0};
    cca_error err = {.text = ""};
    if (cca_tokenizer_encode(&tokens, tok, text, size, flags, &err) != CCA_OK) {
        fail_msg("%s", err.text);
    }
    return tokens;
}

/* Compares with a line of ids in decimal; returns the next line. */
static inline char *check_line(const cca_tokenizer *tok, bytes text, unsigned flags, char *line) {
    cca_tokens tokens = encode(tok, text.p, text.size, flags);
    for (size_t i = 0; i < tokens.n; i++) {
        char *end;
        long id = strtol(line, &end, 10);
        if (*line == '\n' || id != tokens.ids[i]) {
            fail_msg("id %zu of %zu is %d, not %ld: %.*s", i, tokens.n, tokens.ids[i], id,
                     (int)text.size, text.p);
        }
        line = end;
    }
    assert_int_equal(*line, '\n');
    cca_tokens_free(&tokens);
    return line + 1;
}

/* The same with a line of the text's name, its size, the number of ids, and their hash. */
static inline char *check_hash(const cca_tokenizer *tok, bytes text, unsigned flags, char *line) {
    cca_tokens tokens = encode(tok, text.p, text.size, flags);
    char expected[100];
    size_t name = strcspn(line, " ");
    int n = snprintf(expected, sizeof expected, " %zu %zu %016llx\n", text.size, tokens.n,
                     (unsigned long long)cca_hash(tokens.ids, tokens.n * sizeof *tokens.ids));
    if (strncmp(line + name, expected, (size_t)n) != 0) {
        fail_msg("name, size, number and hash of the ids:%sbut expected %.60s", expected, line);
    }
    cca_tokens_free(&tokens);
    return line + name + n;
}

/* A unigram model adds up floats over the whole text, and over a long one the rounding settles
 * ties in a way of its own in each version of the library: nothing to compare with. */
static inline void check_ids(const golden *g, const cca_tokenizer *tok, const char *name) {
    bool large = strcmp(name, "unigram") != 0;
    bytes file = read_model_file(name, "ids");
    char *line = file.p;
    while (*line == '#') line = strchr(line, '\n') + 1;
    for (size_t i = 0; i < g->n; i++) line = check_line(tok, g->texts[i], CCA_ENCODE_START, line);
    for (size_t i = 0; i < g->n; i++) line = check_line(tok, g->texts[i], 0, line);
    line = check_hash(tok, g->whole, CCA_ENCODE_START, line);
    line = check_hash(tok, g->whole, 0, line);
    if (large) line = check_hash(tok, g->large, CCA_ENCODE_START, line);
    if (large) line = check_hash(tok, g->large, 0, line);
    assert_int_equal(*line, 0);
    free(file.p);
}

static inline void check_bytes(const cca_tokenizer *tok, int32_t id, bool special,
                               const char *expected) {
    size_t size;
    const char *p = cca_tokenizer_bytes(&size, tok, id, special);
    assert_int_equal(size, strlen(expected));
    assert_memory_equal(p, expected, size);
}

/* Pieces and offsets, as "piece@offset piece@offset". */
static inline void check_pieces(const cca_tokenizer *tok, const char *text, unsigned flags,
                                const char *expected) {
    cca_tokens tokens = encode(tok, text, strlen(text), flags);
    char found[1000] = "";
    for (size_t i = 0, n = 0; i < tokens.n && n < 900; i++) {
        n += (size_t)snprintf(found + n, sizeof found - n, "%s%s@%llu", i ? " " : "",
                              cca_tokenizer_piece(tok, tokens.ids[i]),
                              (unsigned long long)tokens.offsets[i]);
    }
    assert_string_equal(found, expected);
    cca_tokens_free(&tokens);
}

#endif
