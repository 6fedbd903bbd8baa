/* Export from Hugging Face folders: every value where it belongs, every key, and a refusal by
 * name of what would run wrongly. */
#include "export_files.h"

/* Row of a Hugging Face q or k that stands in this row of a GGUF llama's. */
static int64_t paired_row(int64_t row) {
    int64_t head = row / HEAD, k = row % HEAD;
    return head * HEAD + (k % 2 ? HEAD / 2 : 0) + k / 2;
}

static void expect_matrix(const cca_gguf *file, const char *name, const char *source, int64_t rows,
                          int64_t cols, bool paired) {
    const cca_gguf_tensor *t = tensor_of(file, name);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], cols);
    assert_int_equal(t->dims[1], rows);
    for (int64_t row = 0; row < rows; row++) {
        int64_t from = paired ? paired_row(row) : row;
        for (int64_t col = 0; col < cols; col++) {
            assert_true(value_at(file, name, row, col) == hf_value(source, from * cols + col));
        }
    }
}

static void expect_vector(const cca_gguf *file, const char *name, const char *source, int64_t n) {
    const cca_gguf_tensor *t = tensor_of(file, name);
    assert_int_equal(t->type, CCA_F32);
    assert_int_equal(t->n_dims, 1);
    assert_int_equal(t->dims[0], n);
    for (int64_t i = 0; i < n; i++) {
        assert_true(value_at(file, name, 0, i) == hf_value(source, i));
    }
}

/* All tensors of the small model. */
static void expect_weights(const cca_gguf *file, bool qwen2, bool tied) {
    static const struct {
        const char *name, *source;
        int64_t rows, cols;
        bool paired;
    } parts[] = {
        {"attn_norm.weight", "input_layernorm.weight", DIM, 0, false},
        {"attn_q.weight", "self_attn.q_proj.weight", Q_ROWS, DIM, true},
        {"attn_k.weight", "self_attn.k_proj.weight", KV_ROWS, DIM, true},
        {"attn_v.weight", "self_attn.v_proj.weight", KV_ROWS, DIM, false},
        {"attn_output.weight", "self_attn.o_proj.weight", DIM, Q_ROWS, false},
        {"ffn_norm.weight", "post_attention_layernorm.weight", DIM, 0, false},
        {"ffn_gate.weight", "mlp.gate_proj.weight", HIDDEN, DIM, false},
        {"ffn_up.weight", "mlp.up_proj.weight", HIDDEN, DIM, false},
        {"ffn_down.weight", "mlp.down_proj.weight", DIM, HIDDEN, false},
        {"attn_q.bias", "self_attn.q_proj.bias", Q_ROWS, 0, false},
        {"attn_k.bias", "self_attn.k_proj.bias", KV_ROWS, 0, false},
        {"attn_v.bias", "self_attn.v_proj.bias", KV_ROWS, 0, false},
    };
    size_t n = sizeof parts / sizeof *parts - (qwen2 ? 0 : 3);
    for (int l = 0; l < LAYERS; l++) {
        for (size_t i = 0; i < n; i++) {
            char name[64], source[64];
            snprintf(name, sizeof name, "blk.%d.%s", l, parts[i].name);
            snprintf(source, sizeof source, "model.layers.%d.%s", l, parts[i].source);
            if (parts[i].cols) {
                expect_matrix(file, name, source, parts[i].rows, parts[i].cols,
                              parts[i].paired && !qwen2);
            } else {
                expect_vector(file, name, source, parts[i].rows);
            }
        }
    }
    expect_matrix(file, "token_embd.weight", "model.embed_tokens.weight", VOCAB, DIM, false);
    expect_vector(file, "output_norm.weight", "model.norm.weight", DIM);
    if (!tied) expect_matrix(file, "output.weight", "lm_head.weight", VOCAB, DIM, false);
    assert_int_equal(cca_gguf_n_tensors(file), LAYERS * n + (tied ? 2 : 3));
}

static cca_gguf *export_hf(const hf_model *m, const char *model_type, const char *more) {
    return export_model((cca_export_options){.input = hf_folder(m, model_type, more)});
}

