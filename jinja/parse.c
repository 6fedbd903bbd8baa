#include "jinja/parse.h"

#include "base/hash.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARSED_BYTES = 32 << 20 }; /* of a tree and its tokens */

/* ---- names ----------------------------------------------------------------------------- */

const char *jinja_intern(cca_jinja *t, const char *name, size_t size, bool add) {
    jinja_name **chain = &t->names[cca_hash(name, size) % JINJA_NAME_CHAINS];
    for (const jinja_name *n = *chain; n; n = n->next) {
        if (strncmp(n->text, name, size) == 0 && n->text[size] == 0) return n->text;
    }
    if (!add) return NULL;
    jinja_name *own = jinja_take(&t->region, sizeof *own);
    char *copy = jinja_take(&t->region, size + 1);
    if (!own || !copy) return NULL;
    memcpy(copy, name, size);
    *own = (jinja_name){copy, *chain};
    *chain = own;
    return copy;
}

const char *jinja_name_of(const cca_jinja *t, const char *name, size_t size) {
    return jinja_intern((cca_jinja *)t, name, size, false); /* which then changes nothing */
}

/* ---- what both parts of the parser use ------------------------------------------------- */

bool jinja_parse_fail(jinja_parser *p, int line, const char *format, ...) {
    char text[256];
    va_list args;
    if (p->status) return false; /* the first one is the cause */
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    p->status = cca_fail(p->err, CCA_BAD_MODEL, "%s, line %d: %s", p->t->name, line, text);
    return false;
}

bool jinja_no_room(jinja_parser *p) {
    if (p->t->region.full) {
        return jinja_parse_fail(p, p->now->line, "the template has too many parts");
    }
    p->status = cca_fail(p->err, CCA_NO_MEMORY, "%s: no memory", p->t->name);
    return false;
}

static bool is_word(const jinja_token *t, jinja_token_kind kind, const char *text) {
    size_t n = strlen(text);
    return t->kind == kind && t->size == n && memcmp(t->text, text, n) == 0;
}

bool jinja_sees(const jinja_parser *p, const char *operator_text) {
    return is_word(p->now, JINJA_OPERATOR, operator_text);
}

bool jinja_sees_name(const jinja_parser *p, const char *name) {
    return is_word(p->now, JINJA_NAME, name);
}

bool jinja_skip(jinja_parser *p, const char *operator_text) {
    bool there = jinja_sees(p, operator_text);
    p->now += there;
    return there;
}

bool jinja_skip_name(jinja_parser *p, const char *name) {
    bool there = jinja_sees_name(p, name);
    p->now += there;
    return there;
}

static bool fail_expected(jinja_parser *p, const char *what) {
    const jinja_token *t = p->now;
    bool spelled = t->kind >= JINJA_BLOCK_BEGIN && t->text;
    return jinja_parse_fail(p, t->line, "%s expected, not \"%.*s\"", what,
                            spelled ? (int)(t->size > 40 ? 40 : t->size) : 4,
                            spelled ? t->text : "text");
}

bool jinja_expect(jinja_parser *p, const char *operator_text) {
    return jinja_skip(p, operator_text) || fail_expected(p, operator_text);
}

bool jinja_expect_name(jinja_parser *p, const char *name) {
    return jinja_skip_name(p, name) || fail_expected(p, name);
}

const char *jinja_take_name(jinja_parser *p) {
    if (p->now->kind != JINJA_NAME) return fail_expected(p, "a name"), NULL;
    const char *name = jinja_intern(p->t, p->now->text, p->now->size, true);
    if (!name) return jinja_no_room(p), NULL;
    p->now++;
    return name;
}

jinja_node *jinja_make(jinja_parser *p, jinja_node_kind kind, int line) {
    jinja_node *node = jinja_take(&p->t->region, sizeof *node);
    if (!node) return jinja_no_room(p), NULL;
    node->kind = kind;
    node->line = line;
    return node;
}

bool jinja_add(jinja_parser *p, jinja_nodes *to, jinja_node *node) {
    if (!node) return false;
    jinja_node **grown = jinja_grow(&p->t->region, to->items, to->n, &to->capacity, sizeof *grown);
    if (!grown) return jinja_no_room(p);
    to->items = grown;
    to->items[to->n++] = node;
    return true;
}

