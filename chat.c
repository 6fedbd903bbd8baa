#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct layout {
    const char *name;
    const char *system_open, *system_close; /* the latter opens the user's turn, too */
    const char *user_open, *question, *user_close;
    const char *answer_close; /* the end of the model's turn before a further one of the user's */
    bool eos, bos;      /* and then EOS, then BOS where the tokenizer wants one; see end_exchange */
    bool answer_space;  /* answers begin with one */
    const char *marker; /* a token without which the template means nothing; or NULL */
    const char *end;    /* the token that ends a turn, where that is not just EOS; or NULL */
    const char *stop;   /* text that ends an answer; or NULL */
} layout;

static const layout layouts[] = {
    [CCA_CHAT_LLAMA2] = {.name = "llama2",
                         .system_open = "[INST] <<SYS>>\n",
                         .system_close = "\n<</SYS>>\n\n",
                         .user_open = "[INST] ",
                         .user_close = " [/INST]",
                         .answer_space = true,
                         .answer_close = " ",
                         .eos = true,
                         .bos = true},
    [CCA_CHAT_LLAMA3] = {.name = "llama3",
                         .system_open = "<|start_header_id|>system<|end_header_id|>\n\n",
                         .system_close = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
                         .user_open = "<|start_header_id|>user<|end_header_id|>\n\n",
                         .user_close =
                             "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
                         .answer_close = "<|eot_id|>",
                         .marker = "<|start_header_id|>",
                         .end = "<|eot_id|>"},
    [CCA_CHAT_MISTRAL] = {.name = "mistral",
                          .system_open = "[INST] ",
                          .system_close = "\n\n",
                          .user_open = "[INST] ",
                          .user_close = " [/INST]",
                          .answer_space = true,
                          .answer_close = "",
                          .eos = true},
    [CCA_CHAT_MISTRAL_V3] = {.name = "mistral-v3",
                             .system_open = "[INST] ",
                             .system_close = "\n\n",
                             .user_open = "[INST] ",
                             .user_close = "[/INST]",
                             .answer_space = true,
                             .answer_close = "",
                             .eos = true},
    [CCA_CHAT_MISTRAL_V3_TEKKEN] = {.name = "mistral-v3-tekken",
                                    .system_open = "[INST]",
                                    .system_close = "\n\n",
                                    .user_open = "[INST]",
                                    .user_close = "[/INST]",
                                    .answer_close = "",
                                    .eos = true},
    [CCA_CHAT_MISTRAL_V7] = {.name = "mistral-v7",
                             .system_open = "[SYSTEM_PROMPT] ",
                             .system_close = "[/SYSTEM_PROMPT][INST] ",
                             .user_open = "[INST] ",
                             .user_close = "[/INST]",
                             .answer_space = true,
                             .answer_close = "",
                             .eos = true,
                             .marker = "[SYSTEM_PROMPT]"},
    [CCA_CHAT_MISTRAL_V7_TEKKEN] = {.name = "mistral-v7-tekken",
                                    .system_open = "[SYSTEM_PROMPT]",
                                    .system_close = "[/SYSTEM_PROMPT][INST]",
                                    .user_open = "[INST]",
                                    .user_close = "[/INST]",
                                    .answer_close = "",
                                    .eos = true,
                                    .marker = "[SYSTEM_PROMPT]"},
    [CCA_CHAT_CHATML] = {.name = "chatml",
                         .system_open = "<|im_start|>system\n",
                         .system_close = "<|im_end|>\n<|im_start|>user\n",
                         .user_open = "<|im_start|>user\n",
                         .user_close = "<|im_end|>\n<|im_start|>assistant\n",
                         .answer_close = "<|im_end|>\n",
                         .marker = "<|im_start|>",
                         .end = "<|im_end|>"},
    [CCA_CHAT_ZEPHYR] = {.name = "zephyr",
                         .system_open = "<|system|>\n",
                         .system_close = "</s>\n<|user|>\n",
                         .user_open = "<|user|>\n",
                         .user_close = "</s>\n<|assistant|>\n",
                         .answer_close = "</s>\n",
                         .marker = "</s>",
                         .end = "</s>"},
    [CCA_CHAT_PLAIN] = {.name = "plain",
                        .system_open = "",
                        .system_close = "\n\n",
                        .user_open = "",
                        .question = "Question: ",
                        .user_close = "\nAnswer:",
                        .answer_space = true,
                        .answer_close = "\n\n",
                        .stop = "\n"},
};
enum { N_LAYOUTS = sizeof layouts / sizeof *layouts };

