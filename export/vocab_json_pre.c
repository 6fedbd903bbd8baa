/* A tokenizer.json's way with texts, as steps (text/bpe_text.h). */
#include "export/vocab_json.h"
#include "text/bpe_text.h"

#include <string.h>

static const char space[] = "\xe2\x96\x81"; /* ▁ */

/* As Rust has it. */
#define WORD                                                                                       \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{200c}\\x{200d}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"  \
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

typedef struct maker {
    cca_json_reader *r;
    json_t *steps;             /* strings */
    const char *part;          /* of the file, for messages */
    bool cuts, bytes, letters; /* a step has cut the text; ByteLevel was there, and told */
} maker;

/* ---- fields ---- */

const char *cca_vocab_json_type(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "";
}

static bool is_a(const json_t *part, const char *type) {
    return strcmp(cca_vocab_json_type(part), type) == 0;
}

static bool flag(maker *m, const json_t *part, const char *key, bool fallback) {
    return cca_json_bool(m->r, part, key, fallback);
}

static const char *text_of(maker *m, const json_t *part, const char *key) {
    const char *text = cca_json_string(m->r, part, key, NULL);
    if (!text) {
        cca_json_refuse(m->r, "%s: %s has no %s", m->part, cca_vocab_json_type(part), key);
    }
    return text ? text : "";
}

/* ---- steps ---- */

static void add(maker *m, const char *word, const char *argument) {
    json_t *step = *argument ? json_sprintf("%s %s", word, argument) : json_string(word);
    bool fits = json_array_size(m->steps) < CCA_MAX_STEPS;
    if (!fits) cca_json_refuse(m->r, "%s has more than %d steps", m->part, CCA_MAX_STEPS);
    if ((!step || json_array_append(m->steps, step) != 0) && !m->r->status) {
        m->r->status =
            cca_fail(m->r->err, CCA_NO_MEMORY, "%s: no memory for %s", m->r->path, m->part);
    }
    json_decref(step);
}

/* One that changes the text must come before those that cut it. */
static void add_change(maker *m, const char *word, const char *argument) {
    if (m->cuts) {
        cca_json_refuse(m->r,
                        "%s: a part that changes the text behind one that cuts it is not "
                        "supported",
                        m->part);
    }
    add(m, word, argument);
}

/* Of the names that the file has for what happens to matches. */
static const char *behaviour(maker *m, const json_t *part, bool invert) {
    static const char *const names[][3] = {
        {"Isolated", "isolated", "isolated-not"},           {"Removed", "removed", "removed-not"},
        {"MergedWithPrevious", "previous", "previous-not"}, {"MergedWithNext", "next", "next-not"},
        {"Contiguous", "contiguous", "contiguous-not"},
    };
    const char *name = text_of(m, part, "behavior");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i][0], name) == 0) return names[i][invert ? 2 : 1];
    }
    cca_json_refuse(m->r, "%s: behavior \"%.100s\" is not known", m->part, name);
    return "";
}

static void cut(maker *m, const char *word, const char *pattern) {
    cca_pattern compiled;
    if (m->bytes && !m->letters) add(m, "letters", "");
    m->letters = m->bytes;
    if (m->r->status) return;
    m->r->status = cca_pattern_open(&compiled, pattern, strlen(pattern), m->r->path, m->r->err);
    cca_pattern_close(&compiled);
    m->cuts = true;
    add(m, word, pattern);
}

/* The size of {"Regex": …} or {"String": …} as a pattern, which is written to out unless that is
 * NULL. Control characters are spelled out. */
static size_t spell(char *out, const char *text, bool literal) {
    size_t n = 0;
    for (; *text; text++) {
        static const char controls[] = "\t\n\r", letters[] = "tnr";
        char c = *text;
        const char *control = strchr(controls, c);
        bool letter = (c | 32) >= 'a' && (c | 32) <= 'z', digit = c >= '0' && c <= '9';
        bool escaped = control || (literal && c > 0 && !letter && !digit);
        if (escaped && out) out[n] = '\\';
        n += escaped;
        if (out) out[n] = control ? letters[control - controls] : c;
        n++;
    }
    if (out) out[n] = 0;
    return n;
}

