/* The operations on the CPU: work is cut into pieces whose results do not depend on the number
 * of threads, and each piece is a kernel call. */
#include "backend_cpu.h"

#include "kernels/kernels.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    ROWS = 32,      /* weight rows of a piece of a product */
    DEPTH = 512,    /* columns taken at a time: ROWS × DEPTH floats stay in the L2 cache */
    TOKENS = 96,    /* tokens taken at a time, likewise */
    ALIGNMENT = 64, /* of all memory, in bytes */
    FEW = 8,        /* tokens below which f32 weights are not worth copying into a dense panel */
    MAX_THREADS = 1024,
    SMALL_WORK = 1 << 14, /* operations below which waking other threads costs more */
};

typedef struct cpu_backend {
    cca_backend base;
    const cca_kernels *kernels;
    int n_threads;
    float *scratch; /* n_threads times scratch_floats */
    size_t scratch_floats;
} cpu_backend;

static cpu_backend *cpu_of(cca_backend *b) {
    return (cpu_backend *)b;
}

static bool stopped(const cca_backend *b) {
    return b->stop && *b->stop;
}

static int threads_for(const cpu_backend *b, int64_t work) {
    return work < SMALL_WORK ? 1 : b->n_threads;
}

/* calloc leaves large blocks unmapped until they are touched, so a cache costs memory as it
 * fills. The original address is kept in front of the aligned one. */
static void *cpu_alloc(cca_backend *b, size_t bytes) {
    size_t padded;
    char *raw = cca_add(&padded, bytes, 2 * ALIGNMENT) ? calloc(1, padded) : NULL;
    if (!raw) {
        cca_backend_fail(b, CCA_NO_MEMORY, "no memory for %zu bytes", bytes);
        return NULL;
    }
    char *aligned = raw + ALIGNMENT + (ALIGNMENT - (uintptr_t)raw % ALIGNMENT) % ALIGNMENT;
    memcpy(aligned - sizeof raw, &raw, sizeof raw);
    return aligned;
}

static void cpu_release(cca_backend *b, void *data) {
    (void)b;
    char *raw;
    memcpy(&raw, (char *)data - sizeof raw, sizeof raw);
    free(raw);
}

static void cpu_destroy(cca_backend *b) {
    cca_backend_release(b, cpu_of(b)->scratch);
    free(b);
}

/* Scratch memory of each thread; grows at a new shape only, so decode allocates nothing. */
static bool reserve(cpu_backend *b, int64_t floats) {
    size_t each = ((size_t)floats + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (each <= b->scratch_floats) return true;
    cca_backend_release(&b->base, b->scratch);
    b->scratch_floats = 0;
    b->scratch = cca_backend_alloc(&b->base, each * (size_t)b->n_threads * sizeof *b->scratch);
    if (b->scratch) b->scratch_floats = each;
    return b->scratch != NULL;
}

static float *scratch_of(const cpu_backend *b) {
    return b->scratch + (size_t)omp_get_thread_num() * b->scratch_floats;
}

static void *cpu_load(cca_backend *b, const void *host, size_t bytes, bool *owned) {
    (void)b;
    (void)bytes;
    *owned = false;
    return (void *)host;
}

static void cpu_upload(cca_backend *b, void *out, const void *host, size_t bytes) {
    (void)b;
    memcpy(out, host, bytes);
}

static void cpu_download(cca_backend *b, void *host, const void *data, size_t bytes) {
    (void)b;
    memcpy(host, data, bytes);
}

static cca_status cpu_sync(cca_backend *b, cca_error *err) {
    (void)b;
    (void)err;
    return CCA_OK;
}

static float *row_of(const cca_matrix *m, int64_t row) {
    return (float *)m->data + row * m->cols;
}

static const char *weight_at(const cca_matrix *w, int64_t row, int64_t col) {
    size_t row_bytes = 0, col_bytes = 0;
    cca_dtype_row_bytes(&row_bytes, w->type, w->cols);
    cca_dtype_row_bytes(&col_bytes, w->type, col);
    return (const char *)w->data + (size_t)row * row_bytes + col_bytes;
}

static void cpu_embed(cca_backend *b, cca_matrix *out, const cca_matrix *table, const int32_t *ids,
                      int64_t n) {
    const cpu_backend *cpu = cpu_of(b);
#pragma omp parallel for num_threads(threads_for(cpu, n * table->cols))
    for (int64_t i = 0; i < n; i++) {
        cpu->kernels->decode(row_of(out, i), table->type, weight_at(table, ids[i], 0), table->cols);
    }
}

static void cpu_rmsnorm(cca_backend *b, cca_matrix *out, const cca_matrix *x, int64_t x_row,
                        const cca_matrix *weight, float eps, int64_t n) {
    const cpu_backend *cpu = cpu_of(b);
#pragma omp parallel for num_threads(threads_for(cpu, n * 2 * x->cols))
    for (int64_t i = 0; i < n; i++) {
        cpu->kernels->rmsnorm(row_of(out, i), row_of(x, x_row + i), weight->data, eps, x->cols);
    }
}

/* Rows row … row + n_rows - 1 of the weight against all n tokens. */
static void multiply_piece(const cpu_backend *b, const cca_product *p, const cca_matrix *x,
                           int64_t n, int64_t row, int64_t n_rows, float *panel) {
    int64_t cols = x->cols, ld = p->out->cols;
    float *out = (float *)p->out->data + row;
    for (int64_t i = 0; !p->accumulate && i < n; i++) {
        memset(out + i * ld, 0, (size_t)n_rows * sizeof *out);
    }
    for (int64_t i = 0; p->bias && i < n; i++) {
        const float *bias = (const float *)p->bias->data + row;
        for (int64_t r = 0; r < n_rows; r++) out[i * ld + r] += bias[r];
    }
    for (int64_t c = 0; c < cols; c += DEPTH) {
        int64_t depth = cca_min(DEPTH, cols - c), ldw = DEPTH;
        const float *w = panel;
        if (p->weight->type == CCA_F32 && n < FEW) {
            w = (const float *)weight_at(p->weight, row, c);
            ldw = cols;
        }
        for (int64_t r = 0; w == panel && r < n_rows; r++) {
            const char *in = weight_at(p->weight, row + r, c);
            b->kernels->decode(panel + r * DEPTH, p->weight->type, in, depth);
        }
        for (int64_t i = 0; i < n; i += TOKENS) {
            b->kernels->dot_tile(out + i * ld, ld, row_of(x, i) + c, cols, cca_min(TOKENS, n - i),
                                 w, ldw, n_rows, depth);
        }
    }
}

/* Pieces of all products form one list. */
static void cpu_matmul(cca_backend *b, const cca_product *products, int n_products,
                       const cca_matrix *x, int64_t n) {
    const cpu_backend *cpu = cpu_of(b);
    if (!reserve(cpu_of(b), ROWS * DEPTH)) return;
    int64_t n_pieces = 0, work = 0;
    for (int p = 0; p < n_products; p++) {
        n_pieces += (products[p].weight->rows + ROWS - 1) / ROWS;
        work += n * products[p].weight->rows * x->cols;
    }
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(cpu, work))
    for (int64_t piece = 0; piece < n_pieces; piece++) {
        if (stopped(b)) continue;
        const cca_product *p = products;
        int64_t row = piece * ROWS;
        while (row >= (p->weight->rows + ROWS - 1) / ROWS * ROWS) {
            row -= (p->weight->rows + ROWS - 1) / ROWS * ROWS;
            p++;
        }
        int64_t n_rows = cca_min(ROWS, p->weight->rows - row);
        multiply_piece(cpu, p, x, n, row, n_rows, scratch_of(cpu));
    }
}

