/* What each point of a sweep is measured on: windows of a text, and a document with facts. */
#include "base/hash.h"
#include "cli/ppl/ppl_pass.h"
#include "cli/tune/tune.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_WINDOW = 8192, DEFAULT_LENGTH = 32768, LEAST_TOKENS = 16 };

static cca_status no_memory(cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the text");
}

/* ---- perplexity ---- */

static cca_status make_windows(tune_task *t, const cca_engine *engine, const input_text *text,
                               bool special, cca_error *err) {
    const tune_settings *s = t->settings;
    const cca_tokenizer *tok = cca_engine_tokenizer(engine);
    int64_t limit = cli_position_limit(&s->context, engine), window = s->context.ctx_size;
    cca_status status = input_encode_whole(&t->text, tok, text, special, err);
    if (status) return status;
    t->text_bytes = text->text.size;
    t->text_hash = cca_hash(t->text.ids, t->text.n * sizeof *t->text.ids);
    if ((int64_t)t->text.n < LEAST_TOKENS) {
        return cca_fail(err, CCA_NO_FIT, "the text has %zu tokens, at least %d are needed",
                        t->text.n, LEAST_TOKENS);
    }
    ppl_layout *l = &t->layout;
    *l = (ppl_layout){.mode = PPL_CHUNK,
                      .bos = ppl_wants_bos(tok) ? PPL_BOS_EVERY : PPL_BOS_NONE,
                      .n_tokens = (int64_t)t->text.n,
                      .score_from = 1};
    if (s->n_tokens > 0) l->n_tokens = cca_min(l->n_tokens, s->n_tokens);
    l->window = window > 0 ? window : cca_min(DEFAULT_WINDOW, limit);
    l->window = cca_min(l->window, l->n_tokens + (l->bos == PPL_BOS_EVERY));
    if (l->window < 2) {
        return cca_fail(err, CCA_USAGE, "--ctx-size %lld: a window has at least 2 positions",
                        (long long)window);
    }
    return cli_check_length("a window", l->window, &s->context, engine, err);
}

/* ---- the document ---- */

/* The part of the text that so many of its tokens make. */
static size_t bytes_of(const tune_task *t, int64_t n) {
    return n < (int64_t)t->text.n ? t->text.offsets[n] : t->text_bytes;
}

/* Only questions need a template. */
static cca_status begin_prompt(tune_task *t, const cca_engine *engine, cca_error *err) {
    cca_error why;
    if (t->n_facts == 0) return prompt_begin(&t->prompt, NULL, engine, err);
    cca_status status = prompt_begin(&t->prompt, &t->settings->chat, engine, &why);
    return status ? cca_fail(err, status, "%s; or --no-facts", why.text) : CCA_OK;
}

/* The document with so many tokens of the text, behind the template's opening. */
static cca_status encode_document(tune_task *t, int64_t opening, const input_text *text, int64_t n,
                                  bool special, cca_error *err) {
    input_text planted = {0};
    prompt_cut(&t->prompt, opening, CCA_SLOT_NONE);
    cca_status status = tune_plant_facts(&planted, text, bytes_of(t, n), t->facts, t->n_facts, err);
    if (!status) status = prompt_add(&t->prompt, CCA_SLOT_DOCUMENT, &planted, special, err);
    t->n_document = prompt_length(&t->prompt);
    input_free(&planted);
    return status;
}

/* As many tokens of the text as fill the length together with the facts. */
static cca_status make_document(tune_task *t, const input_text *text, int64_t length, bool special,
                                cca_error *err) {
    int64_t n = cca_min((int64_t)t->text.n, length), opening = prompt_length(&t->prompt);
    int64_t taken, over;
    do {
        taken = n;
        cca_status status = encode_document(t, opening, text, n, special, err);
        if (status) return status;
        over = t->n_document - length;
        n -= over;
    } while (over > 0 && n >= LEAST_TOKENS);
    if (over > 0) {
        return cca_fail(err, CCA_NO_FIT, "%d facts leave no room for text in %lld tokens",
                        t->n_facts, (long long)length);
    }
    if (t->settings->length > 0 && taken == (int64_t)t->text.n && over < 0) {
        return cca_fail(err, CCA_NO_FIT,
                        "the text makes a document of %lld tokens, --length wants %lld",
                        (long long)t->n_document, (long long)length);
    }
    return CCA_OK;
}

