/* The vocabulary, its special tokens, and what the model file says about both. Encoding of
 * plain text is SentencePiece's (spm.h) or byte-level BPE's (bpe.h). */
#include "tokenizer.h"

#include "base/utf8.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/bpe_text.h"
#include "text/known_tokens.h"
#include "text/spm.h"

#include <stdlib.h>
#include <string.h>

typedef struct token {
    const char *piece; /* NUL-terminated */
    const char *bytes; /* what it decodes to */
    size_t piece_size, bytes_size;
    cca_spm_type type;
} token;

struct cca_tokenizer {
    cca_tokenizer_facts facts;
    cca_spm *spm; /* one of the two */
    cca_bpe *bpe;
    token *tokens; /* [vocab_size] */
    char *texts;   /* that the tokens point into */
    cca_added_list added;
    char **normal_texts; /* of some of them; the others are NULL */
    size_t n_normal_texts;
    int32_t *ends; /* tokens that end generation */
    size_t n_ends;
    int32_t byte_tokens[256];
};

/* Keys of the model file. */
static const char *const key_model = "tokenizer.ggml.model";
static const char *const key_tokens = "tokenizer.ggml.tokens";
static const char *const key_scores = "tokenizer.ggml.scores";
static const char *const key_types = "tokenizer.ggml.token_type";
static const char *const key_merges = "tokenizer.ggml.merges";
static const char *const key_pre = "tokenizer.ggml.pre";
static const char *const key_original = "cca.tokenizer.sentencepiece";
static const char *const key_steps = "cca.tokenizer.steps";
static const char *const key_ignore_merges = "cca.tokenizer.ignore_merges";
static const char *const key_plain = "cca.tokenizer.byte_fallback";

/* ---- the vocabulary ---- */

/* What a model is opened from. */
typedef struct source {
    cca_spm_model model;
    const cca_gguf *file;  /* NULL: from a model file of SentencePiece alone */
    cca_gguf_array tokens; /* of the model file; n is 0 where it has none */
    uint8_t *types;        /* cca_spm_type of each of them; NULL: the file does not say */
    cca_gguf_array merges; /* of byte-level BPE, which has no model */
    cca_gguf_string pre;
    cca_gguf_array steps; /* where pre does not say it */
    bool ignore_merges, plain;
    bool is_bpe;
    bool is_original; /* model is the file's original one, not made of its lists */
    bool add_bos;     /* where the file does not say */
    const char *name;
    cca_error *err;
} source;

static cca_status no_memory(const source *src) {
    return cca_fail(src->err, CCA_NO_MEMORY, "%s: no memory for a vocabulary of %zu tokens",
                    src->name, src->tokens.n ? (size_t)src->tokens.n : src->model.n_pieces);
}

/* Token i: of SentencePiece's model, else one that only the file lists. */
static cca_spm_piece piece_at(const source *src, size_t i) {
    if (i < src->model.n_pieces) return src->model.pieces[i];
    cca_gguf_string text = src->tokens.strings[i];
    return (cca_spm_piece){{text.bytes, text.size}, 0, (cca_spm_type)src->types[i]};
}

/* Writes what a piece decodes to, at most as long as the piece or the unknown one's surface,
 * and returns the size. */
static size_t decode_piece(char *out, const source *src, size_t i) {
    cca_spm_piece piece = piece_at(src, i);
    size_t size = 0;
    int byte = piece.type == CCA_SPM_BYTE ? cca_spm_byte_value(piece.text) : -1;
    bool silent =
        piece.type == CCA_SPM_CONTROL || (piece.type == CCA_SPM_UNUSED && i >= src->model.n_pieces);
    if (silent) return 0;
    if (piece.type == CCA_SPM_UNKNOWN) piece.text = src->model.unk_surface;
    if (byte >= 0) {
        out[size++] = (char)byte;
        return size;
    }
    for (size_t at = 0; at < piece.text.size;) {
        const char *p = piece.text.bytes + at;
        bool space = piece.text.size - at >= 3 && memcmp(p, "\xe2\x96\x81", 3) == 0;
        out[size++] = space ? ' ' : *p;
        at += space ? 3 : 1;
    }
    return size;
}

