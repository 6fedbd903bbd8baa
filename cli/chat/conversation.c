#include "cli/chat/conversation.h"

#include <stdlib.h>
#include <string.h>

/* Where more tokens than an answer's last few wait, they are evaluated before a snapshot. */
enum { FEW = 64 };

static cca_status no_memory(cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the conversation");
}

/* ---- messages -------------------------------------------------------------------------- */

static void free_message(message *m) {
    free(m->name);
    input_free(&m->text);
    *m = (message){0};
}

bool conversation_push(conversation *c, const message *m) {
    if (c->n_messages == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 16;
        message *grown = realloc(c->messages, capacity * sizeof *grown);
        if (!grown) return false;
        c->messages = grown;
        c->capacity = capacity;
    }
    c->messages[c->n_messages++] = *m;
    return true;
}

int64_t conversation_end(const conversation *c, size_t i) {
    return i + 1 < c->n_messages ? c->messages[i + 1].begin : prompt_length(&c->prompt);
}

/* Where the message of a part of the prompt begins: where the one before it ends. */
static int64_t begin_of_part(const prompt *p, size_t i) {
    const prompt_part *before = i > 0 ? &p->own->parts[i - 1] : NULL;
    if (before && before->slot != CCA_SLOT_SYSTEM) return before->end;
    return p->own->opening;
}

/* Where the message of a part stands. */
static void place(message *m, const prompt *p, size_t i) {
    m->begin = begin_of_part(p, i);
    m->from = m->slot == CCA_SLOT_ANSWER ? m->begin : p->own->parts[i].first;
    m->led = p->own->parts[i].led;
}

/* The model's own template may have moved the tokens of messages. */
static void follow(conversation *c) {
    for (size_t i = 0; i < c->n_messages && c->prompt.own; i++) {
        place(&c->messages[i], &c->prompt, i + c->has_system);
    }
}

static void drop_marks(conversation *c, int64_t behind) {
    while (c->n_marks > 0 && cca_snapshot_pos(c->marks[c->n_marks - 1]) > behind) {
        cca_snapshot_free(c->marks[--c->n_marks]);
    }
}

/* Forgets states of tokens that are others now: those from n on. */
static void keep_states(conversation *c, int64_t n) {
    drop_marks(c, n);
    if (c->session && cca_session_pos(c->session) > n) c->stale = true;
}

/* Appends the tokens of a message that is no answer; fills in where they stand. */
static cca_status encode(conversation *c, message *m, cca_error *err) {
    prompt *p = &c->prompt;
    bool special = c->special && m->slot == CCA_SLOT_DOCUMENT;
    m->begin = prompt_length(p);
    cca_status status = prompt_add(p, m->slot, &m->text, special, err);
    m->from = p->text_begin;
    m->led = p->led;
    if (!status && p->own) place(m, p, p->own->n_parts - 1);
    return status;
}

/* ---- opening and closing --------------------------------------------------------------- */

static bool set_system(conversation *c, const char *system) {
    c->has_system = system != NULL;
    c->system.size = 0;
    return !system || text_append(&c->system, system, strlen(system));
}

cca_status conversation_open(conversation *out, const chat_options *options, cca_engine *engine,
                             bool special, term *t, cca_error *err) {
    *out = (conversation){.engine = engine, .special = special, .term = t, .limit = INT64_MAX};
    cca_status status = prompt_begin(&out->prompt, options, engine, err);
    return status || set_system(out, options->system) ? status : no_memory(err);
}

void conversation_close(conversation *c) {
    for (size_t i = 0; i < c->n_messages; i++) free_message(&c->messages[i]);
    free(c->messages);
    drop_marks(c, -1);
    free(c->marks);
    text_free(&c->system);
    prompt_free(&c->prompt);
    *c = (conversation){0};
}

void conversation_settle(conversation *c, cca_session *session, int64_t limit, size_t most_marks) {
    c->session = session;
    c->limit = limit;
    c->most_marks = most_marks < 2 ? 2 : most_marks;
    c->n_base = c->n_messages;
}

