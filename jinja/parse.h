/* What the two parts of the parser share: parse.c reads statements, parse_expression.c
 * expressions. Precedence is Jinja2's. Functions return NULL (or false) on failure, with parser.err
 * written. */
#ifndef CCA_JINJA_PARSE_H
#define CCA_JINJA_PARSE_H

#include "jinja/lex.h"
#include "jinja/nodes.h"

typedef struct jinja_parser {
    cca_jinja *t;
    const jinja_token *now; /* the last token is JINJA_END, which is never passed */
    int nested;
    int loops;               /* around what is read, in the macro under way */
    bool rest, keys, caller; /* names seen in the macro under way */
    cca_status status;
    cca_error *err;
} jinja_parser;

bool jinja_parse_fail(jinja_parser *p, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool jinja_no_room(jinja_parser *p);

bool jinja_sees(const jinja_parser *p, const char *operator_text);
bool jinja_sees_name(const jinja_parser *p, const char *name);
/* Passes it where it is there. */
bool jinja_skip(jinja_parser *p, const char *operator_text);
bool jinja_skip_name(jinja_parser *p, const char *name);
/* Passes it or fails. */
bool jinja_expect(jinja_parser *p, const char *operator_text);
bool jinja_expect_name(jinja_parser *p, const char *name);
/* A name of any kind; NULL: there is none. */
const char *jinja_take_name(jinja_parser *p);

jinja_node *jinja_make(jinja_parser *p, jinja_node_kind kind, int line);
bool jinja_add(jinja_parser *p, jinja_nodes *to, jinja_node *node);
/* One level deeper; p->nested-- is due where it did not fail. */
bool jinja_nest(jinja_parser *p);

jinja_node *jinja_parse_expression(jinja_parser *p, bool with_choice);
/* Expressions with commas between them are a tuple; up to a tag's end, a bracket or a name. */
jinja_node *jinja_parse_tuple(jinja_parser *p, bool with_choice, const char *up_to);
/* What can be assigned to: a name, names with commas, with members true also name.attribute. */
jinja_node *jinja_parse_target(jinja_parser *p, bool members, const char *up_to);
/* Filters behind a value (NULL: the text of a block), the first without "|" where first is true. */
jinja_node *jinja_parse_filters(jinja_parser *p, jinja_node *of, bool first);

#endif