/* Room for each piece with a NUL, and for what it decodes to; never 0. */
static bool measure_texts(size_t *out, const source *src, size_t n) {
    *out = 1;
    for (size_t i = 0; i < n; i++) {
        cca_spm_piece piece = piece_at(src, i);
        size_t decoded = piece.type == CCA_SPM_UNKNOWN ? src->model.unk_surface.size : 0;
        if (!cca_add(out, *out, piece.text.size) || !cca_add(out, *out, piece.text.size + 1) ||
            !cca_add(out, *out, decoded)) {
            return false;
        }
    }
    return true;
}

static cca_status build_vocabulary(cca_tokenizer *tok, const source *src) {
    size_t n = src->model.n_pieces, bytes, texts_size;
    if (src->tokens.n > n) n = src->tokens.n;
    if (n > INT32_MAX || !cca_mul(&bytes, n + 1, sizeof *tok->tokens) ||
        !measure_texts(&texts_size, src, n)) {
        return no_memory(src);
    }
    tok->tokens = malloc(bytes);
    tok->texts = malloc(texts_size);
    if (!tok->tokens || !tok->texts) return no_memory(src);
    for (int byte = 0; byte < 256; byte++) tok->byte_tokens[byte] = -1;
    char *text = tok->texts;
    for (size_t i = 0; i < n; i++) {
        cca_spm_piece piece = piece_at(src, i);
        token *t = &tok->tokens[i];
        *t = (token){.piece = text, .piece_size = piece.text.size, .type = piece.type};
        if (piece.text.size > 0) memcpy(text, piece.text.bytes, piece.text.size);
        text += piece.text.size;
        *text++ = 0;
        t->bytes = text;
        t->bytes_size = decode_piece(text, src, i);
        text += t->bytes_size;
        int byte = piece.type == CCA_SPM_BYTE ? cca_spm_byte_value(piece.text) : -1;
        if (byte >= 0 && tok->byte_tokens[byte] < 0) tok->byte_tokens[byte] = (int32_t)i;
    }
    tok->facts.vocab_size = (int32_t)n;
    return CCA_OK;
}

/* ---- added tokens ---- */

/* Sets flag of the tokens that a key lists. */
static cca_status read_flag(uint8_t *flags, size_t n, const source *src, const char *key,
                            uint8_t flag) {
    cca_gguf_array ids;
    cca_status status = cca_gguf_arr(&ids, src->file, key, false, src->err);
    if (!status && ids.strings) {
        status = cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of token ids",
                          cca_gguf_name(src->file), key);
    }
    for (uint64_t i = 0; i < ids.n && !status; i++) {
        double id = cca_gguf_array_number(&ids, i);
        if (id >= 0 && id < (double)n) flags[(size_t)id] |= flag;
    }
    return status;
}

/* How the tokens are looked for; SentencePiece knows no normalised ones. */
static cca_status read_flags(uint8_t *flags, size_t n, const source *src) {
    static const struct {
        const char *key;
        uint8_t flag;
    } keys[] = {{"cca.normalized_token_ids", CCA_ADDED_NORMALIZED},
                {"cca.lstrip_token_ids", CCA_ADDED_LSTRIP},
                {"cca.rstrip_token_ids", CCA_ADDED_RSTRIP},
                {"cca.single_word_token_ids", CCA_ADDED_SINGLE_WORD}};
    cca_status status = CCA_OK;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && src->file && !status; i++) {
        bool known = src->is_bpe || keys[i].flag != CCA_ADDED_NORMALIZED;
        if (known) status = read_flag(flags, n, src, keys[i].key, keys[i].flag);
    }
    return status;
}

/* What the tokens look like that are looked for in normalised texts. */
static cca_status normalize_added(cca_tokenizer *tok, const source *src) {
    cca_added_list *list = &tok->added;
    cca_status status = CCA_OK;
    if (list->n == 0 || !tok->bpe) return CCA_OK;
    tok->normal_texts = calloc(list->n, sizeof *tok->normal_texts);
    if (!tok->normal_texts) return no_memory(src);
    tok->n_normal_texts = list->n;
    size_t kept = 0;
    for (size_t i = 0; i < list->n && !status; i++) {
        cca_added_token t = list->tokens[i];
        char **text = &tok->normal_texts[i];
        if (t.flags & CCA_ADDED_NORMALIZED) {
            status = cca_bpe_normalize(text, &t.size, tok->bpe, t.text, t.size, src->err);
            if (*text) t.text = *text;
        }
        if (t.size > 0) list->tokens[kept++] = t;
    }
    if (!status) list->n = kept;
    return status;
}

