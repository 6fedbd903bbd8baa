#include "cli/ask/choices.h"

#include "base/file_kind.h"
#include "base/utf8.h"
#include "cca_rule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static cca_status no_memory(cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the choices");
}

/* ---- texts ---- */

static bool add_text(json_t *texts, const text_buffer *text) {
    size_t size;
    const char *words = text_trimmed(&size, text);
    json_t *one = json_stringn(words, size);
    return json_array_append_new(texts, one) == 0;
}

/* Reads up to a comma or the list's end, behind which the next text begins. */
static bool take_text(text_buffer *out, const char **list) {
    const char *at = *list;
    out->size = 0;
    for (; *at && *at != ','; at++) {
        at += at[0] == '\\' && at[1] == ',';
        if (!text_append(out, at, 1)) return false;
    }
    *list = at;
    return true;
}

cca_status choices_split(json_t **out, const char *list, const char *name, cca_error *err) {
    size_t size = strlen(list), valid = cca_utf8_valid(list, size);
    *out = NULL;
    if (valid < size) {
        return cca_fail(err, CCA_BAD_TEXT, "%s: invalid UTF-8 at byte offset %zu", name, valid);
    }
    json_t *texts = json_array();
    text_buffer text = {0};
    bool done = texts && take_text(&text, &list) && add_text(texts, &text);
    while (done && *list) {
        list++;
        done = take_text(&text, &list) && add_text(texts, &text);
    }
    text_free(&text);
    cca_status status = done ? choices_check(texts, name, err) : no_memory(err);
    if (status) {
        json_decref(texts);
    } else {
        *out = texts;
    }
    return status;
}

cca_status choices_check(const json_t *texts, const char *name, cca_error *err) {
    if (json_array_size(texts) == 0) {
        return cca_fail(err, CCA_USAGE, "%s: an array of texts expected", name);
    }
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const json_t *one = json_array_get(texts, i);
        const char *text = json_string_value(one);
        size_t size = json_string_length(one);
        if (!text) return cca_fail(err, CCA_USAGE, "%s: choice %zu is no text", name, i + 1);
        if (cca_file_lead(text, size) == size) {
            return cca_fail(err, CCA_USAGE, "%s: choice %zu is empty", name, i + 1);
        }
        for (size_t k = 0; k < i; k++) {
            if (!json_equal(json_array_get(texts, k), one)) continue;
            return cca_fail(err, CCA_USAGE, "%s: choices %zu and %zu are the same, \"%s\"", name,
                            k + 1, i + 1, text);
        }
    }
    return CCA_OK;
}

/* ---- tokens ---- */

cca_status choices_encode(choices *out, const json_t *texts, const prompt *p, cca_error *err) {
    const size_t n = json_array_size(texts);
    const unsigned how = prompt_answer_space(p) ? CCA_ENCODE_SPACE : 0;
    *out = (choices){.items = calloc(n + 1, sizeof *out->items), .n = n};
    if (!out->items) return no_memory(err);
    for (size_t i = 0; i < n; i++) {
        choice *c = &out->items[i];
        const json_t *text = json_array_get(texts, i);
        size_t before = out->tokens.n;
        c->text = json_string_value(text);
        c->size = json_string_length(text);
        cca_status status = cca_tokenizer_encode(&out->tokens, p->tok, c->text, c->size, how, err);
        if (status) return status;
        c->n_tokens = (int64_t)(out->tokens.n - before);
        if (c->n_tokens == 0) {
            return cca_fail(err, CCA_USAGE, "choice %zu, \"%s\", has no tokens", i + 1, c->text);
        }
        out->most = cca_max(out->most, c->n_tokens);
    }
    const int32_t *ids = out->tokens.ids; /* which move no more */
    for (size_t i = 0; i < n; i++) {
        out->items[i].ids = ids;
        ids += out->items[i].n_tokens;
    }
    return CCA_OK;
}

void choices_free(choices *c) {
    free(c->items);
    cca_tokens_free(&c->tokens);
    *c = (choices){0};
}

/* ---- scores ---- */

enum { TILE_ROWS = 16 }; /* of logits that are there at a time */