const char cca_chat_names[] = "llama2, llama3, mistral, mistral-v3, mistral-v3-tekken, mistral-v7, "
                              "mistral-v7-tekken, chatml, zephyr or plain";

/* ---- which template ----------------------------------------------------------------- */

static bool parse(cca_chat *out, const char *name, size_t size) {
    for (int i = 0; i < N_LAYOUTS; i++) {
        if (strlen(layouts[i].name) != size || memcmp(layouts[i].name, name, size) != 0) continue;
        *out = (cca_chat)i;
        return true;
    }
    return false;
}

bool cca_chat_parse(cca_chat *out, const char *name) {
    return parse(out, name, strlen(name));
}

const char *cca_chat_name(cca_chat chat) {
    return layouts[chat].name;
}

cca_status cca_chat_of_file(cca_chat *out, bool *found, const cca_gguf *file, cca_error *err) {
    static const char *const key = "cca.chat_template";
    const cca_gguf_string none = {"", 0};
    cca_gguf_string name;
    *found = false;
    cca_status status = cca_gguf_str(&name, file, key, &none, err);
    if (status || name.size == 0) return status;
    *found = parse(out, name.bytes, name.size);
    if (*found) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "%s: %s is none of %s", cca_gguf_name(file), key,
                    cca_chat_names);
}

/* The token that a text is; -1 where it is none, or several. */
static int32_t token_of(const cca_tokenizer *tok, const char *text) {
    cca_tokens tokens = {0};
    int32_t id = -1;
    cca_status status =
        cca_tokenizer_encode(&tokens, tok, text, strlen(text), CCA_ENCODE_SPECIAL, NULL);
    if (!status && tokens.n == 1) id = tokens.ids[0];
    cca_tokens_free(&tokens);
    return id;
}

int32_t cca_chat_end_token(cca_chat chat, const cca_tokenizer *tok) {
    return layouts[chat].end ? token_of(tok, layouts[chat].end) : -1;
}

bool cca_chat_answer_space(cca_chat chat) {
    return layouts[chat].answer_space;
}

const char *cca_chat_stop(cca_chat chat) {
    return layouts[chat].stop;
}

/* A vocabulary that has [INST] is of a version that puts no blank in front of [/INST]: the model
 * never saw one there. */
static cca_chat settle_version(cca_chat chat, const cca_tokenizer *tok) {
    if (chat != CCA_CHAT_MISTRAL || token_of(tok, "[INST]") < 0) return chat;
    bool tekken = strcmp(cca_tokenizer_info(tok)->kind, "bpe") == 0;
    return tekken ? CCA_CHAT_MISTRAL_V3_TEKKEN : CCA_CHAT_MISTRAL_V3;
}

/* ---- prompts ------------------------------------------------------------------------ */

cca_status cca_prompt_begin(cca_prompt *p, cca_chat chat, const cca_tokenizer *tok, cca_tokens *out,
                            cca_error *err) {
    chat = settle_version(chat, tok);
    const layout *l = &layouts[chat];
    *p = (cca_prompt){.chat = chat, .tok = tok, .out = out, .begin = out->n};
    if (!l->marker || token_of(tok, l->marker) >= 0) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "chat template %s: the model's vocabulary has no token %s",
                    l->name, l->marker);
}

