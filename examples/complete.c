/* Continues a text with the likeliest tokens:
 *
 *     cc complete.c $(pkg-config --cflags --libs cca) -o complete
 *     ./complete model.gguf 'Once upon a time' 50 */
#include <cca/engine.h>
#include <cca/sampler.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const cca_error *err, cca_status status) {
    fprintf(stderr, "complete: %s\n", err->text);
    return status;
}

int main(int argc, char **argv) {
    cca_error err = {.text = ""};
    cca_engine *engine;
    cca_session *session = NULL;
    cca_sampler *sampler = NULL;
    cca_tokens tokens = {0};
    if (argc != 4) return CCA_USAGE;
    long left = strtol(argv[3], NULL, 10);

    cca_status status = cca_engine_open(&engine, argv[1], NULL, &err);
    if (status) return fail(&err, status);
    const cca_tokenizer *tok = cca_engine_tokenizer(engine);
    if (!tok) return fail(&err, cca_fail(&err, CCA_BAD_MODEL, "%s: no tokenizer", argv[1]));

    const cca_tokenizer_facts *facts = cca_tokenizer_info(tok);
    if (facts->add_bos && !cca_tokens_push(&tokens, facts->bos, 0))
        return fail(&err, cca_fail(&err, CCA_NO_MEMORY, "no memory"));
    status = cca_tokenizer_encode(&tokens, tok, argv[2], strlen(argv[2]), CCA_ENCODE_START, &err);

    cca_session_options o = cca_session_defaults();
    o.ctx_size = (int64_t)tokens.n + left;
    cca_eval_options prompt = {.ends_prompt = true};
    cca_sampler_options greedy = cca_sampler_defaults();
    greedy.temperature = 0;
    if (!status) status = cca_session_new(&session, engine, &o, &err);
    if (!status) status = cca_sampler_new(&sampler, &greedy, facts->vocab_size, &err);
    if (!status) status = cca_session_eval(session, tokens.ids, (int64_t)tokens.n, &prompt, &err);
    for (; !status && left > 0; left--) {
        const float *logits = cca_session_logits(session, &err);
        int32_t next = cca_sampler_next(sampler, logits, NULL, 0);
        if (cca_tokenizer_is_end(tok, next)) break;
        size_t size;
        const char *bytes = cca_tokenizer_bytes(&size, tok, next, false);
        fwrite(bytes, 1, size, stdout);
        status = cca_session_eval(session, &next, 1, NULL, &err);
    }
    putchar('\n');
    cca_tokens_free(&tokens);
    cca_sampler_free(sampler);
    cca_session_free(session);
    cca_engine_close(engine);
    return status ? fail(&err, status) : 0;
}
