/* What the files of cca ask share: a run's state, how long it gets, and what it writes. */
#ifndef CCA_CLI_ASK_H
#define CCA_CLI_ASK_H

#include "cli/ask/choices.h"
#include "cli/ask/documents.h"
#include "cli/ask/questions.h"
#include "cli/decode.h"
#include "cli/ranks.h"
#include "cli/stored_prefill.h"

typedef struct ask_options {
    model_options model;
    document_options documents;
    chat_options chat;
    context_options context;
    sampling_options sampling;
    output_options output;
    term_options term;
    question_options questions;
    stored_options stored;
    ranks_options ranks;
    arg_list stops;
    lookup_options lookup;
    int64_t n_sources;
    bool follow_up, jsonl, quotes;
} ask_options;

typedef struct asking {
    const ask_options *o;
    term term;
    output out;
    cca_engine *engine;
    const cca_tokenizer *tok;
    documents docs; /* its prompt goes on with the conversation and one question */
    questions questions;
    const question *about; /* the first that names these documents; NULL: they are the run's */
    bool many;             /* some documents are asked about more than once */
    cca_session *session;
    context_options context; /* with what a stored session says */
    stored stored;
    decoder decoder;
    cli_plan plan;
    cli_ranks ranks;
    json_t *answers;    /* the records, for --json */
    size_t n_asked;     /* the question under way included */
    int64_t base;       /* tokens before the next question, */
    size_t base_parts;  /* and texts of the conversation, in the model's own template */
    int64_t same;       /* tokens that are as they were when the session read the last question */
    bool astray;        /* the session is not where some of these tokens end */
    bool unasked;       /* nothing was asked about the documents yet, and what they took counts with
                           the first question */
    int64_t marked;     /* where the session's mark is; -1: there is none */
    int64_t n_sources;  /* passages to tell of each answer */
    size_t n_stops;     /* those that end any answer */
    size_t n_documents; /* that were read, */
    int64_t document_tokens; /* and up to their ends */
    double load_s, documents_s;
} asking;

/* One question and its answer. */
typedef struct exchange {
    const question *question;
    const text_buffer *text; /* the answer's */
    const choices *choices;  /* it is one of; NULL: it was written */
    double logprob;          /* of the answer; where records are wanted */
    int64_t n_reused;        /* of the prompt */
    double prefill_s;
} exchange;

/* ---- how long it gets (ask_length.c) ---- */

/* Reads the documents that a question names, or those of the run, in place of those there are; the
 * next question stands behind them. Failures of documents_read, which name the question's line. */
cca_status ask_read(asking *a, const question *q, term *t, cca_error *err);

/* Reads all documents, one after the other, for the longest prompt, with its choices, and the
 * positions that prompts and answers take: with --follow-up of all questions about a document
 * together. INT64_MAX: as many as there are. The last ones stay. CCA_NO_FIT for a prompt that is
 * too long; it names the line of a question that names its document. */
cca_status ask_measure(asking *a, int64_t *longest, int64_t *positions, cca_error *err);

/* Tokens of an answer; -1: as many as there is room for. */
int64_t ask_answer_bound(const asking *a, int64_t most);
/* Puts a question behind what stands before it, in place of another one. */
cca_status ask_encode(asking *a, const question *q, cca_error *err);
/* What there is of the prompt stands before the next question. */
void ask_set_base(asking *a);
/* Whether questions have choices, or may have. */
bool ask_chooses(const asking *a);

/* ---- what is written (ask_report.c) ---- */

/* The last question's answer, its statistics and what else was asked for. The answer's text is not
 * written where it already was. */
cca_status ask_report(asking *a, const exchange *e, bool written, cca_error *err);
/* The record at the end, and the last line. */
cca_status ask_finish(asking *a, cca_error *err);

#endif
