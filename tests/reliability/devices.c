/* Runs a command of cca again and again on a device of tests (tests/unit/faulty_device.h); in run k
 * the k-th call of the device does harm:
 *
 *     devices [-en] [-s N] [-c FILE] FAULT FOLDER generate -m model.gguf -p hello --session S
 *
 * FAULT is fails, memory, lost, nan, waits or hangs; -n: the output tells times, and is not
 * compared; -e: the command goes on with another output than at first; -c: a file that lies in
 * FOLDER before each run; -s N: each N-th call alone. Each run must either end as the undisturbed
 * one does, with its output, or with the exit code of its fault and a message, its output a
 * beginning of that one: none of it made of numbers that are none. A device that does not come back
 * is interrupted, once where it hears of that and twice where it does not. Then the same command
 * must go on, undisturbed, with what is left in FOLDER: session files that are whole, and nothing
 * else. */
#include "tests/unit/faulty_device.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { SECONDS_A_RUN = 60, MAX_SHOWN = 10, MOST_OUTPUT = 1 << 20, MOST_PATH = 4096 };

int cca_main(int argc, char **argv); /* run.c's main */

static const struct {
    const char *name;
    fault_kind kind;
    int status;
    const char *says;
} faults[] = {
    {"fails", FAULT_FAILS, CCA_RUNTIME, "the device of tests"},
    {"memory", FAULT_NO_MEMORY, CCA_NO_MEMORY, "no memory"},
    {"lost", FAULT_LOST, CCA_RUNTIME, "the device of tests"},
    {"nan", FAULT_NAN, CCA_RUNTIME, "no finite number"},
    {"waits", FAULT_WAITS, CCA_INTERRUPTED, "interrupted"},
    {"hangs", FAULT_HANGS, CCA_RUNTIME, "has not answered"},
};

typedef struct sweep {
    int fault; /* of faults */
    bool timed, extends;
    const char *folder, *given; /* given: a file, or NULL */
    char **words;               /* the command */
    int n_words;
    char out[64], err[64], usual[MOST_OUTPUT];
    long n_failures, n_unharmed, n_deaf, n_bounds;
} sweep;

/* What a file begins with, as a text. */
static const char *text_of(const char *path) {
    static char text[MOST_OUTPUT];
    FILE *file = fopen(path, "r");
    text[file ? fread(text, 1, sizeof text - 1, file) : 0] = '\0';
    if (file) fclose(file);
    return text;
}

static void complain(sweep *s, long k, const char *what, int status) {
    if (s->n_failures++ >= MAX_SHOWN) return;
    printf("%s, call %ld (%s): %s (exit status %d)\n%s\n", faults[s->fault].name, k,
           faulty_device->name, what, status, text_of(s->err));
    printf("standard output: '%s'\n", text_of(s->out));
}

/* ---- the folder ------------------------------------------------------------------------ */

/* The next file of a folder: its path; false at the end. dir may be NULL: there is none. */
static bool next_file(char path[MOST_PATH], DIR *dir, const char *folder) {
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        snprintf(path, MOST_PATH, "%s/%s", folder, e->d_name);
        return true;
    }
    return false;
}

static bool is_session(const char *path) {
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".ccas") == 0;
}

static void empty(const char *folder) {
    char path[MOST_PATH];
    DIR *dir = opendir(folder);
    while (next_file(path, dir, folder)) unlink(path);
    if (dir) closedir(dir);
}

/* Copies what was given into the folder, under its own name. */
static bool place(const sweep *s) {
    char path[MOST_PATH], bytes[4096];
    const char *slash = s->given ? strrchr(s->given, '/') : NULL;
    if (!s->given) return true;
    snprintf(path, sizeof path, "%s/%s", s->folder, slash ? slash + 1 : s->given);
    FILE *from = fopen(s->given, "rb"), *to = fopen(path, "wb");
    bool done = from && to;
    for (size_t n; done && (n = fread(bytes, 1, sizeof bytes, from)) > 0;) {
        done = fwrite(bytes, 1, n, to) == n;
    }
    if (from) fclose(from);
    if (to && fclose(to) != 0) done = false;
    return done;
}

/* ---- runs ------------------------------------------------------------------------------ */

static void run_child(const sweep *s, int argc, char **argv) {
    alarm(SECONDS_A_RUN);
    lseek(STDIN_FILENO, 0, SEEK_SET); /* a file: each run reads it from its start */
    if (!freopen(s->out, "w", stdout) || !freopen(s->err, "w", stderr)) _exit(99);
    exit(cca_main(argc, argv));
}

/* Interrupts a child whose device does not come back; again where that does not hear of it. */
static int wait_for(pid_t child) {
    int status = 0, sent = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (atomic_load(&faulty_device->stalled) && (sent == 0 || faulty_device->deaf)) {
            kill(child, SIGINT);
            sent++;
            usleep(5000); /* two that come at once are one, however busy the machine is */
        }
        usleep(200);
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The exit status of a command with a fault; 128 and the signal's number after a signal. */
static int run(const sweep *s, fault_kind fault, long k, int argc, char **argv) {
    memset(faulty_device, 0, sizeof *faulty_device);
    faulty_device->fault = fault;
    faulty_device->at = k;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) run_child(s, argc, argv);
    return child < 0 ? 99 : wait_for(child);
}

