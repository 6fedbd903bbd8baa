/* Files that say little, or other than they mean, are understood as their writers' programs do. */
#include "text/tokenizer_source.h"

#include "text/bpe.h"
#include "text/bpe_text.h"
#include "text/known_tokens.h"

#include <stdlib.h>
#include <string.h>

static const char *const key_model = "tokenizer.ggml.model";
static const char *const key_tokens = "tokenizer.ggml.tokens";
static const char *const key_scores = "tokenizer.ggml.scores";
static const char *const key_types = "tokenizer.ggml.token_type";
static const char *const key_merges = "tokenizer.ggml.merges";
static const char *const key_pre = "tokenizer.ggml.pre";
static const char *const key_original = "cca.tokenizer.sentencepiece";
static const char *const key_steps = "cca.tokenizer.steps";
static const char *const key_ignore_merges = "cca.tokenizer.ignore_merges";
static const char *const key_plain = "cca.tokenizer.byte_fallback";
static const char *const key_prefix = "cca.tokenizer.prefix";

cca_status cca_tokenizer_source_no_memory(const cca_tokenizer_source *src) {
    return cca_fail(src->err, CCA_NO_MEMORY, "%s: no memory for a vocabulary of %zu tokens",
                    src->name, src->tokens.n ? (size_t)src->tokens.n : src->model.n_pieces);
}

static bool is(cca_gguf_string text, const char *word) {
    return text.size == strlen(word) && memcmp(text.bytes, word, text.size) == 0;
}

static bool is_bpe(const cca_tokenizer_source *src) {
    return src->kind == CCA_TOKENIZER_BPE;
}

/* ---- lists ---- */

/* Types that the file does not say, or calls undefined: those of the tokens that its keys name are
 * known, bytes by their form (not to byte-level BPE), and what BPE could not spell was added.
 * Behind an original model tokens without types are padding. */
static cca_status settle_undefined(cca_tokenizer_source *src, bool padding) {
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
                                       "tokenizer.ggml.padding_token_id"};
    uint64_t n = src->tokens.n;
    int32_t id;
    cca_status status = cca_gguf_token(&id, src->file, "tokenizer.ggml.unknown_token_id", src->err);
    bool known = !status && id >= 0 && (uint64_t)id < n;
    if (known && src->types[id] == CCA_SPM_UNDEFINED) src->types[id] = CCA_SPM_UNKNOWN;
    for (size_t k = 0; k < sizeof keys / sizeof *keys && !status; k++) {
        bool is_unknown = false;
        status = cca_gguf_token(&id, src->file, keys[k], src->err);
        known = !status && id >= 0 && (uint64_t)id < n;
        if (known) is_unknown = is_bpe(src) && src->types[id] == CCA_SPM_UNKNOWN;
        if (known && (src->types[id] == CCA_SPM_UNDEFINED || is_unknown)) {
            src->types[id] = CCA_SPM_CONTROL;
        }
    }
    for (uint64_t i = 0; i < n; i++) {
        cca_gguf_string text = src->tokens.strings[i];
        bool byte = (!is_bpe(src) || src->plain) &&
                    cca_spm_byte_value((cca_spm_text){text.bytes, text.size}) >= 0;
        bool added = is_bpe(src) && !src->plain && !cca_bpe_is_word(text);
        if (src->types[i] != CCA_SPM_UNDEFINED) continue;
        src->types[i] = padding ? CCA_SPM_UNUSED
                        : byte  ? CCA_SPM_BYTE
                        : added ? CCA_SPM_USER
                                : CCA_SPM_NORMAL;
    }
    return status;
}

/* The types of the file's tokens, of which well-known ones are control tokens in any case. */
static cca_status settle_types(cca_tokenizer_source *src, const cca_gguf_array *types) {
    uint64_t n = src->tokens.n;
    src->types = calloc(n + 1, sizeof *src->types);
    if (!src->types) return cca_tokenizer_source_no_memory(src);
    for (uint64_t i = 0; i < n && types->n > 0; i++) {
        double type = cca_gguf_array_number(types, i);
        if (!(type >= CCA_SPM_UNDEFINED && type <= CCA_SPM_BYTE)) {
            return cca_fail(src->err, CCA_BAD_MODEL, "%s: element %llu of %s is %g, not 0 to 6",
                            cca_gguf_name(src->file), (unsigned long long)i, key_types, type);
        }
        src->types[i] = (uint8_t)type;
    }
    for (uint64_t i = 0; i < n; i++) {
        cca_gguf_string text = src->tokens.strings[i];
        const cca_known_token *known = cca_known_token_find(text.bytes, text.size);
        bool control = known && known->always && src->types[i] != CCA_SPM_UNUSED;
        if (control) src->types[i] = CCA_SPM_CONTROL;
    }
    return settle_undefined(src, types->n == 0 && src->is_original);
}

