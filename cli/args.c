#include "cli/args.h"

#include "base/utf8.h"
#include "cli/llama_cpp_names.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_WIDTH = 80, HELP_COLUMN = 30, MAX_NAMES = 256 };

/* ---- numbers ---- */

bool args_int(int64_t *out, const char *text) {
    char *end;
    if (!*text || isspace((unsigned char)*text)) return false;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    *out = value;
    return *end == '\0' && errno == 0;
}

/* A finite number of all the characters of a set that text begins with: by itself, the library's
 * function reads hexadecimal and words, too. */
static bool take_decimal(double *out, char **end, const char *text, const char *set) {
    size_t size = strspn(text, set);
    errno = 0;
    *out = strtod(text, end);
    return size > 0 && *end == text + size && errno == 0 && isfinite(*out);
}

bool args_real(double *out, const char *text) {
    char *end;
    return take_decimal(out, &end, text, "0123456789+-.eE") && *end == '\0';
}

bool args_size(uint64_t *out, const char *text) {
    static const char units[] = "KMGT";
    char *end;
    double value;
    if (!isdigit((unsigned char)*text) || !take_decimal(&value, &end, text, "0123456789.")) {
        return false;
    }
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        value = ldexp(value, 10 * (int)(unit - units + 1));
        end++;
        if (*end == 'i') end++;
    }
    if (*end == 'B') end++;
    if (*end != '\0' || !(value < 0x1p63)) return false;
    *out = (uint64_t)value;
    return true;
}

/* ---- names ---- */

static size_t min3(size_t a, size_t b, size_t c) {
    size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Levenshtein's distance, row by row; names beyond the row's length count as far away. */
static size_t distance(const char *a, const char *b) {
    enum { LONGEST = 64 };
    size_t row[LONGEST + 1];
    size_t n = strlen(b);
    if (n > LONGEST) return SIZE_MAX;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t change = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = min3(row[j] + 1, row[j + 1] + 1, change);
        }
    }
    return row[n];
}

/* Whether one begins with the other, which is no mere letter or two of it. */
static bool begins(const char *word, const char *name) {
    size_t n_word = strlen(word), n_name = strlen(name);
    return n_word > 0 && strncmp(name, word, n_word < n_name ? n_word : n_name) == 0 &&
           (n_word <= n_name || n_name > 2);
}

/* A third of the letters may be wrong, three at most, but one has to be right. */
static bool is_near(size_t d, size_t a, size_t b) {
    size_t shorter = a < b ? a : b, longer = a < b ? b : a;
    return d <= 3 && d < shorter && 3 * d <= longer + 2;
}

const char *args_nearest(const char *word, const char *const *names, size_t n) {
    const char *best = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        bool begun = begins(word, names[i]);
        size_t d = begun ? 0 : distance(word, names[i]);
        if (d >= least || !(begun || is_near(d, strlen(word), strlen(names[i])))) continue;
        best = names[i];
        least = d;
    }
    return best;
}

/* What stands between the dashes and "=" of an argument, compared with a name. */
static bool same_name(const char *name, const char *word, size_t size) {
    return name && strlen(name) == size && memcmp(name, word, size) == 0;
}

typedef struct found_option {
    const arg_option *option;
    void *base; /* the struct that the option's table describes */
} found_option;

static found_option find_option(void *out, const arg_group *groups, const char *arg, size_t size) {
    bool is_long = size > 2 && arg[1] == '-';
    const char *word = arg + (is_long ? 2 : 1);
    size_t length = size - (is_long ? 2 : 1);
    for (const arg_group *g = groups; g->options; g++) {
        for (const arg_option *o = g->options; o->name; o++) {
            bool same = is_long
                            ? same_name(o->name, word, length) || same_name(o->alias, word, length)
                            : same_name(o->brief, word, length);
            if (same && o->kind != ARG_OPERAND) return (found_option){o, (char *)out + g->at};
        }
    }
    return (found_option){0};
}

