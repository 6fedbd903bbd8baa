/* Values of a running template. All lie in its region; lists, dicts and namespaces are shared by
 * what refers to them, texts never change. */
#ifndef CCA_JINJA_VALUE_H
#define CCA_JINJA_VALUE_H

#include "jinja/jinja.h"

struct jinja_run;

typedef enum jinja_kind {
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_TEXT,
    JINJA_LIST, /* of any shape */
    JINJA_DICT,
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_MACRO,
    JINJA_METHOD, /* of a value: text.strip */
    JINJA_GLOBAL, /* a function */
    JINJA_CYCLER,
    JINJA_JOINER,
} jinja_kind;

typedef struct jinja_value jinja_value;

/* UTF-8, perhaps damaged; bytes that no character begins with count as one each. */
typedef struct jinja_text {
    const char *bytes;
    size_t size;
    const cca_jinja_span *spans;
    size_t n_spans;
    bool safe; /* what is added to it gets escaped, as Markup does */
} jinja_text;

/* A list, and what else is a row of values. */
typedef enum jinja_shape {
    JINJA_PLAIN,
    JINJA_TUPLE,
    JINJA_RANGE,
    JINJA_VIEW,     /* of a dict's keys, values or items: no index */
    JINJA_GENERATOR /* neither index nor length; its values are taken once */
} jinja_shape;

typedef struct jinja_list {
    jinja_shape shape;
    bool taken; /* a generator's values are */
    jinja_value *items;
    size_t n, capacity;
} jinja_list;

typedef struct jinja_dict {
    jinja_value *keys, *values; /* in the order of their coming */
    size_t n, keys_capacity, values_capacity;
} jinja_dict;

/* What is missing: a variable (owner NULL), or an attribute or item of an owner of a type. */
typedef struct jinja_missing {
    const char *owner;
    const char *name; /* NULL: a message of its own is the owner */
    size_t size;
} jinja_missing;

struct jinja_value {
    jinja_kind kind;
    union {
        bool flag;
        int64_t integer;
        double real;
        const jinja_text *text;
        jinja_list *list;
        jinja_dict *dict; /* of a namespace, too */
        const jinja_missing *missing;
        struct jinja_loop *loop;
        const struct jinja_macro *macro;
        const struct jinja_method *method;
        const struct jinja_global *global;
        struct jinja_cycler *cycler;
    };
};

static inline jinja_value jinja_none(void) {
    return (jinja_value){.kind = JINJA_NONE};
}
static inline jinja_value jinja_bool(bool flag) {
    return (jinja_value){.kind = JINJA_BOOL, .flag = flag};
}
static inline jinja_value jinja_int(int64_t integer) {
    return (jinja_value){.kind = JINJA_INT, .integer = integer};
}
static inline jinja_value jinja_float(double real) {
    return (jinja_value){.kind = JINJA_FLOAT, .real = real};
}
static inline jinja_value jinja_of_text(const jinja_text *text) {
    return (jinja_value){.kind = JINJA_TEXT, .text = text};
}

/* Functions that return bool fail without memory, beyond a bound, or with an error of the template;
 * the run has the message. */

/* The template's own bytes, which are not copied. */
bool jinja_words(jinja_value *out, struct jinja_run *r, const char *bytes, size_t size);

bool jinja_new_list(jinja_value *out, struct jinja_run *r, jinja_shape shape, size_t capacity);
bool jinja_push(struct jinja_run *r, jinja_list *list, jinja_value item);
/* A row of n copies of items. */
bool jinja_list_of(jinja_value *out, struct jinja_run *r, jinja_shape shape,
                   const jinja_value *items, size_t n);
bool jinja_new_dict(jinja_value *out, struct jinja_run *r);
/* Index of a key, dict->n where there is none. Fails for keys that cannot be hashed. */
bool jinja_find_key(size_t *out, struct jinja_run *r, const jinja_dict *dict, jinja_value key);
bool jinja_set_key(struct jinja_run *r, jinja_dict *dict, jinja_value key, jinja_value value);
void jinja_drop_key(jinja_dict *dict, size_t index);
/* The value of a name that is a literal here; NULL where there is none. */
const jinja_value *jinja_get(const jinja_dict *dict, const char *name);
/* A dict's keys, values, or pairs of both, as rows. */
bool jinja_keys(jinja_value *out, struct jinja_run *r, const jinja_dict *dict, jinja_shape shape);
bool jinja_values(jinja_value *out, struct jinja_run *r, const jinja_dict *dict, jinja_shape shape);
bool jinja_pairs(jinja_value *out, struct jinja_run *r, const jinja_dict *dict, jinja_shape shape);

/* "str", "int", "dict" …, as Python names types. */
const char *jinja_type(jinja_value v);
bool jinja_is_true(jinja_value v);
bool jinja_is_number(jinja_value v); /* bools are */
double jinja_as_real(jinja_value v); /* of a number */
int64_t jinja_as_int(jinja_value v); /* of an int or bool */

/* Python's ==. */
bool jinja_equal(bool *out, struct jinja_run *r, jinja_value a, jinja_value b);
/* Below, equal or above: -1, 0, 1; 2 where a NaN is. Fails where Python's < would. */
bool jinja_compare(int *out, struct jinja_run *r, jinja_value a, jinja_value b);

/* What a loop goes over, in order, as a row that no one else changes. Generators are used up. */
bool jinja_items(const jinja_list **out, struct jinja_run *r, jinja_value v);
/* len(); fails where there is none. */
bool jinja_length(int64_t *out, struct jinja_run *r, jinja_value v);

/* Fails with what is missing. */
bool jinja_fail_missing(struct jinja_run *r, jinja_value v);

#endif
