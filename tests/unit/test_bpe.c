/* Byte-level BPE against Hugging Face's tokenizers (tests/golden/bpe/make.py), its offsets, and
 * what it refuses. */
#include "base/utf8.h"
#include "test.h"

#include "text/bpe.h"

#define GOLDEN "tests/golden/bpe/"

enum { MAX_TOKENS = 1000, MAX_MERGES = 1000 };

/* ---- golden files ---- */

typedef struct golden {
    char *text; /* text.txt, and the golden text of the other tokenizers */
    size_t text_size;
    uint8_t *file, *at, *end; /* NAME.bin, how far it is read */
    cca_gguf_string tokens[MAX_TOKENS], merges[MAX_MERGES];
    bool apart[MAX_TOKENS];
    cca_bpe *bpe;
} golden;

static void *read_file(size_t *size, const char *path) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *size = (size_t)ftell(file);
    rewind(file);
    void *bytes = malloc(*size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    assert_int_equal(fclose(file), 0);
    return bytes;
}

static uint32_t number(golden *g, int bytes) {
    uint32_t value = 0;
    assert_true(g->end - g->at >= bytes);
    for (int i = 0; i < bytes; i++) value |= (uint32_t)*g->at++ << 8 * i;
    return value;
}

static cca_gguf_string string(golden *g) {
    size_t size = number(g, 2);
    assert_true((size_t)(g->end - g->at) >= size);
    cca_gguf_string s = {(const char *)g->at, size};
    g->at += size;
    return s;
}

static cca_gguf_string literal(const char *text) {
    return (cca_gguf_string){text, strlen(text)};
}

/* Everything up to the texts. */
static golden *open_golden(const char *path, const char *pre) {
    golden *g = calloc(1, sizeof *g);
    assert_non_null(g);
    size_t size;
    char *more = read_file(&size, "tests/golden/tokenizer/golden.txt");
    g->text = read_file(&g->text_size, GOLDEN "text.txt");
    g->text = realloc(g->text, g->text_size + size);
    assert_non_null(g->text);
    memcpy(g->text + g->text_size, more, size);
    g->text_size += size;
    free(more);
    g->file = g->at = read_file(&size, path);
    g->end = g->file + size;
    cca_bpe_vocab v = {.tokens = g->tokens, .apart = g->apart, .merges = g->merges, .unk = -1};
    v.pre = literal(pre);
    v.n_tokens = number(g, 4);
    assert_in_range(v.n_tokens, 1, MAX_TOKENS);
    for (size_t i = 0; i < v.n_tokens; i++) {
        g->apart[i] = number(g, 1) > 0;
        g->tokens[i] = string(g);
    }
    v.n_merges = number(g, 4);
    assert_in_range(v.n_merges, 1, MAX_MERGES);
    for (size_t i = 0; i < v.n_merges; i++) g->merges[i] = string(g);
    cca_error err = {.text = ""};
    if (cca_bpe_new(&g->bpe, &v, path, &err) != CCA_OK) fail_msg("%s", err.text);
    return g;
}

static void close_golden(golden *g) {
    cca_bpe_free(g->bpe);
    free(g->text);
    free(g->file);
    free(g);
}

static void encode(cca_tokens *out, const cca_bpe *bpe, const char *text, size_t size) {
    cca_error err = {.text = ""};
    out->n = 0;
    if (cca_bpe_encode(out, bpe, &(cca_bpe_text){text, size, 0, false, NULL}, &err) != CCA_OK) {
        fail_msg("%s", err.text);
    }
}

/* The bytes of all tokens, to be freed by the caller. */
static char *decode(size_t *size, const cca_bpe *bpe, const cca_tokens *tokens) {
    size_t part;
    *size = 0;
    for (size_t i = 0; i < tokens->n; i++) {
        cca_bpe_bytes(&part, bpe, tokens->ids[i]);
        *size += part;
    }
    char *text = malloc(*size + 1), *at = text;
    assert_non_null(text);
    for (size_t i = 0; i < tokens->n; i++) {
        const char *bytes = cca_bpe_bytes(&part, bpe, tokens->ids[i]);
        memcpy(at, bytes, part);
        at += part;
    }
    return text;
}