/* ---- states ---------------------------------------------------------------------------- */

/* The session becomes one of the first tokens, of most of them at most. */
static cca_status go_back(conversation *c, int64_t most, cca_error *err) {
    size_t i = c->n_marks;
    if (!c->stale && cca_session_pos(c->session) <= most) return CCA_OK;
    while (i > 0 && cca_snapshot_pos(c->marks[i - 1]) > most) i--;
    cca_status status = CCA_OK;
    if (i == 0) {
        cca_session_reset(c->session);
    } else {
        status = cca_session_restore(c->session, c->marks[i - 1], err);
    }
    c->stale = status;
    return status;
}

cca_status conversation_prefill(conversation *c, bool logits, cca_error *err) {
    int64_t n = prompt_length(&c->prompt);
    c->prefilled = 0;
    cca_status status = go_back(c, logits ? n - 1 : n, err);
    int64_t pos = cca_session_pos(c->session);
    if (status || pos == n) return status;
    status = prompt_evaluate(&c->prompt, c->session, c->term, err);
    c->stale = status;
    c->prefilled = n - pos;
    if (status != CCA_INTERRUPTED) return status;
    return cca_fail(err, status, "interrupted in prefill, after %lld of %lld tokens",
                    (long long)cca_session_pos(c->session), (long long)n);
}

/* The mark whose loss costs least makes room for another one. */
static void thin_out(conversation *c) {
    size_t least = 0;
    int64_t cost = INT64_MAX, before = 0;
    for (size_t i = 0; i < c->n_marks; i++) {
        int64_t pos = cca_snapshot_pos(c->marks[i]);
        if (pos - before < cost) {
            cost = pos - before;
            least = i;
        }
        before = pos;
    }
    cca_snapshot_free(c->marks[least]);
    c->n_marks--;
    memmove(&c->marks[least], &c->marks[least + 1], (c->n_marks - least) * sizeof *c->marks);
}

cca_status conversation_take(conversation *c, cca_error *err) {
    int64_t pos = cca_session_pos(c->session);
    if (pos == 0) return CCA_OK; /* a reset is as good */
    if (c->n_marks > 0 && cca_snapshot_pos(c->marks[c->n_marks - 1]) >= pos) return CCA_OK;
    if (!c->marks) c->marks = calloc(c->most_marks, sizeof *c->marks);
    if (!c->marks) return no_memory(err);
    if (c->n_marks == c->most_marks) thin_out(c);
    cca_status status = cca_session_snapshot(&c->marks[c->n_marks], c->session, err);
    c->n_marks += !status;
    return status;
}

cca_status conversation_mark(conversation *c, cca_error *err) {
    int64_t n = prompt_length(&c->prompt);
    cca_status status = go_back(c, n, err);
    if (!status && n - cca_session_pos(c->session) > FEW) {
        status = conversation_prefill(c, false, err);
    }
    return status ? status : conversation_take(c, err);
}

/* ---- steps ----------------------------------------------------------------------------- */

/* The tokens from n on go. */
static void cut_tokens(conversation *c, int64_t n) {
    cca_slot last = c->n_messages > 0 ? c->messages[c->n_messages - 1].slot : CCA_SLOT_NONE;
    if (last == CCA_SLOT_QUESTION) last = CCA_SLOT_ANSWER; /* it goes up to where that begins */
    prompt_cut(&c->prompt, n, last);
    if (c->prompt.own) prompt_own_keep(&c->prompt, c->n_messages + c->has_system);
    keep_states(c, n);
}

/* Takes back what an addition has left that failed. */
static void take_back(conversation *c, int64_t n) {
    const prompt *p = &c->prompt;
    size_t part = c->n_messages + c->has_system;
    if (p->own) n = c->n_messages > 0 ? begin_of_part(p, part) : p->own->opening;
    cut_tokens(c, cca_min(n, prompt_length(p)));
}

void conversation_cut(conversation *c, size_t n_messages) {
    bool all = n_messages >= c->n_messages;
    int64_t n = all ? prompt_length(&c->prompt) : c->messages[n_messages].begin;
    while (c->n_messages > n_messages) free_message(&c->messages[--c->n_messages]);
    cut_tokens(c, n);
}

