#include "cli/stored_prefill.h"

#include "base/whole_file.h"
#include "cli/folder.h"
#include "cli/stored_note.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

/* Where a document has grown, its last tokens may have become others: a checkpoint so many tokens
 * before an end saves going back to the one before. */
enum { SEAM = 16 };

const arg_option stored_args[] = {
    {"session", .alias = "prompt-cache", .kind = ARG_TEXT, .value = "FILE",
     .at = offsetof(stored_options, file),
     .help = "keep the state of the prompt in FILE and go on from what it has"},
    {"checkpoint-every", .kind = ARG_INT, .value = "N",
     .at = offsetof(stored_options, checkpoint_every), .initial = "8192", .min = 1,
     .max = INT32_MAX, .help = "tokens of prefill between two checkpoints of a session"},
    {"kv-limit", .kind = ARG_SIZE, .value = "SIZE", .at = offsetof(stored_options, limit),
     .initial = "4G",
     .help = "bytes of all sessions in the cache folder; the ones used longest ago go first"},
    {"no-kv", .kind = ARG_FLAG, .at = offsetof(stored_options, off),
     .help = "keep and use no stored session"},
    {0},
};

/* ---- the cache folder ------------------------------------------------------------------ */

static cca_status no_memory(cca_error *err) {
    cca_fail(err, CCA_NO_MEMORY, "no memory for the names of sessions");
    return CCA_NO_MEMORY;
}

cca_status stored_folder(char **out, cca_error *err) {
    return folder_of(out, "XDG_CACHE_HOME", ".cache", "sessions", err);
}

cca_status stored_make_folder(char **out, cca_error *err) {
    cca_status status = stored_folder(out, err);
    if (status || folder_make(*out)) return status;
    status =
        cca_fail(err, CCA_BAD_OUTPUT, "%s: cannot make this folder: %s", *out, strerror(errno));
    free(*out);
    *out = NULL;
    return status;
}

cca_status stored_list(file_names *out, const char *folder, const char *prefix, cca_error *err) {
    return folder_list(out, folder, prefix, ".ccas", err);
}

cca_status stored_clean(const char *folder, cca_error *err) {
    file_names names;
    cca_status status = folder_list(&names, folder, "", ".tmp", err);
    for (size_t i = 0; i < names.n; i++) {
        const char *name = strrchr(names.paths[i], '/');
        if (strstr(name, ".ccas.")) (void)cca_whole_remove_leftover(names.paths[i]);
    }
    file_names_free(&names);
    return status;
}

/* What stored_open is given: the ids, and how many of them may come from a file. */
typedef struct wanted {
    const int32_t *ids;
    int64_t n, most;
} wanted;

static int64_t agreement(const cca_store *store, const wanted *w) {
    int64_t n_own, i = 0;
    const int32_t *own = cca_store_tokens(store, &n_own);
    while (i < w->n && i < n_own && own[i] == w->ids[i]) i++;
    return i;
}

/* The last checkpoint that is of use; false: there is none. */
static bool find_point(size_t *out, const cca_store *store, const wanted *w) {
    int64_t shared = cca_min(agreement(store, w), w->most);
    size_t i = cca_store_n_points(store);
    while (i > 0 && cca_store_point_at(store, i - 1).pos > shared) i--;
    *out = i - 1;
    return i > 0;
}

/* Whether the first lines, which name the model, are the same. */
static bool same_model(const char *a, const char *b) {
    size_t n = strcspn(a, "\n");
    return n == strcspn(b, "\n") && memcmp(a, b, n) == 0;
}

/* The file of the list whose checkpoint is furthest in the ids, among those of the model that facts
 * name; NULL where none has any. */
static cca_status best_file(const char **out, const file_names *files, const wanted *w,
                            const char *facts, cca_error *err) {
    int64_t furthest = 0;
    *out = NULL;
    for (size_t i = 0; i < files->n; i++) {
        cca_store *store;
        size_t point;
        cca_status status = cca_store_open(&store, files->paths[i], false, err);
        if (status == CCA_NO_MEMORY) return status;
        if (status) continue;
        if (same_model(facts, cca_store_facts(store)) && find_point(&point, store, w) &&
            cca_store_point_at(store, point).pos > furthest) {
            furthest = cca_store_point_at(store, point).pos;
            *out = files->paths[i];
        }
        cca_store_close(store);
    }
    return CCA_OK;
}

