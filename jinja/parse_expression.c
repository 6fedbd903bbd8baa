#include "jinja/parse.h"

#include <string.h>

static jinja_node *parse_primary(jinja_parser *p);
static jinja_node *parse_unary(jinja_parser *p, bool with_filters);

/* A node over two others. */
static jinja_node *pair(jinja_parser *p, jinja_node_kind kind, int line, jinja_node *a,
                        jinja_node *b) {
    jinja_node *node = a && b ? jinja_make(p, kind, line) : NULL;
    if (!node) return NULL;
    node->a = a;
    node->b = b;
    return node;
}

/* ---- arguments ------------------------------------------------------------------------- */

static bool is_named_argument(const jinja_parser *p) {
    const jinja_token *next = p->now + 1;
    return p->now->kind == JINJA_NAME && next->kind == JINJA_OPERATOR && next->size == 1 &&
           *next->text == '=';
}

static bool parse_named(jinja_parser *p, jinja_node *call) {
    const char *name = jinja_take_name(p);
    if (!name || !jinja_expect(p, "=")) return false;
    size_t n = call->named.n;
    const char **names = call->names;
    if ((n & (n - 1)) == 0) { /* powers of two are where there is no more room */
        names = jinja_take(&p->t->region, (n ? 2 * n : 1) * sizeof *names);
        if (!names) return jinja_no_room(p);
        if (n > 0) memcpy(names, call->names, n * sizeof *names);
        call->names = names;
    }
    names[n] = name;
    return jinja_add(p, &call->named, jinja_parse_expression(p, true));
}

static bool parse_argument(jinja_parser *p, jinja_node *call) {
    int line = p->now->line;
    if (jinja_skip(p, "**")) {
        if (call->keys) return jinja_parse_fail(p, line, "a call has ** twice");
        call->keys = jinja_parse_expression(p, true);
        return call->keys != NULL;
    }
    if (call->keys) return jinja_parse_fail(p, line, "an argument stands behind **");
    if (jinja_skip(p, "*")) {
        if (call->rest) return jinja_parse_fail(p, line, "a call has * twice");
        call->rest = jinja_parse_expression(p, true);
        return call->rest != NULL;
    }
    if (is_named_argument(p)) return parse_named(p, call);
    if (call->rest || call->named.n > 0) {
        return jinja_parse_fail(p, line,
                                "an argument without a name stands behind one with a name");
    }
    return jinja_add(p, &call->items, jinja_parse_expression(p, true));
}

/* From "(" to ")". */
static bool parse_arguments(jinja_parser *p, jinja_node *call) {
    if (!jinja_expect(p, "(")) return false;
    for (bool first = true; !jinja_sees(p, ")"); first = false) {
        if (!first && !jinja_expect(p, ",")) return false;
        if (!first && jinja_sees(p, ")")) break;
        if (!parse_argument(p, call)) return false;
    }
    return jinja_expect(p, ")");
}

/* ---- what follows a value -------------------------------------------------------------- */

/* [a], [a:b], [a:b:c] behind the bracket. */
static jinja_node *parse_subscript(jinja_parser *p, jinja_node *of, int line) {
    jinja_node *parts[3] = {NULL, NULL, NULL};
    int n = 0;
    bool slice = false;
    for (; n < 3; n++) {
        if (!jinja_sees(p, ":") && !jinja_sees(p, "]") && !jinja_sees(p, ",")) {
            parts[n] = jinja_parse_expression(p, true);
            if (!parts[n]) return NULL;
        }
        if (n == 2 || !jinja_skip(p, ":")) break;
        slice = true;
    }
    if (!slice && !parts[0]) {
        jinja_parse_fail(p, line, "an index is missing");
        return NULL;
    }
    if (!jinja_expect(p, "]")) return NULL;
    if (!slice) return pair(p, JINJA_NODE_ITEM, line, of, parts[0]);
    jinja_node *node = jinja_make(p, JINJA_NODE_SLICE, line);
    if (!node) return NULL;
    node->a = of;
    for (int i = 0; i < 3; i++) {
        if (!jinja_add(p, &node->items, parts[i] ? parts[i] : of)) return NULL;
        if (!parts[i]) node->items.items[i] = NULL;
    }
    return node;
}

