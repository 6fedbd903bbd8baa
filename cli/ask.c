/* cca ask: many questions over documents that are read once. */
#include "cli/cli.h"
#include "cli/decode.h"
#include "cli/input.h"
#include "cli/signals.h"
#include "cli/stored.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct ask_options {
    model_options model;
    input_options input;
    chat_options chat;
    context_options context;
    sampling_options sampling;
    output_options output;
    term_options term;
    arg_list questions, stops;
    int64_t max_answer;
    stored_options stored;
    bool jsonl;
} ask_options;

static const arg_option own_args[] = {
    {"question", .kind = ARG_OPERAND, .value = "QUESTION", .at = offsetof(ask_options, questions),
     .max = 1 << 20, .help = "each is asked about the same documents"},
    {"max-answer", "n", .alias = "predict", .kind = ARG_INT, .value = "N",
     .at = offsetof(ask_options, max_answer), .initial = "256", .min = -1, .max = INT32_MAX,
     .help = "tokens of an answer; -1: until an end token or the trained length"},
    {"stop", .kind = ARG_LIST, .value = "TEXT", .at = offsetof(ask_options, stops),
     .help = "end an answer before this text; may be repeated"},
    {"jsonl", .kind = ARG_FLAG, .at = offsetof(ask_options, jsonl),
     .help = "a line {\"event\": \"answer\"} for each question, then the record"},
    {0},
};

static const arg_group groups[] = {
    {"Questions", own_args, 0},
    {"Documents", input_args, offsetof(ask_options, input)},
    {"Sessions", stored_args, offsetof(ask_options, stored)},
    {"Chat", chat_args, offsetof(ask_options, chat)},
    {"Sampling", greedy_args, offsetof(ask_options, sampling)},
    {"Model", model_args, offsetof(ask_options, model)},
    {"Context", context_args, offsetof(ask_options, context)},
    {"Output", output_args, offsetof(ask_options, output)},
    {"Messages", term_args, offsetof(ask_options, term)},
    {0},
};

typedef struct asking {
    const ask_options *o;
    term term;
    output out;
    cca_engine *engine;
    const cca_tokenizer *tok;
    cca_tokens tokens;    /* of the documents, and behind them of one question */
    cca_prompt documents; /* the prompt where the documents end */
    int64_t *ends;        /* tokens up to the end of each document */
    size_t n_documents;
    cca_session *session;
    stored stored;
    decoder decoder;
    cli_plan plan;
    json_t *answers; /* the records, for --json */
    double load_s;
} asking;

/* ---- documents and questions ---- */

/* Appends the tokens of one document. */
static cca_status encode_document(asking *a, const arg_item *piece, cca_error *err) {
    arg_item item = *piece;
    input_options one = a->o->input;
    input_text text = {0};
    const char *lead;
    bool start;
    one.pieces = (arg_list){&item, 1, 1};
    cca_status status = cca_prompt_open(&a->documents, CCA_SLOT_DOCUMENT, &lead, &start, err);
    if (!status) status = input_read_behind(&text, lead, &one, err);
    unsigned flags = (one.special ? INPUT_SPECIAL : 0) | (start ? 0 : INPUT_LATER);
    if (!status) status = input_encode(&a->tokens, a->tok, &text, flags, err);
    a->ends[a->n_documents++] = (int64_t)a->tokens.n;
    input_free(&text);
    return status;
}

/* BOS, the template's opening and the documents, each encoded on its own. */
static cca_status encode_documents(asking *a, cca_error *err) {
    static const arg_item from_stdin = {'f', "-"};
    const arg_item *items = a->o->input.pieces.items;
    size_t n = a->o->input.pieces.n, n_stdin = 0;
    if (n == 0) {
        if (isatty(STDIN_FILENO))
            return cca_fail(err, CCA_USAGE, "no documents: give -f FILE or standard input");
        items = &from_stdin;
        n = 1;
    }
    for (size_t i = 0; i < n; i++)
        n_stdin += items[i].tag == 'f' && strcmp(items[i].text, "-") == 0;
    if (n_stdin > 1) return cca_fail(err, CCA_USAGE, "standard input can be read only once");
    a->ends = calloc(n, sizeof *a->ends);
    if (!a->ends) return cca_fail(err, CCA_NO_MEMORY, "no memory for the documents");
    cca_status status = input_encode(&a->tokens, a->tok, &(input_text){0}, INPUT_BOS, err);
    if (!status) status = cli_chat_begin(&a->documents, &a->o->chat, a->engine, &a->tokens, err);
    for (size_t i = 0; i < n && !status; i++) status = encode_document(a, &items[i], err);
    return status;
}

