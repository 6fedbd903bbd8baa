/* The list of tensors: names, shapes and needs of each role, and what holds for all of them. */
#include "layer.h"

#include "tests/unit/test.h"

static const cca_config llama = {.arch = &cca_archs[CCA_ARCH_LLAMA],
                                 .dim = 64,
                                 .hidden_dim = 96,
                                 .n_layers = 2,
                                 .n_heads = 4,
                                 .n_kv_heads = 2,
                                 .head_dim = 32,
                                 .vocab_size = 300};

static void names(void **state) {
    (void)state;
    char name[CCA_TENSOR_NAME], other[CCA_TENSOR_NAME];
    cca_tensor_name(name, CCA_EMBEDDING, 7, llama.arch);
    assert_string_equal(name, "token_embd.weight");
    assert_false(cca_tensor_of_layer(name));
    cca_tensor_name(name, CCA_ATTN_OUT, CCA_MAX_LAYERS, llama.arch);
    assert_string_equal(name, "blk.4096.attn_output.weight");
    assert_true(cca_tensor_of_layer(name));
    for (cca_role a = 0; a < CCA_N_ROLES; a++) {
        assert_non_null(cca_tensors[a].name);
        assert_true(cca_tensors[a].hf_name || cca_tensor_of_rope(cca_tensors[a].name));
        for (cca_role b = 0; b < a; b++) {
            cca_tensor_name(name, a, 3, llama.arch);
            cca_tensor_name(other, b, 3, llama.arch);
            assert_string_not_equal(name, other);
        }
    }
}

static void expect_shape(cca_role role, int64_t rows, int64_t cols, bool vector) {
    cca_shape shape = cca_tensor_shape(role, &llama);
    assert_int_equal(shape.rows, rows);
    assert_int_equal(shape.cols, cols);
    assert_int_equal(shape.vector, vector);
}

static void shapes(void **state) {
    (void)state;
    expect_shape(CCA_EMBEDDING, 300, 64, false);
    expect_shape(CCA_OUTPUT, 300, 64, false);
    expect_shape(CCA_ROPE_DIVISORS, 16, 1, true);
    expect_shape(CCA_ATTN_NORM, 64, 1, true);
    expect_shape(CCA_ATTN_Q, 128, 64, false);
    expect_shape(CCA_ATTN_K, 64, 64, false);
    expect_shape(CCA_ATTN_V_BIAS, 64, 1, true);
    expect_shape(CCA_ATTN_OUT, 64, 128, false);
    expect_shape(CCA_FFN_UP, 96, 64, false);
    expect_shape(CCA_FFN_DOWN, 64, 96, false);
}

static void needs(void **state) {
    (void)state;
    cca_config c = llama;
    assert_true(cca_tensor_needed(CCA_EMBEDDING, &c) && cca_tensor_needed(CCA_FFN_DOWN, &c));
    assert_true(cca_tensor_needed(CCA_OUTPUT, &c));
    c.tied = true;
    assert_false(cca_tensor_needed(CCA_OUTPUT, &c));
    assert_false(cca_tensor_needed(CCA_ATTN_K_BIAS, &c));
    c.has_bias = true;
    assert_true(cca_tensor_needed(CCA_ATTN_K_BIAS, &c));
    assert_false(cca_tensor_needed(CCA_ROPE_DIVISORS, &c));
    c.rope_kind = CCA_ROPE_FACTORS;
    assert_true(cca_tensor_needed(CCA_ROPE_DIVISORS, &c));
}

/* Products take matrices that fit what comes before; rows that RoPE turns are those of heads. */
static void products(void **state) {
    (void)state;
    const int64_t widths[CCA_N_INPUTS] = {0, llama.dim, llama.n_heads * llama.head_dim, llama.dim,
                                          llama.hidden_dim};
    for (cca_role r = CCA_FIRST_OF_LAYER; r < CCA_N_ROLES; r++) {
        const cca_tensor *t = &cca_tensors[r];
        cca_shape shape = cca_tensor_shape(r, &llama);
        assert_int_equal(t->input == CCA_INPUT_NONE, shape.vector);
        if (t->input) assert_int_equal(shape.cols, widths[t->input]);
        if (t->adds) assert_int_equal(shape.rows, llama.dim);
        if (t->rotates) assert_int_equal(shape.rows % llama.head_dim, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(shapes),
        cmocka_unit_test(needs),
        cmocka_unit_test(products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