static size_t character_at(const char *text, size_t at) {
    while (at > 0 && cca_utf8_continues(text[at])) at--;
    return at;
}

/* Where marks change, the library says where each came from; here they are at the first one, or
 * at their letter. */
static bool is_offset(const char *text, size_t offset, size_t expected, bool nfc) {
    size_t at = character_at(text, offset);
    if (at == expected) return true;
    bool marks = nfc && at < expected;
    while (marks && ++at <= expected) {
        uint8_t byte = (uint8_t)text[at];
        marks = byte >= 0xcc || cca_utf8_continues(text[at]);
    }
    return marks;
}

/* The next text of the file: its ids, offsets and the way back. */
static void check_text(golden *g, const char *what, bool nfc) {
    size_t from = number(g, 4), size = number(g, 4), n = number(g, 4), back_size;
    assert_true(from + size <= g->text_size);
    const char *text = g->text + from;
    cca_tokens tokens = {.n = 0}, again = {.n = 0};
    encode(&tokens, g->bpe, text, size);
    for (size_t i = 0; i < n; i++) {
        int32_t id = (int32_t)number(g, 2);
        if (i >= tokens.n || tokens.ids[i] != id) {
            fail_msg("%s, byte %zu: token %zu is %d, not %d", what, from, i,
                     i < tokens.n ? tokens.ids[i] : -1, id);
        }
    }
    assert_int_equal(tokens.n, n);
    for (size_t i = 0; i < n; i++) {
        size_t offset = number(g, 2);
        if (!is_offset(text, tokens.offsets[i], offset, nfc)) {
            fail_msg("%s, byte %zu: token %zu is at %llu, not in the character at %zu", what, from,
                     i, (unsigned long long)tokens.offsets[i], offset);
        }
    }
    char *back = decode(&back_size, g->bpe, &tokens);
    if (nfc) {
        encode(&again, g->bpe, back, back_size);
        assert_int_equal(again.n, tokens.n);
        assert_memory_equal(again.ids, tokens.ids, n * sizeof *tokens.ids);
    } else {
        assert_int_equal(back_size, size);
        assert_memory_equal(back, text, size);
    }
    free(back);
    cca_tokens_free(&tokens);
    cca_tokens_free(&again);
}

static void check_golden(const char *path, const char *pre, bool nfc) {
    golden *g = open_golden(path, pre);
    uint32_t n = number(g, 4);
    assert_true(n > 200);
    for (uint32_t i = 0; i < n; i++) check_text(g, pre, nfc);
    assert_ptr_equal(g->at, g->end);
    close_golden(g);
}

static void test_golden(void **state) {
    (void)state;
    const char *llama3[] = {"llama3", "llama-v3", "llama-bpe", "falcon3"};
    for (int i = 0; i < 4; i++) check_golden(GOLDEN "llama3.bin", llama3[i], false);
    check_golden(GOLDEN "qwen2.bin", "qwen2", true);
    check_golden(GOLDEN "qwen2.bin", "deepseek-r1-qwen", true);
    check_golden(GOLDEN "smollm.bin", "smollm", false);
}

/* ---- small vocabularies ---- */

enum { SMALL_TOKENS = 400, SMALL_MERGES = 200, SMALL_TEXT = 64 };

/* All bytes, token i for byte i, and what a test adds. */
typedef struct small {
    char alphabet[256][4], token_texts[SMALL_TOKENS][SMALL_TEXT],
        merge_texts[SMALL_MERGES][SMALL_TEXT];
    cca_gguf_string tokens[SMALL_TOKENS], merges[SMALL_MERGES];
    bool apart[SMALL_TOKENS];
    cca_bpe_vocab vocab;
} small;

