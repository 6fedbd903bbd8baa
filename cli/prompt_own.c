#include "cli/prompt_own.h"

#include "base/file_kind.h"
#include "base/utf8.h"
#include "cli/prompt.h"

#include <stdlib.h>
#include <string.h>

static const char joint[] = "\n\n"; /* between documents, and before a question */
static const char stand_in[] = "x"; /* for a question that is not known yet */
static const char unknown[] = ".";  /* for an answer that is not */

static cca_status no_memory(cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the prompt");
}

/* ---- parts ----------------------------------------------------------------------------- */

static void drop_parts(prompt_own *own, size_t n) {
    while (own->n_parts > n) text_free(&own->parts[--own->n_parts].text);
}

static cca_status push_part(prompt_own *own, prompt_part *part, cca_error *err) {
    if (own->n_parts == own->parts_capacity) {
        size_t capacity = own->parts_capacity ? 2 * own->parts_capacity : 8;
        prompt_part *grown = realloc(own->parts, capacity * sizeof *grown);
        if (!grown) {
            text_free(&part->text);
            return no_memory(err);
        }
        own->parts = grown;
        own->parts_capacity = capacity;
    }
    own->parts[own->n_parts++] = *part;
    part->text = (text_buffer){0};
    return CCA_OK;
}

static cca_status push_text(prompt_own *own, cca_slot slot, const char *text, size_t size,
                            cca_error *err) {
    prompt_part part = {.slot = slot};
    if (text_append(&part.text, text, size)) return push_part(own, &part, err);
    text_free(&part.text);
    return no_memory(err);
}

static cca_slot last_slot(const prompt_own *own) {
    return own->n_parts > 0 ? own->parts[own->n_parts - 1].slot : CCA_SLOT_NONE;
}

static cca_status push_step(prompt_own *own, size_t text_end, int64_t n_tokens, cca_error *err) {
    if (own->n_steps == own->steps_capacity) {
        size_t capacity = own->steps_capacity ? 2 * own->steps_capacity : 8;
        prompt_step *grown = realloc(own->steps, capacity * sizeof *grown);
        if (!grown) return no_memory(err);
        own->steps = grown;
        own->steps_capacity = capacity;
    }
    own->steps[own->n_steps++] = (prompt_step){text_end, own->n_parts, n_tokens};
    return CCA_OK;
}

/* ---- rendering ------------------------------------------------------------------------- */

/* The conversation in rendering, and where in it things stand. */
typedef struct rendering {
    cca_jinja_output text;
    text_buffer bodies; /* of messages, one behind the other */
    cca_message *messages;
    size_t n;
    size_t open_at; /* of the last message: where the stand-in is; SIZE_MAX: there is none */
} rendering;

static void free_rendering(rendering *r) {
    text_free(&r->bodies);
    free(r->messages);
    cca_jinja_output_free(&r->text);
}

static const char *role_of(cca_slot slot) {
    return slot == CCA_SLOT_SYSTEM ? "system" : slot == CCA_SLOT_ANSWER ? "assistant" : "user";
}

/* Appends a text to the user's message that is open, or begins a message. */
static bool add_text(rendering *r, cca_slot slot, bool goes_on, const text_buffer *text) {
    if (!goes_on) r->messages[r->n++] = (cca_message){.role = role_of(slot)};
    size_t before = r->bodies.size;
    bool done = (!goes_on || text_append(&r->bodies, joint, sizeof joint - 1)) &&
                text_append(&r->bodies, text->bytes, text->size);
    r->messages[r->n - 1].size += r->bodies.size - before;
    return done;
}

/* Messages of the first n_parts parts; documents and the question behind them are one. */
static bool compose(rendering *r, prompt_own *own, size_t n_parts) {
    text_buffer letter = {.bytes = (char *)stand_in, .size = 1};
    bool goes_on = false, done = true;
    r->messages = calloc(n_parts + 1, sizeof *r->messages);
    if (!r->messages) return false;
    for (size_t i = 0; i < n_parts && done; i++) {
        prompt_part *part = &own->parts[i];
        part->at = goes_on ? r->messages[r->n - 1].size + sizeof joint - 1 : 0;
        done = add_text(r, part->slot, goes_on, &part->text);
        part->message = r->n - 1;
        goes_on = part->slot == CCA_SLOT_DOCUMENT;
    }
    cca_slot last = n_parts > 0 ? own->parts[n_parts - 1].slot : CCA_SLOT_NONE;
    r->open_at = SIZE_MAX;
    if (done && last != CCA_SLOT_QUESTION) {
        r->open_at = goes_on ? r->messages[r->n - 1].size : 0; /* the joint is behind it, too */
        done = add_text(r, CCA_SLOT_QUESTION, goes_on, &letter);
    }
    const char *text = r->bodies.bytes ? r->bodies.bytes : "";
    for (size_t i = 0; i < r->n; i++) {
        r->messages[i].text = text;
        text += r->messages[i].size;
    }
    return done;
}