static void llama(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "F16", false, false);
    cca_gguf *file = export_hf(&m, "llama", "\"tie_word_embeddings\": false");
    expect_weights(file, false, false);
    assert_int_equal(type_of(file, "blk.0.attn_q.weight"), CCA_F16);
    expect_text(file, "general.architecture", "llama");
    expect_text(file, "general.name", "hf");
    expect_text(file, "tokenizer.ggml.model", "no_vocab");
    assert_non_null(strstr(warnings, "no tokenizer"));
    assert_int_equal(u32_of(file, "general.file_type"), 1);
    assert_int_equal(u32_of(file, "llama.vocab_size"), VOCAB);
    assert_int_equal(u32_of(file, "llama.context_length"), 256);
    assert_int_equal(u32_of(file, "llama.embedding_length"), DIM);
    assert_int_equal(u32_of(file, "llama.block_count"), LAYERS);
    assert_int_equal(u32_of(file, "llama.feed_forward_length"), HIDDEN);
    assert_int_equal(u32_of(file, "llama.attention.head_count"), HEADS);
    assert_int_equal(u32_of(file, "llama.attention.head_count_kv"), KV_HEADS);
    assert_int_equal(u32_of(file, "llama.attention.key_length"), HEAD);
    assert_int_equal(u32_of(file, "llama.attention.value_length"), HEAD);
    assert_int_equal(u32_of(file, "llama.rope.dimension_count"), HEAD);
    assert_true(f32_of(file, "llama.attention.layer_norm_rms_epsilon") == 1e-5f);
    assert_true(f32_of(file, "llama.rope.freq_base") == 10000);
    assert_false(cca_gguf_has(file, "llama.rope.scaling.type"));
    assert_false(cca_gguf_has(file, "cca.group_size"));
    assert_false(cca_gguf_has(file, "cca.tuned"));
    bool checked;
    assert_int_equal(cca_gguf_check_crc(&checked, file, NULL), CCA_OK);
    assert_true(checked);
    cca_gguf_close(file);
}

static void qwen2(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "BF16", true, true);
    cca_gguf *file = export_hf(&m, "qwen2", "\"attention_bias\": false");
    expect_weights(file, true, true);
    assert_int_equal(type_of(file, "token_embd.weight"), CCA_BF16);
    assert_int_equal(u32_of(file, "general.file_type"), 32);
    assert_int_equal(u32_of(file, "qwen2.attention.key_length"), HEAD);
    assert_non_null(strstr(warnings, "llama.cpp will refuse"));
    cca_gguf_close(file);
}

static void mistral(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "F32", false, false);
    cca_gguf *file = export_hf(&m, "mistral", "\"sliding_window\": 128");
    expect_weights(file, false, false);
    assert_int_equal(u32_of(file, "llama.attention.sliding_window"), 128);
    assert_false(cca_gguf_has(file, "llama.attention.sliding_window_pattern"));
    cca_gguf_close(file);
    static const struct {
        const char *type, *more;
        int64_t window; /* 0: there is none */
        bool warns;
    } cases[] = {
        {"mistral", "\"sliding_window\": 256", 0, false}, /* as long as the model's positions */
        {"llama", "\"sliding_window\": 128", 0, false},
        {"qwen2", "\"sliding_window\": 128", 0, false},
        {"qwen2", "\"sliding_window\": 128, \"use_sliding_window\": true", 128, false},
        {"qwen2", "\"sliding_window\": 128, \"use_sliding_window\": true, \"max_window_layers\": 9",
         0, false},
        {"qwen2", "\"sliding_window\": 128, \"use_sliding_window\": true, \"max_window_layers\": 1",
         0, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char key[64];
        bool qwen = strcmp(cases[i].type, "qwen2") == 0;
        hf_build(&m, "F32", false, qwen);
        file = export_hf(&m, cases[i].type, cases[i].more);
        snprintf(key, sizeof key, "%s.attention.sliding_window", qwen ? "qwen2" : "llama");
        assert_int_equal(cca_gguf_has(file, key) ? u32_of(file, key) : 0, cases[i].window);
        assert_int_equal(strstr(warnings, "sliding_window of 128") != NULL, cases[i].warns);
        cca_gguf_close(file);
    }
}

/* What the file says about ties, and what it holds. */
static void tied(void **state) {
    (void)state;
    hf_model with, without;
    hf_build(&with, "F32", false, false);
    hf_build(&without, "F32", true, false);
    cca_gguf *file = export_hf(&with, "llama", "\"tie_word_embeddings\": true");
    expect_weights(file, false, true); /* the copy is ignored */
    cca_gguf_close(file);
    file = export_hf(&without, "llama", "\"tie_word_embeddings\": true");
    expect_weights(file, false, true);
    cca_gguf_close(file);
    file = export_hf(&with, "llama", "");
    expect_weights(file, false, false);
    cca_gguf_close(file);
    file = export_hf(&without, "llama", "");
    expect_weights(file, false, true);
    cca_gguf_close(file);
    unlink(in_folder("out.gguf"));
    const char *hf = hf_folder(&without, "llama", "\"tie_word_embeddings\": false");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, "'lm_head.weight' is missing");
    /* Saved under the output's name. */
    snprintf(without.tensors[0].name, sizeof without.tensors[0].name, "lm_head.weight");
    static const char *const said[] = {"", "\"tie_word_embeddings\": true"};
    for (size_t i = 0; i < 2; i++) {
        file = export_hf(&without, "llama", said[i]);
        assert_true(value_at(file, "token_embd.weight", 3, 5) ==
                    hf_value("lm_head.weight", 3 * DIM + 5));
        assert_null(cca_gguf_find(file, "output.weight"));
        cca_gguf_close(file);
    }
    unlink(in_folder("out.gguf"));
    hf = hf_folder(&without, "llama", "\"tie_word_embeddings\": false");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL,
                   "'model.embed_tokens.weight' is missing");
}

