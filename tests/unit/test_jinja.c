/* Templates in Jinja against Jinja2's renderings (tests/golden/jinja), then what is ours: where
 * bytes come from, lines of errors, bounds. */
#include "jinja/jinja.h"

#include "test.h"

enum { N_CASES = 302 }; /* of the golden file */

static cca_error err;

static cca_status parse(cca_jinja **out, const char *text) {
    return cca_jinja_parse(out, text, strlen(text), "t", &err);
}

/* A rendering with variables in JSON, which begins a line with what failed. */
static cca_jinja_output render(const char *text, const char *variables) {
    cca_jinja *t;
    cca_jinja_output out = {0};
    json_t *json = json_loads(variables, 0, NULL);
    assert_non_null(json);
    if (parse(&t, text)) fail_msg("%s", err.text);
    if (cca_jinja_render(&out, t, &(cca_jinja_input){.variables = json}, &err)) {
        fail_msg("%s", err.text);
    }
    cca_jinja_free(t);
    json_decref(json);
    return out;
}

static void renders(const char *text, const char *variables, const char *want) {
    cca_jinja_output out = render(text, variables);
    assert_string_equal(out.bytes, want);
    cca_jinja_output_free(&out);
}

/* ---- as Jinja2 has it ------------------------------------------------------------------ */

static void check_case(const json_t *one, const json_t *variables) {
    const char *text = json_string_value(json_object_get(one, "template"));
    const json_t *want = json_object_get(one, "text");
    cca_jinja *t;
    cca_jinja_output out = {0};
    cca_status status =
        cca_jinja_parse(&t, text, json_string_length(json_object_get(one, "template")), "t", &err);
    if (!status) {
        status = cca_jinja_render(&out, t, &(cca_jinja_input){.variables = variables}, &err);
    }
    cca_jinja_free(t);
    if (status && want) fail_msg("%s\n%s", text, err.text);
    if (!status && !want) fail_msg("%s\nrenders: %s", text, out.bytes);
    if (want && (!out.bytes || strcmp(out.bytes, json_string_value(want)) != 0)) {
        fail_msg("%s\nis:   %s\nwant: %s", text, out.bytes, json_string_value(want));
    }
    if (want) assert_int_equal(out.size, json_string_length(want));
    cca_jinja_output_free(&out);
}

static void renders_as_jinja2_does(void **state) {
    (void)state;
    json_error_t why;
    json_t *all = json_load_file("tests/golden/jinja/cases.json", JSON_ALLOW_NUL, &why);
    if (!all) fail_msg("%s", why.text);
    const json_t *cases = json_object_get(all, "cases");
    assert_int_equal(json_array_size(cases), N_CASES);
    for (size_t i = 0; i < N_CASES; i++) {
        check_case(json_array_get(cases, i), json_object_get(all, "variables"));
    }
    json_decref(all);
}

/* The sanitizers see what overflows beside these. */
static void numbers_at_their_ends(void **state) {
    (void)state;
    const char *least = "{\"n\": -9223372036854775808}";
    renders("{{ n % 3 }} {{ 9223372036854775807 % -2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 6 % -3 }}",
            least, "1 -1 2 -2 0");
    renders("{{ 'a'.center(n) }}{{ 'b'.ljust(n) }}{{ '-1'.zfill(n) }}{{ 'c'|center(n) }}", least,
            "ab-1c");
    renders("{{ range(9223372036854775807, 9223372036854775806, -1) }}", "{}",
            "range(9223372036854775807, 9223372036854775807)");
    renders("{{ range(2) }}{{ range(0) }}{{ 1|round(n) is number }}", least,
            "range(0, 2)range(0, 0)True");
}

