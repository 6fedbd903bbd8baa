/* Export of llama2.c files and random weights, of tokenizers, and what becomes of the output
 * file when something goes wrong. */
#include "export_files.h"

#include <signal.h>
#include <sys/resource.h>

static const char stories[] = "../shared/data/stories260K.bin";
static const char stories_tokenizer[] = "../shared/data/tok512.bin";
static const char llama2_tokenizer[] = "../shared/data/llama2-tokenizer.model";

static bool present(const char *path, const char *test) {
    if (access(path, R_OK) == 0) return true;
    print_message("SKIP %s: no %s\n", test, path);
    return false;
}

/* Growing bytes in a buffer of fixed size. */
typedef struct bytes {
    uint8_t data[1 << 16];
    size_t n;
} bytes;

static void add(bytes *b, const void *data, size_t n) {
    assert_true(b->n + n <= sizeof b->data);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

/* --- llama2.c ------------------------------------------------------------------------ */

enum { L_DIM = 8, L_HIDDEN = 12, L_LAYERS = 2, L_HEADS = 2, L_KV = 1, L_VOCAB = 5, L_SEQ = 6 };
enum { L_HEAD = L_DIM / L_HEADS, L_KV_DIM = L_KV * L_HEAD };

/* n floats that count on from *next, so that each tells where it stood in the file. */
static void add_floats(bytes *b, int n, float *next) {
    for (int i = 0; i < n; i++, *next += 1) add(b, next, sizeof *next);
}

static void build_v0(bytes *b, bool tied) {
    const int32_t header[7] = {L_DIM, L_HIDDEN, L_LAYERS, L_HEADS, L_KV, tied ? L_VOCAB : -L_VOCAB,
                               L_SEQ};
    float next = 0;
    b->n = 0;
    add(b, header, sizeof header);
    add_floats(b, L_VOCAB * L_DIM, &next);
    add_floats(b, L_LAYERS * (L_DIM + L_DIM * L_DIM + 2 * L_KV_DIM * L_DIM + L_DIM * L_DIM), &next);
    add_floats(b, L_LAYERS * (L_DIM + 3 * L_DIM * L_HIDDEN), &next);
    add_floats(b, L_DIM + L_SEQ * L_HEAD, &next);
    if (!tied) add_floats(b, L_VOCAB * L_DIM, &next);
}

static void build_v1(bytes *b, bool tied) {
    const int32_t header[9] = {0x616b3432, 1,    L_DIM,   L_HIDDEN, L_LAYERS,
                               L_HEADS,    L_KV, L_VOCAB, L_SEQ};
    float next = 0;
    memset(b->data, 0, 256);
    b->n = 0;
    add(b, header, sizeof header);
    b->data[36] = tied;
    b->n = 256;
    add_floats(b, 2 * L_LAYERS * L_DIM + L_DIM + L_VOCAB * L_DIM, &next);
    add_floats(b, L_LAYERS * (2 * L_DIM * L_DIM + 2 * L_KV_DIM * L_DIM + 3 * L_DIM * L_HIDDEN),
               &next);
    if (!tied) add_floats(b, L_VOCAB * L_DIM, &next);
}

static cca_gguf *export_bytes(const bytes *b) {
    write_bytes(in_folder("m.bin"), b->data, b->n);
    return export_model((cca_export_options){.input = in_folder("m.bin")});
}

/* Where a tensor's first value stood, counted in floats. */
static int first_of(const cca_gguf *file, const char *name) {
    return (int)value_at(file, name, 0, 0);
}

static void llama2c_v0(void **state) {
    (void)state;
    bytes b;
    build_v0(&b, false);
    cca_gguf *file = export_bytes(&b);
    const int embedding = L_VOCAB * L_DIM, square = L_DIM * L_DIM, kv = L_KV_DIM * L_DIM;
    int at = embedding;
    assert_int_equal(first_of(file, "token_embd.weight"), 0);
    assert_int_equal(first_of(file, "blk.0.attn_norm.weight"), at);
    assert_int_equal(first_of(file, "blk.1.attn_norm.weight"), at + L_DIM);
    at += L_LAYERS * L_DIM;
    assert_int_equal(first_of(file, "blk.0.attn_q.weight"), at);
    assert_int_equal(first_of(file, "blk.1.attn_q.weight"), at + square);
    assert_true(value_at(file, "blk.1.attn_q.weight", 3, 2) ==
                (float)(at + square + 3 * L_DIM + 2));
    at += L_LAYERS * square;
    assert_int_equal(first_of(file, "blk.1.attn_k.weight"), at + kv);
    at += L_LAYERS * kv;
    assert_int_equal(first_of(file, "blk.1.attn_v.weight"), at + kv);
    at += L_LAYERS * kv;
    assert_int_equal(first_of(file, "blk.1.attn_output.weight"), at + square);
    at += L_LAYERS * square;
    assert_int_equal(first_of(file, "blk.1.ffn_norm.weight"), at + L_DIM);
    at += L_LAYERS * L_DIM;
    assert_int_equal(first_of(file, "blk.0.ffn_gate.weight"), at);
    at += L_LAYERS * L_DIM * L_HIDDEN;
    assert_int_equal(first_of(file, "blk.1.ffn_down.weight"), at + L_DIM * L_HIDDEN);
    assert_int_equal(cca_gguf_find(file, "blk.1.ffn_down.weight")->dims[0], L_HIDDEN);
    at += L_LAYERS * L_DIM * L_HIDDEN;
    assert_int_equal(first_of(file, "blk.0.ffn_up.weight"), at);
    at += L_LAYERS * L_DIM * L_HIDDEN;
    assert_int_equal(first_of(file, "output_norm.weight"), at);
    at += L_DIM + L_SEQ * L_HEAD;
    assert_int_equal(first_of(file, "output.weight"), at);
    assert_int_equal(u32_of(file, "llama.context_length"), L_SEQ);
    assert_int_equal(u32_of(file, "llama.vocab_size"), L_VOCAB);
    assert_true(f32_of(file, "llama.attention.layer_norm_rms_epsilon") == 1e-5f);
    expect_text(file, "general.name", "m");
    cca_gguf_close(file);

    build_v0(&b, true);
    file = export_bytes(&b);
    assert_null(cca_gguf_find(file, "output.weight"));
    cca_gguf_close(file);
}

static void llama2c_v1(void **state) {
    (void)state;
    bytes b;
    build_v1(&b, false);
    cca_gguf *file = export_bytes(&b);
    const int square = L_DIM * L_DIM, kv = L_KV_DIM * L_DIM;
    assert_int_equal(first_of(file, "blk.1.attn_norm.weight"), L_DIM);
    assert_int_equal(first_of(file, "blk.0.ffn_norm.weight"), L_LAYERS * L_DIM);
    assert_int_equal(first_of(file, "output_norm.weight"), 2 * L_LAYERS * L_DIM);
    int at = 2 * L_LAYERS * L_DIM + L_DIM;
    assert_int_equal(first_of(file, "token_embd.weight"), at);
    at += L_VOCAB * L_DIM;
    assert_int_equal(first_of(file, "blk.1.attn_q.weight"), at + square);
    at += L_LAYERS * square;
    assert_int_equal(first_of(file, "blk.0.attn_k.weight"), at);
    assert_int_equal(first_of(file, "blk.0.attn_v.weight"), at + L_LAYERS * kv);
    at += 2 * L_LAYERS * kv;
    assert_int_equal(first_of(file, "blk.0.attn_output.weight"), at);
    at += L_LAYERS * square;
    assert_int_equal(first_of(file, "blk.0.ffn_gate.weight"), at);
    at += L_LAYERS * L_DIM * L_HIDDEN;
    assert_int_equal(first_of(file, "blk.0.ffn_down.weight"), at);
    at += L_LAYERS * L_DIM * L_HIDDEN;
    assert_int_equal(first_of(file, "blk.0.ffn_up.weight"), at);
    assert_int_equal(first_of(file, "output.weight"), at + L_LAYERS * L_DIM * L_HIDDEN);
    cca_gguf_close(file);

    build_v1(&b, true);
    file = export_bytes(&b);
    assert_null(cca_gguf_find(file, "output.weight"));
    cca_gguf_close(file);
}

static void expect_bad_bytes(const bytes *b, const char *message) {
    write_bytes(in_folder("m.bin"), b->data, b->n);
    expect_failure((cca_export_options){.input = in_folder("m.bin")}, CCA_BAD_MODEL, message);
}

static void bad_llama2c(void **state) {
    (void)state;
    static bytes b; /* zeroed: lengthening it writes bytes that nobody set */
    static const char size[] = "do not match the sizes in its llama2.c header";
    for (int version = 0; version < 2; version++) {
        for (int tied = 0; tied < 2; tied++) {
            version ? build_v1(&b, tied) : build_v0(&b, tied);
            b.n -= 4;
            expect_bad_bytes(&b, size);
            b.n += 8;
            expect_bad_bytes(&b, size);
        }
    }
    build_v0(&b, true);
    b.n = 27;
    expect_bad_bytes(&b, "truncated");
    build_v1(&b, true);
    b.n = 255;
    expect_bad_bytes(&b, "truncated");
    b.data[4] = 2;
    expect_bad_bytes(&b, "version 2");
    const struct {
        int index;
        int32_t value;
        const char *message;
    } headers[] = {
        {0, 0, "dim 0"},        {0, 9, "dim 9 is no multiple of n_heads 2"},
        {0, 6, "head_dim 3"},   {1, -1, "hidden_dim -1"},
        {2, 0, "n_layers 0"},   {2, 1 << 30, "n_layers"},
        {3, 0, "n_heads 0"},    {4, 3, "n_kv_heads 3"},
        {4, 0, "n_kv_heads 0"}, {5, 0, "vocab_size 0"},
        {6, 0, "seq_len 0"},    {5, INT32_MIN, "vocab_size 2147483648"},
        {6, INT32_MAX, size},   {1, INT32_MAX, size},
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        build_v0(&b, true);
        memcpy(b.data + 4 * headers[i].index, &headers[i].value, 4);
        expect_bad_bytes(&b, headers[i].message);
    }
    float nan = NAN;
    build_v0(&b, true);
    memcpy(b.data + 28 + 4 * (size_t)(L_DIM + 3), &nan, 4);
    expect_bad_bytes(&b, "tensor 'token_embd.weight', row 1: a value is not finite");
}

/* The real file: every tensor is at its place, and the tokenizer is llama2.c's. */
static void stories260k(void **state) {
    (void)state;
    if (!present(stories, "stories260k") || !present(stories_tokenizer, "stories260k")) skip();
    cca_gguf *file = export_model(
        (cca_export_options){.input = stories, .tokenizer = stories_tokenizer, .has_type = true});
    FILE *f = fopen(stories, "rb");
    assert_non_null(f);
    float values[64 * 512];
    assert_int_equal(fseek(f, 28, SEEK_SET), 0);
    assert_int_equal(fread(values, sizeof *values, 64 * 512, f), 64 * 512);
    fclose(f);
    assert_memory_equal(cca_gguf_find(file, "token_embd.weight")->data, values, sizeof values);
    assert_int_equal(cca_gguf_n_tensors(file), 5 * 9 + 2);
    assert_int_equal(u32_of(file, "llama.attention.head_count_kv"), 4);
    assert_int_equal(u32_of(file, "general.file_type"), 0);
    expect_text(file, "tokenizer.ggml.model", "llama");
    expect_token(file, 0, "<unk>", 2);
    expect_token(file, 1, "<s>", 3);
    expect_token(file, 2, "</s>", 3);
    expect_token(file, 3, "<0x00>", 6);
    expect_token(file, 258, "<0xFF>", 6);
    expect_token(file, 260, "he", 1);
    expect_token(file, 403, "▁Once", 1);
    cca_gguf_array scores = array_of(file, "tokenizer.ggml.scores");
    assert_true(cca_gguf_array_number(&scores, 403) == -144);
    assert_int_equal(u32_of(file, "tokenizer.ggml.bos_token_id"), 1);
    assert_int_equal(u32_of(file, "tokenizer.ggml.eos_token_id"), 2);
    assert_int_equal(u32_of(file, "tokenizer.ggml.unknown_token_id"), 0);
    assert_true(bool_of(file, "tokenizer.ggml.add_bos_token"));
    assert_false(bool_of(file, "tokenizer.ggml.add_eos_token"));
    assert_true(bool_of(file, "tokenizer.ggml.add_space_prefix"));
    assert_false(cca_gguf_has(file, "cca.tokenizer.sentencepiece"));
    assert_int_equal(array_of(file, "cca.crc32").n, 5 * 9 + 2);
    cca_gguf_close(file);

    /* Rows of 172 values do not fit blocks of 32. */
    file = export_model((cca_export_options){.input = stories, .has_type = true, .type = CCA_Q8_0});
    assert_int_equal(type_of(file, "blk.0.ffn_down.weight"), CCA_F16);
    assert_int_equal(type_of(file, "blk.0.ffn_up.weight"), CCA_Q8_0);
    assert_non_null(strstr(warnings, "5 tensors have rows that are no multiple of 32"));
    cca_gguf_close(file);
}

/* --- SentencePiece ------------------------------------------------------------------- */

static void add_varint(bytes *b, uint64_t value) {
    for (; value >= 0x80; value >>= 7) add(b, &(uint8_t){(uint8_t)(value | 0x80)}, 1);
    add(b, &(uint8_t){(uint8_t)value}, 1);
}

static void add_number(bytes *b, int field, uint64_t value) {
    add_varint(b, (uint64_t)field << 3);
    add_varint(b, value);
}

static void add_message(bytes *b, int field, const void *data, size_t n) {
    add_varint(b, (uint64_t)field << 3 | 2);
    add_varint(b, n);
    add(b, data, n);
}

static void add_piece(bytes *b, const char *text, float score, int type) {
    bytes piece = {.n = 0};
    add_message(&piece, 1, text, strlen(text));
    add_varint(&piece, 2 << 3 | 5);
    add(&piece, &score, sizeof score);
    if (type != 1) add_number(&piece, 3, (uint64_t)type);
    add_message(b, 1, piece.data, piece.n);
}

/* Seven pieces, bos 3, eos 2, pad none; no dummy prefix. */
static void build_sentencepiece(bytes *b) {
    bytes trainer = {.n = 0}, normalizer = {.n = 0};
    b->n = 0;
    add_piece(b, "<unk>", 0, 2);
    add_piece(b, "b", 0, 1);
    add_piece(b, "</s>", 0, 3);
    add_piece(b, "<s>", 0, 3);
    add_piece(b, "▁the", -1.5f, 1);
    add_piece(b, "user", -2, 4);
    add_piece(b, "old", -3, 5);
    add_message(&trainer, 1, "input.txt", 9);
    add_number(&trainer, 3, 2);
    add_message(b, 2, trainer.data, trainer.n);
    add_message(&normalizer, 1, "identity", 8);
    add_number(&normalizer, 3, 0);
    add_number(&normalizer, 4, 0);
    add_message(b, 3, normalizer.data, normalizer.n);
}

static cca_export_options with_tokenizer(const bytes *b, int64_t vocab_size) {
    static cca_random_shape shape;
    shape = (cca_random_shape){8, 1, 2, 1, 8, vocab_size, 1};
    write_bytes(in_folder("tokenizer.model"), b->data, b->n);
    return (cca_export_options){.random = &shape, .tokenizer = in_folder("tokenizer.model")};
}

static void sentencepiece(void **state) {
    (void)state;
    bytes b;
    build_sentencepiece(&b);
    cca_gguf *file = export_model(with_tokenizer(&b, 9));
    assert_int_equal(array_of(file, "tokenizer.ggml.tokens").n, 9);
    expect_token(file, 0, "<unk>", 2);
    expect_token(file, 1, "b", 1);
    expect_token(file, 3, "<s>", 3);
    expect_token(file, 4, "▁the", 1);
    expect_token(file, 5, "user", 4);
    expect_token(file, 6, "old", 5);
    expect_token(file, 7, "[PAD7]", 5);
    expect_token(file, 8, "[PAD8]", 5);
    cca_gguf_array scores = array_of(file, "tokenizer.ggml.scores");
    assert_true(cca_gguf_array_number(&scores, 4) == -1.5);
    assert_int_equal(u32_of(file, "tokenizer.ggml.bos_token_id"), 3);
    assert_int_equal(u32_of(file, "tokenizer.ggml.eos_token_id"), 2);
    assert_int_equal(u32_of(file, "tokenizer.ggml.unknown_token_id"), 0);
    assert_false(cca_gguf_has(file, "tokenizer.ggml.padding_token_id"));
    assert_false(bool_of(file, "tokenizer.ggml.add_space_prefix"));
    assert_false(bool_of(file, "tokenizer.ggml.remove_extra_whitespaces"));
    cca_gguf_array model = array_of(file, "cca.tokenizer.sentencepiece");
    assert_int_equal(model.type, CCA_GGUF_U8);
    assert_int_equal(model.n, b.n);
    assert_memory_equal(model.data, b.data, b.n);
    assert_non_null(strstr(warnings, "has 7 pieces; the model's other 2 tokens"));
    cca_gguf_close(file);
    unlink(in_folder("out.gguf"));
    expect_failure(with_tokenizer(&b, 6), CCA_BAD_MODEL, "7 pieces, but the model has only 6");
}

static void expect_bad_tokenizer(const bytes *b, const char *message) {
    write_bytes(in_folder("tokenizer.model"), "", 0); /* so that no file is new */
    expect_failure(with_tokenizer(b, 9), CCA_BAD_MODEL, message);
}

static void bad_tokenizers(void **state) {
    (void)state;
    bytes whole, b;
    cca_error err;
    build_sentencepiece(&whole);
    for (size_t n = 1; n < whole.n; n++) {
        b = whole;
        b.n = n;
        cca_export_options o = with_tokenizer(&b, 9);
        o.output = in_folder("cut.gguf");
        cca_status status = run_export(o, &err);
        assert_true(!status || status == CCA_BAD_MODEL);
    }
    b = whole;
    b.n -= 1;
    expect_bad_tokenizer(&b, "tokenizer.model: damaged SentencePiece model");
    build_sentencepiece(&b);
    add(&b, "\x0b", 1); /* a group */
    expect_bad_tokenizer(&b, "damaged SentencePiece model");
    build_sentencepiece(&b);
    add_number(&b, 1, 7); /* a piece that is a number */
    expect_bad_tokenizer(&b, "damaged SentencePiece model");
    build_sentencepiece(&b);
    add_piece(&b, "x", 0, 9);
    expect_bad_tokenizer(&b, "unknown type of a piece");
    build_sentencepiece(&b);
    add_piece(&b, "x", INFINITY, 1);
    expect_bad_tokenizer(&b, "the score of piece 7 is not finite");

    static const char bin[] = "\5\0\0\0"
                              "\0\0\0\0\5\0\0\0<unk>\0\0\0\0\3\0\0\0<s>\0\0\0\0\4\0\0\0</s>";
    b.n = 0;
    add(&b, bin, sizeof bin - 1);
    cca_gguf *file = export_model(with_tokenizer(&b, 9));
    expect_token(file, 2, "</s>", 3);
    expect_token(file, 3, "[PAD3]", 5);
    cca_gguf_close(file);
    unlink(in_folder("out.gguf"));
    b.n -= 1;
    expect_bad_tokenizer(&b, "token 2");
    b.n = 4;
    expect_bad_tokenizer(&b, "token 0");
    b.n = 3;
    expect_bad_tokenizer(&b, "token 0");
    b.n = sizeof bin - 1;
    b.data[13] = 'U';
    expect_bad_tokenizer(&b, "token 0 is not <unk>");
}

static void llama2_vocabulary(void **state) {
    (void)state;
    if (!present(llama2_tokenizer, "llama2_vocabulary")) skip();
    cca_random_shape shape = {8, 1, 2, 1, 8, 32000, 1};
    cca_gguf *file =
        export_model((cca_export_options){.random = &shape, .tokenizer = llama2_tokenizer});
    assert_int_equal(array_of(file, "tokenizer.ggml.tokens").n, 32000);
    expect_token(file, 1, "<s>", 3);
    expect_token(file, 258, "<0xFF>", 6);
    expect_token(file, 259, "▁▁", 1);
    expect_token(file, 260, "▁t", 1);
    expect_token(file, 31999, "给", 1);
    cca_gguf_array scores = array_of(file, "tokenizer.ggml.scores");
    assert_true(cca_gguf_array_number(&scores, 259) == -1e9);
    assert_true(cca_gguf_array_number(&scores, 31999) == -31740);
    assert_true(bool_of(file, "tokenizer.ggml.add_space_prefix"));
    assert_false(bool_of(file, "tokenizer.ggml.remove_extra_whitespaces"));
    assert_int_equal(array_of(file, "cca.tokenizer.sentencepiece").n, 499723);
    cca_gguf_close(file);
}

/* --- random weights and types -------------------------------------------------------- */

static const cca_random_shape small = {64, 2, 4, 2, 96, 50, 7};

static void same_random_bytes(void **state) {
    (void)state;
    cca_random_shape other = small;
    other.seed = 8;
    cca_export_options o = {.random = &small,
                            .has_type = true,
                            .type = CCA_Q8_0,
                            .n_threads = 1,
                            .output = in_folder("one.gguf")};
    cca_gguf *one = export_model(o);
    o.n_threads = 3;
    o.output = in_folder("three.gguf");
    cca_gguf *three = export_model(o);
    o.random = &other;
    o.output = in_folder("other.gguf");
    cca_gguf *changed = export_model(o);
    assert_int_equal(cca_gguf_size(one), cca_gguf_size(three));
    assert_int_equal(cca_gguf_n_tensors(one), 2 * 9 + 3);
    for (uint64_t i = 0; i < cca_gguf_n_tensors(one); i++) {
        const cca_gguf_tensor *a = cca_gguf_tensor_at(one, i), *b = cca_gguf_tensor_at(three, i);
        const cca_gguf_tensor *c = cca_gguf_tensor_at(changed, i);
        assert_memory_equal(a->data, b->data, a->bytes);
        assert_memory_not_equal(a->data, c->data, a->bytes);
    }
    cca_gguf_string a, b, c;
    cca_gguf_str(&a, one, "cca.fingerprint", NULL, NULL);
    cca_gguf_str(&b, three, "cca.fingerprint", NULL, NULL);
    cca_gguf_str(&c, changed, "cca.fingerprint", NULL, NULL);
    assert_int_equal(a.size, 16);
    assert_memory_equal(a.bytes, b.bytes, 16);
    assert_memory_not_equal(a.bytes, c.bytes, 16);
    cca_gguf_close(one);
    cca_gguf_close(three);
    cca_gguf_close(changed);
}

/* A matrix keeps the deviation of what it is multiplied with: 1/sqrt(cols). */
static void random_deviation(void **state) {
    (void)state;
    cca_gguf *file =
        export_model((cca_export_options){.random = &small, .has_type = true, .type = CCA_F32});
    double mean = 0, square = 0;
    for (int row = 0; row < 96; row++) {
        for (int col = 0; col < 64; col++) {
            double v = (double)value_at(file, "blk.1.ffn_up.weight", row, col);
            mean += v / (96 * 64);
            square += v * v / (96 * 64);
        }
    }
    test_below(fabs(mean), 0.01, "mean");
    test_below(fabs(sqrt(square) * 8 - 1), 0.05, "deviation");
    assert_true(value_at(file, "blk.0.ffn_up.weight", 0, 0) !=
                value_at(file, "blk.1.ffn_up.weight", 0, 0));
    assert_true(value_at(file, "output_norm.weight", 0, 0) > 0.5f);
    assert_int_equal(u32_of(file, "llama.context_length"), 131072);
    cca_gguf_close(file);
}

static void types(void **state) {
    (void)state;
    static const struct {
        cca_dtype type;
        uint32_t file_type, output;
        float bound; /* largest error, in units of the values' deviation */
    } cases[] = {
        {CCA_F32, 0, CCA_F32, 1e-9f},    {CCA_F16, 1, CCA_F16, 2e-3f},
        {CCA_BF16, 32, CCA_BF16, 1e-2f}, {CCA_Q8_0, 7, CCA_Q8_0, 2e-2f},
        {CCA_Q4_0, 2, CCA_Q8_0, 0.4f},
    };
    cca_export_options o = {.random = &small, .has_type = true, .output = in_folder("f32.gguf")};
    cca_gguf *exact = export_model(o);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        o.type = cases[i].type;
        o.output = in_folder("typed.gguf");
        cca_gguf *file = export_model(o);
        assert_int_equal(type_of(file, "blk.0.attn_v.weight"), cases[i].type);
        assert_int_equal(type_of(file, "token_embd.weight"), cases[i].type);
        assert_int_equal(type_of(file, "output.weight"), cases[i].output);
        assert_int_equal(type_of(file, "blk.0.attn_norm.weight"), CCA_F32);
        assert_int_equal(u32_of(file, "general.file_type"), cases[i].file_type);
        assert_int_equal(cca_gguf_has(file, "general.quantization_version"),
                         cases[i].type == CCA_Q8_0 || cases[i].type == CCA_Q4_0);
        for (int row = 0; row < 32; row++) {
            for (int col = 0; col < 64; col++) {
                float a = value_at(exact, "blk.0.attn_v.weight", row, col);
                float b = value_at(file, "blk.0.attn_v.weight", row, col);
                test_below(fabsf(a - b) * 8, cases[i].bound, cca_dtype_name(cases[i].type));
            }
        }
        cca_gguf_close(file);
    }
    cca_gguf_close(exact);
}

