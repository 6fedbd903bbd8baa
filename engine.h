/* The public interface: an engine is a loaded model, a session is one timeline on it.
 *
 *     cca_error err;
 *     cca_engine *engine;
 *     if (cca_engine_open(&engine, "model.gguf", NULL, &err) != CCA_OK) ...
 *     cca_session_options o = cca_session_defaults();
 *     o.ctx_size = 131072;                                     // attention: what suits the weights
 *     o.recall = 4096;                                         // or more of it; "full", "cca", …
 *     cca_session *session;
 *     cca_session_new(&session, engine, &o, &err);
 *     cca_eval_options prompt = {.ends_prompt = true};
 *     cca_session_eval(session, ids, n, &prompt, &err);        // prefill, in chunks
 *     const float *logits = cca_session_logits(session, &err); // of the last token
 *     cca_session_eval(session, &next, 1, NULL, &err);         // decode
 *     cca_session_free(session);
 *     cca_engine_close(engine);
 *
 * An engine is immutable after opening; sessions on one engine are independent of each other
 * and each may live on a thread of its own. */
#ifndef CCA_ENGINE_H
#define CCA_ENGINE_H

#include "backend/comm.h"
#include "base/base.h"
#include "likelihood.h"
#include "store.h"
#include "tokenizer.h"

#include <signal.h>

typedef struct cca_engine cca_engine;
typedef struct cca_session cca_session;

enum { CCA_AUTO = -1 };
enum { CCA_MOST_DRAFT = 63 }; /* tokens that a draft guesses */

typedef struct cca_engine_options {
    const char *device;  /* NULL or "auto", "cpu", "cuda", "cuda:N" */
    int n_threads;       /* 0: one a physical core, within the quota of the control group and
                            OpenMP's number (omp_get_max_threads) */
    const char *kernels; /* of the CPU: "generic", "avx2" …; NULL: the fastest. Borrowed */
    bool fp8;            /* products of prefill in 8-bit floats, where the device has them */
    bool plan_only;      /* a device gets no weights: for facts, measure and forecast */
} cca_engine_options;

/* Facts of a loaded model. */
typedef struct cca_engine_facts {
    const char *path, *arch, *name, *device, *kernels;
    int64_t dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim, vocab_size;
    int64_t seq_len;                 /* context_length of the file */
    int64_t trained_length;          /* what the positions were trained for */
    int64_t group_size, window_size; /* of the file, or the defaults 16 and 1024 */
    bool cca_keys;                   /* group_size and window_size come from the file */
    int64_t sinks, recall;           /* of the file; CCA_AUTO: it does not say */
    bool tuned;                      /* trained with CCA-Attention */
    bool tied;
    int64_t own_window;      /* last tokens that layers were trained to see, which full attention
                                keeps; 0: all */
    int64_t n_windowed;      /* layers that it is so in */
    const char *rope;        /* in words */
    const char *weight_type; /* of most of the weights: "q8_0" */
    uint64_t n_params, weight_bytes, file_bytes;
    int n_threads;
} cca_engine_facts;

/* options may be NULL. CCA_BAD_MODEL, CCA_NO_MEMORY, CCA_USAGE (device, threads), CCA_RUNTIME (no
 * such device, no 8-bit floats there). The file is mapped: where somebody makes it shorter while
 * the engine lives, reading it raises SIGBUS. */
cca_status cca_engine_open(cca_engine **out, const char *path, const cca_engine_options *options,
                           cca_error *err);
void cca_engine_close(cca_engine *engine);
const cca_engine_facts *cca_engine_info(const cca_engine *engine);
/* NULL where the model file has no tokenizer. */
const cca_tokenizer *cca_engine_tokenizer(const cca_engine *engine);
const cca_gguf *cca_engine_file(const cca_engine *engine);

typedef enum cca_cores { CCA_CORES_AUTO, CCA_CORES_YES, CCA_CORES_NO } cca_cores;

