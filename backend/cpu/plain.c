/* The oracle of the other variants: each function as its definition reads, one value at a time,
 * sums in double. */
#include "backend/cpu/kernels.h"

static void decode(float *out, cca_dtype type, const void *in, int64_t n) {
    cca_dtype_decode(out, type, in, n);
}

static void encode(void *out, cca_dtype type, const float *in, int64_t n) {
    cca_dtype_encode(out, type, in, n);
}

static double dot_one(const float *a, const float *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

static size_t x_bytes(cca_dtype type, int64_t n) {
    (void)type;
    (void)n;
    return 0;
}

/* A panel is the rows as floats, one behind the other. */
static size_t panel_bytes(cca_dtype type, int64_t n) {
    (void)type;
    return (size_t)(CCA_PANEL * n) * sizeof(float);
}

static void pack(void *panel, cca_dtype type, const void *w, size_t w_stride, int64_t n_w,
                 int64_t n) {
    for (int64_t j = 0; j < n_w; j++) {
        decode((float *)panel + j * n, type, (const char *)w + (size_t)j * w_stride, n);
    }
}

static void multiply(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                     cca_dtype type, const void *panel, int64_t n_w, int64_t n, bool add) {
    (void)type;
    for (int64_t i = 0; i < n_x; i++) {
        const float *row = (const float *)((const char *)x + (size_t)i * x_stride);
        for (int64_t j = 0; j < n_w; j++) {
            float *to = out + i * ld_out + j;
            *to = (add ? *to : 0) + (float)dot_one(row, (const float *)panel + j * n, n);
        }
    }
}

static void dot(float *out, int64_t ld_out, const void *x, size_t x_stride, int64_t n_x,
                cca_dtype type, const void *w, size_t w_stride, int64_t n_w, int64_t n) {
    for (int64_t j = 0; j < n_w; j++) {
        for (int64_t k = 0, some; k < n; k += some) {
            float row[256];
            size_t skip = 0;
            some = cca_min(256, n - k);
            cca_dtype_row_bytes(&skip, type, k);
            decode(row, type, (const char *)w + (size_t)j * w_stride + skip, some);
            multiply(out + j, ld_out, (const char *)x + (size_t)k * sizeof *row, x_stride, n_x,
                     CCA_F32, row, 1, some, true);
        }
    }
}

static void rmsnorm(float *out, const float *x, const float *weight, float eps, int64_t n) {
    double scale = 1 / sqrt(dot_one(x, x, n) / (double)n + eps);
    for (int64_t i = 0; i < n; i++) out[i] = (float)(x[i] * scale * weight[i]);
}

static void swiglu(float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        gate[i] = (float)(gate[i] / (1 + exp(-(double)gate[i])) * up[i]);
    }
}

/* A query and the keys it sees. */
typedef struct query {
    const cca_attend_args *args;
    int64_t head, row;
} query;

static int64_t pos_of(const query *x) {
    return x->args->pos + x->row;
}

/* Whether a column of a span that the query sees takes part. */
static bool takes_part(const query *x, const cca_span *span, int64_t column) {
    const cca_choice *choice = &x->args->spans->choice;
    if (span->pick == CCA_PICK_ALL) return true;
    int64_t n, group = span->pick == CCA_PICK_CHOSEN ? column / choice->group_size : column;
    int64_t kv_head = x->head / (x->args->n_heads / choice->heads);
    const int32_t *chosen = cca_chosen(choice, x->args->pos, x->row, kv_head, &n);
    bool found = false;
    for (int64_t i = 0; i < n; i++) found = found || chosen[i] == group;
    return found == (span->pick == CCA_PICK_CHOSEN);
}

static void read_key(float *k, float *v, const query *x, const cca_span *span, int64_t column) {
    bool chosen = span->pick == CCA_PICK_CHOSEN;
    const cca_rows *rows =
        chosen ? cca_piece_of(&x->args->spans->pieces, &span->rows, column) : &span->rows;
    int64_t row = cca_rows_at(rows, column), head = x->head / (x->args->n_heads / rows->heads);
    decode(k, rows->k_type, cca_row_at(rows->k, rows->k_type, rows, head, row), rows->head_dim);
    decode(v, rows->v_type, cca_row_at(rows->v, rows->v_type, rows, head, row), rows->head_dim);
}

/* Calls with each key that the query sees, its value and its score. */
typedef void (*key_fn)(void *sum, double score, const float *v, int64_t head_dim);

static void each_key(const query *x, float *scratch, key_fn fn, void *sum) {
    const cca_spans *spans = x->args->spans;
    int64_t hd = spans->at[0].rows.head_dim, n_heads = x->args->n_heads;
    const float *q = x->args->q + (x->row * n_heads + x->head) * hd;
    float *k = scratch, *v = scratch + hd;
    for (int i = 0; i < spans->n; i++) {
        const cca_span *span = &spans->at[i];
        int64_t end = cca_edge_at(&span->seen.end, pos_of(x));
        for (int64_t c = cca_edge_at(&span->seen.begin, pos_of(x)); c < end; c++) {
            if (!takes_part(x, span, c)) continue;
            read_key(k, v, x, span, c);
            fn(sum, dot_one(q, k, hd) / sqrt((double)hd), v, hd);
        }
    }
}

typedef struct weighted_sum {
    double largest, total;
    float *out;
} weighted_sum;

