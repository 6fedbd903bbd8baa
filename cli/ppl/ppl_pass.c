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
    p->ids = calloc((size_t)ppl_layout_totals(&p->layout).largest, sizeof *p->ids);
    p->logits = calloc((size_t)facts->vocab_size * TILE_ROWS, sizeof *p->logits);
    p->workers = cca_workers_new(facts->n_threads);
    if (p->ids && p->logits && p->workers) return CCA_OK;
    return cca_fail(err, CCA_NO_MEMORY, "no memory for logits");
}

void ppl_pass_close(ppl_pass *p) {
    free(p->ids);
    free(p->logits);
    cca_workers_free(p->workers);
    p->ids = NULL;
    p->logits = NULL;
    p->workers = NULL;
}

static uint64_t bytes_of(const ppl_pass *p, int64_t token) {
    const cca_tokens *t = p->tokens;
    if (p->text_bytes == 0) return 0;
    uint64_t next = token + 1 < (int64_t)t->n ? t->offsets[token + 1] : p->text_bytes;
    return next - t->offsets[token];
}

typedef struct nats_job {
    const float *logits;
    int64_t vocab_size;
    const int32_t *ids;
    double nats[TILE_ROWS];
} nats_job;

static void score_row(void *context, int64_t row, int thread) {
    nats_job *job = context;
    (void)thread;
    job->nats[row] = ppl_nats(job->logits + row * job->vocab_size, job->vocab_size, job->ids[row]);
}

/* Row k of logits tells about the token after position pos + k. */
static void score_rows(ppl_pass *p, const float *logits, int64_t pos, int64_t n) {
    nats_job job = {.logits = logits,
                    .vocab_size = cca_engine_info(p->engine)->vocab_size,
                    .ids = p->ids + pos + 1};
    cca_workers_run(p->workers, n, score_row, &job);
    for (int64_t k = 0; k < n; k++) {
        int64_t token = p->window.begin + pos + k + 1 - p->window.bos;
        ppl_stats_add(&p->stats, pos + k + 1, job.nats[k], bytes_of(p, token));
        if (p->nll_out) {
            output_printf(p->nll_out, "%llu %d %.9g\n",
                          (unsigned long long)p->tokens->offsets[token], p->tokens->ids[token],
                          job.nats[k]);
        }
    }
}

/* Rows of the chunk at pos: those before a scored token, or all where they are to be written. */
static cca_status score_tile(ppl_pass *p, cca_session *session, int64_t pos, int64_t row, int64_t n,
                             cca_error *err) {
    int64_t vocab_size = cca_engine_info(p->engine)->vocab_size;
    int64_t first_scored = p->window.score - p->window.begin + p->window.bos - 1;
    int64_t last = ppl_window_size(&p->window) - 1; /* predicts nothing that is there */
    int64_t from = cca_max(pos + row, first_scored);
    int64_t to = cca_min(pos + row + n, last);
    int64_t made_from = p->logits_out ? pos + row : from;
    int64_t made_to = p->logits_out ? pos + row + n : to;
    if (made_from >= made_to) return CCA_OK;
    cca_status status =
        cca_session_chunk_logits(session, made_from - pos, made_to - made_from, p->logits, err);
    if (status) return status;
    if (p->logits_out) {
        size_t bytes = (size_t)(made_to - made_from) * (size_t)vocab_size * sizeof(float);
        output_write(p->logits_out, p->logits, bytes);
    }
    if (from < to) score_rows(p, p->logits + (from - made_from) * vocab_size, from, to - from);
    return CCA_OK;
}

static cca_status score_chunk(void *user, cca_session *session, int64_t pos, int64_t n,
                              cca_error *err) {
    ppl_pass *p = user;
    cca_status status = CCA_OK;
    for (int64_t row = 0; row < n && !status; row += TILE_ROWS) {
        status = score_tile(p, session, pos, row, cca_min(TILE_ROWS, n - row), err);
    }
    if (!status && p->nll_out) status = output_flush(p->nll_out, err);
    if (!status && p->logits_out) status = output_flush(p->logits_out, err);
    term_progress(p->term, p->before + p->evaluated + pos + n, cca_session_cache_bytes(session));
    return status;
}

static void window_ids(ppl_pass *p) {
    const ppl_window *w = &p->window;
    memcpy(p->ids + w->bos, p->tokens->ids + w->begin,
           (size_t)(w->end - w->begin) * sizeof *p->ids);
    if (w->bos || p->replace_first) {
        p->ids[0] = cca_tokenizer_info(cca_engine_tokenizer(p->engine))->bos;
    }
}

cca_status ppl_pass_run(ppl_pass *p, cca_session *session, ppl_window_fn after_window, void *user,
                        cca_error *err) {
    cca_eval_options options = {.on_chunk = score_chunk, .user = p};
    cca_status status = CCA_OK;
    p->evaluated = 0;
    for (int64_t i = 0; !status && ppl_window_at(&p->window, &p->layout, i); i++) {
        int64_t n = ppl_window_size(&p->window);
        window_ids(p);
        cca_session_reset(session);
        status = cca_session_eval(session, p->ids, n, &options, err);
        p->evaluated += n;
        if (!status && after_window) status = after_window(user, i, err);
    }
    return status;
}
