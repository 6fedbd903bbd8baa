/* Times single operations of the CUDA backend on random data: median and spread of 20 repeats,
 * each between two waits. tests/gpu.sh builds and runs it; with the argument "hopper" it uses the
 * forms for Hopper, and with `hopper recall` it times recall alone; with `model FILE` it times
 * decode of a model with each set of forms; with `in-turn FILE [recall|others]` it runs prefill and
 * decode of a small model as racecheck of compute-sanitizer can follow them. It asserts nothing. */
#include "backend/cuda/forms.h"
#include "base/clock.h"
#include "model.h"
#include "tests/unit/test.h"

enum { REPEATS = 20 };

static cca_backend *gpu;
static uint64_t seed = 1;

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void must(cca_status status, const cca_error *err) {
    if (!status) return;
    printf("%s\n", err->text);
    exit(1);
}

static void finish(void) {
    cca_error err = {0};
    must(cca_backend_sync(gpu, &err), &err);
}

/* Seconds of an operation; `times` of them between two waits, so that the wait does not count. */
typedef void (*operation)(const void *context);

static double measure(operation run, const void *context, int times, double *spread) {
    double seconds[REPEATS] = {0};
    for (int i = -3; i < REPEATS; i++) {
        double start = cca_seconds();
        for (int k = 0; k < times; k++) run(context);
        finish();
        if (i >= 0) seconds[i] = (cca_seconds() - start) / times;
    }
    qsort(seconds, REPEATS, sizeof *seconds, by_size);
    *spread = (seconds[REPEATS * 3 / 4] - seconds[REPEATS / 4]) / seconds[REPEATS / 2];
    return seconds[REPEATS / 2];
}

/* Random bytes of a type: a megabyte of them, again and again. */
static void *random_rows(cca_dtype type, int64_t n) {
    enum { PIECE = 1 << 18 };
    static char piece[PIECE * sizeof(float)];
    const cca_matrix all = {.type = type, .rows = 1, .cols = n};
    size_t bytes = cca_matrix_kept_bytes(gpu, &all), some = 0;
    cca_dtype_fill(piece, type, PIECE, &seed);
    if (!cca_dtype_row_bytes(&some, type, PIECE)) exit(1);
    char *rows = cca_backend_alloc(gpu, bytes);
    finish();
    for (size_t at = 0; at < bytes; at += some) {
        cca_backend_upload(gpu, rows + at, piece, bytes - at < some ? bytes - at : some);
    }
    return rows;
}

static cca_matrix random_matrix(cca_dtype type, int64_t rows, int64_t cols) {
    return (cca_matrix){random_rows(type, rows * cols), type, rows, cols, true};
}

/* ---- attention ----------------------------------------------------------------------- */

typedef struct attention {
    cca_matrix q, out;
    cca_spans spans;
    int64_t pos, n;
} attention;

static void run_attention(const void *context) {
    const attention *a = context;
    cca_matrix out = a->out;
    cca_attend(gpu, &out, &a->spans, &a->q, a->pos, a->n);
}

static cca_rows rows_of(int64_t heads, int64_t capacity, int64_t hd, int64_t base) {
    int64_t n = heads * capacity * hd;
    return (cca_rows){random_rows(CCA_BF16, n),
                      random_rows(CCA_BF16, n),
                      CCA_BF16,
                      CCA_BF16,
                      heads,
                      capacity,
                      hd,
                      base};
}

static void free_rows(cca_rows *r) {
    cca_backend_release(gpu, r->k);
    cca_backend_release(gpu, r->v);
}

