/* Attention over whole sequences by its definition, in double, and by a cache in any cut of the
 * sequence into calls.
 *
 *     sequence seq = random_sequence(1);
 *     setup t = {.g = 4, .s = 16, .sinks = 4, .recall = 20, .tile = 8, .chunk = 31};
 *     attend_by_definition(want, &seq, &t);
 *     attend_by_cache(got, &seq, &t); */
#ifndef CCA_ATTENTION_ORACLE_H
#define CCA_ATTENTION_ORACLE_H

#include "cca.h"
#include "tests/unit/test.h"

enum { HD = 32, HEADS = 4, KV_HEADS = 2, LENGTH = 150 };

typedef struct sequence {
    float q[LENGTH * HEADS * HD], k[LENGTH * KV_HEADS * HD], v[LENGTH * KV_HEADS * HD];
} sequence;

static inline sequence random_sequence(uint64_t seed) {
    sequence s = {0};
    test_fill(s.q, LENGTH * HEADS * HD, &seed, 2);
    test_fill(s.k, LENGTH * KV_HEADS * HD, &seed, 2);
    test_fill(s.v, LENGTH * KV_HEADS * HD, &seed, 2);
    return s;
}

/* ---- the definition ------------------------------------------------------------------ */

typedef struct core {
    double k[HD], v[HD];
} core;

static inline double score(const float *q, const double *k) {
    double sum = 0;
    for (int d = 0; d < HD; d++) sum += q[d] * k[d];
    return sum / sqrt(HD);
}

static inline core raw_token(const sequence *s, int h, int pos) {
    core c;
    int at = (pos * KV_HEADS + h / (HEADS / KV_HEADS)) * HD;
    for (int d = 0; d < HD; d++) c.k[d] = s->k[at + d], c.v[d] = s->v[at + d];
    return c;
}

/* Softmax of the keys' scores with q, applied to the values (and to the keys, for a core). */
static inline core weigh(const float *q, const core *list, int n) {
    double largest = -INFINITY, total = 0;
    core out = {0};
    for (int i = 0; i < n; i++) largest = fmax(largest, score(q, list[i].k));
    for (int i = 0; i < n; i++) {
        double w = exp(score(q, list[i].k) - largest);
        total += w;
        for (int d = 0; d < HD; d++) out.k[d] += w * list[i].k[d], out.v[d] += w * list[i].v[d];
    }
    for (int d = 0; d < HD; d++) out.k[d] /= total, out.v[d] /= total;
    return out;
}

static inline core pool_group(const sequence *s, cca_attn attn, int h, int t, int g) {
    core list[LENGTH], out = {0};
    for (int i = 0; i < g; i++) list[i] = raw_token(s, h, t * g + i);
    if (attn == CCA_ATTN_CCA) return weigh(&s->q[((t * g + g - 1) * HEADS + h) * HD], list, g);
    for (int d = 0; d < HD; d++) {
        out.k[d] = attn == CCA_ATTN_MAX ? -INFINITY : 0;
        out.v[d] = out.k[d];
        for (int i = 0; i < g; i++) {
            out.k[d] =
                attn == CCA_ATTN_MAX ? fmax(out.k[d], list[i].k[d]) : out.k[d] + list[i].k[d] / g;
            out.v[d] =
                attn == CCA_ATTN_MAX ? fmax(out.v[d], list[i].v[d]) : out.v[d] + list[i].v[d] / g;
        }
    }
    return out;
}

/* What is computed and how it is cut into calls. */
typedef struct setup {
    cca_attn attn;
    int g, s, sinks, recall, tile; /* tile 0: 1 */
    bool no_cores;
    int chunk, n_threads; /* 0 threads: 2 */
    cca_dtype type;
    int levels_from; /* 0: nowhere */
    int prefill;     /* tokens given in chunks, the rest one at a time; 0: all in chunks */
} setup;

static inline int max_of(int a, int b) {
    return a > b ? a : b;
}

static inline int min_of(int a, int b) {
    return a < b ? a : b;
}

/* Groups behind the window of a position. */
static inline int groups_behind(const setup *t, int pos) {
    return t->attn != CCA_ATTN_FULL && pos + 1 >= t->s ? (pos + 1 - t->s) / t->g : 0;
}

/* Whether the groups that can be recalled are, for each head of keys. */
typedef bool choice[KV_HEADS][LENGTH];

/* What is weighed: columns of unit groups, as far as end, those among some. */
typedef struct columns {
    int unit, end;
    const bool *among; /* NULL: all */
} columns;

/* The weights of columns for one query, over those that it sees, from the smallest and the largest
 * of their keys. */