typedef struct cca_session_options {
    int64_t ctx_size; /* positions; must be given */
    /* "cca", "recall", "auto" (cca for weights that were trained with it, else recall), "full",
     * "mean", "max", "window", "sinks:N" */
    const char *attn;
    int64_t group_size;  /* 0: the model's; s must be a multiple of g */
    int64_t window_size; /* 0: the model's */
    /* The rest of attention "cca" and "recall"; CCA_USAGE with others, unless CCA_AUTO. Numbers of
     * tokens are multiples of g. */
    int64_t sinks;  /* first tokens that stay raw for everybody; CCA_AUTO: the model's, else g */
    int64_t recall; /* tokens that are recalled; CCA_AUTO: the model's, else 2048; not for cca */
    int64_t recall_tile; /* queries that choose together, a power of two; CCA_AUTO: 64 over the
                            query heads of a key/value head */
    cca_cores cores;     /* whether what is not recalled is seen as cores */
    const char *k_type, *v_type; /* "f32", "f16", "bf16", "q8_0" (head_dim divisible by 32) */
    const char *row_type; /* of groups behind the window, where they are recalled: "q8_0", or keys
                             and values apart, "q8_0/q4_0"; NULL: as above */
    int64_t chunk_size;   /* prefill chunk; 0: 512, on a GPU 8192 */
    int64_t draft;        /* most tokens that cca_session_draft guesses; 0: none */
    bool mark;            /* with room for cca_session_mark */
    bool stored;          /* for cca_session_save and cca_session_load */
    /* NULL: rows that are recalled lie in memory. Else in a file without a name in this folder,
     * which is on a disk, and in session files that are lent (cca_store_lend): mapped, so that the
     * system keeps in memory what is read often. On the CPU, for attention that recalls; borrowed
     * by the call. A full disk is CCA_BAD_OUTPUT, and the session can only be freed then. */
    const char *rows_folder;
    /* Rows that are recalled lie in memory of the host, pinned, where a device reads what is chosen
     * through its link; on the CPU, where all memory is the host's, they are only laid out alike,
     * so that stored states of one go on on the other. CCA_USAGE together with a folder. */
    bool rows_on_host;
    uint64_t most_resident; /* bytes of the process in memory from which on mapped rows are taken
                               out of it, where they lie on disk; 0: the system sees to it */
    const volatile sig_atomic_t *stop; /* may be NULL; non-zero interrupts an eval */
    /* Ranks that share long prompts, of which this one is rank 0; see below. NULL: none. Rows that
     * are recalled lie in memory, in the window's types, then. */
    cca_comm *comm;
    /* These keep the session together: each has what its slices of prompts have left, and takes
     * part in every token. On the CPU, of attention that recalls nothing; it is not stored, loaded
     * or watched, and no other session of these ranks comes between its evaluations. */
    bool spread;
    int64_t share_from; /* tokens of an eval from which on it is shared; 0: two chunks for each
                           rank, so that cuts, and bits, are those of one process */
    int64_t n_texts;    /* that a cca_session_score has, for their memory on other ranks; 0: none */
} cca_session_options;

/* attn "auto", bf16 cache, everything else 0 or CCA_AUTO. */
cca_session_options cca_session_defaults(void);

/* The attention that is in force, after defaults. */
typedef struct cca_attention_settings {
    const char *attn;                /* "cca", "recall", "full", "mean", "max", "window", "sinks" */
    int64_t group_size, window_size; /* 0 with full */
    int64_t sinks;                   /* first tokens that stay raw */
    int64_t recall, recall_tile;     /* tokens; queries that choose together. 0, 1: no recall */
    bool cores;                      /* what is neither raw nor recalled is seen as cores */
} cca_attention_settings;

/* That of a session with such options. CCA_USAGE for options that make no sense. */
cca_status cca_session_attention_settings(cca_attention_settings *out, const cca_engine *engine,
                                          const cca_session_options *options, cca_error *err);

/* Takes over what a stored session was made with, where the options leave it to defaults: sinks,
 * recall, tile and cores of attention "auto", "cca" and "recall", and whether "auto" recalls. Files
 * of programs before recall have no sinks and no recall. Returns whether the options say the same
 * of these as the file, then. */
