/* cca chat: a conversation. */
#include "cli/chat/chat_actions.h"
#include "cli/chat/chat_draft.h"
#include "cli/chat/chat_file.h"
#include "cli/line_reader.h"
#include "cli/signals.h"
#include "cli/stored_prefill.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct run_options {
    model_options model;
    input_options input;
    chat_options chat;
    context_options context;
    chat_settings settings;
    term_options term;
    lookup_options lookup;
    arg_list stops;
    stored_options stored;
} run_options;

static const arg_option own_args[] = {
    {"stop", .kind = ARG_LIST, .value = "TEXT", .at = offsetof(run_options, stops),
     .help = "end an answer before this text; may be repeated"},
    {0},
};

static const arg_group groups[] = {
    {"Documents", input_args, offsetof(run_options, input)},
    {"Chat", chat_args, offsetof(run_options, chat)},
    {"Answers", chat_answer_args, offsetof(run_options, settings)},
    {"Ends", own_args, 0},
    {"Speed", lookup_args, offsetof(run_options, lookup)},
    {"Sessions", stored_args, offsetof(run_options, stored)},
    {"Sampling", sampling_args, offsetof(run_options, settings.sampling)},
    {"Model", model_args, offsetof(run_options, model)},
    {"Context", context_args, offsetof(run_options, context)},
    {"Sinks and recall", recall_args, offsetof(run_options, context)},
    {"Messages", term_args, offsetof(run_options, term)},
    {0},
};

typedef struct chat_run {
    const run_options *o;
    chatting a;
    term term;
    output out;
    decoder decoder;
    cca_engine *engine;
    cca_session *session;
    cli_plan plan;
    line_reader *line;
    context_options context; /* with what a stored session says */
    bool told_attention, warned_full, warned_exit;
} chat_run;

/* ---- messages -------------------------------------------------------------------------- */

/* Lines up to where a message is complete. */
static cca_status read_message(chat_run *r, chat_draft *draft, line_event *event, cca_error *err) {
    text_buffer line = {0};
    chat_draft_state state = CHAT_DRAFT_OPEN;
    cca_status status = CCA_OK;
    for (bool first = true; !status && state == CHAT_DRAFT_OPEN; first = false) {
        line.size = 0;
        status = line_reader_read(r->line, &line, !first, event, err);
        if (status || *event != LINE_TEXT) break;
        state = chat_draft_add(draft, line.bytes, line.size);
        if (state == CHAT_DRAFT_NO_MEMORY) {
            status = cca_fail(err, CCA_NO_MEMORY, "no memory for a message");
        }
    }
    text_free(&line);
    if (status || *event != LINE_END || !draft->open) return status;
    if (draft->quoted) return cca_fail(err, CCA_USAGE, "standard input ends inside a \"\"\" block");
    *event = LINE_TEXT; /* the backslash has nothing to join */
    return CCA_OK;
}

static cca_status handle(chat_run *r, const chat_draft *draft, cca_error *err) {
    const text_buffer *text = &draft->text;
    if (!draft->quoted && chat_draft_is_blank(draft)) return CCA_OK;
    line_reader_remember(r->line, text->bytes, text->size);
    if (draft->quoted || !chat_command_is(text->bytes, text->size)) {
        return chat_say(&r->a, text->bytes, text->size, err);
    }
    chat_command command;
    cca_status status = chat_command_parse(&command, text->bytes, text->size, err);
    if (status) return status;
    status = chat_act(&r->a, &command, err);
    free(command.argument);
    return status;
}

/* Ctrl-C on an empty line: the second one leaves. */
static void interrupted_at_prompt(chat_run *r, line_event event) {
    signals_forget();
    if (event == LINE_INTERRUPT_0 && r->warned_exit) r->a.done = true;
    r->warned_exit = event == LINE_INTERRUPT_0;
    if (r->warned_exit && !r->a.done) {
        term_note(&r->term, "(Ctrl-C once more, Ctrl-D or /quit leaves)");
    }
}

/* What a failure of a step means for the chat: on a terminal it goes on, unless nobody can read
 * what it says. */
