/* Changes of a text with offsets. Unicode's forms are utf8proc's tables; its own utf8proc_map does
 * not say where its output came from, and its sorting of marks takes quadratic time. So a text is
 * normalised in clusters, which are characters with the marks behind them; normalisation never
 * crosses their borders. */
#include "base/available_memory.h"
#include "base/utf8.h"
#include "text/bpe_text.h"
#include "text/ranges.h"

#include <utf8proc.h>

#include <stdlib.h>
#include <string.h>

enum kind {
    NFC,
    NFD,
    NFKC,
    NFKD,
    LOWERCASE,
    STRIP_LEFT,
    STRIP_RIGHT,
    PREPEND,
    REPLACE,
    WITH, /* the second half of REPLACE */
    SPACE,
    LEAD,
    LEAD_FIRST,
    N_KINDS,
};

static const char *const words[N_KINDS] = {
    "nfc",      "nfd",      "nfkc",  "nfkd",   "lowercase", "strip left",  "strip right",
    "prepend ", "replace ", "with ", "space ", "lead ",     "lead-first ",
};

/* ---- Unicode's forms ---- */

/* A level's text from `at` on, up to the next span. */
typedef struct cca_span {
    size_t at, source;
    bool changed; /* what something became that was at source, else a copy of what was there */
} cca_span;

/* A cluster's code points; the second half is room for sorting. */
typedef struct cluster {
    int32_t *points;
    size_t n, capacity;
} cluster;

static cca_status no_memory(size_t size, cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory to normalise a text of %zu bytes", size);
}

/* The array with room for n more elements of width bytes behind the first used ones; NULL without
 * memory, and then the array is as before. */
static void *grown(void *array, size_t *capacity, size_t used, size_t n, size_t width) {
    size_t needed, bytes;
    if (!cca_add(&needed, used, n)) return NULL;
    if (needed <= *capacity) return array;
    if (needed < 64) needed = 64;
    if (needed < 2 * *capacity) needed = 2 * *capacity;
    if (!cca_mul(&bytes, needed, width) || !cca_memory_has(bytes)) return NULL;
    void *bigger = realloc(array, bytes);
    if (bigger) *capacity = needed;
    return bigger;
}

/* The code point at text[*at], which is valid UTF-8; moves on. */
static int32_t next_point(const char *text, size_t size, size_t *at) {
    uint32_t point;
    size_t length;
    (void)cca_utf8_next(&point, &length, text + *at, size - *at);
    *at += length;
    return (int32_t)point;
}

/* Characters that the tokenizers' tables, of Unicode 11, do not know: they stay where and as they
 * are. Of others that are newer nothing is normalised by anybody. */