/* n queries behind pos tokens, g = 16, s = 1024, or full attention. */
static void time_attention(const char *name, bool full, int64_t heads, int64_t kv_heads, int64_t hd,
                           int64_t pos, int64_t n) {
    cca_rule endless = {1, INT64_MAX / 4, 0, false}, cut = {16, 1024, 0, true};
    attention a = {.pos = pos, .n = n};
    const cca_rule *rule = full ? &endless : &cut;
    cca_range window = cca_rule_window(rule), groups = cca_rule_groups(rule);
    int64_t begin = cca_edge_at(&window.begin, pos), pairs = 0;
    int64_t n_far = cca_max(1, cca_edge_at(&groups.end, pos + n - 1));
    a.spans.at[a.spans.n++] = (cca_span){
        .rows = rows_of(kv_heads, pos + n - begin, hd, begin), .seen = window, .stride = 1};
    if (rule->cores) {
        a.spans.at[a.spans.n++] =
            (cca_span){.rows = rows_of(heads, n_far, hd, 0), .seen = groups, .stride = 16};
    }
    for (int64_t i = pos; i < pos + n; i++) pairs += cca_spans_count(&a.spans, i);
    a.q = random_matrix(CCA_F32, n, heads * hd);
    a.out = random_matrix(CCA_F32, n, heads * hd);
    double spread, seconds = measure(run_attention, &a, n == 1 ? 50 : 1, &spread);
    double flop = 4.0 * (double)(pairs * hd * heads);
    printf("%-4s heads %lld/%lld hd %lld pos %6lld n %4lld: %9.3f ms, ", name, (long long)heads,
           (long long)kv_heads, (long long)hd, (long long)pos, (long long)n, seconds * 1e3);
    if (n > 1) {
        printf("%.1f TFLOP/s", flop / seconds / 1e12);
    } else {
        printf("%.2f TB/s", flop / seconds / 1e12); /* as many bytes as operations */
    }
    printf(", spread %.1f %%\n", spread * 100);
    for (int i = 0; i < a.spans.n; i++) free_rows(&a.spans.at[i].rows);
    cca_matrix_free(gpu, &a.q), cca_matrix_free(gpu, &a.out);
}

/* ---- recall -------------------------------------------------------------------------- */

typedef struct recall {
    attention a;
    cca_rows bounds, blocks;
    cca_range groups;
} recall;

static void run_choice(const void *context) {
    const recall *r = context;
    cca_choose(gpu, &r->a.spans.choice, &r->bounds, &r->blocks, &r->groups, &r->a.q, r->a.pos,
               r->a.n);
}

/* n queries behind pos tokens choose 2048 of them, in tiles or each by itself, and attend to these,
 * a window of 1024 and the first group. */
static void time_recall(int64_t heads, int64_t kv_heads, int64_t hd, int64_t pos, int64_t n) {
    enum { G = 16, MOST = 2048 / G };
    int64_t tile = n > 64 ? 64 / (heads / kv_heads) : 1;
    cca_rule rule = {G, 1024, G, false};
    cca_rows rows = rows_of(kv_heads, pos + n, hd, 0);
    recall r = {.a = {.pos = pos, .n = n},
                .bounds = rows_of(kv_heads, (pos + n) / G, hd, 0),
                .blocks = rows_of(kv_heads, (pos + n) / G / CCA_BLOCK, hd, 0)};
    int64_t slots = (n / tile + 2) * kv_heads;
    r.groups = cca_rule_groups(&rule);
    r.a.spans = (cca_spans){.n = 3,
                            .at = {{rows, cca_rule_window(&rule), 1, CCA_PICK_ALL},
                                   {rows, cca_rule_sinks(&rule), 1, CCA_PICK_ALL},
                                   {rows, cca_rule_recallable(&rule), 1, CCA_PICK_CHOSEN}},
                            .choice = {.heads = kv_heads,
                                       .most = MOST,
                                       .tile = tile,
                                       .group_size = G,
                                       .levels_from = CCA_LEVELS_FROM}};
    cca_choice *c = &r.a.spans.choice;
    c->groups = cca_backend_alloc(gpu, (size_t)(slots * MOST) * sizeof(int32_t));
    c->counts = cca_backend_alloc(gpu, (size_t)slots * sizeof(int32_t));
    r.a.q = random_matrix(CCA_F32, n, heads * hd);
    r.a.out = random_matrix(CCA_F32, n, heads * hd);
    double spread, choice = measure(run_choice, &r, n == 1 ? 50 : 1, &spread);
    double seconds = measure(run_attention, &r.a, n == 1 ? 50 : 1, &spread);
    printf("recall heads %lld/%lld hd %lld pos %6lld n %4lld: %9.3f ms to choose, %9.3f ms to "
           "attend\n",
           (long long)heads, (long long)kv_heads, (long long)hd, (long long)pos, (long long)n,
           choice * 1e3, seconds * 1e3);
    free_rows(&rows), free_rows(&r.bounds), free_rows(&r.blocks);
    cca_backend_release(gpu, c->groups), cca_backend_release(gpu, c->counts);
    cca_matrix_free(gpu, &r.a.q), cca_matrix_free(gpu, &r.a.out);
}

