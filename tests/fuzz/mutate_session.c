/* Session files: the notes at their begin, and segments, whose order, kinds, numbers and bytes are
 * changed. Checksums are mended behind that, as one would who damages a file on purpose, but for
 * one in 16. */
#include "mutate.h"

#include <string.h>
#include <zlib.h>

enum {
    ALIGN = 64,
    FACTS_BYTES_AT = 8,
    FACTS_CRC_AT = 12,
    FACTS_AT = 16,
    KIND_AT = 4, /* in a segment */
    FIRST_AT = 8,
    N_AT = 16,
    BYTES_AT = 24,
    CRC_AT = 32,
    HEADER_CRC_AT = 36,
    KINDS = 8,
    MOST_SEGMENTS = 256,
};

typedef struct segments {
    size_t at[MOST_SEGMENTS + 1]; /* of their headers, and the end of the last one */
    size_t n;
} segments;

static size_t align(size_t n) {
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static uint64_t facts_bytes(const uint8_t *data) {
    return mutate_get(data + FACTS_BYTES_AT, 4);
}

static bool find_segments(segments *s, const uint8_t *data, size_t size) {
    s->n = 0;
    if (size < FACTS_AT || facts_bytes(data) > size - FACTS_AT) return false;
    size_t at = align(FACTS_AT + (size_t)facts_bytes(data));
    while (at + ALIGN <= size && s->n < MOST_SEGMENTS) {
        const uint64_t bytes = mutate_get(data + at + BYTES_AT, 8);
        s->at[s->n++] = at;
        if (bytes > size - at - ALIGN) break;
        at = align(at + ALIGN + (size_t)bytes);
    }
    s->at[s->n] = at < size ? at : size;
    return true;
}

static void mend(mutation *m, size_t at, size_t from, uint64_t bytes) {
    if (from > m->size || bytes > m->size - from || mutate_one_in(m, 64)) return;
    mutate_set(m->data + at, 4, crc32_z(0, m->data + from, (size_t)bytes));
}

static void mend_all(mutation *m) {
    segments s;
    if (!find_segments(&s, m->data, m->size)) return;
    mend(m, FACTS_CRC_AT, FACTS_AT, facts_bytes(m->data));
    for (size_t i = 0; i < s.n; i++) {
        const size_t at = s.at[i];
        mend(m, at + CRC_AT, at + ALIGN, mutate_get(m->data + at + BYTES_AT, 8));
        mend(m, at + HEADER_CRC_AT, at, HEADER_CRC_AT);
    }
}

/* The segments behind stay at a multiple of 64, where their headers are. */
static bool replace(mutation *m, size_t at, size_t n, const uint8_t *bytes, size_t size) {
    static const uint8_t zeros[ALIGN];
    const size_t more = align(size) - size;
    n = align(n) < m->size - at ? align(n) : m->size - at;
    return mutate_splice(m, at, n, bytes, size) && mutate_splice(m, at + size, 0, zeros, more);
}

static bool change_facts(mutation *m) {
    const size_t bytes = (size_t)facts_bytes(m->data), begin = align(FACTS_AT + bytes),
                 old = m->size;
    static const uint8_t zeros[ALIGN];
    if (begin > m->size || !mutate_bytes(m, FACTS_AT, bytes)) return false;
    const size_t now = bytes + m->size - old, pad = begin - FACTS_AT - bytes;
    mutate_set(m->data + FACTS_BYTES_AT, 4,
               mutate_one_in(m, 16) ? mutate_number(m, now) : (uint64_t)now);
    return mutate_splice(m, FACTS_AT + now, pad, zeros, align(FACTS_AT + now) - FACTS_AT - now);
}

static bool change_number(mutation *m, size_t header) {
    static const struct {
        size_t at, bytes;
    } numbers[] = {{KIND_AT, 4}, {FIRST_AT, 8}, {N_AT, 8}, {BYTES_AT, 8}, {0, 4}};
    const size_t i = mutate_draw(m, sizeof numbers / sizeof *numbers);
    uint8_t *at = m->data + header + numbers[i].at;
    if (header + ALIGN > m->size) return false;
    mutate_set(at, numbers[i].bytes,
               i == 0 ? mutate_draw(m, KINDS) : mutate_number(m, mutate_get(at, numbers[i].bytes)));
    return true;
}

/* Bytes more or less, of which the header knows. */
static bool change_bytes(mutation *m, const segments *s, size_t i) {
    const size_t header = s->at[i], data = header + ALIGN;
    const uint64_t bytes = mutate_get(m->data + header + BYTES_AT, 8);
    uint8_t some[1024];
    if (bytes > sizeof some - ALIGN || bytes > m->size - data) return false;
    memcpy(some, m->data + data, (size_t)bytes);
    const size_t now = LLVMFuzzerMutate(some, (size_t)bytes, sizeof some);
    mutate_set(m->data + header + BYTES_AT, 8, now);
    return replace(m, data, (size_t)bytes, some, now);
}

static bool put_segment(mutation *m, size_t at, const uint8_t *from, const segments *s) {
    if (s->n == 0) return false;
    const size_t i = mutate_draw(m, s->n), n = 1 + mutate_draw(m, s->n - i < 3 ? s->n - i : 3);
    return replace(m, at, 0, from + s->at[i], s->at[i + n] - s->at[i]);
}

static bool change(mutation *m, const segments *s) {
    const size_t i = mutate_draw(m, s->n), at = s->at[i], n = s->at[i + 1] - at;
    segments theirs;
    if (m->other && find_segments(&theirs, m->other, m->other_size)) {
        return put_segment(m, at, m->other, &theirs);
    }
    if (s->n == 0 || mutate_one_in(m, 12)) return change_facts(m);
    switch (mutate_draw(m, 8)) {
    case 0: return mutate_splice(m, at, n, NULL, 0);
    case 1: return put_segment(m, at, m->data, s);
    case 2: m->size = at + mutate_draw(m, m->size - at); return true;
    case 3: return change_bytes(m, s, i);
    case 4: return mutate_bytes(m, at, n);
    default: return change_number(m, at);
    }
}

bool mutate_structure(mutation *m) {
    segments s;
    if (!find_segments(&s, m->data, m->size) || !change(m, &s)) return false;
    if (!mutate_one_in(m, 16)) mend_all(m);
    return true;
}