static cca_status collect_added(cca_tokenizer *tok, const source *src, const uint8_t *flags) {
    cca_added_list *list = &tok->added;
    size_t n = (size_t)tok->facts.vocab_size, n_added = 0;
    for (size_t i = 0; i < n; i++) {
        n_added += tok->tokens[i].type == CCA_SPM_CONTROL || tok->tokens[i].type == CCA_SPM_USER;
    }
    list->tokens = malloc((n_added + 1) * sizeof *list->tokens);
    if (!list->tokens) return no_memory(src);
    for (size_t i = 0; i < n; i++) {
        const token *t = &tok->tokens[i];
        bool user = t->type == CCA_SPM_USER;
        if ((!user && t->type != CCA_SPM_CONTROL) || t->piece_size == 0) continue;
        /* SentencePiece itself finds the user-defined pieces that it knows. */
        cca_added_token added = {t->piece, t->piece_size, (int32_t)i, flags[i]};
        bool found = user && i >= src->model.n_pieces;
        if (!found) added.flags |= CCA_ADDED_CONTROL;
        if (found && !src->is_bpe) {
            added.text = t->bytes;
            added.size = t->bytes_size;
        }
        list->tokens[list->n++] = added;
    }
    return CCA_OK;
}

static cca_status find_added(cca_tokenizer *tok, const source *src) {
    size_t n = (size_t)tok->facts.vocab_size;
    uint8_t *flags = calloc(n + 1, 1);
    if (!flags) return no_memory(src);
    cca_status status = read_flags(flags, n, src);
    if (!status) status = collect_added(tok, src, flags);
    if (!status) status = normalize_added(tok, src);
    if (!status) cca_added_sort(&tok->added);
    free(flags);
    return status;
}

/* ---- what the model file says ---- */

/* Reads an id, at most the vocabulary's last; *out stays as it is where there is none. */
static cca_status read_id(int32_t *out, const cca_tokenizer *tok, const source *src,
                          const char *key) {
    int32_t id;
    cca_status status = cca_gguf_token(&id, src->file, key, src->err);
    if (status) return status;
    if (id >= tok->facts.vocab_size) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is %d, the vocabulary has %d tokens",
                        cca_gguf_name(src->file), key, id, tok->facts.vocab_size);
    }
    if (id >= 0) *out = id;
    return CCA_OK;
}

static cca_status read_ids(cca_tokenizer *tok, const source *src) {
    cca_tokenizer_facts *f = &tok->facts;
    cca_status status = read_id(&f->bos, tok, src, "tokenizer.ggml.bos_token_id");
    if (!status) status = read_id(&f->eos, tok, src, "tokenizer.ggml.eos_token_id");
    if (!status) status = read_id(&f->unk, tok, src, "tokenizer.ggml.unknown_token_id");
    if (!status) status = read_id(&f->pad, tok, src, "tokenizer.ggml.padding_token_id");
    if (!status) {
        status = cca_gguf_bool(&f->add_bos, src->file, "tokenizer.ggml.add_bos_token",
                               &src->add_bos, src->err);
    }
    f->add_bos = f->add_bos && f->bos >= 0;
    return status;
}

/* Tokens that end a turn by their name alone. */
static void add_named_ends(cca_tokenizer *tok) {
    bool found[CCA_N_KNOWN_TOKENS] = {false};
    for (int32_t i = 0; i < tok->facts.vocab_size; i++) {
        const token *t = &tok->tokens[i];
        if (t->type != CCA_SPM_CONTROL) continue;
        const cca_known_token *known = cca_known_token_find(t->piece, t->piece_size);
        if (!known || !known->ends || found[known->number]) continue;
        tok->ends[tok->n_ends++] = i;
        found[known->number] = true;
    }
}

