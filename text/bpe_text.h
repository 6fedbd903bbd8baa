/* What happens to a text before BPE merges its bytes or characters (bpe.h). Texts are valid UTF-8.
 *
 * A model's way with texts is a list of steps, each a string, in this order; those that change the
 * text first, then those that change what is between added tokens that are looked for in its
 * outcome, then those that cut it:
 *
 *     nfc, nfd, nfkc, nfkd, lowercase, strip left, strip right
 *     prepend TEXT            unless there is none to put it in front of
 *     replace PATTERN         and, as the next step,
 *     with TEXT
 *
 *     space TEXT              for each space
 *     lead TEXT               in front, unless it stands there
 *     lead-first TEXT         that, at the start of the whole text
 *
 *     isolated PATTERN        matches are words, and what is between them
 *     removed PATTERN         they are dropped
 *     previous PATTERN        they go with the word before
 *     next PATTERN            they go with the word behind
 *     contiguous PATTERN      neighbours are one word
 *     isolated-not, removed-not, previous-not, next-not, contiguous-not PATTERN
 *                             the same, of what does not match
 *     letters                 patterns behind it see a letter of GPT-2's alphabet for each byte
 *
 * Patterns are as pattern.h reads them; a later one sees each word alone. */
#ifndef CCA_BPE_TEXT_H
#define CCA_BPE_TEXT_H

#include "base/base.h"
#include "gguf/gguf.h"
#include "text/pattern.h"

enum { CCA_MAX_STEPS = 16 };

/* ---- known ways: bpe_pre.c ---- */

typedef struct cca_pre {
    const char *names; /* values of tokenizer.ggml.pre, the usual one first, with blanks between */
    bool whole_words;  /* a word that is a token is not merged, but taken as it is */
    bool add_bos;      /* a text starts with BOS where the file does not say */
    const char *steps[10];
} cca_pre;

/* NULL for an unknown name. */
const cca_pre *cca_pre_find(cca_gguf_string name);

/* The one that is exactly this; its first name goes as far as the first blank. NULL where there is
 * none. */
const cca_pre *cca_pre_match(const char *const *steps, size_t n, bool whole_words);

/* Characters as the parts of tokenizer.json that name no pattern mean them. */
extern const char cca_pattern_digit[], cca_pattern_digits[], cca_pattern_punctuation[],
    cca_pattern_gpt2[];

/* ---- GPT-2's alphabet: bpe.c ---- */

/* The letter that stands for a byte. */
uint32_t cca_bpe_letter(uint8_t byte);

/* ---- words: bpe_split.c ---- */

typedef struct cca_stage {
    cca_pattern pattern; /* of "letters" none */
    int behaviour;
    bool inverted;
} cca_stage;

typedef struct cca_splitter {
    cca_stage stages[CCA_MAX_STEPS];
    size_t n_stages;
} cca_splitter;

/* Takes the steps that cut from the end of a list; *n becomes the number of the others. name stands
 * in front of the messages; CCA_BAD_MODEL quotes the step. */
cca_status cca_splitter_open(cca_splitter *out, const cca_gguf_string *steps, size_t *n,
                             const char *name, cca_error *err);
void cca_splitter_close(cca_splitter *splitter);

/* Takes the word text[from … end), which is not empty. */
typedef cca_status cca_word_taker(void *context, size_t from, size_t end, cca_error *err);

/* Gives all words of a text to take, in order; ends with take's first failure. */
cca_status cca_splitter_run(const cca_splitter *splitter, const char *text, size_t size,
                            cca_word_taker *take, void *context, cca_error *err);

/* ---- changes: bpe_normal.c ---- */

typedef struct cca_change {
    int kind;
    cca_gguf_string text; /* what is put there */
    cca_pattern pattern;
} cca_change;

typedef struct cca_normalizer {
    cca_change changes[CCA_MAX_STEPS];
    size_t n_changes;
    char *texts; /* that changes point into */
} cca_normalizer;

/* Takes the steps from *at on that change a text as a whole, or, with inner, what is between added
 * tokens; *at moves to the first one that does not. As cca_splitter_open. */
cca_status cca_normalizer_open(cca_normalizer *out, const cca_gguf_string *steps, size_t n,
                               size_t *at, bool inner, const char *name, cca_error *err);
void cca_normalizer_close(cca_normalizer *normalizer);

typedef struct cca_level {
    char *text;
    size_t size, capacity, most; /* most: more than that is too much */
    bool overflows;
    struct cca_span *spans;
    size_t n_spans, spans_capacity, hint;
} cca_level;

/* A changed text, and where it came from. */
typedef struct cca_normal {
    const char *text; /* the outcome; the source itself where nothing changed */
    size_t size;
    cca_level levels[CCA_MAX_STEPS];
    size_t n_levels;
} cca_normal;

/* source lives as long as *out. first: it is the start of the whole text. CCA_NO_FIT where the text
 * becomes sixteen times as long and more, which no form of Unicode makes of it. */
cca_status cca_normal_make(cca_normal *out, const cca_normalizer *normalizer, const char *source,
                           size_t size, bool first, cca_error *err);
void cca_normal_free(cca_normal *normal);

/* The offset in the source of the outcome's byte at. Calls with growing at are fast. */
size_t cca_normal_offset(cca_normal *normal, size_t at);

#endif
