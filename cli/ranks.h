/* Ranks of a run: the processes that mpirun has started, which share long prompts (engine.h).
 *
 *     cli_ranks ranks;
 *     status = cli_ranks_open(&ranks, &o->ranks, &o->model, &term, &err);
 *     if (!status && !ranks.served) {
 *         context.comm = ranks.comm;             // of sessions
 *         cli_ranks_decode(&context, &o->ranks, engine, n_positions, flags, &term, &err);
 *         status = ...
 *     }
 *     cli_ranks_close(&ranks, "generate", status, &err);
 *
 * Rank 0 runs the command; the others serve it inside cli_ranks_open, and have nothing to say. */
#ifndef CCA_CLI_RANKS_H
#define CCA_CLI_RANKS_H

#include "cli/cli.h"

typedef struct ranks_options {
    const char *kind;   /* "none", "mpi", "nccl", "auto" */
    const char *decode; /* "gather", "share", "auto"; NULL: nothing is decoded */
} ranks_options;

/* decode_args go into ranks_options, too. */
extern const arg_option ranks_args[], decode_args[];

typedef struct cli_ranks {
    cca_comm *comm; /* NULL: this process is alone */
    bool served;    /* this is not rank 0, and its work is done */
} cli_ranks;

/* "auto" is "mpi" where mpirun has started several. CCA_USAGE where this installation has no MPI;
 * of another rank also why it could not open the model. */
cca_status cli_ranks_open(cli_ranks *out, const ranks_options *options, const model_options *model,
                          term *t, cca_error *err);
/* The end of a command, which was a status: dismisses the others. Where they are lost this tells
 * err, ends them and the process. */
void cli_ranks_close(cli_ranks *ranks, const char *command, cca_status status,
                     const cca_error *err);

/* Says in a context with ranks who keeps what prompts leave: rank 0, or all together. "auto": all
 * where a session of ctx_size positions does not fit rank 0, and one that is kept so does.
 * CCA_USAGE for what cannot be kept so. */
cca_status cli_ranks_decode(context_options *context, const ranks_options *options,
                            const cca_engine *engine, int64_t ctx_size, unsigned flags, term *t,
                            cca_error *err);

/* [{"rank", "prefilled", "sent_bytes", "waited_s", "decode"}] of a session; [] without ranks. */
json_t *cli_ranks_json(const cca_session *session);
/* A note of what they did, where there are several and they did something. */
void cli_ranks_tell(const cca_session *session, term *t);

#endif
