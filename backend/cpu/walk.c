/* Which keys attention looks at together: the same for all variants of the kernels. */
#include "backend/cpu/kernels.h"

cca_key_walk cca_walk_begin(const cca_attend_args *args, const cca_span *span, int64_t kv_head,
                            int64_t row, int64_t n) {
    int64_t first = args->pos + row;
    cca_key_walk w = {.span = span,
                      .pieces = &args->spans->pieces,
                      .tile = cca_range_tile(&span->seen, first, first + n - 1)};
    w.at = w.tile.begin;
    if (span->pick == CCA_PICK_ALL) return w;
    const cca_choice *choice = &args->spans->choice;
    w.chosen = cca_chosen(choice, args->pos, row, kv_head, &w.n_chosen);
    w.group_size = choice->group_size;
    if (span->pick != CCA_PICK_CHOSEN) return w;
    w.at = 0; /* of the chosen ones, those that lie behind these queries: their tile may go on */
    while (w.n_chosen > 0 && w.chosen[w.n_chosen - 1] * w.group_size >= w.tile.end) w.n_chosen--;
    return w;
}

/* Columns one behind the other, as far as their rows are. */
static bool next_in_a_row(cca_key_walk *w) {
    cca_key_tile *t = &w->keys;
    if (w->at >= w->tile.end) return false;
    t->n = cca_min(cca_min(CCA_TILE_K, w->tile.end - w->at), cca_rows_run(&w->span->rows, w->at));
    t->first_column = w->at;
    t->first_row = cca_rows_at(&w->span->rows, w->at);
    t->in_a_row = true;
    t->takes_part = ~UINT64_C(0);
    w->at += t->n;
    return true;
}

static void leave_out_chosen(cca_key_walk *w) {
    cca_key_tile *t = &w->keys;
    for (; w->next < w->n_chosen && w->chosen[w->next] < t->first_column + t->n; w->next++) {
        int64_t k = w->chosen[w->next] - t->first_column;
        if (k >= 0) t->takes_part &= ~(UINT64_C(1) << k);
    }
}

/* Keys of chosen groups, from several where one is smaller than a tile. */
static bool next_chosen(cca_key_walk *w) {
    cca_key_tile *t = &w->keys;
    int64_t left = w->n_chosen * w->group_size - w->at, g = w->group_size;
    if (left <= 0) return false;
    t->n = cca_min(CCA_TILE_K, left);
    t->in_a_row = false;
    t->takes_part = ~UINT64_C(0);
    for (int64_t k = 0; k < t->n; k++, w->at++) {
        t->column[k] = w->chosen[w->at / g] * g + w->at % g;
        t->from[k] = cca_piece_of(w->pieces, &w->span->rows, t->column[k]);
        t->row[k] = cca_rows_at(t->from[k], t->column[k]);
    }
    return true;
}

bool cca_walk_next(cca_key_walk *w) {
    if (w->span->pick == CCA_PICK_CHOSEN) return next_chosen(w);
    bool more = next_in_a_row(w);
    if (more && w->span->pick == CCA_PICK_OTHERS) leave_out_chosen(w);
    return more;
}
