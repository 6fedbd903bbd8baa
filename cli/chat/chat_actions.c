#include "cli/chat/chat_actions.h"

#include "cli/chat/chat_file.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- documents and files --------------------------------------------------------------- */

/* Documents are evaluated at once: the next answer need not wait for them. */
static cca_status do_read(chatting *a, const char *path, cca_error *err) {
    conversation *c = &a->c;
    input_text text = {0};
    size_t before = c->n_messages;
    if (strcmp(path, "-") == 0) {
        return cca_fail(err, CCA_USAGE, "/read -: standard input is where messages come from");
    }
    cca_status status = conversation_mark(c, err);
    if (!status) status = input_read_piece(&text, a->input, &(arg_item){'f', path}, a->term, err);
    if (!status) status = conversation_read(c, path, &text, err);
    input_free(&text);
    if (!status) status = conversation_prefill(c, false, err);
    if (status) {
        conversation_cut(c, before);
        return status;
    }
    const message *m = &c->messages[c->n_messages - 1];
    int64_t n = prompt_length(&c->prompt) - m->from;
    term_note(a->term, "%s: %lld token%s", path, (long long)n, term_plural(n));
    return chat_keep(a, err);
}

/* Of the conversation, in path; NULL: as it is. */
static void tell_length(const chatting *a, const char *path) {
    size_t n = a->c.n_messages, n_tokens = a->c.prompt.tokens.n;
    term_note(a->term, "%s%s%zu message%s, %zu token%s", path ? path : "", path ? ": " : "", n,
              term_plural((int64_t)n), n_tokens, term_plural((int64_t)n_tokens));
}

static cca_status do_save(chatting *a, const char *path, cca_error *err) {
    cca_status status = chat_file_save(&a->c, path, err);
    if (!status) tell_length(a, path);
    return status;
}

/* A file that is kept up to date has another conversation from now on. */
static cca_status keep_anew(chatting *a, cca_error *err) {
    cca_status status = a->store ? cca_store_cut(a->store, 0, err) : CCA_OK;
    if (status) status = chat_unkept(a, status, err);
    return status ? status : chat_keep(a, err);
}

static void tell_last(const chatting *a) {
    const conversation *c = &a->c;
    for (size_t i = c->n_messages > 2 ? c->n_messages - 2 : 0; i < c->n_messages; i++) {
        const message *m = &c->messages[i];
        if (m->slot == CCA_SLOT_DOCUMENT) {
            term_note(a->term, "(document %s)", m->name);
        } else {
            term_note(a->term, "%s %.*s", m->slot == CCA_SLOT_QUESTION ? ">>>" : "<<<",
                      (int)cca_min((int64_t)m->text.text.size, 4000), m->text.text.bytes);
        }
    }
}

static cca_status do_load(chatting *a, const char *path, cca_error *err) {
    cca_status status = chat_file_load(&a->c, path, err);
    if (status) return status;
    tell_length(a, path);
    if (a->interactive) tell_last(a);
    return keep_anew(a, err);
}

/* ---- back ------------------------------------------------------------------------------ */

static cca_status cut(chatting *a, size_t n_messages, cca_error *err) {
    conversation_cut(&a->c, n_messages);
    cca_status status = chat_keep_cut(a, err);
    if (status) return status;
    tell_length(a, NULL);
    return CCA_OK;
}

static cca_status do_undo(chatting *a, const char *argument, cca_error *err) {
    const conversation *c = &a->c;
    int64_t n = 1;
    if (*argument && (!args_int(&n, argument) || n < 1)) {
        return cca_fail(err, CCA_USAGE, "/undo %s: a number of turns expected", argument);
    }
    conversation probe = *c; /* only its number of messages changes */
    for (; n > 0; n--) {
        size_t before = conversation_before(&probe);
        if (before == probe.n_messages) break;
        probe.n_messages = before;
    }
    if (n > 0) return cca_fail(err, CCA_USAGE, "/undo: there are no more turns to take back");
    return cut(a, probe.n_messages, err);
}

static cca_status do_clear(chatting *a, cca_error *err) {
    return cut(a, a->c.n_base, err);
}

/* An answer as it stands in the conversation. */
typedef struct kept_answer {
    int32_t *ids;
    size_t n;
    text_buffer text;
} kept_answer;

static cca_status keep_answer(kept_answer *out, const conversation *c, cca_error *err) {
    const message *m = &c->messages[c->n_messages - 1];
    out->n = c->prompt.tokens.n - (size_t)m->begin;
    out->ids = malloc((out->n + 1) * sizeof *out->ids);
    if (!out->ids || !text_append(&out->text, m->text.text.bytes, m->text.text.size)) {
        return cca_fail(err, CCA_NO_MEMORY, "no memory for the answer");
    }
    memcpy(out->ids, c->prompt.tokens.ids + m->begin, out->n * sizeof *out->ids);
    return CCA_OK;
}

/* Where another answer came to nothing. */
static void put_back(conversation *c, const kept_answer *old) {
    int64_t begin = prompt_length(&c->prompt);
    if (prompt_answer(&c->prompt, old->ids, old->n, NULL) ||
        conversation_answered(c, begin, &old->text, false, NULL)) {
        conversation_cut(c, conversation_before(c)); /* without memory: not even the question */
    }
}

