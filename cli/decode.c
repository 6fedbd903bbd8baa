#include "cli/decode.h"

#include "base/clock.h"
#include "cli/signals.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* More are seldom right, and up to five rows are multiplied the way one row is, so that the text is
 * mostly that of decode to the bit (docs/SPEED.md). */
enum { USUAL_DRAFT = 4 };

const arg_option lookup_args[] = {
    {"lookup", .kind = ARG_INT, .value = "N|auto", .initial = "auto", .word = "auto",
     .at = offsetof(lookup_options, most), .max = CCA_MOST_DRAFT,
     .help = "guess up to N tokens from what followed the last ones before, in prompt and answer, "
             "and check them in one pass; 0: none"},
    {0},
};

int64_t decoder_draft(const lookup_options *options, const cca_engine *engine) {
    bool usual = strcmp(cca_engine_info(engine)->device, "cpu") == 0;
    if (options && options->most >= 0) return options->most;
    return usual ? USUAL_DRAFT : 0;
}

static cca_status push_stop(decoder *d, const char *text, size_t size, bool escape,
                            cca_error *err) {
    text_buffer *stops = realloc(d->stops, (d->n_stops + 1) * sizeof *stops);
    if (!stops) return cca_fail(err, CCA_NO_MEMORY, "--stop: no memory");
    d->stops = stops;
    text_buffer *stop = &stops[d->n_stops++];
    *stop = (text_buffer){0};
    bool done = escape ? text_append_unescaped(stop, text, size) : text_append(stop, text, size);
    if (!done) return cca_fail(err, CCA_NO_MEMORY, "--stop: no memory");
    if (stop->size == 0) return cca_fail(err, CCA_USAGE, "--stop: the text is empty");
    return CCA_OK;
}

cca_status decoder_stops(decoder *d, const arg_list *stops, bool escape, cca_error *err) {
    cca_status status = CCA_OK;
    for (size_t i = 0; i < stops->n && !status; i++) {
        const char *text = stops->items[i].text;
        status = push_stop(d, text, strlen(text), escape, err);
    }
    return status;
}

cca_status decoder_add_stop(decoder *d, const char *text, size_t size, cca_error *err) {
    return push_stop(d, text, size, false, err);
}

void decoder_cut_stops(decoder *d, size_t n) {
    while (d->n_stops > n) text_free(&d->stops[--d->n_stops]);
}

static bool is_end(const decoder *d, int32_t id) {
    return id == d->chat_end || cca_tokenizer_is_end(d->tok, id);
}

static cca_status list_end_ids(decoder *d, cca_error *err) {
    int32_t n = cca_tokenizer_info(d->tok)->vocab_size;
    d->end_ids = calloc((size_t)n + 1, sizeof *d->end_ids);
    if (!d->end_ids) return cca_fail(err, CCA_NO_MEMORY, "--ignore-eos: no memory");
    for (int32_t id = 0; id < n; id++) {
        if (is_end(d, id)) d->end_ids[d->n_end_ids++] = id;
    }
    return CCA_OK;
}

cca_status decoder_sampling(decoder *d, const sampling_options *sampling, cca_error *err) {
    d->options = (cca_sampler_options){
        .temperature = (float)sampling->temperature,
        .top_k = (int32_t)sampling->top_k,
        .top_p = (float)sampling->top_p,
        .min_p = (float)sampling->min_p,
        .repeat_penalty = (float)sampling->repeat_penalty,
        .repeat_last_n = (int32_t)sampling->repeat_last_n,
        .seed = (uint64_t)sampling->seed,
    };
    if (sampling->seed < 0) {
        uint32_t random = 0;
        if (getrandom(&random, sizeof random, 0) != sizeof random) {
            return cca_fail(err, CCA_RUNTIME, "--seed -1: the system gives no random numbers");
        }
        d->options.seed = random;
    }
    return CCA_OK;
}

cca_status decoder_open(decoder *d, const sampling_options *sampling, bool ignore_eos,
                        const prompt *p, const cca_engine *engine, cca_error *err) {
    bool named = p->has_template && !p->own;
    const char *stop = named ? cca_chat_stop(p->opening.chat) : NULL;
    d->tok = p->tok;
    d->vocab_size = cca_engine_info(engine)->vocab_size;
    d->ignore_eos = ignore_eos;
    d->chat_end = prompt_end_token(p);
    cca_status status = stop ? decoder_add_stop(d, stop, strlen(stop), err) : CCA_OK;
    if (!status) status = decoder_sampling(d, sampling, err);
    return status || !ignore_eos ? status : list_end_ids(d, err);
}

