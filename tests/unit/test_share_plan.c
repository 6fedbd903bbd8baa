/* The integers of ranks that share a prompt. */
#include "share_plan.h"
#include "tests/unit/test.h"

/* ---- slices -------------------------------------------------------------------------- */

static void check_slices(const cca_slices *s) {
    int n = cca_slice_count(s), n_owned[64] = {0};
    int64_t at = s->begin;
    for (int i = 0; i < n; i++) {
        cca_slice slice = cca_slice_at(s, i);
        int owner = cca_slice_owner(s, i);
        assert_true(slice.begin == at && slice.end >= at);
        if (i > 0 && slice.begin < s->end) assert_int_equal(slice.begin % s->unit, 0);
        if (i > 0) assert_true(slice.begin >= cca_min(s->together, s->end));
        assert_int_equal(cca_slice_of(s, owner, cca_slice_wave(s, i)), i);
        n_owned[owner]++;
        at = slice.end;
    }
    assert_int_equal(at, s->end);
    for (int r = 0; r < s->n_ranks; r++) assert_int_equal(n_owned[r], s->n_ranks > 1 ? 2 : 1);
    assert_int_equal(cca_slice_owner(s, n - 1), 0);
}

static void slices_cover_the_text(void **state) {
    (void)state;
    for (int n_ranks = 1; n_ranks <= 9; n_ranks++) {
        for (int64_t begin = 0; begin < 90; begin += 13) {
            for (int64_t n = 1; n < 500; n += 7) {
                check_slices(&(cca_slices){n_ranks, begin, begin + n, 1 + n % 16, begin % 40});
            }
        }
    }
}

static void pairs_of_slices_are_equally_long(void **state) {
    (void)state;
    for (int n_ranks = 2; n_ranks <= 64; n_ranks++) {
        cca_slices s = {.n_ranks = n_ranks, .end = 131072, .unit = 16};
        for (int r = 0; r < n_ranks; r++) {
            cca_slice a = cca_slice_at(&s, cca_slice_of(&s, r, 0));
            cca_slice b = cca_slice_at(&s, cca_slice_of(&s, r, 1));
            assert_in_range(a.end - a.begin + b.end - b.begin, 131072 / n_ranks - 32,
                            131072 / n_ranks + 32);
        }
    }
}

/* ---- transfers ----------------------------------------------------------------------- */

/* How often a rank gets a column of a kind, in a wave's slice or for all. */
enum { MOST_RANKS = 5, COLUMNS = 700 };

typedef struct tally {
    int got[MOST_RANKS][CCA_N_SENT][CCA_WAVES][COLUMNS];
} tally;

/* Who passes something on has got it in the first wave; who gets it does not see it from there. */
static void check_relay(const cca_transfers *all, const cca_slices *s, const cca_transfer *x) {
    bool found = false;
    for (int i = 0; i < all->n; i++) {
        const cca_transfer *t = &all->at[i];
        if (t->to != x->from || t->kind != x->kind || t->source != x->source || t->wave != 0) {
            continue;
        }
        found |= t->first <= x->first && t->first + t->n >= x->first + x->n;
    }
    assert_true(found);
    assert_int_equal(cca_slice_wave(s, x->source), 0);
    assert_true(x->to < x->source && x->to != x->from);
}

static void count_transfers(tally *t, const cca_slices *s, const cca_share_needs *needs) {
    cca_transfers all;
    cca_error err;
    memset(t, 0, sizeof *t);
    assert_int_equal(cca_transfers_make(&all, s, needs, -1, &err), CCA_OK);
    for (int i = 0; i < all.n; i++) {
        const cca_transfer *x = &all.at[i];
        assert_true(x->n > 0 && x->first >= 0 && x->first + x->n <= COLUMNS);
        if (x->wave == CCA_RELAY) {
            check_relay(&all, s, x);
        } else {
            if (!needs->held) assert_int_equal(x->from, cca_slice_owner(s, x->source));
            assert_int_equal(x->wave, x->source < 0 ? 0 : cca_slice_wave(s, x->source));
        }
        /* what a slice of the first wave needs is of the first wave */
        if (x->kind == CCA_SENT_RAW && needs->ring > 0) assert_true(x->target >= x->wave);
        for (int64_t c = x->first; c < x->first + x->n; c++) t->got[x->to][x->kind][x->target][c]++;
    }
    cca_transfers_free(&all);
}

/* The slice, or what is before the text, that position p lies in. */
static int slice_with(const cca_slices *s, int64_t p) {
    int i = CCA_SLICE_BEFORE;
    while (p >= cca_slice_at(s, i).end) i++;
    return i;
}

