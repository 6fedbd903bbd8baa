/* The operations of the CUDA backend on caches against the CPU's: rows, cores, bounds, choices,
 * attention. All of it twice, the second time with the forms for Hopper. Skipped where there is no
 * device. */
#include "tests/unit/choices.h"
#include "tests/unit/cuda_pairs.h"

/* ---- rows of a cache ------------------------------------------------------------------- */

static void storing_and_moving(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t dims[] = {20, 32, 64, 128};
    for (int t = 0; t < 4; t++) {
        for (int i = 0; i < 4; i++) {
            if (dims[i] % cca_dtype_block(types[t]) != 0) continue;
            cca_dtype v_type = types[(t + 1) % 3]; /* q8_0 keys beside values of another type */
            row_pair ring = random_rows(types[t], v_type, 3, 24, dims[i], 0);
            row_pair line = random_rows(types[t], v_type, 3, 60, dims[i], 80);
            pair k = random_pair(17, 3 * dims[i], 4), v = random_pair(17, 3 * dims[i], 4);
            cca_rows_store(cpu, &ring.host, &k.host, &v.host, 91, 17); /* wraps at 96 */
            cca_rows_store(gpu, &ring.device, &k.device, &v.device, 91, 17);
            cca_rows_move(cpu, &line.host, &ring.host, 85, 23);
            cca_rows_move(gpu, &line.device, &ring.device, 85, 23);
            for (int keys = 0; keys < 2; keys++) {
                compare_rows(&ring, keys, 0, "store");
                compare_rows(&line, keys, 0, "move");
            }
            free_rows(&ring), free_rows(&line), free_pair(&k), free_pair(&v);
        }
    }
}

/* Queries and keys are rotated on the way into the cache. */
static void rotating_and_storing(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t dims[] = {20, 64, 128}, counts[] = {1, 17};
    for (int i = 0; i < 48; i++) {
        int64_t hd = dims[i / 4 % 3], n = counts[i / 12 % 2];
        cca_dtype k_type = types[i % 3], v_type = types[(i + i / 24) % 3];
        double inv_freq[64];
        for (int k = 0; k < 64; k++) inv_freq[k] = pow(10000, -2.0 * k / (double)hd);
        cca_rope rope = {inv_freq, hd / 2, 1.25f, i / 2 % 2, 1};
        pair angles = poisoned(n, hd), q = random_pair(n, 6 * hd, 2);
        pair k = random_pair(n, 3 * hd, 4), v = random_pair(n, 3 * hd, 4);
        row_pair ring = random_rows(k_type, v_type, 3, 24, hd, 0);
        cca_turn host = {&angles.host, &rope}, device = {&angles.device, &rope};
        cca_angles(plain, &angles.host, &rope, 91, n);
        cca_angles(gpu, &angles.device, &rope, 91, n);
        cca_rotate_store(plain, &ring.host, &q.host, &k.host, &v.host, &host, 91, n);
        cca_rotate_store(gpu, &ring.device, &q.device, &k.device, &v.device, &device, 91, n);
        compare(&q, 1e-6, "rotated queries");
        compare_rows(&ring, true, 1e-3, "rotated keys"); /* a rounding may go the other way */
        compare_rows(&ring, false, 0, "values");
        free_pair(&angles), free_pair(&q), free_pair(&k), free_pair(&v), free_rows(&ring);
    }
}

static void pooling(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t shapes[][4] = {
        {1, 1, 64, 3}, {8, 2, 64, 5}, {4, 4, 128, 16}, {2, 1, 20, 7}, {4, 1, 128, 32}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int64_t heads = shapes[i][0], kv = shapes[i][1], hd = shapes[i][2], g = shapes[i][3];
        for (int t = 0; t < 4; t++) {
            if (hd % cca_dtype_block(types[t]) != 0) continue;
            for (int p = CCA_POOL_QUERY; p <= CCA_POOL_MAX; p++) {
                int64_t pos = 3 * g - 1, n = 3 * g;
                row_pair raw = random_rows(types[t], types[t], kv, pos + n, hd, 0);
                row_pair far = random_rows(types[t], types[t], heads, 6, hd, 0);
                pair q = random_pair(n, heads * hd, 1);
                cca_groups host = {raw.host, far.host, g, (cca_pooling)p, false};
                cca_groups device = {raw.device, far.device, g, (cca_pooling)p, false};
                cca_pool(cpu, &host, &q.host, pos, n);
                cca_pool(gpu, &device, &q.device, pos, n);
                double bound = types[t] == CCA_F32 ? 1e-6 : 3e-3;
                compare_rows(&far, true, bound, "core keys");
                compare_rows(&far, false, bound, "core values");
                free_rows(&raw), free_rows(&far), free_pair(&q);
            }
        }
    }
}

/* ---- attention ----------------------------------------------------------------------- */

typedef struct attention_case {
    int64_t head_dim, n_heads, n_kv_heads;
    cca_rule rule;
    int64_t pos, n;
    bool ring;
    cca_dtype k_type, v_type;
} attention_case;

