/* GGUF files: keys and tensors that are changed in name, type, value, shape or place, or are there
 * twice, or not at all. The counts of the header and the padding before the data follow, but for
 * one in 16. */
#include "mutate.h"

#include <stdio.h>
#include <string.h>

enum {
    MOST_ENTRIES = 512,
    MOST_VALUE = 600,
    ALIGN = 32,
    VERSION_AT = 4,
    TENSORS_AT = 8,
    KEYS_AT = 16,
    HEADER = 24,
    STRING = 8, /* types that are no numbers */
    ARRAY = 9,
    TYPES = 13,
};

/* A key: name, type, value. A tensor: name, number of dimensions, these, type, offset. */
typedef struct entry {
    size_t at, name_end, end;
} entry;

typedef struct layout {
    entry keys[MOST_ENTRIES], tensors[MOST_ENTRIES];
    size_t n_keys, n_tensors;
    size_t end; /* of what could be read */
} layout;

static const char *const names[] = {"block_count",
                                    "embedding_length",
                                    "feed_forward_length",
                                    "context_length",
                                    "vocab_size",
                                    "attention.head_count",
                                    "attention.head_count_kv",
                                    "attention.key_length",
                                    "attention.value_length",
                                    "attention.layer_norm_rms_epsilon",
                                    "attention.scale",
                                    "attention.sliding_window",
                                    "attention.sliding_window_pattern",
                                    "attention.temperature_scale",
                                    "attention.clamp_kqv",
                                    "attention.max_alibi_bias",
                                    "attention.causal",
                                    "attn_logit_softcapping",
                                    "final_logit_softcapping",
                                    "embedding_scale",
                                    "residual_scale",
                                    "logit_scale",
                                    "expert_count",
                                    "rope.dimension_count",
                                    "rope.freq_base",
                                    "rope.freq_base_swa",
                                    "rope.scale_linear",
                                    "rope.scaling.type",
                                    "rope.scaling.factor",
                                    "rope.scaling.attn_factor",
                                    "rope.scaling.original_context_length",
                                    "rope.scaling.finetuned",
                                    "rope.scaling.yarn_attn_factor",
                                    "rope.scaling.yarn_beta_fast",
                                    "rope.scaling.yarn_beta_slow",
                                    "rope.scaling.yarn_ext_factor",
                                    "rope.scaling.yarn_log_multiplier",
                                    ".cca.group_size",
                                    ".cca.window_size",
                                    ".cca.cores",
                                    ".cca.recall",
                                    ".cca.sinks",
                                    ".cca.tuned",
                                    ".cca.crc32",
                                    ".cca.end_token_ids",
                                    ".cca.lstrip_token_ids",
                                    ".cca.rstrip_token_ids",
                                    ".cca.normalized_token_ids",
                                    ".cca.single_word_token_ids",
                                    ".cca.tokenizer.byte_fallback",
                                    ".cca.tokenizer.ignore_merges",
                                    ".cca.tokenizer.prefix",
                                    ".cca.tokenizer.steps",
                                    ".cca.patch.base",
                                    ".cca.patch.tensors",
                                    ".cca.patch.crc32",
                                    ".general.alignment",
                                    ".general.architecture",
                                    ".split.no",
                                    ".split.count",
                                    ".split.tensors.count",
                                    ".tokenizer.ggml.model",
                                    ".tokenizer.ggml.pre",
                                    ".tokenizer.ggml.tokens",
                                    ".tokenizer.ggml.scores",
                                    ".tokenizer.ggml.token_type",
                                    ".tokenizer.ggml.merges",
                                    ".tokenizer.ggml.bos_token_id",
                                    ".tokenizer.ggml.eos_token_id",
                                    ".tokenizer.ggml.eot_token_id",
                                    ".tokenizer.ggml.unknown_token_id",
                                    ".tokenizer.ggml.add_bos_token",
                                    ".tokenizer.ggml.add_space_prefix"};

