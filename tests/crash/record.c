#include "tests/crash/record.h"

#include "base/whole_file.h"
#include "export/gguf_edit.h"
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_NAME = 4096 };

static struct {
    char folder[MOST_NAME];
    size_t n_folder;
    int fd; /* of the log; 0: nothing is recorded */
    pthread_mutex_t lock;
} to = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* As it stands in the log, before a, b and the data. */
typedef struct entry {
    uint32_t kind, n_a, n_b;
    uint64_t inode, at, n;
} entry;

int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *data, size_t n);

bool record_begin(const char *folder, const char *log) {
    to.n_folder = (size_t)snprintf(to.folder, sizeof to.folder, "%s/", folder);
    to.fd = __real_open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    return to.fd > 0;
}

void record_end(void) {
    if (to.fd > 0) close(to.fd);
    to.fd = 0;
}

static void put(op o) {
    static const char none[] = "";
    int error = errno;
    const char *a = o.a ? o.a : none, *b = o.b ? o.b : none;
    entry e = {o.kind, (uint32_t)strlen(a) + 1, (uint32_t)strlen(b) + 1, o.inode, o.at, o.n};
    size_t n_data = o.kind == OP_WRITE ? o.n : 0;
    pthread_mutex_lock(&to.lock);
    bool done = __real_write(to.fd, &e, sizeof e) == (ssize_t)sizeof e &&
                __real_write(to.fd, a, e.n_a) == (ssize_t)e.n_a &&
                __real_write(to.fd, b, e.n_b) == (ssize_t)e.n_b &&
                (n_data == 0 || __real_write(to.fd, o.data, n_data) == (ssize_t)n_data);
    pthread_mutex_unlock(&to.lock);
    if (!done) abort();
    errno = error;
}

/* The name within the folder; NULL for what lies elsewhere. */
static const char *inside(const char *path) {
    if (to.fd == 0 || !path) return NULL;
    if (strncmp(path, to.folder, to.n_folder) == 0) return path + to.n_folder;
    bool itself = strlen(path) == to.n_folder - 1 && strncmp(path, to.folder, to.n_folder - 1) == 0;
    return itself ? "" : NULL;
}

/* Of a file that is open; *name has room for MOST_NAME. */
static const char *inside_fd(int fd, char *name, struct stat *st) {
    char link[64];
    if (to.fd == 0 || fd == to.fd || fstat(fd, st) != 0) return NULL;
    if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode)) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, name, MOST_NAME - 1);
    if (n <= 0) return NULL;
    name[n] = '\0';
    return inside(name);
}

static void put_fd(op_kind kind, int fd, uint64_t at, uint64_t n, const void *data) {
    char name[MOST_NAME];
    struct stat st;
    if (!inside_fd(fd, name, &st)) return;
    put((op){.kind = kind, .inode = st.st_ino, .at = at, .n = n, .data = data});
}

/* ---- calls ---- */

int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    const char *name = inside(path);
    struct stat st;
    bool nameless = (flags & O_TMPFILE) == O_TMPFILE;
    bool is_new = name && (flags & O_CREAT) && access(path, F_OK) != 0;
    int fd = __real_open(path, flags, mode);
    if (!name || fd < 0 || fstat(fd, &st) != 0) return fd;
    if (nameless) put((op){.kind = OP_FORGET, .inode = st.st_ino});
    if (is_new) put((op){.kind = OP_CREATE, .inode = st.st_ino, .a = name});
    if (flags & O_TRUNC) put((op){.kind = OP_SIZE, .inode = st.st_ino});
    return fd;
}

ssize_t __real_pwrite(int fd, const void *data, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t at) {
    ssize_t done = __real_pwrite(fd, data, n, at);
    if (done > 0) put_fd(OP_WRITE, fd, (uint64_t)at, (uint64_t)done, data);
    return done;
}

ssize_t __wrap_write(int fd, const void *data, size_t n);
ssize_t __wrap_write(int fd, const void *data, size_t n) {
    off_t at = to.fd > 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t done = __real_write(fd, data, n);
    if (done > 0 && at >= 0) put_fd(OP_WRITE, fd, (uint64_t)at, (uint64_t)done, data);
    return done;
}

int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size) {
    int result = __real_ftruncate(fd, size);
    if (result == 0) put_fd(OP_SIZE, fd, (uint64_t)size, 0, NULL);
    return result;
}

int __real_fallocate(int fd, int mode, off_t at, off_t n);
int __wrap_fallocate(int fd, int mode, off_t at, off_t n);
int __wrap_fallocate(int fd, int mode, off_t at, off_t n) {
    int result = __real_fallocate(fd, mode, at, n);
    if (result != 0) return result;
    if (mode == 0) put_fd(OP_EXTEND, fd, (uint64_t)(at + n), 0, NULL);
    if (mode & FALLOC_FL_PUNCH_HOLE) put_fd(OP_PUNCH, fd, (uint64_t)at, (uint64_t)n, NULL);
    return result;
}

int __real_rename(const char *from, const char *path);
int __wrap_rename(const char *from, const char *path);
int __wrap_rename(const char *from, const char *path) {
    int result = __real_rename(from, path);
    if (result == 0 && inside(from) && inside(path)) {
        put((op){.kind = OP_RENAME, .a = inside(from), .b = inside(path)});
    }
    return result;
}

