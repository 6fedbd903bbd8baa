#include "text/tokens.h"

#include "base/available_memory.h"

#include <stdlib.h>

bool cca_tokens_push(cca_tokens *tokens, int32_t id, uint64_t offset) {
    if (tokens->n == tokens->capacity) {
        size_t capacity = tokens->capacity ? tokens->capacity : 128, bytes;
        if (!cca_mul(&capacity, capacity, 2) ||
            !cca_mul(&bytes, capacity, sizeof *tokens->offsets) || !cca_memory_has(bytes)) {
            return false;
        }
        int32_t *ids = realloc(tokens->ids, capacity * sizeof *ids);
        if (!ids) return false;
        tokens->ids = ids;
        uint64_t *offsets = realloc(tokens->offsets, bytes);
        if (!offsets) return false;
        tokens->offsets = offsets;
        tokens->capacity = capacity;
    }
    tokens->ids[tokens->n] = id;
    tokens->offsets[tokens->n++] = offset;
    return true;
}

void cca_tokens_free(cca_tokens *tokens) {
    free(tokens->ids);
    free(tokens->offsets);
    *tokens = (cca_tokens){0};
}
