/* Methods of texts that look for others in them, or cut them there. */
#include "base/utf8.h"
#include "jinja/run.h"
#include "jinja/space.h"

#include <string.h>

/* ---- looking --------------------------------------------------------------------------- */

/* The part of a text that start and end, counted in characters, leave. */
static bool window(jinja_text *out, size_t *chars_before, jinja_run *r, const jinja_text *text,
                   const jinja_value bounds[2]) {
    jinja_value slice[3] = {jinja_none(), jinja_none(), jinja_none()}, part;
    for (int i = 0; i < 2; i++) {
        if (bounds[i].kind != JINJA_UNDEFINED) slice[i] = bounds[i];
    }
    if (!jinja_slice(&part, r, jinja_of_text(text), slice)) return false;
    *out = *part.text;
    jinja_text before = {.bytes = text->bytes, .size = (size_t)(out->bytes - text->bytes)};
    *chars_before = jinja_n_chars(&before);
    return true;
}

typedef struct search {
    const jinja_text *word;
    jinja_text within;
    size_t before; /* characters in front of that */
} search;

static bool read_search(search *out, jinja_run *r, jinja_value self, const jinja_args *args,
                        const char *what) {
    jinja_value bound[3];
    return jinja_bind(bound, r, args, what, "sub,start,end") &&
           jinja_text_arg(&out->word, r, bound[0], what) && jinja_spend(r, self.text->size) &&
           window(&out->within, &out->before, r, self.text, bound + 1);
}

static bool place(jinja_value *out, jinja_run *r, const search *s, size_t at, bool must) {
    jinja_text front = {.bytes = s->within.bytes, .size = at};
    if (at == SIZE_MAX && must) return jinja_fail(r, "substring not found");
    *out = jinja_int(at == SIZE_MAX ? -1 : (int64_t)(s->before + jinja_n_chars(&front)));
    return true;
}

static bool find(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    search s;
    return read_search(&s, r, self, args, "find") &&
           place(out, r, &s, jinja_find(&s.within, 0, s.word), false);
}

static bool index_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    search s;
    return read_search(&s, r, self, args, "index") &&
           place(out, r, &s, jinja_find(&s.within, 0, s.word), true);
}

static bool rfind(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    search s;
    return read_search(&s, r, self, args, "rfind") &&
           place(out, r, &s, jinja_find_last(&s.within, s.within.size, s.word), false);
}

static bool rindex_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    search s;
    return read_search(&s, r, self, args, "rindex") &&
           place(out, r, &s, jinja_find_last(&s.within, s.within.size, s.word), true);
}

static bool count(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    search s;
    int64_t n = 0;
    if (!read_search(&s, r, self, args, "count")) return false;
    size_t step = s.word->size, at = 0;
    if (step == 0) return *out = jinja_int((int64_t)jinja_n_chars(&s.within) + 1), true;
    for (; (at = jinja_find(&s.within, at, s.word)) != SIZE_MAX; at += step) n++;
    *out = jinja_int(n);
    return true;
}

static bool stands_at_end(const jinja_text *text, const jinja_text *word, bool start) {
    if (word->size > text->size) return false;
    const char *at = text->bytes + (start ? 0 : text->size - word->size);
    return memcmp(at, word->bytes, word->size) == 0;
}

/* The word may be a tuple of words. */
static bool stands(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                   bool start, const char *what) {
    jinja_value bound[3];
    jinja_text within;
    size_t before;
    if (!jinja_bind(bound, r, args, what, "word,start,end") ||
        !window(&within, &before, r, self.text, bound + 1)) {
        return false;
    }
    bool tuple = bound[0].kind == JINJA_LIST && bound[0].list->shape == JINJA_TUPLE, found = false;
    const jinja_value *words = tuple ? bound[0].list->items : &bound[0];
    for (size_t i = 0; i < (tuple ? bound[0].list->n : 1) && !found; i++) {
        const jinja_text *word;
        if (!jinja_text_arg(&word, r, words[i], what)) return false;
        found = stands_at_end(&within, word, start);
    }
    *out = jinja_bool(found);
    return true;
}

static bool startswith(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return stands(out, r, self, args, true, "startswith");
}

static bool endswith(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return stands(out, r, self, args, false, "endswith");
}

/* ---- cutting --------------------------------------------------------------------------- */

static bool push_part(jinja_run *r, jinja_list *list, const jinja_text *text, size_t from,
                      size_t to) {
    jinja_value part;
    return jinja_part(&part, r, text, from, to) && jinja_push(r, list, part);
}

static void reverse(jinja_list *list) {
    for (size_t i = 0; i < list->n / 2; i++) {
        jinja_value other = list->items[i];
        list->items[i] = list->items[list->n - 1 - i];
        list->items[list->n - 1 - i] = other;
    }
}

/* At white space, of which none is at the ends of a part. */
static bool split_space(jinja_run *r, jinja_list *list, const jinja_text *text, int64_t most) {
    size_t at = jinja_space_at_start(text->bytes, text->size);
    while (at < text->size) {
        size_t end = at, length;
        uint32_t code;
        if (most-- == 0) return push_part(r, list, text, at, text->size);
        for (; end < text->size; end += length) {
            length = jinja_next_char(&code, text->bytes + end, text->size - end);
            if (jinja_is_space(code)) break;
        }
        if (!push_part(r, list, text, at, end)) return false;
        at = end + jinja_space_at_start(text->bytes + end, text->size - end);
    }
    return true;
}

