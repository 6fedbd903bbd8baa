/* Filters over rows of values. */
#include "jinja/run.h"

#include <string.h>

static bool is_given(jinja_value v) {
    return v.kind != JINJA_UNDEFINED && v.kind != JINJA_NONE;
}

/* ---- order ----------------------------------------------------------------------------- */

/* What values are compared by: an attribute of theirs, letters of either case alike. */
typedef struct key {
    jinja_value attribute;
    bool exact;
} key;

static bool key_of(jinja_value *out, jinja_run *r, const key *k, jinja_value v) {
    *out = v;
    if (is_given(k->attribute) && !jinja_path(out, r, v, k->attribute, NULL)) return false;
    bool recase = !k->exact && out->kind == JINJA_TEXT;
    return !recase || jinja_recase(out, r, out->text, JINJA_LOWER);
}

/* "a,b": by a, then by b. */
static bool sort_key(jinja_value *out, jinja_run *r, const key *k, jinja_value v) {
    bool several = k->attribute.kind == JINJA_TEXT && k->attribute.text->size > 0 &&
                   memchr(k->attribute.text->bytes, ',', k->attribute.text->size);
    if (!several) return key_of(out, r, k, v);
    const jinja_text *names = k->attribute.text;
    if (!jinja_new_list(out, r, JINJA_TUPLE, 0)) return false;
    for (size_t at = 0, end; at <= names->size; at = end + 1) {
        jinja_value part;
        key one = *k;
        const char *comma =
            at < names->size ? memchr(names->bytes + at, ',', names->size - at) : NULL;
        end = comma ? (size_t)(comma - names->bytes) : names->size;
        if (!jinja_part(&one.attribute, r, names, at, end) || !key_of(&part, r, &one, v) ||
            !jinja_push(r, out->list, part)) {
            return false;
        }
    }
    return true;
}

typedef struct entry {
    jinja_value key, value;
} entry;

/* Merges two sorted halves; equal entries keep their order, also in reverse. */
static bool merge(jinja_run *r, entry *out, const entry *a, size_t n_a, const entry *b, size_t n_b,
                  bool reverse) {
    while (n_a > 0 && n_b > 0) {
        int order;
        if (!jinja_compare(&order, r, b->key, a->key)) return false;
        if (order == (reverse ? 1 : -1)) {
            *out++ = *b++;
            n_b--;
        } else {
            *out++ = *a++;
            n_a--;
        }
    }
    if (n_a > 0) memcpy(out, a, n_a * sizeof *out);
    if (n_b > 0) memcpy(out + n_a, b, n_b * sizeof *out);
    return true;
}

static bool sort_entries(jinja_run *r, entry *entries, size_t n, bool reverse) {
    entry *other = jinja_new(r, (n + 1) * sizeof *other), *own = entries;
    if (!other) return false;
    for (size_t run = 1; run < n; run *= 2) {
        for (size_t at = 0; at < n; at += 2 * run) {
            size_t n_a = n - at < run ? n - at : run;
            size_t n_b = n - at - n_a < run ? n - at - n_a : run;
            if (!merge(r, other + at, own + at, n_a, own + at + n_a, n_b, reverse)) return false;
        }
        entry *swap = own;
        own = other;
        other = swap;
    }
    if (own != entries) memcpy(entries, own, n * sizeof *own);
    return true;
}

static bool sorted(jinja_value *out, jinja_run *r, const jinja_list *items, const key *k,
                   bool reverse) {
    entry *entries = jinja_new(r, (items->n + 1) * sizeof *entries);
    if (!entries || !jinja_new_list(out, r, JINJA_PLAIN, items->n)) return false;
    for (size_t i = 0; i < items->n; i++) {
        entries[i].value = items->items[i];
        if (!sort_key(&entries[i].key, r, k, items->items[i])) return false;
    }
    if (!sort_entries(r, entries, items->n, reverse)) return false;
    for (size_t i = 0; i < items->n; i++) {
        if (!jinja_push(r, out->list, entries[i].value)) return false;
    }
    return true;
}

static bool sort(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[3];
    const jinja_list *items;
    if (!jinja_bind(bound, r, args, "sort", "reverse,case_sensitive,attribute") ||
        !jinja_items(&items, r, self)) {
        return false;
    }
    key k = {bound[2], jinja_is_true(bound[1])};
    return sorted(out, r, items, &k, jinja_is_true(bound[0]));
}

static bool dictsort(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[3], pairs;
    if (!jinja_bind(bound, r, args, "dictsort", "case_sensitive,by,reverse")) return false;
    if (self.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, self);
    if (self.kind != JINJA_DICT) return jinja_fail(r, "dictsort wants a dict");
    bool by_value = bound[1].kind == JINJA_TEXT && jinja_is(bound[1].text, "value");
    key k = {jinja_int(by_value), jinja_is_true(bound[0])};
    return jinja_pairs(&pairs, r, self.dict, JINJA_PLAIN) &&
           sorted(out, r, pairs.list, &k, jinja_is_true(bound[2]));
}

