/* Methods of texts that make texts, or tell what they are made of. */
#include "jinja/run.h"
#include "jinja/space.h"

#include <string.h>
#include <utf8proc.h>

/* ---- stripping ------------------------------------------------------------------------- */

static bool is_any_of(const jinja_text *chars, const char *c, size_t length) {
    size_t n;
    for (size_t at = 0; at < chars->size; at += n) {
        n = jinja_char_length(chars->bytes + at, chars->size - at);
        if (n == length && memcmp(chars->bytes + at, c, n) == 0) return true;
    }
    return false;
}

/* Without white space, or without the given characters, at either end. */
static bool strip_ends(jinja_value *out, jinja_run *r, const jinja_text *text, jinja_value chars,
                       bool start, bool end) {
    size_t from = 0, to = text->size, length;
    if (!jinja_spend(r, text->size)) return false;
    if (chars.kind == JINJA_UNDEFINED || chars.kind == JINJA_NONE) {
        if (start) from = jinja_space_at_start(text->bytes, to);
        if (end) to = from + jinja_without_space_at_end(text->bytes + from, to - from);
        return jinja_part(out, r, text, from, to);
    }
    const jinja_text *set;
    if (!jinja_text_arg(&set, r, chars, "strip")) return false;
    while (start && from < to) {
        length = jinja_char_length(text->bytes + from, to - from);
        if (!jinja_spend(r, set->size)) return false;
        if (!is_any_of(set, text->bytes + from, length)) break;
        from += length;
    }
    while (end && to > from) {
        size_t last = from + jinja_char_before(text->bytes + from, to - from);
        if (!jinja_spend(r, set->size)) return false;
        if (!is_any_of(set, text->bytes + last, to - last)) break;
        to = last;
    }
    return jinja_part(out, r, text, from, to);
}

static bool strip_method(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                         bool start, bool end) {
    jinja_value chars;
    return jinja_bind(&chars, r, args, "strip", "chars") &&
           strip_ends(out, r, self.text, chars, start, end);
}

static bool strip(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return strip_method(out, r, self, args, true, true);
}

static bool lstrip(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return strip_method(out, r, self, args, true, false);
}

static bool rstrip(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return strip_method(out, r, self, args, false, true);
}

static bool remove_end(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                       bool prefix) {
    jinja_value bound;
    const jinja_text *part, *text = self.text;
    if (!jinja_bind(&bound, r, args, "removeprefix", "prefix") ||
        !jinja_text_arg(&part, r, bound, "removeprefix")) {
        return false;
    }
    size_t n = part->size;
    const char *at = text->bytes + (prefix || n > text->size ? 0 : text->size - n);
    if (n > text->size || memcmp(at, part->bytes, n) != 0) return *out = self, true;
    return jinja_part(out, r, text, prefix ? n : 0, prefix ? text->size : text->size - n);
}

static bool removeprefix(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return remove_end(out, r, self, args, true);
}

static bool removesuffix(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return remove_end(out, r, self, args, false);
}

/* ---- letters --------------------------------------------------------------------------- */

static bool recase(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                   jinja_case how) {
    return jinja_bind(NULL, r, args, "the method", "") && jinja_recase(out, r, self.text, how);
}

static bool upper(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return recase(out, r, self, args, JINJA_UPPER);
}

static bool lower(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return recase(out, r, self, args, JINJA_LOWER);
}

static bool title(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return recase(out, r, self, args, JINJA_TITLE);
}

static bool capitalize(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return recase(out, r, self, args, JINJA_CAPITALIZE);
}

static bool swapcase(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return recase(out, r, self, args, JINJA_SWAP);
}

/* ---- what a text is made of ------------------------------------------------------------ */

typedef bool char_test(uint32_t code);

static utf8proc_category_t category(uint32_t code) {
    return utf8proc_category((utf8proc_int32_t)code);
}

static bool is_letter(uint32_t code) {
    utf8proc_category_t c = category(code);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

static bool is_decimal(uint32_t code) {
    return category(code) == UTF8PROC_CATEGORY_ND;
}

static bool is_numeric(uint32_t code) {
    utf8proc_category_t c = category(code);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

static bool is_alphanumeric(uint32_t code) {
    return is_letter(code) || is_numeric(code);
}

/* Whether there are characters, and all are so. */
static bool all_are(jinja_value *out, jinja_run *r, const jinja_text *text, char_test *test) {
    bool all = text->size > 0;
    size_t length;
    for (size_t at = 0; at < text->size && all; at += length) {
        uint32_t code;
        length = jinja_next_char(&code, text->bytes + at, text->size - at);
        all = test(code);
    }
    *out = jinja_bool(all);
    return jinja_spend(r, text->size);
}

static bool isdigit_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "isdigit", "") && all_are(out, r, self.text, is_decimal);
}

static bool isnumeric(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "isnumeric", "") && all_are(out, r, self.text, is_numeric);
}

static bool isalpha_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "isalpha", "") && all_are(out, r, self.text, is_letter);
}

static bool isalnum_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "isalnum", "") && all_are(out, r, self.text, is_alphanumeric);
}