static const char *const texts[] = {"llama",
                                    "qwen2",
                                    "qwen3",
                                    "granite",
                                    "olmo2",
                                    "exaone4",
                                    "glm4",
                                    "phi3",
                                    "mistral3",
                                    "seed_oss",
                                    "smollm3",
                                    "arcee",
                                    "ernie4_5",
                                    "hunyuan-dense",
                                    "gpt2",
                                    "none",
                                    "linear",
                                    "yarn",
                                    "longrope",
                                    "llama-bpe",
                                    "smollm",
                                    "tekken",
                                    "falcon",
                                    "default",
                                    "deepseek-llm",
                                    "nfkc",
                                    "lowercase",
                                    "split \\s+|\\p{L}{1,3}",
                                    "prepend \xe2\x96\x81",
                                    "space \xe2\x96\x81",
                                    "<0x41>",
                                    ""};

static const char *const tensors[] = {
    "token_embd.weight",          "output.weight",
    "output_norm.weight",         "rope_freqs.weight",
    "rope_factors_long.weight",   "rope_factors_short.weight",
    "blk.0.attn_norm.weight",     "blk.0.attn_q.weight",
    "blk.0.attn_k.weight",        "blk.0.attn_v.weight",
    "blk.0.attn_q.bias",          "blk.0.attn_k.bias",
    "blk.0.attn_v.bias",          "blk.0.attn_qkv.weight",
    "blk.0.attn_output.weight",   "blk.0.attn_q_norm.weight",
    "blk.0.attn_k_norm.weight",   "blk.0.post_attention_norm.weight",
    "blk.0.ffn_norm.weight",      "blk.0.ffn_gate.weight",
    "blk.0.ffn_up.weight",        "blk.0.ffn_down.weight",
    "blk.0.post_ffw_norm.weight", "blk.1.attn_norm.weight"};

