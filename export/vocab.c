#include "export/vocab.h"

#include "text/added_tokens.h"
#include "text/spm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cca_status cca_vocab_alloc(cca_vocab *vocab, int64_t n, cca_error *err) {
    vocab->pieces = calloc((size_t)n + 1, sizeof *vocab->pieces);
    vocab->scores = calloc((size_t)n + 1, sizeof *vocab->scores);
    vocab->types = calloc((size_t)n + 1, sizeof *vocab->types);
    vocab->flags = calloc((size_t)n + 1, sizeof *vocab->flags);
    if (!vocab->pieces || !vocab->scores || !vocab->types || !vocab->flags) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for %lld pieces", vocab->path,
                        (long long)n);
    }
    vocab->capacity = n;
    return CCA_OK;
}

void cca_vocab_close(cca_vocab *vocab) {
    cca_mapping_close(&vocab->file);
    free(vocab->pieces);
    free(vocab->scores);
    free(vocab->types);
    free(vocab->flags);
    free(vocab->merges);
    free(vocab->steps);
    json_decref(vocab->json);
    json_decref(vocab->kept);
    free(vocab->text);
    free(vocab->padding);
    *vocab = (cca_vocab){0};
}

/* Other room for n pieces, of which the first are as they were. */
static cca_status move(cca_vocab *vocab, int64_t n, cca_error *err) {
    cca_vocab old = *vocab;
    cca_status status = cca_vocab_alloc(vocab, n, err);
    if (!status) {
        memcpy(vocab->pieces, old.pieces, (size_t)old.n * sizeof *old.pieces);
        memcpy(vocab->scores, old.scores, (size_t)old.n * sizeof *old.scores);
        memcpy(vocab->types, old.types, (size_t)old.n * sizeof *old.types);
        memcpy(vocab->flags, old.flags, (size_t)old.n * sizeof *old.flags);
    }
    free(old.pieces);
    free(old.scores);
    free(old.types);
    free(old.flags);
    return status;
}

/* Ids come one at a time: room is made for twice as many. */
cca_status cca_vocab_grow(cca_vocab *vocab, int64_t n, cca_error *err) {
    cca_status status = CCA_OK;
    if (n > vocab->capacity) status = move(vocab, cca_max(n, 2 * vocab->capacity), err);
    if (!status) vocab->n = cca_max(vocab->n, n);
    return status;
}

/* Texts, scores and types of padding are those that llama.cpp's converter writes. */
cca_status cca_vocab_pad(cca_vocab *vocab, int64_t n, cca_error *err) {
    enum { PAD_BYTES = 24 };
    if (n < vocab->n_own) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: %lld pieces, but the model has only %lld tokens",
                        vocab->path, (long long)vocab->n_own, (long long)n);
    }
    vocab->n = cca_min(vocab->n, n);
    cca_status status = cca_vocab_grow(vocab, n, err);
    if (status) return status;
    vocab->padding = malloc((size_t)(n - vocab->n_own) * PAD_BYTES + 1);
    if (!vocab->padding) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to pad it", vocab->path);
    }
    for (int64_t i = vocab->n_own; i < n; i++) {
        char *text = vocab->padding + (i - vocab->n_own) * PAD_BYTES;
        if (vocab->pieces[i].bytes) continue;
        int size = snprintf(text, PAD_BYTES, "[PAD%lld]", (long long)i);
        vocab->pieces[i] = (cca_gguf_string){text, (size_t)size};
        vocab->scores[i] = -10000;
        vocab->types[i] = CCA_SPM_UNUSED;
    }
    return CCA_OK;
}