static void check_windows(const tally *t, const cca_slices *s, const cca_share_needs *needs,
                          int rank) {
    for (int wave = 0; wave < CCA_WAVES; wave++) {
        cca_slice own = cca_slice_at(s, cca_slice_of(s, rank, wave));
        for (int64_t p = 0; p < s->end; p++) {
            bool wanted = own.begin < own.end && p < own.begin && p >= own.begin - needs->ring;
            assert_int_equal(t->got[rank][CCA_SENT_RAW][wave][p], wanted);
        }
    }
}

/* Where a rank's text ends: of its last slice that is not empty. */
static int64_t end_of(const cca_slices *s, int rank) {
    int64_t end = 0;
    for (int wave = 0; wave < CCA_WAVES; wave++) {
        cca_slice own = cca_slice_at(s, cca_slice_of(s, rank, wave));
        if (own.begin < own.end) end = own.end;
    }
    return end;
}

/* Groups that a rank sees but has not made, each once. */
static void check_groups(const tally *t, const cca_slices *s, const cca_share_needs *needs,
                         int rank, cca_sent kind, int64_t unit) {
    int64_t g = needs->group_size, end = end_of(s, rank);
    int64_t seen = rank == 0 ? end / g : cca_max(end - needs->window_size, 0) / g;
    for (int64_t c = 0; c < s->end / g * unit; c++) {
        bool own = cca_slice_owner(s, slice_with(s, c / unit * g + g - 1)) == rank;
        assert_int_equal(t->got[rank][kind][0][c], c / unit < seen && !own);
    }
}

static void check_rank(const tally *t, const cca_slices *s, const cca_share_needs *needs,
                       int rank) {
    if (needs->ring > 0) check_windows(t, s, needs, rank);
    if (needs->cores) check_groups(t, s, needs, rank, CCA_SENT_CORES, 1);
    if (needs->bounds) check_groups(t, s, needs, rank, CCA_SENT_BOUNDS, 1);
    if (needs->rows) check_groups(t, s, needs, rank, CCA_SENT_ROWS, needs->group_size);
    for (int64_t p = 0; needs->ring == 0 && p < s->end; p++) {
        bool own = cca_slice_owner(s, slice_with(s, p)) == rank;
        assert_int_equal(t->got[rank][CCA_SENT_RAW][0][p], !own && p < end_of(s, rank));
    }
    for (int64_t p = 0; p < s->end; p++) {
        bool wanted = rank > 0 && p < needs->n_sinks && end_of(s, rank) > 0;
        assert_int_equal(t->got[rank][CCA_SENT_SINKS][0][p], wanted);
    }
}

static void each_rank_gets_what_it_sees_once(void **state) {
    (void)state;
    tally *t = malloc(sizeof *t);
    assert_non_null(t);
    for (int n_ranks = 1; n_ranks <= MOST_RANKS; n_ranks++) {
        for (int64_t i = 0; i < 40; i++) {
            int64_t g = 1 + i % 5, begin = i * 7 % 90;
            cca_share_needs needs = {.group_size = g, .window_size = g * (1 + i % 7)};
            needs.ring = i % 3 == 0 ? 0 : needs.window_size + g;
            needs.n_sinks = needs.ring ? g * (i % 4) : 0;
            needs.cores = i % 2 == 0;
            needs.bounds = i % 4 < 2;
            needs.rows = needs.bounds && needs.ring;
            cca_slices s = {n_ranks, begin, begin + 20 + i * 11, g * (1 + i % 2), needs.n_sinks};
            count_transfers(t, &s, &needs);
            for (int r = 0; r < n_ranks; r++) check_rank(t, &s, &needs, r);
        }
    }
    free(t);
}

/* Who keeps a group, or has made it. */
static int keeper_of(const cca_slices *s, const cca_share_needs *needs, int64_t group) {
    int64_t last = group * needs->group_size + needs->group_size - 1;
    for (int i = 0; i < needs->n_held; i++) {
        if (last >= needs->held[i].at.begin && last < needs->held[i].at.end) {
            return needs->held[i].rank;
        }
    }
    return cca_slice_owner(s, slice_with(s, last));
}

/* What each keeps of what lies before goes to all who see it; rank 0 is sent no more than that. */
static void what_ranks_keep_goes_to_who_sees_it(void **state) {
    enum { G = 4 };
    static const cca_holding held[] = {{2, {0, 40}}, {0, {40, 48}}, {1, {48, 100}}};
    (void)state;
    tally *t = malloc(sizeof *t);
    assert_non_null(t);
    for (int64_t window = G; window < 200; window += 3 * G) {
        cca_share_needs needs = {
            .group_size = G, .window_size = window, .ring = window + G, .cores = true};
        cca_slices s = {.n_ranks = 3, .begin = 101, .end = 400, .unit = G};
        needs.held = held, needs.n_held = 3;
        count_transfers(t, &s, &needs);
        for (int r = 0; r < s.n_ranks; r++) {
            int64_t seen = cca_max(end_of(&s, r) - window, 0) / G;
            check_windows(t, &s, &needs, r);
            for (int64_t c = 0; c < s.end / G; c++) {
                bool own = keeper_of(&s, &needs, c) == r;
                assert_int_equal(t->got[r][CCA_SENT_CORES][0][c], c < seen && !own);
            }
        }
    }
    free(t);
}