/* Tells of a file of this model that would help, had it not been made with other settings. */
static cca_status tell_other(const cca_session *session, const char *folder, const char *facts,
                             const wanted *w, term *t, cca_error *err) {
    file_names files = {0};
    const char *best = NULL;
    cca_store *store;
    cca_error why;
    cca_status status = stored_list(&files, folder, "", err);
    if (!status) status = best_file(&best, &files, w, facts, err);
    if (!status && best && !cca_store_open(&store, best, false, &why)) {
        if (cca_session_check_facts(session, store, &why)) {
            term_note(t, "%s; the documents are read anew", why.text);
        }
        cca_store_close(store);
    }
    file_names_free(&files);
    return status;
}

/* A path in the folder: that of the file that helps most, else a new one. Names begin with a hash
 * of what states belong to, and go on with one of the ids. */
static cca_status choose_path(char **out, const cca_session *session, const char *folder,
                              const char *facts, const wanted *w, term *t, cca_error *err) {
    char prefix[16];
    file_names files = {0};
    snprintf(prefix, sizeof prefix, "%08lx-", crc32_z(0, (const void *)facts, strlen(facts)));
    cca_status status = stored_list(&files, folder, prefix, err);
    const char *best = NULL;
    if (!status) status = best_file(&best, &files, w, facts, err);
    if (!status && !best) status = tell_other(session, folder, facts, w, t, err);
    unsigned long of_ids = crc32_z(0, (const void *)w->ids, (size_t)w->n * sizeof *w->ids);
    int size =
        best ? asprintf(out, "%s", best) : asprintf(out, "%s/%s%08lx.ccas", folder, prefix, of_ids);
    file_names_free(&files);
    if (size >= 0) return status;
    *out = NULL;
    return no_memory(err);
}

static cca_status cache_path(char **out, const cca_session *session, const wanted *w, term *t,
                             cca_error *err) {
    char *folder, *facts = NULL;
    cca_status status = stored_make_folder(&folder, err);
    if (!status && !(facts = cca_session_facts(session))) status = no_memory(err);
    if (!status) status = choose_path(out, session, folder, facts, w, t, err);
    free(facts);
    free(folder);
    return status;
}

