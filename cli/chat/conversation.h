/* A conversation: messages, their tokens, and a session that has evaluated the first of these.
 *
 *     conversation c;
 *     conversation_open(&c, &options, engine, special, &term, &err);    // BOS and system text
 *     conversation_read(&c, "report.txt", &text, &err);                 // documents, any number
 *     conversation_settle(&c, session, limit);                          // those stay
 *     conversation_say(&c, text, size, &err);                           // a turn begins
 *     conversation_prefill(&c, true, &err);
 *     ... a decoder writes the answer behind c.prompt ...
 *     conversation_answered(&c, n_prompt, text, size, &err);            // and ends
 *     conversation_undo(&c);
 *     conversation_close(&c);
 *
 * The tokens run ahead of the session: what it has not evaluated is evaluated with the next turn.
 * It goes back to where turns began by snapshots; where there is none of them left, to the last one
 * before, and what is missing is evaluated again. */
#ifndef CCA_CLI_CONVERSATION_H
#define CCA_CLI_CONVERSATION_H

#include "cli/prompt.h"

typedef struct message {
    cca_slot slot; /* CCA_SLOT_DOCUMENT, CCA_SLOT_QUESTION, CCA_SLOT_ANSWER */
    char *name;    /* of a document; else NULL */
    input_text text;
    int64_t begin; /* tokens before it */
    int64_t from;  /* tokens before its text: behind the template's */
    bool led;      /* the text's tokens begin with a space that is no part of it */
} message;

typedef struct conversation {
    cca_engine *engine;
    term *term;
    bool special;       /* control tokens written out in documents are control tokens */
    text_buffer system; /* the system text, where has_system */
    bool has_system;
    message *messages;
    size_t n_messages, capacity;
    size_t n_base;        /* documents at the start, which stay */
    prompt prompt;        /* system text and messages */
    cca_session *session; /* borrowed */
    bool stale;           /* what the session has evaluated is not the first of the tokens */
    cca_snapshot **marks; /* ascending; each of the first tokens */
    size_t n_marks, most_marks;
    int64_t limit;     /* positions */
    int64_t prefilled; /* tokens, by the last conversation_prefill */
} conversation;

/* CCA_USAGE where no template is named, CCA_BAD_TEXT for a system text that is no UTF-8. */
cca_status conversation_open(conversation *out, const chat_options *options, cca_engine *engine,
                             bool special, term *t, cca_error *err);
void conversation_close(conversation *c);

/* The messages so far stay at the start; the session has evaluated none of the tokens, or the first
 * of them. At most most_marks snapshots are kept (at least 2). */
void conversation_settle(conversation *c, cca_session *session, int64_t limit, size_t most_marks);

/* Evaluates what is missing of the tokens, but for a few, and takes a snapshot, to which the
 * conversation can come back: for the beginning of each step. */
cca_status conversation_mark(conversation *c, cca_error *err);

/* Adds a document (whose text is taken over, also on failure) or the user's words, up to where the
 * answer begins. CCA_NO_FIT where no room for an answer is left; the conversation is as before
 * after a failure. */
cca_status conversation_read(conversation *c, const char *name, input_text *text, cca_error *err);
cca_status conversation_say(conversation *c, const char *text, size_t size, cca_error *err);

/* Evaluates all tokens, with progress; with logits of the last one. After a failure, which may be
 * CCA_INTERRUPTED, the conversation is as before, and its tokens wait. */
cca_status conversation_prefill(conversation *c, bool logits, cca_error *err);

/* The tokens from n_prompt on are an answer that was seen as text; what they have beyond it goes.
 * clean: the session has evaluated all of them but the last. */
cca_status conversation_answered(conversation *c, int64_t n_prompt, const text_buffer *text,
                                 bool clean, cca_error *err);

/* Takes back the messages behind the first n_messages; the prompt goes on behind the last one. */
void conversation_cut(conversation *c, size_t n_messages);
/* Messages that stay when the last turn (or document behind it) is taken back; n_messages where
 * nothing can be. */
size_t conversation_before(const conversation *c);

/* Writes the conversation anew, with another system text (NULL: none), to be evaluated with the
 * next turn. As before after a failure. */
cca_status conversation_system(conversation *c, const char *system, cca_error *err);

/* Takes a snapshot of the session as it is, unless there is one of its position. */
cca_status conversation_take(conversation *c, cca_error *err);
/* Forgets all states: the session is about to become another one's. */
void conversation_leave(conversation *c);
/* c becomes the other one, which is left empty. */
void conversation_replace(conversation *c, conversation *other);

/* Options that begin a conversation in the same template, at the same time. */
chat_options conversation_template(const conversation *c, const char *system);

/* The end of a message's tokens. */
int64_t conversation_end(const conversation *c, size_t i);

/* For a conversation whose messages and tokens were pushed: lets the model's own template go on
 * behind them. */
cca_status conversation_restore(conversation *c, cca_error *err);

/* Appends a message without tokens of its own; takes over text. False without memory. */
bool conversation_push(conversation *c, const message *m);

#endif
