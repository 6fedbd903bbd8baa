#include "cli/chat/chat_turn.h"

#include "base/clock.h"
#include "cli/chat/chat_file.h"
#include "cli/signals.h"

#include <stddef.h>
#include <string.h>

const arg_option chat_answer_args[] = {
    {"max-answer", "n", .alias = "predict", .kind = ARG_INT, .value = "N",
     .at = offsetof(chat_settings, max_answer), .initial = "-1", .min = -1, .max = INT32_MAX,
     .help = "tokens of an answer; -1: until an end token or the trained length"},
    {0},
};

cca_status chat_unkept(chatting *a, cca_status status, cca_error *err) {
    if (!a->interactive || status == CCA_NO_MEMORY) return status;
    term_warn(a->term, "%s; the conversation is no longer kept there", err->text);
    cca_store_close(a->store);
    a->store = NULL;
    return CCA_OK;
}

cca_status chat_keep(chatting *a, cca_error *err) {
    if (!a->store) return CCA_OK;
    if (a->interactive) signals_forget(); /* what it stopped was the answer */
    cca_status status = chat_file_append(a->store, &a->c, err);
    /* Interrupted while it caught up: the next turn's will have this one, too. */
    if (!status || (status == CCA_INTERRUPTED && a->interactive)) return CCA_OK;
    return chat_unkept(a, status, err);
}

cca_status chat_keep_cut(chatting *a, cca_error *err) {
    cca_status status = a->store ? chat_file_cut(a->store, &a->c, err) : CCA_OK;
    return status ? chat_unkept(a, status, err) : CCA_OK;
}

/* Each answer is a line, or several. */
static cca_status end_line(output *out, bool empty, cca_error *err) {
    if (empty || out->last != '\n') output_write(out, "\n", 1);
    return output_flush(out, err);
}

static cca_status write_answer(chatting *a, answer *text, cca_error *err) {
    decoder *d = a->decoder;
    answer_begin(text, a->out, &(answer_options){.format = ANSWER_TEXT, .strip_space = true});
    d->most = a->settings.max_answer;
    d->limit = a->c.limit;
    cca_status status = decoder_run(d, text, err);
    cca_status taken = prompt_answer(&a->c.prompt, d->ids.ids, d->ids.n, status ? NULL : err);
    if (!status) status = taken;
    cca_error line_error;
    cca_status line = end_line(a->out, text->text.size == 0, &line_error);
    if (status || !line) return status;
    *err = line_error;
    return line;
}

static void tell_answer(chatting *a) {
    const decoder *d = a->decoder;
    char guesses[DECODER_LOOKUP_TEXT];
    if (strcmp(d->stop_reason, "interrupted") == 0) {
        term_note(a->term, "(stopped; what was said stays)");
    }
    if (strcmp(d->stop_reason, "length") == 0 && d->most > 0) {
        term_note(a->term, "(cut: the answer has reached the %lld tokens that -n allows)",
                  (long long)d->most);
    }
    if (strcmp(d->stop_reason, "context") == 0) {
        term_warn(a->term,
                  "the answer ends where the context of %lld tokens does; /undo takes turns back, "
                  "/clear all of them, /save keeps them",
                  (long long)a->c.limit);
    }
    term_detail(a->term,
                "prompt %lld token%s (%lld prefilled); generated %lld token%s, %.4g tok/s%s; first "
                "token after %.3g s",
                (long long)d->n_prompt, term_plural(d->n_prompt), (long long)a->n_prefilled,
                (long long)d->n_generated, term_plural(d->n_generated),
                term_per_second(d->n_decoded, d->decode_s), decoder_lookup_text(guesses, d),
                d->ttft_s);
}

cca_status chat_answer(chatting *a, cca_error *err) {
    conversation *c = &a->c;
    decoder *d = a->decoder;
    int64_t n_prompt = prompt_length(&c->prompt);
    answer text = {0};
    d->options.seed = a->seed + a->n_answers;
    cca_status status = decoder_start(d, c->session, &c->prompt, err);
    d->started = cca_seconds();
    if (!status) status = conversation_prefill(c, true, err);
    a->prefill_s = cca_seconds() - d->started;
    if (status) return status;
    a->n_answers++;
    a->n_prefilled = c->prefilled;
    status = write_answer(a, &text, err);
    bool clean = !status && strcmp(d->stop_reason, "interrupted") != 0;
    cca_error keep_error;
    cca_status kept = conversation_answered(c, n_prompt, &text.text, clean, &keep_error);
    answer_free(&text);
    if (!status) tell_answer(a);
    if (status || !kept) return status;
    *err = keep_error;
    return kept;
}

cca_status chat_say(chatting *a, const char *text, size_t size, cca_error *err) {
    size_t before = a->c.n_messages;
    cca_status status = conversation_mark(&a->c, err);
    if (!status) status = conversation_say(&a->c, text, size, err);
    if (!status) status = chat_answer(a, err);
    if (!status) return chat_keep(a, err);
    conversation_cut(&a->c, before);
    return status;
}
