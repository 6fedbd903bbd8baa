/* The ways with texts that have a name in tokenizer.ggml.pre. Names and which of them mean the same
 * are llama.cpp's. The patterns are those of the models' own tokenizer.json, where llama.cpp has
 * others for its engine; so is NFC, which it leaves out. */
#include "text/bpe_text.h"

#include <string.h>

/* ---- characters ---- */

/* Rust's numbers are Unicode 17's, two blocks more than the patterns'. */
#define DIGIT          "[\\p{N}\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}]"
#define ISOLATED_DIGIT "isolated " DIGIT

/* ASCII's symbols and, as of Unicode 8, punctuation. */
#define PUNCTUATION                                                                                  \
    "(?![\\x{61d}\\x{9fd}\\x{a76}\\x{c77}\\x{c84}\\x{1b4e}\\x{1b4f}\\x{1b7d}-\\x{1b7f}"              \
    "\\x{2e43}-\\x{2e4f}\\x{2e52}-\\x{2e5d}\\x{10d6e}\\x{10ead}\\x{10f55}-\\x{10f59}"                \
    "\\x{10f86}-\\x{10f89}\\x{113d4}\\x{113d5}\\x{113d7}\\x{113d8}\\x{1144b}-\\x{1144f}"             \
    "\\x{1145a}\\x{1145b}\\x{1145d}\\x{11660}-\\x{1166c}\\x{116b9}\\x{1183b}\\x{11944}-\\x{11946}"   \
    "\\x{119e2}\\x{11a3f}-\\x{11a46}\\x{11a9a}-\\x{11a9c}\\x{11a9e}-\\x{11aa2}\\x{11b00}-\\x{11b09}" \
    "\\x{11be1}\\x{11c41}-\\x{11c45}\\x{11c70}\\x{11c71}\\x{11ef7}\\x{11ef8}\\x{11f43}-\\x{11f4f}"   \
    "\\x{11fff}\\x{12ff1}\\x{12ff2}\\x{16d6d}-\\x{16d6f}\\x{16e97}-\\x{16e9a}\\x{16fe2}\\x{1e5ff}"   \
    "\\x{1e95e}\\x{1e95f}])[\\p{P}$+<=>\\^`|~\\x{166d}\\x{111c9}]"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

const char cca_pattern_digit[] = DIGIT;
const char cca_pattern_digits[] = DIGIT "+";
const char cca_pattern_punctuation[] = PUNCTUATION;
const char cca_pattern_gpt2[] = GPT2;

/* ---- patterns ---- */

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define REST        "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define MODERN(NUMBERS)                                                                            \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" NUMBERS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" REST
#define LLAMA3 MODERN("\\p{N}{1,3}")
#define QWEN2  MODERN("\\p{N}")

/* Words of capitals, then small letters, each with SUFFIX behind. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(SUFFIX, NUMBERS)                                                                     \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" SUFFIX "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER  \
    "*" SUFFIX "|" NUMBERS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" REST
#define TEKKEN CASED("", "\\p{N}")
#define GPT4O  CASED(CONTRACTION "?", "\\p{N}{1,3}")

#define BLOOM " ?[^(\\s|[.,!?…。，、।۔،])]+"

#define CASCADE                                                                                    \
    "|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)" \
    "|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"

#define ASCII_PUNCTUATION "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define DEEPSEEK3                                                                                    \
    ASCII_PUNCTUATION                                                                                \
    "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+" \
    "|\\s+(?!\\S)|\\s+"
/* clang-format off */
#define DEEPSEEK_LETTERS \
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ" \
    "-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴ" \
    "ℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
/* clang-format on */

