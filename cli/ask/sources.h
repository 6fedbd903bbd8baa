/* The passages of the documents that an answer attended to most.
 *
 *     sources s;
 *     cca_session_watch(session, &err);
 *     ... the question's last tokens, the answer ...
 *     sources_find(&s, session, &docs, 3, &err);
 *     ... s.items[i].at, s.items[i].share ...
 *     sources_free(&s);
 *
 * A passage is the slot (a group of tokens) with the largest share of attention that no earlier
 * passage has, and its neighbours as long as they have at least a fifth of it, at most 6 in all.
 * See cca_attention_shares for what a share is. */
#ifndef CCA_CLI_SOURCES_H
#define CCA_CLI_SOURCES_H

#include "cli/ask/documents.h"

typedef struct passage {
    place at;
    double share; /* of what all slots of the documents have together */
} passage;

typedef struct sources {
    passage *items;
    size_t n;
} sources;

/* At most n of them, the largest first. On failure, CCA_NO_MEMORY, sources_free is still due. */
cca_status sources_find(sources *out, const cca_session *session, const documents *docs, int64_t n,
                        cca_error *err);
/* The same from shares [n_slots] of unit positions each, which are used up. */
cca_status sources_pick(sources *out, double *shares, int64_t n_slots, int64_t unit,
                        const documents *docs, int64_t n, cca_error *err);
void sources_free(sources *s);

/* [{"file", "line", "last_line", "begin", "end", "share", "text"}] */
json_t *sources_json(const sources *s);

#endif
