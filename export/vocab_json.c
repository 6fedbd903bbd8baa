/* The tokenizer.json of Hugging Face: byte-level BPE, and SentencePiece's BPE. */
#include "export/vocab_json.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "export/vocab_added.h"
#include "export/vocab_read.h"
#include "text/bpe_text.h"
#include "text/spm.h"

#include <stdlib.h>
#include <string.h>

/* ---- tokens ---- */

/* Ids must be dense, so none can reach the number of entries. */
static int64_t take_id(cca_json_reader *r, const json_t *value, const char *text, int64_t most) {
    int64_t id = json_integer_value(value);
    if (json_is_integer(value) && id >= 0 && id < most) return id;
    cca_json_refuse(r, "the id of \"%.100s\" is none of 0 … %lld", text, (long long)most - 1);
    return -1;
}

static void read_pieces(cca_vocab *vocab, cca_json_reader *r, const json_t *pieces, int64_t most) {
    const char *text;
    json_t *value;
    json_object_foreach((json_t *)pieces, text, value) {
        int64_t id = take_id(r, value, text, most);
        if (id >= 0 && vocab->pieces[id].bytes) {
            cca_json_refuse(r, "model.vocab: \"%.100s\" and \"%.100s\" both have the id %lld",
                            vocab->pieces[id].bytes, text, (long long)id);
        }
        if (r->status) return;
        vocab->pieces[id] = (cca_gguf_string){text, strlen(text)};
        vocab->types[id] = CCA_SPM_NORMAL;
    }
}

static void read_tokens(cca_vocab *vocab, cca_json_reader *r, const json_t *pieces) {
    const json_t *added = cca_json_field(vocab->json, "added_tokens");
    int64_t most = (int64_t)(json_object_size(pieces) + json_array_size(added));
    if (json_object_size(pieces) == 0 || most > INT32_MAX) {
        cca_json_refuse(r, "model.vocab has %zu tokens", json_object_size(pieces));
        return;
    }
    r->status = cca_vocab_alloc(vocab, most, r->err);
    if (!r->status) read_pieces(vocab, r, pieces, most);
    vocab->n = most;
    for (int64_t i = 0; i < most && !r->status; i++) {
        if (vocab->pieces[i].bytes) vocab->n_own = i + 1;
    }
    for (size_t i = 0; i < json_array_size(added) && !r->status; i++) {
        const json_t *entry = json_array_get(added, i);
        const char *text = cca_json_string(r, entry, "content", "");
        int64_t id = take_id(r, json_object_get(entry, "id"), text, most);
        cca_added token;
        if (cca_added_read(&token, r, entry, id)) cca_vocab_add(vocab, r, &token);
    }
    if (r->status) return;
    while (vocab->pieces[most - 1].bytes == NULL) most--;
    vocab->n = most;
    for (int64_t i = 0; i < most; i++) {
        if (!vocab->pieces[i].bytes) cca_json_refuse(r, "no token has the id %lld", (long long)i);
    }
}

/* ---- merges ---- */

typedef struct pair {
    const char *left, *right;
    size_t left_size, right_size;
} pair;

/* Two spellings: "a b" and ["a", "b"]. */
static bool read_pair(pair *out, const json_t *merge) {
    const char *text = json_string_value(merge), *space = text ? strchr(text, ' ') : NULL;
    const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
    *out = (pair){json_string_value(left), json_string_value(right), json_string_length(left),
                  json_string_length(right)};
    if (!text) {
        return json_array_size(merge) == 2 && out->left && out->right && !strchr(out->left, ' ');
    }
    if (!space) return false;
    size_t size = (size_t)(space - text);
    *out = (pair){text, space + 1, size, json_string_length(merge) - size - 1};
    return true;
}

/* The merges become "a b". */
static void read_merges(cca_vocab *vocab, cca_json_reader *r, const json_t *merges) {
    size_t n = json_array_size(merges), room = 1;
    pair p;
    if (!json_is_array(merges)) cca_json_refuse(r, "model.merges is no list");
    for (size_t i = 0; i < n && !r->status; i++) {
        if (!read_pair(&p, json_array_get(merges, i))) {
            cca_json_refuse(r, "model.merges: element %zu is no pair, or has a space", i);
        }
        room += p.left_size + 1 + p.right_size;
    }
    if (r->status) return;
    vocab->merges = malloc((n + 1) * sizeof *vocab->merges);
    vocab->text = malloc(room);
    if (!vocab->merges || !vocab->text) {
        r->status = cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory for %zu merges", r->path, n);
        return;
    }
    char *text = vocab->text;
    for (size_t i = 0; i < n; i++) {
        (void)read_pair(&p, json_array_get(merges, i));
        memcpy(text, p.left, p.left_size);
        text[p.left_size] = ' ';
        memcpy(text + p.left_size + 1, p.right, p.right_size);
        vocab->merges[i] = (cca_gguf_string){text, p.left_size + 1 + p.right_size};
        text += vocab->merges[i].size;
    }
    vocab->n_merges = (int64_t)n;
}