bool cca_session_options_resume(cca_session_options *options, const cca_store *store);

/* Bytes that a session takes, by class. */
typedef struct cca_session_size {
    uint64_t cores, bounds, mark, activations, total;
    uint64_t window, rows; /* raw rows and sinks; rows of all positions, for recall: in memory, */
    uint64_t disk;         /* or on disk, which is not in the total; */
    uint64_t host;         /* or in memory of the host beside a device, which is not either */
    /* With ranks, on CPUs: those that take part, what each but rank 0 takes at most, and the others
     * of rank 0's machine together. None of it is in the total. */
    int64_t n_ranks;
    uint64_t other, others;
} cca_session_size;

/* What cca_session_new would allocate; nothing is. CCA_USAGE for options that make no sense. */
cca_status cca_session_measure(cca_session_size *out, const cca_engine *engine,
                               const cca_session_options *options, cca_error *err);

/* Whether ranks have room on machines other than rank 0's, as of when they began, for sessions of
 * such a size beside weights, which the ranks of a machine have in common. CCA_NO_MEMORY names a
 * rank. */
cca_status cca_session_check_ranks(const cca_session_size *size, const cca_comm *comm,
                                   uint64_t weights, cca_error *err);

/* Bytes that sessions can still take: what the device has free; on the CPU what the machine has
 * available, less all weights, which are mapped and come into memory as they are used. */
uint64_t cca_engine_room(const cca_engine *engine);

/* What a run would take on the engine's device, in seconds: prefill of n_tokens with the logits of
 * the last one, and the token behind them. */
typedef struct cca_forecast {
    double prefill_s, token_s;
} cca_forecast;

/* Forecasts a run of n_tokens ≥ 1 for each of n options, which differ in nothing but attention:
 * times the operations of a layer on random data, for about a second and in about 200 MB; reads no
 * weights. CCA_USAGE, CCA_NO_MEMORY, CCA_INTERRUPTED. */
cca_status cca_engine_forecast(cca_forecast *out, cca_engine *engine,
                               const cca_session_options *options, int n, int64_t n_tokens,
                               cca_error *err);

/* The engine must outlive the session. CCA_USAGE, also for an engine that only plans;
 * CCA_NO_MEMORY, also beyond cca_engine_room. */
cca_status cca_session_new(cca_session **out, cca_engine *engine,
                           const cca_session_options *options, cca_error *err);
void cca_session_free(cca_session *session);

/* Called after each chunk with the position of its first token and its size; a status other
 * than CCA_OK (with a message in err) ends the evaluation and is returned. */
typedef cca_status (*cca_chunk_fn)(void *user, cca_session *session, int64_t pos, int64_t n,
                                   cca_error *err);

typedef struct cca_eval_options {
    cca_chunk_fn on_chunk; /* may be NULL */
    void *user;
    bool ends_prompt; /* the last 64 tokens of the prompt choose each for itself what they recall,
                         as generated tokens do: what follows must not hang on where a tile began */
    int64_t more;     /* tokens of that prompt that come with later calls */
    /* Told how far an evaluation is, after each chunk or, of a prompt that ranks share, each layer:
     * about so many positions are done. May be NULL. */
    void (*on_progress)(void *user, cca_session *session, int64_t pos);
} cca_eval_options;

/* Appends n ids. With ranks to share it, each of them evaluates a part, unless on_chunk wants all
 * chunks; the session is as if it had done so alone. Chunks end at absolute multiples of the chunk
 * size and at the end of ids. options may be NULL. CCA_NO_FIT past ctx_size (nothing done),
 * CCA_USAGE for an id outside the vocabulary (nothing done). CCA_INTERRUPTED: the position is the
 * start of the chunk that was under way, but the window has already moved on in some layers: eval,
 * mark, snapshot and save are CCA_RUNTIME until the session is reset, or goes back to its mark, a
 * snapshot or a stored state. So it is after other failures of a device. */
cca_status cca_session_eval(cca_session *session, const int32_t *ids, int64_t n,
                            const cca_eval_options *options, cca_error *err);