static size_t n_document_tokens(const asking *a) {
    return (size_t)a->ends[a->n_documents - 1];
}

/* Puts question i behind the documents, in place of another one. */
static cca_status encode_question(asking *a, size_t i, cca_error *err) {
    const char *text = a->o->questions.items[i].text;
    cca_prompt p = a->documents;
    a->tokens.n = n_document_tokens(a);
    cca_status status = cca_prompt_text(&p, CCA_SLOT_QUESTION, text, strlen(text), err);
    return status ? status : cca_prompt_end(&p, err);
}

/* Tokens of the documents and the longest question. */
static cca_status measure_prompts(asking *a, int64_t *longest, cca_error *err) {
    cca_status status = CCA_OK;
    *longest = 0;
    for (size_t i = 0; i < a->o->questions.n && !status; i++) {
        const char *text = a->o->questions.items[i].text;
        size_t valid = utf8_valid(text, strlen(text));
        if (text[valid])
            return cca_fail(err, CCA_BAD_TEXT, "question %zu: invalid UTF-8 at byte offset %zu",
                            i + 1, valid);
        status = encode_question(a, i, err);
        *longest = cca_max(*longest, (int64_t)a->tokens.n);
    }
    if (status) return status;
    return cli_check_length("the prompt (documents and longest question)", *longest, &a->o->context,
                            a->engine, err);
}

/* ---- one question ---- */

static cca_status eval_up_to(asking *a, size_t n, cca_error *err) {
    cca_eval_options options = {.on_chunk = cli_show_chunk, .user = &a->term};
    int64_t pos = cca_session_pos(a->session);
    return cca_session_eval(a->session, a->tokens.ids + pos, (int64_t)n - pos, &options, err);
}

/* The first question brings the documents, or what is missing of them in their session. */
static cca_status prefill_documents(asking *a, cca_error *err) {
    cca_status status = stored_open(&a->stored, &a->o->stored, true, a->session, a->tokens.ids,
                                    (int64_t)a->tokens.n, &a->term, err);
    term_start(&a->term, "prefill", TERM_TOKENS, (int64_t)a->tokens.n);
    term_skip(&a->term, a->stored.reused);
    if (!status) status = stored_prefill(&a->stored, a->tokens.ids, a->ends, a->n_documents, err);
    if (!status && a->o->questions.n > 1) status = cca_session_mark(a->session, err);
    return status;
}

/* The other questions start from where the documents end. */
static cca_status prefill(asking *a, size_t question, cca_error *err) {
    cca_status status = CCA_OK;
    if (question == 0) {
        status = prefill_documents(a, err);
    } else {
        status = cca_session_rewind(a->session, err);
        term_start(&a->term, "prefill", TERM_TOKENS, (int64_t)a->tokens.n);
        term_skip(&a->term, (int64_t)n_document_tokens(a));
    }
    if (!status) status = eval_up_to(a, a->tokens.n, err);
    term_done(&a->term);
    if (status != CCA_INTERRUPTED) return status;
    char what[64];
    snprintf(what, sizeof what, "prefill of question %zu", question + 1);
    return stored_interrupted(&a->stored, what, (int64_t)a->tokens.n, err);
}

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* The answer as one line. */
static void write_line(output *out, const text_buffer *text) {
    size_t from = 0, end = text->size;
    while (from < end && is_space(text->bytes[from])) from++;
    while (end > from && is_space(text->bytes[end - 1])) end--;
    for (; from < end; from++) {
        bool breaks = text->bytes[from] == '\n' || text->bytes[from] == '\r';
        output_write(out, breaks ? " " : text->bytes + from, 1);
    }
    output_write(out, "\n", 1);
}