/* ---- SentencePiece's kind ---- */

/* The id of the piece of size bytes, -1 if there is none. */
static int64_t find_piece(const json_t *pieces, const char *text, size_t size) {
    const json_t *id = json_object_getn(pieces, text, size);
    return id ? json_integer_value(id) : -1;
}

/* A set of the pieces' hashes, which those of all beginnings and all ends of a text are compared
 * with in time linear in its size: a hash is the number whose digits are the text's bytes. */
typedef struct piece_set {
    uint64_t *slots; /* a power of two, the highest index of them is mask; 0 is free */
    size_t mask;
    bool *is_end; /* [longest piece]: whether a piece begins there and ends with the text */
} piece_set;

static const uint64_t hash_base = UINT64_C(0x9e3779b97f4a7c15);

static uint64_t *slot_of(const piece_set *set, uint64_t hash) {
    size_t at = cca_hash_number(hash) & set->mask;
    while (set->slots[at] != 0 && set->slots[at] != hash) at = (at + 1) & set->mask;
    return &set->slots[at];
}

static void piece_set_free(piece_set *set) {
    free(set->slots);
    free(set->is_end);
}

static bool piece_set_new(piece_set *set, const cca_vocab *vocab) {
    size_t n_slots = 16, longest = 1;
    while (n_slots < 2 * (size_t)vocab->n) n_slots *= 2;
    for (int64_t i = 0; i < vocab->n; i++) {
        if (vocab->pieces[i].size > longest) longest = vocab->pieces[i].size;
    }
    *set = (piece_set){calloc(n_slots, sizeof *set->slots), n_slots - 1,
                       calloc(longest, sizeof *set->is_end)};
    if (!set->slots || !set->is_end) return false;
    for (int64_t i = 0; i < vocab->n; i++) {
        uint64_t hash = 0;
        cca_gguf_string piece = vocab->pieces[i];
        for (size_t k = 0; k < piece.size; k++) hash = hash * hash_base + (uint8_t)piece.bytes[k];
        *slot_of(set, hash) = hash;
    }
    return true;
}

/* Number of ways to put a piece together from two others, as far as most + 1. */
static int64_t count_splits(piece_set *set, const json_t *pieces, cca_gguf_string piece,
                            int64_t most) {
    uint64_t power = 1, end = 0, begin = 0;
    int64_t n = 0;
    for (size_t at = piece.size; at-- > 0; power *= hash_base) {
        end += power * (uint8_t)piece.bytes[at];
        set->is_end[at] = *slot_of(set, end) == end;
    }
    for (size_t at = 1; at < piece.size && n <= most; at++) {
        begin = begin * hash_base + (uint8_t)piece.bytes[at - 1];
        if (cca_utf8_continues(piece.bytes[at])) continue; /* within a character */
        n += set->is_end[at] && *slot_of(set, begin) == begin &&
             find_piece(pieces, piece.bytes, at) >= 0 &&
             find_piece(pieces, piece.bytes + at, piece.size - at) >= 0;
    }
    return n;
}

/* The piece that merge i makes, -1 where it or a part of it is unknown; room is as large as a
 * merge. */
static int64_t merge_result(const cca_vocab *vocab, const json_t *pieces, int64_t i, char *room) {
    cca_gguf_string merge = vocab->merges[i];
    const char *gap = memchr(merge.bytes, ' ', merge.size);
    size_t left = (size_t)(gap - merge.bytes), right = merge.size - left - 1;
    memcpy(room, merge.bytes, left);
    memcpy(room + left, gap + 1, right);
    if (find_piece(pieces, room, left) < 0 || find_piece(pieces, room + left, right) < 0) return -1;
    return find_piece(pieces, room, left + right);
}

/* SentencePiece merges the pair whose outcome has the best score, whatever the pair. So all
 * merges that make a piece must stand side by side, and none may be missing. The score is minus
 * the rank of the first of them. */
