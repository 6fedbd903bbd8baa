#include "sampler.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

struct cca_sampler {
    cca_sampler_options options;
    int32_t vocab_size;
    uint64_t random[4];    /* xoshiro256** */
    candidate *candidates; /* [vocab_size] */
    bool *banned;          /* [vocab_size], all false between calls */
    int32_t *counts;       /* [vocab_size] occurrences that the penalty sees; NULL: no penalty */
    int32_t *recent;       /* ring of the last repeat_last_n ids; NULL where all count */
    size_t n_accepted;
};

cca_sampler_options cca_sampler_defaults(void) {
    return (cca_sampler_options){
        .temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repeat_penalty = 1.0f,
        .repeat_last_n = 64,
        .seed = 0,
    };
}

/* The comparisons are written so that a NaN fails them. */
static cca_status check_options(const cca_sampler_options *o, int32_t vocab_size, cca_error *err) {
    if (!(o->temperature >= 0 && o->temperature < INFINITY)) {
        return cca_fail(err, CCA_USAGE, "temperature %g is not 0 or more", (double)o->temperature);
    }
    if (!(o->top_p > 0 && o->top_p <= 1)) {
        return cca_fail(err, CCA_USAGE, "top-p %g is not above 0 and at most 1", (double)o->top_p);
    }
    if (!(o->min_p >= 0 && o->min_p <= 1)) {
        return cca_fail(err, CCA_USAGE, "min-p %g is not from 0 to 1", (double)o->min_p);
    }
    if (!(o->repeat_penalty > 0 && o->repeat_penalty < INFINITY)) {
        return cca_fail(err, CCA_USAGE, "repeat penalty %g is not above 0",
                        (double)o->repeat_penalty);
    }
    if (o->repeat_last_n < -1) {
        return cca_fail(err, CCA_USAGE, "repeat-last-n %d is not -1 or more", o->repeat_last_n);
    }
    if (vocab_size < 1) {
        return cca_fail(err, CCA_USAGE, "a sampler over a vocabulary of %d tokens", vocab_size);
    }
    return CCA_OK;
}

/* Spreads a seed over the generator's state, which must not be all zero. */
static void seed_random(uint64_t state[4], uint64_t seed) {
    for (int i = 0; i < 4; i++) state[i] = cca_random_next(&seed);
}

static uint64_t rotate(uint64_t x, int bits) {
    return (x << bits) | (x >> (64 - bits));
}

