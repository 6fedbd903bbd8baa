/* Expressions. */
#include "jinja/run.h"

#include <string.h>

static bool eval_node(jinja_value *out, jinja_run *r, const jinja_node *node);

bool jinja_eval(jinja_value *out, jinja_run *r, const jinja_node *node) {
    r->line = node->line;
    if (!jinja_spend(r, 1) || !jinja_enter(r)) return false;
    bool done = eval_node(out, r, node);
    jinja_leave(r);
    r->line = node->line; /* which what the caller does with it may fail at */
    return done;
}

static bool undefined(jinja_value *out, jinja_run *r, const char *owner, const char *name,
                      size_t size) {
    jinja_missing *missing = jinja_new(r, sizeof *missing);
    if (!missing) return false;
    *missing = (jinja_missing){owner, name, size};
    *out = (jinja_value){.kind = JINJA_UNDEFINED, .missing = missing};
    return true;
}

static bool eval_name(jinja_value *out, jinja_run *r, const jinja_node *node) {
    const jinja_value *found = jinja_look_up(r, node->name);
    if (found) return *out = *found, true;
    return undefined(out, r, NULL, node->name, strlen(node->name));
}

static bool eval_row(jinja_value *out, jinja_run *r, const jinja_node *node) {
    bool tuple = node->kind == JINJA_NODE_TUPLE;
    if (!jinja_new_list(out, r, tuple ? JINJA_TUPLE : JINJA_PLAIN, node->items.n)) return false;
    for (size_t i = 0; i < node->items.n; i++) {
        jinja_value item;
        if (!jinja_eval(&item, r, node->items.items[i])) return false;
        if (!jinja_push(r, out->list, item)) return false;
    }
    return true;
}

static bool eval_dict(jinja_value *out, jinja_run *r, const jinja_node *node) {
    if (!jinja_new_dict(out, r)) return false;
    for (size_t i = 0; i < node->items.n; i++) {
        jinja_value key, value;
        if (!jinja_eval(&key, r, node->items.items[i])) return false;
        if (!jinja_eval(&value, r, node->named.items[i])) return false;
        if (!jinja_set_key(r, out->dict, key, value)) return false;
    }
    return true;
}

static bool eval_slice(jinja_value *out, jinja_run *r, const jinja_node *node) {
    jinja_value of, bounds[3];
    if (!jinja_eval(&of, r, node->a)) return false;
    for (int i = 0; i < 3; i++) {
        const jinja_node *bound = node->items.items[i];
        bounds[i] = jinja_none();
        if (bound && !jinja_eval(&bounds[i], r, bound)) return false;
    }
    return jinja_slice(out, r, of, bounds);
}

/* ---- arguments ------------------------------------------------------------------------- */

static bool add_rest(jinja_value *row, jinja_run *r, const jinja_node *rest) {
    const jinja_list *more;
    jinja_value v;
    if (!rest) return true;
    if (!jinja_eval(&v, r, rest) || !jinja_items(&more, r, v)) return false;
    for (size_t i = 0; i < more->n; i++) {
        if (!jinja_push(r, row->list, more->items[i])) return false;
    }
    return true;
}

/* A name as C knows it. */
static bool name_of_key(const char **out, jinja_run *r, jinja_value key) {
    if (key.kind != JINJA_TEXT) return jinja_fail(r, "** has a key that is no text");
    char *copy = jinja_new(r, key.text->size + 1);
    if (!copy) return false;
    memcpy(copy, key.text->bytes, key.text->size);
    *out = copy;
    return true;
}

