/* Statements, and what a run is made of. */
#include "jinja/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- bounds and messages --------------------------------------------------------------- */

void jinja_record(jinja_run *r, const char *format, ...) {
    char text[512];
    va_list args;
    if (r->status) return; /* the first one is the cause */
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->status =
        cca_fail(r->err, CCA_BAD_MODEL, "%s, line %d: %s", r->template->name, r->line, text);
}

bool jinja_raise(jinja_run *r, const jinja_text *message) {
    if (r->status) return false;
    r->status = cca_fail(r->err, CCA_USAGE, "%s, line %d, refuses: %.*s", r->template->name,
                         r->line, message->size > 400 ? 400 : (int)message->size, message->bytes);
    return false;
}

bool jinja_no_memory(jinja_run *r) {
    if (r->region.full) jinja_record(r, "the template takes too much memory");
    if (!r->status) r->status = cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory", r->template->name);
    return false;
}

void *jinja_new(jinja_run *r, size_t size) {
    void *p = jinja_take(&r->region, size);
    if (!p) (void)jinja_no_memory(r);
    return p;
}

bool jinja_spend(jinja_run *r, size_t bytes) {
    r->steps -= 1 + (int64_t)(bytes / 16);
    return r->steps >= 0 || jinja_fail(r, "the template takes too many steps");
}

bool jinja_enter(jinja_run *r) {
    if (r->depth++ < CCA_JINJA_MOST_DEPTH) return true;
    r->depth--;
    return jinja_fail(r, "more than %d levels inside each other", CCA_JINJA_MOST_DEPTH);
}

/* ---- scopes ---------------------------------------------------------------------------- */

bool jinja_open_scope(jinja_run *r, jinja_scope *outer) {
    jinja_scope *scope = jinja_new(r, sizeof *scope);
    if (!scope) return false;
    scope->outer = outer;
    r->scope = scope;
    return true;
}

bool jinja_assign(jinja_run *r, const char *name, jinja_value value) {
    jinja_scope *s = r->scope;
    for (size_t i = 0; i < s->n; i++) {
        if (s->variables[i].name == name) return s->variables[i].value = value, true;
    }
    jinja_variable *grown = jinja_grow(&r->region, s->variables, s->n, &s->capacity, sizeof *grown);
    if (!grown) return jinja_no_memory(r);
    s->variables = grown;
    s->variables[s->n++] = (jinja_variable){name, value};
    return jinja_spend(r, s->n);
}

const jinja_value *jinja_look_up(const jinja_run *r, const char *name) {
    for (const jinja_scope *s = r->scope; s; s = s->outer) {
        for (size_t i = 0; i < s->n; i++) {
            if (s->variables[i].name == name) return &s->variables[i].value;
        }
    }
    return NULL;
}

static bool assign_member(jinja_run *r, const jinja_node *target, jinja_value value) {
    jinja_value owner, name;
    if (!jinja_eval(&owner, r, target->a)) return false;
    r->line = target->line;
    if (owner.kind != JINJA_NAMESPACE) {
        return jinja_fail(r, "'%s' is no namespace: its attributes cannot be set", target->a->name);
    }
    return jinja_words(&name, r, target->name, strlen(target->name)) &&
           jinja_set_key(r, owner.dict, name, value);
}

bool jinja_assign_to(jinja_run *r, const jinja_node *target, jinja_value value) {
    const jinja_list *items;
    r->line = target->line;
    if (target->kind == JINJA_NODE_NAME) return jinja_assign(r, target->name, value);
    if (target->kind == JINJA_NODE_MEMBER) return assign_member(r, target, value);
    if (value.kind == JINJA_UNDEFINED) return jinja_fail_missing(r, value);
    if (!jinja_items(&items, r, value)) return false;
    if (items->n != target->items.n) {
        return jinja_fail(r, "%zu values cannot be put into %zu names", items->n, target->items.n);
    }
    for (size_t i = 0; i < items->n; i++) {
        if (!jinja_assign_to(r, target->items.items[i], items->items[i])) return false;
    }
    return true;
}

/* ---- loops ----------------------------------------------------------------------------- */

