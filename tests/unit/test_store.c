/* The session file: what is written is read back; what is torn is cut off; what is damaged is
 * refused; what is in use is left alone. */
#include "store.h"

#include "test.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char facts[] = "model=00112233\ngroup_size=16\n";
static char folder[] = "/tmp/cca-test-store-XXXXXX", path[64];
static cca_error err;

enum { STEP = 100, WINDOW = 30, ROW = 12 }; /* tokens, rows and bytes of a test's checkpoint */

static unsigned char byte_of(int64_t kind, int64_t first, uint64_t i) {
    return (unsigned char)((uint64_t)(kind * 31 + first * 7) + i * 13 + i / 251);
}

static void put(cca_store *s, cca_store_kind kind, int64_t first, int64_t n, uint64_t bytes) {
    assert_int_equal(cca_store_begin(s, kind, first, n, bytes, &err), CCA_OK);
    for (uint64_t i = 0; i < bytes; i++) {
        unsigned char c = byte_of(kind, first, i);
        assert_int_equal(cca_store_write(s, &c, 1, &err), CCA_OK);
    }
}

/* Tokens STEP * k …, as many rows, a window. */
static void put_point(cca_store *s, int64_t k) {
    put(s, CCA_STORE_TOKENS, k * STEP, STEP, STEP * sizeof(int32_t));
    put(s, CCA_STORE_ROWS, k * STEP / 4, STEP / 4, STEP / 4 * ROW);
    put(s, CCA_STORE_WINDOW, (k + 1) * STEP - WINDOW, WINDOW, WINDOW * ROW);
    assert_int_equal(cca_store_commit(s, &err), CCA_OK);
}

static void make_file(int64_t points) {
    cca_store *s;
    assert_int_equal(cca_store_create(&s, path, facts, &err), CCA_OK);
    for (int64_t k = 0; k < points; k++) put_point(s, k);
    cca_store_close(s);
}

static cca_status read_segment(cca_store *s, size_t i) {
    cca_store_segment seg = cca_store_segment_at(s, i);
    unsigned char data[STEP * 4];
    cca_status status = cca_store_read_begin(s, i, &err);
    size_t half = (size_t)seg.bytes / 2;
    if (!status) status = cca_store_read(s, data, half, &err);
    if (!status) status = cca_store_read(s, data + half, (size_t)seg.bytes - half, &err);
    for (uint64_t b = 0; !status && b < seg.bytes; b++) {
        assert_int_equal(data[b], byte_of(seg.kind, seg.first, b));
    }
    return status;
}

/* Opens the file and reads everything; the number of checkpoints, or the failure below zero. */
static int read_file(void) {
    cca_store *s;
    cca_status status = cca_store_open(&s, path, false, &err);
    if (status) return -(int)status;
    assert_string_equal(cca_store_facts(s), facts);
    for (size_t i = 0; i < cca_store_n_segments(s) && !status; i++) status = read_segment(s, i);
    int n = (int)cca_store_n_points(s);
    for (int i = 0; i < n; i++) {
        cca_store_point p = cca_store_point_at(s, (size_t)i);
        assert_int_equal(p.pos, (i + 1) * STEP);
        assert_int_equal(p.n_segments, (i + 1) * 3);
    }
    cca_store_close(s);
    return status ? -(int)status : n;
}

static size_t load(unsigned char *out, size_t size) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(out, 1, size, f);
    fclose(f);
    return n;
}

