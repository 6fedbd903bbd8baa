/* Renders a template with each of several variables, for comparison with others' renderings:
 *
 *     render TEMPLATE CONTEXTS
 *
 * CONTEXTS is a JSON array of {"variables", "now"}; of variables.messages the contents, where they
 * are strings, are marked as such. Writes a JSON array of {"text", "content": the bytes that came
 * from contents} or {"error"}. */
#include "jinja/jinja.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_file(size_t *size, const char *path) {
    FILE *in = fopen(path, "rb");
    char *text = NULL;
    size_t n = 0, got;
    *size = 0;
    if (!in) return NULL;
    do {
        char *grown = realloc(text, n + 65536);
        if (!grown) break;
        text = grown;
        got = fread(text + n, 1, 65536, in);
        n += got;
    } while (got > 0);
    fclose(in);
    *size = n;
    return text;
}

/* What stands in the spans of an output. */
static json_t *content_of(const cca_jinja_output *out) {
    char *bytes = malloc(out->size + 1);
    size_t n = 0;
    if (!bytes) return NULL;
    for (size_t i = 0; i < out->n_spans; i++) {
        size_t size = out->spans[i].end - out->spans[i].begin;
        memcpy(bytes + n, out->bytes + out->spans[i].begin, size);
        n += size;
    }
    json_t *text = json_stringn(bytes, n);
    free(bytes);
    return text;
}

static json_t *render(const cca_jinja *template, const json_t *context) {
    enum { MOST = 64 };
    const json_t *contents[MOST], *variables = json_object_get(context, "variables");
    const json_t *messages = json_object_get(variables, "messages");
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(messages) && n < MOST; i++) {
        const json_t *content = json_object_get(json_array_get(messages, i), "content");
        if (json_is_string(content)) contents[n++] = content;
    }
    cca_jinja_input input = {.variables = variables,
                             .contents = contents,
                             .n_contents = n,
                             .now = json_integer_value(json_object_get(context, "now"))};
    cca_jinja_output out;
    cca_error err;
    if (cca_jinja_render(&out, template, &input, &err) != CCA_OK) {
        return json_pack("{s:s}", "error", err.text);
    }
    json_t *result = json_pack("{s:o, s:o}", "text", json_stringn(out.bytes, out.size), "content",
                               content_of(&out));
    cca_jinja_output_free(&out);
    return result;
}

int main(int argc, char **argv) {
    size_t size, n;
    cca_jinja *template = NULL;
    cca_error err = {.text = ""};
    if (argc != 3) return 2;
    char *text = read_file(&size, argv[1]), *json = read_file(&n, argv[2]);
    json_t *contexts = json ? json_loadb(json, n, JSON_ALLOW_NUL, NULL) : NULL;
    json_t *results = json_array();
    if (!text || !contexts) return 1;
    cca_status status = cca_jinja_parse(&template, text, size, "template", &err);
    for (size_t i = 0; i < json_array_size(contexts); i++) {
        json_array_append_new(results, status ? json_pack("{s:s}", "error", err.text)
                                              : render(template, json_array_get(contexts, i)));
    }
    json_dumpf(results, stdout, 0);
    cca_jinja_free(template);
    json_decref(results);
    json_decref(contexts);
    free(text);
    free(json);
    return 0;
}