static small *small_new(const char *pre) {
    small *s = calloc(1, sizeof *s);
    assert_non_null(s);
    for (unsigned byte = 0, others = 0; byte < 256; byte++) {
        bool itself = byte > 32 && byte < 256 && byte != 173 && (byte < 127 || byte > 160);
        unsigned point = itself ? byte : 256 + others++;
        (void)cca_utf8_put(s->alphabet[byte], point);
        s->tokens[byte] = literal(s->alphabet[byte]);
    }
    s->vocab = (cca_bpe_vocab){.tokens = s->tokens, .n_tokens = 256, .merges = s->merges};
    s->vocab.apart = s->apart;
    s->vocab.pre = literal(pre);
    s->vocab.unk = -1;
    return s;
}

static int32_t add_token(small *s, const char *text) {
    size_t i = s->vocab.n_tokens++;
    assert_true(i < SMALL_TOKENS && strlen(text) < SMALL_TEXT);
    memcpy(s->token_texts[i], text, strlen(text) + 1);
    s->tokens[i] = literal(s->token_texts[i]);
    return (int32_t)i;
}

static void add_merge(small *s, const char *text) {
    size_t i = s->vocab.n_merges++;
    assert_true(i < SMALL_MERGES && strlen(text) < SMALL_TEXT);
    memcpy(s->merge_texts[i], text, strlen(text) + 1);
    s->merges[i] = literal(s->merge_texts[i]);
}

static cca_bpe *open_small(small *s) {
    cca_bpe *bpe;
    cca_error err = {.text = ""};
    if (cca_bpe_new(&bpe, &s->vocab, "small", &err) != CCA_OK) fail_msg("%s", err.text);
    return bpe;
}

