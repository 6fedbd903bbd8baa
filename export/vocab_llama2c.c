/* The tokenizer.bin of llama2.c: the length of the longest token, then for each token its score
 * (float), length (int32) and bytes. The first three are <unk>, <s> and </s>, then the 256
 * bytes; llama2.c writes ▁ as a plain space and line breaks around <s> and </s>. */
#include "export/vocab_read.h"
#include "text/spm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNK = 0, BOS = 1, EOS = 2, FIRST_BYTE = 3, N_BYTES = 256 };

static const char space[] = "\xe2\x96\x81"; /* ▁ */
enum { SPACE_BYTES = 3 };

typedef struct entry {
    float score;
    const char *bytes;
    size_t size;
} entry;

static cca_status truncated(const cca_vocab *vocab, int64_t id, cca_error *err) {
    return cca_fail(err, CCA_BAD_MODEL,
                    "%s: not a SentencePiece model, and broken as a llama2.c tokenizer: token %lld",
                    vocab->path, (long long)id);
}

/* The token at *at, which moves behind it; false where the file is broken. */
static bool next_entry(entry *out, const cca_mapping *file, size_t *at) {
    uint32_t size;
    if (file->size - *at < sizeof out->score + sizeof size) return false;
    memcpy(&out->score, file->data + *at, sizeof out->score);
    memcpy(&size, file->data + *at + sizeof out->score, sizeof size);
    *at += sizeof out->score + sizeof size;
    if (size > file->size - *at || !isfinite(out->score)) return false;
    out->bytes = (const char *)file->data + *at;
    out->size = size;
    *at += size;
    return true;
}

static void trim_newlines(entry *e) {
    while (e->size > 0 && e->bytes[0] == '\n') {
        e->bytes++;
        e->size--;
    }
    while (e->size > 0 && e->bytes[e->size - 1] == '\n') e->size--;
}

static bool is_text(const entry *e, const char *text) {
    return e->size == strlen(text) && memcmp(e->bytes, text, e->size) == 0;
}

static cca_spm_type type_of(const entry *e, int64_t id) {
    char byte[8];
    if (id == UNK) return CCA_SPM_UNKNOWN;
    if (id == BOS || id == EOS) return CCA_SPM_CONTROL;
    if (id >= FIRST_BYTE + N_BYTES) return CCA_SPM_NORMAL;
    snprintf(byte, sizeof byte, "<0x%02X>", (unsigned)(id - FIRST_BYTE));
    return is_text(e, byte) ? CCA_SPM_BYTE : CCA_SPM_NORMAL;
}

static cca_status check_special(const cca_vocab *vocab, const entry *e, int64_t id,
                                cca_error *err) {
    static const char *const names[] = {"<unk>", "<s>", "</s>"};
    if (id > EOS || is_text(e, names[id])) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL, "%s: token %lld is not %s", vocab->path, (long long)id,
                    names[id]);
}

/* Appends the bytes with ▁ for spaces at out and returns where they end. */
static char *copy_piece(char *out, const entry *e) {
    for (size_t i = 0; i < e->size; i++) {
        if (e->bytes[i] == ' ') {
            memcpy(out, space, SPACE_BYTES);
            out += SPACE_BYTES;
        } else {
            *out++ = e->bytes[i];
        }
    }
    return out;
}

cca_status cca_vocab_read_llama2c(cca_vocab *vocab, cca_error *err) {
    const cca_mapping *file = &vocab->file;
    const size_t start = sizeof(int32_t);
    int64_t n = 0;
    entry e;
    if (file->size < start) return truncated(vocab, 0, err);
    for (size_t at = start; at < file->size; n++) {
        if (n == INT32_MAX || !next_entry(&e, file, &at)) return truncated(vocab, n, err);
    }
    if (n < FIRST_BYTE) return truncated(vocab, n, err);
    cca_status status = cca_vocab_alloc(vocab, n, err);
    if (status) return status;
    char *text = vocab->text = malloc(file->size * SPACE_BYTES);
    if (!text) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to read it", vocab->path);
    size_t at = start;
    for (int64_t id = 0; id < n && !status; id++) {
        (void)next_entry(&e, file, &at);
        if (id == BOS || id == EOS) trim_newlines(&e);
        status = check_special(vocab, &e, id, err);
        char *end = copy_piece(text, &e);
        vocab->pieces[id] = (cca_gguf_string){text, (size_t)(end - text)};
        vocab->scores[id] = e.score;
        vocab->types[id] = type_of(&e, id);
        text = end;
    }
    vocab->n = vocab->n_own = n;
    vocab->dummy_prefix = true;
    vocab->is_bpe = true;
    return status;
}
