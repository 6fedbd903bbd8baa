#include "cli/prompt.h"

#include "base/utf8.h"
#include "cli/stored_note.h"

#include <stdlib.h>
#include <string.h>

static cca_status no_memory(cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the prompt");
}

/* A prompt may have been moved since. */
static cca_prompt *template_of(prompt *p) {
    p->now.out = &p->tokens;
    return &p->now;
}

/* ---- the beginning --------------------------------------------------------------------- */

static cca_status choose_template(cca_chat *out, const char *name, const cca_engine *engine,
                                  cca_error *err) {
    cca_error why;
    if (name && cca_chat_parse(out, name)) return CCA_OK;
    cca_status status = cca_chat_of_file(out, cca_engine_file(engine), &why);
    if (!status) return CCA_OK;
    return cca_fail(err, status, "%s; give --chat-template NAME: %s", why.text, cca_chat_names);
}

static cca_status open_template(prompt *p, const chat_options *options, const cca_engine *engine,
                                cca_error *err) {
    cca_chat chat;
    cca_status status = choose_template(&chat, options->name, engine, err);
    if (!status) status = cca_prompt_begin(&p->now, chat, p->tok, &p->tokens, err);
    if (status || !options->system) return status;
    size_t size = strlen(options->system), valid = cca_utf8_valid(options->system, size);
    if (valid != size) {
        return cca_fail(err, CCA_BAD_TEXT, "--system-prompt: invalid UTF-8 at byte offset %zu",
                        valid);
    }
    return cca_prompt_text(&p->now, CCA_SLOT_SYSTEM, options->system, size, err);
}

cca_status prompt_begin(prompt *out, const chat_options *chat, const cca_engine *engine,
                        cca_error *err) {
    *out = (prompt){.has_template = chat != NULL, .model = cca_engine_info(engine)->path};
    cca_status status = cli_tokenizer(&out->tok, engine, err);
    if (!status) status = input_bos(&out->tokens, out->tok, err);
    out->now.begin = out->tokens.n;
    if (!status && chat) status = open_template(out, chat, engine, err);
    out->opening = out->now;
    return status;
}

void prompt_free(prompt *p) {
    cca_tokens_free(&p->tokens);
    free(p->ends);
    json_decref(p->sources);
    *p = (prompt){0};
}

int64_t prompt_length(const prompt *p) {
    return (int64_t)p->tokens.n;
}

/* ---- texts ----------------------------------------------------------------------------- */

static cca_status push_end(prompt *p, cca_error *err) {
    int64_t *ends = realloc(p->ends, (p->n_ends + 1) * sizeof *ends);
    if (!ends) return no_memory(err);
    p->ends = ends;
    p->ends[p->n_ends++] = prompt_length(p);
    return CCA_OK;
}

static cca_status add_sources(prompt *p, const input_text *text, cca_error *err) {
    if (text->n_sources > 0 && !p->sources) p->sources = json_array();
    for (size_t i = 0; i < text->n_sources; i++) {
        const char *name = text->sources[i].name;
        if (json_array_append_new(p->sources, output_string(name, strlen(name))) != 0) {
            return no_memory(err);
        }
    }
    return CCA_OK;
}

/* The line before a document, encoded as how says; what follows it begins no text. */
static cca_status add_name(prompt *p, const char *name, unsigned *how, cca_error *err) {
    static const char word[] = "Document: ";
    input_text line = {0};
    text_buffer *t = &line.text;
    bool room = text_append(t, word, sizeof word - 1) && utf8_append_clean(t, name, strlen(name));
    for (size_t i = 0; i < t->size; i++) {
        if ((unsigned char)t->bytes[i] < ' ' || t->bytes[i] == 0x7f) t->bytes[i] = ' ';
    }
    room = room && text_append(t, "\n", 1);
    cca_status status = room ? input_encode(&p->tokens, p->tok, &line, *how, err) : no_memory(err);
    input_free(&line);
    *how = 0;
    return status;
}

