#include "share_plan.h"

#include <stdlib.h>
#include <string.h>

/* ---- slices -------------------------------------------------------------------------- */

int cca_slice_count(const cca_slices *s) {
    return s->n_ranks > 1 ? 2 * s->n_ranks : 1;
}

/* Where slice i begins; that of the last but one's next is the end. */
static int64_t begin_of(const cca_slices *s, int i) {
    int n = cca_slice_count(s);
    if (i <= 0) return s->begin;
    if (i >= n) return s->end;
    int64_t length = s->end - s->begin;
    int64_t at = s->begin + length / n * i + length % n * i / n;
    at = at / s->unit * s->unit;
    int64_t least = (cca_max(s->begin, s->together) + s->unit - 1) / s->unit * s->unit;
    if (at < s->begin || at < s->together) at = least;
    return cca_min(at, s->end);
}

cca_slice cca_slice_at(const cca_slices *s, int i) {
    if (i < 0) return (cca_slice){0, s->begin};
    return (cca_slice){begin_of(s, i), begin_of(s, i + 1)};
}

int cca_slice_owner(const cca_slices *s, int i) {
    if (i < 0) return 0;
    return i < s->n_ranks ? i : 2 * s->n_ranks - 1 - i;
}

int cca_slice_wave(const cca_slices *s, int i) {
    return i < s->n_ranks ? 0 : 1;
}

int cca_slice_of(const cca_slices *s, int rank, int wave) {
    if (wave == 0) return rank;
    return s->n_ranks > 1 ? 2 * s->n_ranks - 1 - rank : 1;
}

/* ---- transfers ----------------------------------------------------------------------- */

/* Where transfers go that are being listed, and whose. */
typedef struct listing {
    cca_transfers *list;
    const cca_slices *slices;
    const cca_share_needs *needs;
    int rank;  /* -1: everybody's */
    bool full; /* there was no memory */
} listing;

static void add(listing *l, const cca_transfer *t) {
    cca_transfers *list = l->list;
    if (t->n <= 0 || (l->rank >= 0 && t->from != l->rank && t->to != l->rank)) return;
    if (list->n == list->room) {
        int room = list->room ? 2 * list->room : 16;
        cca_transfer *at = realloc(list->at, (size_t)room * sizeof *at);
        l->full |= !at;
        if (!at) return;
        list->at = at;
        list->room = room;
    }
    list->at[list->n++] = *t;
}

/* Adds what of columns begin … end - 1 comes from a slice, whose columns are made.begin … made.end
 * - 1. */
static void add_part(listing *l, cca_transfer t, cca_slice made, int64_t begin, int64_t end) {
    t.first = cca_max(made.begin, begin);
    t.n = cca_min(made.end, end) - t.first;
    t.wave = t.source < 0 ? 0 : cca_slice_wave(l->slices, t.source);
    add(l, &t);
}

/* Groups that positions complete. */
static cca_slice groups_of(const listing *l, cca_slice s) {
    return (cca_slice){s.begin / l->needs->group_size, s.end / l->needs->group_size};
}

/* The window before a slice, which may reach back over several. */
static void add_window(listing *l, int rank, int wave) {
    int own = cca_slice_of(l->slices, rank, wave);
    cca_slice to = cca_slice_at(l->slices, own);
    if (to.begin == to.end) return;
    for (int i = CCA_SLICE_BEFORE; i < own; i++) {
        cca_transfer t = {.from = cca_slice_owner(l->slices, i),
                          .to = rank,
                          .source = i,
                          .target = wave,
                          .kind = CCA_SENT_RAW};
        add_part(l, t, cca_slice_at(l->slices, i), to.begin - l->needs->ring, to.begin);
    }
}

/* Where the last slice of a rank ends that is not empty; *last: its number. */
static int64_t end_of(const listing *l, int rank, int *last) {
    int64_t end = 0;
    *last = 0;
    for (int wave = 0; wave < CCA_WAVES; wave++) {
        int own = cca_slice_of(l->slices, rank, wave);
        cca_slice slice = cca_slice_at(l->slices, own);
        if (slice.begin == slice.end) continue;
        end = slice.end;
        *last = own;
    }
    return end;
}

/* The groups before this one are what a rank sees as such, whose text ends there; rank 0 may have
 * to keep all. */
static int64_t groups_seen(const listing *l, int rank, int64_t end) {
    const cca_share_needs *needs = l->needs;
    if (rank == 0 && !needs->held) return end / needs->group_size;
    return cca_max(end - needs->window_size, 0) / needs->group_size;
}