static json_t *answer_record(const asking *a, size_t question, const text_buffer *text,
                             int64_t n_prefilled, double prefill_s) {
    const decoder *d = &a->decoder;
    json_t *tokens = json_pack("{s:I, s:I, s:I, s:I}", "prompt", (json_int_t)d->n_prompt, "reused",
                               (json_int_t)(d->n_prompt - n_prefilled), "prefilled",
                               (json_int_t)n_prefilled, "generated", (json_int_t)d->n_generated);
    json_t *record =
        json_pack("{s:s, s:o, s:s, s:o, s:o}", "question", a->o->questions.items[question].text,
                  "text", output_string(text->bytes, text->size), "stop_reason", d->stop_reason,
                  "tokens", tokens, "timing", decoder_timing_json(d, a->load_s, prefill_s));
    if (record && a->o->jsonl) json_object_set_new(record, "event", json_string("answer"));
    return record;
}

static double per_second(int64_t n, double seconds) {
    return seconds > 0 ? (double)n / seconds : 0;
}

static cca_status report(asking *a, size_t question, const text_buffer *text, int64_t n_prefilled,
                         double prefill_s, cca_error *err) {
    const decoder *d = &a->decoder;
    if (a->o->jsonl || a->o->output.json) {
        json_t *record = answer_record(a, question, text, n_prefilled, prefill_s);
        if (a->o->jsonl)
            output_json(&a->out, record);
        else if (json_array_append_new(a->answers, record) != 0)
            return cca_fail(err, CCA_NO_MEMORY, "no memory for the record");
    } else {
        write_line(&a->out, text);
    }
    term_note(&a->term,
              "question %zu: prompt %lld tokens (%lld reused, %lld prefilled), %.4g tok/s; "
              "generated %lld tokens, %.4g tok/s; first token after %.3g s",
              question + 1, (long long)d->n_prompt, (long long)(d->n_prompt - n_prefilled),
              (long long)n_prefilled, per_second(n_prefilled, prefill_s), (long long)d->n_generated,
              per_second(d->n_decoded, d->decode_s), d->ttft_s);
    return output_flush(&a->out, err);
}

static cca_status ask_one(asking *a, size_t question, cca_error *err) {
    decoder *d = &a->decoder;
    answer text = {0};
    cca_status status = encode_question(a, question, err);
    if (!status) status = decoder_start(d, a->session, &a->tokens, err);
    d->started = term_seconds();
    if (!status) status = prefill(a, question, err);
    double prefill_s = term_seconds() - d->started;
    if (status) return status;
    int64_t n_reused = question > 0 ? (int64_t)n_document_tokens(a) : a->stored.reused;
    answer_begin(&text, &a->out,
                 &(answer_options){.format = ANSWER_JSON, /* kept, not yet written */
                                   .stops = d->stops,
                                   .n_stops = d->n_stops,
                                   .strip_space = true});
    status = decoder_run(d, &text, err);
    if (!status) status = report(a, question, &text.text, d->n_prompt - n_reused, prefill_s, err);
    answer_free(&text);
    if (!status && strcmp(d->stop_reason, "interrupted") == 0)
        return cca_fail(err, CCA_INTERRUPTED, "interrupted in answer %zu; the text so far is kept",
                        question + 1);
    return status;
}

/* ---- the run ---- */

static void write_record(asking *a) {
    json_t *all = json_pack("{s:s, s:s, s:I, s:O, s:o, s:o, s:I, s:O}", "schema", "cca.ask.1",
                            "chat_template", cca_chat_name(a->documents.chat), "document_tokens",
                            (json_int_t)n_document_tokens(a), "answers", a->answers, "memory",
                            cli_plan_json(&a->plan), "attention",
                            cli_attention_json(&a->o->context, a->engine), "seed",
                            (json_int_t)a->decoder.options.seed, "warnings", a->term.warnings);
    if (all && a->o->jsonl) {
        json_object_set_new(all, "event", json_string("end"));
        json_object_del(all, "answers");
    }
    output_json(&a->out, all);
}

