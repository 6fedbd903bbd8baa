/* Mapped files: what may be mapped, and whose an address is. */
#include "base/mapping.h"
#include "tests/unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 3 * 4096 + 5 };

static char folder[] = "/tmp/cca-mapping-XXXXXX";

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return rmdir(folder);
}

static const char *make_file(const char *name, size_t size) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < size; i++) fputc((int)(i % 251), file);
    assert_int_equal(fclose(file), 0);
    return path;
}

static void bytes_of_a_file(void **state) {
    (void)state;
    cca_mapping m;
    cca_error err;
    const char *path = make_file("file", SIZE);
    assert_int_equal(cca_mapping_open(&m, path, &err), CCA_OK);
    assert_int_equal(m.size, SIZE);
    for (size_t i = 0; i < m.size; i++) assert_int_equal(m.data[i], i % 251);
    cca_mapping_close(&m);
    assert_null(m.data);
    cca_mapping_close(&m);
    unlink(path);
    assert_int_equal(cca_mapping_open(&m, path, &err), CCA_BAD_MODEL);
    assert_int_equal(cca_mapping_open(&m, folder, &err), CCA_BAD_MODEL);
    path = make_file("empty", 0);
    assert_int_equal(cca_mapping_open(&m, path, &err), CCA_BAD_MODEL);
    unlink(path);
}

/* In any page of it, under odd names, and neither behind it nor when it is closed. */
static void whose_an_address_is(void **state) {
    (void)state;
    static const char *const names[] = {"file", "a name with blanks", "\xc3\xa4", "a\tb\x1b[1m"};
    static const char *const shown[] = {"file", "a name with blanks", "\xc3\xa4", "a?b?[1m"};
    cca_mapping m;
    cca_error err;
    char found[128], wanted[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *path = make_file(names[i], SIZE);
        assert_int_equal(cca_mapping_open(&m, path, &err), CCA_OK);
        snprintf(wanted, sizeof wanted, "%s/%s", folder, shown[i]);
        for (size_t at = 0; at < m.size; at += 2048) {
            assert_true(cca_mapping_file_at(found, sizeof found, m.data + at));
            assert_string_equal(found, wanted);
        }
        assert_true(cca_mapping_file_at(found, 6, m.data));
        assert_string_equal(found, "/tmp/");
        const uint8_t *before = m.data;
        cca_mapping_close(&m);
        assert_false(cca_mapping_file_at(found, sizeof found, before));
        unlink(path);
    }
    assert_false(cca_mapping_file_at(found, sizeof found, NULL));
    assert_false(cca_mapping_file_at(found, sizeof found, &m)); /* of the stack */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_of_a_file),
        cmocka_unit_test(whose_an_address_is),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
