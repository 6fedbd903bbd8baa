/* The commands, and what several of them share:
 *
 *     help.c            the list of commands, their pages
 *     run_options.c     options about model, context, sampling, chat and output; the engine and the
 *                       limits that come of them
 *     memory_check.c    what a run takes, and its session where there is that much
 *
 * Beside it: prompt.h, what is read, and decode.h, what is written; input.h, output.h, term.h. */
#ifndef CCA_CLI_CLI_H
#define CCA_CLI_CLI_H

#include "chat.h"
#include "cli/args.h"
#include "cli/output.h"
#include "cli/term.h"
#include "engine.h"
#include "sampler.h"

typedef struct cli_command {
    const char *name, *summary;
    const char *usage;       /* what follows the name */
    const char *notes;       /* printed behind the options; or NULL */
    const arg_group *groups; /* ends with {0} */
    size_t options_size;
    /* Gets the filled options; the message of a failure is printed by main. */
    cca_status (*run)(const void *options, cca_error *err);
} cli_command;

extern const cli_command cli_generate, cli_ask, cli_chat, cli_ppl, cli_plan_command, cli_bench,
    cli_tune, cli_export, cli_info, cli_selftest, cli_session, cli_completion, cli_tokenize,
    cli_help, cli_version;

/* ---- commands (help.c) ---- */

/* All of them, and one by its name; NULL if there is none. */
const cli_command *const *cli_commands(size_t *n);
const cli_command *cli_find(const char *name);
/* CCA_USAGE, naming the command that is meant, where there is one near. */
cca_status cli_unknown(const char *name, cca_error *err);
/* The overview that fits a screen. */
void cli_print_overview(FILE *to);
/* The page of a command, or the overview for NULL, to standard output. */
cca_status cli_print_help(const cli_command *command, cca_error *err);

/* ---- options (run_options.c) ---- */

typedef struct model_options {
    const char *model; /* NULL: $CCA_MODEL, else the one that ships with the program */
    int64_t threads;   /* 0: physical cores */
    const char *device;
    bool fp8;            /* products of prefill in 8-bit floats */
    const char *kernels; /* of the CPU, which is the device then; NULL: the fastest */
} model_options;

typedef struct context_options {
    int64_t ctx_size; /* 0: as large as the run needs */
    bool beyond_trained;
    int64_t group_size, window_size;    /* 0: the model's */
    int64_t sinks, recall, recall_tile; /* -1: auto */
    bool cores, no_cores;
    const char *attn;
    int64_t chunk_size; /* 0: the engine's */
    int64_t draft;      /* most tokens that are guessed at once; no option of its own */
    const char *k_type, *v_type, *row_type; /* row_type NULL: as the window's */
    const char *rows;                       /* "disk", "host"; NULL or "memory" */
    uint64_t mem_limit;                     /* 0: none */
    cca_comm *comm;  /* ranks that share long prompts (ranks.h); no option of its own */
    bool spread;     /* and keep what these leave together; as cli_ranks_decode says */
    int64_t n_texts; /* that they have one each of; see cca_session_options */
    bool dry_run;
} context_options;

/* Kinds of attention to offer; sinks:N with another N is one, too. */
#define CLI_ATTN_NAMES "auto|cca|recall|full|mean|max|window|sinks:4"

enum { CLI_MOST_TILE = 64 }; /* queries that may choose together */

typedef struct sampling_options {
    int64_t seed; /* -1: a new one each time */
    double temperature, top_p, min_p, repeat_penalty;
    int64_t top_k, repeat_last_n;
} sampling_options;

#define CLI_CHAT_NAMES                                                                               \
    "llama2|llama3|mistral|mistral-v3|mistral-v3-tekken|mistral-v7|mistral-v7-tekken|chatml|zephyr|" \
    "plain"

typedef struct chat_options {
    const char *system; /* NULL: none */
    const char *name;   /* of the template; NULL: the model file's */
    int64_t now;        /* for the file's own template: seconds since 1970; 0: the time it is */
} chat_options;

typedef struct output_options {
    bool json;
    const char *file; /* NULL: standard output */
} output_options;

/* recall_args go into context_options, too; cache_args are some of context_args, for commands with
 * other sizes; greedy_args are sampling_args
 * with another default: temperature 0. */
extern const arg_option model_args[], context_args[], recall_args[], cache_args[], sampling_args[],
    greedy_args[], chat_args[], output_args[];

/* ---- engine and limits (run_options.c) ---- */

/* The path of the model; the caller frees it. CCA_BAD_MODEL where there is none. */
cca_status cli_model_path(char **out, const char *given, cca_error *err);
/* What -t asks for, else what OMP_NUM_THREADS does, else 0. */
int cli_threads(int64_t asked);

/* Opens the model that the options name; tells about it in detail. */
cca_status cli_engine_open(cca_engine **out, const model_options *options, term *t, cca_error *err);
/* The same without loading weights onto a device. */
cca_status cli_engine_open_to_plan(cca_engine **out, const model_options *options, term *t,
                                   cca_error *err);

/* The tokenizer, or CCA_BAD_MODEL where the model has none. */
cca_status cli_tokenizer(const cca_tokenizer **out, const cca_engine *engine, cca_error *err);

/* Positions that a run may use: the trained length, INT32_MAX with --beyond-trained, and not
 * more than -c. */
int64_t cli_position_limit(const context_options *options, const cca_engine *engine);

/* CCA_NO_FIT with both numbers where n positions of what are more than the limit. */
cca_status cli_check_length(const char *what, int64_t n, const context_options *options,
                            const cca_engine *engine, cca_error *err);

