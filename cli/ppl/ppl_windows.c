#include "cli/ppl/ppl_windows.h"

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static bool has_bos(const ppl_layout *l, int64_t index) {
    return l->bos == PPL_BOS_EVERY || (l->bos == PPL_BOS_FIRST && index == 0);
}

/* Text tokens that fit window number index. */
static int64_t room(const ppl_layout *l, int64_t index) {
    return l->mode == PPL_FULL ? l->n_tokens : l->window - has_bos(l, index);
}

/* The text token that window number index begins with. */
static int64_t begin_of(const ppl_layout *l, int64_t index) {
    if (l->mode == PPL_FULL || index == 0) return index == 0 ? 0 : l->n_tokens;
    if (l->mode == PPL_STRIDE) return index * l->stride;
    return room(l, 0) + (index - 1) * room(l, 1);
}

static int64_t end_of(const ppl_layout *l, int64_t index) {
    return smaller(begin_of(l, index) + room(l, index), l->n_tokens);
}

bool ppl_window_at(ppl_window *out, const ppl_layout *l, int64_t index) {
    ppl_window w = {begin_of(l, index), end_of(l, index), 0, has_bos(l, index)};
    if (w.begin >= l->n_tokens) return false;
    if (l->mode == PPL_STRIDE && index > 0 && end_of(l, index - 1) == l->n_tokens) return false;
    if (l->mode == PPL_LLAMACPP && w.end - w.begin < l->window) return false;

    int64_t first = w.begin - w.bos; /* of the window's positions, in tokens of the text */
    w.score = first + 1;
    if (l->mode == PPL_STRIDE && index > 0) w.score = end_of(l, index - 1);
    if (l->mode == PPL_CHUNK) w.score = first + l->score_from;
    if (l->mode == PPL_LLAMACPP) w.score = first + l->window / 2 + 1;
    w.score = smaller(larger(w.score, first + 1), w.end);
    *out = w;
    return true;
}

/* The second window's first token is scored in it only behind a BOS. */
int64_t ppl_largest_stride(const ppl_layout *l) {
    return room(l, 0) - !has_bos(l, 1);
}

int64_t ppl_window_size(const ppl_window *w) {
    return w->end - w->begin + w->bos;
}

ppl_totals ppl_layout_totals(const ppl_layout *layout) {
    ppl_totals t = {0};
    ppl_window w;
    while (ppl_window_at(&w, layout, t.n_windows)) {
        t.n_windows++;
        t.positions += ppl_window_size(&w);
        t.largest = larger(t.largest, ppl_window_size(&w));
        t.scored += w.end - w.score;
    }
    return t;
}