/* ---- products ------------------------------------------------------------------------ */

/* Several copies of the weights, taken in turn, so that none stays in the cache. */
enum { COPIES = 6 };

typedef struct product {
    cca_matrix x, out, w[COPIES];
    int64_t n;
} product;

static void run_product(const void *context) {
    const product *p = context;
    static int turn;
    cca_matrix out = p->out;
    cca_product one = {&out, &p->w[turn++ % COPIES], NULL, false};
    cca_matmul(gpu, &one, 1, &p->x, p->n);
}

static void time_product(cca_dtype type, int64_t rows, int64_t cols, int64_t n) {
    product p = {.n = n};
    p.x = random_matrix(CCA_F32, n, cols);
    p.out = random_matrix(CCA_F32, n, rows);
    for (int i = 0; i < COPIES; i++) p.w[i] = random_matrix(type, rows, cols);
    size_t bytes = cca_matrix_kept_bytes(gpu, &p.w[0]);
    double spread, seconds = measure(run_product, &p, n == 1 ? 60 : 1, &spread);
    printf("product %-5s (%lld, %lld) x %lld: %9.4f ms, %6.1f TFLOP/s, weights %5.2f TB/s, "
           "spread %.1f %%\n",
           cca_dtype_name(type), (long long)rows, (long long)cols, (long long)n, seconds * 1e3,
           2.0 * (double)(rows * cols * n) / seconds / 1e12, (double)bytes / seconds / 1e12,
           spread * 100);
    cca_matrix_free(gpu, &p.x), cca_matrix_free(gpu, &p.out);
    for (int i = 0; i < COPIES; i++) cca_matrix_free(gpu, &p.w[i]);
}

/* The feed-forward part of a 7B layer; two layers in turn, more than the cache holds. */
typedef struct ffn_case {
    cca_matrix x;
    cca_ffn ffn[2];
    int64_t n;
} ffn_case;

static void run_ffn(const void *context) {
    const ffn_case *c = context;
    static int turn;
    cca_matrix x = c->x;
    cca_feed_forward(gpu, &x, &c->ffn[turn++ % 2], c->n);
}

