/* Long texts through a library that wants 80 to 200 bytes of memory per byte of text: they are
 * encoded in pieces, cut where that cannot change the ids.
 *
 * BPE merges neighbours into pieces of the vocabulary. Where no piece has the characters a and b
 * side by side, nothing is ever merged across the border of a text's a and b, and what lies on
 * its two sides is independent. In nearly all vocabularies the border between words is such a
 * place; in texts without spaces (Chinese, base64) there are many others. Unigram models add up
 * scores in floats over the whole text, so that every cut may change a rounding: none is made. */
#include "base/available_memory.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "text/spm.h"

#include <stdlib.h>
#include <string.h>

enum {
    PIECE_BYTES = 1 << 14,
    PAIR_BITS = 20, /* of the table of pairs: 128 KB */
};

/* What the library is given in one go, and what it takes for each byte of it: minutes cannot be
 * interrupted, and what it is refused it does not tell. */
static const size_t max_run = (size_t)1 << 26, bytes_a_byte = 200;

typedef enum cut_rule {
    CUT_NOWHERE,
    CUT_ANYWHERE,      /* no normalisation: characters stay as they are */
    CUT_BETWEEN_PLAIN, /* between plain characters, or in front of one space between them */
} cut_rule;

struct cca_spm {
    cca_spm_library *whole; /* the model as it is: with the dummy prefix, if it has one */
    cca_spm_library *later; /* without; NULL where that makes no difference */
    cut_rule cut;
    bool trims; /* a piece loses its leading space, and gets it back as the dummy prefix */
    bool byte_fallback;
    int32_t unk;
    cca_spm_plain plain;
    uint64_t pairs[(1 << PAIR_BITS) / 64]; /* neighbours in a piece; may have some more */
};

/* ---- characters ---- */

/* The character at text + at; the same one for a space and what the library makes of it. U+FFFD
 * (one byte) where there is no UTF-8. */
static uint32_t character_at(const char *text, size_t size, size_t at, size_t *length) {
    uint32_t c;
    if (cca_utf8_next(&c, length, text + at, size - at) != CCA_UTF8_WHOLE) *length = 1;
    return c == 0x2581 ? ' ' : c;
}

static size_t pair_slot(uint32_t a, uint32_t b) {
    uint64_t pair = (uint64_t)a << 32 | b;
    return (size_t)(cca_hash_number(pair) >> (64 - PAIR_BITS));
}

static void note_pairs(cca_spm *spm, cca_spm_text piece) {
    uint32_t before = 0;
    size_t length;
    for (size_t i = 0; i < piece.size; i += length) {
        uint32_t c = character_at(piece.bytes, piece.size, i, &length);
        size_t slot = pair_slot(before, c);
        if (i > 0) spm->pairs[slot / 64] |= (uint64_t)1 << (slot % 64);
        before = c;
    }
}

static bool in_a_piece(const cca_spm *spm, uint32_t a, uint32_t b) {
    size_t slot = pair_slot(a, b);
    return (spm->pairs[slot / 64] >> (slot % 64)) & 1;
}

/* ---- cutting ---- */

/* Whether the first byte of the character at text + at, which is no space, is plain. */
static bool plain_at(const cca_spm *spm, const char *text, size_t at) {
    return text[at] != ' ' && spm->plain.is[(uint8_t)text[at]];
}

static bool may_cut(const cca_spm *spm, const char *text, size_t size, size_t at) {
    size_t length, before = at - 1;
    while (before > 0 && cca_utf8_continues(text[before])) before--;
    if (cca_utf8_continues(text[at])) return false;
    uint32_t a = character_at(text, at, before, &length);
    uint32_t b = character_at(text, size, at, &length);
    if (in_a_piece(spm, a, b)) return false;
    if (spm->cut == CUT_ANYWHERE) return true;
    if (a == ' ' || !plain_at(spm, text, before)) return false;
    if (text[at] != ' ') return b != ' ' && plain_at(spm, text, at);
    return spm->plain.is[' '] && at + 1 < size && plain_at(spm, text, at + 1);
}

/* The end of the piece that starts at from: the last possible one in half a piece before the
 * wanted end, else the first one behind it. */
static size_t find_end(const cca_spm *spm, const char *text, size_t size, size_t from) {
    if (spm->cut == CUT_NOWHERE || size - from <= PIECE_BYTES) return size;
    size_t wanted = from + PIECE_BYTES;
    for (size_t at = wanted; at > wanted - PIECE_BYTES / 2; at--) {
        if (may_cut(spm, text, size, at)) return at;
    }
    for (size_t at = wanted + 1; at < size; at++) {
        if (may_cut(spm, text, size, at)) return at;
    }
    return size;
}