static void check_ids(const cca_bpe *bpe, const char *text, size_t size, const int32_t *ids,
                      size_t n) {
    cca_tokens tokens = {.n = 0};
    encode(&tokens, bpe, text, size);
    assert_int_equal(tokens.n, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(tokens.ids[i], ids[i]);
    cca_tokens_free(&tokens);
}

static void test_bytes(void **state) {
    (void)state;
    small *s = small_new("llama3");
    s->apart[add_token(s, "<|é|>")] = true;
    s->apart[add_token(s, "")] = true;
    s->apart[add_token(s, "a")] = true; /* stands in nobody's way */
    cca_bpe *bpe = open_small(s);
    size_t size;
    for (int i = 0; i < 256; i++) {
        assert_int_equal(cca_bpe_byte_token(bpe, (uint8_t)i), i);
        assert_int_equal((uint8_t)*cca_bpe_bytes(&size, bpe, i), i);
        assert_int_equal(size, 1);
    }
    assert_memory_equal(cca_bpe_bytes(&size, bpe, 256), "<|é|>", 6);
    assert_int_equal(size, 6);
    int32_t nothing[] = {257, 259, -1, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 5; i++) {
        cca_bpe_bytes(&size, bpe, nothing[i]);
        assert_int_equal(size, 0);
    }
    check_ids(bpe, "a\0<|\xc3\xa9|>", 8, (int32_t[]){'a', 0, '<', '|', 0xc3, 0xa9, '|', '>'}, 8);
    check_ids(bpe, "", 0, NULL, 0);
    cca_bpe_free(bpe);
    cca_bpe_free(NULL);
    free(s);
}

/* A list of merges, and random words of it against the plain definition: as long as there is a
 * pair with a merge, merge the leftmost of those with the best. */
static size_t merge_plainly(int32_t *ids, size_t n, const int32_t (*merges)[3], size_t n_merges) {
    for (size_t rank = 0; rank < n_merges; rank++) {
        for (size_t i = 0; i + 1 < n; i++) {
            if (ids[i] == merges[rank][0] && ids[i + 1] == merges[rank][1]) {
                ids[i] = merges[rank][2];
                memmove(ids + i + 1, ids + i + 2, (n - i - 2) * sizeof *ids);
                n--;
                rank = SIZE_MAX; /* from the best one again */
                break;
            }
        }
    }
    return n;
}

/* A merge of two random tokens of the letters a, b and c, unless it is too long or known. */
static void add_random_merge(small *s, int32_t (*merges)[3], uint64_t *random) {
    int32_t pair[2], result = 0;
    char both[2 * SMALL_TEXT], text[2 * SMALL_TEXT];
    for (int i = 0; i < 2; i++) {
        uint64_t k = cca_random_next(random) % (s->vocab.n_tokens - 256 + 3);
        pair[i] = k < 3 ? 'a' + (int32_t)k : 256 + (int32_t)k - 3;
    }
    const char *left = s->tokens[pair[0]].bytes, *right = s->tokens[pair[1]].bytes;
    if (snprintf(both, sizeof both, "%s%s", left, right) > 12) return;
    for (size_t i = 0; i < s->vocab.n_merges; i++) {
        if (merges[i][0] == pair[0] && merges[i][1] == pair[1]) return;
    }
    for (size_t i = 256; i < s->vocab.n_tokens; i++) {
        if (strcmp(s->tokens[i].bytes, both) == 0) result = (int32_t)i;
    }
    if (result == 0) result = add_token(s, both);
    memcpy(merges[s->vocab.n_merges], (int32_t[]){pair[0], pair[1], result}, sizeof *merges);
    snprintf(text, sizeof text, "%s %s", left, right);
    add_merge(s, text);
}

static void test_merges(void **state) {
    (void)state;
    uint64_t random = 1;
    for (int round = 0; round < 30; round++) {
        small *s = small_new("qwen2");
        int32_t merges[SMALL_MERGES][3] = {{0}};
        for (int i = 0; i < 40; i++) add_random_merge(s, merges, &random);
        cca_bpe *bpe = open_small(s);
        for (int word = 0; word < 100; word++) {
            char text[80];
            int32_t ids[80];
            size_t n = 1 + cca_random_next(&random) % 80;
            for (size_t i = 0; i < n; i++) {
                ids[i] = 'a' + (int32_t)(cca_random_next(&random) % 3);
                text[i] = (char)ids[i];
            }
            size_t left = merge_plainly(ids, n, (const int32_t(*)[3])merges, s->vocab.n_merges);
            check_ids(bpe, text, n, ids, left);
        }
        cca_bpe_free(bpe);
        free(s);
    }
}

static void test_whole_words(void **state) {
    (void)state;
    const char *pre[] = {"llama3", "qwen2", "smollm"};
    for (int i = 0; i < 3; i++) {
        small *s = small_new(pre[i]);
        int32_t word = add_token(s, "\xc4\xa0word"), control = add_token(s, "abc");
        s->apart[control] = true;
        cca_bpe *bpe = open_small(s);
        if (i == 0) {
            check_ids(bpe, " word", 5, &word, 1);
        } else {
            check_ids(bpe, " word", 5, (int32_t[]){' ', 'w', 'o', 'r', 'd'}, 5);
        }
        check_ids(bpe, "abc", 3, (int32_t[]){'a', 'b', 'c'}, 3);
        cca_bpe_free(bpe);
        free(s);
    }
}

/* Offsets in texts that NFC changes, and counted from a base; what was in *out stays. */
static void test_offsets(void **state) {
    (void)state;
    small *s = small_new("qwen2");
    cca_bpe *bpe = open_small(s);
    cca_tokens tokens = {.n = 0};
    assert_true(cca_tokens_push(&tokens, 7, 7));
    /* xéy, q with two marks in the wrong order, Å from the Ångström sign, 가 from its letters */
    const char *text = "xe\xcc\x81y q\xcc\x87\xcc\xa3z \xe2\x84\xab \xe1\x84\x80\xe1\x85\xa1!";
    assert_int_equal(
        cca_bpe_encode(&tokens, bpe, &(cca_bpe_text){text, strlen(text), 1000, false, NULL}, NULL),
        CCA_OK);
    const uint8_t bytes[] = "\7x\xc3\xa9y q\xcc\xa3\xcc\x87z \xc3\x85 \xea\xb0\x80!";
    uint64_t offsets[] = {7, 0, 1, 1, 4, 5, 6, 7, 7, 7, 7, 11, 12, 13, 13, 16, 17, 17, 17, 23};
    assert_int_equal(tokens.n, sizeof bytes - 1);
    for (size_t i = 0; i < tokens.n; i++) {
        assert_int_equal(tokens.ids[i], bytes[i]);
        assert_int_equal(tokens.offsets[i], offsets[i] + (i > 0 ? 1000 : 0));
    }
    tokens.n = 0;
    text = "\xea\xb0\x80\xe1\x86\xa7"; /* a final consonant that is none: stays behind 가 */
    encode(&tokens, bpe, text, 6);
    assert_int_equal(tokens.n, 6);
    for (size_t i = 0; i < 6; i++) assert_int_equal(tokens.ids[i], (uint8_t)text[i]);
    cca_tokens_free(&tokens);
    cca_bpe_free(bpe);
    free(s);
}

/* What a pattern puts behind a text is at its last byte. */
static void test_offsets_behind(void **state) {
    (void)state;
    small *s = small_new("");
    cca_gguf_string steps[] = {literal("replace $"), literal("with xy")};
    s->vocab.steps = steps;
    s->vocab.n_steps = 2;
    cca_bpe *bpe = open_small(s);
    cca_tokens tokens = {.n = 0};
    const int32_t ids[] = {'a', 'x', 'y', '\n', 0xc3, 0xa9, 'x', 'y'};
    const uint64_t offsets[] = {0, 1, 1, 1, 2, 3, 3, 3};
    encode(&tokens, bpe, "a\n\xc3\xa9", 4);
    assert_int_equal(tokens.n, 8);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(tokens.ids[i], ids[i]);
        assert_int_equal(tokens.offsets[i], offsets[i]);
    }
    check_ids(bpe, "", 0, NULL, 0);
    cca_tokens_free(&tokens);
    cca_bpe_free(bpe);
    free(s);
}

