/* The vocabularies of llama.cpp (models/ggml-vocab-NAME.gguf) with the texts and ids beside them.
 * The folder is the program's argument; what is not there is skipped. */
#include "test.h"

#include "text/bpe.h"
#include "tokenizer.h"

#include <errno.h>

static const char *folder = "../shared/data/vocabularies";

typedef struct vocabulary {
    const char *name, *texts; /* NAME.gguf; TEXTS.gguf.inp and .out */
    const char *pre;          /* the pre-tokenizer where it is not the file's, but the same */
} vocabulary;

static void path_of(char out[512], const char *name, const char *end) {
    int n = snprintf(out, 512, "%s/ggml-vocab-%s.gguf%s", folder, name, end);
    assert_in_range(n, 1, 511);
}

/* NUL-terminated, to be freed by the caller; NULL where there is none. */
static char *read_text(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file && errno == ENOENT) return NULL;
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    text[size] = 0;
    return text;
}

static cca_bpe *open_bpe(const cca_gguf *file, const char *pre) {
    cca_gguf_array tokens = {.n = 0}, merges = {.n = 0}, types = {.n = 0};
    cca_error err = {.text = ""};
    cca_bpe_vocab v = {.unk = -1};
    if (cca_gguf_arr(&tokens, file, "tokenizer.ggml.tokens", true, &err) != CCA_OK ||
        cca_gguf_arr(&types, file, "tokenizer.ggml.token_type", true, &err) != CCA_OK ||
        cca_gguf_arr(&merges, file, "tokenizer.ggml.merges", true, &err) != CCA_OK) {
        fail_msg("%s", err.text);
    }
    bool *apart = calloc(tokens.n + 1, sizeof *apart);
    assert_non_null(apart);
    for (uint64_t i = 0; i < tokens.n; i++) apart[i] = cca_gguf_array_number(&types, i) != 1;
    v.pre = (cca_gguf_string){pre, strlen(pre)};
    v.tokens = tokens.strings, v.n_tokens = tokens.n, v.apart = apart;
    v.merges = merges.strings, v.n_merges = merges.n;
    cca_bpe *bpe;
    if (cca_bpe_new(&bpe, &v, cca_gguf_name(file), &err) != CCA_OK) fail_msg("%s", err.text);
    free(apart);
    return bpe;
}

/* Through the tokenizer of the file, or where another pre-tokenizer is wanted without it. */
typedef struct encoder {
    cca_tokenizer *tok;
    cca_bpe *bpe;
} encoder;

static encoder open_encoder(const cca_gguf *file, const char *pre) {
    encoder e = {NULL, NULL};
    cca_error err = {.text = ""};
    if (pre) {
        e.bpe = open_bpe(file, pre);
    } else if (cca_tokenizer_open(&e.tok, file, &err) != CCA_OK) {
        fail_msg("%s", err.text);
    }
    return e;
}

/* One text, and its line of ids; returns the next line. */
static char *check_text(encoder e, const char *text, size_t size, char *line) {
    cca_tokens tokens = {.n = 0};
    cca_error err = {.text = ""};
    cca_status status =
        e.bpe ? cca_bpe_encode(&tokens, e.bpe, &(cca_bpe_text){text, size, 0, false, NULL}, &err)
              : cca_tokenizer_encode(&tokens, e.tok, text, size, CCA_ENCODE_START, &err);
    if (status) fail_msg("%s", err.text);
    for (size_t i = 0; i < tokens.n; i++) {
        char *end;
        long id = strtol(line, &end, 10);
        if (end == line || tokens.ids[i] != id) {
            fail_msg("token %zu of \"%.*s\" is %d, not %ld", i, (int)size, text, tokens.ids[i], id);
        }
        line = end;
    }
    line += strspn(line, " ");
    assert_int_equal(*line, '\n');
    cca_tokens_free(&tokens);
    return line + 1;
}

static void check_texts(const char *path, char *texts, char *ids, const char *pre) {
    static const char separator[] = "\n__ggml_vocab_test__\n";
    int n = 0;
    cca_gguf *file;
    cca_error err = {.text = ""};
    if (cca_gguf_open(&file, path, &err) != CCA_OK) fail_msg("%s", err.text);
    encoder e = open_encoder(file, pre);
    for (char *text = texts, *end; (end = strstr(text, separator)); n++) {
        ids = check_text(e, text, (size_t)(end - text), ids);
        text = end + sizeof separator - 1;
    }
    assert_true(n > 30);
    cca_bpe_free(e.bpe);
    cca_tokenizer_close(e.tok);
    cca_gguf_close(file);
}

static void test_vocabulary(void **state) {
    const vocabulary *v = *state;
    char path[512];
    path_of(path, v->texts, ".inp");
    char *texts = read_text(path);
    path_of(path, v->texts, ".out");
    char *ids = read_text(path);
    path_of(path, v->name, "");
    char *whole = read_text(path);
    bool complete = texts && ids && whole;
    if (complete) {
        check_texts(path, texts, ids, v->pre);
    } else {
        print_message("SKIP %s: not all of it is in %s\n", v->texts, folder);
    }
    free(texts);
    free(ids);
    free(whole);
    if (!complete) skip();
}

int main(int argc, char **argv) {
    if (argc > 1) folder = argv[1];
    vocabulary llama = {"llama-bpe", "llama-bpe", NULL}, qwen = {"qwen2", "qwen2", NULL};
    vocabulary deepseek = {"qwen2", "deepseek-r1-qwen", "deepseek-r1-qwen"}; /* the same tokens */
    vocabulary starcoder = {"starcoder", "starcoder", "smollm"};             /* the same pattern */
    vocabulary refact = {"refact", "refact", "smollm"};
    vocabulary pieces = {"llama-spm", "llama-spm", NULL}, padded = {"phi-3", "phi-3", NULL};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_vocabulary, &llama),
        cmocka_unit_test_prestate(test_vocabulary, &qwen),
        cmocka_unit_test_prestate(test_vocabulary, &deepseek),
        cmocka_unit_test_prestate(test_vocabulary, &starcoder),
        cmocka_unit_test_prestate(test_vocabulary, &refact),
        cmocka_unit_test_prestate(test_vocabulary, &pieces),
        cmocka_unit_test_prestate(test_vocabulary, &padded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
