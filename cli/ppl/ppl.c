/* cca ppl: perplexity of a text. */
#include "base/clock.h"
#include "base/hash.h"
#include "cli/cli.h"
#include "cli/input.h"
#include "cli/ppl/ppl_pass.h"
#include "cli/ppl/ppl_report.h"
#include "cli/ranks.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct ppl_options {
    model_options model;
    input_options input;
    context_options context;
    output_options output;
    term_options term;
    ranks_options ranks;
    const char *mode, *bos;
    int64_t stride, score_from, n_tokens;
    const char *ids, *nll_out, *logits_out, *base;
} ppl_options;

static const arg_option own_args[] = {
    {"mode", .kind = ARG_CHOICE, .value = "MODE", .at = offsetof(ppl_options, mode),
     .initial = "auto", .choices = "auto|full|stride|chunk|llama.cpp",
     .help = "how the text is cut into windows; auto: full where it fits, else stride"},
    {"stride", .kind = ARG_INT, .value = "N", .at = offsetof(ppl_options, stride), .initial = "0",
     .max = INT32_MAX, .help = "distance of windows in mode stride; 0: half a window"},
    {"score-from", .kind = ARG_INT, .value = "N", .at = offsetof(ppl_options, score_from),
     .initial = "1", .min = 1, .max = INT32_MAX, .help = "first scored position in mode chunk"},
    {"bos", .kind = ARG_CHOICE, .value = "WHERE", .at = offsetof(ppl_options, bos),
     .initial = "every", .choices = "every|first|none", .help = "windows that begin with BOS"},
    {"tokens", .kind = ARG_INT, .value = "N", .at = offsetof(ppl_options, n_tokens), .initial = "0",
     .max = INT32_MAX, .help = "use only the first N tokens; 0: all"},
    {"ids", .kind = ARG_TEXT, .value = "FILE", .at = offsetof(ppl_options, ids),
     .help = "decimal token ids instead of text; no BOS is added"},
    {"base", .kind = ARG_TEXT, .value = "WHAT", .at = offsetof(ppl_options, base),
     .help = "how far from another attention of the same weights (full, cca …), or from another "
             "model, FILE or FILE:ATTENTION: Kullback-Leibler divergence, equal top tokens, ratio "
             "of perplexities"},
    {"nll-out", .kind = ARG_TEXT, .value = "FILE", .at = offsetof(ppl_options, nll_out),
     .help = "a line a scored token: byte offset (with --ids index), id, nats"},
    {"logits-out", .kind = ARG_TEXT, .value = "FILE", .at = offsetof(ppl_options, logits_out),
     .help = "float32, a row of the vocabulary's size for each position"},
    {0},
};

static const arg_group groups[] = {
    {"Text", input_args, offsetof(ppl_options, input)},
    {"Perplexity", own_args, 0},
    {"Model", model_args, offsetof(ppl_options, model)},
    {"Context", context_args, offsetof(ppl_options, context)},
    {"Sinks and recall", recall_args, offsetof(ppl_options, context)},
    {"Ranks", ranks_args, offsetof(ppl_options, ranks)},
    {"Output", output_args, offsetof(ppl_options, output)},
    {"Messages", term_args, offsetof(ppl_options, term)},
    {0},
};

typedef struct ppl_run {
    const ppl_options *o;
    cli_ranks ranks;
    term term;
    output out, nll_out, logits_out;
    cca_engine *engine;
    const cca_tokenizer *tok; /* NULL with --ids and a model without one */
    cca_tokens tokens;        /* of the text */
    uint64_t text_bytes;      /* that they stand for; 0 with --ids */
    ppl_report report;
    cca_session *session;
    ppl_base base;
    ppl_pass pass;
} ppl_run;

/* ---- the text ---- */

static bool is_llamacpp(const ppl_run *r) {
    return strcmp(r->o->mode, "llama.cpp") == 0;
}

static cca_status read_ids(ppl_run *r, cca_error *err) {
    text_buffer text = {0};
    int64_t vocab_size = cca_engine_info(r->engine)->vocab_size;
    if (r->o->input.pieces.n > 0) {
        return cca_fail(err, CCA_USAGE, "--ids takes the place of --prompt and --file");
    }
    cca_status status = input_read_file(&text, r->o->ids, err);
    if (!status) status = input_parse_ids(&r->tokens, &text, r->o->ids, vocab_size, err);
    text_free(&text);
    return status;
}

