/* Chat templates: tags with words, operators and strings in them. Words become others, values get
 * filters, tests and methods, tags move, come twice, go, are put into blocks; what is new is made
 * by a small grammar. Variables behind a line "%%" are changed as JSON. */
#include "mutate_json.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { MOST_TAGS = 256, MOST_TOKENS = 512, MOST_MADE = 1024 };

typedef struct piece {
    size_t at, end;
} piece;

typedef struct pieces {
    piece tags[MOST_TAGS], tokens[MOST_TOKENS]; /* tokens of all tags */
    size_t n_tags, n_tokens, size;
} pieces;

/* In what is made, E is an expression, S a statement, N a number, V a name, Q a string, F a filter,
 * T a test, M a method. */
static const char *const expressions[] = {"V",
                                          "V",
                                          "N",
                                          "Q",
                                          "none",
                                          "true",
                                          "false",
                                          "V.V",
                                          "V[E]",
                                          "V[N:N:N]",
                                          "E|F",
                                          "E|F",
                                          "E|F",
                                          "E.M",
                                          "E.M",
                                          "E.M",
                                          "E is T",
                                          "E is not T",
                                          "E T",
                                          "(E)",
                                          "[E, E]",
                                          "(E, E)",
                                          "(E,)",
                                          "[]",
                                          "{Q: E, 'role': E}",
                                          "{}",
                                          "E + E",
                                          "E - E",
                                          "E * E",
                                          "E / E",
                                          "E // E",
                                          "E % E",
                                          "E ** N",
                                          "E ~ E",
                                          "E == E",
                                          "E != E",
                                          "E < E",
                                          "E >= E",
                                          "E in E",
                                          "E not in E",
                                          "E and E",
                                          "E or E",
                                          "not E",
                                          "-E",
                                          "E if E else E",
                                          "E if E",
                                          "range(N)",
                                          "range(N, N, N)",
                                          "V(E)",
                                          "V(V=E)",
                                          "namespace(V=E)",
                                          "dict(V=E)",
                                          "cycler(E, E)",
                                          "joiner(Q)",
                                          "loop.index",
                                          "loop.cycle(E, E)",
                                          "loop.previtem",
                                          "loop.changed(E)",
                                          "loop(E)",
                                          "messages[N]['content']",
                                          "messages[-1].role",
                                          "strftime_now(Q)",
                                          "raise_exception(E)",
                                          "E[:N]",
                                          "E[::-1]",
                                          "E[N:]",
                                          "caller()",
                                          "Q Q",
                                          "varargs",
                                          "kwargs",
                                          "lipsum",
                                          "E.V.V"};

static const char *const statements[] = {"{{ E }}",
                                         "{{ E }}",
                                         "{{- E -}}",
                                         "{% set V = E %}",
                                         "{% set V, V = E %}",
                                         "{% set V.V = E %}",
                                         "{% set V %}S{% endset %}",
                                         "{% set V | F %}S{% endset %}",
                                         "{% if E %}S{% endif %}",
                                         "{% if E %}S{% elif E %}S{% else %}S{% endif %}",
                                         "{% for V in E %}S{% endfor %}",
                                         "{% for V, V in E %}S{% else %}S{% endfor %}",
                                         "{% for V in E if E %}S{% endfor %}",
                                         "{% for V in E recursive %}S{{ loop(E) }}{% endfor %}",
                                         "{% for V in range(N) %}{% break %}{% endfor %}",
                                         "{% for V in E %}{% continue %}{% endfor %}",
                                         "{% macro V(V, V=E) %}S{% endmacro %}{{ V(E) }}",
                                         "{% call V(E) %}S{% endcall %}",
                                         "{% call(V) V(E) %}S{% endcall %}",
                                         "{% filter F %}S{% endfilter %}",
                                         "{% with V = E %}S{% endwith %}",
                                         "{% generation %}S{% endgeneration %}",
                                         "{# V #}",
                                         "{% raw %}S{% endraw %}",
                                         "{%- print E +%}",
                                         "text\n  ",
                                         "{% do E %}",
                                         "{% include Q %}",
                                         "{{ E",
                                         "{% if E %}",
                                         "%}",
                                         "{% endfor %}"};