static void cpu_angles(cca_backend *b, cca_matrix *out, const cca_rope *rope, int64_t pos,
                       int64_t n) {
#pragma omp parallel for num_threads(threads_for(cpu_of(b), n * rope->half * 32))
    for (int64_t i = 0; i < n; i++) {
        float *row = row_of(out, i);
        for (int64_t k = 0; k < rope->half; k++) {
            double angle = (double)(pos + i) * rope->inv_freq[k];
            row[2 * k] = (float)(cos(angle) * rope->scale);
            row[2 * k + 1] = (float)(sin(angle) * rope->scale);
        }
    }
}

static void cpu_rotate(cca_backend *b, cca_matrix *x, const cca_matrix *angles,
                       const cca_rope *rope, int64_t n) {
    int64_t n_heads = x->cols / (2 * rope->half);
#pragma omp parallel for num_threads(threads_for(cpu_of(b), n * x->cols * 3))
    for (int64_t i = 0; i < n; i++) {
        cca_rotate_row(row_of(x, i), row_of(angles, i), n_heads, rope->half, rope->interleaved);
    }
}

static void cpu_swiglu(cca_backend *b, cca_matrix *gate, const cca_matrix *up, int64_t n) {
    const cpu_backend *cpu = cpu_of(b);
#pragma omp parallel for num_threads(threads_for(cpu, n * up->cols * 8))
    for (int64_t i = 0; i < n; i++) {
        cpu->kernels->swiglu(row_of(gate, i), row_of(up, i), up->cols);
    }
}

static void cpu_store(cca_backend *b, cca_rows *rows, const cca_matrix *k, const cca_matrix *v,
                      int64_t pos, int64_t n) {
    const cpu_backend *cpu = cpu_of(b);
    int64_t hd = rows->head_dim;
#pragma omp parallel for num_threads(threads_for(cpu, n * k->cols * 2))
    for (int64_t i = 0; i < n; i++) {
        int64_t row = cca_rows_at(rows, pos + i);
        for (int64_t h = 0; h < rows->heads; h++) {
            cpu->kernels->encode((void *)cca_row_at(rows->k, rows->k_type, rows, h, row),
                                 rows->k_type, row_of(k, i) + h * hd, hd);
            cpu->kernels->encode((void *)cca_row_at(rows->v, rows->v_type, rows, h, row),
                                 rows->v_type, row_of(v, i) + h * hd, hd);
        }
    }
}

