/* Runs a command of cca again and again; in run k its k-th call of a kind fails (faults.h):
 *
 *     sweep [-vx] [-f FAULT] [-c FILE] FOLDER 0 generate -m model.gguf -p hello
 *
 * The number is the exit status of the undisturbed run; -c copies a file into FOLDER before each
 * run; -v shows where those calls are made whose failure changes nothing; -x compares no output.
 * FOLDER is emptied after each run. What must hold for a FAULT:
 *
 * - memory: the end of the undisturbed run (the allocation was not needed), or exit status 5 with a
 *   message, and no file in FOLDER;
 * - eintr, short: the end of the undisturbed run, with its output and its files;
 * - eio, enospc: that, or output that names the file, or a documented exit status with a message
 *   that does; no silence where a write, a sync or a rename fails; all files in FOLDER are what
 *   they were, or were to become, or whole sessions.
 *
 * Output that differs between undisturbed runs (times) is compared without its numbers, or not at
 * all. A leak or an invalid access is found by AddressSanitizer, with which it is built. */
#include "base/base.h"
#include "base/hash.h"
#include "store.h"
#include "tests/alloc/faults.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SECONDS_A_RUN = 60,
    MAX_SHOWN = 10,
    MOST_FILES = 32,
    UNDISTURBED = 3,
    PATH = 4096,
    LOG = 4000
};

int cca_main(int argc, char **argv); /* run.c's main */

/* What a run made of a file, or wrote on standard output. */
typedef struct kept {
    char name[256];
    uint64_t exact, loose; /* hashes: of all bytes, and without numbers */
    bool session, whole;   /* a session file, which can be read */
} kept;

typedef struct outcome {
    int status;
    kept out, files[MOST_FILES];
    int n_files;
} outcome;

typedef enum comparison { EXACT, LOOSE, NONE } comparison;

static struct {
    fault kind;
    bool verbose;
    const char *folder, *needed; /* needed: copied before each run */
    char log[PATH], out[PATH];
    int usual; /* exit status */
    outcome first;
    comparison how;
    kept before; /* what is copied */
    long n, survived, failures;
} all;

/* ---- complaints ---- */

static void read_text(char text[LOG], const char *path) {
    FILE *file = fopen(path, "r");
    text[file ? fread(text, 1, LOG - 1, file) : 0] = '\0';
    if (file) fclose(file);
}

static void show(long k, const char *what, int status) {
    char text[LOG];
    read_text(text, all.log);
    printf("%s %ld (%s %s): %s (exit status %d)\n%s\n", faults_name(all.kind), k, faults_call(),
           faults_path(), what, status, text);
}

static void complain(long k, const char *what, int status) {
    if (all.failures++ < MAX_SHOWN) show(k, what, status);
}

/* ---- files ---- */

/* Whether all of a session can be read. */
static bool reads(const char *path) {
    char piece[4096];
    cca_store *store;
    if (cca_store_open(&store, path, false, NULL)) return false;
    cca_status status = CCA_OK;
    for (size_t i = 0; i < cca_store_n_segments(store) && !status; i++) {
        status = cca_store_read_begin(store, i, NULL);
        for (uint64_t left = cca_store_segment_at(store, i).bytes; left > 0 && !status;) {
            size_t n = left < sizeof piece ? (size_t)left : sizeof piece;
            status = cca_store_read(store, piece, n, NULL);
            left -= n;
        }
    }
    cca_store_close(store);
    return !status;
}

static kept look(const char *path) {
    kept out = {.exact = cca_hash("", 0)};
    const char *slash = strrchr(path, '/');
    snprintf(out.name, sizeof out.name, "%s", slash ? slash + 1 : path);
    out.loose = out.exact;
    FILE *file = fopen(path, "rb");
    for (int c; file && (c = fgetc(file)) != EOF;) {
        uint8_t byte = (uint8_t)c;
        out.exact = cca_hash_more(out.exact, &byte, 1);
        if (!isdigit(c) && !strchr("+-.e ", c)) out.loose = cca_hash_more(out.loose, &byte, 1);
    }
    if (file) fclose(file);
    size_t n = strlen(out.name);
    out.session = n > 5 && strcmp(out.name + n - 5, ".ccas") == 0;
    out.whole = out.session && reads(path);
    return out;
}