/* Names without "model." and tables that old versions saved. */
static void other_names(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "F32", false, false);
    hf_add(&m, "model.layers.0.self_attn.rotary_emb.inv_freq", "F32", HEAD / 2, 0);
    cca_gguf *file = export_hf(&m, "llama", "");
    expect_weights(file, false, false);
    cca_gguf_close(file);

    hf_build(&m, "F32", true, false);
    for (int i = 0; i < m.n; i++) {
        char *name = m.tensors[i].name;
        memmove(name, name + strlen("model."), strlen(name + strlen("model.")) + 1);
    }
    file = export_hf(&m, "llama", "");
    assert_true(value_at(file, "blk.1.ffn_up.weight", 5, 7) ==
                hf_value("layers.1.mlp.up_proj.weight", 5 * DIM + 7));
    cca_gguf_close(file);
}

static void linear_rope(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "F32", true, false);
    static const char *const spellings[] = {
        "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}",
        "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4.0}",
        "\"rope_scaling\": null, \"rope_theta\": null, \"rope_parameters\": "
        "{\"rope_type\": \"linear\", \"factor\": 4.0, \"rope_theta\": 10000}",
    };
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        cca_gguf *file = export_hf(&m, "llama", spellings[i]);
        expect_text(file, "llama.rope.scaling.type", "linear");
        assert_true(f32_of(file, "llama.rope.scaling.factor") == 4);
        assert_true(f32_of(file, "llama.rope.freq_base") == 10000);
        cca_gguf_close(file);
    }
    cca_gguf *file = export_hf(&m, "llama",
                               "\"rope_theta\": null, \"rope_parameters\": "
                               "{\"rope_type\": \"default\", \"rope_theta\": 500000}");
    assert_true(f32_of(file, "llama.rope.freq_base") == 500000);
    assert_false(cca_gguf_has(file, "llama.rope.scaling.type"));
    cca_gguf_close(file);
    /* Listed by kinds of layers. */
    file = export_hf(&m, "llama",
                     "\"rope_theta\": null, \"rope_parameters\": {\"full_attention\": "
                     "{\"rope_type\": \"linear\", \"rope_theta\": 500000, \"factor\": 4}, "
                     "\"sliding_attention\": {\"factor\": 4, \"rope_theta\": 500000, "
                     "\"rope_type\": \"linear\"}}, \"eos_token_id\": -1");
    assert_true(f32_of(file, "llama.rope.freq_base") == 500000);
    assert_true(f32_of(file, "llama.rope.scaling.factor") == 4);
    cca_gguf_close(file);
}

/* theta 10000 and 8 frequencies: waves of 2π · 10^(k/2). With an old context of 1000, waves
 * above 1000 are divided by 8, waves below 250 are not; 2π · 100 is blended: smooth = (1000 /
 * 628.3 - 1) / 3 = 0.19718, the divisor 1 / ((1 - smooth) / 8 + smooth) = 3.36095. */
static void llama3_rope(void **state) {
    (void)state;
    static const float divisors[HEAD / 2] = {1, 1, 1, 1, 3.36095f, 8, 8, 8};
    static const char rope[] = "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
                               "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
                               "\"original_max_position_embeddings\": 1000}";
    hf_model m;
    for (int qwen = 0; qwen < 2; qwen++) {
        hf_build(&m, "F16", true, qwen);
        cca_gguf *file = export_hf(&m, qwen ? "qwen2" : "llama", rope);
        const cca_gguf_tensor *t = tensor_of(file, "rope_freqs.weight");
        assert_int_equal(t->type, CCA_F32);
        assert_int_equal(t->n_dims, 1);
        assert_int_equal(t->dims[0], HEAD / 2);
        for (int k = 0; k < HEAD / 2; k++) {
            test_below(fabsf(value_at(file, "rope_freqs.weight", 0, k) - divisors[k]), 1e-4,
                       "divisor");
        }
        assert_false(cca_gguf_has(file, "llama.rope.scaling.type"));
        assert_int_equal(strstr(warnings, "no llama3 RoPE") != NULL, qwen);
        cca_gguf_close(file);
    }
}

