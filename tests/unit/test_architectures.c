/* Architectures and keys of model files beyond those that export writes: the same logits where they
 * mean the same, a refusal that names what is missing where they mean what is not here. */
#include "engine.h"
#include "export/gguf_write.h"
#include "export_files.h"
#include "last_logits.h"
#include "layer.h"

enum { N_TOKENS = 60, N_VOCAB = 64, MOST = 80 };

/* --- files with other keys ----------------------------------------------------------- */

/* A key that is put in place of the file's own, if it has one: a text, a list, or a number. */
typedef struct change {
    const char *key, *text;
    cca_gguf_type type;
    double number;
    const uint8_t *list; /* of bools */
    uint64_t n;
} change;

static void put(cca_gguf_writer *w, const change *c) {
    const uint32_t whole = (uint32_t)c->number;
    const float real = (float)c->number;
    if (c->text) {
        cca_gguf_put_text(w, c->key, c->text);
    } else if (c->list) {
        cca_gguf_put_numbers(w, c->key, CCA_GGUF_BOOL, c->n, c->list);
    } else if (c->type == CCA_GGUF_F32) {
        cca_gguf_put_number(w, c->key, CCA_GGUF_F32, &real);
    } else {
        cca_gguf_put_number(w, c->key, CCA_GGUF_U32, &whole);
    }
}

static bool all_others(const void *context, const char *key) {
    (void)context;
    return strcmp(key, "cca.crc32") != 0 && strcmp(key, "cca.fingerprint") != 0;
}