static cca_status ask_all(asking *a, cca_error *err) {
    char peak[TERM_SIZE_TEXT];
    cca_status status = output_open(&a->out, a->o->output.file, err);
    size_t asked = 0;
    while (!status && asked < a->o->questions.n) {
        status = ask_one(a, asked, err);
        asked += !status;
    }
    if (!status && (a->o->jsonl || a->o->output.json)) write_record(a);
    if (!status) {
        status = output_flush(&a->out, err);
        term_note(&a->term, "%zu documents, %zu tokens, read once; peak memory %s", a->n_documents,
                  n_document_tokens(a), term_size(peak, term_peak_memory()));
    }
    bool keep = !status || (status == CCA_INTERRUPTED && !a->o->output.json);
    cca_error close_error;
    cca_status closed = output_close(&a->out, keep, &close_error);
    if (!closed || status) return status;
    *err = close_error;
    return closed;
}

static cca_status open_decoder(asking *a, cca_error *err) {
    cca_chat chat = a->documents.chat;
    const char *stop = cca_chat_stop(chat);
    cca_status status = stop ? decoder_add_stop(&a->decoder, stop, err) : CCA_OK;
    if (status) return status;
    return decoder_open(&a->decoder, &a->o->sampling, false, cca_chat_end_token(chat, a->tok),
                        a->engine, err);
}

static cca_status ask(asking *a, cca_error *err) {
    const context_options *context = &a->o->context;
    int64_t longest = 0;
    cca_status status = encode_documents(a, err);
    if (!status) status = measure_prompts(a, &longest, err);
    if (!status) status = open_decoder(a, err);
    if (status) return status;
    int64_t limit = cli_position_limit(context, a->engine), most = a->o->max_answer;
    if (most < 0 && context->beyond_trained && context->ctx_size == 0)
        most = cca_engine_info(a->engine)->trained_length;
    if (most >= 0) limit = cca_min(limit, longest + most);
    a->decoder.most = most;
    a->decoder.limit = limit;
    status = cli_session_open(&a->session, &a->plan, a->engine, context, &a->o->output, limit,
                              CLI_STORED | (a->o->questions.n > 1 ? CLI_MARK : 0), err);
    if (status || !a->session) return status;
    cli_tell_attention(&a->term, context, a->engine, longest);
    return ask_all(a, err);
}

static cca_status open_model(asking *a, cca_error *err) {
    double start = term_seconds();
    cca_status status = cli_engine_open(&a->engine, &a->o->model, &a->term, err);
    if (!status) status = cli_tokenizer(&a->tok, a->engine, err);
    a->load_s = term_seconds() - start;
    return status;
}

static void free_all(asking *a) {
    json_decref(a->answers);
    decoder_close(&a->decoder);
    stored_close(&a->stored);
    cca_session_free(a->session);
    cca_tokens_free(&a->tokens);
    free(a->ends);
    cca_engine_close(a->engine);
    term_close(&a->term);
}

static cca_status run(const void *options, cca_error *err) {
    asking a = {.o = options, .answers = json_array()};
    cca_status status = CCA_OK;
    term_open(&a.term, &a.o->term);
    if (a.o->questions.n == 0)
        status = cca_fail(err, CCA_USAGE, "no question: give at least one behind the options");
    if (!status && !a.answers) status = cca_fail(err, CCA_NO_MEMORY, "no memory for the record");
    if (!status) status = decoder_stops(&a.decoder, &a.o->stops, a.o->input.escape, err);
    if (!status) status = open_model(&a, err);
    if (!status) status = ask(&a, err);
    free_all(&a);
    return status;
}

const cli_command cli_ask = {
    .name = "ask",
    .summary = "questions about documents that are read once",
    .usage = "-m MODEL -f FILE [options] QUESTION ...",
    .notes =
        "The documents (-f, -p) are read once; each question starts from there and costs only its "
        "own tokens. Answers go to standard output, one a line, in order; line breaks in an answer "
        "become spaces unless --json or --jsonl keeps them. The chat template is the model file's "
        "or --chat-template's; plain, for models without one, puts \"Question: \" and \"Answer:\" "
        "behind the documents and ends an answer at its first line break.",
    .groups = groups,
    .options_size = sizeof(ask_options),
    .run = run,
};
