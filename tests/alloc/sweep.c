/* Runs a command of cca again and again; in run k its k-th allocation fails:
 *
 *     sweep [-v] [-c FILE] FOLDER 0 generate -m model.gguf -p hello
 *
 * The number is the exit status of the undisturbed run; -c copies a file into FOLDER before each
 * run; -v shows where those allocations are made whose failure changes nothing. Each run must
 * either end as that does (the allocation was not needed), or exit with 5 (no memory), say so, and
 * leave no file in FOLDER, which is emptied. A leak or an invalid access is found by
 * AddressSanitizer, with which this program is built. The linker leads the allocations of our own
 * code here (--wrap); those of libraries are theirs. */
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sanitizer/common_interface_defs.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS_A_RUN = 60, MAX_SHOWN = 10 };

int cca_main(int argc, char **argv); /* run.c's main */

/* ---- allocations ---- */

static atomic_long *n_allocations; /* shared with the parent; NULL: nothing is counted */
static long failing;
static bool verbose;

static bool fails(void) {
    if (!n_allocations || atomic_fetch_add(n_allocations, 1) + 1 != failing) return false;
    if (verbose) __sanitizer_print_stack_trace();
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size) {
    return fails() ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size) {
    return fails() ? NULL : __real_calloc(n, size);
}

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size) {
    return fails() ? NULL : __real_realloc(old, size);
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text) {
    return fails() ? NULL : __real_strdup(text);
}

char *__real_strndup(const char *text, size_t size);
char *__wrap_strndup(const char *text, size_t size);
char *__wrap_strndup(const char *text, size_t size) {
    return fails() ? NULL : __real_strndup(text, size);
}

char *__real_realpath(const char *path, char *out);
char *__wrap_realpath(const char *path, char *out);
char *__wrap_realpath(const char *path, char *out) {
    return fails() ? NULL : __real_realpath(path, out);
}

int __real_vasprintf(char **out, const char *format, va_list args);
int __wrap_vasprintf(char **out, const char *format, va_list args);
int __wrap_vasprintf(char **out, const char *format, va_list args) {
    *out = NULL;
    return fails() ? -1 : __real_vasprintf(out, format, args);
}

int __wrap_asprintf(char **out, const char *format, ...);
int __wrap_asprintf(char **out, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = __wrap_vasprintf(out, format, args);
    va_end(args);
    return n;
}

FILE *__real_open_memstream(char **out, size_t *size);
FILE *__wrap_open_memstream(char **out, size_t *size);
FILE *__wrap_open_memstream(char **out, size_t *size) {
    return fails() ? NULL : __real_open_memstream(out, size);
}

void *__real_mmap(void *at, size_t size, int access, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int access, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int access, int flags, int fd, off_t offset) {
    return fails() ? MAP_FAILED : __real_mmap(at, size, access, flags, fd, offset);
}

/* ---- runs ---- */

static long failures;

static void show(long k, const char *what, int status, const char *log) {
    char text[4000] = "";
    FILE *file = fopen(log, "r");
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
    }
    printf("allocation %ld: %s (exit status %d)\n%s\n", k, what, status, text);
}

static void complain(long k, const char *what, int status, const char *log) {
    if (failures++ < MAX_SHOWN) show(k, what, status, log);
}

static bool is_session(const char *name) {
    size_t n = strlen(name);
    return n > 5 && strcmp(name + n - 5, ".ccas") == 0;
}

/* Empties the folder; how many files there were, without sessions: they are whole at any time. */
static int empty(const char *folder) {
    char path[4096];
    int n = 0;
    DIR *dir = opendir(folder);
    if (!dir) return -1;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (e->d_name[0] == '.' && (!e->d_name[1] || !strcmp(e->d_name, ".."))) continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        unlink(path);
        n += !is_session(e->d_name);
    }
    closedir(dir);
    return n;
}

/* Copies a file into the folder, under its own name. */
static bool place(const char *file, const char *folder) {
    char path[4096], bytes[4096];
    const char *slash = strrchr(file, '/');
    snprintf(path, sizeof path, "%s/%s", folder, slash ? slash + 1 : file);
    FILE *from = fopen(file, "rb"), *to = fopen(path, "wb");
    bool done = from && to;
    for (size_t n; done && (n = fread(bytes, 1, sizeof bytes, from)) > 0;) {
        done = fwrite(bytes, 1, n, to) == n;
    }
    if (from) fclose(from);
    if (to && fclose(to) != 0) done = false;
    return done;
}

static void run_child(int argc, char **argv, const char *log) {
    alarm(SECONDS_A_RUN);
    lseek(STDIN_FILENO, 0, SEEK_SET); /* a file: each run reads it from its start */
    if (!freopen("/dev/null", "w", stdout) || !freopen(log, "w", stderr)) _exit(99);
    exit(cca_main(argc, argv));
}

/* The exit status of run k: 128 and the signal's number after a signal. */
static int run(long k, int argc, char **argv, const char *log) {
    int status = 0;
    atomic_store(n_allocations, 0);
    failing = k;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) run_child(argc, argv, log);
    if (child < 0 || waitpid(child, &status, 0) != child) return 99;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static bool said_something(const char *log) {
    FILE *file = fopen(log, "r");
    bool any = file && fgetc(file) != EOF;
    if (file) fclose(file);
    return any;
}

int main(int argc, char **argv) {
    char log[] = "/tmp/cca_sweep_XXXXXX";
    const char *needed = NULL;
    for (int option; (option = getopt(argc, argv, "+vc:")) != -1;) {
        if (option == 'v') verbose = true;
        if (option == 'c') needed = optarg;
        if (option == '?') return 2;
    }
    argc -= optind - 1;
    argv += optind - 1;
    if (argc < 4) return 2;
    int fd = mkstemp(log);
    void *shared = __real_mmap(NULL, sizeof *n_allocations, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fd < 0 || shared == MAP_FAILED) return 2;
    close(fd);
    n_allocations = shared;
    const char *folder = argv[1];
    int usual = (int)strtol(argv[2], NULL, 10);
    argv[2] = argv[0];
    long k = 0, survived = 0;
    for (bool reached = true; reached; k++) {
        if (needed && !place(needed, folder)) return 2;
        int status = run(k, argc - 2, argv + 2, log);
        int files = empty(folder);
        reached = k == 0 || atomic_load(n_allocations) >= k;
        if (k == 0 || !reached) {
            if (status != usual) complain(k, "the undisturbed run ends otherwise", status, log);
        } else if (status == CCA_NO_MEMORY) {
            if (!said_something(log)) complain(k, "no message", status, log);
            if (files != 0) complain(k, "files were left", status, log);
        } else if (status == usual) {
            survived++;
            if (verbose) show(k, "not needed", status, log);
        } else {
            complain(k, "neither the usual end nor \"no memory\"", status, log);
        }
    }
    unlink(log);
    printf("%s: %ld allocations, %ld not needed, %ld failures\n", argv[3], k - 2, survived,
           failures);
    return failures > 0;
}