/* A pattern, to be freed; NULL where it is refused. */
static char *pattern_of(maker *m, const json_t *part) {
    const json_t *pattern = json_object_get(part, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *string = json_string_value(json_object_get(pattern, "String"));
    if (!regex && !string) {
        cca_json_refuse(m->r, "%s: %s without a pattern", m->part, cca_vocab_json_type(part));
        return NULL;
    }
    char *out = malloc(spell(NULL, regex ? regex : string, !regex) + 1);
    if (out) {
        (void)spell(out, regex ? regex : string, !regex);
    } else if (!m->r->status) {
        m->r->status =
            cca_fail(m->r->err, CCA_NO_MEMORY, "%s: no memory for %s", m->r->path, m->part);
    }
    return out;
}

/* ---- normalizer ---- */

static void replace(maker *m, const json_t *part) {
    cca_pattern compiled;
    char *pattern = pattern_of(m, part);
    if (!pattern) return;
    if (!m->r->status) {
        m->r->status = cca_pattern_open(&compiled, pattern, strlen(pattern), m->r->path, m->r->err);
        cca_pattern_close(&compiled);
    }
    add_change(m, "replace", pattern);
    free(pattern);
    const char *content = cca_json_string(m->r, part, "content", "");
    add(m, *content ? "with" : "with ", content);
}

static void normalize(maker *m, const json_t *part) {
    static const char *const forms[][2] = {{"NFC", "nfc"},
                                           {"NFD", "nfd"},
                                           {"NFKC", "nfkc"},
                                           {"NFKD", "nfkd"},
                                           {"Lowercase", "lowercase"}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (is_a(part, forms[i][0])) {
            add_change(m, forms[i][1], "");
            return;
        }
    }
    if (is_a(part, "Strip")) {
        if (flag(m, part, "strip_left", false)) add_change(m, "strip left", "");
        if (flag(m, part, "strip_right", false)) add_change(m, "strip right", "");
    } else if (is_a(part, "Prepend")) {
        const char *text = text_of(m, part, "prepend");
        if (*text) add_change(m, "prepend", text);
    } else if (is_a(part, "Replace")) {
        replace(m, part);
    } else {
        cca_json_refuse(m->r, "%s: \"%.100s\" is not supported", m->part,
                        cca_vocab_json_type(part));
    }
}

/* ---- pre_tokenizer ---- */

static void split(maker *m, const json_t *part) {
    char *pattern = pattern_of(m, part);
    if (pattern) cut(m, behaviour(m, part, flag(m, part, "invert", false)), pattern);
    free(pattern);
}

static void metaspace(maker *m, const json_t *part) {
    const char *text = cca_json_string(m->r, part, "replacement", space);
    bool old = flag(m, part, "add_prefix_space", true);
    const char *scheme = cca_json_string(m->r, part, "prepend_scheme", old ? "always" : "never");
    bool always = strcmp(scheme, "always") == 0, first = strcmp(scheme, "first") == 0;
    char pattern[64];
    size_t size = spell(NULL, text, true);
    if (size == 0 || size >= sizeof pattern ||
        (!always && !first && strcmp(scheme, "never") != 0)) {
        cca_json_refuse(m->r,
                        "%s: Metaspace with replacement \"%.100s\" and prepend_scheme "
                        "\"%.100s\" is not supported",
                        m->part, text, scheme);
        return;
    }
    (void)spell(pattern, text, true);
    add_change(m, "space", text);
    if (always || first) add_change(m, always ? "lead" : "lead-first", text);
    if (flag(m, part, "split", true)) cut(m, "next", pattern);
}

static void byte_level(maker *m, const json_t *part) {
    if (flag(m, part, "add_prefix_space", false)) add_change(m, "lead", " ");
    if (flag(m, part, "use_regex", true)) cut(m, "isolated", cca_pattern_gpt2);
    if (m->bytes) cca_json_refuse(m->r, "%s: two ByteLevel", m->part);
    m->bytes = true;
}

static void pre_tokenize(maker *m, const json_t *part) {
    if (is_a(part, "Split")) {
        split(m, part);
    } else if (is_a(part, "ByteLevel")) {
        byte_level(m, part);
    } else if (is_a(part, "Metaspace")) {
        metaspace(m, part);
    } else if (is_a(part, "Digits")) {
        bool single = flag(m, part, "individual_digits", false);
        cut(m, single ? "isolated" : "contiguous", cca_pattern_digit);
    } else if (is_a(part, "Punctuation")) {
        const char *word =
            cca_json_field(part, "behavior") ? behaviour(m, part, false) : "isolated";
        cut(m, word, cca_pattern_punctuation);
    } else if (is_a(part, "Whitespace")) {
        cut(m, "removed-not", "[" WORD "]+|[^" WORD "\\s]+");
    } else if (is_a(part, "WhitespaceSplit")) {
        cut(m, "removed", "\\s");
    } else {
        cca_json_refuse(m->r, "%s: \"%.100s\" is not supported", m->part,
                        cca_vocab_json_type(part));
    }
}

/* ---- both ---- */

/* All parts of a sequence, and of those within it. */
static void each(maker *m, const json_t *part, const char *list,
                 void (*take)(maker *, const json_t *), int depth) {
    if (!part || m->r->status) return;
    if (!is_a(part, "Sequence")) {
        take(m, part);
        return;
    }
    const json_t *items = json_object_get(part, list);
    if (depth > 8) cca_json_refuse(m->r, "%s: sequences within sequences", m->part);
    for (size_t i = 0; i < json_array_size(items); i++) {
        each(m, json_array_get(items, i), list, take, depth + 1);
    }
}

static void check_decoder(cca_json_reader *r, const json_t *decoder, bool bytes) {
    static const char *const plain[] = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"};
    const json_t *list = json_object_get(decoder, "decoders");
    size_t n = is_a(decoder, "Sequence") ? json_array_size(list) : decoder != NULL;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = is_a(decoder, "Sequence") ? json_array_get(list, i) : decoder;
        bool known = bytes && is_a(one, "ByteLevel");
        for (size_t k = 0; k < sizeof plain / sizeof *plain && !bytes; k++) {
            known |= is_a(one, plain[k]);
        }
        if (!known) {
            cca_json_refuse(r, "decoder: \"%.100s\" does not go with its %s",
                            cca_vocab_json_type(one), bytes ? "ByteLevel" : "byte_fallback");
        }
    }
}