/* The end of a text, the end of a turn, and others that the file lists. */
static cca_status read_ends(cca_tokenizer *tok, const source *src) {
    static const char *const key = "cca.end_token_ids";
    cca_gguf_array more = {.n = 0};
    int32_t single[] = {tok->facts.eos, -1, -1}; /* of a text, a turn, a message */
    const size_t n_single = sizeof single / sizeof *single;
    if (src->file) {
        cca_status status = cca_gguf_arr(&more, src->file, key, false, src->err);
        if (!status) status = read_id(&single[1], tok, src, "tokenizer.ggml.eot_token_id");
        if (!status) status = read_id(&single[2], tok, src, "tokenizer.ggml.eom_token_id");
        if (status) return status;
    }
    if (more.n > (uint64_t)tok->facts.vocab_size || (more.n > 0 && more.strings)) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of token ids",
                        cca_gguf_name(src->file), key);
    }
    tok->ends = malloc(((size_t)more.n + n_single + CCA_N_KNOWN_TOKENS) * sizeof *tok->ends);
    if (!tok->ends) return no_memory(src);
    for (size_t i = 0; i < n_single; i++) {
        if (single[i] >= 0) tok->ends[tok->n_ends++] = single[i];
    }
    if (src->file) add_named_ends(tok);
    for (uint64_t i = 0; i < more.n; i++) {
        double id = cca_gguf_array_number(&more, i);
        if (!(id >= 0 && id < tok->facts.vocab_size)) {
            return cca_fail(src->err, CCA_BAD_MODEL,
                            "%s: element %llu of %s is %g, the vocabulary has %d tokens",
                            cca_gguf_name(src->file), (unsigned long long)i, key, id,
                            tok->facts.vocab_size);
        }
        tok->ends[tok->n_ends++] = (int32_t)id;
    }
    return CCA_OK;
}

/* ---- opening ---- */

static cca_status fill_spm(cca_tokenizer *tok, const source *src) {
    const cca_spm_model *model = &src->model;
    tok->facts = (cca_tokenizer_facts){
        .kind = "sentencepiece",
        .bos = model->bos,
        .eos = model->eos,
        .unk = model->unk,
        .pad = model->pad,
        .add_bos = model->bos >= 0,
        .dummy_prefix = model->add_dummy_prefix && !model->whitespace_suffix,
    };
    cca_status status = build_vocabulary(tok, src);
    if (!status && src->file) status = read_ids(tok, src);
    if (!status) status = read_ends(tok, src);
    if (!status) status = find_added(tok, src);
    if (!status) status = cca_spm_open(&tok->spm, model, src->name, src->err);
    return status;
}

static cca_status open_bpe(cca_tokenizer *tok, const source *src) {
    size_t n = src->tokens.n;
    cca_bpe_vocab vocab = {
        .tokens = src->tokens.strings,
        .n_tokens = n,
        .merges = src->merges.strings,
        .n_merges = src->merges.n,
        .pre = src->pre,
        .steps = src->steps.strings,
        .n_steps = src->steps.n,
        .whole_words = src->ignore_merges,
        .plain = src->plain,
        .unk = tok->facts.unk,
    };
    bool *apart = malloc(n + 1);
    if (!apart) return no_memory(src);
    for (size_t i = 0; i < n; i++) {
        cca_spm_type type = tok->tokens[i].type;
        apart[i] = type != CCA_SPM_NORMAL && !(src->plain && type == CCA_SPM_BYTE);
    }
    vocab.apart = apart;
    cca_status status = cca_bpe_new(&tok->bpe, &vocab, cca_gguf_name(src->file), src->err);
    free(apart);
    return status;
}

/* The bytes of the tokens that carry text. */
static void take_bpe_bytes(cca_tokenizer *tok, bool plain) {
    for (int32_t i = 0; i < tok->facts.vocab_size; i++) {
        token *t = &tok->tokens[i];
        if ((t->type == CCA_SPM_NORMAL && !plain) || t->type == CCA_SPM_USER) {
            t->bytes = cca_bpe_bytes(&t->bytes_size, tok->bpe, i);
        }
    }
    for (int byte = 0; byte < 256; byte++) {
        tok->byte_tokens[byte] = cca_bpe_byte_token(tok->bpe, (uint8_t)byte);
    }
}

static cca_status fill_bpe(cca_tokenizer *tok, const source *src) {
    tok->facts = (cca_tokenizer_facts){.kind = "bpe", .bos = -1, .eos = -1, .unk = -1, .pad = -1};
    for (uint64_t i = 0; i < src->steps.n && src->plain; i++) {
        cca_gguf_string step = src->steps.strings[i];
        bool leads = step.size > 5 && memcmp(step.bytes, "lead", 4) == 0;
        bool prepends = step.size > 8 && memcmp(step.bytes, "prepend ", 8) == 0;
        if (leads || prepends) tok->facts.dummy_prefix = true;
    }
    cca_status status = build_vocabulary(tok, src);
    if (!status) status = read_ids(tok, src);
    if (!status) status = open_bpe(tok, src);
    if (status) return status;
    take_bpe_bytes(tok, src->plain);
    status = read_ends(tok, src);
    return !status ? find_added(tok, src) : status;
}

