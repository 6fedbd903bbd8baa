#include "mutate.h"

#include <stdlib.h>
#include <string.h>

enum { BYTES_ONE_IN = 8 };

size_t mutate_draw(mutation *m, size_t n) {
    m->state += 0x9E3779B97F4A7C15; /* splitmix64 */
    uint64_t z = m->state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return n ? (size_t)((z ^ z >> 31) % n) : 0;
}

bool mutate_one_in(mutation *m, size_t n) {
    return mutate_draw(m, n) == 0;
}

uint64_t mutate_number(mutation *m, uint64_t before) {
    static const uint64_t ends[] = {
        0,        1,          INT8_MAX, UINT8_MAX, INT16_MAX, UINT16_MAX, INT32_MAX,  UINT32_MAX,
        1U << 31, 1ULL << 32, 1 << 20,  1 << 24,   1 << 28,   INT64_MAX,  1ULL << 62, UINT64_MAX};
    switch (mutate_draw(m, 6)) {
    case 0: return before + 1 + mutate_draw(m, 4);
    case 1: return before - 1 - mutate_draw(m, 4);
    case 2: return mutate_one_in(m, 2) ? before * 2 : before / 2;
    case 3: return mutate_draw(m, 70);
    case 4: return MUTATE_ANY(m, ends) - mutate_draw(m, 2);
    default: return (uint64_t)1 << mutate_draw(m, 64);
    }
}

uint64_t mutate_get(const uint8_t *at, size_t bytes) {
    uint64_t n = 0;
    memcpy(&n, at, bytes); /* little-endian, as this machine */
    return n;
}

void mutate_set(uint8_t *at, size_t bytes, uint64_t n) {
    memcpy(at, &n, bytes);
}

bool mutate_splice(mutation *m, size_t at, size_t n, const void *bytes, size_t size) {
    if (at > m->size || n > m->size - at || size > m->most - (m->size - n)) return false;
    uint8_t *copy = malloc(size + 1);
    if (!copy) return false;
    if (size > 0) memcpy(copy, bytes, size);
    memmove(m->data + at + size, m->data + at + n, m->size - at - n);
    memcpy(m->data + at, copy, size);
    m->size = m->size - n + size;
    free(copy);
    return true;
}

bool mutate_bytes(mutation *m, size_t at, size_t n) {
    enum { LONGER = 64, MOST = 4096 };
    uint8_t some[MOST + LONGER];
    if (at > m->size || n > m->size - at) return false;
    if (n > MOST) at += mutate_draw(m, n - MOST), n = MOST;
    memcpy(some, m->data + at, n);
    return mutate_splice(m, at, n, some, LLVMFuzzerMutate(some, n, n + LONGER));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    mutation m = {.data = data, .size = size, .most = most, .state = seed};
    if (mutate_one_in(&m, BYTES_ONE_IN) || !mutate_structure(&m)) {
        return LLVMFuzzerMutate(data, m.size, most);
    }
    return m.size;
}

/* Where nothing of the other input is taken a mutation is made: libFuzzer asks for the one as often
 * as for the other. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data, size_t size, const uint8_t *other,
                                 size_t other_size, uint8_t *out, size_t most, unsigned seed) {
    mutation m = {.data = out, .size = size, .most = most, .state = seed};
    if (size > most) return 0;
    memcpy(out, data, size);
    if (mutate_one_in(&m, 2)) m.other = other, m.other_size = other_size;
    return mutate_structure(&m) ? m.size : LLVMFuzzerMutate(out, m.size, most);
}