typedef struct scoring {
    cca_session *session;
    int64_t vocab_size;
    float *logits; /* [TILE_ROWS][vocab_size] */
    choice *of;
    int64_t begin; /* the position of its first token */
} scoring;

/* Each token of the chunk is followed by one of the choice. */
static cca_status score_chunk(void *user, cca_session *session, int64_t pos, int64_t n,
                              cca_error *err) {
    scoring *s = user;
    for (int64_t row = 0, some; row < n; row += some) {
        some = cca_min(TILE_ROWS, n - row);
        cca_status status = cca_session_chunk_logits(session, row, some, s->logits, err);
        if (status) return status;
        for (int64_t i = 0; i < some; i++) {
            const float *logits = s->logits + i * s->vocab_size;
            int32_t next = s->of->ids[pos - s->begin + row + i + 1];
            s->of->logprob += (double)logits[next] - cca_log_sum_exp(logits, s->vocab_size);
        }
    }
    return CCA_OK;
}

/* All tokens but the last are evaluated. */
static cca_status score_behind_first(scoring *s, choice *c, cca_error *err) {
    const cca_eval_options options = {.on_chunk = score_chunk, .user = s, .ends_prompt = true};
    cca_status status = CCA_OK;
    s->of = c;
    s->begin = cca_session_pos(s->session);
    for (int64_t done = 0, some; done < c->n_tokens - 1 && !status; done += some) {
        some = cca_min(CCA_ALONE, c->n_tokens - 1 - done);
        status = cca_session_eval(s->session, c->ids + done, some, &options, err);
    }
    return status;
}

static cca_status score_first_tokens(choices *c, const scoring *s, cca_error *err) {
    const float *logits = cca_session_logits(s->session, err);
    if (!logits) return err->status;
    double all = cca_log_sum_exp(logits, s->vocab_size);
    for (size_t i = 0; i < c->n; i++) {
        c->items[i].logprob = (double)logits[c->items[i].ids[0]] - all;
    }
    return CCA_OK;
}

/* From the prompt's end and back, for each that has more than one token. */
static cca_status score_others(choices *c, scoring *s, cca_error *err) {
    cca_snapshot *start;
    cca_status status = cca_session_snapshot(&start, s->session, err);
    for (size_t i = 0; i < c->n && !status; i++) {
        if (c->items[i].n_tokens == 1) continue;
        status = score_behind_first(s, &c->items[i], err);
        if (!status) status = cca_session_restore(s->session, start, err);
    }
    cca_snapshot_free(start);
    return status;
}

static void compare(choices *c) {
    double sum = 0;
    for (size_t i = 1; i < c->n; i++) {
        if (c->items[i].logprob > c->items[c->best].logprob) c->best = i;
    }
    for (size_t i = 0; i < c->n; i++) {
        c->items[i].probability = exp(c->items[i].logprob - c->items[c->best].logprob);
        sum += c->items[i].probability;
    }
    for (size_t i = 0; i < c->n; i++) c->items[i].probability /= sum;
}

cca_status choices_score(choices *c, cca_session *session, int64_t vocab_size, cca_error *err) {
    scoring s = {.session = session, .vocab_size = vocab_size};
    cca_status status = score_first_tokens(c, &s, err);
    if (!status && c->most > 1) {
        s.logits = calloc((size_t)vocab_size * TILE_ROWS, sizeof *s.logits);
        status = s.logits ? score_others(c, &s, err) : no_memory(err);
        free(s.logits);
    }
    if (!status) compare(c);
    return status;
}

json_t *choices_json(const choices *c) {
    json_t *all = json_array();
    for (size_t i = 0; i < c->n && all; i++) {
        const choice *one = &c->items[i];
        output_add(&all, json_pack("{s:o, s:o, s:o, s:I, s:o}", "text",
                                   output_string(one->text, one->size), "logprob",
                                   output_real(true, one->logprob), "logprob_per_byte",
                                   output_real(true, one->logprob / (double)one->size), "tokens",
                                   (json_int_t)one->n_tokens, "probability",
                                   output_real(true, one->probability)));
    }
    return all;
}
