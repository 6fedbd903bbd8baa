/* A message as it is typed, line by line: a backslash at the end of a line, and """ around a block,
 * make one message of several lines.
 *
 *     chat_draft d = {0};
 *     while (next line && chat_draft_add(&d, line, size) == CHAT_DRAFT_OPEN) ...
 *     ... d.text; a command only where !d.quoted ...
 *     chat_draft_free(&d); */
#ifndef CCA_CLI_CHAT_DRAFT_H
#define CCA_CLI_CHAT_DRAFT_H

#include "cli/text_buffer.h"

typedef enum chat_draft_state {
    CHAT_DRAFT_DONE,
    CHAT_DRAFT_OPEN, /* the next line belongs to it */
    CHAT_DRAFT_NO_MEMORY,
} chat_draft_state;

typedef struct chat_draft {
    text_buffer text;
    bool quoted; /* a block, never a command */
    bool open;
} chat_draft;

/* Adds a line, without the newline at its end. What was pasted may have newlines inside. The marks
 * of a block are no part of it, nor are the line breaks beside them. */
chat_draft_state chat_draft_add(chat_draft *d, const char *line, size_t size);
/* Whether there is nothing but white space in it. */
bool chat_draft_is_blank(const chat_draft *d);
void chat_draft_free(chat_draft *d);

#endif
