/* cca generate: continues a text. */
#include "cli/cli.h"
#include "cli/input.h"
#include "cli/signals.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

typedef struct generate_options {
    model_options model;
    input_options input;
    context_options context;
    sampling_options sampling;
    output_options output;
    term_options term;
    int64_t n_predict;
    arg_list stops;
    bool ignore_eos, jsonl;
    const char *truncate; /* NULL, or the part that is cut */
} generate_options;

static const arg_option own_args[] = {
    {"predict", "n", .alias = "n-predict", .kind = ARG_INT, .value = "N",
     .at = offsetof(generate_options, n_predict), .initial = "-1", .min = -1, .max = INT32_MAX,
     .help = "tokens to generate; -1: until an end token or the trained length"},
    {"stop", .kind = ARG_LIST, .value = "TEXT", .at = offsetof(generate_options, stops),
     .help = "end before this text; may be repeated"},
    {"ignore-eos", .kind = ARG_FLAG, .at = offsetof(generate_options, ignore_eos),
     .help = "never take an end token"},
    {"truncate", .kind = ARG_CHOICE, .value = "PART", .at = offsetof(generate_options, truncate),
     .choices = "head|middle|tail", .help = "cut this part of a prompt that is too long"},
    {"jsonl", .kind = ARG_FLAG, .at = offsetof(generate_options, jsonl),
     .help = "a line {\"event\": \"text\"} for each piece, then the record"},
    {0},
};

static const arg_group groups[] = {
    {"Text", input_args, offsetof(generate_options, input)},
    {"Generation", own_args, 0},
    {"Sampling", sampling_args, offsetof(generate_options, sampling)},
    {"Model", model_args, offsetof(generate_options, model)},
    {"Context", context_args, offsetof(generate_options, context)},
    {"Output", output_args, offsetof(generate_options, output)},
    {"Messages", term_args, offsetof(generate_options, term)},
    {0},
};

typedef struct generation {
    const generate_options *o;
    term term;
    output out;
    answer answer;
    text_buffer *stops;
    cca_engine *engine;
    const cca_tokenizer *tok;
    cca_tokens prompt;
    cca_session *session;
    cca_sampler *sampler;
    int32_t *end_ids; /* with --ignore-eos */
    size_t n_end_ids;
    cli_plan plan;
    uint64_t seed;
    int64_t limit; /* most tokens of prompt and answer together */
    int64_t n_generated, n_decoded;
    const char *stop_reason;
    double started; /* the clock at the start of prefill */
    double load_s, prefill_s, ttft_s, decode_s;
} generation;

/* ---- the prompt ---- */

/* Tokens that a cut prompt leaves for the answer. */
static int64_t room_for_answer(const generation *g) {
    if (g->o->n_predict >= 0) return g->o->n_predict;
    return cca_min(256, g->limit / 4);
}

/* Removes tokens so that prompt and answer fit, but never BOS, and says which. */
static cca_status truncate_prompt(generation *g, cca_error *err) {
    const char *part = g->o->truncate;
    cca_tokens *p = &g->prompt;
    int64_t n = (int64_t)p->n;
    const cca_tokenizer_facts *facts = cca_tokenizer_info(g->tok);
    int64_t first = n > 0 && p->ids[0] == facts->bos ? 1 : 0;
    int64_t keep = g->limit - room_for_answer(g);
    if (keep <= first)
        return cca_fail(err, CCA_NO_FIT,
                        "--truncate: -n %lld leaves no room for a prompt within %lld tokens",
                        (long long)g->o->n_predict, (long long)g->limit);
    int64_t cut = n - keep;
    int64_t at = first;
    if (part[0] == 'm') at = first + (keep - first) / 2;
    if (part[0] == 't') at = keep;
    uint64_t from = p->offsets[at], bytes_end = p->offsets[at + cut - 1];
    size_t rest = (size_t)(n - at - cut);
    memmove(p->ids + at, p->ids + at + cut, rest * sizeof *p->ids);
    memmove(p->offsets + at, p->offsets + at + cut, rest * sizeof *p->offsets);
    p->n = (size_t)keep;
    term_warn(&g->term,
              "--truncate %s: of %lld prompt tokens, %lld were cut (tokens %lld to %lld, which "
              "start at bytes %llu to %llu)",
              part, (long long)n, (long long)cut, (long long)at, (long long)(at + cut - 1),
              (unsigned long long)from, (unsigned long long)bytes_end);
    return CCA_OK;
}

