/* Rows on disk: the bits of rows in memory, whatever is stored, taken up or gone back to; the space
 * that they take, and none where there is none. */
#include "disk_rows.h"

#include "engine.h"
#include "export/model_file.h"

#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CTX = 1000, RECALL = 96, MOST_THREADS = 3, VOCAB = 256 };

static const char *const row_types[] = {NULL, "q8_0", "q8_0/q4_0"};
enum { TYPES = sizeof row_types / sizeof *row_types };

static cca_engine *engines[MOST_THREADS + 1];
static char folder[] = "/tmp/cca-test-rows-XXXXXX";
static char paths[2][64];
static int32_t ids[CTX];
static cca_error err;

static cca_session_options options_of(const char *row_type, bool on_disk) {
    cca_session_options o = cca_session_defaults();
    o.ctx_size = CTX;
    o.attn = "recall";
    o.recall = RECALL;
    o.window_size = 64;
    o.row_type = row_type;
    o.chunk_size = 64;
    o.stored = o.mark = true;
    o.rows_folder = on_disk ? folder : NULL;
    return o;
}

static cca_session *open_session(int threads, const char *row_type, bool on_disk) {
    cca_session_options o = options_of(row_type, on_disk);
    cca_session *s;
    if (cca_session_new(&s, engines[threads], &o, &err) != CCA_OK) fail_msg("%s", err.text);
    return s;
}

static void eval(cca_session *s, int64_t end) {
    int64_t pos = cca_session_pos(s);
    if (cca_session_eval(s, ids + pos, end - pos, NULL, &err) != CCA_OK) fail_msg("%s", err.text);
}

static size_t logits_bytes(void) {
    return (size_t)cca_engine_info(engines[1])->vocab_size * sizeof(float);
}

static void check_same(cca_session *a, cca_session *b) {
    const float *of_a = cca_session_logits(a, &err), *of_b = cca_session_logits(b, &err);
    assert_true(of_a && of_b);
    assert_memory_equal(of_a, of_b, logits_bytes());
}

static void test_same_bits(void **state) {
    (void)state;
    for (size_t i = 0; i < TYPES; i++) {
        cca_session *memory = open_session(1, row_types[i], false);
        eval(memory, CTX);
        for (int threads = 1; threads <= MOST_THREADS; threads++) {
            cca_session *disk = open_session(threads, row_types[i], true);
            eval(disk, CTX - 3);
            for (int64_t pos = CTX - 2; pos <= CTX; pos++) eval(disk, pos);
            cca_session_reset(memory);
            eval(memory, CTX - 3);
            for (int64_t pos = CTX - 2; pos <= CTX; pos++) eval(memory, pos);
            check_same(memory, disk);
            cca_session_free(disk);
        }
        cca_session_free(memory);
    }
}

/* ---- files ----------------------------------------------------------------------------- */

/* Two sessions, in memory and on disk, to which the same is done, with a file each. */
typedef struct pair {
    cca_session *s[2];
    cca_store *store[2];
    cca_snapshot *kept[2];
    const char *row_type;
    int64_t marked;
} pair;

static void make_files(pair *p) {
    for (int i = 0; i < 2; i++) {
        char *facts = cca_session_facts(p->s[i]);
        cca_store_close(p->store[i]);
        assert_non_null(facts);
        unlink(paths[i]);
        assert_int_equal(cca_store_create(&p->store[i], paths[i], facts, &err), CCA_OK);
        if (i == 1) cca_store_lend(p->store[i]);
        free(facts);
    }
}

static void save(pair *p) {
    for (int i = 0; i < 2; i++) {
        if (cca_session_save(p->s[i], p->store[i], ids, &err)) fail_msg("%s", err.text);
    }
}

/* Ids behind a position are others than those of the file, as after going back. */
static void change_ids(int64_t from, uint64_t *random) {
    for (int64_t i = from; i < CTX; i++) ids[i] = (int32_t)(cca_random_next(random) % VOCAB);
}

