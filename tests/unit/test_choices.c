/* Multiple choice: how a list is read, which tokens a choice has, and that its score is what
 * decoding it token by token gives. */
#include "cli/ask/choices.h"

#include "test.h"

static const char MODEL[] = "models/cca-books-15m.gguf";

static cca_engine *engine;
static cca_error err;

static void ok(cca_status status) {
    if (status) fail_msg("%s", err.text);
}

/* ---- texts ----------------------------------------------------------------------------- */

static void splits(const char *list, const char *joined) {
    json_t *texts;
    char got[256] = "";
    ok(choices_split(&texts, list, "--choices", &err));
    for (size_t i = 0; i < json_array_size(texts); i++) {
        size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, "%s|", json_string_value(json_array_get(texts, i)));
    }
    assert_string_equal(got, joined);
    json_decref(texts);
}

static void lists_are_split(void **state) {
    (void)state;
    splits("A,B,C", "A|B|C|");
    splits(" yes ,\tno \n", "yes|no|");
    splits("one", "one|");
    splits("no\\, never,\\,", "no, never|,|");
    splits("a\\b\\\\,c\\", "a\\b\\,c\\|"); /* but commas nothing is escaped */
    splits("\xc3\xa4 \xc3\xb6,b", "\xc3\xa4 \xc3\xb6|b|");
}

static void is_refused(const char *list, cca_status wanted, const char *message) {
    json_t *texts;
    assert_int_equal(choices_split(&texts, list, "--choices", &err), wanted);
    assert_null(texts);
    assert_string_equal(err.text, message);
}

static void bad_lists_are_refused(void **state) {
    (void)state;
    is_refused("", CCA_USAGE, "--choices: choice 1 is empty");
    is_refused("A,,C", CCA_USAGE, "--choices: choice 2 is empty");
    is_refused("A, ", CCA_USAGE, "--choices: choice 2 is empty");
    is_refused("A,B, A", CCA_USAGE, "--choices: choices 1 and 3 are the same, \"A\"");
    is_refused("A,\xff", CCA_BAD_TEXT, "--choices: invalid UTF-8 at byte offset 2");
}

static void is_wrong(const char *json, const char *message) {
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    assert_int_equal(choices_check(value, "x", &err), CCA_USAGE);
    assert_string_equal(err.text, message);
    json_decref(value);
}

static void arrays_are_checked(void **state) {
    (void)state;
    is_wrong("\"A\"", "x: an array of texts expected");
    is_wrong("[]", "x: an array of texts expected");
    is_wrong("[\"A\", 3]", "x: choice 2 is no text");
    is_wrong("[\"A\", \" \\n\"]", "x: choice 2 is empty");
    is_wrong("[\"B\", \"A\", \"A\"]", "x: choices 2 and 3 are the same, \"A\"");
}

/* ---- tokens and scores ----------------------------------------------------------------- */

static json_t *three_texts(void) {
    static char text[1024]; /* of more tokens than choose for themselves in one call */
    int n = 0;
    for (int i = 0; i < 30; i++) {
        const char *some = i % 3 ? "the old house " : "by the sea, ";
        n += snprintf(text + n, sizeof text - (size_t)n, "%s", some);
    }
    return json_pack("[s, s, s]", "the", "a garden of his own", text);
}

/* Behind a space in the templates that put one there, which is the word's. */
static void answers_have_their_space(void **state) {
    static const char *const names[] = {"plain", "llama2", "mistral", "zephyr"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        chat_options options = {.name = names[i]};
        prompt p;
        choices c;
        cca_tokens want = {0};
        json_t *texts = three_texts();
        ok(prompt_begin(&p, &options, engine, &err));
        ok(choices_encode(&c, texts, &p, &err));
        assert_int_equal(prompt_answer_space(&p), i < 3);
        for (size_t k = 0; k < c.n; k++) {
            unsigned how = i < 3 ? CCA_ENCODE_SPACE : 0;
            want.n = 0;
            ok(cca_tokenizer_encode(&want, p.tok, c.items[k].text, c.items[k].size, how, &err));
            assert_int_equal(c.items[k].n_tokens, want.n);
            assert_memory_equal(c.items[k].ids, want.ids, want.n * sizeof *want.ids);
        }
        assert_int_equal(c.items[0].n_tokens, 1);
        assert_string_equal(cca_tokenizer_piece(p.tok, c.items[0].ids[0]),
                            i < 3 ? "\xe2\x96\x81the" : "the");
        assert_int_equal(c.most, c.items[2].n_tokens);
        assert_true(c.most > 64);
        cca_tokens_free(&want);
        choices_free(&c);
        json_decref(texts);
        prompt_free(&p);
    }
}

