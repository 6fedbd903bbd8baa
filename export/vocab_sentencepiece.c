/* The pieces of a SentencePiece model. */
#include "export/vocab_read.h"
#include "text/spm.h"

static cca_status take_pieces(cca_vocab *vocab, const cca_spm_model *model, cca_error *err) {
    cca_status status = cca_vocab_alloc(vocab, (int64_t)model->n_pieces, err);
    if (status) return status;
    for (size_t i = 0; i < model->n_pieces; i++) {
        const cca_spm_piece *piece = &model->pieces[i];
        vocab->pieces[i] = (cca_gguf_string){piece->text.bytes, piece->text.size};
        vocab->scores[i] = piece->score;
        vocab->types[i] = (int32_t)piece->type;
    }
    vocab->n = vocab->n_own = (int64_t)model->n_pieces;
    vocab->is_bpe = model->kind == CCA_SPM_BPE;
    vocab->bos = model->bos;
    vocab->eos = model->eos;
    vocab->unk = model->unk;
    vocab->pad = model->pad;
    vocab->dummy_prefix = model->add_dummy_prefix;
    vocab->remove_extra_spaces = model->remove_extra_spaces;
    return CCA_OK;
}

cca_status cca_vocab_read_sentencepiece(cca_vocab *vocab, cca_error *err) {
    cca_spm_model model;
    cca_status status =
        cca_spm_model_read(&model, vocab->file.data, vocab->file.size, vocab->path, err);
    if (status) return status;
    status = take_pieces(vocab, &model, err);
    cca_spm_model_free(&model);
    return status;
}
