/* Formats: "%-5s" % values, and "{0:>5}".format(values). */
#include "jinja/run.h"

#include <stdio.h>
#include <string.h>

/* How one value is to be written. */
typedef struct style {
    bool left, centre, zeros, plus, space, grouped;
    jinja_text fill;
    int64_t width, precision; /* -1: none */
    char kind;                /* 0: the value's own */
} style;

enum { MOST_DIGITS = 200 };

/* ---- a value in its style -------------------------------------------------------------- */

static bool put_fill(jinja_builder *b, const style *s, int64_t n) {
    for (; n > 0; n--) {
        if (!jinja_put_text(b, &s->fill)) return false;
    }
    return true;
}

static bool put_padded(jinja_builder *b, const style *s, const jinja_text *text) {
    int64_t n = s->width - (int64_t)jinja_n_chars(text);
    if (n < 0) n = 0;
    int64_t front = s->left ? 0 : s->centre ? n / 2 : n;
    return put_fill(b, s, front) && jinja_put_text(b, text) && put_fill(b, s, n - front);
}

static bool put_string(jinja_builder *b, const style *s, jinja_value v) {
    jinja_run *r = b->run;
    const jinja_text *text;
    jinja_value part;
    jinja_builder quoted = {.run = r};
    if (s->kind == 'r') {
        if (!jinja_show_quoted(&quoted, v) || !jinja_finish(&v, &quoted)) return false;
    }
    if (!jinja_to_text(&text, r, v)) return false;
    if (s->precision >= 0) {
        if (!jinja_part(&part, r, text, 0, jinja_char_at(text, (size_t)s->precision))) return false;
        text = part.text;
    }
    return put_padded(b, s, text);
}

/* Puts a comma between each three digits in front of the point. */
static void group_digits(char *text, size_t room) {
    size_t n = strlen(text), begin = text[0] == '-', end = begin;
    while (text[end] >= '0' && text[end] <= '9') end++;
    for (size_t at = end; at > begin + 3 && n + 1 < room; n++) {
        at -= 3;
        memmove(text + at + 1, text + at, n - at + 1);
        text[at] = ',';
    }
}

static bool put_number(jinja_builder *b, const style *s, jinja_value v) {
    char digits[MOST_DIGITS], sign = 0;
    const char *rest = digits;
    int precision = s->precision < 0 ? 6 : (int)cca_min(s->precision, 60);
    if (strchr("di", s->kind)) {
        snprintf(digits, sizeof digits, "%lld", (long long)jinja_as_int(v));
    } else if (strchr("xXo", s->kind)) {
        int64_t i = jinja_as_int(v);
        unsigned long long size = i < 0 ? 0 - (unsigned long long)i : (unsigned long long)i;
        const char *how = s->kind == 'x' ? "%s%llx" : s->kind == 'X' ? "%s%llX" : "%s%llo";
        snprintf(digits, sizeof digits, how, i < 0 ? "-" : "", size);
    } else {
        double x = jinja_as_real(v);
        const char *how = strchr("eE", s->kind) ? "%.*e" : strchr("gG", s->kind) ? "%.*g" : "%.*f";
        if (x > 1e100 || x < -1e100) how = "%.*e";
        snprintf(digits, sizeof digits, how, precision, x);
    }
    if (s->grouped) group_digits(digits, sizeof digits);
    if (*rest == '-' || s->plus || s->space) sign = *rest == '-' ? '-' : s->plus ? '+' : ' ';
    rest += *rest == '-';
    int64_t n = s->width - (int64_t)strlen(rest) - (sign != 0);
    bool front = !s->left && !s->centre;
    static const jinja_text zero = {.bytes = "0", .size = 1};
    style padding = *s;
    if (s->zeros) padding.fill = zero;
    int64_t before = front ? n : s->centre ? n / 2 : 0;
    if (!s->zeros && !put_fill(b, &padding, before)) return false;
    if (sign && !jinja_put(b, &sign, 1)) return false;
    if (s->zeros && !put_fill(b, &padding, before)) return false;
    return jinja_put_words(b, rest) && put_fill(b, &padding, n > 0 ? n - before : 0);
}

/* An int for the kinds that want one. */
static bool as_whole(jinja_value *v, jinja_run *r, char kind) {
    if (!jinja_is_number(*v)) {
        return jinja_fail(r, "format %c wants a number, not '%s'", kind, jinja_type(*v));
    }
    if (v->kind != JINJA_FLOAT || !strchr("dixXo", kind)) return true;
    if (!(v->real > -9e18 && v->real < 9e18)) return jinja_fail(r, "a number is too large");
    *v = jinja_int((int64_t)v->real);
    return true;
}

static bool put_value(jinja_builder *b, style *s, jinja_value v) {
    if (s->width > MOST_DIGITS * 1000) return jinja_fail(b->run, "a format is too wide");
    if (s->kind == 's' || s->kind == 'r' || s->kind == 'a') return put_string(b, s, v);
    return as_whole(&v, b->run, s->kind) && put_number(b, s, v);
}

