/* Files of Hugging Face folders: inputs in JSON, inputs that are a safetensors file, and several of
 * both with a line "%%" between them. One of them is changed as JSON, of a safetensors file the
 * header, whose length follows but for one in 16. */
#include "mutate_json.h"

#include <string.h>

enum { LENGTH = 8, MOST_PARTS = 16 };

static const char mark[] = "\n%%\n";
enum { MARK_SIZE = sizeof mark - 1 };

/* Where the n-th part begins, and its size. */
static size_t part(const mutation *m, size_t n, size_t *size) {
    size_t begin = 0;
    for (;;) {
        const uint8_t *end = memmem(m->data + begin, m->size - begin, mark, MARK_SIZE);
        *size = (end ? (size_t)(end - m->data) : m->size) - begin;
        if (!end || n == 0) return begin;
        begin += *size + MARK_SIZE;
        n--;
    }
}

static size_t n_parts(const mutation *m) {
    size_t n = 1, size;
    while (n < MOST_PARTS && part(m, n, &size) != part(m, n - 1, &size)) n++;
    return n;
}

static bool change_header(mutation *m, size_t begin, size_t left) {
    const uint64_t length = mutate_get(m->data + begin, LENGTH);
    size_t size = length < left - LENGTH ? (size_t)length : left - LENGTH;
    if (!mutate_json(m, begin + LENGTH, &size)) return false;
    mutate_set(m->data + begin, LENGTH, mutate_one_in(m, 16) ? mutate_number(m, size) : size);
    return true;
}

bool mutate_structure(mutation *m) {
    size_t size;
    const size_t begin = part(m, mutate_draw(m, n_parts(m)), &size);
    if (size > LENGTH && m->data[begin + LENGTH] == '{' && m->data[begin] != '{') {
        return change_header(m, begin, m->size - begin);
    }
    return size > 0 && strchr("{[ \n\"", m->data[begin]) && mutate_json(m, begin, &size);
}
