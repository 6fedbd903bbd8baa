/* Attention on the device to chosen groups beside the cores of the others, against counts by hand
 * and the plain kernels. All of it twice, the second time with the forms for Hopper. Skipped where
 * there is no device.
 *
 * Faults that have to make them fail: a group counted as chosen and as a core, a core left out, a
 * column's bit one place off, the bits of the tile of queries before, the first pass's sums left
 * out, chosen groups not left out for few queries. */
#include "tests/unit/cuda_pairs.h"

typedef enum some_groups { NO_GROUPS, SOME_GROUPS, ALL_GROUPS } some_groups;

typedef struct others_case {
    cca_dtype type;
    some_groups chosen;
    int64_t head_dim, n_kv_heads, sharers;
    cca_rule rule;
    int64_t pos, n, tile;
} others_case;

static int64_t heads_of(const others_case *c) {
    return c->n_kv_heads * c->sharers;
}

static const char *name_of(const others_case *c) {
    static char text[200];
    static const char *const names[] = {"none", "some", "all"};
    snprintf(text, sizeof text,
             "wgmma %d, %s, hd %d, heads %d/%d, g %d, s %d, %d sinks, pos %d, n %d, tile %d, %s "
             "of %d groups chosen",
             forms.wgmma, cca_dtype_name(c->type), (int)c->head_dim, (int)heads_of(c),
             (int)c->n_kv_heads, (int)c->rule.group_size, (int)c->rule.window_size,
             (int)c->rule.n_sinks, (int)c->pos, (int)c->n, (int)c->tile, names[c->chosen],
             (int)count_cores(&c->rule, c->pos + c->n - 1));
    return text;
}

/* ---- what attention reads -------------------------------------------------------------- */

typedef struct others_data {
    row_pair raw, sinks, rows, cores;
    pair q, out;
    cca_spans host, device;
    int64_t slots;
} others_data;

/* For each tile and head of keys none, some or all of the groups that its last query sees. */
static cca_choice choose_groups(const others_case *c, int64_t slots) {
    int64_t most = cca_max(count_cores(&c->rule, c->pos + c->n - 1), 1);
    cca_choice out = {memory((size_t)(slots * most) * sizeof(int32_t)),
                      memory((size_t)slots * sizeof(int32_t)),
                      c->n_kv_heads,
                      most,
                      c->tile,
                      c->rule.group_size,
                      CCA_LEVELS_FROM};
    cca_range groups = cca_rule_groups(&c->rule);
    for (int64_t i = 0; i < slots; i++) {
        int64_t tile = c->pos / c->tile + i / c->n_kv_heads;
        int64_t last = cca_min((tile + 1) * c->tile, c->pos + c->n) - 1, n = 0;
        int64_t end = cca_edge_at(&groups.end, last);
        for (int64_t t = cca_edge_at(&groups.begin, last); t < end; t++) {
            bool taken = c->chosen == SOME_GROUPS && cca_random_uniform(&seed) < 0.3;
            if (taken || c->chosen == ALL_GROUPS) out.groups[i * most + n++] = (int32_t)t;
        }
        out.counts[i] = (int32_t)n;
    }
    return out;
}

static others_data make_data(const others_case *c) {
    int64_t total = c->pos + c->n, hd = c->head_dim, heads = heads_of(c), kv = c->n_kv_heads;
    int64_t begin = raw_begin(&c->rule, c->pos), n_sinks = cca_max(c->rule.n_sinks, 1);
    int64_t n_cores = cca_max(count_cores(&c->rule, total - 1), 1);
    others_data d;
    d.raw = random_rows(c->type, c->type, kv, total - begin, hd, begin);
    d.sinks = random_rows(c->type, c->type, kv, n_sinks, hd, 0);
    d.rows = random_rows(c->type, c->type, kv, total, hd, 0);
    d.cores = random_rows(c->type, c->type, heads, n_cores, hd, 0);
    d.q = random_pair(c->n, heads * hd, 2);
    d.out = poisoned(c->n, heads * hd);
    d.slots = ((total - 1) / c->tile - c->pos / c->tile + 1) * kv;
    d.host = recall_spans_of(&c->rule, d.raw.host, d.sinks.host, d.rows.host, d.cores.host);
    d.device =
        recall_spans_of(&c->rule, d.raw.device, d.sinks.device, d.rows.device, d.cores.device);
    cca_choice choice = choose_groups(c, d.slots);
    d.host.choice = d.device.choice = choice;
    size_t n = (size_t)(d.slots * d.host.choice.most);
    d.device.choice.groups = copy_rows(d.host.choice.groups, n * sizeof(int32_t));
    d.device.choice.counts = copy_rows(d.host.choice.counts, (size_t)d.slots * sizeof(int32_t));
    return d;
}