static bool unique(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[2], seen;
    const jinja_list *items;
    if (!jinja_bind(bound, r, args, "unique", "case_sensitive,attribute") ||
        !jinja_items(&items, r, self) || !jinja_new_dict(&seen, r) ||
        !jinja_new_list(out, r, JINJA_GENERATOR, 0)) {
        return false;
    }
    key k = {bound[1], jinja_is_true(bound[0])};
    for (size_t i = 0; i < items->n; i++) {
        jinja_value by;
        size_t at;
        if (!key_of(&by, r, &k, items->items[i]) || !jinja_find_key(&at, r, seen.dict, by)) {
            return false;
        }
        if (at < seen.dict->n) continue;
        if (!jinja_set_key(r, seen.dict, by, jinja_none()) ||
            !jinja_push(r, out->list, items->items[i])) {
            return false;
        }
    }
    return true;
}

/* The least or greatest: the first of equal ones. */
static bool extreme(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                    int wanted) {
    static const jinja_missing none = {"No aggregated item, sequence was empty.", NULL, 0};
    jinja_value bound[2], best = jinja_none();
    const jinja_list *items;
    if (!jinja_bind(bound, r, args, "min", "case_sensitive,attribute") ||
        !jinja_items(&items, r, self)) {
        return false;
    }
    key k = {bound[1], jinja_is_true(bound[0])};
    *out = (jinja_value){.kind = JINJA_UNDEFINED, .missing = &none};
    for (size_t i = 0; i < items->n; i++) {
        jinja_value by;
        int order = wanted;
        if (!key_of(&by, r, &k, items->items[i])) return false;
        if (i > 0 && !jinja_compare(&order, r, by, best)) return false;
        if (order != wanted) continue;
        best = by;
        *out = items->items[i];
    }
    return true;
}

static bool min(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return extreme(out, r, self, args, -1);
}

static bool max(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return extreme(out, r, self, args, 1);
}

/* ---- each of them ---------------------------------------------------------------------- */

/* Arguments behind the first n. */
static jinja_args behind(const jinja_args *args, size_t n) {
    jinja_args rest = *args;
    if (n > 0) rest.values += n;
    rest.n -= n;
    return rest;
}

static const jinja_value *named(const jinja_args *args, const char *name) {
    for (size_t i = 0; i < args->n_named; i++) {
        if (strcmp(args->names[i], name) == 0) return &args->named[i];
    }
    return NULL;
}

/* A text as a name in C. */
static bool name_of(const char **out, jinja_run *r, jinja_value v, const char *what) {
    const jinja_text *text;
    char name[64];
    if (!jinja_text_arg(&text, r, v, what)) return false;
    if (text->size >= sizeof name) return jinja_fail(r, "there is nothing of such a long name");
    char *copy = jinja_new(r, text->size + 1);
    if (!copy) return false;
    if (text->size > 0) memcpy(copy, text->bytes, text->size);
    *out = copy;
    return true;
}

static bool map_one(jinja_value *out, jinja_run *r, jinja_value item, const jinja_args *args) {
    const jinja_value *attribute = named(args, "attribute"), *otherwise = named(args, "default");
    const char *filter = NULL;
    if (attribute && args->n == 0) return jinja_path(out, r, item, *attribute, otherwise);
    if (args->n == 0) return jinja_fail(r, "map requires a filter argument");
    jinja_args rest = behind(args, 1);
    return name_of(&filter, r, args->values[0], "map") && jinja_filter(out, r, filter, item, &rest);
}

static bool map(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    const jinja_list *items;
    if (!jinja_new_list(out, r, JINJA_GENERATOR, 0)) return false;
    if (!jinja_is_true(self)) return true; /* as Jinja2 has it, none, too */
    if (!jinja_items(&items, r, self)) return false;
    for (size_t i = 0; i < items->n; i++) {
        jinja_value v;
        if (!map_one(&v, r, items->items[i], args) || !jinja_push(r, out->list, v)) return false;
    }
    return true;
}

/* Items whose own value, or attribute (the first argument), passes a test or not. */
static bool select_by(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                      bool attribute, bool wanted) {
    const jinja_list *items;
    const char *test = NULL;
    if (attribute && args->n == 0) return jinja_fail(r, "the filter wants an attribute");
    jinja_args rest = behind(args, attribute);
    if (rest.n > 0) {
        if (!name_of(&test, r, rest.values[0], "a test")) return false;
        rest = behind(&rest, 1);
    }
    if (!jinja_new_list(out, r, JINJA_GENERATOR, 0)) return false;
    if (!jinja_is_true(self)) return true;
    if (!jinja_items(&items, r, self)) return false;
    for (size_t i = 0; i < items->n; i++) {
        jinja_value v = items->items[i];
        if (attribute && !jinja_path(&v, r, v, args->values[0], NULL)) return false;
        bool passes = jinja_is_true(v);
        if (test && !jinja_test(&passes, r, test, v, &rest)) return false;
        if (passes == wanted && !jinja_push(r, out->list, items->items[i])) return false;
    }
    return true;
}

static bool select_(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return select_by(out, r, self, args, false, true);
}