static cca_status failed(chat_run *r, cca_status status, cca_error *err) {
    if (!r->a.interactive || r->out.status || *signals_stop() == SIGTERM) return status;
    signals_forget();
    if (status == CCA_INTERRUPTED) {
        term_note(&r->term, "(%s; the conversation is as before)", err->text);
        return CCA_OK;
    }
    term_error(&r->term, err->text);
    if (status == CCA_NO_FIT) {
        term_note(&r->term,
                  "/undo and /clear make room; a larger -c, beyond the trained length with "
                  "--beyond-trained, makes more (/save, and /load there)");
    }
    return CCA_OK;
}

static void tell_room(chat_run *r) {
    const conversation *c = &r->a.c;
    int64_t n = prompt_length(&c->prompt), left = c->limit - n;
    if (!r->told_attention && n > cli_attention(&r->context, r->engine).window_size) {
        cli_tell_attention(&r->term, &r->context, r->engine, n);
        r->told_attention = true;
    }
    if (r->warned_full && left > c->limit / 10) r->warned_full = false;
    if (r->warned_full || left > c->limit / 10) return;
    r->warned_full = true;
    term_warn(&r->term, "%lld of the context's %lld tokens %s left", (long long)left,
              (long long)c->limit, left == 1 ? "is" : "are");
}

static cca_status step(chat_run *r, cca_error *err) {
    chat_draft draft = {0};
    line_event event = LINE_END;
    cca_status status = read_message(r, &draft, &event, err);
    bool stopped = event == LINE_INTERRUPT || event == LINE_INTERRUPT_0;
    if (!status && stopped && (!r->a.interactive || *signals_stop() == SIGTERM)) {
        status = cca_fail(err, CCA_INTERRUPTED, "interrupted while waiting for a message");
        chat_draft_free(&draft);
        return status;
    }
    if (!status && stopped) interrupted_at_prompt(r, event);
    if (!stopped) r->warned_exit = false;
    if (!status && event == LINE_END) r->a.done = true;
    if (!status && event == LINE_TEXT) status = handle(r, &draft, err);
    chat_draft_free(&draft);
    bool asked = *signals_stop() != 0; /* to stop an answer, which it did */
    if (!status && asked && (!r->a.interactive || *signals_stop() == SIGTERM)) {
        status =
            cca_fail(err, CCA_INTERRUPTED, "interrupted in an answer; the text so far is kept");
    }
    if (status) return failed(r, status, err);
    signals_forget();
    tell_room(r);
    return CCA_OK;
}

static cca_status talk(chat_run *r, cca_error *err) {
    static const line_options typed = {.prompt = ">>>", .history = "chat_history"};
    cca_status status = line_reader_open(&r->line, &typed, &r->term, err);
    if (status) return status;
    if (r->a.interactive) {
        signals_outlive();
        term_note(&r->term, "%s, template %s; /help lists the commands",
                  cca_engine_info(r->engine)->path, prompt_template_name(&r->a.c.prompt));
    }
    while (!status && !r->a.done) status = step(r, err);
    return status;
}

/* ---- the beginning --------------------------------------------------------------------- */

/* -f and -p, one after the other. */
static cca_status read_documents(chat_run *r, cca_error *err) {
    const arg_list *pieces = &r->o->input.pieces;
    cca_status status = CCA_OK;
    for (size_t i = 0; i < pieces->n && !status; i++) {
        const arg_item *piece = &pieces->items[i];
        input_text text;
        if (piece->tag == 'f' && strcmp(piece->text, "-") == 0) {
            return cca_fail(err, CCA_USAGE, "-f -: standard input is where messages come from");
        }
        status = input_read_piece(&text, &r->o->input, piece, &r->term, err);
        if (!status) status = conversation_read(&r->a.c, text.sources[0].name, &text, err);
        input_free(&text);
    }
    if (status) return status;
    return cli_check_length("the beginning (system text and documents)",
                            prompt_length(&r->a.c.prompt), &r->context, r->engine, err);
}

/* As for ask, whose stored states serve here, too. */
static cca_status prefill_documents(chat_run *r, cca_error *err) {
    stored_options options = r->o->stored;
    stored st;
    options.file = NULL;
    cca_status status = prompt_prefill(&st, &r->a.c.prompt, &options, STORED_CACHE | STORED_SEAMS,
                                       r->session, &r->term, err);
    stored_close(&st);
    return status ? status : conversation_mark(&r->a.c, err);
}

