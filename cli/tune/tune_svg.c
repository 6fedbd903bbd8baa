/* The picture of cca tune: perplexity and facts against cache, a curve a window. Points that differ
 * in recall have the same cache: they stand against time, a curve for each of the others. */
#include "cli/svg.h"
#include "cli/tune/tune.h"

#include <math.h>
#include <stdio.h>

enum { WIDTH = 900, LEFT = 70, RIGHT = 720, TOP = 40, PANEL = 300, GAP = 70 };

typedef enum measure { PERPLEXITY, FACTS } measure;

typedef struct panel {
    const tune_report *r;
    measure what;
    bool by_time;
    svg_scale x, y;
} panel;

static double value_of(const tune_point *p, measure what) {
    return what == PERPLEXITY ? p->perplexity : tune_facts_percent(p);
}

static bool is_drawn(const tune_point *p) {
    return p->measured && p->cache_bytes > 0;
}

static bool differ_in_recall(const tune_report *r) {
    int64_t recall = -1;
    for (size_t i = 0; i < r->n; i++) {
        const tune_point *p = &r->points[i];
        if (!is_drawn(p) || tune_is_full(p)) continue;
        if (recall >= 0 && p->recall != recall) return true;
        recall = p->recall;
    }
    return false;
}

static double cost_of(const panel *p, const tune_point *point) {
    return p->by_time ? point->seconds : (double)point->cache_bytes;
}

static panel make_panel(const tune_report *r, measure what, int top) {
    panel p = {.r = r,
               .what = what,
               .by_time = differ_in_recall(r),
               .x = {.from = LEFT, .to = RIGHT, .is_log = true, .low = INFINITY, .high = 0},
               .y = {.from = top + PANEL, .to = top, .low = INFINITY, .high = -INFINITY}};
    for (size_t i = 0; i < r->n; i++) {
        if (!is_drawn(&r->points[i])) continue;
        double value = value_of(&r->points[i], what), cost = cost_of(&p, &r->points[i]);
        p.x.low = fmin(p.x.low, cost / 1.1);
        p.x.high = fmax(p.x.high, cost * 1.1);
        p.y.low = fmin(p.y.low, value);
        p.y.high = fmax(p.y.high, value);
    }
    if (p.x.low > p.x.high) p.x.low = 1, p.x.high = 2, p.y.low = 0, p.y.high = 1;
    return p;
}

/* Sizes of 1, 2, 5, 10 … bytes, or such numbers of seconds, that lie within the scale. */
static void draw_costs(output *out, const panel *p) {
    static const int digits[] = {1, 2, 5};
    for (int power = (int)floor(log10(p->x.low)); power <= log10(p->x.high); power++) {
        for (int i = 0; i < 3; i++) {
            char text[TERM_SIZE_TEXT];
            double cost = digits[i] * pow(10, power);
            if (cost < p->x.low || cost > p->x.high) continue;
            if (p->by_time) {
                snprintf(text, sizeof text, "%g s", cost);
            } else {
                term_size(text, (uint64_t)(cost + 0.5));
            }
            svg_text(out, svg_place(&p->x, cost), p->y.from + 20, "middle", NULL, "%s", text);
        }
    }
}

static void draw_frame(output *out, panel *p, const char *title) {
    double step = svg_round(&p->y, 7);
    svg_rows(out, &p->y, step, LEFT, RIGHT);
    draw_costs(out, p);
    svg_text(out, LEFT - 50, p->y.to - 16, "start", NULL, "%s", title);
    svg_text(out, (LEFT + RIGHT) / 2.0, p->y.from + 40, "middle", NULL,
             p->by_time ? "time of %lld tokens read" : "cache at %lld tokens",
             (long long)(p->by_time ? p->r->task->n_document : p->r->cache_at));
}

static double x_of(const panel *p, const tune_point *point) {
    return svg_place(&p->x, cost_of(p, point));
}

static double y_of(const panel *p, const tune_point *point) {
    return svg_place(&p->y, value_of(point, p->what));
}

/* Points of a curve differ in g alone, or in recall, which is told beside them. */
static bool same_curve(const panel *p, const tune_point *a, const tune_point *b) {
    if (!is_drawn(b) || a->window_size != b->window_size) return false;
    if (!p->by_time) return a->recall == b->recall && a->cores == b->cores;
    return a->group_size == b->group_size && a->cores == b->cores;
}

/* Points of the Pareto set are filled, the chosen one is encircled, each tells its g or recall. */
static void draw_point(output *out, const panel *p, const tune_point *point, const char *colour) {
    double x = x_of(p, point), y = y_of(p, point);
    if (point->chosen) svg_dot(out, x, y, 9, colour, false);
    svg_dot(out, x, y, 4, colour, point->pareto);
    if (!tune_is_full(point)) {
        svg_text(out, x + 6, y - 6, "start", colour, "%lld",
                 (long long)(p->by_time ? point->recall : point->group_size));
    }
}

static void name_curve(char out[TUNE_NAME], const panel *p, const tune_point *start) {
    tune_point_name(out, start);
    if (tune_is_full(start)) return;
    if (p->by_time) {
        snprintf(out, TUNE_NAME, "g = %lld, s = %lld, %s", (long long)start->group_size,
                 (long long)start->window_size, start->cores ? "cores" : "no cores");
    } else {
        snprintf(out, TUNE_NAME, "s = %lld%s, g beside points", (long long)start->window_size,
                 start->recall == 0 ? ""
                 : start->cores     ? ", cores"
                                    : ", no cores");
    }
}

static void draw_curve(output *out, const panel *p, size_t first, int index) {
    const tune_point *points = p->r->points, *start = &points[first];
    const char *colour = svg_colour(index);
    svg_path_begin(out, colour, false);
    for (size_t i = first; i < p->r->n; i++) {
        if (same_curve(p, start, &points[i])) {
            svg_path_to(out, x_of(p, &points[i]), y_of(p, &points[i]));
        }
    }
    svg_path_end(out);
    for (size_t i = first; i < p->r->n; i++) {
        if (same_curve(p, start, &points[i])) draw_point(out, p, &points[i], colour);
    }
    char name[TUNE_NAME];
    name_curve(name, p, start);
    svg_text(out, RIGHT + 12, p->y.to + 12 + 20 * index, "start", colour, "%s", name);
}

static void draw_panel(output *out, panel *p, const char *title) {
    const tune_point *points = p->r->points;
    int n_curves = 0;
    draw_frame(out, p, title);
    for (size_t i = 0; i < p->r->n; i++) {
        bool begins = is_drawn(&points[i]);
        for (size_t k = 0; begins && k < i; k++) begins = !same_curve(p, &points[i], &points[k]);
        if (begins) draw_curve(out, p, i, n_curves++);
    }
}

void tune_report_svg(output *out, const tune_report *r) {
    bool facts = r->task->n_facts > 0;
    panel perplexity = make_panel(r, PERPLEXITY, TOP);
    svg_begin(out, WIDTH, TOP + (facts ? 2 : 1) * (PANEL + GAP) + (facts ? GAP / 2 : 0));
    draw_panel(out, &perplexity,
               perplexity.by_time
                   ? "perplexity; tokens recalled beside points; filled: the Pareto set"
                   : "perplexity; filled: the Pareto set");
    if (facts) {
        panel found = make_panel(r, FACTS, TOP + PANEL + GAP + GAP / 2);
        draw_panel(out, &found, "facts found, per cent");
    }
    svg_end(out);
}
