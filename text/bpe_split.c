/* Cuts a text into words with the patterns of the models, through PCRE2. */
#include "text/bpe_text.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string.h>

/* Hugging Face's tokenizers know Unicode 16 (for SmolLM's digits 17), PCRE2 may be older. These
 * are the letters and numbers that Unicode 15 and 16 added. */
#define LETTERS_15_16                                                                              \
    "\\x{1c89}\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}"                \
    "\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}\\x{11240}"          \
    "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}"           \
    "\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}"          \
    "\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"                    \
    "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}"                     \
    "\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}"          \
    "\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NUMBERS_15_16                                                                              \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"         \
    "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}"         \
    "\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"
#define NUMBERS_17 "\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}"

/* For use between [ and ]. PCRE2's own \s has U+180E in it, which is no white space any more. */
#define L     "\\p{L}" LETTERS_15_16
#define N     "\\p{N}" NUMBERS_15_16
#define DIGIT N NUMBERS_17
#define S                                                                                          \
    "\\x{9}-\\x{d} \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"          \
    "\\x{205f}\\x{3000}"

/* The pattern of Llama 3 and Qwen2 but for the length of their runs of numbers. */
#define MODERN(NUMBERS)                                                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n" L N "]?[" L "]+|" NUMBERS "| ?[^" S L N "]+[\\r\\n]*|" \
    "[" S "]*[\\r\\n]+|[" S "]+(?![^" S "])|[" S "]+"

static const char llama3[] = MODERN("[" N "]{1,3}");
static const char qwen2[] = MODERN("[" N "]");

/* GPT-2's pattern for the texts between digits: a digit ends the text for it. */
static const char smollm[] = "[" DIGIT "]|'s|'t|'re|'ve|'m|'ll|'d| ?[" L "]+| ?[^" S L DIGIT
                             "]+|[" S "]+(?![^" S DIGIT "])|[" S "]+";

static const struct kind {
    const char *pre, *pattern;
    bool nfc, whole_words;
} kinds[] = {
    {"llama3", llama3, false, true},    {"llama-v3", llama3, false, true},
    {"llama-bpe", llama3, false, true}, {"falcon3", llama3, false, true},
    {"qwen2", qwen2, true, false},      {"deepseek-r1-qwen", qwen2, true, false},
    {"smollm", smollm, false, false},
};

static const struct kind *find_kind(cca_gguf_string pre) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (pre.size == strlen(kinds[i].pre) && memcmp(pre.bytes, kinds[i].pre, pre.size) == 0) {
            return &kinds[i];
        }
    }
    return NULL;
}

cca_status cca_splitter_open(cca_splitter *out, cca_gguf_string pre, const char *name,
                             cca_error *err) {
    *out = (cca_splitter){.code = NULL};
    const struct kind *kind = find_kind(pre);
    if (!kind) {
        return cca_fail(err, CCA_BAD_MODEL,
                        "%s: tokenizer.ggml.pre is \"%.*s\", which is not supported", name,
                        pre.size < 100 ? (int)pre.size : 100, pre.bytes);
    }
    int error;
    size_t offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)kind->pattern, PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &offset, NULL);
    if (!code && error == PCRE2_ERROR_HEAP_FAILED) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for the pattern of %s", name, kind->pre);
    }
    if (!code) {
        return cca_fail(err, CCA_RUNTIME, "%s: PCRE2 refuses the pattern of %s (error %d at %zu)",
                        name, kind->pre, error, offset);
    }
    /* Where there is no JIT, or no memory for it, PCRE2 interprets the pattern. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    *out = (cca_splitter){.code = code, .nfc = kind->nfc, .whole_words = kind->whole_words};
    return CCA_OK;
}

void cca_splitter_close(cca_splitter *splitter) {
    pcre2_code_free(splitter->code);
    splitter->code = NULL;
}

/* The patterns go back over white space only, once or twice, so the limits never bite; they are
 * there so that no version of the library can run away. */
static void set_limits(pcre2_match_context *context, size_t size) {
    size_t steps = size < UINT32_MAX / 8 ? 8 * size + 100000 : UINT32_MAX;
    pcre2_set_match_limit(context, (uint32_t)steps);
    pcre2_set_heap_limit(context, 64 * 1024);
}

static cca_status match_failure(int code, size_t at, cca_error *err) {
    char text[128] = "";
    if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAPLIMIT) {
        return cca_fail(err, CCA_NO_MEMORY, "no memory for the pattern that cuts the text");
    }
    pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
    return cca_fail(err, CCA_RUNTIME, "the pattern that cuts the text fails at byte %zu: %s", at,
                    text);
}

cca_status cca_splitter_run(const cca_splitter *splitter, const char *text, size_t size,
                            cca_word_taker *take, void *context, cca_error *err) {
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    cca_status status = CCA_OK;
    if (match && limits) {
        set_limits(limits, size);
    } else {
        status = match_failure(PCRE2_ERROR_NOMEMORY, 0, err);
    }
    for (size_t at = 0; at < size && !status;) {
        int code = pcre2_match(splitter->code, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK,
                               match, limits);
        if (code < 0) {
            status = match_failure(code, at, err);
            break;
        }
        size_t end = pcre2_get_ovector_pointer(match)[1];
        status = take(context, at, end, err);
        at = end;
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(match);
    return status;
}
