/* The report of cca ppl, as text and as JSON. */
#ifndef CCA_CLI_PPL_REPORT_H
#define CCA_CLI_PPL_REPORT_H

#include "cli/cli.h"
#include "cli/ppl/ppl_base.h"
#include "cli/ppl/ppl_score.h"
#include "cli/ppl/ppl_windows.h"

typedef struct ppl_report {
    ppl_layout layout;
    ppl_totals totals;
    bool replaced_bos; /* BOS takes the place of each window's first token */
    ppl_stats stats;
    const ppl_base *base; /* NULL: none; gaps: how far from it */
    ppl_gaps *gaps;
    const context_options *context;
    const cca_engine *engine;
    uint64_t tokenizer_hash, text_hash; /* 0: none */
    cli_plan plan;
    const cca_session *session; /* whose ranks are told */
    double load_s, eval_s;
} ppl_report;

void ppl_report_print(output *out, const ppl_report *report);

/* NULL without memory; warnings is borrowed. */
json_t *ppl_report_json(const ppl_report *report, json_t *warnings);

#endif