/* A copy of a model file with up to four keys changed, until the first without a name. */
static const char *change_keys(const char *from, const change *changes) {
    const char *to = in_folder("changed.gguf");
    uint32_t crcs[MOST];
    cca_error err;
    cca_gguf *file;
    cca_gguf_writer *w;
    if (cca_gguf_open(&file, from, &err) != CCA_OK) fail_msg("%s", err.text);
    const uint64_t n = cca_gguf_n_tensors(file);
    assert_in_range(n, 1, MOST);
    assert_int_equal(cca_gguf_writer_new(&w, to, &err), CCA_OK);
    for (int i = 0; i < 4 && changes[i].key; i++) put(w, &changes[i]);
    cca_gguf_put_others(w, file, all_others, NULL);
    for (uint64_t i = 0; i < n; i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(file, i);
        cca_gguf_put_tensor(w, t->name, (int)t->n_dims, t->dims, (cca_dtype)t->type, t->bytes);
    }
    assert_int_equal(cca_gguf_writer_begin(w, &err), CCA_OK);
    for (uint64_t i = 0; i < n; i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(file, i);
        crcs[i] = 0;
        assert_int_equal(cca_gguf_writer_write(w, i, 0, t->data, (size_t)t->bytes, &err), CCA_OK);
    }
    assert_int_equal(cca_gguf_writer_finish(w, crcs, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_commit(w, &err), CCA_OK);
    cca_gguf_writer_free(w), cca_gguf_close(file);
    return to;
}

/* Exports a folder of tests/golden/models; its path, which stays valid. */
static const char *export_golden(const char *name) {
    static char path[64];
    char input[128];
    snprintf(path, sizeof path, "%s/golden.gguf", test_folder);
    snprintf(input, sizeof input, "tests/golden/models/%s", name);
    cca_gguf_close(export_model(
        (cca_export_options){.input = input, .output = path, .has_type = true, .type = CCA_F32}));
    return path;
}

static void last_logits(float out[N_VOCAB], const char *path) {
    cca_session_options so = cca_session_defaults();
    so.attn = "full", so.k_type = so.v_type = "f32";
    float *logits = test_last_logits(path, NULL, so, N_TOKENS);
    memcpy(out, logits, N_VOCAB * sizeof *out);
    free(logits);
}

static void expect_same_logits(const char *path, const change *changes) {
    float want[N_VOCAB], got[N_VOCAB];
    last_logits(want, path);
    last_logits(got, change_keys(path, changes));
    assert_memory_equal(got, want, sizeof want);
}

/* Neither runs nor is exported, for a reason that holds these texts. */
static void expect_refusal(const char *path, const char *name, const char *message) {
    cca_error err;
    cca_engine *engine;
    cca_engine_options eo = {.device = "cpu", .n_threads = 1};
    assert_int_equal(cca_engine_open(&engine, path, &eo, &err), CCA_BAD_MODEL);
    if (!strstr(err.text, name) || !strstr(err.text, message)) {
        fail_msg("'%s': not '%s', '%s'", err.text, name, message);
    }
    expect_failure((cca_export_options){.input = path}, CCA_BAD_MODEL, message);
}

/* --- others' architectures ----------------------------------------------------------- */

static void others_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *model_type, *arch, *missing; /* arch: NULL: the same */
    } cases[] = {
        {"gemma", NULL, "gelu and a scaled embedding"},
        {"gemma2", NULL, "gelu and capped scores"},
        {"gemma3", NULL, "gelu and RoPE of two bases"},
        {"gemma3_text", "gemma3", "gelu and RoPE of two bases"},
        {"gemma3n", NULL, "inputs of each layer"},
        {"cohere", "command-r", "layer norms and layers whose two parts run side by side"},
        {"cohere2", NULL, "layer norms and layers whose two parts run side by side"},
        {"mixtral", NULL, "a mixture of experts"},
        {"qwen2_moe", "qwen2moe", "a mixture of experts"},
        {"qwen3_moe", "qwen3moe", "a mixture of experts"},
        {"qwen3_next", "qwen3next", "linear attention and a mixture of experts"},
        {"deepseek_v2", "deepseek2", "latent attention and a mixture of experts"},
        {"deepseek_v3", "deepseek2", "latent attention and a mixture of experts"},
        {"gpt_oss", "gpt-oss", "attention sinks of their own and a mixture of experts"},
        {"gpt2", NULL, "layer norms and learned positions"},
        {"gpt_neox", "gptneox", "layer norms"},
        {"bert", NULL, "attention that looks ahead"},
        {"modernbert", "modern-bert", "attention that looks ahead"},
        {"mamba", NULL, "a state in place of attention"},
        {"falcon", NULL, "layer norms"},
        {"phi", "phi2", "layer norms"},
        {"phimoe", NULL, "a mixture of experts"},
        {"stablelm", NULL, "layer norms"},
        {"starcoder2", NULL, "layer norms"},
        {"nemotron", NULL, "layer norms"},
        {"olmo", NULL, "layer norms"},
        {"olmoe", NULL, "a mixture of experts"},
        {"lfm2", NULL, "convolutions in place of attention"},
        {"llama4", NULL, "a mixture of experts"},
        {"granitemoe", NULL, "a mixture of experts"},
        {"exaone", NULL, "other names of weights and settings"},
        {"ernie4_5_moe", "ernie4_5-moe", "a mixture of experts"},
    };
    const char *golden = export_golden("hf-llama");
    hf_model m;
    hf_build(&m, "F32", true, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64], reason[128];
        const char *arch = cases[i].arch ? cases[i].arch : cases[i].model_type;
        snprintf(name, sizeof name, "'%s' is not supported", cases[i].model_type);
        snprintf(reason, sizeof reason, "%s: it needs %s", name, cases[i].missing);
        const char *hf = hf_folder(&m, cases[i].model_type, "");
        expect_failure((cca_export_options){.input = hf}, CCA_BAD_MODEL, reason);
        snprintf(name, sizeof name, "'%s' is not supported", arch);
        const change other = {.key = "general.architecture", .text = arch};
        expect_refusal(change_keys(golden, (change[4]){other}), name, cases[i].missing);
    }
    const change unknown = {.key = "general.architecture", .text = "surprise"};
    const char *path = change_keys(golden, (change[4]){unknown});
    expect_refusal(path, "general.architecture: 'surprise' is not supported (llama, ",
                   "glm4 and mistral3 are)");
}

/* All that this program runs has no entry among what is missing. */
static void own_architectures_miss_nothing(void **state) {
    (void)state;
    for (int i = 0; i < CCA_N_ARCHS; i++) assert_null(cca_missing_for(cca_archs[i].name));
    char names[CCA_NAMES];
    cca_family_names(names);
    assert_true(strlen(names) + 1 < CCA_NAMES); /* nothing is cut */
    for (char *name = strtok(names, ", "); name; name = strtok(NULL, ", ")) {
        if (strcmp(name, "and") == 0) continue;
        assert_null(cca_missing_for(name));
        assert_non_null(cca_family_of(name));
    }
}

/* --- others' keys -------------------------------------------------------------------- */