static const char *const filters[] = {"int",
                                      "int(N)",
                                      "float",
                                      "abs",
                                      "round(N, 'ceil')",
                                      "d(E)",
                                      "default(E, true)",
                                      "length",
                                      "count",
                                      "tojson",
                                      "tojson(indent=N)",
                                      "sort",
                                      "sort(reverse=E, attribute=Q)",
                                      "dictsort",
                                      "dictsort(true, 'value')",
                                      "unique",
                                      "min",
                                      "max",
                                      "map('F')",
                                      "map(attribute=Q)",
                                      "map(attribute=Q, default=E)",
                                      "select('T')",
                                      "select",
                                      "reject('T')",
                                      "selectattr(Q, 'T')",
                                      "selectattr(Q, 'equalto', E)",
                                      "rejectattr(Q)",
                                      "join(E)",
                                      "join(Q, attribute=Q)",
                                      "sum",
                                      "sum(attribute=Q, start=E)",
                                      "first",
                                      "last",
                                      "list",
                                      "reverse",
                                      "batch(N, E)",
                                      "items",
                                      "upper",
                                      "lower",
                                      "capitalize",
                                      "title",
                                      "trim",
                                      "trim(Q)",
                                      "center(N)",
                                      "string",
                                      "replace(Q, E)",
                                      "replace(Q, Q, N)",
                                      "format(E)",
                                      "format(V=E)",
                                      "safe",
                                      "escape",
                                      "e",
                                      "forceescape",
                                      "wordcount",
                                      "indent(N, true)",
                                      "truncate(N, E, Q, N)",
                                      "no_such",
                                      "attr(Q)",
                                      "groupby(Q)",
                                      "slice(N)"};

static const char *const tests[] = {
    "defined", "undefined", "none",    "boolean",  "true",     "false",         "integer",  "float",
    "number",  "string",    "mapping", "sequence", "iterable", "callable",      "lower",    "upper",
    "odd",     "even",      "filter",  "test",     "escaped",  "divisibleby N", "sameas E", "in E",
    "eq E",    "ne(E)",     "lt E",    "ge(E)",    "no_such"};

static const char *const methods[] = {
    "find(Q, N, N)", "index(E)",         "rfind(Q)",         "rindex(Q)",
    "count(E)",      "startswith(E)",    "endswith((Q, Q))", "split(Q)",
    "split()",       "split(Q, N)",      "rsplit(Q, N)",     "splitlines(E)",
    "partition(Q)",  "rpartition(Q)",    "strip(E)",         "lstrip()",
    "rstrip(Q)",     "removeprefix(Q)",  "removesuffix(E)",  "upper()",
    "lower()",       "title()",          "capitalize()",     "swapcase()",
    "isdigit()",     "isnumeric()",      "isalpha()",        "isalnum()",
    "isspace()",     "isupper()",        "islower()",        "ljust(N, Q)",
    "center(N)",     "rjust(N)",         "zfill(N)",         "replace(Q, Q, N)",
    "join(E)",       "format(E, E)",     "format(V=E)",      "append(E)",
    "extend(E)",     "insert(N, E)",     "pop(N)",           "pop()",
    "remove(E)",     "reverse()",        "copy()",           "clear()",
    "get(E, E)",     "get(Q)",           "keys()",           "values()",
    "items()",       "setdefault(Q, E)", "update(E)",        "update(V=E)",
    "next()",        "reset()",          "current",          "cycle(E)"};

static const char *const names[] = {"messages",
                                    "message",
                                    "m",
                                    "x",
                                    "y",
                                    "ns",
                                    "tools",
                                    "loop",
                                    "bos_token",
                                    "eos_token",
                                    "add_generation_prompt",
                                    "messages[0]",
                                    "messages[0].content",
                                    "self",
                                    "role",
                                    "content"};

static const char *const numbers[] = {"0",
                                      "1",
                                      "-1",
                                      "2",
                                      "3",
                                      "7",
                                      "1.5",
                                      "1e3",
                                      "-0.0",
                                      "1_000",
                                      "100",
                                      "99999",
                                      "2147483648",
                                      "9223372036854775807",
                                      "-9223372036854775807",
                                      "1e308",
                                      "0x10"};

