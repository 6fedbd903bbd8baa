#include "cli/chat/chat_file.h"
#include "cli/stored_note.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char note_schema[] = "cca.chat.1";

/* By cca_slot. */
static const char *const roles[] = {[CCA_SLOT_DOCUMENT] = "document",
                                    [CCA_SLOT_QUESTION] = "user",
                                    [CCA_SLOT_ANSWER] = "assistant"};

/* Tokens of the beginning, which stays. */
static int64_t base_end(const conversation *c) {
    return c->n_base < c->n_messages ? c->messages[c->n_base].begin : prompt_length(&c->prompt);
}

/* ---- the note -------------------------------------------------------------------------- */

static json_t *message_json(const message *m) {
    json_t *one = json_pack("{s:s, s:I, s:I, s:b}", "role", roles[m->slot], "begin",
                            (json_int_t)m->begin, "from", (json_int_t)m->from, "led", m->led);
    if (!one) return NULL;
    bool document = m->slot == CCA_SLOT_DOCUMENT;
    json_t *text = document ? output_string(m->name, strlen(m->name))
                            : output_string(m->text.text.bytes, m->text.text.size);
    if (json_object_set_new(one, document ? "name" : "text", text) == 0) return one;
    json_decref(one);
    return NULL;
}

char *chat_note_write(const conversation *c, int64_t pos) {
    json_t *messages = json_array(), *pending = json_array();
    bool done = messages && pending;
    for (size_t i = 0; i < c->n_messages && done; i++) {
        done = json_array_append_new(messages, message_json(&c->messages[i])) == 0;
    }
    for (int64_t i = pos; i < prompt_length(&c->prompt) && done; i++) {
        done = json_array_append_new(pending, json_integer(c->prompt.tokens.ids[i])) == 0;
    }
    json_t *system = c->has_system ? output_string(c->system.bytes, c->system.size) : json_null();
    const char *model = cca_engine_info(c->engine)->path;
    json_t *all = json_pack("{s:s, s:o, s:s, s:o, s:I, s:o, s:o}", "schema", note_schema, "model",
                            output_string(model, strlen(model)), "template",
                            prompt_template_name(&c->prompt), "system", system, "base",
                            (json_int_t)c->n_base, "messages", messages, "pending", pending);
    const cca_template *own = c->prompt.own ? c->prompt.own->template : NULL;
    if (all && own) {
        json_object_set_new(all, "template_hash", json_string(cca_template_hash(own)));
        json_object_set_new(all, "time", json_integer(cca_template_now(own)));
    }
    char *text = all && done ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    return text;
}

static cca_status bad_note(const char *path, const char *what, cca_error *err) {
    return cca_fail(err, CCA_BAD_MODEL, "%s: its note of the conversation: %s", path, what);
}

/* The message for a status that came without one. */
static cca_status tell_note(cca_status status, const char *path, const char *what, cca_error *err) {
    if (status != CCA_NO_MEMORY) return status ? bad_note(path, what, err) : CCA_OK;
    return cca_fail(err, status, "%s: no memory for its conversation", path);
}

/* The ids of the checkpoint and those behind it, which must begin as the template does. */
static cca_status take_ids(prompt *p, const int32_t *ids, int64_t n, const json_t *pending) {
    int32_t vocab_size = cca_tokenizer_info(p->tok)->vocab_size;
    int64_t all = n + (int64_t)json_array_size(pending);
    int64_t opening = (int64_t)p->tokens.n;
    for (int64_t i = 0; i < all; i++) {
        json_int_t id =
            i < n ? ids[i] : json_integer_value(json_array_get(pending, (size_t)(i - n)));
        if (id < 0 || id >= vocab_size) return CCA_BAD_MODEL;
        if (i < opening && p->tokens.ids[i] != id) return CCA_BAD_MODEL;
        if (i >= opening && !cca_tokens_push(&p->tokens, (int32_t)id, 0)) return CCA_NO_MEMORY;
    }
    return all >= opening ? CCA_OK : CCA_BAD_MODEL;
}

static bool slot_of(cca_slot *out, const char *role) {
    for (int slot = CCA_SLOT_DOCUMENT; role && slot <= CCA_SLOT_ANSWER; slot++) {
        *out = (cca_slot)slot;
        if (strcmp(roles[slot], role) == 0) return true;
    }
    return false;
}

/* Whether a message may stand behind the others. */
static bool may_follow(const conversation *c, const message *m) {
    const message *last = c->n_messages > 0 ? &c->messages[c->n_messages - 1] : NULL;
    if (m->begin > m->from || m->from > prompt_length(&c->prompt)) return false;
    if (!last) return m->slot != CCA_SLOT_ANSWER;
    if (m->begin < last->from) return false;
    return (m->slot == CCA_SLOT_ANSWER) == (last->slot == CCA_SLOT_QUESTION);
}

