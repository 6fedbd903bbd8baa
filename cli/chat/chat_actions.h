/* What stands behind the slashes of a chat.
 *
 *     chat_command command;
 *     if (chat_command_parse(&command, "/undo 2", 7, &err) == CCA_OK) {
 *         chat_act(&a, &command, &err);
 *         free(command.argument);
 *     } */
#ifndef CCA_CLI_CHAT_ACTIONS_H
#define CCA_CLI_CHAT_ACTIONS_H

#include "cli/chat/chat_commands.h"
#include "cli/chat/chat_turn.h"

/* Does what a command says; the conversation is as before after a failure. */
cca_status chat_act(chatting *a, const chat_command *command, cca_error *err);

#endif
