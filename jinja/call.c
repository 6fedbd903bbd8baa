/* Calls: arguments, macros, and the functions that every template has. */
#include "jinja/run.h"

#include <string.h>
#include <time.h>

/* ---- arguments ------------------------------------------------------------------------- */

/* Which of the names, separated by commas, it is; -1: none. */
static int place_of(const char *names, const char *name) {
    size_t size = strlen(name);
    for (int i = 0; *names; i++) {
        size_t n = strcspn(names, ",");
        if (n == size && memcmp(names, name, n) == 0) return i;
        names += n + (names[n] == ',');
    }
    return -1;
}

static size_t count_names(const char *names) {
    size_t n = *names != 0;
    for (; *names; names++) n += *names == ',';
    return n;
}

bool jinja_bind(jinja_value *out, jinja_run *r, const jinja_args *args, const char *what,
                const char *names) {
    static const jinja_missing nothing = {"the argument was not given", NULL, 0};
    size_t most = count_names(names);
    for (size_t i = 0; i < most; i++) {
        out[i] = (jinja_value){.kind = JINJA_UNDEFINED, .missing = &nothing};
    }
    if (args->n > most) return jinja_fail(r, "%s takes at most %zu arguments", what, most);
    for (size_t i = 0; i < args->n; i++) out[i] = args->values[i];
    for (size_t i = 0; i < args->n_named; i++) {
        int at = place_of(names, args->names[i]);
        if (at < 0) return jinja_fail(r, "%s has no argument \"%s\"", what, args->names[i]);
        if ((size_t)at < args->n) return jinja_fail(r, "%s got \"%s\" twice", what, args->names[i]);
        out[at] = args->named[i];
    }
    return true;
}

bool jinja_int_arg(int64_t *out, jinja_run *r, jinja_value v, const char *what, int64_t fallback) {
    *out = fallback;
    if (v.kind == JINJA_UNDEFINED || v.kind == JINJA_NONE) return true;
    if (v.kind != JINJA_INT && v.kind != JINJA_BOOL) {
        return jinja_fail(r, "%s is a number, not '%s'", what, jinja_type(v));
    }
    *out = jinja_as_int(v);
    return true;
}

bool jinja_text_arg(const jinja_text **out, jinja_run *r, jinja_value v, const char *what) {
    if (v.kind != JINJA_TEXT) return jinja_fail(r, "%s is a text, not '%s'", what, jinja_type(v));
    *out = v.text;
    return true;
}

/* ---- macros ---------------------------------------------------------------------------- */

static const jinja_value *named(const jinja_args *args, const char *name) {
    for (size_t i = 0; i < args->n_named; i++) {
        if (strcmp(args->names[i], name) == 0) return &args->named[i];
    }
    return NULL;
}

static bool is_parameter(const jinja_node *node, const char *name) {
    for (size_t i = 0; i < node->items.n; i++) {
        if (strcmp(node->items.items[i]->name, name) == 0) return true;
    }
    return false;
}

/* Parameter i: given in its place, by its name, by default, or undefined. */
static bool bind_parameter(jinja_run *r, const jinja_node *node, const jinja_args *args, size_t i) {
    const char *name = node->items.items[i]->name;
    const jinja_value *given = i < args->n ? &args->values[i] : named(args, name);
    size_t without = node->items.n - node->named.n;
    jinja_value v;
    if (i < args->n && named(args, name)) {
        return jinja_fail(r, "macro '%s' got \"%s\" twice", node->name, name);
    }
    if (given) return jinja_assign(r, name, *given);
    if (i >= without) {
        return jinja_eval(&v, r, node->named.items[i - without]) && jinja_assign(r, name, v);
    }
    jinja_missing *missing = jinja_new(r, sizeof *missing);
    if (!missing) return false;
    *missing = (jinja_missing){NULL, name, strlen(name)};
    return jinja_assign(r, name, (jinja_value){.kind = JINJA_UNDEFINED, .missing = missing});
}