static inline void weigh_columns(double *weights, const columns *c, const sequence *s,
                                 const setup *t, int h, int pos) {
    double score[LENGTH] = {0}, total = 0;
    const float *q = &s->q[(pos * HEADS + h) * HD];
    int begin = t->sinks / t->g / c->unit, size = c->unit * t->g;
    int end = min_of(c->end, (groups_behind(t, pos) + c->unit - 1) / c->unit);
    for (int n = begin; n < end; n++) {
        if (c->among && !c->among[n]) continue;
        for (int d = 0; d < HD; d++) {
            double low = INFINITY, high = -INFINITY;
            for (int i = n * size; i < (n + 1) * size; i++) {
                double k = s->k[(i * KV_HEADS + h / (HEADS / KV_HEADS)) * HD + d];
                low = fmin(low, k), high = fmax(high, k);
            }
            score[n] += fmax(q[d] * low, q[d] * high) / sqrt(HD);
        }
        total += exp(score[n]);
    }
    for (int n = begin; n < end; n++) {
        if (!c->among || c->among[n]) weights[n] += exp(score[n]) / total;
    }
}

/* The columns that the queries first … last of a head of keys choose together. */
static inline void choose_columns(bool *out, const columns *c, const sequence *s, const setup *t,
                                  int kv, int first, int last, int most) {
    double weights[LENGTH] = {0};
    memset(out, 0, LENGTH * sizeof *out);
    for (int r = 0; r < HEADS / KV_HEADS; r++) {
        for (int pos = first; pos <= last; pos++) {
            weigh_columns(weights, c, s, t, kv * (HEADS / KV_HEADS) + r, pos);
        }
    }
    for (; most > 0; most--) {
        int best = -1;
        for (int n = t->sinks / t->g / c->unit; n < c->end; n++) {
            bool taken = out[n] || (c->among && !c->among[n]);
            if (!taken && (best < 0 || weights[n] > weights[best])) best = n;
        }
        if (best >= 0) out[best] = true;
    }
}

static inline void choose_by_definition(choice out, const sequence *s, const setup *t, int first,
                                        int last) {
    int end = groups_behind(t, last), most = t->recall / t->g, n_blocks = end / CCA_BLOCK;
    int wanted = (int)cca_blocks_looked_into(most);
    bool in_levels = t->levels_from > 0 && end >= t->levels_from && wanted < n_blocks;
    memset(out, 0, sizeof(choice));
    for (int kv = 0; kv < KV_HEADS && t->recall > 0; kv++) {
        bool blocks[LENGTH], among[LENGTH];
        columns all = {CCA_BLOCK, n_blocks, NULL}, some = {1, end, in_levels ? among : NULL};
        if (in_levels) choose_columns(blocks, &all, s, t, kv, first, last, wanted);
        for (int n = 0; n < end && in_levels; n++) {
            among[n] = n / CCA_BLOCK >= n_blocks || blocks[n / CCA_BLOCK];
        }
        choose_columns(out[kv], &some, s, t, kv, first, last, most);
    }
}

/* The last position that chooses together with pos, the first of its tile or call. */
static inline int last_of_tile(const setup *t, int pos) {
    int prefill = t->prefill ? t->prefill : LENGTH, tile = max_of(t->tile, 1);
    if (pos >= prefill) return pos;
    int chunk = t->chunk ? t->chunk : LENGTH, call = min_of(prefill, (pos / chunk + 1) * chunk);
    return min_of(call, (pos / tile + 1) * tile) - 1;
}

/* The keys that a query sees (steps 1 to 4, 1-based as there, with sinks and recall), and the first
 * position of each. */
static inline int see_by_definition(core *list, int *at, const sequence *s, const setup *t, int h,
                                    int pos, choice chosen) {
    int n = 0, i = pos + 1, j = groups_behind(t, pos), g = t->g;
    bool cores = t->attn <= CCA_ATTN_MAX && t->attn != CCA_ATTN_FULL && !t->no_cores;
    bool sinks = t->attn == CCA_ATTN_CCA || t->attn == CCA_ATTN_SINKS;
    for (int p = 0; sinks && p < t->sinks && p < j * g; p++) {
        at[n] = p, list[n++] = raw_token(s, h, p);
    }
    for (int k = sinks ? t->sinks / g : 0; k < j; k++) {
        bool recalled = chosen[h / (HEADS / KV_HEADS)][k];
        for (int p = k * g; recalled && p < (k + 1) * g; p++) {
            at[n] = p, list[n++] = raw_token(s, h, p);
        }
        if (cores && !recalled) at[n] = k * g, list[n++] = pool_group(s, t->attn, h, k, g);
    }
    for (int p = j * g; p < i; p++) at[n] = p, list[n++] = raw_token(s, h, p);
    return n;
}

static inline void attend_by_definition(float *out, const sequence *s, const setup *t) {
    choice chosen;
    for (int pos = 0, last = -1; pos < LENGTH; pos++) {
        if (pos > last) {
            last = last_of_tile(t, pos);
            choose_by_definition(chosen, s, t, pos, last);
        }
        for (int h = 0; h < HEADS; h++) {
            core list[LENGTH];
            int at[LENGTH], n = see_by_definition(list, at, s, t, h, pos, chosen);
            core c = weigh(&s->q[(pos * HEADS + h) * HD], list, n);
            for (int d = 0; d < HD; d++) out[(pos * HEADS + h) * HD + d] = (float)c.v[d];
        }
    }
}

