/* Which model's treatment of text a tokenizer.json asks for. */
#include "export/vocab_json.h"

#include <string.h>

#define MODERN(NUMBERS)                                                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" NUMBERS                          \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct kind {
    const char *pre;
    const char *pattern; /* NULL: single digits, then GPT-2's own pattern */
    bool nfc, ignore_merges;
} kinds[] = {
    {"llama-bpe", MODERN("\\p{N}{1,3}"), false, true},
    {"qwen2", MODERN("\\p{N}"), true, false},
    {"smollm", NULL, false, false},
};

static const char space[] = "\xe2\x96\x81"; /* ▁ */

static bool is_text(const json_t *value, const char *text) {
    const char *own = json_string_value(value);
    return own && strcmp(own, text) == 0;
}

const char *cca_vocab_json_type(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "";
}

static bool is_a(const json_t *part, const char *type) {
    return strcmp(cca_vocab_json_type(part), type) == 0;
}

static bool is_false(const json_t *part, const char *key) {
    const json_t *value = cca_json_field(part, key);
    return !value || json_is_false(value);
}

/* The parts of a sequence, or the one part that stands alone; 0 where there is none. */
static size_t unpack(const json_t *parts[2], const json_t *part, const char *list) {
    if (!part) return 0;
    parts[0] = part;
    if (!is_a(part, "Sequence")) return 1;
    const json_t *items = json_object_get(part, list);
    for (size_t i = 0; i < 2; i++) parts[i] = json_array_get(items, i);
    return json_array_size(items);
}

static bool is_split(const json_t *part, const char *pattern) {
    const json_t *regex = json_object_get(json_object_get(part, "pattern"), "Regex");
    return is_a(part, "Split") && is_text(json_object_get(part, "behavior"), "Isolated") &&
           is_false(part, "invert") && is_text(regex, pattern);
}

/* Some versions leave use_regex out where it is true. */
static bool is_bytes(const json_t *part, bool own_pattern) {
    const json_t *regex = cca_json_field(part, "use_regex");
    return is_a(part, "ByteLevel") && is_false(part, "add_prefix_space") &&
           own_pattern == (!regex || json_is_true(regex));
}

static bool is_digits(const json_t *part) {
    return is_a(part, "Digits") && json_is_true(json_object_get(part, "individual_digits"));
}

static const struct kind *find_kind(const json_t *pre_tokenizer) {
    const json_t *parts[2];
    if (unpack(parts, pre_tokenizer, "pretokenizers") != 2) return NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const struct kind *k = &kinds[i];
        bool cut = k->pattern ? is_split(parts[0], k->pattern) : is_digits(parts[0]);
        if (cut && is_bytes(parts[1], !k->pattern)) return k;
    }
    return NULL;
}

static void recognise_bytes(cca_vocab *vocab, cca_json_reader *r, const json_t *root) {
    const json_t *parts[2], *model = json_object_get(root, "model");
    const json_t *decoder = cca_json_field(root, "decoder");
    const struct kind *kind = find_kind(cca_json_field(root, "pre_tokenizer"));
    size_t n = unpack(parts, cca_json_field(root, "normalizer"), "normalizers");
    if (!kind) {
        cca_json_refuse(r, "pre_tokenizer is not that of Llama 3, Qwen2 or SmolLM");
        return;
    }
    bool nfc = n == 1 && is_a(parts[0], "NFC");
    if (n > 1 || (n == 1 && !nfc) || nfc != kind->nfc) {
        cca_json_refuse(r, "normalizer is not the one (%s) that goes with its pre_tokenizer, %s",
                        kind->nfc ? "NFC" : "none", kind->pre);
    }
    if (cca_json_bool(r, model, "ignore_merges", false) != kind->ignore_merges) {
        cca_json_refuse(r, "model.ignore_merges is not %s, which goes with its pre_tokenizer, %s",
                        kind->ignore_merges ? "true" : "false", kind->pre);
    }
    if (decoder && !is_a(decoder, "ByteLevel")) {
        cca_json_refuse(r, "decoder is %s, not ByteLevel", cca_vocab_json_type(decoder));
    }
    vocab->kind = "gpt2";
    vocab->pre = kind->pre;
    vocab->normalizer = nfc ? CCA_NORMALIZER_NFC : CCA_NORMALIZER_NONE;
}

static bool is_escape(const json_t *part) {
    const json_t *pattern = json_object_get(json_object_get(part, "pattern"), "String");
    return is_a(part, "Replace") && is_text(pattern, " ") &&
           is_text(json_object_get(part, "content"), space);
}

static bool is_prefix(const json_t *part) {
    return is_a(part, "Prepend") && is_text(json_object_get(part, "prepend"), space);
}

/* Metaspace on the whole text; says what happens at its start. */
static bool is_metaspace(bool *prefix, const json_t *part) {
    const json_t *scheme = cca_json_field(part, "prepend_scheme");
    const json_t *split = cca_json_field(part, "split");
    *prefix = scheme ? !is_text(scheme, "never") : !is_false(part, "add_prefix_space");
    return is_a(part, "Metaspace") && json_is_false(split) &&
           is_text(json_object_get(part, "replacement"), space);
}

static void recognise_spaces(cca_vocab *vocab, cca_json_reader *r, const json_t *root) {
    const json_t *parts[2], *pre = cca_json_field(root, "pre_tokenizer");
    size_t n = unpack(parts, cca_json_field(root, "normalizer"), "normalizers");
    bool escape = n == 1 && is_escape(parts[0]);
    bool both = n == 2 && is_prefix(parts[0]) && is_escape(parts[1]);
    if (n > 0 && !escape && !both) {
        cca_json_refuse(r, "normalizer is not SentencePiece's: ▁ in front and for each space");
    }
    vocab->dummy_prefix = both;
    vocab->normalizer = both     ? CCA_NORMALIZER_PREFIX
                        : escape ? CCA_NORMALIZER_ESCAPE
                                 : CCA_NORMALIZER_NONE;
    if (pre && (n > 0 || !is_metaspace(&vocab->dummy_prefix, pre))) {
        cca_json_refuse(r, "pre_tokenizer is not SentencePiece's: Metaspace without split");
    }
    if (!pre && n == 0) {
        cca_json_refuse(r, "neither normalizer nor pre_tokenizer turn spaces into ▁");
    }
    if (cca_json_bool(r, json_object_get(root, "model"), "ignore_merges", false)) {
        cca_json_refuse(r, "model.ignore_merges is true, which SentencePiece does not know");
    }
    vocab->kind = "llama";
    vocab->pre = "default";
}

void cca_vocab_json_recognise(cca_vocab *vocab, cca_json_reader *r, bool byte_fallback) {
    if (r->status) return;
    if (byte_fallback) {
        recognise_spaces(vocab, r, vocab->json);
    } else {
        recognise_bytes(vocab, r, vocab->json);
    }
}