static cca_status read_text(ppl_run *r, input_text *text, cca_error *err) {
    cca_status status = cli_tokenizer(&r->tok, r->engine, err);
    if (!status) status = input_read(text, &r->o->input, &r->term, err);
    if (status) return status;
    text_buffer *t = &text->text;
    if (is_llamacpp(r) && t->size > 0 && t->bytes[t->size - 1] == '\n') t->size--;
    unsigned flags = CCA_ENCODE_START | (r->o->input.special ? CCA_ENCODE_SPECIAL : 0);
    r->text_bytes = t->size;
    if (!is_llamacpp(r)) {
        return input_encode_whole(&r->tokens, r->tok, text, r->o->input.special, err);
    }
    status = input_bos(&r->tokens, r->tok, err);
    return status ? status : input_encode(&r->tokens, r->tok, text, flags, err);
}

/* --tokens: the first n, which is said. */
static void keep_first(ppl_run *r, int64_t n) {
    if (n == 0 || (int64_t)r->tokens.n <= n) return;
    term_note(&r->term, "--tokens: the first %lld of %zu tokens are used", (long long)n,
              r->tokens.n);
    if (!r->o->ids) r->text_bytes = r->tokens.offsets[n];
    r->tokens.n = (size_t)n;
}

static cca_status make_tokens(ppl_run *r, cca_error *err) {
    input_text text = {0};
    bool is_ids = r->o->ids;
    r->tok = cca_engine_tokenizer(r->engine);
    cca_status status = is_ids ? read_ids(r, err) : read_text(r, &text, err);
    if (!status) {
        keep_first(r, r->o->n_tokens);
        r->report.tokenizer_hash = r->tok ? input_hash_tokenizer(r->tok) : 0;
        r->report.text_hash = is_ids ? cca_hash(r->tokens.ids, r->tokens.n * sizeof(int32_t))
                                     : cca_hash(text.text.bytes, r->text_bytes);
    }
    input_free(&text);
    return status;
}

/* ---- the windows ---- */

static ppl_bos choose_bos(const ppl_run *r) {
    if (r->o->ids || is_llamacpp(r) || !ppl_wants_bos(r->tok)) return PPL_BOS_NONE;
    if (r->o->bos[0] == 'e') return PPL_BOS_EVERY;
    return r->o->bos[0] == 'f' ? PPL_BOS_FIRST : PPL_BOS_NONE;
}

static ppl_mode choose_mode(const ppl_run *r) {
    const char *mode = r->o->mode;
    int64_t n = r->report.layout.n_tokens + (r->report.layout.bos != PPL_BOS_NONE);
    if (strcmp(mode, "full") == 0) return PPL_FULL;
    if (strcmp(mode, "stride") == 0) return PPL_STRIDE;
    if (strcmp(mode, "chunk") == 0) return PPL_CHUNK;
    if (is_llamacpp(r)) return PPL_LLAMACPP;
    return n <= cli_position_limit(&r->o->context, r->engine) ? PPL_FULL : PPL_STRIDE;
}

static int64_t choose_window(const ppl_run *r) {
    if (r->report.layout.mode == PPL_FULL) {
        return r->report.layout.n_tokens + (r->report.layout.bos != PPL_BOS_NONE);
    }
    if (r->o->context.ctx_size > 0) return r->o->context.ctx_size;
    if (r->report.layout.mode == PPL_LLAMACPP) return 512;
    return cca_engine_info(r->engine)->trained_length;
}

/* Options that make no windows. */
static cca_status check_options(const ppl_layout *l, cca_error *err) {
    if (l->mode != PPL_FULL && l->window < 2) {
        return cca_fail(err, CCA_USAGE, "--ctx-size %lld: a window has at least 2 positions",
                        (long long)l->window);
    }
    if (l->mode == PPL_STRIDE && (l->stride < 1 || l->stride > ppl_largest_stride(l))) {
        return cca_fail(err, CCA_USAGE, "--stride %lld: more than %lld leaves tokens out",
                        (long long)l->stride, (long long)ppl_largest_stride(l));
    }
    if (l->mode == PPL_CHUNK && l->score_from >= l->window) {
        return cca_fail(err, CCA_USAGE, "--score-from %lld: windows have only %lld positions",
                        (long long)l->score_from, (long long)l->window);
    }
    return CCA_OK;
}