static cca_status fail_hidden(bool system, cca_error *err) {
    return cca_fail(err, system ? CCA_USAGE : CCA_BAD_MODEL,
                    "the model's chat template does not show the %s",
                    system ? "system text" : "user's words");
}

/* Some templates pass over what they do not know: nobody's words but those of earlier answers may
 * be lost in silence. */
static cca_status check_shown(const rendering *r, cca_error *err) {
    bool *shown = calloc(r->n + 1, sizeof *shown);
    if (!shown) return no_memory(err);
    cca_status status = CCA_OK;
    for (size_t i = 0; i < r->text.n_spans; i++) shown[r->text.spans[i].content] = true;
    for (size_t i = 0; i < r->n && !status; i++) {
        const cca_message *m = &r->messages[i];
        bool blank = cca_file_lead(m->text, m->size) == m->size;
        if (shown[i] || blank || strcmp(m->role, "assistant") == 0) continue;
        status = fail_hidden(strcmp(m->role, "system") == 0, err);
    }
    free(shown);
    return status;
}

static cca_status render(rendering *r, prompt_own *own, size_t n_parts, cca_error *err) {
    *r = (rendering){0};
    if (!compose(r, own, n_parts)) return no_memory(err);
    cca_status status = cca_template_render(&r->text, own->template, r->messages, r->n, true, err);
    return status ? status : check_shown(r, err);
}

/* Where byte `at` of a message, or what comes first behind it, stands; the text's size where
 * nothing does. */
static size_t place_of(const rendering *r, size_t message, size_t at) {
    for (size_t i = 0; i < r->text.n_spans; i++) {
        const cca_jinja_span *s = &r->text.spans[i];
        size_t size = s->end - s->begin;
        if (s->content != message || s->offset + size <= at) continue;
        return s->begin + (at > s->offset ? at - s->offset : 0);
    }
    return r->text.size;
}

/* Where the bytes of a message before `at` have ended; 0 where none stand. */
static size_t end_of(const rendering *r, size_t message, size_t at) {
    size_t end = 0;
    for (size_t i = 0; i < r->text.n_spans; i++) {
        const cca_jinja_span *s = &r->text.spans[i];
        if (s->content != message || s->offset >= at) continue;
        size_t size = s->end - s->begin, rest = at - s->offset;
        end = s->begin + (rest < size ? rest : size);
    }
    return end;
}

/* The byte of a message, counted from `at`, that stands at a place of the text. */
static size_t source_of(const rendering *r, size_t message, size_t at, size_t place) {
    const cca_jinja_span *spans = r->text.spans;
    size_t low = 0, high = r->text.n_spans; /* spans that begin by there */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (spans[middle].begin <= place) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    while (low > 0 && spans[low - 1].content != message) low--;
    if (low == 0) return 0;
    const cca_jinja_span *s = &spans[low - 1];
    size_t found = s->offset + (place < s->end ? place : s->end) - s->begin;
    return found > at ? found - at : 0;
}

/* ---- encoding -------------------------------------------------------------------------- */

/* What of a span is no text in which control tokens count: at most one piece more than special
 * parts. */
static size_t plain_pieces(cca_jinja_span *out, const prompt_own *own, const cca_jinja_span *s) {
    size_t n = 0, from = s->begin, size = s->end - s->begin;
    for (size_t i = 0; i < own->n_parts; i++) {
        const prompt_part *part = &own->parts[i];
        size_t begin = part->at + part->skip, end = part->at + part->text.size;
        bool meets = part->special && part->message == s->content && begin < s->offset + size &&
                     end > s->offset;
        if (!meets) continue;
        size_t to = s->begin + (begin > s->offset ? begin - s->offset : 0);
        if (to > from) out[n++] = (cca_jinja_span){from, to, s->content, 0};
        from = end < s->offset + size ? s->begin + (end - s->offset) : s->end;
    }
    if (s->end > from) out[n++] = (cca_jinja_span){from, s->end, s->content, 0};
    return n;
}