static void free_data(others_data *d) {
    cca_backend_release(gpu, d->device.choice.groups);
    cca_backend_release(gpu, d->device.choice.counts);
    free(d->host.choice.groups), free(d->host.choice.counts);
    free_rows(&d->raw), free_rows(&d->sinks), free_rows(&d->rows), free_rows(&d->cores);
    free_pair(&d->q), free_pair(&d->out);
}

enum { MOST_GROUPS = 2048, MOST_MARKS = 128 };

/* Which groups a query's head sees as cores; gives how many of those chosen it sees. */
static int64_t see_cores(bool is_core[MOST_GROUPS], const others_case *c, const others_data *d,
                         int64_t row, int64_t head) {
    cca_range seen = cca_rule_groups(&c->rule);
    int64_t n, n_chosen = 0, end = cca_edge_at(&seen.end, c->pos + row);
    const int32_t *chosen = cca_chosen(&d->host.choice, c->pos, row, head / c->sharers, &n);
    assert_true(end <= MOST_GROUPS);
    for (int64_t t = 0; t < MOST_GROUPS; t++) {
        is_core[t] = t >= cca_edge_at(&seen.begin, c->pos + row) && t < end;
    }
    for (; n_chosen < n && chosen[n_chosen] < end; n_chosen++) is_core[chosen[n_chosen]] = false;
    return n_chosen;
}

/* Head dimensions 64 and 128, bf16 and f16; heads of keys with 1, 3, 4 and 8 sharers; tiles of all
 * sizes, the first one cut; few queries and many; one tile of columns and several. */
static void for_each_case(void (*check)(const others_case *c)) {
    static const int64_t sharers[] = {1, 3, 4, 8}, tiles[] = {16, 1, 8, 64};
    static const int64_t counts[] = {200, 1, 9, 5, 70, 8}, depths[] = {0, 5, 150, 700};
    for (int i = 0; i < 192; i++) {
        int64_t g = i % 5 == 4 ? 4 : 16, s = i % 7 == 3 ? 2 * g : 4 * g;
        int64_t n_sinks = i / 2 % 3 * g;
        others_case c = {i % 2 ? CCA_F16 : CCA_BF16,
                         (some_groups)((i / 5 + 1) % 3),
                         i / 2 % 2 ? 128 : 64,
                         i / 3 % 2 + 1,
                         sharers[i / 4 % 4],
                         {g, s, n_sinks, true},
                         s + n_sinks + depths[(i / 7 + i) % 4] * g / (g > 4 ? 4 : 1) + i % 19,
                         counts[i / 16 % 6],
                         tiles[(i / 3 + i / 16) % 4]};
        check(&c);
    }
    others_case models[] = {/* as models have it */
                            {CCA_BF16, SOME_GROUPS, 64, 3, 3, {16, 1024, 16, true}, 3000, 300, 16},
                            {CCA_F16, SOME_GROUPS, 64, 3, 3, {16, 1024, 16, true}, 20005, 1, 1},
                            {CCA_BF16, SOME_GROUPS, 128, 2, 4, {16, 512, 16, true}, 9001, 130, 16},
                            {CCA_F16, SOME_GROUPS, 128, 2, 4, {8, 64, 8, true}, 0, 1000, 16}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) check(&models[i]);
}

/* ---- which keys ------------------------------------------------------------------------ */

/* Dimension of the values of a core, whose others are 0. Dimension 0 is that of raw rows. */
static int64_t mark_of(const others_case *c, int64_t head, int64_t group) {
    return 1 + (group + 7 * head) % (c->head_dim - 1);
}

