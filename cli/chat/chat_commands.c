#include "cli/chat/chat_commands.h"

#include "cli/args.h"

#include <stdlib.h>
#include <string.h>

typedef struct entry {
    const char *name, *alias; /* alias may be NULL */
    const char *argument;     /* what the help calls it; NULL: there is none */
    bool optional;
    const char *help;
} entry;

/* By chat_verb. */
static const entry entries[] = {
    [CHAT_READ] = {"read", NULL, "FILE", false,
                   "a document (perhaps gzip) becomes part of the talk"},
    [CHAT_SAVE] = {"save", NULL, "FILE", false, "keep the conversation and its state in FILE"},
    [CHAT_LOAD] = {"load", NULL, "FILE", false, "go on with the one in FILE"},
    [CHAT_UNDO] = {"undo", NULL, "N", true, "take back the last turn, or N of them"},
    [CHAT_REGEN] = {"regen", "retry", NULL, false, "another answer to the last message"},
    [CHAT_CLEAR] = {"clear", NULL, NULL, false, "back to the start; its documents (-f) stay"},
    [CHAT_SYSTEM] = {"system", NULL, "TEXT", true, "another system text; without TEXT: show it"},
    [CHAT_SET] = {"set", NULL, "NAME VALUE", true,
                  "temp, top-k, seed, max-answer ...; alone: show them"},
    [CHAT_STATS] = {"stats", NULL, NULL, false, "tokens, room left, speeds, memory"},
    [CHAT_HELP] = {"help", "?", NULL, false, "this list"},
    [CHAT_QUIT] = {"quit", "exit", NULL, false, "leave (also Ctrl-D)"},
};
enum { N_ENTRIES = sizeof entries / sizeof *entries };

bool chat_command_is(const char *text, size_t size) {
    return size > 0 && text[0] == '/' && !memchr(text, '\n', size);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

static cca_status unknown(const char *name, cca_error *err) {
    const char *names[N_ENTRIES];
    for (int i = 0; i < N_ENTRIES; i++) names[i] = entries[i].name;
    const char *nearest = args_nearest(name, names, N_ENTRIES);
    return cca_fail(err, CCA_USAGE,
                    "unknown command /%s%s%s (/help lists all; a message that begins with a slash "
                    "stands in \"\"\"...\"\"\")",
                    name, nearest ? "; the nearest one is /" : "", nearest ? nearest : "");
}

cca_status chat_command_parse(chat_command *out, const char *text, size_t size, cca_error *err) {
    size_t name_end = 1, end = size, begin;
    char name[32];
    while (end > 0 && is_blank(text[end - 1])) end--;
    while (name_end < end && !is_blank(text[name_end])) name_end++;
    for (begin = name_end; begin < end && is_blank(text[begin]);) begin++;
    snprintf(name, sizeof name, "%.*s", (int)(name_end - 1), text + 1);
    if (memchr(text, '\0', end)) {
        return cca_fail(err, CCA_USAGE, "/%s: there is a NUL in this command", name);
    }
    int i = 0;
    while (i < N_ENTRIES && strcmp(entries[i].name, name) != 0 &&
           (!entries[i].alias || strcmp(entries[i].alias, name) != 0)) {
        i++;
    }
    if (i == N_ENTRIES || name_end - 1 >= sizeof name) return unknown(name, err);
    const entry *e = &entries[i];
    if (begin < end && !e->argument) {
        return cca_fail(err, CCA_USAGE, "/%s takes no argument", e->name);
    }
    if (begin == end && e->argument && !e->optional) {
        return cca_fail(err, CCA_USAGE, "/%s needs an argument: /%s %s", e->name, e->name,
                        e->argument);
    }
    out->verb = (chat_verb)i;
    out->argument = strndup(text + begin, end - begin);
    return out->argument ? CCA_OK : cca_fail(err, CCA_NO_MEMORY, "no memory for a command");
}

void chat_command_help(FILE *to) {
    for (int i = 0; i < N_ENTRIES; i++) {
        char head[64];
        const entry *e = &entries[i];
        snprintf(head, sizeof head, "/%s %s%s%s", e->name, e->optional ? "[" : "",
                 e->argument ? e->argument : "", e->optional ? "]" : "");
        fprintf(to, "  %-18s %s\n", head, e->help);
    }
    fputs("A line that ends with a backslash goes on in the next one; so does what begins with\n"
          "\"\"\", up to the next \"\"\". Ctrl-C stops an answer, Ctrl-R searches the history.\n",
          to);
}
