/* Where attention goes: sums of a session, shares of a range, passages of documents. */
#include "cli/ask/sources.h"

#include "test.h"

static cca_error err;

/* ---- passages ------------------------------------------------------------------------ */

enum { UNIT = 4, N_TOKENS = 40 };

/* Two documents with two bytes a token, behind 2 tokens of BOS and template: tokens 2 … 20 and
 * 21 … 39; the first begins with a space of the template, which is no byte of its own. */
typedef struct two {
    document items[2];
    uint64_t offsets[N_TOKENS];
    documents docs;
} two;

static void make_two(two *t) {
    *t = (two){.items = {{.name = "a", .first = 2, .last = 21},
                         {.name = "b", .first = 21, .last = N_TOKENS}}};
    for (int i = 0; i < N_TOKENS; i++) {
        int d = i >= 21;
        t->offsets[i] = i <= 2 ? 0 : (uint64_t)(2 * (i - t->items[d].first) - !d);
        if (i < 2) continue;
        bool cut = i == 2; /* its first byte is the template's */
        const char pair[] = {(char)('a' + i % 26), i % 5 == 4 ? '\n' : '.'};
        assert_true(text_append(&t->items[d].text, pair + cut, 2 - cut));
    }
    t->docs = (documents){
        .items = t->items, .n = 2, .prompt.tokens = {.offsets = t->offsets, .n = N_TOKENS}};
}

static void free_two(two *t) {
    text_free(&t->items[0].text);
    text_free(&t->items[1].text);
}

typedef struct expected {
    const char *where;
    double share;
} expected;

/* Slots of four tokens, cut where the documents begin and end. */
static const int64_t begins[] = {0, 2, 4, 8, 12, 16, 20, 21, 24, 28, 32, 36, 40, 44};
enum { SLOTS = sizeof begins / sizeof *begins - 1 };
static const cca_attention slots = {.n_slots = SLOTS, .unit = UNIT, .begins = begins};

static void check_pick(const double *shares, int64_t n, const expected *want, size_t n_want) {
    two t;
    sources s;
    double copy[SLOTS];
    char where[PLACE_TEXT];
    memcpy(copy, shares, sizeof copy);
    make_two(&t);
    assert_int_equal(sources_pick(&s, copy, &slots, &t.docs, n, &err), CCA_OK);
    assert_int_equal(s.n, n_want);
    for (size_t i = 0; i < n_want; i++) {
        assert_string_equal(place_text(where, &s.items[i].at), want[i].where);
        test_below(fabs(s.items[i].share - want[i].share), 1e-12, "share");
    }
    sources_free(&s);
    free_two(&t);
}

static void passages_are_picked(void **state) {
    (void)state;
    /* Slot 3 has tokens 8 … 11, bytes 12 - 1 … 20 - 1 of the first document. */
    check_pick((double[SLOTS]){0, 0, 0, 0.5, 0, 0, 0, 0, 0, 0, 0.3, 0.2}, 3,
               (expected[]){{"a, lines 2-3, bytes 11-19", 0.5}, {"b, lines 3-4, bytes 22-38", 0.5}},
               2);
    /* A neighbour with less than a fifth is left out, and may come on its own. */
    check_pick((double[SLOTS]){0, 0, 0, 0, 0.6, 0.11, 0.09, 0, 0, 0, 0, 0.2}, 2,
               (expected[]){{"a, lines 3-4, bytes 19-27", 0.6}, {"b, line 4, bytes 30-38", 0.2}},
               2);
    /* No passage has more than six slots, and none goes on in another document. */
    check_pick((double[SLOTS]){0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.08, 0.08, 0.08, 0.08, 0.08}, 1,
               (expected[]){{"a, lines 1-5, bytes 0-37", 0.6}}, 1);
    check_pick((double[SLOTS]){0, 0, 0, 0, 0, 0.1, 0.5, 0.4}, 3,
               (expected[]){{"a, lines 4-5, bytes 27-37", 0.6}, {"b, line 1, bytes 0-6", 0.4}}, 2);
    /* What stands before the documents and behind them is no part of all. */
    check_pick((double[SLOTS]){0.8, 0.05, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.05, 0.1}, 3,
               (expected[]){{"a, line 1, bytes 0-3", 0.5}, {"b, line 4, bytes 30-38", 0.5}}, 2);
    check_pick((double[SLOTS]){0}, 3, NULL, 0);
}

static void ends_are_told(void **state) {
    (void)state;
    two t;
    sources s;
    double shares[SLOTS] = {0.5, 0.1, 0, 0, 0.2, 0, 0, 0, 0, 0, 0.05, 0.15};
    make_two(&t);
    assert_int_equal(sources_pick(&s, shares, &slots, &t.docs, 3, &err), CCA_OK);
    test_below(fabs(s.start - 0.2), 1e-12, "tokens 2 and 3");
    test_below(fabs(s.end - 0.3), 1e-12, "tokens 36 … 39");
    sources_free(&s);
    free_two(&t);
}

