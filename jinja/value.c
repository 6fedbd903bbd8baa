#include "jinja/value.h"

#include "jinja/run.h"
#include "jinja/space.h"

#include <math.h>
#include <string.h>

/* ---- making ---------------------------------------------------------------------------- */

bool jinja_words(jinja_value *out, jinja_run *r, const char *bytes, size_t size) {
    jinja_text *text = jinja_new(r, sizeof *text);
    if (!text) return false;
    *text = (jinja_text){.bytes = bytes, .size = size};
    *out = jinja_of_text(text);
    return true;
}

bool jinja_new_list(jinja_value *out, jinja_run *r, jinja_shape shape, size_t capacity) {
    jinja_list *list = jinja_new(r, sizeof *list);
    size_t bytes;
    if (!list) return false;
    if (!cca_mul(&bytes, capacity, sizeof *list->items)) bytes = SIZE_MAX;
    list->shape = shape;
    list->items = capacity ? jinja_new(r, bytes) : NULL;
    list->capacity = capacity;
    *out = (jinja_value){.kind = JINJA_LIST, .list = list};
    return capacity == 0 || list->items;
}

bool jinja_push(jinja_run *r, jinja_list *list, jinja_value item) {
    jinja_value *grown =
        jinja_grow(&r->region, list->items, list->n, &list->capacity, sizeof *grown);
    if (!grown) return jinja_no_memory(r);
    list->items = grown;
    list->items[list->n++] = item;
    return jinja_spend(r, 1);
}

bool jinja_list_of(jinja_value *out, jinja_run *r, jinja_shape shape, const jinja_value *items,
                   size_t n) {
    if (!jinja_spend(r, n * sizeof *items) || !jinja_new_list(out, r, shape, n)) return false;
    if (n > 0) memcpy(out->list->items, items, n * sizeof *items);
    out->list->n = n;
    return true;
}

bool jinja_new_dict(jinja_value *out, jinja_run *r) {
    *out = (jinja_value){.kind = JINJA_DICT, .dict = jinja_new(r, sizeof *out->dict)};
    return out->dict;
}

/* ---- dicts ----------------------------------------------------------------------------- */

static bool can_be_key(jinja_value v) {
    if (v.kind == JINJA_LIST) {
        if (v.list->shape != JINJA_TUPLE) return v.list->shape == JINJA_RANGE;
        for (size_t i = 0; i < v.list->n; i++) {
            /* One level is enough: deeper ones are compared like the others. */
            if (v.list->items[i].kind == JINJA_DICT) return false;
        }
        return true;
    }
    return v.kind != JINJA_DICT;
}

bool jinja_find_key(size_t *out, jinja_run *r, const jinja_dict *dict, jinja_value key) {
    bool same = false;
    if (!can_be_key(key)) return jinja_fail(r, "unhashable type: '%s'", jinja_type(key));
    if (!jinja_spend(r, 4 * dict->n)) return false;
    for (*out = 0; *out < dict->n; ++*out) {
        const jinja_value *other = &dict->keys[*out];
        if (key.kind == JINJA_TEXT) { /* nearly always */
            same = other->kind == JINJA_TEXT && other->text->size == key.text->size &&
                   memcmp(other->text->bytes, key.text->bytes, key.text->size) == 0;
        } else if (!jinja_equal(&same, r, *other, key)) {
            return false;
        }
        if (same) return true;
    }
    return true;
}

bool jinja_set_key(jinja_run *r, jinja_dict *dict, jinja_value key, jinja_value value) {
    size_t at = 0;
    if (!jinja_find_key(&at, r, dict, key)) return false;
    if (at < dict->n) return dict->values[at] = value, true;
    jinja_value *keys =
        jinja_grow(&r->region, dict->keys, dict->n, &dict->keys_capacity, sizeof *keys);
    jinja_value *values =
        jinja_grow(&r->region, dict->values, dict->n, &dict->values_capacity, sizeof *values);
    if (keys) dict->keys = keys;
    if (values) dict->values = values;
    if (!keys || !values) return jinja_no_memory(r);
    keys[dict->n] = key;
    values[dict->n++] = value;
    return true;
}

void jinja_drop_key(jinja_dict *dict, size_t index) {
    size_t rest = --dict->n - index;
    memmove(&dict->keys[index], &dict->keys[index + 1], rest * sizeof *dict->keys);
    memmove(&dict->values[index], &dict->values[index + 1], rest * sizeof *dict->values);
}

const jinja_value *jinja_get(const jinja_dict *dict, const char *name) {
    for (size_t i = 0; i < dict->n; i++) {
        if (dict->keys[i].kind == JINJA_TEXT && jinja_is(dict->keys[i].text, name)) {
            return &dict->values[i];
        }
    }
    return NULL;
}

