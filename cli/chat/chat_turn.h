/* A chat under way, and its turns.
 *
 *     chatting a = {.settings = settings, .term = &term, .out = &out, .decoder = &decoder, ...};
 *     conversation_open(&a.c, ...);
 *     chat_say(&a, "Who is she?", 11, &err);          // prefill, answer, session file
 *     chat_answer(&a, &err);                          // another answer, behind conversation_cut
 *     chat_keep(&a, &err); */
#ifndef CCA_CLI_CHAT_TURN_H
#define CCA_CLI_CHAT_TURN_H

#include "cli/chat/conversation.h"
#include "cli/cli.h"
#include "cli/decode.h"

/* What /set changes. */
typedef struct chat_settings {
    sampling_options sampling;
    int64_t max_answer;
} chat_settings;

/* Those of them that are not the sampler's. */
extern const arg_option chat_answer_args[];

typedef struct chatting {
    conversation c;
    chat_settings settings;
    const input_options *input; /* how documents are read */
    cca_store *store;           /* --session, kept up to date; or NULL */
    term *term;
    output *out;
    decoder *decoder;
    uint64_t seed;       /* of the first answer; each one after it has the next */
    uint64_t n_answers;  /* made so far */
    int64_t n_prefilled; /* of the last answer: tokens, seconds */
    double prefill_s;
    bool interactive; /* standard input is a terminal */
    bool done;        /* /quit */
} chatting;

/* A turn: the user's words, then an answer to standard output. CCA_NO_FIT, and CCA_INTERRUPTED in
 * prefill, leave the conversation as it was; an answer that was interrupted stays. */
cca_status chat_say(chatting *a, const char *text, size_t size, cca_error *err);
/* The answer behind the last message. */
cca_status chat_answer(chatting *a, cca_error *err);
/* Keeps the --session file up to date: after a step, and after messages were taken back. */
cca_status chat_keep(chatting *a, cca_error *err);
cca_status chat_keep_cut(chatting *a, cca_error *err);
/* What comes of a failure of that: on a terminal a warning, and the file is left alone. */
cca_status chat_unkept(chatting *a, cca_status status, cca_error *err);

#endif