/* Up to some position, or to one that the file has a checkpoint at. */
static void read_on(pair *p, uint64_t *random) {
    size_t n_points = cca_store_n_points(p->store[0]);
    int64_t pos = cca_session_pos(p->s[0]), point = 0;
    int64_t end = pos + 1 + (int64_t)(cca_random_next(random) % 200);
    if (n_points > 0) {
        point = cca_store_point_at(p->store[0], (size_t)cca_random_next(random) % n_points).pos;
    }
    if (cca_random_next(random) % 3 == 0) end = pos + 2;
    if (point > pos) end = cca_random_next(random) % 2 ? point : cca_max(end, point + 20);
    for (int i = 0; i < 2 && end <= CTX; i++) eval(p->s[i], end);
    if (end <= CTX) check_same(p->s[0], p->s[1]);
}

/* Goes back and on in one of the ways that there are; what the file had behind is cut off by
 * beginning another. */
static void go_back(pair *p, uint64_t *random) {
    size_t n_points = cca_store_n_points(p->store[0]);
    enum { RESTORE, REWIND, LOAD, RESET };
    static const int ways[] = {RESTORE, RESTORE, REWIND, LOAD, LOAD, LOAD, LOAD, RESET};
    int way = ways[cca_random_next(random) % 8];
    bool rewound = false; /* which alone leaves the mark */
    size_t point = n_points ? (size_t)cca_random_next(random) % n_points : 0;
    for (int i = 0; i < 2; i++) {
        cca_session *s = p->s[i];
        if (way == RESTORE && p->kept[i] && cca_snapshot_pos(p->kept[i]) <= cca_session_pos(s)) {
            assert_int_equal(cca_session_restore(s, p->kept[i], &err), CCA_OK);
        } else if (way == REWIND && p->marked >= 0 && p->marked <= cca_session_pos(s)) {
            assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
            rewound = true;
        } else if (way == LOAD && n_points > 0) {
            if (cca_session_load(s, p->store[i], point, &err)) fail_msg("%s", err.text);
        } else {
            cca_session_reset(s);
        }
    }
    assert_int_equal(cca_session_pos(p->s[0]), cca_session_pos(p->s[1]));
    if (!rewound) p->marked = -1;
}

static void keep(pair *p) {
    for (int i = 0; i < 2; i++) {
        cca_snapshot_free(p->kept[i]);
        assert_int_equal(cca_session_snapshot(&p->kept[i], p->s[i], &err), CCA_OK);
        assert_int_equal(cca_session_mark(p->s[i], &err), CCA_OK);
    }
    p->marked = cca_session_pos(p->s[0]);
}

/* What a session has seen is the same in both, so is what files have of it. */
static void check_files(void) {
    FILE *a = fopen(paths[0], "rb"), *b = fopen(paths[1], "rb");
    assert_true(a && b);
    for (int c = 0; c != EOF;) {
        c = getc(a);
        assert_int_equal(c, getc(b));
    }
    fclose(a), fclose(b);
}

/* Any order of what sessions can do. Files are begun anew where the session leaves their ids. */
static void wander(const char *row_type, uint64_t *random) {
    pair p = {.row_type = row_type, .marked = -1};
    for (int i = 0; i < 2; i++) p.s[i] = open_session(2, row_type, i == 1);
    make_files(&p);
    for (int step = 0; step < 80; step++) {
        uint64_t what = cca_random_next(random) % 16;
        if (what < 8) {
            read_on(&p, random);
        } else if (what < 12) {
            int64_t n;
            cca_store_tokens(p.store[0], &n);
            if (cca_session_pos(p.s[0]) >= n) save(&p);
            if (what == 8) keep(&p);
        } else if (what < 15) {
            go_back(&p, random);
        } else { /* other words from here on: earlier states of the session stay */
            go_back(&p, random);
            change_ids(cca_session_pos(p.s[0]), random);
            make_files(&p);
            if (p.kept[0] && cca_snapshot_pos(p.kept[0]) > cca_session_pos(p.s[0])) {
                for (int i = 0; i < 2; i++) cca_snapshot_free(p.kept[i]), p.kept[i] = NULL;
                p.marked = -1;
            }
        }
    }
    save(&p);
    check_files();
    for (int i = 0; i < 2; i++) {
        cca_snapshot_free(p.kept[i]);
        cca_store_close(p.store[i]);
        cca_session_free(p.s[i]);
    }
}

static void test_wander(void **state) {
    (void)state;
    uint64_t random = 5;
    for (int i = 0; i < 5 * TYPES; i++) wander(row_types[i % TYPES], &random);
}