static cca_status do_regen(chatting *a, cca_error *err) {
    conversation *c = &a->c;
    size_t n = c->n_messages;
    kept_answer old = {0};
    if (n == c->n_base || c->messages[n - 1].slot != CCA_SLOT_ANSWER) {
        return cca_fail(err, CCA_USAGE, "/regen: there is no answer yet");
    }
    if (a->settings.sampling.temperature == 0) {
        term_note(a->term, "with temperature 0 the answer is the same; /set temp 0.8 lets it vary");
    }
    cca_status status = keep_answer(&old, c, err);
    if (!status) {
        conversation_cut(c, n - 1);
        status = chat_answer(a, err);
        if (status && c->n_messages < n) put_back(c, &old);
    }
    free(old.ids);
    text_free(&old.text);
    if (!status) status = chat_keep_cut(a, err);
    return status ? status : chat_keep(a, err);
}

/* ---- settings -------------------------------------------------------------------------- */

static cca_status do_system(chatting *a, const char *text, cca_error *err) {
    conversation *c = &a->c;
    if (!*text) {
        if (c->has_system) {
            term_say(a->term, "%.*s", (int)c->system.size, c->system.bytes);
        } else {
            term_say(a->term, "no system text");
        }
        return CCA_OK;
    }
    cca_status status = conversation_system(c, text, err);
    if (status) return status;
    term_note(a->term, "all %zu tokens are read anew, with the next message at the latest",
              c->prompt.tokens.n);
    return keep_anew(a, err);
}

static const arg_group settings_groups[] = {
    {"Sampling", sampling_args, offsetof(chat_settings, sampling)},
    {"Answers", chat_answer_args, 0},
    {0},
};

static void show_settings(const chatting *a) {
    for (const arg_group *g = settings_groups; g->options; g++) {
        for (const arg_option *o = g->options; o->name; o++) {
            char value[ARGS_VALUE_TEXT];
            args_value(value, (const char *)&a->settings + g->at, o);
            term_say(a->term, "  %-16s %-8s %s", o->name, value, o->help);
        }
    }
}

/* The sampler has the last word on what makes sense. */
static cca_status use_settings(chatting *a, cca_error *err) {
    cca_sampler *probe;
    decoder *d = a->decoder;
    cca_status status = decoder_sampling(d, &a->settings.sampling, err);
    if (!status) status = cca_sampler_new(&probe, &d->options, (int32_t)d->vocab_size, err);
    if (!status) cca_sampler_free(probe);
    return status;
}

static cca_status do_set(chatting *a, const char *argument, cca_error *err) {
    chat_settings settings = a->settings;
    cca_sampler_options options = a->decoder->options;
    char name[64];
    size_t n = strcspn(argument, " \t=");
    const char *value = argument + n + strspn(argument + n, " \t=");
    if (!*argument) return show_settings(a), CCA_OK;
    if (!*value) return cca_fail(err, CCA_USAGE, "/set %s: a value is missing", argument);
    snprintf(name, sizeof name, "%.*s", (int)n, argument);
    cca_status status = args_set(&a->settings, settings_groups, name, value, err);
    if (!status) status = use_settings(a, err);
    if (status) {
        a->settings = settings;
        a->decoder->options = options;
    } else if (strcmp(name, "seed") == 0) {
        a->seed = a->decoder->options.seed;
        a->n_answers = 0;
    }
    return status;
}

/* ---- facts ----------------------------------------------------------------------------- */

static void do_stats(const chatting *a) {
    const conversation *c = &a->c;
    const decoder *d = a->decoder;
    char cache[TERM_SIZE_TEXT], marks[TERM_SIZE_TEXT], peak[TERM_SIZE_TEXT];
    uint64_t bytes = 0;
    for (size_t i = 0; i < c->n_marks; i++) bytes += cca_snapshot_bytes(c->marks[i]);
    term_say(a->term, "conversation     %zu message%s, %zu token%s, room for %lld of %lld",
             c->n_messages, term_plural((int64_t)c->n_messages), c->prompt.tokens.n,
             term_plural(prompt_length(&c->prompt)),
             (long long)(c->limit - prompt_length(&c->prompt)), (long long)c->limit);
    term_say(a->term, "template         %s", prompt_template_name(&c->prompt));
    if (!c->stale) {
        term_say(a->term, "cache            %s of %lld token%s",
                 term_size(cache, cca_session_cache_bytes(c->session)),
                 (long long)cca_session_pos(c->session), term_plural(cca_session_pos(c->session)));
    }
    term_say(a->term, "states kept      %zu (%s)", c->n_marks, term_size(marks, bytes));
    if (d->stop_reason) {
        term_say(a->term,
                 "last answer      prefill %lld token%s, %.4g tok/s; generated %lld, %.4g tok/s; "
                 "first token after %.3g s; ended by %s",
                 (long long)a->n_prefilled, term_plural(a->n_prefilled),
                 term_per_second(a->n_prefilled, a->prefill_s), (long long)d->n_generated,
                 term_per_second(d->n_decoded, d->decode_s), d->ttft_s, d->stop_reason);
    }
    term_say(a->term, "seed             %llu, plus the number of answers before",
             (unsigned long long)a->seed);
    term_say(a->term, "peak memory      %s", term_size(peak, term_peak_memory()));
}

cca_status chat_act(chatting *a, const chat_command *command, cca_error *err) {
    const char *argument = command->argument;
    switch (command->verb) {
    case CHAT_READ: return do_read(a, argument, err);
    case CHAT_SAVE: return do_save(a, argument, err);
    case CHAT_LOAD: return do_load(a, argument, err);
    case CHAT_UNDO: return do_undo(a, argument, err);
    case CHAT_REGEN: return do_regen(a, err);
    case CHAT_CLEAR: return do_clear(a, err);
    case CHAT_SYSTEM: return do_system(a, argument, err);
    case CHAT_SET: return do_set(a, argument, err);
    case CHAT_STATS: do_stats(a); break;
    case CHAT_HELP: chat_command_help(stderr); break;
    case CHAT_QUIT: a->done = true; break;
    }
    return CCA_OK;
}
