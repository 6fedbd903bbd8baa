/* A Hugging Face folder: config.json, safetensors and what there is about text. */
#include "export/hf.h"
#include "export/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char *join(const char *folder, const char *name) {
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path) snprintf(path, size, "%s/%s", folder, name);
    return path;
}

static cca_status no_memory(const char *folder, cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to read it", folder);
}

/* The path of a file of the folder in *out, NULL where there is no such file. */
static cca_status find_file(char **out, const char *folder, const char *name, cca_error *err) {
    struct stat st;
    *out = join(folder, name);
    if (!*out) return no_memory(folder, err);
    if (stat(*out, &st) != 0 && errno == ENOENT) {
        free(*out);
        *out = NULL;
    }
    return CCA_OK;
}

/* A JSON file of the folder and its path; both NULL where there is none. */
static cca_status load(json_t **out, char **path, const char *folder, const char *name,
                       cca_error *err) {
    *out = NULL;
    cca_status status = find_file(path, folder, name, err);
    if (!status && *path) status = cca_json_load(out, *path, err);
    return status;
}

/* --- weights ------------------------------------------------------------------------- */

static cca_status add_shard(cca_safetensors *set, const char *folder, const char *name,
                            cca_error *err) {
    char *path = join(folder, name);
    if (!path) return no_memory(folder, err);
    cca_status status = cca_safetensors_add(set, path, err);
    free(path);
    return status;
}

/* Each file that the index names, once. A name that leaves the folder is refused. */
static cca_status add_shards(cca_safetensors *set, const json_t *map, const char *folder,
                             const char *index, cca_error *err) {
    const char *tensor;
    json_t *file, *seen = json_object();
    cca_status status = seen ? CCA_OK : no_memory(folder, err);
    json_object_foreach((json_t *)map, tensor, file) {
        const char *name = json_string_value(file);
        if (status) break;
        if (!name || name[0] == '.' || strchr(name, '/')) {
            status = cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s': '%s' is no file of this folder",
                              index, tensor, name ? name : "");
        } else if (!json_object_get(seen, name)) {
            status =
                json_object_set_new(seen, name, json_true()) == 0 ? CCA_OK : no_memory(folder, err);
            if (!status) status = add_shard(set, folder, name, err);
        }
    }
    json_decref(seen);
    return status;
}

/* Each tensor must be in the file that the index names. */
static cca_status check_index(cca_safetensors *set, const json_t *map, const char *index,
                              cca_error *err) {
    const char *name;
    json_t *file;
    json_object_foreach((json_t *)map, name, file) {
        const cca_safetensor *t = cca_safetensors_find_shared(set, name);
        const char *base = t ? strrchr(t->file, '/') : NULL;
        if (base && strcmp(base + 1, json_string_value(file)) == 0) continue;
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s' is not in %s", index, name,
                        json_string_value(file));
    }
    return CCA_OK;
}

static cca_status open_indexed(cca_safetensors *set, const char *folder, cca_error *err) {
    json_t *index;
    char *path;
    cca_status status = load(&index, &path, folder, "model.safetensors.index.json", err);
    if (!status && !path) {
        status = cca_fail(err, CCA_BAD_MODEL,
                          "%s: neither model.safetensors nor model.safetensors.index.json in it",
                          folder);
    }
    const json_t *map = json_object_get(index, "weight_map");
    if (!status && json_object_size(map) == 0) {
        status = cca_fail(err, CCA_BAD_MODEL, "%s: weight_map is missing", path);
    }
    if (!status) status = add_shards(set, map, folder, path, err);
    if (!status) status = cca_safetensors_sort(set, err);
    if (!status) status = check_index(set, map, path, err);
    json_decref(index);
    free(path);
    return status;
}

static cca_status open_weights(cca_safetensors *set, const char *folder, cca_error *err) {
    char *single;
    cca_status status = find_file(&single, folder, "model.safetensors", err);
    if (status) return status;
    if (!single) return open_indexed(set, folder, err);
    status = cca_safetensors_add(set, single, err);
    free(single);
    return !status ? cca_safetensors_sort(set, err) : status;
}

