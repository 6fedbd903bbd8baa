/* A conversation's tokens and states: what is taken back, loaded or written anew goes on as one
 * that never was anything else. */
#include "cli/chat/chat_file.h"

#include "test.h"

#include <sys/stat.h>
#include <unistd.h>

static const char MODEL[] = "models/cca-books-15m.gguf";
enum { LIMIT = 3000, PARAGRAPHS = 30 };

static cca_engine *engine;
static cca_session *session;
static term quiet;
static char path[] = "/tmp/cca-test-conversation-XXXXXX";
static cca_error err;

static void ok(cca_status status) {
    if (status) fail_msg("%s", err.text);
}

static cca_session *open_session(void) {
    cca_session_options o = cca_session_defaults();
    cca_session *s;
    o.ctx_size = LIMIT;
    o.stored = true;
    ok(cca_session_new(&s, engine, &o, &err));
    return s;
}

static void begin_chat(conversation *c, const char *system, size_t most_marks) {
    chat_options options = {.system = system, .name = "plain"};
    ok(conversation_open(c, &options, engine, false, &quiet, &err));
    cca_session_reset(session);
    conversation_settle(c, session, LIMIT, most_marks);
}

/* Some 600 tokens that depend on seed: more than the window. */
static void read_document(conversation *c, int seed) {
    input_text text = {0};
    char line[80];
    for (int i = 0; i < PARAGRAPHS; i++) {
        int n = snprintf(line, sizeof line, "Paragraph %d tells of the year %d.\n", i,
                         1800 + (i * seed) % 97);
        assert_true(text_append(&text.text, line, (size_t)n));
    }
    ok(conversation_mark(c, &err));
    ok(conversation_read(c, "a document", &text, &err));
    assert_null(text.text.bytes);
    ok(conversation_prefill(c, false, &err));
}

/* A turn whose answer is given: its last token is not evaluated, as a decoder leaves it. */
static void turn(conversation *c, const char *question, const char *said) {
    text_buffer seen = {0};
    assert_true(text_append(&seen, said, strlen(said)));
    ok(conversation_mark(c, &err));
    ok(conversation_say(c, question, strlen(question), &err));
    ok(conversation_prefill(c, true, &err));
    int64_t n = prompt_length(&c->prompt);
    ok(cca_tokenizer_encode(&c->prompt.tokens, c->prompt.tok, said, strlen(said), 0, &err));
    int64_t more = prompt_length(&c->prompt) - n - 1;
    ok(cca_session_eval(session, c->prompt.tokens.ids + n, more, NULL, &err));
    ok(conversation_answered(c, n, &seen, true, &err));
    text_free(&seen);
}

/* The logits behind a question, which is taken back again; the caller frees them. */
static float *ask(conversation *c) {
    size_t bytes = (size_t)cca_engine_info(engine)->vocab_size * sizeof(float);
    size_t n = c->n_messages;
    float *copy = malloc(bytes);
    assert_non_null(copy);
    ok(conversation_mark(c, &err));
    ok(conversation_say(c, "And which year is it?", 21, &err));
    ok(conversation_prefill(c, true, &err));
    const float *logits = cca_session_logits(c->session, &err);
    assert_non_null(logits);
    memcpy(copy, logits, bytes);
    conversation_cut(c, n);
    return copy;
}

static void same_logits(conversation *c, const float *wanted) {
    float *own = ask(c);
    assert_memory_equal(own, wanted, (size_t)cca_engine_info(engine)->vocab_size * sizeof(float));
    free(own);
}

/* The same up to rounding, where the tokens were evaluated in other pieces. */
static void near_logits(conversation *c, const float *wanted) {
    float *own = ask(c);
    for (int64_t i = 0; i < cca_engine_info(engine)->vocab_size; i++) {
        float d = own[i] - wanted[i];
        if (d < -0.3F || d > 0.3F) fail_msg("logit %d: %g, not %g", (int)i, own[i], wanted[i]);
    }
    free(own);
}