/* Names are compared without dashes, and shown with those they need; what llama.cpp calls so is
 * explained. */
static cca_status unknown_option(const arg_group *groups, const char *arg, size_t size,
                                 cca_error *err) {
    const char *names[MAX_NAMES] = {0}, *dashes[MAX_NAMES] = {0};
    char word[64];
    size_t n = 0;
    for (const arg_group *g = groups; g->options; g++) {
        for (const arg_option *o = g->options; o->name; o++) {
            const char *all[] = {o->name, o->alias, o->brief};
            for (size_t i = 0; i < 3 && o->kind != ARG_OPERAND; i++) {
                if (!all[i] || n == MAX_NAMES) continue;
                dashes[n] = i < 2 ? "--" : "-";
                names[n++] = all[i];
            }
        }
    }
    size_t skip = strspn(arg, "-");
    snprintf(word, sizeof word, "%.*s", (int)(size - skip), arg + skip);
    const char *hint = llama_cpp_option(word);
    if (hint) return cca_fail(err, CCA_USAGE, "unknown option %.*s: %s", (int)size, arg, hint);
    const char *nearest = args_nearest(word, names, n);
    if (!nearest) return cca_fail(err, CCA_USAGE, "unknown option %.*s", (int)size, arg);
    const char *dash = "";
    for (size_t i = 0; i < n; i++) {
        if (names[i] == nearest) dash = dashes[i];
    }
    return cca_fail(err, CCA_USAGE, "unknown option %.*s; the nearest one is %s%s", (int)size, arg,
                    dash, nearest);
}

/* ---- values ---- */

static bool list_push(arg_list *list, char tag, const char *text) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 8;
        arg_item *items = realloc(list->items, capacity * sizeof *items);
        if (!items) return false;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = (arg_item){tag, text};
    return true;
}

/* Names of choices are in lower case, while types are printed in capitals, and are typed so; the
 * arguments of a program may be changed. */
static void lower_case(char *name) {
    for (; *name; name++) *name = (char)tolower((unsigned char)*name);
}

/* Finds text among "a|b|c". */
static bool is_choice(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (const char *c = choices; n > 0 && *c;) {
        size_t size = strcspn(c, "|");
        if (size == n && memcmp(c, text, n) == 0) return true;
        c += size + (c[size] == '|');
    }
    return false;
}

static cca_status bad_value(const arg_option *o, const char *text, const char *wanted,
                            cca_error *err) {
    return cca_fail(err, CCA_USAGE, "--%s %s: %s expected", o->name, text, wanted);
}

static cca_status out_of_range(const arg_option *o, const char *text, cca_error *err) {
    return cca_fail(err, CCA_USAGE, "--%s %s: outside %.10g … %.10g", o->name, text, o->min,
                    o->max);
}

static cca_status set_value(void *base, const arg_option *o, const char *text, cca_error *err) {
    void *at = (char *)base + o->at;
    int64_t integer;
    double real;
    switch (o->kind) {
    case ARG_FLAG: *(bool *)at = true; return CCA_OK;
    case ARG_INT:
        if (o->word && strcmp(text, o->word) == 0) {
            *(int64_t *)at = -1;
            return CCA_OK;
        }
        if (!args_int(&integer, text)) {
            return bad_value(o, text, o->word ? "a whole number or auto" : "a whole number", err);
        }
        if ((double)integer < o->min || (double)integer > o->max) return out_of_range(o, text, err);
        *(int64_t *)at = integer;
        return CCA_OK;
    case ARG_REAL:
        if (!args_real(&real, text)) return bad_value(o, text, "a number", err);
        if (real < o->min || real > o->max) return out_of_range(o, text, err);
        *(double *)at = real;
        return CCA_OK;
    case ARG_SIZE:
        if (!args_size(at, text)) return bad_value(o, text, "a size such as 512M or 8G", err);
        return CCA_OK;
    case ARG_CHOICE:
        if (!is_choice(o->choices, text)) return bad_value(o, text, o->choices, err);
        *(const char **)at = text;
        return CCA_OK;
    case ARG_TEXT: *(const char **)at = text; return CCA_OK;
    case ARG_LIST:
    case ARG_OPERAND:
        if (list_push(at, o->tag, text)) return CCA_OK;
        return cca_fail(err, CCA_NO_MEMORY, "--%s: no memory", o->name);
    }
    return cca_fail(err, CCA_RUNTIME, "--%s: unknown kind of option", o->name);
}