static cca_status open_source(cca_tokenizer **out, const source *src) {
    cca_tokenizer *tok = calloc(1, sizeof *tok);
    if (!tok) return no_memory(src);
    cca_status status = src->is_bpe ? fill_bpe(tok, src) : fill_spm(tok, src);
    if (!status) {
        *out = tok;
    } else {
        cca_tokenizer_close(tok);
    }
    return status;
}

cca_status cca_tokenizer_from_sentencepiece(cca_tokenizer **out, const void *model, size_t size,
                                            const char *name, cca_error *err) {
    *out = NULL;
    source src = {.name = name, .err = err};
    cca_status status = cca_spm_model_read(&src.model, model, size, name, err);
    if (!status) status = open_source(out, &src);
    cca_spm_model_free(&src.model);
    return status;
}

/* Types that the file does not say, or calls undefined: those of the tokens that its keys name are
 * known, bytes by their form (not to byte-level BPE), and what BPE could not spell was added.
 * Behind an original model tokens without types are padding. */
static cca_status settle_undefined(source *src, bool padding) {
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
                                       "tokenizer.ggml.padding_token_id"};
    uint64_t n = src->tokens.n;
    int32_t id;
    cca_status status = cca_gguf_token(&id, src->file, "tokenizer.ggml.unknown_token_id", src->err);
    bool known = !status && id >= 0 && (uint64_t)id < n;
    if (known && src->types[id] == CCA_SPM_UNDEFINED) src->types[id] = CCA_SPM_UNKNOWN;
    for (size_t k = 0; k < sizeof keys / sizeof *keys && !status; k++) {
        bool is_unknown = false;
        status = cca_gguf_token(&id, src->file, keys[k], src->err);
        known = !status && id >= 0 && (uint64_t)id < n;
        if (known) is_unknown = src->is_bpe && src->types[id] == CCA_SPM_UNKNOWN;
        if (known && (src->types[id] == CCA_SPM_UNDEFINED || is_unknown)) {
            src->types[id] = CCA_SPM_CONTROL;
        }
    }
    for (uint64_t i = 0; i < n; i++) {
        cca_gguf_string text = src->tokens.strings[i];
        bool byte = (!src->is_bpe || src->plain) &&
                    cca_spm_byte_value((cca_spm_text){text.bytes, text.size}) >= 0;
        bool added = src->is_bpe && !src->plain && !cca_bpe_is_word(text);
        if (src->types[i] != CCA_SPM_UNDEFINED) continue;
        src->types[i] = padding ? CCA_SPM_UNUSED
                        : byte  ? CCA_SPM_BYTE
                        : added ? CCA_SPM_USER
                                : CCA_SPM_NORMAL;
    }
    return status;
}

/* The types of the file's tokens, of which well-known ones are control tokens in any case. */
static cca_status settle_types(source *src, const cca_gguf_array *types) {
    uint64_t n = src->tokens.n;
    src->types = calloc(n + 1, sizeof *src->types);
    if (!src->types) return no_memory(src);
    for (uint64_t i = 0; i < n && types->n > 0; i++) {
        double type = cca_gguf_array_number(types, i);
        if (!(type >= CCA_SPM_UNDEFINED && type <= CCA_SPM_BYTE)) {
            return cca_fail(src->err, CCA_BAD_MODEL, "%s: element %llu of %s is %g, not 0 to 6",
                            cca_gguf_name(src->file), (unsigned long long)i, key_types, type);
        }
        src->types[i] = (uint8_t)type;
    }
    for (uint64_t i = 0; i < n; i++) {
        cca_gguf_string text = src->tokens.strings[i];
        const cca_known_token *known = cca_known_token_find(text.bytes, text.size);
        bool control = known && known->always && src->types[i] != CCA_SPM_UNUSED;
        if (control) src->types[i] = CCA_SPM_CONTROL;
    }
    return settle_undefined(src, types->n == 0 && src->is_original);
}

/* The file's list of tokens, and their types, which must fit each other. */
static cca_status read_lists(source *src, bool required) {
    const char *file = cca_gguf_name(src->file);
    cca_gguf_array types;
    cca_status status = cca_gguf_arr(&src->tokens, src->file, key_tokens, required, src->err);
    if (!status) status = cca_gguf_arr(&types, src->file, key_types, false, src->err);
    if (status) return status;
    if (src->tokens.n > 0 && !src->tokens.strings) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of strings", file, key_tokens);
    }
    if (types.strings || (types.n > 0 && types.n != src->tokens.n)) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of %llu numbers", file,
                        key_types, (unsigned long long)src->tokens.n);
    }
    return settle_types(src, &types);
}