static cca_status add(prompt *p, cca_slot slot, const char *name, const input_text *text,
                      bool special, cca_error *err) {
    unsigned how = p->tokens.n == p->now.begin ? CCA_ENCODE_START : 0;
    cca_status status = CCA_OK;
    if (p->has_template) status = cca_prompt_open(template_of(p), slot, &how, err);
    if (!status && name) status = add_name(p, name, &how, err);
    p->led = how & CCA_ENCODE_SPACE ||
             (how & CCA_ENCODE_START && cca_tokenizer_info(p->tok)->dummy_prefix);
    p->text_begin = prompt_length(p);
    if (special) how |= CCA_ENCODE_SPECIAL;
    if (!status) status = add_sources(p, text, err);
    if (!status) status = input_encode(&p->tokens, p->tok, text, how, err);
    p->text_end = prompt_length(p);
    if (!status && p->has_template && slot == CCA_SLOT_QUESTION) {
        status = cca_prompt_end(template_of(p), err);
    }
    return status ? status : push_end(p, err);
}

cca_status prompt_add(prompt *p, cca_slot slot, const input_text *text, bool special,
                      cca_error *err) {
    return add(p, slot, NULL, text, special, err);
}

cca_status prompt_add_document(prompt *p, const char *name, const input_text *text, bool special,
                               cca_error *err) {
    return add(p, CCA_SLOT_DOCUMENT, name, text, special, err);
}

cca_status prompt_ask(prompt *p, const char *question, size_t size, cca_error *err) {
    input_text text = {0};
    cca_status status = text_append(&text.text, question, size)
                            ? prompt_add(p, CCA_SLOT_QUESTION, &text, false, err)
                            : no_memory(err);
    input_free(&text);
    return status;
}

cca_status prompt_answer(prompt *p, const int32_t *ids, size_t n, cca_error *err) {
    for (size_t i = 0; i < n; i++) {
        if (!cca_tokens_push(&p->tokens, ids[i], 0)) return no_memory(err);
    }
    return CCA_OK;
}

void prompt_cut(prompt *p, int64_t n, cca_slot last) {
    p->tokens.n = (size_t)n;
    while (p->n_ends > 0 && p->ends[p->n_ends - 1] > n) p->n_ends--;
    p->now = p->opening;
    if (last) p->now.slot = last;
}

void prompt_shorten(prompt *p, int64_t at, int64_t n) {
    cca_tokens *t = &p->tokens;
    size_t rest = (size_t)(prompt_length(p) - at - n);
    memmove(t->ids + at, t->ids + at + n, rest * sizeof *t->ids);
    memmove(t->offsets + at, t->offsets + at + n, rest * sizeof *t->offsets);
    t->n -= (size_t)n;
    p->text_end -= n;
    p->ends[p->n_ends - 1] -= n;
}

/* ---- evaluation ------------------------------------------------------------------------ */

/* What lists of session files tell of it; the caller frees it, NULL without memory. */
static char *note_of(const prompt *p) {
    json_t *sources = p->sources ? json_incref(p->sources) : json_array();
    json_t *all = json_pack("{s:s, s:o, s:o}", "schema", STORED_NOTE_SCHEMA, "model",
                            output_string(p->model, strlen(p->model)), "sources", sources);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    return text;
}

cca_status prompt_prefill(stored *out, const prompt *p, const stored_options *options,
                          unsigned flags, cca_session *session, term *t, cca_error *err) {
    bool goes_on = p->now.slot == CCA_SLOT_DOCUMENT; /* else logits are wanted */
    const int32_t *ids = p->tokens.ids;
    int64_t n = prompt_length(p);
    cca_status status =
        stored_open(out, options, flags, session, ids, n, goes_on ? n : n - 1, t, err);
    term_start(t, "prefill", TERM_TOKENS, n);
    term_skip(t, out->reused);
    if (!status && out->store && !(out->note = note_of(p))) status = no_memory(err);
    if (!status) status = stored_prefill(out, ids, p->ends, p->n_ends, !goes_on, err);
    term_done(t);
    if (status != CCA_INTERRUPTED) return status;
    return stored_interrupted(out, goes_on ? "prefill of the documents" : "prefill", n, err);
}

cca_status prompt_evaluate(const prompt *p, cca_session *session, term *t, cca_error *err) {
    cca_eval_options options = {
        .on_chunk = cli_show_chunk, .user = t, .ends_prompt = p->now.slot != CCA_SLOT_DOCUMENT};
    int64_t n = prompt_length(p), pos = cca_session_pos(session);
    term_start(t, "prefill", TERM_TOKENS, n);
    term_skip(t, pos);
    cca_status status = cca_session_eval(session, p->tokens.ids + pos, n - pos, &options, err);
    term_done(t);
    return status;
}
