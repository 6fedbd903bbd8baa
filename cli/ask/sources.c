#include "cli/ask/sources.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_SLOTS = 6, FAINTEST = 5 }; /* of a passage; a neighbour has at least 1/FAINTEST */

/* Slots in their order; none lies in more than one document. */
typedef struct slots {
    const int64_t *begins; /* n + 1 */
    double *shares;
    int64_t n;
} slots;

/* The document that a slot is in; docs->n for what stands around and between them. */
static size_t document_of(const documents *d, const slots *s, int64_t slot) {
    size_t low = 0, high = d->n; /* documents that end by where it begins */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (d->items[middle].last <= s->begins[slot]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < d->n && d->items[low].first <= s->begins[slot] ? low : d->n;
}

/* The bytes of tokens first … last - 1, which are the document's. */
static place place_of(const documents *d, size_t index, int64_t first, int64_t last) {
    const document *doc = &d->items[index];
    const uint64_t *offsets = d->prompt.tokens.offsets;
    size_t end = last < doc->last ? offsets[last] : doc->text.size;
    return documents_place(d, index, offsets[first], end);
}

/* Grows the passage [first, last) by the larger neighbour, where that has enough. */
static bool grow(int64_t *first, int64_t *last, const slots *s, const document *doc, double least) {
    double before = s->begins[*first] > doc->first ? s->shares[*first - 1] : 0;
    double behind = s->begins[*last] < doc->last ? s->shares[*last] : 0;
    if (*last - *first == MOST_SLOTS || (before < least && behind < least)) return false;
    if (before >= behind) {
        --*first;
    } else {
        ++*last;
    }
    return true;
}

static int64_t largest(const double *shares, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        if (shares[i] > shares[best]) best = i;
    }
    return best;
}

/* Of the documents' slots alone, and what their ends have of them. */
static void share_out(sources *out, slots *s, const documents *docs, int64_t unit) {
    int64_t end = documents_n_tokens(docs);
    double total = 0;
    for (int64_t i = 0; i < s->n; i++) {
        if (document_of(docs, s, i) == docs->n) s->shares[i] = 0;
        total += s->shares[i];
    }
    for (int64_t i = 0; i < s->n && total > 0; i++) {
        s->shares[i] /= total;
        if (s->begins[i] < unit) out->start += s->shares[i];
        if (s->begins[i + 1] > end - unit) out->end += s->shares[i];
    }
}

cca_status sources_pick(sources *out, double *shares, const cca_attention *attention,
                        const documents *docs, int64_t n, cca_error *err) {
    slots s = {attention->begins, shares, attention->n_slots};
    *out = (sources){.items = calloc((size_t)n + 1, sizeof *out->items)};
    if (!out->items) return cca_fail(err, CCA_NO_MEMORY, "no memory for the sources");
    share_out(out, &s, docs, attention->unit);
    while (s.n > 0 && (int64_t)out->n < n) {
        int64_t first = largest(shares, s.n), last = first + 1;
        if (!(shares[first] > 0)) break;
        size_t doc = document_of(docs, &s, first);
        double least = shares[first] / FAINTEST;
        while (grow(&first, &last, &s, &docs->items[doc], least)) continue;
        passage *p = &out->items[out->n++];
        p->at = place_of(docs, doc, s.begins[first], s.begins[last]);
        for (; first < last; first++) {
            p->share += shares[first];
            shares[first] = 0;
        }
    }
    return CCA_OK;
}

cca_status sources_watch(cca_session *session, const documents *docs, cca_error *err) {
    int64_t *cuts = calloc(2 * docs->n + 1, sizeof *cuts);
    if (!cuts) return cca_fail(err, CCA_NO_MEMORY, "no memory for the sources");
    for (size_t i = 0; i < docs->n; i++) {
        cuts[2 * i] = docs->items[i].first;
        cuts[2 * i + 1] = docs->items[i].last;
    }
    cca_status status = cca_session_watch(session, cuts, 2 * (int64_t)docs->n, err);
    free(cuts);
    return status;
}

cca_status sources_find(sources *out, const cca_session *session, const documents *docs, int64_t n,
                        cca_error *err) {
    cca_attention a = cca_session_attention(session);
    double *shares = calloc((size_t)a.n_slots + 1, sizeof *shares);
    *out = (sources){0};
    if (!shares) return cca_fail(err, CCA_NO_MEMORY, "no memory for the sources");
    cca_attention_shares(shares, &a, docs->items[0].first, documents_n_tokens(docs));
    cca_status status = sources_pick(out, shares, &a, docs, n, err);
    free(shares);
    return status;
}

void sources_free(sources *s) {
    free(s->items);
    *s = (sources){0};
}

json_t *sources_json(const sources *s) {
    json_t *all = json_array();
    for (size_t i = 0; i < s->n && all; i++) {
        const place *at = &s->items[i].at;
        json_t *one = place_json(at);
        output_put(&one, "share", output_real(true, s->items[i].share));
        output_put(&one, "text",
                   output_string(at->of->text.bytes + at->begin, at->end - at->begin));
        output_add(&all, one);
    }
    return all;
}