bool jinja_nest(jinja_parser *p) {
    if (p->nested++ < CCA_JINJA_MOST_NESTED) return true;
    p->nested--;
    return jinja_parse_fail(p, p->now->line, "more than %d levels inside each other",
                            CCA_JINJA_MOST_NESTED);
}

/* ---- statements ------------------------------------------------------------------------ */

static bool parse_until(jinja_parser *p, jinja_node **out, const char *const *ends);

/* The rest of a tag, then statements up to a tag that begins with one of the names, which is not
 * passed; what those print goes to *out. */
static bool parse_body(jinja_parser *p, jinja_node **out, const char *const *ends) {
    jinja_skip(p, ":");
    if (p->now->kind != JINJA_BLOCK_END) return fail_expected(p, "%}");
    p->now++;
    if (!jinja_nest(p)) return false;
    bool done = parse_until(p, out, ends);
    p->nested--;
    return done;
}

/* A body that ends with one name, which is passed. */
static bool parse_whole_body(jinja_parser *p, jinja_node **out, const char *end) {
    const char *const ends[] = {end, NULL};
    if (!parse_body(p, out, ends)) return false;
    p->now++;
    return true;
}

static jinja_node *parse_if(jinja_parser *p, int line) {
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    jinja_node *first = NULL, **link = &first;
    for (;;) { /* each elif is an if in the else of the one before */
        jinja_node *node = jinja_make(p, JINJA_NODE_IF, line);
        if (!node || !(node->a = jinja_parse_tuple(p, false, NULL))) return NULL;
        if (!parse_body(p, &node->body, ends)) return NULL;
        node->flag = link != &first; /* an elif */
        *link = node;
        link = &node->other;
        line = p->now->line;
        if (jinja_skip_name(p, "elif")) continue;
        if (jinja_skip_name(p, "endif")) return first;
        p->now++;
        return parse_whole_body(p, link, "endif") ? first : NULL;
    }
}

static jinja_node *parse_for(jinja_parser *p, int line) {
    static const char *const ends[] = {"endfor", "else", NULL};
    jinja_node *node = jinja_make(p, JINJA_NODE_FOR, line);
    if (!node || !(node->a = jinja_parse_target(p, false, "in"))) return NULL;
    if (!jinja_expect_name(p, "in")) return NULL;
    if (!(node->b = jinja_parse_tuple(p, false, "recursive"))) return NULL;
    if (jinja_skip_name(p, "if") && !(node->c = jinja_parse_expression(p, true))) return NULL;
    node->flag = jinja_skip_name(p, "recursive");
    p->loops++;
    bool done = parse_body(p, &node->body, ends);
    p->loops--;
    if (!done) return NULL;
    if (jinja_skip_name(p, "endfor")) return node;
    p->now++;
    return parse_whole_body(p, &node->other, "endfor") ? node : NULL;
}

static jinja_node *parse_set(jinja_parser *p, int line) {
    jinja_node *node = jinja_make(p, JINJA_NODE_SET, line);
    if (!node || !(node->a = jinja_parse_target(p, true, NULL))) return NULL;
    if (jinja_skip(p, "=")) {
        node->b = jinja_parse_tuple(p, true, NULL);
        return node->b ? node : NULL;
    }
    node->kind = JINJA_NODE_SET_BLOCK;
    if (jinja_sees(p, "|") && !(node->b = jinja_parse_filters(p, NULL, false))) return NULL;
    return parse_whole_body(p, &node->body, "endset") ? node : NULL;
}

/* "(a, b=1)" of a macro or call block. */
static bool parse_parameters(jinja_parser *p, jinja_node *node) {
    if (!jinja_expect(p, "(")) return false;
    for (bool first = true; !jinja_sees(p, ")"); first = false) {
        if (!first && !jinja_expect(p, ",")) return false;
        if (!first && jinja_sees(p, ")")) break;
        jinja_node *parameter = jinja_make(p, JINJA_NODE_NAME, p->now->line);
        if (!parameter || !(parameter->name = jinja_take_name(p))) return false;
        if (!jinja_add(p, &node->items, parameter)) return false;
        if (jinja_skip(p, "=")) {
            if (!jinja_add(p, &node->named, jinja_parse_expression(p, true))) return false;
        } else if (node->named.n > 0) {
            return jinja_parse_fail(p, parameter->line,
                                    "a parameter without a default stands behind one with it");
        }
    }
    return jinja_expect(p, ")");
}

