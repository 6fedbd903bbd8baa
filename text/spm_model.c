/* SentencePiece's model file: a protocol-buffers message (sentencepiece_model.proto), read and
 * written by hand. */
#include "text/spm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fields of the messages that encoding needs. */
enum {
    MODEL_PIECES = 1,
    MODEL_TRAINER = 2,
    MODEL_NORMALIZER = 3,
    PIECE_TEXT = 1,
    PIECE_SCORE = 2,
    PIECE_TYPE = 3,
    TRAINER_KIND = 3,
    TRAINER_SPACE_SUFFIX = 24,
    TRAINER_BYTE_FALLBACK = 35,
    TRAINER_UNK_SURFACE = 44,
    TRAINER_BOS = 46,
    TRAINER_EOS = 47,
    TRAINER_PAD = 48,
    NORMALIZER_CHARSMAP = 2,
    NORMALIZER_DUMMY_PREFIX = 3,
    NORMALIZER_EXTRA_SPACES = 4,
    NORMALIZER_ESCAPE = 5,
};

/* How a field's value is stored. */
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* The library goes through user-defined pieces that start a text with an array of 64. */
enum { MAX_NESTED_USER_PIECES = 64 };

static cca_spm_text text_of(const char *literal) {
    return (cca_spm_text){literal, strlen(literal)};
}

static bool same_text(cca_spm_text a, cca_spm_text b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.bytes, b.bytes, a.size) == 0);
}

/* ---- reading ---- */

typedef struct reader {
    const uint8_t *start, *p, *end; /* start: of the whole file, for offsets in messages */
    const char *name;
    cca_error *err;
} reader;

typedef struct field {
    uint32_t number, wire;
    uint64_t value;     /* WIRE_VARINT, WIRE_32, WIRE_64 */
    cca_spm_text bytes; /* WIRE_BYTES */
} field;

static cca_status broken(const reader *in, const char *what) {
    return cca_fail(in->err, CCA_BAD_MODEL, "%s: damaged SentencePiece model: %s at byte %zu",
                    in->name, what, (size_t)(in->p - in->start));
}

static bool read_varint(reader *in, uint64_t *out) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (in->p == in->end) return false;
        uint8_t byte = *in->p++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = value;
            return true;
        }
    }
    return false;
}

static bool read_little_endian(reader *in, uint64_t *out, size_t n) {
    if ((size_t)(in->end - in->p) < n) return false;
    *out = 0;
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)in->p[i] << (8 * i);
    in->p += n;
    return true;
}

static cca_status read_field(reader *in, field *out) {
    uint64_t tag, size;
    *out = (field){0};
    if (!read_varint(in, &tag) || tag >> 3 == 0 || tag >> 32 != 0) return broken(in, "bad field");
    out->number = (uint32_t)(tag >> 3);
    out->wire = (uint32_t)(tag & 7);
    bool good = false;
    if (out->wire == WIRE_VARINT) good = read_varint(in, &out->value);
    if (out->wire == WIRE_64) good = read_little_endian(in, &out->value, 8);
    if (out->wire == WIRE_32) good = read_little_endian(in, &out->value, 4);
    if (out->wire == WIRE_BYTES && read_varint(in, &size) && size <= (size_t)(in->end - in->p)) {
        out->bytes = (cca_spm_text){(const char *)in->p, (size_t)size};
        in->p += size;
        good = true;
    }
    return good ? CCA_OK : broken(in, "bad or truncated field");
}

/* The reader of a field that holds a message. */
static reader inside(const reader *in, const field *f) {
    reader r = *in;
    r.p = (const uint8_t *)f->bytes.bytes;
    r.end = r.p + f->bytes.size;
    return r;
}

