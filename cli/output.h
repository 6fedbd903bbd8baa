/* Where answers go: standard output, or a file that appears whole or not at all.
 *
 *     output out;
 *     output_open(&out, NULL, &err);              // NULL or "-": standard output
 *     output_printf(&out, "%d tokens\n", n);
 *     output_flush(&out, &err);
 *     output_close(&out, true, &err);             // false drops a file that is not finished
 *
 * The first failure sticks, further writing does nothing, and output_flush and output_close
 * report it: CCA_BAD_OUTPUT names the file; a reader that closed the pipe is CLI_PIPE_CLOSED
 * without a message. */
#ifndef CCA_CLI_OUTPUT_H
#define CCA_CLI_OUTPUT_H

#include "base/base.h"
#include "base/whole_file.h"
#include "cli/args.h"
#include "cli/text_buffer.h"

#include <jansson.h>

/* The exit code of a process that SIGPIPE ends. */
#define CLI_PIPE_CLOSED ((cca_status)141)

enum { OUTPUT_BUFFER = 8192 };

typedef struct output {
    int fd;
    const char *name;    /* for messages */
    cca_whole_file file; /* closed for what is no regular file */
    cca_status status;   /* the first failure */
    cca_error error;
    size_t used;
    char last; /* byte written last */
    char buffer[OUTPUT_BUFFER];
} output;

/* A file is written beside its final place under another name; what exists and is no regular
 * file (a device, a pipe) is written as it is. */
cca_status output_open(output *out, const char *path, cca_error *err);
void output_write(output *out, const void *bytes, size_t size);
/* Lines: control characters but \n and \t, and what is no UTF-8, come out as cca_utf8_printable has
 * them. */
void output_printf(output *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Text of a stranger within a line: no \n and \t either. */
void output_text(output *out, const char *text, size_t size);
/* One line; takes the reference to value (NULL is out of memory). */
void output_json(output *out, json_t *value);
/* What is said next on standard error begins a line: where both are shown in one place (a terminal,
 * 2>&1) and the last line of out is open, it is ended, on standard error. */
void output_end_line(output *out);
/* Hands everything to the system. */
cca_status output_flush(output *out, cca_error *err);
/* Flushes, and renames a file where keep is true and nothing failed; always frees. Without keep
 * failures are forgotten. */
cca_status output_close(output *out, bool keep, cca_error *err);

/* Build a record: where memory ends it is given back and NULL from then on, which output_json
 * reports. Values are taken over; of NULL nothing comes. */
void output_put(json_t **object, const char *key, json_t *value);
void output_add(json_t **array, json_t *value);
/* A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. NULL without memory. */
json_t *output_string(const char *bytes, size_t size);
/* null where the value is not known, or no finite number: JSON has no word for the others. */
json_t *output_real(bool known, double value);
/* null for 0, which stands for a size that nobody gave. */
json_t *output_size(int64_t size);

/* ---- the text that a model writes ---- */

typedef enum answer_format { ANSWER_TEXT, ANSWER_JSON, ANSWER_JSONL } answer_format;

typedef struct answer_options {
    answer_format format;
    const text_buffer *stops; /* n_stops texts that end the answer and are not part of it */
    size_t n_stops;
    bool strip_space; /* the answer's first space belongs to the tokenizer, not to the text */
} answer_options;

/* ANSWER_TEXT: each whole character is written as soon as no stop text can begin before it.
 * ANSWER_JSONL: the same as {"event": "text", "text": ...} lines. All keep the text. */
typedef struct answer {
    output *out;
    answer_options options;
    text_buffer held; /* not yet written: the start of a stop text or of a character */
    text_buffer text; /* written so far */
    size_t skipped;   /* bytes of the space that strip_space dropped */
    bool begun, stopped;
} answer;

void answer_begin(answer *a, output *out, const answer_options *options);
/* Adds the bytes of one token; a->stopped tells that a stop text is complete. */
cca_status answer_add(answer *a, const char *bytes, size_t size, cca_error *err);
/* Writes what is still held. */
cca_status answer_end(answer *a, cca_error *err);
void answer_free(answer *a);

#endif