/* What the file's list calls control or user-defined is so, though the original says normal. */
static void take_listed_types(source *src) {
    for (size_t i = 0; i < src->model.n_pieces && i < src->tokens.n; i++) {
        cca_spm_piece *piece = &src->model.pieces[i];
        bool plain = piece->type == CCA_SPM_NORMAL || piece->type == CCA_SPM_USER;
        bool marked = src->types[i] == CCA_SPM_CONTROL || src->types[i] == CCA_SPM_USER;
        if (plain && marked) piece->type = (cca_spm_type)src->types[i];
    }
}

/* The original model, and perhaps more tokens behind its own. */
static cca_status read_original(source *src) {
    cca_gguf_array bytes;
    src->is_original = true;
    cca_status status = cca_gguf_arr(&bytes, src->file, key_original, true, src->err);
    if (!status && bytes.type != CCA_GGUF_U8 && bytes.type != CCA_GGUF_I8) {
        status = cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of bytes",
                          cca_gguf_name(src->file), key_original);
    }
    if (!status) status = read_lists(src, false);
    if (!status) {
        status = cca_spm_model_read(&src->model, bytes.data, (size_t)bytes.n, src->name, src->err);
    }
    if (!status && src->tokens.n > 0 && src->tokens.n < src->model.n_pieces) {
        status = cca_fail(src->err, CCA_BAD_MODEL, "%s: %s has %llu tokens, %s has %zu",
                          cca_gguf_name(src->file), key_tokens, (unsigned long long)src->tokens.n,
                          key_original, src->model.n_pieces);
    }
    if (!status) take_listed_types(src);
    return status;
}

/* One piece is the unknown one, to SentencePiece. Files made from a tokenizer.json call it a
 * control token, as llama.cpp's converter does, and an earlier converter called padding unknown,
 * too. Then it is the one that the key names, or the first; the others stand in no text, like
 * control tokens. */
static cca_status settle_unknown(source *src) {
    cca_spm_model *model = &src->model;
    size_t first = 0, n = model->n_pieces;
    while (first < n && model->pieces[first].type != CCA_SPM_UNKNOWN) first++;
    cca_spm_type among = first < n ? CCA_SPM_UNKNOWN : CCA_SPM_CONTROL;
    size_t usual = first < n ? first : 0;
    int32_t id;
    cca_status status = cca_gguf_token(&id, src->file, "tokenizer.ggml.unknown_token_id", src->err);
    if (status) return status;
    size_t unknown = id >= 0 ? (size_t)id : usual;
    if (unknown >= n || model->pieces[unknown].type != among) unknown = usual;
    for (size_t i = first; i < n; i++) {
        if (model->pieces[i].type == CCA_SPM_UNKNOWN) model->pieces[i].type = CCA_SPM_CONTROL;
    }
    if (unknown < n && model->pieces[unknown].type == CCA_SPM_CONTROL) {
        model->pieces[unknown].type = CCA_SPM_UNKNOWN;
    }
    return CCA_OK;
}

/* A model made of the file's lists. */
static cca_status rebuild(source *src) {
    cca_spm_model *model = &src->model;
    cca_gguf_array scores;
    bool prefix = true;
    cca_status status = read_lists(src, true);
    if (!status) status = cca_gguf_arr(&scores, src->file, key_scores, true, src->err);
    if (!status) {
        status = cca_gguf_bool(&model->add_dummy_prefix, src->file,
                               "tokenizer.ggml.add_space_prefix", &prefix, src->err);
    }
    if (status) return status;
    if (scores.strings || scores.n != src->tokens.n) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of %llu numbers",
                        cca_gguf_name(src->file), key_scores, (unsigned long long)src->tokens.n);
    }
    for (size_t i = 0; i < src->tokens.n; i++) {
        cca_gguf_string text = src->tokens.strings[i];
        cca_spm_type type = (cca_spm_type)src->types[i];
        float score = (float)cca_gguf_array_number(&scores, i);
        if (!cca_spm_model_push(model, (cca_spm_piece){{text.bytes, text.size}, score, type})) {
            return no_memory(src);
        }
        model->byte_fallback |= type == CCA_SPM_BYTE;
    }
    status = settle_unknown(src);
    return !status ? cca_spm_model_check(model, src->name, src->err) : status;
}