static void keys_that_change_the_sums_are_refused(void **state) {
    (void)state;
    static const struct {
        change keys[4];
        const char *message;
    } cases[] = {
        {{{"llama.attn_logit_softcapping", .type = CCA_GGUF_F32, .number = 50}},
         "key llama.attn_logit_softcapping is not supported"},
        {{{"llama.final_logit_softcapping", .type = CCA_GGUF_F32, .number = 30}},
         "key llama.final_logit_softcapping is not supported"},
        {{{"llama.attention.clamp_kqv", .type = CCA_GGUF_F32, .number = 8}},
         "key llama.attention.clamp_kqv is not supported"},
        {{{"llama.attention.max_alibi_bias", .type = CCA_GGUF_F32, .number = 8}},
         "key llama.attention.max_alibi_bias is not supported"},
        {{{"llama.logit_scale", .type = CCA_GGUF_F32, .number = 0.5}},
         "key llama.logit_scale is not supported"},
        {{{"llama.attention.scale", .type = CCA_GGUF_F32, .number = 0.5}},
         "key llama.attention.scale is not supported"},
        {{{"llama.expert_count", .number = 8}}, "mixtures of experts"},
        {{{"llama.rope.freq_base_swa", .type = CCA_GGUF_F32, .number = 5}}, "rope.freq_base_swa"},
        {{{"llama.rope.scaling.attn_factor", .type = CCA_GGUF_F32, .number = 1.5}},
         "rope.scaling.attn_factor: neither yarn nor longrope"},
        {{{"llama.rope.scaling.type", .text = "longrope"},
          {"llama.rope.scaling.factor", .type = CCA_GGUF_F32, .number = 4}},
         "rope.scaling.factor: longrope has none"},
        {{{"llama.rope.scaling.type", .text = "longrope"}},
         "original_context_length: longrope needs it"},
        {{{"llama.rope.scaling.type", .text = "longrope"},
          {"llama.rope.scaling.original_context_length", .number = 64}},
         "tensor rope_factors_short.weight is missing"},
        {{{"llama.rope.scaling.type", .text = "yarn"},
          {"llama.rope.scaling.factor", .type = CCA_GGUF_F32, .number = 4},
          {"llama.rope.scaling.original_context_length", .number = 64},
          {"llama.rope.scaling.yarn_log_multiplier", .type = CCA_GGUF_F32, .number = -100}},
         "yarn's factor of cosines and sines must be positive"},
        {{{"llama.attention.temperature_scale", .type = CCA_GGUF_F32, .number = 0.1}},
         "attention.temperature_scale: needs rope.scaling.original_context_length"},
        {{{"llama.attention.temperature_scale", .type = CCA_GGUF_F32, .number = -0.1}},
         "attention.temperature_scale is negative"},
    };
    const char *golden = export_golden("hf-llama");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect_refusal(change_keys(golden, cases[i].keys), "changed.gguf", cases[i].message);
    }
}

/* 0 and 1 where they say that there is nothing. */
static void keys_that_say_nothing_are_read(void **state) {
    (void)state;
    static const change none[4] = {
        {"llama.expert_count", .number = 0},
        {"llama.attn_logit_softcapping", .type = CCA_GGUF_F32},
        {"llama.rope.freq_base_swa", .type = CCA_GGUF_F32, .number = 1e4},
        {"llama.attention.sliding_window", .number = 0}};
    expect_same_logits(export_golden("hf-llama"), none);
}

/* yarn's factor as a whole, which may stand in place of attn_factor: 1 + 0.1 ln 4 is the usual one.
 */
static void factors_of_yarn_are_read(void **state) {
    (void)state;
    static const char *const keys[] = {"llama.rope.scaling.attn_factor",
                                       "llama.rope.scaling.yarn_attn_factor",
                                       "llama.rope.scaling.yarn_log_multiplier"};
    const double usual = 1 + 0.1 * log(4);
    const double values[] = {1.5 / usual, 1.5, (usual / 1.5 - 1) / (0.1 * log(4))};
    const char *golden = export_golden("hf-llama-yarn");
    float want[N_VOCAB], got[N_VOCAB];
    for (int i = 0; i < 3; i++) {
        const change one = {keys[0], .type = CCA_GGUF_F32, .number = 1};
        const change value = {keys[i], .type = CCA_GGUF_F32, .number = values[i]};
        const char *path = change_keys(golden, i ? (change[4]){one, value} : (change[4]){value});
        last_logits(i ? got : want, path);
        if (i) test_below(cca_spread_difference(got, want, N_VOCAB), 2e-6, keys[i]);
        /* Export makes attn_factor of it, and keeps nothing that would count twice. */
        cca_gguf *file = export_model((cca_export_options){.input = path});
        test_below(fabs((double)f32_of(file, keys[0]) * usual - 1.5), 1e-6, keys[i]);
        assert_false(cca_gguf_has(file, keys[1]) || cca_gguf_has(file, keys[2]));
        cca_gguf_close(file);
    }
}