static void turns_are_taken_back(void **state) {
    (void)state;
    conversation c;
    begin_chat(&c, "Be brief.", 8);
    assert_int_equal(conversation_before(&c), 0);
    read_document(&c, 3);
    turn(&c, "Who?", " Nobody at all.");
    size_t n_tokens = c.prompt.tokens.n;
    float *wanted = ask(&c);
    assert_int_equal(c.prompt.tokens.n, n_tokens);
    same_logits(&c, wanted);
    read_document(&c, 5);
    float *behind = ask(&c);
    turn(&c, "When?", " In the year 1812.");
    turn(&c, "Where?", " Here.");
    assert_int_equal(c.n_messages, 8);
    assert_int_equal(conversation_before(&c), 6);
    conversation_cut(&c, 6);
    assert_int_equal(conversation_before(&c), 4); /* the answer and its question */
    conversation_cut(&c, 4);
    same_logits(&c, behind);
    assert_int_equal(conversation_before(&c), 3); /* the document */
    conversation_cut(&c, 3);
    assert_int_equal(c.prompt.tokens.n, n_tokens);
    same_logits(&c, wanted);
    free(wanted);
    free(behind);
    conversation_close(&c);
}

/* Where marks were thinned out, what is missing is evaluated again; the ones behind long texts
 * stay. */
static void marks_are_thinned_out(void **state) {
    (void)state;
    conversation c;
    begin_chat(&c, NULL, 2);
    read_document(&c, 3);
    turn(&c, "Who?", " Nobody at all.");
    float *wanted = ask(&c);
    for (int i = 0; i < 4; i++) turn(&c, "When?", " In the year 1812.");
    assert_int_equal(c.n_marks, 2);
    assert_int_equal(cca_snapshot_pos(c.marks[0]), c.messages[1].begin);
    conversation_cut(&c, 3);
    assert_int_equal(c.n_marks, 1);
    assert_true(c.stale);
    near_logits(&c, wanted);
    free(wanted);
    conversation_close(&c);
}

/* What an answer has beyond what was seen of it. */
static void unseen_tokens_go(void **state) {
    (void)state;
    conversation c;
    text_buffer seen = {0};
    begin_chat(&c, NULL, 4);
    assert_true(text_append(&seen, "The old man", 11));
    ok(conversation_say(&c, "Who?", 4, &err));
    ok(conversation_prefill(&c, true, &err));
    size_t n = c.prompt.tokens.n;
    ok(cca_tokenizer_encode(&c.prompt.tokens, c.prompt.tok, " The old man\nand the sea", 24, 0,
                            &err));
    ok(cca_session_eval(session, c.prompt.tokens.ids + n, (int64_t)(c.prompt.tokens.n - n) - 1,
                        NULL, &err));
    ok(conversation_answered(&c, (int64_t)n, &seen, true, &err));
    cca_tokens want = {0};
    ok(cca_tokenizer_encode(&want, c.prompt.tok, " The old man", 12, 0, &err));
    assert_int_equal(c.prompt.tokens.n - n, want.n);
    assert_memory_equal(c.prompt.tokens.ids + n, want.ids, want.n * sizeof *want.ids);
    assert_true(c.stale);
    turn(&c, "And then?", " Nothing.");
    cca_tokens_free(&want);
    text_free(&seen);
    conversation_close(&c);
}

static void what_does_not_fit_is_refused(void **state) {
    (void)state;
    conversation c;
    begin_chat(&c, NULL, 4);
    turn(&c, "Who?", " Nobody at all.");
    float *wanted = ask(&c);
    size_t n = c.prompt.tokens.n;
    char *text = calloc(1, LIMIT * 4);
    assert_non_null(text);
    memset(text, 'x', LIMIT * 4 - 1);
    for (int i = 0; i < LIMIT * 4 - 1; i += 3) text[i] = ' ';
    assert_int_equal(conversation_say(&c, text, LIMIT * 4 - 1, &err), CCA_NO_FIT);
    assert_non_null(strstr(err.text, "of the context of 3000"));
    assert_int_equal(c.prompt.tokens.n, n);
    assert_int_equal(c.n_messages, 2);
    assert_int_equal(conversation_system(&c, text, &err), CCA_NO_FIT);
    assert_false(c.has_system);
    same_logits(&c, wanted);
    free(text);
    free(wanted);
    conversation_close(&c);
}

