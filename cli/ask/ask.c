/* cca ask: many questions over documents that are read once. */
#include "cli/ask/ask.h"

#include "base/clock.h"
#include "cli/ask/sources.h"
#include "cli/signals.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const arg_option own_args[] = {
    {"follow-up", .kind = ARG_FLAG, .at = offsetof(ask_options, follow_up),
     .help = "each further question goes on from the one before and its answer"},
    {"stop", .kind = ARG_LIST, .value = "TEXT", .at = offsetof(ask_options, stops),
     .help = "end an answer before this text; may be repeated"},
    {"quotes", .kind = ARG_FLAG, .at = offsetof(ask_options, quotes),
     .help = "tell where in the documents what an answer has in quotation marks stands"},
    {"sources", .kind = ARG_INT, .value = "N", .at = offsetof(ask_options, n_sources),
     .initial = "-1", .bare = "3", .min = -1, .max = 1000,
     .help = "tell the N passages that an answer attended to most; -1: 3 with a model trained with "
             "CCA-Attention on the CPU, else none"},
    {"jsonl", .kind = ARG_FLAG, .at = offsetof(ask_options, jsonl),
     .help = "a line {\"event\": \"answer\"} for each question, then the record"},
    {0},
};

static const arg_group groups[] = {
    {"Questions", question_args, offsetof(ask_options, questions)},
    {"Answers", own_args, 0},
    {"Speed", lookup_args, offsetof(ask_options, lookup)},
    {"Documents", input_args, offsetof(ask_options, documents.input)},
    {"Names of documents", document_args, offsetof(ask_options, documents)},
    {"Sessions", stored_args, offsetof(ask_options, stored)},
    {"Chat", chat_args, offsetof(ask_options, chat)},
    {"Sampling", greedy_args, offsetof(ask_options, sampling)},
    {"Model", model_args, offsetof(ask_options, model)},
    {"Context", context_args, offsetof(ask_options, context)},
    {"Sinks and recall", recall_args, offsetof(ask_options, context)},
    {"Ranks", ranks_args, offsetof(ask_options, ranks)},
    {"Answers of ranks", decode_args, offsetof(ask_options, ranks)},
    {"Output", output_args, offsetof(ask_options, output)},
    {"Messages", term_args, offsetof(ask_options, term)},
    {0},
};

/* ---- prefill ---- */

/* Brings the documents, or what is missing of them in their session. */
static cca_status prefill_documents(asking *a, cca_error *err) {
    double started = cca_seconds();
    cca_status status = prompt_prefill(&a->stored, &a->docs.prompt, &a->o->stored,
                                       STORED_CACHE | STORED_SEAMS, a->session, &a->term, err);
    if (!status && a->many) status = cca_session_mark(a->session, err);
    a->marked = status ? -1 : cca_session_pos(a->session);
    a->unasked = true;
    a->n_documents += a->docs.n;
    a->document_tokens += documents_n_tokens(&a->docs);
    a->documents_s = cca_seconds() - started;
    return status;
}

/* The documents that a question names, in place of those before. */
static cca_status change_documents(asking *a, const question *q, cca_error *err) {
    term silent = {.quiet = true}; /* what there was to say was said when they were measured */
    cca_status status = a->about == q ? CCA_OK : ask_read(a, q, &silent, err);
    if (status) return status;
    stored_close(&a->stored);
    cca_session_reset(a->session);
    a->same = INT64_MAX;
    a->astray = false;
    return prefill_documents(a, err);
}

/* Back to where the documents end, or where a template has changed what stands before that, to the
 * start. */
static cca_status go_back(asking *a, cca_error *err) {
    int64_t pos = cca_session_pos(a->session);
    if (!a->astray && pos <= a->base && pos <= a->same) return CCA_OK;
    if (a->marked >= 0 && a->marked <= a->same && a->many) {
        return cca_session_rewind(a->session, err);
    }
    cca_session_reset(a->session);
    a->marked = -1;
    return CCA_OK;
}

/* Brings the question, from where the last answer ended, or from where the documents end. */
static cca_status prefill_question(asking *a, int64_t *n_reused, cca_error *err) {
    cca_status status = go_back(a, err);
    *n_reused = a->unasked ? a->stored.reused : cca_session_pos(a->session);
    a->unasked = false;
    if (!status && a->n_sources > 0) status = sources_watch(a->session, &a->docs, err);
    if (!status) status = prompt_evaluate(&a->docs.prompt, a->session, &a->term, err);
    a->astray = status;
    if (!status) a->same = INT64_MAX;
    if (status != CCA_INTERRUPTED) return status;
    char what[64];
    snprintf(what, sizeof what, "prefill of question %zu", a->n_asked);
    return stored_interrupted(&a->stored, what, prompt_length(&a->docs.prompt), err);
}

