#include "cli/ppl/ppl_base.h"
#include "cli/input.h"

#include <stdlib.h>
#include <string.h>

static cca_status open_other(ppl_base *b, const cca_engine *engine, const model_options *model,
                             term *t, cca_error *err) {
    model_options other = *model;
    other.model = b->model;
    b->engine = NULL;
    cca_status status = cli_engine_open(&b->engine, &other, t, err);
    if (status) return status;
    int64_t own = cca_engine_info(engine)->vocab_size;
    int64_t found = cca_engine_info(b->engine)->vocab_size;
    if (found != own) {
        return cca_fail(err, CCA_USAGE,
                        "--base %s: its vocabulary has %lld tokens, the model's %lld", b->model,
                        (long long)found, (long long)own);
    }
    const cca_tokenizer *a = cca_engine_tokenizer(engine), *c = cca_engine_tokenizer(b->engine);
    if (!a || !c || input_hash_tokenizer(a) == input_hash_tokenizer(c)) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "--base %s: its tokenizer is another than the model's",
                    b->model);
}

cca_status ppl_base_open_model(ppl_base *b, const char *what, cca_engine *engine,
                               const model_options *model, const context_options *context, term *t,
                               cca_error *err) {
    const char *attn = what; /* or what stands behind a colon */
    while (attn && !cli_is_attn(attn)) {
        attn = strchr(attn, ':');
        if (attn) attn++;
    }
    *b = (ppl_base){.context = *context, .engine = engine};
    if (attn) b->context = cli_with_attn(context, attn);
    if (attn != what) {
        b->model = strndup(what, attn ? (size_t)(attn - what) - 1 : strlen(what));
        if (!b->model) return cca_fail(err, CCA_NO_MEMORY, "no memory for the base's name");
    }
    cca_status status = b->model ? open_other(b, engine, model, t, err) : CCA_OK;
    return status ? status : cli_check_attention(&b->context, b->engine, err);
}

cca_status ppl_base_open_session(ppl_base *b, const cli_plan *plan, term *t, cca_error *err) {
    cli_plan own;
    char size[TERM_SIZE_TEXT];
    cca_status status = cli_plan_make(&own, b->engine, &b->context, plan->ctx_size, 0, err);
    if (status) return status;
    if (b->context.dry_run) {
        uint64_t more = own.session.total + (b->model ? own.weights : 0);
        term_note(t, "--base takes %s beside", term_size(size, more));
        return CCA_OK;
    }
    own.total += plan->session.total + (b->model ? plan->weights : 0);
    own.session.other += plan->session.other;
    own.session.others += plan->session.others;
    status = cli_plan_check(&own, b->engine, &b->context, err);
    if (status) return status;
    return cli_session_new(&b->session, b->engine, &b->context, plan->ctx_size, 0, err);
}

void ppl_base_close(ppl_base *b) {
    cca_session_free(b->session);
    if (b->model) cca_engine_close(b->engine);
    free(b->model);
    *b = (ppl_base){0};
}
