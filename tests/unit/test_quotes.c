/* Quotations of an answer against documents: which are found where. */
#include "cli/ask/quotes.h"

#include "test.h"

static document made(const char *name, const char *text) {
    document d = {.name = name};
    assert_true(text_append(&d.text, text, strlen(text)));
    return d;
}

/* The documents that all tests look into. */
static void with_documents(void (*use)(const documents *)) {
    document items[] = {
        made("a.txt", "One line.\nIt  was\n\ta \xe2\x80\x9c"
                      "dark\xe2\x80\x9d night, don\xe2\x80\x99t go.\n"),
        made("b.txt", "A dark night again: it's so. Ende \xc3\xbc"
                      "ber 48213"),
    };
    documents docs = {.items = items, .n = 2};
    use(&docs);
    for (size_t i = 0; i < 2; i++) text_free(&items[i].text);
}

typedef struct expected {
    const char *answer;
    const char *quote; /* as it stands in the answer; NULL: there is none */
    const char *where; /* NULL: it is not found */
} expected;

static void check(const documents *docs, const expected *e) {
    quotes q;
    cca_error err;
    char where[PLACE_TEXT];
    assert_int_equal(quotes_check(&q, e->answer, strlen(e->answer), docs, &err), CCA_OK);
    if (q.n != (e->quote ? 1 : 0)) fail_msg("%s: %zu quotes", e->answer, q.n);
    if (e->quote) {
        const quote *found = &q.items[0];
        assert_int_equal(found->end - found->begin, strlen(e->quote));
        assert_memory_equal(e->answer + found->begin, e->quote, strlen(e->quote));
        if (found->found != (e->where != NULL)) fail_msg("%s: found %d", e->answer, found->found);
        if (e->where) assert_string_equal(place_text(where, &found->at), e->where);
    }
    quotes_free(&q);
}

static void look_up_each(const documents *docs) {
    static const expected all[] = {
        {"He says \"One line.\" and so on", "One line.", "a.txt, line 1, bytes 0-9"},
        {"\xe2\x80\x9cIt was a\xe2\x80\x9d", "It was a", "a.txt, lines 2-3, bytes 10-20"},
        {"\xe2\x80\x9eIt was\n a\xe2\x80\x9c", "It was\n a", "a.txt, lines 2-3, bytes 10-20"},
        {"\xc2\xab\xc2\xa0night, don't go \xc2\xbb", "night, don't go",
         "a.txt, line 3, bytes 32-49"},
        {"\xc2\xbb"
         "dark night\xc2\xab",
         "dark night", "b.txt, line 1, bytes 2-12"},
        {"\xe2\x80\x98it\xe2\x80\x99s so.\xe2\x80\x99", "it\xe2\x80\x99s so.",
         "b.txt, line 1, bytes 20-28"},
        {"the \"\xc3\xbc"
         "ber 48213\"",
         "\xc3\xbc"
         "ber 48213",
         "b.txt, line 1, bytes 34-45"},
        {"\"one line.\"", "one line.", NULL}, /* case counts */
        {"\"line. A\"", "line. A", NULL},     /* no quotation spans documents */
        {"\"go. \"", "go.", "a.txt, line 3, bytes 47-50"},
        {"it's 5' 3 and don\xe2\x80\x99t", NULL, NULL},
        {"an open \"mark", NULL, NULL},
        {"\"\" and \" \"", NULL, NULL},
        {"", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) check(docs, &all[i]);
}

static void quotations_are_looked_up(void **state) {
    (void)state;
    with_documents(look_up_each);
}

static void record_them(const documents *docs) {
    static const char text[] = "\"One\" \"Two\" \xe2\x80\x9c"
                               "so\xe2\x80\x9d";
    quotes q;
    cca_error err;
    assert_int_equal(quotes_check(&q, text, sizeof text - 1, docs, &err), CCA_OK);
    json_t *record = quotes_json(&q, text);
    char *line = json_dumps(record, JSON_SORT_KEYS | JSON_COMPACT);
    assert_string_equal(
        line,
        "[{\"begin\":0,\"end\":3,\"file\":\"a.txt\",\"found\":true,\"last_line\":1,\"line\":1,"
        "\"text\":\"One\"},{\"found\":false,\"text\":\"Two\"},"
        "{\"begin\":25,\"end\":27,\"file\":\"b.txt\",\"found\":true,\"last_line\":1,\"line\":1,"
        "\"text\":\"so\"}]");
    free(line);
    json_decref(record);
    quotes_free(&q);
}

static void all_of_an_answer_are_recorded(void **state) {
    (void)state;
    with_documents(record_them);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotations_are_looked_up),
        cmocka_unit_test(all_of_an_answer_are_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
