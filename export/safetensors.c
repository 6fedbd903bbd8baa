#include "export/safetensors.h"

#include "base/mapping.h"
#include "export/json.h"

#include <stdlib.h>
#include <string.h>

typedef struct file {
    char *path;
    cca_mapping mapping;
    json_t *header; /* names are borrowed from it */
} file;

struct cca_safetensors {
    file **files;
    size_t n_files;
    cca_safetensor *tensors;
    size_t n_tensors;
};

/* Bytes of a value, 0 for a dtype that is not known. */
static size_t dtype_bytes(const char *dtype) {
    static const struct {
        const char *name;
        size_t bytes;
    } dtypes[] = {
        {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8},     {"I64", 8},
        {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
        {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
    };
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, dtype) == 0) return dtypes[i].bytes;
    }
    return 0;
}

static cca_status bad(const file *f, const char *name, const char *what, cca_error *err) {
    return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s': %s", f->path, name, what);
}

static bool is_size(const json_t *value) {
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

/* dtype and shape; *bytes becomes what they ask for. */
static cca_status read_shape(cca_safetensor *t, size_t *bytes, const json_t *entry, const file *f,
                             cca_error *err) {
    const json_t *dtype = json_object_get(entry, "dtype");
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_string(dtype)) return bad(f, t->name, "it has no dtype", err);
    if (!json_is_array(shape)) return bad(f, t->name, "it has no shape", err);
    t->dtype = json_string_value(dtype);
    *bytes = dtype_bytes(t->dtype);
    if (*bytes == 0) return bad(f, t->name, "its dtype is not known", err);
    if (json_array_size(shape) > CCA_SAFETENSORS_MAX_DIMS) {
        return bad(f, t->name, "it has too many dimensions", err);
    }
    t->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < t->n_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        t->dims[i] = json_integer_value(dim);
        if (!is_size(dim) || !cca_mul(bytes, *bytes, (size_t)t->dims[i])) {
            return bad(f, t->name, "its shape is out of range", err);
        }
    }
    return CCA_OK;
}

/* One entry of the header; n_data bytes of data follow the header at data. */
static cca_status read_tensor(cca_safetensor *t, const json_t *entry, const file *f,
                              const uint8_t *data, size_t n_data, cca_error *err) {
    size_t bytes = 0;
    cca_status status = read_shape(t, &bytes, entry, f, err);
    if (status) return status;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !is_size(from) || !is_size(to)) {
        return bad(f, t->name, "it has no two data_offsets", err);
    }
    size_t begin = (size_t)json_integer_value(from), end = (size_t)json_integer_value(to);
    if (begin > end || end > n_data) {
        return bad(f, t->name, "its data lies outside the file (truncated?)", err);
    }
    if (end - begin != bytes) {
        return bad(f, t->name, "its data_offsets do not fit its shape and dtype", err);
    }
    t->data = data + begin;
    t->bytes = bytes;
    t->file = f->path;
    return CCA_OK;
}

static int compare_places(const void *a, const void *b) {
    const cca_safetensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The tensors must cover the data from its first byte to its last, each byte once. */
static cca_status check_cover(cca_safetensor *tensors, size_t n, const file *f, const uint8_t *data,
                              cca_error *err) {
    const uint8_t *at = data, *end = f->mapping.data + f->mapping.size;
    if (n > 0) qsort(tensors, n, sizeof *tensors, compare_places);
    for (size_t i = 0; i < n; i++) {
        if (tensors[i].data < at) return bad(f, tensors[i].name, "it overlaps another one", err);
        if (tensors[i].data > at) return bad(f, tensors[i].name, "there is a gap before it", err);
        at += tensors[i].bytes;
    }
    if (at == end) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL, "%s: %zu bytes at its end belong to no tensor", f->path,
                    (size_t)(end - at));
}