static bool steps_are(const json_t *steps, const char *const *texts, size_t n) {
    bool same = json_array_size(steps) == n;
    for (size_t i = 0; i < n && same; i++) {
        same = strcmp(json_string_value(json_array_get(steps, i)), texts[i]) == 0;
    }
    return same;
}

#define UNDERLINE "\xe2\x96\x81"

/* ▁ for spaces, and perhaps one in front: the ways of SentencePiece's kind. */
static bool recognise_sentencepiece(cca_vocab *vocab, const json_t *steps) {
    static const struct {
        const char *steps[3];
        size_t n;
        cca_escape escape;
        const char *prefix;
    } ways[] = {
        {{"prepend " UNDERLINE, "replace \\ ", "with " UNDERLINE}, 3, CCA_ESCAPE_PREFIX, "prepend"},
        {{"replace \\ ", "with " UNDERLINE}, 2, CCA_ESCAPE_SPACES, NULL},
        {{"space " UNDERLINE, "lead " UNDERLINE}, 2, CCA_ESCAPE_NONE, "lead"},
        {{"space " UNDERLINE, "lead-first " UNDERLINE}, 2, CCA_ESCAPE_NONE, "lead-first"},
        {{"space " UNDERLINE}, 1, CCA_ESCAPE_NONE, NULL},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (!steps_are(steps, ways[i].steps, ways[i].n)) continue;
        vocab->escape = ways[i].escape;
        vocab->prefix = ways[i].prefix;
        vocab->dummy_prefix = ways[i].prefix;
        return true;
    }
    return false;
}

