/* Methods of lists, dicts and what else has some, and the attributes of a loop. */
#include "jinja/run.h"

#include <string.h>

/* ---- lists ----------------------------------------------------------------------------- */

static bool append(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value item;
    *out = jinja_none();
    return jinja_bind(&item, r, args, "append", "object") && jinja_push(r, self.list, item);
}

static bool extend(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound;
    const jinja_list *more;
    *out = jinja_none();
    if (!jinja_bind(&bound, r, args, "extend", "iterable") || !jinja_items(&more, r, bound)) {
        return false;
    }
    for (size_t i = 0; i < more->n; i++) {
        if (!jinja_push(r, self.list, more->items[i])) return false;
    }
    return true;
}

static bool insert(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[2];
    jinja_list *list = self.list;
    int64_t at, n = (int64_t)list->n;
    *out = jinja_none();
    if (!jinja_bind(bound, r, args, "insert", "index,object") ||
        !jinja_int_arg(&at, r, bound[0], "index", 0) || !jinja_push(r, list, bound[1])) {
        return false;
    }
    at = at < -n ? 0 : at < 0 ? at + n : cca_min(at, n);
    memmove(&list->items[at + 1], &list->items[at], (size_t)(n - at) * sizeof *list->items);
    list->items[at] = bound[1];
    return jinja_spend(r, (size_t)n);
}

static bool drop_at(jinja_run *r, jinja_list *list, size_t at) {
    list->n--;
    memmove(&list->items[at], &list->items[at + 1], (list->n - at) * sizeof *list->items);
    return jinja_spend(r, list->n);
}

static bool pop(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound;
    int64_t at, n = (int64_t)self.list->n;
    if (!jinja_bind(&bound, r, args, "pop", "index") ||
        !jinja_int_arg(&at, r, bound, "index", -1)) {
        return false;
    }
    if (at < 0) at += n;
    if (at < 0 || at >= n) return jinja_fail(r, "pop: there is no such item");
    *out = self.list->items[at];
    return drop_at(r, self.list, (size_t)at);
}

/* Index of the first item that equals the argument; n where none does. */
static bool find_item(size_t *out, jinja_run *r, jinja_value self, const jinja_args *args,
                      const char *what) {
    jinja_value wanted;
    bool same = false;
    if (!jinja_bind(&wanted, r, args, what, "value")) return false;
    for (*out = 0; *out < self.list->n; ++*out) {
        if (!jinja_equal(&same, r, self.list->items[*out], wanted)) return false;
        if (same) return true;
    }
    return true;
}

static bool index_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    size_t at;
    if (!find_item(&at, r, self, args, "index")) return false;
    *out = jinja_int((int64_t)at);
    return at < self.list->n || jinja_fail(r, "index: the list has no such item");
}

static bool remove_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    size_t at;
    *out = jinja_none();
    if (!find_item(&at, r, self, args, "remove")) return false;
    if (at == self.list->n) return jinja_fail(r, "remove: the list has no such item");
    return drop_at(r, self.list, at);
}

static bool count(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value wanted;
    int64_t n = 0;
    if (!jinja_bind(&wanted, r, args, "count", "value")) return false;
    for (size_t i = 0; i < self.list->n; i++) {
        bool same;
        if (!jinja_equal(&same, r, self.list->items[i], wanted)) return false;
        n += same;
    }
    *out = jinja_int(n);
    return true;
}

static bool reverse(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_list *list = self.list;
    *out = jinja_none();
    if (!jinja_bind(NULL, r, args, "reverse", "")) return false;
    for (size_t i = 0; i < list->n / 2; i++) {
        jinja_value other = list->items[i];
        list->items[i] = list->items[list->n - 1 - i];
        list->items[list->n - 1 - i] = other;
    }
    return jinja_spend(r, list->n);
}

static bool copy_list(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "copy", "") &&
           jinja_list_of(out, r, JINJA_PLAIN, self.list->items, self.list->n);
}

static bool clear_list(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    *out = jinja_none();
    self.list->n = 0;
    return jinja_bind(NULL, r, args, "clear", "");
}