int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path) {
    int result = __real_unlink(path);
    if (result == 0 && inside(path)) put((op){.kind = OP_UNLINK, .a = inside(path)});
    return result;
}

int __real_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode) {
    int result = __real_mkdir(path, mode);
    if (result == 0 && inside(path)) put((op){.kind = OP_MKDIR, .a = inside(path)});
    return result;
}

static void put_sync(int fd) {
    char path[MOST_NAME];
    struct stat st;
    const char *name = inside_fd(fd, path, &st);
    if (!name) return;
    op_kind kind = S_ISDIR(st.st_mode) ? OP_SYNC_FOLDER : OP_SYNC;
    put((op){.kind = kind, .inode = st.st_ino, .a = name});
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd) {
    int result = __real_fsync(fd);
    if (result == 0) put_sync(fd);
    return result;
}

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd) {
    int result = __real_fdatasync(fd);
    if (result == 0) put_sync(fd);
    return result;
}

/* ---- promises ---- */

static void put_promise(op_kind kind, const char *path) {
    if (inside(path)) put((op){.kind = kind, .a = inside(path)});
}

static cca_status kept(const char *path, cca_status status) {
    put_promise(status ? OP_FAIL : OP_CLAIM, path);
    return status;
}

cca_status __real_cca_store_commit(cca_store *store, cca_error *err);
cca_status __wrap_cca_store_commit(cca_store *store, cca_error *err);
cca_status __wrap_cca_store_commit(cca_store *store, cca_error *err) {
    put_promise(OP_BEGIN, cca_store_path(store));
    return kept(cca_store_path(store), __real_cca_store_commit(store, err));
}

cca_status __real_cca_store_cut(cca_store *store, size_t n, cca_error *err);
cca_status __wrap_cca_store_cut(cca_store *store, size_t n, cca_error *err);
cca_status __wrap_cca_store_cut(cca_store *store, size_t n, cca_error *err) {
    put_promise(OP_BEGIN, cca_store_path(store));
    return kept(cca_store_path(store), __real_cca_store_cut(store, n, err));
}

cca_status __real_cca_store_drop(cca_store *store, size_t point, cca_error *err);
cca_status __wrap_cca_store_drop(cca_store *store, size_t point, cca_error *err);
cca_status __wrap_cca_store_drop(cca_store *store, size_t point, cca_error *err) {
    put_promise(OP_BEGIN, cca_store_path(store));
    return kept(cca_store_path(store), __real_cca_store_drop(store, point, err));
}

cca_status __real_cca_store_remove(const char *path, cca_error *err);
cca_status __wrap_cca_store_remove(const char *path, cca_error *err);
cca_status __wrap_cca_store_remove(const char *path, cca_error *err) {
    put_promise(OP_BEGIN, path);
    return kept(path, __real_cca_store_remove(path, err));
}

cca_status __real_cca_whole_commit(cca_whole_file *f, cca_error *err);
cca_status __wrap_cca_whole_commit(cca_whole_file *f, cca_error *err);
cca_status __wrap_cca_whole_commit(cca_whole_file *f, cca_error *err) {
    put_promise(OP_BEGIN, f->path);
    return kept(f->path, __real_cca_whole_commit(f, err));
}

cca_status __real_cca_gguf_set_attention(const char *path, const cca_gguf_attention *a,
                                         cca_error *err);
cca_status __wrap_cca_gguf_set_attention(const char *path, const cca_gguf_attention *a,
                                         cca_error *err);
cca_status __wrap_cca_gguf_set_attention(const char *path, const cca_gguf_attention *a,
                                         cca_error *err) {
    put_promise(OP_BEGIN, path);
    return kept(path, __real_cca_gguf_set_attention(path, a, err));
}

/* ---- the log ---- */

static uint8_t *read_file(size_t *size, const char *path) {
    FILE *file = fopen(path, "rb");
    struct stat st;
    uint8_t *bytes = NULL;
    if (file && fstat(fileno(file), &st) == 0 && (bytes = malloc((size_t)st.st_size + 1))) {
        *size = fread(bytes, 1, (size_t)st.st_size, file);
    }
    if (file) fclose(file);
    return bytes;
}

bool record_read(record_log *out, const char *log) {
    size_t size = 0, capacity = 0;
    *out = (record_log){.bytes = read_file(&size, log)};
    for (size_t at = 0; out->bytes && at < size;) {
        entry e;
        memcpy(&e, out->bytes + at, sizeof e);
        const char *a = (const char *)out->bytes + at + sizeof e, *b = a + e.n_a;
        if (out->n == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            op *grown = realloc(out->ops, capacity * sizeof *grown);
            if (!grown) return false;
            out->ops = grown;
        }
        out->ops[out->n++] = (op){e.kind, e.inode, e.at, e.n, a, b, (const uint8_t *)b + e.n_b};
        at += sizeof e + e.n_a + e.n_b + (e.kind == OP_WRITE ? e.n : 0);
    }
    return out->bytes;
}

void record_free(record_log *log) {
    free(log->ops);
    free(log->bytes);
    *log = (record_log){0};
}

const char *record_kind(op_kind kind) {
    static const char *const names[] = {"create",      "forget", "write",  "size",  "extend",
                                        "punch",       "rename", "unlink", "mkdir", "sync",
                                        "sync folder", "begin",  "claim",  "fail"};
    return names[kind];
}
