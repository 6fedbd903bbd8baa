/* cca info: facts of a model file. Reads its header only; no engine. */
#include "base/utf8.h"
#include "cli/cli.h"
#include "gguf/config.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TYPES = 16, SHOWN_VALUES = 8, SHOWN_BYTES = 200 };

typedef struct info_options {
    const char *model;
    arg_list files;
    output_options output;
    bool check, keys, tensors;
} info_options;

static const arg_option own_args[] = {
    {"file", .kind = ARG_OPERAND, .value = "FILE", .at = offsetof(info_options, files), .max = 1,
     .help = "the model file"},
    {"model", "m", .kind = ARG_TEXT, .value = "FILE", .at = offsetof(info_options, model),
     .help = "the same; else $CCA_MODEL, else the one that ships with the program"},
    {"check", .kind = ARG_FLAG, .at = offsetof(info_options, check),
     .help = "compare the tensors with their checksums; a difference is exit 8"},
    {"keys", .kind = ARG_FLAG, .at = offsetof(info_options, keys), .help = "list the metadata"},
    {"tensors", .kind = ARG_FLAG, .at = offsetof(info_options, tensors),
     .help = "list the tensors"},
    {0},
};

static const arg_group groups[] = {
    {"Model", own_args, 0},
    {"Output", output_args, offsetof(info_options, output)},
    {0},
};

typedef struct type_count {
    uint32_t type;
    uint64_t n, bytes;
} type_count;

typedef struct info {
    const info_options *o;
    output out;
    cca_gguf *file;
    cca_tokenizer *tokenizer; /* NULL where there is none */
    cca_config config;
    cca_status config_status; /* keys and tensors can be listed of any GGUF file */
    type_count types[MAX_TYPES];
    size_t n_types;
    uint64_t n_params;
    cca_gguf_string name, fingerprint;
    const char *checksums; /* "ok", "present", "absent" */
    char rope[160];
} info;

/* ---- facts ---- */

static void count_types(info *f) {
    for (uint64_t i = 0; i < cca_gguf_n_tensors(f->file); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(f->file, i);
        size_t k = 0;
        while (k < f->n_types && f->types[k].type != t->type) k++;
        if (k == MAX_TYPES) continue;
        if (k == f->n_types) f->types[f->n_types++] = (type_count){.type = t->type};
        f->types[k].n++;
        f->types[k].bytes += t->bytes;
        uint64_t n = 1;
        for (uint32_t d = 0; d < t->n_dims; d++) n *= (uint64_t)t->dims[d];
        f->n_params += cca_tensor_of_rope(t->name) ? 0 : n;
    }
}

static cca_status check_sums(info *f, cca_error *err) {
    bool checked;
    f->checksums = cca_gguf_has(f->file, "cca.crc32") ? "present" : "absent";
    if (!f->o->check) return CCA_OK;
    cca_status status = cca_gguf_check_crc(&checked, f->file, err);
    if (status == CCA_BAD_MODEL) return CCA_CHECK_FAILED;
    if (status) return status;
    if (!checked) {
        return cca_fail(err, CCA_RUNTIME, "%s: the file has no checksums (key cca.crc32)",
                        cca_gguf_name(f->file));
    }
    f->checksums = "ok";
    return CCA_OK;
}

/* Gathers what can be had; the first failure is kept for the end. */
static cca_status gather(info *f, cca_error *err) {
    static const cca_gguf_string none = {"", 0};
    cca_error ignored;
    count_types(f);
    cca_status status = check_sums(f, err);
    if (status) return status;
    if (cca_gguf_str(&f->name, f->file, "general.name", &none, &ignored)) f->name = none;
    if (cca_gguf_str(&f->fingerprint, f->file, "cca.fingerprint", &none, &ignored)) {
        f->fingerprint = none;
    }
    f->config_status = cca_config_read(&f->config, f->file, err);
    if (f->config_status) return f->config_status;
    cca_config_describe_rope(f->rope, sizeof f->rope, &f->config, 0);
    return cca_tokenizer_open(&f->tokenizer, f->file, err);
}

/* ---- text ---- */