/* Own lists are the parts of the whole one that name a rank, in its order. */
static void lists_of_ranks_agree(void **state) {
    (void)state;
    cca_slices s = {.n_ranks = 4, .begin = 100, .end = 5000, .unit = 16};
    cca_share_needs needs = {16, 64, 80, 16, true, true, true, NULL, 0};
    cca_transfers all, own;
    cca_error err;
    assert_int_equal(cca_transfers_make(&all, &s, &needs, -1, &err), CCA_OK);
    for (int r = 0; r < s.n_ranks; r++) {
        int next = 0;
        assert_int_equal(cca_transfers_make(&own, &s, &needs, r, &err), CCA_OK);
        for (int i = 0; i < all.n; i++) {
            if (all.at[i].from != r && all.at[i].to != r) continue;
            assert_memory_equal(&own.at[next++], &all.at[i], sizeof all.at[i]);
        }
        assert_int_equal(next, own.n);
        cca_transfers_free(&own);
    }
    cca_transfers_free(&all);
}

/* ---- traffic ------------------------------------------------------------------------- */

/* Rows of keys that a layer's messages hold, of MHA, where a core is as large as a raw row: of the
 * rank that sends most, and of all. Ring attention passes each rank's rows on to all others. */
static int64_t count_sent(int64_t *all, int n_ranks, int64_t n_tokens, int64_t unit,
                          const cca_share_needs *needs) {
    int64_t sent[64] = {0}, most = 0;
    cca_slices s = {.n_ranks = n_ranks, .end = n_tokens, .unit = unit};
    cca_transfers list;
    cca_error err;
    assert_int_equal(cca_transfers_make(&list, &s, needs, -1, &err), CCA_OK);
    for (int i = 0; i < list.n; i++) {
        const cca_transfer *t = &list.at[i];
        if (t->from != t->to) sent[t->from] += t->n;
    }
    cca_transfers_free(&list);
    *all = 0;
    for (int r = 0; r < n_ranks; r++) {
        *all += sent[r];
        most = cca_max(most, sent[r]);
    }
    return most;
}

static double ring_rows(int n_ranks, int64_t n_tokens) {
    return (double)n_tokens / n_ranks * (n_ranks - 1);
}

static void no_rank_sends_a_fourteenth_of_ring_attention(void **state) {
    static const cca_share_needs cca = {16, 1024, 1040, 16, .cores = true};
    int64_t all;
    (void)state;
    for (int n_ranks = 3; n_ranks <= 64; n_ranks++) {
        int64_t most = count_sent(&all, n_ranks, 1048576, 512, &cca);
        test_below((double)most, ring_rows(n_ranks, 1048576) / 19, "rows of a rank, 1M");
        most = count_sent(&all, n_ranks, 131072, 16, &cca);
        if (n_ranks == 3) continue; /* windows are much of what they send */
        test_below((double)most, ring_rows(n_ranks, 131072) / 14, "rows of a rank");
    }
    /* Three quarters of all cores, and two windows. */
    assert_int_equal(count_sent(&all, 4, 131072, 512, &cca), 131072 / 16 / 8 * 9 / 2 + 2 * 1040);
    assert_in_range(all, 4 * 6180 - 200, 4 * 6180);
    /* With two ranks nobody is there to pass anything on: the second one sends all its cores. */
    assert_int_equal(count_sent(&all, 2, 131072, 512, &cca), 131072 / 2 / 16 + 1040);
}

/* With full attention, which has no windows before slices, all send the same. */
static void ranks_send_equally_much(void **state) {
    static const cca_share_needs full = {.group_size = 1, .window_size = 1};
    int64_t all;
    (void)state;
    for (int n_ranks = 3; n_ranks <= 64; n_ranks++) {
        const int64_t n = 1024 * n_ranks * (n_ranks - 1),
                      most = count_sent(&all, n_ranks, n, 1, &full);
        test_below((double)most, 1.01 * (double)all / n_ranks, "rows of a rank, to their mean");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_cover_the_text),
        cmocka_unit_test(pairs_of_slices_are_equally_long),
        cmocka_unit_test(each_rank_gets_what_it_sees_once),
        cmocka_unit_test(what_ranks_keep_goes_to_who_sees_it),
        cmocka_unit_test(lists_of_ranks_agree),
        cmocka_unit_test(no_rank_sends_a_fourteenth_of_ring_attention),
        cmocka_unit_test(ranks_send_equally_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
