/* Models that are well-formed files and absurd: refused by name, by the check that stands before
 * memory is taken for what they only claim to have. */
#include "backend/backend.h"
#include "gguf/config.h"
#include "model.h"
#include "test.h"

typedef struct builder {
    uint8_t bytes[4096];
    size_t size;
} builder;

static void put(builder *b, const void *bytes, size_t n) {
    assert_true(b->size + n <= sizeof b->bytes);
    memcpy(b->bytes + b->size, bytes, n);
    b->size += n;
}

static void put_u32(builder *b, uint32_t v) {
    put(b, &v, sizeof v);
}

static void put_u64(builder *b, uint64_t v) {
    put(b, &v, sizeof v);
}

static void put_string(builder *b, const char *s) {
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

/* The sizes that a file claims, all of them 64 bits wide. */
typedef struct claims {
    uint64_t dim, hidden_dim, n_layers, n_heads, n_kv_heads, context, head_dim, vocab, original;
    uint64_t vocab_cols, type; /* of the embedding, the only tensor */
    uint64_t array, last;      /* head_count_kv is a list of so many; its last element, unless 0 */
} claims;

static const claims sane = {.dim = 8,
                            .hidden_dim = 16,
                            .n_layers = 1,
                            .n_heads = 2,
                            .n_kv_heads = 1,
                            .context = 64,
                            .head_dim = 4,
                            .vocab = 4,
                            .original = 64,
                            .vocab_cols = 8};

static void build(builder *b, const claims *c) {
    const struct {
        const char *key;
        uint64_t value;
    } keys[] = {
        {"llama.embedding_length", c->dim},
        {"llama.feed_forward_length", c->hidden_dim},
        {"llama.block_count", c->n_layers},
        {"llama.attention.head_count", c->n_heads},
        {"llama.context_length", c->context},
        {"llama.attention.key_length", c->head_dim},
        {"llama.attention.value_length", c->head_dim},
        {"llama.rope.scaling.original_context_length", c->original},
    };
    enum { N = sizeof keys / sizeof *keys };
    b->size = 0;
    put(b, "GGUF", 4);
    put_u32(b, 3);
    put_u64(b, 1);
    put_u64(b, N + 3);
    put_string(b, "general.architecture");
    put_u32(b, CCA_GGUF_STRING);
    put_string(b, "llama");
    put_string(b, "llama.attention.layer_norm_rms_epsilon");
    put_u32(b, CCA_GGUF_F32);
    put(b, &(float){1e-5f}, sizeof(float));
    for (int i = 0; i < N; i++) {
        put_string(b, keys[i].key);
        put_u32(b, CCA_GGUF_U64);
        put_u64(b, keys[i].value);
    }
    put_string(b, "llama.attention.head_count_kv");
    put_u32(b, c->array ? CCA_GGUF_ARRAY : CCA_GGUF_U64);
    if (c->array) {
        put_u32(b, CCA_GGUF_U64);
        put_u64(b, c->array);
    }
    for (uint64_t i = 0; i + 1 < c->array; i++) put_u64(b, c->n_kv_heads);
    put_u64(b, c->last ? c->last : c->n_kv_heads);
    put_string(b, "token_embd.weight");
    put_u32(b, 2);
    put_u64(b, c->vocab_cols);
    put_u64(b, c->vocab);
    put_u32(b, (uint32_t)c->type);
    put_u64(b, 0);
    while (b->size % 32 != 0) put(b, "", 1);
}

/* Opens a model of these claims, whose file ends with tensor_bytes of zeros; expects a refusal
 * that says this. */
static void expect_refusal(claims c, size_t tensor_bytes, const char *message) {
    builder b;
    cca_gguf *file;
    cca_error err = {.text = ""};
    cca_backend *backend;
    const cca_backend_options options = {.n_threads = 1};
    cca_model *model = NULL;
    build(&b, &c);
    /* Nothing is written behind the header: pages that nobody touches take no memory. */
    uint8_t *data = calloc(1, b.size + tensor_bytes);
    assert_non_null(data);
    memcpy(data, b.bytes, b.size);
    cca_status status = cca_gguf_parse(&file, data, b.size + tensor_bytes, "absurd.gguf", &err);
    if (!status) {
        assert_int_equal(cca_backend_open(&backend, "cpu", &options, &err), CCA_OK);
        status = cca_model_open(&model, file, backend, &err);
        cca_backend_close(backend);
    }
    cca_gguf_close(file);
    if (status != CCA_BAD_MODEL || !strstr(err.text, "absurd.gguf: ") ||
        !strstr(err.text, message)) {
        fail_msg("status %d, '%s' without '%s'", status, err.text, message);
    }
    assert_null(model);
    free(data);
}

static void counts(void **state) {
    (void)state;
    claims c = sane;
    expect_refusal(c, 128, "tensor blk.0.attn_norm.weight is missing");
    c.n_layers = 0;
    expect_refusal(c, 128, "llama.block_count: 0 is outside 1 … 4096");
    c.n_layers = 1000000;
    expect_refusal(c, 128, "llama.block_count: 1000000 is outside 1 … 4096");
    c.n_layers = 4096;
    expect_refusal(c, 128, "block_count is 4096, but the file has 1 tensors");
    c = sane;
    c.n_heads = 0;
    expect_refusal(c, 128, "llama.attention.head_count: 0");
    c.n_heads = 1u << 31;
    expect_refusal(c, 128, "llama.attention.head_count: 2147483648");
    c.n_heads = 1 << 20;
    c.n_kv_heads = 1 << 20;
    c.head_dim = 4096;
    expect_refusal(c, 128, "tensor blk.0.attn_norm.weight is missing");
    c = sane;
    c.n_kv_heads = 3;
    expect_refusal(c, 128, "no multiple of attention.head_count_kv");
    /* A list of equal numbers is the number. */
    c.n_kv_heads = 1;
    c.array = c.n_layers = 2;
    expect_refusal(c, 128, "block_count is 2, but the file has 1 tensors");
    c.last = 2;
    expect_refusal(c, 128, "head_count_kv: layers that differ are not supported: 1 and 2");
    c.last = 0;
    c.array = 3;
    expect_refusal(c, 128, "llama.attention.head_count_kv is no list of 2 numbers");
    c.array = 2;
    c.n_kv_heads = 1u << 31;
    expect_refusal(c, 128, "llama.attention.head_count_kv: 2.14748e+09 is outside");
}

static void sizes(void **state) {
    (void)state;
    claims c = sane;
    c.context = 1ull << 60;
    expect_refusal(c, 128, "llama.context_length: 1152921504606846976");
    c = sane;
    c.original = 1ull << 60;
    expect_refusal(c, 128, "original_context_length: 1152921504606846976");
    c = sane;
    c.dim = 0;
    expect_refusal(c, 128, "llama.embedding_length: 0");
    c.dim = UINT64_MAX;
    expect_refusal(c, 128, "llama.embedding_length: 18446744073709551615");
    c = sane;
    c.hidden_dim = 1ull << 40;
    expect_refusal(c, 128, "llama.feed_forward_length: 1099511627776");
    c = sane;
    c.head_dim = 1 << 20;
    expect_refusal(c, 128, "llama.attention.key_length: 1048576");
    c.head_dim = 3;
    expect_refusal(c, 128, "the width of a head must be even");
    c = sane;
    c.dim = 16;
    expect_refusal(c, 128, "tensor token_embd.weight has shape [8, 4], not [16, 4]");
}

/* 2^31 tokens: such a tensor must lie in the file, so it takes one of that size to get as far as
 * the limit on tokens. */
static void vocabulary(void **state) {
    (void)state;
    claims c = sane;
    c.vocab = 1ull << 31;
    expect_refusal(c, 128, "'token_embd.weight': truncated");
    c.vocab_cols = 1ull << 62;
    expect_refusal(c, 128, "'token_embd.weight': its dimensions overflow");
    c.vocab_cols = 1;
    c.type = 24; /* I8: a byte a value */
    expect_refusal(c, 1ull << 31, "token_embd.weight: its number of rows is outside 1 … 16777216");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),
        cmocka_unit_test(sizes),
        cmocka_unit_test(vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
