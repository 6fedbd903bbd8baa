#include "export/vocab_read.h"

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
    bool is_text = out->file.size >= 2 && bytes[1] != 0;
    if (is_text && bytes[0] == '{') return cca_vocab_read_json(out, err);
    out->is_sentencepiece = is_text && bytes[0] == 0x0a;
    return out->is_sentencepiece ? cca_vocab_read_sentencepiece(out, err)
                                 : cca_vocab_read_llama2c(out, err);
}
