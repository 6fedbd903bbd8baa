/* Mutators that know an input's structure. Each mutate_X.c has one function, which draws a part of
 * the input and changes it:
 *
 *     bool mutate_structure(mutation *m) {
 *         size_t at = ..., n = ...;
 *         return mutate_draw(m, 2) ? mutate_splice(m, at, n, "null", 4) : mutate_bytes(m, at, n);
 *     }
 *
 * libFuzzer calls it through mutate.c, which now and then changes any bytes instead, and also
 * where the input has no such structure. */
#ifndef CCA_FUZZ_MUTATE_H
#define CCA_FUZZ_MUTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mutation {
    uint8_t *data;
    size_t size, most;    /* bytes that are there, and that there may be */
    const uint8_t *other; /* an input of which parts are to be taken; or NULL */
    size_t other_size;
    uint64_t state; /* of the draws */
} mutation;

/* False where nothing was changed. */
bool mutate_structure(mutation *m);

/* 0 … n - 1; 0 where n is 0. */
size_t mutate_draw(mutation *m, size_t n);
bool mutate_one_in(mutation *m, size_t n);

/* One of the strings of a list. */
#define MUTATE_ANY(m, list) ((list)[mutate_draw(m, sizeof(list) / sizeof *(list))])

/* A number that is worth trying: near the one that was there, small, or at the end of some type. */
uint64_t mutate_number(mutation *m, uint64_t before);

/* Little-endian numbers of up to 8 bytes. */
uint64_t mutate_get(const uint8_t *at, size_t bytes);
void mutate_set(uint8_t *at, size_t bytes, uint64_t n);

/* Puts size bytes, which may be the input's own, in the place of the n at `at`; false where they
 * are too many. */
bool mutate_splice(mutation *m, size_t at, size_t n, const void *bytes, size_t size);

/* Changes some of the n bytes as libFuzzer does; their number changes too. */
bool mutate_bytes(mutation *m, size_t at, size_t n);

/* libFuzzer's. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data, size_t size, const uint8_t *other,
                                 size_t other_size, uint8_t *out, size_t most, unsigned seed);

#endif