/* The file's list of tokens, and their types, which must fit each other. */
static cca_status read_lists(cca_tokenizer_source *src, bool required) {
    const char *file = cca_gguf_name(src->file);
    cca_gguf_array types;
    cca_status status = cca_gguf_arr(&src->tokens, src->file, key_tokens, required, src->err);
    if (!status) status = cca_gguf_arr(&types, src->file, key_types, false, src->err);
    if (status) return status;
    if (src->tokens.n > 0 && !src->tokens.strings) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of strings", file, key_tokens);
    }
    if (types.strings || (types.n > 0 && types.n != src->tokens.n)) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of %llu numbers", file,
                        key_types, (unsigned long long)src->tokens.n);
    }
    return settle_types(src, &types);
}

/* What the file's list calls control or user-defined is so, though the original says normal. */
static void take_listed_types(cca_tokenizer_source *src) {
    for (size_t i = 0; i < src->model.n_pieces && i < src->tokens.n; i++) {
        cca_spm_piece *piece = &src->model.pieces[i];
        bool plain = piece->type == CCA_SPM_NORMAL || piece->type == CCA_SPM_USER;
        bool marked = src->types[i] == CCA_SPM_CONTROL || src->types[i] == CCA_SPM_USER;
        if (plain && marked) piece->type = (cca_spm_type)src->types[i];
    }
}

/* The original model, and perhaps more tokens behind its own. */
static cca_status read_original(cca_tokenizer_source *src) {
    cca_gguf_array bytes;
    src->kind = CCA_TOKENIZER_SPM;
    src->is_original = true;
    cca_status status = cca_gguf_arr(&bytes, src->file, key_original, true, src->err);
    if (!status && bytes.type != CCA_GGUF_U8 && bytes.type != CCA_GGUF_I8) {
        status = cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of bytes",
                          cca_gguf_name(src->file), key_original);
    }
    if (!status) status = read_lists(src, false);
    if (!status) {
        status = cca_spm_model_read(&src->model, bytes.data, (size_t)bytes.n, src->name, src->err);
    }
    if (!status && src->tokens.n > 0 && src->tokens.n < src->model.n_pieces) {
        status = cca_fail(src->err, CCA_BAD_MODEL, "%s: %s has %llu tokens, %s has %zu",
                          cca_gguf_name(src->file), key_tokens, (unsigned long long)src->tokens.n,
                          key_original, src->model.n_pieces);
    }
    if (!status) take_listed_types(src);
    return status;
}

/* One piece is the unknown one, to SentencePiece. Files made from a tokenizer.json call it a
 * control token, as llama.cpp's converter does, and an earlier converter called padding unknown,
 * too. Then it is the one that the key names, or the first; the others stand in no text, like
 * control tokens. */
static cca_status settle_unknown(cca_tokenizer_source *src) {
    cca_spm_model *model = &src->model;
    size_t first = 0, n = model->n_pieces;
    while (first < n && model->pieces[first].type != CCA_SPM_UNKNOWN) first++;
    cca_spm_type among = first < n ? CCA_SPM_UNKNOWN : CCA_SPM_CONTROL;
    size_t usual = first < n ? first : 0;
    int32_t id;
    cca_status status = cca_gguf_token(&id, src->file, "tokenizer.ggml.unknown_token_id", src->err);
    if (status) return status;
    size_t unknown = id >= 0 ? (size_t)id : usual;
    if (unknown >= n || model->pieces[unknown].type != among) unknown = usual;
    for (size_t i = first; i < n; i++) {
        if (model->pieces[i].type == CCA_SPM_UNKNOWN) model->pieces[i].type = CCA_SPM_CONTROL;
    }
    if (unknown < n && model->pieces[unknown].type == CCA_SPM_CONTROL) {
        model->pieces[unknown].type = CCA_SPM_UNKNOWN;
    }
    return CCA_OK;
}

/* A model made of the file's lists. */
static cca_status rebuild(cca_tokenizer_source *src) {
    cca_spm_model *model = &src->model;
    cca_gguf_array scores;
    src->kind = CCA_TOKENIZER_SPM;
    cca_status status = read_lists(src, true);
    if (!status) status = cca_gguf_arr(&scores, src->file, key_scores, true, src->err);
    if (status) return status;
    if (scores.strings || scores.n != src->tokens.n) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of %llu numbers",
                        cca_gguf_name(src->file), key_scores, (unsigned long long)src->tokens.n);
    }
    for (size_t i = 0; i < src->tokens.n; i++) {
        cca_gguf_string text = src->tokens.strings[i];
        cca_spm_type type = (cca_spm_type)src->types[i];
        float score = (float)cca_gguf_array_number(&scores, i);
        if (!cca_spm_model_push(model, (cca_spm_piece){{text.bytes, text.size}, score, type})) {
            return cca_tokenizer_source_no_memory(src);
        }
        model->byte_fallback |= type == CCA_SPM_BYTE;
    }
    status = settle_unknown(src);
    return !status ? cca_spm_model_check(model, src->name, src->err) : status;
}

/* A way with texts of the file's own. */
static cca_status read_steps(cca_tokenizer_source *src) {
    const char *name = cca_gguf_name(src->file);
    cca_status status = cca_gguf_arr(&src->steps, src->file, key_steps, true, src->err);
    bool off = false;
    if (!status && !src->steps.strings) {
        status = cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of strings", name, key_steps);
    }
    if (!status) {
        status = cca_gguf_bool(&src->ignore_merges, src->file, key_ignore_merges, &off, src->err);
    }
    return status ? status : cca_gguf_bool(&src->plain, src->file, key_plain, &off, src->err);
}