static const char *const strings[] = {"''",
                                      "'a'",
                                      "\" \"",
                                      "'role'",
                                      "'content'",
                                      "'user'",
                                      "'\\n'",
                                      "'%s and %d'",
                                      "'%(x)s'",
                                      "'{} {1!r:>8}'",
                                      "'{0[a]}{x.y}'",
                                      "'{:08.3f}'",
                                      "'%Y-%m-%d %H:%M %j %B'",
                                      "'\\u00e9\\x41\\N'",
                                      "'a,b,c'",
                                      "'<think>'",
                                      "'\xc3\xa9\xe4\xb8\x96'",
                                      "'0'",
                                      "'e'",
                                      "'{{'",
                                      "'\xc4\xb0\xc7\x85'"};

/* ---- the grammar ------------------------------------------------------------------------ */

typedef struct made {
    char text[MOST_MADE];
    size_t n;
} made;

static void make(made *out, mutation *m, char what, int depth);

/* Words of more than one letter, and what stands in quotes but T and F, are as they are. */
static void follow(made *out, mutation *m, const char *rule, int depth) {
    for (const char *c = rule; *c; c++) {
        const bool alone =
            (c == rule || !isalnum((unsigned char)c[-1])) && !isalnum((unsigned char)c[1]);
        if (alone && strchr("ESNVQFTM", *c)) {
            make(out, m, *c, depth + 1);
        } else if (out->n < MOST_MADE - 1) {
            out->text[out->n++] = *c;
        }
    }
}

static void make(made *out, mutation *m, char what, int depth) {
    enum { DEEPEST = 5, SIMPLE = 4 };
    const bool deep = depth > DEEPEST;
    switch (what) {
    case 'E':
        follow(out, m, deep ? expressions[mutate_draw(m, SIMPLE)] : MUTATE_ANY(m, expressions),
               depth);
        break;
    case 'S': follow(out, m, deep ? "a" : MUTATE_ANY(m, statements), depth); break;
    case 'F': follow(out, m, MUTATE_ANY(m, filters), depth); break;
    case 'T': follow(out, m, MUTATE_ANY(m, tests), depth); break;
    case 'M': follow(out, m, MUTATE_ANY(m, methods), depth); break;
    case 'V': follow(out, m, MUTATE_ANY(m, names), depth); break;
    case 'N': follow(out, m, MUTATE_ANY(m, numbers), depth); break;
    default: {
        const char *text = MUTATE_ANY(m, strings);
        for (; *text && out->n < MOST_MADE - 1; text++) out->text[out->n++] = *text;
    }
    }
}

static bool put_made(mutation *m, size_t at, size_t n, const char *rule) {
    made out = {.n = 0};
    follow(&out, m, rule, 0);
    return mutate_splice(m, at, n, out.text, out.n);
}

/* ---- what is there -------------------------------------------------------------------------- */

static size_t token_end(const uint8_t *text, size_t at, size_t end) {
    const uint8_t c = text[at++];
    if (c == '\'' || c == '"') {
        while (at < end && text[at] != c) at += 1 + (text[at] == '\\');
        return at < end ? at + 1 : end;
    }
    if (isalnum(c) || c == '_') {
        while (at < end && (isalnum(text[at]) || text[at] == '_')) at++;
    } else if (isspace(c)) {
        while (at < end && isspace(text[at])) at++;
    }
    return at;
}

static void find_tokens(pieces *p, const uint8_t *text, size_t at, size_t end) {
    while (at < end && p->n_tokens < MOST_TOKENS) {
        const size_t next = token_end(text, at, end);
        if (!isspace(text[at])) p->tokens[p->n_tokens++] = (piece){at, next};
        at = next;
    }
}

static void find_pieces(pieces *p, const uint8_t *text, size_t size) {
    p->n_tags = p->n_tokens = 0;
    p->size = size;
    for (size_t at = 0; at + 1 < size && p->n_tags < MOST_TAGS; at++) {
        if (text[at] != '{' || !strchr("{%#", text[at + 1]) || !text[at + 1]) continue;
        const uint8_t close[] = {text[at + 1] == '{' ? '}' : text[at + 1], '}'};
        const uint8_t *end = memmem(text + at + 2, size - at - 2, close, 2);
        if (!end) return;
        const size_t stop = (size_t)(end - text);
        find_tokens(p, text, at + 2, stop);
        p->tags[p->n_tags++] = (piece){at, stop + 2};
        at = stop + 1;
    }
}

/* ---- changes -------------------------------------------------------------------------------- */