static void yarn_rope(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "F32", true, false);
    cca_gguf *file = export_hf(&m, "llama",
                               "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0, "
                               "\"original_max_position_embeddings\": 64}");
    expect_text(file, "llama.rope.scaling.type", "yarn");
    assert_true(f32_of(file, "llama.rope.scaling.factor") == 4);
    assert_int_equal(u32_of(file, "llama.rope.scaling.original_context_length"), 64);
    assert_true(f32_of(file, "llama.rope.scaling.attn_factor") == 1);
    assert_true(f32_of(file, "llama.rope.scaling.yarn_beta_fast") == 32);
    assert_true(f32_of(file, "llama.rope.scaling.yarn_beta_slow") == 1);
    cca_gguf_close(file);
    file = export_hf(&m, "llama",
                     "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"beta_fast\": 16, "
                     "\"beta_slow\": 2, \"attention_factor\": 0.5, \"mscale\": null}");
    assert_int_equal(u32_of(file, "llama.rope.scaling.original_context_length"), 256);
    /* 0.5 / (1 + 0.1 ln 4) */
    test_below(fabsf(f32_of(file, "llama.rope.scaling.attn_factor") - 0.439127f), 1e-5, "factor");
    assert_true(f32_of(file, "llama.rope.scaling.yarn_beta_fast") == 16);
    assert_true(f32_of(file, "llama.rope.scaling.yarn_beta_slow") == 2);
    cca_gguf_close(file);
    /* (1 + 0.2 ln 4) / (1 + 0.1 ln 4), twice over 1 + 0.1 ln 4; one of the two alone says nothing.
     */
    static const struct {
        const char *more;
        float factor;
    } cases[] = {{"\"mscale\": 2, \"mscale_all_dim\": 1", 0.985177f},
                 {"\"mscale\": 1, \"mscale_all_dim\": 1", 0.878254f},
                 {"\"mscale_all_dim\": 1", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char more[128];
        snprintf(more, sizeof more, "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, %s}",
                 cases[i].more);
        file = export_hf(&m, "llama", more);
        test_below(fabsf(f32_of(file, "llama.rope.scaling.attn_factor") - cases[i].factor), 1e-5,
                   more);
        cca_gguf_close(file);
    }
}

/* Two tensors of divisors; sqrt(1 + ln 4 / ln 64) of cosines and sines, or what is said. */
static void longrope(void **state) {
    (void)state;
    static const char rope[] =
        "\"original_max_position_embeddings\": 64, \"rope_scaling\": {\"type\": \"su\", "
        "\"short_factor\": [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5], \"long_factor\": [2, 4, 6, 8, 10, 12, 14, "
        "16]%s}";
    hf_model m;
    hf_build(&m, "F16", true, false);
    for (int said = 0; said < 2; said++) {
        char more[512];
        snprintf(more, sizeof more, rope, said ? ", \"attention_factor\": 1.25" : "");
        cca_gguf *file = export_hf(&m, "llama", more);
        expect_text(file, "llama.rope.scaling.type", "longrope");
        assert_int_equal(u32_of(file, "llama.rope.scaling.original_context_length"), 64);
        test_below(
            fabsf(f32_of(file, "llama.rope.scaling.attn_factor") - (said ? 1.25f : 1.154701f)),
            1e-6, "factor");
        assert_false(cca_gguf_has(file, "llama.rope.scaling.factor"));
        assert_int_equal(tensor_of(file, "rope_factors_long.weight")->dims[0], HEAD / 2);
        for (int k = 0; k < HEAD / 2; k++) {
            assert_true(value_at(file, "rope_factors_short.weight", 0, k) == 1 + 0.5f * (float)k);
            assert_true(value_at(file, "rope_factors_long.weight", 0, k) == 2 + 2 * (float)k);
        }
        cca_gguf_close(file);
    }
}

/* What stands beside the text is told and left out; sizes, ties and ends are those of the text. */
static void nested_text(void **state) {
    (void)state;
    static const char *const prefixes[][2] = {{"language_model.model.", "language_model."},
                                              {"model.language_model.", ""}};
    for (int i = 0; i < 2; i++) {
        hf_model m;
        hf_build(&m, "F32", false, false);
        for (int k = 0; k < m.n; k++) {
            hf_tensor *t = &m.tensors[k];
            const bool is_head = strcmp(t->name, "lm_head.weight") == 0;
            char old[64];
            snprintf(old, sizeof old, "%s", t->name + (is_head ? 0 : strlen("model.")));
            snprintf(t->name, sizeof t->name, "%s%s", prefixes[i][is_head], old);
        }
        hf_add(&m, i ? "model.vision_tower.ln_pre.weight" : "vision_tower.ln_pre.weight", "F32", 8,
               0);
        hf_add(&m, "multi_modal_projector.norm.weight", "F32", 8, 0);
        const char *hf = hf_folder(&m, "mistral", "\"eos_token_id\": 7");
        json_t *text = json_load_file(in_folder("hf/config.json"), 0, NULL);
        json_t *config = json_pack("{s:s, s:o, s:b}", "model_type", "mistral3", "text_config", text,
                                   "tie_word_embeddings", false);
        assert_int_equal(json_dump_file(config, in_folder("hf/config.json"), 0), 0);
        json_decref(config);
        cca_gguf *file = export_model((cca_export_options){.input = hf});
        expect_text(file, "general.architecture", "llama");
        assert_non_null(strstr(warnings, "its 2 tensors for images are left out"));
        assert_true(value_at(file, "blk.1.ffn_up.weight", 5, 7) ==
                    hf_value(hf_find(&m, i ? "model.language_model.layers.1.mlp.up_proj.weight"
                                           : "language_model.model.layers.1.mlp.up_proj.weight")
                                 ->name,
                             5 * DIM + 7));
        assert_non_null(cca_gguf_find(file, "output.weight"));
        cca_gguf_close(file);
        unlink(in_folder("out.gguf"));
        hf_add(&m, "audio_tower.weight", "F32", 8, 0);
        hf_write(&m, in_folder("hf/model.safetensors"), 0, m.n);
        expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL,
                       "'audio_tower.weight' is unknown");
    }
}

