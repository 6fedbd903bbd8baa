#include "jinja/text.h"

#include "base/utf8.h"
#include "jinja/run.h"
#include "jinja/space.h"

#include <string.h>
#include <utf8proc.h>

/* ---- building -------------------------------------------------------------------------- */

static bool reserve(jinja_builder *b, size_t more) {
    size_t need;
    if (!cca_add(&need, b->size, more)) return jinja_fail(b->run, "a text is too long");
    if (need <= b->capacity) return true;
    size_t capacity = 2 * b->capacity > need ? 2 * b->capacity : need;
    char *grown = jinja_new(b->run, capacity);
    if (!grown) return false;
    if (b->size > 0) memcpy(grown, b->bytes, b->size);
    b->bytes = grown;
    b->capacity = capacity;
    return true;
}

bool jinja_put(jinja_builder *b, const char *bytes, size_t size) {
    if (size == 0) return true;
    if (!reserve(b, size) || !b->bytes) return false;
    memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
    return jinja_spend(b->run, size);
}

bool jinja_put_words(jinja_builder *b, const char *words) {
    return jinja_put(b, words, strlen(words));
}

/* Notes a span, or lets the last one go on with it. */
static bool put_span(jinja_builder *b, const cca_jinja_span *span) {
    cca_jinja_span *last = b->n_spans > 0 ? &b->spans[b->n_spans - 1] : NULL;
    if (last && last->end == span->begin && last->content == span->content &&
        last->offset + (last->end - last->begin) == span->offset) {
        last->end = span->end;
        return true;
    }
    cca_jinja_span *grown =
        jinja_grow(&b->run->region, b->spans, b->n_spans, &b->spans_capacity, sizeof *grown);
    if (!grown) return jinja_no_memory(b->run);
    b->spans = grown;
    b->spans[b->n_spans++] = *span;
    return true;
}

