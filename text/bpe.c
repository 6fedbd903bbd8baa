/* The vocabulary of BPE and the merging of words. */
#include "text/bpe.h"

#include "base/available_memory.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "text/bpe_text.h"
#include "text/spm.h"

#include <stdlib.h>
#include <string.h>

/* An open-addressing table of indices into a list that holds the keys. */
typedef struct table {
    uint32_t *slots; /* index + 1; 0: free */
    size_t mask;
} table;

typedef struct merge {
    int32_t left, right, result;
} merge;

struct cca_bpe {
    cca_normalizer normalizer, inner; /* of a text, and of what is between added tokens */
    cca_splitter splitter;
    bool whole_words, plain;
    char *bytes;    /* of all tokens, one behind the other */
    size_t *starts; /* [n_tokens + 1] */
    size_t n_tokens;
    table by_bytes; /* tokens that are not apart */
    merge *merges;  /* the best first: the index is the rank */
    size_t n_merges;
    table by_pair;
    int32_t byte_tokens[256];
    int32_t unk;
};

/* What stands in the way of a vocabulary is told with its name. */
typedef struct source {
    const cca_bpe_vocab *vocab;
    const char *name;
    cca_error *err;
} source;

static cca_status no_memory(const source *src) {
    return cca_fail(src->err, CCA_NO_MEMORY, "%s: no memory for %zu tokens and %zu merges",
                    src->name, src->vocab->n_tokens, src->vocab->n_merges);
}

/* ---- tables ---- */

/* At most half full, so that searches end and are short. */
static bool table_new(table *t, size_t n) {
    size_t capacity = 16;
    while (capacity < 2 * n) capacity *= 2;
    t->slots = calloc(capacity, sizeof *t->slots);
    t->mask = capacity - 1;
    return t->slots;
}

/* The slot of the token with these bytes, or the free one where it belongs. */
static uint32_t *find_token(const cca_bpe *bpe, const char *bytes, size_t size) {
    for (size_t i = cca_hash_number(cca_hash_more(size, bytes, size));; i++) {
        uint32_t *slot = &bpe->by_bytes.slots[i & bpe->by_bytes.mask];
        if (!*slot) return slot;
        const size_t *start = &bpe->starts[*slot - 1];
        if (start[1] - start[0] == size && memcmp(bpe->bytes + start[0], bytes, size) == 0) {
            return slot;
        }
    }
}

/* The slot of the merge of two tokens, or the free one where it belongs. */
static uint32_t *find_merge(const cca_bpe *bpe, int32_t left, int32_t right) {
    for (size_t i = cca_hash_number((uint64_t)left << 32 | (uint32_t)right);; i++) {
        uint32_t *slot = &bpe->by_pair.slots[i & bpe->by_pair.mask];
        if (!*slot) return slot;
        const merge *m = &bpe->merges[*slot - 1];
        if (m->left == left && m->right == right) return slot;
    }
}

/* ---- the alphabet ---- */

/* GPT-2 writes the bytes that are visible characters of Latin-1 as these, and the others, in
 * order, as U+0100, U+0101 … Returns the byte of a code point, -1 for any other. */
static int alphabet_byte(int32_t point) {
    enum { OTHERS = 33 + 34 + 1 }; /* 0 … 32, 127 … 160, 173 */
    if ((point > 32 && point < 127) || (point > 160 && point < 256 && point != 173)) return point;
    int32_t other = point - 256;
    if (other < 0 || other >= OTHERS) return -1;
    return other < 33 ? other : other < 33 + 34 ? other - 33 + 127 : 173;
}

uint32_t cca_bpe_letter(uint8_t byte) {
    if (alphabet_byte(byte) == byte) return byte;
    return byte < 33 ? 256u + byte : byte < 173 ? 256u + 33 + byte - 127 : 256u + 33 + 34;
}

/* Writes the bytes that text stands for, no more than it has itself; false where it has a
 * character outside the alphabet. */
static bool decode(const cca_bpe *bpe, char *out, size_t *size, const char *text,
                   size_t text_size) {
    *size = bpe->plain ? text_size : 0;
    if (*size > 0) memcpy(out, text, text_size);
    if (bpe->plain) return true;
    for (size_t at = 0; at < text_size;) {
        uint32_t point;
        size_t length;
        (void)cca_utf8_next(&point, &length, text + at, text_size - at);
        int byte = alphabet_byte((int32_t)point); /* U+FFFD has none */
        if (byte < 0) return false;
        out[(*size)++] = (char)byte;
        at += length;
    }
    return true;
}