/* --- binding ------------------------------------------------------------------------- */

/* What stands before the names: of the output, and of all else, which may have been saved without
 * its head; by how its parts are nested where there are others than text. The last is usual. */
enum { N_SPELLINGS = 2 };
static const char *const prefixes[2][2][N_SPELLINGS] = {
    {{"", "model."}, {"", ""}},
    {{"language_model.model.", "model.language_model."}, {"language_model.", ""}}};

/* By its name behind what stands before it; the last one tried is in name. */
static cca_safetensor *find_named(cca_safetensors *set, const cca_source *source, bool is_output,
                                  const char *rest, char *name, size_t size) {
    cca_safetensor *found = NULL;
    for (int i = 0; i < N_SPELLINGS && !found; i++) {
        snprintf(name, size, "%s%s", prefixes[source->nested][is_output][i], rest);
        found = cca_safetensors_find_shared(set, name);
    }
    return found;
}

/* In a layer "layers.N." stands in front of the name. */
static cca_safetensor *find_tensor(cca_safetensors *set, const cca_source *source, cca_role role,
                                   int64_t n, char *name, size_t size) {
    char layer[32] = "", rest[96];
    if (role >= CCA_FIRST_OF_LAYER) snprintf(layer, sizeof layer, "layers.%lld.", (long long)n);
    snprintf(rest, sizeof rest, "%s%s", layer, cca_tensor_hf_name(role, source->family));
    return find_named(set, source, role == CCA_OUTPUT, rest, name, size);
}

/* A tied embedding is the output matrix, too, and may have been saved under that name. */
static cca_safetensor *find_source(cca_safetensors *set, const cca_source *source,
                                   const cca_source_tensor *t, char *name, size_t size) {
    char other[128];
    cca_safetensor *found = find_tensor(set, source, t->role, t->layer, name, size);
    if (found || !source->config.tied || t->role != CCA_EMBEDDING) return found;
    return find_tensor(set, source, CCA_OUTPUT, 0, other, sizeof other);
}

/* Whether output and embedding are one tensor: as config.json says, or as it was saved. */
static bool is_tied(cca_safetensors *set, const cca_source *s, int tie) {
    char name[128];
    const cca_safetensor *embedding = find_tensor(set, s, CCA_EMBEDDING, 0, name, sizeof name);
    const cca_safetensor *output = find_tensor(set, s, CCA_OUTPUT, 0, name, sizeof name);
    if (embedding && embedding == output) return true;
    return tie >= 0 ? tie == 1 : !embedding || !output;
}

/* The tensor that holds the rows of t among others. */
static cca_safetensor *find_fused(cca_safetensors *set, const cca_source *source,
                                  const cca_source_tensor *t, int64_t *before, int64_t *rows) {
    char name[128], rest[96];
    const cca_fused *fused = cca_fused_of(t->role);
    if (!fused) return NULL;
    snprintf(rest, sizeof rest, "layers.%lld.%s", (long long)t->layer, fused->hf_name);
    *rows = cca_fused_rows(before, fused, t->role, &source->config);
    return find_named(set, source, false, rest, name, sizeof name);
}

static bool find_dtype(cca_dtype *out, const char *name) {
    return cca_dtype_parse(out, name) && cca_dtype_block(*out) == 1;
}

/* rows: of the tensor of the folder, which may hold others' too. */
static cca_status check_shape(const cca_source_tensor *t, int64_t rows, const cca_safetensor *found,
                              cca_error *err) {
    int n_dims = t->vector ? 1 : 2;
    if (found->n_dims == n_dims && found->dims[0] == rows &&
        (t->vector || found->dims[1] == t->cols)) {
        return CCA_OK;
    }
    char shape[128] = "";
    for (int i = 0; i < found->n_dims; i++) {
        size_t at = strlen(shape);
        snprintf(shape + at, sizeof shape - at, "%s%lld", i ? ", " : "", (long long)found->dims[i]);
    }
    return cca_fail(err, CCA_BAD_MODEL,
                    t->vector
                        ? "%s: tensor '%s' has shape [%s], not [%lld] as config.json asks"
                        : "%s: tensor '%s' has shape [%s], not [%lld, %lld] as config.json asks",
                    found->file, found->name, shape, (long long)rows, (long long)t->cols);
}

