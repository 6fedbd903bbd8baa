/* Filters over single values, tests, and how both are found. */
#include "jinja/run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jinja/space.h"

/* ---- numbers --------------------------------------------------------------------------- */

/* A text without white space around it as a C string; false where it is too long for a number. */
static bool number_text(char out[128], const jinja_text *text) {
    size_t from = jinja_space_at_start(text->bytes, text->size), n = 0;
    size_t to = from + jinja_without_space_at_end(text->bytes + from, text->size - from);
    for (size_t i = from; i < to; i++) {
        bool joins = text->bytes[i] == '_' && i > from && i + 1 < to;
        if (joins) continue;
        if (n == 127 || !text->bytes[i]) return false;
        out[n++] = text->bytes[i];
    }
    out[n] = 0;
    return n > 0;
}

static bool text_to_int(int64_t *out, const jinja_text *text, int64_t base) {
    char digits[128], *end;
    if (base < 0 || base == 1 || base > 36 || !number_text(digits, text)) return false;
    errno = 0;
    *out = strtoll(digits, &end, (int)base);
    return !*end && errno == 0;
}

static bool text_to_real(double *out, const jinja_text *text) {
    char digits[128], *end;
    if (!number_text(digits, text) || strpbrk(digits, "xX(")) return false;
    *out = strtod(digits, &end);
    return !*end;
}

/* What is no number stays as it is in *out. */
static bool real_to_int(int64_t *out, double real) {
    bool fits = real > -9.2e18 && real < 9.2e18;
    if (fits) *out = (int64_t)real;
    return fits;
}

static bool to_int(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[2];
    int64_t base, whole = 0;
    double real = 0;
    if (!jinja_bind(bound, r, args, "int", "default,base") ||
        !jinja_int_arg(&base, r, bound[1], "base", 10)) {
        return false;
    }
    if (self.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, self);
    bool done = false;
    if (self.kind == JINJA_TEXT) {
        done = text_to_int(&whole, self.text, base) ||
               (text_to_real(&real, self.text) && real_to_int(&whole, real));
    } else if (jinja_is_number(self)) {
        done = self.kind == JINJA_FLOAT ? real_to_int(&whole, self.real) : true;
        if (self.kind != JINJA_FLOAT) whole = jinja_as_int(self);
    }
    *out = done ? jinja_int(whole) : bound[0].kind == JINJA_UNDEFINED ? jinja_int(0) : bound[0];
    return true;
}

static bool to_float(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound;
    double real = 0;
    if (!jinja_bind(&bound, r, args, "float", "default")) return false;
    if (self.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, self);
    bool number = jinja_is_number(self);
    bool done = number || (self.kind == JINJA_TEXT && text_to_real(&real, self.text));
    if (number) real = jinja_as_real(self);
    *out = done ? jinja_float(real) : bound.kind == JINJA_UNDEFINED ? jinja_float(0) : bound;
    return true;
}

static bool number_arg(jinja_run *r, jinja_value v, const char *what) {
    if (v.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, v);
    return jinja_is_number(v) || jinja_fail(r, "%s wants a number, not '%s'", what, jinja_type(v));
}

static bool abs_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    if (!jinja_bind(NULL, r, args, "abs", "") || !number_arg(r, self, "abs")) return false;
    if (self.kind == JINJA_FLOAT) return *out = jinja_float(fabs(self.real)), true;
    int64_t i = jinja_as_int(self);
    *out = i < 0 ? jinja_none() : jinja_int(i);
    return i >= 0 || jinja_operate(out, r, JINJA_SUBTRACT, jinja_int(0), self);
}

static bool round_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[2];
    int64_t precision;
    char digits[512];
    if (!jinja_bind(bound, r, args, "round", "precision,method") ||
        !jinja_int_arg(&precision, r, bound[0], "precision", 0) || !number_arg(r, self, "round")) {
        return false;
    }
    double x = jinja_as_real(self);
    bool up = bound[1].kind == JINJA_TEXT && jinja_is(bound[1].text, "ceil");
    bool down = bound[1].kind == JINJA_TEXT && jinja_is(bound[1].text, "floor");
    if (up || down) {
        double scale = pow(10, (double)precision);
        *out = jinja_float((up ? ceil(x * scale) : floor(x * scale)) / scale);
        return true;
    }
    if (self.kind != JINJA_FLOAT && precision >= 0) {
        return *out = jinja_int(jinja_as_int(self)), true;
    }
    if (precision < 0 || precision > 100 || !isfinite(x)) {
        double scale = pow(10, -(double)precision);
        *out = precision < 0 ? jinja_float(nearbyint(x / scale) * scale) : jinja_float(x);
        return true;
    }
    snprintf(digits, sizeof digits, "%.*f", (int)precision, x);
    *out = jinja_float(strtod(digits, NULL));
    return true;
}

/* ---- other values ---------------------------------------------------------------------- */