/* ---- one question ---- */

/* Puts the answer behind its question, as tokens: those that were taken, and the text again of one
 * that a stop text cuts in two. The session may have seen more. */
static cca_status keep_answer(asking *a, const answer *text, cca_error *err) {
    const decoder *d = &a->decoder;
    size_t skipped = text->skipped, size = text->text.size + skipped, n = d->ids.n,
           whole = d->n_bytes;
    while (n > 0 && whole > size) whole = d->ids.offsets[--n];
    prompt *p = &a->docs.prompt;
    cca_status status = prompt_answer(p, d->ids.ids, n, err);
    if (status) return status;
    a->astray = cca_session_pos(a->session) > prompt_length(p) ||
                strcmp(d->stop_reason, "interrupted") == 0;
    size_t from = whole > skipped ? whole - skipped : 0;
    status = cca_tokenizer_encode(&p->tokens, a->tok, text->text.bytes + from,
                                  text->text.size - from, 0, err);
    if (!status) {
        status = prompt_answered(p, d->n_prompt, text->text.bytes, text->text.size, err);
    }
    ask_set_base(a);
    return status;
}

/* The same for a choice; the session is where the answer begins. */
static cca_status keep_choice(asking *a, const choice *c, cca_error *err) {
    prompt *p = &a->docs.prompt;
    int64_t from = prompt_length(p);
    cca_status status = prompt_answer(p, c->ids, (size_t)c->n_tokens, err);
    if (!status) status = prompt_answered(p, from, c->text, c->size, err);
    ask_set_base(a);
    return status;
}

static cca_status add_stops(asking *a, const question *q, cca_error *err) {
    cca_status status = CCA_OK;
    decoder_cut_stops(&a->decoder, a->n_stops);
    for (size_t i = 0; i < json_array_size(q->stops) && !status; i++) {
        const json_t *stop = json_array_get(q->stops, i);
        status =
            decoder_add_stop(&a->decoder, json_string_value(stop), json_string_length(stop), err);
    }
    return status;
}

/* At a terminal the answer is written as it comes. */
static bool at_terminal(const asking *a) {
    return a->questions.prompts && !a->o->jsonl && !a->o->output.json && !a->o->output.file &&
           isatty(STDOUT_FILENO) == 1;
}

static cca_status answer_question(asking *a, const question *q, answer *text, cca_error *err) {
    decoder *d = &a->decoder;
    exchange e = {.question = q, .text = &text->text};
    cca_status status = prefill_question(a, &e.n_reused, err);
    e.prefill_s = cca_seconds() - d->started;
    if (status) return status;
    answer_begin(text, &a->out,
                 &(answer_options){.format = at_terminal(a) ? ANSWER_TEXT : ANSWER_JSON,
                                   .strip_space = true});
    status = decoder_run(d, text, err);
    if (d->scored) e.logprob = decoder_logprob(d, text->text.size + text->skipped);
    if (status) output_end_line(&a->out);
    cca_session_unwatch(a->session);
    if (!status) status = ask_report(a, &e, at_terminal(a), err);
    if (!status && a->o->follow_up) status = keep_answer(a, text, err);
    if (!status && strcmp(d->stop_reason, "interrupted") == 0) {
        return cca_fail(err, CCA_INTERRUPTED, "interrupted in answer %zu; the text so far is kept",
                        a->n_asked);
    }
    return status;
}

/* Chooses the answer. What it attended to is what the question's last token did, behind which all
 * choices begin. */
static cca_status choose(asking *a, const question *q, choices *c, cca_error *err) {
    decoder *d = &a->decoder;
    text_buffer text = {0};
    exchange e = {.question = q, .text = &text, .choices = c};
    cca_status status = prefill_question(a, &e.n_reused, err);
    e.prefill_s = d->ttft_s = cca_seconds() - d->started;
    if (status) return status;
    cca_session_unwatch(a->session);
    status = choices_score(c, a->session, d->vocab_size, err);
    d->decode_s = cca_seconds() - d->started - d->ttft_s;
    d->stop_reason = "choice";
    if (status) {
        a->astray = true;
        if (status != CCA_INTERRUPTED) return status;
        return cca_fail(err, status, "interrupted in the choices of question %zu", a->n_asked);
    }
    const choice *best = &c->items[c->best];
    e.logprob = best->logprob;
    if (!text_append(&text, best->text, best->size)) {
        status = cca_fail(err, CCA_NO_MEMORY, "no memory for the answer");
    }
    if (!status) status = ask_report(a, &e, false, err);
    if (!status && a->o->follow_up) status = keep_choice(a, best, err);
    text_free(&text);
    return status;
}

