/* Memory that is given back all at once, and bounded.
 *
 *     jinja_region r = {.most = 1 << 20};
 *     char *p = jinja_take(&r, 100);             // zeroed; NULL beyond the bound
 *     jinja_region_free(&r); */
#ifndef CCA_JINJA_REGION_H
#define CCA_JINJA_REGION_H

#include <stdbool.h>
#include <stddef.h>

typedef struct jinja_region {
    struct jinja_chunk *last;
    size_t used, size; /* of the last chunk */
    size_t taken, most;
    bool full; /* the bound was met, not the end of the machine's memory */
} jinja_region;

void *jinja_take(jinja_region *r, size_t size);
void jinja_region_free(jinja_region *r);

/* Room for one more item behind n in an array of capacity items of `size` bytes, which may move:
 * its new place, NULL without memory. */
void *jinja_grow(jinja_region *r, void *array, size_t n, size_t *capacity, size_t size);

#endif
