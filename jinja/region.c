#include "jinja/region.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

typedef struct jinja_chunk {
    struct jinja_chunk *before;
    size_t padding; /* what follows is aligned for anything */
} chunk;

enum { ALIGN = 16, FIRST_CHUNK = 4 << 10, LARGEST_CHUNK = 1 << 20 };

static bool add_chunk(jinja_region *r, size_t least) {
    size_t size = r->size ? 2 * r->size : FIRST_CHUNK, bytes;
    if (size > LARGEST_CHUNK) size = LARGEST_CHUNK;
    if (size < least) size = least;
    if (!cca_add(&bytes, size, sizeof(chunk))) return false;
    chunk *c = calloc(1, bytes);
    if (!c) return false;
    c->before = r->last;
    r->last = c;
    r->used = 0;
    r->size = size;
    return true;
}

void *jinja_take(jinja_region *r, size_t size) {
    size_t whole;
    bool fits = cca_add(&whole, size, ALIGN - 1);
    whole -= whole % ALIGN;
    if (!fits || whole > r->most - r->taken) {
        r->full = true;
        return NULL;
    }
    if (whole > r->size - r->used && !add_chunk(r, whole)) return NULL;
    void *p = (char *)(r->last + 1) + r->used;
    r->used += whole;
    r->taken += whole;
    return p;
}

void jinja_region_free(jinja_region *r) {
    while (r->last) {
        chunk *before = r->last->before;
        free(r->last);
        r->last = before;
    }
    *r = (jinja_region){0};
}

void *jinja_grow(jinja_region *r, void *array, size_t n, size_t *capacity, size_t size) {
    if (n < *capacity) return array;
    size_t more = *capacity ? 2 * *capacity : 4, bytes;
    if (!cca_mul(&bytes, more, size)) return NULL;
    void *grown = jinja_take(r, bytes);
    if (!grown) return NULL;
    if (n > 0) memcpy(grown, array, n * size);
    *capacity = more;
    return grown;
}