/* A file cannot make a small text a large one. */
static void test_texts_that_grow(void **state) {
    (void)state;
    small *s = small_new("");
    cca_gguf_string steps[] = {literal("replace a*"), literal("with bbbbbbbbbbbb"),
                               literal("replace b*?"), literal("with bbbbbbbbbbbb")};
    s->vocab.steps = steps;
    cca_tokens tokens = {.n = 0};
    char text[1000];
    memset(text, 'c', sizeof text);
    for (s->vocab.n_steps = 2; s->vocab.n_steps <= 4; s->vocab.n_steps += 2) {
        cca_bpe *bpe = open_small(s);
        cca_error err = {.text = ""};
        cca_bpe_text whole = {text, sizeof text, 0, false, NULL};
        cca_status status = cca_bpe_encode(&tokens, bpe, &whole, &err);
        bool grows = s->vocab.n_steps == 4;
        assert_int_equal(status, grows ? CCA_NO_FIT : CCA_OK);
        if (grows) {
            assert_string_equal(err.text, "the tokenizer makes more than 20096 bytes of a text");
        }
        if (!grows) assert_int_equal(tokens.n, 13 * sizeof text + 12);
        cca_bpe_free(bpe);
    }
    cca_tokens_free(&tokens);
    free(s);
}

static void check_bad_text(const cca_bpe *bpe, const char *text, size_t size, const char *named) {
    cca_tokens tokens = {.n = 0};
    cca_error err = {.text = ""};
    assert_true(cca_tokens_push(&tokens, 1, 2));
    assert_int_equal(
        cca_bpe_encode(&tokens, bpe, &(cca_bpe_text){text, size, 100, false, NULL}, &err),
        CCA_BAD_TEXT);
    assert_int_equal(tokens.n, 1);
    if (!strstr(err.text, named)) fail_msg("\"%s\" does not name %s", err.text, named);
    assert_int_equal(
        cca_bpe_encode(&tokens, bpe, &(cca_bpe_text){text, size, 100, false, NULL}, NULL),
        CCA_BAD_TEXT);
    cca_tokens_free(&tokens);
}

