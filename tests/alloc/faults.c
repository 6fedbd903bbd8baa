#include "tests/alloc/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <sanitizer/common_interface_defs.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ANY_ERROR = 1 << FAULT_EIO | 1 << FAULT_ENOSPC };

static struct shared {
    atomic_long n;
    char call[32], path[4096];
} * shared; /* with the parent */
static fault mode;
static long failing;
static bool tells, armed;

void *__real_mmap(void *at, size_t size, int access, int flags, int fd, off_t offset);

bool faults_open(void) {
    void *data = __real_mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (data != MAP_FAILED) shared = data;
    return shared;
}

void faults_set(fault kind, long k, bool verbose) {
    atomic_store(&shared->n, 0);
    shared->call[0] = shared->path[0] = '\0';
    mode = kind;
    failing = k;
    tells = verbose;
}

void faults_arm(void) {
    armed = true;
}

long faults_counted(void) {
    return atomic_load(&shared->n);
}

const char *faults_call(void) {
    return shared->call;
}

const char *faults_path(void) {
    return shared->path;
}

const char *faults_name(fault kind) {
    static const char *const names[FAULTS] = {"memory", "eio", "enospc", "eintr", "short"};
    return names[kind];
}

/* Whether this call fails now: one that can fail in the ways of a mask, of a file that is open, or
 * of a path. */
static bool hit(unsigned can, const char *call, int fd, const char *path) {
    if (!armed || !(can >> mode & 1)) return false;
    if (atomic_fetch_add(&shared->n, 1) + 1 != failing) return false;
    snprintf(shared->call, sizeof shared->call, "%s", call);
    if (path) {
        snprintf(shared->path, sizeof shared->path, "%s", path);
    } else if (fd >= 0) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, shared->path, sizeof shared->path - 1);
        shared->path[n > 0 ? n : 0] = '\0';
    }
    if (fd == STDIN_FILENO) strcpy(shared->path, "standard input");
    if (fd == STDOUT_FILENO) strcpy(shared->path, "standard output");
    if (tells) __sanitizer_print_stack_trace();
    static const int errors[FAULTS] = {ENOMEM, EIO, ENOSPC, EINTR, 0};
    errno = errors[mode];
    return true;
}

static bool fails(void) {
    return hit(1 << FAULT_MEMORY, "allocation", -1, NULL);
}

/* ---- allocations ---- */

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

void *__wrap_mmap(void *at, size_t size, int access, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int access, int flags, int fd, off_t offset) {
    unsigned can = 1 << FAULT_MEMORY | (fd >= 0 ? 1 << FAULT_EIO : 0);
    bool failed = hit(can, "mmap", fd, NULL);
    return failed ? MAP_FAILED : __real_mmap(at, size, access, flags, fd, offset);
}

/* ---- files ---- */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t access = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    unsigned can = 1 << FAULT_EIO | 1 << FAULT_EINTR;
    if (flags & (O_CREAT | O_TMPFILE)) can |= 1 << FAULT_ENOSPC;
    return hit(can, "open", -1, path) ? -1 : __real_open(path, flags, access);
}

/* How much of n bytes a call may take; -1 where it fails. */
static ssize_t some_of(size_t n, const char *call, int fd, bool writes) {
    unsigned can = 1 << FAULT_EIO | 1 << FAULT_EINTR;
    if (writes) can |= 1 << FAULT_ENOSPC;
    if (n > 1) can |= 1 << FAULT_SHORT;
    if (!hit(can, call, fd, NULL)) return (ssize_t)n;
    return mode == FAULT_SHORT ? (ssize_t)n / 2 : -1;
}

ssize_t __real_read(int fd, void *data, size_t n);
ssize_t __wrap_read(int fd, void *data, size_t n);
ssize_t __wrap_read(int fd, void *data, size_t n) {
    ssize_t some = some_of(n, "read", fd, false);
    return some < 0 ? -1 : __real_read(fd, data, (size_t)some);
}

ssize_t __real_pread(int fd, void *data, size_t n, off_t at);
ssize_t __wrap_pread(int fd, void *data, size_t n, off_t at);
ssize_t __wrap_pread(int fd, void *data, size_t n, off_t at) {
    ssize_t some = some_of(n, "pread", fd, false);
    return some < 0 ? -1 : __real_pread(fd, data, (size_t)some, at);
}

ssize_t __real_write(int fd, const void *data, size_t n);
ssize_t __wrap_write(int fd, const void *data, size_t n);
ssize_t __wrap_write(int fd, const void *data, size_t n) {
    ssize_t some = some_of(n, "write", fd, true);
    return some < 0 ? -1 : __real_write(fd, data, (size_t)some);
}

ssize_t __real_pwrite(int fd, const void *data, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t at) {
    ssize_t some = some_of(n, "pwrite", fd, true);
    return some < 0 ? -1 : __real_pwrite(fd, data, (size_t)some, at);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd) {
    return hit(ANY_ERROR | 1 << FAULT_EINTR, "fsync", fd, NULL) ? -1 : __real_fsync(fd);
}

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd) {
    return hit(ANY_ERROR | 1 << FAULT_EINTR, "fdatasync", fd, NULL) ? -1 : __real_fdatasync(fd);
}

int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size) {
    bool failed = hit(ANY_ERROR | 1 << FAULT_EINTR, "ftruncate", fd, NULL);
    return failed ? -1 : __real_ftruncate(fd, size);
}

int __real_fallocate(int fd, int how, off_t at, off_t n);
int __wrap_fallocate(int fd, int how, off_t at, off_t n);
int __wrap_fallocate(int fd, int how, off_t at, off_t n) {
    bool failed = hit(ANY_ERROR | 1 << FAULT_EINTR, "fallocate", fd, NULL);
    return failed ? -1 : __real_fallocate(fd, how, at, n);
}

int __real_posix_fallocate(int fd, off_t at, off_t n);
int __wrap_posix_fallocate(int fd, off_t at, off_t n);
int __wrap_posix_fallocate(int fd, off_t at, off_t n) {
    bool failed = hit(ANY_ERROR | 1 << FAULT_EINTR, "posix_fallocate", fd, NULL);
    return failed ? errno : __real_posix_fallocate(fd, at, n);
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to) {
    return hit(ANY_ERROR, "rename", -1, to) ? -1 : __real_rename(from, to);
}

/* The file is closed in any case, as Linux has it. */
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd) {
    bool failed = hit(1 << FAULT_EIO | 1 << FAULT_EINTR, "close", fd, NULL);
    int error = errno, result = __real_close(fd);
    if (failed) errno = error;
    return failed ? -1 : result;
}