static bool isspace_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "isspace", "") && all_are(out, r, self.text, jinja_is_space);
}

/* Whether there are letters with case, and all are of the one. */
static bool all_cased(jinja_value *out, jinja_run *r, const jinja_text *text,
                      utf8proc_category_t wanted, utf8proc_category_t other) {
    bool any = false, all = true;
    size_t length;
    for (size_t at = 0; at < text->size && all; at += length) {
        uint32_t code;
        length = jinja_next_char(&code, text->bytes + at, text->size - at);
        any |= category(code) == wanted;
        all = category(code) != other && category(code) != UTF8PROC_CATEGORY_LT;
    }
    *out = jinja_bool(any && all);
    return jinja_spend(r, text->size);
}

static bool isupper_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "isupper", "") &&
           all_cased(out, r, self.text, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL);
}

static bool islower_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "islower", "") &&
           all_cased(out, r, self.text, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LU);
}

/* ---- width ----------------------------------------------------------------------------- */

static bool fill(jinja_builder *b, const jinja_text *with, int64_t n) {
    for (; n > 0; n--) {
        if (!jinja_put_text(b, with)) return false;
    }
    return true;
}

/* left: parts of 2 that go in front. */
static bool pad(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                int left) {
    static const jinja_text space = {.bytes = " ", .size = 1};
    jinja_value bound[2];
    const jinja_text *with = &space;
    jinja_builder b = {.run = r};
    int64_t width;
    if (!jinja_bind(bound, r, args, "the method", "width,fillchar") ||
        !jinja_int_arg(&width, r, bound[0], "width", 0)) {
        return false;
    }
    if (bound[1].kind != JINJA_UNDEFINED && !jinja_text_arg(&with, r, bound[1], "fillchar")) {
        return false;
    }
    if (jinja_n_chars(with) != 1) return jinja_fail(r, "fillchar is one character");
    int64_t n = cca_max(width, 0) - (int64_t)jinja_n_chars(self.text);
    if (n <= 0) return *out = self, true;
    int64_t front = left == 1 ? n / 2 + (n & width & 1) : left ? n : 0;
    return fill(&b, with, front) && jinja_put_text(&b, self.text) && fill(&b, with, n - front) &&
           jinja_finish(out, &b);
}

static bool ljust(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return pad(out, r, self, args, 0);
}

static bool center(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return pad(out, r, self, args, 1);
}

static bool rjust(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return pad(out, r, self, args, 2);
}

static bool zfill(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    static const jinja_text zero = {.bytes = "0", .size = 1};
    jinja_value bound;
    jinja_builder b = {.run = r};
    const jinja_text *text = self.text;
    int64_t width;
    if (!jinja_bind(&bound, r, args, "zfill", "width") ||
        !jinja_int_arg(&width, r, bound, "width", 0)) {
        return false;
    }
    size_t sign = text->size > 0 && (text->bytes[0] == '-' || text->bytes[0] == '+');
    return jinja_put_part(&b, text, 0, sign) &&
           fill(&b, &zero, cca_max(width, 0) - (int64_t)jinja_n_chars(text)) &&
           jinja_put_part(&b, text, sign, text->size) && jinja_finish(out, &b);
}

/* ---- others ---------------------------------------------------------------------------- */

static bool replace(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[3];
    const jinja_text *old, *new;
    int64_t count;
    return jinja_bind(bound, r, args, "replace", "old,new,count") &&
           jinja_text_arg(&old, r, bound[0], "replace") &&
           jinja_text_arg(&new, r, bound[1], "replace") &&
           jinja_int_arg(&count, r, bound[2], "count", -1) &&
           jinja_replace(out, r, self.text, old, new, count);
}

static bool join(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound;
    const jinja_list *items;
    jinja_builder b = {.run = r};
    if (!jinja_bind(&bound, r, args, "join", "iterable") || !jinja_items(&items, r, bound)) {
        return false;
    }
    for (size_t i = 0; i < items->n; i++) {
        const jinja_text *item;
        if (!jinja_text_arg(&item, r, items->items[i], "an item of join")) return false;
        if (i > 0 && !jinja_put_text(&b, self.text)) return false;
        if (!jinja_put_text(&b, item)) return false;
    }
    return jinja_finish(out, &b);
}

static bool format(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_format(out, r, self.text, args);
}

const jinja_global jinja_text_methods[] = {
    {"strip", strip},
    {"lstrip", lstrip},
    {"rstrip", rstrip},
    {"removeprefix", removeprefix},
    {"removesuffix", removesuffix},
    {"upper", upper},
    {"lower", lower},
    {"title", title},
    {"capitalize", capitalize},
    {"swapcase", swapcase},
    {"isdigit", isdigit_},
    {"isdecimal", isdigit_},
    {"isnumeric", isnumeric},
    {"isalpha", isalpha_},
    {"isalnum", isalnum_},
    {"isspace", isspace_},
    {"isupper", isupper_},
    {"islower", islower_},
    {"ljust", ljust},
    {"center", center},
    {"rjust", rjust},
    {"zfill", zfill},
    {"replace", replace},
    {"join", join},
    {"format", format},
    {0},
};
