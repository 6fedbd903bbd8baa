/* cca generate: continues a text. */
#include "base/clock.h"
#include "cli/decode.h"
#include "cli/ranks.h"

#include <stddef.h>
#include <string.h>
#include <unistd.h>

typedef struct generate_options {
    model_options model;
    input_options input;
    context_options context;
    sampling_options sampling;
    chat_options chat;
    output_options output;
    term_options term;
    lookup_options lookup;
    int64_t n_predict;
    arg_list stops;
    stored_options stored;
    ranks_options ranks;
    bool ignore_eos, jsonl, in_chat;
    const char *truncate; /* NULL, or the part that is cut */
} generate_options;

static const arg_option own_args[] = {
    {"chat", .kind = ARG_FLAG, .at = offsetof(generate_options, in_chat),
     .help = "the text is the user's words in the model's chat template"},
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
    {"Speed", lookup_args, offsetof(generate_options, lookup)},
    {"Chat", chat_args, offsetof(generate_options, chat)},
    {"Sessions", stored_args, offsetof(generate_options, stored)},
    {"Sampling", sampling_args, offsetof(generate_options, sampling)},
    {"Model", model_args, offsetof(generate_options, model)},
    {"Context", context_args, offsetof(generate_options, context)},
    {"Sinks and recall", recall_args, offsetof(generate_options, context)},
    {"Ranks", ranks_args, offsetof(generate_options, ranks)},
    {"Answers of ranks", decode_args, offsetof(generate_options, ranks)},
    {"Output", output_args, offsetof(generate_options, output)},
    {"Messages", term_args, offsetof(generate_options, term)},
    {0},
};

typedef struct generation {
    const generate_options *o;
    term term;
    output out;
    answer answer;
    decoder decoder;
    cca_engine *engine;
    prompt prompt;
    cca_session *session;
    context_options context; /* with what a stored session says */
    stored stored;
    cli_plan plan;
    cli_ranks ranks;
    int64_t limit; /* most tokens of prompt and answer together */
    double load_s, prefill_s;
} generation;

/* ---- the prompt ---- */

/* Tokens that a cut prompt leaves for the answer. */
static int64_t room_for_answer(const generation *g) {
    if (g->o->n_predict >= 0) return g->o->n_predict;
    return cca_min(256, g->limit / 4);
}

/* Removes tokens of the text so that prompt and answer fit, but neither BOS nor a template's, and
 * says which. */
static cca_status truncate_prompt(generation *g, cca_error *err) {
    const char *part = g->o->truncate;
    prompt *p = &g->prompt;
    int64_t n = prompt_length(p), n_text = p->text_end - p->text_begin, at = p->text_begin;
    int64_t cut = n - (g->limit - room_for_answer(g));
    if (cut >= n_text) {
        return cca_fail(err, CCA_NO_FIT,
                        "--truncate: -n %lld leaves no room for a prompt within %lld tokens",
                        (long long)g->o->n_predict, (long long)g->limit);
    }
    if (part[0] == 'm') at += (n_text - cut) / 2;
    if (part[0] == 't') at += n_text - cut;
    uint64_t from = p->tokens.offsets[at], to = p->tokens.offsets[at + cut - 1];
    prompt_shorten(p, at, cut);
    term_warn(&g->term,
              "--truncate %s: of %lld prompt tokens, %lld were cut (tokens %lld to %lld, which "
              "start at bytes %llu to %llu)",
              part, (long long)n, (long long)cut, (long long)at, (long long)(at + cut - 1),
              (unsigned long long)from, (unsigned long long)to);
    return CCA_OK;
}

static cca_status make_prompt(generation *g, cca_error *err) {
    bool in_chat = g->o->in_chat || g->o->chat.system || g->o->chat.name;
    const chat_options *chat = in_chat ? &g->o->chat : NULL;
    input_text text = {0};
    cca_status status = prompt_begin(&g->prompt, chat, g->engine, err);
    if (!status) status = input_read(&text, &g->o->input, &g->term, err);
    if (!status) {
        status = prompt_add(&g->prompt, CCA_SLOT_QUESTION, &text, g->o->input.special, err);
    }
    input_free(&text);
    if (status) return status;
    int64_t n = prompt_length(&g->prompt);
    if (n == 0) {
        return cca_fail(err, CCA_NO_FIT, "the prompt is empty, and this model has no BOS token");
    }
    g->limit = cli_position_limit(&g->context, g->engine);
    if (g->o->truncate && n > g->limit) return truncate_prompt(g, err);
    return cli_check_length("the prompt", n, &g->context, g->engine, err);
}