static void bad_options(void **state) {
    (void)state;
    cca_random_shape shape = small;
    cca_error err;
    assert_int_equal(run_export((cca_export_options){.random = &small}, &err), CCA_USAGE);
    expect_failure((cca_export_options){0}, CCA_USAGE, "either an input or --random");
    expect_failure((cca_export_options){.input = "x", .random = &small}, CCA_USAGE, "either");
    expect_failure((cca_export_options){.random = &small, .group_size = 48}, CCA_USAGE, "48");
    expect_failure((cca_export_options){.random = &small, .window_size = 8}, CCA_USAGE, "8");
    shape.n_heads = 5;
    expect_failure((cca_export_options){.random = &shape}, CCA_USAGE, "dim 64 is no multiple of 5");
    shape.n_heads = 0;
    expect_failure((cca_export_options){.random = &shape}, CCA_USAGE, "0 heads");
    shape = small;
    shape.vocab_size = -1;
    expect_failure((cca_export_options){.random = &shape}, CCA_USAGE, "vocab_size -1");
    shape = small;
    shape.n_kv_heads = 3;
    expect_failure((cca_export_options){.random = &shape}, CCA_USAGE, "n_kv_heads 3");
}

/* --- the output ---------------------------------------------------------------------- */

static void f16_overflow(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "F32", true, false);
    const char *hf = hf_folder(&m, "llama", "");
    FILE *f = fopen(in_folder("hf/model.safetensors"), "r+b");
    float large = -65520;
    assert_non_null(f);
    assert_int_equal(fseek(f, -(long)sizeof large * (DIM + 1), SEEK_END), 0); /* before the norm */
    assert_int_equal(fwrite(&large, sizeof large, 1, f), 1);
    fclose(f);
    cca_export_options o = {.input = hf, .has_type = true, .type = CCA_F16};
    expect_failure(o, CCA_BAD_MODEL, "tensor 'blk.1.ffn_down.weight', row 31: 65520 is too large");
    o.type = CCA_BF16;
    cca_gguf_close(export_model(o));
}