static cca_status make_prompt(generation *g, const input_text *text, cca_error *err) {
    unsigned flags = INPUT_BOS | (g->o->input.special ? INPUT_SPECIAL : 0);
    cca_status status = input_encode(&g->prompt, g->tok, text, flags, err);
    if (status) return status;
    if (g->prompt.n == 0)
        return cca_fail(err, CCA_NO_FIT, "the prompt is empty, and this model has no BOS token");
    g->limit = cli_position_limit(&g->o->context, g->engine);
    if (g->o->truncate && (int64_t)g->prompt.n > g->limit) return truncate_prompt(g, err);
    return cli_check_length("the prompt", (int64_t)g->prompt.n, &g->o->context, g->engine, err);
}

/* Positions that the run can come to use. Where nothing but an end token bounds the answer, the
 * trained length does. */
static int64_t positions_needed(const generation *g) {
    const context_options *c = &g->o->context;
    int64_t more = g->o->n_predict;
    if (more < 0 && c->beyond_trained && c->ctx_size == 0)
        more = cca_engine_info(g->engine)->trained_length;
    return more < 0 ? g->limit : cca_min(g->limit, (int64_t)g->prompt.n + more);
}

/* ---- preparation ---- */

static cca_status make_stops(generation *g, cca_error *err) {
    const arg_list *list = &g->o->stops;
    g->stops = calloc(list->n + 1, sizeof *g->stops);
    if (!g->stops) return cca_fail(err, CCA_NO_MEMORY, "--stop: no memory");
    for (size_t i = 0; i < list->n; i++) {
        const char *text = list->items[i].text;
        bool done = g->o->input.escape ? text_append_unescaped(&g->stops[i], text, strlen(text))
                                       : text_append(&g->stops[i], text, strlen(text));
        if (!done) return cca_fail(err, CCA_NO_MEMORY, "--stop: no memory");
        if (g->stops[i].size == 0) return cca_fail(err, CCA_USAGE, "--stop: the text is empty");
    }
    return CCA_OK;
}

static cca_status list_end_ids(generation *g, cca_error *err) {
    int32_t n = cca_tokenizer_info(g->tok)->vocab_size;
    if (!g->o->ignore_eos) return CCA_OK;
    g->end_ids = calloc((size_t)n + 1, sizeof *g->end_ids);
    if (!g->end_ids) return cca_fail(err, CCA_NO_MEMORY, "--ignore-eos: no memory");
    for (int32_t id = 0; id < n; id++) {
        if (cca_tokenizer_is_end(g->tok, id)) g->end_ids[g->n_end_ids++] = id;
    }
    return CCA_OK;
}

static cca_status make_sampler(generation *g, cca_error *err) {
    const sampling_options *o = &g->o->sampling;
    cca_sampler_options options = {
        .temperature = (float)o->temperature,
        .top_k = (int32_t)o->top_k,
        .top_p = (float)o->top_p,
        .min_p = (float)o->min_p,
        .repeat_penalty = (float)o->repeat_penalty,
        .repeat_last_n = (int32_t)o->repeat_last_n,
    };
    g->seed = (uint64_t)o->seed;
    if (o->seed < 0) {
        uint32_t random = 0;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            return cca_fail(err, CCA_RUNTIME, "--seed -1: the system gives no random numbers");
        g->seed = random;
    }
    options.seed = g->seed;
    int32_t vocab_size = (int32_t)cca_engine_info(g->engine)->vocab_size;
    cca_status status = cca_sampler_new(&g->sampler, &options, vocab_size, err);
    for (size_t i = 0; i < g->prompt.n && !status; i++)
        cca_sampler_accept(g->sampler, g->prompt.ids[i]);
    return status;
}

static cca_status open_model(generation *g, cca_error *err) {
    double start = term_seconds();
    cca_status status = cli_engine_open(&g->engine, &g->o->model, &g->term, err);
    if (!status) status = cli_tokenizer(&g->tok, g->engine, err);
    g->load_s = term_seconds() - start;
    return status;
}

/* ---- the run ---- */

