/* Filters over texts. What is no text is taken as str() writes it. */
#include "base/utf8.h"
#include "jinja/run.h"
#include "jinja/space.h"

#include <string.h>
#include <utf8proc.h>

/* ---- as methods have it ---------------------------------------------------------------- */

/* A method of the text, by its name. */
static bool use_method(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                       const char *name) {
    const jinja_text *text;
    jinja_function *call = NULL;
    if (!jinja_to_text(&text, r, self)) return false;
    self = jinja_of_text(text);
    (void)jinja_find_method(&call, self, name, strlen(name));
    return call(out, r, self, args);
}

static bool upper(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return use_method(out, r, self, args, "upper");
}

static bool lower(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return use_method(out, r, self, args, "lower");
}

static bool capitalize(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return use_method(out, r, self, args, "capitalize");
}

static bool trim(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return use_method(out, r, self, args, "strip");
}

static bool center(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    static const jinja_value usual = {.kind = JINJA_INT, .integer = 80};
    bool given = args->n + args->n_named > 0;
    return use_method(out, r, self, given ? args : &(jinja_args){.values = &usual, .n = 1},
                      "center");
}

static bool string(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    const jinja_text *text;
    if (!jinja_bind(NULL, r, args, "string", "") || !jinja_to_text(&text, r, self)) return false;
    *out = jinja_of_text(text);
    return true;
}

static bool replace(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[3];
    const jinja_text *text, *old, *new;
    int64_t count;
    if (!jinja_bind(bound, r, args, "replace", "old,new,count")) return false;
    if (args->n + args->n_named < 2) return jinja_fail(r, "replace wants two texts");
    return jinja_to_text(&text, r, self) && jinja_to_text(&old, r, bound[0]) &&
           jinja_to_text(&new, r, bound[1]) && jinja_int_arg(&count, r, bound[2], "count", -1) &&
           jinja_replace(out, r, text, old, new, count);
}

static bool format(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    const jinja_text *text;
    jinja_value values;
    if (args->n > 0 && args->n_named > 0) {
        return jinja_fail(r, "format takes arguments with names or without");
    }
    if (!jinja_to_text(&text, r, self) ||
        !jinja_list_of(&values, r, JINJA_TUPLE, args->values, args->n)) {
        return false;
    }
    if (args->n_named > 0 && !jinja_new_dict(&values, r)) return false;
    for (size_t i = 0; i < args->n_named; i++) {
        jinja_value key;
        if (!jinja_words(&key, r, args->names[i], strlen(args->names[i])) ||
            !jinja_set_key(r, values.dict, key, args->named[i])) {
            return false;
        }
    }
    return jinja_percent(out, r, text, values);
}

/* ---- HTML ------------------------------------------------------------------------------ */

static bool mark_safe(jinja_value *out, jinja_run *r, const jinja_text *of) {
    jinja_text *text = jinja_new(r, sizeof *text);
    if (!text) return false;
    *text = *of;
    text->safe = true;
    *out = jinja_of_text(text);
    return true;
}

static bool safe(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    const jinja_text *text;
    return jinja_bind(NULL, r, args, "safe", "") && jinja_to_text(&text, r, self) &&
           mark_safe(out, r, text);
}

static bool forceescape(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    const jinja_text *text;
    return jinja_bind(NULL, r, args, "escape", "") && jinja_to_text(&text, r, self) &&
           jinja_escape(out, r, text) && mark_safe(out, r, out->text);
}

static bool escape(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    bool is_safe = self.kind == JINJA_TEXT && self.text->safe;
    return is_safe ? (*out = self, true) : forceescape(out, r, self, args);
}

/* ---- words and lines ------------------------------------------------------------------- */

static bool begins_words(uint32_t code) {
    return jinja_is_space(code) || (code < 0x80 && code > 0 && strchr("-({[<", (int)code));
}

static bool title(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    const jinja_text *text;
    jinja_builder b = {.run = r};
    bool begin = true;
    size_t length;
    if (!jinja_bind(NULL, r, args, "title", "") || !jinja_to_text(&text, r, self)) return false;
    for (size_t at = 0; at < text->size; at += length) {
        uint32_t code;
        char bytes[4];
        if (cca_utf8_next(&code, &length, text->bytes + at, text->size - at)) {
            length = 1;
            if (!jinja_put_part(&b, text, at, at + 1)) return false;
            continue;
        }
        utf8proc_int32_t c = (utf8proc_int32_t)code;
        uint32_t other = (uint32_t)(begin ? utf8proc_toupper(c) : utf8proc_tolower(c));
        begin = begins_words(code);
        if (!jinja_put_for(&b, bytes, cca_utf8_put(bytes, other), text, at)) return false;
    }
    return jinja_finish(out, &b);
}

