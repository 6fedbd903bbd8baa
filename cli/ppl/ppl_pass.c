#include "cli/ppl/ppl_pass.h"

#include <stdlib.h>
#include <string.h>

enum { TILE_ROWS = 32 };

bool ppl_wants_bos(const cca_tokenizer *tok) {
    const cca_tokenizer_facts *facts = tok ? cca_tokenizer_info(tok) : NULL;
    return facts && facts->add_bos && facts->bos >= 0;
}

cca_status ppl_pass_open(ppl_pass *p, cca_error *err) {
    const cca_engine_facts *facts = cca_engine_info(p->engine);
    ppl_totals totals = ppl_layout_totals(&p->layout);
    size_t tile = (size_t)facts->vocab_size * TILE_ROWS;
    p->ids = calloc((size_t)totals.largest, sizeof *p->ids);
    p->logits = calloc(tile, sizeof *p->logits);
    p->workers = cca_workers_new(facts->n_threads);
    bool is_there = p->ids && p->logits && p->workers;
    if (p->base) {
        p->base_logits = calloc(tile, sizeof *p->base_logits);
        p->gaps.each = calloc((size_t)totals.scored, sizeof *p->gaps.each);
        is_there = is_there && p->base_logits && p->gaps.each;
    }
    if (is_there) return CCA_OK;
    return cca_fail(err, CCA_NO_MEMORY, "no memory for logits");
}

void ppl_pass_close(ppl_pass *p) {
    free(p->ids);
    free(p->logits);
    free(p->base_logits);
    free(p->gaps.each);
    cca_workers_free(p->workers);
    p->ids = NULL;
    p->logits = p->base_logits = NULL;
    p->gaps.each = NULL;
    p->workers = NULL;
}

static uint64_t bytes_of(const ppl_pass *p, int64_t token) {
    const cca_tokens *t = p->tokens;
    if (p->text_bytes == 0) return 0;
    uint64_t next = token + 1 < (int64_t)t->n ? t->offsets[token + 1] : p->text_bytes;
    return next - t->offsets[token];
}

typedef struct score_job {
    const float *logits, *base; /* base: NULL without one */
    int64_t vocab_size;
    const int32_t *ids;
    cca_gap gaps[TILE_ROWS];
} score_job;

static void score_row(void *context, int64_t row, int thread) {
    score_job *job = context;
    const float *logits = job->logits + row * job->vocab_size;
    (void)thread;
    if (job->base) {
        const float *base = job->base + row * job->vocab_size;
        job->gaps[row] = cca_compare(logits, base, job->vocab_size, job->ids[row]);
    } else {
        job->gaps[row].nats = cca_nats(logits, job->vocab_size, job->ids[row]);
    }
}

/* The token after a position costs so much. */
static void add_gap(ppl_pass *p, int64_t pos, const cca_gap *gap) {
    int64_t token = p->window.begin + pos + 1 - p->window.bos;
    ppl_stats_add(&p->stats, pos + 1, gap->nats, bytes_of(p, token));
    if (p->base) ppl_gaps_add(&p->gaps, pos + 1, gap);
    if (!p->nll_out) return;
    output_printf(p->nll_out, "%llu %d %.9g\n", (unsigned long long)p->tokens->offsets[token],
                  p->tokens->ids[token], gap->nats);
}

/* Row k of logits tells about the token after position pos + k. */
static void score_rows(ppl_pass *p, const float *logits, int64_t pos, int64_t n) {
    score_job job = {.logits = logits,
                     .base = p->base_logits,
                     .vocab_size = cca_engine_info(p->engine)->vocab_size,
                     .ids = p->ids + pos + 1};
    cca_workers_run(p->workers, n, score_row, &job);
    for (int64_t k = 0; k < n; k++) add_gap(p, pos + k, &job.gaps[k]);
}

/* The position before the first token that is scored. */
static int64_t first_before_scored(const ppl_pass *p) {
    return p->window.score - p->window.begin + p->window.bos - 1;
}

/* Rows at positions pos … pos + n - 1 of the chunk under way, and of the base's chunk at base_pos:
 * those before a scored token, or all where they are to be written. */
