#include "cli/prompt.h"

#include "base/utf8.h"
#include "cli/stored_note.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static cca_status no_memory(cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the prompt");
}

/* A prompt may have been moved since. */
static cca_prompt *template_of(prompt *p) {
    p->now.out = &p->tokens;
    return &p->now;
}

/* ---- the beginning --------------------------------------------------------------------- */

/* The file's own template. */
static cca_status open_own(prompt *p, const chat_options *options, const cca_gguf *file,
                           cca_error *err) {
    cca_error why;
    int64_t now = options->now ? options->now : (int64_t)time(NULL);
    cca_status status = prompt_own_begin(p, file, now, options->system, &why);
    if (!status) return CCA_OK;
    if (status == CCA_NO_MEMORY) return cca_fail(err, status, "%s", why.text);
    return cca_fail(err, status, "%s; give --chat-template NAME: %s", why.text, cca_chat_names);
}

/* A template with a name, behind BOS. */
static cca_status open_named(prompt *p, cca_chat chat, const char *system, cca_error *err) {
    cca_status status = input_bos(&p->tokens, p->tok, err);
    if (!status) status = cca_prompt_begin(&p->now, chat, p->tok, &p->tokens, err);
    if (status || !system) return status;
    return cca_prompt_text(&p->now, CCA_SLOT_SYSTEM, system, strlen(system), err);
}

static cca_status open_template(prompt *p, const chat_options *options, const cca_engine *engine,
                                cca_error *err) {
    cca_chat chat;
    const cca_gguf *file = cca_engine_file(engine);
    bool named = options->name && cca_chat_parse(&chat, options->name);
    size_t size = options->system ? strlen(options->system) : 0;
    size_t valid = cca_utf8_valid(options->system ? options->system : "", size);
    cca_status status = named ? CCA_OK : cca_chat_of_file(&chat, &named, file, err);
    if (status) return status;
    if (valid != size) {
        return cca_fail(err, CCA_BAD_TEXT, "--system-prompt: invalid UTF-8 at byte offset %zu",
                        valid);
    }
    return named ? open_named(p, chat, options->system, err) : open_own(p, options, file, err);
}

cca_status prompt_begin(prompt *out, const chat_options *chat, const cca_engine *engine,
                        cca_error *err) {
    *out = (prompt){.has_template = chat != NULL, .model = cca_engine_info(engine)->path};
    cca_status status = cli_tokenizer(&out->tok, engine, err);
    if (!status) {
        status =
            chat ? open_template(out, chat, engine, err) : input_bos(&out->tokens, out->tok, err);
    }
    if (!chat) out->now.begin = out->tokens.n;
    out->opening = out->now;
    return status;
}

void prompt_free(prompt *p) {
    cca_tokens_free(&p->tokens);
    prompt_own_free(p->own);
    free(p->ends);
    json_decref(p->sources);
    *p = (prompt){0};
}

int64_t prompt_length(const prompt *p) {
    return (int64_t)p->tokens.n;
}

const char *prompt_template_name(const prompt *p) {
    return !p->has_template ? "none" : p->own ? "file" : cca_chat_name(p->opening.chat);
}

int32_t prompt_end_token(const prompt *p) {
    if (!p->has_template) return -1;
    return p->own ? cca_template_end_token(p->own->template)
                  : cca_chat_end_token(p->opening.chat, p->tok);
}

bool prompt_answer_space(const prompt *p) {
    if (!p->has_template) return false;
    return p->own ? cca_template_answer_space(p->own->template)
                  : cca_chat_answer_space(p->now.chat);
}

bool prompt_ends_with_document(const prompt *p) {
    const prompt_own *own = p->own;
    if (!own) return p->now.slot == CCA_SLOT_DOCUMENT;
    return own->n_parts > 0 && own->parts[own->n_parts - 1].slot == CCA_SLOT_DOCUMENT;
}

/* ---- texts ----------------------------------------------------------------------------- */

