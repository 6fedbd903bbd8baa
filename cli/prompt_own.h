/* A prompt in the model's own template, which is rendered as a whole each time.
 *
 *     prompt_own_begin(p, file, now, system, size, &err);
 *     prompt_own_add(p, &part, &err);          // a document or a question
 *     prompt_own_answered(p, from, text, size, &err);
 *     prompt_own_cut(p, n, all);
 *     prompt_own_free(p->own);
 *
 * A template may say anything anew when a message is added: leave out what was thought in earlier
 * answers, move the system text to the last question. So the text of all messages is made again,
 * and compared with the text that the tokens stand for. Up to the last step that both have in
 * common the tokens stay; from there on the text is encoded. Steps are where the tokens were final:
 * ends of documents, of questions (with what the template writes up to the answer), and of answers,
 * whose tokens are those that the model gave. A document goes in with one letter in the place of
 * the question: what the template writes up to there does not depend on the question, or is made
 * again when that comes. */
#ifndef CCA_CLI_PROMPT_OWN_H
#define CCA_CLI_PROMPT_OWN_H

#include "chat.h"
#include "chat_template.h"
#include "cli/text_buffer.h"

struct prompt;

/* A text of the conversation, and the tokens that it became. */
typedef struct prompt_part {
    cca_slot slot;
    text_buffer text;
    size_t skip;         /* bytes of it in front of the text proper: a document's name */
    bool special;        /* behind those control tokens written out are control tokens */
    size_t message, at;  /* the message that has it, and from where on */
    int64_t first, last; /* tokens of the text proper */
    int64_t end;         /* tokens up to the end of its step */
    bool led;            /* the first one begins with a space that is no part of it */
} prompt_part;

/* Tokens and the rendered text that they stand for. */
typedef struct prompt_step {
    size_t text_end, n_parts;
    int64_t n_tokens;
} prompt_step;

typedef struct prompt_own {
    cca_template *template;
    prompt_part *parts;
    size_t n_parts, parts_capacity;
    text_buffer rendered;
    prompt_step *steps;
    size_t n_steps, steps_capacity;
    int64_t opening; /* tokens that prompt_own_begin made */
} prompt_own;

/* Reads the template and takes over no text; the tokens are what stands before any user's words for
 * sure. system NULL: none. Statuses of cca_template_of_file and cca_template_render. */
cca_status prompt_own_begin(struct prompt *p, const cca_gguf *file, int64_t now, const char *system,
                            cca_error *err);
void prompt_own_free(prompt_own *own);

/* Adds a document or a question, whose text is taken over in any case; sets p->n_same. After a
 * failure prompt_cut makes the prompt what it was. */
cca_status prompt_own_add(struct prompt *p, prompt_part *part, cca_error *err);
/* The tokens from `from` on are an answer of this text. */
cca_status prompt_own_answered(struct prompt *p, int64_t from, const char *text, size_t size,
                               cca_error *err);
/* Parts behind the first n tokens go; with opening all but the system text. */
void prompt_own_cut(struct prompt *p, int64_t n, bool opening);
/* Makes the tokens those of the parts, whatever a longer conversation had made of them. */
cca_status prompt_own_settle(struct prompt *p, cca_error *err);
/* Only the first n parts stay, the system text's among them; their tokens are for the caller to
 * cut. */
void prompt_own_keep(struct prompt *p, size_t n);

/* Takes a part as it stood in a conversation that was kept, its tokens in place; at the end
 * prompt_own_restored finds what the tokens stand for. */
cca_status prompt_own_restore(struct prompt *p, prompt_part *part, cca_error *err);
cca_status prompt_own_restored(struct prompt *p, cca_error *err);

#endif
