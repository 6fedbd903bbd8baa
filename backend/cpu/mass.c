/* Where the attention of one query goes. It is asked for on a few tokens only, so that there is one
 * source for all variants, on top of their dot products, and other devices send their keys here. */
#include "backend/cpu/mass.h"

#include "backend/cpu/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One row's query of one head, in the form that suits keys of a type. */
typedef struct query {
    const cca_kernels *kernels;
    const cca_attend_args *args;
    int64_t row, head;
    const void *form;
    void *room; /* for the form */
    cca_dtype type;
} query;

static query make_query(const cca_kernels *k, const cca_attend_args *args, int64_t row,
                        int64_t head, void *room) {
    return (query){k, args, row, head, NULL, room, CCA_F32};
}

static void suit(query *x, const cca_rows *keys) {
    const float *q = x->args->q + (x->row * x->args->n_heads + x->head) * keys->head_dim;
    const cca_products *products = x->kernels->few(keys->k_type);
    if (x->form && x->type == keys->k_type) return;
    x->form = q;
    x->type = keys->k_type;
    if (products->x_bytes(keys->k_type, keys->head_dim) > 0) {
        products->x_convert(x->room, keys->k_type, q, keys->head_dim);
        x->form = x->room;
    }
}

static cca_key_walk walk_of(const query *x, const cca_span *span) {
    int64_t sharers = x->args->n_heads / x->args->spans->at[0].rows.heads;
    return cca_walk_begin(x->args, span, x->head / sharers, x->row, 1);
}

/* Scores of keys k … k + n - 1 of a tile, one behind the other, not yet scaled. */
static void score_rows(float *scores, const query *x, const cca_rows *rows,
                       const cca_key_tile *keys, int64_t k, int64_t n) {
    int64_t own = x->head / (x->args->n_heads / rows->heads), hd = rows->head_dim;
    size_t width = 0;
    cca_dtype_row_bytes(&width, rows->k_type, hd);
    memset(scores, 0, (size_t)n * sizeof *scores);
    x->kernels->few(rows->k_type)
        ->dot(scores, n, x->form, 0, 1, rows->k_type, cca_key_at(keys, rows, own, k), width, n, hd);
}

/* Those of a tile of keys; what takes no part has a score of -inf. */
static void score_keys(float *scores, const query *x, const cca_rows *rows,
                       const cca_key_tile *keys) {
    if (keys->in_a_row) score_rows(scores, x, rows, keys, 0, keys->n);
    for (int64_t k = 0; k < keys->n; k++) {
        if (!keys->in_a_row) score_rows(scores + k, x, rows, keys, k, 1);
        if (!(keys->takes_part >> k & 1)) scores[k] = -INFINITY;
    }
}

/* e^x for x ≤ 0, to two units in the last place; what compilers can make vectors of. */
static inline float exp_of(float x) {
    const float magic = 0x1.8p23f; /* adding it rounds to a whole number */
    float y = (x > -87.0f ? x : -87.0f) * 1.44269504f, whole = y + magic - magic, f = y - whole;
    float power =
        1.0f + f * (0.693147180f +
                    f * (0.240226507f +
                         f * (0.0555041087f +
                              f * (0.00961812911f + f * (0.00133335581f + f * 0.000154035304f)))));
    int32_t bits;
    memcpy(&bits, &power, sizeof bits);
    bits += (int32_t)whole * (1 << 23);
    memcpy(&power, &bits, sizeof bits);
    return power;
}

enum { LANES = 16 }; /* side by side, for the same reason */

static float largest_of(const float *x, int64_t n) {
    float lanes[LANES], most = -INFINITY;
    int64_t i = 0;
    for (int j = 0; j < LANES; j++) lanes[j] = -INFINITY;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
    }
    for (; i < n; i++) most = fmaxf(most, x[i]);
    for (int j = 0; j < LANES; j++) most = fmaxf(most, lanes[j]);
    return most;
}

/* Scores become e^(scale * (score - largest)); gives their sum. */
static double exponentials(float *x, float scale, int64_t n) {
    float lanes[LANES] = {0}, largest = largest_of(x, n);
    double total = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            x[i + j] = exp_of((x[i + j] - largest) * scale);
            lanes[j] += x[i + j];
        }
    }
    for (; i < n; i++) total += x[i] = exp_of((x[i] - largest) * scale);
    for (int j = 0; j < LANES; j++) total += lanes[j];
    return total;
}

