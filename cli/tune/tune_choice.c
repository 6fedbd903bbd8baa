/* Which points are worth having, and which is taken. */
#include "cli/tune/tune.h"

#include <math.h>

static const double equal_speeds = 0.05;

bool tune_is_full(const tune_point *p) {
    return p->group_size == 0;
}

double tune_facts_percent(const tune_point *p) {
    return p->n_facts > 0 ? 100.0 * (double)p->n_right / (double)p->n_facts : 100;
}

bool tune_has_limits(const tune_limits *l) {
    return l->has_ppl_increase || l->memory > 0 || l->max_seconds > 0 || l->max_share > 0 ||
           l->min_tps > 0 || l->min_facts > 0;
}

/* A perplexity that is no number is neither better nor worse than another. */
static bool counts(const tune_point *p) {
    return p->measured && isfinite(p->perplexity);
}

static bool is_candidate(const tune_point *p) {
    return counts(p) && !tune_is_full(p);
}

const tune_point *tune_reference(const tune_point *points, size_t n, bool full) {
    const tune_point *best = NULL;
    for (size_t i = 0; i < n; i++) {
        const tune_point *p = &points[i];
        if (!counts(p) || tune_is_full(p) != full) continue;
        if (!best || p->perplexity < best->perplexity) best = p;
    }
    return best;
}

double tune_increase(const tune_point *p, const tune_point *reference) {
    return 100 * (p->perplexity / reference->perplexity - 1);
}

/* ---- the Pareto set ---- */

/* 1: a is better than b, -1: worse, 0: equal. */
static int compare(double a, double b) {
    return (a > b) - (a < b);
}

static int compare_speeds(double a, double b) {
    return fabs(a - b) <= equal_speeds * fmax(a, b) ? 0 : compare(a, b);
}

static bool beats(const tune_point *a, const tune_point *b) {
    const int all[] = {
        compare(b->perplexity, a->perplexity),
        compare(tune_facts_percent(a), tune_facts_percent(b)),
        compare((double)b->cache_bytes, (double)a->cache_bytes),
        compare_speeds(a->prefill_tps, b->prefill_tps),
        compare_speeds(a->decode_tps, b->decode_tps),
    };
    bool better = false;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i] < 0) return false;
        better = better || all[i] > 0;
    }
    return better;
}

void tune_mark_pareto(tune_point *points, size_t n) {
    for (size_t i = 0; i < n; i++) {
        points[i].pareto = is_candidate(&points[i]);
        for (size_t k = 0; k < n && points[i].pareto; k++) {
            if (is_candidate(&points[k]) && beats(&points[k], &points[i])) points[i].pareto = false;
        }
    }
}

/* ---- the choice ---- */

static bool meets(const tune_point *p, const tune_limits *l, const tune_point *reference,
                  const tune_point *full) {
    if (!is_candidate(p)) return false;
    if (l->has_ppl_increase && !(reference && tune_increase(p, reference) <= l->ppl_increase)) {
        return false;
    }
    if (l->memory > 0 && p->memory_bytes > l->memory) return false;
    if (l->max_seconds > 0 && p->seconds > l->max_seconds) return false;
    if (l->max_share > 0 && !(full && p->seconds <= l->max_share * full->seconds)) return false;
    return p->decode_tps >= l->min_tps && tune_facts_percent(p) >= l->min_facts;
}

static bool is_preferred(const tune_point *a, const tune_point *b, const tune_limits *l) {
    int by_cache = compare((double)b->cache_bytes, (double)a->cache_bytes);
    int by_perplexity = compare(b->perplexity, a->perplexity);
    if (!l->has_ppl_increase) return (by_perplexity ? by_perplexity : by_cache) > 0;
    /* Recall of more or less has the same cache. */
    if (by_cache == 0) by_cache = compare_speeds(b->seconds, a->seconds);
    return (by_cache ? by_cache : by_perplexity) > 0;
}

tune_point *tune_choose(tune_point *points, size_t n, const tune_limits *l) {
    const tune_point *reference = tune_reference(points, n, l->against_full);
    const tune_point *full = tune_reference(points, n, true);
    tune_point *choice = NULL;
    for (size_t i = 0; i < n; i++) {
        points[i].chosen = false;
        if (!meets(&points[i], l, reference, full)) continue;
        if (!choice || is_preferred(&points[i], choice, l)) choice = &points[i];
    }
    if (choice) choice->chosen = true;
    return choice;
}
