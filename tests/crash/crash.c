/* Runs commands of cca, then cuts the power at each moment of it:
 *
 *     crash [-s] -n NAME -d WORK [-m MODEL -a ATTN] [-i FILE]... [-o] -- generate … -- ask …
 *
 * WORK/disk is the folder whose files are watched; -i puts a file there before. Each state that
 * can be left is read (reader.h), and from some of them the commands run again, which must end well
 * (-o: with the output of the first time), and the power is cut in some of these runs, too. -m is
 * needed where there are sessions. -s bounds what is tried to about a minute for all of run.sh.
 * Beside the commands of cca there is one of this program: attention FILE G S SINKS RECALL sets
 * these numbers in a model file. */
#include "tests/crash/explore.h"

#include "export/gguf_edit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATH = 4096, WHY = 1024, MOST_COMMANDS = 32, SECONDS_A_COMMAND = 60 };

int cca_main(int argc, char **argv); /* run.c's main */

static struct {
    char disk[PATH], log[PATH], out[PATH], said[PATH];
    char **commands[MOST_COMMANDS]; /* each ends with NULL */
    int n_commands;
    bool same_output, brief;
    const char *work, *model, *attn;
    disk_state start; /* what -i puts there */
    char *expected;   /* output */
    long most_inner;
} run;

/* ---- commands ---- */

static int set_attention(char **argv) {
    long n[4];
    cca_error err;
    for (int i = 0; i < 4; i++) n[i] = argv[2] ? strtol(argv[i + 2], NULL, 10) : 0;
    cca_gguf_attention a = {n[0], n[1], n[2], n[3], false};
    return (int)cca_gguf_set_attention(argv[1], &a, &err);
}

static void run_child(char **argv) {
    int argc = 0;
    char *all[256] = {"cca"};
    alarm(SECONDS_A_COMMAND);
    lseek(STDIN_FILENO, 0, SEEK_SET);
    if (!freopen(run.out, "a", stdout) || !freopen(run.said, "a", stderr)) _exit(99);
    if (strcmp(argv[0], "attention") == 0) exit(set_attention(argv));
    while (argc < 254 && argv[argc]) {
        all[argc + 1] = argv[argc];
        argc++;
    }
    exit(cca_main(argc + 1, all));
}

static int run_command(char **argv) {
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) run_child(argv);
    if (child < 0 || waitpid(child, &status, 0) != child) return 99;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static char *read_text(const char *path) {
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    if (!text) abort();
    if (file) text[fread(text, 1, (1 << 20) - 1, file)] = '\0';
    if (file) fclose(file);
    return text;
}

static bool run_all(char why[WHY]) {
    unlink(run.out);
    unlink(run.said);
    for (int i = 0; i < run.n_commands; i++) {
        int status = run_command(run.commands[i]);
        if (status == 0) continue;
        char *said = read_text(run.said);
        snprintf(why, WHY, "%s ends with %d: %.800s", run.commands[i][0], status, said);
        free(said);
        return false;
    }
    return true;
}

/* ---- going on from a state ---- */

/* The power goes while the program goes on from what it left the first time. */
static void go_inside(explorer *outer, const disk_state *s) {
    record_log log;
    explorer e = {.name = outer->name,
                  .folder = outer->folder,
                  .n_random = run.brief ? 1 : 8,
                  .all_below = 4,
                  .seed = outer->seed};
    if (!record_read(&log, run.log)) abort();
    explore(&e, s, &log);
    outer->n_states += e.n_states;
    outer->n_distinct += e.n_distinct;
    outer->n_refused += e.n_refused;
    outer->n_wrong += e.n_wrong;
    outer->n_inner++;
    explorer_free(&e);
    record_free(&log);
}