/* Makes the values of rows such ones. */
static void mark_values(const others_case *c, row_pair *p, bool is_core) {
    int64_t hd = c->head_dim, n = p->host.heads * p->host.capacity;
    float *x = floats(n * hd);
    for (int64_t i = 0; i < n * hd; i++) x[i] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t head = i / p->host.capacity, group = i % p->host.capacity;
        x[i * hd + (is_core ? mark_of(c, head, group) : 0)] = 1;
    }
    cca_dtype_encode(p->host.v, c->type, x, n * hd);
    cca_backend_upload(gpu, p->device.v, p->host.v, bytes_of(c->type, &p->host));
    free(x);
}

/* How often a query's head sees each mark; gives how many keys it sees. */
static int64_t count_marks(int64_t marks[MOST_MARKS], const others_case *c, const others_data *d,
                           int64_t row, int64_t head) {
    bool is_core[MOST_GROUPS];
    int64_t n_chosen = see_cores(is_core, c, d, row, head), n_cores = 0;
    memset(marks, 0, MOST_MARKS * sizeof *marks);
    for (int64_t t = 0; t < MOST_GROUPS; t++) {
        if (!is_core[t]) continue;
        marks[mark_of(c, head, t)]++;
        n_cores++;
    }
    cca_range window = cca_rule_window(&c->rule), sinks = cca_rule_sinks(&c->rule);
    marks[0] = cca_range_count(&window, c->pos + row) + n_chosen * c->rule.group_size;
    if (c->rule.n_sinks > 0) marks[0] += cca_range_count(&sinks, c->pos + row);
    return marks[0] + n_cores;
}

/* With queries of 0 all weights are the same: an output is the share of keys with its mark, and
 * times their number how many these are, but for the rounding of weights. */
static void check_which(const others_case *c) {
    others_data d = make_data(c);
    int64_t hd = c->head_dim, heads = heads_of(c), marks[MOST_MARKS];
    mark_values(c, &d.raw, false), mark_values(c, &d.sinks, false), mark_values(c, &d.rows, false);
    mark_values(c, &d.cores, true);
    memset(d.q.host.data, 0, (size_t)(c->n * heads * hd) * sizeof(float));
    cca_backend_upload(gpu, d.q.device.data, d.q.host.data,
                       (size_t)(c->n * heads * hd) * sizeof(float));
    cca_attend(gpu, &d.out.device, &d.device, &d.q.device, c->pos, c->n);
    float *got = fetch(&d.out);
    for (int64_t i = 0; i < c->n * heads; i++) {
        int64_t n_keys = count_marks(marks, c, &d, i / heads, i % heads);
        for (int64_t k = 0; k < hd; k++) {
            double n = (double)got[i * hd + k] * (double)n_keys;
            if (fabs(n - (double)marks[k]) < 0.1) continue;
            fail_msg("%s: query %d, head %d, mark %d: %.3f of %d keys, not %d", name_of(c),
                     (int)(i / heads), (int)(i % heads), (int)k, n, (int)n_keys, (int)marks[k]);
        }
    }
    free(got), free_data(&d);
}

static void which_keys_are_seen(void **state) {
    (void)state;
    if (!gpu) skip();
    for_each_case(check_which);
}

/* ---- how much -------------------------------------------------------------------------- */

static double worst[2]; /* of bf16 and f16 */

/* Whether a call is one for tensor cores, which take a tile's rows together, and leave their mark
 * in the rounding. */
static bool in_tiles(const others_case *c) {
    int64_t together = c->sharers * cca_min(c->n, c->tile);
    return c->n > 8 && together > 8 && c->sharers * c->tile <= 128;
}

