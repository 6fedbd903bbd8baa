/* Tokens that were added to a vocabulary: tokenizer.json, tokenizer_config.json and
 * added_tokens.json list them, each perhaps others. */
#include "export/vocab_added.h"

#include "export/vocab_json.h"
#include "text/added_tokens.h"
#include "text/spm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_BEHIND = 1 << 16 }; /* ids behind the vocabulary's own: a few bytes may name the last */

static const char space[] = "\xe2\x96\x81"; /* ▁ */

static bool is_text(const cca_vocab *vocab, int64_t id, const char *text) {
    cca_gguf_string piece = vocab->pieces[id];
    return piece.size == strlen(text) && memcmp(piece.bytes, text, piece.size) == 0;
}

bool cca_added_read(cca_added *out, cca_json_reader *r, const json_t *token, int64_t id) {
    static const struct {
        const char *key;
        uint8_t flag;
    } keys[] = {{"single_word", CCA_ADDED_SINGLE_WORD},
                {"lstrip", CCA_ADDED_LSTRIP},
                {"rstrip", CCA_ADDED_RSTRIP}};
    out->text = cca_json_string(r, token, "content", "");
    out->id = id;
    out->special = cca_json_bool(r, token, "special", false);
    out->flags = 0;
    if (cca_json_bool(r, token, "normalized", !out->special)) out->flags = CCA_ADDED_NORMALIZED;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (cca_json_bool(r, token, keys[i].key, false)) out->flags |= keys[i].flag;
    }
    if (!*out->text) cca_json_refuse(r, "added_tokens: a token without content");
    return !r->status;
}

/* ---- texts --------------------------------------------------------------------------- */

static cca_status no_memory(cca_json_reader *r) {
    return cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory for its tokens", r->path);
}

/* Takes the reference to value, which lives as long as the vocabulary. */
static void keep(cca_vocab *vocab, cca_json_reader *r, json_t *value) {
    if (!vocab->kept) vocab->kept = json_array();
    if (json_array_append_new(vocab->kept, value) != 0 && !r->status) r->status = no_memory(r);
}

static const char *keep_text(cca_vocab *vocab, cca_json_reader *r, const char *text, size_t size) {
    json_t *value = json_stringn(text, size);
    keep(vocab, r, value);
    return r->status ? "" : json_string_value(value);
}

/* ▁ for spaces, and in front where the normalizer puts one there. */
static const char *escape(cca_vocab *vocab, cca_json_reader *r, const char *text) {
    char *out = malloc(3 * (strlen(text) + 1)), *end = out;
    if (!out) {
        r->status = no_memory(r);
        return "";
    }
    if (vocab->escape == CCA_ESCAPE_PREFIX) end = (char *)mempcpy(end, space, 3);
    for (; *text; text++) {
        if (*text == ' ') {
            end = (char *)mempcpy(end, space, 3);
        } else {
            *end++ = *text;
        }
    }
    const char *kept = keep_text(vocab, r, out, (size_t)(end - out));
    free(out);
    return kept;
}

/* ---- tokens -------------------------------------------------------------------------- */

/* SentencePiece finds user-defined pieces itself, in its own way. */
static void check_flags(cca_vocab *vocab, cca_json_reader *r, const cca_added *token, bool own) {
    bool known = own || !vocab->is_sentencepiece;
    unsigned unlike = CCA_ADDED_LSTRIP | CCA_ADDED_RSTRIP | CCA_ADDED_SINGLE_WORD;
    if (token->special || !known || !(token->flags & unlike)) return;
    cca_json_refuse(
        r,
        "added_tokens: %s of \"%.100s\" is true: of a token that is not special that is "
        "not supported in SentencePiece's kind",
        token->flags & CCA_ADDED_LSTRIP   ? "lstrip"
        : token->flags & CCA_ADDED_RSTRIP ? "rstrip"
                                          : "single_word",
        token->text);
}

