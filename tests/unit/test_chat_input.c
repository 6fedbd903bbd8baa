/* What is typed in a chat: messages of several lines, commands. */
#include "cli/chat/chat_commands.h"
#include "cli/chat/chat_draft.h"

#include "test.h"

/* The message that lines make, each given with its newline; wants text, or NULL where it is still
 * open behind the last line. */
static void check_message(const char *lines, const char *text, bool quoted) {
    chat_draft d = {0};
    chat_draft_state state = CHAT_DRAFT_OPEN;
    while (*lines) {
        size_t size = strcspn(lines, "\n");
        assert_int_equal(state, CHAT_DRAFT_OPEN);
        state = chat_draft_add(&d, lines, size);
        lines += size + 1;
    }
    assert_int_equal(state, text ? CHAT_DRAFT_DONE : CHAT_DRAFT_OPEN);
    if (text) {
        assert_int_equal(d.text.size, strlen(text));
        if (d.text.size > 0) assert_memory_equal(d.text.bytes, text, d.text.size);
        assert_int_equal(d.quoted, quoted);
    }
    chat_draft_free(&d);
}

static void messages_of_several_lines(void **state) {
    (void)state;
    check_message("one\n", "one", false);
    check_message("\n", "", false);
    check_message("one\\\ntwo\n", "one\ntwo", false);
    check_message("one\\\n\\\n\\\nfour\n", "one\n\n\nfour", false);
    check_message("one\\\n", NULL, false);
    check_message("a \\ b\n", "a \\ b", false);
    check_message("\"\"\"one\"\"\"\n", "one", true);
    check_message("\"\"\"\none\ntwo\n\"\"\"\n", "one\ntwo", true);
    check_message("\"\"\"one\n\ntwo\\\nthree\"\"\"\n", "one\n\ntwo\\\nthree", true);
    check_message("\"\"\"\n\"\"\"\n", "", true);
    check_message("\"\"\"\n\n\"\"\"\n", "", true);
    check_message("\"\"\"\n\n\n\"\"\"\n", "\n", true);
    check_message("\"\"\"\"\"\"\n", "", true);
    check_message("\"\"\"one\n", NULL, true);
    check_message("say \"\"\"this\"\"\"\n", "say \"\"\"this\"\"\"", false);
    check_message("one\\\n\"\"\"two\n", "one\n\"\"\"two", false);
    check_message("\"\"\"/quit\"\"\"\n", "/quit", true);
}

static void a_paste_is_one_message(void **state) {
    (void)state;
    static const char paste[] = "first\n/quit\n\nlast \\ \"\"\" of it";
    chat_draft d = {0};
    assert_int_equal(chat_draft_add(&d, paste, sizeof paste - 1), CHAT_DRAFT_DONE);
    assert_int_equal(d.text.size, sizeof paste - 1);
    assert_memory_equal(d.text.bytes, paste, sizeof paste - 1);
    assert_false(chat_command_is(d.text.bytes, d.text.size));
    chat_draft_free(&d);
    assert_int_equal(chat_draft_add(&d, "/read a\n/read b", 15), CHAT_DRAFT_DONE);
    assert_false(chat_command_is(d.text.bytes, d.text.size));
    chat_draft_free(&d);
}

static void blank_lines_say_nothing(void **state) {
    (void)state;
    chat_draft d = {0};
    assert_true(chat_draft_is_blank(&d));
    assert_int_equal(chat_draft_add(&d, " \t\r", 3), CHAT_DRAFT_DONE);
    assert_true(chat_draft_is_blank(&d));
    assert_int_equal(chat_draft_add(&d, "\0", 1), CHAT_DRAFT_DONE);
    assert_false(chat_draft_is_blank(&d));
    chat_draft_free(&d);
}

static void check_command(const char *line, chat_verb verb, const char *argument) {
    chat_command c = {0};
    cca_error err = {.text = ""};
    assert_true(chat_command_is(line, strlen(line)));
    if (chat_command_parse(&c, line, strlen(line), &err)) fail_msg("%s: %s", line, err.text);
    assert_int_equal(c.verb, verb);
    assert_string_equal(c.argument, argument);
    free(c.argument);
}

static void check_refused(const char *line, const char *why) {
    chat_command c = {0};
    cca_error err = {.text = ""};
    assert_int_equal(chat_command_parse(&c, line, strlen(line), &err), CCA_USAGE);
    if (!strstr(err.text, why)) fail_msg("%s: %s", line, err.text);
    assert_null(c.argument);
}

static void commands_are_parsed(void **state) {
    (void)state;
    check_command("/read a file.txt", CHAT_READ, "a file.txt");
    check_command("/read \t a.txt \r", CHAT_READ, "a.txt");
    check_command("/save s", CHAT_SAVE, "s");
    check_command("/load s", CHAT_LOAD, "s");
    check_command("/undo", CHAT_UNDO, "");
    check_command("/undo 3", CHAT_UNDO, "3");
    check_command("/regen", CHAT_REGEN, "");
    check_command("/clear  ", CHAT_CLEAR, "");
    check_command("/system Be brief.", CHAT_SYSTEM, "Be brief.");
    check_command("/system", CHAT_SYSTEM, "");
    check_command("/set temp 0.5", CHAT_SET, "temp 0.5");
    check_command("/stats", CHAT_STATS, "");
    check_command("/help", CHAT_HELP, "");
    check_command("/?", CHAT_HELP, "");
    check_command("/quit", CHAT_QUIT, "");
    check_command("/exit", CHAT_QUIT, "");
    check_refused("/", "unknown command / (/help");
    check_refused("/rea x", "the nearest one is /read");
    check_refused("/quit now", "/quit takes no argument");
    check_refused("/read", "/read needs an argument: /read FILE");
    check_refused("/save  ", "/save needs an argument");
    chat_command c = {0};
    cca_error err = {.text = ""};
    assert_int_equal(chat_command_parse(&c, "/system a\0b", 11, &err), CCA_USAGE);
    assert_string_equal(err.text, "/system: there is a NUL in this command");
    check_refused("/frobnicate", "unknown command /frobnicate (/help");
    check_refused("/a-name-that-is-much-longer-than-any-that-there-is", "unknown command");
    assert_false(chat_command_is("read", 4));
    assert_false(chat_command_is("", 0));
    assert_false(chat_command_is(" /quit", 6));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_several_lines),
        cmocka_unit_test(a_paste_is_one_message),
        cmocka_unit_test(blank_lines_say_nothing),
        cmocka_unit_test(commands_are_parsed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