/* Whether a word is a kind of attention. */
bool cli_is_attn(const char *word);
/* Whether a kind of attention has sinks, and more that can be set. */
bool cli_has_sinks(const char *attn);
/* Whether rows that are recalled are to lie on disk; in memory of the host. */
bool cli_rows_on_disk(const context_options *context);
bool cli_rows_on_host(const context_options *context);
/* CCA_USAGE, with the option and its number, for what the kind does not have, or what is no
 * multiple of the group size. */
cca_status cli_check_attention(const context_options *options, const cca_engine *engine,
                               cca_error *err);
/* The same context with another kind of attention, without what that has not. */
context_options cli_with_attn(const context_options *options, const char *attn);

/* The attention in force. */
cca_attention_settings cli_attention(const context_options *options, const cca_engine *engine);

/* {"kind", "group_size", "window_size", "sinks", "recall", "recall_tile", "cores", "cache_type_k",
 * "cache_type_v"}; null where there is none. */
json_t *cli_attention_json(const context_options *options, const cca_engine *engine);

/* Sinks, recall and cores in words, each behind a text, with another one before its value; nothing
 * for kinds that have none. */
enum { CLI_RECALL_TEXT = 128 };
void cli_describe_recall(char out[CLI_RECALL_TEXT], const cca_attention_settings *attention,
                         const char *between, const char *is);

/* Tells the attention of a run of n_positions in detail. */
void cli_tell_attention(term *t, const context_options *options, const cca_engine *engine,
                        int64_t n_positions);

/* ---- memory and session (memory_check.c) ---- */

/* What a run takes, in bytes. program: what the process has once the text is read, before weights
 * and session: code, tokenizer, text. */
typedef struct cli_plan {
    int64_t ctx_size;
    int64_t n_copies; /* 0 without CLI_COPIES */
    uint64_t weights, program, total;
    cca_session_size session;
} cli_plan;

/* Sessions that can be marked, and stored; and of which copies will be kept (cca_session_snapshot):
 * the plan's mark is then for as many as fit CLI_COPIES_BYTES, but for 2 at least; or one, which is
 * planned beside the mark. */
enum {
    CLI_MARK = 1,
    CLI_STORED = 2,
    CLI_COPIES = 4,
    CLI_COPY = 8,
    CLI_COPIES_BYTES = 256 << 20,
};

/* The options of a session of ctx_size positions, to measure or forecast it, and the session,
 * without a plan: CCA_BAD_OUTPUT where its rows cannot lie in the cache folder. */
cca_session_options cli_session_options(const context_options *context, int64_t ctx_size,
                                        unsigned flags);
cca_status cli_session_new(cca_session **out, cca_engine *engine, const context_options *context,
                           int64_t ctx_size, unsigned flags, cca_error *err);

/* The one function that sizes runs. CCA_USAGE for what cannot be, CCA_NO_MEMORY beyond any
 * memory. */
cca_status cli_plan_make(cli_plan *out, const cca_engine *engine, const context_options *context,
                         int64_t ctx_size, unsigned flags, cca_error *err);

/* The most that a plan's total may be: --mem-limit, else what the machine or device has. */
uint64_t cli_plan_most(const cli_plan *plan, const cca_engine *engine,
                       const context_options *context);

/* Whether that is so, and so it is of all ranks: of each with --mem-limit, else of those on this
 * machine together. */
bool cli_plan_fits(const cli_plan *plan, const cca_engine *engine, const context_options *context);

/* What a token behind the window costs, in bytes: of memory, on disk, and of the host's memory
 * beside a device. */
typedef struct cli_token_cost {
    double memory, disk, host;
} cli_token_cost;
cca_status cli_token_cost_of(cli_token_cost *out, const cca_engine *engine,
                             const context_options *context, cca_error *err);

/* Whether the host has what a plan takes of it beside a device. */
bool cli_plan_host_fits(const cli_plan *plan);

/* CCA_NO_MEMORY, with the numbers, where the total is more, or what other ranks take, or what it
 * takes of the host. */
cca_status cli_plan_check(const cli_plan *plan, const cca_engine *engine,
                          const context_options *context, cca_error *err);

/* The most positions, from least to most, for which there is memory beside the weights and the
 * program of a plan; least where there is none. cli_affordable looks at how large the program is
 * now. */
int64_t cli_plan_largest(const cli_plan *of, const cca_engine *engine,
                         const context_options *context, int64_t least, int64_t most,
                         unsigned flags);
int64_t cli_affordable(const cca_engine *engine, const context_options *context, int64_t least,
                       int64_t most, unsigned flags);

/* Plans and opens a session of ctx_size positions. With --dry-run the plan is printed instead, and
 * *out is NULL. CCA_USAGE for what cannot be, CCA_NO_MEMORY where there is not enough for the
 * plan: nothing has been loaded then. */
cca_status cli_session_open(cca_session **out, cli_plan *plan, cca_engine *engine,
                            const context_options *context, const output_options *target,
                            int64_t ctx_size, unsigned flags, cca_error *err);

/* {"weights", "cores", "bounds", "rows", "window", "mark", "activations", "program", "total"} in
 * bytes, "disk" and "host", rows that lie there and are not in the total, "others", what other
 * ranks of this machine take, which is not either, and "peak", what the process had at most so far.
 */
json_t *cli_plan_json(const cli_plan *plan);

/* Shows how far an evaluation is; user is the term. */
void cli_show_progress(void *user, cca_session *session, int64_t pos);

#endif
