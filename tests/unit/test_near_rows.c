/* Rows that are brought near, through the cache of several layers: the same bits as of rows that
 * are read where they lie, or their rounding. On the CPU, whose copies are made at once, and on a
 * device, where there is one. */
#include "cca.h"
#include "tests/unit/test.h"

enum { LAYERS = 3, HEADS = 4, KV = 2, HD = 64, LENGTH = 300, CHUNK = 64, G = 4 };

typedef struct side {
    cca_backend *b;
    cca_cache *cache;
    cca_matrix out, q, k, v;
} side;

typedef struct kind {
    cca_dtype type, row_type;
    int64_t tile;
    bool cores;
} kind;

static void fill(side *s, cca_matrix *m, uint64_t seed) {
    static float values[CHUNK * HEADS * HD];
    uint64_t state = seed;
    cca_dtype_fill(values, CCA_F32, m->rows * m->cols, &state);
    cca_backend_upload(s->b, m->data, values, (size_t)(m->rows * m->cols) * sizeof *values);
}

static cca_cache_shape shape_of(const kind *t, bool near, bool on_host) {
    return (cca_cache_shape){.n_layers = LAYERS,
                             .n_heads = HEADS,
                             .n_kv_heads = KV,
                             .head_dim = HD,
                             .ctx_size = LENGTH,
                             .chunk_size = CHUNK,
                             .k_type = t->type,
                             .v_type = t->type,
                             .rows_apart = true,
                             .row_k_type = t->row_type,
                             .row_v_type = t->row_type,
                             .rows_on_host = on_host,
                             .rows_near = near,
                             .draft = 8};
}

static cca_policy policy_of(const kind *t) {
    cca_policy policy;
    cca_error err;
    cca_policy_options options = {.attn = CCA_ATTN_CCA,
                                  .group_size = G,
                                  .window_size = 16,
                                  .n_sinks = G,
                                  .recall = 24,
                                  .tile = t->tile,
                                  .no_cores = !t->cores};
    assert_int_equal(cca_policy_make(&policy, &options, &err), CCA_OK);
    return policy;
}

static side open_side(const char *device, const kind *t, bool near, bool on_host) {
    cca_backend_options on = {.n_threads = 2};
    side s;
    cca_error err;
    cca_policy policy = policy_of(t);
    cca_cache_shape shape = shape_of(t, near, on_host);
    assert_int_equal(cca_backend_open(&s.b, device, &on, &err), CCA_OK);
    assert_int_equal(cca_cache_new(&s.cache, s.b, &shape, &policy, &err), CCA_OK);
    cca_matrix_alloc(s.b, &s.out, CCA_F32, CHUNK, HEADS * HD);
    cca_matrix_alloc(s.b, &s.q, CCA_F32, CHUNK, HEADS * HD);
    cca_matrix_alloc(s.b, &s.k, CCA_F32, CHUNK, KV * HD);
    cca_matrix_alloc(s.b, &s.v, CCA_F32, CHUNK, KV * HD);
    return s;
}

static void close_side(side *s) {
    cca_matrix *all[] = {&s->out, &s->q, &s->k, &s->v};
    for (int i = 0; i < 4; i++) cca_matrix_free(s->b, all[i]);
    cca_cache_free(s->cache);
    cca_backend_close(s->b);
}

/* n tokens at pos through all layers; seed: other ones at the same place. */
static void run(side *s, int64_t pos, int64_t n, uint64_t seed, float *out) {
    cca_error err;
    for (int64_t layer = 0; layer < LAYERS; layer++) {
        fill(s, &s->q, seed + 1000 * (uint64_t)pos + 10 * (uint64_t)layer + 1);
        fill(s, &s->k, seed + 1000 * (uint64_t)pos + 10 * (uint64_t)layer + 2);
        fill(s, &s->v, seed + 1000 * (uint64_t)pos + 10 * (uint64_t)layer + 3);
        cca_cache_attend(s->cache, layer, &s->out, &s->q, &s->k, &s->v, NULL, 0, pos, n);
        cca_matrix_download(s->b, out + layer * CHUNK * HEADS * HD, &s->out, n);
    }
    assert_int_equal(cca_backend_sync(s->b, &err), CCA_OK);
}

/* Calls of a timeline: whole chunks, a part, single tokens, some that choose alone, a draft of
 * which a part is taken back, and other beginnings; the last ones choose all groups but the sinks,
 * of which the fifth and those behind become others. */
