/* Layers, caches and models on the CUDA backend against the CPU's. Skipped where there is no
 * device. */
#include "cca.h"
#include "tests/unit/cuda_pairs.h"
#include "tests/unit/recall_models.h"

/* ---- a token through layers ------------------------------------------------------------ */

enum { WIDTH = 1024, HIDDEN = 2304, N_HEADS = 8, N_KV_HEADS = 4, HEAD_DIM = WIDTH / N_HEADS };

/* Weights of a layer and its cache, and what is computed on the way. */
typedef struct layer {
    pair attn_norm, ffn_norm, q, k, v, o, gate, up, down;
    row_pair raw, sinks, cores;
} layer;

typedef struct token_rows {
    pair x, h, q, k, v, attended, gated, upped, angles;
} token_rows;

/* more: the type of what Q4_K_M and its like give more bits. */
static layer random_layer(cca_dtype type, cca_dtype more, const cca_rule *rule, int64_t pos) {
    float size = 1 / sqrtf(WIDTH);
    int64_t kv = N_KV_HEADS * HEAD_DIM;
    return (layer){
        .attn_norm = random_pair(1, WIDTH, 2),
        .ffn_norm = random_pair(1, WIDTH, 2),
        .q = random_weights(type, WIDTH, WIDTH, size),
        .k = random_weights(type, kv, WIDTH, size),
        .v = random_weights(more, kv, WIDTH, size),
        .o = random_weights(type, WIDTH, WIDTH, size),
        .gate = random_weights(type, HIDDEN, WIDTH, size),
        .up = random_weights(type, HIDDEN, WIDTH, size),
        .down = random_weights(more, WIDTH, HIDDEN, size),
        .raw = random_rows(CCA_BF16, CCA_BF16, N_KV_HEADS, cca_rule_ring(rule), HEAD_DIM, 0),
        .sinks =
            random_rows(CCA_BF16, CCA_BF16, N_KV_HEADS, cca_max(rule->n_sinks, 1), HEAD_DIM, 0),
        .cores = random_rows(CCA_BF16, CCA_BF16, N_HEADS, count_cores(rule, pos), HEAD_DIM, 0)};
}

static void free_layer(layer *l) {
    pair *all[] = {&l->attn_norm, &l->ffn_norm, &l->q,  &l->k,   &l->v,
                   &l->o,         &l->gate,     &l->up, &l->down};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free_pair(all[i]);
    free_rows(&l->raw), free_rows(&l->sinks), free_rows(&l->cores);
}

static cca_matrix *side(cca_backend *b, pair *p) {
    return b == gpu ? &p->device : &p->host;
}

/* A layer as model.c and cca.c do it. */
static void run_layer(cca_backend *b, layer *l, token_rows *t, const cca_rope *rope,
                      const cca_rule *rule, int64_t pos) {
    cca_product qkv[] = {{side(b, &t->q), side(b, &l->q), NULL, false},
                         {side(b, &t->k), side(b, &l->k), NULL, false},
                         {side(b, &t->v), side(b, &l->v), NULL, false}};
    cca_product o = {side(b, &t->x), side(b, &l->o), NULL, true};
    cca_turn turn = {side(b, &t->angles), rope};
    cca_rows raw = b == gpu ? l->raw.device : l->raw.host;
    cca_spans spans = spans_of(rule, raw, b == gpu ? l->sinks.device : l->sinks.host,
                               b == gpu ? l->cores.device : l->cores.host);
    cca_ffn f = {.norm = side(b, &l->ffn_norm),
                 .gate = side(b, &l->gate),
                 .up = side(b, &l->up),
                 .down = side(b, &l->down),
                 .eps = 1e-5f,
                 .h = side(b, &t->h),
                 .gated = side(b, &t->gated),
                 .upped = side(b, &t->upped)};
    cca_norm_matmul(b, qkv, 3, side(b, &t->h), side(b, &t->x), 0, side(b, &l->attn_norm), 1e-5f, 1);
    cca_rotate_store(b, &raw, side(b, &t->q), side(b, &t->k), side(b, &t->v), &turn, pos, 1);
    cca_attend(b, side(b, &t->attended), &spans, side(b, &t->q), pos, 1);
    cca_matmul(b, &o, 1, side(b, &t->attended), 1);
    cca_feed_forward(b, side(b, &t->x), &f, 1);
}

