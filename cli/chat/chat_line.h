/* Lines of a chat from standard input: edited and with a history on a terminal, else as they are.
 *
 *     chat_line *l;
 *     chat_line_open(&l, &term, &err);
 *     chat_line_read(l, &text, false, &event, &err);
 *     chat_line_remember(l, text.bytes, text.size);
 *     chat_line_close(l);
 *
 * On a terminal (standard input and standard error) a paste is one piece of text, whatever it has
 * in it, and Ctrl-C drops what was typed. The history is that of all chats: $XDG_STATE_HOME/cca
 * (else
 * ~/.local/state/cca), chat_history, for its owner alone. */
#ifndef CCA_CLI_CHAT_LINE_H
#define CCA_CLI_CHAT_LINE_H

#include "cli/term.h"
#include "cli/text_buffer.h"

typedef struct chat_line chat_line;

typedef enum chat_line_event {
    CHAT_LINE_TEXT,
    CHAT_LINE_END,         /* of standard input, or Ctrl-D on an empty line */
    CHAT_LINE_INTERRUPT,   /* signals_stop tells by which signal; something was typed */
    CHAT_LINE_INTERRUPT_0, /* nothing was */
} chat_line_event;

/* CCA_NO_MEMORY. The term is borrowed. */
cca_status chat_line_open(chat_line **out, term *t, cca_error *err);
void chat_line_close(chat_line *l);
bool chat_line_is_edited(const chat_line *l);

/* Reads one line, without the newline at its end; goes_on: it continues a message. CCA_BAD_TEXT for
 * what is no UTF-8, with byte offset and line; CCA_RUNTIME where it cannot be read. */
cca_status chat_line_read(chat_line *l, text_buffer *out, bool goes_on, chat_line_event *event,
                          cca_error *err);
/* Adds a message to the history. */
void chat_line_remember(chat_line *l, const char *text, size_t size);

#endif