static bool is_unknown(int32_t point) {
    static const int32_t ranges[][2] = {
        {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
        {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},
        {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},
        {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x10781, 0x107ba}, {0x10d24, 0x10d27},
        {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
        {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
        {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943},
        {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99},
        {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42},
        {0x16ff0, 0x16ff1}, {0x1e030, 0x1e06d}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136},
        {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1f16c, 0x1f16c},
        {0x1fbf0, 0x1fbf9}};
    return cca_in_ranges(point, ranges, sizeof ranges / sizeof *ranges);
}

/* Marks, and the letters that can merge with a letter before them: vowels and final consonants
 * of Hangul, vowels of Kirat Rai. */
static bool extends(int32_t point) {
    if (point < 0x300 || is_unknown(point)) return false;
    if (point == 0x11a7) return false; /* utf8proc loses it behind a Hangul syllable */
    if ((point >= 0x1160 && point <= 0x11ff) || (point >= 0x16d63 && point <= 0x16d6a)) return true;
    utf8proc_category_t category = utf8proc_category(point);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
           category == UTF8PROC_CATEGORY_ME;
}

static uint8_t class_of(int32_t point) {
    return (uint8_t)utf8proc_get_property(point)->combining_class;
}

/* Sorts a run of marks by class and leaves those of one class in their order. */
static void sort_run(int32_t *points, size_t n, int32_t *room) {
    size_t first[257] = {0};
    for (size_t i = 0; i < n; i++) first[class_of(points[i]) + 1]++;
    for (int i = 0; i < 256; i++) first[i + 1] += first[i];
    for (size_t i = 0; i < n; i++) room[first[class_of(points[i])]++] = points[i];
    memcpy(points, room, n * sizeof *points);
}

static void sort_marks(cluster *c) {
    int32_t *points = c->points, *room = points + c->n;
    for (size_t from = 0, end; from < c->n; from = end + 1) {
        bool sorted = true;
        for (end = from; end < c->n && class_of(points[end]) > 0; end++) {
            sorted = sorted && (end == from || class_of(points[end - 1]) <= class_of(points[end]));
        }
        if (!sorted) sort_run(points + from, end - from, room);
    }
}

/* Reads the cluster at text[at], normalises it and returns its end; 0 without memory. */
static size_t take_cluster(cluster *c, enum kind form, const char *text, size_t size, size_t at) {
    enum { LONGEST = 32 }; /* more code points than any decomposition has */
    bool compatible = form == NFKC || form == NFKD;
    int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
    c->n = 0;
    for (size_t next = at; at < size; at = next) {
        int32_t point = next_point(text, size, &next);
        bool unknown = is_unknown(point);
        if (c->n > 0 && unknown) break;
        int32_t *points = grown(c->points, &c->capacity, 2 * c->n, 2 * LONGEST, sizeof *c->points);
        if (!points) return 0;
        c->points = points;
        if (unknown) {
            points[c->n++] = point;
            return next;
        }
        utf8proc_ssize_t n = utf8proc_decompose_char(point, points + c->n, LONGEST,
                                                     (utf8proc_option_t)options, NULL);
        if (n <= 0 || n > LONGEST) {
            points[c->n] = point;
            n = 1;
        }
        if (c->n > 0 && !extends(points[c->n])) break;
        c->n += (size_t)n;
    }
    sort_marks(c);
    if (form == NFD || form == NFKD) return at;
    utf8proc_ssize_t n = utf8proc_normalize_utf32(c->points, (utf8proc_ssize_t)c->n,
                                                  UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n > 0) c->n = (size_t)n;
    return at;
}

/* Drops the code points that text begins with, too, and returns their size. */
static size_t drop_common(cluster *c, const char *text, size_t size) {
    size_t at = 0, next = 0, i = 0;
    for (; i < c->n && at < size && next_point(text, size, &next) == c->points[i]; i++) at = next;
    c->n -= i;
    memmove(c->points, c->points + i, c->n * sizeof *c->points);
    return at;
}

/* ---- levels ---- */

/* Appends a span and gives it room for size bytes. */
static bool add_span(cca_level *level, cca_span span, size_t size) {
    level->overflows = size > level->most || level->size > level->most - size;
    if (level->overflows) return false;
    char *text = grown(level->text, &level->capacity, level->size, size + 1, 1);
    if (text) level->text = text;
    cca_span *spans =
        grown(level->spans, &level->spans_capacity, level->n_spans, 1, sizeof *level->spans);
    if (spans) level->spans = spans;
    if (!text || !spans) return false;
    spans[level->n_spans++] = span;
    return true;
}

/* source[from … end) as it is. */
static bool add_copy(cca_level *level, const char *source, size_t from, size_t end) {
    if (from == end) return true;
    if (!add_span(level, (cca_span){level->size, from, false}, end - from)) return false;
    memcpy(level->text + level->size, source + from, end - from);
    level->size += end - from;
    return true;
}

/* What becomes of something that is at source[from]. */
static bool add_text(cca_level *level, cca_gguf_string text, size_t from) {
    if (!add_span(level, (cca_span){level->size, from, true}, text.size)) return false;
    if (text.size > 0) memcpy(level->text + level->size, text.bytes, text.size);
    level->size += text.size;
    return true;
}

static bool add_points(cca_level *level, const int32_t *points, size_t n, size_t from) {
    if (!add_span(level, (cca_span){level->size, from, true}, 4 * n)) return false;
    for (size_t i = 0; i < n; i++) {
        level->size += cca_utf8_put(level->text + level->size, (uint32_t)points[i]);
    }
    return true;
}

static void level_free(cca_level *level) {
    free(level->text);
    free(level->spans);
    *level = (cca_level){.size = 0};
}

/* A text on its way to the next level, and how far it is copied. */
typedef struct way {
    cca_level *out;
    const char *source;
    size_t size, copied;
    cca_error *err;
} way;

/* What is left is copied if anything changed. */
static cca_status finish(way *w, bool fine) {
    if (fine && w->out->n_spans > 0) fine = add_copy(w->out, w->source, w->copied, w->size);
    if (fine) return CCA_OK;
    if (!w->out->overflows) return no_memory(w->size, w->err);
    return cca_fail(w->err, CCA_NO_FIT, "the tokenizer makes more than %zu bytes of a text",
                    w->out->most);
}

/* ---- changes ---- */

/* The bytes of the character at text[at] if neither the form nor a mark behind it can change it:
 * all of ASCII; of NFC all below U+0300, whose first byte is 0xcc. Else 0. */
static size_t plain_bytes(enum kind form, const char *text, size_t size, size_t at) {
    uint8_t first = (uint8_t)text[at], most = form == NFC ? 0xcc : 0x80;
    size_t next = at + (first < 0x80 ? 1 : 2);
    return first < most && (next >= size || (uint8_t)text[next] < most) ? next - at : 0;
}

static cca_status to_form(way *w, enum kind form) {
    cluster c = {.n = 0};
    bool fine = true;
    for (size_t at = 0, end; at < w->size && fine; at = end) {
        end = at + plain_bytes(form, w->source, w->size, at);
        if (end > at) continue;
        end = take_cluster(&c, form, w->source, w->size, at);
        fine = end > 0;
        if (fine) at += drop_common(&c, w->source + at, end - at);
        if (!fine || (at == end && c.n == 0)) continue;
        fine = add_copy(w->out, w->source, w->copied, at) && add_points(w->out, c.points, c.n, at);
        w->copied = end;
    }
    free(c.points);
    return finish(w, fine);
}

/* utf8proc's, and what Unicode 16 and 17 added. */
static int32_t lower_of(int32_t point) {
    static const struct {
        int32_t first, last, lower;
    } added[] = {{0x1c89, 0x1c89, 0x1c8a},   {0xa7cb, 0xa7cb, 0x264},  {0xa7cc, 0xa7cc, 0xa7cd},
                 {0xa7ce, 0xa7ce, 0xa7cf},   {0xa7d2, 0xa7d2, 0xa7d3}, {0xa7d4, 0xa7d4, 0xa7d5},
                 {0xa7da, 0xa7da, 0xa7db},   {0xa7dc, 0xa7dc, 0x19b},  {0x10d50, 0x10d65, 0x10d70},
                 {0x16ea0, 0x16eb8, 0x16ebb}};
    for (size_t i = 0; i < sizeof added / sizeof *added; i++) {
        if (point < added[i].first || point > added[i].last) continue;
        return added[i].lower + (point - added[i].first);
    }
    return utf8proc_tolower(point);
}

/* Of all characters İ alone becomes two. */
static cca_status to_lowercase(way *w) {
    bool fine = true;
    for (size_t at = 0, next = 0; at < w->size && fine; at = next) {
        int32_t point = next_point(w->source, w->size, &next);
        int32_t lower[] = {point == 0x130 ? 'i' : lower_of(point), 0x307};
        if (lower[0] == point) continue;
        fine = add_copy(w->out, w->source, w->copied, at) &&
               add_points(w->out, lower, point == 0x130 ? 2 : 1, at);
        w->copied = next;
    }
    return finish(w, fine);
}

static bool is_space(int32_t point) {
    return (point >= 9 && point <= 13) || point == 0x85 ||
           utf8proc_category(point) == UTF8PROC_CATEGORY_ZS || point == 0x2028 || point == 0x2029;
}

static cca_status strip(way *w, bool left) {
    size_t from = 0, end = 0, at = 0;
    while (at < w->size) {
        bool space = is_space(next_point(w->source, w->size, &at));
        if (left && !space) break;
        if (left) from = at;
        if (!left && !space) end = at;
    }
    if (left) end = w->size;
    if (end - from == w->size) return CCA_OK;
    bool fine = add_span(w->out, (cca_span){0, from, false}, 0);
    w->copied = from;
    w->size = end;
    return finish(w, fine);
}

/* What an empty match puts behind the text is at its last byte. */
static cca_status replace(way *w, const cca_pattern *pattern, cca_gguf_string by) {
    if (w->size == 0) return CCA_OK;
    cca_matcher *matcher = cca_matcher_new(pattern);
    if (!matcher) return no_memory(w->size, w->err);
    size_t begin, end;
    bool found = true, fine = true;
    cca_status status = CCA_OK;
    cca_matcher_start(matcher, w->source, w->size);
    while (fine && !status) {
        status = cca_matcher_next(&found, matcher, &begin, &end, w->err);
        if (status || !found) break;
        fine = add_copy(w->out, w->source, w->copied, begin) &&
               add_text(w->out, by, begin < w->size ? begin : w->size - 1);
        w->copied = end;
    }
    cca_matcher_free(matcher);
    return status ? status : finish(w, fine);
}

static cca_status replace_spaces(way *w, cca_gguf_string by) {
    bool fine = true;
    for (size_t at = 0; at < w->size && fine; at++) {
        if (w->source[at] != ' ') continue;
        fine = add_copy(w->out, w->source, w->copied, at) && add_text(w->out, by, at);
        w->copied = at + 1;
    }
    return finish(w, fine);
}

static cca_status prepend(way *w, cca_gguf_string text, bool unless_there) {
    bool there = w->size >= text.size && memcmp(w->source, text.bytes, text.size) == 0;
    if (w->size == 0 || text.size == 0 || (unless_there && there)) return CCA_OK;
    return finish(w, add_text(w->out, text, 0));
}

static cca_status change(way *w, const cca_normalizer *n, size_t i, bool first) {
    const cca_change *c = &n->changes[i];
    switch ((enum kind)c->kind) {
    case NFC:
    case NFD:
    case NFKC:
    case NFKD: return to_form(w, (enum kind)c->kind);
    case LOWERCASE: return to_lowercase(w);
    case STRIP_LEFT:
    case STRIP_RIGHT: return strip(w, c->kind == STRIP_LEFT);
    case PREPEND: return prepend(w, c->text, false);
    case REPLACE: return replace(w, &c->pattern, n->changes[i + 1].text);
    case SPACE: return replace_spaces(w, c->text);
    case LEAD: return prepend(w, c->text, true);
    case LEAD_FIRST: return first ? prepend(w, c->text, true) : CCA_OK;
    case WITH:
    case N_KINDS: break;
    }
    return CCA_OK;
}

/* ---- opening ---- */

/* The kind of a step, and how long its word is; N_KINDS for what changes nothing. */
static enum kind kind_of(size_t *size, cca_gguf_string step) {
    int kind = 0;
    for (; kind < N_KINDS; kind++) {
        const char *word = words[kind];
        *size = strlen(word);
        bool same = step.size >= *size && memcmp(step.bytes, word, *size) == 0;
        if (same && (step.size == *size || word[*size - 1] == ' ')) break;
    }
    return (enum kind)kind;
}

/* Where a list of steps ends that change a text, of one of two sorts; *room is for their texts. */
static size_t measure(size_t *room, const cca_gguf_string *steps, size_t n, size_t at, bool inner) {
    size_t size;
    *room = 1;
    for (; at < n; at++) {
        enum kind kind = kind_of(&size, steps[at]);
        if (kind == N_KINDS || (kind >= SPACE) != inner) break;
        *room += steps[at].size - size;
    }
    return at;
}

static cca_status open_change(cca_normalizer *n, char **text, cca_gguf_string step,
                              const char *name, cca_error *err) {
    size_t size;
    cca_change *c = &n->changes[n->n_changes];
    bool awaited = n->n_changes > 0 && c[-1].kind == REPLACE;
    *c = (cca_change){.kind = kind_of(&size, step)};
    size_t rest = step.size - size;
    if (awaited != (c->kind == WITH)) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: \"replace\" and \"with\" do not go together",
                        name);
    }
    n->n_changes++;
    if (c->kind == REPLACE) {
        return cca_pattern_open(&c->pattern, step.bytes + size, rest, name, err);
    }
    if (rest > 0 && cca_utf8_valid(step.bytes + size, rest) < rest) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: \"%s\" with text that is no UTF-8", name,
                        words[c->kind]);
    }
    c->text = (cca_gguf_string){*text, rest};
    if (rest > 0) *text = (char *)mempcpy(*text, step.bytes + size, rest);
    return CCA_OK;
}