/* Three layers of different weights with nothing that waits between them, tokens one behind the
 * other: the steps of token.cu in one launch. */
static void tokens_through_layers(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { LAYERS = 3, POS = 3000, TOKENS = 3 };
    const cca_rule rules[] = {{16, 256, 0, true}, {16, 256, 32, true}};
    double inv_freq[HEAD_DIM / 2];
    for (int k = 0; k < HEAD_DIM / 2; k++) inv_freq[k] = pow(10000, -2.0 * k / HEAD_DIM);
    const cca_rope rope = {inv_freq, HEAD_DIM / 2, 1, true, 1};
    for (int r = 0; r < 12; r++) {
        const cca_rule rule = rules[r / 6];
        const bool mixed = r % 6 == 5;
        const cca_dtype type = mixed ? CCA_Q4_K : types[r % 6], more = mixed ? CCA_Q6_K : type;
        layer layers[LAYERS];
        for (int l = 0; l < LAYERS; l++) layers[l] = random_layer(type, more, &rule, POS + TOKENS);
        token_rows t = {random_pair(1, WIDTH, 1),
                        poisoned(1, WIDTH),
                        poisoned(1, WIDTH),
                        poisoned(1, N_KV_HEADS * HEAD_DIM),
                        poisoned(1, N_KV_HEADS * HEAD_DIM),
                        poisoned(1, WIDTH),
                        poisoned(1, HIDDEN),
                        poisoned(1, HIDDEN),
                        poisoned(1, HEAD_DIM)};
        cca_backend *both[] = {plain, gpu};
        for (int pos = POS; pos < POS + TOKENS; pos++) {
            for (int b = 0; b < 2; b++) {
                cca_angles(both[b], side(both[b], &t.angles), &rope, pos, 1);
                for (int l = 0; l < LAYERS; l++) {
                    run_layer(both[b], &layers[l], &t, &rope, &rule, pos);
                }
            }
        }
        bool quantised = cca_dtype_block(type) > 1;
        compare(&t.attended, quantised ? 3e-2 : 1e-3, "attention of the last layer");
        compare(&t.x, quantised ? 3e-2 : 1e-3, cca_dtype_name(type));
        for (int l = 0; l < LAYERS; l++) free_layer(&layers[l]);
        pair *all[] = {&t.x, &t.h, &t.q, &t.k, &t.v, &t.attended, &t.gated, &t.upped, &t.angles};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) free_pair(all[k]);
    }
}

/* Token by token and in chunks, through the cache's rings, pooling on the way. */
static void the_cache_in_pieces(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { LENGTH = 500, HEADS = 4, KV = 2, HD = 64 };
    cca_cache_shape shape = {.n_layers = 1,
                             .n_heads = HEADS,
                             .n_kv_heads = KV,
                             .head_dim = HD,
                             .ctx_size = LENGTH,
                             .chunk_size = LENGTH,
                             .k_type = CCA_BF16,
                             .v_type = CCA_BF16};
    static const int64_t chunks[] = {LENGTH, 1, 7, 64, 130};
    pair q = random_pair(LENGTH, HEADS * HD, 2), k = random_pair(LENGTH, KV * HD, 2);
    pair v = random_pair(LENGTH, KV * HD, 2);
    static const struct {
        cca_attn attn;
        int64_t n_sinks;
    } kinds[] = {{CCA_ATTN_CCA, 0}, {CCA_ATTN_CCA, 8},  {CCA_ATTN_FULL, 0},   {CCA_ATTN_MEAN, 0},
                 {CCA_ATTN_MAX, 0}, {CCA_ATTN_CCA, 16}, {CCA_ATTN_WINDOW, 0}, {CCA_ATTN_SINKS, 5}};
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        const cca_policy_options options = {.attn = kinds[kind].attn,
                                            .group_size = 8,
                                            .window_size = 64,
                                            .n_sinks = kinds[kind].n_sinks};
        pair out = poisoned(LENGTH, HEADS * HD);
        for (int c = -1; c < 5; c++) { /* the CPU first */
            cca_error err;
            cca_policy policy;
            cca_cache *cache;
            cca_backend *b = c < 0 ? cpu : gpu;
            int64_t chunk = chunks[c < 0 ? 0 : c];
            assert_int_equal(cca_policy_make(&policy, &options, &err), CCA_OK);
            assert_int_equal(cca_cache_new(&cache, b, &shape, &policy, &err), CCA_OK);
            for (int64_t pos = 0, n; pos < LENGTH; pos += n) {
                n = cca_min(chunk, LENGTH - pos);
                cca_matrix part[4] = {c < 0 ? out.host : out.device, c < 0 ? q.host : q.device,
                                      c < 0 ? k.host : k.device, c < 0 ? v.host : v.device};
                for (int i = 0; i < 4; i++) {
                    part[i].data = (float *)part[i].data + pos * part[i].cols;
                    part[i].rows = n;
                }
                cca_cache_attend(cache, 0, &part[0], &part[1], &part[2], &part[3], NULL, 0, pos, n);
            }
            char what[64];
            snprintf(what, sizeof what, "attention %d, %d sinks, chunks of %d", kinds[kind].attn,
                     (int)kinds[kind].n_sinks, (int)chunk);
            if (c >= 0) compare(&out, 4e-3, what);
            cca_cache_free(cache);
        }
        free_pair(&out);
    }
    free_pair(&q), free_pair(&k), free_pair(&v);
}