static const cca_pre pres[] = {
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
     true,
     true,
     {"isolated " LLAMA3}},
    {"dbrx smaug-bpe chatglm-bpe", false, false, {"isolated " LLAMA3}},
    {"glm4 glm5", true, false, {"isolated " LLAMA3}},
    {"qwen2 deepseek-r1-qwen stablelm2 megrez kormo f2llmv2",
     false,
     false,
     {"nfc", "isolated " QWEN2}},
    {"hunyuan solar-open grok-2", false, false, {"isolated " QWEN2}},
    {"qwen35",
     false,
     false,
     {"isolated " CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"
      "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" REST}},
    {"tekken", true, true, {"isolated " TEKKEN}},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", false, false, {"isolated " GPT4O}},
    {"tiny_aya cohere2moe",
     false,
     false,
     {"isolated \\d{1,3}(?=(?:\\d{3})*\\b)", "isolated " GPT4O}},
    {"gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 jais trillion granite-docling",
     false,
     false,
     {"isolated " GPT2}},
    {"olmo mpt", false, false, {"nfc", "isolated " GPT2}},
    {"smollm starcoder refact codeshell exaone minerva-7b mellum2",
     false,
     false,
     {ISOLATED_DIGIT, "isolated " GPT2}},
    {"command-r", false, false, {"nfc", ISOLATED_DIGIT, "isolated " GPT2}},
    {"falcon",
     false,
     false,
     {"contiguous " PUNCTUATION, "isolated " GPT2, "letters", "contiguous " DIGIT,
      "isolated [0-9][0-9][0-9]"}},
    {"default",
     false,
     false,
     {"isolated [\\p{P}\\$\\+<=>\\^~\\|]+", "isolated " GPT2, "isolated \\p{N}+",
      "isolated [0-9][0-9][0-9]"}},
    {"deepseek-llm",
     false,
     false,
     {"isolated [\\r\\n]", "isolated " DEEPSEEK_LETTERS, "isolated \\s?[!-/:-~！-／：-～‘-‟　-。]+",
      "isolated \\s+$", "isolated [一-龥ࠀ-一가-퟿]+", "contiguous " DIGIT}},
    {"deepseek-coder",
     false,
     false,
     {"isolated [\\r\\n]", "isolated \\s?\\p{L}+", "isolated \\s?\\p{P}+",
      "isolated [一-龥ࠀ-一가-퟿]+", ISOLATED_DIGIT}}, // NOLINT: it is one step
    {"deepseek-v3 hunyuan-dense joyai-llm",
     false,
     false,
     {"isolated \\p{N}{1,3}", "isolated [一-龥぀-ゟ゠-ヿ]+", "isolated " DEEPSEEK3}},
    {"jais-2",
     false,
     false,
     {"isolated " CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
      "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" CASCADE}},
    {"bailingmoe bailingmoe2 llada-moe",
     false,
     false,
     {"isolated '(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}"
      "| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"seed-coder",
     false,
     false,
     {"isolated " CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}"
      "| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"minicpm5", true, false, {"isolated \\p{N}{1,3}", "isolated " MODERN("\\p{N}+")}},
    {"poro-chat bloom gpt3-finnish", false, false, {"isolated " BLOOM}},
    {"viking", false, false, {"isolated " BLOOM, ISOLATED_DIGIT}},
};

enum { N_PRES = sizeof pres / sizeof *pres };

static bool has_name(const char *names, cca_gguf_string name) {
    for (const char *end; *names; names = *end ? end + 1 : end) {
        end = strchrnul(names, ' ');
        if ((size_t)(end - names) == name.size && memcmp(names, name.bytes, name.size) == 0) {
            return true;
        }
    }
    return false;
}

const cca_pre *cca_pre_find(cca_gguf_string name) {
    for (size_t i = 0; i < N_PRES && name.size > 0; i++) {
        if (has_name(pres[i].names, name)) return &pres[i];
    }
    return NULL;
}

static size_t count(const cca_pre *pre) {
    size_t n = 0;
    while (n < sizeof pre->steps / sizeof *pre->steps && pre->steps[n]) n++;
    return n;
}

const cca_pre *cca_pre_match(const char *const *steps, size_t n, bool whole_words) {
    for (size_t i = 0; i < N_PRES; i++) {
        bool same = pres[i].whole_words == whole_words && count(&pres[i]) == n;
        for (size_t k = 0; k < n && same; k++) same = strcmp(pres[i].steps[k], steps[k]) == 0;
        if (same) return &pres[i];
    }
    return NULL;
}
