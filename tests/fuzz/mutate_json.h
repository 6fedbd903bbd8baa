/* Changes one value or member of a JSON text that is bytes begin … begin + size - 1 of an input:
 *
 *     size_t n = end - begin;
 *     if (!mutate_json(m, begin, &n)) return false;   // n: bytes that the text has now
 *
 * Values become others of any type, those of another place or of another input; members come twice,
 * go, get other names; strings and numbers become such as are hard to read. False where there is no
 * value, or no room. */
#ifndef CCA_FUZZ_MUTATE_JSON_H
#define CCA_FUZZ_MUTATE_JSON_H

#include "mutate.h"

bool mutate_json(mutation *m, size_t begin, size_t *size);

#endif
