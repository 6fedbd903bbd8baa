/* SentencePiece: its model files, and text to ids through its library.
 *
 *     cca_spm_model model;
 *     cca_spm_model_read(&model, bytes, size, "tokenizer.model", &err);
 *     cca_spm *spm;
 *     cca_spm_open(&spm, &model, "tokenizer.model", &err);
 *     cca_spm_model_free(&model);
 *     cca_spm_encode(&tokens, spm, text, text_size, 0, true, &err);
 *     cca_spm_close(spm);
 *
 * On damaged models the library can exit, log, or read out of bounds. So our own code reads
 * and checks a model first, and the library gets only bytes that cca_spm_model_write made of
 * what encoding needs. name stands in front of the messages; failures are CCA_BAD_MODEL or
 * CCA_NO_MEMORY. */
#ifndef CCA_SPM_H
#define CCA_SPM_H

#include "base/base.h"
#include "text/tokens.h"

/* Types of pieces; GGUF's tokenizer.ggml.token_type has the same numbers. An empty piece of any
 * type stands in no text. */
typedef enum cca_spm_type {
    CCA_SPM_UNDEFINED = 0, /* in GGUF alone */
    CCA_SPM_NORMAL = 1,
    CCA_SPM_UNKNOWN = 2,
    CCA_SPM_CONTROL = 3, /* <s>: never matched in a text */
    CCA_SPM_USER = 4,    /* matched in a text before anything else */
    CCA_SPM_UNUSED = 5,
    CCA_SPM_BYTE = 6, /* <0x0A> */
} cca_spm_type;

typedef enum cca_spm_kind { CCA_SPM_UNIGRAM = 1, CCA_SPM_BPE = 2 } cca_spm_kind;

/* Bytes that are not NUL-terminated; borrowed. */
typedef struct cca_spm_text {
    const char *bytes;
    size_t size;
} cca_spm_text;

typedef struct cca_spm_piece {
    cca_spm_text text; /* UTF-8 with ▁ (U+2581) for a space */
    float score;
    cca_spm_type type;
} cca_spm_piece;

/* What a model file says about encoding. All texts are borrowed from what it was read from. */
typedef struct cca_spm_model {
    cca_spm_piece *pieces; /* owned */
    size_t n_pieces, capacity;
    cca_spm_kind kind;
    bool byte_fallback;         /* unknown characters become byte pieces */
    bool whitespace_suffix;     /* pieces end, not begin, with ▁ */
    bool add_dummy_prefix;      /* a text gets a space in front */
    bool remove_extra_spaces;   /* runs become one space, both ends are trimmed */
    bool escape_spaces;         /* spaces become ▁ */
    cca_spm_text charsmap;      /* compiled rules of normalisation; empty: none */
    cca_spm_text unk_surface;   /* what the unknown piece is decoded to */
    int32_t bos, eos, unk, pad; /* -1 where there is none */
} cca_spm_model;

/* Reads the bytes of a .model file, which must outlive *out. Checked like below. On failure
 * *out is empty. */
cca_status cca_spm_model_read(cca_spm_model *out, const void *bytes, size_t size, const char *name,
                              cca_error *err);

/* An empty model with the settings of a Llama vocabulary: BPE, no normalisation, a dummy
 * prefix, ▁ for spaces. Pieces are appended to it (false without memory); whoever appends byte
 * pieces sets byte_fallback. */
void cca_spm_model_init(cca_spm_model *out);
bool cca_spm_model_push(cca_spm_model *model, cca_spm_piece piece);

/* Whether the library can take the model: one unknown piece, all or no byte pieces, sound rules
 * of normalisation, and so on. Sets bos, eos, unk and pad, by the names
 * <s>, </s> and <pad> where they are -1. */
cca_status cca_spm_model_check(cca_spm_model *model, const char *name, cca_error *err);

/* The bytes of a .model file, to be freed by the caller. */
cca_status cca_spm_model_write(uint8_t **out, size_t *size, const cca_spm_model *model,
                               cca_error *err);

void cca_spm_model_free(cca_spm_model *model);

/* The value of a byte piece <0x00> … <0xFF>, else -1. */
int cca_spm_byte_value(cca_spm_text text);

/* First bytes of characters that rules of normalisation leave as they are: of the letters and
 * digits of ASCII, of the space, and of larger characters that no rule knows. They stand in no
 * rule but at its start, where the space has none of the others behind it. So the rules see a
 * text that is cut between two plain characters, or in front of a plain space between two
 * others, just as they see the whole. */
typedef struct cca_spm_plain {
    bool is[256];
} cca_spm_plain;

/* Checks that no lookup in the compiled rules can leave them; empty rules change nothing. */
cca_status cca_spm_charsmap_check(cca_spm_plain *plain, cca_spm_text charsmap, const char *name,
                                  cca_error *err);

/* A loaded, checked model, immutable, for any number of threads. */
typedef struct cca_spm cca_spm;

cca_status cca_spm_open(cca_spm **out, const cca_spm_model *model, const char *name,
                        cca_error *err);
void cca_spm_close(cca_spm *spm);

/* Appends the ids of size bytes of UTF-8 to *out, with offsets counted from base; start: with
 * the dummy prefix, if the model has one. On failure *out is as before. */
cca_status cca_spm_encode(cca_tokens *out, const cca_spm *spm, const char *text, size_t size,
                          uint64_t base, bool start, cca_error *err);

/* The library itself (spm.cc), for cca_spm alone: it takes any text in one go. bytes must come
 * from cca_spm_model_write. */
typedef struct cca_spm_library cca_spm_library;

cca_status cca_spm_library_open(cca_spm_library **out, const void *bytes, size_t size,
                                const char *name, cca_error *err);
void cca_spm_library_close(cca_spm_library *library);
cca_status cca_spm_library_encode(cca_tokens *out, const cca_spm_library *library, const char *text,
                                  size_t size, uint64_t base, cca_error *err);

#endif