static bool wordcount(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    const jinja_text *text;
    int64_t n = 0;
    bool inside = false;
    size_t length;
    if (!jinja_bind(NULL, r, args, "wordcount", "") || !jinja_to_text(&text, r, self)) return false;
    for (size_t at = 0; at < text->size; at += length) {
        uint32_t code;
        length = jinja_next_char(&code, text->bytes + at, text->size - at);
        utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
        bool word = code == '_' || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) ||
                    (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
        n += word && !inside;
        inside = word;
    }
    *out = jinja_int(n);
    return jinja_spend(r, text->size);
}

/* The text of one level: a number of spaces, or a text. */
static bool indention(const jinja_text **out, jinja_run *r, jinja_value width) {
    static const jinja_text space = {.bytes = " ", .size = 1};
    jinja_builder b = {.run = r};
    jinja_value text;
    int64_t n;
    if (width.kind == JINJA_TEXT) return *out = width.text, true;
    if (!jinja_int_arg(&n, r, width, "width", 4)) return false;
    for (; n > 0; n--) {
        if (!jinja_put_text(&b, &space)) return false;
    }
    if (!jinja_finish(&text, &b)) return false;
    *out = text.text;
    return true;
}

static bool indent(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[3], lines;
    const jinja_text *text, *front;
    jinja_builder b = {.run = r}, whole = {.run = r};
    jinja_function *splitlines = NULL;
    if (!jinja_bind(bound, r, args, "indent", "width,first,blank") ||
        !indention(&front, r, bound[0]) || !jinja_text_arg(&text, r, self, "indent")) {
        return false;
    }
    bool first = jinja_is_true(bound[1]), blank = jinja_is_true(bound[2]);
    /* One more line break, as Jinja2 has it, so that the last line counts where it is empty. */
    if (!jinja_put_text(&whole, text) || !jinja_put_words(&whole, "\n") ||
        !jinja_finish(&self, &whole)) {
        return false;
    }
    (void)jinja_find_method(&splitlines, self, "splitlines", 10);
    if (!splitlines(&lines, r, self, &(jinja_args){0})) return false;
    for (size_t i = 0; i < lines.list->n; i++) {
        const jinja_text *line = lines.list->items[i].text;
        bool moved = i == 0 ? first : blank || line->size > 0;
        if ((i > 0 && !jinja_put_words(&b, "\n")) || (moved && !jinja_put_text(&b, front)) ||
            !jinja_put_text(&b, line)) {
            return false;
        }
    }
    return jinja_finish(out, &b);
}

static bool truncate_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    static const jinja_text dots = {.bytes = "...", .size = 3}, space = {.bytes = " ", .size = 1};
    jinja_value bound[4];
    const jinja_text *text, *end = &dots;
    int64_t length, leeway;
    jinja_builder b = {.run = r};
    if (!jinja_bind(bound, r, args, "truncate", "length,killwords,end,leeway") ||
        !jinja_text_arg(&text, r, self, "truncate") ||
        !jinja_int_arg(&length, r, bound[0], "length", 255) ||
        !jinja_int_arg(&leeway, r, bound[3], "leeway", 5) ||
        (bound[2].kind != JINJA_UNDEFINED && !jinja_text_arg(&end, r, bound[2], "end"))) {
        return false;
    }
    int64_t room = cca_max(length, -1) - (int64_t)jinja_n_chars(end);
    if (room < 0 || leeway < 0) return jinja_fail(r, "truncate: the length is too small");
    if ((int64_t)jinja_n_chars(text) - leeway <= length) return *out = self, true;
    size_t size = jinja_char_at(text, (size_t)room);
    size_t word = jinja_is_true(bound[1]) ? SIZE_MAX : jinja_find_last(text, size, &space);
    return jinja_put_part(&b, text, 0, word == SIZE_MAX ? size : word) && jinja_put_text(&b, end) &&
           jinja_finish(out, &b);
}

const jinja_global jinja_filters_of_text[] = {
    {"upper", upper},
    {"lower", lower},
    {"capitalize", capitalize},
    {"title", title},
    {"trim", trim},
    {"center", center},
    {"string", string},
    {"replace", replace},
    {"format", format},
    {"safe", safe},
    {"escape", escape},
    {"e", escape},
    {"forceescape", forceescape},
    {"wordcount", wordcount},
    {"indent", indent},
    {"truncate", truncate_},
    {0},
};
