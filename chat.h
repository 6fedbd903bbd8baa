/* Chat templates that have a name: what stands around system text, documents and question.
 *
 *     cca_chat chat;
 *     cca_chat_parse(&chat, "llama3"); // or cca_chat_of_file(&chat, &found, file, &err)
 *     cca_tokens tokens = {0}; // push BOS where info->add_bos
 *     cca_prompt p;
 *     cca_prompt_begin(&p, chat, tok, &tokens, &err);
 *     cca_prompt_text(&p, CCA_SLOT_SYSTEM, "Be brief.", 9, &err); // may be left out
 *     cca_prompt_text(&p, CCA_SLOT_DOCUMENT, document, size, &err); // any number
 *     cca_prompt_text(&p, CCA_SLOT_QUESTION, "Who signed it?", 14, &err);
 *     cca_prompt_end(&p, &err); // the model's turn to write
 *     ... push the ids of its answer, without the token that ended it ...
 *     cca_prompt_text(&p, CCA_SLOT_QUESTION, "When?", 5, &err); // a further turn, and so on
 *     cca_prompt_end(&p, &err);
 *
 * Scaffold and texts are encoded apart: control tokens of the scaffold are control tokens, the same
 * characters in a text stay text. A space that ends a scaffold belongs to the word behind it, so
 * it is encoded with the text ("[INST] " + text), as the model learned it. Texts are not trimmed
 * and no system text is invented. Behind a document an empty line parts it from the next one, and
 * from a question. */
#ifndef CCA_CHAT_H
#define CCA_CHAT_H

#include "tokenizer.h"

typedef enum cca_chat {
    CCA_CHAT_LLAMA2,     /* [INST] <<SYS>>\nsystem\n<</SYS>>\n\nuser [/INST] */
    CCA_CHAT_LLAMA3,     /* <|start_header_id|>user<|end_header_id|>\n\nuser<|eot_id|> … */
    CCA_CHAT_MISTRAL,    /* [INST] system\n\nuser [/INST]; where [INST] is a token of the vocabulary
                          * one of the next two, as the vocabulary's kind has it */
    CCA_CHAT_MISTRAL_V3, /* [INST] system\n\nuser[/INST] */
    CCA_CHAT_MISTRAL_V3_TEKKEN, /* [INST]system\n\nuser[/INST] */
    CCA_CHAT_MISTRAL_V7,        /* [SYSTEM_PROMPT] system[/SYSTEM_PROMPT][INST] user[/INST] */
    CCA_CHAT_MISTRAL_V7_TEKKEN, /* [SYSTEM_PROMPT]system[/SYSTEM_PROMPT][INST]user[/INST] */
    CCA_CHAT_CHATML,            /* <|im_start|>user\nuser<|im_end|>\n … */
    CCA_CHAT_ZEPHYR,            /* <|user|>\nuser</s>\n … */
    CCA_CHAT_PLAIN, /* documents\n\nQuestion: question\nAnswer: — for models without a template */
} cca_chat;

/* "llama2, llama3, mistral, …, zephyr or plain", for messages. */
extern const char cca_chat_names[];

/* By name; false where there is none. */
bool cca_chat_parse(cca_chat *out, const char *name);
const char *cca_chat_name(cca_chat chat);

/* The template that a model file names (cca.chat_template); *found is false where it names none:
 * then it may have one of its own (chat_template.h). CCA_USAGE for an unknown name. */
cca_status cca_chat_of_file(cca_chat *out, bool *found, const cca_gguf *file, cca_error *err);

/* The token that ends a turn, -1 where it is none of the template's own. */
int32_t cca_chat_end_token(cca_chat chat, const cca_tokenizer *tok);
/* Whether an answer begins with a space, which belongs to its first word: CCA_ENCODE_SPACE. */
bool cca_chat_answer_space(cca_chat chat);
/* Text that ends an answer; NULL: only end tokens do. */
const char *cca_chat_stop(cca_chat chat);

typedef enum cca_slot {
    CCA_SLOT_NONE,
    CCA_SLOT_SYSTEM,
    CCA_SLOT_DOCUMENT,
    CCA_SLOT_QUESTION,
    CCA_SLOT_ANSWER,
} cca_slot;

/* A prompt under construction. A copy, with out->n set back to what it was then, goes on from
 * there again. */
typedef struct cca_prompt {
    cca_chat chat;
    const cca_tokenizer *tok;
    cca_tokens *out;
    size_t begin;  /* tokens before the prompt, or before its last exchange: BOS */
    cca_slot slot; /* opened last */
} cca_prompt;

/* out holds BOS, or nothing where the tokenizer wants none; tok and out are borrowed. CCA_USAGE
 * where the vocabulary lacks the template's tokens. */
cca_status cca_prompt_begin(cca_prompt *p, cca_chat chat, const cca_tokenizer *tok, cca_tokens *out,
                            cca_error *err);

/* Appends the scaffold up to a text that the caller will encode: with the flags *how, which are
 * CCA_ENCODE_START, CCA_ENCODE_SPACE, both or 0. Slots come in their order; only documents repeat,
 * and behind an answer, which the caller has appended, documents or a question may follow again,
 * for which the model's turn is closed (else CCA_USAGE). */
cca_status cca_prompt_open(cca_prompt *p, cca_slot slot, unsigned *how, cca_error *err);
/* Opens the slot and appends a text as plain text. */
cca_status cca_prompt_text(cca_prompt *p, cca_slot slot, const char *text, size_t size,
                           cca_error *err);
/* Appends the scaffold behind the question; the answer comes next. */
cca_status cca_prompt_end(cca_prompt *p, cca_error *err);

#endif