static cca_status set_defaults(void *out, const arg_group *groups, cca_error *err) {
    for (const arg_group *g = groups; g->options; g++) {
        for (const arg_option *o = g->options; o->name; o++) {
            if (!o->initial) continue;
            cca_status status = set_value((char *)out + g->at, o, o->initial, err);
            if (status) return status;
        }
    }
    return CCA_OK;
}

static cca_status set_operand(void *out, const arg_group *groups, const char *text,
                              cca_error *err) {
    for (const arg_group *g = groups; g->options; g++) {
        for (const arg_option *o = g->options; o->name; o++) {
            if (o->kind != ARG_OPERAND) continue;
            const arg_list *list = (const arg_list *)(const void *)((char *)out + g->at + o->at);
            if ((double)list->n >= o->max) break;
            return set_value((char *)out + g->at, o, text, err);
        }
    }
    return cca_fail(err, CCA_USAGE, "unexpected argument %s", text);
}

/* Handles argv[*i] and moves *i over the value where that is an argument of its own. */
static cca_status set_option(void *out, const arg_group *groups, int argc, char **argv, int *i,
                             cca_error *err) {
    char *arg = argv[*i];
    char *equals = strncmp(arg, "--", 2) == 0 ? strchr(arg, '=') : NULL;
    size_t size = equals ? (size_t)(equals - arg) : strlen(arg);
    found_option found = find_option(out, groups, arg, size);
    if (!found.option) return unknown_option(groups, arg, size, err);
    const arg_option *o = found.option;
    char *value = equals ? equals + 1 : NULL;
    int64_t number;
    if (o->bare && !value && !(*i + 1 < argc && args_int(&number, argv[*i + 1]))) {
        return set_value(found.base, o, o->bare, err);
    }
    if (o->kind == ARG_FLAG) {
        if (value) return cca_fail(err, CCA_USAGE, "%.*s takes no value", (int)size, arg);
        return set_value(found.base, o, "", err);
    }
    if (!value && *i + 1 >= argc) {
        return cca_fail(err, CCA_USAGE, "%s needs a value (%s)", arg, o->value);
    }
    if (!value) value = argv[++*i];
    if (o->choices || o->suggest || o->word) lower_case(value);
    return set_value(found.base, o, value, err);
}

cca_status args_parse(void *out, const arg_group *groups, int argc, char **argv, bool *help,
                      cca_error *err) {
    bool only_operands = false;
    *help = false;
    cca_status status = set_defaults(out, groups, err);
    for (int i = 1; i < argc && !status; i++) {
        const char *arg = argv[i];
        if (only_operands || arg[0] != '-' || arg[1] == '\0') {
            status = set_operand(out, groups, arg, err);
        } else if (strcmp(arg, "--") == 0) {
            only_operands = true;
        } else if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0) {
            *help = true;
            break;
        } else {
            status = set_option(out, groups, argc, argv, &i, err);
        }
    }
    return status;
}

cca_status args_set(void *out, const arg_group *groups, const char *name, const char *value,
                    cca_error *err) {
    char arg[64];
    int size = snprintf(arg, sizeof arg, "--%s", name);
    found_option found = {0};
    if (size < (int)sizeof arg) found = find_option(out, groups, arg, (size_t)size);
    if (found.option) return set_value(found.base, found.option, value, err);
    return unknown_option(groups, arg, strlen(arg), err);
}

