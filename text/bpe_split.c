/* Cuts a text into words, one pattern after the other. */
#include "base/utf8.h"
#include "text/bpe_text.h"

#include <stdlib.h>
#include <string.h>

enum behaviour { ISOLATED, REMOVED, PREVIOUS, NEXT, CONTIGUOUS, LETTERS, N_BEHAVIOURS };

static const char *const behaviours[N_BEHAVIOURS] = {"isolated", "removed",    "previous",
                                                     "next",     "contiguous", "letters"};

/* ---- opening ---- */

/* Whether a step cuts; its pattern is behind *at bytes then. */
static bool read_stage(cca_stage *out, size_t *at, cca_gguf_string step) {
    const char *gap = step.size > 0 ? memchr(step.bytes, ' ', step.size) : NULL;
    size_t size = gap ? (size_t)(gap - step.bytes) : step.size;
    *at = size + 1;
    out->inverted = size > 4 && memcmp(step.bytes + size - 4, "-not", 4) == 0;
    if (out->inverted) size -= 4;
    for (out->behaviour = 0; out->behaviour < N_BEHAVIOURS; out->behaviour++) {
        const char *word = behaviours[out->behaviour];
        bool same = strlen(word) == size && memcmp(word, step.bytes, size) == 0;
        bool letters = out->behaviour == LETTERS;
        if (same && (gap || letters) && !(letters && (gap || out->inverted))) return true;
    }
    return false;
}

static cca_status open_stage(cca_splitter *out, cca_gguf_string step, const char *name,
                             cca_error *err) {
    size_t at;
    if (out->n_stages == CCA_MAX_STEPS) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: a text is cut in more than %d steps", name,
                        CCA_MAX_STEPS);
    }
    cca_stage *stage = &out->stages[out->n_stages++];
    stage->pattern.code = NULL;
    (void)read_stage(stage, &at, step);
    if (stage->behaviour != LETTERS) {
        return cca_pattern_open(&stage->pattern, step.bytes + at, step.size - at, name, err);
    }
    for (size_t i = 0; i + 1 < out->n_stages; i++) {
        if (out->stages[i].behaviour != LETTERS) continue;
        return cca_fail(err, CCA_BAD_MODEL, "%s: a second step \"letters\"", name);
    }
    return CCA_OK;
}

cca_status cca_splitter_open(cca_splitter *out, const cca_gguf_string *steps, size_t *n,
                             const char *name, cca_error *err) {
    size_t first = *n, at;
    cca_stage stage;
    cca_status status = CCA_OK;
    out->n_stages = 0;
    while (first > 0 && read_stage(&stage, &at, steps[first - 1])) first--;
    for (size_t i = first; i < *n && !status; i++) status = open_stage(out, steps[i], name, err);
    if (status) cca_splitter_close(out);
    *n = first;
    return status;
}

void cca_splitter_close(cca_splitter *splitter) {
    while (splitter->n_stages > 0) {
        cca_pattern_close(&splitter->stages[--splitter->n_stages].pattern);
    }
}

/* ---- cutting ---- */

typedef struct cutting {
    const cca_splitter *splitter;
    cca_matcher *matchers[CCA_MAX_STEPS];
    const char *text;
    cca_word_taker *take;
    void *context;
    cca_error *err;
    char *letters;             /* of a part of the text, in place of it; NULL: none */
    size_t letter_at, byte_at; /* the same place in both, at or before the next word's start */
} cutting;

/* A part of a text that matches a pattern, or does not. */
typedef struct part {
    size_t from, end;
    bool matches, waits;
} part;

static cca_status cut(cutting *c, size_t stage, size_t from, size_t end);

static cca_status flush(cutting *c, size_t stage, part *waiting) {
    bool empty = !waiting->waits || waiting->from == waiting->end;
    waiting->waits = false;
    return empty ? CCA_OK : cut(c, stage + 1, waiting->from, waiting->end);
}