static void bad_outputs(void **state) {
    (void)state;
    cca_export_options o = {.random = &small};
    o.output = in_folder("none/out.gguf");
    expect_failure(o, CCA_BAD_OUTPUT, "none/out.gguf: cannot create");
    o.output = test_folder;
    expect_failure(o, CCA_BAD_OUTPUT, "is a folder");
    o.output = "/dev/null";
    expect_failure(o, CCA_BAD_OUTPUT, "not a regular file");
    bytes b;
    build_v0(&b, true);
    write_bytes(in_folder("m.bin"), b.data, b.n);
    expect_failure((cca_export_options){.input = in_folder("m.bin"), .output = in_folder("m.bin")},
                   CCA_USAGE, "is both input and output");
}

/* A failure while writing leaves what was there before, and nothing else. */
static void full_disk(void **state) {
    (void)state;
    struct rlimit old, tight;
    cca_error err;
    const char *path = in_folder("out.gguf");
    write_text(path, "before");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 20000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    cca_status status = run_export((cca_export_options){.random = &small, .output = path}, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, "out.gguf: cannot "));
    assert_int_equal(count_files(test_folder), 1);
    char text[8] = "";
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    fclose(f);
    assert_string_equal(text, "before");
}

typedef struct seen {
    uint64_t done, total;
    int calls;
    volatile sig_atomic_t stop;
} seen;