static cca_status read_bpe(cca_tokenizer_source *src) {
    src->kind = CCA_TOKENIZER_BPE;
    src->add_bos = false;
    bool own = cca_gguf_has(src->file, key_steps);
    cca_status status = own ? read_steps(src) : CCA_OK;
    if (!status) status = read_lists(src, true);
    if (!status) status = cca_gguf_arr(&src->merges, src->file, key_merges, true, src->err);
    if (!status && !own) status = cca_gguf_str(&src->pre, src->file, key_pre, NULL, src->err);
    if (!status && src->merges.n > 0 && !src->merges.strings) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of strings",
                        cca_gguf_name(src->file), key_merges);
    }
    const cca_pre *pre = own || status ? NULL : cca_pre_find(src->pre);
    if (pre) src->add_bos = pre->add_bos;
    return status;
}

/* ---- the space in front ---- */

/* Mistral's vocabularies from version 3 on, whose texts get none behind a control token. */
static bool has_instruction_tokens(const cca_tokenizer_source *src) {
    for (uint64_t i = 0; i < src->tokens.n; i++) {
        if (src->types[i] == CCA_SPM_CONTROL && is(src->tokens.strings[i], "[INST]")) return true;
    }
    return false;
}

static cca_status read_prefix(cca_tokenizer_source *src) {
    static const char *const words[] = {[CCA_PREFIX_FIRST] = "first",
                                        [CCA_PREFIX_PREPEND] = "prepend",
                                        [CCA_PREFIX_LEAD] = "lead",
                                        [CCA_PREFIX_LEAD_FIRST] = "lead-first"};
    cca_gguf_string word;
    bool own = src->model.add_dummy_prefix;
    cca_status status = cca_gguf_bool(&src->model.add_dummy_prefix, src->file,
                                      "tokenizer.ggml.add_space_prefix", &own, src->err);
    if (status) return status;
    if (!src->model.add_dummy_prefix || src->model.whitespace_suffix) return CCA_OK;
    if (!cca_gguf_has(src->file, key_prefix)) {
        bool others = !src->is_original && !has_instruction_tokens(src);
        src->prefix = others ? CCA_PREFIX_PREPEND : CCA_PREFIX_FIRST;
        return CCA_OK;
    }
    status = cca_gguf_str(&word, src->file, key_prefix, NULL, src->err);
    for (int i = 0; i < 4 && !status; i++) {
        src->prefix = (cca_prefix)i;
        if (is(word, words[i])) return CCA_OK;
    }
    return status ? status
                  : cca_fail(src->err, CCA_BAD_MODEL,
                             "%s: %s is \"%.*s\", none of first, prepend, lead and lead-first",
                             cca_gguf_name(src->file), key_prefix,
                             word.size < 100 ? (int)word.size : 100, word.bytes);
}

/* ---- opening ---- */

/* Names the file and the key in front of messages. */
static void name_source(cca_tokenizer_source *src, const char *file, const char *key) {
    const char *parts[] = {file, key ? ": " : "", key ? key : ""};
    size_t n = 0;
    for (size_t i = 0; i < 3; i++) {
        for (const char *p = parts[i]; *p && n + 1 < sizeof src->name; p++) src->name[n++] = *p;
    }
    src->name[n] = 0;
}

cca_status cca_tokenizer_source_read(cca_tokenizer_source *out, const cca_gguf *file,
                                     cca_error *err) {
    bool original = cca_gguf_has(file, key_original);
    *out = (cca_tokenizer_source){.file = file, .add_bos = true, .err = err};
    cca_spm_model_init(&out->model);
    name_source(out, cca_gguf_name(file), original ? key_original : key_tokens);
    if (!original && !cca_gguf_has(file, key_model) && !cca_gguf_has(file, key_tokens)) {
        return CCA_OK;
    }
    cca_gguf_string kind = {"llama", 5};
    cca_status status = original ? CCA_OK : cca_gguf_str(&kind, file, key_model, NULL, err);
    if (status || is(kind, "no_vocab") || is(kind, "none")) return status;
    if (is(kind, "gpt2")) return read_bpe(out);
    if (!is(kind, "llama")) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: %s is \"%.*s\", a kind that is not supported",
                        cca_gguf_name(file), key_model, kind.size < 100 ? (int)kind.size : 100,
                        kind.bytes);
    }
    status = original ? read_original(out) : rebuild(out);
    return status ? status : read_prefix(out);
}

cca_status cca_tokenizer_source_of_sentencepiece(cca_tokenizer_source *out, const void *model,
                                                 size_t size, const char *name, cca_error *err) {
    *out = (cca_tokenizer_source){.kind = CCA_TOKENIZER_SPM, .err = err};
    name_source(out, name, NULL);
    return cca_spm_model_read(&out->model, model, size, name, err);
}

void cca_tokenizer_source_free(cca_tokenizer_source *src) {
    cca_spm_model_free(&src->model);
    free(src->types);
}