static void test_bad_texts(void **state) {
    (void)state;
    const char *bad[] = {"ab\x80",
                         "ab\xc3",
                         "ab\xc0\x80",
                         "ab\xed\xa0\x80",
                         "ab\xe2\x82",
                         "ab\xe0\x80\x80",
                         "ab\xf4\x90\x80\x80",
                         "ab\xff",
                         "ab\xf0\x9f\x98",
                         "ab\xc3\x28",
                         "ab\xf8\x88\x80\x80\x80"};
    const char *pre[] = {"llama3", "qwen2", "smollm"};
    for (int i = 0; i < 3; i++) {
        small *s = small_new(pre[i]);
        cca_bpe *bpe = open_small(s);
        for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
            check_bad_text(bpe, bad[k], strlen(bad[k]), "offset 102");
        }
        cca_bpe_free(bpe);
        free(s);
    }
}

static void test_missing_byte(void **state) {
    (void)state;
    small *s = small_new("smollm");
    s->apart[0xa9] = true;
    cca_bpe *bpe = open_small(s);
    assert_int_equal(cca_bpe_byte_token(bpe, 0xa9), -1);
    check_bad_text(bpe, "abc \xc3\xa9", 6, "0xA9");
    check_bad_text(bpe, "abc \xc3\xa9", 6, "offset 105");
    cca_bpe_free(bpe);
    s->vocab.unk = 3;
    bpe = open_small(s);
    check_ids(bpe, "\xc3\xa9\xc3\xa9x", 5, (int32_t[]){0xc3, 3, 0xc3, 3, 'x'}, 5);
    cca_bpe_free(bpe);
    free(s);
}

/* Words of megabytes, in time that does not grow with their square. */
static void test_long_words(void **state) {
    (void)state;
    enum { N = 3 << 20 };
    small *s = small_new("qwen2");
    int32_t a2 = add_token(s, "aa"), a4 = add_token(s, "aaaa");
    int32_t blanks = add_token(s, "\xc4\xa0\xc4\xa0");
    add_merge(s, "a a");
    add_merge(s, "aa aa");
    add_merge(s, "\xc4\xa0 \xc4\xa0");
    cca_bpe *bpe = open_small(s);
    cca_tokens tokens = {.n = 0};
    char *text = malloc(N);
    assert_non_null(text);
    memset(text, 'a', N);
    encode(&tokens, bpe, text, N - 1);
    assert_int_equal(tokens.n, N / 4 + 1);
    for (size_t i = 0; i < N / 4 - 1; i++) assert_int_equal(tokens.ids[i], a4);
    assert_int_equal(tokens.ids[N / 4 - 1], a2);
    assert_int_equal(tokens.ids[N / 4], 'a');
    memset(text, ' ', N);
    text[N - 1] = 'x'; /* takes the last blank: N - 2 are left */
    encode(&tokens, bpe, text, N);
    assert_int_equal(tokens.n, (N - 2) / 2 + 2);
    assert_int_equal(tokens.ids[0], blanks);
    assert_int_equal(tokens.offsets[tokens.n - 1], N - 1);
    for (size_t i = 0; i < N; i++) text[i] = "\xcc\x81\xcc\xa3"[i % 4]; /* above, below */
    text[0] = 'q', text[1] = 'q';
    encode(&tokens, bpe, text, N);
    assert_int_equal(tokens.n, N);
    for (size_t i = 2; i < N / 2; i += 2) assert_int_equal(tokens.ids[i + 1], 0xa3);
    for (size_t i = N / 2 + 2; i < N; i += 2) assert_int_equal(tokens.ids[i + 1], 0x81);
    cca_tokens_free(&tokens);
    cca_bpe_free(bpe);
    free(text);
    free(s);
}

static void test_empty_tokens(void **state) {
    (void)state;
    small *s = small_new("llama3");
    add_token(s, "");
    int32_t ab = add_token(s, "ab");
    add_token(s, "");
    add_merge(s, "a b");
    cca_bpe *bpe = open_small(s);
    cca_tokens tokens = {.n = 0};
    encode(&tokens, bpe, "abc", 3);
    assert_int_equal(tokens.n, 2);
    assert_true(tokens.ids[0] == ab && tokens.ids[1] == 'c');
    cca_tokens_free(&tokens);
    cca_bpe_free(bpe);
    free(s);
}