bool jinja_keys(jinja_value *out, jinja_run *r, const jinja_dict *dict, jinja_shape shape) {
    return jinja_list_of(out, r, shape, dict->keys, dict->n);
}

bool jinja_values(jinja_value *out, jinja_run *r, const jinja_dict *dict, jinja_shape shape) {
    return jinja_list_of(out, r, shape, dict->values, dict->n);
}

bool jinja_pairs(jinja_value *out, jinja_run *r, const jinja_dict *dict, jinja_shape shape) {
    if (!jinja_new_list(out, r, shape, dict->n)) return false;
    for (size_t i = 0; i < dict->n; i++) {
        jinja_value pair[2] = {dict->keys[i], dict->values[i]}, tuple;
        if (!jinja_list_of(&tuple, r, JINJA_TUPLE, pair, 2)) return false;
        out->list->items[out->list->n++] = tuple;
    }
    return true;
}

/* ---- facts ----------------------------------------------------------------------------- */

const char *jinja_type(jinja_value v) {
    static const char *const shapes[] = {"list", "tuple", "range", "dict view", "generator"};
    switch (v.kind) {
    case JINJA_UNDEFINED: return "Undefined";
    case JINJA_NONE: return "NoneType";
    case JINJA_BOOL: return "bool";
    case JINJA_INT: return "int";
    case JINJA_FLOAT: return "float";
    case JINJA_TEXT: return "str";
    case JINJA_LIST: return shapes[v.list->shape];
    case JINJA_DICT: return "dict";
    case JINJA_NAMESPACE: return "Namespace";
    case JINJA_LOOP: return "LoopContext";
    case JINJA_MACRO: return "Macro";
    case JINJA_METHOD: return "method";
    case JINJA_GLOBAL: return "function";
    case JINJA_CYCLER: return "Cycler";
    case JINJA_JOINER: return "Joiner";
    }
    return "object";
}

bool jinja_is_true(jinja_value v) {
    switch (v.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE: return false;
    case JINJA_BOOL: return v.flag;
    case JINJA_INT: return v.integer != 0;
    case JINJA_FLOAT: return v.real != 0;
    case JINJA_TEXT: return v.text->size > 0;
    case JINJA_LIST: return v.list->n > 0 || v.list->shape == JINJA_GENERATOR;
    case JINJA_DICT: return v.dict->n > 0;
    default: return true;
    }
}

bool jinja_is_number(jinja_value v) {
    return v.kind == JINJA_BOOL || v.kind == JINJA_INT || v.kind == JINJA_FLOAT;
}

double jinja_as_real(jinja_value v) {
    return v.kind == JINJA_FLOAT ? v.real : (double)jinja_as_int(v);
}

int64_t jinja_as_int(jinja_value v) {
    return v.kind == JINJA_BOOL ? v.flag : v.integer;
}

bool jinja_length(int64_t *out, jinja_run *r, jinja_value v) {
    *out = 0;
    switch (v.kind) {
    case JINJA_UNDEFINED: return true;
    case JINJA_TEXT: *out = (int64_t)jinja_n_chars(v.text); return jinja_spend(r, v.text->size);
    case JINJA_DICT: *out = (int64_t)v.dict->n; return true;
    case JINJA_LIST:
        if (v.list->shape == JINJA_GENERATOR) break;
        *out = (int64_t)v.list->n;
        return true;
    default: break;
    }
    return jinja_fail(r, "object of type '%s' has no len()", jinja_type(v));
}

/* ---- comparison ------------------------------------------------------------------------ */

static bool equal_lists(bool *out, jinja_run *r, const jinja_list *a, const jinja_list *b) {
    *out = a->shape == b->shape && a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++) {
        if (!jinja_equal(out, r, a->items[i], b->items[i])) return false;
    }
    return true;
}

static bool equal_dicts(bool *out, jinja_run *r, const jinja_dict *a, const jinja_dict *b) {
    *out = a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++) {
        size_t at;
        if (!jinja_find_key(&at, r, b, a->keys[i])) return false;
        *out = at < b->n;
        if (*out && !jinja_equal(out, r, a->values[i], b->values[at])) return false;
    }
    return true;
}

static bool equal_insides(bool *out, jinja_run *r, jinja_value a, jinja_value b) {
    if (a.kind == JINJA_DICT) return equal_dicts(out, r, a.dict, b.dict);
    bool same_only = a.list->shape == JINJA_GENERATOR || a.list->shape == JINJA_VIEW;
    if (same_only) return *out = a.list == b.list, true;
    return equal_lists(out, r, a.list, b.list);
}

