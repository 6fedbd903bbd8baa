#include "lookup.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

/* Found by measuring acceptance over texts and their summaries; see docs/SPEED.md. */
enum {
    KEY = 3,      /* last tokens that are looked up */
    STEPS = 32,   /* places that are looked at */
    LONGEST = 16, /* tokens up to which a longer match is a better one */
    SURE = 4,     /* tokens from which on a match is followed as far as may be at once */
    LONGEST_PAUSE = 64,
    FIRST = 1024, /* tokens that there is room for at first */
};

struct cca_lookup {
    int64_t most;
    int32_t *ids;    /* [capacity] the text */
    int32_t *before; /* [capacity]: the place of the chain before this one; -1: none */
    int32_t *last;   /* [capacity]: the latest place of each chain; -1: none */
    int64_t n, capacity;
    int64_t next;  /* length of the text from which on there are guesses again */
    int64_t pause; /* tokens without guesses after the last wrong one */
    bool went_well;
};

cca_status cca_lookup_new(cca_lookup **out, int64_t most, cca_error *err) {
    *out = calloc(1, sizeof **out);
    if (!*out) return cca_fail(err, CCA_NO_MEMORY, "no memory for a lookup");
    (*out)->most = most;
    return CCA_OK;
}

void cca_lookup_free(cca_lookup *lookup) {
    if (!lookup) return;
    free(lookup->ids);
    free(lookup->before);
    free(lookup->last);
    free(lookup);
}

void cca_lookup_clear(cca_lookup *l) {
    if (l->capacity > 0) memset(l->last, -1, (size_t)l->capacity * sizeof *l->last);
    l->n = l->next = l->pause = 0;
    l->went_well = false;
}

/* ---- chains --------------------------------------------------------------------------- */

/* The chain of a place: of the tokens before it. capacity is a power of two. */
static int32_t *chain_of(const cca_lookup *l, int64_t place) {
    uint64_t key = 0;
    for (int64_t i = place - KEY; i < place; i++) key = cca_hash_number(key + (uint32_t)l->ids[i]);
    return &l->last[key & (uint64_t)(l->capacity - 1)];
}

size_t cca_lookup_bytes(int64_t n_tokens) {
    int64_t capacity = FIRST;
    while (capacity < n_tokens && capacity <= INT32_MAX) capacity *= 2;
    return 3 * (size_t)capacity * sizeof(int32_t);
}

/* A token at this place is followed by the chain's other places. */
static void link_place(cca_lookup *l, int64_t place) {
    if (place < KEY) return;
    int32_t *last = chain_of(l, place);
    l->before[place] = *last;
    *last = (int32_t)place;
}

static bool resize(int32_t **array, int64_t capacity) {
    int32_t *moved = realloc(*array, (size_t)capacity * sizeof *moved);
    if (moved) *array = moved;
    return moved;
}

/* Room for twice the text; chains are linked anew, which makes a few steps a token on average. */
static cca_status grow(cca_lookup *l, cca_error *err) {
    int64_t capacity = l->capacity ? 2 * l->capacity : FIRST;
    if (capacity > INT32_MAX || !resize(&l->ids, capacity) || !resize(&l->before, capacity) ||
        !resize(&l->last, capacity)) {
        return cca_fail(err, CCA_NO_MEMORY, "no memory to look up %lld tokens", (long long)l->n);
    }
    l->capacity = capacity;
    memset(l->last, -1, (size_t)capacity * sizeof *l->last);
    for (int64_t place = KEY; place < l->n; place++) link_place(l, place);
    return CCA_OK;
}

cca_status cca_lookup_push(cca_lookup *l, int32_t id, cca_error *err) {
    cca_status status = l->n < l->capacity ? CCA_OK : grow(l, err);
    if (status) return status;
    l->ids[l->n] = id;
    link_place(l, l->n++);
    return CCA_OK;
}

/* ---- guesses -------------------------------------------------------------------------- */

/* Tokens before a place that are the text's last ones. */
static int64_t match(const cca_lookup *l, int64_t place) {
    int64_t n = 0, most = cca_min(place, LONGEST);
    while (n < most && l->ids[place - 1 - n] == l->ids[l->n - 1 - n]) n++;
    return n;
}

/* The place with the longest match, of equal ones the latest; its length, below KEY: none. */
static int64_t find(const cca_lookup *l, int64_t *place) {
    int64_t longest = 0, at = l->n < KEY ? -1 : *chain_of(l, l->n);
    for (int i = 0; i < STEPS && at >= 0 && longest < LONGEST; i++, at = l->before[at]) {
        int64_t n = match(l, at);
        if (n <= longest) continue;
        longest = n;
        *place = at;
    }
    return longest;
}

int64_t cca_lookup_guess(cca_lookup *l, int32_t *out, int64_t n) {
    int64_t place = 0;
    if (l->n < l->next) return 0;
    int64_t length = find(l, &place);
    if (length < KEY) return 0;
    n = cca_min(n, length >= SURE || l->went_well ? l->most : 1);
    /* Where the text repeats itself, its end goes on with what is guessed. */
    for (int64_t i = 0; i < n; i++) {
        out[i] = place + i < l->n ? l->ids[place + i] : out[place + i - l->n];
    }
    return cca_max(n, 0);
}

void cca_lookup_report(cca_lookup *l, int64_t n_guessed, int64_t n_right) {
    if (n_guessed == 0) return;
    l->went_well = n_right == n_guessed;
    l->pause = n_right > 0 ? 0 : cca_min(2 * l->pause + 1, LONGEST_PAUSE);
    l->next = l->n + l->pause;
}
