/* What a model file says of its tokenizer, checked and made one of each kind of file.
 *
 *     cca_tokenizer_source src;
 *     cca_tokenizer_source_read(&src, file, &err);     // src.kind tells whether there is any
 *     ...
 *     cca_tokenizer_source_free(&src); */
#ifndef CCA_TOKENIZER_SOURCE_H
#define CCA_TOKENIZER_SOURCE_H

#include "base/base.h"
#include "gguf/gguf.h"
#include "text/spm.h"

/* What stands in front of a text, or of a part of it behind an added token, in SentencePiece's
 * kind: a space, where the model has a dummy prefix. */
typedef enum cca_prefix {
    CCA_PREFIX_FIRST,      /* of the whole text, and behind BOS: SentencePiece's own way */
    CCA_PREFIX_PREPEND,    /* of each part: Hugging Face's normalizer Prepend, llama.cpp's way */
    CCA_PREFIX_LEAD,       /* of each part that does not begin with one: Metaspace, always */
    CCA_PREFIX_LEAD_FIRST, /* of the whole text if it does not begin with one: Metaspace, first */
} cca_prefix;

typedef enum cca_tokenizer_kind {
    CCA_TOKENIZER_NONE,
    CCA_TOKENIZER_SPM,
    CCA_TOKENIZER_BPE,
} cca_tokenizer_kind;

typedef struct cca_tokenizer_source {
    cca_tokenizer_kind kind;
    cca_spm_model model;   /* of SentencePiece's kind */
    const cca_gguf *file;  /* NULL: from a model file of SentencePiece alone */
    cca_gguf_array tokens; /* of the model file; n is 0 where it has none */
    uint8_t *types;        /* cca_spm_type of each of them; NULL: the file does not say */
    cca_gguf_array merges; /* of BPE */
    cca_gguf_string pre;
    cca_gguf_array steps; /* where pre does not say it */
    bool ignore_merges, plain;
    bool is_original; /* model is the file's original one, not made of its lists */
    bool add_bos;     /* where the file does not say */
    cca_prefix prefix;
    char name[sizeof((cca_error *)0)->text / 2]; /* the file and the key, for messages */
    cca_error *err;
} cca_tokenizer_source;

/* file is borrowed. The kind is CCA_TOKENIZER_NONE where the file says that it has none, or has no
 * such keys; CCA_BAD_MODEL names the key. To be freed in any case. */
cca_status cca_tokenizer_source_read(cca_tokenizer_source *out, const cca_gguf *file,
                                     cca_error *err);

/* The same from the bytes of a SentencePiece model; name is for messages. */
cca_status cca_tokenizer_source_of_sentencepiece(cca_tokenizer_source *out, const void *model,
                                                 size_t size, const char *name, cca_error *err);

/* For messages: there is no memory for the vocabulary. */
cca_status cca_tokenizer_source_no_memory(const cca_tokenizer_source *src);

void cca_tokenizer_source_free(cca_tokenizer_source *src);

#endif
