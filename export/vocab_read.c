#include "export/vocab_read.h"

#include "base/file_kind.h"
#include "export/vocab_added.h"

/* An object: its brace and what begins its first key, or its end. A line break and a brace alone
 * might also be a SentencePiece model's first piece, of 123 bytes. */
static bool is_json(const uint8_t *bytes, size_t size) {
    size_t at = cca_file_lead(bytes, size);
    if (at == size || bytes[at++] != '{') return false;
    at += cca_file_lead(bytes + at, size - at);
    return at < size && (bytes[at] == '"' || bytes[at] == '}');
}

cca_status cca_vocab_open(cca_vocab *out, const char *path, cca_error *err) {
    *out = (cca_vocab){.path = path,
                       .kind = "llama",
                       .pre = "default",
                       .bos = 1,
                       .eos = 2,
                       .unk = 0,
                       .pad = -1,
                       .add_bos = true};
    cca_status status = cca_mapping_open(&out->file, path, err);
    if (status) return status;
    /* A SentencePiece model begins with a piece: field 1, not empty. In a .bin file these bytes
     * are the length of the longest token, an int32: the second one is zero. */
    const uint8_t *bytes = out->file.data;
    bool json = is_json(bytes, out->file.size);
    out->is_sentencepiece = !json && out->file.size >= 2 && bytes[0] == 0x0a && bytes[1] != 0;
    status = json                    ? cca_vocab_read_json(out, err)
             : out->is_sentencepiece ? cca_vocab_read_sentencepiece(out, err)
                                     : cca_vocab_read_llama2c(out, err);
    if (status || !(json || out->is_sentencepiece)) return status;
    return cca_vocab_add_beside(out, err);
}
