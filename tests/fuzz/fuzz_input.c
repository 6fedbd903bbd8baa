/* Texts given to a command: the first byte says how, the rest is a file, perhaps gzip. */
#include "fuzz.h"

#include "cli/input.h"

static void read_text(const char *path, const char *how, bool escape) {
    cca_error err;
    arg_item items[2] = {{'f', path}, {'p', "caf\xc3\xa9\\n\\x41\\q"}};
    input_options options = {.pieces = {items, 2, 2}, .invalid_utf8 = how, .escape = escape};
    input_text text;
    cca_status status = input_read(&text, &options, NULL, &err);
    if (!status && how[0] != 'b') {
        fuzz_check(fuzz_utf8((const uint8_t *)text.text.bytes, text.text.size) == text.text.size,
                   "a text that is not UTF-8 was accepted");
    }
    for (size_t i = 0; i < text.n_bad; i++) {
        fuzz_check(text.bad[i] < text.text.size, "a bad byte outside the text");
    }
    input_free(&text);
}

static void read_ids(const char *path) {
    cca_error err;
    text_buffer text = {0};
    cca_tokens tokens = {0};
    if (input_read_file(&text, path, &err) == CCA_OK) {
        (void)input_parse_ids(&tokens, &text, "input", 32000, &err);
    }
    for (size_t i = 0; i < tokens.n; i++) {
        fuzz_check(tokens.ids[i] >= 0 && tokens.ids[i] < 32000, "an id outside the vocabulary");
    }
    cca_tokens_free(&tokens);
    text_free(&text);
}

void fuzz_one(const uint8_t *data, size_t size) {
    static const char *const how[] = {"error", "replace", "bytes"};
    if (size < 1) return;
    const char *path = fuzz_file(data + 1, size - 1);
    if (data[0] % 4 == 3) {
        read_ids(path);
    } else {
        read_text(path, how[data[0] % 4], data[0] & 4);
    }
}