static cca_status score_tile(ppl_pass *p, int64_t base_pos, int64_t pos, int64_t n,
                             cca_error *err) {
    int64_t vocab_size = cca_engine_info(p->engine)->vocab_size;
    int64_t first_scored = first_before_scored(p);
    int64_t last = ppl_window_size(&p->window) - 1; /* predicts nothing that is there */
    int64_t from = cca_max(pos, first_scored), to = cca_min(pos + n, last);
    int64_t made_from = p->logits_out ? pos : from, made_to = p->logits_out ? pos + n : to;
    if (made_from >= made_to) return CCA_OK;
    cca_status status = cca_session_chunk_logits(p->session, made_from - p->chunk_pos,
                                                 made_to - made_from, p->logits, err);
    if (!status && p->base && from < to) {
        status = cca_session_chunk_logits(p->base, from - base_pos, to - from, p->base_logits, err);
    }
    if (status) return status;
    if (p->logits_out) {
        size_t bytes = (size_t)(made_to - made_from) * (size_t)vocab_size * sizeof(float);
        output_write(p->logits_out, p->logits, bytes);
    }
    if (from < to) score_rows(p, p->logits + (from - made_from) * vocab_size, from, to - from);
    return CCA_OK;
}

/* Of the base's chunk, or without one of the chunk itself. */
static cca_status score_tiles(void *user, cca_session *session, int64_t pos, int64_t n,
                              cca_error *err) {
    ppl_pass *p = user;
    cca_status status = CCA_OK;
    (void)session;
    for (int64_t row = 0; row < n && !status; row += TILE_ROWS) {
        status = score_tile(p, pos, pos + row, cca_min(TILE_ROWS, n - row), err);
    }
    return status;
}

static cca_status score_chunk(void *user, cca_session *session, int64_t pos, int64_t n,
                              cca_error *err) {
    ppl_pass *p = user;
    cca_eval_options compare = {.on_chunk = score_tiles, .user = p};
    p->session = session;
    p->chunk_pos = pos;
    cca_status status = p->base ? cca_session_eval(p->base, p->ids + pos, n, &compare, err)
                                : score_tiles(p, session, pos, n, err);
    if (!status && p->nll_out) status = output_flush(p->nll_out, err);
    if (!status && p->logits_out) status = output_flush(p->logits_out, err);
    term_progress(p->term, p->before + p->evaluated + pos + n, cca_session_cache_bytes(session));
    return status;
}

/* The ids of the window under way. */
static void window_ids(const ppl_pass *p, int32_t *ids) {
    const ppl_window *w = &p->window;
    memcpy(ids + w->bos, p->tokens->ids + w->begin, (size_t)(w->end - w->begin) * sizeof *ids);
    if (w->bos || p->replace_first) {
        ids[0] = cca_tokenizer_info(cca_engine_tokenizer(p->engine))->bos;
    }
}

/* ---- windows over ranks -------------------------------------------------------------- */

/* As many windows as there are ranks, from one on. */
typedef struct ppl_round {
    ppl_pass *pass;
    cca_scored_text *texts; /* [most] */
    int32_t *ids;           /* [most][largest] */
    cca_gap *gaps;          /* the same */
    int64_t n, most, largest;
} ppl_round;

static cca_status make_round(ppl_round *r, ppl_pass *p, int n_ranks, cca_error *err) {
    size_t n = (size_t)n_ranks;
    *r = (ppl_round){.pass = p, .most = n_ranks, .largest = ppl_layout_totals(&p->layout).largest};
    r->texts = calloc(n, sizeof *r->texts);
    r->ids = calloc(n * (size_t)r->largest, sizeof *r->ids);
    r->gaps = calloc(n * (size_t)r->largest, sizeof *r->gaps);
    if (r->texts && r->ids && r->gaps) return CCA_OK;
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the windows of %d ranks", n_ranks);
}

static void free_round(ppl_round *r) {
    free(r->texts);
    free(r->ids);
    free(r->gaps);
}