/* Full attention of a layer with a window of its own, in bf16 rows, in chunks. */
static void run_windowed(cca_backend *b, pair *out, pair *const qkv[3], int64_t head_dim,
                         int64_t own_window, int64_t chunk) {
    const int64_t length = out->host.rows;
    const cca_cache_shape shape = {.n_layers = 1,
                                   .n_heads = qkv[0]->host.cols / head_dim,
                                   .n_kv_heads = qkv[1]->host.cols / head_dim,
                                   .head_dim = head_dim,
                                   .ctx_size = length,
                                   .chunk_size = length,
                                   .k_type = CCA_BF16,
                                   .v_type = CCA_BF16};
    const cca_policy_options options = {.attn = CCA_ATTN_FULL, .group_size = 8, .window_size = 64};
    cca_policy policy;
    cca_cache *cache;
    cca_error err;
    assert_int_equal(cca_policy_make(&policy, &options, &err), CCA_OK);
    assert_int_equal(cca_cache_new(&cache, b, &shape, &policy, &err), CCA_OK);
    for (int64_t pos = 0, n; pos < length; pos += n) {
        cca_matrix part[4];
        n = cca_min(chunk, length - pos);
        for (int i = 0; i < 4; i++) {
            part[i] = *side(b, i == 0 ? out : qkv[i - 1]);
            part[i].data = (float *)part[i].data + pos * part[i].cols;
            part[i].rows = n;
        }
        cca_cache_attend(cache, 0, &part[0], &part[1], &part[2], &part[3], NULL, own_window, pos,
                         n);
    }
    cca_cache_free(cache);
}

/* Of head sizes that tensor cores take: windows that end within their tiles, and at one; one by
 * one, too. A window of all is none. */
static void windows_of_their_own(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { LENGTH = 500, HEADS = 4, KV = 2 };
    static const int64_t windows[] = {1, 24, 64, 130, 1000}, chunks[] = {LENGTH, 1, 7, 64, 130};
    for (int64_t hd = 64; hd <= 128; hd *= 2) {
        pair q = random_pair(LENGTH, HEADS * hd, 2), k = random_pair(LENGTH, KV * hd, 2);
        pair v = random_pair(LENGTH, KV * hd, 2), out = poisoned(LENGTH, HEADS * hd);
        pair *const qkv[] = {&q, &k, &v};
        float *whole = NULL;
        for (int w = 4; w >= 0; w--) {
            run_windowed(cpu, &out, qkv, hd, windows[w], LENGTH);
            for (int c = 0; c < 5; c++) {
                char what[64];
                run_windowed(gpu, &out, qkv, hd, windows[w], chunks[c]);
                snprintf(what, sizeof what, "head size %d, window %d, chunks of %d", (int)hd,
                         (int)windows[w], (int)chunks[c]);
                compare(&out, 4e-3, what);
            }
            float *got = fetch(&out);
            if (whole) assert_true(cca_distance(got, whole, LENGTH * HEADS * hd) > 0.05);
            if (whole) free(got);
            if (!whole) whole = got;
        }
        free(whole), free_pair(&q), free_pair(&k), free_pair(&v), free_pair(&out);
    }
}