/* The sessions that are left must be whole, and nothing else be left. */
static void check_folder(sweep *s, long k) {
    char path[MOST_PATH];
    char *verify[] = {s->words[0], "session", "verify", path, NULL};
    faulty harmful = *faulty_device;
    DIR *dir = opendir(s->folder);
    while (next_file(path, dir, s->folder)) {
        int status = is_session(path) ? run(s, FAULT_NONE, 0, 4, verify) : -1;
        *faulty_device = harmful;
        if (status < 0) complain(s, k, "a file is left", status);
        if (status > 0) complain(s, k, "a session is not whole", status);
    }
    if (dir) closedir(dir);
}

/* Without bounds groups are chosen otherwise, whose keys and values are as they were: that alone
 * may go unnoticed. Stored bounds are uploaded, and moved to their place. */
static bool may_be_bounds(const sweep *s) {
    static const char *const calls[] = {"bound", "upload", "move"};
    bool recalls = false, writes = false;
    for (int i = 0; i < s->n_words; i++) recalls |= strcmp(s->words[i], "recall") == 0;
    for (int i = 0; i < 3; i++) writes |= strcmp(faulty_device->name, calls[i]) == 0;
    return faulty_device->fault == FAULT_NAN && recalls && writes;
}

/* What a run has made of its fault. */
static void judge(sweep *s, long k, int status) {
    const char *out = text_of(s->out);
    size_t n_out = strlen(out);
    bool same = s->timed || strcmp(out, s->usual) == 0;
    if (n_out > 0 && out[n_out - 1] == '\n') n_out--; /* ends what was said so far */
    bool begins = strncmp(out, s->usual, n_out) == 0;
    bool told = strstr(text_of(s->err), faults[s->fault].says) != NULL;
    if (!status && same) {
        s->n_unharmed++;
    } else if (!status && may_be_bounds(s)) {
        s->n_bounds++;
    } else if (!status) {
        complain(s, k, "another output", status);
    } else if (faulty_device->deaf && status == CCA_INTERRUPTED && begins) {
        s->n_deaf++; /* the second signal ends it without a word */
    } else if (status != faults[s->fault].status) {
        complain(s, k, "another end", status);
    } else if (!told) {
        complain(s, k, "no such message", status);
    } else if (!begins) {
        complain(s, k, "more output than text so far", status);
    }
}

/* Run k, and the same undisturbed; false where there are not so many calls. */
static bool try_call(sweep *s, long k) {
    empty(s->folder);
    if (!place(s)) complain(s, k, "the file is not there", 0);
    int status = run(s, faults[s->fault].kind, k, s->n_words, s->words);
    if (atomic_load(&faulty_device->n_calls) < k) return false;
    judge(s, k, status);
    check_folder(s, k);
    status = run(s, FAULT_NONE, 0, s->n_words, s->words);
    if (status || (!s->timed && !s->extends && strcmp(text_of(s->out), s->usual) != 0)) {
        complain(s, k, "the same command does not go on", status);
    }
    return true;
}

static bool read_options(sweep *s, long *step, int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "+c:ens:")) != -1;) {
        if (option == 'c') s->given = optarg;
        if (option == 'e') s->extends = true;
        if (option == 'n') s->timed = true;
        if (option == 's') *step = strtol(optarg, NULL, 10);
        if (option == '?') return false;
    }
    if (argc - optind < 3 || *step < 1) return false;
    const int n = sizeof faults / sizeof *faults;
    while (s->fault < n && strcmp(faults[s->fault].name, argv[optind]) != 0) s->fault++;
    s->folder = argv[optind + 1];
    s->words = argv + optind + 1;
    s->n_words = argc - optind - 1;
    s->words[0] = argv[0];
    return s->fault < n;
}

int main(int argc, char **argv) {
    sweep s = {.out = "/tmp/cca_devices_XXXXXX", .err = "/tmp/cca_devices_XXXXXX"};
    long step = 1, k = 1, n;
    faulty_device = mmap(NULL, sizeof *faulty_device, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (faulty_device == MAP_FAILED || !read_options(&s, &step, argc, argv)) return 2;
    close(mkstemp(s.out)), close(mkstemp(s.err));
    empty(s.folder);
    if (!place(&s)) return 2;
    int status = run(&s, FAULT_NONE, 0, s.n_words, s.words);
    if (status) complain(&s, 0, "the undisturbed run fails", status);
    n = atomic_load(&faulty_device->n_calls);
    snprintf(s.usual, sizeof s.usual, "%s", text_of(s.out));
    while (!status && try_call(&s, k)) k += step;
    empty(s.folder);
    unlink(s.out), unlink(s.err);
    printf("%s %s, device %s: %ld calls, each %ld., %ld without harm, %ld deaf, %ld by bounds, "
           "%ld failures\n",
           s.n_failures ? "FAIL" : "ok", s.words[1], faults[s.fault].name, n, step, s.n_unharmed,
           s.n_deaf, s.n_bounds, s.n_failures);
    return s.n_failures > 0;
}
