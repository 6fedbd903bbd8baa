/* A template as a tree. */
#ifndef CCA_JINJA_NODES_H
#define CCA_JINJA_NODES_H

#include "jinja/region.h"
#include "jinja/value.h"

typedef enum jinja_operator {
    JINJA_ADD,
    JINJA_SUBTRACT,
    JINJA_MULTIPLY,
    JINJA_DIVIDE,
    JINJA_FLOOR_DIVIDE,
    JINJA_MODULO,
    JINJA_POWER,
    JINJA_EQUAL,
    JINJA_NOT_EQUAL,
    JINJA_BELOW,
    JINJA_AT_MOST,
    JINJA_ABOVE,
    JINJA_AT_LEAST,
    JINJA_IN,
    JINJA_NOT_IN,
} jinja_operator;

typedef enum jinja_node_kind {
    /* statements */
    JINJA_NODE_DATA,         /* value */
    JINJA_NODE_PRINT,        /* a */
    JINJA_NODE_IF,           /* a, body, other */
    JINJA_NODE_FOR,          /* target a in b [if c], body, other; flag: recursive */
    JINJA_NODE_SET,          /* target a = b */
    JINJA_NODE_SET_BLOCK,    /* target a = body [through the filters b] */
    JINJA_NODE_MACRO,        /* name, parameters in items, defaults in named, body */
    JINJA_NODE_CALL_BLOCK,   /* call a; parameters and body as those of a macro */
    JINJA_NODE_FILTER_BLOCK, /* filters a over the body */
    JINJA_NODE_WITH,         /* targets in items, values in named, body */
    JINJA_NODE_GENERATION,   /* body */
    JINJA_NODE_BREAK,
    JINJA_NODE_CONTINUE,
    /* expressions */
    JINJA_NODE_CONSTANT,  /* value */
    JINJA_NODE_NAME,      /* name */
    JINJA_NODE_MEMBER,    /* name.attribute as a target: a and name */
    JINJA_NODE_LIST,      /* items */
    JINJA_NODE_TUPLE,     /* items */
    JINJA_NODE_DICT,      /* keys in items, values in named */
    JINJA_NODE_ATTRIBUTE, /* a, name */
    JINJA_NODE_ITEM,      /* a, b */
    JINJA_NODE_SLICE,     /* a, from items[0] to items[1] by items[2]; each may be NULL */
    JINJA_NODE_CALL,      /* a and arguments */
    JINJA_NODE_FILTER,    /* a (NULL: the block's text), name, arguments */
    JINJA_NODE_TEST,      /* a, name, arguments */
    JINJA_NODE_NOT,       /* a */
    JINJA_NODE_MINUS,     /* a */
    JINJA_NODE_PLUS,      /* a */
    JINJA_NODE_AND,       /* a, b */
    JINJA_NODE_OR,        /* a, b */
    JINJA_NODE_OPERATE,   /* a op b */
    JINJA_NODE_COMPARE,   /* a, then the OPERATE nodes in items: op and b */
    JINJA_NODE_CONCAT,    /* items */
    JINJA_NODE_CHOOSE,    /* a if b else c */
} jinja_node_kind;

typedef struct jinja_node jinja_node;

/* A growing row of nodes, in the template's region. */
typedef struct jinja_nodes {
    jinja_node **items;
    size_t n, capacity;
} jinja_nodes;

struct jinja_node {
    jinja_node_kind kind;
    int line;
    jinja_operator op;
    bool flag;
    bool takes_rest, takes_named, takes_caller; /* a macro speaks of varargs, kwargs, caller */
    const char *name;
    jinja_value value;
    jinja_node *a, *b, *c;
    jinja_nodes items;
    jinja_nodes named;       /* of arguments: values of */
    const char **names;      /* these */
    jinja_node *rest, *keys; /* of arguments: *rest, **keys */
    jinja_node *body, *other;
    jinja_node *next; /* statement */
};

typedef struct jinja_name {
    const char *text;
    struct jinja_name *next;
} jinja_name;

enum { JINJA_NAME_CHAINS = 1024 };

struct cca_jinja {
    jinja_region region;
    char *name;
    jinja_node *body;
    jinja_name *names[JINJA_NAME_CHAINS];
    const char *loop, *caller, *rest, *keys; /* names with a meaning */
};

/* The one copy of a name; with add false NULL where the template does not have it. */
const char *jinja_intern(cca_jinja *t, const char *name, size_t size, bool add);
const char *jinja_name_of(const cca_jinja *t, const char *name, size_t size);

#endif
