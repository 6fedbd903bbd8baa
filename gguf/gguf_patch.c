/* Patches: files that have some tensors and keys in place of another's, whose weights they tell by
 * name and checksum. */
#include "gguf/gguf_file.h"

#include <stdlib.h>
#include <string.h>

static const char TENSORS[] = "cca.patch.tensors", CRCS[] = "cca.patch.crc32";

static bool equals(const cca_gguf_string *s, const char *text) {
    return s->size == strlen(text) && memcmp(s->bytes, text, s->size) == 0;
}

/* ---- the base ------------------------------------------------------------------------- */

static cca_status refuse(const cca_gguf *file, const cca_gguf *patch, const char *what,
                         const char *tensor, cca_error *err) {
    cca_gguf_string base = {"", 0}, none = base;
    if (cca_gguf_str(&base, patch, "cca.patch.base", &none, NULL)) base = none;
    return cca_fail(err, CCA_BAD_MODEL,
                    "%s: is made for other weights than those of %s: %s '%s'%s%.*s", patch->name,
                    file->name, what, tensor, base.size > 0 ? "; its base is " : "",
                    (int)cca_min((int64_t)base.size, 100), base.bytes);
}

static cca_status read_lists(cca_gguf_array *names, cca_gguf_array *crcs, const cca_gguf *patch,
                             cca_error *err) {
    cca_status status = cca_gguf_arr(names, patch, TENSORS, true, err);
    if (!status) status = cca_gguf_arr(crcs, patch, CRCS, true, err);
    if (status) return status;
    if (!names->strings || crcs->type != CCA_GGUF_U32 || names->n != crcs->n) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: keys %s and %s are no names and as many checksums of type u32",
                        patch->name, TENSORS, CRCS);
    }
    return CCA_OK;
}

/* Tensors may have another order: tools that write files anew change it. */
static cca_status compare_base(const cca_gguf *file, const cca_gguf *patch, const uint32_t *found,
                               cca_error *err) {
    cca_gguf_array names, crcs;
    cca_status status = read_lists(&names, &crcs, patch, err);
    for (uint64_t i = 0; i < file->n_tensors && !status; i++) {
        const char *name = file->tensors[i].name;
        uint64_t at = i < names.n && equals(&names.strings[i], name) ? i : 0;
        while (at < names.n && !equals(&names.strings[at], name)) at++;
        if (at == names.n) {
            status = refuse(file, patch, "they have", name, err);
        } else if ((uint32_t)cca_gguf_array_number(&crcs, at) != found[i]) {
            status = refuse(file, patch, "they differ in", name, err);
        }
    }
    if (!status && names.n != file->n_tensors) {
        status = cca_fail(err, CCA_BAD_MODEL,
                          "%s: is made for other weights than those of %s: for %llu tensors, not "
                          "%llu",
                          patch->name, file->name, (unsigned long long)names.n,
                          (unsigned long long)file->n_tensors);
    }
    return status;
}

static cca_status check_base(const cca_gguf *file, const cca_gguf *patch, cca_error *err) {
    uint32_t *found = calloc(file->n_tensors + 1, sizeof *found);
    if (!found) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to check it", file->name);
    cca_status status = cca_gguf_crcs(found, file, err);
    if (!status) status = compare_base(file, patch, found, err);
    free(found);
    return status;
}

/* ---- tensors -------------------------------------------------------------------------- */

static cca_status take_tensors(cca_gguf *file, const cca_gguf *patch, cca_error *err) {
    for (uint64_t i = 0; i < patch->n_tensors; i++) {
        const cca_gguf_tensor *new = &patch->tensors[i];
        cca_gguf_tensor *old = (cca_gguf_tensor *)cca_gguf_find(file, new->name);
        if (!old || memcmp(old->dims, new->dims, sizeof old->dims) != 0) {
            return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s' is none of %s%s", patch->name,
                            new->name, file->name, old ? " in this shape" : "");
        }
        old->type = new->type;
        old->bytes = new->bytes;
        old->data = new->data;
    }
    return CCA_OK;
}

