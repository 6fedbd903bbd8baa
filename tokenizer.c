/* The vocabulary, its special tokens, and what the model file says about both. Encoding of
 * plain text is SentencePiece's (spm.h) or byte-level BPE's (bpe.h). */
#include "tokenizer.h"

#include "base/utf8.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/known_tokens.h"
#include "text/tokenizer_source.h"

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
    cca_prefix prefix;
};

typedef cca_tokenizer_source source;

static const char underline[] = "\xe2\x96\x81"; /* a space in pieces */

/* ---- the vocabulary ---- */

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
        bool space = piece.text.size - at >= 3 && memcmp(p, underline, 3) == 0;
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
        return cca_tokenizer_source_no_memory(src);
    }
    tok->tokens = malloc(bytes);
    tok->texts = malloc(texts_size);
    if (!tok->tokens || !tok->texts) return cca_tokenizer_source_no_memory(src);
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
    cca_status status = CCA_OK;
    for (size_t i = 0; i < CCA_N_ADDED_KEYS && src->file && !status; i++) {
        const cca_added_key *key = &cca_added_keys[i];
        bool known = src->kind == CCA_TOKENIZER_BPE || key->flag != CCA_ADDED_NORMALIZED;
        if (known) status = read_flag(flags, n, src, key->name, key->flag);
    }
    return status;
}

/* What the tokens look like that are looked for in normalised texts. */
static cca_status normalize_added(cca_tokenizer *tok, const source *src) {
    cca_added_list *list = &tok->added;
    cca_status status = CCA_OK;
    if (list->n == 0 || !tok->bpe) return CCA_OK;
    tok->normal_texts = calloc(list->n, sizeof *tok->normal_texts);
    if (!tok->normal_texts) return cca_tokenizer_source_no_memory(src);
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
    if (!list->tokens) return cca_tokenizer_source_no_memory(src);
    for (size_t i = 0; i < n; i++) {
        const token *t = &tok->tokens[i];
        bool user = t->type == CCA_SPM_USER;
        if ((!user && t->type != CCA_SPM_CONTROL) || t->piece_size == 0) continue;
        /* SentencePiece itself finds the user-defined pieces that it knows, as parts of a text. */
        cca_added_token added = {t->piece, t->piece_size, (int32_t)i, flags[i]};
        bool found = user && (i >= src->model.n_pieces || tok->prefix == CCA_PREFIX_PREPEND ||
                              tok->prefix == CCA_PREFIX_LEAD);
        if (!found) added.flags |= CCA_ADDED_CONTROL;
        if (found && src->kind != CCA_TOKENIZER_BPE) {
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
    if (!flags) return cca_tokenizer_source_no_memory(src);
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
    if (!tok->ends) return cca_tokenizer_source_no_memory(src);
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
    tok->prefix = src->prefix;
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
    if (!apart) return cca_tokenizer_source_no_memory(src);
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
    if (!tok) return cca_tokenizer_source_no_memory(src);
    cca_status status = src->kind == CCA_TOKENIZER_BPE ? fill_bpe(tok, src) : fill_spm(tok, src);
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
    source src;
    cca_status status = cca_tokenizer_source_of_sentencepiece(&src, model, size, name, err);
    if (!status) status = open_source(out, &src);
    cca_tokenizer_source_free(&src);
    return status;
}

cca_status cca_tokenizer_open(cca_tokenizer **out, const cca_gguf *file, cca_error *err) {
    *out = NULL;
    source src;
    cca_status status = cca_tokenizer_source_read(&src, file, err);
    if (!status && src.kind != CCA_TOKENIZER_NONE) status = open_source(out, &src);
    cca_tokenizer_source_free(&src);
    return status;
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

static const token *token_at(const cca_tokenizer *tok, int32_t id) {
    return id >= 0 && id < tok->facts.vocab_size ? &tok->tokens[id] : NULL;
}

static bool begins_with_space(const char *text, size_t size) {
    return (size > 0 && *text == ' ') || (size >= 3 && memcmp(text, underline, 3) == 0);
}

/* Whether what stands behind a token is a part of its own. Normalised tokens, which the prefix is
 * part of, are cut out of a part once it has its prefix. */
static bool ends_part(const cca_tokenizer *tok, int32_t id) {
    const token *t = token_at(tok, id);
    bool added = t && (t->type == CCA_SPM_CONTROL || t->type == CCA_SPM_USER);
    bool normalized = added && tok->prefix == CCA_PREFIX_PREPEND && t->piece_size >= 3 &&
                      memcmp(t->piece, underline, 3) == 0;
    return added && !normalized;
}

/* Whether a text gets the dummy prefix; first: it is the whole text's first part. */
static bool is_led(const cca_tokenizer *tok, const cca_tokens *before, bool first, const char *text,
                   size_t size) {
    int32_t last = before->n > 0 ? before->ids[before->n - 1] : -1;
    switch (tok->prefix) {
    case CCA_PREFIX_FIRST: return first || (last >= 0 && last == tok->facts.bos);
    case CCA_PREFIX_PREPEND: return first || ends_part(tok, last);
    case CCA_PREFIX_LEAD: return (first || ends_part(tok, last)) && !begins_with_space(text, size);
    case CCA_PREFIX_LEAD_FIRST: return first && !begins_with_space(text, size);
    }
    return first;
}

bool cca_tokenizer_leads(const cca_tokenizer *tok, const cca_tokens *before, const char *text,
                         size_t size, unsigned flags) {
    if (flags & CCA_ENCODE_SPACE) return true;
    bool first = flags & CCA_ENCODE_START;
    return tok->facts.dummy_prefix && is_led(tok, before, first, text, size);
}

/* Text without the tokens that are looked for in it as it is. */
static cca_status encode_plain(cca_tokens *out, const cca_tokenizer *tok, const char *text,
                               size_t from, size_t end, unsigned flags, cca_error *err) {
    bool start = flags & CCA_ENCODE_START && from == 0;
    if (tok->spm) {
        start = is_led(tok, out, start, text + from, end - from);
        return cca_spm_encode(out, tok->spm, text + from, end - from, from, start, err);
    }
    cca_added_search added = {&tok->added, flags & CCA_ENCODE_SPECIAL, .normalized = true};
    cca_bpe_text part = {text + from, end - from, from, !start, &added};
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
    bool spm = tok->spm && tok->facts.dummy_prefix, start = flags & CCA_ENCODE_START;
    cca_added_search search = {
        .list = &tok->added,
        .asked = flags & CCA_ENCODE_SPECIAL,
        .led = spm && is_led(tok, out, start, text, size),
        .parts_led = spm && tok->prefix == CCA_PREFIX_PREPEND,
    };
    while (!status && cca_added_find(&found, &search, text, size)) {
        bool lone = from == found.begin && found.spaced && !found.led && spm &&
                    is_led(tok, out, start && from == 0, text + from, size - from);
        if (lone) status = cca_spm_encode(out, tok->spm, " ", 1, from, false, err);
        if (from < found.begin) {
            status = encode_plain(out, tok, text, from, found.begin, flags, err);
        }
        if (!status && !(start && found.begin == 0 && is_there(out, tok, found.id))) {
            status = push(out, found.id, found.begin, err);
        }
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