static void check_how_much(const others_case *c) {
    others_data d = make_data(c);
    int64_t hd = c->head_dim, heads = heads_of(c), is_f16 = c->type == CCA_F16;
    bool rounds = in_tiles(c);
    double bound = !rounds ? 2e-5 : is_f16 ? 2e-3 : 1.5e-2, whole;
    size_t bytes = (size_t)(c->n * heads * hd) * sizeof(float);
    cca_attend(plain, &d.out.host, &d.host, &d.q.host, c->pos, c->n);
    cca_attend(gpu, &d.out.device, &d.device, &d.q.device, c->pos, c->n);
    float *got = fetch(&d.out);
    const float *want = d.out.host.data;
    for (int64_t i = 0; i < c->n * heads; i++) {
        double distance = cca_distance(got + i * hd, want + i * hd, hd);
        if (rounds) worst[is_f16] = fmax(worst[is_f16], distance);
        if (distance < bound) continue;
        fail_msg("%s: query %d, head %d: %.3g is not below %.3g; %.6f %.6f, not %.6f %.6f",
                 name_of(c), (int)(i / heads), (int)(i % heads), distance, bound,
                 (double)got[i * hd], (double)got[i * hd + 1], (double)want[i * hd],
                 (double)want[i * hd + 1]);
    }
    whole = cca_distance(got, want, c->n * heads * hd);
    if (rounds && whole < 1e-5) fail_msg("%s: %.3g, not on tensor cores", name_of(c), whole);
    cca_attend(gpu, &d.out.device, &d.device, &d.q.device, c->pos, c->n);
    float *again = fetch(&d.out);
    if (memcmp(got, again, bytes) != 0) fail_msg("%s: other bits the second time", name_of(c));
    free(got), free(again), free_data(&d);
}

static void how_much_is_seen(void **state) {
    (void)state;
    if (!gpu) skip();
    worst[0] = worst[1] = 0;
    for_each_case(check_how_much);
    print_message("largest distance of a row: bf16 %.2g, f16 %.2g\n", worst[0], worst[1]);
}

/* ---- what is no number ------------------------------------------------------------------- */

static void poison(row_pair *p, bool keys, int64_t at) {
    char *host = keys ? p->host.k : p->host.v;
    cca_dtype_encode(host + (size_t)at * sizeof(uint16_t), p->host.k_type, &(float){NAN}, 1);
    cca_backend_upload(gpu, keys ? p->device.k : p->device.v, host,
                       bytes_of(p->host.k_type, &p->host));
}

/* A core whose key, or value, is none, reaches those that see it, and in a value no other dims.
 * (It may reach the same dim of those that do not: their weight is 0.) Gives how many see it. */
static int64_t check_no_number(const others_case *c, bool in_key) {
    enum { D = 31, HEAD = 2 };
    others_data d = make_data(c);
    int64_t hd = c->head_dim, heads = heads_of(c), group = d.cores.host.capacity * 2 / 3;
    int64_t n_seen = 0;
    bool is_core[MOST_GROUPS];
    poison(&d.cores, in_key, (HEAD * d.cores.host.capacity + group) * hd + D);
    cca_attend(gpu, &d.out.device, &d.device, &d.q.device, c->pos, c->n);
    float *got = fetch(&d.out);
    for (int64_t i = 0; i < c->n * heads; i++) {
        int64_t head = i % heads;
        see_cores(is_core, c, &d, i / heads, head);
        bool sees = head == HEAD && is_core[group];
        n_seen += sees;
        for (int64_t k = 0; k < hd; k++) {
            bool is_open = !in_key && k == D && head == HEAD && !sees;
            bool is_number = !(sees && (in_key || k == D));
            if (is_open || (isfinite(got[i * hd + k]) != 0) == is_number) continue;
            fail_msg("%s: NaN in a %s of core %d: query %d, head %d, value %d is %g", name_of(c),
                     in_key ? "key" : "value", (int)group, (int)(i / heads), (int)head, (int)k,
                     (double)got[i * hd + k]);
        }
    }
    free(got), free_data(&d);
    return n_seen;
}

static void others_of_no_numbers(void **state) {
    (void)state;
    if (!gpu) skip();
    static const int64_t counts[] = {5, 40, 200};
    int64_t n_seen = 0;
    for (int i = 0; i < 12; i++) {
        others_case c = {i % 2 ? CCA_F16 : CCA_BF16,
                         SOME_GROUPS,
                         i / 2 % 2 ? 128 : 64,
                         2,
                         3,
                         {16, 64, 16, true},
                         1500,
                         counts[i / 4],
                         counts[i / 4] > 5 ? 16 : 1};
        n_seen += check_no_number(&c, true) + check_no_number(&c, false);
    }
    assert_true(n_seen > 0); /* some tiles have not chosen it */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(which_keys_are_seen),
        cmocka_unit_test(how_much_is_seen),
        cmocka_unit_test(others_of_no_numbers),
    };
    int failed = cmocka_run_group_tests(tests, open_backends, close_backends);
    forms = cca_cuda_all_forms();
    return failed + cmocka_run_group_tests(tests, open_backends, close_backends);
}