static cca_status read_piece(cca_spm_model *model, reader in) {
    cca_spm_piece piece = {.type = CCA_SPM_NORMAL};
    while (in.p < in.end) {
        field f;
        cca_status status = read_field(&in, &f);
        if (status) return status;
        uint32_t expected = f.number == PIECE_TEXT    ? WIRE_BYTES
                            : f.number == PIECE_SCORE ? WIRE_32
                            : f.number == PIECE_TYPE  ? WIRE_VARINT
                                                      : f.wire;
        if (f.wire != expected) return broken(&in, "piece with a field of the wrong type");
        if (f.number == PIECE_TEXT) piece.text = f.bytes;
        if (f.number == PIECE_SCORE) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&piece.score, &bits, sizeof bits);
        }
        if (f.number == PIECE_TYPE) {
            if (f.value < CCA_SPM_NORMAL || f.value > CCA_SPM_BYTE) {
                return broken(&in, "unknown type of a piece");
            }
            piece.type = (cca_spm_type)f.value;
        }
    }
    if (cca_spm_model_push(model, piece)) return CCA_OK;
    return cca_fail(in.err, CCA_NO_MEMORY, "%s: no memory for %zu pieces", in.name,
                    model->n_pieces + 1);
}

/* The names that the model gives to its special pieces. */
typedef struct special_names {
    cca_spm_text bos, eos, pad;
} special_names;

static cca_status read_trainer(cca_spm_model *model, special_names *names, reader in) {
    while (in.p < in.end) {
        field f;
        cca_status status = read_field(&in, &f);
        if (status) return status;
        cca_spm_text *text = f.number == TRAINER_BOS           ? &names->bos
                             : f.number == TRAINER_EOS         ? &names->eos
                             : f.number == TRAINER_PAD         ? &names->pad
                             : f.number == TRAINER_UNK_SURFACE ? &model->unk_surface
                                                               : NULL;
        bool number = f.number == TRAINER_KIND || f.number == TRAINER_SPACE_SUFFIX ||
                      f.number == TRAINER_BYTE_FALLBACK;
        if ((text && f.wire != WIRE_BYTES) || (number && f.wire != WIRE_VARINT)) {
            return broken(&in, "trainer_spec with a field of the wrong type");
        }
        if (text) *text = f.bytes;
        if (f.number == TRAINER_SPACE_SUFFIX) model->whitespace_suffix = f.value != 0;
        if (f.number == TRAINER_BYTE_FALLBACK) model->byte_fallback = f.value != 0;
        if (f.number == TRAINER_KIND && f.value != CCA_SPM_UNIGRAM && f.value != CCA_SPM_BPE) {
            return cca_fail(in.err, CCA_BAD_MODEL,
                            "%s: SentencePiece model of type %llu, which is neither unigram (1) "
                            "nor BPE (2)",
                            in.name, (unsigned long long)f.value);
        }
        if (f.number == TRAINER_KIND) model->kind = (cca_spm_kind)f.value;
    }
    return CCA_OK;
}

static cca_status read_normalizer(cca_spm_model *model, reader in) {
    while (in.p < in.end) {
        field f;
        cca_status status = read_field(&in, &f);
        if (status) return status;
        bool *flag = f.number == NORMALIZER_DUMMY_PREFIX   ? &model->add_dummy_prefix
                     : f.number == NORMALIZER_EXTRA_SPACES ? &model->remove_extra_spaces
                     : f.number == NORMALIZER_ESCAPE       ? &model->escape_spaces
                                                           : NULL;
        bool rules = f.number == NORMALIZER_CHARSMAP;
        if ((rules && f.wire != WIRE_BYTES) || (flag && f.wire != WIRE_VARINT)) {
            return broken(&in, "normalizer_spec with a field of the wrong type");
        }
        if (rules) model->charsmap = f.bytes;
        if (flag) *flag = f.value != 0;
    }
    return CCA_OK;
}

static int32_t find_control(const cca_spm_model *model, cca_spm_text name) {
    for (size_t i = 0; i < model->n_pieces; i++) {
        if (model->pieces[i].type == CCA_SPM_CONTROL && same_text(model->pieces[i].text, name)) {
            return (int32_t)i;
        }
    }
    return -1;
}

