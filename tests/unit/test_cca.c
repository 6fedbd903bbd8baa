/* The cache and its attention against the definition, computed here in double on whole
 * sequences: any cut into chunks, any number of threads, each kind of attention. */
#include "backend/cpu/mass.h"
#include "cca.h"
#include "tests/unit/test.h"

enum { HD = 32, HEADS = 4, KV_HEADS = 2, LENGTH = 150 };

typedef struct sequence {
    float q[LENGTH * HEADS * HD], k[LENGTH * KV_HEADS * HD], v[LENGTH * KV_HEADS * HD];
} sequence;

static sequence random_sequence(uint64_t seed) {
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

static double score(const float *q, const double *k) {
    double sum = 0;
    for (int d = 0; d < HD; d++) sum += q[d] * k[d];
    return sum / sqrt(HD);
}

static core raw_token(const sequence *s, int h, int pos) {
    core c;
    int at = (pos * KV_HEADS + h / (HEADS / KV_HEADS)) * HD;
    for (int d = 0; d < HD; d++) c.k[d] = s->k[at + d], c.v[d] = s->v[at + d];
    return c;
}

/* Softmax of the keys' scores with q, applied to the values (and to the keys, for a core). */
static core weigh(const float *q, const core *list, int n) {
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

static core pool_group(const sequence *s, cca_attn attn, int h, int t, int g) {
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

/* Steps 1 to 5 of the definition, 1-based as there. */
static void attend_by_definition(float *out, const sequence *s, cca_attn attn, int g, int w,
                                 int sinks) {
    for (int h = 0; h < HEADS; h++) {
        for (int i = 1; i <= LENGTH; i++) {
            core list[LENGTH];
            int n = 0, j = i >= w ? (i - w) / g : 0;
            if (attn == CCA_ATTN_FULL) j = 0;
            bool cores = attn == CCA_ATTN_CCA || attn == CCA_ATTN_MEAN || attn == CCA_ATTN_MAX;
            for (int t = 0; cores && t < j; t++) list[n++] = pool_group(s, attn, h, t, g);
            for (int p = 0; attn == CCA_ATTN_SINKS && p < sinks && p < j * g; p++) {
                list[n++] = raw_token(s, h, p);
            }
            for (int p = j * g; p < i; p++) list[n++] = raw_token(s, h, p);
            core c = weigh(&s->q[((i - 1) * HEADS + h) * HD], list, n);
            for (int d = 0; d < HD; d++) out[((i - 1) * HEADS + h) * HD + d] = (float)c.v[d];
        }
    }
}

/* What the same softmaxes give each position, summed over some queries: a core's part goes to the
 * slot of its group. out is [HEADS][n_slots]. */
static void mass_by_definition(double *out, int n_slots, int unit, const sequence *s, cca_attn attn,
                               int g, int w, int sinks, const int *queries, int n_queries) {
    memset(out, 0, sizeof *out * (size_t)(HEADS * n_slots));
    for (int h = 0; h < HEADS; h++) {
        for (int x = 0; x < n_queries; x++) {
            int i = queries[x] + 1, n = 0, j = attn != CCA_ATTN_FULL && i >= w ? (i - w) / g : 0;
            int at[LENGTH];
            double p[LENGTH], total = 0;
            const float *q = &s->q[(queries[x] * HEADS + h) * HD];
            core list[LENGTH];
            for (int t = 0; attn == CCA_ATTN_CCA && t < j; t++) {
                at[n] = t * g, list[n++] = pool_group(s, attn, h, t, g);
            }
            for (int y = 0; attn == CCA_ATTN_SINKS && y < sinks && y < j * g; y++) {
                at[n] = y, list[n++] = raw_token(s, h, y);
            }
            for (int y = j * g; y < i; y++) at[n] = y, list[n++] = raw_token(s, h, y);
            for (int k = 0; k < n; k++) total += p[k] = exp(score(q, list[k].k));
            for (int k = 0; k < n; k++) out[h * n_slots + at[k] / unit] += p[k] / total;
        }
    }
}

/* ---- the cache ----------------------------------------------------------------------- */

typedef struct setup {
    cca_attn attn;
    int g, s, sinks, chunk, n_threads;
    cca_dtype type;
    int prefill; /* tokens given in chunks, the rest one at a time; 0: all in chunks */
} setup;

static cca_matrix borrow(const float *x, int64_t rows, int64_t cols) {
    return (cca_matrix){.data = (void *)x, .type = CCA_F32, .rows = rows, .cols = cols};
}

/* Two layers get the same input; the second one's output is returned. */
static void attend_by_cache(float *out, const sequence *seq, const setup *t) {
    cca_error err;
    cca_backend *b;
    cca_cache *cache;
    cca_policy policy;
    cca_cache_shape shape = {2,        HEADS,   KV_HEADS, HD,    LENGTH,
                             t->chunk, t->type, t->type,  false, false};
    cca_backend_options options = {.n_threads = t->n_threads};
    assert_int_equal(cca_policy_make(&policy, t->attn, t->g, t->s, t->sinks, &err), CCA_OK);
    assert_int_equal(cca_backend_cpu(&b, &options, &err), CCA_OK);
    assert_int_equal(cca_cache_new(&cache, b, &shape, &policy, &err), CCA_OK);
    int prefill = t->prefill ? t->prefill : LENGTH;
    for (int pos = 0, n; pos < LENGTH; pos += n) {
        n = pos < prefill ? (int)cca_min(t->chunk, prefill - pos) : 1;
        cca_matrix q = borrow(seq->q + pos * HEADS * HD, n, HEADS * HD);
        cca_matrix k = borrow(seq->k + pos * KV_HEADS * HD, n, KV_HEADS * HD);
        cca_matrix v = borrow(seq->v + pos * KV_HEADS * HD, n, KV_HEADS * HD);
        cca_matrix to = borrow(out + pos * HEADS * HD, n, HEADS * HD);
        cca_cache_attend(cache, 0, &to, &q, &k, &v, NULL, pos, n);
        cca_cache_attend(cache, 1, &to, &q, &k, &v, NULL, pos, n);
    }
    assert_int_equal(cca_backend_sync(b, &err), CCA_OK);
    cca_cache_free(cache);
    cca_backend_close(b);
}

enum { N = LENGTH * HEADS * HD };

/* Watches the last token of each call from position 90 on, in two layers with the same input.
 * on_host: as by a device that has no operation of its own. */
static int watch_by_cache(float *sums, int *queries, int n_slots, const sequence *seq,
                          const setup *t, bool on_host) {
    cca_error err;
    cca_backend *b;
    cca_cache *cache;
    cca_policy policy;
    cca_cache_shape shape = {2,        HEADS,   KV_HEADS, HD,    LENGTH,
                             t->chunk, t->type, t->type,  false, false};
    static float out[N];
    int n_queries = 0;
    assert_int_equal(cca_policy_make(&policy, t->attn, t->g, t->s, t->sinks, &err), CCA_OK);
    assert_int_equal(cca_backend_cpu(&b, &(cca_backend_options){.n_threads = 2}, &err), CCA_OK);
    cca_ops ops = *b->ops;
    if (on_host) ops.mass = cca_mass_on_host;
    b->ops = &ops;
    assert_int_equal(cca_cache_new(&cache, b, &shape, &policy, &err), CCA_OK);
    cca_mass mass = {sums, n_slots, cca_cache_unit(&policy)};
    for (int pos = 0, n; pos < LENGTH; pos += n) {
        n = pos < 100 ? (int)cca_min(t->chunk, 100 - pos) : 1;
        cca_matrix q = borrow(seq->q + pos * HEADS * HD, n, HEADS * HD);
        cca_matrix k = borrow(seq->k + pos * KV_HEADS * HD, n, KV_HEADS * HD);
        cca_matrix v = borrow(seq->v + pos * KV_HEADS * HD, n, KV_HEADS * HD);
        cca_matrix to = borrow(out + pos * HEADS * HD, n, HEADS * HD);
        bool watched = pos + n > 90;
        cca_cache_watch(cache, watched ? &mass : NULL);
        cca_cache_attend(cache, 0, &to, &q, &k, &v, NULL, pos, n);
        cca_cache_attend(cache, 1, &to, &q, &k, &v, NULL, pos, n);
        if (watched) queries[n_queries++] = pos + n - 1;
    }
    assert_int_equal(cca_backend_sync(b, &err), CCA_OK);
    cca_cache_free(cache);
    cca_backend_close(b);
    return n_queries;
}

static void every_cut_equals_the_definition(void **state) {
    (void)state;
    sequence seq = random_sequence(1);
    static const int shapes[][2] = {{1, 1}, {1, 16}, {4, 4}, {4, 16}, {5, 20}, {16, 64}, {16, 160}};
    static const cca_attn kinds[] = {CCA_ATTN_CCA, CCA_ATTN_FULL,   CCA_ATTN_MEAN,
                                     CCA_ATTN_MAX, CCA_ATTN_WINDOW, CCA_ATTN_SINKS};
    for (size_t a = 0; a < sizeof kinds / sizeof *kinds; a++) {
        for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
            static float want[N], got[N];
            setup t = {kinds[a], shapes[c][0], shapes[c][1], 6, 0, 2, CCA_F32, 0};
            attend_by_definition(want, &seq, t.attn, t.g, t.s, t.sinks);
            static const int cuts[][2] = {{1, 0}, {7, 0}, {64, 0}, {150, 0}, {31, 93}, {150, 149}};
            for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
                t.chunk = cuts[i][0], t.prefill = cuts[i][1];
                memset(got, 0xff, sizeof got);
                attend_by_cache(got, &seq, &t);
                char what[64];
                snprintf(what, sizeof what, "kind %d, g %d, s %d, chunk %d, prefill %d", t.attn,
                         t.g, t.s, t.chunk, t.prefill);
                test_below(cca_distance(got, want, N), 1e-6, what);
            }
        }
    }
}

static void attention_watched_is_that_of_the_definition(void **state) {
    (void)state;
    enum { SLOTS = LENGTH }; /* enough for any unit */
    sequence seq = random_sequence(5);
    static const struct {
        setup t;
        int unit;
    } all[] = {
        {{CCA_ATTN_CCA, 4, 16, 0, 64, 2, CCA_F32, 0}, 4},
        {{CCA_ATTN_CCA, 5, 20, 0, 7, 2, CCA_F32, 0}, 5},
        {{CCA_ATTN_CCA, 16, 160, 0, 31, 2, CCA_F32, 0}, 16}, /* all raw */
        {{CCA_ATTN_FULL, 1, 1, 0, 64, 2, CCA_F32, 0}, 16},
        {{CCA_ATTN_WINDOW, 4, 16, 0, 64, 2, CCA_F32, 0}, 16},
        {{CCA_ATTN_SINKS, 4, 16, 6, 64, 2, CCA_F32, 0}, 16},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        for (int on_host = 0; on_host < 2; on_host++) {
            static float got[2 * HEADS * SLOTS], want[HEADS * SLOTS];
            static double sums[HEADS * SLOTS];
            int queries[LENGTH];
            memset(got, 0, sizeof got);
            int n = watch_by_cache(got, queries, SLOTS, &seq, &all[i].t, on_host);
            assert_true(n > 50); /* the chunk that ends the prefill, and each token behind */
            mass_by_definition(sums, SLOTS, all[i].unit, &seq, all[i].t.attn, all[i].t.g,
                               all[i].t.s, all[i].t.sinks, queries, n);
            for (int h = 0; h < HEADS; h++) {
                double total = 0;
                for (int k = 0; k < SLOTS; k++) total += got[h * SLOTS + k];
                test_below(fabs(total - n), 1e-4, "probabilities add up to 1");
            }
            for (int k = 0; k < HEADS * SLOTS; k++) want[k] = (float)sums[k];
            test_below(cca_distance(got, want, HEADS * SLOTS), 1e-6, "attention watched");
            assert_memory_equal(got, got + HEADS * SLOTS,
                                sizeof want); /* the layers have their own */
        }
    }
}

/* With keys rounded by the cache, and queries by its products. */
static void attention_over_rounded_keys_is_watched(void **state) {
    (void)state;
    enum { SLOTS = 10 };
    static const struct {
        cca_dtype type;
        double bound;
    } all[] = {{CCA_F16, 1e-4}, {CCA_BF16, 3e-3}, {CCA_Q8_0, 4e-3}};
    for (int i = 0; i < 3; i++) {
        sequence exact = random_sequence(6), rounded = exact;
        static uint16_t half[LENGTH * KV_HEADS * HD];
        cca_dtype_encode(half, all[i].type, rounded.k, LENGTH * KV_HEADS * HD);
        cca_dtype_decode(rounded.k, all[i].type, half, LENGTH * KV_HEADS * HD);
        float got[2 * HEADS * SLOTS] = {0}, want[HEADS * SLOTS];
        double sums[HEADS * SLOTS];
        int queries[LENGTH];
        setup t = {CCA_ATTN_FULL, 1, 1, 0, 64, 2, all[i].type, 0};
        int n = watch_by_cache(got, queries, SLOTS, &exact, &t, false);
        mass_by_definition(sums, SLOTS, 16, &rounded, CCA_ATTN_FULL, 1, 1, 0, queries, n);
        for (int k = 0; k < HEADS * SLOTS; k++) want[k] = (float)sums[k];
        test_below(cca_distance(got, want, HEADS * SLOTS), all[i].bound, "rounded keys");
    }
}

static void group_size_one_is_full_attention(void **state) {
    (void)state;
    sequence seq = random_sequence(2);
    static float full[N], one[N], wide[N];
    attend_by_cache(full, &seq, &(setup){CCA_ATTN_FULL, 1, 1, 0, 64, 2, CCA_F32, 0});
    attend_by_cache(one, &seq, &(setup){CCA_ATTN_CCA, 1, 16, 0, 64, 2, CCA_F32, 0});
    attend_by_cache(wide, &seq, &(setup){CCA_ATTN_CCA, 16, 160, 0, 64, 2, CCA_F32, 0});
    test_below(cca_distance(one, full, N), 1e-6, "g = 1");
    assert_memory_equal(wide, full, sizeof full); /* s ≥ length takes the same path */
}

/* The definition applied to rounded keys and values; what is left is the rounding of cores. */
static void caches_round_before_use(void **state) {
    (void)state;
    static const struct {
        cca_dtype type;
        double bound, no_cores; /* attention over bf16 may round queries and weights to bf16 */
    } types[] = {{CCA_BF16, 4e-3, 3e-3}, {CCA_F16, 3e-4, 1e-6}, {CCA_Q8_0, 9e-3, 4e-3}};
    for (int i = 0; i < 3; i++) {
        sequence exact = random_sequence(3), rounded = exact;
        uint16_t half[LENGTH * KV_HEADS * HD];
        float *parts[] = {rounded.k, rounded.v};
        for (int p = 0; p < 2; p++) {
            cca_dtype_encode(half, types[i].type, parts[p], LENGTH * KV_HEADS * HD);
            cca_dtype_decode(parts[p], types[i].type, half, LENGTH * KV_HEADS * HD);
        }
        static float want[N], got[N], cut[N], full[N];
        attend_by_definition(want, &rounded, CCA_ATTN_CCA, 4, 16, 0);
        attend_by_cache(got, &exact, &(setup){CCA_ATTN_CCA, 4, 16, 0, 64, 2, types[i].type, 0});
        attend_by_cache(cut, &exact, &(setup){CCA_ATTN_CCA, 4, 16, 0, 9, 2, types[i].type, 70});
        test_below(cca_distance(got, want, N), types[i].bound, "rounded cache");
        test_below(cca_distance(cut, got, N), types[i].bound, "rounded cache, other cut");
        attend_by_definition(want, &rounded, CCA_ATTN_FULL, 1, 1, 0);
        attend_by_cache(full, &exact, &(setup){CCA_ATTN_FULL, 1, 1, 0, 64, 2, types[i].type, 0});
        test_below(cca_distance(full, want, N), types[i].no_cores, "rounded cache, no cores");
    }
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    sequence seq = random_sequence(4);
    static const cca_dtype types[] = {CCA_F32, CCA_F16, CCA_BF16};
    for (int i = 0; i < 3; i++) {
        static float one[N], many[N];
        setup t = {CCA_ATTN_CCA, 4, 16, 0, 40, 1, types[i], 100};
        attend_by_cache(one, &seq, &t);
        for (t.n_threads = 2; t.n_threads <= 5; t.n_threads++) {
            attend_by_cache(many, &seq, &t);
            assert_memory_equal(one, many, sizeof one);
        }
    }
}

/* Llama-2-7B at 131,072 positions: 4.3 GB of cores and 0.55 GB of window; at most 3 % over
 * the definition's 4.9 GB. Nothing is allocated. */
static void memory_is_that_of_the_definition(void **state) {
    (void)state;
    cca_error err;
    cca_policy policy, full;
    cca_cache_size size;
    cca_cache_shape llama2 = {32, 32, 32, 128, 131072, 512, CCA_BF16, CCA_BF16, false, false},
                    llama3 = llama2;
    llama3.n_kv_heads = 8;
    assert_int_equal(cca_policy_make(&policy, CCA_ATTN_CCA, 16, 1024, 0, &err), CCA_OK);
    assert_int_equal(cca_policy_make(&full, CCA_ATTN_FULL, 16, 1024, 0, &err), CCA_OK);
    assert_int_equal(cca_cache_measure(&size, &llama2, &policy, &err), CCA_OK);
    assert_int_equal(size.cores, 2LL * 32 * 32 * 128 * 8192 * 2);
    assert_int_equal(size.window, 2LL * 32 * 32 * 128 * 1040 * 2);
    assert_true((double)(size.cores + size.window + size.scratch) < 1.03 * 4.9e9);
    assert_int_equal(cca_cache_measure(&size, &llama3, &policy, &err), CCA_OK);
    assert_true((double)(size.cores + size.window) < 1.03 * 4.45e9);
    assert_int_equal(cca_cache_measure(&size, &llama2, &full, &err), CCA_OK);
    assert_int_equal(size.cores + size.window, 2LL * 32 * 32 * 128 * 131072 * 2);
    llama2.ctx_size = INT64_MAX / 8;
    assert_int_equal(cca_cache_measure(&size, &llama2, &full, &err), CCA_NO_MEMORY);
}

static void policies_that_make_no_sense_are_refused(void **state) {
    (void)state;
    cca_error err;
    cca_policy p;
    assert_int_equal(cca_policy_make(&p, CCA_ATTN_CCA, 16, 1000, 0, &err), CCA_USAGE);
    assert_string_equal(err.text, "the window (1000) is no multiple of the group size (16)");
    assert_int_equal(cca_policy_make(&p, CCA_ATTN_CCA, 0, 16, 0, &err), CCA_USAGE);
    assert_int_equal(cca_policy_make(&p, CCA_ATTN_CCA, 16, 0, 0, &err), CCA_USAGE);
    assert_int_equal(cca_policy_make(&p, CCA_ATTN_SINKS, 16, 64, 0, &err), CCA_USAGE);
}

/* The first failure sticks, later operations do nothing, an interruption is reported once. */
static void failures_stick(void **state) {
    (void)state;
    cca_error err;
    cca_backend *b;
    volatile sig_atomic_t stop = 0;
    cca_backend_options options = {.n_threads = 1, .stop = &stop};
    assert_int_equal(cca_backend_cpu(&b, &options, &err), CCA_OK);
    float x[4] = {1, 2, 3, 4}, w[2] = {1, 1}, y[4] = {9, 9, 9, 9};
    cca_matrix in = borrow(x, 2, 2), weight = borrow(w, 1, 2), out = borrow(y, 2, 2);
    stop = 1;
    cca_rmsnorm(b, &out, &in, 0, &weight, 0, 2);
    assert_true(y[0] == 9);
    assert_int_equal(cca_backend_sync(b, &err), CCA_INTERRUPTED);
    stop = 0;
    assert_int_equal(cca_backend_sync(b, &err), CCA_OK);
    cca_rmsnorm(b, &out, &in, 1, &weight, 0, 2); /* row 2 does not exist */
    cca_rmsnorm(b, &out, &in, 0, &weight, 0, 2);
    assert_true(y[0] == 9);
    assert_int_equal(cca_backend_sync(b, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "rmsnorm"));
    cca_backend_close(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_equals_the_definition),
        cmocka_unit_test(attention_watched_is_that_of_the_definition),
        cmocka_unit_test(attention_over_rounded_keys_is_watched),
        cmocka_unit_test(group_size_one_is_full_attention),
        cmocka_unit_test(caches_round_before_use),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(memory_is_that_of_the_definition),
        cmocka_unit_test(policies_that_make_no_sense_are_refused),
        cmocka_unit_test(failures_stick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