static void choose_cuts(cca_spm *spm, const cca_spm_model *model) {
    bool changes = model->charsmap.size > 0 || model->remove_extra_spaces;
    spm->trims = model->remove_extra_spaces;
    spm->cut = changes ? CUT_BETWEEN_PLAIN : CUT_ANYWHERE;
    if (model->kind != CCA_SPM_BPE || model->whitespace_suffix ||
        (model->remove_extra_spaces && !model->add_dummy_prefix)) {
        spm->cut = CUT_NOWHERE;
    }
    for (size_t i = 0; i < model->n_pieces; i++) {
        cca_spm_type type = model->pieces[i].type;
        if (type == CCA_SPM_NORMAL || type == CCA_SPM_USER || type == CCA_SPM_UNUSED) {
            note_pairs(spm, model->pieces[i].text);
        }
        /* Would be found in front of the trimming. */
        cca_spm_text text = model->pieces[i].text;
        if (type == CCA_SPM_USER && spm->trims && text.size > 0 && text.bytes[0] == ' ') {
            spm->cut = CUT_NOWHERE;
        }
    }
}

/* ---- the encoder ---- */

static cca_status open_library(cca_spm_library **out, const cca_spm_model *model, const char *name,
                               cca_error *err) {
    uint8_t *bytes;
    size_t size;
    cca_status status = cca_spm_model_write(&bytes, &size, model, err);
    if (status) return status;
    if (size > INT32_MAX / 2) {
        status = cca_fail(err, CCA_BAD_MODEL, "%s: a SentencePiece model of %zu bytes", name, size);
    } else {
        status = cca_spm_library_open(out, bytes, size, name, err);
    }
    free(bytes);
    return status;
}

cca_status cca_spm_open(cca_spm **out, const cca_spm_model *model, const char *name,
                        cca_error *err) {
    *out = NULL;
    cca_spm *spm = calloc(1, sizeof *spm);
    if (!spm) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for a tokenizer", name);
    spm->byte_fallback = model->byte_fallback;
    spm->unk = model->unk;
    cca_status status = cca_spm_charsmap_check(&spm->plain, model->charsmap, name, err);
    if (!status) status = open_library(&spm->whole, model, name, err);
    if (!status && model->add_dummy_prefix) {
        cca_spm_model later = *model;
        later.add_dummy_prefix = false;
        status = open_library(&spm->later, &later, name, err);
    }
    if (status) {
        cca_spm_close(spm);
        return status;
    }
    choose_cuts(spm, model);
    *out = spm;
    return CCA_OK;
}

void cca_spm_close(cca_spm *spm) {
    if (!spm) return;
    cca_spm_library_close(spm->whole);
    cca_spm_library_close(spm->later);
    free(spm);
}

/* The library makes one unknown piece of several in a row: so do we across a cut, in front of
 * token seam. */
static void join_unknown(cca_tokens *tokens, const cca_spm *spm, size_t seam) {
    if (spm->byte_fallback || seam == tokens->n) return;
    if (tokens->ids[seam] != spm->unk || tokens->ids[seam - 1] != spm->unk) return;
    tokens->n--;
    for (size_t i = seam; i < tokens->n; i++) {
        tokens->ids[i] = tokens->ids[i + 1];
        tokens->offsets[i] = tokens->offsets[i + 1];
    }
}

/* Whether the library can be given so many bytes. */
static cca_status check_run(size_t n, uint64_t at, cca_error *err) {
    if (n > max_run) {
        return cca_fail(err, CCA_NO_FIT,
                        "%zu bytes of text from byte %llu on have no place to cut them for "
                        "SentencePiece, which takes %zu",
                        n, (unsigned long long)at, max_run);
    }
    if (cca_memory_has(n * bytes_a_byte)) return CCA_OK;
    return cca_fail(err, CCA_NO_MEMORY,
                    "%zu bytes of text from byte %llu on have no place to cut them for "
                    "SentencePiece, which needs %zu bytes of memory then; there are not so many",
                    n, (unsigned long long)at, n * bytes_a_byte);
}

cca_status cca_spm_encode(cca_tokens *out, const cca_spm *spm, const char *text, size_t size,
                          uint64_t base, bool start, cca_error *err) {
    size_t before = out->n;
    for (size_t from = 0, end; from < size; from = end) {
        end = find_end(spm, text, size, from);
        bool trimmed = from > 0 && spm->trims && text[from] == ' ';
        bool prefixed = from == 0 ? start : trimmed;
        uint64_t at = base + from;
        size_t seam = out->n;
        cca_status status = check_run(end - from, at, err);
        if (!status) {
            status = cca_spm_library_encode(out, prefixed || !spm->later ? spm->whole : spm->later,
                                            text + from, end - from, at, err);
        }
        if (status) {
            out->n = before;
            return status;
        }
        /* A trimmed space counts for the piece that it became part of. */
        if (trimmed && out->n > seam) out->offsets[seam] = at;
        if (seam > before) join_unknown(out, spm, seam);
    }
    return CCA_OK;
}