static cca_status find_controls(cca_tokens *out, const prompt_own *own, const rendering *r,
                                size_t from, size_t to, cca_error *err) {
    size_t n = 0, n_special = 0;
    for (size_t i = 0; i < own->n_parts; i++) n_special += own->parts[i].special;
    cca_jinja_span *plain = calloc(r->text.n_spans * (n_special + 1) + 1, sizeof *plain);
    if (!plain) return no_memory(err);
    for (size_t i = 0; i < r->text.n_spans; i++) {
        n += plain_pieces(plain + n, own, &r->text.spans[i]);
    }
    cca_jinja_output text = r->text;
    text.size = to;
    while (n > 0 && plain[n - 1].begin >= to) n--;
    cca_status status = cca_template_controls(out, own->template, &text, plain, n, from, err);
    free(plain);
    return status;
}

/* Plain text, from one control token to the next. */
static cca_status encode_run(prompt *p, const rendering *r, size_t from, size_t to,
                             cca_error *err) {
    input_text text = {.text = {.bytes = r->text.bytes + from, .size = to - from}};
    cca_status status = CCA_OK;
    if (from == to) return CCA_OK;
    if (cca_utf8_valid(text.text.bytes, text.text.size) < text.text.size) {
        status = input_note_bad(&text, err);
    }
    size_t n = p->tokens.n;
    if (!status) {
        status = input_encode(&p->tokens, p->tok, &text, from == 0 ? CCA_ENCODE_START : 0, err);
    }
    for (; n < p->tokens.n; n++) p->tokens.offsets[n] += from;
    free(text.bad);
    return status;
}

/* Appends the tokens of bytes from … to - 1, with offsets in the rendered text. */
static cca_status encode(prompt *p, const rendering *r, size_t from, size_t to, cca_error *err) {
    cca_tokens controls = {0};
    cca_status status = find_controls(&controls, p->own, r, from, to, err);
    for (size_t i = 0; i < controls.n && !status; i++) {
        size_t at = (size_t)controls.offsets[i];
        if (at < from) continue;
        status = encode_run(p, r, from, at, err);
        if (!status && !cca_tokens_push(&p->tokens, controls.ids[i], at)) status = no_memory(err);
        from = at + cca_template_size(p->own->template, controls.ids[i]);
    }
    if (!status) status = encode_run(p, r, from, to, err);
    cca_tokens_free(&controls);
    return status;
}

/* ---- where parts stand ----------------------------------------------------------------- */

/* The first token from n on that begins at a place of the text or behind it. */
static int64_t token_at(const prompt *p, int64_t n, size_t place) {
    int64_t end = prompt_length(p);
    while (n < end) {
        int64_t middle = (n + end) / 2;
        if (p->tokens.offsets[middle] < place) {
            n = middle + 1;
        } else {
            end = middle;
        }
    }
    return n;
}

/* Finds a part's tokens from n on, whose offsets come to count in its text. */
static void locate(prompt *p, const rendering *r, prompt_part *part, int64_t n) {
    size_t begin_at = part->at + part->skip, end_at = part->at + part->text.size;
    size_t begin = place_of(r, part->message, begin_at), end = end_of(r, part->message, end_at);
    int64_t length = prompt_length(p), first = token_at(p, n, begin);
    cca_tokens before = {.ids = p->tokens.ids, .n = (size_t)first};
    bool shared = first > n && (first == length || p->tokens.offsets[first] > begin);
    bool starts = first < length && begin == p->tokens.offsets[first];
    if (end < begin) end = begin;
    first -= shared && end > begin;
    part->first = first;
    part->last = end > begin ? token_at(p, first, end) : first;
    part->led = shared || (starts && cca_tokenizer_leads(p->tok, &before, r->text.bytes + begin,
                                                         r->text.size - begin,
                                                         begin == 0 ? CCA_ENCODE_START : 0));
    part->end = part->last;
}

/* Finds the parts from i on. */
static void locate_all(prompt *p, const rendering *r, size_t i, int64_t n) {
    prompt_own *own = p->own;
    int64_t before = i > 0 ? own->parts[i - 1].end : 0;
    for (size_t k = i; k < own->n_parts; k++) locate(p, r, &own->parts[k], n);
    for (size_t k = i; k < own->n_parts; k++) {
        prompt_part *part = &own->parts[k];
        if (part->slot == CCA_SLOT_SYSTEM) part->end = 0;
        if (part->slot == CCA_SLOT_QUESTION) {
            part->end = k + 1 < own->n_parts ? own->parts[k + 1].first : prompt_length(p);
        }
        if (k + 1 == own->n_parts) part->end = prompt_length(p);
        if (part->end < before) part->end = before;
        before = part->end;
        for (int64_t t = part->first; t < part->last; t++) {
            size_t place = (size_t)p->tokens.offsets[t];
            p->tokens.offsets[t] = source_of(r, part->message, part->at + part->skip, place);
        }
    }
}

