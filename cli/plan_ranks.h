/* What cca plan --ranks tells: time and traffic of a prompt on ranks that are each like this
 * machine, and how they decode.
 *
 *     plan_link link;
 *     plan_link_parse(&link, "50GB/s,5us", &err);
 *     plan_ranks_fill(&r, engine, &options, 64, n_tokens, &each, &link, &err);
 *     json_t *json = plan_ranks_json(&r); */
#ifndef CCA_CLI_PLAN_RANKS_H
#define CCA_CLI_PLAN_RANKS_H

#include "cli/cli.h"

/* Between two ranks: bytes a second, in both directions at once, and what a message takes. */
typedef struct plan_link {
    double bytes_s, latency_s;
} plan_link;

/* "50GB/s,5us": KB, MB, GB or Kbit, Mbit, Gbit a second; ns, us, ms. CCA_USAGE. */
cca_status plan_link_parse(plan_link *out, const char *text, cca_error *err);

typedef struct plan_ranks {
    int64_t n; /* 0: nothing is told */
    cca_share_forecast share;
    double transfer_s, prefill_s; /* 0: not measured */
    const char *decode; /* what --decode auto is: "gather" or "share"; NULL: neither fits */
    double exchange_s;  /* with "share": what a token's messages take; 0: not possible */
    double token_s;     /* and the token with them; 0: not measured, or not possible */
} plan_ranks;

/* What one machine has: its times, 0 where they are not measured, bytes for sessions, and ranks. */
typedef struct plan_machine {
    double prefill_s, token_s;
    uint64_t room;
    int64_t n_ranks; /* that share its memory */
} plan_machine;

/* Where the prompt is too short for so many ranks *out says nothing. */
cca_status plan_ranks_fill(plan_ranks *out, const cca_engine *engine,
                           const cca_session_options *options, int64_t n_ranks, int64_t n_tokens,
                           const plan_machine *each, const plan_link *link, cca_error *err);
/* {"n", "tokens", "memory", "sent_bytes", "most_bytes", "ring_bytes", "transfer_s", "prefill_s",
 * "decode": {"auto", "gather": {"rank_0", "others"}, "share": {"rank_0", "others", "token_bytes",
 * "exchange_s", "token_s"}}}; null where nothing is told. */
json_t *plan_ranks_json(const plan_ranks *r);

#endif