/* Notes what is in the folder, and empties it. */
static void take_files(outcome *o) {
    char path[PATH];
    DIR *dir = opendir(all.folder);
    o->n_files = 0;
    for (const struct dirent *e = NULL; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.' && (!e->d_name[1] || !strcmp(e->d_name, ".."))) continue;
        snprintf(path, sizeof path, "%s/%s", all.folder, e->d_name);
        if (o->n_files < MOST_FILES) o->files[o->n_files++] = look(path);
        unlink(path);
    }
    if (dir) closedir(dir);
}

static const kept *find(const outcome *o, const char *name) {
    for (int i = 0; i < o->n_files; i++) {
        if (strcmp(o->files[i].name, name) == 0) return &o->files[i];
    }
    return NULL;
}

/* Copies a file into the folder, under its own name. */
static bool place(const char *file) {
    char path[PATH], bytes[4096];
    const char *slash = strrchr(file, '/');
    snprintf(path, sizeof path, "%s/%s", all.folder, slash ? slash + 1 : file);
    FILE *from = fopen(file, "rb"), *to = fopen(path, "wb");
    bool done = from && to;
    for (size_t n; done && (n = fread(bytes, 1, sizeof bytes, from)) > 0;) {
        done = fwrite(bytes, 1, n, to) == n;
    }
    if (from) fclose(from);
    if (to && fclose(to) != 0) done = false;
    return done;
}

/* ---- runs ---- */

static void run_child(int argc, char **argv) {
    alarm(SECONDS_A_RUN);
    lseek(STDIN_FILENO, 0, SEEK_SET); /* a file: each run reads it from its start */
    if (!freopen(all.out, "w", stdout) || !freopen(all.log, "w", stderr)) _exit(99);
    faults_arm();
    exit(cca_main(argc, argv));
}

/* Run k; its exit status is 128 and the signal's number after a signal. */
static outcome run(long k, int argc, char **argv) {
    outcome o = {.status = 99};
    int status = 0;
    if (all.needed && !place(all.needed)) return o;
    faults_set(all.kind, k, all.verbose);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) run_child(argc, argv);
    if (child < 0 || waitpid(child, &status, 0) != child) return o;
    o.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    o.out = look(all.out);
    take_files(&o);
    return o;
}

/* ---- what is compared ---- */

/* A model that was there before tells of no times. */
static bool same(const kept *a, const kept *b) {
    bool was = all.needed && !a->session && strcmp(a->name, all.before.name) == 0;
    if (was) return a->exact == b->exact;
    if (all.how == NONE) return true;
    return all.how == EXACT ? a->exact == b->exact : a->loose == b->loose;
}

static bool same_outcome(const outcome *a, const outcome *b) {
    if (a->n_files != b->n_files || !same(&a->out, &b->out)) return false;
    for (int i = 0; i < a->n_files; i++) {
        const kept *other = find(b, a->files[i].name);
        if (!other || !same(&a->files[i], other)) return false;
    }
    return true;
}

static void find_usual(int argc, char **argv) {
    outcome more[UNDISTURBED - 1];
    take_files(&all.first); /* what somebody else left there is none of it */
    all.first = run(0, argc, argv);
    if (all.first.status != all.usual) {
        complain(0, "the undisturbed run ends otherwise", all.first.status);
    }
    if (all.kind == FAULT_MEMORY) return;
    for (int i = 0; i < UNDISTURBED - 1; i++) more[i] = run(0, argc, argv);
    for (bool differs = true; differs && all.how < NONE; all.how += differs) {
        differs = false;
        for (int i = 0; i < UNDISTURBED - 1; i++) differs |= !same_outcome(&all.first, &more[i]);
    }
}

/* Whether what a run says, or its output, names a file: also one that has a name of the moment, or
 * none. */
static bool names(const char *log, const char *path) {
    char text[LOG], name[PATH];
    read_text(text, log);
    snprintf(name, sizeof name, "%s", path);
    size_t n = strlen(name);
    if (n > 6 && strcmp(name + n - 4, ".tmp") == 0) name[n - 6] = '\0';
    char *slash = strrchr(name, '/');
    if (slash && slash[1] == '#') {
        *slash = '\0';
        slash = strrchr(name, '/');
    }
    return strstr(text, slash ? slash + 1 : name);
}

/* Each file is what it was, or what it was to become, or a whole session. */
static bool files_are_whole(const outcome *o) {
    for (int i = 0; i < o->n_files; i++) {
        const kept *f = &o->files[i], *usual = find(&all.first, f->name);
        bool was = all.needed && strcmp(f->name, all.before.name) == 0;
        if (f->session ? f->whole : usual && same(f, usual)) continue;
        if (was && f->exact == all.before.exact) continue;
        if (usual && o->status == CCA_CHECK_FAILED) continue; /* a report of it */
        return false;
    }
    return !all.needed || !find(&all.first, all.before.name) || find(o, all.before.name);
}