static cca_status push_end(prompt *p, int64_t end, cca_error *err) {
    int64_t *ends = realloc(p->ends, (p->n_ends + 1) * sizeof *ends);
    if (!ends) return no_memory(err);
    p->ends = ends;
    p->ends[p->n_ends++] = end;
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

/* The line before a document. */
static bool append_name(text_buffer *t, const char *name) {
    static const char word[] = "Document: ";
    bool room = text_append(t, word, sizeof word - 1) && utf8_append_clean(t, name, strlen(name));
    for (size_t i = 0; i < t->size; i++) {
        if ((unsigned char)t->bytes[i] < ' ' || t->bytes[i] == 0x7f) t->bytes[i] = ' ';
    }
    return room && text_append(t, "\n", 1);
}

/* The same, encoded as how says; what follows it begins no text. */
static cca_status add_name(prompt *p, const char *name, unsigned *how, cca_error *err) {
    input_text line = {0};
    cca_status status = append_name(&line.text, name)
                            ? input_encode(&p->tokens, p->tok, &line, *how, err)
                            : no_memory(err);
    input_free(&line);
    *how = 0;
    return status;
}

/* Ends that are no longer ends go. */
static void drop_ends(prompt *p, int64_t behind) {
    while (p->n_ends > 0 && p->ends[p->n_ends - 1] > behind) p->n_ends--;
}

/* Finds the ends and the last text where the file's own template has put them. */
static cca_status find_ends(prompt *p, cca_error *err) {
    cca_status status = CCA_OK;
    p->n_ends = 0;
    for (size_t i = 0; i < p->own->n_parts && !status; i++) {
        const prompt_part *part = &p->own->parts[i];
        bool text = part->slot == CCA_SLOT_DOCUMENT || part->slot == CCA_SLOT_QUESTION;
        p->text_begin = part->first;
        p->text_end = part->last;
        p->led = part->led;
        if (text) status = push_end(p, part->end, err);
    }
    return status;
}

static cca_status add_own(prompt *p, cca_slot slot, const char *name, const input_text *text,
                          bool special, cca_error *err) {
    prompt_part part = {.slot = slot, .special = special};
    bool room = !name || append_name(&part.text, name);
    part.skip = part.text.size;
    if (!room || !text_append(&part.text, text->text.bytes, text->text.size)) {
        text_free(&part.text);
        return no_memory(err);
    }
    cca_status status = add_sources(p, text, err);
    if (status) {
        text_free(&part.text);
        return status;
    }
    status = prompt_own_add(p, &part, err);
    return status ? status : find_ends(p, err);
}

cca_status prompt_settle(prompt *p, size_t n_parts, cca_error *err) {
    if (!p->own) return CCA_OK;
    prompt_own_keep(p, n_parts);
    cca_status status = prompt_own_settle(p, err);
    return status ? status : find_ends(p, err);
}

static cca_status add(prompt *p, cca_slot slot, const char *name, const input_text *text,
                      bool special, cca_error *err) {
    if (p->own) return add_own(p, slot, name, text, special, err);
    unsigned how = p->tokens.n == p->now.begin ? CCA_ENCODE_START : 0;
    cca_status status = CCA_OK;
    p->n_same = prompt_length(p);
    if (p->has_template) status = cca_prompt_open(template_of(p), slot, &how, err);
    if (!status && name) status = add_name(p, name, &how, err);
    p->led = cca_tokenizer_leads(p->tok, &p->tokens, text->text.bytes, text->text.size, how);
    p->text_begin = prompt_length(p);
    if (special) how |= CCA_ENCODE_SPECIAL;
    if (!status) status = add_sources(p, text, err);
    if (!status) status = input_encode(&p->tokens, p->tok, text, how, err);
    p->text_end = prompt_length(p);
    if (!status && p->has_template && slot == CCA_SLOT_QUESTION) {
        status = cca_prompt_end(template_of(p), err);
    }
    return status ? status : push_end(p, prompt_length(p), err);
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

cca_status prompt_answered(prompt *p, int64_t from, const char *text, size_t size, cca_error *err) {
    return p->own ? prompt_own_answered(p, from, text, size, err) : CCA_OK;
}

void prompt_cut(prompt *p, int64_t n, cca_slot last) {
    if (n < prompt_length(p)) p->tokens.n = (size_t)n;
    drop_ends(p, n);
    if (p->own) prompt_own_cut(p, n, last == CCA_SLOT_NONE);
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
    bool goes_on = prompt_ends_with_document(p); /* else logits are wanted */
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
        .on_progress = cli_show_progress, .user = t, .ends_prompt = !prompt_ends_with_document(p)};
    int64_t n = prompt_length(p), pos = cca_session_pos(session);
    term_start(t, "prefill", TERM_TOKENS, n);
    term_skip(t, pos);
    cca_status status = cca_session_eval(session, p->tokens.ids + pos, n - pos, &options, err);
    term_done(t);
    return status;
}
