#include "chat_template.h"

#include "base/hash.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cca_template {
    cca_jinja *jinja;
    const cca_tokenizer *tok;
    int64_t now;
    char hash[17];
};

static cca_status no_memory(cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the chat template");
}

/* ---- the file's ------------------------------------------------------------------------ */

static cca_status find_text(cca_gguf_string *out, const char **key, const cca_gguf *file,
                            cca_error *err) {
    static const char *const keys[] = {"tokenizer.chat_template",
                                       "tokenizer.chat_template.default"};
    const cca_gguf_string none = {"", 0};
    *out = none;
    for (size_t i = 0; i < 2 && out->size == 0; i++) {
        *key = keys[i];
        cca_status status = cca_gguf_str(out, file, keys[i], &none, err);
        if (status) return status;
    }
    if (out->size > 0) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "%s has no chat template", cca_gguf_name(file));
}

cca_status cca_template_of_file(cca_template **out, const cca_gguf *file, const cca_tokenizer *tok,
                                int64_t now, cca_error *err) {
    cca_gguf_string text;
    const char *key;
    char *name;
    *out = NULL;
    cca_status status = find_text(&text, &key, file, err);
    if (status) return status;
    if (asprintf(&name, "%s: %s", cca_gguf_name(file), key) < 0) return no_memory(err);
    cca_template *t = calloc(1, sizeof *t);
    size_t valid = cca_utf8_valid(text.bytes, text.size);
    if (!t) {
        status = no_memory(err);
    } else if (valid < text.size) {
        status = cca_fail(err, CCA_BAD_MODEL, "%s: invalid UTF-8 at byte offset %zu", name, valid);
    } else {
        t->tok = tok;
        t->now = now;
        snprintf(t->hash, sizeof t->hash, "%016llx",
                 (unsigned long long)cca_hash(text.bytes, text.size));
        status = cca_jinja_parse(&t->jinja, text.bytes, text.size, name, err);
    }
    free(name);
    if (status) {
        cca_template_free(t);
    } else {
        *out = t;
    }
    return status;
}

void cca_template_free(cca_template *t) {
    if (!t) return;
    cca_jinja_free(t->jinja);
    free(t);
}

int64_t cca_template_now(const cca_template *t) {
    return t->now;
}

const char *cca_template_hash(const cca_template *t) {
    return t->hash;
}

/* ---- rendering ------------------------------------------------------------------------- */

/* A special token as the template knows it; a vocabulary without one leaves it undefined. */
static bool set_token(json_t *variables, const cca_tokenizer *tok, const char *name, int32_t id) {
    if (id < 0) return true;
    return json_object_set_new(variables, name,
                               json_string_nocheck(cca_tokenizer_piece(tok, id))) == 0;
}

/* Messages, and what transformers gives to every template. */
static json_t *make_variables(const cca_template *t, const cca_message *messages, size_t n,
                              bool answer_next, const json_t **contents) {
    const cca_tokenizer_facts *facts = cca_tokenizer_info(t->tok);
    json_t *all = json_pack("{s:[], s:n, s:n, s:b}", "messages", "tools", "documents",
                            "add_generation_prompt", answer_next);
    bool done = all && set_token(all, t->tok, "bos_token", facts->bos) &&
                set_token(all, t->tok, "eos_token", facts->eos) &&
                set_token(all, t->tok, "unk_token", facts->unk) &&
                set_token(all, t->tok, "pad_token", facts->pad);
    for (size_t i = 0; i < n && done; i++) {
        json_t *content = json_stringn_nocheck(messages[i].text, messages[i].size);
        contents[i] = content;
        json_t *one = json_pack("{s:s, s:o}", "role", messages[i].role, "content", content);
        done = one && json_array_append_new(json_object_get(all, "messages"), one) == 0;
    }
    if (done) return all;
    json_decref(all);
    return NULL;
}