/* With g = 1 a core is its only token: CCA over 32,768 tokens is full attention. */
static void group_size_one_is_full_attention(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { LENGTH = 32768, N = 200, HD = 128 };
    row_pair all = random_rows(CCA_BF16, CCA_BF16, 1, LENGTH, HD, 0);
    pair q = random_pair(N, HD, 2), full = poisoned(N, HD), one = poisoned(N, HD);
    cca_rule endless = {1, INT64_MAX / 4, 0, false}, cut = {1, 1024, 0, true};
    cca_spans whole = spans_of(&endless, all.device, all.device, all.device);
    cca_spans parts = spans_of(&cut, all.device, all.device, all.device);
    cca_attend(gpu, &full.device, &whole, &q.device, LENGTH - N, N);
    cca_attend(gpu, &one.device, &parts, &q.device, LENGTH - N, N);
    float *want = fetch(&full), *got = fetch(&one);
    test_below(cca_distance(got, want, N * HD), 4e-3, "g = 1");
    free(want), free(got), free_rows(&all), free_pair(&q), free_pair(&full), free_pair(&one);
}

/* ---- recall -------------------------------------------------------------------------- */

enum { LENGTH = 500, HEADS = 4, KV_HEADS = 2, WIDE = HEADS * 64, NARROW = KV_HEADS * 64 };

/* Random queries, keys and values of a sequence; types and kind of the cache that takes them. */
typedef struct sequence {
    pair q, k, v;
    cca_dtype type, row_type;
    bool near, on_host; /* of the device's rows behind the window */
    cca_policy_options options;
} sequence;

/* How it is cut: chunks up to `prefill`, where queries choose in tiles; then calls of `rest`, where
 * each chooses for itself, up to 64 of them. With drafts these go into the ring as it lies, each of
 * twice as many, of which the second half is taken back. */
typedef struct cuts {
    int64_t chunk, prefill, rest;
    bool drafts;
} cuts;

static cca_matrix rows_from(cca_backend *b, pair *p, int64_t pos, int64_t n) {
    cca_matrix m = b == gpu ? p->device : p->host;
    m.data = (float *)m.data + pos * m.cols;
    m.rows = n;
    return m;
}

static void run_cache(cca_backend *b, pair *out, sequence *s, cuts c) {
    cca_cache_shape shape = {.n_layers = 1,
                             .n_heads = HEADS,
                             .n_kv_heads = KV_HEADS,
                             .head_dim = 64,
                             .ctx_size = LENGTH,
                             .chunk_size = LENGTH,
                             .k_type = s->type,
                             .v_type = s->type,
                             .rows_apart = s->row_type != s->type,
                             .row_k_type = s->row_type,
                             .row_v_type = s->row_type,
                             .rows_on_host = b == gpu && s->on_host,
                             .rows_near = b == gpu && s->near,
                             .draft = c.drafts ? 2 * c.rest : 0};
    cca_policy policy;
    cca_cache *cache;
    cca_error err;
    assert_int_equal(cca_policy_make(&policy, &s->options, &err), CCA_OK);
    assert_int_equal(cca_cache_new(&cache, b, &shape, &policy, &err), CCA_OK);
    for (int64_t pos = 0, n; pos < LENGTH; pos += n) {
        bool alone = pos >= c.prefill;
        n = cca_min(alone ? c.rest : c.chunk, (alone ? LENGTH : c.prefill) - pos);
        cca_cache_choose_alone(cache, alone);
        cca_cache_draft(cache, alone && c.drafts);
        int64_t tried = alone && c.drafts ? cca_min(2 * n, LENGTH - pos) : n;
        cca_matrix to = rows_from(b, out, pos, tried), q = rows_from(b, &s->q, pos, tried);
        cca_matrix k = rows_from(b, &s->k, pos, tried), v = rows_from(b, &s->v, pos, tried);
        cca_cache_attend(cache, 0, &to, &q, &k, &v, NULL, 0, pos, tried);
    }
    assert_int_equal(cca_backend_sync(b, &err), CCA_OK);
    cca_cache_free(cache);
}

