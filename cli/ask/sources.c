#include "cli/ask/sources.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_SLOTS = 6, FAINTEST = 5 }; /* of a passage; a neighbour has at least 1/FAINTEST */

/* The document that has most of the tokens first … last - 1, the earlier of equals. */
static size_t document_of(const documents *d, int64_t first, int64_t last) {
    size_t best = 0;
    int64_t most = 0;
    for (size_t i = 0; i < d->n; i++) {
        const document *doc = &d->items[i];
        int64_t n = cca_min(last, doc->last) - cca_max(first, doc->first);
        if (n <= most) continue;
        most = n;
        best = i;
    }
    return best;
}

/* The bytes of tokens first … last - 1, as far as they are the document's. */
static place place_of(const documents *d, size_t index, int64_t first, int64_t last) {
    const document *doc = &d->items[index];
    const uint64_t *offsets = d->prompt.tokens.offsets;
    first = cca_max(first, doc->first);
    size_t begin = first < doc->last ? offsets[first] : doc->text.size;
    size_t end = last < doc->last ? offsets[last] : doc->text.size;
    return documents_place(d, index, begin, end);
}

/* Grows the passage [first, last) by the larger neighbour, where that has enough. */
static bool grow(int64_t *first, int64_t *last, const double *shares, int64_t n_slots,
                 double least) {
    double before = *first > 0 ? shares[*first - 1] : 0;
    double behind = *last < n_slots ? shares[*last] : 0;
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

cca_status sources_pick(sources *out, double *shares, int64_t n_slots, int64_t unit,
                        const documents *docs, int64_t n, cca_error *err) {
    *out = (sources){.items = calloc((size_t)n + 1, sizeof *out->items)};
    if (!out->items) return cca_fail(err, CCA_NO_MEMORY, "no memory for the sources");
    while (n_slots > 0 && (int64_t)out->n < n) {
        int64_t first = largest(shares, n_slots), last = first + 1;
        if (!(shares[first] > 0)) break;
        size_t doc = document_of(docs, first * unit, last * unit);
        double least = shares[first] / FAINTEST;
        while (grow(&first, &last, shares, n_slots, least)) continue;
        passage *p = &out->items[out->n++];
        p->at = place_of(docs, doc, first * unit, last * unit);
        for (; first < last; first++) {
            p->share += shares[first];
            shares[first] = 0;
        }
    }
    return CCA_OK;
}

cca_status sources_find(sources *out, const cca_session *session, const documents *docs, int64_t n,
                        cca_error *err) {
    cca_attention a = cca_session_attention(session);
    double *shares = calloc((size_t)a.n_slots + 1, sizeof *shares);
    *out = (sources){0};
    if (!shares) return cca_fail(err, CCA_NO_MEMORY, "no memory for the sources");
    cca_attention_shares(shares, &a, docs->items[0].first, documents_n_tokens(docs));
    cca_status status = sources_pick(out, shares, a.n_slots, a.unit, docs, n, err);
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