/* The name of the way, if it has one. */
static void name_way(cca_vocab *vocab, cca_json_reader *r) {
    const char *steps[CCA_MAX_STEPS];
    size_t n = vocab->n_steps;
    for (size_t i = 0; i < n; i++) steps[i] = vocab->steps[i].bytes;
    const cca_pre *pre = vocab->is_plain ? NULL : cca_pre_match(steps, n, vocab->ignore_merges);
    vocab->pre = "cca"; /* llama.cpp refuses an unknown name */
    if (!pre) return;
    json_t *name = json_stringn(pre->names, strcspn(pre->names, " "));
    if (!name || json_array_append_new(vocab->kept, name) != 0) {
        r->status = cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory for its pre_tokenizer", r->path);
        return;
    }
    vocab->pre = json_string_value(name);
    vocab->n_steps = 0;
}

static void keep_steps(cca_vocab *vocab, cca_json_reader *r, json_t *steps) {
    size_t n = json_array_size(steps);
    if (!vocab->kept) vocab->kept = json_array();
    vocab->steps = calloc(n + 1, sizeof *vocab->steps);
    if (!vocab->steps || json_array_append(vocab->kept, steps) != 0) {
        r->status = cca_fail(r->err, CCA_NO_MEMORY, "%s: no memory for its pre_tokenizer", r->path);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *step = json_array_get(steps, i);
        vocab->steps[i] = (cca_gguf_string){json_string_value(step), json_string_length(step)};
    }
    vocab->n_steps = (int64_t)n;
}

static maker make_steps(cca_json_reader *r, const json_t *tokenizer) {
    maker m = {.r = r, .steps = json_array(), .part = "normalizer"};
    each(&m, cca_json_field(tokenizer, "normalizer"), "normalizers", normalize, 0);
    m.part = "pre_tokenizer";
    each(&m, cca_json_field(tokenizer, "pre_tokenizer"), "pretokenizers", pre_tokenize, 0);
    return m;
}

bool cca_vocab_json_prefix(cca_vocab *vocab, const json_t *tokenizer) {
    cca_json_reader quiet = {.path = vocab->path};
    maker m = make_steps(&quiet, tokenizer);
    bool known = !quiet.status && recognise_sentencepiece(vocab, m.steps);
    json_decref(m.steps);
    return known;
}

void cca_vocab_json_recognise(cca_vocab *vocab, cca_json_reader *r, bool byte_fallback) {
    if (r->status) return;
    maker m = make_steps(r, vocab->json);
    if (m.bytes == byte_fallback) {
        cca_json_refuse(r,
                        "pre_tokenizer has %s ByteLevel, and model.byte_fallback is %s: one of the "
                        "two is needed",
                        m.bytes ? "a" : "no", byte_fallback ? "true" : "false");
    }
    check_decoder(r, cca_json_field(vocab->json, "decoder"), m.bytes);
    const json_t *model = json_object_get(vocab->json, "model");
    vocab->ignore_merges = cca_json_bool(r, model, "ignore_merges", false);
    vocab->kind = "gpt2";
    vocab->is_plain = byte_fallback;
    if (!r->status) keep_steps(vocab, r, m.steps);
    if (!r->status) name_way(vocab, r);
    if (byte_fallback && !vocab->ignore_merges && recognise_sentencepiece(vocab, m.steps)) {
        vocab->kind = "llama";
        vocab->pre = "default";
    }
    json_decref(m.steps);
}
