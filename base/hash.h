/* Hashes of bytes (FNV-1a) and of numbers, 64 bits: they name and find things, protect nothing.
 *
 *     uint64_t hash = cca_hash("abc", 3);
 *     hash = cca_hash_more(hash, "def", 3);          // cca_hash("abcdef", 6)
 *     size_t slot = cca_hash_number(key) & mask;
 *
 * Fingerprints of models and names of files rest on these bits: they never change. */
#ifndef CCA_HASH_H
#define CCA_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Goes on from a hash with more bytes. */
static inline uint64_t cca_hash_more(uint64_t hash, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    for (size_t i = 0; i < size; i++) hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static inline uint64_t cca_hash(const void *bytes, size_t size) {
    return cca_hash_more(UINT64_C(0xcbf29ce484222325), bytes, size);
}

/* Spreads what makes a number differ from others over all bits; one to one. */
static inline uint64_t cca_hash_number(uint64_t x) {
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

#endif