static bool eval_named(jinja_args *out, jinja_run *r, const jinja_node *node) {
    jinja_value keys = {.kind = JINJA_DICT};
    if (node->keys && !jinja_eval(&keys, r, node->keys)) return false;
    if (keys.kind != JINJA_DICT) return jinja_fail(r, "argument after ** must be a mapping");
    size_t n = node->named.n, more = keys.dict ? keys.dict->n : 0;
    const char **names = jinja_new(r, (n + more + 1) * sizeof *names);
    jinja_value *values = jinja_new(r, (n + more + 1) * sizeof *values);
    if (!names || !values) return false;
    for (size_t i = 0; i < n; i++) {
        names[i] = node->names[i];
        if (!jinja_eval(&values[i], r, node->named.items[i])) return false;
    }
    for (size_t i = 0; i < more; i++) {
        if (!name_of_key(&names[n + i], r, keys.dict->keys[i])) return false;
        values[n + i] = keys.dict->values[i];
    }
    out->names = names;
    out->named = values;
    out->n_named = n + more;
    return true;
}

bool jinja_eval_args(jinja_args *out, jinja_run *r, const jinja_node *node) {
    jinja_value row;
    *out = (jinja_args){0};
    if (node->items.n == 0 && node->named.n == 0 && !node->rest && !node->keys) return true;
    if (!jinja_new_list(&row, r, JINJA_PLAIN, node->items.n)) return false;
    for (size_t i = 0; i < node->items.n; i++) {
        jinja_value v;
        if (!jinja_eval(&v, r, node->items.items[i]) || !jinja_push(r, row.list, v)) return false;
    }
    if (!add_rest(&row, r, node->rest) || !eval_named(out, r, node)) return false;
    out->values = row.list->items;
    out->n = row.list->n;
    return true;
}

/* ---- operators ------------------------------------------------------------------------- */

static bool eval_both(jinja_value *a, jinja_value *b, jinja_run *r, const jinja_node *node) {
    bool done = jinja_eval(a, r, node->a) && jinja_eval(b, r, node->b);
    r->line = node->line;
    return done;
}

static bool eval_operation(jinja_value *out, jinja_run *r, const jinja_node *node) {
    jinja_value a, b;
    return eval_both(&a, &b, r, node) && jinja_operate(out, r, node->op, a, b);
}

/* "a < b < c": each is compared with the one before. */
static bool eval_comparison(jinja_value *out, jinja_run *r, const jinja_node *node) {
    jinja_value left, right;
    if (!jinja_eval(&left, r, node->a)) return false;
    for (size_t i = 0; i < node->items.n; i++) {
        const jinja_node *one = node->items.items[i];
        if (!jinja_eval(&right, r, one->b)) return false;
        r->line = one->line;
        if (!jinja_operate(out, r, one->op, left, right)) return false;
        if (!jinja_is_true(*out)) break;
        left = right;
    }
    return true;
}

static bool eval_concat(jinja_value *out, jinja_run *r, const jinja_node *node) {
    jinja_builder b = {.run = r};
    for (size_t i = 0; i < node->items.n; i++) {
        jinja_value v;
        if (!jinja_eval(&v, r, node->items.items[i]) || !jinja_show(&b, v)) return false;
    }
    return jinja_finish(out, &b);
}

static bool eval_sign(jinja_value *out, jinja_run *r, const jinja_node *node) {
    bool minus = node->kind == JINJA_NODE_MINUS;
    if (!jinja_eval(out, r, node->a)) return false;
    if (out->kind == JINJA_UNDEFINED) return jinja_fail_missing(r, *out);
    if (!jinja_is_number(*out)) return jinja_fail(r, "a sign before a %s", jinja_type(*out));
    if (out->kind == JINJA_FLOAT) return out->real = minus ? -out->real : out->real, true;
    return jinja_operate(out, r, minus ? JINJA_SUBTRACT : JINJA_ADD, jinja_int(0), *out);
}

static bool eval_junction(jinja_value *out, jinja_run *r, const jinja_node *node) {
    if (!jinja_eval(out, r, node->a)) return false;
    bool decided = jinja_is_true(*out) == (node->kind == JINJA_NODE_OR);
    return decided || jinja_eval(out, r, node->b);
}

