/* Which type each matrix gets in a mixture, and where blocks do not fit its rows. */
#include "export/mixture.h"
#include "export_files.h"

/* The type of each matrix of a model with rows of 256 and, of ffn_down, of 288 or 512 values. */
static void expect_mixture(const char *name, int64_t hidden_dim, const cca_dtype sensitive[16],
                           cca_dtype others, cca_dtype down, cca_dtype output, uint32_t file_type) {
    const cca_random_shape shape = {.dim = 256,
                                    .n_layers = 16,
                                    .n_heads = 2,
                                    .n_kv_heads = 1,
                                    .hidden_dim = hidden_dim,
                                    .vocab_size = 40};
    cca_export_options o = {.random = &shape, .has_type = true};
    assert_true(cca_export_type_parse(&o, name));
    cca_gguf *file = export_model(o);
    for (int layer = 0; layer < 16; layer++) {
        static const char *const same[] = {"attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"};
        char tensor[CCA_TENSOR_NAME];
        for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
            snprintf(tensor, sizeof tensor, "blk.%d.%s.weight", layer, same[i]);
            assert_int_equal(type_of(file, tensor), others);
        }
        snprintf(tensor, sizeof tensor, "blk.%d.attn_v.weight", layer);
        assert_int_equal(type_of(file, tensor), sensitive[layer]);
        snprintf(tensor, sizeof tensor, "blk.%d.ffn_down.weight", layer);
        bool is_more = sensitive[layer] != others;
        if (hidden_dim % 256 == 0) {
            assert_int_equal(type_of(file, tensor), sensitive[layer]);
        } else {
            assert_int_equal(type_of(file, tensor), is_more ? CCA_Q8_0 : down);
        }
    }
    assert_int_equal(type_of(file, "token_embd.weight"), others);
    assert_int_equal(type_of(file, "output.weight"), output);
    assert_int_equal(u32_of(file, "general.file_type"), file_type);
    cca_gguf_close(file);
}

/* As llama-quantize mixes: the first and the last eighth and every third layer between. */
static void mixtures(void **state) {
    (void)state;
    const cca_dtype A = CCA_Q4_K, B = CCA_Q5_K, C = CCA_Q6_K;
    const cca_dtype q4[16] = {C, C, A, A, C, A, A, C, A, A, C, A, A, C, C, C},
                    q5[16] = {C, C, B, B, C, B, B, C, B, B, C, B, B, C, C, C},
                    all_q4[16] = {A, A, A, A, A, A, A, A, A, A, A, A, A, A, A, A},
                    all_q5[16] = {B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B},
                    all_q6[16] = {C, C, C, C, C, C, C, C, C, C, C, C, C, C, C, C};
    expect_mixture("q4_k_m", 512, q4, A, A, C, 15);
    expect_mixture("Q5_K_M", 512, q5, B, B, C, 17);
    expect_mixture("q4_k", 512, all_q4, A, A, C, 14);
    expect_mixture("Q5_K", 512, all_q5, B, B, C, 16);
    expect_mixture("Q6_k", 512, all_q6, C, C, C, 18);
    expect_mixture("q4_k_m", 288, q4, A, CCA_Q5_0, C, 15);
    assert_non_null(strstr(warnings, "8 tensors have rows that are no multiple of 256 and become "
                                     "q5_0"));
    assert_non_null(strstr(warnings, "8 tensors have rows that are no multiple of 256 and become "
                                     "q8_0"));
    expect_mixture("q5_k_m", 288, q5, B, CCA_Q5_1, C, 17);
    expect_mixture("q6_k", 288, all_q6, C, CCA_Q8_0, C, 18);
    cca_export_options o;
    assert_false(cca_export_type_parse(&o, "q3_k") || cca_export_type_parse(&o, "q4_k_l"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixtures),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