/* Who passes on to a rank the first columns of a slice, and how many of *n; -1: nobody. Who sees a
 * slice of the first wave with his second one alone is a rank before its owner. */
static int relay_of(const listing *l, int rank, int source, int64_t *n) {
    const cca_slices *s = l->slices;
    const int relay = s->n_ranks - 1 - source;
    if (source < 0 || source >= s->n_ranks || relay >= source) return -1;
    if (rank >= source || rank == relay) return -1;
    const int64_t more = source - relay, all = 2 * (source - 1);
    *n = *n / all * more + *n % all * more / all;
    return relay;
}

/* Adds a slice's columns before `end`: a part from who passes it on, as far as that has it, the
 * rest from who made them. unit: of columns that belong together. */
static void add_relayed(listing *l, cca_transfer t, cca_slice made, int64_t end, int64_t unit) {
    int64_t n = made.end - made.begin;
    int last;
    const int relay = relay_of(l, t.to, t.source, &n);
    if (relay >= 0) {
        int64_t has = end_of(l, relay, &last);
        if (t.kind != CCA_SENT_RAW) has = groups_seen(l, relay, has) * unit;
        int64_t some = cca_min(made.begin + n / unit * unit, cca_min(has, end));
        cca_transfer passed = t;
        passed.from = relay;
        passed.wave = CCA_RELAY;
        passed.first = made.begin;
        passed.n = some - made.begin;
        add(l, &passed);
        made.begin = cca_max(made.begin, some);
    }
    add_part(l, t, made, 0, end);
}

/* What a slice has made, of all kinds that are not a window's, as far as somebody of another rank
 * sees it whose last position is end - 1. */
static void add_seen(listing *l, int rank, int source, const cca_holding *of, int64_t end) {
    const cca_share_needs *needs = l->needs;
    cca_slice made = of->at, groups = groups_of(l, made);
    cca_transfer t = {.from = of->rank, .to = rank, .source = source};
    if (of->rank == rank) return;
    const int64_t seen = groups_seen(l, rank, end);
    const struct {
        cca_sent kind;
        bool there;
        int64_t unit;
    } by_group[] = {{CCA_SENT_CORES, needs->cores, 1},
                    {CCA_SENT_BOUNDS, needs->bounds, 1},
                    {CCA_SENT_ROWS, needs->rows, needs->group_size}};
    for (size_t i = 0; i < sizeof by_group / sizeof *by_group; i++) {
        if (!by_group[i].there) continue;
        int64_t unit = by_group[i].unit;
        t.kind = by_group[i].kind;
        cca_slice columns = {groups.begin * unit, groups.end * unit};
        add_relayed(l, t, columns, seen * unit, unit);
    }
    t.kind = CCA_SENT_RAW;
    if (needs->ring == 0) add_relayed(l, t, made, end, 1);
}

/* Rank 0 has the sinks, of before the text or of its first slice. */
static void add_sinks(listing *l, int rank) {
    int source = l->slices->begin >= l->needs->n_sinks ? CCA_SLICE_BEFORE : 0;
    cca_transfer t = {.to = rank, .source = source, .kind = CCA_SENT_SINKS};
    int64_t n = cca_min(l->needs->n_sinks, l->slices->end);
    if (rank > 0) add_part(l, t, (cca_slice){0, n}, 0, n);
}

static void add_receiver(listing *l, int rank) {
    const cca_slices *s = l->slices;
    int last; /* of its slices */
    const int64_t end = end_of(l, rank, &last);
    for (int wave = 0; wave < CCA_WAVES; wave++) {
        if (l->needs->ring > 0) add_window(l, rank, wave);
    }
    if (end == 0) return;
    add_sinks(l, rank);
    for (int i = 0; i < l->needs->n_held; i++) {
        add_seen(l, rank, CCA_SLICE_BEFORE, &l->needs->held[i], end);
    }
    for (int i = l->needs->held ? 0 : CCA_SLICE_BEFORE; i < last; i++) {
        add_seen(l, rank, i, &(cca_holding){cca_slice_owner(s, i), cca_slice_at(s, i)}, end);
    }
}

cca_status cca_transfers_make(cca_transfers *out, const cca_slices *s, const cca_share_needs *needs,
                              int rank, cca_error *err) {
    listing l = {.list = out, .slices = s, .needs = needs, .rank = rank};
    *out = (cca_transfers){0};
    for (int i = 0; i < s->n_ranks; i++) add_receiver(&l, i);
    if (!l.full) return CCA_OK;
    cca_transfers_free(out);
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the messages of %d ranks", s->n_ranks);
}

void cca_transfers_free(cca_transfers *list) {
    free(list->at);
    *list = (cca_transfers){0};
}