static void print_config(info *f) {
    const cca_config *c = &f->config;
    output *out = &f->out;
    output_printf(out, "architecture    %s%s\n", c->arch->name,
                  c->has_bias ? ", biases on q, k, v" : "");
    output_printf(
        out,
        "dimensions      dim %lld, hidden_dim %lld, %lld layer%s, %lld head%s, %lld kv head%s, "
        "head_dim %lld\n",
        (long long)c->dim, (long long)c->hidden_dim, (long long)c->n_layers,
        term_plural(c->n_layers), (long long)c->n_heads, term_plural(c->n_heads),
        (long long)c->n_kv_heads, term_plural(c->n_kv_heads), (long long)c->head_dim);
    output_printf(out, "vocabulary      %lld, embedding and output %s\n", (long long)c->vocab_size,
                  c->tied ? "tied" : "apart");
    output_printf(out, "trained length  %lld\nRoPE            %s\n", (long long)c->trained_length,
                  f->rope);
    if (c->group_size > 0 && c->window_size > 0) {
        output_printf(out, "CCA             g %lld, s %lld, ", (long long)c->group_size,
                      (long long)c->window_size);
    } else {
        output_printf(out, "CCA             no g and s in the file, ");
    }
    if (c->says_sinks) output_printf(out, "sinks %lld, ", (long long)c->n_sinks);
    if (c->says_recall) output_printf(out, "recall %lld, ", (long long)c->recall);
    if (c->says_cores) output_printf(out, "cores %s, ", c->cores ? "yes" : "no");
    output_printf(out, c->tuned ? "tuned\n" : "not tuned\n");
}

static void print_tokenizer(info *f) {
    if (!f->tokenizer) {
        output_printf(&f->out, "tokenizer       none\n");
        return;
    }
    const cca_tokenizer_facts *t = cca_tokenizer_info(f->tokenizer);
    output_printf(&f->out, "tokenizer       %s, %d tokens, bos %d%s, eos %d\n", t->kind,
                  t->vocab_size, t->bos, t->add_bos ? "" : " (not added)", t->eos);
}

static void print_types(info *f) {
    for (size_t i = 0; i < f->n_types; i++) {
        char size[TERM_SIZE_TEXT];
        output_printf(&f->out, "%-15s %s: %llu tensors, %s\n", i == 0 ? "types" : "",
                      cca_gguf_type_name(f->types[i].type), (unsigned long long)f->types[i].n,
                      term_size(size, f->types[i].bytes));
    }
}

static const char *type_of_key(cca_gguf_type type) {
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return (size_t)type < sizeof names / sizeof *names ? names[type] : "?";
}

static bool is_real(cca_gguf_type type) {
    return type == CCA_GGUF_F32 || type == CCA_GGUF_F64;
}

static json_t *json_element(const cca_gguf_array *a, uint64_t i) {
    double number = cca_gguf_array_number(a, i);
    if (a->strings) return output_string(a->strings[i].bytes, a->strings[i].size);
    if (a->type == CCA_GGUF_BOOL) return json_boolean(number != 0);
    if (is_real(a->type) || !(number < 0x1p63)) return output_real(true, number);
    return json_integer((json_int_t)number);
}

/* The first elements of an array. */
static json_t *json_elements(const cca_gguf_array *a, uint64_t most) {
    json_t *list = json_array();
    for (uint64_t i = 0; i < a->n && i < most; i++) output_add(&list, json_element(a, i));
    return list;
}

/* An integer of any type; a 64-bit one beyond JSON's range becomes null. */
static json_t *json_integer_key(const cca_gguf *file, const char *key) {
    uint64_t value;
    if (cca_gguf_u64(&value, file, key, NULL, NULL) || value > INT64_MAX) return json_null();
    return json_integer((json_int_t)value);
}

/* The value of a key; of arrays at most so many elements. */
static json_t *json_key(const cca_gguf *file, const char *key, cca_gguf_type type, uint64_t most) {
    cca_gguf_string string;
    cca_gguf_array array;
    float real;
    bool flag;
    if (type == CCA_GGUF_STRING && cca_gguf_str(&string, file, key, NULL, NULL) == CCA_OK) {
        return output_string(string.bytes, string.size);
    }
    if (type == CCA_GGUF_ARRAY && cca_gguf_arr(&array, file, key, true, NULL) == CCA_OK) {
        return json_elements(&array, most);
    }
    if (type == CCA_GGUF_BOOL && cca_gguf_bool(&flag, file, key, NULL, NULL) == CCA_OK) {
        return json_boolean(flag);
    }
    if (is_real(type) && cca_gguf_f32(&real, file, key, NULL, NULL) == CCA_OK) {
        return output_real(true, (double)real);
    }
    return json_integer_key(file, key);
}

