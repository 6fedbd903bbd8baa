/* Export from GGUF files: the same bytes as from the model's first source, every key carried
 * over, and a refusal by name of what cannot be read. */
#include "export/gguf_write.h"
#include "export_files.h"

#include "gguf/config.h"

/* --- the same as directly ------------------------------------------------------------ */

static cca_gguf *export_as(const char *input, cca_dtype type, const char *output) {
    return export_model((cca_export_options){
        .input = input, .output = in_folder(output), .has_type = true, .type = type});
}

/* All tensors and the fingerprint are equal. */
static void expect_same_model(const cca_gguf *a, const cca_gguf *b) {
    cca_error err;
    cca_gguf_string x, y;
    assert_int_equal(cca_gguf_n_tensors(a), cca_gguf_n_tensors(b));
    for (uint64_t i = 0; i < cca_gguf_n_tensors(a); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(a, i), *u = cca_gguf_tensor_at(b, i);
        assert_string_equal(t->name, u->name);
        assert_int_equal(t->type, u->type);
        assert_int_equal(t->bytes, u->bytes);
        assert_memory_equal(t->data, u->data, t->bytes);
    }
    assert_int_equal(cca_gguf_str(&x, a, "cca.fingerprint", NULL, &err), CCA_OK);
    assert_int_equal(cca_gguf_str(&y, b, "cca.fingerprint", NULL, &err), CCA_OK);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.bytes, y.bytes, x.size);
}

static void expect_detour(const char *folder, cca_dtype type) {
    cca_gguf *first = export_as(folder, CCA_F32, "f32.gguf");
    cca_gguf *direct = export_as(folder, type, "direct.gguf");
    cca_gguf *detour = export_as(in_folder("f32.gguf"), type, "detour.gguf");
    expect_same_model(direct, detour);
    assert_int_equal(cca_gguf_n_keys(direct), cca_gguf_n_keys(detour));
    cca_gguf_close(first);
    cca_gguf_close(direct);
    cca_gguf_close(detour);
}

static void same_as_directly(void **state) {
    (void)state;
    static const cca_dtype types[] = {CCA_F32, CCA_F16, CCA_BF16, CCA_Q8_0, CCA_Q4_0};
    hf_model m;
    hf_build(&m, "F32", false, false);
    const char *llama = hf_folder(&m, "llama", "");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) expect_detour(llama, types[i]);
    hf_build(&m, "F32", true, true);
    const char *qwen2 =
        hf_folder(&m, "qwen2",
                  "\"tie_word_embeddings\": true, \"rope_scaling\": {\"rope_type\": \"yarn\", "
                  "\"factor\": 4.0, \"original_max_position_embeddings\": 64}");
    expect_detour(qwen2, CCA_Q8_0);
}

/* What runs is kept bit for bit; a second export changes nothing at all. */
static void kept_types(void **state) {
    (void)state;
    static const cca_dtype types[] = {CCA_F32, CCA_F16, CCA_BF16, CCA_Q8_0, CCA_Q4_0};
    hf_model m;
    hf_build(&m, "F32", false, false);
    const char *folder = hf_folder(&m, "llama", "\"cca\": {\"group_size\": 4, \"window_size\": 8}");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        cca_gguf *first = export_as(folder, types[i], "first.gguf");
        cca_gguf *second = export_model((cca_export_options){.input = in_folder("first.gguf"),
                                                             .output = in_folder("second.gguf")});
        expect_same_model(first, second);
        assert_int_equal(cca_gguf_size(first), cca_gguf_size(second));
        assert_int_equal(u32_of(second, "cca.group_size"), 4);
        cca_gguf_close(first);
        cca_gguf_close(second);
    }
}

/* --- a model file of our own making -------------------------------------------------- */

enum { TOKENS = 24, WIDTH = 32, INNER = 256 };

/* What is changed in the file; zero is a good one. */
typedef struct spoil {
    const char *without;        /* a tensor */
    const char *reshaped;       /* a tensor with a row more */
    const char *retyped;        /* a tensor of another type */
    uint32_t type;              /* which */
    const char *more;           /* one more tensor */
    const char *text_key;       /* one more key */
    const char *u32_key;        /* one more key, */
    uint32_t u32_value;         /* of this value */
    const char *array_key;      /* one more key, an array of two */
    bool no_layers, other_arch; /* block_count is missing; the architecture is "gemma" */
} spoil;

