/* The points of a sweep: what its lists and the model say. */
#include "cli/tune/tune.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is tried where no list is given: pooling suits weights by how they were trained, recall
 * works with any. */
static const char *const tuned_groups = "2,4,8,16,32,64", *const tuned_windows =
                                                              "64,128,256,512,1024";
static const char *const other_recalls = "0,1024,2048,4096";

typedef struct sweep {
    size_list group, window, recall, cores; /* cores: 0, 1 */
    bool recall_given;                      /* else it is rounded up to groups */
    tune_point own;                         /* what the model says */
    const tune_settings *settings;
    const cca_engine *engine;
    term *term;
    tune_point *points;
    size_t n;
} sweep;

void tune_point_name(char out[TUNE_NAME], const tune_point *p) {
    if (tune_is_full(p)) {
        snprintf(out, TUNE_NAME, "full attention");
        return;
    }
    int n = snprintf(out, TUNE_NAME, "g %lld, s %lld", (long long)p->group_size,
                     (long long)p->window_size);
    if (p->recall == 0) return;
    snprintf(out + n, (size_t)(TUNE_NAME - n), ", recall %lld, %s", (long long)p->recall,
             p->cores ? "cores" : "no cores");
}

bool tune_same_point(const tune_point *a, const tune_point *b) {
    return a->group_size == b->group_size && a->window_size == b->window_size &&
           a->sinks == b->sinks && a->recall == b->recall && a->cores == b->cores;
}

context_options tune_context(const tune_settings *s, const tune_point *p) {
    context_options c = cli_with_attn(&s->context, tune_is_full(p) ? "full"
                                                   : p->recall > 0 ? "recall"
                                                                   : "cca");
    c.recall_tile = -1;
    c.group_size = p->group_size;
    c.window_size = p->window_size;
    c.mem_limit = 0; /* has decided already whether the point is measured */
    if (tune_is_full(p)) return c;
    c.sinks = p->sinks;
    c.recall = p->recall > 0 ? p->recall : -1;
    c.cores = p->cores;
    c.no_cores = !p->cores;
    return c;
}

/* ---- one point ---- */

static bool is_whole(const sweep *w, const tune_point *p, const char *what, int64_t tokens) {
    char name[TUNE_NAME];
    const int64_t g = cca_max(p->group_size, 1); /* of full attention there is none */
    if (tokens <= 0 || tokens % g == 0) return true;
    tune_point_name(name, p);
    term_note(w->term, "%s: left out, %s is no multiple of g", name, what);
    return false;
}

static void add_point(sweep *w, tune_point p) {
    const context_options *given = &w->settings->context;
    if (!tune_is_full(&p)) {
        const int64_t g = cca_max(p.group_size, 1);
        if (p.recall == 0) p.cores = true; /* else it were a window alone */
        if (!w->recall_given) p.recall = (p.recall + g - 1) / g * g;
        if (!is_whole(w, &p, "s", p.window_size) || !is_whole(w, &p, "recall", p.recall) ||
            !is_whole(w, &p, "--sinks", given->sinks)) {
            return;
        }
        context_options sized = tune_context(w->settings, &p);
        sized.sinks = given->sinks;
        p.sinks = cli_attention(&sized, w->engine).sinks;
    }
    for (size_t i = 0; i < w->n; i++) {
        if (tune_same_point(&w->points[i], &p)) return;
    }
    w->points[w->n++] = p;
}

/* ---- all of them ---- */

static int compare_numbers(int64_t a, int64_t b) {
    return (a > b) - (a < b);
}

static int compare_points(const void *a, const void *b) {
    const tune_point *x = a, *y = b;
    int by = compare_numbers(x->group_size, y->group_size);
    if (by == 0) by = compare_numbers(x->window_size, y->window_size);
    if (by == 0) by = compare_numbers(x->recall, y->recall);
    return by ? by : y->cores - x->cores;
}