/* Layers without windows by a rule of the family where config.json does not list them; a window
 * that no text is longer than counts where layers that have it are turned in another way. */
static void window_patterns(void **state) {
    (void)state;
    static const struct {
        const char *type, *more;
        int64_t window, step; /* -1: no such key; 0: all of both layers */
    } cases[] = {
        {"olmo3", "\"sliding_window\": 32", 32, 0},
        {"olmo3", "\"sliding_window\": 4096", -1, -1},
        {"olmo3",
         "\"sliding_window\": 4096, \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2}",
         4096, 0},
        {"olmo3",
         "\"sliding_window\": 32, \"layer_types\": [\"full_attention\", \"full_attention\"]", -1,
         -1},
        {"olmo3",
         "\"sliding_window\": 32, \"layer_types\": [\"sliding_attention\", \"sliding_attention\"]",
         32, 0},
        {"olmo2", "\"sliding_window\": 32", -1, -1},
        {"exaone4", "\"sliding_window\": 4096", 4096, 0},
        {"exaone4", "\"sliding_window\": 32, \"sliding_window_pattern\": 2", 32, 2},
        {"exaone4", "\"sliding_window\": 32, \"sliding_window_pattern\": \"LG\"", 32, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hf_model m;
        hf_build(&m, "F32", false, false);
        for (int l = 0; l < LAYERS; l++) {
            const bool olmo = strncmp(cases[i].type, "olmo", 4) == 0;
            char name[64];
            snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", l);
            snprintf(hf_find(&m, name)->name, sizeof name,
                     "model.layers.%d.post_feedforward_layernorm.weight", l);
            snprintf(name, sizeof name, "model.layers.%d.self_attn.q_norm.weight", l);
            hf_add(&m, name, "F32", olmo ? Q_ROWS : HEAD, 0);
            snprintf(name, sizeof name, "model.layers.%d.self_attn.k_norm.weight", l);
            hf_add(&m, name, "F32", olmo ? KV_ROWS : HEAD, 0);
        }
        cca_gguf *file = export_hf(&m, cases[i].type, cases[i].more);
        char key[80];
        const char *arch = strcmp(cases[i].type, "exaone4") == 0 ? "exaone4" : "olmo2";
        snprintf(key, sizeof key, "%s.attention.sliding_window", arch);
        assert_int_equal(cca_gguf_has(file, key) ? (int64_t)u32_of(file, key) : -1,
                         cases[i].window);
        snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", arch);
        assert_int_equal(cca_gguf_has(file, key) ? (int64_t)u32_of(file, key) : -1, cases[i].step);
        cca_gguf_close(file);
    }
}

static void refused_configs(void **state) {
    (void)state;
    static const struct {
        const char *type, *more, *message;
    } cases[] = {
        {"gemma", "", "model_type 'gemma'"},
        {"llama", "\"hidden_size\": null", "hidden_size is missing"},
        {"llama", "\"hidden_size\": -4", "hidden_size is out of range: -4"},
        {"llama", "\"hidden_size\": \"32\"", "hidden_size is no whole number"},
        {"llama", "\"num_hidden_layers\": 100000", "n_layers 100000"},
        {"llama", "\"num_key_value_heads\": 3", "n_heads 4 is no multiple of n_kv_heads 3"},
        {"llama", "\"head_dim\": 15", "head_dim 15 is odd"},
        {"llama", "\"head_dim\": null, \"hidden_size\": 33", "no multiple of num_attention_heads"},
        {"llama", "\"rms_norm_eps\": 0", "rms_norm_eps is out of range"},
        {"llama", "\"hidden_act\": \"gelu\"", "hidden_act 'gelu'"},
        {"llama", "\"mlp_bias\": true", "mlp_bias"},
        {"llama", "\"attention_bias\": true", "attention_bias"},
        {"llama", "\"num_local_experts\": 8", "num_local_experts"},
        {"qwen2", "\"num_experts\": 8", "num_experts"},
        {"llama", "\"n_routed_experts\": 8", "n_routed_experts"},
        {"llama", "\"partial_rotary_factor\": 0.5", "partial_rotary_factor"},
        {"llama", "\"rope_parameters\": {\"partial_rotary_factor\": 0.5}", "partial_rotary_factor"},
        {"llama", "\"quantization_config\": {\"bits\": 4}", "quantization_config"},
        {"llama", "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}", "'dynamic'"},
        {"llama", "\"rope_scaling\": {\"rope_type\": \"longrope\"}",
         "original_max_position_embeddings is missing"},
        {"llama",
         "\"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [1, 1], "
         "\"original_max_position_embeddings\": 64}",
         "short_factor of RoPE is no list of 8 numbers"},
        {"llama",
         "\"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [1, 1, 1, 1, 1, 1, 1, 1], "
         "\"long_factor\": [1, 2, 3, 4, 5, 6, -7, 8], \"original_max_position_embeddings\": 64}",
         "long_factor of RoPE: value 6 is no positive number"},
        {"phi3", "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4}",
         "'yarn' is not supported for this model_type"},
        {"llama",
         "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
         "\"llama_4_scaling_beta\": 0.1}",
         "llama_4_scaling_beta is not supported for this model_type"},
        {"ministral3",
         "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4, "
         "\"llama_4_scaling_beta\": 0.1}",
         "llama_4_scaling_beta of RoPE scaling 'linear'"},
        {"mistral3", "", "text_config is missing"},
        {"mistral3", "\"text_config\": {\"model_type\": \"gemma\"}", "model_type 'gemma'"},
        {"olmo3",
         "\"rope_theta\": null, \"sliding_window\": 32, \"rope_parameters\": {\"rope_type\": \"yarn\", "
         "\"factor\": 4}",
         "does not list full_attention and sliding_attention"},
        {"olmo3",
         "\"rope_theta\": null, \"sliding_window\": 32, \"rope_parameters\": {\"full_attention\": "
         "{\"rope_type\": \"default\", \"rope_theta\": 10}, \"sliding_attention\": "
         "{\"rope_type\": \"linear\", \"factor\": 2, \"rope_theta\": 10}}",
         "scaling for sliding_attention"},
        {"olmo3",
         "\"rope_theta\": null, \"sliding_window\": 32, \"rope_parameters\": {\"full_attention\": "
         "{\"rope_type\": \"default\", \"rope_theta\": 10}, \"sliding_attention\": "
         "{\"rope_type\": \"default\", \"rope_theta\": 20}}",
         "layers that differ in rope_theta"},
        {"olmo3", "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4}",
         "sliding_window is missing"},
        {"exaone4",
         "\"sliding_window\": 32, \"num_hidden_layers\": 3, \"layer_types\": "
         "[\"full_attention\", \"sliding_attention\", \"full_attention\"]",
         "layer_types: not each n-th layer sees all"},
        {"llama", "\"rope_scaling\": {\"type\": \"linear\"}", "factor is missing"},
        {"llama", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0.5}", "below 1"},
        {"llama", "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"truncate\": false}",
         "truncate"},
        {"llama",
         "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 4, \"low_freq_factor\": 4, "
         "\"high_freq_factor\": 4}",
         "low_freq_factor"},
        {"llama",
         "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 4, \"high_freq_factor\": 4}",
         "low_freq_factor is missing"},
        {"llama", "\"rope_scaling\": [1]", "rope_scaling is no object"},
        {"llama", "\"rope_scaling\": {\"factor\": 2}", "factor and no type"},
        {"llama", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2, \"base\": 5}",
         "base of RoPE is not supported"},
        {"llama",
         "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, "
         "\"rope_parameters\": {\"rope_theta\": 10000}",
         "rope_scaling and rope_parameters differ"},
        {"llama",
         "\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 10000}, "
         "\"sliding_attention\": {\"rope_theta\": 500000}}",
         "rope_parameters: layers that differ"},
        {"llama",
         "\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 10000}, \"factor\": 2}",
         "rope_parameters: some of it"},
        {"llama", "\"rotary_emb_base\": 500000", "rotary_emb_base is not supported"},
        {"llama", "\"rope_base\": 500000", "rope_base is not supported"},
        {"llama", "\"theta\": 500000", "theta is not supported"},
        {"llama", "\"rope_parameters\": {\"rope_theta\": 500000}", "two values of rope_theta"},
        {"qwen2", "\"layer_types\": [\"linear_attention\"]", "'linear_attention'"},
        {"llama", "\"cca\": {\"group_size\": 0}", "group_size is out of range"},
        {"llama", "\"cca\": {\"group_size\": 16, \"window_size\": 40}", "hf: cca: "},
        {"llama", "\"cca\": {\"tuned\": 1}", "tuned is neither"},
        {"llama", "\"cca\": {\"cores\": 1}", "cores is neither"},
        {"llama", "\"cca\": {\"chat_template\": \"Plain\"}", "'Plain' is none of llama2, "},
        {"llama", "\"cca\": {\"chat_template\": 1}", "chat_template"},
        {"llama", "\"eos_token_id\": [2, \"x\"]", "eos_token_id"},
    };
    hf_model m;
    hf_build(&m, "F32", true, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *hf = hf_folder(&m, cases[i].type, cases[i].more);
        expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, cases[i].message);
    }
}