/* What a line of the listing shows of a value. */
static void print_value(output *out, json_t *value, bool is_cut) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    if (!text) {
        output_json(out, NULL); /* no memory */
        return;
    }
    size_t size = strlen(text);
    size_t shown = size < SHOWN_BYTES ? size : SHOWN_BYTES;
    while (shown < size && cca_utf8_continues(text[shown])) shown--; /* whole characters */
    output_printf(out, "%.*s%s\n", (int)shown, text, is_cut || shown < size ? " …" : "");
    free(text);
}

static void print_keys(info *f) {
    output_printf(&f->out, "\n");
    for (uint64_t i = 0; i < cca_gguf_n_keys(f->file); i++) {
        cca_gguf_type type;
        const char *key = cca_gguf_key_at(f->file, i, &type);
        cca_gguf_array array = {0};
        char kind[48];
        snprintf(kind, sizeof kind, "%s", type_of_key(type));
        if (type == CCA_GGUF_ARRAY && cca_gguf_arr(&array, f->file, key, true, NULL) == CCA_OK) {
            snprintf(kind, sizeof kind, "%s[%llu]", type_of_key(array.type),
                     (unsigned long long)array.n);
        }
        json_t *value = json_key(f->file, key, type, SHOWN_VALUES);
        output_printf(&f->out, "%-40s %-12s ", key, kind);
        print_value(&f->out, value, array.n > SHOWN_VALUES);
        json_decref(value);
    }
}

static void print_tensors(info *f) {
    output_printf(&f->out, "\n");
    for (uint64_t i = 0; i < cca_gguf_n_tensors(f->file); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(f->file, i);
        char dims[96];
        int n = 0;
        for (uint32_t d = 0; d < t->n_dims; d++) {
            n += snprintf(dims + n, sizeof dims - (size_t)n, "%s%lld", d ? " x " : "",
                          (long long)t->dims[d]);
        }
        output_printf(&f->out, "%-32s %-6s %-20s %12llu bytes at %llu\n", t->name,
                      cca_gguf_type_name(t->type), dims, (unsigned long long)t->bytes,
                      (unsigned long long)t->offset);
    }
}

static void print_text(info *f) {
    char size[TERM_SIZE_TEXT];
    output *out = &f->out;
    bool has_fingerprint = f->fingerprint.size > 0;
    output_printf(out, "file            %s, %llu bytes (%s)\n", cca_gguf_name(f->file),
                  (unsigned long long)cca_gguf_size(f->file),
                  term_size(size, cca_gguf_size(f->file)));
    if (f->name.size > 0) {
        output_printf(out, "name            ");
        output_text(out, f->name.bytes, f->name.size);
        output_printf(out, "\n");
    }
    output_printf(out, "parameters      %llu\n", (unsigned long long)f->n_params);
    print_types(f);
    if (!f->config_status) {
        print_config(f);
        print_tokenizer(f);
    }
    output_printf(out, "fingerprint     %.*s\n", has_fingerprint ? (int)f->fingerprint.size : 4,
                  has_fingerprint ? f->fingerprint.bytes : "none");
    output_printf(out, "checksums       %s\n", f->checksums);
    if (f->o->keys) print_keys(f);
    if (f->o->tensors) print_tensors(f);
}

/* ---- JSON ---- */

static json_t *json_types(const info *f) {
    json_t *types = json_object();
    for (size_t i = 0; i < f->n_types; i++) {
        json_object_set_new(types, cca_gguf_type_name(f->types[i].type),
                            json_pack("{s:I, s:I}", "tensors", (json_int_t)f->types[i].n, "bytes",
                                      (json_int_t)f->types[i].bytes));
    }
    return types;
}

static json_t *json_tokenizer(const info *f) {
    if (!f->tokenizer) return json_null();
    const cca_tokenizer_facts *t = cca_tokenizer_info(f->tokenizer);
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:b}", "kind", t->kind, "vocab_size",
                     (int)t->vocab_size, "bos", (int)t->bos, "eos", (int)t->eos, "unk", (int)t->unk,
                     "pad", (int)t->pad, "add_bos", (int)t->add_bos);
}

static json_t *json_keys(const info *f) {
    json_t *keys = json_object();
    for (uint64_t i = 0; i < cca_gguf_n_keys(f->file); i++) {
        cca_gguf_type type;
        const char *key = cca_gguf_key_at(f->file, i, &type);
        json_t *clean = output_string(key, strlen(key));
        output_put(&keys, json_string_value(clean), json_key(f->file, key, type, UINT64_MAX));
        json_decref(clean);
    }
    return keys;
}