static void add_grid(sweep *w) {
    tune_point p = w->own;
    p.own = false;
    for (int g = 0; g < w->group.n; g++) {
        p.group_size = w->group.sizes[g];
        for (int s = 0; s < w->window.n; s++) {
            p.window_size = w->window.sizes[s];
            for (int r = 0; r < w->recall.n; r++) {
                p.recall = w->recall.sizes[r];
                for (int c = 0; c < w->cores.n; c++) {
                    p.cores = w->cores.sizes[c] != 0;
                    add_point(w, p);
                }
            }
        }
    }
}

static void add_cross(sweep *w) {
    tune_point own = w->own;
    own.own = false;
    for (int i = 0; i < SIZE_LIST_MOST; i++) {
        tune_point g = own, s = own, r = own, c = own;
        if (i < w->group.n) g.group_size = w->group.sizes[i];
        if (i < w->window.n) s.window_size = w->window.sizes[i];
        if (i < w->recall.n) r.recall = w->recall.sizes[i];
        if (i < w->cores.n) c.cores = w->cores.sizes[i] != 0;
        const tune_point all[] = {g, s, r, c};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) add_point(w, all[k]);
    }
}

/* ---- lists ---- */

/* A list that is not given, nor tried unless told otherwise, is the model's own value. */
static cca_status read_list(size_list *out, const char *option, const char *given,
                            const char *initial, int64_t own, cca_error *err) {
    if (given || initial) return size_list_parse(out, option, given ? given : initial, err);
    *out = (size_list){.sizes = {own}, .n = 1};
    return CCA_OK;
}

static cca_status read_lists(sweep *w, const tune_lists *l, cca_error *err) {
    bool none = !l->groups && !l->windows && !l->recalls && !l->cores;
    bool tuned = none && cca_engine_info(w->engine)->tuned, other = none && !tuned;
    const char *cores = l->cores ? l->cores : other ? "both" : w->own.cores ? "yes" : "no";
    const char *values = cores[0] == 'b' ? "0,1" : cores[0] == 'y' ? "1" : "0";
    w->recall_given = l->recalls != NULL;
    cca_status status = read_list(&w->group, "group-size", l->groups, tuned ? tuned_groups : NULL,
                                  w->own.group_size, err);
    if (!status) {
        status = read_list(&w->window, "window", l->windows, tuned ? tuned_windows : NULL,
                           w->own.window_size, err);
    }
    if (!status) {
        status = read_list(&w->recall, "recall", l->recalls, other ? other_recalls : NULL,
                           w->own.recall, err);
    }
    if (!status) status = read_list(&w->cores, "cores", values, NULL, 0, err);
    if (status) return status;
    if (w->group.sizes[0] == 0 || w->window.sizes[0] == 0) {
        return cca_fail(err, CCA_USAGE, "--group-size and --window: sizes from 1 on expected");
    }
    return CCA_OK;
}

static tune_point own_point(const tune_settings *s, const cca_engine *engine) {
    context_options c = s->context;
    c.attn = "auto";
    c.sinks = -1;
    c.recall = c.recall_tile = -1;
    cca_attention_settings a = cli_attention(&c, engine);
    return (tune_point){.group_size = a.group_size,
                        .window_size = a.window_size,
                        .recall = a.recall,
                        .cores = a.cores,
                        .own = true};
}

cca_status tune_make_points(tune_point **out, size_t *n, const tune_lists *lists,
                            const tune_settings *settings, const cca_engine *engine, term *t,
                            cca_error *err) {
    sweep w = {.settings = settings, .engine = engine, .term = t};
    w.own = own_point(settings, engine);
    cca_status status = read_lists(&w, lists, err);
    if (status) return status;
    size_t most = 2 + 4 * SIZE_LIST_MOST;
    if (!lists->cross) {
        most = 2 + (size_t)w.group.n * (size_t)w.window.n * (size_t)w.recall.n * (size_t)w.cores.n;
    }
    w.points = calloc(most, sizeof *w.points);
    if (!w.points) return cca_fail(err, CCA_NO_MEMORY, "no memory for the points");
    if (lists->full) add_point(&w, (tune_point){0});
    add_point(&w, w.own);
    if (lists->cross) {
        add_cross(&w);
    } else {
        add_grid(&w);
    }
    qsort(w.points, w.n, sizeof *w.points, compare_points);
    *out = w.points;
    *n = w.n;
    return CCA_OK;
}
