/* Measuring one attention. */
#include "cli/decode.h"
#include "cli/ppl/ppl_pass.h"
#include "cli/tune/tune.h"

#include <string.h>

/* One point under way. */
typedef struct measuring {
    tune_point *point;
    tune_task *task;
    cca_engine *engine;
    cca_session *session;
    term *term;
    int64_t done; /* positions, for the progress */
} measuring;

cca_status tune_plan(tune_point *p, const tune_task *t, const cca_engine *engine, cca_error *err) {
    context_options context = tune_context(t->settings, p);
    int64_t at = t->settings->cache_at;
    cli_plan plan;
    context.draft = decoder_draft(NULL, engine);
    cca_status status = cli_plan_make(&plan, engine, &context, at > 0 ? at : t->n_document, 0, err);
    p->cache_bytes =
        plan.session.cores + plan.session.bounds + plan.session.rows + plan.session.window;
    p->memory_bytes = plan.weights + plan.session.total; /* not what this program takes now */
    return status;
}

/* ---- perplexity ---- */

static cca_status measure_perplexity(measuring *m, cca_error *err) {
    ppl_pass pass = {.engine = m->engine,
                     .tokens = &m->task->text,
                     .text_bytes = m->task->text_bytes,
                     .layout = m->task->layout,
                     .term = m->term,
                     .before = m->done};
    cca_status status = ppl_pass_open(&pass, err);
    if (!status) status = ppl_pass_run(&pass, m->session, NULL, NULL, err);
    ppl_pass_close(&pass);
    m->done += pass.evaluated;
    m->point->n_scored = pass.stats.all.n;
    m->point->perplexity = ppl_perplexity(&pass.stats.all);
    m->point->standard_error = ppl_standard_error(&pass.stats.all);
    return status;
}

/* ---- the document: speeds and facts ---- */

static cca_status show_chunk(void *user, cca_session *session, int64_t pos, int64_t n,
                             cca_error *err) {
    measuring *m = user;
    (void)pos;
    (void)err;
    m->done += n;
    term_progress(m->term, m->done, cca_session_cache_bytes(session));
    return CCA_OK;
}

static cca_status timed(measuring *m, double *tps, int64_t n, bool one_by_one, cca_error *err) {
    cca_eval_options options = {.on_chunk = show_chunk, .user = m};
    measure_clock clock = measure_clock_of(m->task->settings->clock);
    double begin = measure_seconds(clock);
    /* What is decoded for its speed is the document's start again. */
    cca_status status =
        measure_eval(m->session, m->task->prompt.tokens.ids, n, one_by_one, &options, err);
    double seconds = measure_seconds(clock) - begin;
    *tps = measure_stats_of(&seconds, 1, n).median;
    return status;
}

static cca_status ask_fact(measuring *m, decoder *d, output *unused, int i, cca_error *err) {
    tune_task *t = m->task;
    cca_eval_options options = {.on_chunk = show_chunk, .user = m};
    answer text = {0};
    cca_status status = tune_put_question(t, i, err);
    if (!status) status = cca_session_rewind(m->session, err);
    if (!status) {
        status = cca_session_eval(m->session, t->prompt.tokens.ids + t->n_document,
                                  prompt_length(&t->prompt) - t->n_document, &options, err);
    }
    if (!status) status = decoder_start(d, m->session, &t->prompt, err);
    if (status) return status;
    answer_begin(&text, unused, &(answer_options){.format = ANSWER_JSON});
    status = decoder_run(d, &text, err);
    if (!status && strcmp(d->stop_reason, "interrupted") == 0) {
        status = cca_fail(err, CCA_INTERRUPTED, "interrupted");
    }
    if (!status) m->point->n_right += tune_is_right(&t->facts[i], text.text.bytes, text.text.size);
    answer_free(&text);
    return status;
}

static cca_status ask_facts(measuring *m, cca_error *err) {
    static const sampling_options greedy = {.top_p = 1, .repeat_penalty = 1};
    decoder d = {0};
    output unused = {0};
    cca_status status = decoder_open(&d, &greedy, false, &m->task->prompt, m->engine, err);
    d.most = TUNE_MOST_ANSWER;
    d.limit = m->task->ctx_size;
    for (int i = 0; i < m->task->n_facts && !status; i++) status = ask_fact(m, &d, &unused, i, err);
    m->point->n_facts = m->task->n_facts;
    decoder_close(&d);
    return status;
}

static cca_status measure_document(measuring *m, cca_error *err) {
    cca_session_reset(m->session);
    cca_status status = timed(m, &m->point->prefill_tps, m->task->n_document, false, err);
    if (!status) status = cca_session_mark(m->session, err);
    if (!status) status = timed(m, &m->point->decode_tps, TUNE_DECODED, true, err);
    if (!status && m->task->n_facts > 0) status = ask_facts(m, err);
    return status;
}

cca_status tune_measure(tune_point *p, tune_task *t, cca_engine *engine, term *show, int64_t done,
                        cca_error *err) {
    measuring m = {.point = p, .task = t, .engine = engine, .term = show, .done = done};
    context_options context = tune_context(t->settings, p);
    cli_plan plan;
    p->n_right = 0;
    cca_status status = cli_session_open(&m.session, &plan, engine, &context, &(output_options){0},
                                         t->ctx_size, CLI_MARK, err);
    if (!status) status = measure_perplexity(&m, err);
    if (!status) status = measure_document(&m, err);
    p->measured = !status;
    cca_session_free(m.session);
    return status;
}