/* The body of a macro or call block, with the names that it speaks of. */
static bool parse_macro_body(jinja_parser *p, jinja_node *node, const char *end) {
    bool rest = p->rest, keys = p->keys, caller = p->caller;
    int loops = p->loops;
    p->rest = p->keys = p->caller = false;
    p->loops = 0;
    bool done = parse_whole_body(p, &node->body, end);
    p->loops = loops;
    node->takes_rest = p->rest;
    node->takes_named = p->keys;
    node->takes_caller = p->caller;
    p->rest |= rest;
    p->keys |= keys;
    p->caller |= caller;
    return done;
}

static jinja_node *parse_macro(jinja_parser *p, int line) {
    jinja_node *node = jinja_make(p, JINJA_NODE_MACRO, line);
    if (!node || !(node->name = jinja_take_name(p)) || !parse_parameters(p, node)) return NULL;
    return parse_macro_body(p, node, "endmacro") ? node : NULL;
}

static jinja_node *parse_call_block(jinja_parser *p, int line) {
    jinja_node *node = jinja_make(p, JINJA_NODE_CALL_BLOCK, line);
    if (!node || (jinja_sees(p, "(") && !parse_parameters(p, node))) return NULL;
    if (!(node->a = jinja_parse_expression(p, true))) return NULL;
    if (node->a->kind != JINJA_NODE_CALL) {
        jinja_parse_fail(p, line, "a call block calls nothing");
        return NULL;
    }
    node->name = p->t->caller;
    return parse_macro_body(p, node, "endcall") ? node : NULL;
}

static jinja_node *parse_filter_block(jinja_parser *p, int line) {
    jinja_node *node = jinja_make(p, JINJA_NODE_FILTER_BLOCK, line);
    if (!node || !(node->a = jinja_parse_filters(p, NULL, true))) return NULL;
    return parse_whole_body(p, &node->body, "endfilter") ? node : NULL;
}

static jinja_node *parse_with(jinja_parser *p, int line) {
    jinja_node *node = jinja_make(p, JINJA_NODE_WITH, line);
    if (!node) return NULL;
    for (bool first = true; p->now->kind != JINJA_BLOCK_END; first = false) {
        if (!first && !jinja_expect(p, ",")) return NULL;
        if (!jinja_add(p, &node->items, jinja_parse_target(p, false, NULL))) return NULL;
        if (!jinja_expect(p, "=")) return NULL;
        if (!jinja_add(p, &node->named, jinja_parse_expression(p, true))) return NULL;
    }
    return parse_whole_body(p, &node->body, "endwith") ? node : NULL;
}

static jinja_node *parse_generation(jinja_parser *p, int line) {
    jinja_node *node = jinja_make(p, JINJA_NODE_GENERATION, line);
    return node && parse_whole_body(p, &node->body, "endgeneration") ? node : NULL;
}

static jinja_node *parse_leaving(jinja_parser *p, jinja_node_kind kind, int line) {
    if (p->loops > 0) return jinja_make(p, kind, line);
    jinja_parse_fail(p, line, "there is no loop to leave");
    return NULL;
}

static jinja_node *parse_break(jinja_parser *p, int line) {
    return parse_leaving(p, JINJA_NODE_BREAK, line);
}

static jinja_node *parse_continue(jinja_parser *p, int line) {
    return parse_leaving(p, JINJA_NODE_CONTINUE, line);
}

static jinja_node *parse_print(jinja_parser *p, int line) {
    jinja_node *node = jinja_make(p, JINJA_NODE_PRINT, line);
    return node && (node->a = jinja_parse_expression(p, true)) ? node : NULL;
}

/* Behind "{%". */
static jinja_node *parse_statement(jinja_parser *p) {
    static const struct {
        const char *name;
        jinja_node *(*parse)(jinja_parser *p, int line);
    } statements[] = {
        {"if", parse_if},           {"for", parse_for},
        {"set", parse_set},         {"macro", parse_macro},
        {"call", parse_call_block}, {"filter", parse_filter_block},
        {"with", parse_with},       {"generation", parse_generation},
        {"break", parse_break},     {"continue", parse_continue},
        {"print", parse_print},
    };
    const jinja_token *t = p->now;
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!jinja_skip_name(p, statements[i].name)) continue;
        jinja_node *node = statements[i].parse(p, t->line);
        if (!node) return NULL;
        if (p->now->kind != JINJA_BLOCK_END) return fail_expected(p, "%}"), NULL;
        p->now++;
        return node;
    }
    if (t->kind != JINJA_NAME) return fail_expected(p, "the name of a statement"), NULL;
    jinja_parse_fail(p, t->line, "there is no statement \"%.*s\" here",
                     (int)(t->size > 40 ? 40 : t->size), t->text);
    return NULL;
}