static void put_weights(cca_gguf_writer *w, const spoil *s, const char *name, int64_t rows,
                        int64_t cols, uint32_t type, size_t row_bytes) {
    if (s->without && strcmp(s->without, name) == 0) return;
    if (s->reshaped && strcmp(s->reshaped, name) == 0) rows++;
    if (s->retyped && strcmp(s->retyped, name) == 0) type = s->type;
    int64_t dims[] = {cols, rows};
    cca_gguf_put_tensor(w, name, rows == 1 ? 1 : 2, dims, (cca_dtype)type,
                        (uint64_t)rows * row_bytes);
}

static void put_model(cca_gguf_writer *w, const spoil *s) {
    static const cca_gguf_string merges[] = {{"a b", 3}, {"", 0}, {"\0x", 2}};
    put_weights(w, s, "token_embd.weight", TOKENS, WIDTH, 7, 24);
    put_weights(w, s, "output_norm.weight", 1, WIDTH, CCA_F32, WIDTH * 4);
    put_weights(w, s, "blk.0.attn_norm.weight", 1, WIDTH, CCA_F32, WIDTH * 4);
    put_weights(w, s, "blk.0.ffn_norm.weight", 1, WIDTH, CCA_F32, WIDTH * 4);
    put_weights(w, s, "blk.0.attn_q.weight", WIDTH, WIDTH, 3, 20);
    put_weights(w, s, "blk.0.attn_k.weight", WIDTH, WIDTH, 6, 22);
    put_weights(w, s, "blk.0.attn_v.weight", WIDTH, WIDTH, CCA_F16, 64);
    put_weights(w, s, "blk.0.attn_output.weight", WIDTH, WIDTH, CCA_Q4_0, 18);
    put_weights(w, s, "blk.0.ffn_gate.weight", INNER, WIDTH, CCA_Q8_0, 34);
    put_weights(w, s, "blk.0.ffn_up.weight", INNER, WIDTH, CCA_Q8_0, 34);
    put_weights(w, s, "blk.0.ffn_down.weight", WIDTH, INNER, 14, 210);
    if (s->more) put_weights(w, s, s->more, 2, WIDTH, CCA_F16, 64);

    cca_gguf_put_text(w, "general.architecture", s->other_arch ? "gemma" : "llama");
    cca_gguf_put_text(w, "general.name", "Made by hand");
    cca_gguf_put_text(w, "general.license", "none");
    cca_gguf_put_u32(w, "general.file_type", 15);
    cca_gguf_put_u32(w, "general.quantization_version", 2);
    cca_gguf_put_u32(w, "general.alignment", 32);
    if (!s->no_layers) cca_gguf_put_u32(w, "llama.block_count", 1);
    cca_gguf_put_u32(w, "llama.context_length", 512);
    cca_gguf_put_u32(w, "llama.embedding_length", WIDTH);
    cca_gguf_put_u32(w, "llama.feed_forward_length", INNER);
    cca_gguf_put_u32(w, "llama.attention.head_count", 2);
    cca_gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    cca_gguf_put_u32(w, "llama.some.number", 77);
    cca_gguf_put_text(w, "tokenizer.ggml.model", "gpt2");
    cca_gguf_put_strings(w, "tokenizer.ggml.merges", 3, merges);
    cca_gguf_put_numbers(w, "tokenizer.ggml.scores", CCA_GGUF_F64, 2, (double[]){1.5, -2});
    cca_gguf_put_number(w, "tokenizer.ggml.big", CCA_GGUF_U64, &(uint64_t){1ull << 60});
    cca_gguf_put_text(w, "tokenizer.chat_template", "{{ messages }}");
    cca_gguf_put_numbers(w, "cca.end_token_ids", CCA_GGUF_I32, 2, (int32_t[]){3, 5});
    cca_gguf_put_numbers(w, "cca.tokenizer.sentencepiece", CCA_GGUF_U8, 3, "\x0a\x00\x01");
    cca_gguf_put_text(w, "other.key", "kept");
    if (s->text_key) cca_gguf_put_text(w, s->text_key, "surprise");
    if (s->u32_key) cca_gguf_put_u32(w, s->u32_key, s->u32_value);
    if (s->array_key) cca_gguf_put_numbers(w, s->array_key, CCA_GGUF_U32, 2, (uint32_t[]){2, 2});
}