static void check_attention(const attention_case *c) {
    char what[160];
    snprintf(what, sizeof what,
             "hd %d, heads %d/%d, g %d, s %lld, %d sinks, cores %d, pos %d, n %d, ring %d, %s/%s",
             (int)c->head_dim, (int)c->n_heads, (int)c->n_kv_heads, (int)c->rule.group_size,
             (long long)c->rule.window_size, (int)c->rule.n_sinks, c->rule.cores, (int)c->pos,
             (int)c->n, c->ring, cca_dtype_name(c->k_type), cca_dtype_name(c->v_type));
    int64_t total = c->pos + c->n, hd = c->head_dim;
    int64_t begin = c->ring ? 0 : raw_begin(&c->rule, c->pos);
    int64_t capacity = c->ring ? cca_rule_ring(&c->rule) : total - begin;
    int64_t n_cores = cca_max(count_cores(&c->rule, total - 1), 1);
    int64_t n_sinks = cca_max(c->rule.n_sinks, 1);
    row_pair raw = random_rows(c->k_type, c->v_type, c->n_kv_heads, capacity, hd, begin);
    row_pair sinks = random_rows(c->k_type, c->v_type, c->n_kv_heads, n_sinks, hd, 0);
    row_pair cores = random_rows(c->k_type, c->v_type, c->n_heads, n_cores, hd, 0);
    pair q = random_pair(c->n, c->n_heads * hd, 2), out = poisoned(c->n, c->n_heads * hd);
    cca_spans host = spans_of(&c->rule, raw.host, sinks.host, cores.host);
    cca_spans device = spans_of(&c->rule, raw.device, sinks.device, cores.device);
    /* Tensor cores round queries and weights; a few queries are done in f32. */
    bool half = c->k_type == c->v_type && (c->k_type == CCA_BF16 || c->k_type == CCA_F16);
    bool rounded = half && c->n > 8;
    cca_attend(rounded ? cpu : plain, &out.host, &host, &q.host, c->pos, c->n);
    cca_attend(gpu, &out.device, &device, &q.device, c->pos, c->n);
    compare(&out, rounded ? 4e-3 : 1e-5, what);

    float *first = fetch(&out);
    pair again = poisoned(c->n, c->n_heads * hd);
    cca_attend(gpu, &again.device, &device, &q.device, c->pos, c->n);
    float *second = fetch(&again);
    if (memcmp(first, second, (size_t)(c->n * c->n_heads * hd) * sizeof *first) != 0) {
        fail_msg("%s: other bits the second time", what);
    }
    free(first), free(second), free_pair(&again);
    free_rows(&raw), free_rows(&sinks), free_rows(&cores), free_pair(&q), free_pair(&out);
}

static void attention_in_bf16(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t dims[] = {64, 128}, groups[] = {1, 5, 16, 32}, windows[] = {1, 4, 64};
    static const int64_t heads[][2] = {{1, 1}, {4, 4}, {8, 2}};
    static const int64_t counts[] = {1, 15, 64, 127, 129, 300};
    int k = 0;
    for (int d = 0; d < 2; d++) {
        for (int g = 0; g < 4; g++) {
            for (int w = 0; w < 3; w++) {
                int64_t s = groups[g] * windows[w];
                const int64_t starts[] = {0, 1, groups[g] - 1, s + 3, 5000};
                for (int p = 0; p < 5; p++, k++) {
                    attention_case c = {
                        dims[d],   heads[k % 3][0], heads[k % 3][1], {groups[g], s, 0, true},
                        starts[p], counts[k % 6],   false,           CCA_BF16,
                        CCA_BF16};
                    check_attention(&c);
                }
            }
        }
    }
}