static jinja_node *parse_member(jinja_parser *p, jinja_node *of, int line) {
    if (p->now->kind == JINJA_INTEGER) {
        jinja_node *index = jinja_make(p, JINJA_NODE_CONSTANT, line);
        if (!index) return NULL;
        index->value = jinja_int(p->now->integer);
        p->now++;
        return pair(p, JINJA_NODE_ITEM, line, of, index);
    }
    const char *name = jinja_take_name(p);
    jinja_node *node = name ? jinja_make(p, JINJA_NODE_ATTRIBUTE, line) : NULL;
    if (!node) return NULL;
    node->a = of;
    node->name = name;
    return node;
}

static jinja_node *parse_call(jinja_parser *p, jinja_node *of) {
    jinja_node *node = jinja_make(p, JINJA_NODE_CALL, p->now->line);
    if (!node) return NULL;
    node->a = of;
    return parse_arguments(p, node) ? node : NULL;
}

static jinja_node *parse_postfix(jinja_parser *p, jinja_node *node) {
    while (node) {
        int line = p->now->line;
        if (jinja_skip(p, ".")) {
            node = parse_member(p, node, line);
        } else if (jinja_skip(p, "[")) {
            node = parse_subscript(p, node, line);
        } else if (jinja_sees(p, "(")) {
            node = parse_call(p, node);
        } else {
            break;
        }
    }
    return node;
}

jinja_node *jinja_parse_filters(jinja_parser *p, jinja_node *of, bool first) {
    for (; first || jinja_sees(p, "|"); first = false) {
        if (!first) p->now++;
        jinja_node *node = jinja_make(p, JINJA_NODE_FILTER, p->now->line);
        if (!node || !(node->name = jinja_take_name(p))) return NULL;
        node->a = of;
        if (jinja_sees(p, "(") && !parse_arguments(p, node)) return NULL;
        of = node;
    }
    return of;
}

/* Whether a test's argument may stand here without brackets around it. */
static bool begins_argument(const jinja_parser *p) {
    static const char *const others[] = {"else", "or", "and"};
    const jinja_token *t = p->now;
    if (t->kind == JINJA_NAME) {
        for (size_t i = 0; i < 3; i++) {
            if (jinja_sees_name(p, others[i])) return false;
        }
        return true;
    }
    if (t->kind == JINJA_STRING || t->kind == JINJA_INTEGER || t->kind == JINJA_REAL) return true;
    return jinja_sees(p, "[") || jinja_sees(p, "{");
}

/* Behind "is". */
static jinja_node *parse_test(jinja_parser *p, jinja_node *of) {
    int line = p->now->line;
    bool negated = jinja_skip_name(p, "not");
    jinja_node *test = jinja_make(p, JINJA_NODE_TEST, line);
    if (!test || !(test->name = jinja_take_name(p))) return NULL;
    test->a = of;
    if (jinja_sees(p, "(")) {
        if (!parse_arguments(p, test)) return NULL;
    } else if (begins_argument(p)) {
        if (jinja_sees_name(p, "is")) {
            jinja_parse_fail(p, line, "tests cannot follow each other");
            return NULL;
        }
        if (!jinja_add(p, &test->items, parse_postfix(p, parse_primary(p)))) return NULL;
    }
    if (!negated) return test;
    jinja_node *node = jinja_make(p, JINJA_NODE_NOT, line);
    if (node) node->a = test;
    return node;
}

static jinja_node *parse_filters_and_tests(jinja_parser *p, jinja_node *node) {
    while (node) {
        if (jinja_sees(p, "|")) {
            node = jinja_parse_filters(p, node, false);
        } else if (jinja_skip_name(p, "is")) {
            node = parse_test(p, node);
        } else if (jinja_sees(p, "(")) {
            node = parse_call(p, node);
        } else {
            break;
        }
    }
    return node;
}

/* ---- values ---------------------------------------------------------------------------- */

static jinja_node *constant(jinja_parser *p, jinja_value value, int line) {
    jinja_node *node = jinja_make(p, JINJA_NODE_CONSTANT, line);
    if (node) node->value = value;
    return node;
}

