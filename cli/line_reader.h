/* Lines from standard input: edited and with a history on a terminal, else as they are.
 *
 *     line_reader *l;
 *     line_reader_open(&l, &(line_options){.prompt = ">>>", .history = "chat_history"}, &term,
 * &err); line_reader_read(l, &text, false, &event, &err); line_reader_remember(l, text.bytes,
 * text.size); line_reader_close(l);
 *
 * On a terminal (standard input and standard error) a paste is one piece of text, whatever it has
 * in it, Ctrl-C drops what was typed, and keys move over and erase what is shown as one character.
 * After Ctrl-Z and fg the line is shown again. Histories are in $XDG_STATE_HOME/cca (else
 * ~/.local/state/cca), for their owner alone. */
#ifndef CCA_CLI_LINE_READER_H
#define CCA_CLI_LINE_READER_H

#include "cli/term.h"
#include "cli/text_buffer.h"

typedef struct line_reader line_reader;

/* Borrowed. */
typedef struct line_options {
    const char *prompt;  /* a blank is put behind it */
    const char *history; /* the name of its file; one for what is typed for the same purpose */
} line_options;

typedef enum line_event {
    LINE_TEXT,
    LINE_END,         /* of standard input, or Ctrl-D on an empty line */
    LINE_INTERRUPT,   /* signals_stop tells by which signal; something was typed */
    LINE_INTERRUPT_0, /* nothing was */
} line_event;

/* CCA_NO_MEMORY. Options and term are borrowed. */
cca_status line_reader_open(line_reader **out, const line_options *options, term *t,
                            cca_error *err);
void line_reader_close(line_reader *l);
bool line_reader_is_edited(const line_reader *l);

/* Reads one line, without the newline at its end; goes_on: it continues a message. CCA_BAD_TEXT for
 * what is no UTF-8, with byte offset and line; CCA_RUNTIME where it cannot be read. */
cca_status line_reader_read(line_reader *l, text_buffer *out, bool goes_on, line_event *event,
                            cca_error *err);
/* Adds a message to the history. */
void line_reader_remember(line_reader *l, const char *text, size_t size);

#endif