static cca_status read_model(cca_spm_model *out, reader in) {
    special_names names = {text_of("<s>"), text_of("</s>"), text_of("<pad>")};
    bool trainer = false, normalizer = false;
    /* The defaults of the format, where the file says nothing. */
    out->kind = CCA_SPM_UNIGRAM;
    out->remove_extra_spaces = true;
    while (in.p < in.end) {
        field f;
        cca_status status = read_field(&in, &f);
        if (status) return status;
        if (f.number > MODEL_NORMALIZER) continue;
        if (f.wire != WIRE_BYTES) return broken(&in, "field of the wrong type");
        if (f.number == MODEL_PIECES) status = read_piece(out, inside(&in, &f));
        if (f.number == MODEL_TRAINER) status = read_trainer(out, &names, inside(&in, &f));
        if (f.number == MODEL_NORMALIZER) status = read_normalizer(out, inside(&in, &f));
        if (status) return status;
        trainer |= f.number == MODEL_TRAINER;
        normalizer |= f.number == MODEL_NORMALIZER;
    }
    /* They stand behind the pieces: a file cut off between two fields lacks them. */
    if (!trainer || !normalizer) {
        return broken(&in, trainer ? "no normalizer_spec" : "no trainer_spec");
    }
    out->bos = find_control(out, names.bos);
    out->eos = find_control(out, names.eos);
    out->pad = find_control(out, names.pad);
    return cca_spm_model_check(out, in.name, in.err);
}

cca_status cca_spm_model_read(cca_spm_model *out, const void *bytes, size_t size, const char *name,
                              cca_error *err) {
    const uint8_t *p = bytes;
    cca_spm_model_init(out);
    cca_status status = read_model(out, (reader){p, p, p + size, name, err});
    if (status) cca_spm_model_free(out);
    return status;
}

void cca_spm_model_init(cca_spm_model *out) {
    *out = (cca_spm_model){
        .kind = CCA_SPM_BPE,
        .add_dummy_prefix = true,
        .escape_spaces = true,
        .unk_surface = text_of(" \xe2\x81\x87 "),
        .bos = -1,
        .eos = -1,
        .unk = -1,
        .pad = -1,
    };
}

bool cca_spm_model_push(cca_spm_model *model, cca_spm_piece piece) {
    if (model->n_pieces == model->capacity) {
        size_t capacity = model->capacity ? model->capacity : 512, bytes;
        if (!cca_mul(&capacity, capacity, 2) || !cca_mul(&bytes, capacity, sizeof piece)) {
            return false;
        }
        cca_spm_piece *pieces = realloc(model->pieces, bytes);
        if (!pieces) return false;
        model->pieces = pieces;
        model->capacity = capacity;
    }
    model->pieces[model->n_pieces++] = piece;
    return true;
}

void cca_spm_model_free(cca_spm_model *model) {
    free(model->pieces);
    cca_spm_model_init(model);
}

/* ---- checking ---- */

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int cca_spm_byte_value(cca_spm_text text) {
    if (text.size != 6 || memcmp(text.bytes, "<0x", 3) != 0 || text.bytes[5] != '>') return -1;
    int high = hex_digit(text.bytes[3]), low = hex_digit(text.bytes[4]);
    return high >= 0 && low >= 0 ? high * 16 + low : -1;
}

static cca_status check_piece(const cca_spm_model *model, size_t i, const char *name,
                              cca_error *err) {
    const cca_spm_piece *piece = &model->pieces[i];
    bool matched = piece->type == CCA_SPM_NORMAL || piece->type == CCA_SPM_USER ||
                   piece->type == CCA_SPM_UNUSED;
    /* Some of the library's tables hold C strings. */
    bool as_c_string = piece->type == CCA_SPM_USER || (matched && model->kind == CCA_SPM_UNIGRAM);
    if (!isfinite(piece->score)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: the score of piece %zu is not finite", name, i);
    }
    const cca_spm_text text = piece->text; /* an empty one has no bytes */
    if (as_c_string && text.size > 0 && memchr(text.bytes, 0, text.size)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: piece %zu holds a NUL byte", name, i);
    }
    if (piece->type == CCA_SPM_BYTE && cca_spm_byte_value(piece->text) < 0) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: byte piece %zu is not of the form <0x0A>", name,
                        i);
    }
    return CCA_OK;
}

