/* Operators, attributes and items. */
#include "jinja/run.h"

#include <math.h>
#include <string.h>

/* ---- arithmetic ------------------------------------------------------------------------ */

static const char *const signs[] = {
    [JINJA_ADD] = "+",    [JINJA_SUBTRACT] = "-",      [JINJA_MULTIPLY] = "*",
    [JINJA_DIVIDE] = "/", [JINJA_FLOOR_DIVIDE] = "//", [JINJA_MODULO] = "%",
    [JINJA_POWER] = "**",
};

static bool fail_types(jinja_run *r, jinja_operator op, jinja_value a, jinja_value b) {
    if (a.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, a);
    if (b.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, b);
    return jinja_fail(r, "%s cannot stand between '%s' and '%s'", signs[op], jinja_type(a),
                      jinja_type(b));
}

static bool power(int64_t *out, int64_t base, int64_t exponent) {
    *out = 1;
    for (; exponent > 0; exponent /= 2) {
        if (exponent % 2 && __builtin_mul_overflow(*out, base, out)) return false;
        if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return false;
    }
    return true;
}

/* Rounded down, as Python does; y is neither 0 nor, where x is the least, -1. */
static int64_t floor_divide(int64_t x, int64_t y) {
    return x / y - (x % y != 0 && (x % y < 0) != (y < 0));
}

/* Of y's sign. */
static int64_t modulo(int64_t x, int64_t y) {
    const int64_t rest = x % y;
    return rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
}

static bool operate_ints(jinja_value *out, jinja_run *r, jinja_operator op, int64_t x, int64_t y) {
    int64_t result = 0;
    bool fits = true, divides = op >= JINJA_DIVIDE && op <= JINJA_MODULO;
    if (divides && y == 0) return jinja_fail(r, "division by zero");
    if (op == JINJA_DIVIDE) return *out = jinja_float((double)x / (double)y), true;
    if (op == JINJA_POWER && y < 0) {
        if (x == 0) return jinja_fail(r, "division by zero");
        return *out = jinja_float(pow((double)x, (double)y)), true;
    }
    switch (op) {
    case JINJA_ADD: fits = !__builtin_add_overflow(x, y, &result); break;
    case JINJA_SUBTRACT: fits = !__builtin_sub_overflow(x, y, &result); break;
    case JINJA_MULTIPLY: fits = !__builtin_mul_overflow(x, y, &result); break;
    case JINJA_POWER: fits = power(&result, x, y); break;
    default:
        fits = x != INT64_MIN || y != -1;
        if (fits) result = op == JINJA_MODULO ? modulo(x, y) : floor_divide(x, y);
        break;
    }
    *out = jinja_int(result);
    return fits || jinja_fail(r, "a number is too large");
}

static bool operate_reals(jinja_value *out, jinja_run *r, jinja_operator op, double x, double y) {
    double result = 0;
    bool divides = op >= JINJA_DIVIDE && op <= JINJA_MODULO;
    if (divides && y == 0) return jinja_fail(r, "division by zero");
    switch (op) {
    case JINJA_ADD: result = x + y; break;
    case JINJA_SUBTRACT: result = x - y; break;
    case JINJA_MULTIPLY: result = x * y; break;
    case JINJA_DIVIDE: result = x / y; break;
    case JINJA_FLOOR_DIVIDE: result = floor(x / y); break;
    case JINJA_POWER: result = pow(x, y); break;
    default:
        result = fmod(x, y);
        if (result != 0 && (result < 0) != (y < 0)) result += y;
        break;
    }
    *out = jinja_float(result);
    return true;
}

/* ---- texts and lists ------------------------------------------------------------------- */

static bool add_texts(jinja_value *out, jinja_run *r, const jinja_text *a, const jinja_text *b) {
    jinja_builder builder = {.run = r};
    bool safe = a->safe || b->safe;
    jinja_value escaped;
    if (safe && !(a->safe && b->safe)) { /* what is not safe gets so */
        if (!jinja_escape(&escaped, r, a->safe ? b : a)) return false;
        if (a->safe) {
            b = escaped.text;
        } else {
            a = escaped.text;
        }
    }
    if (!jinja_put_text(&builder, a) || !jinja_put_text(&builder, b)) return false;
    if (!jinja_finish(out, &builder)) return false;
    if (!safe) return true;
    jinja_text *text = jinja_new(r, sizeof *text);
    if (!text) return false;
    *text = *out->text;
    text->safe = true;
    *out = jinja_of_text(text);
    return true;
}