/* Another system text is as if it had been there from the start. */
static void the_system_text_changes(void **state) {
    (void)state;
    conversation c, fresh;
    begin_chat(&fresh, "Be very brief.", 4);
    read_document(&fresh, 3);
    turn(&fresh, "Who?", " Nobody at all.");
    float *wanted = ask(&fresh);
    begin_chat(&c, NULL, 4);
    read_document(&c, 3);
    turn(&c, "Who?", " Nobody at all.");
    ok(conversation_system(&c, "Be very brief.", &err));
    assert_int_equal(c.prompt.tokens.n, fresh.prompt.tokens.n);
    assert_memory_equal(c.prompt.tokens.ids, fresh.prompt.tokens.ids,
                        c.prompt.tokens.n * sizeof *c.prompt.tokens.ids);
    for (size_t i = 0; i < 3; i++) assert_int_equal(c.messages[i].begin, fresh.messages[i].begin);
    near_logits(&c, wanted);
    free(wanted);
    conversation_close(&c);
    conversation_close(&fresh);
}

static void files_have_all_of_it(void **state) {
    (void)state;
    conversation c, other;
    begin_chat(&c, "Be brief.", 8);
    read_document(&c, 3);
    c.n_base = 1;
    turn(&c, "Who?", " Nobody at all.");
    turn(&c, "When \"\\ é?", " In the year 1812.");
    unlink(path);
    ok(chat_file_save(&c, path, &err));
    float *wanted = ask(&c);
    conversation_cut(&c, 3);
    float *before = ask(&c);
    cca_session_free(session);
    session = open_session(); /* as another process would */
    begin_chat(&other, NULL, 8);
    turn(&other, "This", " goes.");
    ok(chat_file_load(&other, path, &err));
    assert_int_equal(other.n_messages, 5);
    assert_int_equal(other.n_base, 1);
    assert_memory_equal(other.system.bytes, "Be brief.", 9);
    assert_memory_equal(other.messages[3].text.text.bytes, "When \"\\ é?", 11);
    assert_memory_equal(other.messages[0].text.text.bytes, c.messages[0].text.text.bytes,
                        c.messages[0].text.text.size);
    assert_int_equal(other.messages[0].text.text.size, c.messages[0].text.text.size);
    same_logits(&other, wanted);
    conversation_cut(&other, 3); /* to the last turn's start, which the file has, too */
    assert_false(cca_session_pos(session) == 0);
    same_logits(&other, before);
    free(wanted);
    free(before);
    conversation_close(&c);
    conversation_close(&other);
}

/* A file that is kept up to date is what a saved one is. */
static void files_follow(void **state) {
    (void)state;
    conversation c, other;
    cca_store *store;
    unlink(path);
    begin_chat(&c, NULL, 8);
    ok(chat_file_open(&store, &c, path, &err));
    for (int i = 0; i < 5; i++) {
        turn(&c, "Who?", " Nobody at all, as far as anybody could have known.");
        ok(chat_file_append(store, &c, &err));
    }
    assert_int_equal(cca_store_n_points(store), 2); /* windows are large */
    conversation_cut(&c, 8);
    ok(chat_file_cut(store, &c, &err));
    assert_int_equal(cca_store_n_points(store), 1);
    turn(&c, "When?", " In the year 1812.");
    ok(chat_file_append(store, &c, &err));
    float *wanted = ask(&c);
    cca_store_close(store);
    begin_chat(&other, NULL, 8);
    ok(chat_file_open(&store, &other, path, &err));
    assert_int_equal(other.n_messages, 10);
    assert_memory_equal(other.messages[8].text.text.bytes, "When?", 5);
    same_logits(&other, wanted);
    cca_store_close(store);
    conversation_close(&other);
    begin_chat(&other, "Be brief.", 8); /* but the file has no system text */
    assert_int_equal(chat_file_open(&store, &other, path, &err), CCA_BAD_MODEL);
    assert_non_null(strstr(err.text, "began with other documents"));
    free(wanted);
    conversation_close(&c);
    conversation_close(&other);
}

/* ---- notes ----------------------------------------------------------------------------- */

