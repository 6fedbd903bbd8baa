/* cca session: the stored states of documents and prompts. */
#include "cli/cli.h"
#include "cli/stored_note.h"
#include "cli/stored_prefill.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct session_options {
    arg_list words; /* what to do, and files */
    bool all;
    output_options output;
} session_options;

static const arg_option own_args[] = {
    {"action", .kind = ARG_OPERAND, .value = "ls|show|verify|rm",
     .at = offsetof(session_options, words), .max = 1 << 16,
     .help = "what to do, and with which files; ls without one: the cache folder"},
    {"all", .kind = ARG_FLAG, .at = offsetof(session_options, all),
     .help = "show, verify, rm: every file of the cache folder"},
    {0},
};

static const arg_group groups[] = {
    {"Sessions", own_args, 0},
    {"Output", output_args, offsetof(session_options, output)},
    {0},
};

typedef struct listing {
    const session_options *o;
    output out;
    json_t *records; /* NULL without --json */
} listing;

/* ---- one file -------------------------------------------------------------------------- */

/* When a file was used last, in local time. */
static const char *used_at(char out[32], const char *path) {
    struct stat s;
    struct tm local;
    if (stat(path, &s) != 0 || !localtime_r(&s.st_mtime, &local) ||
        strftime(out, 32, "%Y-%m-%d %H:%M", &local) == 0) {
        return "?";
    }
    return out;
}

static uint64_t disk_bytes(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 ? (uint64_t)s.st_blocks * 512 : 0;
}

static json_t *points_json(const cca_store *store) {
    json_t *points = json_array();
    for (size_t i = 0; i < cca_store_n_points(store); i++) {
        output_add(&points, json_integer(cca_store_point_at(store, i).pos));
    }
    return points;
}

/* {"model": …, "group_size": …}, all as text. */
static json_t *facts_json(const char *facts) {
    json_t *all = json_object();
    while (*facts) {
        size_t line = strcspn(facts, "\n"), name = strcspn(facts, "=");
        if (name < line) {
            json_t *key = output_string(facts, name);
            output_put(&all, json_string_value(key),
                       output_string(facts + name + 1, line - name - 1));
            json_decref(key);
        }
        facts += line + (facts[line] == '\n');
    }
    return all;
}

static json_t *record(cca_store *store) {
    int64_t n;
    stored_about about;
    const char *path = cca_store_path(store);
    cca_store_tokens(store, &n);
    stored_about_read(&about, store);
    json_t *model = json_incref(json_object_get(about.note, "model")), *names = about.names;
    about.names = NULL;
    stored_about_free(&about);
    return json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:o, s:o}", "file",
                     output_string(path, strlen(path)), "model_file", model ? model : json_null(),
                     "documents", names, "tokens", (json_int_t)n, "bytes",
                     (json_int_t)cca_store_bytes(store), "disk_bytes", (json_int_t)disk_bytes(path),
                     "torn_bytes", (json_int_t)cca_store_torn_bytes(store), "checkpoints",
                     points_json(store), "facts", facts_json(cca_store_facts(store)));
}

/* The model's file and the documents, where the session file names them. */
static void tell_about(output *out, const stored_about *about) {
    const char *slash = about->model ? strrchr(about->model, '/') : NULL;
    size_t n = json_array_size(about->names);
    if (about->model) output_printf(out, "  %s", slash ? slash + 1 : about->model);
    for (size_t i = 0; i < n; i++) {
        output_printf(out, "%s%s", i == 0 ? ": " : ", ",
                      json_string_value(json_array_get(about->names, i)));
    }
}

static cca_status list_one(listing *l, cca_store *store, cca_error *err) {
    char used[32], size[TERM_SIZE_TEXT];
    const char *path = cca_store_path(store);
    int64_t n;
    stored_about about;
    (void)err;
    cca_store_tokens(store, &n);
    stored_about_read(&about, store);
    output_printf(&l->out, "%9lld token%s  %9s  %s", (long long)n, n == 1 ? " " : "s",
                  term_size(size, disk_bytes(path)), used_at(used, path));
    tell_about(&l->out, &about);
    output_printf(&l->out, "  %s\n", path);
    stored_about_free(&about);
    return CCA_OK;
}

static cca_status show_one(listing *l, cca_store *store, cca_error *err) {
    output *out = &l->out;
    list_one(l, store, err);
    for (const char *line = cca_store_facts(store); *line;) {
        size_t size = strcspn(line, "\n"), name = strcspn(line, "=");
        if (name < size) {
            output_printf(out, "  %-14.*s %.*s\n", (int)name, line, (int)(size - name - 1),
                          line + name + 1);
        }
        line += size + (line[size] == '\n');
    }
    output_printf(out, "  %-14s", "checkpoints");
    for (size_t i = 0; i < cca_store_n_points(store); i++) {
        output_printf(out, " %lld", (long long)cca_store_point_at(store, i).pos);
    }
    output_printf(out, "\n");
    if (cca_store_torn_bytes(store) > 0) {
        output_printf(out, "  %-14s %llu bytes that an interruption left\n", "torn",
                      (unsigned long long)cca_store_torn_bytes(store));
    }
    return CCA_OK;
}

