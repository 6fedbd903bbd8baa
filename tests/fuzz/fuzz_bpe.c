/* BPE: an input is the number of a way with texts, a text, "%%", a token a line, "%%", a merge a
 * line,
 * "%%", and of the last way a step a line. Without tokens the vocabulary is that of all bytes, so
 * that texts alone get far. */
#include "base/utf8.h"
#include "fuzz.h"

#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LINES = 4096 };

/* The lines of a part of the input. */
static size_t split(cca_gguf_string *lines, const uint8_t **data, size_t *size) {
    const uint8_t *part;
    size_t part_size, n = 0;
    if (!fuzz_part(&part, &part_size, data, size)) return 0;
    const char *at = (const char *)part, *end = at + part_size;
    while (at < end && n < MAX_LINES) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        lines[n++] = (cca_gguf_string){at, (size_t)(stop - at)};
        at = stop + 1;
    }
    return n;
}

/* GPT-2's alphabet: printable bytes are themselves, others count up from U+0100. */
static size_t all_bytes(cca_gguf_string *tokens, char (*texts)[4]) {
    unsigned next = 256;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool printable = (byte > ' ' && byte < 127) || (byte > 160 && byte != 173);
        unsigned c = printable ? byte : next++;
        tokens[byte] = (cca_gguf_string){texts[byte], cca_utf8_put(texts[byte], c)};
    }
    return 256;
}

static void encode(const cca_bpe *bpe, size_t n_tokens, const uint8_t *text, size_t size) {
    cca_error err;
    cca_tokens tokens = {0};
    (void)cca_bpe_encode(&tokens, bpe, &(cca_bpe_text){(const char *)text, size, 0, false, NULL},
                         &err); /* checks UTF-8 itself */
    for (size_t i = 0; i < tokens.n; i++) {
        size_t n;
        fuzz_check(tokens.ids[i] >= 0 && (size_t)tokens.ids[i] < n_tokens,
                   "an id outside the vocabulary");
        fuzz_check(tokens.offsets[i] < size, "an offset outside the text");
        fuzz_check(i == 0 || tokens.offsets[i] >= tokens.offsets[i - 1], "offsets that go back");
        (void)cca_bpe_bytes(&n, bpe, tokens.ids[i]);
    }
    cca_tokens_free(&tokens);
}

void fuzz_one(const uint8_t *data, size_t size) {
    static const char *const pre[] = {"llama3", "qwen2",       "smollm", "falcon3",      "unknown",
                                      "tekken", "deepseek-v3", "falcon", "deepseek-llm", "tiny_aya",
                                      ""};
    enum { OWN = sizeof pre / sizeof *pre - 1, PLAIN = 0x80, WHOLE_WORDS = 0x40 };
    static cca_gguf_string steps[MAX_LINES];
    static cca_gguf_string tokens[MAX_LINES], merges[MAX_LINES];
    static char bytes[256][4];
    const uint8_t *text;
    size_t text_size;
    cca_error err;
    cca_bpe *bpe;
    if (size < 2) return;
    size_t kind = (data[0] & 0x3f) % (OWN + 1);
    const char *name = pre[kind];
    cca_bpe_vocab v = {.tokens = tokens, .merges = merges, .unk = -1};
    v.plain = data[0] & PLAIN;
    v.whole_words = data[0] & WHOLE_WORDS;
    data++;
    size--;
    if (!fuzz_part(&text, &text_size, &data, &size)) return;
    v.pre = (cca_gguf_string){name, strlen(name)};
    v.n_tokens = split(tokens, &data, &size);
    v.n_merges = split(merges, &data, &size);
    if (kind == OWN) v.n_steps = split(steps, &data, &size);
    if (kind == OWN) v.steps = steps;
    if (v.n_tokens == 0) v.n_tokens = all_bytes(tokens, bytes);
    if (cca_bpe_new(&bpe, &v, "input", &err) != CCA_OK) return;
    encode(bpe, v.n_tokens, text, text_size);
    encode(bpe, v.n_tokens, text, fuzz_utf8(text, text_size));
    cca_bpe_free(bpe);
}