static jinja_node *parse_data(jinja_parser *p) {
    jinja_node *node = jinja_make(p, JINJA_NODE_DATA, p->now->line);
    jinja_text *text = jinja_take(&p->t->region, sizeof *text);
    if (!node || !text) return jinja_no_room(p), NULL;
    *text = (jinja_text){.bytes = p->now->text, .size = p->now->size};
    node->value = jinja_of_text(text);
    p->now++;
    return node;
}

static jinja_node *parse_printed(jinja_parser *p) {
    jinja_node *node = jinja_make(p, JINJA_NODE_PRINT, p->now->line);
    p->now++;
    if (!node || !(node->a = jinja_parse_tuple(p, true, NULL))) return NULL;
    if (p->now->kind != JINJA_PRINT_END) return fail_expected(p, "}}"), NULL;
    p->now++;
    return node;
}

static bool sees_end(const jinja_parser *p, const char *const *ends) {
    if (p->now->kind != JINJA_BLOCK_BEGIN) return false;
    for (; *ends; ends++) {
        if (is_word(p->now + 1, JINJA_NAME, *ends)) return true;
    }
    return false;
}

/* Statements up to a tag with one of the names, of which "{%" is passed; without names up to the
 * end. */
static bool parse_until(jinja_parser *p, jinja_node **out, const char *const *ends) {
    int begin = *ends ? (p->now - 1)->line : 1;
    while (p->now->kind != JINJA_END) {
        if (sees_end(p, ends)) {
            p->now++;
            return true;
        }
        jinja_node *node;
        if (p->now->kind == JINJA_DATA) {
            node = parse_data(p);
        } else if (p->now->kind == JINJA_PRINT_BEGIN) {
            node = parse_printed(p);
        } else {
            p->now++;
            node = parse_statement(p);
        }
        if (!node) return false;
        *out = node;
        out = &node->next;
    }
    return !*ends || jinja_parse_fail(
                         p, begin, "the block that begins here has no end: %s is missing", ends[0]);
}

/* ---- all of it ------------------------------------------------------------------------- */

static bool name_meanings(cca_jinja *t) {
    t->loop = jinja_intern(t, "loop", 4, true);
    t->caller = jinja_intern(t, "caller", 6, true);
    t->rest = jinja_intern(t, "varargs", 7, true);
    t->keys = jinja_intern(t, "kwargs", 6, true);
    return t->loop && t->caller && t->rest && t->keys;
}

static cca_status parse(cca_jinja *t, const char *text, size_t size, cca_error *err) {
    static const char *const none[] = {NULL};
    static const jinja_token nowhere = {.line = 1};
    jinja_lexer lexer = {.text = text, .size = size, .region = &t->region};
    jinja_parser p = {.t = t, .now = &nowhere, .err = err};
    if (size > CCA_JINJA_MOST_BYTES) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: the template has %zu bytes, more than %d", t->name,
                        size, CCA_JINJA_MOST_BYTES);
    }
    if (name_meanings(t) && jinja_lex(&lexer)) {
        p.now = lexer.tokens;
        if (parse_until(&p, &t->body, none)) return CCA_OK;
    }
    if (lexer.error) jinja_parse_fail(&p, lexer.line, "%s", lexer.error);
    if (!p.status) jinja_no_room(&p);
    return p.status;
}

cca_status cca_jinja_parse(cca_jinja **out, const char *text, size_t size, const char *name,
                           cca_error *err) {
    cca_jinja *t = calloc(1, sizeof *t);
    *out = NULL;
    if (t) t->name = strdup(name);
    if (!t || !t->name) {
        free(t);
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory", name);
    }
    t->region.most = PARSED_BYTES;
    cca_status status = parse(t, text, size, err);
    if (status) {
        cca_jinja_free(t);
    } else {
        *out = t;
    }
    return status;
}

void cca_jinja_free(cca_jinja *template) {
    if (!template) return;
    jinja_region_free(&template->region);
    free(template->name);
    free(template);
}