bool cca_bpe_is_word(cca_gguf_string text) {
    for (size_t at = 0, length; at < text.size; at += length) {
        uint32_t point;
        (void)cca_utf8_next(&point, &length, text.bytes + at, text.size - at);
        if (alphabet_byte((int32_t)point) < 0) return false;
    }
    return true;
}

/* ---- the vocabulary ---- */

static bool is_apart(const source *src, size_t i) {
    return src->vocab->apart && src->vocab->apart[i];
}

/* Decodes token i behind the others. */
static cca_status add_token(cca_bpe *bpe, const source *src, size_t i) {
    cca_gguf_string text = src->vocab->tokens[i];
    char *bytes = bpe->bytes + bpe->starts[i];
    size_t size = text.size;
    /* What has characters that stand for no byte is in no text. */
    bool apart = is_apart(src, i) || !decode(bpe, bytes, &size, text.bytes, text.size);
    if (apart) size = text.size;
    if (apart && size > 0) memcpy(bytes, text.bytes, size);
    bpe->starts[i + 1] = bpe->starts[i] + size;
    if (apart || size == 0) return CCA_OK;
    uint32_t *slot = find_token(bpe, bytes, size);
    if (*slot) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: tokens %u and %zu are both \"%.*s\"",
                        src->name, *slot - 1, i, text.size < 100 ? (int)text.size : 100,
                        text.bytes);
    }
    *slot = (uint32_t)i + 1;
    int byte = size == 1 ? (uint8_t)*bytes : -1;
    if (bpe->plain) byte = cca_spm_byte_value((cca_spm_text){text.bytes, text.size});
    if (byte >= 0) bpe->byte_tokens[byte] = (int32_t)i;
    return CCA_OK;
}

static cca_status add_tokens(cca_bpe *bpe, const source *src) {
    size_t n = src->vocab->n_tokens, room = 1, bytes;
    if (n == 0 || n > INT32_MAX) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: a vocabulary of %zu tokens", src->name, n);
    }
    for (size_t i = 0; i < n; i++) {
        if (!cca_add(&room, room, src->vocab->tokens[i].size)) return no_memory(src);
    }
    if (!cca_mul(&bytes, n + 1, sizeof *bpe->starts)) return no_memory(src);
    bpe->bytes = malloc(room);
    bpe->starts = malloc(bytes);
    if (!bpe->bytes || !bpe->starts || !table_new(&bpe->by_bytes, n)) return no_memory(src);
    for (int byte = 0; byte < 256; byte++) bpe->byte_tokens[byte] = -1;
    bpe->starts[0] = 0;
    cca_status status = CCA_OK;
    for (size_t i = 0; i < n && !status; i++) status = add_token(bpe, src, i);
    bpe->n_tokens = n;
    return status;
}

/* ---- merges ---- */

/* Decodes text behind *size bytes of out, adds its size, and finds its token. */
static int32_t find_part(const cca_bpe *bpe, char *out, size_t *size, const char *text,
                         size_t text_size) {
    size_t part;
    if (!decode(bpe, out + *size, &part, text, text_size)) return -1;
    *size += part;
    return (int32_t)*find_token(bpe, out + *size - part, part) - 1;
}

/* room has space for the bytes of the merge. */
static cca_status add_merge(cca_bpe *bpe, const source *src, size_t i, char *room) {
    cca_gguf_string text = src->vocab->merges[i];
    const char *space = text.size > 0 ? memchr(text.bytes, ' ', text.size) : NULL;
    if (!space) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: merge %zu has no space between two parts",
                        src->name, i);
    }
    size_t left_size = (size_t)(space - text.bytes), size = 0;
    merge m;
    m.left = find_part(bpe, room, &size, text.bytes, left_size);
    m.right = find_part(bpe, room, &size, space + 1, text.size - left_size - 1);
    m.result = m.left < 0 || m.right < 0 ? -1 : (int32_t)*find_token(bpe, room, size) - 1;
    if (m.result < 0) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: merge %zu: its %s is not in the vocabulary",
                        src->name, i,
                        m.left < 0    ? "left part"
                        : m.right < 0 ? "right part"
                                      : "result");
    }
    uint32_t *slot = find_merge(bpe, m.left, m.right);
    if (*slot) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: merges %u and %zu are the same", src->name,
                        *slot - 1, i);
    }
    bpe->merges[i] = m;
    *slot = (uint32_t)i + 1;
    return CCA_OK;
}