bool jinja_equal(bool *out, jinja_run *r, jinja_value a, jinja_value b) {
    *out = false;
    if (!jinja_spend(r, 1)) return false;
    if (jinja_is_number(a) && jinja_is_number(b)) {
        bool whole = a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT;
        *out = whole ? jinja_as_int(a) == jinja_as_int(b) : jinja_as_real(a) == jinja_as_real(b);
        return true;
    }
    if (a.kind != b.kind) return true;
    switch (a.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE: *out = true; return true;
    case JINJA_TEXT:
        *out =
            a.text->size == b.text->size && memcmp(a.text->bytes, b.text->bytes, a.text->size) == 0;
        return !*out || jinja_spend(r, a.text->size);
    case JINJA_LIST:
    case JINJA_DICT: break;
    default: *out = a.dict == b.dict; return true; /* the same thing */
    }
    if (!jinja_enter(r)) return false;
    bool done = equal_insides(out, r, a, b);
    jinja_leave(r);
    return done;
}

static int compare_texts(const jinja_text *a, const jinja_text *b) {
    size_t n = a->size < b->size ? a->size : b->size;
    int order = memcmp(a->bytes, b->bytes, n);
    if (order == 0) return a->size < b->size ? -1 : a->size > b->size;
    return order < 0 ? -1 : 1;
}

static bool compare_lists(int *out, jinja_run *r, const jinja_list *a, const jinja_list *b) {
    bool same = true;
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        if (!jinja_equal(&same, r, a->items[i], b->items[i])) return false;
        if (!same) return jinja_compare(out, r, a->items[i], b->items[i]);
    }
    *out = a->n < b->n ? -1 : a->n > b->n;
    return true;
}

bool jinja_compare(int *out, jinja_run *r, jinja_value a, jinja_value b) {
    if (!jinja_spend(r, 1)) return false;
    if (jinja_is_number(a) && jinja_is_number(b)) {
        if (a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT) {
            int64_t x = jinja_as_int(a), y = jinja_as_int(b);
            *out = x < y ? -1 : x > y;
        } else {
            double x = jinja_as_real(a), y = jinja_as_real(b);
            *out = x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
        }
        return true;
    }
    if (a.kind == JINJA_TEXT && b.kind == JINJA_TEXT) {
        *out = compare_texts(a.text, b.text);
        return true;
    }
    bool lists = a.kind == JINJA_LIST && b.kind == JINJA_LIST && a.list->shape == b.list->shape &&
                 a.list->shape <= JINJA_TUPLE;
    if (a.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, a);
    if (b.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, b);
    if (!lists) {
        return jinja_fail(r, "'%s' and '%s' have no order", jinja_type(a), jinja_type(b));
    }
    if (!jinja_enter(r)) return false;
    bool done = compare_lists(out, r, a.list, b.list);
    jinja_leave(r);
    return done;
}

/* ---- going over ------------------------------------------------------------------------ */

static bool characters(jinja_value *out, jinja_run *r, const jinja_text *text) {
    size_t length;
    if (!jinja_new_list(out, r, JINJA_PLAIN, 0)) return false;
    for (size_t at = 0; at < text->size; at += length) {
        jinja_value c;
        length = jinja_char_length(text->bytes + at, text->size - at);
        if (!jinja_part(&c, r, text, at, at + length) || !jinja_push(r, out->list, c)) return false;
    }
    return true;
}

bool jinja_items(const jinja_list **out, jinja_run *r, jinja_value v) {
    jinja_value row = v;
    bool done = true;
    switch (v.kind) {
    case JINJA_UNDEFINED: done = jinja_new_list(&row, r, JINJA_PLAIN, 0); break;
    case JINJA_TEXT: done = characters(&row, r, v.text); break;
    case JINJA_DICT: done = jinja_keys(&row, r, v.dict, JINJA_PLAIN); break;
    case JINJA_LIST:
        if (v.list->shape == JINJA_PLAIN) { /* which may change meanwhile */
            done = jinja_list_of(&row, r, JINJA_PLAIN, v.list->items, v.list->n);
        } else if (v.list->shape == JINJA_GENERATOR) {
            done =
                jinja_list_of(&row, r, JINJA_PLAIN, v.list->items, v.list->taken ? 0 : v.list->n);
            v.list->taken = true;
        }
        break;
    default: return jinja_fail(r, "'%s' object is not iterable", jinja_type(v));
    }
    *out = row.list;
    return done;
}

bool jinja_fail_missing(jinja_run *r, jinja_value v) {
    const jinja_missing *m = v.missing;
    int size = m->size > 100 ? 100 : (int)m->size;
    if (!m->name) return jinja_fail(r, "%s", m->owner);
    if (!m->owner) return jinja_fail(r, "'%.*s' is undefined", size, m->name);
    return jinja_fail(r, "'%s object' has no attribute '%.*s'", m->owner, size, m->name);
}
