#include "mutate_json.h"

#include <stdio.h>
#include <string.h>

enum { MOST_NODES = 4096, MOST_DEPTH = 64 };

/* A value, and its key where it is a member: from the quote on; else `from` is `at`. */
typedef struct node {
    size_t from, at, end;
    bool member;
} node;

typedef struct scan {
    const uint8_t *text;
    size_t at, size;
    node nodes[MOST_NODES];
    size_t n;
} scan;

static const char *const words[] = {"model_type",
                                    "hidden_size",
                                    "intermediate_size",
                                    "num_hidden_layers",
                                    "num_attention_heads",
                                    "num_key_value_heads",
                                    "head_dim",
                                    "vocab_size",
                                    "rms_norm_eps",
                                    "max_position_embeddings",
                                    "rope_theta",
                                    "rope_scaling",
                                    "rope_parameters",
                                    "rope_type",
                                    "hidden_act",
                                    "relu2",
                                    "bos_token_id",
                                    "eos_token_id",
                                    "tie_word_embeddings",
                                    "attention_bias",
                                    "mlp_bias",
                                    "sliding_window",
                                    "sliding_window_pattern",
                                    "use_sliding_window",
                                    "max_window_layers",
                                    "layer_types",
                                    "sliding_attention",
                                    "full_attention",
                                    "no_rope_layers",
                                    "no_rope_layer_interval",
                                    "partial_rotary_factor",
                                    "original_max_position_embeddings",
                                    "factor",
                                    "attention_factor",
                                    "low_freq_factor",
                                    "high_freq_factor",
                                    "beta_fast",
                                    "beta_slow",
                                    "mscale",
                                    "mscale_all_dim",
                                    "short_factor",
                                    "long_factor",
                                    "truncate",
                                    "llama_4_scaling_beta",
                                    "embedding_multiplier",
                                    "logits_scaling",
                                    "residual_multiplier",
                                    "attention_multiplier",
                                    "quantization_config",
                                    "alpha",
                                    "ntk_alpha",
                                    "default",
                                    "attention_out_bias",
                                    "use_bias",
                                    "glm4",
                                    "hunyuan_v1_dense",
                                    "legacy",
                                    "additional_special_tokens",
                                    "[INST]",
                                    "<|x|>",
                                    "text_config",
                                    "num_experts",
                                    "cca",
                                    "group_size",
                                    "window_size",
                                    "cores",
                                    "sinks",
                                    "recall",
                                    "tuned",
                                    "yarn",
                                    "llama3",
                                    "longrope",
                                    "dynamic",
                                    "llama",
                                    "qwen2",
                                    "qwen3",
                                    "granite",
                                    "olmo2",
                                    "olmo3",
                                    "phi3",
                                    "exaone4",
                                    "glm4",
                                    "mistral3",
                                    "seed_oss",
                                    "smollm3",
                                    "arcee",
                                    "chat_template",
                                    "add_bos_token",
                                    "bos_token",
                                    "eos_token",
                                    "unk_token",
                                    "pad_token",
                                    "added_tokens_decoder",
                                    "added_tokens",
                                    "content",
                                    "single_word",
                                    "lstrip",
                                    "rstrip",
                                    "normalized",
                                    "special",
                                    "id",
                                    "normalizer",
                                    "normalizers",
                                    "pre_tokenizer",
                                    "pretokenizers",
                                    "post_processor",
                                    "processors",
                                    "decoder",
                                    "decoders",
                                    "model",
                                    "type",
                                    "vocab",
                                    "merges",
                                    "ignore_merges",
                                    "byte_fallback",
                                    "fuse_unk",
                                    "dropout",
                                    "continuing_subword_prefix",
                                    "end_of_word_suffix",
                                    "add_prefix_space",
                                    "use_regex",
                                    "prepend_scheme",
                                    "replacement",
                                    "split",
                                    "pattern",
                                    "behavior",
                                    "invert",
                                    "individual_digits",
                                    "prepend",
                                    "strip_left",
                                    "strip_right",
                                    "single",
                                    "BPE",
                                    "Unigram",
                                    "ByteLevel",
                                    "Sequence",
                                    "Split",
                                    "Metaspace",
                                    "Digits",
                                    "Punctuation",
                                    "Whitespace",
                                    "WhitespaceSplit",
                                    "Prepend",
                                    "Replace",
                                    "Strip",
                                    "NFC",
                                    "NFD",
                                    "NFKC",
                                    "NFKD",
                                    "Lowercase",
                                    "ByteFallback",
                                    "Fuse",
                                    "TemplateProcessing",
                                    "Regex",
                                    "String",
                                    "Isolated",
                                    "Removed",
                                    "Contiguous",
                                    "MergedWithPrevious",
                                    "MergedWithNext",
                                    "always",
                                    "first",
                                    "never",
                                    "<0x41>",
                                    "<unk>",
                                    "\xe2\x96\x81",
                                    "a b",
                                    "\\s+|\\p{L}{1,3}(?!x)",
                                    "[^\\\\r\\\\n\\\\p{N}]?",
                                    "dtype",
                                    "shape",
                                    "data_offsets",
                                    "__metadata__",
                                    "F32",
                                    "F16",
                                    "BF16",
                                    "F64",
                                    "F8_E4M3",
                                    "I8",
                                    "BOOL",
                                    "weight_map",
                                    "model.safetensors",
                                    "model.norm.weight",
                                    "lm_head.weight",
                                    "model.layers.0.self_attn.q_proj.bias",
                                    "model.layers.0.self_attn.q_norm.weight"};