static const struct {
    int64_t pos, n;
    bool alone, draft;
    uint64_t seed;
} calls[] = {{0, 64, false, false, 1},   {64, 64, false, false, 1},  {128, 64, false, false, 1},
             {192, 10, false, false, 1}, {202, 1, false, false, 1},  {203, 1, false, false, 1},
             {204, 36, true, false, 1},  {240, 8, false, true, 1},   {244, 1, false, false, 2},
             {245, 19, true, false, 2},  {264, 2, false, false, 2},  {0, 64, false, false, 3},
             {64, 64, false, false, 3},  {128, 30, false, false, 3}, {158, 3, true, false, 3},
             {0, 20, false, false, 4},   {20, 1, false, false, 4},   {21, 12, true, false, 4},
             {33, 1, false, false, 4},   {34, 1, false, false, 4},   {0, 64, false, false, 3},
             {64, 64, false, false, 3},  {128, 33, false, false, 3}, {161, 1, false, false, 3},
             {162, 1, false, false, 3},  {0, 64, false, false, 5},   {64, 64, false, false, 5},
             {128, 33, false, false, 5}, {161, 1, false, false, 5},  {162, 1, false, false, 5},
             {0, 44, false, false, 6},   {44, 1, false, false, 6},   {45, 1, false, false, 6},
             {20, 25, false, false, 7},  {45, 1, false, false, 7},   {46, 1, false, false, 7}};

static void compare(const char *device, const kind *t, bool on_host, double bound) {
    enum { N = LAYERS * CHUNK * HEADS * HD };
    static float want[N], got[N];
    side plain = open_side(device, t, false, false);
    side near = open_side(device, t, true, on_host);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        side *both[] = {&plain, &near};
        memset(want, 0, sizeof want), memset(got, 0, sizeof got);
        for (int s = 0; s < 2; s++) {
            cca_cache_choose_alone(both[s]->cache, calls[i].alone);
            cca_cache_draft(both[s]->cache, calls[i].draft);
            run(both[s], calls[i].pos, calls[i].n, calls[i].seed, s == 0 ? want : got);
        }
        char what[64];
        snprintf(what, sizeof what, "call %d, rows of %s", (int)i, cca_dtype_name(t->row_type));
        if (bound == 0) assert_memory_equal(got, want, sizeof got);
        test_below(cca_distance(got, want, N), bound + 1e-9, what);
    }
    close_side(&plain), close_side(&near);
}

static void the_same_bits_on_the_host(void **state) {
    (void)state;
    static const kind all[] = {{CCA_F32, CCA_F32, 1, false},   {CCA_F32, CCA_F32, 16, false},
                               {CCA_F32, CCA_F32, 8, true},    {CCA_BF16, CCA_BF16, 16, false},
                               {CCA_F32, CCA_Q8_0, 16, false}, {CCA_Q8_0, CCA_Q8_0, 16, false}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) compare("cpu", &all[i], true, 0);
}

static void rounded_to_the_window(void **state) {
    (void)state;
    static const kind all[] = {{CCA_BF16, CCA_Q8_0, 1, false},
                               {CCA_BF16, CCA_Q8_0, 16, false},
                               {CCA_F16, CCA_Q4_0, 16, false},
                               {CCA_F16, CCA_Q8_0, 8, true}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        compare("cpu", &all[i], true, all[i].type == CCA_F16 ? 3e-4 : 3e-3);
        compare("cpu", &all[i], false, all[i].type == CCA_F16 ? 3e-4 : 3e-3);
    }
}

/* What is stored of a state goes on with rows that lie elsewhere. */
static void put_and_get(const char *device) {
    enum { N = LAYERS * CHUNK * HEADS * HD };
    static const kind t = {CCA_BF16, CCA_Q8_0, 16, false};
    static float want[N], got[N];
    side from = open_side(device, &t, true, true), to = open_side(device, &t, true, true);
    run(&from, 0, 64, 1, want), run(&from, 64, 64, 1, want);
    run(&to, 0, 64, 2, got), run(&to, 64, 64, 2, got);
    for (int part = CCA_PART_KEPT; part <= CCA_PART_WINDOW; part++) {
        int64_t n = cca_cache_part_rows(from.cache, (cca_part)part, 128);
        int64_t first = part == CCA_PART_WINDOW ? 128 - n : 0;
        size_t bytes = cca_cache_part_bytes(from.cache, (cca_part)part, first, n);
        char *copy = malloc(bytes);
        assert_non_null(copy);
        for (int64_t layer = 0; layer < LAYERS; layer++) {
            cca_cache_get(from.cache, (cca_part)part, layer, first, n, copy);
            cca_cache_put(to.cache, (cca_part)part, layer, first, n, copy);
        }
        free(copy);
    }
    run(&from, 128, 64, 1, want), run(&to, 128, 64, 1, got);
    assert_memory_equal(got, want, sizeof want);
    close_side(&from), close_side(&to);
}

static void states_are_put_and_got(void **state) {
    (void)state;
    put_and_get("cpu");
}

/* A backend of which an operation is another one. */
static const cca_ops *whole;
static int n_renewed;

