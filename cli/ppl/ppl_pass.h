/* Evaluates the windows of a text and sums what its tokens cost, perhaps beside another session on
 * the same tokens: chunk by chunk, so that of both no more than a tile of logits is there at a
 * time.
 *
 *     ppl_pass p = {.engine = engine, .base = other, .tokens = &tokens, .text_bytes = size,
 *                   .layout = layout, .term = &term};
 *     ppl_pass_open(&p, &err);
 *     ppl_pass_run(&p, session, NULL, NULL, &err);     // p.stats, p.gaps
 *     ppl_pass_close(&p); */
#ifndef CCA_CLI_PPL_PASS_H
#define CCA_CLI_PPL_PASS_H

#include "base/workers.h"
#include "cli/cli.h"
#include "cli/ppl/ppl_score.h"
#include "cli/ppl/ppl_windows.h"

typedef struct ppl_pass {
    /* Given, and borrowed. */
    const cca_engine *engine;
    const cca_tokens *tokens; /* of the text, without BOS */
    uint64_t text_bytes;      /* that they stand for; 0: not known */
    ppl_layout layout;
    bool replace_first;           /* BOS takes the place of each window's first token */
    output *nll_out, *logits_out; /* NULL: not wanted */
    cca_session *base;            /* another session, to compare with; or NULL */
    term *term;                   /* shows progress, from `before` on */
    int64_t before;

    ppl_stats stats;   /* of what has been scored since open */
    ppl_gaps gaps;     /* where there is a base */
    ppl_window window; /* under way */
    int64_t evaluated; /* positions of the windows before it */
    int32_t *ids;      /* its tokens */
    cca_workers *workers;
    float *logits, *base_logits;
    cca_session *session; /* whose chunk at chunk_pos is under way */
    int64_t chunk_pos;
} ppl_pass;

/* The tokenizer wants BOS before a text. */
bool ppl_wants_bos(const cca_tokenizer *tok);

/* CCA_NO_MEMORY; close is due in any case. */
cca_status ppl_pass_open(ppl_pass *p, cca_error *err);
void ppl_pass_close(ppl_pass *p);

/* Resets the session and evaluates all windows; after_window, which may be NULL, is called behind
 * each with its number. Whatever it and the session return ends the pass. */
typedef cca_status (*ppl_window_fn)(void *user, int64_t index, cca_error *err);
cca_status ppl_pass_run(ppl_pass *p, cca_session *session, ppl_window_fn after_window, void *user,
                        cca_error *err);

#endif
