/* Where questions come from: arguments, -Q files of JSON lines, and lines of standard input that
 * are answered as they come (-Q -, -i).
 *
 *     questions q;
 *     questions_open(&q, &options, &term, &err); // arguments and files are read and checked
 *     ... q.items[0 … q.n - 1], before anything is computed; q.live: more may come ...
 *     const question *next;
 *     while (!questions_next(&q, &next, &err) && next) ...
 *     questions_close(&q);
 *
 * A JSON line is a string, or an object {"question", "document", "id", "max_answer", "stop",
 * "choices"} of which all but the first may be left out; empty lines are skipped. Either all
 * questions of a run name the document that they are asked about, or none does. What is wrong with
 * a line is CCA_USAGE (CCA_BAD_TEXT where it is no UTF-8) and names file, line and field. So is a
 * question without words, and an argument that is the name of a file: -f *.txt was hardly meant. */
#ifndef CCA_CLI_QUESTIONS_H
#define CCA_CLI_QUESTIONS_H

#include "cli/args.h"
#include "cli/line_reader.h"
#include "cli/text_buffer.h"

#include <jansson.h>

typedef struct question_options {
    arg_list given, files; /* arguments, -Q */
    bool interactive;      /* -i */
    int64_t most;          /* tokens of an answer where the question does not say */
    const char *choices;   /* --choices, of questions that do not say; NULL: none */
} question_options;

extern const arg_option question_args[];

/* Where a line stands, for messages. */
typedef struct question_place {
    const char *file; /* borrowed; NULL: it is an argument */
    size_t line;
} question_place;

typedef struct question {
    const char *text;
    size_t size;
    json_t *id;       /* NULL: none */
    json_t *document; /* the path it is asked about, or an array of paths; NULL: the run's -f, -p */
    bool again;       /* it is asked about what the question before it was */
    int64_t most;     /* tokens of the answer; -1: no bound */
    json_t *stops;    /* array of texts that end the answer; NULL: none */
    json_t *choices; /* array of texts to choose an answer from (choices.h); NULL: one is written */
    json_t *line;    /* what the above is borrowed from; NULL: of another's memory */
    char *copy;      /* of a typed line; or NULL */
    question_place at;
} question;

typedef enum question_source {
    QUESTIONS_LISTED, /* all are there */
    QUESTIONS_JSON,   /* JSON lines of standard input */
    QUESTIONS_TYPED,  /* its lines, as they are */
} question_source;

typedef struct questions {
    const question_options *options;
    question *items;
    size_t n, capacity, taken;
    question_source live;
    json_t *choices;     /* of questions that do not say; NULL: none */
    bool prompts;        /* typed at a terminal */
    line_reader *reader; /* of a terminal that shows what is typed; or NULL */
    size_t line;         /* of standard input */
    question now;        /* the last of it */
    char *buffer;        /* getline's */
    size_t buffer_size;
} questions;

/* CCA_RUNTIME for a file that cannot be read. The term is borrowed. On failure questions_close is
 * still due. */
cca_status questions_open(questions *out, const question_options *options, term *t, cca_error *err);
void questions_close(questions *q);

/* Whether they name their documents; the paths of a question's, and how many there are. */
bool questions_have_documents(const questions *q);
size_t question_n_paths(const question *q);
const char *question_path(const question *q, size_t index);

/* The next question, valid until the next call; *out is NULL behind the last. Waits for standard
 * input; CCA_INTERRUPTED by a signal. */
cca_status questions_next(questions *q, const question **out, cca_error *err);

#endif