/* One more part: waiting is what may still grow. */
static cca_status add(cutting *c, size_t stage, part *waiting, part next) {
    bool grows = false, before = waiting->waits && waiting->matches;
    int behaviour = c->splitter->stages[stage].behaviour;
    next.waits = true;
    if (behaviour == REMOVED && next.matches) return CCA_OK;
    if (behaviour == CONTIGUOUS) grows = waiting->waits && waiting->matches == next.matches;
    if (behaviour == PREVIOUS) grows = waiting->waits && next.matches && !before;
    if (behaviour == NEXT) grows = before && !next.matches;
    if (grows) {
        waiting->end = next.end;
        waiting->matches = next.matches;
        return CCA_OK;
    }
    cca_status status = flush(c, stage, waiting);
    *waiting = next;
    return status;
}

/* Where letter text[at] stands for; calls with growing at. */
static size_t byte_of(cutting *c, size_t at) {
    for (; c->letter_at < at; c->letter_at++) {
        c->byte_at += !cca_utf8_continues(c->letters[c->letter_at]);
    }
    return c->byte_at;
}

static cca_status take(cutting *c, size_t from, size_t end) {
    if (c->letters) {
        from = byte_of(c, from);
        end = byte_of(c, end);
    }
    return c->take(c->context, from, end, c->err);
}

/* A letter of at most two bytes for each byte of the part. */
static cca_status cut_letters(cutting *c, size_t stage, size_t from, size_t end) {
    const char *text = c->text;
    size_t size = 0;
    c->letters = malloc(2 * (end - from) + 4);
    if (!c->letters) return cca_fail(c->err, CCA_NO_MEMORY, "no memory to cut a text");
    for (size_t i = from; i < end; i++) {
        size += cca_utf8_put(c->letters + size, cca_bpe_letter((uint8_t)text[i]));
    }
    c->text = c->letters;
    c->letter_at = 0;
    c->byte_at = from;
    cca_status status = cut(c, stage + 1, 0, size);
    free(c->letters);
    c->letters = NULL;
    c->text = text;
    return status;
}

static cca_status cut(cutting *c, size_t stage, size_t from, size_t end) {
    if (stage == c->splitter->n_stages) return take(c, from, end);
    if (c->splitter->stages[stage].behaviour == LETTERS) return cut_letters(c, stage, from, end);
    bool inverted = c->splitter->stages[stage].inverted, found = true;
    cca_matcher *matcher = c->matchers[stage];
    part waiting = {.waits = false};
    size_t at = from, begin, stop;
    cca_status status = CCA_OK;
    cca_matcher_start(matcher, c->text + from, end - from);
    while (!status) {
        status = cca_matcher_next(&found, matcher, &begin, &stop, c->err);
        if (status || !found) break;
        begin += from;
        stop += from;
        if (begin > at) status = add(c, stage, &waiting, (part){at, begin, inverted, true});
        if (!status) status = add(c, stage, &waiting, (part){begin, stop, !inverted, true});
        at = stop;
    }
    if (!status && at < end) status = add(c, stage, &waiting, (part){at, end, inverted, true});
    return status ? status : flush(c, stage, &waiting);
}

cca_status cca_splitter_run(const cca_splitter *splitter, const char *text, size_t size,
                            cca_word_taker *taker, void *context, cca_error *err) {
    cutting c = {splitter, {NULL}, text, taker, context, err, NULL, 0, 0};
    cca_status status = CCA_OK;
    for (size_t i = 0; i < splitter->n_stages && !status; i++) {
        if (splitter->stages[i].behaviour == LETTERS) continue;
        c.matchers[i] = cca_matcher_new(&splitter->stages[i].pattern);
        if (!c.matchers[i]) status = cca_fail(err, CCA_NO_MEMORY, "no memory to cut a text");
    }
    if (!status && size > 0) status = cut(&c, 0, 0, size);
    for (size_t i = 0; i < splitter->n_stages; i++) cca_matcher_free(c.matchers[i]);
    return status;
}