static const char *const values[] = {
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "4",
    "8",
    "64",
    "1.5",
    "1e-5",
    "1e4",
    "-1e-400",
    "1e308",
    "1e309",
    "255",
    "256",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551616",
    "0.1e",
    "00",
    "NaN",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\xed\xa0\x80\"",
    "\"\xff\"",
    "\"\\x\"",
    "\"",
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    "[null]",
    "[0]",
    "[1,2]",
    "[true,false]",
    "{\"\":0}",
    "{\"a\":{}}",
    "[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]",
    "[\"a\",\"b\"]",
    "[[\"a\",\"b\"]]",
    "[",
    "{",
    "]",
    "}",
    "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Lowercase\"}]}",
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\d{1,3}\"},\"behavior\":\"Isolated\"}",
    "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"first\"}",
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}",
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false}",
    "{\"type\":\"Punctuation\",\"behavior\":\"Removed\"}",
    "{\"type\":\"Digits\",\"individual_digits\":true}",
    "{\"id\":3,\"content\":\"<x>\",\"single_word\":true,\"lstrip\":true,\"rstrip\":true}",
    "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}",
    "{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":16}"};

/* ---- where values are --------------------------------------------------------------------- */

static void skip_space(scan *s) {
    while (s->at < s->size && strchr(" \t\r\n", s->text[s->at]) && s->text[s->at]) s->at++;
}

static bool see(scan *s, char c) {
    skip_space(s);
    return s->at < s->size && s->text[s->at] == (uint8_t)c;
}

static bool take(scan *s, char c) {
    const bool seen = see(s, c);
    s->at += seen;
    return seen;
}

static void skip_string(scan *s) {
    for (s->at++; s->at < s->size && s->text[s->at] != '"'; s->at++) {
        s->at += s->text[s->at] == '\\';
    }
    s->at = s->at < s->size ? s->at + 1 : s->size;
}

static void skip_word(scan *s) {
    while (s->at < s->size && !strchr(",:]}[{\" \t\r\n", s->text[s->at])) s->at++;
}

/* What makes no sense is passed over: such a text has fewer values, but still some. */
static void scan_value(scan *s, size_t from, bool member, int depth) {
    skip_space(s);
    node v = {.from = member ? from : s->at, .at = s->at, .member = member};
    const bool object = see(s, '{');
    if (s->at >= s->size || depth > MOST_DEPTH) return;
    if (object || see(s, '[')) {
        s->at++;
        while (s->at < s->size && !see(s, object ? '}' : ']')) {
            const size_t before = s->at;
            const bool quoted = object && see(s, '"');
            if (quoted) skip_string(s);
            scan_value(s, before, quoted && take(s, ':'), depth + 1);
            if (!take(s, ',') && s->at == before && s->at < s->size) s->at++;
        }
        s->at += s->at < s->size;
    } else if (see(s, '"')) {
        skip_string(s);
    } else {
        skip_word(s);
    }
    v.end = s->at;
    if (s->n < MOST_NODES && v.end > v.at) s->nodes[s->n++] = v;
}

static void scan_text(scan *s, const uint8_t *data, size_t begin, size_t size) {
    s->text = data;
    s->at = begin;
    s->size = begin + size;
    s->n = 0;
    while (s->at < s->size) {
        const size_t before = s->at;
        scan_value(s, s->at, false, 0);
        if (s->at == before) s->at++;
    }
}

/* ---- changes -------------------------------------------------------------------------------- */

