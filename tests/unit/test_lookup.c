/* Guesses from the text so far: which place they are taken from, how far they go, when they pause,
 * and a walk over all places of random texts as the oracle. */
#include "lookup.h"

#include "tests/unit/test.h"

enum { MOST = 7 };

static cca_lookup *make(void) {
    cca_lookup *l;
    cca_error err;
    assert_int_equal(cca_lookup_new(&l, MOST, &err), CCA_OK);
    return l;
}

static void push(cca_lookup *l, const char *text) {
    cca_error err;
    for (; *text; text++) assert_int_equal(cca_lookup_push(l, *text, &err), CCA_OK);
}

/* What is guessed behind a text, by a new lookup. */
static void guesses(const char *text, const char *want) {
    cca_lookup *l = make();
    int32_t out[MOST];
    char got[MOST + 1] = "";
    push(l, text);
    int64_t n = cca_lookup_guess(l, out, MOST);
    for (int64_t i = 0; i < n; i++) got[i] = (char)out[i];
    assert_string_equal(got, want);
    cca_lookup_free(l);
}

static void what_followed_is_guessed(void **state) {
    (void)state;
    guesses("", "");
    guesses("a", "");
    guesses("abcdefg", "");
    guesses("the old house. the ol", "d house");
    guesses("one two three four; one two", " three ");
}

static void short_matches_are_tried_with_one_token(void **state) {
    (void)state;
    guesses("xabcdefgh--yabc", "d");
    guesses("xabcdefgh--xabc", "defgh--");
}

static void the_longest_match_wins_and_then_the_latest(void **state) {
    (void)state;
    guesses("1abcdX 2abcdY 3abcdZ 2abcd", "Y 3abcd");
    guesses("1abcdX 2abcdY 3abcdZ 4abcd", "Z 4abcd");
}

/* Behind its end a text that repeats itself goes on. */
static void repetitions_go_on(void **state) {
    (void)state;
    guesses("ababab", "abababa");
    guesses("aaaaaa", "aaaaaaa");
}

static void no_more_is_guessed_than_there_is_room_for(void **state) {
    (void)state;
    cca_lookup *l = make();
    int32_t out[MOST] = {0};
    push(l, "the old house. the ol");
    assert_int_equal(cca_lookup_guess(l, out, 3), 3);
    assert_int_equal(out[2], 'h');
    assert_int_equal(out[3], 0);
    assert_int_equal(cca_lookup_guess(l, out, 0), 0);
    assert_int_equal(cca_lookup_guess(l, out, -1), 0);
    cca_lookup_free(l);
}

/* Each wrong guess doubles the tokens without guesses; a right one ends that. */
static void wrong_guesses_make_it_pause(void **state) {
    (void)state;
    static const int pauses[] = {1, 3, 7, 15, 31, 63, 64, 64};
    cca_lookup *l = make();
    int32_t out[MOST];
    push(l, "aaaaaaaa");
    for (size_t i = 0; i < sizeof pauses / sizeof *pauses; i++) {
        assert_int_equal(cca_lookup_guess(l, out, MOST), MOST);
        cca_lookup_report(l, MOST, 0);
        for (int n = 0; n < pauses[i]; n++) {
            assert_int_equal(cca_lookup_guess(l, out, MOST), 0);
            push(l, "a");
        }
    }
    assert_int_equal(cca_lookup_guess(l, out, MOST), MOST);
    cca_lookup_report(l, MOST, 1);
    assert_int_equal(cca_lookup_guess(l, out, MOST), MOST);
    cca_lookup_report(l, MOST, 0);
    assert_int_equal(cca_lookup_guess(l, out, MOST), 0);
    push(l, "a");
    assert_int_equal(cca_lookup_guess(l, out, MOST), MOST);
    cca_lookup_free(l);
}

/* Where all of a guess was right, the next one is as long whatever its match. */
static void right_guesses_are_followed_further(void **state) {
    (void)state;
    cca_lookup *l = make();
    int32_t out[MOST];
    push(l, "xabcdefghijk--yabc");
    assert_int_equal(cca_lookup_guess(l, out, MOST), 1);
    cca_lookup_report(l, 1, 1);
    assert_int_equal(cca_lookup_guess(l, out, MOST), MOST);
    cca_lookup_clear(l);
    assert_int_equal(cca_lookup_guess(l, out, MOST), 0);
    push(l, "xabcdefghijk--yabc");
    assert_int_equal(cca_lookup_guess(l, out, MOST), 1);
    cca_lookup_free(l);
}

/* Tokens before a place that are the last ones of n. */
static int64_t length_of_match(const int32_t *ids, int64_t n, int64_t place) {
    int64_t length = 0;
    while (length < place && ids[place - 1 - length] == ids[n - 1 - length]) length++;
    return length;
}

/* Of texts so long that chains are linked anew several times, and with few enough tokens that
 * matches are found: what is guessed is what followed a match that no other place beats. */
static void guesses_come_from_the_best_place(void **state) {
    (void)state;
    enum { LENGTH = 5000, VOCAB = 60, SURE = 4 };
    static int32_t ids[LENGTH];
    cca_lookup *l = make();
    cca_error err;
    uint64_t random = 1;
    int32_t out[MOST];
    int n_guessed = 0;
    for (int64_t n = 0; n < LENGTH; n++) {
        int64_t guessed = cca_lookup_guess(l, out, MOST), longest = 0, at = 0;
        for (int64_t place = n - 1; place > 0 && n > 0; place--) {
            int64_t length = length_of_match(ids, n, place);
            if (length > longest) longest = length, at = place;
        }
        assert_int_equal(guessed, longest < 3 ? 0 : longest < SURE ? 1 : MOST);
        for (int64_t i = 0; i < guessed && at + i < n; i++) assert_int_equal(out[i], ids[at + i]);
        n_guessed += guessed > 0;
        ids[n] = (int32_t)(cca_random_next(&random) % VOCAB);
        assert_int_equal(cca_lookup_push(l, ids[n], &err), CCA_OK);
    }
    assert_true(n_guessed > 50);
    cca_lookup_free(l);
}

/* Three numbers for each of as many tokens as there is room for. */
static void its_bytes_are_known_before(void **state) {
    (void)state;
    assert_int_equal(cca_lookup_bytes(0), 12 * 1024);
    assert_int_equal(cca_lookup_bytes(1024), 12 * 1024);
    assert_int_equal(cca_lookup_bytes(1025), 12 * 2048);
    assert_int_equal(cca_lookup_bytes(5000), 12 * 8192);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_followed_is_guessed),
        cmocka_unit_test(short_matches_are_tried_with_one_token),
        cmocka_unit_test(the_longest_match_wins_and_then_the_latest),
        cmocka_unit_test(repetitions_go_on),
        cmocka_unit_test(no_more_is_guessed_than_there_is_room_for),
        cmocka_unit_test(wrong_guesses_make_it_pause),
        cmocka_unit_test(right_guesses_are_followed_further),
        cmocka_unit_test(its_bytes_are_known_before),
        cmocka_unit_test(guesses_come_from_the_best_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