static cca_status add_merges(cca_bpe *bpe, const source *src) {
    size_t n = src->vocab->n_merges, longest = 1;
    if (n > INT32_MAX) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: a list of %zu merges", src->name, n);
    }
    for (size_t i = 0; i < n; i++) {
        if (src->vocab->merges[i].size > longest) longest = src->vocab->merges[i].size;
    }
    char *room = malloc(longest);
    bpe->merges = malloc((n + 1) * sizeof *bpe->merges);
    if (!room || !bpe->merges || !table_new(&bpe->by_pair, n)) {
        free(room);
        return no_memory(src);
    }
    cca_status status = CCA_OK;
    for (size_t i = 0; i < n && !status; i++) status = add_merge(bpe, src, i, room);
    bpe->n_merges = n;
    free(room);
    return status;
}

/* ---- the way with texts ---- */

static cca_status take_steps(cca_bpe *bpe, const cca_gguf_string *steps, size_t n,
                             const source *src) {
    size_t at = 0, end = n;
    cca_status status = cca_splitter_open(&bpe->splitter, steps, &end, src->name, src->err);
    if (!status) {
        status = cca_normalizer_open(&bpe->normalizer, steps, end, &at, false, src->name, src->err);
    }
    if (!status) {
        status = cca_normalizer_open(&bpe->inner, steps, end, &at, true, src->name, src->err);
    }
    if (status || at == end) return status;
    return cca_fail(src->err, CCA_BAD_MODEL,
                    "%s: the step \"%.*s\" is not known, or not at its place", src->name,
                    steps[at].size < 100 ? (int)steps[at].size : 100, steps[at].bytes);
}

static cca_status open_steps(cca_bpe *bpe, const source *src) {
    enum { MOST = sizeof((cca_pre *)0)->steps / sizeof *((cca_pre *)0)->steps };
    const cca_bpe_vocab *vocab = src->vocab;
    cca_gguf_string steps[MOST], name = vocab->pre;
    bpe->whole_words = vocab->whole_words;
    if (vocab->steps) return take_steps(bpe, vocab->steps, vocab->n_steps, src);
    const cca_pre *pre = cca_pre_find(name);
    size_t n = 0;
    if (!pre) {
        return cca_fail(src->err, CCA_BAD_MODEL,
                        "%s: tokenizer.ggml.pre is \"%.*s\", which is not supported", src->name,
                        name.size < 100 ? (int)name.size : 100, name.bytes);
    }
    for (; n < MOST && pre->steps[n]; n++) {
        steps[n] = (cca_gguf_string){pre->steps[n], strlen(pre->steps[n])};
    }
    bpe->whole_words = pre->whole_words;
    return take_steps(bpe, steps, n, src);
}

cca_status cca_bpe_new(cca_bpe **out, const cca_bpe_vocab *vocab, const char *name,
                       cca_error *err) {
    *out = NULL;
    source src = {vocab, name, err};
    cca_bpe *bpe = calloc(1, sizeof *bpe);
    if (!bpe) return no_memory(&src);
    bpe->unk = vocab->unk >= 0 && (size_t)vocab->unk < vocab->n_tokens ? vocab->unk : -1;
    bpe->plain = vocab->plain;
    cca_status status = open_steps(bpe, &src);
    if (!status) status = add_tokens(bpe, &src);
    if (!status) status = add_merges(bpe, &src);
    if (!status) {
        *out = bpe;
    } else {
        cca_bpe_free(bpe);
    }
    return status;
}

void cca_bpe_free(cca_bpe *bpe) {
    if (!bpe) return;
    cca_normalizer_close(&bpe->normalizer);
    cca_normalizer_close(&bpe->inner);
    cca_splitter_close(&bpe->splitter);
    free(bpe->bytes);
    free(bpe->starts);
    free(bpe->by_bytes.slots);
    free(bpe->merges);
    free(bpe->by_pair.slots);
    free(bpe);
}

/* ---- encoding ---- */

/* What stands at one byte of a word. */
typedef struct symbol {
    int32_t id;      /* of the symbol that begins here; -1: none does */
    uint32_t length; /* of the symbol that begins or ends here */
} symbol;

/* One text on its way through. */
typedef struct run {
    const cca_bpe *bpe;
    const cca_bpe_text *source;
    cca_normal normal; /* of it */
    cca_normal inner;  /* of the part of that which is encoded, and … */
    size_t from;       /* … where it begins */
    cca_tokens *out;
    symbol *symbols; /* of the longest word yet */
    size_t n_symbols;
    uint64_t
        *heap; /* possible merges, rank << 32 | place of the left symbol: the smallest on top */
    size_t n_heap, heap_capacity;
} run;

/* Children of an item of the heap: with four of them a long word misses the cache less. */
enum { ARITY = 4 };

enum { BYTES_A_BYTE = 32 }; /* of memory, of a word */