/* ---- "%" ------------------------------------------------------------------------------- */

static bool is_digit(const jinja_text *t, size_t at) {
    return at < t->size && t->bytes[at] >= '0' && t->bytes[at] <= '9';
}

static int64_t read_digits(const jinja_text *t, size_t *at) {
    int64_t n = 0;
    for (; is_digit(t, *at); ++*at) n = cca_min(10 * n + (t->bytes[*at] - '0'), 1 << 30);
    return n;
}

/* The values of a format, in order or by name. */
typedef struct supply {
    const jinja_value *values;
    size_t n, next;
    const jinja_dict *dict; /* or NULL */
} supply;

/* "(name)" behind "%". */
static bool take_named(jinja_value *out, jinja_run *r, const supply *s, const jinja_text *t,
                       size_t *at) {
    const char *close = memchr(t->bytes + *at, ')', t->size - *at);
    jinja_value key;
    size_t found;
    if (!close || !s->dict) return jinja_fail(r, "a format wants a mapping");
    size_t end = (size_t)(close - t->bytes);
    if (!jinja_part(&key, r, t, *at + 1, end) || !jinja_find_key(&found, r, s->dict, key)) {
        return false;
    }
    if (found == s->dict->n) return jinja_fail(r, "a format has a name without a value");
    *out = s->dict->values[found];
    *at = end + 1;
    return true;
}

static bool take_next(jinja_value *out, jinja_run *r, supply *s) {
    if (s->next == s->n) return jinja_fail(r, "not enough arguments for a format");
    *out = s->values[s->next++];
    return true;
}

static void read_flags(style *out, const jinja_text *t, size_t *at) {
    for (; *at < t->size; ++*at) {
        switch (t->bytes[*at]) {
        case '-': out->left = true; break;
        case '+': out->plus = true; break;
        case ' ': out->space = true; break;
        case '0': out->zeros = true; break;
        case '#': break;
        default: return;
        }
    }
}

/* One "%…", behind the sign. */
static bool put_directive(jinja_builder *b, const jinja_text *t, size_t *at, supply *values) {
    style s = {.fill = {.bytes = " ", .size = 1}, .precision = -1};
    jinja_value v = jinja_none();
    bool named = *at < t->size && t->bytes[*at] == '(';
    if (named && !take_named(&v, b->run, values, t, at)) return false;
    read_flags(&s, t, at);
    s.width = read_digits(t, at);
    if (*at < t->size && t->bytes[*at] == '.') {
        ++*at;
        s.precision = read_digits(t, at);
    }
    s.kind = *at < t->size ? t->bytes[(*at)++] : 0;
    if (s.kind == '%') return jinja_put_words(b, "%");
    if (!s.kind || !strchr("sradixXofFeEgG", s.kind)) {
        return jinja_fail(b->run, "a format has an unknown kind");
    }
    if (!named && !take_next(&v, b->run, values)) return false;
    if (s.left) s.zeros = false;
    return put_value(b, &s, v);
}

bool jinja_percent(jinja_value *out, jinja_run *r, const jinja_text *t, jinja_value values) {
    bool tuple = values.kind == JINJA_LIST && values.list->shape == JINJA_TUPLE;
    bool dict = values.kind == JINJA_DICT;
    supply s = {.values = tuple ? values.list->items : &values,
                .n = tuple ? values.list->n : 1,
                .dict = dict ? values.dict : NULL};
    jinja_builder b = {.run = r};
    size_t from = 0;
    while (from < t->size) {
        const char *sign = memchr(t->bytes + from, '%', t->size - from);
        size_t at = sign ? (size_t)(sign - t->bytes) : t->size;
        if (!jinja_put_part(&b, t, from, at)) return false;
        from = at;
        if (sign && (from++, !put_directive(&b, t, &from, &s))) return false;
    }
    if (!dict && s.next < s.n) return jinja_fail(r, "not all arguments of a format are used");
    return jinja_finish(out, &b);
}

/* ---- "{}" ------------------------------------------------------------------------------ */

/* [[fill]<|>|^|=][sign][0][width][,][.precision][kind] */
static bool read_spec(style *out, jinja_run *r, const jinja_text *t, size_t at, size_t end) {
    static const char aligns[] = "<>^=";
    jinja_text spec = {.bytes = t->bytes + at, .size = end - at};
    size_t first = jinja_char_at(&spec, 1), i = 0;
    char align = 0;
    if (first < spec.size && strchr(aligns, spec.bytes[first]) && spec.bytes[first]) {
        out->fill = (jinja_text){.bytes = spec.bytes, .size = first};
        align = spec.bytes[first];
        i = first + 1;
    } else if (spec.size > 0 && spec.bytes[0] && strchr(aligns, spec.bytes[0])) {
        align = spec.bytes[i++];
    }
    for (; i < spec.size && strchr("+- ", spec.bytes[i]) && spec.bytes[i]; i++) {
        out->plus |= spec.bytes[i] == '+';
        out->space |= spec.bytes[i] == ' ';
    }
    if (i < spec.size && spec.bytes[i] == '0') out->zeros = !align;
    out->width = read_digits(&spec, &i);
    out->grouped = i < spec.size && spec.bytes[i] == ',';
    i += out->grouped;
    if (i < spec.size && spec.bytes[i] == '.') {
        i++;
        out->precision = read_digits(&spec, &i);
    }
    out->kind = i < spec.size ? spec.bytes[i++] : 0;
    out->left = align == '<';
    out->centre = align == '^';
    bool known = i == spec.size && (!out->kind || strchr("sdxXofFeEgG", out->kind));
    return known || jinja_fail(r, "a format has an unknown kind");
}