static bool default_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[2];
    if (!jinja_bind(bound, r, args, "default", "default_value,boolean")) return false;
    bool missing =
        self.kind == JINJA_UNDEFINED || (jinja_is_true(bound[1]) && !jinja_is_true(self));
    bool given = args->n > 0 || bound[0].kind != JINJA_UNDEFINED;
    if (missing && !given) return jinja_words(out, r, "", 0);
    *out = missing ? bound[0] : self;
    return true;
}

static bool length(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    *out = jinja_int(0);
    return jinja_bind(NULL, r, args, "length", "") && jinja_length(&out->integer, r, self);
}

static bool tojson(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_show_json(out, r, self, args);
}

const jinja_global jinja_filters_of_values[] = {
    {"int", to_int},    {"float", to_float},
    {"abs", abs_},      {"round", round_},
    {"d", default_},    {"default", default_},
    {"length", length}, {"count", length},
    {"tojson", tojson}, {0},
};

static const jinja_global *find(const jinja_global *table, const char *name) {
    for (; table->name; table++) {
        if (strcmp(table->name, name) == 0) return table;
    }
    return NULL;
}

static const jinja_global *find_filter(const char *name) {
    const jinja_global *found = find(jinja_filters_of_values, name);
    if (!found) found = find(jinja_filters_of_text, name);
    return found ? found : find(jinja_filters_of_lists, name);
}

bool jinja_filter(jinja_value *out, jinja_run *r, const char *name, jinja_value self,
                  const jinja_args *args) {
    const jinja_global *filter = find_filter(name);
    if (!filter) return jinja_fail(r, "there is no filter '%s'", name);
    if (!jinja_spend(r, 1) || !jinja_enter(r)) return false;
    bool done = filter->call(out, r, self, args);
    jinja_leave(r);
    return done;
}

/* ---- tests ----------------------------------------------------------------------------- */

typedef enum test_kind {
    IS_DEFINED,
    IS_UNDEFINED,
    IS_NONE,
    IS_BOOLEAN,
    IS_TRUE,
    IS_FALSE,
    IS_INTEGER,
    IS_FLOAT,
    IS_NUMBER,
    IS_STRING,
    IS_MAPPING,
    IS_SEQUENCE,
    IS_ITERABLE,
    IS_CALLABLE,
    IS_LOWER,
    IS_UPPER,
    IS_ODD,
    IS_EVEN,
    IS_FILTER,
    IS_TEST,
    IS_ESCAPED,
    /* with an argument */
    IS_DIVISIBLE,
    IS_SAME,
    IS_IN,
    IS_EQUAL,
    IS_NOT_EQUAL,
    IS_BELOW,
    IS_AT_MOST,
    IS_ABOVE,
    IS_AT_LEAST,
} test_kind;

static const struct test_name {
    const char *name;
    test_kind kind;
} tests[] = {
    {"defined", IS_DEFINED},   {"undefined", IS_UNDEFINED},
    {"none", IS_NONE},         {"boolean", IS_BOOLEAN},
    {"true", IS_TRUE},         {"false", IS_FALSE},
    {"integer", IS_INTEGER},   {"float", IS_FLOAT},
    {"number", IS_NUMBER},     {"string", IS_STRING},
    {"mapping", IS_MAPPING},   {"sequence", IS_SEQUENCE},
    {"iterable", IS_ITERABLE}, {"callable", IS_CALLABLE},
    {"lower", IS_LOWER},       {"upper", IS_UPPER},
    {"odd", IS_ODD},           {"even", IS_EVEN},
    {"filter", IS_FILTER},     {"test", IS_TEST},
    {"escaped", IS_ESCAPED},   {"divisibleby", IS_DIVISIBLE},
    {"sameas", IS_SAME},       {"in", IS_IN},
    {"eq", IS_EQUAL},          {"equalto", IS_EQUAL},
    {"==", IS_EQUAL},          {"ne", IS_NOT_EQUAL},
    {"!=", IS_NOT_EQUAL},      {"lt", IS_BELOW},
    {"lessthan", IS_BELOW},    {"<", IS_BELOW},
    {"le", IS_AT_MOST},        {"<=", IS_AT_MOST},
    {"gt", IS_ABOVE},          {"greaterthan", IS_ABOVE},
    {">", IS_ABOVE},           {"ge", IS_AT_LEAST},
    {">=", IS_AT_LEAST},
};
enum { N_TESTS = sizeof tests / sizeof *tests };

static const struct test_name *find_test(const char *name) {
    for (size_t i = 0; i < N_TESTS; i++) {
        if (strcmp(tests[i].name, name) == 0) return &tests[i];
    }
    return NULL;
}

static bool is_sequence(jinja_value v) {
    bool row = v.kind == JINJA_LIST && v.list->shape <= JINJA_RANGE;
    return row || v.kind == JINJA_TEXT || v.kind == JINJA_DICT || v.kind == JINJA_UNDEFINED;
}