static cca_status bind_tensor(cca_source_tensor *t, const cca_source *source, cca_safetensors *set,
                              const char *folder, cca_error *err) {
    char name[128];
    const cca_config *c = &source->config;
    int64_t before = 0, rows = t->rows;
    cca_safetensor *found = find_source(set, source, t, name, sizeof name);
    if (!found) found = find_fused(set, source, t, &before, &rows);
    if (!found) return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s' is missing", folder, name);
    if (!find_dtype(&t->type, found->dtype)) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: tensor '%s' has dtype %s (F32, F16, BF16 are read)", found->file,
                        found->name, found->dtype);
    }
    cca_status status = check_shape(t, rows, found, err);
    if (status) return status;
    size_t skip = 0;
    (void)cca_dtype_row_bytes(&skip, t->type, before * t->cols); /* no more than there is */
    t->data = found->data + skip;
    t->mapped = true;
    found->used = true;
    if (c->arch->interleaved && !source->family->paired && cca_tensors[t->role].rotates) {
        t->paired_heads = t->rows / c->head_dim;
    }
    return CCA_OK;
}

static bool ends_with(const char *text, const char *end) {
    const size_t size = strlen(text), n = strlen(end);
    return size >= n && strcmp(text + size - n, end) == 0;
}

/* What may be there unused: tables that old versions saved, the copy of a tied embedding. */
static bool is_harmless(const char *name, bool tied) {
    if (ends_with(name, "rotary_emb.inv_freq")) return true;
    return tied && ends_with(name, cca_tensors[CCA_OUTPUT].hf_name);
}

/* Whether it belongs to a part that reads images. */
static bool is_of_images(const char *name) {
    static const char *const parts[] = {"vision_tower.", "multi_modal_projector."};
    if (strncmp(name, "model.", strlen("model.")) == 0) name += strlen("model.");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (strncmp(name, parts[i], strlen(parts[i])) == 0) return true;
    }
    return false;
}

static cca_status bind(cca_source *source, cca_safetensors *set, const char *folder,
                       const cca_export_options *options, cca_error *err) {
    int64_t n_left_out = 0;
    for (int64_t i = 0; i < source->n_tensors; i++) {
        cca_source_tensor *t = &source->tensors[i];
        if (!cca_tensors[t->role].hf_name) continue;
        cca_status status = bind_tensor(t, source, set, folder, err);
        if (status) return status;
    }
    for (int64_t i = 0; i < cca_safetensors_n(set); i++) {
        const cca_safetensor *t = cca_safetensors_at(set, i);
        if (t->used || is_harmless(t->name, source->config.tied)) continue;
        if (source->nested && is_of_images(t->name)) {
            n_left_out++;
            continue;
        }
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: tensor '%s' is unknown: leaving it out would "
                        "change what the model computes",
                        t->file, t->name);
    }
    if (n_left_out > 0) {
        cca_export_warn(options,
                        "%s: its %lld tensors for images are left out: the model file reads text",
                        folder, (long long)n_left_out);
    }
    return CCA_OK;
}

/* --- text ---------------------------------------------------------------------------- */

/* A template stands alone, or in a list of named ones of which "default" is taken. */
static const char *template_of(const json_t *config) {
    const json_t *value = json_object_get(config, "chat_template");
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        if (!name || strcmp(name, "default") != 0) continue;
        return json_string_value(json_object_get(item, "template"));
    }
    return json_string_value(value);
}

static cca_status read_template_file(char **out, const char *folder, cca_error *err) {
    char *path;
    cca_mapping file;
    cca_status status = find_file(&path, folder, "chat_template.jinja", err);
    if (status || !path) return status;
    status = cca_mapping_open(&file, path, err);
    free(path);
    if (status) return status;
    *out = strndup((const char *)file.data, file.size);
    cca_mapping_close(&file);
    return *out ? CCA_OK : no_memory(folder, err);
}

