/* Chat templates in Jinja: a template, then variables in JSON behind a line "%%". Without those
 * there is a conversation. All strings of the variables but roles are contents. */
#include "fuzz.h"

#include "jinja/jinja.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_CONTENTS = 64 };

static const char usual[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", "
    "\"content\": \" Who?\\n\"}, {\"role\": \"assistant\", \"content\": \"<think>x</think> Milton\"}, "
    "{\"role\": \"user\", \"content\": \"When, \\u00e9\\u4e16?\"}], \"tools\": [{\"name\": \"f\", "
    "\"parameters\": {\"a\": [1, 2.5, null, true]}}], \"add_generation_prompt\": true, "
    "\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";

static void collect(const json_t *value, const json_t **out, size_t *n, int depth) {
    const char *name;
    json_t *item;
    size_t i;
    if (depth > 100 || *n == MOST_CONTENTS) return;
    if (json_is_string(value)) out[(*n)++] = value;
    if (json_is_array(value)) {
        json_array_foreach((json_t *)value, i, item) {
            collect(item, out, n, depth + 1);
        }
    } else if (json_is_object(value)) {
        json_object_foreach((json_t *)value, name, item) {
            if (strcmp(name, "role") != 0 && *n < MOST_CONTENTS) collect(item, out, n, depth + 1);
        }
    }
}

/* Spans are in order, inside the text, and of contents that are as long. */
static void check(const cca_jinja_output *out, const json_t **contents, size_t n) {
    size_t at = 0;
    for (size_t i = 0; i < out->n_spans; i++) {
        const cca_jinja_span *s = &out->spans[i];
        fuzz_check(s->begin >= at && s->end > s->begin && s->end <= out->size,
                   "a span out of order");
        fuzz_check(s->content < n, "a span of no content");
        fuzz_check(s->offset <= json_string_length(contents[s->content]),
                   "a span beyond its content");
        at = s->end;
    }
    fuzz_check(out->bytes[out->size] == 0, "no NUL behind the text");
}

void fuzz_one(const uint8_t *data, size_t size) {
    const uint8_t *text = data, *json = (const uint8_t *)usual;
    size_t text_size = 0, json_size = sizeof usual - 1, n = 0;
    const json_t *contents[MOST_CONTENTS];
    cca_error err;
    cca_jinja *template;
    cca_jinja_output out;
    (void)fuzz_part(&text, &text_size, &data, &size);
    if (size > 0) (void)fuzz_part(&json, &json_size, &data, &size);
    json_t *variables = json_loadb((const char *)json, json_size, JSON_ALLOW_NUL, NULL);
    if (!variables) return;
    collect(variables, contents, &n, 0);
    if (!cca_jinja_parse(&template, (const char *)text, text_size, "fuzz", &err)) {
        cca_jinja_input input = {.variables = variables,
                                 .contents = contents,
                                 .n_contents = n,
                                 .now = 1000000000,
                                 .steps = 200000,
                                 .memory = 16 << 20};
        cca_status status = cca_jinja_render(&out, template, &input, &err);
        if (!status) check(&out, contents, n);
        cca_jinja_output_free(&out);
        cca_jinja_free(template);
    }
    json_decref(variables);
}
