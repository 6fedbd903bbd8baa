/* Renders a template with each of several variables, for comparison with others' renderings:
 *
 *     render_template TEMPLATE CONTEXTS [MODEL]
 *
 * CONTEXTS is a JSON array of {"variables", "now"}; of variables.messages the contents, where they
 * are strings, are marked as such. Writes a JSON array of {"text", "content": the bytes that came
 * from contents} or {"error"}. With the tokenizer of a model file "ids" are those of the prompt
 * that the messages make: a system text or none, then users' and models' words in turn. */
#include "cli/prompt.h"
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

/* A file with the template alone; its bytes stay there. */
static cca_gguf *file_of(const char *text, size_t size) {
    static const char key[] = "tokenizer.chat_template";
    const uint32_t version = 3, string = CCA_GGUF_STRING;
    const uint64_t counts[] = {0, 1}, sizes[] = {sizeof key - 1, size};
    cca_gguf *file = NULL;
    text_buffer b = {0};
    bool done = text_append(&b, "GGUF", 4) && text_append(&b, (const char *)&version, 4) &&
                text_append(&b, (const char *)counts, 16) &&
                text_append(&b, (const char *)&sizes[0], 8) && text_append(&b, key, sizes[0]) &&
                text_append(&b, (const char *)&string, 4) &&
                text_append(&b, (const char *)&sizes[1], 8) && text_append(&b, text, size);
    return done && !cca_gguf_parse(&file, b.bytes, b.size, "template", NULL) ? file : NULL;
}

static cca_status add_messages(prompt *p, const json_t *messages, size_t from, cca_error *err) {
    size_t n = json_array_size(messages);
    cca_status status = CCA_OK;
    for (size_t i = from; i < n && !status; i++) {
        const json_t *m = json_array_get(messages, i), *text = json_object_get(m, "content");
        bool user = strcmp(json_string_value(json_object_get(m, "role")), "user") == 0;
        prompt_part part = {.slot = user ? CCA_SLOT_QUESTION : CCA_SLOT_ANSWER};
        if (!text_append(&part.text, json_string_value(text), json_string_length(text))) {
            return CCA_NO_MEMORY;
        }
        status = i + 1 < n ? prompt_own_restore(p, &part, err) : prompt_own_add(p, &part, err);
    }
    return status;
}

static json_t *ids_of(const cca_gguf *file, const cca_tokenizer *tok, const json_t *context) {
    const json_t *messages = json_object_get(json_object_get(context, "variables"), "messages");
    const json_t *first = json_array_get(messages, 0);
    bool system = strcmp(json_string_value(json_object_get(first, "role")), "system") == 0;
    const char *text = json_string_value(json_object_get(first, "content"));
    prompt p = {.tok = tok, .has_template = true};
    cca_error err;
    cca_status status = prompt_own_begin(
        &p, file, json_integer_value(json_object_get(context, "now")), system ? text : NULL, &err);
    if (!status) status = add_messages(&p, messages, system, &err);
    json_t *ids = status ? json_string(err.text) : json_array();
    for (size_t i = 0; i < p.tokens.n && !status; i++) {
        json_array_append_new(ids, json_integer(p.tokens.ids[i]));
    }
    prompt_free(&p);
    return ids;
}

/* Opens the model's tokenizer and adds the ids to the results. */
static cca_status add_ids(json_t *results, const json_t *contexts, const char *text, size_t size,
                          const char *model, cca_error *err) {
    cca_gguf *file, *own = file_of(text, size);
    cca_tokenizer *tok;
    cca_status status = cca_gguf_open(&file, model, err);
    if (!status) status = cca_tokenizer_open(&tok, file, err);
    if (status || !own) return status ? status : CCA_RUNTIME;
    for (size_t i = 0; i < json_array_size(contexts); i++) {
        json_object_set_new(json_array_get(results, i), "ids",
                            ids_of(own, tok, json_array_get(contexts, i)));
    }
    cca_tokenizer_close(tok);
    cca_gguf_close(file);
    cca_gguf_close(own);
    return CCA_OK;
}

int main(int argc, char **argv) {
    size_t size, n;
    cca_jinja *template = NULL;
    cca_error err = {.text = ""};
    if (argc < 3) return 2;
    char *text = read_file(&size, argv[1]), *json = read_file(&n, argv[2]);
    json_t *contexts = json ? json_loadb(json, n, JSON_ALLOW_NUL, NULL) : NULL;
    json_t *results = json_array();
    if (!text || !contexts) return 1;
    cca_status status = cca_jinja_parse(&template, text, size, "template", &err);
    for (size_t i = 0; i < json_array_size(contexts); i++) {
        json_array_append_new(results, status ? json_pack("{s:s}", "error", err.text)
                                              : render(template, json_array_get(contexts, i)));
    }
    if (argc > 3 && add_ids(results, contexts, text, size, argv[3], &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    json_dumpf(results, stdout, 0);
    cca_jinja_free(template);
    json_decref(results);
    json_decref(contexts);
    free(text);
    free(json);
    return 0;
}
