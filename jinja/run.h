/* A template that runs: what all its parts share. */
#ifndef CCA_JINJA_RUN_H
#define CCA_JINJA_RUN_H

#include "jinja/nodes.h"
#include "jinja/text.h"

typedef struct jinja_variable {
    const char *name; /* of the template's names: equal pointers are equal names */
    jinja_value value;
} jinja_variable;

typedef struct jinja_scope {
    struct jinja_scope *outer;
    jinja_variable *variables;
    size_t n, capacity;
} jinja_scope;

typedef struct jinja_run {
    const cca_jinja *template;
    const cca_jinja_input *input;
    jinja_region region;
    int64_t steps; /* left */
    int depth;
    int line; /* of what is evaluated */
    jinja_scope *scope;
    jinja_builder *out;
    jinja_value block; /* the text that a filter block's filters take */
    enum { JINJA_GO_ON, JINJA_BREAK, JINJA_CONTINUE } leaving; /* of a loop's body */
    cca_status status;
    cca_error *err;
} jinja_run;

typedef struct jinja_macro {
    const jinja_node *node; /* a macro or call block */
    const char *name;
    jinja_scope *scope; /* around it */
} jinja_macro;

/* A loop under way. Its items are tried for its condition no earlier than wanted. */
typedef struct jinja_loop {
    const jinja_node *node;
    jinja_scope *scope; /* around it */
    const jinja_list *items;
    size_t next; /* item that was not tried yet */
    jinja_list accepted;
    size_t index;          /* of those, under way */
    int level;             /* of recursion */
    jinja_value last_seen; /* of changed() */
    bool has_seen;
} jinja_loop;

typedef struct jinja_cycler {
    const jinja_list *items; /* of a joiner: its separator */
    size_t at;
} jinja_cycler;

/* Arguments of a call: n in order, then n_named with names. */
typedef struct jinja_args {
    const jinja_value *values;
    size_t n;
    const char *const *names; /* [n_named], of any place */
    const jinja_value *named;
    size_t n_named;
} jinja_args;

typedef bool jinja_function(jinja_value *out, jinja_run *r, jinja_value self,
                            const jinja_args *args);

typedef struct jinja_method {
    const char *name;
    jinja_function *call;
    jinja_value self;
} jinja_method;

/* A function, filter or method by its name. */
typedef struct jinja_global {
    const char *name;
    jinja_function *call;
} jinja_global;