typedef struct cached_file {
    const char *path;
    struct timespec used;
    uint64_t bytes;
} cached_file;

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const cached_file *)a)->used,
                          *y = &((const cached_file *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* Removes files used longest ago until the rest is within the limit, but neither that of this run
 * nor one that somebody is writing. */
static void evict_from(const file_names *names, cached_file *files, const stored *st) {
    uint64_t total = 0;
    size_t n = 0;
    for (size_t i = 0; i < names->n; i++) {
        struct stat s;
        if (stat(names->paths[i], &s) != 0) continue;
        files[n++] = (cached_file){names->paths[i], s.st_mtim, (uint64_t)s.st_blocks * 512};
        total += files[n - 1].bytes;
    }
    qsort(files, n, sizeof *files, by_use);
    for (size_t i = 0; i < n && total > st->options->limit; i++) {
        if (strcmp(files[i].path, st->path) == 0 || cca_store_remove(files[i].path, NULL)) continue;
        total -= files[i].bytes;
    }
}

static void evict(const stored *st) {
    char *folder;
    file_names names;
    if (stored_folder(&folder, NULL)) return;
    (void)stored_clean(folder, NULL);
    bool listed = !stored_list(&names, folder, "", NULL) && names.n > 0;
    cached_file *files = listed ? calloc(names.n, sizeof *files) : NULL;
    if (files) evict_from(&names, files, st);
    free(files);
    file_names_free(&names);
    free(folder);
}

/* ---- opening --------------------------------------------------------------------------- */

/* What is wrong with a file of the cache is told, and nothing is kept; a named file is an error. */
static cca_status trouble(stored *st, cca_status status, cca_error *err) {
    if (st->named || status == CCA_NO_MEMORY || status == CCA_INTERRUPTED) return status;
    term_warn(st->term, "%s; this run keeps no session", err->text);
    cca_store_close(st->store);
    st->store = NULL;
    return CCA_OK;
}

/* A new file, in place of one that is open for writing, if old is one. */
static cca_status create(stored *st, cca_store **out, const cca_store *old, cca_error *err) {
    char *facts = cca_session_facts(st->session);
    if (!facts) return cca_fail(err, CCA_NO_MEMORY, "no memory for the facts of a session");
    cca_status status =
        old ? cca_store_replace(out, old, facts, err) : cca_store_create(out, st->path, facts, err);
    free(facts);
    if (!status) cca_store_lend(*out);
    return status;
}

/* The prompt leaves the file's tokens before their end: a new file takes the shared part over and
 * replaces the old one with its first checkpoint. */
static cca_status branch_off(stored *st, size_t point, bool found, cca_error *err) {
    cca_store *old = st->store, *branch = NULL;
    st->store = NULL;
    if (!st->named) { /* the other document may come back */
        char *path = NULL;
        int64_t n;
        const int32_t *ids = cca_store_tokens(old, &n);
        unsigned long name = crc32_z((uint32_t)n, (const void *)ids, (size_t)n * sizeof *ids);
        int head = (int)(strrchr(st->path, '-') - st->path);
        if (asprintf(&path, "%.*s-%08lx.ccas", head, st->path, name ^ (unsigned long)getpid()) <
            0) {
            path = NULL;
        }
        free(st->path);
        st->path = path;
    }
    cca_status status = st->path ? create(st, &branch, st->named ? old : NULL, err)
                                 : cca_fail(err, CCA_NO_MEMORY, "no memory for a session's name");
    if (!status && found) status = cca_store_copy(branch, old, point, err);
    cca_store_close(old);
    st->store = branch;
    return status;
}

/* A file that goes on in another way than the prompt cannot be appended to. Where all but a few
 * tokens of the prompt came from it, or a named one holds all of the prompt, it stays as it is. */
static cca_status part_ways(stored *st, const wanted *w, size_t point, bool found, cca_error *err) {
    bool whole = st->named && agreement(st->store, w) == w->n;
    if (st->reused < w->n - SEAM && !whole) return branch_off(st, point, found, err);
    cca_store_close(st->store);
    st->store = NULL;
    return CCA_OK;
}

/* What the cache has is of use while another process extends it, or where it cannot be written. */
static cca_status open_store(stored *st, bool *writable, cca_error *err) {
    cca_status status = cca_store_open(&st->store, st->path, true, err);
    *writable = !status;
    if (!st->named && (status == CCA_RUNTIME || status == CCA_BAD_OUTPUT)) {
        status = cca_store_open(&st->store, st->path, false, err);
    }
    if (!status) cca_store_lend(st->store);
    return status;
}

static cca_status take_up(stored *st, const wanted *w, cca_error *err) {
    bool writable;
    cca_status status = open_store(st, &writable, err);
    if (!status) status = cca_session_check_facts(st->session, st->store, err);
    if (status) return status;
    if (writable && cca_store_torn_bytes(st->store) > 0) {
        term_note(st->term, "%s: an interrupted run left %llu bytes, which are dropped", st->path,
                  (unsigned long long)cca_store_torn_bytes(st->store));
    }
    size_t point;
    int64_t n_own;
    bool found = find_point(&point, st->store, w);
    if (found) status = cca_session_load(st->session, st->store, point, err);
    if (status) return status;
    st->reused = st->kept = cca_session_pos(st->session);
    cca_store_tokens(st->store, &n_own);
    bool differs = agreement(st->store, w) < n_own;
    if (differs) return part_ways(st, w, point, found, err);
    if (writable) return CCA_OK;
    cca_store_close(st->store);
    st->store = NULL;
    return CCA_OK;
}

/* A damaged file of the cache is worth nothing. */
static cca_status start_anew(stored *st, cca_error *err) {
    term_warn(st->term, "%s; it is made anew", err->text);
    cca_store_close(st->store);
    st->store = NULL;
    st->reused = cca_session_pos(st->session);
    return st->path ? create(st, &st->store, NULL, err) : CCA_OK;
}

cca_status stored_open(stored *out, const stored_options *options, unsigned flags,
                       cca_session *session, const int32_t *ids, int64_t n, int64_t most, term *t,
                       cca_error *err) {
    const wanted w = {ids, n, most};
    *out = (stored){.options = options, .session = session, .term = t};
    out->named = options->file != NULL;
    out->seams = flags & STORED_SEAMS;
    if (options->off || (!out->named && !(flags & STORED_CACHE))) return CCA_OK;
    if (cca_session_is_spread(session)) {
        if (out->named) {
            term_warn(t, "session %s: what ranks keep together is neither stored nor taken up",
                      options->file);
        }
        return CCA_OK;
    }
    if (out->named && !(out->path = strdup(options->file))) return no_memory(err);
    if (!out->named) {
        cca_status status = cache_path(&out->path, session, &w, t, err);
        if (status) return trouble(out, status, err);
    }
    bool exists = access(out->path, F_OK) == 0;
    cca_status status = exists ? CCA_OK : create(out, &out->store, NULL, err);
    if (!exists && !status && access(out->path, F_OK) == 0) { /* another process was faster */
        cca_store_close(out->store);
        exists = true;
    }
    if (exists) status = take_up(out, &w, err);
    if (status == CCA_BAD_MODEL && !out->named) status = start_anew(out, err);
    if (status) status = trouble(out, status, err);
    if (!status && out->reused > 0) {
        term_note(t, "session %s: %lld of %lld tokens are there", out->path, (long long)out->reused,
                  (long long)n);
    }
    return status;
}

static bool same_attention(const cca_attention_settings *a, const cca_attention_settings *b) {
    return strcmp(a->attn, b->attn) == 0 && a->sinks == b->sinks && a->recall == b->recall &&
           a->recall_tile == b->recall_tile && a->cores == b->cores;
}

cca_status stored_resume(context_options *context, const stored_options *options,
                         const cca_engine *engine, term *t, cca_error *err) {
    cca_store *store;
    if (options->off || !options->file || access(options->file, F_OK) != 0) return CCA_OK;
    cca_status status = cca_store_open(&store, options->file, false, err);
    if (status) return status;
    cca_attention_settings usual = cli_attention(context, engine), now;
    cca_session_options o = cli_session_options(context, 1, 0);
    bool resumes = cca_session_options_resume(&o, store);
    cca_store_close(store);
    if (!resumes) return CCA_OK; /* what differs is told when it is loaded */
    context->attn = o.attn;
    context->sinks = o.sinks;
    context->recall = o.recall;
    context->recall_tile = o.recall_tile;
    context->cores = o.cores == CCA_CORES_YES;
    context->no_cores = o.cores == CCA_CORES_NO;
    now = cli_attention(context, engine);
    if (same_attention(&usual, &now)) return CCA_OK;
    char recall[CLI_RECALL_TEXT];
    cli_describe_recall(recall, &now, ", ", " ");
    term_note(t, "session %s: goes on with attention %s%s, as it was made", options->file, now.attn,
              recall);
    return CCA_OK;
}

/* ---- prefill --------------------------------------------------------------------------- */

/* Where a prompt is cut. */
typedef struct cuts {
    int64_t every;
    const int64_t *ends;
    size_t n_ends;
    int64_t before; /* ends, so many tokens; 0: not there, but */
    int64_t last;   /* at the last place before the end where a cut changes nothing */
} cuts;

static cuts find_cuts(const stored *st, const int64_t *ends, size_t n_ends, bool ends_prompt) {
    int64_t chunk = cca_session_chunk_size(st->session), n = ends[n_ends - 1];
    int64_t every = st->options->checkpoint_every;
    int n_ranks;
    (void)cca_session_ranks(st->session, &n_ranks);
    if (n_ranks > 1) every *= n_ranks; /* each does as much between two of them */
    return (cuts){.every = (every + chunk - 1) / chunk * chunk, /* where chunks end anyway */
                  .ends = ends,
                  .n_ends = n_ends,
                  .before = st->seams ? SEAM : 0,
                  .last = st->seams ? 0 : cca_session_last_seam(st->session, n, ends_prompt)};
}

/* Where the next evaluation ends: a checkpoint of the rhythm, an end, or just before one. */
static int64_t next_cut(const cuts *c, int64_t pos) {
    int64_t cut = (pos / c->every + 1) * c->every;
    if (c->last > pos) cut = cca_min(cut, c->last);
    for (size_t i = 0; i < c->n_ends; i++) {
        if (c->ends[i] - c->before > pos) cut = cca_min(cut, c->ends[i] - c->before);
        if (c->ends[i] > pos) cut = cca_min(cut, c->ends[i]);
    }
    return cut;
}

/* Whether a later run will come back to a place. */
static bool comes_back_to(const cuts *c, int64_t pos) {
    bool so = pos == c->last;
    for (size_t i = 0; i < c->n_ends; i++) so |= c->ends[i] - SEAM == pos;
    return so;
}

/* Windows are large: the last two stay, those shortly before ends, and those at powers of two. */
static cca_status thin_out(const stored *st, const cuts *c, cca_error *err) {
    cca_status status = CCA_OK;
    for (size_t i = cca_store_n_points(st->store); i-- > 0 && !status;) {
        int64_t pos = cca_store_point_at(st->store, i).pos;
        if (i + 2 >= cca_store_n_points(st->store) || comes_back_to(c, pos)) continue;
        if ((pos & (pos - 1)) != 0) status = cca_store_drop(st->store, i, err);
    }
    return status;
}

/* A checkpoint of the session as it is, the first of a run with a note. */
static cca_status save(stored *st, const int32_t *ids, cca_error *err) {
    int64_t pos = cca_session_pos(st->session);
    size_t n = cca_store_n_points(st->store);
    bool there = n > 0 && cca_store_point_at(st->store, n - 1).pos >= pos;
    cca_status status =
        st->note && !there ? stored_note_write(st->store, pos, st->note, err) : CCA_OK;
    if (!status) status = cca_session_save(st->session, st->store, ids, err);
    if (status || there) return status;
    free(st->note);
    st->note = NULL;
    return CCA_OK;
}

/* Keeps the state as it is. */
static cca_status keep(stored *st, const int32_t *ids, const cuts *c, cca_error *err) {
    cca_status status = save(st, ids, err);
    if (!status) status = thin_out(st, c, err);
    if (status) return trouble(st, status, err);
    st->kept = cca_session_pos(st->session);
    return CCA_OK;
}

cca_status stored_prefill(stored *st, const int32_t *ids, const int64_t *ends, size_t n_ends,
                          bool ends_prompt, cca_error *err) {
    cca_eval_options options = {
        .on_progress = cli_show_progress, .user = st->term, .ends_prompt = ends_prompt};
    const cuts c = find_cuts(st, ends, n_ends, ends_prompt);
    cca_status status = CCA_OK;
    for (int64_t pos; !status && (pos = cca_session_pos(st->session)) < ends[n_ends - 1];) {
        int64_t cut = next_cut(&c, pos);
        options.more = ends[n_ends - 1] - cut;
        status = cca_session_eval(st->session, ids + pos, cut - pos, &options, err);
        if (!status && st->store) status = keep(st, ids, &c, err);
    }
    if (status) return status;
    cca_store_close(st->store); /* others may write it now */
    st->store = NULL;
    return CCA_OK;
}

cca_status stored_interrupted(const stored *st, const char *what, int64_t n, cca_error *err) {
    long long pos = (long long)cca_session_pos(st->session);
    if (st->kept == 0) {
        return cca_fail(err, CCA_INTERRUPTED, "interrupted in %s, after %lld of %lld tokens", what,
                        pos, (long long)n);
    }
    return cca_fail(err, CCA_INTERRUPTED,
                    "interrupted in %s, after %lld of %lld tokens; %lld of them are kept in %s: "
                    "the same command goes on from there",
                    what, pos, (long long)n, (long long)st->kept, st->path);
}

void stored_close(stored *st) {
    bool kept = st->path && !st->named;
    cca_store_close(st->store);
    if (kept) {
        (void)utimensat(AT_FDCWD, st->path, NULL, 0); /* used now */
        evict(st);
    }
    free(st->path);
    free(st->note);
    *st = (stored){0};
}