/* Texts that are too short or too long. */
static cca_status check_fit(const ppl_run *r, cca_error *err) {
    const ppl_layout *l = &r->report.layout;
    if (l->mode == PPL_LLAMACPP && l->n_tokens < 2 * l->window) {
        return cca_fail(err, CCA_NO_FIT,
                        "the text has %lld tokens, --mode llama.cpp needs at least two windows of "
                        "%lld",
                        (long long)l->n_tokens, (long long)l->window);
    }
    if (r->report.totals.scored == 0) {
        return cca_fail(err, CCA_NO_FIT, "the text has %lld tokens: none can be scored",
                        (long long)l->n_tokens);
    }
    if (l->mode == PPL_FULL) {
        return cli_check_length("the text", r->report.totals.largest, &r->o->context, r->engine,
                                err);
    }
    return cli_check_length("a window", l->window, &r->o->context, r->engine, err);
}

static cca_status make_layout(ppl_run *r, cca_error *err) {
    ppl_layout *l = &r->report.layout;
    if (is_llamacpp(r) && strcmp(r->o->bos, "every") != 0) {
        return cca_fail(err, CCA_USAGE, "--bos %s: --mode llama.cpp has a rule of its own",
                        r->o->bos);
    }
    *l = (ppl_layout){
        .bos = choose_bos(r), .n_tokens = (int64_t)r->tokens.n, .score_from = r->o->score_from};
    l->mode = choose_mode(r);
    l->window = choose_window(r);
    l->stride = r->o->stride > 0 ? r->o->stride : l->window / 2;
    r->report.replaced_bos = is_llamacpp(r) && !r->o->ids && cca_tokenizer_info(r->tok)->add_bos;
    cca_status status = check_options(l, err);
    if (status) return status;
    r->report.totals = ppl_layout_totals(l);
    return check_fit(r, err);
}

/* ---- the windows, one by one ---- */

/* In mode llama.cpp: the estimate so far. */
static cca_status print_estimate(void *user, int64_t index, cca_error *err) {
    ppl_run *r = user;
    output_printf(&r->out, "[%lld]%.4f,", (long long)index + 1, ppl_perplexity(&r->pass.stats.all));
    return output_flush(&r->out, err);
}

static cca_status check_finite(const ppl_sums *sums, const char *whose, cca_error *err) {
    if (isfinite(ppl_perplexity(sums))) return CCA_OK;
    return cca_fail(err, CCA_RUNTIME,
                    "%s perplexity of these %lld tokens is larger than any number: %.5g nats per "
                    "token",
                    whose, (long long)sums->n, ppl_mean(sums));
}

static void tell_interrupted(const ppl_run *r, cca_error *err) {
    const ppl_sums *all = &r->report.stats.all, *kl = &r->pass.gaps.all.kl;
    char gap[64] = "";
    if (r->base.session) snprintf(gap, sizeof gap, ", KL divergence %.4g nats", ppl_mean(kl));
    cca_fail(err, CCA_INTERRUPTED,
             "interrupted after %lld of %lld scored tokens; perplexity so far %.4f%s",
             (long long)all->n, (long long)r->report.totals.scored, ppl_perplexity(all), gap);
}

static cca_status run_windows(ppl_run *r, cca_error *err) {
    bool estimates = is_llamacpp(r) && !r->o->output.json;
    double start = cca_seconds();
    term_start(&r->term, "ppl", TERM_TOKENS, r->report.totals.positions);
    cca_status status =
        ppl_pass_run(&r->pass, r->session, estimates ? print_estimate : NULL, r, err);
    term_done(&r->term);
    if (status) output_end_line(&r->out);
    r->report.eval_s = cca_seconds() - start;
    r->report.stats = r->pass.stats;
    ppl_gaps_sort(&r->pass.gaps);
    const ppl_sums *all = &r->report.stats.all;
    if (!status) status = check_finite(all, "the", err);
    if (!status) status = check_finite(&r->pass.gaps.all.base, "the base's", err);
    if (status == CCA_INTERRUPTED && all->n > 0) tell_interrupted(r, err);
    return status;
}

static void last_line(ppl_run *r) {
    char peak[TERM_SIZE_TEXT];
    term_note(&r->term, "%lld token%s in %.3g s, %.4g tok/s; peak memory %s",
              (long long)r->report.totals.positions, term_plural(r->report.totals.positions),
              r->report.eval_s, term_per_second(r->report.totals.positions, r->report.eval_s),
              term_size(peak, term_peak_memory()));
}

/* ---- the run ---- */

static cca_status open_outputs(ppl_run *r, cca_error *err) {
    cca_status status = output_open(&r->out, r->o->output.file, err);
    if (!status && r->o->nll_out) status = output_open(&r->nll_out, r->o->nll_out, err);
    if (!status && r->o->logits_out) status = output_open(&r->logits_out, r->o->logits_out, err);
    return status;
}