/* Records a message of the template at the line. */
void jinja_record(jinja_run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same, for functions to return: compilers see that it is false. */
#define jinja_fail(...) (jinja_record(__VA_ARGS__), false)
/* The same for what raise_exception says, without format. */
bool jinja_raise(jinja_run *r, const jinja_text *message);
/* Says that memory ends, the bound or that of the machine; false. */
bool jinja_no_memory(jinja_run *r);
/* From the region, zeroed; NULL and a message without memory. */
void *jinja_new(jinja_run *r, size_t size);
/* Counts steps for work on so many bytes, or one. */
bool jinja_spend(jinja_run *r, size_t bytes);
/* One level deeper; jinja_leave is due where it did not fail. */
bool jinja_enter(jinja_run *r);
static inline void jinja_leave(jinja_run *r) {
    r->depth--;
}

/* ---- scopes ---- */

bool jinja_open_scope(jinja_run *r, jinja_scope *outer);
bool jinja_assign(jinja_run *r, const char *name, jinja_value value);
/* NULL where no scope has it. */
const jinja_value *jinja_look_up(const jinja_run *r, const char *name);

/* ---- running ---- */

/* Runs statements in the scope; what they print goes to r->out. */
bool jinja_run_all(jinja_run *r, const jinja_node *first);
/* The same into a text of its own. */
bool jinja_capture(jinja_value *out, jinja_run *r, const jinja_node *first);
/* An expression. */
bool jinja_eval(jinja_value *out, jinja_run *r, const jinja_node *node);
/* A loop's node over values; level of recursion. */
bool jinja_run_loop(jinja_run *r, const jinja_node *node, jinja_scope *around, jinja_value over,
                    int level);
/* Assigns to the target of a loop or a set statement. */
bool jinja_assign_to(jinja_run *r, const jinja_node *target, jinja_value value);

/* ---- calls ---- */

bool jinja_call(jinja_value *out, jinja_run *r, jinja_value callee, const jinja_args *args);
/* Arguments of a node. */
bool jinja_eval_args(jinja_args *out, jinja_run *r, const jinja_node *node);
bool jinja_filter(jinja_value *out, jinja_run *r, const char *name, jinja_value self,
                  const jinja_args *args);
bool jinja_test(bool *out, jinja_run *r, const char *name, jinja_value self,
                const jinja_args *args);
/* Attribute or item; undefined where there is none. */
bool jinja_attribute(jinja_value *out, jinja_run *r, jinja_value owner, const char *name,
                     size_t size);
bool jinja_item(jinja_value *out, jinja_run *r, jinja_value owner, jinja_value key);
/* What "a.b.0" leads to from a value; an int is an index. What is missing on the way is otherwise,
 * or (NULL) undefined. */
bool jinja_path(jinja_value *out, jinja_run *r, jinja_value from, jinja_value path,
                const jinja_value *otherwise);
/* A value's method; false where it has none of the name. */
bool jinja_find_method(jinja_function **out, jinja_value self, const char *name, size_t size);

/* dict(…): named arguments, behind what a dict or pairs have. */
bool jinja_make_dict(jinja_value *out, jinja_run *r, jinja_value self, const jinja_args *args);

/* Puts arguments where names, separated by commas, have them: out[i] is that of the i-th name, or
 * undefined; fails for others. */
bool jinja_bind(jinja_value *out, jinja_run *r, const jinja_args *args, const char *what,
                const char *names);
/* Of bound arguments: the default where none was given, and messages for other kinds. */
bool jinja_int_arg(int64_t *out, jinja_run *r, jinja_value v, const char *what, int64_t fallback);
bool jinja_text_arg(const jinja_text **out, jinja_run *r, jinja_value v, const char *what);

bool jinja_operate(jinja_value *out, jinja_run *r, jinja_operator op, jinja_value a, jinja_value b);
bool jinja_contains(bool *out, jinja_run *r, jinja_value whole, jinja_value part);
bool jinja_slice(jinja_value *out, jinja_run *r, jinja_value of, const jinja_value bounds[3]);

/* The next item of a loop that meets its condition; false in *there behind the last. */
bool jinja_accept(bool *there, jinja_run *r, jinja_loop *loop, size_t index);
/* loop.index and the like; undefined for others. */
bool jinja_loop_attribute(jinja_value *out, jinja_run *r, jinja_value loop, const char *name,
                          size_t size);

/* ---- writing ---- */

/* str(), and Python's repr(). */
bool jinja_show(jinja_builder *b, jinja_value v);
bool jinja_show_quoted(jinja_builder *b, jinja_value v);
bool jinja_to_text(const jinja_text **out, jinja_run *r, jinja_value v);
/* json.dumps() */
bool jinja_show_json(jinja_value *out, jinja_run *r, jinja_value v, const jinja_args *args);
enum { JINJA_REAL_TEXT = 32 };
void jinja_show_real(char out[JINJA_REAL_TEXT], double x);

/* "%s %d" % values, and "{} {:>5}".format(…). */
bool jinja_percent(jinja_value *out, jinja_run *r, const jinja_text *format, jinja_value values);
bool jinja_format(jinja_value *out, jinja_run *r, const jinja_text *format, const jinja_args *args);

/* ---- tables, ended by a name that is NULL ---- */

extern const jinja_global jinja_filters_of_text[], jinja_filters_of_lists[],
    jinja_filters_of_values[];
extern const jinja_global jinja_text_methods[], jinja_text_search_methods[], jinja_list_methods[],
    jinja_dict_methods[];
extern const jinja_global jinja_globals[];

#endif