/* A note that differs from a good one in one place. */
static void check_note(const conversation *c, const char *from, const char *to, const char *why) {
    conversation out;
    char *note = chat_note_write(c, prompt_length(&c->prompt) - 2);
    assert_non_null(note);
    char *at = strstr(note, from);
    if (!at) fail_msg("%s is not in %s", from, note);
    size_t size = strlen(note) + strlen(to) + 1;
    char *changed = calloc(1, size);
    assert_non_null(changed);
    snprintf(changed, size, "%.*s%s%s", (int)(at - note), note, to, at + strlen(from));
    cca_status status = chat_note_read(&out, c, changed, strlen(changed), c->prompt.tokens.ids,
                                       prompt_length(&c->prompt) - 2, "x.ccas", &err);
    if (!why) {
        ok(status);
        assert_int_equal(out.prompt.tokens.n, c->prompt.tokens.n);
        assert_memory_equal(out.prompt.tokens.ids, c->prompt.tokens.ids,
                            c->prompt.tokens.n * sizeof *c->prompt.tokens.ids);
        assert_int_equal(out.prompt.now.slot, c->prompt.now.slot);
        assert_int_equal(out.messages[0].text.text.size, c->messages[0].text.text.size);
        assert_memory_equal(out.messages[0].text.text.bytes, c->messages[0].text.text.bytes,
                            c->messages[0].text.text.size);
        conversation_close(&out);
    } else {
        assert_int_equal(status, CCA_BAD_MODEL);
        if (!strstr(err.text, why)) fail_msg("%s: %s", to, err.text);
        assert_non_null(strstr(err.text, "x.ccas"));
    }
    free(note);
    free(changed);
}

static void notes_are_checked(void **state) {
    (void)state;
    conversation c;
    begin_chat(&c, NULL, 4);
    read_document(&c, 3);
    turn(&c, "Who?", " Nobody at all.");
    check_note(&c, "{", "{", NULL);
    check_note(&c, "{", "[", "is no JSON");
    check_note(&c, "cca.chat.1", "cca.chat.9", "is none that this program knows");
    check_note(&c, "\"plain\"", "\"zephyr\"",
               "was made with --chat-template zephyr, this one has plain");
    check_note(&c, "\"base\":0", "\"base\":9", "do not fit");
    check_note(&c, "\"base\":0", "\"base\":-1", "do not fit");
    check_note(&c, "\"base\":0", "\"base\":2", "do not fit");
    check_note(&c, "\"role\":\"user\"", "\"role\":\"boss\"", "makes no sense");
    check_note(&c, "\"role\":\"user\"", "\"role\":\"assistant\"", "makes no sense");
    check_note(&c, "\"role\":\"assistant\"", "\"role\":\"user\"", "makes no sense");
    check_note(&c, "\"role\":\"document\",\"begin\":1", "\"role\":\"document\",\"begin\":-1",
               "makes no sense");
    check_note(&c, "\"role\":\"document\",\"begin\":1", "\"role\":\"document\",\"begin\":9999",
               "makes no sense");
    check_note(&c, "\"role\":\"document\",\"begin\":1", "\"role\":\"document\",\"begin\":0",
               "do not fit");
    check_note(&c, "\"pending\":[", "\"pending\":[-5,", "its ids");
    check_note(&c, "\"pending\":[", "\"pending\":[999999,", "its ids");
    check_note(&c, "\"name\":", "\"game\":", "makes no sense");
    check_note(&c, "\"messages\":[", "\"messages\":[3,", "makes no sense");
    conversation_close(&c);
}

static int begin_all(void **state) {
    (void)state;
    quiet.quiet = true;
    int fd = mkstemp(path);
    if (fd < 0 || close(fd) != 0) return -1;
    if (cca_engine_open(&engine, MODEL, NULL, &err) != CCA_OK) return -1;
    session = open_session();
    return 0;
}

static int end_all(void **state) {
    (void)state;
    unlink(path);
    cca_session_free(session);
    cca_engine_close(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_are_taken_back),
        cmocka_unit_test(marks_are_thinned_out),
        cmocka_unit_test(unseen_tokens_go),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(the_system_text_changes),
        cmocka_unit_test(files_have_all_of_it),
        cmocka_unit_test(files_follow),
        cmocka_unit_test(notes_are_checked),
    };
    return cmocka_run_group_tests(tests, begin_all, end_all);
}