static unsigned session_flags(const generation *g) {
    return g->o->stored.file ? CLI_STORED : 0;
}

/* Positions that the run can come to use. Where nothing but an end token bounds the answer, the
 * trained length does, and memory. */
static int64_t positions_needed(const generation *g) {
    const context_options *c = &g->context;
    int64_t more = g->o->n_predict, n = prompt_length(&g->prompt);
    if (more >= 0) return cca_min(g->limit, n + more);
    int64_t most = g->limit;
    if (c->beyond_trained && c->ctx_size == 0) {
        most = cca_min(most, n + cca_engine_info(g->engine)->trained_length);
    }
    return cli_affordable(g->engine, c, cca_min(n + 1, most), most, session_flags(g));
}

/* By the fewest positions that are of use. */
static cca_status decode_by(generation *g, cca_error *err) {
    int64_t more = g->o->n_predict >= 0 ? g->o->n_predict : 1;
    return cli_ranks_decode(&g->context, &g->o->ranks, g->engine,
                            cca_min(g->limit, prompt_length(&g->prompt) + more), session_flags(g),
                            &g->term, err);
}

/* ---- preparation ---- */

static cca_status open_model(generation *g, cca_error *err) {
    double start = cca_seconds();
    cca_status status = cli_engine_open(&g->engine, &g->o->model, &g->term, err);
    g->load_s = cca_seconds() - start;
    if (!status) g->context.draft = g->decoder.draft = decoder_draft(&g->o->lookup, g->engine);
    return status;
}

/* ---- the run ---- */

/* No file of the cache serves, and without a named one prefill is cut nowhere. */
static cca_status prefill(generation *g, cca_error *err) {
    g->decoder.started = cca_seconds();
    cca_status status =
        prompt_prefill(&g->stored, &g->prompt, &g->o->stored, 0, g->session, &g->term, err);
    g->prefill_s = cca_seconds() - g->decoder.started;
    return status;
}

/* ---- reports ---- */

static json_t *record(generation *g, bool is_event) {
    json_t *tokens = decoder_tokens_json(&g->decoder, g->stored.reused);
    json_t *timing = decoder_timing_json(&g->decoder, g->load_s, g->prefill_s);
    json_t *all =
        json_pack("{s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:I, s:O}", "schema", "cca.generate.1",
                  "text", output_string(g->answer.text.bytes, g->answer.text.size), "stop_reason",
                  g->decoder.stop_reason, "tokens", tokens, "timing", timing, "memory",
                  cli_plan_json(&g->plan), "attention", cli_attention_json(&g->context, g->engine),
                  "ranks", cli_ranks_json(g->session), "seed", (json_int_t)g->decoder.options.seed,
                  "warnings", g->term.warnings);
    if (all && is_event) json_object_set_new(all, "event", json_string("end"));
    return all;
}

static void last_line(generation *g) {
    char peak[TERM_SIZE_TEXT], guesses[DECODER_LOOKUP_TEXT];
    if (strcmp(g->decoder.stop_reason, "context") == 0) {
        term_note(&g->term, "stopped: prompt and answer have reached the length of %lld tokens",
                  (long long)g->limit);
    }
    term_note(
        &g->term,
        "prompt %lld token%s (%lld reused), %.4g tok/s; generated %lld token%s, %.4g tok/s%s; "
        "first token after %.3g s; peak memory %s",
        (long long)g->decoder.n_prompt, term_plural(g->decoder.n_prompt),
        (long long)g->stored.reused,
        term_per_second(g->decoder.n_prompt - g->stored.reused, g->prefill_s),
        (long long)g->decoder.n_generated, term_plural(g->decoder.n_generated),
        term_per_second(g->decoder.n_decoded, g->decoder.decode_s),
        decoder_lookup_text(guesses, &g->decoder), g->decoder.ttft_s,
        term_size(peak, term_peak_memory()));
    cli_ranks_tell(g->session, &g->term);
}