/* Whether an item meets the loop's condition, which sees the target alone. */
static bool meets(bool *out, jinja_run *r, jinja_loop *loop, jinja_value item) {
    const jinja_node *node = loop->node;
    jinja_scope *scope = r->scope;
    jinja_value v;
    *out = true;
    if (!node->c) return true;
    bool done = jinja_open_scope(r, loop->scope) && jinja_assign_to(r, node->a, item) &&
                jinja_eval(&v, r, node->c);
    if (done) *out = jinja_is_true(v);
    r->scope = scope;
    return done;
}

bool jinja_accept(bool *there, jinja_run *r, jinja_loop *loop, size_t index) {
    while (loop->accepted.n <= index && loop->next < loop->items->n) {
        jinja_value item = loop->items->items[loop->next++];
        bool good;
        if (!meets(&good, r, loop, item)) return false;
        if (good && !jinja_push(r, &loop->accepted, item)) return false;
    }
    *there = index < loop->accepted.n;
    return true;
}

/* One pass of the body, in a scope of its own. */
static bool run_pass(jinja_run *r, jinja_loop *loop) {
    jinja_value self = {.kind = JINJA_LOOP, .loop = loop};
    if (!jinja_spend(r, 1) || !jinja_open_scope(r, loop->scope)) return false;
    if (!jinja_assign(r, r->template->loop, self)) return false;
    if (!jinja_assign_to(r, loop->node->a, loop->accepted.items[loop->index])) return false;
    return jinja_run_all(r, loop->node->body);
}

bool jinja_run_loop(jinja_run *r, const jinja_node *node, jinja_scope *around, jinja_value over,
                    int level) {
    jinja_loop *loop = jinja_new(r, sizeof *loop);
    jinja_scope *scope = r->scope;
    bool there = true, done = true;
    if (!loop) return false;
    *loop = (jinja_loop){.node = node, .scope = around, .level = level};
    if (!jinja_items(&loop->items, r, over)) return false;
    for (; done; loop->index++) {
        done = jinja_accept(&there, r, loop, loop->index);
        if (!done || !there) break;
        done = run_pass(r, loop);
        bool broken = r->leaving == JINJA_BREAK;
        r->leaving = JINJA_GO_ON;
        if (broken) break;
    }
    if (done && loop->accepted.n == 0 && node->other) {
        done = jinja_open_scope(r, around) && jinja_run_all(r, node->other);
    }
    r->scope = scope;
    return done;
}

static bool run_for(jinja_run *r, const jinja_node *node) {
    jinja_value over;
    return jinja_eval(&over, r, node->b) && jinja_run_loop(r, node, r->scope, over, 0);
}

/* ---- other statements ------------------------------------------------------------------ */

bool jinja_capture(jinja_value *out, jinja_run *r, const jinja_node *first) {
    jinja_builder b = {.run = r}, *before = r->out;
    r->out = &b;
    bool done = jinja_run_all(r, first) && jinja_finish(out, &b);
    r->out = before;
    return done;
}

/* A body in a scope of its own, as text. */
static bool capture_scoped(jinja_value *out, jinja_run *r, const jinja_node *first) {
    jinja_scope *scope = r->scope;
    bool done = jinja_open_scope(r, scope) && jinja_capture(out, r, first);
    r->scope = scope;
    return done;
}

/* A body as text, through filters (NULL: none). */
static bool capture_filtered(jinja_value *out, jinja_run *r, const jinja_node *node,
                             const jinja_node *filters) {
    if (!capture_scoped(out, r, node->body)) return false;
    if (!filters) return true;
    jinja_value before = r->block;
    r->block = *out;
    bool done = jinja_eval(out, r, filters);
    r->block = before;
    return done;
}

/* The branch that is taken; NULL: none. */
static bool choose_branch(const jinja_node **out, jinja_run *r, const jinja_node *node) {
    for (;; node = node->other) {
        jinja_value condition;
        if (!jinja_eval(&condition, r, node->a)) return false;
        *out = jinja_is_true(condition) ? node->body : node->other;
        bool further =
            *out && *out == node->other && node->other->kind == JINJA_NODE_IF && node->other->flag;
        if (!further) return true;
    }
}

static bool run_if(jinja_run *r, const jinja_node *node) {
    const jinja_node *branch;
    return choose_branch(&branch, r, node) && jinja_run_all(r, branch);
}

static bool run_print(jinja_run *r, const jinja_node *node) {
    jinja_value v;
    return jinja_eval(&v, r, node->a) && jinja_show(r->out, v);
}