int32_t cca_vocab_find(const cca_vocab *vocab, const char *text) {
    size_t size = strlen(text);
    for (int64_t i = 0; i < vocab->n; i++) {
        if (vocab->pieces[i].size == size && memcmp(vocab->pieces[i].bytes, text, size) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}

static cca_status check_id(const cca_vocab *vocab, const char *what, int64_t id, cca_error *err) {
    if (id < vocab->n) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL, "%s: %s token %lld is outside the vocabulary of %lld",
                    vocab->path, what, (long long)id, (long long)vocab->n);
}

static void put_id(cca_gguf_writer *w, const char *key, int32_t id) {
    if (id >= 0) cca_gguf_put_u32(w, key, (uint32_t)id);
}

/* What the source calls a token by its text, or fallback. */
static int32_t named(const cca_vocab *vocab, const char *text, int32_t fallback) {
    int32_t id = text ? cca_vocab_find(vocab, text) : -1;
    return id >= 0 ? id : fallback;
}

static void put_tokens(cca_gguf_writer *w, const cca_vocab *vocab) {
    uint64_t n = (uint64_t)vocab->n;
    bool bytes = strcmp(vocab->kind, "gpt2") == 0;
    cca_gguf_put_text(w, "tokenizer.ggml.model", vocab->kind);
    cca_gguf_put_text(w, "tokenizer.ggml.pre", vocab->pre);
    cca_gguf_put_strings(w, "tokenizer.ggml.tokens", n, vocab->pieces);
    if (!bytes) cca_gguf_put_numbers(w, "tokenizer.ggml.scores", CCA_GGUF_F32, n, vocab->scores);
    cca_gguf_put_numbers(w, "tokenizer.ggml.token_type", CCA_GGUF_I32, n, vocab->types);
    if (bytes) {
        cca_gguf_put_strings(w, "tokenizer.ggml.merges", (uint64_t)vocab->n_merges, vocab->merges);
    }
    if (bytes && strcmp(vocab->pre, "cca") == 0) {
        cca_gguf_put_strings(w, "cca.tokenizer.steps", (uint64_t)vocab->n_steps, vocab->steps);
        cca_gguf_put_bool(w, "cca.tokenizer.ignore_merges", vocab->ignore_merges);
        cca_gguf_put_bool(w, "cca.tokenizer.byte_fallback", vocab->is_plain);
    }
    cca_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false);
    cca_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", vocab->dummy_prefix);
    if (vocab->prefix && vocab->dummy_prefix) {
        cca_gguf_put_text(w, "cca.tokenizer.prefix", vocab->prefix);
    }
    cca_gguf_put_bool(w, "tokenizer.ggml.remove_extra_whitespaces", vocab->remove_extra_spaces);
}

/* All tokens that end a text, where there are several; eos may be one more. */
static cca_status put_ends(cca_gguf_writer *w, const cca_vocab *vocab, const cca_source_text *text,
                           int32_t eos, cca_error *err) {
    int64_t n = text->n_ends;
    int32_t *ends = malloc((size_t)(n + 1) * sizeof *ends);
    if (!ends) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its ends", vocab->path);
    bool listed = eos < 0;
    for (int64_t i = 0; i < n; i++) {
        ends[i] = text->ends[i];
        listed |= ends[i] == eos;
    }
    if (!listed) ends[n++] = eos;
    if (n > 1) cca_gguf_put_numbers(w, "cca.end_token_ids", CCA_GGUF_I32, (uint64_t)n, ends);
    free(ends);
    return CCA_OK;
}

/* The ids of added tokens that are not looked for in the usual way. */
static cca_status put_flags(cca_gguf_writer *w, const cca_vocab *vocab, cca_error *err) {
    int32_t *ids = malloc((size_t)(vocab->n + 1) * sizeof *ids);
    if (!ids) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for its ids", vocab->path);
    for (size_t k = 0; k < CCA_N_ADDED_KEYS; k++) {
        const cca_added_key *key = &cca_added_keys[k];
        uint64_t n = 0;
        for (int64_t i = 0; i < vocab->n; i++) {
            if (vocab->flags[i] & key->flag) ids[n++] = (int32_t)i;
        }
        if (n > 0) cca_gguf_put_numbers(w, key->name, CCA_GGUF_I32, n, ids);
    }
    free(ids);
    return CCA_OK;
}

cca_status cca_vocab_put(cca_gguf_writer *w, const cca_vocab *vocab, const cca_source_text *text,
                         cca_error *err) {
    int32_t own_eos = named(vocab, text->eos_token, -1);
    int32_t bos = named(vocab, text->bos_token, text->bos >= 0 ? text->bos : vocab->bos);
    int32_t eos = text->eos >= 0 ? text->eos : own_eos >= 0 ? own_eos : vocab->eos;
    int32_t pad = named(vocab, text->pad_token, vocab->pad);
    bool add_bos = text->says_add_bos ? text->add_bos : vocab->add_bos;
    cca_status status = check_id(vocab, "beginning", bos, err);
    if (!status) status = check_id(vocab, "end", eos, err);
    if (!status) status = check_id(vocab, "unknown", vocab->unk, err);
    if (!status) status = check_id(vocab, "padding", pad, err);
    for (int64_t i = 0; i < text->n_ends && !status; i++) {
        status = check_id(vocab, "end", text->ends[i], err);
    }
    if (status) return status;

    put_tokens(w, vocab);
    put_id(w, "tokenizer.ggml.bos_token_id", bos);
    put_id(w, "tokenizer.ggml.eos_token_id", eos);
    put_id(w, "tokenizer.ggml.unknown_token_id", vocab->unk);
    put_id(w, "tokenizer.ggml.padding_token_id", pad);
    cca_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", add_bos && bos >= 0);
    if (vocab->is_sentencepiece) {
        cca_gguf_put_numbers(w, "cca.tokenizer.sentencepiece", CCA_GGUF_U8, vocab->file.size,
                             vocab->file.data);
    }
    status = put_flags(w, vocab, err);
    if (status) return status;
    return put_ends(w, vocab, text, own_eos, err);
}