/* What no parameter takes: varargs, kwargs, caller. */
static bool bind_others(jinja_run *r, const jinja_node *node, const jinja_args *args) {
    jinja_value keys, rest;
    const cca_jinja *t = r->template;
    size_t n = node->items.n;
    if (args->n > n && !node->takes_rest) {
        return jinja_fail(r, "macro '%s' takes at most %zu arguments", node->name, n);
    }
    if (!jinja_new_dict(&keys, r)) return false;
    for (size_t i = 0; i < args->n_named; i++) {
        const char *name = args->names[i];
        jinja_value key;
        if (is_parameter(node, name)) continue;
        if (node->takes_caller && strcmp(name, t->caller) == 0) {
            if (!jinja_assign(r, t->caller, args->named[i])) return false;
            continue;
        }
        if (!node->takes_named) {
            return jinja_fail(r, "macro '%s' has no argument \"%s\"", node->name, name);
        }
        if (!jinja_words(&key, r, name, strlen(name)) ||
            !jinja_set_key(r, keys.dict, key, args->named[i])) {
            return false;
        }
    }
    if (node->takes_named && !jinja_assign(r, t->keys, keys)) return false;
    if (!node->takes_rest) return true;
    size_t more = args->n > n ? args->n - n : 0;
    return jinja_list_of(&rest, r, JINJA_TUPLE, more ? args->values + n : NULL, more) &&
           jinja_assign(r, t->rest, rest);
}

static bool call_macro(jinja_value *out, jinja_run *r, const jinja_macro *macro,
                       const jinja_args *args) {
    const jinja_node *node = macro->node;
    jinja_scope *scope = r->scope;
    bool done = jinja_open_scope(r, macro->scope);
    for (size_t i = 0; i < node->items.n && done; i++) done = bind_parameter(r, node, args, i);
    done = done && bind_others(r, node, args) && jinja_capture(out, r, node->body);
    r->scope = scope;
    return done;
}

/* ---- things that can be called --------------------------------------------------------- */

/* loop(items) of a recursive loop. */
static bool call_loop(jinja_value *out, jinja_run *r, jinja_loop *loop, const jinja_args *args) {
    jinja_builder b = {.run = r}, *before = r->out;
    jinja_value over;
    if (!loop->node->flag) return jinja_fail(r, "the loop is not recursive");
    if (!jinja_bind(&over, r, args, "loop", "items")) return false;
    r->out = &b;
    bool done = jinja_run_loop(r, loop->node, loop->scope, over, loop->level + 1);
    r->out = before;
    return done && jinja_finish(out, &b);
}

static bool call_any(jinja_value *out, jinja_run *r, jinja_value callee, const jinja_args *args) {
    switch (callee.kind) {
    case JINJA_MACRO: return call_macro(out, r, callee.macro, args);
    case JINJA_METHOD: return callee.method->call(out, r, callee.method->self, args);
    case JINJA_GLOBAL: return callee.global->call(out, r, callee, args);
    case JINJA_LOOP: return call_loop(out, r, callee.loop, args);
    case JINJA_JOINER:
        if (callee.cycler->at++ > 0) return *out = callee.cycler->items->items[0], true;
        return jinja_words(out, r, "", 0);
    case JINJA_UNDEFINED: return jinja_fail_missing(r, callee);
    default: return jinja_fail(r, "'%s' object is not callable", jinja_type(callee));
    }
}

bool jinja_call(jinja_value *out, jinja_run *r, jinja_value callee, const jinja_args *args) {
    if (!jinja_spend(r, 1) || !jinja_enter(r)) return false;
    bool done = call_any(out, r, callee, args);
    jinja_leave(r);
    return done;
}

/* ---- global functions ------------------------------------------------------------------ */

static bool make_range(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[3];
    int64_t from = 0, to = 0, by = 1, first;
    (void)self;
    if (!jinja_bind(bound, r, args, "range", "start,stop,step") ||
        !jinja_int_arg(&first, r, bound[0], "range", 0) ||
        !jinja_int_arg(&to, r, bound[1], "range", first) ||
        !jinja_int_arg(&by, r, bound[2], "range", 1)) {
        return false;
    }
    if (args->n == 0) return jinja_fail(r, "range wants a number");
    if (args->n > 1) from = first;
    if (by == 0) return jinja_fail(r, "range: the step is zero");
    if (!jinja_new_list(out, r, JINJA_RANGE, 0)) return false;
    for (int64_t i = from; by > 0 ? i < to : i > to;) {
        if (out->list->n == CCA_JINJA_MOST_RANGE) {
            return jinja_fail(r, "a range has more than %d numbers", CCA_JINJA_MOST_RANGE);
        }
        if (!jinja_push(r, out->list, jinja_int(i))) return false;
        if (__builtin_add_overflow(i, by, &i)) break;
    }
    return true;
}