static bool add_lists(jinja_value *out, jinja_run *r, const jinja_list *a, const jinja_list *b) {
    if (!jinja_list_of(out, r, a->shape, a->items, a->n)) return false;
    for (size_t i = 0; i < b->n; i++) {
        if (!jinja_push(r, out->list, b->items[i])) return false;
    }
    return true;
}

static bool repeat(jinja_value *out, jinja_run *r, jinja_value of, int64_t times) {
    jinja_builder b = {.run = r};
    bool text = of.kind == JINJA_TEXT;
    if (!text && !jinja_new_list(out, r, of.list->shape, 0)) return false;
    for (int64_t i = 0; i < times; i++) {
        if (text ? of.text->size == 0 : of.list->n == 0) break;
        if (text && !jinja_put_text(&b, of.text)) return false;
        for (size_t k = 0; !text && k < of.list->n; k++) {
            if (!jinja_push(r, out->list, of.list->items[k])) return false;
        }
    }
    return !text || jinja_finish(out, &b);
}

static bool is_row(jinja_value v) { /* that can be added and repeated */
    return v.kind == JINJA_LIST && v.list->shape <= JINJA_TUPLE;
}

static bool calculate(jinja_value *out, jinja_run *r, jinja_operator op, jinja_value a,
                      jinja_value b) {
    bool times = op == JINJA_MULTIPLY;
    if (jinja_is_number(a) && jinja_is_number(b)) {
        bool real = a.kind == JINJA_FLOAT || b.kind == JINJA_FLOAT;
        if (real) return operate_reals(out, r, op, jinja_as_real(a), jinja_as_real(b));
        return operate_ints(out, r, op, jinja_as_int(a), jinja_as_int(b));
    }
    if (op == JINJA_MODULO && a.kind == JINJA_TEXT) return jinja_percent(out, r, a.text, b);
    if (op == JINJA_ADD && a.kind == JINJA_TEXT && b.kind == JINJA_TEXT) {
        return add_texts(out, r, a.text, b.text);
    }
    if (op == JINJA_ADD && is_row(a) && is_row(b) && a.list->shape == b.list->shape) {
        return add_lists(out, r, a.list, b.list);
    }
    bool counted = jinja_is_number(b) && b.kind != JINJA_FLOAT;
    if (times && counted && (a.kind == JINJA_TEXT || is_row(a))) {
        return repeat(out, r, a, jinja_as_int(b));
    }
    if (times && jinja_is_number(a) && !jinja_is_number(b)) return calculate(out, r, op, b, a);
    return fail_types(r, op, a, b);
}

bool jinja_contains(bool *out, jinja_run *r, jinja_value whole, jinja_value part) {
    const jinja_list *items;
    *out = false;
    if (whole.kind == JINJA_TEXT) {
        if (part.kind != JINJA_TEXT) {
            return jinja_fail(r, "'in' of a text wants a text, not '%s'", jinja_type(part));
        }
        *out = jinja_find(whole.text, 0, part.text) != SIZE_MAX;
        return jinja_spend(r, whole.text->size);
    }
    if (whole.kind == JINJA_DICT) {
        size_t at;
        if (!jinja_find_key(&at, r, whole.dict, part)) return false;
        *out = at < whole.dict->n;
        return true;
    }
    if (whole.kind != JINJA_LIST && whole.kind != JINJA_UNDEFINED) {
        return jinja_fail(r, "'in' wants a list, a dict or a text, not '%s'", jinja_type(whole));
    }
    if (!jinja_items(&items, r, whole)) return false;
    for (size_t i = 0; i < items->n && !*out; i++) {
        if (!jinja_equal(out, r, items->items[i], part)) return false;
    }
    return true;
}

bool jinja_operate(jinja_value *out, jinja_run *r, jinja_operator op, jinja_value a,
                   jinja_value b) {
    bool flag;
    int order = 0;
    if (op <= JINJA_POWER) return calculate(out, r, op, a, b);
    if (op == JINJA_EQUAL || op == JINJA_NOT_EQUAL) {
        if (!jinja_equal(&flag, r, a, b)) return false;
        return *out = jinja_bool(flag == (op == JINJA_EQUAL)), true;
    }
    if (op == JINJA_IN || op == JINJA_NOT_IN) {
        if (!jinja_contains(&flag, r, b, a)) return false;
        return *out = jinja_bool(flag == (op == JINJA_IN)), true;
    }
    if (!jinja_compare(&order, r, a, b)) return false;
    switch (op) {
    case JINJA_BELOW: flag = order == -1; break;
    case JINJA_AT_MOST: flag = order == -1 || order == 0; break;
    case JINJA_ABOVE: flag = order == 1; break;
    default: flag = order == 1 || order == 0; break;
    }
    *out = jinja_bool(flag);
    return true;
}