static cca_status prefill(generation *g, cca_error *err) {
    cca_eval_options options = {.on_chunk = cli_show_chunk, .user = &g->term};
    int64_t n = (int64_t)g->prompt.n;
    g->started = term_seconds();
    term_start(&g->term, "prefill", TERM_TOKENS, n);
    cca_status status = cca_session_eval(g->session, g->prompt.ids, n, &options, err);
    term_done(&g->term);
    g->prefill_s = g->ttft_s = term_seconds() - g->started;
    if (status == CCA_INTERRUPTED)
        return cca_fail(err, status, "interrupted in prefill, after %lld of %lld tokens",
                        (long long)cca_session_pos(g->session), (long long)n);
    return status;
}

/* Why no further token may follow; NULL where one may. */
static const char *bound_reached(const generation *g) {
    if (*signals_stop()) return "interrupted";
    if (g->n_generated == g->o->n_predict) return "length";
    if ((int64_t)g->prompt.n + g->n_generated >= g->limit) return "context";
    return NULL;
}

static cca_status next_token(generation *g, int32_t *id, cca_error *err) {
    if (g->n_generated > 0) {
        cca_status status = cca_session_eval(g->session, id, 1, NULL, err);
        if (status) return status;
        g->n_decoded++;
    }
    const float *logits = cca_session_logits(g->session, err);
    if (!logits) return CCA_RUNTIME;
    *id = cca_sampler_next(g->sampler, logits, g->end_ids, g->n_end_ids);
    return CCA_OK;
}

static cca_status take_token(generation *g, int32_t id, cca_error *err) {
    size_t size;
    const char *bytes = cca_tokenizer_bytes(&size, g->tok, id, false);
    cca_sampler_accept(g->sampler, id);
    if (g->n_generated++ == 0) g->ttft_s = term_seconds() - g->started;
    return answer_add(&g->answer, bytes, size, err);
}

/* One token more, or the reason why there is none. */
static cca_status step(generation *g, int32_t *id, cca_error *err) {
    g->stop_reason = bound_reached(g);
    if (g->stop_reason) return CCA_OK;
    cca_status status = next_token(g, id, err);
    if (status) return status;
    if (!g->o->ignore_eos && cca_tokenizer_is_end(g->tok, *id)) {
        g->stop_reason = "end";
        return CCA_OK;
    }
    status = take_token(g, *id, err);
    if (g->answer.stopped) g->stop_reason = "stop";
    return status;
}

static cca_status decode(generation *g, cca_error *err) {
    int32_t id = -1;
    cca_status status = CCA_OK;
    while (!status && !g->stop_reason) status = step(g, &id, err);
    if (status == CCA_INTERRUPTED) { /* in the middle of a token; the text so far stays */
        g->stop_reason = "interrupted";
        status = CCA_OK;
    }
    if (!status) status = answer_end(&g->answer, err);
    g->decode_s = term_seconds() - g->started - g->ttft_s;
    return status;
}

/* ---- reports ---- */

static json_t *record(generation *g, bool is_event) {
    json_t *tokens = json_pack("{s:I, s:I, s:I, s:I}", "prompt", (json_int_t)g->prompt.n, "reused",
                               (json_int_t)0, "prefilled", (json_int_t)g->prompt.n, "generated",
                               (json_int_t)g->n_generated);
    json_t *timing = json_pack("{s:f, s:f, s:f, s:f}", "load_s", g->load_s, "prefill_s",
                               g->prefill_s, "ttft_s", g->ttft_s, "decode_s", g->decode_s);
    json_t *all = json_pack(
        "{s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:I, s:O}", "schema", "cca.generate.1", "text",
        output_string(g->answer.text.bytes, g->answer.text.size), "stop_reason", g->stop_reason,
        "tokens", tokens, "timing", timing, "memory", cli_plan_json(&g->plan), "attention",
        cli_attention_json(&g->o->context, g->engine), "seed", (json_int_t)g->seed, "warnings",
        g->term.warnings);
    if (all && is_event) json_object_set_new(all, "event", json_string("end"));
    return all;
}

static double per_second(int64_t n, double seconds) {
    return seconds > 0 ? (double)n / seconds : 0;
}

