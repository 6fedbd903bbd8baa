/* What an answer has in quotation marks, looked up in the documents.
 *
 *     quotes q;
 *     quotes_check(&q, text, size, &docs, &err);
 *     ... q.items[i].found, q.items[i].at ...
 *     quotes_free(&q);
 *
 * A quotation stands between "…", “…”, „…“, „…”, «…», »…« or ‘…’ and is not empty; an
 * apostrophe inside a word ends none. It is found where a document has the same characters: each
 * run of white space counts as one space, and ‘ ’ as ', “ ” „ as ". */
#ifndef CCA_CLI_QUOTES_H
#define CCA_CLI_QUOTES_H

#include "cli/ask/documents.h"

typedef struct quote {
    size_t begin, end; /* its bytes in the answer, without the marks */
    bool found;
    place at; /* the first place in the documents, where it was found */
} quote;

typedef struct quotes {
    quote *items;
    size_t n, capacity;
} quotes;

/* On failure, CCA_NO_MEMORY, quotes_free is still due. */
cca_status quotes_check(quotes *out, const char *text, size_t size, const documents *docs,
                        cca_error *err);
void quotes_free(quotes *q);

/* [{"text", "found", and of those found "file", "line", "last_line", "begin", "end"}] */
json_t *quotes_json(const quotes *q, const char *text);

#endif