/* Lists and dicts may change, which transformers forbids. */
static void lists_and_dicts_change(void **state) {
    (void)state;
    renders(
        "{% set l = [1] %}{% set _ = l.append(2) %}{{ l }}{{ l.pop(0) }}{{ l }}"
        "{% set _ = l.insert(0, 9) %}{% set _ = l.extend([3, 4]) %}{% set _ = l.remove(3) %}"
        "{{ l }}{% set _ = l.reverse() %}{{ l }}{% set k = l.copy() %}{{ l.clear() }}{{ l }}{{ k }}",
        "{}", "[1, 2]1[2][9, 2, 4][4, 2, 9]None[][4, 2, 9]");
    renders("{% set d = {'a': 1} %}{{ d.update({'b': 2}, c=3) }}{{ d }}{{ d.pop('a') }}"
            "{{ d.pop('x', 7) }}{{ d.setdefault('e', 5) }}{{ d.setdefault('b', 5) }}{{ d }}"
            "{{ d.clear() }}{{ d }}",
            "{}", "None{'a': 1, 'b': 2, 'c': 3}1752{'b': 2, 'c': 3, 'e': 5}None{}");
}

static void the_time_is_given(void **state) {
    (void)state;
    cca_jinja *t;
    cca_jinja_output out;
    json_t *none = json_object();
    assert_int_equal(parse(&t, "{{ strftime_now('%d %B %Y') }}|{{ strftime_now('') }}"), CCA_OK);
    cca_jinja_input input = {.variables = none, .now = 1000000000 /* 2001-09-09 01:46:40 UTC */};
    assert_int_equal(cca_jinja_render(&out, t, &input, &err), CCA_OK);
    assert_non_null(strstr(out.bytes, "September 2001|"));
    cca_jinja_output_free(&out);
    cca_jinja_free(t);
    json_decref(none);
}

/* ---- where bytes come from ------------------------------------------------------------- */

/* The output with the bytes of contents in brackets: <content:offset text>. */
static void traces(const char *text, const char *want) {
    cca_jinja *t;
    cca_jinja_output out = {0};
    char got[512] = "";
    json_t *a = json_string("  One </s> two\n"), *b = json_string("x,y"),
           *c = json_string("\xc3\x9f");
    json_t *variables = json_pack("{s:O, s:O, s:O, s:{s:O}}", "a", a, "b", b, "c", c, "d", "b", b);
    const json_t *contents[] = {a, b, c};
    cca_jinja_input input = {.variables = variables, .contents = contents, .n_contents = 3};
    if (parse(&t, text) || cca_jinja_render(&out, t, &input, &err)) fail_msg("%s", err.text);
    size_t at = 0, n = 0;
    for (size_t i = 0; i <= out.n_spans; i++) {
        size_t begin = i < out.n_spans ? out.spans[i].begin : out.size;
        assert_true(begin >= at);
        n += (size_t)snprintf(got + n, sizeof got - n, "%.*s", (int)(begin - at), out.bytes + at);
        if (i == out.n_spans) break;
        at = out.spans[i].end;
        assert_true(at > begin && at <= out.size);
        n += (size_t)snprintf(got + n, sizeof got - n, "<%zu:%zu %.*s>", out.spans[i].content,
                              out.spans[i].offset, (int)(at - begin), out.bytes + begin);
    }
    assert_string_equal(got, want);
    cca_jinja_output_free(&out);
    cca_jinja_free(t);
    json_decref(variables);
    json_decref(a);
    json_decref(b);
    json_decref(c);
}