static void last_line(generation *g) {
    char peak[TERM_SIZE_TEXT];
    bool open_line = g->out.last != '\n' && g->answer.text.size > 0;
    bool shared = isatty(STDOUT_FILENO) == 1 && isatty(STDERR_FILENO) == 1;
    if (shared && open_line && !g->o->output.file) term_note(&g->term, "%s", "");
    if (strcmp(g->stop_reason, "context") == 0)
        term_note(&g->term, "stopped: prompt and answer have reached the length of %lld tokens",
                  (long long)g->limit);
    term_note(&g->term,
              "prompt %zu tokens (0 reused), %.4g tok/s; generated %lld tokens, %.4g tok/s; first "
              "token after %.3g s; peak memory %s",
              g->prompt.n, per_second((int64_t)g->prompt.n, g->prefill_s),
              (long long)g->n_generated, per_second(g->n_decoded, g->decode_s), g->ttft_s,
              term_size(peak, term_peak_memory()));
}

/* From the prefilled session to the closed output. */
static cca_status write_answer(generation *g, cca_error *err) {
    const generate_options *o = g->o;
    answer_options options = {
        .format = o->jsonl         ? ANSWER_JSONL
                  : o->output.json ? ANSWER_JSON
                                   : ANSWER_TEXT,
        .stops = g->stops,
        .n_stops = o->stops.n,
        /* The dummy prefix of the first text after BOS is no part of that text. */
        .strip_space = cca_tokenizer_info(g->tok)->dummy_prefix && g->prompt.n == 1 &&
                       g->prompt.ids[0] == cca_tokenizer_info(g->tok)->bos,
    };
    answer_begin(&g->answer, &g->out, &options);
    cca_status status = decode(g, err);
    if (!status && options.format != ANSWER_TEXT) {
        output_json(&g->out, record(g, o->jsonl));
        status = output_flush(&g->out, err);
    }
    if (!status) last_line(g);
    if (!status && strcmp(g->stop_reason, "interrupted") == 0)
        return cca_fail(err, CCA_INTERRUPTED, "interrupted; the text so far is kept");
    return status;
}

static cca_status run_session(generation *g, cca_error *err) {
    cli_tell_attention(&g->term, &g->o->context, g->engine, (int64_t)g->prompt.n);
    cca_status status = output_open(&g->out, g->o->output.file, err);
    if (!status) status = prefill(g, err);
    bool prefilled = !status;
    if (!status) status = write_answer(g, err);
    bool keep = !status || (prefilled && status == CCA_INTERRUPTED);
    cca_error close_error;
    cca_status closed = output_close(&g->out, keep, &close_error);
    if (!closed || status) return status;
    *err = close_error;
    return closed;
}

static cca_status generate(generation *g, const input_text *text, cca_error *err) {
    cca_status status = make_prompt(g, text, err);
    if (status) return status;
    int64_t n_positions = positions_needed(g);
    if (g->o->n_predict < 0) g->limit = n_positions;
    status = make_sampler(g, err);
    if (!status) status = list_end_ids(g, err);
    if (!status)
        status = cli_session_open(&g->session, &g->plan, g->engine, &g->o->context, &g->o->output,
                                  n_positions, err);
    return status || !g->session ? status : run_session(g, err);
}

static void free_all(generation *g) {
    for (size_t i = 0; g->stops && i < g->o->stops.n; i++) text_free(&g->stops[i]);
    free(g->stops);
    free(g->end_ids);
    answer_free(&g->answer);
    cca_sampler_free(g->sampler);
    cca_session_free(g->session);
    cca_tokens_free(&g->prompt);
    cca_engine_close(g->engine);
    term_close(&g->term);
}

static cca_status run(const void *options, cca_error *err) {
    generation g = {.o = options};
    input_text text = {0};
    term_open(&g.term, &g.o->term);
    cca_status status = make_stops(&g, err);
    if (!status) status = open_model(&g, err);
    if (!status) status = input_read(&text, &g.o->input, err);
    if (!status) status = generate(&g, &text, err);
    input_free(&text);
    free_all(&g);
    return status;
}

const cli_command cli_generate = {
    .name = "generate",
    .summary = "continue a text",
    .usage = "-m MODEL -p TEXT [options]",
    .notes =
        "The text is continued as it is; only the continuation goes to standard output. It ends "
        "at an end token, after -n tokens, before a --stop text, or at the trained length. "
        "A prompt that is longer than the trained length is refused (exit 4) unless "
        "--beyond-trained or --truncate says what to do; --truncate leaves room for -n tokens "
        "(for 256, at most a quarter, with -n -1). With --beyond-trained and -n -1 the answer is "
        "at most as long as the trained length.",
    .groups = groups,
    .options_size = sizeof(generate_options),
    .run = run,
};
