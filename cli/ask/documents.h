/* The documents of a run: their text, their tokens, and where both stand.
 *
 *     documents d;
 *     documents_read(&d, &options, &chat, engine, &term, &err); // BOS, template, documents
 *     ... d.prompt goes on behind documents_n_tokens(&d) tokens ...
 *     place p = documents_place(&d, 0, 17, 40);          // bytes 17 … 39 of the first
 *     documents_free(&d);
 *
 * Bytes and lines count in a document's text as it was read: decompressed, and with
 * --invalid-utf8 replace after the replacement. */
#ifndef CCA_CLI_DOCUMENTS_H
#define CCA_CLI_DOCUMENTS_H

#include "cli/prompt.h"

typedef struct document_options {
    input_options input;
    const char *names; /* "auto", "on", "off" */
} document_options;

extern const arg_option document_args[];

typedef struct document {
    const char *name; /* path, "standard input" or "--prompt" */
    text_buffer text;
    int64_t first, last; /* its tokens: first … last - 1 */
} document;

typedef struct documents {
    document *items;
    size_t n;
    prompt prompt; /* the caller may append, and cut back to where the documents end */
} documents;

/* Reads and encodes the pieces, or standard input where there is none and it is no terminal, each
 * on its own; with several files, or names "on", behind the names of those that have one. The
 * statuses of prompt_begin and input_read, and CCA_NO_FIT where there is nothing but white space;
 * t is told of a document that is empty beside others. On failure documents_free is still due. */
cca_status documents_read(documents *out, const document_options *options, const chat_options *chat,
                          const cca_engine *engine, term *t, cca_error *err);
void documents_free(documents *d);

/* Finds the documents' tokens where a template has moved them. */
void documents_follow(documents *d);
/* The documents stand where they stood when they were n_parts texts of the model's own template,
 * the system text's included, and nothing stands behind them. */
cca_status documents_settle(documents *d, size_t n_parts, cca_error *err);

/* Tokens up to the end of the last document. */
int64_t documents_n_tokens(const documents *d);

/* Bytes begin … end - 1 of a document, and the lines (from 1) of the first and the last of them. */
typedef struct place {
    const document *of;
    size_t begin, end;
    size_t first_line, last_line;
} place;

place documents_place(const documents *d, size_t index, size_t begin, size_t end);

/* {"file", "line", "last_line", "begin", "end"} */
json_t *place_json(const place *p);
/* "report.txt, line 3, bytes 17-40" or "…, lines 3-4, …" in a buffer of the caller. */
enum { PLACE_TEXT = 512 };
const char *place_text(char out[PLACE_TEXT], const place *p);

#endif
