/* Chat templates: the first byte chooses one; system text, document and question follow, with a
 * line "%%" between them. */
#include "fuzz.h"

#include "chat.h"
#include "text/spm.h"

#include <stdio.h>
#include <stdlib.h>

/* Bytes, and the special tokens of all templates. */
static cca_tokenizer *make_tokenizer(void) {
    static const struct {
        const char *text;
        cca_spm_type type;
    } pieces[] = {
        {"<unk>", CCA_SPM_UNKNOWN},
        {"<s>", CCA_SPM_CONTROL},
        {"</s>", CCA_SPM_CONTROL},
        {"<|start_header_id|>", CCA_SPM_CONTROL},
        {"<|end_header_id|>", CCA_SPM_CONTROL},
        {"<|eot_id|>", CCA_SPM_CONTROL},
        {"<|im_start|>", CCA_SPM_CONTROL},
        {"<|im_end|>", CCA_SPM_CONTROL},
        {"a", CCA_SPM_NORMAL},
        {"\xe2\x96\x81", CCA_SPM_NORMAL},
        {"\xe2\x96\x81"
         "a",
         CCA_SPM_NORMAL},
    };
    static char bytes[256][8];
    cca_error err = {.text = ""};
    cca_spm_model model;
    uint8_t *file = NULL;
    size_t size = 0;
    cca_tokenizer *tok = NULL;
    cca_spm_model_init(&model);
    model.byte_fallback = true;
    bool ok = true;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        cca_spm_text text = {pieces[i].text, __builtin_strlen(pieces[i].text)};
        ok &= cca_spm_model_push(&model, (cca_spm_piece){text, -(float)i, pieces[i].type});
    }
    for (unsigned i = 0; i < 256; i++) {
        int n = snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", i);
        ok &= cca_spm_model_push(&model, (cca_spm_piece){{bytes[i], (size_t)n}, 0, CCA_SPM_BYTE});
    }
    ok = ok && cca_spm_model_check(&model, "fuzz", &err) == CCA_OK &&
         cca_spm_model_write(&file, &size, &model, &err) == CCA_OK &&
         cca_tokenizer_from_sentencepiece(&tok, file, size, "fuzz", &err) == CCA_OK;
    fuzz_check(ok, err.text);
    cca_spm_model_free(&model);
    free(file);
    return tok;
}

/* A turn of the parts, the model's turn of one token, and the question once more. */
static cca_status put_turns(cca_prompt *p, const uint8_t **parts, const size_t *sizes,
                            cca_error *err) {
    static const cca_slot slots[] = {CCA_SLOT_SYSTEM, CCA_SLOT_DOCUMENT, CCA_SLOT_QUESTION};
    cca_status status = CCA_OK;
    for (int i = 0; i < 3 && !status; i++) {
        if (sizes[i] > 0) {
            status = cca_prompt_text(p, slots[i], (const char *)parts[i], sizes[i], err);
        }
    }
    if (!status) status = cca_prompt_end(p, err);
    if (status || !cca_tokens_push(p->out, 0, 0)) return status;
    status = cca_prompt_text(p, CCA_SLOT_QUESTION, (const char *)parts[2], sizes[2], err);
    return status ? status : cca_prompt_end(p, err);
}

static void build(cca_chat chat, const cca_tokenizer *tok, const uint8_t *data, size_t size) {
    cca_error err;
    cca_tokens tokens = {0};
    cca_prompt p;
    const uint8_t *parts[3] = {data, data, data};
    size_t sizes[3] = {0};
    for (int i = 0; i < 3 && fuzz_part(&parts[i], &sizes[i], &data, &size); i++) {
        sizes[i] = fuzz_utf8(parts[i], sizes[i]);
    }
    cca_status status = cca_prompt_begin(&p, chat, tok, &tokens, &err);
    if (!status) (void)put_turns(&p, parts, sizes, &err);
    for (size_t i = 0; i < tokens.n; i++) {
        fuzz_check(tokens.ids[i] >= 0 && tokens.ids[i] < cca_tokenizer_info(tok)->vocab_size,
                   "an id outside the vocabulary");
    }
    cca_tokens_free(&tokens);
}

void fuzz_one(const uint8_t *data, size_t size) {
    static cca_tokenizer *tok;
    if (!tok) tok = make_tokenizer();
    if (size < 1) return;
    build((cca_chat)(data[0] % (CCA_CHAT_PLAIN + 1)), tok, data + 1, size - 1);
}