static bool change_token(mutation *m, const pieces *p) {
    const piece *t = &p->tokens[mutate_draw(m, p->n_tokens)];
    const piece *u = &p->tokens[mutate_draw(m, p->n_tokens)];
    const size_t n = t->end - t->at;
    switch (mutate_draw(m, 10)) {
    case 0: return mutate_splice(m, t->at, n, m->data + u->at, u->end - u->at);
    case 1: return mutate_splice(m, t->at, n, NULL, 0);
    case 2: return put_made(m, t->end, 0, "|F");
    case 3: return put_made(m, t->end, 0, ".M");
    case 4: return put_made(m, t->end, 0, " is T");
    case 5: return put_made(m, t->at, n, "(E)");
    case 6: return mutate_bytes(m, t->at, n);
    case 7: return put_made(m, t->at, n, isdigit(m->data[t->at]) ? "N" : "V");
    case 8: return put_made(m, t->at, n, m->data[t->at] == '\'' ? "Q" : "M");
    default: return put_made(m, t->at, n, mutate_one_in(m, 2) ? "E" : "F");
    }
}

/* Tags i … j - 1 with what is between them. */
static piece some_tags(mutation *m, const pieces *p) {
    if (p->n_tags == 0) return (piece){0, p->size};
    const size_t i = mutate_draw(m, p->n_tags), most = p->n_tags - i;
    return (piece){p->tags[i].at, p->tags[i + mutate_draw(m, most < 6 ? most : 6)].end};
}

static bool wrap(mutation *m, piece tags) {
    static const char *const blocks[][2] = {
        {"{% if E %}", "{% endif %}"},
        {"{% for V in E %}", "{% endfor %}"},
        {"{% filter F %}", "{% endfilter %}"},
        {"{% set V %}", "{% endset %}{{ V }}"},
        {"{% macro m(V=E) %}", "{% endmacro %}{{ m(E) }}"},
        {"{% call m(E) %}", "{% endcall %}"},
        {"{% with V=E %}", "{% endwith %}"},
        {"{% raw %}", "{% endraw %}"},
        {"{#", "#}"},
        {"{% for x in messages recursive %}", "{{ loop(E) }}{% endfor %}"}};
    const char *const *block = MUTATE_ANY(m, blocks);
    return put_made(m, tags.end, 0, block[1]) && put_made(m, tags.at, 0, block[0]);
}

static bool change_tags(mutation *m, const pieces *p) {
    const piece some = some_tags(m, p), to = some_tags(m, p);
    const size_t n = some.end - some.at;
    switch (mutate_draw(m, 7)) {
    case 0: return mutate_splice(m, some.at, n, NULL, 0);
    case 1: return mutate_splice(m, to.at, 0, m->data + some.at, n);
    case 2: return wrap(m, some);
    case 3: return put_made(m, some.at, n, "S");
    case 4: return n >= 4 && mutate_splice(m, some.at + 2, 0, mutate_one_in(m, 2) ? "-" : "+", 1);
    case 5: return n >= 4 && mutate_splice(m, some.end - 2, 0, mutate_one_in(m, 2) ? "-" : "+", 1);
    default: return put_made(m, mutate_one_in(m, 2) ? some.at : some.end, 0, "S");
    }
}

static size_t template_size(const uint8_t *data, size_t size) {
    const uint8_t *end = memmem(data, size, "\n%%\n", 4);
    return end ? (size_t)(end - data) : size;
}

static bool take(mutation *m, const pieces *p) {
    static pieces theirs;
    find_pieces(&theirs, m->other, template_size(m->other, m->other_size));
    const piece from = some_tags(m, &theirs), to = some_tags(m, p);
    return mutate_splice(m, to.at, mutate_one_in(m, 2) ? to.end - to.at : 0, m->other + from.at,
                         from.end - from.at);
}

bool mutate_structure(mutation *m) {
    static pieces p;
    const size_t size = template_size(m->data, m->size);
    if (size < m->size && mutate_one_in(m, 4)) {
        const uint8_t *other = m->other;
        size_t n = m->size - size - 4;
        m->other = NULL;
        const bool changed = mutate_json(m, size + 4, &n);
        m->other = other;
        return changed;
    }
    find_pieces(&p, m->data, size);
    if (m->other) return take(m, &p);
    return p.n_tokens > 0 && mutate_one_in(m, 2) ? change_token(m, &p) : change_tags(m, &p);
}
