#include "engine.h"

#include "attention_watch.h"

#include <stdlib.h>
#include <string.h>

/* Those of the cuts that cut something, and where slots begin then. */
static void cut_slots(cca_watch *w, int64_t ctx_size, const int64_t *cuts, int64_t n_cuts) {
    cca_mass *m = &w->mass;
    int64_t n = 0, end = m->unit * (ctx_size / m->unit + 1);
    m->cuts = w->cuts;
    m->n_cuts = 0;
    for (int64_t i = 0; i < n_cuts; i++) {
        bool again = m->n_cuts > 0 && cuts[i] <= w->cuts[m->n_cuts - 1];
        bool inside = cuts[i] > 0 && cuts[i] < end && cuts[i] % m->unit != 0;
        if (inside && !again) w->cuts[m->n_cuts++] = cuts[i];
    }
    for (int64_t pos = 0, cut = 0; pos < end; n++) {
        int64_t next = (pos / m->unit + 1) * m->unit;
        w->begins[n] = pos;
        pos = cut < m->n_cuts ? cca_min(next, m->cuts[cut]) : next;
        cut += cut < m->n_cuts && pos == m->cuts[cut];
    }
    w->begins[n] = end;
    m->n_slots = n;
}

void cca_watch_free(cca_watch *w) {
    free(w->mass.sums);
    free(w->of_draft);
    free(w->cuts);
    free(w->begins);
    *w = (cca_watch){0};
}

/* Zeroed sums of n tokens apart; NULL without memory, and where there is no such number. */
static float *make_sums(int64_t n, const cca_watch_sizes *sizes, size_t n_slots) {
    size_t all = 0;
    if (!cca_mul(&all, (size_t)(n * sizes->n_heads), n_slots)) return NULL;
    return calloc(all, sizeof(float));
}

cca_status cca_watch_begin(cca_watch *w, const cca_watch_sizes *sizes, const int64_t *cuts,
                           int64_t n_cuts, cca_error *err) {
    size_t most = (size_t)(sizes->ctx_size / sizes->unit + 1 + n_cuts);
    cca_watch_free(w);
    w->cuts = calloc((size_t)n_cuts + 1, sizeof *w->cuts);
    w->begins = calloc(most + 1, sizeof *w->begins);
    w->mass.sums = make_sums(1, sizes, most);
    w->of_draft = sizes->n_draft > 0 ? make_sums(sizes->n_draft, sizes, most) : NULL;
    if (!w->mass.sums || !w->cuts || !w->begins || (sizes->n_draft > 0 && !w->of_draft)) {
        cca_watch_free(w);
        return cca_fail(err, CCA_NO_MEMORY, "no memory to watch attention");
    }
    w->mass.unit = sizes->unit;
    w->n_heads = sizes->n_heads;
    w->n_draft = sizes->n_draft;
    cut_slots(w, sizes->ctx_size, cuts, n_cuts);
    w->on = true;
    return CCA_OK;
}

cca_mass cca_watch_draft(cca_watch *w, int64_t n) {
    cca_mass mass = w->mass;
    mass.sums = w->of_draft;
    memset(w->of_draft, 0, (size_t)(n * w->n_heads * mass.n_slots) * sizeof *w->of_draft);
    return mass;
}

void cca_watch_accept(cca_watch *w, int64_t n) {
    const int64_t n_sums = w->n_heads * w->mass.n_slots;
    for (int64_t i = 0; i < n * n_sums; i++) w->mass.sums[i % n_sums] += w->of_draft[i];
    w->n += n;
}

void cca_attention_shares(double *out, const cca_attention *a, int64_t begin, int64_t end) {
    int64_t first = 0, last = a->n_slots;
    double total = 0;
    memset(out, 0, (size_t)a->n_slots * sizeof *out);
    if (!a->sums || a->n_tokens == 0) return;
    while (first < last && a->begins[first] < begin) first++;
    while (last > first && a->begins[last] > end) last--;
    for (int64_t head = 0; head < a->n_layers * a->n_heads; head++) {
        const float *sums = a->sums + head * a->n_slots;
        for (int64_t i = first; i < last; i++) {
            double mean = sums[i] / (double)a->n_tokens;
            out[i] += mean * mean;
        }
    }
    for (int64_t i = first; i < last; i++) total += out[i];
    for (int64_t i = first; i < last && total > 0; i++) out[i] /= total;
}
