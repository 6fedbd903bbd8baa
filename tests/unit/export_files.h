/* What the tests of export share: a folder for their files, a small Hugging Face model that can
 * be changed before it is written, and looks into the file that comes out. */
#ifndef CCA_EXPORT_FILES_H
#define CCA_EXPORT_FILES_H

#include "backend/dtype.h"
#include "base/hash.h"
#include "export/model_file.h"
#include "gguf/gguf.h"
#include "test.h"

#include <dirent.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- files --------------------------------------------------------------------------- */

static char test_folder[32];

static inline int make_folder(void **state) {
    (void)state;
    strcpy(test_folder, "/tmp/test_export_XXXXXX");
    return mkdtemp(test_folder) ? 0 : -1;
}

static inline int remove_folder(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", test_folder);
    return system(command); // NOLINT: a name made by mkdtemp
}

/* A path in the folder; the last 64 stay valid. */
static inline const char *in_folder(const char *name) {
    static char paths[64][256];
    static int next;
    char *path = paths[next++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", test_folder, name);
    return path;
}

static inline void write_bytes(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void write_text(const char *path, const char *text) {
    write_bytes(path, text, strlen(text));
}

static inline int count_files(const char *path) {
    int n = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* --- running ------------------------------------------------------------------------- */

static char warnings[4096];

static inline void keep_warning(void *user, const char *text) {
    (void)user;
    strncat(warnings, text, sizeof warnings - strlen(warnings) - 2);
    strcat(warnings, "\n");
}

static inline cca_status run_export(cca_export_options options, cca_error *err) {
    warnings[0] = '\0';
    err->text[0] = '\0';
    options.on_warning = keep_warning;
    if (!options.n_threads) options.n_threads = 2;
    return cca_export(&options, err);
}

/* Exports and opens the result. */
static inline cca_gguf *export_model(cca_export_options options) {
    cca_error err;
    cca_gguf *file;
    if (!options.output) options.output = in_folder("out.gguf");
    if (run_export(options, &err) != CCA_OK) fail_msg("%s", err.text);
    assert_int_equal(cca_gguf_open(&file, options.output, &err), CCA_OK);
    return file;
}

/* Expects this status and a message that holds the text, and neither output nor temporary. */
static inline void expect_failure(cca_export_options options, cca_status status,
                                  const char *message) {
    cca_error err;
    if (!options.output) options.output = in_folder("out.gguf");
    int files = count_files(test_folder);
    cca_status got = run_export(options, &err);
    if (got != status || !strstr(err.text, message)) {
        fail_msg("status %d, '%s': not %d, '%s'", got, err.text, status, message);
    }
    assert_int_equal(count_files(test_folder), files);
}

/* --- looking ------------------------------------------------------------------------- */

static inline const cca_gguf_tensor *tensor_of(const cca_gguf *file, const char *name) {
    static const cca_gguf_tensor none;
    const cca_gguf_tensor *t = cca_gguf_find(file, name);
    if (!t) fail_msg("no tensor %s", name);
    return t ? t : &none;
}

static inline float value_at(const cca_gguf *file, const char *name, int64_t row, int64_t col) {
    float values[1024];
    size_t row_bytes;
    const cca_gguf_tensor *t = tensor_of(file, name);
    assert_true(t->dims[0] <= 1024 && row < t->dims[1] && col < t->dims[0]);
    assert_true(cca_dtype_row_bytes(&row_bytes, (cca_dtype)t->type, t->dims[0]));
    const uint8_t *bytes = t->data;
    cca_dtype_decode(values, (cca_dtype)t->type, bytes + (size_t)row * row_bytes, t->dims[0]);
    return values[col];
}

static inline uint32_t type_of(const cca_gguf *file, const char *name) {
    return tensor_of(file, name)->type;
}

static inline uint32_t u32_of(const cca_gguf *file, const char *key) {
    cca_error err;
    uint32_t value = 0;
    if (cca_gguf_u32(&value, file, key, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
    return value;
}

static inline float f32_of(const cca_gguf *file, const char *key) {
    cca_error err;
    float value = 0;
    if (cca_gguf_f32(&value, file, key, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
    return value;
}

static inline bool bool_of(const cca_gguf *file, const char *key) {
    cca_error err;
    bool value = false;
    if (cca_gguf_bool(&value, file, key, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
    return value;
}

static inline void expect_text(const cca_gguf *file, const char *key, const char *text) {
    cca_error err;
    cca_gguf_string s;
    if (cca_gguf_str(&s, file, key, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
    assert_int_equal(s.size, strlen(text));
    assert_memory_equal(s.bytes, text, s.size);
}

static inline cca_gguf_array array_of(const cca_gguf *file, const char *key) {
    cca_error err;
    cca_gguf_array array;
    if (cca_gguf_arr(&array, file, key, true, &err) != CCA_OK) fail_msg("%s", err.text);
    return array;
}

static inline void expect_token(const cca_gguf *file, uint64_t id, const char *text, int type) {
    cca_gguf_array tokens = array_of(file, "tokenizer.ggml.tokens");
    cca_gguf_array types = array_of(file, "tokenizer.ggml.token_type");
    assert_true(id < tokens.n);
    assert_int_equal(tokens.strings[id].size, strlen(text));
    assert_memory_equal(tokens.strings[id].bytes, text, strlen(text));
    assert_int_equal((int)cca_gguf_array_number(&types, id), type);
}

/* --- a small Hugging Face model ------------------------------------------------------ */

enum { DIM = 32, HIDDEN = 64, LAYERS = 2, HEADS = 4, KV_HEADS = 2, HEAD = 16, VOCAB = 40 };
enum { Q_ROWS = HEADS * HEAD, KV_ROWS = KV_HEADS * HEAD, MAX_HF_TENSORS = 48 };

typedef struct hf_tensor {
    char name[64];
    const char *dtype;
    int n_dims;
    int64_t dims[2];
} hf_tensor;

typedef struct hf_model {
    hf_tensor tensors[MAX_HF_TENSORS];
    int n;
} hf_model;

static inline hf_tensor *hf_add(hf_model *m, const char *name, const char *dtype, int64_t rows,
                                int64_t cols) {
    assert_true(m->n < MAX_HF_TENSORS);
    hf_tensor *t = &m->tensors[m->n++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dtype = dtype;
    t->n_dims = cols ? 2 : 1;
    t->dims[0] = rows;
    t->dims[1] = cols ? cols : 1;
    return t;
}

static inline hf_tensor *hf_find(hf_model *m, const char *name) {
    for (int i = 0; i < m->n; i++) {
        if (strcmp(m->tensors[i].name, name) == 0) return &m->tensors[i];
    }
    fail_msg("no %s", name);
    return NULL;
}

static inline void hf_build(hf_model *m, const char *dtype, bool tied, bool biases) {
    static const struct {
        const char *name;
        int64_t rows, cols;
        bool bias;
    } layer[] = {
        {"input_layernorm.weight", DIM, 0, false},
        {"self_attn.q_proj.weight", Q_ROWS, DIM, false},
        {"self_attn.k_proj.weight", KV_ROWS, DIM, false},
        {"self_attn.v_proj.weight", KV_ROWS, DIM, false},
        {"self_attn.q_proj.bias", Q_ROWS, 0, true},
        {"self_attn.k_proj.bias", KV_ROWS, 0, true},
        {"self_attn.v_proj.bias", KV_ROWS, 0, true},
        {"self_attn.o_proj.weight", DIM, Q_ROWS, false},
        {"post_attention_layernorm.weight", DIM, 0, false},
        {"mlp.gate_proj.weight", HIDDEN, DIM, false},
        {"mlp.up_proj.weight", HIDDEN, DIM, false},
        {"mlp.down_proj.weight", DIM, HIDDEN, false},
    };
    m->n = 0;
    hf_add(m, "model.embed_tokens.weight", dtype, VOCAB, DIM);
    for (int l = 0; l < LAYERS; l++) {
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++) {
            char name[64];
            if (layer[i].bias && !biases) continue;
            snprintf(name, sizeof name, "model.layers.%d.%s", l, layer[i].name);
            hf_add(m, name, dtype, layer[i].rows, layer[i].cols);
        }
    }
    hf_add(m, "model.norm.weight", dtype, DIM, 0);
    if (!tied) hf_add(m, "lm_head.weight", dtype, VOCAB, DIM);
}

/* The value of element i of a tensor: a multiple of 1/64 below 1, exact in every type. */
static inline float hf_value(const char *name, int64_t i) {
    uint64_t seed = cca_hash(name, strlen(name));
    return (float)((int)(cca_random_at(seed, (uint64_t)i + 1) % 127) - 63) / 64;
}

static inline size_t hf_value_bytes(const char *dtype) {
    return strcmp(dtype, "F32") == 0 || strcmp(dtype, "I32") == 0 ? 4 : 2;
}

/* A safetensors file of the tensors first … end - 1; returns its header's size. */
static inline size_t hf_write(const hf_model *m, const char *path, int first, int end) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    size_t at = 0;
    uint8_t *data = calloc(1, 1 << 20);
    for (int i = first; i < end; i++) {
        const hf_tensor *t = &m->tensors[i];
        size_t n = (size_t)(t->dims[0] * t->dims[1]), each = hf_value_bytes(t->dtype);
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++) {
            json_array_append_new(shape, json_integer(t->dims[d]));
        }
        json_object_set_new(header, t->name,
                            json_pack("{s:s, s:o, s:[I,I]}", "dtype", t->dtype, "shape", shape,
                                      "data_offsets", (json_int_t)at, (json_int_t)(at + n * each)));
        for (size_t k = 0; k < n; k++) {
            float value = hf_value(t->name, (int64_t)k);
            cca_dtype type = CCA_F32;
            if (strcmp(t->dtype, "I32") != 0) assert_true(cca_dtype_parse(&type, t->dtype));
            cca_dtype_encode(data + at + k * each, type, &value, 1);
        }
        at += n * each;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t size = strlen(text); /* not padded: the data lie at any address */
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(&size, sizeof size, 1, f);
    fwrite(text, 1, size, f);
    fwrite(data, 1, at, f);
    assert_int_equal(fclose(f), 0);
    free(text);
    free(data);
    json_decref(header);
    return size;
}

/* config.json in the folder: the model's, changed by the fields of more (JSON, or ""). */
static inline void hf_config(const char *path, const char *model_type, const char *more) {
    json_error_t e;
    json_t *config =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:s}", "model_type",
                  model_type, "hidden_size", DIM, "intermediate_size", HIDDEN, "num_hidden_layers",
                  LAYERS, "num_attention_heads", HEADS, "num_key_value_heads", KV_HEADS, "head_dim",
                  HEAD, "vocab_size", VOCAB, "max_position_embeddings", 256, "rms_norm_eps", 1e-5,
                  "rope_theta", 10000.0, "hidden_act", "silu");
    char text[2048];
    snprintf(text, sizeof text, "{%s}", more);
    json_t *changes = json_loads(text, 0, &e);
    if (!changes) fail_msg("%s: %s", more, e.text);
    json_object_update(config, changes);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(changes);
    json_decref(config);
}

/* A whole folder "hf": returns its path. */
static inline const char *hf_folder(const hf_model *m, const char *model_type, const char *more) {
    const char *path = in_folder("hf");
    mkdir(path, 0777);
    hf_config(in_folder("hf/config.json"), model_type, more);
    hf_write(m, in_folder("hf/model.safetensors"), 0, m->n);
    return path;
}

#endif
