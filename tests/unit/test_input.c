/* Input: UTF-8, escapes, gzip, pieces, ids. */
#include "cli/input.h"
#include "tests/unit/test.h"

#include <unistd.h>
#include <zlib.h>

static void expect_bytes(const text_buffer *b, const char *bytes, size_t size) {
    assert_int_equal(b->size, size);
    assert_memory_equal(b->bytes, bytes, size);
}

static void test_replacement(void **state) {
    text_buffer b = {0};
    (void)state;
    assert_true(utf8_append_clean(&b, "a\xff\xe2\x82z\0\xc3", 7));
    expect_bytes(&b, "a\xef\xbf\xbd\xef\xbf\xbdz\0\xef\xbf\xbd", 12);
    text_free(&b);
}

static void test_escapes(void **state) {
    static const char text[] = "a\\n\\t\\\\\\x41\\0\\q\\x4\\";
    text_buffer b = {0};
    (void)state;
    assert_true(text_append_unescaped(&b, text, sizeof text - 1));
    expect_bytes(&b, "a\n\t\\A\0\\q\\x4\\", 12);
    text_free(&b);
}

/* ---- files ---- */

typedef struct test_file {
    char path[64];
} test_file;

static test_file make_file(const void *bytes, size_t size) {
    test_file file = {"/tmp/cca-test-input-XXXXXX"};
    int fd = mkstemp(file.path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
    return file;
}

/* A gzip member holding text. */
static size_t compress_text(uint8_t *out, size_t room, const char *text, size_t size) {
    z_stream z = {
        .next_in = (Bytef *)text, .avail_in = (uInt)size, .next_out = out, .avail_out = (uInt)room};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t made = z.total_out;
    deflateEnd(&z);
    return made;
}

static cca_status read_bytes(text_buffer *out, const void *bytes, size_t size, cca_error *err) {
    test_file file = make_file(bytes, size);
    cca_status status = input_read_file(out, file.path, err);
    unlink(file.path);
    return status;
}

static void test_gzip(void **state) {
    uint8_t gzip[1024];
    text_buffer b = {0};
    cca_error err;
    (void)state;
    size_t one = compress_text(gzip, sizeof gzip, "hello \0 world", 13);
    size_t two = one + compress_text(gzip + one, sizeof gzip - one, " again", 6);
    assert_int_equal(read_bytes(&b, gzip, one, &err), CCA_OK);
    expect_bytes(&b, "hello \0 world", 13);
    b.size = 0;
    assert_int_equal(read_bytes(&b, gzip, two, &err), CCA_OK); /* members join */
    expect_bytes(&b, "hello \0 world again", 19);
    memset(gzip + two, 0, 8);
    b.size = 0;
    assert_int_equal(read_bytes(&b, gzip, two + 8, &err), CCA_OK); /* zeros pad */
    expect_bytes(&b, "hello \0 world again", 19);
    text_free(&b);
}

static void test_damaged_gzip(void **state) {
    uint8_t gzip[256];
    text_buffer b = {0};
    cca_error err;
    (void)state;
    size_t size = compress_text(gzip, sizeof gzip, "some text to be damaged", 23);
    for (size_t n = 2; n < size; n++) {
        assert_int_equal(read_bytes(&b, gzip, n, &err), CCA_RUNTIME);
        if (!strstr(err.text, "truncated")) fail_msg("%zu bytes: %s", n, err.text);
    }
    gzip[size - 6] ^= 1; /* the checksum */
    assert_int_equal(read_bytes(&b, gzip, size, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "corrupt gzip data at byte"));
    gzip[size - 6] ^= 1;
    gzip[size] = 'x'; /* behind the end */
    assert_int_equal(read_bytes(&b, gzip, size + 1, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "cca-test-input-"));
    text_free(&b);
}

static void test_unreadable(void **state) {
    text_buffer b = {0};
    cca_error err;
    (void)state;
    assert_int_equal(input_read_file(&b, "/nonexistent", &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "/nonexistent: cannot open"));
    assert_int_equal(input_read_file(&b, "/tmp", &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "/tmp: cannot read"));
    text_free(&b);
}

/* ---- pieces ---- */

static void test_pieces_join(void **state) {
    test_file file = make_file("two\0", 4);
    arg_item items[] = {{'p', "one"}, {'f', file.path}, {'p', "\\n"}};
    input_options o = {.pieces = {items, 3, 3}, .invalid_utf8 = "error"};
    input_text text;
    cca_error err;
    (void)state;
    assert_int_equal(input_read(&text, &o, NULL, &err), CCA_OK);
    expect_bytes(&text.text, "onetwo\0\\n", 9);
    input_free(&text);
    o.escape = true;
    assert_int_equal(input_read(&text, &o, NULL, &err), CCA_OK);
    expect_bytes(&text.text, "onetwo\0\n", 8);
    input_free(&text);
    unlink(file.path);
}

static void test_invalid_utf8(void **state) {
    test_file file = make_file("line\nab\xffz", 9);
    arg_item items[] = {{'p', "one\n"}, {'f', file.path}};
    input_options o = {.pieces = {items, 2, 2}, .invalid_utf8 = "error"};
    input_text text;
    cca_error err;
    (void)state;
    assert_int_equal(input_read(&text, &o, NULL, &err), CCA_BAD_TEXT);
    assert_non_null(strstr(err.text, file.path));
    assert_non_null(strstr(err.text, "0xff"));
    assert_non_null(strstr(err.text, "byte offset 7, line 2"));
    input_free(&text);
    o.invalid_utf8 = "replace";
    assert_int_equal(input_read(&text, &o, NULL, &err), CCA_OK);
    expect_bytes(&text.text, "one\nline\nab\xef\xbf\xbdz", 15);
    input_free(&text);
    o.invalid_utf8 = "bytes";
    assert_int_equal(input_read(&text, &o, NULL, &err), CCA_OK);
    expect_bytes(&text.text, "one\nline\nab\xffz", 13);
    assert_int_equal(text.n_bad, 1);
    assert_int_equal(text.bad[0], 11);
    input_free(&text);
    unlink(file.path);
}

/* A character may be cut by the seam of two files. */
static void test_character_over_a_seam(void **state) {
    arg_item items[] = {{'p', "\xc3"}, {'p', "\xa9"}};
    input_options o = {.pieces = {items, 2, 2}, .invalid_utf8 = "error"};
    input_text text;
    cca_error err;
    (void)state;
    assert_int_equal(input_read(&text, &o, NULL, &err), CCA_OK);
    input_free(&text);
    o.pieces.n = 1;
    assert_int_equal(input_read(&text, &o, NULL, &err), CCA_BAD_TEXT);
    assert_non_null(strstr(err.text, "byte offset 0, line 1"));
    input_free(&text);
}

/* ---- ids ---- */

static void test_ids(void **state) {
    text_buffer good = {.bytes = "1 22\n  333\t4", .size = 12};
    text_buffer junk = {.bytes = "1 2x", .size = 4}, large = {.bytes = "5 500", .size = 5};
    text_buffer huge = {.bytes = "99999999999999999999", .size = 20};
    cca_tokens tokens = {0};
    cca_error err;
    (void)state;
    assert_int_equal(input_parse_ids(&tokens, &good, "ids", 500, &err), CCA_OK);
    assert_int_equal(tokens.n, 4);
    assert_int_equal(tokens.ids[2], 333);
    assert_int_equal(tokens.offsets[2], 2);
    assert_int_equal(input_parse_ids(&tokens, &junk, "ids", 500, &err), CCA_USAGE);
    assert_non_null(strstr(err.text, "ids: no token id at byte offset 2"));
    assert_int_equal(input_parse_ids(&tokens, &large, "ids", 500, &err), CCA_USAGE);
    assert_non_null(strstr(err.text, "token id 500 at byte offset 2 is outside"));
    assert_int_equal(input_parse_ids(&tokens, &huge, "ids", 500, &err), CCA_USAGE);
    cca_tokens_free(&tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replacement),  cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_gzip),         cmocka_unit_test(test_damaged_gzip),
        cmocka_unit_test(test_unreadable),   cmocka_unit_test(test_pieces_join),
        cmocka_unit_test(test_invalid_utf8), cmocka_unit_test(test_character_over_a_seam),
        cmocka_unit_test(test_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