/* Without a kind numbers and texts are written as they are. */
static bool put_in_spec(jinja_builder *b, const jinja_text *t, size_t at, size_t end,
                        jinja_value v) {
    style s = {.fill = {.bytes = " ", .size = 1}, .precision = -1};
    if (!read_spec(&s, b->run, t, at, end)) return false;
    bool number = jinja_is_number(v) && v.kind != JINJA_BOOL;
    bool aligned = s.left || s.centre || (end > at && memchr(t->bytes + at, '>', end - at));
    if (!s.kind) {
        bool plain = !number || (v.kind == JINJA_FLOAT && s.precision < 0 && !s.grouped);
        s.kind = plain ? 's' : v.kind == JINJA_FLOAT ? 'g' : 'd';
        if (v.kind == JINJA_FLOAT && s.grouped && s.precision < 0) s.kind = 'g';
    }
    if (s.kind == 's' && !number && !aligned) s.left = true; /* as Python aligns texts */
    if (s.kind == 's') s.zeros = false;
    return put_value(b, &s, v);
}

/* The value of "name", "0" or "", then ".attribute" and "[item]". */
static bool take_field(jinja_value *out, jinja_run *r, const jinja_args *args, size_t *next,
                       const jinja_text *t, size_t at, size_t end) {
    size_t stop = at;
    while (stop < end && t->bytes[stop] != '.' && t->bytes[stop] != '[') stop++;
    bool found = false;
    if (stop == at || is_digit(t, at)) {
        size_t i = at, index = stop == at ? (*next)++ : (size_t)read_digits(t, &i);
        found = index < args->n;
        if (found) *out = args->values[index];
    }
    for (size_t i = 0; i < args->n_named && !found; i++) {
        found = strlen(args->names[i]) == stop - at &&
                memcmp(args->names[i], t->bytes + at, stop - at) == 0;
        if (found) *out = args->named[i];
    }
    if (!found) return jinja_fail(r, "a format has a field without a value");
    while (stop < end) {
        bool item = t->bytes[stop++] == '[';
        size_t begin = stop;
        while (stop < end && !strchr(item ? "]" : ".[", t->bytes[stop])) stop++;
        jinja_value key;
        size_t i = begin;
        if (!jinja_part(&key, r, t, begin, stop)) return false;
        if (item && is_digit(t, begin)) key = jinja_int(read_digits(t, &i));
        if (!jinja_item(out, r, *out, key)) return false;
        stop += item && stop < end;
    }
    return true;
}

/* "{…}" from its bracket on. */
static bool put_field(jinja_builder *b, const jinja_text *t, size_t *at, const jinja_args *args,
                      size_t *next) {
    const char *close = memchr(t->bytes + *at, '}', t->size - *at);
    jinja_value v;
    if (!close) return jinja_fail(b->run, "expected '}' before end of a format");
    size_t end = (size_t)(close - t->bytes), colon = *at + 1;
    while (colon < end && t->bytes[colon] != ':' && t->bytes[colon] != '!') colon++;
    if (!take_field(&v, b->run, args, next, t, *at + 1, colon)) return false;
    *at = end + 1;
    if (colon + 1 < end && t->bytes[colon] == '!') {
        jinja_builder quoted = {.run = b->run};
        bool shown =
            t->bytes[colon + 1] == 'r' ? jinja_show_quoted(&quoted, v) : jinja_show(&quoted, v);
        if (!shown || !jinja_finish(&v, &quoted)) return false;
        colon += 2;
    }
    return put_in_spec(b, t, colon < end ? colon + 1 : end, end, v);
}

bool jinja_format(jinja_value *out, jinja_run *r, const jinja_text *t, const jinja_args *args) {
    jinja_builder b = {.run = r};
    size_t next = 0, from = 0;
    for (size_t at = 0; at < t->size;) {
        char c = t->bytes[at];
        bool twice = at + 1 < t->size && t->bytes[at + 1] == c;
        if (c != '{' && c != '}') {
            at++;
            continue;
        }
        if (!jinja_put_part(&b, t, from, twice ? at + 1 : at)) return false;
        if (!twice && c == '}') return jinja_fail(r, "single '}' in a format");
        if (twice) {
            at += 2;
        } else if (!put_field(&b, t, &at, args, &next)) {
            return false;
        }
        from = at;
    }
    return jinja_put_part(&b, t, from, t->size) && jinja_finish(out, &b);
}