/* The first two are a tuple's, too. */
const jinja_global jinja_list_methods[] = {
    {"index", index_},
    {"count", count},
    {"append", append},
    {"extend", extend},
    {"insert", insert},
    {"pop", pop},
    {"remove", remove_},
    {"reverse", reverse},
    {"copy", copy_list},
    {"clear", clear_list},
    {0},
};

/* ---- dicts ----------------------------------------------------------------------------- */

static bool keys(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "keys", "") && jinja_keys(out, r, self.dict, JINJA_VIEW);
}

static bool values(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "values", "") && jinja_values(out, r, self.dict, JINJA_VIEW);
}

static bool items(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return jinja_bind(NULL, r, args, "items", "") && jinja_pairs(out, r, self.dict, JINJA_VIEW);
}

static bool get(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[2];
    size_t at;
    if (!jinja_bind(bound, r, args, "get", "key,default") ||
        !jinja_find_key(&at, r, self.dict, bound[0])) {
        return false;
    }
    bool found = at<self.dict->n, given = args->n + args->n_named> 1;
    *out = found ? self.dict->values[at] : given ? bound[1] : jinja_none();
    return true;
}

static bool setdefault(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[2];
    size_t at;
    if (!jinja_bind(bound, r, args, "setdefault", "key,default") ||
        !jinja_find_key(&at, r, self.dict, bound[0])) {
        return false;
    }
    if (at < self.dict->n) return *out = self.dict->values[at], true;
    *out = args->n + args->n_named > 1 ? bound[1] : jinja_none();
    return jinja_set_key(r, self.dict, bound[0], *out);
}

static bool pop_key(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[2];
    size_t at;
    if (!jinja_bind(bound, r, args, "pop", "key,default") ||
        !jinja_find_key(&at, r, self.dict, bound[0])) {
        return false;
    }
    if (at < self.dict->n) {
        *out = self.dict->values[at];
        jinja_drop_key(self.dict, at);
        return true;
    }
    if (args->n + args->n_named < 2) return jinja_fail(r, "pop: the dict has no such key");
    *out = bound[1];
    return true;
}

static bool update(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value more;
    if (!jinja_make_dict(&more, r, self, args)) return false;
    for (size_t i = 0; i < more.dict->n; i++) {
        if (!jinja_set_key(r, self.dict, more.dict->keys[i], more.dict->values[i])) return false;
    }
    *out = jinja_none();
    return true;
}

static bool copy_dict(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    if (!jinja_bind(NULL, r, args, "copy", "") || !jinja_new_dict(out, r)) return false;
    for (size_t i = 0; i < self.dict->n; i++) {
        if (!jinja_set_key(r, out->dict, self.dict->keys[i], self.dict->values[i])) return false;
    }
    return true;
}

static bool clear_dict(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    *out = jinja_none();
    self.dict->n = 0;
    return jinja_bind(NULL, r, args, "clear", "");
}

const jinja_global jinja_dict_methods[] = {
    {"get", get},          {"keys", keys},
    {"values", values},    {"items", items},
    {"pop", pop_key},      {"setdefault", setdefault},
    {"update", update},    {"copy", copy_dict},
    {"clear", clear_dict}, {0},
};

/* ---- loops and cyclers ----------------------------------------------------------------- */

static bool loop_cycle(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    if (args->n == 0) return jinja_fail(r, "cycle has nothing to go round");
    *out = args->values[self.loop->index % args->n];
    return true;
}

static bool loop_changed(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value row;
    jinja_loop *loop = self.loop;
    bool same = false;
    if (!jinja_list_of(&row, r, JINJA_TUPLE, args->values, args->n)) return false;
    if (loop->has_seen && !jinja_equal(&same, r, loop->last_seen, row)) return false;
    loop->last_seen = row;
    loop->has_seen = true;
    *out = jinja_bool(!same);
    return true;
}

static bool cycler_next(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_cycler *c = self.cycler;
    *out = c->items->items[c->at];
    c->at = (c->at + 1) % c->items->n;
    return jinja_bind(NULL, r, args, "next", "");
}