/* Bytes of a number, 0 of what is none. */
static size_t bytes_of(uint64_t type) {
    static const uint8_t bytes[TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < TYPES ? bytes[type] : 0;
}

/* ---- what is there ---------------------------------------------------------------------- */

/* Behind n bytes, or behind a string; 0 where the file ends before. */
static size_t skip(const mutation *m, size_t at, uint64_t n) {
    return at > 0 && at <= m->size && n <= m->size - at ? at + (size_t)n : 0;
}

static size_t skip_text(const mutation *m, size_t at) {
    const size_t begin = skip(m, at, 8);
    return begin ? skip(m, begin, mutate_get(m->data + at, 8)) : 0;
}

static size_t skip_value(const mutation *m, size_t at, uint64_t type) {
    if (type == STRING) return skip_text(m, at);
    if (type != ARRAY) return bytes_of(type) ? skip(m, at, bytes_of(type)) : 0;
    size_t end = skip(m, at, 12);
    if (!end) return 0;
    const uint64_t element = mutate_get(m->data + at, 4), n = mutate_get(m->data + at + 4, 8);
    if (bytes_of(element)) return n < m->size ? skip(m, end, n * bytes_of(element)) : 0;
    if (element != STRING) return 0;
    for (uint64_t i = 0; i < n && end; i++) end = skip_text(m, end);
    return end;
}

static size_t skip_key(const mutation *m, size_t name_end) {
    const size_t at = skip(m, name_end, 4);
    return at ? skip_value(m, at, mutate_get(m->data + name_end, 4)) : 0;
}

static size_t skip_tensor(const mutation *m, size_t name_end) {
    const size_t at = skip(m, name_end, 4);
    return at ? skip(m, at, 8 * mutate_get(m->data + name_end, 4) + 12) : 0;
}

static size_t find(entry *out, const mutation *m, size_t *at, uint64_t n,
                   size_t (*skip_rest)(const mutation *m, size_t name_end)) {
    size_t found = 0;
    for (; found < n && found < MOST_ENTRIES; found++) {
        entry e = {.at = *at, .name_end = skip_text(m, *at)};
        e.end = e.name_end ? skip_rest(m, e.name_end) : 0;
        if (!e.end) break;
        out[found] = e;
        *at = e.end;
    }
    return found;
}

static bool find_all(layout *l, const mutation *m) {
    if (m->size < HEADER) return false;
    l->end = HEADER;
    l->n_keys = find(l->keys, m, &l->end, mutate_get(m->data + KEYS_AT, 8), skip_key);
    l->n_tensors = find(l->tensors, m, &l->end, mutate_get(m->data + TENSORS_AT, 8), skip_tensor);
    return true;
}

/* ---- what takes its place --------------------------------------------------------------- */

static size_t put_text(uint8_t *out, const char *text, size_t size) {
    mutate_set(out, 8, size);
    memcpy(out + 8, text, size);
    return 8 + size;
}

/* Names of an architecture get its prefix, those that begin with a dot are whole behind it. */
static size_t put_name(mutation *m, uint8_t *out) {
    const char *name = MUTATE_ANY(m, names);
    const char *arch = mutate_one_in(m, 2) ? MUTATE_ANY(m, texts) : "llama";
    char text[96];
    if (name[0] == '.') return put_text(out, name + 1, strlen(name) - 1);
    const int size = snprintf(text, sizeof text, "%.20s.%s", arch, name);
    return put_text(out, text, (size_t)size);
}

static size_t put_scalar(mutation *m, uint8_t *out, uint64_t type) {
    static const float floats[] = {0, 1, -1, 0.5F, 1e-5F, 1e4F, 1e30F, 3e38F};
    const size_t bytes = bytes_of(type);
    if (type == STRING) {
        const char *text = MUTATE_ANY(m, texts);
        return put_text(out, text, strlen(text));
    }
    mutate_set(out, bytes, mutate_number(m, 8));
    if (type == 6 && !mutate_one_in(m, 4)) memcpy(out, &MUTATE_ANY(m, floats), 4);
    return bytes;
}

static size_t put_value(mutation *m, uint8_t *out, uint64_t type) {
    size_t size = 12;
    if (type != ARRAY) return put_scalar(m, out, type);
    const uint64_t element = mutate_draw(m, TYPES), n = mutate_draw(m, element == STRING ? 5 : 20);
    mutate_set(out, 4, element);
    mutate_set(out + 4, 8, mutate_one_in(m, 8) ? mutate_number(m, n) : n);
    for (uint64_t i = 0; i < n && element != ARRAY; i++) {
        size += put_scalar(m, out + size, element);
    }
    return size;
}

static size_t put_key(mutation *m, uint8_t *out) {
    const size_t name = put_name(m, out);
    const uint64_t type = mutate_draw(m, TYPES);
    mutate_set(out + name, 4, type);
    return name + 4 + put_value(m, out + name + 4, type);
}

/* ---- changes; a change of the number of entries is added to *n --------------------------- */

/* The bytes of a string become others, and its length theirs. */
static bool change_text(mutation *m, size_t at) {
    const size_t before = m->size, size = (size_t)mutate_get(m->data + at, 8);
    if (mutate_one_in(m, 32)) {
        mutate_set(m->data + at, 8, mutate_number(m, size));
        return true;
    }
    if (!mutate_bytes(m, at + 8, size)) return false;
    mutate_set(m->data + at, 8, size + m->size - before);
    return true;
}

/* One of the strings of an array goes, comes twice, or becomes another. */
static bool change_strings(mutation *m, size_t at, uint64_t n) {
    size_t begin = at + 12;
    if (n == 0) return false;
    for (size_t i = mutate_draw(m, (size_t)n); i > 0; i--) begin = skip_text(m, begin);
    const size_t size = skip_text(m, begin) - begin;
    switch (mutate_draw(m, 4)) {
    case 0: mutate_set(m->data + at + 4, 8, n - 1); return mutate_splice(m, begin, size, NULL, 0);
    case 1:
        mutate_set(m->data + at + 4, 8, n + 1);
        return mutate_splice(m, begin, 0, m->data + begin, size);
    default: return change_text(m, begin);
    }
}

static bool change_array(mutation *m, size_t at) {
    const uint64_t element = mutate_get(m->data + at, 4), n = mutate_get(m->data + at + 4, 8);
    const size_t bytes = bytes_of(element), i = (size_t)mutate_draw(m, (size_t)n);
    switch (mutate_draw(m, 8)) {
    case 0: mutate_set(m->data + at, 4, mutate_draw(m, TYPES + 1)); return true;
    case 1: mutate_set(m->data + at + 4, 8, mutate_number(m, n)); return true;
    default: break;
    }
    if (element == STRING) return change_strings(m, at, n);
    uint8_t value[8];
    const size_t place = at + 12 + i * bytes;
    put_scalar(m, value, element);
    switch (mutate_draw(m, n > 0 ? 3 : 1)) {
    case 0: mutate_set(m->data + at + 4, 8, n + 1); return mutate_splice(m, place, 0, value, bytes);
    case 1: mutate_set(m->data + at + 4, 8, n - 1); return mutate_splice(m, place, bytes, NULL, 0);
    default: memcpy(m->data + place, value, bytes); return true;
    }
}

static bool change_value(mutation *m, const entry *key) {
    uint8_t value[MOST_VALUE];
    const size_t at = key->name_end + 4;
    uint64_t type = mutate_get(m->data + key->name_end, 4);
    if (type == STRING && mutate_one_in(m, 2)) return change_text(m, at);
    if (type == ARRAY && !mutate_one_in(m, 4)) return change_array(m, at);
    if (mutate_one_in(m, 4)) type = mutate_draw(m, TYPES);
    mutate_set(m->data + key->name_end, 4, mutate_one_in(m, 32) ? TYPES : type);
    return mutate_splice(m, at, key->end - at, value, put_value(m, value, type));
}

static bool change_tensor(mutation *m, const entry *t) {
    const size_t dims = (size_t)mutate_get(m->data + t->name_end, 4), at = t->name_end + 4;
    uint8_t *type = m->data + at + 8 * dims, *dim = m->data + at + 8 * mutate_draw(m, dims);
    static const uint8_t one[8] = {1};
    switch (mutate_draw(m, 6)) {
    case 0: mutate_set(type, 4, mutate_draw(m, 42)); return true;
    case 1: mutate_set(type + 4, 8, mutate_number(m, mutate_get(type + 4, 8))); return true;
    case 2: mutate_set(type + 4, 8, ALIGN * mutate_draw(m, 64)); return true;
    case 3:
        mutate_set(m->data + t->name_end, 4, dims + 1);
        return mutate_splice(m, t->end - 12, 0, one, sizeof one);
    case 4:
        if (dims == 0) return false;
        mutate_set(m->data + t->name_end, 4, dims - 1);
        return mutate_splice(m, t->end - 20, 8, NULL, 0);
    default:
        if (dims > 0) mutate_set(dim, 8, mutate_number(m, mutate_get(dim, 8)));
        return dims > 0;
    }
}

static bool change_name(mutation *m, const entry *e, bool is_key, const entry *another) {
    uint8_t name[128];
    const char *tensor = MUTATE_ANY(m, tensors);
    const size_t n = e->name_end - e->at;
    switch (mutate_draw(m, 3)) {
    case 0: return change_text(m, e->at);
    case 1:
        return mutate_splice(m, e->at, n, m->data + another->at, another->name_end - another->at);
    default:
        return mutate_splice(m, e->at, n, name,
                             is_key ? put_name(m, name) : put_text(name, tensor, strlen(tensor)));
    }
}

/* Of the keys, or of the tensors. */
static bool change_entries(mutation *m, const entry *list, uint64_t *n, bool is_key) {
    const entry *e = &list[mutate_draw(m, (size_t)*n)],
                *another = &list[mutate_draw(m, (size_t)*n)];
    switch (mutate_draw(m, 10)) {
    case 0: *n -= 1; return mutate_splice(m, e->at, e->end - e->at, NULL, 0);
    case 1:
        *n += 1;
        return mutate_splice(m, e->at, 0, m->data + another->at, another->end - another->at);
    case 2:
    case 3: return change_name(m, e, is_key, another);
    default: return is_key ? change_value(m, e) : change_tensor(m, e);
    }
}

static bool insert(mutation *m, size_t at, uint64_t *n, const uint8_t *bytes, size_t size) {
    *n += 1;
    return mutate_splice(m, at, 0, bytes, size);
}

/* A key or a tensor of another file. */
static bool take(mutation *m, const layout *l, uint64_t *n_keys, uint64_t *n_tensors) {
    static layout theirs;
    const mutation other = {.data = (uint8_t *)m->other, .size = m->other_size};
    if (!find_all(&theirs, &other)) return false;
    const bool key = theirs.n_tensors == 0 || !mutate_one_in(m, 3);
    const size_t n = key ? theirs.n_keys : theirs.n_tensors;
    if (n == 0) return false;
    const entry *e = &(key ? theirs.keys : theirs.tensors)[mutate_draw(m, n)];
    const size_t place = l->n_keys == 0 ? HEADER : l->keys[l->n_keys - 1].end;
    return insert(m, place, key ? n_keys : n_tensors, m->other + e->at, e->end - e->at);
}

static bool change_data(mutation *m, size_t end) {
    const size_t n = m->size - end;
    if (n == 0) return false;
    if (mutate_one_in(m, 8)) {
        m->size = end + mutate_draw(m, n);
        return true;
    }
    const size_t at = mutate_draw(m, n);
    return mutate_bytes(m, end + at, n - at < 64 ? n - at : 64);
}

static bool change(mutation *m, const layout *l, uint64_t *n_keys, uint64_t *n_tensors) {
    uint8_t key[MOST_VALUE + 128];
    if (m->other) return take(m, l, n_keys, n_tensors);
    const size_t what = mutate_draw(m, 16);
    if (what < 7 && l->n_keys > 0) return change_entries(m, l->keys, n_keys, true);
    if (what < 12 && l->n_tensors > 0) return change_entries(m, l->tensors, n_tensors, false);
    if (what > 13) return insert(m, HEADER, n_keys, key, put_key(m, key));
    const size_t at = mutate_one_in(m, 2) ? TENSORS_AT : KEYS_AT;
    if (mutate_one_in(m, 4)) {
        mutate_set(m->data + VERSION_AT, 4, mutate_draw(m, 5));
    } else {
        mutate_set(m->data + at, 8, mutate_number(m, mutate_get(m->data + at, 8)));
    }
    return true;
}

/* Behind a change of what stands before them the data begin at a multiple of 32 as before. */
static bool pad(mutation *m, size_t end, size_t before) {
    static const uint8_t zeros[ALIGN];
    const size_t was = (ALIGN - end % ALIGN) % ALIGN, now = end + m->size - before;
    if (before - end < was || now > m->size || m->size - now < was) return true;
    return mutate_splice(m, now, was, zeros, (ALIGN - now % ALIGN) % ALIGN);
}

bool mutate_structure(mutation *m) {
    static layout l;
    const size_t before = m->size;
    if (!find_all(&l, m)) return false;
    uint64_t n_keys = l.n_keys, n_tensors = l.n_tensors;
    if (mutate_one_in(m, 16)) return change_data(m, l.end);
    if (!change(m, &l, &n_keys, &n_tensors)) return false;
    if (mutate_one_in(m, 16)) return true;
    if (n_keys != l.n_keys) mutate_set(m->data + KEYS_AT, 8, n_keys);
    if (n_tensors != l.n_tensors) mutate_set(m->data + TENSORS_AT, 8, n_tensors);
    return pad(m, l.end, before);
}
