/* What a run is compared with: the same weights with another attention, or another model.
 *
 *     ppl_base base = {0};
 *     ppl_base_open_model(&base, "full", engine, &model, &context, &term, &err);
 *     ppl_base_open_session(&base, &plan, &term, &err);     // base.session
 *     ppl_base_close(&base); */
#ifndef CCA_CLI_PPL_BASE_H
#define CCA_CLI_PPL_BASE_H

#include "cli/cli.h"

typedef struct ppl_base {
    char *model; /* its file; NULL: the run's own weights */
    context_options context;
    cca_engine *engine; /* borrowed where the weights are the run's */
    cca_session *session;
} ppl_base;

/* what: a kind of attention; a model file, which takes the run's attention; or FILE:ATTENTION.
 * CCA_USAGE where the vocabularies differ, CCA_NO_MEMORY; close is due in any case. */
cca_status ppl_base_open_model(ppl_base *base, const char *what, cca_engine *engine,
                               const model_options *model, const context_options *context, term *t,
                               cca_error *err);

/* Beside a run of that plan; with --dry-run it only tells what the base would take. CCA_NO_MEMORY
 * where there is not enough for both. */
cca_status ppl_base_open_session(ppl_base *base, const cli_plan *plan, term *t, cca_error *err);

void ppl_base_close(ppl_base *base);

#endif
