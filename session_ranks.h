/* What the files of sessions over ranks share: rank 0's orders, and those who follow them.
 *
 * Rank 0 broadcasts an order, and the ids of the tokens. All say whether they can follow it, run
 * the one forward pass, of a prompt that they share or each of a text of its own, and tell each
 * other how it went. */
#ifndef CCA_SESSION_RANKS_H
#define CCA_SESSION_RANKS_H

#include "engine_parts.h"

#include "model_share.h"

typedef enum order_kind { ORDER_EVAL = 1, ORDER_FORWARD, ORDER_SCORE, ORDER_END } order_kind;

typedef struct order {
    uint64_t bytes; /* of this struct: programs of another kind are told apart by it */
    order_kind kind;
    char weights[CCA_GGUF_FINGERPRINT + 1]; /* of rank 0's model */
    char device[16];                        /* the kind that it computes on */
    cca_state_options options;              /* of its session */
    int64_t n, pos, together;
    /* Of ORDER_SCORE: texts of n tokens in all, one of each of the first ranks, or one that all
     * split; whether their rows are wanted, and whether a base follows (session_score.c). */
    int64_t n_texts;
    bool split, shows, compares;
} order;

/* What others must have in common with rank 0's session. */
void cca_order_sign(order *what, const cca_session *s);
/* One rank's failure is all ranks'; err has its message, if it is another's. counts, [n_ranks] or
 * NULL: of these tokens this rank has made so many. */
cca_status cca_ranks_settle(cca_comm *comm, cca_rank_count *counts, int64_t prefilled,
                            cca_status status, cca_error *err);

/* A state of a rank's, and the options that it was made for; NULL: none yet. */
typedef struct servant_state {
    cca_state *state;
    char made_for[sizeof(cca_state_options)];
} servant_state;

/* States of a model that a rank has. */
typedef struct servant_model {
    cca_engine *engine; /* NULL: none yet */
    cca_backend *backend;
    char weights[CCA_GGUF_FINGERPRINT + 1];
    servant_state part, whole; /* for a part of a prompt: one layer; for texts of its own */
} servant_model;

/* What a rank keeps from one order to the next. */
typedef struct servant {
    cca_comm *comm;
    const volatile sig_atomic_t *stop;
    servant_model own, base; /* base: what rank 0 compares with, perhaps of the same engine */
    int64_t reached;         /* positions that own.part has behind it */
    order order;
    int32_t *ids;
} servant;

/* A state like rank 0's, for such options; of a part it keeps nothing of prompts. */
cca_status cca_servant_state(servant *v, servant_model *of, bool part,
                             const cca_state_options *wanted, cca_error *err);
/* Whether this rank's model is that of the order: CCA_BAD_MODEL, CCA_USAGE. */
cca_status cca_servant_check(const servant *v, cca_error *err);
/* Follows ORDER_SCORE. */
cca_status cca_servant_score(servant *v, cca_error *err);

#endif