/* --- windows ------------------------------------------------------------------------- */

/* A list, a bool a layer, says the same as a number. */
static void windows_may_be_listed(void **state) {
    (void)state;
    static const uint8_t each_fourth[] = {1, 1, 1, 0}, each_second[] = {1, 0, 1, 0},
                         all[] = {1, 1, 1, 1}, odd[] = {0, 1, 1, 0}, none[] = {0, 0, 0, 0};
    float want[N_VOCAB], got[N_VOCAB];
    static const char exaone[] = "exaone4.attention.sliding_window_pattern";
    static const char qwen[] = "qwen3.attention.sliding_window_pattern";
    const char *golden = export_golden("hf-exaone4-windows");
    expect_same_logits(golden, (change[4]){{exaone, .list = each_fourth, .n = 4}});
    last_logits(want, golden);
    last_logits(got, change_keys(golden, (change[4]){{exaone, .list = each_second, .n = 4}}));
    assert_true(cca_spread_difference(got, want, N_VOCAB) > 1e-2);
    expect_refusal(change_keys(golden, (change[4]){{exaone, .list = odd, .n = 4}}), "changed.gguf",
                   "attention.sliding_window_pattern: not each n-th layer sees all");
    expect_refusal(change_keys(golden, (change[4]){{exaone, .list = all, .n = 3}}), "changed.gguf",
                   "attention.sliding_window_pattern");

    golden = export_golden("hf-qwen3-windows"); /* each second */
    expect_same_logits(golden, (change[4]){{qwen, .list = each_second, .n = 4}});
    /* All, as where there is neither list nor number; and none. */
    last_logits(want, change_keys(golden, (change[4]){{qwen, .list = all, .n = 4}}));
    last_logits(got, change_keys(golden, (change[4]){{qwen, .number = 0}}));
    assert_memory_equal(got, want, sizeof want);
    last_logits(want, change_keys(golden, (change[4]){{qwen, .list = none, .n = 4}}));
    last_logits(got,
                change_keys(golden, (change[4]){{"qwen3.attention.sliding_window", .number = 0}}));
    assert_memory_equal(got, want, sizeof want);
}

/* config.json of olmo3 without layer_types: each fourth layer sees all. */
static void olmo3_has_windows_by_rule(void **state) {
    (void)state;
    char command[256];
    float want[N_VOCAB], got[N_VOCAB];
    last_logits(want, export_golden("hf-olmo3"));
    snprintf(command, sizeof command, "cp -r tests/golden/models/hf-olmo3 %s/hf", test_folder);
    assert_int_equal(system(command), 0); // NOLINT: a name made by mkdtemp
    json_t *config = json_load_file(in_folder("hf/config.json"), 0, NULL);
    assert_int_equal(json_object_del(config, "layer_types"), 0);
    assert_int_equal(json_dump_file(config, in_folder("hf/config.json"), 0), 0);
    json_decref(config);
    cca_gguf *file = export_model((cca_export_options){.input = in_folder("hf")});
    assert_int_equal(u32_of(file, "olmo2.attention.sliding_window_pattern"), 4);
    cca_gguf_close(file);
    last_logits(got, in_folder("out.gguf"));
    assert_memory_equal(got, want, sizeof want);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(others_are_refused_by_name),
        TEST(own_architectures_miss_nothing),
        TEST(keys_that_change_the_sums_are_refused),
        TEST(keys_that_say_nothing_are_read),
        TEST(factors_of_yarn_are_read),
        TEST(windows_may_be_listed),
        TEST(olmo3_has_windows_by_rule),
    };
    return cmocka_run_group_tests_name("architectures", tests, NULL, NULL);
}