/* From the prefilled session to the closed output. */
static cca_status write_answer(generation *g, cca_error *err) {
    const generate_options *o = g->o;
    answer_options options = {
        .format = o->jsonl         ? ANSWER_JSONL
                  : o->output.json ? ANSWER_JSON
                                   : ANSWER_TEXT,
        /* The dummy prefix of the first text after BOS is no part of that text, nor is the space
         * that some templates have before an answer. */
        .strip_space =
            g->prompt.has_template ||
            (cca_tokenizer_info(g->prompt.tok)->dummy_prefix && g->prompt.tokens.n == 1 &&
             g->prompt.tokens.ids[0] == cca_tokenizer_info(g->prompt.tok)->bos),
    };
    answer_begin(&g->answer, &g->out, &options);
    g->decoder.most = o->n_predict;
    g->decoder.limit = g->limit;
    cca_status status = decoder_run(&g->decoder, &g->answer, err);
    bool interrupted = !status && strcmp(g->decoder.stop_reason, "interrupted") == 0;
    if (status || interrupted || !g->o->term.quiet) output_end_line(&g->out);
    if (!status && options.format != ANSWER_TEXT) {
        output_json(&g->out, record(g, o->jsonl));
        status = output_flush(&g->out, err);
    }
    if (!status) last_line(g);
    if (!interrupted || status) return status;
    return cca_fail(err, CCA_INTERRUPTED, "interrupted; the text so far is kept");
}

static cca_status run_session(generation *g, cca_error *err) {
    cli_tell_attention(&g->term, &g->context, g->engine, prompt_length(&g->prompt));
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

static cca_status generate(generation *g, cca_error *err) {
    cca_status status = make_prompt(g, err);
    if (status) return status;
    status = stored_resume(&g->context, &g->o->stored, g->engine, &g->term, err);
    if (status) return status;
    status = decode_by(g, err);
    if (status) return status;
    int64_t n_positions = positions_needed(g);
    if (g->o->n_predict < 0) g->limit = n_positions;
    status =
        decoder_open(&g->decoder, &g->o->sampling, g->o->ignore_eos, &g->prompt, g->engine, err);
    if (!status) {
        status = cli_session_open(&g->session, &g->plan, g->engine, &g->context, &g->o->output,
                                  n_positions, session_flags(g), err);
    }
    if (status || !g->session) return status;
    status = decoder_start(&g->decoder, g->session, &g->prompt, err);
    return status ? status : run_session(g, err);
}

static void free_all(generation *g) {
    decoder_close(&g->decoder);
    answer_free(&g->answer);
    stored_close(&g->stored);
    cca_session_free(g->session);
    prompt_free(&g->prompt);
    cca_engine_close(g->engine);
    term_close(&g->term);
}

/* On rank 0, or where there are none. */
static cca_status run_alone(generation *g, cca_error *err) {
    cca_status status = decoder_stops(&g->decoder, &g->o->stops, g->o->input.escape, err);
    if (!status) status = open_model(g, err);
    return status ? status : generate(g, err);
}

static cca_status run(const void *options, cca_error *err) {
    generation g = {.o = options};
    g.context = g.o->context;
    term_open(&g.term, &g.o->term);
    cca_status status = cli_ranks_open(&g.ranks, &g.o->ranks, &g.o->model, &g.term, err);
    g.context.comm = g.ranks.comm;
    if (!status && !g.ranks.served) status = run_alone(&g, err);
    free_all(&g);
    cli_ranks_close(&g.ranks, "generate", status, err);
    return status;
}

const cli_command cli_generate = {
    .name = "generate",
    .summary = "continue a text",
    .usage = "-m MODEL -p TEXT [options]",
    .notes =
        "The text is continued as it is, unless --chat, -sys or --chat-template puts it into a chat "
        "template; "
        "only the continuation goes to standard output. It ends "
        "at an end token, after -n tokens, before a --stop text, or at the trained length. "
        "A prompt that is longer than the trained length is refused (exit 4) unless "
        "--beyond-trained or --truncate says what to do; --truncate leaves room for -n tokens "
        "(for 256, at most a quarter, with -n -1). With --beyond-trained and -n -1 the answer is "
        "at most as long as the trained length.",
    .groups = groups,
    .options_size = sizeof(generate_options),
    .run = run,
};
