#include "export/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cca_status cca_vocab_alloc(cca_vocab *vocab, int64_t n, cca_error *err) {
    vocab->pieces = calloc((size_t)n + 1, sizeof *vocab->pieces);
    vocab->scores = calloc((size_t)n + 1, sizeof *vocab->scores);
    vocab->types = calloc((size_t)n + 1, sizeof *vocab->types);
    if (!vocab->pieces || !vocab->scores || !vocab->types) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for %lld pieces", vocab->path,
                        (long long)n);
    }
    return CCA_OK;
}

cca_status cca_vocab_open(cca_vocab *out, const char *path, cca_error *err) {
    *out = (cca_vocab){.path = path, .bos = 1, .eos = 2, .unk = 0, .pad = -1};
    cca_status status = cca_mapping_open(&out->file, path, err);
    if (status != CCA_OK) return status;
    /* A SentencePiece model begins with a piece: field 1, not empty. In a .bin file these bytes
     * are the length of the longest token, an int32: the second one is zero. */
    const uint8_t *bytes = out->file.data;
    out->is_sentencepiece = out->file.size >= 2 && bytes[0] == 0x0a && bytes[1] != 0;
    return out->is_sentencepiece ? cca_vocab_read_sentencepiece(out, err)
                                 : cca_vocab_read_llama2c(out, err);
}

void cca_vocab_close(cca_vocab *vocab) {
    cca_mapping_close(&vocab->file);
    free(vocab->pieces);
    free(vocab->scores);
    free(vocab->types);
    free(vocab->text);
    free(vocab->padding);
    *vocab = (cca_vocab){0};
}

/* Texts, scores and types of padding are those that llama.cpp's converter writes. */
cca_status cca_vocab_pad(cca_vocab *vocab, int64_t n, cca_error *err) {
    enum { PAD_BYTES = 24 };
    if (n < vocab->n) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: %lld pieces, but the model has only %lld tokens",
                        vocab->path, (long long)vocab->n, (long long)n);
    }
    if (n == vocab->n) return CCA_OK;
    cca_vocab old = *vocab;
    vocab->padding = malloc((size_t)(n - old.n) * PAD_BYTES);
    cca_status status = cca_vocab_alloc(vocab, n, err);
    if (status == CCA_OK && !vocab->padding) {
        status = cca_fail(err, CCA_NO_MEMORY, "%s: no memory to pad it", vocab->path);
    }
    if (status == CCA_OK) {
        memcpy(vocab->pieces, old.pieces, (size_t)old.n * sizeof *old.pieces);
        memcpy(vocab->scores, old.scores, (size_t)old.n * sizeof *old.scores);
        memcpy(vocab->types, old.types, (size_t)old.n * sizeof *old.types);
        for (int64_t i = old.n; i < n; i++) {
            char *text = vocab->padding + (i - old.n) * PAD_BYTES;
            int size = snprintf(text, PAD_BYTES, "[PAD%lld]", (long long)i);
            vocab->pieces[i] = (cca_gguf_string){text, (size_t)size};
            vocab->scores[i] = -10000;
            vocab->types[i] = CCA_SPM_UNUSED;
        }
        vocab->n = n;
    }
    free(old.pieces);
    free(old.scores);
    free(old.types);
    return status;
}

static cca_status check_id(const cca_vocab *vocab, const char *what, int64_t id, cca_error *err) {
    if (id < vocab->n) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL, "%s: %s token %lld is outside the vocabulary of %lld",
                    vocab->path, what, (long long)id, (long long)vocab->n);
}

static void put_id(cca_gguf_writer *w, const char *key, int32_t id) {
    if (id >= 0) cca_gguf_put_u32(w, key, (uint32_t)id);
}

cca_status cca_vocab_put(cca_gguf_writer *w, const cca_vocab *vocab, const cca_source_text *text,
                         cca_error *err) {
    int32_t bos = text->bos >= 0 ? text->bos : vocab->bos;
    int32_t eos = text->eos >= 0 ? text->eos : vocab->eos;
    cca_status status = check_id(vocab, "beginning", bos, err);
    if (status == CCA_OK) status = check_id(vocab, "end", eos, err);
    if (status == CCA_OK) status = check_id(vocab, "unknown", vocab->unk, err);
    if (status == CCA_OK) status = check_id(vocab, "padding", vocab->pad, err);
    for (int64_t i = 0; i < text->n_ends && status == CCA_OK; i++) {
        status = check_id(vocab, "end", text->ends[i], err);
    }
    if (status != CCA_OK) return status;

    uint64_t n = (uint64_t)vocab->n;
    cca_gguf_put_text(w, "tokenizer.ggml.model", "llama");
    cca_gguf_put_text(w, "tokenizer.ggml.pre", "default");
    cca_gguf_put_strings(w, "tokenizer.ggml.tokens", n, vocab->pieces);
    cca_gguf_put_numbers(w, "tokenizer.ggml.scores", CCA_GGUF_F32, n, vocab->scores);
    cca_gguf_put_numbers(w, "tokenizer.ggml.token_type", CCA_GGUF_I32, n, vocab->types);
    put_id(w, "tokenizer.ggml.bos_token_id", bos);
    put_id(w, "tokenizer.ggml.eos_token_id", eos);
    put_id(w, "tokenizer.ggml.unknown_token_id", vocab->unk);
    put_id(w, "tokenizer.ggml.padding_token_id", vocab->pad);
    cca_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", text->add_bos && bos >= 0);
    cca_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false);
    cca_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", vocab->dummy_prefix);
    cca_gguf_put_bool(w, "tokenizer.ggml.remove_extra_whitespaces", vocab->remove_extra_spaces);
    if (text->n_ends > 1) {
        cca_gguf_put_numbers(w, "cca.end_token_ids", CCA_GGUF_I32, (uint64_t)text->n_ends,
                             text->ends);
    }
    if (vocab->is_sentencepiece) {
        cca_gguf_put_numbers(w, "cca.tokenizer.sentencepiece", CCA_GGUF_U8, vocab->file.size,
                             vocab->file.data);
    }
    return CCA_OK;
}