/* With its longest choice, if it has any. */
static cca_status check_room(const asking *a, int64_t most, cca_error *err) {
    int64_t n = prompt_length(&a->docs.prompt) + most, limit = a->decoder.limit;
    if (n <= limit) return CCA_OK;
    return cca_fail(err, CCA_NO_FIT,
                    "question %zu: with it%s the prompt has %lld tokens; there is room for %lld, "
                    "which -c changes",
                    a->n_asked, most > 0 ? " and its longest choice" : "", (long long)n,
                    (long long)limit);
}

static cca_status ask_one(asking *a, const question *q, cca_error *err) {
    decoder *d = &a->decoder;
    answer text = {0};
    choices c = {0};
    a->n_asked++;
    d->most = ask_answer_bound(a, q->most);
    cca_status status = CCA_OK;
    if (q->document && !q->again) status = change_documents(a, q, err);
    if (!status) status = ask_encode(a, q, err);
    if (!status && q->choices) status = choices_encode(&c, q->choices, &a->docs.prompt, err);
    if (!status) status = check_room(a, c.most, err);
    if (!status) status = add_stops(a, q, err);
    if (!status) status = decoder_start(d, a->session, &a->docs.prompt, err);
    d->started = cca_seconds() - (a->unasked ? a->documents_s : 0);
    if (!status) status = q->choices ? choose(a, q, &c, err) : answer_question(a, q, &text, err);
    answer_free(&text);
    choices_free(&c);
    return status;
}

/* ---- the run ---- */

/* At a terminal what is wrong with one question does not keep anybody from the next one. */
static cca_status go_on(asking *a, const question *q, cca_status status, cca_error *err) {
    bool harmless = status == CCA_INTERRUPTED || status == CCA_NO_FIT || status == CCA_BAD_TEXT;
    bool typed = a->questions.prompts && (!q || q == &a->questions.now);
    if (!status || !typed || !harmless) return status;
    term_note(&a->term, "%s", err->text);
    signals_forget();
    return CCA_OK;
}

static cca_status ask_all(asking *a, cca_error *err) {
    cca_status status = output_open(&a->out, a->o->output.file, err);
    bool there = !questions_have_documents(&a->questions);
    if (!status && there) status = prefill_documents(a, err);
    while (!status) {
        const question *q;
        status = questions_next(&a->questions, &q, err);
        if (!status && !q) break;
        bool asked = !status;
        if (asked) status = ask_one(a, q, err);
        if (asked || status == CCA_BAD_TEXT) status = go_on(a, q, status, err);
    }
    if (!status) status = ask_finish(a, err);
    bool keep = !status || (status == CCA_INTERRUPTED && !a->o->output.json);
    cca_error close_error;
    cca_status closed = output_close(&a->out, keep, &close_error);
    if (!closed || status) return status;
    *err = close_error;
    return closed;
}

/* What ranks keep together is not watched. */
static cca_status decode_by(asking *a, int64_t ctx_size, unsigned flags, cca_error *err) {
    cca_status status =
        cli_ranks_decode(&a->context, &a->o->ranks, a->engine, ctx_size, flags, &a->term, err);
    if (status || !a->context.spread) return status;
    a->n_sources = 0;
    if (a->o->n_sources <= 0) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "--sources %lld: with --decode gather alone",
                    (long long)a->o->n_sources);
}

static cca_status ask(asking *a, cca_error *err) {
    const context_options *context = &a->context;
    int64_t longest = 0, positions = 0;
    cca_status status = stored_resume(&a->context, &a->o->stored, a->engine, &a->term, err);
    if (!status) status = ask_measure(a, &longest, &positions, err);
    if (!status) {
        status = decoder_open(&a->decoder, &a->o->sampling, false, &a->docs.prompt, a->engine, err);
    }
    if (status) return status;
    a->n_stops = a->decoder.n_stops;
    a->decoder.scored = a->o->jsonl || a->o->output.json;
    unsigned flags = CLI_STORED | (a->many ? CLI_MARK : 0) | (ask_chooses(a) ? CLI_COPY : 0);
    int64_t limit = cli_position_limit(context, a->engine);
    status =
        decode_by(a, cca_min(positions == INT64_MAX ? longest + 1 : positions, limit), flags, err);
    if (status) return status;
    if (positions == INT64_MAX) {
        limit = cli_affordable(a->engine, context, cca_min(longest + 1, limit), limit, flags);
    }
    a->decoder.limit = cca_min(limit, positions);
    status = cli_session_open(&a->session, &a->plan, a->engine, context, &a->o->output,
                              a->decoder.limit, flags, err);
    if (status || !a->session) return status;
    cli_tell_attention(&a->term, context, a->engine, longest);
    return ask_all(a, err);
}