static bool cycler_reset(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    self.cycler->at = 0;
    *out = jinja_none();
    return jinja_bind(NULL, r, args, "reset", "");
}

static const jinja_global loop_methods[] = {{"cycle", loop_cycle}, {"changed", loop_changed}, {0}};
static const jinja_global cycler_methods[] = {{"next", cycler_next}, {"reset", cycler_reset}, {0}};

static bool is(const char *word, const char *name, size_t size) {
    return strlen(word) == size && memcmp(word, name, size) == 0;
}

static bool find_in(jinja_function **out, const jinja_global *table, const char *name,
                    size_t size) {
    for (; table->name; table++) {
        if (!is(table->name, name, size)) continue;
        *out = table->call;
        return true;
    }
    return false;
}

bool jinja_find_method(jinja_function **out, jinja_value self, const char *name, size_t size) {
    switch (self.kind) {
    case JINJA_TEXT:
        return find_in(out, jinja_text_methods, name, size) ||
               find_in(out, jinja_text_search_methods, name, size);
    case JINJA_DICT: return find_in(out, jinja_dict_methods, name, size);
    case JINJA_CYCLER: return find_in(out, cycler_methods, name, size);
    case JINJA_LIST: break;
    default: return false;
    }
    if (self.list->shape > JINJA_TUPLE) return false;
    bool found = find_in(out, jinja_list_methods, name, size);
    return found && (self.list->shape == JINJA_PLAIN || *out == index_ || *out == count);
}

/* An item beside the one under way; what there is none of is undefined. */
static bool neighbour(jinja_value *out, jinja_run *r, jinja_loop *loop, bool next) {
    static const jinja_missing none = {"there is no item beside this one", NULL, 0};
    bool there = loop->index > 0;
    size_t at = next ? loop->index + 1 : loop->index - 1;
    if (next && !jinja_accept(&there, r, loop, at)) return false;
    *out =
        there ? loop->accepted.items[at] : (jinja_value){.kind = JINJA_UNDEFINED, .missing = &none};
    return true;
}

/* All items that meet the condition. */
static bool loop_length(int64_t *out, jinja_run *r, jinja_loop *loop) {
    bool there;
    if (!jinja_accept(&there, r, loop, loop->items->n)) return false;
    *out = (int64_t)loop->accepted.n;
    return true;
}

bool jinja_loop_attribute(jinja_value *out, jinja_run *r, jinja_value self, const char *name,
                          size_t size) {
    jinja_loop *loop = self.loop;
    int64_t index = (int64_t)loop->index, n = 0;
    bool there;
    jinja_function *call;
    bool counts =
        is("length", name, size) || is("revindex", name, size) || is("revindex0", name, size);
    if (counts && !loop_length(&n, r, loop)) return false;
    if (is("index", name, size)) return *out = jinja_int(index + 1), true;
    if (is("index0", name, size)) return *out = jinja_int(index), true;
    if (is("first", name, size)) return *out = jinja_bool(index == 0), true;
    if (is("length", name, size)) return *out = jinja_int(n), true;
    if (is("revindex", name, size)) return *out = jinja_int(n - index), true;
    if (is("revindex0", name, size)) return *out = jinja_int(n - index - 1), true;
    if (is("depth", name, size)) return *out = jinja_int(loop->level + 1), true;
    if (is("depth0", name, size)) return *out = jinja_int(loop->level), true;
    if (is("previtem", name, size)) return neighbour(out, r, loop, false);
    if (is("nextitem", name, size)) return neighbour(out, r, loop, true);
    if (is("last", name, size)) {
        if (!jinja_accept(&there, r, loop, loop->index + 1)) return false;
        return *out = jinja_bool(!there), true;
    }
    if (!find_in(&call, loop_methods, name, size)) {
        return jinja_fail(r, "loop has no attribute '%.*s'", size > 100 ? 100 : (int)size, name);
    }
    jinja_method *m = jinja_new(r, sizeof *m);
    if (!m) return false;
    *m = (jinja_method){.call = call, .self = self};
    *out = (jinja_value){.kind = JINJA_METHOD, .method = m};
    return true;
}