/* A file of zeros, whose path is returned. */
static const char *make_model(const char *name, const spoil *s) {
    static const uint32_t crcs[16];
    cca_gguf_writer *w;
    cca_error err;
    assert_int_equal(cca_gguf_writer_new(&w, in_folder(name), &err), CCA_OK);
    put_model(w, s);
    assert_int_equal(cca_gguf_writer_begin(w, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_finish(w, crcs, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_commit(w, &err), CCA_OK);
    cca_gguf_writer_free(w);
    return in_folder(name);
}

static void default_types(void **state) {
    (void)state;
    const char *input = make_model("made.gguf", &(spoil){0});
    cca_gguf *file = export_model((cca_export_options){.input = input, .group_size = 4});
    assert_int_equal(type_of(file, "token_embd.weight"), CCA_Q5_1);
    assert_int_equal(type_of(file, "blk.0.attn_q.weight"), CCA_Q4_1);
    assert_int_equal(type_of(file, "blk.0.attn_k.weight"), CCA_Q5_0);
    assert_int_equal(type_of(file, "blk.0.attn_v.weight"), CCA_F16);
    assert_int_equal(type_of(file, "blk.0.attn_output.weight"), CCA_Q4_0);
    assert_int_equal(type_of(file, "blk.0.ffn_down.weight"), CCA_Q6_K);
    assert_int_equal(type_of(file, "output_norm.weight"), CCA_F32);
    assert_int_equal(u32_of(file, "general.file_type"), 15);
    assert_int_equal(u32_of(file, "cca.group_size"), 4);
    bool checked;
    cca_error err;
    assert_int_equal(cca_gguf_check_crc(&checked, file, &err), CCA_OK);
    assert_true(checked);
    cca_gguf_close(file);
}

static void carried_keys(void **state) {
    (void)state;
    const char *input = make_model("made.gguf", &(spoil){0});
    cca_gguf *file = export_model((cca_export_options){.input = input});
    expect_text(file, "general.name", "Made by hand");
    expect_text(file, "general.license", "none");
    expect_text(file, "tokenizer.ggml.model", "gpt2");
    expect_text(file, "tokenizer.chat_template", "{{ messages }}");
    expect_text(file, "other.key", "kept");
    assert_int_equal(u32_of(file, "llama.some.number"), 77);
    assert_int_equal(u32_of(file, "llama.context_length"), 512);
    assert_int_equal(u32_of(file, "llama.attention.head_count_kv"), 2);
    assert_false(cca_gguf_has(file, "general.alignment"));
    cca_gguf_array merges = array_of(file, "tokenizer.ggml.merges");
    assert_int_equal(merges.n, 3);
    assert_int_equal(merges.strings[1].size, 0);
    assert_int_equal(merges.strings[2].size, 2);
    assert_memory_equal(merges.strings[2].bytes, "\0x", 2);
    cca_gguf_array scores = array_of(file, "tokenizer.ggml.scores");
    assert_int_equal(scores.type, CCA_GGUF_F64);
    assert_true(cca_gguf_array_number(&scores, 1) == -2);
    cca_error err;
    uint64_t big = 0;
    assert_int_equal(cca_gguf_u64(&big, file, "tokenizer.ggml.big", NULL, &err), CCA_OK);
    assert_true(big == 1ull << 60);
    assert_int_equal(array_of(file, "cca.end_token_ids").n, 2);
    assert_memory_equal(array_of(file, "cca.tokenizer.sentencepiece").data, "\x0a\x00\x01", 3);
    assert_null(strstr(warnings, "no tokenizer"));
    cca_gguf_close(file);
}

/* A new tokenizer takes the place of the old one's keys, but the template stays. */
static void new_tokenizer(void **state) {
    (void)state;
    uint8_t bytes[512] = {8}; /* llama2.c: the longest piece; score, length, text of each */
    size_t at = 4;
    for (int i = 0; i < TOKENS; i++) {
        static const char *const special[] = {"<unk>", "\n<s>\n", "\n</s>\n"};
        const char *text = i < 3 ? special[i] : (char[]){(char)('a' + i), '\0'};
        size_t size = strlen(text);
        bytes[at + 4] = (uint8_t)size;
        for (size_t k = 0; k < size; k++) bytes[at + 8 + k] = (uint8_t)text[k];
        at += 8 + size;
    }
    write_bytes(in_folder("new.bin"), bytes, at);
    const char *input = make_model("made.gguf", &(spoil){0});
    cca_gguf *file =
        export_model((cca_export_options){.input = input, .tokenizer = in_folder("new.bin")});
    expect_text(file, "tokenizer.ggml.model", "llama");
    expect_text(file, "tokenizer.chat_template", "{{ messages }}");
    expect_text(file, "general.license", "none");
    assert_int_equal(array_of(file, "tokenizer.ggml.tokens").n, TOKENS);
    assert_false(cca_gguf_has(file, "tokenizer.ggml.merges"));
    assert_false(cca_gguf_has(file, "cca.tokenizer.sentencepiece"));
    assert_false(cca_gguf_has(file, "cca.end_token_ids"));
    cca_gguf_close(file);
}

/* What nothing here makes is refused before anything is written. */
static void types_that_cannot_be_made(void **state) {
    (void)state;
    const char *input = make_model("made.gguf", &(spoil){0});
    expect_failure((cca_export_options){.input = input, .has_type = true, .type = CCA_Q3_K},
                   CCA_USAGE, "type q3_k cannot be made");
}

/* --- refusals ------------------------------------------------------------------------ */

static void expect_refusal(spoil s, const char *message) {
    const char *input = make_model("made.gguf", &s);
    expect_failure((cca_export_options){.input = input}, CCA_BAD_MODEL, message);
}

static void refusals(void **state) {
    (void)state;
    expect_refusal((spoil){.without = "blk.0.ffn_down.weight"},
                   "tensor blk.0.ffn_down.weight is missing");
    expect_refusal((spoil){.reshaped = "blk.0.attn_k.weight"},
                   "blk.0.attn_k.weight has shape [32, 33], not [32, 32]");
    expect_refusal((spoil){.retyped = "blk.0.attn_q.weight", .type = 39},
                   "'blk.0.attn_q.weight' has type MXFP4, which is not read");
    expect_refusal((spoil){.retyped = "output_norm.weight", .type = CCA_Q8_0},
                   "'output_norm.weight' has type Q8_0, which is not read for a vector");
    expect_refusal((spoil){.more = "blk.0.attn_rot_embd.weight"},
                   "'blk.0.attn_rot_embd.weight' is unknown to this architecture");
    expect_refusal((spoil){.no_layers = true}, "'llama.block_count' is missing");
    expect_refusal((spoil){.other_arch = true}, "'gemma' is not supported");
    expect_refusal((spoil){.u32_key = "llama.expert_count", .u32_value = 8}, "expert_count");
    expect_refusal((spoil){.u32_key = "split.count", .u32_value = 2},
                   "split.count: is one part of 2, whose names end in -00001-of-00002.gguf");
    expect_refusal((spoil){.u32_key = "llama.rope.dimension_count", .u32_value = 7},
                   "rope.dimension_count");
    expect_refusal((spoil){.array_key = "llama.attention.head_count_kv"},
                   "llama.attention.head_count_kv is no list of");
    expect_refusal((spoil){.text_key = "llama.rope.scaling.type"}, "'surprise' is not supported");
}

/* A value that is not finite is found in a block, too. */
static void broken_values(void **state) {
    (void)state;
    cca_error err;
    cca_gguf *file;
    const char *input = make_model("made.gguf", &(spoil){0});
    assert_int_equal(cca_gguf_open(&file, input, &err), CCA_OK);
    uint64_t at = tensor_of(file, "blk.0.ffn_down.weight")->offset + 3 * 210 + 208;
    cca_gguf_close(file);
    FILE *f = fopen(input, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    assert_int_equal(fwrite("\x00\x7c", 1, 2, f), 2); /* the block's scale: infinity */
    assert_int_equal(fclose(f), 0);
    expect_failure((cca_export_options){.input = input}, CCA_BAD_MODEL,
                   "'blk.0.ffn_down.weight', row 3: a value is not finite");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(same_as_directly, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(kept_types, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(default_types, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(carried_keys, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(types_that_cannot_be_made, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(new_tokenizer, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refusals, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(broken_values, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