/* The number of cuts up to a position. */
static int64_t cuts_before(const cca_mass *mass, int64_t pos) {
    int64_t low = 0, high = mass->n_cuts;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (mass->cuts[middle] <= pos) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Adds weights times factor to the slots of positions first, first + step, …, each of which stands
 * for step positions: one row, or a group, which has a unit of its own. */
static void add_to_slots(float *sums, const cca_mass *mass, const float *weights, int64_t n,
                         float factor, int64_t first, int64_t step) {
    int64_t unit = mass->unit, cut = cuts_before(mass, first);
    for (int64_t i = 0, pos = first; i < n;) {
        int64_t next = cut < mass->n_cuts ? mass->cuts[cut] : INT64_MAX;
        int64_t slot = cut + pos / unit, end = cca_min(next, (pos / unit + 1) * unit);
        int64_t n_rows = step == 1 ? cca_min(n - i, end - pos) : 0;
        int64_t n_groups =
            step == unit && pos % unit == 0 ? cca_min(n - i, (next - pos) / unit) : 0;
        if (n_rows > 0) { /* of one slot */
            for (int64_t j = 0; j < n_rows; j++) sums[slot] += weights[i + j] * factor;
            pos += n_rows;
            i += n_rows;
        } else if (n_groups > 0) { /* with a slot each */
            for (int64_t j = 0; j < n_groups; j++) sums[slot + j] += weights[i + j] * factor;
            pos += n_groups * unit;
            i += n_groups;
        } else { /* a part */
            end = cca_min(end, first + (i + 1) * step);
            sums[slot] += weights[i] * factor * ((float)(end - pos) / (float)step);
            pos = end;
            i += pos == first + (i + 1) * step;
        }
        cut += pos == next;
    }
}

void cca_mass_add(const cca_mass *mass, const cca_kernels *k, const cca_attend_args *args,
                  int64_t row, int64_t head, float *scratch) {
    const cca_spans *spans = args->spans;
    int64_t hd = spans->at[0].rows.head_dim;
    query x = make_query(k, args, row, head, scratch);
    float *scores = scratch + cca_mass_query(hd), *to = scores;
    for (int i = spans->n - 1; i >= 0; i--) {
        cca_key_walk w = walk_of(&x, &spans->at[i]);
        suit(&x, &spans->at[i].rows);
        for (; cca_walk_next(&w); to += w.keys.n) {
            score_keys(to, &x, &spans->at[i].rows, &w.keys);
        }
    }
    double total = exponentials(scores, 1 / sqrtf((float)hd), to - scores);
    float *sums = mass->sums + head * mass->n_slots, factor = (float)(1 / total);
    to = scores;
    for (int i = spans->n - 1; i >= 0; i--) {
        const cca_span *span = &spans->at[i];
        cca_key_walk w = walk_of(&x, span);
        for (; cca_walk_next(&w); to += w.keys.n) {
            int64_t in_a_row = w.keys.in_a_row ? w.keys.n : 1;
            for (int64_t j = 0; j < w.keys.n; j += in_a_row) {
                int64_t first = cca_key_column(&w.keys, j) * span->stride;
                add_to_slots(sums, mass, to + j, in_a_row, factor, first, span->stride);
            }
        }
    }
}

/* ---- for other devices ----------------------------------------------------------------- */

/* The columns that a position sees, in host memory. */
static bool copy_columns(cca_backend *b, cca_span *out, const cca_span *span, int64_t pos) {
    const cca_rows *rows = &span->rows;
    int64_t n = cca_range_count(&span->seen, pos);
    size_t k_bytes, v_bytes;
    *out = *span;
    out->rows.capacity = cca_max(n, 1);
    out->rows.base = cca_edge_at(&span->seen.begin, pos);
    out->rows.k = out->rows.v = NULL;
    if (!cca_matrix_bytes(&k_bytes, rows->k_type, rows->heads * n, rows->head_dim) ||
        !cca_matrix_bytes(&v_bytes, rows->v_type, rows->heads * n, rows->head_dim)) {
        return false;
    }
    out->rows.k = malloc(k_bytes + 1);
    out->rows.v = malloc(v_bytes + 1);
    if (!out->rows.k || !out->rows.v) return false;
    cca_rows_get(b, out->rows.k, out->rows.v, rows, out->rows.base, n);
    return true;
}

/* What the tile of a call's row has chosen, as if the call began there. */
static bool copy_choice(cca_backend *b, cca_choice *out, const cca_choice *choice, int64_t pos,
                        int64_t row) {
    int64_t n = choice->heads * choice->most;
    *out = *choice;
    out->groups = malloc((size_t)n * sizeof *out->groups + 1);
    out->counts = malloc((size_t)choice->heads * sizeof *out->counts + 1);
    if (!out->groups || !out->counts) return false;
    int64_t tile = cca_choice_tile(choice, pos, row);
    cca_backend_download(b, out->groups, choice->groups + tile * n, (size_t)n * sizeof(int32_t));
    cca_backend_download(b, out->counts, choice->counts + tile * choice->heads,
                         (size_t)choice->heads * sizeof(int32_t));
    return true;
}

void cca_mass_on_host(cca_backend *b, const cca_mass *mass, const cca_spans *spans,
                      const cca_matrix *q, int64_t row, int64_t pos) {
    const cca_kernels *k = cca_kernels_best();
    const cca_matrix own = {(float *)q->data + row * q->cols, q->type, 1, q->cols, false};
    cca_spans copy = {.n = 0};
    bool room = true;
    for (; room && copy.n < spans->n; copy.n++) {
        room = copy_columns(b, &copy.at[copy.n], &spans->at[copy.n], pos + row);
    }
    if (room && spans->choice.most > 0) {
        room = copy_choice(b, &copy.choice, &spans->choice, pos, row);
    }
    int64_t n_heads = q->cols / spans->at[0].rows.head_dim;
    float *queries = malloc((size_t)q->cols * sizeof *queries);
    size_t n_scratch = ((size_t)cca_mass_scratch(spans, pos + row) + 15) / 16 * 16;
    float *scratch = aligned_alloc(64, n_scratch * sizeof *scratch);
    if (queries) cca_matrix_download(b, queries, &own, 1);
    cca_error why;
    cca_status status = cca_backend_sync(b, &why);
    if (status) { /* an interruption, too, which the forward pass is still to report */
        cca_backend_fail(b, status, "%s", why.text);
    } else if (!room || !queries || !scratch) {
        cca_backend_fail(b, CCA_NO_MEMORY, "no memory to tell attention");
    } else {
        const cca_attend_args args = {&copy, queries, NULL, n_heads, pos + row, NULL};
        for (int64_t h = 0; h < n_heads; h++) cca_mass_add(mass, k, &args, 0, h, scratch);
    }
    for (int i = 0; i < copy.n; i++) free(copy.at[i].rows.k), free(copy.at[i].rows.v);
    free(copy.choice.groups), free(copy.choice.counts);
    free(queries), free(scratch);
}
