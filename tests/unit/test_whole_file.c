/* Files that take their name when they are whole: what is there before, between and after. */
#include "base/whole_file.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct folder {
    char path[32], file[64], link[64];
} folder;

static folder make(void) {
    folder f = {.path = "/tmp/cca-whole-XXXXXX"};
    assert_non_null(mkdtemp(f.path));
    snprintf(f.file, sizeof f.file, "%s/file", f.path);
    snprintf(f.link, sizeof f.link, "%s/link", f.path);
    return f;
}

static void done(const folder *f) {
    unlink(f->file);
    unlink(f->link);
    assert_int_equal(rmdir(f->path), 0); /* nothing else is left */
}

static void put(const char *path, const char *text) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void expect(const char *path, const char *text) {
    char found[64] = "";
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    found[fread(found, 1, sizeof found - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(found, text);
}

static int count(const folder *f) {
    DIR *dir = opendir(f->path);
    int n = 0;
    assert_non_null(dir);
    while (readdir(dir)) n++;
    closedir(dir);
    return n - 2; /* . and .. */
}

static void begin(cca_whole_file *w, const char *path, uint64_t size) {
    cca_error err;
    assert_int_equal(cca_whole_open(w, path, &err), CCA_OK);
    assert_int_equal(cca_whole_begin(w, size, &err), CCA_OK);
}

static void appears_with_commit(void **state) {
    (void)state;
    folder f = make();
    cca_whole_file w;
    cca_error err;
    begin(&w, f.file, 6);
    assert_int_equal(cca_whole_write(&w, 3, "def", 3, &err), CCA_OK);
    assert_int_equal(cca_whole_write(&w, 0, "abc", 3, &err), CCA_OK);
    assert_int_equal(cca_whole_sync(&w, &err), CCA_OK);
    assert_int_equal(access(f.file, F_OK), -1);
    expect(w.temporary, "abcdef");
    assert_int_equal(cca_whole_commit(&w, &err), CCA_OK);
    assert_null(w.temporary);
    assert_int_equal(cca_whole_write(&w, 6, "ghi", 3, &err), CCA_OK); /* it is still open */
    cca_whole_close(&w);
    cca_whole_close(&w);
    expect(f.file, "abcdefghi");
    assert_int_equal(count(&f), 1);
    done(&f);
}

static void without_commit_nothing_remains(void **state) {
    (void)state;
    folder f = make();
    cca_whole_file w, other;
    cca_error err;
    put(f.file, "old");
    begin(&w, f.file, 0);
    begin(&other, f.file, 0); /* two at a time have two names */
    assert_int_equal(count(&f), 3);
    assert_int_equal(cca_whole_write(&w, 0, "new", 3, &err), CCA_OK);
    cca_whole_close(&w);
    cca_whole_close(&other);
    expect(f.file, "old");
    assert_int_equal(count(&f), 1);
    done(&f);
}

static void a_link_stays_one(void **state) {
    (void)state;
    folder f = make();
    cca_whole_file w;
    cca_error err;
    struct stat st;
    put(f.file, "old");
    assert_int_equal(symlink("file", f.link), 0);
    begin(&w, f.link, 0);
    assert_int_equal(cca_whole_write(&w, 0, "new", 3, &err), CCA_OK);
    assert_int_equal(cca_whole_commit(&w, &err), CCA_OK);
    cca_whole_close(&w);
    expect(f.file, "new");
    assert_int_equal(lstat(f.link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    done(&f);
}

static void a_link_to_nothing_yet(void **state) {
    (void)state;
    folder f = make();
    char ring[80];
    cca_whole_file w;
    cca_error err;
    struct stat st;
    assert_int_equal(symlink(f.file, f.link), 0);
    begin(&w, f.link, 0);
    assert_string_equal(w.path, f.file);
    assert_int_equal(cca_whole_write(&w, 0, "new", 3, &err), CCA_OK);
    assert_int_equal(cca_whole_commit(&w, &err), CCA_OK);
    cca_whole_close(&w);
    expect(f.file, "new");
    assert_int_equal(lstat(f.link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    snprintf(ring, sizeof ring, "%s/ring", f.path);
    assert_int_equal(symlink("ring", ring), 0);
    assert_int_equal(cca_whole_open(&w, ring, &err), CCA_BAD_OUTPUT);
    cca_whole_close(&w);
    unlink(ring);
    done(&f);
}

/* What a killed process left goes; what another one is writing stays, and may keep others out. */
static void leftovers(void **state) {
    (void)state;
    folder f = make();
    char left[80];
    cca_whole_file w, other;
    cca_error err;
    snprintf(left, sizeof left, "%s.0.tmp", f.file);
    put(left, "left by a killed process");
    begin(&w, f.file, 0);
    assert_int_equal(count(&f), 1);
    expect(left, "");
    assert_false(cca_whole_remove_leftover(left));
    assert_int_equal(cca_whole_open(&other, f.file, &err), CCA_OK);
    other.alone = true;
    assert_int_equal(cca_whole_begin(&other, 0, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "another process is writing this file"));
    cca_whole_close(&other);
    assert_int_equal(count(&f), 1);
    cca_whole_close(&w);
    assert_int_equal(count(&f), 0);
    put(left, "");
    assert_true(cca_whole_remove_leftover(left));
    assert_true(cca_whole_remove_leftover(left)); /* gone */
    for (int i = 0; i < 3; i++) {                 /* of three at once */
        snprintf(left, sizeof left, "%s.%d.tmp", f.file, i);
        put(left, "");
    }
    begin(&w, f.file, 0);
    assert_int_equal(count(&f), 1);
    cca_whole_close(&w);
    done(&f);
}

static void permissions(void **state) {
    (void)state;
    mode_t mask = umask(022);
    for (int owner_only = 0; owner_only < 2; owner_only++) {
        folder f = make();
        cca_whole_file w;
        cca_error err;
        struct stat st;
        assert_int_equal(cca_whole_open(&w, f.file, &err), CCA_OK);
        w.owner_only = owner_only;
        assert_int_equal(cca_whole_begin(&w, 0, &err), CCA_OK);
        assert_int_equal(fstat(w.fd, &st), 0);
        assert_int_equal(st.st_mode & 0777, owner_only ? 0600 : 0644);
        cca_whole_close(&w);
        done(&f);
    }
    umask(mask);
}

/* What is replaced keeps its permissions, and its owner and group where that is allowed. */
static void a_replaced_file_keeps_what_is_its_own(void **state) {
    (void)state;
    static const mode_t modes[] = {0600, 0640, 0664, 0646, 0755, 0200};
    mode_t mask = umask(022);
    folder f = make();
    for (size_t i = 0; i < 2 * sizeof modes / sizeof *modes; i++) {
        cca_whole_file w;
        cca_error err;
        struct stat st;
        mode_t mode = modes[i / 2];
        put(f.file, "old");
        assert_int_equal(chmod(f.file, mode), 0);
        if (geteuid() == 0) assert_int_equal(chown(f.file, 1234, 2345), 0);
        assert_int_equal(cca_whole_open(&w, f.file, &err), CCA_OK);
        w.owner_only = i % 2;
        assert_int_equal(cca_whole_begin(&w, 0, &err), CCA_OK);
        assert_int_equal(fstat(w.fd, &st), 0);
        assert_int_equal(st.st_mode & 0777, mode); /* already while it is made */
        assert_int_equal(cca_whole_commit(&w, &err), CCA_OK);
        cca_whole_close(&w);
        assert_int_equal(stat(f.file, &st), 0);
        assert_int_equal(st.st_size, 0);
        assert_int_equal(st.st_mode & 07777, mode);
        if (geteuid() == 0) assert_true(st.st_uid == 1234 && st.st_gid == 2345);
        unlink(f.file);
    }
    umask(mask);
    done(&f);
}

static void a_read_only_file_is_not_replaced(void **state) {
    (void)state;
    folder f = make();
    cca_whole_file w;
    cca_error err;
    put(f.file, "old");
    begin(&w, f.file, 0);
    assert_int_equal(chmod(f.file, 0444), 0);
    assert_int_equal(cca_whole_commit(&w, &err), CCA_OK); /* it was allowed when it began */
    cca_whole_close(&w);
    put(f.file, "old");
    assert_int_equal(chmod(f.file, 0444), 0);
    assert_int_equal(cca_whole_check(f.file, &err), CCA_BAD_OUTPUT);
    assert_int_equal(cca_whole_open(&w, f.file, &err), CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, "/file: is read-only"));
    cca_whole_close(&w);
    w = (cca_whole_file){.path = strdup(f.file), .fd = -1};
    assert_int_equal(cca_whole_begin(&w, 0, &err), CCA_BAD_OUTPUT);
    cca_whole_close(&w);
    expect(f.file, "old");
    assert_int_equal(count(&f), 1);
    done(&f);
}

static void abandoned_files_are_gone(void **state) {
    (void)state;
    folder f = make();
    cca_whole_file w, other;
    char odd[96], like[96], notes[96];
    snprintf(like, sizeof like, "%s.3.tmp", f.file); /* a name of theirs, but open to be read */
    snprintf(odd, sizeof odd, "%s.7.tmp", f.file);   /* as if it were one */
    put(like, "of somebody else");
    FILE *open_like = fopen(like, "rb");
    snprintf(notes, sizeof notes, "%s.x.tmp", f.file); /* to be written, but another's name */
    put(notes, "notes");
    FILE *open_notes = fopen(notes, "r+b");
    begin(&w, f.file, 0);
    begin(&other, odd, 0);
    assert_int_equal(count(&f), 4);
    cca_whole_abandon();
    assert_int_equal(count(&f), 2);
    expect(like, "of somebody else");
    expect(notes, "notes");
    fclose(open_like);
    fclose(open_notes);
    unlink(like);
    unlink(notes);
    cca_whole_close(&w);
    cca_whole_close(&other);
    done(&f);
}

static void failures_name_the_file(void **state) {
    (void)state;
    folder f = make();
    cca_whole_file w;
    cca_error err;
    assert_int_equal(cca_whole_open(&w, f.path, &err), CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, "cca-whole-"));
    assert_non_null(strstr(err.text, "is a folder"));
    cca_whole_close(&w);
    assert_int_equal(cca_whole_open(&w, "/dev/null", &err), CCA_BAD_OUTPUT);
    assert_string_equal(err.text, "/dev/null: is not a regular file");
    cca_whole_close(&w);
    assert_int_equal(cca_whole_open(&w, "/none/file", &err), CCA_OK);
    assert_int_equal(cca_whole_begin(&w, 0, &err), CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, "/none/file: cannot create"));
    cca_whole_close(&w);

    /* A commit that fails may be tried again. */
    begin(&w, f.file, 0);
    assert_int_equal(mkdir(f.file, 0700), 0);
    assert_int_equal(cca_whole_commit(&w, &err), CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, "cannot give the finished file its name"));
    assert_int_equal(rmdir(f.file), 0);
    assert_int_equal(cca_whole_commit(&w, &err), CCA_OK);
    cca_whole_close(&w);
    expect(f.file, "");
    done(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appears_with_commit),
        cmocka_unit_test(without_commit_nothing_remains),
        cmocka_unit_test(a_link_stays_one),
        cmocka_unit_test(permissions),
        cmocka_unit_test(a_replaced_file_keeps_what_is_its_own),
        cmocka_unit_test(a_read_only_file_is_not_replaced),
        cmocka_unit_test(abandoned_files_are_gone),
        cmocka_unit_test(failures_name_the_file),
        cmocka_unit_test(a_link_to_nothing_yet),
        cmocka_unit_test(leftovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
