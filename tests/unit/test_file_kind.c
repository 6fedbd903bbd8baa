/* What files are that are no text, by their first bytes. */
#include "base/file_kind.h"
#include "tests/unit/test.h"

static void expect_kind(const char *bytes, size_t size, const char *name, const char *advice) {
    const cca_file_kind *kind = cca_file_no_text(bytes, size);
    if (!kind) {
        fail_msg("%s is not known", name);
        return;
    }
    if (!strstr(kind->name, name) || !strstr(kind->advice, advice)) {
        fail_msg("%s, %s; not %s with %s", kind->name, kind->advice, name, advice);
    }
}

static void files_are_known(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *name, *advice;
    } all[] = {
        {"%PDF-1.4\n", 9, "PDF", "pdftotext"},
        {"PK\3\4\24\0", 6, "zip", "pandoc"},
        {"PK\3\4\24\0", 6, "docx", "unzip"},
        {"\xff\xfeT\0h\0", 6, "UTF-16", "iconv -f UTF-16 "},
        {"\xfe\xff\0T\0h", 6, "UTF-16", "iconv -f UTF-16 "},
        {"\xff\xfe\0\0T\0\0\0", 8, "UTF-32", "iconv -f UTF-32"},
        {"T\0h\0e\0 \0m\0", 10, "UTF-16", "iconv -f UTF-16LE"},
        {"\0T\0h\0e\0 \0m", 10, "UTF-16", "iconv -f UTF-16BE"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:", 54, "LFS", "git lfs pull"},
        {"{\\rtf1\\ansi", 11, "RTF", "pandoc"},
        {"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 8, "Office", "libreoffice"},
        {"\xfd"
         "7zXZ\0",
         6, "xz", "xz -dc"},
        {"BZh91AY&SY\1", 11, "bzip2", "bzip2 -dc"},
        {"\x1f\x8b\x08\0", 4, "gzip", "gzip -dc"},
        {"\x89PNG\r\n\x1a\n", 8, "PNG", "tesseract"},
        {"GGUF\3\0\0\0", 8, "model file", "-m"},
        {"\1\2\0\xff\xff", 5, "data", "text"},
        {"<!DOCTYPE HTML>", 15, "HTML", "w3m"},
        {"\xef\xbb\xbf\r\n <html lang=en>", 20, "HTML", "pandoc"},
        {"<!-- a page --><html>", 21, "HTML", "w3m"},
        {"<?xml version=\"1.0\"?>\n<!DOCTYPE html>", 37, "HTML", "w3m"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        expect_kind(all[i].bytes, all[i].size, all[i].name, all[i].advice);
    }
    char tar[512] = "notes.txt";
    const char magic[] = {'u', 's', 't', 'a', 'r'};
    memcpy(tar + 257, magic, sizeof magic);
    expect_kind(tar, sizeof tar, "tar", "tar -xf");
}

static void texts_are_texts(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } all[] = {
        {"", 0},
        {"a", 1},
        {"PK is short.", 12},
        {"a\0b\0", 4},
        {"one\0two\0", 8},
        {"{\"a\": 1}", 8},
        {"\xef\xbb\xbftext", 7},

        {"caf\xe9 au lait", 12},
        {"<?xml version=\"1.0\"?><note/>", 28},
        {"<!-- no page --> text", 21},
        {"\n\n<p>", 5},
        {"the version https://git-lfs.github.com/spec/v1", 46},
        {"GGU", 3},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const cca_file_kind *kind = cca_file_no_text(all[i].bytes, all[i].size);
        if (kind) fail_msg("text %zu is taken for %s", i, kind->name);
    }
    char long_text[600]; /* cut in the middle of a character where looking ends */
    memset(long_text, 'a', sizeof long_text);
    long_text[0] = '\0';
    memcpy(long_text + 511, "\xc3\xa9", 2);
    assert_null(cca_file_no_text(long_text, sizeof long_text));
}

static void data_may_be_what_a_model_is(void **state) {
    (void)state;
    static const char header[] = "\x40\0\0\0\xac\0\0\0\5\0\0\0\xff\xff";
    assert_null(cca_file_kind_of(header, sizeof header));
    assert_non_null(cca_file_no_text(header, sizeof header));
    assert_non_null(cca_file_kind_of("%PDF-1.4", 8));
}

static void what_leads_is_counted(void **state) {
    (void)state;
    assert_int_equal(cca_file_lead("{", 1), 0);
    assert_int_equal(cca_file_lead("\xef\xbb\xbf{", 4), 3);
    assert_int_equal(cca_file_lead("\xef\xbb\xbf\r\n\t {", 8), 7);
    assert_int_equal(cca_file_lead(" \n", 2), 2);
    assert_int_equal(cca_file_lead("\xef\xbb", 2), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_known),
        cmocka_unit_test(texts_are_texts),
        cmocka_unit_test(data_may_be_what_a_model_is),
        cmocka_unit_test(what_leads_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