static void save(const unsigned char *data, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void test_round_trip(void **state) {
    (void)state;
    cca_store *s;
    int64_t n;
    make_file(3);
    assert_int_equal(read_file(), 3);
    assert_int_equal(cca_store_open(&s, path, true, &err), CCA_OK);
    const int32_t *ids = cca_store_tokens(s, &n);
    assert_int_equal(n, 3 * STEP);
    for (int64_t i = 0; i < n * 4; i++) {
        assert_int_equal(((const unsigned char *)ids)[i],
                         byte_of(CCA_STORE_TOKENS, i / 400 * STEP, (uint64_t)i % 400));
    }
    put_point(s, 3);
    cca_store_close(s);
    assert_int_equal(read_file(), 4);
}

/* A new file is not there before its first commit, nor after one that never came. */
static void test_first_commit(void **state) {
    (void)state;
    cca_store *s;
    unlink(path);
    assert_int_equal(cca_store_create(&s, path, facts, &err), CCA_OK);
    put(s, CCA_STORE_TOKENS, 0, STEP, STEP * sizeof(int32_t));
    assert_int_not_equal(access(path, F_OK), 0);
    cca_store_close(s);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(rmdir(folder), 0); /* nothing is left behind */
    assert_int_equal(mkdir(folder, 0700), 0);
}

/* Cut anywhere, a file is what it was at an earlier commit, or no session file. */
static void test_torn(void **state) {
    (void)state;
    unsigned char data[16384];
    make_file(2);
    size_t size = load(data, sizeof data);
    cca_store *s;
    assert_int_equal(cca_store_open(&s, path, false, &err), CCA_OK);
    uint64_t first = cca_store_point_at(s, 0).bytes;
    cca_store_close(s);
    for (size_t n = 0; n < size; n += n < 200 ? 1 : 37) {
        save(data, n);
        int points = read_file();
        if (n < 16 + sizeof facts - 1) {
            assert_int_equal(points, -CCA_BAD_MODEL);
        } else { /* the 24 bytes of padding behind a window may be missing */
            assert_int_equal(points, n + 24 < first ? 0 : n + 24 < size ? 1 : 2);
        }
    }
    save(data, first + 300);
    assert_int_equal(cca_store_open(&s, path, true, &err), CCA_OK);
    put_point(s, 1);
    cca_store_close(s);
    unsigned char again[16384];
    assert_int_equal(load(again, sizeof again), size);
    assert_memory_equal(again, data, size);
}

/* Each byte turned round is noticed, but for the padding. */
static void test_flipped(void **state) {
    (void)state;
    unsigned char data[8192];
    make_file(1);
    size_t size = load(data, sizeof data), unnoticed = 0;
    for (size_t i = 0; i < size; i++) {
        data[i] ^= 0x10;
        save(data, size);
        int points = read_file();
        data[i] ^= 0x10;
        if (points == 1) unnoticed++;
        assert_true(points == 1 || points == -CCA_BAD_MODEL);
    }
    /* Facts take 16 + 29 of 64 bytes, a header 40 of 64; tokens 400 of 448, rows 300 of 320 and a
     * window 360 of 384 bytes. */
    assert_int_equal(unnoticed, 64 - 16 - (sizeof facts - 1) + 3 * 24 + 48 + 20 + 24);
}

/* A header that is lost in front of others is damage, and nothing is cut off; the first one of the
 * last checkpoint is what an interrupted commit has not written yet, and behind the last one there
 * is nothing to lose. */
static void test_lost_header(void **state) {
    (void)state;
    unsigned char data[16384], after[16384];
    make_file(3);
    size_t size = load(data, sizeof data), at = 64;
    cca_store *s;
    for (int i = 0; i < 9; i++) {
        uint64_t bytes;
        unsigned char header[64];
        memcpy(header, data + at, sizeof header);
        memcpy(&bytes, header + 24, sizeof bytes);
        for (int zero = 0; zero < 2; zero++) {
            memset(data + at, zero ? 0 : 'x', zero ? sizeof header : 4);
            save(data, size);
            bool torn = zero && (i == 6 || i == 8);
            cca_status status = cca_store_open(&s, path, true, &err);
            assert_int_equal(status, torn ? CCA_OK : CCA_BAD_MODEL);
            if (!status) {
                assert_int_equal(cca_store_n_points(s), 2);
                cca_store_close(s);
            } else {
                assert_non_null(strstr(err.text, "a segment's header"));
                assert_int_equal(load(after, sizeof after), size);
                assert_memory_equal(after, data, size);
            }
            memcpy(data + at, header, sizeof header);
        }
        at = (at + 64 + (size_t)bytes + 63) / 64 * 64;
    }
    assert_int_equal(at, size);
}

/* A disk that fills up leaves the file as it was. */
static void test_full_disk(void **state) {
    (void)state;
    unsigned char before[8192], after[8192];
    make_file(1);
    size_t size = load(before, sizeof before);
    struct rlimit old, small;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    for (size_t room = 0; room < 1400; room += 137) {
        cca_store *s;
        unsigned char bytes[STEP * 4] = {0};
        assert_int_equal(cca_store_open(&s, path, true, &err), CCA_OK);
        small.rlim_cur = size + room;
        setrlimit(RLIMIT_FSIZE, &small);
        cca_status status = cca_store_begin(s, CCA_STORE_TOKENS, STEP, STEP, sizeof bytes, &err);
        if (!status) status = cca_store_write(s, bytes, sizeof bytes, &err);
        if (!status) status = cca_store_begin(s, CCA_STORE_WINDOW, STEP, STEP, sizeof bytes, &err);
        if (!status) status = cca_store_write(s, bytes, sizeof bytes, &err);
        if (!status) status = cca_store_commit(s, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        bool fits = room >= 2 * (64 + 448);
        assert_int_equal(status, fits ? CCA_OK : CCA_BAD_OUTPUT);
        int64_t n;
        cca_store_tokens(s, &n);
        assert_int_equal(n, fits ? 2 * STEP : STEP);
        cca_store_close(s);
        if (fits) break;
        assert_int_equal(load(after, sizeof after), size);
        assert_memory_equal(after, before, size);
    }
}

static void test_locks(void **state) {
    (void)state;
    cca_store *writer, *second, *reader;
    make_file(1);
    assert_int_equal(cca_store_open(&writer, path, true, &err), CCA_OK);
    assert_int_equal(cca_store_open(&second, path, true, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "another process is writing"));
    assert_int_equal(cca_store_create(&second, path, facts, &err), CCA_RUNTIME);
    assert_int_equal(cca_store_open(&reader, path, false, &err), CCA_OK);
    put_point(writer, 1); /* beside a reader */
    assert_int_equal(cca_store_drop(writer, 0, &err), CCA_OK);
    assert_int_equal(cca_store_n_points(writer), 2); /* not while somebody reads */
    cca_store_close(reader);
    assert_int_equal(cca_store_drop(writer, 0, &err), CCA_OK);
    assert_int_equal(cca_store_n_points(writer), 1);
    assert_int_equal(cca_store_point_at(writer, 0).pos, 2 * STEP);
    cca_store_close(writer);
    assert_int_equal(cca_store_open(&reader, path, false, &err), CCA_OK);
    assert_int_equal(cca_store_n_points(reader), 1);
    assert_int_equal(cca_store_point_at(reader, 0).pos, 2 * STEP);
    assert_int_equal(cca_store_segment_at(reader, 2).kind, CCA_STORE_DROPPED);
    cca_store_close(reader);
}

/* A file that has no name yet has one writer, too; what a killed one left is in nobody's way. */
/* Whoever opens the file while another process goes on with it sees checkpoints, and no damage. */
static void test_readers_beside(void **state) {
    enum { POINTS = 60 };
    (void)state;
    make_file(1);
    int status = -1, n = 1;
    pid_t writer = fork();
    if (writer == 0) {
        cca_store *s;
        for (int64_t k = 1; k < POINTS; k++) {
            if (cca_store_open(&s, path, true, &err)) _exit(1);
            put_point(s, k);
            put(s, CCA_STORE_TOKENS, (k + 1) * STEP, STEP, STEP * sizeof(int32_t));
            cca_store_close(s); /* an unfinished tail goes */
        }
        _exit(0);
    }
    assert_true(writer > 0);
    while (waitpid(writer, &status, WNOHANG) == 0) {
        int now = read_file();
        if (now < n) kill(writer, SIGKILL);
        if (now < 0) print_message("%s\n", err.text);
        assert_true(now >= n);
        n = now;
    }
    assert_int_equal(status, 0);
    assert_int_equal(read_file(), POINTS);
    unlink(path);
}

static void test_creators(void **state) {
    (void)state;
    char leftover[80], link[80];
    cca_store *first, *second;
    struct stat st;
    snprintf(leftover, sizeof leftover, "%s.0.tmp", path);
    snprintf(link, sizeof link, "%s/link", folder);
    unlink(path);
    assert_int_equal(symlink("s.ccas", link), 0); /* to what is not there yet */
    FILE *f = fopen(leftover, "wb");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(cca_store_create(&first, link, facts, &err), CCA_OK);
    assert_int_equal(cca_store_create(&second, path, facts, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "s.ccas: another process is writing this session"));
    assert_int_not_equal(access(path, F_OK), 0);
    put_point(first, 0);
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_not_equal(access(leftover, F_OK), 0);
    assert_int_equal(cca_store_create(&second, path, facts, &err), CCA_RUNTIME);
    cca_store_close(first);
    assert_int_equal(read_file(), 1);
    assert_int_equal(cca_store_create(&second, path, facts, &err), CCA_OK);
    cca_store_close(second);
    assert_int_equal(read_file(), 1);
    unlink(link);
}

/* The lock of a file that is replaced goes over to the new one. */
static void test_replace(void **state) {
    (void)state;
    cca_store *old, *s, *other;
    make_file(2);
    assert_int_equal(cca_store_open(&old, path, true, &err), CCA_OK);
    assert_int_equal(cca_store_replace(&s, old, facts, &err), CCA_OK);
    assert_int_equal(cca_store_copy(s, old, 0, &err), CCA_OK);
    cca_store_close(old);
    assert_int_equal(cca_store_open(&other, path, true, &err), CCA_RUNTIME);
    assert_int_equal(cca_store_remove(path, &err), CCA_RUNTIME);
    assert_int_equal(read_file(), 2);
    assert_int_equal(cca_store_commit(s, &err), CCA_OK);
    assert_int_equal(cca_store_open(&other, path, true, &err), CCA_RUNTIME);
    cca_store_close(s);
    assert_int_equal(read_file(), 1);
}

static void test_remove(void **state) {
    (void)state;
    unsigned char data[8192];
    make_file(1);
    size_t size = load(data, sizeof data);
    data[100] ^= 1; /* damaged, but a session file */
    save(data, size);
    assert_int_equal(cca_store_remove(path, &err), CCA_OK);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(cca_store_remove(path, &err), CCA_BAD_MODEL);
    save((const unsigned char *)"GGUF", 4);
    assert_int_equal(cca_store_remove(path, &err), CCA_BAD_MODEL);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
}

/* What is not there is told, not read. */
static void test_out_of_range(void **state) {
    (void)state;
    cca_store *s, *from;
    char byte = 0;
    make_file(1);
    assert_int_equal(cca_store_open(&from, path, false, &err), CCA_OK);
    for (size_t i = 1; i < SIZE_MAX / 2; i *= 1000) {
        cca_store_point p = cca_store_point_at(from, i);
        assert_int_equal(p.pos, 0);
        assert_int_equal(p.n_segments, 0);
        assert_int_equal(cca_store_segment_at(from, i + 2).bytes, 0);
        assert_int_equal(cca_store_read_begin(from, i + 2, &err), CCA_RUNTIME);
    }
    assert_int_equal(cca_store_create(&s, path, facts, &err), CCA_OK);
    assert_int_equal(cca_store_copy(s, from, 1, &err), CCA_USAGE);
    assert_non_null(strstr(err.text, "has no checkpoint 1"));
    assert_int_equal(cca_store_drop(s, 0, &err), CCA_USAGE);
    assert_int_equal(cca_store_read(s, &byte, 1, &err), CCA_RUNTIME);
    assert_int_equal(cca_store_write(s, &byte, 1, &err), CCA_RUNTIME); /* nothing was begun */
    put_point(s, 0);
    assert_int_equal(cca_store_write(s, &byte, 1, &err), CCA_RUNTIME);
    assert_int_equal(cca_store_begin(s, CCA_STORE_NOTE, 0, 0, 2, &err), CCA_OK);
    assert_int_equal(cca_store_write(s, &byte, 1, &err), CCA_OK);
    assert_int_equal(cca_store_commit(s, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "a segment is too short"));
    cca_store_close(s);
    cca_store_close(from);
    assert_int_equal(read_file(), 1);
}

/* A new file takes over a part of the one that it replaces. */
static void test_copy(void **state) {
    (void)state;
    cca_store *from, *s;
    make_file(3);
    assert_int_equal(cca_store_open(&from, path, false, &err), CCA_OK);
    assert_int_equal(cca_store_create(&s, path, facts, &err), CCA_OK);
    assert_int_equal(cca_store_copy(s, from, 1, &err), CCA_OK);
    assert_int_equal(read_file(), 3);
    assert_int_equal(cca_store_commit(s, &err), CCA_OK);
    assert_int_equal(read_file(), 2);
    cca_store_close(from);
    put_point(s, 2);
    cca_store_close(s);
    assert_int_equal(read_file(), 3);
}

/* What lies behind a checkpoint goes, but not while somebody reads it; a note is no checkpoint. */
static void test_cut(void **state) {
    (void)state;
    cca_store *s, *reader;
    int64_t n;
    make_file(2);
    assert_int_equal(cca_store_open(&s, path, true, &err), CCA_OK);
    put(s, CCA_STORE_NOTE, 7, 0, 50);
    put_point(s, 2);
    assert_int_equal(cca_store_n_points(s), 3);
    assert_int_equal(cca_store_point_at(s, 2).n_segments, 10);
    assert_int_equal(cca_store_segment_at(s, 6).kind, CCA_STORE_NOTE);
    assert_int_equal(read_segment(s, 6), CCA_OK);
    put(s, CCA_STORE_NOTE, 8, 0, 50); /* not committed */
    assert_int_equal(cca_store_open(&reader, path, false, &err), CCA_OK);
    assert_int_equal(cca_store_cut(s, cca_store_point_at(s, 0).n_segments, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "is reading this session"));
    assert_int_equal(cca_store_n_segments(s), 10);
    cca_store_close(reader);
    uint64_t bytes = cca_store_point_at(s, 0).bytes;
    assert_int_equal(cca_store_cut(s, cca_store_point_at(s, 0).n_segments, &err), CCA_OK);
    assert_int_equal(read_file(), 1);
    assert_int_equal(cca_store_bytes(s), bytes);
    cca_store_tokens(s, &n);
    assert_int_equal(n, STEP);
    put_point(s, 1); /* and it goes on from there */
    assert_int_equal(read_file(), 2);
    assert_int_equal(cca_store_cut(s, 0, &err), CCA_OK);
    assert_int_equal(read_file(), 0);
    put_point(s, 0);
    cca_store_close(s);
    assert_int_equal(read_file(), 1);
}

/* A lent file is seen as it was when it is closed, and nobody cuts it; but others may write it. */
static void test_lent(void **state) {
    (void)state;
    cca_store *s, *other;
    cca_store_view view, later;
    make_file(1);
    assert_int_equal(cca_store_open(&s, path, true, &err), CCA_OK);
    assert_int_equal(cca_store_view_open(&view, s, &err), CCA_USAGE);
    cca_store_lend(s);
    assert_int_equal(cca_store_view_open(&view, s, &err), CCA_OK);
    put_point(s, 1);
    assert_int_equal(cca_store_drop(s, 0, &err), CCA_OK);
    assert_int_equal(cca_store_segment_at(s, 2).kind, CCA_STORE_DROPPED);
    assert_int_equal(cca_store_cut(s, 3, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "its rows are being read"));
    assert_int_equal(cca_store_view_open(&later, s, &err), CCA_OK);
    assert_int_equal(cca_store_open(&other, path, true, &err), CCA_RUNTIME);
    const cca_store_view *views[] = {&view, &later};
    for (size_t i = 1; i <= 4;
         i += 3) { /* rows of both checkpoints, the second in the later view */
        const unsigned char *rows = cca_store_view_at(views[i / 4], s, i);
        cca_store_segment seg = cca_store_segment_at(s, i);
        assert_int_equal(seg.kind, CCA_STORE_ROWS);
        for (uint64_t b = 0; b < seg.bytes; b++) {
            assert_int_equal(rows[b], byte_of(seg.kind, seg.first, b));
        }
    }
    cca_store_close(s);
    assert_int_equal(cca_store_open(&other, path, true, &err), CCA_OK);
    assert_int_equal(cca_store_cut(other, 0, &err), CCA_RUNTIME);
    put_point(other, 2);
    cca_store_view_close(&view);
    assert_int_equal(cca_store_cut(other, 0, &err), CCA_RUNTIME);
    cca_store_view_close(&later);
    assert_int_equal(cca_store_cut(other, 0, &err), CCA_OK);
    cca_store_close(other);
}

/* Checkpoints of a new file that is held appear at once with the first that is not. */
static void test_held(void **state) {
    (void)state;
    cca_store *s;
    unlink(path);
    for (int64_t n = 1; n <= 3; n++) {
        assert_int_equal(cca_store_create(&s, path, facts, &err), CCA_OK);
        assert_true(cca_store_hold(s, true));
        for (int64_t k = 0; k < n; k++) put_point(s, k);
        assert_int_not_equal(access(path, F_OK), 0);
        assert_false(cca_store_hold(s, false));
        if (n == 3) put_point(s, n);
        cca_store_close(s);
        assert_int_equal(access(path, F_OK) == 0, n == 3);
    }
    assert_int_equal(read_file(), 4);
    assert_int_equal(cca_store_open(&s, path, true, &err), CCA_OK);
    assert_false(cca_store_hold(s, true));
    put_point(s, 4);
    cca_store_close(s);
    assert_int_equal(read_file(), 5);
}

static void test_refused(void **state) {
    (void)state;
    cca_store *s;
    save((const unsigned char *)"GGUF is not what this is, by far", 32);
    assert_int_equal(read_file(), -CCA_BAD_MODEL);
    assert_non_null(strstr(err.text, "is no session file"));
    unlink(path);
    assert_int_equal(cca_store_open(&s, path, true, &err), CCA_BAD_MODEL);
    assert_int_equal(cca_store_open(&s, folder, false, &err), CCA_BAD_MODEL);
    assert_int_equal(cca_store_create(&s, "/nowhere/at/all", facts, &err), CCA_BAD_OUTPUT);
    assert_int_equal(cca_store_create(&s, path, facts, &err), CCA_OK);
    put(s, CCA_STORE_TOKENS, 0, STEP, STEP * sizeof(int32_t));
    assert_int_equal(cca_store_begin(s, CCA_STORE_TOKENS, 0, 1, 4, &err), CCA_RUNTIME);
    int64_t n;
    cca_store_tokens(s, &n);
    assert_int_equal(n, 0);
    cca_store_close(s);
}

static int begin(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/s.ccas", folder);
    return 0;
}

static int end(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_torn),
        cmocka_unit_test(test_flipped),     cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_locks),       cmocka_unit_test(test_copy),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_first_commit),
        cmocka_unit_test(test_cut),         cmocka_unit_test(test_lent),
        cmocka_unit_test(test_lost_header), cmocka_unit_test(test_readers_beside),
        cmocka_unit_test(test_creators),    cmocka_unit_test(test_replace),
        cmocka_unit_test(test_remove),      cmocka_unit_test(test_out_of_range),
        cmocka_unit_test(test_held),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