static bool heap_push(run *r, uint64_t item) {
    if (r->n_heap == r->heap_capacity) {
        size_t capacity = r->heap_capacity ? r->heap_capacity + r->heap_capacity / 2 : 64, bytes;
        if (!cca_mul(&bytes, capacity, sizeof item) || !cca_memory_has(bytes)) return false;
        uint64_t *heap = realloc(r->heap, bytes);
        if (!heap) return false;
        r->heap = heap;
        r->heap_capacity = capacity;
    }
    size_t i = r->n_heap++;
    for (; i > 0 && r->heap[(i - 1) / ARITY] > item; i = (i - 1) / ARITY) {
        r->heap[i] = r->heap[(i - 1) / ARITY];
    }
    r->heap[i] = item;
    return true;
}

static uint64_t heap_pop(run *r) {
    uint64_t top = r->heap[0], last = r->heap[--r->n_heap];
    size_t i = 0;
    for (size_t child; (child = ARITY * i + 1) < r->n_heap; i = child) {
        for (size_t other = child + 1; other <= ARITY * i + ARITY && other < r->n_heap; other++) {
            if (r->heap[other] < r->heap[child]) child = other;
        }
        if (r->heap[child] >= last) break;
        r->heap[i] = r->heap[child];
    }
    r->heap[i] = last;
    return top;
}

/* Notes the merge of the symbol at place with the next one, if there is such. */
static bool consider(run *r, size_t size, size_t place) {
    size_t next = place + r->symbols[place].length;
    if (next >= size) return true;
    uint32_t slot = *find_merge(r->bpe, r->symbols[place].id, r->symbols[next].id);
    return slot == 0 || heap_push(r, (uint64_t)(slot - 1) << 32 | place);
}

/* Merges the symbols of a word until no pair is left that can be. What the heap holds of symbols
 * that are no more is passed over. */
static bool merge_symbols(run *r, size_t size) {
    symbol *s = r->symbols;
    r->n_heap = 0;
    for (size_t i = 0; i < size; i += s[i].length) {
        if (!consider(r, size, i)) return false;
    }
    while (r->n_heap > 0) {
        uint64_t top = heap_pop(r);
        size_t place = (uint32_t)top, next = place + s[place].length;
        const merge *m = &r->bpe->merges[top >> 32];
        if (s[place].id != m->left || next >= size || s[next].id != m->right) continue;
        uint32_t length = s[place].length + s[next].length;
        s[next].id = -1;
        s[place].id = m->result;
        s[place].length = s[place + length - 1].length = length;
        if (place > 0 && !consider(r, size, place - s[place - 1].length)) return false;
        if (!consider(r, size, place)) return false;
    }
    return true;
}

static cca_status encode_memory(const run *r, cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory to encode a text of %zu bytes", r->source->size);
}

/* Of byte `at` of the part that is encoded. */
static uint64_t offset_of(run *r, size_t at) {
    size_t place = r->from + cca_normal_offset(&r->inner, at);
    return r->source->base + cca_normal_offset(&r->normal, place);
}

/* Bytes of the symbol that a word begins with, and the token for it; -1 where there is none. */
static size_t first_symbol(int32_t *id, const cca_bpe *bpe, const char *word, size_t size) {
    size_t length = 1;
    if (bpe->plain) {
        (void)cca_utf8_next(NULL, &length, word, size);
        *id = (int32_t)*find_token(bpe, word, length) - 1;
        if (*id >= 0) return length;
    }
    *id = bpe->byte_tokens[(uint8_t)*word];
    if (*id < 0) *id = bpe->unk;
    return 1;
}

/* The symbols of the word text[from … end), one for each byte or character. */
static cca_status make_symbols(run *r, size_t from, size_t end, cca_error *err) {
    size_t size = end - from;
    if (size > UINT32_MAX) {
        return cca_fail(err, CCA_NO_FIT, "offset %llu: %zu bytes without a place to cut",
                        (unsigned long long)offset_of(r, from), size);
    }
    if (size > r->n_symbols) {
        /* The heap comes to as much again, or more: it is asked for before all that is filled. */
        if (!cca_memory_has(size * BYTES_A_BYTE)) return encode_memory(r, err);
        free(r->symbols);
        r->symbols = malloc(size * sizeof *r->symbols);
        r->n_symbols = r->symbols ? size : 0;
        if (!r->symbols) return encode_memory(r, err);
    }
    for (size_t i = 0, length; i < size; i += length) {
        int32_t id;
        const char *at = r->inner.text + from + i;
        length = first_symbol(&id, r->bpe, at, size - i);
        if (id < 0) {
            return cca_fail(err, CCA_BAD_TEXT,
                            "offset %llu: the vocabulary has no token for the byte 0x%02X",
                            (unsigned long long)offset_of(r, from + i), (uint8_t)*at);
        }
        r->symbols[i] = r->symbols[i + length - 1] = (symbol){-1, (uint32_t)length};
        r->symbols[i].id = id;
    }
    return CCA_OK;
}

