/* Command lines: the first byte chooses a command, each line that follows is an argument. */
#include "fuzz.h"

#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ARGS = 64 };

/* The lines, cut up in place. */
static int split(char **argv, char *text) {
    int argc = 1;
    argv[0] = "cca";
    for (char *line = text; line && argc < MAX_ARGS; argc++) argv[argc] = strsep(&line, "\n");
    return argc;
}

void fuzz_one(const uint8_t *data, size_t size) {
    size_t n;
    const cli_command *const *commands = cli_commands(&n);
    if (size < 1) return;
    const cli_command *command = commands[data[0] % n];
    char *text = malloc(size), *argv[MAX_ARGS];
    void *options = calloc(1, command->options_size);
    cca_error err;
    bool help;
    if (text && options) {
        memcpy(text, data + 1, size - 1);
        text[size - 1] = '\0';
        int argc = split(argv, text);
        (void)args_parse(options, command->groups, argc, argv, &help, &err);
        args_free(options, command->groups);
        (void)cli_find(argv[argc - 1]);
        (void)cli_unknown(argv[argc - 1], &err);
    }
    free(options);
    free(text);
}