static jinja_node *parse_name(jinja_parser *p) {
    int line = p->now->line;
    const char *name = jinja_take_name(p);
    if (!name) return NULL;
    if (strcmp(name, "true") == 0 || strcmp(name, "True") == 0) {
        return constant(p, jinja_bool(true), line);
    }
    if (strcmp(name, "false") == 0 || strcmp(name, "False") == 0) {
        return constant(p, jinja_bool(false), line);
    }
    if (strcmp(name, "none") == 0 || strcmp(name, "None") == 0) {
        return constant(p, jinja_none(), line);
    }
    p->rest |= name == p->t->rest;
    p->keys |= name == p->t->keys;
    p->caller |= name == p->t->caller;
    jinja_node *node = jinja_make(p, JINJA_NODE_NAME, line);
    if (node) node->name = name;
    return node;
}

/* Strings side by side are one. */
static jinja_node *parse_string(jinja_parser *p) {
    const jinja_token *first = p->now;
    size_t size = 0;
    for (; p->now->kind == JINJA_STRING; p->now++) size += p->now->size;
    char *bytes = jinja_take(&p->t->region, size + 1);
    jinja_text *text = jinja_take(&p->t->region, sizeof *text);
    if (!bytes || !text) return jinja_no_room(p), NULL;
    *text = (jinja_text){.bytes = bytes, .size = size};
    for (const jinja_token *t = first; t < p->now; t++) {
        if (t->size > 0) memcpy(bytes, t->text, t->size);
        bytes += t->size;
    }
    return constant(p, jinja_of_text(text), first->line);
}

static jinja_node *parse_list(jinja_parser *p) {
    jinja_node *node = jinja_make(p, JINJA_NODE_LIST, p->now->line);
    if (!node || !jinja_expect(p, "[")) return NULL;
    for (bool first = true; !jinja_sees(p, "]"); first = false) {
        if (!first && !jinja_expect(p, ",")) return NULL;
        if (!first && jinja_sees(p, "]")) break;
        if (!jinja_add(p, &node->items, jinja_parse_expression(p, true))) return NULL;
    }
    return jinja_expect(p, "]") ? node : NULL;
}

static jinja_node *parse_dict(jinja_parser *p) {
    jinja_node *node = jinja_make(p, JINJA_NODE_DICT, p->now->line);
    if (!node || !jinja_expect(p, "{")) return NULL;
    for (bool first = true; !jinja_sees(p, "}"); first = false) {
        if (!first && !jinja_expect(p, ",")) return NULL;
        if (!first && jinja_sees(p, "}")) break;
        if (!jinja_add(p, &node->items, jinja_parse_expression(p, true))) return NULL;
        if (!jinja_expect(p, ":")) return NULL;
        if (!jinja_add(p, &node->named, jinja_parse_expression(p, true))) return NULL;
    }
    return jinja_expect(p, "}") ? node : NULL;
}

static jinja_node *parse_brackets(jinja_parser *p) {
    if (jinja_sees(p, "[")) return parse_list(p);
    if (jinja_sees(p, "{")) return parse_dict(p);
    int line = p->now->line;
    if (!jinja_expect(p, "(")) return NULL;
    if (jinja_skip(p, ")")) return jinja_make(p, JINJA_NODE_TUPLE, line);
    jinja_node *node = jinja_parse_tuple(p, true, NULL);
    return node && jinja_expect(p, ")") ? node : NULL;
}

static jinja_node *parse_primary(jinja_parser *p) {
    const jinja_token *t = p->now;
    switch (t->kind) {
    case JINJA_NAME: return parse_name(p);
    case JINJA_STRING: return parse_string(p);
    case JINJA_INTEGER: p->now++; return constant(p, jinja_int(t->integer), t->line);
    case JINJA_REAL: p->now++; return constant(p, jinja_float(t->real), t->line);
    default: break;
    }
    if (jinja_sees(p, "(") || jinja_sees(p, "[") || jinja_sees(p, "{")) {
        if (!jinja_nest(p)) return NULL;
        jinja_node *node = parse_brackets(p);
        p->nested--;
        return node;
    }
    jinja_parse_fail(p, t->line, "a value is missing before \"%.*s\"",
                     (int)(t->size > 40 ? 40 : t->size), t->text ? t->text : "the end");
    return NULL;
}

/* ---- operators, the ones that bind most first ------------------------------------------ */

static jinja_node *parse_sign(jinja_parser *p, bool minus) {
    jinja_node *node = jinja_make(p, minus ? JINJA_NODE_MINUS : JINJA_NODE_PLUS, p->now->line);
    p->now++;
    if (!node || !jinja_nest(p)) return NULL;
    node->a = parse_unary(p, false);
    p->nested--;
    return node->a ? node : NULL;
}