static cca_status take_message(conversation *c, const json_t *one) {
    message m = {.begin = json_integer_value(json_object_get(one, "begin")),
                 .from = json_integer_value(json_object_get(one, "from")),
                 .led = json_is_true(json_object_get(one, "led"))};
    const char *name = json_string_value(json_object_get(one, "name"));
    const json_t *text = json_object_get(one, "text");
    if (!slot_of(&m.slot, json_string_value(json_object_get(one, "role")))) return CCA_BAD_MODEL;
    bool document = m.slot == CCA_SLOT_DOCUMENT;
    if (document ? !name : !json_is_string(text)) return CCA_BAD_MODEL;
    if (m.begin < 0 || !may_follow(c, &m)) return CCA_BAD_MODEL;
    if (document) m.name = strdup(name);
    bool done = document
                    ? m.name != NULL
                    : text_append(&m.text.text, json_string_value(text), json_string_length(text));
    if (done && conversation_push(c, &m)) return CCA_OK;
    free(m.name);
    input_free(&m.text);
    return CCA_NO_MEMORY;
}

/* The texts of documents, from their tokens. */
static cca_status take_documents(conversation *c) {
    const prompt *p = &c->prompt;
    cca_status status = CCA_OK;
    for (size_t i = 0; i < c->n_messages && !status; i++) {
        message *m = &c->messages[i];
        if (m->slot != CCA_SLOT_DOCUMENT) continue;
        for (int64_t t = m->from; t < conversation_end(c, i); t++) {
            size_t size, skip;
            const char *bytes = cca_tokenizer_bytes(&size, p->tok, p->tokens.ids[t], true);
            skip = t == m->from && m->led && size > 0 && bytes[0] == ' ';
            if (!text_append(&m->text.text, bytes + skip, size - skip)) return CCA_NO_MEMORY;
        }
        status = input_note_bad(&m->text, NULL);
    }
    return status;
}

/* The beginning is of documents, and begins where the template's opening ends. */
static bool base_fits(const conversation *c, json_int_t base, int64_t opening) {
    if (c->n_messages > 0 && c->messages[0].begin != opening) return false;
    if (c->n_messages > 0 && c->messages[c->n_messages - 1].slot == CCA_SLOT_QUESTION) return false;
    if (base < 0 || (uint64_t)base > c->n_messages) return false;
    for (json_int_t i = 0; i < base; i++) {
        if (c->messages[i].slot != CCA_SLOT_DOCUMENT) return false;
    }
    return true;
}

static cca_status take_note(conversation *c, const json_t *note, const int32_t *ids, int64_t n,
                            const char *path, cca_error *err) {
    const json_t *messages = json_object_get(note, "messages");
    json_int_t base = json_integer_value(json_object_get(note, "base"));
    int64_t opening = prompt_length(&c->prompt);
    cca_status status = take_ids(&c->prompt, ids, n, json_object_get(note, "pending"));
    if (status) {
        return tell_note(status, path, "its ids are not those of a conversation with this model",
                         err);
    }
    for (size_t i = 0; i < json_array_size(messages) && !status; i++) {
        status = take_message(c, json_array_get(messages, i));
    }
    if (status) return tell_note(status, path, "a message makes no sense", err);
    if (!base_fits(c, base, opening)) return bad_note(path, "its messages do not fit", err);
    c->n_base = (size_t)base;
    if (!c->prompt.own) conversation_cut(c, c->n_messages); /* the prompt goes on behind the last */
    status = tell_note(take_documents(c), path, "its documents make no sense", err);
    return !status && c->prompt.own ? conversation_restore(c, err) : status;
}

static cca_status open_noted(conversation *out, const conversation *like, const json_t *note,
                             const char *path, cca_error *err) {
    const char *template = json_string_value(json_object_get(note, "template"));
    const char *schema = json_string_value(json_object_get(note, "schema"));
    const char *own = prompt_template_name(&like->prompt);
    const cca_template *file = like->prompt.own ? like->prompt.own->template : NULL;
    const char *hash = json_string_value(json_object_get(note, "template_hash"));
    if (schema && strcmp(schema, STORED_NOTE_SCHEMA) == 0) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: holds no conversation, but a prompt", path);
    }
    if (!template || !schema || strcmp(schema, note_schema) != 0) {
        return bad_note(path, "is none that this program knows", err);
    }
    if (strcmp(template, own) != 0) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: the conversation was made with --chat-template %s, this one has %s",
                        path, template, own);
    }
    if (file && !(hash && strcmp(hash, cca_template_hash(file)) == 0)) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: the conversation was made with another chat template of the file",
                        path);
    }
    chat_options options =
        conversation_template(like, json_string_value(json_object_get(note, "system")));
    if (file) options.now = json_integer_value(json_object_get(note, "time"));
    return conversation_open(out, &options, like->engine, like->special, like->term, err);
}