/* What has a character that stands for no byte is in no text. */
static void test_beside_the_alphabet(void **state) {
    (void)state;
    /* the last one: U+0144, one behind the alphabet's last */
    static const char *const texts[] = {"a b", "\xe6\xbc\xa2", "a\xff", "\xc5\x84"};
    small *s = small_new("llama3"); /* takes words that are tokens as they are */
    for (int i = 0; i < 4; i++) add_token(s, texts[i]);
    cca_bpe *bpe = open_small(s);
    for (int i = 0; i < 4; i++) {
        size_t size;
        assert_string_equal(s->token_texts[256 + i], texts[i]);
        assert_memory_equal(cca_bpe_bytes(&size, bpe, 256 + i), texts[i], strlen(texts[i]));
        assert_int_equal(size, strlen(texts[i]));
    }
    check_ids(bpe, "\xe6\xbc\xa2\xc5\x84", 5, (int32_t[]){0xe6, 0xbc, 0xa2, 0xc5, 0x84}, 5);
    cca_bpe_free(bpe);
    free(s);
}

/* ---- what is refused ---- */

static void check_refused(small *s, const char *named) {
    cca_bpe *bpe = (cca_bpe *)s;
    cca_error err = {.text = ""};
    assert_int_equal(cca_bpe_new(&bpe, &s->vocab, "file.gguf", &err), CCA_BAD_MODEL);
    assert_null(bpe);
    if (!strstr(err.text, named) || !strstr(err.text, "file.gguf")) {
        fail_msg("\"%s\" does not name %s", err.text, named);
    }
    assert_int_equal(cca_bpe_new(&bpe, &s->vocab, "file.gguf", NULL), CCA_BAD_MODEL);
    free(s);
}

static void refuse_token(const char *text, const char *named) {
    small *s = small_new("llama3");
    add_token(s, text);
    check_refused(s, named);
}

static void refuse_merge(const char *text, const char *named) {
    small *s = small_new("llama3");
    add_token(s, "ab");
    add_token(s, "abc");
    s->apart[add_token(s, "cd")] = true;
    add_merge(s, "a b");
    add_merge(s, text);
    check_refused(s, named);
}

static void test_refusals(void **state) {
    (void)state;
    const char *pre[] = {"", "gpt-3", "LLAMA3", "llama", "llama33", "qwen2 "};
    for (size_t i = 0; i < sizeof pre / sizeof *pre; i++) {
        small *s = small_new(pre[i]);
        check_refused(s, "tokenizer.ggml.pre");
        check_refused(small_new(pre[i]), pre[i]);
    }
    refuse_token("q", "tokens 113 and 256 are both \"q\"");
    refuse_merge("ab", "merge 1 has no space");
    refuse_merge("", "merge 1 has no space");
    refuse_merge(" ab", "merge 1: its left part");
    refuse_merge("ab ", "merge 1: its right part");
    refuse_merge("ax b", "merge 1: its left part");
    refuse_merge("a xb", "merge 1: its right part");
    refuse_merge("a \xff", "merge 1: its right part");
    refuse_merge("a b c", "merge 1: its right part");
    refuse_merge("b a", "merge 1: its result");
    refuse_merge("c d", "merge 1: its result"); /* a token apart */
    refuse_merge("a b", "merges 0 and 1 are the same");
    small *s = small_new("llama3");
    s->vocab.n_tokens = 0;
    check_refused(s, "0 tokens");
    s = small_new("llama3");
    s->vocab.n_tokens = (size_t)1 << 31;
    check_refused(s, "2147483648 tokens");
    s = small_new("llama3");
    s->vocab.n_merges = (size_t)1 << 31;
    check_refused(s, "2147483648 merges");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),          cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_merges),          cmocka_unit_test(test_whole_words),
        cmocka_unit_test(test_offsets),         cmocka_unit_test(test_offsets_behind),
        cmocka_unit_test(test_texts_that_grow), cmocka_unit_test(test_bad_texts),
        cmocka_unit_test(test_missing_byte),    cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_empty_tokens),    cmocka_unit_test(test_beside_the_alphabet),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