/* A text by itself, and what its tokens cost. */
typedef struct cca_scored_text {
    const int32_t *ids; /* [n] */
    int64_t n;
    cca_gap *gaps; /* [n]: of ids[i + 1] behind ids[i]; those from first to n - 2 are written */
    int64_t first;
} cca_scored_text;

/* NULL and zeros: none of it. */
typedef struct cca_score_options {
    cca_session *base; /* whose tokens' distributions are compared with; of an engine with the same
                          vocabulary, and the same ranks. It is left empty, too */
    /* Told of each text's tokens, from its first one on, in pieces, text by text; logits are
     * cca_session_chunk_logits, as in cca_eval_options.on_chunk. A failure ends the call. */
    cca_status (*on_rows)(void *user, cca_session *session, int64_t text, int64_t pos, int64_t n,
                          cca_error *err);
    /* Told how many positions of all texts are done. */
    void (*on_progress)(void *user, cca_session *session, int64_t n_done);
    void *user;
} cca_score_options;

/* Evaluates texts that have nothing to do with each other, each from an empty session, and leaves
 * it empty. Ranks share what is long enough for them, and of the rest each takes whole texts: it
 * needs as much memory as rank 0 then. They open the base's model under its own name. options may
 * be NULL; CCA_USAGE for a base or on_rows in a session that ranks keep together. Fails as
 * cca_session_eval; what has been scored is undefined then. */
cca_status cca_session_score(cca_session *session, const cca_scored_text *texts, int64_t n_texts,
                             const cca_score_options *options, cca_error *err);

/* Appends ids[0], and n - 1 guesses of what follows it, in one pass, which reads the weights once:
 * logits [n][vocab_size] are those behind each of them (the session's, valid until its next call
 * but cca_session_accept), each as far as the guesses before it are right. Each token recalls for
 * itself, as in decode; sums of several rows may be in another order than of one. Take back what is
 * not right (cca_session_accept) before anything else.
 * CCA_USAGE where n is not 1 … 1 + cca_session_options.draft, or beyond a chunk; CCA_NO_FIT; else
 * as cca_session_eval. */
cca_status cca_session_draft(const float **logits, cca_session *session, const int32_t *ids,
                             int64_t n, cca_error *err);
/* Keeps the first n ≥ 1 of the last draft's tokens: the session is as if they alone had been
 * evaluated, cca_session_logits too, and a watched session adds them. CCA_USAGE where the last call
 * was no draft, or a shorter one. */
cca_status cca_session_accept(cca_session *session, int64_t n, cca_error *err);

/* Tokens of a chunk: evaluations end at multiples of it, whoever calls in which pieces. */
int64_t cca_session_chunk_size(const cca_session *session);
/* The last position before the end of n tokens at which they are cut anyway: where two calls give
 * the bits of one. ends_prompt as in cca_eval_options. 0: nowhere. */
int64_t cca_session_last_seam(const cca_session *session, int64_t n, bool ends_prompt);

/* Whether ranks keep it together: as cca_session_options.spread says, where there are several. */
bool cca_session_is_spread(const cca_session *session);
/* Number of tokens stored, and bytes of cache that they take. */
int64_t cca_session_pos(const cca_session *session);
uint64_t cca_session_cache_bytes(const cca_session *session);

/* Logits [vocab_size] of the last token; owned by the session, valid until its next call. NULL
 * before the first eval; where the eval or this was interrupted; and where one of them is no finite
 * number: err->status is CCA_BAD_MODEL then, with the first tensor that has such a weight, or
 * CCA_RUNTIME with the layer where they begin, and the session can only be reset. */
const float *cca_session_logits(cca_session *session, cca_error *err);

/* In on_chunk: logits (n, vocab_size) of rows row … row + n - 1 of this chunk, made in tiles. Fails
 * as cca_session_logits does. */
cca_status cca_session_chunk_logits(cca_session *session, int64_t row, int64_t n, float *out,
                                    cca_error *err);