cca_status chat_note_read(conversation *out, const conversation *like, const char *note,
                          size_t size, const int32_t *ids, int64_t n, const char *path,
                          cca_error *err) {
    json_t *all = json_loadb(note, size, JSON_ALLOW_NUL, NULL);
    *out = (conversation){0};
    cca_status status =
        all ? open_noted(out, like, all, path, err) : bad_note(path, "is no JSON", err);
    if (!status) status = take_note(out, all, ids, n, path, err);
    json_decref(all);
    if (status) conversation_close(out);
    return status;
}

/* ---- reading --------------------------------------------------------------------------- */

/* The note that belongs to a checkpoint. */
static cca_status read_note(text_buffer *out, cca_store *store, cca_store_point point,
                            cca_error *err) {
    cca_status status = stored_note_read(out, store, point.n_segments, err);
    if (status || out->size > 0) return status;
    return cca_fail(err, CCA_BAD_MODEL, "%s: holds no conversation, but a prompt",
                    cca_store_path(store));
}

/* The last checkpoint that is not behind a position; -1 where there is none. */
static int point_before(const cca_store *store, int64_t pos) {
    int i = (int)cca_store_n_points(store);
    while (i > 0 && cca_store_point_at(store, (size_t)i - 1).pos > pos) i--;
    return i - 1;
}

/* Where the last turn begins. */
static int64_t turn_begin(const conversation *c) {
    size_t i = conversation_before(c);
    return i < c->n_messages ? c->messages[i].begin : prompt_length(&c->prompt);
}

/* The states at the beginning, at the last turn's start and at the end. */
static cca_status load_states(conversation *c, cca_store *store, cca_error *err) {
    int last = (int)cca_store_n_points(store) - 1, before = -1;
    int wanted[] = {point_before(store, base_end(c)), point_before(store, turn_begin(c)), last};
    cca_status status = CCA_OK;
    for (int i = 0; i < 3 && !status; i++) {
        if (wanted[i] <= before) continue;
        before = wanted[i];
        status = cca_session_load(c->session, store, (size_t)before, err);
        c->stale = status;
        if (!status) status = conversation_take(c, err);
    }
    return status;
}

static bool same_base(const conversation *a, const conversation *b) {
    int64_t n = base_end(a);
    return a->n_base == b->n_base && a->has_system == b->has_system && n == base_end(b) &&
           memcmp(a->prompt.tokens.ids, b->prompt.tokens.ids, (size_t)n * sizeof(int32_t)) == 0;
}

static cca_status load(conversation *c, cca_store *store, bool own_base, cca_error *err) {
    text_buffer note = {0};
    conversation other = {0};
    const char *path = cca_store_path(store);
    cca_status status = cca_session_check_facts(c->session, store, err);
    size_t n_points = cca_store_n_points(store);
    if (!status && n_points == 0) {
        status = cca_fail(err, CCA_BAD_MODEL, "%s: holds no conversation", path);
    }
    if (status) return status;
    cca_store_point point = cca_store_point_at(store, n_points - 1);
    int64_t n_ids;
    const int32_t *ids = cca_store_tokens(store, &n_ids);
    status = read_note(&note, store, point, err);
    if (!status) {
        status = chat_note_read(&other, c, note.bytes, note.size, ids, cca_min(n_ids, point.pos),
                                path, err);
    }
    text_free(&note);
    if (!status && own_base && !same_base(c, &other)) {
        status = cca_fail(err, CCA_BAD_MODEL,
                          "%s: the conversation began with other documents or another system text",
                          path);
    }
    if (!status && prompt_length(&other.prompt) >= c->limit) {
        status = cca_fail(err, CCA_NO_FIT, "%s: the conversation has %zu tokens, the context %lld",
                          path, other.prompt.tokens.n, (long long)c->limit);
    }
    if (!status) {
        other.session = c->session;
        other.limit = c->limit;
        other.most_marks = c->most_marks;
        conversation_leave(c);
        status = load_states(&other, store, err);
    }
    if (status) {
        conversation_close(&other);
    } else {
        conversation_replace(c, &other);
    }
    return status;
}

cca_status chat_file_load(conversation *c, const char *path, cca_error *err) {
    cca_store *store;
    cca_status status = cca_store_open(&store, path, false, err);
    if (status) return status;
    status = load(c, store, false, err);
    cca_store_close(store);
    return status;
}

/* ---- writing --------------------------------------------------------------------------- */