/* Documents and questions cannot both come from there. */
static cca_status check_stdin(const asking *a, cca_error *err) {
    const arg_list *pieces = &a->o->documents.input.pieces;
    bool taken = pieces->n == 0;
    for (size_t i = 0; i < pieces->n; i++) {
        taken |= pieces->items[i].tag == 'f' && strcmp(pieces->items[i].text, "-") == 0;
    }
    if (!a->questions.live || !taken) return CCA_OK;
    return cca_fail(err, CCA_USAGE,
                    "standard input has the questions: give the documents with -f FILE");
}

/* Where questions name their documents there are no others, and no file has the state of all. */
static cca_status check_documents(const asking *a, cca_error *err) {
    const questions *q = &a->questions;
    const question_place first = q->items[0].at;
    if (a->o->documents.input.pieces.n > 0) {
        return cca_fail(err, CCA_USAGE,
                        "%s, line %zu, field \"document\": beside it there is no -f and no -p",
                        first.file, first.line);
    }
    for (size_t i = 1; i < q->n && a->o->stored.file && !a->o->stored.off; i++) {
        const question *other = &q->items[i];
        if (other->again) continue;
        return cca_fail(
            err, CCA_USAGE,
            "%s, line %zu, field \"document\": another one than before; --session keeps "
            "the state of one, the cache folder of each",
            other->at.file, other->at.line);
    }
    return CCA_OK;
}

/* What is told where nobody says: only where it was found to be right, and costs little. */
static int64_t usual_sources(const asking *a) {
    enum { USUAL = 3 };
    const cca_engine_facts *facts = cca_engine_info(a->engine);
    bool cca = strcmp(cli_attention(&a->context, a->engine).attn, "cca") == 0;
    return facts->tuned && cca && strcmp(facts->device, "cpu") == 0 ? USUAL : 0;
}

static cca_status open_model(asking *a, cca_error *err) {
    double start = cca_seconds();
    cca_status status = cli_engine_open(&a->engine, &a->o->model, &a->term, err);
    if (!status) status = cli_tokenizer(&a->tok, a->engine, err);
    a->load_s = cca_seconds() - start;
    if (status) return status;
    a->context.draft = a->decoder.draft = decoder_draft(&a->o->lookup, a->engine);
    a->n_sources = a->o->n_sources < 0 ? usual_sources(a) : a->o->n_sources;
    return CCA_OK;
}

static void free_all(asking *a) {
    json_decref(a->answers);
    decoder_close(&a->decoder);
    stored_close(&a->stored);
    cca_session_free(a->session);
    questions_close(&a->questions);
    documents_free(&a->docs);
    cca_engine_close(a->engine);
    term_close(&a->term);
}

/* On rank 0, or where there are none. */
static cca_status run_alone(asking *a, cca_error *err) {
    cca_status status = questions_open(&a->questions, &a->o->questions, &a->term, err);
    if (!status && !a->answers) status = cca_fail(err, CCA_NO_MEMORY, "no memory for the record");
    if (!status) {
        status =
            questions_have_documents(&a->questions) ? check_documents(a, err) : check_stdin(a, err);
    }
    if (!status) {
        status = decoder_stops(&a->decoder, &a->o->stops, a->o->documents.input.escape, err);
    }
    if (!status) status = open_model(a, err);
    return status ? status : ask(a, err);
}

static cca_status run(const void *options, cca_error *err) {
    asking a = {.o = options, .answers = json_array()};
    a.context = a.o->context;
    term_open(&a.term, &a.o->term);
    cca_status status = cli_ranks_open(&a.ranks, &a.o->ranks, &a.o->model, &a.term, err);
    a.context.comm = a.ranks.comm;
    if (!status && !a.ranks.served) status = run_alone(&a, err);
    free_all(&a);
    cli_ranks_close(&a.ranks, "ask", status, err);
    return status;
}

const cli_command cli_ask = {
    .name = "ask",
    .summary = "questions about documents that are read once",
    .usage = "-m MODEL -f FILE [options] QUESTION ...",
    .notes =
        "The documents (-f, -p, or those that the questions of a file name) are read once; each question starts from there and costs only its "
        "own tokens. Answers go to standard output, one a line, in order; line breaks in an answer "
        "become spaces unless --json or --jsonl keeps them. The chat template is the model file's "
        "or --chat-template's; plain, for models without one, puts \"Question: \" and \"Answer:\" "
        "behind the documents and ends an answer at its first line break. With --choices nothing is "
        "written: each of the texts is scored as the answer, by the sum of its tokens' log "
        "probabilities, and the likeliest one is told.",
    .groups = groups,
    .options_size = sizeof(ask_options),
    .run = run,
};
