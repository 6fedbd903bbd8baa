/* The prompt that all commands build: its tokens, its ends, and the ways back. */
#include "cli/prompt.h"

#include "test.h"

static const char MODEL[] = "models/cca-books-15m.gguf";

static cca_engine *engine;
static cca_error err;

static void ok(cca_status status) {
    if (status) fail_msg("%s", err.text);
}

static void add(prompt *p, cca_slot slot, const char *text) {
    input_text t = {0};
    assert_true(text_append(&t.text, text, strlen(text)));
    ok(prompt_add(p, slot, &t, false, &err));
    input_free(&t);
}

static void same_tokens(const prompt *a, const cca_tokens *b) {
    assert_int_equal(a->tokens.n, b->n);
    assert_memory_equal(a->tokens.ids, b->ids, b->n * sizeof *b->ids);
}

/* What the template's own steps make of it, in each template that the vocabulary has. */
static void templates_are_filled(void **state) {
    static const char *const names[] = {"llama2", "mistral", "zephyr", "plain"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        chat_options options = {.system = "Be brief.", .name = names[i]};
        cca_tokens want = {0};
        cca_chat chat;
        cca_prompt by_hand;
        prompt p;
        const cca_tokenizer *tok = cca_engine_tokenizer(engine);
        ok(prompt_begin(&p, &options, engine, &err));
        ok(input_bos(&want, tok, &err));
        assert_true(cca_chat_parse(&chat, names[i]));
        ok(cca_prompt_begin(&by_hand, chat, tok, &want, &err));
        ok(cca_prompt_text(&by_hand, CCA_SLOT_SYSTEM, "Be brief.", 9, &err));
        same_tokens(&p, &want);
        add(&p, CCA_SLOT_DOCUMENT, "A letter of 1812.\n");
        ok(cca_prompt_text(&by_hand, CCA_SLOT_DOCUMENT, "A letter of 1812.\n", 18, &err));
        same_tokens(&p, &want);
        ok(prompt_ask(&p, "Who wrote it?", 13, &err));
        ok(cca_prompt_text(&by_hand, CCA_SLOT_QUESTION, "Who wrote it?", 13, &err));
        ok(cca_prompt_end(&by_hand, &err));
        same_tokens(&p, &want);
        cca_tokens_free(&want);
        prompt_free(&p);
    }
}

/* Another question in place of one, a further one behind an answer, and all from the opening. */
static void cuts_go_back(void **state) {
    (void)state;
    chat_options options = {.name = "mistral"};
    prompt p, fresh;
    ok(prompt_begin(&p, &options, engine, &err));
    int64_t opening = prompt_length(&p);
    add(&p, CCA_SLOT_DOCUMENT, "One.");
    add(&p, CCA_SLOT_DOCUMENT, "Two.");
    int64_t n = prompt_length(&p);
    assert_int_equal(p.n_ends, 2);
    assert_int_equal(p.ends[1], n);
    assert_int_equal(p.text_end, n);
    ok(prompt_ask(&p, "Another one?", 12, &err));
    assert_int_equal(p.n_ends, 3);
    assert_int_equal(p.ends[2], prompt_length(&p));
    assert_true(p.text_end < p.ends[2]);
    prompt_cut(&p, n, CCA_SLOT_DOCUMENT);
    assert_int_equal(p.n_ends, 2);

    ok(prompt_begin(&fresh, &options, engine, &err));
    add(&fresh, CCA_SLOT_DOCUMENT, "One.");
    add(&fresh, CCA_SLOT_DOCUMENT, "Two.");
    ok(prompt_ask(&p, "Which?", 6, &err));
    ok(prompt_ask(&fresh, "Which?", 6, &err));
    same_tokens(&p, &fresh.tokens);
    ok(prompt_answer(&p, (const int32_t[]){300, 301}, 2, &err));
    ok(prompt_answer(&fresh, (const int32_t[]){300, 301}, 2, &err));
    int64_t answered = prompt_length(&p);
    ok(prompt_ask(&p, "No?", 3, &err));
    prompt_cut(&p, answered, CCA_SLOT_ANSWER);
    ok(prompt_ask(&p, "Why?", 4, &err));
    ok(prompt_ask(&fresh, "Why?", 4, &err));
    same_tokens(&p, &fresh.tokens);
    prompt_cut(&p, opening, CCA_SLOT_NONE);
    assert_int_equal(p.n_ends, 0);
    prompt_cut(&fresh, opening, CCA_SLOT_NONE);
    add(&p, CCA_SLOT_QUESTION, "Anew?");
    prompt_free(&fresh);
    ok(prompt_begin(&fresh, &options, engine, &err));
    ok(prompt_ask(&fresh, "Anew?", 5, &err));
    same_tokens(&p, &fresh.tokens);
    prompt_free(&fresh);
    prompt_free(&p);
}

/* A text as it is, and with a template: of its tokens some in the middle go. */
static void texts_are_shortened(void **state) {
    static const char text[] = "The old man went down to the sea.";
    (void)state;
    for (int with = 0; with < 2; with++) {
        chat_options options = {.name = "llama2"};
        prompt p;
        ok(prompt_begin(&p, with ? &options : NULL, engine, &err));
        add(&p, CCA_SLOT_QUESTION, text);
        int64_t n = prompt_length(&p), at = p.text_begin + 2, end = p.text_end;
        int32_t before = p.tokens.ids[at - 1], behind = p.tokens.ids[at + 3];
        assert_int_equal(p.tokens.offsets[p.text_begin], 0);
        assert_int_equal(p.tokens.offsets[end - 1], sizeof text - 2); /* the full stop */
        assert_int_equal(p.led, with || cca_tokenizer_info(p.tok)->dummy_prefix);
        assert_int_equal(with, end < n);
        prompt_shorten(&p, at, 3);
        assert_int_equal(prompt_length(&p), n - 3);
        assert_int_equal(p.text_end, end - 3);
        assert_int_equal(p.ends[0], n - 3);
        assert_int_equal(p.tokens.ids[at - 1], before);
        assert_int_equal(p.tokens.ids[at], behind);
        prompt_free(&p);
    }
}

static void what_cannot_be_is_said(void **state) {
    (void)state;
    prompt p;
    assert_int_equal(prompt_begin(&p, &(chat_options){.name = "llama3"}, engine, &err), CCA_USAGE);
    prompt_free(&p);
    chat_options bad = {.name = "plain", .system = "a\xff"};
    assert_int_equal(prompt_begin(&p, &bad, engine, &err), CCA_BAD_TEXT);
    assert_string_equal(err.text, "--system-prompt: invalid UTF-8 at byte offset 1");
    prompt_free(&p);
    ok(prompt_begin(&p, &(chat_options){.name = "plain"}, engine, &err));
    ok(prompt_ask(&p, "Who?", 4, &err));
    input_text late = {0};
    prompt_cut(&p, prompt_length(&p), CCA_SLOT_QUESTION);
    assert_int_equal(prompt_add(&p, CCA_SLOT_DOCUMENT, &late, false, &err), CCA_USAGE);
    prompt_free(&p);
}

static int open_engine(void **state) {
    (void)state;
    return cca_engine_open(&engine, MODEL, &(cca_engine_options){.plan_only = true}, &err);
}

static int close_engine(void **state) {
    (void)state;
    cca_engine_close(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(templates_are_filled),
        cmocka_unit_test(cuts_go_back),
        cmocka_unit_test(texts_are_shortened),
        cmocka_unit_test(what_cannot_be_is_said),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