static bool run_set(jinja_run *r, const jinja_node *node) {
    jinja_value v;
    bool block = node->kind == JINJA_NODE_SET_BLOCK;
    bool done = block ? capture_filtered(&v, r, node, node->b) : jinja_eval(&v, r, node->b);
    return done && jinja_assign_to(r, node->a, v);
}

static bool run_macro(jinja_run *r, const jinja_node *node) {
    jinja_macro *macro = jinja_new(r, sizeof *macro);
    if (!macro) return false;
    *macro = (jinja_macro){node, node->name, r->scope};
    return jinja_assign(r, node->name, (jinja_value){.kind = JINJA_MACRO, .macro = macro});
}

static bool run_call_block(jinja_run *r, const jinja_node *node) {
    jinja_macro *macro = jinja_new(r, sizeof *macro);
    jinja_args args;
    jinja_value callee, result;
    if (!macro || !jinja_eval(&callee, r, node->a->a) || !jinja_eval_args(&args, r, node->a)) {
        return false;
    }
    *macro = (jinja_macro){node, node->name, r->scope};
    size_t n = args.n_named;
    const char **names = jinja_new(r, (n + 1) * sizeof *names);
    jinja_value *named = jinja_new(r, (n + 1) * sizeof *named);
    if (!names || !named) return false;
    for (size_t i = 0; i < n; i++) {
        names[i] = args.names[i];
        named[i] = args.named[i];
    }
    names[n] = r->template->caller;
    named[n] = (jinja_value){.kind = JINJA_MACRO, .macro = macro};
    args.names = names;
    args.named = named;
    args.n_named = n + 1;
    r->line = node->line;
    return jinja_call(&result, r, callee, &args) && jinja_show(r->out, result);
}

static bool run_filter_block(jinja_run *r, const jinja_node *node) {
    jinja_value v;
    return capture_filtered(&v, r, node, node->a) && jinja_show(r->out, v);
}

static bool run_with(jinja_run *r, const jinja_node *node) {
    jinja_scope *scope = r->scope;
    jinja_value row;
    bool done = jinja_new_list(&row, r, JINJA_PLAIN, node->named.n);
    for (size_t i = 0; i < node->named.n && done; i++) { /* which do not see each other */
        jinja_value v;
        done = jinja_eval(&v, r, node->named.items[i]) && jinja_push(r, row.list, v);
    }
    done = done && jinja_open_scope(r, scope);
    for (size_t i = 0; i < node->items.n && done; i++) {
        done = jinja_assign_to(r, node->items.items[i], row.list->items[i]);
    }
    done = done && jinja_run_all(r, node->body);
    r->scope = scope;
    return done;
}

static bool run_generation(jinja_run *r, const jinja_node *node) {
    jinja_value v;
    return capture_scoped(&v, r, node->body) && jinja_show(r->out, v);
}

static bool run_one(jinja_run *r, const jinja_node *node) {
    switch (node->kind) {
    case JINJA_NODE_DATA: return jinja_put_text(r->out, node->value.text);
    case JINJA_NODE_PRINT: return run_print(r, node);
    case JINJA_NODE_IF: return run_if(r, node);
    case JINJA_NODE_FOR: return run_for(r, node);
    case JINJA_NODE_SET:
    case JINJA_NODE_SET_BLOCK: return run_set(r, node);
    case JINJA_NODE_MACRO: return run_macro(r, node);
    case JINJA_NODE_CALL_BLOCK: return run_call_block(r, node);
    case JINJA_NODE_FILTER_BLOCK: return run_filter_block(r, node);
    case JINJA_NODE_WITH: return run_with(r, node);
    case JINJA_NODE_GENERATION: return run_generation(r, node);
    case JINJA_NODE_BREAK: r->leaving = JINJA_BREAK; return true;
    case JINJA_NODE_CONTINUE: r->leaving = JINJA_CONTINUE; return true;
    default: return jinja_fail(r, "no statement");
    }
}

bool jinja_run_all(jinja_run *r, const jinja_node *first) {
    if (!jinja_enter(r)) return false;
    bool done = true;
    for (const jinja_node *node = first; node && done && !r->leaving; node = node->next) {
        r->line = node->line;
        done = jinja_spend(r, 1) && run_one(r, node);
    }
    jinja_leave(r);
    return done;
}