static bool go_on(explorer *e, const disk_state *s, char why[WHY]) {
    bool inner = e->n_inner < run.most_inner, right;
    if (inner && !record_begin(run.disk, run.log)) abort();
    right = run_all(why);
    record_end();
    if (right && run.same_output) {
        char *output = read_text(run.out);
        right = strcmp(output, run.expected) == 0;
        if (!right) snprintf(why, WHY, "the output differs");
        free(output);
    }
    if (!right || !inner) return right;
    go_inside(e, s);
    return true;
}

/* ---- the first run ---- */

static void add_file(disk_state *s, const char *path) {
    struct stat st;
    FILE *file = fopen(path, "rb");
    const char *slash = strrchr(path, '/');
    if (!file || fstat(fileno(file), &st) != 0) abort();
    disk_file f = {.name = slash ? slash + 1 : path, .size = (size_t)st.st_size};
    f.data = malloc(f.size + 1);
    disk_file *grown = realloc(s->files, (s->n + 1) * sizeof *s->files);
    if (!f.data || !grown || fread(f.data, 1, f.size, file) != f.size) abort();
    s->files = grown;
    fclose(file);
    s->files[s->n++] = f;
}

static void set_paths(const char *work) {
    snprintf(run.disk, sizeof run.disk, "%s/disk", work);
    snprintf(run.log, sizeof run.log, "%s/log", work);
    snprintf(run.out, sizeof run.out, "%s/out", work);
    snprintf(run.said, sizeof run.said, "%s/said", work);
    mkdir(run.disk, 0700);
}

static void split_commands(int argc, char **argv) {
    for (int i = 0; i < argc; i++) {
        bool first = i == 0 || strcmp(argv[i - 1], "--") == 0;
        if (first && run.n_commands < MOST_COMMANDS) run.commands[run.n_commands++] = argv + i;
    }
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) argv[i] = NULL;
    }
}

static int explore_run(explorer *e, disk_state *start) {
    char why[WHY];
    record_log log;
    place(run.disk, start);
    if (!record_begin(run.disk, run.log)) return 2;
    bool done = run_all(why);
    record_end();
    if (!done) {
        printf("%s: %s\n", e->name, why);
        return 1;
    }
    run.expected = read_text(run.out);
    if (!record_read(&log, run.log)) return 2;
    explore(e, start, &log);
    printf("%s crash %s: %ld states (%ld differ) of %ld operations, %ld refused, %ld gone on from, "
           "%ld of these cut again, %ld wrong\n",
           e->n_wrong ? "FAILED" : "ok", e->name, e->n_states, e->n_distinct, e->n_ops,
           e->n_refused, e->n_gone_on, e->n_inner, e->n_wrong);
    record_free(&log);
    free(run.expected);
    return e->n_wrong > 0;
}

static bool take_options(explorer *e, int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "+sn:d:m:a:i:o")) != -1;) {
        switch (option) {
        case 's': run.brief = true; break;
        case 'n': e->name = optarg; break;
        case 'd': run.work = optarg; break;
        case 'm': run.model = optarg; break;
        case 'a': run.attn = optarg; break;
        case 'i': add_file(&run.start, optarg); break;
        case 'o': run.same_output = true; break;
        default: return false;
        }
    }
    return run.work && e->name && optind < argc;
}

int main(int argc, char **argv) {
    explorer e = {.n_random = 96, .all_below = 8, .every = 40, .go_on = go_on, .seed = 1};
    cca_error err;
    run.most_inner = 100;
    run.attn = "cca";
    if (!take_options(&e, argc, argv)) return 2;
    if (run.brief) {
        e.n_random = 3;
        e.all_below = 4;
        e.every = 400;
        run.most_inner = 1;
    }
    set_paths(run.work);
    split_commands(argc - optind, argv + optind);
    e.folder = run.disk;
    if (run.model && !reader_open(run.model, run.attn, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 2;
    }
    int status = explore_run(&e, &run.start);
    explorer_free(&e);
    disk_state_free(&run.start);
    if (run.model) reader_close();
    return status;
}