/* The text of a special token, which stands alone or in an object; what is there already stays. */
static void take_token(char **out, cca_json_reader *r, const json_t *config, const char *key) {
    const json_t *value = json_object_get(config, key);
    if (json_is_object(value)) value = json_object_get(value, "content");
    const char *text = json_string_value(value);
    if (*out || !text || r->status) return;
    *out = strdup(text);
    if (!*out) r->status = cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory", r->path);
}

static void take_tokens(cca_source_text *text, cca_json_reader *r, const json_t *config) {
    take_token(&text->bos_token, r, config, "bos_token");
    take_token(&text->eos_token, r, config, "eos_token");
    take_token(&text->pad_token, r, config, "pad_token");
}

static cca_status read_special_tokens(cca_source_text *text, const char *folder, cca_error *err) {
    json_t *map;
    char *path;
    cca_status status = load(&map, &path, folder, "special_tokens_map.json", err);
    cca_json_reader r = {.path = path, .err = err, .status = status};
    take_tokens(text, &r, map);
    json_decref(map);
    free(path);
    return r.status;
}

static cca_status read_tokenizer_config(cca_source_text *text, const char *folder, cca_error *err) {
    json_t *config;
    char *path;
    cca_status status = load(&config, &path, folder, "tokenizer_config.json", err);
    cca_json_reader r = {.path = path, .err = err, .status = status};
    text->says_add_bos = cca_json_field(config, "add_bos_token");
    text->add_bos = cca_json_bool(&r, config, "add_bos_token", true);
    take_tokens(text, &r, config);
    if (!r.status) r.status = read_template_file(&text->chat_template, folder, err);
    const char *template = template_of(config);
    if (!r.status && !text->chat_template && template) {
        text->chat_template = strdup(template);
        if (!text->chat_template) r.status = no_memory(folder, err);
    }
    json_decref(config);
    free(path);
    return r.status;
}

static cca_status read_text(cca_source_text *text, const char *folder, cca_error *err) {
    json_t *generation;
    char *path;
    cca_status status = load(&generation, &path, folder, "generation_config.json", err);
    cca_json_reader r = {.path = path, .err = err, .status = status};
    cca_hf_add_ends(text, &r, generation);
    json_decref(generation);
    free(path);
    if (!r.status) r.status = read_tokenizer_config(text, folder, err);
    if (!r.status) r.status = read_special_tokens(text, folder, err);
    if (!r.status) r.status = find_file(&text->tokenizer, folder, "tokenizer.model", err);
    if (r.status || text->tokenizer) return r.status;
    return find_file(&text->tokenizer, folder, "tokenizer.json", err);
}

/* --- the folder ---------------------------------------------------------------------- */

static void close_set(void *owner) {
    cca_safetensors_free(owner);
}

static cca_status read_config(cca_source *out, int *tie, const char *folder,
                              const cca_export_options *options, cca_error *err) {
    json_t *config;
    char *path;
    cca_status status = load(&config, &path, folder, "config.json", err);
    if (!status && !path) {
        status = cca_fail(err, CCA_BAD_MODEL, "%s: no config.json in it", folder);
    }
    if (!status) status = cca_hf_read_config(out, tie, config, path, options, err);
    json_decref(config);
    free(path);
    return status;
}

cca_status cca_source_open_folder(cca_source *out, const char *path,
                                  const cca_export_options *options, cca_error *err) {
    int tie = -1;
    cca_safetensors *set;
    out->text = (cca_source_text){.bos = -1, .eos = -1, .add_bos = true};
    out->name = cca_export_base_name(path);
    if (!out->name) return no_memory(path, err);
    cca_status status = read_config(out, &tie, path, options, err);
    if (!status) status = cca_safetensors_new(&set, err);
    if (status) return status;
    out->owner = set;
    out->close = close_set;
    status = open_weights(set, path, err);
    if (status) return status;
    out->config.tied = is_tied(set, out, tie);
    status = cca_source_layout(out, path, err);
    if (!status) status = bind(out, set, path, options, err);
    return !status ? read_text(&out->text, path, err) : status;
}