static void refused_tensors(void **state) {
    (void)state;
    hf_model m;
    const char *hf;
    hf_build(&m, "F32", true, false);
    hf_add(&m, "model.layers.0.self_attn.q_norm.weight", "F32", HEAD, 0);
    hf = hf_folder(&m, "llama", "");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL,
                   "'model.layers.0.self_attn.q_norm.weight' is unknown");

    hf_build(&m, "F32", true, true);
    hf = hf_folder(&m, "llama", "");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, "_proj.bias' is unknown");

    hf_build(&m, "F32", true, false);
    hf = hf_folder(&m, "qwen2", "");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL,
                   "'model.layers.0.self_attn.q_proj.bias' is missing");

    hf_build(&m, "F32", true, false);
    hf_find(&m, "model.layers.1.mlp.up_proj.weight")->name[20] = 'x';
    hf = hf_folder(&m, "llama", "");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL,
                   "'model.layers.1.mlp.up_proj.weight' is missing");

    hf_build(&m, "F32", true, false);
    hf_find(&m, "model.layers.1.mlp.up_proj.weight")->dims[0] = HIDDEN - 1;
    hf = hf_folder(&m, "llama", "");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL,
                   "'model.layers.1.mlp.up_proj.weight' has shape [63, 32], not [64, 32]");

    hf_build(&m, "F32", true, false);
    hf_find(&m, "model.norm.weight")->n_dims = 2;
    hf = hf_folder(&m, "llama", "");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL,
                   "'model.norm.weight' has shape [32, 1], not [32]");

    hf_build(&m, "F32", true, false);
    hf_find(&m, "model.layers.0.mlp.down_proj.weight")->dtype = "I32";
    hf = hf_folder(&m, "llama", "");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL,
                   "'model.layers.0.mlp.down_proj.weight' has dtype I32");
}