static bool reject(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return select_by(out, r, self, args, false, false);
}

static bool selectattr(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return select_by(out, r, self, args, true, true);
}

static bool rejectattr(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return select_by(out, r, self, args, true, false);
}

/* ---- all of them ----------------------------------------------------------------------- */

static bool join(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    static const jinja_text nothing = {.bytes = ""};
    jinja_value bound[2];
    const jinja_list *items;
    const jinja_text *between = &nothing;
    jinja_builder b = {.run = r};
    if (!jinja_bind(bound, r, args, "join", "d,attribute") || !jinja_items(&items, r, self) ||
        !jinja_to_text(&between, r, bound[0])) {
        return false;
    }
    for (size_t i = 0; i < items->n; i++) {
        jinja_value v = items->items[i];
        if (is_given(bound[1]) && !jinja_path(&v, r, v, bound[1], NULL)) return false;
        if ((i > 0 && !jinja_put_text(&b, between)) || !jinja_show(&b, v)) return false;
    }
    return jinja_finish(out, &b);
}

static bool sum(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[2];
    const jinja_list *items;
    if (!jinja_bind(bound, r, args, "sum", "attribute,start") || !jinja_items(&items, r, self)) {
        return false;
    }
    *out = is_given(bound[1]) ? bound[1] : jinja_int(0);
    for (size_t i = 0; i < items->n; i++) {
        jinja_value v = items->items[i];
        if (is_given(bound[0]) && !jinja_path(&v, r, v, bound[0], NULL)) return false;
        if (!jinja_operate(out, r, JINJA_ADD, *out, v)) return false;
    }
    return true;
}

static bool end_item(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args,
                     bool last) {
    static const jinja_missing none = {"No item, sequence was empty.", NULL, 0};
    const jinja_list *items;
    if (!jinja_bind(NULL, r, args, "first", "") || !jinja_items(&items, r, self)) return false;
    *out = items->n > 0 ? items->items[last ? items->n - 1 : 0]
                        : (jinja_value){.kind = JINJA_UNDEFINED, .missing = &none};
    return true;
}

static bool first(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return end_item(out, r, self, args, false);
}

static bool last(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    return end_item(out, r, self, args, true);
}

static bool list(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    const jinja_list *items;
    return jinja_bind(NULL, r, args, "list", "") && jinja_items(&items, r, self) &&
           jinja_list_of(out, r, JINJA_PLAIN, items->items, items->n);
}

static bool reverse(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    const jinja_list *items;
    jinja_builder b = {.run = r};
    bool text = self.kind == JINJA_TEXT;
    if (!jinja_bind(NULL, r, args, "reverse", "") || !jinja_items(&items, r, self) ||
        !jinja_new_list(out, r, JINJA_GENERATOR, 0)) {
        return false;
    }
    for (size_t i = items->n; i-- > 0;) {
        if (text ? !jinja_put_text(&b, items->items[i].text)
                 : !jinja_push(r, out->list, items->items[i])) {
            return false;
        }
    }
    return !text || jinja_finish(out, &b);
}

/* Rows of n items each, the last one filled up. */
static bool batch(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    jinja_value bound[2], row = jinja_none();
    const jinja_list *items;
    int64_t n;
    if (!jinja_bind(bound, r, args, "batch", "linecount,fill_with") ||
        !jinja_int_arg(&n, r, bound[0], "linecount", 0) || !jinja_items(&items, r, self) ||
        !jinja_new_list(out, r, JINJA_GENERATOR, 0)) {
        return false;
    }
    if (n < 1) return jinja_fail(r, "batch wants a number above 0");
    for (size_t i = 0; i < items->n; i++) {
        bool begins = i % (size_t)n == 0;
        if (begins && !(jinja_new_list(&row, r, JINJA_PLAIN, 0) && jinja_push(r, out->list, row))) {
            return false;
        }
        if (!jinja_push(r, row.list, items->items[i])) return false;
    }
    while (items->n > 0 && is_given(bound[1]) && row.list->n < (size_t)n) {
        if (!jinja_push(r, row.list, bound[1])) return false;
    }
    return true;
}

static bool items(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args) {
    if (!jinja_bind(NULL, r, args, "items", "")) return false;
    if (self.kind == JINJA_UNDEFINED) return jinja_new_list(out, r, JINJA_GENERATOR, 0);
    if (self.kind != JINJA_DICT) return jinja_fail(r, "Can only get item pairs from a mapping.");
    return jinja_pairs(out, r, self.dict, JINJA_GENERATOR);
}

const jinja_global jinja_filters_of_lists[] = {
    {"sort", sort},
    {"dictsort", dictsort},
    {"unique", unique},
    {"min", min},
    {"max", max},
    {"map", map},
    {"select", select_},
    {"reject", reject},
    {"selectattr", selectattr},
    {"rejectattr", rejectattr},
    {"join", join},
    {"sum", sum},
    {"first", first},
    {"last", last},
    {"list", list},
    {"reverse", reverse},
    {"batch", batch},
    {"items", items},
    {0},
};