/* What the same softmaxes give each position, summed over some queries, each the last of its call:
 * a core's part goes to the slot of its group. out is [HEADS][n_slots]. */
static inline void mass_by_definition(double *out, int n_slots, int unit, const sequence *s,
                                      const setup *t, const int *queries, int n_queries) {
    memset(out, 0, sizeof *out * (size_t)(HEADS * n_slots));
    for (int x = 0; x < n_queries; x++) {
        choice chosen;
        int first = queries[x];
        while (first > 0 && last_of_tile(t, first - 1) == queries[x]) first--;
        choose_by_definition(chosen, s, t, first, queries[x]);
        for (int h = 0; h < HEADS; h++) {
            double p[LENGTH], total = 0;
            core list[LENGTH];
            int at[LENGTH], n = see_by_definition(list, at, s, t, h, queries[x], chosen);
            const float *q = &s->q[(queries[x] * HEADS + h) * HD];
            for (int k = 0; k < n; k++) total += p[k] = exp(score(q, list[k].k));
            for (int k = 0; k < n; k++) out[h * n_slots + at[k] / unit] += p[k] / total;
        }
    }
}

/* ---- the cache ----------------------------------------------------------------------- */

static inline cca_matrix borrow(const float *x, int64_t rows, int64_t cols) {
    return (cca_matrix){.data = (void *)x, .rows = rows, .cols = cols};
}

/* A cache with its backend. */
typedef struct opened {
    cca_backend *b;
    cca_cache *cache;
    cca_policy policy;
} opened;

static inline cca_status make_policy(cca_policy *out, const setup *t, cca_error *err) {
    const cca_policy_options o = {.attn = t->attn,
                                  .group_size = t->g,
                                  .window_size = t->s,
                                  .n_sinks = t->sinks,
                                  .recall = t->recall,
                                  .tile = t->tile,
                                  .no_cores = t->no_cores};
    return cca_policy_make(out, &o, err);
}

enum { LAYERS = 2 };

static inline opened open_cache(const setup *t) {
    cca_error err;
    opened o;
    cca_cache_shape shape = {.n_layers = LAYERS,
                             .n_heads = HEADS,
                             .n_kv_heads = KV_HEADS,
                             .head_dim = HD,
                             .ctx_size = LENGTH,
                             .chunk_size = t->chunk,
                             .k_type = t->type,
                             .v_type = t->type,
                             .mark = true};
    cca_backend_options options = {.n_threads = t->n_threads ? t->n_threads : 2};
    if (make_policy(&o.policy, t, &err) != CCA_OK) fail_msg("%s", err.text);
    if (t->levels_from > 0) o.policy.levels_from = t->levels_from;
    assert_int_equal(cca_backend_cpu(&o.b, &options, &err), CCA_OK);
    assert_int_equal(cca_cache_new(&o.cache, o.b, &shape, &o.policy, &err), CCA_OK);
    return o;
}

static inline void close_cache(opened *o) {
    cca_error err;
    assert_int_equal(cca_backend_sync(o->b, &err), CCA_OK);
    cca_cache_free(o->cache);
    cca_backend_close(o->b);
}

/* All layers get the same input; the last one's output stays. */
static inline void attend_call(opened *o, float *out, const sequence *seq, int pos, int n) {
    cca_matrix q = borrow(seq->q + pos * HEADS * HD, n, HEADS * HD);
    cca_matrix k = borrow(seq->k + pos * KV_HEADS * HD, n, KV_HEADS * HD);
    cca_matrix v = borrow(seq->v + pos * KV_HEADS * HD, n, KV_HEADS * HD);
    cca_matrix to = borrow(out + pos * HEADS * HD, n, HEADS * HD);
    for (int layer = 0; layer < LAYERS; layer++) {
        cca_cache_attend(o->cache, layer, &to, &q, &k, &v, NULL, 0, pos, n);
    }
}

static inline int call_at(const setup *t, int pos) {
    int prefill = t->prefill ? t->prefill : LENGTH;
    return pos < prefill ? min_of(t->chunk, prefill - pos) : 1;
}

/* From a position on. */
static inline void attend_rest(opened *o, float *out, const sequence *seq, const setup *t,
                               int pos) {
    for (int n; pos < LENGTH; pos += n) {
        n = call_at(t, pos);
        attend_call(o, out, seq, pos, n);
    }
}

static inline void attend_by_cache(float *out, const sequence *seq, const setup *t) {
    opened o = open_cache(t);
    attend_rest(&o, out, seq, t, 0);
    close_cache(&o);
}

enum { N = LENGTH * HEADS * HD };

#endif
