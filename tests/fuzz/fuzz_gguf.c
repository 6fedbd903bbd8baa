/* Model files: the parser, each getter on each key, the configuration, the tokenizer. */
#include "fuzz.h"

#include "gguf/config.h"
#include "gguf/gguf.h"
#include "tokenizer.h"

static volatile double sink;

static void get_all(const cca_gguf *file) {
    cca_error err;
    uint32_t u32;
    uint64_t u64;
    float f32;
    bool flag;
    cca_gguf_string text;
    cca_gguf_array array;
    cca_gguf_type type;
    for (uint64_t i = 0; i < cca_gguf_n_keys(file); i++) {
        const char *key = cca_gguf_key_at(file, i, &type);
        fuzz_check(cca_gguf_has(file, key), "a key that is not found");
        (void)cca_gguf_u32(&u32, file, key, NULL, &err);
        (void)cca_gguf_u64(&u64, file, key, NULL, &err);
        (void)cca_gguf_f32(&f32, file, key, NULL, &err);
        (void)cca_gguf_bool(&flag, file, key, NULL, &err);
        if (cca_gguf_str(&text, file, key, NULL, &err) == CCA_OK && text.size > 0) {
            sink = text.bytes[0] + text.bytes[text.size - 1];
        }
        if (cca_gguf_arr(&array, file, key, true, &err) != CCA_OK || array.n == 0) continue;
        sink = cca_gguf_array_number(&array, 0) + cca_gguf_array_number(&array, array.n - 1) +
               cca_gguf_array_number(&array, array.n);
    }
}

static void look_at_tensors(const cca_gguf *file) {
    for (uint64_t i = 0; i < cca_gguf_n_tensors(file); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(file, i);
        const uint8_t *bytes = t->data;
        fuzz_check(cca_gguf_find(file, t->name) == t, "a tensor that is not found");
        fuzz_check(t->offset + t->bytes <= cca_gguf_size(file), "a tensor outside the file");
        (void)cca_gguf_type_name(t->type);
        if (t->bytes > 0) sink = bytes[0] + bytes[t->bytes - 1];
    }
}

static void tokenize(const cca_gguf *file) {
    static const char text[] = "Hello,  world\xc3\xa9 <s>123</s>\n";
    cca_error err;
    cca_tokenizer *tok;
    cca_tokens tokens = {0};
    if (cca_tokenizer_open(&tok, file, &err) != CCA_OK || !tok) return;
    (void)cca_tokenizer_encode(&tokens, tok, text, sizeof text - 1,
                               CCA_ENCODE_START | CCA_ENCODE_SPECIAL, &err);
    for (size_t i = 0; i < tokens.n; i++) {
        size_t size;
        fuzz_check(tokens.ids[i] >= 0 && tokens.ids[i] < cca_tokenizer_info(tok)->vocab_size,
                   "an id outside the vocabulary");
        (void)cca_tokenizer_bytes(&size, tok, tokens.ids[i], true);
        (void)cca_tokenizer_is_end(tok, tokens.ids[i]);
    }
    cca_tokens_free(&tokens);
    cca_tokenizer_close(tok);
}

void fuzz_one(const uint8_t *data, size_t size) {
    cca_error err;
    cca_gguf *file;
    cca_config config;
    bool checked;
    char digits[CCA_GGUF_FINGERPRINT + 1];
    if (cca_gguf_parse(&file, data, size, "input", &err) != CCA_OK) return;
    get_all(file);
    look_at_tensors(file);
    (void)cca_gguf_check_crc(&checked, file, &err);
    cca_gguf_fingerprint(digits, file);
    cca_gguf_look(digits, file);
    fuzz_check(cca_gguf_layout_of(file).entries_end <= size, "entries behind the file");
    if (cca_config_read(&config, file, &err) == CCA_OK) {
        char rope[128];
        cca_config_describe_rope(rope, sizeof rope, &config, 0);
    }
    tokenize(file);
    cca_gguf_close(file);
}