static cca_status begin(chat_run *r, cca_error *err) {
    conversation *c = &r->a.c;
    const char *path = r->o->stored.file;
    bool resumes = path && access(path, F_OK) == 0;
    conversation_settle(c, r->session, r->plan.ctx_size, (size_t)r->plan.n_copies);
    cca_status status = CCA_OK;
    if (!resumes && c->n_base > 0) status = prefill_documents(r, err);
    if (!status && path) status = chat_file_open(&r->a.store, c, path, err);
    if (status || !path) return status;
    if (resumes) {
        term_note(&r->term, "session %s: %zu message%s of %zu tokens are there", path,
                  c->n_messages, term_plural((int64_t)c->n_messages), c->prompt.tokens.n);
    }
    return c->n_base > 0 && !resumes ? chat_keep(&r->a, err) : CCA_OK;
}

static cca_status open_session(chat_run *r, cca_error *err) {
    const context_options *context = &r->context;
    const output_options to_stdout = {0};
    const unsigned flags = CLI_STORED | CLI_COPIES;
    int64_t limit = cli_position_limit(context, r->engine), n = prompt_length(&r->a.c.prompt);
    if (context->beyond_trained && context->ctx_size == 0) {
        limit = n + cca_engine_info(r->engine)->trained_length;
    }
    int64_t room = limit;
    if (context->ctx_size == 0) {
        room = cli_affordable(r->engine, context, cca_min(n + 1, limit), limit, flags);
    }
    if (room < limit && !context->dry_run) {
        term_note(&r->term, "there is memory for a context of %lld tokens, not %lld",
                  (long long)room, (long long)limit);
    }
    return cli_session_open(&r->session, &r->plan, r->engine, context, &to_stdout, room, flags,
                            err);
}

static cca_status chat(chat_run *r, cca_error *err) {
    const run_options *o = r->o;
    cca_status status = cli_engine_open(&r->engine, &o->model, &r->term, err);
    if (!status) r->context.draft = r->decoder.draft = decoder_draft(&o->lookup, r->engine);
    if (!status) {
        status = conversation_open(&r->a.c, &o->chat, r->engine, o->input.special, &r->term, err);
    }
    if (!status) status = read_documents(r, err);
    if (!status) {
        status =
            decoder_open(&r->decoder, &o->settings.sampling, false, &r->a.c.prompt, r->engine, err);
    }
    r->a.seed = r->decoder.options.seed;
    if (!status) status = stored_resume(&r->context, &o->stored, r->engine, &r->term, err);
    if (!status) status = open_session(r, err);
    if (status || !r->session) return status;
    status = begin(r, err);
    if (!status) tell_room(r);
    if (!status) status = output_open(&r->out, NULL, err);
    return status ? status : talk(r, err);
}

static void free_all(chat_run *r) {
    line_reader_close(r->line);
    decoder_close(&r->decoder);
    cca_store_close(r->a.store);
    conversation_close(&r->a.c);
    cca_session_free(r->session);
    cca_engine_close(r->engine);
    term_close(&r->term);
}

static cca_status run(const void *options, cca_error *err) {
    chat_run r = {.o = options};
    r.context = r.o->context;
    term_open(&r.term, &r.o->term);
    r.a = (chatting){.settings = r.o->settings,
                     .input = &r.o->input,
                     .term = &r.term,
                     .out = &r.out,
                     .decoder = &r.decoder,
                     .interactive = isatty(STDIN_FILENO) == 1};
    cca_status status = decoder_stops(&r.decoder, &r.o->stops, r.o->input.escape, err);
    if (!status) status = chat(&r, err);
    free_all(&r);
    return status;
}

const cli_command cli_chat = {
    .name = "chat",
    .summary = "a conversation, perhaps about documents",
    .usage = "-m MODEL [-f FILE] [options]",
    .notes =
        "On a terminal: a line is a message, unless it ends with a backslash or begins with "
        "\"\"\"; /help lists what else can be typed. Ctrl-C stops an answer. Documents (-f, -p, "
        "/read) become part of the conversation. --session keeps it in a file after each turn, "
        "and goes on with what is there. Elsewhere messages are the lines of standard input, "
        "answers the only thing on standard output, and the first failure ends the chat. The "
        "chat template is the model file's or --chat-template's.",
    .groups = groups,
    .options_size = sizeof(run_options),
    .run = run,
};
