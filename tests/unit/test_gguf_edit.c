/* Setting the keys of attention in a model file: these numbers change and nothing else. */
#include "export/gguf_edit.h"
#include "export/gguf_write.h"
#include "export_files.h"

#include <signal.h>
#include <sys/resource.h>
#include <zlib.h>

typedef struct bytes {
    uint8_t *data;
    size_t size;
} bytes;

static bytes read_all(const char *path) {
    FILE *file = fopen(path, "rb");
    bytes b = {0};
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    b.size = (size_t)ftell(file);
    rewind(file);
    b.data = malloc(b.size);
    assert_int_equal(fread(b.data, 1, b.size, file), b.size);
    fclose(file);
    return b;
}

static void write_all(const char *path, bytes b) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(b.data, 1, b.size, file), b.size);
    assert_int_equal(fclose(file), 0);
}

typedef enum sizes { ALL, ONLY_GROUP, NONE } sizes;

/* A file of two tensors; before the keys stand so many bytes of text, and as many behind the first.
 * It has g 16, s 64, sinks 16, recall 32 and no cores. */
static const char *make_file(const char *name, sizes which, size_t before, size_t between,
                             cca_gguf_type type) {
    static float values[64];
    static char text[2048];
    const char *path = in_folder(name);
    uint32_t crcs[2];
    cca_error err;
    cca_gguf_writer *w;
    uint64_t g = 16, s = 64, sinks = 16, recall = 32;
    for (int i = 0; i < 64; i++) values[i] = (float)i;
    assert_int_equal(cca_gguf_writer_new(&w, path, &err), CCA_OK);
    cca_gguf_put_u32(w, "general.alignment", 32);
    memset(text, 'x', sizeof text);
    text[before] = '\0';
    cca_gguf_put_text(w, "llama.before", text);
    if (which != NONE) cca_gguf_put_number(w, "cca.group_size", type, &g);
    memset(text, 'y', sizeof text);
    text[between] = '\0';
    cca_gguf_put_text(w, "llama.between", text);
    if (which == ALL) {
        cca_gguf_put_number(w, "cca.window_size", type, &s);
        cca_gguf_put_number(w, "cca.sinks", type, &sinks);
        cca_gguf_put_number(w, "cca.recall", type, &recall);
        cca_gguf_put_bool(w, "cca.cores", false);
    }
    cca_gguf_put_bool(w, "cca.tuned", true);
    cca_gguf_put_tensor(w, "a", 1, (int64_t[]){40}, CCA_F32, 160);
    cca_gguf_put_tensor(w, "b", 1, (int64_t[]){24}, CCA_F32, 96);
    assert_int_equal(cca_gguf_writer_begin(w, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_write(w, 0, 0, values, 160, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_write(w, 1, 0, values + 40, 96, &err), CCA_OK);
    crcs[0] = (uint32_t)crc32_z(0, (const void *)values, 160);
    crcs[1] = (uint32_t)crc32_z(0, (const void *)(values + 40), 96);
    assert_int_equal(cca_gguf_writer_finish(w, crcs, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_commit(w, &err), CCA_OK);
    cca_gguf_writer_free(w);
    return path;
}

static ino_t inode(const char *path) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

static void expect_number(const cca_gguf *file, const char *key, int64_t wanted) {
    uint32_t value = 0;
    assert_int_equal(cca_gguf_u32(&value, file, key, NULL, NULL), CCA_OK);
    assert_int_equal(value, wanted);
}

/* All is there, checksums hold, the fingerprint is the one of the old bytes. */
static void expect_attention(const char *path, const cca_gguf_attention *a,
                             const char *fingerprint) {
    cca_error err;
    cca_gguf *file;
    bool checked = false, cores = !a->cores;
    char now[CCA_GGUF_FINGERPRINT + 1];
    assert_int_equal(cca_gguf_open(&file, path, &err), CCA_OK);
    expect_number(file, "cca.group_size", a->group_size);
    expect_number(file, "cca.window_size", a->window_size);
    expect_number(file, "cca.sinks", a->sinks);
    expect_number(file, "cca.recall", a->recall);
    assert_int_equal(cca_gguf_bool(&cores, file, "cca.cores", NULL, &err), CCA_OK);
    assert_int_equal(cores, a->cores);
    assert_int_equal(cca_gguf_check_crc(&checked, file, &err), CCA_OK);
    assert_true(checked);
    cca_gguf_fingerprint(now, file);
    assert_string_equal(now, fingerprint);
    cca_gguf_close(file);
}

static void fingerprint_of(char out[CCA_GGUF_FINGERPRINT + 1], const char *path) {
    cca_gguf *file;
    assert_int_equal(cca_gguf_open(&file, path, NULL), CCA_OK);
    cca_gguf_fingerprint(out, file);
    cca_gguf_close(file);
}

static size_t n_different(bytes a, bytes b) {
    size_t n = 0;
    assert_int_equal(a.size, b.size);
    for (size_t i = 0; i < a.size; i++) n += a.data[i] != b.data[i];
    return n;
}

/* Of the file's own g, s, sinks, recall and cores the last differs in no byte, the window in two.
 */
static const cca_gguf_attention other = {8, 256, 24, 40, true},
                                sizes_only = {8, 256, 16, 32, false};

static void expect_edit(const char *path, const cca_gguf_attention *a, size_t n_changed,
                        bool in_place) {
    char fingerprint[CCA_GGUF_FINGERPRINT + 1];
    cca_error err;
    fingerprint_of(fingerprint, path);
    bytes old = read_all(path);
    ino_t before = inode(path);
    assert_int_equal(cca_gguf_set_attention(path, a, &err), CCA_OK);
    bytes new = read_all(path);
    assert_int_equal(inode(path) == before, in_place);
    assert_int_equal(n_different(old, new), n_changed);
    expect_attention(path, a, fingerprint);
    free(old.data);
    free(new.data);
}

static void in_place(void **state) {
    const cca_gguf_attention same = {16, 64, 16, 32, false};
    (void)state;
    expect_edit(make_file("near.gguf", ALL, 0, 0, CCA_GGUF_U32), &other, 6, true);
    expect_edit(make_file("near.gguf", ALL, 0, 0, CCA_GGUF_U32), &sizes_only, 3, true);
    expect_edit(make_file("near.gguf", ALL, 0, 600, CCA_GGUF_U32), &same, 0, true);
    expect_edit(make_file("u16.gguf", ALL, 3, 5, CCA_GGUF_U16), &other, 6, true);
}

/* How often all that changes lies in one sector, while the keys move over its end. */
static int n_in_place(const cca_gguf_attention *a) {
    int n = 0;
    for (size_t before = 250; before < 400; before++) {
        const char *path = make_file("edge.gguf", ALL, before, 0, CCA_GGUF_U32);
        ino_t old = inode(path);
        assert_int_equal(cca_gguf_set_attention(path, a, NULL), CCA_OK);
        n += inode(path) == old;
    }
    return n;
}

static void across_sectors(void **state) {
    const cca_gguf_attention window = {16, 256, 16, 32, false}, cores = {16, 64, 16, 32, true};
    (void)state;
    expect_edit(make_file("far.gguf", ALL, 0, 600, CCA_GGUF_U32), &other, 6, false);
    expect_edit(make_file("far.gguf", ALL, 0, 600, CCA_GGUF_U32), &window, 2, true);
    /* That many places lie between the first byte that changes and the last. */
    assert_int_equal(n_in_place(&window), 150 - 3);
    assert_int_equal(n_in_place(&cores), 150);
    assert_int_equal(n_in_place(&sizes_only), 150 - 67);
    assert_int_equal(n_in_place(&other), 150 - 140);
}

/* Where keys are missing they are added behind the others; all else is as it was. */
static void expect_added(sizes which, size_t added) {
    char fingerprint[CCA_GGUF_FINGERPRINT + 1];
    cca_error err;
    cca_gguf *a, *b;
    const char *path = make_file("short.gguf", which, 3, 3, CCA_GGUF_U32);
    const char *copy = in_folder("copy.gguf");
    fingerprint_of(fingerprint, path);
    bytes old = read_all(path);
    write_all(copy, old);
    chmod(path, 0640);
    assert_int_equal(cca_gguf_set_attention(path, &other, &err), CCA_OK);
    expect_attention(path, &other, fingerprint);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);

    assert_int_equal(cca_gguf_open(&a, copy, &err), CCA_OK);
    assert_int_equal(cca_gguf_open(&b, path, &err), CCA_OK);
    cca_gguf_layout x = cca_gguf_layout_of(a), y = cca_gguf_layout_of(b);
    assert_int_equal(cca_gguf_n_keys(b), cca_gguf_n_keys(a) + added);
    for (uint64_t i = 0; i < cca_gguf_n_keys(a); i++) {
        assert_string_equal(cca_gguf_key_at(a, i, NULL), cca_gguf_key_at(b, i, NULL));
    }
    assert_int_equal(y.entries_end - y.keys_end, x.entries_end - x.keys_end);
    assert_memory_equal(x.bytes + x.keys_end, y.bytes + y.keys_end, x.entries_end - x.keys_end);
    assert_int_equal(y.size - y.data_start, x.size - x.data_start);
    assert_memory_equal(x.bytes + x.data_start, y.bytes + y.data_start, x.size - x.data_start);
    if (which == NONE) {
        assert_memory_equal(x.bytes + 24, y.bytes + 24, x.keys_end - 24); /* behind the counts */
    }
    cca_gguf_close(a);
    cca_gguf_close(b);
    free(old.data);
}

static void added(void **state) {
    (void)state;
    expect_added(NONE, 5);
    expect_added(ONLY_GROUP, 4);
}

static void expect_refusal(const char *path, cca_gguf_attention a, cca_status status,
                           const char *why) {
    cca_error err = {.text = ""};
    bytes old = read_all(path);
    assert_int_equal(cca_gguf_set_attention(path, &a, &err), status);
    if (!strstr(err.text, why)) fail_msg("%s", err.text);
    bytes new = read_all(path);
    assert_int_equal(n_different(old, new), 0);
    free(old.data);
    free(new.data);
}

static void refused(void **state) {
    (void)state;
    const char *path = make_file("near.gguf", ALL, 0, 0, CCA_GGUF_U32);
    const cca_gguf_attention bad[] = {
        {16, 24, 16, 32, 1}, {0, 24, 16, 32, 1},   {16, 8, 16, 32, 1},  {16, 0, 16, 32, 1},
        {16, 64, 8, 32, 1},  {16, 64, -16, 32, 1}, {16, 64, 16, 40, 1}, {16, 64, 16, -16, 1}};
    static const char *const why[] = {"a window of 24 tokens: no multiple of groups of 16",
                                      "groups of 0",
                                      "a window of 8",
                                      "a window of 0",
                                      "sinks of 8",
                                      "sinks of -16",
                                      "recall of 40",
                                      "recall of -16"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        expect_refusal(path, bad[i], CCA_USAGE, why[i]);
    }
    chmod(path, 0444);
    expect_refusal(path, other, CCA_BAD_OUTPUT, "near.gguf: ");
    assert_int_equal(cca_gguf_check_writable(path, NULL), CCA_BAD_OUTPUT);
    chmod(path, 0644);
    assert_int_equal(cca_gguf_check_writable(path, NULL), CCA_OK);
    assert_int_equal(cca_gguf_check_writable(test_folder, NULL), CCA_BAD_OUTPUT);
    expect_refusal(make_file("u8.gguf", ALL, 0, 0, CCA_GGUF_U8), other, CCA_BAD_MODEL,
                   "'cca.window_size' has a type that cannot hold 256");
    expect_refusal(make_file("f32.gguf", ALL, 0, 0, CCA_GGUF_F32), other, CCA_BAD_MODEL,
                   "'cca.group_size'");
    const cca_gguf_attention nothing = {16, 64, 0, 0, false};
    expect_refusal(make_file("f32.gguf", ALL, 0, 0, CCA_GGUF_F32), nothing, CCA_BAD_MODEL,
                   "'cca.group_size'");
    assert_int_equal(cca_gguf_set_attention(in_folder("none.gguf"), &other, NULL), CCA_BAD_MODEL);
}

/* A file that has no room to grow keeps its bytes, and nothing else remains. */
static void full_disk(void **state) {
    (void)state;
    const char *path = make_file("full.gguf", NONE, 0, 0, CCA_GGUF_U32);
    struct rlimit old, small = {256, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    cca_error err;
    bytes before = read_all(path);
    cca_status status = cca_gguf_set_attention(path, &other, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, CCA_BAD_OUTPUT);
    bytes after = read_all(path);
    assert_int_equal(n_different(before, after), 0);
    free(before.data);
    free(after.data);
    DIR *folder = opendir(test_folder);
    for (struct dirent *e; (e = readdir(folder));) {
        if (strstr(e->d_name, ".tmp")) fail_msg("%s remains", e->d_name);
    }
    closedir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_place), cmocka_unit_test(across_sectors), cmocka_unit_test(added),
        cmocka_unit_test(refused),  cmocka_unit_test(full_disk),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
