/* What stands behind a slash in a chat.
 *
 *     if (chat_command_is(line, size)) {
 *         chat_command command;
 *         chat_command_parse(&command, line, size, &err);   // "/read report.txt"
 *         ... command.verb, command.argument ...
 *         free(command.argument);
 *     }
 */
#ifndef CCA_CLI_CHAT_COMMANDS_H
#define CCA_CLI_CHAT_COMMANDS_H

#include "base/base.h"

#include <stdio.h>

typedef enum chat_verb {
    CHAT_READ,
    CHAT_SAVE,
    CHAT_LOAD,
    CHAT_UNDO,
    CHAT_REGEN,
    CHAT_CLEAR,
    CHAT_SYSTEM,
    CHAT_SET,
    CHAT_STATS,
    CHAT_HELP,
    CHAT_QUIT,
} chat_verb;

typedef struct chat_command {
    chat_verb verb;
    char *argument; /* without white space around it; "" where there is none */
} chat_command;

/* A message of one line that begins with a slash. */
bool chat_command_is(const char *text, size_t size);
/* CCA_USAGE names a command that is near, or the argument that is missing or one too many. */
cca_status chat_command_parse(chat_command *out, const char *text, size_t size, cca_error *err);

/* A line a command. */
void chat_command_help(FILE *to);

#endif