static jinja_node *parse_unary(jinja_parser *p, bool with_filters) {
    bool minus = jinja_sees(p, "-");
    jinja_node *node = minus || jinja_sees(p, "+") ? parse_sign(p, minus) : parse_primary(p);
    node = parse_postfix(p, node);
    return with_filters ? parse_filters_and_tests(p, node) : node;
}

typedef struct operator_name {
    const char *text;
    jinja_operator op;
} operator_name;

/* The operator that stands here, passed; NULL where it is none of them. */
static const operator_name *skip_any(jinja_parser *p, const operator_name *names) {
    for (; names->text; names++) {
        if (jinja_skip(p, names->text)) return names;
    }
    return NULL;
}

static jinja_node *operation(jinja_parser *p, jinja_operator op, int line, jinja_node *a,
                             jinja_node *b) {
    jinja_node *node = pair(p, JINJA_NODE_OPERATE, line, a, b);
    if (node) node->op = op;
    return node;
}

static jinja_node *parse_power(jinja_parser *p) {
    static const operator_name names[] = {{"**", JINJA_POWER}, {0}};
    jinja_node *node = parse_unary(p, true);
    const operator_name *op;
    for (int line = p->now->line; node && (op = skip_any(p, names)); line = p->now->line) {
        node = operation(p, op->op, line, node, parse_unary(p, true));
    }
    return node;
}

static jinja_node *parse_product(jinja_parser *p) {
    static const operator_name names[] = {{"*", JINJA_MULTIPLY},
                                          {"//", JINJA_FLOOR_DIVIDE},
                                          {"/", JINJA_DIVIDE},
                                          {"%", JINJA_MODULO},
                                          {0}};
    jinja_node *node = parse_power(p);
    const operator_name *op;
    for (int line = p->now->line; node && (op = skip_any(p, names)); line = p->now->line) {
        node = operation(p, op->op, line, node, parse_power(p));
    }
    return node;
}

static jinja_node *parse_concat(jinja_parser *p) {
    int line = p->now->line;
    jinja_node *node = parse_product(p);
    if (!node || !jinja_sees(p, "~")) return node;
    jinja_node *all = jinja_make(p, JINJA_NODE_CONCAT, line);
    if (!all || !jinja_add(p, &all->items, node)) return NULL;
    while (jinja_skip(p, "~")) {
        if (!jinja_add(p, &all->items, parse_product(p))) return NULL;
    }
    return all;
}

static jinja_node *parse_sum(jinja_parser *p) {
    static const operator_name names[] = {{"+", JINJA_ADD}, {"-", JINJA_SUBTRACT}, {0}};
    jinja_node *node = parse_concat(p);
    const operator_name *op;
    for (int line = p->now->line; node && (op = skip_any(p, names)); line = p->now->line) {
        node = operation(p, op->op, line, node, parse_concat(p));
    }
    return node;
}

static bool skip_comparison(jinja_parser *p, jinja_operator *out) {
    static const operator_name names[] = {{"==", JINJA_EQUAL},
                                          {"!=", JINJA_NOT_EQUAL},
                                          {"<=", JINJA_AT_MOST},
                                          {">=", JINJA_AT_LEAST},
                                          {"<", JINJA_BELOW},
                                          {">", JINJA_ABOVE},
                                          {0}};
    const operator_name *op = skip_any(p, names);
    const jinja_token *next = p->now + 1;
    if (op) return *out = op->op, true;
    if (jinja_skip_name(p, "in")) return *out = JINJA_IN, true;
    bool not_in = jinja_sees_name(p, "not") && next->kind == JINJA_NAME && next->size == 2 &&
                  memcmp(next->text, "in", 2) == 0;
    if (!not_in) return false;
    p->now += 2;
    return *out = JINJA_NOT_IN, true;
}

static jinja_node *parse_comparison(jinja_parser *p) {
    int line = p->now->line;
    jinja_node *node = parse_sum(p), *all = NULL;
    for (jinja_operator op; node && skip_comparison(p, &op);) {
        jinja_node *right = parse_sum(p);
        jinja_node *one = operation(p, op, line, node, right);
        if (!one || (!all && !(all = jinja_make(p, JINJA_NODE_COMPARE, line)))) return NULL;
        if (!all->a) all->a = node;
        if (!jinja_add(p, &all->items, one)) return NULL;
    }
    return all ? all : node;
}