static void score_pieces(cca_vocab *vocab, cca_json_reader *r, const json_t *pieces,
                         int64_t *n_made, char *room, piece_set *set) {
    static const char *const hint = "which SentencePiece cannot do; give its tokenizer.model";
    int64_t before = -1;
    for (int64_t i = 0; i < vocab->n; i++) vocab->scores[i] = -(float)vocab->n_merges;
    for (int64_t i = 0; i < vocab->n_merges; i++) {
        int64_t id = merge_result(vocab, pieces, i, room);
        if (id < 0) {
            cca_json_refuse(r, "model.merges: element %lld is not made of and does not make tokens",
                            (long long)i);
            return;
        }
        if (n_made[id]++ == 0) vocab->scores[id] = -(float)i;
        if (n_made[id] > 1 && id != before) {
            cca_json_refuse(r, "model.merges: those that make \"%.100s\" are apart, %s",
                            vocab->pieces[id].bytes, hint);
        }
        before = id;
    }
    for (int64_t i = 0; i < vocab->n && !r->status; i++) {
        if (vocab->types[i] == CCA_SPM_NORMAL &&
            count_splits(set, pieces, vocab->pieces[i], n_made[i]) != n_made[i]) {
            cca_json_refuse(r, "model.merges: not all pairs that make \"%.100s\" are there, %s",
                            vocab->pieces[i].bytes, hint);
        }
    }
}

static void set_spm_types(cca_vocab *vocab, cca_json_reader *r) {
    for (int64_t i = 0; i < vocab->n; i++) {
        cca_gguf_string piece = vocab->pieces[i];
        bool byte = cca_spm_byte_value((cca_spm_text){piece.bytes, piece.size}) >= 0;
        if (vocab->types[i] == CCA_SPM_NORMAL && byte) vocab->types[i] = CCA_SPM_BYTE;
        if (vocab->types[i] == CCA_SPM_USER && piece.size > 0 &&
            memchr(piece.bytes, ' ', piece.size)) {
            cca_json_refuse(r, "added_tokens: \"%.100s\" has a space: that is not supported here",
                            piece.bytes);
        }
    }
    for (int64_t i = 0; i < vocab->n && !r->status; i++) {
        const char *text = vocab->pieces[i].bytes;
        if (vocab->types[i] == CCA_SPM_USER && cca_vocab_find(vocab, text) != (int32_t)i) {
            cca_json_refuse(r, "added_tokens: \"%.100s\" is another token, too", text);
        }
    }
    if (vocab->unk < 0) vocab->unk = cca_vocab_find(vocab, "<unk>"); /* version 5 names none */
    if (vocab->unk < 0) {
        cca_json_refuse(r, "neither model.unk_token nor a token <unk>");
        return;
    }
    vocab->types[vocab->unk] = CCA_SPM_UNKNOWN;
}

static void score(cca_vocab *vocab, cca_json_reader *r, const json_t *pieces) {
    size_t longest = 1;
    for (int64_t i = 0; i < vocab->n_merges; i++) {
        if (vocab->merges[i].size > longest) longest = vocab->merges[i].size;
    }
    int64_t *n_made = calloc((size_t)vocab->n, sizeof *n_made);
    char *room = malloc(longest);
    piece_set set = {0};
    if (n_made && room && piece_set_new(&set, vocab)) {
        score_pieces(vocab, r, pieces, n_made, room, &set);
    } else {
        r->status = cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory for its scores", r->path);
    }
    free(n_made);
    free(room);
    piece_set_free(&set);
    vocab->n_merges = 0; /* the scores say it all */
}

/* ---- the rest ---- */

/* A template that puts a special token in front of a text: that is BOS. */
static void read_template(cca_vocab *vocab, const json_t *processor) {
    const json_t *first = json_array_get(json_object_get(processor, "single"), 0);
    const json_t *special = json_object_get(first, "SpecialToken");
    const char *name = json_string_value(json_object_get(special, "id"));
    if (!name || strcmp(cca_vocab_json_type(processor), "TemplateProcessing") != 0) return;
    vocab->bos = cca_vocab_find(vocab, name);
    vocab->add_bos = vocab->bos >= 0;
}

static void read_post_processor(cca_vocab *vocab) {
    const json_t *processor = cca_json_field(vocab->json, "post_processor");
    const json_t *list = json_object_get(processor, "processors");
    read_template(vocab, processor);
    for (size_t i = 0; i < json_array_size(list); i++) {
        read_template(vocab, json_array_get(list, i));
    }
}

/* What changes a text in ways that are not done here. */
static void refuse_others(cca_json_reader *r, const json_t *model) {
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    if (strcmp(cca_vocab_json_type(model), "BPE") != 0) {
        cca_json_refuse(r, "model.type is \"%.100s\", not BPE", cca_vocab_json_type(model));
    }
    for (size_t i = 0; i < 2; i++) {
        if (*cca_json_string(r, model, affixes[i], "")) {
            cca_json_refuse(r, "model.%s is not empty: that is not supported", affixes[i]);
        }
    }
    if (json_number_value(json_object_get(model, "dropout")) > 0) {
        cca_json_refuse(r, "model.dropout is above 0: the ids would be random");
    }
}