/* ---- one rendering in place of another ------------------------------------------------- */

/* The last step whose text the rendering begins with. */
static prompt_step common_step(const prompt_own *own, const rendering *r, size_t limit) {
    for (size_t i = own->n_steps; i-- > 0;) {
        const prompt_step *step = &own->steps[i];
        if (step->text_end > limit) continue;
        if (step->text_end == 0) break;
        if (memcmp(own->rendered.bytes, r->text.bytes, step->text_end) == 0) return *step;
    }
    return (prompt_step){0};
}

static void drop_steps(prompt_own *own, int64_t n_tokens) {
    while (own->n_steps > 0 && own->steps[own->n_steps - 1].n_tokens > n_tokens) own->n_steps--;
    own->rendered.size = own->n_steps > 0 ? own->steps[own->n_steps - 1].text_end : 0;
}

/* Appends tokens from `from` on of others to the first n. */
static cca_status append_tokens(cca_tokens *out, size_t n, const cca_tokens *others, size_t from,
                                cca_error *err) {
    out->n = n;
    for (size_t i = from; i < others->n; i++) {
        if (!cca_tokens_push(out, others->ids[i], others->offsets[i])) return no_memory(err);
    }
    return CCA_OK;
}

/* Encodes the rendering from a step on in place of the tokens behind it, which stay where that
 * fails. */
static cca_status encode_again(prompt *p, const rendering *r, const prompt_step *step, size_t limit,
                               cca_error *err) {
    cca_tokens old = {0}, *now = &p->tokens;
    size_t n = (size_t)step->n_tokens, same = 0;
    p->n_same = prompt_length(p);
    cca_status status = append_tokens(&old, 0, now, n, err);
    if (!status) {
        now->n = n;
        status = encode(p, r, step->text_end, limit, err);
        if (status) (void)append_tokens(now, n, &old, 0, NULL); /* there was room for them */
    }
    if (!status) {
        while (same < old.n && n + same < now->n && now->ids[n + same] == old.ids[same]) same++;
        p->n_same = (int64_t)(n + same);
    }
    cca_tokens_free(&old);
    return status;
}

/* Makes the tokens those of the rendering up to limit, which is a step. */
static cca_status become(prompt *p, const rendering *r, size_t limit, cca_error *err) {
    prompt_own *own = p->own;
    prompt_step step = common_step(own, r, limit);
    size_t more = limit - step.text_end;
    if (!text_reserve(&own->rendered, more)) return no_memory(err);
    cca_status status = encode_again(p, r, &step, limit, err);
    if (status) return status;
    drop_steps(own, step.n_tokens);
    own->rendered.size = step.text_end;
    (void)text_append(&own->rendered, r->text.bytes + step.text_end, more);
    locate_all(p, r, step.n_parts, step.n_tokens);
    return push_step(own, limit, prompt_length(p), err);
}

/* Where the tokens must end: behind a question's turn, or before the words that stand in for it. */
static cca_status find_limit(size_t *out, const rendering *r, cca_error *err) {
    *out = r->text.size;
    if (r->open_at == SIZE_MAX) return CCA_OK;
    *out = place_of(r, r->n - 1, r->open_at);
    return *out < r->text.size ? CCA_OK : fail_hidden(false, err);
}

cca_status prompt_own_settle(prompt *p, cca_error *err) {
    rendering r;
    size_t limit = 0;
    cca_status status = render(&r, p->own, p->own->n_parts, err);
    if (!status) status = find_limit(&limit, &r, err);
    if (!status) status = become(p, &r, limit, err);
    free_rendering(&r);
    return status;
}

cca_status prompt_own_add(prompt *p, prompt_part *part, cca_error *err) {
    prompt_own *own = p->own;
    cca_status status = CCA_OK;
    if (last_slot(own) == CCA_SLOT_QUESTION) {
        status = push_text(own, CCA_SLOT_ANSWER, unknown, sizeof unknown - 1, err);
    }
    if (status) text_free(&part->text);
    if (!status) status = push_part(own, part, err);
    if (!status) status = prompt_own_settle(p, err);
    if (status && own->n_parts > 0) own->parts[own->n_parts - 1].end = INT64_MAX; /* to be cut */
    return status;
}