static jinja_node *parse_not(jinja_parser *p) {
    int line = p->now->line;
    if (!jinja_skip_name(p, "not")) return parse_comparison(p);
    jinja_node *node = jinja_make(p, JINJA_NODE_NOT, line);
    if (!node || !jinja_nest(p)) return NULL;
    node->a = parse_not(p);
    p->nested--;
    return node->a ? node : NULL;
}

static jinja_node *parse_and(jinja_parser *p) {
    int line = p->now->line;
    jinja_node *node = parse_not(p);
    while (node && jinja_skip_name(p, "and")) {
        node = pair(p, JINJA_NODE_AND, line, node, parse_not(p));
    }
    return node;
}

static jinja_node *parse_or(jinja_parser *p) {
    int line = p->now->line;
    jinja_node *node = parse_and(p);
    while (node && jinja_skip_name(p, "or")) {
        node = pair(p, JINJA_NODE_OR, line, node, parse_and(p));
    }
    return node;
}

static jinja_node *parse_choice(jinja_parser *p) {
    int line = p->now->line;
    jinja_node *node = parse_or(p);
    while (node && jinja_skip_name(p, "if")) {
        jinja_node *choice = pair(p, JINJA_NODE_CHOOSE, line, node, parse_or(p));
        if (!choice) return NULL;
        if (jinja_skip_name(p, "else")) {
            if (!jinja_nest(p)) return NULL;
            choice->c = parse_choice(p);
            p->nested--;
            if (!choice->c) return NULL;
        }
        node = choice;
    }
    return node;
}

jinja_node *jinja_parse_expression(jinja_parser *p, bool with_choice) {
    return with_choice ? parse_choice(p) : parse_or(p);
}

/* ---- tuples and targets ---------------------------------------------------------------- */

static bool ends_tuple(const jinja_parser *p, const char *up_to) {
    jinja_token_kind kind = p->now->kind;
    if (kind == JINJA_BLOCK_END || kind == JINJA_PRINT_END || kind == JINJA_END) return true;
    return jinja_sees(p, ")") || jinja_sees(p, "=") || (up_to && jinja_sees_name(p, up_to));
}

typedef jinja_node *part_parser(jinja_parser *p, bool flag);

static jinja_node *parse_parts(jinja_parser *p, part_parser *parse, bool flag, const char *up_to) {
    int line = p->now->line;
    jinja_node *first = parse(p, flag);
    if (!first || !jinja_sees(p, ",")) return first;
    jinja_node *tuple = jinja_make(p, JINJA_NODE_TUPLE, line);
    if (!tuple || !jinja_add(p, &tuple->items, first)) return NULL;
    while (jinja_skip(p, ",") && !ends_tuple(p, up_to)) {
        if (!jinja_add(p, &tuple->items, parse(p, flag))) return NULL;
    }
    return tuple;
}

jinja_node *jinja_parse_tuple(jinja_parser *p, bool with_choice, const char *up_to) {
    return parse_parts(p, jinja_parse_expression, with_choice, up_to);
}

static jinja_node *parse_single_target(jinja_parser *p, bool members) {
    int line = p->now->line;
    if (jinja_skip(p, "(")) {
        if (!jinja_nest(p)) return NULL;
        jinja_node *inner = jinja_parse_target(p, members, NULL);
        p->nested--;
        return inner && jinja_expect(p, ")") ? inner : NULL;
    }
    jinja_node *node = p->now->kind == JINJA_NAME ? parse_name(p) : NULL;
    if (!node || node->kind != JINJA_NODE_NAME) {
        jinja_parse_fail(p, line, "a name to assign to is missing");
        return NULL;
    }
    if (!members || !jinja_skip(p, ".")) return node;
    jinja_node *member = jinja_make(p, JINJA_NODE_MEMBER, line);
    if (!member || !(member->name = jinja_take_name(p))) return NULL;
    member->a = node;
    return member;
}

jinja_node *jinja_parse_target(jinja_parser *p, bool members, const char *up_to) {
    return parse_parts(p, parse_single_target, members, up_to);
}