/* ---- slices ---------------------------------------------------------------------------- */

/* Python's rules: from, to and by of n items; NONE is left out. */
static bool read_bounds(int64_t out[3], jinja_run *r, const jinja_value bounds[3], int64_t n) {
    for (int i = 0; i < 3; i++) {
        bool there = bounds[i].kind != JINJA_NONE;
        if (there && bounds[i].kind != JINJA_INT && bounds[i].kind != JINJA_BOOL) {
            return jinja_fail(r, "slice indices must be integers, not '%s'", jinja_type(bounds[i]));
        }
        out[i] = there ? jinja_as_int(bounds[i]) : 0;
    }
    if (bounds[2].kind == JINJA_NONE) out[2] = 1;
    if (out[2] == 0) return jinja_fail(r, "slice step cannot be zero");
    if (out[2] < -n - 1) out[2] = -n - 1;
    bool back = out[2] < 0;
    int64_t low = back ? -1 : 0, high = back ? n - 1 : n;
    for (int i = 0; i < 2; i++) {
        if (bounds[i].kind == JINJA_NONE) {
            out[i] = (i == 0) == back ? high : low;
        } else if (out[i] < 0) {
            out[i] = out[i] < low - n ? low : cca_max(out[i] + n, low);
        } else {
            out[i] = cca_min(out[i], high);
        }
    }
    return true;
}

static bool slice_list(jinja_value *out, jinja_run *r, const jinja_list *list, const int64_t b[3]) {
    if (!jinja_new_list(out, r, list->shape, 0)) return false;
    for (int64_t i = b[0]; b[2] > 0 ? i < b[1] : i > b[1];) {
        if (!jinja_push(r, out->list, list->items[i])) return false;
        if (__builtin_add_overflow(i, b[2], &i)) break;
    }
    return true;
}

static bool slice_text(jinja_value *out, jinja_run *r, const jinja_text *text, const int64_t b[3]) {
    jinja_value chars;
    jinja_builder builder = {.run = r};
    if (!jinja_spend(r, text->size)) return false;
    if (b[2] == 1) {
        size_t from = jinja_char_at(text, (size_t)b[0]), to = jinja_char_at(text, (size_t)b[1]);
        return jinja_part(out, r, text, from, to < from ? from : to);
    }
    const jinja_list *all;
    if (!jinja_items(&all, r, jinja_of_text(text)) || !slice_list(&chars, r, all, b)) return false;
    for (size_t i = 0; i < chars.list->n; i++) {
        if (!jinja_put_text(&builder, chars.list->items[i].text)) return false;
    }
    return jinja_finish(out, &builder);
}

static bool missing_item(jinja_value *out, jinja_run *r, jinja_value owner, const char *name,
                         size_t size) {
    jinja_missing *missing = jinja_new(r, sizeof *missing);
    if (!missing) return false;
    *missing = (jinja_missing){jinja_type(owner), name, size};
    *out = (jinja_value){.kind = JINJA_UNDEFINED, .missing = missing};
    return true;
}

bool jinja_slice(jinja_value *out, jinja_run *r, jinja_value of, const jinja_value bounds[3]) {
    int64_t n, b[3];
    bool text = of.kind == JINJA_TEXT;
    if (of.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, of);
    if (!text && !(of.kind == JINJA_LIST && of.list->shape <= JINJA_RANGE)) {
        return missing_item(out, r, of, "slice", 5);
    }
    if (!jinja_length(&n, r, of) || !read_bounds(b, r, bounds, n)) return false;
    return text ? slice_text(out, r, of.text, b) : slice_list(out, r, of.list, b);
}

/* ---- attributes and items -------------------------------------------------------------- */

static bool method(jinja_value *out, jinja_run *r, jinja_value owner, const char *name, size_t size,
                   bool *found) {
    jinja_function *call;
    *found = jinja_find_method(&call, owner, name, size);
    if (!*found) return true;
    jinja_method *m = jinja_new(r, sizeof *m);
    if (!m) return false;
    *m = (jinja_method){.call = call, .self = owner};
    *out = (jinja_value){.kind = JINJA_METHOD, .method = m};
    return true;
}

