/* Options of a command, from tables: the same table parses, checks and prints the help.
 *
 *     typedef struct greet_options { int64_t times; const char *name; } greet_options;
 *     static const arg_option greet_args[] = {
 *         {"times", "n", .kind = ARG_INT, .value = "N", .at = offsetof(greet_options, times),
 *          .initial = "1", .min = 1, .max = 9, .help = "how often"},
 *         {"name", .kind = ARG_TEXT, .value = "WHO", .at = offsetof(greet_options, name),
 *          .help = "whom to greet"},
 *         {0},
 *     };
 *     static const arg_group groups[] = {{"Options", greet_args, 0}, {0}};
 *     greet_options o = {0};
 *     bool help;
 *     args_parse(&o, groups, argc, argv, &help, &err);   // --times 2, --times=2, -n 2
 *     args_free(&o, groups);
 *
 * Texts are borrowed from argv or from the table. Everything that is wrong is CCA_USAGE and
 * names the option. */
#ifndef CCA_CLI_ARGS_H
#define CCA_CLI_ARGS_H

#include "base/base.h"

#include <stdio.h>

typedef enum arg_kind {
    ARG_FLAG,    /* bool; takes no value */
    ARG_INT,     /* int64_t within min … max */
    ARG_REAL,    /* double within min … max */
    ARG_SIZE,    /* uint64_t bytes: 4096, 512K, 8M, 1.5G */
    ARG_TEXT,    /* const char * */
    ARG_CHOICE,  /* const char *, one of choices */
    ARG_LIST,    /* arg_list: texts, kept in the order given, several options may share one */
    ARG_OPERAND, /* arg_list: arguments that belong to no option, at most max of them */
} arg_kind;

typedef struct arg_item {
    char tag; /* the option's, to tell options that share a list apart */
    const char *text;
} arg_item;

typedef struct arg_list {
    arg_item *items;
    size_t n, capacity;
} arg_list;

typedef struct arg_option {
    const char *name;  /* "ctx-size"; a table ends with a NULL name */
    const char *brief; /* "c" or "ctk": given with one dash; or NULL */
    const char *alias; /* a second long name; or NULL */
    arg_kind kind;
    const char *value;   /* what the help calls the value: "N" */
    size_t at;           /* where the value goes, in the table's struct */
    const char *initial; /* the default as text; NULL: zero, empty, none */
    const char *word;    /* ARG_INT: "auto", which stands for -1; NULL: there is none */
    const char *bare;    /* ARG_INT: the value where no number follows; NULL: one must */
    const char *choices; /* ARG_CHOICE: "auto|on|off", in lower case; capitals are taken for them */
    const char
        *suggest;    /* "cuda|cpu": what completion offers where other values are allowed, too */
    double min, max; /* ARG_INT (exact up to 2^53), ARG_REAL, ARG_OPERAND */
    char tag;        /* ARG_LIST */
    const char *help;
} arg_option;

/* A table at its place in the command's struct. An array of groups ends with {0}. */
typedef struct arg_group {
    const char *title;
    const arg_option *options;
    size_t at;
} arg_group;

/* Fills out (zeroed by the caller) with the defaults, then from argv[1] … argv[argc - 1]; the
 * last of two wins. "--" ends the options. Stops at -h and --help with *help = true. On failure
 * args_free is still due. */
cca_status args_parse(void *out, const arg_group *groups, int argc, char **argv, bool *help,
                      cca_error *err);

/* Sets one option by its long name, without dashes. CCA_USAGE names one that is near. */
cca_status args_set(void *out, const arg_group *groups, const char *name, const char *value,
                    cca_error *err);
/* The number that an option has in out, as args_set would take it, in a buffer of the caller. */
enum { ARGS_VALUE_TEXT = 32 };
const char *args_value(char buffer[ARGS_VALUE_TEXT], const void *out, const arg_option *option);

/* Frees the lists. */
void args_free(void *out, const arg_group *groups);

/* Prints title and options of each group, at most 80 columns wide. */
void args_help(FILE *to, const arg_group *groups);

/* Which of the n names begins with word, or word with it, or is closest to it by edit distance; the
 * first of equals. NULL where none is near. */
const char *args_nearest(const char *word, const char *const *names, size_t n);

/* Numbers of the whole text: false for anything else, trailing bytes or overflow. */
bool args_int(int64_t *out, const char *text);
bool args_real(double *out, const char *text);
bool args_size(uint64_t *out, const char *text);

#endif
