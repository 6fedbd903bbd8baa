#include "cli/measure.h"

#include "base/clock.h"
#include "cli/args.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_sizes(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

cca_status size_list_parse(size_list *out, const char *option, const char *text, cca_error *err) {
    for (const char *at = text;; at++) {
        char number[24];
        size_t size = strcspn(at, ",");
        snprintf(number, sizeof number, "%.*s", (int)cca_min((int64_t)size, 23), at);
        int64_t *next = &out->sizes[out->n];
        if (out->n == SIZE_LIST_MOST || size >= sizeof number || !args_int(next, number) ||
            *next < 0 || *next > INT32_MAX / 4) {
            return cca_fail(err, CCA_USAGE,
                            "--%s %s: up to %d numbers of tokens, separated by commas, expected",
                            option, text, SIZE_LIST_MOST);
        }
        out->n++;
        at += size;
        if (*at == '\0') break;
    }
    qsort(out->sizes, (size_t)out->n, sizeof *out->sizes, compare_sizes);
    return CCA_OK;
}

int64_t size_list_largest(const size_list *list) {
    return list->sizes[list->n - 1];
}

measure_clock measure_clock_of(const char *name) {
    return strcmp(name, "cpu") == 0 ? MEASURE_CPU : MEASURE_WALL;
}

double measure_seconds(measure_clock clock) {
    return clock == MEASURE_CPU ? cca_cpu_seconds() : cca_seconds();
}

cca_status measure_eval(cca_session *session, const int32_t *ids, int64_t n, bool one_by_one,
                        const cca_eval_options *options, cca_error *err) {
    int64_t step = one_by_one ? 1 : n;
    cca_status status = CCA_OK;
    for (int64_t done = 0; !status && done < n; done += step) {
        status = cca_session_eval(session, ids + done, step, options, err);
        if (!status && !cca_session_logits(session, err)) status = err->status;
    }
    return status;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

measure_stats measure_stats_of(double *seconds, int64_t n, int64_t tokens) {
    measure_stats s = {.n = n};
    double squares = 0, middle;
    qsort(seconds, (size_t)n, sizeof *seconds, compare_doubles);
    middle = n % 2 != 0 ? seconds[n / 2] : (seconds[n / 2 - 1] + seconds[n / 2]) / 2;
    s.median = (double)tokens / fmax(middle, 1e-9);
    for (int64_t i = 0; i < n; i++) s.mean += (double)tokens / fmax(seconds[i], 1e-9);
    s.mean /= (double)n;
    for (int64_t i = 0; i < n; i++) {
        double off = (double)tokens / fmax(seconds[i], 1e-9) - s.mean;
        squares += off * off;
    }
    if (n > 1) s.sd = sqrt(squares / (double)(n - 1));
    return s;
}