/* A stored state comes in place of one at the same position whose rows were made in other calls. */
static void test_same_place(void **state) {
    (void)state;
    pair p = {.s = {open_session(2, NULL, false), open_session(2, NULL, true)}};
    float *first = malloc(logits_bytes());
    assert_non_null(first);
    make_files(&p);
    for (int i = 0; i < 2; i++) eval(p.s[i], 500);
    save(&p);
    memcpy(first, cca_session_logits(p.s[0], &err), logits_bytes());
    for (int i = 0; i < 2; i++) {
        cca_session_reset(p.s[i]);
        for (int64_t pos = 7; pos < 500; pos += 7) eval(p.s[i], pos);
        eval(p.s[i], 500);
    }
    check_same(p.s[0], p.s[1]);
    assert_memory_not_equal(first, cca_session_logits(p.s[0], &err), logits_bytes());
    free(first);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cca_session_load(p.s[i], p.store[i], 0, &err), CCA_OK);
        eval(p.s[i], 501);
    }
    check_same(p.s[0], p.s[1]);
    for (int i = 0; i < 2; i++) cca_session_free(p.s[i]), cca_store_close(p.store[i]);
}

/* A state that one kind has stored is taken up by the other. */
static void test_across(void **state) {
    (void)state;
    for (size_t i = 0; i < 2 * TYPES; i++) {
        const char *row_type = row_types[i % TYPES];
        bool first_on_disk = i < TYPES;
        pair p = {.s = {open_session(2, row_type, first_on_disk)}, .row_type = row_type};
        p.s[1] = open_session(2, row_type, !first_on_disk);
        make_files(&p);
        for (int64_t pos = 333; pos < CTX; pos += 333) {
            eval(p.s[0], pos);
            assert_int_equal(cca_session_save(p.s[0], p.store[1], ids, &err), CCA_OK);
        }
        for (size_t point = cca_store_n_points(p.store[1]); point-- > 0;) {
            assert_int_equal(cca_session_load(p.s[1], p.store[1], point, &err), CCA_OK);
            for (int64_t pos = cca_session_pos(p.s[1]) + 333; pos < CTX; pos += 333) {
                eval(p.s[1], pos);
            }
            eval(p.s[1], CTX);
        }
        eval(p.s[0], CTX);
        check_same(p.s[0], p.s[1]);
        for (int k = 0; k < 2; k++) cca_session_free(p.s[k]), cca_store_close(p.store[k]);
    }
}

/* ---- space ----------------------------------------------------------------------------- */

/* Bytes on disk of the file without a name that this process has; none of it is left in the page
 * cache, if so wanted. */
static int64_t nameless_bytes(bool drop) {
    int64_t bytes = -1;
    DIR *all = opendir("/proc/self/fd");
    assert_non_null(all);
    for (const struct dirent *e = readdir(all); e; e = readdir(all)) {
        char link[300], target[300] = "";
        struct stat st;
        snprintf(link, sizeof link, "/proc/self/fd/%s", e->d_name);
        if (readlink(link, target, sizeof target - 1) <= 0 || stat(link, &st) != 0) continue;
        bool own = !strncmp(target, folder, strlen(folder)) && st.st_nlink == 0;
        if (!own) continue;
        bytes = (int64_t)st.st_blocks * 512;
        int fd = atoi(e->d_name);
        if (drop) assert_int_equal(fsync(fd) | posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    }
    closedir(all);
    return bytes;
}

static void test_space(void **state) {
    (void)state;
    cca_session_options o = options_of(NULL, true);
    cca_session_size size, memory;
    assert_int_equal(cca_session_measure(&size, engines[1], &o, &err), CCA_OK);
    o.rows_folder = NULL;
    assert_int_equal(cca_session_measure(&memory, engines[1], &o, &err), CCA_OK);
    assert_int_equal(memory.disk, 0);
    assert_int_equal(size.rows, 0);
    assert_int_equal(size.disk, memory.rows);
    assert_int_equal(size.total, memory.total - memory.rows);

    pair p = {.s = {open_session(2, NULL, false), open_session(2, NULL, true)}, .marked = -1};
    make_files(&p);
    assert_in_range(nameless_bytes(false), 0, 1 << 16); /* none before rows come */
    eval(p.s[1], 600);
    assert_true(nameless_bytes(false) >= (int64_t)size.disk / CTX * 600);
    eval(p.s[1], CTX);
    assert_true(nameless_bytes(false) >= (int64_t)size.disk);
    assert_int_equal(cca_session_save(p.s[1], p.store[1], ids, &err), CCA_OK);
    assert_true(nameless_bytes(false) <
                (int64_t)size.disk / 4); /* all but the window is in the file */
    cca_session_reset(p.s[1]);
    eval(p.s[0], 100);
    eval(p.s[1], 100);
    check_same(p.s[0], p.s[1]);
    for (int i = 0; i < 2; i++) cca_session_free(p.s[i]), cca_store_close(p.store[i]);
    assert_int_equal(nameless_bytes(false), -1);
}

static void test_no_space(void **state) {
    (void)state;
    cca_session_options o = options_of(NULL, true);
    cca_session *s;
    struct rlimit all, few = {.rlim_cur = 1 << 16};
    o.rows_folder = "/no/such/folder";
    assert_int_equal(cca_session_new(&s, engines[1], &o, &err), CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, "/no/such/folder: cannot make a file of"));
    o.rows_folder = folder;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
    few.rlim_max = all.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
    cca_status status = cca_session_new(&s, engines[1], &o, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    assert_int_equal(status, CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, "cannot make a file of"));
}

