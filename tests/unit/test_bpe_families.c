/* The tokenizer.json of some thirty ways with texts, through export's keys into a tokenizer: the
 * ids of Hugging Face's tokenizers (tests/golden/bpe/make_families.py), of which checksums are
 * kept. */
#include "export/vocab_read.h"
#include "test.h"
#include "tokenizer.h"

#include <unistd.h>
#include <zlib.h>

#define GOLDEN "tests/golden/"

static const char *golden_path = GOLDEN "bpe/families.json"; /* or the program's argument */

static const uint32_t no_crcs[1]; /* of no tensors */

static json_t *load(const char *path) {
    json_error_t error;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!root) fail_msg("%s: %s", path, error.text);
    return root;
}

/* It may have NULs. */
static char *read_text(size_t *size, const char *path) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = calloc(1, 1 << 16);
    assert_non_null(text);
    *size = fread(text, 1, 1 << 16, file);
    assert_in_range(*size, 1, (1 << 16) - 1);
    fclose(file);
    return text;
}

/* The tokenizer.json of a family. */
static json_t *make_json(const json_t *root, const json_t *family) {
    const char *kind = json_string_value(json_object_get(family, "model"));
    json_t *model = json_deep_copy(json_object_get(json_object_get(root, "models"), kind));
    json_object_set(model, "ignore_merges", json_object_get(family, "ignore_merges"));
    json_t *out = json_pack("{s:o}", "model", model);
    assert_non_null(out);
    const char *const keys[] = {"normalizer", "pre_tokenizer", "added_tokens"};
    for (size_t i = 0; i < 3; i++) json_object_set(out, keys[i], json_object_get(family, keys[i]));
    return out;
}

static cca_gguf *write_and_open(const cca_vocab *vocab, const char *path) {
    cca_gguf_writer *w;
    cca_error err = {.text = ""};
    cca_gguf *file = NULL;
    cca_source_text text = {.bos = -1, .eos = -1};
    cca_status status = cca_gguf_writer_new(&w, path, &err);
    if (!status) cca_gguf_put_text(w, "general.architecture", "llama");
    if (!status) status = cca_vocab_put(w, vocab, &text, &err);
    if (!status) status = cca_gguf_writer_begin(w, &err);
    if (!status) status = cca_gguf_writer_finish(w, no_crcs, &err);
    if (!status) status = cca_gguf_writer_commit(w, &err);
    cca_gguf_writer_free(w);
    if (!status) status = cca_gguf_open(&file, path, &err);
    if (status) fail_msg("%s", err.text);
    return file;
}

/* Through both files; what stands in tokenizer.ggml.pre goes to pre. */
static cca_tokenizer *open_family(char *pre, size_t room, const json_t *root,
                                  const json_t *family) {
    char json_path[] = "/tmp/cca-test-families-XXXXXX", path[64];
    cca_error err = {.text = ""};
    cca_vocab vocab;
    cca_tokenizer *tok;
    int fd = mkstemp(json_path);
    assert_true(fd >= 0);
    close(fd);
    snprintf(path, sizeof path, "%s.gguf", json_path);
    json_t *json = make_json(root, family);
    assert_int_equal(json_dump_file(json, json_path, 0), 0);
    json_decref(json);
    const char *name = json_string_value(json_object_get(family, "name"));
    if (cca_vocab_open(&vocab, json_path, &err) != CCA_OK) fail_msg("%s: %s", name, err.text);
    snprintf(pre, room, "%s", vocab.pre);
    cca_gguf *file = write_and_open(&vocab, path);
    cca_vocab_close(&vocab);
    if (cca_tokenizer_open(&tok, file, &err) != CCA_OK) fail_msg("%s: %s", name, err.text);
    cca_gguf_close(file);
    unlink(json_path);
    unlink(path);
    return tok;
}

static void check_sum(const cca_tokenizer *tok, const char *name, const char *text, size_t size,
                      bool special, json_int_t sum) {
    cca_tokens tokens = {.n = 0};
    cca_error err = {.text = ""};
    unsigned flags = CCA_ENCODE_START | (special ? CCA_ENCODE_SPECIAL : 0);
    if (cca_tokenizer_encode(&tokens, tok, text, size, flags, &err) != CCA_OK) {
        fail_msg("%s: %s", name, err.text);
    }
    uLong own = crc32(0, (const Bytef *)tokens.ids, (uInt)(tokens.n * sizeof *tokens.ids));
    if ((json_int_t)own != sum) fail_msg("%s: other ids for \"%.400s\"", name, text);
    for (size_t i = 0; i < tokens.n; i++) {
        assert_true(tokens.offsets[i] < size);
        assert_true(i == 0 || tokens.offsets[i] >= tokens.offsets[i - 1]);
    }
    cca_tokens_free(&tokens);
}