const char *args_value(char buffer[ARGS_VALUE_TEXT], const void *out, const arg_option *option) {
    const void *at = (const char *)out + option->at;
    buffer[0] = '\0';
    if (option->kind == ARG_INT && option->word && *(const int64_t *)at == -1) return option->word;
    if (option->kind == ARG_INT) {
        snprintf(buffer, ARGS_VALUE_TEXT, "%lld", (long long)*(const int64_t *)at);
    }
    if (option->kind == ARG_REAL) snprintf(buffer, ARGS_VALUE_TEXT, "%.6g", *(const double *)at);
    return buffer;
}

void args_free(void *out, const arg_group *groups) {
    for (const arg_group *g = groups; g->options; g++) {
        for (const arg_option *o = g->options; o->name; o++) {
            if (o->kind != ARG_LIST && o->kind != ARG_OPERAND) continue;
            arg_list *list = (arg_list *)(void *)((char *)out + g->at + o->at);
            free(list->items);
            *list = (arg_list){0};
        }
    }
}

/* ---- help ---- */

/* Columns that a text takes: bytes that begin a character. */
static int width(const char *text) {
    int n = 0;
    for (; *text; text++) n += !cca_utf8_continues(*text);
    return n;
}

/* Prints words from column on, each further line indented to HELP_COLUMN. */
static int print_words(FILE *to, const char *text, int column) {
    while (*text) {
        size_t size = strcspn(text, " ");
        const size_t most = HELP_WIDTH - HELP_COLUMN - 1;
        char word[HELP_WIDTH * 4];
        if (size > most) { /* a list "a|b|c" goes on in the next line */
            const char *bar = memrchr(text, '|', most);
            if (bar) size = (size_t)(bar - text) + 1;
        }
        snprintf(word, sizeof word, "%.*s", (int)size, text);
        if (column + 1 + width(word) > HELP_WIDTH) {
            fprintf(to, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        column += fprintf(to, "%s", column > HELP_COLUMN ? " " : "") + width(word);
        fputs(word, to);
        text += size + (text[size] == ' ');
    }
    return column;
}

/* "  -n, --predict N" */
static void option_head(char *out, size_t size, const arg_option *o) {
    const char *value = o->value ? o->value : "";
    const char *space = o->value ? " " : "";
    if (o->bare) {
        snprintf(out, size, "  --%s [%s]", o->name, value);
    } else if (o->kind == ARG_OPERAND) {
        snprintf(out, size, "  %s", value);
    } else if (o->brief) {
        snprintf(out, size, "  -%s, --%s%s%s", o->brief, o->name, space, value);
    } else {
        snprintf(out, size, "  --%s%s%s", o->name, space, value);
    }
}

/* Adds a text with what encloses it, where there is one. */
static int print_remark(FILE *to, const char *before, const char *text, const char *after,
                        int column) {
    char remark[256];
    if (!text) return column;
    snprintf(remark, sizeof remark, "%s%s%s", before, text, after);
    return print_words(to, remark, column);
}

static void help_option(FILE *to, const arg_option *o) {
    char head[128];
    option_head(head, sizeof head, o);
    int column = width(head);
    fprintf(to, "%s%s", head, column < HELP_COLUMN ? "" : "\n");
    fprintf(to, "%*s", column < HELP_COLUMN ? HELP_COLUMN - column : HELP_COLUMN, "");
    column = print_words(to, o->help, HELP_COLUMN);
    column = print_remark(to, "(", o->choices, ")", column);
    column = print_remark(to, "[", o->initial, "]", column);
    print_remark(to, "(also --", o->alias, ")", column);
    fputc('\n', to);
}

void args_help(FILE *to, const arg_group *groups) {
    for (const arg_group *g = groups; g->options; g++) {
        fprintf(to, "\n%s:\n", g->title);
        for (const arg_option *o = g->options; o->name; o++) help_option(to, o);
    }
}