static void time_ffn(cca_dtype type, int64_t n) {
    enum { DIM = 4096, HIDDEN = 11008, N_MATRICES = 4 };
    ffn_case c = {.n = n, .x = random_matrix(CCA_F32, n, DIM)};
    cca_matrix w[2][N_MATRICES], h = random_matrix(CCA_F32, n, DIM);
    cca_matrix gated = random_matrix(CCA_F32, n, HIDDEN), upped = random_matrix(CCA_F32, n, HIDDEN);
    for (int i = 0; i < 2; i++) {
        w[i][0] = random_matrix(CCA_F32, 1, DIM);
        w[i][1] = random_matrix(type, HIDDEN, DIM);
        w[i][2] = random_matrix(type, HIDDEN, DIM);
        w[i][3] = random_matrix(type, DIM, HIDDEN);
        c.ffn[i] =
            (cca_ffn){&w[i][0], &w[i][1], &w[i][2], &w[i][3], NULL, 1e-5f, &h, &gated, &upped};
    }
    size_t bytes = 3 * cca_matrix_kept_bytes(gpu, &w[0][1]);
    double spread, seconds = measure(run_ffn, &c, n == 1 ? 60 : 2, &spread);
    printf(
        "feed forward %-5s x %lld: %9.4f ms, %6.1f TFLOP/s, weights %5.2f TB/s, spread %.1f %%\n",
        cca_dtype_name(type), (long long)n, seconds * 1e3,
        6.0 * DIM * HIDDEN * (double)n / seconds / 1e12, (double)bytes / seconds / 1e12,
        spread * 100);
    cca_matrix_free(gpu, &c.x), cca_matrix_free(gpu, &h);
    cca_matrix_free(gpu, &gated), cca_matrix_free(gpu, &upped);
    for (int i = 0; i < 2 * N_MATRICES; i++) {
        cca_matrix_free(gpu, &w[i / N_MATRICES][i % N_MATRICES]);
    }
}

/* ---- what lies between --------------------------------------------------------------- */

typedef struct small_ops {
    cca_matrix x, y, weight, angles, wide, wide2;
    cca_rope rope;
    cca_groups groups;
    int64_t pos, n;
} small_ops;

static void run_norm(const void *context) {
    small_ops o = *(const small_ops *)context;
    cca_rmsnorm(gpu, &o.y, &o.x, 0, &o.weight, 1e-5f, o.n);
}

static void run_rotate(const void *context) {
    small_ops o = *(const small_ops *)context;
    cca_rotate(gpu, &o.x, &o.angles, &o.rope, o.n);
}

static void run_swiglu(const void *context) {
    small_ops o = *(const small_ops *)context;
    cca_swiglu(gpu, &o.wide, &o.wide2, o.n);
}

static void run_store(const void *context) {
    small_ops o = *(const small_ops *)context;
    cca_rows_store(gpu, &o.groups.raw, &o.x, &o.y, o.pos, o.n);
}

static void run_pool(const void *context) {
    small_ops o = *(const small_ops *)context;
    cca_pool(gpu, &o.groups, &o.x, o.pos, o.n);
}

/* The rest of a layer of a 7B model, n tokens at the end of 131,072. */
static void time_small_ops(int64_t n) {
    enum { DIM = 4096, HIDDEN = 11008, HEADS = 32, HD = 128, LENGTH = 131072 };
    static const struct {
        const char *name;
        operation run;
        double bytes; /* read and written, of a token */
    } list[] = {{"rmsnorm", run_norm, 8.0 * DIM},
                {"rotate", run_rotate, 8.0 * DIM + 4.0 * HD},
                {"swiglu", run_swiglu, 12.0 * HIDDEN},
                {"store", run_store, 12.0 * DIM},
                {"pool", run_pool, 4.0 * DIM + 4.0 * DIM / 16}};
    double inv_freq[HD / 2] = {0};
    small_ops o = {.rope = {inv_freq, HD / 2, 1, true, 1}, .pos = LENGTH - n, .n = n};
    o.groups = (cca_groups){rows_of(HEADS, n + 1024, HD, LENGTH - n - 1024),
                            rows_of(HEADS, LENGTH / 16, HD, 0), 16, CCA_POOL_QUERY, false};
    cca_matrix *all[] = {&o.x, &o.y, &o.weight, &o.angles, &o.wide, &o.wide2};
    const int64_t widths[] = {DIM, DIM, DIM, HD, HIDDEN, HIDDEN};
    for (int i = 0; i < 6; i++) *all[i] = random_matrix(CCA_F32, n, widths[i]);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        double spread, seconds = measure(list[i].run, &o, n == 1 ? 200 : 5, &spread);
        printf("%-8s x %lld: %9.4f ms, %5.2f TB/s, spread %.1f %%\n", list[i].name, (long long)n,
               seconds * 1e3, list[i].bytes * (double)n / seconds / 1e12, spread * 100);
    }
    for (int i = 0; i < 6; i++) cca_matrix_free(gpu, all[i]);
    free_rows(&o.groups.raw), free_rows(&o.groups.cores);
}

