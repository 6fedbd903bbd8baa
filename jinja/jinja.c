#include "jinja/jinja.h"

#include "jinja/run.h"

#include <stdlib.h>
#include <string.h>

enum { USUAL_STEPS = 20000000, USUAL_MEMORY = 64 << 20, FACTOR = 16 };

/* ---- variables ------------------------------------------------------------------------- */

static bool take_json(jinja_value *out, jinja_run *r, const json_t *json);

/* The text of a content has one span, over all of it. */
static bool take_string(jinja_value *out, jinja_run *r, const json_t *json) {
    const cca_jinja_input *in = r->input;
    jinja_text *text = jinja_new(r, sizeof *text);
    if (!text) return false;
    *text = (jinja_text){.bytes = json_string_value(json), .size = json_string_length(json)};
    *out = jinja_of_text(text);
    size_t i = 0;
    while (i < in->n_contents && in->contents[i] != json) i++;
    if (i == in->n_contents || text->size == 0) return true;
    cca_jinja_span *span = jinja_new(r, sizeof *span);
    if (!span) return false;
    *span = (cca_jinja_span){0, text->size, i, 0};
    text->spans = span;
    text->n_spans = 1;
    return true;
}

static bool take_array(jinja_value *out, jinja_run *r, const json_t *json) {
    if (!jinja_new_list(out, r, JINJA_PLAIN, json_array_size(json))) return false;
    for (size_t i = 0; i < json_array_size(json); i++) {
        jinja_value item;
        if (!take_json(&item, r, json_array_get(json, i))) return false;
        if (!jinja_push(r, out->list, item)) return false;
    }
    return true;
}

static bool take_object(jinja_value *out, jinja_run *r, const json_t *json) {
    const char *name;
    json_t *item;
    if (!jinja_new_dict(out, r)) return false;
    json_object_foreach((json_t *)json, name, item) {
        jinja_value key, value;
        if (!jinja_words(&key, r, name, strlen(name)) || !take_json(&value, r, item) ||
            !jinja_set_key(r, out->dict, key, value)) {
            return false;
        }
    }
    return true;
}

static bool take_json(jinja_value *out, jinja_run *r, const json_t *json) {
    switch (json_typeof(json)) {
    case JSON_NULL: *out = jinja_none(); return true;
    case JSON_TRUE: *out = jinja_bool(true); return true;
    case JSON_FALSE: *out = jinja_bool(false); return true;
    case JSON_INTEGER: *out = jinja_int(json_integer_value(json)); return true;
    case JSON_REAL: *out = jinja_float(json_real_value(json)); return true;
    case JSON_STRING: return take_string(out, r, json);
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    }
    if (!jinja_enter(r)) return false;
    bool done = json_is_array(json) ? take_array(out, r, json) : take_object(out, r, json);
    jinja_leave(r);
    return done;
}

/* Global functions and variables, as far as the template speaks of them. */
static bool set_variables(jinja_run *r) {
    const char *name;
    json_t *item;
    if (!jinja_open_scope(r, NULL)) return false;
    for (const jinja_global *g = jinja_globals; g->name; g++) {
        const char *own = jinja_name_of(r->template, g->name, strlen(g->name));
        if (own && !jinja_assign(r, own, (jinja_value){.kind = JINJA_GLOBAL, .global = g})) {
            return false;
        }
    }
    json_object_foreach((json_t *)r->input->variables, name, item) {
        const char *own = jinja_name_of(r->template, name, strlen(name));
        jinja_value value;
        if (own && !(take_json(&value, r, item) && jinja_assign(r, own, value))) return false;
    }
    return jinja_open_scope(r, r->scope);
}

/* Bytes of all strings. */
static size_t string_bytes(const json_t *json, int depth) {
    const char *name;
    json_t *item;
    size_t n = json_string_length(json), i;
    if (depth == CCA_JINJA_MOST_DEPTH) return 0;
    if (json_is_array(json)) {
        json_array_foreach((json_t *)json, i, item) {
            n += string_bytes(item, depth + 1);
        }
    } else if (json_is_object(json)) {
        json_object_foreach((json_t *)json, name, item) n += string_bytes(item, depth + 1);
    }
    return n;
}

/* ---- output ---------------------------------------------------------------------------- */

static bool copy_output(cca_jinja_output *out, const jinja_builder *b) {
    out->bytes = malloc(b->size + 1);
    out->spans = malloc((b->n_spans + 1) * sizeof *out->spans);
    if (!out->bytes || !out->spans) return false;
    if (b->size > 0) memcpy(out->bytes, b->bytes, b->size);
    if (b->n_spans > 0) memcpy(out->spans, b->spans, b->n_spans * sizeof *b->spans);
    out->bytes[b->size] = 0;
    out->size = b->size;
    out->n_spans = b->n_spans;
    return true;
}

cca_status cca_jinja_render(cca_jinja_output *out, const cca_jinja *template,
                            const cca_jinja_input *input, cca_error *err) {
    size_t bytes = string_bytes(input->variables, 0);
    jinja_run r = {.template = template,
                   .input = input,
                   .steps = input->steps ? input->steps : USUAL_STEPS + (int64_t)(bytes / 16),
                   .line = 1,
                   .err = err};
    jinja_builder b = {.run = &r};
    *out = (cca_jinja_output){0};
    r.region.most = input->memory ? input->memory : USUAL_MEMORY + FACTOR * bytes;
    r.out = &b;
    bool done = set_variables(&r) && jinja_run_all(&r, template->body);
    if (done && !copy_output(out, &b)) {
        cca_jinja_output_free(out);
        r.status = cca_fail(err, CCA_NO_MEMORY, "%s: no memory", template->name);
    }
    jinja_region_free(&r.region);
    return r.status;
}

void cca_jinja_output_free(cca_jinja_output *out) {
    free(out->bytes);
    free(out->spans);
    *out = (cca_jinja_output){0};
}