static bool is(cca_gguf_string text, const char *word) {
    return text.size == strlen(word) && memcmp(text.bytes, word, text.size) == 0;
}

/* A way with texts of the file's own. */
static cca_status read_steps(source *src) {
    const char *name = cca_gguf_name(src->file);
    cca_status status = cca_gguf_arr(&src->steps, src->file, key_steps, true, src->err);
    bool off = false;
    if (!status && !src->steps.strings) {
        status = cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of strings", name, key_steps);
    }
    if (!status) {
        status = cca_gguf_bool(&src->ignore_merges, src->file, key_ignore_merges, &off, src->err);
    }
    return status ? status : cca_gguf_bool(&src->plain, src->file, key_plain, &off, src->err);
}

static cca_status read_bpe(source *src) {
    src->is_bpe = true;
    src->add_bos = false;
    bool own = cca_gguf_has(src->file, key_steps);
    cca_status status = own ? read_steps(src) : CCA_OK;
    if (!status) status = read_lists(src, true);
    if (!status) status = cca_gguf_arr(&src->merges, src->file, key_merges, true, src->err);
    if (!status && !own) status = cca_gguf_str(&src->pre, src->file, key_pre, NULL, src->err);
    if (!status && src->merges.n > 0 && !src->merges.strings) {
        return cca_fail(src->err, CCA_BAD_MODEL, "%s: %s is no list of strings",
                        cca_gguf_name(src->file), key_merges);
    }
    const cca_pre *pre = own || status ? NULL : cca_pre_find(src->pre);
    if (pre) src->add_bos = pre->add_bos;
    return status;
}

typedef cca_status reader(source *src);

/* Names the file and the key in front of messages. */
static cca_status open_file(cca_tokenizer **out, const cca_gguf *file, reader *read,
                            cca_error *err) {
    char name[sizeof err->text / 2];
    size_t n = 0;
    const char *key = read == read_original ? key_original : key_tokens;
    const char *parts[] = {cca_gguf_name(file), ": ", key};
    for (size_t i = 0; i < 3; i++) {
        for (const char *p = parts[i]; *p && n + 1 < sizeof name; p++) name[n++] = *p;
    }
    name[n] = 0;
    source src = {.file = file, .add_bos = true, .name = name, .err = err};
    cca_spm_model_init(&src.model);
    cca_status status = read(&src);
    if (!status) status = open_source(out, &src);
    cca_spm_model_free(&src.model);
    free(src.types);
    return status;
}

cca_status cca_tokenizer_open(cca_tokenizer **out, const cca_gguf *file, cca_error *err) {
    *out = NULL;
    if (cca_gguf_has(file, key_original)) return open_file(out, file, read_original, err);
    if (!cca_gguf_has(file, key_model) && !cca_gguf_has(file, key_tokens)) return CCA_OK;
    cca_gguf_string kind;
    cca_status status = cca_gguf_str(&kind, file, key_model, NULL, err);
    if (status || is(kind, "no_vocab") || is(kind, "none")) return status;
    if (is(kind, "llama")) return open_file(out, file, rebuild, err);
    if (is(kind, "gpt2")) return open_file(out, file, read_bpe, err);
    return cca_fail(err, CCA_BAD_MODEL, "%s: %s is \"%.*s\", a kind that is not supported",
                    cca_gguf_name(file), key_model, kind.size < 100 ? (int)kind.size : 100,
                    kind.bytes);
}

void cca_tokenizer_close(cca_tokenizer *tok) {
    if (!tok) return;
    cca_spm_close(tok->spm);
    cca_bpe_free(tok->bpe);
    free(tok->tokens);
    free(tok->texts);
    for (size_t i = 0; i < tok->n_normal_texts; i++) free(tok->normal_texts[i]);
    free(tok->normal_texts);
    free(tok->added.tokens);
    free(tok->ends);
    free(tok);
}

/* ---- encoding ---- */

static cca_status push(cca_tokens *out, int32_t id, uint64_t offset, cca_error *err) {
    if (cca_tokens_push(out, id, offset)) return CCA_OK;
    return cca_fail(err, CCA_NO_MEMORY, "no memory for %zu tokens", out->n + 1);
}