cca_status tune_put_question(tune_task *t, int i, cca_error *err) {
    const char *question = t->facts[i].question;
    prompt_cut(&t->prompt, t->n_document, CCA_SLOT_DOCUMENT);
    return prompt_ask(&t->prompt, question, strlen(question), err);
}

/* Tokens that the longest question adds to the document. */
static cca_status longest_question(tune_task *t, int64_t *out, cca_error *err) {
    cca_status status = CCA_OK;
    *out = 0;
    for (int i = 0; i < t->n_facts && !status; i++) {
        status = tune_put_question(t, i, err);
        *out = cca_max(*out, prompt_length(&t->prompt) - t->n_document);
    }
    return status;
}

/* What stands behind the document: a question and its answer, or what is decoded for speed. The
 * document of no stated length leaves room for it. */
static cca_status fit_document(tune_task *t, const cca_engine *engine, const input_text *text,
                               bool special, cca_error *err) {
    enum { ROOM = 256 };
    int64_t limit = cli_position_limit(
        &(context_options){.beyond_trained = t->settings->context.beyond_trained}, engine);
    int64_t length = t->settings->length, question = 0;
    if (length == 0) length = cca_max(cca_min(DEFAULT_LENGTH, limit - ROOM), 1);
    cca_status status = begin_prompt(t, engine, err);
    if (!status) status = make_document(t, text, length, special, err);
    if (!status) status = longest_question(t, &question, err);
    if (status) return status;
    int64_t behind = cca_max(question + TUNE_MOST_ANSWER, TUNE_DECODED);
    t->ctx_size = cca_max(t->n_document + behind, ppl_layout_totals(&t->layout).largest);
    t->positions = ppl_layout_totals(&t->layout).positions + t->n_document + t->n_facts * question +
                   TUNE_DECODED;
    if (t->ctx_size <= limit) return CCA_OK;
    return cca_fail(err, CCA_NO_FIT,
                    "a document of %lld tokens, a question and an answer take %lld positions, the "
                    "model was trained for %lld; --beyond-trained lifts the limit",
                    (long long)t->n_document, (long long)t->ctx_size, (long long)limit);
}

/* ---- all of it ---- */

static cca_status sign(tune_task *t, const cca_engine *engine, cca_error *err) {
    const cca_engine_facts *f = cca_engine_info(engine);
    const tune_settings *s = t->settings;
    char model[CCA_GGUF_FINGERPRINT + 1], weights[CCA_GGUF_FINGERPRINT + 1];
    cca_gguf_fingerprint(model, cca_engine_file(engine));
    cca_gguf_look(weights, cca_engine_file(engine));
    if (asprintf(
            &t->signature,
            "model=%s text=%016llx W=%lld tokens=%lld bos=%s document=%lld facts=%d template=%s "
            "system=%08llx kv=%s/%s rows=%s ub=%lld device=%s kernels=%s threads=%d fp8=%d clock=%s "
            "weights=%s",
            model, (unsigned long long)t->text_hash, (long long)t->layout.window,
            (long long)t->layout.n_tokens, t->layout.bos == PPL_BOS_EVERY ? "every" : "none",
            (long long)t->n_document, t->n_facts, prompt_template_name(&t->prompt),
            (unsigned long long)(s->chat.system ? cca_hash(s->chat.system, strlen(s->chat.system))
                                                : 0),
            s->context.k_type, s->context.v_type,
            s->context.row_type ? s->context.row_type : "window", (long long)s->context.chunk_size,
            f->device, f->kernels, f->n_threads, s->fp8, s->clock, weights) >= 0) {
        return CCA_OK;
    }
    t->signature = NULL;
    return no_memory(err);
}

cca_status tune_task_make(tune_task *out, const cca_engine *engine, const input_text *text,
                          bool special, const tune_settings *settings, cca_error *err) {
    *out = (tune_task){.settings = settings, .n_facts = (int)settings->n_facts};
    tune_make_facts(out->facts, out->n_facts);
    cca_status status = make_windows(out, engine, text, special, err);
    if (!status) status = fit_document(out, engine, text, special, err);
    return status ? status : sign(out, engine, err);
}

void tune_task_free(tune_task *t) {
    cca_tokens_free(&t->text);
    prompt_free(&t->prompt);
    free(t->signature);
}
