/* Values as text: as Python's str(), repr() and json.dumps() write them. */
#include "base/utf8.h"
#include "jinja/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- numbers --------------------------------------------------------------------------- */

/* The shortest digits that give x again; with a point or an exponent, as Python chooses. */
void jinja_show_real(char out[JINJA_REAL_TEXT], double x) {
    char digits[JINJA_REAL_TEXT];
    if (!isfinite(x)) {
        snprintf(out, JINJA_REAL_TEXT, "%s", isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
        return;
    }
    int precision = 1;
    do {
        snprintf(digits, sizeof digits, "%.*e", precision - 1, x);
    } while (strtod(digits, NULL) != x && precision++ < 17);
    int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        snprintf(out, JINJA_REAL_TEXT, "%s", digits);
        return;
    }
    int places = precision - 1 - exponent;
    snprintf(out, JINJA_REAL_TEXT, "%.*f", places > 1 ? places : 1, x);
}

static bool put_number(jinja_builder *b, jinja_value v) {
    char text[JINJA_REAL_TEXT];
    if (v.kind == JINJA_FLOAT) {
        jinja_show_real(text, v.real);
    } else {
        snprintf(text, sizeof text, "%lld", (long long)v.integer);
    }
    return jinja_put_words(b, text);
}

/* ---- str() and repr() ------------------------------------------------------------------ */

static bool is_printable(uint32_t code) {
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    case UTF8PROC_CATEGORY_ZS: return code == ' ';
    default: return true;
    }
}

/* A character as it stands between quotes; its size, 0 for as it is. */
static size_t quote_char(char out[16], uint32_t code, char quote) {
    if (code == '\\' || code == (unsigned char)quote) {
        return (size_t)snprintf(out, 16, "\\%c", (char)code);
    }
    if (code == '\n' || code == '\r' || code == '\t') {
        return (size_t)snprintf(out, 16, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
    }
    if (is_printable(code)) return 0;
    if (code < 0x100) return (size_t)snprintf(out, 16, "\\x%02x", code);
    return (size_t)snprintf(out, 16, code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
}

static bool quote_text(jinja_builder *b, const jinja_text *text) {
    size_t size = text->size, length;
    bool single = size > 0 && memchr(text->bytes, '\'', size);
    char quote = single && !memchr(text->bytes, '"', size) ? '"' : '\'';
    if (!jinja_put(b, &quote, 1)) return false;
    for (size_t at = 0; at < size; at += length) {
        uint32_t code;
        char bytes[16];
        bool whole = cca_utf8_next(&code, &length, text->bytes + at, size - at) == CCA_UTF8_WHOLE;
        if (!whole) length = 1;
        size_t n = whole ? quote_char(bytes, code, quote) : 0;
        if (n ? !jinja_put_for(b, bytes, n, text, at) : !jinja_put_part(b, text, at, at + length)) {
            return false;
        }
    }
    return jinja_put(b, &quote, 1);
}

static bool show_items(jinja_builder *b, const jinja_value *items, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && !jinja_put_words(b, ", ")) return false;
        if (!jinja_show_quoted(b, items[i])) return false;
    }
    return true;
}

static bool show_list(jinja_builder *b, const jinja_list *list) {
    char text[80];
    int64_t last = -1;
    switch (list->shape) {
    case JINJA_PLAIN:
        return jinja_put_words(b, "[") && show_items(b, list->items, list->n) &&
               jinja_put_words(b, "]");
    case JINJA_TUPLE:
        return jinja_put_words(b, "(") && show_items(b, list->items, list->n) &&
               jinja_put_words(b, list->n == 1 ? ",)" : ")");
    case JINJA_RANGE:
        if (list->n > 0) last = list->items[list->n - 1].integer;
        snprintf(text, sizeof text, "range(%lld, %lld)",
                 list->n ? (long long)list->items[0].integer : 0,
                 (long long)last + (last < INT64_MAX));
        return jinja_put_words(b, text);
    case JINJA_VIEW:
        return jinja_put_words(b, "dict_view([") && show_items(b, list->items, list->n) &&
               jinja_put_words(b, "])");
    case JINJA_GENERATOR: break;
    }
    return jinja_put_words(b, "<generator>");
}

static bool show_dict(jinja_builder *b, const jinja_dict *dict) {
    if (!jinja_put_words(b, "{")) return false;
    for (size_t i = 0; i < dict->n; i++) {
        if ((i > 0 && !jinja_put_words(b, ", ")) || !jinja_show_quoted(b, dict->keys[i]) ||
            !jinja_put_words(b, ": ") || !jinja_show_quoted(b, dict->values[i])) {
            return false;
        }
    }
    return jinja_put_words(b, "}");
}