static void copy_rows(void *out, const cca_rows *out_rows, const void *in, const cca_rows *in_rows,
                      cca_dtype type, int64_t pos, int64_t n, int64_t head) {
    size_t width = 0;
    cca_dtype_row_bytes(&width, type, out_rows->head_dim);
    for (int64_t end = pos + n, run; pos < end; pos += run) {
        run = cca_min(cca_min(end - pos, cca_rows_run(out_rows, pos)), cca_rows_run(in_rows, pos));
        memcpy((void *)cca_row_at(out, type, out_rows, head, cca_rows_at(out_rows, pos)),
               cca_row_at(in, type, in_rows, head, cca_rows_at(in_rows, pos)), (size_t)run * width);
    }
}

static void cpu_move(cca_backend *b, cca_rows *out, const cca_rows *in, int64_t pos, int64_t n) {
#pragma omp parallel for num_threads(threads_for(cpu_of(b), n * out->heads * out->head_dim))
    for (int64_t h = 0; h < out->heads; h++) {
        copy_rows(out->k, out, in->k, in, out->k_type, pos, n, h);
        copy_rows(out->v, out, in->v, in, out->v_type, pos, n, h);
    }
}

static void cpu_pool(cca_backend *b, cca_keys *keys, const cca_matrix *q, cca_pooling pooling,
                     int64_t pos, int64_t n) {
    const cpu_backend *cpu = cpu_of(b);
    int64_t first, count = cca_rule_completed(&keys->rule, pos, n, &first);
    int64_t n_heads = keys->far.heads, hd = keys->far.head_dim, g = keys->rule.group_size;
    if (!reserve(cpu_of(b), cca_pool_scratch(g, hd))) return;
    cca_pool_args args = {keys, q->data, pooling, n_heads, pos};
#pragma omp parallel for num_threads(threads_for(cpu, count *n_heads *g *hd * 4))
    for (int64_t i = 0; i < count * n_heads; i++) {
        cpu->kernels->pool(&args, i % n_heads, first + i / n_heads, scratch_of(cpu));
    }
}

static void cpu_attend(cca_backend *b, cca_matrix *out, const cca_keys *keys, const cca_matrix *q,
                       int64_t pos, int64_t n) {
    const cpu_backend *cpu = cpu_of(b);
    int64_t hd = keys->raw.head_dim, n_heads = q->cols / hd;
    int64_t n_tiles = (n + CCA_TILE_Q - 1) / CCA_TILE_Q;
    if (!reserve(cpu_of(b), cca_attend_scratch(hd))) return;
    cca_attend_args args = {keys, q->data, out->data, n_heads, pos};
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(cpu, n * q->cols * (pos + n)))
    for (int64_t i = 0; i < n_heads * n_tiles; i++) {
        if (stopped(b)) continue;
        int64_t row = i / n_heads * CCA_TILE_Q;
        cpu->kernels->attend(&args, i % n_heads, row, cca_min(CCA_TILE_Q, n - row),
                             scratch_of(cpu));
    }
}

static const cca_ops cpu_ops = {
    .name = "cpu",
    .destroy = cpu_destroy,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .load = cpu_load,
    .upload = cpu_upload,
    .download = cpu_download,
    .sync = cpu_sync,
    .embed = cpu_embed,
    .rmsnorm = cpu_rmsnorm,
    .matmul = cpu_matmul,
    .angles = cpu_angles,
    .rotate = cpu_rotate,
    .swiglu = cpu_swiglu,
    .store = cpu_store,
    .move = cpu_move,
    .pool = cpu_pool,
    .attend = cpu_attend,
};

/* The first of a core's hardware threads, from sysfs; the CPU itself where that is unknown. */
static int first_sibling(int cpu) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "r");
    if (!file) return cpu;
    int first = cpu;
    if (fscanf(file, "%d", &first) != 1) first = cpu;
    fclose(file);
    return first;
}

int cca_cpu_physical_cores(void) {
    cpu_set_t allowed, cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        int first = first_sibling(cpu);
        if (first >= 0 && first < CPU_SETSIZE) CPU_SET(first, &cores);
    }
    int n = CPU_COUNT(&cores);
    return n > 0 ? n : 1;
}

cca_status cca_backend_cpu_with(cca_backend **out, const cca_backend_options *options,
                                const cca_kernels *kernels, cca_error *err) {
    *out = NULL;
    if (options->n_threads < 0 || options->n_threads > MAX_THREADS) {
        return cca_fail(err, CCA_USAGE, "threads: %d is outside 1 … %d", options->n_threads,
                        MAX_THREADS);
    }
    cpu_backend *b = calloc(1, sizeof *b);
    if (!b) return cca_fail(err, CCA_NO_MEMORY, "no memory for the CPU backend");
    b->base.ops = &cpu_ops;
    b->base.stop = options->stop;
    b->kernels = kernels;
    b->n_threads = options->n_threads ? options->n_threads : cca_cpu_physical_cores();
    *out = &b->base;
    return CCA_OK;
}

cca_status cca_backend_cpu(cca_backend **out, const cca_backend_options *options, cca_error *err) {
    return cca_backend_cpu_with(out, options, cca_kernels_best(), err);
}