static const jinja_value *key_of(const jinja_dict *dict, const char *name, size_t size) {
    for (size_t i = 0; i < dict->n; i++) {
        const jinja_text *key = dict->keys[i].kind == JINJA_TEXT ? dict->keys[i].text : NULL;
        bool same = key && key->size == size && memcmp(key->bytes, name, size) == 0;
        if (same) return &dict->values[i];
    }
    return NULL;
}

bool jinja_attribute(jinja_value *out, jinja_run *r, jinja_value owner, const char *name,
                     size_t size) {
    bool found = false;
    if (owner.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, owner);
    if (owner.kind == JINJA_LOOP) return jinja_loop_attribute(out, r, owner, name, size);
    if (!method(out, r, owner, name, size, &found) || found) return found;
    bool has = owner.kind == JINJA_DICT || owner.kind == JINJA_NAMESPACE;
    if (has && !jinja_spend(r, 4 * owner.dict->n)) return false;
    const jinja_value *value = has ? key_of(owner.dict, name, size) : NULL;
    return value ? (*out = *value, true) : missing_item(out, r, owner, name, size);
}

/* The item at an index, which may count from the end. */
static bool indexed(jinja_value *out, jinja_run *r, jinja_value owner, int64_t index) {
    int64_t n;
    bool text = owner.kind == JINJA_TEXT;
    if (!jinja_length(&n, r, owner)) return false;
    if (index < 0) index += n;
    if (index < 0 || index >= n) return missing_item(out, r, owner, "index", 5);
    if (!text) return *out = owner.list->items[index], true;
    size_t from = jinja_char_at(owner.text, (size_t)index), to = from;
    jinja_text rest = {.bytes = owner.text->bytes + from, .size = owner.text->size - from};
    to += jinja_char_at(&rest, 1);
    return jinja_part(out, r, owner.text, from, to);
}

bool jinja_item(jinja_value *out, jinja_run *r, jinja_value owner, jinja_value key) {
    bool row =
        owner.kind == JINJA_TEXT || (owner.kind == JINJA_LIST && owner.list->shape <= JINJA_RANGE);
    if (owner.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, owner);
    if (row && (key.kind == JINJA_INT || key.kind == JINJA_BOOL)) {
        return indexed(out, r, owner, jinja_as_int(key));
    }
    bool hashable =
        key.kind == JINJA_LIST ? key.list->shape == JINJA_TUPLE : key.kind != JINJA_DICT;
    if (owner.kind == JINJA_DICT && hashable) {
        size_t at;
        if (!jinja_find_key(&at, r, owner.dict, key)) return false;
        if (at < owner.dict->n) return *out = owner.dict->values[at], true;
    }
    if (key.kind == JINJA_TEXT) {
        return jinja_attribute(out, r, owner, key.text->bytes, key.text->size);
    }
    return missing_item(out, r, owner, "item", 4);
}

/* One step of a path. */
static bool step(jinja_value *out, jinja_run *r, jinja_value key, const jinja_value *otherwise) {
    if (!jinja_item(out, r, *out, key)) return false;
    if (out->kind == JINJA_UNDEFINED && otherwise) *out = *otherwise;
    return true;
}

bool jinja_path(jinja_value *out, jinja_run *r, jinja_value from, jinja_value path,
                const jinja_value *otherwise) {
    *out = from;
    if (path.kind == JINJA_INT) return step(out, r, path, otherwise);
    const jinja_text *text;
    if (!jinja_text_arg(&text, r, path, "attribute")) return false;
    for (size_t at = 0, end; at <= text->size; at = end + 1) {
        jinja_value key;
        const char *dot = at < text->size ? memchr(text->bytes + at, '.', text->size - at) : NULL;
        end = dot ? (size_t)(dot - text->bytes) : text->size;
        if (!jinja_part(&key, r, text, at, end)) return false;
        bool digits = end > at && end - at < 10;
        int64_t index = 0;
        for (size_t i = at; i < end && digits; i++) {
            digits = text->bytes[i] >= '0' && text->bytes[i] <= '9';
            index = 10 * index + (text->bytes[i] - '0');
        }
        if (digits) key = jinja_int(index);
        if (!step(out, r, key, otherwise)) return false;
    }
    return true;
}