/* Reads each segment to its checksum. */
static cca_status verify_one(listing *l, cca_store *store, cca_error *err) {
    enum { SIZE = 1 << 20 };
    char *buffer = malloc(SIZE);
    if (!buffer) return cca_fail(err, CCA_NO_MEMORY, "no memory to read a session");
    cca_status status = CCA_OK;
    for (size_t i = 0; i < cca_store_n_segments(store) && !status; i++) {
        cca_store_segment s = cca_store_segment_at(store, i);
        if (s.kind == CCA_STORE_DROPPED) continue;
        status = cca_store_read_begin(store, i, err);
        for (uint64_t done = 0; done < s.bytes && !status; done += SIZE) {
            size_t some = s.bytes - done < SIZE ? (size_t)(s.bytes - done) : SIZE;
            status = cca_store_read(store, buffer, some, err);
        }
    }
    free(buffer);
    if (!status) output_printf(&l->out, "ok %s\n", cca_store_path(store));
    return status == CCA_BAD_MODEL ? CCA_CHECK_FAILED : status;
}

/* ---- all ------------------------------------------------------------------------------- */

typedef cca_status (*file_action)(listing *l, cca_store *store, cca_error *err);

static cca_status on_file(listing *l, const char *path, file_action action, cca_error *err) {
    if (!action) return cca_store_remove(path, err);
    cca_store *store;
    cca_status status = cca_store_open(&store, path, false, err);
    bool checking = action == verify_one;
    if (status == CCA_BAD_MODEL && checking && access(path, R_OK) == 0) return CCA_CHECK_FAILED;
    if (status) return status;
    if (l->records && !checking) {
        if (json_array_append_new(l->records, record(store)) != 0) {
            status = cca_fail(err, CCA_NO_MEMORY, "no memory for the record");
        }
    } else {
        status = action(l, store, err);
    }
    cca_store_close(store);
    return status;
}

/* The first failure is the command's; the files after it are done all the same. One that was found
 * and that another process has removed since is none. */
static cca_status on_files(listing *l, char *const *paths, size_t n, bool found, file_action action,
                           cca_error *err) {
    cca_status first = CCA_OK;
    cca_error error;
    for (size_t i = 0; i < n; i++) {
        cca_status status = on_file(l, paths[i], action, &error);
        bool gone = status && found && access(paths[i], F_OK) != 0 && errno == ENOENT;
        if (!status || first || gone) continue;
        first = status;
        *err = error;
    }
    return first;
}

static cca_status on_folder(listing *l, file_action action, cca_error *err) {
    char *folder;
    file_names found = {0};
    cca_status status = stored_folder(&folder, err);
    if (!status) status = stored_clean(folder, err);
    if (!status) status = stored_list(&found, folder, "", err);
    if (!status) status = on_files(l, found.paths, found.n, true, action, err);
    file_names_free(&found);
    free(folder);
    return status;
}

static cca_status on_named(listing *l, file_action action, cca_error *err) {
    const arg_list *words = &l->o->words;
    char **paths = calloc(words->n, sizeof *paths);
    if (!paths) return cca_fail(err, CCA_NO_MEMORY, "no memory for the names");
    for (size_t i = 1; i < words->n; i++) paths[i - 1] = (char *)words->items[i].text;
    cca_status status = on_files(l, paths, words->n - 1, false, action, err);
    free(paths);
    return status;
}

static cca_status find_action(file_action *out, bool *folder, const session_options *o,
                              cca_error *err) {
    static const struct {
        const char *name;
        file_action action; /* NULL: rm */
    } actions[] = {{"ls", list_one}, {"show", show_one}, {"verify", verify_one}, {"rm", NULL}};
    const char *name = o->words.n > 0 ? o->words.items[0].text : "ls";
    size_t i = 0;
    while (i < 4 && strcmp(actions[i].name, name) != 0) i++;
    if (i == 4) return cca_fail(err, CCA_USAGE, "session %s: use ls, show, verify or rm", name);
    *out = actions[i].action;
    *folder = o->words.n < 2 && (o->all || i == 0);
    if (o->words.n >= 2 && o->all) {
        return cca_fail(err, CCA_USAGE, "session %s: either files or --all", name);
    }
    if (o->words.n < 2 && !*folder) {
        return cca_fail(err, CCA_USAGE, "session %s: which file? (--all: all of the cache)", name);
    }
    return CCA_OK;
}

static cca_status run(const void *options, cca_error *err) {
    listing l = {.o = options};
    file_action action;
    bool folder;
    cca_status status = find_action(&action, &folder, l.o, err);
    if (!status) status = output_open(&l.out, l.o->output.file, err);
    if (status) return status;
    if (l.o->output.json) l.records = json_array();
    status = folder ? on_folder(&l, action, err) : on_named(&l, action, err);
    if (l.records) {
        output_json(&l.out,
                    json_pack("{s:s, s:o}", "schema", "cca.session.1", "sessions", l.records));
    }
    cca_error close_error;
    /* What a damaged file or a missing one leaves of the answer is all there is to say. */
    cca_status closed = output_close(&l.out, status != CCA_NO_MEMORY, &close_error);
    if (status || !closed) return status;
    *err = close_error;
    return closed;
}

const cli_command cli_session = {
    .name = "session",
    .summary = "list, show, verify, remove stored documents",
    .usage = "[ls|show|verify|rm] [FILE ...] [options]",
    .notes =
        "ask keeps the state of its documents in $XDG_CACHE_HOME/cca (else ~/.cache/cca), "
        "generate where --session says. ls lists files, show tells what they belong to and "
        "their checkpoints, verify compares all checksums (exit 8: damaged, or no session file; 3: "
        "cannot be read), rm removes files that nobody is writing. Of several files all are done; "
        "the first failure's is the exit code.",
    .groups = groups,
    .options_size = sizeof(session_options),
    .run = run,
};