static void fill_round(ppl_round *r, ppl_pass *p, int64_t first) {
    for (r->n = 0; r->n < r->most; r->n++) {
        int64_t at = r->n * r->largest;
        if (!ppl_window_at(&p->window, &p->layout, first + r->n)) return;
        window_ids(p, r->ids + at);
        r->texts[r->n] = (cca_scored_text){r->ids + at, ppl_window_size(&p->window), r->gaps + at,
                                           cca_max(first_before_scored(p), 0)};
    }
}

/* What the windows of a round cost, in their order. */
static cca_status add_round(const ppl_round *r, ppl_pass *p, int64_t first,
                            ppl_window_fn after_window, void *user, cca_error *err) {
    cca_status status = CCA_OK;
    for (int64_t i = 0; i < r->n && !status; i++) {
        const cca_scored_text *t = &r->texts[i];
        (void)ppl_window_at(&p->window, &p->layout, first + i);
        for (int64_t pos = t->first; pos < t->n - 1; pos++) add_gap(p, pos, &t->gaps[pos]);
        p->evaluated += t->n;
        if (p->nll_out) status = output_flush(p->nll_out, err);
        if (!status && after_window) status = after_window(user, first + i, err);
    }
    return status;
}

/* Rows of a window, which other ranks may have made. */
static cca_status write_rows(void *user, cca_session *session, int64_t text, int64_t pos, int64_t n,
                             cca_error *err) {
    const ppl_pass *p = ((const ppl_round *)user)->pass;
    const size_t row = (size_t)cca_engine_info(p->engine)->vocab_size * sizeof *p->logits;
    cca_status status = CCA_OK;
    (void)text, (void)pos;
    for (int64_t at = 0, some; at < n && !status; at += some) {
        some = cca_min(TILE_ROWS, n - at);
        status = cca_session_chunk_logits(session, at, some, p->logits, err);
        if (!status) output_write(p->logits_out, p->logits, (size_t)some * row);
    }
    return status ? status : output_flush(p->logits_out, err);
}

static void show_progress(void *user, cca_session *session, int64_t n_done) {
    const ppl_pass *p = ((const ppl_round *)user)->pass;
    term_progress(p->term, p->before + p->evaluated + n_done, cca_session_cache_bytes(session));
}

/* Each rank has windows of its own; those that are long enough all have in common. */
static cca_status run_ranks(ppl_pass *p, cca_session *session, int n_ranks,
                            ppl_window_fn after_window, void *user, cca_error *err) {
    ppl_round r;
    const cca_score_options o = {.base = p->base,
                                 .on_rows = p->logits_out ? write_rows : NULL,
                                 .on_progress = show_progress,
                                 .user = &r};
    cca_status status = make_round(&r, p, n_ranks, err);
    if (!status) fill_round(&r, p, 0);
    for (int64_t i = 0; !status && r.n > 0; i += r.most) {
        status = cca_session_score(session, r.texts, r.n, &o, err);
        if (!status) status = add_round(&r, p, i, after_window, user, err);
        fill_round(&r, p, i + r.most);
    }
    free_round(&r);
    return status;
}

/* ---- all windows --------------------------------------------------------------------- */

cca_status ppl_pass_run(ppl_pass *p, cca_session *session, ppl_window_fn after_window, void *user,
                        cca_error *err) {
    cca_eval_options options = {.on_chunk = score_chunk, .user = p};
    cca_status status = CCA_OK;
    int n_ranks;
    p->evaluated = 0;
    (void)cca_session_ranks(session, &n_ranks);
    if (n_ranks > 0) return run_ranks(p, session, n_ranks, after_window, user, err);
    for (int64_t i = 0; !status && ppl_window_at(&p->window, &p->layout, i); i++) {
        int64_t n = ppl_window_size(&p->window);
        window_ids(p, p->ids);
        cca_session_reset(session);
        if (p->base) cca_session_reset(p->base);
        status = cca_session_eval(session, p->ids, n, &options, err);
        p->evaluated += n;
        if (!status && after_window) status = after_window(user, i, err);
    }
    return status;
}
