/* The passages of the documents that an answer attended to most.
 *
 *     sources s;
 *     sources_watch(session, &docs, &err);
 *     ... the question's last tokens, the answer ...
 *     sources_find(&s, session, &docs, 3, &err);
 *     ... s.items[i].at, s.items[i].share ...
 *     sources_free(&s);
 *
 * A passage is the slot (a group of tokens, or the part of one that is a document's) with the
 * largest share of attention that no earlier passage has, and its neighbours in the document as
 * long as they have at least a fifth of it, at most 6 in all. See cca_attention_shares for what a
 * share is; here it is one of all tokens of the documents. */
#ifndef CCA_CLI_SOURCES_H
#define CCA_CLI_SOURCES_H

#include "cli/ask/documents.h"

typedef struct passage {
    place at;
    double share; /* of what all tokens of the documents have together */
} passage;

typedef struct sources {
    passage *items;
    size_t n;
    double start, end; /* shares of the documents' tokens in the first group of the prompt, which
                          attracts attention whatever it says, and of the last group of theirs */
} sources;

/* From here on the last token of each eval counts. CCA_NO_MEMORY. */
cca_status sources_watch(cca_session *session, const documents *docs, cca_error *err);
/* At most n of them, the largest first. On failure, CCA_NO_MEMORY, sources_free is still due. */
cca_status sources_find(sources *out, const cca_session *session, const documents *docs, int64_t n,
                        cca_error *err);
/* The same from shares [n_slots] of the slots of an attention (sums are not read), cut where
 * documents begin and end; they are used up. */
cca_status sources_pick(sources *out, double *shares, const cca_attention *slots,
                        const documents *docs, int64_t n, cca_error *err);
void sources_free(sources *s);

/* [{"file", "line", "last_line", "begin", "end", "share", "text"}] */
json_t *sources_json(const sources *s);

#endif