static bool eval_choice(jinja_value *out, jinja_run *r, const jinja_node *node) {
    static const char without[] = "the inline if-expression has no else and its condition is false";
    jinja_value condition;
    if (!jinja_eval(&condition, r, node->b)) return false;
    if (jinja_is_true(condition)) return jinja_eval(out, r, node->a);
    return node->c ? jinja_eval(out, r, node->c) : undefined(out, r, without, NULL, 0);
}

/* ---- calls, filters, tests ------------------------------------------------------------- */

static bool eval_call(jinja_value *out, jinja_run *r, const jinja_node *node) {
    jinja_args args;
    jinja_value callee;
    if (!jinja_eval(&callee, r, node->a) || !jinja_eval_args(&args, r, node)) return false;
    r->line = node->line;
    return jinja_call(out, r, callee, &args);
}

static bool eval_filter(jinja_value *out, jinja_run *r, const jinja_node *node) {
    jinja_args args;
    jinja_value self = r->block;
    if ((node->a && !jinja_eval(&self, r, node->a)) || !jinja_eval_args(&args, r, node)) {
        return false;
    }
    r->line = node->line;
    return jinja_filter(out, r, node->name, self, &args);
}

static bool eval_test(jinja_value *out, jinja_run *r, const jinja_node *node) {
    jinja_args args;
    jinja_value self;
    if (!jinja_eval(&self, r, node->a) || !jinja_eval_args(&args, r, node)) return false;
    r->line = node->line;
    *out = jinja_bool(false);
    return jinja_test(&out->flag, r, node->name, self, &args);
}

static bool eval_attribute(jinja_value *out, jinja_run *r, const jinja_node *node) {
    jinja_value owner;
    if (!jinja_eval(&owner, r, node->a)) return false;
    r->line = node->line;
    return jinja_attribute(out, r, owner, node->name, strlen(node->name));
}

static bool eval_item(jinja_value *out, jinja_run *r, const jinja_node *node) {
    jinja_value owner, key;
    return eval_both(&owner, &key, r, node) && jinja_item(out, r, owner, key);
}

static bool eval_not(jinja_value *out, jinja_run *r, const jinja_node *node) {
    if (!jinja_eval(out, r, node->a)) return false;
    *out = jinja_bool(!jinja_is_true(*out));
    return true;
}

static bool eval_node(jinja_value *out, jinja_run *r, const jinja_node *node) {
    switch (node->kind) {
    case JINJA_NODE_CONSTANT: *out = node->value; return true;
    case JINJA_NODE_NAME: return eval_name(out, r, node);
    case JINJA_NODE_LIST:
    case JINJA_NODE_TUPLE: return eval_row(out, r, node);
    case JINJA_NODE_DICT: return eval_dict(out, r, node);
    case JINJA_NODE_ATTRIBUTE: return eval_attribute(out, r, node);
    case JINJA_NODE_ITEM: return eval_item(out, r, node);
    case JINJA_NODE_SLICE: return eval_slice(out, r, node);
    case JINJA_NODE_CALL: return eval_call(out, r, node);
    case JINJA_NODE_FILTER: return eval_filter(out, r, node);
    case JINJA_NODE_TEST: return eval_test(out, r, node);
    case JINJA_NODE_NOT: return eval_not(out, r, node);
    case JINJA_NODE_MINUS:
    case JINJA_NODE_PLUS: return eval_sign(out, r, node);
    case JINJA_NODE_AND:
    case JINJA_NODE_OR: return eval_junction(out, r, node);
    case JINJA_NODE_OPERATE: return eval_operation(out, r, node);
    case JINJA_NODE_COMPARE: return eval_comparison(out, r, node);
    case JINJA_NODE_CONCAT: return eval_concat(out, r, node);
    case JINJA_NODE_CHOOSE: return eval_choice(out, r, node);
    default: return jinja_fail(r, "no expression");
    }
}
