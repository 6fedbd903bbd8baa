/* Options: parsing, ranges, suggestions, help. */
#include "cli/args.h"
#include "cli/llama_cpp_names.h"

#include "tests/unit/test.h"

typedef struct test_options {
    bool flag;
    int64_t count, top, tile;
    double real;
    uint64_t size;
    const char *text, *choice;
    arg_list list, operands;
} test_options;

static const arg_option options[] = {
    {"flag", "x", .kind = ARG_FLAG, .at = offsetof(test_options, flag), .help = "a flag"},
    {"count", "n", .alias = "number", .kind = ARG_INT, .value = "N",
     .at = offsetof(test_options, count), .initial = "-1", .min = -1, .max = 1000,
     .help = "a number"},
    {"top", .kind = ARG_INT, .value = "N", .at = offsetof(test_options, top), .initial = "0",
     .bare = "3", .max = 9, .help = "a number that may be left out"},
    {"tile", .kind = ARG_INT, .value = "N|auto", .at = offsetof(test_options, tile),
     .initial = "auto", .word = "auto", .min = 1, .max = 64, .help = "a number or a word"},
    {"real", .kind = ARG_REAL, .value = "X", .at = offsetof(test_options, real), .initial = "0.5",
     .max = 1, .help = "a fraction"},
    {"size", .kind = ARG_SIZE, .value = "SIZE", .at = offsetof(test_options, size),
     .help = "bytes"},
    {"text", "txt", .kind = ARG_TEXT, .value = "TEXT", .at = offsetof(test_options, text),
     .help = "a text"},
    {"choice", .kind = ARG_CHOICE, .value = "C", .at = offsetof(test_options, choice),
     .initial = "auto", .choices = "auto|on|off", .help = "a choice"},
    {"prompt", "p", .kind = ARG_LIST, .value = "TEXT", .at = offsetof(test_options, list),
     .tag = 'p', .help = "a list"},
    {"file", "f", .kind = ARG_LIST, .value = "FILE", .at = offsetof(test_options, list), .tag = 'f',
     .help = "the same list"},
    {"operand", .kind = ARG_OPERAND, .value = "IN", .at = offsetof(test_options, operands),
     .max = 2, .help = "an operand"},
    {0},
};

static const arg_group groups[] = {{"Options", options, 0}, {0}};