void cca_vocab_add(cca_vocab *vocab, cca_json_reader *r, const cca_added *token) {
    int64_t id = token->id, last = vocab->n_own + MOST_BEHIND - 1;
    if (id < 0 || id > last) {
        cca_json_refuse(r, "added_tokens: the id of \"%.100s\" is none of 0 … %lld", token->text,
                        (long long)last);
    }
    if (!r->status) r->status = cca_vocab_grow(vocab, id + 1, r->err);
    if (r->status) return;
    const char *own = vocab->pieces[id].bytes;
    if (own && !is_text(vocab, id, token->text)) {
        cca_json_refuse(r, "added_tokens: \"%.100s\" has the id %lld, which is \"%.*s\"",
                        token->text, (long long)id, (int)cca_min(vocab->pieces[id].size, 100), own);
        return;
    }
    int32_t type = vocab->types[id];
    if (own && (type == CCA_SPM_UNKNOWN || type == CCA_SPM_BYTE)) return;
    /* Of an original model only the type can be told. */
    bool renamed = !(own && vocab->is_sentencepiece);
    bool is_spm = strcmp(vocab->kind, "llama") == 0;
    bool escaped = is_spm && renamed && !token->special && token->flags & CCA_ADDED_NORMALIZED &&
                   vocab->escape != CCA_ESCAPE_NONE;
    const char *text = escaped ? escape(vocab, r, token->text) : token->text;
    if (is_spm) check_flags(vocab, r, token, own);
    if (r->status) return;
    if (renamed) vocab->pieces[id] = (cca_gguf_string){text, strlen(text)};
    if (!own) vocab->scores[id] = 0;
    vocab->types[id] = token->special ? CCA_SPM_CONTROL : CCA_SPM_USER;
    vocab->flags[id] = is_spm ? token->flags & (uint8_t)~CCA_ADDED_NORMALIZED : token->flags;
}

/* ---- the files beside ---------------------------------------------------------------- */

/* A JSON file in the folder of the vocabulary's, NULL where there is none. The reader names it. */
static json_t *load_beside(cca_vocab *vocab, cca_json_reader *r, const char *name) {
    const char *slash = strrchr(vocab->path, '/');
    int folder = slash ? (int)(slash - vocab->path) + 1 : 0;
    char path[4096];
    json_t *out = NULL;
    int size = snprintf(path, sizeof path, "%.*s%s", folder, vocab->path, name);
    if (r->status || size >= (int)sizeof path || access(path, F_OK) != 0) return NULL;
    r->status = cca_json_load(&out, path, r->err);
    if (r->status) return NULL;
    keep(vocab, r, out);
    r->path = keep_text(vocab, r, path, (size_t)size);
    return r->status ? NULL : out;
}

/* Whether an object names the text as one of its special tokens. */
static bool names_special(const json_t *object, const char *text) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        size_t n = json_is_array(value) ? json_array_size(value) : 1;
        if (!strstr(key, "_token")) continue;
        for (size_t i = 0; i < n; i++) {
            const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
            if (json_is_object(one)) one = json_object_get(one, "content");
            const char *name = json_string_value(one);
            if (name && strcmp(name, text) == 0) return true;
        }
    }
    return false;
}

static bool looks_special(const char *text) {
    size_t size = strlen(text);
    return size > 4 && strncmp(text, "<|", 2) == 0 && strcmp(text + size - 2, "|>") == 0;
}

/* Whether a lesser list may still say what the token of an id is. */
static bool is_open(const cca_vocab *vocab, int64_t id, const char *text) {
    bool known = id >= 0 && id < vocab->n && vocab->pieces[id].bytes;
    bool own = known && id < vocab->n_own && vocab->is_sentencepiece;
    return !known || (own && !is_text(vocab, id, text)) ||
           (own && vocab->types[id] == CCA_SPM_NORMAL);
}