/* A safetensors file with this header and n bytes of data. */
static void expect_bad_safetensors(const char *header, size_t n, const char *message) {
    static const uint8_t data[64] = {0};
    const uint64_t size = strlen(header);
    FILE *f = fopen(in_folder("hf/model.safetensors"), "wb");
    assert_non_null(f);
    fwrite(&size, sizeof size, 1, f);
    fwrite(header, 1, size, f);
    fwrite(data, 1, n, f);
    assert_int_equal(fclose(f), 0);
    expect_failure((cca_export_options){.input = in_folder("hf")}, CCA_BAD_MODEL, message);
}

static void bad_safetensors(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "F32", true, false);
    const char *hf = hf_folder(&m, "llama", "");
    expect_bad_safetensors("{", 0, "bad JSON");
    expect_bad_safetensors("[]", 0, "no object");
    expect_bad_safetensors("{\"a\":{}}", 0, "'a': it has no dtype");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\"}}", 0, "'a': it has no shape");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F31\",\"shape\":[1]}}", 0, "dtype is not known");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1]}}", 0,
                           "shape is out of range");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296]}}", 0,
                           "shape is out of range");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1]}}", 0,
                           "too many dimensions");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "no two data_offsets");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
                           "outside the file");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3,
                           "outside the file");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,2]}}", 4,
                           "do not fit its shape");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
                           "do not fit its shape");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5,
                           "1 bytes at its end");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
                           "'a': there is a gap");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                           "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
                           12, "'b': it overlaps");
    expect_bad_safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
                           "\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                           0, "bad JSON");
    write_bytes(in_folder("hf/model.safetensors"), "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, "truncated");
    write_bytes(in_folder("hf/model.safetensors"), "1234567", 7);
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, "truncated");
}

static void write_index(const hf_model *m, int split, const char *first, const char *second) {
    json_t *map = json_object();
    for (int i = 0; i < m->n; i++) {
        json_object_set_new(map, m->tensors[i].name, json_string(i < split ? first : second));
    }
    json_t *index = json_pack("{s:o}", "weight_map", map);
    assert_int_equal(json_dump_file(index, in_folder("hf/model.safetensors.index.json"), 0), 0);
    json_decref(index);
}

static void shards(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "BF16", false, false);
    const char *hf = hf_folder(&m, "llama", "");
    unlink(in_folder("hf/model.safetensors"));
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL,
                   "neither model.safetensors nor model.safetensors.index.json");
    write_index(&m, 9, "a.safetensors", "b.safetensors");
    hf_write(&m, in_folder("hf/a.safetensors"), 0, 9);
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL,
                   "hf/b.safetensors: cannot open");
    hf_write(&m, in_folder("hf/b.safetensors"), 10, m.n);
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, "is not in b.safetensors");
    hf_write(&m, in_folder("hf/b.safetensors"), 8, m.n);
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, ", too");
    hf_write(&m, in_folder("hf/b.safetensors"), 9, m.n);
    write_index(&m, 9, "b.safetensors", "a.safetensors");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, "is not in ");
    write_index(&m, 9, "../hf/a.safetensors", "b.safetensors");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, "is no file of this folder");
    write_text(in_folder("hf/model.safetensors.index.json"), "{\"metadata\": {}}");
    expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, "weight_map is missing");

    write_index(&m, 9, "a.safetensors", "b.safetensors");
    cca_gguf *file = export_model((cca_export_options){.input = hf});
    expect_weights(file, false, false);
    cca_gguf_close(file);
}