bool jinja_make_dict(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    const jinja_list *pairs;
    jinja_value key, row;
    (void)self;
    if (args->n > 1) return jinja_fail(r, "dict takes one argument without a name");
    if (!jinja_new_dict(out, r)) return false;
    if (args->n == 1) {
        row = args->values[0];
        bool dict = row.kind == JINJA_DICT || row.kind == JINJA_NAMESPACE;
        if (dict && !jinja_pairs(&row, r, row.dict, JINJA_PLAIN)) return false;
        if (!jinja_items(&pairs, r, row)) return false;
        for (size_t i = 0; i < pairs->n; i++) {
            const jinja_list *pair;
            if (!jinja_items(&pair, r, pairs->items[i])) return false;
            if (pair->n != 2) return jinja_fail(r, "dict wants pairs");
            if (!jinja_set_key(r, out->dict, pair->items[0], pair->items[1])) return false;
        }
    }
    for (size_t i = 0; i < args->n_named; i++) {
        if (!jinja_words(&key, r, args->names[i], strlen(args->names[i])) ||
            !jinja_set_key(r, out->dict, key, args->named[i])) {
            return false;
        }
    }
    return true;
}

static bool make_namespace(jinja_value *out, jinja_run *r, jinja_value self,
                           const jinja_args *args) {
    if (!jinja_make_dict(out, r, self, args)) return false;
    out->kind = JINJA_NAMESPACE;
    return true;
}

static bool make_cycler(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_cycler *cycler = jinja_new(r, sizeof *cycler);
    jinja_value row;
    (void)self;
    if (!cycler || !jinja_list_of(&row, r, JINJA_PLAIN, args->values, args->n)) return false;
    if (args->n == 0) return jinja_fail(r, "cycler has nothing to go round");
    cycler->items = row.list;
    *out = (jinja_value){.kind = JINJA_CYCLER, .cycler = cycler};
    return true;
}

static bool make_joiner(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value separator, row;
    jinja_cycler *cycler = jinja_new(r, sizeof *cycler);
    (void)self;
    if (!cycler || !jinja_bind(&separator, r, args, "joiner", "sep")) return false;
    if (separator.kind == JINJA_UNDEFINED && !jinja_words(&separator, r, ", ", 2)) return false;
    if (!jinja_list_of(&row, r, JINJA_PLAIN, &separator, 1)) return false;
    cycler->items = row.list;
    *out = (jinja_value){.kind = JINJA_JOINER, .cycler = cycler};
    return true;
}

static bool raise_exception(jinja_value *out, jinja_run *r, jinja_value self,
                            const jinja_args *args) {
    jinja_value message;
    const jinja_text *text;
    (void)out;
    (void)self;
    return jinja_bind(&message, r, args, "raise_exception", "message") &&
           jinja_to_text(&text, r, message) && jinja_raise(r, text);
}

static bool strftime_now(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    enum { MOST = 4096 };
    jinja_value format = jinja_none();
    const jinja_text *text = NULL;
    jinja_builder b = {.run = r};
    time_t now = (time_t)r->input->now;
    struct tm local;
    (void)self;
    if (!jinja_bind(&format, r, args, "strftime_now", "format") ||
        !jinja_text_arg(&text, r, format, "strftime_now")) {
        return false;
    }
    if (text->size > 0 && memchr(text->bytes, 0, text->size)) {
        return jinja_fail(r, "strftime_now: the format has a NUL");
    }
    char *pattern = jinja_new(r, text->size + 2), *result = jinja_new(r, MOST);
    if (!pattern || !result) return false;
    if (text->size > 0) memcpy(pattern, text->bytes, text->size);
    pattern[text->size] = '.'; /* so that no result is empty but for want of room */
    if (!localtime_r(&now, &local)) return jinja_fail(r, "strftime_now: there is no such time");
    size_t n = strftime(result, MOST, pattern, &local);
    if (n == 0) return jinja_fail(r, "strftime_now: the result is too long");
    return jinja_put_for(&b, result, n - 1, text, 0) && jinja_finish(out, &b);
}

const jinja_global jinja_globals[] = {
    {"range", make_range},          {"dict", jinja_make_dict},
    {"namespace", make_namespace},  {"cycler", make_cycler},
    {"joiner", make_joiner},        {"raise_exception", raise_exception},
    {"strftime_now", strftime_now}, {0},
};
