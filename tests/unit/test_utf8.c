/* UTF-8: every code point, and what is none. */
#include "base/utf8.h"

#include "base/base.h"
#include "tests/unit/test.h"

static void expect_next(const char *text, size_t size, cca_utf8_kind kind, size_t length) {
    uint32_t code;
    size_t found;
    assert_int_equal(cca_utf8_next(&code, &found, text, size), kind);
    assert_int_equal(found, length);
    if (kind != CCA_UTF8_WHOLE) assert_int_equal(code, CCA_UTF8_REPLACEMENT);
}

static void first_characters(void **state) {
    (void)state;
    expect_next("a", 1, CCA_UTF8_WHOLE, 1);
    expect_next("\0", 1, CCA_UTF8_WHOLE, 1);
    expect_next("\xc3\xa9x", 3, CCA_UTF8_WHOLE, 2);
    expect_next("\xe2\x82\xac", 3, CCA_UTF8_WHOLE, 3);
    expect_next("\xf0\x9f\x99\x82", 4, CCA_UTF8_WHOLE, 4);
    expect_next("\xf4\x8f\xbf\xbf", 4, CCA_UTF8_WHOLE, 4);
    expect_next("\x80", 1, CCA_UTF8_INVALID, 1);
    expect_next("\xc0\xaf", 2, CCA_UTF8_INVALID, 1);         /* overlong "/" */
    expect_next("\xe0\x9f\xbf", 3, CCA_UTF8_INVALID, 1);     /* overlong */
    expect_next("\xf0\x8f\xbf\xbf", 4, CCA_UTF8_INVALID, 1); /* overlong */
    expect_next("\xed\xa0\x80", 3, CCA_UTF8_INVALID, 1);     /* a surrogate */
    expect_next("\xf4\x90\x80\x80", 4, CCA_UTF8_INVALID, 1); /* above U+10FFFF */
    expect_next("\xf5\x80\x80\x80", 4, CCA_UTF8_INVALID, 1);
    expect_next("\xff", 1, CCA_UTF8_INVALID, 1);
    expect_next("\xe2\x82z", 3, CCA_UTF8_INVALID, 2);
    expect_next("\xf0\x9f\x99z", 4, CCA_UTF8_INVALID, 3);
    expect_next("\xe2\x82", 2, CCA_UTF8_CUT, 2);
    expect_next("\xc3", 1, CCA_UTF8_CUT, 1);
}

/* Each code point, encoded by the definition, is whole; each surrogate is not. */
static void every_code_point(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char text[4], put[4];
        uint32_t code;
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4, length;
        static const uint8_t leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = 0; i < n; i++) text[n - 1 - i] = (char)(0x80 | (c >> (6 * i) & 0x3f));
        text[0] = (char)(n == 1 ? c : leads[n] | c >> (6 * (n - 1)));
        bool surrogate = c >= 0xd800 && c <= 0xdfff;
        cca_utf8_kind kind = cca_utf8_next(&code, &length, text, n);
        if (kind != (surrogate ? CCA_UTF8_INVALID : CCA_UTF8_WHOLE)) fail_msg("U+%04X", c);
        assert_int_equal(cca_utf8_put(put, c), n);
        assert_memory_equal(put, text, n);
        if (surrogate) continue;
        assert_int_equal(length, n);
        assert_int_equal(code, c);
    }
}

static void unfinished(void **state) {
    (void)state;
    assert_int_equal(cca_utf8_unfinished("ab", 2), 0);
    assert_int_equal(cca_utf8_unfinished("a\xc3", 2), 1);
    assert_int_equal(cca_utf8_unfinished("a\xe2\x82", 3), 2);
    assert_int_equal(cca_utf8_unfinished("\xf0\x9f\x99", 3), 3);
    assert_int_equal(cca_utf8_unfinished("\xc3\xa9", 2), 0);
    assert_int_equal(cca_utf8_unfinished("\x80", 1), 0); /* never will be a character */
    assert_int_equal(cca_utf8_unfinished("\xed\xa0", 2), 0);
    assert_int_equal(cca_utf8_unfinished("", 0), 0);
}

static void valid(void **state) {
    (void)state;
    static const char text[] = "a\xc3\xa9\0\xe2\x82\xac\xff z\xf0\x9f";
    assert_int_equal(cca_utf8_valid(text, sizeof text - 1), 7);
    assert_int_equal(cca_utf8_valid(text + 8, sizeof text - 1 - 8), 2);
    assert_int_equal(cca_utf8_valid(text, 0), 0);
    for (size_t size = 0; size <= 7; size++) {
        assert_int_equal(cca_utf8_valid(text, size) + cca_utf8_unfinished(text, size), size);
    }
}

static void continues(void **state) {
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        assert_int_equal(cca_utf8_continues((char)byte), byte >= 0x80 && byte < 0xc0);
    }
}

static void text_of_strangers_is_printable(void **state) {
    (void)state;
    /* Direction marks, by their bytes. */
    static const char marks[] = {'a', '\342', '\200', '\256', 'b', '\342', '\201', '\246'};
    static const struct {
        const char *text;
        size_t size;
        bool lines;
        const char *want;
    } cases[] = {
        {"", 0, false, ""},
        {"caf\u00e9 \u4e00 \U0001f600", 14, false, "caf\u00e9 \u4e00 \U0001f600"},
        {"\033[31m\007\0\177", 8, false, "\\x1b[31m\\x07\\x00\\x7f"},
        {"a\n\tb\r", 5, false, "a\\x0a\\x09b\\x0d"},
        {"a\n\tb\r", 5, true, "a\n\tb\\x0d"},
        {"\302\233m\302\240", 5, true, "\\x9bm\u00a0"},
        {marks, sizeof marks, true, "a\\u202eb\\u2066"},
        {"a\377b\342\226", 5, true, "a\ufffdb\ufffd"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[64];
        size_t n = cca_utf8_printable(out, cases[i].text, cases[i].size, cases[i].lines);
        assert_string_equal(out, cases[i].want);
        assert_int_equal(n, strlen(cases[i].want));
    }
}

/* A message is one line, and at most as long as there is room, at whole characters. */
static void messages_are_printable(void **state) {
    (void)state;
    cca_error err;
    assert_int_equal(cca_fail(&err, CCA_BAD_MODEL, "%s: %d", "a\033]0;x\007\nb", 7), CCA_BAD_MODEL);
    assert_string_equal(err.text, "a\\x1b]0;x\\x07\\x0ab: 7");
    char long_text[sizeof err.text];
    memset(long_text, '\001', sizeof long_text - 1);
    long_text[0] = 'x';
    long_text[sizeof long_text - 1] = 0;
    (void)cca_fail(&err, CCA_RUNTIME, "%s\u00e9", long_text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    memset(long_text, 'x', sizeof long_text - 2);
    long_text[sizeof long_text - 2] = 0;
    (void)cca_fail(&err, CCA_RUNTIME, "%s\u00e9", long_text);
    assert_true(cca_utf8_valid(err.text, strlen(err.text)) == strlen(err.text));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_of_strangers_is_printable),
        cmocka_unit_test(messages_are_printable),
        cmocka_unit_test(first_characters),
        cmocka_unit_test(every_code_point),
        cmocka_unit_test(unfinished),
        cmocka_unit_test(valid),
        cmocka_unit_test(continues),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