static void check_family(const json_t *root, const json_t *family, char *const texts[2],
                         const size_t sizes[2]) {
    char pre[64];
    const char *name = json_string_value(json_object_get(family, "name"));
    const json_t *list = json_object_get(root, "texts"), *sums = json_object_get(family, "sums");
    cca_tokenizer *tok = open_family(pre, sizeof pre, root, family);
    assert_string_equal(pre, json_string_value(json_object_get(family, "pre")));
    size_t n = json_array_size(list) + 2, n_sums = json_array_size(sums);
    assert_true(n_sums == n || n_sums == 2 * n);
    for (size_t i = 0; i < n_sums; i++) {
        const json_t *text = i % n < 2 ? NULL : json_array_get(list, i % n - 2);
        const char *bytes = text ? json_string_value(text) : texts[i % n];
        size_t size = text ? json_string_length(text) : sizes[i % n];
        check_sum(tok, name, bytes, size, i >= n, json_integer_value(json_array_get(sums, i)));
    }
    cca_tokenizer_close(tok);
}

static void equals_tokenizers(void **state) {
    (void)state;
    json_t *root = load(golden_path);
    size_t sizes[2];
    char *texts[] = {read_text(&sizes[0], GOLDEN "bpe/text.txt"),
                     read_text(&sizes[1], GOLDEN "tokenizer/golden.txt")};
    const json_t *families = json_object_get(root, "families");
    assert_true(json_array_size(families) >= 12);
    for (size_t i = 0; i < json_array_size(families); i++) {
        check_family(root, json_array_get(families, i), texts, sizes);
    }
    free(texts[0]);
    free(texts[1]);
    json_decref(root);
}

/* ---- steps that a file might have ---------------------------------------------------- */

static void check_steps(const char *const *steps, size_t n, const char *message) {
    char path[] = "/tmp/cca-test-families-XXXXXX";
    cca_error err = {.text = ""};
    cca_gguf_string list[24];
    cca_gguf_string token = {"a", 1};
    cca_gguf_writer *w;
    cca_gguf *file;
    cca_tokenizer *tok;
    close(mkstemp(path));
    for (size_t i = 0; i < n; i++) list[i] = (cca_gguf_string){steps[i], strlen(steps[i])};
    assert_int_equal(cca_gguf_writer_new(&w, path, &err), CCA_OK);
    cca_gguf_put_text(w, "tokenizer.ggml.model", "gpt2");
    cca_gguf_put_strings(w, "cca.tokenizer.steps", n, list);
    cca_gguf_put_strings(w, "tokenizer.ggml.tokens", 1, &token);
    cca_gguf_put_strings(w, "tokenizer.ggml.merges", 0, list);
    assert_int_equal(cca_gguf_writer_begin(w, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_finish(w, no_crcs, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_commit(w, &err), CCA_OK);
    cca_gguf_writer_free(w);
    assert_int_equal(cca_gguf_open(&file, path, &err), CCA_OK);
    unlink(path);
    cca_status status = cca_tokenizer_open(&tok, file, &err);
    assert_int_equal(status, *message ? CCA_BAD_MODEL : CCA_OK);
    if (!strstr(err.text, message)) fail_msg("\"%s\" does not say %s", err.text, message);
    cca_tokenizer_close(tok);
    cca_gguf_close(file);
}

static void steps_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *steps[3], *message;
        size_t n;
    } cases[] = {
        {{"nfc", "lead x", "isolated a"}, "", 3},
        {{"replace a", "with "}, "", 2},
        {{"letters", "isolated a"}, "", 2},
        {{"nfx"}, "the step \"nfx\"", 1},
        {{"isolated a", "nfc"}, "the step \"isolated a\"", 2},
        {{"lead x", "nfc"}, "the step \"nfc\"", 2},
        {{"replace a"}, "\"replace\" without \"with\"", 1},
        {{"with a"}, "do not go together", 1},
        {{"replace a", "nfc", "with b"}, "do not go together", 3},
        {{"isolated (", "nfc"}, "the step \"isolated (\"", 2},
        {{"nfc", "isolated ("}, "the pattern \"(\"", 2},
        {{"replace \\h", "with b"}, "the pattern \"\\h\"", 2},
        {{"prepend \xff"}, "no UTF-8", 1},
        {{"letters", "letters"}, "a second step", 2},
        {{"letters-not"}, "the step \"letters-not\"", 1},
    };
    const char *many[24];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_steps(cases[i].steps, cases[i].n, cases[i].message);
    }
    for (size_t i = 0; i < 24; i++) many[i] = "isolated a";
    check_steps(many, 24, "cut in more than 16 steps");
    for (size_t i = 0; i < 24; i++) many[i] = "nfc";
    check_steps(many, 24, "changed in more than 16 steps");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_tokenizers),
        cmocka_unit_test(steps_are_refused_by_name),
    };
    if (argc > 1) golden_path = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