static cca_status check_pieces(cca_spm_model *model, const char *name, cca_error *err) {
    bool bytes[256] = {false};
    size_t n_bytes = 0;
    model->unk = -1;
    for (size_t i = 0; i < model->n_pieces; i++) {
        cca_status status = check_piece(model, i, name, err);
        if (status) return status;
        cca_spm_type type = model->pieces[i].type;
        if (type == CCA_SPM_UNKNOWN) {
            if (model->unk >= 0) {
                return cca_fail(err, CCA_BAD_MODEL, "%s: both piece %d and piece %zu are unknown",
                                name, model->unk, i);
            }
            model->unk = (int32_t)i;
        }
        if (type == CCA_SPM_BYTE) {
            int value = cca_spm_byte_value(model->pieces[i].text);
            n_bytes += !bytes[value];
            bytes[value] = true;
        }
    }
    if (model->unk < 0) return cca_fail(err, CCA_BAD_MODEL, "%s: no unknown piece", name);
    if (n_bytes != (model->byte_fallback ? 256 : 0)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: %zu byte pieces where there must be %d", name,
                        n_bytes, model->byte_fallback ? 256 : 0);
    }
    return CCA_OK;
}

static int by_text(const void *a, const void *b) {
    const cca_spm_text *x = a, *y = b;
    const size_t common = x->size < y->size ? x->size : y->size;
    int order = common > 0 ? memcmp(x->bytes, y->bytes, common) : 0;
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

/* Sorted, each piece stands behind the pieces that it starts with, which form a chain. */
static bool user_pieces_nest_too_deep(cca_spm_text *texts, size_t n) {
    const cca_spm_text *chain[MAX_NESTED_USER_PIECES];
    size_t depth = 0;
    qsort(texts, n, sizeof *texts, by_text);
    for (size_t i = 0; i < n; i++) {
        while (depth > 0 &&
               (chain[depth - 1]->size > texts[i].size ||
                (chain[depth - 1]->size > 0 &&
                 memcmp(chain[depth - 1]->bytes, texts[i].bytes, chain[depth - 1]->size) != 0))) {
            depth--;
        }
        if (depth == MAX_NESTED_USER_PIECES) return true;
        chain[depth++] = &texts[i];
    }
    return false;
}

static cca_status check_user_pieces(const cca_spm_model *model, const char *name, cca_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < model->n_pieces; i++) n += model->pieces[i].type == CCA_SPM_USER;
    if (n == 0) return CCA_OK;
    cca_spm_text *texts = malloc(n * sizeof *texts);
    if (!texts) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for %zu pieces", name, n);
    n = 0;
    for (size_t i = 0; i < model->n_pieces; i++) {
        bool user = model->pieces[i].type == CCA_SPM_USER && model->pieces[i].text.size > 0;
        if (user) texts[n++] = model->pieces[i].text;
    }
    bool too_deep = user_pieces_nest_too_deep(texts, n);
    free(texts);
    if (!too_deep) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL,
                    "%s: more than %d user-defined pieces each of which starts with the one before",
                    name, MAX_NESTED_USER_PIECES);
}

cca_status cca_spm_model_check(cca_spm_model *model, const char *name, cca_error *err) {
    if (model->n_pieces == 0 || model->n_pieces > INT32_MAX) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: a vocabulary of %zu pieces", name,
                        model->n_pieces);
    }
    cca_status status = check_pieces(model, name, err);
    if (!status) status = check_user_pieces(model, name, err);
    cca_spm_plain plain;
    if (!status) status = cca_spm_charsmap_check(&plain, model->charsmap, name, err);
    if (status) return status;
    if (model->bos < 0) model->bos = find_control(model, text_of("<s>"));
    if (model->eos < 0) model->eos = find_control(model, text_of("</s>"));
    if (model->pad < 0) model->pad = find_control(model, text_of("<pad>"));
    return CCA_OK;
}

/* ---- writing ---- */

typedef struct writer {
    uint8_t *bytes;
    size_t size, capacity;
    bool failed;
} writer;

