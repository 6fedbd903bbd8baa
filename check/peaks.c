#include "check/peaks.h"

#include "backend/cpu/kernels.h"
#include "base/workers.h"

#include <stdlib.h>

enum {
    TURNS = 1 << 16,     /* of a loop over registers: some milliseconds */
    ROUNDS = 16,         /* measurements, of which the fastest counts */
    READ_PIECE = 1 << 16 /* bytes */
};

static const size_t LEAST_READ = (size_t)4 << 20, MOST_READ = (size_t)256 << 20;
static const size_t READ_ALL = (size_t)1 << 30; /* in all rounds, of which the fastest counts */

typedef double (*clock_of)(void);

typedef struct spin_job {
    const cca_kernels *kernels;
    cca_peak kind;
    double operations; /* of one piece */
} spin_job;

static void run_spin(void *context, int64_t piece, int thread) {
    spin_job *j = context;
    float sink[CCA_SPIN_SINK];
    (void)thread;
    double operations = j->kernels->spin(sink, j->kind, TURNS);
    if (piece == 0) j->operations = operations;
}

/* Four pieces a thread, so that no thread idles for long where one is held up. */
static double measure_spin(cca_workers *workers, cca_peak kind, clock_of seconds) {
    spin_job j = {cca_kernels_best(), kind, 0};
    int64_t n = 4 * (int64_t)cca_workers_count(workers);
    double best = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double begin = seconds();
        cca_workers_run(workers, n, run_spin, &j);
        double rate = (double)n * j.operations / (seconds() - begin);
        best = rate > best ? rate : best;
        if (rate == 0) break;
    }
    return best;
}

typedef struct read_job {
    const uint64_t *memory;
    uint64_t *sum; /* of each piece */
} read_job;

static void run_read(void *context, int64_t piece, int thread) {
    read_job *j = context;
    const uint64_t *from = j->memory + piece * (READ_PIECE / 8);
    uint64_t sum = 0;
    (void)thread;
    for (int64_t i = 0; i < READ_PIECE / 8; i++) sum += from[i];
    j->sum[piece] = sum;
}

static double measure_read(cca_workers *workers, read_job *j, size_t bytes, clock_of seconds) {
    double best = 0;
    for (size_t done = 0; done < READ_ALL; done += bytes) {
        double begin = seconds();
        cca_workers_run(workers, (int64_t)(bytes / READ_PIECE), run_read, j);
        double rate = (double)bytes / (seconds() - begin);
        best = rate > best ? rate : best;
    }
    return best;
}

cca_status cca_peaks_measure(cca_peaks *out, int n_threads, size_t read_bytes,
                             double (*seconds)(void), cca_error *err) {
    *out = (cca_peaks){0};
    size_t bytes = read_bytes < LEAST_READ ? LEAST_READ : read_bytes;
    bytes = (bytes < MOST_READ ? bytes : MOST_READ) / READ_PIECE * READ_PIECE;
    cca_workers *workers = cca_workers_new(n_threads);
    char *memory = malloc(bytes);
    uint64_t *sums = malloc(bytes / READ_PIECE * sizeof *sums);
    cca_status status = CCA_OK;
    if (workers && memory && sums) {
        memset(memory, 1, bytes); /* pages of their own, not the one zero page */
        out->f32 = measure_spin(workers, CCA_PEAK_F32, seconds);
        out->bf16 = measure_spin(workers, CCA_PEAK_BF16, seconds);
        out->bytes = measure_spin(workers, CCA_PEAK_BYTES, seconds);
        out->read = measure_read(workers, &(read_job){(void *)memory, sums}, bytes, seconds);
    } else {
        status = cca_fail(err, CCA_NO_MEMORY, "no memory to measure peaks with");
    }
    free(sums);
    free(memory);
    cca_workers_free(workers);
    return status;
}

double cca_peaks_of_products(const cca_peaks *p, const char *weight_type) {
    cca_dtype type;
    if (!cca_dtype_parse(&type, weight_type)) return p->f32;
    switch (cca_kernels_best()->products(type)->peak) {
    case CCA_PEAK_BYTES: return p->bytes;
    case CCA_PEAK_BF16: return p->bf16;
    case CCA_PEAK_F32: break;
    }
    return p->f32;
}