size_t conversation_before(const conversation *c) {
    size_t n = c->n_messages;
    if (n == c->n_base) return n;
    return c->messages[n - 1].slot == CCA_SLOT_ANSWER ? n - 2 : n - 1;
}

static cca_status check_room(const conversation *c, const message *m, cca_error *err) {
    int64_t n = prompt_length(&c->prompt);
    if (n < c->limit) return CCA_OK;
    return cca_fail(err, CCA_NO_FIT,
                    "%s%s has %lld tokens, and of the context of %lld the conversation leaves %lld",
                    m->name ? m->name : "this message", m->name ? "" : " with its template",
                    (long long)(n - m->begin), (long long)c->limit,
                    (long long)(c->limit - m->begin));
}

/* Takes over what m has. */
static cca_status add(conversation *c, message *m, cca_error *err) {
    int64_t n = prompt_length(&c->prompt);
    cca_status status = encode(c, m, err);
    keep_states(c, c->prompt.n_same);
    if (!status) follow(c);
    if (!status) status = check_room(c, m, err);
    if (!status && !conversation_push(c, m)) status = no_memory(err);
    if (!status) return status;
    free_message(m);
    take_back(c, n);
    return status;
}

cca_status conversation_read(conversation *c, const char *name, input_text *text, cca_error *err) {
    message m = {.slot = CCA_SLOT_DOCUMENT, .name = strdup(name), .text = *text};
    *text = (input_text){0};
    if (m.name) return add(c, &m, err);
    free_message(&m);
    return no_memory(err);
}

cca_status conversation_say(conversation *c, const char *text, size_t size, cca_error *err) {
    message m = {.slot = CCA_SLOT_QUESTION};
    if (text_append(&m.text.text, text, size)) return add(c, &m, err);
    free_message(&m);
    return no_memory(err);
}

/* Of a token that is seen in part the rest becomes other tokens. */
static cca_status encode_rest(conversation *c, const char *bytes, size_t size, cca_error *err) {
    input_text rest = {0};
    cca_status status = text_append(&rest.text, bytes, size) ? CCA_OK : no_memory(err);
    if (!status) status = input_note_bad(&rest, err);
    if (!status) status = input_encode(&c->prompt.tokens, c->prompt.tok, &rest, 0, err);
    input_free(&rest);
    return status;
}

/* Drops the tokens behind those that make up the seen bytes. The space that an answer begins with
 * is not seen: it belongs to the template. */
static cca_status drop_unseen(conversation *c, int64_t n_prompt, const text_buffer *seen,
                              cca_error *err) {
    const prompt *p = &c->prompt;
    int64_t n = n_prompt;
    size_t size, done = 0;
    bool begun = false;
    for (; n < prompt_length(p); n++) {
        const char *bytes = cca_tokenizer_bytes(&size, p->tok, p->tokens.ids[n], false);
        size_t skip = !begun && size > 0 && bytes[0] == ' ';
        begun |= size > 0;
        size -= skip;
        if (done + size > seen->size) break;
        done += size;
    }
    if (n == prompt_length(p)) return CCA_OK;
    cut_tokens(c, n);
    return encode_rest(c, seen->bytes + done, seen->size - done, err);
}

cca_status conversation_answered(conversation *c, int64_t n_prompt, const text_buffer *text,
                                 bool clean, cca_error *err) {
    message m = {.slot = CCA_SLOT_ANSWER, .begin = n_prompt, .from = n_prompt};
    if (!clean) c->stale = true;
    cca_status status = drop_unseen(c, n_prompt, text, err);
    if (!status) status = prompt_answered(&c->prompt, n_prompt, text->bytes, text->size, err);
    if (!status &&
        (!text_append(&m.text.text, text->bytes, text->size) || !conversation_push(c, &m))) {
        status = no_memory(err);
    }
    if (status) free_message(&m);
    return status;
}