/* The same from the end, the parts in their order. */
static bool rsplit_space(jinja_run *r, jinja_list *list, const jinja_text *text, int64_t most) {
    size_t end = jinja_without_space_at_end(text->bytes, text->size), length;
    while (end > 0) {
        size_t at = end;
        uint32_t code;
        if (most-- == 0) {
            if (!push_part(r, list, text, 0, end)) return false;
            break;
        }
        while (at > 0) {
            size_t before = jinja_char_before(text->bytes, at);
            (void)cca_utf8_next(&code, &length, text->bytes + before, at - before);
            if (jinja_is_space(code)) break;
            at = before;
        }
        if (!push_part(r, list, text, at, end)) return false;
        end = jinja_without_space_at_end(text->bytes, at);
    }
    reverse(list);
    return true;
}

static bool split_word(jinja_run *r, jinja_list *list, const jinja_text *text,
                       const jinja_text *word, int64_t most) {
    size_t from = 0, at;
    while (most-- != 0 && (at = jinja_find(text, from, word)) != SIZE_MAX) {
        if (!push_part(r, list, text, from, at)) return false;
        from = at + word->size;
    }
    return push_part(r, list, text, from, text->size);
}

static bool rsplit_word(jinja_run *r, jinja_list *list, const jinja_text *text,
                        const jinja_text *word, int64_t most) {
    size_t end = text->size, at;
    while (most-- != 0 && (at = jinja_find_last(text, end, word)) != SIZE_MAX) {
        if (!push_part(r, list, text, at + word->size, end)) return false;
        end = at;
    }
    if (!push_part(r, list, text, 0, end)) return false;
    reverse(list);
    return true;
}

static bool split_at(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                     bool from_end) {
    jinja_value bound[2];
    const jinja_text *word;
    int64_t most;
    if (!jinja_bind(bound, r, args, "split", "sep,maxsplit") ||
        !jinja_int_arg(&most, r, bound[1], "maxsplit", -1) || !jinja_spend(r, self.text->size) ||
        !jinja_new_list(out, r, JINJA_PLAIN, 0)) {
        return false;
    }
    if (bound[0].kind == JINJA_UNDEFINED || bound[0].kind == JINJA_NONE) {
        return from_end ? rsplit_space(r, out->list, self.text, most)
                        : split_space(r, out->list, self.text, most);
    }
    if (!jinja_text_arg(&word, r, bound[0], "split")) return false;
    if (word->size == 0) return jinja_fail(r, "split: empty separator");
    return from_end ? rsplit_word(r, out->list, self.text, word, most)
                    : split_word(r, out->list, self.text, word, most);
}

static bool split(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return split_at(out, r, self, args, false);
}

static bool rsplit(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return split_at(out, r, self, args, true);
}

static bool splitlines(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value keep;
    const jinja_text *text = self.text;
    size_t begin = 0, length;
    if (!jinja_bind(&keep, r, args, "splitlines", "keepends") ||
        !jinja_new_list(out, r, JINJA_PLAIN, 0)) {
        return false;
    }
    for (size_t at = 0; at < text->size; at += length) {
        uint32_t code;
        length = jinja_next_char(&code, text->bytes + at, text->size - at);
        if (!jinja_is_line_end(code)) continue;
        if (code == '\r' && at + 1 < text->size && text->bytes[at + 1] == '\n') length = 2;
        size_t end = jinja_is_true(keep) ? at + length : at;
        if (!push_part(r, out->list, text, begin, end)) return false;
        begin = at + length;
    }
    return begin == text->size || push_part(r, out->list, text, begin, text->size);
}

static bool partition_at(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                         bool last) {
    jinja_value bound;
    const jinja_text *word, *text = self.text;
    if (!jinja_bind(&bound, r, args, "partition", "sep") ||
        !jinja_text_arg(&word, r, bound, "partition") || !jinja_new_list(out, r, JINJA_TUPLE, 3)) {
        return false;
    }
    if (word->size == 0) return jinja_fail(r, "partition: empty separator");
    size_t at = last ? jinja_find_last(text, text->size, word) : jinja_find(text, 0, word);
    bool found = at != SIZE_MAX;
    size_t n = text->size, end = found ? at + word->size : last ? 0 : n;
    if (!found) at = last ? 0 : n;
    return push_part(r, out->list, text, 0, at) && push_part(r, out->list, text, at, end) &&
           push_part(r, out->list, text, end, n);
}

static bool partition(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return partition_at(out, r, self, args, false);
}

static bool rpartition(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return partition_at(out, r, self, args, true);
}

const jinja_global jinja_text_search_methods[] = {
    {"find", find},
    {"index", index_},
    {"rfind", rfind},
    {"rindex", rindex_},
    {"count", count},
    {"startswith", startswith},
    {"endswith", endswith},
    {"split", split},
    {"rsplit", rsplit},
    {"splitlines", splitlines},
    {"partition", partition},
    {"rpartition", rpartition},
    {0},
};