cca_status cca_normalizer_open(cca_normalizer *out, const cca_gguf_string *steps, size_t n,
                               size_t *at, bool inner, const char *name, cca_error *err) {
    size_t room, end = measure(&room, steps, n, *at, inner);
    *out = (cca_normalizer){.n_changes = 0};
    if (end - *at > CCA_MAX_STEPS) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: a text is changed in more than %d steps", name,
                        CCA_MAX_STEPS);
    }
    char *text = out->texts = malloc(room);
    if (!text) return no_memory(0, err);
    cca_status status = CCA_OK;
    for (; *at < end && !status; ++*at) status = open_change(out, &text, steps[*at], name, err);
    if (!status && out->n_changes > 0 && out->changes[out->n_changes - 1].kind == REPLACE) {
        status = cca_fail(err, CCA_BAD_MODEL, "%s: \"replace\" without \"with\"", name);
    }
    if (status) cca_normalizer_close(out);
    return status;
}

void cca_normalizer_close(cca_normalizer *n) {
    for (size_t i = 0; i < n->n_changes; i++) cca_pattern_close(&n->changes[i].pattern);
    free(n->texts);
    *n = (cca_normalizer){.n_changes = 0};
}

/* ---- running ---- */

cca_status cca_normal_make(cca_normal *out, const cca_normalizer *n, const char *source,
                           size_t size, bool first, cca_error *err) {
    enum { TIMES = 16, AND_MORE = 4096 };
    size_t most;
    *out = (cca_normal){.text = source, .size = size};
    if (!cca_mul(&most, size, TIMES) || !cca_add(&most, most, AND_MORE)) most = SIZE_MAX;
    for (size_t i = 0; i < n->n_changes; i++) {
        cca_level *level = &out->levels[out->n_levels];
        level->most = most;
        way w = {level, out->text, out->size, 0, err};
        cca_status status = change(&w, n, i, first);
        if (!status && level->n_spans > 0) {
            out->text = level->text;
            out->size = level->size;
            out->n_levels++;
        }
        if (status) {
            level_free(level);
            cca_normal_free(out);
            return status;
        }
    }
    return CCA_OK;
}

void cca_normal_free(cca_normal *normal) {
    for (size_t i = 0; i < normal->n_levels; i++) level_free(&normal->levels[i]);
    *normal = (cca_normal){.size = 0};
}

size_t cca_normal_offset(cca_normal *normal, size_t at) {
    for (size_t i = normal->n_levels; i-- > 0;) {
        cca_level *level = &normal->levels[i];
        while (level->hint + 1 < level->n_spans && level->spans[level->hint + 1].at <= at) {
            level->hint++;
        }
        const cca_span *span = &level->spans[level->hint];
        at = span->changed ? span->source : span->source + (at - span->at);
    }
    return at;
}
