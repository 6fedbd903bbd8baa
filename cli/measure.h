/* What measuring commands share: lists of sizes, clocks, statistics of repeated times.
 *
 *     size_list depths = {0};
 *     size_list_parse(&depths, "depth", "8192,0", &err);    // 0, 8192
 *     double begin = measure_seconds(MEASURE_WALL);
 *     ... seconds[i] = measure_seconds(MEASURE_WALL) - begin ...
 *     measure_stats s = measure_stats_of(seconds, n, tokens); */
#ifndef CCA_CLI_MEASURE_H
#define CCA_CLI_MEASURE_H

#include "engine.h"

enum { SIZE_LIST_MOST = 64 };

typedef struct size_list {
    int64_t sizes[SIZE_LIST_MOST]; /* ascending */
    int n;
} size_list;

/* Numbers "512,2048" of tokens, put into order; option names them in messages. CCA_USAGE for
 * anything else. */
cca_status size_list_parse(size_list *out, const char *option, const char *text, cca_error *err);
/* The last of a list that has any. */
int64_t size_list_largest(const size_list *list);

#define MEASURE_CLOCKS "wall|cpu"

/* wall goes by the clock, cpu is the process's time on all processors. */
typedef enum measure_clock { MEASURE_WALL, MEASURE_CPU } measure_clock;

/* Of one of MEASURE_CLOCKS. */
measure_clock measure_clock_of(const char *name);
double measure_seconds(measure_clock clock);

/* Evaluates n ids, together or one by one, and makes the last one's logits (each one's where they
 * go one by one, as generating does). */
cca_status measure_eval(cca_session *session, const int32_t *ids, int64_t n, bool one_by_one,
                        const cca_eval_options *options, cca_error *err);

/* Tokens a second over the repetitions; sd is the sample's standard deviation, 0 for one. */
typedef struct measure_stats {
    int64_t n;
    double median, mean, sd;
} measure_stats;

/* Of n ≥ 1 times for the same number of tokens. Sorts seconds. */
measure_stats measure_stats_of(double *seconds, int64_t n, int64_t tokens);

#endif