static void passages_are_recorded(void **state) {
    (void)state;
    two t;
    sources s;
    make_two(&t);
    double shares[SLOTS] = {[11] = 1};
    assert_int_equal(sources_pick(&s, shares, &slots, &t.docs, 3, &err), CCA_OK);
    json_t *record = sources_json(&s);
    char *line = json_dumps(record, JSON_COMPACT);
    assert_string_equal(line, "[{\"file\":\"b\",\"line\":4,\"last_line\":4,\"begin\":30,\"end\":38,"
                              "\"share\":1.0,\"text\":\"k.l.m.n\\n\"}]");
    free(line);
    json_decref(record);
    sources_free(&s);
    free_two(&t);
}

/* ---- sessions ------------------------------------------------------------------------ */

static double head_sum(const cca_attention *a, int64_t head) {
    double sum = 0;
    for (int64_t i = 0; i < a->n_slots; i++) sum += a->sums[head * a->n_slots + i];
    return sum;
}

/* Shares by their definition. */
static void check_shares(const cca_attention *a, int64_t begin, int64_t end, int64_t first,
                         int64_t last) {
    double *shares = calloc((size_t)a->n_slots, sizeof *shares), total = 0, sum = 0;
    assert_non_null(shares);
    cca_attention_shares(shares, a, begin, end);
    for (int64_t head = 0; head < a->n_layers * a->n_heads; head++) {
        for (int64_t i = first; i < last; i++) {
            total += pow(a->sums[head * a->n_slots + i] / (double)a->n_tokens, 2);
        }
    }
    for (int64_t i = 0; i < a->n_slots; i++) {
        double want = 0;
        for (int64_t head = 0; i >= first && i < last && head < a->n_layers * a->n_heads; head++) {
            want += pow(a->sums[head * a->n_slots + i] / (double)a->n_tokens, 2) / total;
        }
        test_below(fabs(shares[i] - want), 1e-12, "a slot's share");
        sum += shares[i];
    }
    test_below(fabs(sum - 1), 1e-9, "all shares");
    free(shares);
}

static void a_session_is_watched(void **state) {
    (void)state;
    enum { N = 700, CTX = 720 };
    cca_engine *engine;
    cca_session *s;
    int32_t ids[N];
    const int64_t cuts[] = {1, 32, 600, 600}; /* the second cuts nothing, the last nothing more */
    for (int i = 0; i < N; i++) ids[i] = 300 + i * 7919 % 3000;
    cca_session_options o = cca_session_defaults();
    o.ctx_size = CTX, o.mark = true;
    if (cca_engine_open(&engine, "models/cca-books-15m.gguf", NULL, &err) ||
        cca_session_new(&s, engine, &o, &err)) {
        fail_msg("%s", err.text);
    }
    assert_null(cca_session_attention(s).sums);
    assert_int_equal(cca_session_eval(s, ids, 600, NULL, &err), CCA_OK);
    float *logits = malloc((size_t)cca_engine_info(engine)->vocab_size * sizeof *logits);
    for (int round = 0; round < 2; round++) {
        if (round == 0) assert_int_equal(cca_session_mark(s, &err), CCA_OK);
        assert_int_equal(cca_session_watch(s, cuts, 4, &err), CCA_OK);
        assert_int_equal(cca_session_eval(s, ids + 600, 90, NULL, &err), CCA_OK);
        for (int i = 690; i < N; i++) {
            assert_int_equal(cca_session_eval(s, ids + i, 1, NULL, &err), CCA_OK);
        }
        cca_attention a = cca_session_attention(s);
        assert_int_equal(a.unit, 16);
        assert_int_equal(a.n_slots, CTX / 16 + 3);
        assert_int_equal(a.begins[1], 1);
        assert_int_equal(a.begins[2], 16);
        assert_int_equal(a.begins[39], 600);
        assert_int_equal(a.begins[40], 608);
        assert_int_equal(a.begins[a.n_slots], CTX + 16);
        assert_int_equal(a.n_tokens, 11); /* the last of 90, and ten */
        for (int64_t head = 0; head < a.n_layers * a.n_heads; head++) {
            test_below(fabs(head_sum(&a, head) - 11), 1e-3, "probabilities add up to 1");
        }
        check_shares(&a, 1, 600, 1, 39); /* all of them, and no more */
        check_shares(&a, 0, 599, 0, 38);
        check_shares(&a, 33, 608, 4, 40);
        cca_session_unwatch(s);
        const float *now = cca_session_logits(s, &err);
        size_t size = (size_t)cca_engine_info(engine)->vocab_size * sizeof *now;
        if (round == 1) assert_memory_equal(now, logits, size); /* watching changes nothing */
        memcpy(logits, now, size);
        assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
        assert_int_equal(cca_session_eval(s, ids + 600, 5, NULL, &err), CCA_OK);
        assert_int_equal(cca_session_attention(s).n_tokens, 11);
        assert_int_equal(cca_session_rewind(s, &err), CCA_OK);
    }
    assert_int_equal(cca_session_eval(s, ids + 600, 90, NULL, &err), CCA_OK);
    for (int i = 690; i < N; i++) {
        assert_int_equal(cca_session_eval(s, ids + i, 1, NULL, &err), CCA_OK);
    }
    assert_memory_equal(cca_session_logits(s, &err), logits,
                        (size_t)cca_engine_info(engine)->vocab_size * sizeof *logits);
    free(logits);
    cca_session_free(s);
    cca_engine_close(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passages_are_picked),
        cmocka_unit_test(ends_are_told),
        cmocka_unit_test(passages_are_recorded),
        cmocka_unit_test(a_session_is_watched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