static cca_status read_tensors(cca_safetensors *set, file *f, const uint8_t *data, cca_error *err) {
    size_t n = json_object_size(f->header);
    size_t n_data = (size_t)(f->mapping.data + f->mapping.size - data);
    cca_safetensor *grown = realloc(set->tensors, (set->n_tensors + n + 1) * sizeof *grown);
    if (!grown) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its header", f->path);
    set->tensors = grown;
    cca_safetensor *first = grown + set->n_tensors;
    n = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(f->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        first[n] = (cca_safetensor){.name = name};
        cca_status status = read_tensor(&first[n], entry, f, data, n_data, err);
        if (status) return status;
        n++;
    }
    set->n_tensors += n;
    return check_cover(first, n, f, data, err);
}

static cca_status read_file(cca_safetensors *set, file *f, cca_error *err) {
    uint64_t header_bytes = 0;
    cca_status status = cca_mapping_open(&f->mapping, f->path, err);
    if (status) return status;
    size_t size = f->mapping.size;
    if (size >= sizeof header_bytes) memcpy(&header_bytes, f->mapping.data, sizeof header_bytes);
    if (size < sizeof header_bytes || header_bytes > size - sizeof header_bytes) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: truncated: a header of %llu bytes in a file of %zu", f->path,
                        (unsigned long long)header_bytes, size);
    }
    const uint8_t *header = f->mapping.data + sizeof header_bytes;
    status = cca_json_parse(&f->header, header, header_bytes, f->path, err);
    return !status ? read_tensors(set, f, header + header_bytes, err) : status;
}

cca_status cca_safetensors_new(cca_safetensors **out, cca_error *err) {
    *out = calloc(1, sizeof **out);
    return *out ? CCA_OK : cca_fail(err, CCA_NO_MEMORY, "no memory for a list of tensors");
}

cca_status cca_safetensors_add(cca_safetensors *set, const char *path, cca_error *err) {
    file **grown = realloc(set->files, (set->n_files + 1) * sizeof *grown);
    if (grown) set->files = grown;
    file *f = calloc(1, sizeof *f);
    char *copy = strdup(path);
    if (!grown || !f || !copy) {
        free(f);
        free(copy);
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to open it", path);
    }
    f->path = copy;
    set->files[set->n_files++] = f;
    return read_file(set, f, err);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const cca_safetensor *)a)->name, ((const cca_safetensor *)b)->name);
}

cca_status cca_safetensors_sort(cca_safetensors *set, cca_error *err) {
    const cca_safetensor *t = set->tensors;
    if (set->n_tensors > 0) qsort(set->tensors, set->n_tensors, sizeof *t, compare_names);
    for (size_t i = 1; i < set->n_tensors; i++) {
        if (strcmp(t[i].name, t[i - 1].name) != 0) continue;
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s' is in %s, too", t[i].file, t[i].name,
                        t[i - 1].file);
    }
    return CCA_OK;
}

cca_safetensor *cca_safetensors_find(cca_safetensors *set, const char *name) {
    cca_safetensor key = {.name = name};
    if (set->n_tensors == 0) return NULL;
    return bsearch(&key, set->tensors, set->n_tensors, sizeof key, compare_names);
}

cca_safetensor *cca_safetensors_find_shared(cca_safetensors *set, const char *name) {
    cca_safetensor *found = cca_safetensors_find(set, name);
    for (size_t i = 0; i < set->n_files && !found; i++) {
        const json_t *notes = json_object_get(set->files[i]->header, "__metadata__");
        const char *kept = json_string_value(json_object_get(notes, name));
        if (kept) found = cca_safetensors_find(set, kept);
    }
    return found;
}

int64_t cca_safetensors_n(const cca_safetensors *set) {
    return (int64_t)set->n_tensors;
}

cca_safetensor *cca_safetensors_at(cca_safetensors *set, int64_t index) {
    return &set->tensors[index];
}

void cca_safetensors_free(cca_safetensors *set) {
    if (!set) return;
    for (size_t i = 0; i < set->n_files; i++) {
        cca_mapping_close(&set->files[i]->mapping);
        json_decref(set->files[i]->header);
        free(set->files[i]->path);
        free(set->files[i]);
    }
    free(set->files);
    free(set->tensors);
    free(set);
}
