/* A model's own chat template: the Jinja text of its file, rendered for a conversation.
 *
 *     cca_template *t;
 *     cca_template_of_file(&t, file, tok, time(NULL), &err);
 *     const cca_message messages[] = {{"user", "Who signed it?", 14}};
 *     cca_jinja_output out;
 *     cca_template_render(&out, t, messages, 1, true, &err);     // the model's turn comes next
 *     cca_tokens controls = {0};
 *     cca_template_controls(&controls, t, &out, out.spans, out.n_spans, 0, &err);
 *     ... the text between those is encoded as plain text, in one piece from one to the next ...
 *     cca_jinja_output_free(&out);
 *     cca_template_free(t);
 *
 * The text is what transformers' apply_chat_template makes, and the tokens are to be those of
 * the whole text: BOS is where the template writes it and nowhere else. Control tokens are found in
 * what the template itself has written; texts of messages stay texts, wherever and in whichever
 * parts the template puts them (jinja.h tells where bytes come from). */
#ifndef CCA_CHAT_TEMPLATE_H
#define CCA_CHAT_TEMPLATE_H

#include "jinja/jinja.h"
#include "tokenizer.h"

typedef struct cca_template cca_template;

/* tokenizer.chat_template, else the one named default (tokenizer.chat_template.default); tok is
 * borrowed, now what strftime_now tells. CCA_USAGE where the file has none, CCA_BAD_MODEL, naming
 * the line, for one that cannot be read. */
cca_status cca_template_of_file(cca_template **out, const cca_gguf *file, const cca_tokenizer *tok,
                                int64_t now, cca_error *err);
void cca_template_free(cca_template *t);

int64_t cca_template_now(const cca_template *t);
/* Sixteen hexadecimal digits that differ for another text. */
const char *cca_template_hash(const cca_template *t);

typedef struct cca_message {
    const char *role; /* "system", "user", "assistant" */
    const char *text;
    size_t size;
} cca_message;

/* Contents of the output's spans are the messages, by their index. CCA_USAGE where the template
 * refuses the conversation, CCA_BAD_MODEL for one that makes no sense, CCA_NO_MEMORY. */
cca_status cca_template_render(cca_jinja_output *out, const cca_template *t,
                               const cca_message *messages, size_t n, bool answer_next,
                               cca_error *err);

/* Appends the control tokens that stand outside of the given spans in the text from `from` on, each
 * with the offset where it begins; cca_template_size is how many bytes it is written with. */
cca_status cca_template_controls(cca_tokens *out, const cca_template *t,
                                 const cca_jinja_output *text, const cca_jinja_span *spans,
                                 size_t n_spans, size_t from, cca_error *err);
size_t cca_template_size(const cca_template *t, int32_t control);

/* The control token that the template writes behind an answer, which ends it; -1: none. */
int32_t cca_template_end_token(const cca_template *t);
/* Whether it writes a space, and nothing else, between what it asks for an answer with and the
 * answer. */
bool cca_template_answer_space(const cca_template *t);

#endif
