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

/* Appends the tokens of a message that is no answer; fills in where they stand. */
static cca_status encode(conversation *c, message *m, cca_error *err) {
    bool special = c->special && m->slot == CCA_SLOT_DOCUMENT;
    m->begin = prompt_length(&c->prompt);
    cca_status status = prompt_add(&c->prompt, m->slot, &m->text, special, err);
    m->from = c->prompt.text_begin;
    m->led = c->prompt.led;
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

static void drop_marks(conversation *c, int64_t behind) {
    while (c->n_marks > 0 && cca_snapshot_pos(c->marks[c->n_marks - 1]) > behind) {
        cca_snapshot_free(c->marks[--c->n_marks]);
    }
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
    drop_marks(c, n);
    if (c->session && cca_session_pos(c->session) > n) c->stale = true;
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
    if (!status) status = check_room(c, m, err);
    if (!status && !conversation_push(c, m)) status = no_memory(err);
    if (!status) return status;
    free_message(m);
    cut_tokens(c, n);
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
    if (!status &&
        (!text_append(&m.text.text, text->bytes, text->size) || !conversation_push(c, &m))) {
        status = no_memory(err);
    }
    if (status) free_message(&m);
    return status;
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
    return prompt_answer(&c->prompt, old->tokens.ids + begin, (size_t)(end - begin), err);
}

cca_status conversation_system(conversation *c, const char *system, cca_error *err) {
    conversation was = *c;
    chat_options options = {.system = system, .name = cca_chat_name(c->prompt.opening.chat)};
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