/* A checkpoint of the session as it is. */
static cca_status append_point(cca_store *store, conversation *c, bool with_note, cca_error *err) {
    char *note = with_note ? chat_note_write(c, cca_session_pos(c->session)) : NULL;
    cca_status status = CCA_OK;
    if (with_note && !note) return cca_fail(err, CCA_NO_MEMORY, "no memory for the note");
    if (note) {
        int64_t pos = cca_session_pos(c->session);
        status = stored_note_write(store, pos, note, err);
        free(note);
    }
    return status ? status : cca_session_save(c->session, store, c->prompt.tokens.ids, err);
}

/* Those of the marks that another process will want, and the state as it is. It alone has a note,
 * without which there is no conversation: a file that has its name gets no other. */
static cca_status write_points(cca_store *store, conversation *c, const cca_snapshot *now,
                               cca_error *err) {
    int64_t wanted[] = {base_end(c), turn_begin(c)}, before = 0;
    cca_status status = CCA_OK;
    const int n_wanted = cca_store_hold(store, true) ? 2 : 0;
    for (int i = 0; i < n_wanted && !status; i++) {
        size_t m = c->n_marks;
        while (m > 0 && cca_snapshot_pos(c->marks[m - 1]) > wanted[i]) m--;
        if (m == 0 || cca_snapshot_pos(c->marks[m - 1]) <= before) continue;
        before = cca_snapshot_pos(c->marks[m - 1]);
        if (before >= cca_snapshot_pos(now)) break;
        status = cca_session_restore(c->session, c->marks[m - 1], err);
        if (!status) status = append_point(store, c, false, err);
    }
    (void)cca_store_hold(store, false);
    cca_status back = cca_session_restore(c->session, now, status ? NULL : err);
    c->stale = back;
    if (!status) status = back;
    return status ? status : append_point(store, c, true, err);
}

static cca_status write_all(cca_store *store, conversation *c, cca_error *err) {
    cca_snapshot *now = NULL;
    cca_status status = conversation_mark(c, err);
    if (!status) status = cca_session_snapshot(&now, c->session, err);
    if (!status) status = write_points(store, c, now, err);
    cca_snapshot_free(now);
    return status;
}

/* A new file, in place of one that is open for writing, if old is one. */
static cca_status create(cca_store **out, const conversation *c, const char *path,
                         const cca_store *old, cca_error *err) {
    char *facts = cca_session_facts(c->session);
    if (!facts) return cca_fail(err, CCA_NO_MEMORY, "no memory for the facts of a session");
    cca_status status =
        old ? cca_store_replace(out, old, facts, err) : cca_store_create(out, path, facts, err);
    free(facts);
    return status;
}

cca_status chat_file_save(conversation *c, const char *path, cca_error *err) {
    cca_store *store = NULL, *old = NULL;
    cca_status status = CCA_OK;
    if (access(path, F_OK) == 0) { /* only what is a session file may be replaced */
        status = cca_store_open(&old, path, true, err);
    }
    if (!status) status = create(&store, c, path, old, err);
    cca_store_close(old);
    if (status) return status;
    status = write_all(store, c, err);
    cca_store_close(store);
    return status;
}

cca_status chat_file_open(cca_store **out, conversation *c, const char *path, cca_error *err) {
    *out = NULL;
    cca_status status = access(path, F_OK) != 0 ? create(out, c, path, NULL, err) : CCA_OK;
    if (status || (*out && access(path, F_OK) != 0)) return status;
    cca_store_close(*out); /* another process was faster */
    status = cca_store_open(out, path, true, err);
    if (!status) status = load(c, *out, c->n_base > 0 || c->has_system, err);
    if (!status) return status;
    cca_store_close(*out);
    *out = NULL;
    return status;
}

/* Windows are large: the last two stay, and those of the beginning. */
static cca_status thin_out(cca_store *store, const conversation *c, cca_error *err) {
    int first = point_before(store, base_end(c));
    cca_status status = CCA_OK;
    for (int i = (int)cca_store_n_points(store) - 3; i > first && !status; i--) {
        status = cca_store_drop(store, (size_t)i, err);
    }
    return status;
}

cca_status chat_file_append(cca_store *store, conversation *c, cca_error *err) {
    if (cca_store_n_points(store) == 0) return write_all(store, c, err);
    cca_status status = conversation_mark(c, err);
    if (!status) status = append_point(store, c, true, err);
    if (status) return status;
    cca_store_cancel(store); /* the note, where the file has the position */
    return thin_out(store, c, err);
}

cca_status chat_file_cut(cca_store *store, const conversation *c, cca_error *err) {
    int point = point_before(store, prompt_length(&c->prompt));
    size_t n = point < 0 ? 0 : cca_store_point_at(store, (size_t)point).n_segments;
    return cca_store_cut(store, n, err);
}
