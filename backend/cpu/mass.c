/* Where the attention of one query goes. It is asked for on a few tokens only, so that there is one
 * source for all variants, on top of their dot products. */
#include "backend/cpu/kernels.h"

#include <math.h>
#include <string.h>

typedef struct query {
    const cca_kernels *kernels;
    const float *q;
    void *converted; /* room for q in the form that suits a type of keys */
    int64_t head, n_heads;
} query;

/* Scores of the rows `at` … at + n - 1, not yet scaled. */
static void score_rows(float *scores, const query *x, const cca_rows *rows, int64_t at, int64_t n) {
    const cca_kernels *k = x->kernels;
    int64_t own = x->head / (x->n_heads / rows->heads), hd = rows->head_dim;
    size_t width = 0;
    cca_dtype_row_bytes(&width, rows->k_type, hd);
    bool convert = k->x_bytes(rows->k_type, hd) > 0;
    if (convert) k->x_convert(x->converted, rows->k_type, x->q, hd);
    memset(scores, 0, (size_t)n * sizeof *scores);
    k->dot(scores, n, convert ? x->converted : x->q, 0, 1, rows->k_type,
           cca_row_at(rows->k, rows->k_type, rows, own, at), width, n, hd);
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

/* Adds weights times factor to the slots of positions first, first + step, … */
static void add_to_slots(float *sums, int64_t unit, const float *weights, int64_t n, float factor,
                         int64_t first, int64_t step) {
    int64_t slot = first / unit, left = unit - first % unit;
    if (step == unit) {
        for (int64_t i = 0; i < n; i++) sums[slot + i] += weights[i] * factor;
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        sums[slot] += weights[i] * factor;
        left -= step;
        if (left > 0) continue;
        slot++;
        left += unit;
    }
}

void cca_mass_add(const cca_mass *mass, const cca_kernels *k, const cca_attend_args *args,
                  int64_t head, float *scratch) {
    const cca_rows *raw = &args->keys->raw, *far = &args->keys->far;
    const cca_rule *rule = &args->keys->rule;
    int64_t n_far = cca_rule_far(rule, args->pos), first = cca_rule_raw_begin(rule, args->pos);
    int64_t n_raw = args->pos + 1 - first, run = cca_min(n_raw, cca_rows_run(raw, first));
    int64_t step = rule->far == CCA_FAR_CORES ? rule->group_size : 1;
    query x = {k, args->q + head * raw->head_dim, scratch, head, args->n_heads};
    float *scores = scratch + cca_mass_query(raw->head_dim);
    if (n_far > 0) score_rows(scores, &x, far, 0, n_far);
    score_rows(scores + n_far, &x, raw, cca_rows_at(raw, first), run);
    if (n_raw > run) score_rows(scores + n_far + run, &x, raw, 0, n_raw - run);
    double total = exponentials(scores, 1 / sqrtf((float)raw->head_dim), n_far + n_raw);
    float *sums = mass->sums + head * mass->n_slots, factor = (float)(1 / total);
    add_to_slots(sums, mass->unit, scores, n_far, factor, 0, step);
    add_to_slots(sums, mass->unit, scores + n_far, n_raw, factor, first, 1);
}