void decoder_close(decoder *d) {
    decoder_cut_stops(d, 0);
    free(d->stops);
    cca_tokens_free(&d->ids);
    free(d->logprobs);
    free(d->end_ids);
    cca_sampler_free(d->sampler);
    cca_lookup_free(d->lookup);
    *d = (decoder){0};
}

/* A token is part of the text now. */
static cca_status see_token(decoder *d, int32_t id, cca_error *err) {
    cca_sampler_accept(d->sampler, id);
    return d->lookup ? cca_lookup_push(d->lookup, id, err) : CCA_OK;
}

static cca_status start_lookup(decoder *d, cca_error *err) {
    d->n_tried = 0;
    if (d->lookup) cca_lookup_clear(d->lookup);
    return d->draft == 0 || d->lookup ? CCA_OK : cca_lookup_new(&d->lookup, d->draft, err);
}

cca_status decoder_start(decoder *d, cca_session *session, const prompt *p, cca_error *err) {
    cca_sampler_free(d->sampler);
    d->sampler = NULL;
    d->session = session;
    d->stop_reason = NULL;
    d->n_prompt = prompt_length(p);
    d->n_generated = d->n_decoded = d->n_passes = d->n_drafted = d->n_accepted = 0;
    d->ids.n = d->n_bytes = 0;
    d->ttft_s = d->decode_s = 0;
    cca_status status = cca_sampler_new(&d->sampler, &d->options, (int32_t)d->vocab_size, err);
    if (!status) status = start_lookup(d, err);
    for (size_t i = 0; i < p->tokens.n && !status; i++) {
        status = see_token(d, p->tokens.ids[i], err);
    }
    return status;
}

/* Why no further token may follow; NULL where one may. */
static const char *bound_reached(const decoder *d) {
    if (*signals_stop()) return "interrupted";
    if (d->n_generated == d->most) return "length";
    if (d->n_prompt + d->n_generated >= d->limit) return "context";
    return NULL;
}

/* What of a draft was not right is taken back. */
static cca_status end_draft(decoder *d, cca_error *err) {
    if (d->n_tried == 0) return CCA_OK;
    cca_lookup_report(d->lookup, d->n_tried - 1, d->row);
    d->n_drafted += d->n_tried - 1;
    d->n_accepted += d->row;
    d->n_tried = 0;
    return cca_session_accept(d->session, d->row + 1, err);
}

/* Guesses what follows the last token, as far as there is room for it. */
static int64_t guess(decoder *d) {
    int64_t n = cca_min(d->draft, cca_session_chunk_size(d->session) - 1);
    n = cca_min(n, d->limit - d->n_prompt - d->n_generated);
    if (d->most >= 0) n = cca_min(n, d->most - d->n_generated - 1);
    return d->lookup ? cca_lookup_guess(d->lookup, d->tried + 1, n) : 0;
}

/* The pass of the last token, perhaps with guesses. */
static cca_status pass(decoder *d, int32_t id, cca_error *err) {
    cca_status status = end_draft(d, err);
    if (status) return status;
    int64_t n = guess(d);
    d->n_passes++;
    if (n == 0) return cca_session_eval(d->session, &id, 1, NULL, err);
    d->tried[0] = id;
    d->row = 0;
    status = cca_session_draft(&d->logits, d->session, d->tried, 1 + n, err);
    if (!status) d->n_tried = 1 + n;
    return status;
}

/* Logits behind the last token of the text; NULL after a failure. */
static const float *next_logits(decoder *d, int32_t id, cca_error *err) {
    bool guessed = d->row + 1 < d->n_tried && d->tried[d->row + 1] == id;
    if (guessed) {
        d->row++;
    } else if (d->n_generated > 0 && pass(d, id, err)) {
        return NULL;
    }
    d->n_decoded += d->n_generated > 0;
    if (d->n_tried > 0) return d->logits + d->row * d->vocab_size;
    return cca_session_logits(d->session, err);
}

