/* Output: whole characters, stop texts, files that appear whole or not at all. */
#include "cli/output.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file that output_open writes to directly, since it is a pipe's end. */
typedef struct sink {
    int read_end;
    output out;
} sink;

static sink make_sink(void) {
    sink s = {0};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    s.read_end = ends[0];
    s.out = (output){.fd = ends[1], .name = "pipe"};
    return s;
}

/* What has arrived since the last call. */
static void expect_arrived(sink *s, const char *text) {
    char bytes[256];
    ssize_t n = 0;
    int flags = fcntl(s->read_end, F_GETFL);
    fcntl(s->read_end, F_SETFL, flags | O_NONBLOCK);
    n = read(s->read_end, bytes, sizeof bytes - 1);
    bytes[n > 0 ? n : 0] = '\0';
    assert_string_equal(bytes, text);
}

static void close_sink(sink *s) {
    cca_error err;
    assert_int_equal(output_close(&s->out, true, &err), CCA_OK);
    close(s->read_end);
}

static void add(answer *a, const char *text) {
    cca_error err;
    assert_int_equal(answer_add(a, text, strlen(text), &err), CCA_OK);
}

static void end(answer *a) {
    cca_error err;
    assert_int_equal(answer_end(a, &err), CCA_OK);
    answer_free(a);
}

static void test_whole_characters(void **state) {
    sink s = make_sink();
    answer a;
    (void)state;
    answer_begin(&a, &s.out, &(answer_options){.format = ANSWER_TEXT});
    add(&a, "a\xe2");
    expect_arrived(&s, "a");
    add(&a, "\x82");
    expect_arrived(&s, "");
    add(&a, "\xac!");
    expect_arrived(&s, "\xe2\x82\xac!");
    add(&a, "\xff"); /* never a character: passed on */
    expect_arrived(&s, "\xff");
    add(&a, "\xf0\x9f");
    expect_arrived(&s, "");
    end(&a);
    expect_arrived(&s, "\xf0\x9f");
    close_sink(&s);
}

static void test_stop_text_over_tokens(void **state) {
    sink s = make_sink();
    answer a;
    text_buffer stops[] = {{.bytes = "END", .size = 3}, {.bytes = "\n\n", .size = 2}};
    (void)state;
    answer_begin(&a, &s.out, &(answer_options){.stops = stops, .n_stops = 2});
    add(&a, "one E");
    expect_arrived(&s, "one ");
    add(&a, "N");
    expect_arrived(&s, "");
    add(&a, "ENe E");
    expect_arrived(&s, "ENENe ");
    assert_false(a.stopped);
    add(&a, "ND more");
    assert_true(a.stopped);
    add(&a, "and more");
    end(&a);
    expect_arrived(&s, "");
    answer_begin(&a, &s.out, &(answer_options){.stops = stops, .n_stops = 2});
    add(&a, "x\n\nEND");
    assert_true(a.stopped);
    expect_arrived(&s, "x");
    end(&a);
    answer_begin(&a, &s.out, &(answer_options){.stops = stops, .n_stops = 2});
    add(&a, "x EN");
    expect_arrived(&s, "x ");
    end(&a); /* it did not come */
    expect_arrived(&s, "EN");
    close_sink(&s);
}

static void test_first_space(void **state) {
    sink s = make_sink();
    answer a;
    (void)state;
    answer_begin(&a, &s.out, &(answer_options){.strip_space = true});
    add(&a, "");
    add(&a, " Once");
    add(&a, " upon");
    expect_arrived(&s, "Once upon");
    end(&a);
    answer_begin(&a, &s.out, &(answer_options){.strip_space = true});
    add(&a, " ");
    add(&a, " two");
    expect_arrived(&s, " two");
    end(&a);
    close_sink(&s);
}

static void test_event_lines(void **state) {
    sink s = make_sink();
    answer a;
    (void)state;
    answer_begin(&a, &s.out, &(answer_options){.format = ANSWER_JSONL});
    add(&a, "a\"\n");
    expect_arrived(&s, "{\"event\": \"text\", \"text\": \"a\\\"\\n\"}\n");
    add(&a, "\xff");
    expect_arrived(&s, "{\"event\": \"text\", \"text\": \"\xef\xbf\xbd\"}\n");
    end(&a);
    close_sink(&s);
}

static void test_json_strings(void **state) {
    (void)state;
    json_t *value = output_string("a\0\xc3", 3);
    assert_int_equal(json_string_length(value), 5);
    assert_memory_equal(json_string_value(value), "a\0\xef\xbf\xbd", 5);
    json_decref(value);
    value = output_string(NULL, 0);
    assert_int_equal(json_string_length(value), 0);
    json_decref(value);
}

static void expect_file(const char *path, const char *text) {
    char bytes[64] = "";
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    ssize_t n = read(fd, bytes, sizeof bytes - 1);
    close(fd);
    assert_int_equal(n, strlen(text));
    assert_string_equal(bytes, text);
}

static void test_files_are_whole(void **state) {
    char folder[] = "/tmp/cca-test-output-XXXXXX", path[64], link_path[64];
    output out;
    cca_error err;
    struct stat info;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/answer", folder);
    snprintf(link_path, sizeof link_path, "%s/link", folder);

    assert_int_equal(output_open(&out, path, &err), CCA_OK);
    output_write(&out, "one", 3);
    assert_int_equal(output_flush(&out, &err), CCA_OK);
    assert_int_not_equal(access(path, F_OK), 0); /* not before it is complete */
    assert_int_equal(output_close(&out, true, &err), CCA_OK);
    expect_file(path, "one");

    assert_int_equal(output_open(&out, path, &err), CCA_OK);
    output_write(&out, "two", 3);
    assert_int_equal(output_close(&out, false, &err), CCA_OK);
    expect_file(path, "one"); /* a failure leaves what was there */

    assert_int_equal(symlink("answer", link_path), 0);
    assert_int_equal(output_open(&out, link_path, &err), CCA_OK);
    output_write(&out, "three", 5);
    assert_int_equal(output_close(&out, true, &err), CCA_OK);
    expect_file(path, "three");
    assert_int_equal(lstat(link_path, &info), 0);
    assert_true(S_ISLNK(info.st_mode));

    unlink(link_path);
    unlink(path);
    assert_int_equal(rmdir(folder), 0); /* nothing else is left */
}

static void test_failures(void **state) {
    output out;
    cca_error err;
    (void)state;
    assert_int_equal(output_open(&out, "/nonexistent/file", &err), CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, "/nonexistent/file"));
    assert_int_equal(output_close(&out, false, &err), CCA_OK);

    assert_int_equal(output_open(&out, "/dev/full", &err), CCA_OK);
    output_write(&out, "x", 1);
    assert_int_equal(output_close(&out, true, &err), CCA_BAD_OUTPUT);
    assert_non_null(strstr(err.text, "/dev/full: cannot write"));

    sink s = make_sink();
    signal(SIGPIPE, SIG_IGN);
    close(s.read_end);
    output_write(&s.out, "x", 1);
    assert_int_equal(output_flush(&s.out, &err), 141);
    output_close(&s.out, false, &err);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_characters), cmocka_unit_test(test_stop_text_over_tokens),
        cmocka_unit_test(test_first_space),      cmocka_unit_test(test_event_lines),
        cmocka_unit_test(test_json_strings),     cmocka_unit_test(test_files_are_whole),
        cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