static bool show_other(jinja_builder *b, jinja_value v) {
    char text[64];
    if (v.kind == JINJA_NAMESPACE) {
        return jinja_put_words(b, "<Namespace ") && show_dict(b, v.dict) && jinja_put_words(b, ">");
    }
    snprintf(text, sizeof text, "<%s>", jinja_type(v));
    return jinja_put_words(b, text);
}

static bool show_insides(jinja_builder *b, jinja_value v) {
    if (v.kind == JINJA_LIST) return show_list(b, v.list);
    return v.kind == JINJA_DICT ? show_dict(b, v.dict) : show_other(b, v);
}

bool jinja_show(jinja_builder *b, jinja_value v) {
    switch (v.kind) {
    case JINJA_UNDEFINED: return true;
    case JINJA_NONE: return jinja_put_words(b, "None");
    case JINJA_BOOL: return jinja_put_words(b, v.flag ? "True" : "False");
    case JINJA_INT:
    case JINJA_FLOAT: return put_number(b, v);
    case JINJA_TEXT: return jinja_put_text(b, v.text);
    default: break;
    }
    if (!jinja_enter(b->run)) return false;
    bool done = jinja_spend(b->run, 1) && show_insides(b, v);
    jinja_leave(b->run);
    return done;
}

bool jinja_show_quoted(jinja_builder *b, jinja_value v) {
    if (v.kind == JINJA_UNDEFINED) return jinja_put_words(b, "Undefined");
    if (v.kind != JINJA_TEXT) return jinja_show(b, v);
    if (!v.text->safe) return quote_text(b, v.text);
    return jinja_put_words(b, "Markup(") && quote_text(b, v.text) && jinja_put_words(b, ")");
}

bool jinja_to_text(const jinja_text **out, jinja_run *r, jinja_value v) {
    jinja_builder b = {.run = r};
    jinja_value text = v;
    if (v.kind != JINJA_TEXT && !(jinja_show(&b, v) && jinja_finish(&text, &b))) return false;
    *out = text.text;
    return true;
}

/* ---- JSON ------------------------------------------------------------------------------ */

typedef struct js_style {
    const jinja_text *indent; /* of one level; NULL: all in one line */
    const jinja_text *between, *behind_key;
    bool ascii, sorted;
} js_style;

static bool js_value(jinja_builder *b, const js_style *style, jinja_value v, int level);