/* "ID": {"content": …} */
static void add_decoder(cca_vocab *vocab, cca_json_reader *r, const json_t *decoder) {
    const char *key;
    json_t *entry;
    cca_added token;
    json_object_foreach((json_t *)decoder, key, entry) {
        char *end;
        long long id = strtoll(key, &end, 10);
        const char *text = json_string_value(json_object_get(entry, "content"));
        if (end == key || *end || !text) {
            cca_json_refuse(r, "added_tokens_decoder: \"%.100s\" is no token", key);
        }
        if (r->status) return;
        if (is_open(vocab, id, text) && cca_added_read(&token, r, entry, id)) {
            cca_vocab_add(vocab, r, &token);
        }
    }
}

/* "TEXT": ID; what kind of token it is others say, or its looks. */
static void add_map(cca_vocab *vocab, cca_json_reader *r, const json_t *map, const json_t *config,
                    const json_t *specials) {
    const char *text;
    json_t *value;
    json_object_foreach((json_t *)map, text, value) {
        cca_added token = {.text = text,
                           .id = json_is_integer(value) ? json_integer_value(value) : -1};
        token.special =
            looks_special(text) || names_special(config, text) || names_special(specials, text);
        if (!*text) cca_json_refuse(r, "a token without text");
        if (r->status) return;
        if (is_open(vocab, token.id, text)) cca_vocab_add(vocab, r, &token);
    }
}

/* Where an original model's texts get a space in front: as tokenizer.json has it, else as
 * transformers does without one, in its older way or the newer. A configuration that does not say
 * which means the older, but of Mistral's vocabularies from version 3 on, which have [INST]. */
static void settle_prefix(cca_vocab *vocab, const json_t *tokenizer, const json_t *config) {
    const json_t *legacy = json_object_get(config, "legacy");
    int32_t inst = cca_vocab_find(vocab, "[INST]");
    bool third = !legacy && inst >= 0 && vocab->types[inst] == CCA_SPM_CONTROL;
    bool older = !tokenizer && !third && !json_is_false(legacy);
    vocab->escape = older ? CCA_ESCAPE_PREFIX : CCA_ESCAPE_SPACES;
    if (tokenizer) {
        (void)cca_vocab_json_prefix(vocab, tokenizer);
    } else if (config) {
        vocab->prefix = older ? "prepend" : "first";
    }
}

static bool is_named(const cca_vocab *vocab, const char *name) {
    const char *slash = strrchr(vocab->path, '/');
    return strcmp(slash ? slash + 1 : vocab->path, name) == 0;
}

cca_status cca_vocab_add_beside(cca_vocab *vocab, cca_error *err) {
    cca_json_reader r = {.path = vocab->path, .err = err};
    bool original = vocab->is_sentencepiece && is_named(vocab, "tokenizer.model");
    if (!original && !is_named(vocab, "tokenizer.json")) return CCA_OK;
    cca_json_reader of_json = r, of_config = r, of_map = r, of_specials = r;
    const json_t *tokenizer = original ? load_beside(vocab, &of_json, "tokenizer.json") : NULL;
    const json_t *config = load_beside(vocab, &of_config, "tokenizer_config.json");
    const json_t *map = load_beside(vocab, &of_map, "added_tokens.json");
    const json_t *specials = load_beside(vocab, &of_specials, "special_tokens_map.json");
    cca_json_reader *all[] = {&of_json, &of_config, &of_map, &of_specials};
    for (size_t i = 0; i < 4; i++) {
        if (all[i]->status) return all[i]->status;
    }
    if (original) settle_prefix(vocab, tokenizer, config);
    const json_t *added = json_object_get(tokenizer, "added_tokens");
    for (size_t i = 0; i < json_array_size(added) && !of_json.status; i++) {
        cca_added token;
        const json_t *entry = json_array_get(added, i), *id = json_object_get(entry, "id");
        if (cca_added_read(&token, &of_json, entry,
                           json_is_integer(id) ? json_integer_value(id) : -1)) {
            cca_vocab_add(vocab, &of_json, &token);
        }
    }
    if (of_json.status) return of_json.status;
    add_decoder(vocab, &of_config, json_object_get(config, "added_tokens_decoder"));
    if (of_config.status) return of_config.status;
    add_map(vocab, &of_map, map, config, specials);
    return of_map.status;
}