/* The first span that ends behind `at`; n_spans where there is none. */
static size_t span_at(const jinja_text *text, size_t at) {
    size_t low = 0, high = text->n_spans;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (text->spans[middle].end <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* What of a span lies in from … to - 1, as it stands behind `move` bytes of a part from there. */
static cca_jinja_span clip(const cca_jinja_span *span, size_t from, size_t to, size_t move) {
    size_t begin = span->begin > from ? span->begin : from, end = span->end < to ? span->end : to;
    return (cca_jinja_span){begin - from + move, end - from + move, span->content,
                            span->offset + (begin - span->begin)};
}

bool jinja_put_part(jinja_builder *b, const jinja_text *text, size_t from, size_t to) {
    size_t at = b->size;
    if (!jinja_put(b, text->bytes + from, to - from)) return false;
    for (size_t i = span_at(text, from); i < text->n_spans && text->spans[i].begin < to; i++) {
        cca_jinja_span span = clip(&text->spans[i], from, to, at);
        if (span.begin < span.end && !put_span(b, &span)) return false;
    }
    return true;
}

bool jinja_put_text(jinja_builder *b, const jinja_text *text) {
    return jinja_put_part(b, text, 0, text->size);
}

bool jinja_put_for(jinja_builder *b, const char *bytes, size_t size, const jinja_text *text,
                   size_t at) {
    size_t begin = b->size, i = span_at(text, at);
    if (!jinja_put(b, bytes, size)) return false;
    if (size == 0 || i == text->n_spans || text->spans[i].begin > at) return true;
    const cca_jinja_span *of = &text->spans[i];
    return put_span(b,
                    &(cca_jinja_span){begin, b->size, of->content, of->offset + (at - of->begin)});
}

bool jinja_finish(jinja_value *out, jinja_builder *b) {
    jinja_text *text = jinja_new(b->run, sizeof *text);
    if (!text) return false;
    *text = (jinja_text){.bytes = b->bytes ? b->bytes : "",
                         .size = b->size,
                         .spans = b->spans,
                         .n_spans = b->n_spans};
    *out = jinja_of_text(text);
    return true;
}

bool jinja_part(jinja_value *out, jinja_run *r, const jinja_text *text, size_t from, size_t to) {
    if (from == 0 && to == text->size) return *out = jinja_of_text(text), true;
    jinja_text *part = jinja_new(r, sizeof *part);
    if (!part) return false;
    *part = (jinja_text){.bytes = text->bytes + from, .size = to - from, .safe = text->safe};
    size_t first = span_at(text, from), end = first;
    while (end < text->n_spans && text->spans[end].begin < to) end++;
    *out = jinja_of_text(part);
    if (from >= to || end == first) return true;
    cca_jinja_span *spans = jinja_new(r, (end - first) * sizeof *spans);
    if (!spans) return false;
    for (size_t i = first; i < end; i++) {
        spans[i - first] = clip(&text->spans[i], from, to, 0);
    }
    part->spans = spans;
    part->n_spans = end - first;
    return true;
}

/* ---- characters and words -------------------------------------------------------------- */

size_t jinja_char_at(const jinja_text *text, size_t i) {
    size_t at = 0;
    for (; i > 0 && at < text->size; i--) {
        at += jinja_char_length(text->bytes + at, text->size - at);
    }
    return at;
}

size_t jinja_n_chars(const jinja_text *text) {
    size_t n = 0;
    for (size_t at = 0; at < text->size; n++) {
        at += jinja_char_length(text->bytes + at, text->size - at);
    }
    return n;
}

size_t jinja_find(const jinja_text *text, size_t from, const jinja_text *word) {
    if (from > text->size) return SIZE_MAX;
    const char *at = memmem(text->bytes + from, text->size - from, word->bytes, word->size);
    return at ? (size_t)(at - text->bytes) : SIZE_MAX;
}

size_t jinja_find_last(const jinja_text *text, size_t to, const jinja_text *word) {
    if (to < word->size) return SIZE_MAX;
    for (size_t at = to - word->size + 1; at-- > 0;) {
        if (memcmp(text->bytes + at, word->bytes, word->size) == 0) return at;
    }
    return SIZE_MAX;
}

bool jinja_is(const jinja_text *text, const char *word) {
    size_t n = strlen(word);
    return text->size == n && memcmp(text->bytes, word, n) == 0;
}

/* ---- other letters --------------------------------------------------------------------- */

static bool is_cased(uint32_t code) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
           category == UTF8PROC_CATEGORY_LT;
}

/* behind: whether a letter stands in front, or anything does (capitalize). */
static uint32_t recase(uint32_t code, jinja_case how, bool behind) {
    utf8proc_int32_t c = (utf8proc_int32_t)code;
    switch (how) {
    case JINJA_LOWER: return (uint32_t)utf8proc_tolower(c);
    case JINJA_UPPER: return (uint32_t)utf8proc_toupper(c);
    case JINJA_SWAP:
        return (uint32_t)(utf8proc_category(c) == UTF8PROC_CATEGORY_LU ? utf8proc_tolower(c)
                                                                       : utf8proc_toupper(c));
    case JINJA_TITLE:
    case JINJA_CAPITALIZE: break;
    }
    return (uint32_t)(behind ? utf8proc_tolower(c) : utf8proc_totitle(c));
}

bool jinja_recase(jinja_value *out, jinja_run *r, const jinja_text *text, jinja_case how) {
    jinja_builder b = {.run = r};
    bool behind = false;
    size_t length;
    for (size_t at = 0; at < text->size; at += length) {
        uint32_t code;
        char bytes[4];
        if (cca_utf8_next(&code, &length, text->bytes + at, text->size - at)) {
            length = 1;
            if (!jinja_put_part(&b, text, at, at + 1)) return false;
            continue;
        }
        bool sharp_s = code == 0xdf && (how == JINJA_UPPER || how == JINJA_SWAP);
        size_t size = sharp_s ? 2 : cca_utf8_put(bytes, recase(code, how, behind));
        if (!jinja_put_for(&b, sharp_s ? "SS" : bytes, size, text, at)) return false;
        behind = how == JINJA_CAPITALIZE || is_cased(code);
    }
    return jinja_finish(out, &b);
}

bool jinja_escape(jinja_value *out, jinja_run *r, const jinja_text *text) {
    static const char special[] = "&<>'\"";
    static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    jinja_builder b = {.run = r};
    for (size_t at = 0; at < text->size; at++) {
        const char *found = text->bytes[at] ? strchr(special, text->bytes[at]) : NULL;
        const char *name = found ? names[found - special] : NULL;
        if (name ? !jinja_put_for(&b, name, strlen(name), text, at)
                 : !jinja_put_part(&b, text, at, at + 1)) {
            return false;
        }
    }
    return jinja_finish(out, &b);
}

/* ---- replacing ------------------------------------------------------------------------- */

/* An empty word stands before each character and at the end. */
static bool replace_nothing(jinja_builder *b, const jinja_text *text, const jinja_text *new,
                            int64_t most) {
    size_t at = 0, length;
    for (; most != 0 && at <= text->size; most--, at += length) {
        if (!jinja_put_text(b, new)) return false;
        if (at == text->size) return true;
        length = jinja_char_length(text->bytes + at, text->size - at);
        if (!jinja_put_part(b, text, at, at + length)) return false;
    }
    return at >= text->size || jinja_put_part(b, text, at, text->size);
}

bool jinja_replace(jinja_value *out, jinja_run *r, const jinja_text *text, const jinja_text *old,
                   const jinja_text *new, int64_t most) {
    jinja_builder b = {.run = r};
    if (old->size == 0) return replace_nothing(&b, text, new, most) && jinja_finish(out, &b);
    size_t from = 0, at;
    if (!jinja_spend(r, text->size)) return false;
    for (; most != 0 && (at = jinja_find(text, from, old)) != SIZE_MAX; most--) {
        if (!jinja_put_part(&b, text, from, at) || !jinja_put_text(&b, new)) return false;
        from = at + old->size;
    }
    return jinja_put_part(&b, text, from, text->size) && jinja_finish(out, &b);
}