/* The CPU first; then the GPU, cut in several ways at the same seams, the first of them twice. */
static void check_cache(sequence *s, double bound) {
    int64_t tile = cca_max(s->options.tile, 1), prefill = 400 / tile * tile;
    const cuts all[] = {{LENGTH, prefill, 33, false},  {LENGTH, prefill, 33, false},
                        {tile, prefill, 1, false},     {64, prefill, 50, false},
                        {3 * tile, prefill, 7, false}, {64, prefill, 3, true},
                        {64, prefill, 16, true}};
    pair out = poisoned(LENGTH, WIDE);
    /* Where queries of many are rounded, a group that weighs nearly as much may be taken. */
    bool half = s->type == CCA_BF16 || s->type == CCA_F16;
    if (forms.fused && half && HEADS / KV_HEADS * tile > 16) bound = 3e-2;
    char what[96];
    snprintf(what, sizeof what, "%s beside %s, %d recalled, tile %d, %d sinks",
             cca_dtype_name(s->type), cca_dtype_name(s->row_type), (int)s->options.recall,
             (int)tile, (int)s->options.n_sinks);
    float *first = NULL;
    run_cache(plain, &out, s, all[0]);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        run_cache(gpu, &out, s, all[i]);
        compare(&out, bound, what);
        float *got = fetch(&out);
        if (i == 1) assert_memory_equal(got, first, LENGTH * WIDE * sizeof *got);
        free(first);
        first = got;
    }
    free(first), free_pair(&out);
}

static void the_cache_recalls(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { N_KINDS = 5 };
    seed = 11; /* whatever ran before: no two groups weigh nearly the same */
    static const struct {
        int64_t sinks, recall, tile;
        bool no_cores;
    } kinds[] = {{8, 64, 1, false},
                 {8, 96, 8, true},
                 {16, 64, 16, false},
                 {0, 4096, 4, true},
                 {8, 0, 1, false}};
    static const struct {
        cca_dtype type, row_type;
        double bound;
    } kept[] = {{CCA_F32, CCA_F32, 2e-5},   {CCA_BF16, CCA_BF16, 4e-3}, {CCA_F16, CCA_F16, 4e-3},
                {CCA_Q8_0, CCA_Q8_0, 4e-3}, {CCA_BF16, CCA_Q8_0, 4e-3}, {CCA_F32, CCA_Q4_0, 2e-2}};
    sequence s = {random_pair(LENGTH, WIDE, 2),
                  random_pair(LENGTH, NARROW, 2),
                  random_pair(LENGTH, NARROW, 2),
                  CCA_F32,
                  CCA_F32,
                  false,
                  false,
                  {.attn = CCA_ATTN_CCA}};
    s.options.group_size = 8, s.options.window_size = 64;
    for (int i = 0; i < 6 * N_KINDS; i++) {
        s.type = kept[i / N_KINDS].type, s.row_type = kept[i / N_KINDS].row_type;
        s.options.n_sinks = kinds[i % N_KINDS].sinks, s.options.recall = kinds[i % N_KINDS].recall;
        s.options.tile = kinds[i % N_KINDS].tile, s.options.no_cores = kinds[i % N_KINDS].no_cores;
        s.near = s.on_host = false;
        check_cache(&s, kept[i / N_KINDS].bound);
        /* Rows in other types than the window's are rounded to it. */
        double more = s.type != s.row_type && s.type != CCA_F32 ? 3e-3 : 0;
        s.near = true;
        check_cache(&s, kept[i / N_KINDS].bound + more);
        s.on_host = true;
        check_cache(&s, kept[i / N_KINDS].bound + more);
    }
    free_pair(&s.q), free_pair(&s.k), free_pair(&s.v);
}

/* All that is behind the window is recalled. */
static void recall_of_everything_is_full_attention(void **state) {
    (void)state;
    if (!gpu) skip();
    sequence s = {random_pair(LENGTH, WIDE, 2),
                  random_pair(LENGTH, NARROW, 2),
                  random_pair(LENGTH, NARROW, 2),
                  CCA_F32,
                  CCA_F32,
                  false,
                  false,
                  {.attn = CCA_ATTN_FULL}};
    pair full = poisoned(LENGTH, WIDE), recalled = poisoned(LENGTH, WIDE);
    s.options.group_size = s.options.window_size = 1;
    run_cache(gpu, &full, &s, (cuts){LENGTH, LENGTH, 1, false});
    s.options = (cca_policy_options){.attn = CCA_ATTN_CCA,
                                     .group_size = 5,
                                     .window_size = 40,
                                     .n_sinks = 5,
                                     .recall = 500,
                                     .tile = 8,
                                     .no_cores = true};
    run_cache(gpu, &recalled, &s, (cuts){LENGTH, 400, 9, false});
    float *want = fetch(&full), *got = fetch(&recalled);
    test_below(cca_distance(got, want, LENGTH * WIDE), 1e-5, "recall of everything");
    free(want), free(got), free_pair(&full), free_pair(&recalled);
    free_pair(&s.q), free_pair(&s.k), free_pair(&s.v);
}