static bool has_case(bool *out, jinja_run *r, jinja_value v, const char *method) {
    const jinja_text *text;
    jinja_value result;
    jinja_function *call = NULL;
    if (!jinja_to_text(&text, r, v)) return false;
    (void)jinja_find_method(&call, jinja_of_text(text), method, strlen(method));
    if (!call(&result, r, jinja_of_text(text), &(jinja_args){0})) return false;
    *out = result.flag;
    return true;
}

static bool is_multiple(bool *out, jinja_run *r, jinja_value v, int64_t of, int64_t rest) {
    jinja_value result;
    if (!number_arg(r, v, "the test") ||
        !jinja_operate(&result, r, JINJA_MODULO, v, jinja_int(of))) {
        return false;
    }
    return jinja_equal(out, r, result, jinja_int(rest));
}

static bool is_named(bool *out, jinja_run *r, jinja_value v, bool filter) {
    const jinja_text *text;
    char name[64] = "";
    if (!jinja_to_text(&text, r, v)) return false;
    if (text->size < sizeof name && text->size > 0) memcpy(name, text->bytes, text->size);
    *out = filter ? find_filter(name) != NULL : find_test(name) != NULL;
    return true;
}

static bool test_alone(bool *out, jinja_run *r, test_kind kind, jinja_value v) {
    bool callable = v.kind >= JINJA_LOOP && v.kind != JINJA_CYCLER;
    switch (kind) {
    case IS_DEFINED: *out = v.kind != JINJA_UNDEFINED; break;
    case IS_UNDEFINED: *out = v.kind == JINJA_UNDEFINED; break;
    case IS_NONE: *out = v.kind == JINJA_NONE; break;
    case IS_BOOLEAN: *out = v.kind == JINJA_BOOL; break;
    case IS_TRUE: *out = v.kind == JINJA_BOOL && v.flag; break;
    case IS_FALSE: *out = v.kind == JINJA_BOOL && !v.flag; break;
    case IS_INTEGER: *out = v.kind == JINJA_INT; break;
    case IS_FLOAT: *out = v.kind == JINJA_FLOAT; break;
    case IS_NUMBER: *out = jinja_is_number(v); break;
    case IS_STRING: *out = v.kind == JINJA_TEXT; break;
    case IS_MAPPING: *out = v.kind == JINJA_DICT; break;
    case IS_SEQUENCE: *out = is_sequence(v); break;
    case IS_ITERABLE: *out = is_sequence(v) || v.kind == JINJA_LIST || v.kind == JINJA_LOOP; break;
    case IS_CALLABLE: *out = callable || v.kind == JINJA_UNDEFINED; break;
    case IS_LOWER: return has_case(out, r, v, "islower");
    case IS_UPPER: return has_case(out, r, v, "isupper");
    case IS_ODD: return is_multiple(out, r, v, 2, 1);
    case IS_EVEN: return is_multiple(out, r, v, 2, 0);
    case IS_FILTER: return is_named(out, r, v, true);
    case IS_TEST: return is_named(out, r, v, false);
    default: *out = v.kind == JINJA_TEXT && v.text->safe; break;
    }
    return true;
}

/* Whether two are one thing, as Python's "is" has it for what templates compare so. */
static bool is_same(jinja_value a, jinja_value b) {
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case JINJA_NONE: return true;
    case JINJA_BOOL: return a.flag == b.flag;
    case JINJA_INT: return a.integer == b.integer;
    case JINJA_FLOAT: return a.real == b.real;
    default: return a.dict == b.dict;
    }
}

static bool test_against(bool *out, jinja_run *r, test_kind kind, jinja_value v,
                         jinja_value other) {
    static const jinja_operator operators[] = {
        [IS_EQUAL] = JINJA_EQUAL, [IS_NOT_EQUAL] = JINJA_NOT_EQUAL,
        [IS_BELOW] = JINJA_BELOW, [IS_AT_MOST] = JINJA_AT_MOST,
        [IS_ABOVE] = JINJA_ABOVE, [IS_AT_LEAST] = JINJA_AT_LEAST,
    };
    jinja_value result;
    if (kind == IS_SAME) return *out = is_same(v, other), true;
    if (kind == IS_IN) return jinja_contains(out, r, other, v);
    if (kind == IS_DIVISIBLE) {
        return number_arg(r, other, "divisibleby") &&
               is_multiple(out, r, v, jinja_as_int(other), 0);
    }
    if (!jinja_operate(&result, r, operators[kind], v, other)) return false;
    *out = result.flag;
    return true;
}

bool jinja_test(bool *out, jinja_run *r, const char *name, jinja_value self,
                const jinja_args *args) {
    const struct test_name *test = find_test(name);
    jinja_value other;
    if (!test) return jinja_fail(r, "there is no test '%s'", name);
    bool alone = test->kind < IS_DIVISIBLE;
    if (!jinja_bind(&other, r, args, name, alone ? "" : "other")) return false;
    if (!alone && args->n + args->n_named == 0) {
        return jinja_fail(r, "test '%s' wants an argument", name);
    }
    return alone ? test_alone(out, r, test->kind, self)
                 : test_against(out, r, test->kind, self, other);
}
