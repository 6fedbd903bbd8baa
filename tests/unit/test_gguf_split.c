/* Model files in several parts: they are one model, and what is wrong with a part is told by its
 * name. */
#include "engine.h"
#include "export/model_file.h"
#include "gguf/gguf.h"
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_PARTS = 3 };

static char folder[] = "/tmp/cca-test-split-XXXXXX";

static const char *path_of(const char *stem, int number) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s-%05d-of-%05d.gguf", folder, stem, number, N_PARTS);
    return path;
}

/* How a part is made wrong. */
typedef struct spoil {
    int number;      /* split.no of the second part is this; 0: right */
    bool one_twice;  /* the last part has the second's tensors, too */
    uint32_t claims; /* split.tensors.count of the first; 0: none */
} spoil;

static void put_text(FILE *f, const char *text) {
    uint64_t size = strlen(text);
    fwrite(&size, 8, 1, f);
    fwrite(text, 1, size, f);
}

static void put_number(FILE *f, const char *key, uint32_t value) {
    const uint32_t type = CCA_GGUF_U32;
    put_text(f, key);
    fwrite(&type, 4, 1, f);
    fwrite(&value, 4, 1, f);
}

static void pad(FILE *f) {
    while (ftell(f) % 32 != 0) fputc(0, f);
}

/* One part: the first has the keys of the file, tensor i is in part i % N_PARTS, but none in the
 * first. */
static void write_part(const cca_gguf *file, const char *stem, int part, const spoil *s) {
    FILE *f = fopen(path_of(stem, part + 1), "wb");
    const cca_gguf_layout whole = cca_gguf_layout_of(file);
    const cca_gguf_tensor *mine[64];
    uint64_t n = 0, n_keys = 2 + (part == 0 ? cca_gguf_n_keys(file) + (s->claims > 0) : 0), at = 0;
    const uint32_t version = 3;
    assert_non_null(f);
    for (uint64_t i = 0; i < cca_gguf_n_tensors(file); i++) {
        bool own = 1 + i % (N_PARTS - 1) == (uint64_t)part;
        if (own || (part > 0 && s->one_twice && i == 0)) mine[n++] = cca_gguf_tensor_at(file, i);
    }
    fwrite("GGUF", 4, 1, f), fwrite(&version, 4, 1, f), fwrite(&n, 8, 1, f),
        fwrite(&n_keys, 8, 1, f);
    if (part == 0) fwrite(whole.bytes + 24, 1, whole.keys_end - 24, f);
    if (part == 0 && s->claims > 0) put_number(f, "split.tensors.count", s->claims);
    put_number(f, "split.no", part == 1 && s->number ? (uint32_t)s->number : (uint32_t)part);
    put_number(f, "split.count", N_PARTS);
    for (uint64_t i = 0; i < n; i++) {
        put_text(f, mine[i]->name);
        fwrite(&mine[i]->n_dims, 4, 1, f);
        fwrite(mine[i]->dims, 8, mine[i]->n_dims, f);
        fwrite(&mine[i]->type, 4, 1, f), fwrite(&at, 8, 1, f);
        at += (mine[i]->bytes + 31) / 32 * 32;
    }
    pad(f);
    for (uint64_t i = 0; i < n; i++) fwrite(mine[i]->data, 1, mine[i]->bytes, f), pad(f);
    assert_int_equal(fclose(f), 0);
}

static cca_gguf *whole_file(void) {
    static char path[128];
    cca_random_shape shape = {64, 2, 4, 2, 96, 80, 3};
    cca_error err;
    cca_gguf *file;
    snprintf(path, sizeof path, "%s/whole.gguf", folder);
    cca_export_options o = {.random = &shape, .output = path, .has_type = true, .type = CCA_Q8_0};
    if (cca_export(&o, &err) != CCA_OK) fail_msg("%s", err.text);
    if (cca_gguf_open(&file, path, &err) != CCA_OK) fail_msg("%s", err.text);
    return file;
}