/* Marks the position: cca_session_rewind comes back to it as often as wanted, and what is evaluated
 * from there gives the same bits as the first time. A session has one mark, the last; marking
 * copies the window's rows (cores are never lost). Needs cca_session_options.mark, else CCA_USAGE.
 * After a failure, which may be CCA_INTERRUPTED, there is no mark. */
cca_status cca_session_mark(cca_session *session, cca_error *err);
/* Back to the mark, also after an interrupted eval; there are no logits until the next eval.
 * CCA_USAGE without a mark. After a failure the session can be rewound again or reset. */
cca_status cca_session_rewind(cca_session *session, cca_error *err);

/* Where attention goes, while somebody watches: sums [n_layers][n_heads][n_slots], each of the
 * probabilities that the tokens watched gave the keys of positions begins[i] … begins[i + 1] - 1
 * (core tokens and raw ones in their one softmax). Those of a layer and a head add up to n_tokens.
 * A slot has a unit of positions, a group or 16, or a part of one where that is cut: exact where
 * its tokens are seen raw, as with recall, the sinks and the window, and else its share of the
 * tokens of the group's core. */
typedef struct cca_attention {
    const float *sums;
    int64_t n_layers, n_heads, n_slots, unit;
    int64_t n_tokens;
    const int64_t *begins; /* n_slots + 1 */
} cca_attention;

/* Begins to watch, from zero: the last token of each eval from now on is added. Slots are cut at
 * n_cuts ascending positions, such as where a document begins and ends. Costs about another pass
 * over the keys of that token, on a device without an operation for it much more. CCA_NO_MEMORY. */
cca_status cca_session_watch(cca_session *session, const int64_t *cuts, int64_t n_cuts,
                             cca_error *err);
/* Ends that. The sums stay; an interrupted eval may be in them in part. */
void cca_session_unwatch(cca_session *session);
/* Owned by the session; sums is NULL before the first cca_session_watch. */
cca_attention cca_session_attention(const cca_session *session);

/* How much of the attention the slots that lie in positions begin … end - 1 got: out [n_slots] adds
 * up to 1, or is 0 where nothing was seen. A head counts a slot with the square of its mean
 * probability there, so that heads which look at one place outweigh those that look everywhere.
 * The first tokens of a sequence attract attention whatever they say. */
void cca_attention_shares(double *out, const cca_attention *a, int64_t begin, int64_t end);

/* A copy of a session's state at its position, in host memory; any number of them, each as large as
 * the window's rows (cores are never lost). Its owner frees it. */
typedef struct cca_snapshot cca_snapshot;
cca_status cca_session_snapshot(cca_snapshot **out, cca_session *session, cca_error *err);
void cca_snapshot_free(cca_snapshot *snapshot);
int64_t cca_snapshot_pos(const cca_snapshot *snapshot);
uint64_t cca_snapshot_bytes(const cca_snapshot *snapshot);
/* Back to a snapshot of this session, also after an interrupted eval, as long as the tokens before
 * it are those that it was taken with; as cca_session_rewind does to the mark, which is gone where
 * it lies behind the snapshot. */
cca_status cca_session_restore(cca_session *session, const cca_snapshot *snapshot, cca_error *err);

/* What a stored state of this session belongs to: lines "name=value\n" for cca_store_create; NULL
 * without memory. The caller frees it. */
char *cca_session_facts(const cca_session *session);
/* CCA_BAD_MODEL names the first fact of the file that differs from the session's. */
cca_status cca_session_check_facts(const cca_session *session, const cca_store *store,
                                   cca_error *err);
/* Appends a checkpoint at the session's position to the file, whose ids must be the first of ids,
 * all that the session has; nothing where the file has that position. Needs
 * cca_session_options.stored, else CCA_USAGE. CCA_BAD_OUTPUT: the file is as before. */
cca_status cca_session_save(cca_session *session, cca_store *store, const int32_t *ids,
                            cca_error *err);
/* Goes to a checkpoint of the file. What is evaluated from there gives the same bits as in the
 * session that was saved, cut into the same calls on the same kernels. There are no logits until
 * the next eval, and the mark is gone. CCA_BAD_MODEL: another model or other settings, by name, or
 * damage; CCA_USAGE: no such checkpoint; CCA_NO_FIT beyond ctx_size; the session is reset then. */