static void group_sizes(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "F32", true, false);
    cca_gguf *file = export_hf(&m, "llama",
                               "\"cca\": {\"group_size\": 8, \"window_size\": 64, \"tuned\": true, "
                               "\"cores\": true, "
                               "\"chat_template\": \"plain\"}");
    assert_int_equal(u32_of(file, "cca.group_size"), 8);
    assert_int_equal(u32_of(file, "cca.window_size"), 64);
    assert_true(bool_of(file, "cca.tuned"));
    assert_true(bool_of(file, "cca.cores"));
    expect_text(file, "cca.chat_template", "plain");
    cca_gguf_close(file);
    cca_export_options o = {
        .input = in_folder("hf"), .group_size = 32, .ctx_size = 999, .chat_template = "zephyr"};
    file = export_model(o);
    assert_int_equal(u32_of(file, "cca.group_size"), 32);
    assert_int_equal(u32_of(file, "cca.window_size"), 64);
    assert_int_equal(u32_of(file, "llama.context_length"), 999);
    expect_text(file, "cca.chat_template", "zephyr");
    cca_gguf_close(file);
    o.chat_template = "alpaca";
    expect_failure(o, CCA_USAGE, "'alpaca' is none of llama2, ");
    o.chat_template = NULL;
    o.window_size = 48;
    expect_failure(o, CCA_USAGE, "48");
    o.window_size = 16;
    expect_failure(o, CCA_USAGE, "16");
    o.window_size = -32;
    expect_failure(o, CCA_USAGE, "below zero");
}

/* What a folder says about text; the tokenizer is the option's. */
static void text_keys(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "F32", true, false);
    const char *hf = hf_folder(&m, "llama", "\"bos_token_id\": 5, \"eos_token_id\": [7, 8]");
    write_text(in_folder("hf/generation_config.json"), "{\"eos_token_id\": [8, 9]}");
    write_text(in_folder("hf/tokenizer_config.json"),
               "{\"add_bos_token\": false, \"chat_template\": [{\"name\": \"tool\", \"template\": "
               "\"T\"}, {\"name\": \"default\", \"template\": \"{{ x }}\"}]}");
    cca_gguf *file = export_model((cca_export_options){.input = hf});
    expect_text(file, "tokenizer.chat_template", "{{ x }}");
    expect_text(file, "tokenizer.ggml.model", "no_vocab");
    cca_gguf_close(file);

    static const char vocab[] =
        "\4\0\0\0"
        "\0\0\0\0\5\0\0\0<unk>\0\0\0\0\5\0\0\0\n<s>\n\0\0\0\0\6\0\0\0\n</s>\n"
        "\0\0\200\277\2\0\0\0 a";
    write_bytes(in_folder("v.bin"), vocab, sizeof vocab - 1);
    cca_export_options o = {.input = hf, .tokenizer = in_folder("v.bin")};
    file = export_model(o);
    assert_int_equal(u32_of(file, "tokenizer.ggml.bos_token_id"), 5);
    assert_int_equal(u32_of(file, "tokenizer.ggml.eos_token_id"), 7);
    assert_false(bool_of(file, "tokenizer.ggml.add_bos_token"));
    cca_gguf_array ends = array_of(file, "cca.end_token_ids");
    assert_int_equal(ends.n, 3);
    for (uint64_t i = 0; i < 3; i++) assert_true(cca_gguf_array_number(&ends, i) == 7 + (double)i);
    cca_gguf_close(file);

    write_text(in_folder("hf/chat_template.jinja"), "{{ y }}\n");
    file = export_model(o);
    expect_text(file, "tokenizer.chat_template", "{{ y }}\n");
    cca_gguf_close(file);

    unlink(in_folder("out.gguf"));
    write_text(in_folder("hf/generation_config.json"), "{\"eos_token_id\": 40}");
    expect_failure(o, CCA_BAD_MODEL, "end token 40 is outside the vocabulary of 40");
    write_text(in_folder("hf/generation_config.json"), "{\"eos_token_id\": ");
    expect_failure(o, CCA_BAD_MODEL, "generation_config.json: bad JSON");
}

static void wrong_inputs(void **state) {
    (void)state;
    hf_model m;
    hf_build(&m, "F32", true, false);
    hf_folder(&m, "llama", "");
    expect_failure((cca_export_options){.input = in_folder("none")}, CCA_BAD_MODEL,
                   "none: cannot open");
    expect_failure((cca_export_options){.input = test_folder}, CCA_BAD_MODEL, "no config.json");
    expect_failure((cca_export_options){.input = in_folder("hf/model.safetensors")}, CCA_BAD_MODEL,
                   "give the folder");
    write_text(in_folder("x.gguf"), "GGUF and more");
    expect_failure((cca_export_options){.input = in_folder("x.gguf")}, CCA_BAD_MODEL,
                   "x.gguf: header: version");
    write_text(in_folder("hf/config.json"), "{\"a\": 1, \"a\": 2}");
    expect_failure((cca_export_options){.input = in_folder("hf")}, CCA_BAD_MODEL,
                   "config.json: bad JSON, line 1");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(llama),           TEST(qwen2),           TEST(mistral),         TEST(tied),
        TEST(other_names),     TEST(linear_rope),     TEST(llama3_rope),     TEST(yarn_rope),
        TEST(longrope),        TEST(nested_text),     TEST(window_patterns), TEST(refused_configs),
        TEST(refused_tensors), TEST(bad_safetensors), TEST(shards),          TEST(group_sizes),
        TEST(text_keys),       TEST(wrong_inputs),
    };
    return cmocka_run_group_tests_name("export_hf", tests, NULL, NULL);
}