/* Text without the tokens that are looked for in it as it is. */
static cca_status encode_plain(cca_tokens *out, const cca_tokenizer *tok, const char *text,
                               size_t from, size_t end, unsigned flags, cca_error *err) {
    bool start = flags & CCA_ENCODE_START;
    if (tok->spm) return cca_spm_encode(out, tok->spm, text + from, end - from, from, start, err);
    cca_added_search added = {&tok->added, flags & CCA_ENCODE_SPECIAL, .normalized = true};
    cca_bpe_text part = {text + from, end - from, from, from > 0 || !start, &added};
    return cca_bpe_encode(out, tok->bpe, &part, err);
}

/* BOS that stands at the start already is the one that the text writes out. */
static bool is_there(const cca_tokens *out, const cca_tokenizer *tok, int32_t id) {
    return id == tok->facts.bos && out->n > 0 && out->ids[out->n - 1] == id;
}

static cca_status encode(cca_tokens *out, const cca_tokenizer *tok, const char *text, size_t size,
                         unsigned flags, cca_error *err) {
    size_t before = out->n, from = 0;
    cca_status status = CCA_OK;
    cca_found found = {.next = 0};
    /* The dummy prefix may be the space that a token begins with. */
    bool led = tok->spm && flags & CCA_ENCODE_START && tok->facts.dummy_prefix;
    cca_added_search search = {&tok->added, flags & CCA_ENCODE_SPECIAL, .led = led};
    while (!status && cca_added_find(&found, &search, text, size)) {
        bool start = flags & CCA_ENCODE_START, first = start && found.begin == from;
        if (from < found.begin) {
            status = encode_plain(out, tok, text, from, found.begin, flags, err);
        }
        if (!status && !(start && found.begin == 0 && is_there(out, tok, found.id))) {
            status = push(out, found.id, found.begin, err);
        }
        /* Only BOS written out leaves what follows the start of the text. */
        if (!first || found.id != tok->facts.bos) flags &= ~(unsigned)CCA_ENCODE_START;
        from = found.end;
    }
    if (!status) status = encode_plain(out, tok, text, from, size, flags, err);
    if (status) out->n = before;
    return status;
}

cca_status cca_tokenizer_encode(cca_tokens *out, const cca_tokenizer *tok, const char *text,
                                size_t size, unsigned flags, cca_error *err) {
    if (!(flags & CCA_ENCODE_SPACE)) return encode(out, tok, text, size, flags, err);
    char *spaced = malloc(size + 1);
    if (!spaced) return cca_fail(err, CCA_NO_MEMORY, "no memory for a text of %zu bytes", size);
    spaced[0] = ' ';
    if (size > 0) memcpy(spaced + 1, text, size);
    size_t n = out->n;
    cca_status status = encode(out, tok, spaced, size + 1, flags, err);
    for (; n < out->n; n++) out->offsets[n] -= out->offsets[n] > 0;
    free(spaced);
    return status;
}

/* ---- facts ---- */

static const token *token_at(const cca_tokenizer *tok, int32_t id) {
    return id >= 0 && id < tok->facts.vocab_size ? &tok->tokens[id] : NULL;
}

const cca_tokenizer_facts *cca_tokenizer_info(const cca_tokenizer *tok) {
    return &tok->facts;
}

const char *cca_tokenizer_bytes(size_t *size, const cca_tokenizer *tok, int32_t id, bool special) {
    const token *t = token_at(tok, id);
    bool name = special && t && (t->type == CCA_SPM_CONTROL || t->type == CCA_SPM_UNKNOWN);
    *size = !t ? 0 : name ? t->piece_size : t->bytes_size;
    return !t ? "" : name ? t->piece : t->bytes;
}

const char *cca_tokenizer_piece(const cca_tokenizer *tok, int32_t id) {
    const token *t = token_at(tok, id);
    return t ? t->piece : "";
}

bool cca_tokenizer_is_control(const cca_tokenizer *tok, int32_t id) {
    const token *t = token_at(tok, id);
    return t && t->type == CCA_SPM_CONTROL;
}

int32_t cca_tokenizer_byte_token(const cca_tokenizer *tok, uint8_t byte) {
    return tok->byte_tokens[byte];
}

bool cca_tokenizer_is_end(const cca_tokenizer *tok, int32_t id) {
    for (size_t i = 0; i < tok->n_ends; i++) {
        if (tok->ends[i] == id) return true;
    }
    return false;
}