/* Parses the words of line, which is cut up and must outlive out. */
static cca_status parse(test_options *out, char *line, bool *help, cca_error *err) {
    char *argv[32] = {"test"};
    int argc = 1;
    for (char *word = strtok(line, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
    *out = (test_options){0};
    return args_parse(out, groups, argc, argv, help, err);
}

static void accept(test_options *out, char *line) {
    cca_error err;
    bool help;
    assert_int_equal(parse(out, line, &help, &err), CCA_OK);
    assert_false(help);
}

/* The message holds part. */
static void refuse(const char *text, const char *part) {
    test_options o;
    cca_error err;
    bool help;
    char line[200];
    snprintf(line, sizeof line, "%s", text);
    assert_int_equal(parse(&o, line, &help, &err), CCA_USAGE);
    if (!strstr(err.text, part)) fail_msg("\"%s\" does not hold \"%s\"", err.text, part);
    args_free(&o, groups);
}

static void test_defaults(void **state) {
    test_options o;
    char line[] = "";
    (void)state;
    accept(&o, line);
    assert_false(o.flag);
    assert_int_equal(o.count, -1);
    assert_true(o.real == 0.5);
    assert_string_equal(o.choice, "auto");
    assert_null(o.text);
    assert_int_equal(o.list.n, 0);
}

static void test_values(void **state) {
    test_options o;
    char line[] = "-x -n 7 --real=0.25 --size 1.5K -txt hello --choice off";
    (void)state;
    accept(&o, line);
    assert_true(o.flag);
    assert_int_equal(o.count, 7);
    assert_true(o.real == 0.25);
    assert_int_equal(o.size, 1536);
    assert_string_equal(o.text, "hello");
    assert_string_equal(o.choice, "off");
}

static void test_spellings(void **state) {
    test_options o;
    char equals[] = "--count=8", alias[] = "--number 9", negative[] = "-n -1",
         twice[] = "-n 1 -n 2";
    char empty[] = "--text=", capitals[] = "--choice OFF --tile Auto -txt OFF";
    (void)state;
    accept(&o, equals);
    assert_int_equal(o.count, 8);
    accept(&o, alias);
    assert_int_equal(o.count, 9);
    accept(&o, negative);
    assert_int_equal(o.count, -1);
    accept(&o, twice);
    assert_int_equal(o.count, 2);
    accept(&o, empty);
    assert_string_equal(o.text, "");
    accept(&o, capitals);
    assert_string_equal(o.choice, "off");
    assert_int_equal(o.tile, -1);
    assert_string_equal(o.text, "OFF");
}

static void test_lists_keep_the_order(void **state) {
    test_options o;
    char line[] = "-p one -f two --prompt=three -f -";
    static const char tags[] = "pfpf";
    static const char *const texts[] = {"one", "two", "three", "-"};
    (void)state;
    accept(&o, line);
    assert_int_equal(o.list.n, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(o.list.items[i].tag, tags[i]);
        assert_string_equal(o.list.items[i].text, texts[i]);
    }
    args_free(&o, groups);
    assert_int_equal(o.list.n, 0);
}

static void test_operands(void **state) {
    test_options o;
    char line[] = "a -x -- --count";
    (void)state;
    accept(&o, line);
    assert_int_equal(o.operands.n, 2);
    assert_string_equal(o.operands.items[0].text, "a");
    assert_string_equal(o.operands.items[1].text, "--count");
    args_free(&o, groups);
    refuse("a b c", "unexpected argument c");
}

static void test_a_word_for_a_number(void **state) {
    (void)state;
    static const struct {
        const char *line;
        int64_t tile;
    } all[] = {{"", -1}, {"--tile 5", 5}, {"--tile=auto", -1}, {"--tile 5 --tile auto", -1}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        test_options o;
        char line[64];
        snprintf(line, sizeof line, "%s", all[i].line);
        accept(&o, line);
        assert_int_equal(o.tile, all[i].tile);
        args_free(&o, groups);
    }
    refuse("--tile -1", "--tile -1: outside 1 … 64");
    refuse("--tile any", "--tile any: a whole number or auto expected");
}

static void test_bare_options(void **state) {
    (void)state;
    static const struct {
        const char *line;
        int64_t top;
        size_t n_operands;
    } all[] = {{"", 0, 0},          {"--top", 3, 0},    {"--top 5", 5, 0}, {"--top=7 a", 7, 1},
               {"--top a b", 3, 2}, {"--top -x", 3, 0}, {"a --top", 3, 1}, {"--top 5 5", 5, 1}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        test_options o;
        char line[64];
        snprintf(line, sizeof line, "%s", all[i].line);
        accept(&o, line);
        assert_int_equal(o.top, all[i].top);
        assert_int_equal(o.operands.n, all[i].n_operands);
        args_free(&o, groups);
    }
    refuse("--top=x", "--top x: a whole number expected");
    refuse("--top 10", "outside");
}

static void test_refusals(void **state) {
    (void)state;
    refuse("-n 3x", "--count 3x");
    refuse("-n", "-n needs a value");
    refuse("-n 1001", "outside -1");
    refuse("-n -2", "outside -1");
    refuse("-n 99999999999999999999", "--count");
    refuse("--real 1.5", "outside 0");
    refuse("--real nan", "a number expected");
    refuse("--size 5X", "a size");
    refuse("--size -1", "a size");
    refuse("--size 1e30", "a size");
    refuse("--choice of", "auto|on|off expected");
    refuse("--choice auto|on", "expected");
    refuse("--flag=yes", "takes no value");
    refuse("--operand x", "unknown option --operand");
}

static void test_unknown_options_name_the_nearest(void **state) {
    (void)state;
    refuse("--cuont 3", "unknown option --cuont; the nearest one is --count");
    refuse("--chioce=on", "unknown option --chioce; the nearest one is --choice");
    refuse("-tx 3", "unknown option -tx; the nearest one is -txt");
    refuse("-count 3", "unknown option -count; the nearest one is --count");
    refuse("--pro 3", "the nearest one is --prompt");
    refuse("--counter 3", "the nearest one is --count");
    refuse("--perplexity", "unknown option --perplexity");
    refuse("-ngl 99", "unknown option -ngl: a model is on its device as a whole");
    refuse("--gpu-layers=99", "unknown option --gpu-layers: a model is on its device as a whole");
    refuse("-fa", "unknown option -fa: attention");
    refuse("-r User:", "unknown option -r: --stop");
    refuse("--n-predict 3", "unknown option --n-predict: -n N");
    refuse("--keep 4", "unknown option --keep: nothing is dropped");
}

static const char *nearest(const char *word) {
    static const char *const names[] = {"generate", "ppl", "bench", "completion", "f", "x"};
    return args_nearest(word, names, sizeof names / sizeof *names);
}

static void test_what_is_far_is_not_the_nearest(void **state) {
    (void)state;
    assert_string_equal(nearest("gen"), "generate");
    assert_string_equal(nearest("genrate"), "generate");
    assert_string_equal(nearest("benchmark"), "bench");
    assert_string_equal(nearest("pplx"), "ppl");
    assert_null(nearest("perplexity"));
    assert_null(nearest("compare"));
    assert_null(nearest("fa"));
    assert_null(nearest("q"));
    assert_null(nearest(""));
    assert_null(llama_cpp_option(""));
    assert_null(llama_cpp_option(" ngl"));
    assert_null(llama_cpp_option("ng"));
    assert_null(llama_cpp_option("gl"));
    assert_null(llama_cpp_program("llama-"));
    assert_string_equal(llama_cpp_program("llama-perplexity"), "it is cca ppl here");
    assert_string_equal(llama_cpp_program("perplexity"), "it is cca ppl here");
}

static void test_help_stops_the_parse(void **state) {
    test_options o;
    cca_error err;
    bool help;
    char line[] = "-n 3 --help --nonsense";
    (void)state;
    assert_int_equal(parse(&o, line, &help, &err), CCA_OK);
    assert_true(help);
}

static void test_help_fits_80_columns(void **state) {
    char *text = NULL;
    size_t size = 0;
    (void)state;
    FILE *to = open_memstream(&text, &size);
    args_help(to, groups);
    fclose(to);
    assert_non_null(strstr(text, "  -n, --count N"));
    assert_non_null(strstr(text, "[-1]"));
    assert_non_null(strstr(text, "(also --number)"));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        assert_true(strlen(line) <= 80);
    }
    free(text);
}

static void test_sizes(void **state) {
    uint64_t size;
    (void)state;
    assert_true(args_size(&size, "0") && size == 0);
    assert_true(args_size(&size, "512") && size == 512);
    assert_true(args_size(&size, "2k") && size == 2048);
    assert_true(args_size(&size, "3MiB") && size == 3u << 20);
    assert_true(args_size(&size, "8G") && size == UINT64_C(8) << 30);
    assert_false(args_size(&size, ""));
    assert_false(args_size(&size, "G"));
    assert_false(args_size(&size, "8GG"));
    static const char *const others[] = {"0x10",   "0X1p3", "1e3", "1E3",
                                         "1.5.5M", "+1",    "inf", "nan"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (args_size(&size, others[i])) fail_msg("%s is taken for a size", others[i]);
    }
    assert_false(args_size(&size, "9999999999G"));
}

static void test_single_options(void **state) {
    (void)state;
    test_options o = {0};
    cca_error err = {.text = ""};
    char value[ARGS_VALUE_TEXT];
    assert_int_equal(args_set(&o, groups, "count", "12", &err), CCA_OK);
    assert_int_equal(args_set(&o, groups, "real", "0.25", &err), CCA_OK);
    assert_int_equal(o.count, 12);
    assert_string_equal(args_value(value, &o, &options[1]), "12");
    assert_string_equal(args_value(value, &o, &options[4]), "0.25");
    assert_int_equal(args_set(&o, groups, "tile", "auto", &err), CCA_OK);
    assert_string_equal(args_value(value, &o, &options[3]), "auto");
    assert_int_equal(args_set(&o, groups, "number", "7", &err), CCA_OK);
    assert_int_equal(args_set(&o, groups, "count", "7x", &err), CCA_USAGE);
    assert_int_equal(args_set(&o, groups, "real", "2", &err), CCA_USAGE);
    assert_int_equal(o.count, 7);
    assert_true(o.real == 0.25);
    assert_int_equal(args_set(&o, groups, "cout", "1", &err), CCA_USAGE);
    assert_non_null(strstr(err.text, "--cout; the nearest one is --count"));
    char longest[200];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(args_set(&o, groups, longest, "1", &err), CCA_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_lists_keep_the_order),
        cmocka_unit_test(test_operands),
        cmocka_unit_test(test_a_word_for_a_number),
        cmocka_unit_test(test_bare_options),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_unknown_options_name_the_nearest),
        cmocka_unit_test(test_what_is_far_is_not_the_nearest),
        cmocka_unit_test(test_help_stops_the_parse),
        cmocka_unit_test(test_help_fits_80_columns),
        cmocka_unit_test(test_single_options),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