chat_options conversation_template(const conversation *c, const char *system) {
    const prompt *p = &c->prompt;
    if (!p->own) return (chat_options){.system = system, .name = prompt_template_name(p)};
    return (chat_options){.system = system, .now = cca_template_now(p->own->template)};
}

/* An answer's text byte for byte, as its tokens have it: a note has U+FFFD for bytes that are no
 * UTF-8. */
static bool append_answer(text_buffer *out, const conversation *c, size_t i) {
    const prompt *p = &c->prompt;
    size_t size;
    for (int64_t t = c->messages[i].begin; t < conversation_end(c, i); t++) {
        const char *bytes = cca_tokenizer_bytes(&size, p->tok, p->tokens.ids[t], false);
        if (!text_append(out, bytes, size)) return false;
    }
    if (out->size > 0 && out->bytes[0] == ' ') text_drop(out, 1);
    return true;
}

/* The text of a message into its part of the prompt. */
static bool append_message(text_buffer *out, const conversation *c, size_t i) {
    const message *m = &c->messages[i];
    if (m->slot == CCA_SLOT_ANSWER) return append_answer(out, c, i);
    return text_append(out, m->text.text.bytes, m->text.text.size);
}

cca_status conversation_restore(conversation *c, cca_error *err) {
    cca_status status = CCA_OK;
    for (size_t i = 0; i < c->n_messages && !status; i++) {
        const message *m = &c->messages[i];
        prompt_part part = {.slot = m->slot,
                            .special = c->special && m->slot == CCA_SLOT_DOCUMENT,
                            .first = m->from,
                            .last = conversation_end(c, i),
                            .end = conversation_end(c, i),
                            .led = m->led};
        if (append_message(&part.text, c, i)) {
            status = prompt_own_restore(&c->prompt, &part, err);
        } else {
            text_free(&part.text);
            status = no_memory(err);
        }
    }
    return status ? status : prompt_own_restored(&c->prompt, err);
}

/* ---- all anew -------------------------------------------------------------------------- */

void conversation_leave(conversation *c) {
    drop_marks(c, -1);
    c->stale = true;
}

/* Encodes a message as it stood in old; answers keep their tokens. */
static cca_status encode_again(conversation *c, message *m, const prompt *old, int64_t end,
                               cca_error *err) {
    if (m->slot != CCA_SLOT_ANSWER) return encode(c, m, err);
    int64_t begin = m->begin;
    m->begin = m->from = prompt_length(&c->prompt);
    cca_status status =
        prompt_answer(&c->prompt, old->tokens.ids + begin, (size_t)(end - begin), err);
    if (status) return status;
    return prompt_answered(&c->prompt, m->begin, m->text.text.bytes, m->text.text.size, err);
}

cca_status conversation_system(conversation *c, const char *system, cca_error *err) {
    conversation was = *c;
    chat_options options = conversation_template(c, system);
    message *messages = calloc(c->n_messages + 1, sizeof *messages);
    if (!messages) return no_memory(err);
    for (size_t i = 0; i < c->n_messages; i++) messages[i] = c->messages[i];
    cca_status status = prompt_begin(&c->prompt, &options, c->engine, err);
    for (size_t i = 0; i < c->n_messages && !status; i++) {
        status = encode_again(c, &messages[i], &was.prompt, conversation_end(&was, i), err);
    }
    if (!status && prompt_length(&c->prompt) >= c->limit) {
        status = cca_fail(err, CCA_NO_FIT,
                          "with this system text the conversation has %lld tokens, "
                          "the context %lld",
                          (long long)prompt_length(&c->prompt), (long long)c->limit);
    }
    if (!status && !set_system(c, system)) status = no_memory(err);
    if (status) {
        prompt_free(&c->prompt);
        free(messages);
        *c = was;
        return status;
    }
    for (size_t i = 0; i < c->n_messages; i++) c->messages[i] = messages[i];
    follow(c);
    free(messages);
    prompt_free(&was.prompt);
    conversation_leave(c);
    return CCA_OK;
}

void conversation_replace(conversation *c, conversation *other) {
    conversation_close(c);
    *c = *other;
    *other = (conversation){0};
}
