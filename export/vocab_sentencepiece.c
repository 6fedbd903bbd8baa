/* Just enough of the protocol buffer of a SentencePiece model to list its pieces. */
#include "export/vocab.h"

#include <math.h>
#include <string.h>

/* Numbers of the fields that are read. */
enum { MODEL_PIECE = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_TYPE = 3, TRAINER_UNK = 40, TRAINER_BOS = 41, TRAINER_EOS = 42, TRAINER_PAD = 43 };
enum { NORMALIZER_DUMMY_PREFIX = 3, NORMALIZER_EXTRA_SPACES = 4 };
enum { TYPE_BPE = 2 };

typedef enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 } wire;

typedef struct field {
    uint64_t number;
    uint32_t wire;
    uint64_t value;       /* of the three kinds of numbers */
    const uint8_t *bytes; /* of WIRE_BYTES */
    size_t size;
} field;

typedef struct message {
    const uint8_t *at, *end;
    bool broken;
} message;

static uint64_t take_varint(message *m) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        uint8_t byte = *m->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
    }
    m->broken = true;
    return 0;
}

static const uint8_t *take_bytes(message *m, uint64_t n) {
    const uint8_t *bytes = m->at;
    if (n > (uint64_t)(m->end - m->at)) {
        m->broken = true;
        return NULL;
    }
    m->at += n;
    return bytes;
}

static uint64_t take_fixed(message *m, size_t n) {
    uint64_t value = 0;
    const uint8_t *bytes = take_bytes(m, n);
    if (bytes) memcpy(&value, bytes, n);
    return value;
}

/* The next field; false at the end and where the message is broken. */
static bool next_field(field *out, message *m) {
    if (m->broken || m->at == m->end) return false;
    uint64_t tag = take_varint(m);
    *out = (field){.number = tag >> 3, .wire = (uint32_t)(tag & 7)};
    switch (out->wire) {
    case WIRE_VARINT: out->value = take_varint(m); break;
    case WIRE_64: out->value = take_fixed(m, 8); break;
    case WIRE_32: out->value = take_fixed(m, 4); break;
    case WIRE_BYTES:
        out->size = take_varint(m);
        out->bytes = take_bytes(m, out->size);
        break;
    default: /* groups do not occur */ m->broken = true;
    }
    if (out->number == 0) m->broken = true;
    return !m->broken;
}

static message message_of(const field *f) {
    return (message){f->bytes, f->bytes + f->size, false};
}

static cca_status broken(const cca_vocab *vocab, const message *m, cca_error *err) {
    return cca_fail(err, CCA_BAD_MODEL, "%s: broken SentencePiece model near offset %zu",
                    vocab->path, (size_t)(m->at - vocab->file.data));
}

static cca_status bad_piece(const cca_vocab *vocab, const char *what, cca_error *err) {
    return cca_fail(err, CCA_BAD_MODEL, "%s: piece %lld: %s", vocab->path, (long long)vocab->n,
                    what);
}

static cca_status add_piece(cca_vocab *vocab, const field *entry, cca_error *err) {
    field f;
    message m = message_of(entry);
    cca_gguf_string text = {0};
    float score = 0;
    uint64_t type = CCA_PIECE_NORMAL;
    while (next_field(&f, &m)) {
        if (f.number == PIECE_TEXT && f.wire == WIRE_BYTES) {
            text = (cca_gguf_string){(const char *)f.bytes, f.size};
        } else if (f.number == PIECE_SCORE && f.wire == WIRE_32) {
            score = cca_float_of_bits((uint32_t)f.value);
        } else if (f.number == PIECE_TYPE && f.wire == WIRE_VARINT) {
            type = f.value;
        }
    }
    if (m.broken) return broken(vocab, &m, err);
    if (text.size == 0) return bad_piece(vocab, "it is empty", err);
    if (!isfinite(score)) return bad_piece(vocab, "its score is not finite", err);
    if (type < CCA_PIECE_NORMAL || type > CCA_PIECE_BYTE) {
        return bad_piece(vocab, "its type is not known", err);
    }
    vocab->pieces[vocab->n] = text;
    vocab->scores[vocab->n] = score;
    vocab->types[vocab->n] = (int32_t)type;
    vocab->n++;
    return CCA_OK;
}

/* An int32, which is below zero where there is no such token. */
static int32_t id_of(const field *f) {
    int32_t id = (int32_t)(uint32_t)f->value;
    return id < 0 ? -1 : id;
}

static cca_status read_trainer(cca_vocab *vocab, const field *entry, cca_error *err) {
    field f;
    message m = message_of(entry);
    while (next_field(&f, &m)) {
        if (f.wire != WIRE_VARINT) continue;
        if (f.number == TRAINER_TYPE) vocab->is_bpe = f.value == TYPE_BPE;
        if (f.number == TRAINER_UNK) vocab->unk = id_of(&f);
        if (f.number == TRAINER_BOS) vocab->bos = id_of(&f);
        if (f.number == TRAINER_EOS) vocab->eos = id_of(&f);
        if (f.number == TRAINER_PAD) vocab->pad = id_of(&f);
    }
    return m.broken ? broken(vocab, &m, err) : CCA_OK;
}

static cca_status read_normalizer(cca_vocab *vocab, const field *entry, cca_error *err) {
    field f;
    message m = message_of(entry);
    while (next_field(&f, &m)) {
        if (f.wire != WIRE_VARINT) continue;
        if (f.number == NORMALIZER_DUMMY_PREFIX) vocab->dummy_prefix = f.value != 0;
        if (f.number == NORMALIZER_EXTRA_SPACES) vocab->remove_extra_spaces = f.value != 0;
    }
    return m.broken ? broken(vocab, &m, err) : CCA_OK;
}

cca_status cca_vocab_read_sentencepiece(cca_vocab *vocab, cca_error *err) {
    const uint8_t *data = vocab->file.data;
    const message whole = {data, data + vocab->file.size, false};
    message m = whole;
    field f;
    int64_t n = 0;
    while (next_field(&f, &m)) n += f.number == MODEL_PIECE;
    if (m.broken) return broken(vocab, &m, err);
    if (n > INT32_MAX) return cca_fail(err, CCA_BAD_MODEL, "%s: too many pieces", vocab->path);
    cca_status status = cca_vocab_alloc(vocab, n, err);

    /* Where the file says nothing, both are on. */
    vocab->dummy_prefix = true;
    vocab->remove_extra_spaces = true;
    m = whole;
    while (status == CCA_OK && next_field(&f, &m)) {
        if (f.number > MODEL_NORMALIZER) continue;
        if (f.wire != WIRE_BYTES) return broken(vocab, &m, err);
        if (f.number == MODEL_PIECE) status = add_piece(vocab, &f, err);
        if (f.number == MODEL_TRAINER) status = read_trainer(vocab, &f, err);
        if (f.number == MODEL_NORMALIZER) status = read_normalizer(vocab, &f, err);
    }
    return status;
}
