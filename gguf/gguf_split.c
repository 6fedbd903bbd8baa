/* Model files in several parts, as llama-gguf-split makes them: the first has the keys, each has
 * some of the tensors, and names that end in -00001-of-00003.gguf say which is which. */
#include "gguf/gguf_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENDING = sizeof "-00001-of-00003.gguf" - 1, MOST_PARTS = 99999 };

/* What a part says of itself: its number, from 0, how many there are, and of how many tensors. */
typedef struct claim {
    uint32_t number, n_parts, n_tensors; /* n_tensors 0: it does not say */
} claim;

static cca_status read_claim(claim *out, const cca_gguf *file, cca_error *err) {
    const uint32_t none = 0, one = 1;
    cca_status status = cca_gguf_u32(&out->number, file, "split.no", &none, err);
    if (!status) status = cca_gguf_u32(&out->n_parts, file, "split.count", &one, err);
    if (!status) status = cca_gguf_u32(&out->n_tensors, file, "split.tensors.count", &none, err);
    if (out->n_parts == 0) out->n_parts = 1;
    return status;
}

bool cca_gguf_is_part(const cca_gguf *file) {
    claim c = {0};
    return read_claim(&c, file, NULL) == CCA_OK && c.n_parts > 1 && file->n_parts == 0;
}

/* The ending that a part's name has. */
static void ending_of(char out[ENDING + 1], unsigned number, unsigned n_parts) {
    snprintf(out, ENDING + 1, "-%05u-of-%05u.gguf", (number + 1) % 100000, n_parts % 100000);
}

/* The path of a part; NULL without memory. first's name must end as a first part's does. */
static char *path_of(const cca_gguf *first, unsigned number, unsigned n_parts) {
    size_t size = strlen(first->name);
    char *path = strdup(first->name);
    if (path) ending_of(path + size - ENDING, number, n_parts);
    return path;
}

static cca_status check_first(const cca_gguf *file, const claim *c, cca_error *err) {
    char ending[ENDING + 1];
    size_t size = strlen(file->name);
    ending_of(ending, 0, c->n_parts);
    if (c->number > 0) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: is part %u of %u; give the first, whose name ends in %s", file->name,
                        c->number + 1, c->n_parts, ending);
    }
    if (c->n_parts > MOST_PARTS || size < ENDING ||
        strcmp(file->name + size - ENDING, ending) != 0) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: key split.count: is one part of %u, whose names end in %s and so on; "
                        "this name does not",
                        file->name, c->n_parts, ending);
    }
    return CCA_OK;
}

/* Opens one part and checks that it is the one that its name says. */
static cca_status open_part(cca_gguf **out, const cca_gguf *first, unsigned number,
                            const claim *of_first, cca_error *err) {
    claim own = {0};
    char *path = path_of(first, number, of_first->n_parts);
    if (!path) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to open it", first->name);
    cca_status status = cca_gguf_open_one(out, path, err);
    if (!status && *out) status = read_claim(&own, *out, err);
    if (!status && (own.number != number || own.n_parts != of_first->n_parts)) {
        status =
            cca_fail(err, CCA_BAD_MODEL,
                     "%s: keys split.no and split.count say part %u of %u, its name part %u of %u",
                     path, own.number + 1, own.n_parts, number + 1, of_first->n_parts);
    }
    free(path);
    return status;
}

/* Moves the tensors of a part, names and all, behind those of the first. */
static cca_status take_tensors(cca_gguf *first, cca_gguf *part, cca_error *err) {
    const uint64_t n = first->n_tensors + part->n_tensors;
    cca_gguf_tensor *tensors = realloc(first->tensors, (size_t)(n + 1) * sizeof *tensors);
    if (tensors) first->tensors = tensors;
    cca_gguf_entry *index = realloc(first->tensor_index, (size_t)(n + 1) * sizeof *index);
    if (index) first->tensor_index = index;
    if (!tensors || !index) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its tensors", part->name);
    }
    for (uint64_t i = 0; i < part->n_tensors; i++) {
        const uint64_t at = first->n_tensors + i;
        tensors[at] = part->tensors[i];
        index[at] = (cca_gguf_entry){tensors[at].name, at};
    }
    first->n_tensors = n;
    part->n_tensors = 0;
    return CCA_OK;
}

static cca_status check_tensors(cca_gguf *first, const claim *c, cca_error *err) {
    if (c->n_tensors > 0 && c->n_tensors != first->n_tensors) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: key split.tensors.count is %u, but the parts have %llu tensors",
                        first->name, c->n_tensors, (unsigned long long)first->n_tensors);
    }
    cca_gguf_entry *index = first->tensor_index;
    if (first->n_tensors > 0) {
        qsort(index, first->n_tensors, sizeof *index, cca_gguf_compare_entries);
    }
    for (uint64_t i = 1; i < first->n_tensors; i++) {
        if (strcmp(index[i - 1].name, index[i].name) != 0) continue;
        return cca_fail(err, CCA_BAD_MODEL, "%s: tensor '%s' appears in two parts", first->name,
                        index[i].name);
    }
    return CCA_OK;
}

cca_status cca_gguf_join(cca_gguf *first, cca_error *err) {
    claim c;
    cca_status status = read_claim(&c, first, err);
    if (status || c.n_parts == 1) return status;
    status = check_first(first, &c, err);
    if (status) return status;
    first->parts = calloc(c.n_parts, sizeof *first->parts);
    if (!first->parts) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its parts", first->name);
    }
    for (unsigned i = 1; i < c.n_parts && !status; i++) {
        cca_gguf *part = NULL;
        status = open_part(&part, first, i, &c, err);
        if (part) first->parts[first->n_parts++] = part;
        if (!status && part) status = take_tensors(first, part, err);
    }
    return status ? status : check_tensors(first, &c, err);
}