static void find_largest(void *sum, double score, const float *v, int64_t hd) {
    weighted_sum *s = sum;
    (void)v;
    (void)hd;
    s->largest = fmax(s->largest, score);
}

static void add_value(void *sum, double score, const float *v, int64_t hd) {
    weighted_sum *s = sum;
    double p = exp(score - s->largest);
    s->total += p;
    for (int64_t d = 0; d < hd; d++) s->out[d] += (float)(p * v[d]);
}

/* Two walks: the largest score first, then the weighted sum. scratch holds a key and a value. */
static void attend_row(const query *x, float *scratch) {
    int64_t hd = x->args->spans->at[0].rows.head_dim, n_heads = x->args->n_heads;
    weighted_sum s = {-INFINITY, 0, x->args->out + (x->row * n_heads + x->head) * hd};
    each_key(x, scratch, find_largest, &s);
    memset(s.out, 0, (size_t)hd * sizeof *s.out);
    each_key(x, scratch, add_value, &s);
    float *sums = x->args->sums ? x->args->sums + 2 * (x->row * n_heads + x->head) : NULL;
    if (sums) sums[0] = (float)s.largest, sums[1] = (float)s.total;
    if (sums && s.total == 0) return; /* of keys that are not all there may be none */
    for (int64_t d = 0; d < hd; d++) s.out[d] = (float)(s.out[d] / s.total);
}

static void attend(const cca_attend_args *args, int64_t head, int64_t n_heads, int64_t row,
                   int64_t n, float *scratch) {
    for (int64_t i = 0; i < n_heads * n; i++) {
        query x = {args, head + i / n, row + i % n};
        attend_row(&x, scratch);
    }
}

static void add_softmax(float *total, float *scores, int64_t n) {
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, scores[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(scores[i] - largest);
    for (int64_t i = 0; i < n; i++) total[i] += (float)(exp(scores[i] - largest) / sum);
}

/* Weights of a group's members, which sum to 1; unused for CCA_POOL_MAX. */
static void pool_weights(float *w, const cca_pool_args *args, int64_t head, int64_t group,
                         float *k) {
    const cca_rows *raw = &args->groups->raw;
    int64_t hd = raw->head_dim, g = args->groups->size, last = group * g + g - 1;
    const float *q = args->q + ((last - args->pos) * args->n_heads + head) * hd;
    int64_t kv_head = head / (args->n_heads / raw->heads);
    double largest = -INFINITY, total = 0;
    for (int64_t i = 0; i < g; i++) {
        int64_t row = cca_rows_at(raw, group * g + i);
        decode(k, raw->k_type, cca_row_at(raw->k, raw->k_type, raw, kv_head, row), hd);
        double score =
            args->groups->pooling == CCA_POOL_QUERY ? dot_one(q, k, hd) / sqrt((double)hd) : 0;
        w[i] = (float)score;
        largest = fmax(largest, score);
    }
    for (int64_t i = 0; i < g; i++) total += exp(w[i] - largest);
    for (int64_t i = 0; i < g; i++) w[i] = (float)(exp(w[i] - largest) / total);
}

/* NaN is larger than any number. */
static float larger(float a, float b) {
    return b > a || isnan(b) ? b : a;
}

static void pool_rows(float *out, const float *w, const void *rows, cca_dtype type,
                      const cca_pool_args *args, int64_t head, int64_t group, float *row) {
    const cca_rows *raw = &args->groups->raw;
    int64_t hd = raw->head_dim, g = args->groups->size;
    bool max = args->groups->pooling == CCA_POOL_MAX;
    for (int64_t d = 0; d < hd; d++) out[d] = max ? -INFINITY : 0;
    for (int64_t i = 0; i < g; i++) {
        int64_t at = cca_rows_at(raw, group * g + i);
        decode(row, type, cca_row_at(rows, type, raw, head / (args->n_heads / raw->heads), at), hd);
        for (int64_t d = 0; d < hd; d++) {
            out[d] = max ? larger(out[d], row[d]) : out[d] + w[i] * row[d];
        }
    }
}

static void pool(const cca_pool_args *args, int64_t head, int64_t group, float *scratch) {
    const cca_rows *raw = &args->groups->raw, *cores = &args->groups->cores;
    int64_t hd = raw->head_dim, g = args->groups->size;
    float *w = scratch, *row = scratch + g, *core = row + hd;
    pool_weights(w, args, head, group, row);
    pool_rows(core, w, raw->k, raw->k_type, args, head, group, row);
    encode((void *)cca_row_at(cores->k, cores->k_type, cores, head, group), cores->k_type, core,
           hd);
    pool_rows(core, w, raw->v, raw->v_type, args, head, group, row);
    encode((void *)cca_row_at(cores->v, cores->v_type, cores, head, group), cores->v_type, core,
           hd);
}

static double spin(float *sink, cca_peak kind, int64_t turns) {
    (void)turns;
    (void)kind;
    sink[0] = 0;
    return 0;
}

static const cca_products *products(cca_dtype type) {
    static const cca_products all = {x_bytes,  NULL, panel_bytes,  pack,
                                     multiply, dot,  CCA_PEAK_F32, false};
    (void)type;
    return &all;
}

const cca_kernels cca_kernels_plain = {
    .name = "plain",
    .decode = decode,
    .encode = encode,
    .products = products,
    .few = products,
    .rmsnorm = rmsnorm,
    .swiglu = swiglu,
    .attend = attend,
    .add_softmax = add_softmax,
    .pool = pool,
    .spin = spin,
};
