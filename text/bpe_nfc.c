/* NFC with offsets, on utf8proc's tables. utf8proc_map does not say where its output came from,
 * and its sorting of marks takes quadratic time; so a text is normalised in clusters, which are
 * characters with the marks behind them. Normalisation never crosses their borders. */
#include "base/utf8.h"
#include "text/bpe_text.h"

#include <utf8proc.h>

#include <stdlib.h>
#include <string.h>

/* Normalised text from `at` on, up to the next span. */
typedef struct cca_nfc_span {
    size_t at, source;
    bool changed; /* what a cluster became that was at source, else a copy of what was there */
} cca_nfc_span;

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
    if (!cca_mul(&bytes, needed, width)) return NULL;
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

/* Marks, and the letters that can merge with a letter before them: vowels and final consonants
 * of Hangul, vowels of Kirat Rai. */
static bool extends(int32_t point) {
    if (point < 0x300) return false;
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
static size_t take_cluster(cluster *c, const char *text, size_t size, size_t at) {
    enum { LONGEST = 32 }; /* more code points than any decomposition has */
    c->n = 0;
    for (size_t next = at; at < size; at = next) {
        int32_t point = next_point(text, size, &next);
        if (c->n > 0 && !extends(point)) break;
        int32_t *points = grown(c->points, &c->capacity, 2 * c->n, 2 * LONGEST, sizeof *c->points);
        if (!points) return 0;
        c->points = points;
        utf8proc_ssize_t n = utf8proc_decompose_char(point, points + c->n, LONGEST,
                                                     UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, NULL);
        if (n > 0 && n <= LONGEST) {
            c->n += (size_t)n;
        } else {
            points[c->n++] = point;
        }
    }
    sort_marks(c);
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

/* Appends a span and gives it room for size bytes. */
static bool add_span(cca_nfc *nfc, cca_nfc_span span, size_t size) {
    char *text = grown(nfc->text, &nfc->capacity, nfc->size, size, 1);
    if (text) nfc->text = text;
    cca_nfc_span *spans =
        grown(nfc->spans, &nfc->spans_capacity, nfc->n_spans, 1, sizeof *nfc->spans);
    if (spans) nfc->spans = spans;
    if (!text || !spans) return false;
    spans[nfc->n_spans++] = span;
    return true;
}

static bool add_copy(cca_nfc *nfc, const char *source, size_t from, size_t end) {
    if (from == end) return true;
    if (!add_span(nfc, (cca_nfc_span){nfc->size, from, false}, end - from)) return false;
    memcpy(nfc->text + nfc->size, source + from, end - from);
    nfc->size += end - from;
    return true;
}

static bool add_changed(cca_nfc *nfc, const cluster *c, size_t from) {
    if (!add_span(nfc, (cca_nfc_span){nfc->size, from, true}, 4 * c->n)) return false;
    for (size_t i = 0; i < c->n; i++) {
        nfc->size += cca_utf8_put(nfc->text + nfc->size, (uint32_t)c->points[i]);
    }
    return true;
}

/* The bytes of the character at text[at] if neither NFC nor a mark behind it can change it: all
 * below U+0300, whose first byte is 0xcc, are such. Else 0. */
static size_t plain_bytes(const char *text, size_t size, size_t at) {
    uint8_t first = (uint8_t)text[at];
    size_t next = at + (first < 0x80 ? 1 : 2);
    return first < 0xcc && (next >= size || (uint8_t)text[next] < 0xcc) ? next - at : 0;
}

cca_status cca_nfc_make(cca_nfc *out, const char *source, size_t size, cca_error *err) {
    *out = (cca_nfc){.size = 0};
    cluster c = {.n = 0};
    size_t copied = 0;
    bool fine = true;
    for (size_t at = 0, end; at < size && fine; at = end) {
        end = at + plain_bytes(source, size, at);
        if (end > at) continue;
        end = take_cluster(&c, source, size, at);
        fine = end > 0;
        if (fine) at += drop_common(&c, source + at, end - at);
        if (!fine || (at == end && c.n == 0)) continue;
        fine = add_copy(out, source, copied, at) && add_changed(out, &c, at);
        copied = end;
    }
    if (fine && out->n_spans > 0) fine = add_copy(out, source, copied, size);
    free(c.points);
    if (!fine) cca_nfc_free(out);
    return fine ? CCA_OK : no_memory(size, err);
}

void cca_nfc_free(cca_nfc *nfc) {
    free(nfc->text);
    free(nfc->spans);
    *nfc = (cca_nfc){.size = 0};
}

size_t cca_nfc_offset(const cca_nfc *nfc, size_t at, size_t *hint) {
    if (nfc->n_spans == 0) return at;
    while (*hint + 1 < nfc->n_spans && nfc->spans[*hint + 1].at <= at) ++*hint;
    const cca_nfc_span *span = &nfc->spans[*hint];
    return span->changed ? span->source : span->source + (at - span->at);
}