cca_status cca_template_render(cca_jinja_output *out, const cca_template *t,
                               const cca_message *messages, size_t n, bool answer_next,
                               cca_error *err) {
    const json_t **contents = calloc(n + 1, sizeof *contents);
    json_t *variables = contents ? make_variables(t, messages, n, answer_next, contents) : NULL;
    *out = (cca_jinja_output){0};
    cca_status status = CCA_OK;
    if (variables) {
        cca_jinja_input input = {
            .variables = variables, .contents = contents, .n_contents = n, .now = t->now};
        status = cca_jinja_render(out, t->jinja, &input, err);
    } else {
        status = no_memory(err);
    }
    json_decref(variables);
    free(contents);
    return status;
}

/* ---- control tokens -------------------------------------------------------------------- */

/* Those of a stretch that the template wrote. Plain text is never encoded as control tokens, so
 * what comes out as one is written out there. */
static cca_status find_controls(cca_tokens *out, const cca_template *t, const char *text,
                                size_t begin, size_t end, cca_error *err) {
    cca_tokens all = {0};
    if (begin >= end) return CCA_OK;
    cca_status status =
        cca_tokenizer_encode(&all, t->tok, text + begin, end - begin, CCA_ENCODE_SPECIAL, err);
    for (size_t i = 0; i < all.n && !status; i++) {
        if (!cca_tokenizer_is_control(t->tok, all.ids[i])) continue;
        if (!cca_tokens_push(out, all.ids[i], begin + all.offsets[i])) status = no_memory(err);
    }
    cca_tokens_free(&all);
    return status;
}

cca_status cca_template_controls(cca_tokens *out, const cca_template *t,
                                 const cca_jinja_output *text, const cca_jinja_span *spans,
                                 size_t n_spans, size_t from, cca_error *err) {
    cca_status status = CCA_OK;
    for (size_t i = 0; i <= n_spans && !status; i++) {
        size_t end = i < n_spans ? spans[i].begin : text->size;
        status = find_controls(out, t, text->bytes, from, end, err);
        if (i < n_spans && spans[i].end > from) from = spans[i].end;
    }
    return status;
}

size_t cca_template_size(const cca_template *t, int32_t control) {
    return strlen(cca_tokenizer_piece(t->tok, control));
}

/* An exchange, to see what the template writes around an answer. */
static const cca_message exchange[] = {{"user", "a", 1}, {"assistant", "b", 1}};

int32_t cca_template_end_token(const cca_template *t) {
    cca_jinja_output out;
    cca_tokens controls = {0};
    cca_error ignored;
    int32_t id = -1;
    if (cca_template_render(&out, t, exchange, 2, false, &ignored)) return -1;
    size_t behind = out.size;
    for (size_t i = 0; i < out.n_spans; i++) {
        if (out.spans[i].content == 1) behind = out.spans[i].end;
    }
    cca_status status =
        cca_template_controls(&controls, t, &out, out.spans, out.n_spans, behind, &ignored);
    if (!status && controls.n > 0) id = controls.ids[0];
    cca_tokens_free(&controls);
    cca_jinja_output_free(&out);
    return id;
}

bool cca_template_answer_space(const cca_template *t) {
    cca_jinja_output asked, answered;
    cca_error ignored;
    bool space = false;
    if (cca_template_render(&asked, t, exchange, 1, true, &ignored)) return false;
    cca_status status = cca_template_render(&answered, t, exchange, 2, false, &ignored);
    for (size_t i = 0; !status && i < answered.n_spans; i++) {
        const cca_jinja_span *s = &answered.spans[i];
        space |= s->content == 1 && s->begin == asked.size + 1 &&
                 answered.bytes[asked.size] == ' ' &&
                 memcmp(answered.bytes, asked.bytes, asked.size) == 0;
    }
    cca_jinja_output_free(&asked);
    cca_jinja_output_free(&answered);
    return space;
}