/* Uniform in [0, 1), 53 bits of one step of xoshiro256**. */
static double next_random(uint64_t s[4]) {
    uint64_t result = rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

cca_status cca_sampler_new(cca_sampler **out, const cca_sampler_options *options,
                           int32_t vocab_size, cca_error *err) {
    *out = NULL;
    cca_status status = check_options(options, vocab_size, err);
    if (status) return status;
    cca_sampler *s = calloc(1, sizeof *s);
    if (!s) return cca_fail(err, CCA_NO_MEMORY, "no memory for a sampler");
    size_t n = (size_t)vocab_size;
    bool penalised = options->repeat_penalty != 1 && options->repeat_last_n != 0;
    bool ring = penalised && options->repeat_last_n > 0;
    s->options = *options;
    s->vocab_size = vocab_size;
    s->candidates = malloc(n * sizeof *s->candidates);
    s->banned = calloc(n, sizeof *s->banned);
    if (penalised) s->counts = calloc(n, sizeof *s->counts);
    if (ring) s->recent = malloc((size_t)options->repeat_last_n * sizeof *s->recent);
    if (!s->candidates || !s->banned || (penalised && !s->counts) || (ring && !s->recent)) {
        cca_sampler_free(s);
        return cca_fail(err, CCA_NO_MEMORY, "no memory to sample from %d tokens", vocab_size);
    }
    seed_random(s->random, options->seed);
    *out = s;
    return CCA_OK;
}

void cca_sampler_free(cca_sampler *sampler) {
    if (!sampler) return;
    free(sampler->candidates);
    free(sampler->banned);
    free(sampler->counts);
    free(sampler->recent);
    free(sampler);
}

void cca_sampler_accept(cca_sampler *sampler, int32_t id) {
    if (!sampler->counts || id < 0 || id >= sampler->vocab_size) return;
    if (sampler->recent) {
        size_t n = (size_t)sampler->options.repeat_last_n;
        int32_t *slot = &sampler->recent[sampler->n_accepted % n];
        if (sampler->n_accepted >= n) sampler->counts[*slot]--;
        *slot = id;
    }
    sampler->n_accepted++;
    if (sampler->counts[id] < INT32_MAX) sampler->counts[id]++;
}

/* A total order: the larger logit first, then the lower id. */
static bool comes_before(candidate a, candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Restores a heap of n candidates, the first on top, whose element i may be out of place. */
static void sift_down(candidate *heap, size_t n, size_t i) {
    candidate moved = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && comes_before(heap[child + 1], heap[child])) child++;
        if (!comes_before(heap[child], moved)) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* Fills s->candidates with what may be taken, penalised, and returns their number. */
static size_t collect(cca_sampler *s, const float *logits, const int32_t *banned, size_t n_banned) {
    for (size_t i = 0; i < n_banned; i++) {
        if (banned[i] >= 0 && banned[i] < s->vocab_size) s->banned[banned[i]] = true;
    }
    size_t n = 0;
    float penalty = s->options.repeat_penalty;
    for (int32_t id = 0; id < s->vocab_size; id++) {
        if (s->banned[id]) continue;
        float logit = isnan(logits[id]) ? -INFINITY : logits[id];
        if (s->counts && s->counts[id]) logit = logit > 0 ? logit / penalty : logit * penalty;
        s->candidates[n++] = (candidate){logit, id};
    }
    for (size_t i = 0; i < n_banned; i++) {
        if (banned[i] >= 0 && banned[i] < s->vocab_size) s->banned[banned[i]] = false;
    }
    return n;
}

/* e^x for x ≤ 0 to about one unit in the last place, with the same bits everywhere, which a
 * library's function has not: x = n ln 2 + r with |r| ≤ ln 2 / 2, and Taylor's polynomial in r. The
 * Makefile keeps the compiler from joining products and sums. */
static double exp_of(double x) {
    if (!(x > -745)) return 0;
    double n = floor(x * 0x1.71547652b82fep0 + 0.5);
    double r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33; /* ln 2 in two parts */
    double p = 1;
    for (int i = 14; i > 0; i--) p = 1 + p * r / i;
    return ldexp(p, (int)n);
}

/* Probability relative to the largest; equal infinities count as equal. */
static double weight(float logit, float largest, double temperature) {
    return logit == largest ? 1.0 : exp_of(((double)logit - (double)largest) / temperature);
}

static double sum_weights(const candidate *c, size_t n, float largest, double temperature) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += weight(c[i].logit, largest, temperature);
    return sum;
}

/* Moves the top of the heap of n - sorted candidates in front of the sorted ones at the end. */
static candidate pop_best(candidate *heap, size_t n, size_t sorted) {
    size_t last = n - 1 - sorted;
    candidate best = heap[0];
    heap[0] = heap[last];
    heap[last] = best;
    sift_down(heap, last, 0);
    return best;
}

/* Moves the candidates that top-k, top-p and min-p keep to the end of the array, the best one
 * last, and returns their number. They come from a heap one at a time, so that the rest of a
 * large vocabulary is never sorted. */
static size_t keep_best(candidate *c, size_t n, const cca_sampler_options *o) {
    for (size_t i = n / 2; i-- > 0;) sift_down(c, n, i);
    float largest = c[0].logit;
    size_t limit = o->top_k > 0 && (size_t)o->top_k < n ? (size_t)o->top_k : n;
    size_t sorted = 0;
    double total = 0; /* what top-p takes its share of */
    if (o->top_p < 1 && limit == n) total = sum_weights(c, n, largest, 1);
    if (o->top_p < 1 && limit < n) {
        for (; sorted < limit; sorted++) total += weight(pop_best(c, n, sorted).logit, largest, 1);
    }
    size_t kept = 0;
    for (double sum = 0; kept < limit; kept++) {
        if (kept == sorted) pop_best(c, n, sorted++);
        double w = weight(c[n - 1 - kept].logit, largest, 1);
        if (w < (double)o->min_p || (o->top_p < 1 && sum >= (double)o->top_p * total)) break;
        sum += w;
    }
    return kept;
}

/* One draw from the tempered distribution; what has no weight is never drawn. */
static int32_t draw(const candidate *c, size_t n, double temperature, double uniform) {
    float largest = c[0].logit;
    for (size_t i = 1; i < n; i++) {
        if (c[i].logit > largest) largest = c[i].logit;
    }
    double left = uniform * sum_weights(c, n, largest, temperature);
    int32_t drawn = c[0].id;
    for (size_t i = n; i-- > 0 && left >= 0;) {
        double w = weight(c[i].logit, largest, temperature);
        if (w > 0) drawn = c[i].id;
        left -= w;
    }
    return drawn;
}

static int32_t take_best(const candidate *c, size_t n) {
    candidate best = c[0];
    for (size_t i = 1; i < n; i++) {
        if (comes_before(c[i], best)) best = c[i];
    }
    return best.id;
}

int32_t cca_sampler_next(cca_sampler *sampler, const float *logits, const int32_t *banned,
                         size_t n_banned) {
    const cca_sampler_options *o = &sampler->options;
    candidate *c = sampler->candidates;
    size_t n = collect(sampler, logits, banned, n_banned);
    if (n == 0) return -1;
    if (o->temperature == 0) return take_best(c, n);
    if (o->top_k > 0 || o->top_p < 1 || o->min_p > 0) {
        size_t kept = keep_best(c, n, o);
        c += n - kept;
        n = kept;
    }
    return draw(c, n, (double)o->temperature, next_random(sampler->random));
}

/* Differences to the largest are exact enough in float; their sum is not. */
double cca_log_sum_exp(const float *logits, int64_t n) {
    float largest = logits[0];
    for (int64_t i = 1; i < n; i++) largest = logits[i] > largest ? logits[i] : largest;
    double sum = (double)expf(logits[0] - largest);
    for (int64_t i = 1; i < n; i++) sum += (double)expf(logits[i] - largest);
    return log(sum) + (double)largest;
}
