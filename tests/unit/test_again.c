/* Calls on files that a signal ends, that do half of what they should, or fail: made again, gone on
 * with, taken back. And what is synced before what. */
#include "base/whole_file.h"
#include "cli/folder.h"
#include "export/gguf_edit.h"
#include "export/gguf_write.h"
#include "store.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- the calls, which this program has in place of the library's ---- */

static struct {
    bool interrupts; /* each call once, then it is made */
    bool interrupted;
    int short_writes;  /* the next ones write half of what they are given, */
    int failing_write; /* and the one after so many fails; -1: none does */
    char order[64];    /* t: a file was cut or extended, w: written, d: synced, s: fsync */
    size_t n;
} calls = {.failing_write = -1};

static bool ends_early(char what) {
    if (calls.interrupts && !calls.interrupted) {
        calls.interrupted = true;
        errno = EINTR;
        return true;
    }
    calls.interrupted = false;
    if (calls.n + 1 < sizeof calls.order) calls.order[calls.n++] = what;
    return false;
}

static void calls_are_usual(void) {
    memset(&calls, 0, sizeof calls);
    calls.failing_write = -1;
}

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, int) : 0;
    va_end(args);
    return ends_early('o') ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int fsync(int fd) {
    return ends_early('s') ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    return ends_early('d') ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int ftruncate(int fd, off_t size) {
    return ends_early('t') ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int fallocate(int fd, int mode, off_t at, off_t n) {
    return ends_early('f') ? -1 : (int)syscall(SYS_fallocate, fd, mode, at, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    if (ends_early('w')) return -1;
    if (calls.failing_write == 0) {
        calls.failing_write = -1;
        errno = EIO;
        return -1;
    }
    if (calls.failing_write > 0) calls.failing_write--;
    if (calls.short_writes > 0 && n > 1) {
        calls.short_writes--;
        n /= 2;
    }
    return syscall(SYS_pwrite64, fd, data, n, at);
}

/* ---- files ---- */

static const char *place(const char *name) {
    static char path[2][256];
    static int next;
    next = !next;
    snprintf(path[next], sizeof path[next], "/tmp/cca_test_again_%d_%s", (int)getpid(), name);
    return path[next];
}

static size_t read_file(char *out, size_t size, const char *path) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t n = fread(out, 1, size, file);
    fclose(file);
    return n;
}

static void a_whole_file_is_made_through_interrupts(void **state) {
    (void)state;
    char text[16] = "";
    cca_whole_file f;
    cca_error err;
    const char *path = place("whole");
    calls_are_usual();
    calls.interrupts = true;
    calls.short_writes = 2;
    assert_int_equal(cca_whole_open(&f, path, &err), CCA_OK);
    assert_int_equal(cca_whole_begin(&f, 8, &err), CCA_OK);
    assert_int_equal(cca_whole_write(&f, 0, "12345678", 8, &err), CCA_OK);
    assert_int_equal(cca_whole_sync(&f, &err), CCA_OK);
    assert_int_equal(cca_whole_commit(&f, &err), CCA_OK);
    cca_whole_close(&f);
    assert_string_equal(calls.order, "oftwwwsos"); /* the last two: its folder */
    calls_are_usual();
    assert_int_equal(read_file(text, sizeof text, path), 8);
    assert_string_equal(text, "12345678");
    unlink(path);
}

/* ---- sessions ---- */

static cca_status add_point(cca_store *store, int64_t first, cca_error *err) {
    int32_t ids[4] = {1, 2, 3, 4};
    cca_status status = cca_store_begin(store, CCA_STORE_TOKENS, first, 4, sizeof ids, err);
    if (!status) status = cca_store_write(store, ids, sizeof ids, err);
    if (!status) status = cca_store_begin(store, CCA_STORE_WINDOW, first, 4, 5, err);
    if (!status) status = cca_store_write(store, "12345", 5, err);
    return status ? status : cca_store_commit(store, err);
}

static const char *make_session(void) {
    const char *path = place("s.ccas");
    cca_store *store;
    cca_error err;
    calls_are_usual();
    assert_int_equal(cca_store_create(&store, path, "model=a\n", &err), CCA_OK);
    assert_int_equal(add_point(store, 0, &err), CCA_OK);
    cca_store_close(store);
    return path;
}

static void a_session_is_written_through_interrupts(void **state) {
    (void)state;
    const char *path = make_session();
    cca_store *store;
    cca_error err;
    calls.interrupts = true;
    calls.short_writes = 3;
    assert_int_equal(cca_store_open(&store, path, true, &err), CCA_OK);
    assert_int_equal(add_point(store, 4, &err), CCA_OK);
    assert_int_equal(cca_store_drop(store, 0, &err), CCA_OK);
    cca_store_close(store);
    assert_int_equal(cca_store_open(&store, path, false, &err), CCA_OK);
    assert_int_equal(cca_store_n_points(store), 1);
    assert_int_equal(cca_store_point_at(store, 0).pos, 8);
    cca_store_close(store);
    calls_are_usual();
    assert_int_equal(cca_store_remove(path, &err), CCA_OK);
}

/* What is cut off is gone from the disk before the file is written to. */
static void an_unfinished_tail_is_gone_first(void **state) {
    (void)state;
    const char *path = make_session();
    cca_store *store;
    cca_error err;
    assert_int_equal(cca_store_open(&store, path, true, &err), CCA_OK);
    assert_null(strchr(calls.order + calls.n - 1, 'd')); /* nothing to cut off */
    cca_store_close(store);
    FILE *file = fopen(path, "ab");
    assert_non_null(file);
    for (int i = 0; i < 100; i++) fputc(0, file);
    assert_int_equal(fclose(file), 0);
    calls_are_usual();
    assert_int_equal(cca_store_open(&store, path, true, &err), CCA_OK);
    assert_int_equal(cca_store_torn_bytes(store), 100);
    cca_store_close(store);
    assert_string_equal(calls.order, "otd");
    unlink(path);
}

/* So is what a commit had written that failed: the third write is a header. */
static void a_failed_commit_is_gone_first(void **state) {
    (void)state;
    const char *path = make_session();
    cca_store *store;
    cca_error err;
    assert_int_equal(cca_store_open(&store, path, true, &err), CCA_OK);
    calls_are_usual();
    calls.failing_write = 3;
    assert_int_equal(add_point(store, 4, &err), CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, path));
    assert_string_equal(calls.order,
                        "wwtwdwtd"); /* bytes; header; the first header fails; taken back */
    assert_int_equal(add_point(store, 4, &err), CCA_OK);
    cca_store_close(store);
    assert_int_equal(cca_store_open(&store, path, false, &err), CCA_OK);
    assert_int_equal(cca_store_n_points(store), 2);
    cca_store_close(store);
    unlink(path);
}

/* ---- keys of a model ---- */

static const char *make_model(void) {
    const char *path = place("m.gguf");
    float values[8] = {0};
    uint32_t crc = 0;
    cca_error err;
    cca_gguf_writer *w;
    calls_are_usual();
    assert_int_equal(cca_gguf_writer_new(&w, path, &err), CCA_OK);
    cca_gguf_put_u32(w, "cca.group_size", 16);
    cca_gguf_put_u32(w, "cca.window_size", 64);
    cca_gguf_put_u32(w, "cca.sinks", 16);
    cca_gguf_put_u32(w, "cca.recall", 32);
    cca_gguf_put_bool(w, "cca.cores", false);
    cca_gguf_put_tensor(w, "a", 1, (int64_t[]){8}, CCA_F32, sizeof values);
    assert_int_equal(cca_gguf_writer_begin(w, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_write(w, 0, 0, values, sizeof values, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_finish(w, &crc, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_commit(w, &err), CCA_OK);
    cca_gguf_writer_free(w);
    return path;
}

static void keys_are_set_by_short_writes(void **state) {
    (void)state;
    const cca_gguf_attention a = {8, 32, 8, 16, true};
    const char *path = make_model();
    char before[4096], after[4096];
    cca_error err;
    size_t n = read_file(before, sizeof before, path);
    calls_are_usual();
    calls.short_writes = 1;
    assert_int_equal(cca_gguf_set_attention(path, &a, &err), CCA_OK);
    assert_int_equal(calls.short_writes, 0);
    assert_null(strchr(calls.order, 't')); /* in place */
    assert_int_equal(read_file(after, sizeof after, path), n);
    uint8_t *group = memmem(after, n, "cca.group_size", 14),
            *recall = memmem(after, n, "cca.recall", 10);
    assert_non_null(group);
    assert_non_null(recall);
    assert_int_equal(group[14 + 4], 8);
    assert_int_equal(recall[10 + 4], 16);
    unlink(path);
}

/* The disk fails behind the first half of the sector: it gets what it had. */
static void keys_stay_as_they_were(void **state) {
    (void)state;
    const cca_gguf_attention a = {8, 32, 8, 16, true};
    const char *path = make_model();
    char before[4096], after[4096];
    cca_error err;
    size_t n = read_file(before, sizeof before, path);
    calls.short_writes = 1;
    calls.failing_write = 1;
    assert_int_equal(cca_gguf_set_attention(path, &a, &err), CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(calls.failing_write, -1);
    assert_int_equal(read_file(after, sizeof after, path), n);
    assert_memory_equal(before, after, n);
    unlink(path);
}

/* ---- folders ---- */

/* Each folder above a new one is synced, those that were there are not. */
static void new_folders_are_synced(void **state) {
    (void)state;
    char path[256], inner[300];
    snprintf(path, sizeof path, "%s", place("folder"));
    snprintf(inner, sizeof inner, "%s/a/b", path);
    calls_are_usual();
    assert_true(folder_make(inner));
    assert_string_equal(calls.order, "ososos");
    calls_are_usual();
    assert_true(folder_make(inner));
    assert_string_equal(calls.order, "");
    rmdir(inner);
    *strrchr(inner, '/') = '\0';
    rmdir(inner);
    rmdir(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_file_is_made_through_interrupts),
        cmocka_unit_test(a_session_is_written_through_interrupts),
        cmocka_unit_test(an_unfinished_tail_is_gone_first),
        cmocka_unit_test(a_failed_commit_is_gone_first),
        cmocka_unit_test(keys_are_set_by_short_writes),
        cmocka_unit_test(keys_stay_as_they_were),
        cmocka_unit_test(new_folders_are_synced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