static cca_status next_token(decoder *d, int32_t *id, cca_error *err) {
    const float *logits = next_logits(d, *id, err);
    if (!logits) return err->status;
    *id = cca_sampler_next(d->sampler, logits, d->end_ids, d->n_end_ids);
    if (d->scored) d->logprob = (double)logits[*id] - cca_log_sum_exp(logits, d->vocab_size);
    return CCA_OK;
}

/* Room for the log probability of one token more. */
static bool reserve_logprob(decoder *d) {
    if (!d->scored || d->ids.n < d->logprobs_capacity) return true;
    size_t capacity = d->ids.n > 0 ? 2 * d->ids.n : 64;
    double *grown = realloc(d->logprobs, capacity * sizeof *grown);
    if (!grown) return false;
    d->logprobs = grown;
    d->logprobs_capacity = capacity;
    return true;
}

static cca_status take_token(decoder *d, answer *a, int32_t id, cca_error *err) {
    size_t size;
    const char *bytes = cca_tokenizer_bytes(&size, d->tok, id, false);
    cca_status status = see_token(d, id, err);
    if (status) return status;
    if (!reserve_logprob(d) || !cca_tokens_push(&d->ids, id, d->n_bytes)) {
        return cca_fail(err, CCA_NO_MEMORY, "no memory for the answer");
    }
    if (d->scored) d->logprobs[d->ids.n - 1] = d->logprob;
    d->n_bytes += size;
    if (d->n_generated++ == 0) d->ttft_s = cca_seconds() - d->started;
    return answer_add(a, bytes, size, err);
}

/* One token more, or the reason why there is none. */
static cca_status step(decoder *d, answer *a, int32_t *id, cca_error *err) {
    d->stop_reason = bound_reached(d);
    if (d->stop_reason) return CCA_OK;
    cca_status status = next_token(d, id, err);
    if (status) return status;
    if (!d->ignore_eos && is_end(d, *id)) {
        d->stop_reason = "end";
        return CCA_OK;
    }
    status = take_token(d, a, *id, err);
    if (a->stopped) d->stop_reason = "stop";
    return status;
}

cca_status decoder_run(decoder *d, answer *a, cca_error *err) {
    int32_t id = -1;
    cca_status status = CCA_OK;
    a->options.stops = d->stops;
    a->options.n_stops = d->n_stops;
    d->ttft_s = cca_seconds() - d->started;
    while (!status && !d->stop_reason) status = step(d, a, &id, err);
    cca_error cut_error;
    cca_status cut = end_draft(d, &cut_error);
    if (status == CCA_INTERRUPTED) { /* in the middle of a token; the text so far stays */
        d->stop_reason = "interrupted";
        status = CCA_OK;
    }
    if (!status && cut) {
        *err = cut_error;
        status = cut;
    }
    if (!status) status = answer_end(a, err);
    d->decode_s = cca_seconds() - d->started - d->ttft_s;
    return status;
}

double decoder_logprob(const decoder *d, size_t size) {
    double sum = 0;
    for (size_t i = 0; i < d->ids.n && d->ids.offsets[i] < size; i++) sum += d->logprobs[i];
    return sum;
}

json_t *decoder_timing_json(const decoder *d, double load_s, double prefill_s) {
    return json_pack("{s:o, s:o, s:o, s:o}", "load_s", output_real(true, load_s), "prefill_s",
                     output_real(true, prefill_s), "ttft_s", output_real(true, d->ttft_s),
                     "decode_s", output_real(true, d->decode_s));
}

json_t *decoder_tokens_json(const decoder *d, int64_t n_reused) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "prompt", (json_int_t)d->n_prompt,
                     "reused", (json_int_t)n_reused, "prefilled",
                     (json_int_t)(d->n_prompt - n_reused), "generated", (json_int_t)d->n_generated,
                     "drafted", (json_int_t)d->n_drafted, "accepted", (json_int_t)d->n_accepted,
                     "passes", (json_int_t)d->n_passes);
}

const char *decoder_lookup_text(char out[DECODER_LOOKUP_TEXT], const decoder *d) {
    out[0] = '\0';
    if (d->n_drafted == 0) return out;
    snprintf(out, DECODER_LOOKUP_TEXT, " (%.3g tokens a pass: %lld of %lld guesses right)",
             term_per_second(d->n_decoded, (double)d->n_passes), (long long)d->n_accepted,
             (long long)d->n_drafted);
    return out;
}