/* ---- keys ----------------------------------------------------------------------------- */

/* Those that tell of the patch's own bytes, and of what it is for, stay behind. */
static bool is_taken(const char *key) {
    static const char *const own[] = {
        "general.architecture",         "general.alignment", "general.file_type",
        "general.quantization_version", "cca.crc32",         "cca.fingerprint"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (strcmp(key, own[i]) == 0) return false;
    }
    return strncmp(key, "cca.patch.", sizeof "cca.patch." - 1) != 0;
}

/* What was there goes to the patch, which frees it. n: keys with those that came to the file's own,
 * which alone the index knows; a patch's keys differ from each other. */
static void take_key(cca_gguf *file, uint64_t *n, cca_gguf_key *new) {
    cca_gguf_key *old = (cca_gguf_key *)cca_gguf_find_key(file, new->name);
    cca_gguf_key kept = old ? *old : (cca_gguf_key){0};
    if (!old) old = &file->keys[(*n)++];
    *old = *new;
    *new = kept;
}

static cca_status take_keys(cca_gguf *file, cca_gguf *patch, cca_error *err) {
    const size_t most = (size_t)(file->n_keys + patch->n_keys);
    cca_gguf_key *keys = realloc(file->keys, (most + 1) * sizeof *keys);
    if (keys) file->keys = keys;
    cca_gguf_entry *index = realloc(file->key_index, (most + 1) * sizeof *index);
    if (index) file->key_index = index;
    if (!keys || !index) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its keys", patch->name);
    }
    uint64_t n = file->n_keys;
    for (uint64_t i = 0; i < patch->n_keys; i++) {
        if (is_taken(patch->keys[i].name)) take_key(file, &n, &patch->keys[i]);
    }
    file->n_keys = n;
    for (uint64_t i = 0; i < file->n_keys; i++) {
        file->key_index[i] = (cca_gguf_entry){file->keys[i].name, i};
    }
    qsort(file->key_index, (size_t)file->n_keys, sizeof *file->key_index, cca_gguf_compare_entries);
    return CCA_OK;
}

/* ---- the whole ------------------------------------------------------------------------ */

static cca_status check_architecture(const cca_gguf *file, const cca_gguf *patch, cca_error *err) {
    cca_gguf_string base = {"", 0}, own = base;
    cca_status status = cca_gguf_str(&base, file, "general.architecture", NULL, err);
    if (!status) status = cca_gguf_str(&own, patch, "general.architecture", NULL, err);
    if (status || (base.size == own.size && memcmp(base.bytes, own.bytes, own.size) == 0)) {
        return status;
    }
    return cca_fail(err, CCA_BAD_MODEL, "%s: is for %.*s, and %s is %.*s", patch->name,
                    (int)cca_min((int64_t)own.size, 40), own.bytes, file->name,
                    (int)cca_min((int64_t)base.size, 40), base.bytes);
}

/* The file keeps the patch open. */
static cca_status keep(cca_gguf *file, cca_gguf *patch, cca_error *err) {
    cca_gguf **parts = realloc(file->parts, (size_t)(file->n_parts + 1) * sizeof(cca_gguf *));
    if (!parts) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to keep it", patch->name);
    file->parts = parts;
    parts[file->n_parts++] = patch;
    return CCA_OK;
}

cca_status cca_gguf_patch(cca_gguf *file, const char *path, cca_error *err) {
    cca_gguf *patch = NULL;
    cca_status status = cca_gguf_open(&patch, path, err);
    if (!status) status = check_architecture(file, patch, err);
    if (!status) status = check_base(file, patch, err);
    if (!status) status = keep(file, patch, err);
    if (status) {
        cca_gguf_close(patch);
        return status;
    }
    status = take_tensors(file, patch, err);
    return status ? status : take_keys(file, patch, err);
}
