/* What of a line is one character to whoever reads it. */
#include "cli/clusters.h"

#include "test.h"

#include <locale.h>

/* line is made of clusters of so many code points each, up to a 0. */
static void check(const wchar_t *line, const size_t *sizes) {
    const wchar_t *at = line, *end = line + wcslen(line);
    for (; *sizes > 0; at += *sizes++) {
        assert_int_equal(cluster_behind(line, at, end), *sizes);
        assert_int_equal(cluster_before(line, at + *sizes), *sizes);
    }
    assert_ptr_equal(at, end);
    assert_int_equal(cluster_behind(line, end, end), 0);
    assert_int_equal(cluster_before(line, line), 0);
}
#define CHECK(line, ...) check(line, (const size_t[]){__VA_ARGS__, 0})

static void characters(void **state) {
    (void)state;
    CHECK(L"abä", 1, 1, 1);
    CHECK(L"a\u0308b", 2, 1);         /* a with an accent of its own */
    CHECK(L"x\u0308\u0301\u0328", 4); /* several */
    CHECK(L"漢字", 1, 1);
    CHECK(L"\n\u0308a", 1, 1, 1); /* nothing to stand on */
    CHECK(L"\u0308a", 1, 1);
    CHECK(L"a\u200db", 2, 1); /* a joiner among letters joins no letter */
}

static void emoji(void **state) {
    (void)state;
    CHECK(L"a\U0001f469\u200d\U0001f4bbb", 1, 3, 1); /* a woman at a computer */
    CHECK(L"\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", 7);
    CHECK(L"\U0001f44d\U0001f3fd\U0001f44d", 2, 1); /* a skin's colour */
    CHECK(L"\U0001f937\U0001f3fd\u200d\u2642\ufe0f", 5);
    CHECK(L"\u2764\ufe0f\u2764", 2, 1);
    CHECK(L"\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7\U0001f1ee", 2, 2, 1); /* flags, and a half */
    CHECK(L"\U0001f3f4\U000e0067\U000e0062\U000e007f", 4);
    CHECK(L"1\ufe0f\u20e3", 3); /* a key */
}

int main(void) {
    if (!setlocale(LC_CTYPE, "C.UTF-8")) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters),
        cmocka_unit_test(emoji),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