static cca_status encode(cca_prompt *p, const char *text, size_t size, unsigned flags,
                         cca_error *err) {
    if (p->out->n == p->begin) flags |= CCA_ENCODE_START;
    return cca_tokenizer_encode(p->out, p->tok, text, size, flags, err);
}

/* What stands between the slot that was opened last and the next; NULL for a wrong order. */
static const char *between(const cca_prompt *p, cca_slot next) {
    const layout *l = &layouts[p->chat];
    bool user = next == CCA_SLOT_DOCUMENT || next == CCA_SLOT_QUESTION;
    switch (p->slot) {
    case CCA_SLOT_NONE:
        return next == CCA_SLOT_SYSTEM ? l->system_open : user ? l->user_open : NULL;
    case CCA_SLOT_SYSTEM: return user ? l->system_close : NULL;
    case CCA_SLOT_DOCUMENT: return user ? "\n\n" : NULL;
    case CCA_SLOT_QUESTION: return next == CCA_SLOT_ANSWER ? l->user_close : NULL;
    case CCA_SLOT_ANSWER: return user ? l->user_open : NULL;
    }
    return NULL;
}

/* Ends the model's turn where each exchange was a text of its own in training, as those of Llama 2
 * and Mistral were: the next one begins as the first did, with the dummy prefix. */
static cca_status end_exchange(cca_prompt *p, cca_error *err) {
    const layout *l = &layouts[p->chat];
    const cca_tokenizer_facts *facts = cca_tokenizer_info(p->tok);
    cca_status status =
        encode(p, l->answer_close, strlen(l->answer_close), CCA_ENCODE_SPECIAL, err);
    bool bos = l->bos && facts->add_bos && facts->bos >= 0;
    if (!status && ((facts->eos >= 0 && !cca_tokens_push(p->out, facts->eos, 0)) ||
                    (bos && !cca_tokens_push(p->out, facts->bos, 0)))) {
        status = cca_fail(err, CCA_NO_MEMORY, "no memory for a prompt");
    }
    p->begin = p->out->n;
    return status;
}

cca_status cca_prompt_open(cca_prompt *p, cca_slot slot, unsigned *how, cca_error *err) {
    char *scaffold;
    const layout *l = &layouts[p->chat];
    bool further = p->slot == CCA_SLOT_ANSWER;
    const char *close = further && !l->eos ? l->answer_close : "", *opens = between(p, slot);
    const char *label = slot == CCA_SLOT_QUESTION && l->question ? l->question : "";
    if (!opens) return cca_fail(err, CCA_USAGE, "the parts of a prompt are out of order");
    cca_status status = further && l->eos ? end_exchange(p, err) : CCA_OK;
    if (status) return status;
    int size = asprintf(&scaffold, "%s%s%s", close, opens, label);
    if (size < 0) return cca_fail(err, CCA_NO_MEMORY, "no memory for a prompt");
    bool space = slot != CCA_SLOT_ANSWER && size > 0 && scaffold[size - 1] == ' ';
    status = encode(p, scaffold, (size_t)(size - space), CCA_ENCODE_SPECIAL, err);
    free(scaffold);
    *how = (p->out->n == p->begin ? CCA_ENCODE_START : 0) | (space ? CCA_ENCODE_SPACE : 0);
    if (!status) p->slot = slot;
    return status;
}

cca_status cca_prompt_text(cca_prompt *p, cca_slot slot, const char *text, size_t size,
                           cca_error *err) {
    unsigned how = 0;
    cca_status status = cca_prompt_open(p, slot, &how, err);
    return status ? status : cca_tokenizer_encode(p->out, p->tok, text, size, how, err);
}

cca_status cca_prompt_end(cca_prompt *p, cca_error *err) {
    unsigned how;
    return cca_prompt_open(p, CCA_SLOT_ANSWER, &how, err);
}