static cca_status encode_word(void *context, size_t from, size_t end, cca_error *err) {
    run *r = context;
    if (r->bpe->whole_words) {
        uint32_t slot = *find_token(r->bpe, r->inner.text + from, end - from);
        if (slot > 0) {
            bool fine = cca_tokens_push(r->out, (int32_t)slot - 1, offset_of(r, from));
            return fine ? CCA_OK : encode_memory(r, err);
        }
    }
    cca_status status = make_symbols(r, from, end, err);
    if (status) return status;
    bool fine = merge_symbols(r, end - from);
    for (size_t i = 0; i < end - from && fine; i += r->symbols[i].length) {
        fine = cca_tokens_push(r->out, r->symbols[i].id, offset_of(r, from + i));
    }
    return fine ? CCA_OK : encode_memory(r, err);
}

/* PCRE2 and the normalisation rely on it. */
static cca_status check_utf8(const cca_bpe_text *text, cca_error *err) {
    size_t valid = cca_utf8_valid(text->bytes, text->size);
    if (valid < text->size) {
        return cca_fail(err, CCA_BAD_TEXT, "offset %llu: the text is not valid UTF-8",
                        (unsigned long long)text->base + valid);
    }
    return CCA_OK;
}

/* What is between added tokens in the normalised text. */
static cca_status encode_part(run *r, size_t from, size_t end, cca_error *err) {
    bool first = from == 0 && !r->source->inside;
    if (from == end) return CCA_OK;
    cca_status status =
        cca_normal_make(&r->inner, &r->bpe->inner, r->normal.text + from, end - from, first, err);
    if (status) return status;
    r->from = from;
    status = cca_splitter_run(&r->bpe->splitter, r->inner.text, r->inner.size, encode_word, r, err);
    cca_normal_free(&r->inner);
    return status;
}

static cca_status encode_parts(run *r, cca_error *err) {
    const cca_bpe_text *text = r->source;
    size_t from = 0, size = r->normal.size;
    cca_found found = {.next = 0};
    cca_status status = CCA_OK;
    while (!status && text->added && cca_added_find(&found, text->added, r->normal.text, size)) {
        status = encode_part(r, from, found.begin, err);
        uint64_t offset = text->base + cca_normal_offset(&r->normal, found.begin);
        if (!status && !cca_tokens_push(r->out, found.id, offset)) status = encode_memory(r, err);
        from = found.end;
    }
    return status ? status : encode_part(r, from, size, err);
}

cca_status cca_bpe_encode(cca_tokens *out, const cca_bpe *bpe, const cca_bpe_text *text,
                          cca_error *err) {
    size_t before = out->n;
    run r = {.bpe = bpe, .source = text, .out = out};
    cca_status status = check_utf8(text, err);
    if (!status) {
        status = cca_normal_make(&r.normal, &bpe->normalizer, text->bytes, text->size,
                                 !text->inside, err);
    }
    if (!status) status = encode_parts(&r, err);
    if (status) out->n = before;
    cca_normal_free(&r.normal);
    free(r.symbols);
    free(r.heap);
    return status;
}

cca_status cca_bpe_normalize(char **out, size_t *out_size, const cca_bpe *bpe, const char *text,
                             size_t size, cca_error *err) {
    cca_normal normal;
    *out = NULL;
    *out_size = size;
    if (cca_utf8_valid(text, size) < size) return CCA_OK; /* no text will have it */
    cca_status status = cca_normal_make(&normal, &bpe->normalizer, text, size, true, err);
    if (status || normal.n_levels == 0) return status;
    *out_size = normal.size;
    *out = malloc(normal.size + 1);
    if (*out) memcpy(*out, normal.text, normal.size);
    if (!*out) status = cca_fail(err, CCA_NO_MEMORY, "no memory for an added token");
    cca_normal_free(&normal);
    return status;
}

/* ---- decoding ---- */

const char *cca_bpe_bytes(size_t *size, const cca_bpe *bpe, int32_t id) {
    *size = 0;
    if (id < 0 || (size_t)id >= bpe->n_tokens) return "";
    *size = bpe->starts[id + 1] - bpe->starts[id];
    return bpe->bytes + bpe->starts[id];
}

int32_t cca_bpe_byte_token(const cca_bpe *bpe, uint8_t byte) {
    return bpe->byte_tokens[byte];
}