static size_t js_char(char out[16], uint32_t code, bool ascii) {
    static const char special[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
    const char *found = code && code < 0x80 ? strchr(special, (int)code) : NULL;
    if (found) return (size_t)snprintf(out, 16, "\\%c", letters[found - special]);
    if (code >= 0x20 && (code < 0x7f || !ascii)) return 0;
    if (code < 0x10000) return (size_t)snprintf(out, 16, "\\u%04x", code);
    code -= 0x10000;
    return (size_t)snprintf(out, 16, "\\u%04x\\u%04x", 0xd800 + (code >> 10),
                            0xdc00 + (code & 0x3ff));
}

static bool js_text(jinja_builder *b, const js_style *style, const jinja_text *text) {
    size_t length;
    if (!jinja_put_words(b, "\"")) return false;
    for (size_t at = 0; at < text->size; at += length) {
        uint32_t code;
        char bytes[16];
        bool whole =
            cca_utf8_next(&code, &length, text->bytes + at, text->size - at) == CCA_UTF8_WHOLE;
        if (!whole) length = 1;
        size_t n = whole ? js_char(bytes, code, style->ascii) : 0;
        if (n ? !jinja_put_for(b, bytes, n, text, at) : !jinja_put_part(b, text, at, at + length)) {
            return false;
        }
    }
    return jinja_put_words(b, "\"");
}

static bool js_real(jinja_builder *b, double x) {
    if (isfinite(x)) return put_number(b, jinja_float(x));
    return jinja_put_words(b, isnan(x) ? "NaN" : x < 0 ? "-Infinity" : "Infinity");
}

static bool js_break(jinja_builder *b, const js_style *style, int level) {
    if (!style->indent) return true;
    if (!jinja_put_words(b, "\n")) return false;
    for (int i = 0; i < level; i++) {
        if (!jinja_put_text(b, style->indent)) return false;
    }
    return true;
}

static bool js_key(jinja_builder *b, const js_style *style, jinja_value key) {
    if (key.kind == JINJA_TEXT) return js_text(b, style, key.text);
    if (key.kind != JINJA_NONE && !jinja_is_number(key)) {
        return jinja_fail(b->run, "a key of type %s cannot be written as JSON", jinja_type(key));
    }
    return jinja_put_words(b, "\"") && js_value(b, style, key, 0) && jinja_put_words(b, "\"");
}

/* The indexes of the keys in their order. */
static bool sort_keys(size_t *order, jinja_run *r, const jinja_dict *dict) {
    for (size_t i = 0; i < dict->n; i++) {
        size_t at = i;
        for (; at > 0; at--) {
            int below;
            if (!jinja_compare(&below, r, dict->keys[i], dict->keys[order[at - 1]])) return false;
            if (below >= 0) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    return true;
}

static bool js_dict(jinja_builder *b, const js_style *style, const jinja_dict *dict, int level) {
    if (dict->n == 0) return jinja_put_words(b, "{}");
    size_t *order = style->sorted ? jinja_new(b->run, dict->n * sizeof *order) : NULL;
    if (style->sorted && !(order && sort_keys(order, b->run, dict))) return false;
    if (!jinja_put_words(b, "{")) return false;
    for (size_t i = 0; i < dict->n; i++) {
        size_t at = order ? order[i] : i;
        if ((i > 0 && !jinja_put_text(b, style->between)) || !js_break(b, style, level + 1) ||
            !js_key(b, style, dict->keys[at]) || !jinja_put_text(b, style->behind_key) ||
            !js_value(b, style, dict->values[at], level + 1)) {
            return false;
        }
    }
    return js_break(b, style, level) && jinja_put_words(b, "}");
}

static bool js_list(jinja_builder *b, const js_style *style, const jinja_list *list, int level) {
    if (list->n == 0) return jinja_put_words(b, "[]");
    if (!jinja_put_words(b, "[")) return false;
    for (size_t i = 0; i < list->n; i++) {
        if ((i > 0 && !jinja_put_text(b, style->between)) || !js_break(b, style, level + 1) ||
            !js_value(b, style, list->items[i], level + 1)) {
            return false;
        }
    }
    return js_break(b, style, level) && jinja_put_words(b, "]");
}

static bool js_insides(jinja_builder *b, const js_style *style, jinja_value v, int level) {
    bool row = v.kind == JINJA_LIST && v.list->shape <= JINJA_TUPLE;
    if (row) return js_list(b, style, v.list, level);
    if (v.kind == JINJA_DICT) return js_dict(b, style, v.dict, level);
    return jinja_fail(b->run, "Object of type %s is not JSON serializable", jinja_type(v));
}

static bool js_value(jinja_builder *b, const js_style *style, jinja_value v, int level) {
    switch (v.kind) {
    case JINJA_NONE: return jinja_put_words(b, "null");
    case JINJA_BOOL: return jinja_put_words(b, v.flag ? "true" : "false");
    case JINJA_INT: return put_number(b, v);
    case JINJA_FLOAT: return js_real(b, v.real);
    case JINJA_TEXT: return js_text(b, style, v.text);
    default: break;
    }
    if (!jinja_enter(b->run)) return false;
    bool done = jinja_spend(b->run, 1) && js_insides(b, style, v, level);
    jinja_leave(b->run);
    return done;
}

/* A number of spaces, or a text, for each level. */
static bool read_indent(js_style *style, jinja_run *r, jinja_value v) {
    enum { MOST_SPACES = 64 };
    static const char spaces[MOST_SPACES + 1] =
        "                                                                ";
    jinja_value text = v;
    if (v.kind == JINJA_NONE || v.kind == JINJA_UNDEFINED) return true;
    if (v.kind != JINJA_TEXT) {
        int64_t n;
        if (!jinja_int_arg(&n, r, v, "indent", 0)) return false;
        n = n < 0 ? 0 : n > MOST_SPACES ? MOST_SPACES : n;
        if (!jinja_words(&text, r, spaces, (size_t)n)) return false;
    }
    style->indent = text.text;
    return true;
}

static bool read_separators(js_style *style, jinja_run *r, jinja_value v) {
    jinja_value between, behind;
    if (v.kind == JINJA_LIST && v.list->n == 2) {
        between = v.list->items[0];
        behind = v.list->items[1];
    } else if (v.kind != JINJA_NONE && v.kind != JINJA_UNDEFINED) {
        return jinja_fail(r, "tojson: separators are two texts");
    } else if (!jinja_words(&between, r, style->indent ? "," : ", ", style->indent ? 1 : 2) ||
               !jinja_words(&behind, r, ": ", 2)) {
        return false;
    }
    return jinja_text_arg(&style->between, r, between, "separators") &&
           jinja_text_arg(&style->behind_key, r, behind, "separators");
}

bool jinja_show_json(jinja_value *out, jinja_run *r, jinja_value v, const jinja_args *args) {
    jinja_value bound[4];
    js_style style = {0};
    jinja_builder b = {.run = r};
    if (!jinja_bind(bound, r, args, "tojson", "ensure_ascii,indent,separators,sort_keys")) {
        return false;
    }
    style.ascii = jinja_is_true(bound[0]);
    style.sorted = jinja_is_true(bound[3]);
    return read_indent(&style, r, bound[1]) && read_separators(&style, r, bound[2]) &&
           js_value(&b, &style, v, 0) && jinja_finish(out, &b);
}