static cca_session *open_session(const char *attn) {
    cca_session_options o = cca_session_defaults();
    cca_session *s;
    o.ctx_size = 1024;
    o.attn = attn;
    o.group_size = strcmp(attn, "full") ? 16 : 0;
    o.window_size = strcmp(attn, "full") ? 64 : 0;
    if (!strcmp(attn, "recall")) o.recall = 32;
    o.k_type = o.v_type = "f32";
    o.stored = true;
    ok(cca_session_new(&s, engine, &o, &err));
    return s;
}

static void evaluate(cca_session *s, const prompt *p) {
    const cca_eval_options options = {.ends_prompt = true};
    ok(cca_session_eval(s, p->tokens.ids, prompt_length(p), &options, &err));
}

/* The sum of the log probabilities, one pass a token. */
static double decode(cca_session *s, const choice *c, int64_t vocab_size) {
    double sum = 0;
    for (int64_t i = 0; i < c->n_tokens; i++) {
        const float *logits = cca_session_logits(s, &err);
        assert_non_null(logits);
        sum += (double)logits[c->ids[i]] - cca_log_sum_exp(logits, vocab_size);
        ok(cca_session_eval(s, c->ids + i, 1, NULL, &err));
    }
    return sum;
}

static void scores_are_those_of_decoding(void **state) {
    static const char *const attns[] = {"cca", "recall", "full"};
    chat_options options = {.name = "plain"};
    prompt p;
    choices c;
    json_t *texts = three_texts();
    int64_t vocab_size = cca_engine_info(engine)->vocab_size;
    (void)state;
    ok(prompt_begin(&p, &options, engine, &err));
    input_text document = {0};
    for (int i = 0; i < 40; i++) {
        assert_true(text_append(&document.text, "He went to the door and saw ", 28));
    }
    ok(prompt_add(&p, CCA_SLOT_DOCUMENT, &document, false, &err));
    input_free(&document);
    ok(prompt_ask(&p, "What did he see?", 16, &err));
    assert_true(prompt_length(&p) > 200);
    for (size_t a = 0; a < sizeof attns / sizeof *attns; a++) {
        cca_session *s = open_session(attns[a]);
        ok(choices_encode(&c, texts, &p, &err));
        evaluate(s, &p);
        ok(choices_score(&c, s, vocab_size, &err));
        assert_int_equal(cca_session_pos(s), prompt_length(&p));
        double shares = 0;
        for (size_t i = 0; i < c.n; i++) {
            cca_session_reset(s);
            evaluate(s, &p);
            double wanted = decode(s, &c.items[i], vocab_size);
            assert_true(wanted < 0);
            assert_float_equal(c.items[i].logprob, wanted, 1e-5 * (0.1 + fabs(wanted)));
            assert_true(c.items[i].logprob <= c.items[c.best].logprob);
            double ratio = exp(c.items[i].logprob - c.items[c.best].logprob);
            assert_float_equal(c.items[i].probability, ratio * c.items[c.best].probability, 1e-12);
            shares += c.items[i].probability;
        }
        assert_float_equal(shares, 1, 1e-12);
        choices_free(&c);
        cca_session_free(s);
    }
    json_decref(texts);
    prompt_free(&p);
}

/* What follows is what would have followed had nothing been scored. */
static void the_session_is_as_it_was(void **state) {
    chat_options options = {.name = "plain"};
    prompt p;
    choices c;
    json_t *texts = three_texts();
    int64_t vocab_size = cca_engine_info(engine)->vocab_size;
    (void)state;
    ok(prompt_begin(&p, &options, engine, &err));
    ok(prompt_ask(&p, "Who stood in the doorway of the house when he came home at last?", 64,
                  &err));
    ok(choices_encode(&c, texts, &p, &err));
    cca_session *one = open_session("cca"), *other = open_session("cca");
    evaluate(one, &p);
    evaluate(other, &p);
    ok(choices_score(&c, one, vocab_size, &err));
    ok(cca_session_eval(one, c.items[2].ids, c.items[2].n_tokens, NULL, &err));
    ok(cca_session_eval(other, c.items[2].ids, c.items[2].n_tokens, NULL, &err));
    assert_memory_equal(cca_session_logits(one, &err), cca_session_logits(other, &err),
                        (size_t)vocab_size * sizeof(float));
    cca_session_free(one);
    cca_session_free(other);
    choices_free(&c);
    json_decref(texts);
    prompt_free(&p);
}

static int open_engine(void **state) {
    (void)state;
    /* Sums of one token and of many are compared: with kernels that round no activations. */
    const cca_engine_options exact = {.kernels = "generic"};
    return cca_engine_open(&engine, MODEL, &exact, &err);
}

static int close_engine(void **state) {
    (void)state;
    cca_engine_close(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_split),
        cmocka_unit_test(bad_lists_are_refused),
        cmocka_unit_test(arrays_are_checked),
        cmocka_unit_test(answers_have_their_space),
        cmocka_unit_test(scores_are_those_of_decoding),
        cmocka_unit_test(the_session_is_as_it_was),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