/* Keeps the files where all went well; status is what the run has come to. */
static cca_status close_outputs(ppl_run *r, cca_status status, cca_error *err) {
    output *all[] = {&r->nll_out, &r->logits_out, &r->out};
    enum { N_OUTPUTS = sizeof all / sizeof *all };
    for (size_t i = 0; !status && i < N_OUTPUTS; i++) { /* no file is kept unless all are whole */
        if (all[i]->name) status = output_flush(all[i], err);
    }
    for (size_t i = 0; i < N_OUTPUTS; i++) {
        cca_error late;
        if (!all[i]->name) continue; /* never opened */
        cca_status closed = output_close(all[i], !status, &late);
        if (status || !closed) continue;
        status = closed;
        *err = late;
    }
    return status;
}

static cca_status run_session(ppl_run *r, cca_error *err) {
    cli_tell_attention(&r->term, &r->o->context, r->engine, r->report.totals.largest);
    r->pass = (ppl_pass){.engine = r->engine,
                         .tokens = &r->tokens,
                         .text_bytes = r->o->ids ? 0 : r->text_bytes,
                         .layout = r->report.layout,
                         .replace_first = r->report.replaced_bos,
                         .base = r->base.session,
                         .nll_out = r->o->nll_out ? &r->nll_out : NULL,
                         .logits_out = r->o->logits_out ? &r->logits_out : NULL,
                         .term = &r->term};
    if (r->base.session) r->report.base = &r->base;
    r->report.gaps = &r->pass.gaps;
    r->report.session = r->session;
    cca_status status = ppl_pass_open(&r->pass, err);
    if (!status) status = open_outputs(r, err);
    if (!status) status = run_windows(r, err);
    if (!status && r->o->output.json) {
        output_json(&r->out, ppl_report_json(&r->report, r->term.warnings));
    } else if (!status) {
        ppl_report_print(&r->out, &r->report);
    }
    status = close_outputs(r, status, err);
    if (!status) last_line(r);
    if (!status) cli_ranks_tell(r->session, &r->term);
    return status;
}

static cca_status open_base(ppl_run *r, const context_options *context, cca_error *err) {
    cca_status status =
        ppl_base_open_model(&r->base, r->o->base, r->engine, &r->o->model, context, &r->term, err);
    return status ? status : ppl_base_open_session(&r->base, &r->report.plan, &r->term, err);
}

/* On rank 0, or where there are none. */
static cca_status run_alone(ppl_run *r, cca_error *err) {
    context_options context = r->o->context;
    double start = cca_seconds();
    context.comm = r->ranks.comm;
    cca_status status = cli_engine_open(&r->engine, &r->o->model, &r->term, err);
    r->report.load_s = cca_seconds() - start;
    r->report.context = &r->o->context;
    r->report.engine = r->engine;
    if (!status) status = make_tokens(r, err);
    if (!status) status = make_layout(r, err);
    context.n_texts = r->report.totals.n_windows;
    if (!status) {
        status = cli_session_open(&r->session, &r->report.plan, r->engine, &context, &r->o->output,
                                  r->report.totals.largest, false, err);
    }
    if (!status && r->o->base) status = open_base(r, &context, err);
    return status || !r->session ? status : run_session(r, err);
}

static cca_status run(const void *options, cca_error *err) {
    ppl_run r = {.o = options};
    term_open(&r.term, &r.o->term);
    cca_status status = cli_ranks_open(&r.ranks, &r.o->ranks, &r.o->model, &r.term, err);
    if (!status && !r.ranks.served) status = run_alone(&r, err);
    ppl_pass_close(&r.pass);
    ppl_base_close(&r.base);
    cca_session_free(r.session);
    cca_tokens_free(&r.tokens);
    cca_engine_close(r.engine);
    cli_ranks_close(&r.ranks, "ppl", status, err);
    term_close(&r.term);
    return status;
}

const cli_command cli_ppl = {
    .name = "ppl",
    .summary = "perplexity and per-token negative log likelihood",
    .usage = "-m MODEL -f FILE [options]",
    .notes =
        "Modes, W being -c and the default the trained length: full, one window, each token "
        "scored with all its past; stride, windows of W at 0, S, 2S …, each token scored in the "
        "first window that has it; chunk, windows side by side, scored from position --score-from; "
        "llama.cpp, as llama-perplexity does it: W is 512 unless -c, BOS in place of each window's "
        "first token, the second half of each whole window scored. A window's BOS is one of its W "
        "positions.",
    .groups = groups,
    .options_size = sizeof(ppl_options),
    .run = run,
};
