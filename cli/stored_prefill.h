/* Prefill that outlives the process: the state of a prompt is kept in a session file while it
 * grows, and taken up by the next run whose prompt begins the same.
 *
 *     stored st;
 *     stored_open(&st, &options, STORED_CACHE, session, ids, n, n - 1, &term, &err);
 *     stored_prefill(&st, ids, ends, n_ends, &err);      // st.reused of them were there
 *     stored_close(&st);
 *
 * prompt_prefill (prompt.h) is all of this for a prompt. */
#ifndef CCA_CLI_STORED_PREFILL_H
#define CCA_CLI_STORED_PREFILL_H

#include "cli/cli.h"
#include "cli/folder.h"

typedef struct stored_options {
    const char *file;         /* --session; NULL: none named */
    int64_t checkpoint_every; /* tokens */
    uint64_t limit;           /* bytes of all files in the cache folder */
    bool off;                 /* --no-kv */
} stored_options;

extern const arg_option stored_args[];

typedef struct stored {
    const stored_options *options;
    cca_session *session; /* borrowed */
    term *term;
    cca_store *store; /* NULL: nothing is kept any more */
    char *path;       /* NULL: nothing is kept */
    int64_t kept;     /* tokens before the file's last checkpoint */
    bool named;       /* by --session: what is wrong with it is an error, not a note */
    bool seams;       /* cut where a longer prompt will begin to differ, with or without a file */
    char *note;       /* for the next checkpoint (stored_note.h); or NULL */
    int64_t reused;   /* tokens that need no prefill */
} stored;

/* STORED_CACHE: where no file is named, one of the cache folder serves. STORED_SEAMS: the prompt is
 * cut shortly before its ends, too. Either way it is cut at the same places whether or not there is
 * a file, or where a cut changes nothing, so that answers do not depend on one. */
enum { STORED_CACHE = 1, STORED_SEAMS = 2 };

/* Where a file is named and there, the context takes over what it was made with and the options do
 * not say: sinks, recall, tile, cores; where that is not the usual, it is told. */
cca_status stored_resume(context_options *context, const stored_options *options,
                         const cca_engine *engine, term *t, cca_error *err);

/* Finds the file, named or, with STORED_CACHE, the one in the cache folder that agrees longest with
 * the n ids, and loads the last state that they share, of at most `most` tokens: n where more ids
 * will follow, else n - 1, since logits come of evaluating one. A named file of another
 * model or other settings, or damaged, is CCA_BAD_MODEL; one that another process writes is
 * CCA_RUNTIME, while one of the cache serves all the same, and nothing is added to it. */
cca_status stored_open(stored *out, const stored_options *options, unsigned flags,
                       cca_session *session, const int32_t *ids, int64_t n, int64_t most, term *t,
                       cca_error *err);

/* Evaluates the ids behind the session's position and keeps checkpoints: one every
 * --checkpoint-every tokens (or the next end of a chunk), the last one before the end that costs no
 * cut, and at the ends: n_ends positions, ascending, worth coming back to, of
 * which the last is all. Of the others a checkpoint shortly before stays, from where one that has
 * grown goes on even if its last tokens have become others. After CCA_INTERRUPTED the file has the
 * last checkpoint. ends_prompt: an answer follows (cca_eval_options). When all is done the file is
 * others' to write. */
cca_status stored_prefill(stored *st, const int32_t *ids, const int64_t *ends, size_t n_ends,
                          bool ends_prompt, cca_error *err);

/* CCA_INTERRUPTED for prefill of what, up to n tokens, with what is kept. */
cca_status stored_interrupted(const stored *st, const char *what, int64_t n, cca_error *err);

void stored_close(stored *st);

/* The folder of the cache, whether or not it is there; the caller frees it. CCA_USAGE where neither
 * XDG_CACHE_HOME nor HOME says where. */
cca_status stored_folder(char **out, cca_error *err);
/* The same, and makes it where it is not there: CCA_BAD_OUTPUT. */
cca_status stored_make_folder(char **out, cca_error *err);

/* The session files of a folder whose names begin so, none where it is not there. */
cca_status stored_list(file_names *out, const char *folder, const char *prefix, cca_error *err);
/* Removes what killed processes left of session files that had no name yet. */
cca_status stored_clean(const char *folder, cca_error *err);

#endif