/* Who has to wait for the disk asks for what comes next, and gets the same. */
static void test_waiting(void **state) {
    (void)state;
    pair p = {.s = {open_session(2, "q8_0", false), open_session(2, "q8_0", true)}, .marked = -1};
    make_files(&p);
    for (int64_t pos = 150; pos < CTX; pos += 150) {
        if (pos == 450) save(&p); /* some lie in a file from then on */
        struct rusage before, after;
        getrusage(RUSAGE_SELF, &before);
        assert_true(nameless_bytes(true) >= 0);
        for (int i = 0; i < 2; i++) eval(p.s[i], pos), eval(p.s[i], pos + 1);
        check_same(p.s[0], p.s[1]);
        getrusage(RUSAGE_SELF, &after);
        if (pos == 300 && after.ru_majflt == before.ru_majflt) print_message("no waits here\n");
    }
    for (int i = 0; i < 2; i++) cca_session_free(p.s[i]), cca_store_close(p.store[i]);
}

/* The process keeps within a bound that has no room for the rows that it reads. */
static void test_resident(void **state) {
    (void)state;
    cca_session *free_of_it = open_session(1, NULL, true);
    eval(free_of_it, CTX);
    cca_session_options o = options_of(NULL, true);
    cca_session *bound;
    o.most_resident = 1;
    assert_int_equal(cca_session_new(&bound, engines[1], &o, &err), CCA_OK);
    eval(bound, CTX);
    check_same(free_of_it, bound);
    cca_session_free(bound);
    cca_session_free(free_of_it);
}

static int begin(void **state) {
    (void)state;
    uint64_t random = 7;
    char model[64];
    if (!mkdtemp(folder)) return -1;
    for (int i = 0; i < 2; i++) snprintf(paths[i], sizeof paths[i], "%s/%d.ccas", folder, i);
    snprintf(model, sizeof model, "%s/model.gguf", folder);
    const cca_random_shape shape = {128, 3, 4, 2, 256, VOCAB, 1};
    cca_export_options e = {.random = &shape, .output = model};
    if (cca_export(&e, &err) != CCA_OK) return -1;
    for (int i = 1; i <= MOST_THREADS; i++) {
        cca_engine_options o = {.device = "cpu", .n_threads = i};
        if (cca_engine_open(&engines[i], model, &o, &err) != CCA_OK) return -1;
    }
    unlink(model);
    change_ids(0, &random);
    return 0;
}

static int end(void **state) {
    (void)state;
    for (int i = 1; i <= MOST_THREADS; i++) cca_engine_close(engines[i]);
    for (int i = 0; i < 2; i++) unlink(paths[i]);
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_wander),
        cmocka_unit_test(test_across),    cmocka_unit_test(test_same_place),
        cmocka_unit_test(test_space),     cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_resident),  cmocka_unit_test(test_waiting),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