static void split(const char *stem, spoil s) {
    cca_gguf *file = whole_file();
    for (int part = 0; part < N_PARTS; part++) write_part(file, stem, part, &s);
    cca_gguf_close(file);
}

static void parts_are_one_model(void **state) {
    (void)state;
    cca_error err;
    cca_gguf *file = whole_file(), *parts;
    cca_engine *engine;
    split("model", (spoil){.claims = (uint32_t)cca_gguf_n_tensors(file)});
    if (cca_gguf_open(&parts, path_of("model", 1), &err) != CCA_OK) fail_msg("%s", err.text);
    assert_false(cca_gguf_is_part(parts));
    assert_int_equal(cca_gguf_n_tensors(parts), cca_gguf_n_tensors(file));
    for (uint64_t i = 0; i < cca_gguf_n_tensors(file); i++) {
        const cca_gguf_tensor *a = cca_gguf_tensor_at(file, i), *b = cca_gguf_find(parts, a->name);
        assert_non_null(b);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
    char one[CCA_GGUF_FINGERPRINT + 1], other[CCA_GGUF_FINGERPRINT + 1];
    cca_gguf_look(one, parts), cca_gguf_look(other, parts);
    assert_string_equal(one, other);
    cca_gguf_close(parts), cca_gguf_close(file);
    cca_engine_options o = {.device = "cpu", .n_threads = 1};
    if (cca_engine_open(&engine, path_of("model", 1), &o, &err) != CCA_OK) fail_msg("%s", err.text);
    cca_engine_close(engine);

    /* Joined by export. */
    char joined[128];
    snprintf(joined, sizeof joined, "%s/joined.gguf", folder);
    cca_export_options e = {.input = path_of("model", 1), .output = joined};
    if (cca_export(&e, &err) != CCA_OK) fail_msg("%s", err.text);
    assert_int_equal(cca_gguf_open(&file, joined, &err), CCA_OK);
    assert_false(cca_gguf_has(file, "split.count"));
    cca_gguf_close(file);
}

static void expect_refusal(const char *path, const char *message) {
    cca_error err = {.text = ""};
    cca_gguf *file;
    assert_int_equal(cca_gguf_open(&file, path, &err), CCA_BAD_MODEL);
    assert_null(file);
    if (!strstr(err.text, message)) fail_msg("'%s' without '%s'", err.text, message);
}

static void wrong_parts_are_refused(void **state) {
    (void)state;
    char other[128];
    split("model", (spoil){0});
    expect_refusal(path_of("model", 2),
                   "-00002-of-00003.gguf: is part 2 of 3; give the first, whose "
                   "name ends in -00001-of-00003.gguf");
    snprintf(other, sizeof other, "%s/renamed.gguf", folder);
    assert_int_equal(rename(path_of("model", 1), other), 0);
    expect_refusal(other, "whose names end in -00001-of-00003.gguf and so on; this name does not");
    split("number", (spoil){.number = 2});
    expect_refusal(path_of("number", 1),
                   "number-00002-of-00003.gguf: keys split.no and split.count say "
                   "part 3 of 3, its name part 2 of 3");
    split("twice", (spoil){.one_twice = true});
    expect_refusal(path_of("twice", 1), "appears in two parts");
    split("count", (spoil){.claims = 99});
    expect_refusal(path_of("count", 1),
                   "key split.tensors.count is 99, but the parts have 21 tensors");
    split("missing", (spoil){0});
    unlink(path_of("missing", 3));
    expect_refusal(path_of("missing", 1), "missing-00003-of-00003.gguf");
    split("torn", (spoil){0});
    assert_int_equal(truncate(path_of("torn", 2), 3000), 0);
    expect_refusal(path_of("torn", 1), "torn-00002-of-00003.gguf: tensor");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_one_model),
        cmocka_unit_test(wrong_parts_are_refused),
    };
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[160];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) ? 1 : failed;
}