static json_t *json_tensors(const info *f) {
    json_t *tensors = json_array();
    for (uint64_t i = 0; i < cca_gguf_n_tensors(f->file); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(f->file, i);
        json_t *dims = json_array();
        for (uint32_t d = 0; d < t->n_dims; d++) output_add(&dims, json_integer(t->dims[d]));
        output_add(&tensors, json_pack("{s:o, s:s, s:o, s:I, s:I}", "name",
                                       output_string(t->name, strlen(t->name)), "type",
                                       cca_gguf_type_name(t->type), "dims", dims, "offset",
                                       (json_int_t)t->offset, "bytes", (json_int_t)t->bytes));
    }
    return tensors;
}

static json_t *json_config(const info *f) {
    const cca_config *c = &f->config;
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "architecture",
                     c->arch->name, "dim", (json_int_t)c->dim, "hidden_dim",
                     (json_int_t)c->hidden_dim, "n_layers", (json_int_t)c->n_layers, "n_heads",
                     (json_int_t)c->n_heads, "n_kv_heads", (json_int_t)c->n_kv_heads, "head_dim",
                     (json_int_t)c->head_dim, "vocab_size", (json_int_t)c->vocab_size, "tied",
                     (int)c->tied, "has_bias", (int)c->has_bias);
}

static json_t *record(const info *f) {
    json_t *all = json_pack(
        "{s:s, s:o, s:I, s:o, s:I, s:o, s:o, s:s}", "schema", "cca.info.1", "file",
        output_string(cca_gguf_name(f->file), strlen(cca_gguf_name(f->file))), "bytes",
        (json_int_t)cca_gguf_size(f->file), "name", output_string(f->name.bytes, f->name.size),
        "parameters", (json_int_t)f->n_params, "types", json_types(f), "fingerprint",
        output_string(f->fingerprint.bytes, f->fingerprint.size), "checksums", f->checksums);
    if (!all) return NULL;
    if (!f->config_status) {
        const cca_config *c = &f->config;
        json_t *rest =
            json_pack("{s:o, s:I, s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "config",
                      json_config(f), "context_length", (json_int_t)c->seq_len, "trained_length",
                      (json_int_t)c->trained_length, "rope", f->rope, "group_size",
                      output_size(c->group_size), "window_size", output_size(c->window_size),
                      "sinks", c->says_sinks ? json_integer(c->n_sinks) : json_null(), "recall",
                      c->says_recall ? json_integer(c->recall) : json_null(), "cores",
                      c->says_cores ? json_boolean(c->cores) : json_null(), "tuned", (int)c->tuned,
                      "tokenizer", json_tokenizer(f));
        if (json_object_update(all, rest) != 0) {
            json_decref(all);
            all = NULL;
        }
        json_decref(rest);
    }
    if (f->o->keys) output_put(&all, "keys", json_keys(f));
    if (f->o->tensors) output_put(&all, "tensors", json_tensors(f));
    return all;
}

/* ---- the run ---- */

/* A file whose configuration cannot be read is reported as far as it goes, then refused. */
static cca_status report(info *f, cca_error *err) {
    cca_error late;
    cca_status status = gather(f, err);
    if (status && !f->config_status) return status;
    cca_status printed = output_open(&f->out, f->o->output.file, &late);
    if (!printed) {
        if (f->o->output.json) {
            output_json(&f->out, record(f));
        } else {
            print_text(f);
        }
        printed = output_close(&f->out, true, &late);
    }
    if (!printed) return status;
    *err = late;
    return printed;
}

static cca_status run(const void *options, cca_error *err) {
    info f = {.o = options};
    char *path;
    const char *given = f.o->files.n > 0 ? f.o->files.items[0].text : f.o->model;
    cca_status status = cli_model_path(&path, given, err);
    if (status) return status;
    status = cca_gguf_open(&f.file, path, err);
    if (!status) status = report(&f, err);
    cca_tokenizer_close(f.tokenizer);
    cca_gguf_close(f.file);
    free(path);
    return status;
}

const cli_command cli_info = {
    .name = "info",
    .summary = "facts of a model file, checksums",
    .usage = "FILE [options]",
    .groups = groups,
    .options_size = sizeof(info_options),
    .run = run,
};
