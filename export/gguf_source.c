/* GGUF files of the architectures that run, in any type that can be read: what the file says
 * goes into the configuration, and the keys that this does not cover are carried over. */
#include "export/source.h"
#include "gguf/config.h"

#include <stdlib.h>
#include <string.h>

/* What is kept open. */
typedef struct gguf_source {
    cca_gguf *file;
    bool *used; /* a tensor of the file */
} gguf_source;

static void close_gguf(void *owner) {
    gguf_source *s = owner;
    cca_gguf_close(s->file);
    free(s->used);
    free(s);
}

static cca_status take_type(cca_source_tensor *t, const cca_gguf_tensor *found, const char *path,
                            cca_error *err) {
    if (!cca_dtype_converts(found->type, t->vector)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s' has type %s, which is not read%s",
                        path, t->name, cca_gguf_type_name(found->type),
                        t->vector ? " for a vector" : "");
    }
    t->type = (cca_dtype)found->type;
    return CCA_OK;
}

static cca_status take_tensor(cca_source_tensor *t, const cca_config *c, gguf_source *s,
                              const char *path, cca_error *err) {
    cca_tensor_place place;
    cca_status status = cca_tensor_find(&place, s->file, t->role, t->layer, c, err);
    if (status) return status;
    t->data = place.data;
    t->mapped = true;
    s->used[place.tensor - cca_gguf_tensor_at(s->file, 0)] = true;
    return take_type(t, place.tensor, path, err);
}

static cca_status take_tensors(cca_source *source, gguf_source *s, const char *path,
                               cca_error *err) {
    cca_status status = CCA_OK;
    uint64_t n = cca_gguf_n_tensors(s->file);
    s->used = calloc(n + 1, sizeof *s->used);
    if (!s->used) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to list it", path);
    for (int64_t i = 0; i < source->n_tensors && !status; i++) {
        status = take_tensor(&source->tensors[i], &source->config, s, path, err);
    }
    for (uint64_t i = 0; i < n && !status; i++) {
        if (s->used[i]) continue;
        status = cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s' is unknown to this architecture",
                          path, cca_gguf_tensor_at(s->file, i)->name);
    }
    return status;
}

/* Its general.name; else that of the file. */
static char *model_name(const cca_gguf *file, const char *path) {
    cca_gguf_string s;
    const cca_gguf_string none = {"", 0};
    bool good = cca_gguf_str(&s, file, "general.name", &none, NULL) == CCA_OK && s.size > 0 &&
                !memchr(s.bytes, '\0', s.size);
    return good ? strndup(s.bytes, s.size) : cca_export_base_name(path);
}

static bool has_tokenizer(const cca_gguf *file) {
    static const char *const none[] = {"no_vocab", "none"};
    cca_gguf_string s;
    bool has = cca_gguf_str(&s, file, "tokenizer.ggml.model", NULL, NULL) == CCA_OK;
    for (size_t i = 0; has && i < sizeof none / sizeof *none; i++) {
        has = s.size != strlen(none[i]) || memcmp(s.bytes, none[i], s.size) != 0;
    }
    return has;
}

static cca_status read_file(cca_source *out, gguf_source *s, const char *path, cca_error *err) {
    out->keys = s->file;
    out->name = model_name(s->file, path);
    out->text = (cca_source_text){.bos = -1, .eos = -1, .add_bos = true};
    out->text.is_carried = has_tokenizer(s->file);
    if (!out->name) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its name", path);
    cca_status status = cca_config_read(&out->config, s->file, err);
    if (!status) status = cca_source_layout(out, path, err);
    if (!status) status = take_tensors(out, s, path, err);
    return status;
}

cca_status cca_source_open_gguf(cca_source *out, const char *path, const char *patch,
                                cca_error *err) {
    gguf_source *s = calloc(1, sizeof *s);
    if (!s) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to open it", path);
    out->owner = s;
    out->close = close_gguf;
    cca_status status = cca_gguf_open(&s->file, path, err);
    if (!status && patch) status = cca_gguf_patch(s->file, patch, err);
    return !status ? read_file(out, s, path, err) : status;
}
