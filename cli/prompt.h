/* The prompt of a run: what is read, where its prefill is cut, and what of that is kept.
 *
 *     prompt p;
 *     prompt_begin(&p, &chat, engine, &err);                     // BOS, and the system text
 *     prompt_add(&p, CCA_SLOT_DOCUMENT, &text, special, &err);   // any number
 *     int64_t n = prompt_length(&p);
 *     stored st;
 *     prompt_prefill(&st, &p, &stored_options, STORED_CACHE | STORED_SEAMS, session, &term, &err);
 *     prompt_ask(&p, "Who signed it?", 14, &err);                // up to where the answer begins
 *     prompt_evaluate(&p, session, &term, &err);
 *     ... the ids of an answer may follow, and further texts ...
 *     prompt_cut(&p, n, CCA_SLOT_DOCUMENT);                      // back behind the documents
 *     prompt_free(&p);
 *
 * Its tokens may run ahead of the session. Prefill is cut at ends, of which each text has one: that
 * of its last token, of a question that of the scaffold behind it. */
#ifndef CCA_CLI_PROMPT_H
#define CCA_CLI_PROMPT_H

#include "cli/input.h"
#include "cli/prompt_own.h"
#include "cli/stored_prefill.h"

typedef struct prompt {
    const cca_tokenizer *tok;
    const char *model; /* its file; the engine's */
    cca_tokens tokens; /* offsets of a text's tokens count in that text */
    bool has_template;
    prompt_own *own;    /* the model's own template; NULL: one that has a name, or none */
    cca_prompt opening; /* of a template with a name: behind BOS and system text, */
    cca_prompt now;     /* and behind the last text */
    int64_t n_same;     /* tokens that the last text left as they were */
    int64_t *ends;      /* ascending */
    size_t n_ends;
    int64_t text_begin, text_end; /* the tokens of the text added last, */
    json_t *sources;              /* array of the names of what was read; NULL: none */
    bool led;                     /* which begin with a space that is no part of it */
} prompt;

/* BOS where the tokenizer wants one, and with chat (NULL: the prompt is the texts as they are) the
 * template that it or the model file names, else the file's own (prompt_own.h), and its system
 * text. CCA_BAD_MODEL without a tokenizer or where the file's own template makes no sense,
 * CCA_USAGE where there is no template, it refuses a system text, or the vocabulary lacks its
 * tokens, CCA_BAD_TEXT for a system text that is no UTF-8. free is due in any case. */
cca_status prompt_begin(prompt *out, const chat_options *chat, const cca_engine *engine,
                        cca_error *err);
void prompt_free(prompt *p);

/* Tokens so far. */
int64_t prompt_length(const prompt *p);
/* The template's name, "file" for the file's own; "none" without. */
const char *prompt_template_name(const prompt *p);
/* The token that ends a turn in the template, -1: none but those of the tokenizer. */
int32_t prompt_end_token(const prompt *p);
/* Whether an answer begins with a space in the template; its tokens are those of the text encoded
 * with CCA_ENCODE_SPACE, then. */
bool prompt_answer_space(const prompt *p);
/* Whether a document was added last. */
bool prompt_ends_with_document(const prompt *p);

/* Appends a document, or a question up to where its answer begins; special: control tokens written
 * out in it are control tokens. The file's own template may change tokens before it, too: n_same
 * says how many stay. After a failure prompt_cut makes the prompt what it was. */
cca_status prompt_add(prompt *p, cca_slot slot, const input_text *text, bool special,
                      cca_error *err);
/* The same for a document, behind a line that says its name: "Document: report.txt". What stands in
 * the name is never special, white space and control characters in it are spaces. NULL: no line. */
cca_status prompt_add_document(prompt *p, const char *name, const input_text *text, bool special,
                               cca_error *err);
/* The same for a question in which nothing is special. */
cca_status prompt_ask(prompt *p, const char *question, size_t size, cca_error *err);

/* Appends ids of an answer. CCA_NO_MEMORY. */
cca_status prompt_answer(prompt *p, const int32_t *ids, size_t n, cca_error *err);
/* All tokens from `from` on are an answer of this text, behind which another text may follow. */
cca_status prompt_answered(prompt *p, int64_t from, const char *text, size_t size, cca_error *err);

/* Back to the first n tokens, which end with a text of a slot (CCA_SLOT_ANSWER also where one may
 * begin); CCA_SLOT_NONE: with what prompt_begin made. */
void prompt_cut(prompt *p, int64_t n, cca_slot last);
/* In the file's own template: only the first n parts stay, the system text's among them, and the
 * tokens are theirs, whatever a longer conversation had made of them. Else nothing. */
cca_status prompt_settle(prompt *p, size_t n_parts, cca_error *err);
/* Takes n tokens from `at` on out of the text added last. */
void prompt_shorten(prompt *p, int64_t at, int64_t n);

/* Brings the session to the prompt's end, with progress: loads what a session file has of it, as
 * stored_open says, evaluates the rest and keeps checkpoints; flags say whether the cache folder
 * serves, and where prefill is cut. CCA_INTERRUPTED says what is kept. stored_close is due in any
 * case. */
cca_status prompt_prefill(stored *out, const prompt *p, const stored_options *options,
                          unsigned flags, cca_session *session, term *t, cca_error *err);
/* Evaluates, with progress and nothing kept, the tokens from the session's position on. */
cca_status prompt_evaluate(const prompt *p, cca_session *session, term *t, cca_error *err);

#endif