static void bytes_know_their_content(void **state) {
    (void)state;
    traces("{{ b }}", "<1:0 x,y>");
    traces("[{{ a|trim }}]", "[<0:2 One </s> two>]");
    traces("{{ '</s>' + b + '</s>' }}{{ b ~ b }}", "</s><1:0 x,y></s><1:0 x,y><1:0 x,y>");
    traces("{{ b.split(',') | join('+') }}", "<1:0 x>+<1:2 y>");
    traces("{{ b.replace(',', ';') }}", "<1:0 x>;<1:2 y>");
    traces("{{ 'a,c'.replace(',', b) }}", "a<1:0 x,y>c");
    traces("{{ b|upper }}{{ b[0] }}{{ b[::-1] }}", "<1:0 X,Y><1:0 x><1:2 y><1:1 ,><1:0 x>");
    traces("{{ c|upper }}", "<2:0 SS>");
    traces("{{ a.strip().split('</s>')[-1].lstrip() }}", "<0:11 two>");
    traces("{{ {'k': b}|tojson }}{{ [b] }}", "{\"k\": \"<1:0 x,y>\"}['<1:0 x,y>']");
    traces("{{ a[13:]|tojson }}", "\"<0:13 o\\n>\"");
    traces("{{ '%s|%s' % (b, 1) }}{{ '{}'.format(b) }}{{ '%s'|format(b) }}",
           "<1:0 x,y>|1<1:0 x,y><1:0 x,y>");
    traces("{% set v %}({{ b }}){% endset %}{{ v|upper }}", "(<1:0 X,Y>)");
    traces("{% macro f(v) %}<{{ v }}>{% endmacro %}{{ f(b) }}", "<<1:0 x,y>>");
    traces("{% for i in b %}{{ i }}{% endfor %}{{ b|list|last }}{{ b|first }}",
           "<1:0 x,y><1:2 y><1:0 x>");
    traces("{{ b|indent(2, true) }}{{ b * 2 }}", "  <1:0 x,y><1:0 x,y><1:0 x,y>");
    traces("{{ 'role' }}{{ d.b }}{{ d[b] is defined }}", "role<1:0 x,y>False");
    traces("{{ strftime_now(b) }}", "<1:0 x,y>");
    traces("{{ {b: 1} }}", "{'<1:0 x,y>': 1}");
    traces("{{ ('<'|safe) + (b|e) }}{{ ('&'|safe) + b }}", "<<1:0 x,y>&<1:0 x,y>");
}

/* ---- what cannot be -------------------------------------------------------------------- */

/* The message behind "t, line ". */
static void refused_as(cca_status wanted, const char *text, const char *message) {
    cca_jinja *t;
    cca_jinja_output out;
    json_t *none = json_object();
    cca_status status = parse(&t, text);
    if (!status) status = cca_jinja_render(&out, t, &(cca_jinja_input){.variables = none}, &err);
    if (!status) fail_msg("%s\nrenders: %s", text, out.bytes);
    assert_int_equal(status, wanted);
    assert_int_equal(strncmp(err.text, "t, line ", 8), 0);
    assert_string_equal(err.text + 8, message);
    cca_jinja_free(t);
    json_decref(none);
}

static void refused(const char *text, const char *message) {
    refused_as(CCA_BAD_MODEL, text, message);
}

static void errors_name_the_line(void **state) {
    (void)state;
    refused("a\n{{ b.c }}", "2: 'b' is undefined");
    refused("{% set d = {} %}\n\n{{ 1 +\n d.x.y }}", "4: 'dict object' has no attribute 'x'");
    refused_as(CCA_USAGE, "\n{{ raise_exception('no ' ~ 1) }}", "2, refuses: no 1");
    refused("{% macro f(x) %}\n{{ x + 1 }}{% endmacro %}\n{{ f('a') }}",
            "2: + cannot stand between 'str' and 'int'");
    refused("\n{% for x in 5 %}{% endfor %}", "2: 'int' object is not iterable");
    refused("{{ 1 }}\n{% if 1 %}\n{{ 2 }}",
            "2: the block that begins here has no end: endif is missing");
    refused("\n{% include 'x' %}", "2: there is no statement \"include\" here");
    refused("{{ 1\n | nope }}", "2: there is no filter 'nope'");
    refused("{{ 1 is nope }}", "1: there is no test 'nope'");
    refused("{{ 'a\\", "1: a string does not end");
    refused("\n{#", "2: the comment does not end");
    refused("{{ 1", "1: the tag does not end");
    refused("{{ 99999999999999999999 }}", "1: a number is too large");
    refused("{{ 9223372036854775807 + 1 }}", "1: a number is too large");
    refused("{{ 'a'.ljust(9223372036854775807, '') }}", "1: fillchar is one character");
    refused("{{ 'a'|truncate(-9223372036854775807 - 1) }}", "1: truncate: the length is too small");
    refused("{{ '\\ud800' }}", "1: a string has an escape that is no character");
    refused("{% break %}", "1: there is no loop to leave");
}

/* The same template text so many times. */
static char *times(const char *text, int n, const char *before, const char *behind) {
    const size_t room = (size_t)n * strlen(text) + strlen(before) + strlen(behind) + 1;
    char *all = calloc(1, room);
    assert_non_null(all);
    size_t at = (size_t)snprintf(all, room, "%s", before);
    for (int i = 0; i < n; i++) at += (size_t)snprintf(all + at, room - at, "%s", text);
    snprintf(all + at, room - at, "%s", behind);
    return all;
}