static void check_memory(long k, const outcome *o) {
    char text[LOG];
    int others = 0;
    read_text(text, all.log);
    for (int i = 0; i < o->n_files; i++) others += !o->files[i].session;
    if (o->status == CCA_NO_MEMORY) {
        if (!text[0]) complain(k, "no message", o->status);
        if (others > 0) complain(k, "files were left", o->status);
    } else if (o->status != all.usual) {
        complain(k, "neither the usual end nor \"no memory\"", o->status);
    }
}

/* Whether a run has to tell of what failed: what was to be kept may not be there. A folder that
 * cannot be synced is no failure, and the cache is no promise. */
static bool must_tell(void) {
    static const char *const calls[] = {"write", "pwrite", "fsync", "fdatasync", "rename"};
    struct stat st;
    bool folder = stat(faults_path(), &st) == 0 && S_ISDIR(st.st_mode), keeps = false;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        keeps |= strcmp(faults_call(), calls[i]) == 0;
    }
    return keeps && !folder && !strstr(faults_path(), "/cache/");
}

static void check_error(long k, const outcome *o) {
    bool documented = o->status >= CCA_RUNTIME && o->status <= CCA_CHECK_FAILED;
    if (!files_are_whole(o)) complain(k, "a file is neither old nor new", o->status);
    if (o->status == all.usual) {
        bool told = names(all.out, faults_path()); /* a record has warnings */
        if (!told && !same(&o->out, &all.first.out)) complain(k, "other output", o->status);
        bool all_there = true;
        for (int i = 0; i < all.first.n_files; i++) {
            all_there &= find(o, all.first.files[i].name) != NULL;
        }
        told |= names(all.log, faults_path());
        if (!told && !all_there) complain(k, "a file is missing", o->status);
        if (!told && must_tell()) complain(k, "no word of it", o->status);
    } else if (!documented) {
        complain(k, "no documented end", o->status);
    } else if (!names(all.log, faults_path())) {
        complain(k, "the message does not name the file", o->status);
    }
}

static void check(long k, const outcome *o) {
    if (all.kind == FAULT_MEMORY) {
        check_memory(k, o);
    } else if (all.kind == FAULT_EIO || all.kind == FAULT_ENOSPC) {
        check_error(k, o);
    } else if (o->status != all.usual || !same_outcome(o, &all.first)) {
        complain(k, "another end, output or file", o->status);
    }
    if (o->status != all.usual) return;
    all.survived++;
    if (all.verbose) show(k, "goes on", o->status);
}

static void sweep(int argc, char **argv) {
    find_usual(argc, argv);
    for (long k = 1;; k++) {
        outcome o = run(k, argc, argv);
        if (faults_counted() < k) return;
        all.n = k;
        check(k, &o);
    }
}

static bool take_options(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "+xvf:c:")) != -1;) {
        if (option == 'x') all.how = NONE;
        if (option == 'v') all.verbose = true;
        if (option == 'c') all.needed = optarg;
        if (option == '?') return false;
        if (option != 'f') continue;
        while (all.kind < FAULTS && strcmp(faults_name(all.kind), optarg) != 0) all.kind++;
        if (all.kind == FAULTS) return false;
    }
    return argc - optind >= 3;
}

int main(int argc, char **argv) {
    static const char *const how[] = {"", ", numbers not compared", ", output not compared"};
    char work[] = "/tmp/cca_sweep_XXXXXX";
    if (!take_options(argc, argv) || !mkdtemp(work) || !faults_open()) return 2;
    snprintf(all.log, sizeof all.log, "%s/log", work);
    snprintf(all.out, sizeof all.out, "%s/out", work);
    all.folder = argv[optind];
    all.usual = (int)strtol(argv[optind + 1], NULL, 10);
    if (all.needed) all.before = look(all.needed);
    argv[optind + 1] = argv[0];
    sweep(argc - optind - 1, argv + optind + 1);
    unlink(all.log);
    unlink(all.out);
    rmdir(work);
    printf("%s: %s: %ld calls, %ld not needed, %ld failures%s\n", argv[optind + 2],
           faults_name(all.kind), all.n, all.survived, all.failures, how[all.how]);
    return all.failures > 0;
}
