/* What cca bench measured, and its reports.
 *
 *     bench_report_print(&out, &report, BENCH_MD); */
#ifndef CCA_CLI_BENCH_H
#define CCA_CLI_BENCH_H

#include "check/peaks.h"
#include "cli/cli.h"
#include "cli/measure.h"

typedef enum bench_test { BENCH_PREFILL, BENCH_DECODE, BENCH_WALK } bench_test;
typedef enum bench_format { BENCH_MD, BENCH_CSV, BENCH_JSON } bench_format;

/* One line: n tokens behind depth others. A walk is all tokens up to the next depth, from the
 * first on, as one prefill in pieces takes them. */
typedef struct bench_row {
    bench_test test;
    int64_t n, depth;
    const char *attn, *kernels;
    measure_stats tok_s;
    uint64_t kv_bytes;        /* cache in use at the end */
    cca_work work;            /* of all n */
    double seconds;           /* for them, at the median */
    double operations, bytes; /* a second */
    double share;             /* of what the peaks would allow; 0: not known */
} bench_row;

typedef struct bench_report {
    const cca_engine_facts *facts;
    const context_options *context;
    int64_t group_size, window_size;
    const char *clock;
    bool has_peaks;
    cca_peaks peaks;
    bench_row *rows;
    size_t n, capacity;
    json_t *ranks; /* of the last session; NULL: [] */
} bench_report;

/* The shares of all rows: of a decode the bandwidth for weights and cache; of a prefill the time
 * that its products would take at the peak of the weights' instruction and its attention at that of
 * the cache's type. A row that was faster than the loops of the peaks raises these: a peak is the
 * fastest that was seen. */
void bench_shares(bench_report *r);

const char *bench_test_name(bench_test test);

void bench_report_print(output *out, const bench_report *r, bench_format format);

/* Curves of tokens a second against depth, both logarithmic: one of prefill, one of decode for
 * each attention. */
void bench_report_svg(output *out, const bench_report *r);

#endif