static void on_progress(void *user, uint64_t done, uint64_t total, const char *tensor) {
    seen *s = user;
    assert_true(done > s->done && done <= total);
    assert_true(strlen(tensor) > 0);
    s->done = done;
    s->total = total;
    s->calls++;
    s->stop = s->calls == 5;
}

static void progress_and_stop(void **state) {
    (void)state;
    seen s = {0};
    cca_error err;
    cca_export_options o = {
        .random = &small, .output = in_folder("out.gguf"), .user = &s, .on_progress = on_progress};
    assert_int_equal(cca_export(&o, &err), CCA_OK);
    assert_int_equal(s.done, s.total);
    assert_int_equal(s.calls, 2 * 9 + 3);
    assert_int_equal(count_files(test_folder), 1);
    s = (seen){0};
    o.stop = &s.stop;
    o.output = in_folder("second.gguf");
    assert_int_equal(cca_export(&o, &err), CCA_INTERRUPTED);
    assert_int_equal(s.calls, 5);
    assert_int_equal(count_files(test_folder), 1);
}

/* A link stays a link: the file that it names is replaced. */
static void through_link(void **state) {
    (void)state;
    struct stat st;
    write_text(in_folder("real.gguf"), "before");
    assert_int_equal(symlink("real.gguf", in_folder("link.gguf")), 0);
    cca_gguf_close(
        export_model((cca_export_options){.random = &small, .output = in_folder("link.gguf")}));
    assert_int_equal(lstat(in_folder("link.gguf"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(count_files(test_folder), 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(llama2c_v0),        TEST(llama2c_v1),
        TEST(bad_llama2c),       TEST(stories260k),
        TEST(sentencepiece),     TEST(bad_tokenizers),
        TEST(llama2_vocabulary), TEST(same_random_bytes),
        TEST(random_deviation),  TEST(types),
        TEST(bad_options),       TEST(f16_overflow),
        TEST(bad_outputs),       TEST(full_disk),
        TEST(progress_and_stop), TEST(through_link),
    };
    return cmocka_run_group_tests_name("export", tests, NULL, NULL);
}