/* ---- a whole model ------------------------------------------------------------------- */

typedef struct opened {
    cca_gguf *file;
    cca_model *model;
    cca_state *state;
} opened;

static opened open_model(const char *path, const cca_cuda_forms *forms, cca_state_options o,
                         const cca_policy_options *policy) {
    cca_error err = {0};
    cca_backend_options options = {0};
    opened m;
    o.k_type = o.v_type = CCA_BF16;
    must(cca_backend_cuda_with(&gpu, 0, &options, forms, &err), &err);
    must(cca_gguf_open(&m.file, path, &err), &err);
    must(cca_model_open(&m.model, m.file, gpu, &err), &err);
    must(cca_policy_make(&o.policy, policy, &err), &err);
    must(cca_state_new(&m.state, m.model, gpu, &o, &err), &err);
    return m;
}

static void close_model(opened *m) {
    cca_state_free(m->state);
    cca_model_close(m->model);
    cca_gguf_close(m->file);
    cca_backend_close(gpu);
}

/* Decode of one token, without logits, of a model file: what each form brings. */
static double submitted;
static cca_status (*true_sync)(cca_backend *b, cca_error *err);

static cca_status timed_sync(cca_backend *b, cca_error *err) {
    submitted = cca_seconds();
    return true_sync(b, err);
}

static void time_decode(const char *path, const cca_cuda_forms *forms, const char *name,
                        int64_t pos) {
    enum { TOKENS = 40, CONTEXT = 256 };
    cca_error err = {0};
    const cca_policy_options policy = {.group_size = 16, .window_size = 1024};
    opened m = open_model(
        path, forms, (cca_state_options){.ctx_size = pos + CONTEXT, .chunk_size = 16}, &policy);
    double seconds[TOKENS], submits[TOKENS];
    cca_ops ops = *gpu->ops;
    const cca_ops *kept = gpu->ops;
    true_sync = ops.sync;
    ops.sync = timed_sync;
    gpu->ops = &ops;
    for (int i = 0; i < TOKENS; i++) {
        double start = cca_seconds();
        must(cca_model_forward(m.state, &(int32_t){7}, 1, pos + i, &err), &err);
        seconds[i] = cca_seconds() - start;
        submits[i] = submitted - start;
    }
    gpu->ops = kept;
    qsort(submits, TOKENS, sizeof *submits, by_size);
    qsort(seconds, TOKENS, sizeof *seconds, by_size);
    printf("decode at %lld, %-22s: %7.3f ms (%.3f to %.3f), submitted after %.3f\n", (long long)pos,
           name, seconds[TOKENS / 2] * 1e3, seconds[0] * 1e3, seconds[TOKENS - 1] * 1e3,
           submits[TOKENS / 2] * 1e3);
    close_model(&m);
}

/* 2000 tokens and 20 behind them, with logits; recall, also beside cores of the others, by the
 * kernels that are fast. */