cca_status cca_session_load(cca_session *session, cca_store *store, size_t point, cca_error *err);

/* ---- ranks ----------------------------------------------------------------------------
 *
 * Processes that mpirun starts, each with an engine of the same model, share the prompts of rank 0:
 *
 *     cca_comm *comm;
 *     cca_comm_open(&comm, &(cca_comm_options){.kind = "mpi"}, &err);   // backend/comm.h
 *     if (cca_comm_rank(comm) > 0) {
 *         cca_engine_serve(engine, comm, NULL, &err);       // until rank 0 dismisses it
 *     } else {
 *         o.comm = comm;                                    // options of its sessions
 *         ...
 *         cca_engine_dismiss(comm, &err);
 *     }
 *     cca_comm_close(comm);
 *
 * Rank 0 alone has sessions, reads and writes; the others know the model and are told the rest. */

/* Takes part in what rank 0 evaluates until it is dismissed. stop may be NULL; non-zero ends it
 * soon. Failures that rank 0 has heard of are its own; else CCA_NO_MEMORY, CCA_RUNTIME or
 * CCA_INTERRUPTED, and the rank is to give up (cca_comm_give_up). */
cca_status cca_engine_serve(cca_engine *engine, cca_comm *comm, const volatile sig_atomic_t *stop,
                            cca_error *err);
/* On rank 0: the other ranks are not needed any more. */
cca_status cca_engine_dismiss(cca_comm *comm, cca_error *err);

/* What a rank has done for a session. */
typedef struct cca_rank_count {
    int64_t prefilled;   /* tokens */
    uint64_t sent_bytes; /* in messages to other ranks, since they were opened */
    double waited_s;     /* for others */
} cca_rank_count;

/* Those of all ranks, by rank, as of the last shared evaluation; owned by the session. *n is 0
 * without ranks. */
const cca_rank_count *cca_session_ranks(const cca_session *session, int *n);

/* What it takes ranks to share a prompt in a session. */
typedef struct cca_share_forecast {
    int64_t most_tokens;  /* of a rank */
    uint64_t most_memory; /* bytes that a rank takes beside a session's */
    uint64_t sent_bytes;  /* of all ranks together */
    uint64_t most_bytes;  /* that a rank sends or gets, whichever is more */
    uint64_t ring_bytes;  /* that ring attention has each rank send */
    int64_t n_waits;      /* for others, one behind the other: messages, and agreements */
    uint64_t gathered;    /* bytes of rank 0's session, and what it takes to share, where it keeps
                             all of the prompt; */
    uint64_t gathered_others;             /* those of another, 0 without one; */
    uint64_t spread_first, spread_others; /* of rank 0's and another's where each keeps its part,
                                             0 for attention that recalls */
    uint64_t token_bytes;                 /* that a rank sends for a token then, */
    int64_t token_waits; /* and messages that are waited for, one behind the other */
} cca_share_forecast;

/* That of a prompt of n_tokens on so many ranks; nothing is allocated. CCA_NO_FIT where it is too
 * short for them; CCA_USAGE. */
cca_status cca_session_share_forecast(cca_share_forecast *out, const cca_engine *engine,
                                      const cca_session_options *options, int n_ranks,
                                      int64_t n_tokens, cca_error *err);

/* Back to position 0, and without a mark. */
void cca_session_reset(cca_session *session);

/* What evaluating some tokens takes by the definition, for speeds as shares of what a machine can
 * do. A multiplication and an addition are two operations. */
typedef struct cca_work {
    double products;     /* operations of matrix products, logits included */
    double attention;    /* of scores, weighted values and pooling */
    double weight_bytes; /* of all weights that a forward pass reads */
    double cache_bytes;  /* of keys and values that the last token sees */
} cca_work;

/* The work of n ≥ 1 tokens at positions pos …, and of the logits of n_logits of them, with the
 * session's settings. */
cca_work cca_session_work(const cca_session *session, int64_t pos, int64_t n, int64_t n_logits);

#endif