static void put_bytes(writer *out, const void *bytes, size_t size) {
    size_t needed, doubled;
    if (out->failed || size == 0) return;
    if (!cca_add(&needed, out->size, size) || !cca_mul(&doubled, needed, 2)) {
        out->failed = true;
        return;
    }
    if (!out->bytes || needed > out->capacity) {
        uint8_t *grown = realloc(out->bytes, doubled);
        if (!grown) {
            out->failed = true;
            return;
        }
        out->bytes = grown;
        out->capacity = doubled;
    }
    if (size > 0) memcpy(out->bytes + out->size, bytes, size);
    out->size = needed;
}

static void put_varint(writer *out, uint64_t value) {
    uint8_t bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value);
    put_bytes(out, bytes, n);
}

static void put_number(writer *out, uint32_t number, uint64_t value) {
    put_varint(out, number << 3 | WIRE_VARINT);
    put_varint(out, value);
}

static void put_text(writer *out, uint32_t number, cca_spm_text text) {
    put_varint(out, number << 3 | WIRE_BYTES);
    put_varint(out, text.size);
    put_bytes(out, text.bytes, text.size);
}

/* Puts what part holds as the message of a field, and empties part. */
static void put_message(writer *out, uint32_t number, writer *part) {
    put_text(out, number, (cca_spm_text){(const char *)part->bytes, part->size});
    out->failed |= part->failed;
    part->size = 0;
}

/* The library takes no empty piece. Here it becomes a control piece, which stands in no text, with
 * a name that no other has: of a code point that is no character, and its number. */
static void put_empty_piece(writer *out, size_t i, cca_spm_type type) {
    char name[32];
    int size = snprintf(name, sizeof name, "\xef\xb7\x90%zu", i);
    put_text(out, PIECE_TEXT, (cca_spm_text){name, (size_t)size});
    put_number(out, PIECE_TYPE, type == CCA_SPM_UNKNOWN ? type : CCA_SPM_CONTROL);
}

static void put_piece(writer *out, const cca_spm_piece *piece) {
    uint32_t bits;
    memcpy(&bits, &piece->score, sizeof bits);
    uint8_t score[4];
    for (int i = 0; i < 4; i++) score[i] = (uint8_t)(bits >> (8 * i));
    put_text(out, PIECE_TEXT, piece->text);
    put_varint(out, PIECE_SCORE << 3 | WIRE_32);
    put_bytes(out, score, sizeof score);
    put_number(out, PIECE_TYPE, piece->type);
}

cca_status cca_spm_model_write(uint8_t **out, size_t *size, const cca_spm_model *model,
                               cca_error *err) {
    writer file = {0}, part = {0};
    for (size_t i = 0; i < model->n_pieces; i++) {
        if (model->pieces[i].text.size > 0) {
            put_piece(&part, &model->pieces[i]);
        } else {
            put_empty_piece(&part, i, model->pieces[i].type);
        }
        put_message(&file, MODEL_PIECES, &part);
    }
    put_number(&part, TRAINER_KIND, model->kind);
    put_number(&part, TRAINER_SPACE_SUFFIX, model->whitespace_suffix);
    put_number(&part, TRAINER_BYTE_FALLBACK, model->byte_fallback);
    put_message(&file, MODEL_TRAINER, &part);
    put_text(&part, NORMALIZER_CHARSMAP, model->charsmap);
    put_number(&part, NORMALIZER_DUMMY_PREFIX, model->add_dummy_prefix);
    put_number(&part, NORMALIZER_EXTRA_SPACES, model->remove_extra_spaces);
    put_number(&part, NORMALIZER_ESCAPE, model->escape_spaces);
    put_message(&file, MODEL_NORMALIZER, &part);
    free(part.bytes);
    if (!file.failed) {
        *out = file.bytes;
        *size = file.size;
        return CCA_OK;
    }
    free(file.bytes);
    *out = NULL;
    *size = 0;
    return cca_fail(err, CCA_NO_MEMORY, "no memory for a SentencePiece model of %zu pieces",
                    model->n_pieces);
}