/* ---- what is planned for ------------------------------------------------------------- */

/* Scores of 128 MiB at most, where the plain form chooses. */
static void room_of_choices(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { MOST_ROOM = 128 << 20 };
    static const struct {
        int64_t n_heads, head_dim, tile, n_groups;
        cca_dtype k_type;
        bool fast;
    } cases[] = {
        {32, 128, 16, 8192, CCA_BF16, true},  {32, 128, 16, 65536, CCA_BF16, true},
        {32, 128, 16, 8192, CCA_Q8_0, true},  {8, 64, 8, 1000, CCA_F16, true},
        {32, 128, 16, 8192, CCA_F32, false},  {32, 96, 16, 8192, CCA_BF16, false},
        {32, 128, 64, 8192, CCA_BF16, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cca_choice choice = {NULL, NULL, 8, 128, cases[i].tile, 16, CCA_LEVELS_FROM};
        cca_layer_sizes none = {.n_tokens = 8192,
                                .dim = 4096,
                                .hidden_dim = 14336,
                                .type = CCA_BF16,
                                .choice = choice,
                                .n_heads = cases[i].n_heads,
                                .head_dim = cases[i].head_dim,
                                .k_type = cases[i].k_type};
        cca_layer_sizes some = none;
        some.n_groups = cases[i].n_groups;
        size_t room = cca_backend_beside(gpu, &some) - cca_backend_beside(gpu, &none);
        if (forms.fused && cases[i].fast) {
            assert_int_equal(room, 0);
        } else {
            assert_in_range(room, MOST_ROOM / 2, MOST_ROOM);
        }
    }
}

/* ---- whole models -------------------------------------------------------------------- */

static void recalling_models_equal_the_reference(void **state) {
    (void)state;
    if (!gpu) skip();
    int n_compared = 0, n_choices = 0;
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cuda");
        float *logits = run_whole(&x, &x.options), *again = run_whole(&x, &x.options);
        bool whole;
        assert_memory_equal(again, logits, logit_bytes(&x, x.m.length));
        test_below(distance_to_reference(&x, logits, &whole), 1e-4, x.m.name);
        n_compared += whole;
        if (x.m.recall > 0) n_choices += check_choices(&x, "cuda");
        free(logits), free(again), close_subject(&x);
    }
    assert_true(n_compared >= 10 && n_choices >= 1300);
}

/* Chunks of any size; token by token where each chooses alone; all recalled as full attention. */
static void recalling_models_in_pieces(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t chunks[] = {1, 24, 37, 64, 100};
    for (int i = 0; i < N_MODELS; i++) {
        subject x = open_subject(NAMES[i], 2, "cuda");
        int64_t n = x.m.clear * x.vocab;
        float *want = run_whole(&x, &x.options);
        for (int k = 0; k < 5; k++) {
            x.options.chunk_size = chunks[k];
            float *got = run_whole(&x, &x.options);
            test_below(cca_spread_difference(got, want, n), 1e-4, x.m.name);
            free(got);
        }
        x.options.chunk_size = CTX;
        if (x.m.tile == 1) {
            float *got = run(x.engine, &x.options, x.m.tokens, x.m.length, 1);
            test_below(cca_spread_difference(got, want, n), 1e-4, x.m.name);
            free(got);
        }
        cca_session_options full = full_options();
        x.options.recall = (x.m.length / x.m.g + 1) * x.m.g;
        float *all = run_whole(&x, &full), *recalled = run_whole(&x, &x.options);
        test_below(cca_spread_difference(recalled, all, x.m.length * x.vocab), 1e-4, x.m.name);
        free(want), free(all), free(recalled), close_subject(&x);
    }
}