static bool put(mutation *m, size_t at, size_t n, const char *text) {
    return mutate_splice(m, at, n, text, strlen(text));
}

static bool put_word(mutation *m, size_t at, size_t n) {
    char quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s\"", MUTATE_ANY(m, words));
    return put(m, at, n, quoted);
}

static bool put_number(mutation *m, const node *v) {
    char text[32] = {0};
    double x = 0;
    const size_t n = v->end - v->at;
    memcpy(text, m->data + v->at, n < sizeof text ? n : sizeof text - 1);
    const uint64_t next = mutate_number(
        m, sscanf(text, "%lf", &x) == 1 && x > 0 && x < 1e15 ? (uint64_t)x : mutate_draw(m, 9));
    snprintf(text, sizeof text, "%s%lld%s", mutate_one_in(m, 8) ? "-" : "", (long long)next,
             mutate_one_in(m, 8) ? ".5" : "");
    return put(m, v->at, n, text);
}

/* A string's inside; of a number or a list some bytes. */
static bool change_inside(mutation *m, const node *v) {
    const bool string = m->data[v->at] == '"' && v->end - v->at >= 2;
    return mutate_bytes(m, v->at + string, v->end - v->at - 2 * (size_t)string);
}

static bool change_value(mutation *m, const node *v) {
    const size_t n = v->end - v->at;
    switch (mutate_draw(m, 8)) {
    case 0:
    case 1: return put(m, v->at, n, MUTATE_ANY(m, values));
    case 2: return put_word(m, v->at, n);
    case 3: return put(m, v->end, 0, "]") && put(m, v->at, 0, "[");
    case 4: return put(m, v->end, 0, "}") && put(m, v->at, 0, "{\"type\":");
    case 5: return change_inside(m, v);
    default: return m->data[v->at] == '"' ? change_inside(m, v) : put_number(m, v);
    }
}

/* Before a value with its key something else and a comma. */
static bool insert(mutation *m, const node *v) {
    return put(m, v->from, 0, ",") && put(m, v->from, 0, MUTATE_ANY(m, values)) &&
           (!v->member || (put(m, v->from, 0, ":") && put_word(m, v->from, 0)));
}

static bool repeat(mutation *m, size_t at, const uint8_t *bytes, size_t n) {
    return mutate_splice(m, at, 0, bytes, n) && put(m, at + n, 0, ",");
}

static bool erase(mutation *m, const scan *s, const node *v) {
    scan behind = {.text = s->text, .at = v->end, .size = s->size};
    const size_t end = take(&behind, ',') ? behind.at : v->end;
    return mutate_splice(m, v->from, end - v->from, NULL, 0);
}

/* Only the values of one depth have the same chance where there are a thousand tokens: so one of
 * the last nodes, which are those around, is chosen half of the time. */
static const node *choose(mutation *m, const scan *s) {
    const size_t last = mutate_one_in(m, 2) && s->n > 40 ? 40 : s->n;
    return &s->nodes[s->n - 1 - mutate_draw(m, last)];
}

static bool change(mutation *m, const scan *s, const scan *from) {
    const node *v = choose(m, s), *w = choose(m, from);
    const uint8_t *bytes = from->text;
    if (mutate_one_in(m, 3) || from != s) {
        return mutate_one_in(m, 2)
                   ? mutate_splice(m, v->at, v->end - v->at, bytes + w->at, w->end - w->at)
                   : repeat(m, v->from, bytes + (v->member ? w->from : w->at),
                            w->end - (v->member ? w->from : w->at));
    }
    switch (mutate_draw(m, 6)) {
    case 0: return insert(m, v);
    case 1: return erase(m, s, v);
    case 2:
        if (!v->member) break;
        return mutate_one_in(m, 3)
                   ? mutate_bytes(m, v->from + 1, 3)
                   : put_word(m, v->from,
                              (size_t)((uint8_t *)memchr(m->data + v->from, ':', v->at - v->from) -
                                       m->data) -
                                  v->from);
    default: break;
    }
    return change_value(m, v);
}

bool mutate_json(mutation *m, size_t begin, size_t *size) {
    static scan mine, theirs;
    const size_t before = m->size;
    const scan *from = &mine;
    scan_text(&mine, m->data, begin, *size);
    if (mine.n == 0) return false;
    if (m->other) {
        scan_text(&theirs, m->other, 0, m->other_size);
        if (theirs.n > 0) from = &theirs;
    }
    if (!change(m, &mine, from)) return false;
    *size = *size + m->size - before;
    return true;
}