/* BPE of characters falls back to bytes, all of which must be there. */
static void set_byte_types(cca_vocab *vocab, cca_json_reader *r) {
    bool found[256] = {false};
    for (int64_t i = 0; i < vocab->n; i++) {
        cca_gguf_string piece = vocab->pieces[i];
        int byte = cca_spm_byte_value((cca_spm_text){piece.bytes, piece.size});
        if (byte < 0 || vocab->types[i] != CCA_SPM_NORMAL) continue;
        vocab->types[i] = CCA_SPM_BYTE;
        found[byte] = true;
    }
    for (int byte = 0; byte < 256; byte++) {
        if (!found[byte]) {
            cca_json_refuse(r, "model.byte_fallback is true, but no token is <0x%02X>", byte);
        }
    }
}

/* Bytes without a token become the unknown one, each of them. */
static void check_unknown(cca_vocab *vocab, cca_json_reader *r, const json_t *model) {
    const json_t *pieces = json_object_get(model, "vocab");
    if (vocab->unk < 0 || !cca_json_bool(r, model, "fuse_unk", false)) return;
    for (int byte = 0; byte < 256; byte++) {
        char letter[4];
        if (find_piece(pieces, letter, cca_utf8_put(letter, cca_bpe_letter((uint8_t)byte))) >= 0) {
            continue;
        }
        cca_json_refuse(r,
                        "model.fuse_unk is true, and no token is the byte 0x%02X: that is not "
                        "supported",
                        (unsigned)byte);
    }
}

/* Tokens and merges, once the kind is known. */
static void read_lists(cca_vocab *vocab, cca_json_reader *r, const json_t *model) {
    const json_t *pieces = json_object_get(model, "vocab");
    const char *unk = cca_json_string(r, model, "unk_token", NULL);
    bool is_spm = strcmp(vocab->kind, "llama") == 0;
    if (!r->status) read_tokens(vocab, r, pieces);
    if (!r->status) read_merges(vocab, r, json_object_get(model, "merges"));
    if (r->status) return;
    vocab->unk = unk ? cca_vocab_find(vocab, unk) : -1;
    if (is_spm) set_spm_types(vocab, r);
    if (is_spm && !r->status) score(vocab, r, pieces);
    if (vocab->is_plain && !is_spm) set_byte_types(vocab, r);
    if (!vocab->is_plain) check_unknown(vocab, r, model);
}

/* As if nothing was read of the lists. */
static void drop_lists(cca_vocab *vocab) {
    free(vocab->pieces);
    free(vocab->scores);
    free(vocab->types);
    free(vocab->flags);
    free(vocab->merges);
    free(vocab->text);
    vocab->pieces = vocab->merges = NULL;
    vocab->scores = NULL;
    vocab->types = NULL;
    vocab->flags = NULL;
    vocab->text = NULL;
    vocab->n = vocab->n_own = vocab->n_merges = 0;
}

cca_status cca_vocab_read_json(cca_vocab *vocab, cca_error *err) {
    cca_status status =
        cca_json_parse(&vocab->json, vocab->file.data, vocab->file.size, vocab->path, err);
    cca_json_reader r = {.path = vocab->path, .err = err, .status = status};
    const json_t *model = cca_json_object(&r, vocab->json, "model");
    (void)cca_json_object(&r, model, "vocab");
    vocab->bos = vocab->eos = vocab->unk = vocab->pad = -1;
    vocab->add_bos = false;
    vocab->is_bpe = true;
    if (r.status) return r.status;
    refuse_others(&r, model);
    cca_vocab_json_recognise(vocab, &r, cca_json_bool(&r, model, "byte_fallback", false));
    /* What SentencePiece would cut otherwise stays BPE of characters. */
    if (!r.status && strcmp(vocab->kind, "llama") == 0) {
        cca_json_reader trial = {.path = vocab->path};
        read_lists(vocab, &trial, model);
        if (!trial.status) {
            read_post_processor(vocab);
            return CCA_OK;
        }
        drop_lists(vocab);
        vocab->kind = "gpt2";
        vocab->pre = "cca";
        vocab->prefix = NULL;
        vocab->dummy_prefix = false;
    }
    if (!r.status) read_lists(vocab, &r, model);
    if (!r.status) read_post_processor(vocab);
    return r.status;
}