static void renew_and_count(cca_backend *b, const cca_kept *kept, const cca_rows *in,
                            const cca_choice *choice, int64_t n_known) {
    n_renewed++;
    whole->renew(b, kept, in, choice, n_known);
}

/* Nobody has to say that single tokens choose for themselves: of them what was chosen stays near.
 */
static void single_tokens_keep_what_they_chose(void **state) {
    (void)state;
    static const kind t = {CCA_BF16, CCA_Q8_0, 16, false};
    static float out[LAYERS * CHUNK * HEADS * HD];
    side s = open_side("cpu", &t, true, true);
    whole = s.b->ops;
    cca_ops ops = *whole;
    ops.renew = renew_and_count;
    s.b->ops = &ops;
    n_renewed = 0;
    run(&s, 0, 64, 1, out), run(&s, 64, 64, 1, out);
    assert_int_equal(n_renewed, 0);
    run(&s, 128, 1, 1, out), run(&s, 129, 1, 1, out);
    assert_int_equal(n_renewed, 2 * LAYERS);
    s.b->ops = whole;
    close_side(&s);
}

/* One whose memory ends: so many allocations are made, and what of them lives is counted. */
static int left, live;
static size_t taken;

static void *end(cca_backend *b, size_t bytes) {
    cca_backend_fail(b, CCA_NO_MEMORY, "no memory for %zu bytes", bytes);
    return NULL;
}

static void *some_memory(cca_backend *b, size_t bytes) {
    if (left-- <= 0) return end(b, bytes);
    live++;
    taken += bytes;
    return whole->alloc(b, bytes);
}

static void give_back(cca_backend *b, void *data) {
    live--;
    whole->release(b, data);
}

static void memory_that_ends_is_given_back(void **state) {
    (void)state;
    cca_backend *b;
    cca_error err;
    static const kind t = {CCA_BF16, CCA_Q8_0, 16, false};
    cca_policy policy = policy_of(&t);
    cca_cache_shape shape = shape_of(&t, true, true);
    int n = 0;
    for (cca_status status = CCA_NO_MEMORY; status; n++) {
        cca_cache *cache;
        assert_int_equal(cca_backend_cpu(&b, &(cca_backend_options){.n_threads = 1}, &err), CCA_OK);
        whole = b->ops;
        cca_ops ops = *whole;
        ops.alloc = ops.alloc_host = some_memory;
        ops.release = ops.release_host = give_back;
        b->ops = &ops;
        left = n, live = 0, taken = 0;
        status = cca_cache_new(&cache, b, &shape, &policy, &err);
        assert_true(!status || (status == CCA_NO_MEMORY && strstr(err.text, " bytes")));
        assert_int_equal(cache == NULL, status != 0);
        cca_cache_free(cache);
        assert_int_equal(live, 0);
        b->ops = whole;
        cca_backend_close(b);
    }
    assert_true(n > 15);
    cca_cache_size size;
    assert_int_equal(cca_cache_measure(&size, &shape, &policy, &err), CCA_OK);
    assert_int_equal(taken, size.bounds + size.host + size.window + size.scratch);
    assert_int_equal(size.rows + size.disk + size.cores + size.mark, 0);
}

/* Whether there is one. */
static bool has_device(void) {
    cca_backend *b;
    cca_error err;
    if (cca_backend_open(&b, "cuda", &(cca_backend_options){0}, &err)) return false;
    cca_backend_close(b);
    return true;
}

/* Sums of some queries at a time are in another order. */
static void on_a_device(void **state) {
    (void)state;
    static const struct {
        kind t;
        double bound;
    } all[] = {{{CCA_BF16, CCA_BF16, 16, false}, 1e-4}, {{CCA_F16, CCA_F16, 1, false}, 1e-4},
               {{CCA_BF16, CCA_BF16, 16, true}, 1e-4},  {{CCA_BF16, CCA_Q8_0, 16, false}, 6e-3},
               {{CCA_BF16, CCA_Q4_0, 1, false}, 6e-3},  {{CCA_F16, CCA_Q8_0, 16, false}, 6e-3},
               {{CCA_F32, CCA_Q8_0, 16, false}, 1e-5},  {{CCA_F32, CCA_F32, 8, true}, 1e-5}};
    if (!has_device()) skip();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        compare("cuda", &all[i].t, true, all[i].bound);
        compare("cuda", &all[i].t, false, all[i].bound);
    }
    put_and_get("cuda");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bits_on_the_host),
        cmocka_unit_test(rounded_to_the_window),
        cmocka_unit_test(states_are_put_and_got),
        cmocka_unit_test(single_tokens_keep_what_they_chose),
        cmocka_unit_test(memory_that_ends_is_given_back),
        cmocka_unit_test(on_a_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