static void refused_times(const char *text, int n, const char *before, const char *behind,
                          const char *message) {
    char *all = times(text, n, before, behind);
    refused(all, message);
    free(all);
}

static void what_is_endless_ends(void **state) {
    (void)state;
    refused("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "1: the template takes too much memory");
    refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "1: more than 400 levels inside each other");
    refused("{% set l = [] %}{% set _ = l.append(l) %}{{ l }}",
            "1: more than 400 levels inside each other");
    refused("{% set l = [] %}{% set _ = l.append(l) %}{{ l|tojson }}",
            "1: more than 400 levels inside each other");
    refused("{% set l = [] %}{% set k = [] %}{% set _ = l.append(k) %}{% set _ = k.append(l) %}"
            "{{ l == k }}",
            "1: more than 400 levels inside each other");
    refused("{{ 'x' * 1000000000 }}", "1: the template takes too much memory");
    refused("{{ 'x'.center(10000000000) }}", "1: the template takes too much memory");
    refused("{{ '%1000000000d' % 1 }}", "1: a format is too wide");
    refused("{{ [1] * 100000000 }}", "1: the template takes too much memory");
    refused("{% set s = namespace(v='x') %}{% for i in range(64) %}{% set s.v = s.v + s.v %}"
            "{% endfor %}",
            "1: the template takes too much memory");
    refused("{{ range(100001) }}", "1: a range has more than 100000 numbers");
    refused_times("(", 200, "{{ ", "", "1: too many brackets are open");
    refused_times("not ", 200, "{{ ", "1 }}", "1: more than 100 levels inside each other");
    refused_times("{% if 1 %}", 200, "", "", "1: more than 100 levels inside each other");
    refused_times("+ 1 ", 1000, "{{ 1", " }}", "1: more than 400 levels inside each other");
    refused_times("{% macro a() %}", 101, "", "", "1: more than 100 levels inside each other");
}

static void long_chains_are_none(void **state) {
    (void)state;
    char *elifs = times("{% elif x == 1 %}a", 3000, "{% if x %}b", "{% else %}c{% endif %}");
    renders(elifs, "{\"x\": 0}", "c");
    free(elifs);
    char *tildes = times("~ 'a'", 1000, "{{ ('' ", ")|length }}");
    renders(tildes, "{}", "1000");
    free(tildes);
    char *large = times("x", CCA_JINJA_MOST_BYTES + 1, "", "");
    cca_jinja *t;
    assert_int_equal(parse(&t, large), CCA_BAD_MODEL);
    assert_string_equal(err.text, "t: the template has 262145 bytes, more than 262144");
    free(large);
}

/* Bounds that the caller sets. */
static void bounds_are_the_callers(void **state) {
    (void)state;
    cca_jinja *t;
    cca_jinja_output out;
    json_t *none = json_object();
    assert_int_equal(parse(&t, "{% for i in range(100) %}{{ i }}{% endfor %}"), CCA_OK);
    cca_jinja_input input = {.variables = none, .steps = 200};
    assert_int_equal(cca_jinja_render(&out, t, &input, &err), CCA_BAD_MODEL);
    assert_string_equal(err.text, "t, line 1: the template takes too many steps");
    assert_null(out.bytes);
    input = (cca_jinja_input){.variables = none, .memory = 4096};
    assert_int_equal(cca_jinja_render(&out, t, &input, &err), CCA_BAD_MODEL);
    input.memory = 1 << 20;
    assert_int_equal(cca_jinja_render(&out, t, &input, &err), CCA_OK);
    assert_int_equal(out.size, 190);
    cca_jinja_output_free(&out);
    cca_jinja_free(t);
    json_decref(none);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders_as_jinja2_does), cmocka_unit_test(lists_and_dicts_change),
        cmocka_unit_test(the_time_is_given),      cmocka_unit_test(bytes_know_their_content),
        cmocka_unit_test(errors_name_the_line),   cmocka_unit_test(what_is_endless_ends),
        cmocka_unit_test(numbers_at_their_ends),  cmocka_unit_test(long_chains_are_none),
        cmocka_unit_test(bounds_are_the_callers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