static void attention_of_other_kinds(void **state) {
    (void)state;
    if (!gpu) skip();
    static const attention_case cases[] = {
        {64, 4, 2, {16, 64, 0, true}, 700, 33, false, CCA_F32, CCA_F32},
        {128, 4, 1, {16, 64, 0, true}, 700, 33, false, CCA_F16, CCA_F16},
        {128, 2, 2, {16, 64, 0, true}, 700, 9, false, CCA_Q8_0, CCA_Q8_0},
        {20, 3, 3, {5, 20, 0, true}, 96, 32, false, CCA_F16, CCA_BF16},
        {256, 2, 1, {4, 16, 0, true}, 96, 5, false, CCA_BF16, CCA_F32},
        {128, 8, 2, {16, 64, 0, true}, 1234, 1, true, CCA_BF16, CCA_BF16},
        {64, 8, 8, {16, 1024, 0, true}, 40000, 1, true, CCA_BF16, CCA_BF16},
        {128, 4, 2, {4, 16, 0, false}, 200, 31, false, CCA_BF16, CCA_BF16},
        {64, 4, 2, {4, 16, 6, false}, 200, 1, true, CCA_BF16, CCA_BF16},
        {64, 4, 2, {4, 16, 6, false}, 200, 40, false, CCA_BF16, CCA_BF16},
        {128, 2, 2, {1, INT64_MAX / 4, 0, false}, 0, 1000, false, CCA_BF16, CCA_BF16},
        {128, 2, 2, {1, INT64_MAX / 4, 0, false}, 3000, 1, false, CCA_BF16, CCA_BF16},
        {128, 2, 1, {16, 1024, 0, true}, 20000, 1000, false, CCA_BF16, CCA_BF16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_attention(&cases[i]);
}

/* Sinks, cores and a window at once: where some queries see no core yet, and far behind; a ring for
 * one query. */
static void attention_with_sinks_and_cores(void **state) {
    (void)state;
    if (!gpu) skip();
    static const cca_dtype kinds[] = {CCA_BF16, CCA_F16, CCA_Q8_0};
    static const int64_t counts[] = {1, 9, 33, 300}, starts[] = {0, 63, 79, 95, 700, 5000};
    for (int t = 0; t < 3; t++) {
        for (int64_t n_sinks = 16; n_sinks <= 32; n_sinks += 16) {
            for (int n = 0; n < 4; n++) {
                for (int p = 0; p < 6; p++) {
                    attention_case c = {
                        p % 2 ? 128 : 64, 4,         p % 3 ? 2 : 4, {16, 64, n_sinks, true},
                        starts[p],        counts[n], false,         kinds[t],
                        kinds[t]};
                    check_attention(&c);
                    c.ring = true;
                    if (c.n == 1) check_attention(&c);
                }
            }
        }
    }
}

/* ---- what is no number ------------------------------------------------------------------- */

/* Makes value `at` of the keys or values of rows such a one, on the device. */
static void poison_row(row_pair *p, bool keys, int64_t at, float value) {
    float block[CCA_QUANT_BLOCK] = {0};
    cca_dtype type = keys ? p->host.k_type : p->host.v_type;
    char *host = keys ? p->host.k : p->host.v;
    size_t skip = 0;
    assert_true(cca_dtype_row_bytes(&skip, type, at / CCA_QUANT_BLOCK * CCA_QUANT_BLOCK));
    block[at % CCA_QUANT_BLOCK] = value;
    cca_dtype_encode(host + skip, type, block, CCA_QUANT_BLOCK);
    cca_backend_upload(gpu, keys ? p->device.k : p->device.v, host, bytes_of(type, &p->host));
}

/* Whether it is no finite number, as a message about output i of head_dim values a head. */
static void check_finite(float x, bool is_finite, const char *what, int64_t i, int64_t hd) {
    if ((isfinite(x) != 0) == is_finite) return;
    fail_msg("%s: row of heads %lld, value %lld is %g", what, (long long)(i / hd),
             (long long)(i % hd), (double)x);
}

typedef enum poisoned_part { IN_QUERY, IN_KEY, IN_VALUE } poisoned_part;

/* Four heads over two; the key of position `row` is seen by all n queries, from pos on. */
static void check_no_number(cca_dtype type, int64_t hd, int64_t pos, int64_t n, poisoned_part part,
                            float value) {
    enum { HEADS = 4, KV_HEADS = 2, HEAD = 1, D = 31 };
    char what[96];
    snprintf(what, sizeof what, "%s, hd %d, pos %d, n %d, %g in part %d", cca_dtype_name(type),
             (int)hd, (int)pos, (int)n, (double)value, (int)part);
    int64_t total = pos + n, width = HEADS * hd, row = pos < 16 ? 1 : pos / 2;
    cca_rule rule = {1, INT64_MAX / 4, 0, false};
    row_pair raw = random_rows(type, type, KV_HEADS, total, hd, 0);
    float *data = random_floats(n * width, 2);
    int64_t query = n / 2 * HEADS + HEAD; /* the row of a query's head */
    if (part == IN_QUERY) data[query * hd + D] = value;
    if (part != IN_QUERY) poison_row(&raw, part == IN_KEY, (HEAD * total + row) * hd + D, value);
    pair q = pair_of(data, n, width), out = poisoned(n, width);
    cca_spans spans = spans_of(&rule, raw.device, raw.device, raw.device);
    cca_attend(gpu, &out.device, &spans, &q.device, pos, n);
    float *got = fetch(&out);
    for (int64_t i = 0; i < n * width; i++) {
        bool sharer = i / hd % HEADS / (HEADS / KV_HEADS) == HEAD;
        if (part == IN_QUERY) check_finite(got[i], i / hd != query, what, i, hd);
        if (part == IN_KEY) check_finite(got[i], !sharer, what, i, hd);
        if (part == IN_VALUE && sharer && i % hd == D) check_finite(got[i], false, what, i, hd);
        if (part == IN_VALUE && i % hd > D) check_finite(got[i], true, what, i, hd);
    }
    free(got), free_pair(&q), free_pair(&out), free_rows(&raw);
}

/* Few queries and many, few keys and many: what is no finite number in a query or a key reaches the
 * outputs it has a part in, and no others; in a value, no other dims. (Tiles of keys reach into the
 * next head's rows, whose values count 0 times.) */
static void attention_of_no_numbers(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t counts[] = {1, 5, 40, 130}, starts[] = {3, 100, 1000};
    for (int i = 0; i < 4 * 4 * 3 * 2; i++) {
        cca_dtype type = types[i % 4];
        int64_t n = counts[i / 4 % 4], pos = starts[i / 16 % 3], hd = i / 48 ? 128 : 64;
        check_no_number(type, hd, pos, n, IN_KEY, NAN);
        check_no_number(type, hd, pos, n, IN_QUERY, NAN);
        check_no_number(type, hd, pos, n, IN_VALUE, NAN);
        check_no_number(type, hd, pos, n, IN_VALUE, i % 2 ? INFINITY : -INFINITY);
    }
}

/* A core is none where a key or a value of its group is none. */
static void pooling_of_no_numbers(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { HEADS = 4, KV_HEADS = 2, GROUP = 8, N = 2 * GROUP, HD = 64, D = 31, AT = HD + D };
    for (int i = 0; i < 4 * 3 * GROUP; i++) {
        cca_dtype type = types[i % 4];
        cca_pooling pooling = (cca_pooling)(CCA_POOL_QUERY + i / 4 % 3);
        int64_t row = i / 12; /* of the first group, of the second head */
        row_pair raw = random_rows(type, type, KV_HEADS, N, HD, 0);
        row_pair cores = random_rows(CCA_F32, CCA_F32, HEADS, 2, HD, 0);
        pair q = random_pair(N, HEADS * HD, 1);
        poison_row(&raw, true, (N + row) * HD + D, NAN);
        poison_row(&raw, false, (N + row) * HD + D, NAN);
        cca_rows to = cores.device;
        if (type != CCA_F32) to.k_type = to.v_type = type; /* as they are kept beside such rows */
        cca_groups groups = {raw.device, to, GROUP, pooling, false};
        cca_pool(gpu, &groups, &q.device, 0, N);
        for (int keys = 0; keys < 2; keys++) {
            void *got = memory(bytes_of(CCA_F32, &cores.host));
            float x[HEADS * 2 * HD];
            cca_backend_download(gpu, got, keys ? to.k : to.v, bytes_of(to.k_type, &to));
            check_sync();
            cca_dtype_decode(x, to.k_type, got, HEADS * 2 * HD);
            for (int h = 0; h < HEADS; h++) {
                bool sharer = h / (HEADS / KV_HEADS) == 1;
                check_finite(x[h * 2 * HD + D], !sharer, "first group", h * 2 * HD + D, HD);
                check_finite(x[h * 2 * HD + AT], true, "second group", h * 2 * HD + AT, HD);
            }
            free(got);
        }
        free_rows(&raw), free_rows(&cores), free_pair(&q);
    }
}

/* ---- recall -------------------------------------------------------------------------- */

/* Rows go into any type that rows behind the window can have; a fused multiplication and addition
 * may turn a nibble. */
static void moving_between_types(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t dims[] = {20, 32, 128};
    for (int i = 0; i < 60; i++) {
        cca_dtype from = types[i % 4], to = types[i / 4 % 5], v_to = types[(i / 4 + 2) % 4];
        int64_t hd = dims[i / 20];
        if (hd % 32 != 0 && (i % 4 == 3 || from == CCA_Q8_0 || to > CCA_F16 || v_to > CCA_F16)) {
            continue;
        }
        row_pair ring = random_rows(from, from, 3, 24, hd, 0);
        row_pair line = random_rows(to, v_to, 3, 60, hd, 80);
        cca_rows_move(plain, &line.host, &ring.host, 85, 23); /* wraps at 96 */
        cca_rows_move(gpu, &line.device, &ring.device, 85, 23);
        compare_rows(&line, true, to == CCA_Q4_0 ? 1e-2 : 0, cca_dtype_name(to));
        compare_rows(&line, false, 0, cca_dtype_name(v_to));
        free_rows(&ring), free_rows(&line);
    }
    for (int i = 0; i < 4; i++) { /* a value that is no finite number takes its block with it */
        row_pair from = random_rows(CCA_F32, CCA_F32, 1, 1, 32, 0);
        row_pair to = random_rows(CCA_Q8_0, CCA_Q4_0, 1, 1, 32, 0);
        float *sides[] = {from.host.k, from.host.v};
        sides[i % 2][17] = i < 2 ? NAN : -INFINITY;
        cca_backend_upload(gpu, from.device.k, from.host.k, 32 * sizeof(float));
        cca_backend_upload(gpu, from.device.v, from.host.v, 32 * sizeof(float));
        cca_rows_move(plain, &to.host, &from.host, 0, 1);
        cca_rows_move(gpu, &to.device, &from.device, 0, 1);
        compare_rows(&to, i % 2 == 0, 0, "not finite");
        free_rows(&from), free_rows(&to);
    }
}

static void bounding(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t dims[] = {20, 64, 80, 128}, groups[] = {1, 2, 5, 16, 64};
    for (int i = 0; i < 160; i++) {
        cca_dtype type = types[i % 4];
        int64_t hd = dims[i / 4 % 4], g = groups[i / 16 % 5], pos = 3 * g - 1, n = 3 * g;
        if (hd % cca_dtype_block(type) != 0) continue;
        cca_dtype bounds_type = cca_dtype_block(type) > 1 ? CCA_BF16 : type;
        row_pair raw = random_rows(type, types[(i + 1) % 3], 3, i < 80 ? pos + n : 4 * g, hd, 0);
        row_pair bounds = random_rows(bounds_type, bounds_type, 3, 6, hd, 0);
        cca_groups host = {raw.host, bounds.host, g, CCA_POOL_QUERY, i % 7 == 3};
        cca_groups device = {raw.device, bounds.device, g, CCA_POOL_QUERY, i % 7 == 3};
        cca_bound(plain, &host, pos, n);
        cca_bound(gpu, &device, pos, n);
        compare_rows(&bounds, true, 0, "largest keys");
        compare_rows(&bounds, false, 0, "smallest keys");
        free_rows(&raw), free_rows(&bounds);
    }
}

/* What is chosen from on the device, and what has been. */
typedef struct device_choice {
    cca_rows bounds, blocks;
    cca_choice out;
    cca_matrix q;
    int64_t slots;
} device_choice;

static device_choice send_choice(const choice_case *c, const choice_data *d) {
    device_choice x = {d->bounds, d->blocks, d->out, {.rows = c->n}, count_tiles(c) * c->heads};
    x.q.cols = c->heads * c->sharers * c->head_dim;
    size_t bytes = bytes_of(c->type, &d->bounds), of_blocks = bytes_of(c->type, &d->blocks);
    x.bounds.k = copy_rows(d->bounds.k, bytes);
    x.bounds.v = copy_rows(d->bounds.v, bytes);
    x.blocks.k = copy_rows(d->blocks.k, of_blocks);
    x.blocks.v = copy_rows(d->blocks.v, of_blocks);
    x.out.groups = cca_backend_alloc(gpu, (size_t)(x.slots * c->most) * sizeof(int32_t));
    x.out.counts = cca_backend_alloc(gpu, (size_t)x.slots * sizeof(int32_t));
    x.q.data = copy_rows(d->q, (size_t)(c->n * x.q.cols) * sizeof(float));
    return x;
}

static void fetch_choice(cca_choice *to, const device_choice *x) {
    cca_backend_download(gpu, to->groups, x->out.groups,
                         (size_t)(x->slots * to->most) * sizeof(int32_t));
    cca_backend_download(gpu, to->counts, x->out.counts, (size_t)x->slots * sizeof(int32_t));
    check_sync();
}

static void free_device_choice(device_choice *x) {
    void *all[] = {x->bounds.k,   x->bounds.v,   x->blocks.k, x->blocks.v,
                   x->out.groups, x->out.counts, x->q.data};
    for (int i = 0; i < 7; i++) cca_backend_release(gpu, all[i]);
}

/* Whether bounds of blocks are looked at first, and many queries are rounded to 16 bits. */
static bool chooses_in_tiles(const choice_case *c) {
    return forms.fused && (c->type == CCA_BF16 || c->type == CCA_F16) &&
           (c->head_dim == 64 || c->head_dim == 128) && c->sharers * cca_min(c->n, c->tile) <= 64;
}

/* Chooses on the device and compares with the definition; adds up how many are the same. */
static void check_choice(const choice_case *c, choice_data *d, int *n_equal, int *n_all) {
    bool in_tiles = chooses_in_tiles(c), rounded = c->sharers * cca_min(c->n, c->tile) > 16;
    device_choice x = send_choice(c, d);
    cca_range groups = cca_rule_groups(&c->rule);
    cca_choose(gpu, &x.out, &x.bounds, in_tiles ? &x.blocks : NULL, &groups, &x.q, c->pos, c->n);
    fetch_choice(&d->out, &x);
    if (!in_tiles) d->out.levels_from = INT64_MAX;
    for (int64_t row = 0, n; row < c->n; row += n) {
        n = cca_min(c->n - row, c->tile - (c->pos + row) % c->tile);
        for (int64_t h = 0; h < c->heads; h++, ++*n_all) {
            *n_equal += check_slot(c, d, row, n, h, in_tiles && rounded ? 3e-2 : 1e-4);
        }
    }
    free_device_choice(&x);
}

static void choosing(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t tiles[] = {1, 8, 16, 64}, sharers[] = {1, 2, 3, 8};
    static const int64_t starts[] = {3, 70, 1001}; /* the call cuts tiles */
    int n_equal = 0, n_all = 0;
    for (int i = 0; i < 48; i++) {
        int t = i % 4, r = i / 4 % 4, p = i / 16;
        choice_case c = {types[i % 3],
                         2,
                         sharers[r],
                         r == 1   ? 64
                         : r == 2 ? 80
                                  : 128,
                         {p == 1 ? 2 : 4, 12, p == 1 ? 4 : 8, true},
                         starts[p],
                         tiles[t] == 1 ? 5 : 75,
                         tiles[t],
                         p == 2 ? 40 : 7};
        choice_data d = make_choice(&c, &seed);
        check_choice(&c, &d, &n_equal, &n_all);
        free_choice(&d);
    }
    print_message("%d of %d choices are equal\n", n_equal, n_all);
    assert_true(n_equal >= (forms.fused ? 0.9 : 0.99) * n_all);
}

/* Many groups: more than a block's memory has room for, and levels from few or many on. */
static void choosing_in_levels(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t tiles[] = {1, 8, 16, 64}, sharers[] = {1, 2, 4, 8};
    int n_equal = 0, n_all = 0;
    for (int i = 0; i < 32; i++) {
        int64_t t = tiles[i % 4], r = sharers[i / 4 % 4], z = i % 5 * 8;
        choice_case c = {i % 3 ? CCA_BF16 : CCA_F16,
                         2,
                         r,
                         i % 2 ? 64 : 128,
                         {2, 16, z, true},
                         5000 + 37 * i,
                         t == 1 ? 3 : 70,
                         t,
                         i % 7 ? 24 : 2};
        if (r * t > 64) c.tile = 64 / r;
        choice_data d = make_choice(&c, &seed);
        if (i % 4 != 3) d.out.levels_from = i % 4 ? 100 * i : 2048;
        check_choice(&c, &d, &n_equal, &n_all);
        free_choice(&d);
    }
    print_message("%d of %d choices are equal\n", n_equal, n_all);
    assert_true(n_equal >= 0.9 * n_all);
}

/* The first of equal groups, but for a heavy one, where it is chosen. */
static void check_equals(const cca_choice *out, int64_t slot, int32_t heavy, bool is_certain) {
    const int32_t *groups = out->groups + slot * out->most;
    int32_t next = 1, n = 0; /* behind the sinks */
    bool found = false;
    assert_int_equal(out->counts[slot], out->most);
    for (int32_t i = 0; i < out->most; i++) found = found || groups[i] == heavy;
    if (is_certain) assert_true(found);
    for (; n < out->most - (found && heavy > out->most); next++) {
        if (next == heavy && !found) continue;
        assert_int_equal(groups[n++], next);
    }
    if (n < out->most) assert_int_equal(groups[n], heavy);
}

/* Of groups that weigh the same the earlier, but a heavier one before or behind them is not lost.
 */
static void choosing_among_equals(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { GROUPS = 700, MOST = 9, HD = 64 };
    for (int i = 0; i < 4; i++) {
        int64_t tile = i % 2 ? 16 : 1, heavy = i / 2 ? 5 : 650;
        choice_case c = {CCA_F32, 2, 2, HD, {16, 16, 16, true}, 0, 4 * tile, tile, MOST};
        c.pos = (16 * GROUPS + 32) / tile * tile;
        choice_data d = make_choice(&c, &seed);
        float *sides[] = {d.bounds.k, d.bounds.v};
        int64_t n = d.bounds.heads * d.bounds.capacity * HD;
        for (int64_t k = 0; k < n; k++) {
            bool is_heavy = k / HD % d.bounds.capacity == heavy;
            sides[0][k] = is_heavy ? 2 : 1;
            sides[1][k] = is_heavy ? 2 : -1;
        }
        for (int ones = 0; ones < 2; ones++) { /* other queries may be against it */
            for (int64_t k = 0; ones && k < c.n * 4 * HD; k++) d.q[k] = 1;
            device_choice x = send_choice(&c, &d);
            cca_range groups = cca_rule_groups(&c.rule);
            cca_choose(gpu, &x.out, &x.bounds, NULL, &groups, &x.q, c.pos, c.n);
            fetch_choice(&d.out, &x);
            for (int64_t slot = 0; slot < x.slots; slot++) {
                check_equals(&d.out, slot, (int32_t)heavy, ones);
            }
            free_device_choice(&x);
        }
        free_choice(&d);
    }
}

/* All tiles in one call choose as in calls of `some` queries. */
static void check_parts(const choice_case *c, choice_data *d, int64_t some) {
    device_choice x = send_choice(c, d);
    cca_range groups = cca_rule_groups(&c->rule);
    size_t bytes = (size_t)(x.slots * c->most) * sizeof(int32_t);
    cca_choose(gpu, &x.out, &x.bounds, NULL, &groups, &x.q, c->pos, c->n);
    fetch_choice(&d->out, &x);
    int32_t *whole = memory(bytes);
    memcpy(whole, d->out.groups, bytes);
    for (int64_t row = 0; row < c->n; row += some) {
        cca_choice out = x.out;
        cca_matrix q = x.q;
        out.groups += row / c->tile * c->heads * c->most;
        out.counts += row / c->tile * c->heads;
        q.data = (float *)q.data + row * q.cols;
        q.rows = some;
        cca_choose(gpu, &out, &x.bounds, NULL, &groups, &q, c->pos + row, some);
    }
    fetch_choice(&d->out, &x);
    assert_memory_equal(whole, d->out.groups, bytes);
    free(whole), free_device_choice(&x), free_choice(d);
}

/* So many tiles that not all scores are kept at a time: as each tile for itself. */
static void choosing_in_parts(void **state) {
    (void)state;
    if (!gpu) skip();
    choice_case c = {CCA_BF16, 8, 4, 64, {2, 16, 2, true}, 1600, 4096, 16, 20};
    choice_data d = make_choice(&c, &seed);
    check_parts(&c, &d, c.tile);
}

/* So few tiles that several blocks share one: as one block does, to the bit, since of groups with
 * the same bounds any other bits would choose others. */
static void choosing_with_others(void **state) {
    (void)state;
    if (!gpu) skip();
    enum { HD = 64, DIFFERENT = 7 };
    choice_case c = {CCA_BF16, 2, 4, HD, {2, 16, 2, true}, 3200, 64, 1, 20};
    choice_data d = make_choice(&c, &seed);
    for (int64_t i = 0; i < c.heads * d.bounds.capacity; i++) {
        size_t row = HD * sizeof(uint16_t), to = (size_t)i * row;
        size_t from = (size_t)(i % d.bounds.capacity % DIFFERENT) * row;
        memmove((char *)d.bounds.k + to, (char *)d.bounds.k + from, row);
        memmove((char *)d.bounds.v + to, (char *)d.bounds.v + from, row);
    }
    check_parts(&c, &d, 2);
}

typedef struct recall_case {
    int64_t head_dim, n_heads, n_kv_heads;
    cca_rule rule;
    int64_t pos, n, tile, most;
    cca_dtype k_type, v_type, row_k_type, row_v_type;
} recall_case;

/* For each tile and head some of the groups that its last query sees; for one query as many as it
 * can have, as its own choice does. */
static cca_choice random_choice(const recall_case *c) {
    int64_t slots = ((c->pos + c->n - 1) / c->tile - c->pos / c->tile + 1) * c->n_kv_heads;
    cca_choice out = {memory((size_t)(slots * c->most) * sizeof(int32_t)),
                      memory((size_t)slots * sizeof(int32_t)),
                      c->n_kv_heads,
                      c->most,
                      c->tile,
                      c->rule.group_size,
                      CCA_LEVELS_FROM};
    cca_range groups = cca_rule_groups(&c->rule);
    for (int64_t i = 0; i < slots; i++) {
        int64_t tile = c->pos / c->tile + i / c->n_kv_heads;
        int64_t last = cca_min((tile + 1) * c->tile, c->pos + c->n) - 1, n = 0;
        int64_t end = cca_edge_at(&groups.end, last), begin = cca_edge_at(&groups.begin, last);
        if (i % 3) begin = cca_max(begin, end - c->most); /* those that not all see, too */
        for (int64_t t = begin; t < end && n < c->most; t++) {
            bool taken = c->n == 1 ? end - t <= c->most - n : cca_random_uniform(&seed) > 0;
            if (c->n == 1 && !taken) taken = cca_random_uniform(&seed) > 0;
            if (taken) out.groups[i * c->most + n++] = (int32_t)t;
        }
        out.counts[i] = (int32_t)n;
    }
    return out;
}

static void check_recall(const recall_case *c) {
    char what[128];
    snprintf(what, sizeof what, "hd %d, heads %d/%d, g %d, pos %d, n %d, tile %d, %s beside %s",
             (int)c->head_dim, (int)c->n_heads, (int)c->n_kv_heads, (int)c->rule.group_size,
             (int)c->pos, (int)c->n, (int)c->tile, cca_dtype_name(c->k_type),
             cca_dtype_name(c->row_k_type));
    int64_t total = c->pos + c->n, hd = c->head_dim, kv = c->n_kv_heads, g = c->rule.group_size;
    int64_t begin = raw_begin(&c->rule, c->pos), n_slots = total / g + 1;
    row_pair raw = random_rows(c->k_type, c->v_type, kv, total - begin, hd, begin);
    row_pair sinks = random_rows(c->k_type, c->v_type, kv, cca_max(c->rule.n_sinks, 1), hd, 0);
    row_pair rows = random_rows(c->row_k_type, c->row_v_type, kv, total, hd, 0);
    row_pair cores = random_rows(c->k_type, c->v_type, c->n_heads, total / g + 1, hd, 0);
    pair q = random_pair(c->n, c->n_heads * hd, 2), out = poisoned(c->n, c->n_heads * hd);
    cca_choice choice = random_choice(c);
    size_t slots = (size_t)((c->pos + c->n - 1) / c->tile - c->pos / c->tile + 1) * (size_t)kv;
    cca_spans both[2] = {
        recall_spans_of(&c->rule, raw.host, sinks.host, rows.host, cores.host),
        recall_spans_of(&c->rule, raw.device, sinks.device, rows.device, cores.device)};
    both[0].choice = both[1].choice = choice;
    both[1].choice.groups = copy_rows(choice.groups, slots * (size_t)c->most * sizeof(int32_t));
    both[1].choice.counts = copy_rows(choice.counts, slots * sizeof(int32_t));
    bool half = c->k_type == c->v_type && c->k_type == c->row_k_type &&
                c->k_type == c->row_v_type && (c->k_type == CCA_BF16 || c->k_type == CCA_F16);
    /* On tensor cores; few queries are done in f32 where groups are of a power of two. */
    bool rounded = half && (c->n > 8 || (g & (g - 1)) != 0);
    cca_attend(plain, &out.host, &both[0], &q.host, c->pos, c->n);
    cca_attend(gpu, &out.device, &both[1], &q.device, c->pos, c->n);
    compare(&out, rounded ? 4e-3 : 1e-5, what);

    float *first = fetch(&out), *sums[2];
    cca_attend(gpu, &out.device, &both[1], &q.device, c->pos, c->n);
    float *second = fetch(&out);
    assert_memory_equal(first, second, (size_t)(c->n * c->n_heads * hd) * sizeof *first);
    for (int i = 0; i < 2; i++) { /* what its last query attends to */
        sums[i] = calloc((size_t)(c->n_heads * n_slots), sizeof(float));
        assert_non_null(sums[i]);
        cca_mass mass = {.sums = sums[i], .n_slots = n_slots, .unit = g};
        cca_attend_mass(i ? gpu : cpu, &mass, &both[i], i ? &q.device : &q.host, c->n - 1, c->pos);
    }
    check_sync();
    test_below(cca_distance(sums[1], sums[0], c->n_heads * n_slots), 1e-5, what);
    cca_backend_release(gpu, both[1].choice.groups),
        cca_backend_release(gpu, both[1].choice.counts);
    free(first), free(second), free(sums[0]), free(sums[1]);
    free(choice.groups), free(choice.counts), free_pair(&q), free_pair(&out);
    free_rows(&raw), free_rows(&sinks), free_rows(&rows), free_rows(&cores);
}

static void attention_of_what_is_chosen(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t heads[][2] = {{4, 4}, {8, 4}, {6, 2}, {8, 1}}, groups[] = {2, 5, 16, 64};
    static const int64_t counts[] = {1, 5, 33, 75}, tiles[] = {1, 8, 16, 64};
    static const cca_dtype kinds[][4] = {
        {CCA_BF16, CCA_BF16, CCA_BF16, CCA_BF16}, {CCA_F32, CCA_F32, CCA_F32, CCA_F32},
        {CCA_BF16, CCA_BF16, CCA_Q8_0, CCA_Q4_0}, {CCA_Q8_0, CCA_F16, CCA_Q8_0, CCA_F16},
        {CCA_F16, CCA_BF16, CCA_Q4_0, CCA_F32},   {CCA_BF16, CCA_BF16, CCA_BF16, CCA_BF16},
        {CCA_F16, CCA_F16, CCA_F16, CCA_F16}};
    static const int64_t dims[] = {64, 20, 128, 128, 256, 128, 128}; /* of blocks: a multiple */
    for (int i = 0; i < 224; i++) {
        int64_t g = groups[i % 4], s = 4 * g;
        const cca_dtype *kind = kinds[i % 7];
        const recall_case c = {dims[i % 7],
                               heads[i / 4 % 4][0],
                               heads[i / 4 % 4][1],
                               {g, s, i % 3 * g, i % 2 == 0},
                               i % 7 == 0 ? s - 3 : 12 * g + 3 * i,
                               counts[i / 2 % 4],
                               tiles[i / 3 % 4],
                               6,
                               kind[0],
                               kind[1],
                               kind[2],
                               kind[3]};
        check_recall(&c);
    }
    static const int64_t shared[][2] = {{4, 4}, {8, 2}, {8, 1}, {6, 2}};
    for (int i = 0; i < 8; i++) { /* as models have it */
        const recall_case c = {i < 4 ? 128 : 64,
                               shared[i % 4][0],
                               shared[i % 4][1],
                               {16, 1024, 16, false},
                               5000 + 100 * i,
                               300,
                               (int64_t[]){64, 16, 8, 16}[i % 4],
                               128,
                               CCA_BF16,
                               CCA_BF16,
                               CCA_BF16,
                               CCA_BF16};
        check_recall(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storing_and_moving),
        cmocka_unit_test(rotating_and_storing),
        cmocka_unit_test(pooling),
        cmocka_unit_test(attention_in_bf16),
        cmocka_unit_test(attention_of_other_kinds),
        cmocka_unit_test(attention_with_sinks_and_cores),
        cmocka_unit_test(attention_of_no_numbers),
        cmocka_unit_test(pooling_of_no_numbers),
        cmocka_unit_test(moving_between_types),
        cmocka_unit_test(bounding),
        cmocka_unit_test(choosing),
        cmocka_unit_test(choosing_in_levels),
        cmocka_unit_test(choosing_among_equals),
        cmocka_unit_test(choosing_in_parts),
        cmocka_unit_test(choosing_with_others),
        cmocka_unit_test(attention_of_what_is_chosen),
    };
    int failed = cmocka_run_group_tests(tests, open_backends, close_backends);
    forms = cca_cuda_all_forms();
    return failed + cmocka_run_group_tests(tests, open_backends, close_backends);
}