static void run_in_turn(const char *path, bool recalls, bool cores) {
    enum { CHUNK = 1000, PROMPT = 2 * CHUNK, TOKENS = 20 };
    cca_policy_options policy = {.group_size = 16, .window_size = 64};
    if (recalls) policy.n_sinks = 16, policy.recall = 256, policy.tile = 8;
    policy.no_cores = recalls && !cores;
    const cca_cuda_forms forms = {.wgmma = true, .early = true, .stream = true, .fused = true};
    cca_error err = {0};
    opened m =
        open_model(path, &forms,
                   (cca_state_options){.ctx_size = PROMPT + TOKENS, .chunk_size = CHUNK}, &policy);
    int64_t n_vocab = cca_model_config(m.model)->vocab_size;
    float *logits = malloc((size_t)n_vocab * sizeof *logits);
    if (!logits) exit(1);
    int32_t ids[CHUNK];
    for (int i = 0; i < CHUNK; i++) ids[i] = (int32_t)(7 * i % n_vocab);
    for (int64_t pos = 0; pos < PROMPT; pos += CHUNK) {
        must(cca_model_forward(m.state, ids, CHUNK, pos, &err), &err);
    }
    for (int i = 0; i < TOKENS; i++) {
        must(cca_model_forward(m.state, ids + i, 1, PROMPT + i, &err), &err);
        must(cca_model_logits(m.state, 0, 1, logits, &err), &err);
    }
    printf("%d tokens behind %d, copies in turn\n", TOKENS, PROMPT);
    free(logits);
    close_model(&m);
}

static void time_model(const char *path) {
    static const struct {
        const char *name;
        cca_cuda_forms forms;
    } list[] = {
        {"plain", {0}},
        {"early", {.early = true}},
        {"early, stream", {.early = true, .stream = true, .together = true}},
        {"stream, fused", {.stream = true, .fused = true, .together = true}},
        {"early, stream, fused", {.early = true, .stream = true, .fused = true, .together = true}},
        {"the same, in turn", {.early = true, .stream = true, .fused = true}}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        time_decode(path, &list[i].forms, list[i].name, 20);
    }
    time_decode(path, &list[4].forms, list[4].name, 131000);
}

static void time_recalls(void) {
    static const int64_t counts[] = {1, 64, 8192};
    for (int i = 0; i < 3; i++) {
        for (int64_t length = 32768; length <= 131072; length *= 4) {
            time_recall(32, 32, 128, length - counts[i], counts[i]);
            time_recall(32, 8, 128, length - counts[i], counts[i]);
        }
    }
}

int main(int argc, char **argv) {
    cca_error err = {0};
    if (argc > 2 && strcmp(argv[1], "model") == 0) {
        time_model(argv[2]);
        return 0;
    }
    if (argc > 2 && strcmp(argv[1], "in-turn") == 0) {
        const char *kind = argc > 3 ? argv[3] : "";
        bool others = strcmp(kind, "others") == 0;
        run_in_turn(argv[2], others || strcmp(kind, "recall") == 0, others);
        return 0;
    }
    bool hopper = argc > 1 && strcmp(argv[1], "hopper") == 0;
    cca_cuda_forms forms = {.fused = false};
    if (hopper) forms = cca_cuda_all_forms();
    cca_backend_options options = {0};
    must(cca_backend_cuda_with(&gpu, 0, &options, &forms, &err), &err);
    if (argc > 2 && strcmp(argv[2], "recall") == 0) {
        time_recalls();
        cca_backend_close(gpu);
        return 0;
    }
    static const cca_dtype types[] = {CCA_BF16, CCA_Q8_0, CCA_Q4_0, CCA_Q4_1, CCA_Q5_1, CCA_Q6_K};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        time_product(types[t], 4096, 4096, 1);
        time_product(types[t], 22016, 4096, 1);
        time_product(types[t], 4096, 11008, 1);
        time_product(types[t], 11008, 4096, 8192);
        time_ffn(types[t], 1);
        time_ffn(types[t], 8192);
    }
    time_small_ops(1);
    time_small_ops(8192);
    for (int full = 0; full < 2; full++) {
        const char *name = full ? "full" : "CCA";
        time_attention(name, full, 32, 32, 128, 24576, 8192);
        time_attention(name, full, 32, 32, 128, 122880, 8192);
        time_attention(name, full, 32, 8, 128, 122880, 8192);
        time_attention(name, full, 32, 32, 64, 122880, 8192);
        time_attention(name, full, 32, 32, 128, 131071, 1);
        time_attention(name, full, 32, 8, 128, 131071, 1);
    }
    time_recalls();
    cca_backend_close(gpu);
    return 0;
}