/* A third of the tokens on the CPU, one on the GPU, and the last on the CPU again. */
static void check_sessions(const char *name) {
    subject x = open_subject(name, 2, "cpu");
    cca_engine *on_gpu = test_export_and_open_on("cuda", RECALL_MODELS, name, CCA_F32, 1);
    int64_t third = x.m.length / 3 / 64 * 64, ends[] = {third, 2 * third, x.m.length};
    float *got = malloc(logit_bytes(&x, x.m.length));
    collector c = {got, x.vocab};
    char path[] = "/tmp/cca-test-session-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0 && got);
    close(file), unlink(path);
    float *want = run_whole(&x, &x.options);
    for (int i = 0; i < 3; i++) eval_stored(i == 1 ? on_gpu : x.engine, &x, path, ends[i], &c);
    unlink(path);
    test_below(cca_spread_difference(got, want, x.m.clear * x.vocab), 1e-4, name);
    free(want), free(got);
    cca_engine_close(on_gpu), close_subject(&x);
}

static void sessions_go_to_the_gpu_and_back(void **state) {
    (void)state;
    if (!gpu) skip();
    for (int i = 0; i < N_MODELS; i++) check_sessions(NAMES[i]);
}

/* Norms of heads, of all, behind RoPE and behind layers; layers without RoPE, RoPE over part of a
 * head, other in windows, by the context's length; queries that grow; factors; relu²; windows of
 * their own: against the CPU, whole and token by token. */
static void other_architectures(void **state) {
    (void)state;
    if (!gpu) skip();
    static const char *const names[] = {
        "hf-qwen3",        "hf-smollm3",    "hf-granite-tied",
        "hf-ernie4_5",     "hf-seed_oss",   "hf-hunyuan",
        "hf-arcee",        "hf-olmo2",      "hf-exaone4-windows",
        "hf-phi3-partial", "hf-glm4",       "hf-mistral-window",
        "hf-olmo3",        "hf-ministral3", "hf-phi3-longrope-partial"};
    enum { N = 90, VOCABULARY = 64 };
    int32_t tokens[N];
    for (int i = 0; i < N; i++) tokens[i] = (int32_t)(cca_random_next(&seed) % VOCABULARY);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cca_engine *host = test_export_and_open("tests/golden/models", names[i], CCA_F32, 2);
        cca_engine *device =
            test_export_and_open_on("cuda", "tests/golden/models", names[i], CCA_F32, 1);
        cca_session_options full = full_options(), cca = full;
        cca.attn = "cca", cca.group_size = 4, cca.window_size = 16, cca.sinks = 4;
        for (int k = 0; k < 2; k++) {
            const cca_session_options *o = k == 0 ? &full : &cca;
            float *want = run(host, o, tokens, N, N), *got = run(device, o, tokens, N, N);
            test_below(cca_spread_difference(got, want, N * VOCABULARY), 1e-4, names[i]);
            free(want), free(got);
        }
        float *want = run(host, &full, tokens, N, N), *got = run(device, &full, tokens, N, 1);
        test_below(cca_spread_difference(got, want, N * VOCABULARY), 1e-4, names[i]);
        free(want), free(got);
        cca_engine_close(host), cca_engine_close(device);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_through_layers),
        cmocka_unit_test(the_cache_in_pieces),
        cmocka_unit_test(windows_of_their_own),
        cmocka_unit_test(group_size_one_is_full_attention),
        cmocka_unit_test(the_cache_recalls),
        cmocka_unit_test(recall_of_everything_is_full_attention),
        cmocka_unit_test(room_of_choices),
    };
    int failed = cmocka_run_group_tests(tests, open_backends, close_backends);
    forms = cca_cuda_all_forms();
    failed += cmocka_run_group_tests(tests, open_backends, close_backends);
    const struct CMUnitTest in_turn[] = {
        cmocka_unit_test(tokens_through_layers),
    };
    forms.together = false;
    failed += cmocka_run_group_tests(in_turn, open_backends, close_backends);
    forms.together = true;
    const struct CMUnitTest models[] = {
        cmocka_unit_test(recalling_models_equal_the_reference),
        cmocka_unit_test(recalling_models_in_pieces),
        cmocka_unit_test(sessions_go_to_the_gpu_and_back),
        cmocka_unit_test(other_architectures),
    };
    return failed + cmocka_run_group_tests(models, open_backends, close_backends);
}