/* ---- the beginning, answers, the way back ---------------------------------------------- */

/* The tokens up to the last control token before the user's words: what stands behind that may
 * become one token with those. */
static cca_status open_own(prompt *p, cca_error *err) {
    rendering r;
    size_t limit = 0, end = 0;
    cca_tokens controls = {0};
    cca_status status = render(&r, p->own, p->own->n_parts, err);
    if (!status) status = find_limit(&limit, &r, err);
    if (!status) status = find_controls(&controls, p->own, &r, 0, limit, err);
    if (!status && controls.n > 0) {
        size_t last = controls.n - 1;
        end = (size_t)controls.offsets[last] +
              cca_template_size(p->own->template, controls.ids[last]);
    }
    if (!status) status = become(p, &r, end, err);
    p->own->opening = prompt_length(p);
    cca_tokens_free(&controls);
    free_rendering(&r);
    return status;
}

cca_status prompt_own_begin(prompt *p, const cca_gguf *file, int64_t now, const char *system,
                            cca_error *err) {
    p->own = calloc(1, sizeof *p->own);
    if (!p->own) return no_memory(err);
    cca_status status = cca_template_of_file(&p->own->template, file, p->tok, now, err);
    if (!status && system) {
        status = push_text(p->own, CCA_SLOT_SYSTEM, system, strlen(system), err);
    }
    return status ? status : open_own(p, err);
}

void prompt_own_free(prompt_own *own) {
    if (!own) return;
    drop_parts(own, 0);
    free(own->parts);
    free(own->steps);
    text_free(&own->rendered);
    cca_template_free(own->template);
    free(own);
}

cca_status prompt_own_answered(prompt *p, int64_t from, const char *text, size_t size,
                               cca_error *err) {
    prompt_own *own = p->own;
    cca_status status = push_text(own, CCA_SLOT_ANSWER, text, size, err);
    for (int64_t i = from; i < prompt_length(p) && !status; i++) {
        size_t n;
        const char *bytes = cca_tokenizer_bytes(&n, p->tok, p->tokens.ids[i], false);
        if (!text_append(&own->rendered, bytes, n)) status = no_memory(err);
    }
    if (status) return status;
    prompt_part *part = &own->parts[own->n_parts - 1];
    part->first = from;
    part->last = part->end = prompt_length(p);
    return push_step(own, own->rendered.size, prompt_length(p), err);
}

void prompt_own_cut(prompt *p, int64_t n, bool opening) {
    prompt_own *own = p->own;
    size_t keep = own->n_parts;
    while (keep > 0 && own->parts[keep - 1].slot != CCA_SLOT_SYSTEM &&
           (opening || own->parts[keep - 1].end > n)) {
        keep--;
    }
    drop_parts(own, keep);
    drop_steps(own, n);
}

void prompt_own_keep(prompt *p, size_t n) {
    drop_parts(p->own, n);
}

cca_status prompt_own_restore(prompt *p, prompt_part *part, cca_error *err) {
    return push_part(p->own, part, err);
}

cca_status prompt_own_restored(prompt *p, cca_error *err) {
    prompt_own *own = p->own;
    rendering r = {0};
    size_t limit = 0, n = own->n_parts;
    bool answered = last_slot(own) == CCA_SLOT_ANSWER;
    if (last_slot(own) == CCA_SLOT_NONE || last_slot(own) == CCA_SLOT_SYSTEM) return CCA_OK;
    prompt_part *last = &own->parts[n - 1];
    int64_t n_tokens = answered ? last->first : prompt_length(p);
    n -= answered;
    cca_status status = render(&r, own, n, err);
    if (!status) status = find_limit(&limit, &r, err);
    if (!status) {
        own->n_steps = own->rendered.size = 0;
        if (!text_append(&own->rendered, r.text.bytes, limit)) status = no_memory(err);
    }
    free_rendering(&r);
    if (status) return status;
    own->n_parts = n; /* the answer's text is taken from behind them */
    text_buffer text = answered ? last->text : (text_buffer){0};
    status = push_step(own, limit, n_tokens, err);
    if (status || !answered) {
        text_free(&text);
        return status;
    }
    status = prompt_own_answered(p, n_tokens, text.bytes, text.size, err);
    text_free(&text);
    return status;
}
