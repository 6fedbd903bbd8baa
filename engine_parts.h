/* What the files of the public interface share: an engine, a session, and where a session is. */
#ifndef CCA_ENGINE_PARTS_H
#define CCA_ENGINE_PARTS_H

#include "attention_watch.h"
#include "engine.h"
#include "model.h"

enum { ROPE_WORDS = 160 };

struct cca_engine {
    cca_gguf *file;
    cca_backend *backend;  /* holds the weights; sessions have one of their own */
    cca_backend *borrower; /* of a plan: takes the weights in place of a device; else NULL */
    cca_model *model;
    cca_tokenizer *tokenizer;
    cca_engine_facts facts;
    cca_backend_options how; /* backends are opened */
    char *path, *name, *device;
    char rope[ROPE_WORDS];
};

struct cca_session {
    cca_engine *engine;
    cca_backend *backend;
    cca_state *state;
    cca_state_options options;
    int64_t pos;
    int64_t marked;     /* position of the mark; -1: none */
    int64_t last_row;   /* of the last token, in the state's last chunk; -1 before the first */
    float *logits;      /* [vocab_size] */
    float *of_draft;    /* logits [1 + draft][vocab_size]; NULL: there are no drafts */
    int64_t n_draft;    /* tokens of the last call, where some may be taken back; else 0 */
    const float *known; /* logits of the last token, where a draft has them; else NULL */
    cca_watch watch;
    cca_comm *comm;                         /* NULL: no other ranks */
    char weights[CCA_GGUF_FINGERPRINT + 1]; /* that these are asked for */
    int64_t share_from;                     /* tokens */
    cca_rank_count *ranks;                  /* [n_ranks] */
    bool torn; /* an evaluation ended in the middle of a chunk: layers are at different positions */
};

/* What the options of a session mean. */
cca_status cca_session_resolve(cca_state_options *out, const cca_engine *engine,
                               const cca_session_options *o, cca_error *err);
/* Tokens of a prompt from which on ranks share it. */
int64_t cca_session_share_from(const cca_state_options *o, const cca_session_options *options);
/* Adds what ranks take to a size, whose total is not made yet; beside: what the backend of a
 * session keeps for itself. */
cca_status cca_session_measure_ranks(cca_session_size *out, const cca_engine *engine,
                                     const cca_state_options *o, const cca_session_options *options,
                                     size_t beside, cca_error *err);
/* A backend of the engine's device, where its weights are, too, is not needed any more; NULL is
 * allowed. */
void cca_engine_close_backend(cca_engine *e, cca_backend *b);
/* What a chunk left that was not finished is no state to go on from: CCA_RUNTIME. */
cca_status cca_session_check_sound(const cca_session *s, cca_error *err);
/* Whether n ids can be appended: CCA_NO_FIT, CCA_USAGE. */
cca_status cca_session_check_input(const cca_session *s, const int32_t *ids, int64_t n,
                                   cca_error *err);
/* Whether ranks share an evaluation of n tokens. */
bool cca_session_shares(const cca_session *s, int64_t n, const cca_eval_options *o);
/* Evaluates n checked tokens so, of which those from the position `together` on choose for
 * themselves; what cca_session_eval does, but for checks. */
cca_status cca_session_eval_shared(cca_session *s, const int32_t *ids, int64_t n, int64_t together,
                                   const cca_eval_options *o, cca_error *err);
/* Runs n checked tokens at the session's position, a chunk of it, on all ranks that keep its cache.
 */
cca_status cca_session_forward(cca_session *s, const int32_t *ids, int64_t n, cca_error *err);
/* What the last call left is no more. */
void cca_session_begin_call(cca_session *s);
/* The session is at a position, as a whole; there are no logits. */
void cca_session_settle(cca_session *s, int64_t pos);

#endif
